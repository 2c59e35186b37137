//! Compiling JSON schemas, in one way for routes and requests.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use std::collections::HashMap;

/// Compiled patterns larger than this many bytes are refused: a schema comes from whoever may enqueue.
const PATTERN_BYTES: usize = 1 << 20;

/// A schema with more members than this, counted as if everything it refers to were written out, is refused: checking an
/// answer may take that many steps, and forty definitions that each name the next one twice would take a trillion.
const MOST_WRITTEN_OUT: u64 = 1_000_000;

/// A schema that is nested deeper than this when its references are written out is refused: they are followed one inside the
/// other, on the stack.
const DEEPEST: usize = 1_000;

/// References by `$id` are not written out here, so only so many are taken: they cannot multiply to much.
const MOST_BY_ID: u32 = 32;

/// How many characters a message has at most.
const MESSAGE_LENGTH: usize = 200;

/// Compiles a schema. References outside it are not followed, and patterns match in linear time (so look-around and
/// back-references are refused). A schema that refers to itself is fine, one whose references multiply is refused. (One that
/// does both, naming itself twice for the same place of an answer, still takes time exponential in the depth of the answer.)
///
/// # Errors
/// What is wrong with the schema, in words.
pub fn compile(schema: &Value) -> Result<Validator, String> {
    Size::of(schema)?;
    jsonschema::options()
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES))
        .build(schema)
        .map_err(|error| shortened(&error.to_string()))
}

/// How large a schema is when all it refers to is written out.
struct Size<'a> {
    root: &'a Value,
    /// What `#name` means.
    anchors: HashMap<&'a str, &'a Value>,
    /// By what is referred to; `None` while it is being counted: whatever refers to itself counts once.
    counted: HashMap<&'a str, Option<u64>>,
    by_id: u32,
}

impl<'a> Size<'a> {
    fn of(root: &'a Value) -> Result<u64, String> {
        let mut size = Self { root, anchors: HashMap::new(), counted: HashMap::new(), by_id: 0 };
        size.find_anchors(root);
        let members = size.count(root, 0)?;
        if members > MOST_WRITTEN_OUT {
            return Err(format!("has more than {MOST_WRITTEN_OUT} members when its references are written out"));
        }
        if size.by_id > MOST_BY_ID {
            return Err(format!("has more than {MOST_BY_ID} references by $id"));
        }
        Ok(members)
    }

    fn find_anchors(&mut self, schema: &'a Value) {
        match schema {
            Value::Object(members) => {
                for (key, member) in members {
                    if let ("$anchor" | "$dynamicAnchor", Value::String(name)) = (key.as_str(), member) {
                        self.anchors.insert(name, schema);
                    }
                    self.find_anchors(member);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.find_anchors(item)),
            _ => {}
        }
    }

    fn count(&mut self, schema: &'a Value, depth: usize) -> Result<u64, String> {
        if depth >= DEEPEST {
            return Err(format!("is nested deeper than {DEEPEST} levels when its references are written out"));
        }
        let mut members = 1_u64;
        match schema {
            Value::Object(object) => {
                for (key, member) in object {
                    let more = match (key.as_str(), member) {
                        ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(to)) => self.follow(to, depth)?,
                        _ => self.count(member, depth + 1)?,
                    };
                    members = members.saturating_add(more);
                }
            }
            Value::Array(items) => {
                for item in items {
                    members = members.saturating_add(self.count(item, depth + 1)?);
                }
            }
            _ => {}
        }
        Ok(members)
    }

    fn follow(&mut self, to: &'a str, depth: usize) -> Result<u64, String> {
        if let Some(known) = self.counted.get(to) {
            return Ok(known.unwrap_or(1));
        }
        let target = match to.strip_prefix('#') {
            Some("") => Some(self.root),
            Some(pointer) if pointer.starts_with('/') => self.root.pointer(pointer),
            Some(name) => self.anchors.get(name).copied(),
            None => None,
        };
        let Some(target) = target else {
            // Elsewhere, or nowhere: the compiler says which.
            self.by_id = self.by_id.saturating_add(1);
            return Ok(1);
        };
        self.counted.insert(to, None);
        let members = self.count(target, depth + 1)?;
        self.counted.insert(to, Some(members));
        Ok(members)
    }
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

    /// Definitions of which each names the next one twice, by `name`.
    fn multiplying(levels: usize, name: impl Fn(usize) -> String) -> Value {
        let mut definitions = serde_json::Map::new();
        for level in 0..levels {
            let next = json!({"$ref": name(level + 1)});
            definitions.insert(format!("d{level}"), json!({"$anchor": format!("a{level}"), "allOf": [next, next]}));
        }
        definitions.insert(format!("d{levels}"), json!({"$anchor": format!("a{levels}"), "type": "integer"}));
        json!({"$defs": definitions, "$ref": name(0)})
    }

    #[test]
    fn references_that_multiply_are_refused() {
        let by_pointer = |level| format!("#/$defs/d{level}");
        let by_anchor = |level| format!("#a{level}");
        for schema in [multiplying(40, by_pointer), multiplying(40, by_anchor)] {
            let error = compile(&schema).unwrap_err();
            assert!(error.contains("when its references are written out"), "{error}");
        }
        // What many schemas do a little of is fine.
        assert!(compile(&multiplying(10, by_pointer)).unwrap().is_valid(&json!(1)));
        assert!(!compile(&multiplying(10, by_anchor)).unwrap().is_valid(&json!("one")));
        // A tree names itself twice, for different places.
        let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "leaf": {"type": "integer"}}});
        assert!(compile(&tree).unwrap().is_valid(&json!({"left": {"leaf": 1}, "right": {"left": {}}})));
        assert!(!compile(&tree).unwrap().is_valid(&json!({"left": {"left": {"leaf": "x"}}})));
    }

    #[test]
    fn a_long_chain_of_references_is_refused_before_the_stack_ends() {
        let chain = |length: usize| {
            let mut definitions = serde_json::Map::new();
            for link in 0..length {
                definitions.insert(format!("d{link}"), json!({"$ref": format!("#/$defs/d{}", link + 1)}));
            }
            definitions.insert(format!("d{length}"), json!({"type": "integer"}));
            json!({"$defs": definitions, "$ref": "#/$defs/d0"})
        };
        assert!(compile(&chain(100)).unwrap().is_valid(&json!(1)));
        assert!(compile(&chain(100_000)).unwrap_err().contains("is nested deeper"), "a chain of a hundred thousand");
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
