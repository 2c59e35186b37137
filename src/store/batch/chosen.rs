//! Some jobs of a batch, chosen by how they stand: listed, counted, and put back into the queue.

use super::super::{Doing, Store, StoreError};
use super::TRIES;
use crate::domain::NanoUsd;
use crate::domain::job::JobState;

/// Jobs that one statement of a list looks at. The number is written into the statement, so that the planner knows it.
const LISTED: u64 = 5_000;

/// Which jobs of a batch are meant. An empty list leaves the choice open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Their states.
    pub states: Vec<JobState>,
    /// The error classes of failed jobs.
    pub classes: Vec<String>,
    /// A part of the error, in capital or small letters.
    pub error: Option<String>,
}

impl JobFilter {
    /// Whether it takes a job.
    fn takes(&self, job: &ListedJob) -> bool {
        let class = job.error_class.as_deref().unwrap_or_default();
        let error = job.error.as_deref().unwrap_or_default().to_lowercase();
        (self.states.is_empty() || self.states.iter().any(|state| state.as_str() == job.state))
            && (self.classes.is_empty() || self.classes.iter().any(|one| one == class))
            && self.error.as_ref().is_none_or(|part| job.error.is_some() && error.contains(&part.to_lowercase()))
    }

    fn states(&self) -> Vec<String> {
        self.states.iter().map(|state| state.as_str().to_owned()).collect()
    }
}

/// A job in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedJob {
    pub job: i64,
    pub custom_id: Option<String>,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// Calls made for it; `None`: it has not ended.
    pub attempts: Option<i16>,
    pub error_class: Option<String>,
    pub error: Option<String>,
    /// All its calls together; `None`: it has not ended, or a price is unknown.
    pub cost: Option<NanoUsd>,
}

/// Jobs that were put back into the queue, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// How many there are.
    pub jobs: i64,
    /// Those of them whose deadline is over: a worker fails them without a call.
    pub overdue: i64,
}

