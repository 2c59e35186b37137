//! Tables, written row by row: as CSV, with tabs, as lines of JSON, or in Parquet.

use super::shape::Shape;
use crate::cli::output::OutputError;
use crate::view::dollars::Dollars;
use crate::view::fields::csv_field;
use crate::view::flat_row::{FlatCell, Layout};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;
use std::io::Write;

/// A table under way.
pub(super) trait Sheet: Send {
    /// Writes a row: a cell for each column of the layout.
    fn write(&mut self, layout: &Layout, row: &[FlatCell]) -> anyhow::Result<()>;

    /// Writes the rows held back.
    fn end(self: Box<Self>) -> anyhow::Result<()>;
}

/// Begins a table with these columns.
pub(super) fn open<'a>(
    shape: Shape,
    layout: &Layout,
    writer: &'a mut (dyn Write + Send),
) -> anyhow::Result<Box<dyn Sheet + 'a>> {
    Ok(match shape {
        Shape::Openai | Shape::Jsonl => Box::new(Lines(writer)),
        Shape::Csv => Box::new(Separated::open(b',', layout, writer)?),
        Shape::Tsv => Box::new(Separated::open(b'\t', layout, writer)?),
        #[cfg(feature = "parquet")]
        Shape::Parquet => Box::new(super::columnar::ParquetSheet::open(layout, writer)?),
        #[cfg(not(feature = "parquet"))]
        Shape::Parquet => anyhow::bail!("this build of sluice writes no Parquet"),
    })
}

/// A JSON object to a line.
struct Lines<'a>(&'a mut (dyn Write + Send));

impl Sheet for Lines<'_> {
    fn write(&mut self, layout: &Layout, row: &[FlatCell]) -> anyhow::Result<()> {
        let line = line(layout, row)?;
        writeln!(self.0, "{line}").map_err(|error| OutputError(error).into())
    }

    fn end(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A row as a JSON object.
pub(super) fn line(layout: &Layout, row: &[FlatCell]) -> serde_json::Result<String> {
    serde_json::to_string(&Object { layout, row })
}

struct Object<'a> {
    layout: &'a Layout,
    row: &'a [FlatCell],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.row.len()))?;
        for (column, cell) in self.layout.columns().iter().zip(self.row) {
            let name = column.name.as_str();
            match cell {
                FlatCell::Empty => map.serialize_entry(name, &())?,
                FlatCell::Text(text) | FlatCell::Verbatim(text) => map.serialize_entry(name, text)?,
                FlatCell::NotFinite(word) => map.serialize_entry(name, word)?,
                // As it was written; every digit stays.
                FlatCell::Json(json) => match serde_json::from_str::<&RawValue>(json) {
                    Ok(raw) => map.serialize_entry(name, raw)?,
                    Err(_) => map.serialize_entry(name, json)?,
                },
                FlatCell::Money(money) => map.serialize_entry(name, &Dollars(*money))?,
            }
        }
        map.end()
    }
}

/// Values with a sign between them.
struct Separated<'a>(csv::Writer<&'a mut (dyn Write + Send)>);

impl<'a> Separated<'a> {
    fn open(delimiter: u8, layout: &Layout, writer: &'a mut (dyn Write + Send)) -> anyhow::Result<Self> {
        let mut csv = csv::WriterBuilder::new().delimiter(delimiter).from_writer(writer);
        write_head(&mut csv, layout).map_err(failed)?;
        Ok(Self(csv))
    }
}

fn write_head(csv: &mut csv::Writer<impl Write>, layout: &Layout) -> csv::Result<()> {
    csv.write_record(layout.columns().iter().map(|column| csv_field(&column.name).into_owned().into_bytes()))
}

fn write_row(csv: &mut csv::Writer<impl Write>, row: &[FlatCell]) -> csv::Result<()> {
    for cell in row {
        match cell {
            FlatCell::Empty => csv.write_field(b""),
            FlatCell::Text(text) => csv.write_field(csv_field(text).as_bytes()),
            // A number is no formula, and neither is what begins with a bracket.
            FlatCell::Json(json) => csv.write_field(json.as_bytes()),
            FlatCell::Money(money) => csv.write_field(Dollars(*money).to_string().as_bytes()),
            FlatCell::Verbatim(text) => csv.write_field(text.as_bytes()),
            FlatCell::NotFinite(word) => csv.write_field(word.as_bytes()),
        }?;
    }
    csv.write_record(None::<&[u8]>)
}

/// The head of a table with this sign between its cells, or one row of it.
pub(super) fn record(delimiter: u8, layout: &Layout, row: Option<&[FlatCell]>) -> anyhow::Result<Vec<u8>> {
    let mut csv = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
    match row {
        Some(row) => write_row(&mut csv, row),
        None => write_head(&mut csv, layout),
    }
    .map_err(failed)?;
    csv.into_inner().map_err(|error| OutputError(error.into_error()).into())
}

impl Sheet for Separated<'_> {
    fn write(&mut self, _: &Layout, row: &[FlatCell]) -> anyhow::Result<()> {
        write_row(&mut self.0, row).map_err(failed)
    }

    fn end(mut self: Box<Self>) -> anyhow::Result<()> {
        self.0.flush().map_err(|error| OutputError(error).into())
    }
}

fn failed(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => OutputError(error).into(),
        kind => anyhow::anyhow!("writing a row: {kind:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NanoUsd;
    use crate::view::flat_row::{Fields, Kinds, Survey};

    fn written(shape: Shape, header: &[&str], rows: &[Vec<FlatCell>]) -> String {
        let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
        let layout =
            Layout::beside(&header, &Kinds::none(header.len()), &Survey::new(Fields::Named(Vec::new()), false));
        let mut bytes = Vec::new();
        let mut sheet = open(shape, &layout, &mut bytes).unwrap();
        for row in rows {
            let mut row = row.clone();
            row.resize(layout.columns().len(), FlatCell::Empty);
            sheet.write(&layout, &row).unwrap();
        }
        sheet.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn formulas_are_disarmed_but_in_cells_that_were_hers() {
        let text = |text: &str| FlatCell::Text(text.to_owned());
        let row = vec![
            text("=1+1"),
            FlatCell::Verbatim("=1+1".to_owned()),
            FlatCell::Json("-1.5e3".to_owned()),
            FlatCell::Money(NanoUsd(-5_000_000)),
            text("a\tb"),
            FlatCell::Empty,
        ];
        let csv = written(Shape::Csv, &["=a"], std::slice::from_ref(&row));
        let mut lines = csv.lines();
        assert!(lines.next().unwrap().starts_with("'=a,job,custom_id,"), "{csv}");
        assert!(lines.next().unwrap().starts_with("'=1+1,=1+1,-1.5e3,-0.005,a\tb,,"), "{csv}");
        let tsv = written(Shape::Tsv, &["a"], &[row]);
        assert!(tsv.lines().nth(1).unwrap().starts_with("'=1+1\t=1+1\t-1.5e3\t-0.005\t\"a\tb\"\t\t"), "{tsv}");
    }

    #[test]
    fn a_line_keeps_every_digit() {
        let row = vec![
            FlatCell::Json("12345678901234567890.10".to_owned()),
            FlatCell::Empty,
            FlatCell::Verbatim("x".to_owned()),
            FlatCell::Money(NanoUsd(1)),
        ];
        let begin =
            "{\"a\":12345678901234567890.10,\"job\":null,\"custom_id\":\"x\",\"state\":0.000000001,\"answer\":null";
        let line = written(Shape::Jsonl, &["a"], &[row]);
        assert!(line.starts_with(begin), "{line}");
    }
}
