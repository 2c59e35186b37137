//! Turns a request into a Messages body.

use super::schema::{self, Fitted};
use crate::domain::decide::Ineligible;
use crate::domain::request::{Tool, ToolChoice};
use crate::domain::{Capabilities, ChatRequest, ContentPart, ResponseFormat};
use crate::provider::conversation::{self, Blank, Conversation, Item, Speaker, note, unsupported};
use crate::provider::effort::ToClaude;
use crate::provider::model_habits::Claude;
use crate::provider::names::{self, NameRule, Renamed, Undo};
use crate::provider::wire::WireRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The API version that this adapter is written for.
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// Where a body has its output cap.
const CAPS: &[&str] = &["max_tokens"];

/// The output cap of a request without one, for a model that has none configured either: the API demands a number.
const DEFAULT_MAX_TOKENS: i64 = 4096;

/// Image types that the API accepts.
const IMAGE_TYPES: &[&str] = &["image/jpeg", "image/png", "image/gif", "image/webp"];

/// The most places of a prompt that may be marked for caching.
const MOST_CACHE_MARKS: usize = 4;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<System<'a>>,
    messages: Vec<TurnOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<MetadataOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum System<'a> {
    Text(String),
    Blocks(Vec<Block<'a>>),
}

#[derive(Serialize)]
struct MetadataOut<'a> {
    user_id: &'a str,
}

#[derive(Serialize)]
struct TurnOut<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

type Mark<'a> = Option<&'a Value>;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Mark<'a>,
    },
    Image {
        source: MediaSource<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Mark<'a>,
    },
    Document {
        source: MediaSource<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Mark<'a>,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: &'a str,
        input: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Mark<'a>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        content: Vec<Block<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Mark<'a>,
    },
}

impl<'a> Block<'a> {
    fn mark(&mut self) -> &mut Mark<'a> {
        match self {
            Self::Text { cache_control, .. }
            | Self::Image { cache_control, .. }
            | Self::Document { cache_control, .. }
            | Self::ToolUse { cache_control, .. }
            | Self::ToolResult { cache_control, .. } => cache_control,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum MediaSource<'a> {
    Base64 { media_type: String, data: &'a str },
    Text { media_type: &'static str, data: String },
    Url { url: &'a str },
}

#[derive(Serialize)]
struct ToolOut<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: Cow<'a, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Mark<'a>,
}

pub(super) fn encode(
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    let claude = Claude::of(model);
    check(request, claude, capabilities)?;
    let Conversation { system, turns, mut dropped } = Conversation::of(request, Blank::Refused)?;
    conversation::note_model(request, model, &mut dropped);
    conversation::note_second_cap(request, &mut dropped);
    conversation::note_strict(request, &mut dropped);
    let renamed = Renamed::of(NameRule::PLAIN, names::function_names(request));
    if !renamed.is_empty() {
        note(&mut dropped, conversation::NAMES_REWRITTEN);
    }
    let ids: Vec<&str> = turns.iter().flat_map(|turn| turn.items.iter().filter_map(id_of)).collect();
    let ids = Renamed::of(NameRule::CALL_ID, ids.iter().copied());
    let mut blocks = Blocks { renamed: &renamed, ids: &ids, dropped: &mut dropped };
    let mut messages = turns
        .iter()
        .map(|turn| {
            let role = match turn.speaker {
                Speaker::User => "user",
                Speaker::Model => "assistant",
            };
            Ok(TurnOut { role, content: turn.items.iter().map(|item| blocks.of(item)).collect::<Result<_, _>>()? })
        })
        .collect::<Result<Vec<_>, Ineligible>>()?;
    let mut tools =
        request.tools.iter().map(|tool| self::tool(tool, &renamed)).collect::<Result<Vec<_>, Ineligible>>()?;
    let mut system = instructions(&system);
    let cache_control = is_mark(request.cache_control.as_ref(), &mut dropped);
    bound_marks(&mut tools, &mut system, &mut messages, cache_control.is_some(), &mut dropped);
    let max_tokens = conversation::needed_cap(request, capabilities, Some(DEFAULT_MAX_TOKENS), &mut dropped)
        .unwrap_or(DEFAULT_MAX_TOKENS);
    let told = ToClaude::of(request, claude, max_tokens, &mut dropped);
    let takes_sampling = if told.thinks() { Some(false) } else { capabilities.temperature };
    let Sampling { temperature, top_p, top_k } = sampling(request, claude, takes_sampling, &mut dropped);
    let (stop_sequences, held_back) = stops(request, &mut dropped);
    let mut output_config = output_config(request, &mut dropped)?;
    if let Some(effort) = told.effort {
        output_config.get_or_insert_with(|| json!({}))["effort"] = json!(effort);
    }
    let tool_choice = tool_choice(request, &renamed, &mut dropped);
    let user_id = request.user.as_deref().filter(|user| !user.is_empty() && user.len() <= 256);
    let lost = [
        ("seed", request.seed.is_some()),
        ("presence_penalty", request.presence_penalty.is_some()),
        ("frequency_penalty", request.frequency_penalty.is_some()),
        ("user", request.user.is_some() && user_id.is_none()),
        conversation::signatures(request),
    ];
    conversation::note_lost(&lost, &mut dropped);
    let body = Body {
        model,
        max_tokens,
        system,
        messages,
        temperature,
        top_p,
        top_k,
        stop_sequences,
        tools,
        tool_choice,
        thinking: told.thinking,
        output_config,
        metadata: user_id.map(|user_id| MetadataOut { user_id }),
        cache_control,
    };
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    let undo = Undo::of(&renamed, held_back);
    let mut wire = WireRequest { dropped, undo, ..WireRequest::post("/messages", CAPS, body) };
    wire.headers.insert("anthropic-version", VERSION);
    Ok(wire)
}

/// Refuses requests that some models are known to refuse.
fn check(request: &ChatRequest, claude: Option<Claude>, capabilities: &Capabilities) -> Result<(), Ineligible> {
    let wants_schema = matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. }));
    if wants_schema && capabilities.json_schema.is_none() && claude.is_some_and(|claude| !claude.has_json_schema()) {
        return unsupported("json_schema");
    }
    let forces = matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Function(_)));
    if forces && claude.is_some_and(Claude::refuses_forced_tools) {
        return unsupported(conversation::FORCED_CALL);
    }
    Ok(())
}

