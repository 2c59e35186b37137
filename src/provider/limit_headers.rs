//! Limits, as providers publish them in the headers of their answers.

use super::durations;
use super::error_body::ErrorBody;
use super::wire::WireReply;
use crate::domain::{Timestamp, Unit};
use reqwest::header::HeaderMap;
use std::time::Duration;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_mins(1);
pub(super) const DAY: Duration = Duration::from_hours(24);
/// Length of a monthly quota: thirty days, good enough for pacing.
pub(super) const MONTH: Duration = Duration::from_hours(30 * 24);

/// The facts that one family of headers reports about one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitObservation {
    pub unit: Unit,
    /// The amount when nothing is used up.
    pub limit: Option<u64>,
    /// The amount that is left.
    pub remaining: Option<u64>,
    /// How long until it is full again, counted from the answer. Zero when that instant has passed.
    pub reset_in: Option<Duration>,
    /// The time in which `limit` refills, where the provider is known to mean it so; `None`: not said.
    pub per: Option<Duration>,
    /// A separate pool that the limit belongs to (`project`, `priority`, `fast`); `None`: the ordinary one.
    pub pool: Option<&'static str>,
}

/// A provider's meaning of header names that others use differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conventions {
    /// The window of `x-ratelimit-limit-requests`; a day at Groq.
    pub requests_per: Option<Duration>,
    /// The window of `x-ratelimit-limit-tokens`.
    pub tokens_per: Option<Duration>,
    /// The window of `x-ratelimit-limit` and `x-tokenlimit-limit`; a second at Together.
    pub plain_per: Option<Duration>,
}

impl Conventions {
    /// No convention is known.
    pub const NONE: Self = Self { requests_per: None, tokens_per: None, plain_per: None };
}

/// Where the window of a family comes from.
#[derive(Clone, Copy)]
pub(super) enum Window {
    Known(Duration),
    OfRequests,
    OfTokens,
    Plain,
    Unsaid,
}

/// The names of one limit's three headers; an empty name means that there is no such header.
pub struct Family {
    pub(super) unit: Unit,
    pub(super) limit: &'static str,
    pub(super) remaining: &'static str,
    pub(super) reset: &'static str,
    pub(super) window: Window,
    pub(super) pool: Option<&'static str>,
}

/// Names of the form `x-ratelimit-{limit,remaining,reset}-WHAT`.
macro_rules! openai {
    ($unit:ident, $what:literal, $window:expr, $pool:expr) => {
        Family {
            unit: Unit::$unit,
            limit: concat!("x-ratelimit-limit-", $what),
            remaining: concat!("x-ratelimit-remaining-", $what),
            reset: concat!("x-ratelimit-reset-", $what),
            window: $window,
            pool: $pool,
        }
    };
}

/// Names of the form `PREFIX-{limit,remaining,reset}`.
macro_rules! suffixed {
    ($unit:ident, $prefix:literal, $window:expr, $pool:expr) => {
        Family {
            unit: Unit::$unit,
            limit: concat!($prefix, "-limit"),
            remaining: concat!($prefix, "-remaining"),
            reset: concat!($prefix, "-reset"),
            window: $window,
            pool: $pool,
        }
    };
}

pub(super) use suffixed;

/// Names that servers of several vendors, and gateways before them, have in common, or that are unambiguous.
pub const COMMON: &[Family] = &[
    // OpenAI, Azure (whole seconds), Groq, xAI, Fireworks.
    openai!(Requests, "requests", Window::OfRequests, None),
    openai!(Tokens, "tokens", Window::OfTokens, None),
    openai!(InputTokens, "input-tokens", Window::OfTokens, None),
    openai!(OutputTokens, "output-tokens", Window::OfTokens, None),
    openai!(Tokens, "project-tokens", Window::OfTokens, Some("project")),
    openai!(Requests, "project-requests", Window::OfRequests, Some("project")),
    openai!(InputTokens, "tokens-prompt", Window::Unsaid, None),
    openai!(InputTokens, "tokens-cache-adjusted-prompt", Window::Unsaid, Some("cache_adjusted")),
    openai!(OutputTokens, "tokens-generated", Window::Unsaid, None),
    // Mistral; "size" is tokens.
    openai!(Requests, "req-minute", Window::Known(MINUTE), None),
    suffixed!(Tokens, "ratelimitbysize", Window::Unsaid, None),
    Family {
        unit: Unit::Tokens,
        limit: "x-ratelimitbysize-limit-minute",
        remaining: "x-ratelimitbysize-remaining-minute",
        reset: "",
        window: Window::Known(MINUTE),
        pool: None,
    },
    Family {
        unit: Unit::Tokens,
        limit: "x-ratelimitbysize-limit-month",
        remaining: "x-ratelimitbysize-remaining-month",
        reset: "",
        window: Window::Known(MONTH),
        pool: None,
    },
    // Together (per second), OpenRouter (reset in epoch milliseconds), and all that follow the IETF draft.
    suffixed!(Requests, "x-ratelimit", Window::Plain, None),
    suffixed!(Tokens, "x-tokenlimit", Window::Plain, None),
    suffixed!(Requests, "ratelimit", Window::Unsaid, None),
];

