//! A Postgres of a test's own that may be killed and comes back.

use super::postgres::{Watchdog, temporary_dir};
use rustix::process::{Pid, Signal, kill_process};
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::sync::OnceCell;

/// The files of a server, made once for the whole run: a copy takes a hundredth of the time.
struct Template {
    dir: PathBuf,
    _watchdog: Watchdog,
}

impl Template {
    /// As the service makes a server at its first start.
    async fn bare() -> &'static Self {
        static BARE: OnceCell<Template> = OnceCell::const_new();
        BARE.get_or_init(|| Self::make(false)).await
    }

    /// The same with the schema in its database.
    async fn migrated() -> &'static Self {
        static MIGRATED: OnceCell<Template> = OnceCell::const_new();
        MIGRATED.get_or_init(|| Self::make(true)).await
    }

    async fn make(with_schema: bool) -> Self {
        let dir = temporary_dir();
        let watchdog = Watchdog::over(&dir);
        let options = Options { data_dir: dir.clone(), fsync: false, max_connections: 20 };
        let postgres = EmbeddedPostgres::start(&options).await.unwrap();
        if with_schema {
            let store = Store::connect(postgres.connect_options("sluice"), 1).await.unwrap();
            store.migrate().await.unwrap();
            store.close().await;
        }
        postgres.stop().await.unwrap();
        Self { dir, _watchdog: watchdog }
    }

    /// Makes an empty folder a copy of this one, with its owner and its mode.
    fn copy_into(&self, dir: &Path) {
        let copied = Command::new("cp").arg("-a").arg(self.dir.join(".")).arg(dir).output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    }
}

/// Makes the folder one in which the service has started and stopped its server, for tests about the time after that.
pub async fn used_before(dir: &Path) {
    Template::bare().await.copy_into(dir);
}

/// The server, with the schema in its database.
pub struct OwnCluster {
    pub url: String,
    pub pool: PgPool,
    options: Options,
    /// One for each time it was started; all of them stop it.
    servers: Vec<EmbeddedPostgres>,
    _watchdog: Watchdog,
}

impl OwnCluster {
    pub async fn start() -> Self {
        let dir = temporary_dir();
        let watchdog = Watchdog::over(&dir);
        Template::migrated().await.copy_into(&dir);
        // A cluster without fsync forgets its last commits when it is killed, as the service's never does.
        let options = Options { data_dir: dir, fsync: true, max_connections: 50 };
        let postgres = EmbeddedPostgres::start(&options).await.unwrap();
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(postgres.connect_options("sluice"));
        Self { url: postgres.url("sluice"), pool, options, servers: vec![postgres], _watchdog: watchdog }
    }

    /// An immediate shutdown: the server closes connections without a word.
    pub fn kill(&self) {
        let pid_file = std::fs::read_to_string(self.options.data_dir.join("data/postmaster.pid")).unwrap();
        let server = Pid::from_raw(pid_file.lines().next().unwrap().parse().unwrap()).unwrap();
        kill_process(server, Signal::QUIT).unwrap();
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.options.data_dir.join("postgres.log")).unwrap()
    }

    /// It is there again.
    pub async fn return_of_the_server(&mut self) {
        let again = EmbeddedPostgres::start(&self.options).await.unwrap();
        assert_eq!(again.url("sluice"), self.url);
        self.servers.push(again);
    }

    pub async fn stop(self) {
        self.pool.close().await;
        for server in self.servers {
            server.stop().await.unwrap();
        }
    }
}
