//! The way to the database: Sluice's own connections, perhaps with a pooler between them and Postgres.
//!
//! A pooler that works by transactions (PgBouncer with `pool_mode = transaction`) may give every transaction another
//! server connection. Nothing that belongs to a session survives there: neither settings nor named prepared statements.
//! So behind a pooler each statement is part of a transaction, which begins with the settings, and no statement has a
//! name.

mod lent;
mod other_end;
mod transaction;

pub(super) use other_end::{is_refusal, takes_no_writes};
pub(super) use transaction::Transaction;

use super::Address;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future};
use lent::Lent;
use other_end::{connections_left, is_read_only, require_writable, within_patience, without_pooler};
use parking_lot::Mutex;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Describe, Either, Execute, Executor, PgPool, Postgres,
    SqlSafeStr as _, SqlStr,
};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one of several servers may take to say whether it serves.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Where there are several servers and something is wrong, how often Sluice looks which one serves.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Where there are several servers, Sluice also looks when a statement has no answer after this long: while the pool
/// tries to connect to a server that is gone, it reports no error.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// How long a statement's next row, or a commit, may take. Longer than the server's own patience with statements: a
/// statement that waits that long waits for a connection that is dead, or for a server that hangs.
const PATIENCE: Duration = Duration::from_secs(75);

/// How many rows of a statement are read before the first of them is taken.
const ROWS_AT_ONCE: usize = 32;

/// Settings of Sluice's own connections, beside [`SETTINGS`]: the server notices when this end is gone, and releases
/// its locks. Behind a pooler its other end is the pooler.
const SESSION_SETTINGS: [(&str, &str); 5] = [
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "60s"),
    ("client_connection_check_interval", "10s"),
];

/// Settings for every statement.
const SETTINGS: [(&str, &str); 7] = [
    // A login or a database may have another default, under which concurrent statements fail.
    ("default_transaction_isolation", "read committed"),
    // Rows that a policy would hide are then an error that says so, and not jobs that wait for ever.
    ("row_security", "off"),
    // The server gives up a statement that takes longer: a hung call must not stop a worker.
    ("statement_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("lock_timeout", "20s"),
    // Every statement here is short and runs thousands of times: compiling it never pays.
    ("jit", "off"),
    // Notices and warnings are for people at a prompt of the server's own; here they would land among Sluice's output.
    ("client_min_messages", "error"),
];

/// Further settings for the statements of a worker. They run thousands of times and touch few rows, regardless of what
/// the planner knows of tables that were empty when it looked: a plan from then would read whole tables for ever after.
/// These settings alone are not enough: `store/mod.rs` says how a statement looks up rows.
const WORK_SETTINGS: [(&str, &str); 2] = [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")];

/// Further settings for statements that nothing waits for but a page: the server gives them up soon.
const LOOK_SETTINGS: [(&str, &str); 2] = [("statement_timeout", "3s"), ("lock_timeout", "1s")];

/// The layer between this process and Postgres.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// To be found out when connecting.
    #[default]
    Auto,
    /// Nothing, or a pooler that leaves a session to its client and passes settings on.
    None,
    /// A pooler that gives a server connection to one transaction at a time.
    Transaction,
}

/// The purpose of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Commands: a few statements of any kind, perhaps on a standby that serves reports.
    #[default]
    Commands,
    /// Looks at the state of the database that may stay without an answer, but must not keep it busy.
    Looks,
    /// A worker, or any other writer: a session that takes no writes is of no use.
    Work,
}

impl Purpose {
    /// What holds beside [`SETTINGS`], or in their place.
    const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Commands => &[],
            Self::Looks => &LOOK_SETTINGS,
            Self::Work => &WORK_SETTINGS,
        }
    }
}

/// The state of all connections together.
#[derive(Debug, Default)]
struct Sessions {
    /// An error occurred that is not a statement's own fault: where there are several servers, another one may serve
    /// now.
    in_trouble: AtomicBool,
    /// Connections made before this are not used again: one of them was to a server that takes no writes.
    distrusted: Mutex<Option<Instant>>,
    /// Connections that were made and take writes.
    made: AtomicU64,
    /// The last connection that was made takes no writes.
    is_refused: AtomicBool,
}

impl Sessions {
    /// Learns from an error. An error from a server that takes no writes (25006: a standby, or one that was switched
    /// over) closes every connection that was made before.
    fn see(&self, error: &sqlx::Error) {
        if is_read_only(error) {
            *self.distrusted.lock() = Some(Instant::now());
        }
        let is_a_statements_own = match error.as_database_error().and_then(DatabaseError::code).as_deref() {
            Some(code) => !["08", "25006", "53", "57", "58", "XX"].iter().any(|class| code.starts_with(class)),
            None => matches!(error, sqlx::Error::RowNotFound | sqlx::Error::Encode(_) | sqlx::Error::Decode(_)),
        };
        if !is_a_statements_own {
            self.in_trouble.store(true, Ordering::Release);
        }
    }

