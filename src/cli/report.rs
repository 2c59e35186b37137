//! `sluice report`: cost, quality, failures, waste, fallbacks, re-asks, latency and what the cache saved; one period
//! or two.

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::moment;
use crate::domain::Model;
use crate::domain::abandonment::Abandonment;
use crate::domain::counted::counted;
use crate::domain::timeline::Stray;
use crate::domain::{ErrorClass, Target};
use crate::exit_code::ExitCode;
use crate::store::Store;
use crate::store::report::{Filter, Grouping, Moment, OTHERS, Totals};
use crate::view::table::Table;
use crate::view::{compare, report};
use chrono::{DateTime, TimeDelta, Utc};
use std::fmt::Write as _;
use std::time::Duration;

/// How things are now is what reports of latencies and re-asks are for: by default they cover this time.
const LATELY: Duration = Duration::from_hours(24);

/// How many batches are told apart, unless --limit says otherwise.
const MOST_BATCHES: usize = 1_000;

/// What to report.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which report
    #[arg(value_enum)]
    pub kind: Kind,
    /// Group by these; several at once or repeated
    #[arg(long, value_enum, value_delimiter = ',', value_name = "DIMENSION")]
    pub by: Vec<By>,
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
        value_parser = against
    )]
    pub compare: Option<Against>,
}

/// The period that a report is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The one right before it.
    Before,
    /// The one that begins then.
    From(Moment),
}

fn against(text: &str) -> Result<Against, String> {
    if text == "before" { Ok(Against::Before) } else { moment::parse(text).map(Against::From) }
}

/// A kind of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Dollars and tokens.
    Cost,
    /// How many answers were accepted, what was wrong with the others, and dollars per accepted answer.
    Quality,
    /// Attempts and jobs that failed, by error class, with the provider's code and what it says.
    Failures,
    /// Money for answers that were not used.
    Waste,
    /// Answers that did not come from the first choice: which it was, why, who answered, and what that cost more.
    Fallbacks,
    /// Calls that named the fault of a rejected answer, and what came of them; of the last 24 hours unless --since says
    /// otherwise.
    Reasks,
    /// How long accepted answers took; of the last 24 hours unless --since says otherwise.
    Latency,
    /// Answers that the caches of routes gave again, and the money that they saved.
    Cache,
}

/// What a report is grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// The provider that was called.
    Provider,
    /// The model that was called.
    Model,
    /// The route that the job named.
    Route,
    /// The project that pays.
    Project,
    /// The batch.
    Batch,
    /// The login that enqueued the job.
    Login,
    /// Error class and kind of soft failure.
    Class,
    /// Code of a failure: the provider's, or else the HTTP status.
    Code,
    /// Of fallbacks: the first choice.
    From,
    /// Of fallbacks: why the first choice did not answer.
    Why,
    /// Of fallbacks: the target that answered.
    To,
    /// Day, UTC.
    Day,
    /// Hour, UTC.
    Hour,
}

impl By {
    fn dimensions(self) -> &'static [Grouping] {
        match self {
            Self::Provider => &[Grouping::Provider],
            Self::Model => &[Grouping::Model],
            Self::Route => &[Grouping::Route],
            Self::Project => &[Grouping::Project],
            Self::Batch => &[Grouping::Batch],
            Self::Login => &[Grouping::Login],
            Self::Class => &[Grouping::Class, Grouping::Detail],
            Self::Code => &[Grouping::Code],
            Self::From => &[Grouping::From],
            Self::Why => &[Grouping::Why],
            Self::To => &[Grouping::To],
            Self::Day => &[Grouping::Day],
            Self::Hour => &[Grouping::Hour],
        }
    }
}

