//! AWS Bedrock, by its Converse API: one form for the models of many vendors.
//!
//! A call carries one of Bedrock's API keys as a bearer token, or is signed with an access key of AWS. The region is a
//! part of the address.

mod decode;
mod encode;
mod failures;
pub(super) mod frames;
#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Payload};
use super::auth::KeyHeader;
use super::configured::{self, FOR_ALL};
use super::dialect::{Dialect, Manners};
use super::limit_headers::{self, COMMON, LimitObservation};
use super::report::FailedUsage;
use super::sigv4::Skew;
use super::wire::{Delivery, WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, Charging, Failure};

/// `/model/ID/converse`.
pub static DIALECT: Dialect = Dialect {
    name: "bedrock",
    auth: KeyHeader::BEARER,
    tokens: None,
    signs_for: Some("bedrock"),
    charging: Charging::COMBINED,
    heeds: Some(FOR_ALL),
    embeds: None,
    hears: false,
    speak: |manners| Box::new(Bedrock { manners }),
};

/// The dialect, as one server speaks it.
#[derive(Clone, Debug)]
struct Bedrock {
    manners: Manners,
}

impl Adapter for Bedrock {
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
        wire.path.push_str(encode::STREAMED);
        wire.delivery = Delivery::Stream;
    }

    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure> {
        decode::decode(&self.manners.errors, reply)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<FailedUsage> {
        decode::usage_of(reply)
    }

    fn skew(&self, reply: &WireReply<'_>) -> Option<Skew> {
        decode::skew(reply)
    }

    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        // It publishes none; a gateway before it may.
        limit_headers::of_reply(reply, &[COMMON], &self.manners.limits)
    }
}
