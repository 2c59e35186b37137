//! How long a provider asks to wait, in every format in which providers say it.
//!
//! What is *asked* (`retry-after` and its kin, the body, the message) is combined by taking the longest. Reset
//! headers are not a request but a state (often the time until the limit is *full* again), so they count only when
//! nothing was asked and the failure is a limit. There is no upper bound: ten hours are ten hours.

use super::adapter::WireReply;
use super::limit_headers::{self, Conventions};
use crate::domain::{ErrorClass, Timestamp};
use chrono::{DateTime, Datelike, NaiveDateTime, TimeZone, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

/// Numbers from here on are instants (seconds since the epoch), not durations: thirty years are no wait.
const EPOCH_SECONDS: f64 = 1e9;
/// Numbers from here on are milliseconds since the epoch.
const EPOCH_MILLIS: f64 = 1e11;
/// Numbers from here on are nonsense.
const NONSENSE: f64 = 1e14;

/// The wait for a failure of this class; `None` when nothing, zero or nonsense was asked.
#[must_use]
pub fn of_failure(class: ErrorClass, reply: &WireReply<'_>, body: &Value, message: &str) -> Option<Duration> {
    let now = reply.sent_at();
    let said = match class {
        ErrorClass::RateLimit
        | ErrorClass::RateLimitDaily
        | ErrorClass::RampLimit
        | ErrorClass::QuotaExhausted
        | ErrorClass::Overloaded
        | ErrorClass::ServerError
        | ErrorClass::Timeout
        | ErrorClass::Conflict => of_message(message, now),
        // The messages of these quote prompts, and waiting does not help them anyway.
        ErrorClass::Network
        | ErrorClass::Auth
        | ErrorClass::Permission
        | ErrorClass::NotFound
        | ErrorClass::InvalidRequest
        | ErrorClass::ContextLength
        | ErrorClass::ContentPolicy
        | ErrorClass::PayloadTooLarge
        | ErrorClass::NeverFits
        | ErrorClass::OutputInvalid
        | ErrorClass::Cancelled
        | ErrorClass::SoftFailure
        | ErrorClass::Abandoned
        | ErrorClass::Deadline => None,
    };
    let asked = longest([of_headers(reply.headers, now), of_body(body), said]);
    let limited = matches!(class, ErrorClass::RateLimit | ErrorClass::RateLimitDaily | ErrorClass::RampLimit);
    asked.or_else(|| limited.then(|| of_resets(reply.headers, now)).flatten())
}

/// What `retry-after-ms`, `x-ms-retry-after-ms` and `retry-after` ask for, the longest of them.
#[must_use]
pub fn of_headers(headers: &HeaderMap, now: Option<Timestamp>) -> Option<Duration> {
    let millis = |name: &str| {
        let value: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        seconds(value / 1000.0)
    };
    let after = headers.get_all(RETRY_AFTER).iter().filter_map(|value| parse(value.to_str().ok()?, now));
    longest([millis("retry-after-ms"), millis("x-ms-retry-after-ms"), after.max()])
}

/// What the body asks for: Gemini's `RetryInfo` and OpenRouter's `availability.retry_after`. Takes the error object.
#[must_use]
pub fn of_body(error: &Value) -> Option<Duration> {
    let value = |value: &Value| match value {
        Value::String(text) => parse(text, None),
        Value::Number(number) => number.as_f64().filter(|number| *number < EPOCH_SECONDS).and_then(seconds),
        _ => None,
    };
    let details = error.get("details").and_then(Value::as_array).into_iter().flatten();
    let delays = details.filter_map(|detail| value(detail.get("retryDelay")?));
    let after = ["/availability/retry_after", "/metadata/retry_after", "/retry_after"];
    longest([delays.max(), after.iter().filter_map(|pointer| value(error.pointer(pointer)?)).max()])
}

/// What a message asks for: "try again in 1m2.5s", "Please retry in 10h17m5.72s.", "retry after 6 seconds",
/// "regain access on 2026-12-01 at 00:00 UTC".
#[must_use]
pub fn of_message(message: &str, now: Option<Timestamp>) -> Option<Duration> {
    let text = super::scrub::head(message, 4000).to_ascii_lowercase();
    let durations = ["try again in ", "retry in ", "retry after ", "please wait "]
        .iter()
        .flat_map(|words| text.match_indices(words).map(|(at, words)| &text[at + words.len()..]))
        .filter_map(spoken);
    let instants = text.match_indices("regain access on ").filter_map(|(at, words)| {
        let when = text.get(at + words.len()..)?;
        let date = when.get(..10)?;
        let time = when.get(10..)?.trim_start().strip_prefix("at ").and_then(|time| time.get(..5)).unwrap_or("00:00");
        let at = NaiveDateTime::parse_from_str(&format!("{date} {time}"), "%Y-%m-%d %H:%M").ok()?;
        until(Timestamp(at.and_utc().timestamp_millis()), now)
    });
    longest([durations.max(), instants.max()])
}

/// What reset headers suggest: of the limits that are used up, the last to reset; when none is, the last of all.
fn of_resets(headers: &HeaderMap, now: Option<Timestamp>) -> Option<Duration> {
    let observed = limit_headers::observe(headers, now, &Conventions::NONE);
    let used_up = observed.iter().filter(|limit| limit.remaining == Some(0)).filter_map(|limit| limit.reset_in).max();
    used_up.or_else(|| observed.iter().filter_map(|limit| limit.reset_in).max()).filter(|wait| !wait.is_zero())
}

/// The wait until the first instant of next month in UTC, when monthly spend limits reset.
#[must_use]
pub fn until_next_month(now: Timestamp) -> Option<Duration> {
    let today = Utc.timestamp_millis_opt(now.0).single()?;
    let (year, month) = if today.month() == 12 { (today.year() + 1, 1) } else { (today.year(), today.month() + 1) };
    let first = Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).single()?;
    until(Timestamp(first.timestamp_millis()), Some(now))
}

