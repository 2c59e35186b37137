//! Reads a request's JSON. Every fault is named by its field and by the content expected there.

use super::embed;
use super::field::{Field, Members, Unread, boolean, deeper_than, shown, string, text};
use super::own_rules::{self, VALIDATE};
use super::{ChatRequest, ContentPart, Message, PastCall, RequestError, ResponseFormat, Role, Tool, ToolChoice};
use crate::domain::defaults::{VARS, unused_vars};
use crate::domain::json_schema::Schema;
use crate::domain::raw_object::RawObject;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The deepest nesting of a body: the JSON parser allows no more, so a deeper value never came from a text.
const MAX_DEPTH: usize = 128;

/// Output caps above this are a mistake, not a wish.
const MOST_OUTPUT_TOKENS: i64 = 1_000_000_000;

impl ChatRequest {
    /// Reads an OpenAI chat-completions body, or `{"prompt": "…"}` as short for one user message, or an OpenAI
    /// embeddings body (`{"input": …}`).
    ///
    /// A member that is `null` counts as absent. A JSON schema in `response_format` is compiled to check it. The
    /// deprecated `functions` and `function_call` become tools; the id of such a call is its function's name. A member
    /// that is not understood is no fault, as vendors have members of their own: see [`ChatRequest::unread`].
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
        // A value that is too deep cannot be written out either.
        let raw = if deeper_than(body, MAX_DEPTH) { String::new() } else { body.to_string() };
        Self::parse_written(body, &raw)
    }

    /// As [`ChatRequest::parse_with_schema`], from the text: every digit and letter of it is kept for targets that
    /// speak the same dialect.
    ///
    /// # Errors
    /// As [`ChatRequest::parse`]; and when it is no JSON.
    pub fn parse_text(text: &str) -> Result<(Self, Option<Schema>), RequestError> {
        let request = Self::read_text(text)?;
        let schema = request.compile_schema()?;
        Ok((request, schema))
    }

    /// As [`ChatRequest::parse_text`], without compiling the schema of `response_format`: see [`ChatRequest::schema`].
    ///
    /// # Errors
    /// As [`ChatRequest::parse_text`].
    pub fn read_text(text: &str) -> Result<Self, RequestError> {
        let body: Value = serde_json::from_str(text).map_err(|error| RequestError {
            field: "request".to_owned(),
            reason: format!("cannot be read: {error}"),
        })?;
        Self::read_written(&body, text)
    }

    /// As [`ChatRequest::read_text`], with the value that the text is.
    ///
    /// # Errors
    /// As [`ChatRequest::parse`], but for the schema.
    pub fn read_written(body: &Value, text: &str) -> Result<Self, RequestError> {
        let unread = Unread::default();
        let mut request = read(&Field::root(body, &unread))?;
        request.raw = if request.validate.is_none() {
            text.into()
        } else {
            // It is between us and the author: no target gets it.
            let mut row = RawObject::read(text).unwrap_or_default();
            row.remove(VALIDATE);
            row.to_text().into()
        };
        request.unread = unread.into_paths();
        Ok(request)
    }

    /// As [`ChatRequest::parse_with_schema`], with the text that the body was read from.
    ///
    /// # Errors
    /// As [`ChatRequest::parse`].
    pub fn parse_written(body: &Value, text: &str) -> Result<(Self, Option<Schema>), RequestError> {
        let request = Self::read_written(body, text)?;
        let schema = request.compile_schema()?;
        Ok((request, schema))
    }

    /// Compiles the JSON schema that the request demands of its answer, if it demands one.
    ///
    /// # Errors
    /// Names `response_format.json_schema.schema` and its fault.
    pub fn compile_schema(&self) -> Result<Option<Schema>, RequestError> {
        self.schema().map(|schema| Schema::compile(schema).map_err(|reason| unfit_schema(&reason))).transpose()
    }

    /// The JSON schema that the request demands of its answer, as it is written.
    #[must_use]
    pub fn schema(&self) -> Option<&Value> {
        match &self.response_format {
            Some(ResponseFormat::JsonSchema { schema, .. }) => Some(schema),
            Some(ResponseFormat::Text | ResponseFormat::JsonObject | ResponseFormat::Other(_)) | None => None,
        }
    }
}

