//! Turns a request into an `/api/chat` body.

use crate::domain::decide::Ineligible;
use crate::domain::request::{Tool, ToolChoice};
use crate::domain::{Capabilities, ChatRequest, ContentPart, Message, ResponseFormat, Role};
use crate::provider::conversation::{self, note, unsupported};
use crate::provider::names::Undo;
use crate::provider::wire::WireRequest;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<MessageOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    think: Option<Value>,
    #[serde(skip_serializing_if = "Options::is_empty")]
    options: Options<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<i64>,
    /// Without it the server streams.
    stream: bool,
    /// Both would lose parts of the conversation without a word.
    truncate: bool,
    shift: bool,
}

#[derive(Serialize)]
struct MessageOut<'a> {
    role: &'static str,
    content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
}

#[derive(Serialize)]
struct CallOut<'a> {
    function: FunctionCall<'a>,
}

#[derive(Serialize)]
struct FunctionCall<'a> {
    name: &'a str,
    arguments: &'a RawValue,
}

#[derive(Serialize)]
struct ToolOut<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters: Value,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Format<'a> {
    Json(&'static str),
    Schema(&'a Value),
}

#[derive(PartialEq, Default, Serialize)]
struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    num_predict: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_ctx: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
}

impl Options<'_> {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a body has its output cap.
const CAPS: &[&str] = &["options.num_predict"];

pub(super) fn encode(
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    conversation::only_here(request)?;
    let mut dropped = request.unread.clone();
    conversation::note_model(request, model, &mut dropped);
    conversation::note_second_cap(request, &mut dropped);
    conversation::note_strict(request, &mut dropped);
    conversation::note_cache_marks(request, &mut dropped);
    let offers_tools = match &request.tool_choice {
        Some(ToolChoice::Required | ToolChoice::Function(_)) => {
            return unsupported(conversation::FORCED_CALL);
        }
        Some(ToolChoice::None) => {
            if !request.tools.is_empty() {
                note(&mut dropped, conversation::TOOLS_NOT_TO_BE_CALLED);
            }
            false
        }
        Some(ToolChoice::Auto | ToolChoice::Other(_)) | None => true,
    };
    let mut messages = Vec::with_capacity(request.messages.len());
    for index in in_order_of_calls(&request.messages, &mut dropped) {
        messages.push(message(&request.messages[index], &request.messages[..index], &mut dropped)?);
    }
    let tools = if offers_tools { request.tools.iter().map(tool).collect() } else { Vec::new() };
    let think = think(request, &mut dropped);
    let format = match &request.response_format {
        Some(ResponseFormat::JsonSchema { schema, .. }) => {
            note(&mut dropped, "response_format.json_schema.name");
            Some(Format::Schema(schema))
        }
        Some(ResponseFormat::JsonObject) => Some(Format::Json("json")),
        Some(ResponseFormat::Text | ResponseFormat::Other(_)) | None => None,
    };
    let lost = [
        ("user", request.user.is_some()),
        ("parallel_tool_calls", request.parallel_tool_calls.is_some()),
        conversation::signatures(request),
    ];
    conversation::note_lost(&lost, &mut dropped);
    let num_predict = conversation::needed_cap(request, capabilities, None, &mut dropped);
    let takes_sampling = capabilities.temperature != Some(false);
    let mut sampling = |name: &str, value: Option<f64>| {
        if value.is_some() && !takes_sampling {
            note(&mut dropped, name);
        }
        value.filter(|_| takes_sampling)
    };
    let options = Options {
        num_predict,
        // The server's own window depends on its memory; a request that does not fit into it would be refused.
        num_ctx: capabilities.context_window,
        temperature: sampling("temperature", request.temperature),
        top_p: sampling("top_p", request.top_p),
        top_k: request.top_k,
        seed: request.seed,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        stop: &request.stop,
    };
    // Servers before 0.12.11 do not know it, and answer without.
    let asked = conversation::logprobs_ask(request, &[], true, &mut dropped);
    let (logprobs, top_logprobs) = (asked.as_ref().map(|_| true), asked.and_then(|asked| asked.top));
    let body = Body {
        model,
        messages,
        tools,
        format,
        think,
        options,
        logprobs,
        top_logprobs,
        stream: false,
        truncate: false,
        shift: false,
    };
    let body = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    Ok(WireRequest { dropped, undo: Undo::default(), ..WireRequest::post("/api/chat", CAPS, body) })
}

