//! Watches the bytes of a CSV file go by: where rows begin, and where quotes are in no order.
//!
//! The parser takes everything after a closing quote for more text, and the rest of the file for one cell when a quote
//! is never closed. Both mean that rows are not what their author wrote.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Passes bytes on and notes what it sees.
pub(super) struct Watched<R> {
    source: R,
    has_begun: bool,
    watch: Watch,
    /// Why reading ends: the line at fault, and the reason.
    failure: Option<(u64, String)>,
}

/// A quote that is in no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadQuote {
    /// How many bytes come before it.
    at: u64,
    /// The line on which it opens, from 1.
    pub(super) opens: u64,
    /// The line on which it closes and more text follows; `None`: it is never closed.
    pub(super) closes: Option<u64>,
    /// The place of its cell in the row, from 0.
    pub(super) cell: usize,
}

/// The bytes seen so far, in the states of the parser.
#[derive(Debug)]
struct Watch {
    delimiter: u8,
    longest: u64,
    state: Within,
    /// Bytes that went by, and the line of the next one.
    at: u64,
    line: u64,
    /// The row under way: where it began, and its cells so far.
    row: Option<(u64, u64)>,
    cell: usize,
    /// Where the open quote is: its byte and its line.
    quote: (u64, u64),
    /// The rows that were not asked for yet: where each begins, and on which line.
    begun: VecDeque<(u64, u64)>,
    broken: VecDeque<BadQuote>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Begin,
    Plain,
    Quoted,
    /// After a quote in a quoted cell: its end, or the first of two that stand for one.
    Closing,
}

impl Watch {
    fn see(&mut self, byte: u8) -> Result<(), (u64, String)> {
        let ends_row = matches!(byte, b'\n' | b'\r');
        if self.row.is_none() && !ends_row {
            self.row = Some((self.at, self.line));
            self.begun.push_back((self.at, self.line));
            self.cell = 0;
        }
        self.state = match (self.state, byte) {
            (Within::Quoted, b'"') => Within::Closing,
            (Within::Quoted, _) | (Within::Closing, b'"') => Within::Quoted,
            (Within::Begin, b'"') => {
                self.quote = (self.at, self.line);
                Within::Quoted
            }
            (_, byte) if byte == self.delimiter => {
                self.cell += 1;
                Within::Begin
            }
            (_, _) if ends_row => {
                self.row = None;
                Within::Begin
            }
            (Within::Closing, _) => {
                self.note_broken(Some(self.line));
                Within::Plain
            }
            (Within::Begin | Within::Plain, _) => Within::Plain,
        };
        self.at += 1;
        self.line += u64::from(byte == b'\n');
        match self.row {
            Some((begun, line)) if self.at - begun > self.longest => Err(self.too_long(line)),
            _ => Ok(()),
        }
    }

    fn note_broken(&mut self, closes: Option<u64>) {
        let (at, opens) = self.quote;
        self.broken.push_back(BadQuote { at, opens, closes, cell: self.cell });
    }

    /// The line at fault, and the reason.
    fn too_long(&self, line: u64) -> (u64, String) {
        let longest = self.longest;
        if matches!(self.state, Within::Quoted) {
            return (self.quote.1, format!("the quote that opens here is not closed within {longest} bytes"));
        }
        (line, format!("the row that begins here has more than {longest} bytes"))
    }
}

impl<R: BufRead> Watched<R> {
    /// `longest`: the most bytes of a row.
    pub(super) fn new(source: R, delimiter: u8, longest: usize) -> Self {
        let watch = Watch {
            delimiter,
            longest: u64::try_from(longest).unwrap_or(u64::MAX),
            state: Within::Begin,
            at: 0,
            line: 1,
            row: None,
            cell: 0,
            quote: (0, 1),
            begun: VecDeque::new(),
            broken: VecDeque::new(),
        };
        Self { source, has_begun: false, watch, failure: None }
    }

    /// The line on which reading ended.
    pub(super) fn line(&self) -> u64 {
        self.watch.line
    }

    /// The next row, which the parser has read: the line on which it begins, and its first quote that is in no order.
    pub(super) fn next_row(&mut self) -> Option<(u64, Option<BadQuote>)> {
        let watch = &mut self.watch;
        let (_, line) = watch.begun.pop_front()?;
        let end = watch.begun.front().map_or(u64::MAX, |(next, _)| *next);
        let mut first = None;
        while let Some(broken) = watch.broken.pop_front_if(|broken| broken.at < end) {
            first.get_or_insert(broken);
        }
        Some((line, first))
    }
}

impl<R: BufRead> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some((line, reason)) = self.failure.clone() {
            self.watch.line = line;
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        if !self.has_begun {
            self.has_begun = true;
            if self.source.fill_buf()?.starts_with(UTF8_MARK) {
                self.source.consume(UTF8_MARK.len());
            }
        }
        let read = self.source.read(buffer)?;
        if read == 0 && self.watch.state == Within::Quoted {
            self.watch.state = Within::Begin;
            self.watch.note_broken(None);
        }
        for (place, byte) in buffer.get(..read).unwrap_or_default().iter().enumerate() {
            if let Err(failure) = self.watch.see(*byte) {
                // The bytes in order before it are passed on first.
                self.failure = Some(failure);
                return if place > 0 { Ok(place) } else { self.read(buffer) };
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a quote in no order opens and closes, and its cell.
    type Quote = (u64, Option<u64>, usize);

    /// For each row the line on which it begins, and its first quote that is in no order.
    fn rows(text: &str) -> Vec<(u64, Option<Quote>)> {
        let mut watched = Watched::new(text.as_bytes(), b',', 1_000);
        io::copy(&mut watched, &mut io::sink()).unwrap();
        let row = |(line, broken): (u64, Option<BadQuote>)| {
            (line, broken.map(|broken| (broken.opens, broken.closes, broken.cell)))
        };
        std::iter::from_fn(|| watched.next_row().map(row)).collect()
    }

    #[test]
    fn rows_begin_where_text_does_and_quotes_may_hold_anything() {
        assert_eq!(
            rows("\u{feff}a,b\r\n\r\n\"1\n2\",\"x\"\"y\"\n\n3,5\" pipe\r4,5"),
            [(1, None), (3, None), (6, None), (6, None)]
        );
        assert_eq!(rows(""), []);
        assert_eq!(rows("\n\n"), []);
    }

    #[test]
    fn a_quote_in_no_order_is_told_with_its_lines_and_its_cell() {
        assert_eq!(rows("a,b\n1,\"x\n2,\"y\"\n3,z\n"), [(1, None), (2, Some((2, Some(3), 1))), (4, None)]);
        assert_eq!(rows("a,b\n1,\"x\n2,y\n"), [(1, None), (2, Some((2, None, 1)))]);
        assert_eq!(rows("\"a\"b,c\n\"d\" ,e\n"), [(1, Some((1, Some(1), 0))), (2, Some((2, Some(2), 0)))]);
    }

    #[test]
    fn a_row_that_goes_on_for_too_long_ends_the_reading() {
        let mut watched = Watched::new("a\n\"bcdefghijk".as_bytes(), b',', 5);
        let error = io::copy(&mut watched, &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "the quote that opens here is not closed within 5 bytes");
        assert_eq!(watched.line(), 2);
    }
}
