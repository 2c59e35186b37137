//! Since when a bucket has had more work than its limits let through, from which patience is counted.

use super::Bucket;
use super::meter::LocalMeter;
use crate::domain::{Charge, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// How long room has to be left unused to count as a rest.
const REST: Duration = Duration::from_secs(1);

impl Bucket {
    /// Since when there has been more work than the limits let through. A unit that drips in between does not end that,
    /// and neither does a place that is free until the next call takes it.
    pub(in crate::worker) fn saturated_since(&self, now: Timestamp) -> Timestamp {
        match self.saturated.compare_exchange(0, now.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => now,
            Err(since) => Timestamp(since),
        }
    }

    /// The start of the wait of a call that got no turn: as long as the bucket has had too much work, if a look has
    /// found that it has.
    pub(super) fn waited_since(&self, now: Timestamp) -> Timestamp {
        match self.saturated.load(Ordering::Acquire) {
            0 => now,
            since => Timestamp(since),
        }
    }

    /// Ends the time of saturation if every limit has had a real rest: `charge` would have found room everywhere for
    /// some time, and no call took it.
    pub(super) fn rest(&self, meters: &[Arc<LocalMeter>], charge: Charge) {
        let now = Instant::now();
        if self.saturated.load(Ordering::Relaxed) != 0
            && meters.iter().all(|meter| meter.has_rested(charge.units(meter.dimension.unit), REST, now))
            && self.places.have_rested(REST)
        {
            self.saturated.store(0, Ordering::Relaxed);
        }
    }
}
