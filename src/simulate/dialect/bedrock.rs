//! AWS Bedrock's Converse API, from the provider's side.

use crate::simulate::api::Api;
use crate::simulate::exchange::{
    Answer, Ask, Call, Failure, Finish, JsonAsk, Problem, StreamAsk, parse, push_json, with_wait,
};
use crate::simulate::fault::Disguise;
use crate::simulate::key::Key;
use crate::simulate::prompt::{Text, conversation};
use crate::simulate::prompt_cache::{CacheAsk, Cached, Life};
use crate::simulate::quota::Dimension;
use crate::simulate::signature;
use crate::simulate::stream::{Stream, frame, pieces};
use crate::simulate::wait::Told;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::Write;
use std::time::SystemTime;

/// Converse: `/model/{id}/converse`.
pub(crate) struct Bedrock;

impl Api for Bedrock {
    fn name(&self) -> &'static str {
        "bedrock"
    }

    fn base_path(&self) -> &'static str {
        ""
    }

    fn id_header(&self) -> Option<&'static str> {
        Some("x-amzn-requestid")
    }

    fn request_id(&self, run: u32, seq: u64) -> String {
        format!("{run:08x}-0000-4000-8000-{seq:012x}")
    }

    fn key<'a>(&self, call: &Call<'a>) -> Option<&'a str> {
        signature::id(call).or_else(|| call.bearer())
    }

    fn recognise(&self, call: &Call<'_>, keys: &[Key], wall: SystemTime) -> Result<usize, Problem> {
        if signature::is_claimed(call) {
            return signature::verify(call, "bedrock", keys, wall);
        }
        let key = call.bearer();
        keys.iter().position(|known| Some(known.key.as_str()) == key).ok_or(Problem::Auth)
    }

    fn error_header(&self, body: &Value) -> Option<(&'static str, String)> {
        let name = body["__type"].as_str()?.rsplit('#').next()?;
        Some(("x-amzn-errortype", format!("{name}:http://internal.amazon.com/coral/com.amazon.bedrock/")))
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
        let rest = call.path.strip_prefix("/model/").ok_or(Problem::UnknownPath)?;
        let streamed = rest.strip_suffix("/converse-stream");
        let id = streamed.or_else(|| rest.strip_suffix("/converse")).ok_or(Problem::UnknownPath)?;
        if id.is_empty() || id.contains('/') {
            return Err(Problem::UnknownPath);
        }
        let ask = read(id.replace("%2F", "/").replace("%3A", ":"), call.body)?;
        Ok(Ask { stream: StreamAsk::of(Some(streamed.is_some())), ..ask })
    }

    fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        write(answer)
    }

    fn stream(&self, answer: &Answer<'_>) -> Stream {
        stream(answer)
    }

    fn error_in_stream(&self, _id: &str) -> Bytes {
        let payload = json!({"message": "The model failed.", "originalStatusCode": 500});
        frame("exception", "modelStreamErrorException", &payload)
    }

    fn fail(&self, problem: &Problem, told: &Told, model: &str, _id: &str) -> Failure {
        fail(problem, told, model)
    }

    fn error_in_200(&self, _id: &str) -> Value {
        json!({"message": "The system encountered an unexpected error during processing. Try your request again."})
    }

    fn cost_afterwards(&self, output_tokens: u64) -> u64 {
        output_tokens
    }
}

/// A body; a field that is not here is refused, as the real API does ("extraneous key").
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(borrow)]
    system: Option<&'a RawValue>,
    inference_config: Option<InferenceConfig>,
    #[serde(borrow)]
    output_config: Option<OutputConfig<'a>>,
    #[serde(borrow)]
    tool_config: Option<ToolConfig<'a>>,
    #[serde(borrow)]
    service_tier: Option<ServiceTier<'a>>,
    #[serde(rename = "additionalModelRequestFields")]
    _additional: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceTier<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct InferenceConfig {
    max_tokens: Option<u64>,
    temperature: Option<f64>,
    #[serde(rename = "topP")]
    _top_p: Option<IgnoredAny>,
    #[serde(rename = "stopSequences")]
    _stop_sequences: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ToolConfig<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
}

/// A piece of the system prompt or a tool, or a point up to which the prompt is kept.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece<'a> {
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow)]
    cache_point: Option<CachePoint<'a>>,
}

#[derive(Deserialize)]
struct CachePoint<'a> {
    #[serde(borrow)]
    ttl: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutputConfig<'a> {
    #[serde(borrow)]
    text_format: TextFormat<'a>,
}

