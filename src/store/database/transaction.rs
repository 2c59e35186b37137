//! Statements that take effect together, and the state in which they leave their connection.

use super::lent::give_back;
use super::{Database, PATIENCE, Sessions, in_time, rows_in_time};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, PgConnection, Postgres, SqlSafeStr as _, SqlStr};
use std::sync::Arc;
use std::time::Duration;

/// The message when the result of a commit cannot be found out.
const ELSEWHERE: &str = "another server took over during the commit, and cannot say whether it was done: look whether \
                         the jobs are there (sluice batch list), and enqueue with --resume or with idempotency keys";

/// The state of a transaction on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Open, with nothing under way.
    Open,
    /// The server was asked something (begin, a statement, commit) and has not answered to the end.
    Asked,
    /// Over: the connection is as it was before.
    Ended,
}

/// Statements that take effect together, or not at all.
///
/// A transaction may be dropped at any moment, even while the server is executing a statement, since its caller may be
/// given up. It is then unknown what the server does with that statement. If the connection were used again, the next
/// statement on it could land in a transaction that is not its own, and be rolled back with it. So the connection is
/// closed, and the transaction ends with it. The driver's own transaction does not help: it takes one whose `begin` was
/// given up for one that never began, and one whose `commit` was given up for one that is open.
#[derive(Debug)]
pub(in crate::store) struct Transaction {
    /// `None` only once another transaction value has taken it over.
    connection: Option<PoolConnection<Postgres>>,
    phase: Phase,
    /// Whether prepared statements may be kept under a name.
    named: bool,
    /// How long an answer may take to come.
    patience: Option<Duration>,
    sessions: Arc<Sessions>,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        match self.phase {
            Phase::Ended => give_back(connection),
            Phase::Asked => connection.close_on_drop(),
            Phase::Open => {
                let sessions = Arc::clone(&self.sessions);
                // If the rollback does not even begin, the connection is closed.
                let rest = Self { connection: Some(connection), phase: Phase::Asked, sessions, ..*self };
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move { drop(rest.rollback().await) });
                }
            }
        }
    }
}

impl Transaction {
    pub(super) async fn begin(database: &Database) -> Result<Self, sqlx::Error> {
        let mut transaction = Self {
            connection: Some(database.pool.acquire().await?),
            phase: Phase::Asked,
            named: database.begin.is_none(),
            patience: Some(PATIENCE),
            sessions: Arc::clone(&database.sessions),
        };
        // One round trip for all of these.
        let begin = database.begin.clone().unwrap_or_else(|| "begin".into_sql_str());
        sqlx::raw_sql(begin).execute(transaction.asked()?).await?;
        transaction.phase = Phase::Open;
        Ok(transaction)
    }

    /// Lets its statements take as long as they need: for work of unknown length.
    pub fn wait_for_ever(&mut self) {
        self.patience = None;
    }

    /// Ends it and keeps what it did.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.end("commit").await
    }

    /// Commits. If the connection breaks before the server has answered, asks the server on another connection for the
    /// result, until it is known: the caller never has to guess whether the work was done.
    ///
    /// # Errors
    /// The work was not done; or, after [`PATIENCE`], the server could not say.
    pub async fn commit_for_sure(mut self, database: &Database) -> Result<(), sqlx::Error> {
        let row = sqlx::query!(
            r#"select pg_current_xact_id()::text as "id!", w.system_identifier, w.timeline from sluice.whereabouts() w"#
        )
        .fetch_one(&mut self)
        .await?;
        let Err(error) = self.commit().await else { return Ok(()) };
        if error.as_database_error().is_some() {
            // The server's own word.
            return Err(error);
        }
        let give_up_at = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < give_up_at {
            // On another timeline the number may belong to another transaction.
            let asked = sqlx::query_scalar!(
                "select case when w.system_identifier <> $2 or w.timeline <> $3 then 'elsewhere'
                             else pg_xact_status($1::text::xid8) end
                   from sluice.whereabouts() w",
                row.id,
                row.system_identifier,
                row.timeline
            )
            .fetch_one(database)
            .await;
            match asked.ok().flatten().as_deref() {
                Some("committed") => return Ok(()),
                Some("aborted") => return Err(error),
                Some("elsewhere") => return Err(sqlx::Error::Protocol(ELSEWHERE.to_owned())),
                // The server may still be executing it, or be away, or coming back.
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        Err(error)
    }

    /// Ends it and undoes what it did.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.end("rollback").await
    }

    async fn end(mut self, how: &'static str) -> Result<(), sqlx::Error> {
        let (patience, sessions) = (self.patience, Arc::clone(&self.sessions));
        let ended = sessions.watch(in_time(patience, sqlx::raw_sql(how).execute(self.asked()?))).await;
        ended.inspect_err(|error| sessions.see(error))?;
        self.phase = Phase::Ended;
        Ok(())
    }

    /// The connection, to ask the server something. The transaction counts as asked until [`Self::answered`] is called.
    fn asked(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.phase = Phase::Asked;
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Sends `rows` to a `copy … from stdin`; returns how many rows that were.
    pub async fn copy_in(&mut self, statement: &str, rows: &[u8]) -> Result<u64, sqlx::Error> {
        let (patience, sessions) = (self.patience, Arc::clone(&self.sessions));
        let connection = self.asked()?;
        let copied = in_time(patience, async {
            let mut copy = connection.copy_in_raw(statement).await?;
            copy.send(rows).await?;
            copy.finish().await
        })
        .await;
        if copied.is_ok() || is_answer(&copied) {
            self.phase = Phase::Open;
        }
        copied.inspect_err(|error| sessions.see(error))
    }
}

/// A statement, prepared under a name only where names hold. The driver would name it even when it caches none.
struct Statement<Q> {
    query: Q,
    named: bool,
}

impl<'q, Q: Execute<'q, Postgres>> Execute<'q, Postgres> for Statement<Q> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.named && self.query.persistent()
    }
}

impl<'c> Executor<'c> for &'c mut Transaction {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (patience, sessions, named) = (self.patience, Arc::clone(&self.sessions), self.named);
        self.phase = Phase::Asked;
        let Transaction { connection: Some(connection), phase, .. } = self else {
            return stream::once(async { Err(sqlx::Error::PoolClosed) }).boxed();
        };
        let rows = rows_in_time(patience, connection.fetch_many(Statement { query, named }));
        stream::unfold((rows, phase), |(mut rows, phase)| async move {
            let next = rows.next().await;
            if next.as_ref().is_none_or(is_answer) {
                *phase = Phase::Open;
            }
            next.map(|next| (next, (rows, phase)))
        })
        .inspect_err(move |error| sessions.see(error))
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (patience, named) = (self.patience, self.named);
        Box::pin(async move {
            let row = in_time(patience, self.asked()?.fetch_optional(Statement { query, named })).await;
            if row.is_ok() || is_answer(&row) {
                self.phase = Phase::Open;
            }
            row.inspect_err(|error| self.sessions.see(error))
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move { self.asked()?.prepare_with(sql, parameters).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move { self.asked()?.describe(sql).await })
    }
}

/// Whether the server has refused a statement, which is its final answer to it: the transaction is then ready to be
/// rolled back.
pub(super) fn is_answer<T>(result: &Result<T, sqlx::Error>) -> bool {
    matches!(result, Err(sqlx::Error::Database(_)))
}
