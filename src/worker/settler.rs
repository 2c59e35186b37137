//! Gathers the outcomes of jobs into batches, so that one commit serves hundreds of answers.

use super::booked::Ledger;
use super::denied::Denied;
use super::loops::Loops;
use super::outcome_batch::OutcomeBatch;
use super::outlet::Outlet;
use super::spool::Spool;
use super::traces::SpanQueue;
use crate::domain::trace::Span;
use crate::store::claim::Lease;
use crate::store::settle::{AttemptRow, EndingRow, ParkRow};
use crate::store::{Store, StoreError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An answer waits at most this long for others to share its transaction.
const LINGER: Duration = Duration::from_millis(12);
/// Where this many came in that time, more are on their way, and it waits for them until this long after the first:
/// what a transaction costs beside its rows is shared by all of them.
const MANY: usize = 32;
const LINGER_MANY: Duration = Duration::from_millis(40);
/// Items in one transaction, at most.
const MAX_ITEMS: usize = 500;
/// Bytes in one transaction, at most, roughly.
const MAX_BYTES: usize = 4 << 20;
/// Transactions under way at once: one commits while the next one fills.
const FLUSHERS: usize = 2;
/// Items that may wait; a job that brings one more waits for room.
const BACKLOG: usize = 4_000;
/// Outcomes whose claims other transactions have locked are tried again after this time, …
const LOCKED_PAUSE: Duration = Duration::from_millis(100);
/// … which doubles up to this one.
const LOCKED_PAUSE_MOST: Duration = Duration::from_secs(2);
/// More of them than so many do not wait in memory.
const MOST_LOCKED: usize = 4_000;
/// The loop gives up at this many panics.
const MOST_FALLS: u32 = 3;

/// The next state of the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It stays in this worker's hands.
    GoOn,
    End(Box<EndingRow>),
    /// It goes back into the queue.
    Park(ParkRow),
}

/// The outcome of one step of a job: its parts are written together or not at all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The call that was made, if one was.
    pub attempt: Option<Box<AttemptRow>>,
    /// The calls that were made beside that one, and ended with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<AttemptRow>,
    /// The next state of the job.
    pub then: Then,
    /// What traces tell of it. It is not kept on the disk: the worker that writes the rest later has no trace of it to
    /// tell.
    #[serde(skip)]
    pub spans: Vec<Span>,
}

/// Memory that names, ids and words of a row take together, as a rule.
const SHORT_TEXTS: usize = 200;

/// Memory that a JSON value takes, roughly. A map has room for eleven members, however few it has.
fn bytes_of(value: &Value) -> usize {
    let own = size_of::<Value>();
    own + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes_of).sum(),
        Value::Object(members) => {
            let room = members.len().next_multiple_of(11) * (own + size_of::<String>());
            room + members.iter().map(|(name, member)| name.len() + bytes_of(member) - own).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

impl Item {
    /// An outcome without a call.
    pub(super) fn of_no_call(then: Then, spans: Vec<Span>) -> Self {
        Self { attempt: None, beside: Vec::new(), then, spans }
    }

    /// The claim under which it is written.
    pub(super) fn lease(&self) -> Option<Lease> {
        match &self.then {
            Then::GoOn => self.attempt.as_ref().map(|row| row.lease),
            Then::End(row) => Some(row.lease),
            Then::Park(row) => Some(row.lease),
        }
    }

    /// The number of that claim.
    pub(super) fn fence(&self) -> Option<i64> {
        self.lease().map(|lease| lease.fence)
    }

    /// The job's number, for messages.
    pub(super) fn job(&self) -> Option<i64> {
        self.lease().map(|lease| lease.job.0)
    }

    /// All calls of the step.
    fn attempts(&self) -> impl Iterator<Item = &AttemptRow> {
        self.attempt.as_deref().into_iter().chain(&self.beside)
    }

    /// Memory that it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let of_row = |row: &AttemptRow| {
            size_of::<AttemptRow>()
                + SHORT_TEXTS
                + row.message.as_ref().map_or(0, String::len)
                + row.usage_raw.as_ref().map_or(0, bytes_of)
                + row.answer.as_ref().map_or(0, |answer| answer.bytes())
        };
        let attempt: usize = self.attempts().map(of_row).sum();
        let then = match &self.then {
            Then::GoOn => 0,
            Then::End(row) => size_of::<EndingRow>() + SHORT_TEXTS + row.response.as_ref().map_or(0, String::len),
            Then::Park(row) => size_of::<ParkRow>() + row.reason.len(),
        };
        size_of::<Self>() + attempt + then + self.spans.iter().map(Span::bytes).sum::<usize>()
    }
}

