//! Headers that a server names in its own way: read as those of the common names.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use std::borrow::Cow;

/// The names of a server's own headers; `None`: it has the common ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnHeaders {
    /// How long to wait: seconds, a duration with units, a date, an instant. A bare number under a name that ends with
    /// `-ms` is milliseconds.
    pub wait: Option<HeaderName>,
    /// Its id of the request.
    pub request_id: Option<HeaderName>,
    /// The cost of the answer in dollars.
    pub cost: Option<HeaderName>,
    /// The limit of requests, what is left of it, and when it is whole again.
    pub requests: OwnLimit,
    /// The same of tokens.
    pub tokens: OwnLimit,
}

/// The headers of one limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnLimit {
    pub limit: Option<HeaderName>,
    pub remaining: Option<HeaderName>,
    pub reset: Option<HeaderName>,
}

impl OwnHeaders {
    /// The headers of an answer, with the server's own under the common names beside them. Its own word counts, where
    /// an answer has both; of two waits the longer one.
    pub(super) fn in_common<'a>(&self, headers: &'a HeaderMap) -> Cow<'a, HeaderMap> {
        let named = [
            (&self.request_id, "x-request-id"),
            (&self.cost, COST),
            (&self.requests.limit, "x-ratelimit-limit-requests"),
            (&self.requests.remaining, "x-ratelimit-remaining-requests"),
            (&self.requests.reset, "x-ratelimit-reset-requests"),
            (&self.tokens.limit, "x-ratelimit-limit-tokens"),
            (&self.tokens.remaining, "x-ratelimit-remaining-tokens"),
            (&self.tokens.reset, "x-ratelimit-reset-tokens"),
        ];
        let mut common = Cow::Borrowed(headers);
        for (own, name) in named {
            if let Some(value) = own.as_ref().and_then(|own| headers.get(own)) {
                common.to_mut().insert(HeaderName::from_static(name), value.clone());
            }
        }
        if let Some(own) = &self.wait {
            for value in headers.get_all(own) {
                common.to_mut().append(RETRY_AFTER, with_unit(own, value));
            }
        }
        common
    }
}

/// Where a gateway's cost is read.
const COST: &str = "x-litellm-response-cost";

/// A number too large to be a wait is an instant, which is told from milliseconds and seconds by its size.
const INSTANT: f64 = 1e9;

/// The value with its unit, where the name of its header says that it is milliseconds.
fn with_unit(name: &HeaderName, value: &HeaderValue) -> HeaderValue {
    let millis = || {
        let number: f64 = value.to_str().ok()?.trim().parse().ok()?;
        let last = name.as_str().rsplit(['-', '_']).next().unwrap_or_default();
        let is_millis = matches!(last, "ms" | "msec" | "millis" | "milliseconds");
        (is_millis && (0.0..INSTANT).contains(&number)).then(|| format!("{number}ms"))
    };
    millis().and_then(|text| text.parse().ok()).unwrap_or_else(|| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Timestamp, Unit};
    use crate::provider::checks::spoken;
    use crate::provider::quirks::QuirkSettings;
    use crate::provider::wait_hint;
    use crate::provider::wire::WireReply;
    use std::time::Duration;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn own(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }

    #[test]
    fn a_wait_is_told_by_its_form() {
        // 2026-11-20 12:00:00 UTC.
        let now = Some(Timestamp(1_795_176_000_000));
        for (name, value, millis) in [
            ("x-slow-down", "7", Some(7_000)),
            ("x-slow-down", "1.5", Some(1_500)),
            ("x-slow-down", "250ms", Some(250)),
            ("x-slow-down", "1m2s", Some(62_000)),
            ("x-slow-down", "Fri, 20 Nov 2026 12:00:10 GMT", Some(10_000)),
            ("x-slow-down", "2026-11-20T12:00:09Z", Some(9_000)),
            ("x-slow-down", "1795176030", Some(30_000)),
            ("x-items", "7", Some(7_000)),
            ("x-slow-down-ms", "1500", Some(1_500)),
            ("x_wait_millis", "20", Some(20)),
            ("x-slow-down-ms", "1795176030000", Some(30_000)),
            ("x-slow-down-ms", "Fri, 20 Nov 2026 12:00:10 GMT", Some(10_000)),
            ("x-slow-down-ms", "soon", None),
            ("x-slow-down", "-3", None),
        ] {
            let names = OwnHeaders { wait: Some(own(name)), ..OwnHeaders::default() };
            let given = headers(&[(name, value)]);
            let wait = wait_hint::of_headers(&names.in_common(&given), now);
            assert_eq!(wait, millis.map(Duration::from_millis), "{name}: {value}");
        }
        let both = headers(&[("x-slow-down", "2"), ("retry-after", "9")]);
        let names = OwnHeaders { wait: Some(own("x-slow-down")), ..OwnHeaders::default() };
        assert_eq!(wait_hint::of_headers(&names.in_common(&both), now), Some(Duration::from_secs(9)));
    }

    #[test]
    fn limits_are_read_under_their_own_names() {
        let limit = |limit, remaining, reset| OwnLimit {
            limit: Some(own(limit)),
            remaining: Some(own(remaining)),
            reset: Some(own(reset)),
        };
        let names = OwnHeaders {
            requests: limit("x-calls", "x-calls-left", "x-calls-again"),
            tokens: OwnLimit { remaining: Some(own("x-tokens-left")), ..OwnLimit::default() },
            ..OwnHeaders::default()
        };
        let given = headers(&[
            ("x-calls", "60"),
            ("x-calls-left", "0"),
            ("x-calls-again", "20"),
            ("x-tokens-left", "900"),
            ("x-ratelimit-remaining-requests", "59"),
        ]);
        for dialect in ["openai", "anthropic", "gemini", "cohere", "ollama", "bedrock", "openai_responses"] {
            let adapter = spoken(dialect, None, "http://127.0.0.1/v1", &QuirkSettings::default());
            let common = names.in_common(&given);
            let seen: Vec<_> = adapter
                .limits(&WireReply::new(200, &common, b""))
                .iter()
                .map(|seen| (seen.unit, seen.limit, seen.remaining, seen.reset_in))
                .collect();
            let expected = [
                (Unit::Requests, Some(60), Some(0), Some(Duration::from_secs(20))),
                (Unit::Tokens, None, Some(900), None),
            ];
            assert_eq!(seen, expected, "{dialect}");
        }
    }

    #[test]
    fn headers_without_own_names_are_not_copied() {
        let given = headers(&[("retry-after", "1")]);
        assert!(matches!(OwnHeaders::default().in_common(&given), Cow::Borrowed(_)));
        let names = OwnHeaders { wait: Some(own("x-none")), ..OwnHeaders::default() };
        assert!(matches!(names.in_common(&given), Cow::Borrowed(_)));
    }
}
