//! Writing the results of jobs: attempts, endings, and jobs given back.
//!
//! One transaction settles many jobs. Every ending and every park checks the fence: a worker whose lease is gone
//! changes nothing, except that a late answer is used if the job is still open ([`super::late`]). Attempts are always
//! booked, because the money was spent; the same attempt sent twice is one row.

mod books;
mod endings;
mod shadow;
mod sums;

pub use shadow::CastShadow;

use super::call::{self, Noted};
use super::claim::{Claimed, Lease, datetime};
use super::database::Transaction;
use super::late::Gone;
use super::{Doing, Store, StoreError, bill, late, unsure};
use crate::domain::abandonment::Abandonment;
use crate::domain::explanation::Explanation;
use crate::domain::price::Price;
use crate::domain::{Answer, CacheKey, ErrorClass, FirstChoice, JobId, NanoUsd, Timestamp, Usage};
use endings::Ended;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use sums::Sums;

/// The labels of a job, by which sums are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Labels {
    /// The job's route.
    pub route: String,
    /// The job's project.
    pub project: String,
    /// The job's batch.
    pub batch: Option<String>,
    /// The login that enqueued it; empty: a worker of an earlier version has written it to its spool.
    #[serde(default)]
    pub login: String,
}

impl Claimed {
    /// The labels of the job.
    #[must_use]
    pub fn labels(&self) -> Labels {
        Labels {
            route: self.route.clone(),
            project: self.project.clone(),
            batch: self.batch.clone(),
            login: self.login.clone(),
        }
    }
}

/// A row for the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptRow {
    /// The claim under which the call was made.
    pub lease: Lease,
    /// The job's labels.
    pub labels: Arc<Labels>,
    /// Its ordinal within the job, from 1.
    pub number: i16,
    /// The job's round.
    pub round: i16,
    /// The provider that it asked.
    pub provider: String,
    /// The model that it asked for.
    pub model: String,
    /// Index of the rung in the route's listed order.
    pub rung: i16,
    /// When the call began.
    pub started_at: Timestamp,
    /// When it was over.
    pub ended_at: Timestamp,
    /// Milliseconds until the answer's head.
    pub first_byte_ms: Option<i32>,
    /// Milliseconds in all.
    pub total_ms: i32,
    /// `None`: accepted.
    pub class: Option<ErrorClass>,
    /// The gravest soft failure by name, or another detail of the class.
    pub detail: Option<Cow<'static, str>>,
    /// HTTP status.
    pub http_status: Option<u16>,
    /// The provider's error code.
    pub code: Option<String>,
    /// The provider's or the validator's message.
    pub message: Option<String>,
    /// When the provider wants to be asked again.
    pub retry_at: Option<Timestamp>,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// The model that the provider says it used.
    pub model_served: Option<String>,
    /// The provider's own finish reason.
    pub finish: Option<String>,
    /// The provider's usage as it came.
    pub usage_raw: Option<Value>,
    /// Tokens, normalised.
    pub usage: Usage,
    /// `None`: the price is unknown.
    pub cost: Option<NanoUsd>,
    /// The amount that may have been spent in addition to `cost`.
    pub uncertain: NanoUsd,
    /// The price by which `computed_cost` was computed.
    pub price: Option<Price>,
    /// Why this rung; `None` when it was simply the first.
    pub decision: Option<Explanation>,
    /// The answer, when it was rejected; as it came, when it was repaired; what had come of a stream that broke off.
    #[serde(rename = "rejected")]
    pub answer: Option<Box<Answer>>,
    /// The tier that served it, in the provider's word.
    #[serde(default)]
    pub service_tier: Option<String>,
    /// What the provider says it cost.
    #[serde(default)]
    pub reported_cost: Option<NanoUsd>,
    /// Tokens times the price; `None`: no price is known, or nothing was charged.
    #[serde(default)]
    pub computed_cost: Option<NanoUsd>,
    /// Whether the two differ by more than the configuration allows.
    #[serde(default)]
    pub cost_differs: bool,
    /// The origin of `cost`: `price` or `reported`.
    #[serde(default)]
    pub cost_source: Option<Cow<'static, str>>,
    /// Repairs and cuts that the answer needed, and doubts about it.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The number of the attempt whose rejected answer the call named.
    #[serde(default)]
    pub reask_of: Option<i16>,
    /// How sure the rung was of its answer, where the route asks for that.
    #[serde(default)]
    pub confidence: Option<f64>,
    /// The first choice of its job, where another target gave the answer.
    #[serde(default)]
    pub first_choice: Option<FirstChoice>,
    /// Several calls were under way under its claim.
    #[serde(default)]
    pub raced: bool,
}

