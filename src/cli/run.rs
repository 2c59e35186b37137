//! `sluice run`: a file in, its answers out, in one command.

use super::batch::find;
use super::context::Context;
use super::out_file::{OutFile, require_apart};
use super::output::{Dispensable, Output};
use super::table::wrapped;
use super::words::{about, beginning, option, path};
use super::worker::{blueprint, settings, went_down};
use super::{GlobalArgs, enqueue, results, watch};
use crate::domain::budget::BudgetStanding;
use crate::domain::counted::counted;
use crate::domain::error_class::Effect;
use crate::domain::job::JobState;
use crate::domain::obstacle::Obstacle;
use crate::domain::{ErrorClass, NanoUsd};
use crate::exit_code::ExitCode;
use crate::printable::{self, on_one_line};
use crate::shutdown::{Hangups, Signals};
use crate::store::batch::{Batch, JobFilter};
use crate::store::{Store, StoreError};
use crate::view::dollars::Dollars;
use crate::worker::plan::Plan;
use crate::worker::{Settings, Summary, Worker};
use futures_util::TryStreamExt as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How soon progress is read again when it could not be read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    /// .csv, .tsv or .parquet makes it a table, any other lines as OpenAI writes them
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Where failed and cancelled jobs go; - is standard output
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Replace files that exist
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
    outlive_hangups()?;
    let mut context = Context::open_for_run(global).await?;
    context.output = Output::for_progress(global);
    // Before anything is enqueued: an impossible output should not be discovered after the money is spent.
    let mut answers = OutFile::create(&args.output, args.force)?;
    let mut errors = args.errors.as_deref().map(|path| OutFile::create(path, args.force)).transpose()?;
    let plan = Plan::new(&blueprint(&context.config))?;
    if !args.enqueue.dry_run {
        rehearse(&context).await?;
    }

    let Some(summary) = enqueued(&args, &context, global, &signals).await? else {
        context.close().await?;
        return Ok(ExitCode::Interrupted);
    };
    if args.enqueue.dry_run {
        context.close().await?;
        return Ok(ExitCode::Success);
    }
    let batch = find(&context.store, &summary.batch).await?;
    let (mut worked, mut stuck) = (Summary::default(), None);
    if batch.unfinished() > 0 {
        Worked { summary: worked, stuck } = work(&mut context, plan, &summary.batch, &signals, true).await?;
    } else {
        let failed = match batch.failed + batch.cancelled {
            0 => String::new(),
            failed => format!(
                "; {failed} of {} no answer, and are not tried again",
                counted(batch.jobs, "job has", "jobs have")
            ),
        };
        context.output.note(format_args!("every job of it has ended: there is nothing to work on{failed}"));
    }
    let stuck = keep_queued(&context.store, &batch, stuck.as_ref()).await?;
    let left = find(&context.store, &summary.batch).await?.unfinished();
    if left > 0 {
        let stopped = context.store.stopped_by_loss(&summary.batch).await?;
        if let Some(reason) = &stopped {
            let resume = about("sluice batch resume", &summary.batch, "");
            let _ = writeln!(
                printable::stderr(),
                "batch {} is paused ({}). `sluice report failures` shows what failed; `{resume}` lets it go on",
                on_one_line(&summary.batch),
                on_one_line(reason)
            );
        }
        // Printed even with --quiet: nothing else tells how to go on. When standard error is gone, the user cannot be
        // told.
        if let Some(reasons) = &stuck {
            let _ = writeln!(printable::stderr(), "{}", cannot_go_on(&summary.batch, reasons));
        }
        let spent = if stopped.is_none() && stuck.is_none() {
            spent_budget(&context.store, &summary.batch).await?
        } else {
            None
        };
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
            GoOn::AfterRaise(standing.budget.name, enough(standing.budget.limit))
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
    let counts = {
        let errors = errors.as_mut().map(|file| file as &mut (dyn Write + Send));
        results::export(&summary.batch, whose.as_deref(), &context.store, &form, &mut answers, errors).await?
    };
    if let Some(remark) = results::remarks_on_logins(&summary.batch, whose.as_deref(), false, &context.store).await? {
        context.output.note(format_args!("{remark}"));
    }
    let written = OutFile::finish_all([Some(answers), errors].into_iter().flatten());
    if counts.without_answer() > 0 {
        context.output.note(format_args!(
            "{} of {} no answer. {}",
            counts.without_answer(),
            counted(counts.total(), "job has", "jobs have"),
            results::advice(&summary.batch, args.errors.as_deref())
        ));
    }
    if written.is_err() {
        let again = about("sluice results", &summary.batch, "-o FILE");
        context.output.note(format_args!("the answers are kept: `{again}` writes them again"));
    }
    context.close().await?;
    written?;
    Ok(counts.exit_code())
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
    context: &Context,
    global: &GlobalArgs,
    signals: &Signals,
) -> anyhow::Result<Option<enqueue::Summary>> {
    let shows_progress = printable::stderr_is_terminal() && !global.quiet;
    let mut stderr = Dispensable(printable::stderr());
    let store = (!args.enqueue.dry_run).then_some(&context.store);
    let loading = tokio::select! {
        loading = enqueue::load(&args.enqueue, store, &context.config, shows_progress, &mut stderr) => loading?,
        () = signals.stop.cancelled() => {
            context.output.note("interrupted; nothing was enqueued");
            return Ok(None);
        }
    };
    let summary = loading.end().await?;
    if args.enqueue.dry_run {
        context.output.note(format_args!(
            "{}; nothing was enqueued (--dry-run)",
            counted(summary.jobs, "job is in order", "jobs are in order")
        ));
        return Ok(Some(summary));
    }
    let before = match summary.existing {
        0 => String::new(),
        existing => format!(", {} there before", counted(existing, "was", "were")),
    };
    let number = summary.enqueue.map_or_else(String::new, |number| format!(" (enqueue {number})"));
    context.output.note(format_args!(
        "{} enqueued as batch {}{before}{number}",
        counted(summary.jobs, "job", "jobs"),
        summary.batch
    ));
    for remark in &summary.remarks {
        context.output.note(remark);
    }
    Ok(Some(summary))
}

