//! `sluice run`: a file in, its answers out, in one command.

mod ends;
mod go_on;
mod own;

use super::batch::find;
use super::context::{Context, environment};
use super::failure::CommandFailure;
use super::out_file::{OutFile, require_apart, require_folder};
use super::output::{Dispensable, Output};
use super::table::wrapped;
use super::watch::{self, Followed};
use super::words::{about, path};
use super::worker::{blueprint, settings, went_down};
use super::{GlobalArgs, enqueue, results};
use crate::config::{Config, Keys};
use crate::domain::ErrorClass;
use crate::domain::budget::{Budget, BudgetStanding};
use crate::domain::counted::counted;
use crate::exit_code::ExitCode;
use crate::input::HeldBy;
use crate::printable::{self, on_one_line};
use crate::shutdown::{Hangups, Signals};
use crate::store::batch::CommonFailure;
use crate::store::{Store, StoreError};
use crate::worker::plan::Plan;
use crate::worker::{Settings, Summary, Worker};
use ends::{cannot_go_on, keep_queued, spent_budget, stopped_by_budget, stopped_by_loss, stuck_for_good};
use futures_util::TryStreamExt as _;
pub(super) use go_on::paused_by_loss;
use go_on::{GoOn, enough, resume_line};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How soon progress is read again when it could not be read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long the worker of this process takes at most until others see it.
const STARTING: Duration = Duration::from_secs(15);

/// Enqueue a file, work on it, watch it, and write its answers.
///
/// Only the jobs of this batch are worked on, whatever else is queued. Interrupted, or when the stop-loss pauses
/// the batch, it finishes the calls under way, gives back the rest, and says the command that goes on: the same one.
/// It ends so with exit status 10 when no target of the route has a key in service and knows the model, or when the
/// budget of the batch (--max-cost) is spent. On a batch that is finished, it only writes the answers.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "run")]
pub struct Args {
    /// What to enqueue and how
    #[command(flatten)]
    pub enqueue: enqueue::Args,
    /// Where the answers go; - is standard output. The file appears when all jobs have ended. A name that ends in
    /// .csv, .tsv or .parquet makes it a table, any other lines as OpenAI writes them. A table that was made of a table
    /// has all its rows, in their order, each with its answer
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Where failed and cancelled jobs go; - is standard output
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Replace files that exist. Exports of the same batch are replaced without it, and what was edited in them is kept
    /// beside them
    #[arg(long)]
    pub force: bool,
}

