//! Lines of bounded length.

use std::io::{self, BufRead, Read as _};

/// The three bytes with which some programs begin UTF-8.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line without its end.
#[derive(Debug)]
pub(super) struct RawLine<'a> {
    /// The number of the line, from 1.
    pub(super) number: u64,
    /// `None`: it was longer than allowed, and was skipped.
    pub(super) content: Option<&'a [u8]>,
}

/// Splits its input into lines. Holds no more than one line at a time, and no more of it than the limit.
#[derive(Debug)]
pub(super) struct LineReader<R> {
    source: R,
    longest: usize,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> LineReader<R> {
    pub(super) fn new(source: R, longest: usize) -> Self {
        Self { source, longest, number: 0, buffer: Vec::new() }
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The number of the line that was read last, or at which reading failed.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn next_line(&mut self) -> io::Result<Option<RawLine<'_>>> {
        self.number += 1;
        self.buffer.clear();
        // Room for the line's end, which does not count.
        let most = u64::try_from(self.longest).unwrap_or(u64::MAX).saturating_add(2);
        let read = self.source.by_ref().take(most).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let has_end = self.buffer.last() == Some(&b'\n');
        let content = without_end(&self.buffer);
        let mark = if self.number == 1 && content.starts_with(UTF8_MARK) { UTF8_MARK.len() } else { 0 };
        let content = content.len() - mark;
        if content > self.longest {
            if !has_end {
                self.skip_line()?;
            }
            return Ok(Some(RawLine { number: self.number, content: None }));
        }
        Ok(Some(RawLine { number: self.number, content: self.buffer.get(mark..mark + content) }))
    }

    /// Reads up to the end of the line and forgets it.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            let read = self.source.by_ref().take(1 << 16).read_until(b'\n', &mut self.buffer)?;
            if read == 0 || self.buffer.last() == Some(&b'\n') {
                return Ok(());
            }
        }
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], longest: usize) -> Vec<Option<Vec<u8>>> {
        let mut reader = LineReader::new(text, longest);
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(line.content.map(<[u8]>::to_vec));
        }
        lines
    }

    #[test]
    fn ends_marks_and_missing_ends_are_not_content() {
        let some = |text: &str| Some(text.as_bytes().to_vec());
        for (text, expected) in [
            ("", vec![]),
            ("a", vec![some("a")]),
            ("a\n", vec![some("a")]),
            ("a\r\nb\n\nc", vec![some("a"), some("b"), some(""), some("c")]),
            ("\u{feff}a\n\u{feff}b", vec![some("a"), some("\u{feff}b")]),
        ] {
            assert_eq!(lines(text.as_bytes(), 10), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
        let long = "x".repeat(200_000);
        let text = format!("1234\n12345\n{long}\n12\r\n1234\r\n{long}");
        let expected = [Some("1234"), None, None, Some("12"), Some("1234"), None];
        let expected: Vec<_> = expected.into_iter().map(|line| line.map(|line| line.as_bytes().to_vec())).collect();
        assert_eq!(lines(text.as_bytes(), 4), expected);
    }
}
