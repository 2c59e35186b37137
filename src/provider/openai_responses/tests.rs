//! The dialect over tables: requests, answers, failures, streams.

use super::*;
use crate::domain::ErrorClass::{
    ContentPolicy, ContextLength, NotFound, Overloaded, PayloadTooLarge, Permission, QuotaExhausted, RateLimit,
    Refused, ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::domain::{Finish, ToolCall};
use crate::provider::checks::{
    Case, Chat, answer, at, case, check_failures, check_finishes, encoded, headers, long_conversation, parsed, usage,
};
use serde_json::Value;
use serde_json::json;

fn responses() -> &'static dyn Adapter {
    at(&DIALECT, "https://api.openai.com/v1")
}

#[test]
fn a_whole_conversation_becomes_items() {
    let (sent, dropped) = encoded(responses(), &long_conversation(), &Capabilities::default());
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    assert_eq!(
        sent,
        json!({
            "model": "the-model", "store": false, "instructions": "Be brief.",
            "input": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [{"type": "input_text", "text": "Where is this?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "low"}]},
                {"role": "assistant", "content": "Looking."},
                {"type": "function_call", "call_id": "call.1", "name": "weather", "arguments": "{\"city\":\"Rome\"}"},
                {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": ""},
                {"type": "function_call_output", "call_id": "call.1", "output": "{\"sky\":\"blue\"}"},
                {"type": "function_call_output", "call_id": "call_2", "output": "unknown"},
                {"role": "user", "content": "And now?"},
            ],
            "tools": [{"type": "function", "name": "weather", "description": "Tells the weather",
                "parameters": parameters, "strict": false}],
        })
    );
    assert_eq!(dropped, Vec::<String>::new());
}

#[test]
fn parameters_have_other_names_and_what_has_none_is_named() {
    let strict = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
        "additionalProperties": false});
    let body = json!({"prompt": "Hi", "max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 7,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "stop": "END", "reasoning_effort": "low", "user": "ann",
        "verbosity": "low", "metadata": {"k": "v"}, "service_tier": "flex", "prompt_cache_key": "p",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": strict, "strict": true,
            "description": "A form"}}});
    let (sent, dropped) = encoded(responses(), &parsed(body), &Capabilities::default());
    for (name, value) in [
        ("max_output_tokens", json!(16)),
        ("temperature", json!(0.5)),
        ("top_p", json!(0.9)),
        ("user", json!("ann")),
        ("reasoning", json!({"effort": "low"})),
        ("metadata", json!({"k": "v"})),
        ("service_tier", json!("flex")),
        ("prompt_cache_key", json!("p")),
        (
            "text",
            json!({"verbosity": "low",
                "format": {"type": "json_schema", "name": "n", "schema": strict, "strict": true,
                    "description": "A form"}}),
        ),
    ] {
        assert_eq!(sent[name], value, "{name}");
    }
    assert_eq!(
        dropped,
        ["max_tokens below 16", "seed", "presence_penalty", "frequency_penalty", "stop (the answer is cut there)"]
    );
    // A schema that leaves something open cannot be enforced; a model without sampling gets none.
    let open = json!({"type": "object"});
    let body = json!({"prompt": "Hi", "temperature": 1, "response_format": {"type": "json_schema",
        "json_schema": {"name": "n", "schema": open, "strict": true}},
        "tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": strict}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}}});
    let model = Capabilities { temperature: Some(false), ..Capabilities::default() };
    let (sent, dropped) = encoded(responses(), &parsed(body), &model);
    assert_eq!(sent["text"]["format"]["strict"], false);
    assert_eq!(
        (&sent["tools"][0]["strict"], &sent["tool_choice"]),
        (&json!(true), &json!({"type": "function", "name": "f"}))
    );
    assert_eq!(dropped, ["response_format.json_schema.strict", "temperature"]);
    let refused = |body| responses().chat(&parsed(body), "m", &Capabilities::default()).unwrap_err().to_string();
    assert!(refused(json!({"prompt": "Hi", "response_format": {"type": "json_object"}})).contains("the word JSON"));
    let file = json!({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]});
    assert!(refused(file).contains("a file without `file_data`"));
}

