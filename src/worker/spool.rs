//! The spool: a file on this machine in which outcomes wait while the database is unreachable.
//!
//! Each worker process has one journal ([`crate::journal`]). It begins with the worker that it belongs to; then come
//! outcomes, in the order in which they have to be written. A process that finds a journal which no process holds knows
//! that its worker is gone. It writes the outcomes, and takes over from that worker at once instead of waiting for its
//! lease to run out.

use super::settler::Item;
use crate::journal::{AppendError, Journal, NextItem};
use crate::permissions::open_plain;
use crate::store::claim::Lease;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// Outcomes read back at once.
const READ_ITEMS: usize = 500;
/// Bytes of outcomes read back at once, roughly.
const READ_BYTES: u64 = 4 << 20;

/// More outcomes that other transactions hold up hold up the others, too.
const MOST_HELD: usize = 4_000;

/// Where spools are kept, and how large one may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// The folder of all spools of this machine.
    pub dir: PathBuf,
    /// The size limit of one worker's spool, in bytes.
    pub max_bytes: u64,
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordLine {
    /// The worker that the journal belongs to; written again when that worker starts a new life under another number.
    Worker {
        /// The database that the worker belongs to.
        installation: String,
        /// The worker's number in that database.
        id: i64,
    },
    /// An outcome that has to be written.
    Outcome(Item),
}

impl RecordLine {
    fn encode(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(io::Error::other)
    }
}

/// The journal of one worker, its own or one that was left behind.
#[derive(Debug)]
pub struct Spool {
    state: Mutex<SpoolState>,
    installation: String,
    /// Outcomes that are not in the database yet.
    waiting: AtomicU64,
    /// Those of them that other transactions hold up, and that the others go past.
    held: Mutex<HeldUp>,
    bytes: AtomicU64,
    /// Set while outcomes are kept in memory because nothing more can be put here.
    full: AtomicBool,
    filled: Notify,
}

#[derive(Debug)]
struct SpoolState {
    journal: Journal,
    /// Where the first outcome begins.
    head: u64,
    /// Everything before this position is in the database.
    next: u64,
    workers: Vec<i64>,
    /// How many worker numbers stand in the head.
    in_head: usize,
}

impl SpoolState {
    /// Appends to the journal that its worker has a number.
    fn name_worker(&mut self, installation: &str, id: i64) -> Result<(), AppendError> {
        let line = RecordLine::Worker { installation: installation.to_owned(), id }.encode()?;
        self.journal.append(&[line])
    }

    /// Marks everything up to the end as the head.
    fn begin_here(&mut self) {
        self.head = self.journal.size();
        self.next = self.head;
        self.in_head = self.workers.len();
    }
}

/// Outcomes that other transactions hold up. They stay in the journal, in front of where it is read on.
#[derive(Debug, Default)]
struct HeldUp {
    items: Vec<Item>,
    /// Their claims.
    fences: HashSet<i64>,
}

impl HeldUp {
    fn set(&mut self, items: Vec<Item>) {
        self.fences = items.iter().filter_map(Item::fence).collect();
        self.items = items;
    }

    fn add(&mut self, items: Vec<Item>) {
        self.fences.extend(items.iter().filter_map(Item::fence));
        self.items.extend(items);
    }
}

/// How full a spool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Outcomes that wait in it.
    pub outcomes: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Whether it accepts nothing more: no call is started then.
    pub is_full: bool,
}

/// A journal that was left behind.
#[derive(Debug)]
pub struct Abandoned {
    /// The spool and the outcomes in it.
    pub spool: Arc<Spool>,
    /// The claim in it with the highest job number.
    pub highest: Option<Lease>,
    /// Whether a part of it cannot be read.
    pub is_damaged: bool,
}

impl Spool {
    /// Creates a spool for a worker with this number.
    pub fn create(settings: &SpoolSettings, installation: &str, worker: i64) -> io::Result<Arc<Self>> {
        let first = RecordLine::Worker { installation: installation.to_owned(), id: worker }.encode()?;
        let journal = Journal::create(&settings.dir, settings.max_bytes, &first)?;
        let head = journal.size();
        let state = SpoolState { journal, head, next: head, workers: vec![worker], in_head: 1 };
        Ok(Arc::new(Self::new(state, installation.to_owned(), 0)))
    }

