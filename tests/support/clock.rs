//! The clock, for what a test writes down and for the rhythm of what it stages. Tests wait with `wait::until`.
#![expect(clippy::disallowed_methods, reason = "the one place where tests look at the clock")]

use std::time::{Duration, Instant, SystemTime};

/// The instant, to tell how far apart two calls were.
pub fn instant() -> Instant {
    Instant::now()
}

/// The time of day.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The time of day in milliseconds since 1970, for rows.
pub fn millis() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// A pause that belongs to the scene: a server that drips, an application that goes on enqueueing.
pub async fn pace(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// The same on a thread that waits for nothing else.
pub fn blocking_pace(pause: Duration) {
    std::thread::sleep(pause);
}