/// The places of the messages in the order in which they are sent: results that follow each other go in the order of
/// the calls that they answer, because a model without ids tells results of one function apart by their places. Where a
/// call has no result there, or a result no call, the places tell it nothing: then it is noted that the ids are lost.
fn in_order_of_calls(messages: &[Message], dropped: &mut Vec<String>) -> Vec<usize> {
    let mut places: Vec<usize> = Vec::with_capacity(messages.len());
    let is_result = |message: &Message| message.role == Role::Tool;
    for group in messages.chunk_by(|before, after| is_result(before) && is_result(after)) {
        let first = places.len();
        let mut open: Vec<Option<&str>> = Vec::new();
        if group.first().is_some_and(is_result) {
            let calls =
                messages[..first].iter().rev().map(|message| &message.tool_calls).find(|calls| !calls.is_empty());
            open.extend(calls.into_iter().flatten().map(|call| Some(call.id.as_str())));
        }
        let mut ordered: Vec<(usize, usize)> = Vec::with_capacity(group.len());
        for (offset, message) in group.iter().enumerate() {
            let id = message.tool_call_id.as_deref().unwrap_or_default();
            let place = open.iter().position(|call| *call == Some(id));
            if let Some(answered) = place.and_then(|place| open.get_mut(place)) {
                *answered = None;
            }
            ordered.push((place.unwrap_or(usize::MAX), first + offset));
        }
        let is_matched = ordered.iter().all(|(place, _)| *place != usize::MAX) && open.iter().all(Option::is_none);
        if is_result(&messages[first]) && !is_matched {
            note(dropped, "messages[].tool_call_id");
        }
        if !ordered.is_sorted() {
            ordered.sort_unstable();
            note(dropped, conversation::RESULTS_ORDERED);
        }
        places.extend(ordered.into_iter().map(|(_, index)| index));
    }
    places
}

fn message<'a>(
    message: &'a Message,
    earlier: &'a [Message],
    dropped: &mut Vec<String>,
) -> Result<MessageOut<'a>, Ineligible> {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    if message.name.is_some() && message.role != Role::Tool {
        note(dropped, "messages[].name");
    }
    let mut images = Vec::new();
    for part in &message.content {
        let ContentPart::Image { url, detail } = part else {
            conversation::no_attachment(part)?;
            continue;
        };
        if detail.as_deref().is_some_and(|detail| detail != "auto") {
            note(dropped, "messages[].content[].image_url.detail");
        }
        match conversation::data_url(url) {
            Some((_, data)) => images.push(data),
            None => return unsupported("images by web address"),
        }
    }
    // A server puts all images before the one text. Those that all stand on one side of the text are still told apart.
    let kinds = message.content.chunk_by(|before, after| is_text(before) == is_text(after)).count();
    if kinds > 2 {
        note(dropped, "messages[].content[].image_url: its place among the texts");
    }
    if message.content.iter().filter(|part| is_text(part)).count() > 1 {
        note(dropped, "messages[].content[] as one text");
    }
    let tool_calls = message
        .tool_calls
        .iter()
        .map(|call| {
            let arguments = conversation::call_arguments(&call.arguments)?;
            Ok(CallOut { function: FunctionCall { name: &call.name, arguments } })
        })
        .collect::<Result<_, Ineligible>>()?;
    // Calls have no ids here: a result names its function.
    let tool_name = match (message.role, message.tool_call_id.as_deref()) {
        (Role::Tool, id) => match conversation::called(earlier, id.unwrap_or("")).or(message.name.as_deref()) {
            None => return unsupported("a tool result whose call is not in the conversation"),
            name => name,
        },
        _ => None,
    };
    Ok(MessageOut { role, content: message.text(), images, tool_calls, tool_name })
}

fn is_text(part: &ContentPart) -> bool {
    matches!(part, ContentPart::Text(_))
}

fn tool(tool: &Tool) -> ToolOut<'_> {
    let parameters = tool.parameters.clone().unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
    let description = tool.description.as_deref();
    ToolOut { kind: "function", function: Function { name: &tool.name, description, parameters } }
}

/// How much the model is to think. A model that does not think answers a level with an error, and the next rung takes
/// over.
fn think(request: &ChatRequest, dropped: &mut Vec<String>) -> Option<Value> {
    Some(match request.reasoning_effort.as_deref()? {
        "none" => json!(false),
        level @ ("low" | "medium" | "high" | "max") => json!(level),
        "minimal" => {
            note(dropped, "reasoning_effort minimal as low");
            json!("low")
        }
        "xhigh" => {
            note(dropped, "reasoning_effort xhigh as max");
            json!("max")
        }
        _ => {
            note(dropped, "reasoning_effort");
            return None;
        }
    })
}
