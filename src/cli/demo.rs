//! `sluice demo`: everything at once, on a private Postgres and simulated providers.
//!
//! It runs the commands that a user would run, as processes of their own, and shows them. Only Postgres and the
//! simulator live in this process, so that they end with it. At the end it checks the books against the simulator's.
//! The guard removes everything that a killed demo leaves behind.

mod folder;

use super::GlobalArgs;
use super::output::Output;
use crate::domain::counted::counted;
use crate::embedded::{EmbeddedPostgres, Options};
use crate::exit_code::ExitCode;
use crate::printable::{self, on_one_line};
use crate::shutdown;
use crate::simulate::{Scenario, Simulator};
use crate::store::Store;
use crate::store::audit::Audit;
use anyhow::Context as _;
use folder::Folder;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Jobs by SQL, and as many again by file.
const JOBS: usize = 1_000;

/// Shows the whole of Sluice in under a minute. Nothing leaves this machine and nothing has to be configured.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Keep the database and the files, and say where they are
    #[arg(long)]
    pub keep: bool,
    /// Be the guard of a demo with this folder: tidy up when the demo is killed
    #[arg(long, hide = true, value_name = "FOLDER")]
    pub watch_over: Option<PathBuf>,
}

struct Stage {
    folder: PathBuf,
    config: PathBuf,
    url: String,
}

