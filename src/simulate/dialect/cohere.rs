//! Cohere's chat, version 2, from the provider's side.

use crate::simulate::api::Api;
use crate::simulate::embedding::{EmbedAsk, Vectors};
use crate::simulate::exchange::{
    Answer, Ask, Call, Failure, Finish, JsonAsk, Problem, StreamAsk, parse, push_json, with_wait,
};
use crate::simulate::fault::Disguise;
use crate::simulate::prompt::{Text, conversation};
use crate::simulate::quota::{Dimension, Levels};
use crate::simulate::stream::{Stream, event, pieces};
use crate::simulate::wait::Told;
use bytes::Bytes;
use hyper::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Write;
use std::time::SystemTime;

/// Chat and embeddings: `/v2/chat`, `/v2/embed`.
pub(crate) struct Cohere;

impl Api for Cohere {
    fn name(&self) -> &'static str {
        "cohere"
    }

    fn base_path(&self) -> &'static str {
        "/v2"
    }

    fn id_header(&self) -> Option<&'static str> {
        None
    }

    fn request_id(&self, run: u32, seq: u64) -> String {
        format!("{run:08x}-0000-4000-8000-{seq:012x}")
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
        match call.path {
            "/v2/chat" => read(call.body),
            "/v2/embed" => read_embed(call.body),
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
        let delta = json!({"finish_reason": "ERROR", "error": "internal server error"});
        event("message-end", json!({"type": "message-end", "delta": delta}).to_string().as_bytes())
    }

    fn fail(&self, problem: &Problem, told: &Told, model: &str, id: &str) -> Failure {
        fail(problem, told, model, id)
    }

    fn cost_afterwards(&self, output_tokens: u64) -> u64 {
        output_tokens
    }

    fn limit_headers(&self, _levels: &Levels, _wall: SystemTime, _headers: &mut HeaderMap) {
        // Only trial keys get some.
    }
}

/// A body; a field that is not here is refused, as the real API does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    #[serde(borrow)]
    response_format: Option<ResponseFormat<'a>>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_choice: Option<Text<'a>>,
    p: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    stop_sequences: Option<Vec<IgnoredAny>>,
    #[serde(rename = "k")]
    _k: Option<IgnoredAny>,
    #[serde(rename = "temperature")]
    _temperature: Option<IgnoredAny>,
    #[serde(rename = "seed")]
    _seed: Option<IgnoredAny>,
    #[serde(rename = "thinking")]
    _thinking: Option<IgnoredAny>,
    #[serde(rename = "documents")]
    _documents: Option<IgnoredAny>,
    #[serde(rename = "citation_options")]
    _citation_options: Option<IgnoredAny>,
    #[serde(rename = "safety_mode")]
    _safety_mode: Option<IgnoredAny>,
    #[serde(rename = "strict_tools")]
    _strict_tools: Option<IgnoredAny>,
    #[serde(rename = "logprobs")]
    _logprobs: Option<IgnoredAny>,
    #[serde(rename = "priority")]
    _priority: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow, default)]
    content: Text<'a>,
    #[serde(borrow, default)]
    tool_plan: Text<'a>,
    tool_calls: Option<IgnoredAny>,
    tool_call_id: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ResponseFormat<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    json_schema: Option<&'a RawValue>,
}

