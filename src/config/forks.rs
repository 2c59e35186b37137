//! `rules` of a route: which jobs go along another one.

use super::keys::RULE;
use super::rules::LANGUAGES;
use super::scalar;
use super::section::{Section, Table, quote, to_json};
use crate::domain::fork::{Fork, Names, Needs, When};
use crate::domain::language::TextLanguage;
use config::{Value, ValueKind};
use std::collections::BTreeMap;

const RULES: &str = "a list of rules such as [{ when = { project = \"acme\" }, route = \"other\" }]";
const NAMES: &str = "a text, or a list of texts; `*` at the end stands for any ending";

/// The routes that there are, and the names that the rules of each lead to.
pub(super) type Leads = BTreeMap<String, Vec<String>>;

/// What a request may ask for.
pub(super) fn words() -> Vec<&'static str> {
    Needs::WORDS.to_vec()
}

/// Where the rules of all routes lead, before any of them is read.
pub(super) fn leads(sections: &[(String, Section<'_>)]) -> Leads {
    let target = |rule: &Value| match &rule.kind {
        ValueKind::Table(rule) => match rule.get("route").map(|route| &route.kind) {
            Some(ValueKind::String(name)) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    let of = |section: &Section<'_>| match section.peek("rules").map(|rules| &rules.kind) {
        Some(ValueKind::Array(rules)) => rules.iter().filter_map(target).collect(),
        _ => Vec::new(),
    };
    sections.iter().map(|(name, section)| (name.clone(), of(section))).collect()
}

/// The rules of the route of this name.
pub(super) fn read(name: &str, section: &mut Section<'_>, leads: &Leads) -> Vec<Fork> {
    let mut forks: Vec<Fork> = Vec::new();
    for (index, value) in section.list("rules", RULES).into_iter().flatten().enumerate() {
        let key = format!("rules[{index}]");
        let ValueKind::Table(table) = value.kind else {
            section.fault(&key, "is no rule", RULES);
            continue;
        };
        let mut rule = section.nested(&key, &RULE, table.into_iter().collect());
        let to = read_target(name, &mut rule, leads);
        let when = read_when(rule.child("when"));
        rule.finish();
        let Some(when) = when else { continue };
        if let Some(earlier) = forks.iter().position(|earlier| earlier.when.covers(&when)) {
            let problem = format!("rules[{earlier}] takes every job for which this rule holds, so it never decides");
            section.fault(&key, problem, "the narrower rule first, or only one of the two");
        }
        forks.push(Fork { when, to: to.unwrap_or_default() });
    }
    forks
}

fn read_target(name: &str, rule: &mut Section<'_>, leads: &Leads) -> Option<String> {
    const EXPECTED: &str = "the name of a route";
    if !rule.has("route") {
        rule.fault("route", "is missing", EXPECTED);
    }
    let to = rule.text("route", EXPECTED)?;
    if !leads.contains_key(&to) {
        let expected = match scalar::nearest(&to, leads.keys().map(String::as_str)) {
            Some(near) => format!("perhaps {near}"),
            None => format!("a section [routes.{}]", quote(&to)),
        };
        rule.fault("route", format!("there is no route {to:?}"), expected);
        return None;
    }
    if let Some(way) = way_back(&to, name, leads) {
        let problem = format!("the rules lead round in a circle: {name}, {}", way.join(", "));
        rule.fault("route", problem, "rules that end at a route");
    }
    Some(to)
}

/// The routes from one to another, along the rules, both named.
fn way_back<'a>(from: &'a str, to: &str, leads: &'a Leads) -> Option<Vec<&'a str>> {
    let mut ways: Vec<Vec<&str>> = vec![vec![from]];
    let mut seen = vec![from];
    while let Some(way) = ways.pop() {
        let last = *way.last()?;
        if last == to {
            return Some(way);
        }
        for next in leads.get(last).into_iter().flatten() {
            if !seen.contains(&next.as_str()) {
                seen.push(next);
                let mut longer = way.clone();
                longer.push(next);
                ways.push(longer);
            }
        }
    }
    None
}

/// What a rule asks of a job; `None`: it cannot be told, or holds for none.
fn read_when(mut section: Section<'_>) -> Option<When> {
    let mut is_faulty = false;
    let mut names = |section: &mut Section<'_>, key: &'static str| {
        let value = section.take(key)?;
        let names = read_names(section, key, &value);
        is_faulty |= names.is_none();
        names
    };
    let (project, batch) = (names(&mut section, "project"), names(&mut section, "batch"));
    let mut metadata = BTreeMap::new();
    let members: Table = section.table("metadata");
    for (member, value) in members {
        match read_names(&section, &format!("metadata.{}", quote(&member)), &value) {
            Some(names) => drop(metadata.insert(member, names)),
            None => is_faulty = true,
        }
    }
    let (min_input_tokens, max_input_tokens) = (section.whole("min_input_tokens"), section.whole("max_input_tokens"));
    if let (Some(least), Some(most)) = (min_input_tokens, max_input_tokens)
        && least > most
    {
        let problem = format!("{least} is more than max_input_tokens, which is {most}, so the rule never holds");
        section.fault("min_input_tokens", problem, "at most max_input_tokens");
        is_faulty = true;
    }
    let mut needs = Needs::default();
    let expected = format!("a list of {}", words().join(", "));
    let listed = section.parsed_list("needs", &expected, |word| {
        let mut one = Needs::default();
        if one.add(word) { Ok(word.to_owned()) } else { Err(format!("{word:?} is nothing that a request asks for")) }
    });
    for word in listed.into_iter().flatten() {
        needs.add(&word);
    }
    let asks_more = needs != Needs::default() && Needs::by_words(&["embeddings"]) != Some(needs);
    let is_text = asks_more || section.has("language");
    if Needs::by_words(&["embeddings"]).is_some_and(|vectors| needs.include(vectors)) && is_text {
        let what = if asks_more { "needs" } else { "language" };
        section.reading().warn(format!(
            "{}: no request for embeddings has anything else that this rule asks for, so it never holds",
            section.key_in_file(what)
        ));
    }
    let language = section.parsed_list("language", LANGUAGES, TextLanguage::parse);
    is_faulty |= section.has("language") && language.is_none();
    section.finish();
    let language = language.unwrap_or_default();
    (!is_faulty).then_some(When { project, batch, metadata, min_input_tokens, max_input_tokens, needs, language })
}

/// A text, or some; numbers and flags count as they are written.
fn read_names(section: &Section<'_>, key: &str, value: &Value) -> Option<Names> {
    let text = |value: &Value| match &value.kind {
        ValueKind::String(text) if !text.trim().is_empty() => Some(text.clone()),
        ValueKind::I64(_) | ValueKind::Boolean(_) | ValueKind::Float(_) => Some(to_json(value).to_string()),
        _ => None,
    };
    let names: Option<Vec<String>> = match &value.kind {
        ValueKind::Array(values) => values.iter().map(text).collect(),
        _ => text(value).map(|text| vec![text]),
    };
    match names {
        Some(names) if names.is_empty() => {
            section.fault(key, "is an empty list, so the rule never holds", NAMES);
            None
        }
        None => {
            section.fault(key, "is neither a text nor a list of texts", NAMES);
            None
        }
        names => names.map(Names),
    }
}
