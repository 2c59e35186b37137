//! How a client calls each dialect of the simulator, and what it finds in the answers: a row for each.

use super::{Reply, message};
use serde_json::{Value, json};
use sluice::simulate::Dialect;

/// A client of one dialect, as its documentation describes one.
pub struct Client {
    pub dialect: &'static str,
    /// Where the model `m` is called, after the provider's name.
    pub path: &'static str,
    /// Headers with the key `k` and all that the API asks for.
    pub headers: &'static str,
    /// The body for the model `m` and one user message.
    pub body: fn(&str) -> Value,
    /// The body for "Be brief.", "Hello", "Hi" and "Bye": of the system, the user, the model and the user.
    pub conversation: fn() -> Value,
    /// The body that asks for an answer by this schema.
    pub structured: Option<fn(&Value) -> Value>,
    /// Empty where the provider sends none.
    pub id_header: &'static str,
    /// Where the words of an answer are.
    pub words: &'static str,
    /// Where the input tokens are, and the output tokens.
    pub usage: [&'static str; 2],
    /// Where the reason of the end is, and what it says of an answer that is as long as it may be.
    pub finish: &'static str,
    pub length: &'static str,
    /// What an answer contains that the provider's filter stopped.
    pub filtered: &'static str,
    pub is_refusal: fn(&Value) -> bool,
    /// The status for a key that is not known.
    pub unknown_key: u16,
    /// What the answers to the first and to the refused call say of a quota of one request a minute and two at once.
    pub over_quota: fn(&Reply, &Reply),
    /// Status and words for each of [`FAILURES`].
    pub failures: [(u16, &'static str); FAILURES.len()],
}

/// The faults that are failures, as scripts write them.
pub const FAILURES: [&str; 15] = [
    "500",
    "502",
    "overloaded",
    "401",
    "403",
    "404",
    "400",
    "context_length",
    "content_policy",
    "413",
    "504",
    "out_of_quota:disguise=429",
    "402",
    "out_of_quota:disguise=400",
    "html_502",
];

/// OpenAI's chats, from which its relatives take the common parts.
const OPENAI: Client = Client {
    dialect: "openai",
    path: "/v1/chat/completions",
    headers: "authorization: Bearer k\r\n",
    body: |prompt| json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}),
    conversation: || {
        json!({"model": "m", "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": [{"type": "text", "text": "Bye"}]}]})
    },
    structured: Some(|schema| {
        json!({"model": "m", "messages": [{"role": "user", "content": "Rate it"}], "response_format": {
            "type": "json_schema", "json_schema": {"name": "rating", "strict": true, "schema": schema}}})
    }),
    id_header: "x-request-id",
    words: "/choices/0/message/content",
    usage: ["/usage/prompt_tokens", "/usage/completion_tokens"],
    finish: "/choices/0/finish_reason",
    length: "length",
    filtered: "content_filter",
    is_refusal: |answer| answer["choices"][0]["message"]["refusal"].is_string(),
    unknown_key: 401,
    over_quota: |first, refused| {
        assert_eq!(first.header("x-ratelimit-limit-requests"), "1");
        assert_eq!(first.header("x-ratelimit-remaining-requests"), "1");
        assert!(first.header("x-ratelimit-reset-requests").starts_with("1m0s"));
        assert_eq!(refused.header("retry-after"), "60");
        assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
        assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
        let told = "requests per min (RPM): Limit 1, Used 2, Requested 1. Please try again in";
        assert!(message(refused).contains(told), "{}", refused.text());
    },
    failures: [
        (500, "server_error"),
        (502, "server_error"),
        (503, "server_is_overloaded"),
        (401, "invalid_api_key"),
        (403, "unsupported_country"),
        (404, "model_not_found"),
        (400, "unsupported_value"),
        (400, "context_length_exceeded"),
        (400, "content_policy_violation"),
        (413, "too large"),
        (504, "timed out"),
        (429, "insufficient_quota"),
        (402, "credit_balance_exhausted"),
        (429, "billing_hard_limit"),
        (502, "<center>"),
    ],
};

