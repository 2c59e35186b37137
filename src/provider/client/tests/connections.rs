//! Connections, and what a server may send on them.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A connection is ready for the next call a moment after its answer was read: a call in that moment opens another one.
const CALLS_UNTIL_ONE_IS_KEPT: usize = 100;

#[tokio::test]
async fn every_stage_has_its_timeout() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n";
    let first_byte = Timeouts { first_byte: SHORT, ..PATIENT };
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
async fn the_first_byte_is_waited_for_from_when_the_request_goes_out_on_a_new_or_a_kept_connection() {
    const HOUR: Duration = Duration::from_hours(1);
    let hasty = Timeouts { connect: HOUR, first_byte: SHORT, idle: HOUR, total: HOUR };
    for before in [vec![], vec![reply(200, "", ANSWER), Step::Again]] {
        let is_kept = !before.is_empty();
        let server = Server::start([before, vec![Step::Hang]].concat()).await;
        let mut endpoint = endpoint(&server.url);
        endpoint.timeouts = hasty;
        let provider = Provider::new(endpoint).unwrap();
        if is_kept {
            assert!(ask(&provider, 0, &PATIENT).await.unwrap().result.is_ok());
        }
        // A call that finds no kept connection is answered by its new one: then that one is kept for the next call.
        let mut calls = 0;
        let failure = loop {
            let given_up = tokio::time::timeout(LONG, ask(&provider, 0, &hasty)).await;
            let result = given_up.expect("the time for connecting is not added").unwrap().result;
            calls += 1;
            let was_used_again = *server.connections.lock().unwrap() < server.heard().len();
            match result {
                Err(failure) if was_used_again == is_kept => break failure,
                other => assert!(is_kept && calls < CALLS_UNTIL_ONE_IS_KEPT, "{other:?}"),
            }
        };
        assert_eq!((failure.class, failure.scope), (ErrorClass::Timeout, Scope::Model), "{is_kept}");
    }
}

#[tokio::test]
async fn connecting_has_a_time_of_its_own_whatever_is_left_for_the_first_byte() {
    // It takes longer to connect than the first byte may take, and then the server shows a bad certificate.
    let (port, server) = unknown_server("localhost", SHORT * 3);
    let first_byte = Timeouts { first_byte: SHORT, ..PATIENT };
    let url = format!("https://localhost:{port}/v1");
    let failure = call(endpoint(&url), &first_byte).await.result.unwrap_err();
    assert_eq!((failure.class, failure.scope), (ErrorClass::Unreachable, Scope::Network), "{}", failure.message);
    assert!(failure.message.contains("certificate"), "{}", failure.message);
    server.join().unwrap();
}

#[tokio::test]
async fn the_time_for_connecting_is_that_of_the_rung() {
    let (port, server) = unknown_server("localhost", LONG);
    let provider = Provider::new(endpoint(&format!("https://localhost:{port}/v1"))).unwrap();
    let hasty = Timeouts { connect: SHORT, ..PATIENT };
    let failure = ask(&provider, 0, &hasty).await.unwrap().result.unwrap_err();
    assert_eq!((failure.class, failure.message.as_str()), (ErrorClass::Unreachable, "no connection in time"));
    server.thread().unpark();
    server.join().unwrap();
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

/// A server with a certificate of its own making, which is shown after this time; returns its port, and the part of a
/// request that it could read.
fn unknown_server(name: &str, after: Duration) -> (u16, std::thread::JoinHandle<String>) {
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
        // Nothing arrives, unless the client has given up and closed the connection.
        std::thread::park_timeout(after);
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
    let (port, server) = unknown_server("localhost", Duration::ZERO);
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
        for body in ["", "<html>Moved</html>", r#"{"error":{"message":"Moved."}}"#] {
            let script = vec![reply(status, &location, body)];
            check("redirect", script, PATIENT, Some(status), ErrorClass::ServerError, Scope::Provider).await;
        }
    }
    for (location, place) in [
        ("https://login.example.com:8443/in?session=a-secret", "to login.example.com"),
        ("/other/path?session=a-secret", "to another path"),
        ("//", "to another path"),
    ] {
        let script = vec![reply(302, &format!("location: {location}\r\n"), "")];
        let failure = outcome(script, PATIENT).await.result.unwrap_err();
        assert!(failure.message.starts_with(&format!("HTTP 302 redirects {place}: ")), "{}", failure.message);
        assert!(!failure.message.contains("a-secret"), "{}", failure.message);
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
async fn a_connection_is_used_again() {
    let server = Server::start(vec![reply(200, "", ANSWER), Step::Again, reply(200, "", ANSWER)]).await;
    let provider = Provider::new(endpoint(&server.url)).unwrap();
    for _ in 0..CALLS_UNTIL_ONE_IS_KEPT {
        let report = ask(&provider, 0, &PATIENT).await.unwrap();
        assert!(report.result.is_ok(), "{report:?}");
        if *server.connections.lock().unwrap() < server.heard().len() {
            return;
        }
    }
    panic!("each call opened a connection of its own");
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
        server::read_request(&mut stream).await.unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        closed.send(stream.read(&mut [0]).await.unwrap()).unwrap();
    });
    // It is dropped in here, by a task.
    assert!(call(endpoint(&url), &PATIENT).await.result.is_ok());
    assert_eq!(was_closed.await, Ok(0));
}
