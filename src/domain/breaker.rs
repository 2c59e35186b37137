//! The circuit breaker of one target.

use std::time::Duration;

/// When a breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// No judgement on fewer calls than this in the window.
    pub min_calls: u32,
    /// Opens at this share of failures in the window, 0 to 1.
    pub failure_rate: f64,
    /// How far back calls count.
    pub window: Duration,
    /// How long it stays open the first time; doubles with each failed probe, up to 16 times this.
    pub open: Duration,
}
