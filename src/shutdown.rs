//! Signals, as events to wait for.

use crate::exit_code::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two stages of stopping: the first SIGTERM or SIGINT asks the process to drain, the second to hurry.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Cancelled by the first signal.
    pub stop: CancellationToken,
    /// Cancelled by the second signal.
    pub hurry: CancellationToken,
}

impl Signals {
    /// Listens from now on, for the rest of the process's life.
    ///
    /// # Errors
    /// The operating system does not allow it.
    pub fn listen() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let signals = Self { stop: CancellationToken::new(), hurry: CancellationToken::new() };
        let told = signals.clone();
        // Under no watch: nothing in it can panic, and it ends with the second signal, when nothing is left to tell.
        tokio::spawn(async move {
            for token in [&told.stop, &told.hurry] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(signals)
    }
}

/// SIGHUP, by which a daemon is told to read its configuration again.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Listens from now on. Without a listener the signal would end the process and cut off every call.
    ///
    /// # Errors
    /// The operating system does not allow it.
    pub fn listen() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next signal. Several that came together count as one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// For commands that end by themselves: cancelled by the first SIGINT, SIGTERM or SIGHUP. The second ends the process
/// at once, in case it hangs.
///
/// # Errors
/// The operating system does not allow it.
pub fn interruption() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let token = CancellationToken::new();
    let told = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
            if told.is_cancelled() {
                std::process::exit(ExitCode::Interrupted as i32);
            }
            told.cancel();
        }
    });
    Ok(token)
}
