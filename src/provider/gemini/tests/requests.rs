//! Requests, as the dialect writes them.

use super::*;
use crate::domain::ChatRequest;
use crate::domain::request::ToolChoice;
use crate::domain::{ContentPart, Message, Role};
use crate::provider::checks::{Chat, encoded, long_conversation, message, parsed, request};

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
    match gemini().chat(request, model, &known()) {
        Err(Ineligible::Unsupported(what)) => what,
        other => panic!("was taken: {other:?}"),
    }
}

fn to(model: &str, request: &ChatRequest) -> (Value, Vec<String>) {
    let wire = gemini().chat(request, model, &known()).unwrap();
    (serde_json::from_slice(&wire.body).unwrap(), wire.dropped)
}

#[test]
fn a_whole_conversation_is_written() {
    let mut request = long_conversation();
    request.tool_choice = Some(ToolChoice::Function("weather".to_owned()));
    let (body, dropped) = encoded(gemini(), &request, &known());
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "Be brief.\n\nBe kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Where is this?"},
                {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}]},
            {"role": "model", "parts": [
                {"text": "Looking."},
                {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
                {"functionCall": {"name": "weather", "args": {}}},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"name": "weather", "response": {"sky": "blue"}}},
                {"functionResponse": {"name": "weather", "response": {"result": "unknown"}}},
                {"text": "And now?"},
            ]},
        ],
        "tools": [{"functionDeclarations": [{
            "name": "weather", "description": "Tells the weather",
            "parametersJsonSchema": {"type": "object", "properties": {"city": {"type": "string"}}},
        }]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
    });
    assert_eq!(body, expected);
    assert_eq!(dropped, ["messages[].content[].image_url.detail"]);
}

