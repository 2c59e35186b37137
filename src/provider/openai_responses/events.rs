//! Makes one response out of the events of a stream, whether a stream was asked for or not.

use serde_json::Value;

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
    if is_stream { None } else { values.into_iter().next() }
}
