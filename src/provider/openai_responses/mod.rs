//! OpenAI Responses: the API of OpenAI's newer models. A request stays in the form of a chat, and is translated.

mod decode;
mod encode;
mod events;
#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Payload};
use super::auth::KeyHeader;
use super::charging;
use super::configured::{self, FOR_ALL};
use super::dialect::{Dialect, Manners};
use super::limit_headers::{self, LimitObservation};
use super::openai::limits::LIMITS;
use super::report::FailedUsage;
use super::wire::{Delivery, WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, Failure};
use serde_json::json;

/// `/responses`.
pub static DIALECT: Dialect = Dialect {
    name: "openai_responses",
    auth: KeyHeader::BEARER,
    // At Azure a key has a header of its own, and a token is a bearer.
    tokens: Some(KeyHeader::BEARER),
    signs_for: None,
    charging: charging::OPENAI,
    heeds: Some(FOR_ALL),
    embeds: None,
    hears: false,
    speak: |manners| Box::new(Responses { manners }),
};

/// The dialect, as one server speaks it. The server keeps nothing (`store`), and cuts no prompt.
#[derive(Clone, Debug)]
struct Responses {
    manners: Manners,
}

impl Adapter for Responses {
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
        decode::decode(&self.manners, reply)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<FailedUsage> {
        decode::usage_of(&self.manners, reply)
    }

    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        limit_headers::of_reply(reply, LIMITS, &self.manners.limits)
    }
}
