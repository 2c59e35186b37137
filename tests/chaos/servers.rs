//! The servers of a run: a primary, a standby that streams from it, and perhaps a backup.
//!
//! In a synchronous run every commit waits for the standby, so a promotion loses nothing. In an asynchronous one the
//! standby may be cut off some time before, and a backup may be restored: then the database goes back in time.

use super::diary::{Window, now_ms};
use crate::support::server::Server;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

/// The login of all workers. It is not the owner of anything, so that it can be refused.
pub const LOGIN: &str = "worker";
/// What a standby may be behind without being cut off, in milliseconds.
const BEHIND: i64 = 2_000;
/// For how long the former primary is dead before another one serves, at least: what it has said has arrived by then.
const GAP: Duration = Duration::from_millis(400);
/// No statement on the servers takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way to refuse a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The role may not log in.
    NoLogin,
    /// It may have no connections.
    Limit,
    /// `pg_hba.conf` rejects it.
    Hba,
}

pub struct Servers {
    pub synchronous: bool,
    primary: Arc<Server>,
    standby: Option<Arc<Server>>,
    building: Option<JoinHandle<Option<Server>>>,
    build_after: Instant,
    /// A backup that is being made, and when that was begun.
    backup: Option<(i64, JoinHandle<Option<Server>>)>,
    /// Since when nothing arrives at the standby any more.
    cut_off: Option<i64>,
    recovering: Option<JoinHandle<()>>,
    down: bool,
}

