//! A real PgBouncer in transaction mode in front of the cluster of the tests.

use super::postgres::temporary_dir;
use super::wait::PATIENCE;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Names the socket; nothing listens on TCP.
const PORT: u16 = 6432;

/// What a package's PgBouncer says to settings that it does not know: it refuses the connection.
pub const REFUSES: &str = "";
/// The setting that is often configured, for the sake of other drivers: it takes them and keeps them to itself.
pub const SWALLOWS: &str = "ignore_startup_parameters = extra_float_digits,options";

/// A PgBouncer with two server connections for each database and user; gone with this value, and when the test process
/// is.
pub struct Pooler {
    dir: PathBuf,
    keeper: Child,
}

impl Pooler {
    /// Starts one with these settings beside the usual ones. `None` only when the tests are told to do without
    /// (`SLUICE_WITHOUT_PGBOUNCER=1`), which it says.
    pub async fn start(server: &PgConnectOptions, settings: &str) -> Option<Self> {
        // Ends when the other end of its pipe is closed, which the kernel does for a process that was killed. The
        // gentler signals wait for clients, in some versions.
        const SCRIPT: &str = r#"
            "$1" "$2/pgbouncer.ini" 2> "$2/log" &
            cat > /dev/null
            kill -KILL "$!" 2> /dev/null
            wait
            rm -rf "$2"
        "#;
        let program = program()?;
        let dir = temporary_dir();
        let superuser = server.get_username();
        let socket = server.get_socket().expect("the cluster of the tests is on a socket");
        let ini = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n\
             unix_socket_dir = {dir}\npool_mode = transaction\ndefault_pool_size = 2\n\
             auth_type = trust\nauth_file = {dir}/users\nauth_user = {superuser}\n\
             auth_query = select usename::text, '' from pg_user where usename = $1\n{settings}\n",
            socket.display(),
            server.get_port(),
            dir = dir.display(),
        );
        std::fs::write(dir.join("users"), format!("\"{superuser}\" \"\"\n")).unwrap();
        std::fs::write(dir.join("pgbouncer.ini"), ini).unwrap();
        // It does not run as root either, and has to get at the server's socket: so it is the server's user.
        let owner = socket.metadata().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "keeper"]).arg(program).arg(&dir).current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if owner.uid() != rustix::process::geteuid().as_raw() {
            chown(&dir, Some(owner.uid()), Some(owner.gid())).unwrap();
            command.uid(owner.uid()).gid(owner.gid());
        }
        let pooler = Self { keeper: command.spawn().expect("sh"), dir };
        pooler.until_it_answers(server).await;
        Some(pooler)
    }

    async fn until_it_answers(&self, server: &PgConnectOptions) {
        let answering = async {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            loop {
                match self.plain(server.clone()).connect().await {
                    Ok(connection) => return connection.close().await,
                    Err(sqlx::Error::Io(_)) => tick.tick().await,
                    Err(error) => return Err(error),
                };
            }
        };
        let answered = tokio::time::timeout(PATIENCE, answering).await;
        assert!(matches!(answered, Ok(Ok(()))), "PgBouncer does not answer ({answered:?}):\n{}", self.log());
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let mut log = String::new();
        let file = std::fs::File::open(self.dir.join("log"));
        file.and_then(|mut file| file.read_to_string(&mut log)).map_or_else(|error| error.to_string(), |_| log)
    }

    /// The way through it to a database that the server has.
    pub fn options(&self, server: PgConnectOptions) -> PgConnectOptions {
        server.socket(&self.dir).port(PORT)
    }

    /// The same, with nothing that a pooler could object to.
    fn plain(&self, server: PgConnectOptions) -> PgConnectOptions {
        self.options(server).extra_float_digits(None)
    }

    /// For other processes.
    pub fn url(&self, server: &PgConnectOptions) -> String {
        let (database, user) = (server.get_database().unwrap(), server.get_username());
        format!("postgresql:///{database}?host={}&port={PORT}&user={user}", self.dir.display())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Where PgBouncer is: in the path, or where packages put it and the path of a user may not lead.
fn program() -> Option<PathBuf> {
    if std::env::var("SLUICE_WITHOUT_PGBOUNCER").is_ok_and(|value| value == "1") {
        eprintln!("SLUICE_WITHOUT_PGBOUNCER=1: nothing is tested behind a pooler");
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(usual).map(|dir| dir.join("pgbouncer")).find(|file| file.is_file());
    assert!(
        found.is_some(),
        "PgBouncer is not installed: run scripts/programs pgbouncer, or set SLUICE_WITHOUT_PGBOUNCER=1 to do without \
         the tests of poolers"
    );
    found
}
