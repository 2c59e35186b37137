//! JSON schemas of routes and requests, and answers checked against them.
//!
//! A schema comes from any login that may enqueue, and the answer from a model that does as it is told. Neither may
//! keep a worker busy for ever, or end it.

mod budget;
mod effort;
mod loosen;

use budget::{Extent, Patterns};
use effort::{Definitions, effort};
use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ReferencingError, ValidationError, Validator};
use loosen::Loosened;
use serde_json::Value;
use std::collections::HashMap;

/// Compiled patterns larger than this many bytes are refused: a schema comes from any login that may enqueue.
const PATTERN_BYTES: usize = 1 << 20;

/// A schema with more members than this, counted as if everything it refers to were written out, is refused: checking
/// an answer may take that many steps, and forty definitions that each name the next one twice would take a trillion.
const MOST_WRITTEN_OUT: u64 = 1_000_000;

/// A schema that is nested deeper than this with its references written out is refused: the library follows them one
/// inside the other, on the stack.
const DEEPEST: usize = 300;

/// References by `$id` are not written out here, so only this many are taken: they cannot multiply to much.
const MOST_BY_ID: u32 = 32;

/// How many characters a message has at most.
const MESSAGE_LENGTH: usize = 200;

/// A check that would take more steps than this is not made: a second or two at most.
const MOST_STEPS: u64 = 4_000_000;

/// The drafts that are tried for a schema that names none, or one that is unknown here: the first that takes it counts.
const DRAFTS: [(Draft, &str); 5] = [
    (Draft::Draft202012, "2020-12"),
    (Draft::Draft201909, "2019-09"),
    (Draft::Draft7, "7"),
    (Draft::Draft6, "6"),
    (Draft::Draft4, "4"),
];

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    /// `None` when nothing of the schema can be checked.
    validator: Option<Validator>,
    written: Value,
    unchecked: Vec<String>,
    patterns: Patterns,
    weight: usize,
}

/// As many broken rules are named at most.
const MOST_NAMED: usize = 5;

/// All broken rules are looked for only where that takes at most this many steps: an answer can break a rule a million
/// times.
const FEW_STEPS: u64 = 20_000;

/// A broken rule of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The place in the answer, as a JSON pointer.
    pub place: String,
    /// The rule, as a JSON pointer into the schema.
    pub rule: String,
    /// What the rule demands, where it is short.
    pub demand: Option<String>,
}

/// How an answer fails a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The answer does not fit, for these reasons, and perhaps more; at least one.
    At(Vec<Broken>),
    /// The answer does not fit, and finding out where would take too long.
    Somewhere,
    /// Finding out whether the answer fits would take too long, or too much of the stack.
    TooCostly,
}

