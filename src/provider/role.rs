//! Keys of a role of AWS: the platform hands them out for some hours, to whatever runs in a container, on an instance,
//! or holds a token of its identity provider. They are fetched when they are needed, and renewed before they expire.

use super::echo::Echoes;
use super::scrub;
use super::sigv4::{AccessKey, Signer};
use crate::domain::{ErrorClass, Failure, Scope, Timestamp};
use chrono::DateTime;
use parking_lot::RwLock;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where the keys of a role come from.
#[derive(Clone, Debug)]
pub enum RoleSource {
    /// The service of a container (ECS, EKS Pod Identity).
    Container {
        /// Its address.
        url: String,
        /// What it asks for, if it does.
        token: Option<RoleToken>,
    },
    /// The service of a virtual machine (EC2), by its second version.
    Instance {
        /// Its address, without a path.
        url: String,
    },
    /// A token of an identity provider, for which STS gives keys (EKS, and whatever else writes one).
    WebIdentity {
        /// The address of STS.
        url: String,
        /// The role's ARN.
        role: String,
        /// The name under which the role's calls are recorded.
        session: String,
        /// The file with the token, which is read for each renewal.
        token_file: PathBuf,
    },
}

/// The token that the service of a container asks for.
#[derive(Clone, Debug)]
pub enum RoleToken {
    /// The token.
    Value(SecretString),
    /// A file with it, which is read for each renewal.
    File(PathBuf),
}

/// The role whose keys sign the calls of a provider.
#[derive(Clone, Debug)]
pub struct AwsRole {
    /// Where its keys come from.
    pub source: RoleSource,
    /// The region for which calls are signed.
    pub region: String,
}

impl AwsRole {
    /// Whether it is the same role, for the same region.
    #[must_use]
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let token = |token: &Option<RoleToken>| match token {
            None => None,
            Some(RoleToken::Value(value)) => Some((Some(value.expose_secret().to_owned()), None)),
            Some(RoleToken::File(path)) => Some((None, Some(path.clone()))),
        };
        let source = |source: &RoleSource| match source {
            RoleSource::Container { url, token: asked } => (url.clone(), token(asked), None),
            RoleSource::Instance { url } => (url.clone(), None, None),
            RoleSource::WebIdentity { url, role, session, token_file } => {
                (url.clone(), None, Some((role.clone(), session.clone(), token_file.clone())))
            }
        };
        self.region == other.region && source(&self.source) == source(&other.source)
    }
}

/// Keys are renewed when they have this long left: a call that is signed now may be checked a while later.
const RENEWED_AT: Duration = Duration::from_mins(5);

/// Services answer at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer with keys is not longer than this.
const MOST_BYTES: usize = 64 << 10;

/// The keys of a role, as far as they are known.
pub(super) struct RoleKeys {
    role: AwsRole,
    /// The name of the service in signatures.
    service: &'static str,
    held: RwLock<Option<Arc<Held>>>,
    /// Held by the one call that fetches new ones.
    renewing: tokio::sync::Mutex<()>,
}

/// Keys that were handed out.
pub(super) struct Held {
    pub signer: Signer,
    /// What must not appear in any message.
    pub secrets: Echoes,
    /// `None`: they do not expire.
    expires: Option<Timestamp>,
    /// The provider has refused them.
    is_refused: AtomicBool,
}

impl Held {
    fn lasts(&self, now: Timestamp, left: Duration) -> bool {
        !self.is_refused.load(Ordering::Relaxed) && self.expires.is_none_or(|expires| now + left < expires)
    }
}

