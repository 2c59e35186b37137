//! A private Postgres for those who have not set one up: a small supervisor around the system's own
//! `initdb` and `postgres`.
//!
//! Durable (fsync on unless asked otherwise), reachable through a Unix socket in a 0700 directory only, never
//! run as root. Several processes may use the same one: each holds a shared lock on `users.lock`, and whoever
//! leaves last stops the server. A process that is killed leaves the server running, and the next one to start
//! adopts it; a server that crashed is started again and recovers by itself.
//!
//! Layout of the data directory: `data/` (the cluster), `run/` (the socket), `postgres.log`, `start.lock`
//! (held while starting or stopping), `users.lock`.

mod binaries;
mod pid_file;
mod server_user;

pub use binaries::MINIMUM_MAJOR;

use binaries::Binaries;
use pid_file::{PidFile, Status};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};
use server_user::ServerUser;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::time::Instant;

/// The superuser of the private cluster. The socket's directory is what keeps others out.
const ROLE: &str = "sluice";
/// The database that is created when missing.
const DATABASE: &str = "sluice";
/// Names the socket file; nothing listens on TCP.
const PORT: u16 = 5432;
/// Linux allows 107 bytes for a socket's path, macOS 103: the smaller one holds everywhere.
const MAX_SOCKET_PATH: usize = 103;
/// How often conditions outside our process are looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long recovery after a crash may take. Replaying the log takes seconds; this only catches a server that hangs.
const START_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a fast shutdown may take: it writes one checkpoint.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);
/// A larger log is set aside when the server starts.
const MAX_LOG_BYTES: u64 = 8 << 20;

/// What kind of private Postgres is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything about it lives; created when missing.
    pub data_dir: PathBuf,
    /// Whether commits survive a crash of the machine. Off only for throw-away clusters.
    pub fsync: bool,
    /// Connections the server takes. Holds when this call starts the server, not when it adopts a running one.
    pub max_connections: u32,
}

