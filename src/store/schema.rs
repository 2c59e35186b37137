//! The schema: which version the database has, and bringing it up to this binary's.

use super::database::Transaction;
use super::{Doing, Store, StoreError};
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migrator};
use std::time::Instant;

/// The migrations that this binary carries.
static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// The state of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// What the database has; 0 when it has nothing.
    pub found: i64,
    /// What this binary brings.
    pub known: i64,
}

impl SchemaVersion {
    fn of(applied: &[Applied]) -> Self {
        let known = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
        Self { found: applied.iter().map(|applied| applied.version).max().unwrap_or(0), known }
    }
}

/// A migration that the database has had.
#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    checksum: Vec<u8>,
}

impl Store {
    /// Brings the schema up to this binary's version and returns what it was and is. All in one transaction: whoever
    /// looks sees the old schema or the new one.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] when the database is ahead, [`StoreError::Migrating`] when another process was at it for
    /// longer than the connection's `lock_timeout` (20 s), [`StoreError::Migrate`] when a migration fails. Nothing is changed then.
    pub async fn migrate(&self) -> Result<SchemaVersion, StoreError> {
        let mut transaction = self.db.begin().await.doing("connecting")?;
        // A migration takes as long as the tables are large; only locks are waited for no longer than ever.
        transaction.wait_for_ever();
        sqlx::query!("select set_config('statement_timeout', '0', true)")
            .fetch_one(&mut transaction)
            .await
            .doing("migrating")?;
        // It is held until the commit, and needs no session: that is why it works behind a pooler.
        sqlx::query!("select pg_advisory_xact_lock(hashtextextended('sluice.migrate', 0))")
            .fetch_one(&mut transaction)
            .await
            .map_err(|source| match source.as_database_error().and_then(DatabaseError::code).as_deref() {
                Some("55P03") => StoreError::Migrating,
                _ => StoreError::Sql { doing: "waiting for the turn to migrate", source },
            })?;
        let applied = applied(&mut transaction).await?;
        let before = SchemaVersion::of(&applied);
        if before.found > before.known {
            return Err(StoreError::TooNew { found: before.found, known: before.known });
        }
        apply_missing(&mut transaction, &applied).await?;
        transaction.commit().await.doing("migrating")?;
        self.ensure_partitions().await?;
        Ok(before)
    }

    /// Which version the schema has and which this binary knows.
    pub async fn schema_version(&self) -> Result<SchemaVersion, StoreError> {
        let mut transaction = self.db.begin().await.doing("connecting")?;
        let version = SchemaVersion::of(&applied(&mut transaction).await?);
        transaction.commit().await.doing("reading the version of the schema")?;
        Ok(version)
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

/// What the database notes of the migrations that it has had.
///
/// The table's schema is named: a role called `sluice` (ours, in the private Postgres) finds the schema `sluice` in
/// its search path as soon as the first migration has made it, and would look for the notes there and not where they
/// were written.
async fn applied(transaction: &mut Transaction) -> Result<Vec<Applied>, StoreError> {
    let table = sqlx::query_scalar!("select to_regclass('sluice.migration') is not null")
        .fetch_one(&mut *transaction)
        .await
        .doing("looking for the schema")?;
    if table != Some(true) {
        return Ok(Vec::new());
    }
    // The table is there before the first migration is, so the macros, which know the migrations only, do not know it.
    sqlx::query_as("select version, checksum from sluice.migration order by version")
        .fetch_all(transaction)
        .await
        .doing("reading the version of the schema")
}

async fn apply_missing(transaction: &mut Transaction, applied: &[Applied]) -> Result<(), MigrateError> {
    if applied.is_empty() {
        // In the form that sqlx's own migrator gives it.
        sqlx::raw_sql(
            "create schema if not exists sluice;
             create table if not exists sluice.migration (
                 version bigint primary key,
                 description text not null,
                 installed_on timestamptz not null default now(),
                 success boolean not null,
                 checksum bytea not null,
                 execution_time bigint not null
             )",
        )
        .execute(&mut *transaction)
        .await?;
    }
    if let Some(unknown) = applied.iter().find(|applied| !MIGRATOR.version_exists(applied.version)) {
        return Err(MigrateError::VersionMissing(unknown.version));
    }
    for migration in MIGRATOR.iter() {
        let version = migration.version;
        if let Some(applied) = applied.iter().find(|applied| applied.version == version) {
            if *applied.checksum != *migration.checksum {
                return Err(MigrateError::VersionMismatch(version));
            }
            continue;
        }
        let began = Instant::now();
        sqlx::raw_sql(migration.sql.clone())
            .execute(&mut *transaction)
            .await
            .map_err(|source| MigrateError::ExecuteMigration(source, version))?;
        sqlx::query(
            "insert into sluice.migration (version, description, success, checksum, execution_time)
                  values ($1, $2, true, $3, $4)",
        )
        .bind(version)
        .bind(&*migration.description)
        .bind(&*migration.checksum)
        .bind(i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_can_be_part_of_a_transaction() {
        assert!(MIGRATOR.iter().next().is_some());
        for migration in MIGRATOR.iter() {
            assert!(!migration.no_tx, "migration {} is not to be run in a transaction", migration.version);
        }
    }
}
