//! The meaning of Cohere's errors and limit headers. An error is a status and a sentence.

use crate::domain::ErrorClass::{Auth, ContextLength, NotFound, Permission, QuotaExhausted};
use crate::domain::Scope::{Key, Model, Request};
use crate::domain::Unit;
use crate::provider::classify::{Rule, Signs};
use crate::provider::limit_headers::{COMMON, Family, MINUTE, MONTH, Window, suffixed};

/// The signs of its failures.
pub(super) const SIGNS: Signs = Signs { rules: RULES, limits: LIMITS };

/// The headers of trial keys (K): calls a minute, and calls a month.
const OWN: &[Family] = &[
    suffixed!(Requests, "x-trial-endpoint-call", Window::Known(MINUTE), None),
    suffixed!(Requests, "x-endpoint-monthly-call", Window::Known(MONTH), Some("month")),
];

/// The headers that come with its answers: gateways before it have some of their own.
pub(super) const LIMITS: &[&[Family]] = &[COMMON, OWN];

const RULES: &[Rule] = &[
    // --- money: the month of a trial key comes as a 429 ---
    Rule::says(&["trial key*/ month", "calls / month", "calls per month"], QuotaExhausted, Key).at(&[402, 403, 429]),
    // --- the key ---
    Rule::says(&["invalid api token", "no api key supplied", "incorrect api key"], Auth, Key).at(&[400, 401, 403, 498]),
    // Another vendor's 498 is a lack of capacity.
    Rule::status(&[498], Auth, Key).in_doubt(),
    // --- the model and the request ---
    Rule::says(&["model*not found", "model*was removed", "model*deprecated"], NotFound, Model).at(&[400, 404]),
    Rule::says(&["not have access to*model", "not allowed to use*model"], Permission, Model).at(&[401, 403]),
    Rule::says(&["too many tokens"], ContextLength, Request).at(&[400, 422]),
];