fn id_of<'a>(item: &'a Item<'_>) -> Option<&'a str> {
    match item {
        Item::Call { id, .. } | Item::Result { id, .. } => Some(id),
        Item::Text { .. } | Item::Image { .. } | Item::File { .. } | Item::Audio { .. } => None,
    }
}

/// The instructions as one text, or as blocks if one of them is marked for caching.
fn instructions<'a>(parts: &'a [(Cow<'a, str>, Mark<'a>)]) -> Option<System<'a>> {
    if parts.is_empty() {
        return None;
    }
    if parts.iter().any(|(_, mark)| mark.is_some()) {
        let block = |(text, mark): &'a (Cow<'a, str>, Mark<'a>)| Block::Text { text, cache_control: *mark };
        return Some(System::Blocks(parts.iter().map(block).collect()));
    }
    let texts: Vec<&str> = parts.iter().map(|(text, _)| text.as_ref()).collect();
    Some(System::Text(texts.join("\n\n")))
}

/// Writes the pieces of a turn.
struct Blocks<'a, 'b> {
    renamed: &'a Renamed,
    ids: &'a Renamed,
    dropped: &'b mut Vec<String>,
}

impl<'a> Blocks<'a, '_> {
    fn of(&mut self, item: &'a Item<'a>) -> Result<Block<'a>, Ineligible> {
        Ok(match item {
            Item::Text { text, cache } => Block::Text { text, cache_control: *cache },
            Item::Image { url, cache } => Block::Image { source: image(url)?, cache_control: *cache },
            Item::File { url, name, cache } => {
                Block::Document { source: document(url)?, title: *name, cache_control: *cache }
            }
            Item::Audio { .. } => return unsupported(ContentPart::AUDIO),
            Item::Call { call, id, cache } => {
                let input = conversation::call_arguments(&call.arguments)?;
                Block::ToolUse {
                    id: self.ids.to_written(id),
                    name: self.renamed.written(&call.name),
                    input,
                    cache_control: *cache,
                }
            }
            Item::Result { message, id, cache, .. } => {
                let mut content = Vec::with_capacity(message.content.len());
                for (place, part) in message.content.iter().enumerate() {
                    let cache_control = message.cache_marks.get(&place);
                    match part {
                        ContentPart::Text(text) if conversation::is_said(text, Blank::Refused) => {
                            content.push(Block::Text { text, cache_control });
                        }
                        ContentPart::Text(text) if text.is_empty() => {}
                        ContentPart::Text(_) => note(self.dropped, conversation::BLANK_TEXT),
                        ContentPart::Image { url, .. } => {
                            content.push(Block::Image { source: image(url)?, cache_control });
                        }
                        ContentPart::File { url, name } => {
                            let title = name.as_deref();
                            content.push(Block::Document { source: document(url)?, title, cache_control });
                        }
                        ContentPart::Audio { .. } => return unsupported(ContentPart::AUDIO),
                        ContentPart::Other(_) => {}
                    }
                }
                Block::ToolResult { tool_use_id: self.ids.to_written(id), content, cache_control: *cache }
            }
        })
    }
}

