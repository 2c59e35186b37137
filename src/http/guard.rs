//! Decides which requests are answered at all.
//!
//! The served pages reveal providers, routes and money. On loopback only this machine may read it. A web page whose own
//! name resolves to 127.0.0.1 would make a browser of this machine read them on its behalf; such a request carries that
//! name in `Host`.

use super::problem::Problem;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Body as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The names under which this port may be asked.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    /// The names in the configuration.
    named: Vec<String>,
    /// Set when listening elsewhere than on loopback, where the names of this machine are unknown.
    any: bool,
}

impl Hosts {
    pub(super) fn of(listen: SocketAddr, named: &[String]) -> Self {
        let named = named.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { named, any: !listen.ip().to_canonical().is_loopback() }
    }

    fn admit(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        self.any
            || host == "localhost"
            || address.is_ok_and(|address| address.to_canonical().is_loopback())
            || self.named.contains(&host)
    }

    /// Why the request is refused; `None`: it is answered.
    fn refusal(&self, uri: &Uri, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
        const OTHER_NAME: (StatusCode, &str) = (
            StatusCode::MISDIRECTED_REQUEST,
            "this port is asked as localhost, 127.0.0.1, [::1] or by a name of http.hosts\n",
        );
        let mut named = headers.get_all(header::HOST).iter();
        let (host, more) = (named.next(), named.next());
        if more.is_some() {
            return Some((StatusCode::BAD_REQUEST, "more than one Host\n"));
        }
        let is_admitted =
            |authority: &str| authority.parse::<Authority>().is_ok_and(|authority| self.admit(authority.host()));
        // HTTP/1.0 has no such header; no browser speaks that.
        if host.is_some_and(|host| !host.to_str().is_ok_and(is_admitted))
            || uri.authority().is_some_and(|authority| !self.admit(authority.host()))
        {
            return Some(OTHER_NAME);
        }
        // A page from elsewhere may ask under an admitted name.
        let of_page = |origin: &HeaderValue| {
            origin.to_str().is_ok_and(|origin| origin.split_once("://").is_some_and(|(_, host)| is_admitted(host)))
        };
        if headers.get_all(header::ORIGIN).iter().any(|origin| !self.any && !of_page(origin)) {
            return Some((StatusCode::FORBIDDEN, "pages of other sites get no answer\n"));
        }
        None
    }
}

/// Headers that browsers need on every answer.
const FOR_BROWSERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Bytes that the body of a change may have.
const MOST_BYTES: u64 = 64 << 10;

/// Why the body of a request is refused; `None`: there is none, or it is that of a change.
fn body_refusal(request: &Request) -> Option<(StatusCode, &'static str)> {
    const NONE_TAKEN: (StatusCode, &str) = (StatusCode::PAYLOAD_TOO_LARGE, "this page takes no body\n");
    const TOO_LARGE: (StatusCode, &str) = (StatusCode::PAYLOAD_TOO_LARGE, "a change takes a body of 64 KiB\n");
    if request.body().is_end_stream() {
        return None;
    }
    let path = request.uri().path();
    let is_change = request.method() == Method::POST
        && (path.starts_with("/api/v1/") || ["/do", "/sign-in", "/sign-out"].contains(&path));
    if !is_change {
        return Some(NONE_TAKEN);
    }
    // A body whose length is not known beforehand is not read either.
    (request.body().size_hint().exact().is_none_or(|bytes| bytes > MOST_BYTES)).then_some(TOO_LARGE)
}

/// Why the path of a request is refused: no name that the database keeps has the character NUL.
fn path_refusal(uri: &Uri) -> Option<(StatusCode, &'static str)> {
    uri.path().contains("%00").then_some((StatusCode::BAD_REQUEST, "a path cannot have the character NUL\n"))
}

pub(super) async fn guard(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let refusal = hosts
        .refusal(request.uri(), request.headers())
        .or_else(|| path_refusal(request.uri()))
        .or_else(|| body_refusal(&request));
    let mut response = match refusal {
        // As all errors of the API come.
        Some((status, words)) if request.uri().path().starts_with("/api/v1/") => {
            Problem { status, detail: words.trim_end().to_owned() }.into_response()
        }
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    };
    response.headers_mut().extend(FOR_BROWSERS);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str) -> Hosts {
        Hosts::of(listen.parse().unwrap(), &["Sluice.Example".to_owned()])
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_are_answered() {
        let loopback = hosts("127.0.0.1:9470");
        for host in
            ["localhost", "LOCALHOST.", "127.0.0.1", "127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "sluice.example"]
        {
            assert!(loopback.admit(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "", "0.0.0.0"]
        {
            assert!(!loopback.admit(host), "{host}");
            assert!(hosts("10.0.0.7:9470").admit(host) && hosts("0.0.0.0:9470").admit(host), "{host}");
            assert!(!hosts("[::1]:9470").admit(host), "{host}");
        }
    }

    #[test]
    fn every_name_in_a_request_has_to_be_one_of_them() {
        let refused = |uri: &str, headers: &[(&'static str, &'static str)]| {
            let headers =
                headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let mut all = HeaderMap::new();
            for (name, value) in headers {
                all.append(name, value);
            }
            hosts("127.0.0.1:9470").refusal(&uri.parse().unwrap(), &all).map(|(status, _)| status.as_u16())
        };
        let host = ("host", "localhost:9470");
        assert_eq!(refused("/readyz", &[]), None);
        assert_eq!(refused("/readyz", &[host]), None);
        assert_eq!(refused("/readyz", &[host, ("origin", "http://localhost:9470")]), None);
        assert_eq!(refused("/readyz", &[("host", "evil.example:9470")]), Some(421));
        assert_eq!(refused("/readyz", &[("host", "a b")]), Some(421));
        assert_eq!(refused("http://evil.example/readyz", &[host]), Some(421));
        assert_eq!(refused("/readyz", &[host, ("host", "evil.example")]), Some(400));
        assert_eq!(refused("/readyz", &[host, ("origin", "http://evil.example")]), Some(403));
        assert_eq!(refused("/readyz", &[host, ("origin", "null")]), Some(403));
    }
}
