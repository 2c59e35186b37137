//! Turns a chat-completions answer into the domain's.

use super::chunks;
use super::embeddings;
use super::failures::SIGNS;
use super::usage::{gather, remark, usage};
use crate::domain::{Answer, Beside, ErrorClass, Failure, Finish, Scope, ToolCall, Usage};
use crate::provider::beside;
use crate::provider::classify::success;
use crate::provider::dialect::Manners;
use crate::provider::error_body::ErrorBody;
use crate::provider::reply_body::{self, Parsed, arguments, finish_word, take_string, unusable};
use crate::provider::report::FailedUsage;
use crate::provider::wire::WireReply;
use serde_json::{Map, Value, json};

pub(super) fn decode(manners: &Manners, reply: &WireReply<'_>) -> Result<Answer, Failure> {
    let mut parsed = success(&SIGNS, &manners.errors, reply, "choices", chunks::join)?;
    let (has_cost, cost) = (manners.usage.has_cost(&parsed), manners.usage.cost(&parsed));
    let lost = gather(&manners.usage, &mut parsed).into_iter().filter(|_| !reply.is_partial);
    let mut answer = answer(manners, reply, parsed)?;
    if has_cost {
        answer.beside.cost = cost;
    }
    answer.beside.notes.extend(lost);
    Ok(answer)
}

fn answer(manners: &Manners, reply: &WireReply<'_>, parsed: Parsed) -> Result<Answer, Failure> {
    let body = parsed.value;
    let aside = ErrorBody::set_aside(&body);
    let is_embeddings = embeddings::is_list(&body);
    let Value::Object(mut body) = body else { return Err(unusable(reply, "an answer without choices")) };
    let mut notes: Vec<String> = parsed.mended.into_iter().chain(aside).map(str::to_owned).collect();
    if is_embeddings {
        return Ok(embeddings::decode(&manners.quirks, body, notes, reply));
    }
    let Some(mut choice) = first_choice(&mut body, &mut notes) else {
        return Err(unusable(reply, "an answer without choices"));
    };
    let finish_raw = finish_word(&choice, &["finish_reason", "finishReason", "stop_reason", "native_finish_reason"]);
    if finish_raw.as_deref() == Some("insufficient_system_resource") {
        let mut failure =
            Failure::new(ErrorClass::Overloaded, Scope::Model, "the provider ran out of resources while generating");
        failure.status = Some(reply.status);
        failure.code = finish_raw;
        return Err(failure);
    }
    let Some(mut message) = message(&mut choice) else {
        return Err(unusable(reply, "an answer whose choice has no message"));
    };
    let Content { text, thoughts, others } = content(message.remove("content").unwrap_or_default());
    let refusal = take(&mut message, "refusal").filter(|refusal| !refusal.is_empty());
    let reasoning = ["reasoning_content", "reasoning", "thinking"]
        .iter()
        .find_map(|key| take(&mut message, key).filter(|reasoning| !reasoning.is_empty()))
        .or(thoughts);
    let (tool_calls, extras) = tool_calls(&mut message);
    // A finished body without a reason did not finish.
    let mut finish = finish_raw.as_deref().map_or(Finish::Error, Finish::of_word);
    if finish == Finish::Complete || finish == Finish::Unknown {
        if refusal.is_some() {
            finish = Finish::Refusal;
        } else if !tool_calls.is_empty() {
            // A forced tool call ends with `stop`.
            finish = Finish::ToolCall;
        }
    }
    let usage_raw = body.remove("usage").filter(|usage| !usage.is_null());
    let counts = usage_raw.as_ref().map_or_else(Usage::default, |raw| usage(&manners.quirks, raw));
    notes.extend(usage_raw.as_ref().and_then(|raw| remark(raw, &counts)));
    if let Some(others) = others {
        message.insert("content_parts".to_owned(), others);
    }
    // A stream of the same answer has no such list.
    if message.get("annotations").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        message.remove("annotations");
    }
    let of_usage = usage_raw.as_ref().and_then(|usage| usage.get("service_tier"));
    Ok(Answer {
        text,
        refusal,
        reasoning,
        tool_calls,
        finish,
        finish_raw,
        model: take(&mut body, "model"),
        id: take(&mut body, "id"),
        usage: counts,
        vectors: None,
        beside: Beside {
            service_tier: beside::tier(&[body.get("service_tier"), of_usage]),
            cost: beside::cost(usage_raw.as_ref(), &body, reply.headers),
            completion: beside::kept(body, &["object", "created", "choices", "service_tier", "model", "id"]),
            choice: beside::kept(choice, &["index", "message", "finish_reason", "delta", "text"]),
            message: beside::kept(message, &["role", "tool_calls", "function_call"]),
            tool_calls: beside::of_calls(extras),
            notes,
            ..Beside::default()
        },
        usage_raw,
    })
}

