//! The row of a provider's vendor, and an operator's settings over it.

use super::*;
use crate::domain::{Capabilities, Charging, ChatRequest, QualitySettings, Scope, Timestamp};
use crate::provider::charging::{ANTHROPIC, AZURE, GEMINI, GROQ, OPENAI};
use crate::provider::own_headers::OwnHeaders;
use crate::provider::quirks::CapField;
use crate::provider::usage_places::UsagePlaces;
use crate::provider::{Adapter, HeaderMap, HeaderValue, Outgoing, QuirkSettings, Url, WireReply, vendors};
use serde_json::{Value, json};

#[test]
fn how_tokens_are_counted_follows_the_vendor_then_the_dialect_and_can_be_set() {
    let rule = |section: &str| {
        let config = given(&format!("{section}\nbase_url = \"http://127.0.0.1:8000/v1\"\n")).config();
        config.providers.values().next().unwrap().charging
    };
    for (section, expected) in [
        ("[providers.openai]", OPENAI),
        ("[providers.anthropic]", ANTHROPIC),
        ("[providers.gemini]", GEMINI),
        ("[providers.groq]", GROQ),
        ("[providers.mistral]", Charging::COMBINED),
        ("[providers.mine]\nvendor = \"groq\"", GROQ),
        ("[providers.mine]\nvendor = \"gemini\"\ndialect = \"openai\"", GEMINI),
        ("[providers.azure_openai]", AZURE),
        ("[providers.mine]\ndialect = \"anthropic\"", ANTHROPIC),
        ("[providers.mine]\ndialect = \"openai\"", OPENAI),
        ("[providers.mine]\ndialect = \"openai\"\ncharging = \"combined\"", Charging::COMBINED),
        ("[providers.openai]\ncharging = \"azure\"", AZURE),
    ] {
        assert_eq!(rule(section), expected, "{section}");
    }
    assert_eq!(
        given("[providers.openai]\ncharging = \"combine\"").faults(),
        ["providers.openai.charging: \"combine\" is not a rule of charging; perhaps \"combined\" is meant; expected \
          one of openai, azure, anthropic, gemini, groq, bedrock, combined"]
    );
    let config = route("[models.\"local/m\"]\noutput_burndown = 5\n").config();
    assert_eq!(config.routes["default"].route.rungs[0].model.output_burndown, Some(5));
}

#[test]
fn the_vendor_of_a_provider_without_its_name_is_told_by_the_host() {
    let rule = |base_url: &str| {
        let text = format!("[providers.mine]\ndialect = \"openai\"\nbase_url = \"{base_url}\"\n");
        given(&text).config().providers["mine"].charging
    };
    assert_eq!(rule("https://api.groq.com/openai/v1"), GROQ);
    assert_eq!(rule("https://acme.openai.azure.com/openai/v1"), AZURE);
    assert_eq!(rule("https://gateway.example/v1"), OPENAI);
}

/// The warnings about this text, which has no routes.
fn warnings(text: &str) -> Vec<String> {
    let mut warnings = given(text).config().warnings;
    warnings.retain(|warning| !warning.starts_with("no route uses"));
    warnings
}

#[test]
fn a_vendor_is_one_of_those_that_are_known() {
    let own = "dialect = \"openai\"\nbase_url = \"https://gateway.example/v1\"\n";
    for (name, vendor, rest, near) in [
        ("openai", "opnai", "", Some("openai")),
        ("mine", "opnai", "", Some("openai")),
        ("mine", "opnai", own, Some("openai")),
        ("mine", "Mistral", "", Some("mistral")),
        ("mine", "OPENAI", own, Some("openai")),
        ("mine", "azure", own, None),
        ("mine", "none", own, None),
        ("mine", "", own, None),
    ] {
        let faults = given(&format!("[providers.{name}]\nvendor = {vendor:?}\n{rest}")).faults();
        let [fault] = faults.as_slice() else { panic!("{name} {vendor}: {faults:?}") };
        let told = format!("providers.{name}.vendor: {vendor:?} is not a vendor");
        let near = near.map_or_else(String::new, |near| format!("; perhaps {near:?} is meant"));
        assert!(fault.starts_with(&format!("{told}{near}; expected one of openai, anthropic, ")), "{fault}");
        assert!(fault.ends_with("any other server has a dialect and a base_url, and no vendor"), "{fault}");
    }
    assert_eq!(warnings(&format!("[providers.mine]\n{own}")), Vec::<String>::new());
}

