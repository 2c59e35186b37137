//! Ollama's own API, from the server's side.

use crate::simulate::api::Api;
use crate::simulate::embedding::{EmbedAsk, Vectors};
use crate::simulate::exchange::{
    Answer, Ask, Call, Failure, Finish, JsonAsk, Problem, StreamAsk, parse, push_json, with_wait,
};
use crate::simulate::prompt::{Text, conversation};
use crate::simulate::stream::{Stream, line, pieces};
use crate::simulate::wait::Told;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Write;

/// Chat and embeddings: `/api/chat`, `/api/embed`.
pub(crate) struct Ollama;

impl Api for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn base_path(&self) -> &'static str {
        ""
    }

    fn id_header(&self) -> Option<&'static str> {
        None
    }

    fn request_id(&self, run: u32, seq: u64) -> String {
        format!("{run:08x}-{seq:012x}")
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
        match call.path {
            "/api/chat" => read(call.body),
            "/api/embed" => read_embed(call.body),
            _ => Err(Problem::UnknownPath),
        }
    }

    fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        write(answer)
    }

    fn stream(&self, answer: &Answer<'_>) -> Stream {
        stream(answer)
    }

    fn error_in_stream(&self, _id: &str) -> Bytes {
        line(&json!({"error": "an error was encountered while running the model: out of memory"}))
    }

    fn fail(&self, problem: &Problem, told: &Told, model: &str, _id: &str) -> Failure {
        fail(problem, told, model)
    }

    fn cost_afterwards(&self, output_tokens: u64) -> u64 {
        output_tokens
    }
}

/// The members that are read of a body; the server ignores all others.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    messages: Vec<Message<'a>>,
    #[serde(borrow)]
    format: Option<&'a RawValue>,
    #[serde(default)]
    options: Options,
    stream: Option<bool>,
}

#[derive(Deserialize, Default)]
struct Options {
    num_predict: Option<i64>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Text<'a>>,
    /// Parts, as OpenAI writes them, are an error of the decoder there.
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Vec<ToolCall<'a>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Function<'a>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(rename = "name")]
    _name: IgnoredAny,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

fn read(body: &[u8]) -> Result<Ask<'_>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: Body<'_> = parse(body)?;
    let Some(model) = body.model.filter(|model| !model.0.is_empty()) else { return wrong("model is required") };
    if body.messages.is_empty() {
        return wrong("messages: without any the server only loads the model");
    }
    let mut turns = Vec::with_capacity(body.messages.len());
    for message in &body.messages {
        let is_user = match message.role.as_ref().map(|role| role.0.as_ref()) {
            Some("user") => true,
            Some("system" | "assistant" | "tool") => false,
            _ => return wrong("invalid role"),
        };
        let is_object = |call: &ToolCall<'_>| call.function.arguments.is_some_and(|text| text.get().starts_with('{'));
        if !message.tool_calls.iter().all(is_object) {
            return wrong("json: cannot unmarshal string into Go struct field of type api.ToolCallFunctionArguments");
        }
        let text = match message.content.map(RawValue::get) {
            None => Text::default(),
            Some(text) if text.starts_with('"') => parse(text.as_bytes())?,
            Some(_) => {
                return wrong("json: cannot unmarshal array into Go struct field Message.content of type string");
            }
        };
        turns.push((is_user, text));
    }
    let json = match body.format.map(RawValue::get) {
        None | Some("null" | "\"\"") => None,
        Some("\"json\"") => Some(JsonAsk::Object),
        Some(text) if text.starts_with('{') => body.format.map(JsonAsk::Schema),
        Some(_) => return wrong("invalid format: expected \"json\" or a JSON schema"),
    };
    let max_output = body.options.num_predict.and_then(|most| u64::try_from(most).ok());
    let (prompt, input_tokens, last_user) = conversation(&[], turns);
    Ok(Ask {
        model: model.0,
        prompt,
        input_tokens,
        max_output,
        json,
        last_user,
        embed: None,
        cache: None,
        tier: None,
        logprobs: false,
        // A body that does not say asks for one.
        stream: StreamAsk::of(Some(body.stream != Some(false))),
    })
}

/// A body that wants vectors.
#[derive(Deserialize)]
struct EmbedBody<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    input: Option<Value>,
    dimensions: Option<usize>,
}

fn read_embed(body: &[u8]) -> Result<Ask<'_>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: EmbedBody<'_> = parse(body)?;
    let Some(model) = body.model.filter(|model| !model.0.is_empty()) else { return wrong("model is required") };
    let embed = EmbedAsk::read(&body.input.unwrap_or_default()).map_err(Problem::Malformed)?;
    if embed.tokens.is_some() {
        return wrong("invalid input type");
    }
    Ok(Ask::for_vectors(model.0, EmbedAsk { dimension: body.dimensions, ..embed }))
}

