//! Secrets in replies: a server may send back what it was sent, in any of the ways in which texts are written.
//!
//! The search covers the secret and most of it; the same behind escapes (of JSON, of URLs, of HTML, one inside the
//! other); and the same in base64, wherever in a longer text it begins, and in hexadecimal.

use super::scrub::{self, REDACTED};
use regex::Regex;
use secrecy::{ExposeSecret, SecretString};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

/// A piece of a secret of this length is as good as the secret to a thief. Shorter pieces occur in texts by chance: all
/// keys of a vendor begin alike.
const PIECE: usize = 16;

/// Shorter secrets are not searched for: a key of one letter would take every such letter out of every text.
const SHORTEST: usize = 4;

/// As many characters of what a server says are kept.
const MOST_WORDS: usize = 200;

/// How many layers of escapes inside escapes are undone.
const LAYERS: usize = 3;

/// The secrets of a provider, ready for the search.
#[derive(Default)]
pub(super) struct Echoes {
    secrets: Vec<SecretString>,
    /// Pieces of the secrets as they are.
    plain: Option<Regex>,
    /// All secrets in other alphabets.
    encoded: Option<Regex>,
}

impl Echoes {
    pub(super) fn of(secrets: Vec<SecretString>) -> Self {
        let exposed = || secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| secret.len() >= SHORTEST);
        let plain = any_of(exposed().flat_map(pieces));
        let encoded = any_of(exposed().flat_map(in_other_alphabets));
        Self { secrets, plain, encoded }
    }

    /// The beginning of what a server says, without the secrets and whatever looks like one, on one line.
    pub(super) fn words(&self, said: &str) -> String {
        let redacted = self.redacted(scrub::head(said, MOST_WORDS * 20));
        scrub::head(&scrub::clean(&redacted), MOST_WORDS).to_owned()
    }

    /// The text without the secrets.
    pub(super) fn redacted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.plain.is_none() && self.encoded.is_none() {
            return Cow::Borrowed(text);
        }
        let mut found = self.find(text);
        let mut inner: Option<Unescaped> = None;
        for _ in 0..LAYERS {
            let Some(next) = Unescaped::of(inner.as_ref().map_or(text, |inner| &inner.text)) else { break };
            let next = match &inner {
                Some(outer) => next.within(outer),
                None => next,
            };
            found.extend(self.find(&next.text).into_iter().map(|range| next.source(&range)));
            inner = Some(next);
        }
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        found.sort_unstable_by_key(|range| range.start);
        let mut redacted = String::with_capacity(text.len());
        let mut done = 0;
        for Range { start, end } in found {
            if start >= done {
                redacted.push_str(text.get(done..start).unwrap_or_default());
                redacted.push_str(REDACTED);
            }
            done = done.max(end);
        }
        redacted.push_str(text.get(done..).unwrap_or_default());
        Cow::Owned(redacted)
    }

    /// The ranges of the secrets, each at its full extent.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let plain = self.plain.iter().flat_map(|plain| plain.find_iter(text));
        let mut found: Vec<Range<usize>> = plain.map(|piece| self.whole(text, piece.range())).collect();
        let is_of_them = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
        let encoded = self.encoded.iter().flat_map(|encoded| encoded.find_iter(text));
        found.extend(encoded.map(|part| {
            let bytes = text.as_bytes();
            let before = bytes[..part.start()].iter().rev().take_while(|byte| is_of_them(byte)).count();
            let after = bytes[part.end()..].iter().take_while(|byte| is_of_them(byte)).count();
            part.start() - before..part.end() + after
        }));
        found
    }

    /// Extends a piece to as much of its surroundings as belongs to the secret.
    fn whole(&self, text: &str, piece: Range<usize>) -> Range<usize> {
        let (text, mut whole) = (text.as_bytes(), piece.clone());
        for secret in &self.secrets {
            let secret = secret.expose_secret().as_bytes();
            let places = secret.windows(piece.len()).enumerate().filter(|(_, window)| *window == &text[piece.clone()]);
            for (at, _) in places {
                let (ahead, behind) = (&secret[..at], &secret[at + piece.len()..]);
                let before =
                    ahead.iter().rev().zip(text[..piece.start].iter().rev()).take_while(|(a, b)| a == b).count();
                let after = behind.iter().zip(&text[piece.end..]).take_while(|(a, b)| a == b).count();
                whole = whole.start.min(piece.start - before)..whole.end.max(piece.end + after);
            }
        }
        whole
    }
}

/// Pieces such that every run of half a secret contains one.
fn pieces(secret: &str) -> Vec<String> {
    let characters: Vec<char> = secret.chars().collect();
    let length = PIECE.max(characters.len() / 4).min(characters.len()).max(1);
    let last = characters.len() - length;
    let starts = (0..last).step_by(length).chain([last]);
    starts.filter_map(|start| characters.get(start..start + length)).map(|piece| piece.iter().collect()).collect()
}

