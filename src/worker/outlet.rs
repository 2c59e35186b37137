//! The way of outcomes into the database, through the disk when the database does not take them.

use super::herald::Herald;
use super::outcome_batch::OutcomeBatch;
use super::recent::Recent;
use super::settler::{Item, Settled, Then};
use super::spool::{Abandoned, Spool};
use super::traces::SpanQueue;
use crate::domain::commit_pace::CommitPace;
use crate::domain::shadow;
use crate::store::claim::Lease;
use crate::store::settle::{EndingRow, Settlement};
use crate::store::{Store, StoreError, within};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A commit of outcomes that are on the disk already, or that have no disk to go to, is waited for so long. Others are
/// waited for by [`CommitPace`]: then they go to the disk, and are written again from there. Whether the commit went
/// through after all makes no difference.
const PATIENCE_REPLAYING: Duration = Duration::from_secs(20);
/// How many times other processes may write the same rows in another order. The database does not count as away for
/// that.
const CONTENTIONS: u32 = 5;
/// After so many outcomes in a row that waited for other transactions, the rest is not tried one by one.
const MOST_IN_A_ROW: usize = 10;
/// Outcomes in the spool that other transactions hold up are tried again so often.
const HELD_EVERY: Duration = Duration::from_secs(2);
/// Time between two attempts while the database is away.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The destination of outcomes. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    store: Store,
    counters: Arc<Settled>,
    spool: Option<Arc<Spool>>,
    recent: Arc<Recent>,
    herald: Arc<Herald>,
    spans: SpanQueue,
    pace: Arc<Mutex<CommitPace>>,
}

/// Why outcomes are not in the database.
enum Unwritten {
    /// The database refuses this data, now and later.
    Refused(StoreError),
    /// The database is away, does not answer in time, or refuses for a reason that is not in the data.
    Away(StoreError),
    /// Another transaction has locked claims, which these fences have; or other rows, if there are none.
    Locked(HashSet<i64>),
}

/// What was not written of several outcomes.
#[derive(Default)]
struct Left {
    /// What other transactions hold up.
    locked: Vec<Item>,
    /// What the database did not take.
    away: Vec<Item>,
    /// Why it did not.
    error: Option<StoreError>,
}

impl Left {
    /// Nothing was written, because the database is away.
    fn away(items: &[Item], error: StoreError) -> Self {
        Self { away: items.to_vec(), error: Some(error), ..Self::default() }
    }
}

impl Outlet {
    pub fn new(store: Store, counters: Arc<Settled>, spool: Option<Arc<Spool>>, spans: SpanQueue) -> Self {
        Self { store, counters, spool, recent: Arc::default(), herald: Arc::default(), spans, pace: Arc::default() }
    }

    /// The counters so far.
    pub fn counters(&self) -> &Settled {
        &self.counters
    }

    /// Whether outcomes can go to the disk.
    pub fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// Writes outcomes, or puts them where they outlive this process. When the database refuses them, they are written
    /// item by item, and the one at fault without its texts.
    ///
    /// Returns the fences of claims that other transactions hold up: their outcomes are not written, nor put anywhere.
    pub async fn write(&self, batch: Arc<OutcomeBatch>) -> HashSet<i64> {
        // Outcomes in the spool are older, unless they wait for other transactions.
        if self.spool.as_ref().is_none_or(|spool| spool.is_clear()) {
            match self.persist_soon(&batch).await {
                Ok(()) => {
                    self.recent.remember(batch);
                    return HashSet::new();
                }
                Err(Unwritten::Locked(locked)) if locked.is_empty() => return self.write_one_by_one(&batch).await,
                Err(Unwritten::Locked(locked)) => return self.write_others(&batch, locked).await,
                Err(Unwritten::Refused(error)) => {
                    if batch.len() > 1 {
                        tracing::warn!(
                            error = %error,
                            items = batch.len(),
                            "a batch was refused; writing its items one by one"
                        );
                    }
                    return self.write_one_by_one(&batch).await;
                }
                Err(Unwritten::Away(error)) => self.tell_that_it_is_away(&error),
            }
        }
        self.keep(batch).await;
        HashSet::new()
    }

    /// Writes the outcomes of all claims but these; returns these, and those that were found to be locked meanwhile.
    async fn write_others(&self, batch: &OutcomeBatch, mut locked: HashSet<i64>) -> HashSet<i64> {
        let is_free = |item: &Item| item.fence().is_none_or(|fence| !locked.contains(&fence));
        let others: Vec<Item> = batch.items().into_iter().filter(is_free).collect();
        if !others.is_empty() {
            locked.extend(Box::pin(self.write(Arc::new(OutcomeBatch::of(others)))).await);
        }
        locked
    }

