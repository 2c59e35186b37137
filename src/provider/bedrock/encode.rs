//! Turns a request into a Converse body.

use crate::domain::decide::Ineligible;
use crate::domain::request::{Tool, ToolChoice};
use crate::domain::{Capabilities, ChatRequest, ContentPart, ResponseFormat};
use crate::provider::anthropic::schema::{self, Fitted};
use crate::provider::conversation::{self, Blank, Conversation, Item, Speaker, note, unsupported};
use crate::provider::effort::{self, ToClaude};
use crate::provider::model_habits::{Claude, is_nova};
use crate::provider::names::{self, NameRule, Renamed, Undo};
use crate::provider::wire::{WireRequest, path_segment};
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, VecDeque};

/// Where a body has its output cap.
const CAPS: &[&str] = &["inferenceConfig.maxTokens"];

/// The suffix of the path of a call for a stream.
pub(super) const STREAMED: &str = "-stream";

pub(super) fn encode(
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    let claude = Claude::of(model);
    let Conversation { system, turns, mut dropped } = Conversation::of(request, Blank::Refused)?;
    conversation::note_model(request, model, &mut dropped);
    conversation::note_second_cap(request, &mut dropped);
    conversation::note_strict(request, &mut dropped);
    let mut points = CachePoints::of(model);
    if points.keeps {
        conversation::note_lost(&[("cache_control", request.cache_control.is_some())], &mut dropped);
    } else {
        conversation::note_cache_marks(request, &mut dropped);
    }
    // The last ones first: too many are an error, and the longest beginning saves most.
    let marks: Vec<_> = turns.iter().flat_map(|turn| turn.items.iter().map(mark_of)).collect();
    let mut points_in_turns = points.at(&marks, &mut dropped).into_iter();
    let marks: Vec<_> = system.iter().map(|(_, mark)| *mark).collect();
    let points_in_system = points.at(&marks, &mut dropped);
    let points_in_tools = points.at_tools(&request.tools, &mut dropped);
    let names = Renamed::of(NameRule::PLAIN, names::function_names(request));
    if !names.is_empty() {
        note(&mut dropped, conversation::NAMES_REWRITTEN);
    }
    let id_of = |item: &'_ Item<'_>| match item {
        Item::Call { id, .. } | Item::Result { id, .. } => Some(id.to_string()),
        Item::Text { .. } | Item::Image { .. } | Item::File { .. } | Item::Audio { .. } => None,
    };
    let all: Vec<String> = turns.iter().flat_map(|turn| turn.items.iter().filter_map(id_of)).collect();
    let ids = Renamed::of(NameRule::PLAIN, all.iter().map(String::as_str));
    let mut messages = Vec::with_capacity(turns.len());
    for turn in &turns {
        let role = match turn.speaker {
            Speaker::User => "user",
            Speaker::Model => "assistant",
        };
        let mut content = Vec::with_capacity(turn.items.len());
        for item in &turn.items {
            content.push(block(item, &names, &ids, &mut dropped)?);
            content.extend(points_in_turns.next().flatten());
        }
        let has_file = turn.items.iter().any(|item| matches!(item, Item::File { .. }));
        if has_file && !turn.items.iter().any(|item| matches!(item, Item::Text { .. })) {
            return unsupported("files without words beside them");
        }
        messages.push(json!({ "role": role, "content": content }));
    }
    tell_documents_apart(&mut messages);
    let mut body = Map::new();
    body.insert("messages".to_owned(), Value::Array(messages));
    if !system.is_empty() {
        let texts = system.iter().map(|(text, _)| json!({ "text": text }));
        let system = texts.zip(points_in_system).flat_map(|(text, point)| [Some(text), point]);
        body.insert("system".to_owned(), Value::Array(system.flatten().collect()));
    }
    let told = match claude {
        Some(_) => {
            let cap = request.max_tokens.or(capabilities.max_output_tokens).unwrap_or(USUAL_CAP);
            ToClaude::of(request, claude, cap, &mut dropped)
        }
        None => ToClaude::default(),
    };
    // What thinks takes no sampling parameters.
    let takes_sampling = if told.thinks() { Some(false) } else { capabilities.temperature };
    let capabilities = &Capabilities { temperature: takes_sampling, ..capabilities.clone() };
    let (config, held_back) = inference_config(request, claude, capabilities, &mut dropped);
    if !config.is_empty() {
        body.insert("inferenceConfig".to_owned(), Value::Object(config));
    }
    if let Some(tools) = tool_config(request, &names, points_in_tools, !all.is_empty(), claude, &mut dropped)? {
        body.insert("toolConfig".to_owned(), tools);
    }
    if let Some(format) = output_config(request, claude, capabilities, &mut dropped)? {
        body.insert("outputConfig".to_owned(), format);
    }
    let more = additional_fields(request, model, claude, told, &mut dropped);
    if !more.is_empty() {
        body.insert("additionalModelRequestFields".to_owned(), Value::Object(more));
    }
    let lost = [
        ("seed", request.seed.is_some()),
        ("presence_penalty", request.presence_penalty.is_some()),
        ("frequency_penalty", request.frequency_penalty.is_some()),
        ("user", request.user.is_some()),
        ("parallel_tool_calls", request.parallel_tool_calls.is_some()),
        conversation::signatures(request),
    ];
    conversation::note_lost(&lost, &mut dropped);
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    let undo = Undo::of(&names, held_back);
    let path = format!("/model/{}/converse", path_segment(model));
    Ok(WireRequest { dropped, undo, ..WireRequest::post(path, CAPS, body) })
}

