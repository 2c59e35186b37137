//! A worker with its dashboard and API, and a client of them that speaks plain HTTP.

use super::program::{Program, text};
use super::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Child;

/// A worker that serves pages, killed when it is dropped.
pub struct Site {
    child: Child,
    said: tempfile::NamedTempFile,
    /// Where it listens.
    pub address: String,
}

/// The reply to a request.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Site {
    /// Starts a worker that listens on a port of its own, and waits until it says which.
    pub async fn start(program: &Program, variables: &[(&str, &str)]) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut command = program.command(&["worker"]);
        command.stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap());
        command.envs(variables.iter().copied());
        let child = command.spawn().unwrap();
        let address = || {
            let said = text(&std::fs::read(said.path()).unwrap());
            let (_, rest) = said.split_once("http.listen=")?;
            Some(rest.split_once(char::is_whitespace)?.0.to_owned())
        };
        until("the worker says where it listens", async || address().is_some()).await;
        let address = address().unwrap();
        Self { child, said, address }
    }

    /// What it has logged.
    pub fn said(&self) -> String {
        text(&std::fs::read(self.said.path()).unwrap())
    }

    /// A request with these headers, one in a line.
    pub async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        exchange(&self.address, method, path, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", "").await
    }

    /// A change by the API.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, "content-type: application/json\r\n", &body.to_string()).await
    }

    /// A form, as a browser sends it from a page of this server.
    pub async fn submit(&self, path: &str, form: &str, headers: &str) -> Reply {
        let origin = format!("origin: http://{}\r\nsec-fetch-site: same-origin\r\n{headers}", self.address);
        let headers = format!("content-type: application/x-www-form-urlencoded\r\n{origin}");
        self.ask("POST", path, &headers, form).await
    }

    /// Waits until a change of many jobs is over, and returns it.
    pub async fn task(&self, task: &Value) -> Value {
        let path = format!("/api/v1/tasks/{}", task["task"]);
        until("the change is made", async || self.get(&path).await.json()["state"] != "running").await;
        self.get(&path).await.json()
    }

    /// Asks it to stop, waits until it has, and returns what it has logged.
    pub async fn stop(mut self) -> String {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "{}", self.said());
        self.said()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the worker said:\n{}", self.said());
        }
    }
}

/// One request to a server, and its reply.
pub async fn exchange(address: &str, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length =
        if body.is_empty() && method == "GET" { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{length}{headers}connection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Some servers leave the connection open; one that refuses a body may close it before it has read that.
    while !is_complete(&answer) {
        if !matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
            break;
        }
    }
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { whole(body) } else { body.to_owned() };
    Reply { status, head: head.to_owned(), body }
}

/// Whether a reply is there with the whole body that its head announces.
fn is_complete(answer: &[u8]) -> bool {
    let answer = String::from_utf8_lossy(answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

/// A body that came in chunks.
fn whole(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        if size == 0 {
            break;
        }
        body.push_str(&rest[..size]);
        chunks = rest[size..].trim_start_matches("\r\n");
    }
    body
}
