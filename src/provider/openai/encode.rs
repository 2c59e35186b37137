//! From a request to a chat-completions body, written straight from the borrowed request.

use super::profiles::Quirks;
use crate::domain::decide::Ineligible;
use crate::domain::request::{Tool, ToolChoice};
use crate::domain::{Capabilities, ChatRequest, ContentPart, Message, ResponseFormat, Role, ToolCall};
use crate::provider::adapter::WireRequest;
use reqwest::header::HeaderMap;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Value, json};
use std::borrow::Cow;

/// Members that are not the request's to set: one whole answer to one model is what a job is.
const RESERVED: &[&str] = &[
    "model",
    "messages",
    "stream",
    "stream_options",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "tools",
    "tool_choice",
    "reasoning_effort",
];

pub(super) fn encode(
    quirks: &Quirks,
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    crate::provider::conversation::check(request, capabilities)?;
    let schema_asked = matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. }));
    if schema_asked && !capabilities.json_schema.unwrap_or(quirks.json_schema) {
        return Err(Ineligible::Unsupported("json_schema".to_owned()));
    }
    let mut dropped = Vec::new();
    let max_tokens = crate::provider::conversation::output_cap(request, capabilities, &mut dropped);
    let takes = |name: &str| {
        !quirks.never.contains(&name)
            && (capabilities.temperature != Some(false) || !quirks.never_when_reasoning.contains(&name))
    };
    let mut keep = |name: &'static str, present: bool| {
        let kept = present && takes(name);
        if present && !kept {
            dropped.push(name.to_owned());
        }
        kept
    };
    let body = Body {
        quirks,
        request,
        model,
        max_tokens,
        temperature: request.temperature.filter(|_| keep("temperature", true)),
        top_p: request.top_p.filter(|_| keep("top_p", true)),
        presence_penalty: request.presence_penalty.filter(|_| keep("presence_penalty", true)),
        frequency_penalty: request.frequency_penalty.filter(|_| keep("frequency_penalty", true)),
        stop: keep("stop", !request.stop.is_empty()),
        names: keep("name", request.messages.iter().any(|message| message.name.is_some())),
        // Servers reject a choice among no tools.
        tool_choice: if request.tools.is_empty() {
            if request.tool_choice.is_some() {
                dropped.push("tool_choice".to_owned());
            }
            None
        } else {
            request.tool_choice.as_ref()
        },
        extra: request.extra.iter().filter(|(name, value)| extra_passes(name, value, &takes, &mut dropped)).collect(),
        require_parameters: quirks.require_parameters && schema_asked && !request.extra.contains_key("provider"),
    };
    let mut bytes = Vec::with_capacity(1024);
    serde_json::to_writer(&mut bytes, &body).expect("strings, numbers and JSON values always serialize");
    Ok(WireRequest { path: "/chat/completions".to_owned(), headers: HeaderMap::new(), body: bytes, dropped })
}

/// Whether a further member of the body is passed on; noted when it is not and would have meant something.
fn extra_passes(name: &str, value: &Value, takes: &impl Fn(&str) -> bool, dropped: &mut Vec<String>) -> bool {
    let passes = !RESERVED.contains(&name) && takes(name);
    let means_nothing =
        value.is_null() || (name == "n" && *value == json!(1)) || (name == "stream" && *value == json!(false));
    if !passes && !means_nothing {
        dropped.push(name.to_owned());
    }
    passes
}

/// The body, as a view of the request.
struct Body<'a> {
    quirks: &'a Quirks,
    request: &'a ChatRequest,
    model: &'a str,
    max_tokens: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    stop: bool,
    names: bool,
    tool_choice: Option<&'a ToolChoice>,
    extra: Vec<(&'a String, &'a Value)>,
    require_parameters: bool,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let request = self.request;
        let name =
            |ours: &'static str| self.quirks.renamed.iter().find(|(from, _)| *from == ours).map_or(ours, |(_, to)| to);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        map.serialize_entry("messages", &Messages(self))?;
        let numbers = [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                map.serialize_entry(name(key), &number)?;
            }
        }
        if let Some(cap) = self.max_tokens {
            map.serialize_entry(self.quirks.cap_field.as_str(), &cap)?;
        }
        if let Some(seed) = request.seed {
            map.serialize_entry(name("seed"), &seed)?;
        }
        if self.stop {
            map.serialize_entry("stop", &request.stop)?;
        }
        if let Some(format) = &request.response_format {
            map.serialize_entry("response_format", &Format(format))?;
        }
        if !request.tools.is_empty() {
            map.serialize_entry("tools", &request.tools.iter().map(ToolOut).collect::<Vec<_>>())?;
        }
        if let Some(choice) = self.tool_choice {
            map.serialize_entry("tool_choice", &choice_value(choice))?;
        }
        if let Some(effort) = &request.reasoning_effort {
            map.serialize_entry("reasoning_effort", effort)?;
        }
        if self.require_parameters {
            map.serialize_entry("provider", &json!({ "require_parameters": true }))?;
        }
        for (key, value) in &self.extra {
            map.serialize_entry(key, value)?;
        }
        for (key, value) in self.quirks.added {
            if !request.extra.contains_key(*key) {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

struct Messages<'a>(&'a Body<'a>);

impl Serialize for Messages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.request.messages.iter().map(|message| MessageOut { message, body: self.0 }))
    }
}

