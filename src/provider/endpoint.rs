//! A provider, as configured.

use super::adapter::Adapter;
use super::auth::Auth;
use super::dialect::Dialect;
use super::quirks::QuirkSettings;
use super::role::AwsRole;
use super::sigv4::{AccessKey, Signer};
use super::vendors::{self, Tiers};
use crate::domain::decide::Ineligible;
use crate::domain::pack::PackBounds;
use crate::domain::request::Extras;
use crate::domain::{Capabilities, ChatRequest, MustKeep, PromptCache, Timeouts};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A key, under a name that may be shown: that of its variable, its file or its credential.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The name; unique within a provider.
    pub name: String,
    /// The key; of an access key of AWS the secret part.
    pub secret: SecretString,
    /// The other parts of an access key of AWS. Calls are signed with such a key, which is not sent.
    pub access: Option<AccessKey>,
    /// The role whose keys sign the calls, in place of a key of its own: the secret is empty then.
    pub role: Option<AwsRole>,
}

/// A request with an output cap.
const CAPPED: &str = r#"{"messages":[{"role":"user","content":"?"}],"max_tokens":100}"#;

/// A provider as configured.
///
/// Its `Debug` shows neither the key nor the values of the headers, which may be keys as well.
#[derive(Clone)]
pub struct Endpoint {
    /// Its name in the configuration.
    pub name: String,
    pub dialect: &'static Dialect,
    /// The vendor, where it is known: its row gives the server's habits, regardless of the address.
    pub vendor: Option<String>,
    /// The operator's settings for these habits.
    pub quirks: QuirkSettings,
    /// For example `https://api.openai.com/v1`, without a trailing slash; with a query where each call needs one.
    pub base_url: String,
    /// The keys, one of which goes with each call; empty for servers without keys.
    pub keys: Vec<ApiKey>,
    /// Extra headers (`OpenAI-Organization`, …).
    pub headers: Vec<(String, String)>,
    /// Timeouts that apply where a rung has none of its own.
    pub timeouts: Timeouts,
    /// The largest answer, in bytes after decompression. A larger one is cut off and counts as a failure.
    pub max_body: usize,
}

impl ApiKey {
    /// The region for which calls are signed with it; `None`: it goes with each call.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        let of_role = || self.role.as_ref().map(|role| role.region.as_str());
        self.access.as_ref().map(|access| access.region.as_str()).or_else(of_role)
    }

    /// Whether it is the same key under the same name.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let is_same_access = match (&self.access, &other.access) {
            (Some(access), Some(other)) => access.is_same_as(other),
            (access, other) => access.is_none() && other.is_none(),
        };
        let is_same_role = match (&self.role, &other.role) {
            (Some(role), Some(other)) => role.is_same_as(other),
            (role, other) => role.is_none() && other.is_none(),
        };
        is_same_role
            && self.name == other.name
            && self.secret.expose_secret() == other.secret.expose_secret()
            && is_same_access
    }
}

impl Endpoint {
    /// The adapter for its server.
    #[must_use]
    pub fn adapter(&self) -> Arc<dyn Adapter> {
        vendors::adapter(self.dialect, self.vendor.as_deref(), &self.base_url, &self.quirks).into()
    }

    /// Why its server can never take a request for this model, by its dialect and its quirks, or because it would leave
    /// out what has to be kept; `None`: nothing known speaks against it. Nothing is sent.
    #[must_use]
    pub fn refusal(
        &self,
        request: &ChatRequest,
        model: &str,
        capabilities: &Capabilities,
        must_keep: &MustKeep,
    ) -> Option<Ineligible> {
        match self.adapter().encode(request.into(), model, capabilities) {
            Ok(wire) => wire.without_loss(must_keep, request).err(),
            Err(why) => Some(why),
        }
    }

    /// Whether a request for this model goes without its output cap, by the quirks of the server.
    #[must_use]
    pub fn leaves_out_cap(&self, model: &str, capabilities: &Capabilities) -> bool {
        let Ok(request) = ChatRequest::read_text(CAPPED) else { return false };
        let written = self.adapter().encode((&request).into(), model, capabilities);
        let is_cap = |path: &String| matches!(path.as_str(), "max_tokens" | "max_completion_tokens");
        written.is_ok_and(|wire| wire.dropped.iter().any(is_cap))
    }

