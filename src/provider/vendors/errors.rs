//! Error codes that mean something only at one vendor. They are consulted before the table of the dialect.

use crate::domain::ErrorClass::{
    Auth, ContentPolicy, ContextLength, NotFound, Overloaded, Permission, QuotaExhausted, RampLimit, RateLimit,
    RateLimitDaily, ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::provider::classify::Rule;

/// Z.ai and BigModel: a business code in every error (A, docs.z.ai/api-reference/api-code).
pub(super) const ZAI: &[Rule] = &[
    Rule::code(&["1000", "1001", "1002", "1003", "1004"], Auth, Key),
    // An account that is inactive, unknown or locked.
    Rule::code(&["1110", "1111", "1112", "1121"], Auth, Key),
    Rule::code(&["1113"], QuotaExhausted, Key),
    Rule::code(&["1211", "1212", "1221", "1222"], NotFound, Model),
    Rule::code(&["1220", "1309", "1311"], Permission, Model),
    // Calls at once, calls in a while, and too much traffic on the API; of an account that was slowed down.
    Rule::code(&["1302", "1303", "1305", "1313"], RateLimit, Model),
    // The limit of a day, of hours, of a week or a month: the message says when it ends.
    Rule::code(&["1304", "1308", "1310"], RateLimitDaily, Model),
    Rule::code(&["1312"], Overloaded, Model),
    Rule::code(&["1120", "1200", "1230", "1234"], ServerError, Model),
    Rule::code(&["1261"], ContextLength, Request),
    Rule::code(&["1301"], ContentPolicy, Request),
];

/// Azure OpenAI (A, its page on errors): an account that was found to abuse the service, in words for content.
pub(super) const AZURE_OPENAI: &[Rule] = &[Rule::says(&["resource*temporarily blocked"], Permission, Key).at(&[403])];

/// SiliconFlow (K).
pub(super) const SILICONFLOW: &[Rule] = &[
    Rule::code(&["20012", "30003"], NotFound, Model),
    Rule::code(&["30001"], QuotaExhausted, Key),
    Rule::code(&["50505", "50603", "50604"], Overloaded, Model),
];

/// DashScope (A/B, the list of error messages of Model Studio).
pub(super) const DASHSCOPE: &[Rule] = &[
    // Its limits of tokens come in OpenAI's words for money. Its own word for debts is `Arrearage`.
    Rule::code(&["insufficient_quota", "limit_requests", "LimitRequests"], RateLimit, Model).at(&[429]),
    Rule::code(&["Throttling.BurstRate", "limit_burst_rate"], RampLimit, Model),
    Rule::code(&["Throttling", "Throttling.RateQuota", "Throttling.AllocationQuota"], RateLimit, Model),
    // The free tier of one model is used up.
    Rule::code(&["AllocationQuota.FreeTierOnly"], Permission, Model),
    Rule::code(&["AccessDenied.Unpurchased", "Model.AccessDenied", "AccessDenied"], Permission, Model).at(&[400, 403]),
    Rule::code(&["ModelUnavailable", "ServiceUnavailable"], Overloaded, Model),
    Rule::code(&["RequestTimeOut", "ResponseTimeout"], Timeout, Model),
    Rule::code(&["ModelServingError", "InternalError.Algo", "InternalError"], ServerError, Model),
];

/// GitHub Models (K).
pub(super) const GITHUB_MODELS: &[Rule] = &[
    Rule::says(&["byday"], RateLimitDaily, Model).at(&[429]),
    Rule::code(&["RateLimitReached"], RateLimit, Model),
    Rule::code(&["unavailable_model"], NotFound, Model),
];
