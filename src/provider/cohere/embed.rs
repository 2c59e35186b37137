//! Embeddings: `/v2/embed`.

use crate::domain::decide::Ineligible;
use crate::domain::request::Embed;
use crate::domain::{Answer, ChatRequest, Usage, UsageSource};
use crate::provider::conversation::note;
use crate::provider::embeddings::{self, EmbedInput};
use crate::provider::reply_body::count;
use crate::provider::wire::{WireReply, WireRequest};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The most texts of one call.
pub(super) const MOST_TEXTS: usize = 96;

/// Members of a request that go through as they are written.
const OWN: &[&str] = &["input_type", "truncate", "priority"];

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    texts: &'a [String],
    /// Vectors of documents and of queries differ.
    input_type: Own<'a>,
    embedding_types: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimension: Option<i64>,
    /// By itself the server cuts texts that are too long without a word.
    truncate: Own<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'a RawValue>,
}

/// A member as it was written, or as it is meant where it is missing.
#[derive(Serialize)]
#[serde(untagged)]
enum Own<'a> {
    Written(&'a RawValue),
    Added(&'static str),
}

pub(super) fn encode(request: &ChatRequest, embed: &Embed, model: &str) -> Result<WireRequest, Ineligible> {
    let mut asked = EmbedInput::of(request, embed, model);
    let texts = asked.texts(MOST_TEXTS)?;
    asked.note_all_but(OWN);
    if asked.own("input_type").is_none() {
        note(&mut asked.dropped, "input_type search_document added");
    }
    let own = |name: &str, added| asked.own(name).map_or(Own::Added(added), Own::Written);
    let body = Body {
        model,
        texts,
        input_type: own("input_type", "search_document"),
        embedding_types: ["float"],
        output_dimension: asked.dimensions(),
        truncate: own("truncate", "NONE"),
        priority: asked.own("priority"),
    };
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    Ok(WireRequest { dropped: asked.dropped, ..WireRequest::post("/embed", &[], body) })
}

/// Whether a body has embeddings and no message.
pub(super) fn is_list(body: &Value) -> bool {
    body.get("message").is_none_or(Value::is_null) && body.get("embeddings").is_some()
}

/// The vectors by their type, or bare as an older version has them.
pub(super) fn decode(mut body: Map<String, Value>, notes: Vec<String>, reply: &WireReply<'_>) -> Answer {
    let list = match body.remove("embeddings") {
        Some(Value::Object(mut types)) => types.remove("float").unwrap_or_default(),
        Some(list) => list,
        None => Value::Null,
    };
    let vectors = embeddings::in_list(list).unwrap_or_default();
    let usage_raw = body.remove("meta").filter(Value::is_object);
    let counts = usage_raw.as_ref().map_or_else(Usage::default, usage);
    embeddings::answer(vectors, (counts, usage_raw), body, &["texts", "response_type"], (reply, notes))
}

fn usage(meta: &Value) -> Usage {
    let of = |place: &str| count(meta, &format!("/{place}/input_tokens"));
    let Some(input) = of("billed_units").or_else(|| of("tokens")) else { return Usage::default() };
    Usage { input, source: UsageSource::Provider, ..Usage::default() }
}
