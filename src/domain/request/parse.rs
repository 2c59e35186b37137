//! Reading a request's JSON: every fault is named by its field and by what was expected there.

use super::field::{Field, Members, boolean, deeper_than, shown, string, text};
use super::{ChatRequest, ContentPart, Message, RequestError, ResponseFormat, Role, Tool, ToolChoice};
use crate::domain::ToolCall;
use crate::domain::json_schema::Schema;
use serde_json::{Map, Value};

/// How deep a body may be nested: the JSON parser allows no more, so a deeper value never came from a text.
const MAX_DEPTH: usize = 128;

/// Output caps above this are a mistake, not a wish.
const MOST_OUTPUT_TOKENS: i64 = 1_000_000_000;

impl ChatRequest {
    /// Reads an OpenAI chat-completions body, or `{"prompt": "…"}` as short for one user message.
    ///
    /// A member that is `null` counts as absent. `model`, `stream` and `stream_options` are dropped: the route
    /// decides on them. A JSON schema in `response_format` is compiled to check it. The deprecated `functions` and
    /// `function_call` become tools; the id of such a call is its function's name.
    ///
    /// # Errors
    /// The first fault, with the path of its field; never quotes more than one short word of the body.
    pub fn parse(body: &Value) -> Result<Self, RequestError> {
        Self::parse_with_schema(body).map(|(request, _)| request)
    }

    /// As [`ChatRequest::parse`], and keeps the compiled schema of `response_format`, which validation needs later.
    ///
    /// # Errors
    /// As [`ChatRequest::parse`].
    pub fn parse_with_schema(body: &Value) -> Result<(Self, Option<Schema>), RequestError> {
        let request = read(&Field::root(body))?;
        let schema = request.compile_schema()?;
        Ok((request, schema))
    }

    /// Compiles the JSON schema that the request demands of its answer, if it demands one.
    ///
    /// # Errors
    /// Names `response_format.json_schema.schema` and what is wrong with it.
    pub fn compile_schema(&self) -> Result<Option<Schema>, RequestError> {
        match &self.response_format {
            Some(ResponseFormat::JsonSchema { schema, .. }) => {
                Schema::compile(schema).map(Some).map_err(|reason| RequestError {
                    field: "response_format.json_schema.schema".to_owned(),
                    reason: format!("expected a JSON schema: {reason}"),
                })
            }
            Some(ResponseFormat::Text | ResponseFormat::JsonObject) | None => Ok(None),
        }
    }
}

fn read(body: &Field<'_>) -> Result<ChatRequest, RequestError> {
    if deeper_than(body.value, MAX_DEPTH) {
        return body.fault(format_args!("expected at most {MAX_DEPTH} levels of nesting"));
    }
    let mut members = body.members()?;
    // Routing and streaming are not the request's business.
    for dropped in ["model", "stream", "stream_options"] {
        members.take(dropped);
    }
    members.read("n", only_one_answer)?;
    let tools = read_tools(&mut members)?;
    Ok(ChatRequest {
        messages: read_conversation(&mut members, body)?,
        max_tokens: read_output_cap(&mut members)?,
        temperature: members.read("temperature", |field| field.number(0.0, 2.0))?,
        top_p: members.read("top_p", |field| field.number(0.0, 1.0))?,
        stop: members.read("stop", read_stop)?.unwrap_or_default(),
        seed: members.read("seed", |field| field.integer(i64::MIN, i64::MAX))?,
        presence_penalty: members.read("presence_penalty", |field| field.number(-2.0, 2.0))?,
        frequency_penalty: members.read("frequency_penalty", |field| field.number(-2.0, 2.0))?,
        response_format: members.read("response_format", read_format)?,
        tool_choice: read_tool_choice(&mut members, &tools)?,
        tools,
        reasoning_effort: members.read("reasoning_effort", read_effort)?,
        extra: members.rest(),
    })
}

fn only_one_answer(n: &Field<'_>) -> Result<(), RequestError> {
    n.integer(1, 1).map(|_| ()).or_else(|_| n.expected("1, as a job has one answer (enqueue one job for each)"))
}

fn read_conversation(members: &mut Members<'_>, body: &Field<'_>) -> Result<Vec<Message>, RequestError> {
    match (members.take("messages"), members.take("prompt")) {
        (Some(_), Some(prompt)) => prompt.fault("expected either `messages` or `prompt`, found both"),
        (None, None) => body.fault("expected `messages`, or `prompt` as short for one user message, found neither"),
        (None, Some(prompt)) => {
            let content = vec![ContentPart::Text(string(&prompt)?)];
            Ok(vec![Message { role: Role::User, content, tool_calls: Vec::new(), tool_call_id: None, name: None }])
        }
        (Some(list), None) => {
            let messages = list.each(read_message)?;
            if messages.is_empty() { list.expected("at least one message") } else { Ok(messages) }
        }
    }
}

