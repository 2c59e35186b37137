//! What a route adds to requests: the prompt that a row is put into, instructions, and members that the request lacks.
//!
//! A request may hold `{"vars": {"text": "…"}}` in place of `messages`, `prompt` or `input`: the route's template holds
//! the question about them. A member of the request goes before one of the template, and one of the template before a
//! default. A member that is `null` counts as absent.

use super::bounds;
use super::bulk;
use super::raw_object::RawObject;
use super::request::{ChatRequest, RequestError, is_known_member};
use super::template::{RequestTemplate, Template, Unfilled, Values};
use serde_json::Value;
use serde_json::value::RawValue;

/// The member of a request with the values for the route's template.
pub const VARS: &str = "vars";

/// Members that hold the question.
const ASKING: [&str; 3] = ["messages", "prompt", "input"];

/// What a route adds to the requests of its jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// The request into which the values of a row are put.
    pub request: Option<RequestTemplate>,
    /// Instructions before a conversation that has none.
    pub system: Option<Template>,
    /// The output cap, in tokens, at least 1.
    pub max_tokens: Option<i64>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// As a request has it.
    pub response_format: Option<Value>,
}

/// How much larger a request may become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Bytes that are added to each.
    pub bytes: usize,
    /// How often a value of it may stand in the outcome.
    pub uses: usize,
}

/// A request with what it lacked.
struct Completed {
    text: String,
    /// Whether members that no provider knows are its author's own.
    is_prompt: bool,
}

impl Defaults {
    /// Whether nothing is added to any request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads a request as [`ChatRequest::read_text`] does, after adding to it what it lacks.
    ///
    /// # Errors
    /// The first fault; for a value that the request does not have, `vars.NAME`.
    pub fn read(&self, body: &str) -> Result<ChatRequest, RequestError> {
        if self.is_empty() {
            return ChatRequest::read_text(body);
        }
        let Some(Completed { text, is_prompt }) = self.complete(body)? else { return ChatRequest::read_text(body) };
        if bounds::check("request", &text).is_err() || bulk::is_too_much(text.as_bytes()) {
            return Err(too_large());
        }
        let request = ChatRequest::read_text(&text)?;
        Ok(ChatRequest { is_prompt: is_prompt || request.is_prompt, ..request })
    }

    /// The most that it adds to a request.
    #[must_use]
    pub fn growth(&self) -> Growth {
        let (request, uses) = self.request.as_ref().map_or((0, 0), RequestTemplate::extent);
        let system = self.system.clone().map(|system| RequestTemplate::of_prompt(system, None));
        let (system, of_system) = system.as_ref().map_or((0, 0), RequestTemplate::extent);
        let format = self.response_format.as_ref().map_or(0, |format| format.to_string().len());
        Growth { bytes: request + system + format, uses: uses + of_system }
    }

    /// `None`: the body is no object, and is left to its reader.
    fn complete(&self, body: &str) -> Result<Option<Completed>, RequestError> {
        let Some(mut row) = RawObject::read(body) else { return Ok(None) };
        let vars = if is_object(row.get(VARS)) { row.take(VARS) } else { None };
        let values = vars.as_deref().and_then(RawObject::read).unwrap_or_default();
        let is_given = ASKING.iter().any(|name| row.given(name).is_some());
        let uses_vars = match (&self.request, is_given) {
            (Some(_), false) => true,
            (_, _) => self.system.as_ref().is_some_and(|system| system.names().next().is_some()),
        };
        if vars.is_some() && !uses_vars {
            return Err(unused_vars());
        }
        let filled = match &self.request {
            Some(template) if !is_given => Some(template.fill(&values).map_err(unfilled)?),
            _ => None,
        };
        let mut request = match &filled {
            None => row,
            Some(filled) => {
                let mut request = RawObject::read(filled).unwrap_or_default();
                let parsed = |value: &str| serde_json::from_str(value).unwrap_or(Value::Null);
                // The others are the author's own.
                row.retain(|name, value| value != "null" && is_known_member(name, &parsed(value)));
                for name in row.names() {
                    if let Some(value) = row.get(name) {
                        request.set_text(name, value);
                    }
                }
                request
            }
        };
        let mut is_prompt = false;
        if request.given("input").is_none() {
            self.add_members(&mut request);
            is_prompt = self.add_system(&mut request, &values)?;
        }
        Ok(Some(Completed { text: request.to_text(), is_prompt }))
    }

