//! Starts the private Postgres again when it ends while it is in use, as after a kill by the system for want of memory.

use super::place::Place;
use super::{EmbeddedError, EmbeddedPostgres, Options};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the server runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps the server of a folder running. Ends without a trace when it is dropped; see [`stop`](Self::stop).
#[derive(Debug)]
pub struct Keeper {
    stop: CancellationToken,
    looks: JoinHandle<()>,
}

impl Keeper {
    /// Begins to look after the server of `options.data_dir`, which runs. It is for a process that uses the server: the
    /// last user stops it, and that would be taken for a crash by one who does not.
    #[must_use]
    pub fn of(options: Options) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let looks = tokio::spawn(async move {
            let mut last_error = String::new();
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = stopped.cancelled() => return,
                }
                match start_if_ended(&options).await {
                    Ok(false) => {}
                    Ok(true) => {
                        last_error.clear();
                        tracing::warn!(
                            data_dir = %options.data_dir.display(),
                            "the private Postgres had ended, and was started again"
                        );
                    }
                    Err(error) => {
                        let said = error.to_string();
                        if said != last_error {
                            tracing::error!(error = %said, "the private Postgres has ended, and does not start again");
                        }
                        last_error = said;
                    }
                }
            }
        });
        Self { stop, looks }
    }

    /// Looks no more. A start that is under way is waited for, so that the server can be stopped in order.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // Its panic was logged, and leaves the server as it is.
        let _ = (&mut self.looks).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.looks.abort();
    }
}

/// Starts the server if it has ended; returns whether it had.
async fn start_if_ended(options: &Options) -> Result<bool, EmbeddedError> {
    let place = Place::prepare(&options.data_dir).await?;
    if place.running().is_some() {
        return Ok(false);
    }
    let start_lock = place.lock_start().await?;
    if place.running().is_some() {
        return Ok(false);
    }
    // Without a lock of its own: this process holds that of a user already.
    let mut again = EmbeddedPostgres { socket_dir: place.socket_dir()?, place, users_lock: None };
    let started = again.start_locked(options).await;
    drop(start_lock);
    started.map(|()| true)
}
