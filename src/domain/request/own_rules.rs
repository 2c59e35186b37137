//! `validate` of a request: the rules for its own answer.

use super::RequestError;
use super::field::{Field, Members, boolean, string};
use crate::domain::language::{TextLanguage, TextScript};
use crate::domain::larger_cap::RaiseCap;
use crate::domain::validation::own_rules::{MOST_PATTERNS, compiled};
use crate::domain::validation::{FinishRule, OwnRules};

/// The member that holds them. It is not sent.
pub const VALIDATE: &str = "validate";

const MEMBERS: &[&str] = &[
    "non_empty",
    "min_chars",
    "max_chars",
    "refusal",
    "html",
    "truncated",
    "finish",
    "json",
    "repetition",
    "control_tokens",
    "prompt_cut",
    "stuck_answer",
    "filter",
    "language",
    "script",
    "served",
    "raise_cap",
    "required_patterns",
    "forbidden_patterns",
];

/// The most characters that a rule may name.
const MOST_CHARS: i64 = 1_000_000_000;

pub(super) fn read(field: &Field<'_>) -> Result<OwnRules, RequestError> {
    let named = field.object()?;
    if let Some(name) = named.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        let name: String = name.chars().take(40).collect();
        return field.fault(format_args!("{name:?} is no rule of a request; expected {}", MEMBERS.join(", ")));
    }
    let mut members = field.members()?;
    let chars = |members: &mut Members<'_>, name, least| {
        let whole = members.read(name, |field| field.integer(least, MOST_CHARS))?;
        Ok(whole.and_then(|chars| usize::try_from(chars).ok()))
    };
    let own = OwnRules {
        non_empty: members.read("non_empty", boolean)?,
        min_chars: chars(&mut members, "min_chars", 0)?,
        max_chars: chars(&mut members, "max_chars", 1)?,
        refusal: members.read("refusal", boolean)?,
        html: members.read("html", boolean)?,
        truncated: members.read("truncated", boolean)?,
        finish: members.read("finish", |field| word(field, FINISHES))?,
        json: members.read("json", boolean)?,
        repetition: members.read("repetition", boolean)?,
        control_tokens: members.read("control_tokens", boolean)?,
        prompt_cut: members.read("prompt_cut", boolean)?,
        stuck_answer: members.read("stuck_answer", boolean)?,
        only_filtered: members.read("filter", |field| word(field, FILTERS))?,
        language: members.read("language", |field| parsed(field, language))?,
        script: members.read("script", |field| parsed(field, TextScript::parse))?,
        only_as_asked: members.read("served", |field| word(field, SERVED))?,
        raise_cap: members.read("raise_cap", |field| word(field, RAISES))?,
        required_patterns: members.read("required_patterns", patterns)?,
        forbidden_patterns: members.read("forbidden_patterns", patterns)?,
    };
    if let (Some(least), Some(most)) = (own.min_chars, own.max_chars)
        && least > most
    {
        return field.fault(format_args!("min_chars is {least}, which is more than max_chars, {most}"));
    }
    Ok(own)
}

fn language(code: &str) -> Result<TextLanguage, String> {
    let known = || TextLanguage::codes().collect::<Vec<_>>().join(", ");
    TextLanguage::parse(code).map_err(|problem| format!("{problem}; those are {}", known()))
}

const FINISHES: &[(&str, FinishRule)] =
    &[("said", FinishRule::Said), ("known", FinishRule::Known), ("any", FinishRule::Any)];

const FILTERS: &[(&str, bool)] = &[("any", false), ("ran", true)];

const RAISES: &[(&str, RaiseCap)] =
    &[("never", RaiseCap::Never), ("reasoning", RaiseCap::Reasoning), ("always", RaiseCap::Always)];

const SERVED: &[(&str, bool)] = &[("any", false), ("asked", true)];

fn word<T: Copy>(field: &Field<'_>, words: &[(&str, T)]) -> Result<T, RequestError> {
    let found = field.value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
    if let Some((_, meant)) = found {
        return Ok(*meant);
    }
    let expected: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    field.expected(&expected.join(" or "))
}

/// One text, or some.
fn texts(field: &Field<'_>) -> Result<Vec<String>, RequestError> {
    if field.value.is_string() { Ok(vec![string(field)?]) } else { field.each(string) }
}

fn parsed<T>(field: &Field<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, RequestError> {
    texts(field)?.iter().map(|text| parse(text).or_else(|problem| field.fault(problem))).collect()
}

fn patterns(field: &Field<'_>) -> Result<Vec<String>, RequestError> {
    let patterns = texts(field)?;
    if patterns.len() > MOST_PATTERNS {
        return field.fault(format_args!("expected at most {MOST_PATTERNS} patterns, found {}", patterns.len()));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        if let Err(problem) = compiled(pattern) {
            return field.fault(format_args!("pattern {} does not compile: {problem}", index + 1));
        }
    }
    Ok(patterns)
}
