//! The error in the middle of a stream, in a form that its dialect does not know.
//!
//! A dialect knows its own error events. A server or a gateway may send others: an object with a code of its own, an
//! event named `error` with plain words, a message that is no piece of an answer. Without this a stream that ends with
//! one is a broken connection, and its code is never read.

use super::error_body::ErrorBody;
use super::own_errors::{self, OwnError};
use super::wire::{Delivery, WireReply};
use super::{events, lenient_json};
use crate::domain::bulk::is_too_much;
use serde_json::Value;

/// One piece of a stream.
pub(super) struct Piece {
    /// The name of its event; empty where it has none.
    pub name: String,
    /// Its value; a text where it is no JSON.
    pub value: Value,
}

/// Members that hold pieces of an answer, in any dialect. What stands beside them may be an error; what is in them says
/// nothing of one, because a model writes it.
const OF_AN_ANSWER: &[&str] = &[
    "choices",
    "candidates",
    "message",
    "content",
    "content_block",
    "delta",
    "item",
    "part",
    "output",
    "response",
    "annotation",
    "logprobs",
    "contentBlockIndex",
];

/// Members that come with an answer, and with no error.
const WITH_AN_ANSWER: &[&str] = &["usage", "usageMetadata", "metrics", "done"];

/// The error that an event of its own tells of by one of the operator's codes. It counts as the error events of a
/// dialect do: whatever else has come.
pub(super) fn told(own: &[OwnError], pieces: &[Piece]) -> Option<ErrorBody> {
    if !own_errors::have_codes(own) {
        return None;
    }
    let stands_alone = |value: &Value| {
        let mut members = OF_AN_ANSWER.iter().chain(WITH_AN_ANSWER);
        value.is_object() && !members.any(|name| value.get(*name).is_some_and(|member| is_of_an_answer(name, member)))
    };
    let alone = pieces.iter().map(|piece| &piece.value).filter(|value| stands_alone(value));
    alone.map(ErrorBody::of_value).find(|error| own_errors::name(own, error))
}

/// The error that explains why a stream brought no whole answer: what the operator's codes name, else an event that is
/// named like an error, else what is an error in the body of any success.
pub(super) fn found(own: &[OwnError], pieces: &[Piece]) -> Option<ErrorBody> {
    let beside: Vec<(&Piece, Value)> = pieces.iter().map(|piece| (piece, beside_the_answer(&piece.value))).collect();
    let by_code = || {
        let objects = beside.iter().filter(|(_, rest)| own_errors::have_codes(own) && rest.is_object());
        objects.map(|(_, rest)| ErrorBody::of_value(rest)).find(|error| own_errors::name(own, error))
    };
    let named = || {
        let (_, rest) = beside.iter().find(|(piece, rest)| is_named_so(&piece.name) && is_more_than_nothing(rest))?;
        Some(rest.as_str().map_or_else(|| ErrorBody::of_value(rest), |words| ErrorBody::read(words.as_bytes())))
    };
    by_code().or_else(named).or_else(|| beside.iter().find_map(|(_, rest)| ErrorBody::inside(rest)))
}

/// The pieces of a body that is a stream; none of one that came whole.
pub(super) fn pieces(reply: &WireReply<'_>) -> Vec<Piece> {
    let is_asked_for = reply.delivery == Delivery::Stream;
    let begins = reply.body.trim_ascii_start();
    let looks_like_events = [&b"data:"[..], b"event:", b":"].iter().any(|start| begins.starts_with(start));
    if !(is_asked_for || looks_like_events) || is_too_much(reply.body) {
        return Vec::new();
    }
    let (events, _) = events::read(reply.body);
    if !events.is_empty() {
        let whole = events.into_iter().take_while(|event| event.data.trim() != "[DONE]");
        return whole.flat_map(|event| of_event(event.name, &event.data)).collect();
    }
    let text = String::from_utf8_lossy(reply.body);
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with('{'));
    let values = lines.filter_map(|line| serde_json::from_str(line).ok());
    values.map(|value| Piece { name: String::new(), value }).collect()
}

fn of_event(name: String, data: &str) -> Vec<Piece> {
    match lenient_json::read(data.as_bytes()) {
        Ok(read) => read.values.into_iter().map(|value| Piece { name: name.clone(), value }).collect(),
        // Words say something only where the event's name tells what they are.
        Err(_) if is_named_so(&name) => vec![Piece { name, value: Value::from(data) }],
        Err(_) => Vec::new(),
    }
}

/// Whether an event is named like an error.
fn is_named_so(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["error", "exception"].iter().any(|word| name.contains(word))
}

/// A piece without what it holds of an answer.
fn beside_the_answer(value: &Value) -> Value {
    let Value::Object(members) = value else { return value.clone() };
    let is_kept = |(name, member): &(&String, &Value)| {
        let is_failed_choice = name.as_str() == "choices" && member.pointer("/0/error").is_some();
        is_failed_choice || !OF_AN_ANSWER.contains(&name.as_str()) || !is_of_an_answer(name, member)
    };
    let kept = members.iter().filter(is_kept);
    Value::Object(kept.map(|(name, member)| (name.clone(), member.clone())).collect())
}

/// Whether such a member holds something of an answer. Words alone under `message` are those of an error.
fn is_of_an_answer(name: &str, member: &Value) -> bool {
    is_more_than_nothing(member) && !(name == "message" && member.is_string())
}

fn is_more_than_nothing(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}
