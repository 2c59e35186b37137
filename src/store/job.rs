//! One job: its request, its place, and the calls made for it.

use super::{Doing, Store, StoreError};
use crate::domain::job::JobState;
use crate::domain::obstacle::{Hindrance, JobPause, Obstacle, Subject};
use crate::domain::pause::FixedWait;
use crate::domain::{JobId, NanoUsd, Timestamp};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// A job as it was enqueued, and its present place.
#[derive(Clone, Debug)]
pub struct JobRecord {
    pub id: i64,
    pub route: String,
    /// The project that pays for it.
    pub project: String,
    pub batch: Option<String>,
    /// The user's own name for it.
    pub custom_id: Option<String>,
    /// Higher goes first.
    pub priority: i16,
    /// Not before this instant.
    pub run_at: Option<DateTime<Utc>>,
    /// No call after this instant.
    pub deadline: Option<DateTime<Utc>>,
    /// Its own bound on attempts.
    pub max_attempts: Option<i16>,
    pub enqueued_by: String,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// The user's own notes on it.
    pub metadata: Option<Value>,
    /// The prompt. It is shown only on request.
    pub request: Value,
    pub place: Place,
    /// The job by which another target was asked for the same.
    pub shadow: Option<i64>,
    /// The job whose shadow it is.
    pub shadow_of: Option<i64>,
    /// The obstacle to it.
    pub obstacle: Option<Box<Obstacle>>,
}

/// The place of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// In the queue: a worker may take it.
    Ready {
        /// Workers that died with it.
        crashes: i16,
        /// The known obstacle, as `sluice.jobs.waits_for` has it.
        waits_for: Option<String>,
        /// When the first job with that obstacle may start, as far as a worker knows.
        opens: Option<DateTime<Utc>>,
    },
    /// Waiting.
    Parked {
        /// When the wait ends.
        until: DateTime<Utc>,
        /// The reason of the wait, as `sluice.jobs.waits_for` has it.
        reason: String,
    },
    /// In the hands of a worker.
    Running {
        worker: i64,
        /// Its machine; unknown when its row is gone.
        host: Option<String>,
        pid: Option<i32>,
        /// When the worker took it.
        since: DateTime<Utc>,
        /// Whether that worker is alive; if not, the job is about to be given to another.
        alive: bool,
        /// Its call that is under way: the target, and when it was sent.
        call: Option<(String, DateTime<Utc>)>,
    },
    Ended(Box<Ended>),
    /// In no queue, so that no worker takes it: it came in while triggers were off.
    Nowhere,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// One of those that have ended.
    pub state: JobState,
    pub at: DateTime<Utc>,
    /// The target that answered, or was asked last.
    pub target: Option<String>,
    /// Whether the answer was repaired.
    pub repaired: bool,
    /// The earlier job whose answer it has; `None`: it was asked for itself.
    pub answered_from: Option<i64>,
    /// Whether its rung was not sure enough of the answer, and no surer one came.
    pub low_confidence: bool,
    pub error_class: Option<String>,
    /// The reason of its failure.
    pub error: Option<String>,
    /// All attempts together; `None`: the price of one is unknown.
    pub cost: Option<NanoUsd>,
    /// The amount that may have been spent in addition.
    pub uncertain: NanoUsd,
    /// The answer as a chat completion.
    pub response: Option<Value>,
}

impl Ended {
    /// The target that gave the answer; `None` when there is none.
    #[must_use]
    pub fn answered_by(&self) -> Option<&str> {
        self.target.as_deref().filter(|_| self.state == JobState::Succeeded)
    }

    /// The target that was asked last, when no answer came of it.
    #[must_use]
    pub fn last_asked(&self) -> Option<&str> {
        self.target.as_deref().filter(|_| self.state != JobState::Succeeded)
    }
}

impl Place {
    /// The state as users know it.
    #[must_use]
    pub const fn state(&self) -> JobState {
        match self {
            Self::Ready { .. } | Self::Parked { .. } | Self::Nowhere => JobState::Queued,
            Self::Running { .. } => JobState::Running,
            Self::Ended(ended) => ended.state,
        }
    }
}

