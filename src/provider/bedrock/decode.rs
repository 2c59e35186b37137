//! Turns a Converse answer into the domain's.

use super::failures::{SIGNS, error_of};
use super::frames;
use crate::domain::{Answer, Beside, Failure, Finish, ToolCall, Usage, UsageSource};
use crate::provider::beside;
use crate::provider::classify::{ErrorRules, answer_of, classify};
use crate::provider::reply_body::{self, Parsed, arguments, count, cut_off, finish_word, take_string, unusable};
use crate::provider::report::FailedUsage;
use crate::provider::sigv4::Skew;
use crate::provider::stream_error;
use crate::provider::wire::WireReply;
use serde_json::{Map, Value};

/// The whole answer, in any form.
fn parsed(reply: &WireReply<'_>) -> Result<Parsed, Failure> {
    if !frames::is_one(reply.body) {
        return reply_body::parse(reply, "output", |values, _| values.into_iter().next());
    }
    let joined = frames::join(reply.body, reply.is_partial).map(|value| Parsed::plain(value, Vec::new()));
    joined.ok_or_else(|| cut_off(reply))
}

pub(super) fn decode(errors: &ErrorRules, reply: &WireReply<'_>) -> Result<Answer, Failure> {
    if !(200..300).contains(&reply.status) {
        let error = error_of(reply);
        let failure = classify(&SIGNS, errors, reply, &error);
        return Err(match Skew::of_refusal(reply, &error) {
            Some(skew) => skew.failure(failure),
            None => failure,
        });
    }
    let pieces = || if frames::is_one(reply.body) { frames::pieces(reply.body) } else { stream_error::pieces(reply) };
    let Parsed { value: mut body, mended, .. } = answer_of(errors, reply, "output", parsed(reply), pieces)
        .map_err(|instead| instead.failure(|error| classify(&SIGNS, errors, reply, error)))?;
    let blocks = body.pointer_mut("/output/message/content").map(Value::take);
    let (Some(Value::Array(blocks)), Value::Object(mut body)) = (blocks, body) else {
        return Err(unusable(reply, "an answer without a message"));
    };
    let Blocks { text, reasoning, tool_calls } = read_blocks(blocks);
    let finish_raw = finish_word(&body, &["stopReason"]);
    let finish = finish_raw.as_deref().map_or(Finish::Error, finish).with_calls(!tool_calls.is_empty());
    let usage_raw = body.remove("usage").filter(|usage| !usage.is_null());
    Ok(Answer {
        text,
        refusal: None,
        reasoning,
        tool_calls,
        finish,
        finish_raw,
        // The model is in the path of the call, and not repeated.
        model: None,
        id: None,
        usage: usage_raw.as_ref().map_or_else(Usage::default, usage),
        vectors: None,
        beside: Beside {
            service_tier: beside::tier(&[body.get("serviceTier")]),
            cost: beside::cost(usage_raw.as_ref(), &body, reply.headers),
            completion: beside::kept(body, &["output", "stopReason", "metrics", "serviceTier"]),
            choice: Map::new(),
            message: Map::new(),
            tool_calls: Vec::new(),
            notes: mended.into_iter().map(str::to_owned).collect(),
            ..Beside::default()
        },
        usage_raw,
    })
}

pub(super) fn skew(reply: &WireReply<'_>) -> Option<Skew> {
    Skew::of_refusal(reply, &error_of(reply))
}

pub(super) fn usage_of(reply: &WireReply<'_>) -> Option<FailedUsage> {
    let raw = parsed(reply).ok().and_then(|mut parsed| parsed.value.get_mut("usage").map(Value::take));
    beside::billed(reply, raw.filter(Value::is_object), usage)
}

fn finish(word: &str) -> Finish {
    match word {
        "content_filtered" | "guardrail_intervened" => Finish::ContentFilter,
        "malformed_model_output" | "malformed_tool_use" => Finish::Error,
        word => Finish::of_word(word),
    }
}

#[derive(Default)]
struct Blocks {
    text: Option<String>,
    reasoning: Option<String>,
    tool_calls: Vec<ToolCall>,
}

fn read_blocks(blocks: Vec<Value>) -> Blocks {
    let mut read = Blocks::default();
    for (index, mut block) in blocks.into_iter().enumerate() {
        if let Some(text) = take_string(&mut block, "text") {
            read.text.get_or_insert_default().push_str(&text);
        } else if let Some(call) = block.get_mut("toolUse") {
            let Some(name) = take_string(call, "name") else { continue };
            let id = take_string(call, "toolUseId").unwrap_or_else(|| format!("call_{index}"));
            let arguments = arguments(call.get_mut("input").map(Value::take));
            read.tool_calls.push(ToolCall { id, name, arguments });
        } else if let Some(thoughts) = block.get_mut("reasoningContent") {
            // Whole it lies one deeper than in a stream.
            let thoughts =
                if thoughts.get("reasoningText").is_some() { &mut thoughts["reasoningText"] } else { thoughts };
            if let Some(thought) = take_string(thoughts, "text") {
                read.reasoning.get_or_insert_default().push_str(&thought);
            }
        }
    }
    read
}

/// Tokens in disjoint classes: `inputTokens` is uncached input only, so the three inputs add up.
fn usage(raw: &Value) -> Usage {
    let (input, output) = (count(raw, "/inputTokens"), count(raw, "/outputTokens"));
    if input.is_none() && output.is_none() {
        return Usage::default();
    }
    let written = count(raw, "/cacheWriteInputTokens").unwrap_or(0);
    let details = raw.get("cacheDetails").and_then(Value::as_array).into_iter().flatten();
    let for_an_hour = details
        .filter(|detail| detail.get("ttl").is_some_and(|ttl| ttl == "1h"))
        .filter_map(|detail| count(detail, "/inputTokens"))
        .fold(0_i64, i64::saturating_add)
        .min(written);
    Usage {
        input: input.unwrap_or(0),
        cache_read: count(raw, "/cacheReadInputTokens").unwrap_or(0),
        cache_write: written - for_an_hour,
        cache_write_1h: for_an_hour,
        output: output.unwrap_or(0),
        reasoning: 0,
        source: UsageSource::Provider,
    }
}
