//! Signatures of AWS (SigV4): a call proves that its sender holds a secret which never goes over the wire.

#[cfg(test)]
mod tests;

use super::error_body::ErrorBody;
use super::wire::{Outgoing, WireReply};
use crate::domain::{ErrorClass, Failure, Scope, Timestamp};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{self, SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4::SigningParams;
use chrono::NaiveDateTime;
use regex::Regex;
use reqwest::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

/// The parts of an access key of AWS beside its secret, and where it is to be used.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// The name under which AWS knows the secret (`AKIA…`). It goes with each call.
    pub id: SecretString,
    /// The token that a temporary key (`ASIA…`) is sent with.
    pub session_token: Option<SecretString>,
    /// The region for which calls are signed.
    pub region: String,
}

impl AccessKey {
    /// Whether it is the same key, for the same region.
    #[must_use]
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let token = |key: &Self| key.session_token.as_ref().map(|token| token.expose_secret().to_owned());
        self.id.expose_secret() == other.id.expose_secret()
            && token(self) == token(other)
            && self.region == other.region
    }

    /// Everything of it that must not show anywhere.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        std::iter::once(&self.id).chain(&self.session_token)
    }
}

/// Signs the calls of one access key.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The name of the service in signatures.
    pub service: &'static str,
    pub key: AccessKey,
    pub secret: SecretString,
}

impl Signer {
    /// Signs a finished request, as of this instant. The signature covers the address, the body, `content-type` and
    /// AWS's own headers. Others are left out, because a proxy on the way may change them.
    ///
    /// # Errors
    /// A request or a key that cannot be signed. Nothing was sent in that case.
    pub fn sign(&self, request: &mut Outgoing, now: Timestamp) -> Result<(), Failure> {
        let failed = || Failure::new(ErrorClass::Auth, Scope::Key, "the request cannot be signed with this access key");
        let token = self.key.session_token.as_ref().map(|token| token.expose_secret().to_owned());
        let (id, secret) = (self.key.id.expose_secret(), self.secret.expose_secret());
        let identity = Credentials::new(id, secret, token, None, "sluice").into();
        let since_epoch = Duration::from_millis(u64::try_from(now.0).unwrap_or_default());
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.key.region)
            .name(self.service)
            .time(UNIX_EPOCH + since_epoch)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| failed())?
            .into();
        let is_covered =
            |name: &HeaderName| *name == CONTENT_TYPE || *name == HOST || name.as_str().starts_with("x-amz-");
        let covered = request.headers.iter().filter(|(name, _)| is_covered(name));
        let covered = covered.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let body = SignableBody::Bytes(&request.body);
        let signable = SignableRequest::new(request.method.as_str(), request.url.as_str(), covered, body);
        let signed = http_request::sign(signable.map_err(|_| failed())?, &params).map_err(|_| failed())?;
        let (instructions, _) = signed.into_parts();
        let (headers, _) = instructions.into_parts();
        for header in headers {
            let mut value = HeaderValue::from_str(header.value()).map_err(|_| failed())?;
            value.set_sensitive(true);
            request.headers.insert(HeaderName::from_static(header.name()), value);
        }
        Ok(())
    }
}

/// The instants of a message such as "Signature expired: 20260504T120000Z is now earlier than 20260504T121000Z
/// (20260504T121500Z - 5 min.)".
static INSTANTS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b[0-9]{8}T[0-9]{6}Z").expect("the pattern is fixed and tested"));

/// A smaller difference between two clocks is no reason for a refusal.
const NOTICEABLE: Duration = Duration::from_mins(1);

/// The codes under which a wrong time is told.
const CODES: &[&str] =
    &["InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed"];

/// The difference from our clock to the provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// Milliseconds to add to our time; negative when our clock is ahead.
    pub millis: i64,
}

impl Skew {
    /// The skew for which a request was refused: the provider names its time, or sends it along.
    pub(super) fn of_refusal(reply: &WireReply<'_>, error: &ErrorBody) -> Option<Self> {
        if !(400..500).contains(&reply.status) || !error.has_code(CODES) {
            return None;
        }
        let read = |text: &str| {
            let read = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").ok()?;
            Some(read.and_utc().timestamp_millis())
        };
        let named: Vec<i64> = INSTANTS.find_iter(&error.message).filter_map(|found| read(found.as_str())).collect();
        let now = reply.received_at.map(|Timestamp(now)| now);
        let (ours, theirs) = match named[..] {
            // The time of the signature, the bound that it is beyond, and the time there.
            [signed, _, theirs, ..] => (now.unwrap_or(signed), theirs),
            _ if error.has_code(&["RequestExpired", "RequestTimeTooSkewed"]) => (now?, reply.sent_at()?.0),
            _ => return None,
        };
        Some(Self { millis: theirs.checked_sub(ours)? })
    }

    /// The failure, which is not the key's: the same call succeeds once it is signed by the right time.
    pub(super) fn failure(self, failure: Failure) -> Failure {
        let seconds = Duration::from_secs(self.millis.unsigned_abs() / 1000);
        let why = if seconds < NOTICEABLE {
            "the request was on its way for too long, so the provider refuses its signature".to_owned()
        } else {
            format!(
                "the clock of this machine is {} {} the provider's, which refuses the signature for that; calls are \
                 signed by the provider's clock from now on, but set this one (NTP)",
                humantime::format_duration(seconds),
                if self.millis < 0 { "ahead of" } else { "behind" }
            )
        };
        let message = format!("{why}: {}", failure.message);
        Failure { class: ErrorClass::ServerError, scope: Scope::Provider, message, wait: None, ..failure }
    }
}
