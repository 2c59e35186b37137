//! The meaning of failures.

use super::*;

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
    case("milliseconds", 429, r#"{"error":{"message":"Rate limit reached. Please try again in 12ms.","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded"))
        .with(&[("retry-after-ms", "7"), ("retry-after", "0")]).waits(12),
    case("reset of what is used up", 429, r#"{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded"))
        .with(&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "8.64s"),
            ("x-ratelimit-remaining-tokens", "17"), ("x-ratelimit-reset-tokens", "6m0s")]).waits(8_640),
    case("requests per day", 429, r#"{"error":{"message":"Rate limit reached on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.","type":"requests","code":"rate_limit_exceeded"}}"#, RateLimitDaily, Model, Some("rate_limit_exceeded")).waits(432_000),
    case("ramp", 429, r#"{"error":{"message":"Slow down","type":"rate_limit_error","code":"slow_down"}}"#, RampLimit, Model, Some("slow_down")),
    case("ramp, formerly", 503, r#"{"error":{"message":"Slow down","type":"service_unavailable_error","code":"slow_down"}}"#, RampLimit, Model, Some("slow_down")).with(&[("retry-after", "30")]).waits(30_000),
    case("quota", 429, r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#, QuotaExhausted, Key, Some("insufficient_quota")),
    case("quota: credit", 429, r#"{"error":{"message":"m","type":"insufficient_quota","code":"credit_balance_exhausted"}}"#, QuotaExhausted, Key, Some("credit_balance_exhausted")),
    case("quota: organization spend", 429, r#"{"error":{"message":"m","type":"insufficient_quota","code":"organization_spend_limit_exceeded"}}"#, QuotaExhausted, Key, Some("organization_spend_limit_exceeded")),
    case("quota: project spend", 429, r#"{"error":{"message":"m","type":"insufficient_quota","code":"project_spend_limit_exceeded"}}"#, QuotaExhausted, Key, Some("project_spend_limit_exceeded")),
    case("quota: usage", 429, r#"{"error":{"message":"m","code":"organization_usage_limit_exceeded"}}"#, QuotaExhausted, Key, Some("organization_usage_limit_exceeded")),
    case("quota: hard limit", 429, r#"{"error":{"message":"m","code":"billing_hard_limit_reached"}}"#, QuotaExhausted, Key, Some("billing_hard_limit_reached")),
    case("never fits", 429, r#"{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 45,000. The input or output tokens must be reduced.","type":"tokens","code":"rate_limit_exceeded"}}"#, NeverFits, Request, Some("rate_limit_exceeded"))
        .names(Unit::Tokens, 30_000, Some(45_000)),
    case("never fits, without numbers", 429, r#"{"error":{"message":"Request too large for gpt-4o: it exceeds the tokens per min limit","type":"tokens","code":"rate_limit_exceeded"}}"#, NeverFits, Request, Some("rate_limit_exceeded")),
    case("500", 500, r#"{"error":{"message":"The server had an error","type":"server_error","code":null}}"#, ServerError, Model, Some("server_error")),
    case("500 does not wait for a reset", 500, "", ServerError, Model, None)
        .with(&[("x-ratelimit-reset-tokens", "6m0s")]),
    case("overloaded", 503, r#"{"error":{"message":"m","type":"service_unavailable_error","code":"server_is_overloaded"}}"#, Overloaded, Model, Some("server_is_overloaded")),
    case("503", 503, "", Overloaded, Model, None),
    case("policy on biology in a 200", 200, r#"{"error":{"message":"m","code":"bio_policy"}}"#, ContentPolicy, Request, Some("bio_policy")),
    case("a nameless 400 that a retry helps", 400, "", ServerError, Model, None).with(&[("x-should-retry", "true")]),
    case("Azure filter", 400, r#"{"error":{"code":"content_filter","message":"m","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#, ContentPolicy, Request, Some("ResponsibleAIPolicyViolation")),
    case("Azure deployment", 404, r#"{"error":{"code":"DeploymentNotFound","message":"m"}}"#, NotFound, Model, Some("DeploymentNotFound")),
    case("Azure busy", 429, r#"{"error":{"code":"429","message":"The system is experiencing high demand"}}"#, Overloaded, Model, Some("429"))
        .with(&[("retry-after", "1"), ("retry-after-ms", "0")]).waits(1_000),
];

const COMPATIBLE: &[Case] = &[
    // Mistral
    case("Mistral 401", 401, r#"{"message":"Unauthorized"}"#, Auth, Key, None),
    case("Mistral 401, detail", 401, r#"{"detail":"Unauthorized"}"#, Auth, Key, None),
    case("Mistral 402", 402, r#"{"object":"error","message":"Payment required","type":"payment","code":null}"#, QuotaExhausted, Key, Some("payment")),
    case("Mistral 403", 403, r#"{"object":"error","message":"tier","type":"forbidden","code":"1010"}"#, Permission, Model, Some("1010")),
    case("Mistral model", 400, r#"{"object":"error","message":"Invalid model: x","type":"invalid_model","param":null,"code":"1500"}"#, NotFound, Model, Some("1500")),
    case("Mistral 422", 422, r#"{"detail":[{"loc":["body","seed"],"msg":"Extra inputs are not permitted","type":"extra_forbidden"}]}"#, Refused, Request, None),
    case("Mistral rate", 429, r#"{"object":"error","message":"Requests rate limit exceeded","type":"rate_limited","param":null,"code":"1300"}"#, RateLimit, Model, Some("1300"))
        .with(&[("ratelimitbysize-remaining", "0"), ("ratelimitbysize-reset", "28")]).waits(28_000),
    case("Mistral capacity", 429, r#"{"object":"error","message":"Service tier capacity exceeded for this model.","type":"invalid_request_error","param":null,"code":"3505"}"#, Overloaded, Model, Some("3505")),
    case("Mistral month", 429, r#"{"message":"Tokens per month limit exceeded"}"#, RateLimitDaily, Model, None),
    // Groq
    case("Groq output", 400, r#"{"error":{"message":"Failed to generate JSON","type":"invalid_request_error","code":"json_validate_failed","failed_generation":"{"}}"#, OutputInvalid, Request, Some("json_validate_failed")),
    case("Groq tool", 400, r#"{"error":{"message":"Failed to call a function","type":"invalid_request_error","code":"tool_use_failed"}}"#, OutputInvalid, Request, Some("tool_use_failed")),
    case("Groq never fits", 413, r#"{"error":{"message":"Request too large for model `m` in organization `o` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Requested 8123, please reduce your message size and try again.","type":"tokens","code":"rate_limit_exceeded"}}"#, NeverFits, Request, Some("rate_limit_exceeded"))
        .names(Unit::Tokens, 6_000, Some(8_123)),
    case("Groq not now", 413, r#"{"error":{"message":"Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 5000","type":"tokens","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded")).names(Unit::Tokens, 6_000, Some(5_000)),
    case("Groq not today", 413, r#"{"error":{"message":"Request too large for model `m` on tokens per day (TPD): Limit 100000, Used 99000, Requested 5000. Please try again in 57m36s.","type":"tokens","code":"rate_limit_exceeded"}}"#, RateLimitDaily, Model, Some("rate_limit_exceeded"))
        .waits(3_456_000).names(Unit::Tokens, 100_000, Some(5_000)),
    case("Groq 422", 422, r#"{"error":{"message":"semantic","type":"invalid_request_error"}}"#, InvalidRequest, Request, Some("invalid_request_error")),
    case("Groq 424", 424, "", ServerError, Model, None),
    case("Groq rate", 429, r#"{"error":{"message":"Rate limit reached for model `m` on tokens per minute (TPM): Limit 6000, Used 5000, Requested 2000. Please try again in 7.66s.","type":"tokens","code":"rate_limit_exceeded"}}"#, RateLimit, Model, Some("rate_limit_exceeded"))
        .with(&[("retry-after", "7.66")]).waits(7_660),
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
    case("Together rate", 429, r#"{"error":{"message":"too fast"}}"#, RateLimit, Model, None)
        .with(&[("x-ratelimit-limit", "10"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2")]).waits(2_000),
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
    case("OpenRouter rate", 429, r#"{"error":{"code":429,"message":"m","metadata":{"error_type":"rate_limit_exceeded"}}}"#, RateLimit, Model, Some("rate_limit_exceeded"))
        .with(&[("x-ratelimit-limit", "20"), ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1795176030000")]).waits(30_000),
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
    // Servers that users run themselves
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
    // Other cases
    case("an array", 400, r#"[{"error":{"message":"m","code":"context_length_exceeded"}}]"#, ContextLength, Request, Some("context_length_exceeded")),
    case("an empty body", 500, "", ServerError, Model, None),
    case("a page in a 200", 200, "<!DOCTYPE html><html><body>Sign in to the network</body></html>", ServerError,
        Provider, None),
    case("text in a 200", 200, "upstream connect error", ServerError, Provider, None),
    case("nothing in a 200", 200, "", ServerError, Provider, None),
    case("JSON cut in a 200", 200, r#"{"choices":[{"mess"#, ServerError, Provider, None),
    case("no choices", 200, r#"{"id":"x","choices":[]}"#, ServerError, Model, None),
    case("no choices at all", 200, r#"{"id":"x"}"#, ServerError, Model, None),
    case("a choice without a message", 200, r#"{"choices":[{"finish_reason":"stop"}]}"#, ServerError, Model, None),
    case("not an object", 200, "[]", ServerError, Model, None),
    case("a redirect", 302, "", ServerError, Provider, None),
    case("a status that does not exist", 799, "", ServerError, Provider, None),
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