#[test]
fn newer_models_get_a_signature_with_every_call() {
    let parts = |model: &str| to(model, &long_conversation()).0["contents"][1]["parts"].clone();
    let signature = json!("skip_thought_signature_validator");
    for model in ["gemini-3-pro", "models/gemini-3.1-pro-preview", "gemini-4-argon", "gemini-10"] {
        let parts = parts(model);
        assert_eq!(parts[0], json!({"text": "Looking."}), "{model}");
        let call =
            json!({"functionCall": {"name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": signature});
        assert_eq!(parts[1], call, "{model}");
        assert_eq!(parts[2]["thoughtSignature"], signature, "{model}");
    }
    for model in ["gemini-2.5-flash", "gemini-pro", "gemma-3-27b", "tuned-gemini-3"] {
        assert_eq!(parts(model)[1].get("thoughtSignature"), None, "{model}");
    }
    // The call's own signature goes along to any model.
    let own = saying(json!([
        {"role": "user", "content": "Go"},
        {"role": "assistant",
            "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "c2ln"}}}]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
    ]));
    for model in ["gemini-2.5-flash", "gemini-3-pro"] {
        let (body, dropped) = to(model, &own);
        assert_eq!(
            (&body["contents"][1]["parts"][0]["thoughtSignature"], dropped),
            (&json!("c2ln"), vec![]),
            "{model}"
        );
    }
}

#[test]
fn parameters_are_mapped_or_dropped_by_name() {
    let request = with(json!({
        "max_tokens": 9000, "temperature": 1.5, "top_p": 0.9, "top_k": 5, "stop": ["END"], "seed": 1,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "tool_choice": "auto", "user": "u",
    }));
    let capabilities = Capabilities { max_output_tokens: Some(8192), ..known() };
    let (body, mut dropped) = encoded(gemini(), &request, &capabilities);
    let expected = json!({
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {
            "maxOutputTokens": 8192, "temperature": 1.5, "topP": 0.9, "topK": 5, "stopSequences": ["END"], "seed": 1,
            "presencePenalty": 0.1, "frequencyPenalty": 0.2,
            "responseMimeType": "application/json", "responseJsonSchema": {"type": "object"},
        },
    });
    assert_eq!(body, expected);
    dropped.sort();
    let names =
        ["max_tokens above 8192", "reasoning_effort", "response_format.json_schema.name", "tool_choice", "user"];
    assert_eq!(dropped, names);

    let request = with(json!({
        "temperature": 0.5, "top_p": 0.9, "seed": i64::MAX, "response_format": {"type": "json_object"},
    }));
    let without = Capabilities { temperature: Some(false), ..known() };
    let (body, dropped) = encoded(gemini(), &request, &without);
    let config = &body["generationConfig"];
    assert_eq!(["temperature", "topP", "seed", "responseJsonSchema"].map(|name| config.get(name)), [None; 4]);
    assert!(
        ["temperature", "top_p", "seed"].iter().all(|name| dropped.iter().any(|dropped| dropped == name)),
        "{dropped:?}"
    );
}

#[test]
fn penalties_go_to_the_models_that_take_them() {
    let request = with(json!({"presence_penalty": 0.5, "frequency_penalty": 0.5}));
    for model in ["gemini-2.5-flash", "gemini-2.5-pro", "gemini-3.8-flash", "gemini-flash-latest"] {
        let (body, dropped) = to(model, &request);
        assert_eq!((body.get("generationConfig"), dropped.len()), (None, 2), "{model}");
    }
    assert_eq!(to("gemini-2.0-flash", &request).0["generationConfig"]["presencePenalty"], json!(0.5));
}

#[test]
fn tools_and_a_demanded_form_go_together_from_gemini_3_on() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}});
    let both = with(json!({"tools": tools, "response_format": schema}));
    for model in ["gemini-2.5-flash", "models/gemini-2.5-pro", "gemini-2.0-flash", "gemini-1.5-pro"] {
        assert_eq!(refusal(model, &both), "tools together with a response schema", "{model}");
        let object = with(json!({"tools": tools, "response_format": {"type": "json_object"}}));
        assert_eq!(refusal(model, &object), "tools together with a response schema", "{model}");
        // Where no tool may be called, none needs to be declared.
        let (body, dropped) =
            to(model, &with(json!({"tools": tools, "response_format": schema, "tool_choice": "none"})));
        assert_eq!((body.get("tools"), body.get("toolConfig")), (None, None), "{model}");
        assert!(dropped.contains(&"tools (tool_choice is none)".to_owned()), "{dropped:?}");
    }
    for model in ["gemini-3-pro", "gemini-3.8-flash", "gemini-flash-latest", "the-model"] {
        assert!(to(model, &both).0.get("tools").is_some(), "{model}");
    }
}

#[test]
fn stops_names_and_images_are_fitted() {
    let wire = gemini().chat(&with(json!({"stop": ["1", "2", "3", "4", "5", "6"]})), "m", &known()).unwrap();
    let body: Value = serde_json::from_slice(&wire.body).unwrap();
    assert_eq!(body["generationConfig"]["stopSequences"], json!(["1", "2", "3", "4", "5"]));
    assert_eq!(wire.dropped, ["stop beyond 5 (the answer is cut at the others)"]);

    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let tools = ["7up", "ns.f", "mit leer", "mit_leer"].map(tool);
    let (body, dropped) = to("m", &with(json!({"tools": tools, "tool_choice": tool("mit leer")})));
    let names: Vec<&Value> =
        body["tools"][0]["functionDeclarations"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["_7up", "ns.f", "mit_leer_2", "mit_leer"]);
    assert_eq!(body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"], json!(["mit_leer_2"]));
    assert_eq!(dropped, ["tools[].function.name in letters that the dialect takes"]);

    let image =
        |url: &str| saying(json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]));
    let (body, _) = to("m", &image("data:image/jpg;base64,QUJD"));
    assert_eq!(body["contents"][0]["parts"][0]["inlineData"]["mimeType"], json!("image/jpeg"));
    assert_eq!(refusal("m", &image("data:image/gif;base64,QUJD")), "images of type image/gif");
}