fn read_message(message: &Field<'_>) -> Result<Message, RequestError> {
    let mut members = message.members()?;
    let (role, is_function) = read_role(&members.need("role", "a role")?)?;
    let name = members.read("name", string)?;
    let tool_calls = read_tool_calls(&mut members, role)?;
    let mut tool_call_id = members.read("tool_call_id", string)?;
    if is_function {
        tool_call_id = tool_call_id.or_else(|| name.clone());
    }
    if role == Role::Tool && tool_call_id.is_none() {
        return members.missing("tool_call_id", "the id of the call that this message answers");
    }
    let refusal = members.read("refusal", text)?;
    let content = match (members.take("content"), refusal) {
        (Some(content), _) => read_content(&content)?,
        (None, Some(refusal)) if role == Role::Assistant => vec![ContentPart::Text(refusal)],
        // A turn that only calls tools says nothing.
        (None, _) if !tool_calls.is_empty() => Vec::new(),
        (None, _) => return members.missing("content", "a string or an array of parts"),
    };
    Ok(Message { role, content, tool_calls, tool_call_id, name })
}

/// The role, and whether it is the deprecated `function`, whose messages carry a name in place of a call's id.
fn read_role(role: &Field<'_>) -> Result<(Role, bool), RequestError> {
    match role.value.as_str() {
        Some("system" | "developer") => Ok((Role::System, false)),
        Some("user") => Ok((Role::User, false)),
        Some("assistant") => Ok((Role::Assistant, false)),
        Some("tool") => Ok((Role::Tool, false)),
        Some("function") => Ok((Role::Tool, true)),
        _ => role.expected("one of system, developer, user, assistant, tool"),
    }
}

fn read_content(content: &Field<'_>) -> Result<Vec<ContentPart>, RequestError> {
    match content.value {
        Value::String(text) => Ok(vec![ContentPart::Text(text.clone())]),
        Value::Array(parts) if parts.is_empty() => content.expected("at least one part"),
        Value::Array(_) => content.each(read_part),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            content.expected("a string or an array of parts")
        }
    }
}

fn read_part(part: &Field<'_>) -> Result<ContentPart, RequestError> {
    let mut members = part.members()?;
    let kind = members.need("type", "text or image_url")?;
    match kind.value.as_str() {
        Some("text") => Ok(ContentPart::Text(members.need_text("text")?)),
        Some("refusal") => Ok(ContentPart::Text(members.need_text("refusal")?)),
        Some("image_url") => read_image(&members.need("image_url", "an object with `url`")?),
        _ => kind.expected("text or image_url"),
    }
}

fn read_image(image: &Field<'_>) -> Result<ContentPart, RequestError> {
    let mut members = image.members()?;
    let url = members.need("url", "an address")?;
    let detail = members.read("detail", |detail| match detail.value.as_str() {
        Some(word @ ("low" | "high" | "auto")) => Ok(word.to_owned()),
        _ => detail.expected("low, high or auto"),
    })?;
    let address = string(&url)?;
    if ["data:", "https://", "http://"].iter().any(|scheme| address.starts_with(scheme)) {
        Ok(ContentPart::Image { url: address, detail })
    } else {
        url.expected("an address that begins with data:, https:// or http://")
    }
}

/// Tools that this turn of the assistant called, those in the deprecated `function_call` included.
fn read_tool_calls(members: &mut Members<'_>, role: Role) -> Result<Vec<ToolCall>, RequestError> {
    let list = members.take("tool_calls");
    let single = members.take("function_call");
    if role != Role::Assistant {
        return match list.or(single) {
            Some(calls) => calls.fault("expected only in a message of role assistant"),
            None => Ok(Vec::new()),
        };
    }
    let mut calls = list.map(|list| list.each(read_tool_call)).transpose()?.unwrap_or_default();
    if let Some(single) = single {
        let (name, arguments) = read_call(&single)?;
        calls.push(ToolCall { id: name.clone(), name, arguments });
    }
    Ok(calls)
}

fn read_tool_call(call: &Field<'_>) -> Result<ToolCall, RequestError> {
    let mut members = call.members()?;
    members.read("type", is_function)?;
    let id = members.need_string("id")?;
    let (name, arguments) = read_call(&members.need("function", "an object with `name` and `arguments`")?)?;
    Ok(ToolCall { id, name, arguments })
}

fn read_call(function: &Field<'_>) -> Result<(String, String), RequestError> {
    let mut members = function.members()?;
    Ok((members.need_string("name")?, members.need_text("arguments")?))
}

/// The newer of the two names wins.
fn read_output_cap(members: &mut Members<'_>) -> Result<Option<i64>, RequestError> {
    let cap = |field: &Field<'_>| field.integer(1, MOST_OUTPUT_TOKENS);
    let newer = members.read("max_completion_tokens", cap)?;
    let older = members.read("max_tokens", cap)?;
    Ok(newer.or(older))
}

