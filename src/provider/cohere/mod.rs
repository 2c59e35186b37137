//! Cohere's chat, version 2.

mod decode;
mod embed;
mod encode;
mod events;
mod failures;
#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Payload};
use super::auth::KeyHeader;
use super::configured::{self, FOR_ALL};
use super::dialect::{Dialect, Manners};
use super::limit_headers::{self, LimitObservation};
use super::report::FailedUsage;
use super::wire::{Delivery, WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::pack::PackBounds;
use crate::domain::{Answer, Capabilities, Charging, Failure};
use serde_json::json;

/// `/v2/chat`.
pub static DIALECT: Dialect = Dialect {
    name: "cohere",
    auth: KeyHeader::BEARER,
    tokens: None,
    signs_for: None,
    charging: Charging::COMBINED,
    heeds: Some(FOR_ALL),
    embeds: Some(PackBounds::of_inputs(embed::MOST_TEXTS)),
    hears: false,
    speak: |manners| Box::new(Cohere { manners }),
};

/// The dialect, as one server speaks it. Citations are left out; a named tool cannot be forced.
#[derive(Clone, Debug)]
struct Cohere {
    manners: Manners,
}

impl Adapter for Cohere {
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
        limit_headers::of_reply(reply, failures::LIMITS, &self.manners.limits)
    }
}
