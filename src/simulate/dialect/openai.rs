//! OpenAI chat completions, from the provider's side.

use crate::simulate::api::Api;
use crate::simulate::embedding::{EmbedAsk, Vectors};
use crate::simulate::exchange::{
    Answer, Ask, Call, Failure, Finish, JsonAsk, Problem, StreamAsk, StreamOptions, Usage, parse, push_json, put,
    with_wait,
};
use crate::simulate::fault::Disguise;
use crate::simulate::prompt::{Text, conversation};
use crate::simulate::prompt_cache::{CacheAsk, Life};
use crate::simulate::quota::{Cost, Dimension, Level, Levels, Shortage};
use crate::simulate::stream::{Stream, pieces};
use crate::simulate::wait::{Told, WaitFormat, go_duration};
use hyper::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, SystemTime};

/// Chat completions and embeddings: `/v1/chat/completions`, `/v1/embeddings`.
pub(crate) struct Openai;

impl Api for Openai {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn base_path(&self) -> &'static str {
        "/v1"
    }

    fn id_header(&self) -> Option<&'static str> {
        Some("x-request-id")
    }

    fn request_id(&self, run: u32, seq: u64) -> String {
        format!("req_{run:08x}{seq:024x}")
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
        match call.path {
            "/v1/chat/completions" => read(call.body),
            "/v1/embeddings" => read_embeddings(call.body),
            _ => Err(Problem::UnknownPath),
        }
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

    fn error_in_200(&self, _id: &str) -> Value {
        json!({"error": {"code": 502, "message": "Provider returned error",
            "metadata": {"error_type": "provider_unavailable", "provider_code": 502}}})
    }

    /// The header rounds up, the message does not: a reader may rely on either.
    fn tell(&self, wait: Duration, wall: SystemTime) -> Told {
        let message = WaitFormat::Message.tell(wait, wall);
        Told { headers: WaitFormat::RetryAfter.tell(wait, wall).headers, ..message }
    }

    /// OpenAI reserves the larger of `max_tokens` and the prompt and does not correct it.
    fn cost(&self, input_tokens: u64, max_output: Option<u64>) -> Cost {
        Cost { tokens: input_tokens.max(max_output.unwrap_or(0)), input_tokens }
    }

    fn limit_headers(&self, levels: &Levels, _wall: SystemTime, headers: &mut HeaderMap) {
        limit_headers(levels, headers);
    }
}

/// The members that are read of a body; all others are accepted, as the many compatible servers do.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    #[serde(borrow)]
    response_format: Option<ResponseFormat<'a>>,
    #[serde(borrow)]
    service_tier: Option<Text<'a>>,
    #[serde(borrow)]
    prompt_cache_key: Option<Text<'a>>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(default)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    logprobs: Option<bool>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow, default)]
    content: Text<'a>,
}

#[derive(Deserialize)]
struct ResponseFormat<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    json_schema: Option<JsonSchema<'a>>,
}

#[derive(Deserialize)]
struct JsonSchema<'a> {
    name: Option<String>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
}

pub(super) fn read(body: &[u8]) -> Result<Ask<'_>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: Body<'_> = parse(body)?;
    let Some(model) = body.model.filter(|model| !model.0.is_empty()) else {
        return wrong("you must provide a model parameter");
    };
    let Some(messages) = body.messages else {
        return wrong("Missing required parameter: 'messages'.");
    };
    if messages.is_empty() {
        return wrong("Invalid 'messages': empty array. Expected an array with minimum length 1.");
    }
    if body.stream_options.is_some() && body.stream != Some(true) {
        return wrong("The 'stream_options' parameter is only allowed when 'stream' is enabled.");
    }
    if body.max_tokens == Some(0) || body.max_completion_tokens == Some(0) {
        return wrong("Invalid 'max_completion_tokens': integer below minimum value. Expected a value >= 1.");
    }
    let (mut system, mut leading) = (Vec::new(), 0);
    let mut turns = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        match message.role.as_ref().map(|role| role.0.as_ref()) {
            Some("system" | "developer") => {
                system.push(message.content);
                leading += usize::from(turns.is_empty());
            }
            Some("user") => turns.push((true, message.content)),
            Some("assistant" | "tool" | "function") => turns.push((false, message.content)),
            Some(role) => return wrong(&format!("Invalid value: '{role}' in 'messages[{index}].role'.")),
            None => return wrong(&format!("Missing required parameter: 'messages[{index}].role'.")),
        }
    }
    let json = match body.response_format {
        None => None,
        Some(format) => match format.kind.as_ref().map(|kind| kind.0.as_ref()) {
            Some("text") => None,
            Some("json_object") => Some(JsonAsk::Object),
            Some("json_schema") => match format.json_schema {
                Some(JsonSchema { name: Some(_), schema: Some(schema) }) => Some(JsonAsk::Schema(schema)),
                Some(JsonSchema { name: Some(_), schema: None }) => Some(JsonAsk::Object),
                _ => return wrong("Missing required parameter: 'response_format.json_schema.name'."),
            },
            _ => return wrong("Invalid value: 'response_format.type'."),
        },
    };
    let system: Vec<&str> = system.iter().map(|text| text.0.as_ref()).collect();
    let (prompt, input_tokens, last_user) = conversation(&system, turns);
    // Without a key a hit is a matter of luck there.
    let cache = body.prompt_cache_key.and_then(|key| {
        let tools = body.tools.map(RawValue::get);
        let texts = tools.into_iter().chain(system.iter().take(leading).copied());
        Some(CacheAsk::of(texts, Life::Free, input_tokens)?.under(&key.0))
    });
    let max_output = body.max_completion_tokens.or(body.max_tokens);
    Ok(Ask {
        model: model.0,
        prompt,
        input_tokens,
        max_output,
        json,
        last_user,
        embed: None,
        cache,
        logprobs: body.logprobs == Some(true),
        tier: body.service_tier.map(|tier| tier.0),
        stream: asked(body.stream, body.stream_options),
    })
}

