//! A JSON schema in the subset that structured outputs accept. The rest is told to the model in words, and validation
//! checks the answer against the schema as it was given.

use crate::domain::decide::Ineligible;
use crate::provider::conversation::unsupported;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The result of fitting a schema.
#[derive(Debug, PartialEq)]
pub(in crate::provider) enum Fitted {
    /// It demands an object and says nothing of its members, which this dialect cannot express.
    AnyObject,
    /// It can be sent.
    Schema {
        /// The schema as it is sent.
        schema: Value,
        /// The keywords that were left out.
        stripped: BTreeSet<String>,
    },
}

/// Keywords that are sent as they are.
const TAKEN: &[&str] = &["$ref", "type", "const", "title", "description", "required", "default"];

/// Keywords that say nothing about an answer, and nothing to a model.
const REMARKS: &[&str] = &["$schema", "$id", "$comment", "$anchor"];

/// Keywords that bind no answer and may still guide a model.
const HINTS: &[&str] = &["examples", "example", "readOnly", "writeOnly"];

/// String formats that are accepted.
const FORMATS: &[&str] = &["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

/// Fits a schema.
///
/// # Errors
/// [`Ineligible::Unsupported`] names the parts that cannot be expressed in any other way: objects with free members,
/// recursion, and several schemas at once.
pub(in crate::provider) fn fit(schema: &Value) -> Result<Fitted, Ineligible> {
    let Value::Object(members) = schema else { return unsupported("a JSON schema that is not an object") };
    if is_free_object(members) && !members.contains_key("$ref") {
        return Ok(Fitted::AnyObject);
    }
    if is_recursive(schema) {
        return unsupported("a JSON schema that refers to itself");
    }
    let mut fitting = Fitting { stripped: BTreeSet::new() };
    let schema = Value::Object(fitting.object(members)?);
    Ok(Fitted::Schema { schema, stripped: fitting.stripped })
}

/// Whether the schema says only that the value is an object.
fn is_free_object(schema: &Map<String, Value>) -> bool {
    let is_object = schema.get("type").is_some_and(|kind| kind == "object");
    let has_members =
        schema.get("properties").and_then(Value::as_object).is_some_and(|properties| !properties.is_empty());
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let has_others = ["anyOf", "oneOf", "allOf", "enum", "const"].iter().any(|keyword| schema.contains_key(*keyword));
    is_object && !has_members && !is_closed && !has_others
}

struct Fitting {
    stripped: BTreeSet<String>,
}

impl Fitting {
    fn any(&mut self, schema: &Value) -> Result<Value, Ineligible> {
        match schema {
            Value::Object(members) => self.object(members).map(Value::Object),
            // `true`: anything.
            other => Ok(other.clone()),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>) -> Result<Map<String, Value>, Ineligible> {
        if let Some(merged) = merge_single_all_of(schema)? {
            return self.object(&merged);
        }
        let mut fitted = Map::new();
        // Rules that the model is told in words.
        let mut told: Vec<String> = Vec::new();
        let is_reference = schema.contains_key("$ref");
        for (keyword, value) in schema {
            match keyword.as_str() {
                "$defs" | "definitions" | "properties" => {
                    fitted.insert(keyword.clone(), self.named(value)?);
                }
                // A reference must stand alone.
                name if is_reference && name != "$ref" => self.strip(name),
                "additionalProperties" => {
                    if *value != Value::Bool(false) {
                        self.strip(keyword);
                    }
                }
                "items" => {
                    let items = self.any(value)?;
                    fitted.insert(keyword.clone(), items);
                }
                "anyOf" | "oneOf" => {
                    if keyword == "oneOf" {
                        self.stripped.insert("oneOf as anyOf".to_owned());
                    }
                    let branches = self.list(value)?;
                    fitted.insert("anyOf".to_owned(), branches);
                }
                "enum" if value.as_array().is_some_and(|values| values.iter().all(is_plain)) => {
                    fitted.insert(keyword.clone(), value.clone());
                }
                "minItems" if matches!(value.as_u64(), Some(0 | 1)) => {
                    fitted.insert(keyword.clone(), value.clone());
                }
                "format" if value.as_str().is_some_and(|format| FORMATS.contains(&format)) => {
                    fitted.insert(keyword.clone(), value.clone());
                }
                name if TAKEN.contains(&name) => {
                    fitted.insert(keyword.clone(), value.clone());
                }
                name if REMARKS.contains(&name) => {}
                name if HINTS.contains(&name) => self.strip(name),
                name => {
                    self.strip(name);
                    told.push(format!("{name}: {value}"));
                }
            }
        }
        if close(schema, &mut fitted)? {
            self.stripped.insert(CLOSED.to_owned());
        }
        tell(&mut fitted, &told);
        Ok(fitted)
    }

    fn strip(&mut self, keyword: &str) {
        if !REMARKS.contains(&keyword) {
            self.stripped.insert(keyword.chars().take(40).collect());
        }
    }

    fn named(&mut self, schemas: &Value) -> Result<Value, Ineligible> {
        let Value::Object(schemas) = schemas else { return Ok(schemas.clone()) };
        let fitted: Result<Map<String, Value>, Ineligible> =
            schemas.iter().map(|(name, schema)| Ok((name.clone(), self.any(schema)?))).collect();
        fitted.map(Value::Object)
    }

    fn list(&mut self, schemas: &Value) -> Result<Value, Ineligible> {
        let Value::Array(schemas) = schemas else { return Ok(schemas.clone()) };
        let fitted: Result<Vec<Value>, Ineligible> = schemas.iter().map(|schema| self.any(schema)).collect();
        fitted.map(Value::Array)
    }
}

/// The note on objects that the request leaves open.
const CLOSED: &str = "additionalProperties false added";

/// Declares that an object has no further members: the API demands it. Values that fit the stricter schema fit the
/// given one. Returns whether the schema did not say so itself.
fn close(schema: &Map<String, Value>, fitted: &mut Map<String, Value>) -> Result<bool, Ineligible> {
    let may_be_object = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(kind) => kind == "object",
        None => schema.contains_key("properties"),
    };
    if !may_be_object || schema.contains_key("$ref") {
        return Ok(false);
    }
    let has_members =
        schema.get("properties").and_then(Value::as_object).is_some_and(|properties| !properties.is_empty());
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    if !has_members && !is_closed {
        return unsupported("a JSON schema with an object whose members are free");
    }
    fitted.insert("additionalProperties".to_owned(), Value::Bool(false));
    Ok(!is_closed)
}

fn is_plain(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

/// Merges an `allOf` of one schema into its parent, as some generators write a reference with a description. Several
/// schemas at once cannot each be closed.
fn merge_single_all_of(schema: &Map<String, Value>) -> Result<Option<Map<String, Value>>, Ineligible> {
    let Some(all_of) = schema.get("allOf") else { return Ok(None) };
    match all_of.as_array().map(Vec::as_slice) {
        Some([Value::Object(only)]) => {
            let mut merged = schema.clone();
            merged.remove("allOf");
            for (keyword, value) in only {
                merged.entry(keyword.clone()).or_insert_with(|| value.clone());
            }
            Ok(Some(merged))
        }
        _ => unsupported("a JSON schema with allOf"),
    }
}

/// Tells the model, in the description, the rules that the grammar cannot enforce.
fn tell(fitted: &mut Map<String, Value>, told: &[String]) {
    const LONGEST: usize = 500;
    if told.is_empty() || fitted.contains_key("$ref") {
        return;
    }
    let rules = format!("{{{}}}", told.join(", "));
    if rules.len() > LONGEST {
        return;
    }
    let description = match fitted.get("description").and_then(Value::as_str) {
        Some(description) if !description.is_empty() => format!("{description}\n\n{rules}"),
        _ => rules,
    };
    fitted.insert("description".to_owned(), json!(description));
}

/// Whether following the references of a schema leads back to where it has been.
fn is_recursive(schema: &Value) -> bool {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut root = schema.clone();
    for keyword in ["$defs", "definitions"] {
        let Some(Value::Object(definitions)) = root.as_object_mut().and_then(|root| root.remove(keyword)) else {
            continue;
        };
        for (name, definition) in definitions {
            let mut targets = BTreeSet::new();
            references(&definition, &mut targets);
            edges.insert(format!("#/{keyword}/{}", name.replace('~', "~0").replace('/', "~1")), targets);
        }
    }
    let mut targets = BTreeSet::new();
    references(&root, &mut targets);
    edges.insert("#".to_owned(), targets);
    // Removes definitions that refer to none of those left, until nothing changes: the rest goes in circles.
    loop {
        let left: BTreeSet<String> = edges.keys().cloned().collect();
        let before = edges.len();
        edges.retain(|_, targets| {
            targets.iter().any(|target| {
                // A reference into the middle of a definition, or of the root.
                left.iter().any(|name| {
                    target == name
                        || target.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('/'))
                            && (name != "#"
                                || !(target.starts_with("#/$defs/") || target.starts_with("#/definitions/")))
                })
            })
        });
        if edges.is_empty() {
            return false;
        }
        if edges.len() == before {
            return true;
        }
    }
}

fn references(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            for (keyword, value) in members {
                match (keyword.as_str(), value) {
                    ("$ref", Value::String(target)) => {
                        found.insert(target.clone());
                    }
                    // Data, not schemas.
                    ("enum" | "const" | "default" | "examples", _) => {}
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(schema: &Value) -> (Value, Vec<String>) {
        match fit(schema).unwrap_or_else(|why| panic!("{why}: {schema}")) {
            Fitted::Schema { schema, stripped } => (schema, stripped.into_iter().collect()),
            Fitted::AnyObject => panic!("taken for any object: {schema}"),
        }
    }

    /// The schema of a member, alone in an object.
    fn member(schema: &Value) -> (Value, Vec<String>) {
        let whole = json!({ "type": "object", "properties": { "a": schema }, "additionalProperties": false });
        let (whole, stripped) = fitted(&whole);
        assert_eq!(whole["additionalProperties"], json!(false));
        (whole["properties"]["a"].clone(), stripped)
    }

    #[test]
    fn bounds_are_told_in_words_instead() {
        for (given, sent, stripped) in [
            (
                json!({"type": "integer", "minimum": 1, "maximum": 10, "description": "Stars"}),
                json!({"type": "integer", "description": "Stars\n\n{maximum: 10, minimum: 1}"}),
                &["maximum", "minimum"][..],
            ),
            (
                json!({"type": "string", "minLength": 1, "maxLength": 280, "pattern": "^[a-z]+$"}),
                json!({"type": "string", "description": "{maxLength: 280, minLength: 1, pattern: \"^[a-z]+$\"}"}),
                &["maxLength", "minLength", "pattern"],
            ),
            (
                json!({"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1,
                    "maxItems": 3, "uniqueItems": true}),
                json!({"type": "array", "items": {"type": "number", "description": "{exclusiveMinimum: 0}"},
                    "minItems": 1, "description": "{maxItems: 3, uniqueItems: true}"}),
                &["exclusiveMinimum", "maxItems", "uniqueItems"],
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "minItems": 2}),
                json!({"type": "array", "items": {"type": "string"}, "description": "{minItems: 2}"}),
                &["minItems"],
            ),
            (
                json!({"type": "number", "multipleOf": 0.5}),
                json!({"type": "number", "description": "{multipleOf: 0.5}"}),
                &["multipleOf"],
            ),
            (json!({"type": "string", "format": "date"}), json!({"type": "string", "format": "date"}), &[]),
            (
                json!({"type": "string", "format": "color"}),
                json!({"type": "string", "description": "{format: \"color\"}"}),
                &["format"],
            ),
            (json!({"enum": ["a", 1, null]}), json!({"enum": ["a", 1, null]}), &[]),
            (
                json!({"enum": [{"type": "object"}]}),
                json!({"description": "{enum: [{\"type\":\"object\"}]}"}),
                &["enum"],
            ),
            (
                json!({"oneOf": [{"type": "string"}, {"type": "null"}]}),
                json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
                &["oneOf as anyOf"],
            ),
            (
                json!({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": true}),
                json!({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": false}),
                &["additionalProperties", CLOSED],
            ),
            // A property that is called like a keyword.
            (
                json!({"type": "object", "properties": {"minimum": {"type": "integer"}}}),
                json!({"type": "object", "properties": {"minimum": {"type": "integer"}},
                    "additionalProperties": false}),
                &[CLOSED],
            ),
            (
                json!({"type": "string", "examples": ["a"], "$comment": "none"}),
                json!({"type": "string"}),
                &["examples"],
            ),
        ] {
            assert_eq!(member(&given), (sent, stripped.iter().map(|name| (*name).to_owned()).collect()), "{given}");
        }
    }

    #[test]
    fn references_stand_alone() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"a": {"allOf": [{"$ref": "#/$defs/Sky"}], "default": {}}, "b": {"$ref": "#/$defs/Sky"}},
            "$defs": {"Sky": {"type": "object", "properties": {"color": {"type": "string", "maxLength": 9}}}},
        });
        let (sent, stripped) = fitted(&schema);
        assert_eq!(sent["properties"], json!({"a": {"$ref": "#/$defs/Sky"}, "b": {"$ref": "#/$defs/Sky"}}));
        assert_eq!(sent["$defs"]["Sky"]["additionalProperties"], json!(false));
        assert_eq!((sent.get("$schema"), stripped), (None, [CLOSED, "default", "maxLength"].map(str::to_owned).into()));
    }

    #[test]
    fn an_object_of_any_members_is_no_schema_here() {
        for schema in [json!({"type": "object"}), json!({"type": "object", "additionalProperties": true, "title": "A"})]
        {
            assert_eq!(fit(&schema), Ok(Fitted::AnyObject), "{schema}");
        }
        let empty = json!({"type": "object", "properties": {}, "additionalProperties": false});
        assert_eq!(fitted(&empty).0, empty);
    }

    #[test]
    fn what_cannot_be_said_makes_the_target_ineligible() {
        let inside = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
        let node = json!({"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}});
        for (schema, reason) in [
            (inside(json!({"type": "object"})), "a JSON schema with an object whose members are free"),
            (
                inside(json!({"type": "object", "additionalProperties": {"type": "string"}})),
                "a JSON schema with an object whose members are free",
            ),
            (inside(json!({"type": ["object", "null"]})), "a JSON schema with an object whose members are free"),
            (json!({"$ref": "#/$defs/Node", "$defs": {"Node": node}}), "a JSON schema that refers to itself"),
            (inside(json!({"$ref": "#"})), "a JSON schema that refers to itself"),
            (
                json!({"type": "object", "properties": {"a": {"$ref": "#/definitions/A"}}, "definitions": {
                    "A": {"type": "array", "items": {"$ref": "#/definitions/B"}},
                    "B": {"anyOf": [{"$ref": "#/definitions/A"}, {"type": "null"}]},
                }}),
                "a JSON schema that refers to itself",
            ),
            (inside(json!({"allOf": [{"type": "string"}, {"maxLength": 5}]})), "a JSON schema with allOf"),
        ] {
            assert_eq!(fit(&schema), Err(Ineligible::Unsupported(reason.to_owned())), "{schema}");
        }
    }
}
