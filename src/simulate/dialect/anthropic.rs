//! Anthropic Messages, from the provider's side.

use crate::simulate::api::Api;
use crate::simulate::exchange::{
    Answer, Ask, Call, Failure, Finish, JsonAsk, Problem, StreamAsk, parse, push_json, put, with_wait,
};
use crate::simulate::fault::Disguise;
use crate::simulate::prompt::{Text, conversation};
use crate::simulate::prompt_cache::{CacheAsk, Cached, Life};
use crate::simulate::quota::{Dimension, Level, Levels};
use crate::simulate::stream::{Stream, event, pieces};
use crate::simulate::wait::{Told, rfc3339};
use bytes::Bytes;
use hyper::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Write;
use std::time::SystemTime;

/// Messages: `/v1/messages`.
pub(crate) struct Anthropic;

impl Api for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn base_path(&self) -> &'static str {
        "/v1"
    }

    fn id_header(&self) -> Option<&'static str> {
        Some("request-id")
    }

    fn request_id(&self, run: u32, seq: u64) -> String {
        format!("req_011C{run:08x}{seq:012x}")
    }

    fn key<'a>(&self, call: &Call<'a>) -> Option<&'a str> {
        call.header("x-api-key").or_else(|| call.bearer())
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
        if call.path == "/v1/messages" { read(call.headers, call.body) } else { Err(Problem::UnknownPath) }
    }

    fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        write(answer)
    }

    fn stream(&self, answer: &Answer<'_>) -> Stream {
        stream(answer)
    }

    fn error_in_stream(&self, id: &str) -> Bytes {
        event("error", self.error_in_200(id).to_string().as_bytes())
    }

    fn fail(&self, problem: &Problem, told: &Told, model: &str, id: &str) -> Failure {
        fail(problem, told, model, id)
    }

    /// Anthropic takes the input at once and the output when it has been produced.
    fn cost_afterwards(&self, output_tokens: u64) -> u64 {
        output_tokens
    }

    fn limit_headers(&self, levels: &Levels, wall: SystemTime, headers: &mut HeaderMap) {
        limit_headers(levels, wall, headers);
    }
}

/// A body; a field that is not here is refused, as the real API does ("Extra inputs are not permitted").
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    max_tokens: Option<u64>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(borrow)]
    system: Option<&'a RawValue>,
    #[serde(borrow)]
    output_config: Option<OutputConfig<'a>>,
    stream: Option<bool>,
    #[serde(rename = "temperature")]
    _temperature: Option<f64>,
    #[serde(rename = "top_p")]
    _top_p: Option<f64>,
    #[serde(rename = "top_k")]
    _top_k: Option<u64>,
    #[serde(rename = "stop_sequences")]
    _stop_sequences: Option<Vec<String>>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(borrow)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(rename = "tool_choice")]
    _tool_choice: Option<IgnoredAny>,
    #[serde(rename = "thinking")]
    _thinking: Option<IgnoredAny>,
    #[serde(rename = "service_tier")]
    _service_tier: Option<IgnoredAny>,
    #[serde(borrow)]
    speed: Option<Text<'a>>,
    #[serde(rename = "container")]
    _container: Option<IgnoredAny>,
    #[serde(rename = "context_management")]
    _context_management: Option<IgnoredAny>,
    #[serde(rename = "mcp_servers")]
    _mcp_servers: Option<IgnoredAny>,
    #[serde(rename = "inference_geo")]
    _inference_geo: Option<IgnoredAny>,
    #[serde(rename = "cache_control")]
    _cache_control: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow)]
    content: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct OutputConfig<'a> {
    #[serde(borrow)]
    format: Option<Format<'a>>,
}

#[derive(Deserialize)]
struct Format<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
}

fn read<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Ask<'a>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    if !headers.contains_key("anthropic-version") {
        return wrong("anthropic-version: header is required");
    }
    let body: Body<'_> = parse(body)?;
    let Some(model) = body.model.filter(|model| !model.0.is_empty()) else {
        return wrong("model: Field required");
    };
    let Some(max_output) = body.max_tokens else {
        return wrong("max_tokens: Field required");
    };
    if max_output == 0 {
        return wrong("max_tokens: Input should be greater than or equal to 1");
    }
    let Some(messages) = body.messages else {
        return wrong("messages: Field required");
    };
    if messages.is_empty() {
        return wrong("messages: at least one message is required");
    }
    let mut turns = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let Some(content) = message.content else {
            return wrong(&format!("messages.{index}.content: Field required"));
        };
        match message.role.as_ref().map(|role| role.0.as_ref()) {
            Some("user") if content.0.is_empty() => {
                return wrong(&format!("messages.{index}: user messages must have non-empty content"));
            }
            Some("user") => turns.push((true, content)),
            Some("assistant") => turns.push((false, content)),
            Some(role) => {
                return wrong(&format!(
                    "messages.{index}.role: Unexpected role \"{role}\". Use \"user\" or \"assistant\""
                ));
            }
            None => return wrong(&format!("messages.{index}.role: Field required")),
        }
    }
    let json = match body.output_config.and_then(|config| config.format) {
        None => None,
        Some(Format { kind: Some(kind), schema: Some(schema) }) if kind.0 == "json_schema" => {
            Some(JsonAsk::Schema(schema))
        }
        Some(_) => return wrong("output_config.format: expected type \"json_schema\" and a schema"),
    };
    let written = body.system.map_or("null", RawValue::get);
    let system: Text<'_> = parse(written.as_bytes())?;
    let (prompt, input_tokens, last_user) = conversation(&[&system.0], turns);
    let cache = kept(&body.tools.unwrap_or_default(), written, input_tokens)?;
    Ok(Ask {
        model: model.0,
        prompt,
        input_tokens,
        max_output: Some(max_output),
        json,
        last_user,
        embed: None,
        cache,
        logprobs: false,
        tier: body.speed.map(|speed| speed.0),
        stream: StreamAsk::of(body.stream),
    })
}

