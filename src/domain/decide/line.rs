//! The jobs in hand that wait for the places of a rung, one behind the other.

use crate::domain::Timestamp;
use crate::domain::shut::{Reason, Shut};
use std::time::Duration;

/// How long a line that has enough jobs is left alone. Calls end all the time, and free places.
const LEFT_ALONE: Duration = Duration::from_millis(100);

/// The jobs that were claimed, and wait for a place of a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Places that are free.
    pub places: usize,
    /// Jobs of all routes that wait for them, …
    pub waiting: usize,
    /// … and those of the route that asks.
    pub own: usize,
    /// Since when there has been more work than places.
    pub since: Timestamp,
}

impl Line {
    /// Why no further job of the route is to be claimed for the rung, and until when.
    ///
    /// The jobs in hand take every place that is free. One more would wait behind them, although a job of higher
    /// priority may come before a place is free. A route that has no job in the line may add one, so that no route is
    /// kept out by the jobs of others.
    pub(super) fn shut(self, now: Timestamp) -> Option<Shut> {
        let is_full = self.own > 0 && self.places <= self.waiting;
        is_full.then(|| Shut { reason: Reason::Concurrency, since: self.since, until: now + LEFT_ALONE })
    }
}