/// Counters of settled items, for status.
#[derive(Debug, Default)]
pub struct Settled {
    pub succeeded: AtomicU64,
    pub failed: AtomicU64,
    pub attempts: AtomicU64,
    /// Jobs given back.
    pub parked: AtomicU64,
    /// Writes whose fence no longer held.
    pub fenced_out: AtomicU64,
    /// Items that will never be written.
    pub lost: AtomicU64,
    /// Items under way that only memory holds.
    pub waiting: AtomicU64,
    /// Claims with items that are not in the database yet, in memory or in the spool, and how many items each has.
    unsettled: Mutex<HashMap<i64, u32>>,
    /// Totals that were booked, by target and by route.
    pub ledger: Ledger,
    /// The part of this worker's work that the database refuses.
    pub denied: Denied,
}

impl Settled {
    fn begins(&self, item: &Item) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if let Some(fence) = item.fence() {
            *self.unsettled.lock().entry(fence).or_default() += 1;
        }
    }

    /// Records that the items of these claims are in the database, or never will be.
    pub(super) fn are_settled(&self, fences: impl Iterator<Item = i64>) {
        let mut unsettled = self.unsettled.lock();
        for fence in fences {
            if let Some(count) = unsettled.get_mut(&fence) {
                *count -= 1;
                if *count == 0 {
                    unsettled.remove(&fence);
                }
            }
        }
    }

    /// Records that these items will never be written. Their jobs stay in this worker's hands, so other workers rescue
    /// them when it is gone.
    fn are_lost(&self, items: &[Item]) {
        if items.is_empty() {
            return;
        }
        let jobs: Vec<i64> = items.iter().filter_map(Item::job).collect();
        tracing::error!(
            job.ids = ?jobs,
            "outcomes could not be written: the settler has failed. Their jobs will be rescued"
        );
        self.are_settled(items.iter().filter_map(Item::fence));
        self.waiting.fetch_sub(items.len() as u64, Ordering::AcqRel);
        self.lost.fetch_add(items.len() as u64, Ordering::Relaxed);
    }

    /// Claims with items that are not in the database yet.
    #[must_use]
    pub fn unsettled(&self) -> Vec<i64> {
        self.unsettled.lock().keys().copied().collect()
    }
}

/// An item, and the channel that is told when the item outlives this process.
#[derive(Debug)]
struct Handed {
    item: Item,
    kept: Option<oneshot::Sender<()>>,
}

/// The sending end. Cheap to clone; when the last clone is dropped the settler writes what it has and ends.
#[derive(Clone, Debug)]
pub struct Settler {
    sender: mpsc::Sender<Handed>,
    counters: Arc<Settled>,
    spool: Option<Arc<Spool>>,
    outlet: Outlet,
}

