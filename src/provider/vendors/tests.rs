use super::*;
use crate::domain::ErrorClass::{
    Auth, ContentPolicy, ContextLength, NotFound, Overloaded, Permission, QuotaExhausted, RampLimit, RateLimit,
    RateLimitDaily, Refused, ServerError,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::provider::checks::{Case, Chat, case, check_failures, parsed, spoken};
use crate::provider::registry::DIALECTS;
use crate::provider::{anthropic, gemini, openai};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn each_door_of_a_vendor_has_one_row_and_no_host_is_of_two_vendors() {
    let mut doors = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    for vendor in VENDORS {
        assert!(doors.insert((vendor.name, vendor.dialect.name)), "{} has two rows for a dialect", vendor.name);
        for host in vendor.hosts {
            assert!(hosts.insert((vendor.dialect.name, host)), "{host} is of two vendors");
            let found = of_server(None, vendor.dialect, &format!("https://{host}/v1")).unwrap();
            assert_eq!(found.name, vendor.name, "{host}");
        }
        if let Some(base_url) = vendor.base_url {
            let found = of_server(None, vendor.dialect, base_url).unwrap();
            assert_eq!(found.name, vendor.name, "{base_url}");
        }
    }
    for dialect in DIALECTS {
        assert!(VENDORS.iter().any(|vendor| vendor.dialect == *dialect), "no vendor speaks {dialect:?}");
    }
}

#[test]
fn a_server_is_its_vendors_by_name_then_by_host() {
    let found = |name, dialect: &'static Dialect, base_url| of_server(name, dialect, base_url).map(|row| row.name);
    for (name, dialect, base_url, expected) in [
        (None, &openai::DIALECT, "https://api.groq.com/openai/v1", Some("groq")),
        (None, &openai::DIALECT, "https://API.GROQ.com/openai/v1?x=1", Some("groq")),
        (None, &openai::DIALECT, "https://acme.openai.azure.com/openai/v1", Some("azure_openai")),
        (None, &openai::DIALECT, "https://notapi.groq.com.example/v1", None),
        (None, &openai::DIALECT, "https://myapi.groq.com/v1", None),
        (None, &openai::DIALECT, "http://127.0.0.1:8000/v1", None),
        (None, &openai::DIALECT, "not a url", None),
        // A name that is not a vendor's leaves the choice to the host; a vendor's name counts alone.
        (Some("mine"), &openai::DIALECT, "https://api.groq.com/openai/v1", Some("groq")),
        (Some("mistral"), &openai::DIALECT, "https://api.groq.com/openai/v1", Some("mistral")),
        (Some("groq"), &openai::DIALECT, "https://gateway.example/v1", Some("groq")),
        (Some("groq"), &anthropic::DIALECT, "https://api.anthropic.com/v1", None),
        // A vendor with two dialects.
        (Some("anthropic"), &anthropic::DIALECT, "", Some("anthropic")),
        (Some("anthropic"), &openai::DIALECT, "", Some("anthropic")),
        (Some("gemini"), &gemini::DIALECT, "", Some("gemini")),
        (Some("gemini"), &openai::DIALECT, "", Some("gemini")),
    ] {
        assert_eq!(found(name, dialect, base_url), expected, "{name:?} {dialect:?} {base_url}");
    }
}

#[test]
fn what_is_known_of_one_door_is_not_believed_of_the_other() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let request = parsed(json!({"prompt": "Hi", "response_format": format}));
    let takes = |dialect| {
        let adapter = adapter(dialect, Some("anthropic"), "", &QuirkSettings::default());
        adapter.chat(&request, "claude-haiku-4-5", &crate::domain::Capabilities::default()).is_ok()
    };
    assert!(takes(&anthropic::DIALECT) && !takes(&openai::DIALECT));
}

