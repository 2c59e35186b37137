//! The time, by the database's clock.

use crate::domain::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::time::Instant;

/// A clock that runs on the machine's monotonic time and is set by the database at every heartbeat, so that a wrong
/// or jumping wall clock on a worker's machine moves nothing.
#[derive(Debug)]
pub struct Clock {
    anchor: Instant,
    /// Milliseconds since the epoch at `anchor`.
    origin: AtomicI64,
}

impl Clock {
    /// A clock that reads `now` now.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { anchor: Instant::now(), origin: AtomicI64::new(now.0) }
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.anchor.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.origin.load(Ordering::Relaxed).saturating_add(self.elapsed_ms()))
    }

    /// Sets it to the database's time.
    pub fn set(&self, now: Timestamp) {
        self.origin.store(now.0.saturating_sub(self.elapsed_ms()), Ordering::Relaxed);
    }

    /// The instant at which this clock will read `at`.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        Instant::now() + self.now().until(at)
    }
}
