//! Requests, as the dialect writes them.

use super::*;
use crate::domain::ChatRequest;
use crate::domain::MustKeep;
use crate::domain::Role;
use crate::domain::request::ToolChoice;
use crate::provider::checks::{Chat, encoded, long_conversation, message, parsed, request};
use reqwest::header::HeaderValue;

/// The note on the cap that a request lacks.
const CAP_ADDED: &str = "max_tokens 4096 added";

fn known() -> Capabilities {
    Capabilities::default()
}

/// A body of one message with these additional members.
#[expect(clippy::needless_pass_by_value, reason = "reads better with the JSON in place")]
fn with(more: Value) -> ChatRequest {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    parsed(body)
}

#[expect(clippy::needless_pass_by_value, reason = "reads better with the JSON in place")]
fn saying(messages: Value) -> ChatRequest {
    parsed(json!({ "messages": messages }))
}

fn refusal(model: &str, request: &ChatRequest) -> String {
    match anthropic().chat(request, model, &known()) {
        Err(Ineligible::Unsupported(what)) => what,
        other => panic!("was taken: {other:?}"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "reads better with the JSON in place")]
fn schema(schema: Value) -> Value {
    json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}})
}

#[test]
fn a_whole_conversation_is_written() {
    let mut request = long_conversation();
    request.tool_choice = Some(ToolChoice::Required);
    let (body, dropped) = encoded(anthropic(), &request, &known());
    let expected = json!({
        "model": "the-model", "max_tokens": 4096, "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "Where is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1",
                    "content": [{"type": "text", "text": "{\"sky\":\"blue\"}"}]},
                {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "unknown"}]},
                {"type": "text", "text": "And now?"},
            ]},
        ],
        "tools": [{
            "name": "weather", "description": "Tells the weather",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        }],
        "tool_choice": {"type": "any"},
    });
    assert_eq!(body, expected);
    assert_eq!(dropped, ["messages[].content[].image_url.detail", CAP_ADDED]);
}

#[test]
fn version_and_key_have_their_headers() {
    let wire = anthropic().chat(&request(vec![message(Role::User, "Hi")]), "m", &known()).unwrap();
    assert_eq!(
        (wire.path.as_str(), &wire.headers["anthropic-version"]),
        ("/messages", &HeaderValue::from_static("2023-06-01"))
    );
    let headers = checks::signed(&DIALECT, "the-key");
    assert_eq!(headers["x-api-key"], "the-key");
    assert!(headers["x-api-key"].is_sensitive());
}

#[test]
fn parameters_are_mapped_or_dropped_by_name() {
    let request = with(json!({
        "max_tokens": 100, "temperature": 1.5, "top_p": 0.9, "top_k": 5, "stop": ["END"], "seed": 1,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "reasoning_effort": "low",
        "response_format": {"type": "json_object"}, "tool_choice": "auto", "user": "u", "logit_bias": null,
        "metadata": {"a": "b"}, "parallel_tool_calls": false,
    }));
    let (body, mut dropped) = encoded(anthropic(), &request, &known());
    let expected = json!({
        "model": "the-model", "max_tokens": 100, "temperature": 1.0, "top_k": 5, "stop_sequences": ["END"],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "metadata": {"user_id": "u"},
    });
    assert_eq!(body, expected);
    dropped.sort();
    let names = [
        "frequency_penalty",
        "metadata",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "temperature above 1",
        "tool_choice",
        "top_p",
    ];
    assert_eq!(dropped, names);

    let without = Capabilities { temperature: Some(false), ..known() };
    for (model, capabilities) in [("the-model", without), ("claude-opus-4-7", known()), ("claude-sonnet-5", known())] {
        let wire = anthropic().chat(&request, model, &capabilities).unwrap();
        let body: Value = serde_json::from_slice(&wire.body).unwrap();
        for name in ["temperature", "top_p", "top_k"] {
            assert_eq!(body.get(name), None, "{model}");
            assert!(wire.dropped.iter().any(|dropped| dropped == name), "{model}: {:?}", wire.dropped);
        }
    }
}

