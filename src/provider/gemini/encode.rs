//! Turns a request into a `generateContent` body.

use crate::domain::bulk::is_too_much;
use crate::domain::decide::Ineligible;
use crate::domain::request::{Tool, ToolChoice};
use crate::domain::{Capabilities, ChatRequest, ContentPart, ResponseFormat};
use crate::provider::conversation::{self, Blank, Conversation, Item, Speaker, note, unsupported};
use crate::provider::effort;
use crate::provider::model_habits::{gemini_generation, gemini_refuses_penalties};
use crate::provider::names::{self, NameRule, Renamed, Undo};
use crate::provider::wire::WireRequest;
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
    thought_signature: Option<&'a str>,
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
    mime_type: String,
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

/// Where files are kept that were uploaded to it.
const FILES_OF_GEMINI: &str = "https://generativelanguage.googleapis.com/";

/// The placeholder for the signature of a call, for models that demand one. The conversation may come from any model,
/// so there may be no signature to give back, and without one they reject the whole request.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Image types that models accept.
const IMAGE_TYPES: &[&str] = &["image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"];

/// The most stop sequences of a request.
const MOST_STOPS: usize = 5;

#[derive(PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<i64>,
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
    #[serde(rename = "thinkingConfig", skip_serializing_if = "Option::is_none")]
    thinking: Option<Value>,
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

/// The suffix after the model's name: an answer in one piece, or in events.
pub(super) const WHOLE: &str = ":generateContent";
pub(super) const STREAMED: &str = ":streamGenerateContent";

/// Where a body has its output cap.
const CAPS: &[&str] = &["generationConfig.maxOutputTokens"];

pub(super) fn encode(
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    let model = model.strip_prefix("models/").unwrap_or(model);
    let generation = gemini_generation(model);
    check(request, generation)?;
    let call_signature = generation.filter(|(major, _)| *major >= 3).map(|_| NO_SIGNATURE);
    let mut conversation = Conversation::of(request, Blank::White)?;
    // Functions are called without ids: results belong to the calls by name and place.
    conversation.order_results();
    let Conversation { system, turns, mut dropped } = conversation;
    conversation::note_model(request, model, &mut dropped);
    conversation::note_second_cap(request, &mut dropped);
    conversation::note_strict(request, &mut dropped);
    conversation::note_cache_marks(request, &mut dropped);
    let named = request.messages.iter().flat_map(|message| &message.content);
    if named.into_iter().any(|part| matches!(part, ContentPart::File { name: Some(_), .. })) {
        note(&mut dropped, "messages[].content[].file.filename");
    }
    let renamed = Renamed::of(NameRule::GEMINI, names::function_names(request));
    if !renamed.is_empty() {
        note(&mut dropped, conversation::NAMES_REWRITTEN);
    }
    let contents = turns
        .iter()
        .map(|turn| {
            let role = match turn.speaker {
                Speaker::User => "user",
                Speaker::Model => "model",
            };
            let parts = turn.items.iter().map(|item| part(item, call_signature, &renamed)).collect::<Result<_, _>>()?;
            Ok(Content { role: Some(role), parts })
        })
        .collect::<Result<_, Ineligible>>()?;
    let (generation_config, held_back) = config(request, model, capabilities, &mut dropped);
    // Declared tools and a demanded form do not go together. Where no tool may be called, none needs to be declared.
    let form_comes_first = !takes_tools_with_form(generation) && wants_json(request);
    let tools: &[Tool] = if form_comes_first { &[] } else { &request.tools };
    if tools.len() < request.tools.len() {
        note(&mut dropped, conversation::TOOLS_NOT_TO_BE_CALLED);
    }
    let tool_config = tool_config(request, tools, &renamed, &mut dropped);
    for (name, is_lost) in [
        ("user", request.user.is_some()),
        ("parallel_tool_calls", request.parallel_tool_calls.is_some()),
        (
            "response_format.json_schema.name",
            matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. })),
        ),
    ] {
        if is_lost {
            note(&mut dropped, name);
        }
    }
    let functions =
        || Functions { function_declarations: tools.iter().map(|tool| declaration(tool, &renamed)).collect() };
    let system: Vec<&str> = system.iter().map(|(text, _)| text.as_ref()).collect();
    let body = Body {
        system_instruction: (!system.is_empty()).then(|| Content {
            role: None,
            parts: vec![Part { kind: Kind::Text(Cow::Owned(system.join("\n\n"))), thought_signature: None }],
        }),
        contents,
        generation_config,
        tools: (!tools.is_empty()).then(|| [functions()]),
        tool_config,
    };
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    let undo = Undo::of(&renamed, held_back);
    Ok(WireRequest { dropped, undo, ..WireRequest::post(format!("/models/{model}{WHOLE}"), CAPS, body) })
}