/// How a job ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndingRow {
    /// The claim that ends it.
    pub lease: Lease,
    /// The job's round.
    pub round: i16,
    /// The job's labels.
    pub labels: Arc<Labels>,
    /// Calls made for it in all.
    pub attempts: i16,
    /// The target that answered, or was asked last.
    pub target: Option<(String, String)>,
    /// Index of that rung.
    pub rung: Option<i16>,
    /// Whether another target had been tried or passed over before.
    pub after_fallback: bool,
    /// Whether the answer was repaired.
    pub repaired: bool,
    /// Class and reason of a failure; `None`: the job succeeded.
    pub failure: Option<(ErrorClass, String)>,
    /// All attempts together; `None`: one of them has no price.
    pub cost: Option<NanoUsd>,
    /// The amount that may have been spent in addition.
    pub uncertain: NanoUsd,
    /// Input tokens of the answer's attempt.
    pub input_tokens: i64,
    /// Its output tokens.
    pub output_tokens: i64,
    /// Its request id.
    pub request_id: Option<String>,
    /// The answer as a chat completion, serialised.
    pub response: Option<String>,
    /// Several calls were under way under its claim.
    #[serde(default)]
    pub raced: bool,
    /// Its part in the cache of its route; `None`: the route has none.
    #[serde(default)]
    pub cache: Option<CachedEnding>,
    /// How sure the rung was of the answer, where the route asks for that.
    #[serde(default)]
    pub confidence: Option<f64>,
    /// The attempt, by its number, whose answer it has although its rung was not sure enough.
    #[serde(default)]
    pub unsure: Option<i16>,
    /// The shadow that it has if it ends with an accepted answer of its own.
    #[serde(default)]
    pub shadow: Option<CastShadow>,
}

/// What the ending of a job means to the cache of its route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedEnding {
    /// The key of its request.
    pub key: CacheKey,
    /// The earlier job whose answer it has, and what that one cost (`None`: unknown); `None`: it was asked for itself.
    pub from: Option<(JobId, Option<NanoUsd>)>,
}

/// A job that goes back into the queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ParkRow {
    /// The claim that gives it back.
    pub lease: Lease,
    /// Calls made for it in all.
    pub attempts: i16,
    /// When its wait ends; `None`: it may be claimed again at once.
    pub until: Option<Timestamp>,
    /// The reason of the wait, in a word or two.
    pub reason: String,
    /// Several calls were under way under its claim.
    #[serde(default)]
    pub raced: bool,
}

/// The rows that one transaction settles.
#[derive(Clone, Debug, Default)]
pub struct Settlement {
    /// Rows for the ledger.
    pub attempts: Vec<AttemptRow>,
    /// Jobs that ended.
    pub endings: Vec<EndingRow>,
    /// Jobs that go back.
    pub parks: Vec<ParkRow>,
}

impl Settlement {
    /// All claims that the settlement concerns.
    pub fn leases(&self) -> impl Iterator<Item = Lease> {
        let attempts = self.attempts.iter().map(|row| row.lease);
        attempts.chain(self.endings.iter().map(|row| row.lease)).chain(self.parks.iter().map(|row| row.lease))
    }

    /// The claims that the settlement ends.
    fn fences_that_end(&self) -> impl Iterator<Item = i64> {
        let endings = self.endings.iter().map(|row| row.lease.fence);
        endings.chain(self.parks.iter().map(|row| row.lease.fence))
    }

    /// The calls of races that it books, and the claims of races that it ends.
    fn race_calls(&self) -> Vec<Noted> {
        let calls = self.attempts.iter().filter(|row| row.raced);
        let calls = calls.map(|row| Noted { lease: row.lease, number: Some(row.number) });
        let endings = self.endings.iter().filter(|row| row.raced).map(|row| row.lease);
        let parks = self.parks.iter().filter(|row| row.raced).map(|row| row.lease);
        calls.chain(endings.chain(parks).map(|lease| Noted { lease, number: None })).collect()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.endings.is_empty() && self.parks.is_empty()
    }
}

/// A number of tokens as the ledger takes it. Sums are made of these numbers: an impossible one must not spoil them,
/// wherever it comes from (a provider, a spool of an older version).
fn tokens(count: i64) -> i64 {
    const MOST: i64 = 10_000_000_000;
    count.clamp(0, MOST)
}

/// What the provider's prompt cache has saved in a call; `None`: nothing was cached, or nothing of it is known to have
/// been charged.
fn cache_saved(row: &AttemptRow) -> Option<NanoUsd> {
    let price = row.computed_cost.and(row.price)?;
    row.usage.is_cached().then(|| price.saved_by_cache(&row.usage))
}