/// An empty list asks for nothing and is let pass.
fn read_stop(stop: &Field<'_>) -> Result<Vec<String>, RequestError> {
    match stop.value {
        Value::String(_) => Ok(vec![string(stop)?]),
        Value::Array(_) => stop.each(string),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            stop.expected("a string or an array of strings")
        }
    }
}

fn read_format(format: &Field<'_>) -> Result<ResponseFormat, RequestError> {
    let mut members = format.members()?;
    let kind = members.need("type", "text, json_object or json_schema")?;
    match kind.value.as_str() {
        Some("text") => Ok(ResponseFormat::Text),
        Some("json_object") => Ok(ResponseFormat::JsonObject),
        Some("json_schema") => read_schema(&members.need("json_schema", "an object with `name` and `schema`")?),
        _ => kind.expected("text, json_object or json_schema"),
    }
}

fn read_schema(format: &Field<'_>) -> Result<ResponseFormat, RequestError> {
    let mut members = format.members()?;
    let name = members.need_string("name")?;
    let schema = Value::Object(members.need("schema", "a JSON schema")?.object()?.clone());
    let strict = members.read("strict", boolean)?;
    Ok(ResponseFormat::JsonSchema { name, schema, strict })
}

/// An empty list offers nothing and is let pass.
fn read_tools(members: &mut Members<'_>) -> Result<Vec<Tool>, RequestError> {
    let newer = members.read("tools", |list| distinct(list, list.each(read_tool)?))?;
    let older = members.read("functions", |list| distinct(list, list.each(read_function)?))?;
    Ok(newer.or(older).unwrap_or_default())
}

/// Calls are told apart by name, so each name may stand only once.
fn distinct(list: &Field<'_>, tools: Vec<Tool>) -> Result<Vec<Tool>, RequestError> {
    let mut names = std::collections::BTreeSet::new();
    match tools.iter().find(|tool| !names.insert(tool.name.as_str())) {
        Some(tool) => list.fault(format_args!("expected each name only once, found {} again", shown(&tool.name))),
        None => Ok(tools),
    }
}

fn read_tool(tool: &Field<'_>) -> Result<Tool, RequestError> {
    let mut members = tool.members()?;
    members.read("type", is_function)?;
    read_function(&members.need("function", "an object with `name`")?)
}

fn read_function(function: &Field<'_>) -> Result<Tool, RequestError> {
    let mut members = function.members()?;
    let name = members.need_string("name")?;
    let description = members.read("description", text)?;
    let parameters: Option<Map<String, Value>> = members.read("parameters", |field| field.object().cloned())?;
    Ok(Tool { name, description, parameters: parameters.map(Value::Object) })
}

/// Functions are the only tools that every dialect can express.
fn is_function(kind: &Field<'_>) -> Result<(), RequestError> {
    if kind.value.as_str() == Some("function") { Ok(()) } else { kind.expected("function") }
}

fn read_tool_choice(members: &mut Members<'_>, tools: &[Tool]) -> Result<Option<ToolChoice>, RequestError> {
    let (newer, older) = (members.take("tool_choice"), members.take("function_call"));
    let Some(field) = newer.or(older) else { return Ok(None) };
    let choice = match field.value {
        Value::String(word) if word == "auto" => ToolChoice::Auto,
        Value::String(word) if word == "none" => ToolChoice::None,
        Value::String(word) if word == "required" => ToolChoice::Required,
        Value::Object(_) => ToolChoice::Function(read_chosen_name(&field)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return field.expected("auto, none, required or an object that names a function");
        }
    };
    match &choice {
        ToolChoice::Required if tools.is_empty() => field.fault("expected `tools` beside it, found none to call"),
        ToolChoice::Function(name) if !tools.iter().any(|tool| tool.name == *name) => {
            field.fault(format_args!("expected the name of a function in `tools`, found {}", shown(name)))
        }
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Required | ToolChoice::Function(_) => Ok(Some(choice)),
    }
}

/// `{"type": "function", "function": {"name": …}}`, or the deprecated `{"name": …}`.
fn read_chosen_name(choice: &Field<'_>) -> Result<String, RequestError> {
    let mut members = choice.members()?;
    members.read("type", is_function)?;
    match members.take("function") {
        Some(function) => function.members()?.need_string("name"),
        None => members.need_string("name"),
    }
}

fn read_effort(effort: &Field<'_>) -> Result<String, RequestError> {
    match effort.value.as_str() {
        Some(word @ ("none" | "minimal" | "low" | "medium" | "high" | "xhigh")) => Ok(word.to_owned()),
        _ => effort.expected("one of none, minimal, low, medium, high, xhigh"),
    }
}
