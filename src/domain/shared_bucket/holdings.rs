//! The holdings of one process, by limit.
//!
//! It is stored as a JSON object whose names are the limits as people write them (`requests/min`).

use super::Holding;
use crate::domain::limits::Dimension;
use serde::{Deserialize, Deserializer, Serializer};
use std::collections::BTreeMap;

pub(super) type Holdings = BTreeMap<Dimension, Holding>;

pub(super) fn serialize<S: Serializer>(holdings: &Holdings, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(holdings.iter().map(|(dimension, holding)| (dimension.to_string(), holding)))
}

/// A name that this program cannot read belongs to a limit that it cannot count either, so that holding is left out.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Holdings, D::Error> {
    let named = BTreeMap::<String, Holding>::deserialize(deserializer)?;
    Ok(named.into_iter().filter_map(|(name, holding)| Some((Dimension::parse(&name)?, holding))).collect())
}
