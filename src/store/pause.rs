//! Stopping and resuming routes, projects, batches and providers.

use super::{Doing, Store, StoreError};
use crate::domain::pause::{PauseKind, Pauses};

impl Store {
    /// Pauses something; false when it was paused already.
    pub async fn pause(&self, kind: PauseKind, name: &str, reason: Option<&str>) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select sluice.pause($1, $2, $3) as "changed!""#, kind.as_str(), name, reason)
            .fetch_one(&self.db)
            .await
            .doing("pausing")
    }

    /// Resumes something; false when it was not paused.
    pub async fn resume(&self, kind: PauseKind, name: &str) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select sluice.resume($1, $2) as "changed!""#, kind.as_str(), name)
            .fetch_one(&self.db)
            .await
            .doing("resuming")
    }

    /// Everything that is paused and that this program knows.
    pub async fn pauses(&self) -> Result<Pauses, StoreError> {
        let rows = sqlx::query!("select kind, name from sluice.pause order by kind, name")
            .fetch_all(&self.db)
            .await
            .doing("reading pauses")?;
        Ok(rows.into_iter().filter_map(|row| Some((PauseKind::named(&row.kind)?, row.name))).collect())
    }

    /// The same, and the number that counts up whenever a budget is added or removed; 0: there has never been one. One
    /// statement, since it is asked at each look for work.
    pub async fn pauses_and_budgets(&self) -> Result<(Pauses, i64), StoreError> {
        let rows = sqlx::query!(
            r#"select v.version, p.kind as "kind?", p.name as "name?"
                 from sluice.budget_version v left join sluice.pause p on true order by p.kind, p.name"#
        )
        .fetch_all(&self.db)
        .await
        .doing("reading pauses")?;
        let version = rows.first().map_or(0, |row| row.version);
        let paused = rows.into_iter().filter_map(|row| Some((PauseKind::named(&row.kind?)?, row.name?)));
        Ok((paused.collect(), version))
    }
}
