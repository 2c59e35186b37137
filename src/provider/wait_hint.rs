//! How long a provider asks to wait, in every format in which providers say it.
//!
//! What is *asked* (`retry-after` and its kin, the body, the message) is combined by taking the longest. Reset
//! headers are not a request but a state (often the time until the limit is *full* again), so they count only when
//! nothing was asked and the failure is a limit. Ten hours are ten hours, and a month is a month; what is longer than
//! thirty years is nonsense, and nonsense beside sense does not count.

use super::adapter::WireReply;
use super::error_body::ErrorBody;
use super::limit_headers::{self, Conventions};
use crate::domain::Timestamp;
use crate::domain::error_class::{ErrorClass, Hints};
use chrono::{DateTime, Datelike, NaiveDateTime, TimeZone, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

/// Numbers from here on are instants (seconds since the epoch), not durations: thirty years are no wait, however told.
const EPOCH_SECONDS: f64 = 1e9;
/// Numbers from here on are milliseconds since the epoch.
const EPOCH_MILLIS: f64 = 1e11;
/// Numbers from here on are nonsense.
const NONSENSE: f64 = 1e14;

/// The wait for a failure of this class; `None` when nothing, zero or nonsense was asked.
#[must_use]
pub(super) fn of_failure(class: ErrorClass, reply: &WireReply<'_>, body: &ErrorBody) -> Option<Duration> {
    let now = reply.sent_at();
    let message = &body.message;
    let hints = class.facts().hints;
    let said = match hints {
        Hints::Words | Hints::WordsAndLimits => longest([of_message(message, now), of_message(&body.quoted, now)]),
        Hints::NowhereElse => None,
    };
    let quoted = of_headers(&body.headers, now);
    let beside = body.beside.iter().filter_map(|value| of_body(value, now)).max();
    let asked = longest([of_headers(reply.headers, now), quoted, of_body(&body.value, now), beside, said]);
    let resets =
        || longest([of_resets(reply.headers, now), of_resets(&body.headers, now), of_reset_members(&body.value, now)]);
    asked.or_else(|| (hints == Hints::WordsAndLimits).then(resets).flatten())
}

/// What `retry-after-ms`, `x-ms-retry-after-ms` and `retry-after` ask for, the longest of them.
#[must_use]
pub fn of_headers(headers: &HeaderMap, now: Option<Timestamp>) -> Option<Duration> {
    let millis = |name: &str| {
        let value: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        if (EPOCH_MILLIS..NONSENSE).contains(&value) {
            return since(now, value).filter(|wait| !wait.is_zero());
        }
        seconds(value / 1000.0)
    };
    let after = headers.get_all(RETRY_AFTER).iter().filter_map(|value| parse(value.to_str().ok()?, now));
    let other = headers.get("x-retry-after").and_then(|value| parse(value.to_str().ok()?, now));
    longest([millis("retry-after-ms"), millis("x-ms-retry-after-ms"), after.max(), other])
}

/// What the body asks for: Gemini's `RetryInfo`, OpenRouter's `availability.retry_after`, and the names that other
/// servers have for it. Takes the error object.
#[must_use]
pub fn of_body(error: &Value, now: Option<Timestamp>) -> Option<Duration> {
    let details = error.get("details").and_then(Value::as_array).into_iter().flatten();
    let of_detail = |detail: &Value| {
        let metadata = |name: &str| member(detail.pointer("/metadata")?.get(name)?, 1.0, now);
        longest([
            detail.get("retryDelay").and_then(|delay| member(delay, 1.0, now)),
            metadata("quotaResetDelay"),
            metadata("retryDelay"),
        ])
    };
    longest([details.filter_map(of_detail).max(), of_members(error, ASKED, now)])
}

/// Members of an error object, or of its metadata, that ask for a wait; and how many of their unit a second has.
const ASKED: &[(&str, f64)] = &[
    ("retry_after", 1.0),
    ("retryAfter", 1.0),
    ("retry-after", 1.0),
    ("Retry-After", 1.0),
    ("retry_after_seconds", 1.0),
    ("retryAfterSeconds", 1.0),
    ("retry_after_secs", 1.0),
    ("retry_after_sec", 1.0),
    ("retry_in", 1.0),
    ("retry_delay", 1.0),
    ("retryDelay", 1.0),
    ("wait_seconds", 1.0),
    ("wait", 1.0),
    ("cooldown", 1.0),
    ("cooldown_seconds", 1.0),
    ("cooldown_time", 1.0),
    ("backoff_seconds", 1.0),
    ("blocked_until", 1.0),
    ("available_at", 1.0),
    ("retry_at", 1.0),
    ("retry_after_ms", 1e3),
    ("retryAfterMs", 1e3),
    ("retry_after_millis", 1e3),
];

/// Members that say when a limit is full again, which is no request to wait.
const RESETS: &[(&str, f64)] = &[
    ("reset", 1.0),
    ("reset_at", 1.0),
    ("resetAt", 1.0),
    ("resets_at", 1.0),
    ("reset_time", 1.0),
    ("resetTime", 1.0),
    ("reset_in", 1.0),
    ("reset_seconds", 1.0),
    ("resets_in_seconds", 1.0),
    ("reset_after", 1.0),
    ("reset_ms", 1e3),
];

/// What the body says of when a limit resets.
fn of_reset_members(error: &Value, now: Option<Timestamp>) -> Option<Duration> {
    of_members(error, RESETS, now)
}

fn of_members(error: &Value, names: &[(&str, f64)], now: Option<Timestamp>) -> Option<Duration> {
    const PLACES: &[&str] = &[
        "",
        "/availability",
        "/metadata",
        "/rate_limit",
        "/rateLimit",
        "/parameters",
        "/data",
        "/extra",
        "/details",
        "/extensions",
    ];
    let objects = PLACES.iter().filter_map(|place| error.pointer(place)).filter(|object| object.is_object());
    let found = objects.flat_map(|object| {
        names.iter().filter_map(move |(name, per_second)| member(object.get(*name)?, *per_second, now))
    });
    found.max()
}

/// One member as a wait: a duration in its unit, or an instant, as a number or a string.
fn member(value: &Value, per_second: f64, now: Option<Timestamp>) -> Option<Duration> {
    match value {
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => of_number(number, per_second, now),
            Err(_) => parse(text, now),
        },
        Value::Number(number) => of_number(number.as_f64()?, per_second, now),
        // A protobuf duration as an object.
        Value::Object(parts) => seconds(parts.get("seconds")?.as_f64()?),
        _ => None,
    }
}