fn write_vectors(answer: &Answer<'_>, vectors: &Vectors) -> Vec<u8> {
    let mut out = br#"{"model":"#.to_vec();
    push_json(&mut out, answer.model);
    out.extend_from_slice(br#","embeddings":"#);
    vectors.push_all(&mut out);
    out.extend_from_slice(br#","total_duration":1000,"load_duration":10"#);
    if let Some(usage) = answer.usage {
        let _ = write!(out, r#","prompt_eval_count":{}"#, usage.input);
    }
    out.push(b'}');
    out
}

/// A line for each piece, and one with the counts.
fn stream(answer: &Answer<'_>) -> Stream {
    let whole: Value = serde_json::from_slice(&write(answer)).unwrap_or_default();
    let mut stream = Stream { content_type: "application/x-ndjson", events: Vec::new(), end: 0 };
    for piece in pieces(whole["message"]["content"].as_str().unwrap_or_default()) {
        let message = json!({"role": "assistant", "content": piece});
        stream.events.push(line(&json!({"model": answer.model, "created_at": whole["created_at"], "message": message,
            "done": false})));
    }
    stream.ends_here();
    let mut last = whole;
    if let Some(message) = last.get_mut("message") {
        message["content"] = "".into();
    }
    stream.events.push(line(&last));
    stream
}

fn write(answer: &Answer<'_>) -> Vec<u8> {
    if let Some(vectors) = answer.vectors {
        return write_vectors(answer, vectors);
    }
    let mut out = Vec::with_capacity(answer.text.len() + 400);
    out.extend_from_slice(br#"{"model":"#);
    push_json(&mut out, answer.model);
    out.extend_from_slice(br#","created_at":"2026-11-26T12:00:00.123456789Z""#);
    if answer.finish != Finish::Nothing {
        out.extend_from_slice(br#","message":{"role":"assistant","content":"#);
        // It has no filter; a model that declines does so in words.
        push_json(&mut out, if answer.finish == Finish::Filtered { "" } else { answer.text });
        out.push(b'}');
    }
    let reason = if answer.finish == Finish::Length { "length" } else { "stop" };
    let _ = write!(out, r#","done_reason":"{reason}","done":true,"total_duration":1000,"load_duration":10"#);
    if let Some(usage) = answer.usage {
        for (name, count) in [("prompt_eval_count", usage.input), ("eval_count", usage.output)] {
            // A count of zero is left out.
            if count > 0 {
                let _ = write!(out, r#","{name}":{count}"#);
            }
        }
    }
    out.push(b'}');
    out
}

fn fail(problem: &Problem, told: &Told, model: &str) -> Failure {
    let error =
        |status: u16, message: &str| Failure { status, body: json!({ "error": with_wait(message.to_owned(), told) }) };
    match problem {
        Problem::Malformed(message) => error(400, message),
        Problem::UnknownPath => error(404, "404 page not found"),
        Problem::MethodNotAllowed => error(405, "405 method not allowed, use POST"),
        Problem::Auth | Problem::Denied { .. } => error(401, "unauthorized"),
        Problem::Permission => error(403, "this model requires a subscription, upgrade for access"),
        Problem::NotFound => error(404, &format!("model \"{model}\" not found, try pulling it first")),
        Problem::InvalidRequest => error(400, &format!("\"{model}\" does not support thinking")),
        Problem::ContextLength => error(400, "the input length exceeds the context length"),
        // A proxy before it.
        Problem::ContentPolicy => error(400, "the prompt violates the content policy"),
        Problem::PayloadTooLarge => error(413, "http: request body too large"),
        Problem::Timeout => error(504, "upstream timed out"),
        Problem::ServerError(status) => error(*status, "llama runner process has terminated: exit status 2"),
        Problem::Overloaded(status) | Problem::NoCapacity(status) => {
            let message = "server busy, please try again.  maximum pending requests exceeded";
            error(status.unwrap_or(503), message)
        }
        Problem::OutOfQuota(disguise) => {
            use crate::simulate::fault::Disguise;
            let status = match disguise {
                Disguise::TooManyRequests => 429,
                Disguise::PaymentRequired => 402,
                Disguise::BadRequest => 403,
            };
            error(status, "insufficient balance: add credits to go on")
        }
        Problem::Limited(_) => error(429, "too many requests"),
    }
}
