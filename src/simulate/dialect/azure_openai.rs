//! Azure OpenAI, from the provider's side: OpenAI's bodies at the classic address, with the deployment in the path.

use super::openai::{fail, read, read_embeddings, stream, write};
use crate::simulate::api::Api;
use crate::simulate::exchange::{Answer, Ask, Call, Failure, Problem, put};
use crate::simulate::quota::{Cost, Level, Levels};
use crate::simulate::stream::Stream;
use crate::simulate::wait::{Told, WaitFormat};
use hyper::HeaderMap;
use serde_json::json;
use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// Chat completions, and embeddings beside them: `/openai/deployments/{deployment}/chat/completions`, and
/// `/openai/v1/chat/completions`.
pub(crate) struct Azure;

impl Api for Azure {
    fn name(&self) -> &'static str {
        "azure_openai"
    }

    fn base_path(&self) -> &'static str {
        "/openai"
    }

    fn id_header(&self) -> Option<&'static str> {
        Some("apim-request-id")
    }

    fn request_id(&self, run: u32, seq: u64) -> String {
        format!("{run:08x}-0000-4000-8000-{seq:012x}")
    }

    fn key<'a>(&self, call: &Call<'a>) -> Option<&'a str> {
        call.header("api-key").or_else(|| call.bearer())
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
        match call.path {
            "/openai/v1/chat/completions" => return read(call.body),
            "/openai/v1/embeddings" => return read_embeddings(call.body),
            _ => {}
        }
        let rest = call.path.strip_prefix("/openai/deployments/").ok_or(Problem::UnknownPath)?;
        let embeddings = rest.strip_suffix("/embeddings");
        let deployment = embeddings.or_else(|| rest.strip_suffix("/chat/completions")).ok_or(Problem::UnknownPath)?;
        if deployment.contains('/') || call.parameter("api-version").is_none() {
            return Err(Problem::UnknownPath);
        }
        // The model in the body does not count.
        let model = deployment.replace("%2F", "/").replace("%3A", ":").replace("%20", " ");
        let ask = if embeddings.is_some() { read_embeddings(call.body) } else { read(call.body) };
        Ok(Ask { model: Cow::Owned(model), ..ask? })
    }

    fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        write(answer)
    }

    fn stream(&self, answer: &Answer<'_>) -> Stream {
        stream(answer)
    }

    fn fail(&self, problem: &Problem, told: &Told, model: &str, _id: &str) -> Failure {
        let body = |status: u16, code: &str, message: &str| Failure {
            status,
            body: json!({ "error": { "code": code, "message": message } }),
        };
        match problem {
            Problem::UnknownPath => body(404, "404", "Resource not found"),
            Problem::Auth | Problem::Denied { .. } => {
                body(401, "401", "Access denied due to invalid subscription key or wrong API endpoint.")
            }
            Problem::NotFound => {
                body(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
            }
            Problem::Overloaded(None) => {
                let message = "The service is temporarily unable to process your request. Please try again later.";
                body(429, "429", message)
            }
            Problem::ContentPolicy => Failure {
                status: 400,
                body: json!({ "error": { "code": "content_filter", "status": 400, "param": "prompt", "type": null,
                    "message": "The response was filtered due to the prompt triggering Azure OpenAI's content \
                                management policy.",
                    "innererror": { "code": "ResponsibleAIPolicyViolation", "content_filter_result": {
                        "violence": { "filtered": true, "severity": "high" } } } } }),
            },
            _ => fail(problem, told, model),
        }
    }

    fn tell(&self, wait: Duration, wall: SystemTime) -> Told {
        WaitFormat::RetryAfterAndZeroMs.tell(wait, wall)
    }

    /// The prompt and the output cap together.
    fn cost(&self, input_tokens: u64, max_output: Option<u64>) -> Cost {
        Cost { tokens: input_tokens.saturating_add(max_output.unwrap_or(0)), input_tokens }
    }

    /// OpenAI's names, with resets in whole seconds.
    fn limit_headers(&self, levels: &Levels, _wall: SystemTime, headers: &mut HeaderMap) {
        let mut family = |names: [&'static str; 3], level: Option<Level>| {
            let Some(level) = level else { return };
            put(headers, names[0], level.limit.to_string());
            put(headers, names[1], level.remaining.to_string());
            put(headers, names[2], level.until_full.as_secs_f64().ceil().to_string());
        };
        family(
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
            levels.requests,
        );
        family(["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"], levels.tokens);
    }
}