#[test]
fn one_call_at_a_time_is_said_in_its_words() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for (choice, expected) in [
        (json!(null), json!({"type": "auto", "disable_parallel_tool_use": true})),
        (json!("required"), json!({"type": "any", "disable_parallel_tool_use": true})),
        (json!("none"), json!({"type": "none"})),
    ] {
        let request = with(json!({"tools": tools, "tool_choice": choice, "parallel_tool_calls": false}));
        assert_eq!(encoded(anthropic(), &request, &known()).0["tool_choice"], expected, "{choice}");
    }
}

#[test]
fn an_output_cap_is_always_there() {
    let cap = |asked: Option<i64>, most: Option<i64>| {
        let mut request = request(vec![message(Role::User, "Hi")]);
        request.max_tokens = asked;
        encoded(anthropic(), &request, &Capabilities { max_output_tokens: most, ..known() }).0["max_tokens"].clone()
    };
    assert_eq!(
        [cap(None, None), cap(None, Some(64_000)), cap(Some(10), None), cap(Some(99), Some(50))],
        [json!(4096), json!(64_000), json!(10), json!(50)]
    );
}

#[test]
fn a_schema_is_fitted_and_what_it_loses_is_named() {
    let rating = json!({"type": "object",
        "properties": {"stars": {"type": "integer", "minimum": 1},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3}}});
    let (body, dropped) = encoded(anthropic(), &with(schema(rating)), &known());
    let sent = json!({"type": "object", "additionalProperties": false, "properties": {
        "stars": {"type": "integer", "description": "{minimum: 1}"},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "{maxItems: 3}"},
    }});
    assert_eq!(body["output_config"], json!({"format": {"type": "json_schema", "schema": sent}}));
    assert_eq!(
        dropped,
        [
            CAP_ADDED,
            "response_format.json_schema.name",
            "response_format.json_schema.schema: additionalProperties false added",
            "response_format.json_schema.schema: maxItems",
            "response_format.json_schema.schema: minimum",
        ]
    );
    // The prompt asks for any object at all, as with `json_object`.
    let (body, dropped) = encoded(anthropic(), &with(schema(json!({"type": "object"}))), &known());
    assert_eq!((body.get("output_config"), dropped.contains(&"response_format".to_owned())), (None, true));
}

#[test]
fn instructions_alone_become_the_users_words() {
    let (body, _) = encoded(anthropic(), &request(vec![message(Role::System, "Say hi")]), &known());
    assert_eq!(body["messages"], json!([{"role": "user", "content": [{"type": "text", "text": "Say hi"}]}]));
    assert_eq!(body.get("system"), None);
}

#[test]
fn texts_of_white_space_are_left_out_visibly() {
    let request = saying(json!([
        {"role": "system", "content": " \n"},
        {"role": "user", "content": [{"type": "text", "text": " "}, {"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "\t", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "a", "content": "\u{a0}"},
        {"role": "user", "content": ""},
    ]));
    let (body, dropped) = encoded(anthropic(), &request, &known());
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": []}]},
        ])
    );
    assert_eq!(
        (body.get("system"), dropped),
        (None, vec!["messages[].content[] of white space".to_owned(), CAP_ADDED.to_owned()])
    );
    assert_eq!(refusal("m", &saying(json!([{"role": "user", "content": " "}]))), "a conversation without words");
}

#[test]
fn the_answer_is_cut_where_a_stop_of_white_space_would_have_ended_it() {
    for (stop, sent, text) in [
        (json!(["\n\n"]), json!(null), "one"),
        (json!([" ", "END"]), json!(["END"]), "one"),
        (json!("\n"), json!(null), "one"),
        (json!(["\t", "two"]), json!(["two"]), "one\n\ntwo"),
    ] {
        let wire = anthropic().chat(&with(json!({ "stop": stop })), "m", &known()).unwrap();
        let body: Value = serde_json::from_slice(&wire.body).unwrap();
        assert_eq!(body["stop_sequences"], sent, "{stop}");
        assert_eq!(wire.dropped, [CAP_ADDED, "stop of white space (the answer is cut there)"]);
        let text_given = if stop == json!([" ", "END"]) { "one two" } else { "one\n\ntwo" };
        let reply = json!({"content": [{"type": "text", "text": text_given}], "stop_reason": "end_turn"});
        let mut answer = answer(anthropic(), &reply);
        wire.undo.apply(&mut answer);
        assert_eq!(answer.text.as_deref(), Some(text), "{stop}");
    }
}

