//! The answer to a process that has come for its slice.

use super::SharedWait;
use crate::domain::Timestamp;
use crate::domain::limits::Dimension;

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
}
