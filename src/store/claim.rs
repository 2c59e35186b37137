//! Taking jobs out of the queue.

use super::{Doing, Store, StoreError};
use crate::domain::bulk::{self, MOST_MEMBERS, is_too_much};
use crate::domain::metadata::MOST_CHARS;
use crate::domain::reask::MOST_ANSWER_BYTES;
use crate::domain::{ErrorClass, JobId, Metadata, SoftFailure, Timestamp, bounds};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// How much to take from a lane.
#[derive(Clone, Copy, Debug)]
pub struct Take {
    pub flow: i64,
    /// The lane's priority.
    pub prio: i16,
    /// Only jobs after this one: earlier ones were seen taken, and are not read again.
    pub after: i64,
    /// At most this many.
    pub count: i32,
}

/// Jobs of one lane that workers have died with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspects {
    pub flow: i64,
    /// The lane's priority.
    pub prio: i16,
    /// How many workers died with each.
    pub crashes: i16,
    /// How many jobs there are.
    pub jobs: i64,
    /// The first of them.
    pub first: i64,
    pub route: String,
    pub project: String,
    pub batch: Option<String>,
}

/// Numbers for claims. A sequence of the database would go back when a failover loses commits or a backup is restored.
/// A worker that lives through that, or a spool that waits for it, would then meet its own numbers again as those of
/// another.
#[derive(Debug)]
pub(super) struct Fences(AtomicI64);

impl Fences {
    /// Numbers of one process: 30 bits that no other process has, and room for four thousand million claims. All are
    /// above any number that a sequence gives.
    pub fn new() -> Self {
        let chance = RandomState::new().build_hasher().finish() >> 34;
        let own = i64::try_from(chance).unwrap_or(0) << 32;
        Self(AtomicI64::new((1 << 62) | own))
    }

    /// Reserves `count` numbers; returns the one before the first of them.
    fn reserve(&self, count: i64) -> i64 {
        self.0.fetch_add(count, Ordering::Relaxed)
    }
}

/// A worker's right to act for one job. Equal by job and fence.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Lease {
    pub job: JobId,
    /// Unique to this claim, over all workers and all times: a write with another fence changes nothing.
    pub fence: i64,
    /// When the job was created, as a number that only this database understands. After a failover that lost commits,
    /// or a restored backup, another job may have the same number. 0: not known.
    #[serde(default)]
    pub born: i64,
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        (self.job, self.fence) == (other.job, other.fence)
    }
}

impl Eq for Lease {}

impl Hash for Lease {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.job, self.fence).hash(state);
    }
}

/// How much a claim takes, and what of each job.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// How many bytes the requests may take in memory together; the first is taken regardless of its size.
    pub room: usize,
    /// The members of the metadata that are taken.
    pub members: &'a Arc<[String]>,
    /// About how many bytes a request takes in memory, by its job's route and its text.
    pub weigh: &'a (dyn Fn(&str, &str) -> usize + Sync),
}

/// A job in a worker's hands.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The right to act for it.
    pub lease: Lease,
    /// Its lane, so that it can be given back.
    pub flow: i64,
    /// Its lane's priority.
    pub prio: i16,
    /// Calls made for it so far.
    pub attempts: i16,
    /// Workers that died holding it.
    pub crashes: i16,
    /// How often an operator has asked for it to be tried anew.
    pub round: i16,
    pub route: String,
    pub project: String,
    pub batch: Option<String>,
    /// The login that enqueued it.
    pub login: String,
    /// The later of `created_at` and `run_at`.
    pub ready_at: Timestamp,
    /// What it waited for before it came into the queue; `None`: for nothing, or it is not known.
    pub waited: Option<String>,
    /// No call after this instant.
    pub deadline: Option<Timestamp>,
    /// Its own bound on attempts.
    pub max_attempts: Option<i16>,
    /// The request as it was inserted: the text of anything that is JSON.
    pub request: Result<Box<str>, NoRequest>,
    /// Some members of its metadata.
    pub metadata: Metadata,
    /// About how many bytes the request takes in memory.
    pub weight: usize,
}

/// Why a claimed job comes without its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRequest {
    /// It cannot be read, in words.
    Unreadable(String),
    /// There is no room for it beside the others: the job has to go back.
    NoRoom,
}

/// The result of a claim.
#[derive(Debug)]
pub struct Claim {
    pub jobs: Vec<Claimed>,
    /// There are more jobs: the requests of these came to [`MOST_STORED_BYTES`].
    pub is_cut: bool,
}

/// The instant at which a job was created, as the server sends it, as a number.
fn born(instant: &[u8]) -> i64 {
    instant.try_into().map_or(0, i64::from_be_bytes)
}

/// The most bytes of a request, as text. The database refuses larger ones when they come in; some may date from before
/// it did.
pub const MOST_REQUEST_BYTES: i32 = bounds::MOST_REQUEST_BYTES;

