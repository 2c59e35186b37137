//! The answers of the simulated models: a function of the prompt, so that tests can recompute them.

use super::chance::mix;
use serde_json::{Map, Number, Value};
use std::fmt::Write;

/// The words of the answers: plain ASCII without a quote, so that nothing has to be escaped.
const WORDS: &str = "the water runs over the gate and down the race to the wheel which turns the stones that grind \
                     the grain until the miller closes the sluice and the pond fills again for another day of work ";

/// The deepest level of a sample of a schema: recursive schemas end here.
const MAX_DEPTH: usize = 16;

/// A text of exactly `tokens` tokens (four characters each) that names the prompt's hash.
#[must_use]
pub fn text(prompt: u64, tokens: u64) -> String {
    let length = usize::try_from(tokens.saturating_mul(4)).unwrap_or(usize::MAX).min(64 << 20);
    let mut text = String::with_capacity(length + WORDS.len());
    // Writing to a string cannot fail.
    let _ = write!(text, "[{prompt:016x}] ");
    let offset = usize::try_from(prompt % WORDS.len() as u64).unwrap_or(0);
    text.push_str(&WORDS[offset..]);
    // Without a number in each round, a long answer would be one that has run into a loop.
    for day in 2.. {
        if text.len() >= length {
            break;
        }
        let _ = write!(text, "{day} ");
        text.push_str(WORDS);
    }
    text.truncate(length);
    // A whole answer ends like one: one that breaks off at its cap was cut, whatever its server says.
    if text.pop().is_some() {
        text.push('.');
    }
    text
}

/// The first `tokens` tokens of a text, by the simulator's own count.
#[must_use]
pub fn cut(text: &str, tokens: u64) -> &str {
    let chars = usize::try_from(tokens.saturating_mul(4)).unwrap_or(usize::MAX);
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

/// A JSON object that says as much as the text would.
#[must_use]
pub fn object(prompt: u64, tokens: u64) -> Value {
    serde_json::json!({"answer": text(prompt, tokens.max(6)), "ok": true})
}

/// A value that satisfies a simple schema: types, properties, items, enum, const, bounds, `$ref`, `anyOf`.
#[must_use]
pub fn sample(schema: &Value, prompt: u64) -> Value {
    Sampler { root: schema }.value(schema, prompt, 0)
}

struct Sampler<'a> {
    root: &'a Value,
}

impl Sampler<'_> {
    fn value(&self, schema: &Value, hash: u64, depth: usize) -> Value {
        if depth > MAX_DEPTH {
            return Value::Null;
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return target.map_or(Value::Null, |target| self.value(target, hash, depth + 1));
        }
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(choices) = schema.get("enum").and_then(Value::as_array).filter(|choices| !choices.is_empty()) {
            return choices[usize::try_from(hash % choices.len() as u64).unwrap_or(0)].clone();
        }
        for union in ["anyOf", "oneOf", "allOf"] {
            if let Some(first) = schema.get(union).and_then(|members| members.get(0)) {
                return self.value(first, hash, depth + 1);
            }
        }
        match type_of(schema).as_str() {
            "object" => self.object(schema, hash, depth),
            "array" => {
                let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
                let count = bound("minItems").unwrap_or(1).max(1).min(bound("maxItems").unwrap_or(u64::MAX)).min(1000);
                let items = schema.get("items").cloned().unwrap_or(Value::Bool(true));
                Value::Array((0..count).map(|index| self.value(&items, mix(hash, index + 1), depth + 1)).collect())
            }
            "integer" => integer(schema, hash),
            "number" => number(schema, hash),
            "boolean" => Value::Bool(hash.is_multiple_of(2)),
            "null" => Value::Null,
            _ => string(schema, hash),
        }
    }

    fn object(&self, schema: &Value, hash: u64, depth: usize) -> Value {
        let mut object = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        for (index, (name, property)) in properties.into_iter().flatten().enumerate() {
            object.insert(name.clone(), self.value(property, mix(hash, index as u64 + 1), depth + 1));
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            object.entry(name).or_insert_with(|| string(&Value::Null, hash));
        }
        Value::Object(object)
    }
}

/// The first type that is not null, in lower case: Gemini's own schemas use capitals.
fn type_of(schema: &Value) -> String {
    let named = match schema.get("type") {
        Some(Value::String(name)) => Some(name.as_str()),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ if schema.get("properties").is_some() => Some("object"),
        _ if schema.get("items").is_some() => Some("array"),
        _ => None,
    };
    named.unwrap_or("string").to_ascii_lowercase()
}

