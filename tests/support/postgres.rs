//! A database per test, cloned in milliseconds from a migrated template, in one throw-away cluster per run.

use super::pooler::{Pooler, REFUSES};
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgPool};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use tokio::sync::OnceCell;

const TEMPLATE: &str = "sluice_template";

/// A database of a test's own, with all migrations applied; dropped with this value.
pub struct TestDatabase {
    name: String,
    pool: PgPool,
    cluster: &'static Cluster,
}

/// A new database.
pub async fn database() -> TestDatabase {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let cluster = Cluster::get().await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    cluster.execute(format!("create database {name} template {TEMPLATE}")).await;
    let pool = PgPoolOptions::new().max_connections(8).connect_lazy_with(cluster.postgres.connect_options(&name));
    TestDatabase { name, pool, cluster }
}

impl TestDatabase {
    /// A pool of up to 8 connections, shared by all who ask.
    pub fn pool(&self) -> PgPool {
        self.pool.clone()
    }

    /// For connections and pools of another kind.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.cluster.postgres.connect_options(&self.name)
    }

    /// For other processes.
    pub fn url(&self) -> String {
        match &self.cluster.pooler {
            None => self.cluster.postgres.url(&self.name),
            Some(pooler) => pooler.url(&self.connect_options()),
        }
    }

    /// The queue in it.
    pub async fn store(&self) -> Store {
        match &self.cluster.pooler {
            None => Store::from_pool(self.pool()),
            Some(pooler) => Store::connect(pooler.options(self.connect_options()), 8).await.expect("PgBouncer"),
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // The janitor is gone only when the process ends, and then the whole cluster goes.
        let _ = self.cluster.leftovers.send(self.name.clone());
    }
}

/// The cluster of this run.
struct Cluster {
    postgres: EmbeddedPostgres,
    /// With `SLUICE_TEST_BEHIND_PGBOUNCER=1`: the pooler between the tests' stores and programs and the server.
    pooler: Option<Pooler>,
    /// Names of databases to be dropped.
    leftovers: mpsc::Sender<String>,
    _watchdog: Watchdog,
}

impl Cluster {
    async fn get() -> &'static Self {
        static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
        CLUSTER.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let dir = temporary_dir();
        let watchdog = Watchdog::over(&dir);
        let options = Options { data_dir: dir, fsync: false, max_connections: 200 };
        let postgres = EmbeddedPostgres::start(&options).await.expect("starting the cluster of the tests");
        let (leftovers, names) = mpsc::channel();
        let admin = postgres.connect_options("postgres");
        let admin_options = admin.clone();
        std::thread::spawn(move || drop_databases(&admin, &names));
        let pooler = if std::env::var("SLUICE_TEST_BEHIND_PGBOUNCER").is_ok_and(|value| value == "1") {
            Pooler::start(&admin_options, REFUSES).await
        } else {
            None
        };
        let cluster = Self { postgres, pooler, leftovers, _watchdog: watchdog };
        cluster.execute(format!("create database {TEMPLATE}")).await;
        let store = Store::connect(cluster.postgres.connect_options(TEMPLATE), 1).await.expect("the template");
        store.migrate().await.expect("the migrations apply");
        // A template can be cloned only while no session is connected to it.
        store.close().await;
        cluster
    }

    async fn execute(&self, sql: String) {
        let mut connection = self.postgres.connect_options("postgres").connect().await.expect("connecting");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a statement on databases");
        connection.close().await.expect("disconnecting");
    }
}

/// Drops databases whose tests are over. On a runtime of its own, because those of the tests come and go.
fn drop_databases(admin: &PgConnectOptions, names: &mpsc::Receiver<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for name in names {
        let dropped: Result<_, sqlx::Error> = runtime.block_on(async {
            let mut connection = admin.connect().await?;
            sqlx::query(AssertSqlSafe(format!("drop database {name} with (force)"))).execute(&mut connection).await?;
            connection.close().await
        });
        if let Err(error) = dropped {
            eprintln!("the test database {name} stays until the end of the run: {error}");
        }
    }
}

/// An empty directory for a cluster. Who makes it hands it to a [`Watchdog`].
pub fn temporary_dir() -> PathBuf {
    tempfile::Builder::new().prefix("sluice-test-").tempdir_in(place()).expect("a temporary directory").keep()
}

/// Where clusters are made: in memory where there is plenty of it. Every database of a test is some thousand files,
/// made and removed within seconds, and on a disk their names alone take a third of the server's processor time. A
/// server that is killed leaves its files there as it would on a disk.
fn place() -> PathBuf {
    /// A whole run fills less than a tenth of it.
    const PLENTY: u64 = 8 << 30;
    let in_memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(in_memory).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    let available = available.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10;
    if room.min(available) >= PLENTY { in_memory.to_owned() } else { std::env::temp_dir() }
}

/// Stops the server in a directory and removes the directory when the test process is gone, however it went, or
/// when this value is dropped.
pub struct Watchdog(Child);

impl Watchdog {
    /// Before the server is started, so that there is no moment at which nothing would clean up.
    pub fn over(dir: &Path) -> Self {
        // `cat` ends when the other end of its pipe is closed, which the kernel does for a process that was killed.
        const SCRIPT: &str = r#"
            cat > /dev/null
            if pid=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null); then
                kill -QUIT "$pid" 2> /dev/null
                tries=100
                while [ -e "$1/data/postmaster.pid" ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.05; done
            fi
            rm -rf "$1"
        "#;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "watchdog"]).arg(dir).stdin(Stdio::piped()).stdout(Stdio::null());
        // Ctrl-C on the terminal ends the tests, not their cleaner.
        command.stderr(Stdio::null()).process_group(0);
        Self(command.spawn().expect("sh"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
