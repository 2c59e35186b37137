//! `sluice report`: cost, quality, failures, waste, fallbacks, re-asks, latency and what the cache saved; one period
//! or two.

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::names;
use crate::domain::Model;
use crate::domain::Target;
use crate::domain::counted::counted;
use crate::domain::report::{ReportBy, ReportKind, says_nothing};
use crate::exit_code::ExitCode;
use crate::store::names::Named;
use crate::store::report::{Filter, Grouping, Moment};
use crate::view::report::asked::{self, dimensions, read};
use crate::view::report::periods::{self, Against, Periods};
use crate::view::table::Table;
use crate::view::{compare, moment};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::fmt::Write as _;

/// What to report.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which report
    #[arg(value_enum)]
    pub kind: ReportKind,
    /// Group by these; several at once or repeated
    #[arg(long, value_enum, value_delimiter = ',', value_name = "DIMENSION")]
    pub by: Vec<ReportBy>,
    /// From then on: 24h, 7d, a date or an RFC 3339 instant (UTC). Sums are kept by the hour: its hour counts whole
    #[arg(long, value_parser = moment::parse, value_name = "WHEN")]
    pub since: Option<Moment>,
    /// Before then
    #[arg(long, value_parser = moment::parse, value_name = "WHEN")]
    pub until: Option<Moment>,
    /// Only this batch
    #[arg(long)]
    pub batch: Option<String>,
    /// Only this project
    #[arg(long)]
    pub project: Option<String>,
    /// Only this route
    #[arg(long)]
    pub route: Option<String>,
    /// Only jobs that this login enqueued
    #[arg(long)]
    pub login: Option<String>,
    /// With --by batch: so many batches, those in which something happened last, and all others in one row; 0: all
    /// apart, which takes seconds with a hundred thousand [default: 1000]
    #[arg(long, value_name = "BATCHES")]
    pub limit: Option<usize>,
    /// Beside it the same report of an earlier period of the same length, and what has changed: the period that ends
    /// where --since begins, or the one that begins at WHEN
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "before",
        value_parser = periods::against
    )]
    pub compare: Option<Against>,
}

/// Prints the report.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    if let (Some(since), Some(until)) = (args.since, args.until)
        && since.is_at_or_after(until)
    {
        return Err(CommandFailure::usage("--until is not after --since, so there is nothing between them").into());
    }
    if args.kind == ReportKind::Cache && (args.batch.is_some() || args.login.is_some()) {
        let fault = "what the cache saved is not kept by batch or login: leave --batch and --login out";
        return Err(CommandFailure::usage(fault).into());
    }
    if let Some(fault) = says_nothing(args.kind, &args.by) {
        return Err(CommandFailure::usage(fault).into());
    }
    if let Some(fault) = compares_nothing(&args) {
        return Err(CommandFailure::usage(fault).into());
    }
    if args.limit.is_some() && (args.batch.is_some() || !args.by.contains(&ReportBy::Batch)) {
        let fault = "--limit says how many batches have a row: it goes with --by batch, and without --batch";
        return Err(CommandFailure::usage(fault).into());
    }
    let mut context = Context::open(global).await?;
    let by = dimensions(args.kind, &args.by);
    let mut filter = Filter {
        since: args.since.or(args.kind.usual_span().map(Moment::Ago)),
        until: args.until,
        batch: args.batch,
        project: args.project,
        route: args.route,
        login: args.login,
        failures_only: false,
        shown: None,
    };
    if args.by.contains(&ReportBy::Batch) && filter.batch.is_none() {
        let most = args.limit.unwrap_or(asked::MOST_BATCHES);
        if let Some(said) = asked::show_latest(&context.store, &mut filter, most).await? {
            context.output.note(format!("{said}. --limit 0 tells all apart"));
        }
    }
    let named = [
        (Named::Batch, filter.batch.clone()),
        (Named::Project, filter.project.clone()),
        (Named::Route, filter.route.clone()),
        (Named::Login, filter.login.clone()),
    ];
    let table = match args.compare {
        None => told(&context, args.kind, &by, filter).await?,
        Some(against) => {
            let Periods { before, now } = match periods::of(&context.store, &filter, against).await? {
                Ok(periods) => periods,
                Err(fault) => return Err(CommandFailure::usage(fault).into()),
            };
            context.output.note(format!("before: {}; now: {}", periods::in_words(&before), periods::in_words(&now)));
            let before = told(&context, args.kind, &by, before).await?;
            compare::compare(&before, &told(&context, args.kind, &by, now).await?, by.len())
        }
    };
    if table.is_empty() {
        for (kind, name) in named {
            names::require(kind, name.as_deref(), &context.store, &context.config).await?;
        }
        context.output.note("there is nothing to report for this selection");
        // For people a line of zeros says nothing more; programs get their columns.
        if context.output.format() == super::output::Format::Table {
            context.close().await?;
            return Ok(ExitCode::Success);
        }
    }
    context.output.table(&table)?;
    context.close().await?;
    Ok(ExitCode::Success)
}

