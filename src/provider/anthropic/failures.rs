//! The meaning of Anthropic's errors. The first row that fits counts: money hides behind 400 and 429.

use super::limits::LIMITS;
use crate::domain::ErrorClass::{
    Auth, Conflict, ContentPolicy, InvalidRequest, Network, NeverFits, NotFound, Overloaded, PayloadTooLarge,
    Permission, QuotaExhausted, RampLimit, RateLimit, RateLimitDaily, ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Provider, Request};
use crate::provider::classify::{Rule, Signs, never_fits};
use crate::provider::error_body::ErrorBody;

/// The signs of its failures.
pub(super) const SIGNS: Signs = Signs { rules: RULES, limits: LIMITS };

const RULES: &[Rule] = &[
    // --- money ---
    Rule::when(spend_limit_reached, QuotaExhausted, Key),
    Rule::says(MONEY, QuotaExhausted, Key).at(&[400, 403, 429]),
    Rule::code(
        &[
            "billing_error",
            "contract_spend_limit_reached",
            "linked_organization_spend_limit_reached",
            "linked_organization_billing_unavailable",
        ],
        QuotaExhausted,
        Key,
    ),
    // --- limits ---
    Rule::code(&["overloaded_error"], Overloaded, Provider),
    Rule::when(never_fits, NeverFits, Request).at(&[429]),
    Rule::code(&["ramp_limit_exceeded"], RampLimit, Model),
    Rule::says(ACCELERATION, RampLimit, Model).at(&[429]),
    Rule::says(&["per day", "daily rate limit"], RateLimitDaily, Model).at(&[429]),
    Rule::code(&["rate_limit_error"], RateLimit, Model),
    Rule::code(&["compaction_unavailable", "cmek_key_unreachable", "cmek_context_unavailable"], Overloaded, Provider),
    // --- the request ---
    // A file that is gone comes as a 404 of the model's kind.
    Rule::code(&["image_dimensions_too_large", "file_expired", "unsupported_charset"], InvalidRequest, Request),
    Rule::when(encoding_is_wrong, InvalidRequest, Request),
    Rule::code(&["request_too_large"], PayloadTooLarge, Request),
    Rule::says(&["blocked by content filtering policy"], ContentPolicy, Request).at(&[400]),
    // The body did not arrive in time; the server read nothing of it.
    Rule::code(&["request_body_timeout"], Network, Request),
    // --- the key and the model ---
    // Every model alike: the account is shut, and a person has to open it again. Anthropic documents this code, so it
    // is believed at once; the settings below it may concern one model or one feature.
    Rule::code(&["organization_on_hold"], Permission, Key),
    // A setting of the organization or the workspace.
    Rule::code(
        &[
            "claude_code_key_creator_not_member",
            "cmek_key_disabled",
            "cmek_key_network_blocked",
            "workspace_human_review_disabled",
            "organization_not_enrolled_in_beta",
        ],
        Permission,
        Model,
    ),
    Rule::code(&["authentication_error"], Auth, Key),
    Rule::code(&["permission_error"], Permission, Model).in_doubt(),
    Rule::code(&["not_found_error"], NotFound, Model).in_doubt(),
    Rule::code(&["conflict_error"], Conflict, Request),
    // --- the provider ---
    Rule::code(&["timeout_error"], Timeout, Model),
    Rule::code(&["api_error"], ServerError, Model),
];

/// Whether this is Anthropic's own cap on spending, which comes as a 429 without `retry-after` and lasts until the
/// month ends.
pub(super) fn spend_limit_reached(error: &ErrorBody) -> bool {
    error.has_code(&["enforced_spend_limit_reached"])
}

/// One of the codes for a body whose encoding it does not read (`request_body_encoding_…`).
fn encoding_is_wrong(error: &ErrorBody) -> bool {
    error.has_code_from("request_body_encoding_")
}

/// Phrases by which Anthropic says that traffic grew too fast.
pub(in crate::provider) const ACCELERATION: &[&str] = &[
    "acceleration",
    "usage increase rate",
    "increased too sharply",
    "increase*gradually",
    "scale up*gradually",
    "ramp up*gradually",
];

/// Phrases by which Anthropic says that there is no money, as an invalid request.
pub(in crate::provider) const MONEY: &[&str] = &["reached your specified*usage limits", "credit balance is too low"];
