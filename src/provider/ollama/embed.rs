//! Embeddings: `/api/embed`.

use crate::domain::decide::Ineligible;
use crate::domain::request::Embed;
use crate::domain::{Answer, ChatRequest, Usage};
use crate::provider::embeddings::{self, EmbedInput};
use crate::provider::wire::{WireReply, WireRequest};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Members of a request that go through as they are written.
const OWN: &[&str] = &["truncate", "options", "keep_alive"];

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<i64>,
    /// By itself the server cuts texts that are too long without a word.
    truncate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<&'a RawValue>,
}

pub(super) fn encode(request: &ChatRequest, embed: &Embed, model: &str) -> Result<WireRequest, Ineligible> {
    let mut asked = EmbedInput::of(request, embed, model);
    let input = asked.texts(usize::MAX)?;
    asked.note_all_but(OWN);
    let body = Body {
        model,
        input,
        dimensions: asked.dimensions(),
        truncate: asked.body.given("truncate") == Some("true"),
        options: asked.own("options"),
        keep_alive: asked.own("keep_alive"),
    };
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    Ok(WireRequest { dropped: asked.dropped, ..WireRequest::post("/api/embed", &[], body) })
}

/// Whether a body has embeddings and no message.
pub(super) fn is_list(body: &Value) -> bool {
    body.get("message").is_none_or(Value::is_null) && body.get("embeddings").is_some()
}

pub(super) fn decode(
    mut body: Map<String, Value>,
    reported: (Usage, Option<Value>),
    notes: Vec<String>,
    reply: &WireReply<'_>,
) -> Answer {
    let vectors = body.remove("embeddings").and_then(embeddings::in_list).unwrap_or_default();
    embeddings::answer(vectors, reported, body, &[], (reply, notes))
}
