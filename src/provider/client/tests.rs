mod connections;
mod probes;
mod room;
mod server;
mod streams;
mod tiers;

use super::*;
use crate::domain::{ChatRequest, ErrorClass, Role, Scope, Timeouts, Unit};
use crate::provider::checks::{message, request};
use crate::provider::quirks::QuirkSettings;
use crate::provider::{anthropic, bedrock, openai};
use server::{Server, Step, reply, send};

const KEY: &str = "a-very-private-key-0123456789";
const ANSWER: &str = r#"{"id":"x","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);
const PATIENT: Timeouts = Timeouts { connect: LONG, first_byte: LONG, idle: LONG, total: LONG };

fn api_key(name: &str, secret: &str) -> ApiKey {
    ApiKey { name: name.to_owned(), secret: secret.into(), access: None, role: None }
}

fn endpoint(url: &str) -> Endpoint {
    rustls::crypto::ring::default_provider().install_default().ok();
    Endpoint {
        name: "test".to_owned(),
        dialect: &openai::DIALECT,
        vendor: None,
        quirks: QuirkSettings::default(),
        base_url: url.to_owned(),
        keys: vec![api_key("THE_KEY", KEY)],
        headers: vec![
            ("X-Team".to_owned(), "blue".to_owned()),
            ("x-proxy-token".to_owned(), "another-secret-987".to_owned()),
        ],
        timeouts: PATIENT,
        max_body: 10_000,
    }
}

/// One question to the provider.
async fn ask(provider: &Provider, key: usize, timeouts: &Timeouts) -> Result<CallReport, Ineligible> {
    let request = request(vec![message(Role::User, "Hello")]);
    let capabilities = Capabilities::default();
    provider.call(key, &asked(&request, &capabilities), timeouts, &OnceLock::new()).await
}

fn asked<'a>(request: &'a ChatRequest, capabilities: &'a Capabilities) -> Call<'a> {
    Call {
        payload: request.into(),
        model: "the-model",
        tier: None,
        capabilities,
        mends: &[],
        must_keep: &MustKeep::Nothing,
        delivery: Delivery::Whole,
    }
}

async fn call(endpoint: Endpoint, timeouts: &Timeouts) -> CallReport {
    ask(&Provider::new(endpoint).unwrap(), 0, timeouts).await.unwrap()
}

/// Runs a script against a client with these timeouts and returns the client's report.
async fn outcome(script: Vec<Step>, timeouts: Timeouts) -> CallReport {
    let server = Server::start(script).await;
    let report = call(endpoint(&server.url), &timeouts).await;
    assert_eq!(*server.connections.lock().unwrap(), 1, "never a retry");
    report
}

async fn check(
    name: &str,
    script: Vec<Step>,
    timeouts: Timeouts,
    status: Option<u16>,
    class: ErrorClass,
    scope: Scope,
) {
    let report = outcome(script, timeouts).await;
    let failure = report.result.expect_err(name);
    assert_eq!((failure.class, failure.scope, failure.status), (class, scope, status), "{name}: {}", failure.message);
    assert_eq!((report.status, report.first_byte_ms.is_some()), (status, status.is_some()), "{name}");
    assert!(!failure.message.is_empty(), "{name}");
}

