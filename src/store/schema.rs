//! The schema: the version that the database has, and bringing it up to this binary's.

use super::database::Transaction;
use super::{Doing, Store, StoreError, roles};
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The migrations that this binary carries.
static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// From this version on answers can be written as text.
const ANSWERS_AS_TEXT: i64 = 42;

/// How long a migration waits for a table that a transaction holds. Later statements on the table wait behind it, so
/// the queue stands still for that long.
const LOCK_TIMEOUT: &str = "3s";

/// The state of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// The version that the database has; 0 when it has no schema.
    pub found: i64,
    /// The version that this binary brings.
    pub known: i64,
    /// The oldest version that a binary must know to work on the schema.
    pub oldest: i64,
}

impl SchemaVersion {
    async fn read(transaction: &mut Transaction, applied: &[Applied]) -> Result<Self, StoreError> {
        let known = known();
        let found = applied.iter().map(|applied| applied.version).max().unwrap_or(0);
        let told = sqlx::query_scalar!("select to_regclass('sluice.schema_support') is not null")
            .fetch_one(&mut *transaction)
            .await
            .doing("looking for the schema")?;
        let oldest = if told == Some(true) {
            sqlx::query_scalar!("select oldest from sluice.schema_support")
                .fetch_optional(transaction)
                .await
                .doing("reading who may work on the schema")?
        } else {
            None
        };
        Ok(Self { found, known, oldest: oldest.unwrap_or(found) })
    }

    /// Whether a newer schema says that this binary cannot work on it.
    #[must_use]
    pub fn has_outgrown(self) -> bool {
        self.known < self.oldest && self.found > self.known
    }

    /// Checks that this binary can work on the schema.
    ///
    /// # Errors
    /// [`StoreError::NotMigrated`], [`StoreError::Outdated`] or [`StoreError::TooNew`].
    pub fn require(self) -> Result<(), StoreError> {
        let Self { found, known, oldest } = self;
        match found {
            0 => Err(StoreError::NotMigrated),
            found if found < known => Err(StoreError::Outdated { found, needed: known }),
            found if self.has_outgrown() => Err(StoreError::TooNew { found, known, oldest }),
            _ => Ok(()),
        }
    }
}

/// The version of the schema that this binary brings.
pub(super) fn known() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// How the answers of jobs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerForm {
    /// As `jsonb`: every binary can read it.
    Parsed,
    /// As text, which costs the server a third of that; binaries that bring a version before 42 do not find it.
    Text,
}

/// The form in which answers are written on this database. The clones of a store share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    may_be_text: Arc<AtomicBool>,
}

impl Answers {
    /// The form for the next settlement. As long as the version of the schema has not been read, all can read it.
    pub fn form(&self) -> AnswerForm {
        if self.may_be_text.load(Ordering::Relaxed) { AnswerForm::Text } else { AnswerForm::Parsed }
    }

    fn learn(&self, version: SchemaVersion) {
        self.may_be_text.store(version.oldest >= ANSWERS_AS_TEXT, Ordering::Relaxed);
    }
}

/// How often the very first migration is begun again because another process was first.
const TRIES: u32 = 3;

/// Whether the object that was to be made existed by the time that the transaction in its way was over.
fn is_made_meanwhile(error: &StoreError) -> bool {
    let StoreError::Migrate(MigrateError::Execute(source)) = error else { return false };
    // duplicate_schema, duplicate_table, and unique_violation in the server's own tables
    let code = source.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| matches!(code.as_ref(), "42P06" | "42P07" | "23505"))
}

/// Takes the turn, so that of several processes that migrate at once one is first. The turn is a lock on the table of
/// migrations, which only logins that may write it can take; any login could hold an advisory lock. It lasts until the
/// commit and needs no session, so it works behind a pooler. Before that table exists, the process that makes the
/// schema is first: the server makes the others wait for that.
async fn take_turn(transaction: &mut Transaction) -> Result<(), StoreError> {
    let doing = "waiting for the turn to migrate";
    let may_lock = sqlx::query_scalar!(
        r#"select coalesce(has_table_privilege(to_regclass('sluice.migration')::oid, 'update'), false) as "may!""#
    )
    .fetch_one(&mut *transaction)
    .await
    .doing(doing)?;
    if may_lock {
        sqlx::raw_sql("lock table sluice.migration in exclusive mode")
            .execute(transaction)
            .await
            .map_err(|source| or_migrating(source).unwrap_or_else(|source| StoreError::Sql { doing, source }))?;
    }
    Ok(())
}