#[derive(Deserialize)]
struct TextFormat<'a> {
    #[serde(borrow)]
    structure: Structure<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Structure<'a> {
    #[serde(borrow)]
    json_schema: JsonSchema<'a>,
}

/// The schema is a text.
#[derive(Deserialize)]
struct JsonSchema<'a> {
    #[serde(borrow)]
    schema: Text<'a>,
}

fn read(model: String, body: &[u8]) -> Result<Ask<'_>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: Body<'_> = parse(body)?;
    let Some(messages) = body.messages.filter(|messages| !messages.is_empty()) else {
        return wrong("messages: expected at least one");
    };
    let mut turns = Vec::with_capacity(messages.len());
    let mut is_users_turn = true;
    for message in &messages {
        let is_user = message.role.0 == "user";
        if is_user != is_users_turn || !(is_user || message.role.0 == "assistant") {
            return wrong("A conversation must alternate between user and assistant, and begin with the user.");
        }
        is_users_turn = !is_user;
        let blocks = message.content.get();
        if !blocks.starts_with('[') || blocks == "[]" {
            return wrong("The content field in the Message object is empty.");
        }
        if blocks.contains(r#"{"text":""}"#) {
            return wrong("The text field in the ContentBlock object is blank.");
        }
        if body.tool_config.is_none() && (blocks.contains("\"toolUse\"") || blocks.contains("\"toolResult\"")) {
            return wrong("The toolConfig field must be defined when using toolUse and toolResult content blocks.");
        }
        turns.push((is_user, parse(blocks.as_bytes())?));
    }
    if body.tool_config.as_ref().is_some_and(|config| config.tools.is_empty()) {
        return wrong("toolConfig.tools: expected at least one");
    }
    let config = body.inference_config;
    if config.as_ref().and_then(|config| config.temperature).is_some_and(|value| !(0.0..=1.0).contains(&value)) {
        return wrong("inferenceConfig.temperature: expected 0 to 1");
    }
    let schema = body.output_config.map(|config| config.text_format.structure.json_schema.schema.0);
    let json = schema.map(|schema| JsonAsk::SchemaText(schema.into_owned()));
    let written = body.system.map_or("null", RawValue::get);
    let system: Text<'_> = parse(written.as_bytes())?;
    let (prompt, input_tokens, last_user) = conversation(&[&system.0], turns);
    let tools = body.tool_config.map(|config| config.tools).unwrap_or_default();
    let cache = kept(&tools, written, input_tokens)?;
    let max_output = config.and_then(|config| config.max_tokens);
    Ok(Ask {
        model: Cow::Owned(model),
        prompt,
        input_tokens,
        max_output,
        json,
        last_user,
        embed: None,
        cache,
        logprobs: false,
        tier: body.service_tier.map(|tier| tier.kind.0),
        stream: None,
    })
}

/// The beginning up to the last point among the tools or in the system prompt. Points further behind are not simulated.
fn kept(tools: &[&RawValue], system: &str, input_tokens: u64) -> Result<Option<CacheAsk>, Problem> {
    let system: Vec<&RawValue> = if system.starts_with('[') { parse(system.as_bytes())? } else { Vec::new() };
    let (mut texts, mut last) = (Vec::new(), None);
    for (is_tool, written) in tools.iter().map(|tool| (true, tool)).chain(system.iter().map(|block| (false, block))) {
        let piece: Piece<'_> = parse(written.get().as_bytes())?;
        match piece.cache_point {
            Some(point) => last = Some((texts.len(), point.ttl.is_some_and(|ttl| ttl.0 == "1h"))),
            None if is_tool => texts.push(Cow::Borrowed(written.get())),
            None => texts.push(piece.text.0),
        }
    }
    let Some((end, is_hour)) = last else { return Ok(None) };
    let texts = texts.iter().take(end).map(AsRef::as_ref);
    Ok(CacheAsk::of(texts, if is_hour { Life::Hour } else { Life::FiveMinutes }, input_tokens))
}

