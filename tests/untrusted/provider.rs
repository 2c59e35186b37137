//! A provider that sends anything but the answer asked for.

use super::{Stage, gzip};
use crate::support::clock;
use crate::support::program::text;
use crate::support::wait::until;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Reads a request, as far as it goes.
async fn request_of(stream: &mut TcpStream) -> Option<String> {
    let mut heard = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let text = text(&heard);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => heard.extend_from_slice(&piece[..read]),
        }
    }
}

const ANSWER: &str = r#"{"id":"x","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;

/// Every way in which this provider misbehaves.
const WAYS: &[&str] = &[
    "endless body",
    "endless chunks",
    "bomb",
    "bomb in a failure",
    "deep",
    "deep failure",
    "not utf-8",
    "no json",
    "slow head",
    "slow body",
    "many headers",
    "large header",
    "endless 1xx",
    "bad chunk",
    "huge chunk",
    "huge length",
    "bad length",
    "two lengths",
    "bad status",
    "no status",
    "nothing",
    "upgrade",
    "no content",
    "not gzip",
    "brackets",
    "huge numbers",
    "long names",
    "bad header",
    "endless retry-after",
    "many choices",
];

fn whole(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Answers on one connection until the client has had enough of it.
async fn misbehave(mut stream: TcpStream, bomb: Arc<Vec<u8>>) {
    let Some(request) = request_of(&mut stream).await else { return };
    let way = WAYS.iter().find(|way| request.contains(&format!("[[{way}]]"))).copied().unwrap_or_default();
    let ok = |headers: &str, body: &str| whole("200 OK", headers, body.as_bytes());
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let answer = match way {
        "endless body" | "endless chunks" => {
            let head = if way == "endless body" { "content-length: 99999999999" } else { "transfer-encoding: chunked" };
            let mut sent = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).await;
            let piece = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
            while sent.is_ok() {
                sent = stream.write_all(&piece).await;
            }
            return;
        }
        "bomb" => whole("200 OK", "content-encoding: gzip\r\n", &bomb),
        "bomb in a failure" => whole("500 Oh", "content-encoding: gzip\r\n", &bomb),
        "deep" => ok("", &format!(r#"{{"choices": {}}}"#, deep(100_000))),
        "deep failure" => whole("429 No", "", format!(r#"{{"error": {}}}"#, deep(100_000)).as_bytes()),
        "not utf-8" => whole("200 OK", "", b"{\"choices\":[{\"message\":{\"content\":\"\xff\xfe\xc0\"}}]}"),
        "no json" => ok("content-type: text/html\r\n", "<html>"),
        "slow head" | "slow body" => {
            let head = if way == "slow body" {
                "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\n"
            };
            let mut sent = stream.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                clock::pace(std::time::Duration::from_millis(100)).await;
                sent = stream.write_all(b"a").await;
            }
            return;
        }
        "many headers" => ok(&"x-one-of-many: 1\r\n".repeat(10_000), ANSWER),
        "large header" => ok(&format!("x-request-id: {}\r\n", "y".repeat(1 << 20)), ANSWER),
        "endless 1xx" => {
            while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n").await.is_ok() {}
            return;
        }
        "bad chunk" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nabc\r\n".to_vec(),
        "huge chunk" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc".to_vec(),
        "huge length" => b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nabc".to_vec(),
        "bad length" => b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nabc".to_vec(),
        "two lengths" => b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_vec(),
        "bad status" => b"HTTP/1.1 9999 Whatever\r\n\r\n".to_vec(),
        "no status" => vec![b'z'; 100_000],
        "nothing" => Vec::new(),
        "upgrade" => b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_vec(),
        "no content" => b"HTTP/1.1 204 Nothing\r\n\r\n".to_vec(),
        "not gzip" => whole("200 OK", "content-encoding: gzip\r\n", ANSWER.as_bytes()),
        "brackets" => ok(
            "",
            &serde_json::json!({"choices": [{"message": {"content": "{[".repeat(2_000_000)},
            "finish_reason": "stop"}]})
            .to_string(),
        ),
        "huge numbers" => ok("", &ANSWER.replace(":1,", ":99999999999999999999999,")),
        "long names" => ok(
            "",
            &ANSWER.replace("stop", &"s".repeat(1 << 20)).replace("\"x\"", &format!("\"{}\"", "i".repeat(1 << 20))),
        ),
        "bad header" => ok("x-a\x01b: \x02\r\n", ANSWER),
        "endless retry-after" => whole("400 No", "retry-after: 99999999999999999999\r\n", b"{}"),
        "many choices" => ok("", &format!(r#"{{"choices":[{}1]}}"#, "{},".repeat(1_000_000))),
        other => panic!("the scripted provider cannot be {other:?}: {request}"),
    };
    let _ = stream.write_all(&answer).await;
    // A client that waits for more waits until its own time is over.
    if way != "nothing" {
        let _ = stream.read(&mut [0]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_provider_sends_the_worker_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stage = Stage::new(&listener.local_addr().unwrap().to_string()).await;
    // More than memory may hold.
    let bomb = Arc::new(gzip((0..600).map(|_| vec![b' '; 1 << 20])));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(misbehave(stream, Arc::clone(&bomb)));
        }
    });
    for way in WAYS {
        sqlx::query(
            "insert into sluice.job (route, custom_id, request) values ('bad', $1, \
             jsonb_build_object('prompt', '[[' || $1 || ']]'))",
        )
        .bind(way)
        .execute(&stage.pool)
        .await
        .unwrap();
    }
    stage.good_jobs(50).await;
    let worker = stage.worker();
    stage.until_good_succeed(50).await;
    let open = "select count(*) from sluice.jobs where route = 'bad' and state not in ('succeeded', 'failed')";
    let bad = i64::try_from(WAYS.len()).unwrap();
    until("every call has an end", async || {
        // Network faults are waited for, not failed: a request that was sent once has shown its effect.
        stage.count(open).await == 0
            || stage
                .count(
                    "select count(distinct job_id) from sluice.attempt a join sluice.job j on j.id = a.job_id \
                     where j.route = 'bad'",
                )
                .await
                >= bad
    })
    .await;
    stage.good_jobs(10).await;
    stage.until_good_succeed(60).await;
    let longest = "select max(coalesce(length(message), 0) + coalesce(length(request_id), 0) + \
        coalesce(length(finish), 0))::bigint from sluice.attempt";
    assert!(stage.count(longest).await < 10_000, "{}", stage.count(longest).await);
    worker.stop().await;
}

/// Floods each connection with heads of 1xx answers, on a thread each, from when so many are there until it is dropped.
struct Flood {
    address: std::net::SocketAddr,
    has_begun: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

impl Flood {
    fn on(connections: usize) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (has_begun, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (begun, over) = (Arc::clone(&has_begun), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let mut streams: Vec<_> = listener.incoming().take(connections).map(Result::unwrap).collect();
            for stream in &mut streams {
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0, "a request has begun");
            }
            begun.store(true, Ordering::Relaxed);
            for mut stream in streams {
                let over = Arc::clone(&over);
                std::thread::spawn(move || {
                    let heads = b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n".repeat(1000);
                    while !over.load(Ordering::Relaxed) && stream.write_all(&heads).is_ok() {}
                });
            }
        });
        Self { address, has_begun, is_over }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_floods_with_informational_heads_holds_up_no_heartbeat_and_no_other_provider() {
    let flood = Flood::on(7);
    let stage = Stage::new(&flood.address.to_string()).await;
    stage
        .run(
            r#"insert into sluice.job (route, request)
               select 'patient', '{"prompt": "Hi"}' from generate_series(1, 6)"#,
        )
        .await;
    stage.run(r#"insert into sluice.job (route, request) values ('bad', '{"prompt": "Hi"}')"#).await;
    let worker = stage.worker();
    until("all calls are flooded", async || flood.has_begun.load(Ordering::Relaxed)).await;
    let seen = "select (extract(epoch from max(seen_at)) * 1000)::bigint from sluice.worker";
    for round in 1..=3 {
        let before = stage.count(seen).await;
        stage.good_jobs(5).await;
        stage.until_good_succeed(5 * round).await;
        until("the heart beats", async || stage.count(seen).await > before).await;
    }
    let timed_out = "select count(*) from sluice.attempt a join sluice.job j on j.id = a.job_id
                      where j.route = 'bad' and a.class = 'timeout'";
    until("the call with little time ends when it is over", async || stage.count(timed_out).await == 1).await;
    // Regardless of the fate of the others meanwhile, each that has ended is a failure with a name.
    let others = "select count(*) from sluice.attempt a join sluice.job j on j.id = a.job_id
                   where j.route = 'patient' and a.class is distinct from 'timeout'
                     and a.class is distinct from 'unreachable' and a.class is distinct from 'network'";
    assert_eq!(stage.count(others).await, 0);
    drop(flood);
    worker.stop().await;
}