/// Every limit that the headers report, in a fixed order. Values that are not numbers are left out.
///
/// `now` is the answer's `Date`, or when the answer came: resets given as instants need it.
#[must_use]
pub fn observe(
    headers: &HeaderMap,
    now: Option<Timestamp>,
    families: &[&[Family]],
    conventions: &Conventions,
) -> Vec<LimitObservation> {
    if !may_tell(headers) {
        return Vec::new();
    }
    families.iter().copied().flatten().filter_map(|family| family.observe(headers, now, conventions)).collect()
}

/// Whether there is a header that may tell of a limit. Most answers of most providers carry none, and this is asked
/// once for each call.
fn may_tell(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().contains("limit") || name.as_str().starts_with("anthropic-"))
}

/// The same for a whole answer: from its headers, and from those that the body of a refusal quotes.
#[must_use]
pub(super) fn of_reply(
    reply: &WireReply<'_>,
    families: &[&[Family]],
    conventions: &Conventions,
) -> Vec<LimitObservation> {
    // The time is read only where it is needed.
    let mut seen = if may_tell(reply.headers) {
        observe(reply.headers, reply.sent_at(), families, conventions)
    } else {
        Vec::new()
    };
    if reply.status == 429 && seen.is_empty() {
        seen = observe(&ErrorBody::read(reply.body).headers, reply.sent_at(), families, conventions);
    }
    seen
}

impl Family {
    fn observe(&self, headers: &HeaderMap, now: Option<Timestamp>, by: &Conventions) -> Option<LimitObservation> {
        let text = |name: &str| if name.is_empty() { None } else { headers.get(name)?.to_str().ok() };
        // A limit of zero would refuse every request for good; servers that send it mean that there is no limit.
        let limit = text(self.limit).and_then(amount).filter(|&limit| limit > 0);
        let remaining = text(self.remaining).and_then(amount);
        let reset_in = text(self.reset).and_then(|text| durations::parse_any(text, now));
        let per = match self.window {
            Window::Known(window) => Some(window),
            Window::OfRequests => by.requests_per,
            Window::OfTokens => by.tokens_per,
            Window::Plain => by.plain_per,
            Window::Unsaid => None,
        };
        (limit.is_some() || remaining.is_some() || reset_in.is_some()).then_some(LimitObservation {
            unit: self.unit,
            limit,
            remaining,
            reset_in,
            per,
            pool: self.pool,
        })
    }
}

