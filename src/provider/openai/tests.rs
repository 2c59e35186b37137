use super::*;
use crate::domain::ErrorClass::*;
use crate::domain::Scope::{Key, Model, Provider, Request};
use crate::domain::{Beside, Finish, ToolCall, Unit, UsageSource};
use crate::provider::adapter::Dialect;
use crate::provider::checks::{Case, answer, case, check_failures, check_finishes, usage};
use serde_json::json;

fn at(base_url: &str) -> &'static Openai {
    for_base_url(base_url)
}

fn openai() -> &'static Openai {
    at("https://api.openai.com/v1")
}

fn server() -> &'static Openai {
    at("http://127.0.0.1:8000/v1")
}

// === failures ===

const OPENAI: &[Case] = &[
    case("schema", 400, r#"{"error":{"message":"Invalid value","type":"invalid_request_error","param":"x","code":null}}"#, Refused, Request, Some("invalid_request_error")),
    case("window by code", 400, r#"{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}"#, ContextLength, Request, Some("context_length_exceeded")),
    case("window by message", 400, r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","code":null}}"#, ContextLength, Request, Some("invalid_request_error")),
    case("window, configured limit", 400, r#"{"error":{"message":"Input tokens exceed the configured limit of 272000 tokens.","code":null}}"#, ContextLength, Request, None),
    case("policy", 400, r#"{"error":{"message":"no","code":"content_policy_violation"}}"#, ContentPolicy, Request, Some("content_policy_violation")),
    case("moderation", 400, r#"{"error":{"message":"no","code":"moderation_blocked"}}"#, ContentPolicy, Request, Some("moderation_blocked")),
    case("invalid prompt", 400, r#"{"error":{"message":"no","code":"invalid_prompt"}}"#, ContentPolicy, Request, Some("invalid_prompt")),
    case("long string", 400, r#"{"error":{"message":"Invalid 'user': string too long. Expected a string with maximum length 64","type":"invalid_request_error","code":"string_above_max_length"}}"#, InvalidRequest, Request, Some("string_above_max_length")),
    case("key", 401, r#"{"error":{"message":"Incorrect API key provided: sk-abc***xyz.","type":"invalid_request_error","code":"invalid_api_key"}}"#, Auth, Key, Some("invalid_api_key")),
    case("address not authorised", 401, r#"{"error":{"message":"Your IP is not authorized","type":"invalid_request_error","code":null}}"#, Auth, Key, Some("invalid_request_error")),
    case("country", 403, r#"{"error":{"message":"Country not supported","type":"request_forbidden","code":"unsupported_country_region_territory"}}"#, Permission, Provider, Some("unsupported_country_region_territory")),
    case("model access", 403, r#"{"error":{"message":"Project does not have access to model","type":"invalid_request_error","code":null}}"#, Permission, Model, Some("invalid_request_error")),
    case("model", 404, r#"{"error":{"message":"The model does not exist","type":"invalid_request_error","code":"model_not_found"}}"#, NotFound, Model, Some("model_not_found")),
    case("408", 408, "", Timeout, Model, None),
    case("409", 409, r#"{"error":{"message":"busy"}}"#, Conflict, Request, None),
    case("413", 413, "<html><h1>413 Request Entity Too Large</h1></html>", PayloadTooLarge, Request, None),
    case("requests per minute", 429, r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.","type":"requests","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded")).waits(20_000),
    case("tokens per minute", 429, r#"{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 1m2.5s.","type":"tokens","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded")).waits(62_500),
    case("milliseconds", 429, r#"{"error":{"message":"Rate limit reached. Please try again in 12ms.","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded")).with(&[("retry-after-ms", "7"), ("retry-after", "0")]).waits(12),
    case("reset of what is used up", 429, r#"{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded")).with(&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "8.64s"), ("x-ratelimit-remaining-tokens", "17"), ("x-ratelimit-reset-tokens", "6m0s")]).waits(8_640),
    case("requests per day", 429, r#"{"error":{"message":"Rate limit reached on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.","type":"requests","code":"rate_limit_exceeded"}}"#, RateLimitDaily, Model, Some("rate_limit_exceeded")).waits(432_000),
    case("ramp", 429, r#"{"error":{"message":"Slow down","type":"rate_limit_error","code":"slow_down"}}"#, RampLimit, Model, Some("slow_down")),
    case("ramp, formerly", 503, r#"{"error":{"message":"Slow down","type":"service_unavailable_error","code":"slow_down"}}"#, RampLimit, Model, Some("slow_down")).with(&[("retry-after", "30")]).waits(30_000),
    case("quota", 429, r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#, QuotaExhausted, Key, Some("insufficient_quota")),
    case("quota: credit", 429, r#"{"error":{"message":"m","type":"insufficient_quota","code":"credit_balance_exhausted"}}"#, QuotaExhausted, Key, Some("credit_balance_exhausted")),
    case("quota: organization spend", 429, r#"{"error":{"message":"m","type":"insufficient_quota","code":"organization_spend_limit_exceeded"}}"#, QuotaExhausted, Key, Some("organization_spend_limit_exceeded")),
    case("quota: project spend", 429, r#"{"error":{"message":"m","type":"insufficient_quota","code":"project_spend_limit_exceeded"}}"#, QuotaExhausted, Key, Some("project_spend_limit_exceeded")),
    case("quota: usage", 429, r#"{"error":{"message":"m","code":"organization_usage_limit_exceeded"}}"#, QuotaExhausted, Key, Some("organization_usage_limit_exceeded")),
    case("quota: hard limit", 429, r#"{"error":{"message":"m","code":"billing_hard_limit_reached"}}"#, QuotaExhausted, Key, Some("billing_hard_limit_reached")),
    case("never fits", 429, r#"{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 45,000. The input or output tokens must be reduced.","type":"tokens","code":"rate_limit_exceeded"}}"#, NeverFits, Request, Some("rate_limit_exceeded")).names(Unit::Tokens, 30_000, Some(45_000)),
    case("never fits, without numbers", 429, r#"{"error":{"message":"Request too large for gpt-4o: it exceeds the tokens per min limit","type":"tokens","code":"rate_limit_exceeded"}}"#, NeverFits, Request, Some("rate_limit_exceeded")),
    case("500", 500, r#"{"error":{"message":"The server had an error","type":"server_error","code":null}}"#, ServerError, Model, Some("server_error")),
    case("500 does not wait for a reset", 500, "", ServerError, Model, None).with(&[("x-ratelimit-reset-tokens", "6m0s")]),
    case("overloaded", 503, r#"{"error":{"message":"m","type":"service_unavailable_error","code":"server_is_overloaded"}}"#, Overloaded, Model, Some("server_is_overloaded")),
    case("503", 503, "", Overloaded, Model, None),
    case("policy on biology in a 200", 200, r#"{"error":{"message":"m","code":"bio_policy"}}"#, ContentPolicy, Request, Some("bio_policy")),
    case("a nameless 400 that a retry helps", 400, "", ServerError, Model, None).with(&[("x-should-retry", "true")]),
    case("Azure filter", 400, r#"{"error":{"code":"content_filter","message":"m","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#, ContentPolicy, Request, Some("ResponsibleAIPolicyViolation")),
    case("Azure deployment", 404, r#"{"error":{"code":"DeploymentNotFound","message":"m"}}"#, NotFound, Model, Some("DeploymentNotFound")),
    case("Azure busy", 429, r#"{"error":{"code":"429","message":"The system is experiencing high demand"}}"#, Overloaded, Model, Some("429")).with(&[("retry-after", "1"), ("retry-after-ms", "0")]).waits(1_000),
];

const COMPATIBLE: &[Case] = &[
    // Mistral
    case("Mistral 401", 401, r#"{"message":"Unauthorized"}"#, Auth, Key, None),
    case("Mistral 401, detail", 401, r#"{"detail":"Unauthorized"}"#, Auth, Key, None),
    case("Mistral 402", 402, r#"{"object":"error","message":"Payment required","type":"payment","code":null}"#, QuotaExhausted, Key, Some("payment")),
    case("Mistral 403", 403, r#"{"object":"error","message":"tier","type":"forbidden","code":"1010"}"#, Permission, Model, Some("1010")),
    case("Mistral model", 400, r#"{"object":"error","message":"Invalid model: x","type":"invalid_model","param":null,"code":"1500"}"#, NotFound, Model, Some("1500")),
    case("Mistral 422", 422, r#"{"detail":[{"loc":["body","seed"],"msg":"Extra inputs are not permitted","type":"extra_forbidden"}]}"#, Refused, Request, None),
    case("Mistral rate", 429, r#"{"object":"error","message":"Requests rate limit exceeded","type":"rate_limited","param":null,"code":"1300"}"#, RateLimit, Model, Some("1300")).with(&[("ratelimitbysize-remaining", "0"), ("ratelimitbysize-reset", "28")]).waits(28_000),
    case("Mistral capacity", 429, r#"{"object":"error","message":"Service tier capacity exceeded for this model.","type":"invalid_request_error","param":null,"code":"3505"}"#, Overloaded, Model, Some("3505")),
    case("Mistral month", 429, r#"{"message":"Tokens per month limit exceeded"}"#, RateLimitDaily, Model, None),
    // Groq
    case("Groq output", 400, r#"{"error":{"message":"Failed to generate JSON","type":"invalid_request_error","code":"json_validate_failed","failed_generation":"{"}}"#, OutputInvalid, Request, Some("json_validate_failed")),
    case("Groq tool", 400, r#"{"error":{"message":"Failed to call a function","type":"invalid_request_error","code":"tool_use_failed"}}"#, OutputInvalid, Request, Some("tool_use_failed")),
    case("Groq never fits", 413, r#"{"error":{"message":"Request too large for model `m` in organization `o` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Requested 8123, please reduce your message size and try again.","type":"tokens","code":"rate_limit_exceeded"}}"#, NeverFits, Request, Some("rate_limit_exceeded")).names(Unit::Tokens, 6_000, Some(8_123)),
    case("Groq not now", 413, r#"{"error":{"message":"Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 5000","type":"tokens","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded")).names(Unit::Tokens, 6_000, Some(5_000)),
    case("Groq not today", 413, r#"{"error":{"message":"Request too large for model `m` on tokens per day (TPD): Limit 100000, Used 99000, Requested 5000. Please try again in 57m36s.","type":"tokens","code":"rate_limit_exceeded"}}"#, RateLimitDaily, Model, Some("rate_limit_exceeded")).waits(3_456_000).names(Unit::Tokens, 100_000, Some(5_000)),
    case("Groq 422", 422, r#"{"error":{"message":"semantic","type":"invalid_request_error"}}"#, InvalidRequest, Request, Some("invalid_request_error")),
    case("Groq 424", 424, "", ServerError, Model, None),
    case("Groq rate", 429, r#"{"error":{"message":"Rate limit reached for model `m` on tokens per minute (TPM): Limit 6000, Used 5000, Requested 2000. Please try again in 7.66s.","type":"tokens","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded")).with(&[("retry-after", "7.66")]).waits(7_660),
    case("Groq capacity", 498, r#"{"error":{"message":"capacity_exceeded","type":"flex"}}"#, Overloaded, Model, Some("flex")),
    case("Groq cancelled", 499, "", Cancelled, Request, None),
    // DeepSeek
    case("DeepSeek format", 400, r#"{"error":{"message":"Invalid format","type":"invalid_request_error","code":"invalid_request_error"}}"#, InvalidRequest, Request, Some("invalid_request_error")),
    case("DeepSeek model", 400, r#"{"error":{"message":"Model Not Exist","type":"invalid_request_error","code":"invalid_request_error"}}"#, NotFound, Model, Some("invalid_request_error")),
    case("DeepSeek risk", 400, r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error","code":"invalid_request_error"}}"#, ContentPolicy, Request, Some("invalid_request_error")),
    case("DeepSeek balance", 402, r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#, QuotaExhausted, Key, Some("invalid_request_error")),
    case("DeepSeek concurrency", 429, r#"{"error":{"message":"Too many concurrent requests"}}"#, RateLimit, Model, None),
    case("DeepSeek busy", 503, r#"{"error":{"message":"Server overloaded"}}"#, Overloaded, Model, None),
    case("DeepSeek ran out while generating", 200, r#"{"choices":[{"message":{"content":""},"finish_reason":"insufficient_system_resource"}]}"#, Overloaded, Model, Some("insufficient_system_resource")),
    // Together
    case("Together spend", 402, r#"{"error":{"message":"Monthly spend limit"}}"#, QuotaExhausted, Key, None),
    case("Together window", 403, r#"{"error":{"message":"The sum of input tokens + max_tokens must be less than context length","type":"invalid_request_error"}}"#, ContextLength, Request, Some("invalid_request_error")),
    case("Together window, TGI", 422, r#"{"error":{"message":"`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 4000 `inputs` tokens","type_":"validation"}}"#, ContextLength, Request, None),
    case("Together rate", 429, r#"{"error":{"message":"too fast"}}"#, RateLimit, Model, None).with(&[("x-ratelimit-limit", "10"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2")]).waits(2_000),
    case("Together busy", 503, r#"{"error":{"message":"engine overloaded"}}"#, Overloaded, Model, None),
    case("Together 504", 504, "", Timeout, Model, None),
    case("Cloudflare 524", 524, "<html>A timeout occurred</html>", Timeout, Model, None),
    case("Cloudflare 520", 520, "<html>unknown error</html>", ServerError, Provider, None),
    case("Together 529", 529, "", Overloaded, Provider, None),
    // Fireworks
    case("Fireworks 405", 405, "", NotFound, Provider, None),
    case("Fireworks suspended", 412, r#"{"error":{"message":"Account acme is suspended, possibly due to reaching the monthly spending limit","code":"PRECONDITION_FAILED"}}"#, QuotaExhausted, Key, Some("PRECONDITION_FAILED")),
    case("Fireworks LoRA", 412, r#"{"error":{"message":"LoRA load failure"}}"#, Permission, Model, None),
    case("Fireworks 502", 502, "bad gateway", ServerError, Model, None),
    // OpenRouter
    case("OpenRouter window", 400, r#"{"error":{"code":400,"message":"m","metadata":{"error_type":"context_length_exceeded"}}}"#, ContextLength, Request, Some("context_length_exceeded")),
    case("OpenRouter output cap", 400, r#"{"error":{"code":400,"message":"m","metadata":{"error_type":"max_tokens_exceeded"}}}"#, ContextLength, Request, Some("max_tokens_exceeded")),
    case("OpenRouter tokens", 400, r#"{"error":{"code":400,"message":"m","metadata":{"error_type":"token_limit_exceeded"}}}"#, ContextLength, Request, Some("token_limit_exceeded")),
    case("OpenRouter string", 400, r#"{"error":{"code":400,"message":"m","metadata":{"error_type":"string_too_long"}}}"#, InvalidRequest, Request, Some("string_too_long")),
    case("OpenRouter key", 401, r#"{"error":{"code":401,"message":"m","metadata":{"error_type":"authentication"}}}"#, Auth, Key, Some("authentication")),
    case("OpenRouter credit", 402, r#"{"error":{"code":402,"message":"Insufficient credits","metadata":{"error_type":"payment_required"}}}"#, QuotaExhausted, Key, Some("payment_required")),
    case("OpenRouter budget in flight", 402, r#"{"error":{"code":402,"message":"m","metadata":{"error_type":"payment_required","reason":"in_flight_budget_exhausted"}}}"#, RateLimit, Key, Some("in_flight_budget_exhausted")),
    case("OpenRouter weight", 402, r#"{"error":{"code":402,"message":"m","metadata":{"reason":"weight_exceeds_budget"}}}"#, QuotaExhausted, Key, Some("weight_exceeds_budget")),
    case("OpenRouter permission", 403, r#"{"error":{"code":403,"message":"m","metadata":{"error_type":"permission_denied"}}}"#, Permission, Model, Some("permission_denied")),
    case("OpenRouter moderation", 403, r#"{"error":{"code":403,"message":"The model requires moderation. Your input was flagged","metadata":{"reasons":["violence"]}}}"#, ContentPolicy, Request, Some("violence")),
    case("OpenRouter not found", 404, r#"{"error":{"code":404,"message":"m","metadata":{"error_type":"not_found"}}}"#, NotFound, Model, Some("not_found")),
    case("OpenRouter precondition", 412, r#"{"error":{"code":412,"message":"m","metadata":{"error_type":"precondition_failed"}}}"#, Permission, Model, Some("precondition_failed")),
    case("OpenRouter bytes", 413, r#"{"error":{"code":413,"message":"m","metadata":{"error_type":"payload_too_large"}}}"#, PayloadTooLarge, Request, Some("payload_too_large")),
    case("OpenRouter unprocessable", 422, r#"{"error":{"code":422,"message":"m","metadata":{"error_type":"unprocessable"}}}"#, InvalidRequest, Request, Some("unprocessable")),
    case("OpenRouter rate", 429, r#"{"error":{"code":429,"message":"m","metadata":{"error_type":"rate_limit_exceeded"}}}"#, RateLimit, Model, Some("rate_limit_exceeded")).with(&[("x-ratelimit-limit", "20"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795176030000")]).waits(30_000),
    case("OpenRouter capacity", 429, r#"{"error":{"code":429,"message":"m","metadata":{"error_type":"rate_limit_exceeded"},"availability":{"code":"capacity_exhausted","retryable":true,"retry_after":12}}}"#, Overloaded, Model, Some("capacity_exhausted")).waits(12_000),
    case("OpenRouter unavailable for now", 503, r#"{"error":{"code":503,"message":"m","availability":{"code":"temporarily_unavailable","retryable":true}}}"#, Overloaded, Model, Some("temporarily_unavailable")),
    case("OpenRouter overloaded", 503, r#"{"error":{"code":503,"message":"m","metadata":{"error_type":"provider_overloaded"}}}"#, Overloaded, Model, Some("provider_overloaded")),
    case("OpenRouter upstream", 502, r#"{"error":{"code":502,"message":"m","metadata":{"error_type":"provider_unavailable"}}}"#, ServerError, Model, Some("provider_unavailable")),
    case("OpenRouter request", 400, r#"{"error":{"code":400,"message":"m","metadata":{"error_type":"invalid_request"}}}"#, InvalidRequest, Request, Some("invalid_request")),
    case("OpenRouter policy", 400, r#"{"error":{"code":400,"message":"m","metadata":{"error_type":"content_policy_violation"}}}"#, ContentPolicy, Request, Some("content_policy_violation")),
    case("OpenRouter refusal", 400, r#"{"error":{"code":400,"message":"m","metadata":{"error_type":"refusal"}}}"#, ContentPolicy, Request, Some("refusal")),
    case("OpenRouter server", 500, r#"{"error":{"code":500,"message":"m","metadata":{"error_type":"server"}}}"#, ServerError, Model, Some("server")),
    case("OpenRouter timeout", 504, r#"{"error":{"code":504,"message":"m","metadata":{"error_type":"timeout"}}}"#, Timeout, Model, Some("timeout")),
    case("OpenRouter unmapped", 500, r#"{"error":{"code":500,"message":"m","metadata":{"error_type":"unmapped"}}}"#, ServerError, Model, Some("unmapped")),
    case("OpenRouter model gone", 404, r#"{"error":{"code":404,"message":"m","availability":{"code":"model_deprecated","retryable":false}}}"#, NotFound, Model, Some("model_deprecated")),
    case("OpenRouter no endpoints", 404, r#"{"error":{"code":404,"message":"m","availability":{"code":"no_endpoints"}}}"#, NotFound, Model, Some("no_endpoints")),
    case("OpenRouter region", 404, r#"{"error":{"code":404,"message":"m","availability":{"code":"region_restricted"}}}"#, Permission, Model, Some("region_restricted")),
    case("OpenRouter quotes upstream", 400, r#"{"error":{"code":400,"message":"Provider returned error","metadata":{"raw":"{\"error\":{\"message\":\"prompt is too long: 250000 tokens\"}}"}}}"#, ContextLength, Request, Some("400")),
    case("OpenRouter in a 200", 200, r#"{"error":{"code":502,"message":"Upstream failed"},"choices":[]}"#, ServerError, Model, Some("502")),
    case("OpenRouter 429 in a 200", 200, r#"{"error":{"code":429,"message":"Rate limited upstream, try again in 3 seconds"}}"#, RateLimit, Model, Some("429")).waits(3_000),
    case("OpenRouter in a choice", 200, r#"{"choices":[{"error":{"code":503,"message":"Overloaded"},"finish_reason":"error","message":{"content":""}}]}"#, Overloaded, Model, Some("503")),
    // xAI
    case("xAI key", 400, r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***bc."}"#, Auth, Key, Some("Client specified an invalid argument")),
    case("xAI request", 400, r#"{"code":"Client specified an invalid argument","error":"Argument not supported"}"#, Refused, Request, Some("Client specified an invalid argument")),
    case("xAI credits", 403, r#"{"code":"permission-denied","error":"Your team has used all available credits or reached its monthly spending limit."}"#, QuotaExhausted, Key, Some("permission-denied")),
    case("xAI credits as 429", 429, r#"{"code":"Some resource has been exhausted","error":"Your team x has used all available credits or reached its monthly spending limit."}"#, QuotaExhausted, Key, Some("Some resource has been exhausted")),
    case("xAI permission", 403, r#"{"code":"permission-denied","error":"no access to the model"}"#, Permission, Model, Some("permission-denied")),
    case("xAI rate", 429, r#"{"code":"Some resource has been exhausted","error":"Too many requests for team"}"#, RateLimit, Model, Some("Some resource has been exhausted")),
    case("xAI 415", 415, "", Refused, Request, None),
    case("xAI not ready", 202, "", ServerError, Provider, None),
    // Servers of one's own
    case("Ollama model", 404, r#"{"error":"model 'x' not found"}"#, NotFound, Model, None),
    case("Ollama busy", 503, r#"{"error":"server busy, please try again. maximum pending requests exceeded"}"#, Overloaded, Model, None),
    case("llama.cpp window", 400, r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":4096}}"#, ContextLength, Request, Some("exceed_context_size_error")),
    case("llama.cpp batch", 500, r#"{"error":{"code":500,"message":"input is too large to process. increase the physical batch size","type":"server_error"}}"#, ContextLength, Request, Some("server_error")),
    case("llama.cpp loading", 503, r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#, Overloaded, Model, Some("unavailable_error")),
    case("llama.cpp key", 401, r#"{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}"#, Auth, Key, Some("authentication_error")),
    case("vLLM window, older", 400, r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens","type":"BadRequestError","param":null,"code":400}"#, ContextLength, Request, Some("BadRequestError")),
    case("vLLM model", 404, r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","code":404}"#, NotFound, Model, Some("NotFoundError")),
    case("vLLM error in a 200", 200, r#"{"object":"error","message":"bad","type":"BadRequestError","code":400}"#, InvalidRequest, Request, Some("BadRequestError")),
    case("vLLM dead", 500, "Internal Server Error", ServerError, Model, None),
    // Fragments of section 5.8 that no row above has.
    case("fragment: limit", 400, r#"{"error":{"message":"input length and max_tokens exceed context limit: 190000 + 20000 > 200000"}}"#, ContextLength, Request, None),
    case("fragment: longer", 400, r#"{"error":{"message":"The input (9000 tokens) is longer than the model's context length (8192 tokens)."}}"#, ContextLength, Request, None),
    case("fragment: current length", 400, r#"{"error":{"message":"current length is 9000 while limit is 8192"}}"#, ContextLength, Request, None),
    case("fragment: maximum input", 400, r#"{"error":{"message":"The maximum input length is 8000 tokens"}}"#, ContextLength, Request, None),
    case("fragment: too many", 400, r#"{"error":{"message":"too many tokens: 9000"}}"#, ContextLength, Request, None),
    case("fragment: context limit", 400, r#"{"error":{"message":"above the maximum context limit"}}"#, ContextLength, Request, None),
    // Whatever else comes
    case("an array", 400, r#"[{"error":{"message":"m","code":"context_length_exceeded"}}]"#, ContextLength, Request, Some("context_length_exceeded")),
    case("an empty body", 500, "", ServerError, Model, None),
    case("a page in a 200", 200, "<!DOCTYPE html><html><body>Sign in to the network</body></html>", ServerError, Provider, None),
    case("text in a 200", 200, "upstream connect error", ServerError, Provider, None),
    case("nothing in a 200", 200, "", ServerError, Provider, None),
    case("JSON cut in a 200", 200, r#"{"choices":[{"mess"#, ServerError, Provider, None),
    case("no choices", 200, r#"{"id":"x","choices":[]}"#, ServerError, Model, None),
    case("no choices at all", 200, r#"{"id":"x"}"#, ServerError, Model, None),
    case("a choice without a message", 200, r#"{"choices":[{"finish_reason":"stop"}]}"#, ServerError, Model, None),
    case("not an object", 200, "[]", ServerError, Model, None),
    case("a redirect", 302, "", ServerError, Provider, None),
    case("a status nobody has", 799, "", ServerError, Provider, None),
    case("another 4xx", 418, "", Refused, Request, None),
];

#[test]
fn failures_of_openai_are_told_apart() {
    check_failures(openai(), OPENAI);
}

#[test]
fn failures_of_compatible_servers_are_told_apart() {
    check_failures(server(), COMPATIBLE);
}

#[test]
fn a_key_quoted_by_the_provider_is_not_repeated() {
    let reply = r#"{"error":{"message":"Incorrect API key provided: sk-proj-1234567890abcdef","code":"sk-proj-1234567890abcdef"}}"#;
    let failure = openai().decode(&WireReply::new(401, &HeaderMap::new(), reply.as_bytes())).unwrap_err();
    assert!(!format!("{failure:?}").contains("1234567890"), "{failure:?}");
}

// === answers ===

#[test]
fn an_answer_is_read_whole() {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18", "service_tier": "default",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi", "refusal": null}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    });
    let expected = Answer {
        text: Some("Hi".to_owned()),
        refusal: None,
        reasoning: None,
        tool_calls: vec![],
        finish: Finish::Complete,
        finish_raw: Some("stop".to_owned()),
        model: Some("gpt-4o-mini-2024-07-18".to_owned()),
        id: Some("chatcmpl-1".to_owned()),
        usage: usage([10, 0, 0, 0, 2, 0]),
        usage_raw: Some(body["usage"].clone()),
        beside: Beside { service_tier: Some("default".to_owned()), ..Beside::default() },
    };
    assert_eq!(answer(openai(), &body), expected);
}

fn with_message(message: &Value, finish: &str) -> Answer {
    answer(server(), &json!({"choices": [{"message": message, "finish_reason": finish}]}))
}

#[test]
fn the_parts_of_a_message_are_told_apart() {
    let refused = with_message(&json!({"content": null, "refusal": "I cannot"}), "stop");
    assert_eq!((refused.text, refused.refusal.as_deref(), refused.finish), (None, Some("I cannot"), Finish::Refusal));

    for key in ["reasoning_content", "reasoning"] {
        let thought = with_message(&json!({"content": "", key: "Hmm"}), "length");
        assert_eq!(
            (thought.text.as_deref(), thought.reasoning.as_deref(), thought.finish),
            (Some(""), Some("Hmm"), Finish::Length)
        );
    }
    let chunks = json!({"content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hmm"}]},
        {"type": "text", "text": "Yes"}, {"type": "text", "text": "!"},
    ]});
    let chunked = with_message(&chunks, "stop");
    assert_eq!((chunked.text.as_deref(), chunked.reasoning.as_deref()), (Some("Yes!"), Some("Hmm")));
}

#[test]
fn tool_calls_are_read_in_every_shape() {
    let call = |id: &str, arguments: &str| ToolCall { id: id.into(), name: "f".into(), arguments: arguments.into() };
    let read = |message: Value, finish: &str| {
        let answer = with_message(&message, finish);
        (answer.finish, answer.tool_calls)
    };
    let usual = json!({"content": null, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    assert_eq!(read(usual.clone(), "tool_calls"), (Finish::ToolCall, vec![call("a", "{}")]));
    assert_eq!(read(usual, "stop"), (Finish::ToolCall, vec![call("a", "{}")]), "a forced call ends with stop");
    let objects = json!({"tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]});
    assert_eq!(read(objects, "tool_calls"), (Finish::ToolCall, vec![call("call_0", r#"{"x":1}"#)]));
    for none in [json!(""), json!(" "), json!("null"), json!(null), json!({}), json!([])] {
        let without = json!({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": none}}]});
        assert_eq!(read(without, "tool_calls"), (Finish::ToolCall, vec![call("a", "{}")]), "{none}");
    }
    let missing = json!({"tool_calls": [{"id": "a", "function": {"name": "f"}}]});
    assert_eq!(read(missing, "tool_calls"), (Finish::ToolCall, vec![call("a", "{}")]));
    let legacy = json!({"function_call": {"name": "f", "arguments": "{}"}});
    assert_eq!(read(legacy, "function_call"), (Finish::ToolCall, vec![call("call_0", "{}")]));
}

fn decoded(body: &[u8]) -> Result<Answer, Failure> {
    server().decode(&WireReply::new(200, &HeaderMap::new(), body))
}

#[test]
fn everything_that_came_with_an_answer_is_in_the_result() {
    let logprobs =
        json!({"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}], "refusal": null});
    let annotations = json!([{"type": "url_citation", "url_citation": {"url": "https://example.com", "title": "E"}}]);
    let body = json!({
        "id": "c1", "object": "chat.completion", "created": 1, "model": "m", "service_tier": "flex",
        "system_fingerprint": "fp_1", "provider": "Acme", "citations": ["https://example.com"], "nothing": null,
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": logprobs, "native_finish_reason": "end", "message": {
            "role": "assistant", "content": "Hi", "refusal": null, "annotations": annotations, "reasoning_content": "Hmm",
            "reasoning_details": [{"type": "reasoning.text", "text": "Hmm"}], "audio": {"id": "a"},
            "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "s"}}}],
        }}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "cost": 0.5,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1}},
    });
    let whole = answer(server(), &body).to_chat_completion("m", 7);
    let mut expected = body.clone();
    expected["created"] = json!(7);
    expected.as_object_mut().unwrap().remove("nothing");
    expected["choices"][0]["message"].as_object_mut().unwrap().remove("refusal");
    expected["choices"][0]["finish_reason"] = json!("tool_calls");
    expected["usage"]["completion_tokens_details"] = json!({"reasoning_tokens": 0});
    assert_eq!(whole, expected);
    let odd = with_message(&json!({"content": "a\0", "note\0": ["\0"], "reasoning": "b\0"}), "MAX_TOKENS");
    let text = odd.to_chat_completion("m", 7).to_string();
    assert!(!text.contains("\\u0000") && text.contains(r#""native_finish_reason":"MAX_TOKENS""#), "{text}");
}

#[test]
fn parts_that_are_no_text_are_kept_beside_it() {
    let parts = json!([{"type": "text", "text": "See "}, {"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "this"}]);
    let answer = with_message(&json!({ "content": parts }), "stop");
    assert_eq!((answer.text.as_deref(), &answer.beside.message["content_parts"]), (Some("See this"), &parts));
}

#[test]
fn an_answer_is_read_whatever_stands_beside_it() {
    let whole = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop","logprobs":{"content":[{"token":"Hi","logprob":-0.5}]}}]}"#;
    for body in [
        whole.replace("-0.5", "-Infinity"),
        whole.replace("-0.5", "NaN"),
        whole.replace("-0.5", "1e999"),
        format!("\u{feff}{whole}"),
        format!("{whole}\0\0"),
        format!("{whole}<!-- served by proxy -->"),
        format!("[{whole}]"),
        format!("data: {whole}\n\ndata: [DONE]\n\n"),
        format!(": keep-alive\n\n{whole}"),
        whole.replace("\"stop\",", "\"stop\",\"finish_reason\":\"stop\","),
        whole.replace("}]}}]}", "},]},}],}"),
    ] {
        let answer = decoded(body.as_bytes()).unwrap_or_else(|failure| panic!("{body}: {failure:?}"));
        assert_eq!((answer.text.as_deref(), answer.finish), (Some("Hi"), Finish::Complete), "{body}");
        let is_json = serde_json::from_str::<Value>(&body).is_ok_and(|value| value.is_object());
        assert_eq!(answer.beside.notes.is_empty(), is_json, "{body}: {:?}", answer.beside.notes);
    }
    let broken = decoded(whole.replace("Hi", "H\\ud83d").replacen('i', "\u{1}", 0).as_bytes()).unwrap();
    assert_eq!(broken.text.as_deref(), Some("H\u{fffd}"));
    for cut in
        [&whole[..whole.len() - 1], "data: {\"choices\":[{\"delta\":{\"content\":\"H\"},\"finish_reason\":null}]}\n\n"]
    {
        assert_eq!(decoded(cut.as_bytes()).unwrap_err().class, ServerError, "{cut}");
    }
}

/// What gateways write beside a whole answer, and whether it says that generating failed.
const BESIDE_ANSWERS: &[(&str, bool)] = &[
    (r#""error":{"code":0,"message":""}"#, false),
    (r#""error":{"message":null,"code":null}"#, false),
    (r#""error":{"code":"0","message":"success"}"#, false),
    (r#""error":{"code":200,"message":"ok"}"#, false),
    (r#""error":{"type":null,"message":"None"}"#, false),
    (r#""error":"null""#, false),
    (r#""error":"none""#, false),
    (r#""error":"""#, false),
    (r#""error":"OK.""#, false),
    (r#""error":[]"#, false),
    (r#""object":"error""#, false),
    (r#""type":"error""#, false),
    (r#""errors":[{"provider":"A","message":"first provider failed; served by B"}]"#, false),
    (r#""errors":["A timed out"]"#, false),
    (r#""error_code":0,"base_resp":{"status_code":0,"status_msg":"success"}"#, false),
    (r#""code":0,"message":"success","success":true"#, false),
    (r#""error":{"code":502,"message":"Upstream failed"}"#, true),
    (r#""error":{"code":"502","message":"Upstream failed"}"#, true),
    (r#""error":{"message":"The connection was lost while generating"}"#, true),
    (r#""error":{"type":"overloaded_error","message":""}"#, true),
    (r#""error":"upstream connection lost""#, true),
    (r#""errors":[{"code":7003,"message":"No route"}]"#, true),
    (r#""base_resp":{"status_code":1027,"status_msg":"output new_sensitive"}"#, true),
];

#[test]
fn a_whole_answer_is_one_whatever_is_no_error_beside_it() {
    let anthropic = Dialect::Anthropic.adapter("https://api.anthropic.com");
    let gemini = Dialect::Gemini.adapter("https://generativelanguage.googleapis.com");
    let bodies: [(&dyn Adapter, &str); 3] = [
        (server(), r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],BESIDE}"#),
        (anthropic, r#"{"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn",BESIDE}"#),
        (gemini, r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}],BESIDE}"#),
    ];
    for (adapter, body) in bodies {
        for (beside, has_failed) in BESIDE_ANSWERS {
            let body = body.replace("BESIDE", beside);
            match adapter.decode(&WireReply::new(200, &HeaderMap::new(), body.as_bytes())) {
                Ok(answer) => {
                    assert!(!has_failed, "{body}");
                    assert_eq!((answer.text.as_deref(), answer.finish), (Some("Hi"), Finish::Complete), "{body}");
                }
                Err(failure) => assert!(has_failed, "{body}: {failure:?}"),
            }
        }
    }
    // What generated a part and broke off is none, and what holds nothing is none.
    for body in [
        r#"{"choices":[{"message":{"content":"H"},"finish_reason":null}],"object":"error","message":"gone"}"#,
        r#"{"choices":[{"message":{"content":"H"},"finish_reason":"error"}],"error":{"message":"gone"}}"#,
        r#"{"choices":[{"message":{"content":""},"finish_reason":"stop"}],"errors":[{"message":"gone"}]}"#,
    ] {
        assert_eq!(decoded(body.as_bytes()).unwrap_err().class, ServerError, "{body}");
    }
    let told =
        decoded(br#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"errors":["A timed out"]}"#);
    assert!(told.unwrap().beside.notes.iter().any(|note| note.contains("set aside")));
}

#[test]
fn an_answer_is_found_in_whatever_it_is_wrapped() {
    let whole = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    let piece = |text: &str, finish: &str| {
        format!(
            r#"{{"error":null,"choices":[{{"delta":{{"content":"{text}"}},"finish_reason":{finish}}}],"usage":{{"prompt_tokens":"3","completion_tokens":"2"}}}}"#
        )
    };
    let (first, last) = (piece("H", "null"), piece("i", "\"stop\""));
    for body in [
        format!(r#"{{"data":{whole}}}"#),
        format!(r#"{{"result":{whole},"success":true,"errors":[],"messages":[]}}"#),
        format!(r#"{{"code":0,"message":"success","response":{whole}}}"#),
        json!(whole).to_string(),
        format!("data: {first}\ndata: {last}\ndata: [DONE]\n"),
        format!("data: {first}\r\ndata: {last}\r\n"),
        format!(
            "data: {}\n\ndata: {}\n\n",
            first.replace("null,\"ch", "{\"code\":0},\"ch"),
            last.replace("null", "\"\"")
        ),
        whole.replace("\"Hi\"", r#"{"type":"text","text":"Hi"}"#),
    ] {
        let answer = decoded(body.as_bytes()).unwrap_or_else(|failure| panic!("{body}: {failure:?}"));
        assert_eq!((answer.text.as_deref(), answer.finish), (Some("Hi"), Finish::Complete), "{body}");
        assert_eq!(answer.usage, usage([3, 0, 0, 0, 2, 0]), "{body}");
    }
    let refused = r#"{"code":1001,"message":"no","data":null}"#;
    assert_eq!(decoded(refused.as_bytes()).unwrap_err().class, ServerError);
    for calls in [
        r#"{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}"#,
        r#"[{"id":"a","name":"f","arguments":{"x":1}}]"#,
        r#"{"id":"a","name":"f","arguments":"```json\n{\"x\":1}\n```"}"#,
    ] {
        let body = format!(r#"{{"choices":[{{"message":{{"tool_calls":{calls}}},"finish_reason":"tool_calls"}}]}}"#);
        let answer = decoded(body.as_bytes()).unwrap();
        let call = ToolCall { id: "a".into(), name: "f".into(), arguments: r#"{"x":1}"#.into() };
        assert_eq!((answer.tool_calls, answer.finish), (vec![call], Finish::ToolCall), "{body}");
    }
    let anthropic = Dialect::Anthropic.adapter("https://api.anthropic.com");
    for content in [r#""Hi""#, r#"{"type":"text","text":"Hi"}"#, r#"[{"type":"text","text":"Hi"}]"#] {
        let body = format!(r#"{{"data":{{"content":{content},"stop_reason":"end_turn"}}}}"#);
        let answer = anthropic.decode(&WireReply::new(200, &HeaderMap::new(), body.as_bytes())).unwrap();
        assert_eq!(answer.text.as_deref(), Some("Hi"), "{body}");
    }
}

#[test]
fn pieces_of_a_stream_are_put_together() {
    let piece = |delta: Value, finish: Option<&str>| {
        json!({"id": "c1", "object": "chat.completion.chunk", "model": "m", "system_fingerprint": "fp",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": {"content": [{"token": "x", "logprob": -1.0}]}}]})
    };
    let call = |index: u32, id: Option<&str>, name: Option<&str>, arguments: &str| json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]});
    let pieces = [
        piece(json!({"role": "assistant", "content": "", "reasoning_content": "Hm"}), None),
        piece(json!({"content": "He", "reasoning_content": "m."}), None),
        piece(json!({"content": "llo"}), None),
        piece(call(0, Some("a"), Some("f"), ""), None),
        piece(call(0, None, None, "{\"x\""), None),
        piece(call(1, Some("b"), Some("g"), ""), None),
        piece(call(0, None, None, ":1}"), None),
        piece(json!({}), Some("tool_calls")),
        json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}),
    ];
    let stream = pieces.iter().map(|piece| format!("data: {piece}\n\n")).collect::<Vec<_>>().concat();
    for body in [
        format!("{stream}data: [DONE]\n\n"),
        json!(pieces).to_string(),
        pieces.iter().map(|piece| format!("{piece}\n")).collect::<Vec<_>>().concat(),
    ] {
        let answer = decoded(body.as_bytes()).unwrap_or_else(|failure| panic!("{body}: {failure:?}"));
        assert_eq!((answer.text.as_deref(), answer.reasoning.as_deref()), (Some("Hello"), Some("Hmm.")), "{body}");
        let calls: Vec<_> = answer.tool_calls.iter().map(|call| [&*call.id, &*call.name, &*call.arguments]).collect();
        assert_eq!(calls, [["a", "f", "{\"x\":1}"], ["b", "g", "{}"]]);
        assert_eq!((answer.finish, answer.usage), (Finish::ToolCall, usage([3, 0, 0, 0, 4, 0])));
        assert_eq!(answer.beside.choice["logprobs"]["content"].as_array().unwrap().len(), 8);
        assert_eq!(answer.beside.completion["system_fingerprint"], "fp");
    }
    let failed =
        format!("{stream}data: {{\"error\":{{\"message\":\"gone\",\"code\":502}}}}\n\n").replace("tool_calls\"", "x\"");
    assert_eq!(decoded(failed.as_bytes()).unwrap_err().class, ServerError);
}

#[test]
fn the_word_for_the_end_is_found_where_servers_put_it() {
    let finish = |choice: Value| {
        let mut choice = choice;
        choice["message"] = json!({"content": "x"});
        let answer = answer(server(), &json!({"choices": [choice]}));
        (answer.finish, answer.finish_raw)
    };
    for (choice, class, raw) in [
        (json!({"finish_reason": "EOS_TOKEN"}), Finish::Complete, Some("EOS_TOKEN")),
        (json!({"finish_reason": {"type": "length", "length": 16}}), Finish::Length, Some("length")),
        (json!({"finish_reason": null, "native_finish_reason": "SAFETY"}), Finish::ContentFilter, Some("SAFETY")),
        (json!({"finish_reason": "", "stop_reason": "end_turn"}), Finish::Complete, Some("end_turn")),
        (json!({"finishReason": "MAX_TOKENS"}), Finish::Length, Some("MAX_TOKENS")),
        (
            json!({"finish_reason": "content_filter: PROHIBITED_CONTENT"}),
            Finish::ContentFilter,
            Some("content_filter: PROHIBITED_CONTENT"),
        ),
        (json!({"finish_reason": "zork"}), Finish::Unknown, Some("zork")),
        (json!({}), Finish::Error, None),
        (json!({"finish_reason": ""}), Finish::Error, None),
    ] {
        assert_eq!(finish(choice.clone()), (class, raw.map(str::to_owned)), "{choice}");
    }
}

#[test]
fn finish_reasons_have_their_class() {
    let decode = |word: &Value| {
        answer(server(), &json!({"choices": [{"message": {"content": "x"}, "finish_reason": word}]})).finish
    };
    check_finishes(
        decode,
        &[
            (json!("stop"), Finish::Complete),
            (json!("eos"), Finish::Complete),
            (json!("end_turn"), Finish::Complete),
            (json!("length"), Finish::Length),
            (json!("model_length"), Finish::Length),
            (json!("tool_calls"), Finish::ToolCall),
            (json!("function_call"), Finish::ToolCall),
            (json!("content_filter"), Finish::ContentFilter),
            (json!("error"), Finish::Error),
            (json!("abort"), Finish::Error),
            (json!("aborted"), Finish::Error),
            (json!("repetition"), Finish::Error),
            (json!(null), Finish::Error),
            (json!("brand_new"), Finish::Unknown),
        ],
    );
}

#[test]
fn usage_is_split_into_disjoint_classes() {
    let check = |adapter: &Openai, raw: Value, expected: [i64; 6]| {
        let body = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": raw});
        let answer = answer(adapter, &body);
        assert_eq!(answer.usage, usage(expected), "{raw}");
        assert_eq!(answer.usage_raw, Some(raw));
    };
    let xai = at("https://api.x.ai/v1");
    // OpenAI: both caches and reasoning inside.
    check(
        openai(),
        json!({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150, "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30}, "completion_tokens_details": {"reasoning_tokens": 20}}),
        [10, 60, 30, 0, 50, 20],
    );
    // Mistral's three spellings.
    check(
        server(),
        json!({"prompt_tokens": 100, "completion_tokens": 5, "num_cached_tokens": 40}),
        [60, 40, 0, 0, 5, 0],
    );
    check(
        server(),
        json!({"prompt_tokens": 100, "completion_tokens": 5, "prompt_token_details": {"cached_tokens": 40}}),
        [60, 40, 0, 0, 5, 0],
    );
    check(
        server(),
        json!({"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 40}}),
        [60, 40, 0, 0, 5, 0],
    );
    // DeepSeek.
    check(
        server(),
        json!({"prompt_tokens": 100, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36, "completion_tokens": 9, "total_tokens": 109}),
        [36, 64, 0, 0, 9, 0],
    );
    // xAI: reasoning outside, by the total and without one; cached may be outside.
    check(
        xai,
        json!({"prompt_tokens": 37, "completion_tokens": 530, "total_tokens": 800, "completion_tokens_details": {"reasoning_tokens": 233}}),
        [37, 0, 0, 0, 763, 233],
    );
    check(
        xai,
        json!({"prompt_tokens": 37, "completion_tokens": 530, "completion_tokens_details": {"reasoning_tokens": 233}}),
        [37, 0, 0, 0, 763, 233],
    );
    check(
        xai,
        json!({"prompt_tokens": 37, "completion_tokens": 530, "total_tokens": 567, "completion_tokens_details": {"reasoning_tokens": 233}}),
        [37, 0, 0, 0, 530, 233],
    );
    check(
        xai,
        json!({"prompt_tokens": 4, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 160}}),
        [4, 160, 0, 0, 1, 0],
    );
    // A total decides anywhere; more reasoning than output can only be outside.
    check(
        server(),
        json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35, "completion_tokens_details": {"reasoning_tokens": 20}}),
        [10, 0, 0, 0, 25, 20],
    );
    check(
        server(),
        json!({"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 20}}),
        [10, 0, 0, 0, 25, 20],
    );
    // A total beyond the parts was billed too.
    check(
        server(),
        json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}),
        [20, 0, 0, 0, 603, 405],
    );
    check(
        server(),
        json!({"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81, "completion_tokens_details": {"reasoning_tokens": 60}}),
        [21, 0, 0, 0, 60, 60],
    );
    check(
        xai,
        json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623, "completion_tokens_details": {"reasoning_tokens": 300}}),
        [20, 0, 0, 0, 603, 405],
    );
    // One below its parts is not believed.
    for total in [0, 5, 17] {
        check(
            server(),
            json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": total}),
            [20, 0, 0, 0, 198, 0],
        );
    }
    check(
        server(),
        json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": i64::MAX}),
        [20, 0, 0, 0, 198, 0],
    );
    // More of the prompt from the cache than there is, and a total that has no room for it.
    check(
        server(),
        json!({"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25, "prompt_tokens_details": {"cached_tokens": 160}}),
        [20, 0, 0, 0, 5, 0],
    );
    check(
        server(),
        json!({"prompt_tokens": 12, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 500}}),
        [12, 0, 0, 0, 5, 0],
    );
    check(server(), json!({"prompt_tokens": "12", "completion_tokens": " 5"}), [12, 0, 0, 0, 5, 0]);
    // Cache writes in the words of gateways, inside of the prompt or beside it.
    for word in
        ["cache_creation_input_tokens", "cache_write_tokens", "cache_write_input_tokens", "cacheWriteInputTokens"]
    {
        let mut raw = json!({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105});
        raw[word] = json!(80);
        check(server(), raw, [20, 0, 80, 0, 5, 0]);
    }
    for word in [
        "cache_write_tokens",
        "cache_creation_tokens",
        "cached_write_tokens",
        "cached_creation_tokens",
        "cache_creation_input_tokens",
    ] {
        let mut raw =
            json!({"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10}});
        raw["prompt_tokens_details"][word] = json!(80);
        check(server(), raw, [10, 10, 80, 0, 5, 0]);
    }
    // LiteLLM fills both places.
    check(
        server(),
        json!({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, "cache_creation_input_tokens": 80, "cache_read_input_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_tokens": 80, "cache_creation_token_details": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 30}}}),
        [20, 0, 50, 30, 5, 0],
    );
    check(
        server(),
        json!({"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 115, "cache_creation_input_tokens": 80, "cache_read_input_tokens": 10}),
        [20, 10, 80, 0, 5, 0],
    );
    check(
        server(),
        json!({"input_tokens": 20, "output_tokens": 5, "cache_creation_input_tokens": 8, "cache_read_input_tokens": 10}),
        [20, 10, 8, 0, 5, 0],
    );
    // Half of it missing.
    check(server(), json!({"prompt_tokens": 10, "total_tokens": 15}), [10, 0, 0, 0, 5, 0]);
    check(server(), json!({"completion_tokens": 5, "total_tokens": 15}), [10, 0, 0, 0, 5, 0]);
    check(
        server(),
        json!({"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": null, "completion_tokens_details": null}),
        [1, 0, 0, 0, 1, 0],
    );
}

#[test]
fn missing_usage_is_unknown() {
    for raw in [
        json!(null),
        json!({}),
        json!({"cost": 1}),
        json!({"prompt_tokens": "ten", "completion_tokens": "-5"}),
        json!({"prompt_tokens": -1, "completion_tokens": -1}),
        json!({"prompt_tokens": 1.5, "completion_tokens": 1e30}),
        json!({"prompt_tokens": i64::MAX, "completion_tokens": u64::MAX}),
    ] {
        let body = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": raw});
        assert_eq!(answer(server(), &body).usage.source, UsageSource::Unknown, "{raw}");
    }
}

#[test]
fn usage_of_a_failure_is_not_lost() {
    let body = br#"{"error":{"code":502,"message":"m"},"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
    let (found, _) = server().usage_of(&WireReply::new(200, &HeaderMap::new(), body)).unwrap();
    assert_eq!(found, usage([7, 0, 0, 0, 3, 0]));
    assert!(server().usage_of(&WireReply::new(200, &HeaderMap::new(), b"<html>")).is_none());
}

// === requests ===

mod requests;
