//! All SQL. This room knows the domain and nothing of providers.
//!
//! One file per noun. Each function is one statement or one short transaction, and none is open while a provider is
//! being called. A single statement runs on `&self.db`, several in a transaction of `self.db.begin()`: both know what
//! to do behind a pooler. Nothing depends on a session: no `set` that outlives its transaction, no `listen`, no
//! temporary table, no advisory lock (any login can hold one). Turns are taken by locking rows, until the transaction
//! ends. Times are the database's own: no statement takes the caller's clock where `now()` will do.
//!
//! A statement that runs all day and looks up the rows of a list in `job`, `result`, `attempt`, `inflight`, `ready` or
//! `parked` writes `x.job_id = any (array[list.job_id])`. For that Postgres looks into the index once for each row, and
//! has no other plan. With a plain `=` it may walk through the whole index instead, for as long as it takes the table
//! for empty: the table is new, or was vacuumed while nothing was in progress. `tests/plans.rs` checks the plans.

mod address;
pub mod alert;
pub mod audit;
pub mod batch;
mod bill;
pub mod budget;
pub mod cache;
pub mod call;
pub mod claim;
mod copy;
mod database;
pub mod demo;
pub mod doctor;
mod doubted_costs;
pub mod enqueue;
pub mod enqueues;
pub mod game_day;
pub mod health;
pub mod import;
pub mod job;
pub mod lanes;
mod late;
pub mod lately;
pub mod lease;
mod long_calls;
pub mod maintenance;
pub mod names;
mod notice;
pub mod pause;
pub mod private;
pub mod quota;
pub mod reconcile;
pub mod report;
pub mod reprice;
pub mod results;
pub mod retention;
pub mod roles;
pub mod route;
pub mod schedule;
mod schema;
pub mod selection;
pub mod settle;
pub mod status;
pub mod stop_loss;
mod stretches;
pub mod timeline;
pub mod unqueued;
pub mod unsure;
mod waits;

pub use address::{Address, AddressError};
pub use database::{Pooler, Purpose};
pub use schema::SchemaVersion;

use database::Database;
use sqlx::PgPool;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// The connection to one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    db: Database,
    fences: Arc<claim::Fences>,
    highest: Arc<timeline::Highest>,
    answers: schema::Answers,
}

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or it refused the connection.
    #[error("cannot connect to Postgres at {address}: {}. {doubt}", in_words(source))]
    Connect {
        /// Host and database, without the password.
        address: String,
        /// The possible fault, as a question that names the origin of the address.
        doubt: String,
        source: sqlx::Error,
    },
    /// There is a pooler although the configuration says that there is none.
    #[error("{address} seems to lead to a pooler ({}): set database.pooler to \"auto\"", in_words(source))]
    Pooler {
        /// Host and database, without the password.
        address: String,
        /// The pooler's error.
        source: sqlx::Error,
    },
    /// There is no schema.
    #[error("the database has no Sluice schema yet: run `sluice migrate`")]
    NotMigrated,
    /// The schema is older than this binary.
    #[error("the database schema is at version {found}, this binary needs {needed}: run `sluice migrate`")]
    Outdated {
        found: i64,
        /// The version that this binary brings.
        needed: i64,
    },
    /// The schema is too new for this binary.
    #[error(
        "the database schema is at version {found} and needs a binary that knows version {oldest}; this one knows \
         versions up to {known}: upgrade sluice on this machine"
    )]
    TooNew {
        found: i64,
        /// The newest version that this binary knows.
        known: i64,
        /// The oldest version that a binary must know.
        oldest: i64,
    },
    /// The encoding of the database cannot hold every prompt and answer.
    #[error(
        "the database writes text in {found}, which cannot hold every prompt and answer: make one with `create \
         database … encoding 'UTF8' template template0`"
    )]
    Encoding {
        /// The encoding, as Postgres calls it.
        found: String,
    },
    /// The login may not make the schema, or its contents.
    #[error("{problem}: {remedy}")]
    NotOurs {
        /// The obstacle.
        problem: String,
        /// The remedy, for an administrator.
        remedy: String,
    },
    /// Another process is migrating.
    #[error("another process is migrating this database and is not done yet; try again when it is")]
    Migrating,
    /// A migration could not get a lock on a table.
    #[error(
        "migration {version} waited some seconds for a table that another transaction holds, and gave up so that the \
         queue does not wait behind it; nothing was changed. Try again when that transaction is over: `sluice doctor` \
         names it"
    )]
    Locked {
        /// The number of the migration.
        version: i64,
    },
    /// A migration failed; nothing was changed.
    #[error("migration failed: {}", migration_in_words(.0))]
    Migrate(#[from] MigrateError),
    /// The database did not answer in time. Whether the statement took effect is unknown.
    #[error("{doing}: Postgres did not answer within {}", span(*limit))]
    Timeout {
        /// The action that was under way.
        doing: &'static str,
        /// How long the program waited for the answer.
        limit: Duration,
    },
    /// A statement failed.
    #[error("{doing}: {}", in_words(source))]
    Sql {
        /// The action that was under way.
        doing: &'static str,
        source: sqlx::Error,
    },
    /// The database refuses one of the jobs of a bulk enqueue.
    #[error("job {job}: {reason}")]
    Refused {
        /// Its number among the jobs that were pushed, from 1.
        job: u64,
        /// The member and its fault. Never quotes the request.
        reason: String,
    },
}