fn read(body: &[u8]) -> Result<Ask<'_>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: Body<'_> = parse(body)?;
    let Some(model) = body.model.filter(|model| !model.0.is_empty()) else {
        return wrong("invalid request: model is required");
    };
    let Some(messages) = body.messages.filter(|messages| !messages.is_empty()) else {
        return wrong("invalid request: messages must have at least one element");
    };
    if body.p.is_some_and(|p| !(0.01..=0.99).contains(&p)) {
        return wrong("invalid request: p must be between 0.01 and 0.99");
    }
    if [body.frequency_penalty, body.presence_penalty].into_iter().flatten().any(|value| !(0.0..=1.0).contains(&value))
    {
        return wrong("invalid request: penalties must be between 0.0 and 1.0");
    }
    if body.stop_sequences.is_some_and(|stops| stops.len() > 5) {
        return wrong("invalid request: at most 5 stop sequences");
    }
    if body.tool_choice.is_some_and(|choice| !matches!(choice.0.as_ref(), "REQUIRED" | "NONE")) {
        return wrong("invalid request: tool_choice must be REQUIRED or NONE");
    }
    let mut turns = Vec::with_capacity(messages.len());
    for message in messages {
        let said = if message.content.0.is_empty() { message.tool_plan } else { message.content };
        match message.role.as_ref().map(|role| role.0.as_ref()) {
            Some("user") => turns.push((true, said)),
            Some("tool") if message.tool_call_id.is_none() => {
                return wrong("invalid request: tool_call_id is required");
            }
            Some("assistant") if message.tool_calls.is_none() && said.0.is_empty() => {
                return wrong("invalid request: an assistant message must have content or tool_calls");
            }
            Some("system" | "assistant" | "tool") => turns.push((false, said)),
            _ => return wrong("invalid request: invalid role"),
        }
    }
    let json = match body.response_format {
        None => None,
        Some(format) => match (format.kind.as_ref().map(|kind| kind.0.as_ref()), format.json_schema) {
            (Some("text"), None) => None,
            (Some("json_object"), _) if body.tools.is_some() => {
                return wrong("invalid request: response_format is not supported with tools");
            }
            (Some("json_object"), None) => Some(JsonAsk::Object),
            (Some("json_object"), Some(schema)) => Some(JsonAsk::Schema(schema)),
            _ => return wrong("invalid request: response_format.type must be text or json_object"),
        },
    };
    let (prompt, input_tokens, last_user) = conversation(&[], turns);
    Ok(Ask {
        model: model.0,
        prompt,
        input_tokens,
        max_output: body.max_tokens,
        json,
        last_user,
        embed: None,
        cache: None,
        logprobs: false,
        tier: None,
        stream: StreamAsk::of(body.stream),
    })
}

/// A body that wants vectors; a field that is not here is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbedBody<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    texts: Option<Vec<String>>,
    input_type: Option<String>,
    embedding_types: Option<Vec<String>>,
    output_dimension: Option<usize>,
    truncate: Option<String>,
    #[serde(rename = "priority")]
    _priority: Option<IgnoredAny>,
}

fn read_embed(body: &[u8]) -> Result<Ask<'_>, Problem> {
    const TYPES: &[&str] = &["search_document", "search_query", "classification", "clustering"];
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: EmbedBody<'_> = parse(body)?;
    let Some(model) = body.model.filter(|model| !model.0.is_empty()) else {
        return wrong("invalid request: model is required");
    };
    let Some(texts) = body.texts.filter(|texts| !texts.is_empty() && texts.len() <= 96) else {
        return wrong("invalid request: texts must have from 1 to 96 elements");
    };
    if !body.input_type.is_some_and(|kind| TYPES.contains(&kind.as_str())) {
        return wrong("invalid request: input_type is required");
    }
    if body.embedding_types.is_some_and(|types| types != ["float"]) {
        return wrong("The simulator has vectors of type float only.");
    }
    if body.truncate.is_some_and(|truncate| !matches!(truncate.as_str(), "NONE" | "START" | "END")) {
        return wrong("invalid request: truncate must be NONE, START or END");
    }
    Ok(Ask::for_vectors(model.0, EmbedAsk { texts, tokens: None, dimension: body.output_dimension, base64: false }))
}