/// The stream that a body asks for. It tells its tokens only if it is to.
pub(super) fn asked(stream: Option<bool>, options: Option<StreamOptions>) -> Option<StreamAsk> {
    let usage = options.unwrap_or_default().include_usage == Some(true);
    (stream == Some(true)).then_some(StreamAsk { usage })
}

/// A body that wants vectors.
#[derive(Deserialize)]
struct EmbedBody<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    input: Option<Value>,
    dimensions: Option<usize>,
    encoding_format: Option<String>,
}

pub(super) fn read_embeddings(body: &[u8]) -> Result<Ask<'_>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: EmbedBody<'_> = parse(body)?;
    let Some(model) = body.model.filter(|model| !model.0.is_empty()) else {
        return wrong("you must provide a model parameter");
    };
    let Some(input) = body.input else { return wrong("Missing required parameter: 'input'.") };
    let embed = EmbedAsk::read(&input).map_err(Problem::Malformed)?;
    if embed.texts.len() > 2_048 {
        return wrong("Invalid 'input': array too long. Expected an array with maximum length 2048.");
    }
    if body.dimensions == Some(0) {
        return wrong("Invalid 'dimensions': integer below minimum value. Expected a value >= 1.");
    }
    let base64 = match body.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return wrong("Invalid value: 'encoding_format'."),
    };
    Ok(Ask::for_vectors(model.0, EmbedAsk { dimension: body.dimensions, base64, ..embed }))
}

/// The last vector comes first: the places decide, and the order is not promised.
fn write_vectors(answer: &Answer<'_>, vectors: &Vectors) -> Vec<u8> {
    let mut out = br#"{"object":"list","data":["#.to_vec();
    for (index, vector) in vectors.list.iter().enumerate().rev() {
        let _ = write!(out, r#"{{"object":"embedding","index":{index},"embedding":"#);
        vectors.push(vector, &mut out);
        out.push(b'}');
        if index > 0 {
            out.push(b',');
        }
    }
    out.extend_from_slice(br#"],"model":"#);
    push_json(&mut out, answer.model);
    if let Some(Usage { input, .. }) = answer.usage {
        let _ = write!(out, r#","usage":{{"prompt_tokens":{input},"total_tokens":{input}}}"#);
    }
    out.push(b'}');
    out
}

/// The word for the end of an answer.
pub(super) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Refused | Finish::Nothing => "stop",
        Finish::Length => "length",
        Finish::Filtered => "content_filter",
    }
}

/// The tokens of an answer.
fn usage_of(usage: Usage) -> Value {
    let Usage { input, output, cached } = usage;
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": cached.read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0}})
}

/// The answer in chunks, with a comment before them, as some servers send one while a call waits.
pub(super) fn stream(answer: &Answer<'_>) -> Stream {
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({"id": format!("chatcmpl-{}", answer.id), "object": "chat.completion.chunk",
            "created": answer.created, "model": answer.model, "service_tier": answer.tier.unwrap_or("default"),
            "system_fingerprint": "fp_simulated", "choices": choices});
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        // Padding against those who count bytes.
        chunk["obfuscation"] = "x7".into();
        chunk.to_string()
    };
    let choice = |delta: Value, logprobs: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        json!([choice])
    };
    let key = if answer.finish == Finish::Refused { "refusal" } else { "content" };
    let mut stream = Stream::of_events();
    stream.events.push(": queued\n\n".into());
    if answer.finish == Finish::Nothing {
        stream.data(chunk(json!([]), None));
    } else {
        let first = if key == "refusal" { Value::Null } else { json!("") };
        stream.data(chunk(choice(json!({"role": "assistant", "content": first}), Value::Null, None), None));
        for piece in pieces(answer.text) {
            let mut logprobs = Vec::new();
            write_logprobs(answer, piece, &mut logprobs);
            let logprobs = serde_json::from_slice(&logprobs).unwrap_or_default();
            stream.data(chunk(choice(json!({ key: piece }), logprobs, None), None));
        }
        stream.ends_here();
        stream.data(chunk(choice(json!({}), Value::Null, Some(finish_reason(answer.finish))), None));
    }
    if let Some(usage) = answer.usage {
        stream.data(chunk(json!([]), Some(usage_of(usage))));
    }
    stream.data("[DONE]");
    stream
}

