//! Google Gemini `generateContent`, from the provider's side.

use crate::simulate::api::Api;
use crate::simulate::embedding::{EmbedAsk, Vectors};
use crate::simulate::exchange::{Answer, Ask, Call, Failure, Finish, JsonAsk, Problem, StreamAsk, parse, push_json};
use crate::simulate::fault::Disguise;
use crate::simulate::prompt::{Text, conversation};
use crate::simulate::quota::Dimension;
use crate::simulate::stream::{Stream, pieces};
use crate::simulate::wait::{Told, WaitFormat};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::Write;
use std::time::{Duration, SystemTime};

/// Content generation and embeddings: `/v1beta/models/{model}:generateContent`, `…:batchEmbedContents`.
pub(crate) struct Gemini;

impl Api for Gemini {
    fn name(&self) -> &'static str {
        "gemini"
    }

    fn base_path(&self) -> &'static str {
        "/v1beta"
    }

    fn id_header(&self) -> Option<&'static str> {
        Some("x-request-id")
    }

    fn request_id(&self, run: u32, seq: u64) -> String {
        format!("{run:08x}{seq:012x}")
    }

    fn key<'a>(&self, call: &Call<'a>) -> Option<&'a str> {
        call.header("x-goog-api-key").or_else(|| call.parameter("key"))
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
        let rest = call.path.strip_prefix("/v1beta/models/").ok_or(Problem::UnknownPath)?;
        if let Some(model) = rest.strip_suffix(":batchEmbedContents") {
            return read_embed(model, call.body);
        }
        if let Some(model) = rest.strip_suffix(":streamGenerateContent") {
            // Without this parameter the pieces come as one array.
            if call.parameter("alt") != Some("sse") {
                return Err(Problem::Malformed("The simulator streams events only: say alt=sse.".to_owned()));
            }
            return Ok(Ask { stream: StreamAsk::of(Some(true)), ..read(model, call.body)? });
        }
        read(rest.strip_suffix(":generateContent").ok_or(Problem::UnknownPath)?, call.body)
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

    fn tell(&self, wait: Duration, wall: SystemTime) -> Told {
        let message = WaitFormat::Message.tell(wait, wall).message;
        Told { message, ..WaitFormat::RetryInfo.tell(wait, wall) }
    }
}

/// A body; a field that is not here is refused, as the real API does ("Unknown name"). Both spellings are taken.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    contents: Option<Vec<Content<'a>>>,
    #[serde(borrow, alias = "system_instruction")]
    system_instruction: Option<Content<'a>>,
    #[serde(borrow, alias = "generation_config")]
    generation_config: Option<GenerationConfig<'a>>,
    #[serde(rename = "tools")]
    _tools: Option<IgnoredAny>,
    #[serde(rename = "toolConfig", alias = "tool_config")]
    _tool_config: Option<IgnoredAny>,
    #[serde(rename = "safetySettings", alias = "safety_settings")]
    _safety_settings: Option<IgnoredAny>,
    #[serde(rename = "cachedContent", alias = "cached_content")]
    _cached_content: Option<IgnoredAny>,
    #[serde(borrow, rename = "serviceTier", alias = "service_tier")]
    service_tier: Option<Text<'a>>,
    #[serde(rename = "store")]
    _store: Option<IgnoredAny>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    #[serde(rename = "model")]
    _model: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content<'a> {
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow, default)]
    parts: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    #[serde(alias = "max_output_tokens")]
    max_output_tokens: Option<u64>,
    #[serde(borrow, alias = "response_mime_type")]
    response_mime_type: Option<Text<'a>>,
    #[serde(borrow, alias = "response_schema")]
    response_schema: Option<&'a RawValue>,
    #[serde(borrow, alias = "response_json_schema")]
    response_json_schema: Option<&'a RawValue>,
    #[serde(borrow, alias = "response_format")]
    response_format: Option<ResponseFormat<'a>>,
    /// OpenAI's and Anthropic's names, which the real API refuses.
    max_tokens: Option<IgnoredAny>,
    #[serde(rename = "stop")]
    stop: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ResponseFormat<'a> {
    #[serde(borrow)]
    text: Option<TextFormat<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TextFormat<'a> {
    #[serde(borrow, alias = "mime_type")]
    mime_type: Option<Text<'a>>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
}

