use super::*;
use crate::domain::ErrorClass::*;
use crate::domain::Scope::{Key, Model, Provider, Request};
use crate::domain::{Beside, Finish, ToolCall, Unit, UsageSource};
use crate::provider::checks::{self, Case, Chat as _, answer, case, check_failures, check_finishes, usage};
use reqwest::header::HeaderMap;
use serde_json::Value;
use serde_json::json;

fn anthropic() -> &'static dyn Adapter {
    checks::at(&DIALECT, "")
}

// === failures ===

const FAILURES: &[Case] = &[
    case("ramp by its code", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"ramp_limit_exceeded"}}}"#, RampLimit, Model, Some("ramp_limit_exceeded")),
    case("contract", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"contract_spend_limit_reached"}}}"#, QuotaExhausted, Key, Some("contract_spend_limit_reached")),
    case("on hold", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"organization_on_hold"}}}"#, Permission, Key, Some("organization_on_hold")),
    case("body cut", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"request_body_timeout"}}}"#, Network, Request, Some("request_body_timeout")),
    case("request", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages: at least one message is required"},"request_id":"req_1"}"#, InvalidRequest, Request, Some("invalid_request_error")),
    case("customer's spend limit", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."}}"#, QuotaExhausted, Key, Some("invalid_request_error")).waits(907_200_000),
    case("workspace's spend limit", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified workspace API usage limits."}}"#, QuotaExhausted, Key, Some("invalid_request_error")),
    case("credit", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#, QuotaExhausted, Key, Some("invalid_request_error")),
    case("window", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#, ContextLength, Request, Some("invalid_request_error")),
    case("window with output", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"}}"#, ContextLength, Request, Some("invalid_request_error")),
    case("policy", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}"#, ContentPolicy, Request, Some("invalid_request_error")),
    case("key", 401, r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#, Auth, Key, Some("authentication_error")),
    case("billing", 402, r#"{"type":"error","error":{"type":"billing_error","message":"m"}}"#, QuotaExhausted, Key, Some("billing_error")),
    case("permission", 403, r#"{"type":"error","error":{"type":"permission_error","message":"m"}}"#, Permission, Model, Some("permission_error")),
    case("model", 404, r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-x"}}"#, NotFound, Model, Some("not_found_error")),
    case("conflict", 409, r#"{"type":"error","error":{"type":"conflict_error","message":"m"}}"#, Conflict, Request, Some("conflict_error")),
    case("bytes", 413, r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#, PayloadTooLarge, Request, Some("request_too_large")),
    case("bytes, by the CDN", 413, "<html>413</html>", PayloadTooLarge, Request, None),
    case("rate", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 50 requests per minute"}}"#, RateLimit, Model, Some("rate_limit_error"))
        .with(&[("retry-after", "17"),
            ("anthropic-ratelimit-requests-reset", "2026-11-20T12:00:40Z")]).waits(17_000).names(Unit::Requests, 50,
            None),
    case("rate of input tokens", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 40,000 input tokens per minute. For details, refer to the documentation."}}"#, RateLimit, Model, Some("rate_limit_error"))
        .names(Unit::InputTokens, 40_000, None),
    case("rate of output tokens", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 8000 output tokens per minute"}}"#, RateLimit, Model, Some("rate_limit_error"))
        .names(Unit::OutputTokens, 8_000, None),
    case("rate, by reset", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"}}"#, RateLimit, Model, Some("rate_limit_error"))
        .with(&[("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-11-20T12:00:40Z"),
            ("anthropic-ratelimit-requests-remaining", "10"),
            ("anthropic-ratelimit-requests-reset", "2026-11-20T12:01:00Z")]).waits(40_000),
    case("ramp", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's maximum usage increase rate (acceleration limit). Please scale up your usage more gradually"}}"#, RampLimit, Model, Some("rate_limit_error")).with(&[("retry-after", "5")]).waits(5_000),
    case("day", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"This would exceed your daily rate limit"}}"#, RateLimitDaily, Model, Some("rate_limit_error")),
    case("spend cap until the month ends", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#, QuotaExhausted, Key, Some("enforced_spend_limit_reached"))
        .waits(907_200_000),
    case("500", 500, r#"{"type":"error","error":{"type":"api_error","message":"Internal server error"}}"#, ServerError, Model, Some("api_error")),
    case("timeout", 504, r#"{"type":"error","error":{"type":"timeout_error","message":"m"}}"#, Timeout, Model, Some("timeout_error")),
    case("overloaded", 529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, Overloaded, Provider, Some("overloaded_error")),
    case("overloaded, no body", 529, "", Overloaded, Provider, None),
    case("overloaded in a 200", 200, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, Overloaded, Provider, Some("overloaded_error")),
    case("linked organization's limit", 402, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"linked_organization_spend_limit_reached"}}}"#, QuotaExhausted, Key, Some("linked_organization_spend_limit_reached")),
    case("linked organization's billing", 402, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"linked_organization_billing_unavailable"}}}"#, QuotaExhausted, Key, Some("linked_organization_billing_unavailable")),
    case("linked limit as a 400", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"linked_organization_spend_limit_reached"}}}"#, QuotaExhausted, Key, Some("linked_organization_spend_limit_reached")),
    case("ramp, a long wait", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"ramp_limit_exceeded"}}}"#, RampLimit, Model, Some("ramp_limit_exceeded"))
        .with(&[("retry-after", "900")])
        .waits(900_000),
    case("encoding not known", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"request_body_encoding_unsupported"}}}"#, InvalidRequest, Request, Some("request_body_encoding_unsupported")),
    case("a cause of tomorrow", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"moon_phase"}}}"#, InvalidRequest, Request, Some("moon_phase")),
    case("a cause of tomorrow for a limit", 429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"moon_phase"}}}"#, RateLimit, Model, Some("moon_phase")),
    case("408", 408, "", Timeout, Model, None),
    case("key's maker left", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"claude_code_key_creator_not_member"}}}"#, Permission, Model, Some("claude_code_key_creator_not_member")),
    case("own key disabled", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"cmek_key_disabled"}}}"#, Permission, Model, Some("cmek_key_disabled")),
    case("own key cut off", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"cmek_key_network_blocked"}}}"#, Permission, Model, Some("cmek_key_network_blocked")),
    case("no human review", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"workspace_human_review_disabled"}}}"#, Permission, Model, Some("workspace_human_review_disabled")),
    case("not in the beta", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"organization_not_enrolled_in_beta"}}}"#, Permission, Model, Some("organization_not_enrolled_in_beta")),
    case("own key away", 503, r#"{"type":"error","error":{"type":"api_error","message":"m","details":{"error_code":"cmek_key_unreachable"}}}"#, Overloaded, Provider, Some("cmek_key_unreachable")),
    case("own key's context away", 503, r#"{"type":"error","error":{"type":"api_error","message":"m","details":{"error_code":"cmek_context_unavailable"}}}"#, Overloaded, Provider, Some("cmek_context_unavailable")),
    case("compaction away", 529, r#"{"type":"error","error":{"type":"overloaded_error","message":"m","details":{"error_code":"compaction_unavailable"}}}"#, Overloaded, Provider, Some("compaction_unavailable")),
    case("image too large", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"image_dimensions_too_large"}}}"#, InvalidRequest, Request, Some("image_dimensions_too_large")),
    case("file expired", 404, r#"{"type":"error","error":{"type":"not_found_error","message":"m","details":{"error_code":"file_expired"}}}"#, InvalidRequest, Request, Some("file_expired")),
    case("encoding", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"request_body_encoding_invalid"}}}"#, InvalidRequest, Request, Some("request_body_encoding_invalid")),
    case("charset", 400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"unsupported_charset"}}}"#, InvalidRequest, Request, Some("unsupported_charset")),
    case("too large once decoded", 413, r#"{"type":"error","error":{"type":"request_too_large","message":"m","details":{"error_code":"request_body_too_large_after_decoding"}}}"#, PayloadTooLarge, Request, Some("request_body_too_large_after_decoding")),
    case("request in a 200", 200, r#"{"type":"error","error":{"type":"invalid_request_error","message":"m"}}"#, InvalidRequest, Request, Some("invalid_request_error")),
    case("no content", 200, r#"{"id":"msg_1","type":"message","stop_reason":"end_turn"}"#, ServerError, Model, None),
    case("a page", 200, "<html></html>", ServerError, Provider, None),
];

#[test]
fn failures_are_told_apart() {
    check_failures(anthropic(), FAILURES);
}

// === answers ===

#[test]
fn an_answer_is_read_whole() {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001",
        "content": [
            {"type": "thinking", "thinking": "Hmm", "signature": "x"},
            {"type": "redacted_thinking", "data": "y"},
            {"type": "text", "text": "Hel"},
            {"type": "text", "text": "lo"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 10, "output_tokens": 20},
    });
    let expected = Answer {
        text: Some("Hello".to_owned()),
        refusal: None,
        reasoning: Some("Hmm".to_owned()),
        tool_calls: vec![ToolCall { id: "toolu_1".into(), name: "f".into(), arguments: r#"{"x":1}"#.into() }],
        finish: Finish::ToolCall,
        finish_raw: Some("tool_use".to_owned()),
        model: Some("claude-haiku-4-5-20251001".to_owned()),
        id: Some("msg_1".to_owned()),
        usage: usage([10, 0, 0, 0, 20, 0]),
        usage_raw: Some(body["usage"].clone()),
        vectors: None,
        beside: Beside {
            message: serde_json::Map::from_iter([(
                "thinking_blocks".to_owned(),
                json!([body["content"][0], body["content"][1]]),
            )]),
            ..Beside::default()
        },
    };
    assert_eq!(answer(anthropic(), &body), expected);
}

#[test]
fn what_came_with_an_answer_is_in_the_result() {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
        "stop_sequence": null,
        "container": {"id": "c"},
        "content": [
            {"type": "thinking", "thinking": "Hmm"},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "text", "text": "Hi", "citations": [
                {"type": "web_search_result_location", "url": "https://example.com", "title": "E", "cited_text": "x"},
                {"type": "char_location", "document_index": 0},
            ]},
        ],
        "usage": {"input_tokens": 10, "output_tokens": 2, "service_tier": "batch"},
    });
    let answer = answer(anthropic(), &body);
    assert_eq!(answer.beside.service_tier.as_deref(), Some("batch"));
    let whole = answer.to_chat_completion("m", 7);
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "Hmm");
    assert_eq!(message["annotations"][0]["url_citation"]["url"], "https://example.com");
    assert_eq!(message["annotations"][1], json!({"type": "char_location", "document_index": 0}));
    assert_eq!(message["content_parts"][0]["name"], "web_search");
    assert_eq!(
        (&whole["container"]["id"], &whole["service_tier"], &whole["type"]),
        (&json!("c"), &json!("batch"), &json!(null))
    );
    let mut fast = body.clone();
    fast["usage"]["speed"] = json!("fast");
    assert_eq!(checks::answer(anthropic(), &fast).beside.service_tier.as_deref(), Some("fast"));
}