    /// Logs once that no connection takes writes any more, and once that they do again.
    fn tell(&self, writable: &Result<(), sqlx::Error>) {
        match writable {
            Ok(()) => {
                self.made.fetch_add(1, Ordering::AcqRel);
                if self.is_refused.swap(false, Ordering::AcqRel) {
                    tracing::info!("the database takes writes again");
                }
            }
            Err(error) if takes_no_writes(error) && self.made.load(Ordering::Acquire) > 0 => {
                if !self.is_refused.swap(true, Ordering::AcqRel) {
                    tracing::warn!(error = %error, "waiting until the database takes writes");
                }
            }
            Err(_) => {}
        }
    }

    /// Waits for an answer. If that takes long, has Sluice look which server serves.
    async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        if let Ok(done) = tokio::time::timeout(LOOK_AFTER, &mut work).await {
            return done;
        }
        self.in_trouble.store(true, Ordering::Release);
        work.await
    }

    /// Whether a connection of this age may still be used.
    fn trusts(&self, age: Duration) -> bool {
        let made = Instant::now().checked_sub(age);
        self.distrusted.lock().is_none_or(|distrusted| made.is_some_and(|made| made > distrusted))
    }
}

/// A pool of this many connections. It logs no waits in words of its own: on a busy machine that would be a line for
/// each statement, and a wait that fails is told of by the caller.
fn pool_options(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        .acquire_slow_threshold(Duration::MAX)
}

/// Connections to one database. As an [`Executor`] it runs single statements; those that belong together go into one
/// [`begin`](Self::begin).
///
/// Behind a pooler a statement that is dropped before its last row was read is rolled back.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pool: PgPool,
    sessions: Arc<Sessions>,
    /// Behind a pooler: the statements with which every transaction begins.
    begin: Option<SqlStr>,
}

impl Database {
    /// Connects, and finds out whether a pooler is in between unless `pooler` says so.
    pub async fn connect(
        address: &Address,
        connections: u32,
        pooler: Pooler,
        purpose: Purpose,
    ) -> Result<Self, sqlx::Error> {
        // A statement is of no interest to the user of a command. The server logs slow ones where it is configured to.
        let ours = |server: &PgConnectOptions| server.clone().application_name("sluice").disable_statement_logging();
        let servers: Vec<PgConnectOptions> = address.servers().iter().map(ours).collect();
        let writable = purpose == Purpose::Work || address.must_be_writable();
        let options = servers.get(first_that_serves(&servers, writable).await?).cloned().unwrap_or_default();
        let (pooled, connected) = match pooler {
            Pooler::Auto => {
                let direct = Box::pin(without_pooler(&options)).await?;
                (direct.is_none(), direct)
            }
            Pooler::None => (false, None),
            Pooler::Transaction => (true, None),
        };
        let with_settings = move |options: PgConnectOptions| {
            if pooled {
                // A pooler refuses settings that it does not know, such as this one. Only floats as text would need it.
                return options.extra_float_digits(None);
            }
            let options = options.options(SETTINGS).options(SESSION_SETTINGS);
            options.options(purpose.settings().iter().copied())
        };
        let begin = pooled.then(|| begin_with_settings(purpose));
        let options = with_settings(options);
        // The pool would try for as long as its patience lasts and then only report that time is up. A single
        // connection reports the fault at once.
        let mut first = match connected {
            Some(connected) => connected,
            None => within_patience(options.connect()).await?,
        };
        let connections = match purpose {
            Purpose::Commands | Purpose::Looks => connections,
            Purpose::Work => {
                require_writable(&mut first).await?;
                // A connection that the server refuses would be waited for in vain, while existing ones lie idle.
                let left = if pooled { None } else { connections_left(&mut first).await? };
                left.map_or(connections, |left| connections.min(left.max(1)))
            }
        };
        first.close().await?;
        let sessions = Arc::<Sessions>::default();
        let mut pool = pool_options(connections);
        if purpose == Purpose::Work {
            let (made, seen) = (Arc::clone(&sessions), Arc::clone(&sessions));
            pool = pool
                .after_connect(move |connection, _| {
                    let made = Arc::clone(&made);
                    Box::pin(async move {
                        let writable = require_writable(connection).await;
                        made.tell(&writable);
                        writable.inspect_err(|error| made.see(error))
                    })
                })
                .before_acquire(move |_, facts| {
                    let trusted = seen.trusts(facts.age);
                    Box::pin(async move { Ok(trusted) })
                });
        }
        let pool = pool.connect_with(options).await?;
        if servers.len() > 1 {
            let servers: Arc<[PgConnectOptions]> = servers.into_iter().map(with_settings).collect();
            let (pool, sessions) = (pool.clone(), Arc::downgrade(&sessions));
            tokio::spawn(again_after_a_panic("following the server that takes writes", move || {
                follow(pool.clone(), Arc::clone(&servers), writable, Weak::clone(&sessions))
            }));
        }
        Ok(Self { pool, sessions, begin })
    }

