//! Requests, as the dialect writes them.

use super::*;
use crate::domain::ChatRequest;
use crate::provider::checks::{Chat, encoded, long_conversation, parsed, spoken};
use crate::provider::quirks::{CapField, QuirkSettings};
use serde_json::Map;

/// A body of one message with these additional members.
#[expect(clippy::needless_pass_by_value, reason = "reads better with the JSON in place")]
fn body(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn with(more: Value) -> ChatRequest {
    parsed(body(more))
}

fn known() -> Capabilities {
    Capabilities::default()
}

fn to(adapter: &dyn Adapter, model: &str, request: &ChatRequest) -> (Value, Vec<String>) {
    let wire = adapter.chat(request, model, &known()).expect("can be expressed");
    (serde_json::from_slice(&wire.body).unwrap(), wire.dropped)
}

fn refusal(adapter: &dyn Adapter, model: &str, request: &ChatRequest, capabilities: &Capabilities) -> String {
    match adapter.chat(request, model, capabilities) {
        Err(Ineligible::Unsupported(what)) => what,
        other => panic!("was taken: {other:?}"),
    }
}

fn schema() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": true}})
}

#[test]
fn a_whole_conversation_goes_through_as_it_came() {
    let request = long_conversation();
    let (sent, dropped) = encoded(server(), &request, &known());
    let mut expected: Value = serde_json::from_str(&request.raw).unwrap();
    expected["model"] = json!("the-model");
    assert_eq!((sent, dropped), (expected, vec![]));
}

#[test]
fn members_that_only_a_vendor_knows_arrive_at_every_depth() {
    let text = r#"{"messages":[{"role":"system","content":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}]},{"role":"user","content":"Hi","weight":0},{"role":"assistant","content":null,"reasoning_content":"Let me see.","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"abc"}},"index":0}]},{"role":"tool","tool_call_id":"a","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]},{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"QUJD","format":"wav"}},{"type":"file","file":{"file_id":"f"}},{"type":"image_url","image_url":{"url":"https://example.com/a.png","detail":"original"}}]}],"tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","properties":{"n":{"const":123456789012345678901234567890,"maximum":1.0}}}}},{"type":"custom","custom":{"name":"g"}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto"}},"reasoning_effort":"max","temperature":1.0,"top_p":1e0,"seed":9007199254740993,"service_tier":"flex","response_format":{"type":"grammar","grammar":"root ::= [a-z]"},"chat_template_kwargs":{"enable_thinking":false},"user":"\u00e9\ud83d\ude00","model":"the-model"}"#;
    let (request, _) = ChatRequest::parse_text(text).unwrap();
    let wire = server().chat(&request, "the-model", &known()).unwrap();
    assert_eq!((std::str::from_utf8(&wire.body).unwrap(), wire.dropped), (text, vec![]));
}

#[test]
fn a_prompt_is_spelled_out_and_what_is_not_a_parameter_stays_at_home() {
    let text = r#"{"id":"a","review_id":7,"prompt":"H\u00e9","provider":"acme","top_k":5,"seed":1}"#;
    let (request, _) = ChatRequest::parse_text(text).unwrap();
    let wire = server().chat(&request, "m", &known()).unwrap();
    let sent = r#"{"model":"m","messages":[{"role":"user","content":"H\u00e9"}],"top_k":5,"seed":1}"#;
    assert_eq!(std::str::from_utf8(&wire.body).unwrap(), sent);
    assert_eq!(wire.dropped, ["id", "review_id", "provider"]);
}

#[test]
fn what_the_route_and_the_worker_decide_is_replaced_visibly() {
    let request =
        with(json!({"model": "other", "stream": true, "stream_options": {"include_usage": true}, "n": 1, "user": "u"}));
    let (sent, mut dropped) = encoded(server(), &request, &known());
    assert_eq!(sent, body(json!({"model": "the-model", "n": 1, "user": "u"})));
    dropped.sort();
    assert_eq!(dropped, ["model", "stream", "stream_options"]);
    let quiet = with(json!({"model": "the-model", "stream": false}));
    assert_eq!(encoded(server(), &quiet, &known()), (body(json!({"model": "the-model", "stream": false})), vec![]));
}