/// A row of the ledger, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// Its ordinal within the job.
    pub number: i16,
    /// Which round of the job: a retry by hand begins a new one.
    pub round: i16,
    /// The provider that it asked.
    pub provider: String,
    /// The model that it asked for.
    pub model: String,
    /// Index of the rung in the route's listed order.
    pub rung: Option<i16>,
    /// When the call began.
    pub started_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: DateTime<Utc>,
    /// Milliseconds until the answer's head.
    pub first_byte_ms: Option<i32>,
    pub total_ms: i32,
    /// Whether the answer was used.
    pub accepted: bool,
    /// The error class, if the answer was not used.
    pub class: Option<String>,
    /// The gravest soft failure.
    pub detail: Option<String>,
    /// HTTP status.
    pub http_status: Option<i16>,
    /// The provider's error code.
    pub code: Option<String>,
    /// The provider's or the validator's message.
    pub message: Option<String>,
    /// When the provider wants to be asked again.
    pub retry_at: Option<DateTime<Utc>>,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// The model that the provider says it used.
    pub model_served: Option<String>,
    /// The provider's own finish reason.
    pub finish: Option<String>,
    /// `provider`, `estimated` or `unknown`.
    pub usage_source: String,
    /// Input that was neither read from nor written to a cache.
    pub input_tokens: i64,
    /// Input read from a cache.
    pub cache_read_tokens: i64,
    /// Input written to a cache.
    pub cache_write_tokens: i64,
    /// Output, reasoning included.
    pub output_tokens: i64,
    /// The part of the output that was reasoning.
    pub reasoning_tokens: i64,
    /// Its cost in billionths of a dollar; `None`: the price is unknown.
    pub cost_nanos: Option<i64>,
    /// The amount that may have been spent in addition.
    pub uncertain_nanos: i64,
    /// The price that was used.
    pub price: Option<Value>,
    /// Why this rung; `None` when it was simply the first.
    pub decision: Option<Value>,
    /// The tier that served it, in the provider's word.
    pub service_tier: Option<String>,
    /// What the provider says it cost, in billionths of a dollar.
    pub reported_cost_nanos: Option<i64>,
    /// The origin of the cost: `price` or `reported`.
    pub cost_source: Option<String>,
    /// Tokens times the price, in billionths of a dollar, regardless of what the provider says.
    pub computed_cost_nanos: Option<i64>,
    /// Whether the two differed by more than the configuration allowed.
    pub cost_differs: bool,
    /// When its cost was computed again for the last time.
    pub repriced_at: Option<DateTime<Utc>>,
    /// What it said of its cost before: a list, the latest last.
    pub repriced_from: Option<Value>,
    /// Repairs and cuts that the answer needed, and doubts about it.
    pub notes: Option<Value>,
    /// Whether the ledger has the answer as it came, because it was rejected or repaired.
    pub has_answer: bool,
    /// The number of the attempt whose rejected answer the call named.
    pub reask_of: Option<i16>,
    /// How sure the rung was of its answer; `None`: its route does not ask, or it does not say.
    pub confidence: Option<f64>,
}

/// An answer on the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The attempt that it came of, together with the next.
    pub number: i16,
    /// When that began.
    pub started_at: DateTime<Utc>,
    /// Its beginning.
    pub text: String,
    /// Its length in characters.
    pub length: i32,
}

/// The result of a request to change a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The change was made.
    Yes,
    /// The job's state does not allow it.
    No,
    /// A worker has the job.
    Running,
    NoSuchJob,
}

impl Changed {
    /// The functions of the schema raise `no_data_found` for a job that does not exist, and `object_in_use` for one
    /// that a worker has.
    fn of(answer: Result<Option<bool>, sqlx::Error>, doing: &'static str) -> Result<Self, StoreError> {
        match answer {
            Ok(Some(true)) => Ok(Self::Yes),
            Ok(_) => Ok(Self::No),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("P0002") => Ok(Self::NoSuchJob),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55006") => Ok(Self::Running),
            Err(source) => Err(source).doing(doing),
        }
    }
}

