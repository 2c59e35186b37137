//! The one way out: sends a request, times it, caps it, and never retries.

mod body;
mod outbound;
mod room;
#[cfg(test)]
mod tests;

use super::{mending, scrub};
use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Beside, Capabilities, ChatRequest, ErrorClass, Failure, Mend, Scope, Timestamp, Usage};
use crate::provider::anthropic::Anthropic;
use crate::provider::configured::Configured;
use crate::provider::echo::Echoes;
use crate::provider::gemini::Gemini;
use crate::provider::openai;
use crate::provider::quirks::QuirkSettings;
use crate::provider::{Adapter, Dialect, LimitObservation, WireReply, WireRequest};
use body::Body;
use outbound::Outbound;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Response, Url};
use room::Room;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, timeout_at};

/// A provider's own account of tokens is kept as it came, unless it is larger than this.
const MOST_USAGE_BYTES: usize = 5_000;

/// How long each stage of a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS. A client has one: the provider's, not the rung's.
    pub connect: Duration,
    /// From sending the request to the first byte of the answer's head.
    pub first_byte: Duration,
    /// Between two pieces of the body.
    pub idle: Duration,
    /// The whole call.
    pub total: Duration,
}

/// A key under a name that may be shown: that of its variable, its file or its credential.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The name; unique within a provider.
    pub name: String,
    /// The key.
    pub secret: SecretString,
}

/// A provider as configured.
///
/// Its `Debug` shows neither the key nor the values of the headers, which may be keys as well.
#[derive(Clone)]
pub struct Endpoint {
    /// Its name in the configuration.
    pub name: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// Whose it is, where that is known: decides on the habits of its server, whatever address it has.
    pub vendor: Option<String>,
    /// What the operator says of these habits.
    pub quirks: QuirkSettings,
    /// For example `https://api.openai.com/v1`; without a trailing slash.
    pub base_url: String,
    /// The keys, one of which goes with each call; none for servers without.
    pub keys: Vec<ApiKey>,
    /// Extra headers (`OpenAI-Organization`, …).
    pub headers: Vec<(String, String)>,
    /// Timeouts, before a rung's own.
    pub timeouts: Timeouts,
    /// Answers larger than this are cut off and count as a failure. Bytes, after decompression.
    pub max_body: usize,
}

impl ApiKey {
    /// Whether it is the same key under the same name.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.name == other.name && self.secret.expose_secret() == other.secret.expose_secret()
    }
}

impl Endpoint {
    /// How it is spoken to.
    #[must_use]
    pub fn adapter(&self) -> Arc<dyn Adapter> {
        match self.dialect {
            Dialect::Openai => Arc::new(openai::for_provider(self.vendor.as_deref(), &self.base_url, &self.quirks)),
            Dialect::Anthropic => Arc::new(Configured { adapter: Anthropic, quirks: self.quirks.clone() }),
            Dialect::Gemini => Arc::new(Configured { adapter: Gemini, quirks: self.quirks.clone() }),
        }
    }

    /// Whether it is the same server, perhaps with other keys.
    #[must_use]
    pub fn is_same_server_as(&self, other: &Self) -> bool {
        (self.dialect, &self.base_url) == (other.dialect, &other.base_url)
    }

    /// Whether all of it is the same, so that a client of the one is a client of the other.
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

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password before the host is refused later; until then it must not show either.
        let base_url = self.base_url.rsplit_once('@').map_or(self.base_url.as_str(), |(_, rest)| rest);
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
            // What an operator adds to bodies is his own.
            .finish_non_exhaustive()
    }
}