pub(super) fn write(answer: &Answer<'_>) -> Vec<u8> {
    if let Some(vectors) = answer.vectors {
        return write_vectors(answer, vectors);
    }
    let mut out = Vec::with_capacity(answer.text.len() + 700);
    let _ = write!(
        out,
        r#"{{"id":"chatcmpl-{}","object":"chat.completion","created":{},"model":"#,
        answer.id, answer.created
    );
    push_json(&mut out, answer.model);
    out.extend_from_slice(br#","choices":["#);
    if answer.finish != Finish::Nothing {
        out.extend_from_slice(br#"{"index":0,"message":{"role":"assistant","content":"#);
        if answer.finish == Finish::Refused {
            out.extend_from_slice(br#"null,"refusal":"#);
            push_json(&mut out, answer.text);
        } else {
            push_json(&mut out, answer.text);
            out.extend_from_slice(br#","refusal":null"#);
        }
        let finish = finish_reason(answer.finish);
        out.extend_from_slice(br#","annotations":[]},"logprobs":"#);
        write_logprobs(answer, answer.text, &mut out);
        let _ = write!(out, r#","finish_reason":"{finish}"}}"#);
    }
    out.push(b']');
    if let Some(usage) = answer.usage {
        let _ = write!(
            out,
            concat!(
                r#","usage":{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"#,
                r#""prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":0}},"#,
                r#""completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"#,
                r#""accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#
            ),
            usage.input,
            usage.output,
            usage.input + usage.output,
            usage.cached.read
        );
    }
    out.extend_from_slice(br#","service_tier":"#);
    push_json(&mut out, answer.tier.unwrap_or("default"));
    out.extend_from_slice(br#","system_fingerprint":"fp_simulated"}"#);
    out
}

/// A text as tokens of four characters, all of them as likely as the answer is sure.
fn write_logprobs(answer: &Answer<'_>, text: &str, out: &mut Vec<u8>) {
    if answer.confidence.is_none() {
        return out.extend_from_slice(b"null");
    }
    out.extend_from_slice(br#"{"content":"#);
    write_tokens(answer, text, out);
    out.extend_from_slice(br#","refusal":null}"#);
}

/// The tokens of a text with their probabilities: none, where the call did not ask for them.
pub(super) fn write_tokens(answer: &Answer<'_>, text: &str, out: &mut Vec<u8>) {
    let Some(confidence) = answer.confidence else { return out.extend_from_slice(b"[]") };
    out.push(b'[');
    let characters: Vec<char> = text.chars().collect();
    for (place, token) in characters.chunks(4).enumerate() {
        out.extend_from_slice(if place > 0 { br#",{"token":"# } else { br#"{"token":"# });
        push_json(out, &token.iter().collect::<String>());
        let _ = write!(out, r#","logprob":{},"bytes":null,"top_logprobs":[]}}"#, confidence.max(1e-9).ln());
    }
    out.push(b']');
}

pub(super) fn fail(problem: &Problem, told: &Told, model: &str) -> Failure {
    let error = |status: u16, kind: &str, code: Option<&str>, param: Option<&str>, message: String| {
        let mut error = json!({"message": with_wait(message, told), "type": kind, "param": param, "code": code});
        if let Some(delay) = &told.retry_info {
            error["details"] = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]);
        }
        Failure { status, body: json!({ "error": error }) }
    };
    let invalid = "invalid_request_error";
    match problem {
        Problem::Malformed(message) => error(400, invalid, None, None, message.clone()),
        Problem::UnknownPath => error(404, invalid, Some("unknown_url"), None, "Unknown request URL.".to_owned()),
        Problem::MethodNotAllowed => error(405, invalid, Some("method_not_supported"), None, "Use POST.".to_owned()),
        Problem::Auth | Problem::Denied { .. } => {
            let message = "Incorrect API key provided. You can find your API key in your account settings.";
            error(401, invalid, Some("invalid_api_key"), None, message.to_owned())
        }
        Problem::Permission => {
            let message = "Country, region, or territory not supported";
            error(403, "request_forbidden", Some("unsupported_country_region_territory"), None, message.to_owned())
        }
        Problem::NotFound => {
            let message = format!("The model `{model}` does not exist or you do not have access to it.");
            error(404, invalid, Some("model_not_found"), None, message)
        }
        Problem::InvalidRequest => {
            let message = format!("Unsupported value: 'temperature' does not support this value with {model}.");
            error(400, invalid, Some("unsupported_value"), Some("temperature"), message)
        }
        Problem::ContextLength => {
            let message = "This model's maximum context length is 8192 tokens. However, your messages resulted in \
                           9000 tokens. Please reduce the length of the messages.";
            error(400, invalid, Some("context_length_exceeded"), Some("messages"), message.to_owned())
        }
        Problem::ContentPolicy => {
            let message = "Your request was rejected as a result of our safety system.";
            error(400, invalid, Some("content_policy_violation"), None, message.to_owned())
        }
        Problem::PayloadTooLarge => error(413, invalid, None, None, "Request entity too large.".to_owned()),
        Problem::Timeout => error(504, "server_error", None, None, "The request timed out.".to_owned()),
        Problem::ServerError(status) => {
            let message = "The server had an error while processing your request. Sorry about that!";
            error(*status, "server_error", None, None, message.to_owned())
        }
        Problem::Overloaded(status) => {
            let message = "The server is currently overloaded with other requests. Please try again later.";
            let (kind, code) = ("service_unavailable_error", Some("server_is_overloaded"));
            error(status.unwrap_or(503), kind, code, None, message.to_owned())
        }
        // Groq's status, with Groq's words.
        Problem::NoCapacity(Some(status @ 498)) => error(*status, "flex", None, None, "capacity_exceeded".to_owned()),
        Problem::NoCapacity(status) => {
            let message = "Resource Unavailable: there is no spare capacity for this tier. Please try again later.";
            error(status.unwrap_or(429), "rate_limit_error", Some("resource_unavailable"), None, message.to_owned())
        }
        Problem::OutOfQuota(disguise) => {
            let message = "You exceeded your current quota, please check your plan and billing details.";
            let (status, code) = match disguise {
                Disguise::TooManyRequests => (429, "insufficient_quota"),
                Disguise::PaymentRequired => (402, "credit_balance_exhausted"),
                Disguise::BadRequest => (429, "billing_hard_limit_reached"),
            };
            error(status, "insufficient_quota", Some(code), None, message.to_owned())
        }
        // The message since this case is no longer a 503.
        Problem::Limited(Some(shortage)) if shortage.dimension == Dimension::Growth => {
            let message = "Rate of requests has increased too quickly. Please slow down and ramp up gradually.";
            error(429, "rate_limit_error", Some("slow_down"), None, message.to_owned())
        }
        Problem::Limited(shortage) => {
            let (kind, message) = limited(shortage.as_ref(), model);
            error(429, kind, Some("rate_limit_exceeded"), None, message)
        }
    }
}

fn limited(shortage: Option<&Shortage>, model: &str) -> (&'static str, String) {
    let Some(shortage) = shortage else {
        return (
            "requests",
            format!("Rate limit reached for {model} on requests per min (RPM): Limit 1000, Used 1000."),
        );
    };
    let (kind, name) = match shortage.dimension {
        Dimension::Requests => ("requests", "requests per min (RPM)"),
        Dimension::Tokens | Dimension::InputTokens | Dimension::OutputTokens => ("tokens", "tokens per min (TPM)"),
        Dimension::RequestsPerDay => ("requests", "requests per day (RPD)"),
        Dimension::Concurrency => ("requests", "concurrent requests"),
        Dimension::Growth => ("requests", "growth of requests"),
    };
    let Shortage { limit, used, requested, .. } = shortage;
    if shortage.is_too_large() {
        let message = format!(
            "Request too large for {model} on {name}: Limit {limit}, Requested {requested}. The input or output \
             tokens must be reduced in order to run successfully."
        );
        return (kind, message);
    }
    (kind, format!("Rate limit reached for {model} on {name}: Limit {limit}, Used {used}, Requested {requested}."))
}

pub(super) fn limit_headers(levels: &Levels, headers: &mut HeaderMap) {
    let mut family = |names: [&'static str; 3], level: Option<Level>| {
        let Some(level) = level else { return };
        put(headers, names[0], level.limit.to_string());
        put(headers, names[1], level.remaining.to_string());
        put(headers, names[2], go_duration(level.until_full));
    };
    family(
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
        levels.requests,
    );
    family(["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"], levels.tokens);
}