#[test]
fn the_server_of_a_vendor_speaks_a_dialect_of_the_vendor() {
    for (section, vendor, dialect, known) in [
        (
            "[providers.mine]\nvendor = \"openai\"\ndialect = \"anthropic\"",
            "openai",
            "anthropic",
            "openai or openai_responses or completions",
        ),
        ("[providers.openai]\ndialect = \"gemini\"", "openai", "gemini", "openai or openai_responses or completions"),
        ("[providers.anthropic]\ndialect = \"gemini\"", "anthropic", "gemini", "anthropic or openai"),
    ] {
        let faults = given(section).faults();
        let [fault] = faults.as_slice() else { panic!("{section}: {faults:?}") };
        assert!(fault.contains(&format!("the server of {vendor:?} is not known to speak {dialect:?}")), "{fault}");
        assert!(fault.contains(&format!("expected {known}, or the base_url")), "{fault}");
    }
    // A gateway may speak what the vendor does not. It is said, unless only the provider's name is a vendor's.
    let gateway = "dialect = \"anthropic\"\nbase_url = \"https://gateway.example/v1\"\n";
    let told = warnings(&format!("[providers.mine]\nvendor = \"openai\"\n{gateway}"));
    assert!(matches!(&told[..], [one] if one.contains("is known to speak openai and openai_responses")), "{told:?}");
    assert_eq!(warnings(&format!("[providers.deepseek]\n{gateway}")), Vec::<String>::new());
}

#[test]
fn a_first_byte_that_is_later_than_the_end_is_warned_of() {
    let warnings = |timeouts: &str| warnings(&format!("[providers.openai.timeouts]\n{timeouts}")).concat();
    let told = warnings("first_byte = \"5m\"\ntotal = \"2m\"\n");
    assert!(told.contains("first_byte of ") && told.contains("is 5m, and total is 2m"), "{told}");
    assert!(warnings("first_byte = \"11m\"\n").contains("total is 10m"));
    // The default of the one is not held against the other.
    for fine in ["total = \"20s\"\n", "first_byte = \"2m\"\ntotal = \"2m\"\n"] {
        assert_eq!(warnings(fine), "", "{fine}");
    }
}

#[test]
fn the_other_door_of_a_vendor_has_its_own_address() {
    let address = |text: &str| given(text).config().providers.values().next().unwrap().endpoint.base_url.clone();
    let openai = "https://generativelanguage.googleapis.com/v1beta/openai";
    assert_eq!(address("[providers.gemini]\ndialect = \"openai\""), openai);
    assert_eq!(address("[providers.gemini]"), "https://generativelanguage.googleapis.com/v1beta");
}

/// The body that an adapter sends, and the dropped members.
fn sent(adapter: &dyn Adapter, body: &Value) -> (Value, Vec<String>) {
    let request = ChatRequest::parse(body).unwrap();
    let wire = adapter.encode((&request).into(), "m", &Capabilities::default()).unwrap();
    (serde_json::from_slice(&wire.body).unwrap(), wire.dropped)
}

