//! Bodies that are read, and bodies that are refused.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn parsed(body: &Value) -> ChatRequest {
    ChatRequest::parse(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn fault(body: &Value) -> String {
    match ChatRequest::parse(body) {
        Ok(_) => panic!("was read: {body}"),
        Err(error) => error.to_string(),
    }
}

/// The request without the text that it was read from.
fn understood(request: &ChatRequest) -> ChatRequest {
    ChatRequest { raw: Box::default(), is_prompt: false, ..request.clone() }
}

/// A valid body with one member more.
fn with(member: &str, value: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    body[member] = value;
    body
}

/// A body of one message.
#[expect(clippy::needless_pass_by_value, reason = "reads better with the JSON in place")]
fn saying(message: Value) -> Value {
    json!({ "messages": [message] })
}

#[test]
fn a_prompt_is_short_for_one_user_message() {
    let short = parsed(&json!({"prompt": "Hi", "max_tokens": 5}));
    assert_eq!(understood(&short), understood(&parsed(&with("max_tokens", json!(5)))));
    assert_eq!(short.messages[0].role, Role::User);
    assert_eq!(short.messages[0].text(), "Hi");
}

#[test]
fn a_whole_conversation_is_read() {
    let request = parsed(&json!({
        "model": "gpt-4o-mini", "stream": true, "stream_options": {"include_usage": true}, "n": 1,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
            {"role": "assistant", "content": null, "refusal": "No."},
        ],
        "max_tokens": 10, "max_completion_tokens": 20, "temperature": 0.5, "top_p": 1, "stop": "END", "seed": -7,
        "presence_penalty": -2, "frequency_penalty": 2.0, "reasoning_effort": "low",
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "cat", "schema": {"type": "object"}}},
        "user": "ann", "logit_bias": {"5": 1}, "top_k": null,
    }));
    let roles: Vec<_> = request.messages.iter().map(|message| message.role).collect();
    let expected = [Role::System, Role::System, Role::User, Role::Assistant, Role::Tool, Role::Assistant];
    assert_eq!(roles, expected);
    let image = ContentPart::Image { url: "data:image/png;base64,AA==".into(), detail: Some("low".into()) };
    assert_eq!(request.messages[2].content[1], image);
    assert_eq!(request.messages[2].name.as_deref(), Some("ann"));
    let (id, name, arguments) = ("call_1".to_owned(), "look".to_owned(), "{}".to_owned());
    let call = PastCall { id, name, arguments, thought_signature: None };
    assert_eq!(request.messages[3].tool_calls, [call]);
    assert!(request.messages[3].content.is_empty());
    assert_eq!(request.messages[4].tool_call_id.as_deref(), Some("call_1"));
    assert_eq!(request.messages[5].text(), "No.");
    assert_eq!(request.max_tokens, Some(20));
    assert_eq!((request.temperature, request.top_p), (Some(0.5), Some(1.0)));
    assert_eq!(request.stop, ["END"]);
    assert_eq!(request.seed, Some(-7));
    assert_eq!((request.presence_penalty, request.frequency_penalty), (Some(-2.0), Some(2.0)));
    assert_eq!(request.tools[0].name, "look");
    assert_eq!(request.tool_choice, Some(ToolChoice::Function("look".into())));
    assert_eq!(request.reasoning_effort.as_deref(), Some("low"));
    let format = ResponseFormat::JsonSchema { name: "cat".into(), schema: json!({"type": "object"}), strict: None };
    assert_eq!(request.response_format, Some(format));
    assert_eq!((request.user.as_deref(), request.top_k), (Some("ann"), None));
    // Members that are not understood are named for targets of other dialects.
    assert_eq!(request.unread, ["logit_bias", "stream", "stream_options"]);
}

#[test]
fn a_member_that_is_null_counts_as_absent() {
    let plain = parsed(&with("seed", Value::Null));
    for member in ["max_tokens", "temperature", "stop", "tools", "tool_choice", "response_format", "n", "model"] {
        assert_eq!(understood(&parsed(&with(member, Value::Null))), understood(&plain), "{member}");
    }
}

#[test]
fn empty_lists_of_stops_and_tools_ask_for_nothing() {
    assert!(parsed(&with("stop", json!([]))).stop.is_empty());
    assert!(parsed(&with("tools", json!([]))).tools.is_empty());
    assert_eq!(parsed(&with("stop", json!(["a", "b"]))).stop, ["a", "b"]);
}

