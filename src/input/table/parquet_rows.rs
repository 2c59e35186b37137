//! Rows of Parquet, one group of rows after the other.

use super::row::{Cell, Row};
use super::{Columns, Rows};
use crate::input::{InputError, LineError};
use ::parquet::basic::{Compression, ConvertedType, LogicalType, TimeUnit, Type as Physical};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row as Record};
use ::parquet::schema::types::{ColumnDescriptor, Type};
use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta};
use serde_json::{Number, Value};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Values of a column that are read at once: cells may be large.
const AT_ONCE: usize = 128;

/// Reads rows one at a time.
pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    columns: Arc<[Arc<str>]>,
    /// Columns of timestamps in nanoseconds, which the reader gives as numbers.
    nanos: Vec<bool>,
    /// Rows that were read, and those that there are.
    read: u64,
    all: u64,
    /// How far this is, in bytes of the file.
    done: Arc<AtomicU64>,
    bytes: u64,
}

impl ParquetRows {
    /// Reads the description of a file at its end. `done`: the bytes of it that were read.
    ///
    /// # Errors
    /// It is no Parquet file, is cut short, or has columns that cannot be read.
    pub(super) fn open(file: File, done: Arc<AtomicU64>) -> Result<(Self, Columns), String> {
        let bytes = file.metadata().map_err(|error| error.to_string())?.len();
        let reader = SerializedFileReader::new(file).map_err(|error| {
            let what = "is no Parquet file, or one that was cut short: the description at its end cannot be read";
            format!("{what} ({})", in_words(&error))
        })?;
        let metadata = reader.metadata().file_metadata();
        let all = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let schema = metadata.schema_descr();
        let unread = schema.columns().iter().find(|column| !is_read(column));
        if let Some(column) = unread {
            let kind = format!("{} ({})", column.converted_type(), column.physical_type());
            return Err(format!("the column `{}` is of the type {kind}, which is not read", column.path().string()));
        }
        let groups = reader.metadata().row_groups();
        let mut ways = groups.iter().flat_map(RowGroupMetaData::columns).map(ColumnChunkMetaData::compression);
        if let Some(way) = ways.find(|way| matches!(way, Compression::BROTLI(_) | Compression::LZO)) {
            let way = if way == Compression::LZO { "LZO" } else { "Brotli" };
            return Err(format!("is compressed with {way}, which is not read; Snappy, Zstandard, gzip and LZ4 are"));
        }
        let fields = schema.root_schema().get_fields();
        let columns: Arc<[Arc<str>]> = fields.iter().map(|field| Arc::from(field.name())).collect();
        let nanos = fields.iter().map(|field| is_nanos(field)).collect();
        let found = Columns::new(Arc::clone(&columns), None)?;
        let rows = RowIter::from_file_into(Box::new(reader)).with_batch_size(AT_ONCE);
        Ok((Self { rows, columns, nanos, read: 0, all, done, bytes }, found))
    }

    fn row(&self, record: Record) -> Result<Row, InputError> {
        let mut cells = Vec::with_capacity(record.len());
        for ((name, is_nanos), (_, field)) in self.columns.iter().zip(&self.nanos).zip(record.into_columns()) {
            let cell = match field {
                Field::Long(nanos) if *is_nanos => Some(Cell::Text(instant(DateTime::from_timestamp_nanos(nanos)))),
                field => cell(field),
            };
            let cell = cell.ok_or_else(|| {
                let reason = "has bytes that are no text; expected UTF-8".to_owned();
                InputError::Line(LineError::new(self.read, name.to_string(), reason))
            })?;
            cells.push((Arc::clone(name), cell));
        }
        Ok(Row { line: self.read, cells })
    }
}

impl Rows for ParquetRows {
    fn next_row(&mut self) -> Option<Result<Row, InputError>> {
        let rows = &mut self.rows;
        // The reader is sure of files that were written in good order, and panics over some others.
        let next = catch_unwind(AssertUnwindSafe(|| rows.next()));
        let damaged = |words: String| {
            let source = io::Error::new(io::ErrorKind::InvalidData, format!("the Parquet file is damaged: {words}"));
            Some(Err(InputError::Read { line: self.read + 1, source }))
        };
        match next {
            Ok(None) if self.read < self.all => damaged("rows are missing".to_owned()),
            Ok(None) => None,
            Ok(Some(Ok(record))) => {
                self.read += 1;
                let done = u128::from(self.bytes) * u128::from(self.read) / u128::from(self.all.max(1));
                self.done.store(u64::try_from(done).unwrap_or(self.bytes), Ordering::Relaxed);
                Some(self.row(record))
            }
            Ok(Some(Err(error))) => damaged(in_words(&error)),
            Err(_) => damaged("a part of it means nothing".to_owned()),
        }
    }
}

