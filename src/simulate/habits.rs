//! Habits of a server that speaks a dialect in its own way: other names of headers, other codes, members elsewhere.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How a provider's answers differ from those of its dialect.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Habits {
    /// Headers: the dialect's name and that of this server.
    pub headers: BTreeMap<String, String>,
    /// Codes and types of errors: the dialect's word and that of this server.
    pub codes: BTreeMap<String, String>,
    /// Members of bodies and events: where the dialect has them and where this server has them, as JSON pointers.
    pub moved: BTreeMap<String, String>,
    /// Where the cost of an answer stands in its body or last event, as a JSON pointer. It takes a model with a price.
    pub cost: Option<String>,
}

/// Where an error has words for codes.
const CODES: &[&str] = &["/error/code", "/error/type", "/error/status", "/code", "/type"];

impl Habits {
    /// The first setting that makes no sense: its key, and what was expected.
    pub(super) fn check(&self) -> Result<(), (String, &'static str)> {
        for (name, own) in &self.headers {
            if [name, own].into_iter().any(|name| HeaderName::try_from(name.as_str()).is_err()) {
                return Err((format!("headers.{name}"), "expected names of headers"));
            }
        }
        let is_pointer = |text: &str| text.len() > 1 && text.starts_with('/');
        for (from, to) in &self.moved {
            if !is_pointer(from) || !is_pointer(to) {
                return Err((format!("moved.{from}"), "expected JSON pointers such as \"/usage/prompt_tokens\""));
            }
        }
        if self.cost.as_ref().is_some_and(|cost| !is_pointer(cost)) {
            return Err(("cost".to_owned(), "expected a JSON pointer such as \"/meta/usd\""));
        }
        Ok(())
    }

    /// Gives the headers the names that they have here.
    pub(super) fn name(&self, headers: &mut HeaderMap) {
        for (name, own) in &self.headers {
            let Some(value) = headers.remove(name) else { continue };
            let own = HeaderName::try_from(own.as_str()).expect("names are checked with the scenario");
            let is_millis = own.as_str().ends_with("ms");
            let seconds = value.to_str().ok().and_then(|text| text.parse::<f64>().ok()).filter(|_| is_millis);
            let millis = seconds.and_then(|seconds| HeaderValue::try_from((seconds * 1000.0).to_string()).ok());
            headers.insert(own, millis.unwrap_or(value));
        }
    }

    /// Writes a body as this server does; what is no JSON stays as it is.
    pub(super) fn body(&self, body: Vec<u8>, nano_dollars: Option<u64>) -> Vec<u8> {
        if self.leaves_bodies() {
            return body;
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(&body) else { return body };
        self.write(&mut value, nano_dollars);
        value.to_string().into_bytes()
    }

    /// Writes the events of a stream as this server does.
    pub(super) fn events(&self, events: Vec<Bytes>, nano_dollars: Option<u64>) -> Vec<Bytes> {
        if self.leaves_bodies() {
            return events;
        }
        let write = |event: Bytes| {
            let text = std::str::from_utf8(&event).ok()?;
            let (before, data) = text.split_once("data: ")?;
            let mut value: Value = serde_json::from_str(data.trim()).ok()?;
            // The event that tells the tokens tells the money, too.
            let tells = value.get("usage").is_some_and(Value::is_object);
            self.write(&mut value, nano_dollars.filter(|_| tells));
            Some(Bytes::from(format!("{before}data: {value}\n\n")))
        };
        events.into_iter().map(|event| write(event.clone()).unwrap_or(event)).collect()
    }

    fn leaves_bodies(&self) -> bool {
        self.codes.is_empty() && self.moved.is_empty() && self.cost.is_none()
    }

    fn write(&self, value: &mut Value, nano_dollars: Option<u64>) {
        for place in CODES {
            if let Some(code) = value.pointer_mut(place)
                && let Some(own) = code.as_str().and_then(|code| self.codes.get(code))
            {
                *code = json!(own);
            }
        }
        // What lies deeper goes first.
        let mut moved: Vec<(&String, &String)> = self.moved.iter().collect();
        moved.sort_by_key(|(from, _)| std::cmp::Reverse(from.matches('/').count()));
        for (from, to) in moved {
            if let Some(member) = take(value, from) {
                put(value, to, member);
            }
        }
        if let (Some(place), Some(nanos)) = (&self.cost, nano_dollars) {
            #[expect(clippy::cast_precision_loss, reason = "the dollars of one call")]
            put(value, place, json!(nanos as f64 / 1e9));
        }
    }
}

fn take(value: &mut Value, pointer: &str) -> Option<Value> {
    let (outer, name) = pointer.rsplit_once('/')?;
    value.pointer_mut(outer)?.as_object_mut()?.remove(name)
}

/// Puts a member where a pointer leads to, through objects that are made on the way.
fn put(value: &mut Value, pointer: &str, member: Value) {
    let mut place = value;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = place.as_object_mut().expect("it is an object").entry(name).or_insert(Value::Null);
    }
    *place = member;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_events_are_written_in_the_servers_own_way() {
        let habits: Habits = serde_json::from_value(json!({
            "headers": { "retry-after": "x-wait-ms" },
            "codes": { "server_error": "E_FULL" },
            "moved": { "/usage": "/rest", "/usage/prompt_tokens": "/meta/in" },
            "cost": "/meta/usd",
        }))
        .unwrap();
        assert_eq!(habits.check(), Ok(()));
        let written = |value: Value, cost| {
            serde_json::from_slice::<Value>(&habits.body(value.to_string().into_bytes(), cost)).unwrap()
        };
        assert_eq!(
            written(json!({ "usage": { "prompt_tokens": 3, "completion_tokens": 4 } }), Some(2_500_000)),
            json!({ "rest": { "completion_tokens": 4 }, "meta": { "in": 3, "usd": 0.0025 } })
        );
        assert_eq!(written(json!({ "error": { "type": "server_error" } }), None)["error"]["type"], "E_FULL");
        let events = habits.events(
            vec![
                "data: {\"choices\":[]}\n\n".into(),
                "data: {\"usage\":{\"prompt_tokens\":1}}\n\n".into(),
                "data: [DONE]\n\n".into(),
            ],
            Some(1_000_000_000),
        );
        let events: Vec<&str> = events.iter().map(|event| std::str::from_utf8(event).unwrap()).collect();
        assert_eq!(events[0], "data: {\"choices\":[]}\n\n");
        assert!(events[1].contains("\"in\":1") && events[1].contains("\"usd\":1.0"), "{}", events[1]);
        assert_eq!(events[2], "data: [DONE]\n\n");
        let mut headers =
            HeaderMap::from_iter([(HeaderName::from_static("retry-after"), HeaderValue::from_static("2"))]);
        habits.name(&mut headers);
        assert_eq!((headers.get("x-wait-ms").unwrap(), headers.len()), (&HeaderValue::from_static("2000"), 1));
    }
}
