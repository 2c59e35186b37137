//! Work that any worker does for all, besides checking whether it may still run: waking parked jobs, rescuing jobs of
//! dead workers, folding sums, stopping batches that fail, making partitions and dropping old ones.

use super::spool::Spool;
use super::troubles::Troubles;
use super::{Shared, history, money, outlet, retention, stop_losses};
use crate::store::maintenance::{FOLD_AT_ONCE, Folded};
use crate::store::within;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const RESCUE_EVERY: Duration = Duration::from_secs(5);
/// A worker that is too old for the schema stops within this time.
const SCHEMA_EVERY: Duration = Duration::from_secs(5);
/// How often to check whether the database has gone back in time. The check waits for the first heartbeat sent after it
/// is due, which shows whether anything is lost. When the database comes back the check is made at once.
const HISTORY_EVERY: Duration = Duration::from_secs(2);
const FOLD_EVERY: Duration = Duration::from_secs(5);
/// How often batches in which jobs have failed are counted for their stop-loss …
const STOP_LOSSES_EVERY: Duration = Duration::from_secs(1);
/// … and the pause after a count, at least so many times its duration.
const PAUSE_IN_COUNTING: u32 = 9;
/// Unless the worker is idle, a full batch is followed by a pause of so many times its duration …
const PAUSE: u32 = 9;
/// … and of so many times where folding does not pay: most rows came to a sum of their own, …
const LONG_PAUSE: u32 = 99;
/// … in which case a batch has at most this many rows (so does the first batch), …
const A_FEW: u64 = 1_000;
/// … unless more than this many rows have been left over by it. Reports read them all.
const MOST_LEFT: u64 = 4_000_000;
/// A batch takes about this long at most, however little there is to do: jobs may come at any moment.
const BATCH_TIME: Duration = Duration::from_millis(250);
/// A worker that has had no job for so long is idle. One that has just started is not: its first jobs are on their way.
const IDLE_AFTER: Duration = Duration::from_secs(2);
/// How often budgets are added up of which no call asks for room, and reservations for no call are given back.
const BUDGETS_EVERY: Duration = Duration::from_secs(1);
/// Often enough for applications that enqueue many jobs and roll back: they use up numbers all the same, some million a
/// second.
const PARTITIONS_EVERY: Duration = Duration::from_secs(5);
const TIDY_EVERY: Duration = Duration::from_mins(1);
/// How long a word about a target or a key is kept.
const KEEP_HEALTH: Duration = Duration::from_hours(7 * 24);
/// How long the ticks of schedules are kept where finished work is kept for ever, …
const KEEP_TICKS: Duration = Duration::from_hours(90 * 24);
/// … and at least, so that a clock that is set back repeats none.
const KEEP_TICKS_AT_LEAST: Duration = Duration::from_hours(7 * 24);
/// Parked jobs are woken when the next is due, and at least this often: other workers park jobs too.
const PROMOTE_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// A statement that takes longer is tried again on another connection.
const PATIENCE: Duration = Duration::from_secs(70);

