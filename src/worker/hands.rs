//! The jobs that this worker has in hand: how each is started, is told that it no longer belongs to this worker, and
//! leaves.

use super::Shared;
use super::journey::{self, HeldJob};
use crate::store::claim::{Claimed, Lease, PastAttempt};
use futures_util::FutureExt as _;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// All jobs in hand.
#[derive(Debug, Default)]
pub(super) struct Hands {
    /// By fence.
    held: Mutex<HashMap<i64, InHand>>,
    jobs: AtomicUsize,
    /// Calls that jobs make beside their first one.
    beside: AtomicUsize,
    /// Such calls that wait for a place.
    waiting: AtomicUsize,
    /// Approximate bytes that their requests take.
    bytes: AtomicUsize,
    /// Notified whenever a job leaves.
    pub(super) freed: Notify,
    pub(super) tasks: TaskTracker,
}

/// A job in hand, and the signals that tell it that it no longer belongs to this worker.
#[derive(Clone, Debug, Default)]
pub(super) struct InHand {
    /// The job was cancelled, or another answer came: its call is dropped.
    pub(super) recalled: CancellationToken,
    /// Other workers may have the job. A call under way goes on, since it is paid for, but no further call is started.
    pub(super) lost: CancellationToken,
    /// How many workers have died with the job in hand.
    pub(super) crashes: u16,
}

/// A job's place in the worker, free again on drop.
struct Seat {
    shared: Arc<Shared>,
    fence: i64,
    /// Bytes that its request takes.
    bytes: usize,
}

/// The place of a call that is made beside another one of its job, free again on drop.
pub(super) struct PlaceBeside {
    shared: Arc<Shared>,
    /// Bytes that its request takes.
    bytes: usize,
}

/// The wish for such a place: one that becomes free is kept from jobs that are not claimed yet.
pub(super) struct Wish {
    shared: Arc<Shared>,
}

impl Hands {
    fn held(&self) -> MutexGuard<'_, HashMap<i64, InHand>> {
        self.held.lock()
    }

    /// How many jobs are in hand.
    pub(super) fn jobs(&self) -> usize {
        self.jobs.load(Ordering::Acquire)
    }

    /// For each job in hand, how many workers have died with it.
    pub(super) fn crashes(&self) -> Vec<u16> {
        self.held().values().map(|in_hand| in_hand.crashes).collect()
    }

    /// Recalls jobs that were cancelled meanwhile.
    pub(super) fn recall(&self, leases: &[Lease]) {
        let held = self.held();
        for in_hand in leases.iter().filter_map(|lease| held.get(&lease.fence)) {
            in_hand.recalled.cancel();
        }
    }

    /// Tells all jobs in hand that the lease is gone, and with it the right to them.
    pub(super) fn lose_all(&self) {
        for in_hand in self.held().values() {
            in_hand.lost.cancel();
        }
    }
}

impl Seat {
    fn take(shared: &Arc<Shared>, claimed: &Claimed, in_hand: InHand) -> Self {
        let (fence, bytes) = (claimed.lease.fence, claimed.weight);
        shared.hands.held().insert(fence, in_hand);
        shared.hands.jobs.fetch_add(1, Ordering::AcqRel);
        shared.hands.bytes.fetch_add(bytes, Ordering::AcqRel);
        Self { shared: Arc::clone(shared), fence, bytes }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let hands = &self.shared.hands;
        hands.held().remove(&self.fence);
        hands.jobs.fetch_sub(1, Ordering::AcqRel);
        hands.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        hands.freed.notify_one();
    }
}

impl Drop for PlaceBeside {
    fn drop(&mut self) {
        let hands = &self.shared.hands;
        hands.beside.fetch_sub(1, Ordering::AcqRel);
        hands.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        hands.freed.notify_one();
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.shared.hands.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    /// How many more jobs the worker may take.
    pub(super) fn free_slots(&self) -> usize {
        let hands = &self.hands;
        let calls = hands.jobs() + hands.beside.load(Ordering::Acquire) + hands.waiting.load(Ordering::Acquire);
        self.settings().max_in_flight.saturating_sub(calls)
    }

    /// The place of one more call of a job whose request takes so many bytes; `None`: there is none.
    pub(super) fn place_beside(self: &Arc<Self>, bytes: usize) -> Option<PlaceBeside> {
        if self.room() < bytes {
            return None;
        }
        let (hands, most) = (&self.hands, self.settings().max_in_flight);
        let fits = |beside: usize| (hands.jobs() + beside < most).then_some(beside + 1);
        hands.beside.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        hands.bytes.fetch_add(bytes, Ordering::AcqRel);
        Some(PlaceBeside { shared: Arc::clone(self), bytes })
    }

    /// Keeps a place that becomes free for a call of a job that is in hand.
    pub(super) fn wish_for_place(self: &Arc<Self>) -> Wish {
        self.hands.waiting.fetch_add(1, Ordering::AcqRel);
        Wish { shared: Arc::clone(self) }
    }

    /// Approximate bytes that the jobs in hand take.
    pub(super) fn bytes_in_hand(&self) -> usize {
        self.hands.bytes.load(Ordering::Acquire).saturating_add(self.schemas.bytes())
    }

    /// How many bytes of requests there is room for.
    pub(super) fn room(&self) -> usize {
        self.settings().max_in_flight_bytes.saturating_sub(self.bytes_in_hand())
    }

    /// Starts a claimed job.
    pub(super) fn start(self: &Arc<Self>, claimed: Claimed, past: Vec<PastAttempt>) {
        let in_hand = InHand { crashes: u16::try_from(claimed.crashes).unwrap_or(0), ..InHand::default() };
        // Given back on drop, so that a panic cannot leak it.
        let seat = Seat::take(self, &claimed, in_hand.clone());
        // Counted from now on, and not only when it asks for a place: the next claim may come sooner.
        let coming = self.plan().routes.get(&claimed.route).map(|route| route.coming.join());
        let shared = Arc::clone(self);
        // In a box from the start: a task is handed on several times until it runs, and all its room is copied then.
        self.hands.tasks.spawn(Box::pin(async move {
            let held = HeldJob::of(&claimed, shared.spans.trace_of(&shared.installation, &claimed));
            let run = AssertUnwindSafe(journey::run(Arc::clone(&shared), held.clone(), claimed, past, in_hand, coming));
            if run.catch_unwind().await.is_err() {
                // The row would stay in this worker's hands for as long as the worker lives. The job's data caused the
                // panic, so another worker would fare no better.
                held.give_up(&shared).await;
            }
            drop(seat);
        }));
    }

    /// Every claim that is in hand or not settled yet.
    pub(super) fn known_fences(&self) -> Vec<i64> {
        // In this order: a job reaches the settler before it leaves the hand.
        let mut known: Vec<i64> = self.hands.held().keys().copied().collect();
        known.extend(self.settler.counters().unsettled());
        known
    }
}
