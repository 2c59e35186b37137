//! What a model says, put through the rules for answers.

use sluice::domain::ChatRequest;
use sluice::domain::validation::Rules;
use sluice::provider::{HeaderMap, QuirkSettings, WireReply, openai, vendors};
use std::sync::LazyLock;

static CASES: LazyLock<Vec<(Rules, ChatRequest)>> = LazyLock::new(|| {
    let rules = Rules {
        non_empty: true,
        min_chars: Some(1),
        max_chars: Some(1_000),
        json: true,
        reject_refusals: true,
        reject_html: true,
        reject_truncated: true,
        reject_control_tokens: true,
        reject_cut_prompts: true,
        ..Rules::default()
    };
    let plain = serde_json::json!({ "prompt": "Hi" });
    let object = serde_json::json!({ "prompt": "Hi", "response_format": { "type": "json_object" } });
    let schema = serde_json::json!({ "prompt": "Hi", "response_format": { "type": "json_schema", "json_schema": {
        "name": "x", "schema": { "type": "object", "required": ["a"],
            "properties": { "a": { "pattern": "^a+$" } } } } } });
    [plain, object, schema]
        .iter()
        .flat_map(|body| {
            let request = ChatRequest::parse(body).unwrap();
            [(rules.clone(), request.clone()), (Rules::default(), request)]
        })
        .collect()
});

/// What a model says, put through the rules for answers.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let body =
        serde_json::json!({ "choices": [{ "message": { "content": text }, "finish_reason": "stop" }] }).to_string();
    let headers = HeaderMap::new();
    let adapter = vendors::adapter(&openai::DIALECT, None, "http://127.0.0.1:8000/v1", &QuirkSettings::default());
    let Ok(answer) = adapter.decode(&WireReply::new(200, &headers, body.as_bytes())) else { return };
    for (rules, request) in CASES.iter() {
        let schema = request.compile_schema().unwrap();
        let _ = rules.judge(&answer, request, schema.as_ref());
    }
}
