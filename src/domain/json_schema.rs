//! Compiling JSON schemas, in one way for routes and requests.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// Compiled patterns larger than this many bytes are refused: a schema comes from whoever may enqueue.
const PATTERN_BYTES: usize = 1 << 20;

/// How many characters a message has at most.
const MESSAGE_LENGTH: usize = 200;

/// Compiles a schema. References outside it are not followed, and patterns match in linear time (so look-around and
/// back-references are refused). A schema that refers to itself is fine. One whose references multiply (each of forty
/// definitions naming the next one twice) still takes time exponential in their number to check an answer against.
///
/// # Errors
/// What is wrong with the schema, in words.
pub fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES))
        .build(schema)
        .map_err(|error| shortened(&error.to_string()))
}

/// The messages of the compiler quote the schema, which may be long.
fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_LENGTH) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_that_refers_to_itself_does_not_recurse_for_ever() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"if": {"$ref": "#"}}),
            json!({"$dynamicAnchor": "x", "$dynamicRef": "#x"}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
        ] {
            let validator = compile(&schema).unwrap();
            let _ = validator.is_valid(&json!({"a": [1]}));
        }
    }

    #[test]
    fn a_schema_nested_as_deeply_as_json_may_be_is_compiled() {
        let mut schema = json!({"type": "integer"});
        let mut answer = json!(1);
        for _ in 0..60 {
            schema = json!({"items": schema});
            answer = json!([answer]);
        }
        assert!(compile(&schema).unwrap().is_valid(&answer));
    }

    #[test]
    fn a_fault_is_told_in_few_words() {
        let names: Vec<String> = (0..1_000).map(|n| format!("name{n}")).collect();
        assert!(compile(&json!({"type": names})).unwrap_err().chars().count() <= MESSAGE_LENGTH + 1);
    }
}
