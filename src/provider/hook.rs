//! Webhooks: sends one message to a receiver, signed by the rules of Standard Webhooks, and reports the reply.
//!
//! The address of a receiver may be a secret (that of Slack is one), so it is in no error, log line or row: what the
//! receiver says is searched for it, as for the signing secret.

use super::client::now;
use super::echo::Echoes;
use super::transport::{TimeLimits, Transport};
use super::wait_hint;
use super::wire::{Delivery, Outgoing};
use crate::domain::Timestamp;
use crate::domain::alert::{AlertMessage, Appetite, HookFormat, SendOutcome};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use std::time::Duration;
use tokio::time::Instant;

/// What a signing secret begins with.
const SECRET_PREFIX: &str = "whsec_";

/// The sizes that a signing secret may have, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// As much of an answer is read; a receiver says `ok`.
const MOST_ANSWER: usize = 64 << 10;

/// A receiver of messages, as configured.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub name: String,
    /// Where messages are posted to.
    pub url: SecretString,
    pub format: HookFormat,
    /// The secret by which messages are signed, with its prefix.
    pub secret: Option<SecretString>,
    /// How long one message may take.
    pub timeout: Duration,
    /// What it takes.
    pub appetite: Appetite,
}

impl Receiver {
    /// Whether another one is the same to its connections.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let secret = |it: &Self| it.secret.as_ref().map(|secret| secret.expose_secret().to_owned());
        self.name == other.name
            && self.url.expose_secret() == other.url.expose_secret()
            && self.format == other.format
            && secret(self) == secret(other)
            && self.timeout == other.timeout
            && self.appetite == other.appetite
    }
}

/// Why a receiver cannot be used. Never names a value.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The address is unusable.
    #[error("alerts.receivers.{receiver}: the address {reason}")]
    Url {
        receiver: String,
        /// The flaw in the address.
        reason: &'static str,
    },
    /// The signing secret is unusable.
    #[error("alerts.receivers.{receiver}: the signing secret {reason}")]
    Secret {
        receiver: String,
        /// The flaw in the secret.
        reason: &'static str,
    },
    /// The HTTP client cannot be built.
    #[error("alerts.receivers.{receiver}: {reason}")]
    Client {
        receiver: String,
        /// Why not, and what to do, in words.
        reason: String,
    },
}

/// The outcome of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    pub outcome: SendOutcome,
    /// What the receiver said, or why there was no answer: shortened, without secrets.
    pub words: String,
}

/// A receiver that messages can be sent to.
pub struct Hook {
    receiver: Receiver,
    url: Url,
    key: Option<Vec<u8>>,
    transport: Transport,
    secrets: Echoes,
}

/// The time of day, for a message that is sent without a database.
#[must_use]
pub fn wall_clock() -> Timestamp {
    now()
}

/// An id for a message that is in no row.
#[must_use]
pub fn test_message_id() -> String {
    let Timestamp(millis) = now();
    format!("msg_test{millis:x}")
}

/// Checks an address.
///
/// # Errors
/// The fault in words that do not repeat the address.
pub fn hook_url(url: &str) -> Result<Url, &'static str> {
    // Left out by the rules of URLs: two lines of a file would be one address.
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("has a space or a line break in it: it is one line with nothing else");
    }
    let parsed = Url::parse(url).map_err(|_| "is no URL such as https://host/path")?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none_or(str::is_empty) {
        return Err("is no URL that begins with https:// and names a host");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("has a name or a password before the host, which receivers do not get");
    }
    Ok(parsed)
}

/// The key in a signing secret such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.
///
/// # Errors
/// The fault in words that do not repeat the secret.
pub fn signing_key(secret: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = secret.trim().strip_prefix(SECRET_PREFIX).ok_or("does not begin with whsec_")?;
    let key = STANDARD.decode(encoded).map_err(|_| "is not base64 after whsec_")?;
    if key.len() < *SECRET_BYTES.start() {
        return Err("is too short: it needs 24 bytes or more before they are encoded");
    }
    if key.len() > *SECRET_BYTES.end() {
        return Err("is too long: it may have 64 bytes before they are encoded");
    }
    Ok(key)
}

