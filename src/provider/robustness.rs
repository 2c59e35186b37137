//! Properties: for any reply of a server, no code panics, and everything that is kept of it stays within bounds.

use super::checks::spoken;
use super::quirks::QuirkSettings;
use super::vendors::VENDORS;
use super::wire::{Delivery, WireReply};
use super::{durations, limit_headers, openai, scrub, wait_hint};
use crate::domain::Timestamp;
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

/// Words that the adapters look for, so that arbitrary bodies reach the code behind them.
const WORDS: &[&str] = &[
    "error",
    "choices",
    "message",
    "content",
    "finish_reason",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "id",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "cached_tokens",
    "completion_tokens_details",
    "reasoning_tokens",
    "type",
    "text",
    "thinking",
    "stop_reason",
    "input",
    "input_tokens",
    "output_tokens",
    "cache_creation",
    "cache_creation_input_tokens",
    "ephemeral_1h_input_tokens",
    "candidates",
    "parts",
    "finishReason",
    "functionCall",
    "args",
    "usageMetadata",
    "promptTokenCount",
    "cachedContentTokenCount",
    "thoughtsTokenCount",
    "promptFeedback",
    "blockReason",
    "code",
    "status",
    "details",
    "metadata",
    "raw",
    "reason",
    "retryDelay",
    "violations",
    "quotaId",
    "availability",
    "retry_after",
    "detail",
    "msg",
    "loc",
    "innererror",
    "object",
    "tool_use",
    "refusal",
    "model",
];

const PHRASES: &[&str] = &[
    "try again in ",
    "Please retry in ",
    "10h17m5.72s",
    "46s",
    "Limit 30000, Requested 45000",
    "limit: 0",
    "é",
    "error",
    "rate_limit_exceeded",
    "2026-12-01",
    "regain access on ",
    " sk-abcdefghijklmnop",
    "PerDay",
    "stop",
    "\u{0}",
    "\\ud83d",
    "current length is",
    "while limit is",
];

const HEADERS: &[&str] = &[
    "date",
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "anthropic-ratelimit-tokens-reset",
    "x-ratelimit-reset",
    "ratelimitbysize-reset",
    "x-request-id",
];

fn phrase() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![prop::sample::select(PHRASES).prop_map(str::to_owned), any::<String>(), "[0-9.hms,: -]{0,12}"];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        phrase().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let key = prop::sample::select(WORDS).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6).prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => json().prop_map(|value| value.to_string().into_bytes()),
        1 => (json(), any::<prop::sample::Index>()).prop_map(|(value, cut)| {
            let mut bytes = value.to_string().into_bytes();
            bytes.truncate(cut.index(bytes.len() + 1));
            bytes
        }),
        1 => phrase().prop_map(String::into_bytes),
        1 => any::<Vec<u8>>(),
    ]
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    let value = prop_oneof![
        phrase().prop_map(String::into_bytes),
        any::<Vec<u8>>(),
        "[0-9]{1,20}".prop_map(String::into_bytes)
    ];
    prop::collection::vec((prop::sample::select(HEADERS), value), 0..5).prop_map(|pairs| {
        pairs
            .into_iter()
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?)))
            .collect()
    })
}

proptest! {
    #[test]
    fn any_reply_is_an_answer_or_a_failure(
        status in prop_oneof![
            Just(200_u16), prop::sample::select(&[400_u16, 401, 413, 429, 500, 529][..]), any::<u16>(),
        ],
        headers in headers(),
        body in body(),
        received_at in any::<Option<i64>>(),
    ) {
        let reply = WireReply { received_at: received_at.map(Timestamp), ..WireReply::new(status, &headers, &body) };
        let speakers = VENDORS.iter().map(|vendor| (vendor.dialect.name, Some(vendor.name))).chain([("openai", None)]);
        for (dialect, vendor) in speakers {
            for (delivery, is_partial) in
                [(Delivery::Whole, false), (Delivery::Stream, false), (Delivery::Stream, true)]
            {
                let reply = WireReply { delivery, is_partial, ..reply };
                let adapter = spoken(dialect, vendor, "http://localhost", &QuirkSettings::default());
                match adapter.decode(&reply) {
                    Ok(answer) => {
                        let usage = answer.usage;
                        let counts = [usage.input, usage.cache_read, usage.cache_write, usage.cache_write_1h,
                            usage.output, usage.reasoning];
                        prop_assert!(counts.iter().all(|count| *count >= 0), "{usage:?}");
                        prop_assert!((200..300).contains(&status));
                    }
                    Err(failure) => {
                        prop_assert!(failure.message.chars().count() <= scrub::MESSAGE_CHARS);
                        prop_assert!(!failure.message.contains(" sk-abcdefgh"), "{}", failure.message);
                        prop_assert!(!failure.message.contains('\0'));
                        prop_assert_eq!(failure.status, Some(status));
                        prop_assert!(failure.wait.is_none_or(|wait| !wait.is_zero()));
                    }
                }
                let _ = adapter.usage_of(&reply);
                let _ = adapter.limits(&reply);
            }
        }
    }

    #[test]
    fn any_text_is_a_wait_or_none(text in phrase(), now in any::<Option<i64>>()) {
        let now = now.map(Timestamp);
        let wait = durations::parse(&text, now).into_iter().chain(wait_hint::of_message(&text, now)).max();
        prop_assert!(wait.is_none_or(|wait| !wait.is_zero()));
        prop_assert!(now.is_none_or(|now| wait.is_none_or(|wait| now + wait >= now)), "a wait never overflows");
    }

    #[test]
    fn any_headers_are_limits_or_none(headers in headers(), now in any::<Option<i64>>()) {
        let _ = limit_headers::observe(&headers, now.map(Timestamp), openai::limits::LIMITS,
            &limit_headers::Conventions::NONE);
        let _ = wait_hint::of_headers(&headers, now.map(Timestamp));
    }

    #[test]
    fn a_wait_in_seconds_is_honoured_to_the_millisecond(millis in 1_u64..1_000_000_000) {
        let seconds = format!("{}.{:03}", millis / 1000, millis % 1000);
        let whole = std::time::Duration::from_millis(millis);
        for text in [seconds.clone(), format!("{seconds}s"), format!("{millis}ms")] {
            let wait = durations::parse(&text, None).unwrap();
            // Never too early, and at most a millisecond late.
            prop_assert!(wait >= whole && wait <= whole + std::time::Duration::from_millis(1), "{text}: {wait:?}");
        }
    }
}