/// A claim ends with the request that brings it to this many bytes, as Postgres stores them.
pub const MOST_STORED_BYTES: i64 = 16 << 20;

/// Checks the text of a request. Postgres takes larger JSON than is good to read here, and one such row must not stop
/// those that are claimed with it.
fn read_request(text: Option<&str>) -> Result<Box<str>, String> {
    let text = text.ok_or_else(|| format!("is larger than {} MB", MOST_REQUEST_BYTES >> 20))?;
    if is_too_much(text.as_bytes()) {
        return Err(format!("has more than {MOST_MEMBERS} members"));
    }
    Ok(text.into())
}

/// A row of the ledger as the decision needs it.
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
#[derive(Clone, Debug)]
pub struct PastAttempt {
    pub job: JobId,
    /// The provider that it asked.
    pub provider: String,
    /// The model that it asked for.
    pub model: String,
    /// Whether the answer was accepted.
    pub accepted: bool,
    /// The error class, if the answer was not accepted.
    pub class: Option<ErrorClass>,
    /// The gravest soft failure.
    pub detail: Option<String>,
    /// The provider's message about a failure.
    pub message: Option<String>,
    pub ended_at: Timestamp,
    /// When the provider wants to be asked again.
    pub retry_at: Option<Timestamp>,
    /// Its cost; `None`: the price is unknown.
    pub cost_nanos: Option<i64>,
    /// What it may have cost in addition.
    pub uncertain_nanos: i64,
    /// Whether it belongs to the job's present round.
    pub current_round: bool,
    /// Its ordinal within the job.
    pub number: i16,
    /// The number of the attempt whose rejected answer it named.
    pub reask_of: Option<i16>,
    /// The provider's word for why its answer ended.
    pub finish: Option<String>,
    /// Tokens of its answer, if the provider reported them.
    pub output: Option<i64>,
    /// Its output cap was larger than usual, because the one before it had cut an answer.
    pub raised: bool,
    /// How sure the rung was of its answer.
    pub confidence: Option<f64>,
    /// It failed together with other jobs, in a way that says nothing of this one.
    pub parted: bool,
    /// The rejected answer, as the message of a chat completion, where the same rung may be asked again with its fault
    /// named.
    pub answer: Option<Value>,
}

pub(crate) fn timestamp(at: DateTime<Utc>) -> Timestamp {
    Timestamp(at.timestamp_millis())
}

pub(crate) fn datetime(at: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.0).unwrap_or(if at.0 < 0 {
        DateTime::UNIX_EPOCH
    } else {
        DateTime::<Utc>::MAX_UTC
    })
}

impl Store {
    /// Takes jobs from the front of lanes for `worker`, in index order, skipping those that others are taking. Their
    /// requests together take no more than `room` bytes in memory; the first request is kept regardless of its size.
    pub async fn claim(&self, worker: i64, takes: &[Take], room: usize) -> Result<Claim, StoreError> {
        let terms = Terms { room, members: &Arc::default(), weigh: &|_, text| bulk::weight(text) };
        self.claim_of(worker, takes, &[], None, &terms).await
    }

    /// As [`claim`](Self::claim), but only jobs with which this many workers have died, and on these terms. `places`:
    /// for each of the first lanes [`Lane::place`](super::lanes::Lane::place), where it is known.
    pub async fn claim_of(
        &self,
        worker: i64,
        takes: &[Take],
        places: &[Option<String>],
        crashes: Option<i16>,
        terms: &Terms<'_>,
    ) -> Result<Claim, StoreError> {
        let Terms { room, members, weigh } = *terms;
        let flows: Vec<i64> = takes.iter().map(|take| take.flow).collect();
        let prios: Vec<i16> = takes.iter().map(|take| take.prio).collect();
        let afters: Vec<i64> = takes.iter().map(|take| take.after).collect();
        let counts: Vec<i32> = takes.iter().map(|take| take.count).collect();
        let doing = "claiming jobs";
        let asked = counts.iter().map(|count| i64::from((*count).max(0))).sum();
        let mut rows = sqlx::query_file!(
            "src/store/claim/claim.sql",
            worker,
            &flows,
            &prios,
            &afters,
            &counts,
            MOST_REQUEST_BYTES,
            MOST_STORED_BYTES,
            self.fences.reserve(asked),
            crashes,
            &members[..],
            MOST_CHARS,
            places as _
        )
        .fetch(&self.db);
        let mut claim = Claim { jobs: Vec::new(), is_cut: false };
        let mut used = 0_usize;
        while let Some(row) = rows.try_next().await.doing(doing)? {
            claim.is_cut |= row.cut;
            let text = row.request.as_deref();
            let weight = text.map_or(0, |text| weigh(&row.route, text));
            // The stored form may have been a hundred times smaller.
            let fits = claim.jobs.is_empty() || used.saturating_add(weight) <= room;
            let request = if fits { read_request(text).map_err(NoRequest::Unreadable) } else { Err(NoRequest::NoRoom) };
            let weight = if request.is_ok() { weight } else { 0 };
            used = used.saturating_add(weight);
            claim.jobs.push(Claimed {
                lease: Lease { job: JobId(row.job_id), fence: row.fence, born: born(&row.born) },
                flow: row.flow,
                prio: row.prio,
                attempts: row.attempts,
                crashes: row.crashes,
                round: row.round,
                route: row.route,
                project: row.project,
                batch: row.batch,
                login: row.login,
                ready_at: timestamp(row.ready_at),
                waited: row.waited,
                deadline: row.deadline.map(timestamp),
                max_attempts: row.max_attempts,
                request,
                metadata: Metadata::new(Arc::clone(members), row.metadata.unwrap_or_default()),
                weight,
            });
        }
        self.highest.note(claim.jobs.iter().map(|job| job.lease));
        Ok(claim)
    }

