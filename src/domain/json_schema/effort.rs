//! The cost of checking an answer, worked out before it is done.
//!
//! The library that checks follows a schema and an answer together. Where a schema names itself twice for one place it
//! does so twice at each level of the answer. Where long chains of references meet a deep answer it goes as deep as
//! both together, on the stack. Here each pair of a schema and a place is looked at once.

use super::budget::Patterns;
use serde_json::Value;
use std::collections::HashMap;

/// The most pairs of a schema and a place that are looked at.
const MOST_LOOKS: usize = 1_000_000;

/// The most schemas one inside the other, followed through references and through the answer. A tree of unions in an
/// answer as deep as JSON may be has some five hundred; the stack holds ten times this.
const DEEPEST: u32 = 1_000;

/// The cost of explaining a failing union beside looking at it: the failure of each branch is collected, which is
/// another look or two.
const EXPLAINING: u64 = 4;

/// How often a part is gone through.
#[derive(Clone, Copy)]
struct Times {
    deciding: u64,
    explaining: u64,
}

const ONCE: Times = Times { deciding: 1, explaining: 1 };

/// The amount of work that a check takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effort {
    /// Steps until it is known whether the answer fits.
    pub(super) deciding: u64,
    /// Steps until it is known where it does not.
    pub(super) explaining: u64,
    height: u32,
}

impl Effort {
    fn add(&mut self, more: Self) {
        self.deciding = self.deciding.saturating_add(more.deciding);
        self.explaining = self.explaining.saturating_add(more.explaining);
        self.height = self.height.max(more.height);
    }

    fn times(mut self, times: Times) -> Self {
        self.deciding = self.deciding.saturating_mul(times.deciding);
        self.explaining = self.explaining.saturating_mul(times.explaining);
        self
    }
}

/// The schemas that a schema refers to by name.
#[derive(Debug)]
pub(super) struct Definitions<'a> {
    /// The schema, and those within it that have a name of their own, with the end of that name.
    resources: Vec<(&'a str, &'a Value)>,
    anchors: Vec<(&'a str, &'a Value)>,
}

impl<'a> Definitions<'a> {
    pub(super) fn of(root: &'a Value) -> Self {
        let mut names = Self { resources: Vec::new(), anchors: Vec::new() };
        names.find(root);
        if !names.resources.iter().any(|(_, schema)| std::ptr::eq(*schema, root)) {
            names.resources.push(("", root));
        }
        names
    }

    fn find(&mut self, schema: &'a Value) {
        match schema {
            Value::Object(members) => {
                for (key, member) in members {
                    match (key.as_str(), member) {
                        ("$id" | "id", Value::String(id)) => {
                            let (base, anchor) = id.split_once('#').unwrap_or((id, ""));
                            self.resources.push((last_part(base), schema));
                            if !anchor.is_empty() {
                                self.anchors.push((anchor, schema));
                            }
                        }
                        ("$anchor" | "$dynamicAnchor", Value::String(name)) => self.anchors.push((name, schema)),
                        _ => self.find(member),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.find(item)),
            _ => {}
        }
    }

    /// Every schema that a reference may mean: rather one too many than one too few.
    fn meant(&self, to: &str) -> Vec<&'a Value> {
        let (base, fragment) = to.split_once('#').unwrap_or((to, ""));
        let name = last_part(base);
        let resources =
            self.resources.iter().filter(|(id, _)| base.is_empty() || *id == name).map(|(_, schema)| *schema);
        if fragment.is_empty() {
            resources.collect()
        } else if fragment.starts_with('/') {
            let fragment = unescaped(fragment);
            resources.filter_map(|schema| schema.pointer(&fragment)).collect()
        } else {
            self.anchors.iter().filter(|(anchor, _)| *anchor == fragment).map(|(_, schema)| *schema).collect()
        }
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Decodes a pointer, which may be written as a part of a URL.
fn unescaped(pointer: &str) -> String {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let hex = more.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = more.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The effort of checking an answer against a schema; `None`: more than is allowed.
pub(super) fn effort<'a>(
    names: &'a Definitions<'a>,
    patterns: &'a Patterns,
    schema: &'a Value,
    answer: &'a Value,
) -> Option<Effort> {
    Walk { names, patterns, known: HashMap::new() }.steps(schema, answer, 0)
}

/// A schema that a place is checked against.
#[derive(Clone, Copy)]
struct Part<'a> {
    schema: &'a Value,
    place: &'a Value,
    times: Times,
}

struct Walk<'a> {
    names: &'a Definitions<'a>,
    patterns: &'a Patterns,
    /// By the addresses of schema and place; no effort yet for a pair that is being looked at.
    known: HashMap<(usize, usize), Effort>,
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

/// Members and elements of something that is compared with the answer and not followed.
fn breadth(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.len() as u64,
        Value::Object(members) => members.len() as u64,
        _ => 1,
    }
}

impl<'a> Walk<'a> {
    /// The one function that calls itself: its stack frame takes room up to a thousand times.
    fn steps(&mut self, schema: &'a Value, place: &'a Value, depth: u32) -> Option<Effort> {
        let pair = (address(schema), address(place));
        if let Some(known) = self.known.get(&pair) {
            return (depth + known.height <= DEEPEST).then_some(*known);
        }
        if depth >= DEEPEST || self.known.len() >= MOST_LOOKS {
            return None;
        }
        self.known.insert(pair, Effort::default());
        let (parts, own) = self.parts(schema, place)?;
        let mut total = Effort { deciding: own, explaining: own, height: 0 };
        for part in parts {
            total.add(self.steps(part.schema, part.place, depth + 1)?.times(part.times));
        }
        total.height += 1;
        self.known.insert(pair, total);
        Some(total)
    }

