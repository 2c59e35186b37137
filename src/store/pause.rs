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
}
