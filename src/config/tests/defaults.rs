//! What a route adds to requests.

use super::*;

/// A route with these additional lines.
fn route(lines: &str) -> Given {
    given(&format!("{LOCAL}[routes.default]\nrungs = [\"local/a\"]\n{lines}"))
}

#[test]
fn what_a_route_adds_is_read() {
    let defaults = |lines: &str| route(lines).config().routes["default"].route.defaults.clone();
    assert!(defaults("").is_empty());
    let all = defaults(
        "prompt = \"Classify: {text}\"\nsystem = \"Be brief.\"\nmax_tokens = 5\ntemperature = 0\n\
         response_format = { type = \"json_schema\", json_schema = { name = \"label\", \
         schema = { type = \"object\" } } }",
    );
    let request = all.read(r#"{"vars": {"text": "it"}}"#).unwrap();
    assert_eq!((request.max_tokens, request.temperature), (Some(5), Some(0.0)));
    assert_eq!(
        request.messages.iter().map(crate::domain::Message::text).collect::<Vec<_>>(),
        ["Be brief.", "Classify: it"]
    );
    assert!(request.schema().is_some());
    let whole = defaults(
        "template = { messages = [{ role = \"user\", content = \"Is {text}?\" }], seed = 1, max_tokens = \"{cap}\" }",
    );
    let request = whole.read(r#"{"vars": {"text": "it", "cap": 7}}"#).unwrap();
    assert_eq!((request.seed, request.max_tokens), (Some(1), Some(7)));
}

#[test]
fn what_makes_no_request_is_a_fault_with_its_key() {
    let braces = "`{{` and `}}` stand for braces";
    let whole = "a request with names in braces, such as { prompt = \"Classify: {text}\" }";
    let text = "a text such as \"Classify: {text}\"";
    for (lines, fault) in [
        ("prompt = \"Is {text?\"", format!("prompt: `{{text?` is not a name in braces; {braces}; expected {text}")),
        ("prompt = \" \"", format!("prompt: is empty; expected {text}")),
        ("prompt = 7", format!("prompt: is 7; expected {text}")),
        (
            "system = \"Answer {\\\"label\\\": 1}\"",
            format!("system: `{{\"label\": 1}}` is not a name in braces; {braces}; expected {text}"),
        ),
        (
            "prompt = \"{a}\"\ntemplate = { prompt = \"{a}\" }",
            "prompt: there is a template too; expected only one of the \
          two"
            .to_owned(),
        ),
        (
            "template = \"x\"",
            "template: is not a table; expected a whole request, such as { messages = […] }".to_owned(),
        ),
        (
            "template = { messages = [{ role = \"user\", content = \"}\" }] }",
            format!("template: messages[0].content: a `}}` stands alone; {braces}; expected {whole}"),
        ),
        (
            "template = { messages = [{ role = \"boss\", content = \"{a}\" }] }",
            format!(
                "template.messages[0].role: expected one of system, developer, user, assistant, tool, found `boss`; \
                 expected {whole}"
            ),
        ),
        (
            "template = { seed = 1 }",
            format!(
                "template: expected `messages`, or `prompt` as short for one user message, or `input` for embeddings, \
                 found none; expected {whole}"
            ),
        ),
        ("max_tokens = 0", "max_tokens: is 0; expected a whole number from 1 to 1000000000".to_owned()),
        ("temperature = 2.5", "temperature: is 2.5; expected a number from 0 to 2".to_owned()),
        ("temperature = \"hot\"", "temperature: is \"hot\"; expected a number from 0 to 2".to_owned()),
        (
            "response_format = { type = \"json_schema\" }",
            "response_format.json_schema: expected an object with `name` and `schema`, \
             found nothing; expected a form of answers such as { type = \"json_object\" }"
                .to_owned(),
        ),
    ] {
        assert_eq!(route(lines).faults(), [format!("routes.default.{fault}")], "{lines}");
    }
}

#[test]
fn a_template_in_a_file_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.json");
    let lines = format!("template_file = {:?}", file.display().to_string());
    let fault = |content: &str| {
        std::fs::write(&file, content).unwrap();
        route(&lines).faults().concat()
    };
    let place = format!("routes.default.template_file: {}: ", file.display());
    assert!(
        fault("{\"a\":").starts_with(&format!("{place}expected JSON: EOF while parsing a value at line 1 column 5"))
    );
    assert!(fault("{\"prompt\":\"{\"}").starts_with(&format!("{place}prompt: `{{` is not a name in braces")));
    std::fs::remove_file(&file).unwrap();
    assert!(route(&lines).faults().concat().starts_with(&format!("{place}No such file")));
    std::fs::write(&file, "{\"prompt\": \"Is {text}?\"}").unwrap();
    assert!(route(&lines).config().routes["default"].route.defaults.request.is_some());
}

#[test]
fn a_template_that_names_no_value_is_warned_of() {
    let warnings = route("prompt = \"Classify\"").config().warnings;
    assert!(warnings.concat().contains("routes.default.prompt"), "{warnings:?}");
    assert!(warnings.concat().contains("names no value"), "{warnings:?}");
}