#[test]
fn the_output_cap_goes_where_server_and_model_want_it() {
    let mistral = at("https://api.mistral.ai/v1");
    for (adapter, model, given, wanted) in [
        (openai(), "gpt-4o", "max_tokens", "max_completion_tokens"),
        (at("https://API.openai.com/v1"), "gpt-4o", "max_completion_tokens", "max_completion_tokens"),
        (at("https://acme.openai.azure.com/openai/v1"), "my-deployment", "max_tokens", "max_completion_tokens"),
        (at("https://api.groq.com/openai/v1"), "m", "max_tokens", "max_completion_tokens"),
        (at("https://api.x.ai/v1"), "grok-4", "max_tokens", "max_completion_tokens"),
        (mistral, "m", "max_completion_tokens", "max_tokens"),
        (at("https://openrouter.ai/api/v1"), "m", "max_tokens", "max_tokens"),
        (at("https://openrouter.ai/api/v1"), "openai/gpt-5-mini", "max_tokens", "max_completion_tokens"),
        (at("https://notapi.openai.com.example/v1"), "m", "max_tokens", "max_tokens"),
        (at("https://myapi.openai.com/v1"), "m", "max_tokens", "max_tokens"),
        (at("not a url"), "m", "max_tokens", "max_tokens"),
        // A gateway of which nothing is known: the model's name decides.
        (server(), "gpt-5-mini", "max_tokens", "max_completion_tokens"),
        (server(), "gpt-6-luna", "max_tokens", "max_completion_tokens"),
        (server(), "o3", "max_tokens", "max_completion_tokens"),
        (server(), "gpt-5", "max_completion_tokens", "max_completion_tokens"),
        (server(), "openai/gpt-oss-120b", "max_tokens", "max_tokens"),
        (server(), "qwen3", "max_completion_tokens", "max_tokens"),
    ] {
        let (sent, dropped) = to(adapter, model, &with(json!({ given: 100 })));
        assert_eq!(sent, body(json!({ wanted: 100, "model": model })), "{model} with {given}");
        let noted = if given == wanted { vec![] } else { vec![format!("{given} as {wanted}")] };
        assert_eq!(dropped, noted, "{model} with {given}");
    }
    // The newer of the two wins, and only one is sent.
    let both = with(json!({"max_tokens": 5, "max_completion_tokens": 7}));
    let same = with(json!({"max_tokens": 7, "max_completion_tokens": 7}));
    for (adapter, wanted, noted) in [
        (openai(), "max_completion_tokens", &["max_tokens"][..]),
        (server(), "max_tokens", &["max_completion_tokens as max_tokens", "max_tokens"]),
    ] {
        let (sent, dropped) = encoded(adapter, &both, &known());
        assert_eq!(sent, body(json!({ wanted: 7, "model": "the-model" })));
        assert_eq!(dropped, noted);
        let (sent, dropped) = encoded(adapter, &same, &known());
        assert_eq!(sent, body(json!({ wanted: 7, "model": "the-model" })));
        assert!(dropped.len() == 1 && dropped[0].contains(" as "), "{dropped:?}");
    }
    let low = Capabilities { max_output_tokens: Some(8192), ..known() };
    let (sent, dropped) = encoded(server(), &with(json!({"max_tokens": 9000})), &low);
    assert_eq!((&sent["max_tokens"], dropped), (&json!(8192), vec!["max_tokens above 8192".to_owned()]));
}

#[test]
fn quirks_follow_the_vendor_and_not_the_address() {
    let gateway =
        |vendor: Option<&str>| spoken("openai", vendor, "https://gateway.example/v1", &QuirkSettings::default());
    let request = with(json!({"max_tokens": 5, "seed": 1, "logit_bias": {"5": 1}, "stop": ["a", "b", "c", "d", "e"]}));
    let sent = |vendor: Option<&str>| to(gateway(vendor), "the-model", &request).0;
    assert_eq!(sent(Some("openai"))["max_completion_tokens"], json!(5));
    assert_eq!(sent(Some("openai"))["stop"], json!(["a", "b", "c", "d"]));
    assert_eq!(sent(Some("mistral"))["random_seed"], json!(1));
    assert_eq!(sent(Some("groq")).get("logit_bias"), None);
    assert_eq!(sent(Some("fireworks"))["context_length_exceeded_behavior"], json!("error"));
    for unknown in [None, Some("acme")] {
        assert_eq!(sent(unknown)["max_tokens"], json!(5));
    }
    // Nor does the address of one vendor override the name of another.
    let other = spoken("openai", Some("mistral"), "https://api.openai.com/v1", &QuirkSettings::default());
    assert_eq!(to(other, "m", &request).0["max_tokens"], json!(5));
    let by_host = spoken("openai", Some("acme"), "https://api.openai.com/v1", &QuirkSettings::default());
    assert_eq!(to(by_host, "m", &request).0["max_completion_tokens"], json!(5));
}