impl Settler {
    /// A settler, and the loop that the caller has to run for it. Without a spool, outcomes wait in memory while the
    /// database is away.
    #[must_use]
    pub(super) fn new(store: Store, spool: Option<Arc<Spool>>, spans: SpanQueue) -> (Self, SettleLoop) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let counters = Arc::new(Settled::default());
        let outlet = Outlet::new(store, Arc::clone(&counters), spool.clone(), spans);
        let settler = Self { sender, counters, spool, outlet: outlet.clone() };
        (settler, SettleLoop { receiver, outlet, gathered: Vec::new(), locked: Arc::default() })
    }

    /// Hands an item over; waits while the backlog is full.
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
        // The loop outlives every sender, so there is always a receiver.
        if let Err(unsent) = self.sender.send(Handed { item, kept }).await {
            self.counters.are_lost(std::slice::from_ref(&unsent.0.item));
        }
    }

    /// Writes recently settled outcomes once more, after the database has lost commits; returns how many there were.
    ///
    /// # Errors
    /// Those of the database. Outcomes that could not be written are written the next time.
    pub(super) async fn write_again(&self) -> Result<u64, StoreError> {
        self.outlet.write_again().await
    }

    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> &Settled {
        &self.counters
    }

    /// The spool where outcomes wait on disk.
    #[must_use]
    pub fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref()
    }

    /// Outcomes that are not in the database yet.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.unkept() + self.spool.as_ref().map_or(0, |spool| spool.fill().outcomes)
    }

    /// Those of them that only memory holds.
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
    /// Items received and not under way yet. They are kept here so that they outlive a panic of the loop.
    gathered: Vec<Handed>,
    locked: Arc<LockedOutcomes>,
}

/// Outcomes whose claims other transactions have locked, where there is no spool. They wait in memory, apart from the
/// others: a login that may cancel a job can hold its claim for as long as a transaction stays open.
#[derive(Debug, Default)]
struct LockedOutcomes {
    count: AtomicUsize,
    waits: TaskTracker,
    closing: CancellationToken,
}

impl LockedOutcomes {
    /// Tries to write them until they are written.
    async fn write(self: Arc<Self>, outlet: Outlet, mut handed: Vec<Handed>) {
        let mut pause = LOCKED_PAUSE;
        while !handed.is_empty() {
            let is_closing = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = self.closing.cancelled() => true,
            };
            pause = (pause * 2).min(LOCKED_PAUSE_MOST);
            let batch = Arc::new(OutcomeBatch::of(handed.iter().map(|handed| handed.item.clone()).collect()));
            let locked = if is_closing {
                outlet.keep(batch).await;
                HashSet::new()
            } else {
                outlet.write(batch).await
            };
            let (left, done): (Vec<Handed>, Vec<Handed>) =
                handed.into_iter().partition(|handed| handed.item.fence().is_some_and(|it| locked.contains(&it)));
            self.count.fetch_sub(done.len(), Ordering::AcqRel);
            outlet.counters().waiting.fetch_sub(done.len() as u64, Ordering::AcqRel);
            done.into_iter().for_each(Handed::tell);
            handed = left;
        }
    }

    /// Waits until they are written.
    async fn close(&self) {
        self.closing.cancel();
        self.waits.close();
        self.waits.wait().await;
    }
}

impl Handed {
    /// Tells its job that the item outlives this process. A job that was stopped no longer waits.
    fn tell(self) {
        if let Some(kept) = self.kept {
            let _ = kept.send(());
        }
    }
}

impl SettleLoop {
    /// Runs until every [`Settler`] is dropped and everything is written or kept. After a panic it goes on while the
    /// worker stops, because answers that were paid for come this way.
    pub(super) async fn run(mut self, loops: Loops) {
        let flushers = Arc::new(Semaphore::new(FLUSHERS));
        let replaying = self.outlet.has_spool().then(|| loops.endless("spool", self.outlet.clone().replay()));
        let announcing = loops.endless("herald", self.outlet.clone().announce());
        let mut falls = 0;
        while let Err(words) = loops.guard("settler", self.gather(&flushers, &loops)).await {
            loops.report("settler", &words);
            falls += 1;
            if falls == MOST_FALLS {
                self.give_up();
                break;
            }
        }
        // When all permits are back, all transactions are done.
        let _all = flushers.acquire_many(u32::try_from(FLUSHERS).unwrap_or(1)).await;
        self.locked.close().await;
        if let Some(replaying) = replaying {
            replaying.abort();
        }
        announcing.abort();
        self.outlet.announce_rest().await;
    }