/// Prints the report.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    if let (Some(since), Some(until)) = (args.since, args.until)
        && since.is_at_or_after(until)
    {
        return Err(CommandFailure::usage("--until is not after --since, so there is nothing between them").into());
    }
    if args.kind == Kind::Cache && (args.batch.is_some() || args.login.is_some()) {
        let fault = "what the cache saved is not kept by batch or login: leave --batch and --login out";
        return Err(CommandFailure::usage(fault).into());
    }
    if let Some(fault) = says_nothing(args.kind, &args.by) {
        return Err(CommandFailure::usage(fault).into());
    }
    if let Some(fault) = compares_nothing(&args) {
        return Err(CommandFailure::usage(fault).into());
    }
    if args.limit.is_some() && (args.batch.is_some() || !args.by.contains(&By::Batch)) {
        let fault = "--limit says how many batches have a row: it goes with --by batch, and without --batch";
        return Err(CommandFailure::usage(fault).into());
    }
    let mut context = Context::open(global).await?;
    let by = dimensions(args.kind, &args.by);
    let is_of_lately = matches!(args.kind, Kind::Reasks | Kind::Latency);
    let mut filter = Filter {
        since: args.since.or(is_of_lately.then_some(Moment::Ago(LATELY))),
        until: args.until,
        batch: args.batch,
        project: args.project,
        route: args.route,
        login: args.login,
        failures_only: false,
        shown: None,
    };
    if args.by.contains(&By::Batch) && filter.batch.is_none() {
        filter.shown = shown(&context, &filter, args.limit.unwrap_or(MOST_BATCHES)).await?;
    }
    let table = match args.compare {
        None => table(&context, args.kind, &by, filter).await?,
        Some(against) => {
            let [before, now] = periods(&context, &filter, against).await?;
            context.output.note(format!("before: {}; now: {}", in_words(&before), in_words(&now)));
            let before = table(&context, args.kind, &by, before).await?;
            compare::compare(&before, &table(&context, args.kind, &by, now).await?, by.len())
        }
    };
    if table.is_empty() {
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

/// The batches that have a row of their own, at most so many; `None`: all have.
async fn shown(context: &Context, filter: &Filter, most: usize) -> anyhow::Result<Option<Vec<String>>> {
    if most == 0 {
        return Ok(None);
    }
    let shown = context.store.latest_batches_in(filter, most).await?;
    if let Some(shown) = &shown {
        context.output.note(format!(
            "the {} in which something happened last have rows; all others are in the row {OTHERS}. --limit 0 tells \
             all apart",
            counted(shown.len(), "batch", "batches")
        ));
    }
    Ok(shown)
}

/// The report of what the filter lets through.
async fn table(context: &Context, kind: Kind, by: &[Grouping], filter: Filter) -> anyhow::Result<Table> {
    Ok(match kind {
        Kind::Cost => {
            let (rows, all) = sums(context, by, &filter).await?;
            report::cost(by, rows, &all)
        }
        Kind::Quality => {
            let (rows, _) = sums(context, &report::by_of_quality(by), &filter).await?;
            report::quality(by, &rows)
        }
        Kind::Failures => {
            let filter = Filter { failures_only: true, ..filter };
            let (rows, all) = sums(context, &report::by_of_failures(by), &filter).await?;
            report::failures(by, rows, &all, &context.store.failure_words().await?)
        }
        Kind::Waste => {
            let (rows, all) = sums(context, by, &filter).await?;
            if let Some(lost) = lost_with_commits(&context.store, &filter).await? {
                context.output.note(lost);
            }
            report::waste(by, rows, &all)
        }
        Kind::Fallbacks => {
            let (rows, all) = sums(context, by, &filter).await?;
            report::fallbacks(by, rows, &all)
        }
        Kind::Reasks => {
            let rows = context.store.totals(by, &filter).await?;
            let all = context.store.totals(&[], &filter).await?.pop().unwrap_or_default();
            report::reasks(by, rows, &all)
        }
        Kind::Cache => report::cache(by, context.store.cache_uses(by, &filter).await?),
        Kind::Latency => report::latency(by, context.store.latencies(by, &filter).await?),
    })
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
    args.by.iter().any(|by| matches!(by, By::Day | By::Hour)).then_some(
        "--by day and --by hour compare nothing: no day or hour is in both periods. Leave --compare out to see them \
         one after the other",
    )
}

/// The earlier period and the later one, in whole hours, of the same length.
async fn periods(context: &Context, filter: &Filter, against: Against) -> anyhow::Result<[Filter; 2]> {
    let hour = TimeDelta::hours(1);
    let begins = context.store.hour_of(filter.since).await?;
    let last = context.store.hour_of(filter.until).await?;
    // The hour of --until counts whole, unless that is where it begins.
    let ends = if filter.until == Some(Moment::At(last)) { last } else { last + hour };
    let length = ends - begins;
    if length <= TimeDelta::zero() {
        return Err(CommandFailure::usage("--until is not after --since, so there is nothing between them").into());
    }
    let earlier = match against {
        Against::Before => begins.checked_sub_signed(length).unwrap_or(DateTime::<Utc>::MIN_UTC),
        Against::From(moment) => context.store.hour_of(Some(moment)).await?,
    };
    if earlier + length > begins {
        return Err(CommandFailure::usage(format!(
            "the two periods overlap: {} hours from --since on, and as many from {} on. Name an earlier instant in \
             --compare, or end the later period by --until",
            length.num_hours(),
            earlier.format("%Y-%m-%d %H:%M UTC")
        ))
        .into());
    }
    let from = |since: DateTime<Utc>| Filter {
        since: Some(Moment::At(since)),
        until: Some(Moment::At(since + length)),
        ..filter.clone()
    };
    Ok([from(earlier), from(begins)])
}

fn in_words(period: &Filter) -> String {
    let at = |moment| match moment {
        Some(Moment::At(at)) => at.format("%Y-%m-%d %H:%M").to_string(),
        _ => String::new(),
    };
    format!("{} to {} UTC", at(period.since), at(period.until))
}

/// The sums of each requested group, and those of everything, failed or not. Warns of jobs that are not in them.
async fn sums(context: &Context, by: &[Grouping], filter: &Filter) -> anyhow::Result<(Vec<Totals>, Totals)> {
    let rows = context.store.totals(by, filter).await?;
    let filter = Filter { failures_only: false, ..filter.clone() };
    let all = context.store.totals(&[], &filter).await?.pop().unwrap_or_default();
    if all.unpriced > 0 {
        context.output.warn(unpriced_warning(context, &filter, all.unpriced).await?);
    }
    Ok((rows, all))
}

fn dimensions(kind: Kind, by: &[By]) -> Vec<Grouping> {
    let usual: &[By] = match kind {
        Kind::Cost | Kind::Quality | Kind::Latency | Kind::Reasks => &[By::Provider, By::Model],
        Kind::Failures => &[By::Class, By::Provider, By::Model],
        Kind::Waste => &[By::Provider, By::Model, By::Class],
        Kind::Cache => &[By::Route],
        Kind::Fallbacks => &[By::From, By::Why, By::To],
    };
    let mut dimensions: Vec<Grouping> = Vec::new();
    for dimension in if by.is_empty() { usual } else { by }.iter().flat_map(|by| by.dimensions()) {
        if !dimensions.contains(dimension) {
            dimensions.push(*dimension);
        }
    }
    dimensions
}

/// Why a dimension says nothing in a report: an answer that is used has no class.
fn says_nothing(kind: Kind, by: &[By]) -> Option<&'static str> {
    let is_known_of_caches = |by: &By| matches!(by, By::Route | By::Project | By::Day | By::Hour);
    if kind == Kind::Cache && !by.iter().all(is_known_of_caches) {
        return Some("what the cache saved is kept by route, project, day and hour: --by takes these");
    }
    if kind != Kind::Fallbacks && by.iter().any(|by| matches!(by, By::From | By::Why | By::To)) {
        return Some("--by from, why and to tell fallbacks apart: `sluice report fallbacks` takes them");
    }
    if !matches!(kind, Kind::Failures | Kind::Waste) && by.contains(&By::Code) {
        return Some(
            "--by code says nothing here: only failures have a code. `sluice report failures --by code` has them",
        );
    }
    if kind == Kind::Quality && by.contains(&By::Class) {
        return Some("--by class says nothing here: this report has a column for each kind of unusable answer");
    }
    let is_of_answers = matches!(kind, Kind::Fallbacks | Kind::Latency);
    (is_of_answers && by.contains(&By::Class)).then_some(
        "--by class says nothing here: this report is of answers that were used, and only failures have a class. \
         `sluice report failures --by class` has those",
    )
}

