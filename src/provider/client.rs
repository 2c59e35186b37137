//! A provider that can be called: turns a request into the report of a call.

#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Payload};
use super::addresses::ServerAddress;
use super::auth::Auth;
use super::echo::Echoes;
use super::endpoint::{ApiKey, Endpoint};
use super::error_body::ErrorBody;
use super::report::{CallReport, FailedUsage};
use super::role::{Held, RoleKeys};
use super::sigv4::{AccessKey, Skew};
use super::transport::{Reply, TimeLimits, Transport};
use super::vendors::{self, Tiers};
use super::wire::{Delivery, Outgoing, WireReply, WireRequest};
use super::{mending, scrub};
use crate::domain::decide::Ineligible;
use crate::domain::probe::{ProbePage, ProbeReport};
use crate::domain::{Answer, Capabilities, ErrorClass, Failure, Mend, MustKeep, Tier, Timeouts, Timestamp};
use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::ExposeSecret;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Why a provider cannot be set up. Names the provider and the key of the configuration, never a value.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The base URL is unusable.
    #[error("providers.{provider}.base_url: {reason}")]
    BaseUrl {
        provider: String,
        /// The flaw in the URL.
        reason: &'static str,
    },
    /// A key has characters that no header can carry.
    #[error("providers.{provider}: the key {key} is empty or has characters that an HTTP header cannot carry")]
    Key { provider: String, key: String },
    /// A configured header is unusable.
    #[error("providers.{provider}.headers: {header:?} is not a valid HTTP header")]
    Header { provider: String, header: String },
    /// The HTTP client cannot be built, or there is no thread for its connections.
    #[error("providers.{provider}: {reason}")]
    Client {
        provider: String,
        /// Why not, and what to do, in words.
        reason: String,
    },
}

/// As much of the answer to a health probe is read.
const MOST_OF_PROBE: usize = 4 << 10;

/// As many characters of what a server says to a health probe are kept.
const PROBE_WORDS: usize = 200;

/// One call to a provider.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub payload: Payload<'a>,
    /// The model's name at the provider.
    pub model: &'a str,
    /// The tier that it asks for; `None`: the request decides, if it may.
    pub tier: Option<Tier>,
    /// The capabilities of the model.
    pub capabilities: &'a Capabilities,
    /// Changes that earlier refusals of the target have asked for.
    pub mends: &'a [Mend],
    /// Members that may not be left out of the request.
    pub must_keep: &'a MustKeep,
    /// How the answer is transferred.
    pub delivery: Delivery,
}

/// The part of an answer that is known as soon as its head has arrived, even when the call is then given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// Milliseconds from the start of the call to the head; `None`: a stream is to begin after it.
    pub first_byte_ms: Option<i32>,
}

/// A provider that can be called.
pub struct Provider {
    endpoint: Endpoint,
    adapter: Arc<dyn Adapter>,
    tiers: Tiers,
    transport: Arc<Transport>,
    server: ServerAddress,
    /// The configured headers.
    headers: HeaderMap,
    /// Clients of their own for rungs that allow another time for connecting than the provider does.
    by_connect: Mutex<BTreeMap<Duration, Arc<Transport>>>,
    /// The credentials of each key, or one entry for a server without keys.
    auths: Vec<Auth>,
    /// The keys of the role that each of them stands for, if it does.
    roles: Vec<Option<RoleKeys>>,
    /// Milliseconds from our clock to the provider's, as far as a signature was refused for its time.
    skew: AtomicI64,
    /// Texts that must not appear in any message: the keys, and the values of headers that carry one.
    secrets: Echoes,
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
    /// [`ProviderError`] when the URL, a key or the headers cannot be used.
    pub fn new(endpoint: Endpoint) -> Result<Self, ProviderError> {
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
        for ApiKey { name, secret, access, .. } in endpoint.keys.iter().filter(|key| key.role.is_none()) {
            if secret.expose_secret().is_empty() || HeaderValue::from_str(secret.expose_secret()).is_err() {
                return Err(ProviderError::Key { provider: provider(), key: name.clone() });
            }
            secrets.push(secret.clone());
            secrets.extend(access.iter().flat_map(AccessKey::secrets).cloned());
        }
        let role = |key: &ApiKey| Some(RoleKeys::new(key.role.clone()?, endpoint.dialect.signs_for?));
        let roles = endpoint.keys.iter().map(role).collect();
        let auths = if endpoint.keys.is_empty() {
            vec![Auth::Open]
        } else {
            endpoint.keys.iter().map(|key| endpoint.auth(key)).collect()
        };
        let transport = Transport::new(&endpoint.name, &base_url, endpoint.timeouts.connect, endpoint.max_body)
            .map_err(|why| ProviderError::Client { provider: provider(), reason: why.to_string() })?;
        let (adapter, tiers) = (endpoint.adapter(), endpoint.tiers());
        Ok(Self {
            endpoint,
            adapter,
            tiers,
            transport: Arc::new(transport),
            server: ServerAddress::new(base_url),
            headers,
            by_connect: Mutex::default(),
            auths,
            roles,
            skew: AtomicI64::new(0),
            secrets: Echoes::of(secrets),
        })
    }

