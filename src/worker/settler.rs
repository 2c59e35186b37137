//! Writes what came of jobs in batches, so that one commit serves hundreds of answers.

use super::totals::Ledger;
use crate::domain::ErrorClass;
use crate::store::claim::Lease;
use crate::store::settle::{AttemptRow, EndingRow, ParkRow, Settlement};
use crate::store::{Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// An answer waits at most this long for company.
const LINGER: Duration = Duration::from_millis(12);
/// At most so many in one transaction.
const MAX_ITEMS: usize = 500;
/// At most so many bytes in one transaction, roughly.
const MAX_BYTES: usize = 4 << 20;
/// Transactions under way at once: one commits while the other fills.
const FLUSHERS: usize = 2;
/// Items that may wait; whoever brings more waits too.
const BACKLOG: usize = 4_000;

/// What becomes of the job.
#[derive(Clone, Debug)]
pub enum Then {
    /// It goes on in this worker's hands.
    GoOn,
    /// It is over.
    End(Box<EndingRow>),
    /// It goes back into the queue.
    Park(ParkRow),
}

/// What came of one step of a job: written together or not at all.
#[derive(Clone, Debug)]
pub struct Item {
    /// The call that was made, if one was.
    pub attempt: Option<Box<AttemptRow>>,
    /// What becomes of the job.
    pub then: Then,
}

impl Item {
    fn bytes(&self) -> usize {
        let attempt = self.attempt.as_ref().map_or(0, |row| {
            300 + row.message.as_ref().map_or(0, String::len)
                + row.rejected.as_ref().map_or(0, |answer| answer.text.as_ref().map_or(0, String::len))
        });
        let then = match &self.then {
            Then::GoOn => 0,
            Then::End(row) => 200 + row.response.as_ref().map_or(0, String::len),
            Then::Park(_) => 50,
        };
        attempt + then
    }
}

/// Counters of what was settled, for status.
#[derive(Debug, Default)]
pub struct Settled {
    /// Jobs that succeeded.
    pub succeeded: AtomicU64,
    /// Jobs that failed.
    pub failed: AtomicU64,
    /// Attempts booked.
    pub attempts: AtomicU64,
    /// Jobs given back.
    pub parked: AtomicU64,
    /// Writes whose fence no longer held.
    pub fenced_out: AtomicU64,
    /// Items on their way.
    pub waiting: AtomicU64,
    /// What was booked, by target and by route.
    pub ledger: Ledger,
}

/// The way in. Cheap to clone; when the last one is dropped the settler writes what it has and ends.
#[derive(Clone, Debug)]
pub struct Settler {
    sender: mpsc::Sender<Item>,
    counters: Arc<Settled>,
}

impl Settler {
    /// A settler and the loop that has to be run for it.
    #[must_use]
    pub fn new(store: Store) -> (Self, SettleLoop) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let counters = Arc::new(Settled::default());
        let settle_loop = SettleLoop { store, receiver, counters: Arc::clone(&counters) };
        (Self { sender, counters }, settle_loop)
    }

    /// Hands an item over; waits when too much is waiting already.
    pub async fn settle(&self, item: Item) {
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        // The loop outlives every sender, so there is always somebody who receives.
        if self.sender.send(item).await.is_err() {
            tracing::error!("the settler is gone; an outcome could not be written");
        }
    }

    /// What was settled so far.
    #[must_use]
    pub fn counters(&self) -> &Settled {
        &self.counters
    }
}

/// The receiving end: see [`SettleLoop::run`].
#[derive(Debug)]
pub struct SettleLoop {
    store: Store,
    receiver: mpsc::Receiver<Item>,
    counters: Arc<Settled>,
}

