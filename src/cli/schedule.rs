//! `sluice schedule`: batches that are enqueued, and reports that are made, by the clock.

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::figure;
use super::output::Format;
use crate::domain::Timestamp;
use crate::domain::schedule::{Schedule, TickSource, Zone};
use crate::exit_code::ExitCode;
use crate::store::schedule::TickNote;
use crate::view::change::PauseChangeView;
use crate::view::schedule::{self, ScheduleReportView, ScheduleRunView, ScheduleStory, ScheduleView, TickView};
use crate::worker::schedules::{TickEnd, TickOrder, run_tick};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Duration;

/// How many ticks `show` has.
const TICKS: i64 = 20;

/// How often, and after which pause, a tick is tried while another process deals with its schedule.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: ScheduleCommand,
}

/// What to do with schedules.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ScheduleCommand {
    /// List them: when each fires next, and what came of its last tick
    List,
    /// Show one, with all that is known of it
    Show {
        /// Its name
        name: String,
    },
    /// List what came of ticks, the newest first
    Ticks {
        /// Of this schedule [default: of all]
        name: Option<String>,
        /// So many of each
        #[arg(long, value_name = "N", default_value = "20", value_parser = figure::count::<u64>)]
        last: u64,
    },
    /// Run one now, by hand: this command enqueues its jobs, or makes its report, in a tick of its own
    ///
    /// It does not matter whether the schedule is paused or switched off, or whether a worker runs. The next tick comes
    /// when it would have come.
    Run {
        /// Its name
        name: String,
        /// Also when jobs of the last tick have not ended
        #[arg(long)]
        anyway: bool,
    },
    /// Leave its ticks out until it is resumed; what it has enqueued goes on
    Pause {
        /// Its name
        name: String,
        /// The reason, which `sluice schedule list` shows
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let it go on with its next tick; those that came meanwhile are not made up for
    Resume {
        /// Its name
        name: String,
    },
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    match args.command {
        ScheduleCommand::List => {
            let views = views(&context).await?;
            match context.output.format() {
                Format::Json => context.output.json(&views)?,
                Format::Table if views.is_empty() => {
                    context.output.note("there are no schedules; [schedules.NAME] in the configuration makes one");
                }
                Format::Table | Format::Plain | Format::Csv => context.output.table(&schedule::table(&views))?,
            }
            tell_of(&mut context, &views)?;
        }
        ScheduleCommand::Show { name } => {
            let view = find(&context, &name).await?;
            if context.output.format() == Format::Json {
                let zone = Zone::parse(&view.timezone).ok();
                let ticks = context.store.ticks(Some(&name), TICKS).await?;
                let ticks = ticks.iter().map(|tick| TickView::of(tick, zone)).collect();
                context.output.json(&ScheduleStory { schedule: view, ticks })?;
            } else {
                let view = [view];
                context.output.record(&schedule::table(&view))?;
                tell_of(&mut context, &view)?;
            }
        }
        ScheduleCommand::Ticks { name, last } => {
            let known = match &name {
                Some(name) => vec![find(&context, name).await?],
                None => views(&context).await?,
            };
            let zone = |name: &str| {
                let view = known.iter().find(|view| view.schedule == name)?;
                Zone::parse(&view.timezone).ok()
            };
            let last = i64::try_from(last).unwrap_or(i64::MAX);
            let rows = context.store.ticks(name.as_deref(), last).await?;
            let mut ticks: Vec<TickView> = rows.iter().map(|row| TickView::of(row, zone(&row.schedule))).collect();
            ticks.sort_by(|one, other| other.tick.cmp(&one.tick).then_with(|| one.schedule.cmp(&other.schedule)));
            match context.output.format() {
                Format::Json => context.output.json(&ticks)?,
                Format::Table if ticks.is_empty() => context.output.note("there have been no ticks"),
                Format::Table | Format::Plain | Format::Csv => context.output.table(&schedule::ticks(&ticks))?,
            }
        }
        ScheduleCommand::Run { name, anyway } => run_now(&mut context, &name, anyway).await?,
        ScheduleCommand::Pause { name, reason } => pause(&mut context, name, true, reason).await?,
        ScheduleCommand::Resume { name } => pause(&mut context, name, false, None).await?,
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

/// The database's time.
async fn now(context: &Context) -> anyhow::Result<Timestamp> {
    Ok(context.store.schedules_at().await?.now)
}

/// All schedules that a worker or this configuration has.
async fn views(context: &Context) -> anyhow::Result<Vec<ScheduleView>> {
    let at = context.store.schedules_at().await?;
    let last = context.store.ticks(None, 1).await?;
    let now = DateTime::from_timestamp_millis(at.now.0).unwrap_or_default();
    Ok(ScheduleView::all(&at.rows, &context.config.schedules, &last, now))
}

async fn find(context: &Context, name: &str) -> anyhow::Result<ScheduleView> {
    let mut views = views(context).await?;
    let Some(place) = views.iter().position(|view| view.schedule == name) else {
        let known: Vec<&str> = views.iter().map(|view| view.schedule.as_str()).collect();
        let known =
            if known.is_empty() { "there is none".to_owned() } else { format!("there are: {}", known.join(", ")) };
        return Err(CommandFailure::not_found(format!("there is no schedule {name:?}; {known}")).into());
    };
    Ok(views.swap_remove(place))
}

/// Tells the troubles of schedules in sentences.
fn tell_of(context: &mut Context, views: &[ScheduleView]) -> anyhow::Result<()> {
    // The text for standard output comes first.
    context.output.finish()?;
    if context.output.format() == Format::Table {
        for trouble in views.iter().filter_map(ScheduleView::trouble) {
            context.output.note(trouble);
        }
    }
    Ok(())
}

/// The schedule of the configuration.
async fn configured(context: &Context, name: &str) -> anyhow::Result<Schedule> {
    if let Some(schedule) = context.config.schedules.iter().find(|schedule| schedule.name == name) {
        return Ok(schedule.clone());
    }
    find(context, name).await?;
    Err(CommandFailure::not_found(format!(
        "the workers have a schedule {name:?}, and this configuration does not, so this command does not know what it \
         enqueues; `select sluice.run_schedule('{name}')` lets a worker run it"
    ))
    .into())
}

async fn run_now(context: &mut Context, name: &str, anyway: bool) -> anyhow::Result<()> {
    let schedule = configured(context, name).await?;
    make_known(context, &schedule).await?;
    let now = now(context).await?;
    let routes = &context.config.routes;
    let find = |route: &str| routes.get(route).map(|route| Arc::clone(&route.route));
    let note = TickNote { schedule: schedule.name.clone(), at: now, by_hand: true, worker: None };
    let order = TickOrder { note, failures: 0, anyway, retries: false, now };
    let mut end = run_tick(&context.store, &find, &schedule, order.clone()).await?;
    // A worker that only notes something is done at once.
    for _ in 0..BUSY_TRIES {
        if end != TickEnd::Busy {
            break;
        }
        tokio::time::sleep(BUSY_PAUSE).await;
        end = run_tick(&context.store, &find, &schedule, order.clone()).await?;
    }
    match end {
        TickEnd::Done { batch, jobs, enqueue } => {
            let tick: DateTime<Utc> = DateTime::from_timestamp_millis(now.0).unwrap_or_default();
            let done = ScheduleRunView { schedule: schedule.name, tick, batch, jobs, enqueue };
            if context.output.format() == Format::Json {
                context.output.json(&done)?;
            } else {
                context.output.line(done)?;
            }
            Ok(())
        }
        TickEnd::Reported(reported) => {
            let tick: DateTime<Utc> = DateTime::from_timestamp_millis(now.0).unwrap_or_default();
            let done = ScheduleReportView { schedule: schedule.name, tick, reported };
            if context.output.format() == Format::Json {
                context.output.json(&done)?;
            } else {
                context.output.line(done)?;
            }
            Ok(())
        }
        TickEnd::Overlaps(reason) => Err(CommandFailure::usage(format!(
            "schedule {name}: {reason}; nothing was enqueued. --anyway enqueues all the same"
        ))
        .into()),
        TickEnd::Failed { reason, .. } => {
            let came_to = if matches!(schedule.source, TickSource::Report(_)) { "reported" } else { "enqueued" };
            Err(CommandFailure::input(format!("schedule {name}: {reason}; nothing was {came_to}")).into())
        }
        TickEnd::Busy | TickEnd::Over => Err(anyhow::anyhow!(
            "schedule {name}: a worker is at it at this moment, so this command did nothing. Try again when it is done \
             (`sluice schedule show {name}`)"
        )),
    }
}

/// Lets the database know a schedule of which no worker has spoken.
async fn make_known(context: &Context, schedule: &Schedule) -> anyhow::Result<()> {
    let at = context.store.schedules_at().await?;
    if !at.rows.iter().any(|row| row.name == schedule.name) {
        let next = schedule.next(at.now).filter(|_| schedule.is_enabled);
        context.store.register_schedule(schedule, &schedule.settings(), next).await?;
    }
    Ok(())
}

/// Pauses it, for this reason if there is one, or resumes it.
async fn pause(context: &mut Context, name: String, paused: bool, reason: Option<String>) -> anyhow::Result<()> {
    find(context, &name).await?;
    if let Some(schedule) = context.config.schedules.iter().find(|schedule| schedule.name == name) {
        make_known(context, schedule).await?;
    }
    let changed = if paused {
        context.store.pause_schedule(&name, reason.as_deref()).await?
    } else {
        context.store.resume_schedule(&name).await?
    };
    let change = PauseChangeView { kind: "schedule", name, paused, changed };
    if context.output.format() == Format::Json {
        context.output.json(&change)?;
    } else {
        context.output.line(change)?;
    }
    Ok(())
}