    fn tell_that_it_is_away(&self, error: &StoreError) {
        match &self.spool {
            None => tracing::warn!(error = %error, "cannot write outcomes; they wait in memory"),
            Some(spool) if spool.is_clear() => {
                tracing::warn!(error = %error, "cannot write outcomes; they wait in the spool");
            }
            Some(_) => {}
        }
    }

    /// Returns the fences of claims that other transactions hold up.
    async fn write_one_by_one(&self, batch: &OutcomeBatch) -> HashSet<i64> {
        let patience = self.pace.lock().patience();
        let Left { locked, away, .. } = self.write_each(batch.items(), patience).await;
        if !away.is_empty() {
            self.keep(Arc::new(OutcomeBatch::of(away))).await;
        }
        locked.iter().filter_map(Item::fence).collect()
    }

    /// Writes items one by one, as long as the database is there.
    async fn write_each(&self, items: Vec<Item>, patience: Duration) -> Left {
        let mut left = Left::default();
        let mut in_a_row = 0;
        for item in items {
            if left.error.is_some() {
                left.away.push(item);
            } else if in_a_row >= MOST_IN_A_ROW && item.fence().is_some() {
                left.locked.push(item);
            } else {
                match self.write_one(item, patience).await {
                    Ok(()) => in_a_row = 0,
                    Err((item, Unwritten::Locked(_))) => {
                        in_a_row += 1;
                        left.locked.push(item);
                    }
                    Err((item, Unwritten::Refused(error) | Unwritten::Away(error))) => {
                        left.away.push(item);
                        left.error = Some(error);
                    }
                }
            }
        }
        left
    }

    /// Writes one item; if the database refuses a part, writes the rest. Gives the item back when the database is away.
    /// A part that cannot be written is put aside in a file, where a person can get it.
    async fn write_one(&self, item: Item, patience: Duration) -> Result<(), (Item, Unwritten)> {
        let refused = match self.persist(&OutcomeBatch::of(vec![item.clone()]), patience).await {
            Ok(()) => return Ok(()),
            Err(Unwritten::Refused(error)) => error,
            Err(unwritten) => return Err((item, unwritten)),
        };
        // Before anything says that the job is over.
        self.put_aside(&item, &refused).await;
        let bare = without_texts(item.clone(), &refused);
        let ledger_only = Item { then: Then::GoOn, ..bare.clone() };
        for less in [bare, ledger_only] {
            match self.persist(&OutcomeBatch::of(vec![less]), patience).await {
                Ok(()) => return Ok(()),
                Err(Unwritten::Refused(_)) => {}
                Err(unwritten) => return Err((item, unwritten)),
            }
        }
        tracing::error!(error = %refused, "an outcome could not be written; the job will be rescued");
        self.counters.are_settled(item.fence().into_iter());
        Ok(())
    }

    /// Keeps an outcome that the database refuses in a file beside the spool, and logs where.
    async fn put_aside(&self, item: &Item, refused: &StoreError) {
        let (job, lines) = (item.job(), item.clone());
        let Some(spool) = self.spool.clone() else {
            tracing::error!(
                error = %refused,
                job.id = job,
                "an outcome cannot be stored as it is, and there is no spool to keep it in"
            );
            return;
        };
        let kept = tokio::task::spawn_blocking(move || spool.put_aside(&lines)).await;
        match kept.map_err(std::io::Error::other).flatten() {
            Ok(path) => tracing::error!(
                error = %refused,
                job.id = job,
                path = %path.display(),
                "an outcome cannot be stored as it is: it was put aside in a file, and its call is booked without its \
                 texts"
            ),
            Err(error) => {
                tracing::error!(error = %error, job.id = job, "an outcome cannot be stored, nor kept in a file");
            }
        }
    }

