//! The one way out: sends a finished request, times it, caps the reply, and never retries. It does not look into the
//! bodies, but for the events of a stream that was asked for, which it counts.

mod body;
mod outbound;
mod progress;
mod room;
mod sending;
mod stage;

use super::events::StreamPulse;
use super::wire::{Delivery, Outgoing};
use crate::domain::Failure;
use body::{Body, BodyLimits};
use outbound::Outbound;
use progress::{ArrivedHead, CallProgress};
use reqwest::header::HeaderMap;
use reqwest::{Client, Request, Url};
use room::Room;
use sending::Sending;
use stage::{broken, deadline, root_of, timed_out};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// A thread that is busy with other calls of its provider may be late to end a call whose time is over. After so much
/// longer it is not waited for.
const GRACE: Duration = Duration::from_secs(1);

/// An HTTP client with its own pool of connections, on a thread of its own.
pub(super) struct Transport {
    client: Client,
    outbound: Outbound,
    max_body: usize,
    /// Memory for large answers.
    room: Arc<Room>,
}

/// The time limits of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimits {
    /// From sending the request to the end of the answer's head, and of a stream of events to the first event.
    /// Connecting comes before that.
    pub first_byte: Duration,
    /// Between two pieces of the body; in a stream of events, between two events that say something.
    pub idle: Duration,
    /// For the whole call, counted from `started`.
    pub total: Duration,
    /// When the call began.
    pub started: Instant,
}

/// Why the client could not be made, in words.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTransport {
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
    #[error("cannot start a thread for its connections: {0}")]
    Thread(io::Error),
}

impl NoTransport {
    fn client(error: &reqwest::Error) -> Self {
        let reason = root_of(error).unwrap_or_else(|| "unknown cause".to_owned());
        Self::Client(if reason.contains(NO_CERTIFICATES) { NO_CERTIFICATES_HERE.to_owned() } else { reason })
    }
}

/// What the TLS library says where the system has no certificates.
const NO_CERTIFICATES: &str = "No CA certificates were loaded";

/// The same for people.
const NO_CERTIFICATES_HERE: &str = "the system has no certificates of authorities, by which servers behind https are \
                                    known: install the package ca-certificates, or name a file in SSL_CERT_FILE";

/// The reply of the server.
pub(super) struct Reply {
    progress: Arc<CallProgress>,
    body: AnswerBody,
}

/// The body of an answer as it came.
#[derive(Default)]
struct AnswerBody {
    body: Body,
    /// The failure of the body, if it did not arrive whole.
    fault: Option<Failure>,
    /// When the answer began, if it is a stream that was asked for.
    began: Option<Duration>,
}

impl Reply {
    /// The reply of a call whose head has come.
    fn of(progress: &Arc<CallProgress>, body: AnswerBody) -> Self {
        Self { progress: Arc::clone(progress), body }
    }

    fn head(&self) -> &ArrivedHead {
        self.progress.head().expect("a reply is made of a call whose head has come")
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.head().status
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.head().headers
    }

    /// The part of the body that arrived.
    pub fn body(&self) -> &[u8] {
        self.body.body.bytes()
    }

    /// The failure of the body, if it did not arrive whole.
    pub fn fault(&self) -> Option<&Failure> {
        self.body.fault.as_ref()
    }

    /// When the answer began: its head, or the first event of a stream; `None`: no event came.
    pub fn first_byte(&self) -> Option<Duration> {
        self.head().first_byte.or(self.body.began)
    }
}