pub(super) fn usage_of(manners: &Manners, reply: &WireReply<'_>) -> Option<FailedUsage> {
    let Some(mut parsed) = reply_body::as_far_as_read(reply, "choices", chunks::join) else {
        return beside::billed(reply, None, |_| Usage::default());
    };
    let (has_cost, cost) = (manners.usage.has_cost(&parsed), manners.usage.cost(&parsed));
    gather(&manners.usage, &mut parsed);
    let raw = reply_body::usage_in(&mut parsed.value, "usage");
    let billed = beside::billed(reply, raw, |raw| usage(&manners.quirks, raw));
    if !has_cost {
        return billed;
    }
    // In place of what stands elsewhere.
    let nothing = FailedUsage { usage: Usage::default(), raw: None, cost: None };
    let billed = FailedUsage { cost, ..billed.unwrap_or(nothing) };
    (billed.raw.is_some() || cost.is_some()).then_some(billed)
}

fn first_choice(body: &mut Map<String, Value>, notes: &mut Vec<String>) -> Option<Map<String, Value>> {
    let Some(Value::Array(choices)) = body.remove("choices") else { return None };
    if choices.len() > 1 {
        notes.push(format!("{} further choices were left out", choices.len() - 1));
    }
    match choices.into_iter().next()? {
        Value::Object(choice) => Some(choice),
        _ => None,
    }
}

/// The message: in its proper place, as a single piece of a stream has it, or as the bare text of a legacy completion.
fn message(choice: &mut Map<String, Value>) -> Option<Map<String, Value>> {
    for key in ["message", "delta"] {
        if let Some(Value::Object(message)) = choice.remove(key) {
            return Some(message);
        }
    }
    let text = take(choice, "text")?;
    Some(Map::from_iter([("content".to_owned(), Value::String(text))]))
}

/// A non-null string, taken out.
fn take(members: &mut Map<String, Value>, key: &str) -> Option<String> {
    match members.get_mut(key).map(Value::take) {
        Some(Value::String(text)) => Some(text),
        Some(other) => {
            // Not for us; it stays among the rest.
            members.insert(key.to_owned(), other);
            None
        }
        None => None,
    }
}

#[derive(Default)]
struct Content {
    text: Option<String>,
    thoughts: Option<String>,
    /// The parts as they came, when some are neither text nor thoughts (references, images).
    others: Option<Value>,
}

/// Text, and reasoning where the content is a list of parts (Mistral's reasoning models).
fn content(content: Value) -> Content {
    match content {
        Value::String(text) => Content { text: Some(text), ..Content::default() },
        // A single part, without the list around it.
        part @ Value::Object(_) => self::content(Value::Array(vec![part])),
        Value::Array(parts) => {
            let mut read = Content::default();
            let is_plain = |part: &Value| {
                matches!(
                    part.get("type").and_then(Value::as_str),
                    Some("text" | "output_text" | "thinking" | "reasoning")
                ) && part.as_object().is_some_and(|members| members.len() <= 2)
            };
            if !parts.iter().all(is_plain) {
                read.others = Some(Value::Array(parts.clone()));
            }
            for mut part in parts {
                if let Value::String(piece) = part {
                    read.text.get_or_insert_default().push_str(&piece);
                    continue;
                }
                match part.get("type").and_then(Value::as_str) {
                    Some("thinking" | "reasoning") => {
                        let key = if part.get("thinking").is_some() { "thinking" } else { "text" };
                        let thinking = part.get_mut(key).map_or(Value::Null, Value::take);
                        if let Some(thought) = self::content(thinking).text {
                            read.thoughts.get_or_insert_default().push_str(&thought);
                        }
                    }
                    _ => {
                        if let Some(piece) = take_string(&mut part, "text") {
                            read.text.get_or_insert_default().push_str(&piece);
                        }
                    }
                }
            }
            read
        }
        _ => Content::default(),
    }
}

/// The calls, and for each one its members beside id and function.
fn tool_calls(message: &mut Map<String, Value>) -> (Vec<ToolCall>, Vec<Map<String, Value>>) {
    let listed = match message.remove("tool_calls") {
        Some(Value::Array(list)) => list,
        Some(call @ Value::Object(_)) => vec![call],
        _ => Vec::new(),
    };
    let legacy = message.remove("function_call");
    let read = |(index, call): (usize, Value)| {
        let Value::Object(mut call) = call else { return None };
        let mut function = match call.remove("function") {
            Some(Value::Object(function)) => function,
            // Flat, as the Responses API writes it.
            None => ["name", "arguments"].iter().filter_map(|key| call.remove_entry(*key)).collect(),
            Some(_) => return None,
        };
        let name = take(&mut function, "name")?;
        let id = take(&mut call, "id").filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{index}"));
        let arguments = arguments(function.remove("arguments"));
        Some((ToolCall { id, name, arguments }, beside::kept(call, &["id", "type", "index"])))
    };
    let calls: (Vec<_>, Vec<_>) = listed.into_iter().enumerate().filter_map(read).unzip();
    if calls.0.is_empty() {
        legacy.and_then(|function| read((0, json!({ "function": function })))).into_iter().unzip()
    } else {
        calls
    }
}
