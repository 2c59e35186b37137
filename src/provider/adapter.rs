//! The translation between the domain and one dialect, as pure functions.

use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, ChatRequest, Failure, Timestamp, Usage};
use crate::provider::LimitObservation;
use crate::provider::anthropic::Anthropic;
use crate::provider::gemini::Gemini;
use crate::provider::limit_headers::{self, Conventions};
use crate::provider::names::Undo;
use crate::provider::openai;
use reqwest::header::{DATE, HeaderMap};
use secrecy::SecretString;
use serde_json::Value;
use std::time::UNIX_EPOCH;

/// An HTTP request as a dialect wants it, without the key.
#[derive(Clone, Debug)]
pub struct WireRequest {
    /// Appended to the provider's base URL; starts with a slash.
    pub path: String,
    /// Headers that the dialect demands beside `content-type` and the key.
    pub headers: HeaderMap,
    /// The JSON body.
    pub body: Vec<u8>,
    /// What of the request is not sent as it came, because this target does not take it: paths of members that were
    /// left out (`messages[].name`), or in a few words what became of them (`seed as random_seed`) or that they are
    /// not the request's (`safe_prompt added`). Each once and without positions; recorded on the attempt. A member that
    /// is null says nothing, and may be left out without a word.
    pub dropped: Vec<String>,
    /// What has to be turned back in the answer.
    pub undo: Undo,
}

/// A complete HTTP answer.
#[derive(Clone, Copy, Debug)]
pub struct WireReply<'a> {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body, within the transport's cap.
    pub body: &'a [u8],
    /// When it came, by our clock: the base of absolute instants when the answer carries no `Date` of its own.
    pub received_at: Option<Timestamp>,
}

impl<'a> WireReply<'a> {
    /// An answer of which nobody noted when it came.
    #[must_use]
    pub fn new(status: u16, headers: &'a HeaderMap, body: &'a [u8]) -> Self {
        Self { status, headers, body, received_at: None }
    }

    /// The provider's own time of the answer, else ours.
    ///
    /// Differences to instants that the provider names are then free of the skew between the two clocks.
    #[must_use]
    pub fn sent_at(&self) -> Option<Timestamp> {
        self.headers
            .get(DATE)
            .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok())
            .and_then(|date| i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok())
            .map(Timestamp)
            .or(self.received_at)
    }
}

/// One dialect. Both directions are pure: no clock but `Date` headers, no network, no panic on any bytes.
pub trait Adapter: Send + Sync {
    /// Writes the request for `model`, or says why this target can never take it.
    ///
    /// # Errors
    /// [`Ineligible::Unsupported`] names what the dialect cannot express.
    fn encode(
        &self,
        request: &ChatRequest,
        model: &str,
        capabilities: &Capabilities,
    ) -> Result<WireRequest, Ineligible>;

    /// Puts the key where the dialect wants it. A key that no header can carry is left out.
    fn authorize(&self, key: &SecretString, headers: &mut HeaderMap);

    /// Reads an answer, or classifies the failure: from status, headers and body, codes before status.
    ///
    /// A success whose body is no JSON (an HTML page of a portal or CDN, broken UTF-8, nothing) is a server error,
    /// as is one without choices. What generated but did not finish ([`Finish::Error`](crate::domain::Finish)) is an
    /// answer, because it was paid for: validation rejects it and keeps its usage.
    ///
    /// # Errors
    /// The classified failure, with the provider's wait hint where it gave one.
    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure>;

    /// The usage that a body reports although [`decode`](Self::decode) called it a failure: a blocked prompt or
    /// an error inside a success may be billed. Normalised, and as it came.
    fn usage_of(&self, reply: &WireReply<'_>) -> Option<(Usage, Value)>;

    /// The limits that the headers tell of.
    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        limit_headers::of_reply(reply, &Conventions::NONE)
    }
}

/// The dialects that are spoken, by their names in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI chat completions, and every server compatible with it.
    Openai,
    /// Anthropic Messages.
    Anthropic,
    /// Google Gemini `generateContent`.
    Gemini,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: &'static [Self] = &[Self::Openai, Self::Anthropic, Self::Gemini];

    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// The dialect with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dialect| dialect.as_str() == name)
    }

    /// The adapter for a server at `base_url`, whose host decides on the quirks of compatible servers
    /// ([`openai::PROFILES`]).
    #[must_use]
    pub fn adapter(self, base_url: &str) -> &'static dyn Adapter {
        match self {
            Self::Openai => openai::for_base_url(base_url),
            Self::Anthropic => &Anthropic,
            Self::Gemini => &Gemini,
        }
    }
}