fn of_number(number: f64, per_second: f64, now: Option<Timestamp>) -> Option<Duration> {
    if number >= EPOCH_MILLIS && per_second > 1.0 {
        return since(now, number).filter(|wait| number < NONSENSE && !wait.is_zero());
    }
    if number >= EPOCH_SECONDS { parse(&number.to_string(), now) } else { seconds(number / per_second) }
}

/// What a message asks for: "try again in 1m2.5s", "Please retry in 10h17m5.72s.", "retry after 6 seconds",
/// "regain access on 2026-12-01 at 00:00 UTC".
#[must_use]
pub fn of_message(message: &str, now: Option<Timestamp>) -> Option<Duration> {
    let text = super::scrub::head(message, 4000).to_ascii_lowercase();
    let durations = DURATIONS
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
    let moments = MOMENTS
        .iter()
        .flat_map(|words| text.match_indices(words).map(|(at, words)| &text[at + words.len()..]))
        .filter_map(|rest| {
            let end =
                rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ')' | '"' | '\'')).unwrap_or(rest.len());
            let moment = rest[..end].trim_end_matches('.').to_ascii_uppercase();
            until(Timestamp(DateTime::parse_from_rfc3339(&moment).ok()?.timestamp_millis()), now)
        });
    // The date and the time apart, as people write them.
    let dates = MOMENTS
        .iter()
        .flat_map(|words| text.match_indices(words).map(|(at, words)| &text[at + words.len()..]))
        .filter_map(|rest| {
            let at = NaiveDateTime::parse_from_str(rest.trim_start().get(..19)?, "%Y-%m-%d %H:%M:%S").ok()?;
            until(Timestamp(at.and_utc().timestamp_millis()), now)
        });
    let bare = SECONDS
        .iter()
        .flat_map(|words| text.match_indices(words).map(|(at, words)| &text[at + words.len()..]))
        .filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            parse(rest[..end].trim_end_matches('.'), None)
        });
    longest([durations.max(), instants.max(), moments.max(), dates.max(), bare.max()])
}

