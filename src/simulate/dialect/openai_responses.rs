//! OpenAI Responses, from the provider's side.

use super::openai::{fail, limit_headers, write_tokens};
use crate::simulate::api::Api;
use crate::simulate::exchange::{Answer, Ask, Call, Failure, Finish, JsonAsk, Problem, StreamAsk, parse, push_json};
use crate::simulate::prompt::{Text, conversation};
use crate::simulate::prompt_cache::{CacheAsk, Life};
use crate::simulate::quota::{Cost, Levels};
use crate::simulate::stream::{Stream, event, pieces};
use crate::simulate::wait::{Told, WaitFormat};
use bytes::Bytes;
use hyper::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, SystemTime};

/// Responses: `/v1/responses`.
pub(crate) struct Responses;

impl Api for Responses {
    fn name(&self) -> &'static str {
        "openai_responses"
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
        if call.path == "/v1/responses" { read(call.body) } else { Err(Problem::UnknownPath) }
    }

    fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        write(answer)
    }

    fn stream(&self, answer: &Answer<'_>) -> Stream {
        stream(answer)
    }

    fn error_in_stream(&self, _id: &str) -> Bytes {
        let error = json!({"type": "error", "code": "server_error", "message": "The server had an error.",
            "param": null, "sequence_number": 9});
        event("error", error.to_string().as_bytes())
    }

    fn fail(&self, problem: &Problem, told: &Told, model: &str, _id: &str) -> Failure {
        fail(problem, told, model)
    }

    /// A response that failed is a success of HTTP.
    fn error_in_200(&self, id: &str) -> Value {
        json!({"id": format!("resp_{id}"), "object": "response", "status": "failed", "output": [],
            "error": {"code": "server_error", "message": "The model failed to generate a response."}})
    }

    fn tell(&self, wait: Duration, wall: SystemTime) -> Told {
        let message = WaitFormat::Message.tell(wait, wall);
        Told { headers: WaitFormat::RetryAfter.tell(wait, wall).headers, ..message }
    }

    fn cost(&self, input_tokens: u64, max_output: Option<u64>) -> Cost {
        Cost { tokens: input_tokens.max(max_output.unwrap_or(0)), input_tokens }
    }

    fn limit_headers(&self, levels: &Levels, _wall: SystemTime, headers: &mut HeaderMap) {
        limit_headers(levels, headers);
    }
}

/// A body; a field that is not here is refused, as the real API does ("Unknown parameter").
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    instructions: Option<Text<'a>>,
    max_output_tokens: Option<u64>,
    #[serde(borrow)]
    text: Option<TextOptions<'a>>,
    stream: Option<bool>,
    store: Option<bool>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(rename = "tool_choice")]
    _tool_choice: Option<IgnoredAny>,
    #[serde(rename = "parallel_tool_calls")]
    _parallel_tool_calls: Option<IgnoredAny>,
    #[serde(rename = "reasoning")]
    _reasoning: Option<IgnoredAny>,
    #[serde(rename = "temperature")]
    _temperature: Option<IgnoredAny>,
    #[serde(rename = "top_p")]
    _top_p: Option<IgnoredAny>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(rename = "user")]
    _user: Option<IgnoredAny>,
    #[serde(borrow)]
    service_tier: Option<Text<'a>>,
    #[serde(borrow)]
    prompt_cache_key: Option<Text<'a>>,
    #[serde(rename = "prompt_cache_retention")]
    _prompt_cache_retention: Option<IgnoredAny>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<IgnoredAny>,
    #[serde(borrow)]
    include: Option<Vec<Text<'a>>>,
    #[serde(rename = "top_logprobs")]
    _top_logprobs: Option<IgnoredAny>,
    #[serde(rename = "truncation")]
    _truncation: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    parameters: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct TextOptions<'a> {
    #[serde(borrow)]
    format: Option<Format<'a>>,
}

#[derive(Deserialize)]
struct Format<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    name: Option<IgnoredAny>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<Text<'a>>,
    call_id: Option<IgnoredAny>,
}