/// The output cap by which a budget for thinking is chosen where none is known.
const USUAL_CAP: i64 = 4096;

/// The most points of a prompt up to which it is kept.
const MOST_CACHE_POINTS: usize = 4;

/// The points up to which a prompt is kept, as far as its model knows them.
struct CachePoints {
    keeps: bool,
    keeps_an_hour: bool,
    keeps_tools: bool,
    /// How many may still be set.
    left: usize,
}

impl CachePoints {
    fn of(model: &str) -> Self {
        let claude = Claude::of(model).filter(|claude| claude.is_kept_by_bedrock());
        Self {
            keeps: claude.is_some() || is_nova(model),
            keeps_an_hour: claude.is_some_and(Claude::is_kept_for_an_hour_by_bedrock),
            keeps_tools: claude.is_some(),
            left: MOST_CACHE_POINTS,
        }
    }

    /// A point for each of the marks, the last ones first; `None` where there is no mark, or none that can be set.
    fn at(&mut self, marks: &[Option<&Value>], dropped: &mut Vec<String>) -> Vec<Option<Value>> {
        let mut points: Vec<Option<Value>> = marks.iter().rev().map(|mark| self.point((*mark)?, dropped)).collect();
        points.reverse();
        points
    }

    fn at_tools(&mut self, tools: &[Tool], dropped: &mut Vec<String>) -> Vec<Option<Value>> {
        if self.keeps && !self.keeps_tools {
            let is_marked = tools.iter().any(|tool| tool.cache_control.is_some());
            conversation::note_lost(&[("tools[].cache_control", is_marked)], dropped);
            return vec![None; tools.len()];
        }
        let marks: Vec<_> = tools.iter().map(|tool| tool.cache_control.as_ref()).collect();
        self.at(&marks, dropped)
    }

    fn point(&mut self, mark: &Value, dropped: &mut Vec<String>) -> Option<Value> {
        if !self.keeps {
            return None;
        }
        if mark.get("type").is_none_or(|kind| kind != "ephemeral") {
            note(dropped, "cache_control of another type than ephemeral");
            return None;
        }
        let mut point = json!({ "type": "default" });
        match mark.get("ttl").map(Value::as_str) {
            None | Some(Some("5m")) => {}
            Some(Some("1h")) if self.keeps_an_hour => point["ttl"] = json!("1h"),
            Some(Some("1h")) => note(dropped, "cache_control for an hour (the model keeps it for five minutes)"),
            Some(_) => {
                note(dropped, "cache_control for another time than 5m and 1h");
                return None;
            }
        }
        if self.left == 0 {
            note(dropped, &format!("cache_control beyond {MOST_CACHE_POINTS}"));
            return None;
        }
        self.left -= 1;
        Some(json!({ "cachePoint": point }))
    }
}

