//! The meaning of errors of OpenAI and compatible servers. The first row that fits counts, so order matters: money
//! before throttling (both come as 429), and exact codes before phrases.

use super::limits::LIMITS;
use crate::domain::ErrorClass::{
    Auth, ContentPolicy, ContextLength, InvalidRequest, NeverFits, NotFound, OutputInvalid, Overloaded,
    PayloadTooLarge, Permission, QuotaExhausted, RampLimit, RateLimit, RateLimitDaily, Refused, ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Provider, Request};
use crate::provider::anthropic::failures::{ACCELERATION, MONEY as ANTHROPIC_MONEY};
use crate::provider::classify::{Rule, Signs, fits_later, never_fits};
use crate::provider::error_body::ErrorBody;
use crate::provider::gemini::failures::{NO_BILLING, has_none as google_has_none, per_day as google_per_day};

/// The signs of their failures. Gateways pass on the words of any vendor.
pub(in crate::provider) const SIGNS: Signs = Signs { rules: RULES, limits: LIMITS };

const RULES: &[Rule] = &[
    // --- money ---
    // OpenRouter: credit that parallel requests hold and will give back; slower is enough.
    Rule::code(&["in_flight_budget_exhausted"], RateLimit, Key),
    Rule::code(
        &[
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "billing_not_active",
            "weight_exceeds_budget",
            "insufficient_credits",
            "insufficient_balance",
            "exceeded_current_quota_error",
            // Groq's spend limit, and messages of Anthropic's and Google's interfaces for this dialect.
            "blocked_api_access",
            "billing_error",
            "enforced_spend_limit_reached",
            "BILLING_DISABLED",
        ],
        QuotaExhausted,
        Key,
    ),
    // OpenRouter says this of single requests too.
    Rule::code(&["payment_required"], QuotaExhausted, Key).in_doubt(),
    Rule::says(
        &[
            "used all available credits",
            "run out of credits",
            "doesn't have any credits",
            "monthly spending limit",
            "insufficient balance",
            "credits are depleted",
            // OpenRouter: a limit on what one key may spend; Cohere: on what a trial key may do in a month.
            "key limit exceeded",
            "trial key*calls / month",
        ],
        QuotaExhausted,
        Key,
    )
    .at(&[400, 402, 403, 429]),
    Rule::says(ANTHROPIC_MONEY, QuotaExhausted, Key).at(&[400, 403, 429]),
    Rule::says(NO_BILLING, QuotaExhausted, Key).at(&[400, 403]),
    // Google's limits per minute and per day come in the words that OpenAI uses for money.
    Rule::code(&["RESOURCE_EXHAUSTED"], Permission, Model).given(google_has_none).at(&[429]),
    Rule::code(&["RESOURCE_EXHAUSTED"], RateLimitDaily, Model).given(google_per_day).at(&[429]),
    Rule::code(&["RESOURCE_EXHAUSTED"], RateLimit, Model).at(&[429]),
    Rule::says(&["exceeded your current quota"], QuotaExhausted, Key).at(&[400, 402, 403, 429]),
    // --- the provider's capacity, before the rate limits that it is dressed up as ---
    Rule::code(&["slow_down"], RampLimit, Model),
    Rule::says(ACCELERATION, RampLimit, Model).at(&[429]),
    Rule::says(&["slow down*gradually"], RampLimit, Model).at(&[503]),
    Rule::code(&["capacity_exhausted", "temporarily_unavailable", "resource_unavailable"], Overloaded, Model),
    Rule::says(
        &[
            "tier capacity exceeded",
            "experiencing high demand",
            "resource unavailable",
            "temporarily unable to process",
        ],
        Overloaded,
        Model,
    )
    .at(&[429]),
    Rule::code(
        &[
            "server_is_overloaded",
            "service_unavailable_error",
            "provider_overloaded",
            "engine_overloaded",
            "overloaded_error",
            "unavailable_error",
        ],
        Overloaded,
        Model,
    ),
    // --- limits ---
    Rule::when(never_fits, NeverFits, Request).at(&[413, 429]),
    // Groq: a token limit that the request fits into, but not now.
    Rule::when(fits_later, RateLimitDaily, Model).at(&[413, 429]).saying(&["per day", "(rpd)", "(tpd)"]),
    Rule::when(fits_later, RateLimit, Model).at(&[413]),
    // A month is not a day, but asking once a day is right for both.
    Rule::says(&["per day", "per-day", "(rpd)", "(tpd)", "daily limit", "per month"], RateLimitDaily, Model).at(&[429]),
    Rule::code(&["rate_limit_exceeded", "rate_limit_error", "too_many_requests"], RateLimit, Model),
    // --- the request ---
    Rule::code(&["string_above_max_length", "string_too_long"], InvalidRequest, Request),
    Rule::code(
        &[
            "content_policy_violation",
            "moderation_blocked",
            "invalid_prompt",
            "content_filter",
            "ResponsibleAIPolicyViolation",
            "bio_policy",
            "misalignment_policy_violation",
            "image_content_policy_violation",
            "refusal",
        ],
        ContentPolicy,
        Request,
    ),
    Rule::says(&["content exists risk", "requires moderation", "was flagged", "input flagged"], ContentPolicy, Request)
        .at(&[400, 403]),
    Rule::code(&["json_validate_failed", "tool_use_failed"], OutputInvalid, Request),
    Rule::code(
        &["payload_too_large", "request_too_large", "image_too_large", "image_file_too_large"],
        PayloadTooLarge,
        Request,
    ),
    // Another target may read or reach an image that this one cannot. OpenAI's responses say so inside a success.
    Rule::when(about_an_image, Refused, Request).at(&[400, 404, 422]),
    // --- the key ---
    Rule::code(
        &["invalid_api_key", "authentication_error", "invalid_authentication", "authentication", "account_deactivated"],
        Auth,
        Key,
    ),
    Rule::says(&["incorrect api key", "invalid api key"], Auth, Key).at(&[400, 403]),
    Rule::code(&["unsupported_country_region_territory"], Permission, Provider),
    Rule::code(&["data_residency_mismatch"], Permission, Model),
    // Fireworks: 412 for a suspended account, usually for want of money.
    Rule::says(&["account*suspended"], QuotaExhausted, Key).at(&[412]),
    // --- the address ---
    Rule::code(&["unknown_url"], NotFound, Provider).in_doubt(),
    Rule::says(&["invalid url (", "unknown request url"], NotFound, Provider).at(&[404]).in_doubt(),
    // --- the model ---
    // OpenRouter: the model is there, but not for a request with these parameters or these contents.
    Rule::says(&["no endpoints found*parameters", "no endpoints found that support"], Refused, Request).at(&[400, 404]),
    Rule::code(
        &[
            "model_not_found",
            "DeploymentNotFound",
            "model_not_available",
            "model_deprecated",
            "model_unavailable_upstream",
            "no_endpoints",
            "wrong_endpoint",
            "free_variant_ended",
        ],
        NotFound,
        Model,
    ),
    // The same words report missing files, tools and cached prompts.
    Rule::code(&["not_found", "not_found_error", "NotFoundError"], NotFound, Model).in_doubt(),
    Rule::code(
        &[
            "permission_denied",
            "permission-denied",
            "permission_error",
            "precondition_failed",
            "region_restricted",
            "privacy_restricted",
            "constraint_filtered",
        ],
        Permission,
        Model,
    )
    .at(&[400, 403, 404, 412])
    .in_doubt(),
    // llama.cpp, about a prompt that is too long.
    Rule::says(&["too large to process"], ContextLength, Request).at(&[500]),
    // llama.cpp, about what it was not started for.
    Rule::code(&["not_supported_error"], Refused, Request),
    Rule::says(&["does not support embeddings", "requires --jinja"], Refused, Request).at(&[500]),
    // --- the provider ---
    Rule::code(&["timeout", "vector_store_timeout"], Timeout, Model),
    Rule::code(&["server_error", "provider_unavailable", "internal_error", "unmapped", "server"], ServerError, Model)
        .at(&[500, 502]),
    // OpenRouter, in a word that no row above knows, beside its own verdict.
    Rule::when(|error| is_retryable(error) == Some(true), Overloaded, Model).at(&[400, 403, 404, 500, 502, 503]),
    Rule::when(|error| is_retryable(error) == Some(false), NotFound, Model).at(&[404, 429, 500, 502, 503]).in_doubt(),
];

/// Whether one of the codes is about an image: `invalid_image_url`, `failed_to_download_image`.
fn about_an_image(error: &ErrorBody) -> bool {
    error.codes.iter().any(|code| code.split('_').any(|word| word.eq_ignore_ascii_case("image")))
}

/// OpenRouter's verdict on whether the model will be available later.
fn is_retryable(error: &ErrorBody) -> Option<bool> {
    error.value.pointer("/availability/retryable")?.as_bool()
}