#[test]
fn images_have_the_type_that_they_are_of() {
    let source = |url: &str| {
        let image = json!({"type": "image_url", "image_url": {"url": url}});
        let request = saying(json!([{"role": "user", "content": [image]}]));
        let wire = anthropic().chat(&request, "m", &known()).map_err(|why| why.to_string())?;
        let body: Value = serde_json::from_slice(&wire.body).unwrap();
        Ok::<_, String>(body["messages"][0]["content"][0]["source"].clone())
    };
    for (url, media_type) in [
        ("data:image/jpg;base64,QUJD", "image/jpeg"),
        ("data:image/pjpeg;base64,QUJD", "image/jpeg"),
        ("data:IMAGE/PNG;base64,QUJD", "image/png"),
        ("data:image/x-png;base64,QUJD", "image/png"),
        ("data:image/webp;charset=utf-8;base64,QUJD", "image/webp"),
        // The provider compares the name with the content.
        ("data:image/jpeg;base64,iVBORw0KGgoAAAA", "image/png"),
        ("data:application/octet-stream;base64,/9j/4AAQ", "image/jpeg"),
        ("data:;base64,R0lGODlh", "image/gif"),
    ] {
        assert_eq!(source(url).unwrap()["media_type"], json!(media_type), "{url}");
    }
    assert_eq!(
        source("https://example.com/a.png").unwrap(),
        json!({"type": "url", "url": "https://example.com/a.png"})
    );
    for (url, why) in [
        ("data:image/bmp;base64,QUJD", "images of type image/bmp"),
        ("data:image/svg+xml;base64,QUJD", "images of type image/svg+xml"),
        ("data:image/heic;base64,QUJD", "images of type image/heic"),
        ("http://example.com/a.png", "images by a web address that is not https"),
    ] {
        assert!(source(url).unwrap_err().contains(why), "{url}");
    }
}

#[test]
fn marks_of_caching_stand_where_they_stood() {
    let mark = json!({"type": "ephemeral"});
    let request = parsed(json!({
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Long.",
                "cache_control": {"type": "ephemeral", "ttl": "1h"}}, {"type": "text", "text": "Short."}]},
            {"role": "user", "content": "Hi", "cache_control": mark},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": [{"type": "text", "text": "Go", "cache_control": mark}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}, "cache_control": mark}],
    }));
    let (body, dropped) = encoded(anthropic(), &request, &known());
    assert_eq!(
        body["system"],
        json!([{"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"type": "text", "text": "Short."}])
    );
    assert_eq!(body["messages"][0]["content"][0], json!({"type": "text", "text": "Hi", "cache_control": mark}));
    assert_eq!(body["messages"][2]["content"][0], json!({"type": "text", "text": "Go", "cache_control": mark}));
    assert_eq!((&body["tools"][0]["cache_control"], dropped), (&mark, vec![CAP_ADDED.to_owned()]));

    let five: Vec<Value> =
        (0..5).map(|n| json!({"type": "text", "text": n.to_string(), "cache_control": mark})).collect();
    let (body, dropped) = encoded(anthropic(), &saying(json!([{"role": "user", "content": five}])), &known());
    let marked: Vec<bool> = body["messages"][0]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part.get("cache_control").is_some())
        .collect();
    assert_eq!(marked, [false, true, true, true, true]);
    assert_eq!(dropped, ["cache_control beyond 4", CAP_ADDED]);
    let odd = saying(
        json!([{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "forever"}}]}]),
    );
    assert_eq!(encoded(anthropic(), &odd, &known()).1, ["cache_control of another type than ephemeral", CAP_ADDED]);
}

#[test]
fn what_is_not_understood_is_noted_at_every_depth() {
    let request = parsed(json!({
        "messages": [
            {"role": "user", "content": "Hi", "weight": 1},
            {"role": "assistant", "content": "x", "reasoning_content": "hm", "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": "{}"},
                    "extra_content": {"google": {"thought_signature": "s"}}},
            ]},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "strict": true}}],
        "model": "gpt-4o", "service_tier": "flex", "logprobs": true,
    }));
    let (_, mut dropped) = encoded(anthropic(), &request, &known());
    dropped.sort();
    assert_eq!(
        dropped,
        [
            "logprobs",
            CAP_ADDED,
            "messages[].reasoning_content",
            "messages[].tool_calls[].extra_content",
            "messages[].weight",
            "model",
            "service_tier",
            "tools[].function.strict",
        ]
    );
}

