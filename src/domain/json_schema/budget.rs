//! The bounds on a schema, counted before it is compiled.
//!
//! A thousand patterns of forty characters each compile to 700 MB in a quarter of a minute, and neither the library nor
//! the text of a schema says so beforehand. No request needs that: vendors take some thousand properties, and no
//! patterns of any weight.

use super::build;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Values of a schema: objects, members, elements. Vendors take five thousand properties.
const MOST_VALUES: usize = 50_000;

/// Bytes of all its names and texts.
const MOST_TEXT: usize = 1 << 20;

/// Different patterns.
const MOST_PATTERNS: usize = 500;

/// The sizes that a compiled pattern may have, in bytes: the smallest that is enough is the one that counts. A pattern
/// larger than the last is left unchecked.
const SIZES: [usize; 3] = [16 << 10, 128 << 10, super::PATTERN_BYTES];

/// The most that all patterns together may take, in bytes, by the sizes that were tried.
const ALL_PATTERNS: usize = 32 << 20;

/// The bytes that a value takes when its schema is compiled, beside its text.
const VALUE_BYTES: usize = 600;

/// The counts of a schema, before anything is compiled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    values: usize,
    text: usize,
    patterns: usize,
}

impl Extent {
    /// Counts, and fails once a bound is passed.
    pub(super) fn of(schema: &Value) -> Result<Self, String> {
        let mut extent = Self::default();
        extent.count(schema)?;
        Ok(extent)
    }

    // A schema that was read from text is at most as deep as the JSON parser allows.
    fn count(&mut self, schema: &Value) -> Result<(), String> {
        self.values = self.values.saturating_add(1);
        match schema {
            Value::Object(members) => {
                for (name, member) in members {
                    self.text = self.text.saturating_add(name.len());
                    self.patterns = self.patterns.saturating_add(match (name.as_str(), member) {
                        ("pattern", Value::String(_)) => 1,
                        ("patternProperties", Value::Object(patterns)) => patterns.len(),
                        _ => 0,
                    });
                    self.count(member)?;
                }
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.count(item))?,
            Value::String(text) => self.text = self.text.saturating_add(text.len()),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        if self.values > MOST_VALUES {
            return Err(format!("has more than {MOST_VALUES} members and elements"));
        }
        if self.text > MOST_TEXT {
            return Err(format!("has more than {MOST_TEXT} bytes of names and texts"));
        }
        Ok(())
    }

    /// About how many bytes the schema takes once compiled, without its patterns.
    pub(super) const fn weight(self) -> usize {
        self.values.saturating_mul(VALUE_BYTES).saturating_add(self.text.saturating_mul(3))
    }

    /// The most bytes that it can take.
    pub(super) fn at_most(self) -> usize {
        self.weight().saturating_add(self.patterns.saturating_mul(super::PATTERN_BYTES).min(ALL_PATTERNS))
    }
}

/// The patterns of a schema.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    /// The compiled size of each pattern; `None`: it cannot be matched here.
    sizes: HashMap<String, Option<usize>>,
}

impl Patterns {
    /// Compiles each pattern once to see how large it becomes, and fails once that is too much.
    pub(super) fn of(schema: &Value) -> Result<Self, String> {
        let mut patterns = Self::default();
        patterns.find(schema)?;
        let mut all = 0_usize;
        for (pattern, size) in &mut patterns.sizes {
            let (found, taken) = measure(pattern);
            *size = found;
            all = all.saturating_add(taken);
            if all > ALL_PATTERNS {
                let megabytes = ALL_PATTERNS >> 20;
                return Err(format!("has patterns that come to more than {megabytes} MB when they are compiled"));
            }
        }
        Ok(patterns)
    }

    fn find(&mut self, schema: &Value) -> Result<(), String> {
        match schema {
            Value::Object(members) => {
                for (name, member) in members {
                    match (name.as_str(), member) {
                        ("pattern", Value::String(pattern)) => self.note(pattern)?,
                        ("patternProperties", Value::Object(patterns)) => {
                            patterns.keys().try_for_each(|pattern| self.note(pattern))?;
                        }
                        _ => {}
                    }
                    self.find(member)?;
                }
                Ok(())
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.find(item)),
            _ => Ok(()),
        }
    }

    fn note(&mut self, pattern: &str) -> Result<(), String> {
        if !self.sizes.contains_key(pattern) {
            self.sizes.insert(pattern.to_owned(), None);
        }
        if self.sizes.len() > MOST_PATTERNS {
            return Err(format!("has more than {MOST_PATTERNS} different patterns"));
        }
        Ok(())
    }

    pub(super) fn can_match(&self, pattern: &str) -> bool {
        self.sizes.get(pattern).is_some_and(Option::is_some)
    }

    /// The memory that all of them take, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.sizes.values().flatten().fold(0_usize, |sum, size| sum.saturating_add(*size))
    }

    /// Steps that a pattern takes for each byte that it reads: a large one may be in many of its states at once.
    pub(super) fn steps_per_byte(&self, pattern: &str) -> u64 {
        let size = self.sizes.get(pattern).copied().flatten().unwrap_or_default();
        (size >> 13) as u64
    }
}

/// How large a pattern becomes, if it can be matched, and how much finding out counts for.
fn measure(pattern: &str) -> (Option<usize>, usize) {
    let mut taken = 0_usize;
    for size in SIZES {
        if build(None, &json!({ "pattern": pattern }), size).is_ok() {
            return (Some(size), taken.saturating_add(size));
        }
        taken = taken.saturating_add(size);
        let is_last = size == super::PATTERN_BYTES;
        let raw = || regex::RegexBuilder::new(pattern).size_limit(size).build();
        if !is_last && !matches!(raw(), Err(regex::Error::CompiledTooBig(_))) {
            // The pattern has another fault, which no size mends.
            return (None, taken);
        }
    }
    (None, taken)
}