/// A secret in base64, at each of the three places of a group where it may begin, and in hexadecimal figures.
fn in_other_alphabets(secret: &str) -> Vec<String> {
    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut forms = Vec::new();
    for alphabet in [STANDARD, FOR_URLS] {
        for ahead in 0..3_usize {
            let bytes: Vec<u8> = std::iter::repeat_n(0, ahead).chain(secret.bytes()).collect();
            let mut figures = String::new();
            // Only characters that depend on nothing but the secret.
            let first = (ahead * 8).div_ceil(6);
            let last = bytes.len() * 8 / 6;
            for figure in first..last {
                let bit = figure * 6;
                let pair = u16::from_be_bytes([
                    bytes.get(bit / 8).copied().unwrap_or_default(),
                    bytes.get(bit / 8 + 1).copied().unwrap_or_default(),
                ]);
                let value = pair >> (10 - bit % 8) & 0x3f;
                figures.push(char::from(alphabet[usize::from(value)]));
            }
            forms.push(figures);
        }
    }
    let mut hex = String::with_capacity(secret.len() * 2);
    for byte in secret.bytes() {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    forms.push(hex.to_uppercase());
    forms.push(hex);
    forms
}

fn any_of(literals: impl Iterator<Item = String>) -> Option<Regex> {
    let mut literals: Vec<String> = literals.filter(|literal| !literal.is_empty()).collect();
    // The longest of several that begin alike.
    literals.sort_unstable_by_key(|literal| std::cmp::Reverse(literal.len()));
    literals.dedup();
    if literals.is_empty() {
        return None;
    }
    let pattern: Vec<String> = literals.iter().map(|literal| regex::escape(literal)).collect();
    let built = regex::RegexBuilder::new(&pattern.join("|")).size_limit(256 << 20).build();
    Some(built.expect("literals make a pattern, and the keys of a provider are few and short"))
}

/// A text without its escapes, and where each byte of it came from.
struct Unescaped {
    text: String,
    /// The source position of each byte, and of the end.
    from: Vec<usize>,
}

impl Unescaped {
    /// The text unescaped; `None`: it has no escapes.
    fn of(text: &str) -> Option<Self> {
        if !text.bytes().any(|byte| matches!(byte, b'%' | b'\\' | b'&')) {
            return None;
        }
        let mut plain = Self { text: String::with_capacity(text.len()), from: Vec::with_capacity(text.len() + 1) };
        let (mut at, mut is_changed) = (0, false);
        while let Some(character) = text.get(at..).and_then(|rest| rest.chars().next()) {
            let (written, length) = match escaped(&text[at..]) {
                Some((written, length)) => {
                    is_changed = true;
                    (written, length)
                }
                None => (character, character.len_utf8()),
            };
            plain.text.push(written);
            plain.from.extend(std::iter::repeat_n(at, written.len_utf8()));
            at += length;
        }
        plain.from.push(at);
        is_changed.then_some(plain)
    }

    /// The same, with positions in the text that `outer` came from.
    fn within(mut self, outer: &Self) -> Self {
        for from in &mut self.from {
            *from = outer.from.get(*from).copied().unwrap_or_default();
        }
        self
    }

    fn source(&self, range: &Range<usize>) -> Range<usize> {
        let place = |at: usize| self.from.get(at).copied().unwrap_or_default();
        place(range.start)..place(range.end)
    }
}

/// The character that an escape at the beginning of a text stands for, and the escape's length. Secrets are ASCII.
fn escaped(text: &str) -> Option<(char, usize)> {
    let hex = |digits: &str| {
        let is_hex = !digits.is_empty() && digits.len() <= 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
        char::from_u32(code).filter(char::is_ascii)
    };
    let head: &str = text.get(..text.char_indices().nth(16).map_or(text.len(), |(end, _)| end))?;
    if let Some(rest) = head.strip_prefix('%') {
        return Some((hex(rest.get(..2)?)?, 3));
    }
    if let Some(rest) = head.strip_prefix('\\') {
        if let Some(digits) = rest.strip_prefix("u{") {
            let end = digits.find('}')?;
            return Some((hex(&digits[..end])?, 4 + end));
        }
        return match rest.bytes().next()? {
            b'u' => Some((hex(rest.get(1..5)?)?, 6)),
            b'x' => Some((hex(rest.get(1..3)?)?, 4)),
            byte @ (b'/' | b'\\' | b'"' | b'\'' | b'-' | b'+' | b'=' | b'_' | b'.') => Some((char::from(byte), 2)),
            _ => None,
        };
    }
    let rest = head.strip_prefix('&')?;
    let end = rest.find(';')?;
    let name = &rest[..end];
    let character = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "plus" => '+',
        "equals" => '=',
        "sol" => '/',
        "lowbar" => '_',
        "hyphen" | "dash" => '-',
        _ => match name.strip_prefix("#x").or_else(|| name.strip_prefix("#X")) {
            Some(digits) => hex(digits)?,
            None => char::from_u32(name.strip_prefix('#')?.parse().ok()?).filter(char::is_ascii)?,
        },
    };
    Some((character, end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "zq-openai/5Tv9-Wm2x+Lp0==";

    fn echoes(secrets: &[&str]) -> Echoes {
        Echoes::of(secrets.iter().map(|secret| (*secret).into()).collect())
    }

    fn escaped_by(each: impl Fn(u8) -> String) -> String {
        KEY.bytes().map(each).collect()
    }

    #[test]
    fn a_key_that_is_too_short_to_be_one_takes_nothing_out_of_texts() {
        let echoes = echoes(&["k", "", "abc"]);
        for text in ["the key is known", "of 7 bytes", "eyJr"] {
            assert_eq!(echoes.redacted(text), text);
        }
    }

    #[test]
    fn a_key_is_found_in_whatever_way_it_is_written() {
        let echoes = echoes(&[KEY, "shortest", "sk-1234"]);
        let percent = escaped_by(|byte| format!("%{byte:02X}"));
        let twice = percent.replace('%', "%25");
        for written in [
            KEY.to_owned(),
            "shortest".to_owned(),
            "sk-1234".to_owned(),
            KEY.replace('/', "\\/"),
            KEY.replace('/', "%2F").replace('+', "%2b").replace('=', "%3D"),
            percent,
            twice,
            escaped_by(|byte| format!("\\u{byte:04x}")),
            escaped_by(|byte| format!("\\\\u{byte:04X}")),
            escaped_by(|byte| format!("\\x{byte:02x}")),
            escaped_by(|byte| format!("\\u{{{byte:x}}}")),
            escaped_by(|byte| format!("&#{byte};")),
            escaped_by(|byte| format!("&#x{byte:x};")),
            KEY.replace('a', "\\u0061"),
            KEY.replace("open", "op\\u0065n").replace('/', "\\/"),
            escaped_by(|byte| format!("{byte:02x}")),
            escaped_by(|byte| format!("{byte:02X}")),
            "enEtb3BlbmFpLzVUdjktV20yeCtMcDA9PQ==".to_owned(),
            "enEtb3BlbmFpLzVUdjktV20yeCtMcDA9PQ%3D%3D".to_owned(),
            // `Bearer KEY`, `key:KEY` and `x KEY`, each in base64.
            "QmVhcmVyIHpxLW9wZW5haS81VHY5LVdtMngrTHAwPT0=".to_owned(),
            "a2V5OnpxLW9wZW5haS81VHY5LVdtMngrTHAwPT0=".to_owned(),
            "eCB6cS1vcGVuYWkvNVR2OS1XbTJ4K0xwMD09".to_owned(),
        ] {
            let said = echoes.redacted(&format!("the key «{written}» is no good")).into_owned();
            assert_eq!(said, "the key «[REDACTED]» is no good", "{written}");
        }
        // Most of one secret.
        assert_eq!(echoes.redacted(&format!("({})", &KEY[..20])), "([REDACTED])");
        assert_eq!(echoes.redacted(&format!("({})", &KEY[7..])), "([REDACTED])");
    }

    #[test]
    fn other_texts_are_as_they_were() {
        let echoes = echoes(&["sk-ant-api03-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789", KEY]);
        for text in [
            "",
            "100 % of \\n and &amp; C:\\users\\%PATH%",
            "keys of Anthropic begin with sk-ant-api03-",
            "\\u00e9 %C3%A9 &eacute; &#233; \\",
            "zq-openai",
            "%",
            "\\u{}",
            "&#;",
        ] {
            assert!(matches!(echoes.redacted(text), Cow::Borrowed(_)), "{text}");
        }
        assert!(matches!(Echoes::default().redacted("anything"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd_and_no_key_is_left(before in ".{0,40}", after in ".{0,40}", key in "[ \
            -~]{8,60}", way in 0..4_u8) {
            let echoes = echoes(&[&key]);
            let mut written = String::new();
            for byte in key.bytes() {
                match way {
                    0 => written.push(char::from(byte)),
                    1 => write!(written, "%{byte:02x}").unwrap(),
                    2 => write!(written, "\\u{byte:04x}").unwrap(),
                    _ => write!(written, "{byte:02x}").unwrap(),
                }
            }
            let text = format!("{before} {written} {after}");
            let redacted = echoes.redacted(&text).into_owned();
            prop_assert!(!redacted.contains(&written), "{redacted}");
            prop_assert!(redacted.contains(REDACTED));
        }
    }
}
