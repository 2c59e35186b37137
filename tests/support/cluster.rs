//! A Postgres of a test's own that may be killed and comes back.

use super::postgres::{Watchdog, temporary_dir};
use rustix::process::{Pid, Signal, kill_process};
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

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
        // A cluster without fsync forgets its last commits when it is killed, as the service's never does.
        let options = Options { data_dir: dir, fsync: true, max_connections: 50 };
        let postgres = EmbeddedPostgres::start(&options).await.unwrap();
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(postgres.connect_options("sluice"));
        Store::from_pool(pool.clone()).migrate().await.unwrap();
        Self { url: postgres.url("sluice"), pool, options, servers: vec![postgres], _watchdog: watchdog }
    }

    /// An immediate shutdown: no good-bye to anybody.
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
