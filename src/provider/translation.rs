//! A property of all dialects: every part of a request is sent, or named among the dropped ones.

use super::adapter::Adapter;
use super::checks::{Chat, at, spoken};
use super::quirks::QuirkSettings;
use super::registry::DIALECTS;
use super::vendors::VENDORS;
use super::wire::WireRequest;
use super::{completions, conversation};
use crate::domain::decide::Ineligible;
use crate::domain::{Capabilities, ChatRequest};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A body that has everything, with distinct leaves. The text between `<` and `>` is a token to look for.
fn everything() -> Value {
    json!({
        "model": "<model>",
        "messages": [
            {"role": "system", "content": "<system>", "weight": "<w0>"},
            {"role": "developer", "content": [
                {"type": "text", "text": "<developer>", "cache_control": {"type": "ephemeral", "ttl": "<ttl>"}},
            ]},
            {"role": "user", "name": "<name>", "content": [
                {"type": "text", "text": "<text>", "annotations": ["<annotation>"]},
                {"type": "image_url", "image_url": {
                    "url": "data:image/png;base64,AAAAimage", "detail": "<detail>", "format": "<format>",
                }},
            ]},
            {"role": "assistant", "content": "<answer>", "reasoning_content": "<thought>", "refusal": null,
             "audio": {"id": "<audio>"},
             "reasoning_details": [{"data": "<detail2>"}], "tool_calls": [
                {"id": "call1", "type": "function", "index": 71234,
                 "extra_content": {"google": {"thought_signature": "<signature>"}},
                 "function": {"name": "fn", "arguments": "{\"a\":\"argument\"}", "x": "<inner>"}},
            ]},
            {"role": "tool", "tool_call_id": "call1", "content": "<result>", "is_error": "<error>",
             "cache_control": {"type": "ephemeral", "ttl": "<ttl2>"}},
            {"role": "user", "content": "<last>", "cache_control": {"type": "ephemeral", "ttl": "<ttl3>"}},
        ],
        "tools": [{"type": "function", "cache_control": {"type": "ephemeral", "ttl": "<ttl4>"}, "function": {
            "name": "fn", "strict": true, "description": "<description>", "returns": "<returns>",
            "parameters": {"type": "object", "properties": {"a": {"type": "string", "description": "<property>"}}},
        }}],
        "tool_choice": {"type": "function", "function": {"name": "fn"}},
        "parallel_tool_calls": false,
        "max_completion_tokens": 71235, "temperature": 0.71236, "top_p": 0.71237, "top_k": 71238, "seed": 71239,
        "presence_penalty": 0.71240, "frequency_penalty": 0.71241,
        "stop": ["<stop1>", "<stop2>", "<stop3>", "<stop4>", "<stop5>", "<stop6>"],
        "reasoning_effort": "<effort>", "user": "<user>", "metadata": {"k": "<metadata>"},
        "logit_bias": {"71242": 71243},
        "logprobs": true, "service_tier": "<tier>", "store": true, "stream": true, "stream_options": {"x": "<option>"},
        "extra_body": {"deep": [{"y": "<deep>"}]}, "reasoning": {"effort": "<effort2>"}, "verbosity": "<verbosity>",
        "cache_control": {"type": "ephemeral", "ttl": "<ttl5>"},
    })
}

/// The same with a form that is demanded.
fn with_form() -> Value {
    let mut body = everything();
    body["response_format"] = json!({"type": "json_schema", "json_schema": {
        "name": "form", "description": "<form>", "strict": true,
        "schema": {"type": "object", "required": ["b"], "additionalProperties": false,
            "properties": {"b": {"type": "string", "description": "<member>", "maxLength": 71260}}},
    }});
    body
}

