//! What a database needs before a queue is brought into it from another one.

use super::{Doing, Store, StoreError, roles, schema};

const LOOKING: &str = "looking whether the database is free";

/// The obstacle to an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InTheWay {
    /// There is a schema `sluice`, with so many jobs as far as this login sees.
    Schema,
    /// These roles are missing, and this login may not make them.
    Roles(Vec<String>),
    /// This login may not make a schema; its name, and that of the database.
    Rights(String, String),
}

impl Store {
    /// Makes the roles that the rights in an export name, and tells the obstacle to an import; `None`: there is none.
    ///
    /// # Errors
    /// Those of the database; [`StoreError::Encoding`] when it cannot hold every text.
    pub async fn make_room_for_import(&self) -> Result<Option<InTheWay>, StoreError> {
        let mut transaction = self.db.begin().await.doing(LOOKING)?;
        schema::require_unicode(&mut transaction).await?;
        let here = sqlx::query!(
            r#"select to_regnamespace('sluice') is not null as "is_there!", current_user::text as "login!",
                      current_database()::text as "database!",
                      has_database_privilege(current_database(), 'create') as "may_create!""#
        )
        .fetch_one(&mut transaction)
        .await
        .doing(LOOKING)?;
        if here.is_there {
            return Ok(Some(InTheWay::Schema));
        }
        if !here.may_create {
            return Ok(Some(InTheWay::Rights(here.login, here.database)));
        }
        roles::make(&mut transaction).await?;
        let missing = sqlx::query_scalar!(
            r#"select r.name as "name!" from unnest($1::text[]) r(name) where to_regrole(r.name) is null"#,
            &roles::ROLES.map(str::to_owned) as _
        )
        .fetch_all(&mut transaction)
        .await
        .doing(LOOKING)?;
        if !missing.is_empty() {
            return Ok(Some(InTheWay::Roles(missing)));
        }
        transaction.commit().await.doing(LOOKING)?;
        Ok(None)
    }

    /// The owner of the schema, if this login may not act as that: then it cannot read all that an export holds.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn other_owner(&self) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar!(
            r#"select pg_get_userbyid(n.nspowner)::text as "owner!" from pg_namespace n
                where n.nspname = 'sluice' and not pg_has_role(current_user, n.nspowner, 'usage')"#
        )
        .fetch_optional(&self.db)
        .await
        .doing("looking at the rights of this login")
    }

    /// Counts the imported rows, so that statements are planned as they were before, and returns how many jobs there
    /// are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn settle_in(&self) -> Result<i64, StoreError> {
        let doing = "counting what was brought in";
        let mut transaction = self.db.begin().await.doing(doing)?;
        transaction.wait_for_ever();
        sqlx::query!("select set_config('statement_timeout', '0', true)")
            .fetch_one(&mut transaction)
            .await
            .doing(doing)?;
        sqlx::raw_sql(
            "analyze sluice.job, sluice.result, sluice.attempt, sluice.ready, sluice.parked, sluice.inflight, \
             sluice.idempotency, sluice.tally, sluice.tally_hour, sluice.tally_hour_all, sluice.tally_hour_target, \
             sluice.tally_day_all",
        )
        .execute(&mut transaction)
        .await
        .doing(doing)?;
        let jobs = sqlx::query_scalar!(r#"select count(*) as "jobs!" from sluice.job"#)
            .fetch_one(&mut transaction)
            .await
            .doing(doing)?;
        transaction.commit().await.doing(doing)?;
        Ok(jobs)
    }
}
