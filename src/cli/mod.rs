//! The command line: a file per command.
//!
//! Data goes to standard output through [`output::Output`], everything else to standard error. Every command is
//! `run(args, &global) -> anyhow::Result<ExitCode>`; errors are printed once, in [`run`].

pub mod alert;
pub mod batch;
pub mod budget;
pub mod check;
mod client;
pub mod colour;
mod consent;
pub mod context;
pub mod db;
pub mod demo;
pub mod doctor;
pub mod enqueue;
pub mod estimate;
pub mod explain;
pub mod failure;
mod faults;
mod figure;
pub mod game_day;
pub mod generate;
pub mod job;
mod manual;
pub mod migrate;
pub mod names;
mod online;
pub mod out_file;
pub mod output;
pub mod pause;
pub mod prices;
pub mod project;
pub mod provider;
pub mod psql;
pub mod reconcile;
mod reload;
pub mod report;
pub mod reprice;
pub mod results;
pub mod route;
pub mod rows;
pub mod run;
pub mod schedule;
#[cfg(test)]
mod screens;
pub mod simulate;
pub mod status;
mod table;
mod today;
pub mod trial;
pub mod watch;
pub mod when;
mod words;
pub mod worker;

use crate::exit_code::ExitCode;
use crate::shutdown;
use clap::{ArgAction, Parser, Subcommand};
use output::Format;
use std::path::PathBuf;

/// A persistent job queue and worker daemon for batch AI requests, on Postgres.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice", version, propagate_version = true, max_term_width = 120, after_help = AFTER_HELP)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "Exit status: 0 done, 1 failed, 2 wrong command line, 3 faulty configuration, 4 database \
unreachable or its schema does not fit, 5 all work is finished and some jobs failed, 6 no such job, batch, route, \
provider or receiver, 7 faulty input, 8 the simulator's verdict is not clean, 9 the doctor found something bad, \
10 work cannot go on: no key is in service, there is no such model, no server is reached, or a budget is spent, \
11 the ledger and the invoice do not agree, 130 interrupted.";

/// What holds for every command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GlobalArgs {
    /// The configuration [default: $SLUICE_CONFIG, else the first that exists of ./sluice.toml,
    /// ./config/sluice.toml and /etc/sluice/sluice.toml]
    #[arg(long, short, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// The Postgres to use, in place of the configured one. DATABASE_URL is the safer way: others see arguments
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options", hide_short_help = true,
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub database_url: Option<String>,
    /// The shape of the output [default: table on a terminal, plain elsewhere]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = "Global options")]
    pub format: Option<Format>,
    /// All columns of a table; on a terminal only the most telling ones are shown
    #[arg(long, global = true, help_heading = "Global options")]
    pub wide: bool,
    /// Colours on a terminal, everywhere, or nowhere. NO_COLOR and CLICOLOR are honoured
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        help_heading = "Global options",
        hide_possible_values = false
    )]
    pub color: colour::Colours,
    /// More log lines on standard error; twice for all of them
    #[arg(long, short, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Only errors on standard error
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// The shape of log lines
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = "Global options")]
    pub log_format: Option<LogFormat>,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Every command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Work on jobs until told to stop
    Worker(worker::Args),
    /// Enqueue a file, work on it, watch it, and write its answers
    Run(run::Args),
    /// Put the requests of a file into the queue
    Enqueue(enqueue::Args),
    /// Watch a batch until it is done
    Watch(watch::Args),
    /// Write the answers of a batch, as OpenAI-batch output lines or as a table
    Results(results::Args),
    /// Tell what a file will cost, rung by rung, before anything is sent
    Estimate(estimate::Args),
    /// Ask each rung of a route the same few requests, and compare answers and money
    Trial(trial::Args),
    /// List, show, cancel, retry, pause or resume batches
    Batch(batch::Args),
    /// Show, cancel, retry, pause or resume jobs
    Job(job::Args),
    /// Tell the story of a job: each attempt, why that rung, what it cost
    Explain(explain::Args),
    /// Report cost, failures, waste, fallbacks, latency or what the cache saved
    Report(report::Args),
    Reprice(reprice::Args),
    Reconcile(reconcile::Args),
    /// List or show prices, or take a newer catalogue of them
    Prices(prices::Args),
    /// Show the queue, the workers, buckets and breakers
    Status(status::Args),
    /// Pause, resume, reopen or probe a provider
    Provider(provider::Args),
    /// Pause or resume a route, cancel or retry its jobs
    Route(route::Args),
    /// Pause or resume a project
    Project(project::Args),
    /// List, show, set, raise or remove budgets: what may be spent on what
    Budget(budget::Args),
    /// List, show, run, pause or resume schedules: batches that are enqueued by the clock
    Schedule(schedule::Args),
    /// List game days, or report on one: times in which calls fail on purpose, to see the fallback work
    GameDay(game_day::Args),
    /// List alerts, or send a test message to a receiver of them
    Alert(alert::Args),
    Check(check::Args),
    /// Look for what hurts the queue, and say what to do about it
    Doctor(doctor::Args),
    /// Bring the database's schema up to this version
    Migrate(migrate::Args),
    Psql(psql::Args),
    Db(db::Args),
    /// Play the providers: every dialect, real quotas, faults
    Simulate(simulate::Args),
    /// Show everything at once, on a private Postgres and simulated providers
    Demo(demo::Args),
    /// Print the configuration file with every key, the table of keys, or a JSON schema for editors
    Config(generate::ConfigArgs),
    /// Print the completions for a shell
    Completions(generate::CompletionArgs),
    /// Print the manual page, or write a page for each command
    Man(generate::ManArgs),
}

