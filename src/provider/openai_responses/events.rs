//! Makes one response out of the events of a stream, whether a stream was asked for or not.

use serde_json::{Map, Value, json};

/// Finds the response: the last event carries all of it, so the pieces before it only show that the stream is alive.
/// `None` when there is none. An error among the values is taken as it is.
pub(super) fn join(values: Vec<Value>, is_stream: bool) -> Option<Value> {
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(error) =
        values.iter().find(|value| kind(value) == "error" || value.get("error").is_some_and(Value::is_object))
    {
        return Some(error.clone());
    }
    let is_last = |value: &&Value| {
        matches!(kind(value).as_str(), "response.completed" | "response.incomplete" | "response.failed")
    };
    if let Some(last) = values.iter().find(is_last) {
        return last.get("response").cloned();
    }
    if let Some(whole) = values.iter().find(|value| value.get("output").is_some()) {
        return Some(whole.clone());
    }
    if is_stream {
        return None;
    }
    so_far(&values).or_else(|| values.into_iter().next())
}

/// What has come of a response that did not end: its words and thoughts, in the order of its items. `None`: it did not
/// begin.
fn so_far(values: &[Value]) -> Option<Value> {
    let created = values.iter().find_map(|value| value.get("response"))?;
    let mut items: Vec<(u64, &str, String)> = Vec::new();
    for value in values {
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        let part = match kind {
            "response.output_text.delta" => "output_text",
            "response.refusal.delta" => "refusal",
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => "summary_text",
            _ => continue,
        };
        let Some(piece) = value.get("delta").and_then(Value::as_str) else { continue };
        let place = value.get("output_index").and_then(Value::as_u64).unwrap_or(0);
        match items.last_mut() {
            Some((last, what, text)) if (*last, *what) == (place, part) => text.push_str(piece),
            _ => items.push((place, part, piece.to_owned())),
        }
    }
    let output = items.into_iter().map(|(_, part, text)| match part {
        "summary_text" => json!({ "type": "reasoning", "summary": [{ "type": part, "text": text }] }),
        "refusal" => json!({ "type": "message", "content": [{ "type": part, "refusal": text }] }),
        part => json!({ "type": "message", "content": [{ "type": part, "text": text }] }),
    });
    let mut whole: Map<String, Value> = Map::new();
    for name in ["id", "model"] {
        whole.extend(created.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    whole.insert("output".to_owned(), output.collect());
    whole.insert("status".to_owned(), json!("in_progress"));
    Some(Value::Object(whole))
}