/// Postgres text holds no NUL.
fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

fn clean_option(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(|text| clean(text))
}

/// JSON as `jsonb` takes it: it holds no NUL either.
pub(super) fn json_text(value: &impl Serialize) -> String {
    const PLAIN: &str = "values and types of ours have text for keys, and nothing in them fails to be written";
    fn without_nul(value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(clean(text).into_owned()),
            Value::Array(items) => items.iter().map(without_nul).collect(),
            Value::Object(members) => {
                members.iter().map(|(key, member)| (clean(key).into_owned(), without_nul(member))).collect()
            }
            other => other.clone(),
        }
    }
    let text = serde_json::to_string(value).expect(PLAIN);
    if text.contains("\\u0000") { without_nul(&serde_json::to_value(value).expect(PLAIN)).to_string() } else { text }
}

/// Notes as a JSON list; `None` when there are none.
fn notes_text(notes: &[String]) -> Option<String> {
    (!notes.is_empty()).then(|| json_text(&notes))
}

impl Store {
    /// Settles everything in one transaction. Returns the leases whose endings and parks changed nothing, because the
    /// fence was gone and the job was finished, or could not be finished by this ending: for those only the attempts
    /// were written. An accepted answer among them that was not used is booked as `abandoned`, `late`: its cost is
    /// waste.
    ///
    /// Sending the same settlement again after an unknown outcome is safe.
    ///
    /// It waits only a moment for rows that other transactions have locked, and is then given up as a whole: a login
    /// that may cancel a job can hold its claim for as long as a transaction stays open. [`Store::locked`] names such
    /// claims.
    pub async fn settle(&self, settlement: &Settlement) -> Result<Vec<Lease>, StoreError> {
        self.knows_of_jobs(settlement.leases());
        let mut look = Look::WhereDoubtful;
        for _ in 0..DUPLICATES {
            match self.settle_once(settlement, look).await {
                Err(error) if error.is_duplicate() => look = Look::Everywhere,
                settled => return settled,
            }
        }
        self.settle_once(settlement, look).await
    }

    async fn settle_once(&self, settlement: &Settlement, look: Look) -> Result<Vec<Lease>, StoreError> {
        let mut transaction = self.db.begin().await.doing("settling")?;
        sqlx::query!("select set_config('lock_timeout', $1, true)", LOCK_TIMEOUT)
            .fetch_one(&mut transaction)
            .await
            .doing("settling")?;
        let (mut sums, form) = (Sums::default(), self.answers.form());
        let mut fenced_out = Vec::new();
        let mut ended = Ended::default();
        if !settlement.endings.is_empty() {
            ended = endings::write(&mut transaction, &settlement.endings, look, form, &mut sums).await?;
            if ended.held.len() < settlement.endings.len() {
                fenced_out =
                    endings::write_late(&mut transaction, &settlement.endings, &ended, form, &mut sums).await?;
            }
        }
        let unused: HashSet<i64> = fenced_out.iter().map(|lease| lease.fence).collect();
        if !settlement.parks.is_empty() {
            let held = write_parks(&mut transaction, &settlement.parks).await?;
            fenced_out
                .extend(settlement.parks.iter().map(|row| row.lease).filter(|lease| !held.contains(&lease.fence)));
        }
        let (mut rows, mut strays) = (Cow::Borrowed(settlement.attempts.as_slice()), Vec::new());
        let mut booked = Vec::new();
        if !rows.is_empty() {
            let is_unused = |row: &AttemptRow| row.class.is_none() && unused.contains(&row.lease.fence);
            let ends: HashSet<i64> = settlement.fences_that_end().collect();
            let goes_on = rows.iter().map(|row| row.lease).filter(|lease| !ends.contains(&lease.fence));
            let doubtful: Vec<Lease> = fenced_out.iter().copied().chain(goes_on).collect();
            let gone = late::of_lost_jobs(&mut transaction, &doubtful).await?;
            if rows.iter().any(|row| is_unused(row) || gone.contains_key(&row.lease.fence)) {
                let rows = rows.to_mut();
                strays = rows.extract_if(.., |row| gone.contains_key(&row.lease.fence)).collect();
                rows.iter_mut().filter(|row| is_unused(row)).for_each(AttemptRow::came_late);
                for row in &mut strays {
                    if let Some(gone) = gone.get(&row.lease.fence) {
                        row.lost_its_job(*gone);
                    }
                }
            }
            booked = doubtful;
            booked.retain(|lease| !gone.contains_key(&lease.fence));
        }
        let is_new = |row: &AttemptRow| look == Look::WhereDoubtful && ended.now.contains(&row.lease.fence);
        books::book(&mut transaction, rows.iter(), is_new, &mut sums).await?;
        unsure::take(&mut transaction, &settlement.endings).await?;
        books::book_strays(&mut transaction, &strays, &settlement.endings, &mut sums).await?;
        call::forget(&mut transaction, &settlement.race_calls()).await?;
        bill::correct(&mut transaction, settlement, &ended.first, &booked).await?;
        sums.write(&mut transaction, ended.has_budgets).await?;
        transaction.commit().await.doing("settling")?;
        Ok(fenced_out)
    }
}

