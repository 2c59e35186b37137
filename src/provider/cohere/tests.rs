//! The dialect over tables: requests, answers, failures, streams.

use super::*;
use crate::domain::ErrorClass::{
    Auth, Cancelled, ContentPolicy, ContextLength, InvalidRequest, NotFound, Overloaded, Permission, QuotaExhausted,
    RateLimit, Refused, ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::domain::{ChatRequest, Finish, ToolCall, Unit};
use crate::provider::checks::{
    Case, Chat, answer, at, case, check_failures, check_finishes, encoded, headers, long_conversation, parsed, signed,
    usage,
};
use serde_json::Value;
use serde_json::json;

fn cohere() -> &'static dyn Adapter {
    at(&DIALECT, "https://api.cohere.com/v2")
}

fn refused(request: &ChatRequest) -> String {
    cohere().chat(request, "m", &Capabilities::default()).unwrap_err().to_string()
}

#[test]
fn a_whole_conversation_is_written_in_its_words() {
    let (sent, dropped) = encoded(cohere(), &long_conversation(), &Capabilities::default());
    let text = |text: &str| json!([{"type": "text", "text": text}]);
    let call = |id: &str, arguments: &str| {
        json!({"id": id, "type": "function", "function": {"name": "weather",
            "arguments": arguments}})
    };
    assert_eq!(
        sent,
        json!({
            "model": "the-model", "stream": false,
            "messages": [
                {"role": "system", "content": text("Be brief.")},
                {"role": "system", "content": text("Be kind.")},
                {"role": "user", "content": [{"type": "text", "text": "Where is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}}]},
                {"role": "assistant", "tool_plan": "Looking.",
                    "tool_calls": [call("call.1", r#"{"city":"Rome"}"#), call("call_2", "{}")]},
                {"role": "tool", "tool_call_id": "call.1", "content": text(r#"{"sky":"blue"}"#)},
                {"role": "tool", "tool_call_id": "call_2", "content": text("unknown")},
                {"role": "user", "content": text("And now?")},
            ],
            "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells the weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}],
        })
    );
    assert_eq!(dropped, Vec::<String>::new());
}

#[test]
fn parameters_have_other_names_and_bounds() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let body = json!({"prompt": "Hi", "max_tokens": 9, "temperature": 0.5, "top_p": 1, "top_k": 3, "seed": 7,
        "presence_penalty": -0.5, "frequency_penalty": 0.2, "stop": ["1", "2", "3", "4", "5", "6"],
        "reasoning_effort": "none", "user": "ann",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}});
    let (sent, dropped) = encoded(cohere(), &parsed(body), &Capabilities::default());
    for (name, value) in [
        ("max_tokens", json!(9)),
        ("temperature", json!(0.5)),
        ("p", json!(0.99)),
        ("k", json!(3)),
        ("seed", json!(7)),
        ("presence_penalty", json!(0.0)),
        ("frequency_penalty", json!(0.2)),
        ("stop_sequences", json!(["1", "2", "3", "4", "5"])),
        ("thinking", json!({"type": "disabled"})),
        ("response_format", json!({"type": "json_object", "json_schema": schema})),
    ] {
        assert_eq!(sent[name], value, "{name}");
    }
    assert_eq!(
        dropped,
        [
            "response_format.json_schema.name",
            "user",
            "stop beyond 5 (the answer is cut at the others)",
            "top_p as 0.99",
            "presence_penalty as 0"
        ]
    );
    let tools = json!([{"type": "function", "function": {"name": "a b"}}]);
    let chosen = |choice: &str| {
        encoded(
            cohere(),
            &parsed(json!({"prompt": "Hi", "tools": tools, "tool_choice": choice})),
            &Capabilities::default(),
        )
    };
    assert_eq!(chosen("required").0["tool_choice"], "REQUIRED");
    assert_eq!(chosen("none").0["tool_choice"], "NONE");
    assert_eq!(chosen("auto").0.get("tool_choice"), None);
    assert_eq!(chosen("auto").0["tools"][0]["function"]["name"], "a_b");
    assert_eq!(chosen("auto").1, ["tools[].function.name in letters that the dialect takes"]);
}

#[test]
fn what_it_cannot_express_is_for_another_rung() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let named = json!({"prompt": "Hi", "tools": tools, "tool_choice": {"type": "function", "function": {"name": "f"}}});
    assert!(refused(&parsed(named)).contains("forces a call"));
    let both = json!({"prompt": "JSON", "tools": tools, "response_format": {"type": "json_object"}});
    assert!(refused(&parsed(both.clone())).contains("tools together with a response schema"));
    let mut neither = both;
    neither["tool_choice"] = json!("none");
    let (sent, dropped) = encoded(cohere(), &parsed(neither), &Capabilities::default());
    assert_eq!((sent.get("tools"), dropped.len()), (None, 2), "{dropped:?}");
    let odd = json!({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]});
    assert!(refused(&parsed(odd)).contains("a file without `file_data`"));
    // A message of nothing is left out, and a conversation of nothing is not one.
    assert!(refused(&parsed(json!({"messages": [{"role": "user", "content": " "}]}))).contains("without words"));
}

#[test]
fn an_answer_is_read_and_billed_units_count() {
    let read = answer(
        cohere(),
        &json!({"id": "x", "finish_reason": "TOOL_CALL", "message": {"role": "assistant",
        "content": [{"type": "thinking", "thinking": "Hm"}], "tool_plan": "I look.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}],
        "citations": [{"start": 0}]},
        "usage": {"billed_units": {"input_tokens": 10.0, "output_tokens": 3.0},
            "tokens": {"input_tokens": 73.0, "output_tokens": 5.0},
            "cached_tokens": 4}}),
    );
    assert_eq!((read.text.as_deref(), read.reasoning.as_deref()), (Some("I look."), Some("Hm")));
    assert_eq!(read.tool_calls, [ToolCall { id: "c1".into(), name: "f".into(), arguments: "{\"a\":1}".into() }]);
    assert_eq!((read.finish, read.id.as_deref(), read.model), (Finish::ToolCall, Some("x"), None));
    assert_eq!(read.usage, usage([6, 4, 0, 0, 3, 0]));
    assert!(read.beside.message.is_empty() && read.beside.completion.is_empty(), "{:?}", read.beside);
    let tokens = json!({"finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
        "usage": {"tokens": {"input_tokens": 7, "output_tokens": 2}}});
    assert_eq!(answer(cohere(), &tokens).usage, usage([7, 0, 0, 0, 2, 0]));
}

#[test]
fn reasons_why_an_answer_ended() {
    let finish = |word: &Value| {
        let message = json!({"role": "assistant", "content": [{"type": "text", "text": "Hi"}]});
        answer(cohere(), &json!({"message": message, "finish_reason": word})).finish
    };
    check_finishes(
        finish,
        &[
            (json!("COMPLETE"), Finish::Complete),
            (json!("STOP_SEQUENCE"), Finish::Complete),
            (json!("MAX_TOKENS"), Finish::Length),
            (json!("TOOL_CALL"), Finish::ToolCall),
            (json!("ERROR"), Finish::Error),
            (json!("TIMEOUT"), Finish::Error),
            (json!("ERROR_TOXIC"), Finish::ContentFilter),
            (json!("MOON"), Finish::Unknown),
            (json!(null), Finish::Error),
        ],
    );
}

const FAILURES: &[Case] = &[
    case(
        "too long",
        400,
        r#"{"message":"too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5021."}"#,
        ContextLength,
        Request,
        None,
    ),
    case("policy", 400, r#"{"message":"the prompt violates our usage policy"}"#, ContentPolicy, Request, None),
    case(
        "request",
        400,
        r#"{"message":"invalid request: message must be at least 1 token long"}"#,
        InvalidRequest,
        Request,
        None,
    ),
    case("key", 401, r#"{"message":"invalid api token"}"#, Auth, Key, None),
    case("money", 402, r#"{"message":"billing limit reached"}"#, QuotaExhausted, Key, None),
    case(
        "permission",
        403,
        r#"{"message":"your key does not have access to model command-x"}"#,
        Permission,
        Model,
        None,
    ),
    case(
        "model",
        404,
        r#"{"message":"model 'command-x' not found, make sure the correct model ID was used and that you have access to the model."}"#,
        NotFound,
        Model,
        None,
    ),
    case(
        "parameter",
        422,
        r#"{"message":"invalid request: temperature is not supported by this model"}"#,
        Refused,
        Request,
        None,
    ),
    case(
        "a minute",
        429,
        r#"{"message":"You are using a Trial key, which is limited to 40 API calls / minute. You can continue to use the Trial key for free"}"#,
        RateLimit,
        Model,
        None,
    ),
    case(
        "a month",
        429,
        r#"{"message":"You are using a Trial key, which is limited to 1000 API calls / month."}"#,
        QuotaExhausted,
        Key,
        None,
    ),
    case("a wait", 429, r#"{"message":"too many requests"}"#, RateLimit, Model, None)
        .with(&[("retry-after", "7")])
        .waits(7_000),
    case("a wait in milliseconds", 429, r#"{"id":"x","message":"too many requests"}"#, RateLimit, Model, None)
        .with(&[("retry-after-ms", "2500"), ("retry-after", "2")])
        .waits(2_500),
    case(
        "text to embed",
        400,
        r#"{"id":"x","message":"invalid request: too many tokens: total number of tokens across all input texts cannot exceed 512"}"#,
        ContextLength,
        Request,
        None,
    ),
    case("token", 498, r#"{"message":"invalid token"}"#, Auth, Key, None),
    case("cancelled", 499, r#"{"message":"request cancelled by user"}"#, Cancelled, Request, None),
    case("server", 500, r#"{"message":"internal server error"}"#, ServerError, Model, None),
    case("not implemented", 501, r#"{"message":"not implemented"}"#, Refused, Request, None),
    case("busy", 503, r#"{"message":"service unavailable"}"#, Overloaded, Model, None),
    case("timeout", 504, r#"{"message":"gateway timeout"}"#, Timeout, Model, None),
    case("an error in a 200", 200, r#"{"message":"internal server error"}"#, ServerError, Model, None),
    case("no message", 200, r#"{"id":"x","finish_reason":"COMPLETE"}"#, ServerError, Model, None),
];

#[test]
fn failures_are_told_apart() {
    check_failures(cohere(), FAILURES);
}

#[test]
fn headers_of_trial_keys_are_limits() {
    let headers = headers(&[
        ("x-trial-endpoint-call-limit", "40"),
        ("x-trial-endpoint-call-remaining", "39"),
        ("x-endpoint-monthly-call-limit", "1000"),
    ]);
    let seen = cohere().limits(&WireReply::new(200, &headers, b"{}"));
    let rows: Vec<_> = seen.iter().map(|seen| (seen.unit, seen.limit, seen.remaining, seen.pool)).collect();
    assert_eq!(rows, [(Unit::Requests, Some(40), Some(39), None), (Unit::Requests, Some(1000), None, Some("month"))]);
    assert_eq!(signed(&DIALECT, "k")["authorization"], "Bearer k");
}

#[test]
fn the_probabilities_of_tokens_are_asked_for_and_read() {
    let request = parsed(json!({"messages": [{"role": "user", "content": "?"}], "logprobs": true, "top_logprobs": 2}));
    let (body, dropped) = encoded(cohere(), &request, &Capabilities::default());
    assert_eq!((&body["logprobs"], dropped), (&json!(true), vec!["top_logprobs".to_owned()]));
    let pieces = json!([{"token_ids": [1], "text": "Hi", "logprobs": [-0.5]},
        {"token_ids": [2, 3], "text": " there", "logprobs": [-0.25, -1.0]}]);
    let whole = json!({"finish_reason": "COMPLETE", "logprobs": pieces,
        "message": {"role": "assistant", "content": [{"type": "text", "text": "Hi there"}]}});
    let read = answer(cohere(), &whole).beside.choice.remove("logprobs").unwrap();
    let told: Vec<(&str, f64)> = read["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| (token["token"].as_str().unwrap(), token["logprob"].as_f64().unwrap()))
        .collect();
    assert_eq!(told, [("Hi", -0.5), (" there", -0.25), ("", -1.0)]);
    // A stream has them with its pieces.
    let start = json!({"type": "content-start", "delta": {"message": {"content": {"type": "text", "text": ""}}}});
    let delta = |text: &str, piece: &Value| {
        let delta = json!({"message": {"content": {"text": text}}});
        json!({"type": "content-delta", "delta": delta, "logprobs": piece})
    };
    let end = json!({"type": "message-end", "delta": {"finish_reason": "COMPLETE"}});
    let events = [start, delta("Hi", &pieces[0]), delta(" there", &pieces[1]), end];
    let text = events.map(|event| format!("data: {event}\n\n")).concat();
    let headers = headers(&[]);
    let reply = WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, text.as_bytes()) };
    assert_eq!(cohere().decode(&reply).unwrap().beside.choice["logprobs"], read);
}

#[test]
fn a_stream_with_a_plan_and_calls_is_the_same_answer() {
    let events = [
        json!({"type": "message-start", "id": "x",
            "delta": {"message": {"role": "assistant", "content": [], "tool_calls": []}}}),
        json!({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I "}}}),
        json!({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "look."}}}),
        json!({"type": "tool-call-start", "index": 0,
            "delta": {"message": {"tool_calls": {"id": "c", "type": "function",
                "function": {"name": "f", "arguments": ""}}}}}),
        json!({"type": "tool-call-delta", "index": 0,
            "delta": {"message": {"tool_calls": {"function": {"arguments": "{\"a\":"}}}}}),
        json!({"type": "tool-call-delta", "index": 0,
            "delta": {"message": {"tool_calls": {"function": {"arguments": "1}"}}}}}),
        json!({"type": "tool-call-end", "index": 0}),
        json!({"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"start": 0}}}}),
        json!({"type": "message-end",
            "delta": {"finish_reason": "TOOL_CALL", "usage": {"tokens": {"input_tokens": 3, "output_tokens": 2}}}}),
    ];
    let text = events.map(|event| format!("data: {event}\n\n")).concat();
    let headers = headers(&[]);
    let streamed = |text: &str| {
        cohere().decode(&WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, text.as_bytes()) })
    };
    let read = streamed(&text).unwrap();
    assert_eq!((read.text.as_deref(), read.finish), (Some("I look."), Finish::ToolCall));
    assert_eq!(read.tool_calls, [ToolCall { id: "c".into(), name: "f".into(), arguments: "{\"a\":1}".into() }]);
    assert_eq!(read.usage, usage([3, 0, 0, 0, 2, 0]));
    let failed = "data: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"ERROR\",\"error\":\"the model is \
        overloaded\"}}\n\n";
    assert_eq!(streamed(failed).unwrap_err().class, Overloaded);
}