/// How long folding pauses after a full batch that took so long and did this, and how many rows the next batch takes.
/// `is_idle`: this worker has had no job for a while.
///
/// Jobs come first: a sum that is not folded yet counts in every report all the same. Where each job is alone in its
/// batch, folding without a pause would take a third of the database's time, and leave as many rows as before. A large
/// batch of such rows takes seconds, in which the jobs have one processor less.
fn next_fold(took: Duration, folded: Folded, is_idle: bool) -> (Duration, u64) {
    let pays = folded.sums.saturating_mul(2) <= folded.rows || folded.left > MOST_LEFT;
    let in_time = u128::from(folded.rows) * BATCH_TIME.as_micros() / took.as_micros().max(1);
    let in_time = u64::try_from(in_time).unwrap_or(u64::MAX).clamp(A_FEW, FOLD_AT_ONCE);
    match (is_idle, pays) {
        (true, _) => (Duration::ZERO, in_time),
        (false, true) => (took * PAUSE, in_time),
        (false, false) => (took * LONG_PAUSE, A_FEW),
    }
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let now = Instant::now();
    let (mut rescue_at, mut fold_at, mut partitions_at, mut tidy_at) = (now, now, now, now);
    let (mut fold_most, mut busy_at) = (A_FEW, now);
    let mut said = retention::Said::default();
    let mut troubles = Troubles::default();
    let mut history_after = Instant::now();
    let (mut stop_losses_at, mut budgets_at) = (now, now);
    let (mut retention_at, mut schema_at) = (Instant::now(), Instant::now() + SCHEMA_EVERY);
    loop {
        let mut next = Instant::now() + PROMOTE_AT_LEAST_EVERY;
        let promoted = within(PATIENCE, "waking parked jobs", shared.store.promote()).await;
        match troubles.note("waking parked jobs", promoted) {
            Some(0) => {
                let due = within(PATIENCE, "looking at parked jobs", shared.store.next_due()).await;
                if let Some(Some(due)) = troubles.note("looking at parked jobs", due) {
                    next = next.min(shared.clock.instant(due));
                }
            }
            Some(woken) => {
                tracing::debug!(jobs = woken, "parked jobs are ready");
                next = Instant::now();
            }
            None => history_after = Instant::now(),
        }
        let now = Instant::now();
        if shared.last_beat() > history_after || shared.knows_of_a_loss() {
            let looked = history::look(&shared).await;
            let is_known = troubles.note("looking at the history of the database", looked);
            history_after = if is_known == Some(true) { now + HISTORY_EVERY } else { now };
        }
        if now >= rescue_at {
            rescue_at = now + RESCUE_EVERY;
            if let Err(error) = take_over(&shared).await {
                tracing::warn!(error = %error, "cannot take over from a worker of this machine that has ended");
            }
            let rescuing = async {
                if shared.others_have_had_their_time() {
                    shared.store.rescue(shared.settings().max_crashes).await
                } else {
                    shared.store.rescue_left(shared.settings().max_crashes).await
                }
            };
            let rescued = within(PATIENCE, "rescuing jobs", rescuing).await;
            if let Some(rescued) = troubles.note("rescuing jobs", rescued)
                && rescued.workers + rescued.jobs + rescued.poisoned > 0
            {
                tracing::warn!(
                    workers = rescued.workers,
                    jobs = rescued.jobs,
                    poisoned = rescued.poisoned,
                    "took over from workers that are gone"
                );
            }
        }
        if shared.hands.jobs() > 0 {
            busy_at = now;
        }
        if now >= fold_at {
            fold_at = now + FOLD_EVERY;
            let began = Instant::now();
            let folded = within(PATIENCE, "folding sums", shared.store.fold_some(fold_most)).await;
            // A full batch: there is more.
            if let Some(folded) = troubles.note("folding sums", folded).filter(|folded| folded.rows >= fold_most) {
                let is_idle = shared.hands.jobs() == 0 && busy_at.elapsed() >= IDLE_AFTER;
                let (pause, most) = next_fold(began.elapsed(), folded, is_idle);
                (fold_at, fold_most) = (Instant::now() + pause, most);
            }
        }
        if now >= stop_losses_at {
            let began = Instant::now();
            let counted = within(PATIENCE, "counting failed jobs of batches", stop_losses::look(&shared)).await;
            troubles.note("counting failed jobs of batches", counted);
            stop_losses_at = now + STOP_LOSSES_EVERY.max(began.elapsed() * PAUSE_IN_COUNTING);
        }
        if now >= budgets_at {
            let began = Instant::now();
            let tended = within(PATIENCE, "adding up budgets", money::tend(&shared)).await;
            troubles.note("adding up budgets", tended);
            budgets_at = now + BUDGETS_EVERY.max(began.elapsed() * PAUSE_IN_COUNTING);
        }
        if now >= partitions_at {
            partitions_at = now + PARTITIONS_EVERY;
            let made = within(PATIENCE, "making partitions", shared.store.ensure_partitions()).await;
            troubles.note("making partitions", made);
        }
        if now >= tidy_at {
            tidy_at = now + TIDY_EVERY;
            let kept = async {
                shared.store.forget_workers().await?;
                shared.store.forget_turns().await?;
                shared.store.forget_health(KEEP_HEALTH).await?;
                let kept = shared.settings().retention.map_or(KEEP_TICKS, |retention| retention.finished);
                shared.store.forget_ticks(kept.max(KEEP_TICKS_AT_LEAST)).await?;
                shared.store.own_keys().await
            };
            let kept = within(PATIENCE, "keeping tables in shape", kept).await;
            // There is more to do.
            if troubles.note("keeping tables in shape", kept).is_some_and(|kept| kept > 0) {
                tidy_at = now;
            }
        }
        if now >= schema_at {
            schema_at = now + SCHEMA_EVERY;
            if let Some(version) =
                troubles.note("reading the version of the schema", shared.store.schema_version().await)
            {
                shared.mind_schema(version);
                let left = shared.store.leave_older_behind(version).await;
                if troubles.note("leaving older binaries behind", left) == Some(true) {
                    tracing::info!("answers are written as text from now on; an earlier sluice refuses this database");
                }
            }
        }
        if now >= retention_at {
            retention_at = now + retention::step(&shared, &mut said, &mut troubles).await;
            next = next.min(retention_at);
        }
        // Never a busy loop, even when the clock says that the next task was due long ago.
        tokio::time::sleep_until(next.max(Instant::now() + Duration::from_millis(20))).await;
    }
}

/// Workers of this machine that have ended leave their spools behind: there is no need to wait for their leases.
async fn take_over(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let Some(settings) = shared.settings().spool.clone() else { return Ok(()) };
    let installation = shared.installation.clone();
    let left = tokio::task::spawn_blocking(move || Spool::abandoned(&settings, &installation)).await??;
    outlet::take_over(&shared.store, left, shared.settings().max_crashes).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_takes_a_small_part_of_the_time_while_there_are_jobs_and_all_of_it_otherwise() {
        let folded = |sums, left| Folded { rows: 20_000, sums, left };
        let in_time = Duration::from_millis;
        let (took, most) = (in_time(500), 10_000);
        let cases = [
            (folded(1, 0), 10, most),
            (folded(10_000, 0), 10, most),
            // Folding leaves more than half of the rows: a smaller part, as long as those that wait are few.
            (folded(10_001, 0), 100, A_FEW),
            (folded(20_000, MOST_LEFT), 100, A_FEW),
            (folded(20_000, MOST_LEFT + 1), 10, most),
        ];
        for (folded, times, next) in cases {
            assert_eq!(next_fold(took, folded, false), ((times - 1) * took, next), "{folded:?}");
            // Jobs may come in the midst of the next batch.
            assert_eq!(next_fold(took, folded, true), (Duration::ZERO, most));
        }
        // Each sum of its own takes long, a million in one no time.
        for (took, most) in
            [(2_700, 1_851), (60_000, A_FEW), (250, FOLD_AT_ONCE), (20, FOLD_AT_ONCE), (0, FOLD_AT_ONCE)]
        {
            assert_eq!(next_fold(in_time(took), folded(20_000, 0), true).1, most, "{took} ms");
        }
    }
}
