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

fn run(program: &str, arguments: &[&str]) {
    let found = Command::new("pg_config").arg("--bindir").output().unwrap();
    let bin = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
    run_other(&bin.join(program), arguments);
}

fn run_other(program: &Path, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = as_server(command).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
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

    fn start(&self) {
        let settings = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories={} -c max_connections=50 -c fsync=off",
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
        let server = Self::place();
        let port = self.port.to_string();
        run(
            "pg_basebackup",
            &[
                "-D",
                &server.data(),
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "sluice",
            ],
        );
        server.start();
        server
    }

    /// The same, and it keeps its WAL in an archive from which others can be restored.
    pub fn archiving() -> Self {
        let server = Self::primary();
        server.stop();
        run_other(Path::new("mkdir"), &[&server.archive()]);
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

    /// A base backup, which is no server yet.
    pub fn backup(&self) -> Self {
        let copy = Self::place();
        let port = self.port.to_string();
        let from = ["-h", "127.0.0.1", "-p", &port, "-U", "sluice"];
        run("pg_basebackup", &[&["-D", &copy.data(), "-X", "none", "-c", "fast", "--no-sync"][..], &from].concat());
        copy
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
        run_other(Path::new("cp"), &["-a", &self.data(), &format!("{}.snapshot", self.data())]);
        self.start();
    }

    /// Its files are those of the snapshot again.
    pub fn bring_snapshot_back(&self) {
        self.crash();
        run_other(Path::new("rm"), &["-rf", &self.data()]);
        run_other(Path::new("mv"), &[&format!("{}.snapshot", self.data()), &self.data()]);
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