/// The reader's words, without the values that it quotes.
fn in_words(error: &ParquetError) -> String {
    let said = error.to_string();
    let said = said.split(" Bytes:").next().unwrap_or_default();
    let said = said.strip_prefix("Parquet error: ").unwrap_or(said);
    // The words of a library behind the reader say nothing of the file.
    if said.starts_with("External: ") {
        return "a part of it cannot be unpacked".to_owned();
    }
    said.chars().take(120).collect()
}

/// Whether the reader has a form for the values of a column.
fn is_read(column: &ColumnDescriptor) -> bool {
    use ConvertedType as C;
    let converted = column.converted_type();
    match column.physical_type() {
        Physical::INT32 => matches!(
            converted,
            C::INT_8
                | C::INT_16
                | C::INT_32
                | C::NONE
                | C::UINT_8
                | C::UINT_16
                | C::UINT_32
                | C::DATE
                | C::TIME_MILLIS
                | C::DECIMAL
        ),
        Physical::INT64 => matches!(
            converted,
            C::INT_64 | C::NONE | C::UINT_64 | C::TIME_MICROS | C::TIMESTAMP_MILLIS | C::TIMESTAMP_MICROS | C::DECIMAL
        ),
        Physical::BYTE_ARRAY => {
            matches!(converted, C::UTF8 | C::ENUM | C::JSON | C::BSON | C::NONE | C::DECIMAL)
        }
        Physical::FIXED_LEN_BYTE_ARRAY => matches!(converted, C::DECIMAL | C::NONE),
        Physical::BOOLEAN | Physical::INT96 | Physical::FLOAT | Physical::DOUBLE => true,
    }
}

fn is_nanos(field: &Type) -> bool {
    let logical = field.get_basic_info().logical_type_ref();
    matches!(logical, Some(LogicalType::Timestamp(kind)) if kind.unit == TimeUnit::NANOS)
}

fn null() -> Cell {
    Cell::Json("null".to_owned())
}

fn not_finite(number: f64) -> Cell {
    Cell::NotFinite(match number {
        number if number.is_nan() => "NaN",
        number if number > 0.0 => "inf",
        _ => "-inf",
    })
}

/// `None`: bytes that are no text.
fn cell(field: Field) -> Option<Cell> {
    Some(match field {
        Field::Str(text) => Cell::Text(text),
        Field::Bytes(bytes) => Cell::Text(String::from_utf8(bytes.data().to_vec()).ok()?),
        Field::Null => null(),
        Field::Date(days) => Cell::Text(date(days)),
        Field::TimestampMillis(millis) => Cell::Text(instant(DateTime::from_timestamp_millis(millis)?)),
        Field::TimestampMicros(micros) => Cell::Text(instant(DateTime::from_timestamp_micros(micros)?)),
        Field::TimeMillis(_) | Field::TimeMicros(_) => Cell::Text(field.to_string()),
        Field::Float(number) if !number.is_finite() => not_finite(number.into()),
        Field::Float16(number) if !number.is_finite() => not_finite(number.into()),
        Field::Double(number) if !number.is_finite() => not_finite(number),
        field => {
            let json = json(&field);
            Cell::Json(json)
        }
    })
}

/// As JSON; bytes that are no text are `null` below the top.
fn json(field: &Field) -> String {
    match field {
        Field::Bool(flag) => flag.to_string(),
        Field::Byte(number) => number.to_string(),
        Field::Short(number) => number.to_string(),
        Field::Int(number) => number.to_string(),
        Field::Long(number) => number.to_string(),
        Field::UByte(number) => number.to_string(),
        Field::UShort(number) => number.to_string(),
        Field::UInt(number) => number.to_string(),
        Field::ULong(number) => number.to_string(),
        // As short as it is exact: 0.1 stays 0.1.
        Field::Float(number) => number_or_null(number.to_string()),
        Field::Float16(number) => number_or_null(number.to_string()),
        Field::Double(number) => {
            Number::from_f64(*number).map_or_else(|| "null".to_owned(), |number| number.to_string())
        }
        Field::Decimal(_) => number_or_null(field.to_string()),
        Field::Group(row) => {
            let members =
                row.get_column_iter().map(|(name, field)| format!("{}:{}", Value::from(name.as_str()), json(field)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Field::ListInternal(list) => {
            let items: Vec<String> = list.elements().iter().map(json).collect();
            format!("[{}]", items.join(","))
        }
        Field::MapInternal(map) => {
            let member = |(key, value): &(Field, Field)| {
                let key = cell(key.clone()).unwrap_or_else(null);
                format!("{}:{}", Value::from(key.as_text()), json(value))
            };
            let members: Vec<String> = map.entries().iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        other => cell(other.clone()).unwrap_or_else(null).to_json().into_owned(),
    }
}

fn number_or_null(written: String) -> String {
    if serde_json::from_str::<Number>(&written).is_ok() { written } else { "null".to_owned() }
}

fn date(days: i32) -> String {
    let epoch = NaiveDate::default();
    epoch.checked_add_signed(TimeDelta::days(days.into())).map_or_else(|| days.to_string(), |date| date.to_string())
}

fn instant(at: DateTime<chrono::Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
