//! A network between the workers and Postgres that can be cut, choked and held up.

use super::clock;
use sqlx::postgres::PgConnectOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How the network behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// It carries everything.
    Clear,
    /// Every connection is reset at once, old ones and new ones.
    Refuse,
    /// Half open: connections stay, bytes sent are swallowed and nothing comes back. When it is over they are reset, as
    /// by a router that has forgotten them.
    Blackhole,
    /// Everything stops where it is, and arrives when it is over: late, and in order.
    Stall,
    /// Everything takes so much longer.
    Delay(Duration),
}

/// Where a connection is cut, once, as soon as one comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A `COMMIT` has been carried out, and the client is not told.
    CommitAnswer,
    /// A `COMMIT` was sent and does not arrive.
    Commit,
    /// Any statement has been carried out, and the client is not told.
    Answer,
}

/// A TCP port that leads to the Unix socket of a Postgres.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    weather: Weather,
    /// Connections of an older age are reset.
    age: u64,
}

struct State {
    /// Where new connections lead.
    socket: Mutex<PathBuf>,
    /// How many there were.
    opened: AtomicU64,
    now: watch::Sender<Now>,
    armed: Mutex<Option<Moment>>,
    /// How often a connection was cut at its moment.
    struck: AtomicU64,
}

impl Proxy {
    /// To the server that these options lead to.
    pub async fn to(server: &PgConnectOptions) -> Self {
        let state = Arc::new(State {
            socket: Mutex::new(socket_of(server)),
            opened: AtomicU64::new(0),
            now: watch::Sender::new(Now { weather: Weather::Clear, age: 0 }),
            armed: Mutex::new(None),
            struck: AtomicU64::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(Arc::clone(&state), listener));
        Self { address, state, accepting }
    }

    /// For the programs that are to go through it.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@{}/{database}?sslmode=disable", self.address)
    }

    /// Its host and port, for a URL with several.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to another server. Those that there are stay with the one before.
    pub fn lead_to(&self, server: &PgConnectOptions) {
        *self.state.socket.lock().unwrap() = socket_of(server);
    }

    /// How many connections came by so far.
    pub fn opened(&self) -> u64 {
        self.state.opened.load(Ordering::Relaxed)
    }

    /// From now on.
    pub fn set(&self, weather: Weather) {
        self.state.now.send_modify(|now| {
            let survives = |weather| matches!(weather, Weather::Clear | Weather::Stall | Weather::Delay(_));
            // Into a black hole connections go as they are; out of it none comes.
            if weather == Weather::Refuse || !survives(now.weather) {
                now.age += 1;
            }
            now.weather = weather;
        });
    }

    /// Resets every connection, once.
    pub fn cut(&self) {
        self.state.now.send_modify(|now| now.age += 1);
    }

    /// Cuts the next connection at which this moment comes.
    pub fn cut_at(&self, moment: Moment) {
        *self.state.armed.lock().unwrap() = Some(moment);
    }

    /// Cuts none any more.
    pub fn cut_at_none(&self) {
        *self.state.armed.lock().unwrap() = None;
    }

    /// How many connections were cut at their moment so far.
    pub fn struck(&self) -> u64 {
        self.state.struck.load(Ordering::Relaxed)
    }
}

fn socket_of(server: &PgConnectOptions) -> PathBuf {
    let folder = server.get_socket().expect("the cluster listens on a socket");
    folder.join(format!(".s.PGSQL.{}", server.get_port()))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(state: Arc<State>, listener: TcpListener) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(carry(Arc::clone(&state), client));
    }
}

