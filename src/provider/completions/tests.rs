//! Requests, and answers whole and in pieces.

use super::*;
use crate::domain::Finish;
use crate::provider::checks::{Chat, answer, at, encoded, headers, long_conversation, parsed, usage};
use crate::provider::wire::Delivery;

fn completions() -> &'static dyn Adapter {
    at(&DIALECT, "http://127.0.0.1:8000/v1")
}

#[test]
fn one_question_is_a_prompt() {
    let body = json!({"messages": [{"role": "user",
        "content": [{"type": "text", "text": "Once"}, {"type": "text", "text": "upon"}]}],
        "temperature": 0.5, "top_k": 3, "seed": 7, "stop": ["END"], "logit_bias": {"7": 5}, "reasoning_effort": "low",
        "presence_penalty": 0.5, "user": "ann"});
    let (sent, dropped) = encoded(completions(), &parsed(body), &Capabilities::default());
    assert_eq!(
        sent,
        json!({"model": "the-model", "prompt": "Once\nupon", "max_tokens": 1024, "temperature": 0.5, "top_k": 3,
            "seed": 7,
            "stop": ["END"], "logit_bias": {"7": 5}, "presence_penalty": 0.5, "user": "ann"})
    );
    assert_eq!(dropped, ["max_tokens 1024 added", "reasoning_effort"]);
    let model = Capabilities { max_output_tokens: Some(50), ..Capabilities::default() };
    assert_eq!(encoded(completions(), &parsed(json!({"prompt": "Hi"})), &model).0["max_tokens"], 50);
    assert_eq!(encoded(completions(), &parsed(json!({"prompt": "Hi", "max_tokens": 5})), &model).0["max_tokens"], 5);
}

#[test]
fn anything_but_one_question_is_for_another_rung() {
    let refused =
        |request: &ChatRequest| completions().chat(request, "m", &Capabilities::default()).unwrap_err().to_string();
    assert!(refused(&long_conversation()).contains(ONE_QUESTION));
    for (body, why) in [
        (json!({"messages": [{"role": "system", "content": "Hi"}]}), ONE_QUESTION),
        (
            json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}),
            ONE_QUESTION,
        ),
        (
            json!({"messages": [{"role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://x/a.png"}}]}]}),
            ONE_QUESTION,
        ),
        (json!({"prompt": "Hi", "tools": [{"type": "function", "function": {"name": "f"}}]}), "tools"),
        (json!({"prompt": "JSON", "response_format": {"type": "json_object"}}), "json_object"),
        (
            json!({"prompt": "Hi",
                "response_format": {"type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}}}}),
            "json_schema",
        ),
    ] {
        assert!(refused(&parsed(body.clone())).contains(why), "{body}");
    }
}

#[test]
fn an_answer_is_a_text_whole_or_in_pieces() {
    let read = answer(
        completions(),
        &json!({"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": [
        {"text": "Hello", "index": 0, "logprobs": null, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}),
    );
    assert_eq!(
        (read.text.as_deref(), read.finish, read.id.as_deref()),
        (Some("Hello"), Finish::Length, Some("cmpl-1"))
    );
    assert_eq!(read.usage, usage([3, 0, 0, 0, 2, 0]));
    let pieces = concat!(
        "data: {\"id\":\"x\",\"model\":\"m\",\"choices\":[{\"text\":\"Hel\",\"index\":0,\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"text\":\"lo\",\"index\":0,\"finish_reason\":\"stop\"}]}\n\n",
        "data: [DONE]\n\n"
    );
    let headers = headers(&[]);
    let streamed = |text: &str| {
        completions()
            .decode(&WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, text.as_bytes()) })
    };
    assert_eq!(streamed(pieces).unwrap().text.as_deref(), Some("Hello"));
    assert!(streamed(&pieces[..pieces.len() / 2]).is_err());
}
