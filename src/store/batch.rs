//! Batches: their progress, from sums, and changes to all of their jobs.

mod chosen;

pub use chosen::{JobFilter, ListedJob, Retried};

use super::results::REPLACED;
use super::{Doing, Store, StoreError};
use crate::domain::job::JobState;
use crate::domain::per_answer;
use crate::domain::time_left::{self, TakenSoFar};
use crate::domain::{ErrorClass, MaxFailed, NanoUsd, Spent};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a chunk that met another transaction's locks is tried before that is an error.
const TRIES: u32 = 5;

/// So many batches are looked at for those whose jobs came last.
const LATEST: i64 = 50;

/// A batch and its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub name: String,
    /// The hour of its first job.
    pub first_hour: DateTime<Utc>,
    /// The hour of its last event.
    pub last_hour: DateTime<Utc>,
    /// Jobs enqueued.
    pub jobs: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
    /// Calls made.
    pub attempts: i64,
    /// Known cost.
    pub cost: NanoUsd,
    /// The part of it that bought nothing.
    pub waste: NanoUsd,
    /// The amount that may have been spent in addition.
    pub uncertain: NanoUsd,
    /// Attempts whose price is unknown.
    pub unpriced: i64,
    pub paused: bool,
    /// Why it is paused, if a reason was given.
    pub pause_reason: Option<String>,
    /// The share of ended jobs that may fail before it is paused.
    pub max_failed: Option<MaxFailed>,
    /// The share of what its calls cost that may bring no accepted answer, if it has one.
    pub max_wasted: Option<MaxFailed>,
}

impl Batch {
    /// Jobs that have ended, in any way.
    #[must_use]
    pub fn done(&self) -> i64 {
        self.succeeded + self.failed + self.cancelled
    }

    /// Jobs that have not ended.
    #[must_use]
    pub fn unfinished(&self) -> i64 {
        self.jobs - self.done()
    }

    /// The cost; `None` when no attempt has a known price.
    #[must_use]
    pub fn known_cost(&self) -> Option<NanoUsd> {
        per_answer::known_cost(self.cost, self.unpriced, self.attempts)
    }

    /// The money that was spent, and the answers that it bought.
    #[must_use]
    pub fn spent(&self) -> Spent {
        Spent { cost: self.cost, uncertain: self.uncertain, unpriced: self.unpriced, accepted: self.succeeded }
    }
}

/// The calls of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    pub all: i64,
    /// Those that reached no server.
    pub unreachable: i64,
}

/// A row of either statement as a batch.
macro_rules! batch_of {
    ($row:ident) => {
        Batch {
            name: $row.name,
            first_hour: $row.first_hour,
            last_hour: $row.last_hour,
            jobs: $row.jobs,
            succeeded: $row.succeeded,
            failed: $row.failed,
            cancelled: $row.cancelled,
            attempts: $row.attempts,
            cost: NanoUsd($row.cost),
            waste: NanoUsd($row.waste),
            uncertain: NanoUsd($row.uncertain),
            unpriced: $row.unpriced,
            paused: $row.paused,
            pause_reason: $row.pause_reason,
            // All may fail where money alone is bounded.
            max_failed: $row
                .max_failed
                .and_then(|share| MaxFailed::of_millionths(u32::try_from(share).ok()?))
                .filter(|share| !share.is_whole() || $row.max_wasted.is_none()),
            max_wasted: $row.max_wasted.and_then(|share| MaxFailed::of_millionths(u32::try_from(share).ok()?)),
        }
    };
}

