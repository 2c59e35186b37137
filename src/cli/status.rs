//! `sluice status`: waiting jobs, workers, limits, breakers and pauses.

use super::GlobalArgs;
use super::context::Context;
use super::output::{Format, Output, OutputError};
use crate::exit_code::ExitCode;
use crate::view::budget::BudgetView;
use crate::view::game_day::on_table;
use crate::view::status::tables::{database, jobs, keys, pauses, queue, targets, troubles, workers};
use crate::view::status::{StatusView, buckets};
use crate::view::tone::Tone;

/// How much is shown.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Each worker that died or left within the last hour, too; JSON has them all
    #[arg(long)]
    pub all: bool,
}

/// Prints the status.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let mut status = StatusView::from(context.store.status().await?);
    if context.is_private() {
        status.private_postgres = Some(context.config.database.data_dir.display().to_string());
    }
    if context.output.format() == Format::Json {
        context.output.json(&status)?;
    } else {
        print(&mut context.output, &status, args.all)?;
    }
    if context.output.format() == Format::Table {
        // The text for standard output comes first.
        context.output.finish()?;
        for said in status.budgets.iter().filter_map(BudgetView::shortage_in_words) {
            context.output.note(said);
        }
    }
    if !status.routes.is_empty() && !status.workers.iter().any(|worker| worker.is_alive) {
        context.output.warn("no worker is running: start one with `sluice worker`");
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

fn print(output: &mut Output, status: &StatusView, all: bool) -> Result<(), OutputError> {
    let is_for_people = output.format() == Format::Table;
    let (workers, gone) = workers(status, all);
    let sections = [
        ("Game days: calls fail on purpose", on_table(&status.game_days), ""),
        ("Queue", if is_for_people { jobs(status) } else { queue(status) }, "nothing waits and nothing runs"),
        ("Workers", workers, "none"),
        ("Spent", status.spent_table(), ""),
        ("Buckets", buckets::table(status), ""),
        ("Targets", targets(status), ""),
        ("Keys", keys(status), ""),
        ("Budgets", crate::view::budget::table(&status.budgets), ""),
        ("Schedules", crate::view::schedule::table(&status.schedules), ""),
        ("Paused", pauses(status), ""),
        ("Alerts", crate::view::alert::firing_table(&status.alerts), ""),
        ("Database", database(status), ""),
    ];
    let mut first = true;
    for (title, table, when_empty) in sections {
        if table.is_empty() && when_empty.is_empty() {
            continue;
        }
        if !first {
            output.line("")?;
        }
        first = false;
        // A mark by which programs that read the plain shape tell the sections apart.
        output.line(if output.format() != Format::Table {
            format!("# {}", title.split(':').next().unwrap_or(title).to_lowercase())
        } else if title == "Spent" {
            format!("Spent since {}", status.spent_since.format("%Y-%m-%d %H:%M UTC"))
        } else {
            title.to_owned()
        })?;
        if table.is_empty() {
            output.line(when_empty)?;
        } else {
            output.table(&table)?;
        }
        if title == "Alerts" && is_for_people {
            output.line("`sluice alert list` says which")?;
        }
        if title == "Queue" && is_for_people {
            tell_waits(output, status)?;
        }
        if title == "Targets" && is_for_people {
            for trouble in troubles(status) {
                output.told_as(Some(Tone::Warning), format_args!(" {trouble}"))?;
            }
        }
        if title == "Workers"
            && let Some(gone) = &gone
        {
            // Between the lines of a table for programs it would be taken for one of them.
            if output.format() == Format::Table { output.line(gone)? } else { output.note(gone) }
        }
    }
    Ok(())
}

/// Why jobs do not go on, in sentences, each with what to do about it.
fn tell_waits(output: &mut Output, status: &StatusView) -> Result<(), OutputError> {
    for route in &status.routes {
        for (count, state, whys) in route.waits() {
            let head = format!(" {}: {} {state}", route.route, count.in_short());
            for (place, why) in whys.iter().enumerate() {
                let tone = if why.stuck || why.advice.is_some() { Tone::Bad } else { Tone::Warning };
                // The number is that of all of them together.
                let head = if place == 0 { head.as_str() } else { "   and" };
                output.told_as(Some(tone), format_args!("{head}: {}", why.words))?;
                if let Some(advice) = &why.advice {
                    output.told(format_args!("   do: {advice}"))?;
                }
            }
        }
        if let Some(calls) = &route.long_calls {
            output.told_as(Some(Tone::Warning), format_args!(" {}: {}", route.route, calls.words))?;
        }
    }
    Ok(())
}
