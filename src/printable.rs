//! Texts that reach a terminal. Texts from others (names, messages of providers, arguments that are quoted back) must
//! neither steer the terminal nor hide in it.
//!
//! A terminal obeys control characters, and a reader is misled by characters that change the direction of the text or
//! have no width. All of them are written as their code: `\u{1b}`, and `\u001b` in JSON, which means the same text
//! there.

pub mod progress;

use anstyle::Style;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr as _;

/// Whether a character steers a terminal, or is invisible although it changes the text that is read.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Soft hyphen, joiners, marks of direction, embeddings, isolates, invisible operators, byte order mark.
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            // Letters without a shape.
            | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
            // Tags and variations, which can make up a whole text that is invisible.
            | '\u{e0000}'..='\u{e0fff}')
}

/// A text for one line: hidden characters, including line breaks and tabs, are written as their code.
#[must_use]
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// A text for several lines: line breaks and tabs stay, other hidden characters are written as their code.
#[must_use]
pub fn on_lines(text: &str) -> Cow<'_, str> {
    Notation::Text.apply(text)
}

/// How many columns a text takes on a terminal: a Chinese letter takes two, an accent on the letter before it none.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.width()
}

fn escaped(text: &str, may_stay: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_shown = |c: char| !is_hidden(c) || may_stay(c);
    if text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_shown(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
    }
    Cow::Owned(shown)
}

/// The form in which hidden characters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// For people. Line breaks and tabs are part of the layout and stay.
    Text,
    /// Inside JSON, where they occur in strings only.
    Json,
}

impl Notation {
    fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Text => escaped(text, |c| matches!(c, '\n' | '\t')),
            Self::Json => {
                let is_shown = |c: char| !is_hidden(c) || matches!(c, '\n' | '\t' | '\r');
                if text.chars().all(is_shown) {
                    return Cow::Borrowed(text);
                }
                let mut shown = String::with_capacity(text.len() + 16);
                for c in text.chars() {
                    if is_shown(c) {
                        shown.push(c);
                        continue;
                    }
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing into a string does not fail.
                        let _ = write!(shown, "\\u{unit:04x}");
                    }
                }
                Cow::Owned(shown)
            }
        }
    }
}

/// A writer that writes hidden characters as their code, and bytes that are not UTF-8 as their numbers.
#[derive(Debug)]
pub struct Printable<W: Write> {
    inner: W,
    notation: Notation,
    /// The beginning of a character whose end has not been written yet.
    begun: Vec<u8>,
}

impl<W: Write> Printable<W> {
    /// Wraps another writer.
    pub fn new(inner: W, notation: Notation) -> Self {
        Self { inner, notation, begun: Vec::new() }
    }

    fn write_text(&mut self, text: &str) -> io::Result<()> {
        self.inner.write_all(self.notation.apply(text).as_bytes())
    }

    /// Writes a text in a style of its own. The text cannot end it, nor begin another one: its hidden characters are
    /// written as their code, as everywhere.
    pub fn write_styled(&mut self, style: Style, text: &str) -> io::Result<()> {
        write!(self.inner, "{style}")?;
        self.write_text(text)?;
        write!(self.inner, "{style:#}")
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.iter().try_for_each(|byte| write!(self.inner, "\\x{byte:02x}"))
    }
}

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let joined;
        let mut rest = if self.begun.is_empty() {
            bytes
        } else {
            joined = [std::mem::take(&mut self.begun).as_slice(), bytes].concat();
            &joined
        };
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.write_text(text)?;
                    return Ok(bytes.len());
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    // Valid up to there.
                    self.write_text(&String::from_utf8_lossy(good))?;
                    let Some(length) = error.error_len() else {
                        self.begun = bad.to_vec();
                        return Ok(bytes.len());
                    };
                    let (bad, after) = bad.split_at(length);
                    self.write_bytes(bad)?;
                    rest = after;
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Drop for Printable<W> {
    fn drop(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        // There is no way left to report an error.
        let _ = self.write_bytes(&begun);
    }
}

/// Standard error, for messages.
#[must_use]
pub fn stderr() -> Printable<io::Stderr> {
    #[expect(clippy::disallowed_methods, reason = "this is the way to it")]
    let stderr = io::stderr();
    Printable::new(stderr, Notation::Text)
}

/// Standard output, unchanged.
#[must_use]
pub fn stdout() -> io::Stdout {
    #[expect(clippy::disallowed_methods, reason = "this is the way to it")]
    let stdout = io::stdout();
    stdout
}

