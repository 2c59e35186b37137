//! `sluice budget`: what may be spent on what.

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::names;
use super::output::Format;
use super::words::about;
use crate::config::Config;
use crate::domain::budget::{self, Budget, BudgetStanding, Coverage, Period, Unpriced};
use crate::domain::{MaxFailed, NanoUsd};
use crate::exit_code::ExitCode;
use crate::store::budget::BudgetRow;
use crate::store::names::Named;
use crate::view::budget::{BudgetChangeView, BudgetView, table};
use crate::view::dollars::Dollars;
use chrono::{DateTime, Utc};

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: BudgetCommand,
}

/// What to do with budgets.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BudgetCommand {
    /// List them: limit, spent, reserved, uncertain, what they spend in an hour, and how long they last
    List,
    /// Show one, with all that is known of it
    Show {
        /// Its name
        name: String,
    },
    /// Set one, for a project, a route, a provider, a batch or a login, or for everything
    ///
    /// Before each call its worst case is reserved in every budget that covers it; without room the work waits until
    /// the window turns, the budget is raised, or calls under way have cost less than they might. What was booked in
    /// this window counts. A budget of that name gets these settings, if it covers the same; `sluice budget raise` and
    /// `lower` change the amount alone.
    Set(SetArgs),
    /// Give one a larger limit: work that waits for it goes on
    Raise {
        /// Its name
        name: String,
        /// The new limit in dollars, not what is added to it
        #[arg(value_name = "AMOUNT", allow_hyphen_values = true, value_parser = amount)]
        limit: NanoUsd,
    },
    /// Give one a smaller limit, and leave the rest of it as it is
    Lower {
        /// Its name
        name: String,
        /// The new limit in dollars, not what is taken from it
        #[arg(value_name = "AMOUNT", allow_hyphen_values = true, value_parser = amount)]
        limit: NanoUsd,
    },
    /// Remove one. One of the configuration goes when its section does, and the workers have read that again
    Remove {
        /// Its name
        name: String,
    },
}

/// A budget to be set.
#[derive(Clone, Debug, clap::Args)]
pub struct SetArgs {
    /// Its name
    pub name: String,
    /// Dollars: 25 or 0.50
    #[arg(value_name = "AMOUNT", allow_hyphen_values = true, value_parser = amount)]
    pub limit: NanoUsd,
    /// How often it begins anew, by UTC
    #[arg(long, value_name = "hour|day|month|once", default_value = "once", value_parser = period)]
    pub per: Period,
    /// What it covers
    #[command(flatten)]
    pub covers: Covers,
    /// The share of the limit from which on it is logged and marked: 0.8
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true, value_parser = soft)]
    pub soft: Option<u32>,
    /// The route along which its jobs go from there on
    #[arg(long, value_name = "ROUTE", requires = "soft", conflicts_with_all = ["provider", "login"])]
    pub then_route: Option<String>,
    /// Make calls whose price is unknown, and count nothing for them, instead of passing their rungs
    #[arg(long)]
    pub allow_unpriced: bool,
}

/// What a budget covers; nothing: everything.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub struct Covers {
    /// The project that it is for
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub project: Option<String>,
    /// Or the route
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub route: Option<String>,
    /// Or the provider
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub provider: Option<String>,
    /// Or the batch
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub batch: Option<String>,
    /// Or the login that enqueues
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub login: Option<String>,
}

/// An amount of dollars above 0, as an argument.
///
/// # Errors
/// The fault of the amount, and the expected form.
pub(super) fn amount(text: &str) -> Result<NanoUsd, String> {
    budget::amount(text).map_err(|problem| format!("{problem}; expected dollars above 0, such as 0.50"))
}

fn period(text: &str) -> Result<Period, String> {
    Period::parse(text).ok_or_else(|| "is a window that never turns; expected hour, day, month or once".to_owned())
}

fn soft(text: &str) -> Result<u32, String> {
    const EXPECTED: &str = "expected a share above 0 and up to 1, such as 0.8";
    let share = MaxFailed::parse(text).map_err(|problem| format!("{problem}; {EXPECTED}"))?;
    if share.millionths() == 0 { Err(format!("is 0; {EXPECTED}")) } else { Ok(share.millionths()) }
}