fn read<'a>(model: &'a str, body: &'a [u8]) -> Result<Ask<'a>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: Body<'_> = parse(body)?;
    let Some(contents) = body.contents.filter(|contents| !contents.is_empty()) else {
        return wrong("* GenerateContentRequest.contents: contents is not specified");
    };
    let mut turns = Vec::with_capacity(contents.len());
    for content in contents {
        match content.role.as_ref().map_or("user", |role| role.0.as_ref()) {
            "user" | "function" | "" => turns.push((true, content.parts)),
            "model" => turns.push((false, content.parts)),
            _ => return wrong("Please use a valid role: user, model."),
        }
    }
    let mut json = None;
    let mut max_output = None;
    if let Some(config) = body.generation_config {
        if config.max_tokens.is_some() || config.stop.is_some() {
            return wrong("Invalid JSON payload received. Unknown name at 'generation_config': Cannot find field.");
        }
        max_output = config.max_output_tokens;
        let newer = config.response_format.and_then(|format| format.text);
        let (newer_mime, newer_schema) = newer.map_or((None, None), |text| (text.mime_type, text.schema));
        let schema = config.response_json_schema.or(config.response_schema).or(newer_schema);
        let is_json = |mime: &Text<'_>| mime.0 == "application/json";
        let wants_json = config.response_mime_type.or(newer_mime).as_ref().is_some_and(is_json);
        json = match (wants_json, schema) {
            (true, Some(schema)) => Some(JsonAsk::Schema(schema)),
            (true, None) => Some(JsonAsk::Object),
            (false, Some(_)) => {
                return wrong(
                    "* GenerateContentRequest.generation_config.response_schema: only allowed with response_mime_type \
                     application/json",
                );
            }
            (false, None) => None,
        };
    }
    let system = body.system_instruction.map(|content| content.parts).unwrap_or_default();
    let (prompt, input_tokens, last_user) = conversation(&[&system.0], turns);
    Ok(Ask {
        model: Cow::Borrowed(model),
        prompt,
        input_tokens,
        max_output,
        json,
        last_user,
        embed: None,
        cache: None,
        logprobs: false,
        tier: body.service_tier.map(|tier| tier.0),
        stream: None,
    })
}

/// A body that wants vectors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbedBody<'a> {
    #[serde(borrow)]
    requests: Vec<EmbedItem<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EmbedItem<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    content: Content<'a>,
    #[serde(rename = "taskType")]
    _task_type: Option<IgnoredAny>,
    output_dimensionality: Option<usize>,
}

fn read_embed<'a>(model: &'a str, body: &'a [u8]) -> Result<Ask<'a>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: EmbedBody<'_> = parse(body)?;
    if body.requests.is_empty() || body.requests.len() > 100 {
        return wrong("BatchEmbedContentsRequest.requests: from 1 to 100 requests can be in one batch");
    }
    if body.requests.iter().any(|item| item.model.0.strip_prefix("models/") != Some(model)) {
        return wrong("BatchEmbedContentsRequest.requests[].model: must match the model of the batch");
    }
    if body.requests.iter().any(|item| item.content.parts.0.is_empty()) {
        return wrong("content contains an empty Part");
    }
    let dimension = body.requests.first().and_then(|item| item.output_dimensionality);
    let texts = body.requests.into_iter().map(|item| item.content.parts.0.into_owned()).collect();
    Ok(Ask::for_vectors(Cow::Borrowed(model), EmbedAsk { texts, tokens: None, dimension, base64: false }))
}

