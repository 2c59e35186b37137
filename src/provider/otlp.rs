//! OTLP: sends spans to a collector of OpenTelemetry over HTTP, in Protocol Buffers.
//!
//! The values of headers are secrets, as keys of providers are: what a collector says is searched for them.

mod message;

use super::client::now;
use super::echo::Echoes;
use super::hook::hook_url;
use super::transport::{TimeLimits, Transport};
use super::wait_hint;
use super::wire::{Delivery, Outgoing};
use crate::domain::trace::Span;
use message::Sender;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use std::time::Duration;
use tokio::time::Instant;

/// A header's value that is shorter is not searched for in what the collector says.
const LEAST_SECRET: usize = 8;

/// The path of an address that has none.
const PATH: &str = "/v1/traces";

/// As much of an answer is read.
const MOST_ANSWER: usize = 64 << 10;

/// A collector of traces, as configured.
#[derive(Clone, Debug)]
pub struct TraceCollector {
    /// Where spans are posted to.
    pub endpoint: Url,
    /// Headers that go with each message.
    pub headers: Vec<(HeaderName, SecretString)>,
    /// How long one message may take.
    pub timeout: Duration,
    /// What the program calls itself (`service.name`).
    pub service: String,
}

impl PartialEq for TraceCollector {
    fn eq(&self, other: &Self) -> bool {
        let exposed = |it: &Self| -> Vec<(HeaderName, String)> {
            it.headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
        };
        self.endpoint == other.endpoint
            && exposed(self) == exposed(other)
            && self.timeout == other.timeout
            && self.service == other.service
    }
}

/// Reads the address of a collector. One without a path gets that of the protocol.
///
/// # Errors
/// The fault in words that do not repeat the address.
pub fn collector_url(text: &str) -> Result<Url, &'static str> {
    let mut url = hook_url(text)?;
    if url.path() == "/" && url.query().is_none() {
        url.set_path(PATH);
    }
    Ok(url)
}

/// Reads headers: a line for each, as `name: value`.
///
/// # Errors
/// The fault in words that repeat no value.
pub fn collector_headers(text: &str) -> Result<Vec<(HeaderName, SecretString)>, String> {
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    let headers = lines.map(|(index, line)| {
        let line_number = index + 1;
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("line {line_number} has no colon after the name of a header"))?;
        let (name, value) = (name.trim(), value.trim());
        let parsed = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())
            .map_err(|_| format!("line {line_number} does not begin with the name of a header"))?;
        if matches!(parsed.as_str(), "content-type" | "content-length" | "content-encoding" | "host") {
            return Err(format!("line {line_number} sets {parsed}, which Sluice sets itself"));
        }
        if value.is_empty() || HeaderValue::from_str(value).is_err() {
            return Err(format!("line {line_number} has no value that a header can have"));
        }
        Ok((parsed, SecretString::from(value)))
    });
    let headers: Vec<_> = headers.collect::<Result<_, _>>()?;
    if headers.is_empty() { Err("there is no header in it".to_owned()) } else { Ok(headers) }
}

/// The outcome of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exported {
    /// The collector has it, but for so many spans, which it never takes, for a reason in its words.
    Taken {
        refused: u64,
        /// Shortened, without secrets.
        words: String,
    },
    /// It was not taken.
    NotTaken {
        /// The HTTP status; `None`: no answer came.
        status: Option<u16>,
        /// The wait that the collector asks for.
        retry_after: Option<Duration>,
        /// What the collector said, or why there was no answer: shortened, without secrets.
        words: String,
    },
}

/// A connection to a collector.
pub struct SpanExporter {
    collector: TraceCollector,
    headers: HeaderMap,
    transport: Transport,
    secrets: Echoes,
    host: String,
}

