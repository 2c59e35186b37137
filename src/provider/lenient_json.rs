//! JSON as servers really write it.
//!
//! An answer was paid for, even if something stands beside it. So a body that is not valid JSON is mended where its
//! meaning is clear: a number that JSON has no word for, a mark in front, bytes behind, half a character. A body that
//! breaks off is not mended: nothing is closed that was not closed, and no member is guessed.

use crate::domain::bulk::{MOST_MEMBERS, is_too_much};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};

/// The content of a body.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    /// Its JSON values: usually one, several where it came as a stream or as values one after another.
    pub values: Vec<Value>,
    /// Whether they came as events of a stream.
    pub is_stream: bool,
    /// The repairs that were needed, in words for the ledger.
    pub mended: Vec<&'static str>,
}

impl Read {
    fn note(&mut self, mended: &'static str) {
        if !self.mended.contains(&mended) {
            self.mended.push(mended);
        }
    }

    fn note_all(&mut self, mended: Vec<&'static str>) {
        for mended in mended {
            self.note(mended);
        }
    }
}

/// Why there is nothing to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    TooMuch,
    Empty,
    Html,
    BreaksOff(Place),
    StreamBreaksOff(Place),
    NotJson(Place),
}

/// Line and column. The parser's own words are not used, because they may quote the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize, usize);

impl Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMuch => write!(f, "JSON of more than {MOST_MEMBERS} members"),
            Self::Empty => f.write_str("an empty body"),
            Self::Html => f.write_str("an HTML page instead of JSON"),
            Self::BreaksOff(Place(line, column)) => write!(f, "JSON that breaks off (line {line}, column {column})"),
            Self::StreamBreaksOff(Place(line, column)) => {
                write!(f, "a stream of events that breaks off (line {line}, column {column})")
            }
            Self::NotJson(Place(line, column)) => write!(f, "a body that is not JSON (line {line}, column {column})"),
        }
    }
}

/// Characters that are skipped around a value: JSON's white space, and leftovers of C programs and editors.
const BESIDE: [char; 6] = [' ', '\t', '\n', '\r', '\0', '\u{feff}'];

/// Reads a body.
pub(super) fn read(body: &[u8]) -> Result<Read, Unreadable> {
    if is_too_much(body) {
        return Err(Unreadable::TooMuch);
    }
    let error = match serde_json::from_slice(body) {
        Ok(value) => return Ok(Read { values: vec![value], ..Read::default() }),
        Err(error) => error,
    };
    let place = Place(error.line(), error.column());
    let mut read = Read::default();
    let text = text(body, &mut read);
    if text.starts_with('\u{feff}') {
        read.note("removed a byte order mark in front of the JSON");
    }
    let text = text.trim_matches(BESIDE);
    if text.is_empty() {
        return Err(Unreadable::Empty);
    }
    if text.starts_with('<') {
        return Err(Unreadable::Html);
    }
    let text = without_comments(
        text.strip_prefix(")]}'").map_or(text, |rest| rest.trim_start_matches(|c| c == ',' || BESIDE.contains(&c))),
    );
    let fault = if is_stream(text) { read_stream(text, &mut read) } else { read_values(text, &mut read) };
    match fault {
        Some(Fault::TooMuch) => Err(Unreadable::TooMuch),
        // Later values that break off do no harm to a whole one. The chunks of a stream, though, are one answer.
        Some(Fault::BreaksOff) if read.is_stream => Err(Unreadable::StreamBreaksOff(place)),
        Some(Fault::BreaksOff) if read.values.is_empty() => Err(Unreadable::BreaksOff(place)),
        _ if read.values.is_empty() => Err(Unreadable::NotJson(place)),
        _ => {
            if read.mended.is_empty() {
                read.note("marks and comments around it were left out");
            }
            Ok(read)
        }
    }
}

