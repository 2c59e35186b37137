//! Opens a source by what it holds: JSON Lines, or a table in one of several formats.

use super::requests::{Completion, Requests};
use super::source::{InputSource, Progress, refuse_spread};
use super::table::{self, Asking, Jobs};
use super::{JobReader, ReadLimits};
use std::io::BufRead;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// On each line a request; with a template, a row of a table.
    JsonLines,
    /// Comma-separated values with a header.
    Csv,
    /// Tab-separated values with a header.
    Tsv,
    Parquet,
}

impl InputFormat {
    /// The format of a file with this ending; `None`: it says nothing.
    fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// How a source is read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub limits: ReadLimits,
    /// `None`: by the ending of the file's name.
    pub format: Option<InputFormat>,
    /// The delimiter between the cells of CSV and TSV; `None`: a comma or a tab.
    pub delimiter: Option<u8>,
    /// The question about the rows of a table.
    pub asking: Asking,
    /// What routes add to requests.
    pub completion: Completion,
}

/// What holds a job in a source, as messages name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeldBy {
    #[default]
    Line,
    Row,
}

impl HeldBy {
    /// One of them, and many.
    #[must_use]
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Line => ("line", "lines"),
            Self::Row => ("row", "rows"),
        }
    }
}

/// A source whose jobs can be read.
pub struct Opened {
    /// The jobs, in order. They end after [`InputError::Read`](super::InputError::Read), and go on after
    /// [`InputError::Line`](super::InputError::Line).
    pub jobs: Jobs,
    pub progress: Progress,
    pub unit: HeldBy,
}

/// Reads rows that are objects of JSON, each on a line: the rows that a statement has found, say.
///
/// # Errors
/// In words: the question about them is malformed.
pub fn read_rows(source: impl BufRead + Send + 'static, reading: Reading) -> Result<Jobs, String> {
    let longest = reading.limits.line_bytes.clamp(1, ReadLimits::MOST_LINE_BYTES);
    table::json_lines(source, longest, reading.asking, Requests::new(reading.completion))
}

impl InputSource {
    /// Opens the source.
    ///
    /// # Errors
    /// In words, to be put behind the source's name: it cannot be opened; it is a folder, UTF-16 or no table; or its
    /// columns do not go with the question about them.
    pub fn read(&self, reading: Reading) -> Result<Opened, String> {
        let Reading { limits, format, delimiter, asking, completion } = reading;
        let ending = self.ending().unwrap_or_default();
        if let (None, "xlsx" | "xls" | "ods") = (format, ending.as_str()) {
            return Err(format!("is a spreadsheet ({ending}), which is not read; save it as CSV"));
        }
        let named = format.or_else(|| InputFormat::of_ending(&ending));
        let requests = Requests::new(completion.clone());
        if named == Some(InputFormat::Parquet) {
            return self.read_parquet(asking, requests);
        }
        let longest = limits.line_bytes.clamp(1, ReadLimits::MOST_LINE_BYTES);
        let (mut reader, progress) = self.open().map_err(|error| error.to_string())?;
        let begin = reader.fill_buf().map_err(|error| error.to_string())?;
        if begin.starts_with(b"PAR1") {
            return Err(UNNAMED_PARQUET.to_owned());
        }
        let first = first_letter(begin);
        let holds_objects = format.is_none() && first == Some(b'{');
        let (jobs, unit): (Jobs, HeldBy) = match named {
            Some(InputFormat::Csv | InputFormat::Tsv) if !holds_objects => {
                let usual = if named == Some(InputFormat::Tsv) { b'\t' } else { b',' };
                let delimiter = delimiter.unwrap_or(usual);
                (table::delimited(reader, delimiter, longest, asking, requests)?, HeldBy::Row)
            }
            _ if asking.request.is_some() => {
                if format.is_none() && first.is_some_and(|first| first != b'{') {
                    let reason = "does not begin with an object of JSON, and its name does not say what it is: see \
                                  --input-format";
                    return Err(reason.to_owned());
                }
                (table::json_lines(reader, longest, asking, requests)?, HeldBy::Row)
            }
            _ => {
                if asking.is_given() {
                    return Err("holds requests, unless --prompt or --template says what is asked of its rows; \
                                --system, --id-column and --keep are for tables"
                        .to_owned());
                }
                refuse_spread(&mut reader).map_err(|error| error.to_string())?;
                (Box::new(JobReader::new(reader, limits).completed_by(completion)), HeldBy::Line)
            }
        };
        Ok(Opened { jobs, progress, unit })
    }

