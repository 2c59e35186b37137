//! The dialect over tables: requests, answers, failures.

use super::*;
use crate::domain::ErrorClass::{
    Auth, Cancelled, ContextLength, InvalidRequest, NotFound, Overloaded, RateLimit, RateLimitDaily, Refused,
    ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::domain::Usage;
use crate::domain::{ChatRequest, Finish, ToolCall};
use crate::provider::checks::{
    Case, Chat, answer, at, case, check_failures, check_finishes, encoded, headers, long_conversation, parsed, signed,
    usage,
};
use serde_json::Value;
use serde_json::json;

fn ollama() -> &'static dyn Adapter {
    at(&DIALECT, "http://127.0.0.1:11434")
}

fn refused(request: &ChatRequest) -> String {
    ollama().chat(request, "m", &Capabilities::default()).unwrap_err().to_string()
}

#[test]
fn a_whole_conversation_is_written_in_its_words() {
    let (sent, dropped) = encoded(ollama(), &long_conversation(), &Capabilities::default());
    assert_eq!(
        sent,
        json!({
            "model": "the-model", "stream": false, "truncate": false, "shift": false,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Where is this?", "images": ["QUJD"]},
                {"role": "assistant", "content": "Looking.", "tool_calls": [
                    {"function": {"name": "weather", "arguments": {"city": "Rome"}}},
                    {"function": {"name": "weather", "arguments": {}}},
                ]},
                {"role": "tool", "content": "{\"sky\":\"blue\"}", "tool_name": "weather"},
                {"role": "tool", "content": "unknown", "tool_name": "weather"},
                {"role": "user", "content": "And now?"},
            ],
            "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells the weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}],
        })
    );
    assert_eq!(dropped, ["messages[].content[].image_url.detail"]);
}

#[test]
fn results_go_in_the_order_of_their_calls_because_they_have_no_ids() {
    let call = |id: &str, city: &str| {
        let arguments = json!({ "city": city }).to_string();
        json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}})
    };
    let sent = |results: &[(&str, &str)]| {
        let mut messages = vec![
            json!({"role": "user", "content": "Where is it warmer?"}),
            json!({"role": "assistant", "tool_calls": [call("call_a", "Bern"), call("call_b", "Basel")]}),
        ];
        let written = |(id, said): &(&str, &str)| json!({"role": "tool", "tool_call_id": id, "content": said});
        messages.extend(results.iter().map(written));
        messages.push(json!({"role": "user", "content": "Well?"}));
        let (sent, dropped) = encoded(ollama(), &parsed(json!({ "messages": messages })), &Capabilities::default());
        let said = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
        (sent["messages"].as_array().unwrap()[2..].iter().map(said).collect::<Vec<_>>(), dropped)
    };
    let ordered = "messages[] of tools in the order of their calls";
    for (results, said, noted) in [
        (&[("call_a", "4"), ("call_b", "8")][..], &["4", "8", "Well?"][..], &[][..]),
        (&[("call_b", "8"), ("call_a", "4")], &["4", "8", "Well?"], &[ordered]),
        // What a model cannot match by place is sent, and the loss of the ids noted.
        (&[("call_b", "8")], &["8", "Well?"], &["messages[].tool_call_id"]),
        (&[("call_a", "4"), ("call_b", "8"), ("call_a", "5")], &["4", "8", "5", "Well?"], &["messages[].tool_call_id"]),
    ] {
        let (contents, dropped) = sent(results);
        assert_eq!(
            (contents, dropped.iter().map(String::as_str).collect::<Vec<_>>()),
            (said.iter().map(|text| (*text).to_owned()).collect(), noted.to_vec()),
            "{results:?}"
        );
    }
}

#[test]
fn images_among_texts_lose_their_place_and_that_is_named() {
    let (text, image) = (
        |said: &str| json!({"type": "text", "text": said}),
        json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}),
    );
    let place = "messages[].content[].image_url: its place among the texts";
    for (parts, noted) in [
        (json!([text("Which?"), image, image]), &[][..]),
        (json!([image, text("Which?")]), &[]),
        (json!([text("One:"), image, text("Two:"), image]), &[place, "messages[].content[] as one text"]),
        (json!([image, text("or"), image]), &[place]),
    ] {
        let body = json!({"messages": [{"role": "user", "content": parts}]});
        assert_eq!(encoded(ollama(), &parsed(body), &Capabilities::default()).1, noted, "{parts}");
    }
}