/// A lock that could not be had in time is held by another process that migrates.
fn or_migrating(source: sqlx::Error) -> Result<StoreError, sqlx::Error> {
    let code = source.as_database_error().and_then(DatabaseError::code);
    if code.as_deref() == Some("55P03") { Ok(StoreError::Migrating) } else { Err(source) }
}

/// A migration that the database has already had.
#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    checksum: Vec<u8>,
}

impl Store {
    /// Brings the schema up to this binary's version and returns the versions before and after. All in one transaction:
    /// other sessions see the old schema or the new one. Missing roles are made, if this login may, and all roles get
    /// the rights that they lack; [`Store::roles`] reports the rights still missing.
    ///
    /// # Errors
    /// [`StoreError::Encoding`] when the encoding of the database is not UTF-8, [`StoreError::NotOurs`] when the login
    /// may not make the schema, or a role that it has nothing to do with made it beforehand, [`StoreError::TooNew`]
    /// when it is too far ahead, [`StoreError::Migrating`] when another process was migrating for longer than the
    /// connection's `lock_timeout` (20 s), [`StoreError::Locked`] when a transaction held a table for longer than 3 s,
    /// [`StoreError::Migrate`] when a migration fails. Nothing is changed then.
    pub async fn migrate(&self) -> Result<SchemaVersion, StoreError> {
        let mut tries = 0;
        loop {
            match self.try_migrate().await {
                // Another process has made the schema meanwhile: now there is a table to take turns by.
                Err(error) if tries < TRIES && is_made_meanwhile(&error) => tries += 1,
                migrated => return migrated,
            }
        }
    }

    async fn try_migrate(&self) -> Result<SchemaVersion, StoreError> {
        let mut transaction = self.db.begin().await.doing("connecting")?;
        // Changes that another process committed while this one waited have to be seen.
        sqlx::raw_sql("set transaction isolation level read committed")
            .execute(&mut transaction)
            .await
            .doing("migrating")?;
        // A migration takes as long as the tables are large; only waiting for locks stays bounded.
        transaction.wait_for_ever();
        sqlx::query!("select set_config('statement_timeout', '0', true)")
            .fetch_one(&mut transaction)
            .await
            .doing("migrating")?;
        require_unicode(&mut transaction).await?;
        let server = MigratingServer::look(&mut transaction).await?;
        if !server.may_look {
            server.require_rights()?;
        }
        take_turn(&mut transaction).await?;
        let applied = applied(&mut transaction).await?;
        let before = SchemaVersion::read(&mut transaction, &applied).await?;
        if before.found > before.known {
            // The process that was ahead has done everything.
            return before.require().map(|()| before);
        }
        if applied.is_empty() && server.schema_owner.is_some() {
            server.require_rights()?;
            server.require_no_strangers(&mut transaction).await?;
        }
        roles::make(&mut transaction).await?;
        apply_missing(&mut transaction, &server, &applied).await?;
        // Even when there is nothing else to do: a role may have come since, or the right to make one.
        roles::grant(&mut transaction).await?;
        transaction.commit().await.doing("migrating")?;
        self.ensure_partitions().await?;
        // After a restore this comes before any job is enqueued. A worker notes the first history, since this database
        // may become a template of others.
        self.look_at_timeline(None, false).await?;
        Ok(before)
    }

    /// The version of the schema, and the one that this binary knows.
    pub async fn schema_version(&self) -> Result<SchemaVersion, StoreError> {
        let mut transaction = self.db.begin().await.doing("connecting")?;
        let applied = applied(&mut transaction).await?;
        let version = SchemaVersion::read(&mut transaction, &applied).await?;
        transaction.commit().await.doing("reading the version of the schema")?;
        self.answers.learn(version);
        Ok(version)
    }