impl Command {
    /// The role that its login must have, in words.
    fn needs(&self) -> &'static str {
        use batch::BatchCommand;
        use budget::BudgetCommand;
        use job::JobCommand;
        use schedule::ScheduleCommand;
        match self {
            Self::Migrate(_) | Self::Db(_) => {
                "the owner of the schema sluice, or of the database when there is none yet"
            }
            Self::Enqueue(_) => "a role such as sluice_enqueuer",
            Self::Watch(_)
            | Self::Results(_)
            | Self::Explain(_)
            | Self::Report(_)
            | Self::Reconcile(_)
            | Self::Estimate(_)
            | Self::Status(_)
            | Self::Doctor(_)
            | Self::Batch(batch::Args {
                command:
                    BatchCommand::List { .. }
                    | BatchCommand::Show { .. }
                    | BatchCommand::Jobs(_)
                    | BatchCommand::Enqueues { .. },
            })
            | Self::Budget(budget::Args { command: BudgetCommand::List | BudgetCommand::Show { .. } })
            | Self::Schedule(schedule::Args {
                command: ScheduleCommand::List | ScheduleCommand::Show { .. } | ScheduleCommand::Ticks { .. },
            })
            | Self::GameDay(_)
            | Self::Alert(_)
            | Self::Job(job::Args { command: JobCommand::Show { .. } }) => "a role such as sluice_reporter",
            _ => "a role such as sluice_worker",
        }
    }

    /// Whether the command itself handles a signal that asks it to stop, or holds nothing that it would have to leave
    /// in order.
    fn minds_signals(&self) -> bool {
        matches!(
            self,
            Self::Worker(_)
                | Self::Results(results::Args { follow: true, .. })
                | Self::Run(_)
                | Self::Trial(_)
                | Self::Simulate(_)
                | Self::Demo(_)
                | Self::Estimate(_)
                | Self::Check(_)
                | Self::Psql(_)
                | Self::Config(_)
                | Self::Completions(_)
                | Self::Man(_)
        )
    }
}

/// Runs a command to its end. An error is printed here, and nowhere else.
pub async fn run(cli: Cli) -> ExitCode {
    colour::choose(cli.global.color);
    let (needs, minds_signals) = (cli.command.needs(), cli.command.minds_signals());
    // On the heap: the future holds the state of the largest command, whichever one runs.
    let command = Box::pin(perform(cli));
    let ended = if minds_signals { command.await } else { unless_interrupted(command).await };
    ended.unwrap_or_else(|error| failure::report(&error, needs))
}

/// Gives a command up when a signal asks for it. Everything that it holds is then dropped, and a private Postgres that
/// no other process uses stops.
async fn unless_interrupted(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let interrupted = shutdown::interruption()?;
    tokio::select! {
        ended = command => ended,
        () = interrupted.cancelled() => Ok(ExitCode::Interrupted),
    }
}

async fn perform(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    match cli.command {
        Command::Worker(args) => worker::run(args, global).await,
        Command::Enqueue(args) => enqueue::run(args, global).await,
        Command::Run(args) => run::run(args, global).await,
        Command::Trial(args) => trial::run(&args, global).await,
        Command::Watch(args) => watch::run(args, global).await,
        Command::Results(args) => results::run(args, global).await,
        Command::Estimate(args) => estimate::run(&args, global).await,
        Command::Batch(args) => batch::run(args, global).await,
        Command::Job(args) => job::run(args, global).await,
        Command::Explain(args) => explain::run(args, global).await,
        Command::Report(args) => report::run(args, global).await,
        Command::Reprice(args) => reprice::run(args, global).await,
        Command::Reconcile(args) => reconcile::run(args, global).await,
        Command::Prices(args) => prices::run(args, global).await,
        Command::Status(args) => status::run(args, global).await,
        Command::Provider(args) => provider::run(args, global).await,
        Command::Route(args) => route::run(args, global).await,
        Command::Project(args) => project::run(args, global).await,
        Command::Budget(args) => budget::run(args, global).await,
        Command::Schedule(args) => schedule::run(args, global).await,
        Command::GameDay(args) => game_day::run(args, global).await,
        Command::Alert(args) => alert::run(args, global).await,
        Command::Check(args) => check::run(args, global).await,
        Command::Doctor(args) => doctor::run(args, global).await,
        Command::Migrate(args) => migrate::run(args, global).await,
        Command::Psql(args) => psql::run(args, global).await,
        Command::Db(args) => db::run(args, global).await,
        Command::Simulate(args) => simulate::run(args, global).await,
        Command::Demo(args) => demo::run(args, global).await,
        Command::Config(args) => generate::configuration(args),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::manual(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_after_the_command() {
        let cli = Cli::try_parse_from(["sluice", "migrate", "--format", "json", "-vv"]).unwrap();
        assert_eq!((cli.global.format, cli.global.verbose), (Some(Format::Json), 2));
    }

    #[test]
    fn the_help_is_what_it_was() {
        // The width without a terminal, wherever the test runs.
        let mut command = Cli::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.render_long_help());
        for name in ["worker", "enqueue", "report"] {
            let command = command.find_subcommand_mut(name).unwrap();
            insta::assert_snapshot!(format!("help_{name}"), command.render_long_help());
        }
    }

    #[test]
    fn the_help_names_every_exit_status() {
        for code in ExitCode::ALL {
            assert!(AFTER_HELP.contains(&format!("{} ", *code as u8)), "{code:?}");
        }
    }
}
