//! The report of a process on its part of a bucket when it comes for its slice.

use crate::domain::limits::{Dimension, Heard};
use crate::domain::shut::Reason;
use std::time::Duration;

/// Units of one limit that a process has, and those that it could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// The limit's unit and window.
    pub dimension: Dimension,
    /// The epoch in which it was lent.
    pub epoch: u64,
    /// Units held; negative: spent without leave.
    pub left: i64,
    /// How long it has held no more than `left`.
    pub quiet: Duration,
    /// Units that came back because calls took less than estimated.
    pub refund: u64,
    /// How long ago the first of them came back.
    pub refund_age: Duration,
    /// Units that the next call needs before it can start; 0 when none waits.
    pub need: u64,
    /// Units that the process would like to hold.
    pub want: u64,
    /// Units that its calls wait for: only these are put by for it.
    pub waiting: u64,
}

/// A wait that a provider asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Why the provider asked for it.
    pub reason: Reason,
    /// How long from now.
    pub remaining: Duration,
    /// How often one call asks again if the wait is too long to be believed.
    pub recheck: Duration,
    /// The limits that are used up, and how many units of each are there when the wait is over.
    pub drained: Vec<(Dimension, u64)>,
    /// The provider complains of how fast the rate of calls rose.
    pub too_steep: bool,
}

/// The report of a process when it comes for its slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One entry for each limit that it knows of.
    pub stocks: Vec<Stock>,
    /// Calls that run.
    pub running: u32,
    /// Calls that run or could.
    pub slots_wanted: u32,
    /// The wait that the provider asked for since the last report.
    pub wait: Option<Wait>,
    /// Refusals (429) since the last report.
    pub refused: u64,
    /// The figures that the provider gave for its limits since the last report.
    pub heard: Vec<Heard>,
    /// The call that asked again before a long wait was over has found that it is over.
    pub reopens: bool,
    /// The process begins calls, and may be the one to ask again.
    pub may_begin: bool,
    /// The process ends, or uses the bucket no longer.
    pub leaves: bool,
}
