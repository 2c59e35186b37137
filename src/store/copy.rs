//! Rows in the binary form of COPY. The server takes many of them at once, reads no array and little text, and notes
//! them in its log page by page. It offers no `on conflict`: a key that exists is an error.

use super::database::Transaction;
use chrono::{DateTime, Utc};

/// The first bytes, the flags and the length of an extension, of which there is none.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The end of the rows.
const END: i16 = -1;

/// Microseconds between the epoch of Unix and that of Postgres.
const EPOCH: i64 = 946_684_800_000_000;

/// A value as a field of a row. Its type must be exactly that of its column: the server converts nothing.
pub(super) trait Field {
    /// Appends the length, in four bytes, and the value.
    fn append(&self, row: &mut Vec<u8>);
}

/// Appends a field of these bytes.
fn append(row: &mut Vec<u8>, parts: [&[u8]; 2]) {
    let length = parts[0].len() + parts[1].len();
    // The server's own bound is a quarter of it, and it refuses the row.
    row.extend_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
    row.extend_from_slice(parts[0]);
    row.extend_from_slice(parts[1]);
}

macro_rules! number {
    ($($kind:ty),+) => {$(
        impl Field for $kind {
            fn append(&self, row: &mut Vec<u8>) {
                append(row, [&self.to_be_bytes(), &[]]);
            }
        }
    )+};
}

number!(i16, i32, i64, f64);

impl Field for bool {
    fn append(&self, row: &mut Vec<u8>) {
        append(row, [&[u8::from(*self)], &[]]);
    }
}

impl Field for str {
    fn append(&self, row: &mut Vec<u8>) {
        append(row, [self.as_bytes(), &[]]);
    }
}

impl Field for String {
    fn append(&self, row: &mut Vec<u8>) {
        self.as_str().append(row);
    }
}

impl Field for DateTime<Utc> {
    fn append(&self, row: &mut Vec<u8>) {
        (self.timestamp_micros().saturating_sub(EPOCH)).append(row);
    }
}

/// An array of `bigint`.
impl Field for Vec<i64> {
    fn append(&self, row: &mut Vec<u8>) {
        const BIGINT: i32 = 20;
        const NO_NULLS: i32 = 0;
        const FIRST: i32 = 1;
        let count = i32::try_from(self.len()).unwrap_or(i32::MAX);
        let mut array = Vec::with_capacity(20 + self.len() * 12);
        let dimensions = i32::from(count > 0);
        let head: &[i32] = &[dimensions, NO_NULLS, BIGINT, count, FIRST];
        // An empty array has no dimension.
        for part in head.iter().take(if count > 0 { 5 } else { 3 }) {
            array.extend_from_slice(&part.to_be_bytes());
        }
        for number in self {
            number.append(&mut array);
        }
        append(row, [&array, &[]]);
    }
}

/// The text of a value of type `jsonb`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jsonb<T>(pub T);

impl<T: AsRef<str>> Field for Jsonb<T> {
    fn append(&self, row: &mut Vec<u8>) {
        const VERSION: u8 = 1;
        append(row, [&[VERSION], self.0.as_ref().as_bytes()]);
    }
}

impl<T: Field + ?Sized> Field for &T {
    fn append(&self, row: &mut Vec<u8>) {
        (**self).append(row);
    }
}

impl<T: Field + ToOwned + ?Sized> Field for std::borrow::Cow<'_, T> {
    fn append(&self, row: &mut Vec<u8>) {
        (**self).append(row);
    }
}

impl<T: Field> Field for Option<T> {
    fn append(&self, row: &mut Vec<u8>) {
        const NULL: i32 = -1;
        match self {
            Some(value) => value.append(row),
            None => row.extend_from_slice(&NULL.to_be_bytes()),
        }
    }
}

/// Rows for one `copy … from stdin (format binary)`.
#[derive(Debug)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    statement: &'static str,
}

impl Rows {
    /// No rows yet, for a statement that names the columns in the order in which their fields will come.
    pub fn of(statement: &'static str) -> Self {
        Self { bytes: HEAD.to_vec(), statement }
    }

    /// The same, with room for this many bytes.
    pub fn with_capacity(statement: &'static str, bytes: usize) -> Self {
        let mut rows = Self { bytes: Vec::with_capacity(bytes), statement };
        rows.bytes.extend_from_slice(HEAD);
        rows
    }

    /// How many bytes they are so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Begins a row of so many columns, whose fields are appended next.
    pub fn begin(&mut self, columns: usize) -> &mut Vec<u8> {
        // A table has 1,600 columns at most.
        let columns = i16::try_from(columns).unwrap_or(i16::MAX);
        self.bytes.extend_from_slice(&columns.to_be_bytes());
        &mut self.bytes
    }

    /// Sends them to the server.
    pub async fn write(mut self, transaction: &mut Transaction) -> Result<u64, sqlx::Error> {
        self.bytes.extend_from_slice(&END.to_be_bytes());
        transaction.copy_in(self.statement, &self.bytes).await
    }
}

/// Copies rows into a table: `copied!(transaction, "table", rows, row => { column: value, … })`. Each value is a
/// [`Field`] of exactly its column's type.
macro_rules! copied {
    ($transaction:expr, $table:literal, $rows:expr, $row:ident => {
        $first:ident: $first_value:expr, $($column:ident: $value:expr),+ $(,)?
    }) => {{
        const COLUMNS: usize = [stringify!($first), $(stringify!($column)),+].len();
        let mut rows = $crate::store::copy::Rows::of(concat!(
            "copy ", $table, " (", stringify!($first), $(", ", stringify!($column),)+ ") from stdin (format binary)"
        ));
        for $row in $rows {
            let fields = rows.begin(COLUMNS);
            $crate::store::copy::Field::append(&$first_value, fields);
            $($crate::store::copy::Field::append(&$value, fields);)+
        }
        rows.write($transaction)
    }};
}

pub(super) use copied;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_length_and_their_bytes_in_network_order() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let (none, one): (Vec<i64>, Vec<i64>) = (vec![], vec![7]);
        let cases: [(&dyn Field, &[u8]); 14] = [
            (&7_i16, b"\0\0\0\x02\0\x07"),
            (&-2_i32, b"\0\0\0\x04\xff\xff\xff\xfe"),
            (&(1_i64 << 40), b"\0\0\0\x08\0\0\x01\0\0\0\0\0"),
            (&1.0_f64, b"\0\0\0\x08\x3f\xf0\0\0\0\0\0\0"),
            (&true, b"\0\0\0\x01\x01"),
            (&"", b"\0\0\0\0"),
            (&"gr\u{fc}n", b"\0\0\0\x05gr\xc3\xbcn"),
            (&Some("a".to_owned()), b"\0\0\0\x01a"),
            (&None::<i64>, b"\xff\xff\xff\xff"),
            (&none, b"\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\x14"),
            (&one, b"\0\0\0\x20\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0\x01\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x07"),
            (&Jsonb("{}"), b"\0\0\0\x03\x01{}"),
            (&at("2000-01-01T00:00:00.000002Z"), b"\0\0\0\x08\0\0\0\0\0\0\0\x02"),
            (&at("1999-12-31T23:59:59.999999Z"), b"\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xff"),
        ];
        for (field, expected) in cases {
            let mut row = Vec::new();
            field.append(&mut row);
            assert_eq!(row, expected);
        }
    }
}