    /// Asks of every binary that it can read answers as text, if a day has passed since the migration and no worker of
    /// an earlier version is left. Returns whether that is so now and was not so at `version`.
    pub async fn leave_older_behind(&self, version: SchemaVersion) -> Result<bool, StoreError> {
        if version.oldest >= ANSWERS_AS_TEXT || version.found < ANSWERS_AS_TEXT {
            return Ok(false);
        }
        // The macros do not know the table of migrations.
        let left = sqlx::query(
            "update sluice.schema_support set oldest = $1
              where oldest < $1
                and not exists (select from sluice.worker w where w.state = 'live' and w.schema_version < $1)
                and exists (select from sluice.migration m
                             where m.version = $1 and m.installed_on < now() - interval '1 day')",
        )
        .bind(ANSWERS_AS_TEXT)
        .execute(&self.db)
        .await
        .doing("asking of every binary that it reads answers as text")?;
        Ok(left.rows_affected() > 0)
    }

    /// Refuses a schema that this binary cannot work on. It may well be able to work on a newer one.
    ///
    /// # Errors
    /// [`StoreError::NotMigrated`], [`StoreError::Outdated`] or [`StoreError::TooNew`].
    pub async fn require_schema(&self) -> Result<(), StoreError> {
        self.schema_version().await?.require()
    }
}

/// Refuses a database that cannot hold every text. In one of another encoding a single job with such a text would stop
/// the statement that claims it, and an answer with an emoji could not be stored.
pub(super) async fn require_unicode(transaction: &mut Transaction) -> Result<(), StoreError> {
    let found = sqlx::query_scalar!(
        r#"select pg_encoding_to_char(encoding) as "encoding!" from pg_database where datname = current_database()"#
    )
    .fetch_one(transaction)
    .await
    .doing("looking at the database's encoding")?;
    if found == "UTF8" { Ok(()) } else { Err(StoreError::Encoding { found }) }
}

/// The migrations that the database has had, by its own notes.
///
/// The table's schema is named: a role called `sluice` (Sluice's own, in the private Postgres) finds the schema
/// `sluice` in its search path as soon as the first migration has made it, and would look for the notes there and not
/// where they were written.
async fn applied(transaction: &mut Transaction) -> Result<Vec<Applied>, StoreError> {
    let table = sqlx::query_scalar!("select to_regclass('sluice.migration') is not null")
        .fetch_one(&mut *transaction)
        .await
        .doing("looking for the schema")?;
    if table != Some(true) {
        return Ok(Vec::new());
    }
    // The table exists before the first migration does, so the macros, which know only the migrations, do not know it.
    sqlx::query_as("select version, checksum from sluice.migration order by version")
        .fetch_all(transaction)
        .await
        .doing("reading the version of the schema")
}

/// The facts about the server and the login that decide how a migration is run.
struct MigratingServer {
    login: String,
    database: String,
    /// The owner of the schema; `None`: there is none yet.
    schema_owner: Option<String>,
    /// Whether the login may act as that owner.
    is_owner: bool,
    /// Whether the login may use the schema.
    may_look: bool,
    /// Whether it may make schemas.
    may_create: bool,
    /// The compressions that the server knows, which depend on how it was built.
    compressions: Vec<String>,
}

impl MigratingServer {
    async fn look(transaction: &mut Transaction) -> Result<Self, StoreError> {
        sqlx::query_as!(
            Self,
            r#"select quote_ident(current_user) as "login!", current_database()::text as "database!",
                      (select quote_ident(pg_get_userbyid(n.nspowner)) from pg_namespace n where n.nspname = 'sluice')
                          as schema_owner,
                      coalesce((select pg_has_role(current_user, n.nspowner, 'usage')
                                  from pg_namespace n where n.nspname = 'sluice'), false) as "is_owner!",
                      coalesce((select has_schema_privilege(n.oid, 'usage')
                                  from pg_namespace n where n.nspname = 'sluice'), true) as "may_look!",
                      has_database_privilege(current_database(), 'create') as "may_create!",
                      coalesce((select s.enumvals from pg_settings s
                                 where s.name = 'default_toast_compression'), '{}') as "compressions!""#
        )
        .fetch_one(transaction)
        .await
        .doing("looking at the server")
    }