#[test]
fn an_operators_word_counts_more_than_what_is_known() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let configured =
        |settings: QuirkSettings| spoken("openai", Some("openai"), "https://gateway.example/v1", &settings);
    let request = with(json!({
        "max_tokens": 5, "seed": 1, "user": "u", "stop": ["a", "b"], "logit_bias": {"5": 1},
        "presence_penalty": 0.5,
    }));
    let adapter = configured(QuirkSettings {
        cap_field: Some(CapField::MaxTokens),
        drop: names(&["user", "messages[].name"]),
        rename: vec![("seed".to_owned(), "random_seed".to_owned())],
        add: vec![("safe_prompt".to_owned(), json!(true)), ("seed".to_owned(), json!(3))],
        max_stops: Some(1),
        ..QuirkSettings::default()
    });
    let (sent, mut dropped) = to(adapter, "gpt-5-mini", &request);
    assert_eq!(
        sent,
        body(json!({"model": "gpt-5-mini", "max_tokens": 5, "random_seed": 1, "safe_prompt": true, "seed": 3}))
    );
    dropped.sort();
    let added = ["safe_prompt added", "seed added", "seed as random_seed"];
    assert_eq!(dropped, [&["logit_bias", "presence_penalty"][..], &added, &["stop", "user"]].concat());
    // `keep` and `model_rules` override the known habits.
    let kept = configured(QuirkSettings { keep: names(&["stop"]), ..QuirkSettings::default() });
    assert_eq!(to(kept, "gpt-5-mini", &request).0["stop"], json!(["a", "b"]));
    let literal = configured(QuirkSettings { model_rules: Some(false), ..QuirkSettings::default() });
    assert_eq!(to(literal, "gpt-5-mini", &request).0["presence_penalty"], json!(0.5));
    let only = configured(QuirkSettings {
        takes_only: Some(names(&["messages", "model", "seed"])),
        ..QuirkSettings::default()
    });
    assert_eq!(to(only, "gpt-4o", &request).0, body(json!({"model": "gpt-4o", "seed": 1})));
    let no_schema = configured(QuirkSettings { json_schema: Some(false), ..QuirkSettings::default() });
    assert_eq!(refusal(no_schema, "gpt-4o", &with(json!({"response_format": schema()})), &known()), "json_schema");
    let groq = QuirkSettings { json_schema: Some(true), ..QuirkSettings::default() };
    let groq = spoken("openai", Some("groq"), "https://gateway.example/v1", &groq);
    assert!(groq.chat(&with(json!({"response_format": schema()})), "llama-3.3-70b", &known()).is_ok());
}

#[test]
fn hosts_have_their_quirks() {
    let request = with(json!({
        "seed": 7, "stop": "END", "response_format": schema(), "user": "u", "parallel_tool_calls": true,
    }));
    let at_host = |base_url: &str, model: &str| to(at(base_url), model, &request).0;
    assert_eq!(at_host("https://api.mistral.ai/v1", "m")["random_seed"], json!(7));
    assert_eq!(at_host("https://api.mistral.ai/v1", "m").get("seed"), None);
    assert_eq!(at_host("https://api.mistral.ai/v1", "m").get("user"), None);
    let fireworks = at_host("https://api.fireworks.ai/inference/v1", "m");
    assert_eq!(fireworks["context_length_exceeded_behavior"], json!("error"));
    let openrouter = at_host("https://openrouter.ai/api/v1", "m");
    assert_eq!(openrouter["provider"], json!({"require_parameters": true}));
    let together = at_host("https://api.together.xyz/v1", "m");
    assert_eq!(together["stop"], json!(["END"]));
    assert_eq!((together.get("user"), together.get("parallel_tool_calls")), (None, None));
    let own = with(json!({"response_format": schema(), "provider": {"order": ["x"]}}));
    assert_eq!(to(at("https://openrouter.ai/api/v1"), "m", &own).0["provider"], json!({"order": ["x"]}));
}