#[test]
fn parameters_become_options_and_the_window_is_that_of_the_model() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let body = json!({"prompt": "Hi", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 7,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "stop": "END", "reasoning_effort": "minimal", "user": "ann",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}});
    let model = Capabilities { context_window: Some(8192), ..Capabilities::default() };
    let (sent, dropped) = encoded(ollama(), &parsed(body), &model);
    assert_eq!(
        sent["options"],
        json!({"num_predict": 9, "num_ctx": 8192, "temperature": 0.5, "top_p": 0.9, "top_k": 3,
        "seed": 7, "presence_penalty": 0.1, "frequency_penalty": 0.2, "stop": ["END"]})
    );
    assert_eq!((&sent["format"], &sent["think"]), (&schema, &json!("low")));
    assert_eq!(dropped, ["reasoning_effort minimal as low", "response_format.json_schema.name", "user"]);
    for (effort, think) in
        [("none", json!(false)), ("high", json!("high")), ("xhigh", json!("max")), ("odd", Value::Null)]
    {
        let request = parsed(json!({"prompt": "Hi", "reasoning_effort": effort}));
        assert_eq!(encoded(ollama(), &request, &Capabilities::default()).0["think"], think, "{effort}");
    }
    let object = parsed(json!({"prompt": "JSON?", "response_format": {"type": "json_object"}}));
    assert_eq!(encoded(ollama(), &object, &Capabilities::default()).0["format"], "json");
    // A model without sampling, and one with a cap of its own.
    let model = Capabilities { temperature: Some(false), max_output_tokens: Some(50), ..Capabilities::default() };
    let (sent, dropped) = encoded(ollama(), &parsed(json!({"prompt": "Hi", "temperature": 0.5})), &model);
    assert_eq!(sent["options"], json!({"num_predict": 50}));
    assert_eq!(dropped, ["max_tokens 50 added", "temperature"]);
}

#[test]
fn what_it_cannot_express_is_for_another_rung() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let with = |choice: Value| parsed(json!({"prompt": "Hi", "tools": tools, "tool_choice": choice}));
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "f"}})] {
        assert!(refused(&with(choice)).contains("forces a call"));
    }
    let image = user(json!([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]));
    assert!(refused(&parsed(image)).contains("images by web address"));
    let audio = user(json!([{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]));
    assert!(refused(&parsed(audio)).contains("audio"));
    let orphan = json!({"messages": [{"role": "user", "content": "Hi"},
        {"role": "tool", "tool_call_id": "x", "content": "r"}]});
    assert!(refused(&parsed(orphan)).contains("whose call is not in the conversation"));
    let lame = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [
        {"id": "x", "type": "function", "function": {"name": "f", "arguments": "Rome"}}]},
        {"role": "tool", "tool_call_id": "x", "content": "r"}]});
    assert!(refused(&parsed(lame)).contains("not a JSON object"));
    // No tool may be called, so none is offered.
    let (sent, dropped) = encoded(ollama(), &with(json!("none")), &Capabilities::default());
    assert_eq!((sent.get("tools"), dropped), (None, vec!["tools (tool_choice is none)".to_owned()]));
}

#[test]
fn an_answer_is_read_with_thoughts_calls_and_counts() {
    let read = answer(
        ollama(),
        &json!({"model": "m", "created_at": "2026-11-20T12:00:00Z", "done": true,
        "done_reason": "stop", "message": {"role": "assistant", "content": "Hi", "thinking": "Hm", "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": 1}}}, {"id": "own", "function": {"name": "g"}}]},
        "total_duration": 5, "prompt_eval_count": 10, "prompt_eval_cached_count": 4, "eval_count": 3, "odd": 1}),
    );
    assert_eq!((read.text.as_deref(), read.reasoning.as_deref()), (Some("Hi"), Some("Hm")));
    let call = |id: &str, name: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    };
    assert_eq!(read.tool_calls, [call("call_0", "f", "{\"a\":1}"), call("own", "g", "{}")]);
    assert_eq!(
        (read.finish, read.finish_raw.as_deref(), read.model.as_deref()),
        (Finish::ToolCall, Some("stop"), Some("m"))
    );
    assert_eq!(read.usage, usage([6, 4, 0, 0, 3, 0]));
    assert_eq!(read.usage_raw.unwrap()["total_duration"], 5);
    assert_eq!(Value::Object(read.beside.completion), json!({"odd": 1}));
    // Counts of zero are left out, and a server may say nothing at all.
    let counted = |counts: Value| {
        let mut body = json!({"model": "m", "message": {"content": "Hi"}, "done": true});
        body.as_object_mut().unwrap().extend(counts.as_object().unwrap().clone());
        answer(ollama(), &body).usage
    };
    assert_eq!(counted(json!({"eval_count": 3})), usage([0, 0, 0, 0, 3, 0]));
    assert_eq!(counted(json!({"prompt_eval_count": 3})), usage([3, 0, 0, 0, 0, 0]));
    assert_eq!(counted(json!({"total_duration": 3})), Usage::default());
}

#[test]
fn reasons_why_an_answer_ended() {
    let finish = |body: &Value| {
        let mut whole = json!({"model": "m", "message": {"role": "assistant", "content": "Hi"}});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        answer(ollama(), &whole).finish
    };
    check_finishes(
        finish,
        &[
            (json!({"done": true, "done_reason": "stop"}), Finish::Complete),
            (json!({"done": true, "done_reason": "length"}), Finish::Length),
            (json!({"done": true, "done_reason": "load"}), Finish::Error),
            (json!({"done": true, "done_reason": "unload"}), Finish::Error),
            (json!({"done": true, "done_reason": "moon"}), Finish::Unknown),
            (json!({"done": true}), Finish::Complete),
            (json!({}), Finish::Error),
        ],
    );
}