/// One connection, from its first byte to its end.
async fn carry(state: Arc<State>, client: TcpStream) {
    let born = *state.now.borrow();
    state.opened.fetch_add(1, Ordering::Relaxed);
    let socket = state.socket.lock().unwrap().clone();
    let server = match born.weather {
        Weather::Refuse => None,
        // The server is gone, and no packet says so.
        Weather::Blackhole => return swallow(&state, client, born.age).await,
        Weather::Clear | Weather::Stall | Weather::Delay(_) => UnixStream::connect(&socket).await.ok(),
    };
    if let Some(mut server) = server {
        let mut client = client;
        {
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            // Set when what the server says next is not to be told any more.
            let severed = AtomicBool::new(false);
            let up = async {
                let mut reader = Frontend::default();
                let mut buffer = vec![0; 64 << 10];
                while let Some(bytes) = read(&state, born.age, &mut from_client, &mut buffer).await {
                    match state.strikes(reader.take_in(bytes)) {
                        Some(Moment::Commit) => return,
                        Some(Moment::CommitAnswer | Moment::Answer) => severed.store(true, Ordering::SeqCst),
                        None => {}
                    }
                    if to_server.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            };
            let down = async {
                let mut buffer = vec![0; 64 << 10];
                while let Some(bytes) = read(&state, born.age, &mut from_server, &mut buffer).await {
                    if severed.load(Ordering::SeqCst) || to_client.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = up => {}
                () = down => {}
            }
        }
        let _ = client.set_zero_linger();
        return;
    }
    let _ = client.set_zero_linger();
}

/// The next bytes to be passed on; `None` when the connection is over. What arrives in a black hole is not passed on.
async fn read<'b>(
    state: &State,
    age: u64,
    from: &mut (impl AsyncRead + Unpin),
    buffer: &'b mut [u8],
) -> Option<&'b [u8]> {
    let mut now = state.now.subscribe();
    let mut read = 0;
    loop {
        let Now { weather, age: current } = *now.borrow_and_update();
        if current != age {
            return None;
        }
        match weather {
            Weather::Clear if read > 0 => return Some(&buffer[..read]),
            Weather::Delay(pause) if read > 0 => {
                tokio::select! {
                    () = clock::pace(pause) => return Some(&buffer[..read]),
                    changed = now.changed() => changed.ok()?,
                }
            }
            Weather::Stall => now.changed().await.ok()?,
            Weather::Refuse => return None,
            Weather::Clear | Weather::Delay(_) | Weather::Blackhole => {
                tokio::select! {
                    arrived = from.read(buffer) => match arrived {
                        Ok(0) | Err(_) => return None,
                        Ok(bytes) => read = bytes,
                    },
                    changed = now.changed() => changed.ok()?,
                }
            }
        }
    }
}

async fn swallow(state: &State, mut client: TcpStream, age: u64) {
    let mut buffer = vec![0; 64 << 10];
    // Ends when the client has enough or the weather changes: nothing read here is ever returned.
    let _ = read(state, age, &mut client, &mut buffer).await;
    let _ = client.set_zero_linger();
}

impl State {
    /// Whether one of these messages is the moment that was waited for.
    fn strikes(&self, seen: Seen) -> Option<Moment> {
        let mut armed = self.armed.lock().unwrap();
        let strikes = match (*armed)? {
            Moment::CommitAnswer | Moment::Commit => seen.commit,
            Moment::Answer => seen.sync,
        };
        if !strikes {
            return None;
        }
        self.struck.fetch_add(1, Ordering::Relaxed);
        armed.take()
    }
}

/// The kinds found among the messages of one read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    commit: bool,
    sync: bool,
}

/// Follows the messages of a Postgres client: a type, a length that counts itself, and so much more. The first message
/// has no type.
#[derive(Default)]
struct Frontend {
    greeted: bool,
    head: Vec<u8>,
    /// Of the message under way: the bytes still to come, and the beginning of a simple query's text.
    left: usize,
    text: Option<Vec<u8>>,
}

impl Frontend {
    fn take_in(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            if self.left > 0 {
                let (now, later) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= now.len();
                if let Some(text) = &mut self.text {
                    text.extend(now.iter().take(16 - text.len().min(16)));
                    seen.commit |= self.left == 0 && text.to_ascii_lowercase().starts_with(b"commit");
                }
                bytes = later;
                continue;
            }
            let length_at = usize::from(self.greeted);
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if self.head.len() == length_at + 4 {
                let length = u32::from_be_bytes(self.head[length_at..].try_into().unwrap());
                self.left = usize::try_from(length).unwrap().saturating_sub(4);
                let kind = self.greeted.then(|| self.head[0]);
                seen.sync |= kind == Some(b'S');
                self.text = (kind == Some(b'Q')).then(Vec::new);
                self.greeted = true;
                self.head.clear();
            }
        }
        seen
    }
}

#[test]
fn a_commit_is_found_however_the_bytes_come() {
    let mut stream = vec![0, 0, 0, 9, 0, 3, 0, 0, 0];
    stream.extend(b"Q\0\0\0\x0aBEGIN\0");
    stream.extend(b"P\0\0\0\x0bCOMMIT\0");
    stream.extend(b"S\0\0\0\x04");
    stream.extend(b"Q\0\0\0\x0bCOMMIT\0");
    for piece in [1, 2, 3, 7, 1000] {
        let mut frontend = Frontend::default();
        let seen: Vec<Seen> = stream.chunks(piece).map(|bytes| frontend.take_in(bytes)).collect();
        assert_eq!(seen.iter().filter(|seen| seen.commit).count(), 1, "{piece}");
        assert!(seen.last().unwrap().commit, "the query and not the statement that is prepared: {piece}");
        assert_eq!(seen.iter().filter(|seen| seen.sync).count(), 1, "{piece}");
    }
}
