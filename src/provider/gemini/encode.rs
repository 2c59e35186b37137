//! From a request to a `generateContent` body.

use crate::domain::bulk::is_too_much;
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
struct Part<'a> {
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(rename = "thoughtSignature", skip_serializing_if = "Option::is_none")]
    thought_signature: Option<&'static str>,
}

// Each variant holds one value: only then does `flatten` pass raw JSON through as it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind<'a> {
    Text(Cow<'a, str>),
    InlineData(Blob<'a>),
    FileData(File<'a>),
    FunctionCall(Call<'a>),
    FunctionResponse(Response<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    mime_type: &'a str,
    data: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    file_uri: &'a str,
}

#[derive(Serialize)]
struct Call<'a> {
    name: &'a str,
    args: &'a RawValue,
}

#[derive(Serialize)]
struct Response<'a> {
    name: &'a str,
    response: Value,
}

/// What stands in for the signature of a call, for models that demand one: the conversation may come from any
/// model, so there is none to give back, and without it they reject the whole request.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Gemini 3 and later.
fn demands_signatures(model: &str) -> bool {
    let generation = model.strip_prefix("gemini-").map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    generation.flatten().and_then(|digits| digits.parse::<u32>().ok()).is_some_and(|generation| generation >= 3)
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
    let model = model.strip_prefix("models/").unwrap_or(model);
    let call_signature = demands_signatures(model).then_some(NO_SIGNATURE);
    let Conversation { system, turns, mut dropped } = Conversation::of(request)?;
    let contents = turns
        .iter()
        .map(|turn| {
            let role = match turn.speaker {
                Speaker::User => "user",
                Speaker::Model => "model",
            };
            let parts = turn.items.iter().map(|item| part(*item, call_signature)).collect::<Result<_, _>>()?;
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
        system_instruction: system.map(|text| Content {
            role: None,
            parts: vec![Part { kind: Kind::Text(Cow::Owned(text)), thought_signature: None }],
        }),
        contents,
        generation_config,
        tools: (!request.tools.is_empty()).then(|| [functions()]),
        tool_config,
    };
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    Ok(WireRequest { path: format!("/models/{model}:generateContent"), headers: HeaderMap::new(), body, dropped })
}

fn part<'a>(item: Item<'a>, call_signature: Option<&'static str>) -> Result<Part<'a>, Ineligible> {
    let unsupported = |what: &str| Err(Ineligible::Unsupported(what.to_owned()));
    let mut thought_signature = None;
    let kind = match item {
        Item::Text(text) => Kind::Text(Cow::Borrowed(text)),
        Item::Image(url) => {
            if let Some((mime_type, data)) = conversation::data_url(url) {
                Kind::InlineData(Blob { mime_type, data })
            } else if url.starts_with("gs://") || url.starts_with("https://generativelanguage.googleapis.com/") {
                Kind::FileData(File { file_uri: url })
            } else {
                return unsupported("images by web address");
            }
        }
        Item::Call(call) => {
            let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.trim() };
            let Some(args) =
                serde_json::from_str::<&RawValue>(arguments).ok().filter(|args| args.get().starts_with('{'))
            else {
                return unsupported("tool call arguments that are not a JSON object");
            };
            thought_signature = call_signature;
            Kind::FunctionCall(Call { name: &call.name, args })
        }
        Item::Result { name: None, .. } => return unsupported("a tool result whose call is not in the conversation"),
        Item::Result { message, name: Some(name), .. } => {
            if message.content.iter().any(|part| matches!(part, ContentPart::Image { .. })) {
                return unsupported("images in tool results");
            }
            let text = message.text();
            // The response has to be an object.
            let parsed = if is_too_much(text.as_bytes()) { None } else { serde_json::from_str(&text).ok() };
            let response = match parsed {
                Some(object @ Value::Object(_)) => object,
                Some(other) => json!({ "result": other }),
                None => json!({ "result": text }),
            };
            Kind::FunctionResponse(Response { name, response })
        }
    };
    Ok(Part { kind, thought_signature })
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