/// Runs the command.
///
/// Progress goes to standard error. A progress line that cannot be written never costs a call or an output file: the
/// terminal may be closed while the command works.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let input = args.enqueue.file.as_deref().unwrap_or(Path::new("-"));
    require_apart(&args.output, args.errors.as_deref(), Some(input))?;
    let form = results::Form::of_files(&args.output, args.errors.as_deref());
    form.require_writable(&args.output, args.errors.as_deref())?;
    let signals = Signals::listen()?;
    if args.enqueue.dry_run {
        return dry_run(&args, &form, global, &signals).await;
    }
    outlive_hangups()?;
    // Before a private Postgres is made and started.
    for file in [Some(&args.output), args.errors.as_ref()].into_iter().flatten() {
        require_folder(file)?;
    }
    let check = |config: &Config| enqueue::require_input(&args.enqueue, config);
    let mut context = Context::open_for_run(global, check).await?;
    context.output = Output::for_progress(global);
    // Before anything is enqueued: an impossible output should not be discovered after the money is spent.
    let (mut answers, mut errors) = own::begin(&args, &form, &context).await?;
    let plan = Plan::new(&blueprint(&context.config))?;
    rehearse(&context).await?;

    let Some(summary) = enqueued(&args, &form, &context, global, &signals).await? else {
        context.close().await?;
        return Ok(ExitCode::Interrupted);
    };
    let batch = find(&context.store, &summary.batch).await?;
    let (mut worked, mut stuck, mut spent) = (Summary::default(), None, None);
    if batch.unfinished() > 0 {
        Worked { summary: worked, stuck, spent } = work(&mut context, plan, &summary.batch, &signals, true).await?;
    } else {
        let replaced = if batch.cancelled > 0 { context.store.replaced_of_batch(&summary.batch).await? } else { 0 };
        let failed = match batch.failed + batch.cancelled - replaced {
            0 => String::new(),
            failed => format!(
                "; {failed} of {} no answer, and are not tried again",
                counted(batch.jobs - replaced, "job has", "jobs have")
            ),
        };
        context.output.note(format_args!("every job of it has ended: there is nothing to work on{failed}"));
    }
    let stuck = keep_queued(&context.store, &batch, stuck).await?;
    let left = find(&context.store, &summary.batch).await?.unfinished();
    if left == 0 && signals.stop.is_cancelled() {
        // The last calls ended behind the interruption.
        watched_to_the_end(&context.store, &mut context.output, &summary.batch).await?;
    }
    if left > 0 {
        let stopped = context.store.stopped_by_loss(&summary.batch).await?;
        if let Some(reason) = &stopped {
            let screen = printable::stderr_width().unwrap_or(usize::MAX);
            let _ = writeln!(printable::stderr(), "{}", paused_by_loss(&summary.batch, reason, screen));
        }
        // Printed even with --quiet: nothing else tells how to go on. When standard error is gone, the user cannot be
        // told.
        if let Some(reasons) = &stuck {
            let _ = writeln!(printable::stderr(), "{}", cannot_go_on(&summary.batch, reasons));
        }
        let spent = spent.filter(|_| stopped.is_none() && stuck.is_none());
        if let Some(standing) = &spent {
            let budget = on_one_line(&standing.budget.name);
            let said = format!("the budget {budget} is spent: {}", standing.in_words());
            let least = standing.least.filter(|least| standing.room().0 > 0 && *least > standing.room());
            let why = least.map_or_else(String::new, |least| {
                format!("; {} is left, and the next call may cost {least}", standing.room())
            });
            let screen = printable::stderr_width().unwrap_or(usize::MAX);
            let _ = writeln!(printable::stderr(), "{}", wrapped(&format!("{said}{why}"), screen).join("\n  "));
        }
        let on = if let Some(standing) = spent {
            let needs = context.store.budget_needs([&standing.budget]).await?;
            let needed = needs.get(&standing.budget.name).and_then(|need| need.expected);
            GoOn::AfterRaise(standing.budget.name.clone(), enough(&standing, needed))
        } else if stopped.is_some() {
            GoOn::AfterResume
        } else if stuck.is_some() {
            GoOn::OnceMended
        } else {
            GoOn::AtOnce
        };
        let _ = writeln!(printable::stderr(), "{}", resume_line(&args, global, &summary.batch, left, &on));
        context.close().await?;
        if let Some(version) = worked.outgrown {
            version.require()?;
        }
        went_down(&worked)?;
        return Ok(match on {
            GoOn::AfterResume => ExitCode::Failure,
            GoOn::OnceMended | GoOn::AfterRaise(..) => ExitCode::Stuck,
            GoOn::AtOnce => ExitCode::Interrupted,
        });
    }
    let whose = context.store.exporter(&summary.batch).await?;
    let counts = write_out(&args, &summary, whose.as_deref(), &context, &form, &mut answers, errors.as_mut()).await?;
    if let Some(remark) = results::remarks_on_logins(&summary.batch, whose.as_deref(), false, &context.store).await? {
        context.output.note(format_args!("{remark}"));
    }
    let written = OutFile::finish_all([Some(answers), errors].into_iter().flatten());
    if counts.without_answer() > 0 {
        let why = match counts.failed {
            0 => None,
            _ => context.store.commonest_failure(&summary.batch).await?,
        };
        let refused_by = why.as_ref().and_then(|why| why.reason.clone());
        let too_late = why.as_ref().is_some_and(|why| why.class.as_deref() == Some(ErrorClass::Deadline.as_str()));
        context.output.note(format_args!(
            "{}\n{}",
            unanswered(&counts, why),
            results::advice(&summary.batch, &counts, args.errors.as_deref(), true)
        ));
        if too_late {
            context.output.note(
                "jobs whose deadline is over fail again when they are put back: the same command with another --batch \
                 and a later --deadline asks anew",
            );
        }
        let budget = Budget::name_of_batch(&summary.batch);
        if refused_by.is_some_and(|reason| reason.contains(&budget)) {
            let raise = about("sluice budget raise", &budget, "AMOUNT");
            context.output.note(format_args!("first, `{raise}`: its budget has no room for one of these calls"));
        }
    }
    if let Ok(remarks) = &written {
        for remark in remarks {
            context.output.note(remark);
        }
    } else {
        let again = about("sluice results", &summary.batch, "-o FILE");
        context.output.note(format_args!("the answers are kept: `{again}` writes them again"));
    }
    context.close().await?;
    written?;
    Ok(counts.exit_code())
}

/// The file beside whose rows the answers are written, if they are.
fn beside<'a>(args: &'a Args, form: &results::Form, unit: Option<HeldBy>) -> Option<&'a Path> {
    let file = args.enqueue.file.as_deref().filter(|file| *file != Path::new("-"))?;
    (form.answers.is_table() && unit == Some(HeldBy::Row)).then_some(file)
}

