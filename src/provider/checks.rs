//! Helpers that the adapters' tests share: one check per kind of table.

use super::adapter::Adapter;
use super::auth::Auth;
use super::dialect::Dialect;
use super::quirks::QuirkSettings;
use super::registry::dialect;
use super::vendors;
use super::wire::{Outgoing, WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::{
    Answer, Capabilities, ChatRequest, ContentPart, ErrorClass, Finish, Message, NamedLimit, Role, Scope, Timestamp,
    Unit, Usage, UsageSource,
};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::time::Duration;

/// The `Date` of every recorded answer.
pub(super) const DATE: &str = "Fri, 20 Nov 2026 12:00:00 GMT";

/// A dialect as the server at this address speaks it.
pub(super) fn at(dialect: &'static Dialect, base_url: &str) -> &'static dyn Adapter {
    Box::leak(vendors::adapter(dialect, None, base_url, &QuirkSettings::default()))
}

/// A dialect as a configured server speaks it.
pub(super) fn spoken(name: &str, vendor: Option<&str>, base_url: &str, quirks: &QuirkSettings) -> &'static dyn Adapter {
    Box::leak(vendors::adapter(dialect(name).expect("a dialect"), vendor, base_url, quirks))
}

/// A conversation, written in a dialect.
pub(super) trait Chat {
    fn chat(&self, request: &ChatRequest, model: &str, capabilities: &Capabilities) -> Result<WireRequest, Ineligible>;
}

impl<A: Adapter + ?Sized> Chat for A {
    fn chat(&self, request: &ChatRequest, model: &str, capabilities: &Capabilities) -> Result<WireRequest, Ineligible> {
        self.encode(request.into(), model, capabilities)
    }
}

/// The headers that a signed call has, beside those that the dialect wrote.
pub(super) fn signed(dialect: &'static Dialect, secret: &str) -> HeaderMap {
    let url = Url::parse("https://api.example.com/v1").unwrap();
    let mut request = Outgoing::new(&url, &HeaderMap::new(), WireRequest::post("/x", &[], Vec::new()));
    Auth::Key(dialect.auth, secret.into()).sign(&mut request, Timestamp(0)).unwrap();
    request.headers
}

/// A recorded failure: the reply, and the verdict that it has to get.
pub(super) struct Case {
    pub name: &'static str,
    pub status: u16,
    pub headers: &'static [(&'static str, &'static str)],
    pub body: &'static str,
    pub class: ErrorClass,
    pub scope: Scope,
    pub wait_ms: Option<u64>,
    pub code: Option<&'static str>,
    /// `None`: the limit is not checked.
    pub limit: Option<NamedLimit>,
}

/// A row without headers or wait.
pub(super) const fn case(
    name: &'static str,
    status: u16,
    body: &'static str,
    class: ErrorClass,
    scope: Scope,
    code: Option<&'static str>,
) -> Case {
    Case { name, status, headers: &[], body, class, scope, wait_ms: None, code, limit: None }
}

impl Case {
    pub const fn with(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    pub const fn waits(self, wait_ms: u64) -> Self {
        Self { wait_ms: Some(wait_ms), ..self }
    }

    /// The limit that stood in the way, as the answer names it.
    pub const fn names(self, unit: Unit, size: u64, requested: Option<u64>) -> Self {
        Self { limit: Some(NamedLimit { unit, size, requested }), ..self }
    }
}

pub(super) fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    std::iter::once(&("date", DATE))
        .chain(pairs)
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

/// Reports all wrong verdicts at once, because one rule that is read differently often moves several rows.
pub(super) fn check_failures(adapter: &dyn Adapter, cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        let headers = headers(case.headers);
        let failure =
            adapter.decode(&WireReply::new(case.status, &headers, case.body.as_bytes())).expect_err(case.name);
        let found = (failure.class, failure.scope, failure.wait, failure.code.as_deref(), failure.status);
        let wait = case.wait_ms.map(Duration::from_millis);
        let expected = (case.class, case.scope, wait, case.code, Some(case.status));
        if found != expected {
            wrong.push(format!("{}: {found:?} and not {expected:?}: {}", case.name, failure.message));
        }
        if case.limit.is_some() {
            assert_eq!(failure.limit, case.limit, "{}", case.name);
        }
        assert!(!failure.message.is_empty() && failure.message.chars().count() <= 500, "{}", case.name);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Decodes a success.
pub(super) fn answer(adapter: &dyn Adapter, body: &Value) -> Answer {
    let body = body.to_string();
    adapter
        .decode(&WireReply::new(200, &headers(&[]), body.as_bytes()))
        .unwrap_or_else(|failure| panic!("{body}: {failure:?}"))
}

/// Input, cache read, cache write, cache write for an hour, output, reasoning.
pub(super) fn usage([input, cache_read, cache_write, cache_write_1h, output, reasoning]: [i64; 6]) -> Usage {
    Usage { input, cache_read, cache_write, cache_write_1h, output, reasoning, source: UsageSource::Provider }
}

/// Checks the finish class of each word of a dialect.
pub(super) fn check_finishes(decode: impl Fn(&Value) -> Finish, rows: &[(Value, Finish)]) {
    for (word, expected) in rows {
        assert_eq!(decode(word), *expected, "{word}");
    }
}

pub(super) fn message(role: Role, text: &str) -> Message {
    Message::new(role, if text.is_empty() { vec![] } else { vec![ContentPart::Text(text.to_owned())] })
}

/// The request that a body is understood as.
#[expect(clippy::needless_pass_by_value, reason = "reads better with the JSON in place")]
pub(super) fn parsed(body: Value) -> ChatRequest {
    ChatRequest::parse(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// A request of these messages, for the dialects that translate.
pub(super) fn request(messages: Vec<Message>) -> ChatRequest {
    let texts: Vec<String> = messages
        .iter()
        .map(|message| {
            let role = match message.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
                Role::Tool => "tool",
            };
            format!(r#"{{"role":"{role}","content":{}}}"#, json!(message.text()))
        })
        .collect();
    let mut request = parsed(json!({ "prompt": "x" }));
    request.is_prompt = false;
    request.raw = format!(r#"{{"messages":[{}]}}"#, texts.join(",")).into();
    request.messages = messages;
    request
}

/// Instructions, a question with an image, two calls, their results, a closing word: everything a conversation has.
pub(super) fn long_conversation() -> ChatRequest {
    let call = |id: &str, arguments: &str| {
        json!({ "id": id, "type": "function",
            "function": { "name": "weather", "arguments": arguments } })
    };
    parsed(json!({
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "system", "content": "Be kind." },
            { "role": "user", "content": [
                { "type": "text", "text": "Where is this?" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD", "detail": "low" } },
            ] },
            { "role": "assistant", "content": "Looking.", "tool_calls": [
                call("call.1", r#"{"city":"Rome"}"#),
                call("call_2", ""),
            ] },
            { "role": "tool", "tool_call_id": "call.1", "content": r#"{"sky":"blue"}"# },
            { "role": "tool", "tool_call_id": "call_2", "content": "unknown" },
            { "role": "user", "content": "And now?" },
        ],
        "tools": [{ "type": "function", "function": {
            "name": "weather",
            "description": "Tells the weather",
            "parameters": { "type": "object", "properties": { "city": { "type": "string" } } },
        } }],
    }))
}

/// Encodes a request; returns the body as JSON, and the dropped members.
pub(super) fn encoded(
    adapter: &dyn Adapter,
    request: &ChatRequest,
    capabilities: &Capabilities,
) -> (Value, Vec<String>) {
    let wire = adapter.chat(request, "the-model", capabilities).expect("can be expressed");
    (serde_json::from_slice(&wire.body).expect("JSON"), wire.dropped)
}