    fn new(state: SpoolState, installation: String, waiting: u64) -> Self {
        Self {
            bytes: AtomicU64::new(state.journal.size()),
            state: Mutex::new(state),
            installation,
            waiting: AtomicU64::new(waiting),
            held: Mutex::default(),
            full: AtomicBool::new(false),
            filled: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, SpoolState> {
        self.state.lock()
    }

    /// All spools that workers of this installation left behind in a folder. Those that cannot be opened are logged and
    /// left alone.
    pub fn abandoned(settings: &SpoolSettings, installation: &str) -> io::Result<Vec<Abandoned>> {
        let mut found = Vec::new();
        for path in Journal::list(&settings.dir)? {
            match Self::adopt(&path, settings.max_bytes, installation) {
                Ok(Some(abandoned)) => found.push(abandoned),
                Ok(None) => {}
                Err(error) => tracing::warn!(error = %error, path = %path.display(), "cannot read a spool"),
            }
        }
        Ok(found)
    }

    fn adopt(path: &Path, max: u64, installation: &str) -> io::Result<Option<Abandoned>> {
        let Some(journal) = Journal::adopt(path, max)? else { return Ok(None) };
        let (mut workers, mut head, mut in_head, mut waiting, mut is_damaged) = (Vec::new(), 0, 0, 0, false);
        let mut highest: Option<Lease> = None;
        let mut records = journal.records(0);
        loop {
            match records.read_next()? {
                NextItem::Record(record) => match serde_json::from_slice(&record) {
                    Ok(RecordLine::Worker { installation: whose, .. }) if whose != installation => return Ok(None),
                    Ok(RecordLine::Worker { id, .. }) => {
                        workers.push(id);
                        if waiting == 0 {
                            head = records.at();
                            in_head = workers.len();
                        }
                    }
                    Ok(RecordLine::Outcome(item)) => {
                        waiting += 1;
                        highest = highest.into_iter().chain(item.lease()).max_by_key(|lease| lease.job.0);
                    }
                    // A line that a newer version wrote.
                    Err(_) => is_damaged = true,
                },
                NextItem::End => break,
                NextItem::Torn => {
                    tracing::info!(
                        path = %path.display(),
                        "the last record of a spool is not whole; it was not kept yet"
                    );
                    break;
                }
                NextItem::Damaged => {
                    is_damaged = true;
                    break;
                }
            }
        }
        drop(records);
        if workers.is_empty() && !is_damaged {
            // Its worker ended before it had written anything.
            journal.remove()?;
            return Ok(None);
        }
        let state = SpoolState { journal, head, next: head, workers, in_head };
        let spool = Arc::new(Self::new(state, installation.to_owned(), waiting));
        Ok(Some(Abandoned { spool, highest, is_damaged }))
    }

    /// All numbers under which its worker was registered.
    #[must_use]
    pub fn workers(&self) -> Vec<i64> {
        self.state().workers.clone()
    }

    /// The path of the journal.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.state().journal.path().to_owned()
    }

    /// How full the spool is.
    #[must_use]
    pub fn fill(&self) -> Fill {
        Fill {
            outcomes: self.waiting.load(Ordering::Acquire),
            bytes: self.bytes.load(Ordering::Relaxed),
            is_full: self.full.load(Ordering::Acquire),
        }
    }

    /// Whether every outcome that was ever put here is in the database.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Whether every outcome that is not in the database yet waits for other transactions.
    #[must_use]
    pub(super) fn is_clear(&self) -> bool {
        self.is_empty() || self.held.lock().items.len() as u64 == self.waiting.load(Ordering::Acquire)
    }

    /// Whether an outcome of this claim may be among those that are not in the database yet.
    #[must_use]
    pub(super) fn may_hold(&self, fence: i64) -> bool {
        !self.is_empty() && (!self.is_clear() || self.held.lock().fences.contains(&fence))
    }

    /// The outcomes that other transactions hold up.
    pub(super) fn held(&self) -> Vec<Item> {
        self.held.lock().items.clone()
    }

    /// How many these are.
    pub(super) fn held_count(&self) -> usize {
        self.held.lock().items.len()
    }

    /// Records whether outcomes wait in memory for want of room; returns whether that is a change.
    pub(super) fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::AcqRel) != full
    }

    /// Puts outcomes here; when this returns they are on the disk. Blocks the thread.
    pub(super) fn keep(&self, items: &[Item]) -> Result<(), AppendError> {
        let mut lines = Vec::with_capacity(items.len());
        for item in items {
            lines.push(RecordLine::Outcome(item.clone()).encode()?);
        }
        let mut state = self.state();
        state.journal.append(&lines)?;
        self.waiting.fetch_add(items.len() as u64, Ordering::AcqRel);
        self.bytes.store(state.journal.size(), Ordering::Relaxed);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Puts outcomes here that other transactions hold up; when this returns they are on the disk. The others go past
    /// them, unless some wait here to be read, or too many are held up already. Blocks the thread.
    pub(super) fn keep_apart(&self, items: Vec<Item>) -> Result<(), AppendError> {
        let lines: Vec<Vec<u8>> =
            items.iter().map(|item| RecordLine::Outcome(item.clone()).encode()).collect::<Result<_, _>>()?;
        let mut state = self.state();
        let is_next = state.next == state.journal.size();
        state.journal.append(&lines)?;
        let mut held = self.held.lock();
        self.waiting.fetch_add(items.len() as u64, Ordering::AcqRel);
        if is_next && held.items.len() + items.len() <= MOST_HELD {
            state.next = state.journal.size();
            held.add(items);
        }
        drop(held);
        self.bytes.store(state.journal.size(), Ordering::Relaxed);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until something was put here.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The first outcomes that are not in the database yet, and the position behind them. Blocks the thread.
    pub(super) fn first(&self) -> io::Result<(Vec<Item>, u64)> {
        let state = self.state();
        let mut records = state.journal.records(state.next);
        let mut items = Vec::new();
        while items.len() < READ_ITEMS && records.at() - state.next < READ_BYTES {
            let NextItem::Record(record) = records.read_next()? else { break };
            // Unreadable lines were noticed when the journal was taken over.
            if let Ok(RecordLine::Outcome(item)) = serde_json::from_slice(&record) {
                items.push(item);
            }
        }
        Ok((items, records.at()))
    }

    /// Records that of the first outcomes, which end before `next`, `count` are in the database, and that other
    /// transactions hold up the others. Blocks the thread.
    ///
    /// # Errors
    /// The journal cannot be emptied; or too many outcomes are held up, and nothing has changed.
    pub(super) fn done(&self, count: usize, held: Vec<Item>, next: u64) -> Result<(), AppendError> {
        let mut state = self.state();
        let mut all = self.held.lock();
        if all.items.len() + held.len() > MOST_HELD {
            return Err(io::Error::other("other transactions hold up too many outcomes").into());
        }
        all.add(held);
        drop(all);
        state.next = next;
        self.are_written(&mut state, count)
    }

    /// Records that of the first `tried` outcomes that were held up only these are it still. Blocks the thread.
    pub(super) fn released(&self, tried: usize, still: Vec<Item>) -> Result<(), AppendError> {
        let mut state = self.state();
        let mut held = self.held.lock();
        let count = tried - still.len();
        let since = held.items.split_off(tried);
        held.set(still.into_iter().chain(since).collect());
        drop(held);
        self.are_written(&mut state, count)
    }

    /// Empties the journal when the last outcome is in the database.
    fn are_written(&self, state: &mut SpoolState, count: usize) -> Result<(), AppendError> {
        if count > 0 && self.waiting.fetch_sub(count as u64, Ordering::AcqRel) == count as u64 {
            let head = state.head;
            state.journal.truncate(head)?;
            let in_head = state.in_head;
            for id in state.workers.split_off(in_head) {
                state.name_worker(&self.installation, id)?;
                state.workers.push(id);
            }
            state.begin_here();
        }
        self.bytes.store(state.journal.size(), Ordering::Relaxed);
        Ok(())
    }

    /// Records that its worker goes on under another number. Blocks the thread.
    pub(super) fn renumber(&self, worker: i64) -> Result<(), AppendError> {
        let mut state = self.state();
        state.name_worker(&self.installation, worker)?;
        state.workers.push(worker);
        if self.is_empty() {
            state.begin_here();
        }
        self.bytes.store(state.journal.size(), Ordering::Relaxed);
        Ok(())
    }

    /// Keeps an outcome that the database refuses in a file of its own, complete with its answer, and returns the path.
    /// The same outcome always gets the same file. Blocks the thread.
    pub(super) fn put_aside(&self, item: &Item) -> io::Result<PathBuf> {
        let name = format!("unwritten-job-{}-claim-{}.json", item.job().unwrap_or(0), item.fence().unwrap_or(0));
        let path = self.path().with_file_name(name);
        let text = serde_json::to_vec_pretty(item).map_err(io::Error::other)?;
        let mut options = OpenOptions::new();
        let mut file = open_plain(&path, options.write(true).create(true).truncate(true).mode(0o600))?;
        file.write_all(&text)?;
        file.sync_all()?;
        Ok(path)
    }

    /// Removes the spool of a worker that has signed off; it has no outcomes. Blocks the thread.
    pub(super) fn forget(&self) -> io::Result<()> {
        std::fs::remove_file(self.state().journal.path())
    }

    /// Closes a spool that was taken over, when its outcomes are in the database. A damaged one stays for people to
    /// look at.
    pub(super) fn close(spool: Arc<Self>, is_damaged: bool) -> io::Result<()> {
        let Ok(spool) = Arc::try_unwrap(spool) else { return Ok(()) };
        let journal = spool.state.into_inner().journal;
        if is_damaged {
            let aside = journal.put_aside()?;
            tracing::error!(
                path = %aside.display(),
                "a part of a spool could not be read: outcomes in it are lost; it was put aside"
            );
            return Ok(());
        }
        journal.remove()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::JobId;
    use crate::store::settle::ParkRow;
    use crate::worker::settler::Then;

    fn outcome(fence: i64) -> Item {
        let lease = Lease { job: JobId(fence), fence, born: 0 };
        let row = ParkRow { lease, attempts: 0, until: None, reason: "waits".to_owned(), raced: false };
        Item::of_no_call(Then::Park(row), Vec::new())
    }

    fn outcomes(fences: impl IntoIterator<Item = i64>) -> Vec<Item> {
        fences.into_iter().map(outcome).collect()
    }

    fn fences(items: &[Item]) -> Vec<i64> {
        items.iter().filter_map(Item::fence).collect()
    }

    #[test]
    fn outcomes_that_are_held_up_stay_on_the_disk_and_others_go_past() {
        let folder = tempfile::tempdir().unwrap();
        let settings = SpoolSettings { dir: folder.path().join("spool"), max_bytes: 1 << 20 };
        let spool = Spool::create(&settings, "a", 1).unwrap();
        let empty = spool.fill().bytes;
        spool.keep_apart(outcomes([1, 2])).unwrap();
        assert!(spool.is_clear() && !spool.is_empty());
        assert!(spool.may_hold(1) && spool.may_hold(2) && !spool.may_hold(3));
        // While others wait to be read, any claim may have one among them, also one that comes to be held up.
        spool.keep(&outcomes([3, 4])).unwrap();
        spool.keep_apart(outcomes([5])).unwrap();
        assert!(!spool.is_clear() && spool.may_hold(9));
        let (read, next) = spool.first().unwrap();
        assert_eq!(fences(&read), [3, 4, 5]);
        spool.done(2, outcomes([5]), next).unwrap();
        assert!(spool.is_clear() && !spool.may_hold(3) && spool.may_hold(5));
        assert_eq!(fences(&spool.held()), [1, 2, 5]);
        // One that is held up while the first three are tried again is not taken for one of them.
        spool.keep_apart(outcomes([6])).unwrap();
        spool.released(3, outcomes([2])).unwrap();
        assert_eq!((fences(&spool.held()), spool.fill().outcomes), (vec![2, 6], 2));
        assert!(spool.may_hold(2) && !spool.may_hold(1) && spool.fill().bytes > empty);
        spool.released(2, Vec::new()).unwrap();
        assert!(spool.is_empty() && spool.is_clear() && !spool.may_hold(2));
        assert_eq!(spool.fill().bytes, empty, "the journal is empty again");
    }

    #[test]
    fn outcomes_that_are_held_up_are_all_there_for_the_next_worker_and_have_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let settings = SpoolSettings { dir: folder.path().join("spool"), max_bytes: 16 << 20 };
        let spool = Spool::create(&settings, "a", 1).unwrap();
        let most = i64::try_from(MOST_HELD).unwrap();
        spool.keep_apart(outcomes(1..=most)).unwrap();
        assert!(spool.is_clear());
        spool.keep_apart(outcomes([most + 1])).unwrap();
        assert!(!spool.is_clear(), "one too many holds up the others");
        let (read, next) = spool.first().unwrap();
        assert_eq!(fences(&read), [most + 1]);
        assert!(spool.done(0, read, next).is_err());
        drop(spool);
        let left = Spool::abandoned(&settings, "a").unwrap().remove(0);
        assert_eq!(left.spool.fill().outcomes, MOST_HELD as u64 + 1);
        assert!(!left.spool.is_clear() && !left.is_damaged);
    }
}
