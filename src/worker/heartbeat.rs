//! Reports that this process is alive, and learns of cancelled jobs.

use super::{STEADY, Shared, history, start};
use crate::store::within;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Far below the lease, so that several beats may fail before another worker takes over.
const EVERY: Duration = Duration::from_secs(3);

/// The longest that the worker waits for a beat: the connection may be dead, and the next beat takes another.
const PATIENCE: Duration = Duration::from_secs(5);

/// One that is under way, and the one after it.
const TWO: Duration = PATIENCE.saturating_mul(2);

/// The heartbeats of this process that have reached the database.
#[derive(Debug)]
pub(super) struct Heartbeats {
    /// When the last of them was sent.
    last: Mutex<Instant>,
    /// Notified when one has come through.
    came_through: Notify,
    /// Notified when one should be sent at once.
    wanted: Notify,
}

impl Heartbeats {
    /// Those of a process that has just registered.
    pub(super) fn new() -> Self {
        Self { last: Mutex::new(Instant::now()), came_through: Notify::new(), wanted: Notify::new() }
    }

    /// When the last heartbeat that reached the database was sent.
    pub(super) fn last(&self) -> Instant {
        *self.last.lock()
    }

    /// Waits for the next one, a second at most: it may have come between the caller's look and this wait.
    pub(super) async fn next(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.came_through.notified()).await;
    }

    /// Asks for a heartbeat, and waits for one that was sent after `moment`. `false`: none has come through for as long
    /// as two of them take at most.
    ///
    /// One that is under way answers nothing: it was sent before. To ask again then, about a later moment, would be in
    /// vain for ever, as the next one is sent as soon as this one has come through.
    pub(super) async fn after(&self, moment: Instant) -> bool {
        let end = Instant::now() + TWO;
        self.wanted.notify_one();
        loop {
            let mut next = std::pin::pin!(self.came_through.notified());
            next.as_mut().enable();
            if self.last() > moment {
                return true;
            }
            if tokio::time::timeout_at(end, next).await.is_err() {
                return self.last() > moment;
            }
        }
    }
}

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
                let before = std::mem::replace(&mut *shared.heartbeats.last.lock(), asked);
                let mut steady = shared.steady_since.lock();
                // A process that was suspended for a while has heard nothing of the others either.
                if steady.is_none() || asked.duration_since(before) > STEADY {
                    *steady = Some(asked);
                }
                drop(steady);
                *shared.unheard.lock() = None;
                shared.heartbeats.came_through.notify_waiters();
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
            () = shared.heartbeats.wanted.notified() => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Heartbeats that take so long, the first of which is under way.
    fn beating(took: Duration) -> Arc<Heartbeats> {
        let heartbeats = Arc::new(Heartbeats::new());
        let these = Arc::clone(&heartbeats);
        tokio::spawn(async move {
            loop {
                let sent = Instant::now();
                tokio::time::sleep(took).await;
                *these.last.lock() = sent;
                these.came_through.notify_waiters();
                let _ = tokio::time::timeout(EVERY, these.wanted.notified()).await;
            }
        });
        heartbeats
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_under_way_is_not_the_one_that_was_asked_for_and_the_next_one_is() {
        for took in [1, 900, 1_100, 4_900] {
            let heartbeats = beating(Duration::from_millis(took));
            for _ in 0..5 {
                // While one is under way.
                heartbeats.wanted.notify_one();
                tokio::time::sleep(Duration::from_micros(took * 500)).await;
                let moment = Instant::now();
                assert!(heartbeats.after(moment).await, "{took} ms each");
                assert!(heartbeats.last() > moment);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_that_does_not_come_is_not_waited_for_for_ever() {
        let heartbeats = beating(Duration::from_mins(10));
        let moment = Instant::now();
        assert!(!heartbeats.after(moment).await);
        assert_eq!(moment.elapsed(), TWO);
    }
}