/// What each vendor is sent of a request, and what is said of it: a member is left as it is, changed, or makes the rung
/// another's.
#[test]
fn what_a_vendor_does_not_take_is_spelled_its_way_dropped_or_refused() {
    let sent = |vendor: &str, model: &str, more: serde_json::Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let adapter = adapter(&openai::DIALECT, Some(vendor), "", &QuirkSettings::default());
        let wire = adapter.chat(&parsed(body), model, &crate::domain::Capabilities::default())?;
        let sent: serde_json::Value = serde_json::from_slice(&wire.body).unwrap();
        Ok::<_, crate::domain::decide::Ineligible>((sent, wire.dropped))
    };
    let tool = || {
        json!([{"type": "function", "function": {"name": "f",
        "parameters": {"type": "object", "additionalProperties": false}}}])
    };
    for (vendor, more, member, value, noted) in [
        ("together", json!({"logprobs": true, "top_logprobs": 3}), "logprobs", json!(3), "logprobs as a number"),
        ("together", json!({"logprobs": true}), "logprobs", json!(1), "logprobs as a number"),
        (
            "fireworks",
            json!({"tools": tool(), "tool_choice": "required"}),
            "tool_choice",
            json!("any"),
            "tool_choice required as any",
        ),
        (
            "deepseek",
            json!({"reasoning_effort": "xhigh"}),
            "reasoning_effort",
            json!("max"),
            "reasoning_effort xhigh as max",
        ),
        ("deepseek", json!({"seed": 7}), "seed", json!(null), "seed"),
        (
            "openrouter",
            json!({"reasoning_effort": "max"}),
            "reasoning_effort",
            json!("xhigh"),
            "reasoning_effort max as xhigh",
        ),
        (
            "openrouter",
            json!({"stop": ["END"]}),
            "provider",
            json!({"require_parameters": true}),
            "provider.require_parameters added",
        ),
        (
            "groq",
            json!({"tools": tool(), "reasoning_format": "raw"}),
            "reasoning_format",
            json!(null),
            "reasoning_format",
        ),
    ] {
        let (sent, dropped) = sent(vendor, "m", more).unwrap();
        assert_eq!((&sent[member], dropped.iter().any(|said| said == noted)), (&value, true), "{vendor} {dropped:?}");
    }
    let (sent_to_vllm, dropped) = sent("vllm", "m", json!({"tools": tool()})).unwrap();
    assert_eq!(sent_to_vllm["tools"][0]["function"]["parameters"], json!({"type": "object"}), "{dropped:?}");
    // What asks for nothing changes nothing.
    let (plain, dropped) = sent("openrouter", "m", json!({"temperature": 0.5})).unwrap();
    assert_eq!((plain.get("provider"), dropped.len()), (None, 0));
    let (kept, _) = sent("groq", "m", json!({"reasoning_format": "raw"})).unwrap();
    assert_eq!(kept["reasoning_format"], "raw");
    for (vendor, more) in [
        ("deepseek", json!({"logit_bias": {"7": 5}})),
        ("xai", json!({"logit_bias": {"7": 5}})),
        ("ollama", json!({"tools": tool(), "tool_choice": "required"})),
        ("llama_cpp", json!({"logit_bias": {"7": 5}})),
    ] {
        assert!(sent(vendor, "m", more.clone()).is_err(), "{vendor} {more}");
    }
    for (vendor, more) in
        [("deepseek", json!({"n": 1, "logit_bias": {}})), ("ollama", json!({"tools": tool(), "tool_choice": "auto"}))]
    {
        assert!(sent(vendor, "m", more.clone()).is_ok(), "{vendor} {more}");
    }
    // Tools that nobody may call are not offered where there is no word for that.
    let uncalled = json!({"tools": tool(), "tool_choice": "none", "parallel_tool_calls": false});
    let (left, dropped) = sent("ollama", "m", uncalled.clone()).unwrap();
    assert!(["tools", "tool_choice", "parallel_tool_calls"].iter().all(|name| left.get(name).is_none()), "{left}");
    assert!(dropped.iter().any(|noted| noted == "tools (tool_choice is none)"), "{dropped:?}");
    let (all, _) = sent("openai", "m", uncalled).unwrap();
    assert_eq!((all["tool_choice"].as_str(), all["tools"].is_array()), (Some("none"), true));
    // Models that answer in streams only are asked for them.
    for (model, streams) in [("qwq-plus", true), ("Qwen3-Omni-Flash", true), ("qwen-plus", false)] {
        let (sent, _) = sent("dashscope", model, json!({})).unwrap();
        assert_eq!(sent["stream"] == json!(true), streams, "{model}");
    }
}

#[test]
fn meanings_of_limit_headers_have_the_names_of_their_vendors() {
    for name in limit_headers_names() {
        assert!(limit_headers(name).is_some(), "{name}");
    }
    assert_eq!(&limit_headers_names()[..3], ["plain", "groq", "together"]);
    assert_eq!(limit_headers("openai"), None, "it means nothing else than the plain ones");
    assert_eq!(limit_headers("acme"), None);
}

