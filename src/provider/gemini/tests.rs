use super::*;
use crate::domain::ErrorClass::*;
use crate::domain::Scope::{Key, Model, Provider, Request};
use crate::domain::{Beside, Finish, ToolCall, Unit, UsageSource};
use crate::provider::checks::{self, Case, Chat as _, answer, case, check_failures, check_finishes, headers, usage};
use serde_json::Value;
use serde_json::json;

fn gemini() -> &'static dyn Adapter {
    checks::at(&DIALECT, "")
}

// === failures ===

const FAILURES: &[Case] = &[
    case("request", 400, r#"{"error":{"code":400,"message":"Invalid value","status":"INVALID_ARGUMENT"}}"#, InvalidRequest, Request, Some("INVALID_ARGUMENT")),
    case("request, in an array", 400, r#"[{"error":{"code":400,"message":"Invalid value","status":"INVALID_ARGUMENT"}}]"#, InvalidRequest, Request, Some("INVALID_ARGUMENT")),
    case("window", 400, r#"{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}"#, ContextLength, Request, Some("INVALID_ARGUMENT")),
    case("key by reason", 400, r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}"#, Auth, Key, Some("INVALID_ARGUMENT")),
    case("key by message", 400, r#"{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT"}}"#, Auth, Key, Some("INVALID_ARGUMENT")),
    case("leaked key", 403, r#"{"error":{"code":403,"message":"Your API key was reported as leaked. Please use another API key.","status":"PERMISSION_DENIED"}}"#, Auth, Key, Some("PERMISSION_DENIED")),
    case("region", 400, r#"{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}"#, Permission, Key, Some("FAILED_PRECONDITION")),
    case("unauthenticated", 401, r#"{"error":{"code":401,"message":"m","status":"UNAUTHENTICATED"}}"#, Auth, Key, Some("UNAUTHENTICATED")),
    case("permission", 403, r#"{"error":{"code":403,"message":"m","status":"PERMISSION_DENIED"}}"#, Permission, Model, Some("PERMISSION_DENIED")),
    case("prepaid credit", 402, r#"{"error":{"code":402,"message":"m","status":"RESOURCE_EXHAUSTED"}}"#, QuotaExhausted, Key, Some("RESOURCE_EXHAUSTED")),
    case("prepaid credit, lower case", 402, r#"{"error":{"code":"payment_required","message":"m"}}"#, QuotaExhausted, Key, Some("payment_required")),
    case("model", 404, r#"{"error":{"code":404,"message":"models/x is not found","status":"NOT_FOUND"}}"#, NotFound, Model, Some("NOT_FOUND")),
    case("per minute", 429, r#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. Please retry in 45.2s.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"m","quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier","quotaValue":"10"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"46s"}]}}"#, RateLimit, Model, Some("RESOURCE_EXHAUSTED")).waits(46_000),
    case("input tokens per minute", 429, r#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier","quotaValue":"10"},{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_input_token_count","quotaId":"GenerateContentInputTokensPerModelPerMinute-FreeTier","quotaValue":"250000"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"12s"}]}}"#, RateLimit, Model, Some("RESOURCE_EXHAUSTED"))
        .waits(12_000).names(Unit::InputTokens, 250_000, None),
    case("fractions of a second", 429, r#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3.5s"}]}}"#, RateLimit, Model, Some("RESOURCE_EXHAUSTED")).waits(3_500),
    case("per day", 429, r#"{"error":{"code":429,"message":"Quota exceeded for metric: x, limit: 250\nPlease retry in 10h17m5.72s.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37025s"}]}}"#, RateLimitDaily, Model, Some("RESOURCE_EXHAUSTED")).waits(37_025_720),
    case("minute and day", 429, r#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"XPerMinute"},{"quotaId":"XPerDay"}]}]}}"#, RateLimitDaily, Model, Some("RESOURCE_EXHAUSTED")),
    case("none at all", 429, r#"{"error":{"code":429,"message":"Quota exceeded for metric: generate_content_free_tier_requests, limit: 0, model: gemini-x\nPlease retry in 20s.","status":"RESOURCE_EXHAUSTED"}}"#, Permission, Model, Some("RESOURCE_EXHAUSTED")),
    case("some", 429, r#"{"error":{"code":429,"message":"Quota exceeded, limit: 05","status":"RESOURCE_EXHAUSTED"}}"#, RateLimit, Model, Some("RESOURCE_EXHAUSTED")),
    case("prepaid credit as 429", 429, r#"{"error":{"code":429,"message":"Your prepayment credits are depleted.","status":"RESOURCE_EXHAUSTED"}}"#, QuotaExhausted, Key, Some("RESOURCE_EXHAUSTED")),
    case("lower case", 429, r#"{"error":{"code":"too_many_requests","message":"m"}}"#, RateLimit, Model, Some("too_many_requests")),
    case("lower case, quota", 429, r#"{"error":{"code":"quota_exceeded","message":"m"}}"#, RateLimit, Model, Some("quota_exceeded")),
    case("lower case, busy", 503, r#"{"error":{"code":"service_unavailable","message":"m"}}"#, Overloaded, Model, Some("service_unavailable")),
    case("lower case, rate", 429, r#"{"error":{"code":"rate_limit_exceeded","message":"m"}}"#, RateLimit, Model, Some("rate_limit_exceeded")),
    case("lower case, exhausted", 429, r#"{"error":{"code":"resource_exhausted","message":"m"}}"#, RateLimit, Model, Some("resource_exhausted")),
    case("lower case, request", 400, r#"{"error":{"code":"invalid_request","message":"m"}}"#, InvalidRequest, Request, Some("invalid_request")),
    case("lower case, key", 400, r#"{"error":{"code":"invalid_api_key","message":"m"}}"#, Auth, Key, Some("invalid_api_key")),
    case("lower case, unauthenticated", 401, r#"{"error":{"code":"unauthenticated","message":"m"}}"#, Auth, Key, Some("unauthenticated")),
    case("lower case, region", 400, r#"{"error":{"code":"failed_precondition","message":"m"}}"#, Permission, Key, Some("failed_precondition")),
    case("lower case, permission", 403, r#"{"error":{"code":"permission_denied","message":"m"}}"#, Permission, Model, Some("permission_denied")),
    case("lower case, model", 404, r#"{"error":{"code":"not_found","message":"m"}}"#, NotFound, Model, Some("not_found")),
    case("lower case, server", 500, r#"{"error":{"code":"internal_error","message":"m"}}"#, ServerError, Model, Some("internal_error")),
    case("lower case, timeout", 504, r#"{"error":{"code":"deadline_exceeded","message":"m"}}"#, Timeout, Model, Some("deadline_exceeded")),
    case("lower case, busy inside a 200", 200, r#"{"error":{"code":"service_unavailable","message":"m"}}"#, Overloaded, Model, Some("service_unavailable")),
    case("lower case, limit inside a 200", 200, r#"{"error":{"code":"rate_limit_exceeded","message":"m"}}"#, RateLimit, Model, Some("rate_limit_exceeded")),
    case("lower case, request inside a 200", 200, r#"{"error":{"code":"invalid_argument","message":"m"}}"#, InvalidRequest, Request, Some("invalid_argument")),
    case("lower case, money inside a 200", 200, r#"{"error":{"code":"payment_required","message":"m"}}"#, QuotaExhausted, Key, Some("payment_required")),
    case("a status of tomorrow", 400, r#"{"error":{"code":400,"message":"m","status":"MOON_PHASE"}}"#, InvalidRequest, Request, Some("MOON_PHASE")),
    case("Vertex, 400", 400, r#"{"error":{"code":400,"message":"Quota exceeded for aiplatform.googleapis.com","status":"INVALID_ARGUMENT"}}"#, RateLimit, Model, Some("INVALID_ARGUMENT")),
    case("Vertex, 500", 500, r#"{"error":{"code":500,"message":"Resource exhausted, please try again later","status":"INTERNAL"}}"#, RateLimit, Model, Some("INTERNAL")),
    case("500", 500, r#"{"error":{"code":500,"message":"An internal error has occurred","status":"INTERNAL"}}"#, ServerError, Model, Some("INTERNAL")),
    case("503", 503, r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#, Overloaded, Model, Some("UNAVAILABLE")),
    case("504", 504, r#"{"error":{"code":504,"message":"m","status":"DEADLINE_EXCEEDED"}}"#, Timeout, Model, Some("DEADLINE_EXCEEDED")),
    case("499", 499, r#"{"error":{"code":499,"message":"m","status":"CANCELLED"}}"#, Cancelled, Request, Some("CANCELLED")),
    case("409", 409, r#"{"error":{"code":409,"message":"m","status":"ABORTED"}}"#, Conflict, Request, Some("ABORTED")),
    case("blocked for safety", 200, r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":4}}"#, ContentPolicy, Request, Some("SAFETY")),
    case("blocked, other", 200, r#"{"promptFeedback":{"blockReason":"OTHER"}}"#, Refused, Request, Some("OTHER")),
    case("blocked by list", 200, r#"{"candidates":[],"promptFeedback":{"blockReason":"BLOCKLIST"}}"#, ContentPolicy, Request, Some("BLOCKLIST")),
    case("blocked, prohibited", 200, r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT","blockReasonMessage":"No."}}"#, ContentPolicy, Request, Some("PROHIBITED_CONTENT")),
    case("blocked image", 200, r#"{"promptFeedback":{"blockReason":"IMAGE_SAFETY"}}"#, ContentPolicy, Request, Some("IMAGE_SAFETY")),
    case("nothing", 200, r#"{"usageMetadata":{"promptTokenCount":4}}"#, ServerError, Model, None),
    case("error in a 200", 200, r#"[{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}]"#, Overloaded, Model, Some("UNAVAILABLE")),
    case("error in a 200 with nothing to go by", 200, r#"{"error":{"message":"m"}}"#, ServerError, Model, None),
    case("a page", 200, "<html></html>", ServerError, Provider, None),
];

#[test]
fn failures_are_told_apart() {
    check_failures(gemini(), FAILURES);
}

// === answers ===

#[test]
fn an_answer_is_read_whole() {
    let body = json!({
        "candidates": [{"content": {"role": "model", "parts": [
            {"text": "Hmm", "thought": true},
            {"text": "Hel"},
            {"text": "lo", "thoughtSignature": "x"},
            {"functionCall": {"name": "f", "args": {"x": 1}}},
            {"functionCall": {"id": "b", "name": "g"}},
        ]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
        "modelVersion": "gemini-2.5-flash", "responseId": "r1",
    });
    let call = |id: &str, name: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    };
    let expected = Answer {
        text: Some("Hello".to_owned()),
        refusal: None,
        reasoning: Some("Hmm".to_owned()),
        tool_calls: vec![call("call_3", "f", r#"{"x":1}"#), call("b", "g", "{}")],
        finish: Finish::ToolCall,
        finish_raw: Some("STOP".to_owned()),
        model: Some("gemini-2.5-flash".to_owned()),
        id: Some("r1".to_owned()),
        usage: usage([10, 0, 0, 0, 5, 0]),
        usage_raw: Some(body["usageMetadata"].clone()),
        vectors: None,
        beside: Beside::default(),
    };
    assert_eq!(answer(gemini(), &body), expected);
}

#[test]
fn what_came_with_an_answer_is_in_the_result() {
    let body = json!({
        "candidates": [{"finishReason": "STOP", "index": 0, "avgLogprobs": -0.5,
            "content": {"role": "model", "parts": [
                {"text": "Hmm", "thought": true}, {"text": "Hi"},
                {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
                {"functionCall": {"name": "f"}, "thoughtSignature": "s"},
            ]},
            "groundingMetadata": {"groundingChunks": [{"web": {"uri": "https://example.com", "title": "E"}}]},
            "logprobsResult": {"chosenCandidates": [{"token": "Hi", "logProbability": -0.25}],
                "topCandidates": [{"candidates": [{"token": "Ho", "logProbability": -2.5}]}]}}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 75,
            "serviceTier": "SERVICE_TIER_FLEX"},
        "modelStatus": {"modelStage": "STABLE"},
    });
    let answer = answer(gemini(), &body);
    assert_eq!(answer.beside.service_tier.as_deref(), Some("flex"));
    // Tokens that the total has beyond the parts were thought.
    assert_eq!(answer.usage, usage([10, 0, 0, 0, 65, 60]));
    let whole = answer.to_chat_completion("m", 7);
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["reasoning_content"], "Hmm");
    assert_eq!(choice["message"]["annotations"][0]["url_citation"]["url"], "https://example.com");
    assert_eq!(choice["message"]["content_parts"][0]["inlineData"]["data"], "QUJD");
    assert_eq!(choice["message"]["tool_calls"][0]["extra_content"]["google"]["thought_signature"], "s");
    assert_eq!(choice["logprobs"]["content"][0]["logprob"], -0.25);
    assert_eq!(choice["logprobs"]["content"][0]["top_logprobs"][0]["token"], "Ho");
    assert_eq!((&choice["avgLogprobs"], &whole["modelStatus"]["modelStage"]), (&json!(-0.5), &json!("STABLE")));
}

#[test]
fn pieces_of_a_stream_are_put_together() {
    let piece = |text: &str, finish: Option<&str>| {
        json!({"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": finish}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}})
    };
    let pieces = json!([piece("He", None), piece("llo", Some("STOP"))]);
    let answer = answer(gemini(), &pieces);
    assert_eq!((answer.text.as_deref(), answer.finish), (Some("Hello"), Finish::Complete));
    let numbered = json!({"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": 2}]});
    assert_eq!(checks::answer(gemini(), &numbered).finish, Finish::Length);
}

#[test]
fn finish_reasons_have_their_class() {
    let decode = |word: &Value| answer(gemini(), &json!({"candidates": [{"finishReason": word}]})).finish;
    let class = |class: Finish, words: &'static [&'static str]| words.iter().map(move |word| (json!(word), class));
    let rows: Vec<_> = class(Finish::Complete, &["STOP"])
        .chain(class(Finish::Length, &["MAX_TOKENS"]))
        .chain(class(
            Finish::ContentFilter,
            &[
                "SAFETY",
                "RECITATION",
                "BLOCKLIST",
                "PROHIBITED_CONTENT",
                "SPII",
                "IMAGE_SAFETY",
                "IMAGE_OTHER",
                "MODEL_ARMOR",
                "LANGUAGE",
            ],
        ))
        .chain(class(
            Finish::Error,
            &[
                "MALFORMED_FUNCTION_CALL",
                "UNEXPECTED_TOOL_CALL",
                "TOO_MANY_TOOL_CALLS",
                "OTHER",
                "FINISH_REASON_UNSPECIFIED",
            ],
        ))
        .chain([(json!(null), Finish::Error), (json!("BRAND_NEW"), Finish::Unknown)])
        .collect();
    check_finishes(decode, &rows);
}

#[test]
fn thoughts_and_tool_prompts_are_added() {
    let check = |raw: Value, expected: [i64; 6]| {
        let answer = answer(gemini(), &json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata": raw}));
        assert_eq!(answer.usage, usage(expected), "{raw}");
        assert_eq!(answer.usage_raw, Some(raw));
    };
    check(
        json!({"promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 20,
            "thoughtsTokenCount": 30, "totalTokenCount": 150}),
        [40, 60, 0, 0, 50, 30],
    );
    check(
        json!({"promptTokenCount": 100, "toolUsePromptTokenCount": 11, "candidatesTokenCount": 20}),
        [111, 0, 0, 0, 20, 0],
    );
    check(json!({"promptTokenCount": 100, "thoughtsTokenCount": 30}), [100, 0, 0, 0, 30, 30]);
    check(json!({"promptTokenCount": 100}), [100, 0, 0, 0, 0, 0]);
    let missing = answer(gemini(), &json!({"candidates": [{"finishReason": "STOP"}]}));
    assert_eq!((missing.usage.source, missing.usage_raw, missing.text), (UsageSource::Unknown, None, None));
}

#[test]
fn a_blocked_prompt_may_be_billed() {
    let body = br#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":4}}"#;
    let found = gemini().usage_of(&WireReply::new(200, &headers(&[]), body)).unwrap();
    assert_eq!(found.usage, usage([4, 0, 0, 0, 0, 0]));
}

// === requests ===

mod requests;

#[test]
fn an_effort_is_a_level_or_a_number_of_tokens() {
    let request = checks::parsed(json!({"prompt": "Hi", "reasoning_effort": "low"}));
    for (model, told) in [
        ("gemini-3-flash-preview", json!({"thinkingLevel": "low"})),
        ("gemini-2.5-flash", json!({"thinkingBudget": 1024})),
    ] {
        let wire = gemini().chat(&request, model, &Capabilities::default()).unwrap();
        let sent: Value = serde_json::from_slice(&wire.body).unwrap();
        assert_eq!((&sent["generationConfig"]["thinkingConfig"], wire.dropped.len()), (&told, 0), "{model}");
    }
}
