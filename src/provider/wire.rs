//! The data that goes over the wire: a request as a dialect wants it, the finished request, and the reply.

use super::conversation::unsupported;
use super::names::Undo;
use crate::domain::decide::Ineligible;
use crate::domain::raw_object::RawObject;
use crate::domain::{ChatRequest, MustKeep, Tier, Timestamp};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

/// How an answer is transferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// In one piece, when it is complete.
    #[default]
    Whole,
    /// As a stream of events, in the framing of the dialect.
    Stream,
}

/// An HTTP request as a dialect wants it: without the provider's address, headers and key.
#[derive(Clone, Debug)]
pub struct WireRequest {
    pub method: Method,
    /// Appended to the path of the provider's base URL; starts with a slash.
    pub path: String,
    /// Appended to the query of the base URL: names and values, before they are escaped.
    pub query: Vec<(String, String)>,
    /// Headers that the dialect demands beside those of the provider and the type of the body.
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// How the answer is transferred.
    pub delivery: Delivery,
    /// Paths where the body may have its output cap; a body without one gets it at the first.
    pub caps: &'static [&'static str],
    /// The parts of the request that are not sent as they came, because this target does not take them: paths of
    /// members that were left out (`messages[].name`), or a few words on how they were changed (`seed as random_seed`)
    /// or on members that are not the request's (`safe_prompt added`). Each once and without positions; recorded on the
    /// attempt. A null member carries no information, and may be left out without a note.
    pub dropped: Vec<String>,
    /// The parts that have to be turned back in the answer.
    pub undo: Undo,
}

impl WireRequest {
    /// A JSON body that is posted to this path, for a whole answer.
    #[must_use]
    pub fn post(path: impl Into<String>, caps: &'static [&'static str], body: Vec<u8>) -> Self {
        Self {
            method: Method::POST,
            path: path.into(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body,
            delivery: Delivery::Whole,
            caps,
            dropped: Vec::new(),
            undo: Undo::default(),
        }
    }

    /// Checks that nothing is left out that has to be kept.
    ///
    /// # Errors
    /// [`Ineligible::Unsupported`] names the first member that is.
    pub(super) fn without_loss(&self, must_keep: &MustKeep, request: &ChatRequest) -> Result<(), Ineligible> {
        match must_keep.lost(&self.dropped, request) {
            Some(member) => unsupported(format!("{member}, which its route does not let it leave out (must_keep)")),
            None => Ok(()),
        }
    }

    /// Asks for a tier by a member at the top of the body. Where the request asks for another tier itself, by a member
    /// in `all`, that gives way, and is noted.
    pub(super) fn ask_for_tier<'a>(
        &mut self,
        member: &'a str,
        value: &Value,
        tier: Tier,
        all: impl Iterator<Item = &'a str>,
    ) {
        let body = std::str::from_utf8(&self.body).ok().and_then(RawObject::read);
        let mut body = body.expect("an adapter writes an object");
        for name in all.chain([member]) {
            let given = body.given(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
            if given.is_some_and(|given| given != *value) {
                self.dropped.push(format!("{name} as the rung's {tier}"));
            }
            body.remove(name);
        }
        body.set(member, value);
        self.body = body.to_text().into_bytes();
    }

    /// Sets members at the top of the body.
    pub(super) fn set_members(&mut self, members: &[(&str, Value)]) {
        let body = std::str::from_utf8(&self.body).ok().and_then(RawObject::read);
        let mut body = body.expect("an adapter writes an object");
        for (name, value) in members {
            body.set(name, value);
        }
        self.body = body.to_text().into_bytes();
    }
}

/// A name as one segment of a path: everything in it that would mean something else there is escaped.
pub(super) fn path_segment(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if is_plain(byte) {
            segment.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

/// A finished request: everything that is sent, so that a signature can cover it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub method: Method,
    /// The whole address, with its query.
    pub url: Url,
    /// All headers but those that the connection adds (`host`, `content-length`, `user-agent`, `accept-encoding`).
    pub headers: HeaderMap,
    /// The exact bytes.
    pub body: Vec<u8>,
}

impl Outgoing {
    /// Puts a dialect's request together with the address and the headers of a provider.
    #[must_use]
    pub fn new(base_url: &Url, headers: &HeaderMap, wire: WireRequest) -> Self {
        Self::at(address(base_url, &wire.path), headers, wire)
    }

    /// The same, where the address of the request's path is known already.
    #[must_use]
    pub(super) fn at(mut url: Url, headers: &HeaderMap, wire: WireRequest) -> Self {
        let WireRequest { method, query, headers: more, body, .. } = wire;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        // With room for those that are added to them: a map that grows is copied.
        let mut all = HeaderMap::with_capacity(headers.len() + more.len() + ADDED_HEADERS);
        for (name, value) in headers {
            all.append(name.clone(), value.clone());
        }
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.extend(more);
        Self { method, url, headers: all, body }
    }
}

/// The address of a path below a base address.
pub(super) fn address(base_url: &Url, path: &str) -> Url {
    let mut url = base_url.clone();
    url.set_path(&format!("{}{path}", base_url.path().trim_end_matches('/')));
    url
}

/// How many headers are added to those of a provider and a dialect: type, key, client and what it accepts.
const ADDED_HEADERS: usize = 6;

/// A complete HTTP answer.
#[derive(Clone, Copy, Debug)]
pub struct WireReply<'a> {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body, within the transport's cap.
    pub body: &'a [u8],
    /// The delivery that was asked for. A server may answer in another way.
    pub delivery: Delivery,
    /// It is read for what has come of its answer: a stream need not have ended, and an error in it is passed over.
    pub is_partial: bool,
    /// When it arrived, by our clock: the base of absolute instants when the answer carries no `Date` of its own.
    pub received_at: Option<Timestamp>,
}

impl<'a> WireReply<'a> {
    /// A whole answer, without its time of arrival.
    #[must_use]
    pub fn new(status: u16, headers: &'a HeaderMap, body: &'a [u8]) -> Self {
        Self { status, headers, body, delivery: Delivery::Whole, is_partial: false, received_at: None }
    }

    /// The provider's own time of the answer, else ours.
    ///
    /// Differences to instants that the provider names are then free of the skew between the two clocks.
    #[must_use]
    pub fn sent_at(&self) -> Option<Timestamp> {
        self.headers
            .get(DATE)
            .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok())
            .and_then(|date| i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok())
            .map(Timestamp)
            .or(self.received_at)
    }
}
