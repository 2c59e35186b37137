//! `sluice run`: a file in, its answers out, in one command.

use super::context::Context;
use super::out_file::OutFile;
use super::worker::{blueprint, settings};
use super::{GlobalArgs, enqueue, results, watch};
use crate::exit_code::ExitCode;
use crate::shutdown::{Hangups, Signals};
use crate::worker::plan::Plan;
use crate::worker::{Settings, Worker};
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Enqueue a file, work on it, watch it, and write its answers.
///
/// Only the jobs of this file are worked on, whatever else is queued. Interrupted, it finishes the calls under way and
/// gives back the rest: `sluice worker` goes on with them, and `sluice results` writes the answers.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "run")]
pub struct Args {
    /// What to enqueue and how
    #[command(flatten)]
    pub enqueue: enqueue::Args,
    /// Where the answers go. The file appears when all jobs have ended
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Where failed and cancelled jobs go
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open_for_work(global).await?;
    // Before anything is enqueued: a file that cannot be written should not be found out after the money is spent.
    let mut answers = OutFile::create(&args.output, args.force)?;
    let mut errors = args.errors.as_deref().map(|path| OutFile::create(path, args.force)).transpose()?;
    let plan = Plan::new(&blueprint(&context.config))?;

    let mut stderr = io::stderr();
    let shows_progress = stderr.is_terminal() && !global.quiet;
    let summary =
        enqueue::enqueue(&args.enqueue, Some(&context.store), &context.config, shows_progress, &mut stderr).await?;
    if args.enqueue.dry_run {
        context.close().await?;
        return Ok(ExitCode::Success);
    }
    // When standard error is gone, the work goes on all the same.
    let _ = writeln!(stderr, "{} jobs enqueued as batch {}", summary.jobs, summary.batch);

    let signals = Signals::listen()?;
    let mut hangups = Hangups::listen()?;
    tokio::spawn(async move {
        loop {
            hangups.next().await;
            tracing::warn!("SIGHUP changes nothing: a run works to its end with the configuration that it began with");
        }
    });
    let settings = Settings { only_batch: Some(summary.batch.clone()), ..settings(&context.config, false) };
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
    // Progress is for people: standard output stays empty, the answers are in the file.
    let mut worked = None;
    let watched = tokio::select! {
        watched = watch::follow(&context.store, &mut context.output, &summary.batch) => Some(watched?),
        () = signals.stop.cancelled() => None,
        // Without being asked: the schema has become too new for it.
        done = &mut working => {
            worked = Some(done?);
            None
        }
    };
    finished.cancel();
    let worked = match worked {
        Some(worked) => worked,
        None => working.await?,
    };
    if watched.is_none() {
        let _ = writeln!(
            stderr,
            "stopped. The jobs that are left stay queued: `sluice worker --drain` goes on with them, \
             `sluice results {} -o {}` writes the answers",
            summary.batch,
            args.output.display()
        );
        context.close().await?;
        if let Some(version) = worked.outgrown {
            version.require()?;
        }
        return Ok(ExitCode::Failure);
    }
    let counts = {
        let errors = errors.as_mut().map(|file| file as &mut (dyn Write + Send));
        results::export(&summary.batch, &context.store, false, &mut answers, errors).await?
    };
    for file in [Some(answers), errors].into_iter().flatten() {
        file.finish()?;
    }
    context.close().await?;
    Ok(counts.exit_code())
}
