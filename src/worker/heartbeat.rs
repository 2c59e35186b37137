//! Reports that this process is alive, and learns of cancelled jobs.

use super::{STEADY, Shared, history, start};
use crate::store::within;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Far below the lease, so that several beats may fail before another worker takes over.
const EVERY: Duration = Duration::from_secs(3);

/// The longest that the worker waits for a beat: the connection may be dead, and the next beat takes another.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let ordinal = shared.beats.fetch_add(1, Ordering::AcqRel) + 1;
        // Measured from before the statement: the lease runs from when the database saw it, which is not earlier.
        let asked = Instant::now();
        let statistics = shared.statistics();
        let beat = shared.store.beat(shared.worker_id(), &statistics);
        let beaten = within(PATIENCE, "renewing the lease", beat).await;
        if let Ok(beat) = &beaten {
            let mut confirmed = shared.confirmed.lock();
            if let Some(loss) = history::loss(*confirmed, beat) {
                *shared.loss.lock() = Some(loss);
            }
            *confirmed = beat.alive.then_some((ordinal, beat.now));
        }
        match beaten {
            Ok(beat) if beat.alive => {
                shared.clock.set(beat.now);
                let before = std::mem::replace(&mut *shared.last_beat.lock(), asked);
                let mut steady = shared.steady_since.lock();
                // A process that was suspended for a while has heard nothing of the others either.
                if steady.is_none() || asked.duration_since(before) > STEADY {
                    *steady = Some(asked);
                }
                drop(steady);
                *shared.unheard.lock() = None;
                shared.beaten.notify_waiters();
                if !beat.recalled.is_empty() {
                    shared.hands.recall(&beat.recalled);
                }
            }
            Ok(_) => begin_anew(&shared).await,
            Err(error) => {
                *shared.steady_since.lock() = None;
                *shared.unheard.lock() = Some(error.to_string());
                tracing::warn!(error = %error, "no heartbeat");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shared.beat_wanted.notified() => {}
        }
    }
}

/// This process was declared dead, so other workers may have all its jobs in hand. It starts no more calls for them.
/// Calls under way are paid for, so they go on, and their answers are used where no other answer was faster. The
/// process starts a new life.
async fn begin_anew(shared: &Arc<Shared>) {
    tracing::error!(
        worker.id = shared.worker_id(),
        "this worker was declared dead; it starts no more calls for the jobs that it holds, and registers again"
    );
    shared.hands.lose_all();
    match within(PATIENCE, "registering", start::sign_on(&shared.store)).await {
        Ok((id, now)) => {
            *shared.unheard.lock() = None;
            shared.id.store(id, Ordering::Release);
            shared.clock.set(now);
            if let Some(spool) = shared.settler.spool().cloned()
                && let Ok(Err(error)) = tokio::task::spawn_blocking(move || spool.renumber(id)).await
            {
                tracing::warn!(
                    error = %error,
                    "could not write the new worker number into the spool; after a restart, jobs wait until the lease \
                     expires"
                );
            }
        }
        Err(error) => {
            *shared.unheard.lock() = Some(error.to_string());
            tracing::warn!(error = %error, "cannot register again");
        }
    }
}