/// The same with a file and a sound.
fn with_attachments() -> Value {
    let mut body = everything();
    let parts = body["messages"][2]["content"].as_array_mut().expect("the user's parts");
    parts.push(json!({"type": "file", "file": {
        "filename": "<filename>", "file_data": format!("data:application/pdf;base64,{FILE}"),
    }}));
    parts.push(json!({"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}}));
    body
}

/// The bytes of the file and of the sound, in base64.
const FILE: &str = "71250AAA";
const SOUND: &str = "71251AAA";

/// Leaves with a token: the token, and the path without positions.
fn leaves(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&path, value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| leaves(&format!("{path}[]"), item, found)),
        Value::String(text) if text.starts_with('<') => found.push((text.clone(), path.to_owned())),
        Value::String(text) if text.ends_with(FILE) => found.push((FILE.to_owned(), path.to_owned())),
        Value::String(text) if text.ends_with(SOUND) => found.push((SOUND.to_owned(), path.to_owned())),
        Value::Number(number) if number.to_string().contains("712") => {
            found.push((number.to_string(), path.to_owned()));
        }
        Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => {}
    }
}

/// Whether the list of dropped members names this path, itself or as part of something larger.
fn is_named(dropped: &[String], path: &str) -> bool {
    dropped.iter().any(|noted| {
        let noted = noted.split([' ', ':']).next().unwrap_or_default();
        // Marks of caching are bounded over the whole request, wherever they stand.
        (noted == "cache_control" && path.contains("cache_control"))
            || noted == path
            || path.strip_prefix(noted).is_some_and(|rest| rest.starts_with(['.', '[']))
    })
}

/// The body without the first member that makes it another dialect's request: what the rows of the vendor refuse, and a
/// call that is forced. `None` when the refusal is about neither.
fn without_what_is_refused(name: &str, body: &Value, why: &str) -> Option<Value> {
    let mut rest = body.clone();
    let is_refused =
        VENDORS.iter().filter(|row| row.name == name).any(|row| (row.quirks)().refuse.contains(&why.to_owned()));
    if is_refused {
        rest.as_object_mut()?.remove(why)?;
    } else if why.contains("json_schema") || why.contains("response schema") {
        rest.as_object_mut()?.remove("response_format")?;
    } else if let Some(kind) = [("files", "file"), ("audio", "input_audio")]
        .into_iter()
        .find_map(|(said, kind)| why.contains(said).then_some(kind))
    {
        let parts = rest["messages"][2]["content"].as_array_mut()?;
        let before = parts.len();
        parts.retain(|part| part["type"] != kind);
        (parts.len() < before).then_some(())?;
    } else if why == conversation::FORCED_CALL {
        rest["tool_choice"] = json!("auto");
    } else if why == completions::ONE_QUESTION {
        // Only one question of the conversation remains.
        let members = rest.as_object_mut()?;
        members.insert("messages".to_owned(), json!([{"role": "user", "content": "<last>"}]));
        for name in ["tools", "tool_choice", "response_format"] {
            members.remove(name);
        }
    } else {
        return None;
    }
    Some(rest)
}

/// A body, as it is understood, and the tokens in it.
struct Written {
    body: Value,
    request: ChatRequest,
    tokens: Vec<(String, String)>,
}

impl Written {
    fn new(body: Value) -> Self {
        let mut tokens = Vec::new();
        leaves("", &body, &mut tokens);
        Self { request: ChatRequest::parse(&body).unwrap(), body, tokens }
    }

    /// The request as it is sent, and the tokens of the body that it was made of.
    fn sent(&self, name: &str, adapter: &dyn Adapter, model: &str) -> (WireRequest, Vec<(String, String)>) {
        match adapter.chat(&self.request, model, &Capabilities::default()) {
            Ok(wire) => (wire, self.tokens.clone()),
            Err(Ineligible::Unsupported(why)) => {
                let rest = without_what_is_refused(name, &self.body, &why);
                Self::new(rest.unwrap_or_else(|| panic!("{name} {model}: {why}"))).sent(name, adapter, model)
            }
            Err(other) => panic!("{name} {model}: {other:?}"),
        }
    }
}

/// The body with random members taken out, at any depth.
fn thinned(value: &Value, coins: &mut dyn Iterator<Item = bool>) -> Value {
    // Without these it is not a request, or a different one.
    const NEEDED: &[&str] = &[
        "messages",
        "role",
        "content",
        "type",
        "text",
        "id",
        "url",
        "image_url",
        "tool_call_id",
        "function",
        "name",
        "arguments",
        "tool_calls",
        "tools",
        "tool_choice",
        "filename",
        "file",
        "file_data",
        "input_audio",
        "data",
        "format",
        "json_schema",
        "schema",
        "properties",
        "required",
        "additionalProperties",
    ];
    match value {
        Value::Object(members) => {
            let mut left = Map::new();
            for (name, value) in members {
                if coins.next().unwrap_or(true) || NEEDED.contains(&name.as_str()) {
                    left.insert(name.clone(), thinned(value, coins));
                }
            }
            Value::Object(left)
        }
        Value::Array(items) => items.iter().map(|item| thinned(item, coins)).collect(),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_a_request_has_is_sent_or_named(
        coins in prop::collection::vec(prop::bool::weighted(0.7), 220),
        body in prop::sample::select(vec![everything(), with_form(), with_attachments()]),
    ) {
        let whole = Written::new(thinned(&body, &mut coins.into_iter()));
        let dialects = DIALECTS.iter().map(|dialect| (dialect.name, at(dialect, "http://127.0.0.1/v1")));
        let of_row = |dialect: &str, name| spoken(dialect, Some(name), "", &QuirkSettings::default());
        let vendors = VENDORS.iter().map(|vendor| (vendor.name, of_row(vendor.dialect.name, vendor.name)));
        for (name, adapter) in dialects.chain(vendors) {
            for model in ["the-model", "gpt-5-mini", "claude-opus-4-7", "gemini-2.5-flash", "grok-4"] {
                let (wire, tokens) = whole.sent(name, adapter, model);
                let sent = String::from_utf8(wire.body).unwrap();
                for (token, path) in &tokens {
                    prop_assert!(
                        sent.contains(token.as_str()) || is_named(&wire.dropped, path),
                        "{} {}: {} at {} is neither sent nor among {:?}: {}", name, model, token, path,
                        wire.dropped, sent
                    );
                }
                prop_assert!(wire.dropped.len() <= 61);
            }
        }
    }
}