impl Store {
    /// The jobs of a batch above a number that the filter takes, in order, at most `most`. They are looked for a few
    /// thousand at a time, so that no statement takes long, however large the batch and however few the filter takes.
    pub async fn list_jobs(
        &self,
        batch: &str,
        filter: &JobFilter,
        after: i64,
        most: usize,
    ) -> Result<Vec<ListedJob>, StoreError> {
        if !self.reads_all().await? {
            return self.list_own_jobs(batch, filter, after, most).await;
        }
        let (mut found, mut after) = (Vec::new(), after);
        loop {
            let rows = sqlx::query!(
                r#"with page as materialized (
                        select id, custom_id from sluice.job where batch = $1 and id > $2 order by id limit 5000),
                   look as materialized (
                        select p.id, p.custom_id, r.attempts, r.error_class, r.error, r.cost_nanos,
                               coalesce(r.state, case when exists (select from sluice.inflight i
                                                                    where i.job_id = p.id)
                                                      then 'running' else 'queued' end) as state
                          from page p left join lateral (
                               select * from sluice.result r where r.job_id = p.id limit 1) r on true)
                   select (select max(id) from page) as page_end, (select count(*) from page) as "page_size!",
                          l.id as "job?", l.custom_id as "custom_id?", l.state as "state?", l.attempts as "attempts?",
                          l.error_class as "error_class?", l.error as "error?", l.cost_nanos as "cost_nanos?"
                     from (values (1)) one(row)
                          left join look l
                            on (cardinality($3::text[]) = 0 or l.state = any ($3))
                           and (cardinality($4::text[]) = 0 or l.error_class = any ($4))
                           and ($5::text is null or strpos(lower(l.error), lower($5)) > 0)
                    order by l.id"#,
                batch,
                after,
                &filter.states() as _,
                &filter.classes as _,
                filter.error.as_deref() as _
            )
            .fetch_all(&self.db)
            .await
            .doing("reading the jobs of the batch")?;
            let end = rows.first().and_then(|row| row.page_end);
            let is_last = rows.first().is_none_or(|row| u64::try_from(row.page_size).unwrap_or(0) < LISTED);
            for row in rows {
                let (Some(job), Some(state)) = (row.job, row.state) else { continue };
                found.push(ListedJob {
                    job,
                    custom_id: row.custom_id,
                    state,
                    attempts: row.attempts,
                    error_class: row.error_class,
                    error: row.error,
                    cost: row.cost_nanos.map(NanoUsd),
                });
                if found.len() >= most {
                    return Ok(found);
                }
            }
            match end {
                Some(end) if !is_last => after = end,
                _ => return Ok(found),
            }
        }
    }

    /// The same of the jobs that this login has enqueued, where it sees no others.
    async fn list_own_jobs(
        &self,
        batch: &str,
        filter: &JobFilter,
        mut after: i64,
        most: usize,
    ) -> Result<Vec<ListedJob>, StoreError> {
        let mut found = Vec::new();
        loop {
            let rows = sqlx::query!(
                r#"select job_id as "job!", custom_id, state as "state!", attempts, error_class, error, cost_nanos
                     from sluice.own_listed($1, $2)"#,
                batch,
                after
            )
            .fetch_all(&self.db)
            .await
            .doing("reading the jobs of the batch")?;
            let read = u64::try_from(rows.len()).unwrap_or(0);
            for row in rows {
                after = row.job;
                let job = ListedJob {
                    job: row.job,
                    custom_id: row.custom_id,
                    state: row.state,
                    attempts: row.attempts,
                    error_class: row.error_class,
                    error: row.error,
                    cost: row.cost_nanos.map(NanoUsd),
                };
                if filter.takes(&job) {
                    found.push(job);
                }
                if found.len() >= most {
                    return Ok(found);
                }
            }
            if read < LISTED {
                return Ok(found);
            }
        }
    }

    /// Puts the jobs of a batch that the filter takes back into the queue, of those that failed or were cancelled, a
    /// thousand at a time; with `only_counts` they are counted. Jobs whose place another file took stay as they are.
    /// `progress` gets the number of each step.
    pub async fn retry_chosen(
        &self,
        batch: &str,
        filter: &JobFilter,
        only_counts: bool,
        mut progress: impl FnMut(i64),
    ) -> Result<Retried, StoreError> {
        let (mut after, mut retried) = (0, Retried::default());
        loop {
            let mut tries = 0;
            let step = loop {
                let step = sqlx::query!(
                    r#"with page as materialized (
                            select id, deadline <= now() as overdue from sluice.job
                             where batch = $1 and id > $2 order by id limit 1000),
                       chosen as materialized (
                            select p.id, p.overdue
                              from page p cross join lateral (
                                   select r.state, r.error_class, r.error from sluice.result r
                                    where r.job_id = p.id limit 1) r
                             where r.state in ('failed', 'cancelled')
                               and (r.state = 'failed' or r.error is distinct from 'replaced')
                               and (cardinality($3::text[]) = 0 or r.state = any ($3))
                               and (cardinality($4::text[]) = 0 or r.error_class = any ($4))
                               and ($5::text is null or strpos(lower(r.error), lower($5)) > 0)
                             order by p.id)
                       select (select max(id) from page) as last, count(*) filter (where c.overdue) as "overdue!",
                              count(*) filter (where case when $6 then true else sluice.retry(c.id) end) as "changed!"
                         from chosen c"#,
                    batch,
                    after,
                    &filter.states() as _,
                    &filter.classes as _,
                    filter.error.as_deref() as _,
                    only_counts
                )
                .fetch_one(&self.db)
                .await
                .doing("retrying the batch");
                match step {
                    // A worker settles jobs of the same batch in another order, so one of the two had to yield.
                    Err(error) if error.is_transient() && tries < TRIES => tries += 1,
                    step => break step?,
                }
            };
            retried.jobs += step.changed;
            retried.overdue += step.overdue;
            let Some(last) = step.last else { return Ok(retried) };
            after = last;
            progress(retried.jobs);
        }
    }
}
