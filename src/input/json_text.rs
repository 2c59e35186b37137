//! JSON that is valid and yet cannot be stored as `jsonb`.

use serde_json::Value;

/// The most characters of a number, and of the digits of its exponent: far beyond any request, and within what Postgres
/// stores (it refuses `1e-20000`, which is valid JSON).
const NUMBER_LENGTH: usize = 1_000;
const EXPONENT_DIGITS: usize = 3;

/// The column (from 1, in bytes) of a number that Postgres cannot store. `text` has to be valid JSON.
pub(super) fn unstorable_number(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let rest = bytes.get(at..).unwrap_or_default();
                let length = rest.iter().take_while(|byte| is_of_number(**byte)).count().max(1);
                if is_unstorable(rest.get(..length).unwrap_or_default()) {
                    return Some(at + 1);
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

/// The index just after the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')
}

fn is_unstorable(number: &[u8]) -> bool {
    if number.len() > NUMBER_LENGTH {
        return true;
    }
    let exponent = number.iter().skip_while(|byte| !matches!(byte, b'e' | b'E')).skip(1);
    let significant = exponent.skip_while(|byte| matches!(byte, b'+' | b'-' | b'0')).count();
    significant > EXPONENT_DIGITS
}

/// Whether a string in `text` has NUL, written with the only escape that JSON has for it.
pub(super) fn has_nul(text: &str) -> bool {
    text.match_indices("\\u0000").any(|(at, _)| {
        let before = text.as_bytes().get(..at).unwrap_or_default();
        // An odd number of backslashes before it: this one is itself escaped.
        before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
    })
}

/// The path of a string or a member's name that contains NUL, which Postgres cannot store; empty for the value itself.
pub(super) fn path_of_nul(value: &Value) -> Option<String> {
    nul_below(value).map(|path| path.strip_prefix('.').map(str::to_owned).unwrap_or(path))
}

/// The same, as the end of a path: `.body.messages[1]`.
fn nul_below(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| nul_below(item).map(|below| format!("[{index}]{below}")))
        }
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            if name.contains('\0') {
                return Some(format!(".{}", name.replace('\0', "\\u0000")));
            }
            nul_below(member).map(|below| format!(".{name}{below}"))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_that_postgres_refuses_are_found_outside_strings_only() {
        for (text, column) in [
            (r#"{"a":1.5e10,"b":-0.25,"c":[1,2,3]}"#, None),
            (r#"{"a":"1e-20000","b":"\"1e99999"}"#, None),
            (r#"{"a":1e-20000}"#, Some(6)),
            (r"[0e99999]", Some(2)),
            (r"[1e-0005, 1E+000999]", None),
            (r"[1,1e-1000]", Some(4)),
        ] {
            assert_eq!(unstorable_number(text), column, "{text}");
        }
        assert_eq!(unstorable_number(&format!("[0.{}1]", "0".repeat(NUMBER_LENGTH))), Some(2));
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_no_nul() {
        for (text, expected) in
            [(r#""\u0000""#, true), (r#""\\u0000""#, false), (r#""\\\u0000""#, true), ("u0000", false)]
        {
            assert_eq!(has_nul(text), expected, "{text}");
        }
    }

    #[test]
    fn a_nul_is_found_by_its_path() {
        for (value, path) in [
            (json!({"body": {"messages": [{"content": "a"}, {"content": "\0"}]}}), Some("body.messages[1].content")),
            (json!({"a": {"b\0": 1}}), Some("a.b\\u0000")),
            (json!("\0"), Some("")),
            (json!({"a": [["x"], 1, null, true]}), None),
        ] {
            assert_eq!(path_of_nul(&value).as_deref(), path, "{value}");
        }
    }
}
