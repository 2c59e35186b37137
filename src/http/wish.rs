//! What a client wants changed, and how that is done: the same for forms of the dashboard and requests of the API.

use super::params::{Params, in_words};
use super::problem::{OrProblem, Problem};
use super::site::Site;
use super::tasks::Task;
use crate::domain::pause::PauseKind;
use crate::domain::{JobId, budget};
use crate::store::job::Changed;
use crate::store::selection::{Deed, Selection, Walked};
use crate::view::change::{JobChangeView, JobOutcome, PauseChangeView};
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long jobs are counted before a change of all of them.
const FOR_A_COUNT: Duration = Duration::from_secs(3);

/// A deed by its name, with what it takes beside it.
pub(super) fn deed(site: &Site, name: &str, params: &mut Params) -> OrProblem<Deed> {
    Ok(match name {
        "cancel" => Deed::Cancel,
        "retry" => Deed::Retry,
        "pause" => Deed::Pause { reason: params.text("reason") },
        "resume" => Deed::Resume,
        "move" => {
            let to = params.text("to").ok_or_else(|| params.missing("to is missing: the route"))?;
            let routes = site.gauged.observer().vitals().routes;
            if !routes.contains(&to) {
                let known = routes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(Problem::not_found(format!("there is no route {to:?}; there are: {known}")));
            }
            Deed::Move { to }
        }
        "priority" => {
            let expected = "a number from -1000 to 1000";
            let priority = params.parsed::<i16>("priority", expected)?;
            let fault = || Problem::bad(format!("priority: expected {expected}"));
            Deed::Priority(priority.filter(|priority| (-1000..=1000).contains(priority)).ok_or_else(fault)?)
        }
        _ => {
            return Err(Problem::not_found(format!(
                "there is no {name:?}: jobs take cancel, retry, pause, resume, move and priority"
            )));
        }
    })
}

/// Changes one job.
pub(super) async fn change_job(site: &Site, job: i64, deed: &Deed) -> OrProblem<JobChangeView> {
    let is_changed = match site.look(async |store| store.change_job(JobId(job), deed).await).await? {
        Changed::NoSuchJob => return Err(Problem::not_found(format!("there is no job {job}"))),
        Changed::Running => {
            return Err(Problem::conflict(format!(
                "a worker has job {job}: only a job that waits can be changed so; cancelling it drops its call"
            )));
        }
        changed => changed == Changed::Yes,
    };
    let outcome = JobOutcome::of(deed, is_changed);
    Ok(JobChangeView { job, outcome })
}

/// Pauses or resumes a route, project, batch or provider. The name to pause has to be known here, since a mistyped name
/// would be noticed too late; a pause in force ends under any name.
pub(super) async fn change_pause(
    site: &Site,
    kind: PauseKind,
    name: &str,
    reason: Option<&str>,
    is_pause: bool,
) -> OrProblem<PauseChangeView> {
    if is_pause {
        require_known(site, kind, name).await?;
    }
    let change =
        site.look(
            async |store| {
                if is_pause { store.pause(kind, name, reason).await } else { store.resume(kind, name).await }
            },
        );
    let changed = change.await?;
    Ok(PauseChangeView { kind: kind.as_str(), name: name.to_owned(), paused: is_pause, changed })
}

async fn require_known(site: &Site, kind: PauseKind, name: &str) -> OrProblem<()> {
    let vitals = site.gauged.observer().vitals();
    let (is_known, known) = match kind {
        PauseKind::Route => {
            (vitals.routes.contains(name), vitals.routes.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
        }
        PauseKind::Provider => {
            let known: BTreeSet<&str> = vitals.breakers.keys().map(|(provider, _)| provider.as_str()).collect();
            (known.contains(name), known.into_iter().collect::<Vec<_>>().join(", "))
        }
        PauseKind::Batch => {
            let found = site.look(async |store| store.batch(name).await).await?;
            let latest = site.look(async |store| store.latest_batches().await).await?;
            (found.is_some(), latest.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", "))
        }
        // A project is any name that jobs have; its first jobs may come later.
        PauseKind::Project => (true, String::new()),
    };
    if is_known {
        return Ok(());
    }
    let known = if known.is_empty() { "there is none".to_owned() } else { format!("there are: {known}") };
    Err(Problem::not_found(format!("there is no {} {name:?}; {known}", kind.as_str())))
}

