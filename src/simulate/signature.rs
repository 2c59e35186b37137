//! Signatures of AWS (SigV4) from the provider's side: worked out anew from the call as it came and compared.

use super::exchange::{Call, Problem};
use super::key::Key;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::header::HeaderName;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::time::SystemTime;

/// The word before a signature.
const SCHEME: &str = "AWS4-HMAC-SHA256";
/// The form of an instant.
const INSTANT: &str = "%Y%m%dT%H%M%SZ";
/// A signature is taken this long before its time and after.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// The parts of an `authorization` header.
struct Claim<'a> {
    id: &'a str,
    /// `20260504/eu-central-1/bedrock/aws4_request`.
    scope: &'a str,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Claim<'a> {
    fn read(header: &'a str) -> Option<Self> {
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for part in header.strip_prefix(SCHEME)?.split(',') {
            match part.trim().split_once('=')? {
                ("Credential", value) => credential = value.split_once('/'),
                ("SignedHeaders", value) => signed = Some(value),
                ("Signature", value) => signature = Some(value),
                _ => return None,
            }
        }
        let (id, scope) = credential?;
        Some(Self { id, scope, signed: signed?, signature: signature? })
    }
}

/// The id of the access key that a call claims to be signed with.
pub(crate) fn id<'a>(call: &Call<'a>) -> Option<&'a str> {
    Some(Claim::read(call.header("authorization")?)?.id)
}

/// Whether a call claims to be signed.
pub(crate) fn is_claimed(call: &Call<'_>) -> bool {
    call.header("authorization").is_some_and(|header| header.starts_with(SCHEME))
}

/// The place of the key with which a call was signed. Keys are `ID:SECRET`, or `ID:SECRET:TOKEN` for temporary ones.
pub(crate) fn verify(call: &Call<'_>, service: &str, keys: &[Key], wall: SystemTime) -> Result<usize, Problem> {
    let denied = |name: &'static str, message: String| Err(Problem::Denied { name, message });
    let invalid = |message: &str| denied("InvalidSignatureException", message.to_owned());
    let Some(claim) = call.header("authorization").and_then(Claim::read) else {
        return denied(
            "IncompleteSignatureException",
            "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature'.".to_owned(),
        );
    };
    let parts = |key: &'_ Key| -> Option<(String, String, Option<String>)> {
        let mut parts = key.key.splitn(3, ':').map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.next()))
    };
    let known = keys
        .iter()
        .enumerate()
        .find_map(|(place, key)| Some((place, key, parts(key)?)).filter(|(_, _, (id, ..))| id == claim.id));
    let token = call.header("x-amz-security-token");
    let Some((place, key, (_, secret, _))) = known.filter(|(_, _, (_, _, known))| known.as_deref() == token) else {
        return denied(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.".to_owned(),
        );
    };
    if key.expired {
        return denied("ExpiredTokenException", "The security token included in the request is expired".to_owned());
    }
    let instant = call.header("x-amz-date").unwrap_or_default();
    let Ok(signed_at) = NaiveDateTime::parse_from_str(instant, INSTANT).map(|instant| instant.and_utc()) else {
        return denied("IncompleteSignatureException", "Date must be in ISO-8601 'basic format'.".to_owned());
    };
    let now = DateTime::<Utc>::from(wall);
    let (earliest, latest) = (now - TOLERANCE, now + TOLERANCE);
    let written = |at: DateTime<Utc>| at.format(INSTANT).to_string();
    if signed_at < earliest {
        let (bound, now) = (written(earliest), written(now));
        return invalid(&format!("Signature expired: {instant} is now earlier than {bound} ({now} - 5 min.)"));
    }
    if signed_at > latest {
        let (bound, now) = (written(latest), written(now));
        return invalid(&format!("Signature not yet current: {instant} is still later than {bound} ({now} + 5 min.)"));
    }
    let scope: Vec<&str> = claim.scope.split('/').collect();
    match scope[..] {
        [date, ..] if !instant.starts_with(date) => {
            return invalid(&format!("Date in Credential scope does not match YYYYMMDD from ISO-8601: {instant}"));
        }
        [_, region, named, "aws4_request"] if !region.is_empty() => {
            if named != service {
                return invalid(&format!("Credential should be scoped to correct service: '{service}'."));
            }
        }
        _ => return invalid("Credential should be scoped with a valid terminator: 'aws4_request'."),
    }
    let is_signed = |name: &str| claim.signed.split(';').any(|signed| signed == name);
    let ought = call.headers.keys().map(HeaderName::as_str).filter(|name| name.starts_with("x-amz-"));
    if let Some(missing) = ["host"].into_iter().chain(ought).find(|name| !is_signed(name)) {
        return invalid(&format!("'{missing}' must be a 'SignedHeader' in the AWS Authorization."));
    }
    let expected = signature("POST", call, claim.signed, claim.scope, instant, &secret);
    if expected != claim.signature {
        return invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        );
    }
    Ok(place)
}

/// The signature that a call should have.
fn signature(method: &str, call: &Call<'_>, signed: &str, scope: &str, instant: &str, secret: &str) -> String {
    let mut canonical = format!("{method}\n{}\n{}\n", encoded_again(call.whole_path), query(call.query));
    for name in signed.split(';') {
        let values = call.headers.get_all(name).iter().map(|value| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        });
        let _ = writeln!(canonical, "{name}:{}", values.collect::<Vec<_>>().join(","));
    }
    let _ = write!(canonical, "\n{signed}\n{}", hex(&Sha256::digest(call.body)));
    let to_sign = format!("{SCHEME}\n{instant}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in scope.split('/').chain([to_sign.as_str()]) {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key of HMAC may have any length");
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    hex(&key)
}