#[test]
fn an_answer_is_read_from_its_items() {
    let read = answer(
        responses(),
        &json!({"id": "resp_1", "object": "response", "created_at": 1, "status": "completed",
        "error": null, "incomplete_details": null, "model": "m", "instructions": "x", "service_tier": "flex",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
            {"type": "web_search_call", "id": "ws"},
            {"type": "message", "role": "assistant", "phase": "commentary",
                "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "message", "role": "assistant", "phase": "final_answer", "content": [
                {"type": "output_text", "text": "H", "annotations": [{"type": "url_citation", "url": "u"}]},
                {"type": "output_text", "text": "i", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"}],
        "usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3,
            "cache_write_tokens_details": {"ttl_12h_tokens": 2}},
            "output_tokens": 6, "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 16}}),
    );
    assert_eq!((read.text.as_deref(), read.reasoning.as_deref()), (Some("Hi"), Some("Hm")));
    assert_eq!(read.tool_calls, [ToolCall { id: "c1".into(), name: "f".into(), arguments: "{\"a\":1}".into() }]);
    assert_eq!((read.finish, read.id.as_deref(), read.model.as_deref()), (Finish::ToolCall, Some("resp_1"), Some("m")));
    assert_eq!(read.usage, usage([3, 4, 1, 2, 6, 5]));
    assert_eq!(read.beside.service_tier.as_deref(), Some("flex"));
    assert_eq!(Value::Object(read.beside.message), json!({"annotations": [{"type": "url_citation", "url": "u"}]}));
    assert!(read.beside.completion.is_empty(), "{:?}", read.beside.completion);
    let declined = json!({"status": "completed",
        "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]});
    let read = answer(responses(), &declined);
    assert_eq!((read.finish, read.refusal.as_deref(), read.text), (Finish::Refusal, Some("No."), None));
}

#[test]
fn reasons_why_an_answer_ended() {
    let finish = |body: &Value| {
        let mut whole = json!({"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        answer(responses(), &whole).finish
    };
    let incomplete = |reason: &str| json!({"status": "incomplete", "incomplete_details": {"reason": reason}});
    check_finishes(
        finish,
        &[
            (json!({"status": "completed"}), Finish::Complete),
            (incomplete("max_output_tokens"), Finish::Length),
            (incomplete("content_filter"), Finish::ContentFilter),
            (incomplete("max_messages"), Finish::Length),
            (incomplete("steered"), Finish::Length),
            (incomplete("moon"), Finish::Length),
            (json!({"status": "incomplete"}), Finish::Length),
            (json!({"status": "cancelled"}), Finish::Error),
            (json!({"status": "queued"}), Finish::Pause),
            (json!({"status": "in_progress"}), Finish::Pause),
            (json!({"status": "moon"}), Finish::Unknown),
            (json!({}), Finish::Error),
        ],
    );
}

const FAILURES: &[Case] = &[
    case(
        "model",
        404,
        r#"{"error":{"message":"The model `x` does not exist","type":"invalid_request_error","code":"model_not_found"}}"#,
        NotFound,
        Model,
        Some("model_not_found"),
    ),
    case(
        "rate",
        429,
        r#"{"error":{"message":"Rate limit reached. Please try again in 2s.","code":"rate_limit_exceeded"}}"#,
        RateLimit,
        Model,
        Some("rate_limit_exceeded"),
    )
    .waits(2_000),
    case(
        "money",
        429,
        r#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#,
        QuotaExhausted,
        Key,
        Some("insufficient_quota"),
    ),
    case(
        "busy",
        503,
        r#"{"error":{"message":"m","type":"service_unavailable_error","code":"server_is_overloaded"}}"#,
        Overloaded,
        Model,
        Some("server_is_overloaded"),
    ),
    case(
        "window",
        400,
        r#"{"error":{"message":"Your input exceeds the context window of this model.","code":"context_length_exceeded"}}"#,
        ContextLength,
        Request,
        Some("context_length_exceeded"),
    ),
    case(
        "failed: server",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"server_error","message":"m"}}"#,
        ServerError,
        Model,
        Some("server_error"),
    ),
    case(
        "failed: rate",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"rate_limit_exceeded","message":"m"}}"#,
        RateLimit,
        Model,
        Some("rate_limit_exceeded"),
    ),
    case(
        "failed: prompt",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"invalid_prompt","message":"m"}}"#,
        ContentPolicy,
        Request,
        Some("invalid_prompt"),
    ),
    case(
        "failed: biology",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"bio_policy","message":"m"}}"#,
        ContentPolicy,
        Request,
        Some("bio_policy"),
    ),
    case(
        "failed: alignment",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"misalignment_policy_violation","message":"m"}}"#,
        ContentPolicy,
        Request,
        Some("misalignment_policy_violation"),
    ),
    case(
        "failed: residency",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"data_residency_mismatch","message":"m"}}"#,
        Permission,
        Model,
        Some("data_residency_mismatch"),
    ),
    case(
        "failed: vectors",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"vector_store_timeout","message":"m"}}"#,
        Timeout,
        Model,
        Some("vector_store_timeout"),
    ),
    case(
        "failed: image against the policy",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"image_content_policy_violation","message":"m"}}"#,
        ContentPolicy,
        Request,
        Some("image_content_policy_violation"),
    ),
    case(
        "failed: image",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"invalid_image","message":"m"}}"#,
        Refused,
        Request,
        Some("invalid_image"),
    ),
    case(
        "failed: image unread",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"image_parse_error","message":"m"}}"#,
        Refused,
        Request,
        Some("image_parse_error"),
    ),
    case(
        "failed: image too small",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"image_too_small","message":"m"}}"#,
        Refused,
        Request,
        Some("image_too_small"),
    ),
    case(
        "failed: image too large",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"image_too_large","message":"m"}}"#,
        PayloadTooLarge,
        Request,
        Some("image_too_large"),
    ),
    case(
        "failed: file of an image too large",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"image_file_too_large","message":"m"}}"#,
        PayloadTooLarge,
        Request,
        Some("image_file_too_large"),
    ),
    case(
        "failed: image's format",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"invalid_image_format","message":"m"}}"#,
        Refused,
        Request,
        Some("invalid_image_format"),
    ),
    case(
        "failed: image's letters",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"invalid_base64_image","message":"m"}}"#,
        Refused,
        Request,
        Some("invalid_base64_image"),
    ),
    case(
        "failed: image's address",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"invalid_image_url","message":"m"}}"#,
        Refused,
        Request,
        Some("invalid_image_url"),
    ),
    case(
        "failed: image's mode",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"invalid_image_mode","message":"m"}}"#,
        Refused,
        Request,
        Some("invalid_image_mode"),
    ),
    case(
        "failed: image's kind",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"unsupported_image_media_type","message":"m"}}"#,
        Refused,
        Request,
        Some("unsupported_image_media_type"),
    ),
    case(
        "failed: image of nothing",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"empty_image_file","message":"m"}}"#,
        Refused,
        Request,
        Some("empty_image_file"),
    ),
    case(
        "failed: image not fetched",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"failed_to_download_image","message":"m"}}"#,
        Refused,
        Request,
        Some("failed_to_download_image"),
    ),
    case(
        "failed: image gone",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"image_file_not_found","message":"m"}}"#,
        Refused,
        Request,
        Some("image_file_not_found"),
    ),
    case(
        "failed: a code of tomorrow",
        200,
        r#"{"status":"failed","output":[],"error":{"code":"moon_phase","message":"m"}}"#,
        ServerError,
        Model,
        Some("moon_phase"),
    ),
    case("failed: no word", 200, r#"{"status":"failed","output":[],"error":null}"#, ServerError, Model, None),
    case("no output", 200, r#"{"id":"x","status":"completed"}"#, ServerError, Model, None),
];

#[test]
fn failures_are_told_apart() {
    check_failures(responses(), FAILURES);
}

#[test]
fn the_probabilities_of_tokens_are_asked_for_and_read() {
    let asked = |model: &str, more: &str| {
        let request = parsed(
            serde_json::from_str(&format!(r#"{{"messages":[{{"role":"user","content":"?"}}]{more}}}"#)).unwrap(),
        );
        let wire = responses().chat(&request, model, &Capabilities::default()).unwrap();
        let body: Value = serde_json::from_slice(&wire.body).unwrap();
        (body["include"].clone(), body["top_logprobs"].clone(), wire.dropped)
    };
    let include = json!(["message.output_text.logprobs"]);
    assert_eq!(asked("gpt-4o", r#","logprobs":true,"top_logprobs":3"#), (include.clone(), json!(3), vec![]));
    assert_eq!(asked("gpt-4o", r#","logprobs":true"#), (include, Value::Null, vec![]));
    for (model, more, dropped) in [
        ("gpt-4o", r#","logprobs":false,"top_logprobs":3"#, vec!["logprobs", "top_logprobs"]),
        ("o3", r#","logprobs":true"#, vec!["logprobs"]),
    ] {
        let (include, _, noted) = asked(model, more);
        assert_eq!((include, noted), (Value::Null, dropped.into_iter().map(str::to_owned).collect()), "{model}");
    }
    let token = json!({"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []});
    let read = answer(
        responses(),
        &json!({"id": "x", "status": "completed", "output": [{"type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": [token]}]}]}),
    );
    assert_eq!(read.beside.choice["logprobs"], json!({"content": [token]}));
}

#[test]
fn a_stream_is_its_last_event_and_an_error_may_come_before_it() {
    let headers = headers(&[]);
    let streamed = |text: &str| {
        responses().decode(&WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, text.as_bytes()) })
    };
    let event = |value: Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap());
    let begun =
        event(json!({"type": "response.created", "response": {"id": "x", "status": "in_progress", "output": []}}));
    let delta = event(json!({"type": "response.output_text.delta", "delta": "Hel"}));
    let ended = |kind: &str, more: Value| {
        let mut response =
            json!({"id": "x", "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hel"}]}]});
        response.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event(json!({"type": kind, "response": response}))
    };
    let cut = ended(
        "response.incomplete",
        json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}),
    );
    let read = streamed(&format!("{begun}{delta}{cut}")).unwrap();
    assert_eq!((read.text.as_deref(), read.finish), (Some("Hel"), Finish::Length));
    let failed =
        ended("response.failed", json!({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "m"}}));
    assert_eq!(streamed(&format!("{begun}{failed}")).unwrap_err().class, RateLimit);
    let error = event(json!({"type": "error", "code": "insufficient_quota", "message": "m", "param": null}));
    assert_eq!(streamed(&format!("{begun}{error}")).unwrap_err().class, QuotaExhausted);
    assert_eq!(streamed(&format!("{begun}{delta}")).unwrap_err().class, crate::domain::ErrorClass::Network);
}
