//! The catalogue of prices that comes with the program (`config/prices.toml`). It is read like the configuration, but
//! is not part of it.

use super::{Kind, MODEL, TEXTS, Table, key};

/// The block of a vendor. The file has one under each vendor's name.
pub(in crate::config) const CATALOGUE: Table = Table {
    keys: &[
        key("as_of", Kind::Text, "", "The day on which the prices were compared last."),
        key("source", Kind::Text, "", "Where the prices were read."),
        key("tiers", Kind::Map(&Kind::Any), "", "Tiers of all models."),
        key("peak_hours", TEXTS, "", "Hours of the prices of all models."),
        key("off_peak", Kind::Any, "", "The price of all models at other hours."),
        key("models", Kind::Map(&Kind::Table(&ENTRY)), "", "The models by their names."),
    ],
    ..Table::EMPTY
};

/// A model of the catalogue.
pub(in crate::config) const ENTRY: Table = Table {
    extends: Some(&MODEL),
    keys: &[key("aliases", TEXTS, "", "Other names of the same model.")],
    ..Table::EMPTY
};