macro_rules! batches {
    ($condition:literal, $order:literal, $($argument:expr),* => $fetch:ident, $store:expr) => {
        sqlx::query!(
            r#"select batch as "name!", min(hour) as "first_hour!", max(hour) as "last_hour!",
                      sum(enqueued)::bigint as "jobs!", sum(succeeded)::bigint as "succeeded!",
                      sum(failed)::bigint as "failed!", sum(cancelled)::bigint as "cancelled!",
                      sum(attempts)::bigint as "attempts!", sluice.capped(sum(cost_nanos)) as "cost!",
                      sluice.capped(sum(waste_nanos)) as "waste!", sluice.capped(sum(uncertain_nanos)) as "uncertain!",
                      sum(unpriced)::bigint as "unpriced!",
                      exists (select from sluice.pause p where p.kind = 'batch' and p.name = batch) as "paused!",
                      (select p.reason from sluice.pause p where p.kind = 'batch' and p.name = batch) as pause_reason,
                      (select (s.max_failed * 1000000)::integer from sluice.stop_loss s
                        where s.batch = totals.batch) as max_failed,
                      (select (s.max_wasted * 1000000)::integer from sluice.stop_loss s
                        where s.batch = totals.batch) as max_wasted
                 from sluice.totals where batch <> '' "# + $condition + " group by batch " + $order,
            $($argument),*
        )
        .map(|row| batch_of!(row))
        .$fetch(&$store.db)
        .await
        .doing("reading batches")
    };
}

/// The failure that most of a batch's failed jobs have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonFailure {
    /// How many jobs failed so.
    pub jobs: i64,
    pub class: Option<String>,
    /// The words of one of them.
    pub reason: Option<String>,
}

impl Store {
    /// The batches in which something happened last, the latest hour first. Within an hour, which is the resolution of
    /// the sums, they are in the order of their names.
    pub async fn batches(&self, limit: i64) -> Result<Vec<Batch>, StoreError> {
        self.sums_of(&self.latest(None, "", limit).await?).await
    }