/// A vendor that the table has for this test alone. Its row is all that is known of it.
#[test]
fn a_vendor_is_one_row() {
    let body = json!({
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "seed": 7, "user": "ann",
    });
    let expected = json!({
        "model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 5, "dice": 7,
    });
    let gateway = "[providers.gateway]\nvendor = \"acme_ai\"\nbase_url = \"https://gateway.example/v1\"\n";
    let by_host =
        "[providers.mine]\ndialect = \"openai\"\nbase_url = \"https://eu.api.acme-ai.example/v7?tenant=eu\"\n";
    for (name, section) in [("acme_ai", "[providers.acme_ai]\n"), ("gateway", gateway), ("mine", by_host)] {
        let config = given(&format!("{section}api_key_env = \"ACME\"\n")).with("ACME", "the-key").config();
        let provider = &config.providers[name];
        let (endpoint, adapter) = (&provider.endpoint, provider.endpoint.adapter());
        // The body.
        let (body, mut dropped) = sent(&*adapter, &body);
        assert_eq!(body, expected, "{name}");
        dropped.sort();
        assert_eq!(dropped, ["max_tokens as max_completion_tokens", "seed as dice", "user"], "{name}");
        // The signature.
        let request = ChatRequest::parse(&json!({"prompt": "Hi"})).unwrap();
        let wire = adapter.encode((&request).into(), "m", &Capabilities::default()).unwrap();
        let url = Url::parse(&endpoint.base_url).unwrap();
        let mut outgoing = Outgoing::new(&url, &HeaderMap::new(), wire);
        endpoint.auth(&endpoint.keys[0]).sign(&mut outgoing, Timestamp(0)).unwrap();
        assert_eq!(outgoing.headers["x-acme-key"], "the-key", "{name}");
        assert!(!outgoing.headers.contains_key("authorization"), "{name}");
        // The meaning of its limits and errors.
        let headers = HeaderMap::from_iter([
            ("x-ratelimit-limit-requests".parse().unwrap(), HeaderValue::from_static("7")),
            ("x-ratelimit-limit-tokens".parse().unwrap(), HeaderValue::from_static("9")),
        ]);
        let refusal = br#"{"error":{"message":"No.","code":"invalid_prompt"}}"#;
        let reply = WireReply::new(400, &headers, refusal);
        let seen: Vec<_> = adapter.limits(&reply).iter().map(|seen| (seen.limit, seen.per)).collect();
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        assert_eq!(seen, [(Some(7), Some(second)), (Some(9), Some(day))], "{name}");
        let failure = adapter.decode(&reply).unwrap_err();
        assert_eq!((failure.class, failure.scope), (ErrorClass::QuotaExhausted, Scope::Key), "{name}");
        // The charging rule.
        assert_eq!(provider.charging, GROQ, "{name}");
    }
    let config = given("[providers.acme_ai]\n").config();
    let endpoint = &config.providers["acme_ai"].endpoint;
    assert_eq!(endpoint.base_url, "https://api.acme-ai.example/v7?tenant=main");
    // An operator's settings take precedence.
    let config = given(
        "[providers.acme_ai]\nquirks = { cap_field = \"max_tokens\", keep = [\"user\"], rename = { seed = \"seed\" }, \
         limit_headers = \"plain\" }\ncharging = \"combined\"\n",
    )
    .config();
    let provider = &config.providers["acme_ai"];
    let mut as_given = body.clone();
    as_given["model"] = json!("m");
    assert_eq!(sent(&*provider.endpoint.adapter(), &body), (as_given, vec![]));
    assert_eq!(provider.charging, Charging::COMBINED);
}