/// The report of what the filter lets through. What its reader has to know beside it is told.
async fn told(context: &Context, kind: ReportKind, by: &[Grouping], filter: Filter) -> anyhow::Result<Table> {
    let asked::ReportRead { table, unpriced, note } = read(&context.store, kind, by, filter.clone()).await?;
    if unpriced > 0 {
        context.output.warn(unpriced_warning(context, &filter, unpriced).await?);
    }
    if let Some(note) = note {
        context.output.note(note);
    }
    Ok(table)
}

impl ValueEnum for ReportKind {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(self.meaning()))
    }
}

impl ValueEnum for ReportBy {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(self.meaning()))
    }
}

/// Why two periods cannot be compared.
fn compares_nothing(args: &Args) -> Option<&'static str> {
    args.compare?;
    if args.since.is_none() {
        return Some(
            "--compare needs --since: it compares the time from then on with as long a time before it, \
             e.g. `--since 7d --compare`",
        );
    }
    periods::without_pairs(&args.by)
}

/// Names the targets with unknown costs, and the remedy.
async fn unpriced_warning(context: &Context, filter: &Filter, unpriced: i64) -> anyhow::Result<String> {
    let rows = context.store.totals(&[Grouping::Provider, Grouping::Model], filter).await?;
    let targets = rows.into_iter().filter(|row| row.unpriced > 0).filter_map(|row| {
        let [provider, model] = [Grouping::Provider, Grouping::Model].map(|part| row.keys.get(part));
        Some(Target::new(provider?, model?))
    });
    Ok(unpriced_in_words(unpriced, targets, |target| {
        let name = target.to_string();
        let mut rungs = context.config.routes.values().flat_map(|route| &route.route.rungs);
        match rungs.find(|rung| rung.target.to_string() == name) {
            Some(rung) => rung.is_priced(),
            None => context.config.models.get(target).is_some_and(Model::is_priced),
        }
    }))
}

/// A target without a price needs one. Where it has one, the answers came from elsewhere, or before it had one.
fn unpriced_in_words(
    unpriced: i64,
    targets: impl Iterator<Item = Target>,
    has_price: impl Fn(&Target) -> bool,
) -> String {
    const NAMED: usize = 5;
    let (priced, bare): (Vec<Target>, Vec<Target>) = targets.partition(has_price);
    let names = |targets: &[Target]| {
        let names: Vec<String> = targets.iter().take(NAMED).map(|target| format!("\"{target}\"")).collect();
        names.join(", ")
    };
    let mut words = format!("the price of {} is unknown and not in the sums", counted(unpriced, "attempt", "attempts"));
    if !bare.is_empty() {
        let _ = write!(words, "; add [models.NAME] with a price for {}", names(&bare));
    }
    if !priced.is_empty() {
        let _ = write!(
            words,
            "; for {} there is a price: another model or tier answered (model_served and service_tier in \
             sluice.attempts say which), so add a price for that model, or served_as or tiers to [models.NAME]; or the \
             call was made before the price was added",
            names(&priced)
        );
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_price_is_asked_for_where_it_is_missing() {
        let targets = || ["a/m", "b/m"].into_iter().filter_map(Target::parse);
        let told = |has_price: fn(&Target) -> bool| unpriced_in_words(3, targets(), has_price);
        let bare = told(|_| false);
        assert!(bare.ends_with("add [models.NAME] with a price for \"a/m\", \"b/m\""), "{bare}");
        let priced = told(|_| true);
        assert!(priced.contains("for \"a/m\", \"b/m\" there is a price: another model or tier"), "{priced}");
        assert!(!priced.contains("with a price for"), "{priced}");
        let both = told(|target| target.provider == "a");
        assert!(both.contains("with a price for \"b/m\"; for \"a/m\" there is a price"), "{both}");
    }
}
