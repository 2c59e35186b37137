//! The translation between the domain and one dialect, as pure functions.

use super::conversation::unsupported;
use super::limit_headers::LimitObservation;
use super::report::FailedUsage;
use super::sigv4::Skew;
use super::wire::{WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::request::Embed;
use crate::domain::{Answer, Capabilities, ChatRequest, Failure};

/// The content of a call. A dialect that does not know a kind says so with [`Ineligible::Unsupported`].
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// A conversation to continue.
    Chat(&'a ChatRequest),
    /// Inputs that are to become vectors: the whole request, and what it asks for.
    Embeddings(&'a ChatRequest, &'a Embed),
}

impl<'a> Payload<'a> {
    /// The whole request.
    pub(super) const fn request(self) -> &'a ChatRequest {
        let (Self::Chat(request) | Self::Embeddings(request, _)) = self;
        request
    }

    /// The conversation, for a dialect that knows nothing else.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn chat(self) -> Result<&'a ChatRequest, Ineligible> {
        match self {
            Self::Chat(request) => Ok(request),
            Self::Embeddings(..) => unsupported("embeddings"),
        }
    }
}

impl<'a> From<&'a ChatRequest> for Payload<'a> {
    fn from(request: &'a ChatRequest) -> Self {
        request.embed.as_ref().map_or(Self::Chat(request), |embed| Self::Embeddings(request, embed))
    }
}

/// One dialect, as one server speaks it. All directions are pure: no clock but `Date` headers, no network, no panic on
/// any bytes.
pub trait Adapter: Send + Sync {
    /// Writes the request for `model`, or says why this target can never take it.
    ///
    /// # Errors
    /// [`Ineligible::Unsupported`] names what the dialect cannot express.
    fn encode(&self, payload: Payload<'_>, model: &str, capabilities: &Capabilities)
    -> Result<WireRequest, Ineligible>;

    /// Asks for the answer to a written request as a stream of events.
    fn ask_for_stream(&self, wire: &mut WireRequest);

    /// Reads an answer, whole or from a stream of events, or classifies the failure: from status, headers and body,
    /// codes before status.
    ///
    /// A success whose body is not JSON (an HTML page of a portal or CDN, broken UTF-8, nothing) is a server error, as
    /// is one without choices. A generation that did not finish ([`Finish::Error`](crate::domain::Finish)) is an
    /// answer, because it was paid for: validation rejects it and keeps its usage.
    ///
    /// # Errors
    /// The classified failure, with the provider's wait hint where it gave one.
    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure>;

    /// What an answer says that was billed although [`decode`](Self::decode) called it a failure: a blocked prompt, an
    /// error inside a success or beside an HTTP error may be billed.
    fn usage_of(&self, reply: &WireReply<'_>) -> Option<FailedUsage>;

    /// The difference between the clocks for which a signed request was refused.
    fn skew(&self, _reply: &WireReply<'_>) -> Option<Skew> {
        None
    }

    /// The limits that the headers report.
    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation>;
}
