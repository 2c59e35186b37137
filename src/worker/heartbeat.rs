//! Says that this process is alive, and hears of cancelled jobs.

use super::Shared;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Far below the lease, so that several beats may fail before anybody takes over.
const EVERY: Duration = Duration::from_secs(3);

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        // Counted from before the statement: the lease runs from when the database saw it, which is not earlier.
        let asked = Instant::now();
        match shared.store.beat(shared.worker_id(), &shared.stats()).await {
            Ok(beat) if beat.alive => {
                shared.clock.set(beat.now);
                *shared.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = asked;
                shared.beaten.notify_waiters();
                if !beat.recalled.is_empty() {
                    shared.recall(&beat.recalled);
                }
            }
            Ok(_) => begin_anew(&shared).await,
            Err(error) => tracing::warn!(error = %error, "no heartbeat"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Declared dead: others may have every job in hand. They are dropped here, and a new life begins.
async fn begin_anew(shared: &Arc<Shared>) {
    tracing::error!(worker.id = shared.worker_id(), "this worker was declared dead; dropping what it holds");
    shared.recall_all();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    match shared.store.register(&host, pid, env!("CARGO_PKG_VERSION")).await {
        Ok((id, now)) => {
            shared.id.store(id, Ordering::Release);
            shared.clock.set(now);
        }
        Err(error) => tracing::warn!(error = %error, "cannot register anew"),
    }
}