#[test]
fn a_base_url_may_have_a_query_but_no_key_in_it() {
    let fault = |base_url: &str| {
        given(&format!("[providers.mine]\ndialect = \"openai\"\nbase_url = \"{base_url}\"\n")).faults()
    };
    let classic = "https://acme.openai.azure.com/openai/deployments/d?api-version=2024-10-21";
    let config = given(&format!("[providers.mine]\ndialect = \"openai\"\nbase_url = \"{classic}\"\n")).config();
    assert_eq!(config.providers["mine"].endpoint.base_url, classic);
    let expected = "expected a URL such as \"https://api.example.com/v1\"";
    for query in ["key=sk-123", "api_key=sk-123", "subscription-key=sk-123", "a=b&access_token=sk-123", "sig=sk-123"] {
        let problem = "has a key in its query, and keys do not belong into the configuration file";
        let faults = fault(&format!("https://h/v1?{query}"));
        assert_eq!(faults, [format!("providers.mine.base_url: \"https://h/v1\" {problem}; {expected}")], "{query}");
    }
    let faults = fault("https://h/v1#sk-123");
    let problem = "\"https://h/v1\" has a fragment, which is never sent";
    assert_eq!(faults, [format!("providers.mine.base_url: {problem}; {expected}")]);
}

#[test]
fn each_quirk_of_a_provider_can_be_set() {
    let config = given(
        "[providers.gateway]\nvendor = \"openai\"\nbase_url = \"https://gateway.example/v1\"\n\
         [providers.gateway.quirks]\ncap_field = \"max_tokens\"\ndrop = [\"user\", \"messages[].name\"]\n\
         refuse = [\"logit_bias\"]\nkeep = [\"stop\"]\ndrop_when_reasoning = []\n\
         takes_only = [\"messages\", \"model\"]\n\
         rename = { seed = \"random_seed\" }\nadd = { safe_prompt = true }\njson_schema = false\n\
         words = { tool_choice = { required = \"any\" } }\ndrop_with_tools = [\"reasoning_format\"]\n\
         logprobs_as_number = true\nstream_only_models = [\"QwQ\"]\n\
         json_schema_models = [\"GPT-OSS\"]\n\
         tools_with_schema = false\nneeds_json_word = false\nrequire_parameters = true\nshort_call_ids = true\n\
         max_call_id = 12\nneeds_user_last = true\nchecks_strict = false\n\
         plain_tool_names = false\nmax_stops = 4\nstop_as_list = true\njoin_texts = true\n\
         empty_content_as_null = true\ntakes_null = false\ntakes_functions = false\ntakes_developer = false\n\
         stream_usage = false\nmodel_rules = false\n\
         reasoning_outside = true\nlimit_headers = \"groq\"\n",
    )
    .config();
    let endpoint = &config.providers["gateway"].endpoint;
    assert_eq!(endpoint.vendor.as_deref(), Some("openai"));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        endpoint.quirks,
        QuirkSettings {
            cap_field: Some(CapField::MaxTokens),
            drop: names(&["user", "messages[].name"]),
            refuse: names(&["logit_bias"]),
            keep: names(&["stop"]),
            drop_when_reasoning: Some(vec![]),
            takes_only: Some(names(&["messages", "model"])),
            rename: vec![("seed".to_owned(), "random_seed".to_owned())],
            add: vec![("safe_prompt".to_owned(), serde_json::json!(true))],
            words: vec![("tool_choice".to_owned(), "required".to_owned(), "any".to_owned())],
            drop_with_tools: Some(names(&["reasoning_format"])),
            logprobs_as_number: Some(true),
            stream_only_models: Some(names(&["qwq"])),
            json_schema: Some(false),
            json_schema_models: Some(names(&["gpt-oss"])),
            tools_with_schema: Some(false),
            needs_json_word: Some(false),
            require_parameters: Some(true),
            short_call_ids: Some(true),
            max_call_id: Some(12),
            needs_user_last: Some(true),
            checks_strict: Some(false),
            plain_tool_names: Some(false),
            max_stops: Some(4),
            stop_as_list: Some(true),
            join_texts: Some(true),
            empty_content_as_null: Some(true),
            takes_null: Some(false),
            takes_functions: Some(false),
            takes_developer: Some(false),
            stream_usage: Some(false),
            model_rules: Some(false),
            reasoning_outside: Some(true),
            errors: Vec::new(),
            headers: OwnHeaders::default(),
            usage: UsagePlaces::default(),
            limit_headers: Some(vendors::named("groq").unwrap().limits),
        }
    );
    let by_variable = given(LOCAL).with("SLUICE__PROVIDERS__LOCAL__QUIRKS__DROP", "user,seed").config();
    assert_eq!(by_variable.providers["local"].endpoint.quirks.drop, ["user", "seed"]);
}

