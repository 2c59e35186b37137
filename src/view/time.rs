//! Instants and durations, as a story writes them.

use chrono::{DateTime, SecondsFormat, Utc};

/// An instant to the millisecond.
pub(super) fn clock(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A duration in words.
pub(super) fn span(millis: i64) -> String {
    if millis < 1000 {
        return format!("{millis} ms");
    }
    if millis < 60_000 {
        return format!("{}.{:02} s", millis / 1000, millis % 1000 / 10);
    }
    let seconds = std::time::Duration::from_secs(u64::try_from(millis / 1000).unwrap_or(0));
    humantime::format_duration(seconds).to_string()
}
