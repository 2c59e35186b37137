//! `sluice batch`: batches, shown and changed as a whole.

pub(super) mod jobs;

use super::GlobalArgs;
use super::context::Context;
use super::enqueue;
use super::failure::CommandFailure;
use super::figure;
use super::output::Format;
use super::pause::{self, PauseCommand};
use crate::domain::counted::counted;
use crate::domain::long_calls::LongCalls;
use crate::domain::obstacle::Obstacle;
use crate::domain::pause::PauseKind;
use crate::domain::template::near;
use crate::domain::{MaxFailed, StopLoss};
use crate::exit_code::ExitCode;
use crate::printable::on_one_line;
use crate::store::batch::Batch;
use crate::store::{Store, StoreError};
use crate::view::batch::{self, HeldBatchView};
use crate::view::change::{BulkView, CancelledEnqueueView, StopLossView};
use crate::view::tone::Tone;
use indicatif::{ProgressBar, ProgressDrawTarget};

/// Arguments of `sluice batch`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: BatchCommand,
}

/// What to do with batches.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BatchCommand {
    /// List batches: first those in which something happened in the latest hour, within an hour by name
    List {
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = figure::count::<i64>)]
        limit: i64,
    },
    /// Show one batch
    Show {
        /// The batch
        name: String,
    },
    /// List its jobs, or some of them: those that failed, and why
    Jobs(jobs::ListArgs),
    /// List the enqueues by command that made it, each with the number that `cancel --enqueue` takes
    Enqueues {
        /// The batch
        name: String,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = figure::count::<i64>)]
        limit: i64,
    },
    /// Cancel all its jobs that have not ended
    Cancel {
        /// The batch
        name: String,
        /// Only what this enqueue added to it, and no worker has begun: the number that the enqueue was told with
        #[arg(long, value_name = "NUMBER", value_parser = figure::count::<i64>)]
        enqueue: Option<i64>,
    },
    /// Put all its failed and cancelled jobs back into the queue, or some of them
    Retry(jobs::RetryArgs),
    /// Pause it when more than a share of its jobs fails, or of its money is wasted
    ///
    /// The share is the jobs that failed for good over the jobs that ended, without cancelled ones. The batch pauses
    /// once ten have failed and the share is exceeded, or once the failed ones exceed the share of all its jobs.
    /// With --max-wasted it also pauses once ten calls have cost something and brought no accepted answer, and those
    /// took more than that share of the cost. `sluice batch resume` lets it go on, and forgives what was lost by then.
    StopLoss {
        /// The batch
        name: String,
        /// The share that may fail: 0.05 is one in twenty, 0 none, 1 all; or "none", for no stop-loss
        #[arg(value_name = "SHARE", allow_hyphen_values = true, value_parser = share_or_none,
              required_unless_present = "max_wasted")]
        share: Option<ShareOrNone>,
        /// The share of the cost that may bring no accepted answer: 0.3 is three tenths; or "none"
        #[arg(long, value_name = "SHARE", allow_hyphen_values = true, value_parser = share_or_none)]
        max_wasted: Option<ShareOrNone>,
    },
    /// Pause or resume it
    #[command(flatten)]
    Pause(PauseCommand),
}

/// A share of jobs that may fail, or no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareOrNone(Option<MaxFailed>);