    /// Puts outcomes into the spool. If the spool is full or there is none, they wait here until the database takes
    /// them.
    pub async fn keep(&self, batch: Arc<OutcomeBatch>) {
        let mut pause = PAUSE_MIN;
        loop {
            if let Some(spool) = &self.spool {
                let (into, kept) = (Arc::clone(spool), Arc::clone(&batch));
                match tokio::task::spawn_blocking(move || into.keep(&kept.items())).await {
                    Ok(Ok(())) => {
                        // They will be written, and by then these spans are gone.
                        self.spans.tell(&batch, &HashSet::new());
                        if spool.set_full(false) {
                            tracing::info!("the spool takes outcomes again");
                        }
                        return;
                    }
                    Ok(Err(error)) => {
                        if spool.set_full(true) {
                            tracing::error!(
                                error = %error,
                                path = %spool.path().display(),
                                "the spool takes no more outcomes; they wait in memory, and no call is started before \
                                 there is room"
                            );
                        }
                    }
                    // The thread panicked, which is a fault of ours; the items are still here.
                    Err(error) => tracing::error!(error = %error, "the spool failed"),
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let refused = match self.persist(&batch, PATIENCE_REPLAYING).await {
                Ok(()) => false,
                Err(Unwritten::Refused(_)) => true,
                Err(Unwritten::Away(_) | Unwritten::Locked(_)) => continue,
            };
            // The database is back, so no outcome needs to wait for room.
            if let Some(spool) = &self.spool {
                spool.set_full(false);
            }
            if refused {
                let locked = Box::pin(self.write_one_by_one(&batch)).await;
                let is_locked = |item: &Item| item.fence().is_some_and(|fence| locked.contains(&fence));
                let left: Vec<Item> = batch.items().into_iter().filter(is_locked).collect();
                if !left.is_empty() {
                    Box::pin(self.keep(Arc::new(OutcomeBatch::of(left)))).await;
                }
            }
            return;
        }
    }

    /// Puts outcomes that other transactions hold up into the spool, where the others go past them.
    pub async fn keep_apart(&self, items: Vec<Item>) {
        let batch = Arc::new(OutcomeBatch::of(items.clone()));
        let Some(spool) = self.spool.clone() else { return self.keep(batch).await };
        let count = items.len();
        match tokio::task::spawn_blocking(move || spool.keep_apart(items)).await {
            Ok(Ok(())) => {
                tell_of_locks(count);
                self.spans.tell(&batch, &HashSet::new());
            }
            // That says why, and waits.
            Ok(Err(_)) | Err(_) => self.keep(batch).await,
        }
    }

    /// Writes the outcomes in the spool, in order, whenever there are some. Runs until it is aborted.
    pub async fn replay(self) {
        let Some(spool) = self.spool.clone() else { return };
        let mut pause = PAUSE_MIN;
        // When those are tried again that other transactions hold up.
        let mut due = None;
        loop {
            if spool.held_count() == 0 {
                due = None;
            } else {
                due.get_or_insert_with(|| Instant::now() + HELD_EVERY);
            }
            if spool.is_clear() {
                pause = PAUSE_MIN;
                match due {
                    None => spool.filled().await,
                    // It may also be that more has come meanwhile.
                    Some(due) => {
                        let _ = tokio::time::timeout_at(due, spool.filled()).await;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            match self.replay_once(&spool, &mut due).await {
                Ok(0) => {}
                Ok(written) => {
                    pause = PAUSE_MIN;
                    tracing::info!(outcomes = written, "wrote what waited in the spool");
                }
                Err(error) => {
                    tracing::debug!(error = %error, "the spool cannot be written to the database yet");
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Writes what can be written; returns how many outcomes that were.
    async fn replay_once(&self, spool: &Arc<Spool>, due: &mut Option<Instant>) -> anyhow::Result<u64> {
        let released = if due.is_some_and(|due| due <= Instant::now()) {
            *due = None;
            self.write_held(spool).await?
        } else {
            0
        };
        Ok(released + self.drain(spool).await?)
    }

    /// Writes all outcomes of a spool that other transactions do not hold up; returns how many there were.
    async fn drain(&self, spool: &Arc<Spool>) -> anyhow::Result<u64> {
        let mut written = 0;
        while !spool.is_clear() {
            let from = Arc::clone(spool);
            let (items, next) = tokio::task::spawn_blocking(move || from.first()).await??;
            if items.is_empty() {
                anyhow::bail!("{} cannot be read", spool.path().display());
            }
            let Left { locked, error, .. } = self.write_from_disk(&items).await;
            if let Some(error) = error {
                return Err(error.into());
            }
            if !locked.is_empty() {
                tell_of_locks(locked.len());
            }
            let count = items.len() - locked.len();
            written += count as u64;
            let done = Arc::clone(spool);
            tokio::task::spawn_blocking(move || done.done(count, locked, next)).await??;
        }
        Ok(written)
    }

    /// Tries the outcomes again that other transactions hold up; returns how many were written.
    async fn write_held(&self, spool: &Arc<Spool>) -> anyhow::Result<u64> {
        let tried = spool.held();
        let Left { locked, error, .. } = self.write_from_disk(&tried).await;
        if let Some(error) = error {
            return Err(error.into());
        }
        let (tried, count) = (tried.len(), tried.len() - locked.len());
        let done = Arc::clone(spool);
        tokio::task::spawn_blocking(move || done.released(tried, locked)).await??;
        Ok(count as u64)
    }

    /// Writes outcomes that are on the disk. Those that are written already are written again without harm, so an error
    /// says nothing of what was written.
    async fn write_from_disk(&self, items: &[Item]) -> Left {
        let batch = OutcomeBatch::of(items.to_vec());
        let began = Instant::now();
        match self.persist(&batch, PATIENCE_REPLAYING).await {
            Ok(()) => {
                self.pace.lock().note(began.elapsed());
                self.recent.remember(Arc::new(batch));
                Left::default()
            }
            Err(Unwritten::Away(error)) => Left::away(items, error),
            Err(Unwritten::Locked(fences)) if !fences.is_empty() => {
                let is_locked = |item: &Item| item.fence().is_some_and(|fence| fences.contains(&fence));
                let (locked, others): (Vec<Item>, Vec<Item>) = items.iter().cloned().partition(is_locked);
                let mut left =
                    if others.is_empty() { Left::default() } else { Box::pin(self.write_from_disk(&others)).await };
                left.locked.extend(locked);
                left
            }
            Err(Unwritten::Refused(_) | Unwritten::Locked(_)) => {
                self.write_each(items.to_vec(), PATIENCE_REPLAYING).await
            }
        }
    }

    /// Writes recently committed outcomes once more. Existing rows stay as they are. Nothing is counted, since it was
    /// counted before.
    pub async fn write_again(&self) -> Result<u64, StoreError> {
        let mut written = 0;
        // Outcomes that are committed meanwhile are not lost.
        for _ in 0..self.recent.batches() {
            let Some(batch) = self.recent.take_first() else { break };
            match within(PATIENCE_REPLAYING, "settling", self.store.settle(batch.rows())).await {
                Ok(_) => written += batch.len() as u64,
                Err(error) if error.is_the_rows_fault() => {
                    tracing::warn!(
                        error = %error,
                        items = batch.len(),
                        "cannot write settled outcomes a second time after the database lost commits"
                    );
                }
                Err(error) => {
                    self.recent.remember(batch);
                    return Err(error);
                }
            }
        }
        Ok(written)
    }

    /// Tells sessions that listen which jobs have ended. Runs until it is aborted.
    pub async fn announce(self) {
        self.herald.run(&self.store).await;
    }

    /// Tells of the last ones.
    pub async fn announce_rest(&self) {
        if let Err(error) = self.herald.tell(&self.store).await {
            tracing::debug!(error = %error, "the last notice of jobs that have ended was dropped");
        }
    }

    /// Writes one transaction, unless the database takes so long that the disk is the safer place.
    async fn persist_soon(&self, batch: &OutcomeBatch) -> Result<(), Unwritten> {
        if self.spool.is_none() {
            return self.persist(batch, PATIENCE_REPLAYING).await;
        }
        let (began, patience) = (Instant::now(), self.pace.lock().patience());
        let written = self.persist(batch, patience).await;
        // A database that does not answer teaches no patience; what it takes later from the disk does.
        if written.is_ok() {
            self.pace.lock().note(began.elapsed());
        }
        written
    }

    /// Writes one transaction. On failure, tells whether the data or the database is the cause.
    async fn persist(&self, batch: &OutcomeBatch, patience: Duration) -> Result<(), Unwritten> {
        let all = batch.rows();
        let mut contentions = 0;
        loop {
            let settled = within(patience, "settling", self.store.settle(all)).await;
            self.counters.denied.note("what came of calls is not written", &settled);
            match settled {
                Ok(fenced_out) => {
                    let fenced_out = fenced_out.iter().map(|lease| lease.fence).collect();
                    self.count(all, &fenced_out);
                    self.spans.tell(batch, &fenced_out);
                    let ended = all.endings.iter().filter(|row| !fenced_out.contains(&row.lease.fence));
                    self.herald.note(ended.map(|row| row.lease.job.0));
                    self.counters.are_settled(batch.fences());
                    return Ok(());
                }
                Err(error) if error.waited_for_a_lock() => {
                    let claims: Vec<Lease> = all.leases().collect();
                    let locked = within(patience, "settling", self.store.locked(&claims)).await.unwrap_or_default();
                    // Where it is no claim that is locked, an outcome alone need not be tried again: it is at fault.
                    if !locked.is_empty() || contentions == CONTENTIONS || batch.len() == 1 {
                        return Err(Unwritten::Locked(locked));
                    }
                    contentions += 1;
                }
                Err(error) if error.is_contention() && contentions < CONTENTIONS => {
                    contentions += 1;
                    tokio::time::sleep(Duration::from_millis(20) * contentions).await;
                }
                Err(error) if error.is_the_rows_fault() => return Err(Unwritten::Refused(error)),
                Err(error) => return Err(Unwritten::Away(error)),
            }
        }
    }

    /// Adds the committed rows to the sums.
    fn count(&self, all: &Settlement, fenced_out: &HashSet<i64>) {
        let counters = &self.counters;
        // Late outcomes have changed nothing, except that their attempts are booked.
        let endings: Vec<&EndingRow> =
            all.endings.iter().filter(|row| !fenced_out.contains(&row.lease.fence)).collect();
        let parked = all.parks.iter().filter(|row| !fenced_out.contains(&row.lease.fence)).count() as u64;
        // No person waits for a shadow: whether it was answered is in its report.
        let jobs = || endings.iter().filter(|row| shadow::shadowed(&row.labels.route).is_none());
        let failed = jobs().filter(|row| row.failure.is_some()).count() as u64;
        counters.failed.fetch_add(failed, Ordering::Relaxed);
        counters.succeeded.fetch_add(jobs().count() as u64 - failed, Ordering::Relaxed);
        counters.attempts.fetch_add(all.attempts.len() as u64, Ordering::Relaxed);
        counters.parked.fetch_add(parked, Ordering::Relaxed);
        if fenced_out.is_empty() {
            counters.ledger.book(&all.attempts, endings);
        } else {
            let mut attempts = all.attempts.clone();
            let unused = attempts.iter_mut().filter(|row| row.class.is_none() && fenced_out.contains(&row.lease.fence));
            unused.for_each(crate::store::settle::AttemptRow::came_late);
            counters.ledger.book(&attempts, endings);
            counters.fenced_out.fetch_add(fenced_out.len() as u64, Ordering::Relaxed);
            tracing::warn!(jobs = fenced_out.len(), "outcomes came too late: the jobs were taken over or cancelled");
        }
    }
}

fn tell_of_locks(outcomes: usize) {
    tracing::warn!(
        outcomes,
        "other transactions have locked jobs, as one does that cancels them and stays open; what came of them waits in \
         the spool"
    );
}

/// The part of an outcome that can be written when the database refuses its texts.
fn without_texts(mut item: Item, refusal: &StoreError) -> Item {
    for row in item.attempt.as_deref_mut().into_iter().chain(&mut item.beside) {
        row.lost_its_texts();
    }
    if let Then::End(row) = &mut item.then {
        row.lost_its_texts(refusal);
    }
    item
}

/// Writes the outcomes that dead workers of this machine have left behind, declares those workers dead, and gives their
/// jobs back; returns how many workers there were.
pub(super) async fn take_over(store: &Store, left: Vec<Abandoned>, max_crashes: u16) -> anyhow::Result<u64> {
    let mut workers = 0;
    for Abandoned { spool, is_damaged, .. } in left {
        let outlet = Outlet::new(store.clone(), Arc::default(), Some(Arc::clone(&spool)), SpanQueue::default());
        let written = outlet.drain(&spool).await?;
        outlet.announce_rest().await;
        drop(outlet);
        if !spool.is_empty() {
            // Other transactions hold some up. The file stays, and is taken up again with the next look at what workers
            // left behind.
            continue;
        }
        let dead = store.declare_dead(&spool.workers()).await?;
        workers += dead;
        if written + dead > 0 {
            tracing::warn!(
                outcomes = written,
                path = %spool.path().display(),
                "took over from a worker of this machine that has ended"
            );
        }
        tokio::task::spawn_blocking(move || Spool::close(spool, is_damaged)).await??;
    }
    if workers > 0 {
        store.rescue(max_crashes).await?;
    }
    Ok(workers)
}