/// Writes the answers: of a table into a table beside the author's own rows, all of them and in her order.
async fn write_out(
    args: &Args,
    summary: &enqueue::Summary,
    whose: Option<&str>,
    context: &Context,
    form: &results::Form,
    answers: &mut OutFile,
    errors: Option<&mut OutFile>,
) -> anyhow::Result<results::Counts> {
    let (batch, store) = (summary.batch.as_str(), &context.store);
    let errors = errors.map(|file| file as &mut (dyn Write + Send));
    let Some(file) = beside(args, form, Some(summary.unit)) else {
        return results::export(batch, whose, store, form, answers, errors).await;
    };
    if let Some(errors) = errors {
        results::export(batch, whose, store, form, &mut io::sink(), Some(errors)).await?;
    }
    let of = args.enqueue.rows_of();
    let (counts, remarks) =
        results::export_beside(file, &of, batch, whose, store, form, answers).await.inspect_err(|_| {
            let again = about("sluice results", batch, &format!("-o {}", path(&args.output)));
            context.output.note(format_args!(
                "the answers are kept: `{again}` writes them without the rows of {}",
                file.display()
            ));
        })?;
    for remark in remarks {
        context.output.warn(remark);
    }
    Ok(counts)
}

/// Keeps SIGHUP from ending the process: a run continues when its terminal is closed.
pub(super) fn outlive_hangups() -> io::Result<()> {
    let mut hangups = Hangups::listen()?;
    // Under no watch: nothing in it can panic but the log, and the signal then changes nothing either.
    tokio::spawn(async move {
        loop {
            hangups.next().await;
            tracing::warn!("SIGHUP ignored: a run keeps the configuration that it began with");
        }
    });
    Ok(())
}

/// Checks that this login can work, read the outcomes, and put aside outcomes that the database does not take.
pub(super) async fn rehearse(context: &Context) -> anyhow::Result<()> {
    Worker::rehearse(&context.store, &settings(&context.config, false)).await?;
    context.store.batches(1).await?;
    context.store.batch_obstacle("").await?;
    context.store.known().await?;
    let mut nothing = std::pin::pin!(context.store.export_batch("", None, i64::MAX));
    nothing.try_next().await?;
    Ok(())
}

/// Enqueues the file, and says so; `None` when that was interrupted, and nothing was enqueued.
async fn enqueued(
    args: &Args,
    form: &results::Form,
    context: &Context,
    global: &GlobalArgs,
    signals: &Signals,
) -> anyhow::Result<Option<enqueue::Summary>> {
    let shows_progress = printable::stderr_is_terminal() && !global.quiet;
    let mut stderr = Dispensable(printable::stderr());
    let store = Some(&context.store);
    let loading = tokio::select! {
        loading = enqueue::load(&args.enqueue, store, &context.config, shows_progress, &mut stderr) => loading?,
        () = signals.stop.cancelled() => {
            context.output.note("interrupted; nothing was enqueued");
            return Ok(None);
        }
    };
    require_place_for_answers(args, form, loading.holds())?;
    let summary = loading.end().await?;
    let before = match summary.existing {
        0 => String::new(),
        existing => format!(", {} there before", counted(existing, "was", "were")),
    };
    let number = summary.enqueue.map_or_else(String::new, |number| format!(" (enqueue {number})"));
    context.output.note(format_args!(
        "{} enqueued as batch {}{before}{number}",
        counted(summary.jobs, "job", "jobs"),
        on_one_line(&summary.batch)
    ));
    for remark in &summary.remarks {
        context.output.note(remark);
    }
    Ok(Some(summary))
}

/// Checks the file as a run would, and enqueues nothing: without a database and without a key. Whether an output file
/// that exists is an export of the same batch is not known here.
async fn dry_run(
    args: &Args,
    form: &results::Form,
    global: &GlobalArgs,
    signals: &Signals,
) -> anyhow::Result<ExitCode> {
    for file in [Some(&args.output), args.errors.as_ref()].into_iter().flatten() {
        require_folder(file)?;
    }
    let config = Config::load_with(global.config.as_deref(), environment(global), Keys::Ignored)?;
    let output = Output::for_progress(global);
    let shows_progress = printable::stderr_is_terminal() && !global.quiet;
    let mut stderr = Dispensable(printable::stderr());
    let loading = tokio::select! {
        loading = enqueue::load(&args.enqueue, None, &config, shows_progress, &mut stderr) => loading?,
        () = signals.stop.cancelled() => return Ok(ExitCode::Interrupted),
    };
    require_place_for_answers(args, form, loading.holds())?;
    let summary = loading.end().await?;
    for remark in &summary.remarks {
        output.note(remark);
    }
    output.note(format_args!(
        "{}; nothing was enqueued (--dry-run)",
        counted(summary.jobs, "job is in order", "jobs are in order")
    ));
    Ok(ExitCode::Success)
}