#[tokio::test]
async fn an_answer_comes_with_all_that_is_known_of_it() {
    let headers = "x-request-id: req_1\r\nx-should-retry: false\r\nx-ratelimit-limit-requests: 60\r\n\
                   x-ratelimit-remaining-requests: 59\r\n";
    let server = Server::start(vec![reply(200, headers, ANSWER)]).await;
    let report = call(endpoint(&server.url), &PATIENT).await;
    assert_eq!(report.result.unwrap().text.as_deref(), Some("Hi"));
    assert_eq!(
        (report.status, report.request_id.as_deref(), report.should_retry),
        (Some(200), Some("req_1"), Some(false))
    );
    assert!(report.first_byte_ms.unwrap() <= report.total_ms);
    let limit = &report.limits[0];
    assert_eq!(
        (report.limits.len(), limit.unit, limit.limit, limit.remaining),
        (1, Unit::Requests, Some(60), Some(59))
    );

    let heard = server.heard().remove(0);
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/chat/completions http/1.1"), "{head}");
    let bearer = format!("authorization: bearer {KEY}");
    let agent = concat!("user-agent: sluice/", env!("CARGO_PKG_VERSION"));
    for line in [&bearer, agent, "content-type: application/json", "x-team: blue", "accept-encoding: gzip"] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    assert_eq!(body, r#"{"model":"the-model","messages":[{"role":"user","content":"Hello"}]}"#);
}

#[tokio::test]
async fn what_the_head_has_told_is_left_of_a_call_that_is_given_up() {
    let head = "HTTP/1.1 200 OK\r\nx-request-id: req_17\r\ncontent-length: 100\r\n\r\n";
    let server = Server::start(vec![send(head), Step::Hang]).await;
    let provider = Provider::new(endpoint(&server.url)).unwrap();
    let request = request(vec![message(Role::User, "Hello")]);
    let seen = OnceLock::new();
    let capabilities = Capabilities::default();
    let asked = asked(&request, &capabilities);
    let call = provider.call(0, &asked, &PATIENT, &seen);
    tokio::select! {
        report = call => panic!("{report:?}"),
        () = async { while seen.get().is_none() { tokio::task::yield_now().await } } => {}
    }
    let told = seen.into_inner().unwrap();
    assert_eq!((told.status, told.request_id.as_deref()), (200, Some("req_17")));
}

#[tokio::test]
async fn tokens_of_a_failed_call_are_not_lost() {
    let body = r#"{"error":{"code":502,"message":"m"},"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
    let report = outcome(vec![reply(200, "", body)], PATIENT).await;
    assert!(report.result.is_err());
    assert_eq!(report.failed_usage.map(|billed| (billed.usage.input, billed.usage.output)), Some((7, 3)));
    // Beside an HTTP error too, but for the zeros of a template and other things that are called usage.
    for (usage, expected) in [
        (r#"{"prompt_tokens":7,"completion_tokens":3}"#, Some((7, 3))),
        (r#"{"prompt_tokens":0,"completion_tokens":0,"cost":0}"#, None),
        (r#"{"requests":5,"limit":4}"#, None),
    ] {
        let body = format!(r#"{{"error":{{"message":"m"}},"usage":{usage}}}"#);
        for status in [400, 429, 502] {
            let report = outcome(vec![reply(status, "", &body)], PATIENT).await;
            let billed = report.failed_usage.map(|billed| (billed.usage.input, billed.usage.output));
            assert_eq!(billed, expected, "{status} {usage}");
        }
    }
}

#[tokio::test]
async fn names_without_end_are_cut() {
    let (long, longer) = ("n".repeat(500), "m".repeat(6_000));
    let usage = format!(r#"{{"prompt_tokens":1,"completion_tokens":1,"note":"{longer}"}}"#);
    let answer = format!(
        r#"{{"id":"{long}","model":"{long}","choices":[{{"message":{{"content":"{long}"}},"finish_reason":"{long}"}}],"usage":{usage}}}"#
    );
    let report = outcome(vec![reply(200, "", answer)], PATIENT).await;
    let answer = report.result.unwrap();
    assert_eq!(answer.text.unwrap().len(), 500, "the answer itself is whole");
    for name in [&answer.id, &answer.model, &answer.finish_raw] {
        assert!(name.as_ref().is_none_or(|name| name.len() <= 200), "{name:?}");
    }
    assert_eq!(answer.finish_raw.map(|finish| finish.len()), Some(200));
    assert_eq!((answer.usage.input, answer.usage_raw), (1, None));
    let refusal = format!(r#"{{"error":{{"message":"No.","code":"{long}"}}}}"#);
    let failure = outcome(vec![reply(400, "", refusal)], PATIENT).await.result.unwrap_err();
    assert!(failure.code.is_none_or(|code| code.len() <= 200));
}

#[tokio::test]
async fn an_ineligible_request_is_not_sent() {
    let server = Server::start(vec![reply(200, "", ANSWER)]).await;
    let provider = Provider::new(Endpoint { dialect: &anthropic::DIALECT, ..endpoint(&server.url) }).unwrap();
    let request = request(vec![message(Role::User, "Hello"), message(Role::Assistant, "Well")]);
    let capabilities = Capabilities::default();
    let refused = provider.call(0, &asked(&request, &capabilities), &PATIENT, &OnceLock::new()).await.unwrap_err();
    assert!(matches!(refused, Ineligible::Unsupported(_)), "{refused:?}");
    assert_eq!(*server.connections.lock().unwrap(), 0);
}

#[tokio::test]
async fn each_call_goes_out_with_the_key_it_was_given_and_none_of_them_comes_back() {
    let quoting = format!(r#"{{"error":{{"message":"not {KEY} and not 0123-second-4567","code":"x"}}}}"#);
    let server = Server::start(vec![reply(401, "", &quoting), Step::Again, reply(401, "", &quoting)]).await;
    let keys = vec![api_key("FIRST", KEY), api_key("SECOND", "0123-second-4567")];
    let provider = Provider::new(Endpoint { keys, ..endpoint(&server.url) }).unwrap();
    for key in [1, 0] {
        let report = ask(&provider, key, &PATIENT).await.unwrap();
        let failure = report.result.unwrap_err();
        assert_eq!(failure.message, "not [REDACTED] and not [REDACTED]");
    }
    let sent: Vec<bool> = server.heard().iter().map(|request| request.contains("Bearer 0123-second-4567")).collect();
    assert_eq!(sent, [true, false]);
    assert!(server.heard()[1].contains(&format!("Bearer {KEY}")));
    let without = provider.signed(2, WireRequest::post("/", &[], vec![])).await.unwrap();
    assert!(without.headers.get("authorization").is_none());
}

/// A provider whose calls are signed.
fn signing(url: &str) -> Endpoint {
    let access = AccessKey {
        id: "AKIDACCESSKEYOFATEST".into(),
        session_token: Some("a-session-token-0123456789/+==".into()),
        region: "eu-central-1".to_owned(),
    };
    let keys = vec![ApiKey { access: Some(access), ..api_key("THE_KEY", KEY) }];
    Endpoint { dialect: &bedrock::DIALECT, keys, ..endpoint(url) }
}

#[tokio::test]
async fn a_signed_call_carries_no_secret_and_no_part_of_the_key_comes_back() {
    let quoting =
        format!(r#"{{"message":"not {KEY}, AKIDACCESSKEYOFATEST, a-session-token-0123456789\\/+==","code":"x"}}"#);
    let server = Server::start(vec![reply(403, "", &quoting)]).await;
    let endpoint = signing(&server.url);
    let shown = format!("{endpoint:?}");
    let report = call(endpoint, &PATIENT).await;
    let heard = server.heard().concat();
    assert!(heard.contains("authorization: AWS4-HMAC-SHA256 Credential=AKIDACCESSKEYOFATEST/"), "{heard}");
    assert!(heard.contains("x-amz-security-token: a-session-token-0123456789/+=="), "{heard}");
    assert!(!heard.contains(KEY) && !heard.contains("Bearer"), "{heard}");
    assert_eq!(report.result.unwrap_err().message, "not [REDACTED], [REDACTED], [REDACTED]");
    assert!(!shown.contains("AKID") && !shown.contains("session-token-0"), "{shown}");
}

#[tokio::test]
async fn after_a_refusal_for_the_time_calls_are_signed_by_the_providers_clock() {
    let body = r#"{"message":"Signature expired: 20360504T115800Z is now earlier than 20360504T120000Z (20360504T120500Z - 5 min.)"}"#;
    let refusal = reply(403, "x-amzn-errortype: InvalidSignatureException\r\n", body);
    let answer = r#"{"output":{"message":{"content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":1,"outputTokens":1}}"#;
    let server = Server::start(vec![refusal.clone(), Step::Again, refusal, Step::Again, reply(200, "", answer)]).await;
    let provider = Provider::new(signing(&server.url)).unwrap();
    for _ in 0..2 {
        let failure = ask(&provider, 0, &PATIENT).await.unwrap().result.unwrap_err();
        assert_eq!((failure.class, failure.scope), (ErrorClass::ServerError, Scope::Provider));
        assert!(failure.message.starts_with("the clock of this machine is "), "{}", failure.message);
    }
    assert!(ask(&provider, 0, &PATIENT).await.unwrap().result.is_ok());
    let years: Vec<bool> = server.heard().iter().map(|request| request.contains("x-amz-date: 20360504T12")).collect();
    assert_eq!(years, [false, true, true], "a second refusal does not add to the first");
}

#[tokio::test]
async fn secrets_appear_nowhere() {
    let padding = "x".repeat(490);
    let quoting = format!(r#"{{"error":{{"message":"{padding} {KEY} another-secret-987","code":"{KEY}"}}}}"#);
    let mut shown = Vec::new();
    for body in [quoting.clone(), format!("plain text with {KEY}"), format!("[{KEY}")] {
        for status in [200, 401, 429, 500] {
            let server = Server::start(vec![reply(status, "", &body)]).await;
            let endpoint = endpoint(&server.url);
            let provider = Provider::new(endpoint.clone()).unwrap();
            shown.push(format!("{endpoint:?} {provider:?} "));
            shown.push(format!("{:?}", call(endpoint, &PATIENT).await));
        }
    }
    let refused = Endpoint { base_url: "http://127.0.0.1:1/v1".to_owned(), ..endpoint("") };
    shown.push(format!("{:?}", call(refused, &PATIENT).await));
    let with_password = Endpoint { base_url: format!("http://user:{KEY}@127.0.0.1/v1"), ..endpoint("") };
    shown.push(format!("{with_password:?} {:?}", Provider::new(with_password.clone())));
    let bad_key = Endpoint { keys: vec![api_key("THE_KEY", &format!("{KEY}\n"))], ..endpoint("http://127.0.0.1/v1") };
    let error = Provider::new(bad_key).unwrap_err();
    shown.push(format!("{error} {error:?}"));
    let shown = shown.concat();
    for secret in [KEY, "a-very-private", "another-secret"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn a_bad_configuration_is_refused_with_its_member() {
    let check = |change: fn(&mut Endpoint), expected: &str| {
        let mut endpoint = endpoint("https://api.example.com/v1");
        change(&mut endpoint);
        assert_eq!(Provider::new(endpoint).unwrap_err().to_string(), expected);
    };
    check(
        |e| e.base_url = "api.example.com".into(),
        "providers.test.base_url: expected an absolute URL such as https://host/v1",
    );
    check(|e| e.base_url = "ftp://host".into(), "providers.test.base_url: expected http:// or https:// and a host");
    check(
        |e| e.base_url = "https://me@host".into(),
        "providers.test.base_url: a name or password in the URL ends up in logs; use a key or a header",
    );
    let key = "providers.test: the key BAD is empty or has characters that an HTTP header cannot carry";
    check(|e| e.keys = vec![api_key("BAD", "")], key);
    check(|e| e.keys = vec![api_key("BAD", "a\nb")], key);
    check(
        |e| e.headers = vec![("a b".into(), "c".into())],
        "providers.test.headers: \"a b\" is not a valid HTTP header",
    );
    check(|e| e.headers = vec![("a".into(), "c\n".into())], "providers.test.headers: \"a\" is not a valid HTTP header");
}

#[tokio::test]
async fn path_and_query_are_joined_with_any_base_url() {
    let sse = vec![("alt".to_owned(), "sse".to_owned())];
    for (base_url, query, expected) in [
        ("https://h/v1", vec![], "https://h/v1/chat/completions"),
        ("https://h/v1/", vec![], "https://h/v1/chat/completions"),
        ("https://h", vec![], "https://h/chat/completions"),
        ("https://h/v1?api-version=1", vec![], "https://h/v1/chat/completions?api-version=1"),
        ("https://h/v1/?api-version=1", vec![], "https://h/v1/chat/completions?api-version=1"),
        ("https://h/v1", sse.clone(), "https://h/v1/chat/completions?alt=sse"),
        ("https://h/v1?api-version=1&x=%2F", sse, "https://h/v1/chat/completions?api-version=1&x=%2F&alt=sse"),
        ("https://h", vec![("a b".to_owned(), "&=".to_owned())], "https://h/chat/completions?a+b=%26%3D"),
    ] {
        let provider = Provider::new(endpoint(base_url)).unwrap();
        let wire = WireRequest { query, ..WireRequest::post("/chat/completions", &[], vec![]) };
        assert_eq!(provider.signed(0, wire).await.unwrap().url.as_str(), expected);
    }
}
