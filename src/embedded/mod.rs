//! A private Postgres for users who have not set one up: a small supervisor around the system's own `initdb` and
//! `postgres`.
//!
//! It is durable (fsync on unless asked otherwise), reachable only through a Unix socket in a 0700 directory, and never
//! runs as root. Several processes may use the same one: each holds a shared lock on `users.lock`, and the last one to
//! leave stops the server. A process that is killed leaves the server running, and the next one to start adopts it. A
//! server that crashed is started again, by the next process or by a [`Keeper`], and recovers by itself.
//!
//! Like `psql`, it reads the environment itself: `SLUICE_PG_BIN` and `PATH` say where the programs are.
//!
//! Layout of the data directory: `data/` (the cluster), `run/` (the socket), `postgres.log`, `start.lock`
//! (held while starting or stopping), `users.lock`.

mod binaries;
mod client;
mod error;
mod keeper;
mod lock;
mod pid_file;
mod place;
mod server_user;

pub use binaries::MINIMUM_MAJOR;
pub use client::client_program;
pub use error::EmbeddedError;
pub use keeper::Keeper;

use crate::store::private;
use error::io_error;
use lock::Lock;
use pid_file::{PidFile, Status};
use place::{Place, is_alive};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The superuser of the private cluster. The mode of the socket's directory keeps other users out.
const ROLE: &str = "sluice";
/// Names the socket file; nothing listens on TCP.
const PORT: u16 = 5432;
/// How often conditions outside our process are polled.
const POLL: Duration = Duration::from_millis(10);
/// How long recovery after a crash may take. Replaying the log takes seconds; this limit only catches a server that
/// hangs.
const START_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a fast shutdown may take: it writes one checkpoint.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

/// The kind of private Postgres to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of all its files; created when missing.
    pub data_dir: PathBuf,
    /// Whether commits survive a crash of the machine. Off only for throw-away clusters.
    pub fsync: bool,
    /// Connections that the server accepts. This holds when this call starts the server, not when it adopts a running
    /// one.
    pub max_connections: u32,
}

/// The private Postgres, in use by this process. Dropping it without [`stop`](Self::stop) asks the server to stop
/// when no other process uses it, without waiting for that.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    place: Place,
    socket_dir: PathBuf,
    /// `None` once this process has left.
    users_lock: Option<Lock>,
}

impl EmbeddedPostgres {
    /// Finds, initialises, starts or adopts the server of `options.data_dir`, and makes sure that the database
    /// `sluice` exists.
    pub async fn start(options: &Options) -> Result<Self, EmbeddedError> {
        let place = Place::prepare(&options.data_dir).await?;
        // Held until this function returns: one process at a time starts or stops.
        let start_lock = place.lock_start().await?;
        let users_lock = Lock::shared(place.open_lock("users.lock")?)
            .map_err(|e| io_error("lock", &place.path("users.lock"))(e.into()))?;
        // In this order, so that a cancelled start releases the lock before it stops the server that it started.
        let mut starting = (start_lock, Self { socket_dir: place.socket_dir()?, place, users_lock: Some(users_lock) });
        let started = starting.1.start_locked(options).await;
        let (start_lock, postgres) = starting;
        drop(start_lock);
        started.map(|()| postgres)
    }

