//! Makes one message out of the events of a stream, whether a stream was asked for or not.

use serde_json::{Map, Value};

/// Puts the events together; `None` when the stream was cut before its end. A whole message or an error among the
/// values is taken as it is.
pub(super) fn join(values: Vec<Value>, is_stream: bool) -> Option<Value> {
    let kind = |value: &Value, kind: &str| value.get("type").and_then(Value::as_str) == Some(kind);
    let is_whole = |value: &Value| value.get("content").is_some_and(Value::is_array);
    if let Some(found) = values.iter().find(|value| is_whole(value) || kind(value, "error")) {
        return Some(found.clone());
    }
    if !values.iter().any(|value| kind(value, "message_start")) {
        return values.into_iter().next();
    }
    let mut whole = Map::new();
    let mut blocks: Vec<Value> = Vec::new();
    let mut usage = Map::new();
    for mut value in values {
        let reported = value.pointer_mut("/message/usage").map(Value::take);
        let reported = reported.or_else(|| value.get_mut("usage").map(Value::take));
        if let Some(Value::Object(reported)) = reported {
            usage.extend(reported);
        }
        if let Some(Value::Object(message)) = value.get_mut("message").map(Value::take) {
            whole.extend(message);
        }
        if let Some(block) = value.get_mut("content_block").map(Value::take) {
            blocks.push(block);
        }
        let is_of_message = kind(&value, "message_delta");
        let index = value.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        if let Some(Value::Object(delta)) = value.get_mut("delta").map(Value::take) {
            if is_of_message {
                whole.extend(delta.into_iter().filter(|(_, member)| !member.is_null()));
            } else if let Some(Value::Object(block)) = index.and_then(|index| blocks.get_mut(index)) {
                add(block, delta);
            }
        }
    }
    if is_stream && !whole.get("stop_reason").is_some_and(Value::is_string) {
        return None;
    }
    whole.insert("content".to_owned(), Value::Array(blocks));
    whole.insert("usage".to_owned(), Value::Object(usage));
    Some(Value::Object(whole))
}

/// Adds a piece to its block. The arguments of a call come as pieces of a text.
fn add(block: &mut Map<String, Value>, delta: Map<String, Value>) {
    for (key, piece) in delta {
        let key = match key.as_str() {
            "partial_json" => "input",
            "citation" => "citations",
            "type" => continue,
            other => other,
        };
        match (block.get_mut(key), piece) {
            (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
            (Some(Value::Array(items)), more) => items.push(more),
            (_, more) if key == "citations" => {
                block.insert(key.to_owned(), Value::Array(vec![more]));
            }
            (_, more) => {
                block.insert(key.to_owned(), more);
            }
        }
    }
}
