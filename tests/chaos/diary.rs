//! When what happened during a run, for the judgement afterwards.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of the wall clock, which the cluster has too.
pub fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Time during which something was wrong.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub from: i64,
    pub until: i64,
}

impl Window {
    pub fn meets(self, from: i64, until: i64) -> bool {
        self.from <= until && from <= self.until
    }
}

/// When what happened, for the judgement afterwards. In milliseconds of the wall clock.
#[derive(Debug, Default)]
pub struct Diary {
    /// Processes that were killed.
    pub kills: Vec<i64>,
    /// Processes that were stopped, until they went on or were killed.
    pub pauses: Vec<Window>,
    /// A client could not reach the database, or lost a connection to it.
    pub apart: Vec<Window>,
    /// Processes lived whose spool has no room.
    pub roomless: Vec<Window>,
    /// The commits of that time may be gone: the database went back.
    pub lost: Vec<Window>,
    /// How often which act was done.
    pub done: BTreeMap<&'static str, u64>,
    /// Acts that found no process to act on.
    pub in_vain: u64,
}
