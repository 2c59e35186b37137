//! Google Gemini `generateContent`.

mod chunks;
mod decode;
mod embed;
mod encode;
pub(super) mod failures;
#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Payload};
use super::auth::KeyHeader;
use super::charging;
use super::configured::{self, FOR_ALL};
use super::dialect::{Dialect, Manners};
use super::limit_headers::{self, COMMON, LimitObservation};
use super::report::FailedUsage;
use super::wire::{Delivery, WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::pack::PackBounds;
use crate::domain::{Answer, Capabilities, Failure};

/// `generateContent`.
pub static DIALECT: Dialect = Dialect {
    name: "gemini",
    auth: KeyHeader::bare("x-goog-api-key"),
    tokens: None,
    signs_for: None,
    charging: charging::GEMINI,
    heeds: Some(FOR_ALL),
    embeds: Some(PackBounds::of_inputs(embed::MOST_TEXTS)),
    hears: true,
    speak: |manners| Box::new(Gemini { manners }),
};

/// The dialect, as one server speaks it. Members beyond the common ones are dropped, visibly.
#[derive(Clone, Debug)]
struct Gemini {
    manners: Manners,
}

impl Adapter for Gemini {
    fn encode(
        &self,
        payload: Payload<'_>,
        model: &str,
        capabilities: &Capabilities,
    ) -> Result<WireRequest, Ineligible> {
        configured::encode(&self.manners.quirks, payload, capabilities, |payload, capabilities| match payload {
            Payload::Chat(request) => encode::encode(request, model, capabilities),
            Payload::Embeddings(request, embed) => embed::encode(request, embed, model),
        })
    }

    fn ask_for_stream(&self, wire: &mut WireRequest) {
        if let Some(model) = wire.path.strip_suffix(encode::WHOLE) {
            wire.path = format!("{model}{}", encode::STREAMED);
        }
        wire.query.push(("alt".to_owned(), "sse".to_owned()));
        wire.delivery = Delivery::Stream;
    }

    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure> {
        decode::decode(&self.manners.errors, reply)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<FailedUsage> {
        decode::usage_of(reply)
    }

    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        limit_headers::of_reply(reply, &[COMMON], &self.manners.limits)
    }
}
