//! The stop-losses of batches: where they are set, the figures counted for them, and the pause that they end in.

use super::database::Transaction;
use super::{Doing, Store, StoreError};
use crate::domain::stop_loss::{Before, Outgo, Standing};
use crate::domain::{MaxFailed, NanoUsd, StopLoss};
use chrono::{DateTime, Utc};
use std::fmt::Display;

const SETTING: &str = "setting the stop-loss";
const COUNTING: &str = "counting the failed jobs of batches";

/// A batch with a stop-loss in which jobs have failed lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The batch.
    pub batch: String,
    /// The share that may fail.
    pub max_failed: MaxFailed,
    /// The counts at the last resume, which the stop-loss subtracts.
    pub before: Before,
    /// When it was resumed, if its stop-loss had paused it.
    resumed_at: Option<DateTime<Utc>>,
    /// Its jobs.
    pub standing: Standing,
    /// The share of its money that may be wasted.
    pub max_wasted: Option<MaxFailed>,
    /// What its calls have cost, …
    pub outgo: Outgo,
    /// … and what they had cost when it was resumed.
    pub outgo_before: Outgo,
}

/// Sets the stop-loss of a batch, as far as it says something. True: something was changed.
pub(super) async fn set(
    transaction: &mut Transaction,
    batch: &str,
    stop_loss: StopLoss,
    keep: StopLossKept,
) -> Result<bool, StoreError> {
    let mut is_changed = false;
    if let Some(max_failed) = stop_loss.max_failed {
        is_changed |= sqlx::query_scalar!(
            r#"select sluice.stop_loss($1, $2::integer / 1000000.0, $3) as "changed!""#,
            batch,
            millionths(max_failed),
            keep.max_failed
        )
        .fetch_one(&mut *transaction)
        .await
        .doing(SETTING)?;
    }
    if let Some(max_wasted) = stop_loss.max_wasted {
        is_changed |= sqlx::query_scalar!(
            r#"select sluice.stop_waste($1, $2::integer / 1000000.0, $3) as "changed!""#,
            batch,
            millionths(max_wasted),
            keep.max_wasted
        )
        .fetch_one(transaction)
        .await
        .doing(SETTING)?;
    }
    Ok(is_changed)
}

/// Which shares a batch keeps, if it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopLossKept {
    pub max_failed: bool,
    pub max_wasted: bool,
}

/// Notes that jobs of these batches have failed, or that their money was wasted, in the transaction that says so. It
/// waits for no other transaction: a row that is locked is being noted, or counted anew, by the one that has it.
pub(super) async fn note_failures(transaction: &mut Transaction, batches: &[&str]) -> Result<(), StoreError> {
    if batches.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update sluice.stop_loss s set due = true, failed_at = now()
          where s.batch in (select l.batch from sluice.stop_loss l
                             where l.batch = any ($1) and (not l.due or l.failed_at < now() - interval '1 second')
                               for update skip locked)",
        batches as _
    )
    .execute(transaction)
    .await
    .doing("noting batches with failures")?;
    Ok(())
}

fn millionths(max_failed: MaxFailed) -> i32 {
    i32::try_from(max_failed.millionths()).unwrap_or(i32::MAX)
}

impl Store {
    /// Sets or removes the stop-loss of a batch. True: something was set or removed.
    pub async fn set_stop_loss(&self, batch: &str, max_failed: Option<MaxFailed>) -> Result<bool, StoreError> {
        sqlx::query_scalar!(
            r#"select sluice.stop_loss($1, $2::integer / 1000000.0) as "changed!""#,
            batch,
            max_failed.map(millionths) as _
        )
        .fetch_one(&self.db)
        .await
        .doing(SETTING)
    }

    /// Sets or removes the share of a batch's money that may be wasted. True: something was set or removed.
    pub async fn set_stop_waste(&self, batch: &str, max_wasted: Option<MaxFailed>) -> Result<bool, StoreError> {
        sqlx::query_scalar!(
            r#"select sluice.stop_waste($1, $2::integer / 1000000.0) as "changed!""#,
            batch,
            max_wasted.map(millionths) as _
        )
        .fetch_one(&self.db)
        .await
        .doing(SETTING)
    }

    /// Whether this login may set stop-losses.
    pub async fn may_set_stop_losses(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar!(
            r#"select has_function_privilege('sluice.stop_loss(text, numeric, boolean)', 'execute') as "may!""#
        )
        .fetch_one(&self.db)
        .await
        .doing("looking at rights")
    }