/// Keys as the services write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl RoleKeys {
    pub(super) fn new(role: AwsRole, service: &'static str) -> Self {
        Self { role, service, held: RwLock::new(None), renewing: tokio::sync::Mutex::new(()) }
    }

    /// The keys as of this instant, fetched if those that are known have expired or are about to.
    ///
    /// # Errors
    /// No service hands any out, and those that are known have expired.
    pub(super) async fn at(&self, now: Timestamp) -> Result<Arc<Held>, Failure> {
        let fresh = || self.known().filter(|held| held.lasts(now, RENEWED_AT));
        if let Some(held) = fresh() {
            return Ok(held);
        }
        let _turn = self.renewing.lock().await;
        // Another call may have fetched them meanwhile.
        if let Some(held) = fresh() {
            return Ok(held);
        }
        match self.fetch().await {
            Ok(held) => {
                let held = Arc::new(held);
                *self.held.write() = Some(Arc::clone(&held));
                Ok(held)
            }
            Err(failure) => self.known().filter(|held| held.lasts(now, Duration::ZERO)).ok_or(failure),
        }
    }

    /// The keys that were handed out last.
    pub(super) fn known(&self) -> Option<Arc<Held>> {
        self.held.read().clone()
    }

    /// Notes that the provider has refused the keys: the next call fetches others.
    pub(super) fn refused(&self) {
        if let Some(held) = &*self.held.read() {
            held.is_refused.store(true, Ordering::Relaxed);
        }
    }

    async fn fetch(&self) -> Result<Held, Failure> {
        // No proxy and no other host: what comes back are keys.
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(PATIENCE).build();
        let client = client.map_err(|_| away("the HTTP client cannot be set up"))?;
        let written = match &self.role.source {
            RoleSource::Container { url, token } => {
                let mut request = client.get(url);
                if let Some(token) = token {
                    let token = match token {
                        RoleToken::Value(token) => token.clone(),
                        RoleToken::File(path) => read(path, "the token of the container").await?,
                    };
                    request = request.header(AUTHORIZATION, secret(token.expose_secret())?);
                }
                json(&said(request, "the service of the container").await?)?
            }
            RoleSource::Instance { url } => from_instance(&client, url).await?,
            RoleSource::WebIdentity { url, role, session, token_file } => {
                let token = read(token_file, "the token of the identity provider").await?;
                let form = [
                    ("Action", "AssumeRoleWithWebIdentity"),
                    ("Version", "2011-06-15"),
                    ("RoleArn", role),
                    ("RoleSessionName", session),
                    ("WebIdentityToken", token.expose_secret()),
                ];
                let mut body = reqwest::Url::parse("http://form").map_err(|_| away("a form"))?;
                body.query_pairs_mut().extend_pairs(form);
                let body = body.query().unwrap_or_default().to_owned();
                let request = client.post(url).header(ACCEPT, "application/xml");
                let request = request.header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded");
                xml(&said(request.body(body), "STS").await?)?
            }
        };
        let expires = match &written.expiration {
            None => None,
            Some(text) => {
                let expires = DateTime::parse_from_rfc3339(text).map_err(|_| odd("an expiry that is no time"))?;
                Some(Timestamp(expires.timestamp_millis()))
            }
        };
        let (id, token) = (SecretString::from(written.access_key_id), written.token.map(SecretString::from));
        let key = AccessKey { id, session_token: token, region: self.role.region.clone() };
        let signer = Signer { service: self.service, key, secret: written.secret_access_key.into() };
        let secrets = std::iter::once(&signer.secret).chain(signer.key.secrets()).cloned().collect();
        Ok(Held { secrets: Echoes::of(secrets), signer, expires, is_refused: AtomicBool::new(false) })
    }
}

/// The service of an instance: a token of its own first, then the role's name, then its keys.
async fn from_instance(client: &Client, url: &str) -> Result<Written, Failure> {
    const WHO: &str = "the service of the instance";
    const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
    const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
    let token = said(client.put(format!("{url}/latest/api/token")).header(TTL, "300"), WHO).await?;
    let token = secret(token.trim())?;
    let path = format!("{url}/latest/meta-data/iam/security-credentials/");
    let names = said(client.get(&path).header(TOKEN, token.clone()), WHO).await?;
    let name = names.lines().next().map(str::trim).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| odd("no role: the instance has none"))?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    if !name.bytes().all(is_plain) {
        return Err(odd("a role with a name that no role has"));
    }
    json(&said(client.get(format!("{path}{name}")).header(TOKEN, token), WHO).await?)
}

/// A failure that passes by itself: the service is not there.
fn away(what: &str) -> Failure {
    Failure::new(ErrorClass::ServerError, Scope::Provider, format!("no keys of the role: {what}"))
}

