//! Takes the parts of a schema that cannot be checked here out of it, so that the rest is checked.
//!
//! A schema without some of its rules has to take every answer that it took with them. Where a rule stands under a
//! negation, leaving it out would do the opposite: there the negation goes too.

use serde_json::{Map, Value};
use std::collections::HashMap;

/// The most places that are named.
const MOST_NAMED: usize = 10;

/// How many characters the name of a place has at most.
const NAME_LENGTH: usize = 100;

/// A schema that can be checked, and the places of the parts that were taken out.
pub(super) struct Loosened {
    pub(super) schema: Value,
    /// JSON pointers into the schema as it was.
    pub(super) unchecked: Vec<String>,
    /// Whether whole schemas were taken out or moved, to which references may lead.
    pub(super) has_gaps: bool,
}

impl Loosened {
    /// Takes out the patterns that cannot be matched, and on demand the name of the meta-schema.
    pub(super) fn of(schema: &Value, without_meta: bool, can_match: &dyn Fn(&str) -> bool) -> Self {
        let mut loosening = Loosening {
            can_match,
            patterns: HashMap::new(),
            loosened: Self { schema: Value::Null, unchecked: Vec::new(), has_gaps: false },
        };
        let mut schema = schema.clone();
        if without_meta && let Some(members) = schema.as_object_mut() {
            loosening.take_out(members, "", "$schema");
        }
        if loosening.looks_for_patterns(&schema) {
            loosening.schema(&mut schema, "");
        }
        Self { schema, ..loosening.loosened }
    }
}

struct Loosening<'a> {
    can_match: &'a dyn Fn(&str) -> bool,
    /// Whether each pattern can be matched.
    patterns: HashMap<String, bool>,
    loosened: Loosened,
}

impl Loosening<'_> {
    fn is_out_of_reach(&mut self, pattern: &str) -> bool {
        if let Some(can_match) = self.patterns.get(pattern) {
            return !can_match;
        }
        let can_match = (self.can_match)(pattern);
        self.patterns.insert(pattern.to_owned(), can_match);
        !can_match
    }

    /// Whether the schema has a pattern that cannot be matched.
    fn looks_for_patterns(&mut self, schema: &Value) -> bool {
        match schema {
            Value::Object(members) => members.iter().any(|(name, member)| {
                let is_one = match (name.as_str(), member) {
                    ("pattern", Value::String(pattern)) => self.is_out_of_reach(pattern),
                    ("patternProperties", Value::Object(patterns)) => {
                        patterns.keys().any(|pattern| self.is_out_of_reach(pattern))
                    }
                    _ => false,
                };
                is_one || self.looks_for_patterns(member)
            }),
            Value::Array(items) => items.iter().any(|item| self.looks_for_patterns(item)),
            _ => false,
        }
    }

    /// Whether the schema may take more than before. One that refers to another may, since the other may have been
    /// loosened.
    fn schema(&mut self, schema: &mut Value, at: &str) -> bool {
        match schema {
            Value::Object(members) => self.members(members, at),
            Value::Array(items) => {
                let mut is_looser = false;
                for (index, item) in items.iter_mut().enumerate() {
                    is_looser |= self.schema(item, &format!("{at}/{index}"));
                }
                is_looser
            }
            _ => false,
        }
    }

    fn members(&mut self, members: &mut Map<String, Value>, at: &str) -> bool {
        let mut is_looser = ["$ref", "$dynamicRef", "$recursiveRef"].iter().any(|name| members.contains_key(*name));
        let mut looser = Vec::new();
        for (name, member) in members.iter_mut() {
            let at = inside(at, name);
            let by_name = matches!(
                name.as_str(),
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" | "dependencies"
            );
            let is_member_looser = match (name.as_str(), member) {
                // These are data.
                ("enum" | "const" | "default" | "examples", _) => false,
                (_, Value::Object(schemas)) if by_name => {
                    let mut is_looser = false;
                    for (name, schema) in schemas.iter_mut() {
                        is_looser |= self.schema(schema, &inside(&at, name));
                    }
                    is_looser
                }
                (_, member) => self.schema(member, &at),
            };
            if is_member_looser {
                looser.push(name.clone());
            }
        }
        is_looser |= !looser.is_empty();
        let is_member_looser = |name: &str| looser.iter().any(|looser| looser == name);

        if let Some(Value::String(pattern)) = members.get("pattern")
            && self.is_out_of_reach(&pattern.clone())
        {
            is_looser |= self.take_out(members, at, "pattern");
        }
        if self.pattern_properties(members, at) {
            is_looser = true;
            // Names that matched the pattern would now be judged by this.
            is_looser |= self.take_out(members, at, "additionalProperties");
        }
        if is_member_looser("not") {
            is_looser |= self.take_out(members, at, "not");
        }
        if is_member_looser("if") {
            is_looser |= self.take_out(members, at, "if");
        }
        if is_member_looser("contains") {
            is_looser |= self.take_out(members, at, "maxContains");
        }
        if is_member_looser("oneOf")
            && let Some(branches) = members.get("oneOf").cloned()
        {
            // More than one of them may fit now.
            is_looser |= self.take_out(members, at, "oneOf");
            if members.contains_key("anyOf") {
                let mut any_of = Map::new();
                any_of.insert("anyOf".to_owned(), branches);
                match members.get_mut("allOf") {
                    Some(Value::Array(all)) => all.push(Value::Object(any_of)),
                    _ => {
                        members.insert("allOf".to_owned(), Value::Array(vec![Value::Object(any_of)]));
                    }
                }
            } else {
                members.insert("anyOf".to_owned(), branches);
            }
        }
        // A part that was taken out may have done the evaluation.
        is_looser |= self.take_out(members, at, "unevaluatedProperties");
        is_looser |= self.take_out(members, at, "unevaluatedItems");
        is_looser
    }

    /// Takes out the patterns for names that cannot be matched; whether there were any.
    fn pattern_properties(&mut self, members: &mut Map<String, Value>, at: &str) -> bool {
        let Some(Value::Object(patterns)) = members.get_mut("patternProperties") else { return false };
        let at = inside(at, "patternProperties");
        let names: Vec<String> = patterns.keys().cloned().collect();
        let mut were_any = false;
        for name in names {
            if self.is_out_of_reach(&name) {
                were_any |= self.take_out(patterns, &at, &name);
            }
        }
        were_any
    }

    /// Takes out a member and names its place; whether it was there.
    fn take_out(&mut self, members: &mut Map<String, Value>, at: &str, name: &str) -> bool {
        let Some(member) = members.remove(name) else { return false };
        self.loosened.has_gaps |= member.is_object() || member.is_array();
        let unchecked = &mut self.loosened.unchecked;
        if unchecked.len() < MOST_NAMED {
            unchecked.push(inside(at, name).chars().take(NAME_LENGTH).collect());
        } else if unchecked.len() == MOST_NAMED {
            unchecked.push("and more".to_owned());
        }
        true
    }
}

/// The pointer to a member.
fn inside(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}
