//! Legacy text completions: one question, and the words that follow it. For servers and base models that know nothing
//! of conversations.

#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Payload};
use super::auth::KeyHeader;
use super::configured;
use super::conversation::{self, note, unsupported};
use super::dialect::Dialect;
use super::limit_headers::LimitObservation;
use super::openai;
use super::quirks::Quirks;
use super::report::FailedUsage;
use super::wire::{WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::raw_object::RawObject;
use crate::domain::{Answer, Capabilities, Charging, ChatRequest, ContentPart, Failure, ResponseFormat, Role};
use serde_json::{Map, Value, json};

/// `/completions`.
pub static DIALECT: Dialect = Dialect {
    name: "completions",
    auth: KeyHeader::BEARER,
    tokens: None,
    signs_for: None,
    charging: Charging::COMBINED,
    // Its answers are read as those of chats.
    heeds: Some(&["drop", "json_schema", "errors", "headers", "usage"]),
    embeds: None,
    hears: false,
    speak: |manners| {
        let quirks = manners.quirks.clone();
        // Answers, failures and streams are those of chats, with a bare text as the choice.
        Box::new(Completions { quirks, inner: (openai::DIALECT.speak)(manners) })
    },
};

/// The dialect, as one server speaks it.
struct Completions {
    quirks: Quirks,
    inner: Box<dyn Adapter>,
}

/// The refusal of everything that is not one question.
pub(super) const ONE_QUESTION: &str = "more than one question in words";

/// Where a body has its output cap.
const CAPS: &[&str] = &["max_tokens"];

/// The output cap of a request without one, for a model that has none configured either: servers cut at 16 tokens.
const DEFAULT_MAX_TOKENS: i64 = 1024;

/// Members that are the same in both APIs.
const SAME: &[&str] = &["logit_bias", "min_p", "repetition_penalty"];

impl Adapter for Completions {
    fn encode(
        &self,
        payload: Payload<'_>,
        model: &str,
        capabilities: &Capabilities,
    ) -> Result<WireRequest, Ineligible> {
        configured::encode(&self.quirks, payload, capabilities, |payload, capabilities| {
            encode(payload.chat()?, model, capabilities)
        })
    }

    fn ask_for_stream(&self, wire: &mut WireRequest) {
        self.inner.ask_for_stream(wire);
    }

    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure> {
        self.inner.decode(reply)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<FailedUsage> {
        self.inner.usage_of(reply)
    }

    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        self.inner.limits(reply)
    }
}

fn encode(request: &ChatRequest, model: &str, capabilities: &Capabilities) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    conversation::only_here(request)?;
    let [message] = request.messages.as_slice() else { return unsupported(ONE_QUESTION) };
    if message.role != Role::User || message.content.iter().any(|part| !matches!(part, ContentPart::Text(_))) {
        return unsupported(ONE_QUESTION);
    }
    if conversation::offers_tools(request) {
        return unsupported("tools");
    }
    match &request.response_format {
        Some(ResponseFormat::JsonSchema { .. }) => return unsupported("json_schema"),
        Some(ResponseFormat::JsonObject) => return unsupported("json_object"),
        Some(ResponseFormat::Text | ResponseFormat::Other(_)) | None => {}
    }
    let mut dropped = request.unread.clone();
    conversation::note_model(request, model, &mut dropped);
    conversation::note_second_cap(request, &mut dropped);
    conversation::note_cache_marks(request, &mut dropped);
    let raw = RawObject::read(&request.raw).unwrap_or_default();
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
    put("model", json!(model));
    put("prompt", json!(message.text()));
    let cap = conversation::needed_cap(request, capabilities, Some(DEFAULT_MAX_TOKENS), &mut dropped);
    put("max_tokens", json!(cap));
    let takes_sampling = capabilities.temperature != Some(false);
    for (name, value) in [("temperature", request.temperature), ("top_p", request.top_p)] {
        match value {
            Some(_) if !takes_sampling => note(&mut dropped, name),
            Some(value) => put(name, json!(value)),
            None => {}
        }
    }
    for (name, value) in
        [("presence_penalty", request.presence_penalty), ("frequency_penalty", request.frequency_penalty)]
    {
        if let Some(value) = value {
            put(name, json!(value));
        }
    }
    for (name, value) in [("top_k", request.top_k), ("seed", request.seed)] {
        if let Some(value) = value {
            put(name, json!(value));
        }
    }
    if !request.stop.is_empty() {
        put("stop", json!(request.stop));
    }
    if let Some(user) = &request.user {
        put("user", json!(user));
    }
    for name in SAME {
        if let Some(value) = raw.given(name).and_then(|text| serde_json::from_str::<Value>(text).ok()) {
            put(name, value);
            dropped.retain(|noted| noted != name && !noted.starts_with(&format!("{name}.")));
        }
    }
    for (name, is_lost) in [
        ("messages[].name", message.name.is_some()),
        ("reasoning_effort", request.reasoning_effort.is_some()),
        ("parallel_tool_calls", request.parallel_tool_calls.is_some()),
        ("tool_choice", request.tool_choice.is_some()),
        (conversation::TOOLS_NOT_TO_BE_CALLED, !request.tools.is_empty()),
    ] {
        if is_lost {
            note(&mut dropped, name);
        }
    }
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    Ok(WireRequest { dropped, ..WireRequest::post("/completions", CAPS, body) })
}