fn image(url: &str) -> Result<MediaSource<'_>, Ineligible> {
    if let Some((given, data)) = conversation::data_url(url) {
        let media_type = conversation::image_type(given, data);
        if !IMAGE_TYPES.contains(&media_type.as_str()) {
            let named: String = media_type.chars().take(40).collect();
            return unsupported(format!("images of type {named}"));
        }
        Ok(MediaSource::Base64 { media_type, data })
    } else if url.starts_with("https://") {
        Ok(MediaSource::Url { url })
    } else if url.starts_with("http://") {
        unsupported("images by a web address that is not https")
    } else {
        unsupported("images that are neither base64 data nor a web address")
    }
}

/// A PDF, or plain text, which goes as text.
fn document(url: &str) -> Result<MediaSource<'_>, Ineligible> {
    if url.starts_with("https://") {
        return Ok(MediaSource::Url { url });
    }
    let (media_type, data) = conversation::file_along(url)?;
    match media_type.as_str() {
        "application/pdf" => Ok(MediaSource::Base64 { media_type, data }),
        "text/plain" | "text/markdown" | "text/csv" => {
            let text = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.filter(|text| conversation::is_said(text, Blank::Refused));
            text.map_or_else(
                || unsupported("files of text that are not base64 of UTF-8"),
                |data| Ok(MediaSource::Text { media_type: "text/plain", data }),
            )
        }
        _ => conversation::file_type_refused(&media_type),
    }
}

fn tool<'a>(tool: &'a Tool, renamed: &'a Renamed) -> Result<ToolOut<'a>, Ineligible> {
    let mut input_schema = match &tool.parameters {
        Some(schema) => Cow::Borrowed(schema),
        None => Cow::Owned(json!({ "type": "object", "properties": {} })),
    };
    for keyword in ["anyOf", "oneOf", "allOf"] {
        if input_schema.get(keyword).is_some() {
            return unsupported(format!("a tool whose parameters begin with {keyword}"));
        }
    }
    match input_schema.get("type") {
        Some(kind) if kind == "object" => {}
        None => input_schema.to_mut()["type"] = json!("object"),
        Some(_) => return unsupported("a tool whose parameters are not an object"),
    }
    let takes = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    let properties = input_schema.get("properties").and_then(Value::as_object);
    let odd = properties.is_some_and(|properties| {
        properties.keys().any(|name| name.is_empty() || name.len() > 64 || !name.chars().all(takes))
    });
    if odd {
        return unsupported("a tool whose parameters are named with more than letters, digits, `_`, `-` and `.`");
    }
    let description = tool.description.as_deref().filter(|text| conversation::is_said(text, Blank::Refused));
    let name = renamed.written(&tool.name);
    Ok(ToolOut { name, description, input_schema, cache_control: tool.cache_control.as_ref() })
}

/// Keeps a mark that the API understands; notes any other.
fn is_mark<'a>(mark: Mark<'a>, dropped: &mut Vec<String>) -> Mark<'a> {
    let kept = mark.filter(|mark| mark.get("type").is_some_and(|kind| kind == "ephemeral"));
    if mark.is_some() && kept.is_none() {
        note(dropped, "cache_control of another type than ephemeral");
    }
    kept
}