    /// Reports in words, and with a remedy, the fault that the server would report in the middle of a migration.
    fn require_rights(&self) -> Result<(), StoreError> {
        let Self { login, database, .. } = self;
        match &self.schema_owner {
            Some(owner) if !self.is_owner => Err(StoreError::NotOurs {
                problem: format!("the schema sluice belongs to {owner}, and {login} may not change it"),
                remedy: format!(
                    "run `sluice migrate` as {owner}, or let an administrator run `grant {owner} to {login};`"
                ),
            }),
            None if !self.may_create => Err(StoreError::NotOurs {
                problem: format!("there is no schema sluice, and {login} may not make one in the database {database}"),
                remedy: format!("let an administrator run `create schema sluice authorization {login};`"),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses to fill a schema that existed before and that another role may change: a table, a type or a function of
    /// that role would be taken for Sluice's, and run with the rights of all who use the queue. Trusted roles are this
    /// login, superusers, and roles of which this login was made a member.
    async fn require_no_strangers(&self, transaction: &mut Transaction) -> Result<(), StoreError> {
        let strangers = sqlx::query_file_scalar!("src/store/schema/strangers.sql")
            .fetch_one(transaction)
            .await
            .doing("reading the owner of the schema")?;
        let Some(strangers) = strangers else { return Ok(()) };
        let login = &self.login;
        Err(StoreError::NotOurs {
            problem: format!(
                "there is a schema sluice that this program has not made, and {strangers} may change objects in \
                 it: those objects would run with the rights of every role that uses the queue"
            ),
            remedy: format!(
                "inspect its objects. If none is needed, let an administrator run `drop schema sluice cascade; \
                 create schema sluice authorization {login};`. When {login} is to share it with that role, \
                 `grant {strangers} to {login};`"
            ),
        })
    }

    /// A migration as this server takes it. The schema exists by now; asking for it once more takes the right to make
    /// one, which its owner need not have. Without lz4, values get the server's default compression.
    fn adapted(&self, migration: &SqlStr) -> SqlStr {
        let mut adapted = migration.as_str().replace("create schema if not exists sluice;", "");
        if !self.compressions.iter().any(|method| method == "lz4") {
            adapted = adapted.replace(" compression lz4", "");
        }
        // All of the text is in this program.
        AssertSqlSafe(adapted).into_sql_str()
    }
}

async fn apply_missing(
    transaction: &mut Transaction,
    server: &MigratingServer,
    applied: &[Applied],
) -> Result<(), StoreError> {
    if MIGRATOR.iter().any(|migration| applied.iter().all(|applied| applied.version != migration.version)) {
        server.require_rights()?;
    }
    if applied.is_empty() {
        if server.schema_owner.is_none() {
            sqlx::raw_sql("create schema sluice")
                .execute(&mut *transaction)
                .await
                .map_err(|source| or_migrating(source).unwrap_or_else(|source| MigrateError::Execute(source).into()))?;
        }
        // In the form that sqlx's own migrator gives it.
        sqlx::raw_sql(
            "create table if not exists sluice.migration (
                 version bigint primary key,
                 description text not null,
                 installed_on timestamptz not null default now(),
                 success boolean not null,
                 checksum bytea not null,
                 execution_time bigint not null
             )",
        )
        .execute(&mut *transaction)
        .await
        .map_err(|source| or_migrating(source).unwrap_or_else(|source| MigrateError::Execute(source).into()))?;
    }
    if let Some(unknown) = applied.iter().find(|applied| !MIGRATOR.version_exists(applied.version)) {
        return Err(MigrateError::VersionMissing(unknown.version).into());
    }
    for migration in MIGRATOR.iter() {
        let version = migration.version;
        if let Some(applied) = applied.iter().find(|applied| applied.version == version) {
            if *applied.checksum != *migration.checksum {
                return Err(MigrateError::VersionMismatch(version).into());
            }
            continue;
        }
        let began = Instant::now();
        // For each migration anew, as the one before may have set its own.
        sqlx::query!("select set_config('lock_timeout', $1, true)", LOCK_TIMEOUT)
            .fetch_one(&mut *transaction)
            .await
            .map_err(MigrateError::Execute)?;
        sqlx::raw_sql(server.adapted(&migration.sql)).execute(&mut *transaction).await.map_err(
            |source| match source.as_database_error().and_then(DatabaseError::code).as_deref() {
                Some("55P03") => StoreError::Locked { version },
                _ => MigrateError::ExecuteMigration(source, version).into(),
            },
        )?;
        sqlx::query(
            "insert into sluice.migration (version, description, success, checksum, execution_time)
                  values ($1, $2, true, $3, $4)",
        )
        .bind(version)
        .bind(&*migration.description)
        .bind(&*migration.checksum)
        .bind(i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await
        .map_err(MigrateError::Execute)?;
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