impl Covers {
    fn scope(&self) -> Coverage {
        let Self { project, route, provider, batch, login } = self.clone();
        project
            .map(Coverage::Project)
            .or(route.map(Coverage::Route))
            .or(provider.map(Coverage::Provider))
            .or(batch.map(Coverage::Batch))
            .or(login.map(Coverage::Login))
            .unwrap_or(Coverage::Total)
    }
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    match args.command {
        BudgetCommand::List => {
            let views = views(&context, None).await?;
            match context.output.format() {
                Format::Json => context.output.json(&views)?,
                Format::Table if views.is_empty() => {
                    context.output.note("there are no budgets; `sluice budget set NAME AMOUNT` sets one");
                }
                Format::Table | Format::Plain | Format::Csv => context.output.table(&table(&views))?,
            }
            tell_of(&mut context, &views)?;
        }
        BudgetCommand::Show { name } => {
            let view = views(&context, Some(&name)).await?;
            match view.first().filter(|_| context.output.format() == Format::Json) {
                Some(view) => context.output.json(view)?,
                None => context.output.record(&table(&view))?,
            }
            tell_of(&mut context, &view)?;
        }
        BudgetCommand::Set(set) => {
            let budget = Budget {
                scope: set.covers.scope(),
                name: set.name,
                period: set.per,
                limit: set.limit,
                soft: set.soft,
                then_route: set.then_route,
                unpriced: if set.allow_unpriced { Unpriced::Allow } else { Unpriced::Refuse },
            };
            require_known(&budget, &context.config)?;
            if let Some(said) = unknown(&budget, &context).await? {
                // It may be one that comes.
                context.output.warn(format_args!("{said}. The budget covers nothing before there is one"));
            }
            let before = standing(&context, &budget.name).await?;
            if let Some(other) = before.as_ref().map(|before| &before.budget)
                && (&other.scope, other.period) != (&budget.scope, budget.period)
            {
                let per = |period: Period| match period {
                    Period::Once => "once".to_owned(),
                    period => format!("per {}", period.as_str()),
                };
                return Err(CommandFailure::usage(format!(
                    "the budget {} covers {} {}, and this one would cover {} {}; nothing was changed. `sluice budget \
                     raise` and `lower` change its amount alone; for another target or window remove it first, or \
                     take another name",
                    budget.name,
                    other.scope,
                    per(other.period),
                    budget.scope,
                    per(budget.period)
                ))
                .into());
            }
            let rows = context.store.budget_rows().await?;
            require_own_window(&budget, rows.iter().map(|row| &row.standing.budget))?;
            let changed = context.store.set_budget(&budget).await?;
            told(&mut context, &budget, changed, Some(budget.limit), before.as_ref())?;
            tell_of_no_room(&mut context, &budget.name).await?;
        }
        BudgetCommand::Raise { name, limit } => {
            let rows = context.store.budget_rows().await?;
            let before = find(&rows, &name)?.standing.clone();
            if limit < before.budget.limit {
                return Err(CommandFailure::usage(format!(
                    "the budget {name} is {} already, which is more than {limit}; `sluice budget lower` lowers it",
                    before.budget.limit
                ))
                .into());
            }
            let changed = context.store.raise_budget(&name, limit).await?;
            told(&mut context, &before.budget, changed, Some(limit), Some(&before))?;
            tell_of_no_room(&mut context, &name).await?;
        }
        BudgetCommand::Lower { name, limit } => {
            let rows = context.store.budget_rows().await?;
            let before = find(&rows, &name)?.standing.clone();
            if limit > before.budget.limit {
                return Err(CommandFailure::usage(format!(
                    "the budget {name} is {}, which is less than {limit}; `sluice budget raise` raises it",
                    before.budget.limit
                ))
                .into());
            }
            let changed = context.store.raise_budget(&name, limit).await?;
            told(&mut context, &before.budget, changed, Some(limit), Some(&before))?;
            tell_of_no_room(&mut context, &name).await?;
        }
        BudgetCommand::Remove { name } => {
            let rows = context.store.budget_rows().await?;
            let row = find(&rows, &name)?;
            let before = row.standing.clone();
            if context.config.budgets.iter().any(|budget| budget.name == name) {
                return Err(CommandFailure::usage(format!(
                    "the budget {name} is in the configuration, and would come back with the next worker that starts; \
                     nothing was changed. Take [budgets.{name}] out of it and let the workers read it again (SIGHUP), \
                     which removes it; `sluice budget raise` and `lower` change its amount"
                ))
                .into());
            }
            if row.is_configured {
                context.output.warn(format_args!(
                    "a configuration has set the budget {name}: a worker that still has [budgets.{name}] sets it \
                     again when it starts"
                ));
            }
            let changed = context.store.drop_budget(&name).await?;
            told(&mut context, &before.budget, changed, None, Some(&before))?;
        }
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

/// All budgets, or the one of this name, with their needs and faults.
async fn views(context: &Context, name: Option<&str>) -> anyhow::Result<Vec<BudgetView>> {
    let now = now(context).await?;
    let rows = context.store.budget_rows().await?;
    if let Some(name) = name {
        find(&rows, name)?;
    }
    let is_meant = |row: &&BudgetRow| name.is_none_or(|name| row.standing.budget.name == name);
    let meant = rows.iter().filter(is_meant).map(|row| &row.standing.budget);
    let needs = context.store.budget_needs(meant).await?;
    let budgets: Vec<Budget> = rows.iter().map(|row| row.standing.budget.clone()).collect();
    let config = &context.config;
    // A configuration without routes says nothing of those that workers have.
    let faults = budget::faults(
        &budgets,
        |route| config.routes.is_empty() || config.knows_route(route),
        |provider| config.providers.is_empty() || config.providers.contains_key(provider),
    );
    let view = |(index, row): (usize, &BudgetRow)| {
        let faults = faults.iter().filter(|(of, _)| *of == index).map(|(_, fault)| fault.clone());
        let need = needs.get(&row.standing.budget.name).copied();
        BudgetView::of(row, now).beside(need, faults.collect())
    };
    Ok(rows.iter().enumerate().filter(|(_, row)| is_meant(row)).map(view).collect())
}

/// Says in sentences what the figures do not: the faults of budgets, and the jobs that they will not cover.
fn tell_of(context: &mut Context, views: &[BudgetView]) -> anyhow::Result<()> {
    // The text for standard output comes first.
    context.output.finish()?;
    for view in views {
        for fault in &view.faults {
            context.output.warn(format_args!("budget {}: {fault}", view.budget));
        }
        if let Some(said) = view.shortage_in_words().filter(|_| context.output.format() == Format::Table) {
            context.output.note(said);
        }
    }
    Ok(())
}

/// A new limit that is used up already holds its work back from the start.
async fn tell_of_no_room(context: &mut Context, name: &str) -> anyhow::Result<()> {
    let Some(now) = standing(context, name).await?.filter(|now| now.used() >= now.budget.limit) else { return Ok(()) };
    let turns = if now.budget.period == Period::Once { "" } else { ", or its window turns" };
    // The text for standard output comes first.
    context.output.finish()?;
    context.output.warn(format_args!(
        "it is full: {} of it is used up already, so what it covers waits until it is raised{turns}",
        now.used()
    ));
    Ok(())
}

/// The database's time.
async fn now(context: &Context) -> anyhow::Result<DateTime<Utc>> {
    let now = context.store.known().await?.now;
    Ok(DateTime::from_timestamp_millis(now.0).unwrap_or_default())
}

async fn standing(context: &Context, name: &str) -> anyhow::Result<Option<BudgetStanding>> {
    let rows = context.store.budget_rows().await?;
    Ok(rows.into_iter().map(|row| row.standing).find(|standing| standing.budget.name == name))
}

fn find<'a>(rows: &'a [BudgetRow], name: &str) -> Result<&'a BudgetRow, CommandFailure> {
    rows.iter().find(|row| row.standing.budget.name == name).ok_or_else(|| {
        let known: Vec<&str> = rows.iter().map(|row| row.standing.budget.name.as_str()).collect();
        let known =
            if known.is_empty() { "there is none".to_owned() } else { format!("there are: {}", known.join(", ")) };
        CommandFailure::not_found(format!("there is no budget {name:?}; {known}"))
    })
}

