//! The dialect over tables: requests, answers, failures, streams.

use super::*;
use crate::domain::ErrorClass::{
    Auth, Conflict, ContextLength, InvalidRequest, NotFound, Overloaded, Permission, QuotaExhausted, RateLimit,
    RateLimitDaily, Refused, ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Provider, Request};
use crate::domain::{ChatRequest, Finish, ToolCall};
use crate::provider::checks::{
    Case, Chat, answer, at, case, check_failures, check_finishes, encoded, headers, long_conversation, parsed, usage,
};
use serde_json::Value;
use serde_json::json;

fn bedrock() -> &'static dyn Adapter {
    at(&DIALECT, "https://bedrock-runtime.eu-central-1.amazonaws.com")
}

fn refused(request: &ChatRequest) -> String {
    bedrock().chat(request, "m", &Capabilities::default()).unwrap_err().to_string()
}

#[test]
fn a_whole_conversation_is_written_in_its_words() {
    let (sent, dropped) = encoded(bedrock(), &long_conversation(), &Capabilities::default());
    let call = |id: &str, input: Value| json!({"toolUse": {"toolUseId": id, "name": "weather", "input": input}});
    let result = |id: &str, text: &str| {
        json!({"toolResult": {"toolUseId": id, "content": [{"text": text}],
            "status": "success"}})
    };
    assert_eq!(
        sent,
        json!({
            "system": [{"text": "Be brief."}, {"text": "Be kind."}],
            "messages": [
                {"role": "user", "content": [{"text": "Where is this?"},
                    {"image": {"format": "png", "source": {"bytes": "QUJD"}}}]},
                {"role": "assistant",
                    "content": [{"text": "Looking."}, call("call_1", json!({"city": "Rome"})),
                        call("call_2", json!({}))]},
                {"role": "user", "content": [result("call_1", "{\"sky\":\"blue\"}"), result("call_2", "unknown"),
                    {"text": "And now?"}]},
            ],
            "toolConfig": {"tools": [{"toolSpec": {"name": "weather", "description": "Tells the weather",
                "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}}}}}]},
        })
    );
    assert_eq!(dropped, ["messages[].content[].image_url.detail"]);
}

#[test]
fn marks_of_caching_are_points_behind_what_they_stand_on() {
    let mark = json!({"type": "ephemeral"});
    let hour = json!({"type": "ephemeral", "ttl": "1h"});
    let body = json!({
        "messages": [
            {"role": "system", "content": "Be brief.", "cache_control": hour},
            {"role": "user", "content": [{"type": "text", "text": "Long.", "cache_control": mark},
                {"type": "text", "text": "Short."}]},
        ],
        "tools": [{"type": "function", "function": {"name": "a"}, "cache_control": mark},
            {"type": "function", "function": {"name": "b"}}],
    });
    let sent = |model: &str, body: &Value| {
        let wire = bedrock().chat(&parsed(body.clone()), model, &Capabilities::default()).unwrap();
        (serde_json::from_slice::<Value>(&wire.body).unwrap(), wire.dropped)
    };
    let point = json!({"cachePoint": {"type": "default"}});
    let (told, dropped) = sent("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", &body);
    assert_eq!(dropped, Vec::<String>::new());
    let for_an_hour = json!({"cachePoint": {"type": "default", "ttl": "1h"}});
    assert_eq!(told["system"], json!([{"text": "Be brief."}, for_an_hour]));
    assert_eq!(told["messages"][0]["content"], json!([{"text": "Long."}, point, {"text": "Short."}]));
    let tools = told["toolConfig"]["tools"].as_array().unwrap();
    assert_eq!((tools.len(), &tools[1]), (3, &point));
    // Older models keep for five minutes, Amazon's own take no point among tools, and others none at all.
    let (told, dropped) = sent("anthropic.claude-3-7-sonnet-20250219-v1:0", &body);
    assert_eq!(told["system"][1], point);
    assert_eq!(dropped, ["cache_control for an hour (the model keeps it for five minutes)"]);
    let (told, dropped) = sent("amazon.nova-lite-v1:0", &body);
    assert_eq!((&told["system"][1], told["toolConfig"]["tools"].as_array().unwrap().len()), (&point, 2));
    assert_eq!(dropped[1..], ["tools[].cache_control"]);
    let (told, dropped) = sent("meta.llama3-70b-instruct-v1:0", &body);
    assert!(!told.to_string().contains("cachePoint"));
    let all = ["tools[].cache_control", "messages[].cache_control", "messages[].content[].cache_control"];
    assert_eq!(dropped, all);
    // Of more than it takes the last ones stay.
    let parts: Vec<Value> =
        (0..4).map(|n| json!({"type": "text", "text": n.to_string(), "cache_control": mark})).collect();
    let many = json!({"messages": [{"role": "system", "content": "S", "cache_control": mark},
        {"role": "user", "content": parts}]});
    let (told, dropped) = sent("anthropic.claude-haiku-4-5", &many);
    assert_eq!((&told["system"], dropped), (&json!([{"text": "S"}]), vec!["cache_control beyond 4".to_owned()]));
    assert_eq!(told["messages"][0]["content"].as_array().unwrap().len(), 8);
    let odd =
        json!({"messages": [{"role": "user", "content": "Hi", "cache_control": {"type": "ephemeral", "ttl": "9d"}}]});
    assert_eq!(sent("anthropic.claude-haiku-4-5", &odd).1, ["cache_control for another time than 5m and 1h"]);
}

#[test]
fn a_model_is_one_segment_of_the_path() {
    for (model, path) in [
        ("amazon.nova-lite-v1:0", "/model/amazon.nova-lite-v1%3A0/converse"),
        (
            "arn:aws:bedrock:eu-central-1:1:inference-profile/x",
            "/model/arn%3Aaws%3Abedrock%3Aeu-central-1%3A1%3Ainference-profile%2Fx/converse",
        ),
    ] {
        let mut wire = bedrock().chat(&parsed(json!({"prompt": "Hi"})), model, &Capabilities::default()).unwrap();
        assert_eq!(wire.path, path);
        bedrock().ask_for_stream(&mut wire);
        assert_eq!(wire.path, format!("{path}-stream"));
    }
}

#[test]
fn parameters_have_other_names_and_some_have_none() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
        "additionalProperties": false});
    let body = json!({"prompt": "Hi", "max_tokens": 9, "temperature": 1.5, "top_p": 0.9, "top_k": 3, "seed": 7,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "stop": ["END", " "], "reasoning_effort": "low",
        "user": "ann",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}});
    let (sent, dropped) = encoded(bedrock(), &parsed(body), &Capabilities::default());
    assert_eq!(
        sent["inferenceConfig"],
        json!({"maxTokens": 9, "temperature": 1.0, "topP": 0.9, "stopSequences": ["END"]})
    );
    let form = &sent["outputConfig"]["textFormat"]["structure"]["jsonSchema"];
    assert_eq!(serde_json::from_str::<Value>(form["schema"].as_str().unwrap()).unwrap(), schema);
    assert_eq!(form["name"], "n");
    assert_eq!(
        dropped,
        [
            "temperature above 1",
            "stop of white space (the answer is cut there)",
            "top_k",
            "reasoning_effort",
            "seed",
            "presence_penalty",
            "frequency_penalty",
            "user"
        ]
    );
    // Claude takes one of the two, and `top_k` beside them; OpenAI's models an effort.
    let sent_by = |model: &str, body: Value| -> (Value, Vec<String>) {
        let wire = bedrock().chat(&parsed(body), model, &Capabilities::default()).unwrap();
        (serde_json::from_slice(&wire.body).unwrap(), wire.dropped)
    };
    let sampled = json!({"prompt": "Hi", "temperature": 0.5, "top_p": 0.9, "top_k": 3});
    let (sent, dropped) = sent_by("us.anthropic.claude-haiku-4-5-20251001-v1:0", sampled.clone());
    assert_eq!(sent["inferenceConfig"], json!({"temperature": 0.5}));
    assert_eq!((&sent["additionalModelRequestFields"], dropped), (&json!({"top_k": 3}), vec!["top_p".to_owned()]));
    // One that thinks takes neither.
    let thinking = json!({"prompt": "Hi", "temperature": 0.5, "top_k": 3, "reasoning_effort": "low"});
    let (sent, dropped) = sent_by("us.anthropic.claude-haiku-4-5-20251001-v1:0", thinking.clone());
    assert_eq!(sent.get("inferenceConfig"), None);
    let told = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
    assert_eq!(
        (&sent["additionalModelRequestFields"], dropped),
        (&told, vec!["temperature".to_owned(), "top_k".to_owned()])
    );
    let (sent, _) = sent_by("eu.anthropic.claude-opus-4-6-v1", thinking.clone());
    let told = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}});
    assert_eq!(sent["additionalModelRequestFields"], told);
    let (sent, _) = sent_by("us.amazon.nova-2-lite-v1:0", thinking.clone());
    let told = json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}});
    assert_eq!(sent["additionalModelRequestFields"], told);
    let (sent, _) = sent_by("openai.gpt-oss-120b-1:0", thinking);
    assert_eq!(sent["additionalModelRequestFields"], json!({"reasoning_effort": "low"}));
    // A member that no model of this kind takes is for another rung.
    let old = json!({"prompt": "JSON",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}});
    let old = bedrock().chat(&parsed(old), "anthropic.claude-3-5-sonnet-20241022-v2:0", &Capabilities::default());
    assert!(old.unwrap_err().to_string().contains("json_schema"));
}

