//! Anthropic Messages.

mod decode;
mod encode;
mod events;
pub(super) mod failures;
pub(super) mod limits;
pub(super) mod schema;
#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Payload};
use super::auth::KeyHeader;
use super::charging;
use super::configured::{self, FOR_ALL};
use super::dialect::{Dialect, Manners};
use super::limit_headers::{self, LimitObservation};
use super::report::FailedUsage;
use super::wire::{Delivery, WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, Failure};
use serde_json::json;

/// Messages.
pub static DIALECT: Dialect = Dialect {
    name: "anthropic",
    auth: KeyHeader::bare("x-api-key"),
    tokens: None,
    signs_for: None,
    charging: charging::ANTHROPIC,
    heeds: Some(FOR_ALL),
    embeds: None,
    hears: false,
    speak: |manners| Box::new(Anthropic { manners }),
};

/// The dialect, as one server speaks it. Parameters that it lacks (`seed`, penalties, …) are
/// dropped, visibly.
#[derive(Clone, Debug)]
struct Anthropic {
    manners: Manners,
}

impl Adapter for Anthropic {
    fn encode(
        &self,
        payload: Payload<'_>,
        model: &str,
        capabilities: &Capabilities,
    ) -> Result<WireRequest, Ineligible> {
        configured::encode(&self.manners.quirks, payload, capabilities, |payload, capabilities| {
            encode::encode(payload.chat()?, model, capabilities)
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
        limit_headers::of_reply(reply, limits::LIMITS, &self.manners.limits)
    }
}