#[derive(Deserialize)]
struct Marked<'a> {
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow)]
    cache_control: Option<Mark<'a>>,
}

#[derive(Deserialize)]
struct Mark<'a> {
    #[serde(borrow)]
    ttl: Option<Text<'a>>,
}

/// The beginning up to the last mark on a tool or in the system prompt. Marks further behind are not simulated.
fn kept(tools: &[&RawValue], system: &str, input_tokens: u64) -> Result<Option<CacheAsk>, Problem> {
    let system: Vec<Marked<'_>> = if system.starts_with('[') { parse(system.as_bytes())? } else { Vec::new() };
    let of_tools = tools.iter().map(|tool| parse::<Marked<'_>>(tool.get().as_bytes()));
    let of_tools = of_tools.collect::<Result<Vec<_>, _>>()?;
    let texts = tools.iter().map(|tool| tool.get()).chain(system.iter().map(|block| block.text.0.as_ref()));
    let marks = of_tools.iter().chain(&system).map(|block| block.cache_control.as_ref());
    let Some((last, mark)) = marks.enumerate().filter_map(|(place, mark)| Some((place, mark?))).last() else {
        return Ok(None);
    };
    let is_hour = mark.ttl.as_ref().is_some_and(|ttl| ttl.0 == "1h");
    Ok(CacheAsk::of(texts.take(last + 1), if is_hour { Life::Hour } else { Life::FiveMinutes }, input_tokens))
}

/// The events of an answer: those of the whole one, in pieces, and a ping between them.
fn stream(answer: &Answer<'_>) -> Stream {
    let whole: Value = serde_json::from_slice(&write(answer)).unwrap_or_default();
    let mut message = whole.clone();
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    if answer.usage.is_some() {
        // The count of output is a placeholder until the end.
        message["usage"]["output_tokens"] = 1.into();
    }
    let mut stream = Stream::of_events();
    stream.named(&json!({"type": "message_start", "message": message}));
    stream.named(&json!({"type": "ping"}));
    if whole["content"].as_array().is_some_and(|blocks| !blocks.is_empty()) {
        let block = json!({"type": "text", "text": ""});
        stream.named(&json!({"type": "content_block_start", "index": 0, "content_block": block}));
        for piece in pieces(answer.text) {
            let delta = json!({"type": "text_delta", "text": piece});
            stream.named(&json!({"type": "content_block_delta", "index": 0, "delta": delta}));
        }
        stream.named(&json!({"type": "content_block_stop", "index": 0}));
    }
    stream.ends_here();
    let delta = json!({"stop_reason": whole["stop_reason"], "stop_sequence": null});
    let mut end = json!({"type": "message_delta", "delta": delta});
    if let Some(usage) = answer.usage {
        end["usage"] = json!({"output_tokens": usage.output});
    }
    stream.named(&end);
    stream.named(&json!({"type": "message_stop"}));
    stream
}

fn write(answer: &Answer<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(answer.text.len() + 500);
    let _ = write!(out, r#"{{"id":"msg_{}","type":"message","role":"assistant","model":"#, &answer.id[4..]);
    push_json(&mut out, answer.model);
    out.extend_from_slice(br#","content":["#);
    if answer.finish != Finish::Nothing && !answer.text.is_empty() {
        out.extend_from_slice(br#"{"type":"text","text":"#);
        push_json(&mut out, answer.text);
        out.push(b'}');
    }
    let stop = match answer.finish {
        Finish::Stop | Finish::Nothing => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Filtered | Finish::Refused => "refusal",
    };
    let _ = write!(out, r#"],"stop_reason":"{stop}","stop_sequence":null"#);
    if let Some(usage) = answer.usage {
        let Cached { read, written, for_an_hour } = usage.cached;
        let _ = write!(
            out,
            concat!(
                r#","usage":{{"input_tokens":{},"cache_creation_input_tokens":{},"cache_read_input_tokens":{},"#,
                r#""cache_creation":{{"ephemeral_5m_input_tokens":{},"ephemeral_1h_input_tokens":{}}},"#,
                r#""output_tokens":{},"service_tier":"standard","speed":"#
            ),
            usage.uncached(),
            written,
            read,
            written - for_an_hour,
            for_an_hour,
            usage.output
        );
        push_json(&mut out, answer.tier.unwrap_or("standard"));
        out.push(b'}');
    }
    out.push(b'}');
    out
}

fn fail(problem: &Problem, told: &Told, model: &str, id: &str) -> Failure {
    let error = |status: u16, kind: &str, message: &str| {
        let mut error = json!({"type": kind, "message": with_wait(message.to_owned(), told)});
        if let Some(delay) = &told.retry_info {
            error["details"] = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]);
        }
        Failure { status, body: json!({"type": "error", "error": error, "request_id": id}) }
    };
    let invalid = "invalid_request_error";
    match problem {
        Problem::Malformed(message) => error(400, invalid, message),
        Problem::UnknownPath => error(404, "not_found_error", "Not Found"),
        Problem::MethodNotAllowed => error(405, invalid, "Method Not Allowed"),
        Problem::Auth | Problem::Denied { .. } => error(401, "authentication_error", "invalid x-api-key"),
        Problem::Permission => {
            error(403, "permission_error", "Your API key does not have permission to use the specified resource.")
        }
        Problem::NotFound => error(404, "not_found_error", &format!("model: {model}")),
        Problem::InvalidRequest => {
            error(400, invalid, &format!("`temperature` may only be set to 1 when using {model}."))
        }
        Problem::ContextLength => error(400, invalid, "prompt is too long: 209000 tokens > 200000 maximum"),
        Problem::ContentPolicy => error(400, invalid, "Output blocked by content filtering policy"),
        Problem::PayloadTooLarge => error(413, "request_too_large", "Request exceeds the maximum size"),
        Problem::Timeout => error(504, "timeout_error", "Request timed out"),
        Problem::ServerError(status) => error(*status, "api_error", "Internal server error"),
        Problem::Overloaded(status) | Problem::NoCapacity(status) => {
            error(status.unwrap_or(529), "overloaded_error", "Overloaded")
        }
        Problem::OutOfQuota(Disguise::BadRequest) => {
            let message = "You have reached your specified API usage limits. You will regain access on 2027-01-01 at \
                           00:00 UTC.";
            error(400, invalid, message)
        }
        Problem::OutOfQuota(Disguise::PaymentRequired) => {
            error(402, "billing_error", "Your credit balance is too low to access the Anthropic API.")
        }
        Problem::OutOfQuota(Disguise::TooManyRequests) => {
            let mut failure = error(429, "rate_limit_error", "Your organization has reached its monthly spend limit.");
            failure.body["error"]["details"] = json!({"error_code": "enforced_spend_limit_reached"});
            failure
        }
        Problem::Limited(None) => error(
            429,
            "rate_limit_error",
            "This request would exceed your organization's rate limit of 1000 requests per minute.",
        ),
        Problem::Limited(Some(shortage)) if shortage.dimension == Dimension::Growth => error(
            429,
            "rate_limit_error",
            "This request would exceed your organization's maximum usage increase rate (acceleration limit). Please \
             scale up your usage more gradually.",
        ),
        Problem::Limited(Some(shortage)) => {
            let limit = shortage.limit;
            let what = match shortage.dimension {
                Dimension::Requests => format!("rate limit of {limit} requests per minute"),
                Dimension::Tokens => format!("rate limit of {limit} tokens per minute"),
                Dimension::InputTokens => format!("rate limit of {limit} input tokens per minute"),
                Dimension::OutputTokens => format!("rate limit of {limit} output tokens per minute"),
                Dimension::RequestsPerDay => format!("rate limit of {limit} requests per day"),
                Dimension::Concurrency => format!("limit of {limit} concurrent connections"),
                Dimension::Growth => format!("growth to {limit} requests"),
            };
            error(429, "rate_limit_error", &format!("This request would exceed your organization's {what} ({model})."))
        }
    }
}

fn limit_headers(levels: &Levels, wall: SystemTime, headers: &mut HeaderMap) {
    let mut family = |names: [&'static str; 3], level: Option<Level>| {
        let Some(level) = level else { return };
        put(headers, names[0], level.limit.to_string());
        put(headers, names[1], level.remaining.to_string());
        put(headers, names[2], rfc3339(wall + level.until_full));
    };
    family(
        [
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ],
        levels.requests,
    );
    family(
        [
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
        ],
        levels.tokens,
    );
    family(
        [
            "anthropic-ratelimit-input-tokens-limit",
            "anthropic-ratelimit-input-tokens-remaining",
            "anthropic-ratelimit-input-tokens-reset",
        ],
        levels.input_tokens,
    );
    family(
        [
            "anthropic-ratelimit-output-tokens-limit",
            "anthropic-ratelimit-output-tokens-remaining",
            "anthropic-ratelimit-output-tokens-reset",
        ],
        levels.output_tokens,
    );
}