/// A path as it came, each byte of its segments encoded once more unless it is a plain one.
fn encoded_again(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The parameters of a query as they came, sorted.
fn query(query: Option<&str>) -> String {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(&str, &str)> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;
    use hyper::header::HeaderValue;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    /// From AWS's published test suite for signatures.
    #[test]
    fn published_signatures_are_worked_out() {
        let host = ("host", "example.amazonaws.com");
        let date = ("x-amz-date", "20150830T123600Z");
        let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
        let hash = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
        let form = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("content-length", "13"),
            ("x-amz-content-sha256", hash),
            host,
            date,
        ];
        for (name, method, query, headers, body, expected) in [
            (
                "get-vanilla",
                "GET",
                None,
                &[host, date][..],
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "post-vanilla",
                "POST",
                None,
                &[host, date],
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "get-vanilla-with-session-token",
                "GET",
                None,
                &[host, date, ("x-amz-security-token", token)],
                "",
                "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
            ),
            (
                "get-vanilla-query-order-encoded",
                "GET",
                Some("Param-3=Value3&Param=Value2&%E1%88%B4=Value1"),
                &[host, date],
                "",
                "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                None,
                &form,
                "Param1=value1",
                "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
            ),
        ] {
            let mut signed: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
            signed.sort_unstable();
            let headers = self::headers(headers);
            let call = Call { path: "/", whole_path: "/", query, headers: &headers, body: body.as_bytes() };
            let scope = "20150830/us-east-1/service/aws4_request";
            let found = signature(method, &call, &signed.join(";"), scope, date.1, SECRET);
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(encoded_again("/test/@connections/JBDvjfGEIAMCERw%3D"), "/test/%40connections/JBDvjfGEIAMCERw%253D");
    }

    /// A call that is signed well with the key `AKID`, changed by `change`.
    fn verdict(
        change: impl Fn(&mut HeaderMap),
        keys: &[Key],
        minutes_later: i64,
    ) -> Result<usize, (&'static str, String)> {
        let date = "20260504T120000Z";
        let mut headers = headers(&[("host", "h:1"), ("x-amz-date", date), ("x-amz-security-token", "tok")]);
        let scope = "20260504/eu-central-1/bedrock/aws4_request";
        let signed = "host;x-amz-date;x-amz-security-token";
        let path = "/p/model/m%3A0/converse";
        let call = Call { path: "", whole_path: path, query: None, headers: &headers, body: b"{}" };
        let signature = signature("POST", &call, signed, scope, date, SECRET);
        let claim = format!("{SCHEME} Credential=AKID/{scope}, SignedHeaders={signed}, Signature={signature}");
        headers.insert("authorization", HeaderValue::from_str(&claim).unwrap());
        change(&mut headers);
        let at = NaiveDateTime::parse_from_str(date, INSTANT).unwrap().and_utc() + TimeDelta::minutes(minutes_later);
        let call = Call { path: "", whole_path: path, query: None, headers: &headers, body: b"{}" };
        verify(&call, "bedrock", keys, at.into()).map_err(|problem| match problem {
            Problem::Denied { name, message } => (name, message),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_call_proves_its_key_or_is_told_why_not() {
        let good: Key = format!("AKID:{SECRET}:tok").as_str().into();
        let keys = |key: &Key| vec!["other".into(), key.clone()];
        let as_it_is = |_: &mut HeaderMap| {};
        let with = |name: &'static str, value: &'static str| {
            move |headers: &mut HeaderMap| drop(headers.insert(name, HeaderValue::from_static(value)))
        };
        assert_eq!(verdict(as_it_is, &keys(&good), 0), Ok(1));
        assert_eq!(verdict(as_it_is, &keys(&good), 5), Ok(1));
        let said = |found: Result<usize, (&'static str, String)>, name: &str, words: &str| {
            let (found, message) = found.unwrap_err();
            assert!(found == name && message.contains(words), "{found}: {message}");
        };
        let invalid = "InvalidSignatureException";
        said(verdict(as_it_is, &keys(&"AKID:wrong:tok".into()), 0), invalid, "does not match");
        said(verdict(with("host", "elsewhere"), &keys(&good), 0), invalid, "does not match");
        said(verdict(with("x-amz-more", "1"), &keys(&good), 0), invalid, "'x-amz-more' must be a 'SignedHeader'");
        said(
            verdict(as_it_is, &keys(&good), 6),
            invalid,
            "20260504T120000Z is now earlier than 20260504T120100Z (20260504T120600Z - 5 min.)",
        );
        said(
            verdict(as_it_is, &keys(&good), -6),
            invalid,
            "is still later than 20260504T115900Z (20260504T115400Z + 5 min.)",
        );
        let unknown = "UnrecognizedClientException";
        said(verdict(as_it_is, &keys(&"AKIX:s".into()), 0), unknown, "invalid");
        said(verdict(as_it_is, &keys(&format!("AKID:{SECRET}").as_str().into()), 0), unknown, "invalid");
        said(verdict(with("x-amz-security-token", "tik"), &keys(&good), 0), unknown, "invalid");
        let expired = Key { expired: true, ..good.clone() };
        said(verdict(as_it_is, &keys(&expired), 0), "ExpiredTokenException", "expired");
        said(
            verdict(with("authorization", "AWS4-HMAC-SHA256 Credential=AKID/x"), &keys(&good), 0),
            "IncompleteSignatureException",
            "requires",
        );
    }
}
