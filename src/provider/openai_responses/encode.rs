//! Turns a chat into the body of a response.

use crate::domain::decide::Ineligible;
use crate::domain::raw_object::RawObject;
use crate::domain::request::ToolChoice;
use crate::domain::{Capabilities, ChatRequest, ContentPart, Message, ResponseFormat, Role};
use crate::provider::conversation::{self, note, unsupported};
use crate::provider::model_habits;
use crate::provider::names::{self, NameRule, Renamed, Undo};
use crate::provider::openai::strict::is_strict;
use crate::provider::wire::WireRequest;
use serde_json::{Map, Value, json};

/// Where a body has its output cap.
const CAPS: &[&str] = &["max_output_tokens"];

/// The least output cap that the API takes.
const LEAST_CAP: i64 = 16;

/// Members that are the same in both APIs.
const SAME: &[&str] = &["metadata", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"];

pub(super) fn encode(
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    conversation::only_here(request)?;
    if request.response_format == Some(ResponseFormat::JsonObject) && !conversation::says_json(request) {
        return unsupported("json_object without the word JSON in the messages");
    }
    let mut dropped = request.unread.clone();
    conversation::note_model(request, model, &mut dropped);
    conversation::note_second_cap(request, &mut dropped);
    conversation::note_cache_marks(request, &mut dropped);
    let raw = RawObject::read(&request.raw).unwrap_or_default();
    let given = |name: &str| raw.given(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
    put("model", json!(model));
    // Without this the provider would store the response for thirty days.
    put("store", json!(false));

    let names = Renamed::of(NameRule::PLAIN, names::function_names(request));
    if !names.is_empty() {
        note(&mut dropped, conversation::NAMES_REWRITTEN);
    }
    let called = request.messages.iter().flat_map(|message| message.tool_calls.iter().map(|call| call.id.as_str()));
    let answered = request.messages.iter().filter_map(|message| message.tool_call_id.as_deref());
    let all: Vec<&str> = called.chain(answered).collect();
    let ids = Renamed::of(NameRule::up_to(64), all.iter().copied());
    let mut writing = Writing { names: &names, ids: &ids, dropped: &mut dropped };
    let mut messages = request.messages.as_slice();
    if let [first, rest @ ..] = messages
        && first.role == Role::System
        && !rest.is_empty()
        && first.content.iter().all(|part| matches!(part, ContentPart::Text(_)))
    {
        writing.note_name(first);
        put("instructions", json!(first.text()));
        messages = rest;
    }
    let mut input = Vec::with_capacity(messages.len());
    for message in messages {
        writing.message(message, &mut input)?;
    }
    put("input", Value::Array(input));

    let tools = tools(request, given("tools").as_ref(), &names, &mut dropped);
    if tools.is_empty() {
        for (name, is_lost) in [
            ("tool_choice", request.tool_choice.is_some()),
            ("parallel_tool_calls", request.parallel_tool_calls.is_some()),
        ] {
            if is_lost {
                note(&mut dropped, name);
            }
        }
    } else {
        put("tools", Value::Array(tools));
        match &request.tool_choice {
            Some(ToolChoice::Auto) => put("tool_choice", json!("auto")),
            Some(ToolChoice::None) => put("tool_choice", json!("none")),
            Some(ToolChoice::Required) => put("tool_choice", json!("required")),
            Some(ToolChoice::Function(name)) => {
                put("tool_choice", json!({ "type": "function", "name": names.written(name) }));
            }
            Some(ToolChoice::Other(_)) | None => {}
        }
        if let Some(parallel) = request.parallel_tool_calls {
            put("parallel_tool_calls", json!(parallel));
        }
    }

    let description = given("response_format").and_then(|form| form.pointer("/json_schema/description").cloned());
    if let Some(text) = text(request, description, given("verbosity"), &mut dropped) {
        put("text", text);
    }
    let cap = conversation::output_cap(request, capabilities, &mut dropped);
    if cap.is_some_and(|cap| cap < LEAST_CAP) {
        note(&mut dropped, &format!("max_tokens below {LEAST_CAP}"));
    }
    if let Some(cap) = cap {
        put("max_output_tokens", json!(cap.max(LEAST_CAP)));
    }
    if let Some(effort) = &request.reasoning_effort {
        put("reasoning", json!({ "effort": effort }));
    }
    let refuses = model_habits::of(model).refuses;
    for (name, value) in [("temperature", request.temperature), ("top_p", request.top_p)] {
        match value {
            Some(_) if capabilities.temperature == Some(false) || refuses.contains(&name) => note(&mut dropped, name),
            Some(value) => put(name, json!(value)),
            None => {}
        }
    }
    if let Some(asked) = conversation::logprobs_ask(request, refuses, true, &mut dropped) {
        put("include", json!(["message.output_text.logprobs"]));
        if let Some(top) = asked.top {
            put("top_logprobs", json!(top));
        }
    }
    if let Some(user) = &request.user {
        put("user", json!(user));
    }
    for name in SAME {
        if let Some(value) = given(name) {
            put(name, value);
            dropped.retain(|noted| noted != name && !noted.starts_with(&format!("{name}.")));
        }
    }
    let lost = [
        ("seed", request.seed.is_some()),
        ("top_k", request.top_k.is_some()),
        ("presence_penalty", request.presence_penalty.is_some()),
        ("frequency_penalty", request.frequency_penalty.is_some()),
        ("stop (the answer is cut there)", !request.stop.is_empty()),
        conversation::signatures(request),
    ];
    conversation::note_lost(&lost, &mut dropped);
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    let undo = Undo::of(&names, request.stop.clone());
    Ok(WireRequest { dropped, undo, ..WireRequest::post("/responses", CAPS, body) })
}

/// Writes messages as items of the input.
struct Writing<'a, 'b> {
    names: &'a Renamed,
    ids: &'a Renamed,
    dropped: &'b mut Vec<String>,
}

impl Writing<'_, '_> {
    fn note_name(&mut self, message: &Message) {
        if message.name.is_some() {
            note(self.dropped, "messages[].name");
        }
    }

    fn message(&mut self, message: &Message, input: &mut Vec<Value>) -> Result<(), Ineligible> {
        self.note_name(message);
        if message.role == Role::Tool {
            let id = self.ids.written(message.tool_call_id.as_deref().unwrap_or(""));
            let output = Self::content(message, "input_text")?;
            input.push(json!({ "type": "function_call_output", "call_id": id, "output": output }));
            return Ok(());
        }
        let (role, kind) = match message.role {
            Role::System => ("system", "input_text"),
            Role::User | Role::Tool => ("user", "input_text"),
            Role::Assistant => ("assistant", "output_text"),
        };
        if !message.content.is_empty() {
            let content = Self::content(message, kind)?;
            input.push(json!({ "role": role, "content": content }));
        }
        for call in &message.tool_calls {
            input.push(json!({ "type": "function_call", "call_id": self.ids.written(&call.id),
                "name": self.names.written(&call.name), "arguments": call.arguments }));
        }
        Ok(())
    }

    /// A text as it is; anything else as parts, whose type differs by the speaker.
    fn content(message: &Message, kind: &str) -> Result<Value, Ineligible> {
        if let [ContentPart::Text(text)] = message.content.as_slice() {
            return Ok(json!(text));
        }
        let mut parts = Vec::with_capacity(message.content.len());
        for part in &message.content {
            match part {
                ContentPart::Text(text) => parts.push(json!({ "type": kind, "text": text })),
                part if part.is_attached() && message.role == Role::Assistant => {
                    return unsupported(format!("{} in assistant messages", part.kind()));
                }
                ContentPart::Image { url, detail } => {
                    let detail = detail.as_deref().unwrap_or("auto");
                    parts.push(json!({ "type": "input_image", "image_url": url, "detail": detail }));
                }
                ContentPart::File { url, name } => {
                    let member = if url.starts_with("data:") { "file_data" } else { "file_url" };
                    let mut file = json!({ "type": "input_file", member: url });
                    if let Some(name) = name {
                        file["filename"] = json!(name);
                    }
                    parts.push(file);
                }
                ContentPart::Audio { .. } => return unsupported(ContentPart::AUDIO),
                // Refused earlier.
                ContentPart::Other(_) => {}
            }
        }
        Ok(if parts.is_empty() { json!("") } else { Value::Array(parts) })
    }
}

/// The tools, flat. `strict` has to be said, because the server enforces schemas unless it is told otherwise.
fn tools(request: &ChatRequest, raw: Option<&Value>, names: &Renamed, dropped: &mut Vec<String>) -> Vec<Value> {
    let mut tools = Vec::with_capacity(request.tools.len());
    for (index, tool) in request.tools.iter().enumerate() {
        let asked = raw.and_then(|raw| raw.pointer(&format!("/{index}/function/strict"))) == Some(&json!(true));
        let parameters = tool.parameters.clone().unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
        let strict = asked && is_strict(&parameters);
        if asked && !strict {
            note(dropped, "tools[].function.strict");
        } else {
            dropped.retain(|noted| noted != "tools[].function.strict");
        }
        let mut written = json!({ "type": "function", "name": names.written(&tool.name), "parameters": parameters,
            "strict": strict });
        if let Some(description) = &tool.description {
            written["description"] = json!(description);
        }
        tools.push(written);
    }
    tools
}

/// The form of the answer, and how long it is to be.
fn text(
    request: &ChatRequest,
    description: Option<Value>,
    verbosity: Option<Value>,
    dropped: &mut Vec<String>,
) -> Option<Value> {
    let mut text = Map::new();
    match &request.response_format {
        Some(ResponseFormat::JsonObject) => drop(text.insert("format".to_owned(), json!({ "type": "json_object" }))),
        Some(ResponseFormat::JsonSchema { name, schema, strict }) => {
            let enforced = *strict == Some(true) && is_strict(schema);
            if *strict == Some(true) && !enforced {
                note(dropped, "response_format.json_schema.strict");
            }
            let mut format = json!({ "type": "json_schema", "name": name, "schema": schema, "strict": enforced });
            if let Some(description) = description.filter(Value::is_string) {
                dropped.retain(|noted| noted != "response_format.json_schema.description");
                format["description"] = description;
            }
            text.insert("format".to_owned(), format);
        }
        Some(ResponseFormat::Text | ResponseFormat::Other(_)) | None => {}
    }
    if let Some(verbosity) = verbosity {
        dropped.retain(|noted| noted != "verbosity");
        text.insert("verbosity".to_owned(), verbosity);
    }
    (!text.is_empty()).then_some(Value::Object(text))
}
