//! Turns a `/v2/chat` answer into the domain's.

use super::embed;
use super::events;
use super::failures::SIGNS;
use crate::domain::{Answer, Beside, Failure, Finish, Usage};
use crate::provider::beside;
use crate::provider::classify::{ErrorRules, success};
use crate::provider::reply_body::{self, count, finish_word, remove_string, take_string, tool_calls, unusable};
use crate::provider::report::FailedUsage;
use crate::provider::wire::WireReply;
use serde_json::{Value, json};

pub(super) fn decode(errors: &ErrorRules, reply: &WireReply<'_>) -> Result<Answer, Failure> {
    let parsed = success(&SIGNS, errors, reply, "message", events::join)?;
    let mut body = parsed.value;
    if embed::is_list(&body)
        && let Value::Object(body) = body
    {
        return Ok(embed::decode(body, parsed.mended.into_iter().map(str::to_owned).collect(), reply));
    }
    let message = body.get_mut("message").map(Value::take);
    let (Some(Value::Object(mut message)), Value::Object(mut body)) = (message, body) else {
        return Err(unusable(reply, "an answer without a message"));
    };
    let (mut text, reasoning) = content(message.remove("content"));
    let tool_calls = tool_calls(message.remove("tool_calls"));
    if let Some(plan) = remove_string(&mut message, "tool_plan") {
        // What the model says beside its calls.
        text = text.or(Some(plan).filter(|plan| !plan.is_empty()));
    }
    let finish_raw = finish_word(&body, &["finish_reason"]);
    let finish = finish_raw.as_deref().map_or(Finish::Error, Finish::of_word).with_calls(!tool_calls.is_empty());
    let logprobs = logprobs(body.remove("logprobs").as_ref());
    let usage_raw = body.remove("usage").filter(|usage| !usage.is_null());
    let (model, id) = (remove_string(&mut body, "model"), remove_string(&mut body, "id"));
    Ok(Answer {
        text,
        refusal: None,
        reasoning,
        tool_calls,
        finish,
        finish_raw,
        model,
        id,
        usage: usage_raw.as_ref().map_or_else(Usage::default, usage),
        vectors: None,
        beside: Beside {
            service_tier: None,
            cost: beside::cost(usage_raw.as_ref(), &body, reply.headers),
            completion: beside::kept(body, &["message", "finish_reason", "meta"]),
            choice: beside::with_logprobs(&logprobs),
            message: beside::kept(message, &["role", "citations"]),
            tool_calls: Vec::new(),
            notes: parsed.mended.into_iter().map(str::to_owned).collect(),
            ..Beside::default()
        },
        usage_raw,
    })
}

pub(super) fn usage_of(reply: &WireReply<'_>) -> Option<FailedUsage> {
    beside::billed(reply, reply_body::take_usage(reply, "message", "usage", events::join), usage)
}

/// The probabilities of the tokens in OpenAI's form. They come by pieces of text; where one has several tokens, the
/// first of them stands for the text.
fn logprobs(pieces: Option<&Value>) -> Vec<Value> {
    let mut tokens = Vec::new();
    for piece in pieces.and_then(Value::as_array).into_iter().flatten() {
        let mut text = piece.get("text").and_then(Value::as_str).unwrap_or_default();
        for logprob in piece.get("logprobs").and_then(Value::as_array).into_iter().flatten() {
            let token = std::mem::take(&mut text);
            tokens.push(json!({ "token": token, "logprob": logprob, "bytes": null, "top_logprobs": [] }));
        }
    }
    tokens
}

/// The text and the thoughts of a message.
fn content(content: Option<Value>) -> (Option<String>, Option<String>) {
    let (mut text, mut thoughts): (Option<String>, Option<String>) = (None, None);
    let blocks = match content {
        Some(Value::String(words)) => return (Some(words), None),
        Some(Value::Array(blocks)) => blocks,
        Some(block @ Value::Object(_)) => vec![block],
        _ => return (None, None),
    };
    for mut block in blocks {
        if let Some(thought) = take_string(&mut block, "thinking") {
            thoughts.get_or_insert_default().push_str(&thought);
        } else if let Some(words) = take_string(&mut block, "text") {
            text.get_or_insert_default().push_str(&words);
        }
    }
    (text, thoughts)
}

/// Tokens in disjoint classes: those that are billed, else those that were processed. Whether tokens from the cache are
/// a part of the input is not documented; here they are.
fn usage(raw: &Value) -> Usage {
    let of =
        |name: &str| count(raw, &format!("/billed_units/{name}")).or_else(|| count(raw, &format!("/tokens/{name}")));
    reply_body::usage(of("input_tokens"), count(raw, "/cached_tokens"), of("output_tokens"))
}
