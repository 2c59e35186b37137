//! Reads JSON bodies, however well or badly servers write them.

use super::wire::{Delivery, WireReply};
use super::{events, lenient_json};
use crate::domain::bulk::is_too_much;
use crate::domain::{ErrorClass, Failure, Scope, ToolCall, Usage, UsageSource};
use serde_json::{Map, Value};

/// The body of an HTTP success.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The answer.
    pub value: Value,
    /// The repairs that were needed to read it, in words for the ledger.
    pub mended: Vec<&'static str>,
    /// The envelope that it came in, without the answer, and the member of the envelope that held the answer.
    pub envelope: Option<(&'static str, Value)>,
}

impl Parsed {
    /// An answer that came in no envelope.
    pub fn plain(value: Value, mended: Vec<&'static str>) -> Self {
        Self { value, mended, envelope: None }
    }

    /// The value at this JSON pointer, which may lead from the answer itself or from the envelope around it.
    pub fn find(&self, pointer: &str) -> Option<&Value> {
        let by_envelope = || {
            let (holder, envelope) = self.envelope.as_ref()?;
            let inside = pointer.strip_prefix('/')?.strip_prefix(holder).filter(|rest| rest.starts_with('/'));
            inside.and_then(|rest| self.value.pointer(rest)).or_else(|| envelope.pointer(pointer))
        };
        self.value.pointer(pointer).or_else(by_envelope)
    }
}

/// Parses the body of an HTTP success. `join` makes one answer of several values, which are the pieces of a stream or
/// stand one after another; its flag says that they came as events. `holder` is the member that identifies an answer:
/// an answer that lies in an envelope is taken out.
///
/// # Errors
/// A server error: an empty body, an HTML page (captive portal, CDN) and broken JSON are faults of the server or of a
/// gateway before it, and a retry may well help. A requested stream that ends before its answer does is a broken
/// connection.
pub(super) fn parse(reply: &WireReply<'_>, holder: &str, join: Join) -> Result<Parsed, Failure> {
    read(reply, holder, join).map_err(|unread| match unread {
        Unread::CutOff => cut_off(reply),
        Unread::Unusable(reason) => failed(reply, ErrorClass::ServerError, Scope::Provider, &reason),
    })
}

/// The failure that a requested stream is which ended before its answer did.
pub(super) fn cut_off(reply: &WireReply<'_>) -> Failure {
    failed(reply, ErrorClass::Network, Scope::Network, "a stream that ended before its answer did")
}

/// The failure that a success is with an answer in which something is missing; `what` completes "HTTP 200 with …".
pub(super) fn unusable(reply: &WireReply<'_>, what: &str) -> Failure {
    failed(reply, ErrorClass::ServerError, Scope::Model, what)
}

fn failed(reply: &WireReply<'_>, class: ErrorClass, scope: Scope, what: &str) -> Failure {
    let status = reply.status;
    Failure { status: Some(status), ..Failure::new(class, scope, format!("HTTP {status} with {what}")) }
}

/// Makes one answer of several values; `None` when the end of a stream is not among them.
pub(super) type Join = fn(Vec<Value>, bool) -> Option<Value>;

/// Why a body is not an answer.
enum Unread {
    /// A requested stream ends too early.
    CutOff,
    /// The bytes are something else; a short description.
    Unusable(String),
}

/// Reads the answer in a body.
fn read(reply: &WireReply<'_>, holder: &str, join: Join) -> Result<Parsed, Unread> {
    if reply.delivery == Delivery::Stream
        && let Some(parsed) = read_events(reply, join).or_else(|| read_lines(reply, join))
    {
        return parsed;
    }
    // A server may answer in one piece all the same, and errors come that way.
    read_whole(reply.body, holder, join).map_err(Unread::Unusable)
}

