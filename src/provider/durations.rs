//! Durations and instants, in every form in which providers write them.

use crate::domain::Timestamp;
use chrono::DateTime;
use std::time::{Duration, UNIX_EPOCH};

/// Numbers from here on are instants (seconds since the epoch), not durations: no wait lasts thirty years.
pub(super) const EPOCH_SECONDS: f64 = 1e9;
/// Numbers from here on are milliseconds since the epoch.
pub(super) const EPOCH_MILLIS: f64 = 1e11;
/// Numbers from here on are nonsense.
pub(super) const NONSENSE: f64 = 1e14;

/// Reads one value: seconds (whole or not), Go and protobuf durations, HTTP-dates, RFC 3339, epoch seconds and
/// milliseconds. Instants need `now`. Negative, zero, past and absurd values are `None`.
#[must_use]
pub fn parse(text: &str, now: Option<Timestamp>) -> Option<Duration> {
    parse_any(text, now).filter(|wait| !wait.is_zero())
}

/// Like [`parse`], but zero and past instants are zero: for reset headers, where "now" is information.
pub(super) fn parse_any(text: &str, now: Option<Timestamp>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return match number {
            number if !number.is_finite() || number < 0.0 => None,
            number if number < EPOCH_SECONDS => seconds_or_zero(number),
            number if number < EPOCH_MILLIS => since(now, number * 1000.0),
            number if number < NONSENSE => since(now, number),
            _ => None,
        };
    }
    if let Some(wait) = go_duration(text) {
        return Some(wait);
    }
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return now.map(|now| now.until(Timestamp(instant.timestamp_millis()))).filter(is_sane);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let millis = i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    now.map(|now| now.until(Timestamp(millis))).filter(is_sane)
}

/// `1h2m3s`, `6m0s`, `12ms`, `7.66s`, `1m2.5s`: the whole text, nothing else.
fn go_duration(text: &str) -> Option<Duration> {
    match compound(text) {
        (Some(wait), "") => Some(wait),
        _ => None,
    }
}

/// A duration at the start of a sentence: also with words (`20 seconds`, `1 hour and 5 minutes`).
pub(super) fn spoken(text: &str) -> Option<Duration> {
    compound(text).0.filter(|wait| !wait.is_zero())
}

/// Reads as many pairs of number and unit as there are; returns their sum and the remaining text.
fn compound(text: &str) -> (Option<Duration>, &str) {
    let mut rest = text;
    let mut total: Option<Duration> = None;
    loop {
        let start = rest.trim_start().strip_prefix("and ").unwrap_or(rest).trim_start();
        let digits = start.len() - start.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let after = start[digits..].trim_start();
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let (Ok(number), Some(unit)) = (start[..digits].parse::<f64>(), unit_seconds(&after[..letters])) else {
            return (total, rest);
        };
        let Some(part) = seconds_or_zero(number * unit) else { return (None, rest) };
        total = Some(total.unwrap_or_default().saturating_add(part));
        rest = &after[letters..];
    }
}

/// How many seconds a unit has.
fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    })
}

/// A positive number of seconds as a duration in whole milliseconds, rounded up so that no wait ends too early.
pub(super) fn seconds(seconds: f64) -> Option<Duration> {
    seconds_or_zero(seconds).filter(|wait| !wait.is_zero())
}

fn seconds_or_zero(seconds: f64) -> Option<Duration> {
    let exact = Duration::try_from_secs_f64(seconds).ok().filter(is_sane)?;
    let millis = u64::try_from(exact.as_nanos().div_ceil(1_000_000)).ok()?;
    Some(Duration::from_millis(millis))
}

/// From `now` until an instant in milliseconds; zero when it has passed.
pub(super) fn since(now: Option<Timestamp>, epoch_millis: f64) -> Option<Duration> {
    #[expect(clippy::cast_possible_truncation, reason = "bounded by NONSENSE")]
    now.map(|now| now.until(Timestamp(epoch_millis as i64))).filter(is_sane)
}

/// From `now` until `instant`; `None` when it has passed, or without a clock.
pub(super) fn until(instant: Timestamp, now: Option<Timestamp>) -> Option<Duration> {
    now.map(|now| now.until(instant)).filter(|wait| !wait.is_zero() && is_sane(wait))
}

/// Whether the wait is shorter than thirty years.
fn is_sane(wait: &Duration) -> bool {
    wait.as_secs_f64() < EPOCH_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20 12:00:00 UTC.
    const NOW: Timestamp = Timestamp(1_795_176_000_000);

    #[test]
    fn every_format_of_a_value_is_read() {
        for (text, expected_ms) in [
            ("0", None),
            ("1", Some(1_000)),
            (" 36722 ", Some(36_722_000)),
            ("7.66", Some(7_660)),
            ("0.0001", Some(1)),
            ("1e2", Some(100_000)),
            ("12ms", Some(12)),
            ("7.66s", Some(7_660)),
            ("6m0s", Some(360_000)),
            ("2m59.56s", Some(179_560)),
            ("1h2m3s", Some(3_723_000)),
            ("10h17m5.72s", Some(37_025_720)),
            ("1d", Some(86_400_000)),
            ("150µs", Some(1)),
            ("46s", Some(46_000)),
            ("3.5s", Some(3_500)),
            ("0s", None),
            ("2026-11-20T12:00:40Z", Some(40_000)),
            ("2026-11-20T13:00:40.25+01:00", Some(40_250)),
            ("2026-11-20T11:59:59Z", None),
            ("Fri, 20 Nov 2026 22:00:00 GMT", Some(36_000_000)),
            ("Fri, 20 Nov 2026 11:00:00 GMT", None),
            ("1795176030", Some(30_000)),
            ("1795176030.5", Some(30_500)),
            ("1795176030000", Some(30_000)),
            ("1795175000", None),
            ("999999999", Some(999_999_999_000)),
            ("-1", None),
            ("-1s", None),
            ("NaN", None),
            ("inf", None),
            ("1e400", None),
            ("1e18", None),
            ("99999999999999999999h", None),
            ("1.2.3s", None),
            ("5 apples", None),
            ("5s ago", None),
            ("soon", None),
            ("", None),
            ("s", None),
        ] {
            assert_eq!(parse(text, Some(NOW)), expected_ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn instants_without_a_clock_say_nothing() {
        for text in ["2026-11-20T12:00:40Z", "Fri, 20 Nov 2026 22:00:00 GMT", "1795176030", "1795176030000"] {
            assert_eq!(parse(text, None), None, "{text}");
        }
    }
}
