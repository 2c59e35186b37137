//! One value of a row of a table.

use crate::domain::NanoUsd;

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlatCell {
    /// There is no value.
    Empty,
    Text(String),
    /// A number, a truth value, a list or an object, as JSON writes it.
    Json(String),
    /// Dollars.
    Money(NanoUsd),
    /// A cell of the author's own file, which goes back to her as it came.
    Verbatim(String),
    /// A number that JSON has no form for: `NaN`, `inf` or `-inf`.
    NotFinite(&'static str),
}

impl FlatCell {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(super) fn text_if_any(text: Option<&str>) -> Self {
        text.map_or(Self::Empty, Self::text)
    }

    /// A JSON value; a string is its text.
    pub(super) fn of_json(value: &str) -> Self {
        match value.as_bytes().first() {
            Some(b'n') | None => Self::Empty,
            Some(b'"') => serde_json::from_str(value).map_or_else(|_| Self::Json(value.to_owned()), Self::Text),
            Some(_) => Self::Json(value.to_owned()),
        }
    }
}