struct MessageOut<'a> {
    message: &'a Message,
    body: &'a Body<'a>,
}

impl Serialize for MessageOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.message;
        let short = self.body.quirks.short_call_ids;
        let mut map = serializer.serialize_map(None)?;
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        map.serialize_entry("role", role)?;
        match message.content.as_slice() {
            [] if message.tool_calls.is_empty() => map.serialize_entry("content", "")?,
            [] => map.serialize_entry("content", &())?,
            [ContentPart::Text(text)] => map.serialize_entry("content", text)?,
            // Not every compatible server takes a list; joined text says the same everywhere.
            parts if parts.iter().all(|part| matches!(part, ContentPart::Text(_))) => {
                map.serialize_entry("content", &message.text())?;
            }
            parts => map.serialize_entry("content", &Parts(parts))?,
        }
        if !message.tool_calls.is_empty() {
            let calls: Vec<_> = message.tool_calls.iter().map(|call| CallOut { call, short }).collect();
            map.serialize_entry("tool_calls", &calls)?;
        }
        if let Some(id) = &message.tool_call_id {
            map.serialize_entry("tool_call_id", &call_id(id, short))?;
        }
        if let Some(name) = message.name.as_ref().filter(|_| self.body.names) {
            map.serialize_entry("name", name)?;
        }
        map.end()
    }
}

struct Parts<'a>(&'a [ContentPart]);

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for part in self.0 {
            list.serialize_element(&PartOut(part))?;
        }
        list.end()
    }
}

struct PartOut<'a>(&'a ContentPart);

impl Serialize for PartOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        match self.0 {
            ContentPart::Text(text) => {
                map.serialize_entry("type", "text")?;
                map.serialize_entry("text", text)?;
            }
            ContentPart::Image { url, detail } => {
                map.serialize_entry("type", "image_url")?;
                map.serialize_entry("image_url", &ImageUrl { url, detail: detail.as_deref() })?;
            }
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct ImageUrl<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

struct CallOut<'a> {
    call: &'a ToolCall,
    short: bool,
}

impl Serialize for CallOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Function<'a> {
            name: &'a str,
            arguments: &'a str,
        }
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("id", &call_id(&self.call.id, self.short))?;
        map.serialize_entry("type", "function")?;
        map.serialize_entry("function", &Function { name: &self.call.name, arguments: &self.call.arguments })?;
        map.end()
    }
}

struct ToolOut<'a>(&'a Tool);

impl Serialize for ToolOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Function<'a> {
            name: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            description: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            parameters: Option<&'a Value>,
        }
        let Tool { name, description, parameters } = self.0;
        let function = Function { name, description: description.as_deref(), parameters: parameters.as_ref() };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", "function")?;
        map.serialize_entry("function", &function)?;
        map.end()
    }
}

struct Format<'a>(&'a ResponseFormat);

impl Serialize for Format<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Named<'a> {
            name: &'a str,
            schema: &'a Value,
            #[serde(skip_serializing_if = "Option::is_none")]
            strict: Option<bool>,
        }
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            ResponseFormat::Text => map.serialize_entry("type", "text")?,
            ResponseFormat::JsonObject => map.serialize_entry("type", "json_object")?,
            ResponseFormat::JsonSchema { name, schema, strict } => {
                map.serialize_entry("type", "json_schema")?;
                map.serialize_entry("json_schema", &Named { name, schema, strict: *strict })?;
            }
        }
        map.end()
    }
}

fn choice_value(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::None => json!("none"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Function(name) => json!({ "type": "function", "function": { "name": name } }),
    }
}

/// The id of a call; where the server wants nine letters or digits, others become nine digits that depend on the
/// id alone, so that a result still finds its call.
fn call_id(id: &str, short: bool) -> Cow<'_, str> {
    if !short || (id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
        return Cow::Borrowed(id);
    }
    // FNV-1a.
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Cow::Owned(format!("{:09}", hash % 1_000_000_000))
}
