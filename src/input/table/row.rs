//! A row of a table.

use crate::domain::template::{Given, Values};
use std::borrow::Cow;
use std::sync::Arc;

/// The value of a column in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::input) enum Cell {
    Text(String),
    /// JSON that is no string, as it is written.
    Json(String),
    /// A number that JSON has no form for: `NaN`, `inf` or `-inf`. In a request and in metadata it is `null`.
    #[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "only Parquet has such numbers"))]
    NotFinite(&'static str),
}

impl Cell {
    /// The text of it; nothing for `null`.
    pub(super) fn as_text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Json(written) if written == "null" => "",
            Self::Json(written) => written,
            Self::NotFinite(_) => "",
        }
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Owned(serde_json::Value::from(text.as_str()).to_string()),
            Self::Json(written) => Cow::Borrowed(written),
            Self::NotFinite(_) => Cow::Borrowed("null"),
        }
    }
}

/// The cells of a row under the names of their columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::input) struct Row {
    /// The line on which it begins, from 1; for Parquet the number of the row.
    pub(in crate::input) line: u64,
    pub(in crate::input) cells: Vec<(Arc<str>, Cell)>,
}

impl Row {
    pub(super) fn get(&self, column: &str) -> Option<&Cell> {
        self.cells.iter().find(|(name, _)| **name == *column).map(|(_, cell)| cell)
    }
}

impl Values for Row {
    fn value(&self, name: &str) -> Option<Given<'_>> {
        self.get(name).map(|cell| match cell {
            Cell::Text(text) => Given::Text(Cow::Borrowed(text)),
            Cell::Json(written) => Given::Json(written),
            Cell::NotFinite(_) => Given::Json("null"),
        })
    }
}
