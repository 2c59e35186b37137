use super::*;
use crate::domain::{Role, Unit};
use crate::provider::checks::{message, request};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const KEY: &str = "a-very-private-key-0123456789";
const ANSWER: &str = r#"{"id":"x","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;

/// What the server does on a connection, in this order, after it has read a request.
#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    /// Sends this for ever, a piece every few milliseconds.
    Drip(&'static str),
    /// Says nothing until the client gives up.
    Hang,
    /// Breaks the connection off with a TCP reset.
    Reset,
    /// Waits for another request on the same connection.
    Again,
}

fn send(text: impl AsRef<[u8]>) -> Step {
    Step::Send(text.as_ref().to_vec())
}

/// A complete HTTP answer.
fn reply(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Step {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status} Whatever\r\n{headers}content-length: {}\r\n\r\n", body.len());
    Step::Send([head.as_bytes(), body].concat())
}

/// A server that follows a script, and what it heard.
struct Server {
    url: String,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    async fn start(script: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let server = Self { url, heard: heard.clone(), connections: connections.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *connections.lock().unwrap() += 1;
                tokio::spawn(follow(stream, script.clone(), heard.clone()));
            }
        });
        server
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn follow(mut stream: TcpStream, script: Vec<Step>, heard: Arc<Mutex<Vec<String>>>) {
    let Some(request) = read_request(&mut stream).await else { return };
    heard.lock().unwrap().push(request);
    for step in script {
        // The client may be gone already: that is what many of these scripts are about.
        let alive = match step {
            Step::Send(bytes) => stream.write_all(&bytes).await.is_ok(),
            Step::Drip(piece) => {
                let mut pace = tokio::time::interval(Duration::from_millis(5));
                while stream.write_all(piece.as_bytes()).await.is_ok() {
                    pace.tick().await;
                }
                false
            }
            Step::Hang => stream.read(&mut [0; 64]).await.is_err(),
            Step::Reset => {
                stream.set_zero_linger().unwrap();
                false
            }
            Step::Again => match read_request(&mut stream).await {
                Some(request) => {
                    heard.lock().unwrap().push(request);
                    true
                }
                None => false,
            },
        };
        if !alive {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Some(text.into_owned());
            }
        }
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
    }
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);
const PATIENT: Timeouts = Timeouts { connect: LONG, first_byte: LONG, idle: LONG, total: LONG };

fn api_key(name: &str, secret: &str) -> ApiKey {
    ApiKey { name: name.to_owned(), secret: secret.into() }
}

