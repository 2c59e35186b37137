//! OpenAI chat completions, and every server that is compatible with them more or less.
//!
//! "More or less" is data: a [`Quirks`] per host in [`PROFILES`], and [`Quirks::COMPATIBLE`] for any other.

mod chunks;
mod decode;
mod encode;
mod failures;
mod profiles;
#[cfg(test)]
mod tests;
mod usage;

pub use profiles::{CapField, PROFILES, Profile, Quirks};

use super::adapter::{Adapter, WireReply, WireRequest};
use super::limit_headers::{self, LimitObservation};
use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, ChatRequest, Failure, Usage};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// The dialect, as one host speaks it.
#[derive(Clone, Copy, Debug)]
pub struct Openai {
    /// What the host does differently.
    pub quirks: Quirks,
}

/// The adapter for the server at `base_url`: by its host, [`Quirks::COMPATIBLE`] when nothing is known of it.
#[must_use]
pub fn for_base_url(base_url: &str) -> &'static Openai {
    static COMPATIBLE: Openai = Openai { quirks: Quirks::COMPATIBLE };
    let host = reqwest::Url::parse(base_url).ok().and_then(|url| url.host_str().map(str::to_ascii_lowercase));
    host.and_then(|host| PROFILES.iter().find(|profile| profile.covers(&host)))
        .map_or(&COMPATIBLE, |profile| &profile.adapter)
}

impl Adapter for Openai {
    fn encode(
        &self,
        request: &ChatRequest,
        model: &str,
        capabilities: &Capabilities,
    ) -> Result<WireRequest, Ineligible> {
        encode::encode(&self.quirks, request, model, capabilities)
    }

    fn authorize(&self, key: &SecretString, headers: &mut HeaderMap) {
        if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", key.expose_secret())) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
    }

    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure> {
        decode::decode(&self.quirks, reply)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<(Usage, Value)> {
        decode::usage_of(&self.quirks, reply)
    }

    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        limit_headers::of_reply(reply, &self.quirks.limits)
    }
}