/// Without usage, as the real API.
fn write_vectors(vectors: &Vectors) -> Vec<u8> {
    let mut out = br#"{"embeddings":["#.to_vec();
    for (index, vector) in vectors.list.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"values":"#);
        vectors.push(vector, &mut out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// The answer in pieces, each as the whole one with as much text. There is no event after the last.
fn stream(answer: &Answer<'_>) -> Stream {
    let mut stream = Stream::of_events();
    let pieces = match answer.finish {
        Finish::Stop | Finish::Length => pieces(answer.text),
        Finish::Nothing | Finish::Filtered | Finish::Refused => Vec::new(),
    };
    let (last, before) = pieces.split_last().map_or((answer.text, &[][..]), |(last, before)| (*last, before));
    let of_piece = |piece: &str| write(&Answer { text: piece, vectors: None, ..*answer });
    for piece in before {
        let mut value: Value = serde_json::from_slice(&of_piece(piece)).unwrap_or_default();
        if let Some(candidate) = value["candidates"][0].as_object_mut() {
            candidate.remove("finishReason");
        }
        if let Some(usage) = value["usageMetadata"].as_object_mut() {
            usage.remove("candidatesTokenCount");
        }
        stream.data(value.to_string());
    }
    stream.ends_here();
    stream.data(of_piece(last));
    stream
}

fn write(answer: &Answer<'_>) -> Vec<u8> {
    if let Some(vectors) = answer.vectors {
        return write_vectors(vectors);
    }
    let mut out = Vec::with_capacity(answer.text.len() + 500);
    match answer.finish {
        Finish::Nothing => out.extend_from_slice(br#"{"promptFeedback":{"blockReason":"OTHER"}"#),
        Finish::Filtered => out.extend_from_slice(br#"{"promptFeedback":{"blockReason":"SAFETY"}"#),
        Finish::Refused => {
            out.extend_from_slice(br#"{"candidates":[{"finishReason":"PROHIBITED_CONTENT","index":0}]"#);
        }
        Finish::Stop | Finish::Length => {
            out.extend_from_slice(br#"{"candidates":[{"content":{"parts":[{"text":"#);
            push_json(&mut out, answer.text);
            let finish = if answer.finish == Finish::Length { "MAX_TOKENS" } else { "STOP" };
            let _ = write!(out, r#"}}],"role":"model"}},"finishReason":"{finish}","index":0}}]"#);
        }
    }
    if let Some(usage) = answer.usage {
        let _ = write!(
            out,
            r#","usageMetadata":{{"promptTokenCount":{},"candidatesTokenCount":{},"totalTokenCount":{},"serviceTier":"#,
            usage.input,
            usage.output,
            usage.input + usage.output
        );
        push_json(&mut out, answer.tier.unwrap_or("standard"));
        out.push(b'}');
    }
    out.extend_from_slice(br#","modelVersion":"#);
    push_json(&mut out, answer.model);
    let _ = write!(out, r#","responseId":"{}"}}"#, answer.id);
    out
}

fn fail(problem: &Problem, told: &Told, model: &str) -> Failure {
    let error = |code: u16, status: &str, message: &str, mut details: Vec<Value>| {
        if let Some(delay) = &told.retry_info {
            details.push(json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}));
        }
        let message = match &told.message {
            Some(wait) => format!("{message} Please retry in {wait}."),
            None => message.to_owned(),
        };
        let mut error = json!({"code": code, "message": message, "status": status});
        if !details.is_empty() {
            error["details"] = Value::Array(details);
        }
        Failure { status: code, body: json!({ "error": error }) }
    };
    let quota = |metric: &str, id: &str, value: u64| {
        vec![
            json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{
                "quotaMetric": format!("generativelanguage.googleapis.com/{metric}"), "quotaId": id,
                "quotaDimensions": {"location": "global", "model": model}, "quotaValue": value.to_string()}]}),
            json!({"@type": "type.googleapis.com/google.rpc.Help", "links": [{
                "description": "Learn more about Gemini API quotas",
                "url": "https://ai.google.dev/gemini-api/docs/rate-limits"}]}),
        ]
    };
    let exceeded = "You exceeded your current quota, please check your plan and billing details.";
    match problem {
        Problem::Malformed(message) => error(400, "INVALID_ARGUMENT", message, vec![]),
        Problem::UnknownPath => error(404, "NOT_FOUND", "Requested entity was not found.", vec![]),
        Problem::MethodNotAllowed => error(405, "UNIMPLEMENTED", "Method not allowed.", vec![]),
        Problem::Auth | Problem::Denied { .. } => {
            let details = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"}});
            error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", vec![details])
        }
        Problem::Permission => {
            error(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key.", vec![])
        }
        Problem::NotFound => {
            error(404, "NOT_FOUND", &format!("models/{model} is not found for API version v1beta."), vec![])
        }
        Problem::InvalidRequest => {
            error(400, "INVALID_ARGUMENT", "Invalid value at 'generation_config.temperature'.", vec![])
        }
        Problem::ContextLength => {
            let message = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).";
            error(400, "INVALID_ARGUMENT", message, vec![])
        }
        // A forbidden prompt is answered with 200 and no candidates.
        Problem::ContentPolicy => Failure {
            status: 200,
            body: json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": model}),
        },
        Problem::PayloadTooLarge => error(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit.", vec![]),
        Problem::Timeout => {
            error(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.", vec![])
        }
        Problem::ServerError(status) => error(*status, "INTERNAL", "An internal error has occurred.", vec![]),
        Problem::Overloaded(status) | Problem::NoCapacity(status) => {
            let message = "The model is overloaded. Please try again later.";
            error(status.unwrap_or(503), "UNAVAILABLE", message, vec![])
        }
        Problem::OutOfQuota(Disguise::PaymentRequired) => {
            error(402, "RESOURCE_EXHAUSTED", "Your prepaid credit is used up. payment_required", vec![])
        }
        Problem::OutOfQuota(Disguise::TooManyRequests) => {
            let message = "Your prepayment credits are depleted. Please manage your project's billing.";
            error(429, "RESOURCE_EXHAUSTED", message, vec![])
        }
        Problem::OutOfQuota(Disguise::BadRequest) => {
            error(400, "FAILED_PRECONDITION", "Please enable billing on your project.", vec![])
        }
        Problem::Limited(None) => {
            let id = "GenerateRequestsPerMinutePerProjectPerModel";
            error(429, "RESOURCE_EXHAUSTED", exceeded, quota("generate_content_paid_tier_requests", id, 1000))
        }
        Problem::Limited(Some(shortage)) => {
            let (metric, id) = match shortage.dimension {
                Dimension::Requests | Dimension::Concurrency | Dimension::Growth => {
                    ("generate_content_paid_tier_requests", "GenerateRequestsPerMinutePerProjectPerModel")
                }
                Dimension::RequestsPerDay => {
                    ("generate_content_paid_tier_requests", "GenerateRequestsPerDayPerProjectPerModel")
                }
                Dimension::Tokens | Dimension::InputTokens | Dimension::OutputTokens => {
                    ("generate_content_paid_tier_input_token_count", "GenerateContentInputTokensPerModelPerMinute")
                }
            };
            let message = format!("{exceeded} Quota exceeded for metric: {metric}, limit: {}.", shortage.limit);
            error(429, "RESOURCE_EXHAUSTED", &message, quota(metric, id, shortage.limit))
        }
    }
}