#[test]
fn marks_of_caching_and_strangers_are_noted() {
    let request = parsed(json!({
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
            {"role": "user", "content": "y"},
        ],
        "model": "gpt-4o", "parallel_tool_calls": true, "logprobs": true,
    }));
    let (_, mut dropped) = to("gemini-2.5-flash", &request);
    dropped.sort();
    let names = [
        "logprobs",
        "messages[].content[].cache_control",
        "messages[].reasoning_content",
        "model",
        "parallel_tool_calls",
    ];
    assert_eq!(dropped, names);
}

#[test]
fn the_model_is_in_the_path_and_the_key_in_its_header() {
    let path = |model: &str| gemini().chat(&request(vec![message(Role::User, "Hi")]), model, &known()).unwrap().path;
    assert_eq!(path("gemini-2.5-flash"), "/models/gemini-2.5-flash:generateContent");
    assert_eq!(path("models/gemini-2.5-flash"), "/models/gemini-2.5-flash:generateContent");
    let headers = checks::signed(&DIALECT, "the-key");
    assert_eq!(headers["x-goog-api-key"], "the-key");
    assert!(headers["x-goog-api-key"].is_sensitive());
}

#[test]
fn what_cannot_be_said_makes_the_target_ineligible() {
    let user = || message(Role::User, "Hi");
    let image = |url: &str| Message {
        content: vec![ContentPart::Image { url: url.into(), detail: None }],
        ..message(Role::User, "")
    };
    let result = Message { tool_call_id: Some("gone".into()), ..message(Role::Tool, "x") };
    for (messages, expected) in [
        (vec![user(), message(Role::Assistant, "Well")], "a last message from the assistant"),
        (vec![image("https://example.com/a.png")], "images by web address"),
        (vec![user(), result], "a tool result whose call is not in the turn before it"),
    ] {
        assert_eq!(refusal("m", &request(messages)), expected);
    }
    let file = "https://generativelanguage.googleapis.com/v1beta/files/abc";
    let (body, _) = encoded(gemini(), &request(vec![image(file)]), &known());
    assert_eq!(body["contents"][0]["parts"][0], json!({"fileData": {"fileUri": file}}));
}

#[test]
fn results_go_in_the_order_of_their_calls_because_they_have_no_ids() {
    let call = |id: &str, city: &str| {
        let arguments = json!({ "city": city }).to_string();
        json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}})
    };
    let result = |id: &str, said: &str| json!({"role": "tool", "tool_call_id": id, "content": said});
    let talk = |results: [Value; 2]| {
        let [first, second] = results;
        saying(json!([
            {"role": "user", "content": "Where is it warmer?"},
            {"role": "assistant", "tool_calls": [call("call_a", "Bern"), call("call_b", "Basel")]},
            first, second, {"role": "user", "content": "Well?"},
        ]))
    };
    let (swapped, noted) =
        to("gemini-2.5-flash", &talk([result("call_b", "8 at Basel"), result("call_a", "4 at Bern")]));
    let (as_called, nothing) =
        to("gemini-2.5-flash", &talk([result("call_a", "4 at Bern"), result("call_b", "8 at Basel")]));
    assert_eq!(swapped, as_called);
    assert_eq!(swapped["contents"][2]["parts"][0]["functionResponse"]["response"]["result"], "4 at Bern");
    assert_eq!(swapped["contents"][2]["parts"][2]["text"], "Well?");
    assert_eq!((noted, nothing), (vec!["messages[] of tools in the order of their calls".to_owned()], vec![]));
    for odd in [result("call_a", "again"), result("call_c", "of none")] {
        let refusal = refusal("gemini-2.5-flash", &talk([result("call_a", "4 at Bern"), odd]));
        assert!(refusal.contains("a tool result whose call is not in the turn before it"), "{refusal}");
    }
}
