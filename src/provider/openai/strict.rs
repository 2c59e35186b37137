//! Which schemas can be enforced to the letter (`strict`): those that leave nothing open. Servers reject the others.

use serde_json::{Map, Value};

/// Keywords that an enforced schema must not have.
const REFUSED: &[&str] = &[
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "oneOf",
    "dependentRequired",
    "dependentSchemas",
    "patternProperties",
    "unevaluatedProperties",
    "propertyNames",
    "contains",
    "uniqueItems",
];

/// Whether a schema is an object that demands every member and allows no other, at every depth.
pub(in crate::provider) fn is_strict(schema: &Value) -> bool {
    let Value::Object(members) = schema else { return false };
    let is_object = members.get("type").is_some_and(|kind| kind == "object") || members.contains_key("$ref");
    is_object && is_closed(members)
}

fn is_closed(schema: &Map<String, Value>) -> bool {
    if REFUSED.iter().any(|keyword| schema.contains_key(*keyword)) {
        return false;
    }
    let may_be_object = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(kind) => kind == "object",
        None => schema.contains_key("properties"),
    };
    if may_be_object {
        let demanded: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut properties = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys);
        let all_demanded = properties.all(|name| demanded.contains(&name.as_str()));
        if schema.get("additionalProperties") != Some(&Value::Bool(false)) || !all_demanded {
            return false;
        }
    }
    schema.iter().all(|(keyword, value)| match (keyword.as_str(), value) {
        ("properties" | "$defs" | "definitions", Value::Object(schemas)) => schemas.values().all(is_closed_value),
        ("items", schema) => is_closed_value(schema),
        ("anyOf", Value::Array(schemas)) => schemas.iter().all(is_closed_value),
        _ => true,
    })
}

fn is_closed_value(schema: &Value) -> bool {
    schema.as_object().is_some_and(is_closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_strict_schema_leaves_nothing_open() {
        let object = |properties: Value, required: Value| {
            json!({"type": "object", "properties": properties, "required": required,
                "additionalProperties": false})
        };
        let inner = object(json!({"b": {"type": ["string", "null"]}}), json!(["b"]));
        for (schema, expected) in [
            (object(json!({}), json!([])), true),
            (object(json!({"a": {"type": "string", "maxLength": 5}}), json!(["a"])), true),
            (object(json!({"a": inner}), json!(["a"])), true),
            (object(json!({"a": {"$ref": "#/$defs/A"}}), json!(["a"])), true),
            (object(json!({"a": {"anyOf": [inner, {"type": "null"}]}}), json!(["a"])), true),
            (object(json!({"a": {"type": "string"}}), json!([])), false),
            (json!({"type": "object"}), false),
            (json!({"type": "object", "properties": {}, "additionalProperties": true}), false),
            (object(json!({"a": {"type": "object"}}), json!(["a"])), false),
            (object(json!({"a": {"type": "array", "items": {"type": "object"}}}), json!(["a"])), false),
            (object(json!({"a": {"oneOf": [{"type": "string"}]}}), json!(["a"])), false),
            (json!({"type": "array", "items": {"type": "string"}}), false),
            (json!({"anyOf": [inner]}), false),
            (Value::Bool(true), false),
        ] {
            assert_eq!(is_strict(&schema), expected, "{schema}");
        }
    }
}