fn wants_json(request: &ChatRequest) -> bool {
    matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. } | ResponseFormat::JsonObject))
}

/// Models before Gemini 3 reject it: "Function calling with a response mime type: 'application/json' is unsupported".
fn takes_tools_with_form(generation: Option<(u32, u32)>) -> bool {
    generation.is_none_or(|(major, _)| major >= 3)
}

fn check(request: &ChatRequest, generation: Option<(u32, u32)>) -> Result<(), Ineligible> {
    if wants_json(request) && conversation::offers_tools(request) && !takes_tools_with_form(generation) {
        return unsupported("tools together with a response schema");
    }
    Ok(())
}

fn tool_config(request: &ChatRequest, tools: &[Tool], renamed: &Renamed, dropped: &mut Vec<String>) -> Option<Value> {
    let calling = match &request.tool_choice {
        Some(_) if tools.is_empty() => {
            note(dropped, "tool_choice");
            return None;
        }
        Some(ToolChoice::Auto) => json!({ "mode": "AUTO" }),
        Some(ToolChoice::None) => json!({ "mode": "NONE" }),
        Some(ToolChoice::Required) => json!({ "mode": "ANY" }),
        Some(ToolChoice::Function(name)) => json!({ "mode": "ANY", "allowedFunctionNames": [renamed.written(name)] }),
        Some(ToolChoice::Other(_)) | None => return None,
    };
    Some(json!({ "functionCallingConfig": calling }))
}

fn part<'a>(
    item: &'a Item<'a>,
    call_signature: Option<&'static str>,
    renamed: &'a Renamed,
) -> Result<Part<'a>, Ineligible> {
    let mut thought_signature = None;
    let kind = match item {
        Item::Text { text, .. } => Kind::Text(Cow::Borrowed(text)),
        Item::Image { url, .. } => image(url)?,
        Item::File { url, .. } => file(url)?,
        Item::Audio { data, format, .. } => sound(data, format)?,
        Item::Call { call, .. } => {
            let args = conversation::call_arguments(&call.arguments)?;
            thought_signature = call.thought_signature.as_deref().or(call_signature);
            Kind::FunctionCall(Call { name: renamed.written(&call.name), args })
        }
        Item::Result { name: None, .. } => return unsupported("a tool result whose call is not in the conversation"),
        Item::Result { message, name: Some(name), .. } => {
            if let Some(part) = message.content.iter().find(|part| part.is_attached()) {
                return unsupported(format!("{} in tool results", part.kind()));
            }
            let text = message.text();
            // The response has to be an object.
            let parsed = if is_too_much(text.as_bytes()) { None } else { serde_json::from_str(&text).ok() };
            let response = match parsed {
                Some(object @ Value::Object(_)) => object,
                Some(other) => json!({ "result": other }),
                None => json!({ "result": text }),
            };
            Kind::FunctionResponse(Response { name: renamed.written(name), response })
        }
    };
    Ok(Part { kind, thought_signature })
}

