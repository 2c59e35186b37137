//! From a Messages answer to the domain's.

use super::failures::{RULES, spend_limit_reached};
use crate::domain::{Answer, ErrorClass, Failure, Finish, Scope, ToolCall, Usage, UsageSource};
use crate::provider::adapter::WireReply;
use crate::provider::classify::classify;
use crate::provider::error_body::ErrorBody;
use crate::provider::reply_body::{self, count, json_text, take_string};
use crate::provider::wait_hint;
use serde_json::Value;

pub(super) fn decode(reply: &WireReply<'_>) -> Result<Answer, Failure> {
    if !(200..300).contains(&reply.status) {
        return Err(failure(reply, &ErrorBody::read(reply.body)));
    }
    let mut body = reply_body::parse(reply.body, reply.status)?;
    if let Some(error) = ErrorBody::inside(&body) {
        return Err(failure(reply, &error));
    }
    let Some(Value::Array(blocks)) = body.get_mut("content").map(Value::take) else {
        let message = format!("HTTP {} with an answer without content", reply.status);
        return Err(Failure {
            status: Some(reply.status),
            ..Failure::new(ErrorClass::ServerError, Scope::Model, message)
        });
    };
    let mut text: Option<String> = None;
    let mut reasoning: Option<String> = None;
    let mut tool_calls = Vec::new();
    for (index, mut block) in blocks.into_iter().enumerate() {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => append(&mut text, take_string(&mut block, "text")),
            Some("thinking") => append(&mut reasoning, take_string(&mut block, "thinking")),
            Some("tool_use") => {
                let Some(name) = take_string(&mut block, "name") else { continue };
                let id = take_string(&mut block, "id").unwrap_or_else(|| format!("call_{index}"));
                let arguments = json_text(block.get_mut("input").map_or(Value::Null, Value::take));
                tool_calls.push(ToolCall { id, name, arguments });
            }
            // Redacted thinking, server tools and what is yet to be invented: nothing to deliver.
            _ => {}
        }
    }
    let finish_raw = take_string(&mut body, "stop_reason");
    let finish = finish(finish_raw.as_deref());
    let refusal = (finish == Finish::Refusal).then(|| {
        let detail = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
        detail("/stop_details/explanation").or(detail("/stop_details/category")).unwrap_or("refusal").to_owned()
    });
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
        usage: usage_raw.as_ref().map_or_else(Usage::default, usage),
        usage_raw,
    })
}

pub(super) fn usage_of(reply: &WireReply<'_>) -> Option<(Usage, Value)> {
    let mut body = reply_body::parse_json(reply.body).ok()?;
    let raw = body.get_mut("usage").map(Value::take).filter(Value::is_object)?;
    Some((usage(&raw), raw))
}

/// Classifies. A spend limit that names no end lasts until the month does.
fn failure(reply: &WireReply<'_>, error: &ErrorBody) -> Failure {
    let mut failure = classify(RULES, reply, error);
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

/// The finish class of each known word.
fn finish(raw: Option<&str>) -> Finish {
    match raw {
        Some("end_turn" | "stop_sequence") => Finish::Complete,
        Some("max_tokens" | "model_context_window_exceeded") => Finish::Length,
        Some("tool_use") => Finish::ToolCall,
        Some("refusal") => Finish::Refusal,
        Some("pause_turn" | "compaction") => Finish::Pause,
        // A finished body without a reason did not finish.
        None => Finish::Error,
        Some(_) => Finish::Unknown,
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
