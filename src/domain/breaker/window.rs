//! The recent calls of a target.

use crate::domain::Timestamp;
use std::time::Duration;

/// The number of slices of the window: old calls leave it a slice at a time.
const SLICES: u8 = 10;

/// Recent calls, in slices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    slices: [WindowSlice; SLICES as usize],
    /// The number of the newest slice.
    newest: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct WindowSlice {
    number: i64,
    calls: u32,
    failures: u32,
}

impl Window {
    /// Counts a call. If the clock was set back, the call counts into the newest slice.
    pub(super) fn count(&mut self, failed: bool, now: Timestamp, length: Duration) {
        let number = slice_at(now, length);
        self.newest = if self.is_empty() { number } else { self.newest.max(number) };
        let place = usize::try_from(self.newest.rem_euclid(i64::from(SLICES))).unwrap_or(0);
        let Some(slice) = self.slices.get_mut(place) else { return };
        if slice.number != self.newest {
            *slice = WindowSlice { number: self.newest, ..WindowSlice::default() };
        }
        slice.calls = slice.calls.saturating_add(1);
        slice.failures = slice.failures.saturating_add(u32::from(failed));
    }

    /// Calls in the window, and the failures among them.
    pub(super) fn totals(&self) -> (u32, u32) {
        let oldest = self.newest.saturating_sub(i64::from(SLICES) - 1);
        let current = self.slices.iter().filter(|slice| slice.number >= oldest);
        current.fold((0, 0), |(calls, failures), slice| {
            (calls.saturating_add(slice.calls), failures.saturating_add(slice.failures))
        })
    }

    /// The same of the window that ends now: after a quiet time fewer calls than when the last one was counted.
    pub(super) fn totals_at(&self, now: Timestamp, length: Duration) -> (u32, u32) {
        let mut seen = *self;
        seen.newest = seen.newest.max(slice_at(now, length));
        seen.totals()
    }

    fn is_empty(&self) -> bool {
        self.slices.iter().all(|slice| slice.calls == 0)
    }
}

/// The number of the slice to which an instant belongs: ten of them make up a window of this length.
pub(in crate::domain) fn slice_at(now: Timestamp, length: Duration) -> i64 {
    let slice_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX) / i64::from(SLICES);
    now.0.checked_div_euclid(slice_ms.max(1)).unwrap_or(0)
}