/// Why the private Postgres could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No `initdb` and `postgres` were found.
    #[error(
        "no PostgreSQL server programs (initdb, postgres) were found. Install them with: {install}\n\
         or name their folder in SLUICE_PG_BIN, or give the URL of a running server in DATABASE_URL"
    )]
    MissingBinaries {
        /// The command that installs them on this system.
        install: &'static str,
    },
    /// `SLUICE_PG_BIN` names a folder without them.
    #[error("SLUICE_PG_BIN is {}, but there is no initdb and postgres in it", .0.display())]
    WrongBinariesFolder(PathBuf),
    /// Only versions were found that are too old.
    #[error("PostgreSQL {} or newer is needed; {} is version {found}", MINIMUM_MAJOR, bin.display())]
    TooOld {
        /// Where it was found.
        bin: PathBuf,
        /// Its major version.
        found: u32,
    },
    /// The data directory was made by another major version than the ones installed.
    #[error(
        "{} was made by PostgreSQL {made_by}, but only version {installed} is installed. Install PostgreSQL \
         {made_by}, or convert the directory with pg_upgrade, or choose another database.data_dir",
        data_dir.display()
    )]
    OtherMajor {
        /// The directory.
        data_dir: PathBuf,
        /// The version that made it.
        made_by: String,
        /// The version found.
        installed: u32,
    },
    /// The directory belongs to someone else.
    #[error(
        "{} belongs to user id {owner}, not to the user id {me} that runs this program: run it as that user, \
         or choose another database.data_dir",
        data_dir.display()
    )]
    OtherOwner {
        /// The directory.
        data_dir: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        me: u32,
    },
    /// The directory holds other things.
    #[error("{} is not empty and holds no private PostgreSQL: choose another database.data_dir", .0.display())]
    NotADataDirectory(PathBuf),
    /// Root runs the server as an unprivileged user, who cannot get to the directory.
    #[error(
        "PostgreSQL does not run as root, and the user id {uid} that it would run as may not enter {}: \
         choose a database.data_dir such as /var/lib/sluice/postgres",
        blocked.display()
    )]
    NotTraversable {
        /// The server's user.
        uid: u32,
        /// The first directory that stops them.
        blocked: PathBuf,
    },
    /// Root has no unprivileged user to run the server as.
    #[error("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")]
    NoServerUser,
    /// `initdb` failed.
    #[error("initdb could not make the cluster: {0}")]
    Initdb(String),
    /// The server ended instead of starting.
    #[error("postgres did not start; {} ends with:\n{tail}", log.display())]
    Exited {
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// The server did not get ready, or not get stopped, in time.
    #[error("postgres did not {what} within {limit:?}; see {}", log.display())]
    TimedOut {
        /// `start` or `stop`.
        what: &'static str,
        /// How long was waited.
        limit: Duration,
        /// Its log.
        log: PathBuf,
    },
    /// A running server was found that would lose commits in a crash, and a durable one was wanted.
    #[error("the PostgreSQL that already runs on {} has fsync off: stop it first", .0.display())]
    NotDurable(PathBuf),
    /// SQL failed.
    #[error("the private PostgreSQL: {0}")]
    Sql(#[from] sqlx::Error),
    /// A file, directory or process could not be handled.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Turns an I/O error into one that says what was tried on what.
fn io_error(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EmbeddedError + use<> {
    let path = path.to_owned();
    move |source| EmbeddedError::Io { what, path, source }
}

/// The private Postgres, in use by this process. Dropping it without [`stop`](Self::stop) asks the server to stop
/// when nobody else uses it, without waiting for that.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    place: Place,
    socket_dir: PathBuf,
    /// `None` once this process has left.
    users_lock: Option<File>,
}

impl EmbeddedPostgres {
    /// Finds, initialises, starts or adopts the server of `options.data_dir`, and makes sure that the database
    /// `sluice` exists.
    pub async fn start(options: &Options) -> Result<Self, EmbeddedError> {
        let place = Place::prepare(&options.data_dir).await?;
        // Held until this function returns: one process at a time starts or stops.
        let start_lock = place.lock_start().await?;
        let users_lock = place.open_lock("users.lock")?;
        rustix::fs::flock(&users_lock, FlockOperation::LockShared)
            .map_err(|e| io_error("lock", &place.path("users.lock"))(e.into()))?;
        let mut postgres = Self { socket_dir: place.socket_dir()?, place, users_lock: Some(users_lock) };
        let started = postgres.start_locked(options).await;
        // Before a failed start is dropped, so that the drop can take the lock and stop what was started.
        drop(start_lock);
        started.map(|()| postgres)
    }

    /// How to connect to `database` of this server.
    #[must_use]
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(PORT)
            .username(ROLE)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .application_name("sluice")
    }

    /// The same as a URL that `psql` and sqlx understand.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let socket_dir = percent_encode(&self.socket_dir.to_string_lossy());
        format!("postgresql:///{}?host={socket_dir}&port={PORT}&user={ROLE}", percent_encode(database))
    }

    /// Leaves. The last one to leave stops the server and waits until it is gone.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        let start_lock = self.place.lock_start().await?;
        let Some(users_lock) = self.users_lock.take() else { return Ok(()) };
        if !is_last_user(&users_lock) {
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
        drop(start_lock);
        Ok(())
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
                    // The running server's own word counts: another version may have put its socket elsewhere.
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

    /// Whether the server takes connections; an error only when waiting would not help.
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
        let fsync: String = sqlx::query_scalar("show fsync").fetch_one(&mut connection).await?;
        if durable && fsync != "on" {
            return Err(EmbeddedError::NotDurable(self.place.dir.clone()));
        }
        let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(DATABASE)
            .fetch_one(&mut connection)
            .await?;
        if !exists {
            sqlx::query("create database sluice").execute(&mut connection).await?;
        }
        connection.close().await?;
        Ok(())
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        let Some(users_lock) = self.users_lock.take() else { return };
        // Whoever holds the start lock now is about to use the server: leave it to them.
        let Ok(start_lock) = self.place.open_lock("start.lock") else { return };
        let nobody_starts = rustix::fs::flock(&start_lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if nobody_starts && is_last_user(&users_lock) {
            self.place.signal_stop();
        }
    }
}

/// Tries to turn our shared lock into the only one. Losing the shared lock in the attempt is fine: we are leaving.
fn is_last_user(users_lock: &File) -> bool {
    rustix::fs::flock(users_lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Whether a process with this id exists.
fn is_alive(pid: Pid) -> bool {
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// The data directory, and the user to whom it belongs.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    user: ServerUser,
}

impl Place {
    /// Makes the directory when it is missing, and checks that the server's user can use it.
    async fn prepare(dir: &Path) -> Result<Self, EmbeddedError> {
        let dir = std::path::absolute(dir).map_err(io_error("find", dir))?;
        let user = ServerUser::choose(&dir).await?;
        if !dir.exists() {
            if let Some(parent) = dir.parent() {
                std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
            }
            user.create_dir(&dir)?;
        }
        let dir = dir.canonicalize().map_err(io_error("open", &dir))?;
        if !is_empty_or_ours(&dir)? {
            return Err(EmbeddedError::NotADataDirectory(dir));
        }
        let metadata = dir.metadata().map_err(io_error("open", &dir))?;
        if metadata.uid() != user.uid {
            if !user.is_other {
                return Err(EmbeddedError::OtherOwner { data_dir: dir, owner: metadata.uid(), me: user.uid });
            }
            user.give(&dir)?;
        }
        if is_open_to_others(&metadata) {
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))
                .map_err(io_error("set the mode of", &dir))?;
        }
        user.check_traversable(&dir).await?;
        Ok(Self { dir, user })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn cluster(&self) -> PathBuf {
        self.path("data")
    }

    fn log(&self) -> PathBuf {
        self.path("postgres.log")
    }

    /// Opens a lock file, for the server's user too: the next process may not be root.
    fn open_lock(&self, name: &str) -> Result<File, EmbeddedError> {
        let path = self.path(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(io_error("open", &path))?;
        self.user.give(&path)?;
        Ok(file)
    }

    async fn lock_start(&self) -> Result<File, EmbeddedError> {
        let file = self.open_lock("start.lock")?;
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK || Instant::now() > deadline {
                return Err(io_error("lock", &self.path("start.lock"))(error.into()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(file)
    }

    /// Where the socket goes: beside the data, or to a short path when that one is too long for a socket.
    fn socket_dir(&self) -> Result<PathBuf, EmbeddedError> {
        let beside = self.path("run");
        let longest = beside.join(format!(".s.PGSQL.{PORT}.lock"));
        let dir = if longest.as_os_str().len() <= MAX_SOCKET_PATH {
            beside
        } else {
            Path::new("/tmp").join(format!("sluice-{}-{:016x}", self.user.uid, fnv1a(self.dir.as_os_str())))
        };
        match dir.symlink_metadata() {
            Err(_) => self.user.create_dir(&dir)?,
            // `/tmp` belongs to everybody: a directory that someone else put there is not ours to use.
            Ok(found) if found.is_dir() && found.uid() == self.user.uid && !is_open_to_others(&found) => {}
            Ok(found) => {
                return Err(EmbeddedError::OtherOwner { data_dir: dir, owner: found.uid(), me: self.user.uid });
            }
        }
        Ok(dir)
    }

    async fn find_binaries(&self) -> Result<Binaries, EmbeddedError> {
        let made_by = std::fs::read_to_string(self.cluster().join("PG_VERSION")).ok();
        binaries::Search::of_this_system().find(&self.cluster(), made_by.as_deref().map(str::trim)).await
    }

    /// Makes the cluster beside its final name and renames it, so that a crash never leaves half a cluster.
    async fn initdb(&self, binaries: &Binaries, fsync: bool) -> Result<(), EmbeddedError> {
        let unfinished = self.path("data.new");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished).map_err(io_error("remove", &unfinished))?;
        }
        // Both are there on every system of their kind, and both sort by bytes.
        let locale = if cfg!(target_os = "macos") { "--locale=C" } else { "--locale=C.UTF-8" };
        let initdb = binaries.dir.join("initdb");
        let mut command = tokio::process::Command::from(self.user.command(&initdb));
        command
            .arg("-D")
            .arg(&unfinished)
            .args(["-U", ROLE, "-A", "trust", "-E", "UTF8", locale, "--no-instructions"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if !fsync {
            command.arg("--no-sync");
        }
        let output = command.output().await.map_err(io_error("run", &initdb))?;
        if !output.status.success() {
            return Err(EmbeddedError::Initdb(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        std::fs::rename(&unfinished, self.cluster()).map_err(io_error("rename", &unfinished))
    }

    /// The server that runs on our data, as far as its pid file and the process table agree that there is one.
    fn running(&self) -> Option<PidFile> {
        let file = PidFile::read(&self.cluster())?;
        (is_alive(file.pid) && file.is_of(&self.cluster())).then_some(file)
    }

    /// Starts the server and returns when it says that it is ready.
    async fn spawn(&self, socket_dir: &Path, options: &Options) -> Result<(), EmbeddedError> {
        let binaries = self.find_binaries().await?;
        self.remove_stale_pid_file()?;
        let mut log = self.open_log()?;
        let log_start = log.seek(SeekFrom::End(0)).map_err(io_error("read", &self.log()))?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let (pid, exited) = self.spawn_once(&binaries, socket_dir, options, &log)?;
            while !exited.load(std::sync::atomic::Ordering::Acquire) {
                if PidFile::read(&self.cluster()).is_some_and(|f| f.pid == pid && f.status == Status::Ready) {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    return Err(EmbeddedError::TimedOut { what: "start", limit: START_TIMEOUT, log: self.log() });
                }
                tokio::time::sleep(POLL).await;
            }
            let tail = tail(&self.log(), log_start);
            // The children of a postmaster that was killed need a moment to notice and leave.
            let leftovers = tail.contains("is still in use") || tail.contains("already exists");
            if !leftovers || Instant::now() > deadline {
                return Err(EmbeddedError::Exited { log: self.log(), tail });
            }
            tokio::time::sleep(5 * POLL).await;
        }
    }

    /// Starts the server once. The flag turns true when it has ended.
    fn spawn_once(
        &self,
        binaries: &Binaries,
        socket_dir: &Path,
        options: &Options,
        log: &File,
    ) -> Result<(Pid, std::sync::Arc<std::sync::atomic::AtomicBool>), EmbeddedError> {
        let program = binaries.dir.join("postgres");
        let log_handle = || log.try_clone().map_err(io_error("open", &self.log()));
        // Quoted, because the setting is a list.
        let socket_dirs = format!("\"{}\"", socket_dir.to_string_lossy().replace('"', "\"\""));
        let mut command = self.user.command(&program);
        command.arg("-D").arg(self.cluster()).stdin(Stdio::null()).stdout(log_handle()?).stderr(log_handle()?);
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("listen_addresses", "");
        set("port", &PORT.to_string());
        set("unix_socket_directories", &socket_dirs);
        set("unix_socket_permissions", "0700");
        set("max_connections", &options.max_connections.to_string());
        set("logging_collector", "off");
        set("log_line_prefix", "%m [%p] ");
        set("log_timezone", "UTC");
        // Read by `tail` above.
        set("lc_messages", "C");
        // Sluice's statements are short, and a hardened systemd unit forbids writable executable memory.
        set("jit", "off");
        if options.fsync {
            set("fsync", "on");
        } else {
            set("fsync", "off");
            set("synchronous_commit", "off");
            set("full_page_writes", "off");
        }
        // Its own process group: Ctrl-C on the terminal must not stop the server before the worker has drained.
        command.process_group(0);
        let mut child = command.spawn().map_err(io_error("run", &program))?;
        let pid = Pid::from_child(&child);
        let exited = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        // A thread rather than a task: the server outlives any one runtime, and an unreaped server would look
        // alive to the next one.
        let flag = exited.clone();
        let data_dir = self.dir.clone();
        std::thread::Builder::new()
            .name("postgres-reaper".to_owned())
            .spawn(move || {
                let status = child.wait();
                flag.store(true, std::sync::atomic::Ordering::Release);
                tracing::debug!(data_dir = %data_dir.display(), ?status, "the private PostgreSQL has ended");
            })
            .map_err(io_error("watch", &program))?;
        Ok((pid, exited))
    }

    /// After a crash of the machine the pid in the file may belong to any other process by now, or the file may be
    /// empty: both would keep `postgres` from starting. A file that names a dead process is left to `postgres`,
    /// which checks for its orphaned children first.
    fn remove_stale_pid_file(&self) -> Result<(), EmbeddedError> {
        let path = self.cluster().join("postmaster.pid");
        let misleads = PidFile::read(&self.cluster()).is_none_or(|file| is_alive(file.pid));
        if path.exists() && misleads && self.running().is_none() {
            std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    fn open_log(&self) -> Result<File, EmbeddedError> {
        let path = self.log();
        if path.metadata().is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            std::fs::rename(&path, self.path("postgres.log.1")).map_err(io_error("rename", &path))?;
        }
        let log = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(io_error("open", &path))?;
        self.user.give(&path)?;
        Ok(log)
    }

    /// Asks for a fast shutdown: no new connections, open transactions are rolled back, a checkpoint, the end.
    fn signal_stop(&self) -> Option<Pid> {
        let pid = self.running()?.pid;
        rustix::process::kill_process(pid, Signal::INT).ok()?;
        Some(pid)
    }
}

/// Whether the directory may be taken: its owner and mode are about to change, so it had better not be `/etc`.
fn is_empty_or_ours(dir: &Path) -> Result<bool, EmbeddedError> {
    let mut entries = dir.read_dir().map_err(io_error("read", dir))?;
    Ok(entries.next().is_none() || dir.join("start.lock").exists())
}

/// Whether group or others have any right to it.
fn is_open_to_others(metadata: &std::fs::Metadata) -> bool {
    const GROUP_AND_OTHERS: u32 = 0o077;
    metadata.mode() & GROUP_AND_OTHERS > 0
}

/// Opens fail on a symbolic link: as root we must not be led out of a directory that another user owns.
fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

/// The last lines of the log after `start`.
fn tail(log: &Path, start: u64) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        // What cannot be read is missing from the message, no more.
        let _ = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut text));
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// FNV-1a: the same on every run, unlike the standard library's hasher.
fn fnv1a(text: &std::ffi::OsStr) -> u64 {
    text.as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
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
