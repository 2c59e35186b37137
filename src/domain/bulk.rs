//! How much memory JSON takes once it has been read, judged by its text beforehand.

/// The most members and elements that a document may have. A text of 32 MB can have 16 million, which take half a
/// gigabyte; no request and no answer of a model comes near two million.
pub const MOST_MEMBERS: usize = 2_000_000;

/// The bytes that an element or a member takes beside its text.
const MEMBER_BYTES: usize = 100;

/// The number of members and elements of all objects and arrays in a JSON text, not counting the first of each. A text
/// that is not JSON gets a number too.
#[must_use]
pub fn members(text: &[u8]) -> usize {
    let (mut members, mut rest) = (0, text);
    while !rest.is_empty() {
        let outside = rest.iter().position(|byte| *byte == b'"').unwrap_or(rest.len());
        let (before, after) = rest.split_at(outside);
        members += before.iter().map(|byte| usize::from(*byte == b',')).sum::<usize>();
        rest = behind_string(after.get(1..).unwrap_or_default());
    }
    members
}

/// The text behind the string whose inside this one begins with.
fn behind_string(mut text: &[u8]) -> &[u8] {
    let is_sign = |byte: &u8| matches!(byte, b'"' | b'\\');
    // In chunks, because the comparison of all bytes of one takes a few instructions.
    let has_sign = |chunk: &[u8]| chunk.iter().fold(false, |has, byte| has | is_sign(byte));
    loop {
        let plain = text.chunks(32).take_while(|chunk| !has_sign(chunk)).map(<[u8]>::len).sum();
        text = text.get(plain..).unwrap_or_default();
        match text.iter().position(is_sign) {
            Some(at) if text.get(at) == Some(&b'"') => return text.get(at + 1..).unwrap_or_default(),
            Some(at) => text = text.get(at + 2..).unwrap_or_default(),
            None => return &[],
        }
    }
}

/// Whether a text would be too much when read as JSON.
#[must_use]
pub fn is_too_much(text: &[u8]) -> bool {
    // A shorter text cannot have that many.
    text.len() > MOST_MEMBERS && members(text) > MOST_MEMBERS
}

/// About how many bytes a JSON text takes in memory once it has been read: the text as written, and the parsed value.
#[must_use]
pub fn weight(text: &str) -> usize {
    text.len().saturating_mul(2).saturating_add(members(text.as_bytes()).saturating_mul(MEMBER_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// The number of commas that separate something.
    fn commas(value: &Value) -> usize {
        match value {
            Value::Array(items) => items.len().saturating_sub(1) + items.iter().map(commas).sum::<usize>(),
            Value::Object(members) => members.len().saturating_sub(1) + members.values().map(commas).sum::<usize>(),
            _ => 0,
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), ".*".prop_map(Value::from)];
        leaf.prop_recursive(4, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((".*", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn commas_in_texts_separate_nothing(value in any_json()) {
            prop_assert_eq!(members(value.to_string().as_bytes()), commas(&value));
        }
    }

    #[test]
    fn what_is_no_json_is_counted_without_harm() {
        for (text, expected) in [("", 0), (",,", 2), ("\"\\", 0), ("\"a\\\",\",", 1), ("\\,", 1)] {
            assert_eq!(members(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(weight("[1,2]"), 110);
    }
}