/// Reads a requested stream; `None` when there are no events.
///
/// An event that cannot be read may have been a piece of the answer, which has a hole then.
fn read_events(reply: &WireReply<'_>, join: Join) -> Option<Result<Parsed, Unread>> {
    if is_too_much(reply.body) {
        return None;
    }
    let (mut values, mut mended) = (Vec::new(), Vec::new());
    let (mut events, before_garbage) = events::read(reply.body);
    if events.is_empty() {
        return None;
    }
    let mut has_hole = before_garbage.is_some();
    if let Some(before) = before_garbage.filter(|_| reply.is_partial) {
        events.truncate(before);
    }
    for event in events {
        // The end mark of OpenAI's dialect is not JSON, and may be missing: the answer itself says why it ended.
        if event.data.trim() == "[DONE]" {
            break;
        }
        match lenient_json::read(event.data.as_bytes()) {
            Ok(read) => {
                values.extend(read.values);
                mended.extend(read.mended);
            }
            Err(_) if events::is_sign_of_life(&event.data) => {}
            // As much as is whole before it.
            Err(_) if reply.is_partial => break,
            Err(_) => has_hole = true,
        }
    }
    // An error among the events explains more.
    if has_hole && !reply.is_partial && !values.iter().any(is_error) {
        return Some(Err(Unread::Unusable("a stream with an event that cannot be read".to_owned())));
    }
    mended.dedup();
    Some(joined(reply, values, join).map(|value| Parsed::plain(value, mended)).ok_or(Unread::CutOff))
}

/// Whether one of the values of a stream is an error.
fn is_error(value: &Value) -> bool {
    let said = value.get("error").or_else(|| at(value, "/delta/error"));
    said.is_some_and(|error| !error.is_null()) || value.get("type").is_some_and(|kind| kind == "error")
}

/// Makes one answer of the pieces of a requested stream, or of what has come of it.
fn joined(reply: &WireReply<'_>, mut values: Vec<Value>, join: Join) -> Option<Value> {
    if !reply.is_partial {
        return join(values, true);
    }
    values.retain(|value| !is_error(value));
    join(values, false)
}

/// Reads a requested stream that comes as a JSON object on each line; `None` when it has fewer than two lines. The line
/// after the last line break is whole or was cut off.
fn read_lines(reply: &WireReply<'_>, join: Join) -> Option<Result<Parsed, Unread>> {
    if is_too_much(reply.body) {
        return None;
    }
    let text = String::from_utf8_lossy(reply.body);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = serde_json::from_str(lines.next()?).ok().filter(Value::is_object)?;
    let mut lines = lines.peekable();
    lines.peek()?;
    if !reply.is_partial && events::is_garbage(reply.body) {
        return Some(Err(Unread::Unusable("a stream with a line that cannot be read".to_owned())));
    }
    let values = std::iter::once(first).chain(lines.map_while(|line| serde_json::from_str(line).ok())).collect();
    Some(joined(reply, values, join).map(|value| Parsed::plain(value, Vec::new())).ok_or(Unread::CutOff))
}

/// Reads a body that came in one piece, or in another form that the server chose.
fn read_whole(body: &[u8], holder: &str, join: Join) -> Result<Parsed, String> {
    let mut read = lenient_json::read(body).map_err(|reason| reason.to_string())?;
    if let [Value::String(text)] = read.values.as_slice() {
        // The JSON was encoded as a string once too often.
        read = lenient_json::read(text.as_bytes()).map_err(|reason| reason.to_string())?;
        read.mended.push("it came as a text of JSON");
    }
    if let [Value::Array(items)] = read.values.as_mut_slice()
        && !items.is_empty()
        && items.iter().all(Value::is_object)
    {
        read.values = std::mem::take(items);
        read.mended.push("it came in an array");
    }
    let value =
        if read.values.len() == 1 && !read.is_stream { read.values.pop() } else { join(read.values, read.is_stream) };
    let mut value = value.ok_or("a stream that breaks off")?;
    let envelope = take_from_envelope(&mut value, holder);
    if envelope.is_some() {
        read.mended.push("it came in an envelope");
    }
    Ok(Parsed { value, mended: read.mended, envelope })
}

