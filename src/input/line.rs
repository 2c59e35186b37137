//! One line: its format, and the job that it holds.

use super::json_text::{has_nul, path_of_nul, unstorable_number};
use super::requests::Requests;
use super::{InputJob, LineError, MemberNote};
use crate::domain::RequestError;
use crate::domain::bounds::{self, MOST_CUSTOM_ID_BYTES};
use crate::domain::defaults::VARS;
use crate::domain::raw_object::RawObject;
use crate::domain::request::is_known_member;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The members of an OpenAI batch line, and the one that Sluice adds.
const MEMBERS: [&str; 5] = ["custom_id", "method", "url", "body", "metadata"];
const CHAT_COMPLETIONS: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

/// An OpenAI batch line as it is written. Reading it this way keeps every digit and letter of the body.
#[derive(serde::Deserialize)]
struct BatchLine<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    // Read so that a second `custom_id` is found.
    #[serde(borrow, default, rename = "custom_id")]
    _custom_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "method")]
    _method: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "url")]
    _url: Option<&'a RawValue>,
}

/// The object on a line, as it is written and parsed.
pub(super) struct Object<'a> {
    pub(super) text: &'a str,
    pub(super) members: Map<String, Value>,
}

/// Reads the object on a line that is not blank. `expected`: what the object is.
pub(super) fn object_on<'a>(number: u64, bytes: &'a [u8], expected: &str) -> Result<Object<'a>, LineError> {
    let fault = |field: &str, reason: String| LineError::new(number, field, reason);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        fault("", format!("expected UTF-8, found other bytes at column {}", error.valid_up_to() + 1))
    })?;
    let text = text.trim_matches(|letter: char| letter.is_ascii_whitespace());
    let value: Value = serde_json::from_str(text).map_err(|error| fault("", json_reason(&error)))?;
    if let Some(column) = unstorable_number(text) {
        return Err(fault("", format!("the number at column {column} is too long or too small to be stored")));
    }
    if has_nul(text) {
        // No path: it is in a member that a later one of the same name hides, and Postgres reads that one too.
        let path = path_of_nul(&value).unwrap_or_default();
        return Err(fault(&path, "contains NUL (\\u0000), which Postgres cannot store".to_owned()));
    }
    match value {
        Value::Object(members) => Ok(Object { text, members }),
        _ => Err(fault("", format!("expected {expected}"))),
    }
}

/// Reads a line that is not blank.
pub(super) fn parse(number: u64, bytes: &[u8], requests: &mut Requests) -> Result<InputJob, LineError> {
    let fault = |field: &str, reason: String| LineError::new(number, field, reason);
    let expected = "an object: a batch line with `body`, a request with `messages` or `input`, or {\"prompt\": …}";
    let Object { text, members } = object_on(number, bytes, expected)?;
    let is_batch_line = is_batch_line(&members);
    let job = if is_batch_line {
        parse_batch_line(number, text, members, requests)
    } else {
        parse_bare(number, text, members, requests)
    }?;
    let body = if is_batch_line { "body" } else { "" };
    bounds::check("request", &job.body).map_err(|reason| fault(body, reason))?;
    bounds::check("metadata", job.metadata.as_deref().unwrap_or_default())
        .map_err(|reason| fault("metadata", reason))?;
    Ok(job)
}

/// Whether this is a batch line. It has a body; a line without one is still recognised by members that no request has.
fn is_batch_line(members: &Map<String, Value>) -> bool {
    let is_request = is_vars(members) || ["messages", "prompt", "input"].iter().any(|name| members.contains_key(*name));
    members.contains_key("body") || (!is_request && (members.contains_key("url") || members.contains_key("method")))
}

fn parse_batch_line(
    number: u64,
    text: &str,
    mut members: Map<String, Value>,
    requests: &mut Requests,
) -> Result<InputJob, LineError> {
    let fault = |field: &str, reason: String| LineError::new(number, field, reason);
    if let Some(unknown) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        let reason = "is not a member of a batch line; expected custom_id, method, url, body or metadata";
        return Err(fault(&shortened(unknown), reason.to_owned()));
    }
    let custom_id = custom_id(number, members.get("custom_id"))?;
    match members.get("method") {
        None | Some(Value::Null) => {}
        Some(Value::String(method)) if method.eq_ignore_ascii_case("POST") => {}
        Some(_) => return Err(fault("method", "expected \"POST\"".to_owned())),
    }
    // The body shows what the author asks for. An address that says otherwise is a mistake in one of the two.
    let of_body = |is: fn(&Map<String, Value>) -> bool| members.get("body").and_then(Value::as_object).is_some_and(is);
    let for_embeddings = of_body(is_input);
    let belongs = if for_embeddings { EMBEDDINGS } else { CHAT_COMPLETIONS };
    match members.get("url") {
        None | Some(Value::Null) => {}
        Some(Value::String(url)) if url == belongs => {}
        // The route's template says what it is.
        Some(Value::String(url)) if of_body(is_vars) && url == EMBEDDINGS => {}
        Some(Value::String(url)) if url == EMBEDDINGS => {
            return Err(fault("body.input", format!("is missing; expected the inputs, as `url` is {EMBEDDINGS}")));
        }
        Some(Value::String(url)) if url == CHAT_COMPLETIONS => {
            return Err(fault("url", format!("expected {EMBEDDINGS}, as the body has `input`")));
        }
        Some(Value::String(url)) => {
            let reason = format!(
                "{:?} is not supported by this version; expected {CHAT_COMPLETIONS} or {EMBEDDINGS}",
                shortened(url)
            );
            return Err(fault("url", reason));
        }
        Some(_) => return Err(fault("url", format!("expected {CHAT_COMPLETIONS} or {EMBEDDINGS}"))),
    }
    match members.get("metadata") {
        None | Some(Value::Null | Value::Object(_)) => {}
        Some(_) => return Err(fault("metadata", "expected an object".to_owned())),
    }
    let mut body =
        members.remove("body").ok_or_else(|| fault("body", "is missing; expected the request".to_owned()))?;
    let raw: BatchLine<'_> = serde_json::from_str(text).map_err(|error| fault("", json_reason(&error)))?;
    let mut metadata = raw.metadata.map(|metadata| metadata.get().to_owned());
    let mut written = raw.body.get().to_owned();
    let mut notes = Vec::new();
    if let Value::Object(members) = &mut body {
        if is_prompt(members) || is_vars(members) {
            let mut object = RawObject::read(raw.body.get()).unwrap_or_default();
            let own = own_members(members, &mut object, metadata.as_deref());
            if own.is_any {
                (written, metadata) = (object.to_text(), Some(own.metadata));
            }
            notes = own.notes;
        } else {
            notes = MemberNote::of_body(members);
        }
    }
    let request = requests.read(&body, &written, metadata.as_deref());
    let request = request.map_err(|error| fault(&within_body(&error), error.reason))?;
    Ok(InputJob { line: number, custom_id, metadata, body: written, request, notes })
}

