//! Telling sessions that listen which jobs have ended.

use super::{Doing, Store, StoreError};
use crate::domain::notice::{self, CHANNEL};

impl Store {
    /// Tells all sessions that listen on [`CHANNEL`] which jobs have ended.
    ///
    /// In a statement of its own, and not in the transaction that ended them: a transaction with a notification holds a
    /// lock of the whole server from before its commit is on the disk until after that, so settlements would no longer
    /// share the disk's flushes. One that writes nothing else flushes nothing, and holds the lock for microseconds.
    pub async fn tell_ended(&self, jobs: &[i64]) -> Result<(), StoreError> {
        sqlx::query_scalar!(
            r#"select count(pg_notify($1, told.payload)) as "told!" from unnest($2::text[]) told(payload)"#,
            CHANNEL,
            &notice::payloads(jobs)
        )
        .fetch_one(&self.db)
        .await
        .doing("telling which jobs have ended")?;
        Ok(())
    }
}