/// The fault of a request's schema.
#[must_use]
pub fn unfit_schema(reason: &str) -> RequestError {
    RequestError {
        field: "response_format.json_schema.schema".to_owned(),
        reason: format!("expected a JSON schema: {reason}"),
    }
}

fn read(body: &Field<'_>) -> Result<ChatRequest, RequestError> {
    if deeper_than(body.value, MAX_DEPTH) {
        return body.fault(format_args!("expected at most {MAX_DEPTH} levels of nesting"));
    }
    let mut members = body.members()?;
    if body.value.get(VARS).is_some_and(Value::is_object) {
        return Err(unused_vars());
    }
    if members.has("input") {
        return embed::read(&mut members);
    }
    let is_prompt = members.has("prompt");
    members.read("n", only_one_answer)?;
    // `false` asks for the default.
    members.take_if("stream", |stream| (*stream == Value::Bool(false)).then_some(()));
    let other_tools = RefCell::new(Vec::new());
    let tools = read_tools(&mut members, &other_tools)?;
    let other_tools = other_tools.into_inner();
    Ok(ChatRequest {
        raw: Box::default(),
        is_prompt,
        messages: read_conversation(&mut members, body)?,
        embed: None,
        model: members.take("model").map(|model| model.value.as_str().unwrap_or_default().to_owned()),
        max_tokens: read_output_cap(&mut members)?,
        temperature: members.read("temperature", |field| field.number(0.0, 2.0))?,
        top_p: members.read("top_p", |field| field.number(0.0, 1.0))?,
        top_k: members.take_if("top_k", Value::as_i64),
        stop: members.read("stop", read_stop)?.unwrap_or_default(),
        seed: members.read("seed", |field| field.integer(i64::MIN, i64::MAX))?,
        presence_penalty: members.read("presence_penalty", |field| field.number(-2.0, 2.0))?,
        frequency_penalty: members.read("frequency_penalty", |field| field.number(-2.0, 2.0))?,
        response_format: members.read("response_format", read_format)?,
        tool_choice: read_tool_choice(&mut members, &tools, &other_tools)?,
        tools,
        other_tools,
        parallel_tool_calls: members.take_if("parallel_tool_calls", Value::as_bool),
        reasoning_effort: members.read("reasoning_effort", read_effort)?,
        user: members.take_if("user", |user| user.as_str().map(str::to_owned)),
        cache_control: read_cache_control(&mut members),
        validate: members.read(VALIDATE, own_rules::read)?.map(Box::new),
        unread: Vec::new(),
    })
}

/// Anthropic's mark of where a prompt may be cached, which gateways take in this dialect too.
fn read_cache_control(members: &mut Members<'_>) -> Option<Value> {
    members.take_if("cache_control", |mark| mark.is_object().then(|| mark.clone()))
}

fn only_one_answer(n: &Field<'_>) -> Result<(), RequestError> {
    n.integer(1, 1).map(|_| ()).or_else(|_| n.expected("1, as a job has one answer (enqueue one job for each)"))
}