    /// Uses a pool that exists already and leads to Postgres itself.
    pub fn direct(pool: PgPool) -> Self {
        Self { pool, sessions: Arc::default(), begin: None }
    }

    /// The pool of its connections.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether there is a pooler between this process and Postgres.
    pub fn is_pooled(&self) -> bool {
        self.begin.is_some()
    }

    /// How many connections for work were made so far. Each may lead to another server than the one before.
    pub fn connections_made(&self) -> u64 {
        self.sessions.made.load(Ordering::Acquire)
    }

    /// Whether the server of the last connection for work took no writes.
    pub fn takes_no_writes(&self) -> bool {
        self.sessions.is_refused.load(Ordering::Acquire)
    }

    /// Begins a transaction. Dropping it rolls it back.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        let beginning = self.sessions.watch(in_time(Some(PATIENCE), Box::pin(Transaction::begin(self))));
        beginning.await.inspect_err(|error| self.sessions.see(error))
    }

    /// The rows of a statement in a transaction of its own.
    fn in_transaction<'e, 'q: 'e, E>(&self, query: E) -> BoxStream<'e, Result<Found, sqlx::Error>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let database = self.clone();
        passed_on(async move |found| {
            let mut transaction = database.begin().await?;
            found.pass_on(transaction.fetch_many(query)).await?;
            transaction.commit().await
        })
    }

    /// The rows of a statement on a connection that goes back to the pool only if the server has answered to the end.
    fn alone<'e, 'q: 'e, E>(&self, query: E) -> BoxStream<'e, Result<Found, sqlx::Error>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.pool.clone();
        passed_on(async move |found| {
            let mut lent = Lent::of(&pool).await?;
            let done = found.pass_on(lent.asked()?.fetch_many(query)).await;
            lent.answered(done)
        })
    }
}

/// A row, or how many rows a statement has changed.
type Found = Either<PgQueryResult, PgRow>;

/// Where the work of a stream puts the rows.
struct Rows(mpsc::Sender<Result<Found, sqlx::Error>>);

impl Rows {
    async fn pass_on(&self, mut rows: BoxStream<'_, Result<Found, sqlx::Error>>) -> Result<(), sqlx::Error> {
        while let Some(row) = rows.try_next().await? {
            // The other end is in the same stream: it is there.
            let _ = self.0.send(Ok(row)).await;
        }
        Ok(())
    }
}

/// What this work puts out, and its error. The work goes on as the rows are read, and ends when the stream is dropped.
fn passed_on<'e, F>(work: impl FnOnce(Rows) -> F) -> BoxStream<'e, Result<Found, sqlx::Error>>
where
    F: Future<Output = Result<(), sqlx::Error>> + Send + 'e,
{
    let (sender, incoming) = mpsc::channel(ROWS_AT_ONCE);
    let failed = sender.clone();
    let work = work(Rows(sender));
    let work = async move {
        if let Err(error) = work.await {
            let _ = failed.send(Err(error)).await;
        }
    };
    let rows = stream::unfold(incoming, async |mut incoming| Some((incoming.recv().await?, incoming)));
    // The work adds no rows of its own. When it is done, its end of the channel is gone, and so ends the stream.
    stream::select(rows, stream::once(work).filter_map(|()| future::ready(None))).boxed()
}

