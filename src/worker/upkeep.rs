//! What any worker does for all, and a look whether it still may: waking parked jobs, rescuing those of the dead,
//! folding sums, making partitions and dropping old ones.

use super::spool::Spool;
use super::{Shared, history, outlet, retention};
use crate::store::maintenance::FOLD_AT_ONCE;
use crate::store::within;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const RESCUE_EVERY: Duration = Duration::from_secs(5);
/// A worker that is too old for the schema stops within this time.
const SCHEMA_EVERY: Duration = Duration::from_secs(5);
/// Whether the database has gone back in time: after the first heartbeat that is sent after this, which tells whether
/// anything is lost; at once when the database comes back.
const HISTORY_EVERY: Duration = Duration::from_secs(2);
const FOLD_EVERY: Duration = Duration::from_secs(5);
/// Who enqueues much and takes it back uses up numbers all the same, some million a second.
const PARTITIONS_EVERY: Duration = Duration::from_secs(5);
const TIDY_EVERY: Duration = Duration::from_mins(1);
/// Parked jobs are looked at when the next is due, and at least this often: others park too.
const PROMOTE_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// What takes longer is tried again on another connection.
const PATIENCE: Duration = Duration::from_secs(70);

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let now = Instant::now();
    let (mut rescue_at, mut fold_at, mut partitions_at, mut tidy_at) = (now, now, now, now);
    let mut said = retention::Said::default();
    let mut history_after = Instant::now();
    let (mut retention_at, mut schema_at) = (Instant::now(), Instant::now() + SCHEMA_EVERY);
    loop {
        let mut next = Instant::now() + PROMOTE_AT_LEAST_EVERY;
        match within(PATIENCE, "waking parked jobs", shared.store.promote()).await {
            Ok(0) => match within(PATIENCE, "looking at parked jobs", shared.store.next_due()).await {
                Ok(Some(due)) => next = next.min(shared.clock.instant(due)),
                Ok(None) => {}
                Err(error) => tracing::warn!(error = %error, "upkeep"),
            },
            Ok(woken) => {
                tracing::debug!(jobs = woken, "parked jobs are ready");
                next = Instant::now();
            }
            Err(error) => {
                tracing::warn!(error = %error, "upkeep");
                history_after = Instant::now();
            }
        }
        let now = Instant::now();
        if shared.last_beat() > history_after || shared.knows_of_a_loss() {
            history_after = now + HISTORY_EVERY;
            match history::look(&shared).await {
                Ok(true) => {}
                Ok(false) => history_after = now,
                Err(error) => {
                    tracing::warn!(error = %error, "upkeep");
                    history_after = now;
                }
            }
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
            match within(PATIENCE, "rescuing jobs", rescuing).await {
                Ok(rescued) if rescued.workers + rescued.jobs + rescued.poisoned > 0 => tracing::warn!(
                    workers = rescued.workers,
                    jobs = rescued.jobs,
                    poisoned = rescued.poisoned,
                    "took over from workers that are gone"
                ),
                Ok(_) => {}
                Err(error) => tracing::warn!(error = %error, "upkeep"),
            }
        }
        if now >= fold_at {
            fold_at = now + FOLD_EVERY;
            match within(PATIENCE, "folding sums", shared.store.fold_tally()).await {
                // A full helping: there is more.
                Ok(FOLD_AT_ONCE..) => fold_at = now,
                Ok(_) => {}
                Err(error) => tracing::warn!(error = %error, "upkeep"),
            }
        }
        if now >= partitions_at {
            partitions_at = now + PARTITIONS_EVERY;
            if let Err(error) = within(PATIENCE, "making partitions", shared.store.ensure_partitions()).await {
                tracing::warn!(error = %error, "upkeep");
            }
        }
        if now >= tidy_at {
            tidy_at = now + TIDY_EVERY;
            let kept = async {
                shared.store.forget_workers().await?;
                shared.store.forget_turns().await?;
                shared.store.own_keys().await
            };
            match within(PATIENCE, "keeping tables in shape", kept).await {
                // There are more.
                Ok(1..) => tidy_at = now,
                Ok(_) => {}
                Err(error) => tracing::warn!(error = %error, "upkeep"),
            }
        }
        if now >= schema_at {
            schema_at = now + SCHEMA_EVERY;
            match shared.store.schema_version().await {
                Ok(version) => shared.mind_schema(version),
                Err(error) => tracing::warn!(error = %error, "upkeep"),
            }
        }
        if now >= retention_at {
            retention_at = now + retention::step(&shared, &mut said).await;
            next = next.min(retention_at);
        }
        // Never a busy loop, even when the clock says that something was due long ago.
        tokio::time::sleep_until(next.max(Instant::now() + Duration::from_millis(20))).await;
    }
}

/// Siblings on this machine that have ended leave their spools behind: there is no need to wait for their leases.
async fn take_over(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let Some(settings) = shared.settings().spool.clone() else { return Ok(()) };
    let installation = shared.installation.clone();
    let left = tokio::task::spawn_blocking(move || Spool::abandoned(&settings, &installation)).await??;
    outlet::take_over(&shared.store, left, shared.settings().max_crashes).await?;
    Ok(())
}