/// Two budgets that cover the same in the same window would be two limits of one thing.
fn require_own_window<'a>(budget: &Budget, mut others: impl Iterator<Item = &'a Budget>) -> Result<(), CommandFailure> {
    let is_the_same =
        |other: &&Budget| other.name != budget.name && (&other.scope, other.period) == (&budget.scope, budget.period);
    let Some(other) = others.find(is_the_same) else { return Ok(()) };
    Err(CommandFailure::usage(format!(
        "the budget {} covers {} in the same window already, and is {}; nothing was changed. `{}` changes its amount, \
         `{}` makes room for this one",
        other.name,
        other.scope,
        other.limit,
        about(
            if budget.limit < other.limit { "sluice budget lower" } else { "sluice budget raise" },
            &other.name,
            &Dollars(budget.limit).to_string()
        ),
        about("sluice budget remove", &other.name, "")
    )))
}

/// A typing error in the name of a route or provider would make a budget that covers nothing.
fn require_known(budget: &Budget, config: &Config) -> Result<(), CommandFailure> {
    let refuse = |kind: &str, name: &str, known: Vec<&String>| {
        let known = known.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        Err(CommandFailure::not_found(format!("there is no {kind} {name:?} in the configuration; there are: {known}")))
    };
    let routes = [budget.then_route.as_deref(), Some(budget.scope.name()).filter(|_| budget.scope.kind() == "route")];
    if let (Some(to), Coverage::Route(own)) = (&budget.then_route, &budget.scope)
        && to == own
    {
        return Err(CommandFailure::usage(format!("--then-route: {to} is the route itself")));
    }
    for route in routes.into_iter().flatten() {
        if !config.routes.is_empty() && !config.knows_route(route) {
            return refuse("route", route, config.routes.keys().collect());
        }
    }
    if let Coverage::Provider(name) = &budget.scope
        && !config.providers.is_empty()
        && !config.providers.contains_key(name)
    {
        return refuse("provider", name, config.providers.keys().collect());
    }
    Ok(())
}