#[test]
fn ids_and_names_stay_apart_when_they_are_rewritten() {
    let call = |id: &str, name: &str| json!({"id": id, "function": {"name": name, "arguments": "{}"}});
    let result = |id: &str, text: &str| json!({"role": "tool", "tool_call_id": id, "content": text});
    let tools: Vec<Value> =
        ["ns.f", "ns:f", "ns_f"].iter().map(|name| json!({"type": "function", "function": {"name": name}})).collect();
    let request = parsed(json!({
        "messages": [
            {"role": "user", "content": "Go"},
            {"role": "assistant", "tool_calls": [call("a.b", "ns.f"), call("a:b", "ns:f"), call("a_b", "ns_f")]},
            result("a_b", "3"), result("a.b", "1"), result("a:b", "2"),
            // Numbered anew in each turn.
            {"role": "assistant", "tool_calls": [call("a.b", "ns.f")]},
            result("a.b", "4"),
        ],
        "tools": tools,
    }));
    let wire = anthropic().chat(&request, "m", &known()).unwrap();
    let body: Value = serde_json::from_slice(&wire.body).unwrap();
    let pairs = |turn: usize, id: &str, other: &str| -> Vec<(String, String)> {
        let text =
            |value: &Value| value.as_str().map_or_else(|| value[0]["text"].as_str().unwrap().to_owned(), str::to_owned);
        body["messages"][turn]["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| (text(&block[id]), text(&block[other])))
            .collect()
    };
    let named =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    assert_eq!(pairs(1, "id", "name"), named(&[("a_b_2", "ns_f_2"), ("a_b_3", "ns_f_3"), ("a_b", "ns_f")]));
    assert_eq!(pairs(2, "tool_use_id", "content"), named(&[("a_b", "3"), ("a_b_2", "1"), ("a_b_3", "2")]));
    assert_eq!(pairs(3, "id", "name"), named(&[("a_b_2_2", "ns_f_2")]));
    assert_eq!(pairs(4, "tool_use_id", "content"), named(&[("a_b_2_2", "4")]));
    let reply =
        json!({"content": [{"type": "tool_use", "id": "x", "name": "ns_f_3", "input": {}}], "stop_reason": "tool_use"});
    let mut answer = answer(anthropic(), &reply);
    wire.undo.apply(&mut answer);
    assert_eq!(answer.tool_calls[0].name, "ns:f");
}

#[test]
fn what_cannot_be_said_makes_the_target_ineligible() {
    let user = || json!({"role": "user", "content": "Hi"});
    let image = |role: &str| json!({"role": role, "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]});
    let calling = |arguments: &str| {
        json!({"role": "assistant", "tool_calls": [{"id": "a",
            "function": {"name": "f", "arguments": arguments}}]})
    };
    let result = || json!({"role": "tool", "tool_call_id": "a", "content": "1"});
    for (messages, expected) in [
        (json!([user(), {"role": "assistant", "content": "Well"}]), "a last message from the assistant"),
        (json!([{"role": "assistant", "content": "Well"}, user()]), "a conversation that the assistant opens"),
        (json!([{"role": "user", "content": ""}]), "a conversation without words"),
        (json!([image("system"), user()]), "images in system messages"),
        (json!([user(), image("assistant"), user()]), "images in assistant messages"),
        (json!([image("user")]), "images that are neither base64 data nor a web address"),
        (json!([user(), calling("[1]"), result()]), "tool call arguments that are not a JSON object"),
        (json!([user(), calling("{}"), user()]), "a tool call without its result in the turn after it"),
        (json!([user(), result()]), "a tool result whose call is not in the turn before it"),
        (
            json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]),
            "a sound without `data` and `format`",
        ),
    ] {
        assert_eq!(refusal("m", &saying(messages)), expected);
    }
    let tool = |parameters: Value| {
        with(json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}))
    };
    for (request, expected) in [
        (tool(json!({"anyOf": [{"type": "object"}]})), "a tool whose parameters begin with anyOf"),
        (tool(json!({"type": "array"})), "a tool whose parameters are not an object"),
        (
            tool(json!({"type": "object", "properties": {"größe": {}}})),
            "a tool whose parameters are named with more than letters, digits, `_`, `-` and `.`",
        ),
        (with(json!({"tools": [{"type": "web_search"}]})), "tools of type web_search"),
        (with(json!({"response_format": {"type": "grammar"}})), "a response format of type grammar"),
        (
            with(schema(json!({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/A"}}}}}))),
            "a JSON schema that refers to itself",
        ),
    ] {
        assert_eq!(refusal("m", &request), expected);
    }
    let schema = with(schema(json!({"type": "object", "properties": {"a": {"type": "string"}}})));
    for old in ["claude-3-5-haiku-20241022", "claude-sonnet-4-20250514"] {
        assert_eq!(refusal(old, &schema), "json_schema");
        assert!(anthropic().chat(&schema, old, &Capabilities { json_schema: Some(true), ..known() }).is_ok());
    }
    assert!(anthropic().chat(&schema, "claude-haiku-4-5", &known()).is_ok());
    let forced = with(json!({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}));
    for new in ["claude-opus-5-5", "claude-fable-5-1", "claude-mythos-5-1"] {
        assert_eq!(refusal(new, &forced), "a tool choice that forces a call");
    }
    assert!(anthropic().chat(&forced, "claude-opus-4-6", &known()).is_ok());
    assert_eq!(
        encoded(anthropic(), &tool(json!({})), &known()).0["tools"][0]["input_schema"],
        json!({"type": "object"})
    );
}

#[test]
fn what_moves_and_what_is_added_is_named() {
    let named = |body: Value| encoded(anthropic(), &parsed(body), &known()).1;
    let (hi, stop) = (json!({"role": "user", "content": "Hi"}), json!({"role": "system", "content": "Be brief."}));
    let blank = json!({"role": "system", "content": ""});
    for (messages, noted) in [
        (json!([stop, hi]), &[][..]),
        (json!([stop, hi, blank]), &[]),
        (json!([stop, hi, stop, hi]), &["messages[].role: system moved to the front"]),
        (json!([hi, stop]), &["messages[].role: system moved to the front"]),
        (json!([stop]), &["messages[].role: system as user"]),
    ] {
        assert_eq!(named(json!({"messages": messages, "max_tokens": 9})), noted, "{messages}");
    }
    // A route that lets nothing of the messages go has another rung for such a talk.
    let talk = parsed(json!({"messages": [hi, stop, hi]}));
    let wire = anthropic().chat(&talk, "m", &known()).unwrap();
    for kept in [MustKeep::All, MustKeep::Members(["messages".to_owned()].into())] {
        let refusal = wire.without_loss(&kept, &talk).unwrap_err().to_string();
        assert!(refusal.contains("messages[].role") && refusal.contains("must_keep"), "{refusal}");
    }
    assert!(wire.without_loss(&MustKeep::Members(["seed".to_owned()].into()), &talk).is_ok());
    assert_eq!(named(json!({"prompt": "Hi"})), [CAP_ADDED]);
    let model = Capabilities { max_output_tokens: Some(64_000), ..known() };
    let (sent, dropped) = encoded(anthropic(), &parsed(json!({"prompt": "Hi"})), &model);
    assert_eq!((&sent["max_tokens"], dropped), (&json!(64_000), vec!["max_tokens 64000 added".to_owned()]));
    assert_eq!(named(json!({"prompt": "Hi", "max_tokens": 5, "max_completion_tokens": 7})), ["max_tokens"]);
    assert_eq!(named(json!({"prompt": "Hi", "max_tokens": 7, "max_completion_tokens": 7})), Vec::<String>::new());
    let form = json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": {
        "type": "object", "properties": {"a": {"type": "string", "examples": ["x"]}},
    }}});
    assert_eq!(
        named(json!({"prompt": "Hi", "max_tokens": 9, "response_format": form})),
        [
            "response_format.json_schema.strict (schemas are always enforced)",
            "response_format.json_schema.name",
            "response_format.json_schema.schema: additionalProperties false added",
            "response_format.json_schema.schema: examples",
        ]
    );
}
