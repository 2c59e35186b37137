//! Turns a `generateContent` answer into the domain's.

use super::chunks;
use super::embed;
use super::failures::SIGNS;
use crate::domain::{Answer, Beside, ErrorClass, Failure, Finish, Scope, ToolCall, Usage, UsageSource};
use crate::provider::beside;
use crate::provider::classify::{ErrorRules, success};
use crate::provider::error_body::ErrorBody;
use crate::provider::reply_body::{self, arguments, count, finish_word, take_string};
use crate::provider::report::FailedUsage;
use crate::provider::scrub;
use crate::provider::wire::WireReply;
use serde_json::{Map, Value, json};

pub(super) fn decode(errors: &ErrorRules, reply: &WireReply<'_>) -> Result<Answer, Failure> {
    let parsed = success(&SIGNS, errors, reply, "candidates", chunks::join)?;
    let mut body = parsed.value;
    let aside = ErrorBody::set_aside(&body);
    if embed::is_list(&body)
        && let Value::Object(mut body) = body
    {
        let usage_raw = body.remove("usageMetadata").filter(|usage| !usage.is_null());
        let reported = (usage_raw.as_ref().map_or_else(Usage::default, usage), usage_raw);
        let notes = parsed.mended.into_iter().chain(aside).map(str::to_owned).collect();
        return Ok(embed::decode(body, reported, notes, reply));
    }
    let Some(Value::Object(mut candidate)) =
        body.pointer_mut("/candidates/0").filter(|candidate| candidate.is_object()).map(Value::take)
    else {
        return Err(no_candidate(reply, &body));
    };
    let finish_raw = finish_word(&candidate, &["finishReason", "finish_reason"]);
    let Parts { text, reasoning, tool_calls, extras, others } = read_parts(&mut candidate);
    let finish = finish_raw.as_deref().map_or(Finish::Error, finish).with_calls(!tool_calls.is_empty());
    let mut message = Map::new();
    let annotations = annotations(&candidate);
    for (key, values) in [("annotations", annotations), ("content_parts", others)] {
        if !values.is_empty() {
            message.insert(key.to_owned(), Value::Array(values));
        }
    }
    if let Some(logprobs) = candidate.get("logprobsResult").and_then(logprobs) {
        candidate.remove("logprobsResult");
        candidate.insert("logprobs".to_owned(), logprobs);
    }
    let usage_raw = body.get_mut("usageMetadata").map(Value::take).filter(|usage| !usage.is_null());
    let model = take_string(&mut body, "modelVersion");
    let id = take_string(&mut body, "responseId");
    let Value::Object(body) = body else { return Err(no_candidate(reply, &Value::Null)) };
    let of_usage = usage_raw.as_ref().and_then(|usage| usage.get("serviceTier"));
    let tier = beside::tier(&[body.get("serviceTier"), of_usage]);
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
            // Other vendors call `SERVICE_TIER_FLEX` flex.
            service_tier: tier.map(|tier| tier.to_ascii_lowercase().trim_start_matches("service_tier_").to_owned()),
            cost: beside::cost(usage_raw.as_ref(), &body, reply.headers),
            completion: beside::kept(
                body,
                &["candidates", "usageMetadata", "serviceTier", "modelVersion", "responseId"],
            ),
            choice: beside::kept(candidate, &["content", "finishReason", "finish_reason", "index"]),
            message,
            tool_calls: beside::of_calls(extras),
            notes: parsed.mended.into_iter().chain(aside).map(str::to_owned).collect(),
            ..Beside::default()
        },
        usage_raw,
    })
}

pub(super) fn usage_of(reply: &WireReply<'_>) -> Option<FailedUsage> {
    beside::billed(reply, reply_body::take_usage(reply, "candidates", "usageMetadata", chunks::join), usage)
}

#[derive(Default)]
struct Parts {
    text: Option<String>,
    reasoning: Option<String>,
    tool_calls: Vec<ToolCall>,
    extras: Vec<Map<String, Value>>,
    /// Parts that are neither text nor calls, as they came: images, code that was run.
    others: Vec<Value>,
}

fn read_parts(candidate: &mut Map<String, Value>) -> Parts {
    let mut read = Parts::default();
    let content = candidate.get_mut("content");
    let parts = match content.and_then(|content| content.get_mut("parts")) {
        Some(Value::Array(parts)) => parts.as_mut_slice(),
        Some(part @ Value::Object(_)) => std::slice::from_mut(part),
        _ => &mut [],
    };
    for (index, part) in parts.iter_mut().enumerate() {
        let thought = part.get("thought").and_then(Value::as_bool) == Some(true);
        if let Some(piece) = take_string(part, "text") {
            let text = if thought { &mut read.reasoning } else { &mut read.text };
            text.get_or_insert_default().push_str(&piece);
            continue;
        }
        // Needed when the conversation goes on; in the words of Google's own compatible endpoint.
        let signature = take_string(part, "thoughtSignature");
        let Some(call) = part.get_mut("functionCall") else {
            if part.as_object().is_some_and(|members| members.keys().any(|key| key != "text" && key != "thought")) {
                read.others.push(part.take());
            }
            continue;
        };
        let Some(name) = take_string(call, "name") else { continue };
        let id = take_string(call, "id").unwrap_or_else(|| format!("call_{index}"));
        read.tool_calls.push(ToolCall { id, name, arguments: arguments(call.get_mut("args").map(Value::take)) });
        let extra = signature
            .map(|signature| ("extra_content".to_owned(), json!({ "google": { "thought_signature": signature } })));
        read.extras.push(extra.into_iter().collect());
    }
    read
}

