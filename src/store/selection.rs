//! Jobs of any batch and route, chosen by what they are and how they stand: listed, counted, and changed together.

use super::batch::JobFilter;
use super::job::Changed;
use super::{Doing, Store, StoreError};
use crate::domain::job::JobState;
use crate::domain::{JobId, NanoUsd};
use std::time::{Duration, Instant};

/// Jobs that one statement of a list looks at. The number is written into the statements.
const LISTED: i64 = 5_000;
/// How often a step that met another transaction's locks is tried before that is an error.
const TRIES: u32 = 5;

/// Which jobs are meant: those that match every named member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub batch: Option<String>,
    pub project: Option<String>,
    pub route: Option<String>,
    /// The login that enqueued them.
    pub login: Option<String>,
    /// How they stand.
    pub standing: JobFilter,
}

/// A job of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedJob {
    pub job: i64,
    pub route: String,
    pub project: String,
    pub batch: Option<String>,
    pub custom_id: Option<String>,
    pub state: JobState,
    /// Calls made for it; `None`: it has not ended.
    pub attempts: Option<i16>,
    pub error_class: Option<String>,
    pub error: Option<String>,
    /// All its calls together; `None`: it has not ended, or a price is unknown.
    pub cost: Option<NanoUsd>,
}

/// Some jobs of a selection, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectedPage {
    pub jobs: Vec<SelectedJob>,
    /// Where the next page begins: jobs below this number were not looked at. `None`: all were.
    pub next: Option<i64>,
}

/// The change made to each job of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Jobs that have not ended are cancelled.
    Cancel,
    /// Jobs that failed or were cancelled go back into the queue.
    Retry,
    /// Jobs that wait are not started.
    Pause {
        /// Why, as it is shown with the jobs.
        reason: Option<String>,
    },
    /// Jobs that were paused one by one go on.
    Resume,
    /// Jobs that wait go along another route, where they begin anew.
    Move {
        /// The route.
        to: String,
    },
    /// Jobs that wait get another priority, from -1000 to 1000.
    Priority(i16),
}

impl Deed {
    /// Its name.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Pause { .. } => "pause",
            Self::Resume => "resume",
            Self::Move { .. } => "move",
            Self::Priority(_) => "priority",
        }
    }

    /// The states of the jobs that it can concern.
    #[must_use]
    pub const fn states(&self) -> &'static [JobState] {
        match self {
            Self::Cancel => &[JobState::Queued, JobState::Running],
            Self::Retry => &[JobState::Failed, JobState::Cancelled],
            Self::Pause { .. } | Self::Resume | Self::Move { .. } | Self::Priority(_) => &[JobState::Queued],
        }
    }

    /// What it says beside its name.
    fn argument(&self) -> Option<String> {
        match self {
            Self::Pause { reason } => reason.clone(),
            Self::Move { to } => Some(to.clone()),
            Self::Priority(priority) => Some(priority.to_string()),
            Self::Cancel | Self::Retry | Self::Resume => None,
        }
    }

    /// The states that it concerns of those that a filter takes.
    fn chosen(&self, filter: &JobFilter) -> Vec<String> {
        let takes = |state: &&JobState| filter.states.is_empty() || filter.states.contains(state);
        self.states().iter().filter(takes).map(|state| state.as_str().to_owned()).collect()
    }
}

/// How far a walk has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Jobs that were changed, or that would be.
    pub jobs: i64,
    /// The last number that was looked at.
    pub last: i64,
    /// Those of them whose deadline is over.
    pub overdue: i64,
    /// Whether all jobs were looked at.
    pub is_all: bool,
}

