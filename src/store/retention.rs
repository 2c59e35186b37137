//! Dropping finished work by partition. `migrations/0004…` has the steps, and why they are safe.

use super::{Doing, Store, StoreError};
use chrono::{DateTime, Utc};
use std::time::Duration;

/// The result of one step of [`Store::retire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// Nothing is old enough.
    Nothing,
    /// Another process is at work, or others hold locks that are needed. A later call tries again, and no session is
    /// kept waiting.
    Busy,
    /// A step was taken with this partition: there is more to do at once.
    Underway { partition: i64 },
    /// This partition would be old enough, were it not for a job that has not ended.
    Open { partition: i64, job: i64 },
    /// This partition would be old enough, were it not for an object of another owner that depends on its tables, or on
    /// idempotency keys: [`Store::kept_for_others`] names it.
    Needed { partition: i64 },
    /// This partition is gone.
    Dropped {
        partition: i64,
        /// Jobs that were in it.
        jobs: i64,
    },
}

/// A partition that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetiredPartition {
    pub partition: i64,
    /// Jobs that were in it.
    pub jobs: i64,
    pub dropped_at: DateTime<Utc>,
}

/// `lock_not_available`: another transaction was in the way for longer than Sluice makes others wait behind it.
fn is_busy(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
}

impl Store {
    /// Goes on to the next partition when the first job of the present one is older than `age`; returns the number of
    /// the new one. `None`: there is no need, or now is not the moment.
    pub async fn begin_partition(&self, age: Duration) -> Result<Option<i64>, StoreError> {
        let begun = sqlx::query_scalar!("select sluice.begin_partition(make_interval(secs => $1))", age.as_secs_f64())
            .fetch_one(&self.db)
            .await;
        match begun {
            Err(error) if is_busy(&error) => Ok(None),
            begun => begun.doing("beginning a partition"),
        }
    }

    /// One step towards dropping the oldest partition whose jobs have all ended longer than `keep` ago.
    pub async fn retire(&self, keep: Duration) -> Result<Retired, StoreError> {
        let step = sqlx::query!(
            r#"select outcome as "outcome!", partition, detail from sluice.retire(make_interval(secs => $1))"#,
            keep.as_secs_f64()
        )
        .fetch_one(&self.db)
        .await;
        let step = match step {
            Err(error) if is_busy(&error) => return Ok(Retired::Busy),
            step => step.doing("dropping finished work")?,
        };
        let partition = step.partition.unwrap_or(0);
        Ok(match step.outcome.as_str() {
            "dropped" => Retired::Dropped { partition, jobs: step.detail.unwrap_or(0) },
            "needed" => Retired::Needed { partition },
            "open" => Retired::Open { partition, job: step.detail.unwrap_or(0) },
            "watched" | "again" | "counted" | "keys" | "touched" | "young" => Retired::Underway { partition },
            "elsewhere" => Retired::Busy,
            // "nothing", and any word of a newer schema.
            _ => Retired::Nothing,
        })
    }

    /// Partitions that would be old enough, and the objects of others (foreign keys, views, functions) that depend on
    /// each.
    pub async fn kept_for_others(&self) -> Result<Vec<(i64, Vec<String>)>, StoreError> {
        let rows = sqlx::query!(
            r#"select part, dependents as "dependents!" from sluice.retiring where dependents is not null
                 order by part"#
        )
        .fetch_all(&self.db)
        .await
        .doing("looking for what keeps old work")?;
        Ok(rows.into_iter().map(|row| (row.part, row.dependents)).collect())
    }

    /// The partition with which a job was dropped; `None` for a job that is kept, or never existed.
    pub async fn retired(&self, job: i64) -> Result<Option<RetiredPartition>, StoreError> {
        sqlx::query_as!(
            RetiredPartition,
            "select part as partition, jobs, dropped_at from sluice.retired where $1::bigint between first_id and \
             last_id",
            job
        )
        .fetch_optional(&self.db)
        .await
        .doing("looking for what was dropped")
    }

    /// Whether anything was ever dropped.
    pub async fn has_retired(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select exists (select from sluice.retired where jobs > 0) as "some!""#)
            .fetch_one(&self.db)
            .await
            .doing("looking for what was dropped")
    }
}
