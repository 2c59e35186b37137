//! From a chat-completions answer to the domain's.

use super::failures::RULES;
use super::profiles::Quirks;
use crate::domain::{Answer, ErrorClass, Failure, Finish, Scope, ToolCall, Usage, UsageSource};
use crate::provider::adapter::WireReply;
use crate::provider::classify::classify;
use crate::provider::error_body::ErrorBody;
use crate::provider::reply_body::{self, count, json_text, take_string};
use serde_json::Value;

pub(super) fn decode(quirks: &Quirks, reply: &WireReply<'_>) -> Result<Answer, Failure> {
    if !(200..300).contains(&reply.status) {
        return Err(classify(RULES, reply, &ErrorBody::read(reply.body)));
    }
    let mut body = reply_body::parse(reply.body, reply.status)?;
    if let Some(error) = ErrorBody::inside(&body) {
        return Err(classify(RULES, reply, &error));
    }
    let Some(choice) = body.pointer_mut("/choices/0").filter(|choice| choice.is_object()) else {
        return Err(unusable(reply, "without choices"));
    };
    let finish_raw = take_string(choice, "finish_reason");
    if finish_raw.as_deref() == Some("insufficient_system_resource") {
        let mut failure =
            Failure::new(ErrorClass::Overloaded, Scope::Model, "the provider ran out of resources while generating");
        failure.status = Some(reply.status);
        failure.code = finish_raw;
        return Err(failure);
    }
    let Some(message) = choice.get_mut("message").filter(|message| message.is_object()) else {
        return Err(unusable(reply, "whose choice has no message"));
    };
    let (text, thoughts) = content(message.get_mut("content").map_or(Value::Null, Value::take));
    let refusal = take_string(message, "refusal").filter(|refusal| !refusal.is_empty());
    let reasoning = ["reasoning_content", "reasoning"]
        .iter()
        .find_map(|key| take_string(message, key).filter(|reasoning| !reasoning.is_empty()))
        .or(thoughts);
    let tool_calls = tool_calls(message);
    let mut finish = finish(finish_raw.as_deref());
    if finish == Finish::Complete {
        if refusal.is_some() {
            finish = Finish::Refusal;
        } else if !tool_calls.is_empty() {
            // A forced tool call ends with `stop`.
            finish = Finish::ToolCall;
        }
    }
    let usage_raw = body.get_mut("usage").map(Value::take).filter(|usage| !usage.is_null());
    Ok(Answer {
        text,
        refusal,
        reasoning,
        tool_calls,
        finish,
        finish_raw,
        model: take_string(&mut body, "model"),
        id: take_string(&mut body, "id"),
        usage: usage_raw.as_ref().map_or_else(Usage::default, |raw| usage(quirks, raw)),
        usage_raw,
    })
}

pub(super) fn usage_of(quirks: &Quirks, reply: &WireReply<'_>) -> Option<(Usage, Value)> {
    let mut body = reply_body::parse_json(reply.body).ok()?;
    let raw = body.get_mut("usage").map(Value::take).filter(Value::is_object)?;
    Some((usage(quirks, &raw), raw))
}

fn unusable(reply: &WireReply<'_>, what: &str) -> Failure {
    let mut failure =
        Failure::new(ErrorClass::ServerError, Scope::Model, format!("HTTP {} with an answer {what}", reply.status));
    failure.status = Some(reply.status);
    failure
}

/// Text, and reasoning where the content is a list of chunks (Mistral's reasoning models).
fn content(content: Value) -> (Option<String>, Option<String>) {
    match content {
        Value::String(text) => (Some(text), None),
        Value::Array(chunks) => {
            let mut text: Option<String> = None;
            let mut reasoning: Option<String> = None;
            for mut chunk in chunks {
                match chunk.get("type").and_then(Value::as_str) {
                    Some("thinking" | "reasoning") => {
                        let thinking = chunk.get_mut("thinking").map_or(Value::Null, Value::take);
                        if let (Some(thought), _) = self::content(thinking) {
                            reasoning.get_or_insert_default().push_str(&thought);
                        }
                    }
                    _ => {
                        if let Some(piece) = take_string(&mut chunk, "text") {
                            text.get_or_insert_default().push_str(&piece);
                        }
                    }
                }
            }
            (text, reasoning)
        }
        _ => (None, None),
    }
}

fn tool_calls(message: &mut Value) -> Vec<ToolCall> {
    let function = |function: &mut Value, id: Option<String>, index: usize| {
        Some(ToolCall {
            id: id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{index}")),
            name: take_string(function, "name")?,
            arguments: function
                .get_mut("arguments")
                .map(Value::take)
                .filter(|arguments| !arguments.is_null())
                .map_or_else(String::new, json_text),
        })
    };
    let mut calls = Vec::new();
    for (index, call) in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let id = take_string(call, "id");
        calls.extend(call.get_mut("function").and_then(|inner| function(inner, id, index)));
    }
    if calls.is_empty()
        && let Some(legacy) = message.get_mut("function_call").filter(|call| call.is_object())
    {
        calls.extend(function(legacy, None, 0));
    }
    calls
}

/// The finish class of each known word.
fn finish(raw: Option<&str>) -> Finish {
    match raw {
        Some("stop" | "eos" | "end_turn") => Finish::Complete,
        Some("length" | "model_length") => Finish::Length,
        Some("tool_calls" | "function_call") => Finish::ToolCall,
        Some("content_filter") => Finish::ContentFilter,
        // A finished body without a reason did not finish.
        None | Some("error" | "abort" | "aborted" | "repetition") => Finish::Error,
        Some(_) => Finish::Unknown,
    }
}

/// Tokens in disjoint classes.
///
/// Cached tokens are inside `prompt_tokens`, unless there are more of them than of all (xAI). Reasoning is inside
/// `completion_tokens`, unless the total or the host's habit says otherwise.
fn usage(quirks: &Quirks, raw: &Value) -> Usage {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| count(raw, pointer));
    let total = first(&["/total_tokens"]);
    let prompt = first(&["/prompt_tokens"]);
    let completion = first(&["/completion_tokens"]);
    if prompt.is_none() && completion.is_none() {
        return Usage::default();
    }
    let left = |other: Option<i64>| total.unwrap_or(0).saturating_sub(other.unwrap_or(0)).max(0);
    let prompt = prompt.unwrap_or_else(|| left(completion));
    let completion = completion.unwrap_or_else(|| left(Some(prompt)));

    let cache_read = first(&[
        "/prompt_tokens_details/cached_tokens",
        "/prompt_token_details/cached_tokens",
        "/prompt_cache_hit_tokens",
        "/num_cached_tokens",
        "/cached_tokens",
    ])
    .unwrap_or(0);
    let cache_write = first(&["/prompt_tokens_details/cache_write_tokens"]).unwrap_or(0);
    let cached = cache_read.saturating_add(cache_write);
    let input = if cached > prompt { prompt } else { prompt - cached };

    let reasoning = first(&["/completion_tokens_details/reasoning_tokens", "/reasoning_tokens"]).unwrap_or(0);
    let all_input = input.saturating_add(cached);
    let outside = match total.map(|total| total.saturating_sub(all_input).saturating_sub(completion)) {
        _ if reasoning > completion => true,
        Some(0) => false,
        Some(spare) if spare == reasoning => true,
        _ => quirks.reasoning_outside,
    };
    let output = if outside { completion.saturating_add(reasoning) } else { completion };
    Usage { input, cache_read, cache_write, cache_write_1h: 0, output, reasoning, source: UsageSource::Provider }
}