#[test]
fn tools_are_offered_or_not_and_a_history_needs_them() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let choice = |choice: Value| {
        encoded(
            bedrock(),
            &parsed(json!({"prompt": "Hi", "tools": tools, "tool_choice": choice})),
            &Capabilities::default(),
        )
    };
    assert_eq!(choice(json!("auto")).0["toolConfig"]["toolChoice"], json!({"auto": {}}));
    assert_eq!(choice(json!("required")).0["toolConfig"]["toolChoice"], json!({"any": {}}));
    let named = json!({"type": "function", "function": {"name": "f"}});
    assert_eq!(choice(named).0["toolConfig"]["toolChoice"], json!({"tool": {"name": "f"}}));
    let (sent, dropped) = choice(json!("none"));
    assert_eq!((sent.get("toolConfig"), dropped), (None, vec!["tools (tool_choice is none)".to_owned()]));
    let mut history = long_conversation();
    history.tools.clear();
    assert!(refused(&history).contains("earlier tool calls without tools"));
    let mut forbidden = long_conversation();
    forbidden.tool_choice = Some(crate::domain::request::ToolChoice::None);
    assert!(refused(&forbidden).contains("tool_choice none after tool calls"));
    let image = json!({"messages": [{"role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "https://x/a.png"}}]}]});
    assert!(refused(&parsed(image)).contains("images by web address"));
}

#[test]
fn an_answer_is_read_with_thoughts_calls_and_three_kinds_of_input() {
    let read = answer(
        bedrock(),
        &json!({"output": {"message": {"role": "assistant", "content": [
        {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "s"}}}, {"text": "H"}, {"text": "i"},
        {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}}]}}, "stopReason": "tool_use",
        "usage": {"inputTokens": 10, "outputTokens": 3, "totalTokens": 30, "cacheReadInputTokens": 8,
            "cacheWriteInputTokens": 9,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 4}, {"ttl": "5m", "inputTokens": 5}]},
        "metrics": {"latencyMs": 5}, "serviceTier": {"type": "flex"}, "trace": {"x": 1}}),
    );
    assert_eq!((read.text.as_deref(), read.reasoning.as_deref()), (Some("Hi"), Some("Hm")));
    assert_eq!(read.tool_calls, [ToolCall { id: "t1".into(), name: "f".into(), arguments: "{\"a\":1}".into() }]);
    assert_eq!((read.finish, read.finish_raw.as_deref()), (Finish::ToolCall, Some("tool_use")));
    assert_eq!(read.usage, usage([10, 8, 5, 4, 3, 0]));
    assert_eq!(read.beside.service_tier.as_deref(), Some("flex"));
    assert_eq!(Value::Object(read.beside.completion), json!({"trace": {"x": 1}}));
}

