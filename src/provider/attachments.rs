//! Files and sounds in messages, in each dialect: what is written, or why the request is for another rung.

use super::checks::{Chat, parsed, spoken};
use super::quirks::QuirkSettings;
use crate::domain::decide::Ineligible;
use crate::domain::{Capabilities, ChatRequest};
use serde_json::{Value, json};

const PDF: &str = "data:application/pdf;base64,QUJD";

fn asking(parts: &[Value]) -> ChatRequest {
    let mut content = vec![json!({ "type": "text", "text": "What is this?" })];
    content.extend_from_slice(parts);
    parsed(json!({ "messages": [{ "role": "user", "content": content }] }))
}

fn file(url: &str, name: &str) -> Value {
    json!({ "type": "file", "file": { "file_data": url, "filename": name } })
}

fn sound(format: &str) -> Value {
    json!({ "type": "input_audio", "input_audio": { "data": "QUJD", "format": format } })
}

/// Whether this stands anywhere in a body.
fn holds(body: &Value, wanted: &Value) -> bool {
    body == wanted
        || match body {
            Value::Array(items) => items.iter().any(|item| holds(item, wanted)),
            Value::Object(members) => members.values().any(|member| holds(member, wanted)),
            _ => false,
        }
}

fn written(dialect: &str, request: &ChatRequest) -> Result<Value, String> {
    let adapter = spoken(dialect, None, "https://llm.example/v1", &QuirkSettings::default());
    match adapter.chat(request, "m", &Capabilities::default()) {
        Ok(wire) => Ok(serde_json::from_slice(&wire.body).unwrap()),
        Err(Ineligible::Unsupported(why)) => Err(why),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn files_and_sounds_are_written_in_the_words_of_the_dialect() {
    for (dialect, part, expected) in [
        ("openai", file(PDF, "a.pdf"), file(PDF, "a.pdf")),
        ("openai", sound("wav"), sound("wav")),
        ("azure_openai", sound("mp3"), sound("mp3")),
        (
            "openai_responses",
            file(PDF, "a.pdf"),
            json!({ "type": "input_file", "file_data": PDF, "filename": "a.pdf" }),
        ),
        (
            "openai_responses",
            file("https://e.com/a", "a.pdf"),
            json!({ "type": "input_file", "file_url": "https://e.com/a", "filename": "a.pdf" }),
        ),
        (
            "anthropic",
            file(PDF, "a.pdf"),
            json!({ "type": "document", "title": "a.pdf",
                "source": { "type": "base64", "media_type": "application/pdf", "data": "QUJD" } }),
        ),
        (
            "anthropic",
            file("data:text/plain;charset=utf-8;base64,QUJD", "a"),
            json!({ "type": "document", "title": "a",
                "source": { "type": "text", "media_type": "text/plain", "data": "ABC" } }),
        ),
        (
            "anthropic",
            file("https://e.com/a.pdf", "a"),
            json!({ "type": "document", "title": "a", "source": { "type": "url", "url": "https://e.com/a.pdf" } }),
        ),
        ("gemini", file(PDF, "a.pdf"), json!({ "inlineData": { "mimeType": "application/pdf", "data": "QUJD" } })),
        ("gemini", sound("MP3"), json!({ "inlineData": { "mimeType": "audio/mp3", "data": "QUJD" } })),
        (
            "bedrock",
            file(PDF, "an invoice_7.pdf"),
            json!({ "document": { "format": "pdf", "name": "an invoice-7", "source": { "bytes": "QUJD" } } }),
        ),
    ] {
        let body = written(dialect, &asking(&[part])).unwrap();
        assert!(holds(&body, &expected), "{dialect}: {body} has no {expected}");
    }
}

#[test]
fn what_a_dialect_cannot_carry_is_for_another_rung() {
    let web = || file("https://e.com/a.pdf", "a");
    for (dialect, part, why) in [
        ("openai_responses", sound("wav"), "audio"),
        ("anthropic", sound("wav"), "audio"),
        ("anthropic", file("data:application/msword;base64,QUJD", "a"), "files of type application/msword"),
        ("anthropic", file("data:text/plain;base64,//8=", "a"), "files of text that are not base64 of UTF-8"),
        ("anthropic", file("data:application/pdf,raw", "a"), "files that are not base64"),
        ("gemini", web(), "files by web address"),
        ("gemini", sound("opus"), "sounds of type opus"),
        ("bedrock", web(), "files by web address"),
        ("bedrock", sound("wav"), "audio"),
        ("bedrock", file("data:application/zip;base64,QUJD", "a"), "files of type application/zip"),
        ("cohere", file(PDF, "a"), "files"),
        ("ollama", file(PDF, "a"), "files"),
        ("ollama", sound("wav"), "audio"),
    ] {
        assert_eq!(written(dialect, &asking(&[part])), Err(why.to_owned()), "{dialect}");
    }
    let alone = parsed(json!({ "messages": [{ "role": "user", "content": [file(PDF, "a")] }] }));
    assert_eq!(written("bedrock", &alone), Err("files without words beside them".to_owned()));
    let result = |dialect: &str| {
        let call = json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } });
        let request = parsed(json!({
            "messages": [
                { "role": "user", "content": "Hi" },
                { "role": "assistant", "content": null, "tool_calls": [call] },
                { "role": "tool", "tool_call_id": "c", "content": [file(PDF, "a")] },
            ],
            "tools": [{ "type": "function", "function": { "name": "f" } }],
        }));
        written(dialect, &request).err()
    };
    assert_eq!((result("gemini"), result("anthropic")), (Some("files in tool results".to_owned()), None));
}

#[test]
fn documents_of_one_request_have_names_of_their_own() {
    let body = written("bedrock", &asking(&[file(PDF, "a.pdf"), file(PDF, "a.txt"), file(PDF, "")])).unwrap();
    let names: Vec<&str> =
        (1..=3).filter_map(|n| body.pointer(&format!("/messages/0/content/{n}/document/name"))?.as_str()).collect();
    assert_eq!(names, ["a", "a 2", "document"]);
}

#[test]
fn a_model_without_files_or_sounds_is_passed() {
    let capabilities = Capabilities { files: Some(false), audio: Some(false), ..Capabilities::default() };
    let by_id = json!({ "type": "file", "file": { "file_id": "file-1" } });
    let odd = json!({ "type": "input_audio", "input_audio": { "data": "QUJD" } });
    for (part, lack) in [(file(PDF, "a"), "files"), (sound("wav"), "audio"), (by_id, "files"), (odd, "audio")] {
        let request = asking(&[part]);
        for dialect in ["openai", "gemini"] {
            let adapter = spoken(dialect, None, "https://llm.example/v1", &QuirkSettings::default());
            let refused = adapter.chat(&request, "m", &capabilities).err();
            assert_eq!(refused, Some(Ineligible::Unsupported(lack.to_owned())), "{dialect}");
        }
    }
}