impl SettleLoop {
    /// Runs until every [`Settler`] is dropped and everything is written.
    pub async fn run(mut self) {
        let flushers = Arc::new(Semaphore::new(FLUSHERS));
        while let Some(first) = self.receiver.recv().await {
            let mut items = vec![first];
            let mut bytes = items.first().map_or(0, Item::bytes);
            let full_at = Instant::now() + LINGER;
            while items.len() < MAX_ITEMS && bytes < MAX_BYTES {
                match tokio::time::timeout_at(full_at, self.receiver.recv()).await {
                    Ok(Some(item)) => {
                        bytes += item.bytes();
                        items.push(item);
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            let permit = Arc::clone(&flushers).acquire_owned().await.expect("the semaphore is never closed");
            let (store, counters) = (self.store.clone(), Arc::clone(&self.counters));
            tokio::spawn(async move {
                write(&store, &counters, items).await;
                drop(permit);
            });
        }
        // All permits back: all transactions are done.
        let _all = flushers.acquire_many(u32::try_from(FLUSHERS).unwrap_or(1)).await;
    }
}

fn settlement(items: &[Item]) -> Settlement {
    let mut all = Settlement::default();
    for item in items {
        all.attempts.extend(item.attempt.as_deref().cloned());
        match &item.then {
            Then::GoOn => {}
            Then::End(row) => all.endings.push((**row).clone()),
            Then::Park(row) => all.parks.push(row.clone()),
        }
    }
    all
}

/// Writes a batch; when the data of one item is refused, writes the items one by one, and that one without its texts.
async fn write(store: &Store, counters: &Settled, items: Vec<Item>) {
    let count = items.len() as u64;
    let all = settlement(&items);
    match persist(store, counters, &all).await {
        Ok(()) => {}
        Err(error) if items.len() > 1 => {
            tracing::warn!(error = %error, items = count, "a batch was refused; writing its items one by one");
            for item in items {
                write_one(store, counters, item).await;
            }
        }
        Err(_) => {
            for item in items {
                write_one(store, counters, item).await;
            }
        }
    }
    counters.waiting.fetch_sub(count, Ordering::Relaxed);
}

async fn write_one(store: &Store, counters: &Settled, item: Item) {
    let Err(error) = persist(store, counters, &settlement(std::slice::from_ref(&item))).await else { return };
    let mut bare = item;
    if let Some(row) = &mut bare.attempt {
        row.message = None;
        row.code = None;
        row.usage_raw = None;
        row.rejected = None;
        row.decision = None;
    }
    if let Then::End(row) = &mut bare.then {
        row.response = None;
        row.failure = Some((ErrorClass::OutputInvalid, format!("the answer could not be stored: {error}")));
    }
    if let Err(error) = persist(store, counters, &settlement(std::slice::from_ref(&bare))).await {
        tracing::error!(error = %error, "an outcome could not be written; the job will be rescued");
    }
}

/// Tries until the database takes it; gives up only when it refuses the data.
async fn persist(store: &Store, counters: &Settled, all: &Settlement) -> Result<(), StoreError> {
    let mut pause = Duration::from_millis(100);
    loop {
        match store.settle(all).await {
            Ok(fenced_out) => {
                // What came too late has changed nothing, except that its attempts are booked.
                let came_late = |lease: &Lease| fenced_out.contains(lease);
                let endings: Vec<&EndingRow> = all.endings.iter().filter(|row| !came_late(&row.lease)).collect();
                let parked = all.parks.iter().filter(|row| !came_late(&row.lease)).count() as u64;
                let failed = endings.iter().filter(|row| row.failure.is_some()).count() as u64;
                counters.failed.fetch_add(failed, Ordering::Relaxed);
                counters.succeeded.fetch_add(endings.len() as u64 - failed, Ordering::Relaxed);
                counters.attempts.fetch_add(all.attempts.len() as u64, Ordering::Relaxed);
                counters.parked.fetch_add(parked, Ordering::Relaxed);
                counters.ledger.book(&all.attempts, endings);
                if !fenced_out.is_empty() {
                    counters.fenced_out.fetch_add(fenced_out.len() as u64, Ordering::Relaxed);
                    tracing::warn!(
                        jobs = fenced_out.len(),
                        "outcomes came too late: the jobs were taken over or cancelled"
                    );
                }
                return Ok(());
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(error = %error, waiting = all.endings.len(), "cannot write outcomes; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) => return Err(error),
        }
    }
}
