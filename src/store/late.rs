//! Results that arrive after their claim has ended: good answers, and reports on calls that others have booked already.
//!
//! A worker that was taken for dead may be alive, and its answers were paid for. So an answer to a job that is still
//! open is used rather than bought again.

use super::claim::Lease;
use super::database::Transaction;
use super::settle::EndingRow;
use super::{Doing, StoreError};
use std::collections::{HashMap, HashSet};

/// A job moves between tables while it is searched for. Each look is a new snapshot, so a few are enough.
const LOOKS: u32 = 5;

/// Takes the jobs of these endings out of the queue or out of another worker's hands, where they are open and in the
/// same round, and puts them back under the old claims; returns the fences of those. The endings must be written next.
///
/// The other worker is told to drop its call, and that call is booked in its place.
pub(super) async fn take_back(transaction: &mut Transaction, rows: &[&EndingRow]) -> Result<HashSet<i64>, StoreError> {
    let mut taken = HashSet::new();
    let mut jobs = HashSet::new();
    for _ in 0..LOOKS {
        let open: Vec<&EndingRow> = rows.iter().copied().filter(|row| !jobs.contains(&row.lease.job.0)).collect();
        if open.is_empty() {
            break;
        }
        let found = sqlx::query_file!(
            "src/store/late/take_back.sql",
            &open.iter().map(|row| row.lease.job.0).collect::<Vec<_>>(),
            &open.iter().map(|row| row.lease.fence).collect::<Vec<_>>(),
            &open.iter().map(|row| row.round).collect::<Vec<_>>(),
            &open.iter().map(|row| row.lease.born).collect::<Vec<_>>()
        )
        .fetch_all(&mut *transaction)
        .await
        .doing("looking for jobs whose answer came late")?;
        if !found.is_empty() {
            // Only until the ending is written, in this same transaction, so that there is one way to end a job.
            sqlx::query!(
                "insert into sluice.inflight (job_id, fence, worker, flow, prio, attempts, crashes, round)
                      select job_id, fence, 0, flow, prio, attempts, crashes, round
                        from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::smallint[],
                                    $6::smallint[], $7::smallint[])
                          as t(job_id, fence, flow, prio, attempts, crashes, round)",
                &found.iter().map(|row| row.job_id).collect::<Vec<_>>(),
                &found.iter().map(|row| row.fence).collect::<Vec<_>>(),
                &found.iter().map(|row| row.flow).collect::<Vec<_>>(),
                &found.iter().map(|row| row.prio).collect::<Vec<_>>(),
                &found.iter().map(|row| row.attempts).collect::<Vec<_>>(),
                &found.iter().map(|row| row.crashes).collect::<Vec<_>>(),
                &found.iter().map(|row| row.round).collect::<Vec<_>>()
            )
            .execute(&mut *transaction)
            .await
            .doing("taking jobs back whose answer came late")?;
            taken.extend(found.iter().map(|row| row.fence));
            jobs.extend(found.iter().map(|row| row.job_id));
        }
    }
    Ok(taken)
}

/// Removes the rows that others have booked in place of these calls, from the ledger and from the sums; returns how
/// many.
pub(super) async fn remove_placeholders(
    transaction: &mut Transaction,
    calls: &[(Lease, i16)],
) -> Result<u64, StoreError> {
    let removed = sqlx::query_file_scalar!(
        "src/store/late/remove_placeholders.sql",
        &calls.iter().map(|(lease, _)| lease.job.0).collect::<Vec<_>>(),
        &calls.iter().map(|(lease, _)| lease.fence).collect::<Vec<_>>(),
        &calls.iter().map(|(_, number)| *number).collect::<Vec<_>>()
    )
    .fetch_one(transaction)
    .await
    .doing("replacing what was booked for calls")?;
    Ok(u64::try_from(removed).unwrap_or(0))
}

/// The state of a job whose claim has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The job does not exist.
    Lost,
    /// Another job has its number.
    Replaced,
}

/// Of these claims, those whose job does not exist or whose number another job has: the database has gone back in time,
/// by a failover that lost commits or a restored backup.
pub(super) async fn of_lost_jobs(
    transaction: &mut Transaction,
    leases: &[Lease],
) -> Result<HashMap<i64, Gone>, StoreError> {
    if leases.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"select l.fence as "fence!", j.born is null as "lost!"
             from unnest($1::bigint[], $2::bigint[], $3::bigint[]) l(job_id, fence, born)
                  left join lateral (
                       select ('x' || encode(timestamptz_send(b.created_at), 'hex'))::bit(64)::bigint as born
                         from sluice.job b where b.id = any (array[l.job_id])) j on true
            where j.born is null or (l.born <> 0 and l.born <> j.born)"#,
        &leases.iter().map(|lease| lease.job.0).collect::<Vec<_>>(),
        &leases.iter().map(|lease| lease.fence).collect::<Vec<_>>(),
        &leases.iter().map(|lease| lease.born).collect::<Vec<_>>()
    )
    .fetch_all(transaction)
    .await
    .doing("comparing jobs with their numbers")?;
    Ok(rows.into_iter().map(|row| (row.fence, if row.lost { Gone::Lost } else { Gone::Replaced })).collect())
}

/// Makes room on the ledger for calls of jobs that do not exist: their numbers may lie beyond all partitions.
pub(super) async fn make_room(transaction: &mut Transaction, jobs: &[i64]) -> Result<(), StoreError> {
    sqlx::query!("select sluice.make_room($1)", jobs)
        .fetch_one(transaction)
        .await
        .doing("making room for calls of lost jobs")?;
    Ok(())
}

/// Counts a call that was booked for a lost job, and keeps its answer with it, as it was paid for.
pub(super) async fn count_stray(
    transaction: &mut Transaction,
    (lease, number): (Lease, i16),
    answer: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "with kept as (
            update sluice.attempt a set answer = coalesce($4::text::jsonb, a.answer)
             where a.job_id = any (array[$1::bigint]) and a.fence = $2 and a.number = $3
            returning a.cost_nanos
        )
        update sluice.timeline t
           set lost_calls = t.lost_calls + 1, lost_cost_nanos = t.lost_cost_nanos + coalesce(k.cost_nanos, 0),
               lost_unpriced = t.lost_unpriced + (k.cost_nanos is null)::integer, lost_call_at = clock_timestamp()
          from kept k
         where t.number = (select max(number) from sluice.timeline)",
        lease.job.0,
        lease.fence,
        number,
        answer
    )
    .execute(transaction)
    .await
    .doing("counting calls of lost jobs")?;
    Ok(())
}
