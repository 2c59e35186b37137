//! A collector of traces that does with each message as a test says, and a reader of what came. The reader knows
//! nothing of the program's own writer: it takes any message of Protocol Buffers apart.

use super::inbox::Reply;
use super::program::text;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Export {
    /// The first line and the headers.
    pub head: String,
    pub body: Vec<u8>,
}

/// A span that came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: u64,
    pub started_ms: u64,
    pub ended_ms: u64,
    /// The code of its status: 2 is a failure.
    pub status: u64,
    /// Values as texts.
    pub attributes: BTreeMap<String, String>,
    /// Those of the program that sent it.
    pub resource: BTreeMap<String, String>,
}

impl Told {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// A collector; it stops when it is dropped.
pub struct Collector {
    address: String,
    exports: Arc<Mutex<Vec<Export>>>,
    server: JoinHandle<()>,
}

impl Collector {
    /// `script` says what to do with each message, by how many came before it.
    pub async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let exports: Arc<Mutex<Vec<Export>>> = Arc::default();
        let (script, noted) = (Arc::new(script), Arc::clone(&exports));
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (script, noted) = (Arc::clone(&script), Arc::clone(&noted));
                tokio::spawn(async move {
                    let Some(export) = read(&mut stream).await else { return };
                    let reply = {
                        let mut noted = noted.lock().unwrap();
                        noted.push(export);
                        script(noted.len() - 1)
                    };
                    reply.send(stream).await;
                });
            }
        });
        Self { address, exports, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn exports(&self) -> Vec<Export> {
        self.exports.lock().unwrap().clone()
    }

    /// The spans of all messages.
    pub fn spans(&self) -> Vec<Told> {
        self.exports().iter().flat_map(|export| spans(&export.body)).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn read(stream: &mut TcpStream) -> Option<Export> {
    let mut heard = Vec::new();
    let mut piece = [0; 8192];
    loop {
        if let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = text(&heard[..end]);
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let body = &heard[end + 4..];
            if length.is_some_and(|length: usize| body.len() >= length) {
                return Some(Export { head, body: body.to_vec() });
            }
        }
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        heard.extend_from_slice(&piece[..count]);
    }
}

/// The value of a field.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(&self) -> u64 {
        let Value::Number(number) = self else { panic!("bytes in place of a number") };
        *number
    }

    fn bytes(&self) -> &'a [u8] {
        let Value::Bytes(bytes) = self else { panic!("a number in place of bytes") };
        bytes
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }

    fn id(&self) -> String {
        self.bytes()
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for place in 0.. {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            break;
        }
    }
    number
}

/// The fields of a message, by their numbers.
fn fields(mut rest: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut rest)),
            1 => {
                let (eight, after) = rest.split_first_chunk().unwrap();
                rest = after;
                Value::Number(u64::from_le_bytes(*eight))
            }
            2 => {
                let length = usize::try_from(varint(&mut rest)).unwrap();
                let (bytes, after) = rest.split_at(length);
                rest = after;
                Value::Bytes(bytes)
            }
            5 => {
                let (four, after) = rest.split_first_chunk().unwrap();
                rest = after;
                Value::Number(u64::from(u32::from_le_bytes(*four)))
            }
            kind => panic!("no wire type: {kind}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn value(message: &[u8]) -> String {
    let fields = fields(message);
    let [(kind, value)] = fields.as_slice() else { panic!("not one value: {message:?}") };
    match kind {
        1 => value.text(),
        2 => (value.number() == 1).to_string(),
        3 => value.number().cast_signed().to_string(),
        4 => f64::from_bits(value.number()).to_string(),
        5 => self::fields(value.bytes()).iter().map(|(_, one)| self::value(one.bytes())).collect::<Vec<_>>().join(","),
        kind => panic!("no kind of value: {kind}"),
    }
}

/// The attributes in a message that has them in this field.
fn attributes(message: &[u8], field: u64) -> BTreeMap<String, String> {
    let pairs = fields(message).into_iter().filter(|(number, _)| *number == field);
    pairs
        .map(|(_, pair)| {
            let pair = fields(pair.bytes());
            (pair[0].1.text(), value(pair[1].1.bytes()))
        })
        .collect()
}

fn span(message: &[u8], resource: &BTreeMap<String, String>) -> Told {
    let mut told = Told { attributes: attributes(message, 9), resource: resource.clone(), ..Told::default() };
    for (number, value) in fields(message) {
        match number {
            1 => told.trace = value.id(),
            2 => told.id = value.id(),
            4 => told.parent = value.id(),
            5 => told.name = value.text(),
            6 => told.kind = value.number(),
            7 => told.started_ms = value.number() / 1_000_000,
            8 => told.ended_ms = value.number() / 1_000_000,
            15 => told.status = fields(value.bytes()).iter().map(|(_, code)| code.number()).sum(),
            _ => {}
        }
    }
    told
}

/// The spans of a message.
pub fn spans(message: &[u8]) -> Vec<Told> {
    let mut spans = Vec::new();
    for (_, of_resource) in fields(message) {
        let mut resource = BTreeMap::new();
        for (number, part) in fields(of_resource.bytes()) {
            match number {
                1 => resource = attributes(part.bytes(), 1),
                2 => spans.extend(
                    fields(part.bytes())
                        .iter()
                        .filter(|(number, _)| *number == 2)
                        .map(|(_, message)| span(message.bytes(), &resource)),
                ),
                _ => {}
            }
        }
    }
    spans
}