    /// The same behind a batch in that order.
    pub async fn batches_after(&self, after: Option<&str>, limit: usize) -> Result<Vec<Batch>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let Some(after) = after else { return self.batches(limit).await };
        let last: Option<DateTime<Utc>> =
            sqlx::query_scalar!("select max(hour) from sluice.totals where batch <> '' and batch = $1", after)
                .fetch_one(&self.db)
                .await
                .doing("reading batches")?;
        let Some(last) = last else { return Ok(Vec::new()) };
        self.sums_of(&self.latest(Some(last), after, limit).await?).await
    }

    /// The names of at most so many batches, the latest first, behind the one of this hour and name.
    async fn latest(&self, hour: Option<DateTime<Utc>>, batch: &str, limit: i64) -> Result<Vec<String>, StoreError> {
        sqlx::query_file_scalar!("src/store/batch/latest.sql", hour, batch, limit)
            .fetch_all(&self.db)
            .await
            .doing("reading batches")
    }

    async fn sums_of(&self, names: &[String]) -> Result<Vec<Batch>, StoreError> {
        batches!("and batch = any ($1)", "order by max(hour) desc, batch", names => fetch_all, self)
    }

    /// One batch; `None` when no job was ever in it. A login that may not read the sums, which are those of all logins,
    /// gets the batch as far as it has enqueued it.
    pub async fn batch(&self, name: &str) -> Result<Option<Batch>, StoreError> {
        if self.reads_all().await? {
            batches!("and batch = $1", "", name => fetch_optional, self)
        } else {
            self.own_batch(name).await
        }
    }

    /// Whether this login reads the jobs and the sums of all logins, and not only what it has enqueued itself.
    pub async fn reads_all(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select has_table_privilege('sluice.totals', 'select') as "may!""#)
            .fetch_one(&self.db)
            .await
            .doing("looking at the rights of this login")
    }

    /// The part of a batch that this login has enqueued. Its jobs are counted: that takes some seconds for a million.
    async fn own_batch(&self, name: &str) -> Result<Option<Batch>, StoreError> {
        let row = sqlx::query!(
            r#"select $1::text as "name!", jobs as "jobs!", succeeded as "succeeded!", failed as "failed!",
                      cancelled as "cancelled!", attempts as "attempts!", cost_nanos as "cost!",
                      waste_nanos as "waste!", uncertain_nanos as "uncertain!", unpriced as "unpriced!",
                      date_trunc('hour', first_at) as "first_hour!", date_trunc('hour', last_at) as "last_hour!",
                      paused as "paused!", pause_reason, (max_failed * 1000000)::integer as max_failed,
                      (sluice.own_max_wasted($1) * 1000000)::integer as max_wasted
                 from sluice.own_batch($1) where jobs > 0"#,
            name
        )
        .fetch_optional(&self.db)
        .await
        .doing("reading batches")?;
        Ok(row.map(|row| batch_of!(row)))
    }

    /// The names of some batches, first those whose jobs came last: of all in which something happened lately, or of
    /// those of this login.
    pub async fn latest_batches(&self) -> Result<Vec<String>, StoreError> {
        if self.reads_all().await? {
            return sqlx::query_scalar!(
                r#"select b.name as "batch!"
                     from unnest($1::text[]) with ordinality b(name, place)
                          cross join lateral (select max(j.id) as job from sluice.job j where j.batch = b.name) newest
                    order by newest.job desc nulls last, b.place"#,
                &self.latest(None, "", LATEST).await?
            )
            .fetch_all(&self.db)
            .await
            .doing("reading batches");
        }
        sqlx::query_scalar!(r#"select batch as "batch!" from sluice.own_batches()"#)
            .fetch_all(&self.db)
            .await
            .doing("reading batches")
    }

    /// How long the rest of a batch takes at least, by the limits of the targets that it has used so far; `None`: that
    /// is not known, or not to this login.
    pub async fn least_time_left(&self, batch: &Batch) -> Result<Option<Duration>, StoreError> {
        if !self.reads_all().await? {
            return Ok(None);
        }
        let rows = sqlx::query!(
            r#"select provider || '/' || model as "target!", sum(attempts)::bigint as "calls!",
                      sum(input_tokens)::bigint as "input!", sum(output_tokens)::bigint as "output!"
                 from sluice.totals where batch <> '' and batch = $1 and provider <> '' group by provider, model"#,
            batch.name
        )
        .fetch_all(&self.db)
        .await
        .doing("summing up what the batch has used")?;
        let known = self.known().await?;
        let targets = || known.workers.iter().flat_map(|worker| &worker.gate.targets);
        let mut taken: BTreeMap<String, TakenSoFar> = BTreeMap::new();
        for row in rows {
            let used = TakenSoFar { calls: row.calls, input_tokens: row.input, output_tokens: row.output };
            let buckets = targets().find(|target| target.target.as_ref() == Some(&row.target));
            let buckets = buckets.and_then(|target| target.bucket.as_deref()).unwrap_or_default();
            for bucket in buckets.split(", ") {
                taken.entry(bucket.to_owned()).or_default().add(used);
            }
        }
        Ok(time_left::by_limits(batch.done(), batch.unfinished(), &taken, &self.standings().await?))
    }

    /// How many of its cancelled jobs were cancelled because another file took their place, of those that this login
    /// may see. All jobs of the batch are looked at.
    pub async fn replaced_of_batch(&self, name: &str) -> Result<i64, StoreError> {
        if !self.reads_all().await? {
            let filter = JobFilter { states: vec![JobState::Cancelled], ..JobFilter::default() };
            let cancelled = self.list_jobs(name, &filter, 0, usize::MAX).await?;
            let replaced = cancelled.iter().filter(|job| job.error.as_deref() == Some(REPLACED)).count();
            return Ok(i64::try_from(replaced).unwrap_or(i64::MAX));
        }
        sqlx::query_scalar!(
            r#"select count(*) as "jobs!" from sluice.job j join sluice.result r on r.job_id = j.id
                where j.batch = $1 and r.state = 'cancelled' and r.error = $2"#,
            name,
            REPLACED
        )
        .fetch_one(&self.db)
        .await
        .doing("counting the replaced jobs of the batch")
    }

    /// Cancels every unfinished job of a batch, of those that this login may cancel, a thousand at a time, and returns
    /// how many. `progress` gets the number of each chunk.
    pub async fn cancel_batch(&self, name: &str, mut progress: impl FnMut(i64)) -> Result<i64, StoreError> {
        let (mut after, mut cancelled) = (0, 0);
        loop {
            let mut tries = 0;
            let row = loop {
                let chunk = sqlx::query!(
                    r#"with open as materialized (select c.job_id as id from sluice.cancellable($1, $2) c)
                       select count(*) filter (where sluice.cancel(id)) as "changed!", max(id) as last from open"#,
                    name,
                    after
                )
                .fetch_one(&self.db)
                .await
                .doing("cancelling the batch");
                match chunk {
                    // A worker settles the same jobs in another order, so one of the two had to yield.
                    Err(error) if error.is_transient() && tries < TRIES => tries += 1,
                    settled => break settled?,
                }
            };
            cancelled += row.changed;
            let Some(last) = row.last else { return Ok(cancelled) };
            after = last;
            progress(cancelled);
        }
    }

    /// How many calls were made for a batch, by the sums.
    pub async fn calls_of_batch(&self, name: &str) -> Result<Calls, StoreError> {
        sqlx::query_as!(
            Calls,
            r#"select coalesce(sum(attempts), 0)::bigint as "all!",
                      coalesce(sum(attempts) filter (where class = $2), 0)::bigint as "unreachable!"
                 from sluice.totals where batch <> '' and batch = $1"#,
            name,
            ErrorClass::Unreachable.as_str()
        )
        .fetch_one(&self.db)
        .await
        .doing("summing up the calls of the batch")
    }

    /// The targets of a batch's latest calls that reached no server, each with the reason, in words.
    pub async fn unreached(&self, name: &str) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!(
            r#"with latest as materialized (
                    select l.target, l.message, l.started_at
                      from (select p.job_id from sluice.parked p union all select r.job_id from sluice.ready r
                            union all select i.job_id from sluice.inflight i) o
                           join sluice.job j on j.id = o.job_id and j.batch = $1
                           cross join lateral (
                                select a.provider || '/' || a.model as target, a.message, a.started_at
                                  from sluice.attempt a where a.job_id = j.id and a.class = $2
                                 order by a.number desc limit 1) l
                     order by l.started_at desc limit 100)
               select target || ' cannot be reached: ' || coalesce(min(message), 'no connection') as "words!"
                 from latest group by target order by target"#,
            name,
            ErrorClass::Unreachable.as_str()
        )
        .fetch_all(&self.db)
        .await
        .doing("looking at what was not reached")
    }

    /// How many jobs of a batch have failed with one of these classes, and the reason of one of them.
    pub async fn failed_of(&self, name: &str, classes: &[&str]) -> Result<(i64, Option<String>), StoreError> {
        let row = sqlx::query!(
            r#"select count(*) as "jobs!", min(r.error) as reason
                 from sluice.job j join sluice.result r on r.job_id = j.id
                where j.batch = $1 and r.state = 'failed' and r.error_class = any ($2)"#,
            name,
            classes as _
        )
        .fetch_one(&self.db)
        .await
        .doing("looking at failed jobs")?;
        Ok((row.jobs, row.reason))
    }

    /// The class of failures that most failed jobs of a batch have, how many have it, and the reason of one of them.
    pub async fn commonest_failure(&self, name: &str) -> Result<Option<CommonFailure>, StoreError> {
        let row = sqlx::query!(
            r#"select count(*) as "jobs!", r.error_class as class, min(r.error) as reason
                 from sluice.job j join sluice.result r on r.job_id = j.id
                where j.batch = $1 and r.state = 'failed' group by r.error_class order by 1 desc, 3 limit 1"#,
            name
        )
        .fetch_optional(&self.db)
        .await
        .doing("looking at failed jobs")?;
        Ok(row.map(|row| CommonFailure { jobs: row.jobs, class: row.class, reason: row.reason }))
    }

    /// Puts every failed or cancelled job of a batch back into the queue, but for those whose place another file took,
    /// and returns how many.
    pub async fn retry_batch(&self, name: &str, progress: impl FnMut(i64)) -> Result<i64, StoreError> {
        Ok(self.retry_chosen(name, &JobFilter::default(), false, progress).await?.jobs)
    }
}