    /// The provider as configured.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes one call with the key at this place in the configuration (0 for a server without keys), and reports it;
    /// never retries. `timeouts` are those of the rung. `head` is filled when the answer's head has arrived: the head
    /// is all that remains when this future is dropped.
    ///
    /// # Errors
    /// [`Ineligible`] when this target can never take the request; nothing was sent then.
    pub async fn call(
        &self,
        key: usize,
        call: &Call<'_>,
        timeouts: &Timeouts,
        head: &OnceLock<Head>,
    ) -> Result<CallReport, Ineligible> {
        let mut wire = self.written(call)?;
        let (dropped, undo) = (std::mem::take(&mut wire.dropped), std::mem::take(&mut wire.undo));
        let delivery = wire.delivery;
        let started = Instant::now();
        let mut report = match self.exchange(key, wire, timeouts, started, head).await {
            Ok(reply) => self.report(&reply, delivery),
            Err(failure) => CallReport::without_answer(failure),
        };
        if let Ok(answer) = &mut report.result {
            undo.apply(answer);
        }
        if let Some(partial) = &mut report.partial {
            undo.apply(partial);
        }
        report.redact(&self.secrets);
        for held in self.handed_out() {
            report.redact(&held.secrets);
        }
        if matches!(&report.result, Err(failure) if failure.class == ErrorClass::Auth)
            && let Some(Some(role)) = self.roles.get(key)
        {
            role.refused();
        }
        report.dropped = dropped;
        report.total_ms = millis(started.elapsed());
        Ok(report)
    }

    /// Asks for a page of the provider's server, with the key at this place in the configuration, and never again. The
    /// page is at the origin of the provider's address, so the key goes to no other server; redirects are not followed.
    pub async fn probe(&self, key: usize, page: &ProbePage, timeout: Duration) -> ProbeReport {
        let started = Instant::now();
        let (path, query) = page.parts();
        let mut url = self.server.base().clone();
        url.set_path(path);
        // A query of the address goes with each call, so also with this one.
        let both: Vec<&str> = url.query().into_iter().chain(query).filter(|query| !query.is_empty()).collect();
        let both = both.join("&");
        url.set_query(Some(both.as_str()).filter(|query| !query.is_empty()));
        let mut request = Outgoing { method: Method::GET, url, headers: self.headers.clone(), body: Vec::new() };
        let answered = match self.sign(key, &mut request).await {
            Ok(()) => self.transport.ask(request, timeout, started, MOST_OF_PROBE).await,
            Err(failure) => Err(failure),
        };
        let total_ms = millis(started.elapsed());
        let (status, said) = match answered {
            Ok((status @ 200..=299, _)) => (Some(status), String::new()),
            Ok((status @ 300..=399, _)) => (Some(status), "redirects are not followed".to_owned()),
            Ok((status, body)) if body.is_empty() => (Some(status), String::new()),
            Ok((status, body)) => {
                // Before it is shortened, so that no half of a secret remains.
                let text = String::from_utf8_lossy(&body);
                (Some(status), ErrorBody::read(self.redacted(&text).as_bytes()).message)
            }
            Err(failure) => (None, failure.message),
        };
        let words = scrub::head(&scrub::clean(&self.redacted(&said)), PROBE_WORDS).to_owned();
        ProbeReport { status, words: Some(words).filter(|words| !words.is_empty()), total_ms }
    }

    /// Whether a change makes a difference to the sent request, on top of those that the call has already.
    #[must_use]
    pub fn changes(&self, call: &Call<'_>, change: &Mend) -> bool {
        let Ok(mut wire) = self.written(call) else { return false };
        let before = wire.dropped.len();
        mending::apply(&mut wire, std::slice::from_ref(change));
        wire.dropped.len() > before && wire.without_loss(call.must_keep, call.payload.request()).is_ok()
    }

