//! Its addresses, its keys, and its own words.

use super::*;
use crate::domain::ErrorClass::{
    Auth, ContentPolicy, ContextLength, NeverFits, NotFound, Overloaded, Permission, RateLimit, Refused, ServerError,
    Timeout,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::domain::{Finish, Timeouts, Unit};
use crate::provider::checks::{Case, Chat, answer, at, case, check_failures, headers, parsed};
use crate::provider::{ApiKey, Endpoint, HeaderMap, Outgoing, QuirkSettings};
use serde_json::json;
use std::time::Duration;

fn azure() -> &'static dyn Adapter {
    at(&DIALECT, "https://acme.openai.azure.com/openai")
}

#[test]
fn the_deployment_is_in_the_path_or_in_the_body_by_the_address() {
    let request = parsed(json!({"prompt": "Hi"}));
    for (base_url, expected) in [
        ("https://acme.openai.azure.com/openai/v1", "/openai/v1/chat/completions"),
        ("https://acme.openai.azure.com/openai/v1/", "/openai/v1/chat/completions"),
        (
            "https://acme.services.ai.azure.com/openai/v1?api-version=preview",
            "/openai/v1/chat/completions?api-version=preview",
        ),
        (
            "https://acme.openai.azure.com/openai",
            "/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21",
        ),
        ("https://acme.openai.azure.com", "/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21"),
        (
            "https://acme.openai.azure.com/openai?api-version=2025-03-01-preview",
            "/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2025-03-01-preview",
        ),
        (
            "https://acme.openai.azure.com/openai/deployments/other?api-version=2024-10-21",
            "/openai/deployments/other/chat/completions?api-version=2024-10-21",
        ),
    ] {
        let wire = at(&DIALECT, base_url).chat(&request, "my gpt/4", &Capabilities::default()).unwrap();
        let body: Value = serde_json::from_slice(&wire.body).unwrap();
        assert_eq!(body["model"], "my gpt/4");
        let sent = Outgoing::new(&Url::parse(base_url).unwrap(), &HeaderMap::new(), wire);
        let query = sent.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        assert_eq!(format!("{}{query}", sent.url.path()), expected, "{base_url}");
    }
}

#[test]
fn a_key_has_a_header_of_its_own_and_a_token_is_a_bearer() {
    let none = Duration::ZERO;
    let endpoint = Endpoint {
        name: "azure".into(),
        dialect: &DIALECT,
        vendor: None,
        quirks: QuirkSettings::default(),
        base_url: "https://acme.openai.azure.com/openai/v1".into(),
        keys: vec![],
        headers: vec![],
        timeouts: Timeouts { connect: none, first_byte: none, idle: none, total: none },
        max_body: 1,
    };
    for (secret, name, value) in [
        ("0123456789abcdef", "api-key", "0123456789abcdef"),
        ("eyJhbGciOi.eyJhdWQi.c2ln", "authorization", "Bearer eyJhbGciOi.eyJhdWQi.c2ln"),
        ("eyJhbGciOi", "api-key", "eyJhbGciOi"),
    ] {
        let key = ApiKey { name: "k".into(), secret: secret.into(), access: None, role: None };
        let wire = azure().chat(&parsed(json!({"prompt": "Hi"})), "m", &Capabilities::default()).unwrap();
        let mut sent = Outgoing::new(&Url::parse(&endpoint.base_url).unwrap(), &HeaderMap::new(), wire);
        endpoint.auth(&key).sign(&mut sent, crate::domain::Timestamp(0)).unwrap();
        assert_eq!(sent.headers[name], value);
        assert!(sent.headers.contains_key("api-key") != sent.headers.contains_key("authorization"), "{secret}");
    }
}

