//! Reading JSON that another version wrote: a part that this version cannot read is left out, and the rest is used.
//!
//! For `deserialize_with` of members that are stored and shown. A later version of a worker may say more, or say it
//! otherwise.

use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// The member, or its default if it cannot be read.
pub fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(json: D) -> Result<T, D::Error> {
    Ok(read(Value::deserialize(json)?).unwrap_or_default())
}

/// Those items of a list that can be read.
pub fn items<'de, D: Deserializer<'de>, T: DeserializeOwned>(json: D) -> Result<Vec<T>, D::Error> {
    Ok(match Value::deserialize(json)? {
        Value::Array(items) => items.into_iter().filter_map(read).collect(),
        _ => Vec::new(),
    })
}

/// Those members of an object that can be read, by their names.
pub fn members<'de, D: Deserializer<'de>, T: DeserializeOwned>(json: D) -> Result<BTreeMap<String, T>, D::Error> {
    Ok(match Value::deserialize(json)? {
        Value::Object(members) => {
            members.into_iter().filter_map(|(name, member)| Some((name, read(member)?))).collect()
        }
        _ => BTreeMap::new(),
    })
}

fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}
