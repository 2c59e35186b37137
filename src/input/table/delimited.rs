//! Rows of CSV and TSV.

use super::quotes::{BadQuote, Watched};
use super::row::{Cell, Row};
use super::{Columns, Rows};
use crate::input::{InputError, LineError};
use std::io::{self, BufRead};
use std::sync::Arc;

/// Reads rows one at a time.
pub(super) struct Delimited<R> {
    reader: ::csv::Reader<Watched<R>>,
    record: ::csv::ByteRecord,
    columns: Arc<[Arc<str>]>,
}

impl<R: BufRead> Delimited<R> {
    /// Reads the header. `longest`: the most bytes of a row.
    ///
    /// # Errors
    /// There is no header, or it is in no order.
    pub(super) fn open(source: R, delimiter: u8, longest: usize) -> Result<(Self, Columns), String> {
        let reader = ::csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(Watched::new(source, delimiter, longest));
        let mut rows = Self { reader, record: ::csv::ByteRecord::new(), columns: Arc::default() };
        let header = match rows.read() {
            None => return Err("is empty: expected a table, whose first row has the names of the columns".to_owned()),
            Some(Err(error)) => return Err(format!("line {error}")),
            Some(Ok((line, Some(broken)))) => return Err(format!("line {line}: {}", in_words(broken))),
            Some(Ok((line, None))) => line,
        };
        let names: Result<Vec<Arc<str>>, _> =
            rows.record.iter().map(|name| str::from_utf8(name).map(Arc::from)).collect();
        let names = names.map_err(|_| format!("line {header}: expected UTF-8 in the names of the columns, {LATIN}"))?;
        rows.columns = names.into();
        let columns = Columns::new(Arc::clone(&rows.columns), Some(delimiter))?;
        Ok((rows, columns))
    }

    /// Reads the next record: the line on which it begins, and the fault of its quotes.
    fn read(&mut self) -> Option<Result<(u64, Option<BadQuote>), InputError>> {
        match self.reader.read_byte_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => {
                let line = self.reader.get_ref().line();
                Some(Ok(self.reader.get_mut().next_row().unwrap_or((line, None))))
            }
            Err(error) => {
                let line = self.reader.get_ref().line();
                let source = match error.into_kind() {
                    ::csv::ErrorKind::Io(source) => source,
                    _ => io::Error::new(io::ErrorKind::InvalidData, "its rows are in no order"),
                };
                Some(Err(InputError::Read { line, source }))
            }
        }
    }

    fn row(&self, line: u64, broken: Option<BadQuote>) -> Result<Row, InputError> {
        if let Some(broken) = broken {
            let column = self.columns.get(broken.cell).map(ToString::to_string).unwrap_or_default();
            if broken.closes.is_none() {
                // The rest of the file is in this cell.
                let column = if column.is_empty() { column } else { format!(" in the column `{column}`") };
                let reason = format!("the quote{column} is never closed");
                let source = io::Error::new(io::ErrorKind::InvalidData, reason);
                return Err(InputError::Read { line: broken.opens, source });
            }
            return Err(InputError::Line(LineError::new(broken.opens, column, in_words(broken))));
        }
        let (found, expected) = (self.record.len(), self.columns.len());
        if found != expected {
            let quotes = if found > expected { "; a cell with a delimiter in it stands in quotes" } else { "" };
            let reason = format!("expected {expected} cells, as the header has, found {found}{quotes}");
            return Err(InputError::Line(LineError::new(line, "", reason)));
        }
        let mut lines = 0;
        let mut cells = Vec::with_capacity(expected);
        for (name, cell) in self.columns.iter().zip(self.record.iter()) {
            match str::from_utf8(cell) {
                Ok(text) => cells.push((Arc::clone(name), Cell::Text(text.to_owned()))),
                Err(error) => {
                    let line = line + lines + breaks(cell.get(..error.valid_up_to()).unwrap_or_default());
                    let reason = format!("expected UTF-8, found other bytes; {LATIN}");
                    return Err(InputError::Line(LineError::new(line, name.to_string(), reason)));
                }
            }
            lines += breaks(cell);
        }
        Ok(Row { line, cells })
    }
}

const LATIN: &str = "`iconv -f WINDOWS-1252 -t UTF-8 FILE` rewrites what some spreadsheets write";

fn breaks(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// The first quote of a text that is in no order: its line, and what is wrong with it.
pub fn bad_quote(text: &str, delimiter: u8) -> Option<(u64, String)> {
    let mut watched = Watched::new(text.as_bytes(), delimiter, usize::MAX);
    io::copy(&mut watched, &mut io::sink()).ok()?;
    let first = std::iter::from_fn(|| watched.next_row()).find_map(|(_, broken)| broken)?;
    Some((first.opens, in_words(first)))
}

fn in_words(BadQuote { opens, closes, .. }: BadQuote) -> String {
    match closes {
        None => "the quote that opens here is never closed".to_owned(),
        Some(closes) => {
            let place = if closes == opens { String::new() } else { format!(" on line {closes}") };
            format!(
                "the quote that opens here closes{place} before more text; expected the end of the cell there, or two \
                 quotes for one that belongs to the text"
            )
        }
    }
}

impl<R: BufRead> Rows for Delimited<R> {
    fn next_row(&mut self) -> Option<Result<Row, InputError>> {
        loop {
            let (line, broken) = match self.read()? {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            // A line of blanks is no row.
            let is_blank = self.record.len() == 1 && self.record.iter().all(|cell| cell.trim_ascii().is_empty());
            if !is_blank || self.columns.len() == 1 {
                return Some(self.row(line, broken));
            }
        }
    }
}