/// The mark on a piece of a turn. One inside a tool's result counts for the whole of it.
fn mark_of<'a>(item: &Item<'a>) -> Option<&'a Value> {
    match item {
        Item::Text { cache, .. }
        | Item::Image { cache, .. }
        | Item::File { cache, .. }
        | Item::Audio { cache, .. }
        | Item::Call { cache, .. } => *cache,
        Item::Result { message, cache, .. } => cache.or_else(|| message.cache_marks.values().next_back()),
    }
}

fn block(item: &Item<'_>, names: &Renamed, ids: &Renamed, dropped: &mut Vec<String>) -> Result<Value, Ineligible> {
    Ok(match item {
        Item::Text { text, .. } => json!({ "text": text }),
        Item::Image { url, .. } => image(url)?,
        Item::File { url, name, .. } => document(url, *name, dropped)?,
        Item::Audio { .. } => return unsupported(ContentPart::AUDIO),
        Item::Call { call, id, .. } => {
            let input = conversation::call_arguments(&call.arguments)?;
            json!({ "toolUse": { "toolUseId": ids.written(id), "name": names.written(&call.name), "input": input } })
        }
        Item::Result { message, id, .. } => {
            let mut content = Vec::with_capacity(message.content.len());
            for part in &message.content {
                match part {
                    ContentPart::Text(text) if conversation::is_said(text, Blank::Refused) => {
                        content.push(json!({ "text": text }));
                    }
                    ContentPart::Text(text) if text.is_empty() => {}
                    ContentPart::Text(_) => note(dropped, conversation::BLANK_TEXT),
                    ContentPart::Image { url, .. } => content.push(image(url)?),
                    ContentPart::File { url, name } => content.push(document(url, name.as_deref(), dropped)?),
                    ContentPart::Audio { .. } => return unsupported(ContentPart::AUDIO),
                    // Refused earlier.
                    ContentPart::Other(_) => {}
                }
            }
            json!({ "toolResult": { "toolUseId": ids.written(id), "content": content, "status": "success" } })
        }
    })
}

/// Images are not fetched: they come along, or from a bucket that the request cannot name.
fn image(url: &str) -> Result<Value, Ineligible> {
    let Some((given, data)) = conversation::data_url(url) else { return unsupported("images by web address") };
    let kind = conversation::image_type(given, data);
    let Some(format) = kind.strip_prefix("image/").filter(|kind| ["png", "jpeg", "gif", "webp"].contains(kind)) else {
        return unsupported(format!("images of type {}", kind.chars().take(40).collect::<String>()));
    };
    Ok(json!({ "image": { "format": format, "source": { "bytes": data } } }))
}

/// A document by the word for its type, under a name of the characters that are allowed in one.
fn document(url: &str, name: Option<&str>, dropped: &mut Vec<String>) -> Result<Value, Ineligible> {
    let (kind, data) = conversation::file_along(url)?;
    let Some((_, format)) = DOCUMENTS.iter().find(|(of, _)| *of == kind) else {
        return conversation::file_type_refused(&kind);
    };
    let given = name;
    let stem = name.map_or("document", |name| name.rsplit_once('.').map_or(name, |(stem, _)| stem));
    let is_allowed = |letter: &char| letter.is_ascii_alphanumeric() || " -()[]".contains(*letter);
    let name: String = stem.chars().map(|letter| if is_allowed(&letter) { letter } else { '-' }).take(200).collect();
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let name = if name.is_empty() { "document" } else { name.as_str() };
    // The ending is the format.
    if given.is_some() && name != stem {
        note(dropped, "messages[].content[].file.filename in letters that Bedrock takes");
    }
    Ok(json!({ "document": { "format": format, "name": name, "source": { "bytes": data } } }))
}

