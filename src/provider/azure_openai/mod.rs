//! Azure OpenAI: OpenAI's chats at addresses of its own. A model is a deployment.
//!
//! Its newer address (`…/openai/v1`) is called as OpenAI's is. The classic one has the deployment in the path and the
//! version of the API in the query.

#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Payload};
use super::auth::KeyHeader;
use super::charging;
use super::dialect::Dialect;
use super::limit_headers::LimitObservation;
use super::openai;
use super::report::FailedUsage;
use super::wire::{WireReply, WireRequest, path_segment};
use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, Failure};
use reqwest::Url;
use serde_json::Value;

/// Chat completions of a resource of Azure's. A key has a header of its own; a token of Entra's is a bearer.
pub static DIALECT: Dialect = Dialect {
    name: "azure_openai",
    auth: KeyHeader::bare("api-key"),
    tokens: Some(KeyHeader::BEARER),
    signs_for: None,
    charging: charging::AZURE,
    heeds: None,
    embeds: openai::DIALECT.embeds,
    hears: true,
    speak: |manners| {
        let place = Place::of(&manners.base_url);
        Box::new(Azure { place, inner: (openai::DIALECT.speak)(manners) })
    },
};

/// The version of the classic API that is asked for where the address names none.
const VERSION: &str = "2024-10-21";

/// How deployments are addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The part of the path before the deployment; `None`: the deployment is in the body, or in the address.
    before: Option<&'static str>,
    /// Whether the version has to be added.
    adds_version: bool,
}

impl Place {
    fn of(base_url: &str) -> Self {
        let url = Url::parse(base_url).ok();
        let path = url.as_ref().map(|url| url.path().trim_end_matches('/')).unwrap_or_default();
        let has_version = url.as_ref().is_some_and(|url| url.query_pairs().any(|(name, _)| name == "api-version"));
        let is_v1 = path.ends_with("/v1");
        let before = if is_v1 || path.contains("/deployments/") {
            None
        } else if path.ends_with("/openai") {
            Some("/deployments/")
        } else {
            Some("/openai/deployments/")
        };
        Self { before, adds_version: !is_v1 && !has_version }
    }
}

/// The dialect, as one resource speaks it.
struct Azure {
    place: Place,
    inner: Box<dyn Adapter>,
}

impl Adapter for Azure {
    fn encode(
        &self,
        payload: Payload<'_>,
        model: &str,
        capabilities: &Capabilities,
    ) -> Result<WireRequest, Ineligible> {
        let mut wire = self.inner.encode(payload, model, capabilities)?;
        if let Some(before) = self.place.before {
            wire.path = format!("{before}{}{}", path_segment(model), wire.path);
        }
        if self.place.adds_version {
            wire.query.push(("api-version".to_owned(), VERSION.to_owned()));
        }
        Ok(wire)
    }

    fn ask_for_stream(&self, wire: &mut WireRequest) {
        self.inner.ask_for_stream(wire);
    }

    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure> {
        let mut answer = self.inner.decode(reply)?;
        let has_error = |results: &Value| results.get("error").is_some_and(|error| !error.is_null());
        if answer.beside.choice.get("content_filter_results").is_some_and(has_error) {
            answer.beside.notes.push("the content filter of the provider was down and did not look at it".to_owned());
        }
        Ok(answer)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<FailedUsage> {
        self.inner.usage_of(reply)
    }

    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        self.inner.limits(reply)
    }
}