/// The value of `webhook-signature`.
fn signature(key: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

impl Hook {
    /// Sets up the client; sends nothing. A rustls crypto provider has to be installed.
    ///
    /// # Errors
    /// [`HookError`] when the address or the secret cannot be used.
    pub fn new(receiver: Receiver) -> Result<Self, HookError> {
        let name = || receiver.name.clone();
        let url =
            hook_url(receiver.url.expose_secret()).map_err(|reason| HookError::Url { receiver: name(), reason })?;
        let key = receiver.secret.as_ref().map(|secret| signing_key(secret.expose_secret())).transpose();
        let key = key.map_err(|reason| HookError::Secret { receiver: name(), reason })?;
        let transport = Transport::new(&receiver.name, &url, receiver.timeout, MOST_ANSWER)
            .map_err(|why| HookError::Client { receiver: name(), reason: why.to_string() })?;
        // The path and the query are the secret part of an address, and hosts are in many texts.
        let mut secrets = vec![receiver.url.clone()];
        let path = url.path().trim_start_matches('/');
        secrets.extend(path.split('/').filter(|part| part.len() >= 8).map(SecretString::from));
        let members = url.query_pairs().map(|(_, value)| value.into_owned());
        secrets.extend(members.filter(|value| value.len() >= 8).map(SecretString::from));
        secrets.extend(url.query().filter(|query| query.len() >= 8).map(SecretString::from));
        if path.len() >= 8 {
            secrets.push(SecretString::from(path));
        }
        if let Some(secret) = &receiver.secret {
            secrets.push(secret.clone());
            secrets.extend(secret.expose_secret().trim().strip_prefix(SECRET_PREFIX).map(SecretString::from));
        }
        Ok(Self { url, key, transport, secrets: Echoes::of(secrets), receiver })
    }

    /// The receiver as configured.
    #[must_use]
    pub const fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Sends one message, once: redirects are not followed, and it takes no longer than the receiver's timeout.
    pub async fn send(&self, id: &str, message: &AlertMessage) -> Posted {
        let started = Instant::now();
        let body = message.body(self.receiver.format);
        let at = now();
        let request =
            Outgoing { method: Method::POST, url: self.url.clone(), headers: self.headers(id, at, &body), body };
        let total = self.receiver.timeout;
        let limits = TimeLimits { first_byte: total, idle: total, total, started };
        match self.transport.exchange(request, Delivery::Whole, &limits, |_, _, _| {}).await {
            Ok(reply) => {
                let retry_after = wait_hint::of_headers(reply.headers(), Some(at));
                let said = self.secrets.words(&String::from_utf8_lossy(reply.body()));
                let words = match reply.status() {
                    300..=399 => format!("HTTP {}: redirects are not followed", reply.status()),
                    status if said.is_empty() => format!("HTTP {status}"),
                    status => format!("HTTP {status}: {said}"),
                };
                Posted { outcome: SendOutcome { status: Some(reply.status()), retry_after }, words }
            }
            Err(failure) => Posted {
                outcome: SendOutcome { status: None, retry_after: None },
                words: self.secrets.words(&failure.message),
            },
        }
    }

    fn headers(&self, id: &str, at: Timestamp, body: &[u8]) -> HeaderMap {
        let seconds = at.0.div_euclid(1000);
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let mut add = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        add("webhook-id", id);
        add("webhook-timestamp", &seconds.to_string());
        if let Some(key) = &self.key {
            add("webhook-signature", &signature(key, id, seconds, body));
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_is_none_is_named_without_being_repeated() {
        for (secret, problem) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
            ("whsec_MfKQ9r8GKYqr TwjUPD8ILPZIo2LaLaSw", "is not base64"),
            ("whsec_c2hvcnQ=", "is too short"),
            ("whsec_", "is too short"),
        ] {
            let said = signing_key(secret).unwrap_err();
            assert!(said.contains(problem), "{secret}: {said}");
        }
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        assert!(signing_key(&long).unwrap_err().contains("is too long"));
        let whole = format!(" whsec_{}\n", STANDARD.encode([7; 64]));
        assert_eq!(signing_key(&whole).unwrap(), [7; 64]);
    }

    #[test]
    fn an_address_that_is_none_is_named_without_being_repeated() {
        for url in ["hooks.example.org/x", "ftp://a/b", "https://", "https://me:zq@host/x", "", "https:///x y"] {
            let said = hook_url(url).unwrap_err();
            assert!(!said.contains("zq"), "{said}");
        }
        assert!(hook_url("https://hooks.example.org/services/T0/B0/zq").is_ok());
        assert!(hook_url("http://127.0.0.1:9/x?token=1").is_ok());
    }
}