fn image(url: &str) -> Result<Kind<'_>, Ineligible> {
    if let Some((given, data)) = conversation::data_url(url) {
        let mime_type = conversation::image_type(given, data);
        if !IMAGE_TYPES.contains(&mime_type.as_str()) {
            let named: String = mime_type.chars().take(40).collect();
            return unsupported(format!("images of type {named}"));
        }
        Ok(Kind::InlineData(Blob { mime_type, data }))
    } else if url.starts_with("gs://") || url.starts_with(FILES_OF_GEMINI) {
        Ok(Kind::FileData(File { file_uri: url }))
    } else {
        unsupported("images by web address")
    }
}

/// Which types of files a model reads is its own matter.
fn file(url: &str) -> Result<Kind<'_>, Ineligible> {
    if url.starts_with(FILES_OF_GEMINI) {
        return Ok(Kind::FileData(File { file_uri: url }));
    }
    let (mime_type, data) = conversation::file_along(url)?;
    Ok(Kind::InlineData(Blob { mime_type, data }))
}

fn sound<'a>(data: &'a str, format: &str) -> Result<Kind<'a>, Ineligible> {
    let Some(kind) = ["wav", "mp3", "aiff", "aac", "ogg", "flac"].iter().find(|kind| format.eq_ignore_ascii_case(kind))
    else {
        return unsupported(format!("sounds of type {}", format.chars().take(40).collect::<String>()));
    };
    Ok(Kind::InlineData(Blob { mime_type: format!("audio/{kind}"), data }))
}

/// The parameters, and the surplus stop sequences, at which the answer is cut afterwards.
fn config<'a>(
    request: &'a ChatRequest,
    model: &str,
    capabilities: &Capabilities,
    dropped: &mut Vec<String>,
) -> (Config<'a>, Vec<String>) {
    let ChatRequest { mut temperature, mut top_p, mut presence_penalty, mut frequency_penalty, .. } = *request;
    if capabilities.temperature == Some(false) {
        if temperature.take().is_some() {
            note(dropped, "temperature");
        }
        if top_p.take().is_some() {
            note(dropped, "top_p");
        }
    }
    if gemini_refuses_penalties(model) {
        if presence_penalty.take().is_some() {
            note(dropped, "presence_penalty");
        }
        if frequency_penalty.take().is_some() {
            note(dropped, "frequency_penalty");
        }
    }
    let top_k = request.top_k.filter(|top_k| *top_k > 0 && i32::try_from(*top_k).is_ok());
    if top_k != request.top_k {
        note(dropped, "top_k");
    }
    let (sent, held_back) = request.stop.split_at(request.stop.len().min(MOST_STOPS));
    if !held_back.is_empty() {
        note(dropped, &conversation::stops_beyond(MOST_STOPS));
    }
    // The field has 32 bits.
    let seed = request.seed.filter(|seed| i32::try_from(*seed).is_ok());
    if seed != request.seed {
        note(dropped, "seed");
    }
    let (response_mime_type, response_json_schema) = match &request.response_format {
        None | Some(ResponseFormat::Text | ResponseFormat::Other(_)) => (None, None),
        Some(ResponseFormat::JsonObject) => (Some("application/json"), None),
        Some(ResponseFormat::JsonSchema { schema, .. }) => (Some("application/json"), Some(schema)),
    };
    let config = Config {
        max_output_tokens: conversation::output_cap(request, capabilities, dropped),
        temperature,
        top_p,
        top_k,
        stop_sequences: sent,
        seed,
        presence_penalty,
        frequency_penalty,
        response_mime_type,
        response_json_schema,
        thinking: effort::thinking_config(request, model, dropped),
    };
    (config, held_back.to_vec())
}

fn declaration<'a>(tool: &'a Tool, renamed: &'a Renamed) -> Declaration<'a> {
    Declaration {
        name: renamed.written(&tool.name),
        description: tool.description.as_deref(),
        parameters_json_schema: tool.parameters.as_ref(),
    }
}
