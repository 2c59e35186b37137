//! OpenAI chat completions, and every server that is more or less compatible with them.
//!
//! "More or less" is data: the [`Quirks`](super::quirks::Quirks) of a vendor's row, or of any other server, with the
//! operator's settings over them.

mod chunks;
mod decode;
mod embeddings;
mod encode;
pub(super) mod failures;
pub(super) mod limits;
pub(super) mod strict;
#[cfg(test)]
mod tests;
pub(super) mod usage;

use super::adapter::{Adapter, Payload};
use super::auth::KeyHeader;
use super::charging;
use super::dialect::{Dialect, Manners};
use super::limit_headers::{self, LimitObservation};
use super::report::FailedUsage;
use super::wire::{Delivery, WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, Failure};
use serde_json::json;

/// Chat completions.
pub static DIALECT: Dialect = Dialect {
    name: "openai",
    auth: KeyHeader::BEARER,
    tokens: None,
    signs_for: None,
    charging: charging::OPENAI,
    heeds: None,
    embeds: Some(embeddings::MOST),
    hears: true,
    speak: |manners| Box::new(Openai { manners }),
};

/// The dialect, as one server speaks it.
#[derive(Clone, Debug)]
struct Openai {
    manners: Manners,
}

impl Adapter for Openai {
    fn encode(
        &self,
        payload: Payload<'_>,
        model: &str,
        capabilities: &Capabilities,
    ) -> Result<WireRequest, Ineligible> {
        match payload {
            Payload::Chat(request) => {
                let quirks = &self.manners.quirks;
                let mut wire = encode::encode(quirks, request, model, capabilities)?;
                let model = model.to_ascii_lowercase();
                if quirks.stream_only_models.iter().any(|part| model.contains(part.as_str())) {
                    self.ask_for_stream(&mut wire);
                }
                Ok(wire)
            }
            Payload::Embeddings(request, embed) => embeddings::encode(&self.manners.quirks, request, embed, model),
        }
    }

    fn ask_for_stream(&self, wire: &mut WireRequest) {
        wire.set_members(&[("stream", json!(true))]);
        if self.manners.quirks.stream_usage {
            wire.set_members(&[("stream_options", json!({ "include_usage": true }))]);
        }
        wire.delivery = Delivery::Stream;
    }

    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure> {
        decode::decode(&self.manners, reply)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<FailedUsage> {
        decode::usage_of(&self.manners, reply)
    }

    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        limit_headers::of_reply(reply, limits::LIMITS, &self.manners.limits)
    }
}