#[test]
fn events_that_nobody_asked_for_are_put_together() {
    let events = [
        json!({"type": "message_start",
            "message": {"id": "m", "content": "", "stop_reason": null,
                "usage": {"input_tokens": 7, "output_tokens": 1}}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "He"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "llo"}}),
        json!({"type": "content_block_start", "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}),
        json!({"type": "content_block_delta", "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": "{\"x\":"}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
        json!({"type": "message_stop"}),
    ];
    let stream = |events: &[Value]| {
        events.iter().map(|event| format!("event: x\ndata: {event}\n\n")).collect::<Vec<_>>().concat()
    };
    let decoded = |body: String| anthropic().decode(&WireReply::new(200, &HeaderMap::new(), body.as_bytes()));
    let answer = decoded(stream(&events)).unwrap();
    assert_eq!((answer.text.as_deref(), &*answer.tool_calls[0].arguments), (Some("Hello"), "{\"x\":1}"));
    assert_eq!((answer.finish, answer.usage), (Finish::ToolCall, usage([7, 0, 0, 0, 9, 0])));
    assert!(decoded(stream(&events[..5])).is_err());
}

#[test]
fn finish_reasons_have_their_class() {
    let decode = |word: &Value| answer(anthropic(), &json!({"content": [], "stop_reason": word})).finish;
    check_finishes(
        decode,
        &[
            (json!("end_turn"), Finish::Complete),
            (json!("stop_sequence"), Finish::Complete),
            (json!("max_tokens"), Finish::Length),
            (json!("model_context_window_exceeded"), Finish::Length),
            (json!("tool_use"), Finish::ToolCall),
            (json!("refusal"), Finish::Refusal),
            (json!("pause_turn"), Finish::Pause),
            (json!("compaction"), Finish::Pause),
            (json!(null), Finish::Error),
            (json!("brand_new"), Finish::Unknown),
        ],
    );
}

#[test]
fn an_effort_stands_beside_the_form_and_takes_the_place_of_sampling() {
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let form = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let body = json!({"prompt": "Hi", "max_tokens": 4000, "temperature": 0.5, "reasoning_effort": "medium",
        "response_format": form});
    let sent_by = |model: &str| -> (Value, Vec<String>) {
        let wire = anthropic().chat(&checks::parsed(body.clone()), model, &Capabilities::default()).unwrap();
        (serde_json::from_slice(&wire.body).unwrap(), wire.dropped)
    };
    let (sent, dropped) = sent_by("claude-opus-4-6");
    assert_eq!((&sent["thinking"], sent.get("temperature")), (&json!({"type": "adaptive"}), None));
    assert_eq!(
        (&sent["output_config"]["effort"], &sent["output_config"]["format"]["type"]),
        (&json!("medium"), &json!("json_schema"))
    );
    assert_eq!(dropped, ["temperature", "response_format.json_schema.name"]);
    let (sent, _) = sent_by("claude-sonnet-4-5");
    assert_eq!(sent["thinking"], json!({"type": "enabled", "budget_tokens": 3000}));
    let (sent, dropped) = sent_by("some-other-model");
    assert_eq!((sent.get("thinking"), &sent["temperature"]), (None, &json!(0.5)));
    assert_eq!(dropped[0], "reasoning_effort");
}

#[test]
fn a_refusal_says_of_what_kind() {
    let refusal = |details: Value| {
        answer(anthropic(), &json!({"content": [], "stop_reason": "refusal", "stop_details": details})).refusal
    };
    assert_eq!(refusal(json!({"category": "cyber"})).as_deref(), Some("cyber"));
    assert_eq!(refusal(json!({"category": "cyber", "explanation": "No exploits."})).as_deref(), Some("No exploits."));
    assert_eq!(refusal(json!(null)).as_deref(), Some("refusal"));
}

#[test]
fn the_three_inputs_add_up() {
    let check = |raw: Value, expected: [i64; 6]| {
        let answer = answer(anthropic(), &json!({"content": [], "stop_reason": "end_turn", "usage": raw}));
        assert_eq!(answer.usage, usage(expected), "{raw}");
        assert_eq!(answer.usage_raw, Some(raw));
    };
    check(
        json!({"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 30,
            "output_tokens": 9}),
        [5, 100, 30, 0, 9, 0],
    );
    check(
        json!({"input_tokens": 5, "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}, "output_tokens": 9}),
        [5, 0, 10, 20, 9, 0],
    );
    check(
        json!({"input_tokens": 5, "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            "output_tokens": 9}),
        [5, 0, 10, 20, 9, 0],
    );
    check(
        json!({"input_tokens": 5, "cache_creation_input_tokens": 0, "cache_creation": {"ephemeral_1h_input_tokens": 20},
            "output_tokens": 9}),
        [5, 0, 0, 0, 9, 0],
    );
    check(
        json!({"input_tokens": 5, "output_tokens": 90, "output_tokens_details": {"thinking_tokens": 70}}),
        [5, 0, 0, 0, 90, 70],
    );
    check(
        json!({"input_tokens": 5, "cache_read_input_tokens": null, "cache_creation": null, "output_tokens": 1}),
        [5, 0, 0, 0, 1, 0],
    );
    let missing = answer(anthropic(), &json!({"content": [], "stop_reason": "end_turn"}));
    assert_eq!((missing.usage.source, missing.usage_raw, missing.text), (UsageSource::Unknown, None, None));
}

// === requests ===

mod requests;
