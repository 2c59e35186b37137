use super::*;
use crate::domain::{ContentPart, Role};
use proptest::prelude::*;
use serde_json::json;

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn classify() -> Defaults {
    Defaults {
        request: Some(RequestTemplate::of_prompt(template("Classify: {text}"), None)),
        system: Some(template("Be brief.")),
        max_tokens: Some(5),
        temperature: Some(0.0),
        response_format: Some(json!({ "type": "json_object" })),
    }
}

fn read(defaults: &Defaults, body: &str) -> Result<(String, bool), String> {
    let request = defaults.read(body).map_err(|error| error.to_string())?;
    Ok((request.raw.to_string(), request.is_prompt))
}

#[test]
fn a_row_that_holds_just_its_values_becomes_the_whole_request() {
    assert_eq!(
        read(&classify(), r#"{"vars": {"text": "good \"tea\"", "id": 7}}"#),
        Ok((
            r#"{"messages":[{"role":"system","content":"Be brief."},"#.to_owned()
                + r#"{"role":"user","content":"Classify: good \"tea\""}],"#
                + r#""max_tokens":5,"temperature":0.0,"response_format":{"type":"json_object"}}"#,
            true
        ))
    );
    let bare = Defaults { request: classify().request, ..Defaults::default() };
    let row = r#"{"vars": {"text": 1.50}, "review": "mine", "top_k": 5}"#;
    assert_eq!(read(&bare, row), Ok((r#"{"prompt":"Classify: 1.50","top_k":5}"#.to_owned(), true)));
}

#[test]
fn a_member_of_the_request_goes_before_the_template_and_that_before_a_default() {
    let whole = r#"{"messages":[{"role":"developer","content":"Mine."},{"role":"user","content":"{text}"}],"seed":1,
        "max_tokens":50,"gateway":"x"}"#;
    let defaults = Defaults { request: Some(RequestTemplate::parse(whole).unwrap()), ..classify() };
    let of = |body: &str| serde_json::from_str::<Value>(&read(&defaults, body).unwrap().0).unwrap();
    let found = of(r#"{"vars": {"text": "a"}, "seed": 2, "response_format": {"type": "text"}, "temperature": null}"#);
    let messages = json!([{"role": "developer", "content": "Mine."}, {"role": "user", "content": "a"}]);
    let expected = json!({"messages": messages, "seed": 2, "max_tokens": 50, "gateway": "x", "temperature": 0.0,
        "response_format": {"type": "text"}});
    assert_eq!(found, expected);
    // What it asks itself is asked, with the instructions of the route if it has none.
    let said = |body: &str| {
        let messages = defaults.read(body).unwrap().messages;
        messages.iter().map(|message| (message.role, message.text())).collect::<Vec<_>>()
    };
    let brief = (Role::System, "Be brief.".to_owned());
    assert_eq!(said(r#"{"prompt": "Hi"}"#), [brief.clone(), (Role::User, "Hi".to_owned())]);
    let own = r#"{"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 9}"#;
    assert_eq!(said(own), [brief, (Role::User, "Hi".to_owned())]);
    assert_eq!(defaults.read(own).unwrap().max_tokens, Some(9));
    let with_system = r#"{"messages": [{"role": "system", "content": "Mine"}, {"role": "user", "content": "Hi"}]}"#;
    assert_eq!(said(with_system)[0].1, "Mine");
}

#[test]
fn what_cannot_be_completed_is_told_by_its_name() {
    let with_variable = Defaults { system: Some(template("Speak {language}.")), ..Defaults::default() };
    let unused = format!("vars: {}", unused_vars().reason);
    let missing = "is missing, and the template of the route names it";
    for (defaults, body, fault) in [
        (&classify(), r#"{"vars": {"txt": "a"}}"#, format!("vars.text: {missing}")),
        (&classify(), r#"{"max_tokens": 5}"#, format!("vars.text: {missing}")),
        (&classify(), r#"{"vars": {"text": "a"}, "prompt": "Hi {text}"}"#, unused.clone()),
        (
            &classify(),
            r#"{"vars": {"text": ""}, "temperature": 3}"#,
            "temperature: expected a number from 0 to 2, \
          found 3"
                .to_owned(),
        ),
        (&Defaults::default(), r#"{"vars": {"text": "a"}}"#, unused.clone()),
        (&Defaults::default(), r#"{"vars": {"text": "a"}, "prompt": "Hi"}"#, unused.clone()),
        (&Defaults::default(), r#"{"vars": {"text": "a"}, "input": "Hi"}"#, unused.clone()),
        (&with_variable, r#"{"prompt": "Hi"}"#, format!("vars.language: {missing}")),
        (
            &with_variable,
            r#"{"vars": {"language": "de"}}"#,
            "request: expected `messages`, or `prompt` as short for one \
          user message, or `input` for embeddings, found none"
                .to_owned(),
        ),
        (&classify(), r#"{"prompt": 5}"#, "prompt: expected a string that is not empty, found 5".to_owned()),
        (
            &classify(),
            r#"{"messages": []}"#,
            "messages: expected at least one message, found an empty array".to_owned(),
        ),
    ] {
        assert_eq!(read(defaults, body), Err(fault), "{body}");
    }
    let own = r#"{"vars": {"language": "German"}, "prompt": "Hi"}"#;
    assert_eq!(with_variable.read(own).unwrap().messages[0].text(), "Speak German.");
    // A column that happens to have the name.
    assert_eq!(
        read(&Defaults::default(), r#"{"prompt": "Hi", "vars": "x"}"#).unwrap().0,
        r#"{"prompt": "Hi", "vars": "x"}"#
    );
}

#[test]
fn a_request_for_embeddings_takes_no_part_of_a_conversation() {
    let defaults = Defaults { request: Some(RequestTemplate::parse(r#"{"input":"{text}"}"#).unwrap()), ..classify() };
    assert_eq!(read(&defaults, r#"{"vars": {"text": "a"}}"#).unwrap().0, r#"{"input":"a"}"#);
    assert_eq!(read(&defaults, r#"{"input": ["b"]}"#).unwrap().0, r#"{"input":["b"]}"#);
}

#[test]
fn a_value_that_is_named_often_does_not_fill_the_memory() {
    let defaults = Defaults {
        request: Some(RequestTemplate::of_prompt(template(&"{text}".repeat(100)), None)),
        ..Defaults::default()
    };
    let body = json!({ "vars": { "text": "x".repeat(1 << 20) } }).to_string();
    assert_eq!(read(&defaults, &body), Err(too_large().to_string()));
    let growth = defaults.growth();
    assert_eq!(growth, Growth { bytes: 11, uses: 100 });
    assert!(growth.weight(&body) > 200 << 20);
    assert_eq!(Growth::default().weight(&body), bulk::weight(&body));
}

#[test]
fn a_sketch_has_the_values_for_a_prompt() {
    let request =
        sketch(r#"{"vars": {"text": "a", "n": 1}, "tools": [{"function": {"name": "f"}}]}"#).unwrap().unwrap();
    assert_eq!(request.messages[0].content, [ContentPart::Text(r#"{"text": "a", "n": 1}"#.to_owned())]);
    assert_eq!(request.tools.len(), 1);
    for other in [r#"{"vars": {}, "prompt": "Hi"}"#, r#"{"vars": 1}"#, "[]", "{}"] {
        assert!(sketch(other).is_none(), "{other}");
    }
}

proptest! {
    #[test]
    fn nothing_is_added_without_defaults_and_no_body_is_lost_with_them(prompt in ".+", cap in 1_i64..1000) {
        let body = json!({ "prompt": prompt, "max_tokens": cap }).to_string();
        let plain = Defaults::default().read(&body).unwrap();
        prop_assert_eq!(&*plain.raw, &body);
        let with = classify().read(&body).unwrap();
        prop_assert_eq!(with.max_tokens, Some(cap));
        prop_assert_eq!(with.messages.last().unwrap().text(), prompt);
        prop_assert!(with.is_prompt);
        let grown = classify().growth();
        prop_assert!(with.raw.len() <= body.len() + grown.bytes + grown.uses * body.len() + 200);
    }
}
