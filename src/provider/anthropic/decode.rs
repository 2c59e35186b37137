//! Turns a Messages answer into the domain's.

use super::events;
use super::failures::{SIGNS, spend_limit_reached};
use crate::domain::{Answer, Beside, Failure, Finish, ToolCall, Usage, UsageSource};
use crate::provider::beside;
use crate::provider::classify::{ErrorRules, answer_of, classify};
use crate::provider::error_body::ErrorBody;
use crate::provider::reply_body::{self, arguments, count, finish_word, take_string, unusable};
use crate::provider::report::FailedUsage;
use crate::provider::stream_error;
use crate::provider::wait_hint;
use crate::provider::wire::WireReply;
use serde_json::{Map, Value, json};

pub(super) fn decode(errors: &ErrorRules, reply: &WireReply<'_>) -> Result<Answer, Failure> {
    if !(200..300).contains(&reply.status) {
        return Err(failure(errors, reply, &ErrorBody::read(reply.body)));
    }
    let parsed = reply_body::parse(reply, "content", events::join);
    let parsed = answer_of(errors, reply, "content", parsed, || stream_error::pieces(reply))
        .map_err(|instead| instead.failure(|error| failure(errors, reply, error)))?;
    let mut body = parsed.value;
    let aside = ErrorBody::set_aside(&body);
    let blocks = match body.get_mut("content").map(Value::take) {
        Some(Value::Array(blocks)) => blocks,
        Some(Value::String(text)) => vec![json!({ "type": "text", "text": text })],
        Some(block @ Value::Object(_)) => vec![block],
        _ => {
            return Err(unusable(reply, "an answer without content"));
        }
    };
    let Blocks { text, reasoning, tool_calls, message, extras } = read_blocks(blocks);
    let finish_raw = body.as_object().and_then(|body| finish_word(body, &["stop_reason", "finish_reason"]));
    let finish = finish(finish_raw.as_deref(), &tool_calls);
    let refusal = (finish == Finish::Refusal).then(|| {
        let detail = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
        detail("/stop_details/explanation").or(detail("/stop_details/category")).unwrap_or("refusal").to_owned()
    });
    let usage_raw = body.get_mut("usage").map(Value::take).filter(|usage| !usage.is_null());
    let model = take_string(&mut body, "model");
    let id = take_string(&mut body, "id");
    let Value::Object(body) = body else { return Err(failure(errors, reply, &ErrorBody::default())) };
    let of_usage = |key: &str| usage_raw.as_ref().and_then(|usage| usage.get(key));
    // Its fast mode is a tier with a price of its own.
    let fast = of_usage("speed").filter(|speed| speed.as_str().is_some_and(|speed| speed != "standard"));
    Ok(Answer {
        text,
        refusal,
        reasoning,
        tool_calls,
        finish,
        finish_raw,
        model,
        id,
        usage: usage_raw.as_ref().map_or_else(Usage::default, usage),
        vectors: None,
        beside: Beside {
            service_tier: beside::tier(&[fast, of_usage("service_tier"), body.get("service_tier")]),
            cost: beside::cost(usage_raw.as_ref(), &body, reply.headers),
            completion: beside::kept(
                body,
                &[
                    "type",
                    "role",
                    "content",
                    "usage",
                    "stop_reason",
                    "stop_sequence",
                    "finish_reason",
                    "service_tier",
                    "model",
                    "id",
                ],
            ),
            choice: Map::new(),
            message,
            tool_calls: beside::of_calls(extras),
            notes: parsed.mended.into_iter().chain(aside).map(str::to_owned).collect(),
            ..Beside::default()
        },
        usage_raw,
    })
}

#[derive(Default)]
struct Blocks {
    text: Option<String>,
    reasoning: Option<String>,
    tool_calls: Vec<ToolCall>,
    /// Further content of the blocks, in OpenAI's words where it has any.
    message: Map<String, Value>,
    extras: Vec<Map<String, Value>>,
}

