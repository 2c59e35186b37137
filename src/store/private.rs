//! Preparation of the private Postgres before the queue uses it.

use sqlx::PgConnection;

/// Whether the server of this connection survives a crash of the machine without losing a commit.
pub async fn is_durable(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let fsync: String = sqlx::query_scalar("show fsync").fetch_one(connection).await?;
    Ok(fsync == "on")
}

/// Makes the database `sluice` unless it exists, and keeps rows out of the server's log: the detail of an error quotes
/// rows, and so do the statements that are logged with it. The server's messages at its start stay as they are.
pub async fn make_database(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = 'sluice')")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        sqlx::query("create database sluice").execute(&mut *connection).await?;
    }
    let is_discreet: bool = sqlx::query_scalar(
        "select coalesce(bool_or(setconfig @> array['log_error_verbosity=terse', 'log_min_error_statement=panic']),
                         false)
           from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
          where d.datname = 'sluice' and s.setrole = 0",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !is_discreet {
        sqlx::raw_sql(
            "alter database sluice set log_error_verbosity = 'terse';
             alter database sluice set log_min_error_statement = 'panic'",
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}
