//! The meaning of Ollama's errors. It has no codes: a status, and a sentence under `error`.

use crate::domain::ErrorClass::{
    Auth, ContextLength, NotFound, Overloaded, Permission, QuotaExhausted, RateLimitDaily, ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::provider::classify::{Rule, Signs};
use crate::provider::limit_headers::COMMON;

/// The signs of its failures.
pub(super) const SIGNS: Signs = Signs { rules: RULES, limits: &[COMMON] };

const RULES: &[Rule] = &[
    // --- the model ---
    Rule::says(&["model*not found", "try pulling it first"], NotFound, Model).at(&[404]),
    // --- the request ---
    Rule::says(
        &["exceeds the context", "exceeds the available context", "context length*exceeded"],
        ContextLength,
        Request,
    )
    .at(&[400, 500]),
    // --- memory and loading: it may be over when other models have gone ---
    Rule::says(&["more system memory", "out of memory", "unable to allocate", "not enough memory"], Overloaded, Model)
        .at(&[400, 500, 503]),
    Rule::says(&["timed out waiting for*runner"], Timeout, Model).at(&[500]),
    Rule::says(&["server loading model", "loading model", "model is loading"], Overloaded, Model).at(&[500, 503]),
    Rule::says(&["server busy", "maximum pending requests"], Overloaded, Model).at(&[500, 503]),
    Rule::says(&["runner process has terminated", "runner process no longer running"], ServerError, Model).at(&[500]),
    // --- the cloud ---
    Rule::says(&["unauthorized"], Auth, Key).at(&[401, 403]),
    Rule::says(&["requires a subscription", "requires*upgrade"], Permission, Model).at(&[402, 403]),
    Rule::says(&["hourly usage limit", "daily usage limit", "weekly usage limit"], RateLimitDaily, Key).at(&[402, 429]),
    Rule::says(&["out of credit", "insufficient balance"], QuotaExhausted, Key).at(&[402, 403, 429]),
];