/// Whether standard error is a terminal.
#[must_use]
pub fn stderr_is_terminal() -> bool {
    #[expect(clippy::disallowed_methods, reason = "nothing is written to it")]
    let stderr = io::stderr();
    io::IsTerminal::is_terminal(&stderr)
}

/// What holds of standard error, to which nothing is written here.
pub fn stderr_has<T>(of: impl FnOnce(&io::Stderr) -> T) -> T {
    #[expect(clippy::disallowed_methods, reason = "nothing is written to it")]
    let stderr = io::stderr();
    of(&stderr)
}

/// How many columns the terminal has that standard output goes to; `None`: it is none, or does not say.
#[must_use]
pub fn stdout_width() -> Option<usize> {
    #[expect(clippy::disallowed_methods, reason = "nothing is written to it")]
    let stdout = io::stdout();
    width_of(&stdout)
}

/// How many columns the terminal has that standard error goes to; `None`: it is none, or does not say.
#[must_use]
pub fn stderr_width() -> Option<usize> {
    #[expect(clippy::disallowed_methods, reason = "nothing is written to it")]
    let stderr = io::stderr();
    width_of(&stderr)
}

fn width_of(terminal: &impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HIDDEN: &[char] = &[
        '\0',
        '\x07',
        '\x08',
        '\r',
        '\x0b',
        '\x1b',
        '\x7f',
        '\u{80}',
        '\u{85}',
        '\u{9b}',
        '\u{9d}',
        '\u{ad}',
        '\u{61c}',
        '\u{200b}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{3164}',
        '\u{feff}',
        '\u{fffb}',
        '\u{e0001}',
        '\u{e0041}',
        '\u{e0100}',
    ];

    fn written(notation: Notation, pieces: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut printable = Printable::new(&mut bytes, notation);
        for piece in pieces {
            printable.write_all(piece).unwrap();
        }
        drop(printable);
        bytes
    }

    #[test]
    fn hidden_characters_are_written_as_what_they_are() {
        for c in HIDDEN {
            assert!(is_hidden(*c), "{}", c.escape_unicode());
            let text = format!("a{c}b");
            let shown = written(Notation::Text, &[text.as_bytes()]);
            assert!(shown.iter().all(|byte| (0x20..0x7f).contains(byte)), "{shown:?}");
            assert_eq!(on_one_line(&text).as_bytes(), shown);
        }
        assert_eq!(on_one_line("a\u{1b}[31m\u{202e}\n\t"), r"a\u{1b}[31m\u{202e}\n\t");
    }

    #[test]
    fn what_is_seen_stays() {
        for text in ["plain", "Grüße, 你好, שלום, سلام, नमस्ते", "→ ✓ 🦀 e\u{301}", "C:\\temp \"quoted\""]
        {
            assert!(matches!(on_one_line(text), Cow::Borrowed(same) if same == text));
            assert_eq!(written(Notation::Json, &[text.as_bytes()]), text.as_bytes());
        }
        assert_eq!(written(Notation::Text, &[b"two\nlines\tand a tab\n"]), b"two\nlines\tand a tab\n");
    }

    #[test]
    fn what_is_no_text_is_written_as_its_bytes_and_a_character_may_come_in_pieces() {
        assert_eq!(written(Notation::Text, &[b"a\x9b31m\xffb"]), b"a\\x9b31m\\xffb");
        assert_eq!(written(Notation::Text, &[b"\xe2", b"\x80", b"\xae!"]), b"\\u{202e}!");
        assert_eq!(written(Notation::Text, &[b"\xc3", b"\xbc"]), "ü".as_bytes());
        assert_eq!(written(Notation::Text, &[b"end \xe2\x80"]), b"end \\xe2\\x80");
    }

    proptest! {
        #[test]
        fn json_means_the_same_and_shows_everything(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let shown = String::from_utf8(written(Notation::Json, &[json.as_bytes()])).unwrap();
            prop_assert!(!shown.chars().any(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }

        #[test]
        fn no_split_changes_what_is_written(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let (left, right) = bytes.split_at(at.index(bytes.len() + 1));
            let whole = written(Notation::Text, &[&bytes]);
            prop_assert_eq!(&written(Notation::Text, &[left, right]), &whole);
            prop_assert!(String::from_utf8(whole).unwrap().chars().all(|c| !is_hidden(c) || matches!(c, '\n' | '\t')));
        }
    }
}
