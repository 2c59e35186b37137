//! The meaning of Gemini's errors. The first row that fits counts: one status stands for several limits, and a wrong
//! key comes as a 400.

use crate::domain::ErrorClass::{
    Auth, Cancelled, Conflict, NotFound, Overloaded, Permission, QuotaExhausted, RateLimit, RateLimitDaily,
    ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::provider::classify::{Rule, Signs};
use crate::provider::error_body::ErrorBody;
use crate::provider::limit_headers::COMMON;
use serde_json::Value;

/// The signs of its failures. It has no limit headers of its own.
pub(super) const SIGNS: Signs = Signs { rules: RULES, limits: &[COMMON] };

const RULES: &[Rule] = &[
    // --- the key ---
    Rule::code(&["API_KEY_INVALID"], Auth, Key),
    Rule::says(&["api key not valid", "api key expired", "leaked"], Auth, Key).at(&[400, 401, 403]),
    // --- money ---
    Rule::code(&["payment_required", "BILLING_DISABLED"], QuotaExhausted, Key),
    Rule::says(NO_BILLING, QuotaExhausted, Key).at(&[400, 403]),
    Rule::code(&["RESOURCE_EXHAUSTED"], QuotaExhausted, Key).at(&[402]),
    Rule::status(&[402], QuotaExhausted, Key).in_doubt(),
    Rule::says(&["credits are depleted", "monthly spend"], QuotaExhausted, Key).at(&[429]),
    // --- limits ---
    // The account's tier has no quota for this model: no wait helps, and other models of the same key work. So the
    // model is closed to the key; neither a limit nor a lack of money is the cause.
    Rule::when(has_none, Permission, Model).at(&[429]),
    Rule::when(per_day, RateLimitDaily, Model).at(&[429]),
    Rule::code(&["RESOURCE_EXHAUSTED", "rate_limit_exceeded", "too_many_requests", "quota_exceeded"], RateLimit, Model),
    // Vertex says so with other statuses.
    Rule::says(&["quota exceeded", "resource exhausted", "resource has been exhausted"], RateLimit, Model)
        .at(&[400, 500]),
    // --- the account and the model ---
    // The region: no request with this key will work.
    Rule::code(&["FAILED_PRECONDITION"], Permission, Key),
    Rule::code(&["UNAUTHENTICATED"], Auth, Key),
    Rule::code(&["PERMISSION_DENIED"], Permission, Model).in_doubt(),
    Rule::code(&["NOT_FOUND"], NotFound, Model).in_doubt(),
    // --- the provider ---
    Rule::code(&["UNAVAILABLE", "service_unavailable"], Overloaded, Model),
    Rule::code(&["DEADLINE_EXCEEDED"], Timeout, Model),
    Rule::code(&["INTERNAL"], ServerError, Model),
    Rule::code(&["CANCELLED"], Cancelled, Request),
    Rule::code(&["ABORTED"], Conflict, Request),
];

/// Phrases by which Google says that a project has no account that pays.
pub(in crate::provider) const NO_BILLING: &[&str] =
    &["enable billing", "billing to be enabled", "billing is not enabled"];

/// Google's "limit: 0": not a limit that refills, but none at all.
pub(in crate::provider) fn has_none(body: &ErrorBody) -> bool {
    body.text.match_indices("limit: 0").any(|(at, found)| {
        !body.text[at + found.len()..].starts_with(|next: char| next.is_ascii_digit() || next == '.')
    })
}

/// Whether one of the quotas that Google says are violated counts by the day: then the minutes no longer matter.
pub(in crate::provider) fn per_day(body: &ErrorBody) -> bool {
    let details = body.value.get("details").and_then(Value::as_array).into_iter().flatten();
    details
        .filter_map(|detail| detail.get("violations").and_then(Value::as_array))
        .flatten()
        .filter_map(|violation| violation.get("quotaId").and_then(Value::as_str))
        .any(|quota| quota.contains("PerDay"))
}