    /// The format of a table, by the same rule as that by which [`read`](Self::read) makes jobs of it.
    ///
    /// # Errors
    /// It is a spreadsheet, or cannot be opened.
    pub(super) fn table_format(&self, format: Option<InputFormat>) -> Result<InputFormat, String> {
        let ending = self.ending().unwrap_or_default();
        if let (None, "xlsx" | "xls" | "ods") = (format, ending.as_str()) {
            return Err(format!("is a spreadsheet ({ending}), which is not read; save it as CSV"));
        }
        let named = format.or_else(|| InputFormat::of_ending(&ending));
        if format.is_some() || named == Some(InputFormat::Parquet) || !self.can_be_read_twice() {
            return Ok(named.unwrap_or(InputFormat::Csv));
        }
        let (mut reader, _) = self.open().map_err(|error| error.to_string())?;
        let begin = reader.fill_buf().map_err(|error| error.to_string())?;
        if begin.starts_with(b"PAR1") {
            return Err(UNNAMED_PARQUET.to_owned());
        }
        let holds_objects = first_letter(begin) == Some(b'{');
        Ok(if holds_objects { InputFormat::JsonLines } else { named.unwrap_or(InputFormat::Csv) })
    }

    /// Whether it is a file: the content of a pipe comes once.
    fn can_be_read_twice(&self) -> bool {
        match self {
            Self::Stdin => false,
            Self::File(path) => path.metadata().is_ok_and(|metadata| metadata.is_file()),
        }
    }

    #[cfg(feature = "parquet")]
    pub(super) fn parquet_rows(&self) -> Result<(Box<dyn table::Rows + Send>, Vec<String>), String> {
        let Self::File(path) = self else { return Err(NO_PIPE.to_owned()) };
        let (file, total) = super::source::open_file(path).map_err(|error| error.to_string())?;
        if total.is_none() {
            return Err(NO_PIPE.to_owned());
        }
        table::parquet_rows(file)
    }

    #[cfg(not(feature = "parquet"))]
    #[allow(clippy::unused_self, reason = "as the build that reads it")]
    pub(super) fn parquet_rows(&self) -> Result<(Box<dyn table::Rows + Send>, Vec<String>), String> {
        Err(WITHOUT_PARQUET.to_owned())
    }

    #[cfg(feature = "parquet")]
    fn read_parquet(&self, asking: Asking, requests: Requests) -> Result<Opened, String> {
        let Self::File(path) = self else { return Err(NO_PIPE.to_owned()) };
        let (file, total) = super::source::open_file(path).map_err(|error| error.to_string())?;
        if total.is_none() {
            return Err(NO_PIPE.to_owned());
        }
        let progress = Progress { done: std::sync::Arc::default(), total };
        let jobs = table::parquet(file, std::sync::Arc::clone(&progress.done), asking, requests)?;
        Ok(Opened { jobs, progress, unit: HeldBy::Row })
    }

    #[cfg(not(feature = "parquet"))]
    #[allow(clippy::unused_self, clippy::needless_pass_by_value, reason = "as the build that reads it")]
    fn read_parquet(&self, _: Asking, _: Requests) -> Result<Opened, String> {
        Err(WITHOUT_PARQUET.to_owned())
    }
}

/// The first byte that says something. A file of objects is JSON Lines, regardless of its name.
fn first_letter(begin: &[u8]) -> Option<u8> {
    let begin = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(begin);
    begin.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

const UNNAMED_PARQUET: &str = "is a Parquet file, and its name does not say so: see --input-format";

#[cfg(feature = "parquet")]
const NO_PIPE: &str = "cannot be read as Parquet, whose description is at its end: expected a file";

#[cfg(not(feature = "parquet"))]
const WITHOUT_PARQUET: &str =
    "is a Parquet file, and this program was built without Parquet (cargo's feature `parquet`)";

#[cfg(test)]
mod tests;
