//! The rows of a table as their author wrote them, to stand beside their jobs.

use super::table::{self, Rows};
use super::{InputError, InputFormat, InputSource, LineError, ReadLimits};
use std::collections::{HashMap, HashSet};

/// More columns than these make no table.
const MOST_COLUMNS: usize = 10_000;

/// One cell of such a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorCell {
    /// The row has no such member, or it is null.
    Empty,
    Text(String),
    /// JSON that is no string, as it was written.
    Json(String),
    /// A number that JSON has no form for: `NaN`, `inf` or `-inf`.
    NotFinite(&'static str),
}

impl AuthorCell {
    /// The text of it, as the metadata of its job has it: nothing where that has `null`.
    #[must_use]
    pub fn as_text(&self) -> &str {
        match self {
            Self::Empty | Self::NotFinite(_) => "",
            Self::Text(text) | Self::Json(text) => text,
        }
    }
}

/// A table, row by row.
pub struct AuthorRows {
    header: Vec<String>,
    places: HashMap<String, usize>,
    rows: Box<dyn Rows + Send>,
    /// Whether every cell is a text.
    is_text: bool,
    ended: bool,
}

impl InputSource {
    /// Opens a table of any format. JSON Lines are read twice, for the names of their columns first.
    ///
    /// # Errors
    /// In words, to be put behind the source's name: it cannot be opened, or is no table.
    pub fn author_rows(
        &self,
        format: Option<InputFormat>,
        delimiter: Option<u8>,
        limits: ReadLimits,
    ) -> Result<AuthorRows, String> {
        let longest = limits.line_bytes.clamp(1, ReadLimits::MOST_LINE_BYTES);
        let opened = || self.open().map(|(reader, _)| reader).map_err(|error| error.to_string());
        let format = self.table_format(format)?;
        let (rows, header): (Box<dyn Rows + Send>, Vec<String>) = match format {
            InputFormat::Parquet => self.parquet_rows()?,
            InputFormat::JsonLines => {
                let header = header_of(&mut *table::json_rows(opened()?, longest))?;
                (table::json_rows(opened()?, longest), header)
            }
            delimited => {
                let usual = if delimited == InputFormat::Tsv { b'\t' } else { b',' };
                table::delimited_rows(opened()?, delimiter.unwrap_or(usual), longest)?
            }
        };
        let places = header.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        let is_text = matches!(format, InputFormat::Csv | InputFormat::Tsv);
        Ok(AuthorRows { header, places, rows, is_text, ended: false })
    }
}

/// The members of all rows, in the order in which they come.
fn header_of(rows: &mut dyn Rows) -> Result<Vec<String>, String> {
    let mut header: Vec<String> = Vec::new();
    let mut known = HashSet::new();
    while let Some(row) = rows.next_row() {
        let row = match row {
            Ok(row) => row,
            // It is told when it is read for its values.
            Err(InputError::Line(_)) => continue,
            Err(error) => return Err(format!("line {error}")),
        };
        for (name, _) in row.cells {
            if known.insert(name.to_string()) {
                header.push(name.to_string());
            }
        }
        if header.len() > MOST_COLUMNS {
            return Err(format!("has more than {MOST_COLUMNS} different members, so it makes no table"));
        }
    }
    if header.is_empty() { Err("there are no rows in it".to_owned()) } else { Ok(header) }
}

impl AuthorRows {
    /// The names of the columns.
    #[must_use]
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// Whether every cell is a text, as in CSV.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        self.is_text
    }
}

impl Iterator for AuthorRows {
    type Item = Result<Vec<AuthorCell>, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = match self.rows.next_row() {
            Some(Ok(row)) => row,
            Some(Err(error)) => {
                self.ended = matches!(error, InputError::Read { .. });
                return Some(Err(error));
            }
            None => {
                self.ended = true;
                return None;
            }
        };
        let mut cells = vec![AuthorCell::Empty; self.header.len()];
        for (name, cell) in row.cells {
            let Some(place) = self.places.get(&*name).and_then(|place| cells.get_mut(*place)) else {
                let reason = "has come into the file while it was read".to_owned();
                return Some(Err(InputError::Line(LineError::new(row.line, name.to_string(), reason))));
            };
            *place = cell.into();
        }
        Some(Ok(cells))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str, delimiter: Option<u8>) -> Result<(Vec<String>, Vec<Vec<AuthorCell>>), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let rows = InputSource::new(Some(&path)).author_rows(None, delimiter, ReadLimits::default())?;
        let header = rows.header().to_vec();
        let rows: Result<Vec<_>, _> = rows.collect();
        Ok((header, rows.map_err(|error| error.to_string())?))
    }

    #[test]
    fn each_format_gives_the_cells_as_they_were_written() {
        let text = |text: &str| AuthorCell::Text(text.to_owned());
        for (name, content, delimiter) in [
            ("a.csv", "id,text\n1,\"a, b\"\n2,\n", None),
            ("a.tsv", "id\ttext\n1\ta, b\n2\t\n", None),
            ("a.csv", "id;text\n1;a, b\n2;\n", Some(b';')),
            // By what it holds, as jobs are read: objects are JSON Lines under any file name.
            ("a.csv", "{\"id\": \"1\", \"text\": \"a, b\"}\n{\"id\": \"2\", \"text\": \"\"}\n", None),
            ("a.dat", "\u{feff} {\"id\": \"1\", \"text\": \"a, b\"}\n{\"id\": \"2\", \"text\": \"\"}\n", None),
        ] {
            let (header, rows) = read(name, content, delimiter).unwrap();
            assert_eq!(header, ["id", "text"], "{name}");
            assert_eq!(rows, [[text("1"), text("a, b")], [text("2"), text("")]], "{name}");
        }
        let lines = "{\"id\": 1.50, \"text\": \"x\"}\n{\"more\": null, \"id\": 2}\n";
        let (header, rows) = read("a.jsonl", lines, None).unwrap();
        let json = |json: &str| AuthorCell::Json(json.to_owned());
        assert_eq!(header, ["id", "text", "more"]);
        assert_eq!(rows[0], [json("1.50"), text("x"), AuthorCell::Empty]);
        assert_eq!(rows[1], [json("2"), AuthorCell::Empty, AuthorCell::Empty]);
    }

    #[test]
    fn what_is_no_table_is_told() {
        for (name, content, words) in [
            ("a.csv", "", "is empty"),
            ("a.csv", "a,a\n1,2\n", "both called `a`"),
            ("a.csv", "a,b\n1\n", "2: expected 2 cells"),
            ("a.jsonl", "", "there are no rows in it"),
            ("a.jsonl", "{\"a\": 1}\n[]\n", "2: expected an object"),
            ("a.xlsx", "x", "is a spreadsheet"),
        ] {
            let told = read(name, content, None).unwrap_err();
            assert!(told.contains(words), "{name}: {told}");
        }
    }
}
