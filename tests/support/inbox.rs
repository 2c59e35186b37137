//! A receiver of webhooks that does with each message as a test says.

use super::program::text;
use super::wait::PATIENCE;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Letter {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub text: String,
    pub body: Value,
    /// What the receiver did.
    pub reply: Reply,
}

impl Letter {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }

    pub fn data(&self, name: &str) -> &str {
        self.body["data"][name].as_str().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A status, further headers, and a body.
    Say(u16, String, String),
    Hang,
    Reset,
}

impl Reply {
    /// Sends it over a connection, which ends then; or lets that hang.
    pub async fn send(self, mut stream: TcpStream) {
        match self {
            Self::Say(status, headers, body) => {
                let length = body.len();
                let said = format!(
                    "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(said.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
            Self::Hang => std::future::pending().await,
            Self::Reset => {
                let _ = stream.set_zero_linger();
            }
        }
    }
}

pub fn ok() -> Reply {
    Reply::Say(200, String::new(), "ok".to_owned())
}

pub fn status(status: u16) -> Reply {
    Reply::Say(status, String::new(), "no".to_owned())
}

/// A receiver that does with each message as the test says.
pub struct Inbox {
    address: String,
    letters: Arc<Mutex<Vec<Letter>>>,
    server: JoinHandle<()>,
}

impl Inbox {
    /// `script` gets each message and how many came before it.
    pub async fn start(script: impl Fn(&Letter, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let letters: Arc<Mutex<Vec<Letter>>> = Arc::default();
        let (script, noted) = (Arc::new(script), Arc::clone(&letters));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, noted) = (Arc::clone(&script), Arc::clone(&noted));
                tokio::spawn(async move {
                    let Some((mut letter, stream)) = read(stream).await else { return };
                    let reply = {
                        let mut noted = noted.lock().unwrap();
                        letter.reply = script(&letter, noted.len());
                        noted.push(letter.clone());
                        letter.reply
                    };
                    reply.send(stream).await;
                });
            }
        });
        Self { address, letters, server }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn letters(&self) -> Vec<Letter> {
        self.letters.lock().unwrap().clone()
    }

    /// Those that it has taken.
    pub fn taken(&self) -> Vec<Letter> {
        let is_taken = |letter: &Letter| matches!(letter.reply, Reply::Say(200..=299, ..));
        self.letters().into_iter().filter(is_taken).collect()
    }

    /// The rules of which it has taken a message of this kind.
    pub fn rules(&self, kind: &str) -> BTreeSet<String> {
        let of_kind = |letter: &Letter| letter.kind() == kind;
        self.taken().iter().filter(|letter| of_kind(letter)).map(|letter| letter.data("rule").to_owned()).collect()
    }

    /// Waits until a message of this kind of each of the rules was taken.
    pub async fn until_told(&self, kind: &str, rules: &BTreeSet<String>) {
        let mut missing = rules.clone();
        let telling = async {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            while !missing.is_empty() {
                tick.tick().await;
                missing = rules - &self.rules(kind);
            }
        };
        let ended = tokio::time::timeout(PATIENCE, telling).await;
        assert!(ended.is_ok(), "no {kind} of {missing:?}");
    }

    /// No message was taken twice.
    pub fn has_nothing_double(&self) {
        let mut ids = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for letter in self.taken() {
            assert!(ids.insert(letter.id().to_owned()), "twice: {letter:?}");
            let data = &letter.body["data"];
            let key = (letter.kind().to_owned(), data["alert"].to_string(), data["reminders"].to_string());
            if data["alert"].is_number() {
                assert!(keys.insert(key), "two messages say the same: {letter:?}");
            }
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn read(mut stream: TcpStream) -> Option<(Letter, TcpStream)> {
    let mut heard = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let so_far = text(&heard);
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let path = lines.next()?.split(' ').nth(1)?.to_owned();
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers.get("content-length")?.parse().ok()?;
            if body.len() >= length {
                let text = body.to_owned();
                let body = serde_json::from_str(&text).unwrap_or(Value::Null);
                return Some((Letter { path, headers, text, body, reply: Reply::Hang }, stream));
            }
        }
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        heard.extend_from_slice(&piece[..count]);
    }
}