const FAILURES: &[Case] = &[
    case("blocked prompt", 400, r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{"hate":{"filtered":true,"severity":"high"}}}}}"#, ContentPolicy, Request, Some("ResponsibleAIPolicyViolation")),
    case("window", 400, r#"{"error":{"code":"context_length_exceeded","message":"This model's maximum context length is 8192 tokens."}}"#, ContextLength, Request, Some("context_length_exceeded")),
    case("key", 401, r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#, Auth, Key, Some("401")),
    case("abuse", 403, r#"{"error":{"code":"Forbidden","message":"Your resource has been temporarily blocked because we detected behavior that may violate our content policy."}}"#, Permission, Key, Some("Forbidden")),
    case("network rules", 403, r#"{"error":{"code":"AccessDenied","message":"Access denied due to Virtual Network/Firewall rules."}}"#, Permission, Model, Some("AccessDenied")),
    case("deployment", 404, r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#, NotFound, Model, Some("DeploymentNotFound")),
    case("timeout", 408, r#"{"error":{"code":"Timeout","message":"The operation was timeout."}}"#, Timeout, Model, Some("Timeout")),
    case("rate", 429, r#"{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation have exceeded the token rate limit of your current AIServices S0 pricing tier. Please retry after 7 seconds."}}"#, RateLimit, Model, Some("429")).waits(7_000),
    case("seconds and zero milliseconds", 429, r#"{"error":{"code":"429","message":"Rate limit is exceeded."}}"#, RateLimit, Model, Some("429"))
        .with(&[("retry-after", "1"), ("retry-after-ms", "0")]).waits(1_000),
    case("capacity", 429, r#"{"error":{"code":"429","message":"The service is temporarily unable to process your request. Please try again later."}}"#, Overloaded, Model, Some("429")),
    case("demand", 429, r#"{"error":{"code":"429","message":"System is experiencing high demand."}}"#, Overloaded, Model, Some("429")),
    case("too large for the limit", 429, r#"{"error":{"code":"429","message":"Request too large for gpt-4o on tokens per min: Limit 1000, Requested 2000"}}"#, NeverFits, Request, Some("429")),
    case("token's audience", 401, r#"{"error":{"code":"Unauthorized","message":"Access token is missing, invalid, audience is incorrect (https://cognitiveservices.azure.com), or have expired."}}"#, Auth, Key, Some("Unauthorized")),
    case("token's audience, by its gateway", 401, r#"{"statusCode":401,"message":"Unauthorized. Access token is missing, invalid, audience is incorrect (https://ai.azure.com), or have expired."}"#, Auth, Key, Some("401")),
    case("rate, other words", 429, r#"{"error":{"code":"RateLimitReached","message":"Requests to gpt-4o have been limited. Please retry after 4 seconds."}}"#, RateLimit, Model, Some("RateLimitReached")).waits(4_000),
    case("a full provisioned deployment", 429, r#"{"error":{"code":"429","message":"Rate limit is exceeded. Try again later."}}"#, RateLimit, Model, Some("429"))
        .with(&[("retry-after", "1"), ("retry-after-ms", "340"), ("x-ratelimit-remaining-tokens", "0")]).waits(1_000),
    case("an estimate above the budget", 429, r#"{"error":{"code":"429","message":"Request too large for deployment x: it exceeds the tokens per minute limit"}}"#, NeverFits, Request, Some("429")),
    case("an operation that the model has not", 400, r#"{"error":{"code":"OperationNotSupported","message":"The chatCompletion operation does not work with the specified model, x. Please choose different model and try again."}}"#, Refused, Request, Some("OperationNotSupported")),
    case("a parameter of older models", 400, r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#, Refused, Request, Some("unsupported_parameter")),
    case("bad gateway", 502, "<html>502 Bad Gateway</html>", ServerError, Model, None),
    case("away", 503, r#"{"error":{"code":"ServiceUnavailable","message":"m"}}"#, Overloaded, Model, Some("ServiceUnavailable")),
    case("server", 500, r#"{"error":{"code":"InternalServerError","message":"m"}}"#, ServerError, Model, Some("InternalServerError")),
];

#[test]
fn failures_are_told_apart() {
    check_failures(azure(), FAILURES);
}

#[test]
fn an_answer_tells_what_its_filter_did() {
    let body = |finish: &str, results: Value| {
        json!({"id": "x", "model": "m", "prompt_filter_results": [{"prompt_index": 0}], "choices": [{"index": 0,
            "finish_reason": finish, "message": {"role": "assistant", "content": "Hi"},
            "content_filter_results": results}]})
    };
    let cut = answer(azure(), &body("content_filter", json!({"hate": {"filtered": true}})));
    assert_eq!((cut.finish, cut.beside.notes.len()), (Finish::ContentFilter, 0));
    let down = answer(azure(), &body("stop", json!({"error": {"code": "content_filter_error", "message": "m"}})));
    assert_eq!(down.finish, Finish::Complete);
    assert!(down.beside.notes[0].contains("content filter"), "{:?}", down.beside.notes);
    let headers = headers(&[("x-ratelimit-limit-tokens", "1000"), ("x-ratelimit-reset-tokens", "17")]);
    let seen = azure().limits(&WireReply::new(200, &headers, b"{}"));
    assert_eq!(
        (seen[0].unit, seen[0].limit, seen[0].reset_in),
        (Unit::Tokens, Some(1000), Some(Duration::from_secs(17)))
    );
}