fn read(body: &[u8]) -> Result<Ask<'_>, Problem> {
    let wrong = |message: &str| Err(Problem::Malformed(message.to_owned()));
    let body: Body<'_> = parse(body)?;
    let Some(model) = body.model.filter(|model| !model.0.is_empty()) else {
        return wrong("Missing required parameter: 'model'.");
    };
    let Some(input) = body.input.map(RawValue::get) else {
        return wrong("Missing required parameter: 'input'.");
    };
    if body.store != Some(false) {
        return wrong("The simulator keeps no responses: say that 'store' is false.");
    }
    if body.max_output_tokens.is_some_and(|most| most < 16) {
        return wrong("Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16.");
    }
    let tools = body.tools.map_or("[]", RawValue::get);
    if parse::<Vec<Tool<'_>>>(tools.as_bytes())?
        .into_iter()
        .any(|tool| tool.name.is_none() || tool.parameters.is_none())
    {
        return wrong("Missing required parameter: 'tools[0].name'.");
    }
    let turns = if input.starts_with('"') {
        vec![(true, parse::<Text<'_>>(input.as_bytes())?)]
    } else {
        let items: Vec<Item<'_>> = parse(input.as_bytes())?;
        let mut turns = Vec::with_capacity(items.len());
        for item in items {
            match (item.kind.as_ref().map(|kind| kind.0.as_ref()), item.role.as_ref().map(|role| role.0.as_ref())) {
                (None | Some("message"), Some(role @ ("user" | "system" | "developer" | "assistant"))) => {
                    let text = item.content.map(RawValue::get).unwrap_or_default();
                    // The type of a part depends on the speaker.
                    let other = if role == "assistant" { "\"input_text\"" } else { "\"output_text\"" };
                    if text.starts_with('[') && text.contains(other) {
                        return wrong("Invalid value: 'input[].content[].type'.");
                    }
                    turns.push((role == "user", parse(text.as_bytes())?));
                }
                (Some("function_call"), _) if item.call_id.is_some() => {}
                (Some("function_call_output"), _) if item.call_id.is_some() => {
                    turns.push((false, item.output.unwrap_or_default()));
                }
                _ => return wrong("Invalid value: 'input[].type'."),
            }
        }
        turns
    };
    let json = match body.text.and_then(|text| text.format) {
        None => None,
        Some(format) => match (format.kind.as_ref().map(|kind| kind.0.as_ref()), format.name, format.schema) {
            (Some("text"), ..) => None,
            (Some("json_object"), ..) => Some(JsonAsk::Object),
            (Some("json_schema"), Some(_), Some(schema)) => Some(JsonAsk::Schema(schema)),
            _ => return wrong("Missing required parameter: 'text.format.name'."),
        },
    };
    let instructions = body.instructions.unwrap_or_default();
    let (prompt, input_tokens, last_user) = conversation(&[&instructions.0], turns);
    let cache = body.prompt_cache_key.and_then(|key| {
        let texts = body.tools.map(RawValue::get).into_iter().chain([instructions.0.as_ref()]);
        Some(CacheAsk::of(texts, Life::Free, input_tokens)?.under(&key.0))
    });
    Ok(Ask {
        model: model.0,
        prompt,
        input_tokens,
        max_output: body.max_output_tokens,
        json,
        last_user,
        embed: None,
        cache,
        logprobs: body.include.iter().flatten().any(|wanted| wanted.0 == "message.output_text.logprobs"),
        tier: body.service_tier.map(|tier| tier.0),
        stream: StreamAsk::of(body.stream),
    })
}

/// Events around the whole response, which comes with the last of them.
fn stream(answer: &Answer<'_>) -> Stream {
    let whole: Value = serde_json::from_slice(&write(answer)).unwrap_or_default();
    let mut begun = whole.clone();
    begun["status"] = "in_progress".into();
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    let mut stream = Stream::of_events();
    let mut number = 0;
    let mut add = |stream: &mut Stream, kind: &str, mut data: Value| {
        data["type"] = kind.into();
        data["sequence_number"] = number.into();
        number += 1;
        stream.named(&data);
    };
    add(&mut stream, "response.created", json!({ "response": begun }));
    add(&mut stream, "response.in_progress", json!({ "response": begun }));
    if answer.finish != Finish::Nothing {
        let kind = if answer.finish == Finish::Refused { "refusal" } else { "output_text" };
        let item = json!({"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant",
            "content": []});
        add(&mut stream, "response.output_item.added", json!({"output_index": 0, "item": item}));
        for piece in pieces(answer.text) {
            let delta = json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": piece});
            add(&mut stream, &format!("response.{kind}.delta"), delta);
        }
    }
    stream.ends_here();
    let last = if whole["status"] == "completed" { "response.completed" } else { "response.incomplete" };
    add(&mut stream, last, json!({ "response": whole }));
    stream
}

fn write(answer: &Answer<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(answer.text.len() + 700);
    let (status, details) = match answer.finish {
        Finish::Stop | Finish::Refused | Finish::Nothing => ("completed", "null"),
        Finish::Length => ("incomplete", r#"{"reason":"max_output_tokens"}"#),
        Finish::Filtered => ("incomplete", r#"{"reason":"content_filter"}"#),
    };
    let _ = write!(
        out,
        concat!(
            r#"{{"id":"resp_{}","object":"response","created_at":{},"status":"{}","error":null,"#,
            r#""incomplete_details":{},"model":"#
        ),
        answer.id, answer.created, status, details
    );
    push_json(&mut out, answer.model);
    if answer.finish != Finish::Nothing {
        // The words come first, so that a reader that takes the first item finds them.
        let (kind, key) =
            if answer.finish == Finish::Refused { ("refusal", "refusal") } else { ("output_text", "text") };
        let _ = write!(
            out,
            concat!(
                r#","output":[{{"type":"message","id":"msg_1","status":"{}","role":"assistant","#,
                r#""content":[{{"type":"{}","{}":"#
            ),
            status, kind, key
        );
        push_json(&mut out, answer.text);
        if kind == "output_text" {
            out.extend_from_slice(br#","annotations":[],"logprobs":"#);
            write_tokens(answer, answer.text, &mut out);
        }
        out.extend_from_slice(br#"}]},{"type":"reasoning","id":"rs_1","summary":[]}]"#);
    }
    if let Some(usage) = answer.usage {
        let _ = write!(
            out,
            concat!(
                r#","usage":{{"input_tokens":{},"input_tokens_details":{{"cached_tokens":{}}},"output_tokens":{},"#,
                r#""output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}}"#
            ),
            usage.input,
            usage.cached.read,
            usage.output,
            usage.input + usage.output
        );
    }
    out.extend_from_slice(br#","parallel_tool_calls":true,"store":false,"service_tier":"#);
    push_json(&mut out, answer.tier.unwrap_or("default"));
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::exchange::Usage;
    use crate::simulate::prompt_cache::Cached;

    #[test]
    fn probabilities_come_where_they_are_asked_for() {
        let body = |include: Value| {
            json!({"model": "m", "input": "Hi", "store": false, "include": include, "top_logprobs": 2}).to_string()
        };
        let plain = read(body(json!([])).as_bytes()).map(|ask| ask.logprobs).ok();
        let asked = read(body(json!(["message.output_text.logprobs"])).as_bytes()).map(|ask| ask.logprobs).ok();
        assert_eq!((plain, asked), (Some(false), Some(true)));
        for (confidence, tokens) in [(None, 0), (Some(0.5), 3)] {
            let usage = Some(Usage { input: 1, output: 2, cached: Cached::default() });
            let answer = Answer {
                id: "1",
                created: 1,
                model: "m",
                text: "nine signs",
                finish: Finish::Stop,
                usage,
                tier: None,
                vectors: None,
                confidence,
            };
            let written: Value = serde_json::from_slice(&write(&answer)).unwrap();
            let logprobs = written.pointer("/output/0/content/0/logprobs").and_then(Value::as_array).unwrap();
            assert_eq!(logprobs.len(), tokens, "{written}");
            assert!(logprobs.iter().all(|token| token["logprob"].as_f64().is_some_and(|sure| sure < -0.69)));
        }
    }
}
