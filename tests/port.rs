//! The worker's own port, with hostile clients: it keeps its descriptors, answers probes, and goes on working.

use crate::support::clock;
use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use crate::support::wait::until;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use sluice::simulate::{Scenario, Simulator};
use sqlx::PgPool;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const SCENARIO: &str =
    "[providers.one]\ndialect = \"openai\"\nmodels.model.price = { input = \"1\", output = \"2\" }\n";

/// Descriptors that the worker gets: fewer than the connections that are opened.
const DESCRIPTORS: usize = 256;
const CONNECTIONS: usize = 1100;

struct Stage {
    _database: TestDatabase,
    _simulator: Simulator,
    _program: Program,
    pool: PgPool,
    worker: Child,
    address: String,
}

impl Stage {
    async fn new(http: &str) -> Self {
        let database = database().await;
        let simulator =
            Simulator::start(Scenario::from_toml(SCENARIO).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[worker]\nmax_in_flight = 8\n[http]\nlisten = \"127.0.0.1:0\"\n{http}\
             [providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.default]\nrungs = [\"one/model\"]\n",
            simulator.base_url("one").unwrap()
        );
        let program = Program::new(&config, &database.url());
        let plain = program.command(&["worker"]);
        let said = tempfile::NamedTempFile::new().unwrap();
        // The hard limit, so that the worker cannot help itself.
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {DESCRIPTORS} && exec \"$@\"")).arg("sh");
        command.arg(plain.as_std().get_program()).args(plain.as_std().get_args()).env("NO_COLOR", "1");
        for (name, value) in plain.as_std().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap()).kill_on_drop(true);
        let worker = command.spawn().unwrap();
        let address = || {
            let said = text(&std::fs::read(said.path()).unwrap());
            let (_, rest) = said.split_once("http.listen=")?;
            Some(rest.split_once(char::is_whitespace)?.0.to_owned())
        };
        until("the worker says where it listens", async || address().is_some()).await;
        let address = address().unwrap();
        Self { pool: database.pool(), _database: database, _simulator: simulator, _program: program, worker, address }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.worker.id().unwrap()).unwrap()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The reply to these bytes, until the connection is closed; `None` when it stays open.
    async fn says(&self, bytes: &[u8], then_close: bool) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        // It may have been closed in the middle of a head that is too long.
        let _ = stream.write_all(bytes).await;
        if then_close {
            let _ = stream.shutdown().await;
        }
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut answer)).await;
        read.ok().map(|_| text(&answer))
    }

    async fn probe(&self) -> String {
        self.says(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n", false).await.unwrap_or_default()
    }

    async fn work(&self, jobs: i64) {
        let add = "insert into sluice.job (request)
                        select jsonb_build_object('prompt', 'n ' || n) from generate_series(1, $1) n";
        sqlx::query(add).bind(jobs).execute(&self.pool).await.unwrap();
        until("all jobs are answered", async || {
            let open = "select count(*) from sluice.jobs where state <> 'succeeded'";
            sqlx::query_scalar::<_, i64>(open).fetch_one(&self.pool).await.unwrap() == 0
        })
        .await;
    }

    async fn stop(mut self) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), Signal::TERM).unwrap();
        assert!(self.worker.wait().await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_takes_neither_descriptors_nor_probes_from_the_worker() {
    // Both ends of so many are more than some systems let a process have.
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(4096).min(4096);
    assert!(wanted > CONNECTIONS as u64 + 200, "this test needs more open files than {wanted}");
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).unwrap();
    }
    let stage = Stage::new("").await;
    until("it is ready", async || stage.probe().await.starts_with("HTTP/1.1 200 ")).await;
    let mut held = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(&stage.address).await.unwrap();
        // Some say nothing, some begin, some ask and never read.
        let begin: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /readyz HTTP/1.1\r\nhost: local",
            _ => b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        let _ = stream.write_all(begin).await;
        held.push(stream);
        if number % 100 == 0 {
            let descriptors = stage.descriptors();
            assert!(descriptors < DESCRIPTORS - 50, "{descriptors} descriptors are open");
        }
    }
    // While they stay open the work goes on, and who asks at once is answered.
    stage.work(50).await;
    assert!(stage.probe().await.starts_with("HTTP/1.1 200 "));
    let descriptors = stage.descriptors();
    assert!(descriptors < DESCRIPTORS - 50, "{descriptors} descriptors are open");
    drop(held);
    assert!(stage.probe().await.starts_with("HTTP/1.1 200 "));
    stage.work(10).await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plain_question_of_this_machine_gets_no_page() {
    let stage = Stage::new("hosts = [\"sluice.example\"]\n").await;
    let huge = format!("GET /readyz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let many = format!("GET /readyz HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(500));
    let ask = |more: &str| format!("GET /healthz HTTP/1.1\r\n{more}\r\n");
    let body = "POST /readyz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello";
    let chunked =
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for (what, bytes, status) in [
        ("a plain one", ask("host: localhost\r\n"), "200"),
        ("with its port", ask(&format!("host: {}\r\n", stage.address)), "200"),
        ("of IPv6", ask("host: [::1]:9470\r\n"), "200"),
        ("by a name of the configuration", ask("host: sluice.example\r\n"), "200"),
        ("without a host, of HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n".to_owned(), "200"),
        ("another name", ask("host: evil.example\r\n"), "421"),
        ("a name that begins like ours", ask("host: localhost.evil.example:9470\r\n"), "421"),
        (
            "another name in the line",
            "GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
            "421",
        ),
        ("two names", ask("host: localhost\r\nhost: evil.example\r\n"), "400"),
        ("a page of elsewhere", ask("host: localhost\r\norigin: https://evil.example\r\n"), "403"),
        ("a page without an origin", ask("host: localhost\r\norigin: null\r\n"), "403"),
        ("a body", body.to_owned(), "413"),
        ("a body in chunks", chunked.to_owned(), "413"),
        ("another method", "DELETE /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "405"),
        ("a long head", huge, "431"),
        ("many headers", many, "431"),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
        ("no HTTP", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), ""),
    ] {
        let said = stage.says(bytes.as_bytes(), false).await.unwrap_or_else(|| panic!("{what}: it stays open"));
        if status.is_empty() {
            assert!(!said.contains(" 200 "), "{what}: {said}");
        } else {
            assert!(
                said.starts_with(&format!("HTTP/1.1 {status} ")) || said.starts_with(&format!("HTTP/1.0 {status} ")),
                "{what}: {said}"
            );
        }
        assert!(!said.to_lowercase().contains("access-control"), "{what}: {said}");
    }
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    assert!(!stage.says(&hello, false).await.unwrap().contains(" 200 "), "TLS");
    // One that has said all may still read; one that asks twice is answered once.
    let plain = ask("host: localhost\r\n");
    assert!(stage.says(plain.as_bytes(), true).await.unwrap().ends_with("\r\n\r\nok\n"));
    let twice = stage.says(plain.repeat(2).as_bytes(), false).await.unwrap();
    assert_eq!(twice.matches("HTTP/1.1 200").count(), 1, "{twice}");
    // One that begins and goes on a byte at a time is not waited for.
    let mut slow = TcpStream::connect(&stage.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.unwrap();
    let dripped = tokio::time::timeout(Duration::from_secs(40), async {
        while slow.write_all(b"y").await.is_ok() {
            clock::pace(Duration::from_millis(100)).await;
        }
    });
    dripped.await.expect("it is closed");
    stage.stop().await;
}