/// Members in which gateways put the answer that they pass on.
const ENVELOPES: &[&str] = &["data", "result", "response", "body", "completion"];

/// Members of an envelope that concern the answer in it.
const ON_ENVELOPES: &[&str] = &["error", "errors", "base_resp", "error_code", "errcode", "usage", "usageMetadata"];

/// Takes the answer out of its envelope, with the envelope's members that concern it. Returns the envelope and the name
/// under which it held the answer; `None`: there is none.
fn take_from_envelope(value: &mut Value, holder: &str) -> Option<(&'static str, Value)> {
    let Value::Object(outer) = value else { return None };
    if outer.contains_key(holder) {
        return None;
    }
    let holds_it = |envelope: &&&str| outer.get(**envelope).and_then(|inner| inner.get(holder)).is_some();
    let envelope = ENVELOPES.iter().copied().find(|envelope| holds_it(&envelope))?;
    let Some(Value::Object(mut inner)) = outer.remove(envelope) else { return None };
    for key in ON_ENVELOPES {
        if let Some(member) = outer.remove(*key) {
            inner.entry(*key).or_insert(member);
        }
    }
    let around = std::mem::replace(value, Value::Object(inner));
    Some((envelope, around))
}

/// Parses JSON, or describes the bytes in a few words.
pub(super) fn parse_json(body: &[u8]) -> Result<Value, String> {
    let read = lenient_json::read(body).map_err(|reason| reason.to_string())?;
    read.values.into_iter().next().ok_or_else(|| "a body that is not JSON".to_owned())
}

/// The body of a success as far as it can be read, although it is a failure.
pub(super) fn as_far_as_read(reply: &WireReply<'_>, holder: &str, join: Join) -> Option<Parsed> {
    read(reply, holder, join).ok()
}

/// The body's usage, if it has one, although the body is a failure.
pub(super) fn take_usage(reply: &WireReply<'_>, holder: &str, key: &str, join: Join) -> Option<Value> {
    usage_in(&mut as_far_as_read(reply, holder, join)?.value, key)
}

/// The usage of a body, taken out of it or out of the error that it holds.
pub(super) fn usage_in(body: &mut Value, key: &str) -> Option<Value> {
    let of_error = body.get("error").and_then(|error| error.get(key)).is_some_and(Value::is_object);
    let holder = if of_error && !body.get(key).is_some_and(Value::is_object) { body.get_mut("error")? } else { body };
    holder.get_mut(key).map(Value::take).filter(Value::is_object)
}

/// The arguments of a tool call as JSON text. No arguments become the empty object, however the server writes them.
pub(super) fn arguments(value: Option<Value>) -> String {
    const NONE: &str = "{}";
    match value {
        None | Some(Value::Null) => NONE.to_owned(),
        // PHP encodes an empty map like this.
        Some(Value::Array(items)) if items.is_empty() => NONE.to_owned(),
        Some(Value::String(text)) => {
            let bare = text.trim_matches(|c: char| c.is_whitespace() || c == '\0' || c == '\u{feff}');
            if ["", "null", "none", "undefined", "\"\"", "[]"].iter().any(|none| bare.eq_ignore_ascii_case(none)) {
                return NONE.to_owned();
            }
            // The JSON was encoded as a string once too often.
            match serde_json::from_str::<Value>(bare) {
                Ok(Value::String(inner))
                    if serde_json::from_str::<Value>(&inner).is_ok_and(|value| value.is_object()) =>
                {
                    inner
                }
                Ok(_) => text,
                Err(_) => lenient_json::object(unfenced(bare)).unwrap_or(text),
            }
        }
        Some(other) => other.to_string(),
    }
}

