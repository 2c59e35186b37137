//! `sluice route`: pauses and resumes routes, and cancels or retries all of their jobs.

use super::GlobalArgs;
use super::batch::jobs::on_overdue;
use super::consent::consent;
use super::context::Context;
use super::failure::CommandFailure;
use super::output::Format;
use super::pause::{self, PauseCommand};
use crate::domain::counted::counted;
use crate::domain::pause::PauseKind;
use crate::domain::trial;
use crate::exit_code::ExitCode;
use crate::view::change::BulkView;
use indicatif::{ProgressBar, ProgressDrawTarget};

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: RouteCommand,
}

/// What to do with a route.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum RouteCommand {
    /// Cancel all its jobs that have not ended; calls under way are dropped
    Cancel(Bulk),
    /// Put all its failed jobs back into the queue, with a fresh count of attempts
    Retry(Bulk),
    /// Pause or resume it
    #[command(flatten)]
    Pause(PauseCommand),
}

/// All jobs of a route.
#[derive(Clone, Debug, clap::Args)]
pub struct Bulk {
    /// The route
    name: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        RouteCommand::Pause(command) => pause::run_configured(PauseKind::Route, command, global).await,
        RouteCommand::Cancel(bulk) => {
            let context = Context::open(global).await?;
            let jobs = context.store.unfinished_of_route(&bulk.name).await?;
            if jobs.is_empty() {
                require_known(&context, &bulk.name)?;
            }
            agree(&bulk, "cancel", "unfinished", &jobs).await?;
            let bar = counter(&jobs);
            let cancelled = context.store.cancel_route(&bulk.name, jobs, |done| set(&bar, done)).await?;
            bar.finish_and_clear();
            said(context, &bulk.name, "cancelled", cancelled).await
        }
        RouteCommand::Retry(bulk) => {
            let context = Context::open(global).await?;
            let jobs = context.store.failed_of_route(&bulk.name).await?;
            if jobs.is_empty() {
                require_known(&context, &bulk.name)?;
            }
            agree(&bulk, "retry", "failed", &jobs).await?;
            let bar = counter(&jobs);
            let retried = context.store.retry_jobs(&jobs, |done| set(&bar, done)).await?;
            bar.finish_and_clear();
            if let Some(remark) = on_overdue(retried.overdue) {
                context.output.warn(remark);
            }
            said(context, &bulk.name, "queued_again", retried.jobs).await
        }
    }
}

/// Where nothing was found, a name that is not in the configuration is a typing error. The routes of trials have none.
pub(super) fn require_known(context: &Context, name: &str) -> anyhow::Result<()> {
    if context.config.knows_route(name) || trial::tried(name).is_some() {
        return Ok(());
    }
    let known = context.config.routes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none is configured".to_owned() } else { format!("there are: {known}") };
    Err(CommandFailure::not_found(format!("there is no route {name:?}; {known}")).into())
}

/// Asks the user at the terminal. A route has more jobs than one expects, of projects and batches that others own.
async fn agree(bulk: &Bulk, what: &str, which: &str, jobs: &[i64]) -> anyhow::Result<()> {
    if bulk.yes || jobs.is_empty() {
        return Ok(());
    }
    let wish = format!(
        "{what} {} of the route {}",
        counted(jobs.len(), &format!("{which} job"), &format!("{which} jobs")),
        bulk.name
    );
    consent(&wish).await
}

fn counter(jobs: &[i64]) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(jobs.len() as u64), ProgressDrawTarget::stderr());
    bar.with_message("jobs")
}

fn set(bar: &ProgressBar, done: i64) {
    bar.set_position(u64::try_from(done).unwrap_or(0));
}

async fn said(mut context: Context, name: &str, what: &'static str, jobs: i64) -> anyhow::Result<ExitCode> {
    let bulk = BulkView { of: PauseKind::Route.as_str(), name, what, jobs };
    if context.output.format() == Format::Json {
        context.output.json(&bulk)?;
    } else {
        context.output.line(bulk)?;
    }
    context.close().await?;
    Ok(ExitCode::Success)
}