/// Reads a request body without anything around it. Its `custom_id`, which no provider knows, names the job; beside a
/// `prompt`, an `input` or `vars` its `metadata` belongs to the job.
fn parse_bare(
    number: u64,
    text: &str,
    mut members: Map<String, Value>,
    requests: &mut Requests,
) -> Result<InputJob, LineError> {
    let fault = |field: &str, reason: String| LineError::new(number, field, reason);
    let custom_id = custom_id(number, members.get("custom_id"))?;
    let mut raw = RawObject::read(text).ok_or_else(|| fault("", "expected an object".to_owned()))?;
    let mut is_changed = raw.take("custom_id").is_some();
    members.remove("custom_id");
    let (mut metadata, mut notes) = (None, Vec::new());
    let is_prompt = is_prompt(&members) || is_vars(&members);
    if is_prompt || is_input(&members) {
        let given = members.remove("metadata");
        if given.as_ref().is_some_and(|given| !given.is_object() && !given.is_null()) {
            return Err(fault("metadata", "expected an object".to_owned()));
        }
        let written = raw.take("metadata");
        is_changed |= written.is_some();
        metadata = written.filter(|written| written != "null");
    }
    if is_prompt {
        let own = own_members(&mut members, &mut raw, metadata.as_deref());
        if own.is_any {
            is_changed = true;
            metadata = Some(own.metadata);
        }
        notes = own.notes;
    } else {
        notes.extend(MemberNote::of_body(&members));
    }
    let body = if is_changed { raw.to_text() } else { text.to_owned() };
    let request = requests.read(&Value::Object(members), &body, metadata.as_deref());
    let request = request.map_err(|error| LineError::new(number, error.field, error.reason))?;
    Ok(InputJob { line: number, custom_id, metadata, body, request, notes })
}

fn is_prompt(members: &Map<String, Value>) -> bool {
    members.get("prompt").is_some_and(|prompt| !prompt.is_null())
}

/// Whether it holds values for the template of its route in place of a prompt.
fn is_vars(members: &Map<String, Value>) -> bool {
    let is_given = |name: &str| members.get(name).is_some_and(|value| !value.is_null());
    members.get(VARS).is_some_and(Value::is_object)
        && !is_given("messages")
        && !is_given("prompt")
        && !is_given("input")
}

fn is_input(members: &Map<String, Value>) -> bool {
    let is_given = |name: &str| members.get(name).is_some_and(|value| !value.is_null());
    is_given("input") && !is_given("prompt") && !is_given("messages")
}

/// The members beside a `prompt` that an author wrote for himself.
struct Own {
    is_any: bool,
    /// The job's metadata, including these members.
    metadata: String,
    notes: Vec<MemberNote>,
}

/// Takes the members that no provider knows out of a body with `prompt`, a form that is Sluice's own and not the
/// dialect's. They belong to the author, and become metadata. Members that the metadata already has stay.
fn own_members(members: &mut Map<String, Value>, raw: &mut RawObject<'_>, metadata: Option<&str>) -> Own {
    let names: Vec<String> =
        members.iter().filter(|(name, value)| !is_known_member(name, value)).map(|(name, _)| name.clone()).collect();
    let mut gathered = metadata.and_then(RawObject::read).unwrap_or_default();
    let mut notes = Vec::new();
    for name in &names {
        members.remove(name);
        let is_doubled = gathered.get(name).is_some();
        notes.extend(MemberNote::of_metadata(name, is_doubled));
        if let Some(value) = raw.take(name)
            && !is_doubled
        {
            gathered.set_text(name, &value);
        }
    }
    Own { is_any: !names.is_empty(), metadata: gathered.to_text(), notes }
}

fn custom_id(number: u64, value: Option<&Value>) -> Result<Option<String>, LineError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= MOST_CUSTOM_ID_BYTES => Ok(Some(text.clone())),
        Some(_) => {
            let reason = format!("expected a string of 1 to {MOST_CUSTOM_ID_BYTES} bytes");
            Err(LineError::new(number, "custom_id", reason))
        }
    }
}

/// The path of a fault in the body, seen from the line.
fn within_body(error: &RequestError) -> String {
    if error.field == "request" { "body".to_owned() } else { format!("body.{}", error.field) }
}

/// The parser's words, with the column only: the parser takes each line for the first of a file.
fn json_reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    format!("expected JSON: {what} at column {}", error.column())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
