mod any_request;
mod failures;
mod requests;
mod usage;

use super::*;
use crate::domain::ErrorClass::*;
use crate::domain::Scope::{Key, Model, Provider, Request};
use crate::domain::Usage;
use crate::domain::{Beside, Finish, ToolCall, Unit, UsageSource};
use crate::provider::checks::{self, Case, answer, case, check_failures, check_finishes, usage};
use crate::provider::{anthropic, gemini};
use reqwest::header::HeaderMap;
use serde_json::Value;

fn at(base_url: &str) -> &'static dyn Adapter {
    checks::at(&DIALECT, base_url)
}

fn openai() -> &'static dyn Adapter {
    at("https://api.openai.com/v1")
}

fn server() -> &'static dyn Adapter {
    at("http://127.0.0.1:8000/v1")
}

// === failures ===

#[test]
fn an_answer_is_read_whole() {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18", "service_tier": "default",
        "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hi", "refusal": null}}],
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
        vectors: None,
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
    let usual = json!({"content": null,
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
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
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": logprobs, "native_finish_reason": "end",
            "message": {
            "role": "assistant", "content": "Hi", "refusal": null, "annotations": annotations,
            "reasoning_content": "Hmm",
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
    let parts = json!([{"type": "text", "text": "See "}, {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "this"}]);
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

/// Texts that gateways write beside a whole answer, and whether they say that generating failed.
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
    let anthropic = checks::at(&anthropic::DIALECT, "https://api.anthropic.com");
    let gemini = checks::at(&gemini::DIALECT, "https://generativelanguage.googleapis.com");
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
    // A part that broke off is not an answer, and neither is one without content.
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
    let anthropic = checks::at(&anthropic::DIALECT, "https://api.anthropic.com");
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
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish,
            "logprobs": {"content": [{"token": "x", "logprob": -1.0}]}}]})
    };
    let call = |index: u32, id: Option<&str>, name: Option<&str>, arguments: &str| {
        json!({"tool_calls": [{"index": index, "id": id, "type": "function",
            "function": {"name": name, "arguments": arguments}}]})
    };
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
