//! What is at the other end of a connection: Postgres itself or a pooler, whether it takes writes, and how many more
//! connections.

use super::{CONNECT_TIMEOUT, SETTINGS};
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};
use std::time::SystemTime;

/// A setting that means nothing to Postgres. Whether it arrives shows whether the session is Sluice's own.
const MARK: &str = "sluice.mark";

/// Whether a session takes no writes.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("25006")
}

/// Whether this is the refusal of [`require_writable`].
pub(in crate::store) fn takes_no_writes(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
}

/// Fails in a session that takes no writes: on a standby, or where the database was made read-only.
pub(super) async fn require_writable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // As text and not prepared, so that a pooler accepts it.
    let question = "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean";
    let read_only: bool = sqlx::raw_sql(question).fetch_one(connection).await?.try_get(0)?;
    if read_only {
        let words = "the server takes no writes: it is a standby, or the database was made read-only";
        return Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::ReadOnlyFilesystem, words)));
    }
    Ok(())
}

/// How many more connections this login may have, besides the one that asks, by its role, its database and the server.
pub(super) async fn connections_left(connection: &mut PgConnection) -> Result<Option<u32>, sqlx::Error> {
    let question = "select (least(
            case when r.rolsuper then null else nullif(r.rolconnlimit, -1) - (
                 select count(*) from pg_stat_activity a
                   where a.usename = current_user and a.pid <> pg_backend_pid()) end,
            case when r.rolsuper then null else nullif(d.datconnlimit, -1) - (
                 select count(*) from pg_stat_activity a where a.datname = d.datname and a.pid <> pg_backend_pid()) end,
            current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer - (
                 select count(*) from pg_stat_activity a
                  where a.backend_type = 'client backend' and a.pid <> pg_backend_pid())))::integer
       from pg_roles r, pg_database d where r.rolname = current_user and d.datname = current_database()";
    let left: Option<i32> = sqlx::raw_sql(question).fetch_one(connection).await?.try_get(0)?;
    Ok(left.map(|left| u32::try_from(left).unwrap_or(0)))
}

/// A connection to Postgres itself; `None`: something in between refuses Sluice's settings or does not pass them on, as
/// poolers do.
pub(super) async fn without_pooler(options: &PgConnectOptions) -> Result<Option<PgConnection>, sqlx::Error> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // A different mark for each connection: a pooler may hand out a session that another client has begun like this.
    let mark = format!("{}-{}", std::process::id(), since_epoch.as_nanos());
    let marked = options.clone().options(SETTINGS).options([(MARK, &mark)]);
    let mut connection = match within_patience(marked.connect()).await {
        Ok(connection) => connection,
        Err(error) if is_refusal(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    // As text and not prepared, which needs neither a transaction nor a session.
    let asked = sqlx::raw_sql("select current_setting('sluice.mark', true)").fetch_one(&mut connection).await?;
    let arrived: Option<String> = asked.try_get(0)?;
    if arrived.as_deref() == Some(&mark) {
        return Ok(Some(connection));
    }
    connection.close().await?;
    Ok(None)
}

/// Whether the other end rejects the way in which Sluice's connections begin: a violation of the protocol, something
/// that it does not support, or a setting that it does not know. Postgres accepts all of it.
pub(in crate::store) fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("08P01" | "0A000" | "42704"))
}

/// The connection, if it comes in time.
pub(super) async fn within_patience<T>(
    connecting: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