/// Why a provider cannot be set up. Names the provider and the configuration's member, never a value.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The base URL is unusable.
    #[error("providers.{provider}.base_url: {reason}")]
    BaseUrl {
        /// The provider's name.
        provider: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A key has characters that no header can carry.
    #[error("providers.{provider}: the key {key} is empty or has characters that an HTTP header cannot carry")]
    Key {
        /// The provider's name.
        provider: String,
        /// The key's name.
        key: String,
    },
    /// A configured header is unusable.
    #[error("providers.{provider}.headers: {header:?} is not a valid HTTP header")]
    Header {
        /// The provider's name.
        provider: String,
        /// The header's name.
        header: String,
    },
    /// The HTTP client cannot be built.
    #[error("providers.{provider}: cannot set up the HTTP client: {source}")]
    Client {
        /// The provider's name.
        provider: String,
        /// Why.
        source: reqwest::Error,
    },
    /// There is no thread for its connections.
    #[error("providers.{provider}: cannot start a thread for its connections: {source}")]
    Thread {
        /// The provider's name.
        provider: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What came of one call.
#[derive(Debug)]
pub struct CallReport {
    /// The answer or the classified failure.
    pub result: Result<Answer, Failure>,
    /// HTTP status, when an answer's head came.
    pub status: Option<u16>,
    /// The provider's id of the request (`x-request-id`, `request-id`, …).
    pub request_id: Option<String>,
    /// Milliseconds until the answer's head, when it came.
    pub first_byte_ms: Option<i32>,
    /// Milliseconds until the call was over.
    pub total_ms: i32,
    /// Parameters that were left out for this target.
    pub dropped: Vec<String>,
    /// The limits that the answer's headers tell of.
    pub limits: Vec<LimitObservation>,
    /// The provider's own word on whether a retry helps (`x-should-retry`).
    pub should_retry: Option<bool>,
    /// Tokens that were billed although the call failed, where the body says so: normalised, and as they came.
    pub failed_usage: Option<(Usage, Value)>,
}

/// What is known of an answer as soon as its head has come, also when the call is then given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// Milliseconds until then.
    pub first_byte_ms: i32,
}

/// A provider that can be called: one HTTP client with its own pool of connections, on a thread of their own.
pub struct Provider {
    endpoint: Endpoint,
    adapter: Arc<dyn Adapter>,
    client: Client,
    outbound: Outbound,
    base_url: Url,
    /// Key, content type and configured headers: for each key, or once for a server without.
    headers: Vec<HeaderMap>,
    /// What must not appear in any message: the keys and the values of headers that carry one.
    secrets: Echoes,
    /// For large answers.
    room: Room,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Provider {
    /// Sets up the client; sends nothing. A rustls crypto provider has to be installed.
    ///
    /// # Errors
    /// [`ProviderError`] when URL, key or headers cannot be used.
    pub fn new(endpoint: Endpoint) -> Result<Self, ProviderError> {
        let adapter = endpoint.adapter();
        let provider = || endpoint.name.clone();
        let invalid = |reason| ProviderError::BaseUrl { provider: provider(), reason };
        let base_url =
            Url::parse(&endpoint.base_url).map_err(|_| invalid("expected an absolute URL such as https://host/v1"))?;
        if !matches!(base_url.scheme(), "http" | "https") || base_url.host_str().is_none() {
            return Err(invalid("expected http:// or https:// and a host"));
        }
        if !base_url.username().is_empty() || base_url.password().is_some() {
            return Err(invalid("a name or password in the URL ends up in logs; use a key or a header"));
        }
        let mut headers = HeaderMap::new();
        let mut secrets = Vec::new();
        for (name, value) in &endpoint.headers {
            let invalid = || ProviderError::Header { provider: provider(), header: name.clone() };
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
            let mut header_value = HeaderValue::from_str(value).map_err(|_| invalid())?;
            header_value.set_sensitive(true);
            let secret = ["auth", "key", "token", "secret", "cookie"].iter().any(|word| header.as_str().contains(word));
            if secret && value.len() >= 8 {
                secrets.push(value.clone().into());
            }
            headers.insert(header, header_value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut with_key = Vec::new();
        for ApiKey { name, secret } in &endpoint.keys {
            if secret.expose_secret().is_empty() || HeaderValue::from_str(secret.expose_secret()).is_err() {
                return Err(ProviderError::Key { provider: provider(), key: name.clone() });
            }
            let mut authorized = headers.clone();
            adapter.authorize(secret, &mut authorized);
            with_key.push(authorized);
            secrets.push(secret.clone());
        }
        let headers = if with_key.is_empty() { vec![headers] } else { with_key };

        let mut builder = Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry the key to wherever it points.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(endpoint.timeouts.connect)
            .gzip(true)
            .tcp_nodelay(true)
            // A call may be silent for minutes; without this a router in between forgets the connection.
            .tcp_keepalive(Duration::from_secs(30))
            // Shorter than what servers allow, so that a connection rarely dies under a request.
            .pool_idle_timeout(Duration::from_secs(45))
            // One connection per call in flight: with HTTP/2 all calls would share one, wait for its free streams
            // inside their timeouts, and die together with it.
            .http1_only();
        if is_loopback(&base_url) {
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|source| ProviderError::Client { provider: provider(), source: source.without_url() })?;
        let outbound =
            Outbound::start(&endpoint.name).map_err(|source| ProviderError::Thread { provider: provider(), source })?;
        let (secrets, room) = (Echoes::of(secrets), Room::new());
        Ok(Self { endpoint, adapter, client, outbound, base_url, headers, secrets, room })
    }

    /// The provider as configured.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes one call with the key at this place among the configured ones (0 for a server without), and reports it;
    /// never retries. `timeouts` are those of the rung. `head` is filled when the answer's head has come: it is all
    /// that is left when this future is dropped. `mends` are what earlier refusals of this target have asked for.
    ///
    /// # Errors
    /// [`Ineligible`] when this target can never take the request: nothing was sent then.
    #[expect(clippy::too_many_arguments, reason = "a call has that many sides")]
    pub async fn call(
        &self,
        key: usize,
        request: &ChatRequest,
        model: &str,
        capabilities: &Capabilities,
        mends: &[Mend],
        timeouts: &Timeouts,
        head: &OnceLock<Head>,
    ) -> Result<CallReport, Ineligible> {
        let mut wire = self.adapter.encode(request, model, capabilities)?;
        mending::apply(&mut wire, mends);
        let WireRequest { path, headers, body, dropped, undo } = wire;
        let started = Instant::now();
        let exchange = self.exchange(self.request(key, &path, headers, body), timeouts, started, head).await;
        let mut report = match exchange {
            Ok(reply) => self.report(&reply, dropped),
            Err(failure) => CallReport {
                result: Err(failure),
                status: None,
                request_id: None,
                first_byte_ms: None,
                total_ms: 0,
                dropped,
                limits: Vec::new(),
                should_retry: None,
                failed_usage: None,
            },
        };
        if let Ok(answer) = &mut report.result {
            undo.apply(answer);
        }
        self.redact(&mut report);
        report.total_ms = millis(started.elapsed());
        Ok(report)
    }

    /// Whether a change, on top of those made already, changes what is sent for a request.
    #[must_use]
    pub fn changes(
        &self,
        request: &ChatRequest,
        model: &str,
        capabilities: &Capabilities,
        made: &[Mend],
        change: &Mend,
    ) -> bool {
        let Ok(mut wire) = self.adapter.encode(request, model, capabilities) else { return false };
        mending::apply(&mut wire, made);
        let before = wire.dropped.len();
        mending::apply(&mut wire, std::slice::from_ref(change));
        wire.dropped.len() > before
    }

    fn request(&self, key: usize, path: &str, extra: HeaderMap, body: Vec<u8>) -> Request {
        let mut url = self.base_url.clone();
        url.set_path(&format!("{}{path}", self.base_url.path().trim_end_matches('/')));
        let mut request = Request::new(Method::POST, url);
        let headers = request.headers_mut();
        // A key that is not there goes out as none, which the provider refuses: better than the wrong one.
        self.headers.get(key).into_iter().for_each(|with_key| headers.clone_from(with_key));
        headers.extend(extra);
        *request.body_mut() = Some(body.into());
        request
    }

    /// Sends, and reads the answer as far as it comes. Fails only when there is no head.
    async fn exchange(
        &self,
        request: Request,
        timeouts: &Timeouts,
        started: Instant,
        head: &OnceLock<Head>,
    ) -> Result<Reply, Failure> {
        let deadline = deadline(started, timeouts.total);
        let head_by =
            deadline.min(self::deadline(started, self.endpoint.timeouts.connect.saturating_add(timeouts.first_byte)));
        let mut response = match timeout_at(head_by, self.outbound.drive(|| self.client.execute(request))).await {
            Err(_) => return Err(timed_out("no answer began in time")),
            Ok(Err(error)) => return Err(broken(&error, "before an answer began")),
            Ok(Ok(response)) => response,
        };
        let first_byte = started.elapsed();
        let _ = head.set(Head {
            status: response.status().as_u16(),
            request_id: self.request_id(response.headers()),
            first_byte_ms: millis(first_byte),
        });
        let limits = body::Limits { max: self.endpoint.max_body, idle: timeouts.idle, deadline };
        let (body, fault) = Body::read(&mut response, &limits, &self.room).await;
        Ok(Reply::new(&mut response, body, fault, first_byte))
    }

    /// Makes a report of an answer; the total time is the caller's to note.
    fn report(&self, reply: &Reply, dropped: Vec<String>) -> CallReport {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let received_at = since_epoch.and_then(|now| i64::try_from(now.as_millis()).ok()).map(Timestamp);
        let wire = WireReply { status: reply.status, headers: &reply.headers, body: reply.body.bytes(), received_at };
        let success = (200..300).contains(&reply.status);
        let result = match &reply.fault {
            // A failure is known by its head: its status and its wait count, whatever became of the body.
            Some(fault) if success => self.decode_whole(&wire, fault),
            _ => self.decode(&wire),
        };
        let billed = success && result.is_err() && reply.fault.is_none();
        CallReport {
            failed_usage: if billed { self.adapter.usage_of(&wire) } else { None },
            result,
            status: Some(reply.status),
            request_id: self.request_id(&reply.headers),
            first_byte_ms: Some(millis(reply.first_byte)),
            total_ms: 0,
            dropped,
            limits: self.adapter.limits(&wire),
            should_retry: match reply.headers.get("x-should-retry").map(HeaderValue::as_bytes) {
                Some(b"true") => Some(true),
                Some(b"false") => Some(false),
                _ => None,
            },
        }
    }

    /// Decodes an answer whose connection broke or fell silent after all of it was there: some servers never end
    /// theirs. What is not whole is a failure.
    fn decode_whole(&self, wire: &WireReply<'_>, fault: &Failure) -> Result<Answer, Failure> {
        let mut answer = match self.adapter.decode(wire) {
            Ok(answer) if !wire.body.is_empty() => answer,
            _ => return Err(Failure { status: Some(wire.status), ..fault.clone() }),
        };
        answer.beside.notes.push(format!("it was whole when its connection failed: {}", fault.message));
        Ok(answer)
    }

    /// Decodes; when that fails and the body quotes a secret, again without the secret, so that no shortening can
    /// leave half of it.
    fn decode(&self, wire: &WireReply<'_>) -> Result<Answer, Failure> {
        let result = self.adapter.decode(wire);
        if result.is_ok() {
            return result;
        }
        let text = String::from_utf8_lossy(wire.body);
        match self.secrets.redacted(&text) {
            Cow::Borrowed(_) => result,
            Cow::Owned(redacted) => self.adapter.decode(&WireReply { body: redacted.as_bytes(), ..*wire }),
        }
    }

    /// The id under which the provider knows the request, for its support.
    fn request_id(&self, headers: &HeaderMap) -> Option<String> {
        const NAMES: [&str; 5] = ["x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "cf-ray"];
        let id = NAMES.iter().find_map(|name| headers.get(*name)?.to_str().ok().filter(|id| !id.is_empty()))?;
        // Before it is shortened, so that no half of a secret is left.
        let id = self.secrets.redacted(id);
        Some(scrub::head(&id, 200).to_owned())
    }

    /// Takes the secrets out of everything that is kept: a server may send back what it was sent, anywhere.
    fn redact(&self, report: &mut CallReport) {
        let redact = |text: &mut String| {
            if let Cow::Owned(redacted) = self.secrets.redacted(text) {
                *text = redacted;
            }
        };
        if let Some((_, usage)) = &mut report.failed_usage {
            scrub::each_text(usage, &redact);
        }
        match &mut report.result {
            Err(failure) => {
                redact(&mut failure.message);
                failure.code.iter_mut().for_each(redact);
                failure.code.iter_mut().for_each(shorten);
            }
            Ok(answer) => {
                let Answer { text, refusal, reasoning, tool_calls, finish_raw, model, id, usage_raw, beside, .. } =
                    answer;
                for text in [text, refusal, reasoning, &mut *finish_raw, &mut *model, &mut *id] {
                    text.iter_mut().for_each(redact);
                }
                for members in beside.members_mut() {
                    let mut whole = Value::Object(std::mem::take(members));
                    scrub::each_text(&mut whole, &redact);
                    if let Value::Object(redacted) = whole {
                        *members = redacted;
                    }
                }
                beside.service_tier.iter_mut().for_each(redact);
                beside.service_tier.iter_mut().for_each(shorten);
                beside.shorten(Beside::MOST_BYTES);
                // Names, which stand on the ledger and in messages; not in the answer, which may be as long as it is.
                for name in [finish_raw, model, id] {
                    name.iter_mut().for_each(shorten);
                }
                for call in tool_calls {
                    [&mut call.id, &mut call.name, &mut call.arguments].into_iter().for_each(redact);
                }
                if let Some(usage) = usage_raw {
                    scrub::each_text(usage, &redact);
                }
                if usage_raw.as_ref().is_some_and(|usage| usage.to_string().len() > MOST_USAGE_BYTES) {
                    *usage_raw = None;
                }
            }
        }
    }
}

/// Cuts a name that is none: the ledger keeps what tells it from others.
fn shorten(name: &mut String) {
    const CHARS: usize = 200;
    if let Some((end, _)) = name.char_indices().nth(CHARS) {
        name.truncate(end);
    }
}

/// What came back.
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Body,
    /// What went wrong with the body.
    fault: Option<Failure>,
    first_byte: Duration,
}

impl Reply {
    fn new(response: &mut Response, body: Body, fault: Option<Failure>, first_byte: Duration) -> Self {
        let headers = std::mem::take(response.headers_mut());
        Self { status: response.status().as_u16(), headers, body, fault, first_byte }
    }
}

/// `start + duration`; a timeout beyond what the clock can say is a century.
fn deadline(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or_else(|| start + Duration::from_hours(100 * 365 * 24))
}

fn timed_out(message: &str) -> Failure {
    Failure::new(ErrorClass::Timeout, Scope::Model, message)
}

/// A connection that failed or broke. A body that arrives whole and cannot be decompressed is the server's fault.
fn broken(error: &reqwest::Error, when: &str) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    let mut root = String::new();
    let mut from_the_wire = false;
    let mut cut = false;
    while let Some(inner) = cause {
        from_the_wire |= inner.is::<hyper::Error>();
        cut |= inner.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof);
        root = inner.to_string();
        cause = inner.source();
    }
    let root = if root.is_empty() { "unknown cause".to_owned() } else { root };
    if error.is_decode() && !from_the_wire && !cut {
        return Failure::new(
            ErrorClass::ServerError,
            Scope::Model,
            scrub::clean(&format!("the answer cannot be decompressed: {root}")),
        );
    }
    if error.is_builder() {
        // Nothing was sent; the configuration was checked, so this is not expected.
        return Failure::new(
            ErrorClass::Network,
            Scope::Provider,
            scrub::clean(&format!("the call cannot be made: {root}")),
        );
    }
    let what = match (error.is_connect(), error.is_timeout()) {
        (true, true) => "no connection in time".to_owned(),
        (true, false) => format!("no connection: {root}"),
        (false, _) => format!("the connection broke {when}: {root}"),
    };
    let class = if error.is_connect() { ErrorClass::Unreachable } else { ErrorClass::Network };
    Failure::new(class, Scope::Network, scrub::clean(&what))
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
