//! From a request to a Messages body.

use crate::domain::decide::Ineligible;
use crate::domain::request::{Tool, ToolChoice};
use crate::domain::{Capabilities, ChatRequest, ContentPart, ResponseFormat};
use crate::provider::adapter::WireRequest;
use crate::provider::conversation::{self, Conversation, Item, Speaker, note};
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// The API version that this adapter is written for.
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// The output cap of a request without one, for a model of which none is configured: the API demands a number.
const DEFAULT_MAX_TOKENS: i64 = 4096;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    messages: Vec<TurnOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<Value>,
}

#[derive(Serialize)]
struct TurnOut<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text { text: &'a str },
    Image { source: Source<'a> },
    ToolUse { id: Cow<'a, str>, name: &'a str, input: &'a RawValue },
    ToolResult { tool_use_id: Cow<'a, str>, content: Vec<Block<'a>> },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
}

#[derive(Serialize)]
struct ToolOut<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: Cow<'a, Value>,
}

pub(super) fn encode(
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    let Conversation { system, turns, mut dropped } = Conversation::of(request)?;
    let messages = turns
        .iter()
        .map(|turn| {
            let role = match turn.speaker {
                Speaker::User => "user",
                Speaker::Model => "assistant",
            };
            Ok(TurnOut { role, content: turn.items.iter().map(|item| block(*item)).collect::<Result<_, _>>()? })
        })
        .collect::<Result<_, Ineligible>>()?;
    let max_tokens = conversation::output_cap(request, capabilities, &mut dropped)
        .or(capabilities.max_output_tokens)
        .unwrap_or(DEFAULT_MAX_TOKENS);
    let (temperature, top_p) = sampling(request, capabilities, &mut dropped);
    let output_config = match &request.response_format {
        None | Some(ResponseFormat::Text) => None,
        // There is no such mode; the prompt has to ask for JSON in any case, and validation sees to the rest.
        Some(ResponseFormat::JsonObject) => {
            note(&mut dropped, "response_format");
            None
        }
        Some(ResponseFormat::JsonSchema { schema, .. }) => {
            let mut schema = schema.clone();
            close_objects(&mut schema);
            Some(json!({ "format": { "type": "json_schema", "schema": schema } }))
        }
    };
    let tool_choice = match &request.tool_choice {
        Some(_) if request.tools.is_empty() => {
            note(&mut dropped, "tool_choice");
            None
        }
        Some(ToolChoice::Auto) => Some(json!({ "type": "auto" })),
        Some(ToolChoice::None) => Some(json!({ "type": "none" })),
        Some(ToolChoice::Required) => Some(json!({ "type": "any" })),
        Some(ToolChoice::Function(name)) => Some(json!({ "type": "tool", "name": name })),
        None => None,
    };
    let not_taken = [
        ("seed", request.seed.is_some()),
        ("presence_penalty", request.presence_penalty.is_some()),
        ("frequency_penalty", request.frequency_penalty.is_some()),
        ("reasoning_effort", request.reasoning_effort.is_some()),
    ];
    dropped.extend(not_taken.iter().filter(|(_, present)| *present).map(|(name, _)| (*name).to_owned()));
    dropped.extend(request.extra.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.clone()));
    let body = Body {
        model,
        max_tokens,
        system: system.as_deref(),
        messages,
        temperature,
        top_p,
        stop_sequences: &request.stop,
        tools: request.tools.iter().map(tool).collect(),
        tool_choice,
        output_config,
    };
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    let headers = HeaderMap::from_iter([(reqwest::header::HeaderName::from_static("anthropic-version"), VERSION)]);
    Ok(WireRequest { path: "/messages".to_owned(), headers, body, dropped })
}

fn block(item: Item<'_>) -> Result<Block<'_>, Ineligible> {
    Ok(match item {
        Item::Text(text) => Block::Text { text },
        Item::Image(url) => image(url)?,
        Item::Call(call) => {
            let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.trim() };
            let input = serde_json::from_str::<&RawValue>(arguments)
                .ok()
                .filter(|input| input.get().starts_with('{'))
                .ok_or_else(|| Ineligible::Unsupported("tool call arguments that are not a JSON object".to_owned()))?;
            Block::ToolUse { id: call_id(&call.id), name: &call.name, input }
        }
        Item::Result { message, id, .. } => {
            let content = message
                .content
                .iter()
                .filter_map(|part| match part {
                    ContentPart::Text(text) if text.is_empty() => None,
                    ContentPart::Text(text) => Some(Ok(Block::Text { text })),
                    ContentPart::Image { url, .. } => Some(image(url)),
                })
                .collect::<Result<_, _>>()?;
            Block::ToolResult { tool_use_id: call_id(id), content }
        }
    })
}

fn image(url: &str) -> Result<Block<'_>, Ineligible> {
    let source = if let Some((media_type, data)) = conversation::data_url(url) {
        Source::Base64 { media_type, data }
    } else if url.starts_with("https://") || url.starts_with("http://") {
        Source::Url { url }
    } else {
        return Err(Ineligible::Unsupported("images that are neither base64 data nor a web address".to_owned()));
    };
    Ok(Block::Image { source })
}

fn tool(tool: &Tool) -> ToolOut<'_> {
    let input_schema = match &tool.parameters {
        Some(schema) => Cow::Borrowed(schema),
        None => Cow::Owned(json!({ "type": "object", "properties": {} })),
    };
    ToolOut { name: &tool.name, description: tool.description.as_deref(), input_schema }
}

/// Temperature ends at 1 here, and newer models take only one of the two.
fn sampling(
    request: &ChatRequest,
    capabilities: &Capabilities,
    dropped: &mut Vec<String>,
) -> (Option<f64>, Option<f64>) {
    let (mut temperature, mut top_p) = (request.temperature, request.top_p);
    if capabilities.temperature == Some(false) {
        if temperature.take().is_some() {
            note(dropped, "temperature");
        }
        if top_p.take().is_some() {
            note(dropped, "top_p");
        }
    }
    if temperature.is_some_and(|temperature| temperature > 1.0) {
        note(dropped, "temperature above 1");
        temperature = Some(1.0);
    }
    if temperature.is_some() && top_p.take().is_some() {
        note(dropped, "top_p");
    }
    (temperature, top_p)
}

/// Says of every object in a schema that it has no further members, where the schema is silent: the API demands
/// it. What fits the stricter schema fits the given one.
fn close_objects(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let closes = |members: &Map<String, Value>| {
                members.get("type").is_some_and(|kind| kind == "object")
                    && !members.contains_key("additionalProperties")
            };
            if closes(members) {
                members.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            for (key, member) in members.iter_mut() {
                // Data, not schemas.
                if !matches!(key.as_str(), "enum" | "const" | "default" | "examples") {
                    close_objects(member);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(close_objects),
        _ => {}
    }
}

/// Ids may have letters, digits, `_` and `-`.
fn call_id(id: &str) -> Cow<'_, str> {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    if !id.is_empty() && id.chars().all(fits) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(format!("_{}", id.replace(|character| !fits(character), "_")))
}
