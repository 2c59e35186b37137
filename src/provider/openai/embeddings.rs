//! Embeddings: `/embeddings`. The body goes through as it was written, as that of a chat does.

use super::usage::{remark, usage};
use crate::domain::decide::Ineligible;
use crate::domain::pack::PackBounds;
use crate::domain::request::Embed;
use crate::domain::vectors::read_vector;
use crate::domain::{Answer, ChatRequest, Usage, Vectors};
use crate::provider::conversation::{note, unsupported};
use crate::provider::embeddings::{self, EmbedInput};
use crate::provider::quirks::Quirks;
use crate::provider::wire::{WireReply, WireRequest};
use serde_json::{Map, Value};

/// The most that one call takes.
pub(super) const MOST: PackBounds = PackBounds { inputs: 2_048, tokens: Some(300_000) };

/// Members that every server with embeddings takes, also one whose list is that of its chats.
const TAKEN: &[&str] = &["input", "dimensions", "encoding_format", "output_dimension", "output_dtype"];

pub(super) fn encode(
    quirks: &Quirks,
    request: &ChatRequest,
    embed: &Embed,
    model: &str,
) -> Result<WireRequest, Ineligible> {
    let mut asked = EmbedInput::of(request, embed, model);
    if let Some(path) = quirks.refuse.iter().find(|path| asked.body.given(path).is_some()) {
        return unsupported(path.as_str());
    }
    // Nulls and `stream: false` ask for nothing.
    asked.body.retain(|name, value| value != "null" && name != "stream");
    let only = quirks.takes_only.iter().find(|(path, _)| path.is_empty()).map(|(_, takes)| takes);
    let is_taken = |name: &str| {
        let is_known = only.is_none_or(|takes| TAKEN.contains(&name) || takes.iter().any(|taken| taken == name));
        quirks.keep.iter().any(|kept| kept == name) || (is_known && !quirks.drop.iter().any(|dropped| dropped == name))
    };
    let dropped: Vec<String> = asked.body.names().filter(|name| !is_taken(name)).map(str::to_owned).collect();
    if dropped.iter().any(|name| name == "input") {
        return unsupported("the request without what `quirks.drop` takes away (input)");
    }
    for name in &dropped {
        asked.body.remove(name);
        note(&mut asked.dropped, name);
    }
    for (from, to) in &quirks.rename {
        if asked.body.rename(from, to) {
            note(&mut asked.dropped, &format!("{from} as {to}"));
        }
    }
    asked.body.set_first("model", model);
    let EmbedInput { body, dropped, .. } = asked;
    Ok(WireRequest { dropped, ..WireRequest::post("/embeddings", &[], body.to_text().into_bytes()) })
}

/// Whether a body is a list of embeddings and not a completion.
pub(super) fn is_list(body: &Value) -> bool {
    let data = body.get("data").and_then(Value::as_array);
    let holds_some = |data: &Vec<Value>| data.first().is_none_or(|first| first.get("embedding").is_some());
    body.get("choices").is_none() && data.is_some_and(holds_some)
}

pub(super) fn decode(
    quirks: &Quirks,
    mut body: Map<String, Value>,
    mut notes: Vec<String>,
    reply: &WireReply<'_>,
) -> Answer {
    let list = match body.remove("data") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let read = |item: &Value| {
        let vector = item.get("embedding").and_then(read_vector).unwrap_or_default();
        (item.get("index").and_then(Value::as_u64), vector)
    };
    let vectors = Vectors::placed(list.iter().map(read).collect());
    let usage_raw = body.remove("usage").filter(|usage| !usage.is_null());
    let counts = usage_raw.as_ref().map_or_else(Usage::default, |raw| usage(quirks, raw));
    notes.extend(usage_raw.as_ref().and_then(|raw| remark(raw, &counts)));
    embeddings::answer(vectors, (counts, usage_raw), body, &[], (reply, notes))
}
