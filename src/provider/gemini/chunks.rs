//! Makes one answer out of the pieces of a stream, whether a stream was asked for or not.

use crate::provider::error_body::says_failed;
use serde_json::{Map, Value, json};

/// Puts together the pieces that `streamGenerateContent` sends, as events or as an array.
pub(super) fn join(values: Vec<Value>, is_stream: bool) -> Option<Value> {
    let mut whole = Map::new();
    let mut candidate = Map::new();
    let mut parts = Vec::new();
    for value in values {
        if value.get("error").is_some_and(says_failed) {
            return Some(value);
        }
        let Value::Object(members) = value else { continue };
        for (key, mut member) in members {
            if key != "candidates" {
                whole.insert(key, member);
                continue;
            }
            let Some(Value::Object(piece)) = member.get_mut(0).map(Value::take) else { continue };
            for (key, mut member) in piece {
                if key == "content" {
                    if let Some(Value::Array(more)) = member.get_mut("parts").map(Value::take) {
                        parts.extend(more);
                    }
                } else {
                    candidate.insert(key, member);
                }
            }
        }
    }
    let has_end = candidate.contains_key("finishReason") || whole.contains_key("promptFeedback");
    if is_stream && !has_end {
        return None;
    }
    if !candidate.is_empty() || !parts.is_empty() {
        candidate.insert("content".to_owned(), json!({ "parts": parts }));
        whole.insert("candidates".to_owned(), json!([candidate]));
    }
    Some(Value::Object(whole))
}