/// The value of a JSON text; a text that cannot be read here (nested too deep, a number too large) is shown as it is.
fn readable(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

impl Store {
    /// One job; `None` when there is none with this number.
    pub async fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        // One statement, so that it sees the tables between which the job moves at one instant.
        let row = sqlx::query_file!("src/store/job/record.sql", id.0)
            .fetch_optional(&self.db)
            .await
            .doing("reading the job")?;
        let Some(row) = row else { return Ok(None) };
        let obstacle = match &row.waits_for {
            Some(code) => {
                let millis = |at: DateTime<Utc>| Timestamp(at.timestamp_millis());
                let ready_at = row.run_at.map_or(row.created_at, |run_at| run_at.max(row.created_at));
                let subject = Subject {
                    route: &row.route,
                    project: Some(&row.project),
                    batch: row.batch.as_deref(),
                    ready_at: Some(millis(ready_at)),
                    rests_until: row.parked_until.map(millis),
                };
                let mut obstacle = Obstacle::of(code, subject, &self.known().await?);
                if let (Hindrance::Paused(by), Some(since)) = (&mut obstacle.kind, row.paused_since) {
                    *by = Some(JobPause { by: row.paused_by, since: millis(since), why: row.pause_reason });
                }
                Some(obstacle)
            }
            // Its worker is dead: whether another one takes over depends on whether one is there.
            None if row.worker.is_some() && !row.alive && row.state.is_none() => {
                let known = self.known().await?;
                let subject = Subject { route: &row.route, ..Subject::default() };
                known.workers.is_empty().then(|| Obstacle::of(FixedWait::NoWorker.as_str(), subject, &known))
            }
            // In the hands of a worker that makes no call for it: what the jobs of its route wait for there.
            None if row.worker.is_some() && row.state.is_none() && row.call_target.is_none() => {
                let known = self.known().await?;
                let subject = Subject {
                    route: &row.route,
                    project: Some(&row.project),
                    batch: row.batch.as_deref(),
                    ..Subject::default()
                };
                let wait = known.workers.iter().find_map(|worker| worker.waits.get(&row.route));
                wait.map(|wait| Obstacle::of(&wait.reason, subject, &known))
            }
            None => None,
        };
        Ok(Some({
            let state = row.state.as_deref().map(|word| JobState::ended(word).unwrap_or(JobState::Failed));
            let place = if let (Some(state), Some(at)) = (state, row.finished_at) {
                Place::Ended(Box::new(Ended {
                    state,
                    at,
                    target: row.target,
                    repaired: row.repaired.unwrap_or(false),
                    answered_from: row.answered_from,
                    low_confidence: row.low_confidence.unwrap_or(false),
                    error_class: row.error_class,
                    error: row.error,
                    cost: row.cost_nanos.map(NanoUsd),
                    uncertain: NanoUsd(row.uncertain_nanos.unwrap_or(0)),
                    response: row.response,
                }))
            } else if let (Some(worker), Some(since)) = (row.worker, row.claimed_at) {
                Place::Running {
                    worker,
                    host: row.host,
                    pid: row.pid,
                    since,
                    alive: row.alive,
                    call: row.call_target.zip(row.call_started),
                }
            } else if let (Some(until), Some(reason)) = (row.parked_until, row.parked_reason) {
                Place::Parked { until, reason: row.waits_for.unwrap_or(reason) }
            } else if let Some(crashes) = row.ready_crashes {
                let opens = obstacle.as_ref().and_then(|obstacle| DateTime::from_timestamp_millis(obstacle.until?.0));
                Place::Ready { crashes, waits_for: row.waits_for, opens }
            } else {
                // All places were seen at one instant, and at any instant a job is in exactly one.
                Place::Nowhere
            };
            JobRecord {
                id: id.0,
                route: row.route,
                project: row.project,
                batch: row.batch,
                custom_id: row.custom_id,
                priority: row.priority,
                run_at: row.run_at,
                deadline: row.deadline,
                max_attempts: row.max_attempts,
                enqueued_by: row.enqueued_by,
                created_at: row.created_at,
                metadata: row.metadata.map(readable),
                request: readable(row.request),
                place,
                shadow: row.shadow,
                shadow_of: row.shadow_of,
                obstacle: obstacle.map(Box::new),
            }
        }))
    }

    /// The ledger of one job, oldest first.
    pub async fn job_attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, StoreError> {
        sqlx::query_as!(
            AttemptRecord,
            r#"select number, round, provider, model, rung, started_at, ended_at, first_byte_ms, total_ms, accepted,
                    class, detail, http_status, code, message, retry_at, request_id, model_served, finish, usage_source,
                    input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nanos,
                    uncertain_nanos, price, decision, service_tier, reported_cost_nanos, cost_source,
                    computed_cost_nanos, cost_differs, repriced_at, repriced_from, notes,
                    answer is not null as "has_answer!", reask_of,
                    confidence
               from sluice.attempt where job_id = $1 order by started_at, number, fence"#,
            id.0
        )
        .fetch_all(&self.db)
        .await
        .doing("reading attempts")
    }

    /// The answers that the ledger of a job has, because they were rejected or repaired, as texts of at most `most`
    /// characters; of an answer without a text, such as calls of tools, its JSON.
    pub async fn kept_answers(&self, id: JobId, most: i32) -> Result<Vec<KeptAnswer>, StoreError> {
        sqlx::query_as!(
            KeptAnswer,
            r#"select k.number, k.started_at, left(k.text, $2) as "text!", length(k.text) as "length!"
                 from (select a.number, a.started_at, a.fence,
                              coalesce(nullif(a.answer #>> '{choices,0,message,content}', ''), a.answer::text) as text
                         from sluice.attempt a where a.job_id = $1 and a.answer is not null) k
                order by k.started_at, k.number, k.fence"#,
            id.0,
            most
        )
        .fetch_all(&self.db)
        .await
        .doing("reading answers")
    }

    /// Cancels a job that has not ended. A call under way is dropped by its worker.
    pub async fn cancel_job(&self, id: JobId) -> Result<Changed, StoreError> {
        let answer = sqlx::query_scalar!("select sluice.cancel($1::bigint)", id.0).fetch_one(&self.db).await;
        Changed::of(answer, "cancelling the job")
    }

    /// Puts a failed or cancelled job back into the queue, with a fresh count of attempts.
    pub async fn retry_job(&self, id: JobId) -> Result<Changed, StoreError> {
        let answer = sqlx::query_scalar!("select sluice.retry($1::bigint)", id.0).fetch_one(&self.db).await;
        Changed::of(answer, "retrying the job")
    }

    /// How many of these jobs wait although their deadline is over.
    pub async fn overdue(&self, jobs: &[i64]) -> Result<i64, StoreError> {
        sqlx::query_scalar!(
            r#"select count(*) as "overdue!" from sluice.job j
                where j.id = any ($1) and j.deadline <= now()
                  and not exists (select from sluice.result r where r.job_id = j.id)"#,
            jobs
        )
        .fetch_one(&self.db)
        .await
        .doing("looking at deadlines")
    }

    /// Pauses a job that waits.
    pub async fn pause_job(&self, id: JobId, reason: Option<&str>) -> Result<Changed, StoreError> {
        let answer =
            sqlx::query_scalar!("select sluice.pause($1::bigint, $2::text)", id.0, reason).fetch_one(&self.db).await;
        Changed::of(answer, "pausing the job")
    }

    /// Lets a paused job go on.
    pub async fn resume_job(&self, id: JobId) -> Result<Changed, StoreError> {
        let answer = sqlx::query_scalar!("select sluice.resume($1::bigint)", id.0).fetch_one(&self.db).await;
        Changed::of(answer, "resuming the job")
    }

    /// Sends a job that waits along another route, where it begins anew.
    pub async fn move_job(&self, id: JobId, route: &str) -> Result<Changed, StoreError> {
        let answer = sqlx::query_scalar!("select sluice.move($1, $2)", id.0, route).fetch_one(&self.db).await;
        Changed::of(answer, "moving the job")
    }

    /// Gives a job that waits another priority.
    pub async fn reprioritize_job(&self, id: JobId, priority: i16) -> Result<Changed, StoreError> {
        let answer = sqlx::query_scalar!("select sluice.reprioritize($1, $2)", id.0, i32::from(priority))
            .fetch_one(&self.db)
            .await;
        Changed::of(answer, "changing the priority of the job")
    }
}