impl Transport {
    /// Sets up the client for a server; sends nothing. A rustls crypto provider has to be installed.
    ///
    /// # Errors
    /// The client or its thread cannot be started.
    pub fn new(provider: &str, base_url: &Url, connect: Duration, max_body: usize) -> Result<Self, NoTransport> {
        let mut builder = Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            // A redirect would send the key to any address that it names.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(connect)
            .gzip(true)
            .tcp_nodelay(true)
            // A call may be silent for minutes; without this, a router in between forgets the connection.
            .tcp_keepalive(Duration::from_secs(30))
            // Shorter than what servers allow, so that a connection rarely dies under a request.
            .pool_idle_timeout(Duration::from_secs(45))
            // One connection per call in flight: with HTTP/2 all calls would share one, wait for its free streams
            // inside their timeouts, and die together with it.
            .http1_only();
        if is_loopback(base_url) {
            builder = builder.no_proxy();
        }
        if !may_speak_tls(base_url, proxies()) {
            // Reading the system's certificates takes longer than the rest of a start, and a system that has none may
            // ask a server without TLS all the same.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        let client = builder.build().map_err(|error| NoTransport::client(&error.without_url()))?;
        let outbound = Outbound::start(provider).map_err(NoTransport::Thread)?;
        Ok(Self { client, outbound, max_body, room: Arc::new(Room::new()) })
    }

    /// Sends the request, and reads as much of the answer as arrives, in the delivery that was asked for. `on_head` is
    /// called once the head is there, with the time that it took unless the answer itself is yet to begin: the head is
    /// all that remains when this future is dropped.
    ///
    /// All of it happens on the thread of the provider, so that its connections and what reads from them do not
    /// wake each other across threads. Here it is only waited for, with an eye on the time.
    ///
    /// # Errors
    /// No answer began.
    pub async fn exchange(
        &self,
        request: Outgoing,
        delivery: Delivery,
        patience: &TimeLimits,
        on_head: impl FnOnce(u16, &HeaderMap, Option<Duration>),
    ) -> Result<Reply, Failure> {
        let progress = Arc::new(CallProgress::default());
        let TimeLimits { first_byte, total, started, .. } = *patience;
        let deadline = deadline(started, total);
        let begins_by = || progress.begins_by(first_byte, Instant::now()).min(deadline);
        let call = Exchange {
            client: self.client.clone(),
            max_body: self.max_body,
            room: Arc::clone(&self.room),
            delivery,
            patience: *patience,
            progress: Arc::clone(&progress),
        };
        let mut under_way = self.outbound.hand_over(call.make(request_of(request, &progress)));
        let mut news = HeadNews { progress: &progress, on_head: Some(on_head) };
        let mut alarm = pin!(sleep_until(begins_by()));
        poll_fn(|context| {
            news.tell();
            if let Poll::Ready(made) = Pin::new(&mut under_way).poll(context) {
                return Poll::Ready(made.map(|body| Reply::of(&progress, body)));
            }
            while alarm.as_mut().poll(context).is_ready() {
                let has_begun = progress.head().is_some();
                let by = if has_begun { stage::deadline(deadline, GRACE) } else { begins_by() };
                if by > Instant::now() {
                    alarm.as_mut().reset(by);
                } else if has_begun {
                    let fault = Some(timed_out("the answer did not end in time"));
                    return Poll::Ready(Ok(Reply::of(&progress, AnswerBody { fault, ..AnswerBody::default() })));
                } else {
                    return Poll::Ready(Err(timed_out("no answer began in time")));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Sends a question of which hardly more than the status matters, and reads at most `most` bytes of the answer's
    /// body, as far as they come before `total` is over, counted from `started`.
    ///
    /// # Errors
    /// No answer began.
    pub async fn ask(
        &self,
        request: Outgoing,
        total: Duration,
        started: Instant,
        most: usize,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let deadline = deadline(started, total);
        let (client, request) = (self.client.clone(), request_of(request, &Arc::default()));
        let asking = self.outbound.hand_over(async move {
            let mut response = match timeout_at(deadline, client.execute(request)).await {
                Ok(answer) => answer.map_err(|error| broken(&error, "before an answer began"))?,
                Err(_) => return Err(timed_out("no answer began in time")),
            };
            let mut body = Vec::new();
            // A body that breaks off, stalls or goes on takes nothing from the status.
            while body.len() < most
                && let Ok(Ok(Some(piece))) = timeout_at(deadline, response.chunk()).await
            {
                body.extend_from_slice(piece.get(..most - body.len()).unwrap_or(&piece));
            }
            Ok((response.status().as_u16(), body))
        });
        let late = timeout_at(stage::deadline(deadline, GRACE), asking).await;
        late.unwrap_or_else(|_| Err(timed_out("no answer began in time")))
    }

    /// Gives answers other room in memory, in kB: a share for each, and a reserve for larger ones.
    #[cfg(test)]
    pub fn set_room(&mut self, share_kb: u32, reserve: Arc<tokio::sync::Semaphore>, reserve_kb: u32) {
        self.room = Arc::new(Room::of(share_kb, reserve, reserve_kb));
    }
}

/// One call as it is made on the thread of its provider.
struct Exchange {
    client: Client,
    max_body: usize,
    room: Arc<Room>,
    delivery: Delivery,
    patience: TimeLimits,
    progress: Arc<CallProgress>,
}

impl Exchange {
    /// Sends the request and reads the answer. By when the head has to be there is watched by the task that waits: a
    /// server can keep this thread busy until then.
    async fn make(self, request: Request) -> Result<AnswerBody, Failure> {
        let Self { client, max_body, room, delivery, patience, progress } = self;
        let TimeLimits { first_byte, idle, total, started } = patience;
        let answer = client.execute(request).await;
        let mut response = answer.map_err(|error| broken(&error, "before an answer began"))?;
        let took = started.elapsed();
        let status = response.status().as_u16();
        let mut pulse = StreamPulse::of(status, response.headers()).filter(|_| delivery == Delivery::Stream);
        let headers = std::mem::take(response.headers_mut());
        progress.has_head(ArrivedHead { status, headers, first_byte: pulse.is_none().then_some(took) });
        let deadline = deadline(started, total);
        let begins_by = progress.begins_by(first_byte, Instant::now()).min(deadline);
        let limits = BodyLimits { max: max_body, begins_by, idle, deadline };
        let (body, fault) = Body::read(&mut response, pulse.as_mut(), &limits, &room).await;
        let began = pulse.and_then(|pulse| pulse.first()).map(|first| first.saturating_duration_since(started));
        Ok(AnswerBody { body, fault, began })
    }
}

/// Tells of the head of an answer as soon as it is seen: at the latest when the call is given up.
struct HeadNews<'a, F: FnOnce(u16, &HeaderMap, Option<Duration>)> {
    progress: &'a CallProgress,
    on_head: Option<F>,
}

impl<F: FnOnce(u16, &HeaderMap, Option<Duration>)> HeadNews<'_, F> {
    fn tell(&mut self) {
        if let Some(head) = self.progress.head()
            && let Some(on_head) = self.on_head.take()
        {
            on_head(head.status, &head.headers, head.first_byte);
        }
    }
}

impl<F: FnOnce(u16, &HeaderMap, Option<Duration>)> Drop for HeadNews<'_, F> {
    fn drop(&mut self) {
        self.tell();
    }
}

/// The request as the client takes it, which tells when it goes out.
fn request_of(outgoing: Outgoing, progress: &Arc<CallProgress>) -> Request {
    let Outgoing { method, url, headers, body } = outgoing;
    let mut request = Request::new(method, url);
    *request.headers_mut() = headers;
    *request.body_mut() = Some(reqwest::Body::wrap(Sending::of(body, Arc::clone(progress))));
    request
}

/// Whether TLS may be spoken on the way to this address: with the server, or with one of these proxies before it.
fn may_speak_tls(base_url: &Url, proxies: impl IntoIterator<Item = String>) -> bool {
    let is_secure =
        |proxy: String| proxy.trim_start().get(..6).is_some_and(|begin| begin.eq_ignore_ascii_case("https:"));
    base_url.scheme() != "http" || (!is_loopback(base_url) && proxies.into_iter().any(is_secure))
}

/// The proxies that the environment names for addresses without TLS.
fn proxies() -> impl Iterator<Item = String> {
    ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].into_iter().filter_map(|name| std::env::var(name).ok())
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
