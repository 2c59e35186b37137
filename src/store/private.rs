//! What the private Postgres needs before it is the queue's.

use sqlx::PgConnection;

/// Whether the server of this connection survives a crash of the machine without losing a commit.
pub async fn is_durable(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let fsync: String = sqlx::query_scalar("show fsync").fetch_one(connection).await?;
    Ok(fsync == "on")
}

/// Makes the database `sluice` unless it is there.
pub async fn make_database(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = 'sluice')")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        sqlx::query("create database sluice").execute(connection).await?;
    }
    Ok(())
}
