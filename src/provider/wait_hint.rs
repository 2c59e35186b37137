//! The wait that a provider asks for, in every format in which providers say it.
//!
//! Where several places *ask* for a wait (`retry-after` and its kin, the body, the message), the longest counts. Reset
//! headers are not a request but a state (often the time until the limit is *full* again), so they count only when no
//! wait was asked for and the failure is a limit. Ten hours are ten hours, and a month is a month. A wait of more than
//! thirty years is nonsense, and is ignored beside a sensible one.

use super::durations::{EPOCH_MILLIS, EPOCH_SECONDS, NONSENSE, parse, seconds, since, spoken, until};
use super::error_body::ErrorBody;
use super::limit_headers::{self, Conventions, Family};
use super::wire::WireReply;
use crate::domain::Timestamp;
use crate::domain::error_class::{ErrorClass, Hints};
use chrono::{DateTime, Datelike, NaiveDateTime, TimeZone, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use std::time::Duration;

/// The wait for a failure of this class; `None` when nothing, zero or nonsense was asked for. `limits` are the headers
/// that report limits.
#[must_use]
pub(super) fn of_failure(
    class: ErrorClass,
    reply: &WireReply<'_>,
    body: &ErrorBody,
    limits: &[&[Family]],
) -> Option<Duration> {
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
    let resets = || {
        longest([
            of_resets(reply.headers, now, limits),
            of_resets(&body.headers, now, limits),
            of_reset_members(&body.value, now),
        ])
    };
    asked.or_else(|| (hints == Hints::WordsAndLimits).then(resets).flatten())
}

/// The wait that `retry-after-ms`, `x-ms-retry-after-ms` and `retry-after` ask for, the longest of them.
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

/// The wait that the body asks for: Gemini's `RetryInfo`, OpenRouter's `availability.retry_after`, and the names that
/// other servers use. Takes the error object.
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

/// Members of an error object, or of its metadata, that ask for a wait; and how many of their unit make a second.
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

/// Members that say when a limit is full again, which is not a request to wait.
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

/// The wait until the limit resets, as the body gives it.
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

/// The wait that a message asks for: "try again in 1m2.5s", "Please retry in 10h17m5.72s.", "retry after 6 seconds",
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

/// Words followed by a number of seconds without a unit.
const SECONDS: &[&str] = &["retry-after: ", "retry_after: ", "cooldown time: ", "retry-after="];

/// Words followed by a duration.
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

/// Words followed by an instant.
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

/// The wait that reset headers suggest: of the limits that are used up, the last to reset; when none is, the last of
/// all.
fn of_resets(headers: &HeaderMap, now: Option<Timestamp>, limits: &[&[Family]]) -> Option<Duration> {
    let observed = limit_headers::observe(headers, now, limits, &Conventions::NONE);
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

fn longest<const N: usize>(waits: [Option<Duration>; N]) -> Option<Duration> {
    waits.into_iter().flatten().max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::limit_headers::COMMON;
    use reqwest::header::{HeaderName, HeaderValue};
    use serde_json::json;

    /// 2026-11-20 12:00:00 UTC.
    const NOW: Timestamp = Timestamp(1_795_176_000_000);

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
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
        let wait = of_failure(ErrorClass::RateLimit, &reply, &ErrorBody::default(), &[COMMON]);
        assert_eq!(wait, Some(Duration::from_secs(10)));

        let dateless = self::headers(&[("retry-after", "Fri, 20 Nov 2026 12:00:10 GMT")]);
        let reply = WireReply { received_at: Some(NOW), ..WireReply::new(429, &dateless, b"") };
        assert_eq!(
            of_failure(ErrorClass::RateLimit, &reply, &ErrorBody::default(), &[COMMON]),
            Some(Duration::from_secs(10))
        );
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
            of_failure(class, &WireReply::new(429, &headers, b""), &body, &[COMMON]).map(|wait| wait.as_secs())
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