/// The tool calls of a message that lists them with an id and a function each.
pub(super) fn tool_calls(calls: Option<Value>) -> Vec<ToolCall> {
    let Some(Value::Array(calls)) = calls else { return Vec::new() };
    let read = |(index, mut call): (usize, Value)| {
        let id = take_string(&mut call, "id").filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{index}"));
        let function = call.get_mut("function")?;
        let name = take_string(function, "name")?;
        let arguments = arguments(function.get_mut("arguments").map(Value::take));
        Some(ToolCall { id, name, arguments })
    };
    calls.into_iter().enumerate().filter_map(read).collect()
}

/// The content of a text that is a single code block.
fn unfenced(text: &str) -> &str {
    let inside = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inside.map_or(text, |inside| inside.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).trim())
}

/// More tokens than any call has. Larger counts are nonsense, such as the largest integer there is.
const MOST_TOKENS: i64 = 20_000_000;

/// The value at a place such as `/choices/0/message`, whose names have no `~` in them. Every answer is asked for dozens
/// of places; `Value::pointer` copies each name.
pub(super) fn at<'a>(value: &'a Value, place: &str) -> Option<&'a Value> {
    // Most places are not there, and that is told by their first name: the rest is not looked at then.
    let mut found = value;
    let mut rest = place.strip_prefix('/');
    while let Some(names) = rest {
        let end = names.bytes().position(|byte| byte == b'/').unwrap_or(names.len());
        let (name, behind) = names.split_at(end);
        found = match found {
            Value::Object(members) => members.get(name)?,
            Value::Array(items) => items.get(name.parse::<usize>().ok()?)?,
            _ => return None,
        };
        rest = behind.strip_prefix('/');
    }
    Some(found)
}

/// A token count, if it is plausible: whole (also when it is written `20.0` or `1e3`), not negative, not absurdly
/// large. `None` when it is missing or something else, such as `20.7`: that counts something other than tokens.
pub(super) fn count(value: &Value, pointer: &str) -> Option<i64> {
    let number = at(value, pointer)?;
    #[expect(clippy::cast_possible_truncation, reason = "a saturating cast, and what is too large is left out")]
    let of_float = |float: f64| (float.fract() == 0.0).then_some(float as i64);
    let whole = |text: &str| text.parse().ok().or_else(|| of_float(text.parse().ok()?));
    let count = number
        .as_i64()
        .or_else(|| of_float(number.as_f64()?))
        // Numbers in quotes count too.
        .or_else(|| whole(number.as_str()?.trim()))?;
    (0..=MOST_TOKENS).contains(&count).then_some(count)
}

/// Splits counts into disjoint classes; the count of the input includes tokens from the cache. Nothing is known when
/// input and output are missing.
pub(super) fn usage(input: Option<i64>, cached: Option<i64>, output: Option<i64>) -> Usage {
    if input.is_none() && output.is_none() {
        return Usage::default();
    }
    let input = input.unwrap_or(0);
    let cache_read = cached.unwrap_or(0).min(input);
    Usage {
        input: input - cache_read,
        cache_read,
        output: output.unwrap_or(0),
        source: UsageSource::Provider,
        ..Usage::default()
    }
}