/// The first server that accepts a connection and, if `writable`, takes writes.
async fn first_that_serves(servers: &[PgConnectOptions], writable: bool) -> Result<usize, sqlx::Error> {
    if servers.len() == 1 {
        return Ok(0);
    }
    let mut last = sqlx::Error::PoolTimedOut;
    for (index, server) in servers.iter().enumerate() {
        let asked = async {
            let mut connection = server.connect().await?;
            if writable {
                require_writable(&mut connection).await?;
            }
            connection.close().await
        };
        match tokio::time::timeout(SERVER_TIMEOUT, asked).await {
            Ok(Ok(())) => return Ok(index),
            // A server that will take writes after its promotion says more than one that is dead.
            Ok(Err(error)) if !takes_no_writes(&last) => last = error,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(last)
}

/// Runs to its end. A panic is logged, and then it runs again: commands and workers need it for as long as they work.
async fn again_after_a_panic<F: Future<Output = ()>>(what: &'static str, mut run: impl FnMut() -> F) {
    while let Err(panic) = AssertUnwindSafe(run()).catch_unwind().await {
        let words = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = words, "{what} failed because of a bug in Sluice and begins again. Please report this");
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// Leads a pool to the server that serves, for as long as the pool is used: after a failover that is another server.
async fn follow(pool: PgPool, servers: Arc<[PgConnectOptions]>, writable: bool, sessions: Weak<Sessions>) {
    let mut current = None;
    let mut tick = tokio::time::interval(FOLLOW_EVERY);
    loop {
        tick.tick().await;
        let Some(sessions) = sessions.upgrade() else { return };
        if pool.is_closed() {
            return;
        }
        if !sessions.in_trouble.swap(false, Ordering::AcqRel) {
            continue;
        }
        let Ok(serving) = first_that_serves(&servers, writable).await else {
            // Not found yet: the next round looks again.
            sessions.in_trouble.store(true, Ordering::Release);
            continue;
        };
        if current.replace(serving) != Some(serving)
            && let Some(server) = servers.get(serving)
        {
            tracing::info!(
                host = server.get_host(),
                port = server.get_port(),
                "switched to the server that takes writes"
            );
            pool.set_connect_options(server.clone());
            *sessions.distrusted.lock() = Some(Instant::now());
        }
    }
}

fn begin_with_settings(purpose: Purpose) -> SqlStr {
    // The session's default comes too late for this transaction.
    let mut statements = "begin isolation level read committed".to_owned();
    for (name, value) in SETTINGS.iter().chain(purpose.settings()) {
        statements.push_str("; set local ");
        statements.push_str(name);
        statements.push_str(" = '");
        statements.push_str(value);
        statements.push('\'');
    }
    // All of the text is in this file.
    AssertSqlSafe(statements).into_sql_str()
}

async fn in_time<T>(
    patience: Option<Duration>,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match patience {
        Some(patience) => {
            tokio::time::timeout(patience, Box::pin(work)).await.unwrap_or_else(|_| Err(no_answer(patience)))
        }
        None => work.await,
    }
}

/// The rows of a statement, each of which has to come in time.
fn rows_in_time<'e, T: Send + 'e>(
    patience: Option<Duration>,
    rows: BoxStream<'e, Result<T, sqlx::Error>>,
) -> BoxStream<'e, Result<T, sqlx::Error>> {
    let Some(patience) = patience else { return rows };
    stream::unfold(Some(rows), move |rows| async move {
        let mut rows = rows?;
        match tokio::time::timeout(patience, rows.next()).await {
            Ok(next) => next.map(|row| (row, Some(rows))),
            Err(_) => Some((Err(no_answer(patience)), None)),
        }
    })
    .boxed()
}

fn no_answer(patience: Duration) -> sqlx::Error {
    let words = format!("Postgres did not answer within {}", super::span(patience));
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, words))
}

impl<'c> Executor<'c> for &'c Database {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if self.is_pooled() {
            return self.in_transaction(query);
        }
        let sessions = Arc::clone(&self.sessions);
        let rows = rows_in_time(Some(PATIENCE), self.alone(query));
        let watched = stream::unfold((rows, Arc::clone(&sessions)), async |(mut rows, sessions)| {
            let next = sessions.watch(rows.next()).await?;
            Some((next, (rows, sessions)))
        });
        watched.inspect_err(move |error| sessions.see(error)).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.is_pooled() {
            let found = in_time(Some(PATIENCE), async { Lent::of(&self.pool).await?.fetch_optional(query).await });
            return Box::pin(
                async move { self.sessions.watch(found).await.inspect_err(|error| self.sessions.see(error)) },
            );
        }
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let row = transaction.fetch_optional(query).await?;
            transaction.commit().await?;
            Ok(row)
        })
    }

    // Sluice prepares no statement by hand, and the macros look at statements through connections of their own.
    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.pool.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.pool.describe(sql)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_runs_again_and_what_ends_does_not() {
        let mut runs = 0;
        again_after_a_panic("a test", || {
            runs += 1;
            let run = runs;
            async move {
                if run < 3 {
                    std::panic::resume_unwind(Box::new("oh"));
                }
            }
        })
        .await;
        assert_eq!(runs, 3);
    }

    #[test]
    fn the_pool_logs_no_waits_of_its_own() {
        assert_eq!(pool_options(1).get_acquire_slow_threshold(), Duration::MAX);
    }
}