const FAILURES: &[Case] = &[
    case("model", 404, r#"{"error":"model \"llama9\" not found, try pulling it first"}"#, NotFound, Model, None),
    case("another path", 404, "404 page not found", NotFound, Model, None),
    case("window", 400, r#"{"error":"the input length exceeds the context length"}"#, ContextLength, Request, None),
    case(
        "window while chatting",
        400,
        r#"{"error":"prompt length exceeds the available context size"}"#,
        ContextLength,
        Request,
        None,
    ),
    case("request", 400, r#"{"error":"missing request body"}"#, InvalidRequest, Request, None),
    case("500", 500, r#"{"error":"something went wrong"}"#, ServerError, Model, None),
    case("no thinking", 400, r#"{"error":"\"llama3.2\" does not support thinking"}"#, Refused, Request, None),
    case(
        "no tools",
        400,
        r#"{"error":"registry.ollama.ai/library/gemma:latest does not support tools"}"#,
        Refused,
        Request,
        None,
    ),
    case("cancelled", 499, r#"{"error":"request canceled"}"#, Cancelled, Request, None),
    case(
        "memory",
        500,
        r#"{"error":"model requires more system memory (8.4 GiB) than is available (3.1 GiB)"}"#,
        Overloaded,
        Model,
        None,
    ),
    case(
        "video memory",
        500,
        r#"{"error":"llama runner process has terminated: cudaMalloc failed: out of memory"}"#,
        Overloaded,
        Model,
        None,
    ),
    case("crash", 500, r#"{"error":"llama runner process has terminated: exit status 2"}"#, ServerError, Model, None),
    case(
        "load takes too long",
        500,
        r#"{"error":"timed out waiting for llama runner to start - progress 0.75 - "}"#,
        Timeout,
        Model,
        None,
    ),
    case("loading", 503, r#"{"error":"llm server loading model"}"#, Overloaded, Model, None),
    case(
        "busy",
        503,
        r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
        Overloaded,
        Model,
        None,
    ),
    case("cloud", 502, r#"{"error":"cloud model unreachable"}"#, ServerError, Model, None),
    case("cloud's key", 401, r#"{"error":"unauthorized"}"#, Auth, Key, None),
    case("cloud's rate", 429, r#"{"error":"too many requests"}"#, RateLimit, Model, None),
    case(
        "cloud's plan",
        429,
        r#"{"error":"you've reached your hourly usage limit, please upgrade to continue"}"#,
        RateLimitDaily,
        Key,
        None,
    ),
    case("in a 200", 200, r#"{"error":"unexpected EOF"}"#, ServerError, Model, None),
    case("no message", 200, r#"{"model":"m","done":true}"#, ServerError, Model, None),
];

#[test]
fn failures_are_told_apart() {
    check_failures(ollama(), FAILURES);
    let half = br#"{"model":"m","message":{"content":"Hel"},"done":false}"#;
    let failure = ollama().decode(&WireReply::new(200, &headers(&[]), half)).unwrap_err();
    assert_eq!(failure.class, crate::domain::ErrorClass::Network);
}

#[test]
fn the_probabilities_of_tokens_are_asked_for_and_read() {
    let request = parsed(json!({"messages": [{"role": "user", "content": "?"}], "logprobs": true, "top_logprobs": 2}));
    let (body, dropped) = encoded(ollama(), &request, &Capabilities::default());
    assert_eq!((&body["logprobs"], &body["top_logprobs"], dropped), (&json!(true), &json!(2), vec![]));
    let token = |token: &str, logprob: f64| json!({"token": token, "logprob": logprob, "bytes": null});
    let all = json!({"content": [token("Hi", -0.5), token("!", -0.25)]});
    let whole = json!({"message": {"role": "assistant", "content": "Hi!"}, "done": true, "done_reason": "stop",
        "logprobs": all["content"]});
    assert_eq!(answer(ollama(), &whole).beside.choice["logprobs"], all);
    let line = |text: &str, logprob: f64| {
        json!({"message": {"role": "assistant", "content": text}, "done": false,
        "logprobs": [token(text, logprob)]})
    };
    let end = json!({"message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop"});
    let lines = format!("{}\n{}\n{end}\n", line("Hi", -0.5), line("!", -0.25));
    let read = ollama().decode(&WireReply::new(200, &headers(&[]), lines.as_bytes())).unwrap();
    assert_eq!((read.text.as_deref(), &read.beside.choice["logprobs"]), (Some("Hi!"), &all));
}

#[test]
fn the_cloud_gets_the_key_as_a_bearer() {
    assert_eq!(signed(&DIALECT, "k")["authorization"], "Bearer k");
}
