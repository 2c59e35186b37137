//! Health probes: what is asked, and how little of the answer is waited for.

use super::*;
use crate::domain::probe::{ProbePage, ProbeReport};

async fn probe(server: &Server, page: &str, timeout: Duration) -> ProbeReport {
    let url = format!("{}?api-version=1", server.url);
    Provider::new(endpoint(&url)).unwrap().probe(0, &ProbePage::parse(page).unwrap(), timeout).await
}

#[tokio::test]
async fn a_page_is_asked_at_the_root_with_the_key_the_headers_and_both_queries() {
    let server = Server::start(vec![reply(204, "", "")]).await;
    let report = probe(&server, "/health?deep=1", LONG).await;
    assert!(report.is_good() && report.words.is_none(), "{report:?}");
    let heard = server.heard().remove(0).to_lowercase();
    assert!(heard.starts_with("get /health?api-version=1&deep=1 http/1.1\r\n"), "{heard}");
    assert!(heard.contains(&format!("authorization: bearer {KEY}\r\n")) && heard.contains("x-team: blue"), "{heard}");
    assert!(heard.ends_with("\r\n\r\n"), "no body: {heard}");
}

#[tokio::test]
async fn each_way_to_fail_is_told_in_few_words_without_a_secret() {
    let words = format!(r#"{{"error": {{"message": "no {KEY} {}"}}}}"#, "x".repeat(2_000));
    let drip = vec![send("HTTP/1.1 503 Busy\r\ncontent-length: 100000\r\n\r\n"), Step::Drip("loading ")];
    for (script, status, said) in [
        (vec![reply(503, "", r#"{"error": {"code": 503, "message": "Loading model"}}"#)], Some(503), "Loading model"),
        (vec![reply(301, "location: http://127.0.0.1:1/elsewhere\r\n", "")], Some(301), "redirects are not followed"),
        (vec![reply(502, "", "<html><head><title>502 Bad Gateway</title>")], Some(502), "502 Bad Gateway"),
        (vec![reply(401, "", words)], Some(401), "no [REDACTED] xxx"),
        (drip, Some(503), "loading"),
        (vec![Step::Hang], None, "no answer began in time"),
        (vec![Step::Reset], None, "the connection broke"),
    ] {
        let server = Server::start(script).await;
        let report = probe(&server, "/health", SHORT * 3).await;
        let told = report.in_words();
        assert!(!report.is_good() && report.status == status && told.contains(said), "{report:?}");
        assert!(!told.contains(KEY) && told.chars().count() < 250, "{told}");
        assert_eq!(server.heard().len(), 1, "it is asked once");
    }
}

#[tokio::test]
async fn a_good_status_is_good_whatever_becomes_of_its_body() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
    // An endless body is left at four kilobytes, long before the time is over.
    let piece: &'static str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for script in [
        vec![send(head), Step::Drip(piece)],
        vec![send(head), Step::Reset],
        vec![send("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n????")],
    ] {
        let server = Server::start(script).await;
        let report = tokio::time::timeout(LONG, probe(&server, "/", LONG * 4)).await.expect("it is left");
        assert!(report.is_good() && report.words.is_none(), "{report:?}");
    }
    let server = Server::start(vec![send(head), Step::Hang]).await;
    assert!(probe(&server, "/", SHORT).await.is_good(), "its body stalls");
}