fn endpoint(url: &str) -> Endpoint {
    rustls::crypto::ring::default_provider().install_default().ok();
    Endpoint {
        name: "test".to_owned(),
        dialect: Dialect::Openai,
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

async fn call(endpoint: Endpoint, timeouts: &Timeouts) -> CallReport {
    let provider = Provider::new(endpoint).unwrap();
    let request = request(vec![message(Role::User, "Hello")]);
    provider.call(0, &request, "the-model", &Capabilities::default(), &[], timeouts, &OnceLock::new()).await.unwrap()
}

/// Runs a script against a client with these timeouts and says what the client made of it.
async fn outcome(script: Vec<Step>, timeouts: Timeouts) -> CallReport {
    let server = Server::start(script).await;
    let mut endpoint = endpoint(&server.url);
    // The head may take as long as connecting and the first byte together.
    endpoint.timeouts.connect = timeouts.connect;
    let report = call(endpoint, &timeouts).await;
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
    let headers = "x-request-id: req_1\r\nx-should-retry: false\r\nx-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 59\r\n";
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
async fn every_stage_has_its_timeout() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n";
    let first_byte = Timeouts { connect: SHORT, first_byte: SHORT, ..PATIENT };
    let idle = Timeouts { idle: SHORT, ..PATIENT };
    let total = Timeouts { total: SHORT, ..PATIENT };
    let (timeout, model) = (ErrorClass::Timeout, Scope::Model);
    check("hangs before the head", vec![Step::Hang], first_byte, None, timeout, model).await;
    check("hangs, in all", vec![Step::Hang], total, None, timeout, model).await;
    check("half a head", vec![send("HTTP/1.1 200 O"), Step::Hang], first_byte, None, timeout, model).await;
    check("stalls at once", vec![send(head), Step::Hang], idle, Some(200), timeout, model).await;
    check("stalls in the body", vec![send(head), send("{"), Step::Hang], idle, Some(200), timeout, model).await;
    check("drips for ever", vec![send(head), Step::Drip(" ")], total, Some(200), timeout, model).await;
}

#[tokio::test]
async fn large_answers_wait_for_room_and_small_ones_do_not() {
    let padding = "x".repeat(900_000);
    let large = ANSWER.replacen('{', &format!("{{\"padding\":\"{padding}\","), 1);
    // Room for one of them, if nobody else has any.
    let room = Room::of(0, Arc::new(Semaphore::new(1_000)), 1_000);
    let call = async |answer: &str, timeouts: &Timeouts| {
        let server = Server::start(vec![reply(200, "", answer)]).await;
        let mut provider = Provider::new(Endpoint { max_body: 1_000_000, ..endpoint(&server.url) }).unwrap();
        provider.room = room.clone();
        let request = request(vec![message(Role::User, "Hello")]);
        provider.call(0, &request, "m", &Capabilities::default(), &[], timeouts, &OnceLock::new()).await.unwrap().result
    };
    let taken = room.reserve().try_acquire_many(500).unwrap();
    assert_eq!(call(ANSWER, &PATIENT).await.unwrap().text.as_deref(), Some("Hi"));
    let refused = call(&large, &Timeouts { total: SHORT, ..PATIENT }).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::Timeout, "{}", refused.message);
    let (answer, ()) = tokio::join!(call(&large, &PATIENT), async {
        // Until it waits for it.
        while room.reserve().try_acquire_many(1).is_ok() {
            tokio::task::yield_now().await;
        }
        drop(taken);
    });
    assert_eq!(answer.unwrap().text.as_deref(), Some("Hi"));
    let both = tokio::join!(call(&large, &PATIENT), call(&large, &PATIENT));
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(room.reserve().available_permits(), 1_000, "all of it is free again");
}

#[tokio::test]
async fn answers_of_one_provider_that_never_end_take_no_room_from_those_of_another() {
    let padding = "x".repeat(900_000);
    let large = ANSWER.replacen('{', &format!("{{\"padding\":\"{padding}\","), 1);
    // Room for one answer in each share, and for two in the reserve.
    let reserve = Arc::new(Semaphore::new(2_000));
    let provider = |url: &str| {
        let mut provider = Provider::new(Endpoint { max_body: 1_000_000, ..endpoint(url) }).unwrap();
        provider.room = Room::of(1_000, Arc::clone(&reserve), 2_000);
        Arc::new(provider)
    };
    let call = async |provider: &Provider| {
        let request = request(vec![message(Role::User, "Hello")]);
        provider.call(0, &request, "m", &Capabilities::default(), &[], &PATIENT, &OnceLock::new()).await.unwrap().result
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 990000\r\n\r\n";
    let hostile = Server::start(vec![send(head), send("x".repeat(700_000)), Step::Drip("x")]).await;
    let dripping = provider(&hostile.url);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let dripping = Arc::clone(&dripping);
            tokio::spawn(async move { call(&dripping).await.is_ok() })
        })
        .collect();
    while reserve.available_permits() == 2_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let good = Server::start(vec![reply(200, "", &large)]).await;
    let other = provider(&good.url);
    for _ in 0..3 {
        let both = tokio::join!(call(&other), call(&other));
        assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    }
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    // As many as there are of one that behaves get through, one after the other.
    let many = futures_of(&other, 6).await;
    assert_eq!(many, 6);
}

/// So many calls at once; how many were answered.
async fn futures_of(provider: &Arc<Provider>, count: usize) -> usize {
    let calls: Vec<_> = (0..count)
        .map(|_| {
            let provider = Arc::clone(provider);
            tokio::spawn(async move {
                let request = request(vec![message(Role::User, "Hello")]);
                let head = OnceLock::new();
                let report =
                    provider.call(0, &request, "m", &Capabilities::default(), &[], &PATIENT, &head).await.unwrap();
                report.result.is_ok()
            })
        })
        .collect();
    let mut answered = 0;
    for call in calls {
        answered += usize::from(call.await.unwrap());
    }
    answered
}

