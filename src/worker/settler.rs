//! Gathers what came of jobs into batches, so that one commit serves hundreds of answers.

use super::denied::Denied;
use super::loops::Loops;
use super::outlet::Outlet;
use super::spool::Spool;
use super::totals::Ledger;
use crate::store::claim::Lease;
use crate::store::settle::{AttemptRow, EndingRow, ParkRow, Settlement};
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// An answer waits at most this long for company.
const LINGER: Duration = Duration::from_millis(12);
/// At most so many in one transaction.
const MAX_ITEMS: usize = 500;
/// At most so many bytes in one transaction, roughly.
const MAX_BYTES: usize = 4 << 20;
/// Transactions under way at once: one commits while the other fills.
const FLUSHERS: usize = 2;
/// Items that may wait; a job that brings one more waits too.
const BACKLOG: usize = 4_000;
/// The loop goes on after so many panics but one.
const MOST_FALLS: u32 = 3;

/// What becomes of the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It goes on in this worker's hands.
    GoOn,
    /// It is over.
    End(Box<EndingRow>),
    /// It goes back into the queue.
    Park(ParkRow),
}

/// What came of one step of a job: written together or not at all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The call that was made, if one was.
    pub attempt: Option<Box<AttemptRow>>,
    /// What becomes of the job.
    pub then: Then,
}

impl Item {
    /// The claim that it is written under.
    pub(super) fn lease(&self) -> Option<Lease> {
        match &self.then {
            Then::GoOn => self.attempt.as_ref().map(|row| row.lease),
            Then::End(row) => Some(row.lease),
            Then::Park(row) => Some(row.lease),
        }
    }

    /// That claim's number.
    pub(super) fn fence(&self) -> Option<i64> {
        self.lease().map(|lease| lease.fence)
    }

    /// The job's number, for what is said of it.
    pub(super) fn job(&self) -> Option<i64> {
        self.lease().map(|lease| lease.job.0)
    }

    pub(super) fn bytes(&self) -> usize {
        let attempt = self.attempt.as_ref().map_or(0, |row| {
            300 + row.message.as_ref().map_or(0, String::len) + row.answer.as_ref().map_or(0, |answer| answer.bytes())
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
    /// Items on their way that nothing but memory holds.
    pub waiting: AtomicU64,
    /// Claims with items that are not in the database yet, in memory or in the spool, and how many.
    unsettled: Mutex<HashMap<i64, u32>>,
    /// What was booked, by target and by route.
    pub ledger: Ledger,
    /// What of this worker's work the database refuses.
    pub denied: Denied,
}

impl Settled {
    fn begins(&self, item: &Item) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if let Some(fence) = item.fence() {
            *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).entry(fence).or_default() += 1;
        }
    }

    /// These are in the database, or never will be.
    pub(super) fn are_settled(&self, items: &[Item]) {
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        for fence in items.iter().filter_map(Item::fence) {
            if let Some(count) = unsettled.get_mut(&fence) {
                *count -= 1;
                if *count == 0 {
                    unsettled.remove(&fence);
                }
            }
        }
    }

    /// These will be written by nothing any more. Their jobs stay in this worker's hands, so they are rescued when it
    /// is gone.
    fn are_lost(&self, items: &[Item]) {
        if items.is_empty() {
            return;
        }
        let jobs: Vec<i64> = items.iter().filter_map(Item::job).collect();
        tracing::error!(job.ids = ?jobs, "outcomes could not be written: the settler has failed. Their jobs will be rescued");
        self.are_settled(items);
        self.waiting.fetch_sub(items.len() as u64, Ordering::AcqRel);
    }

    /// Claims of which something is not in the database yet.
    #[must_use]
    pub fn unsettled(&self) -> Vec<i64> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

/// An item, and who wants to hear when it outlives this process.
#[derive(Debug)]
struct Handed {
    item: Item,
    kept: Option<oneshot::Sender<()>>,
}

/// The way in. Cheap to clone; when the last one is dropped the settler writes what it has and ends.
#[derive(Clone, Debug)]
pub struct Settler {
    sender: mpsc::Sender<Handed>,
    counters: Arc<Settled>,
    spool: Option<Arc<Spool>>,
    outlet: Outlet,
}

impl Settler {
    /// A settler and the loop that has to be run for it. Without a spool outcomes wait in memory while the database is
    /// away.
    #[must_use]
    pub fn new(store: Store, spool: Option<Arc<Spool>>) -> (Self, SettleLoop) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let counters = Arc::new(Settled::default());
        let outlet = Outlet::new(store, Arc::clone(&counters), spool.clone());
        let settler = Self { sender, counters, spool, outlet: outlet.clone() };
        (settler, SettleLoop { receiver, outlet, gathered: Vec::new() })
    }

    /// Hands an item over; waits when too much is waiting already.
    pub async fn settle(&self, item: Item) {
        self.hand_over(item, None).await;
    }

    /// Hands an item over and waits until it is in the database or in the spool.
    pub async fn settle_for_good(&self, item: Item) {
        let (kept, heard) = oneshot::channel();
        self.hand_over(item, Some(kept)).await;
        let _ = heard.await;
    }

    async fn hand_over(&self, item: Item, kept: Option<oneshot::Sender<()>>) {
        self.counters.begins(&item);
        // The loop outlives every sender, so there is always somebody who receives.
        if let Err(unsent) = self.sender.send(Handed { item, kept }).await {
            self.counters.are_lost(std::slice::from_ref(&unsent.0.item));
        }
    }

    /// Writes once more what was settled lately, after the database has lost commits; returns how many outcomes that
    /// were.
    ///
    /// # Errors
    /// Those of the database. What could not be written is written the next time.
    pub(super) async fn write_again(&self) -> Result<u64, StoreError> {
        self.outlet.write_again().await
    }

    /// What was settled so far.
    #[must_use]
    pub fn counters(&self) -> &Settled {
        &self.counters
    }

    /// Where outcomes wait on disk.
    #[must_use]
    pub fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref()
    }

