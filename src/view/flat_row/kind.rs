//! The kinds of the columns of a table: what takes all values that were seen, to the last digit.

use super::cell::FlatCell;
use crate::domain::written_number::{fits_double, fits_integer};

/// The kind of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Texts, and values that fit no other kind.
    Text,
    /// Whole numbers that 64 bits hold.
    Integer,
    /// Numbers that a `DOUBLE` holds to the last digit that is written.
    Float,
    /// Yes or no.
    Flag,
    /// Dollars.
    Money,
}

/// What the values of a column have been so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenKinds {
    kind: Kind,
    /// Whether one of its whole numbers has digits that a `DOUBLE` would lose.
    is_wide: bool,
}

impl SeenKinds {
    /// What one JSON value is; `None`: null fits every kind.
    pub(super) fn of(value: &str) -> Option<Self> {
        let kind = match value.as_bytes().first() {
            Some(b'n') | None => return None,
            Some(b't' | b'f') => Kind::Flag,
            Some(b'-' | b'0'..=b'9') if fits_integer(value) => Kind::Integer,
            Some(b'-' | b'0'..=b'9') if fits_double(value) => Kind::Float,
            // Two numbers must not become one.
            Some(_) => Kind::Text,
        };
        Some(Self { kind, is_wide: kind == Kind::Integer && !fits_double(value) })
    }

    /// What one cell is; `None`: nothing fits every kind.
    fn of_cell(cell: &FlatCell) -> Option<Self> {
        let kind = match cell {
            FlatCell::Empty => return None,
            FlatCell::Json(json) => return Self::of(json),
            FlatCell::Text(_) | FlatCell::Verbatim(_) => Kind::Text,
            FlatCell::NotFinite(_) => Kind::Float,
            FlatCell::Money(_) => Kind::Money,
        };
        Some(Self { kind, is_wide: false })
    }

    /// What takes the values of both.
    fn and(self, other: Self) -> Self {
        let is_wide = self.is_wide || other.is_wide;
        let kind = match (self.kind, other.kind) {
            (one, other) if one == other => one,
            (Kind::Integer | Kind::Float, Kind::Integer | Kind::Float) if !is_wide => Kind::Float,
            _ => Kind::Text,
        };
        Self { kind, is_wide }
    }
}

/// The kinds of the columns of a file of the author's own.
#[derive(Clone, Debug)]
pub struct Kinds(pub(super) Vec<Option<SeenKinds>>);

impl Kinds {
    /// Those of this many columns in which nothing has been seen: texts.
    #[must_use]
    pub fn none(columns: usize) -> Self {
        Self(vec![None; columns])
    }

    /// Takes in the cells of one more row.
    pub fn look(&mut self, row: &[FlatCell]) {
        for (seen, cell) in self.0.iter_mut().zip(row) {
            *seen = joined(*seen, SeenKinds::of_cell(cell));
        }
    }
}

/// The kind of a column; texts where nothing was seen.
pub(super) fn kind_of(seen: Option<SeenKinds>) -> Kind {
    seen.map_or(Kind::Text, |seen| seen.kind)
}

/// What takes the values of both.
pub(super) fn joined(one: Option<SeenKinds>, other: Option<SeenKinds>) -> Option<SeenKinds> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.and(other)),
        (one, other) => one.or(other),
    }
}
