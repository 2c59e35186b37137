//! From a `generateContent` answer to the domain's.

use super::failures::RULES;
use crate::domain::{Answer, ErrorClass, Failure, Finish, Scope, ToolCall, Usage, UsageSource};
use crate::provider::adapter::WireReply;
use crate::provider::classify::classify;
use crate::provider::error_body::ErrorBody;
use crate::provider::reply_body::{self, count, json_text, take_string};
use crate::provider::scrub;
use serde_json::Value;

pub(super) fn decode(reply: &WireReply<'_>) -> Result<Answer, Failure> {
    if !(200..300).contains(&reply.status) {
        return Err(classify(RULES, reply, &ErrorBody::read(reply.body)));
    }
    let mut body = reply_body::parse(reply.body, reply.status)?;
    if let Some(error) = ErrorBody::inside(&body) {
        return Err(classify(RULES, reply, &error));
    }
    let Some(candidate) = body.pointer_mut("/candidates/0").filter(|candidate| candidate.is_object()) else {
        return Err(no_candidate(reply, &body));
    };
    let finish_raw = take_string(candidate, "finishReason");
    let mut text: Option<String> = None;
    let mut reasoning: Option<String> = None;
    let mut tool_calls = Vec::new();
    let parts = candidate.pointer_mut("/content/parts").and_then(Value::as_array_mut);
    for (index, part) in parts.into_iter().flatten().enumerate() {
        let thought = part.get("thought").and_then(Value::as_bool) == Some(true);
        if let Some(piece) = take_string(part, "text") {
            if thought { &mut reasoning } else { &mut text }.get_or_insert_default().push_str(&piece);
        }
        if let Some(call) = part.get_mut("functionCall") {
            let Some(name) = take_string(call, "name") else { continue };
            let id = take_string(call, "id").unwrap_or_else(|| format!("call_{index}"));
            let arguments = call.get_mut("args").map(Value::take).filter(|args| !args.is_null());
            tool_calls.push(ToolCall { id, name, arguments: arguments.map_or_else(|| "{}".to_owned(), json_text) });
        }
    }
    let finish = match finish(finish_raw.as_deref()) {
        Finish::Complete if !tool_calls.is_empty() => Finish::ToolCall,
        finish => finish,
    };
    let usage_raw = body.get_mut("usageMetadata").map(Value::take).filter(|usage| !usage.is_null());
    Ok(Answer {
        text,
        refusal: None,
        reasoning,
        tool_calls,
        finish,
        finish_raw,
        model: take_string(&mut body, "modelVersion"),
        id: take_string(&mut body, "responseId"),
        usage: usage_raw.as_ref().map_or_else(Usage::default, usage),
        usage_raw,
    })
}

pub(super) fn usage_of(reply: &WireReply<'_>) -> Option<(Usage, Value)> {
    let mut body = reply_body::parse_json(reply.body).ok()?;
    let raw = body.get_mut("usageMetadata").map(Value::take).filter(Value::is_object)?;
    Some((usage(&raw), raw))
}

/// No candidate: a blocked prompt when it says so, else a fault of the provider.
fn no_candidate(reply: &WireReply<'_>, body: &Value) -> Failure {
    let reason = body.pointer("/promptFeedback/blockReason").and_then(Value::as_str);
    let mut failure = if let Some(reason) = reason {
        let words = body.pointer("/promptFeedback/blockReasonMessage").and_then(Value::as_str);
        let message = words.map_or_else(|| format!("the prompt was blocked: {reason}"), str::to_owned);
        Failure::new(ErrorClass::ContentPolicy, Scope::Request, scrub::clean(&message))
    } else {
        let message = format!("HTTP {} with an answer without candidates", reply.status);
        Failure::new(ErrorClass::ServerError, Scope::Model, message)
    };
    failure.status = Some(reply.status);
    failure.code = reason.map(scrub::clean);
    failure
}

/// The finish class of each known word.
fn finish(raw: Option<&str>) -> Finish {
    match raw {
        Some("STOP") => Finish::Complete,
        Some("MAX_TOKENS") => Finish::Length,
        Some("SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "MODEL_ARMOR" | "LANGUAGE") => {
            Finish::ContentFilter
        }
        Some(word) if word.starts_with("IMAGE_") => Finish::ContentFilter,
        // A finished body without a reason did not finish.
        None
        | Some(
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "OTHER"
            | "FINISH_REASON_UNSPECIFIED",
        ) => Finish::Error,
        Some(_) => Finish::Unknown,
    }
}

/// Tokens in disjoint classes: the cache is inside the prompt, thoughts and tool prompts are outside of the rest.
fn usage(raw: &Value) -> Usage {
    let prompt = count(raw, "/promptTokenCount");
    let candidates = count(raw, "/candidatesTokenCount");
    let thoughts = count(raw, "/thoughtsTokenCount");
    if prompt.is_none() && candidates.is_none() && thoughts.is_none() {
        return Usage::default();
    }
    let (prompt, reasoning) = (prompt.unwrap_or(0), thoughts.unwrap_or(0));
    let cache_read = count(raw, "/cachedContentTokenCount").unwrap_or(0);
    let tool_prompts = count(raw, "/toolUsePromptTokenCount").unwrap_or(0);
    let uncached = if cache_read > prompt { prompt } else { prompt - cache_read };
    Usage {
        input: uncached.saturating_add(tool_prompts),
        cache_read,
        cache_write: 0,
        cache_write_1h: 0,
        output: candidates.unwrap_or(0).saturating_add(reasoning),
        reasoning,
        source: UsageSource::Provider,
    }
}