    /// Makes transactions of the items that arrive, until no more can arrive.
    async fn gather(&mut self, flushers: &Arc<Semaphore>, loops: &Loops) {
        loop {
            if self.gathered.is_empty() {
                let Some(first) = self.receiver.recv().await else { return };
                self.gathered.push(first);
            }
            let mut bytes: usize = self.gathered.iter().map(|handed| handed.item.bytes()).sum();
            let began = Instant::now();
            let mut full_at = began + LINGER;
            while self.gathered.len() < MAX_ITEMS && bytes < MAX_BYTES {
                match tokio::time::timeout_at(full_at, self.receiver.recv()).await {
                    Ok(Some(handed)) => {
                        bytes += handed.item.bytes();
                        self.gathered.push(handed);
                    }
                    Err(_) if self.gathered.len() >= MANY && full_at == began + LINGER => full_at = began + LINGER_MANY,
                    Ok(None) | Err(_) => break,
                }
            }
            let permit = Arc::clone(flushers).acquire_owned().await.expect("the semaphore is never closed");
            let (outlet, loops, locked) = (self.outlet.clone(), loops.clone(), Arc::clone(&self.locked));
            let gathered = std::mem::take(&mut self.gathered);
            tokio::spawn(async move {
                flush(&outlet, gathered, &loops, &locked).await;
                drop(permit);
            });
        }
    }

    /// Stops writing: the waiting items are lost to this process, and the worker does not wait for them.
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
async fn flush(outlet: &Outlet, gathered: Vec<Handed>, loops: &Loops, others: &Arc<LockedOutcomes>) {
    let (items, waiting): (Vec<Item>, Vec<_>) = gathered.into_iter().map(|handed| (handed.item, handed.kept)).unzip();
    let batch = Arc::new(OutcomeBatch::of(items));
    let mut done = loops.guard("flusher", Box::pin(outlet.write(Arc::clone(&batch)))).await;
    if let Err(words) = &done {
        loops.report("flusher", words);
        done = loops.guard("flusher", Box::pin(outlet.keep(Arc::clone(&batch)))).await.map(|()| HashSet::new());
    }
    let counters = outlet.counters();
    let locked = match done {
        Ok(locked) if locked.is_empty() => {
            counters.waiting.fetch_sub(batch.len() as u64, Ordering::AcqRel);
            locked
        }
        Ok(locked) => locked,
        Err(_) => {
            counters.are_lost(&batch.items());
            HashSet::new()
        }
    };
    if locked.is_empty() {
        // A job that was stopped no longer waits.
        for kept in waiting.into_iter().flatten() {
            let _ = kept.send(());
        }
        return;
    }
    let handed = batch.items().into_iter().zip(waiting).map(|(item, kept)| Handed { item, kept });
    let (left, done): (Vec<Handed>, Vec<Handed>) =
        handed.partition(|handed| handed.item.fence().is_some_and(|fence| locked.contains(&fence)));
    counters.waiting.fetch_sub(done.len() as u64, Ordering::AcqRel);
    done.into_iter().for_each(Handed::tell);
    if outlet.has_spool() || others.count.fetch_add(left.len(), Ordering::AcqRel) >= MOST_LOCKED {
        if !outlet.has_spool() {
            others.count.fetch_sub(left.len(), Ordering::AcqRel);
        }
        outlet.keep_apart(left.iter().map(|handed| handed.item.clone()).collect()).await;
        counters.waiting.fetch_sub(left.len() as u64, Ordering::AcqRel);
        return left.into_iter().for_each(Handed::tell);
    }
    tracing::warn!(
        outcomes = left.len(),
        "other transactions have locked the claims of jobs, as one does that cancels them and stays open; what came of \
         them waits apart"
    );
    let writing = others.waits.track_future(Arc::clone(others).write(outlet.clone(), left));
    loops.finite("locked outcomes", writing);
}
