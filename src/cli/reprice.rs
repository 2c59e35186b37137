//! `sluice reprice`: computes the costs of the ledger again, from the tokens, with the prices as they are known now.

use super::GlobalArgs;
use super::consent::consent;
use super::context::Context;
use super::failure::CommandFailure;
use super::figure;
use super::names;
use super::output::Format;
use crate::config::PriceBook;
use crate::domain::billing::{Answered, Cost, Tolerance};
use crate::domain::counted::counted;
use crate::domain::usage::CostSource;
use crate::domain::{ErrorClass, JobId, UsageSource};
use crate::exit_code::ExitCode;
use crate::provider::cache_writes::for_an_hour;
use crate::store::Store;
use crate::store::names::Named;
use crate::store::report::Moment;
use crate::store::reprice::{Costed, Recosted, RepriceScope};
use crate::view::moment;
use crate::view::repriced::{RepricedView, Sums};

/// Compute the costs of the ledger again, from the tokens, with the prices as they are known now
///
/// For history that was booked at a wrong price, or at none. Which price holds for a call is decided by its day, hour,
/// tier and length of prompt (`changes` of a model). What a provider said of its cost stays the cost of a call; what
/// was computed beside it follows. Results and reports follow exactly. Each attempt keeps what it said before.
///
/// First shows what would change, and asks. It works in steps beside running workers: when it is stopped, what it has
/// done holds, and the next run goes on; a run that has nothing to do changes nothing. What may have been spent on
/// calls whose end is not known (`uncertain`) stays as it was reserved.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only calls to this provider
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Option<String>,
    /// Only calls that asked for this model, in whatever tier; with one (gpt-5@flex) only those that asked for it
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Only calls for jobs of this route
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// Only calls for jobs of this batch
    #[arg(long, value_name = "BATCH")]
    pub batch: Option<String>,
    /// Only calls for jobs of this project
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// Only calls that ended at this time or later: how long ago (7d), a date or an instant
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub since: Option<Moment>,
    /// Only calls that ended before this time
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub until: Option<Moment>,
    /// Only jobs with smaller numbers than this, to go on where an earlier run was stopped
    #[arg(long, value_name = "JOB", value_parser = figure::count::<i64>)]
    pub below: Option<i64>,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// Runs the command.
///
/// # Errors
/// Those of the database; the user says no.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    for (kind, name) in [
        (Named::Provider, &args.provider),
        (Named::Model, &args.model),
        (Named::Route, &args.route),
        (Named::Batch, &args.batch),
        (Named::Project, &args.project),
    ] {
        names::require(kind, name.as_deref(), &context.store, &context.config).await?;
    }
    let scope = scope(&args, &context.store).await?;
    let below = args.below.map(JobId);
    let tolerance = Tolerance { share: context.config.prices.reported_difference };
    let mut book = PriceBook::of(&context.config);
    let mut found = Sums::default();
    let mut walk = context.store.costed(scope.clone(), below);
    while let Some((_, costed)) = walk.next().await? {
        for was in costed {
            drop(recosted(was, &mut book, tolerance, &mut found));
        }
    }
    let shown = RepricedView { sums: found.clone(), changed: None };
    if args.dry_run || found.changes == 0 {
        show(&mut context, &shown)?;
        context.close().await?;
        return Ok(ExitCode::Success);
    }
    if !args.yes {
        context.output.note(shown.in_words());
        consent(&format!("change the cost of {}", counted(found.changes, "attempt", "attempts"))).await?;
    }
    let (mut done, mut changed) = (Sums::default(), 0);
    let mut walk = context.store.costed(scope, below);
    while let Some((first, costed)) = walk.next().await? {
        let changes: Vec<Recosted> =
            costed.into_iter().filter_map(|was| recosted(was, &mut book, tolerance, &mut done)).collect();
        if !changes.is_empty() {
            changed += context.store.recost(&changes).await?;
            tracing::info!(below = first.0, changed, "costs were computed again");
        }
    }
    // Budgets count a cost when it is booked; here booked costs change.
    context.store.check_budgets(true).await?;
    show(&mut context, &RepricedView { sums: done, changed: Some(changed) })?;
    context.close().await?;
    Ok(ExitCode::Success)
}