fn share_or_none(text: &str) -> Result<ShareOrNone, String> {
    match text {
        "none" => Ok(ShareOrNone(None)),
        text => enqueue::max_failed(text).map(|share| ShareOrNone(Some(share))),
    }
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let code = match args.command {
        BatchCommand::List { limit } => {
            let mut batches = context.store.batches(limit.saturating_add(1)).await?;
            let most = usize::try_from(limit).unwrap_or(usize::MAX);
            let is_more = batches.len() > most;
            batches.truncate(most);
            if batches.is_empty() && context.output.format() == Format::Table {
                context.output.note("there are no batches; `sluice enqueue FILE` makes one");
            } else {
                context.output.table(&batch::table(&batches))?;
            }
            if is_more {
                context.output.note(format!("these are the {limit} latest; there are more (--limit)"));
            }
            ExitCode::Success
        }
        BatchCommand::Show { name } => {
            let batch = find(&context.store, &name).await?;
            let (obstacle, long_calls) = context.store.standstill(&batch).await?;
            show(&mut context, &batch, obstacle.as_ref(), long_calls.as_ref())?;
            ExitCode::Success
        }
        BatchCommand::Jobs(args) => {
            jobs::list(&args, &mut context).await?;
            ExitCode::Success
        }
        BatchCommand::Enqueues { name, limit } => {
            let enqueues = context.store.enqueues(&name, limit).await?;
            if enqueues.is_empty() {
                find(&context.store, &name).await?;
            }
            if enqueues.is_empty() && context.output.format() == Format::Table {
                context.output.note(format_args!("batch {} has no enqueue by command", on_one_line(&name)));
            } else {
                context.output.table(&batch::enqueues_table(&enqueues))?;
            }
            ExitCode::Success
        }
        BatchCommand::Cancel { name, enqueue: Some(number) } => cancel_enqueue(&mut context, &name, number).await?,
        BatchCommand::Cancel { name, enqueue: None } => {
            let left = unfinished(&context.store, &name).await?;
            let bar = counter(left);
            let cancelled = context.store.cancel_batch(&name, |done| set(&bar, done)).await?;
            bar.finish_and_clear();
            said(&mut context, &name, "cancelled", cancelled)?
        }
        BatchCommand::Retry(args) => {
            let batch = find(&context.store, &args.name).await?;
            let bar = counter(batch.failed + batch.cancelled);
            let (filter, set) = (args.filter(), |done| set(&bar, done));
            let retried = context.store.retry_chosen(&args.name, &filter, args.dry_run, set).await?;
            bar.finish_and_clear();
            let what = if args.dry_run { "would_be_queued_again" } else { "queued_again" };
            if let Some(remark) = jobs::on_overdue(retried.overdue) {
                context.output.warn(remark);
            }
            said(&mut context, &args.name, what, retried.jobs)?
        }
        BatchCommand::StopLoss { name, share, max_wasted } => {
            find(&context.store, &name).await?;
            let mut changed = false;
            if let Some(ShareOrNone(max_failed)) = share {
                changed |= context.store.set_stop_loss(&name, max_failed).await?;
            }
            if let Some(ShareOrNone(max_wasted)) = max_wasted {
                changed |= context.store.set_stop_waste(&name, max_wasted).await?;
            }
            let Batch { max_failed, max_wasted, .. } = find(&context.store, &name).await?;
            let view = StopLossView { batch: &name, stop_loss: StopLoss { max_failed, max_wasted }, changed };
            if context.output.format() == Format::Json {
                context.output.json(&view)?;
            } else {
                context.output.line(view)?;
            }
            ExitCode::Success
        }
        BatchCommand::Pause(command) => {
            if !context.store.pauses().await?.has(PauseKind::Batch, command.name()) {
                find(&context.store, command.name()).await?;
            }
            pause::run(PauseKind::Batch, command, &mut context).await?
        }
    };
    context.close().await?;
    Ok(code)
}

