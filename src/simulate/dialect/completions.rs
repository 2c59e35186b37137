//! Legacy text completions, from the server's side.

use super::openai::{fail, limit_headers};
use crate::simulate::api::Api;
use crate::simulate::exchange::{Answer, Ask, Call, Failure, Finish, Problem, parse, push_json};
use crate::simulate::prompt::{Text, conversation};
use crate::simulate::quota::{Cost, Levels};
use crate::simulate::wait::{Told, WaitFormat};
use hyper::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::io::Write;
use std::time::{Duration, SystemTime};

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

    fn key<'a>(&self, call: &Call<'a>) -> Option<&'a str> {
        call.bearer()
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
        if call.path == "/v1/completions" { read(call.body) } else { Err(Problem::UnknownPath) }
    }

    fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        write(answer)
    }

    fn fail(&self, problem: &Problem, told: &Told, model: &str, _id: &str) -> Failure {
        fail(problem, told, model)
    }

    fn tell(&self, wait: Duration, wall: SystemTime) -> Told {
        WaitFormat::RetryAfter.tell(wait, wall)
    }

    fn cost(&self, input_tokens: u64, _max_output: Option<u64>) -> Cost {
        Cost { tokens: input_tokens, input_tokens }
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
    if body.stream == Some(true) {
        return wrong("The simulator answers whole bodies only: leave out 'stream'.");
    }
    let (hash, input_tokens, last_user) = conversation(&[], vec![(true, prompt)]);
    // Without a cap the server stops early.
    let max_output = Some(body.max_tokens.unwrap_or(16));
    Ok(Ask { model: model.0, prompt: hash, input_tokens, max_output, json: None, last_user, embed: None })
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
        let finish = match answer.finish {
            Finish::Stop | Finish::Refused | Finish::Nothing => "stop",
            Finish::Length => "length",
            Finish::Filtered => "content_filter",
        };
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