/// A name that nothing has yet.
async fn unknown(budget: &Budget, context: &Context) -> anyhow::Result<Option<String>> {
    let kind = match &budget.scope {
        Coverage::Total => return Ok(None),
        Coverage::Project(_) => Named::Project,
        Coverage::Route(_) => Named::Route,
        Coverage::Provider(_) => Named::Provider,
        Coverage::Batch(_) => Named::Batch,
        Coverage::Login(_) => Named::Login,
    };
    Ok(names::unknown(kind, budget.scope.name(), &context.store, &context.config).await?)
}

fn told(
    context: &mut Context,
    budget: &Budget,
    changed: bool,
    limit: Option<NanoUsd>,
    before: Option<&BudgetStanding>,
) -> anyhow::Result<()> {
    let view = BudgetChangeView {
        budget: budget.name.clone(),
        changed,
        limit: limit.map(Dollars),
        before: before.map(|standing| Dollars(standing.budget.limit)),
        covers: budget.scope.to_string(),
        per: budget.period.as_str(),
    };
    if context.output.format() == Format::Json {
        context.output.json(&view)?;
    } else {
        context.output.line(view)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_budget_of_the_same_thing_is_refused_with_the_commands_that_help() {
        let budget = |name: &str, limit| Budget { name: name.to_owned(), ..Budget::of_batch("b", NanoUsd(limit)) };
        let known = [budget("first one", 2_000_000_000)];
        let refuse = |wanted: &Budget| require_own_window(wanted, known.iter()).map_err(|failure| failure.to_string());
        let told = refuse(&budget("second", 3_000_000_000)).unwrap_err();
        for words in ["sluice budget raise 'first one' 3", "sluice budget remove 'first one'", "nothing was changed"] {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert!(refuse(&budget("second", 1_000_000_000)).unwrap_err().contains("sluice budget lower 'first one' 1"));
        assert_eq!(refuse(&known[0]), Ok(()), "it is that one");
        assert_eq!(refuse(&Budget { period: Period::Day, ..budget("second", 1) }), Ok(()));
    }
}