#[test]
fn faulty_quirks_are_named() {
    let quirks = |lines: &str| given(&format!("{LOCAL}[providers.local.quirks]\n{lines}")).faults();
    for (lines, expected) in [
        ("capfield = \"max_tokens\"", "providers.local.quirks.capfield: no such key; expected perhaps cap_field"),
        (
            "cap_field = \"max_output_tokens\"",
            "providers.local.quirks.cap_field: \"max_output_tokens\" is no field for the output cap; expected \
             max_tokens or max_completion_tokens",
        ),
        (
            "drop = [\"model\"]",
            "providers.local.quirks.drop[0]: \"model\" is always sent as the route and the worker want it; expected \
             the path of a member, such as \"user\" or \"messages[].name\"",
        ),
        (
            "drop = [\"messages[0].name\"]",
            "providers.local.quirks.drop[0]: \"messages[0].name\" is not the path of a member; expected the path of a \
             member, such as \"user\" or \"messages[].name\"",
        ),
        (
            "rename = { model = \"deployment\" }",
            "providers.local.quirks.rename.model: is always sent as the route and the worker want it; expected \
             another member",
        ),
        (
            "rename = { seed = \"random_seed\", user = \"random_seed\" }",
            "providers.local.quirks.rename.user: gets the name \"random_seed\", as seed does: only one of them could \
             be sent; expected a name of its own",
        ),
        (
            "words = { n = { one = \"1\" } }",
            "providers.local.quirks.words.n: is no member whose words may change; expected another top-level member",
        ),
        (
            "words = { tool_choice = \"any\" }",
            "providers.local.quirks.words.tool_choice: is not a table of words; expected { required = \"any\" }",
        ),
        (
            "words = { tool_choice = { required = 1 } }",
            "providers.local.quirks.words.tool_choice: has no text for \"required\"; expected { required = \"any\" }",
        ),
        ("json_schema = \"no\"", "providers.local.quirks.json_schema: is \"no\"; expected true or false"),
        ("max_stops = -1", "providers.local.quirks.max_stops: is -1; expected a whole number from 0 to 1000"),
    ] {
        assert_eq!(quirks(lines), [expected], "{lines}");
    }
    let claude = given("[providers.anthropic]\nquirks = { cap_field = \"max_tokens\", drop = [\"user\"] }\n").faults();
    assert!(
        claude.iter().any(|fault| {
            fault
                == "providers.anthropic.quirks.cap_field: is a quirk of OpenAI's dialect, and this provider speaks \
                    anthropic; expected here only drop, json_schema, errors and headers"
        }),
        "{claude:?}"
    );
}