#[test]
fn reasons_why_an_answer_ended() {
    let finish = |word: &Value| {
        let output = json!({"message": {"role": "assistant", "content": [{"text": "Hi"}]}});
        answer(bedrock(), &json!({"output": output, "stopReason": word})).finish
    };
    check_finishes(
        finish,
        &[
            (json!("end_turn"), Finish::Complete),
            (json!("stop_sequence"), Finish::Complete),
            (json!("max_tokens"), Finish::Length),
            (json!("model_context_window_exceeded"), Finish::Length),
            (json!("tool_use"), Finish::ToolCall),
            (json!("guardrail_intervened"), Finish::ContentFilter),
            (json!("content_filtered"), Finish::ContentFilter),
            (json!("malformed_model_output"), Finish::Error),
            (json!("malformed_tool_use"), Finish::Error),
            (json!("moon"), Finish::Unknown),
            (json!(null), Finish::Error),
        ],
    );
}

const THROTTLED: &[(&str, &str)] =
    &[("x-amzn-errortype", "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/")];

const FAILURES: &[Case] = &[
    case("throttled", 429, r#"{"message":"Too many requests, please wait before trying again."}"#, RateLimit, Model, Some("ThrottlingException")).with(THROTTLED),
    case("a day", 429, r#"{"message":"Too many tokens per day, please wait before trying again."}"#, RateLimitDaily, Model, Some("ThrottlingException")).with(THROTTLED),
    case("in the body", 429, r#"{"__type":"com.amazon.coral.service#ThrottlingException","Message":"Rate exceeded"}"#, RateLimit, Model, Some("ThrottlingException")),
    case("quota", 400, r#"{"message":"m"}"#, RateLimit, Model, Some("ServiceQuotaExceededException"))
        .with(&[("x-amzn-errortype", "ServiceQuotaExceededException")]),
    case("loading", 429, r#"{"message":"Model is not ready for inference."}"#, Overloaded, Model, Some("ModelNotReadyException"))
        .with(&[("x-amzn-errortype", "ModelNotReadyException")]),
    case("too long", 400, r#"{"message":"Input is too long for requested model."}"#, ContextLength, Request, Some("ValidationException"))
        .with(&[("x-amzn-errortype", "ValidationException")]),
    case("bare model", 400, r#"{"message":"Invocation of model ID x with on-demand throughput isn’t supported. Retry your request with the ID or ARN of an inference profile."}"#, NotFound, Model, Some("ValidationException"))
        .with(&[("x-amzn-errortype", "ValidationException")]),
    case("parameter", 400, r#"{"message":"The parameter temperature is not supported by this model."}"#, Refused, Request, Some("ValidationException"))
        .with(&[("x-amzn-errortype", "ValidationException")]),
    case("access", 403, r#"{"message":"You don't have access to the model with the specified model ID."}"#, Permission, Model, Some("AccessDeniedException"))
        .with(&[("x-amzn-errortype", "AccessDeniedException")]),
    case("agreement", 403, r#"{"message":"Your AWS Marketplace subscription for this model cannot be completed at this time. Please try again later."}"#, Overloaded, Model, Some("AccessDeniedException"))
        .with(&[("x-amzn-errortype", "AccessDeniedException")]),
    case("no money, as a refused key", 403, r#"{"message":"The account is suspended: payment required."}"#, QuotaExhausted, Key, Some("UnrecognizedClientException"))
        .with(&[("x-amzn-errortype", "UnrecognizedClientException")]),
    case("key", 403, r#"{"message":"The security token included in the request is invalid."}"#, Auth, Key, Some("UnrecognizedClientException"))
        .with(&[("x-amzn-errortype", "UnrecognizedClientException")]),
    case("expired", 403, r#"{"message":"The security token included in the request is expired"}"#, Auth, Key, Some("ExpiredTokenException"))
        .with(&[("x-amzn-errortype", "ExpiredTokenException")]),
    case("signature", 403, r#"{"message":"The request signature we calculated does not match"}"#, Auth, Key, Some("InvalidSignatureException"))
        .with(&[("x-amzn-errortype", "InvalidSignatureException")]),
    case("clock", 403, r#"{"message":"Signature expired: 20260504T120000Z is now earlier than 20260504T121000Z (20260504T121500Z - 5 min.)"}"#, ServerError, Provider, Some("InvalidSignatureException"))
        .with(&[("x-amzn-errortype", "InvalidSignatureException")]),
    case("clock ahead", 403, r#"{"message":"Signature not yet current: 20260504T120000Z is still later than 20260504T111500Z (20260504T111000Z + 5 min.)"}"#, ServerError, Provider, Some("InvalidSignatureException"))
        .with(&[("x-amzn-errortype", "InvalidSignatureException")]),
    case("region", 403, r#"{"message":"Credential should be scoped to a valid region."}"#, Auth, Key, Some("InvalidSignatureException"))
        .with(&[("x-amzn-errortype", "InvalidSignatureException")]),
    case("model", 404, r#"{"message":"Could not resolve the foundation model from the provided model identifier."}"#, NotFound, Model, Some("ResourceNotFoundException"))
        .with(&[("x-amzn-errortype", "ResourceNotFoundException")]),
    case("form", 404, r#"{"message":"Model use case details have not been submitted for this account."}"#, Permission, Model, Some("ResourceNotFoundException"))
        .with(&[("x-amzn-errortype", "ResourceNotFoundException")]),
    case("timeout", 408, r#"{"message":"m"}"#, Timeout, Model, Some("ModelTimeoutException"))
        .with(&[("x-amzn-errortype", "ModelTimeoutException")]),
    case("model error", 424, r#"{"message":"m","originalStatusCode":500}"#, ServerError, Model, Some("ModelErrorException"))
        .with(&[("x-amzn-errortype", "ModelErrorException")]),
    case("server", 500, r#"{"message":"m"}"#, ServerError, Model, Some("InternalServerException"))
        .with(&[("x-amzn-errortype", "InternalServerException")]),
    case("busy", 503, r#"{"message":"m"}"#, Overloaded, Model, Some("ServiceUnavailableException"))
        .with(&[("x-amzn-errortype", "ServiceUnavailableException")]),
    case("too many tokens", 400, r#"{"message":"The model returned the following errors: too many tokens: total number of tokens in the prompt cannot exceed 4096 - received 5000."}"#, ContextLength, Request, Some("ValidationException"))
        .with(&[("x-amzn-errortype", "ValidationException")]),
    case("request", 400, r#"{"message":"Malformed input request: #: required key [messages] not found, please reformat your input and try again."}"#, InvalidRequest, Request, Some("ValidationException"))
        .with(&[("x-amzn-errortype", "ValidationException")]),
    case("half a signature", 400, r#"{"message":"Authorization header requires 'Signature' parameter."}"#, Auth, Key, Some("IncompleteSignature"))
        .with(&[("x-amzn-errortype", "IncompleteSignature")]),
    case("no authority", 400, r#"{"message":"You do not have permission to perform this action."}"#, Auth, Key, Some("NotAuthorized"))
        .with(&[("x-amzn-errortype", "NotAuthorized")]),
    case("clock, by its code", 400, r#"{"message":"The request reached the service more than 15 minutes after the date stamp."}"#, Auth, Key, Some("RequestExpired"))
        .with(&[("x-amzn-errortype", "RequestExpired")]),
    case("action", 400, r#"{"message":"The action or operation requested is invalid."}"#, InvalidRequest, Request, Some("InvalidAction"))
        .with(&[("x-amzn-errortype", "InvalidAction")]),
    case("key's id", 403, r#"{"message":"The X.509 certificate or AWS access key ID provided does not exist in our records."}"#, Auth, Key, Some("InvalidClientTokenId"))
        .with(&[("x-amzn-errortype", "InvalidClientTokenId")]),
    case("expired, older name", 403, r#"{"message":"The security token included in the request is expired"}"#, Auth, Key, Some("ExpiredToken"))
        .with(&[("x-amzn-errortype", "ExpiredToken")]),
    case("signature, older name", 403, r#"{"message":"The request signature we calculated does not match the signature you provided."}"#, Auth, Key, Some("SignatureDoesNotMatch"))
        .with(&[("x-amzn-errortype", "SignatureDoesNotMatch")]),
    case("access, because of tokens", 403, r#"{"message":"Too many tokens, please wait before trying again."}"#, Permission, Model, Some("AccessDeniedException"))
        .with(&[("x-amzn-errortype", "AccessDeniedException")]),
    case("form by its code", 404, r#"{"message":"m"}"#, Permission, Model, Some("FTUFormNotFilled"))
        .with(&[("x-amzn-errortype", "FTUFormNotFilled")]),
    case("stream of a model", 424, r#"{"message":"m","originalStatusCode":500,"originalMessage":"x"}"#, ServerError, Model, Some("ModelStreamErrorException"))
        .with(&[("x-amzn-errortype", "ModelStreamErrorException")]),
    case("model error with its name", 424, r#"{"message":"m","originalStatusCode":400,"resourceName":"arn:x"}"#, ServerError, Model, Some("ModelErrorException"))
        .with(&[("x-amzn-errortype", "ModelErrorException")]),
    case("conflict", 400, r#"{"message":"m"}"#, Conflict, Request, Some("ConflictException"))
        .with(&[("x-amzn-errortype", "ConflictException")]),
    case("an exception of tomorrow", 400, r#"{"message":"m"}"#, InvalidRequest, Request, Some("MoonPhaseException"))
        .with(&[("x-amzn-errortype", "MoonPhaseException")]),
    case("by the body's code", 429, r#"{"code":"ThrottlingException","message":"Rate exceeded"}"#, RateLimit, Model, Some("ThrottlingException")),
    case("529 of its door for Claude", 529, r#"{"message":"m"}"#, Overloaded, Provider, None),
    case("no message", 200, r#"{"stopReason":"end_turn"}"#, ServerError, Model, None),
];

#[test]
fn failures_are_told_apart() {
    check_failures(bedrock(), FAILURES);
}

#[test]
fn a_stream_of_frames_is_the_same_answer_and_an_exception_is_what_it_says() {
    let headers = headers(&[]);
    let streamed = |body: &[u8]| {
        bedrock().decode(&WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, body) })
    };
    let event = |name: &str, payload: Value| frames::written("event", name, &payload);
    let begun = [
        event("messageStart", json!({"role": "assistant"})),
        event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "H"}}})),
        event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "m"}}})),
        event(
            "contentBlockStart",
            json!({"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}),
        ),
        event("contentBlockDelta", json!({"contentBlockIndex": 1, "delta": {"toolUse": {"input": "{\"a\":"}}})),
        event("contentBlockDelta", json!({"contentBlockIndex": 1, "delta": {"toolUse": {"input": "1}"}}})),
    ]
    .concat();
    let ended = [
        begun.clone(),
        event("messageStop", json!({"stopReason": "tool_use"})),
        event("metadata", json!({"usage": {"inputTokens": 3, "outputTokens": 2}})),
    ]
    .concat();
    let read = streamed(&ended).unwrap();
    assert_eq!((read.reasoning.as_deref(), read.finish), (Some("Hm"), Finish::ToolCall));
    assert_eq!(read.tool_calls, [ToolCall { id: "t".into(), name: "f".into(), arguments: "{\"a\":1}".into() }]);
    assert_eq!(read.usage, usage([3, 0, 0, 0, 2, 0]));
    assert_eq!(streamed(&begun).unwrap_err().class, crate::domain::ErrorClass::Network);
    let thrown = frames::written("exception", "throttlingException", &json!({"message": "Too many requests"}));
    let failure = streamed(&[begun, thrown].concat()).unwrap_err();
    assert_eq!((failure.class, failure.code.as_deref()), (RateLimit, Some("ThrottlingException")));
}
