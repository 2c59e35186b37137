//! The one way out: sends a finished request, times it, caps the reply, and never retries. It does not look into the
//! bodies, but for the events of a stream that was asked for, which it counts.

mod body;
mod outbound;
mod room;
mod sending;
mod stage;

use super::events::StreamPulse;
use super::wire::{Delivery, Outgoing};
use crate::domain::Failure;
use body::{Body, BodyLimits};
use outbound::Outbound;
use reqwest::header::HeaderMap;
use reqwest::{Client, Request, Url};
use room::Room;
use sending::{Sending, SentCall};
use stage::{broken, deadline, timed_out};
use std::io;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// An HTTP client with its own pool of connections, on a thread of its own.
pub(super) struct Transport {
    client: Client,
    outbound: Outbound,
    max_body: usize,
    /// Memory for large answers.
    room: Room,
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

/// Why the client could not be made.
pub(super) enum NoTransport {
    Client(reqwest::Error),
    Thread(io::Error),
}

/// The reply of the server.
pub(super) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// The failure of the body, if it did not arrive whole.
    pub fault: Option<Failure>,
    /// When the answer began: its head, or the first event of a stream; `None`: no event came.
    pub first_byte: Option<Duration>,
    body: Body,
}

impl Reply {
    /// The part of the body that arrived.
    pub fn body(&self) -> &[u8] {
        self.body.bytes()
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
        let client = builder.build().map_err(|error| NoTransport::Client(error.without_url()))?;
        let outbound = Outbound::start(provider).map_err(NoTransport::Thread)?;
        Ok(Self { client, outbound, max_body, room: Room::new() })
    }

    /// Sends the request, and reads as much of the answer as arrives, in the delivery that was asked for. `on_head` is
    /// called when the head is there, with the time that it took unless the answer itself is yet to begin: the head is
    /// all that remains when this future is dropped.
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
        let TimeLimits { first_byte, idle, total, started } = *patience;
        let deadline = deadline(started, total);
        let (request, sent) = request_of(request);
        let begins_by = OnceLock::new();
        let too_late = async {
            let by = stage::deadline(sent.at().await, first_byte).min(deadline);
            sleep_until(*begins_by.get_or_init(|| by)).await;
        };
        let mut response = tokio::select! {
            biased;
            answer = self.outbound.drive(|| self.client.execute(request)) => {
                answer.map_err(|error| broken(&error, "before an answer began"))?
            }
            () = too_late => return Err(timed_out("no answer began in time")),
            () = sleep_until(deadline) => return Err(timed_out("no answer began in time")),
        };
        let head = started.elapsed();
        let status = response.status().as_u16();
        let mut pulse = StreamPulse::of(status, response.headers()).filter(|_| delivery == Delivery::Stream);
        on_head(status, response.headers(), pulse.is_none().then_some(head));
        // A head that came at once left no time to look when the request went out.
        let begins_by = begins_by.get().copied().unwrap_or_else(|| stage::deadline(started, first_byte)).min(deadline);
        let limits = BodyLimits { max: self.max_body, begins_by, idle, deadline };
        let (body, fault) = Body::read(&mut response, pulse.as_mut(), &limits, &self.room).await;
        let first_byte = match &pulse {
            Some(pulse) => pulse.first().map(|first| first.saturating_duration_since(started)),
            None => Some(head),
        };
        Ok(Reply { status, headers: std::mem::take(response.headers_mut()), fault, first_byte, body })
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
        let (request, _) = request_of(request);
        let answered = timeout_at(deadline, self.outbound.drive(|| self.client.execute(request))).await;
        let mut response = match answered {
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
    }

    /// Gives answers other room in memory, in kB: a share for each, and a reserve for larger ones.
    #[cfg(test)]
    pub fn set_room(&mut self, share_kb: u32, reserve: std::sync::Arc<tokio::sync::Semaphore>, reserve_kb: u32) {
        self.room = Room::of(share_kb, reserve, reserve_kb);
    }
}

/// The request as the client takes it, and when it goes out.
fn request_of(outgoing: Outgoing) -> (Request, SentCall) {
    let Outgoing { method, url, headers, body } = outgoing;
    let mut request = Request::new(method, url);
    *request.headers_mut() = headers;
    let (body, sent) = Sending::of(body);
    *request.body_mut() = Some(reqwest::Body::wrap(body));
    (request, sent)
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