fn integer(schema: &Value, hash: u64) -> Value {
    // In 128 bits, so that no bounds overflow.
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64).map(i128::from);
    let low = bound("minimum").or(bound("exclusiveMinimum").map(|low| low + 1));
    let high = bound("maximum").or(bound("exclusiveMaximum").map(|high| high - 1));
    let step = bound("multipleOf").filter(|step| *step > 0).unwrap_or(1);
    let (low, high) = match (low, high) {
        (Some(low), Some(high)) => (low, high),
        (Some(low), None) => (low, low + 100 * step),
        (None, Some(high)) => (high - 100 * step, high),
        (None, None) => (0, 100 * step),
    };
    let first = low + (step - low.rem_euclid(step)) % step;
    let choices = ((high - first) / step).max(0) + 1;
    Value::from(i64::try_from(first + i128::from(hash) % choices * step).unwrap_or_default())
}

fn number(schema: &Value, hash: u64) -> Value {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let low = bound("minimum").or(bound("exclusiveMinimum"));
    let high = bound("maximum").or(bound("exclusiveMaximum"));
    let (low, high) = match (low, high) {
        (Some(low), Some(high)) => (low, high),
        (Some(low), None) => (low, low + 1.0),
        (None, Some(high)) => (high - 1.0, high),
        (None, None) => (0.0, 1.0),
    };
    // Strictly inside the bounds, so that exclusive ones hold too.
    let share = 0.25 + super::chance::unit(hash) / 2.0;
    Number::from_f64(low + (high - low) * share).map_or(Value::Null, Value::Number)
}

fn string(schema: &Value, hash: u64) -> Value {
    match schema.get("format").and_then(Value::as_str) {
        Some("date") => return Value::from("2026-05-04"),
        Some("date-time") => return Value::from("2026-05-04T12:34:56Z"),
        Some("time") => return Value::from("12:34:56Z"),
        Some("email") => return Value::from("miller@example.com"),
        Some("uri") => return Value::from("https://example.com/"),
        Some("uuid") => return Value::from(format!("{:08x}-0000-4000-8000-{:012x}", hash >> 32, hash & 0xffff_ffff)),
        _ => {}
    }
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let length = bound("minLength").unwrap_or(0).max(24).min(bound("maxLength").unwrap_or(u64::MAX));
    let mut words = text(hash, length.div_ceil(4));
    words.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    Value::from(words)
}

#[cfg(test)]
mod tests {
    use super::super::prompt::count_tokens;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_text_has_exactly_the_tokens_that_were_asked_for() {
        for tokens in [1, 2, 5, 16, 100, 5_000] {
            assert_eq!(count_tokens(&text(99, tokens)), tokens);
        }
        assert!(text(0xabc, 16).starts_with("[0000000000000abc] "));
        assert_eq!(text(7, 40), text(7, 40));
        assert_ne!(text(7, 40), text(8, 40));
        assert_eq!(cut("äöüß and more", 1), "äöüß");
        assert_eq!(cut("short", 9), "short");
    }

    #[test]
    fn a_sample_satisfies_its_schema() {
        let schemas = [
            json!({"type": "object", "required": ["name", "age", "free"], "additionalProperties": true, "properties": {
                "name": {"type": "string", "minLength": 40, "maxLength": 50},
                "age": {"type": "integer", "minimum": 18, "maximum": 20},
                "score": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                "kind": {"enum": ["a", "b"]}, "yes": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "maybe": {"type": ["null", "integer"], "multipleOf": 5, "minimum": 3}}}),
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
                "value": {"const": 5}, "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}}}),
            json!({"type": "array", "items": {"type": "string", "maxLength": 3}}),
        ];
        for schema in schemas {
            let validator = jsonschema::validator_for(&schema).unwrap();
            for prompt in 0..50 {
                let value = sample(&schema, mix(prompt, 3));
                assert!(validator.is_valid(&value), "{schema}: {value}");
            }
        }
        assert!(sample(&json!({"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}), 1)["a"].is_string());
    }

    #[test]
    fn a_recursive_schema_ends() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(sample(&schema, 1).is_object());
    }

    proptest! {
        #[test]
        fn no_schema_makes_it_panic(
            minimum in any::<i64>(), maximum in any::<i64>(), step in any::<i64>(), hash in any::<u64>()
        ) {
            let schema = json!({"type": "integer", "minimum": minimum, "maximum": maximum, "multipleOf": step});
            let _ = sample(&schema, hash);
        }
    }
}
