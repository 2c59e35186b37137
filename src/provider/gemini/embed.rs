//! Embeddings: `batchEmbedContents`, also for a single text.

use crate::domain::decide::Ineligible;
use crate::domain::request::Embed;
use crate::domain::vectors::read_vector;
use crate::domain::{Answer, ChatRequest, Usage, Vectors};
use crate::provider::embeddings::{self, EmbedInput};
use crate::provider::wire::{WireReply, WireRequest};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The most texts of one call.
pub(super) const MOST_TEXTS: usize = 100;

#[derive(Serialize)]
struct Body<'a> {
    requests: Vec<Item<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_type: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<i64>,
}

#[derive(Serialize)]
struct Content<'a> {
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

pub(super) fn encode(request: &ChatRequest, embed: &Embed, model: &str) -> Result<WireRequest, Ineligible> {
    let mut asked = EmbedInput::of(request, embed, model);
    let texts = asked.texts(MOST_TEXTS)?;
    asked.note_all_but(&["task_type"]);
    let model = format!("models/{}", model.strip_prefix("models/").unwrap_or(model));
    let requests = texts
        .iter()
        .map(|text| Item {
            model: &model,
            content: Content { parts: [Part { text }] },
            task_type: asked.own("task_type"),
            output_dimensionality: asked.dimensions(),
        })
        .collect();
    let body = serde_json::to_vec(&Body { requests }).expect("strings, numbers and JSON values always serialize");
    let path = format!("/{model}:batchEmbedContents");
    Ok(WireRequest { dropped: asked.dropped, ..WireRequest::post(path, &[], body) })
}

/// Whether a body has embeddings and no candidates.
pub(super) fn is_list(body: &Value) -> bool {
    body.get("candidates").is_none() && body.get("embeddings").is_some()
}

pub(super) fn decode(
    mut body: Map<String, Value>,
    reported: (Usage, Option<Value>),
    notes: Vec<String>,
    reply: &WireReply<'_>,
) -> Answer {
    let list = match body.remove("embeddings") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let read = |item: &Value| item.get("values").and_then(read_vector).unwrap_or_default();
    let vectors = Vectors::in_order(list.iter().map(read).collect());
    embeddings::answer(vectors, reported, body, &[], (reply, notes))
}
