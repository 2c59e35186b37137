//! The calls that run in a bucket.

use super::Bucket;
use super::meter::LocalMeter;
use crate::domain::Charge;
use crate::worker::places::Place;
use parking_lot::MutexGuard;
use std::collections::HashMap;
use std::sync::Arc;

/// All running calls of the bucket.
#[derive(Debug, Default)]
pub(super) struct RunningCalls {
    /// No call begins any more: other buckets have taken this one's place.
    pub(super) is_retired: bool,
    next: u64,
    /// Running calls by number.
    pub(super) running: HashMap<u64, RunningCall>,
}

/// A running call.
#[derive(Debug)]
pub(super) struct RunningCall {
    /// The units that it is estimated to take; `None` once the real number is known.
    charge: Option<Charge>,
    /// Units that it was charged since it began, for limits that were unknown before.
    late: Vec<(Arc<LocalMeter>, u64)>,
    /// The places that it takes in buckets to which its target belongs now.
    pub(super) places: Vec<Place>,
}

/// Counts a call while it runs.
#[derive(Debug)]
pub(super) struct Running {
    bucket: Arc<Bucket>,
    number: u64,
}

impl Running {
    /// Counts a call from now on; `None` when no call may begin here any more.
    pub(super) fn begin(bucket: &Arc<Bucket>, charge: Charge) -> Option<Self> {
        let mut calls = bucket.calls();
        if calls.is_retired {
            return None;
        }
        calls.next = calls.next.wrapping_add(1);
        let number = calls.next;
        calls.running.insert(number, RunningCall { charge: Some(charge), late: Vec::new(), places: Vec::new() });
        Some(Self { bucket: Arc::clone(bucket), number })
    }

    /// Ends the late charges of the call, now that its real use is known, and returns what it was charged since it
    /// began.
    pub(super) fn close(&self) -> Vec<(Arc<LocalMeter>, u64)> {
        let mut calls = self.bucket.calls();
        let Some(call) = calls.running.get_mut(&self.number) else { return Vec::new() };
        call.charge = None;
        std::mem::take(&mut call.late)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut calls = self.bucket.calls();
        let call = calls.running.remove(&self.number);
        let is_retired = calls.is_retired;
        drop(calls);
        drop(call);
        if is_retired || self.bucket.places.is_lent() {
            self.bucket.ask();
        }
    }
}

impl Bucket {
    pub(super) fn calls(&self) -> MutexGuard<'_, RunningCalls> {
        self.calls.lock()
    }

    /// The number of running calls.
    pub(super) fn running(&self) -> u32 {
        u32::try_from(self.calls().running.len()).unwrap_or(u32::MAX)
    }

    /// Charges the running calls for a limit that was unknown when they began: the provider's figure for the units left
    /// includes hardly any of them.
    pub(super) fn charge_running(&self, meter: &Arc<LocalMeter>) {
        for call in self.calls().running.values_mut() {
            let Some(charge) = call.charge else { continue };
            let units = charge.units(meter.dimension.unit);
            // A call that can never fit will be refused, and takes nothing.
            if units > meter.capacity() {
                continue;
            }
            meter.charge(units);
            call.late.push((Arc::clone(meter), units));
        }
    }
}