impl StoreError {
    /// Whether a job could not be changed because a worker has it.
    #[must_use]
    pub fn is_of_a_job_in_hand(&self) -> bool {
        let code = |source: &sqlx::Error| source.as_database_error().and_then(|error| error.code().map(Into::into));
        matches!(self, Self::Sql { source, .. } if code(source).is_some_and(|code: String| code == "55006"))
    }

    /// Whether trying again may help: the connection broke or the server is away, and the data is not at fault.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Migrating | Self::Locked { .. } | Self::Timeout { .. } => true,
            Self::Sql { source, .. } => match source {
                sqlx::Error::Database(error) => {
                    let code = error.code().unwrap_or_default();
                    // Connection, a login that is refused, resources, operator intervention, deadlock and
                    // serialisation; a cancelled statement (57014) is one of the fourth.
                    ["08", "28", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                        // The database takes no writes now: it is a standby, or was made read-only.
                        || code == "25006"
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
            Self::Refused { .. }
            | Self::Pooler { .. }
            | Self::NotMigrated
            | Self::Encoding { .. }
            | Self::NotOurs { .. }
            | Self::Outdated { .. }
            | Self::TooNew { .. }
            | Self::Migrate(_) => false,
        }
    }

    /// Whether another transaction was in the way, so that the same action may succeed at once.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        let Self::Sql { source, .. } = self else { return false };
        let code = source.as_database_error().and_then(DatabaseError::code);
        matches!(code.as_deref(), Some("40P01" | "40001" | "55P03"))
    }

    /// Whether the server gave the statement up because another transaction has locked a row for too long.
    #[must_use]
    pub fn waited_for_a_lock(&self) -> bool {
        self.has_code("55P03")
    }

    /// Whether there is a row of that key already.
    fn is_duplicate(&self) -> bool {
        self.has_code("23505")
    }