fn read_conversation(members: &mut Members<'_>, body: &Field<'_>) -> Result<Vec<Message>, RequestError> {
    match (members.take("messages"), members.take("prompt")) {
        (Some(_), Some(prompt)) => prompt.fault("expected either `messages` or `prompt`, found both"),
        (None, None) => body.fault(
            "expected `messages`, or `prompt` as short for one user message, or `input` for embeddings, found none",
        ),
        (None, Some(prompt)) => {
            let content = vec![ContentPart::Text(string(&prompt)?)];
            Ok(vec![Message::new(Role::User, content)])
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
    let other_calls = RefCell::new(Vec::new());
    let tool_calls = read_tool_calls(&mut members, role, &other_calls)?;
    let other_calls = other_calls.into_inner();
    let mut tool_call_id = members.read("tool_call_id", string)?;
    if is_function {
        tool_call_id = tool_call_id.or_else(|| name.clone());
    }
    if role == Role::Tool && tool_call_id.is_none() {
        return members.missing("tool_call_id", "the id of the call that this message answers");
    }
    let refusal = members.read("refusal", text)?;
    let says_otherwise = role == Role::Assistant && SAYING.iter().any(|name| members.has(name));
    let (content, cache_marks) = match (members.take("content"), refusal) {
        (Some(content), _) => read_content(&content)?,
        (None, Some(refusal)) if role == Role::Assistant => (vec![ContentPart::Text(refusal)], BTreeMap::new()),
        // A turn that only calls tools has no content.
        (None, _) if !tool_calls.is_empty() || !other_calls.is_empty() || says_otherwise => {
            (Vec::new(), BTreeMap::new())
        }
        (None, _) => return members.missing("content", "a string or an array of parts"),
    };
    let cache_control = read_cache_control(&mut members);
    Ok(Message { role, content, tool_calls, other_calls, tool_call_id, name, cache_marks, cache_control })
}

/// Members by which an assistant says something without `content`.
const SAYING: [&str; 4] = ["audio", "reasoning_content", "reasoning", "reasoning_details"];

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

type Content = (Vec<ContentPart>, BTreeMap<usize, Value>);

fn read_content(content: &Field<'_>) -> Result<Content, RequestError> {
    match content.value {
        Value::String(text) => Ok((vec![ContentPart::Text(text.clone())], BTreeMap::new())),
        Value::Array(parts) if parts.is_empty() => content.expected("at least one part"),
        Value::Array(_) => {
            let parts = content.each(read_part)?;
            let marks =
                parts.iter().enumerate().filter_map(|(index, (_, mark))| Some((index, mark.clone()?))).collect();
            Ok((parts.into_iter().map(|(part, _)| part).collect(), marks))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            content.expected("a string or an array of parts")
        }
    }
}

/// A part, and its `cache_control`.
fn read_part(part: &Field<'_>) -> Result<(ContentPart, Option<Value>), RequestError> {
    let mut members = part.members()?;
    let kind = members.need("type", "text, image_url or another type of part")?;
    let part = match kind.value.as_str() {
        Some("text") => ContentPart::Text(members.need_text("text")?),
        Some("refusal") => ContentPart::Text(members.need_text("refusal")?),
        Some("image_url") => read_image(&members.need("image_url", "an object with `url`")?)?,
        // Those of another form go to targets of their own dialect as they are.
        Some("file") => members.take_if("file", read_file).unwrap_or_else(|| ContentPart::Other("file".to_owned())),
        Some("input_audio") => {
            members.take_if("input_audio", read_audio).unwrap_or_else(|| ContentPart::Other("input_audio".to_owned()))
        }
        Some(other) if !other.is_empty() => ContentPart::Other(shortened(other)),
        _ => return kind.expected("text, image_url or another type of part"),
    };
    Ok((part, read_cache_control(&mut members)))
}

/// The name of a type, short enough for any message.
fn shortened(kind: &str) -> String {
    kind.chars().take(40).collect()
}

fn read_image(image: &Field<'_>) -> Result<ContentPart, RequestError> {
    if image.value.is_string() {
        return Ok(ContentPart::Image { url: read_address(image)?, detail: None });
    }
    let mut members = image.members()?;
    let url = read_address(&members.need("url", "an address")?)?;
    let detail = members.read("detail", string)?;
    Ok(ContentPart::Image { url, detail })
}

/// A file that comes along or has an address. Whatever else it may be is not understood.
fn read_file(file: &Value) -> Option<ContentPart> {
    let members = file.as_object()?;
    let url = members.get("file_data")?.as_str().filter(|url| is_address(url))?.to_owned();
    let name = match members.get("filename") {
        None | Some(Value::Null) => None,
        Some(name) => Some(name.as_str()?.to_owned()),
    };
    let is_known = |name: &String| ["file_data", "filename"].contains(&name.as_str());
    members.keys().all(is_known).then_some(ContentPart::File { url, name })
}

/// A sound as base64. Whatever else it may be is not understood.
fn read_audio(audio: &Value) -> Option<ContentPart> {
    let members = audio.as_object()?;
    let text = |name: &str| members.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (data, format) = (text("data")?, text("format")?);
    (members.len() == 2).then_some(ContentPart::Audio { data, format })
}

fn is_address(text: &str) -> bool {
    ["data:", "https://", "http://"].iter().any(|scheme| text.starts_with(scheme))
}

fn read_address(url: &Field<'_>) -> Result<String, RequestError> {
    let address = string(url)?;
    if is_address(&address) {
        Ok(address)
    } else {
        url.expected("an address that begins with data:, https:// or http://")
    }
}

/// Functions that this turn of the assistant called, including the one in the deprecated `function_call`. Calls of
/// other kinds are put aside.
fn read_tool_calls(
    members: &mut Members<'_>,
    role: Role,
    others: &RefCell<Vec<String>>,
) -> Result<Vec<PastCall>, RequestError> {
    let list = members.take("tool_calls");
    let single = members.take("function_call");
    if role != Role::Assistant {
        return match list.or(single) {
            Some(calls) => calls.fault("expected only in a message of role assistant"),
            None => Ok(Vec::new()),
        };
    }
    let read = |call: &Field<'_>| read_tool_call(call, others);
    let calls = list.map(|list| list.each(read)).transpose()?.unwrap_or_default();
    let mut calls: Vec<PastCall> = calls.into_iter().flatten().collect();
    if let Some(single) = single {
        let (name, arguments) = read_call(&single)?;
        calls.push(PastCall { id: name.clone(), name, arguments, thought_signature: None });
    }
    Ok(calls)
}

fn read_tool_call(call: &Field<'_>, others: &RefCell<Vec<String>>) -> Result<Option<PastCall>, RequestError> {
    let mut members = call.members()?;
    if let Some(kind) = members.read("type", read_kind)?.flatten() {
        others.borrow_mut().push(kind);
        return Ok(None);
    }
    let id = members.need_string("id")?;
    let (name, arguments) = read_call(&members.need("function", "an object with `name` and `arguments`")?)?;
    let thought_signature = members.take_if("extra_content", |extra| {
        let google = extra.as_object().filter(|extra| extra.len() == 1)?.get("google")?.as_object()?;
        google.get("thought_signature").filter(|_| google.len() == 1)?.as_str().map(str::to_owned)
    });
    Ok(Some(PastCall { id, name, arguments, thought_signature }))
}

/// The kind of a tool or call; `None` for functions, the only ones that every dialect can express.
fn read_kind(kind: &Field<'_>) -> Result<Option<String>, RequestError> {
    match kind.value.as_str() {
        Some("function") => Ok(None),
        Some(other) if !other.is_empty() => Ok(Some(shortened(other))),
        _ => kind.expected("function or another type"),
    }
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

/// An empty list asks for nothing and is accepted.
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
    let kind = members.need("type", "text, json_object, json_schema or another type")?;
    match kind.value.as_str() {
        Some("text") => Ok(ResponseFormat::Text),
        Some("json_object") => Ok(ResponseFormat::JsonObject),
        Some("json_schema") => read_schema(&members.need("json_schema", "an object with `name` and `schema`")?),
        Some(other) if !other.is_empty() => Ok(ResponseFormat::Other(shortened(other))),
        _ => kind.expected("text, json_object, json_schema or another type"),
    }
}

fn read_schema(format: &Field<'_>) -> Result<ResponseFormat, RequestError> {
    let mut members = format.members()?;
    let name = members.need_string("name")?;
    let schema = Value::Object(members.need("schema", "a JSON schema")?.object()?.clone());
    let strict = members.read("strict", boolean)?;
    Ok(ResponseFormat::JsonSchema { name, schema, strict })
}

/// An empty list offers nothing and is accepted. Tools that are not functions are put aside.
fn read_tools(members: &mut Members<'_>, others: &RefCell<Vec<String>>) -> Result<Vec<Tool>, RequestError> {
    let newer = members.read("tools", |list| {
        distinct(list, list.each(|tool| read_tool(tool, others))?.into_iter().flatten().collect())
    })?;
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

fn read_tool(tool: &Field<'_>, others: &RefCell<Vec<String>>) -> Result<Option<Tool>, RequestError> {
    let mut members = tool.members()?;
    if let Some(kind) = members.read("type", read_kind)?.flatten() {
        others.borrow_mut().push(kind);
        return Ok(None);
    }
    let mut tool = read_function(&members.need("function", "an object with `name`")?)?;
    tool.cache_control = read_cache_control(&mut members).or(tool.cache_control);
    Ok(Some(tool))
}

fn read_function(function: &Field<'_>) -> Result<Tool, RequestError> {
    let mut members = function.members()?;
    let name = members.need_string("name")?;
    let description = members.read("description", text)?;
    let parameters: Option<Map<String, Value>> = members.read("parameters", |field| field.object().cloned())?;
    let cache_control = read_cache_control(&mut members);
    Ok(Tool { name, description, parameters: parameters.map(Value::Object), cache_control })
}

fn read_tool_choice(
    members: &mut Members<'_>,
    tools: &[Tool],
    others: &[String],
) -> Result<Option<ToolChoice>, RequestError> {
    let (newer, older) = (members.take("tool_choice"), members.take("function_call"));
    let Some(field) = newer.or(older) else { return Ok(None) };
    let choice = match field.value {
        Value::String(word) if word == "auto" => ToolChoice::Auto,
        Value::String(word) if word == "none" => ToolChoice::None,
        // `any` is Mistral's word.
        Value::String(word) if word == "required" || word == "any" => ToolChoice::Required,
        Value::Object(_) => read_chosen(&field)?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return field.expected("auto, none, required or an object that names a function");
        }
    };
    match &choice {
        ToolChoice::Required if tools.is_empty() && others.is_empty() => {
            field.fault("expected `tools` beside it, found none to call")
        }
        ToolChoice::Function(name) if !tools.iter().any(|tool| tool.name == *name) => {
            field.fault(format_args!("expected the name of a function in `tools`, found {}", shown(name)))
        }
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Required | ToolChoice::Function(_) | ToolChoice::Other(_) => {
            Ok(Some(choice))
        }
    }
}

/// `{"type": "function", "function": {"name": …}}`, the deprecated `{"name": …}`, or a choice of another type.
fn read_chosen(choice: &Field<'_>) -> Result<ToolChoice, RequestError> {
    let mut members = choice.members()?;
    if let Some(kind) = members.read("type", read_kind)?.flatten() {
        return Ok(ToolChoice::Other(kind));
    }
    match members.take("function") {
        Some(function) => function.members()?.need_string("name"),
        None => members.need_string("name"),
    }
    .map(ToolChoice::Function)
}

/// Words differ by vendor (`none` to `xhigh`, `max`, `default`), and some take a number.
fn read_effort(effort: &Field<'_>) -> Result<String, RequestError> {
    match effort.value {
        Value::String(word) if !word.is_empty() => Ok(shortened(word)),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            effort.expected("a word such as none, minimal, low, medium, high or xhigh")
        }
    }
}
