//! The bill of a job that has ended: its result costs as much as all its calls on the ledger.
//!
//! All rounds count, and a placeholder counts until the real outcome replaces it. A call that was booked for a lost job
//! (round -1) is no call of the job that has its number. One call without a price makes the bill unknown.
//!
//! A worker writes the bill with the ending, as far as it knows the calls. Other processes may book calls of the same
//! job at the same time. So wherever more than the worker's own one call can be on the ledger, the bill is read from
//! there once the calls are booked.

use super::claim::Lease;
use super::database::Transaction;
use super::settle::{AttemptRow, EndingRow, Settlement};
use super::stretches::{IdRange, WalkTime};
use super::{Doing, Store, StoreError};
use crate::domain::diagnosis::Misbilled;
use crate::domain::{ErrorClass, NanoUsd};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

const BILLING: &str = "adding up the calls of finished jobs";

/// A job moves between tables while it is searched for. Each look is a new snapshot, so a few are enough.
const LOOKS: u32 = 5;

/// How many job numbers one statement adds up.
const AT_ONCE: i64 = 50_000;

/// How many jobs are named.
const NAMED: usize = 10;

impl EndingRow {
    /// Whether the bill is surely right: there was one call at most, and these rows of the ledger have it.
    fn is_billed_by(&self, calls: &[&AttemptRow]) -> bool {
        // A fault in the middle of a call: the call is booked by the statement that ends the job.
        let is_fault = self.failure.as_ref().is_some_and(|(class, _)| *class == ErrorClass::Abandoned);
        let (cost, uncertain) = match calls {
            [] => (Some(NanoUsd::ZERO), NanoUsd::ZERO),
            [only] if only.number == 1 => (only.cost.map(NanoUsd::of_a_call), only.uncertain.of_a_call()),
            _ => return false,
        };
        !is_fault
            && usize::try_from(self.attempts) == Ok(calls.len())
            && (self.cost, self.uncertain) == (cost, uncertain)
    }
}

/// Makes results cost what the calls on the ledger cost: those of this settlement, which is written, and those of jobs
/// that are no longer held by the claims `booked`, whose calls were just booked. `first`: claims that it has ended, of
/// jobs for which no call was made under another claim.
pub(super) async fn correct(
    transaction: &mut Transaction,
    settlement: &Settlement,
    first: &HashSet<i64>,
    booked: &[Lease],
) -> Result<(), StoreError> {
    let mut jobs = doubtful(transaction, settlement, first).await?;
    jobs.extend(astray(transaction, booked).await?);
    if jobs.is_empty() { Ok(()) } else { add_up(transaction, &jobs).await }
}

/// The jobs that the settlement ends and whose bill has to be read from the ledger: it is not that of the one call that
/// is written with it, or there are calls under other claims.
async fn doubtful(
    transaction: &mut Transaction,
    settlement: &Settlement,
    first: &HashSet<i64>,
) -> Result<Vec<i64>, StoreError> {
    if settlement.endings.is_empty() {
        return Ok(Vec::new());
    }
    let mut calls: HashMap<i64, Vec<&AttemptRow>> = HashMap::new();
    for call in &settlement.attempts {
        calls.entry(call.lease.fence).or_default().push(call);
    }
    let is_plain = |row: &&EndingRow| row.is_billed_by(calls.get(&row.lease.fence).map_or(&[], Vec::as_slice));
    let (plain, other): (Vec<&EndingRow>, Vec<&EndingRow>) = settlement.endings.iter().partition(is_plain);
    let mut jobs: Vec<i64> = other.iter().map(|row| row.lease.job.0).collect();
    let plain: Vec<&EndingRow> = plain.into_iter().filter(|row| !first.contains(&row.lease.fence)).collect();
    if plain.is_empty() {
        return Ok(jobs);
    }
    let with_others = sqlx::query_scalar!(
        // The limit keeps this a lookup for each job. As a join it would read the whole ledger each time, if it was
        // planned while that was empty.
        r#"select w.job_id as "job_id!"
             from unnest($1::bigint[], $2::bigint[]) w(job_id, fence) cross join lateral (
                  select from sluice.attempt a
                   where a.job_id = any (array[w.job_id]) and a.fence <> w.fence limit 1) a"#,
        &plain.iter().map(|row| row.lease.job.0).collect::<Vec<_>>(),
        &plain.iter().map(|row| row.lease.fence).collect::<Vec<_>>()
    )
    .fetch_all(transaction)
    .await
    .doing(BILLING)?;
    jobs.extend(with_others);
    Ok(jobs)
}