/// A stretch of a list: `$page` reads as `page` the next jobs below a number.
macro_rules! listed {
    ($page:literal, $selection:ident, $below:ident, $store:ident) => {
        sqlx::query!(
            "with page as materialized ("
                + $page
                + r#"),
               look as materialized (
                    select p.*, r.attempts, r.error_class, r.error, r.cost_nanos,
                           coalesce(r.state, case when exists (select from sluice.inflight i where i.job_id = p.id)
                                                  then 'running' else 'queued' end) as state
                      from page p left join lateral (
                           select * from sluice.result r where r.job_id = p.id limit 1) r on true
                     where ($3::text is null or p.route = $3) and ($4::text is null or p.project = $4)
                       and ($5::text is null or p.enqueued_by = $5))
               select (select min(id) from page) as page_end, (select count(*) from page) as "page_size!",
                      l.id as "job?", l.route as "route?", l.project as "project?", l.batch as "batch?",
                      l.custom_id as "custom_id?", l.state as "state?", l.attempts as "attempts?",
                      l.error_class as "error_class?", l.error as "error?", l.cost_nanos as "cost_nanos?"
                 from (values (1)) one(row)
                      left join look l
                        on (cardinality($6::text[]) = 0 or l.state = any ($6))
                       and (cardinality($7::text[]) = 0 or l.error_class = any ($7))
                       and ($8::text is null or strpos(lower(l.error), lower($8)) > 0)
                order by l.id desc"#,
            $selection.batch.as_deref() as _,
            $below,
            $selection.route.as_deref() as _,
            $selection.project.as_deref() as _,
            $selection.login.as_deref() as _,
            &names(&$selection.standing.states) as _,
            &$selection.standing.classes as _,
            $selection.standing.error.as_deref() as _
        )
        .map(|row| Row {
            page_end: row.page_end,
            page_size: row.page_size,
            job: row.job.zip(row.state).map(|(job, state): (i64, String)| SelectedJob {
                job,
                route: row.route.unwrap_or_default(),
                project: row.project.unwrap_or_default(),
                batch: row.batch,
                custom_id: row.custom_id,
                state: JobState::named(&state).unwrap_or(JobState::Queued),
                attempts: row.attempts,
                error_class: row.error_class,
                error: row.error,
                cost: row.cost_nanos.map(NanoUsd),
            }),
        })
        .fetch_all(&$store.db)
        .await
    };
}

/// A row of a stretch: how far it reaches, and a job of it.
struct Row {
    page_end: Option<i64>,
    page_size: i64,
    job: Option<SelectedJob>,
}

/// A step of a change: `$page` reads as `page` the next jobs above a number.
macro_rules! changed {
    ($page:literal, $selection:ident, $deed:ident, $only_counts:ident, $after:ident, $store:ident) => {
        sqlx::query!(
            "with page as materialized ("
                + $page
                + r#"),
               chosen as materialized (
                    select p.id, p.deadline <= now() as overdue
                      from page p left join lateral (
                           select r.state, r.error_class, r.error from sluice.result r
                            where r.job_id = p.id limit 1) r on true
                     where ($3::text is null or p.route = $3) and ($4::text is null or p.project = $4)
                       and ($5::text is null or p.enqueued_by = $5)
                       and coalesce(r.state, case when exists (select from sluice.inflight i where i.job_id = p.id)
                                                  then 'running' else 'queued' end) = any ($6)
                       and (r.state is distinct from 'cancelled' or r.error is distinct from 'replaced')
                       and (cardinality($7::text[]) = 0 or r.error_class = any ($7))
                       and ($8::text is null or strpos(lower(r.error), lower($8)) > 0)
                       and ($9 <> 'resume' or exists (
                            select from sluice.parked k where k.job_id = p.id and k.reason = 'paused'))
                       and case $9 when 'move' then p.route <> $11 when 'priority' then p.priority <> $11::integer
                                   else true end
                     order by p.id)
               select (select max(id) from page) as last, count(*) filter (where c.overdue) as "overdue!",
                      count(*) filter (where case when $10 then true
                                                  when $9 = 'cancel' then sluice.cancel(c.id)
                                                  when $9 = 'retry' then sluice.retry(c.id)
                                                  when $9 = 'pause' then sluice.pause(c.id, $11)
                                                  when $9 = 'resume' then sluice.resume(c.id)
                                                  when $9 = 'move' then sluice.move(c.id, $11)
                                                  when $9 = 'priority' then sluice.reprioritize(c.id, $11::integer)
                                                  end) as "jobs!"
                 from chosen c"#,
            $selection.batch.as_deref() as _,
            $after,
            $selection.route.as_deref() as _,
            $selection.project.as_deref() as _,
            $selection.login.as_deref() as _,
            &$deed.chosen(&$selection.standing) as _,
            &$selection.standing.classes as _,
            $selection.standing.error.as_deref() as _,
            $deed.as_str(),
            $only_counts,
            $deed.argument() as _
        )
        .map(|row| (row.last, row.jobs, row.overdue))
        .fetch_one(&$store.db)
        .await
    };
}

fn names(states: &[JobState]) -> Vec<String> {
    states.iter().map(|state| state.as_str().to_owned()).collect()
}

