//! From a request to a `generateContent` body.

use crate::domain::decide::Ineligible;
use crate::domain::request::{Tool, ToolChoice};
use crate::domain::{Capabilities, ChatRequest, ContentPart, ResponseFormat};
use crate::provider::adapter::WireRequest;
use crate::provider::conversation::{self, Conversation, Item, Speaker, note};
use reqwest::header::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Config::is_empty")]
    generation_config: Config<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<[Functions<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<Value>,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Part<'a> {
    Text(Cow<'a, str>),
    #[serde(rename_all = "camelCase")]
    InlineData {
        mime_type: &'a str,
        data: &'a str,
    },
    #[serde(rename_all = "camelCase")]
    FileData {
        file_uri: &'a str,
    },
    FunctionCall {
        name: &'a str,
        args: &'a RawValue,
    },
    FunctionResponse {
        name: &'a str,
        response: Value,
    },
}

#[derive(PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a Value>,
}

impl Config<'_> {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Functions<'a> {
    function_declarations: Vec<Declaration<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Declaration<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters_json_schema: Option<&'a Value>,
}

pub(super) fn encode(
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    let Conversation { system, turns, mut dropped } = Conversation::of(request)?;
    let contents = turns
        .iter()
        .map(|turn| {
            let role = match turn.speaker {
                Speaker::User => "user",
                Speaker::Model => "model",
            };
            let parts = turn.items.iter().map(|item| part(*item, &mut dropped)).collect::<Result<_, _>>()?;
            Ok(Content { role: Some(role), parts })
        })
        .collect::<Result<_, Ineligible>>()?;
    let generation_config = config(request, capabilities, &mut dropped);
    let tool_config = match &request.tool_choice {
        Some(_) if request.tools.is_empty() => {
            note(&mut dropped, "tool_choice");
            None
        }
        Some(ToolChoice::Auto) => Some(json!({ "mode": "AUTO" })),
        Some(ToolChoice::None) => Some(json!({ "mode": "NONE" })),
        Some(ToolChoice::Required) => Some(json!({ "mode": "ANY" })),
        Some(ToolChoice::Function(name)) => Some(json!({ "mode": "ANY", "allowedFunctionNames": [name] })),
        None => None,
    }
    .map(|calling| json!({ "functionCallingConfig": calling }));
    if request.reasoning_effort.is_some() {
        // Budgets and levels differ by model generation, and the wrong one is an error.
        note(&mut dropped, "reasoning_effort");
    }
    dropped.extend(request.extra.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.clone()));
    let functions = || Functions { function_declarations: request.tools.iter().map(declaration).collect() };
    let body = Body {
        system_instruction: system.map(|text| Content { role: None, parts: vec![Part::Text(Cow::Owned(text))] }),
        contents,
        generation_config,
        tools: (!request.tools.is_empty()).then(|| [functions()]),
        tool_config,
    };
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    let model = model.strip_prefix("models/").unwrap_or(model);
    Ok(WireRequest { path: format!("/models/{model}:generateContent"), headers: HeaderMap::new(), body, dropped })
}

fn part<'a>(item: Item<'a>, dropped: &mut Vec<String>) -> Result<Part<'a>, Ineligible> {
    let unsupported = |what: &str| Err(Ineligible::Unsupported(what.to_owned()));
    Ok(match item {
        Item::Text(text) => Part::Text(Cow::Borrowed(text)),
        Item::Image(url) => {
            if let Some((mime_type, data)) = conversation::data_url(url) {
                Part::InlineData { mime_type, data }
            } else if url.starts_with("gs://") || url.starts_with("https://generativelanguage.googleapis.com/") {
                Part::FileData { file_uri: url }
            } else {
                return unsupported("images by web address");
            }
        }
        Item::Call(call) => {
            let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.trim() };
            match serde_json::from_str::<&RawValue>(arguments) {
                Ok(args) if args.get().starts_with('{') => Part::FunctionCall { name: &call.name, args },
                _ => return unsupported("tool call arguments that are not a JSON object"),
            }
        }
        Item::Result { name: None, .. } => return unsupported("a tool result whose call is not in the conversation"),
        Item::Result { message, name: Some(name), .. } => {
            if message.content.iter().any(|part| matches!(part, ContentPart::Image { .. })) {
                return unsupported("images in tool results");
            }
            let text = message.text();
            if message.name.as_deref().is_some_and(|given| given != name) {
                note(dropped, "messages.name");
            }
            // The response has to be an object.
            let response = match serde_json::from_str(&text) {
                Ok(object @ Value::Object(_)) => object,
                Ok(other) => json!({ "result": other }),
                Err(_) => json!({ "result": text }),
            };
            Part::FunctionResponse { name, response }
        }
    })
}

fn config<'a>(request: &'a ChatRequest, capabilities: &Capabilities, dropped: &mut Vec<String>) -> Config<'a> {
    let (mut temperature, mut top_p) = (request.temperature, request.top_p);
    if capabilities.temperature == Some(false) {
        if temperature.take().is_some() {
            note(dropped, "temperature");
        }
        if top_p.take().is_some() {
            note(dropped, "top_p");
        }
    }
    // The field has 32 bits.
    let seed = request.seed.filter(|seed| i32::try_from(*seed).is_ok());
    if seed != request.seed {
        note(dropped, "seed");
    }
    let (response_mime_type, response_json_schema) = match &request.response_format {
        None | Some(ResponseFormat::Text) => (None, None),
        Some(ResponseFormat::JsonObject) => (Some("application/json"), None),
        Some(ResponseFormat::JsonSchema { schema, .. }) => (Some("application/json"), Some(schema)),
    };
    Config {
        max_output_tokens: conversation::output_cap(request, capabilities, dropped),
        temperature,
        top_p,
        stop_sequences: &request.stop,
        seed,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        response_mime_type,
        response_json_schema,
    }
}

fn declaration(tool: &Tool) -> Declaration<'_> {
    Declaration {
        name: &tool.name,
        description: tool.description.as_deref(),
        parameters_json_schema: tool.parameters.as_ref(),
    }
}
