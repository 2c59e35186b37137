//! Reading ahead: a file is read and checked while the database works.

use crate::input::{InputError, InputJob};
use anyhow::Context as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// Jobs that go from the reader to the database at once, and how many such lots may wait.
const LOT: usize = 256;
const LOT_BYTES: usize = 1 << 20;
const LOTS_AHEAD: usize = 8;

/// Jobs that go to the database together, and faults among them.
pub type Lot = Vec<Result<InputJob, InputError>>;

/// Reads and checks on a thread of its own while the database works, up to this many jobs ahead. Ends when the receiver
/// is gone; a thread that waits for a pipe does not keep the program from ending. The flag is set when all jobs have
/// been read, and not when the thread came to grief.
///
/// # Errors
/// No thread can be started.
pub fn read_ahead(
    jobs: impl Iterator<Item = Result<InputJob, InputError>> + Send + 'static,
    limit: Option<u64>,
) -> anyhow::Result<(mpsc::Receiver<Lot>, Arc<AtomicBool>)> {
    let (sender, lots) = mpsc::channel(LOTS_AHEAD);
    let is_whole = Arc::new(AtomicBool::new(false));
    let read_all = Arc::clone(&is_whole);
    let read = move || {
        let mut lot = Vec::with_capacity(LOT);
        let (mut bytes, mut count) = (0, 0);
        for job in jobs {
            if let Ok(job) = &job {
                bytes += job.body.len();
                count += 1;
            }
            lot.push(job);
            if limit == Some(count) {
                break;
            }
            // Long lines are sent sooner, so that the waiting jobs are bounded in bytes too.
            if lot.len() >= LOT || bytes >= LOT_BYTES {
                bytes = 0;
                if sender.blocking_send(std::mem::take(&mut lot)).is_err() {
                    return;
                }
            }
        }
        read_all.store(true, Ordering::Release);
        // If the receiver is gone, the lot is not needed.
        let _ = sender.blocking_send(lot);
    };
    std::thread::Builder::new().name("input".to_owned()).spawn(read).context("starting the reader")?;
    Ok((lots, is_whole))
}
