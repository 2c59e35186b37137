//! The calls that run in a bucket.

use super::Bucket;
use super::meter::LocalMeter;
use crate::domain::Charge;
use crate::provider::LimitObservation;
use crate::worker::places::Place;
use parking_lot::MutexGuard;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Calls that ended longer ago than this are taken to have been counted before the answer that tells of a limit. A
/// process that has nothing to tell hears of a limit after five seconds.
const ENDED_LATELY: Duration = Duration::from_secs(6);
/// The most calls that are remembered after their end.
const MOST_ENDED: usize = 1_000;

/// All running calls of the bucket.
#[derive(Debug, Default)]
pub(super) struct RunningCalls {
    /// Calls that have ended lately, as long as their answers tell of limits that are not known here, oldest first.
    ended: VecDeque<EndedCall>,
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

/// A call that has ended.
#[derive(Debug)]
struct EndedCall {
    at: Instant,
    /// What it took.
    charge: Charge,
    /// What its answer said of limits that were not known here.
    limits: Vec<LimitObservation>,
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
    /// began. What it took and its answer says of limits that are not known here is remembered for when they are.
    pub(super) fn close(&self, ending: Option<(Charge, &[LimitObservation])>) -> Vec<(Arc<LocalMeter>, u64)> {
        let unknown = ending.map(|(charge, limits)| (charge, self.unknown(limits)));
        let (at, mut calls) = (Instant::now(), self.bucket.calls());
        if let Some((charge, limits)) = unknown.filter(|(_, limits)| !limits.is_empty()) {
            let is_old = |call: &EndedCall| at.saturating_duration_since(call.at) > ENDED_LATELY;
            while calls.ended.len() >= MOST_ENDED || calls.ended.front().is_some_and(is_old) {
                calls.ended.pop_front();
            }
            calls.ended.push_back(EndedCall { at, charge, limits });
        }
        let Some(call) = calls.running.get_mut(&self.number) else { return Vec::new() };
        call.charge = None;
        std::mem::take(&mut call.late)
    }

    /// Those of the limits that are not known here.
    fn unknown(&self, limits: &[LimitObservation]) -> Vec<LimitObservation> {
        if limits.is_empty() {
            return Vec::new();
        }
        let meters = self.bucket.meters();
        let is_unknown = |seen: &&LimitObservation| {
            seen.pool.is_none() && seen.remaining.is_some() && !meters.iter().any(|meter| is_of(seen, meter))
        };
        limits.iter().filter(is_unknown).copied().collect()
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

    /// Charges the calls of this process for a limit that was unknown when they began: those that have ended lately and
    /// were counted after the answer that told of the limit, and all that run. Of a running call its own answer tells
    /// whether it had been counted before ([`BucketHold::correct`](super::BucketHold::correct)).
    pub(super) fn charge_running(&self, meter: &Arc<LocalMeter>) {
        let (mut calls, slice, now) = (self.calls(), meter.slice(), Instant::now());
        for call in calls.ended.iter().filter(|call| now.saturating_duration_since(call.at) <= ENDED_LATELY) {
            let said = call.limits.iter().find(|seen| is_of(seen, meter)).and_then(|seen| seen.remaining);
            if said.is_some_and(|remaining| slice.counted_later(remaining)) {
                meter.charge(call.charge.units(meter.dimension.unit));
            }
        }
        for call in calls.running.values_mut() {
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

/// Whether an answer speaks of the limit of this meter.
pub(super) fn is_of(seen: &LimitObservation, meter: &LocalMeter) -> bool {
    let is_of_window = seen.per.is_none_or(|per| per.as_secs().max(1) == meter.dimension.seconds);
    seen.pool.is_none() && seen.unit == meter.dimension.unit && seen.limit == Some(meter.amount()) && is_of_window
}
