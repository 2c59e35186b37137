//! Postgres servers of a test's own that replicate: a primary and its standbys, on loopback.

use super::postgres::{Watchdog, temporary_dir};
use sqlx::postgres::PgConnectOptions;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A server; stopped and removed when it is dropped.
pub struct Server {
    dir: PathBuf,
    pub port: u16,
    _watchdog: Watchdog,
}

/// PostgreSQL does not run as root.
fn as_server(mut command: Command) -> Command {
    if rustix::process::geteuid().is_root() {
        let number = |flag: &str| {
            let found = Command::new("id").args([flag, "postgres"]).output().unwrap();
            String::from_utf8(found.stdout).unwrap().trim().parse().unwrap()
        };
        command.uid(number("-u")).gid(number("-g"));
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn try_run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let found = Command::new("pg_config").arg("--bindir").output().unwrap();
    let bin = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
    try_other(&bin.join(program), arguments)
}

fn run_other(program: &str, arguments: &[&str]) {
    try_other(Path::new(program), arguments).unwrap_or_else(|said| panic!("{said}"));
}

fn try_other(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = as_server(command).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let said = || format!("{} {arguments:?}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said()) }
}

fn run(program: &str, arguments: &[&str]) {
    try_run(program, arguments).unwrap_or_else(|said| panic!("{said}"));
}

impl Server {
    fn place() -> Self {
        let dir = temporary_dir();
        if rustix::process::geteuid().is_root() {
            let owner = Command::new("chown").arg("postgres").arg(&dir).status().unwrap();
            assert!(owner.success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let watchdog = Watchdog::over(&dir);
        Self { dir, port, _watchdog: watchdog }
    }

    fn data(&self) -> String {
        self.dir.join("data").display().to_string()
    }

    /// Starts it, also after a crash, and waits until it takes connections.
    pub fn start(&self) {
        let settings = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories={} -c max_connections=100 -c \
             fsync=off -c track_commit_timestamp=on -c wal_keep_size=256MB -c wal_retrieve_retry_interval=200ms",
            self.port,
            self.dir.display()
        );
        let log = self.dir.join("log").display().to_string();
        run("pg_ctl", &["-D", &self.data(), "-s", "-w", "-l", &log, "-o", &settings, "start"]);
    }

    /// An empty server that others may replicate.
    pub fn primary() -> Self {
        let server = Self::place();
        run("initdb", &["-D", &server.data(), "-U", "sluice", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        server.start();
        server
    }

    /// A standby that streams from this one.
    pub fn standby(&self) -> Self {
        let server = self.copy(&["-R"]).unwrap_or_else(|said| panic!("{said}"));
        server.start();
        server
    }

    /// A base backup of it, not started yet. Fails when this one goes away meanwhile.
    pub fn backup(&self) -> Result<Self, String> {
        self.copy(&[])
    }

    /// A base backup that will stream from this one, not started yet.
    pub fn standby_to_be(&self) -> Result<Self, String> {
        self.copy(&["-R"])
    }

    fn copy(&self, how: &[&str]) -> Result<Self, String> {
        let server = Self::place();
        let (data, port) = (server.data(), self.port.to_string());
        let from =
            ["-D", &data, "-X", "stream", "-c", "fast", "--no-sync", "-h", "127.0.0.1", "-p", &port, "-U", "sluice"];
        try_run("pg_basebackup", &[&from[..], how].concat())?;
        Ok(server)
    }

    /// Where its `pg_hba.conf` is.
    pub fn hba_file(&self) -> PathBuf {
        self.dir.join("data/pg_hba.conf")
    }

    /// The same, and it keeps its WAL in an archive from which others can be restored.
    pub fn archiving() -> Self {
        let server = Self::primary();
        server.stop();
        run_other("mkdir", &[&server.archive()]);
        let settings = format!("\narchive_mode = on\narchive_command = 'cp %p {}/%f'\n", server.archive());
        server.configure("postgresql.conf", &settings);
        server.start();
        server
    }

    fn archive(&self) -> String {
        self.dir.join("archive").display().to_string()
    }

    fn configure(&self, file: &str, settings: &str) {
        let path = self.dir.join("data").join(file);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, before + settings).unwrap();
    }

    /// A base backup of another server becomes one, as that was at a named point.
    pub fn restore_to(&self, origin: &Self, point: &str) {
        self.configure(
            "postgresql.auto.conf",
            &format!(
                "\nrestore_command = 'cp {}/%f %p'\nrecovery_target_name = '{point}'\n\
                 recovery_target_action = promote\narchive_mode = off\n",
                origin.archive()
            ),
        );
        self.configure("recovery.signal", "");
        self.start();
    }

    /// Keeps a copy of its files, as a snapshot of the file system does.
    pub fn take_snapshot(&self) {
        self.stop();
        run_other("cp", &["-a", &self.data(), &format!("{}.snapshot", self.data())]);
        self.start();
    }

    /// Its files are those of the snapshot again.
    pub fn bring_snapshot_back(&self) {
        self.crash();
        run_other("rm", &["-rf", &self.data()]);
        run_other("mv", &[&format!("{}.snapshot", self.data()), &self.data()]);
        self.start();
    }

    /// Writes a dump of a database.
    pub fn dump(&self, database: &str) {
        let (file, port) = (self.dir.join("dump").display().to_string(), self.port.to_string());
        run("pg_dump", &["-Fc", "-f", &file, "-h", "127.0.0.1", "-p", &port, "-U", "sluice", database]);
    }

    /// Reads the dump into an empty database.
    pub fn restore_dump(&self, database: &str) {
        let (file, port) = (self.dir.join("dump").display().to_string(), self.port.to_string());
        run("pg_restore", &["-d", database, "-h", "127.0.0.1", "-p", &port, "-U", "sluice", &file]);
    }

    /// It stops in order.
    pub fn stop(&self) {
        run("pg_ctl", &["-D", &self.data(), "-s", "-w", "-m", "fast", "stop"]);
    }

    /// It dies as in a crash.
    pub fn crash(&self) {
        run("pg_ctl", &["-D", &self.data(), "-s", "-m", "immediate", "stop"]);
    }

    /// The same for one that may be dead already.
    pub fn end(&self) {
        let _ = try_run("pg_ctl", &["-D", &self.data(), "-s", "-m", "immediate", "stop"]);
    }

    /// A standby becomes a primary of its own.
    pub fn promote(&self) {
        run("pg_ctl", &["-D", &self.data(), "-s", "-w", "promote"]);
    }

    /// Its socket, for a proxy.
    pub fn socket(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass().socket(&self.dir).port(self.port)
    }

    /// Its URL.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://sluice@127.0.0.1:{}/{database}", self.port)
    }
}
