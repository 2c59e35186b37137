//! What Gemini's errors mean. The first row that fits counts: one status stands for several limits, and a wrong
//! key comes as a 400.

use crate::domain::ErrorClass::{
    Auth, Cancelled, Conflict, ContextLength, InvalidRequest, NotFound, Overloaded, Permission, QuotaExhausted,
    RateLimit, RateLimitDaily, ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::provider::classify::{Rule, prompt_too_long};
use crate::provider::error_body::ErrorBody;
use serde_json::Value;

pub(super) const RULES: &[Rule] = &[
    // --- the key ---
    Rule::code(&["API_KEY_INVALID"], Auth, Key),
    Rule::says(&["api key not valid", "api key expired", "leaked"], Auth, Key).at(&[400, 401, 403]),
    // --- money ---
    Rule::code(&["payment_required"], QuotaExhausted, Key),
    Rule::status(&[402], QuotaExhausted, Key),
    Rule::says(&["credits are depleted", "monthly spend"], QuotaExhausted, Key).at(&[429]),
    // --- limits ---
    // The account's tier has none of this model: no wait helps, and other models of the same key work. So it is
    // the model that is closed to the key, not a limit and not the key's money.
    Rule::when(no_quota_at_all, Permission, Model).at(&[429]),
    Rule::when(quota_per_day, RateLimitDaily, Model).at(&[429]),
    Rule::code(&["RESOURCE_EXHAUSTED", "rate_limit_exceeded", "too_many_requests", "quota_exceeded"], RateLimit, Model),
    // Vertex says so with other statuses.
    Rule::says(&["quota exceeded", "resource exhausted", "resource has been exhausted"], RateLimit, Model)
        .at(&[400, 500]),
    // --- the request ---
    Rule::when(prompt_too_long, ContextLength, Request).at(&[400, 413]),
    // --- the account and the model ---
    // Region or billing: nothing this key asks for will work.
    Rule::code(&["FAILED_PRECONDITION"], Permission, Key),
    Rule::code(&["UNAUTHENTICATED"], Auth, Key),
    Rule::code(&["PERMISSION_DENIED"], Permission, Model),
    Rule::code(&["NOT_FOUND"], NotFound, Model),
    // --- the provider ---
    Rule::code(&["UNAVAILABLE", "service_unavailable"], Overloaded, Model),
    Rule::code(&["DEADLINE_EXCEEDED"], Timeout, Model),
    Rule::code(&["INTERNAL"], ServerError, Model),
    Rule::code(&["CANCELLED"], Cancelled, Request),
    Rule::code(&["ABORTED"], Conflict, Request),
    Rule::code(&["INVALID_ARGUMENT", "OUT_OF_RANGE"], InvalidRequest, Request),
];

/// "limit: 0": not a limit that refills, but none at all.
fn no_quota_at_all(error: &ErrorBody) -> bool {
    error.text.match_indices("limit: 0").any(|(at, found)| {
        !error.text[at + found.len()..].starts_with(|next: char| next.is_ascii_digit() || next == '.')
    })
}

/// Whether one of the violated quotas counts by the day: then the minutes no longer matter.
fn quota_per_day(error: &ErrorBody) -> bool {
    let details = error.value.get("details").and_then(Value::as_array).into_iter().flatten();
    details
        .filter_map(|detail| detail.get("violations").and_then(Value::as_array))
        .flatten()
        .filter_map(|violation| violation.get("quotaId").and_then(Value::as_str))
        .any(|quota| quota.contains("PerDay"))
}
