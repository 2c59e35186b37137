//! Who may use the dashboard and the API. On loopback everybody of this machine, unless there is a token; elsewhere
//! only clients that know the token. A browser keeps a value that follows from the token in a cookie that no other
//! site's page can use. Changes are refused where the page that asks for them is not ours.

use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// The name of the cookie.
const COOKIE_NAME: &str = "sluice_session";

/// Who may do what.
#[derive(Clone, Debug)]
pub(super) struct Access {
    token: Option<SecretString>,
    /// Whether only this machine reaches the port.
    is_local: bool,
    is_read_only: bool,
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Other machines reach this port, and there is no token that they could know.
    Closed,
    /// The token is missing or wrong.
    Unknown,
    /// The request comes from a page of another site.
    OtherSite,
    /// Nothing may be changed here.
    ReadOnly,
}

impl Denied {
    /// The error and what to do, in words.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Closed => {
                "the dashboard and the API are closed: other machines reach this address, and no token is configured \
                 (token_file in [http]); or listen on 127.0.0.1"
            }
            Self::Unknown => "the token of [http] is needed: `Authorization: Bearer TOKEN`, or sign in at /sign-in",
            Self::OtherSite => "a page of another site asked for this: nothing was changed",
            Self::ReadOnly => "nothing may be changed here: read_only is set in [http]",
        }
    }
}

impl Access {
    pub(super) fn new(token: Option<SecretString>, is_local: bool, is_read_only: bool) -> Self {
        Self { token, is_local, is_read_only }
    }

    /// Whether the dashboard offers changes.
    pub(super) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Whether there is a token, and so a session that can be ended.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request may read.
    pub(super) fn may_read(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let Some(token) = &self.token else { return if self.is_local { Ok(()) } else { Err(Denied::Closed) } };
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let session = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| {
            value.split(';').filter_map(|cookie| cookie.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
        });
        let is_bearer = bearer.is_some_and(|bearer| is_same(bearer, token.expose_secret()));
        let expected = session_of(token);
        let is_session = session.fold(false, |is_session, value| is_session | is_same(value, &expected));
        if is_bearer || is_session { Ok(()) } else { Err(Denied::Unknown) }
    }

    /// Whether a request may change something.
    pub(super) fn may_change(&self, headers: &HeaderMap) -> Result<(), Denied> {
        self.may_read(headers)?;
        if self.is_read_only {
            return Err(Denied::ReadOnly);
        }
        if is_of_our_page(headers) { Ok(()) } else { Err(Denied::OtherSite) }
    }

    /// The cookie for a client that has shown this token; `None`: it is the wrong one.
    pub(super) fn sign_in(&self, shown: &str) -> Option<HeaderValue> {
        let token = self.token.as_ref().filter(|token| is_same(shown.trim(), token.expose_secret()))?;
        let cookie = format!("{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Strict", session_of(token));
        HeaderValue::from_str(&cookie).ok()
    }

    /// The cookie that ends a session.
    pub(super) fn sign_out() -> HeaderValue {
        HeaderValue::from_static("sluice_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}

/// Whether a request comes from a page of this server, or from no page at all. Browsers say it with every request that
/// can change something.
pub(super) fn is_of_our_page(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let of_host = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        origin.is_some() && origin == host
    };
    let site = |value: &HeaderValue| matches!(value.as_bytes(), b"same-origin" | b"none");
    headers.get_all(ORIGIN).iter().all(of_host) && headers.get_all("sec-fetch-site").iter().all(site)
}

/// What a browser keeps instead of the token. It is the same for all workers with this token, and ends with it.
fn session_of(token: &SecretString) -> String {
    let digest = Sha256::new_with_prefix("sluice dashboard session\n").chain_update(token.expose_secret()).finalize();
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares in a time that does not depend on where two texts differ: their digests tell nothing of them.
fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (Sha256::digest(one), Sha256::digest(other));
    one.iter().zip(other.iter()).fold(0, |different, (one, other)| different | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn access(token: bool, is_local: bool, is_read_only: bool) -> Access {
        Access::new(token.then(|| SecretString::from(TOKEN)), is_local, is_read_only)
    }

    #[test]
    fn without_a_token_only_this_machine_may_read() {
        assert_eq!(access(false, true, false).may_read(&headers(&[])), Ok(()));
        assert_eq!(access(false, false, false).may_read(&headers(&[])), Err(Denied::Closed));
        let shown = format!("Bearer {TOKEN}");
        assert_eq!(access(false, false, false).may_read(&headers(&[("authorization", &shown)])), Err(Denied::Closed));
    }

    #[test]
    fn with_a_token_it_has_to_be_known_wherever_the_port_is() {
        for is_local in [true, false] {
            let access = access(true, is_local, false);
            for (value, is_known) in [
                (format!("Bearer {TOKEN}"), true),
                (format!("bearer  {TOKEN}"), true),
                (format!("Basic {TOKEN}"), false),
                (format!("Bearer {}", &TOKEN[1..]), false),
                (format!("Bearer {TOKEN}0"), false),
                ("Bearer ".to_owned(), false),
                (TOKEN.to_owned(), false),
            ] {
                let read = access.may_read(&headers(&[("authorization", &value)]));
                assert_eq!(read.is_ok(), is_known, "{value}");
            }
            assert_eq!(access.may_read(&headers(&[])), Err(Denied::Unknown));
        }
    }

    #[test]
    fn a_session_stands_for_the_token_and_does_not_tell_it() {
        let access = access(true, true, false);
        let cookie = access.sign_in(&format!(" {TOKEN}\n")).unwrap();
        let cookie = cookie.to_str().unwrap();
        assert!(!cookie.contains(TOKEN) && cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
        let pair = cookie.split_once(';').unwrap().0;
        assert_eq!(access.may_read(&headers(&[("cookie", pair)])), Ok(()));
        assert_eq!(access.may_read(&headers(&[("cookie", &format!("a=b; {pair}; c=d"))])), Ok(()));
        assert_eq!(access.may_read(&headers(&[("cookie", "a=b"), ("cookie", pair)])), Ok(()));
        let other = Access::new(Some(SecretString::from("another token of many characters")), true, false);
        assert_eq!(other.may_read(&headers(&[("cookie", pair)])), Err(Denied::Unknown));
        assert_eq!(access.may_read(&headers(&[("cookie", &format!("{pair}0"))])), Err(Denied::Unknown));
        assert!(access.sign_in("wrong").is_none());
    }

    #[test]
    fn a_change_is_refused_where_another_site_asks_for_it() {
        let access = access(false, true, false);
        let host = ("host", "localhost:9470");
        for (more, may) in [
            (vec![], true),
            (vec![("origin", "http://localhost:9470")], true),
            (vec![("origin", "http://localhost:9470"), ("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "none")], true),
            (vec![("origin", "http://localhost:8000")], false),
            (vec![("origin", "http://evil.example")], false),
            (vec![("origin", "null")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("origin", "http://localhost:9470"), ("sec-fetch-site", "cross-site")], false),
        ] {
            let all = headers(&[vec![host], more.clone()].concat());
            assert_eq!(access.may_change(&all).is_ok(), may, "{more:?}");
            assert_eq!(access.may_read(&all), Ok(()), "{more:?}");
        }
        assert_eq!(Access::new(None, true, true).may_change(&headers(&[host])), Err(Denied::ReadOnly));
    }
}
