//! The types that dialects exchange: a call as it came, the request in it, and the answer or the failure to be written.
//!
//! Every dialect reads into these types and writes from them; no type here knows a dialect.

use super::embedding::{EmbedAsk, Vectors};
use super::fault::Disguise;
use super::prompt::{Text, conversation};
use super::prompt_cache::{CacheAsk, Cached};
use super::quota::Shortage;
use super::wait::Told;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A call as it came over the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// The path after the provider's name, as it was written: a model in it may be percent-encoded.
    pub path: &'a str,
    /// The whole path, which a signature covers.
    pub whole_path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

impl<'a> Call<'a> {
    /// The value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The token of `authorization: Bearer`.
    pub fn bearer(&self) -> Option<&'a str> {
        self.header("authorization").and_then(|value| value.strip_prefix("Bearer "))
    }

    /// The value of a parameter of the query, as it was written.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        let pairs = self.query?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// The request in a call.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub model: Cow<'a, str>,
    /// The same for the same conversation in every dialect.
    pub prompt: u64,
    pub input_tokens: u64,
    pub max_output: Option<u64>,
    pub json: Option<JsonAsk<'a>>,
    pub last_user: Cow<'a, str>,
    /// The inputs that are to become vectors, in a call that wants those.
    pub embed: Option<EmbedAsk>,
    /// The tier that it asks for, in the dialect's word.
    pub tier: Option<Cow<'a, str>>,
    /// Whether it asks for the probabilities of the tokens.
    pub logprobs: bool,
    /// The beginning of the prompt that is to be kept.
    pub cache: Option<CacheAsk>,
    /// The stream that it asks for, in place of a whole answer.
    pub stream: Option<StreamAsk>,
}

/// The call wants a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamAsk {
    /// Whether the stream is to tell its tokens.
    pub usage: bool,
}

impl StreamAsk {
    /// What a body with this `stream` asks for, where streams always tell their tokens.
    pub fn of(stream: Option<bool>) -> Option<Self> {
        (stream == Some(true)).then_some(Self { usage: true })
    }
}

/// OpenAI's `stream_options`.
#[derive(Default, Deserialize)]
pub(crate) struct StreamOptions {
    pub include_usage: Option<bool>,
}

impl<'a> Ask<'a> {
    /// A call that wants vectors. Faults are marked in any of its texts.
    pub fn for_vectors(model: Cow<'a, str>, embed: EmbedAsk) -> Self {
        let turns = embed.texts.iter().map(|text| (true, Text(Cow::Owned(text.clone())))).collect();
        let (prompt, counted, _) = conversation(&[], turns);
        let last_user = Cow::Owned(embed.texts.join("\n"));
        let input_tokens = embed.tokens.unwrap_or(counted);
        Self {
            model,
            prompt,
            input_tokens,
            max_output: None,
            json: None,
            last_user,
            embed: Some(embed),
            cache: None,
            tier: None,
            logprobs: false,
            stream: None,
        }
    }
}

/// The call wants JSON.
#[derive(Debug)]
pub(crate) enum JsonAsk<'a> {
    /// Any object.
    Object,
    /// JSON of this schema.
    Schema(&'a RawValue),
    /// JSON of the schema in this text.
    SchemaText(String),
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
    /// The answer has no choice at all.
    Nothing,
}

/// Tokens as the usage object reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// All input.
    pub input: u64,
    pub output: u64,
    /// The part of the input that was read from the cache or written into it.
    pub cached: Cached,
}

impl Usage {
    /// The input that has nothing to do with the cache.
    pub fn uncached(self) -> u64 {
        self.input.saturating_sub(self.cached.read).saturating_sub(self.cached.written)
    }
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
    /// The tier that served it; `None`: the usual one.
    pub tier: Option<&'a str>,
    /// The vectors, in place of a text.
    pub vectors: Option<&'a Vectors>,
    /// How likely each of its tokens is; `None`: the call does not ask.
    pub confidence: Option<f64>,
}

/// A failure to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Problem {
    /// The API does not take the request; the text says why.
    Malformed(String),
    UnknownPath,
    MethodNotAllowed,
    Auth,
    /// The proof of a key is refused, by this name and in these words.
    Denied {
        name: &'static str,
        message: String,
    },
    Permission,
    NotFound,
    InvalidRequest,
    ContextLength,
    ContentPolicy,
    PayloadTooLarge,
    Timeout,
    ServerError(u16),
    Overloaded(Option<u16>),
    /// The tier that was asked for has no capacity.
    NoCapacity(Option<u16>),
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
    /// Whether sending the same request again can only fail again.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::UnknownPath
            | Self::MethodNotAllowed
            | Self::InvalidRequest
            | Self::ContextLength
            | Self::ContentPolicy
            | Self::PayloadTooLarge => true,
            Self::Limited(shortage) => shortage.is_some_and(|shortage| shortage.is_too_large()),
            // A key and a model can be mended while the request waits.
            Self::Auth
            | Self::Denied { .. }
            | Self::Permission
            | Self::NotFound
            | Self::Timeout
            | Self::ServerError(_)
            | Self::Overloaded(_)
            | Self::NoCapacity(_)
            | Self::OutOfQuota(_) => false,
        }
    }

    /// Whether the client wrote something that the real API would not have understood.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::UnknownPath | Self::MethodNotAllowed)
    }
}

/// Puts a header whose value is made here: digits, letters and punctuation.
pub(crate) fn put(headers: &mut HeaderMap, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Adds the text of a wait to a message.
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

/// Parses a body; an error names the place of the first mistake.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::Malformed(error.to_string()))
}