impl Stage {
    /// One of our own commands, as a user would type it.
    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("finding our own program")?);
        command
            .arg("--config")
            .arg(&self.config)
            .args(arguments)
            .env("DATABASE_URL", &self.url)
            .env("SLUICE__SPOOL__DIR", self.folder.join("spool"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    async fn show(&self, out: &mut Output, arguments: &[&str]) -> anyhow::Result<()> {
        out.line(format!("\n$ sluice {}", arguments.join(" ")))?;
        out.finish()?;
        let status = self.command(arguments)?.status().await.context("running our own program")?;
        anyhow::ensure!(status.success(), "`sluice {}` ended with {status}", arguments.join(" "));
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// When something fails that should work. A lost job or a broken limit is not an error but an exit code.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    if let Some(folder) = args.watch_over {
        folder::watch_over(folder).await?;
        return Ok(ExitCode::Success);
    }
    for gone in folder::tidy_up_after_others().await {
        Output::new(global).note(format_args!("removed {}, left behind by a demo that was killed", gone.display()));
    }
    let scratch = Folder::make()?;
    let ended = Box::pin(play(scratch.path(), global)).await;
    if args.keep {
        let kept = scratch.keep().context("keeping the folder")?;
        Output::new(global).line(format!("Kept in {}", kept.display()))?;
    }
    ended
}

async fn play(folder: &Path, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut out = Output::new(global);
    out.lines(format!(
        "Sluice demo: {} jobs, three simulated providers, a private Postgres.\nNothing leaves this machine.",
        2 * JOBS
    ))?;
    let interrupted = shutdown::interruption()?;
    let options = Options { data_dir: folder.join(folder::POSTGRES), fsync: true, max_connections: 50 };
    let postgres = EmbeddedPostgres::start(&options).await?;
    let store = Store::connect(postgres.connect_options("sluice"), 4).await?;
    store.migrate().await?;
    let simulator = Simulator::start(
        Scenario::from_toml(include_str!("../../config/demo.scenario.toml"))?,
        std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
    )?;
    let config = folder.join(folder::CONFIG);
    let text = include_str!("../../config/demo.toml").replace("127.0.0.1:1/", &format!("{}/", simulator.addr()));
    std::fs::write(&config, text).context("writing the configuration")?;
    let stage = Stage { folder: folder.to_owned(), config, url: postgres.url("sluice") };

    // A signal that came earlier is found here. Running commands are killed when they are dropped.
    let ended = tokio::select! {
        ended = perform(&stage, &store, &simulator, &mut out) => ended,
        () = interrupted.cancelled() => Ok(ExitCode::Interrupted),
    };
    store.close().await;
    simulator.stop();
    postgres.stop().await?;
    ended
}

async fn perform(stage: &Stage, store: &Store, simulator: &Simulator, out: &mut Output) -> anyhow::Result<ExitCode> {
    out.line("\nHalf of the jobs come by SQL, as an application would insert them in its own")?;
    out.line("transaction:")?;
    out.lines(format!(
        "\n> insert into sluice.job (batch, custom_id, request)\n  select 'demo_sql', 'review-' || n, …\n    from \
         generate_series(1, {JOBS}) n;"
    ))?;
    store.enqueue_demo("demo_sql", JOBS).await?;
    out.line("\nThe other half comes from a file of OpenAI-batch lines:")?;
    let file = stage.folder.join("prompts.jsonl");
    std::fs::write(&file, prompts()).context("writing prompts")?;
    let file = file.to_string_lossy().into_owned();
    stage.show(out, &["enqueue", &file, "--batch", "demo_file"]).await?;

    out.line("\nA worker takes them through the chain: thrifty is cheap and narrow, steady")?;
    out.line("breaks down for seven seconds in the middle, premium is dear and always there.")?;
    out.line("\n$ sluice worker --drain")?;
    out.finish()?;
    let worker = stage.command(&["worker", "--drain"])?.spawn().context("starting the worker")?;
    let took = watch(store, worker).await?;
    let audit = store.audit().await?;
    out.line(format!(
        "{} in {:.1} s: {} succeeded, {} failed, {} calls, {}",
        counted(audit.results, "job", "jobs"),
        took.as_secs_f64(),
        audit.succeeded,
        audit.results - audit.succeeded,
        audit.attempts,
        audit.cost
    ))?;

    stage.show(out, &["report", "cost", "--format", "table"]).await?;
    stage.show(out, &["report", "failures", "--format", "table"]).await?;
    if let Some(job) = store.job_that_fell_back().await? {
        stage.show(out, &["explain", &job.to_string()]).await?;
    }
    let code = verdict(&audit, simulator, out)?;
    out.line("\nWhere to go from here:")?;
    out.line("  sluice check            after copying config/sluice.toml and adding a provider")?;
    out.line("  sluice estimate FILE --route default")?;
    out.line("                          what a file would cost, before anything is sent")?;
    out.line("  sluice run FILE -o OUT  enqueue, work, watch and export in one command")?;
    out.line("  README.md               from nothing to your own provider in five minutes")?;
    out.finish()?;
    Ok(code)
}

/// Compares our books with the simulator's.
fn verdict(audit: &Audit, simulator: &Simulator, out: &mut Output) -> anyhow::Result<ExitCode> {
    let seen = simulator.verdict();
    let mut faults = audit.faults();
    if audit.jobs != i64::try_from(2 * JOBS)? || audit.unfinished != 0 {
        faults.push(format!("{} of {} jobs are finished", audit.results, 2 * JOBS));
    }
    if u64::try_from(audit.attempts)? != seen.total.calls {
        faults.push(format!("{} calls on the ledger, {} at the providers", audit.attempts, seen.total.calls));
    }
    if !seen.clean {
        faults.extend(seen.reasons.iter().map(|reason| format!("a provider complains: {reason}")));
    }
    out.line("")?;
    if faults.is_empty() {
        out.line(format!(
            "The books are in order: {} jobs, {} results, none lost, none twice;",
            audit.jobs, audit.results
        ))?;
        out.line(format!("{} calls on the ledger and at the providers;", audit.attempts))?;
        out.line("no limit was broken, no wait cut short.")?;
        Ok(ExitCode::Success)
    } else {
        for fault in faults {
            out.line(format!("NOT IN ORDER: {fault}"))?;
        }
        Ok(ExitCode::Failure)
    }
}

/// Shows progress until the worker ends.
async fn watch(store: &Store, mut worker: Child) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let total = 2 * JOBS;
    let bar = printable::stderr_is_terminal().then(|| {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {wide_msg}").expect("the template is right");
        ProgressBar::new(total as u64).with_style(style)
    });
    let mut ticks = 0_u32;
    let status = loop {
        tokio::select! {
            status = worker.wait() => break status?,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        ticks += 1;
        let progress = store.progress().await?;
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = progress.finished as f64 / seconds;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let eta = (total as f64 - progress.finished as f64) / rate.max(0.1);
        let shut = if progress.shut.is_empty() { String::new() } else { format!("  [{}]", progress.shut.join(", ")) };
        let message = format!("{rate:.0}/s  ETA {eta:.0} s  {}  {} failed{shut}", progress.cost, progress.failed);
        match &bar {
            Some(bar) => {
                bar.set_position(u64::try_from(progress.finished)?);
                bar.set_message(on_one_line(&message).into_owned());
            }
            None if ticks.is_multiple_of(4) => {
                // Without a standard error the user cannot be told.
                let _ = writeln!(printable::stderr(), "{}/{total}  {message}", progress.finished);
            }
            None => {}
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    anyhow::ensure!(status.success(), "the worker ended with {status}");
    Ok(began.elapsed())
}

/// The file of the demo: conversations with a system prompt, as OpenAI-batch lines.
fn prompts() -> String {
    let mut lines = String::new();
    for number in 1..=JOBS {
        let body = serde_json::json!({
            "custom_id": format!("ticket-{number}"),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "any",
                "messages": [
                    { "role": "system", "content": "You sort support tickets into billing, fault or praise." },
                    { "role": "user", "content": format!("Ticket {number}: my invoice of last month shows item {} \
                                                          twice.", number % 97) },
                ],
                "max_tokens": 600,
            },
        });
        lines.push_str(&body.to_string());
        lines.push('\n');
    }
    lines
}
