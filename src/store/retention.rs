//! Dropping finished work by partition. The steps, and why they are safe, stand in `migrations/0004…`.

use super::{Doing, Store, StoreError};
use chrono::{DateTime, Utc};
use std::time::Duration;

/// What one step of [`Store::retire`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// Nothing is old enough.
    Nothing,
    /// Another process is at it, or others hold what would have to be locked. It is tried again later, and nobody is
    /// kept waiting.
    Busy,
    /// A step further with this partition: there is more to do at once.
    Underway {
        /// Which.
        partition: i64,
    },
    /// This partition would be old enough, were it not for a job that has not ended.
    Open {
        /// Which.
        partition: i64,
        /// The job.
        job: i64,
    },
    /// This partition would be old enough, were it not for an object of another owner that depends on its tables, or on
    /// idempotency keys: [`Store::kept_for_others`] names it.
    Needed {
        /// Which.
        partition: i64,
    },
    /// This partition is gone.
    Dropped {
        /// Which.
        partition: i64,
        /// Jobs that were in it.
        jobs: i64,
    },
}

/// A partition that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetiredPartition {
    /// Its number.
    pub partition: i64,
    /// Jobs that were in it.
    pub jobs: i64,
    /// When it was dropped.
    pub dropped_at: DateTime<Utc>,
}

/// `lock_not_available`: somebody else's transaction was in the way for longer than we make others wait behind us.
fn is_busy(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
}

impl Store {
    /// Goes on to the next partition when the first job of the present one is older than `age`; returns which one was
    /// begun. `None`: no need, or not now.
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
            // "nothing", and whatever a newer schema knows.
            _ => Retired::Nothing,
        })
    }

    /// Partitions that would be old enough, and what objects of others depend on each: foreign keys, views, functions.
    pub async fn kept_for_others(&self) -> Result<Vec<(i64, Vec<String>)>, StoreError> {
        let rows = sqlx::query!(
            r#"select part, dependents as "dependents!" from sluice.retiring where dependents is not null order by part"#
        )
        .fetch_all(&self.db)
        .await
        .doing("looking for what keeps old work")?;
        Ok(rows.into_iter().map(|row| (row.part, row.dependents)).collect())
    }

    /// The partition that a job was dropped with; `None` for a job that is kept, or never was.
    pub async fn retired(&self, job: i64) -> Result<Option<RetiredPartition>, StoreError> {
        sqlx::query_as!(
            RetiredPartition,
            "select part as partition, jobs, dropped_at from sluice.retired where $1::bigint between first_id and last_id",
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