#[test]
fn the_deprecated_functions_become_tools() {
    let request = parsed(&json!({
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": null, "function_call": {"name": "weather", "arguments": "{}"}},
            {"role": "function", "name": "weather", "content": "sun"},
        ],
        "functions": [{"name": "weather", "description": "", "parameters": {}}],
        "function_call": {"name": "weather"},
    }));
    assert_eq!(request.messages[1].tool_calls[0].id, "weather");
    assert_eq!(request.messages[2].role, Role::Tool);
    assert_eq!(request.messages[2].tool_call_id.as_deref(), Some("weather"));
    assert_eq!(request.tools[0].name, "weather");
    assert_eq!(request.tool_choice, Some(ToolChoice::Function("weather".into())));
    assert_eq!(request.unread, Vec::<String>::new());
}

#[test]
fn a_fault_names_its_field_and_what_was_expected() {
    let image = |image: Value| saying(json!({"role": "user", "content": [{"type": "image_url", "image_url": image}]}));
    let call = |call: Value| saying(json!({"role": "assistant", "tool_calls": [call]}));
    let schema = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    for (body, expected) in [
        (json!([]), "request: expected an object, found an empty array"),
        (json!("Hi"), "request: expected an object, found `Hi`"),
        (
            json!({}),
            "request: expected `messages`, or `prompt` as short for one user message, or `input` for embeddings, found \
             none",
        ),
        (json!({"prompt": ""}), "prompt: expected a string that is not empty, found an empty string"),
        (json!({"prompt": ["a", "b"]}), "prompt: expected a string that is not empty, found an array"),
        (with("prompt", json!("Hi")), "prompt: expected either `messages` or `prompt`, found both"),
        (json!({"messages": []}), "messages: expected at least one message, found an empty array"),
        (json!({"messages": {}}), "messages: expected an array, found an object"),
        (saying(json!("Hi")), "messages[0]: expected an object, found `Hi`"),
        (saying(json!({"content": "Hi"})), "messages[0].role: expected a role, found nothing"),
        (
            saying(json!({"role": "robot", "content": "Hi"})),
            "messages[0].role: expected one of system, developer, user, assistant, tool, found `robot`",
        ),
        (saying(json!({"role": "user"})), "messages[0].content: expected a string or an array of parts, found nothing"),
        (
            saying(json!({"role": "user", "content": 5})),
            "messages[0].content: expected a string or an array of parts, found 5",
        ),
        (
            saying(json!({"role": "user", "content": []})),
            "messages[0].content: expected at least one part, found an empty array",
        ),
        (
            saying(json!({"role": "user", "content": [{"type": 5}]})),
            "messages[0].content[0].type: expected text, image_url or another type of part, found 5",
        ),
        (
            saying(json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text"}]})),
            "messages[0].content[1].text: expected a string, found nothing",
        ),
        (image(json!(5)), "messages[0].content[0].image_url: expected an object, found 5"),
        (
            image(json!({"url": "file:///etc/passwd"})),
            "messages[0].content[0].image_url.url: expected an address that begins with data:, https:// or http://, \
             found `file:///etc/passwd`",
        ),
        (
            image(json!({"url": "https://a", "detail": 5})),
            "messages[0].content[0].image_url.detail: expected a string that is not empty, found 5",
        ),
        (
            saying(json!({"role": "user", "content": "a", "tool_calls": []})),
            "messages[0].tool_calls: expected only in a message of role assistant",
        ),
        (
            saying(json!({"role": "tool", "content": "a"})),
            "messages[0].tool_call_id: expected the id of the call that this message answers, found nothing",
        ),
        (
            call(json!({"id": ""})),
            "messages[0].tool_calls[0].id: expected a string that is not empty, found an empty string",
        ),
        (
            call(json!({"id": "a", "type": 5})),
            "messages[0].tool_calls[0].type: expected function or another type, found 5",
        ),
        (
            call(json!({"id": "a", "function": {"name": "f", "arguments": {}}})),
            "messages[0].tool_calls[0].function.arguments: expected a string, found an object",
        ),
        (with("max_tokens", json!(0)), "max_tokens: expected a whole number from 1 to 1000000000, found 0"),
        (with("max_tokens", json!(1.5)), "max_tokens: expected a whole number from 1 to 1000000000, found 1.5"),
        (
            with("max_completion_tokens", json!(u64::MAX)),
            "max_completion_tokens: expected a whole number from 1 to 1000000000, found 18446744073709551615",
        ),
        (with("max_tokens", json!(1e300)), "max_tokens: expected a whole number from 1 to 1000000000, found 1e+300"),
        (with("temperature", json!(2.1)), "temperature: expected a number from 0 to 2, found 2.1"),
        (with("temperature", json!("hot")), "temperature: expected a number from 0 to 2, found `hot`"),
        (with("top_p", json!(-0.1)), "top_p: expected a number from 0 to 1, found -0.1"),
        (with("presence_penalty", json!(3)), "presence_penalty: expected a number from -2 to 2, found 3"),
        (
            with("seed", json!(0.5)),
            "seed: expected a whole number from -9223372036854775808 to 9223372036854775807, found 0.5",
        ),
        (with("n", json!(2)), "n: expected 1, as a job has one answer (enqueue one job for each), found 2"),
        (with("stop", json!([1])), "stop[0]: expected a string that is not empty, found 1"),
        (with("stop", json!(true)), "stop: expected a string or an array of strings, found true"),
        (
            with("reasoning_effort", json!(true)),
            "reasoning_effort: expected a word such as none, minimal, low, medium, high or xhigh, found true",
        ),
        (with("response_format", json!("json")), "response_format: expected an object, found `json`"),
        (
            with("response_format", json!({"type": ""})),
            "response_format.type: expected text, json_object, json_schema or another type, found an empty string",
        ),
        (
            with("response_format", json!({"type": "json_schema", "json_schema": {"name": "a"}})),
            "response_format.json_schema.schema: expected a JSON schema, found nothing",
        ),
        (
            with("response_format", schema(json!([]))),
            "response_format.json_schema.schema: expected an object, found an empty array",
        ),
        (with("tools", json!([{"function": {}}])), "tools[0].function.name: expected a string, found nothing"),
        (
            with("tools", json!([{"function": {"name": "a"}}, {"function": {"name": "a"}}])),
            "tools: expected each name only once, found `a` again",
        ),
        (
            with("tools", json!([{"function": {"name": "a", "parameters": []}}])),
            "tools[0].function.parameters: expected an object, found an empty array",
        ),
        (with("tool_choice", json!("required")), "tool_choice: expected `tools` beside it, found none to call"),
        (
            with("tool_choice", json!({"type": "function", "function": {"name": "b"}})),
            "tool_choice: expected the name of a function in `tools`, found `b`",
        ),
    ] {
        assert_eq!(fault(&body), expected, "{body}");
    }
}

#[test]
fn what_is_not_understood_is_named_at_every_depth_and_once() {
    let request = parsed(&json!({
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a", "annotations": []},
                {"type": "text", "text": "b", "annotations": [], "empty": null}]},
            {"role": "assistant", "content": "x", "reasoning_content": "hm", "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": "{}", "x": 1},
                    "extra_content": {"google": {"thought_signature": "s"}}},
                {"id": "b", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"other": 1}},
            ]},
            {"role": "assistant", "content": "y", "reasoning_content": "hm", "audio": {"id": "z"}},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "strict": true},
            "cache_control": {"type": "ephemeral"}}],
        "response_format": {"type": "json_schema",
            "json_schema": {"name": "n", "schema": {"anything": 1}, "description": "d"}},
        "stream": true, "top_k": "many", "extra_body": {},
    }));
    assert_eq!(
        request.unread,
        [
            "extra_body",
            "messages[].audio",
            "messages[].content[].annotations",
            "messages[].reasoning_content",
            "messages[].tool_calls[].extra_content",
            "messages[].tool_calls[].function.x",
            "response_format.json_schema.description",
            "stream",
            "tools[].function.strict",
            "top_k",
        ]
    );
    assert_eq!(request.messages[1].tool_calls[0].thought_signature.as_deref(), Some("s"));
    assert_eq!(request.tools[0].cache_control, Some(json!({"type": "ephemeral"})));
}