/// What a number of seconds follows without a unit.
const SECONDS: &[&str] = &["retry-after: ", "retry_after: ", "cooldown time: ", "retry-after="];

/// What a duration follows in a message.
const DURATIONS: &[&str] = &[
    "try again in ",
    "try again after ",
    "retry in ",
    "retry after ",
    "retrying in ",
    "please wait ",
    "wait for ",
    "wait at least ",
    "resets in ",
    "reset in ",
    "reset after ",
    "available in ",
    "cool down for ",
    "cooldown for ",
    "refilled in ",
];

/// What an instant follows.
const MOMENTS: &[&str] = &[
    "try again at ",
    "try again after ",
    "retry at ",
    "retry after ",
    "resets at ",
    "resets at: ",
    "reset at ",
    "reset at: ",
    "until ",
];

/// What reset headers suggest: of the limits that are used up, the last to reset; when none is, the last of all.
fn of_resets(headers: &HeaderMap, now: Option<Timestamp>) -> Option<Duration> {
    let observed = limit_headers::observe(headers, now, &Conventions::NONE);
    // The draft of one header for all of it: `"default";r=0;t=300`.
    let drafted = headers.get("ratelimit").and_then(|value| {
        let text = value.to_str().ok()?;
        let member =
            |name: &str| text.split([';', ',']).find_map(|part| part.trim().strip_prefix(name)?.parse::<u64>().ok());
        (member("r=")? == 0).then(|| member("t=")).flatten().map(Duration::from_secs)
    });
    let after = headers.get("x-ratelimit-reset-after").and_then(|value| parse(value.to_str().ok()?, now));
    if let Some(wait) = longest([drafted, after]) {
        return Some(wait).filter(|wait| !wait.is_zero());
    }
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
    let exact = Duration::try_from_secs_f64(seconds).ok().filter(is_sane)?;
    let millis = u64::try_from(exact.as_nanos().div_ceil(1_000_000)).ok()?;
    Some(Duration::from_millis(millis))
}

/// From `now` until an instant in milliseconds; zero when it has passed.
fn since(now: Option<Timestamp>, epoch_millis: f64) -> Option<Duration> {
    #[expect(clippy::cast_possible_truncation, reason = "bounded by NONSENSE")]
    now.map(|now| now.until(Timestamp(epoch_millis as i64))).filter(is_sane)
}

/// From `now` until `instant`; `None` when it has passed or nobody knows what time it is.
fn until(instant: Timestamp, now: Option<Timestamp>) -> Option<Duration> {
    now.map(|now| now.until(instant)).filter(|wait| !wait.is_zero() && is_sane(wait))
}

/// Shorter than thirty years.
fn is_sane(wait: &Duration) -> bool {
    wait.as_secs_f64() < EPOCH_SECONDS
}

