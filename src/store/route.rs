//! Changes to all jobs of a route.

use super::batch::Retried;
use super::{Doing, Store, StoreError};
use std::collections::BTreeSet;

/// Jobs that one statement cancels or retries: few enough that locks are held for a moment only.
const CHUNK: usize = 1_000;

/// Rows that one statement looks through.
const PAGE: i64 = 10_000;

/// Job numbers that one statement looks through for results.
const SPAN: i64 = 100_000;

/// How often a chunk that met another transaction's locks is tried before that is an error.
const TRIES: u32 = 5;

/// How often to look again for jobs that were moving between the tables.
const LOOKS: u32 = 5;

impl Store {
    /// The unfinished jobs of a route, up to the newest that there is now, including those in no queue.
    pub async fn unfinished_of_route(&self, route: &str) -> Result<Vec<i64>, StoreError> {
        let newest = self.newest_job().await?;
        let mut jobs: BTreeSet<i64> = self.unfinished_until(route, newest).await?.into_iter().collect();
        jobs.extend(self.unqueued_of_route(route, newest).await?);
        Ok(jobs.into_iter().collect())
    }

    /// The jobs of a route that failed.
    pub async fn failed_of_route(&self, route: &str) -> Result<Vec<i64>, StoreError> {
        let ends = sqlx::query!("select min(job_id) as first, max(job_id) as last from sluice.result")
            .fetch_one(&self.db)
            .await
            .doing("looking for failed jobs")?;
        let (Some(first), Some(last)) = (ends.first, ends.last) else { return Ok(Vec::new()) };
        let mut failed = Vec::new();
        let mut from = first;
        while from <= last {
            let found = sqlx::query_scalar!(
                r#"select r.job_id
                     from sluice.result r
                          cross join lateral (select b.route from sluice.job b where b.id = r.job_id limit 1) j
                    where r.job_id >= $2 and r.job_id < $3 and r.state = 'failed' and j.route = $1
                    order by r.job_id"#,
                route,
                from,
                from.saturating_add(SPAN)
            )
            .fetch_all(&self.db)
            .await
            .doing("looking for failed jobs")?;
            failed.extend(found);
            from = from.saturating_add(SPAN);
        }
        Ok(failed)
    }

    /// Cancels the unfinished jobs of a route that existed when it was called for, and returns how many. `jobs` is the
    /// result of [`Store::unfinished_of_route`]; `progress` gets the number of each chunk.
    pub async fn cancel_route(
        &self,
        route: &str,
        jobs: Vec<i64>,
        mut progress: impl FnMut(i64),
    ) -> Result<i64, StoreError> {
        let (mut jobs, mut cancelled) = (jobs, 0);
        let Some(newest) = jobs.iter().copied().max() else { return Ok(0) };
        // A job that moved from one table to another during the look is found the next time.
        for _ in 0..LOOKS {
            for chunk in jobs.chunks(CHUNK) {
                cancelled += self.cancel_jobs(chunk).await?;
                progress(cancelled);
            }
            jobs = self.unfinished_until(route, newest).await?;
            if jobs.is_empty() {
                break;
            }
        }
        Ok(cancelled)
    }

    /// Puts failed jobs back into the queue.
    pub async fn retry_jobs(&self, jobs: &[i64], mut progress: impl FnMut(i64)) -> Result<Retried, StoreError> {
        let mut retried = Retried::default();
        for chunk in jobs.chunks(CHUNK) {
            let step = sqlx::query!(
                r#"select count(*) filter (where sluice.retry(c.id)) as "changed!",
                          count(*) filter (where j.deadline <= now()) as "overdue!"
                     from unnest($1::bigint[]) c(id) left join lateral (
                          select b.deadline from sluice.job b where b.id = c.id limit 1) j on true"#,
                chunk
            )
            .fetch_one(&self.db)
            .await
            .doing("retrying the jobs")?;
            retried.jobs += step.changed;
            retried.overdue += step.overdue;
            progress(retried.jobs);
        }
        Ok(retried)
    }

    async fn cancel_jobs(&self, jobs: &[i64]) -> Result<i64, StoreError> {
        let mut tries = 0;
        loop {
            let cancelled = sqlx::query_scalar!(
                r#"select count(*) filter (where sluice.cancel(id)) as "changed!" from unnest($1::bigint[]) id"#,
                jobs
            )
            .fetch_one(&self.db)
            .await
            .doing("cancelling the jobs");
            match cancelled {
                // A worker settles the same jobs in another order, so one of the two had to yield.
                Err(error) if error.is_transient() && tries < TRIES => tries += 1,
                cancelled => return cancelled,
            }
        }
    }

    async fn newest_job(&self) -> Result<i64, StoreError> {
        let newest = sqlx::query_scalar!("select max(id) from sluice.job").fetch_one(&self.db).await;
        Ok(newest.doing("looking for the newest job")?.unwrap_or(0))
    }

    /// In steps, since each job of the queue is looked up separately.
    async fn unfinished_until(&self, route: &str, newest: i64) -> Result<Vec<i64>, StoreError> {
        let doing = "looking for unfinished jobs";
        let mut jobs = BTreeSet::new();
        let mut from = Some(i64::MIN);
        while let Some(first) = from {
            let (flows, next) = self.flows_from(first).await?;
            from = next;
            for flow in flows.into_iter().filter(|lane| lane.route == route).map(|lane| lane.flow) {
                let mut after = (i16::MIN, i64::MIN);
                loop {
                    let page = sqlx::query!(
                        r#"select r.prio, r.job_id, j.route = $1 as "is_ours!"
                             from (select prio, job_id from sluice.ready
                                    where flow = $2 and (prio, job_id) > ($3, $4) order by prio, job_id limit $5) r
                                  cross join lateral (select b.route from sluice.job b where b.id = r.job_id limit 1) j
                            order by r.prio, r.job_id"#,
                        route,
                        flow,
                        after.0,
                        after.1,
                        PAGE
                    )
                    .fetch_all(&self.db)
                    .await
                    .doing(doing)?;
                    let Some(last) = page.last().map(|row| (row.prio, row.job_id)) else { break };
                    jobs.extend(page.iter().filter(|row| row.is_ours).map(|row| row.job_id));
                    after = last;
                }
            }
        }
        let mut after = i64::MIN;
        loop {
            let page = sqlx::query!(
                r#"select p.job_id, j.route = $1 as "is_ours!"
                     from (select job_id from sluice.parked where job_id > $2 order by job_id limit $3) p
                          cross join lateral (select b.route from sluice.job b where b.id = p.job_id limit 1) j
                    order by p.job_id"#,
                route,
                after,
                PAGE
            )
            .fetch_all(&self.db)
            .await
            .doing(doing)?;
            let Some(last) = page.last().map(|row| row.job_id) else { break };
            jobs.extend(page.iter().filter(|row| row.is_ours).map(|row| row.job_id));
            after = last;
        }
        let running = sqlx::query_scalar!(
            "select i.job_id from sluice.inflight i
                    cross join lateral (select b.route from sluice.job b where b.id = i.job_id limit 1) j
              where j.route = $1",
            route
        )
        .fetch_all(&self.db)
        .await
        .doing(doing)?;
        jobs.extend(running);
        Ok(jobs.into_iter().take_while(|job| *job <= newest).collect())
    }
}
