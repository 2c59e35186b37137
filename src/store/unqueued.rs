//! Jobs that are in no queue, because they came in while triggers were off: finding them, and putting them into the
//! queue.

use super::stretches::WalkTime;
use super::{Doing, Store, StoreError};
use crate::domain::diagnosis::Unqueued;
use std::time::Duration;

/// How many job numbers one statement looks through.
const AT_ONCE: i64 = 250_000;

/// How many jobs one statement puts into the queue; it has a minute for that.
const QUEUED_AT_ONCE: i64 = 50_000;

/// How many jobs are named.
const NAMED: usize = 10;

/// The result of [`Store::queue_unqueued`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Jobs that were put into the queue.
    pub jobs: i64,
    /// Jobs that were left out: another job has their idempotency key, or their priority or `max_attempts` is not
    /// valid.
    pub left: Vec<i64>,
}

impl Store {
    /// Looks for jobs that are in no queue, the newest first, for about `patience`.
    pub async fn unqueued(&self, patience: Duration) -> Result<Unqueued, StoreError> {
        let mut found = Unqueued { jobs: 0, some: Vec::new(), looked_from: None };
        let (mut stretches, mut patience) = (self.stretches(i64::MAX, AT_ONCE), WalkTime::of(patience));
        while let Some(stretch) = stretches.next().await? {
            found.looked_from = patience.is_over(stretch);
            if found.looked_from.is_some() {
                break;
            }
            let row = sqlx::query!(
                r#"with found as materialized (select job_id from sluice.unqueued($1, $2))
                   select count(*) as "jobs!", array(select job_id from found order by job_id limit $3) as "some!"
                     from found"#,
                stretch.first,
                stretch.last.saturating_add(1),
                i64::try_from(NAMED).unwrap_or(i64::MAX)
            )
            .fetch_one(&self.db)
            .await
            .doing("looking for jobs that are in no queue")?;
            found.jobs += row.jobs;
            found.some.splice(0..0, row.some);
            found.some.truncate(NAMED);
        }
        Ok(found)
    }

    /// Puts all jobs that are in no queue into it.
    pub async fn queue_unqueued(&self) -> Result<Queued, StoreError> {
        let mut done = Queued::default();
        let mut stretches = self.stretches(i64::MAX, QUEUED_AT_ONCE);
        while let Some(stretch) = stretches.next().await? {
            let row = sqlx::query!(
                r#"select queued as "queued!", kept as "kept!" from sluice.queue_unqueued($1, $2)"#,
                stretch.first,
                stretch.last.saturating_add(1)
            )
            .fetch_one(&self.db)
            .await
            .doing("putting jobs into the queue")?;
            done.jobs += row.queued;
            done.left.splice(0..0, row.kept);
        }
        Ok(done)
    }

    /// Jobs of a route that are in no queue, up to this number.
    pub(super) async fn unqueued_of_route(&self, route: &str, last: i64) -> Result<Vec<i64>, StoreError> {
        let mut found = Vec::new();
        let mut stretches = self.stretches(last, AT_ONCE);
        while let Some(stretch) = stretches.next().await? {
            let jobs = sqlx::query_scalar!(
                r#"select u.job_id as "job_id!"
                     from sluice.unqueued($2, $3) u
                          cross join lateral (select b.route from sluice.job b where b.id = u.job_id limit 1) j
                    where j.route = $1"#,
                route,
                stretch.first,
                stretch.last.saturating_add(1)
            )
            .fetch_all(&self.db)
            .await
            .doing("looking for jobs that are in no queue")?;
            found.extend(jobs);
        }
        Ok(found)
    }

    /// How many unfinished jobs of a batch are in no queue. Only the batch's own rows are read.
    pub async fn unqueued_of_batch(&self, batch: &str) -> Result<i64, StoreError> {
        sqlx::query_scalar!(
            r#"select count(*) as "jobs!"
                 from sluice.job j cross join lateral sluice.unqueued(j.id, j.id + 1) u
                where j.batch = $1"#,
            batch
        )
        .fetch_one(&self.db)
        .await
        .doing("looking for jobs that are in no queue")
    }
}