/// Reads one value: seconds (whole or not), Go and protobuf durations, HTTP-dates, RFC 3339, epoch seconds and
/// milliseconds. Instants need `now`. Negative, zero, past and absurd values are `None`.
#[must_use]
pub fn parse(text: &str, now: Option<Timestamp>) -> Option<Duration> {
    parse_any(text, now).filter(|wait| !wait.is_zero())
}

/// The same, but zero and instants that have passed are zero: for reset headers, where "now" is news.
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
        return now.map(|now| now.until(Timestamp(instant.timestamp_millis())));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let millis = i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    now.map(|now| now.until(Timestamp(millis)))
}

/// `1h2m3s`, `6m0s`, `12ms`, `7.66s`, `1m2.5s`: the whole text, nothing else.
fn go_duration(text: &str) -> Option<Duration> {
    match compound(text) {
        (Some(wait), "") => Some(wait),
        _ => None,
    }
}

/// A duration at the start of a sentence: also with words (`20 seconds`, `1 hour and 5 minutes`).
fn spoken(text: &str) -> Option<Duration> {
    compound(text).0.filter(|wait| !wait.is_zero())
}

/// Reads as many pairs of number and unit as there are; returns their sum and what is left.
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

/// A positive number of seconds as a duration in whole milliseconds, rounded up: never a moment too early.
fn seconds(seconds: f64) -> Option<Duration> {
    seconds_or_zero(seconds).filter(|wait| !wait.is_zero())
}

fn seconds_or_zero(seconds: f64) -> Option<Duration> {
    let exact = Duration::try_from_secs_f64(seconds).ok().filter(|_| seconds < NONSENSE)?;
    let millis = u64::try_from(exact.as_nanos().div_ceil(1_000_000)).ok()?;
    Some(Duration::from_millis(millis))
}

/// From `now` until an instant in milliseconds; zero when it has passed.
fn since(now: Option<Timestamp>, epoch_millis: f64) -> Option<Duration> {
    #[expect(clippy::cast_possible_truncation, reason = "bounded by NONSENSE")]
    now.map(|now| now.until(Timestamp(epoch_millis as i64)))
}

/// From `now` until `instant`; `None` when it has passed or nobody knows what time it is.
fn until(instant: Timestamp, now: Option<Timestamp>) -> Option<Duration> {
    now.map(|now| now.until(instant)).filter(|wait| !wait.is_zero())
}

fn longest<const N: usize>(waits: [Option<Duration>; N]) -> Option<Duration> {
    waits.into_iter().flatten().max()
}
