//! The answer to a process that has come for its slice.

use super::SharedWait;
use crate::domain::Timestamp;
use crate::domain::limits::{Dimension, Unit};
use std::time::Duration;

/// Of answers that come longer after a limit became known, nothing is concluded about when their calls were counted.
const TOLD_LATELY: Duration = Duration::from_secs(2);

/// The permission that a process has until it comes again, for [`LEASE`] at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allotment {
    /// The time of the state, by the database's clock.
    pub now: Timestamp,
    pub slices: Vec<Slice>,
    /// Calls that it may run at once; `None`: no limit.
    pub slots: Option<u32>,
    /// Places that no process holds.
    pub places_left: u32,
    /// The wait that is on.
    pub wait: Option<SharedWait>,
    /// One call may go in spite of the wait, to ask again.
    pub probe: bool,
    /// When the bucket was last opened before its wait was over.
    pub reopened: Option<Timestamp>,
    /// Processes that want something of this bucket, including this one if it does.
    pub sharers: u32,
}

/// A process's part of one limit, and how the limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The limit's unit and window.
    pub dimension: Dimension,
    /// The epoch in which it is lent.
    pub epoch: u64,
    /// Units that the process holds now: the total, not the addition.
    pub held: u64,
    /// Units that no process holds; negative while in debt.
    pub level: i64,
    /// Units that all processes hold together.
    pub outstanding: u64,
    /// The most that can be held and left together. A call that needs more never fits.
    pub capacity: u64,
    /// Nanoseconds in which one unit comes back.
    pub interval: u64,
    /// The limit as the provider would state it: units per window.
    pub amount: u64,
    /// Units taken off so far because the provider said that less was left.
    pub corrected: u64,
    /// What was left by the answer that told of the limit first, and how long ago that became known; `None`: it is
    /// configured.
    pub told: Option<(u64, Duration)>,
    /// Units that other processes lack which have had less so far, and which therefore get theirs first.
    pub ahead: u64,
    /// Units that the others get meanwhile, if this process gets all that it lacks: what they lack, but no more than it
    /// lacks after its first unit.
    pub between: u64,
}

impl Slice {
    /// How long until a process has `missing` units in addition to what it holds, where this many are left by now and
    /// `sharers` processes want some: until all that comes first has come back and then these, but no longer than with
    /// an equal part of all that comes back.
    #[must_use]
    pub fn wait(&self, missing: i64, left: i64, sharers: u32) -> Duration {
        let missing_now = u64::try_from(missing.saturating_sub(left)).unwrap_or(0);
        let in_equal_parts = missing_now.saturating_mul(u64::from(sharers.max(1)));
        let after_first = u64::try_from(missing.saturating_sub(1)).unwrap_or(0);
        let between = self.between.min(after_first.saturating_mul(u64::from(sharers.max(1)) - 1));
        self.wait_in_turn(missing.saturating_add_unsigned(between), left).min(self.time_for(in_equal_parts))
    }

    /// The same where the process gets its units after all that other processes lack.
    #[must_use]
    pub fn wait_in_turn(&self, missing: i64, left: i64) -> Duration {
        let behind = missing.saturating_add_unsigned(self.ahead).saturating_sub(left);
        self.time_for(u64::try_from(behind).unwrap_or(0))
    }

    /// The time in which this many units come back.
    const fn time_for(&self, units: u64) -> Duration {
        Duration::from_nanos(units.saturating_mul(self.interval))
    }

    /// Whether a call whose own answer says that `remaining` was left had been counted before the answer that told of
    /// the limit: less is left after each call than after the one before it, but for what has come back meanwhile.
    /// `passed`: since this was received.
    ///
    /// That holds for requests, which count when they arrive. Tokens may be counted, and given back, until a call ends.
    #[must_use]
    pub fn had_counted(&self, remaining: u64, passed: Duration) -> bool {
        self.told.is_some_and(|(told, ago)| {
            let ago = ago.saturating_add(passed);
            let back = ago.as_nanos() / u128::from(self.interval.max(1));
            self.dimension.unit == Unit::Requests
                && ago <= TOLD_LATELY
                && u128::from(remaining) > u128::from(told).saturating_add(back)
        })
    }

    /// Whether such a call was counted after that answer.
    #[must_use]
    pub fn counted_later(&self, remaining: u64) -> bool {
        self.told.is_some_and(|(told, _)| remaining < told)
    }
}
