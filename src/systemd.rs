//! Notifications to systemd: ready, alive, stopping. Without systemd all of it does nothing.

use crate::worker::LifeSign;
use parking_lot::Mutex;
use sd_notify::NotifyState;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Once;
use std::time::{Duration, Instant};

/// Passes a worker's signs on to systemd.
///
/// Only turns of the claim loop feed the watchdog: a loop that hangs is a worker that hangs.
#[derive(Debug)]
pub struct Notifier {
    /// Half of systemd's patience; `None` without a watchdog.
    every: Option<Duration>,
    fed_at: Mutex<Option<Instant>>,
}

impl Notifier {
    /// Reads from the environment whether systemd is there, and how patient it is.
    #[must_use]
    pub fn new() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|patience| patience / 2), fed_at: Mutex::new(None) }
    }

    /// Tells that the configuration is being read again.
    pub fn reloading(&self) {
        let reloading = |now| notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]);
        tell(NotifyState::monotonic_usec_now().and_then(reloading));
    }

    /// Tells that the configuration was read again: it is in force, or it was refused and the earlier one is.
    pub fn reloaded(&self, is_in_force: bool) {
        let status = if is_in_force { "working" } else { "working; the new configuration was refused, see the log" };
        tell(notify(&[NotifyState::Ready, NotifyState::Status(status)]));
    }

    /// Passes on a worker's sign.
    pub fn sign(&self, sign: LifeSign) {
        let sent = match sign {
            LifeSign::Ready => notify(&[NotifyState::Ready, NotifyState::Status("working")]),
            LifeSign::Stopping => notify(&[NotifyState::Stopping, NotifyState::Status("draining")]),
            LifeSign::Alive => {
                let Some(every) = self.every else { return };
                let mut fed_at = self.fed_at.lock();
                if fed_at.is_some_and(|at| at.elapsed() < every / 2) {
                    return;
                }
                *fed_at = Some(Instant::now());
                notify(&[NotifyState::Watchdog])
            }
        };
        tell(sent);
    }
}

/// Sends a message to the socket that the environment names. The crate does not know sockets without a file (`@name`),
/// which container managers use.
fn notify(states: &[NotifyState<'_>]) -> io::Result<()> {
    let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    match socket.as_bytes() {
        [] => Ok(()),
        [b'@', name @ ..] => {
            let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
            send_to_abstract(name, &lines.join("\n"))
        }
        [b'/', ..] => sd_notify::notify(states),
        // The manager outside of a virtual machine (`vsock:2:1234`), or some other kind. It does not wait for word of
        // this service: the manager inside does, and gives it a path.
        _ => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::info!(
                    socket = %socket.to_string_lossy(),
                    "NOTIFY_SOCKET is neither a path nor an abstract socket: nothing is sent to it"
                );
            });
            Ok(())
        }
    }
}

#[cfg(target_os = "linux")]
fn send_to_abstract(name: &[u8], message: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &SocketAddr::from_abstract_name(name)?).map(|_| ())
}

#[cfg(not(target_os = "linux"))]
fn send_to_abstract(_name: &[u8], _message: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn tell(sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!(error = %error, "cannot notify systemd");
    }
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}