fn read_blocks(blocks: Vec<Value>) -> Blocks {
    let mut read = Blocks::default();
    let (mut annotations, mut signed, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (index, mut block) in blocks.into_iter().enumerate() {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => {
                if let Some(Value::Array(citations)) = block.get_mut("citations").map(Value::take) {
                    annotations.extend(citations.into_iter().map(annotation));
                }
                append(&mut read.text, take_string(&mut block, "text"));
            }
            Some("thinking" | "redacted_thinking") => {
                // Its signature is needed when the conversation goes on.
                signed.push(block.clone());
                append(&mut read.reasoning, take_string(&mut block, "thinking"));
            }
            Some("tool_use") => {
                let Some(name) = take_string(&mut block, "name") else { continue };
                let id = take_string(&mut block, "id").unwrap_or_else(|| format!("call_{index}"));
                let arguments = arguments(block.get_mut("input").map(Value::take));
                read.tool_calls.push(ToolCall { id, name, arguments });
                let Value::Object(block) = block else { continue };
                read.extras.push(beside::kept(block, &["type", "name", "id", "input"]));
            }
            // Server tools, and blocks yet to be invented.
            _ => others.push(block),
        }
    }
    let has_signature =
        |block: &Value| block.get("signature").or(block.get("data")).is_some_and(|value| !value.is_null());
    if !signed.iter().any(has_signature) {
        signed.clear();
    }
    for (key, values) in [("annotations", annotations), ("thinking_blocks", signed), ("content_parts", others)] {
        if !values.is_empty() {
            read.message.insert(key.to_owned(), Value::Array(values));
        }
    }
    read
}

/// A citation as OpenAI's annotation where it has an address, else as it came.
fn annotation(citation: Value) -> Value {
    match citation.get("url").and_then(Value::as_str) {
        Some(url) => json!({ "type": "url_citation", "url_citation": { "url": url, "title": citation.get("title"),
            "content": citation.get("cited_text") } }),
        None => citation,
    }
}

pub(super) fn usage_of(reply: &WireReply<'_>) -> Option<FailedUsage> {
    beside::billed(reply, reply_body::take_usage(reply, "content", "usage", events::join), usage)
}

/// Classifies a failure. A spend limit without an end lasts until the month ends.
fn failure(errors: &ErrorRules, reply: &WireReply<'_>, error: &ErrorBody) -> Failure {
    let mut failure = classify(&SIGNS, errors, reply, error);
    if failure.wait.is_none() && spend_limit_reached(error) {
        failure.wait = reply.sent_at().and_then(wait_hint::until_next_month);
    }
    failure
}

fn append(to: &mut Option<String>, piece: Option<String>) {
    match (to.as_mut(), piece) {
        (Some(whole), Some(piece)) => whole.push_str(&piece),
        (None, Some(piece)) => *to = Some(piece),
        (_, None) => {}
    }
}

/// The finish class. A finished body without a reason did not finish.
fn finish(raw: Option<&str>, tool_calls: &[ToolCall]) -> Finish {
    match raw.map_or(Finish::Error, Finish::of_word) {
        Finish::Unknown if !tool_calls.is_empty() => Finish::ToolCall,
        finish => finish,
    }
}

/// Tokens in disjoint classes: `input_tokens` is uncached input only, so the three inputs add up.
fn usage(raw: &Value) -> Usage {
    let (input, output) = (count(raw, "/input_tokens"), count(raw, "/output_tokens"));
    if input.is_none() && output.is_none() {
        return Usage::default();
    }
    let number = |pointer: &str| count(raw, pointer);
    let for_an_hour = number("/cache_creation/ephemeral_1h_input_tokens").unwrap_or(0);
    let for_minutes = number("/cache_creation/ephemeral_5m_input_tokens").unwrap_or(0);
    let written = number("/cache_creation_input_tokens").unwrap_or(for_an_hour.saturating_add(for_minutes));
    let cache_write_1h = for_an_hour.min(written);
    Usage {
        input: input.unwrap_or(0),
        cache_read: number("/cache_read_input_tokens").unwrap_or(0),
        cache_write: written - cache_write_1h,
        cache_write_1h,
        output: output.unwrap_or(0),
        reasoning: number("/output_tokens_details/thinking_tokens").unwrap_or(0),
        source: UsageSource::Provider,
    }
}