fn longest<const N: usize>(waits: [Option<Duration>; N]) -> Option<Duration> {
    waits.into_iter().flatten().max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};
    use serde_json::json;

    /// 2026-11-20 12:00:00 UTC.
    const NOW: Timestamp = Timestamp(1_795_176_000_000);

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

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

    #[test]
    fn the_longest_header_counts() {
        for (pairs, expected_ms) in [
            (&[("retry-after", "1"), ("retry-after-ms", "0")][..], Some(1_000)),
            (&[("retry-after", "1"), ("retry-after-ms", "1500.5")], Some(1_501)),
            (&[("x-ms-retry-after-ms", "200")], Some(200)),
            (&[("retry-after", "2"), ("retry-after", "5")], Some(5_000)),
            (&[("retry-after", "1m2.5s")], Some(62_500)),
            (&[("retry-after-ms", "-5"), ("retry-after", "x")], None),
            (&[("retry-after-ms", "NaN")], None),
            (&[], None),
        ] {
            assert_eq!(of_headers(&headers(pairs), Some(NOW)), expected_ms.map(Duration::from_millis), "{pairs:?}");
        }
    }

    #[test]
    fn a_date_is_measured_by_the_providers_own_clock() {
        // Our clock is an hour behind theirs; they ask for ten seconds.
        let headers =
            headers(&[("date", "Fri, 20 Nov 2026 13:00:00 GMT"), ("retry-after", "Fri, 20 Nov 2026 13:00:10 GMT")]);
        let reply = WireReply { received_at: Some(NOW), ..WireReply::new(429, &headers, b"") };
        let wait = of_failure(ErrorClass::RateLimit, &reply, &ErrorBody::default());
        assert_eq!(wait, Some(Duration::from_secs(10)));

        let dateless = self::headers(&[("retry-after", "Fri, 20 Nov 2026 12:00:10 GMT")]);
        let reply = WireReply { received_at: Some(NOW), ..WireReply::new(429, &dateless, b"") };
        assert_eq!(of_failure(ErrorClass::RateLimit, &reply, &ErrorBody::default()), Some(Duration::from_secs(10)));
    }

    #[test]
    fn bodies_are_read() {
        for (body, expected_ms) in [
            (json!({"details": [{"retryDelay": "46s"}, {"retryDelay": "3.5s"}]}), Some(46_000)),
            (json!({"availability": {"retry_after": 12}}), Some(12_000)),
            (json!({"availability": {"retry_after": "1.5"}}), Some(1_500)),
            (json!({"details": [{"retryDelay": 7}], "availability": {"retry_after": -1}}), Some(7_000)),
            (json!({"details": "none"}), None),
            (json!(null), None),
        ] {
            assert_eq!(of_body(&body, Some(NOW)), expected_ms.map(Duration::from_millis), "{body}");
        }
    }

    #[test]
    fn messages_are_read() {
        for (message, expected_ms) in [
            ("Limit 3, Used 3. Please try again in 20s. Visit https://x", Some(20_000)),
            ("Please try again in 1m2.5s.", Some(62_500)),
            ("Please try again in 12ms.", Some(12)),
            ("Please try again in 6m0s.", Some(360_000)),
            ("Please retry in 10h17m5.72s.", Some(37_025_720)),
            ("Please retry after 27 seconds.", Some(27_000)),
            ("try again in 1 hour and 5 minutes", Some(3_900_000)),
            ("Please wait 2 minutes", Some(120_000)),
            ("try again in 5s or try again in 9s", Some(9_000)),
            ("You will regain access on 2026-12-01 at 00:00 UTC.", Some(907_200_000)),
            ("You will regain access on 2026-11-21.", Some(43_200_000)),
            ("You will regain access on é026-11-21", None),
            ("try again in a moment", None),
            ("try again in 5", None),
            ("try again in -5s", None),
            ("try again in 1..5s", None),
            ("", None),
        ] {
            assert_eq!(of_message(message, Some(NOW)), expected_ms.map(Duration::from_millis), "{message}");
        }
    }

    #[test]
    fn a_state_counts_only_when_nothing_was_asked_and_the_failure_is_a_limit() {
        let resets = [("x-ratelimit-reset-tokens", "6m0s"), ("x-ratelimit-reset-requests", "1s")];
        let wait = |class: ErrorClass, more: &[(&'static str, &'static str)], message: &str| {
            let headers = headers(&[&resets[..], more].concat());
            let body = ErrorBody { message: message.to_owned(), ..ErrorBody::default() };
            of_failure(class, &WireReply::new(429, &headers, b""), &body).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(ErrorClass::RateLimit, &[], ""), Some(360), "the largest");
        assert_eq!(
            wait(ErrorClass::RateLimit, &[("x-ratelimit-remaining-requests", "0")], ""),
            Some(1),
            "what is used up"
        );
        assert_eq!(wait(ErrorClass::RateLimit, &[("retry-after", "2")], ""), Some(2), "what was asked");
        assert_eq!(wait(ErrorClass::RateLimit, &[], "try again in 3s"), Some(3), "what was said");
        assert_eq!(wait(ErrorClass::ServerError, &[], ""), None, "no limit");
        assert_eq!(wait(ErrorClass::InvalidRequest, &[], "your prompt: try again in 3s"), None, "a quoted prompt");
    }

    #[test]
    fn months_end() {
        let day = 86_400_000;
        assert_eq!(until_next_month(NOW), Some(Duration::from_millis(10 * day + day / 2)));
        let new_years_eve = Timestamp(1_798_675_200_000);
        assert_eq!(until_next_month(new_years_eve), Some(Duration::from_millis(day)));
        assert_eq!(until_next_month(Timestamp::MAX), None);
    }
}