    /// Connection options for `database` of this server.
    #[must_use]
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(PORT)
            .username(ROLE)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .application_name("sluice")
            .disable_statement_logging()
    }

    /// The same, as a URL that `psql` and sqlx understand.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(&self.socket_dir, database)
    }

    /// The URL that the server of this folder has, whether it runs or not; `None`: there is none yet.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub async fn url_in(data_dir: &Path, database: &str) -> Result<Option<String>, EmbeddedError> {
        if !data_dir.join("start.lock").exists() {
            return Ok(None);
        }
        let place = Place::prepare(data_dir).await?;
        // The running server's own record counts: another version may have put its socket elsewhere.
        let told = place.running().and_then(|running| running.socket_dir);
        Ok(Some(url(&told.map_or_else(|| place.socket_dir(), Ok)?, database)))
    }

    /// Whether the server of this folder runs.
    pub async fn runs_in(data_dir: &Path) -> bool {
        let place = async { Place::prepare(data_dir).await.ok()?.running() };
        data_dir.join("start.lock").exists() && place.await.is_some()
    }

    /// Leaves the server. The last process to leave stops it and waits until it is gone.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        let start_lock = self.place.lock_start().await?;
        let Some(users_lock) = self.users_lock.take() else { return Ok(()) };
        if users_lock.try_alone().is_err() {
            return Ok(());
        }
        let Some(pid) = self.place.signal_stop() else { return Ok(()) };
        let deadline = Instant::now() + STOP_TIMEOUT;
        while PidFile::read(&self.place.cluster()).is_some_and(|file| file.pid == pid) && is_alive(pid) {
            if Instant::now() > deadline {
                return Err(EmbeddedError::TimedOut { what: "stop", limit: STOP_TIMEOUT, log: self.place.log() });
            }
            tokio::time::sleep(POLL).await;
        }
        if self.socket_dir != self.place.path("run") {
            // The short directory under /tmp is made again when it is needed; leaving it behind does no harm.
            let _ = std::fs::remove_dir(&self.socket_dir);
        }
        drop(start_lock);
        Ok(())
    }

    /// Stops the server of a folder whose users were all killed. Without such a server it does nothing.
    pub async fn stop_abandoned(data_dir: &Path) -> Result<(), EmbeddedError> {
        if !data_dir.join("start.lock").exists() {
            return Ok(());
        }
        let place = Place::prepare(data_dir).await?;
        let Some(running) = place.running() else { return Ok(()) };
        let socket_dir = running.socket_dir.map_or_else(|| place.socket_dir(), Ok)?;
        // Not taken: another process may hold it alone for as long as it stops the server, and `stop` waits for that.
        let users_lock = Some(Lock::not_taken(place.open_lock("users.lock")?));
        Self { place, socket_dir, users_lock }.stop().await
    }

    async fn start_locked(&mut self, options: &Options) -> Result<(), EmbeddedError> {
        if !self.place.cluster().join("PG_VERSION").exists() {
            let binaries = self.place.find_binaries().await?;
            self.place.initdb(&binaries, options.fsync).await?;
        }
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.place.running() {
                None => self.place.spawn(&self.socket_dir, options).await?,
                Some(file) => {
                    // The running server's own record counts: another version may have put its socket elsewhere.
                    if let Some(socket_dir) = &file.socket_dir {
                        self.socket_dir.clone_from(socket_dir);
                    }
                    if file.status == Status::Ready && self.is_answering().await? {
                        break;
                    }
                }
            }
            if Instant::now() > deadline {
                return Err(EmbeddedError::TimedOut { what: "start", limit: START_TIMEOUT, log: self.place.log() });
            }
            tokio::time::sleep(POLL).await;
        }
        self.ensure_database(options.fsync).await
    }

    /// Whether the server accepts connections; an error only when waiting would not help.
    async fn is_answering(&self) -> Result<bool, EmbeddedError> {
        match self.connect_options("postgres").connect().await {
            Ok(connection) => {
                connection.close().await?;
                Ok(true)
            }
            // 57P03: starting up, shutting down or recovering. I/O: the socket is not there (any more).
            Err(sqlx::Error::Io(_)) => Ok(false),
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("57P03") => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    async fn ensure_database(&self, durable: bool) -> Result<(), EmbeddedError> {
        let mut connection = self.connect_options("postgres").connect().await?;
        if durable && !private::is_durable(&mut connection).await? {
            return Err(EmbeddedError::NotDurable(self.place.dir.clone()));
        }
        private::make_database(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        let Some(users_lock) = self.users_lock.take() else { return };
        // A process that holds the start lock now is about to use the server: leave the server to it.
        let Ok(start_lock) = self.place.open_lock("start.lock") else { return };
        let start_lock = Lock::not_taken(start_lock);
        if start_lock.try_alone().is_ok() && users_lock.try_alone().is_ok() {
            self.place.signal_stop();
        }
    }
}

fn url(socket_dir: &Path, database: &str) -> String {
    let socket_dir = percent_encode(&socket_dir.to_string_lossy());
    format!("postgresql:///{}?host={socket_dir}&port={PORT}&user={ROLE}", percent_encode(database))
}

fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
