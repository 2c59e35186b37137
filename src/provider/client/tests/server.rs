//! A server that follows a script.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does on a connection, in this order, after it has read a request.
#[derive(Clone)]
pub(super) enum Step {
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

pub(super) fn send(text: impl AsRef<[u8]>) -> Step {
    Step::Send(text.as_ref().to_vec())
}

/// A complete HTTP answer.
pub(super) fn reply(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Step {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status} Whatever\r\n{headers}content-length: {}\r\n\r\n", body.len());
    Step::Send([head.as_bytes(), body].concat())
}

/// A server that follows a script, and the requests that it received.
pub(super) struct Server {
    pub url: String,
    heard: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<Mutex<usize>>,
}

impl Server {
    pub async fn start(script: Vec<Step>) -> Self {
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

    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn follow(mut stream: TcpStream, script: Vec<Step>, heard: Arc<Mutex<Vec<String>>>) {
    let Some(request) = read_request(&mut stream).await else { return };
    heard.lock().unwrap().push(request);
    for step in script {
        // The client may be gone already: many of these scripts test just that.
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

pub(super) async fn read_request(stream: &mut TcpStream) -> Option<String> {
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