/// Names the targets with unknown costs, and what can be done about them.
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

/// The money paid in vain because the database lost commits that it had confirmed; `None`: none.
async fn lost_with_commits(store: &Store, filter: &Filter) -> anyhow::Result<Option<String>> {
    let mut lost = Stray::default();
    for row in store.totals(&[Grouping::Class, Grouping::Detail], filter).await? {
        let [class, detail] = [Grouping::Class, Grouping::Detail].map(|part| row.keys.get(part).unwrap_or_default());
        let mut lost_with_commits = Abandonment::ALL.into_iter().filter(|why| why.is_lost_with_commits());
        if class == ErrorClass::Abandoned.as_str() && lost_with_commits.any(|why| why.as_str() == detail) {
            lost.calls += row.attempts;
            lost.cost += row.waste;
            lost.uncertain += row.uncertain;
            lost.unpriced += row.unpriced;
        }
    }
    Ok((lost.calls > 0).then(|| {
        format!(
            "lost with commits of the database, by a failover or a restore: {}, {}; `sluice doctor` says more",
            counted(lost.calls, "call", "calls"),
            lost.money()
        )
    }))
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

    #[test]
    fn classes_are_refused_where_nothing_has_one() {
        for kind in [Kind::Fallbacks, Kind::Latency] {
            assert!(says_nothing(kind, &[By::Day, By::Class]).is_some(), "{kind:?}");
            assert_eq!(says_nothing(kind, &[By::Day, By::Route]), None, "{kind:?}");
        }
        for kind in [Kind::Cost, Kind::Failures, Kind::Waste] {
            assert_eq!(says_nothing(kind, &[By::Class]), None, "{kind:?}");
        }
        for by in [By::Class, By::Code, By::From, By::Why, By::To] {
            assert!(says_nothing(Kind::Quality, &[by]).is_some(), "{by:?}");
        }
        assert_eq!(says_nothing(Kind::Fallbacks, &[By::From, By::Why, By::To, By::Login]), None);
    }

    #[test]
    fn a_dimension_that_is_named_twice_is_one_column() {
        assert_eq!(dimensions(Kind::Cost, &[By::Day, By::Class, By::Day]).len(), 3);
        assert_eq!(dimensions(Kind::Failures, &[By::Class]), [Grouping::Class, Grouping::Detail]);
    }
}
