//! A connection that the pool has lent for one statement, and how connections go back to it.

use super::transaction::is_answer;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::{Execute, Executor as _, PgPool, Postgres};
use std::time::Duration;

/// How long a connection may take to say that it is ready for the next statement.
const READY_AFTER: Duration = Duration::from_secs(5);

/// A connection for one statement, which may be given up at any moment.
///
/// The pool itself would wait for the rest of the answer, without an end where the server is gone, and the connection
/// would keep its place in the pool meanwhile. After some statements the pool would have no place left, also not for
/// connections to the server that serves by then. So the connection of a statement without an answer is closed.
#[derive(Debug)]
pub(super) struct Lent {
    /// `None` only while it is dropped.
    connection: Option<PoolConnection<Postgres>>,
    /// The server was asked something and has not answered to the end.
    is_asked: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.is_asked {
            connection.close_on_drop();
        } else {
            give_back(connection);
        }
    }
}

impl Lent {
    /// Takes a connection from the pool, or waits for one.
    pub async fn of(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: Some(pool.acquire().await?), is_asked: false })
    }

    /// The connection, to ask the server something. It counts as asked until [`Self::answered`] is called.
    pub fn asked(&mut self) -> Result<&mut PoolConnection<Postgres>, sqlx::Error> {
        self.is_asked = true;
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Notes the end of an answer, as it is passed on.
    pub fn answered<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.is_asked = result.is_err() && !is_answer(&result);
        result
    }

    /// The first row of a statement, if there is any.
    pub async fn fetch_optional<'q, E: 'q + Execute<'q, Postgres>>(
        mut self,
        query: E,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        let row = self.asked()?.fetch_optional(query).await;
        self.answered(row)
    }
}

/// Gives a connection back that the server has answered to the end. The pool asks whether it is ready; one that does
/// not say so in time is closed.
pub(super) fn give_back(mut connection: PoolConnection<Postgres>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let ready = connection.return_to_pool();
    runtime.spawn(async move { drop(tokio::time::timeout(READY_AFTER, ready).await) });
}