#[tokio::test]
async fn what_the_head_has_told_is_left_of_a_call_that_is_given_up() {
    let head = "HTTP/1.1 200 OK\r\nx-request-id: req_17\r\ncontent-length: 100\r\n\r\n";
    let server = Server::start(vec![send(head), Step::Hang]).await;
    let provider = Provider::new(endpoint(&server.url)).unwrap();
    let request = request(vec![message(Role::User, "Hello")]);
    let seen = OnceLock::new();
    let capabilities = Capabilities::default();
    let call = provider.call(0, &request, "m", &capabilities, &[], &PATIENT, &seen);
    tokio::select! {
        report = call => panic!("{report:?}"),
        () = async { while seen.get().is_none() { tokio::task::yield_now().await } } => {}
    }
    let told = seen.into_inner().unwrap();
    assert_eq!((told.status, told.request_id.as_deref()), (200, Some("req_17")));
}

#[tokio::test]
async fn a_broken_connection_is_the_networks_fault() {
    let network = (ErrorClass::Network, Scope::Network);
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n";
    let cut = &ANSWER[..ANSWER.len() - 1];
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{cut}\r\n", cut.len());
    let zipped = gzip(ANSWER.as_bytes());
    let half = &zipped[..zipped.len() / 2];
    let cut_gzip = reply(200, "content-encoding: gzip\r\n", half);
    for (name, script, status) in [
        ("reset before the head", vec![Step::Reset], None),
        ("closed before the head", vec![], None),
        ("closed in the head", vec![send("HTTP/1.1 200 OK\r\nconte")], None),
        ("no HTTP", vec![send("SSH-2.0-OpenSSH_9.2\r\n")], None),
        ("reset in the body", vec![send(head), send(&ANSWER[..20]), Step::Reset], Some(200)),
        ("shorter than announced", vec![send(head), send(cut)], Some(200)),
        ("chunks without an end", vec![send(chunked)], Some(200)),
        ("half of a gzip", vec![cut_gzip], Some(200)),
    ] {
        check(name, script, PATIENT, status, network.0, network.1).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_whole_is_taken_whatever_becomes_of_its_connection() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n";
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{ANSWER}\r\n", ANSWER.len());
    let impatient = Timeouts { idle: SHORT, ..PATIENT };
    for (name, script, timeouts) in [
        ("shorter than announced", vec![send(head), send(ANSWER)], PATIENT),
        ("chunks without an end", vec![send(chunked)], PATIENT),
        ("silence behind it", vec![send(head), send(ANSWER), Step::Hang], impatient),
    ] {
        let answer = outcome(script, timeouts).await.result.expect(name);
        assert_eq!(answer.text.as_deref(), Some("Hi"), "{name}");
        assert!(answer.beside.notes[0].contains("it was whole"), "{name}: {:?}", answer.beside.notes);
    }
}

#[tokio::test]
async fn a_refused_connection_is_told_apart_from_a_broken_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let report = call(endpoint(&url), &PATIENT).await;
    let failure = report.result.unwrap_err();
    assert_eq!((failure.class, failure.scope, report.status), (ErrorClass::Unreachable, Scope::Network, None));
    assert!(failure.message.contains("refused"), "{}", failure.message);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_answer_is_read() {
    let report = outcome(vec![reply(200, "content-encoding: gzip\r\n", gzip(ANSWER.as_bytes()))], PATIENT).await;
    assert_eq!(report.result.unwrap().text.as_deref(), Some("Hi"));
}

#[tokio::test]
async fn an_answer_in_many_pieces_is_read() {
    let pieces = ANSWER
        .as_bytes()
        .chunks(7)
        .flat_map(|piece| [send(format!("{:x}\r\n", piece.len())), send(piece), send("\r\n")]);
    let mut script = vec![send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")];
    script.extend(pieces);
    script.push(send("0\r\n\r\n"));
    assert_eq!(outcome(script, PATIENT).await.result.unwrap().text.as_deref(), Some("Hi"));
}

#[tokio::test]
async fn an_answer_over_the_cap_is_given_up() {
    let server_error = (ErrorClass::ServerError, Scope::Model);
    let large = "x".repeat(20_000);
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4e20\r\n{large}\r\n0\r\n\r\n");
    for (name, script) in [
        ("announced", vec![send("HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n"), Step::Hang]),
        ("not announced", vec![send(chunked)]),
        ("after decompression", vec![reply(200, "content-encoding: gzip\r\n", gzip(large.as_bytes()))]),
    ] {
        check(name, script, PATIENT, Some(200), server_error.0, server_error.1).await;
    }
}

#[tokio::test]
async fn rubbish_in_a_success_is_the_servers_fault() {
    let (class, provider) = (ErrorClass::ServerError, Scope::Provider);
    check(
        "HTML",
        vec![reply(200, "content-type: text/html\r\n", "<html>Sign in</html>")],
        PATIENT,
        Some(200),
        class,
        provider,
    )
    .await;
    check("no choices", vec![reply(200, "", b"{\"choices\": \"\xff\xfe\"}")], PATIENT, Some(200), class, Scope::Model)
        .await;
    check("nothing", vec![reply(200, "", "")], PATIENT, Some(200), class, provider).await;
    check("no gzip", vec![reply(200, "content-encoding: gzip\r\n", ANSWER)], PATIENT, Some(200), class, Scope::Model)
        .await;
}

/// A server with a certificate of its own making; returns its port, and what it could read of a request.
fn unknown_server(name: &str) -> (u16, std::thread::JoinHandle<String>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut heard = String::new();
        let mut tls = rustls::Stream::new(&mut connection, &mut stream);
        let _ = std::io::Read::read_to_string(&mut tls, &mut heard);
        heard
    });
    (port, server)
}

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_is_not_talked_to() {
    let (port, server) = unknown_server("localhost");
    let endpoint = endpoint(&format!("https://localhost:{port}/v1"));
    let failure = call(endpoint, &PATIENT).await.result.unwrap_err();
    assert_eq!(failure.class, ErrorClass::Unreachable);
    assert!(failure.message.contains("certificate"), "{}", failure.message);
    assert_eq!(server.join().unwrap(), "", "nothing was sent, and so no key");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(vec![reply(200, "", ANSWER)]).await;
    let location = format!("location: {}/chat/completions\r\n", elsewhere.url);
    for status in [301, 302, 307, 308] {
        let script = vec![reply(status, &location, "")];
        check("redirect", script, PATIENT, Some(status), ErrorClass::ServerError, Scope::Provider).await;
    }
    assert_eq!(*elsewhere.connections.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_failure_is_known_by_its_head_even_if_the_body_breaks() {
    let head = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 36722\r\ncontent-length: 500\r\n\r\n{\"err";
    for (last, timeouts) in [(Step::Reset, PATIENT), (Step::Hang, Timeouts { idle: SHORT, ..PATIENT })] {
        let failure = outcome(vec![send(head), last], timeouts).await.result.unwrap_err();
        assert_eq!((failure.class, failure.wait), (ErrorClass::RateLimit, Some(Duration::from_secs(36_722))));
    }
}

#[tokio::test]
async fn tokens_of_a_failed_call_are_not_lost() {
    let body = r#"{"error":{"code":502,"message":"m"},"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
    let report = outcome(vec![reply(200, "", body)], PATIENT).await;
    assert!(report.result.is_err());
    assert_eq!(report.failed_usage.map(|(usage, _)| (usage.input, usage.output)), Some((7, 3)));
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
async fn a_connection_is_used_again() {
    let server = Server::start(vec![reply(200, "", ANSWER), Step::Again, reply(200, "", ANSWER)]).await;
    let provider = Provider::new(endpoint(&server.url)).unwrap();
    let request = request(vec![message(Role::User, "Hello")]);
    for _ in 0..2 {
        let report =
            provider.call(0, &request, "m", &Capabilities::default(), &[], &PATIENT, &OnceLock::new()).await.unwrap();
        assert!(report.result.is_ok(), "{report:?}");
    }
    assert_eq!((server.heard().len(), *server.connections.lock().unwrap()), (2, 1));
}

#[tokio::test]
async fn an_ineligible_request_is_not_sent() {
    let server = Server::start(vec![reply(200, "", ANSWER)]).await;
    let provider = Provider::new(Endpoint { dialect: Dialect::Anthropic, ..endpoint(&server.url) }).unwrap();
    let request = request(vec![message(Role::User, "Hello"), message(Role::Assistant, "Well")]);
    let refused =
        provider.call(0, &request, "m", &Capabilities::default(), &[], &PATIENT, &OnceLock::new()).await.unwrap_err();
    assert!(matches!(refused, Ineligible::Unsupported(_)), "{refused:?}");
    assert_eq!(*server.connections.lock().unwrap(), 0);
}

#[tokio::test]
async fn each_call_goes_out_with_the_key_it_was_given_and_none_of_them_comes_back() {
    let quoting = format!(r#"{{"error":{{"message":"not {KEY} and not 0123-second-4567","code":"x"}}}}"#);
    let server = Server::start(vec![reply(401, "", &quoting), Step::Again, reply(401, "", &quoting)]).await;
    let keys = vec![api_key("FIRST", KEY), api_key("SECOND", "0123-second-4567")];
    let provider = Provider::new(Endpoint { keys, ..endpoint(&server.url) }).unwrap();
    let request = request(vec![message(Role::User, "Hello")]);
    for key in [1, 0] {
        let report =
            provider.call(key, &request, "m", &Capabilities::default(), &[], &PATIENT, &OnceLock::new()).await.unwrap();
        let failure = report.result.unwrap_err();
        assert_eq!(failure.message, "not [REDACTED] and not [REDACTED]");
    }
    let sent: Vec<bool> = server.heard().iter().map(|request| request.contains("Bearer 0123-second-4567")).collect();
    assert_eq!(sent, [true, false]);
    assert!(server.heard()[1].contains(&format!("Bearer {KEY}")));
    assert!(provider.request(2, "/", HeaderMap::new(), vec![]).headers().get("authorization").is_none());
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

#[test]
fn a_path_is_joined_with_any_base_url() {
    for (base_url, expected) in [
        ("https://h/v1", "https://h/v1/chat/completions"),
        ("https://h/v1/", "https://h/v1/chat/completions"),
        ("https://h", "https://h/chat/completions"),
        ("https://h/v1?api-version=1", "https://h/v1/chat/completions?api-version=1"),
    ] {
        let provider = Provider::new(endpoint(base_url)).unwrap();
        assert_eq!(provider.request(0, "/chat/completions", HeaderMap::new(), vec![]).url().as_str(), expected);
    }
}

#[tokio::test]
async fn a_flood_of_informational_heads_is_swallowed_while_the_thread_of_the_caller_stands_still() {
    // More than all buffers between the two hold.
    const FLOOD: usize = 32 << 20;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    let (swallowed, was_swallowed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).unwrap();
            request.extend_from_slice(&piece[..read]);
        }
        asked.send(()).unwrap();
        let head = format!("HTTP/1.1 103 Early Hints\r\nlink: <{}>\r\n\r\n", "x".repeat(4000));
        for _ in 0..FLOOD / head.len() {
            stream.write_all(head.as_bytes()).unwrap();
        }
        swallowed.send(()).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len());
        stream.write_all(answer.as_bytes()).unwrap();
        let _ = stream.read(&mut [0]);
    });
    // This test has one thread.
    let stand_still = async {
        was_asked.await.unwrap();
        was_swallowed.recv_timeout(LONG).expect("the connection is read on another thread");
    };
    let (report, ()) = tokio::join!(call(endpoint(&url), &PATIENT), stand_still);
    assert!(report.result.is_ok(), "{report:?}");
}

#[tokio::test]
async fn the_connections_of_a_provider_end_with_it() {
    let (closed, was_closed) = tokio::sync::oneshot::channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await.unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        closed.send(stream.read(&mut [0]).await.unwrap()).unwrap();
    });
    // It is dropped in here, by a task.
    assert!(call(endpoint(&url), &PATIENT).await.result.is_ok());
    assert_eq!(was_closed.await, Ok(0));
}