/// Checks that the answers can stand beside the rows of the file, if they are to: it is read once more at the end, when
/// all is paid for.
fn require_place_for_answers(args: &Args, form: &results::Form, unit: Option<HeldBy>) -> anyhow::Result<()> {
    if let Some(file) = beside(args, form, unit) {
        results::require_rows(file, &args.enqueue.rows_of())
            .map_err(|failure| CommandFailure::input(format!("{failure}; nothing was enqueued")))?;
    }
    Ok(())
}

/// The work on a batch, at its end.
pub(super) struct Worked {
    pub summary: Summary,
    /// Why it could not go on, where that ended it.
    pub stuck: Option<Vec<String>>,
    /// The budget without which it could not go on.
    pub spent: Option<BudgetStanding>,
}

/// Works on a batch and watches it until all of its jobs have ended, or until it is told to stop. `ends_stuck`: it also
/// ends when no target can be called before a person does something.
pub(super) async fn work(
    context: &mut Context,
    plan: Plan,
    batch: &str,
    signals: &Signals,
    ends_stuck: bool,
) -> anyhow::Result<Worked> {
    let settings = Settings { only_batch: Some(batch.to_owned()), ..settings(&context.config, false) };
    context.store.apply_budgets(&context.config.budgets, &[]).await?;
    let before = context.store.calls_of_batch(batch).await?;
    let worker = Worker::register(context.store.clone(), plan, settings).await?;
    let finished = CancellationToken::new();
    let (stop, hurry) = (signals.stop.clone(), signals.hurry.clone());
    let stopped = {
        let finished = finished.clone();
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = finished.cancelled() => {}
            }
        }
    };
    let mut working = tokio::spawn(worker.run(stopped, async move { hurry.cancelled().await }, |_| {}));
    let (mut worked, mut watched, mut stuck, mut spent) = (None, Ok(()), None, None);
    tokio::select! {
        ended = watched_to_the_end(&context.store, &mut context.output, batch) => watched = ended,
        () = signals.stop.cancelled() => {}
        () = stopped_by_loss(&context.store, batch) => {}
        standing = stopped_by_budget(&context.store, batch), if ends_stuck => spent = Some(standing),
        reasons = stuck_for_good(&context.store, batch, before), if ends_stuck => stuck = Some(reasons),
        // The worker ended by itself: the schema has become too new for it.
        done = &mut working => worked = Some(done?),
    }
    if spent.is_none() && ends_stuck && worked.is_none() {
        // Interrupted: once the worker has ended, that is what the jobs wait for.
        spent = spent_budget(&context.store, batch).await.unwrap_or_default();
    }
    if signals.stop.is_cancelled() && worked.is_none() {
        let most = humantime::format_duration(context.config.worker.drain_timeout);
        context.output.note(format_args!(
            "interrupted: calls under way are finished, for {most} at most; once more, and they are dropped"
        ));
    }
    // In order, regardless of the result of watching: outcomes under way are written.
    finished.cancel();
    let worked = match worked {
        Some(worked) => worked,
        None => working.await?,
    };
    watched?;
    Ok(Worked { summary: worked, stuck, spent })
}

/// Shows the progress until all jobs have ended. An absence of the database is the worker's business.
async fn watched_to_the_end(store: &Store, output: &mut Output, batch: &str) -> anyhow::Result<()> {
    loop {
        let error = match watch::follow(store, output, batch, STARTING).await {
            Ok(Followed::Done(_)) => return Ok(()),
            // The run ends for that by itself.
            Ok(Followed::Paused(_)) => {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            Err(error) => error,
        };
        let passes =
            error.chain().any(|cause| cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_transient));
        if !passes {
            return Err(error);
        }
        tracing::debug!(error = %error, "the progress cannot be read at the moment");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How many jobs have no answer, and the commonest reason with the number of jobs that it is one of.
fn unanswered(counts: &results::Counts, commonest: Option<CommonFailure>) -> String {
    let why = match commonest {
        Some(CommonFailure { jobs, reason: Some(reason), .. }) => {
            let are_all = u64::try_from(jobs) == Ok(counts.without_answer());
            let share = if are_all { String::new() } else { format!(", {jobs} of them for one reason") };
            format!("{share}: {}", on_one_line(&reason))
        }
        _ => ":".to_owned(),
    };
    let all = counted(counts.total(), "job has", "jobs have");
    let screen = printable::stderr_width().map_or(usize::MAX, |columns| columns.saturating_sub(4));
    wrapped(&format!("{} of {all} no answer{why}", counts.without_answer()), screen).join("\n    ")
}
