//! `sluice reconcile`: the ledger beside a provider's invoice.

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::names;
use super::output::Format;
use crate::config::Config;
use crate::domain::counted::counted;
use crate::domain::reconcile::{Discrepancy, compare};
use crate::exit_code::ExitCode;
use crate::input::InputSource;
use crate::input::invoice::{self, Columns, Kind};
use crate::store::names::Named;
use crate::view::reconciled;
use chrono::{NaiveDate, NaiveTime};
use std::path::PathBuf;

/// Compare the ledger with a provider's usage or invoice, day by day and model by model
///
/// FILE is a CSV export of OpenAI (usage or costs) or Anthropic (usage or costs), known by its columns, or any other
/// with --date, --model, --cost and --tokens; compressed by gzip or not. A day is one of UTC, the one on which a call
/// was made. Shown are the days and models on which the two do not agree: what only one of them has, other tokens,
/// another price for the same tokens, and what may explain it. The exit status is 0 when all agree within the
/// tolerance, and 11 when they do not.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The export; `-`: from standard input
    pub file: PathBuf,
    /// Only calls to this provider; may be given several times [default: those of the export's vendor]
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Vec<String>,
    /// The column with the day, of a file that is no known export
    #[arg(long, value_name = "COLUMN")]
    pub date: Option<String>,
    /// The column with the model; without it all models of a day are compared together
    #[arg(long, value_name = "COLUMN")]
    pub model: Option<String>,
    /// The column with the cost in dollars
    #[arg(long, value_name = "COLUMN")]
    pub cost: Option<String>,
    /// The column with all tokens, input and output
    #[arg(long, value_name = "COLUMN")]
    pub tokens: Option<String>,
    /// Only from this day on
    #[arg(long, value_name = "DAY", value_parser = day)]
    pub since: Option<NaiveDate>,
    /// Only before this day
    #[arg(long, value_name = "DAY", value_parser = day)]
    pub until: Option<NaiveDate>,
    /// The share of an amount by which the two may differ
    #[arg(long, value_name = "SHARE", default_value = "0.01", value_parser = share)]
    pub tolerance: f64,
    /// Show what agrees, too
    #[arg(long)]
    pub all: bool,
}

fn day(text: &str) -> Result<NaiveDate, String> {
    text.parse().map_err(|_| "is no day; expected one such as 2026-08-05, of UTC".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.01".to_owned())
}

/// Runs the command.
///
/// # Errors
/// A fault of the file; those of the database.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let source = InputSource::new(Some(&args.file));
    let input = |reason: &dyn std::fmt::Display| CommandFailure::input(format!("{}:{reason}", source.name()));
    let columns = Columns {
        date: args.date.clone(),
        model: args.model.clone(),
        cost: args.cost.clone(),
        tokens: args.tokens.clone(),
    };
    let mut found = invoice::read(&source, &columns).map_err(|error| match error.line {
        0 => input(&format_args!(" {error}")),
        _ => input(&error),
    })?;
    let mut context = Context::open(global).await?;
    for name in &args.provider {
        names::require(Named::Provider, Some(name), &context.store, &context.config).await?;
    }
    let providers = providers(&args, &source.name(), found.kind, &context.config)?;
    let (first, last) = found.days;
    let first = args.since.map_or(first, |since| since.max(first));
    let end = last.succ_opt().unwrap_or(last);
    let end = args.until.map_or(end, |until| until.min(end));
    if first >= end {
        let message =
            format!("{}: it speaks of {} to {}, none of which is asked for", source.name(), found.days.0, last);
        return Err(CommandFailure::usage(message).into());
    }
    let is_asked_for = |day: &str| day.parse::<NaiveDate>().is_ok_and(|day| first <= day && day < end);
    found.side.retain(|(day, _), _| is_asked_for(day));
    let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
    let ledger = context.store.by_day_and_model(midnight(first), midnight(end), &providers).await?;
    let compared = compare(&ledger, &found.side, args.tolerance);
    let differing = compared.iter().filter(|line| line.finding != Discrepancy::Agrees).count();
    let of = if providers.is_empty() { "all providers".to_owned() } else { providers.join(", ") };
    context.output.note(format_args!("{}, beside the ledger of {of}, {first} to before {end}", found.kind.name()));
    context.output.table(&reconciled::table(&compared, args.all))?;
    if context.output.format() == Format::Table {
        for words in reconciled::perhaps(&compared) {
            context.output.told(format_args!(" {words}"))?;
        }
    }
    if differing == 0 {
        context.output.note(format_args!("{} agree", counted(compared.len(), "day and model", "days and models")));
    }
    context.output.finish()?;
    context.close().await?;
    Ok(if differing == 0 { ExitCode::Success } else { ExitCode::Disagrees })
}

/// The providers whose calls the invoice is about.
fn providers(args: &Args, file: &str, kind: Kind, config: &Config) -> anyhow::Result<Vec<String>> {
    let vendor_of = |name: &str| {
        let provider = config.providers.get(name);
        provider.and_then(|provider| provider.endpoint.vendor.clone()).unwrap_or_else(|| name.to_owned())
    };
    let Some(vendor) = kind.vendor() else { return Ok(args.provider.clone()) };
    if let Some(other) = args.provider.iter().find(|name| {
        let of = vendor_of(name);
        // Azure, gateways and servers of the user's own may pass on what OpenAI says; the two exports tell apart.
        (of == "openai" || of == "anthropic") && of != vendor
    }) {
        return Err(CommandFailure::input(format!(
            "{file}: this is {}, and {other} is of {}: take that vendor's export",
            kind.name(),
            vendor_of(other)
        ))
        .into());
    }
    if !args.provider.is_empty() {
        return Ok(args.provider.clone());
    }
    let of_vendor: Vec<String> = config.providers.keys().filter(|name| vendor_of(name) == vendor).cloned().collect();
    if of_vendor.is_empty() {
        let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
        return Err(CommandFailure::input(format!(
            "{file}: this is {}, and no provider of the configuration is of {vendor}; there are: {}. --provider says \
             whose calls it is about",
            kind.name(),
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        ))
        .into());
    }
    Ok(of_vendor)
}