    /// The request in the dialect's form, changed as earlier refusals asked.
    fn written(&self, call: &Call<'_>) -> Result<WireRequest, Ineligible> {
        let mut wire = self.adapter.encode(call.payload, call.model, call.capabilities)?;
        if call.delivery == Delivery::Stream {
            self.adapter.ask_for_stream(&mut wire);
        }
        mending::apply(&mut wire, call.mends);
        wire.without_loss(call.must_keep, call.payload.request())?;
        if let Some(tier) = call.tier {
            // After the changes: without its tier the call would be another target's, at another price.
            self.ask_for_tier(&mut wire, call.payload, tier)?;
        }
        Ok(wire)
    }

    /// Asks for the tier in the vendor's words.
    fn ask_for_tier(&self, wire: &mut WireRequest, payload: Payload<'_>, tier: Tier) -> Result<(), Ineligible> {
        // No vendor is known to sell embeddings in tiers.
        if matches!(payload, Payload::Embeddings(..)) {
            return Err(Ineligible::Unsupported(format!("embeddings in the tier {tier}")));
        }
        wire.ask_for_tier(self.tiers.member, &self.tiers.value(tier), tier, vendors::tier_members());
        Ok(())
    }

    /// The finished request, signed. For a key that does not exist, the request goes out without one and the provider
    /// refuses it: better than the wrong key.
    async fn signed(&self, key: usize, wire: WireRequest) -> Result<Outgoing, Failure> {
        let mut request = Outgoing::at(self.server.of(&wire.path), &self.headers, wire);
        self.sign(key, &mut request).await?;
        Ok(request)
    }

    async fn sign(&self, key: usize, request: &mut Outgoing) -> Result<(), Failure> {
        // By the provider's clock, where it was heard: ours may be wrong.
        let Timestamp(now) = now();
        let now = Timestamp(now.saturating_add(self.skew.load(Ordering::Relaxed)));
        if let Some(Some(role)) = self.roles.get(key) {
            return role.at(now).await?.signer.sign(request, now);
        }
        self.auths.get(key).unwrap_or(&Auth::Open).sign(request, now)
    }

    /// The keys of roles that are known now.
    fn handed_out(&self) -> impl Iterator<Item = Arc<Held>> {
        self.roles.iter().flatten().filter_map(RoleKeys::known)
    }

