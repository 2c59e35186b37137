//! Asking the user at the terminal before something is done to many things at once.

use super::failure::CommandFailure;
use crate::printable;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Asks whether to carry out the wish, such as "cancel 3 jobs". Without a terminal the user cannot answer.
///
/// # Errors
/// The user says no, or cannot be asked.
pub(super) async fn consent(wish: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        return Err(CommandFailure::usage(format!("to {wish}, say --yes; nothing was changed")).into());
    }
    let mut stderr = printable::stderr();
    write!(stderr, "{wish}? [y/N] ")?;
    stderr.flush()?;
    // A thread of its own, which the command does not wait for: Ctrl-C is an answer too.
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        drop(tell.send(read.map(|_| answer)));
    });
    let answer = told.await??;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    anyhow::bail!("nothing was changed")
}