fn write_vectors(answer: &Answer<'_>, vectors: &Vectors) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = write!(out, r#"{{"id":"{}","embeddings":{{"float":"#, answer.id);
    vectors.push_all(&mut out);
    out.extend_from_slice(br#"},"response_type":"embeddings_by_type","meta":{"api_version":{"version":"2"}"#);
    if let Some(usage) = answer.usage {
        let _ = write!(out, r#","billed_units":{{"input_tokens":{}.0}}"#, usage.input);
    }
    out.extend_from_slice(b"}}");
    out
}

fn stream(answer: &Answer<'_>) -> Stream {
    let whole: Value = serde_json::from_slice(&write(answer)).unwrap_or_default();
    let mut stream = Stream::of_events();
    let message = json!({"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []});
    stream.named(&json!({"type": "message-start", "id": answer.id, "delta": {"message": message}}));
    if let Some(text) = whole["message"]["content"][0]["text"].as_str() {
        let of = |content: Value| json!({"message": {"content": content}});
        stream.named(&json!({"type": "content-start", "index": 0, "delta": of(json!({"type": "text", "text": ""}))}));
        for piece in pieces(text) {
            stream.named(&json!({"type": "content-delta", "index": 0, "delta": of(json!({"text": piece}))}));
        }
        stream.named(&json!({"type": "content-end", "index": 0}));
    }
    stream.ends_here();
    let mut delta = json!({"finish_reason": whole["finish_reason"]});
    if let Some(usage) = whole.get("usage") {
        delta["usage"] = usage.clone();
    }
    stream.named(&json!({"type": "message-end", "delta": delta}));
    stream.data("[DONE]");
    stream
}

fn write(answer: &Answer<'_>) -> Vec<u8> {
    if let Some(vectors) = answer.vectors {
        return write_vectors(answer, vectors);
    }
    let mut out = Vec::with_capacity(answer.text.len() + 400);
    let _ = write!(out, r#"{{"id":"{}""#, answer.id);
    if answer.finish != Finish::Nothing {
        out.extend_from_slice(br#","message":{"role":"assistant","content":[{"type":"text","text":"#);
        push_json(&mut out, if answer.finish == Finish::Filtered { "" } else { answer.text });
        out.extend_from_slice(br"}]}");
    }
    let reason = match answer.finish {
        Finish::Stop | Finish::Refused | Finish::Nothing => "COMPLETE",
        Finish::Length => "MAX_TOKENS",
        Finish::Filtered => "ERROR_TOXIC",
    };
    let _ = write!(out, r#","finish_reason":"{reason}""#);
    if let Some(usage) = answer.usage {
        // More is processed than is billed: the templates of the model count too.
        let _ = write!(
            out,
            concat!(
                r#","usage":{{"billed_units":{{"input_tokens":{}.0,"output_tokens":{}.0}},"#,
                r#""tokens":{{"input_tokens":{}.0,"output_tokens":{}.0}}}}"#
            ),
            usage.input,
            usage.output,
            usage.input + 63,
            usage.output + 2
        );
    }
    out.push(b'}');
    out
}

fn fail(problem: &Problem, told: &Told, model: &str, id: &str) -> Failure {
    let error = |status: u16, message: &str| Failure {
        status,
        body: json!({ "id": id, "message": with_wait(message.to_owned(), told) }),
    };
    match problem {
        Problem::Malformed(message) => error(400, message),
        Problem::UnknownPath => error(404, "page not found"),
        Problem::MethodNotAllowed => error(405, "method not allowed, use POST"),
        Problem::Auth | Problem::Denied { .. } => error(401, "invalid api token"),
        Problem::Permission => error(403, &format!("your key does not have access to model {model}")),
        Problem::NotFound => error(404, &format!("model '{model}' not found, make sure the correct model ID was used")),
        Problem::InvalidRequest => error(422, "invalid request: temperature is not supported by this model"),
        Problem::ContextLength => {
            error(400, "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5021.")
        }
        Problem::ContentPolicy => error(400, "invalid request: the prompt violates our usage policy"),
        Problem::PayloadTooLarge => error(413, "request body too large"),
        Problem::Timeout => error(504, "request timed out"),
        Problem::ServerError(status) => {
            error(*status, "internal server error, this has been reported to our developers")
        }
        Problem::Overloaded(status) | Problem::NoCapacity(status) => {
            error(status.unwrap_or(503), "the service is overloaded, please try again later")
        }
        Problem::OutOfQuota(disguise) => {
            let month = "You are using a Trial key, which is limited to 1000 API calls / month.";
            match disguise {
                Disguise::TooManyRequests => error(429, month),
                Disguise::PaymentRequired => error(402, "the account has reached its billing limit"),
                Disguise::BadRequest => error(403, month),
            }
        }
        Problem::Limited(Some(shortage)) if shortage.dimension == Dimension::Growth => {
            error(429, "Too many requests: please slow down")
        }
        Problem::Limited(_) => {
            let message = "You are using a Trial key, which is limited to 40 API calls / minute.";
            error(429, message)
        }
    }
}