    /// The text without secrets.
    fn redacted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = self.secrets.redacted(text);
        for held in self.handed_out() {
            let redacted = match held.secrets.redacted(&text) {
                Cow::Owned(redacted) => redacted,
                Cow::Borrowed(_) => continue,
            };
            text = Cow::Owned(redacted);
        }
        text
    }

    async fn exchange(
        &self,
        key: usize,
        wire: WireRequest,
        timeouts: &Timeouts,
        started: Instant,
        head: &OnceLock<Head>,
    ) -> Result<Reply, Failure> {
        let delivery = wire.delivery;
        let request = self.signed(key, wire).await?;
        let Timeouts { connect, first_byte, idle, total } = *timeouts;
        let on_head = |status: u16, headers: &HeaderMap, first_byte: Option<Duration>| {
            let request_id = self.request_id(&self.endpoint.quirks.headers.in_common(headers));
            let _ = head.set(Head { status, request_id, first_byte_ms: first_byte.map(millis) });
        };
        let limits = TimeLimits { first_byte, idle, total, started };
        self.transport_for(connect).exchange(request, delivery, &limits, on_head).await
    }

    /// The client of calls that allow this much time for connecting. It holds for all connections of a client, so each
    /// time has a client of its own, from its first call on.
    fn transport_for(&self, connect: Duration) -> Arc<Transport> {
        let Endpoint { name, timeouts, max_body, .. } = &self.endpoint;
        if connect == timeouts.connect {
            return Arc::clone(&self.transport);
        }
        let mut others = self.by_connect.lock();
        if let Some(known) = others.get(&connect) {
            return Arc::clone(known);
        }
        let Ok(made) = Transport::new(name, self.server.base(), connect, *max_body) else {
            tracing::warn!(
                provider = name.as_str(),
                ?connect,
                "no client could be made for a rung's own timeouts.connect: the call has the provider's"
            );
            return Arc::clone(&self.transport);
        };
        let transport = Arc::new(made);
        others.insert(connect, Arc::clone(&transport));
        transport
    }

    /// Makes a report of an answer; the caller adds the dropped members and the total time.
    fn report(&self, reply: &Reply, delivery: Delivery) -> CallReport {
        let headers = self.endpoint.quirks.headers.in_common(reply.headers());
        let wire = WireReply {
            status: reply.status(),
            headers: &headers,
            body: reply.body(),
            delivery,
            is_partial: false,
            received_at: Some(now()),
        };
        if let Some(Skew { millis }) = self.adapter.skew(&wire) {
            self.skew.store(millis, Ordering::Relaxed);
        }
        let success = (200..300).contains(&reply.status());
        let result = match reply.fault() {
            // A failure is known by its head: its status and its wait count, regardless of what happened to the body.
            Some(fault) if success => self.decode_whole(&wire, fault),
            _ => self.decode(&wire),
        };
        let billed = |billed: &FailedUsage| success || billed.is_something();
        let is_told = |failure: &Failure| reply.fault().is_none() || (success && says_why(failure));
        let is_whole = result.as_ref().err().is_some_and(is_told);
        let broke_off = success && result.is_err() && delivery == Delivery::Stream;
        CallReport {
            partial: if broke_off { self.partial(&wire).map(Box::new) } else { None },
            is_streamed: delivery == Delivery::Stream,
            failed_usage: if is_whole { self.adapter.usage_of(&wire).filter(billed) } else { None },
            result,
            status: Some(reply.status()),
            request_id: self.request_id(&headers),
            first_byte_ms: reply.first_byte().map(millis),
            total_ms: 0,
            dropped: Vec::new(),
            limits: self.adapter.limits(&wire),
            should_retry: match reply.headers().get("x-should-retry").map(HeaderValue::as_bytes) {
                Some(b"true") => Some(true),
                Some(b"false") => Some(false),
                _ => None,
            },
        }
    }

    /// Decodes an answer whose connection broke or fell silent after the whole answer had arrived: some servers never
    /// end theirs. An error that arrived before is what it says; any other incomplete answer is a broken connection.
    fn decode_whole(&self, wire: &WireReply<'_>, fault: &Failure) -> Result<Answer, Failure> {
        let mut answer = match self.decode(wire) {
            Ok(answer) if !wire.body.is_empty() => answer,
            Err(failure) if says_why(&failure) => return Err(failure),
            _ => return Err(Failure { status: Some(wire.status), ..fault.clone() }),
        };
        answer.beside.notes.push(format!("it was whole when its connection failed: {}", fault.message));
        Ok(answer)
    }

    /// What has come of an answer that broke off; `None`: not a word, or in a form that cannot be told from rubbish.
    fn partial(&self, wire: &WireReply<'_>) -> Option<Answer> {
        let partial = self.adapter.decode(&WireReply { is_partial: true, ..*wire }).ok()?;
        (partial.characters() > 0).then_some(partial)
    }

    /// Decodes a reply. When that fails and the body quotes a secret, decodes it again without the secret, so that no
    /// shortening can leave half of it.
    fn decode(&self, wire: &WireReply<'_>) -> Result<Answer, Failure> {
        let result = self.adapter.decode(wire);
        if result.is_ok() {
            return result;
        }
        let text = String::from_utf8_lossy(wire.body);
        match self.redacted(&text) {
            Cow::Borrowed(_) => result,
            Cow::Owned(redacted) => self.adapter.decode(&WireReply { body: redacted.as_bytes(), ..*wire }),
        }
    }

    /// The id under which the provider knows the request, for its support.
    fn request_id(&self, headers: &HeaderMap) -> Option<String> {
        const NAMES: [&str; 5] = ["x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "cf-ray"];
        let id = NAMES.iter().find_map(|name| headers.get(*name)?.to_str().ok().filter(|id| !id.is_empty()))?;
        // Before it is shortened, so that no half of a secret remains.
        let id = self.redacted(id);
        Some(scrub::head(&id, 200).to_owned())
    }
}

/// The wall clock: the base of instants that providers name, and of signatures.
pub(super) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Whether a failure was read in the body of an answer, rather than seen in its breaking off.
const fn says_why(failure: &Failure) -> bool {
    !matches!(failure.class, ErrorClass::Network | ErrorClass::ServerError)
}