/// The work on a batch, at its end.
pub(super) struct Worked {
    pub summary: Summary,
    /// Why it could not go on, where that ended it.
    pub stuck: Option<Obstacle>,
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
    let (mut worked, mut watched, mut stuck) = (None, Ok(()), None);
    tokio::select! {
        ended = watched_to_the_end(&context.store, &mut context.output, batch) => watched = ended,
        () = signals.stop.cancelled() => {}
        () = stopped_by_loss(&context.store, batch) => {}
        () = stopped_by_budget(&context.store, batch), if ends_stuck => {}
        obstacle = stuck_for_good(&context.store, batch), if ends_stuck => stuck = Some(obstacle),
        // The worker ended by itself: the schema has become too new for it.
        done = &mut working => worked = Some(done?),
    }
    // In order, whatever the result of watching: outcomes under way are written.
    finished.cancel();
    let worked = match worked {
        Some(worked) => worked,
        None => working.await?,
    };
    watched?;
    Ok(Worked { summary: worked, stuck })
}

/// Shows the progress until all jobs have ended. An absence of the database is the worker's business.
async fn watched_to_the_end(store: &Store, output: &mut Output, batch: &str) -> anyhow::Result<()> {
    loop {
        let Err(error) = watch::follow(store, output, batch).await else { return Ok(()) };
        let passes =
            error.chain().any(|cause| cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_transient));
        if !passes {
            return Err(error);
        }
        tracing::debug!(error = %error, "the progress cannot be read at the moment");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until the batch is paused by its stop-loss: a command that waited on would wait for an operator.
async fn stopped_by_loss(store: &Store, batch: &str) {
    loop {
        match store.stopped_by_loss(batch).await {
            Ok(Some(_)) => return,
            Ok(None) => {}
            // An absence of the database is the worker's business.
            Err(error) => tracing::debug!(error = %error, "the stop-loss cannot be read at the moment"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The budget that keeps a batch from going on until it is raised: it counts once, is spent, and no call is under way
/// that might give some of it back.
async fn spent_budget(store: &Store, batch: &str) -> Result<Option<BudgetStanding>, StoreError> {
    let obstacle = store.batch_obstacle(batch).await?;
    let budget = obstacle.as_ref().and_then(Obstacle::budget).filter(|standing| !standing.budget.scope.is_provider());
    Ok(budget.filter(|standing| standing.ends_at.is_none() && standing.reserved == NanoUsd::ZERO).cloned())
}

/// Waits until the batch cannot go on before its budget is raised.
async fn stopped_by_budget(store: &Store, batch: &str) {
    let mut is_spent = false;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        match spent_budget(store, batch).await {
            // Twice: between two calls of the last jobs nothing is reserved either.
            Ok(Some(_)) if is_spent => return,
            Ok(found) => is_spent = found.is_some(),
            // An absence of the database is the worker's business.
            Err(error) => tracing::debug!(error = %error, "the budget cannot be read at the moment"),
        }
    }
}

/// Waits until no target of the batch can be called before a person does something: what that is.
async fn stuck_for_good(store: &Store, batch: &str) -> Obstacle {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        match store.batch_obstacle(batch).await {
            Ok(Some(obstacle)) if !obstacle.stuck.is_empty() => return obstacle,
            Ok(_) => {}
            // An absence of the database is the worker's business.
            Err(error) => tracing::debug!(error = %error, "what the batch waits for cannot be read at the moment"),
        }
    }
}

/// The classes of failures that say that a model is unknown or not allowed.
fn no_model() -> impl Iterator<Item = &'static str> {
    ErrorClass::ALL.iter().filter(|class| class.facts().effect == Effect::NoModel).map(|class| class.as_str())
}

/// Why a batch cannot go on, if it cannot. The jobs that found out that there is no such model have failed of it: they
/// are put back, to stay queued like the others. `before`: the batch before the run; `stuck`: what ended the run.
async fn keep_queued(store: &Store, before: &Batch, stuck: Option<&Obstacle>) -> anyhow::Result<Option<Vec<String>>> {
    let classes: Vec<&str> = no_model().collect();
    let reasons = if let Some(obstacle) = stuck {
        obstacle.stuck.iter().map(|shut| shut.in_words(None, obstacle.as_of)).collect()
    } else {
        // With few jobs all of them find out before it is noticed that none can go on.
        let after = find(store, &before.name).await?;
        let newly_failed = after.failed - before.failed;
        if newly_failed == 0 || after.succeeded > before.succeeded {
            return Ok(None);
        }
        match store.failed_of(&before.name, &classes).await? {
            (jobs, Some(reason)) if jobs >= newly_failed => vec![reason],
            _ => return Ok(None),
        }
    };
    let classes = classes.into_iter().map(str::to_owned).collect();
    let unknown = JobFilter { states: vec![JobState::Failed], classes, error: None };
    store.retry_chosen(&before.name, &unknown, false, |_| {}).await?;
    Ok(Some(reasons))
}

/// Why a batch cannot go on, a line for each reason, and more where it is longer than the screen is wide.
fn cannot_go_on(batch: &str, reasons: &[String]) -> String {
    let screen = printable::stderr_width().map_or(usize::MAX, |columns| columns.saturating_sub(5));
    let each = reasons.iter().map(|words| format!("\n  {}", wrapped(&on_one_line(words), screen).join("\n    ")));
    format!("batch {} cannot go on:{}", on_one_line(batch), each.collect::<String>())
}

/// What has to happen before the command goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GoOn {
    /// Nothing.
    AtOnce,
    /// The batch has to be resumed.
    AfterResume,
    /// What it is stuck at has to be mended.
    OnceMended,
    /// The budget of this name has to be raised, for example to this.
    AfterRaise(String, NanoUsd),
}

/// Twice the limit, for a person to look at.
fn enough(limit: NanoUsd) -> NanoUsd {
    limit + limit
}

/// The command that goes on with the remaining jobs: the same one, for a file goes on with its batch.
fn resume_line(args: &Args, global: &GlobalArgs, batch: &str, left: i64, on: &GoOn) -> String {
    let jobs = counted(left, "job is left and stays", "jobs are left and stay");
    let when = if *on == GoOn::OnceMended { ". When that is mended, go on with" } else { ". Go on with" };
    let raise = match on {
        GoOn::AfterRaise(budget, limit) => {
            format!("{} &&\n  ", about("sluice budget raise", budget, &Dollars(*limit).to_string()))
        }
        _ => String::new(),
    };
    let Some(file) = args.enqueue.file.as_deref().filter(|file| *file != Path::new("-")) else {
        let errors = args.errors.as_deref().map_or_else(String::new, |errors| format!(" --errors {}", path(errors)));
        let results = about("sluice results", batch, &format!("-o {}{errors}", path(&args.output)));
        return format!("stopped: {jobs} queued{when}: {raise}sluice worker --drain\nand then: {results}");
    };
    let mut words = beginning(global);
    let first = |command: String| format!("{} {command} &&\n  ", words.join(" "));
    let resume = match on {
        GoOn::AfterResume => first(about("batch resume", batch, "")),
        GoOn::AfterRaise(budget, limit) => first(about("budget raise", budget, &Dollars(*limit).to_string())),
        GoOn::AtOnce | GoOn::OnceMended => String::new(),
    };
    words.extend(["run".to_owned(), path(file)]);
    // The others are in the batch already, and a file whose lines are all there needs no word about it.
    if let Some(name) = &args.enqueue.batch {
        words.push(option("batch", name));
    }
    if let Some(limit) = args.enqueue.limit {
        words.push(format!("--limit {limit}"));
    }
    if args.enqueue.skip_bad {
        words.push("--skip-bad".to_owned());
    }
    words.extend(args.enqueue.rows.words());
    if args.enqueue.max_line != enqueue::MAX_LINE {
        words.push(format!("--max-line {}", args.enqueue.max_line));
    }
    words.extend(["-o".to_owned(), path(&args.output)]);
    if let Some(errors) = &args.errors {
        words.extend(["--errors".to_owned(), path(errors)]);
    }
    if args.force {
        words.push("--force".to_owned());
    }
    format!("stopped: {jobs} queued{when}:\n  {resume}{}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        global: GlobalArgs,
        #[command(flatten)]
        args: Args,
    }

    fn line(words: &[&str]) -> String {
        let command = Command::try_parse_from([&["run"], words].concat()).unwrap();
        resume_line(&command.args, &command.global, "b 1", 3, &GoOn::AtOnce)
    }

    #[test]
    fn what_is_said_to_go_on_is_the_command_that_does() {
        let said =
            line(&["my file.jsonl", "-o", "out", "--errors", "it's", "--limit", "7", "--skip-bad", "-c", "s.toml"]);
        assert_eq!(
            said,
            "stopped: 3 jobs are left and stay queued. Go on with:\n  sluice --config s.toml run 'my file.jsonl' \
             --limit 7 --skip-bad -o out --errors 'it'\\''s'"
        );
        let paused = Command::try_parse_from(["run", "x", "--batch", "b 1", "-o", "y", "-c", "s.toml"]).unwrap();
        let said = resume_line(&paused.args, &paused.global, "b 1", 3, &GoOn::AfterResume);
        assert!(
            said.ends_with(
                "  sluice --config s.toml batch resume 'b 1' &&\n  sluice --config s.toml run x --batch 'b 1' \
                 -o y"
            ),
            "{said}"
        );
        // The same words, as a shell passes them to the program, are understood.
        let again = ["x.jsonl", "--batch", "b 1", "--resume", "-o", "-", "--force", "--max-line", "64"];
        let said = line(&again);
        assert!(said.ends_with("run x.jsonl --batch 'b 1' --max-line 64 -o - --force"), "{said}");
        assert!(!line(&["x", "-o", "y", "--database-url", "postgres://u:hunter2@h/d"]).contains("hunter2"));
    }

    #[test]
    fn standard_input_cannot_be_read_twice() {
        for words in [&["-", "-o", "out"][..], &["-o", "out"]] {
            let said = line(words);
            assert!(said.contains("sluice worker --drain") && said.contains("sluice results 'b 1' -o out"), "{said}");
        }
    }

    #[test]
    fn a_batch_that_is_called_like_an_option_is_named_as_it_is() {
        let told = |words: &[&str]| {
            let command = Command::try_parse_from([&["run"], words].concat()).unwrap();
            resume_line(&command.args, &command.global, "-x", 3, &GoOn::AtOnce)
        };
        assert!(told(&["f", "--batch=-x", "-o", "out"]).ends_with("run f --batch=-x -o out"));
        assert!(told(&["-o", "out"]).ends_with("sluice results -o out -- -x"));
        let again = Command::try_parse_from(["run", "f", "--batch=-x", "--resume", "-o", "out"]).unwrap();
        assert_eq!(again.args.enqueue.batch.as_deref(), Some("-x"));
    }
}