#[test]
fn what_a_target_does_not_take_is_dropped_by_name() {
    let request = || {
        parsed(json!({
            "messages": [{"role": "user", "name": "Ann", "content": "Hi"}],
            "temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.2, "stop": "END",
            "tool_choice": "auto", "user": "u", "logprobs": true, "tools": [],
        }))
    };
    let check = |base_url: &str, model: &str, capabilities: Capabilities, expected: &[&str]| {
        let wire = at(base_url).chat(&request(), model, &capabilities).unwrap();
        let sent: Value = serde_json::from_slice(&wire.body).unwrap();
        let mut dropped = wire.dropped;
        dropped.sort();
        assert_eq!(dropped, expected, "{base_url} {model}");
        for name in &dropped {
            assert_eq!(sent.get(name), None, "{base_url} {model}");
        }
        assert_eq!(sent["messages"][0].get("name").is_none(), dropped.iter().any(|name| name == "messages[].name"));
    };
    let reasoning = || Capabilities { temperature: Some(false), ..known() };
    let local = "http://localhost/v1";
    check(local, "m", known(), &["tool_choice", "tools (an empty list)"]);
    let sampling = [
        "frequency_penalty",
        "logprobs",
        "presence_penalty",
        "temperature",
        "tool_choice",
        "tools (an empty list)",
        "top_p",
    ];
    check(local, "m", reasoning(), &sampling);
    let and_stop = [
        "frequency_penalty",
        "logprobs",
        "presence_penalty",
        "stop",
        "temperature",
        "tool_choice",
        "tools (an empty list)",
        "top_p",
    ];
    check("https://api.openai.com/v1", "m", reasoning(), &and_stop);
    // The model's name says it as well.
    check(local, "openai/o3", known(), &and_stop);
    check("https://api.openai.com/v1", "gpt-5-mini", known(), &and_stop);
    check(
        "https://api.groq.com/openai/v1",
        "m",
        known(),
        &["logprobs", "messages[].name", "tool_choice", "tools (an empty list)"],
    );
    let penalties = ["frequency_penalty", "presence_penalty", "stop", "tool_choice", "tools (an empty list)"];
    for grok in ["grok-4", "grok-4.20", "grok-4-fast-reasoning", "x-ai/grok-3-mini"] {
        check("https://api.x.ai/v1", grok, known(), &penalties);
    }
    check("https://api.x.ai/v1", "grok-4-fast-non-reasoning", known(), &["tool_choice", "tools (an empty list)"]);
    check(
        "https://openrouter.ai/api/v1",
        "google/gemini-2.5-pro",
        known(),
        &[
            "frequency_penalty",
            "presence_penalty",
            "provider.require_parameters added",
            "tool_choice",
            "tools (an empty list)",
        ],
    );
    check(
        "https://openrouter.ai/api/v1",
        "anthropic/claude-opus-4.7",
        known(),
        &["provider.require_parameters added", "temperature", "tool_choice", "tools (an empty list)", "top_p"],
    );
}

#[test]
fn servers_that_reject_what_they_do_not_know_get_only_that() {
    let request = parsed(json!({
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": "Yes", "reasoning_content": "Hm", "refusal": null, "annotations": []},
            {"role": "user", "content": "Go"},
        ],
        "made_up": 1, "seed": null, "user": "u",
    }));
    let (sent, mut dropped) = encoded(at("https://api.mistral.ai/v1"), &request, &known());
    let expected = json!({"model": "the-model", "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Go"},
    ]});
    assert_eq!(sent, expected);
    dropped.sort();
    let messages = ["messages[].annotations", "messages[].content[].cache_control", "messages[].reasoning_content"];
    assert_eq!(dropped, [&["made_up"][..], &messages, &["user"]].concat());
    let (sent, mut dropped) = encoded(at("https://api.groq.com/openai/v1"), &request, &known());
    assert_eq!(sent["messages"], expected["messages"]);
    dropped.sort();
    assert_eq!(dropped, messages);
}

