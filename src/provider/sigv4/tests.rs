use super::*;
use crate::provider::wire::WireRequest;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, Url};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// 2015-08-30T12:36:00Z, the instant of AWS's test suite.
const OF_THE_SUITE: Timestamp = Timestamp(1_440_938_160_000);
/// 2026-05-04T12:00:00Z.
const NOON: Timestamp = Timestamp(1_777_896_000_000);

fn signer(service: &'static str, region: &str, token: Option<&str>) -> Signer {
    let key =
        AccessKey { id: "AKIDEXAMPLE".into(), session_token: token.map(SecretString::from), region: region.to_owned() };
    Signer { service, key, secret: SECRET.into() }
}

fn outgoing(method: Method, url: &str, headers: HeaderMap, body: &str) -> Outgoing {
    Outgoing { method, url: Url::parse(url).unwrap(), headers, body: body.into() }
}

/// The header of the signature.
fn signed(signer: &Signer, request: &mut Outgoing, now: Timestamp) -> String {
    signer.sign(request, now).unwrap();
    request.headers[AUTHORIZATION].to_str().unwrap().to_owned()
}

/// From AWS's published test suite for signatures.
#[test]
fn published_signatures_are_made() {
    let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    for (name, method, path, token, covered, expected) in [
        (
            "get-vanilla",
            Method::GET,
            "/",
            None,
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "post-vanilla",
            Method::POST,
            "/",
            None,
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "get-vanilla-with-session-token",
            Method::GET,
            "/",
            Some(token),
            "host;x-amz-date;x-amz-security-token",
            "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        ),
        (
            "get-vanilla-query-order-encoded",
            Method::GET,
            "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
            None,
            "host;x-amz-date",
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
    ] {
        let mut request = outgoing(method, &format!("https://example.amazonaws.com{path}"), HeaderMap::new(), "");
        let found = signed(&signer("service", "us-east-1", token), &mut request, OF_THE_SUITE);
        let scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
        let expected = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={covered}, Signature={expected}");
        assert_eq!(found, expected, "{name}");
        assert_eq!(request.headers["x-amz-date"], "20150830T123600Z");
        assert_eq!(request.headers.get("x-amz-security-token").and_then(|sent| sent.to_str().ok()), token);
        assert!(request.headers.values().all(HeaderValue::is_sensitive), "{name}");
    }
}

/// Worked out by other means from AWS's description: a model's colon is escaped on the way, and again when signed.
#[test]
fn a_call_of_bedrock_is_signed_with_its_path_escaped_twice() {
    let body = br#"{"messages":[]}"#.to_vec();
    let base_url = Url::parse("https://bedrock-runtime.eu-central-1.amazonaws.com").unwrap();
    let path = "/model/eu.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse";
    let others = HeaderMap::from_iter([(HeaderName::from_static("x-team"), HeaderValue::from_static("blue"))]);
    let mut request = Outgoing::new(&base_url, &others, WireRequest::post(path, &[], body.clone()));
    let found = signed(&signer("bedrock", "eu-central-1", None), &mut request, NOON);
    let signature = "effaca6a7d1272f9dd8999f558e17865eadf313f689342e3f02ba168e3cb5ae7";
    let covered = "content-type;host;x-amz-date";
    let scope = "AKIDEXAMPLE/20260504/eu-central-1/bedrock/aws4_request";
    assert_eq!(
        found,
        format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={covered}, Signature={signature}"),
        "a proxy may change other headers"
    );
    assert_eq!(request.url.path(), path);

    // Behind a port and a path, with a query, a token, and the address of a profile in place of a model.
    let base_url = Url::parse("http://127.0.0.1:8080/p?z=1&a=b%20c").unwrap();
    let path = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/converse-stream";
    let mut request = Outgoing::new(&base_url, &HeaderMap::new(), WireRequest::post(path, &[], body));
    let found = signed(&signer("bedrock", "us-gov-west-1", Some("tok/en==")), &mut request, NOON);
    assert!(found.ends_with("Signature=6b107d906425fb676e9ed864971b49ac03cbd5c22b061550bc10be3a89bac8bd"), "{found}");
}

#[test]
fn a_signature_that_was_there_is_replaced() {
    let mut request = outgoing(Method::GET, "https://example.amazonaws.com/", HeaderMap::new(), "");
    let signer = signer("service", "us-east-1", Some("t"));
    let first = signed(&signer, &mut request, NOON);
    let second = signed(&signer, &mut request, OF_THE_SUITE);
    assert_ne!(first, second);
    assert_eq!(request.headers.len(), 3);
}

fn skew(status: u16, code: &str, message: &str, date: Option<&str>, now: Option<Timestamp>) -> Option<i64> {
    let body = serde_json::json!({"__type": code, "message": message}).to_string();
    let date = date.map(|date| (reqwest::header::DATE, HeaderValue::from_str(date).unwrap()));
    let headers = HeaderMap::from_iter(date);
    let reply = WireReply { received_at: now, ..WireReply::new(status, &headers, body.as_bytes()) };
    Skew::of_refusal(&reply, &ErrorBody::read(reply.body)).map(|skew| skew.millis)
}

#[test]
fn a_refusal_that_names_the_providers_time_is_the_clocks() {
    const LATE: &str = "Signature expired: 20260504T120000Z is now earlier than 20260504T121000Z \
                        (20260504T121500Z - 5 min.)";
    const EARLY: &str = "Signature not yet current: 20260504T120000Z is still later than 20260504T111500Z \
                         (20260504T111000Z + 5 min.)";
    const WRONG: &str = "The request signature we calculated does not match the signature you provided.";
    let invalid = "InvalidSignatureException";
    let minutes = |minutes: i64| Some(minutes * 60_000);
    assert_eq!(skew(403, invalid, LATE, None, None), minutes(15));
    assert_eq!(skew(403, invalid, EARLY, None, None), minutes(-50));
    assert_eq!(skew(400, "SignatureDoesNotMatch", LATE, None, None), minutes(15));
    // By our own clock, because the signature may have been made by a time that was corrected before.
    assert_eq!(skew(403, invalid, LATE, None, Some(Timestamp(NOON.0 - 60_000))), minutes(16));
    let date = Some("Mon, 04 May 2026 12:20:00 GMT");
    assert_eq!(skew(400, "RequestExpired", "Request has expired.", date, Some(NOON)), minutes(20));
    assert_eq!(skew(403, "RequestTimeTooSkewed", "The difference is too large.", date, Some(NOON)), minutes(20));
    assert_eq!(skew(400, "RequestExpired", "Request has expired.", date, None), None);
    // The secret is wrong, the token is too old, the times stand in a message about something else.
    assert_eq!(skew(403, invalid, WRONG, date, Some(NOON)), None);
    assert_eq!(skew(403, "ExpiredTokenException", LATE, date, Some(NOON)), None);
    assert_eq!(skew(400, "ValidationException", LATE, date, Some(NOON)), None);
    assert_eq!(skew(500, invalid, LATE, date, Some(NOON)), None);
    assert_eq!(skew(403, invalid, "20269999T999999Z 20269999T999999Z 20269999T999999Z", None, None), None);
}

#[test]
fn the_failure_says_what_is_wrong_with_the_clock() {
    let failure = |millis| {
        let refused = Failure::new(ErrorClass::Auth, Scope::Key, "Signature expired");
        let failure = Skew { millis }.failure(refused);
        assert_eq!((failure.class, failure.scope), (ErrorClass::ServerError, Scope::Provider));
        failure.message
    };
    assert!(failure(900_500).starts_with("the clock of this machine is 15m behind the provider's"));
    assert!(failure(-7_200_000).starts_with("the clock of this machine is 2h ahead of the provider's"));
    assert!(failure(20_000).starts_with("the request was on its way for too long"));
    assert!(failure(i64::MIN).ends_with(": Signature expired"));
}
