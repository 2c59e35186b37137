//! The succession of a bucket when the configuration changes.

use super::{Bucket, rule};
use crate::domain::Limits;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

impl Bucket {
    /// Whether no call may begin here any more.
    pub(super) fn is_retired(&self) -> bool {
        self.calls().is_retired
    }

    /// Applies these limits from now on. Units in hand and running calls stay and count; no call begins before the
    /// other processes have been told.
    pub(in crate::worker) fn reconfigure(&self, limits: &Limits) {
        let mut calls = self.calls();
        let is_back = std::mem::take(&mut calls.is_retired);
        if is_back {
            // Running calls count here again.
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
        self.limits.store(Arc::new(limits.clone()));
        if is_back || limits.concurrency.is_some() || rule(limits) != rule(&before) {
            self.places.follow(rule(limits));
        }
        drop(keeping);
        self.call_keeper();
    }

    /// Lets no call begin here any more, gives back the units in hand, and sends waiting calls away.
    pub(in crate::worker) fn retire(&self) {
        self.calls().is_retired = true;
        // A call that waits for a place here is released as soon as it hears of the change.
        self.places.follow(super::Rule::Open);
        self.call_keeper();
        self.received.notify_waiters();
    }

    /// Makes the calls that run here take places in `heir` as well until they end: the limits there apply to them now.
    pub(in crate::worker) fn crowd_into(&self, heir: &Arc<Self>) {
        for call in self.calls().running.values_mut() {
            call.places.push(heir.places.crowd_in());
        }
        heir.call_keeper();
    }

    /// Whether no call runs here and nothing is held.
    pub(in crate::worker) fn is_finished(&self) -> bool {
        self.running() == 0 && !self.keeping().is_known
    }

    fn call_keeper(&self) {
        self.hungry.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}
