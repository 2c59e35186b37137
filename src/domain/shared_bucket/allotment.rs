//! What a process is told when it has come for its slice.

use super::SharedWait;
use crate::domain::Timestamp;
use crate::domain::limits::Dimension;

/// What a process may do until it comes again, at most for [`LEASE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allotment {
    /// The state is from then, by the database's clock.
    pub now: Timestamp,
    /// Each limit.
    pub slices: Vec<Slice>,
    /// Calls that it may run at once; `None`: no limit.
    pub slots: Option<u32>,
    /// Places that no process has.
    pub places_left: u32,
    /// The wait that is on.
    pub wait: Option<SharedWait>,
    /// One call may go all the same, to ask again.
    pub probe: bool,
    /// When the bucket was last opened before its wait was over.
    pub reopened: Option<Timestamp>,
    /// Processes that want something of this bucket, this one included if it does.
    pub sharers: u32,
}

/// A process's part of one limit, and how the limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which limit.
    pub dimension: Dimension,
    /// The epoch in which it is lent.
    pub epoch: u64,
    /// What the process holds now; not what it got in addition.
    pub held: u64,
    /// What no process holds; negative while in debt.
    pub level: i64,
    /// What all hold together.
    pub outstanding: u64,
    /// What can be held and left together, at most. A call that needs more never fits.
    pub capacity: u64,
    /// Nanoseconds in which a unit comes back.
    pub interval: u64,
    /// The limit as the provider would say it: units per window.
    pub amount: u64,
    /// What was ever taken off because the provider said that less was left.
    pub corrected: u64,
}
