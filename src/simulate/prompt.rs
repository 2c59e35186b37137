//! The prompt of a call in any dialect: its hash, its length, its text.
//!
//! Tokens are counted as characters (Unicode scalar values) divided by four, rounded up, at least one. No model's
//! tokenizer counts like that, but a test can recompute it.

use super::chance::mix;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Tokens of a text: characters / 4, rounded up, zero for an empty text.
#[must_use]
pub fn count_tokens(text: &str) -> u64 {
    count_chars(text).div_ceil(4)
}

fn count_chars(text: &str) -> u64 {
    // Continuation bytes are not counted: the same as `chars().count()`, and vectorised.
    text.bytes().map(|byte| u64::from(byte & 0xc0 != 0x80)).sum()
}

/// Hashes a conversation so that the same request has the same hash in every dialect.
///
/// First the text of the system prompt, then the texts of the conversation in order, without roles and without ASCII
/// white space, because dialects place the system prompt differently, merge messages and name roles differently.
#[derive(Clone, Debug)]
pub struct PromptHash {
    hash: u64,
    chars: u64,
}

impl Default for PromptHash {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, chars: 0 }
    }
}

impl PromptHash {
    /// Adds the next text.
    pub fn text(&mut self, text: &str) {
        for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.chars += count_chars(text);
    }

    /// The hash.
    #[must_use]
    pub fn finish(&self) -> u64 {
        mix(self.hash, 0)
    }

    /// The input tokens of all texts together.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.chars.div_ceil(4).max(1)
    }
}

/// The hash under which the verdict counts a request: `system` may be empty.
#[must_use]
pub fn request_hash(system: &str, conversation: &[&str]) -> u64 {
    let mut hash = PromptHash::default();
    hash.text(system);
    for text in conversation {
        hash.text(text);
    }
    hash.finish()
}

/// Text as dialects write it: a string, an array of parts with a `text`, or null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> de::Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of parts")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let mut whole = Text::default();
                while let Some(Part(text)) = parts.next_element()? {
                    if whole.0.is_empty() {
                        whole = text;
                    } else {
                        whole.0.to_mut().push_str(&text.0);
                    }
                }
                Ok(whole)
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

/// One part of a text: an object whose `text` (or nested `content`) counts; images and the like count for nothing.
#[derive(Default)]
struct Part<'a>(Text<'a>);

impl<'de: 'a, 'a> de::Deserialize<'de> for Part<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartVisitor;

        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Part<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part of a message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let mut part = Part::default();
                while let Some(field) = fields.next_key::<Cow<'de, str>>()? {
                    if matches!(field.as_ref(), "text" | "content") {
                        part.0 = fields.next_value()?;
                    } else {
                        fields.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(part)
            }
        }

        deserializer.deserialize_map(PartVisitor)
    }
}

/// A conversation: its system texts and its messages in order, and which message is the last of the user.
pub(crate) fn conversation<'a>(system: &[&str], mut messages: Vec<(bool, Text<'a>)>) -> (u64, u64, Cow<'a, str>) {
    let mut hash = PromptHash::default();
    for text in system {
        hash.text(text);
    }
    for (_, text) in &messages {
        hash.text(&text.0);
    }
    let last = messages.iter().rposition(|(is_user, _)| *is_user);
    let last_user = last.map(|index| messages.swap_remove(index).1.0).unwrap_or_default();
    (hash.finish(), hash.tokens(), last_user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_a_quarter_of_the_characters_rounded_up() {
        for (text, tokens) in [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("äöüß", 1), ("日本語です", 2)] {
            assert_eq!(count_tokens(text), tokens, "{text}");
        }
    }

    #[test]
    fn the_hash_knows_texts_and_not_their_layout() {
        let hash = request_hash("Be brief.", &["Hello there", "Hi"]);
        assert_eq!(hash, request_hash("Be brief.", &["Hello there\n\nHi"]));
        assert_ne!(hash, request_hash("Be brief.", &["Hello there", "Ho"]));
        assert_ne!(request_hash("", &["a"]), request_hash("", &["b"]));
    }

    #[test]
    fn text_may_be_a_string_an_array_of_parts_or_null() {
        for (json, text) in [
            (r#""plain""#, "plain"),
            (r#""esc\"aped""#, "esc\"aped"),
            (r#"[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}},{"text":"b"}]"#, "ab"),
            (r#"[{"type":"tool_result","content":[{"type":"text","text":"inner"}]}]"#, "inner"),
            ("null", ""),
        ] {
            assert_eq!(serde_json::from_str::<Text<'_>>(json).unwrap().0, text, "{json}");
        }
        assert!(serde_json::from_str::<Text<'_>>("5").is_err());
    }
}