#[test]
fn what_is_known_to_be_refused_makes_the_target_ineligible() {
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let with_schema = with(json!({"response_format": schema()}));
    let with_both = with(json!({"response_format": schema(), "tools": tool}));
    let object = with(json!({"response_format": {"type": "json_object"}}));
    let stated = Capabilities { json_schema: Some(true), ..known() };
    let (groq, deepseek) = (at("https://api.groq.com/openai/v1"), at("https://api.deepseek.com/v1"));
    assert_eq!(refusal(deepseek, "deepseek-flash", &with_schema, &known()), "json_schema");
    assert!(deepseek.chat(&with_schema, "m", &stated).is_ok(), "configuration knows better");
    for model in ["llama-3.3-70b-versatile", "llama-3.1-8b-instant", "gemma2-9b-it", "qwen/qwen3-32b"] {
        assert_eq!(refusal(groq, model, &with_schema, &known()), "json_schema");
    }
    for model in ["openai/gpt-oss-20b", "moonshotai/kimi-k2-instruct-0905", "meta-llama/llama-4-scout-17b-16e-instruct"]
    {
        assert!(groq.chat(&with_schema, model, &known()).is_ok(), "{model}");
        assert_eq!(refusal(groq, model, &with_both, &known()), "tools together with a response schema");
    }
    assert!(groq.chat(&with_schema, "llama-3.3-70b-versatile", &stated).is_ok());
    let fireworks = at("https://api.fireworks.ai/inference/v1");
    assert_eq!(refusal(fireworks, "m", &with_both, &known()), "tools together with a response schema");
    assert_eq!(refusal(at("https://api.anthropic.com/v1"), "claude-haiku-4-5", &with_schema, &known()), "json_schema");
    for adapter in [openai(), groq, deepseek] {
        assert_eq!(refusal(adapter, "m", &object, &known()), "json_object without the word JSON in the messages");
    }
    let asked = parsed(json!({"prompt": "Answer in Json.", "response_format": {"type": "json_object"}}));
    assert!(openai().chat(&asked, "m", &known()).is_ok());
    assert!(server().chat(&object, "m", &known()).is_ok());
    let cannot = |json_schema, tools, images| Capabilities { json_schema, tools, images, ..known() };
    let conversation = long_conversation();
    assert_eq!(refusal(server(), "m", &with_schema, &cannot(Some(false), None, None)), "json_schema");
    assert_eq!(refusal(server(), "m", &conversation, &cannot(None, Some(false), None)), "tools");
    assert_eq!(refusal(server(), "m", &conversation, &cannot(None, None, Some(false))), "images");
}

#[test]
fn what_is_added_is_named() {
    let request = || with(json!({"response_format": schema()}));
    let added = |base_url: &str, request: &ChatRequest| to(at(base_url), "m", request).1;
    let (fireworks, openrouter) = ("https://api.fireworks.ai/inference/v1", "https://openrouter.ai/api/v1");
    assert_eq!(added(fireworks, &request()), ["context_length_exceeded_behavior added"]);
    assert_eq!(added(openrouter, &request()), ["provider.require_parameters added"]);
    let own = with(json!({"context_length_exceeded_behavior": "truncate", "provider": {"sort": "price"}}));
    assert_eq!((added(fireworks, &own), added(openrouter, &own)), (vec![], vec![]));
}

