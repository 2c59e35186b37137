//! `sluice job`: shows a job, and changes jobs: those that are named, or all that are chosen by how they stand.

mod chosen;

use super::GlobalArgs;
use super::batch::jobs::on_overdue;
use super::context::Context;
use super::failure::CommandFailure;
use super::figure;
use super::names;
use super::output::Format;
use crate::domain::JobId;
use crate::exit_code::ExitCode;
use crate::store::Store;
use crate::store::job::{Changed, JobRecord};
use crate::store::names::Named;
use crate::store::selection::Deed;
use crate::view::change::{JobChangeView, JobOutcome};
use crate::view::job::{Bodies, JobView, PlaceView};
use crate::view::table::{Cell, Layout, Table};
use chrono::SecondsFormat;

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: JobCommand,
}

/// What to do with a job.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum JobCommand {
    /// Show a job: where it is, how it ended
    Show {
        /// The job's number
        #[arg(value_parser = figure::job)]
        id: i64,
        /// Show the prompt too
        #[arg(long)]
        show_request: bool,
        /// Show the answer too
        #[arg(long)]
        show_answer: bool,
    },
    /// List jobs of all batches, the newest first, or some of them
    List(chosen::ListArgs),
    /// Cancel jobs that have not ended; a call under way is dropped
    Cancel(chosen::ChosenArgs),
    /// Put failed or cancelled jobs back into the queue, with a fresh count of attempts
    Retry(chosen::ChosenArgs),
    /// Keep jobs that wait from being started, until they are resumed
    Pause {
        #[command(flatten)]
        chosen: chosen::ChosenArgs,
        /// Why; it is shown with the jobs
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let paused jobs go on
    Resume(chosen::ChosenArgs),
    /// Send jobs that wait along another route, where they begin anew
    ///
    /// What they have cost so far stays with the route that they come from.
    Move {
        #[command(flatten)]
        chosen: chosen::ChosenArgs,
        /// The route along which they go
        #[arg(long, value_name = "ROUTE")]
        to: String,
    },
    /// Give jobs that wait another priority: a higher one goes first, within the same route, project, batch and login
    Priority {
        #[command(flatten)]
        chosen: chosen::ChosenArgs,
        /// From -1000 to 1000
        #[arg(long, value_name = "NUMBER", allow_hyphen_values = true,
              value_parser = clap::value_parser!(i16).range(-1000..=1000))]
        to: i16,
    },
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let code = match args.command {
        JobCommand::Show { id, show_request, show_answer } => {
            let job = find(&context.store, id).await?;
            let bodies = Bodies { request: show_request, response: show_answer };
            show(&mut context, &JobView::of(job, bodies))?;
            ExitCode::Success
        }
        JobCommand::List(args) => {
            chosen::list(args, &mut context).await?;
            ExitCode::Success
        }
        JobCommand::Cancel(chosen) => change(&mut context, chosen, Deed::Cancel).await?,
        JobCommand::Retry(chosen) => change(&mut context, chosen, Deed::Retry).await?,
        JobCommand::Pause { chosen, reason } => change(&mut context, chosen, Deed::Pause { reason }).await?,
        JobCommand::Resume(chosen) => change(&mut context, chosen, Deed::Resume).await?,
        JobCommand::Move { chosen, to } => {
            // A route that only workers of other configurations have is known by its jobs.
            names::require(Named::Route, Some(&to), &context.store, &context.config).await?;
            change(&mut context, chosen, Deed::Move { to }).await?
        }
        JobCommand::Priority { chosen, to } => change(&mut context, chosen, Deed::Priority(to)).await?,
    };
    context.close().await?;
    Ok(code)
}

/// The job with this number.
pub(super) async fn find(store: &Store, id: i64) -> anyhow::Result<JobRecord> {
    if let Some(job) = store.job(JobId(id)).await? {
        return Ok(job);
    }
    let words = match store.retired(id).await? {
        Some(gone) => format!(
            "there is no job {id} any more: it had ended, and was dropped at {} by [retention]",
            gone.dropped_at.to_rfc3339_opts(SecondsFormat::Secs, true)
        ),
        None => format!("there is no job {id}"),
    };
    Err(CommandFailure::not_found(words).into())
}