    /// Whether there is a server that takes no writes: a standby, or a database that was made read-only.
    #[must_use]
    pub fn takes_no_writes(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if database::takes_no_writes(source))
    }

    /// Whether a row is surely at fault, so that it would be refused again, regardless of what happens to the database:
    /// a value that its column does not take, or a constraint that it breaks.
    ///
    /// Every other failure is the database's: it is away, takes no writes, no longer knows the login, has lost a table
    /// or a partition. That ends some time, and until then the rows wait.
    #[must_use]
    pub fn is_the_rows_fault(&self) -> bool {
        match self {
            // The driver could not write a value as its type.
            Self::Refused { .. } | Self::Sql { source: sqlx::Error::Encode(_), .. } => true,
            Self::Sql { source: sqlx::Error::Database(error), .. } => match error.code().unwrap_or_default().as_ref() {
                // "No partition of relation … found for row" is a check violation that names no constraint.
                "23514" => error.constraint().is_some(),
                // A value that is too large for an index, or nested too deeply.
                "54000" | "54001" => true,
                code => code.starts_with("22") || code.starts_with("23"),
            },
            _ => false,
        }
    }

    /// Whether the server is there and refuses, for a reason that is not in the data and does not pass by itself: the
    /// login lacks a right, or a table is missing.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Sql { source: sqlx::Error::Database(_), .. })
            && !self.is_transient()
            && !self.is_the_rows_fault()
    }

    /// Whether the server gave the statement up, because it took too long or waited too long for a lock.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        let Self::Sql { source, .. } = self else { return false };
        let code = source.as_database_error().and_then(DatabaseError::code);
        code.is_some_and(|code| code == "57014" || code == "55P03")
    }

    /// Whether a person, or a server that stops, has ended the session.
    #[must_use]
    pub fn is_ended_session(&self) -> bool {
        self.has_code("57P01")
    }

    /// Whether something was to be written where that is not allowed.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.has_code("25006")
    }

    fn has_code(&self, code: &str) -> bool {
        let Self::Sql { source, .. } = self else { return false };
        source.as_database_error().and_then(DatabaseError::code).is_some_and(|found| found == code)
    }

    /// Whether the login lacks a right.
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

/// The error of the server or the driver, in one sentence. The server's detail is left out: it may quote a row, and
/// rows hold prompts.
#[must_use]
pub fn in_words(error: &sqlx::Error) -> String {
    if let sqlx::Error::Io(words) = error
        && database::takes_no_writes(error)
    {
        return words.to_string();
    }
    // The driver's own message ends with the line of the server's source code.
    let error = match error {
        sqlx::Error::Database(error) => error,
        sqlx::Error::Io(error) => return connection_in_words(error),
        sqlx::Error::PoolTimedOut => return "no connection was free in time".to_owned(),
        other => return other.to_string(),
    };
    let hint = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint);
    let said = of_server(error.message());
    hint.map_or_else(|| said.clone().into_owned(), |hint| format!("{said} ({hint})"))
}

/// The server's message, as far as a user of Sluice would put it in other words.
fn of_server(message: &str) -> Cow<'_, str> {
    match message.strip_prefix("permission denied for ") {
        Some(what) => Cow::Owned(format!("this login has no right to the {what}")),
        None => Cow::Borrowed(message),
    }
}

/// Why a connection could not be made, or broke off, without the words of driver and operating system.
fn connection_in_words(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "no server answers there".to_owned(),
        ErrorKind::NotFound => "no server has its socket there".to_owned(),
        ErrorKind::TimedOut => "no answer came in time".to_owned(),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => "the connection broke off".to_owned(),
        _ => {
            let words = error.to_string();
            words.split(" (os error").next().unwrap_or(&words).to_owned()
        }
    }
}

/// A length of time in words: `75 s`, `500 ms`.
fn span(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ if time.as_secs() > 0 => format!("{:.1} s", time.as_secs_f64()),
        millis => format!("{millis} ms"),
    }
}

fn migration_in_words(error: &MigrateError) -> String {
    match error {
        MigrateError::ExecuteMigration(error, version) if is_there_already(error) => {
            format!(
                "{}. So migration {version} was carried out before, and its row in sluice.migration is gone: put the \
                 rows of that table back, from a backup or from another database of the same version",
                in_words(error)
            )
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => in_words(error),
        error => error.to_string(),
    }
}

/// Whether a table, a function, a column or the like could not be made because one of that name exists.
fn is_there_already(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("42P07" | "42701" | "42710" | "42723" | "42P06" | "42P16"))
}

/// Waits no longer than `limit` for the database: a connection may be cut without any notice.
///
/// # Errors
/// [`StoreError::Timeout`], besides those of `work`.
pub async fn within<T>(
    limit: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    // On the heap: futures of statements are large, and this one is held by many others.
    tokio::time::timeout(limit, Box::pin(work)).await.unwrap_or(Err(StoreError::Timeout { doing, limit }))
}

/// Adds to the error of a failed statement the action it was part of.
pub(crate) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, what: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Sql { doing: what, source })
    }
}

