//! The translation between the domain and one dialect, as pure functions.

use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, ChatRequest, Failure};
use reqwest::header::HeaderMap;
use secrecy::SecretString;

/// An HTTP request as a dialect wants it, without the key.
#[derive(Clone, Debug)]
pub struct WireRequest {
    /// Appended to the provider's base URL; starts with a slash.
    pub path: String,
    /// Headers that the dialect demands beside `content-type` and the key.
    pub headers: HeaderMap,
    /// The JSON body.
    pub body: Vec<u8>,
    /// Parameters of the request that this target does not take and that were left out: recorded on the attempt.
    pub dropped: Vec<String>,
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

    /// Puts the key where the dialect wants it.
    fn authorize(&self, key: &SecretString, headers: &mut HeaderMap);

    /// Reads an answer, or classifies the failure: from status, headers and body, codes before status.
    ///
    /// # Errors
    /// The classified failure, with the provider's wait hint where it gave one.
    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure>;
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
}