impl SpanExporter {
    /// Sets up the client; sends nothing. A rustls crypto provider has to be installed. `host` is the name of this
    /// machine.
    ///
    /// # Errors
    /// The client cannot be set up.
    pub fn new(collector: TraceCollector, host: String) -> Result<Self, String> {
        let transport = Transport::new("traces", &collector.endpoint, collector.timeout, MOST_ANSWER)
            .map_err(|why| why.to_string())?;
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))]);
        for (name, value) in &collector.headers {
            if let Ok(mut value) = HeaderValue::from_str(value.expose_secret()) {
                value.set_sensitive(true);
                headers.append(name.clone(), value);
            }
        }
        // Of headers not all hold a secret, and a short word (`x-team: core`) stands in many texts.
        let long = collector.headers.iter().filter(|(_, value)| value.expose_secret().len() >= LEAST_SECRET);
        let secrets = long.map(|(_, value)| value.clone());
        // The credential of `Bearer …` is a secret without its scheme, too.
        let credentials = collector.headers.iter().filter_map(|(_, value)| value.expose_secret().split_once(' '));
        let credentials = credentials.map(|(_, credential)| SecretString::from(credential));
        let secrets = Echoes::of(secrets.chain(credentials).collect());
        Ok(Self { collector, headers, transport, secrets, host })
    }

    /// Sends spans, once: redirects are not followed, and it takes no longer than the collector's timeout.
    pub async fn send(&self, spans: &[Span]) -> Exported {
        let started = Instant::now();
        let sender = Sender {
            service: &self.collector.service,
            version: env!("CARGO_PKG_VERSION"),
            host: &self.host,
            process: std::process::id(),
        };
        let request = Outgoing {
            method: Method::POST,
            url: self.collector.endpoint.clone(),
            headers: self.headers.clone(),
            body: message::written(spans, &sender),
        };
        let total = self.collector.timeout;
        let limits = TimeLimits { first_byte: total, idle: total, total, started };
        match self.transport.exchange(request, Delivery::Whole, &limits, |_, _, _| {}).await {
            Ok(reply) if (200..300).contains(&reply.status()) => {
                let (refused, words) = message::refused(reply.body());
                Exported::Taken { refused: refused.min(spans.len() as u64), words: self.secrets.words(&words) }
            }
            Ok(reply) => Exported::NotTaken {
                status: Some(reply.status()),
                retry_after: wait_hint::of_headers(reply.headers(), Some(now())),
                words: format!(
                    "HTTP {}: {}",
                    reply.status(),
                    self.secrets.words(&String::from_utf8_lossy(reply.body()))
                ),
            },
            Err(failure) => {
                Exported::NotTaken { status: None, retry_after: None, words: self.secrets.words(&failure.message) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_path_gets_that_of_the_protocol() {
        for (given, used) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://otel.example.com/v1/traces", "https://otel.example.com/v1/traces"),
            ("https://otel.example.com/api/otlp?org=1", "https://otel.example.com/api/otlp?org=1"),
        ] {
            assert_eq!(collector_url(given).unwrap().as_str(), used);
        }
        for wrong in ["127.0.0.1:4318", "grpc://a:4317", "http://me:secret@a", ""] {
            assert!(!collector_url(wrong).unwrap_err().contains("secret"), "{wrong}");
        }
    }

    #[test]
    fn headers_are_lines_and_a_fault_names_its_line_and_no_value() {
        let read = collector_headers("Authorization: Bearer a:b\n\n  x-team : core \n").unwrap();
        let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
        assert_eq!(read, [("authorization", "Bearer a:b"), ("x-team", "core")]);
        for (text, fault) in [
            ("", "there is no header in it"),
            ("x: y\nsecret", "line 2 has no colon"),
            ("a secret: y", "line 1 does not begin with the name of a header"),
            ("x:", "line 1 has no value"),
            ("x: sec\u{1}ret", "line 1 has no value"),
            ("Content-Type: secret", "line 1 sets content-type"),
        ] {
            let said = collector_headers(text).unwrap_err();
            assert!(said.contains(fault) && !said.contains("secret"), "{text:?}: {said}");
        }
    }
}