fn show(context: &mut Context, view: &RepricedView) -> anyhow::Result<()> {
    match context.output.format() {
        Format::Json => context.output.json(view)?,
        Format::Plain | Format::Csv => context.output.table(&view.table())?,
        Format::Table => {
            context.output.table(&view.table())?;
            context.output.note(view.in_words());
        }
    }
    context.output.finish()?;
    Ok(())
}

async fn scope(args: &Args, store: &Store) -> anyhow::Result<RepriceScope> {
    let mut instants = [None; 2];
    for (instant, moment) in instants.iter_mut().zip([args.since, args.until]) {
        *instant = match moment {
            Some(Moment::At(at)) => Some(at),
            Some(Moment::Ago(ago)) => Some(store.seconds_ago(ago.as_secs_f64()).await?),
            None => None,
        };
    }
    let [since, until] = instants;
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        let message = "--since is not before --until, so no call is meant; nothing was changed";
        return Err(CommandFailure::usage(message).into());
    }
    Ok(RepriceScope {
        provider: args.provider.clone(),
        model: args.model.clone(),
        route: args.route.clone(),
        batch: args.batch.clone(),
        project: args.project.clone(),
        since,
        until,
    })
}

/// What the attempt is to say of its cost; `None`: what it says now. Without tokens or a price nothing can be computed,
/// and the booked cost stays.
fn recosted(mut was: Costed, book: &mut PriceBook<'_>, tolerance: Tolerance, sums: &mut Sums) -> Option<Recosted> {
    let new = computed_again(&mut was, book, tolerance);
    sums.count(was.cost, new.as_ref().map_or(was.cost, |new| new.cost), new.is_some());
    new.map(|new| Recosted { was, ..new })
}

fn computed_again(was: &mut Costed, book: &mut PriceBook<'_>, tolerance: Tolerance) -> Option<Recosted> {
    if let Some(raw) = &was.usage_raw {
        let written = was.usage.cache_write;
        was.usage.cache_write_1h = for_an_hour(raw, written);
        was.usage.cache_write = written - was.usage.cache_write_1h;
    }
    let is_answered = match was.class.as_deref() {
        None => true,
        Some(class) => class.parse().is_ok_and(|class: ErrorClass| ErrorClass::is_answered(Some(class))),
    };
    let has_tokens = match was.usage.source {
        UsageSource::Provider => true,
        // A call that failed was never seen to have these tokens.
        UsageSource::Estimated => is_answered,
        UsageSource::Unknown => false,
    };
    if !has_tokens {
        return None;
    }
    let (target, model) = book.find(&was.provider, &was.model)?;
    let served = was.model_served.as_deref().unwrap_or_default();
    let billed =
        Answered { target, model, served, tier: was.service_tier.as_deref(), asked: None, at: was.started_at }.billed();
    let tariff = billed.price?;
    let cost = Cost::of(Some(&tariff), &was.usage, was.reported);
    let new = Recosted {
        cost: cost.booked,
        computed: cost.computed,
        source: cost.source.map(CostSource::as_str),
        price: Some(tariff.of(was.usage.total_input())),
        differs: tolerance.is_exceeded(cost.computed, was.reported),
        was: was.clone(),
    };
    // Earlier versions kept no computed cost beside a computed one.
    let computed = was.computed.or(was.cost.filter(|_| was.source.as_deref() == Some(CostSource::Price.as_str())));
    let said = (was.cost, computed, was.source.as_deref(), was.price, was.differs);
    (said != (new.cost, new.computed, new.source, new.price, new.differs)).then_some(new)
}
