//! A table in Apache Parquet, written a group of rows at a time.

use super::sheet::Sheet;
use crate::cli::output::OutputError;
use crate::domain::NanoUsd;
use crate::view::flat_row::{FlatCell, Kind, Layout};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use std::io::Write;
use std::sync::Arc;

/// Rows and bytes of a group, which is held in memory until it is full: few enough for memory, many enough that a
/// column is read at one go.
const GROUP_ROWS: usize = 50_000;
const GROUP_BYTES: usize = 32 << 20;

/// Digits behind the point of dollars, and all of them.
const SCALE: i32 = 9;
const PRECISION: i32 = 18;

/// A Parquet file under way.
pub(super) struct ParquetSheet<'a> {
    writer: SerializedFileWriter<&'a mut (dyn Write + Send)>,
    group: Vec<Column>,
    rows: usize,
    bytes: usize,
}

/// The values of a column in the group that is being filled. `levels` is 1 where there is a value.
struct Column {
    values: ColumnValues,
    levels: Vec<i16>,
}

enum ColumnValues {
    Text(Vec<ByteArray>),
    Integer(Vec<i64>),
    Float(Vec<f64>),
    Flag(Vec<bool>),
    Money(Vec<i64>),
}

impl Column {
    fn new(kind: Kind) -> Self {
        let values = match kind {
            Kind::Text => ColumnValues::Text(Vec::new()),
            Kind::Integer => ColumnValues::Integer(Vec::new()),
            Kind::Float => ColumnValues::Float(Vec::new()),
            Kind::Flag => ColumnValues::Flag(Vec::new()),
            Kind::Money => ColumnValues::Money(Vec::new()),
        };
        Self { values, levels: Vec::new() }
    }

    /// Takes a value in; returns about how many bytes it takes. `None`: it does not fit the kind.
    fn push(&mut self, cell: &FlatCell) -> Option<usize> {
        if *cell == FlatCell::Empty {
            self.levels.push(0);
            return Some(2);
        }
        let json = match cell {
            FlatCell::Json(text) => Some(text.as_str()),
            FlatCell::NotFinite(word) => Some(*word),
            FlatCell::Empty | FlatCell::Text(_) | FlatCell::Verbatim(_) | FlatCell::Money(_) => None,
        };
        let size = match &mut self.values {
            ColumnValues::Text(values) => {
                let text = match cell {
                    FlatCell::Text(text) | FlatCell::Verbatim(text) | FlatCell::Json(text) => text.as_str(),
                    FlatCell::NotFinite(word) => word,
                    FlatCell::Money(_) | FlatCell::Empty => return None,
                };
                values.push(ByteArray::from(text));
                text.len() + 32
            }
            ColumnValues::Integer(values) => {
                values.push(json?.parse().ok()?);
                8
            }
            ColumnValues::Float(values) => {
                values.push(json?.parse().ok()?);
                8
            }
            ColumnValues::Flag(values) => {
                values.push(json?.parse().ok()?);
                1
            }
            ColumnValues::Money(values) => {
                let FlatCell::Money(NanoUsd(nanos)) = cell else { return None };
                values.push(*nanos);
                8
            }
        };
        self.levels.push(1);
        Some(size + 2)
    }

    fn write<W: Write + Send>(&mut self, group: &mut SerializedRowGroupWriter<'_, W>) -> Result<(), ParquetError> {
        let Some(mut column) = group.next_column()? else { return Ok(()) };
        let levels = Some(self.levels.as_slice());
        match &self.values {
            ColumnValues::Text(values) => column.typed::<ByteArrayType>().write_batch(values, levels, None)?,
            ColumnValues::Integer(values) | ColumnValues::Money(values) => {
                column.typed::<Int64Type>().write_batch(values, levels, None)?
            }
            ColumnValues::Float(values) => column.typed::<DoubleType>().write_batch(values, levels, None)?,
            ColumnValues::Flag(values) => column.typed::<BoolType>().write_batch(values, levels, None)?,
        };
        column.close()?;
        self.levels.clear();
        match &mut self.values {
            ColumnValues::Text(values) => values.clear(),
            ColumnValues::Integer(values) | ColumnValues::Money(values) => values.clear(),
            ColumnValues::Float(values) => values.clear(),
            ColumnValues::Flag(values) => values.clear(),
        }
        Ok(())
    }
}