/// The word that says why the answer ended, under the first of these names that has one. Some servers put it into an
/// object, or give the number of a constant.
pub(super) fn finish_word(members: &Map<String, Value>, keys: &[&str]) -> Option<String> {
    let word = |value: &Value| match value {
        Value::String(word) => Some(word.clone()).filter(|word| !word.trim().is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    keys.iter().filter_map(|key| members.get(*key)).find_map(|value| match value {
        Value::Object(inner) => ["type", "reason", "name"].iter().find_map(|key| word(inner.get(*key)?)),
        other => word(other),
    })
}

/// A string, taken out of the members. A member that is none goes as well.
pub(super) fn remove_string(members: &mut Map<String, Value>, key: &str) -> Option<String> {
    match members.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// A non-null string, taken out of the value.
pub(super) fn take_string(value: &mut Value, key: &str) -> Option<String> {
    match value.get_mut(key).map(Value::take) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_place_is_found_as_a_json_pointer_finds_it() {
        let body = json!({ "a": [{ "b": 1 }, [2]], "": { "": 3 }, "c": "text", "0": 4 });
        let names = ["a", "b", "c", "0", "1", "7", "", "01"];
        let pairs = names.iter().flat_map(|one| names.iter().map(move |other| format!("/{one}/{other}")));
        let places = pairs.flat_map(|pair| names.iter().map(move |third| format!("{pair}/{third}")));
        let short = ["", "/a", "/", "/0", "/a/1", "/a/0/b"].map(str::to_owned);
        for place in places.chain(short).filter(|place| !place.contains("/01")) {
            assert_eq!(at(&body, &place), body.pointer(&place), "{place:?}");
        }
    }

    #[test]
    fn what_is_not_json_is_named() {
        let check = |body: &[u8], expected: &str| {
            let headers = reqwest::header::HeaderMap::new();
            let failure = parse(&WireReply::new(200, &headers, body), "choices", |_, _| None).unwrap_err();
            assert_eq!(failure.class, ErrorClass::ServerError);
            assert!(failure.message.contains(expected), "{}", failure.message);
        };
        check(b"", "an empty body");
        check(b" \n", "an empty body");
        check(b"<!DOCTYPE html><html>", "an HTML page");
        check(b"upstream error", "not JSON");
        check(b"{\"a\": error}", "not JSON");
        check(b"{\"choices\": [", "JSON that breaks off");
        check(b"data: {\"choices\": []}\n\ndata: {\"choices\": [", "a stream of events that breaks off");
    }

    #[test]
    fn counts_are_whole_and_such_as_can_be() {
        let usage = json!({"a": 3, "b": 4.0, "c": -1, "d": "5", "e": null, "k": "five", "l": "-5", "m": "", "f": 1e30,
            "h": 4.5, "i": i64::MAX, "j": 0, "n": "20.0", "o": "1e3", "p": "20.7", "q": 1e3, "r": "NaN", "s": "inf"});
        let counts = ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i", "/j", "/k", "/l", "/m"]
            .map(|pointer| count(&usage, pointer));
        let written = ["/n", "/o", "/p", "/q", "/r", "/s"].map(|pointer| count(&usage, pointer));
        assert_eq!(written, [Some(20), Some(1_000), None, Some(1_000), None, None]);
        assert_eq!(counts, [Some(3), Some(4), None, Some(5), None, None, None, None, None, Some(0), None, None, None]);
    }

    #[test]
    fn a_call_without_arguments_has_an_empty_object() {
        let text = |text: &str| Some(Value::from(text));
        for none in [
            None,
            Some(Value::Null),
            text(""),
            text(" \n"),
            text("null"),
            text("None"),
            text("\"\""),
            text("[]"),
            Some(json!([])),
            Some(json!({})),
        ] {
            assert_eq!(arguments(none.clone()), "{}", "{none:?}");
        }
        for (given, expected) in [
            (text("{\"a\": 1}"), "{\"a\": 1}"),
            (Some(json!({"a": 1})), "{\"a\":1}"),
            (text("\"{\\\"a\\\":1}\""), "{\"a\":1}"),
            (text("{\"a\": "), "{\"a\": "),
            (text("\"Rome\""), "\"Rome\""),
            (text("```json\n{\"a\": 1}\n```"), "{\"a\":1}"),
            (text("```{\"a\": 1}```"), "{\"a\":1}"),
            (text("{\"a\": NaN}"), "{\"a\":null}"),
            (text("{\"a\": [1,],}"), "{\"a\":[1]}"),
            (text("{\"a\": True}"), "{\"a\":true}"),
            (text("```json\n{\"a\": "), "```json\n{\"a\": "),
            (text("{\"a\": 1} {\"b\": 2}"), "{\"a\": 1} {\"b\": 2}"),
            (Some(json!([1])), "[1]"),
        ] {
            assert_eq!(arguments(given), expected);
        }
    }
}
