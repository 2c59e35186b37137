//! The jobs that this worker has in hand: how each is started, told that it is not this worker's any more, and leaves.

use super::Shared;
use super::journey::{self, HeldJob};
use crate::store::claim::{Claimed, Lease, PastAttempt};
use futures_util::FutureExt as _;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Hands {
    /// By fence.
    held: Mutex<HashMap<i64, InHand>>,
    jobs: AtomicUsize,
    /// About how many bytes their requests take.
    bytes: AtomicUsize,
    /// Told whenever a job leaves.
    pub(super) freed: Notify,
    pub(super) tasks: TaskTracker,
}

/// A job in hand, and how it is told that it is not this worker's any more.
#[derive(Clone, Debug, Default)]
pub(super) struct InHand {
    /// It was cancelled, or another answer came: its call is dropped.
    pub(super) recalled: CancellationToken,
    /// Others may have it. A call under way goes on, since it is paid for, but none is started any more.
    pub(super) lost: CancellationToken,
    /// How many workers have died with it in hand.
    crashes: u16,
}

/// A job's place in the worker, free again on drop.
struct Seat {
    shared: Arc<Shared>,
    fence: i64,
    /// What its request takes.
    bytes: usize,
}

impl Hands {
    fn held(&self) -> MutexGuard<'_, HashMap<i64, InHand>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn jobs(&self) -> usize {
        self.jobs.load(Ordering::Acquire)
    }

    /// Of each, how many workers have died with it.
    pub(super) fn crashes(&self) -> Vec<u16> {
        self.held().values().map(|in_hand| in_hand.crashes).collect()
    }

    /// Calls jobs back that were cancelled meanwhile.
    pub(super) fn recall(&self, leases: &[Lease]) {
        let held = self.held();
        for in_hand in leases.iter().filter_map(|lease| held.get(&lease.fence)) {
            in_hand.recalled.cancel();
        }
    }

    /// The lease is gone, and with it the right to every job in hand.
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

impl Shared {
    /// How many more jobs it may take.
    pub(super) fn free_slots(&self) -> usize {
        self.settings().max_in_flight.saturating_sub(self.hands.jobs())
    }

    /// About how many bytes the jobs in hand take.
    pub(super) fn bytes_in_hand(&self) -> usize {
        self.hands.bytes.load(Ordering::Acquire).saturating_add(self.schemas.bytes())
    }

    /// For how many bytes of requests there is room.
    pub(super) fn room(&self) -> usize {
        self.settings().max_in_flight_bytes.saturating_sub(self.bytes_in_hand())
    }

    /// Sets a claimed job on its way.
    pub(super) fn start(self: &Arc<Self>, claimed: Claimed, past: Vec<PastAttempt>) {
        let in_hand = InHand { crashes: u16::try_from(claimed.crashes).unwrap_or(0), ..InHand::default() };
        // Given back on drop, so that a panic cannot leak it.
        let seat = Seat::take(self, &claimed, in_hand.clone());
        let shared = Arc::clone(self);
        self.hands.tasks.spawn(async move {
            let held = HeldJob::of(&claimed);
            let run = AssertUnwindSafe(journey::run(Arc::clone(&shared), held.clone(), claimed, past, in_hand));
            if run.catch_unwind().await.is_err() {
                // The row would stay in this worker's hands for as long as it lives. The job's data did it, so another
                // worker would fare no better.
                held.give_up(&shared).await;
            }
            drop(seat);
        });
    }

    /// Every claim that is in hand or not settled yet.
    pub(super) fn known_fences(&self) -> Vec<i64> {
        // In this order: what leaves the hand is with the settler before.
        let mut known: Vec<i64> = self.hands.held().keys().copied().collect();
        known.extend(self.settler.counters().unsettled());
        known
    }
}