#[test]
fn what_is_not_understood_is_named_within_bounds() {
    let many: serde_json::Map<String, Value> =
        (0..1_000).map(|n| (format!("{n}{}", "é".repeat(90)), json!(1))).collect();
    let mut body = with("seed", Value::Null);
    body.as_object_mut().unwrap().extend(many);
    let unread = parsed(&body).unread;
    assert!(unread.len() == 41 && unread.iter().all(|path| path.chars().count() <= 60), "{unread:?}");
    assert_eq!(unread.last().map(String::as_str), Some("and more"));
}

#[test]
fn files_and_sounds_that_come_along_are_understood() {
    let part = |part: Value| {
        let body = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, part]}]});
        parsed(&body).messages[0].content[1].clone()
    };
    let file = |file: Value| part(json!({"type": "file", "file": file}));
    let of = |url: &str, name: Option<&str>| ContentPart::File { url: url.to_owned(), name: name.map(str::to_owned) };
    let along = "data:application/pdf;base64,QUJD";
    assert_eq!(file(json!({"file_data": along, "filename": "a.pdf"})), of(along, Some("a.pdf")));
    assert_eq!(file(json!({"file_data": "https://e.com/a", "filename": null})), of("https://e.com/a", None));
    let sound = json!({"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}});
    assert_eq!(part(sound), ContentPart::Audio { data: "QUJD".to_owned(), format: "wav".to_owned() });
    // Of any other form it is for targets of its own dialect.
    for other in [json!({"file_id": "f"}), json!({"file_data": "QUJD"}), json!({"file_data": along, "x": 1}), json!(1)]
    {
        assert_eq!(file(other), ContentPart::Other("file".to_owned()));
    }
}

#[test]
fn what_only_this_dialect_knows_is_read_by_its_type() {
    let request = parsed(&json!({
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]},
            {"role": "assistant", "content": null,
                "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
            {"role": "assistant", "audio": {"id": "z"}},
            {"role": "user", "content": [{"type": "image_url", "image_url": "https://example.com/a.png"}]},
        ],
        "tools": [{"type": "web_search"}],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {}},
        "response_format": {"type": "grammar", "grammar": "x"},
        "reasoning_effort": 512,
    }));
    // Without data it is no sound.
    assert_eq!(request.messages[0].content, [ContentPart::Other("input_audio".to_owned())]);
    assert_eq!(request.messages[1].other_calls, ["custom"]);
    assert_eq!(request.other_tools, ["web_search"]);
    assert_eq!(request.tool_choice, Some(ToolChoice::Other("allowed_tools".to_owned())));
    assert_eq!(request.response_format, Some(ResponseFormat::Other("grammar".to_owned())));
    assert_eq!(request.reasoning_effort.as_deref(), Some("512"));
}