impl Schema {
    /// Compiles a schema of a request. References outside it are not followed, and patterns match in linear time. Parts
    /// that cannot be checked that way (look-around, back-references, patterns that grow too large, a meta-schema that
    /// is not known, a schema elsewhere) are left unchecked, and named by [`Self::unchecked`]: the provider may know
    /// them, and they are no fault of the request. A schema that refers to itself is fine; one whose references
    /// multiply is refused.
    ///
    /// # Errors
    /// The fault of the schema, in words: no draft of JSON Schema takes it, or it is too large. That is found out
    /// before much is done for it: compiling takes a second or two at most, and at most [`Self::most_bytes`] of memory.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let extent = Extent::of(schema)?;
        Size::of(schema)?;
        let patterns = Patterns::of(schema)?;
        let compiled = match build(None, schema, PATTERN_BYTES) {
            Ok(validator) => Self::compiled(validator, schema),
            Err(error) => Self::compile_what_is_known(schema, &patterns, &error)?,
        };
        let weight = extent.weight().saturating_add(patterns.weight());
        Ok(Self { patterns, weight, ..compiled })
    }

    /// The most bytes that a schema can take once it is compiled.
    ///
    /// # Errors
    /// The part of which there is too much, in words.
    pub fn most_bytes(schema: &Value) -> Result<usize, String> {
        Extent::of(schema).map(Extent::at_most)
    }

    /// About how many bytes the compiled schema takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// As [`Self::compile`], for a schema that the library does not take as it is.
    fn compile_what_is_known(schema: &Value, patterns: &Patterns, error: &ValidationError<'_>) -> Result<Self, String> {
        let declared = Draft::default().detect(schema);
        let is_declared = schema.get("$schema").is_some_and(Value::is_string);
        let is_unknown = is_declared && declared == Draft::Unknown;
        let Loosened { schema: loose, mut unchecked, has_gaps } =
            Loosened::of(schema, is_unknown, &|pattern| patterns.can_match(pattern));
        let mut first = None;
        for (draft, name) in DRAFTS {
            if is_declared && !is_unknown && draft != declared {
                continue;
            }
            match build(Some(draft), &loose, PATTERN_BYTES) {
                Ok(validator) => {
                    if first.is_some() {
                        unchecked.push(format!("what draft {name} does not know"));
                    }
                    return Ok(Self { unchecked, ..Self::compiled(validator, &loose) });
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        let error = first.as_ref().unwrap_or(error);
        let is_elsewhere = match error.kind() {
            ValidationErrorKind::Referencing(ReferencingError::Unretrievable { .. }) => true,
            // It may lead to a part that was taken out.
            ValidationErrorKind::Referencing(_) => has_gaps,
            _ => false,
        };
        if is_unknown || is_elsewhere {
            let why = if is_unknown { "a meta-schema that is not known" } else { "a schema elsewhere" };
            return Ok(Self {
                validator: None,
                written: Value::Null,
                unchecked: vec![format!("all of it, for {why}")],
                patterns: Patterns::default(),
                weight: 0,
            });
        }
        Err(in_words(error))
    }

    /// The schema as it was written.
    #[must_use]
    pub fn written(&self) -> &Value {
        &self.written
    }

    /// A compiled schema, from the library's validator and the schema as written.
    #[must_use]
    pub fn compiled(validator: Validator, schema: &Value) -> Self {
        Self {
            validator: Some(validator),
            written: schema.clone(),
            unchecked: Vec::new(),
            patterns: Patterns::default(),
            weight: 0,
        }
    }

    /// The parts of the schema against which no answer is checked: pointers into it, or a few words.
    #[must_use]
    pub fn unchecked(&self) -> &[String] {
        &self.unchecked
    }

    /// Checks an answer. Takes a second or two at most, for any schema and any answer.
    ///
    /// # Errors
    /// How the answer fails the schema.
    pub fn check(&self, answer: &Value) -> Result<(), Mismatch> {
        let Some(validator) = &self.validator else { return Ok(()) };
        let names = Definitions::of(&self.written);
        let effort =
            effort(&names, &self.patterns, &self.written, answer).filter(|effort| effort.deciding <= MOST_STEPS);
        let effort = effort.ok_or(Mismatch::TooCostly)?;
        // This stops at the first broken rule, and notes nothing.
        if validator.is_valid(answer) {
            return Ok(());
        }
        if effort.explaining > MOST_STEPS {
            return Err(Mismatch::Somewhere);
        }
        let most = if effort.explaining > FEW_STEPS { 1 } else { MOST_NAMED };
        let broken: Vec<Broken> = match most {
            1 => validator.validate(answer).err().iter().map(|error| self.broken(error)).collect(),
            most => validator.iter_errors(answer).take(most).map(|error| self.broken(&error)).collect(),
        };
        if broken.is_empty() { Ok(()) } else { Err(Mismatch::At(broken)) }
    }

    /// The rule that an answer breaks. What it demands is the schema's own word, and nothing of the answer.
    fn broken(&self, error: &ValidationError<'_>) -> Broken {
        const LONGEST: usize = 120;
        let rule = error.schema_path().as_str().to_owned();
        let is_plain = |value: &&Value| match value {
            Value::Object(_) => false,
            Value::Array(items) => !items.iter().any(|item| item.is_object() || item.is_array()),
            _ => true,
        };
        let demand = match error.kind() {
            ValidationErrorKind::Required { property } => Some(property.to_string()),
            _ => self.written.pointer(&rule).filter(is_plain).map(Value::to_string),
        };
        let place = error.instance_path().as_str().to_owned();
        Broken { place, rule, demand: demand.filter(|demand| demand.len() <= LONGEST) }
    }
}

/// Compiles the schema as the draft that it names, unless another is demanded.
fn build(draft: Option<Draft>, schema: &Value, pattern: usize) -> Result<Validator, ValidationError<'static>> {
    let options = jsonschema::options()
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(pattern).dfa_size_limit(PATTERN_BYTES));
    match draft {
        Some(draft) => options.with_draft(draft).build(schema),
        None => options.build(schema),
    }
}

fn in_words(error: &ValidationError<'_>) -> String {
    shortened(&error.to_string())
}

/// How large a schema is when everything it refers to is written out.
struct Size<'a> {
    root: &'a Value,
    /// The schema that `#name` means.
    anchors: HashMap<&'a str, &'a Value>,
    /// By reference; `None` while it is being counted: a schema that refers to itself counts once.
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