/// Hosts and database, without the password.
fn in_short(address: &Address) -> String {
    let place = |options: &PgConnectOptions| match options.get_socket() {
        Some(path) => path.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let places: Vec<String> = address.servers().iter().map(place).collect();
    let database = address.servers().first().and_then(PgConnectOptions::get_database).unwrap_or("");
    format!("{}/{database}", places.join(","))
}

/// How long connections may take to close.
const FAREWELL: Duration = Duration::from_secs(5);

impl Store {
    /// Connects, without looking at the schema, and finds out by itself whether a pooler is between.
    /// # Errors
    /// [`StoreError::Connect`] when no connection is made within ten seconds.
    pub async fn connect(options: PgConnectOptions, connections: u32) -> Result<Self, StoreError> {
        Self::connect_through(Pooler::Auto, Purpose::Commands, &Address::of(options), connections).await
    }

    /// As [`connect`](Self::connect), given the pooler, if any, between this process and Postgres, and the purpose of
    /// the connections. A worker gets only sessions that take writes.
    ///
    /// # Errors
    /// [`StoreError::Connect`] when no connection is made within ten seconds, [`StoreError::Pooler`] when there is a
    /// pooler although none was expected.
    pub async fn connect_through(
        pooler: Pooler,
        purpose: Purpose,
        address: &Address,
        connections: u32,
    ) -> Result<Self, StoreError> {
        let db = Database::connect(address, connections, pooler, purpose).await.map_err(|source| {
            let is_standby = database::takes_no_writes(&source);
            let doubt = if is_standby { address.doubt_of_role() } else { address.doubt(&source) };
            let address = in_short(address);
            if pooler == Pooler::None && database::is_refusal(&source) {
                StoreError::Pooler { address, source }
            } else {
                StoreError::Connect { address, doubt, source }
            }
        })?;
        Ok(Self::on(db))
    }

    /// A store on an existing pool that leads to Postgres itself, with the settings that the pool has.
    #[must_use]
    pub fn from_pool(pool: PgPool) -> Self {
        Self::on(Database::direct(pool))
    }

    fn on(db: Database) -> Self {
        let fences = Arc::new(claim::Fences::new());
        Self { db, fences, highest: Arc::default(), answers: schema::Answers::default() }
    }

    /// The pool, for uses outside this module (tests, closing).
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    /// Whether there is, or is taken to be, a pooler that works by transactions between this process and Postgres.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        self.db.is_pooled()
    }

    /// Whether the server takes no writes now, as the last connection of a worker found out: it is a standby, or the
    /// database was made read-only.
    #[must_use]
    pub fn takes_no_writes(&self) -> bool {
        self.db.takes_no_writes()
    }

    /// How many connections were made so far, if this is the store of a worker. Each may lead to another server than
    /// the one before.
    #[must_use]
    pub fn connections_made(&self) -> u64 {
        self.db.connections_made()
    }

    /// Waits until all connections are closed, for 5 seconds at most: closing one whose other end is gone would take as
    /// long as the operating system waits.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(FAREWELL, self.db.pool().close()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_fails_is_told_without_the_words_of_driver_and_system() {
        let told = |error: std::io::Error| in_words(&sqlx::Error::Io(error));
        assert_eq!(told(std::io::Error::from_raw_os_error(111)), "no server answers there");
        assert_eq!(told(std::io::ErrorKind::BrokenPipe.into()), "the connection broke off");
        assert_eq!(told(std::io::Error::other("no name (os error 5)")), "no name");
        assert_eq!(in_words(&sqlx::Error::PoolTimedOut), "no connection was free in time");
    }

    #[test]
    fn a_missing_right_is_told_in_words_of_logins() {
        assert_eq!(of_server("permission denied for table job"), "this login has no right to the table job");
        assert_eq!(of_server("there is no budget x"), "there is no budget x");
    }

    #[test]
    fn a_wait_is_told_as_long_as_it_was() {
        for (millis, told) in [(500, "500 ms"), (1, "1 ms"), (5_000, "5 s"), (75_000, "75 s"), (1_500, "1.5 s")] {
            assert_eq!(span(Duration::from_millis(millis)), told);
        }
        let error = StoreError::Timeout { doing: "settling", limit: Duration::from_millis(500) };
        assert_eq!(error.to_string(), "settling: Postgres did not answer within 500 ms");
    }
}
