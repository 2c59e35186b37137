//! What the three dialects have in common: a call as read, an answer or a problem as written.
//!
//! This is the provider's side, written from the providers' documentation and without a look at Sluice's own adapters,
//! so that each checks the other.

use super::fault::Disguise;
use super::prompt::{PromptHash, Text};
use super::quota::{Cost, Levels, Shortage};
use super::wait::{Told, WaitFormat};
use super::{anthropic, gemini, openai};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// An API that the simulator speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI chat completions: `/v1/chat/completions`.
    Openai,
    /// Anthropic Messages: `/v1/messages`.
    Anthropic,
    /// Google Gemini: `/v1beta/models/{model}:generateContent`.
    Gemini,
}

/// A call as read from the wire.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub model: Cow<'a, str>,
    /// The same for the same conversation in every dialect.
    pub prompt: u64,
    pub input_tokens: u64,
    pub max_output: Option<u64>,
    pub json: Option<JsonAsk<'a>>,
    pub last_user: Cow<'a, str>,
}

/// The call wants JSON.
#[derive(Debug)]
pub(crate) enum JsonAsk<'a> {
    /// Any object.
    Object,
    /// What this schema says.
    Schema(&'a RawValue),
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Length,
    /// The provider's filter stopped it.
    Filtered,
    /// The model declined, and the dialect marks it.
    Refused,
    /// No choice at all.
    Nothing,
}

/// Tokens as the usage object tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub input: u64,
    pub output: u64,
}

/// A generation to be written.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub id: &'a str,
    /// Seconds since the epoch.
    pub created: u64,
    pub model: &'a str,
    pub text: &'a str,
    pub finish: Finish,
    pub usage: Option<Usage>,
}

/// A failure to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Problem {
    /// The request is not what the API takes; the words say why.
    Malformed(String),
    UnknownPath,
    MethodNotAllowed,
    Auth,
    Permission,
    NotFound,
    InvalidRequest,
    ContextLength,
    ContentPolicy,
    PayloadTooLarge,
    Timeout,
    ServerError(u16),
    Overloaded(Option<u16>),
    OutOfQuota(Disguise),
    /// 429: out of a real quota, or by a fault.
    Limited(Option<Shortage>),
}

/// A failure as written.
#[derive(Debug)]
pub(crate) struct Failure {
    pub status: u16,
    pub body: Value,
}

impl Problem {
    /// Sending the same request again can only fail again.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::UnknownPath
            | Self::MethodNotAllowed
            | Self::NotFound
            | Self::InvalidRequest
            | Self::ContextLength
            | Self::ContentPolicy
            | Self::PayloadTooLarge => true,
            Self::Limited(shortage) => shortage.is_some_and(|shortage| shortage.is_too_large()),
            Self::Auth
            | Self::Permission
            | Self::Timeout
            | Self::ServerError(_)
            | Self::Overloaded(_)
            | Self::OutOfQuota(_) => false,
        }
    }

    /// The client wrote something that the real API would not have understood.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::UnknownPath | Self::MethodNotAllowed)
    }
}

