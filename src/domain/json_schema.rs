//! JSON schemas of routes and requests, and answers checked against them.
//!
//! A schema comes from whoever may enqueue, and the answer from a model that does as it is told. Neither may keep a worker busy
//! for ever, or end it.

mod effort;

use effort::{Names, effort};
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
const DEEPEST: usize = 300;

/// References by `$id` are not written out here, so only so many are taken: they cannot multiply to much.
const MOST_BY_ID: u32 = 32;

/// How many characters a message has at most.
const MESSAGE_LENGTH: usize = 200;

/// A check that would take more steps than this is not made: some seconds at most.
const MOST_STEPS: u64 = 10_000_000;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    written: Value,
}

/// How an answer fails a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It does not fit.
    At {
        /// Where in the answer, as a JSON pointer.
        place: String,
        /// Which rule, as a JSON pointer into the schema.
        rule: String,
    },
    /// It does not fit, and finding out where would take too long.
    Somewhere,
    /// Whether it fits would take too long to find out, or too much of the stack.
    TooCostly,
}

impl Schema {
    /// Compiles a schema of a request. References outside it are not followed, and patterns match in linear time (so
    /// look-around and back-references are refused). A schema that refers to itself is fine, one whose references multiply is
    /// refused.
    ///
    /// # Errors
    /// What is wrong with the schema, in words.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        Size::of(schema)?;
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES))
            .build(schema)
            .map_err(|error| shortened(&error.to_string()))?;
        Ok(Self::compiled(validator, schema))
    }

    /// What the library has made of a schema, and the schema.
    #[must_use]
    pub fn compiled(validator: Validator, schema: &Value) -> Self {
        Self { validator, written: schema.clone() }
    }

    /// Checks an answer. Takes a few seconds at most, whatever the two are.
    ///
    /// # Errors
    /// How it fails.
    pub fn check(&self, answer: &Value) -> Result<(), Mismatch> {
        let names = Names::of(&self.written);
        let effort = effort(&names, &self.written, answer).filter(|effort| effort.deciding <= MOST_STEPS);
        let effort = effort.ok_or(Mismatch::TooCostly)?;
        // It stops at the first rule that is broken, and notes nothing.
        if self.validator.is_valid(answer) {
            return Ok(());
        }
        if effort.explaining > MOST_STEPS {
            return Err(Mismatch::Somewhere);
        }
        match self.validator.validate(answer) {
            Ok(()) => Ok(()),
            Err(error) => Err(Mismatch::At {
                place: error.instance_path().as_str().to_owned(),
                rule: error.schema_path().as_str().to_owned(),
            }),
        }
    }
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
mod tests;