    /// The batches with a stop-loss in which jobs may have failed since they were counted last, with their counts.
    /// Those that are paused are left out: no more of their jobs are started.
    pub async fn watched_batches(&self) -> Result<Vec<Watched>, StoreError> {
        // Most of the time none is due; then the sums are not read.
        let due = sqlx::query!(
            r#"select s.batch, now() as "now!" from sluice.stop_loss s
                where s.due and not exists (select from sluice.pause p where p.kind = 'batch' and p.name = s.batch)"#
        )
        .fetch_all(&self.db)
        .await
        .doing(COUNTING)?;
        let Some(counted_from) = due.first().map(|row| row.now) else { return Ok(Vec::new()) };
        let due: Vec<String> = due.into_iter().map(|row| row.batch).collect();
        let rows = sqlx::query!(
            r#"select s.batch, (s.max_failed * 1000000)::integer as "max_failed!", s.ended_before, s.failed_before,
                      s.resumed_at, t.jobs as "jobs!", t.ended as "ended!", t.failed as "failed!",
                      (s.max_wasted * 1000000)::integer as max_wasted, s.cost_before, s.waste_before,
                      s.waste_calls_before, t.cost as "cost!", t.waste as "waste!", t.waste_calls as "waste_calls!"
                 from sluice.stop_loss s
                      join (select x.batch, sum(x.enqueued - x.cancelled)::bigint as jobs,
                                   sum(x.succeeded + x.failed)::bigint as ended, sum(x.failed)::bigint as failed,
                                   sluice.capped(sum(x.cost_nanos)) as cost,
                                   sluice.capped(sum(x.waste_nanos)) as waste,
                                   coalesce(sum(x.attempts) filter (where x.waste_nanos > 0), 0)::bigint
                                       as waste_calls
                              from sluice.totals x where x.batch <> '' and x.batch = any ($1)
                             group by x.batch) t on t.batch = s.batch
                where s.batch = any ($1)"#,
            &due
        )
        .fetch_all(&self.db)
        .await
        .doing(COUNTING)?;
        // A settlement whose failures were noted a minute before this count has committed by then.
        sqlx::query!(
            "update sluice.stop_loss s set due = false
              where s.batch in (select l.batch from sluice.stop_loss l
                                 where l.batch = any ($1) and l.due
                                   and l.failed_at < $2::timestamptz - interval '1 minute'
                                   for update skip locked)",
            &due,
            counted_from
        )
        .execute(&self.db)
        .await
        .doing(COUNTING)?;
        let whole = |millionths: i32| {
            u32::try_from(millionths).ok().and_then(MaxFailed::of_millionths).expect("the table checks its range")
        };
        Ok(rows
            .into_iter()
            .map(|row| Watched {
                batch: row.batch,
                max_failed: whole(row.max_failed),
                before: Before { ended: row.ended_before, failed: row.failed_before },
                resumed_at: row.resumed_at,
                standing: Standing { jobs: row.jobs, ended: row.ended, failed: row.failed },
                max_wasted: row.max_wasted.map(whole),
                outgo: Outgo { cost: NanoUsd(row.cost), wasted: NanoUsd(row.waste), wasted_calls: row.waste_calls },
                outgo_before: Outgo {
                    cost: NanoUsd(row.cost_before),
                    wasted: NanoUsd(row.waste_before),
                    wasted_calls: row.waste_calls_before,
                },
            })
            .collect())
    }

    /// Pauses a batch whose stop-loss is exceeded, for this reason. False: it is paused already, or it was resumed, or
    /// given another share, since it was counted.
    pub async fn stop_batch(&self, watched: &Watched, reason: &(impl Display + Sync)) -> Result<bool, StoreError> {
        let paused = sqlx::query!(
            "with held as (
                select s.batch from sluice.stop_loss s
                 where s.batch = $1 and s.resumed_at is not distinct from $2
                   and s.max_failed = $3::integer / 1000000.0
                   and s.max_wasted is not distinct from $5::integer / 1000000.0
                   for update
            ), paused as (
                insert into sluice.pause (kind, name, reason) select 'batch', h.batch, $4 from held h
                on conflict do nothing returning name
            )
            update sluice.stop_loss s set stopped_at = now() from paused p where s.batch = p.name",
            watched.batch,
            watched.resumed_at,
            millionths(watched.max_failed),
            reason.to_string(),
            watched.max_wasted.map(millionths) as _
        )
        .execute(&self.db)
        .await
        .doing("pausing a batch")?;
        Ok(paused.rows_affected() > 0)
    }

    /// The reason, if the batch is paused by its stop-loss.
    pub async fn stopped_by_loss(&self, batch: &str) -> Result<Option<String>, StoreError> {
        let reason = sqlx::query_scalar!(
            "select p.reason from sluice.stop_loss s join sluice.pause p on p.kind = 'batch' and p.name = s.batch
              where s.batch = $1 and s.stopped_at is not null",
            batch
        )
        .fetch_optional(&self.db)
        .await
        .doing("looking at the stop-loss")?;
        Ok(reason.flatten())
    }
}
