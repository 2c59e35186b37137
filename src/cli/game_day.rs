//! `sluice game-day`: times in which calls fail on purpose.

use super::GlobalArgs;
use super::context::{Context, environment};
use super::failure::CommandFailure;
use super::output::{Format, Output};
use super::today;
use crate::config::{Config, Keys};
use crate::domain::counted::counted;
use crate::domain::template::near;
use crate::exit_code::ExitCode;
use crate::view::game_day::{GameDayReportView, GameDayView, table};

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: GameDayCommand,
}

/// What to do with game days.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum GameDayCommand {
    /// List those of the configuration; needs no database
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
            let days: Vec<GameDayView> = config.game_days.iter().map(|day| GameDayView::of(day, now)).collect();
            let mut output = Output::new(global);
            match output.format() {
                Format::Json => output.json(&days)?,
                Format::Table if days.is_empty() => {
                    output.note("there are no game days; [game_days.NAME] in the configuration makes one");
                }
                Format::Table | Format::Plain | Format::Csv => output.table(&table(&days))?,
            }
            output.finish()?;
        }
        GameDayCommand::Report { name } => {
            let mut context = Context::open_if(global, |config| Ok(require(config, &name)?)).await?;
            let day = context.config.game_days.iter().find(|day| day.name == name);
            let Some(day) = day else { return Ok(ExitCode::NotFound) };
            let outcome = context.store.game_day(&name, day.from, day.until).await?;
            let report = GameDayReportView::of(GameDayView::of(day, now), &outcome);
            match context.output.format() {
                Format::Json => context.output.json(&report)?,
                _ => context.output.record(&report.table())?,
            }
            if context.output.format() == Format::Table {
                context.output.finish()?;
                context.output.note(in_words(&report));
            }
            context.close().await?;
        }
    }
    Ok(ExitCode::Success)
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
    if report.calls_failed == 0 {
        return match report.day.state {
            "planned" => "it has not begun".to_owned(),
            _ => {
                "no call failed on purpose: only workers that have it in their configuration fail calls, those of its \
                  targets, and only while it is on"
                    .to_owned()
            }
        };
    }
    let fell_back = counted(report.fell_back, "job was", "jobs were");
    let failed = match report.failed {
        0 => "no job was lost".to_owned(),
        failed => format!("{} lost", counted(failed, "job was", "jobs were")),
    };
    format!("{fell_back} answered by another target, which would have been lost or late without one; {failed}")
}