#[test]
fn a_body_is_kept_as_it_was_written() {
    let text = r#"{"prompt":"\u00e9","temperature":1.0,"seed":1}"#;
    assert_eq!(&*ChatRequest::parse_text(text).unwrap().0.raw, text);
    assert!(ChatRequest::parse_text("{").unwrap_err().to_string().starts_with("request: cannot be read: EOF"));
}

#[test]
fn a_schema_that_does_not_compile_is_a_fault_of_its_field() {
    for schema in [json!({"type": "strnig"}), json!({"required": "name"}), json!({"$ref": "#/$defs/missing"})] {
        let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
        let found = fault(&with("response_format", format));
        assert!(found.starts_with("response_format.json_schema.schema: expected a JSON schema: "), "{found}");
    }
}

#[test]
fn the_schema_is_kept_compiled_for_validation() {
    let schema = json!({"type": "object", "required": ["a"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let (_, validator) = ChatRequest::parse_with_schema(&with("response_format", format)).unwrap();
    let validator = validator.unwrap();
    assert!(validator.check(&json!({"a": 1})).is_ok() && validator.check(&json!({})).is_err());
}

#[test]
fn a_message_quotes_no_more_than_a_short_word() {
    let secret = "the patient is called Rosalind";
    for body in [json!(secret), with("temperature", json!(secret)), saying(json!({"role": secret, "content": secret}))]
    {
        assert!(!fault(&body).contains("Rosalind"), "{}", fault(&body));
    }
}

#[test]
fn deep_nesting_is_a_fault_and_no_overflow() {
    let mut deep = json!("x");
    for _ in 0..2_000 {
        deep = json!([deep]);
    }
    assert_eq!(fault(&with("anything", deep)), "request: expected at most 128 levels of nesting");
    let mut fine = json!("x");
    for _ in 0..100 {
        fine = json!([fine]);
    }
    parsed(&with("anything", fine));
}

/// Any JSON, with the names that the parser looks for among the keys.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop::sample::select(WORDS).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        let key = prop_oneof![4 => prop::sample::select(WORDS).prop_map(String::from), 1 => ".{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..8).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

const WORDS: &[&str] = &[
    "messages",
    "prompt",
    "role",
    "user",
    "assistant",
    "tool",
    "function",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "functions",
    "name",
    "arguments",
    "tools",
    "tool_choice",
    "stop",
    "response_format",
    "json_schema",
    "schema",
    "$ref",
    "#",
    "properties",
    "pattern",
    "max_tokens",
    "temperature",
    "n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_body_is_read_or_refused(body in any_json()) {
        let _ = ChatRequest::parse(&body);
    }

    #[test]
    fn any_member_is_read_or_refused(name in prop::sample::select(WORDS), value in any_json()) {
        let _ = ChatRequest::parse(&with(name, value.clone()));
        let _ = ChatRequest::parse(&saying(json!({"role": "assistant", "content": value})));
    }

    #[test]
    fn any_schema_is_compiled_or_refused(schema in any_json(), answer in any_json()) {
        if let Ok(validator) = crate::domain::json_schema::Schema::compile(&schema) {
            let _ = validator.check(&answer);
        }
    }
}

#[test]
fn a_conversation_shows_whether_its_calls_have_their_results() {
    let call = |id: &str| {
        json!({"role": "assistant", "tool_calls": [
        {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}]})
    };
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "1"});
    let said = json!({"role": "user", "content": "Hi"});
    for (messages, expected) in [
        (vec![said.clone()], true),
        (vec![said.clone(), call("a"), result("a"), said.clone()], true),
        (vec![said.clone(), call("a")], false),
        (vec![said.clone(), call("a"), said.clone(), result("a")], false),
        (vec![said.clone(), result("a")], false),
        (vec![said.clone(), call("a"), result("b")], false),
    ] {
        let request = ChatRequest::parse(&json!({"messages": messages})).unwrap();
        assert_eq!(request.calls_have_their_results(), expected, "{:?}", request.messages);
    }
}