#[test]
fn what_would_be_left_in_pieces_makes_the_target_ineligible() {
    let custom = json!([{"type": "custom", "custom": {"name": "g"}}]);
    let saying = |message: Value| {
        parsed(json!({"messages": [{"role": "user", "content": "a"}, message, {"role": "user", "content": "b"}]}))
    };
    let call = json!([{"id": "a", "type": "custom", "custom": {"name": "g", "input": "1"}}]);
    let refused = json!({"role": "assistant", "content": null, "refusal": "No."});
    let thought = json!({"role": "assistant", "content": null, "reasoning_content": "Hm"});
    for base_url in ["https://api.groq.com/openai/v1", "https://api.mistral.ai/v1"] {
        let ineligible = |request: &ChatRequest| refusal(at(base_url), "m", request, &known());
        assert_eq!(ineligible(&with(json!({ "tools": custom }))), "tools of type custom");
        let called = json!({"role": "assistant", "content": null, "tool_calls": call});
        assert_eq!(ineligible(&saying(called)), "tool calls of type custom");
        assert_eq!(ineligible(&saying(refused.clone())), "a message of nothing but refusal");
        assert_eq!(ineligible(&saying(thought.clone())), "a message of nothing but reasoning_content");
        // A tool that consists of its type alone is complete.
        let built_in = with(json!({"tools": [{"type": "browser_search"}]}));
        assert_eq!(to(at(base_url), "m", &built_in).0["tools"], json!([{"type": "browser_search"}]));
        // A server that accepts it gets it.
        assert_eq!(to(server(), "m", &with(json!({ "tools": custom }))).0["tools"], custom);
    }
    assert_eq!(
        refusal(at("https://api.cerebras.ai/v1"), "m", &saying(thought), &known()),
        "a message of nothing but reasoning_content"
    );
}

#[test]
fn the_deprecated_form_of_tools_is_no_broken_conversation_at_groq() {
    let told = parsed(json!({
        "messages": [
            {"role": "user", "content": "Go"},
            {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
        ],
        "functions": [{"name": "f", "parameters": {}}],
        "function_call": "auto",
    }));
    let (sent, dropped) = encoded(at("https://api.groq.com/openai/v1"), &told, &known());
    let call = json!({"type": "function", "function": {"name": "f", "arguments": "{}"}, "id": "f"});
    assert_eq!(sent["messages"][1], json!({"role": "assistant", "content": null, "tool_calls": [call]}));
    assert_eq!(sent["messages"][2], json!({"role": "tool", "tool_call_id": "f", "content": "1"}));
    assert_eq!(sent["tools"], json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]));
    assert_eq!((&sent["tool_choice"], sent.get("function_call")), (&json!("auto"), None));
    assert_eq!(dropped, ["functions as tools", "messages[].function_call as tool_calls"]);
    // The operator says that they are accepted.
    let settings = QuirkSettings { takes_functions: Some(true), ..QuirkSettings::default() };
    let literal = spoken("openai", Some("groq"), "https://gateway.example/v1", &settings);
    assert_eq!(refusal(literal, "m", &told, &known()), "a message of nothing but function_call");
    let result = parsed(json!({"messages": [{"role": "function", "name": "f", "content": "1"}]}));
    assert_eq!(refusal(literal, "m", &result, &known()), "messages of the role function");
}