impl Store {
    /// Does it with one job.
    pub async fn change_job(&self, job: JobId, deed: &Deed) -> Result<Changed, StoreError> {
        match deed {
            Deed::Cancel => self.cancel_job(job).await,
            Deed::Retry => self.retry_job(job).await,
            Deed::Pause { reason } => self.pause_job(job, reason.as_deref()).await,
            Deed::Resume => self.resume_job(job).await,
            Deed::Move { to } => self.move_job(job, to).await,
            Deed::Priority(priority) => self.reprioritize_job(job, *priority).await,
        }
    }

    /// The newest jobs of a selection below a number, at most `most`. They are looked for a few thousand at a time, and
    /// no longer than `patience`: a page may have few jobs or none, and say where to go on.
    pub async fn selected(
        &self,
        selection: &Selection,
        below: Option<i64>,
        most: usize,
        patience: Duration,
    ) -> Result<SelectedPage, StoreError> {
        let began = Instant::now();
        let mut below = below.unwrap_or(i64::MAX);
        let mut page = SelectedPage::default();
        loop {
            let rows = match &selection.batch {
                Some(_) => listed!(
                    "select id, route, project, batch, custom_id, enqueued_by from sluice.job
                      where batch = $1 and id < $2 order by id desc limit 5000",
                    selection,
                    below,
                    self
                ),
                None => listed!(
                    "select id, route, project, batch, custom_id, enqueued_by from sluice.job
                      where id < $2 and $1::text is null order by id desc limit 5000",
                    selection,
                    below,
                    self
                ),
            }
            .doing("looking for jobs")?;
            let end = rows.first().and_then(|row| row.page_end);
            let is_last = rows.first().is_none_or(|row| row.page_size < LISTED);
            for job in rows.into_iter().filter_map(|row| row.job) {
                if page.jobs.len() >= most {
                    page.next = page.jobs.last().map(|job| job.job);
                    return Ok(page);
                }
                page.jobs.push(job);
            }
            let Some(end) = end.filter(|_| !is_last) else { return Ok(page) };
            if began.elapsed() >= patience {
                page.next = Some(end);
                return Ok(page);
            }
            below = end;
        }
    }

    /// How many jobs of a selection a change would concern, as far as that can be counted within `patience`.
    pub async fn would_change(
        &self,
        selection: &Selection,
        deed: &Deed,
        patience: Duration,
    ) -> Result<Walked, StoreError> {
        let began = Instant::now();
        let mut walked = Walked::default();
        while !walked.is_all && began.elapsed() < patience {
            walked = self.step(selection, deed, true, walked).await?;
        }
        Ok(walked)
    }

    /// Changes the next thousand jobs, those behind where the walk has come to.
    pub async fn change_next(&self, selection: &Selection, deed: &Deed, walked: Walked) -> Result<Walked, StoreError> {
        self.step(selection, deed, false, walked).await
    }

    async fn step(
        &self,
        selection: &Selection,
        deed: &Deed,
        only_counts: bool,
        walked: Walked,
    ) -> Result<Walked, StoreError> {
        let after = walked.last;
        let mut tries = 0;
        let (last, jobs, overdue) = loop {
            let step = match &selection.batch {
                Some(_) => changed!(
                    "select id, route, project, enqueued_by, priority, deadline from sluice.job
                      where batch = $1 and id > $2 order by id limit 1000",
                    selection,
                    deed,
                    only_counts,
                    after,
                    self
                ),
                None => changed!(
                    "select id, route, project, enqueued_by, priority, deadline from sluice.job
                      where id > $2 and $1::text is null order by id limit 1000",
                    selection,
                    deed,
                    only_counts,
                    after,
                    self
                ),
            };
            let step = step.doing("changing jobs");
            match step {
                // A worker settles the same jobs in another order, or has just begun one of them.
                Err(error) if (error.is_transient() || error.is_of_a_job_in_hand()) && tries < TRIES => tries += 1,
                step => break step?,
            }
        };
        Ok(Walked {
            jobs: walked.jobs + jobs,
            overdue: walked.overdue + overdue,
            last: last.unwrap_or(after),
            is_all: last.is_none(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deed_concerns_the_states_that_it_can_change_and_the_filter_takes() {
        let chosen = |deed: &Deed, states: &[JobState]| {
            deed.chosen(&JobFilter { states: states.to_vec(), ..JobFilter::default() })
        };
        assert_eq!(chosen(&Deed::Cancel, &[]), ["queued", "running"]);
        assert_eq!(chosen(&Deed::Retry, &[JobState::Failed, JobState::Succeeded]), ["failed"]);
        assert!(chosen(&Deed::Resume, &[JobState::Running]).is_empty());
        assert_eq!(chosen(&Deed::Pause { reason: None }, &[]), ["queued"]);
    }
}
