//! The shapes in which the answers of a batch are written.

use crate::cli::failure::CommandFailure;
use crate::cli::output::Format;
use std::ffi::OsStr;
use std::path::Path;

/// A shape of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Lines as OpenAI's batches write them
    Openai,
    /// A flat JSON object to a line, with the columns of a table
    Jsonl,
    /// A table with commas
    Csv,
    /// A table with tabs
    Tsv,
    /// A table in Apache Parquet
    Parquet,
}

impl Shape {
    /// The shape of a file: the one that was asked for, or the one that its ending names. `.jsonl` says nothing, for
    /// both kinds of lines are called so.
    #[must_use]
    pub fn of(asked: Option<Self>, file: Option<&Path>, format: Format) -> Self {
        let ending = || match file?.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        };
        let of_format = (format == Format::Csv).then_some(Self::Csv);
        asked.or_else(ending).or(of_format).unwrap_or(Self::Openai)
    }

    /// Whether every row of it has the same columns.
    #[must_use]
    pub const fn is_table(self) -> bool {
        !matches!(self, Self::Openai)
    }

    /// Whether it is JSON to those who see it on a terminal.
    #[must_use]
    pub const fn is_json(self) -> bool {
        matches!(self, Self::Openai | Self::Jsonl)
    }

    /// Checks that this program can write it there.
    ///
    /// # Errors
    /// [`CommandFailure`] says what to do instead.
    pub fn require_writable(self, is_terminal: bool) -> Result<(), CommandFailure> {
        if self != Self::Parquet {
            return Ok(());
        }
        if !cfg!(feature = "parquet") {
            return Err(CommandFailure::usage(
                "this build of sluice writes no Parquet: it was made without the feature `parquet`. Write CSV (--as \
                 csv), or build it with that feature",
            ));
        }
        if is_terminal {
            return Err(CommandFailure::usage("Parquet is no text for a terminal: give it a file with -o FILE"));
        }
        Ok(())
    }
}

/// Checks that a file's name does not promise a form that is not written.
///
/// # Errors
/// [`CommandFailure`] says what to do instead.
pub(super) fn require_named(file: &Path) -> Result<(), CommandFailure> {
    let ending = file.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    let shown = file.display();
    match ending.as_str() {
        "gz" | "bz2" | "xz" | "zst" | "zip" => Err(CommandFailure::usage(format!(
            "{shown}: files are not compressed when they are written: write {} and compress it then, or write Parquet, \
             which is compressed",
            file.with_extension("").display()
        ))),
        "xlsx" | "xls" | "ods" => Err(CommandFailure::usage(format!(
            "{shown}: spreadsheets ({ending}) are not written: write {}, which a spreadsheet opens",
            file.with_extension("csv").display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_promises_something_else_is_refused_with_what_to_do() {
        for (file, words) in [
            ("out.csv.gz", "write out.csv and compress it"),
            ("a/b.jsonl.ZST", "write a/b.jsonl and"),
            ("out.xlsx", "write out.csv, which"),
        ] {
            let told = require_named(Path::new(file)).unwrap_err().to_string();
            assert!(told.starts_with(file) && told.contains(words), "{told}");
        }
        for file in ["-", "out.csv", "out", "out.gz.csv", ".gz"] {
            assert!(require_named(Path::new(file)).is_ok(), "{file}");
        }
    }

    #[test]
    fn the_ending_tells_the_shape_and_an_option_overrules_it() {
        let of = |asked, file: &str| Shape::of(asked, Some(Path::new(file)), Format::Plain);
        for (file, shape) in [
            ("a.csv", Shape::Csv),
            ("a.TSV", Shape::Tsv),
            ("a/b.parquet", Shape::Parquet),
            ("a.pq", Shape::Parquet),
            ("a.tab", Shape::Tsv),
            ("a.jsonl", Shape::Openai),
            ("-", Shape::Openai),
            ("csv", Shape::Openai),
        ] {
            assert_eq!(of(None, file), shape, "{file}");
            assert_eq!(of(Some(Shape::Jsonl), file), Shape::Jsonl);
        }
        assert_eq!(Shape::of(None, None, Format::Csv), Shape::Csv);
        assert_eq!(Shape::of(None, Some(Path::new("a.tsv")), Format::Csv), Shape::Tsv);
    }

    #[test]
    fn a_build_without_parquet_says_so() {
        let told = Shape::Parquet.require_writable(false).map_err(|failure| failure.to_string());
        if cfg!(feature = "parquet") {
            assert_eq!(told, Ok(()));
        } else {
            assert!(told.unwrap_err().contains("without the feature `parquet`"));
        }
        assert!(Shape::Parquet.require_writable(true).is_err());
    }
}
