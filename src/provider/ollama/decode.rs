//! Turns an `/api/chat` answer into the domain's, whole or put together from its lines.

use super::embed;
use super::failures::SIGNS;
use crate::domain::{Answer, Beside, Failure, Finish, Usage};
use crate::provider::beside;
use crate::provider::classify::{ErrorRules, success};
use crate::provider::reply_body::{self, count, cut_off, finish_word, remove_string, tool_calls, unusable};
use crate::provider::report::FailedUsage;
use crate::provider::wire::WireReply;
use serde_json::{Map, Value};

/// Members that report what the answer took.
const COUNTS: &[&str] = &[
    "prompt_eval_count",
    "prompt_eval_cached_count",
    "eval_count",
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
];

pub(super) fn decode(errors: &ErrorRules, reply: &WireReply<'_>) -> Result<Answer, Failure> {
    let parsed = success(&SIGNS, errors, reply, "message", join)?;
    let mut body = parsed.value;
    if embed::is_list(&body)
        && let Value::Object(mut body) = body
    {
        let usage_raw = counts(&body);
        let reported = (usage_raw.as_ref().map_or_else(Usage::default, usage), usage_raw);
        body.retain(|key, _| !COUNTS.contains(&key.as_str()));
        return Ok(embed::decode(body, reported, parsed.mended.into_iter().map(str::to_owned).collect(), reply));
    }
    let message = body.get_mut("message").map(Value::take);
    let (Some(Value::Object(mut message)), Value::Object(mut body)) = (message, body) else {
        return Err(unusable(reply, "an answer without a message"));
    };
    if body.get("done") == Some(&Value::Bool(false)) && !reply.is_partial {
        return Err(cut_off(reply));
    }
    let text = remove_string(&mut message, "content");
    let reasoning = remove_string(&mut message, "thinking").filter(|thoughts| !thoughts.is_empty());
    let tool_calls = tool_calls(message.remove("tool_calls"));
    let finish_raw = finish_word(&body, &["done_reason"]);
    let is_done = body.get("done") == Some(&Value::Bool(true));
    let finish = match finish_raw.as_deref() {
        // It loaded or unloaded a model and generated nothing.
        Some("load" | "unload") => Finish::Error,
        Some(word) => Finish::of_word(word),
        // Older servers say no more than that they are done.
        None if is_done => Finish::Complete,
        None => Finish::Error,
    };
    let finish = finish.with_calls(!tool_calls.is_empty());
    let usage_raw = counts(&body);
    // The tokens are in OpenAI's form.
    let logprobs = match body.remove("logprobs") {
        Some(Value::Array(tokens)) => tokens,
        _ => Vec::new(),
    };
    Ok(Answer {
        text,
        refusal: None,
        reasoning,
        tool_calls,
        finish,
        finish_raw,
        model: remove_string(&mut body, "model"),
        id: remove_string(&mut body, "id"),
        usage: usage_raw.as_ref().map_or_else(Usage::default, usage),
        vectors: None,
        beside: Beside {
            service_tier: None,
            cost: beside::cost(usage_raw.as_ref(), &body, reply.headers),
            completion: beside::kept(body, &[&["created_at", "message", "done", "done_reason"], COUNTS].concat()),
            choice: beside::with_logprobs(&logprobs),
            message: beside::kept(message, &["role", "content", "thinking", "images"]),
            tool_calls: Vec::new(),
            notes: parsed.mended.into_iter().map(str::to_owned).collect(),
            ..Beside::default()
        },
        usage_raw,
    })
}

pub(super) fn usage_of(reply: &WireReply<'_>) -> Option<FailedUsage> {
    let parsed = reply_body::parse(reply, "message", join).ok();
    beside::billed(reply, parsed.and_then(|parsed| counts(parsed.value.as_object()?)), usage)
}

/// Puts the lines of a stream together: texts and calls go on, the last line says how it ended. An error among the
/// lines is taken as it is.
fn join(values: Vec<Value>, is_stream: bool) -> Option<Value> {
    if let Some(error) = values.iter().find(|value| value.get("error").is_some()) {
        return Some(error.clone());
    }
    let mut whole = Map::new();
    let mut message: Map<String, Value> = Map::new();
    for value in values {
        let Value::Object(members) = value else { continue };
        for (key, member) in members {
            let Value::Object(piece) = member else {
                match (whole.get_mut(&key), member) {
                    // The probabilities of this line's tokens.
                    (Some(Value::Array(tokens)), Value::Array(more)) => tokens.extend(more),
                    (_, member) => drop(whole.insert(key, member)),
                }
                continue;
            };
            if key != "message" {
                whole.insert(key, Value::Object(piece));
                continue;
            }
            for (key, member) in piece {
                match (message.get_mut(&key), member) {
                    (Some(_), _) if key == "role" => {}
                    (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
                    (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
                    (_, member) => {
                        message.insert(key, member);
                    }
                }
            }
        }
    }
    if is_stream && whole.get("done") != Some(&Value::Bool(true)) {
        return None;
    }
    whole.insert("message".to_owned(), Value::Object(message));
    Some(Value::Object(whole))
}

/// What the answer took, as one object; `None` when it does not say.
fn counts(body: &Map<String, Value>) -> Option<Value> {
    let found: Map<String, Value> =
        COUNTS.iter().filter_map(|key| Some(((*key).to_owned(), body.get(*key)?.clone()))).collect();
    let says = found.contains_key("prompt_eval_count") || found.contains_key("eval_count");
    says.then_some(Value::Object(found))
}

/// Tokens in disjoint classes. A count of zero is left out by the server.
fn usage(raw: &Value) -> Usage {
    let of = |name| count(raw, name);
    reply_body::usage(of("/prompt_eval_count"), of("/prompt_eval_cached_count"), of("/eval_count"))
}