    /// The host that calls go to, and its port.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        let url = Url::parse(&self.base_url).ok()?;
        Some((url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?))
    }

    /// The vendor of its server, where that is known.
    #[must_use]
    pub fn known_vendor(&self) -> Option<&'static str> {
        vendors::of_server(self.vendor.as_deref(), self.dialect, &self.base_url).map(|vendor| vendor.name)
    }

    /// The members that change what a call costs and that a request for this model goes without, by the dialect and the
    /// quirks of the server.
    #[must_use]
    pub fn unsent_extras(&self, model: &str, capabilities: &Capabilities) -> BTreeSet<&'static str> {
        let mark = |name: &str| format!("{name} of a try");
        let mut body = json!({ "messages": [{ "role": "user", "content": "?" }] });
        for name in Extras::members() {
            body[name] = mark(name).into();
        }
        let Ok(request) = ChatRequest::parse(&body) else { return BTreeSet::new() };
        // What a server refuses whole is not known to go without them.
        let Ok(wire) = self.adapter().encode((&request).into(), model, capabilities) else { return BTreeSet::new() };
        let sent = String::from_utf8_lossy(&wire.body);
        Extras::members().filter(|name| !sent.contains(&mark(name))).collect()
    }

    /// The tiers that its calls may ask for.
    #[must_use]
    pub fn tiers(&self) -> Tiers {
        vendors::tiers(self.vendor.as_deref(), self.dialect, &self.base_url)
    }

    /// How its server keeps the beginnings of prompts for this model; `None`: it does not, or it is not known to.
    #[must_use]
    pub fn prompt_cache(&self, model: &str) -> Option<PromptCache> {
        vendors::prompt_cache(self.vendor.as_deref(), self.dialect, &self.base_url, model)
    }

    /// The most that one call for embeddings takes; `None`: its dialect has none.
    #[must_use]
    pub fn embeds(&self) -> Option<PackBounds> {
        let vendor = vendors::of_server(self.vendor.as_deref(), self.dialect, &self.base_url);
        vendor.and_then(|vendor| vendor.embeds).filter(|_| self.dialect.embeds.is_some()).or(self.dialect.embeds)
    }

    /// The credentials for calls that are made with this key.
    #[must_use]
    pub fn auth(&self, key: &ApiKey) -> Auth {
        if let (Some(service), Some(access)) = (self.dialect.signs_for, &key.access) {
            return Auth::Signed(Signer { service, key: access.clone(), secret: key.secret.clone() });
        }
        let vendor = vendors::of_server(self.vendor.as_deref(), self.dialect, &self.base_url);
        let header = vendor.and_then(|vendor| vendor.auth).unwrap_or(self.dialect.auth);
        let header = self.dialect.tokens.filter(|_| is_token(key.secret.expose_secret())).unwrap_or(header);
        Auth::Key(header, key.secret.clone())
    }

    /// Whether it is the same server, perhaps with other keys.
    #[must_use]
    pub fn is_same_server_as(&self, other: &Self) -> bool {
        (self.dialect, &self.base_url) == (other.dialect, &other.base_url)
    }

    /// A mark of the server. Two processes with the same mark call the same server; of its address, which may hold
    /// secrets, nothing can be read from the mark.
    #[must_use]
    pub fn mark(&self) -> String {
        let digest = Sha256::digest(format!("{}\n{}", self.dialect.name, self.base_url));
        let start = digest.iter().take(8).fold(0, |start, &byte| start << 8 | u64::from(byte));
        format!("{start:016x}")
    }

    /// Whether all settings are the same, so that a client of the one is a client of the other.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let Self { name, dialect: _, vendor, quirks, base_url: _, keys, headers, timeouts, max_body } = self;
        self.is_same_server_as(other)
            && (vendor, quirks) == (&other.vendor, &other.quirks)
            && (name, headers, timeouts, max_body) == (&other.name, &other.headers, &other.timeouts, &other.max_body)
            && keys.len() == other.keys.len()
            && keys.iter().zip(&other.keys).all(|(key, other)| key.is_same_as(other))
    }
}

/// Whether a secret is a token of an identity provider: three parts of base64, of which the first is a JSON object.
fn is_token(secret: &str) -> bool {
    secret.starts_with("eyJ") && secret.split('.').count() == 3
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password before the host is refused later; until then it must not show either.
        let base_url = self.base_url.rsplit_once('@').map_or(self.base_url.as_str(), |(_, rest)| rest);
        // Some servers take their key in the query.
        let base_url = base_url.split_once('?').map_or(base_url, |(address, _)| address);
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("dialect", &self.dialect)
            .field("vendor", &self.vendor)
            .field("base_url", &base_url)
            .field("keys", &self.keys)
            .field("headers", &headers)
            .field("timeouts", &self.timeouts)
            .field("max_body", &self.max_body)
            // An operator's additions to bodies are private.
            .finish_non_exhaustive()
    }
}
