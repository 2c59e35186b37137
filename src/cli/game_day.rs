//! `sluice game-day`: times in which calls fail on purpose.

use super::GlobalArgs;
use super::context::{Context, environment};
use super::failure::CommandFailure;
use super::output::{Format, Output};
use super::today;
use crate::config::{Config, Keys};
use crate::domain::counted::counted;
use crate::domain::statistics::Statistics;
use crate::domain::template::near;
use crate::embedded::EmbeddedPostgres;
use crate::exit_code::ExitCode;
use crate::view::game_day::{GameDayOnView, GameDayReportView, GameDayView, table};
use std::fmt::Write as _;
use std::time::Duration;

/// How long the database may take to say what workers have.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: GameDayCommand,
}

/// What to do with game days.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum GameDayCommand {
    /// List those of the configuration, and how workers have them otherwise; needs no database
    List,
    /// Tell what one did: the calls that failed on purpose, how their jobs went on, and what that cost
    Report {
        /// Its name
        name: String,
    },
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let now = today::now();
    match args.command {
        GameDayCommand::List => {
            let config = Config::load_with(global.config.as_deref(), environment(global), Keys::Ignored)?;
            let workers = workers(global, &config).await;
            let days = config.game_days.iter().map(|day| GameDayView::of(day, now).beside(&workers));
            let days: Vec<GameDayView> = days.collect();
            let mut output = Output::new(global);
            match output.format() {
                Format::Json => output.json(&days)?,
                Format::Table if days.is_empty() => {
                    output.note("there are no game days; [game_days.NAME] in the configuration makes one");
                }
                Format::Table | Format::Plain | Format::Csv => output.table(&table(&days))?,
            }
            output.finish()?;
            let told = workers.iter().flat_map(|worker| &worker.game_days);
            for unknown in GameDayOnView::all(told.filter(|told| days.iter().all(|day| day.game_day != told.name))) {
                output.warn(format_args!("workers have another one, {}: reload them (SIGHUP)", unknown.in_words()));
            }
            for (day, said) in days.iter().filter_map(|day| Some((&day.game_day, day.workers_say.as_ref()?))) {
                output.warn(format_args!("not as here of game day {day}: {said}: reload the workers (SIGHUP)"));
            }
        }
        GameDayCommand::Report { name } => {
            let mut context = Context::open_if(global, |config| Ok(require(config, &name)?)).await?;
            let day = context.config.game_days.iter().find(|day| day.name == name);
            let Some(day) = day else { return Ok(ExitCode::NotFound) };
            let outcomes = context.store.game_day(day).await?;
            let report = GameDayReportView::of(GameDayView::of(day, now), &outcomes);
            match context.output.format() {
                Format::Json => context.output.json(&report)?,
                _ => context.output.record(&report.table())?,
            }
            if context.output.format() == Format::Table {
                if report.routes.len() > 1 {
                    context.output.table(&report.routes_table())?;
                }
                context.output.finish()?;
                context.output.note(in_words(&report));
            }
            context.close().await?;
        }
    }
    Ok(ExitCode::Success)
}

/// What the live workers say; none, where no database is reached that runs already.
async fn workers(global: &GlobalArgs, config: &Config) -> Vec<Statistics> {
    if config.database.url.is_none() && !EmbeddedPostgres::runs_in(&config.database.data_dir).await {
        return Vec::new();
    }
    let ask = async {
        let Ok(context) = Context::open(global).await else { return Vec::new() };
        let workers = context.store.workers().await.unwrap_or_default();
        let said = workers.iter().filter(|worker| worker.is_alive()).map(|worker| Statistics::read(&worker.stats));
        let said = said.collect();
        let _ = context.close().await;
        said
    };
    // The list is for those, too, whose database is away.
    tokio::time::timeout(PATIENCE, ask).await.unwrap_or_default()
}

fn require(config: &Config, name: &str) -> Result<(), CommandFailure> {
    let names = || config.game_days.iter().map(|day| day.name.as_str());
    if names().any(|known| known == name) {
        return Ok(());
    }
    let hint = match near(name, names()) {
        Some(near) => format!("perhaps {near:?} is meant"),
        None if config.game_days.is_empty() => "none is configured".to_owned(),
        None => format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(CommandFailure::not_found(format!("there is no game day {name:?} in the configuration; {hint}")))
}

/// What the fallback was worth.
fn in_words(report: &GameDayReportView) -> String {
    let outcome = &report.outcome;
    if outcome.calls_failed == 0 {
        return match report.day.state {
            "planned" => "it has not begun".to_owned(),
            _ => {
                "no call failed on purpose: only workers that have it in their configuration fail calls, those of its \
                  targets, and only while it is on"
                    .to_owned()
            }
        };
    }
    let fell_back = counted(outcome.fell_back, "job was", "jobs were");
    let failed = match outcome.failed {
        0 => "no job was lost".to_owned(),
        failed => format!("{} lost", counted(failed, "job was", "jobs were")),
    };
    let mut words =
        format!("{fell_back} answered by another target, which would have been lost or late without one; {failed}");
    if outcome.beside > 0 {
        let beside = counted(outcome.beside, "job", "jobs");
        let _ = write!(words, "; {beside} beside went elsewhere, because calls of their first choice were held back");
    }
    let unknown = outcome.extra_cost_unknown + outcome.beside_extra_cost_unknown;
    if unknown > 0 {
        let answers = counted(unknown, "answer", "answers");
        let _ = write!(words, "; what {answers} cost more is not known, and not in the sums");
    }
    words
}