fn stream(answer: &Answer<'_>) -> Stream {
    let whole: Value = serde_json::from_slice(&write(answer)).unwrap_or_default();
    let content_type = "application/vnd.amazon.eventstream";
    let mut stream = Stream { content_type, events: Vec::new(), end: 0 };
    let mut add = |name: &str, payload: Value| stream.events.push(frame("event", name, &payload));
    add("messageStart", json!({"role": "assistant", "p": "abcd"}));
    if answer.finish != Finish::Nothing {
        for piece in pieces(answer.text) {
            add("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": piece}, "p": "abc"}));
        }
        add("contentBlockStop", json!({"contentBlockIndex": 0}));
    }
    stream.ends_here();
    let mut add = |name: &str, payload: Value| stream.events.push(frame("event", name, &payload));
    add("messageStop", json!({"stopReason": whole["stopReason"], "p": "ab"}));
    let told = ["usage", "metrics", "serviceTier"].into_iter();
    add("metadata", told.filter_map(|name| Some((name, whole.get(name)?.clone()))).collect());
    stream
}

fn write(answer: &Answer<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(answer.text.len() + 400);
    out.push(b'{');
    if answer.finish != Finish::Nothing {
        out.extend_from_slice(br#""output":{"message":{"role":"assistant","content":[{"text":"#);
        push_json(&mut out, answer.text);
        out.extend_from_slice(br"}]}},");
    }
    let reason = match answer.finish {
        Finish::Stop | Finish::Refused | Finish::Nothing => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Filtered => "content_filtered",
    };
    let _ = write!(out, r#""stopReason":"{reason}","metrics":{{"latencyMs":1}}"#);
    if let Some(usage) = answer.usage {
        let Cached { read, written, for_an_hour } = usage.cached;
        let _ = write!(
            out,
            r#","usage":{{"inputTokens":{},"outputTokens":{},"totalTokens":{}"#,
            usage.uncached(),
            usage.output,
            usage.input + usage.output
        );
        if usage.cached != Cached::default() {
            let _ = write!(out, r#","cacheReadInputTokens":{read},"cacheWriteInputTokens":{written}"#);
        }
        if for_an_hour > 0 {
            let _ = write!(out, r#","cacheDetails":[{{"ttl":"1h","inputTokens":{for_an_hour}}}]"#);
        }
        out.push(b'}');
    }
    if let Some(tier) = answer.tier {
        out.extend_from_slice(br#","serviceTier":{"type":"#);
        push_json(&mut out, tier);
        out.push(b'}');
    }
    out.push(b'}');
    out
}

fn fail(problem: &Problem, told: &Told, model: &str) -> Failure {
    // The real service has the name in a header, too; see `error_header`.
    let error = |status: u16, name: &str, message: &str| {
        let (name, message) = (format!("com.amazon.coral.service#{name}"), with_wait(message.to_owned(), told));
        Failure { status, body: json!({ "__type": name, "message": message }) }
    };
    match problem {
        Problem::Malformed(message) => error(400, "ValidationException", message),
        Problem::UnknownPath => error(404, "UnknownOperationException", "Unknown operation."),
        Problem::MethodNotAllowed => error(405, "UnknownOperationException", "Use POST."),
        Problem::Denied { name, message } => error(403, name, message),
        Problem::Auth => {
            error(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
        }
        Problem::Permission => {
            error(403, "AccessDeniedException", "You don't have access to the model with the specified model ID.")
        }
        Problem::NotFound => error(404, "ResourceNotFoundException", &format!("Could not resolve the model {model}.")),
        Problem::InvalidRequest => {
            error(400, "ValidationException", "The parameter temperature is not supported by this model.")
        }
        Problem::ContextLength => error(400, "ValidationException", "Input is too long for requested model."),
        Problem::ContentPolicy => error(400, "ValidationException", "The request violates our usage policy."),
        Problem::PayloadTooLarge => error(413, "RequestEntityTooLargeException", "The request body is too large."),
        Problem::Timeout => error(408, "ModelTimeoutException", "Model has timed out in processing the request."),
        Problem::ServerError(status) => {
            error(*status, "InternalServerException", "The system encountered an unexpected error.")
        }
        Problem::Overloaded(status) | Problem::NoCapacity(status) => {
            let message = "Bedrock is unable to process your request.";
            error(status.unwrap_or(503), "ServiceUnavailableException", message)
        }
        // Money is a matter of the account: its keys are refused.
        Problem::OutOfQuota(Disguise::TooManyRequests | Disguise::PaymentRequired | Disguise::BadRequest) => {
            error(403, "UnrecognizedClientException", "The account is suspended: payment required.")
        }
        Problem::Limited(Some(shortage)) if shortage.dimension == Dimension::RequestsPerDay => {
            error(429, "ThrottlingException", "Too many requests per day, please wait before trying again.")
        }
        Problem::Limited(_) => error(429, "ThrottlingException", "Too many requests, please wait before trying again."),
    }
}