#[test]
fn names_that_the_server_forbids_are_written_otherwise_and_turned_back() {
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let request = parsed(json!({
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant",
                "tool_calls": [{"id": "a", "type": "function",
                    "function": {"name": "weather.get", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "name": "weather.get", "content": "sun"},
        ],
        "tools": [function("weather.get"), function("weather:get"), function("weather_get")],
        "tool_choice": function("weather:get"),
    }));
    let wire = openai().chat(&request, "m", &known()).unwrap();
    let sent: Value = serde_json::from_slice(&wire.body).unwrap();
    let tools: Vec<&Value> = sent["tools"].as_array().unwrap().iter().map(|tool| &tool["function"]["name"]).collect();
    assert_eq!(tools, ["weather_get_2", "weather_get_3", "weather_get"]);
    assert_eq!(sent["tool_choice"]["function"]["name"], json!("weather_get_3"));
    assert_eq!(sent["messages"][1]["tool_calls"][0]["function"]["name"], json!("weather_get_2"));
    assert_eq!(sent["messages"][2]["name"], json!("weather_get_2"));
    assert_eq!(wire.dropped, ["tools[].function.name in letters that the dialect takes"]);
    let call = |name: &str| json!({"id": "b", "type": "function", "function": {"name": name, "arguments": "{}"}});
    let reply = json!({"choices": [{"message": {"tool_calls": [call("weather_get_3"), call("weather_get")]},
        "finish_reason": "tool_calls"}]});
    let mut answer = answer(openai(), &reply);
    wire.undo.apply(&mut answer);
    let called: Vec<&str> = answer.tool_calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(called, ["weather:get", "weather_get"]);
    // A server that takes any name gets it.
    assert_eq!(to(server(), "m", &request).0["tools"][0]["function"]["name"], json!("weather.get"));
}

#[test]
fn stop_sequences_beyond_the_servers_number_are_kept_by_us() {
    let request = with(json!({"stop": ["a1", "a2", "a3", "a4", "END"]}));
    let wire = openai().chat(&request, "gpt-4o", &known()).unwrap();
    let sent: Value = serde_json::from_slice(&wire.body).unwrap();
    assert_eq!((&sent["stop"], wire.dropped.len()), (&json!(["a1", "a2", "a3", "a4"]), 1));
    let reply = |text: &str, finish: &str| {
        let reply = json!({"choices": [{"message": {"content": text}, "finish_reason": finish}]});
        let mut answer = answer(openai(), &reply);
        wire.undo.apply(&mut answer);
        (answer.text.unwrap(), answer.finish)
    };
    assert_eq!(reply("one END two", "length"), ("one ".to_owned(), Finish::Complete));
    assert_eq!(reply("one two", "length"), ("one two".to_owned(), Finish::Length));
    // A model that takes none at all.
    let wire = at("https://api.x.ai/v1").chat(&with(json!({"stop": "END"})), "grok-4.20", &known()).unwrap();
    assert_eq!(wire.dropped, ["stop"]);
    let mut answer =
        answer(openai(), &json!({"choices": [{"message": {"content": "1END2"}, "finish_reason": "stop"}]}));
    wire.undo.apply(&mut answer);
    assert_eq!(answer.text.as_deref(), Some("1"));
}

#[test]
fn mistral_gets_call_ids_of_its_length() {
    let (body, dropped) = encoded(at("https://api.mistral.ai/v1"), &long_conversation(), &known());
    let id = body["messages"][3]["tool_calls"][0]["id"].as_str().unwrap();
    assert_eq!((id.len(), &body["messages"][4]["tool_call_id"]), (9, &json!(id)));
    assert_ne!(body["messages"][5]["tool_call_id"], json!(id));
    assert_eq!(dropped, ["messages[].tool_calls[].id as nine digits"]);
    let legacy = with(json!({"functions": [{"name": "f", "parameters": {}}], "function_call": {"name": "f"}}));
    let (sent, _) = encoded(at("https://api.mistral.ai/v1"), &legacy, &known());
    let function = json!({"name": "f", "parameters": {}});
    assert_eq!(sent["tools"], json!([{"type": "function", "function": function}]));
    assert_eq!(sent["tool_choice"], json!({"type": "function", "function": {"name": "f"}}));
    assert_eq!(encoded(openai(), &legacy, &known()).0["functions"], json!([function]));
    let told = parsed(json!({"messages": [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    ]}));
    let (sent, _) = encoded(at("https://api.mistral.ai/v1"), &told, &known());
    let call = &sent["messages"][1]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("f")));
    assert_eq!((&sent["messages"][2]["role"], &sent["messages"][2]["tool_call_id"]), (&json!("tool"), &call["id"]));
    assert_eq!(encoded(openai(), &told, &known()).0["messages"][2]["role"], json!("function"));
}

#[test]
fn instructions_have_the_role_that_the_server_knows() {
    let request =
        parsed(json!({"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}));
    for vendor in ["mistral", "groq", "deepseek", "together", "fireworks"] {
        let adapter = spoken("openai", Some(vendor), "https://gateway.example/v1", &QuirkSettings::default());
        let (sent, dropped) = encoded(adapter, &request, &known());
        assert_eq!(sent["messages"][0]["role"], json!("system"), "{vendor}");
        assert_eq!(dropped.first().map(String::as_str), Some("messages[].role developer as system"));
        assert_eq!(dropped.len(), if vendor == "fireworks" { 2 } else { 1 }, "{dropped:?}");
    }
    for adapter in [openai(), server()] {
        assert_eq!(encoded(adapter, &request, &known()).0["messages"][0]["role"], json!("developer"));
    }
}

#[test]
fn strict_is_kept_where_the_schema_can_be_enforced() {
    let closed = json!({"type": "object", "properties": {}, "additionalProperties": false});
    for (schema, is_kept) in [(closed, true), (json!({"type": "object", "properties": {"a": {}}}), false)] {
        let request = with(json!({
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}},
            "tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": schema}}],
        }));
        let (sent, dropped) = encoded(openai(), &request, &known());
        let strict = [&sent["response_format"]["json_schema"]["strict"], &sent["tools"][0]["function"]["strict"]];
        let kept = if is_kept { json!(true) } else { json!(null) };
        assert_eq!(strict, [&kept, &kept]);
        assert_eq!(dropped.len(), if is_kept { 0 } else { 2 }, "{dropped:?}");
        // Nothing of the kind is known of other servers.
        assert_eq!(encoded(server(), &request, &known()).1, Vec::<String>::new());
    }
}