    /// Jobs with which workers have died and that wait to be taken again, by lane and number of crashes. There are few,
    /// and they have an index of their own.
    pub async fn suspects(&self) -> Result<Vec<Suspects>, StoreError> {
        sqlx::query_as!(
            Suspects,
            r#"select s.flow as "flow!", s.prio as "prio!", s.crashes as "crashes!", s.jobs as "jobs!",
                      s.first as "first!", j.route, j.project, j.batch
                 from (select flow, prio, crashes, count(*) as jobs, min(job_id) as first from sluice.ready
                        where crashes > 0 group by flow, prio, crashes) s
                      cross join lateral (
                      select b.route, b.project, b.batch from sluice.job b where b.id = s.first limit 1) j
                order by s.flow, s.prio, s.crashes"#
        )
        .fetch_all(&self.db)
        .await
        .doing("looking for jobs that workers died with")
    }

    /// The ledger of these jobs, oldest first, from which `decide` continues when a job was tried before.
    pub async fn history(&self, jobs: &[Lease]) -> Result<Vec<PastAttempt>, StoreError> {
        let ids: Vec<i64> = jobs.iter().map(|lease| lease.job.0).collect();
        let kinds = SoftFailure::ALL.iter().filter(|kind| kind.facts().reask.is_some()).map(|kind| kind.as_str());
        let kinds: Vec<String> = kinds.map(str::to_owned).collect();
        let most = i32::try_from(MOST_ANSWER_BYTES).unwrap_or(i32::MAX);
        let rows = sqlx::query!(
            r#"select a.job_id, a.provider, a.model, a.accepted, a.class, a.detail, a.message, a.ended_at,
                      a.retry_at, a.cost_nanos, a.uncertain_nanos, a.round = i.round as "current_round!",
                      a.number, a.reask_of, a.confidence, a.finish,
                      case when a.usage_source = 'provider' then a.output_tokens end as output,
                      coalesce(a.decision ? 'raised_cap', false) as "raised!",
                      coalesce(a.decision #> '{pack,parted}' = 'true', false) as "parted!",
                      case when a.detail = any ($2) and a.round = i.round and pg_column_size(a.answer) <= $3
                           then (a.answer #> '{choices,0,message}')::text end as answer
                 from unnest($1::bigint[]) w(id)
                      join sluice.inflight i on i.job_id = any (array[w.id])
                      cross join lateral (select * from sluice.attempt t
                                           where t.job_id = any (array[w.id])
                                             -- Not those of another job that had the number.
                                             and t.round >= 0
                                             -- A lookup for each job, whatever the planner knows of the table.
                                          offset 0) a
                order by a.job_id, a.ended_at, a.number"#,
            &ids,
            &kinds,
            most
        )
        .fetch_all(&self.db)
        .await
        .doing("reading attempts")?;
        Ok(rows
            .into_iter()
            .map(|row| PastAttempt {
                job: JobId(row.job_id),
                provider: row.provider,
                model: row.model,
                accepted: row.accepted,
                class: row.class.and_then(|class| class.parse().ok()),
                detail: row.detail,
                message: row.message,
                ended_at: timestamp(row.ended_at),
                retry_at: row.retry_at.map(timestamp),
                cost_nanos: row.cost_nanos,
                uncertain_nanos: row.uncertain_nanos,
                current_round: row.current_round,
                number: row.number,
                reask_of: row.reask_of,
                finish: row.finish,
                output: row.output,
                raised: row.raised,
                confidence: row.confidence,
                parted: row.parted,
                // It was written by a worker; one that cannot be read is not named again.
                answer: row.answer.and_then(|answer| serde_json::from_str(&answer).ok()),
            })
            .collect())
    }
}
