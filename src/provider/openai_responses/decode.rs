//! Turns a response into the domain's answer.

use super::events;
use crate::domain::{Answer, Beside, Failure, Finish, ToolCall, Usage};
use crate::provider::beside;
use crate::provider::classify::success;
use crate::provider::dialect::Manners;
use crate::provider::openai::failures::SIGNS;
use crate::provider::openai::usage;
use crate::provider::quirks::Quirks;
use crate::provider::reply_body::{self, arguments, remove_string, take_string, unusable};
use crate::provider::report::FailedUsage;
use crate::provider::wire::WireReply;
use serde_json::{Map, Value};

/// Members of a response that repeat the request, and those that are read.
const KNOWN: &[&str] = &[
    "object",
    "created_at",
    "completed_at",
    "status",
    "error",
    "incomplete_details",
    "output",
    "service_tier",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "top_logprobs",
    "truncation",
    "user",
    "metadata",
    "background",
];

pub(super) fn decode(manners: &Manners, reply: &WireReply<'_>) -> Result<Answer, Failure> {
    let parsed = success(&SIGNS, &manners.errors, reply, "output", events::join)?;
    let mut body = parsed.value;
    let Some(Value::Array(output)) = body.get_mut("output").map(Value::take) else {
        return Err(unusable(reply, "a response without output"));
    };
    let Value::Object(mut body) = body else { return Err(unusable(reply, "a response without output")) };
    let status = remove_string(&mut body, "status");
    if status.as_deref() == Some("failed") {
        return Err(unusable(reply, "a response that failed without a reason"));
    }
    let Output { text, refusal, reasoning, tool_calls, message, logprobs } = read_output(output);
    let reason = body.get("incomplete_details").and_then(|details| details.get("reason")).and_then(Value::as_str);
    let (finish, finish_raw) = finish(status.as_deref(), reason);
    let finish = match finish {
        Finish::Complete | Finish::Unknown if !tool_calls.is_empty() => Finish::ToolCall,
        Finish::Complete | Finish::Unknown if refusal.is_some() => Finish::Refusal,
        finish => finish,
    };
    let usage_raw = body.remove("usage").filter(|usage| !usage.is_null());
    let counts = usage_raw.as_ref().map_or_else(Usage::default, |raw| usage(manners, raw));
    Ok(Answer {
        text,
        refusal,
        reasoning,
        tool_calls,
        finish,
        finish_raw,
        model: remove_string(&mut body, "model"),
        id: remove_string(&mut body, "id"),
        usage: counts,
        vectors: None,
        beside: Beside {
            service_tier: beside::tier(&[body.get("service_tier")]),
            cost: beside::cost(usage_raw.as_ref(), &body, reply.headers),
            completion: beside::kept(body, KNOWN),
            choice: beside::with_logprobs(&logprobs),
            message,
            tool_calls: Vec::new(),
            notes: parsed.mended.into_iter().map(str::to_owned).collect(),
            ..Beside::default()
        },
        usage_raw,
    })
}

pub(super) fn usage_of(manners: &Manners, reply: &WireReply<'_>) -> Option<FailedUsage> {
    let raw = reply_body::take_usage(reply, "output", "usage", events::join);
    beside::billed(reply, raw, |raw| usage(manners, raw))
}

/// Reasoning is a part of the output here, also with vendors that count it apart in chats.
fn usage(manners: &Manners, raw: &Value) -> Usage {
    usage::usage(&Quirks { reasoning_outside: false, ..manners.quirks.clone() }, raw)
}

/// The finish class by status and reason. An answer that is incomplete for a reason yet to be invented was cut.
fn finish(status: Option<&str>, reason: Option<&str>) -> (Finish, Option<String>) {
    match (status, reason) {
        (Some("incomplete"), Some(reason)) => {
            let class = match Finish::of_word(reason) {
                Finish::ContentFilter => Finish::ContentFilter,
                _ => Finish::Length,
            };
            (class, Some(reason.to_owned()))
        }
        (Some(status), _) => (Finish::of_word(status), Some(status.to_owned())),
        (None, _) => (Finish::Error, None),
    }
}

#[derive(Default)]
struct Output {
    text: Option<String>,
    refusal: Option<String>,
    reasoning: Option<String>,
    tool_calls: Vec<ToolCall>,
    /// Further content of the messages.
    message: Map<String, Value>,
    /// The probabilities of the tokens of the text.
    logprobs: Vec<Value>,
}

fn read_output(items: Vec<Value>) -> Output {
    let mut read = Output::default();
    let mut annotations = Vec::new();
    let phase = |item: &Value| item.get("phase").and_then(Value::as_str).unwrap_or_default().to_owned();
    // Newer models comment on what they do before they answer.
    let has_final = items.iter().any(|item| phase(item) == "final_answer");
    for (index, mut item) in items.into_iter().enumerate() {
        match item.get("type").and_then(Value::as_str) {
            Some("message") if has_final && phase(&item) == "commentary" => {}
            Some("message") => {
                let Some(Value::Array(parts)) = item.get_mut("content").map(Value::take) else { continue };
                for mut part in parts {
                    if let Some(Value::Array(sources)) = part.get_mut("annotations").map(Value::take) {
                        annotations.extend(sources);
                    }
                    if let Some(Value::Array(tokens)) = part.get_mut("logprobs").map(Value::take) {
                        read.logprobs.extend(tokens);
                    }
                    if let Some(text) = take_string(&mut part, "text") {
                        read.text.get_or_insert_default().push_str(&text);
                    }
                    if let Some(refusal) = take_string(&mut part, "refusal").filter(|refusal| !refusal.is_empty()) {
                        read.refusal.get_or_insert_default().push_str(&refusal);
                    }
                }
            }
            Some("function_call") => {
                let Some(name) = take_string(&mut item, "name") else { continue };
                let id = take_string(&mut item, "call_id").filter(|id| !id.is_empty());
                let id = id.unwrap_or_else(|| format!("call_{index}"));
                let arguments = arguments(item.get_mut("arguments").map(Value::take));
                read.tool_calls.push(ToolCall { id, name, arguments });
            }
            Some("reasoning") => {
                for key in ["summary", "content"] {
                    let Some(Value::Array(parts)) = item.get_mut(key).map(Value::take) else { continue };
                    for mut part in parts {
                        if let Some(thought) = take_string(&mut part, "text") {
                            read.reasoning.get_or_insert_default().push_str(&thought);
                        }
                    }
                }
            }
            // Tools that the provider runs by itself, and items yet to be invented.
            _ => {}
        }
    }
    if !annotations.is_empty() {
        read.message.insert("annotations".to_owned(), Value::Array(annotations));
    }
    read
}