/// Statements of an administrator. They wait for no standby, and write where others may not.
async fn execute(server: &Server, statements: &[&'static str]) -> Result<(), sqlx::Error> {
    let as_ever = [("synchronous_commit", "local"), ("default_transaction_read_only", "off")];
    let options: PgConnectOptions = server.socket().username("sluice").database("sluice").options(as_ever);
    let executing = async {
        let mut connection = options.connect().await?;
        for statement in statements {
            sqlx::raw_sql(*statement).execute(&mut connection).await?;
        }
        connection.close().await
    };
    timeout(PATIENCE, executing).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

impl Servers {
    /// A primary with an empty database.
    pub async fn new(synchronous: bool) -> Self {
        let primary = spawn_blocking(Server::primary).await.unwrap();
        let mut first = primary.socket().username("sluice").database("postgres").connect().await.unwrap();
        sqlx::raw_sql("create database sluice").execute(&mut first).await.unwrap();
        first.close().await.unwrap();
        Self {
            synchronous,
            primary: Arc::new(primary),
            standby: None,
            building: None,
            build_after: Instant::now(),
            backup: None,
            cut_off: None,
            recovering: None,
            down: false,
        }
    }

    /// The first standby, when the schema is there.
    pub async fn complete(&mut self) {
        execute(&self.primary, &["create role worker login in role sluice_worker"]).await.unwrap();
        if self.synchronous {
            let wait = ["alter system set synchronous_standby_names = '*'", "select pg_reload_conf()"];
            execute(&self.primary, &wait).await.unwrap();
        }
        let primary = Arc::clone(&self.primary);
        self.standby = Some(Arc::new(spawn_blocking(move || primary.standby()).await.unwrap()));
    }

    /// How the database is reached now.
    pub fn options(&self) -> PgConnectOptions {
        self.primary.socket().username("sluice").database("sluice")
    }

    /// How the standby is reached, when there is one.
    pub fn standby_options(&self) -> Option<PgConnectOptions> {
        self.standby.as_ref().map(|standby| standby.socket())
    }

    /// Builds a standby where there is none.
    pub async fn tend(&mut self) {
        if let Some(building) = self.building.take_if(|building| building.is_finished()) {
            self.standby = building.await.unwrap().map(Arc::new);
            self.build_after = Instant::now() + Duration::from_secs(1);
        }
        let busy = self.building.is_some() || self.recovering.is_some() || self.down;
        if self.standby.is_none() && !busy && Instant::now() >= self.build_after {
            let primary = Arc::clone(&self.primary);
            self.building = Some(spawn_blocking(move || {
                let standby = primary.standby_to_be().ok()?;
                standby.start();
                Some(standby)
            }));
        }
    }

    /// The primary stops without a good-bye. Whether it was up.
    pub async fn crash(&mut self) -> bool {
        self.recovered().await;
        // Every commit waits for the standby that is being made of this one: it would never be ready on a loaded
        // machine.
        if self.synchronous && self.standby.is_none() {
            return false;
        }
        if std::mem::replace(&mut self.down, true) {
            return false;
        }
        let primary = Arc::clone(&self.primary);
        spawn_blocking(move || primary.crash()).await.unwrap();
        true
    }

    /// It begins to come back, if it is down.
    pub fn recover(&mut self) {
        if self.down && self.recovering.is_none() {
            let primary = Arc::clone(&self.primary);
            self.recovering = Some(spawn_blocking(move || primary.start()));
        }
    }

    /// Waits until one that was to come back is back. Whether there was one.
    pub async fn recovered(&mut self) -> bool {
        let Some(recovering) = self.recovering.take() else { return false };
        recovering.await.unwrap();
        self.down = false;
        true
    }

    /// Nothing arrives at the standby any more, and commits do not wait for it.
    pub async fn cut_off(&mut self) -> bool {
        let Some(standby) = self.standby.clone().filter(|_| !self.synchronous) else { return false };
        let since = now_ms();
        let alone = ["alter system set primary_conninfo = ''", "select pg_reload_conf()"];
        if execute(&standby, &alone).await.is_err() {
            return false;
        }
        self.cut_off = Some(since);
        true
    }

    /// The primary dies and the standby takes over; returns the time that may be lost with it.
    pub async fn promote(&mut self) -> Option<Window> {
        let standby = self.standby.take()?;
        let from = self.cut_off.take().unwrap_or_else(now_ms) - BEHIND;
        self.bury().await;
        let next = Arc::clone(&standby);
        spawn_blocking(move || next.promote()).await.unwrap();
        self.primary = standby;
        self.lift().await;
        Some(Window { from, until: now_ms() })
    }

    /// Begins a backup.
    pub fn back_up(&mut self) {
        let primary = Arc::clone(&self.primary);
        self.backup = Some((now_ms(), spawn_blocking(move || primary.backup().ok())));
    }

    /// The database goes back to the backup; returns the time that is lost.
    pub async fn restore(&mut self) -> Option<Window> {
        let (from, backup) = self.backup.take()?;
        let backup = Arc::new(backup.await.unwrap()?);
        self.bury().await;
        if let Some(standby) = self.standby.take() {
            spawn_blocking(move || standby.end()).await.unwrap();
        }
        self.cut_off = None;
        let next = Arc::clone(&backup);
        spawn_blocking(move || next.start()).await.unwrap();
        self.primary = backup;
        self.lift().await;
        Some(Window { from, until: now_ms() })
    }

    /// The end of a primary. A standby that is being made of it comes to nothing.
    async fn bury(&mut self) {
        self.recovered().await;
        if let Some(building) = self.building.take() {
            let _ = building.await;
        }
        let former = Arc::clone(&self.primary);
        spawn_blocking(move || former.end()).await.unwrap();
        self.down = false;
        tokio::time::sleep(GAP).await;
    }

    /// The database takes no writes any more.
    pub async fn make_read_only(&self) -> bool {
        let statements = ["alter system set default_transaction_read_only = on", "select pg_reload_conf()"];
        execute(&self.primary, &statements).await.is_ok()
    }

    /// The workers' login is refused, and what they have is ended.
    pub async fn refuse(&self, how: Refusal) -> bool {
        let refuse = match how {
            Refusal::NoLogin => "alter role worker nologin",
            Refusal::Limit => "alter role worker connection limit 0",
            Refusal::Hba => {
                let file = self.primary.hba_file();
                let lines = std::fs::read_to_string(&file).unwrap();
                std::fs::write(&file, format!("local all {LOGIN} reject\n{lines}")).unwrap();
                "select pg_reload_conf()"
            }
        };
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'worker'";
        execute(&self.primary, &[refuse, end]).await.is_ok()
    }

    /// Nothing is refused any more.
    pub async fn lift(&self) -> bool {
        let file = self.primary.hba_file();
        let lines = std::fs::read_to_string(&file).unwrap();
        let mut others: Vec<&str> = lines.lines().filter(|line| !line.starts_with("local all worker")).collect();
        others.push("");
        std::fs::write(&file, others.join("\n")).unwrap();
        let statements = [
            "alter system reset default_transaction_read_only",
            "select pg_reload_conf()",
            "alter role worker login connection limit -1",
        ];
        execute(&self.primary, &statements).await.is_ok()
    }
}
