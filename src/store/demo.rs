//! The statements of the demo.

use super::{Doing, Store, StoreError};
use crate::domain::{JobId, NanoUsd};

/// The progress of all jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Jobs that ended.
    pub finished: i64,
    /// … of them failures.
    pub failed: i64,
    /// Money spent so far.
    pub cost: NanoUsd,
    /// Targets that are not open at the moment, and why.
    pub shut: Vec<String>,
}

impl Store {
    /// Enqueues `count` jobs by one plain INSERT.
    pub async fn enqueue_demo(&self, batch: &str, count: usize) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into sluice.job (batch, custom_id, request)
             select $1, 'review-' || n,
                    jsonb_build_object('max_tokens', 600, 'messages', jsonb_build_array(jsonb_build_object(
                        'role', 'user',
                        'content', 'Review ' || n || ': it came late and the box was open. Is the author angry?')))
               from generate_series(1, $2::bigint) n",
            batch,
            i64::try_from(count).unwrap_or(i64::MAX)
        )
        .execute(&self.db)
        .await
        .doing("enqueueing")?;
        Ok(())
    }

    /// The progress of all jobs, from the tallies and the workers' last statistics.
    pub async fn progress(&self) -> Result<Progress, StoreError> {
        let row = sqlx::query!(
            r#"select coalesce(sum(succeeded + failed + cancelled), 0)::bigint as "finished!",
                      coalesce(sum(failed), 0)::bigint as "failed!",
                      sluice.capped(coalesce(sum(cost_nanos), 0)) as "cost!",
                      coalesce((select array_agg(t ->> 'target' || ' ' ||
                                           coalesce(t ->> 'closed', 'breaker ' || (t ->> 'breaker')))
                                  from sluice.worker w, jsonb_array_elements(w.stats #> '{gate,targets}') t
                                 where w.state = 'live'
                                   and (t ->> 'closed' is not null or t ->> 'breaker' <> 'closed')), '{}')
                          as "shut!"
                 from sluice.totals"#
        )
        .fetch_one(&self.db)
        .await
        .doing("looking at progress")?;
        Ok(Progress { finished: row.finished, failed: row.failed, cost: NanoUsd(row.cost), shut: row.shut })
    }

    /// A job that succeeded at another target than the first it tried: the one with the most to show.
    pub async fn job_that_fell_back(&self) -> Result<Option<JobId>, StoreError> {
        let job = sqlx::query_scalar!(
            "select a.job_id from sluice.attempt a join sluice.result r on r.job_id = a.job_id and r.state = 'succeeded'
              group by a.job_id having count(distinct a.provider) > 1
              order by count(distinct a.provider) desc, count(*) desc, a.job_id limit 1"
        )
        .fetch_optional(&self.db)
        .await
        .doing("looking for a job that fell back")?;
        Ok(job.map(JobId))
    }
}