/// A whole amount; an overdrawn one counts as nothing left.
fn amount(text: &str) -> Option<u64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded and not negative")]
        (number.is_finite() && number < 1e18).then(|| number.max(0.0) as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::vendors;
    use reqwest::header::{HeaderName, HeaderValue};

    /// 2026-11-20 12:00:00 UTC.
    const NOW: Timestamp = Timestamp(1_795_176_000_000);

    type Row = (Unit, Option<u64>, Option<u64>, Option<u64>, Option<u64>, Option<&'static str>);

    /// Unit, limit, remaining, reset in milliseconds, window in seconds, pool.
    fn check(name: &str, conventions: Conventions, pairs: &[(&'static str, &'static str)], expected: &[Row]) {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let rows: Vec<Row> = observe(&headers, Some(NOW), crate::provider::openai::limits::LIMITS, &conventions)
            .into_iter()
            .map(|seen| {
                let reset = seen.reset_in.map(|reset| u64::try_from(reset.as_millis()).unwrap());
                (seen.unit, seen.limit, seen.remaining, reset, seen.per.map(|per| per.as_secs()), seen.pool)
            })
            .collect();
        assert_eq!(rows, expected, "{name}");
    }

    #[test]
    fn every_family_is_read() {
        use Unit::{InputTokens, OutputTokens, Requests, Tokens};
        let openai = [
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-reset-requests", "6ms"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-remaining-tokens", "1999000"),
            ("x-ratelimit-reset-tokens", "1h2m3s"),
        ];
        let none = Conventions::NONE;
        check(
            "OpenAI",
            none,
            &openai,
            &[
                (Requests, Some(10_000), Some(9_999), Some(6), None, None),
                (Tokens, Some(2_000_000), Some(1_999_000), Some(3_723_000), None, None),
            ],
        );
        check(
            "Groq",
            vendors::named("groq").unwrap().limits,
            &openai,
            &[
                (Requests, Some(10_000), Some(9_999), Some(6), Some(86_400), None),
                (Tokens, Some(2_000_000), Some(1_999_000), Some(3_723_000), Some(60), None),
            ],
        );
        check(
            "OpenAI, per project and by direction",
            none,
            &[
                ("x-ratelimit-limit-project-tokens", "500"),
                ("x-ratelimit-limit-input-tokens", "300"),
                ("x-ratelimit-remaining-output-tokens", "200"),
            ],
            &[
                (InputTokens, Some(300), None, None, None, None),
                (OutputTokens, None, Some(200), None, None, None),
                (Tokens, Some(500), None, None, None, Some("project")),
            ],
        );
        check(
            "Azure",
            none,
            &[
                ("x-ratelimit-remaining-requests", "9"),
                ("x-ratelimit-reset-requests", "17"),
                ("x-ratelimit-renewalperiod-requests", "60"),
            ],
            &[(Requests, None, Some(9), Some(17_000), None, None)],
        );
        check(
            "Anthropic",
            none,
            &[
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", "49"),
                ("anthropic-ratelimit-requests-reset", "2026-11-20T12:00:01Z"),
                ("anthropic-ratelimit-input-tokens-limit", "50000"),
                ("anthropic-ratelimit-output-tokens-remaining", "8000"),
                ("anthropic-ratelimit-output-tokens-reset", "2026-11-20T11:59:00Z"),
                ("anthropic-priority-input-tokens-limit", "7"),
                ("anthropic-fast-output-tokens-limit", "8"),
            ],
            &[
                (Requests, Some(50), Some(49), Some(1_000), Some(60), None),
                (InputTokens, Some(50_000), None, None, Some(60), None),
                (OutputTokens, None, Some(8_000), Some(0), Some(60), None),
                (InputTokens, Some(7), None, None, Some(60), Some("priority")),
                (OutputTokens, Some(8), None, None, Some(60), Some("fast")),
            ],
        );
        check(
            "Mistral",
            none,
            &[
                ("ratelimitbysize-limit", "500000"),
                ("ratelimitbysize-remaining", "499000"),
                ("ratelimitbysize-reset", "28"),
                ("x-ratelimitbysize-limit-minute", "500000"),
                ("x-ratelimitbysize-remaining-month", "999"),
                ("x-ratelimit-limit-req-minute", "60"),
                ("x-ratelimit-remaining", "59"),
            ],
            &[
                (Requests, Some(60), None, None, Some(60), None),
                (Tokens, Some(500_000), Some(499_000), Some(28_000), None, None),
                (Tokens, Some(500_000), None, None, Some(60), None),
                (Tokens, None, Some(999), None, Some(2_592_000), None),
                (Requests, None, Some(59), None, None, None),
            ],
        );
        check(
            "Together",
            vendors::named("together").unwrap().limits,
            &[
                ("x-ratelimit-limit", "10"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1"),
                ("x-tokenlimit-limit", "3000"),
                ("x-tokenlimit-remaining", "2500.0"),
            ],
            &[
                (Requests, Some(10), Some(0), Some(1_000), Some(1), None),
                (Tokens, Some(3_000), Some(2_500), None, Some(1), None),
            ],
        );
        check(
            "Fireworks",
            none,
            &[
                ("x-ratelimit-limit-tokens-prompt", "60000"),
                ("x-ratelimit-remaining-tokens-generated", "4000"),
                ("x-ratelimit-limit-tokens-cache-adjusted-prompt", "50000"),
                ("x-ratelimit-over-limit", "yes"),
            ],
            &[
                (InputTokens, Some(60_000), None, None, None, None),
                (InputTokens, Some(50_000), None, None, None, Some("cache_adjusted")),
                (OutputTokens, None, Some(4_000), None, None, None),
            ],
        );
        check(
            "OpenRouter",
            none,
            &[("x-ratelimit-limit", "20"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795176030000")],
            &[(Requests, Some(20), Some(0), Some(30_000), None, None)],
        );
        check(
            "IETF",
            none,
            &[("ratelimit-limit", "100"), ("ratelimit-remaining", "3"), ("ratelimit-reset", "50")],
            &[(Requests, Some(100), Some(3), Some(50_000), None, None)],
        );
        check(
            "overdrawn and nonsense",
            none,
            &[
                ("x-ratelimit-remaining-tokens", "-5"),
                ("x-ratelimit-limit-requests", "many"),
                ("x-ratelimit-reset-requests", "-1s"),
            ],
            &[(Tokens, None, Some(0), None, None, None)],
        );
        check("none", none, &[("content-type", "application/json")], &[]);
    }
}