    fn add_members(&self, request: &mut RawObject<'_>) {
        if let Some(cap) = &self.max_tokens
            && request.given("max_completion_tokens").is_none()
        {
            add(request, "max_tokens", cap);
        }
        if let Some(temperature) = &self.temperature {
            add(request, "temperature", temperature);
        }
        if let Some(format) = &self.response_format {
            add(request, "response_format", format);
        }
    }

    /// Puts the instructions before a conversation that has none. Returns whether a `prompt` became messages.
    fn add_system(&self, request: &mut RawObject<'_>, values: &dyn Values) -> Result<bool, RequestError> {
        let Some(system) = &self.system else { return Ok(false) };
        // A malformed prompt is left to the reader, which reports it.
        let prompt = request.given("prompt").filter(|prompt| prompt.starts_with('"')).map(str::to_owned);
        let messages = match (&prompt, request.given("messages")) {
            (Some(prompt), None) => format!(r#"[{{"role":"user","content":{prompt}}}]"#),
            (None, Some(messages)) => messages.to_owned(),
            _ => return Ok(false),
        };
        let Ok(mut messages) = serde_json::from_str::<Vec<Box<RawValue>>>(&messages) else { return Ok(false) };
        let has_some = |message: &RawValue| {
            let role = RawObject::read(message.get()).and_then(|message| message.get("role").map(str::to_owned));
            matches!(role.as_deref(), Some("\"system\"" | "\"developer\""))
        };
        if messages.is_empty() || messages.iter().any(|message| has_some(message)) {
            return Ok(false);
        }
        let system = system.fill(values).map_err(unfilled)?;
        let system = format!(r#"{{"role":"system","content":{}}}"#, Value::from(system));
        messages.extend(RawValue::from_string(system).ok());
        messages.rotate_right(1);
        request.remove("prompt");
        request.set_first("messages", &messages);
        Ok(prompt.is_some())
    }
}

impl Growth {
    /// The larger of both.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), uses: self.uses.max(other.uses) }
    }

    /// About how many bytes a request takes in memory once it is complete.
    #[must_use]
    pub fn weight(self, body: &str) -> usize {
        let completed = self.bytes.saturating_add(self.uses.saturating_mul(body.len()));
        // As a text and as a parsed value.
        bulk::weight(body).saturating_add(completed.saturating_mul(2))
    }
}

/// A request with `vars` as far as it is known before a route has been found whose template takes them: the values are
/// its prompt. `None`: it is no such request.
#[must_use]
pub fn sketch(body: &str) -> Option<Result<ChatRequest, RequestError>> {
    let mut row = RawObject::read(body)?;
    if ASKING.iter().any(|name| row.given(name).is_some()) || !is_object(row.get(VARS)) {
        return None;
    }
    let vars = row.take(VARS)?;
    row.set("prompt", &vars);
    Some(ChatRequest::read_text(&row.to_text()))
}

/// The fault of `vars` that nothing takes.
#[must_use]
pub fn unused_vars() -> RequestError {
    let reason = "nothing uses them: expected a route with `prompt` or `template`, and none of `messages`, `prompt` \
                  and `input` beside them";
    RequestError { field: VARS.to_owned(), reason: reason.to_owned() }
}

fn is_object(written: Option<&str>) -> bool {
    written.is_some_and(|written| written.starts_with('{'))
}

fn add(request: &mut RawObject<'_>, name: &str, value: &impl serde::Serialize) {
    if request.given(name).is_none() {
        request.set(name, value);
    }
}

fn unfilled(fault: Unfilled) -> RequestError {
    match fault {
        Unfilled::Missing(name) => RequestError {
            field: format!("{VARS}.{name}"),
            reason: "is missing, and the template of the route names it".to_owned(),
        },
        Unfilled::TooLarge => too_large(),
    }
}

fn too_large() -> RequestError {
    let reason = format!("is larger than {} MB with what the route adds to it", bounds::MOST_REQUEST_BYTES >> 20);
    RequestError { field: "request".to_owned(), reason }
}

#[cfg(test)]
mod tests;