/// The body as text, from any encoding.
fn text<'a>(body: &'a [u8], read: &mut Read) -> Cow<'a, str> {
    let wide = |to_unit: fn([u8; 2]) -> u16| {
        let units = body.chunks_exact(2).map(|pair| to_unit([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>()
    };
    let wide = match body {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => {
            let text = String::from_utf8_lossy(body);
            if matches!(text, Cow::Owned(_)) {
                read.note("bytes that are no UTF-8 were replaced");
            }
            return text;
        }
    };
    read.note("it was UTF-16");
    Cow::Owned(wide)
}

/// The text without the comments that keep a connection busy (`: keep-alive`).
fn without_comments(mut text: &str) -> &str {
    while text.starts_with(':') {
        text = text.split_once(['\n', '\r']).map_or("", |(_, rest)| rest).trim_start_matches(BESIDE);
    }
    text
}

fn is_stream(text: &str) -> bool {
    ["data:", "event:", "id:", "retry:"].iter().any(|field| text.starts_with(field))
}

enum Fault {
    BreaksOff,
    NotJson,
    TooMuch,
}

/// Reads server-sent events, although no stream was asked for.
fn read_stream(text: &str, read: &mut Read) -> Option<Fault> {
    read.is_stream = true;
    read.note("it came as a stream of events");
    let mut data = String::new();
    // A stream need not end with the empty line that ends an event.
    for line in text.lines().flat_map(|line| line.split('\r')).chain([""]) {
        if line.is_empty() {
            let event = std::mem::take(&mut data);
            let mut event = event.trim_matches(BESIDE);
            // Some servers leave out the empty lines, so that all events look like one.
            while event.starts_with(['{', '[']) && event != "[DONE]" {
                match value(event) {
                    Ok((value, length, mended)) => {
                        read.note_all(mended);
                        read.values.push(value);
                        event = event.get(length..).unwrap_or_default().trim_start_matches(BESIDE);
                    }
                    Err(Fault::NotJson) => break,
                    Err(fault) => return Some(fault),
                }
            }
        } else if let Some(piece) = line.strip_prefix("data:") {
            data.push_str(piece.strip_prefix(' ').unwrap_or(piece));
            data.push('\n');
        }
    }
    None
}

/// Reads a value, and those that follow it.
fn read_values(text: &str, read: &mut Read) -> Option<Fault> {
    let mut rest = text;
    loop {
        if !rest.starts_with(['{', '[']) {
            break;
        }
        match value(rest) {
            Ok((value, length, mended)) => {
                read.note_all(mended);
                read.values.push(value);
                rest = rest.get(length..).unwrap_or_default().trim_start_matches(BESIDE);
            }
            Err(fault) if read.values.is_empty() => return Some(fault),
            Err(Fault::TooMuch) => return Some(Fault::TooMuch),
            Err(_) => break,
        }
    }
    if !read.values.is_empty() && !rest.is_empty() {
        read.note("bytes behind it were left out");
    }
    None
}

/// The value that a text begins with, its length in the text, and the repairs to it.
fn value(text: &str) -> Result<(Value, usize, Vec<&'static str>), Fault> {
    let mut tidy = Tidy { out: String::with_capacity(text.len().min(1 << 20)), ..Tidy::default() };
    let length = tidy.take(text)?;
    if is_too_much(tidy.out.as_bytes()) {
        return Err(Fault::TooMuch);
    }
    let value = serde_json::from_str(&tidy.out).map_err(|_| Fault::NotJson)?;
    Ok((value, length, tidy.mended))
}

/// The text as strict JSON, if it is a single object of which nothing had to be guessed.
pub(super) fn object(text: &str) -> Option<String> {
    let mut tidy = Tidy::default();
    let is_all = text.starts_with('{') && tidy.take(text).is_ok_and(|length| length == text.len());
    let is_clear = is_all && !tidy.mended.contains(&ESCAPE) && !is_too_much(tidy.out.as_bytes());
    (is_clear && serde_json::from_str::<serde::de::IgnoredAny>(&tidy.out).is_ok()).then_some(tidy.out)
}

const NOT_A_NUMBER: &str = "numbers that JSON does not have were taken as null";
const CONTROL: &str = "raw control characters were escaped";
const ESCAPE: &str = "broken escapes were mended";
const COMMA: &str = "commas before a closing bracket were left out";
const LITERAL: &str = "literals in another spelling were mended";

/// Writes strict JSON with the meaning of the lenient text.
#[derive(Default)]
struct Tidy {
    out: String,
    /// The open brackets, by the one that closes each.
    open: Vec<char>,
    mended: Vec<&'static str>,
}

impl Tidy {
    fn note(&mut self, mended: &'static str) {
        if !self.mended.contains(&mended) {
            self.mended.push(mended);
        }
    }

    /// Takes one object or array from the beginning of a text; returns its length.
    fn take(&mut self, text: &str) -> Result<usize, Fault> {
        let mut at = 0;
        while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
            match c {
                '{' => self.open.push('}'),
                '[' => self.open.push(']'),
                '}' | ']' => {
                    if self.open.pop() != Some(c) {
                        return Err(Fault::NotJson);
                    }
                    if self.out.ends_with(',') {
                        self.out.pop();
                        self.note(COMMA);
                    }
                    if self.open.is_empty() {
                        self.out.push(c);
                        return Ok(at + 1);
                    }
                }
                '"' => {
                    at += 1 + self.string(text.get(at + 1..).unwrap_or_default())?;
                    continue;
                }
                ',' | ':' => {}
                c if BESIDE.contains(&c) => {
                    at += c.len_utf8();
                    continue;
                }
                _ => {
                    let rest = text.get(at..).unwrap_or_default();
                    let end =
                        rest.find(|c| BESIDE.contains(&c) || matches!(c, ',' | ':' | '}' | ']' | '{' | '[' | '"'));
                    let word = rest.get(..end.ok_or(Fault::BreaksOff)?).unwrap_or_default();
                    self.word(word)?;
                    at += word.len();
                    continue;
                }
            }
            self.out.push(c);
            at += 1;
        }
        Err(Fault::BreaksOff)
    }

    /// Takes the text after an opening quote; returns the length up to and including the closing one.
    fn string(&mut self, text: &str) -> Result<usize, Fault> {
        self.out.push('"');
        let mut at = 0;
        loop {
            let rest = text.get(at..).unwrap_or_default();
            let special = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').ok_or(Fault::BreaksOff)?;
            self.out.push_str(rest.get(..special).unwrap_or_default());
            at += special;
            let rest = rest.get(special..).unwrap_or_default();
            match rest.as_bytes() {
                [b'"', ..] => {
                    self.out.push('"');
                    return Ok(at + 1);
                }
                [b'\\', ..] => at += self.escape(rest)?,
                [control, ..] => {
                    // Writing to a string cannot fail.
                    let _ = write!(self.out, "\\u{control:04x}");
                    self.note(CONTROL);
                    at += 1;
                }
                [] => return Err(Fault::BreaksOff),
            }
        }
    }

    /// Takes an escape; returns its length. Half of a pair (an emoji that a token limit cut) becomes U+FFFD.
    fn escape(&mut self, text: &str) -> Result<usize, Fault> {
        let kept = match text.as_bytes() {
            [_] => return Err(Fault::BreaksOff),
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [_, b'u', ..] => match unit(text) {
                Some(0xD800..=0xDBFF) if matches!(text.get(6..).and_then(unit), Some(0xDC00..=0xDFFF)) => 12,
                Some(0xD800..=0xDFFF) => {
                    self.out.push_str("\\ufffd");
                    self.note("half characters were replaced");
                    return Ok(6);
                }
                Some(_) => 6,
                None => 0,
            },
            _ => 0,
        };
        if kept == 0 {
            self.out.push_str("\\\\");
            self.note(ESCAPE);
            return Ok(1);
        }
        self.out.push_str(text.get(..kept).unwrap_or_default());
        Ok(kept)
    }

    /// A number or a literal, in whichever spelling.
    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if serde_json::from_str::<Value>(word).is_ok() {
            self.out.push_str(word);
            return Ok(());
        }
        let lower = word.to_ascii_lowercase();
        let (mended, written) = match lower.as_str() {
            "true" | "false" => (LITERAL, lower),
            "null" | "none" | "nil" | "undefined" => (LITERAL, "null".to_owned()),
            _ => match lower.parse::<f64>() {
                Ok(number) if number.is_finite() => (LITERAL, Value::from(number).to_string()),
                Ok(_) => (NOT_A_NUMBER, "null".to_owned()),
                Err(_) => return Err(Fault::NotJson),
            },
        };
        self.out.push_str(&written);
        self.note(mended);
        Ok(())
    }
}