#[test]
fn rules_for_the_answer_are_read_and_kept_from_the_targets() {
    let text = r#"{"prompt":"x","validate":{"max_chars":9,"language":"de","finish":"any"},"seed":1}"#;
    let request = ChatRequest::read_text(text).unwrap();
    let own = request.validate.as_deref().unwrap();
    assert_eq!((own.max_chars, own.min_chars, own.language.as_ref().map(Vec::len)), (Some(9), None, Some(1)));
    assert_eq!((&*request.raw, request.unread.as_slice()), (r#"{"prompt":"x","seed":1}"#, [].as_slice()));
    let fault = |validate: Value| ChatRequest::parse(&json!({"prompt": "x", "validate": validate})).unwrap_err();
    for (validate, expected) in [
        (json!("strict"), "validate: expected an object"),
        (json!({"max_char": 1}), "validate: \"max_char\" is no rule of a request; expected non_empty, min_chars"),
        (json!({"min_chars": -1}), "validate.min_chars: expected a whole number from 0"),
        (json!({"min_chars": 9, "max_chars": 3}), "validate: min_chars is 9, which is more than max_chars, 3"),
        (json!({"json": "yes"}), "validate.json: expected true or false"),
        (json!({"finish": "soon"}), "validate.finish: expected said or known or any"),
        (json!({"language": ["de", "klingon"]}), "validate.language: \"klingon\" is no language that is told"),
        (json!({"script": "runes"}), "validate.script: \"runes\" is no script that is told"),
        (json!({"raise_cap": "twice"}), "validate.raise_cap: expected never or reasoning or always"),
        (json!({"filter": "off"}), "validate.filter: expected any or ran"),
        (json!({"served": true}), "validate.served: expected any or asked"),
        (json!({"required_patterns": ["("]}), "validate.required_patterns: pattern 1 does not compile"),
        (json!({"forbidden_patterns": ["\\w{900}"]}), "it takes more than 256 KB when it is compiled"),
        (json!({"forbidden_patterns": vec!["x"; 11]}), "expected at most 10 patterns, found 11"),
    ] {
        let told = fault(validate).to_string();
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let vectors = ChatRequest::parse(&json!({"input": "x", "validate": {}})).unwrap_err();
    assert!(vectors.to_string().starts_with("validate: expected nothing here"), "{vectors}");
}
