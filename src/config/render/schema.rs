//! `config/sluice.schema.json`: the configuration as a JSON schema, for editors of TOML.

use super::prose;
use crate::config::keys::{Default, Key, Kind, ROOT, Table};
use serde_json::{Map, Value, json};

/// The schema, in draft 7, which TOML editors know.
#[must_use]
pub fn schema() -> String {
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "The configuration of Sluice",
    });
    if let (Value::Object(schema), Value::Object(root)) = (&mut schema, table(&ROOT)) {
        schema.extend(root);
    }
    let mut text = serde_json::to_string_pretty(&schema).expect("a value of ours is JSON");
    text.push('\n');
    text
}

fn table(table: &Table) -> Value {
    let properties: Map<String, Value> = table.all_keys().map(|key| (key.name.to_owned(), property(key))).collect();
    let needed: Vec<&str> = table.all_keys().filter(|key| key.is_needed).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !needed.is_empty() {
        schema["required"] = needed.into();
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = value(&key.kind);
    let Value::Object(members) = &mut schema else { return schema };
    let doc = match (key.kind, key.default) {
        (Kind::Table(table) | Kind::Named(table), _) if key.doc.is_empty() => prose(table),
        (_, Default::Depends(default)) => format!("{} Default: {default}.", key.doc),
        _ => key.doc.to_owned(),
    };
    if !doc.is_empty() {
        members.insert("description".to_owned(), doc.into());
    }
    match key.default {
        Default::Is(default) => {
            let default = match key.kind {
                Kind::Whole(..) | Kind::Share | Kind::Part | Kind::Flag | Kind::List(_) => {
                    serde_json::from_str(default).expect("a number, flag or list is the same in TOML and in JSON")
                }
                _ => default.into(),
            };
            members.insert("default".to_owned(), default);
        }
        Default::Texts(texts) => {
            members.insert("default".to_owned(), texts().into());
        }
        Default::None | Default::Depends(_) => {}
    }
    schema
}

/// What `scalar::nano_dollars` takes: digits on at least one side of the point.
const MONEY: &str = r"^([0-9]+(\.[0-9]{0,9})?|\.[0-9]{1,9})$";

fn value(kind: &Kind) -> Value {
    match kind {
        Kind::Text | Kind::Path | Kind::Duration => json!({ "type": "string", "minLength": 1 }),
        Kind::Money => json!({ "type": "string", "pattern": MONEY }),
        Kind::Word(words) => json!({ "enum": words() }),
        Kind::Whole(least, i64::MAX) => json!({ "type": "integer", "minimum": least }),
        Kind::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Share => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }),
        Kind::Part => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Weight => json!({ "type": "number", "minimum": 0 }),
        Kind::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::List(kind) => json!({ "type": "array", "items": value(kind) }),
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(value).collect::<Vec<_>>() }),
        Kind::Table(below) => table(below),
        Kind::Named(below) => json!({ "type": "object", "additionalProperties": table(below) }),
        Kind::Map(kind) => json!({ "type": "object", "additionalProperties": value(kind) }),
        Kind::Any => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scalar;

    #[test]
    fn the_schema_takes_the_amounts_of_money_that_the_configuration_takes() {
        let pattern = regex::Regex::new(MONEY).unwrap();
        for text in ["0", "0.15", "15", ".5", "5.", "0.000000001", "", ".", "-1", "+1", "1e3", "1,5", "0.0000000001"] {
            assert_eq!(pattern.is_match(text), scalar::nano_dollars(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_table_without_what_it_needs_is_against_the_schema() {
        let told: Value = serde_json::from_str(&schema()).unwrap();
        let needed = |path: &str| told.pointer(path).unwrap()["required"].clone();
        let (route, model) = ("/properties/routes/additionalProperties", "/properties/models/additionalProperties");
        assert_eq!(needed(route), json!(["rungs"]));
        assert_eq!(needed(&format!("{route}/properties/rungs/items/anyOf/1")), json!(["target"]));
        assert_eq!(needed(&format!("{model}/properties/price")), json!(["input", "output"]));
        assert_eq!(
            needed(&format!("{model}/properties/tiers/additionalProperties/anyOf/1")),
            json!(["input", "output"])
        );
        assert_eq!(told["required"], Value::Null);
    }
}
