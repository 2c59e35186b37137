//! What becomes of a bucket, and of the calls that run in it, when the configuration changes.

use super::{Bucket, rule};
use crate::domain::{Charge, Limits, Unit};
use crate::worker::slots::Slot;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::time::Instant;

/// The calls that run in a bucket.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// No call begins any more: others have taken the bucket's place.
    is_retired: bool,
    next: u64,
    /// By number.
    running: HashMap<u64, Call>,
}

/// A call that runs.
#[derive(Debug)]
struct Call {
    charge: Charge,
    /// The places that it takes in buckets to which its target belongs now.
    places: Vec<Slot>,
}

/// Counts a call while it runs.
#[derive(Debug)]
pub(super) struct Running {
    bucket: Arc<Bucket>,
    number: u64,
}

impl Running {
    /// Counts a call from now on; `None` when none begins here any more.
    pub(super) fn begin(bucket: &Arc<Bucket>, charge: Charge) -> Option<Self> {
        let mut calls = bucket.calls();
        if calls.is_retired {
            return None;
        }
        calls.next = calls.next.wrapping_add(1);
        let number = calls.next;
        calls.running.insert(number, Call { charge, places: Vec::new() });
        Some(Self { bucket: Arc::clone(bucket), number })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut calls = self.bucket.calls();
        let call = calls.running.remove(&self.number);
        let is_retired = calls.is_retired;
        drop(calls);
        drop(call);
        if is_retired || self.bucket.slots.is_lent() {
            self.bucket.ask();
        }
    }
}

impl Bucket {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that run.
    pub(super) fn running(&self) -> u32 {
        u32::try_from(self.calls().running.len()).unwrap_or(u32::MAX)
    }

    /// What the calls that run take from a limit of this unit by their estimates.
    pub(super) fn charge_of_running(&self, unit: Unit) -> u64 {
        self.calls().running.values().fold(0, |sum, call| sum.saturating_add(call.charge.units(unit)))
    }

    /// Whether no call begins here any more.
    pub(super) fn is_retired(&self) -> bool {
        self.calls().is_retired
    }

    /// These limits hold from now on. What is held and what runs stays and counts; nothing begins before the other
    /// processes have been told.
    pub(in crate::worker) fn reconfigure(&self, limits: &Limits) {
        let mut calls = self.calls();
        let is_back = std::mem::take(&mut calls.is_retired);
        if is_back {
            // What runs counts here again.
            calls.running.values_mut().for_each(|call| call.places.clear());
        }
        drop(calls);
        let before = self.limits();
        if *before == *limits && !is_back {
            return;
        }
        let mut keeping = self.keeping();
        keeping.heard_at = None;
        keeping.changed_at = Some(Instant::now());
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits.clone());
        if is_back || limits.concurrency.is_some() || rule(limits) != rule(&before) {
            self.slots.follow(rule(limits));
        }
        drop(keeping);
        self.call_keeper();
    }

    /// No call begins here any more, and what is held is given back; whoever waits is sent away.
    pub(in crate::worker) fn retire(&self) {
        self.calls().is_retired = true;
        // Nobody waits for a place here any longer than it takes to hear of it.
        self.slots.follow(super::Rule::Open);
        self.call_keeper();
        self.received.notify_waiters();
    }

    /// Calls that run here take places there as well until they end: the limits there are theirs now.
    pub(in crate::worker) fn crowd_into(&self, heir: &Arc<Self>) {
        for call in self.calls().running.values_mut() {
            call.places.push(heir.slots.crowd_in());
        }
        heir.call_keeper();
    }

    /// Nothing runs here and nothing is held.
    pub(in crate::worker) fn is_finished(&self) -> bool {
        self.running() == 0 && !self.keeping().is_known
    }

    fn call_keeper(&self) {
        self.hungry.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}
