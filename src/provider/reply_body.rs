//! Reading JSON bodies that servers write in good and in bad faith.

use crate::domain::bulk::{MOST_MEMBERS, is_too_much};
use crate::domain::{ErrorClass, Failure, Scope};
use serde_json::Value;
use std::fmt::Write as _;

/// Parses the body of an HTTP success.
///
/// # Errors
/// A server error: an empty body, an HTML page (captive portal, CDN) and broken JSON are faults of whoever sent
/// them, and a retry may well help.
pub(super) fn parse(body: &[u8], status: u16) -> Result<Value, Failure> {
    parse_json(body).map_err(|reason| {
        let mut failure =
            Failure::new(ErrorClass::ServerError, Scope::Provider, format!("HTTP {status} with {reason}"));
        failure.status = Some(status);
        failure
    })
}

/// Parses JSON, or says in a few words what the bytes are instead.
pub(super) fn parse_json(body: &[u8]) -> Result<Value, String> {
    if is_too_much(body) {
        return Err(format!("JSON of more than {MOST_MEMBERS} members"));
    }
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(error) => {
            let trimmed = body.trim_ascii();
            if trimmed.is_empty() {
                return Err("an empty body".to_owned());
            }
            if trimmed.starts_with(b"<") {
                return Err("an HTML page instead of JSON".to_owned());
            }
            if let Some(value) = mend_surrogates(trimmed).and_then(|text| serde_json::from_str(&text).ok()) {
                return Ok(value);
            }
            let mut reason =
                if error.is_eof() { "JSON that breaks off".to_owned() } else { "a body that is not JSON".to_owned() };
            // The position only: serde's own words may quote the body.
            let _ = write!(reason, " (line {}, column {})", error.line(), error.column());
            Err(reason)
        }
    }
}

/// Replaces escapes of lone surrogates (half an emoji, cut by a token limit) with U+FFFD, as the rest of the
/// answer was paid for; `None` when there is nothing to mend.
fn mend_surrogates(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let mut mended = String::with_capacity(text.len());
    let mut changed = false;
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match unit(rest) {
            Some(0xD800..=0xDBFF) if matches!(rest.get(6..).and_then(unit), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                changed = true;
                mended.push_str("\\ufffd");
                rest = &rest[6..];
                continue;
            }
            Some(_) => 6,
            // Another escape: the backslash and the character after it.
            None => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
        };
        mended.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    mended.push_str(rest);
    changed.then_some(mended)
}

/// The UTF-16 unit that an escape at the start of `text` stands for.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

/// A token count: whole, not negative, however it is written; `None` when it is missing or no number.
pub(super) fn count(value: &Value, pointer: &str) -> Option<i64> {
    let number = value.pointer(pointer)?;
    #[expect(clippy::cast_possible_truncation, reason = "a saturating cast is what is wanted of an absurd count")]
    number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)).map(|count| count.max(0))
}

/// A non-null string, taken out of the value.
pub(super) fn take_string(value: &mut Value, key: &str) -> Option<String> {
    match value.get_mut(key).map(Value::take) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// The text of a JSON value that may be a string already.
pub(super) fn json_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn half_an_emoji_does_not_lose_the_answer() {
        let check = |body: &str, expected: Value| assert_eq!(parse_json(body.as_bytes()).unwrap(), expected, "{body}");
        check(r#"{"a":"x\ud83d"}"#, json!({"a": "x\u{fffd}"}));
        check(r#"{"a":"\ude00y"}"#, json!({"a": "\u{fffd}y"}));
        check(r#"{"a":"\ud83d\ude00"}"#, json!({"a": "😀"}));
        check(r#"{"a":"\ud83d\ud83d\ude00\\ud83d"}"#, json!({"a": "\u{fffd}😀\\ud83d"}));
    }

    #[test]
    fn what_is_not_json_is_named() {
        let check = |body: &[u8], expected: &str| {
            let failure = parse(body, 200).unwrap_err();
            assert_eq!(failure.class, ErrorClass::ServerError);
            assert!(failure.message.contains(expected), "{}", failure.message);
        };
        check(b"", "an empty body");
        check(b" \n", "an empty body");
        check(b"<!DOCTYPE html><html>", "an HTML page");
        check(b"upstream error", "not JSON");
        check(b"{\"a\": \"\xff\"}", "not JSON");
        check(b"{\"choices\": [", "breaks off");
    }

    #[test]
    fn counts_are_whole_and_not_negative() {
        let usage = json!({"a": 3, "b": 4.0, "c": -1, "d": "5", "e": null, "f": 1e30});
        let counts = ["/a", "/b", "/c", "/d", "/e", "/f", "/g"].map(|pointer| count(&usage, pointer));
        assert_eq!(counts, [Some(3), Some(4), Some(0), None, None, Some(i64::MAX), None]);
    }
}