/// Cancels what one enqueue added to a batch.
async fn cancel_enqueue(context: &mut Context, batch: &str, number: i64) -> anyhow::Result<ExitCode> {
    let found = context.store.enqueue_of(number).await?;
    let Some(enqueue) = found.filter(|enqueue| enqueue.batch == batch) else {
        let known = context.store.enqueues(batch, 5).await?;
        if known.is_empty() {
            find(&context.store, batch).await?;
        }
        let known: Vec<String> = known.iter().map(|enqueue| enqueue.number.to_string()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(CommandFailure::not_found(format!(
            "batch {batch:?} has no enqueue {number}; the latest that this login may see: {known}"
        ))
        .into());
    };
    let bar = counter(enqueue.jobs);
    let changed = context.store.cancel_enqueue(number, |done| set(&bar, done)).await?;
    bar.finish_and_clear();
    let view = CancelledEnqueueView { batch, enqueue: number, cancelled: changed.cancelled, begun: changed.begun };
    if context.output.format() == Format::Json {
        context.output.json(&view)?;
    } else {
        context.output.line(view)?;
    }
    Ok(ExitCode::Success)
}

/// How many of its jobs have not ended, those in no queue included.
async fn unfinished(store: &Store, name: &str) -> anyhow::Result<i64> {
    match store.batch(name).await? {
        Some(batch) => Ok(batch.unfinished()),
        None if !store.reads_all().await? => Err(find(store, name).await.err().unwrap_or_else(just_come)),
        None => match store.unqueued_of_batch(name).await? {
            0 => Err(find(store, name).await.err().unwrap_or_else(just_come)),
            jobs => Ok(jobs),
        },
    }
}

fn just_come() -> anyhow::Error {
    anyhow::anyhow!("the batch has just come")
}

/// The batch of this name, or an error that lists the most recently active ones: a name is easily mistyped.
pub(super) async fn find(store: &Store, name: &str) -> anyhow::Result<Batch> {
    if let Some(batch) = store.batch(name).await? {
        return Ok(batch);
    }
    let reads_all = store.reads_all().await?;
    let jobs = if reads_all { store.unqueued_of_batch(name).await? } else { 0 };
    if jobs > 0 {
        return Err(CommandFailure::not_found(format!(
            "batch {name:?} has {} in no queue, because triggers were off at the insert: `sluice doctor --repair` \
             queues what is left out",
            counted(jobs, "job", "jobs")
        ))
        .into());
    }
    let own = if reads_all { "" } else { " with jobs of this login" };
    let hint = match alike(store, name).await? {
        Some(hint) => hint,
        None if reads_all => "there are no batches yet".to_owned(),
        None => "it has enqueued none yet".to_owned(),
    };
    Err(CommandFailure::not_found(format!("there is no batch {name:?}{own}; {hint}")).into())
}

/// The batch that may have been meant, or else recent ones; `None`: there are none.
pub(super) async fn alike(store: &Store, name: &str) -> Result<Option<String>, StoreError> {
    let known = store.latest_batches().await?;
    if let Some(near) = near(name, known.iter().map(String::as_str)) {
        return Ok(Some(format!("perhaps {near:?} is meant")));
    }
    let recent: Vec<_> = known.iter().take(5).map(|name| on_one_line(name)).collect();
    Ok((!recent.is_empty()).then(|| format!("recent ones are: {}", recent.join(", "))))
}

fn show(
    context: &mut Context,
    batch: &Batch,
    obstacle: Option<&Obstacle>,
    long_calls: Option<&LongCalls>,
) -> anyhow::Result<()> {
    let view = HeldBatchView::of(batch, obstacle, long_calls);
    if context.output.format() == Format::Json {
        context.output.json(&view)?;
        return Ok(());
    }
    let mut table = batch::table(std::slice::from_ref(batch));
    let is_for_people = context.output.format() == Format::Table;
    if let Some(row) = table.rows.first_mut().filter(|_| !is_for_people) {
        // For people the reason follows as a sentence.
        table.columns.extend(["waits_for", "why", "do"]);
        let why = view.why.as_ref();
        row.push(why.map(|why| why.waits_for.as_str()).into());
        row.push(why.map(|why| why.words.as_str()).into());
        row.push(why.and_then(|why| why.advice.as_deref()).into());
    }
    context.output.record(&table)?;
    if !is_for_people {
        return Ok(());
    }
    if let Some(calls) = view.long_calls {
        context.output.told_as(Some(Tone::Warning), format_args!(" calls: {}", calls.words))?;
    }
    if let Some(why) = view.why {
        let tone = if why.stuck || why.advice.is_some() { Tone::Bad } else { Tone::Warning };
        context.output.told_as(Some(tone), format_args!(" waits: {}", why.words))?;
        if let Some(advice) = why.advice {
            context.output.told(format_args!("   do: {advice}"))?;
        }
    }
    Ok(())
}

fn counter(jobs: i64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(u64::try_from(jobs).unwrap_or(0)), ProgressDrawTarget::stderr());
    bar.with_message("jobs")
}

fn set(bar: &ProgressBar, done: i64) {
    bar.set_position(u64::try_from(done).unwrap_or(0));
}

fn said(context: &mut Context, name: &str, what: &'static str, jobs: i64) -> anyhow::Result<ExitCode> {
    let bulk = BulkView { of: PauseKind::Batch.as_str(), name, what, jobs };
    if context.output.format() == Format::Json {
        context.output.json(&bulk)?;
    } else {
        context.output.line(bulk)?;
    }
    Ok(ExitCode::Success)
}