static CLIENTS: [Client; 9] = [
    OPENAI,
    Client {
        dialect: "anthropic",
        path: "/v1/messages",
        headers: "x-api-key: k\r\nanthropic-version: 2023-06-01\r\n",
        body: |prompt| json!({"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": prompt}]}),
        conversation: || {
            json!({"model": "m", "max_tokens": 5, "system": "Be brief.", "messages": [
                {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"},
                {"role": "user", "content": [{"type": "text", "text": "Bye"}]}]})
        },
        structured: Some(|schema| {
            json!({"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": "Rate it"}],
                "output_config": {"format": {"type": "json_schema", "schema": schema}}})
        }),
        id_header: "request-id",
        words: "/content/0/text",
        usage: ["/usage/input_tokens", "/usage/output_tokens"],
        finish: "/stop_reason",
        length: "max_tokens",
        filtered: "\"refusal\"",
        is_refusal: |answer| answer["stop_reason"] == "refusal",
        unknown_key: 401,
        over_quota: |first, refused| {
            assert_eq!(first.header("anthropic-ratelimit-requests-remaining"), "1");
            assert!(first.header("anthropic-ratelimit-requests-reset").ends_with('Z'));
            assert_eq!(refused.header("retry-after"), "60");
            assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
            assert_eq!(refused.json()["request_id"], refused.header("request-id"));
        },
        failures: [
            (500, "api_error"),
            (502, "api_error"),
            (529, "overloaded_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (400, "invalid_request_error"),
            (400, "prompt is too long"),
            (400, "content filtering"),
            (413, "request_too_large"),
            (504, "timeout_error"),
            (429, "enforced_spend_limit"),
            (402, "billing_error"),
            (400, "API usage limits"),
            (502, "<center>"),
        ],
    },
    Client {
        dialect: "gemini",
        path: "/v1beta/models/m:generateContent",
        headers: "x-goog-api-key: k\r\n",
        body: |prompt| json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]}),
        conversation: || {
            json!({"systemInstruction": {"parts": [{"text": "Be brief."}]}, "contents": [
                {"role": "user", "parts": [{"text": "Hello"}]}, {"role": "model", "parts": [{"text": "Hi"}]},
                {"role": "user", "parts": [{"text": "Bye"}]}]})
        },
        structured: Some(|schema| {
            json!({"contents": [{"role": "user", "parts": [{"text": "Rate it"}]}], "generationConfig": {
                "responseMimeType": "application/json", "responseJsonSchema": schema, "maxOutputTokens": 500}})
        }),
        id_header: "x-request-id",
        words: "/candidates/0/content/parts/0/text",
        usage: ["/usageMetadata/promptTokenCount", "/usageMetadata/candidatesTokenCount"],
        finish: "/candidates/0/finishReason",
        length: "MAX_TOKENS",
        filtered: "SAFETY",
        is_refusal: |answer| answer["candidates"][0]["finishReason"] == "PROHIBITED_CONTENT",
        unknown_key: 400,
        over_quota: |_, refused| {
            let details = refused.json()["error"]["details"].clone();
            let id = &details[0]["violations"][0]["quotaId"];
            assert!(id.as_str().unwrap().contains("PerMinute"), "{details}");
            let delay = details[2]["retryDelay"].as_str().unwrap();
            assert!(delay.starts_with("59.") || delay == "60s", "{delay}");
        },
        failures: [
            (500, "INTERNAL"),
            (502, "INTERNAL"),
            (503, "UNAVAILABLE"),
            (400, "API_KEY_INVALID"),
            (403, "PERMISSION_DENIED"),
            (404, "NOT_FOUND"),
            (400, "INVALID_ARGUMENT"),
            (400, "maximum number of tokens"),
            (200, "blockReason"),
            (413, "payload size"),
            (504, "DEADLINE_EXCEEDED"),
            (429, "credits are depleted"),
            (402, "payment_required"),
            (400, "enable billing"),
            (502, "<center>"),
        ],
    },
    Client {
        dialect: "ollama",
        path: "/api/chat",
        headers: "authorization: Bearer k\r\n",
        body: |prompt| json!({"model": "m", "stream": false, "messages": [{"role": "user", "content": prompt}]}),
        conversation: || {
            json!({"model": "m", "stream": false, "messages": [
                {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]})
        },
        structured: Some(|schema| {
            json!({"model": "m", "stream": false, "messages": [{"role": "user", "content": "Rate it"}],
                "format": schema, "options": {"num_predict": 500}})
        }),
        id_header: "",
        words: "/message/content",
        usage: ["/prompt_eval_count", "/eval_count"],
        finish: "/done_reason",
        length: "length",
        // It has no filter of its own.
        filtered: "\"content\":\"\"",
        is_refusal: |answer| answer["message"]["content"].as_str().is_some_and(|text| text.starts_with("I'm sorry")),
        unknown_key: 401,
        over_quota: |_, refused| {
            assert_eq!(refused.header("retry-after"), "60");
            assert_eq!(refused.json()["error"], "too many requests");
        },
        failures: [
            (500, "has terminated"),
            (502, "has terminated"),
            (503, "maximum pending requests"),
            (401, "unauthorized"),
            (403, "requires a subscription"),
            (404, "try pulling it first"),
            (400, "does not support thinking"),
            (400, "exceeds the context length"),
            (400, "content policy"),
            (413, "too large"),
            (504, "timed out"),
            (429, "insufficient balance"),
            (402, "insufficient balance"),
            (403, "insufficient balance"),
            (502, "<center>"),
        ],
    },
    Client {
        dialect: "cohere",
        path: "/v2/chat",
        headers: "authorization: Bearer k\r\n",
        body: |prompt| json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}),
        conversation: || {
            json!({"model": "m", "messages": [
                {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
                {"role": "user", "content": "Bye"}]})
        },
        structured: Some(|schema| {
            json!({"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": "Rate it"}],
                "response_format": {"type": "json_object", "json_schema": schema}})
        }),
        id_header: "",
        words: "/message/content/0/text",
        usage: ["/usage/billed_units/input_tokens", "/usage/billed_units/output_tokens"],
        finish: "/finish_reason",
        length: "MAX_TOKENS",
        filtered: "ERROR_TOXIC",
        is_refusal: |answer| {
            answer["message"]["content"][0]["text"].as_str().is_some_and(|text| text.starts_with("I'm sorry"))
        },
        unknown_key: 401,
        over_quota: |_, refused| {
            assert_eq!(refused.header("retry-after"), "60");
            assert!(refused.json()["message"].as_str().unwrap().contains("API calls / minute"));
        },
        failures: [
            (500, "internal server error"),
            (502, "internal server error"),
            (503, "overloaded"),
            (401, "invalid api token"),
            (403, "does not have access"),
            (404, "not found"),
            (422, "not supported"),
            (400, "too many tokens"),
            (400, "usage policy"),
            (413, "too large"),
            (504, "timed out"),
            (429, "1000 API calls / month"),
            (402, "billing limit"),
            (403, "1000 API calls / month"),
            (502, "<center>"),
        ],
    },
    Client {
        dialect: "openai_responses",
        path: "/v1/responses",
        headers: "authorization: Bearer k\r\n",
        body: |prompt| json!({"model": "m", "store": false, "input": prompt}),
        conversation: || {
            json!({"model": "m", "store": false, "instructions": "Be brief.", "input": [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
                {"role": "user", "content": [{"type": "input_text", "text": "Bye"}]}]})
        },
        structured: Some(|schema| {
            json!({"model": "m", "store": false, "input": "Rate it", "text": {"format": {
                "type": "json_schema", "name": "rating", "strict": true, "schema": schema}}})
        }),
        words: "/output/0/content/0/text",
        usage: ["/usage/input_tokens", "/usage/output_tokens"],
        finish: "/incomplete_details/reason",
        length: "max_output_tokens",
        is_refusal: |answer| answer["output"][0]["content"][0]["refusal"].is_string(),
        over_quota: |first, refused| {
            assert_eq!(first.header("x-ratelimit-remaining-requests"), "1");
            assert_eq!(refused.header("retry-after"), "60");
            assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
        },
        ..OPENAI
    },
    Client {
        dialect: "azure_openai",
        path: "/openai/deployments/m/chat/completions?api-version=2024-10-21",
        headers: "api-key: k\r\n",
        body: |prompt| json!({"model": "other", "messages": [{"role": "user", "content": prompt}]}),
        conversation: || {
            json!({"messages": [
                {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}], "model": "m"})
        },
        id_header: "apim-request-id",
        over_quota: |first, refused| {
            assert_eq!(first.header("x-ratelimit-remaining-requests"), "1");
            assert!(first.header("x-ratelimit-reset-requests").parse::<u64>().is_ok(), "whole seconds");
            assert_eq!((refused.header("retry-after"), refused.header("retry-after-ms")), ("60", "0"));
        },
        failures: [
            (500, "server_error"),
            (502, "server_error"),
            (429, "temporarily unable"),
            (401, "invalid subscription key"),
            (403, "unsupported_country"),
            (404, "DeploymentNotFound"),
            (400, "unsupported_value"),
            (400, "context_length_exceeded"),
            (400, "ResponsibleAIPolicyViolation"),
            (413, "too large"),
            (504, "timed out"),
            (429, "insufficient_quota"),
            (402, "credit_balance_exhausted"),
            (429, "billing_hard_limit"),
            (502, "<center>"),
        ],
        ..OPENAI
    },
    Client {
        dialect: "completions",
        path: "/v1/completions",
        body: |prompt| json!({"model": "m", "max_tokens": 500, "prompt": prompt}),
        // It has no turns: the same words, one after the other.
        conversation: || json!({"model": "m", "max_tokens": 500, "prompt": "Be brief. Hello Hi Bye"}),
        structured: None,
        words: "/choices/0/text",
        is_refusal: |answer| answer["choices"][0]["text"].as_str().is_some_and(|text| text.starts_with("I'm sorry")),
        over_quota: |first, refused| {
            assert_eq!(first.header("x-ratelimit-remaining-requests"), "1");
            assert_eq!(refused.header("retry-after"), "60");
        },
        ..OPENAI
    },
    Client {
        dialect: "bedrock",
        path: "/model/m/converse",
        headers: "authorization: Bearer k\r\n",
        body: |prompt| json!({"messages": [{"role": "user", "content": [{"text": prompt}]}]}),
        conversation: || {
            json!({"system": [{"text": "Be brief."}], "messages": [
                {"role": "user", "content": [{"text": "Hello"}]}, {"role": "assistant", "content": [{"text": "Hi"}]},
                {"role": "user", "content": [{"text": "Bye"}]}]})
        },
        structured: Some(|schema| {
            json!({"messages": [{"role": "user", "content": [{"text": "Rate it"}]}],
                "inferenceConfig": {"maxTokens": 500}, "outputConfig": {"textFormat": {"type": "json_schema",
                    "structure": {"jsonSchema": {"name": "rating", "schema": schema.to_string()}}}}})
        }),
        id_header: "x-amzn-requestid",
        words: "/output/message/content/0/text",
        usage: ["/usage/inputTokens", "/usage/outputTokens"],
        finish: "/stopReason",
        length: "max_tokens",
        filtered: "content_filtered",
        is_refusal: |answer| {
            answer["output"]["message"]["content"][0]["text"].as_str().is_some_and(|text| text.starts_with("I'm sorry"))
        },
        unknown_key: 403,
        over_quota: |_, refused| {
            assert_eq!(refused.header("retry-after"), "60");
            assert!(refused.json()["__type"].as_str().unwrap().ends_with("#ThrottlingException"));
        },
        failures: [
            (500, "InternalServerException"),
            (502, "InternalServerException"),
            (503, "ServiceUnavailableException"),
            (403, "UnrecognizedClientException"),
            (403, "AccessDeniedException"),
            (404, "ResourceNotFoundException"),
            (400, "ValidationException"),
            (400, "too long"),
            (400, "usage policy"),
            (413, "too large"),
            (408, "ModelTimeoutException"),
            (403, "suspended"),
            (403, "suspended"),
            (403, "suspended"),
            (502, "<center>"),
        ],
    },
];

/// The client of the dialect with this name.
pub fn client(dialect: &str) -> &'static Client {
    let of = |client: &&Client| client.dialect == dialect;
    CLIENTS.iter().find(of).unwrap_or_else(|| panic!("the dialect {dialect} has no row in tests/simulate/clients.rs"))
}

/// A client for each dialect of the registry.
pub fn clients() -> impl Iterator<Item = &'static Client> {
    Dialect::ALL.iter().map(|dialect| client(dialect.name()))
}
