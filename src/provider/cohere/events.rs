//! Makes one answer out of the events of a stream, whether a stream was asked for or not.

use serde_json::{Map, Value, json};

/// Puts the events together; `None` when the stream was cut before its end. A whole answer or an error among the values
/// is taken as it is.
pub(super) fn join(values: Vec<Value>, is_stream: bool) -> Option<Value> {
    let is_whole = |value: &&Value| value.get("message").is_some_and(Value::is_object);
    let is_event = |value: &Value| value.get("type").is_some_and(Value::is_string);
    if let Some(found) = values.iter().find(is_whole) {
        return Some(found.clone());
    }
    if !values.iter().any(is_event) {
        return values.into_iter().next();
    }
    let mut whole = Map::new();
    let mut message = Map::new();
    let (mut content, mut calls, mut logprobs) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_ended = false;
    for mut value in values {
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let delta = value.get_mut("delta").map(Value::take).unwrap_or_default();
        let piece = |key: &str| delta.pointer(&format!("/message/{key}")).cloned();
        match kind.as_str() {
            "message-start" => {
                if let Some(id) = value.get_mut("id").map(Value::take) {
                    whole.insert("id".to_owned(), id);
                }
            }
            "content-start" => content.extend(piece("content")),
            "content-delta" => {
                logprobs.extend(value.get_mut("logprobs").map(Value::take).filter(Value::is_object));
                if let (Some(block), Some(piece)) = (content.last_mut(), piece("content")) {
                    go_on(block, piece);
                }
            }
            "tool-plan-delta" => {
                if let Some(piece) = piece("tool_plan") {
                    match message.get_mut("tool_plan") {
                        Some(plan) => go_on(plan, piece),
                        None => drop(message.insert("tool_plan".to_owned(), piece)),
                    }
                }
            }
            "tool-call-start" => calls.extend(piece("tool_calls")),
            "tool-call-delta" => {
                if let (Some(call), Some(piece)) = (calls.last_mut(), piece("tool_calls")) {
                    go_on(call, piece);
                }
            }
            "message-end" => {
                has_ended = true;
                if let Some(error) = delta.get("error").filter(|error| !error.is_null()) {
                    return Some(json!({ "error": error }));
                }
                if let Value::Object(end) = delta {
                    whole.extend(end);
                }
            }
            // The ends of pieces, citations, and events yet to be invented.
            _ => {}
        }
    }
    if is_stream && !has_ended {
        return None;
    }
    if !content.is_empty() {
        message.insert("content".to_owned(), Value::Array(content));
    }
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    if !logprobs.is_empty() {
        whole.insert("logprobs".to_owned(), Value::Array(logprobs));
    }
    message.insert("role".to_owned(), json!("assistant"));
    whole.insert("message".to_owned(), Value::Object(message));
    Some(Value::Object(whole))
}

/// Adds a piece: texts go on, members member by member.
fn go_on(to: &mut Value, piece: Value) {
    match (to, piece) {
        (Value::String(text), Value::String(more)) => text.push_str(&more),
        (Value::Object(members), Value::Object(pieces)) => {
            for (key, piece) in pieces {
                match members.get_mut(&key) {
                    Some(_) if matches!(key.as_str(), "id" | "type" | "name") => {}
                    Some(member) => go_on(member, piece),
                    None => drop(members.insert(key, piece)),
                }
            }
        }
        (to, piece) => *to = piece,
    }
}
