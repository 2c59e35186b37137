//! Properties: every part of a request arrives, or is named as dropped.

use super::*;
use crate::domain::ChatRequest;
use crate::provider::checks::{Chat, spoken};
use crate::provider::quirks::QuirkSettings;
use crate::provider::vendors::VENDORS;
use proptest::prelude::*;

fn known() -> Capabilities {
    Capabilities::default()
}

/// Names of members: some have a meaning, many have none.
fn member_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_]{1,12}",
        ".{0,5}",
        prop::sample::select(
            &["user", "top_k", "logprobs", "metadata", "provider", "reasoning", "é", "service_tier", "n_predict"][..]
        )
        .prop_map(str::to_owned),
    ]
    .prop_filter("what the route, the worker and the cap decide", |name| !TYPED.contains(&name.as_str()))
}

/// Members whose values the parser demands to be of some kind, and those that are decided elsewhere.
const TYPED: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "tools",
    "functions",
    "function_call",
    "tool_choice",
    "stop",
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "reasoning_effort",
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "refusal",
    "type",
    "text",
    "id",
    "function",
    "arguments",
    "image_url",
    "url",
    "detail",
    "description",
    "parameters",
];

/// A JSON text with everything that a reader and writer could change: numbers, escapes, spaces.
fn any_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|flag| flag.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        ".{0,10}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just("\"\\u00e9\\ud83d\\ude00\\/\"".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let pair = (".{0,5}", inner.clone())
            .prop_map(|(name, value)| format!("{} : {value}", serde_json::to_string(&name).unwrap()));
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec(pair, 0..3).prop_map(|pairs| format!("{{{}}}", pairs.join(","))),
        ]
    })
}

/// Members as they stand in an object, each with a comma before it.
fn members() -> impl Strategy<Value = String> {
    prop::collection::btree_map(member_name(), any_text(), 0..4).prop_map(|members| {
        members.iter().fold(String::new(), |text, (name, value)| format!("{text},{}:{value}", json!(name)))
    })
}

prop_compose! {
    /// A request with unknown members at every depth.
    fn any_request()(
        top in members(), message in members(), part in members(), image in members(), call in members(),
        called in members(), tool in members(), function in members(), schema in any_text(), format in members(),
        number in "[01]\\.[0-9]{1,25}|1|0", seed in any::<i64>(), text in ".{0,12}",
    ) -> String {
        let text = serde_json::to_string(&text).unwrap();
        let schema = format!("{{\"type\":\"object\",\"x\":{schema}}}");
        format!(
            r#"{{"temperature":{number},"seed":{seed},"messages":[{{"content":{text},"role":"user"{message}}},{{"role":"user","content":[{{"type":"text","text":{text}{part}}},{{"type":"image_url","image_url":{{"url":"https://e.example/a.png"{image}}}}}]}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"a","type":"function","function":{{"name":"f.g","arguments":"{{}}"{called}}}{call}}}]}},{{"role":"tool","tool_call_id":"a","content":{text}}}],"tools":[{{"type":"function","function":{{"name":"f.g","parameters":{schema}{function}}}{tool}}}],"response_format":{{"type":"json_schema","json_schema":{{"name":"s","schema":{schema}}}{format}}}{top}}}"#
        )
    }
}

proptest! {
    #[test]
    fn a_request_to_its_own_dialect_arrives_as_it_came(text in any_request()) {
        let (request, _) = ChatRequest::parse_text(&text).unwrap();
        for base_url in ["http://127.0.0.1:8000/v1", "https://openrouter.ai/api/v1"] {
            let wire = at(base_url).chat(&request, "m", &known()).unwrap();
            let sent = String::from_utf8(wire.body).unwrap();
            let expected = match base_url {
                "https://openrouter.ai/api/v1" if request.raw.contains("\"provider\":") => continue,
                "https://openrouter.ai/api/v1" => {
                    format!("{{\"model\":\"m\",{},\"provider\":{{\"require_parameters\":true}}}}",
                        &text[1..text.len() - 1])
                }
                _ => format!("{{\"model\":\"m\",{}", &text[1..]),
            };
            prop_assert_eq!(&sent, &expected);
            let is_added = expected.contains("require_parameters");
            let named = if is_added { vec!["provider.require_parameters added"] } else { vec![] };
            prop_assert_eq!(wire.dropped, named);
        }
    }

    /// Wherever a vendor takes less, the missing members are named: nothing else of the body differs.
    #[test]
    fn what_a_vendor_does_not_take_is_missing_and_named(text in any_request()) {
        let (request, _) = ChatRequest::parse_text(&text).unwrap();
        for vendor in VENDORS.iter().filter(|vendor| *vendor.dialect == DIALECT) {
            let adapter = spoken("openai", Some(vendor.name), "", &QuirkSettings::default());
            let Ok(wire) = adapter.chat(&request, "gpt-oss-1", &known()) else { continue };
            let sent: Value = serde_json::from_slice(&wire.body).unwrap();
            let given: Value = serde_json::from_str(&text).unwrap();
            let mut lost = Vec::new();
            missing("", &given, &sent, &mut lost);
            for path in &lost {
                let names_it = |noted: &String| noted == path || noted.starts_with(&format!("{path} \
                    ")) || path.starts_with(&format!("{noted}."));
                prop_assert!(wire.dropped.iter().any(names_it) || [".name", "id"].iter().any(|end| path.ends_with(end)),
                    "{}: {path} is lost, of which {:?} is told", vendor.name, wire.dropped);
            }
        }
    }
}

/// The paths, without positions, of members that are no longer there or differ.
fn missing(path: &str, given: &Value, sent: &Value, lost: &mut Vec<String>) {
    match (given, sent) {
        (Value::Object(given), Value::Object(sent)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match sent.get(name) {
                    Some(sent) => missing(&path, value, sent, lost),
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(sent)) if given.len() == sent.len() => {
            for (given, sent) in given.iter().zip(sent) {
                missing(&format!("{path}[]"), given, sent, lost);
            }
        }
        (given, sent) if given == sent => {}
        _ => lost.push(path.to_owned()),
    }
}