/// Makes the results of these jobs, as far as they have any, cost what their calls cost.
pub(super) async fn add_up(transaction: &mut Transaction, jobs: &[i64]) -> Result<(), StoreError> {
    // The locks come first, in a statement of their own: the sums must see what another process has just booked.
    let results = sqlx::query_scalar!(
        "select r.job_id
           from (select u.job_id from unnest($1::bigint[]) u(job_id) order by u.job_id) w cross join lateral (
                select b.job_id from sluice.result b where b.job_id = any (array[w.job_id]) limit 1
                   for no key update of b) r",
        jobs
    )
    .fetch_all(&mut *transaction)
    .await
    .doing(BILLING)?;
    if results.is_empty() {
        return Ok(());
    }
    sqlx::query_file!("src/store/bill/correct.sql", &results).execute(transaction).await.doing(BILLING)?;
    Ok(())
}

/// The jobs of those claims that are gone. If such a job is open, it stays where it is until this transaction ends: the
/// process that ends it then sees the calls that this transaction books, or this transaction sees its result.
async fn astray(transaction: &mut Transaction, booked: &[Lease]) -> Result<Vec<i64>, StoreError> {
    if booked.is_empty() {
        return Ok(Vec::new());
    }
    let astray = sqlx::query_scalar!(
        r#"select distinct w.job_id as "job_id!"
             from unnest($1::bigint[], $2::bigint[]) w(job_id, fence) left join lateral (
                  select true as is_held from sluice.inflight i
                   where i.job_id = any (array[w.job_id]) and i.fence = w.fence limit 1) i on true
            where i.is_held is null"#,
        &booked.iter().map(|lease| lease.job.0).collect::<Vec<_>>(),
        &booked.iter().map(|lease| lease.fence).collect::<Vec<_>>()
    )
    .fetch_all(&mut *transaction)
    .await
    .doing(BILLING)?;
    hold(transaction, &astray).await?;
    Ok(astray)
}

/// Keeps the jobs that are open where they are until this transaction ends.
pub(super) async fn hold(transaction: &mut Transaction, jobs: &[i64]) -> Result<(), StoreError> {
    let mut found = HashSet::new();
    for _ in 0..LOOKS {
        let open: Vec<i64> = jobs.iter().copied().filter(|job| !found.contains(job)).collect();
        if open.is_empty() {
            break;
        }
        let held = sqlx::query_file_scalar!("src/store/bill/hold.sql", &open)
            .fetch_all(&mut *transaction)
            .await
            .doing(BILLING)?;
        found.extend(held);
    }
    Ok(())
}

impl Store {
    /// Looks for results whose cost is not that of their calls, the newest jobs first, for about `patience`.
    pub async fn misbilled(&self, patience: Duration) -> Result<Misbilled, StoreError> {
        let mut found = Misbilled::default();
        let (mut stretches, mut patience) = (self.stretches(i64::MAX, AT_ONCE), WalkTime::of(patience));
        while let Some(stretch) = stretches.next().await? {
            found.looked_from = patience.is_over(stretch);
            if found.looked_from.is_some() {
                break;
            }
            let jobs = self.misbilled_in(stretch).await?;
            found.jobs += i64::try_from(jobs.len()).unwrap_or(i64::MAX);
            found.some.splice(0..0, jobs.into_iter().take(NAMED));
            found.some.truncate(NAMED);
        }
        Ok(found)
    }

    /// Corrects all results whose cost is not that of their calls; returns how many.
    pub async fn correct_bills(&self) -> Result<u64, StoreError> {
        let mut corrected = 0;
        let mut stretches = self.stretches(i64::MAX, AT_ONCE);
        while let Some(stretch) = stretches.next().await? {
            let jobs = self.misbilled_in(stretch).await?;
            if !jobs.is_empty() {
                corrected += u64::try_from(jobs.len()).unwrap_or(u64::MAX);
                let mut transaction = self.db.begin().await.doing(BILLING)?;
                add_up(&mut transaction, &jobs).await?;
                transaction.commit().await.doing(BILLING)?;
            }
        }
        Ok(corrected)
    }

    /// Of the jobs with these numbers, those whose result costs something else than their calls.
    async fn misbilled_in(&self, stretch: IdRange) -> Result<Vec<i64>, StoreError> {
        sqlx::query_file_scalar!("src/store/bill/misbilled.sql", stretch.first, stretch.last)
            .fetch_all(&self.db)
            .await
            .doing(BILLING)
    }
}