/// The sources of a grounded answer, as OpenAI's annotations.
fn annotations(candidate: &Map<String, Value>) -> Vec<Value> {
    let chunks = candidate.get("groundingMetadata").and_then(|grounding| grounding.get("groundingChunks"));
    let source = |chunk: &Value| {
        let web = chunk.get("web")?;
        let url = web.get("uri")?.as_str()?;
        Some(json!({ "type": "url_citation", "url_citation": { "url": url, "title": web.get("title") } }))
    };
    chunks.and_then(Value::as_array).into_iter().flatten().filter_map(source).collect()
}

/// Log probabilities as OpenAI writes them.
fn logprobs(result: &Value) -> Option<Value> {
    let token = |candidate: &Value| {
        let (token, logprob) = (candidate.get("token"), candidate.get("logProbability"));
        json!({ "token": token, "logprob": logprob, "bytes": null })
    };
    let chosen = result.get("chosenCandidates")?.as_array()?;
    let content: Vec<Value> = chosen
        .iter()
        .enumerate()
        .map(|(index, candidate)| {
            let mut entry = token(candidate);
            let top = result.pointer(&format!("/topCandidates/{index}/candidates")).and_then(Value::as_array);
            entry["top_logprobs"] = top.into_iter().flatten().map(token).collect();
            entry
        })
        .collect();
    Some(json!({ "content": content }))
}

/// The failure when there is no candidate: a prompt that was blocked for its content, or refused without a reason, if
/// it says so; else a fault of the provider.
fn no_candidate(reply: &WireReply<'_>, body: &Value) -> Failure {
    let reason = body.pointer("/promptFeedback/blockReason").and_then(Value::as_str);
    let mut failure = if let Some(reason) = reason {
        let words = body.pointer("/promptFeedback/blockReasonMessage").and_then(Value::as_str);
        let message = words.map_or_else(|| format!("the prompt was blocked: {reason}"), str::to_owned);
        // Without a reason nothing is known of the request, and another target may well take it.
        let is_vague = matches!(reason, "OTHER" | "BLOCK_REASON_UNSPECIFIED" | "BLOCKED_REASON_UNSPECIFIED");
        let class = if is_vague { ErrorClass::Refused } else { ErrorClass::ContentPolicy };
        Failure::new(class, Scope::Request, scrub::clean(&message))
    } else {
        let message = format!("HTTP {} with an answer without candidates", reply.status);
        Failure::new(ErrorClass::ServerError, Scope::Model, message)
    };
    failure.status = Some(reply.status);
    failure.code = reason.map(scrub::clean);
    failure
}

/// The finish class of a word, or of the number of its constant.
fn finish(raw: &str) -> Finish {
    const NUMBERS: [&str; 10] = [
        "FINISH_REASON_UNSPECIFIED",
        "STOP",
        "MAX_TOKENS",
        "SAFETY",
        "RECITATION",
        "OTHER",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MALFORMED_FUNCTION_CALL",
    ];
    let named = raw.parse::<usize>().ok().and_then(|number| NUMBERS.get(number).copied());
    Finish::of_word(named.unwrap_or(raw))
}

/// Tokens in disjoint classes: the cache is inside the prompt; thoughts and tool prompts are outside of the rest.
fn usage(raw: &Value) -> Usage {
    let prompt = count(raw, "/promptTokenCount");
    let candidates = count(raw, "/candidatesTokenCount");
    let thoughts = count(raw, "/thoughtsTokenCount");
    if prompt.is_none() && candidates.is_none() && thoughts.is_none() {
        return Usage::default();
    }
    let (prompt, candidates) = (prompt.unwrap_or(0), candidates.unwrap_or(0));
    let cache_read = count(raw, "/cachedContentTokenCount").unwrap_or(0);
    let tool_prompts = count(raw, "/toolUsePromptTokenCount").unwrap_or(0);
    let uncached = if cache_read > prompt { prompt } else { prompt - cache_read };
    // Tokens that the total has beyond the parts were thought and not shown.
    let told = prompt.saturating_add(tool_prompts).saturating_add(candidates);
    let beyond = count(raw, "/totalTokenCount").map_or(0, |total| total.saturating_sub(told)).max(0);
    let reasoning = thoughts.unwrap_or(0).max(beyond);
    Usage {
        input: uncached.saturating_add(tool_prompts),
        cache_read,
        cache_write: 0,
        cache_write_1h: 0,
        output: candidates.saturating_add(reasoning),
        reasoning,
        source: UsageSource::Provider,
    }
}