/// A failure that a person has to mend: the service answers, and hands out no keys.
fn odd(what: &str) -> Failure {
    Failure::new(ErrorClass::Auth, Scope::Key, format!("no keys of the role: the service answers with {what}"))
}

fn secret(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| odd("a token that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read(path: &PathBuf, what: &str) -> Result<SecretString, Failure> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned().into()),
        Ok(_) => Err(Failure::new(ErrorClass::Auth, Scope::Key, format!("{what} is empty: {}", path.display()))),
        Err(error) => {
            let why = format!("{what} cannot be read from {}: {error}", path.display());
            Err(Failure::new(ErrorClass::Auth, Scope::Key, why))
        }
    }
}

/// The text of a success.
async fn said(request: RequestBuilder, who: &str) -> Result<String, Failure> {
    let mut response = request.send().await.map_err(|error| {
        let why = if error.is_timeout() { "does not answer" } else { "cannot be reached" };
        away(&format!("{who} {why}"))
    })?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| away(&format!("{who} broke off")))? {
        if body.len().saturating_add(chunk.len()) > MOST_BYTES {
            return Err(odd("too much"));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return String::from_utf8(body).map_err(|_| odd("something that is no text"));
    }
    let why = format!("{who} answers {status}: {}", scrub::head(&scrub::clean(&String::from_utf8_lossy(&body)), 200));
    let waits = status.is_server_error() || status.as_u16() == 429;
    let failure = if waits { away(&why) } else { odd(&format!("a refusal: {why}")) };
    Err(Failure { status: Some(status.as_u16()), ..failure })
}

fn json(text: &str) -> Result<Written, Failure> {
    serde_json::from_str(text).map_err(|_| odd("something that is no access key"))
}

/// The keys in an answer of STS. Their values have no escapes: they are base64 and times.
fn xml(text: &str) -> Result<Written, Failure> {
    let value = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        let (value, _) = rest.split_once(&format!("</{tag}>"))?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let need = |tag: &str| value(tag).ok_or_else(|| odd("something that is no access key"));
    Ok(Written {
        access_key_id: need("AccessKeyId")?,
        secret_access_key: need("SecretAccessKey")?,
        token: value("SessionToken"),
        expiration: value("Expiration"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_both_forms() {
        let written =
            json(r#"{"Code":"Success","AccessKeyId":"A","SecretAccessKey":"S","Token":"T","Expiration":"E"}"#);
        let of_sts =
            xml("<R><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>A</AccessKeyId>\n<SecretAccessKey>S\
             </SecretAccessKey><SessionToken>T</SessionToken><Expiration>E</Expiration></Credentials></R>");
        for written in [written, of_sts] {
            let Written { access_key_id, secret_access_key, token, expiration } = written.unwrap();
            let all = (access_key_id.as_str(), secret_access_key.as_str(), token.as_deref(), expiration.as_deref());
            assert_eq!(all, ("A", "S", Some("T"), Some("E")));
        }
        for odd in ["", "null", "[]", r#"{"Code":"AssumeRoleUnauthorizedAccess","Message":"m"}"#] {
            assert_eq!(json(odd).err().map(|failure| failure.scope), Some(Scope::Key), "{odd}");
        }
        assert!(xml("<Error><Code>AccessDenied</Code></Error>").is_err());
    }

    #[test]
    fn keys_are_renewed_before_they_expire_and_used_until_then() {
        let source = RoleSource::Instance { url: String::new() };
        let role = AwsRole { source, region: "eu-central-1".to_owned() };
        let key = AccessKey { id: "A".into(), session_token: None, region: role.region.clone() };
        let signer = Signer { service: "bedrock", key, secret: "S".into() };
        let (secrets, is_refused) = (Echoes::default(), AtomicBool::new(false));
        let held = Held { signer, secrets, expires: Some(Timestamp(1_000_000)), is_refused };
        for (now, lasts, fresh) in
            [(0, true, true), (699_999, true, true), (700_000, true, false), (1_000_000, false, false)]
        {
            let now = Timestamp(now);
            assert_eq!((held.lasts(now, Duration::ZERO), held.lasts(now, RENEWED_AT)), (lasts, fresh), "{now:?}");
        }
    }
}