    /// Outcomes that are not in the database yet.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.unkept() + self.spool.as_ref().map_or(0, |spool| spool.fill().outcomes)
    }

    /// Those of them that nothing but memory holds.
    #[must_use]
    pub fn unkept(&self) -> u64 {
        self.counters.waiting.load(Ordering::Acquire)
    }
}

/// The receiving end: see [`SettleLoop::run`].
#[derive(Debug)]
pub struct SettleLoop {
    receiver: mpsc::Receiver<Handed>,
    outlet: Outlet,
    /// What was received and is not on its way yet. It is here so that it outlives a panic of the loop.
    gathered: Vec<Handed>,
}

impl SettleLoop {
    /// Runs until every [`Settler`] is dropped and everything is written or kept. After a panic it goes on, because
    /// answers that were paid for come this way, while the worker stops.
    pub(super) async fn run(mut self, loops: Loops) {
        let flushers = Arc::new(Semaphore::new(FLUSHERS));
        let replaying = self.outlet.has_spool().then(|| loops.endless("spool", self.outlet.clone().replay()));
        let mut falls = 0;
        while let Err(words) = loops.guard("settler", self.gather(&flushers, &loops)).await {
            loops.report("settler", &words);
            falls += 1;
            if falls == MOST_FALLS {
                self.give_up();
                break;
            }
        }
        // All permits back: all transactions are done.
        let _all = flushers.acquire_many(u32::try_from(FLUSHERS).unwrap_or(1)).await;
        if let Some(replaying) = replaying {
            replaying.abort();
        }
    }

    /// Makes transactions of what comes, until nothing can come any more.
    async fn gather(&mut self, flushers: &Arc<Semaphore>, loops: &Loops) {
        loop {
            if self.gathered.is_empty() {
                let Some(first) = self.receiver.recv().await else { return };
                self.gathered.push(first);
            }
            let mut bytes: usize = self.gathered.iter().map(|handed| handed.item.bytes()).sum();
            let full_at = Instant::now() + LINGER;
            while self.gathered.len() < MAX_ITEMS && bytes < MAX_BYTES {
                match tokio::time::timeout_at(full_at, self.receiver.recv()).await {
                    Ok(Some(handed)) => {
                        bytes += handed.item.bytes();
                        self.gathered.push(handed);
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            let permit = Arc::clone(flushers).acquire_owned().await.expect("the semaphore is never closed");
            let (outlet, loops) = (self.outlet.clone(), loops.clone());
            let gathered = std::mem::take(&mut self.gathered);
            tokio::spawn(async move {
                flush(&outlet, gathered, &loops).await;
                drop(permit);
            });
        }
    }

    /// Nothing is written any more: what waits is lost to this process, and is not waited for.
    fn give_up(&mut self) {
        self.receiver.close();
        let mut lost: Vec<Item> = self.gathered.drain(..).map(|handed| handed.item).collect();
        while let Ok(handed) = self.receiver.try_recv() {
            lost.push(handed.item);
        }
        self.outlet.counters().are_lost(&lost);
    }
}

/// Writes outcomes, or puts them where they outlive this process. After a panic they are put there once more.
async fn flush(outlet: &Outlet, gathered: Vec<Handed>, loops: &Loops) {
    let (items, waiting): (Vec<Item>, Vec<_>) = gathered.into_iter().map(|handed| (handed.item, handed.kept)).unzip();
    let items = Arc::new(items);
    let mut done = loops.guard("flusher", Box::pin(outlet.write(Arc::clone(&items)))).await;
    if let Err(words) = &done {
        loops.report("flusher", words);
        done = loops.guard("flusher", Box::pin(outlet.keep(Arc::clone(&items)))).await;
    }
    let counters = outlet.counters();
    match done {
        Ok(()) => {
            counters.waiting.fetch_sub(items.len() as u64, Ordering::AcqRel);
        }
        Err(_) => counters.are_lost(&items),
    }
    for kept in waiting.into_iter().flatten() {
        // A job that was stopped does not wait any more.
        let _ = kept.send(());
    }
}

/// What one transaction is to write for these items.
pub(super) fn settlement(items: &[Item]) -> Settlement {
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
