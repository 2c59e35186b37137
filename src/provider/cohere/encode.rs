//! Turns a request into a `/v2/chat` body.

use crate::domain::decide::Ineligible;
use crate::domain::request::{Tool, ToolChoice};
use crate::domain::{Capabilities, ChatRequest, ContentPart, Message, ResponseFormat, Role};
use crate::provider::conversation::{self, Blank, note, unsupported};
use crate::provider::effort;
use crate::provider::names::{self, NameRule, Renamed, Undo};
use crate::provider::wire::WireRequest;
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    stream: bool,
    messages: Vec<MessageOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<i64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
}

#[derive(Serialize)]
struct MessageOut<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    content: Vec<Part<'a>>,
    /// What the model said beside its calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_plan: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: Image<'a> },
}

#[derive(Serialize)]
struct Image<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// Where a body has its output cap.
const CAPS: &[&str] = &["max_tokens"];

/// The most stop sequences of a request.
const MOST_STOPS: usize = 5;

pub(super) fn encode(
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    conversation::only_here(request)?;
    let wants_form =
        matches!(request.response_format, Some(ResponseFormat::JsonObject | ResponseFormat::JsonSchema { .. }));
    if wants_form && conversation::offers_tools(request) {
        return unsupported("tools together with a response schema");
    }
    let mut dropped = request.unread.clone();
    conversation::note_model(request, model, &mut dropped);
    conversation::note_second_cap(request, &mut dropped);
    conversation::note_strict(request, &mut dropped);
    conversation::note_cache_marks(request, &mut dropped);
    let renamed = Renamed::of(NameRule::PLAIN, names::function_names(request));
    if !renamed.is_empty() {
        note(&mut dropped, conversation::NAMES_REWRITTEN);
    }
    let mut messages = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        messages.extend(self::message(message, &renamed, &mut dropped)?);
    }
    if messages.is_empty() {
        return unsupported("a conversation without words");
    }
    // Tools and a form do not go together. Where no tool may be called, none needs to be offered.
    let tools: &[Tool] = if wants_form { &[] } else { &request.tools };
    if tools.len() < request.tools.len() {
        note(&mut dropped, conversation::TOOLS_NOT_TO_BE_CALLED);
    }
    let tool_choice = match &request.tool_choice {
        Some(ToolChoice::Function(_)) => return unsupported(conversation::FORCED_CALL),
        Some(_) if tools.is_empty() => {
            note(&mut dropped, "tool_choice");
            None
        }
        Some(ToolChoice::Required) => Some("REQUIRED"),
        Some(ToolChoice::None) => Some("NONE"),
        Some(ToolChoice::Auto | ToolChoice::Other(_)) | None => None,
    };
    let response_format = match &request.response_format {
        Some(ResponseFormat::JsonObject) => Some(json!({ "type": "json_object" })),
        Some(ResponseFormat::JsonSchema { schema, .. }) => {
            note(&mut dropped, "response_format.json_schema.name");
            Some(json!({ "type": "json_object", "json_schema": schema }))
        }
        Some(ResponseFormat::Text | ResponseFormat::Other(_)) | None => None,
    };
    let thinking = effort::to_cohere(request, model, &mut dropped);
    let lost = [
        ("user", request.user.is_some()),
        ("parallel_tool_calls", request.parallel_tool_calls.is_some()),
        conversation::signatures(request),
    ];
    conversation::note_lost(&lost, &mut dropped);
    let (stop_sequences, held_back) = request.stop.split_at(request.stop.len().min(MOST_STOPS));
    if !held_back.is_empty() {
        note(&mut dropped, &conversation::stops_beyond(MOST_STOPS));
    }
    let logprobs = conversation::logprobs_ask(request, &[], false, &mut dropped).map(|_| true);
    let max_tokens = conversation::output_cap(request, capabilities, &mut dropped);
    let takes_sampling = capabilities.temperature != Some(false);
    let mut within = |name: &str, value: Option<f64>, least: f64, most: f64| {
        let value = value?;
        if !takes_sampling {
            note(&mut dropped, name);
            return None;
        }
        let clamped = value.clamp(least, most);
        if clamped.total_cmp(&value).is_ne() {
            note(&mut dropped, &format!("{name} as {clamped}"));
        }
        Some(clamped)
    };
    let body = Body {
        model,
        stream: false,
        messages,
        tools: tools.iter().map(|tool| self::tool(tool, &renamed)).collect(),
        tool_choice,
        response_format,
        thinking,
        max_tokens,
        stop_sequences,
        temperature: within("temperature", request.temperature, 0.0, 2.0),
        p: within("top_p", request.top_p, 0.01, 0.99),
        frequency_penalty: within("frequency_penalty", request.frequency_penalty, 0.0, 1.0),
        presence_penalty: within("presence_penalty", request.presence_penalty, 0.0, 1.0),
        k: request.top_k.filter(|top_k| (0..=500).contains(top_k)),
        seed: request.seed.filter(|seed| *seed >= 0),
        logprobs,
    };
    for (name, is_lost) in [("top_k", body.k != request.top_k), ("seed", body.seed != request.seed)] {
        if is_lost {
            note(&mut dropped, name);
        }
    }
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    let undo = Undo::of(&renamed, held_back.to_vec());
    Ok(WireRequest { dropped, undo, ..WireRequest::post("/chat", CAPS, body) })
}

/// A message; `None` for one that says nothing, which the API rejects.
fn message<'a>(
    message: &'a Message,
    renamed: &Renamed,
    dropped: &mut Vec<String>,
) -> Result<Option<MessageOut<'a>>, Ineligible> {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    if message.name.is_some() {
        note(dropped, "messages[].name");
    }
    let mut content = Vec::with_capacity(message.content.len());
    for part in &message.content {
        match part {
            ContentPart::Text(text) if conversation::is_said(text, Blank::Refused) => content.push(Part::Text { text }),
            ContentPart::Text(text) if text.is_empty() => {}
            ContentPart::Text(_) => note(dropped, conversation::BLANK_TEXT),
            ContentPart::Image { .. } if message.role != Role::User => {
                return unsupported("images outside of the user's messages");
            }
            ContentPart::Image { url, detail } => {
                content.push(Part::ImageUrl { image_url: Image { url, detail: detail.as_deref() } });
            }
            ContentPart::File { .. } | ContentPart::Audio { .. } | ContentPart::Other(_) => {
                conversation::no_attachment(part)?;
            }
        }
    }
    let tool_calls: Vec<Value> = message
        .tool_calls
        .iter()
        .map(|call| {
            let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
            let function = json!({ "name": renamed.written(&call.name), "arguments": arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        })
        .collect();
    if message.role == Role::Tool {
        // A result may be empty, and still belongs to its call.
        if content.is_empty() {
            note(dropped, "messages[].content of an empty result as null");
            content.push(Part::Text { text: "null" });
        }
    } else if content.is_empty() && tool_calls.is_empty() {
        return Ok(None);
    }
    let tool_plan = (!tool_calls.is_empty() && !content.is_empty()).then(|| message.text());
    if tool_plan.is_some() {
        content.clear();
    }
    let tool_call_id = message.tool_call_id.as_deref();
    Ok(Some(MessageOut { role, content, tool_plan, tool_calls, tool_call_id }))
}

fn tool(tool: &Tool, renamed: &Renamed) -> Value {
    let mut function = json!({ "name": renamed.written(&tool.name) });
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    function["parameters"] = tool.parameters.clone().unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
    json!({ "type": "function", "function": function })
}
