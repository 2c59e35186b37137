//! Anthropic Messages.

mod decode;
mod encode;
mod events;
mod failures;
mod schema;
#[cfg(test)]
mod tests;

use super::adapter::{Adapter, WireReply, WireRequest};
use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, ChatRequest, Failure, Usage};
use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// The dialect. Parameters it does not have (`seed`, penalties, `reasoning_effort`, …) are dropped, visibly.
#[derive(Clone, Copy, Debug)]
pub struct Anthropic;

impl Adapter for Anthropic {
    fn encode(
        &self,
        request: &ChatRequest,
        model: &str,
        capabilities: &Capabilities,
    ) -> Result<WireRequest, Ineligible> {
        encode::encode(request, model, capabilities)
    }

    fn authorize(&self, key: &SecretString, headers: &mut HeaderMap) {
        if let Ok(mut value) = HeaderValue::from_str(key.expose_secret()) {
            value.set_sensitive(true);
            headers.insert("x-api-key", value);
        }
    }

    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure> {
        decode::decode(reply)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<(Usage, Value)> {
        decode::usage_of(reply)
    }
}