/// No two documents of a request may have one name: later ones get a number.
fn tell_documents_apart(messages: &mut [Value]) {
    let mut taken = BTreeSet::new();
    let contents = messages.iter_mut().filter_map(|message| message["content"].as_array_mut());
    let mut blocks: VecDeque<&mut Value> = contents.flatten().collect();
    while let Some(block) = blocks.pop_front() {
        if block.get("toolResult").is_some() {
            blocks.extend(block.pointer_mut("/toolResult/content").and_then(Value::as_array_mut).into_iter().flatten());
            continue;
        }
        let Some(Value::String(name)) = block.pointer_mut("/document/name") else { continue };
        let first = name.clone();
        let mut number = 2_usize;
        while !taken.insert(name.clone()) {
            *name = format!("{first} {number}");
            number = number.saturating_add(1);
        }
    }
}

/// The types of documents, and its words for them.
const DOCUMENTS: [(&str, &str); 9] = [
    ("application/pdf", "pdf"),
    ("text/csv", "csv"),
    ("application/msword", "doc"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ("text/html", "html"),
    ("text/plain", "txt"),
    ("text/markdown", "md"),
];

/// The parameters, and the stop sequences of white space, at which the answer is cut afterwards.
fn inference_config(
    request: &ChatRequest,
    claude: Option<Claude>,
    capabilities: &Capabilities,
    dropped: &mut Vec<String>,
) -> (Map<String, Value>, Vec<String>) {
    let mut config = Map::new();
    let mut put = |name: &str, value: Value| drop(config.insert(name.to_owned(), value));
    if let Some(cap) = conversation::needed_cap(request, capabilities, None, dropped) {
        put("maxTokens", json!(cap));
    }
    let defaults_only = match capabilities.temperature {
        Some(takes) => !takes,
        None => claude.is_some_and(Claude::samples_by_default_only),
    };
    let (mut temperature, mut top_p) = (request.temperature, request.top_p);
    for (name, value) in [("temperature", &mut temperature), ("top_p", &mut top_p)] {
        if defaults_only && value.take().is_some() {
            note(dropped, name);
        }
    }
    if temperature.is_some_and(|temperature| temperature > 1.0) {
        note(dropped, "temperature above 1");
        temperature = Some(1.0);
    }
    // Its models take one of the two.
    if claude.is_some() && temperature.is_some() && top_p.take().is_some() {
        note(dropped, "top_p");
    }
    if let Some(temperature) = temperature {
        put("temperature", json!(temperature));
    }
    if let Some(top_p) = top_p {
        put("topP", json!(top_p));
    }
    let (sent, held_back): (Vec<&String>, Vec<&String>) = request.stop.iter().partition(|stop| !stop.trim().is_empty());
    if !held_back.is_empty() {
        note(dropped, "stop of white space (the answer is cut there)");
    }
    if !sent.is_empty() {
        put("stopSequences", json!(sent));
    }
    (config, held_back.into_iter().cloned().collect())
}

/// The tools. There is no way to offer some and forbid them, and a history with calls needs them.
fn tool_config(
    request: &ChatRequest,
    names: &Renamed,
    points: Vec<Option<Value>>,
    has_history: bool,
    claude: Option<Claude>,
    dropped: &mut Vec<String>,
) -> Result<Option<Value>, Ineligible> {
    if request.tools.is_empty() {
        if has_history {
            return unsupported("earlier tool calls without tools");
        }
        if request.tool_choice.is_some() {
            note(dropped, "tool_choice");
        }
        return Ok(None);
    }
    let choice = match &request.tool_choice {
        Some(ToolChoice::None) if has_history => return unsupported("tool_choice none after tool calls"),
        Some(ToolChoice::None) => {
            note(dropped, conversation::TOOLS_NOT_TO_BE_CALLED);
            return Ok(None);
        }
        Some(ToolChoice::Required | ToolChoice::Function(_)) if claude.is_some_and(Claude::refuses_forced_tools) => {
            return unsupported(conversation::FORCED_CALL);
        }
        Some(ToolChoice::Required) => Some(json!({ "any": {} })),
        Some(ToolChoice::Function(name)) => Some(json!({ "tool": { "name": names.written(name) } })),
        Some(ToolChoice::Auto) => Some(json!({ "auto": {} })),
        Some(ToolChoice::Other(_)) | None => None,
    };
    let tools = request.tools.iter().map(|tool| self::tool(tool, names)).zip(points);
    let tools: Vec<Value> = tools.flat_map(|(tool, point)| [Some(tool), point]).flatten().collect();
    let mut config = json!({ "tools": tools });
    if let Some(choice) = choice {
        config["toolChoice"] = choice;
    }
    Ok(Some(config))
}

fn tool(tool: &Tool, names: &Renamed) -> Value {
    let schema = tool.parameters.clone().unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
    let mut spec = json!({ "name": names.written(&tool.name), "inputSchema": { "json": schema } });
    if let Some(description) = tool.description.as_ref().filter(|description| !description.is_empty()) {
        spec["description"] = json!(description);
    }
    json!({ "toolSpec": spec })
}

/// The form of the answer. The schema is a text here.
fn output_config(
    request: &ChatRequest,
    claude: Option<Claude>,
    capabilities: &Capabilities,
    dropped: &mut Vec<String>,
) -> Result<Option<Value>, Ineligible> {
    let (name, schema) = match &request.response_format {
        // There is no such mode. The prompt has to ask for JSON in any case, and validation checks it.
        Some(ResponseFormat::JsonObject) => {
            note(dropped, "response_format");
            return Ok(None);
        }
        Some(ResponseFormat::JsonSchema { name, schema, .. }) => (name, schema),
        Some(ResponseFormat::Text | ResponseFormat::Other(_)) | None => return Ok(None),
    };
    if capabilities.json_schema.is_none() && claude.is_some_and(|claude| !claude.has_json_schema()) {
        return unsupported("json_schema");
    }
    let schema = if claude.is_none() {
        schema.clone()
    } else {
        match schema::fit(schema)? {
            Fitted::AnyObject => {
                note(dropped, "response_format");
                return Ok(None);
            }
            Fitted::Schema { schema, stripped } => {
                for keyword in stripped {
                    note(dropped, &format!("response_format.json_schema.schema: {keyword}"));
                }
                schema
            }
        }
    };
    let form = json!({ "schema": schema.to_string(), "name": name });
    Ok(Some(json!({ "textFormat": { "type": "json_schema", "structure": { "jsonSchema": form } } })))
}

/// Members that only some models know.
fn additional_fields(
    request: &ChatRequest,
    model: &str,
    claude: Option<Claude>,
    told: ToClaude,
    dropped: &mut Vec<String>,
) -> Map<String, Value> {
    let mut more = Map::new();
    match request.top_k {
        Some(top_k)
            if top_k > 0 && !told.thinks() && claude.is_some_and(|claude| !claude.samples_by_default_only()) =>
        {
            more.insert("top_k".to_owned(), json!(top_k));
        }
        Some(_) => note(dropped, "top_k"),
        None => {}
    }
    let mut put = |name: &str, value: Option<Value>| {
        more.extend(value.map(|value| (name.to_owned(), value)));
    };
    if model.contains("openai.") {
        put("reasoning_effort", request.reasoning_effort.as_ref().map(|effort| json!(effort)));
    } else if claude.is_some() {
        put("thinking", told.thinking);
        put("output_config", told.effort.map(|effort| json!({ "effort": effort })));
    } else {
        put("reasoningConfig", effort::to_nova(request, model, dropped));
    }
    more
}