#[test]
fn long_ids_of_calls_are_cut_and_stay_apart() {
    let long = |end: &str| format!("{}{end}", "x".repeat(50));
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "1"});
    let request = parsed(json!({"messages": [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": null, "tool_calls": [call(&long("a")), call(&long("b")), call("short.1")]},
        result(&long("b")), result(&long("a")), result("short.1"),
    ]}));
    let (sent, dropped) = encoded(openai(), &request, &known());
    let ids: Vec<&str> =
        sent["messages"][1]["tool_calls"].as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["x".repeat(40), format!("{}_2", "x".repeat(38)), "short.1".to_owned()]);
    let results: Vec<&str> = (2..5).map(|index| sent["messages"][index]["tool_call_id"].as_str().unwrap()).collect();
    assert_eq!(results, [ids[1], ids[0], ids[2]]);
    assert_eq!(dropped, ["messages[].tool_calls[].id cut to what is taken"]);
}

#[test]
fn mistral_wants_the_last_word_to_be_the_users() {
    let mistral = at("https://api.mistral.ai/v1");
    let ends_with = |more: Value| {
        let mut last = json!({"role": "assistant", "content": "Well"});
        last.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parsed(json!({"messages": [{"role": "user", "content": "Hi"}, last]}))
    };
    assert_eq!(refusal(mistral, "m", &ends_with(json!({})), &known()), "a last message from the assistant");
    assert!(mistral.chat(&ends_with(json!({"prefix": true})), "m", &known()).is_ok());
    assert!(server().chat(&ends_with(json!({})), "m", &known()).is_ok());
}

#[test]
fn deepseek_gets_texts_as_one_string_and_null_for_nothing() {
    let request = parsed(json!({"messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"},
            {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": "",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            "reasoning_content": "Hm"},
        {"role": "tool", "tool_call_id": "a", "content": ""},
    ]}));
    let (sent, dropped) = encoded(at("https://api.deepseek.com/v1"), &request, &known());
    assert_eq!(sent["messages"][0]["content"], json!("a\nb"));
    assert_eq!((&sent["messages"][1]["content"], &sent["messages"][2]["content"]), (&Value::Null, &json!("")));
    assert_eq!(sent["messages"][1]["reasoning_content"], json!("Hm"));
    assert_eq!(dropped, ["messages[].content[] as one text", "messages[].content[].cache_control"]);
}

// === properties ===

#[test]
fn a_body_that_is_not_known_at_all_is_an_empty_one() {
    let mut request = with(json!({}));
    request.raw = "[]".into();
    let (sent, _) = encoded(server(), &request, &known());
    assert_eq!(sent, Value::Object(Map::from_iter([("model".to_owned(), json!("the-model"))])));
}

#[test]
fn the_judge_of_a_text_learns_which_names_were_sent() {
    let request = with(json!({"tools": [{"type": "function", "function": {"name": "web.search"}}]}));
    let wire = openai().chat(&request, "gpt-4o", &known()).unwrap();
    let body = json!({"choices": [{"message": {"content": "{\"name\": \"web_search\", \"arguments\": {}}"},
        "finish_reason": "stop"}]});
    let mut written = answer(openai(), &body);
    wire.undo.apply(&mut written);
    assert_eq!(written.beside.sent_names.get("web_search").map(String::as_str), Some("web.search"));
    let verdict = crate::domain::validation::Rules::default().judge(&written, &request, None);
    assert!(matches!(verdict, crate::domain::Verdict::Rejected { .. }), "{verdict:?}");
}