impl Dialect {
    /// What follows the simulator's address and the provider's name in the `base_url` to configure.
    #[must_use]
    pub const fn base_path(self) -> &'static str {
        match self {
            Self::Openai | Self::Anthropic => "/v1",
            Self::Gemini => "/v1beta",
        }
    }

    /// The header that carries the request id.
    pub(crate) const fn id_header(self) -> HeaderName {
        match self {
            Self::Openai | Self::Gemini => HeaderName::from_static("x-request-id"),
            Self::Anthropic => HeaderName::from_static("request-id"),
        }
    }

    /// The id of a call: unique within a run of the simulator, and between runs as far as `run` is.
    pub(crate) fn request_id(self, run: u32, seq: u64) -> String {
        match self {
            Self::Openai => format!("req_{run:08x}{seq:024x}"),
            Self::Anthropic => format!("req_011C{run:08x}{seq:012x}"),
            Self::Gemini => format!("{run:08x}{seq:012x}"),
        }
    }

    /// The key of a call.
    pub(crate) fn key<'h>(self, headers: &'h HeaderMap, query: Option<&'h str>) -> Option<&'h str> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = || header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match self {
            Self::Openai => bearer(),
            Self::Anthropic => header("x-api-key").or_else(bearer),
            Self::Gemini => header("x-goog-api-key")
                .or_else(|| query?.split('&').find_map(|parameter| parameter.strip_prefix("key="))),
        }
    }

    /// Reads a call; `path` is what follows the provider's name.
    pub(crate) fn read<'a>(self, path: &'a str, headers: &HeaderMap, body: &'a [u8]) -> Result<Ask<'a>, Problem> {
        match self {
            Self::Openai if path == "/v1/chat/completions" => openai::read(body),
            Self::Anthropic if path == "/v1/messages" => anthropic::read(headers, body),
            Self::Gemini => {
                let model = path.strip_prefix("/v1beta/models/").and_then(|rest| rest.strip_suffix(":generateContent"));
                gemini::read(model.ok_or(Problem::UnknownPath)?, body)
            }
            Self::Openai | Self::Anthropic => Err(Problem::UnknownPath),
        }
    }

    /// Writes an answer.
    pub(crate) fn write(self, answer: &Answer<'_>) -> Vec<u8> {
        match self {
            Self::Openai => openai::write(answer),
            Self::Anthropic => anthropic::write(answer),
            Self::Gemini => gemini::write(answer),
        }
    }

    /// Writes a failure.
    pub(crate) fn fail(self, problem: &Problem, told: &Told, model: &str, id: &str) -> Failure {
        match self {
            Self::Openai => openai::fail(problem, told, model),
            Self::Anthropic => anthropic::fail(problem, told, model, id),
            Self::Gemini => gemini::fail(problem, told, model),
        }
    }

    /// The error object that some gateways put into a 200.
    pub(crate) fn error_in_200(self, id: &str) -> Value {
        match self {
            Self::Openai => openai::error_in_200(),
            Self::Anthropic => anthropic::fail(&Problem::Overloaded(None), &Told::default(), "", id).body,
            Self::Gemini => gemini::fail(&Problem::Overloaded(None), &Told::default(), "").body,
        }
    }

    /// Tells a wait in the given format, or as the dialect does.
    pub(crate) fn tell(self, wait: Duration, format: Option<WaitFormat>, wall: SystemTime) -> Told {
        if let Some(format) = format {
            return format.tell(wait, wall);
        }
        match self {
            // The header rounds up, the message does not: a reader may rely on either.
            Self::Openai => {
                let message = WaitFormat::Message.tell(wait, wall);
                Told { headers: WaitFormat::RetryAfter.tell(wait, wall).headers, ..message }
            }
            Self::Anthropic => WaitFormat::RetryAfter.tell(wait, wall),
            Self::Gemini => {
                let message = WaitFormat::Message.tell(wait, wall).message;
                Told { message, ..WaitFormat::RetryInfo.tell(wait, wall) }
            }
        }
    }

    /// What a call takes from the token buckets when it is admitted.
    ///
    /// OpenAI reserves the larger of `max_tokens` and the prompt and does not correct it. Anthropic takes the input at
    /// once and the output when it has been produced. Gemini counts input only.
    pub(crate) fn cost(self, input_tokens: u64, max_output: Option<u64>) -> Cost {
        let tokens = match self {
            Self::Openai => input_tokens.max(max_output.unwrap_or(0)),
            Self::Anthropic | Self::Gemini => input_tokens,
        };
        Cost { tokens, input_tokens }
    }

    /// What a call takes from the bucket of all tokens when it has ended.
    pub(crate) fn cost_afterwards(self, output_tokens: u64) -> u64 {
        match self {
            Self::Anthropic => output_tokens,
            Self::Openai | Self::Gemini => 0,
        }
    }

    /// The limits as headers; Gemini has none.
    pub(crate) fn limit_headers(self, levels: &Levels, wall: SystemTime, headers: &mut HeaderMap) {
        match self {
            Self::Openai => openai::limit_headers(levels, headers),
            Self::Anthropic => anthropic::limit_headers(levels, wall, headers),
            Self::Gemini => {}
        }
    }
}

/// Puts a header whose value is made here: digits, letters and punctuation.
pub(crate) fn put(headers: &mut HeaderMap, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Adds the words of a wait to a message.
pub(crate) fn with_wait(message: String, told: &Told) -> String {
    match &told.message {
        Some(wait) => format!("{message} Please try again in {wait}."),
        None => message,
    }
}

/// Appends a string as JSON.
pub(crate) fn push_json(out: &mut Vec<u8>, text: &str) {
    // Writing a string to a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Parses a body, with the place of the first mistake.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::Malformed(error.to_string()))
}

/// A conversation: its system texts and its messages in order, and which message is the last of the user.
pub(crate) fn conversation<'a>(system: &[&str], mut messages: Vec<(bool, Text<'a>)>) -> (u64, u64, Cow<'a, str>) {
    let mut hash = PromptHash::default();
    for text in system {
        hash.text(text);
    }
    for (_, text) in &messages {
        hash.text(&text.0);
    }
    let last = messages.iter().rposition(|(is_user, _)| *is_user);
    let last_user = last.map(|index| messages.swap_remove(index).1.0).unwrap_or_default();
    (hash.finish(), hash.tokens(), last_user)
}