/// The UTF-16 unit that an escape at the start of `text` stands for.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn one(body: &[u8]) -> (Value, Vec<&'static str>) {
        let mut read = read(body).unwrap_or_else(|why| panic!("{}: {why}", String::from_utf8_lossy(body)));
        assert_eq!(read.values.len(), 1, "{}", String::from_utf8_lossy(body));
        (read.values.remove(0), read.mended)
    }

    #[test]
    fn what_stands_beside_an_answer_does_not_lose_it() {
        let emoji = json!({"a": "x\u{fffd}"});
        for (body, expected) in [
            (&b"{\"a\":-Infinity}"[..], json!({"a": null})),
            (b"{\"a\":[NaN,Infinity,-inf,+inf, nan ,1]}", json!({"a": [null, null, null, null, null, 1]})),
            (b"{\"a\":1e999,\"b\":-1E+400}", json!({"a": null, "b": null})),
            (b"{\"a\":+1,\"b\":.5,\"c\":01}", json!({"a": 1.0, "b": 0.5, "c": 1.0})),
            (b"{\"a\":True,\"b\":None,\"c\":undefined}", json!({"a": true, "b": null, "c": null})),
            (b"\xef\xbb\xbf{\"a\":1}", json!({"a": 1})),
            (b"\xef\xbb\xbf\xef\xbb\xbf \n{\"a\":1}", json!({"a": 1})),
            (b"\xff\xfe{\0\"\0a\0\"\0:\x001\0}\0", json!({"a": 1})),
            (b"\xfe\xff\0{\0\"\0a\0\"\0:\x001\0}", json!({"a": 1})),
            (b"{\"a\":1}\0\0\0", json!({"a": 1})),
            (b"\0{\"a\":1} \r\n\0", json!({"a": 1})),
            (b"{\"a\":1}</body></html>", json!({"a": 1})),
            (b"{\"a\":1}}", json!({"a": 1})),
            (b"{\"a\":1}\n0\r\n\r\n", json!({"a": 1})),
            (b"{\"a\":1} {\"b\": ", json!({"a": 1})),
            (b")]}',\n{\"a\":1}", json!({"a": 1})),
            (b": keep-alive\n\n: keep-alive\n\n{\"a\":1}", json!({"a": 1})),
            (b"{\"a\":\"x\xff\"}", emoji.clone()),
            (b"{\"a\":\"x\\ud83d\"}", emoji.clone()),
            (b"{\"a\":\"\\ude00y\"}", json!({"a": "\u{fffd}y"})),
            (b"{\"a\":\"\\ud83d\\ude00\",\"b\":NaN}", json!({"a": "\u{1f600}", "b": null})),
            (b"{\"a\":\"\\ud83d\\ud83d\\ude00\\\\ud83d\"}", json!({"a": "\u{fffd}\u{1f600}\\ud83d"})),
            (b"{\"a\":\"one\ntwo\tthree\x00\x1b\"}", json!({"a": "one\ntwo\tthree\0\x1b"})),
            (b"{\"a\":\"it\\'s \\x41 \\u12\"}", json!({"a": "it\\'s \\x41 \\u12"})),
            (b"{\"a\":[1,2,],\"b\":{\"c\":\",\",},}", json!({"a": [1, 2], "b": {"c": ","}})),
            (b"{\"a\":\"NaN, \\\" Infinity\",\"b\":NaN}", json!({"a": "NaN, \" Infinity", "b": null})),
            (b"data: {\"a\":1}\n\ndata: [DONE]\n\n", json!({"a": 1})),
            (b"event: message\nid: 1\ndata:{\"a\":\ndata: NaN}\n", json!({"a": null})),
            (b": hello\r\n\r\ndata: {\"a\":1}\r\n\r\n", json!({"a": 1})),
        ] {
            let (value, mended) = one(body);
            assert_eq!(value, expected, "{}", String::from_utf8_lossy(body));
            assert!(!mended.is_empty(), "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(one(b"{\"a\":1}").1, Vec::<&str>::new());
    }

    #[test]
    fn several_values_are_all_read() {
        let values = |body: &str| read(body.as_bytes()).unwrap().values;
        assert_eq!(values("{\"a\":1}\n{\"a\":2}\n"), [json!({"a": 1}), json!({"a": 2})]);
        assert_eq!(values("data: {\"a\":1}\n\ndata: {\"a\":2}\n\ndata: [DONE]\n"), [json!({"a": 1}), json!({"a": 2})]);
        assert_eq!(values("data: {\"a\":1}\ndata: {\"a\":2}\ndata: [DONE]\n"), [json!({"a": 1}), json!({"a": 2})]);
    }

    #[test]
    fn what_breaks_off_is_not_closed() {
        let place = |body: &str| match read(body.as_bytes()) {
            Err(Unreadable::BreaksOff(_)) => "breaks off",
            Err(Unreadable::StreamBreaksOff(_)) => "a stream that breaks off",
            Err(Unreadable::NotJson(_)) => "not JSON",
            Err(Unreadable::Html) => "a page",
            Err(Unreadable::Empty) => "empty",
            Err(Unreadable::TooMuch) => "too much",
            Ok(read) => panic!("{body}: {read:?}"),
        };
        for body in [
            "{\"a\": [",
            "{\"a\": \"x",
            "{\"a\": NaN",
            "{\"a\": N",
            "{\"a\": \"x\\",
            "\u{feff}{\"a\":1",
            "{\"a\":-Infinity,",
        ] {
            assert_eq!(place(body), "breaks off", "{body}");
        }
        for body in [
            "data: {\"a\": 1}\n\ndata: {\"a\": ",
            "data: {\"a\": ",
            "event: chunk\ndata: {\"a\": 1}\n\nevent: chunk\ndata: {\"a\"",
            ": busy\n\ndata: {\"a\": [1,",
        ] {
            assert_eq!(place(body), "a stream that breaks off", "{body}");
        }
        for body in ["upstream error", "{\"a\": error}", "{'a': 1}", "{a: 1}", "[1}", "data: hello\n\n", "{\"a\" NaN}"]
        {
            assert_eq!(place(body), "not JSON", "{body}");
        }
        for (body, expected) in [("", "empty"), (" \n\0", "empty"), ("\u{feff}", "empty"), ("<html>", "a page")] {
            assert_eq!(place(body), expected, "{body}");
        }
        let many = format!("[NaN{}]", ",NaN".repeat(MOST_MEMBERS + 1));
        assert_eq!(place(&many), "too much");
        assert_eq!(place(&format!("{}NaN{}", "[".repeat(100_000), "]".repeat(100_000))), "not JSON");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&body);
        }

        #[test]
        fn nearly_json_is_read_or_not(body in "(data: |\u{feff})?[\\[\\]{}\":,\\\\nuNaIE0-9.\n-]{0,60}") {
            let _ = read(body.as_bytes());
        }

        #[test]
        fn a_mark_and_bytes_beside_it_change_nothing(text in ".{0,40}", number in any::<i64>(), behind in "[\0\n \
            ]{0,4}") {
            let value = json!({"choices": [{"text": text, "n": number}]});
            let body = format!("\u{feff}{value}{behind}");
            prop_assert_eq!(&read(body.as_bytes()).unwrap().values, &[value]);
        }
    }
}