#[test]
fn what_a_target_is_passed_over_for_has_sensible_rates_and_times() {
    let text = |breaker: &str| {
        format!(
            "[providers.local]\ndialect = \"openai\"\nbase_url = \"http://h:1/v1\"\n\
             timeouts = {{ total = \"5m\" }}\nbreaker = {{ {breaker} }}\n"
        )
    };
    let read = |breaker: &str| given(&text(breaker)).config().providers["local"].quality;
    let plain = read("");
    assert_eq!((plain.min_calls, plain.slow, plain.soft_failure_rate, plain.wasted_token_rate), (10, None, 0.9, 0.9));
    let own = read(
        "min_calls = 4, window = \"10m\", slow = \"90s\", slow_rate = 0.25, soft_failure_rate = 1.0, \
         wasted_token_rate = 0.5",
    );
    let expected = QualitySettings {
        min_calls: 4,
        window: Duration::from_mins(10),
        open: Duration::from_secs(30),
        slow: Some(Duration::from_secs(90)),
        slow_rate: 0.25,
        soft_failure_rate: 1.0,
        wasted_token_rate: 0.5,
    };
    assert_eq!(own, expected);
    for (breaker, problem) in [
        ("soft_failure_rate = 1.1", "soft_failure_rate: is 1.1; expected a share above 0 and up to 1"),
        ("soft_failure_rate = 0.0", "soft_failure_rate: is 0"),
        ("wasted_token_rate = -0.5", "wasted_token_rate: is -0.5; expected a share above 0 and up to 1"),
        ("slow = \"1m\", slow_rate = 2.0", "slow_rate: is 2"),
        ("slow_rate = 0.5", "slow_rate: has no meaning without `slow`; expected beside it `slow`"),
        ("slow = \"0s\"", "slow: is zero; expected a duration"),
        ("slow = \"soon\"", "slow: "),
        (
            "slow = \"5m\"",
            "slow: is 5m, and `timeouts.total` ends a call after 5m: no answer is ever slow; expected less than",
        ),
    ] {
        let faults = given(&text(breaker)).faults();
        assert_eq!(faults.len(), 1, "{breaker}: {faults:?}");
        assert!(faults[0].contains(&format!("providers.local.breaker.{problem}")), "{breaker}: {faults:?}");
    }
}

#[test]
fn a_health_probe_is_a_page_of_the_same_server_asked_at_a_sensible_pace() {
    let text =
        |probe: &str| format!("[providers.local]\ndialect = \"openai\"\nbase_url = \"http://h:1/v1\"\n{probe}\n");
    let probe = |probe: &str| given(&text(probe)).config().providers["local"].probe.clone();
    let seconds = Duration::from_secs;
    for (section, expected) in [
        ("", None),
        ("probe = { path = \"/health\" }", Some(("/health", seconds(15), seconds(5), 2))),
        ("probe = { path = \"/\", every = \"2s\", failures = 1 }", Some(("/", seconds(2), seconds(2), 1))),
        (
            "[providers.local.probe]\npath = \"/v1/models\"\nevery = \"1m\"\ntimeout = \"1m\"",
            Some(("/v1/models", seconds(60), seconds(60), 2)),
        ),
    ] {
        let read = probe(section);
        let read = read.as_ref().map(|it| (it.page.as_str(), it.every, it.timeout, it.failures));
        assert_eq!(read, expected, "{section}");
    }
    for (section, problem) in [
        ("probe = { path = \"/h\", every = \"0s\" }", "every: is shorter than 100ms; expected"),
        ("probe = { path = \"health\" }", "path: \"health\" does not begin with a slash; expected a path"),
        ("probe = { path = \"https://evil.example/health\" }", "path: \"https://evil.example/health\" is a whole URL"),
        ("probe = { path = \"//evil.example/health\" }", "path: \"//evil.example/health\" names another server"),
        ("probe = { path = \"/h?api_key=zq\" }", "path: \"/h\" has a key in its query"),
        (
            "probe = { path = \"/h\", every = \"5s\", timeout = \"6s\" }",
            "timeout: is 6s, and the next probe goes after 5s; expected no more than `every`",
        ),
        ("probe = { path = \"/h\", timeout = \"0s\" }", "timeout: "),
        ("probe = { path = \"/h\", failures = 0 }", "failures: "),
        ("probe = { path = \"/h\", method = \"HEAD\" }", "method: "),
        ("probe = { every = \"5s\" }", "path: is missing"),
        ("[providers.local.probe]", "path: is missing"),
        ("probe = \"/health\"", "probe"),
    ] {
        let faults = given(&text(section)).faults();
        assert_eq!(faults.len(), 1, "{section}: {faults:?}");
        assert!(faults[0].contains(problem) && !faults[0].contains("zq"), "{section}: {faults:?}");
    }
}
