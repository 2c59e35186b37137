//! `[providers.NAME.quirks]`: how a server differs from its vendor's row.

use super::answers;
use super::section::{Section, to_json};
use crate::provider::quirks::CapField;
use crate::provider::vendors::{limit_headers, limit_headers_names};
use crate::provider::{Dialect, QuirkSettings};
use config::ValueKind;
use serde_json::Value;

const PATH: &str = "the path of a member, such as \"user\" or \"messages[].name\"";
const MEMBER: &str = "the name of a top-level member";

/// Members that the operator may not change: the route and the worker decide on them.
const FIXED: &[&str] = &["model", "messages", "prompt", "stream", "stream_options", "n"];

/// The members that may hold the output cap.
pub(super) fn cap_fields() -> Vec<&'static str> {
    vec!["max_tokens", "max_completion_tokens"]
}

pub(super) fn read(mut section: Section<'_>, dialect: &Dialect) -> QuirkSettings {
    if let Some(heeded) = dialect.heeds {
        for key in section.keys() {
            if !heeded.contains(&key.as_str()) && section.declares(&key) {
                let problem = format!("is a quirk of OpenAI's dialect, and this provider speaks {}", dialect.name);
                section.fault(&key, problem, format!("here only {}", in_words(heeded, "and")));
            }
        }
    }
    let meanings = in_words(&limit_headers_names(), "or");
    let quirks = QuirkSettings {
        cap_field: section.parsed("cap_field", "max_tokens or max_completion_tokens", |text| {
            CapField::parse(text).ok_or_else(|| format!("{text:?} is no field for the output cap"))
        }),
        drop: section.parsed_list("drop", PATH, path).unwrap_or_default(),
        refuse: section.parsed_list("refuse", PATH, path).unwrap_or_default(),
        keep: section.parsed_list("keep", PATH, path).unwrap_or_default(),
        drop_when_reasoning: section.parsed_list("drop_when_reasoning", PATH, path),
        takes_only: section.parsed_list("takes_only", MEMBER, member),
        rename: renames(&mut section),
        add: additions(&mut section),
        words: words(&mut section),
        drop_with_tools: section.parsed_list("drop_with_tools", PATH, path),
        logprobs_as_number: section.flag("logprobs_as_number"),
        stream_only_models: section.parsed_list("stream_only_models", "a part of a model's name", part_of_name),
        json_schema: section.flag("json_schema"),
        json_schema_models: section.parsed_list("json_schema_models", "a part of a model's name", part_of_name),
        tools_with_schema: section.flag("tools_with_schema"),
        needs_json_word: section.flag("needs_json_word"),
        require_parameters: section.flag("require_parameters"),
        short_call_ids: section.flag("short_call_ids"),
        max_call_id: section.whole("max_call_id"),
        needs_user_last: section.flag("needs_user_last"),
        checks_strict: section.flag("checks_strict"),
        plain_tool_names: section.flag("plain_tool_names"),
        max_stops: section.whole("max_stops"),
        stop_as_list: section.flag("stop_as_list"),
        join_texts: section.flag("join_texts"),
        empty_content_as_null: section.flag("empty_content_as_null"),
        takes_null: section.flag("takes_null"),
        takes_functions: section.flag("takes_functions"),
        takes_developer: section.flag("takes_developer"),
        stream_usage: section.flag("stream_usage"),
        model_rules: section.flag("model_rules"),
        reasoning_outside: section.flag("reasoning_outside"),
        limit_headers: section.parsed("limit_headers", &meanings, |text| {
            limit_headers(text).ok_or_else(|| format!("{text:?} is no known meaning"))
        }),
        errors: answers::errors(&mut section),
        headers: answers::headers(section.child("headers")),
        usage: answers::usage(section.child("usage")),
    };
    section.finish();
    quirks
}

/// `user`, `messages[].content[].cache_control`.
pub(super) fn path(text: &str) -> Result<String, String> {
    let well_formed = text.split('.').all(|step| member(step.strip_suffix("[]").unwrap_or(step)).is_ok());
    if !well_formed || text.ends_with("[]") {
        return Err(format!("{text:?} is not the path of a member"));
    }
    if FIXED.contains(&text) {
        return Err(format!("{text:?} is always sent as the route and the worker want it"));
    }
    Ok(text.to_owned())
}

fn part_of_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("\"\" is part of every name".to_owned()) } else { Ok(text.to_ascii_lowercase()) }
}

/// `a, b or c`.
fn in_words(names: &[&str], and: &str) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} {and} {last}", first.join(", ")),
        _ => names.concat(),
    }
}

fn member(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_name { Ok(text.to_owned()) } else { Err(format!("{text:?} is not the name of a member")) }
}

fn renames(section: &mut Section<'_>) -> Vec<(String, String)> {
    let mut child = section.child("rename");
    let mut renames = Vec::new();
    for (from, to) in child.take_all() {
        let ValueKind::String(to) = to.kind else {
            child.fault(&from, "is not a text", "the member's name at this provider");
            continue;
        };
        if FIXED.contains(&from.as_str()) || FIXED.contains(&to.as_str()) {
            child.fault(&from, "is always sent as the route and the worker want it", "another member");
        } else if member(&from).is_err() || member(&to).is_err() {
            child.fault(
                &from,
                "is not the name of a top-level member, or gets one that is none",
                "seed = \"random_seed\"",
            );
        } else if let Some((same, _)) = renames.iter().find(|(_, name)| *name == to) {
            child.fault(
                &from,
                format!("gets the name {to:?}, as {same} does: only one of them could be sent"),
                "a name of its own",
            );
        } else {
            renames.push((from, to));
        }
    }
    renames
}

/// `words = { tool_choice = { required = "any" } }`.
fn words(section: &mut Section<'_>) -> Vec<(String, String, String)> {
    let mut child = section.child("words");
    let mut words = Vec::new();
    for (name, value) in child.take_all() {
        let ValueKind::Table(pairs) = value.kind else {
            child.fault(&name, "is not a table of words", "{ required = \"any\" }");
            continue;
        };
        if FIXED.contains(&name.as_str()) || member(&name).is_err() {
            child.fault(&name, "is no member whose words may change", "another top-level member");
            continue;
        }
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (ours, theirs) in pairs {
            let ValueKind::String(theirs) = theirs.kind else {
                child.fault(&name, format!("has no text for {ours:?}"), "{ required = \"any\" }");
                continue;
            };
            words.push((name.clone(), ours, theirs));
        }
    }
    words
}

fn additions(section: &mut Section<'_>) -> Vec<(String, Value)> {
    let mut child = section.child("add");
    let mut additions = Vec::new();
    for (name, value) in child.take_all() {
        if FIXED.contains(&name.as_str()) || member(&name).is_err() {
            child.fault(&name, "cannot be added to a request", "another top-level member");
        } else {
            additions.push((name, to_json(&value)));
        }
    }
    additions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_other_texts() {
        for good in ["user", "messages[].name", "messages[].content[].cache_control", "tools[].function.strict"] {
            assert_eq!(path(good), Ok(good.to_owned()));
        }
        for bad in ["", "messages[]", "a..b", "a[0].b", "model", "stream", "a b", "[]"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
