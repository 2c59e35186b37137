//! Legacy text completions, from the server's side.

use super::openai::{asked, fail, finish_reason, limit_headers};
use crate::simulate::api::Api;
use crate::simulate::exchange::{Answer, Ask, Call, Failure, Finish, Problem, StreamOptions, parse, push_json};
use crate::simulate::prompt::{Text, conversation};
use crate::simulate::quota::Levels;
use crate::simulate::stream::{Stream, pieces};
use crate::simulate::wait::Told;
use hyper::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::io::Write;
use std::time::SystemTime;

/// Text completions: `/v1/completions`.
pub(crate) struct Completions;

impl Api for Completions {
    fn name(&self) -> &'static str {
        "completions"
    }

    fn base_path(&self) -> &'static str {
        "/v1"
    }

    fn id_header(&self) -> Option<&'static str> {
        Some("x-request-id")
    }

    fn request_id(&self, run: u32, seq: u64) -> String {
        format!("cmpl_{run:08x}{seq:016x}")
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
        if call.path == "/v1/completions" { read(call.body) } else { Err(Problem::UnknownPath) }
    }

    fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        write(answer)
    }

    fn stream(&self, answer: &Answer<'_>) -> Stream {
        stream(answer)
    }

    fn fail(&self, problem: &Problem, told: &Told, model: &str, _id: &str) -> Failure {
        fail(problem, told, model)
    }

    fn cost_afterwards(&self, output_tokens: u64) -> u64 {
        output_tokens
    }

    fn limit_headers(&self, levels: &Levels, _wall: SystemTime, headers: &mut HeaderMap) {
        limit_headers(levels, headers);
    }
}

/// The members that are read of a body, and those of chats, which have no place here.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    prompt: Option<Text<'a>>,
    max_tokens: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    messages: Option<IgnoredAny>,
    response_format: Option<IgnoredAny>,
    tools: Option<IgnoredAny>,
}

fn read(body: &[u8]) -> Result<Ask<'_>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: Body<'_> = parse(body)?;
    let Some(model) = body.model.filter(|model| !model.0.is_empty()) else {
        return wrong("you must provide a model parameter");
    };
    let Some(prompt) = body.prompt else { return wrong("you must provide a prompt") };
    if body.messages.is_some() || body.response_format.is_some() || body.tools.is_some() {
        return wrong("Unrecognized request argument supplied: this is not a chat");
    }
    let (hash, input_tokens, last_user) = conversation(&[], vec![(true, prompt)]);
    // Without a cap the server stops early.
    let max_output = Some(body.max_tokens.unwrap_or(16));
    Ok(Ask {
        model: model.0,
        prompt: hash,
        input_tokens,
        max_output,
        json: None,
        last_user,
        embed: None,
        cache: None,
        tier: None,
        logprobs: false,
        stream: asked(body.stream, body.stream_options),
    })
}

fn stream(answer: &Answer<'_>) -> Stream {
    let chunk = |choices: Value, usage: Value| {
        json!({"id": format!("cmpl-{}", answer.id), "object": "text_completion", "created": answer.created,
            "model": answer.model, "choices": choices, "usage": usage})
        .to_string()
    };
    let choice = |text: &str, finish: Option<&str>| {
        let choice = json!({"text": text, "index": 0, "logprobs": null, "finish_reason": finish});
        json!([choice])
    };
    let mut stream = Stream::of_events();
    if answer.finish != Finish::Nothing {
        for piece in pieces(answer.text) {
            stream.data(chunk(choice(piece, None), Value::Null));
        }
        stream.ends_here();
        stream.data(chunk(choice("", Some(finish_reason(answer.finish))), Value::Null));
    }
    if let Some(usage) = answer.usage {
        let usage = json!({"prompt_tokens": usage.input, "completion_tokens": usage.output,
            "total_tokens": usage.input + usage.output});
        stream.data(chunk(json!([]), usage));
    }
    stream.data("[DONE]");
    stream
}

fn write(answer: &Answer<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(answer.text.len() + 400);
    let _ =
        write!(out, r#"{{"id":"cmpl-{}","object":"text_completion","created":{},"model":"#, answer.id, answer.created);
    push_json(&mut out, answer.model);
    out.extend_from_slice(br#","choices":["#);
    if answer.finish != Finish::Nothing {
        out.extend_from_slice(br#"{"text":"#);
        push_json(&mut out, answer.text);
        let finish = finish_reason(answer.finish);
        let _ = write!(out, r#","index":0,"logprobs":null,"finish_reason":"{finish}"}}"#);
    }
    out.push(b']');
    if let Some(usage) = answer.usage {
        let _ = write!(
            out,
            r#","usage":{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}}}"#,
            usage.input,
            usage.output,
            usage.input + usage.output
        );
    }
    out.push(b'}');
    out
}