/// A change of all jobs that a selection takes, as it would be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Proposal {
    pub(super) action: &'static str,
    /// Of which jobs, in words.
    pub(super) of: String,
    /// Jobs that would be changed.
    pub(super) jobs: i64,
    /// Whether counting ended early: there may be more.
    pub(super) or_more: bool,
}

/// What a change would concern.
pub(super) async fn propose(site: &Site, selection: &Selection, deed: &Deed) -> OrProblem<Proposal> {
    let Walked { jobs, is_all, .. } =
        site.look(async |store| store.would_change(selection, deed, FOR_A_COUNT).await).await?;
    Ok(Proposal { action: deed.as_str(), of: told(selection), jobs, or_more: !is_all })
}

/// Starts a change of all jobs that a selection takes. One that takes every job has to be meant: `is_all`.
pub(super) async fn change_jobs(site: &Site, selection: Selection, deed: Deed, is_all: bool) -> OrProblem<Task> {
    require_meant(&selection, is_all)?;
    let proposal = propose(site, &selection, &deed).await?;
    if proposal.jobs == 0 && !proposal.or_more {
        return Err(Problem::conflict(format!(
            "no job {} can be changed by {}: nothing was done",
            proposal.of, proposal.action
        )));
    }
    let store = site.store().await?;
    let of = told(&selection);
    site.tasks.start(store, selection, deed, of)
}

/// Refuses a selection without a filter that was not meant to have none.
pub(super) fn require_meant(selection: &Selection, is_all: bool) -> OrProblem<()> {
    if !is_all && *selection == Selection::default() {
        return Err(Problem::bad(
            "nothing says which jobs, so it would concern all: name a batch, project, route, login, state, class or \
             error, or say all = true",
        ));
    }
    Ok(())
}

fn told(selection: &Selection) -> String {
    let words = in_words(selection);
    if words.is_empty() { "of all".to_owned() } else { words }
}

/// Runs, pauses or resumes a schedule. A worker that has it runs it within a second.
pub(super) async fn change_schedule(
    site: &Site,
    name: &str,
    action: &str,
    reason: Option<&str>,
) -> OrProblem<ScheduleChange> {
    let known = site.look(async |store| store.schedules().await).await?;
    if !known.iter().any(|row| row.name == name) {
        let known: Vec<&str> = known.iter().map(|row| row.name.as_str()).collect();
        let known =
            if known.is_empty() { "there is none".to_owned() } else { format!("there are: {}", known.join(", ")) };
        return Err(Problem::not_found(format!("there is no schedule {name:?}; {known}")));
    }
    let (tick, changed) = match action {
        "run" => (Some(site.look(async |store| store.ask_for_tick(name).await).await?), true),
        "pause" => (None, site.look(async |store| store.pause_schedule(name, reason).await).await?),
        "resume" => (None, site.look(async |store| store.resume_schedule(name).await).await?),
        _ => {
            return Err(Problem::not_found(format!("there is no {action:?}: a schedule takes run, pause and resume")));
        }
    };
    Ok(ScheduleChange { schedule: name.to_owned(), action: action.to_owned(), changed, tick })
}

/// The change of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct ScheduleChange {
    pub(super) schedule: String,
    /// `run`, `pause` or `resume`.
    pub(super) action: String,
    /// Whether this differs from before.
    pub(super) changed: bool,
    /// The tick that was asked for.
    pub(super) tick: Option<DateTime<Utc>>,
}

/// Gives a budget another limit.
pub(super) async fn change_budget(site: &Site, name: &str, limit: &str) -> OrProblem<()> {
    let limit = budget::amount(limit)
        .map_err(|problem| Problem::bad(format!("limit: {problem}; expected dollars above 0, such as 0.50")))?;
    let rows = site.look(async |store| store.budget_rows().await).await?;
    if !rows.iter().any(|row| row.standing.budget.name == name) {
        return Err(Problem::not_found(format!("there is no budget {name:?}")));
    }
    site.look(async |store| store.raise_budget(name, limit).await).await?;
    Ok(())
}
