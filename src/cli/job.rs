//! `sluice job`: shows, cancels, retries, pauses or resumes a job.

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::output::Format;
use crate::domain::JobId;
use crate::exit_code::ExitCode;
use crate::store::Store;
use crate::store::job::{Changed, JobRecord};
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
        id: i64,
        /// Show the prompt too
        #[arg(long)]
        show_request: bool,
        /// Show the answer too
        #[arg(long)]
        show_answer: bool,
    },
    /// Cancel jobs that have not ended; a call under way is dropped
    Cancel {
        /// The jobs' numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
    /// Put failed or cancelled jobs back into the queue, with a fresh count of attempts
    Retry {
        /// The jobs' numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
    /// Keep jobs that wait from being started, until they are resumed
    Pause {
        /// The jobs' numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
        /// Why; it is shown with the jobs
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let paused jobs go on
    Resume {
        /// The jobs' numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
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
        JobCommand::Cancel { ids } => change(&mut context, &ids, Action::Cancel).await?,
        JobCommand::Retry { ids } => change(&mut context, &ids, Action::Retry).await?,
        JobCommand::Pause { ids, reason } => change(&mut context, &ids, Action::Pause(reason.as_deref())).await?,
        JobCommand::Resume { ids } => change(&mut context, &ids, Action::Resume).await?,
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

#[derive(Clone, Copy)]
enum Action<'a> {
    Cancel,
    Retry,
    Pause(Option<&'a str>),
    Resume,
}

async fn change(context: &mut Context, ids: &[i64], action: Action<'_>) -> anyhow::Result<ExitCode> {
    let mut changes = Vec::with_capacity(ids.len());
    let (mut missing, mut running) = (Vec::new(), Vec::new());
    for id in ids {
        let changed = match action {
            Action::Cancel => context.store.cancel_job(JobId(*id)).await?,
            Action::Retry => context.store.retry_job(JobId(*id)).await?,
            Action::Pause(reason) => context.store.pause_job(JobId(*id), reason).await?,
            Action::Resume => context.store.resume_job(JobId(*id)).await?,
        };
        let outcome = match (changed, action) {
            (Changed::Yes, Action::Cancel) => JobOutcome::Cancelled,
            (Changed::Yes, Action::Retry) => JobOutcome::QueuedAgain,
            (Changed::No, Action::Cancel) => JobOutcome::HadEnded,
            (Changed::No, Action::Retry) => JobOutcome::HasNotFailed,
            (Changed::Yes, Action::Pause(_)) => JobOutcome::Paused,
            (Changed::Yes, Action::Resume) => JobOutcome::Resumed,
            (Changed::No, Action::Pause(_)) => JobOutcome::NotPaused,
            (Changed::No, Action::Resume) => JobOutcome::WasNotPaused,
            (Changed::Running, _) => {
                running.push(id.to_string());
                continue;
            }
            (Changed::NoSuchJob, _) => {
                missing.push(id.to_string());
                continue;
            }
        };
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
    if !missing.is_empty() {
        context.output.finish()?;
        return Err(CommandFailure::not_found(format!("there is no job {}", missing.join(", "))).into());
    }
    if !running.is_empty() {
        context.output.finish()?;
        anyhow::bail!(
            "in the hands of a worker and not paused: job {}; cancel it to drop its call, or try again when it waits",
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
