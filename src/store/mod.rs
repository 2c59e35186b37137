//! All SQL. Knows the domain and nothing of providers.
//!
//! One file per noun; each function is one statement or one short transaction, and none is open while a provider
//! is being called. Times are the database's own: no statement takes the caller's clock where `now()` will do.

pub mod audit;
pub mod batch;
pub mod claim;
pub mod demo;
pub mod enqueue;
pub mod job;
pub mod lease;
pub mod maintenance;
pub mod pause;
pub mod private;
pub mod quota;
pub mod report;
pub mod results;
pub mod settle;
pub mod status;

use sqlx::error::DatabaseError;
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgPool};
use std::sync::LazyLock;
use std::time::Duration;

/// The migrations that this binary carries, and where the database notes which of them it has had.
///
/// The table's schema is named: a role called `sluice` (ours, in the private Postgres) finds the schema `sluice` in
/// its search path as soon as the first migration has made it, and would look for the notes there and not where they
/// were written.
static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.create_schema("sluice");
    migrator.dangerous_set_table_name("sluice.migration");
    migrator
});

/// A statement that takes longer than this is given up by the server: a hung call must not stop a worker.
const STATEMENT_TIMEOUT: &str = "60s";

/// How long a connection may take to be had.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection to one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or it refused us.
    #[error(
        "cannot connect to Postgres at {address}: {}. Is it running, and is database.url (or DATABASE_URL) right?",
        in_words(source)
    )]
    Connect {
        /// Host and database, without the password.
        address: String,
        /// What the driver said.
        source: sqlx::Error,
    },
    /// The schema is not there.
    #[error("the database has no Sluice schema yet: run `sluice migrate`")]
    NotMigrated,
    /// The schema is older than this binary.
    #[error("the database schema is at version {found}, this binary needs {needed}: run `sluice migrate`")]
    Outdated {
        /// The version found.
        found: i64,
        /// The version that this binary brings.
        needed: i64,
    },
    /// The schema is newer than this binary.
    #[error(
        "the database schema is at version {found}, newer than this binary, which knows up to {known}: upgrade sluice on this machine"
    )]
    TooNew {
        /// The version found.
        found: i64,
        /// The newest version that this binary knows.
        known: i64,
    },
    /// A migration failed; nothing of it was kept.
    #[error("migration failed: {}", migration_in_words(.0))]
    Migrate(#[from] MigrateError),
    /// A statement failed.
    #[error("{doing}: {}", in_words(source))]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// What the driver said.
        source: sqlx::Error,
    },
}

impl StoreError {
    /// Whether trying again may help: the connection broke or the server is away, rather than the data being wrong.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Sql { source, .. } => match source {
                sqlx::Error::Database(error) => {
                    let code = error.code().unwrap_or_default();
                    // Connection, resources, operator intervention, deadlock and serialisation; a cancelled statement
                    // (57014) is one of the third.
                    ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                        || code == "40P01"
                        || code == "40001"
                        || code == "55P03"
                }
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => true,
                _ => false,
            },
            Self::NotMigrated | Self::Outdated { .. } | Self::TooNew { .. } | Self::Migrate(_) => false,
        }
    }

    /// Whether the login lacks the right.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Sql { source, .. }
            | Self::Migrate(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) => {
                is_denied(source)
            }
            _ => false,
        }
    }
}

fn is_denied(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "42501")
}

/// What the server or the driver said, in one sentence. The server's detail is left out: it may quote a row, and rows
/// hold prompts.
#[must_use]
pub fn in_words(error: &sqlx::Error) -> String {
    // The driver's own words end in the line of the server's source code.
    let sqlx::Error::Database(error) = error else { return error.to_string() };
    let hint = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint);
    hint.map_or_else(|| error.message().to_owned(), |hint| format!("{} ({hint})", error.message()))
}

fn migration_in_words(error: &MigrateError) -> String {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => in_words(error),
        error => error.to_string(),
    }
}

/// Says what was being done when a statement failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, what: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Sql { doing: what, source })
    }
}

/// The state of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// What the database has; 0 when it has nothing.
    pub found: i64,
    /// What this binary brings.
    pub known: i64,
}

impl Store {
    /// Connects, without looking at the schema.
    ///
    /// # Errors
    /// [`StoreError::Connect`] when no connection is had within ten seconds.
    pub async fn connect(options: PgConnectOptions, connections: u32) -> Result<Self, StoreError> {
        let address = format!(
            "{}{}/{}",
            options.get_socket().map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string()),
            if options.get_socket().is_some() { String::new() } else { format!(":{}", options.get_port()) },
            options.get_database().unwrap_or("")
        );
        let options = options.application_name("sluice").options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("idle_in_transaction_session_timeout", "60s"),
            ("lock_timeout", "20s"),
            // Every statement here is short and runs thousands of times: compiling it never pays.
            ("jit", "off"),
            // That the schema exists already is no news.
            ("client_min_messages", "warning"),
        ]);
        // The pool would try for as long as its patience lasts and then say only that time is up. One connection of its
        // own says at once what is wrong.
        let refused = |source| StoreError::Connect { address: address.clone(), source };
        let first = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
        first.map_err(|_| refused(sqlx::Error::PoolTimedOut))?.map_err(refused)?.close().await.map_err(refused)?;
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(CONNECT_TIMEOUT);
        Ok(Self { pool: pool.connect_with(options).await.map_err(refused)? })
    }

    /// A store on a pool that exists already.
    #[must_use]
    pub fn from_pool(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The pool, for what is not a statement of this module (tests, closing).
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Waits until all connections are closed.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Brings the schema up to this binary's version, under an advisory lock, and returns what it was and is.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] when the database is ahead; then nothing is changed.
    pub async fn migrate(&self) -> Result<SchemaVersion, StoreError> {
        let before = self.schema_version().await?;
        if before.found > before.known {
            return Err(StoreError::TooNew { found: before.found, known: before.known });
        }
        MIGRATOR.run(&self.pool).await?;
        self.ensure_partitions().await?;
        Ok(before)
    }

    /// Which version the schema has and which this binary knows.
    pub async fn schema_version(&self) -> Result<SchemaVersion, StoreError> {
        let mut connection = self.pool.acquire().await.doing("connecting")?;
        let known = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
        let table = sqlx::query_scalar!("select to_regclass('sluice.migration') is not null")
            .fetch_one(&mut *connection)
            .await
            .doing("looking for the schema")?;
        if table != Some(true) {
            return Ok(SchemaVersion { found: 0, known });
        }
        let applied = connection.list_applied_migrations(&MIGRATOR.table_name).await.map_err(|error| match error {
            MigrateError::Execute(source) => StoreError::Sql { doing: "reading the version of the schema", source },
            error => error.into(),
        })?;
        Ok(SchemaVersion { found: applied.iter().map(|migration| migration.version).max().unwrap_or(0), known })
    }

    /// Refuses to go on with a schema that is not this binary's.
    ///
    /// # Errors
    /// [`StoreError::NotMigrated`], [`StoreError::Outdated`] or [`StoreError::TooNew`].
    pub async fn require_schema(&self) -> Result<(), StoreError> {
        let SchemaVersion { found, known } = self.schema_version().await?;
        match found {
            0 => Err(StoreError::NotMigrated),
            found if found < known => Err(StoreError::Outdated { found, needed: known }),
            found if found > known => Err(StoreError::TooNew { found, known }),
            _ => Ok(()),
        }
    }
}
