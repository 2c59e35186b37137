//! What systemd is told: ready, alive, stopping. Without systemd all of it does nothing.

use crate::worker::Sign;
use sd_notify::NotifyState;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Passes a worker's signs on to systemd.
///
/// The watchdog is fed by turns of the claim loop and by nothing else: a loop that hangs is a worker that hangs.
#[derive(Debug)]
pub struct Notifier {
    /// Half of systemd's patience; `None` without a watchdog.
    every: Option<Duration>,
    fed_at: Mutex<Option<Instant>>,
}

impl Notifier {
    /// Reads from the environment whether there is a systemd, and how patient it is.
    #[must_use]
    pub fn new() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|patience| patience / 2), fed_at: Mutex::new(None) }
    }

    /// The configuration is being read again.
    pub fn reloading(&self) {
        let reloading = |now| sd_notify::notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]);
        tell(NotifyState::monotonic_usec_now().and_then(reloading));
    }

    /// The configuration was read again: it is in force, or it was refused and the one before is.
    pub fn reloaded(&self, is_in_force: bool) {
        let status = if is_in_force { "working" } else { "working; the new configuration was refused, see the log" };
        tell(sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]));
    }

    /// Passes a sign on.
    pub fn sign(&self, sign: Sign) {
        let sent = match sign {
            Sign::Ready => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("working")]),
            Sign::Stopping => sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("draining")]),
            Sign::Alive => {
                let Some(every) = self.every else { return };
                let mut fed_at = self.fed_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if fed_at.is_some_and(|at| at.elapsed() < every / 2) {
                    return;
                }
                *fed_at = Some(Instant::now());
                sd_notify::notify(&[NotifyState::Watchdog])
            }
        };
        tell(sent);
    }
}

fn tell(sent: std::io::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!(error = %error, "cannot notify systemd");
    }
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}