/// Changes the jobs that are named, or all that are chosen.
async fn change(context: &mut Context, chosen: chosen::ChosenArgs, deed: Deed) -> anyhow::Result<ExitCode> {
    let ids = chosen.ids();
    if ids.is_empty() {
        return chosen::change_all(context, chosen, &deed).await;
    }
    let mut changes = Vec::with_capacity(ids.len());
    let (mut missing, mut running) = (Vec::new(), Vec::new());
    for id in ids {
        let is_changed = match context.store.change_job(JobId(*id), &deed).await? {
            Changed::Running => {
                running.push(id.to_string());
                continue;
            }
            Changed::NoSuchJob => {
                missing.push(id.to_string());
                continue;
            }
            changed => changed == Changed::Yes,
        };
        let outcome = JobOutcome::of(&deed, is_changed);
        changes.push(JobChangeView { job: *id, outcome });
    }
    if !changes.is_empty() && context.output.format() == Format::Json {
        context.output.json(&changes)?;
    } else if !changes.is_empty() {
        let mut table = Table::new(["job", "outcome"]);
        for change in &changes {
            table.row([change.job.into(), change.outcome.to_string().into()]);
        }
        context.output.table(&table)?;
    }
    if deed == Deed::Retry {
        let retried: Vec<i64> = changes.iter().map(|change| change.job).collect();
        if let Some(remark) = on_overdue(context.store.overdue(&retried).await?) {
            context.output.finish()?;
            context.output.warn(remark);
        }
    }
    if !missing.is_empty() {
        context.output.finish()?;
        return Err(CommandFailure::not_found(format!("there is no job {}", missing.join(", "))).into());
    }
    if !running.is_empty() {
        context.output.finish()?;
        anyhow::bail!(
            "in the hands of a worker and not {}: job {}; cancel it to drop its call, or try again when it waits",
            if matches!(deed, Deed::Pause { .. }) { "paused" } else { "changed" },
            running.join(", ")
        );
    }
    Ok(ExitCode::Success)
}

fn show(context: &mut Context, job: &JobView) -> anyhow::Result<()> {
    if context.output.format() == Format::Json {
        context.output.json(job)?;
        return Ok(());
    }
    let mut table = Table::new(["field", "value"]).laid_out(Layout { prose: &["value"], ..Layout::default() });
    let mut field = |name: &'static str, value: Cell| {
        if value != Cell::Empty {
            table.row([name.into(), value]);
        }
    };
    field("job", Cell::Text(job.job.to_string()));
    field("state", job.state.as_str().into());
    field("route", job.route.as_str().into());
    field("project", job.project.as_str().into());
    field("batch", job.batch.as_deref().into());
    field("custom_id", job.custom_id.as_deref().into());
    field("priority", Cell::Count(job.priority.into()));
    field("created_at", job.created_at.into());
    field("enqueued_by", job.enqueued_by.as_str().into());
    field("run_at", job.run_at.into());
    field("deadline", job.deadline.into());
    field("max_attempts", job.max_attempts.map(i64::from).into());
    if job.shadow.is_some() || job.shadow_of.is_some() {
        field("shadow", job.shadow.map(|job| job.to_string()).into());
        field("shadow_of", job.shadow_of.map(|job| job.to_string()).into());
    }
    field("metadata", job.metadata.as_ref().map(ToString::to_string).into());
    if let PlaceView::Ended(end) = &job.place {
        field("finished_at", end.finished_at.into());
        field("answered_by", end.answered_by.as_deref().into());
        field("last_asked", end.last_asked.as_deref().into());
        field("repaired", Cell::Flag(end.repaired));
        field("error_class", end.error_class.as_deref().into());
        field("error", end.error.as_deref().into());
        field("cost", end.cost.map_or_else(|| "unknown".into(), Cell::from));
        field("uncertain_cost", end.uncertain_cost.into());
        let response = job.response.as_ref().filter(|response| !response.is_null());
        field("response", response.map(ToString::to_string).into());
    } else {
        field("where", job.whereabouts().into());
        field("do", job.why.as_ref().and_then(|why| why.advice.clone()).into());
    }
    field("request", job.request.as_ref().map(ToString::to_string).into());
    context.output.table(&table)?;
    Ok(())
}