/// Keeps the marks that the API understands, and of those the last ones: too many are an error, and the longest prefix
/// saves most.
fn bound_marks<'a>(
    tools: &mut [ToolOut<'a>],
    system: &mut Option<System<'a>>,
    messages: &mut [TurnOut<'a>],
    has_own: bool,
    dropped: &mut Vec<String>,
) {
    let mut marks: Vec<&mut Mark<'a>> = tools.iter_mut().map(|tool| &mut tool.cache_control).collect();
    if let Some(System::Blocks(blocks)) = system {
        marks.extend(blocks.iter_mut().map(Block::mark));
    }
    for block in messages.iter_mut().flat_map(|turn| &mut turn.content) {
        let is_result = matches!(block, Block::ToolResult { .. });
        if is_result {
            // Inside and on the result itself.
            if let Block::ToolResult { content, cache_control, .. } = block {
                marks.extend(content.iter_mut().map(Block::mark));
                marks.push(cache_control);
            }
        } else {
            marks.push(block.mark());
        }
    }
    let mut left = if has_own { MOST_CACHE_MARKS.saturating_sub(1) } else { MOST_CACHE_MARKS };
    for mark in marks.into_iter().rev() {
        *mark = is_mark(*mark, dropped);
        if mark.is_some() {
            if left == 0 {
                *mark = None;
                note(dropped, &format!("cache_control beyond {MOST_CACHE_MARKS}"));
            }
            left = left.saturating_sub(1);
        }
    }
}

struct Sampling {
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
}

/// Fits the sampling parameters: temperature ends at 1 here, and newer models take only one of the two, or only the
/// defaults.
fn sampling(
    request: &ChatRequest,
    claude: Option<Claude>,
    takes_sampling: Option<bool>,
    dropped: &mut Vec<String>,
) -> Sampling {
    let ChatRequest { mut temperature, mut top_p, mut top_k, .. } = *request;
    let defaults_only = match takes_sampling {
        Some(takes) => !takes,
        None => claude.is_some_and(Claude::samples_by_default_only),
    };
    if defaults_only {
        if temperature.take().is_some() {
            note(dropped, "temperature");
        }
        if top_p.take().is_some() {
            note(dropped, "top_p");
        }
        if top_k.take().is_some() {
            note(dropped, "top_k");
        }
    }
    if temperature.is_some_and(|temperature| temperature > 1.0) {
        note(dropped, "temperature above 1");
        temperature = Some(1.0);
    }
    if temperature.is_some() && top_p.take().is_some() {
        note(dropped, "top_p");
    }
    if top_k.is_some_and(|top_k| top_k < 1) {
        note(dropped, "top_k");
        top_k = None;
    }
    Sampling { temperature, top_p, top_k }
}

/// The stop sequences that the API accepts, and those at which the answer is cut afterwards: the API rejects mere white
/// space.
fn stops<'a>(request: &'a ChatRequest, dropped: &mut Vec<String>) -> (Vec<&'a str>, Vec<String>) {
    let (sent, held_back): (Vec<&str>, Vec<&str>) =
        request.stop.iter().map(String::as_str).partition(|stop| !stop.trim().is_empty());
    if !held_back.is_empty() {
        note(dropped, "stop of white space (the answer is cut there)");
    }
    (sent, held_back.into_iter().map(str::to_owned).collect())
}

fn output_config(request: &ChatRequest, dropped: &mut Vec<String>) -> Result<Option<Value>, Ineligible> {
    match &request.response_format {
        None | Some(ResponseFormat::Text | ResponseFormat::Other(_)) => Ok(None),
        // The API has no such mode. The prompt has to ask for JSON in any case, and validation checks it.
        Some(ResponseFormat::JsonObject) => {
            note(dropped, "response_format");
            Ok(None)
        }
        Some(ResponseFormat::JsonSchema { schema, .. }) => {
            note(dropped, "response_format.json_schema.name");
            match schema::fit(schema)? {
                Fitted::AnyObject => {
                    note(dropped, "response_format");
                    Ok(None)
                }
                Fitted::Schema { schema, stripped } => {
                    for keyword in stripped {
                        note(dropped, &format!("response_format.json_schema.schema: {keyword}"));
                    }
                    Ok(Some(json!({ "format": { "type": "json_schema", "schema": schema } })))
                }
            }
        }
    }
}

fn tool_choice(request: &ChatRequest, renamed: &Renamed, dropped: &mut Vec<String>) -> Option<Value> {
    if request.tools.is_empty() {
        if request.tool_choice.is_some() {
            note(dropped, "tool_choice");
        }
        if request.parallel_tool_calls.is_some() {
            note(dropped, "parallel_tool_calls");
        }
        return None;
    }
    let mut choice = match &request.tool_choice {
        Some(ToolChoice::Auto) => json!({ "type": "auto" }),
        Some(ToolChoice::None) => return Some(json!({ "type": "none" })),
        Some(ToolChoice::Required) => json!({ "type": "any" }),
        Some(ToolChoice::Function(name)) => json!({ "type": "tool", "name": renamed.written(name) }),
        Some(ToolChoice::Other(_)) | None if request.parallel_tool_calls == Some(false) => json!({ "type": "auto" }),
        Some(ToolChoice::Other(_)) | None => return None,
    };
    if request.parallel_tool_calls == Some(false) {
        choice["disable_parallel_tool_use"] = json!(true);
    }
    Some(choice)
}
