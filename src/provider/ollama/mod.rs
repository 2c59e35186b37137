//! Ollama's own API, `/api/chat`: the local model as the last rung.
//!
//! What its compatible endpoint cannot say: that a prompt which does not fit is an error and not cut, how large the
//! window is, and whether the model is to think.

mod decode;
mod embed;
mod encode;
mod failures;
#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Payload};
use super::auth::KeyHeader;
use super::configured::{self, FOR_ALL};
use super::dialect::{Dialect, Manners};
use super::limit_headers::{self, COMMON, LimitObservation};
use super::report::FailedUsage;
use super::wire::{Delivery, WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::pack::PackBounds;
use crate::domain::{Answer, Capabilities, Charging, Failure};
use serde_json::json;

/// `/api/chat`. The server at home asks for no key; the one in the cloud does.
pub static DIALECT: Dialect = Dialect {
    name: "ollama",
    auth: KeyHeader::BEARER,
    tokens: None,
    signs_for: None,
    charging: Charging::COMBINED,
    heeds: Some(FOR_ALL),
    embeds: Some(PackBounds::of_inputs(usize::MAX)),
    hears: false,
    speak: |manners| Box::new(Ollama { manners }),
};

/// The dialect, as one server speaks it. Parameters that it lacks are dropped, visibly; a call that is forced makes the
/// request another server's.
#[derive(Clone, Debug)]
struct Ollama {
    manners: Manners,
}

impl Adapter for Ollama {
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
        wire.set_members(&[("stream", json!(true))]);
        wire.delivery = Delivery::Stream;
    }

    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure> {
        decode::decode(&self.manners.errors, reply)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<FailedUsage> {
        decode::usage_of(reply)
    }

    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        // It has none; a gateway before it may.
        limit_headers::of_reply(reply, &[COMMON], &self.manners.limits)
    }
}