    /// The parts of a place that a schema checks, and the schema's own effort.
    fn parts(&self, schema: &'a Value, place: &'a Value) -> Option<(Vec<Part<'a>>, u64)> {
        let (mut parts, mut own) = (Vec::new(), 1_u64);
        let Value::Object(keywords) = schema else { return Some((parts, own)) };
        for (keyword, value) in keywords {
            own = own.saturating_add(self.keyword(keyword, value, place, &mut parts));
        }
        // Finding out which members were evaluated takes another look.
        if keywords.contains_key("unevaluatedProperties") || keywords.contains_key("unevaluatedItems") {
            for part in &mut parts {
                part.times.deciding = part.times.deciding.saturating_mul(2);
                part.times.explaining = part.times.explaining.saturating_mul(2);
            }
        }
        (parts.len() <= MOST_LOOKS).then_some((parts, own))
    }

    /// Steps to match a pattern against this many bytes.
    fn matching(&self, pattern: &str, bytes: usize) -> u64 {
        (bytes as u64).saturating_mul(self.patterns.steps_per_byte(pattern)).saturating_add(1)
    }

    /// Adds the parts of the place that a keyword checks, and returns the keyword's own effort.
    fn keyword(&self, keyword: &str, value: &'a Value, place: &'a Value, parts: &mut Vec<Part<'a>>) -> u64 {
        let mut here = |schema, times| parts.push(Part { schema, place, times });
        match (keyword, value) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(to)) => {
                self.names.meant(to).into_iter().for_each(|schema| here(schema, ONCE));
            }
            ("allOf", Value::Array(schemas)) => schemas.iter().for_each(|schema| here(schema, ONCE)),
            ("anyOf" | "oneOf", Value::Array(schemas)) => {
                for schema in schemas {
                    here(schema, Times { explaining: EXPLAINING, ..ONCE });
                }
            }
            ("not" | "if" | "then" | "else", schema) => here(schema, Times { explaining: 2, ..ONCE }),
            ("dependentSchemas" | "dependencies", Value::Object(schemas)) => {
                schemas.values().for_each(|schema| here(schema, ONCE));
            }
            ("properties", Value::Object(schemas)) => {
                if let Value::Object(members) = place {
                    let named = members.iter().filter_map(|(name, place)| Some((schemas.get(name)?, place)));
                    parts.extend(named.map(|(schema, place)| Part { schema, place, times: ONCE }));
                }
                return breadth(value);
            }
            ("patternProperties", Value::Object(schemas)) => {
                let mut steps = 1_u64;
                for (pattern, schema) in schemas {
                    each(schema, place, parts);
                    steps = steps.saturating_add(self.matching(pattern, names_length(place)));
                }
                return steps;
            }
            ("pattern", Value::String(pattern)) => return self.matching(pattern, text_length(place)),
            ("items" | "prefixItems", Value::Array(schemas)) => {
                if let Value::Array(items) = place {
                    let pairs = schemas.iter().zip(items);
                    parts.extend(pairs.map(|(schema, place)| Part { schema, place, times: ONCE }));
                }
            }
            ("additionalProperties" | "unevaluatedProperties", schema) if place.is_object() => {
                each(schema, place, parts);
            }
            ("items" | "additionalItems" | "unevaluatedItems" | "contains", schema) if place.is_array() => {
                each(schema, place, parts);
            }
            ("propertyNames", schema) => {
                // The name of a member is a text.
                static NAME: Value = Value::Null;
                let times = Times { deciding: breadth(place), explaining: breadth(place) };
                parts.push(Part { schema, place: &NAME, times });
            }
            (
                "items"
                | "additionalItems"
                | "unevaluatedItems"
                | "contains"
                | "additionalProperties"
                | "unevaluatedProperties"
                | "$defs"
                | "definitions",
                _,
            ) => {}
            _ => return breadth(value),
        }
        1
    }
}

/// How many bytes of a place a pattern reads. The name of a member, which is not followed, is taken to be of usual
/// length.
fn text_length(place: &Value) -> usize {
    const OF_A_NAME: usize = 64;
    match place {
        Value::String(text) => text.len(),
        Value::Null => OF_A_NAME,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => 0,
    }
}

/// The bytes of all names of members of a place.
fn names_length(place: &Value) -> usize {
    place.as_object().map_or(0, |members| members.keys().fold(0, |sum, name| sum.saturating_add(name.len())))
}

/// A schema for everything within a place.
fn each<'a>(schema: &'a Value, place: &'a Value, parts: &mut Vec<Part<'a>>) {
    let part = |place| Part { schema, place, times: ONCE };
    match place {
        Value::Array(items) => parts.extend(items.iter().map(part)),
        Value::Object(members) => parts.extend(members.values().map(part)),
        _ => {}
    }
}