impl<'a> ParquetSheet<'a> {
    /// Begins a file with these columns, each of which may be null.
    pub(super) fn open(layout: &Layout, writer: &'a mut (dyn Write + Send)) -> anyhow::Result<Self> {
        let column = |name: &str, kind: Kind| {
            let (physical, logical) = match kind {
                Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
                Kind::Integer => (Physical::INT64, None),
                Kind::Float => (Physical::DOUBLE, None),
                Kind::Flag => (Physical::BOOLEAN, None),
                Kind::Money => (Physical::INT64, Some(LogicalType::decimal(SCALE, PRECISION))),
            };
            let mut column = Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(logical);
            if kind == Kind::Money {
                column = column.with_precision(PRECISION).with_scale(SCALE);
            }
            column.build().map(Arc::new)
        };
        let columns = layout.columns().iter().map(|of| column(&of.name, of.kind)).collect::<Result<_, _>>()?;
        let schema = Type::group_type_builder("answers").with_fields(columns).build()?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(writer, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
        let group = layout.columns().iter().map(|column| Column::new(column.kind)).collect();
        Ok(Self { writer, group, rows: 0, bytes: 0 })
    }

    fn end_group(&mut self) -> anyhow::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(failed)?;
        for column in &mut self.group {
            column.write(&mut group).map_err(failed)?;
        }
        group.close().map_err(failed)?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Sheet for ParquetSheet<'_> {
    fn write(&mut self, layout: &Layout, row: &[FlatCell]) -> anyhow::Result<()> {
        for ((column, of), cell) in self.group.iter_mut().zip(layout.columns()).zip(row) {
            // The kinds were found in a first pass; a job that came in between may have another.
            let Some(bytes) = column.push(cell) else {
                anyhow::bail!(
                    "the batch has changed while it was read: the column {:?} got a value of another kind; run the \
                     command again",
                    of.name
                )
            };
            self.bytes += bytes;
        }
        self.rows += 1;
        if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES { self.end_group() } else { Ok(()) }
    }

    fn end(mut self: Box<Self>) -> anyhow::Result<()> {
        self.end_group()?;
        self.writer.close().map_err(failed)?;
        Ok(())
    }
}

fn failed(error: ParquetError) -> anyhow::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(error) => OutputError(*error).into(),
            Err(cause) => anyhow::anyhow!("writing Parquet: {cause}"),
        },
        error => anyhow::anyhow!("writing Parquet: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::results::{EndedJob, ExportedJob};
    use crate::view::flat_row::{Fields, Survey};
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    #[test]
    fn values_have_types_and_money_every_digit() {
        let job = |number: i64, answer: &str| ExportedJob {
            is_replaced: false,
            job: number,
            custom_id: None,
            enqueued_by: "app".to_owned(),
            metadata: Some(format!("{{\"n\":{number},\"text\":\"t\"}}")),
            ending: Some(EndedJob::Succeeded {
                response: Some(serde_json::json!({"choices":[{"message":{"content":answer}}]}).to_string()),
            }),
            attempts: 1,
            provider: None,
            model: None,
            repaired: true,
            confidence: None,
            low_confidence: false,
            cost: Some(NanoUsd(1)),
            request_id: None,
        };
        let jobs = [job(1, r#"{"ok":true,"score":0.5}"#), job(2, "prose")];
        let mut survey = Survey::new(Fields::Found, true);
        for job in &jobs {
            survey.look(job).unwrap();
        }
        let layout = Layout::of(&survey);
        let mut bytes = Vec::new();
        let mut sheet = Box::new(ParquetSheet::open(&layout, &mut bytes).unwrap());
        for job in &jobs {
            sheet.write(&layout, &layout.row(job).unwrap()).unwrap();
        }
        sheet.end().unwrap();
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(rows.len(), 2);
        for part in ["n: 1", "text: \"t\"", "ok: true", "score: 0.5", "cost: 0.000000001", "provider: null"] {
            assert!(rows[0].contains(part), "{part}: {}", rows[0]);
        }
        assert!(rows[1].contains("ok: null") && rows[1].contains("answer: \"prose\""), "{}", rows[1]);
    }
}
