//! Makes one completion out of the pieces of a stream, whether a stream was asked for or not.

use crate::provider::error_body::says_failed;
use crate::provider::reply_body::at;
use serde_json::{Map, Value, json};

/// Puts the pieces together; `None` when the stream was cut before its end.
///
/// A whole completion or an error among the values is taken as it is. The pieces are complete when one of them says why
/// the answer ended; the completion made of them looks like any other.
pub(super) fn join(values: Vec<Value>, is_stream: bool) -> Option<Value> {
    let is_whole = |value: &&Value| at(value, "/choices/0/message").is_some_and(Value::is_object);
    let is_error = |value: &&Value| value.get("error").is_some_and(says_failed);
    let found = values.iter().find(is_whole).or_else(|| values.iter().find(is_error));
    if let Some(found) = found {
        return Some(found.clone());
    }
    let pieces = values.iter().filter(|value| value.get("choices").is_some_and(Value::is_array)).count();
    if pieces == 0 {
        // Not a stream of ours: decoding reports the missing part.
        return values.into_iter().next();
    }
    let mut whole = Map::new();
    let mut choice = Map::new();
    let mut message = Map::new();
    for value in values {
        let Value::Object(members) = value else { continue };
        for (key, member) in members {
            match (key.as_str(), member) {
                ("choices", Value::Array(choices)) => {
                    let first =
                        choices.into_iter().find(|one| one.get("index").and_then(Value::as_u64).unwrap_or(0) == 0);
                    if let Some(Value::Object(piece)) = first {
                        add_choice(&mut choice, &mut message, piece);
                    }
                }
                // Padding against those who count bytes.
                (_, Value::Null) | ("obfuscation", _) => {}
                (_, member) => add(&mut whole, key, member),
            }
        }
    }
    if is_stream && !choice.contains_key("finish_reason") {
        return None;
    }
    if let Some(usage) = whole.get("x_groq").and_then(|groq| groq.get("usage")).cloned() {
        whole.entry("usage").or_insert(usage);
    }
    choice.insert("message".to_owned(), Value::Object(message));
    whole.insert("choices".to_owned(), json!([choice]));
    Some(Value::Object(whole))
}

/// Adds a member of a later event: it counts, and what only an earlier event said within it stays.
fn add(whole: &mut Map<String, Value>, key: String, member: Value) {
    match (whole.get_mut(&key), member) {
        (Some(Value::Object(before)), Value::Object(members)) => {
            members
                .into_iter()
                .filter(|(_, member)| !member.is_null())
                .for_each(|(key, member)| add(before, key, member));
        }
        (_, member) => _ = whole.insert(key, member),
    }
}

fn add_choice(choice: &mut Map<String, Value>, message: &mut Map<String, Value>, piece: Map<String, Value>) {
    for (key, member) in piece {
        match (key.as_str(), member) {
            (_, Value::Null) => {}
            ("delta", Value::Object(delta)) => {
                for (key, member) in delta {
                    add_member(message, &key, member);
                }
            }
            // A legacy completion has its text here.
            ("text", text @ Value::String(_)) => add_member(message, "content", text),
            ("logprobs", Value::Object(logprobs)) => {
                if let Value::Object(all) = choice.entry("logprobs").or_insert_with(|| json!({})) {
                    for (key, member) in logprobs {
                        if member.is_null() {
                            all.entry(key).or_insert(member);
                        } else {
                            add_member(all, &key, member);
                        }
                    }
                }
            }
            (_, member) => {
                choice.insert(key, member);
            }
        }
    }
}

/// Adds a piece of a member: texts and lists go on, tool calls by their index.
fn add_member(to: &mut Map<String, Value>, key: &str, piece: Value) {
    match (to.get_mut(key), piece) {
        (_, Value::Null) => {}
        (Some(Value::Array(calls)), Value::Array(pieces)) if key == "tool_calls" => add_calls(calls, pieces),
        (None, Value::Array(pieces)) if key == "tool_calls" => {
            let mut calls = Vec::new();
            add_calls(&mut calls, pieces);
            to.insert(key.to_owned(), Value::Array(calls));
        }
        // These come whole with each piece.
        (Some(_), _) if matches!(key, "role" | "id" | "type" | "name") => {}
        (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
        (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
        (Some(Value::Object(members)), Value::Object(more)) => {
            for (key, member) in more {
                add_member(members, &key, member);
            }
        }
        (_, piece) => {
            to.insert(key.to_owned(), piece);
        }
    }
}

/// The most calls that a stream can have: each piece is looked up among them.
const MOST_CALLS: usize = 1_000;

fn add_calls(calls: &mut Vec<Value>, pieces: Vec<Value>) {
    for piece in pieces {
        let has_room = calls.len() < MOST_CALLS;
        let index = piece.get("index").and_then(Value::as_u64);
        let place = calls.iter().position(|call| index.is_some() && call.get("index").and_then(Value::as_u64) == index);
        match (place.and_then(|place| calls.get_mut(place)), piece) {
            (Some(Value::Object(call)), Value::Object(members)) => {
                for (key, member) in members {
                    if key != "index" {
                        add_member(call, &key, member);
                    }
                }
            }
            (_, piece) if has_room => calls.push(piece),
            _ => {}
        }
    }
}