/// How long a settlement waits for a lock. Other settlements hold theirs for as long as a commit takes.
const LOCK_TIMEOUT: &str = "300ms";

/// A settlement is begun anew so often because a row of one of its keys exists: another process writes the same one.
const DUPLICATES: u32 = 4;

/// Where it is looked whether rows exist before they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Where a claim did not hold, or goes on.
    WhereDoubtful,
    /// For every row.
    Everywhere,
}

impl AttemptRow {
    /// Notes that the answer was good, and that the job no longer needed it.
    pub(crate) fn came_late(&mut self) {
        self.class = Some(ErrorClass::Abandoned);
        self.detail = Some(Cow::Borrowed(Abandonment::Late.as_str()));
        self.message = Some("a good answer, which came when the job was cancelled or answered already".to_owned());
    }
}

impl AttemptRow {
    /// Drops the texts that the database may have refused; an answer that is lost with them was not accepted.
    pub fn lost_its_texts(&mut self) {
        self.message = None;
        self.code = None;
        self.usage_raw = None;
        self.answer = None;
        self.notes.clear();
        self.decision = None;
        self.class.get_or_insert(ErrorClass::OutputInvalid);
    }
}

impl EndingRow {
    /// The earlier job whose answer it has, and what that one cost; `None` inside: unknown.
    pub(super) fn answered_from(&self) -> Option<(JobId, Option<NanoUsd>)> {
        self.cache.as_ref()?.from
    }

    /// Drops the answer, or the reason of a failure, that the database has refused with these words. A job that had
    /// failed keeps the class of its failure.
    pub fn lost_its_texts(&mut self, refusal: &impl fmt::Display) {
        let (class, lost) = match &self.failure {
            Some((class, _)) => (*class, "the reason"),
            None => (ErrorClass::OutputInvalid, "the answer"),
        };
        self.failure = Some((class, format!("{lost} could not be stored: {refusal}")));
        self.response = None;
        self.repaired = false;
        (self.confidence, self.unsure) = (None, None);
    }
}

impl AttemptRow {
    /// Notes that another rung of the race has answered: the call is over for that reason, and perhaps its answer was
    /// good too. An answer that was found wanting stays that.
    pub(crate) fn lost_the_race(&mut self, winner: &str) {
        let message = match self.class {
            None => format!("a good answer, and {winner} had given one before"),
            Some(ErrorClass::Abandoned) => format!("{winner} answered first"),
            Some(_) => return,
        };
        self.class = Some(ErrorClass::Abandoned);
        self.detail = Some(Cow::Borrowed(Abandonment::LostRace.as_str()));
        self.message = Some(message);
    }

    /// Notes that the call's job is no longer in the database. The money is booked under the number that the job had,
    /// in a round that no job has, so that it says nothing of a job that has the number now or later.
    fn lost_its_job(&mut self, gone: Gone) {
        let (detail, message) = match gone {
            Gone::Lost => (
                Abandonment::LostJob,
                "the call was for a job that the database has lost, by a failover or a restored backup",
            ),
            Gone::Replaced => (
                Abandonment::OtherJob,
                "the call was for a job that the database has lost, by a failover or a restored backup; another job \
                 has its number",
            ),
        };
        self.round = OF_ANOTHER_JOB;
        self.class = Some(ErrorClass::Abandoned);
        self.detail = Some(Cow::Borrowed(detail.as_str()));
        self.message = Some(message.to_owned());
    }
}

/// The round of calls whose job is lost.
const OF_ANOTHER_JOB: i16 = -1;

/// Returns the fences that held.
async fn write_parks(transaction: &mut Transaction, rows: &[ParkRow]) -> Result<HashSet<i64>, StoreError> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let held = sqlx::query_file_scalar!(
        "src/store/settle/park.sql",
        &column!(row => row.lease.job.0),
        &column!(row => row.lease.fence),
        &column!(row => row.attempts),
        &column!(row => row.until.map(datetime)) as _,
        &column!(row => clean(&row.reason)) as _,
    )
    .fetch_all(transaction)
    .await
    .doing("giving jobs back")?;
    Ok(held.into_iter().collect())
}