const ZAI: &[Case] = &[
    case("token", 401, r#"{"error":{"code":"1002","message":"Authorization Token is invalid"}}"#, Auth, Key, Some("1002")),
    case("locked", 429, r#"{"error":{"code":"1121","message":"Account has violation"}}"#, Auth, Key, Some("1121")),
    case("balance", 429, r#"{"error":{"code":"1113","message":"Insufficient balance or no resource package."}}"#, QuotaExhausted, Key, Some("1113")),
    case("model", 400, r#"{"error":{"code":"1211","message":"Unknown Model, please check the model code."}}"#, NotFound, Model, Some("1211")),
    case("permission", 400, r#"{"error":{"code":"1220","message":"No."}}"#, Permission, Model, Some("1220")),
    case("length", 400, r#"{"error":{"code":"1261","message":"Prompt exceeds max length"}}"#, ContextLength, Request, Some("1261")),
    case("policy", 400, r#"{"error":{"code":"1301","message":"System detected potentially unsafe content"}}"#, ContentPolicy, Request, Some("1301")),
    case("concurrency", 429, r#"{"error":{"code":"1302","message":"High concurrency usage of this API"}}"#, RateLimit, Model, Some("1302")),
    case("a number", 429, r#"{"error":{"code":1303,"message":"High frequency"}}"#, RateLimit, Model, Some("1303")),
    case("day", 429, r#"{"error":{"code":"1304","message":"Daily call limit reached"}}"#, RateLimitDaily, Model, Some("1304")),
    case("plan", 429, r#"{"error":{"code":"1308","message":"Usage limit reached for 5 hour. Your limit will reset at 2026-11-20 14:00:00"}}"#, RateLimitDaily, Model, Some("1308")).waits(7_200_000),
    case("traffic", 429, r#"{"error":{"code":"1312","message":"The model is busy"}}"#, Overloaded, Model, Some("1312")),
    case("network", 500, r#"{"error":{"code":"1234","message":"Network error"}}"#, ServerError, Model, Some("1234")),
];

const SILICONFLOW: &[Case] = &[
    case(
        "model",
        400,
        r#"{"code":20012,"message":"Model does not exist. Please check it carefully.","data":null}"#,
        NotFound,
        Model,
        Some("20012"),
    ),
    case(
        "balance",
        403,
        r#"{"code":30001,"message":"Sorry, your account balance is insufficient","data":null}"#,
        QuotaExhausted,
        Key,
        Some("30001"),
    ),
    case(
        "busy",
        503,
        r#"{"code":50505,"message":"Model service overloaded. Please try again later.","data":null}"#,
        Overloaded,
        Model,
        Some("50505"),
    ),
    case(
        "rate",
        429,
        r#"{"message":"Request was rejected due to rate limiting. Details:TPM limit reached.","data":null}"#,
        RateLimit,
        Model,
        None,
    ),
];

const DASHSCOPE: &[Case] = &[
    case(
        "tokens in the words of money",
        429,
        r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
        RateLimit,
        Model,
        Some("insufficient_quota"),
    ),
    case(
        "requests",
        429,
        r#"{"error":{"message":"You have exceeded your current request limit.","type":"limit_requests","code":"limit_requests"}}"#,
        RateLimit,
        Model,
        Some("limit_requests"),
    ),
    case(
        "growth",
        429,
        r#"{"code":"Throttling.BurstRate","message":"Request rate increased too quickly."}"#,
        RampLimit,
        Model,
        Some("Throttling.BurstRate"),
    ),
    case(
        "allocated",
        429,
        r#"{"code":"Throttling.AllocationQuota","message":"Allocated quota exceeded"}"#,
        RateLimit,
        Model,
        Some("Throttling.AllocationQuota"),
    ),
    case(
        "free tier",
        403,
        r#"{"error":{"message":"The free tier of the model has been exhausted.","code":"AllocationQuota.FreeTierOnly"}}"#,
        Permission,
        Model,
        Some("AllocationQuota.FreeTierOnly"),
    ),
    case(
        "debts",
        400,
        r#"{"error":{"message":"Access denied, please make sure your account is in good standing.","type":"Arrearage","code":"Arrearage"}}"#,
        QuotaExhausted,
        Key,
        Some("Arrearage"),
    ),
    case(
        "policy",
        400,
        r#"{"error":{"message":"Input text data may contain inappropriate content.","code":"data_inspection_failed"}}"#,
        ContentPolicy,
        Request,
        Some("data_inspection_failed"),
    ),
    case(
        "length",
        400,
        r#"{"error":{"message":"Range of input length should be [1, 30720]","code":"invalid_parameter_error"}}"#,
        ContextLength,
        Request,
        Some("invalid_parameter_error"),
    ),
    case(
        "unavailable",
        503,
        r#"{"error":{"message":"m","code":"ModelUnavailable"}}"#,
        Overloaded,
        Model,
        Some("ModelUnavailable"),
    ),
    case(
        "streams only",
        400,
        r#"{"error":{"message":"This model only support stream mode, please enable the stream parameter to access the model.","type":"invalid_request_error","param":null,"code":"invalid_parameter_error"}}"#,
        Refused,
        Request,
        Some("invalid_parameter_error"),
    ),
];

const GITHUB: &[Case] = &[
    case("minute", 429, r#"{"error":{"code":"RateLimitReached","message":"Rate limit of 15 per 60s exceeded for UserByModelByMinute. Please wait 7 seconds before retrying."}}"#, RateLimit, Model, Some("RateLimitReached")).waits(7_000),
    case("day", 429, r#"{"error":{"code":"RateLimitReached","message":"Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 3600 seconds before retrying."}}"#, RateLimitDaily, Model, Some("RateLimitReached")).waits(3_600_000),
    case("size", 413, r#"{"error":{"code":"tokens_limit_reached","message":"Request body too large for gpt-4o model. Max size: 8000 tokens."}}"#, ContextLength, Request, Some("tokens_limit_reached")),
    case("model", 400, r#"{"error":{"code":"unavailable_model","message":"Unavailable model: x"}}"#, NotFound, Model, Some("unavailable_model")),
];

#[test]
fn codes_of_a_vendor_mean_what_they_mean_there() {
    for (vendor, cases) in
        [("zai", ZAI), ("siliconflow", SILICONFLOW), ("dashscope", DASHSCOPE), ("github_models", GITHUB)]
    {
        check_failures(spoken("openai", Some(vendor), "", &QuirkSettings::default()), cases);
    }
    // The same code is money with OpenAI.
    let body = br#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let headers = reqwest::header::HeaderMap::new();
    let openai = spoken("openai", Some("openai"), "", &QuirkSettings::default());
    let failure = openai.decode(&crate::provider::WireReply::new(429, &headers, body)).unwrap_err();
    assert_eq!(failure.class, QuotaExhausted);
}

#[test]
fn a_member_without_which_the_answer_would_be_another_one_is_refused_and_not_dropped() {
    let refuse = |settings: &QuirkSettings, body| {
        let adapter = spoken("openai", Some("llama_cpp"), "http://127.0.0.1:8080/v1", settings);
        adapter.chat(&parsed(body), "m", &crate::domain::Capabilities::default()).map(|wire| wire.dropped)
    };
    let biased = || json!({"prompt": "Hi", "logit_bias": {"7": 5}});
    let plain = QuirkSettings::default();
    let refused = refuse(&plain, biased()).unwrap_err();
    assert!(refused.to_string().contains("logit_bias"), "{refused}");
    assert_eq!(refuse(&plain, json!({"prompt": "Hi", "logit_bias": null})), Ok(vec![]));
    // An operator may say otherwise, and may refuse more, at any depth.
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(refuse(&QuirkSettings { keep: of(&["logit_bias"]), ..plain.clone() }, biased()), Ok(vec![]));
    assert_eq!(
        refuse(&QuirkSettings { drop: of(&["logit_bias"]), ..plain.clone() }, biased()),
        Ok(of(&["logit_bias"]))
    );
    let named = json!({"messages": [{"role": "user", "name": "ann", "content": "Hi"}]});
    assert!(refuse(&QuirkSettings { refuse: of(&["messages[].name"]), ..plain }, named).is_err());
}

#[test]
fn a_code_of_one_vendor_is_not_believed_of_another() {
    const POLICY: &str = r#"{"error":{"code":"1301","message":"Zorb."}}"#;
    const LENGTH: &str = r#"{"error":{"code":"1261","message":"Zorb."}}"#;
    let of = |vendor: &str, cases: &[Case]| {
        check_failures(spoken("openai", Some(vendor), "", &QuirkSettings::default()), cases);
    };
    of("zai", &[case("policy", 500, POLICY, ContentPolicy, Request, Some("1301"))]);
    of("zai", &[case("length", 500, LENGTH, ContextLength, Request, Some("1261"))]);
    for (body, code) in [(POLICY, "1301"), (LENGTH, "1261")] {
        of("together", &[case(code, 500, body, ServerError, Model, Some(code))]);
    }
}
