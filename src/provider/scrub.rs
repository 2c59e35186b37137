//! Removes keys from providers' messages, and shortens them.

use regex::Regex;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// The longest message that is kept, in characters.
pub(super) const MESSAGE_CHARS: usize = 500;

/// The replacement for a key.
pub(super) const REDACTED: &str = "[REDACTED]";

/// Everything that looks like a key: vendors' prefixes, header values, query parameters. Masked keys (`sk-ab***yz`) go
/// as well, because the rest of them still identifies the key.
static KEYS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?ix)
        ( \b(?:x-api-key|x-goog-api-key|api[-_]key|authorization|access_token)["']?\s*[:=]\s*["']?
            (?:bearer\s+|basic\s+)?
          | [?&]key= )
        [^\s"',;&<>]{4,}
        | ( \bbearer\s+ ) [^\s"',;&<>]{8,}
        | \b(?:sk|gsk|fw|tgp_v1)[-_][a-z0-9_*.\-]{8,}
        | \bxai-[a-z0-9_*.\-]{8,}
        | \bAIza[a-z0-9_*\-]{8,}
        | \b(?:AKIA|ASIA)[A-Z0-9]{12,}
        "#,
    )
    .expect("the pattern is fixed and tested")
});

/// Removes everything that looks like a key, collapses white space, and keeps the first [`MESSAGE_CHARS`] characters.
pub(super) fn clean(message: &str) -> String {
    // Enough to work on: a key that straddles the final cut is scrubbed whole before it is cut.
    let head = head(message, MESSAGE_CHARS * 8);
    let scrubbed = KEYS.replace_all(head, |found: &regex::Captures<'_>| {
        format!("{}{REDACTED}", found.get(1).or(found.get(2)).map_or("", |prefix| prefix.as_str()))
    });
    let collapsed = scrubbed.split_whitespace().collect::<Vec<_>>().join(" ").replace('\0', "\u{fffd}");
    let short = self::head(&collapsed, MESSAGE_CHARS);
    if short.len() < collapsed.len() { format!("{}…", self::head(short, MESSAGE_CHARS - 1)) } else { collapsed }
}

/// Puts another text in the place of each in a value that came out of the JSON parser, names included, where `other`
/// has one.
pub(super) fn each_text(value: &mut Value, other: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(other) = other(text) {
                *text = other;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, other)),
        Value::Object(members) => each_text_of(members, other),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The same for the members of an object. Hardly any name is replaced, so they are rarely put together anew.
pub(super) fn each_text_of(members: &mut Map<String, Value>, other: &impl Fn(&str) -> Option<String>) {
    members.values_mut().for_each(|member| each_text(member, other));
    if members.keys().any(|name| other(name).is_some()) {
        let named = |(name, member): (String, Value)| (other(&name).unwrap_or(name), member);
        *members = std::mem::take(members).into_iter().map(named).collect();
    }
}

/// The first `chars` characters.
pub(super) fn head(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_looks_like_a_key_is_taken_out() {
        for (message, expected) in [
            ("Incorrect API key provided: sk-proj-abcDEF123456.", "Incorrect API key provided: [REDACTED]"),
            ("Incorrect API key provided: sk-ab********wxyz. Find", "Incorrect API key provided: [REDACTED] Find"),
            ("key AIzaSyA-1234567890abcdef is bad", "key [REDACTED] is bad"),
            ("got Authorization: Bearer abc.def-ghi", "got Authorization: Bearer [REDACTED]"),
            ("authorization=basic dXNlcjpw", "authorization=basic [REDACTED]"),
            ("the token Bearer 0123456789", "the token Bearer [REDACTED]"),
            (
                "no bearer token; key-value-stores and API key provided",
                "no bearer token; key-value-stores and API key provided",
            ),
            ("header x-api-key: 0123456789", "header x-api-key: [REDACTED]"),
            (r#"{"x-api-key": "0123456789"}"#, r#"{"x-api-key": "[REDACTED]"}"#),
            ("GET /models?key=0123456789&alt=sse", "GET /models?key=[REDACTED]&alt=sse"),
            ("gsk_abcdefgh12345 and xai-abcdefgh12345", "[REDACTED] and [REDACTED]"),
            ("a task-oriented risk-averse message", "a task-oriented risk-averse message"),
            ("limit of tokens reached", "limit of tokens reached"),
        ] {
            assert_eq!(clean(message), expected);
        }
    }

    #[test]
    fn messages_are_shortened_after_scrubbing() {
        let straddling = format!("{} sk-abcdefghijklmnop tail", "x".repeat(490));
        let cleaned = clean(&straddling);
        assert!(!cleaned.contains("sk-"), "{cleaned}");
        assert_eq!(clean(&"é".repeat(2000)).chars().count(), MESSAGE_CHARS);
        assert_eq!(clean("a\n\n  b\0"), "a b\u{fffd}");
    }
}
