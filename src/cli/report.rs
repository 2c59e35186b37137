//! `sluice report`: what it cost, what failed, what was wasted, who had to step in, how long it took.

use super::GlobalArgs;
use super::context::Context;
use super::moment;
use super::output::{Cell, Report};
use crate::domain::NanoUsd;
use crate::domain::timeline::Stray;
use crate::exit_code::ExitCode;
use crate::store::Store;
use crate::store::report::{Dimension, Filter, Latency, Moment, Totals};
use std::cmp::Reverse;
use std::time::Duration;

/// Latencies are read from the ledger, which may be large: without a word they are those of this time.
const LATENCY_SPAN: Duration = Duration::from_hours(24);

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
}

/// A kind of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Dollars and tokens.
    Cost,
    /// Attempts and jobs that failed, by error class.
    Failures,
    /// Money for answers that were not used.
    Waste,
    /// Who answered after another had failed or was passed over.
    Fallbacks,
    /// How long accepted answers took; of the last 24 hours unless --since says otherwise.
    Latency,
}

/// What a report is grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Account or server.
    Provider,
    /// Model.
    Model,
    /// Policy.
    Route,
    /// Whose money.
    Project,
    /// Batch.
    Batch,
    /// Error class and kind of soft failure.
    Class,
    /// Day, UTC.
    Day,
    /// Hour, UTC.
    Hour,
}

impl By {
    fn dimensions(self) -> &'static [Dimension] {
        match self {
            Self::Provider => &[Dimension::Provider],
            Self::Model => &[Dimension::Model],
            Self::Route => &[Dimension::Route],
            Self::Project => &[Dimension::Project],
            Self::Batch => &[Dimension::Batch],
            Self::Class => &[Dimension::Class, Dimension::Detail],
            Self::Day => &[Dimension::Day],
            Self::Hour => &[Dimension::Hour],
        }
    }
}

/// Prints the report.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let by = dimensions(args.kind, &args.by);
    let filter = Filter {
        since: args.since,
        until: args.until,
        batch: args.batch.clone(),
        project: args.project.clone(),
        route: args.route.clone(),
        failures_only: false,
    };
    let report = if args.kind == Kind::Latency {
        let filter = Filter { since: filter.since.or(Some(Moment::Ago(LATENCY_SPAN))), ..filter };
        latency_report(&by, context.store.latencies(&by, &filter).await?)
    } else {
        let failures_only = args.kind == Kind::Failures;
        let rows = context.store.totals(&by, &Filter { failures_only, ..filter.clone() }).await?;
        let all = context.store.totals(&[], &filter).await?.pop().unwrap_or_default();
        if all.unpriced > 0 {
            let warning = unpriced_warning(&context.store, &filter, all.unpriced).await?;
            context.output.warn(warning);
        }
        if args.kind == Kind::Waste
            && let Some(lost) = lost_with_commits(&context.store, &filter).await?
        {
            context.output.note(lost);
        }
        match args.kind {
            Kind::Failures => failures_report(&by, rows, &all),
            Kind::Waste => waste_report(&by, rows, &all),
            Kind::Fallbacks => fallbacks_report(&by, rows),
            Kind::Cost | Kind::Latency => cost_report(&by, rows, &all),
        }
    };
    if report.is_empty() {
        context.output.note("there is nothing to report for this selection");
    }
    context.output.report(&report)?;
    context.close().await?;
    Ok(ExitCode::Success)
}

fn dimensions(kind: Kind, by: &[By]) -> Vec<Dimension> {
    let usual: &[By] = match kind {
        Kind::Cost | Kind::Latency => &[By::Provider, By::Model],
        Kind::Failures => &[By::Class, By::Provider, By::Model],
        Kind::Waste => &[By::Provider, By::Model, By::Class],
        Kind::Fallbacks => &[By::Route, By::Provider, By::Model],
    };
    let mut dimensions: Vec<Dimension> = Vec::new();
    for dimension in if by.is_empty() { usual } else { by }.iter().flat_map(|by| by.dimensions()) {
        if !dimensions.contains(dimension) {
            dimensions.push(*dimension);
        }
    }
    dimensions
}

/// Names the models whose price is missing: that is what can be done about it.
async fn unpriced_warning(store: &Store, filter: &Filter, unpriced: i64) -> anyhow::Result<String> {
    let rows = store.totals(&[Dimension::Provider, Dimension::Model], filter).await?;
    let models: Vec<String> =
        rows.iter().filter(|row| row.unpriced > 0).take(5).map(|row| format!("\"{}\"", row.keys.join("/"))).collect();
    Ok(format!(
        "the price of {unpriced} attempts is unknown, and they are not in the sums; add [models.NAME] with a price for {}",
        models.join(", ")
    ))
}

/// What was paid in vain because the database lost commits that it had confirmed; `None`: nothing.
async fn lost_with_commits(store: &Store, filter: &Filter) -> anyhow::Result<Option<String>> {
    let mut lost = Stray::default();
    for row in store.totals(&[Dimension::Class, Dimension::Detail], filter).await? {
        let details = ["other_job", "lost_job", "lost_answer"];
        if matches!(row.keys.as_slice(), [class, detail] if class == "abandoned" && details.contains(&detail.as_str()))
        {
            lost.calls += row.attempts;
            lost.cost += row.waste;
            lost.uncertain += row.uncertain;
            lost.unpriced += row.unpriced;
        }
    }
    Ok((lost.calls > 0).then(|| {
        format!(
            "lost with commits of the database, by a failover or a restore: {} calls, {}; `sluice doctor` says more",
            lost.calls,
            lost.money()
        )
    }))
}

fn head(by: &[Dimension], measures: &[&'static str]) -> Report {
    Report::new(by.iter().map(|dimension| dimension.as_str()).chain(measures.iter().copied()))
}

/// The keys of a row; what has no value (a job without a batch, an attempt without a failure) is left empty.
fn keys(keys: &[String]) -> impl Iterator<Item = Cell> {
    keys.iter().map(|key| if key.is_empty() { Cell::Empty } else { Cell::Text(key.clone()) })
}

/// "total" in the first column.
fn total_keys(by: &[Dimension]) -> impl Iterator<Item = Cell> {
    by.iter().enumerate().map(|(index, _)| if index == 0 { "total".into() } else { Cell::Text(String::new()) })
}

/// Days and hours stay in order; anything else goes by what matters, the most first.
fn sort<K: Ord>(by: &[Dimension], rows: &mut [Totals], measure: impl Fn(&Totals) -> K) {
    if !by.iter().any(|dimension| matches!(dimension, Dimension::Day | Dimension::Hour)) {
        rows.sort_by_key(|row| Reverse(measure(row)));
    }
}

fn share(part: i64, whole: i64) -> Cell {
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    if whole > 0 { Cell::Share(part as f64 / whole as f64) } else { Cell::Empty }
}

fn cost_report(by: &[Dimension], mut rows: Vec<Totals>, all: &Totals) -> Report {
    let mut report = head(
        by,
        &[
            "answered",
            "attempts",
            "input_tokens",
            "cached_tokens",
            "output_tokens",
            "cost",
            "waste",
            "uncertain",
            "unpriced",
        ],
    );
    let measures = |row: &Totals| -> [Cell; 9] {
        [
            row.succeeded.into(),
            row.attempts.into(),
            row.input_tokens.into(),
            row.cached_tokens.into(),
            row.output_tokens.into(),
            row.known_cost().into(),
            row.known_waste().into(),
            row.uncertain.into(),
            row.unpriced.into(),
        ]
    };
    rows.retain(|row| row.attempts != 0 || row.succeeded != 0);
    sort(by, &mut rows, |row| row.cost);
    for row in &rows {
        report.row(keys(&row.keys).chain(measures(row)));
    }
    report.total(total_keys(by).chain(measures(all)));
    report
}

fn failures_report(by: &[Dimension], mut rows: Vec<Totals>, all: &Totals) -> Report {
    let mut report = head(by, &["attempts", "share", "jobs_failed", "waste", "uncertain"]);
    sort(by, &mut rows, |row| (row.attempts, row.failed));
    let (mut attempts, mut failed, mut waste, mut uncertain) = (0, 0, NanoUsd::ZERO, NanoUsd::ZERO);
    for row in &rows {
        attempts += row.attempts;
        failed += row.failed;
        waste += row.waste;
        uncertain += row.uncertain;
        report.row(keys(&row.keys).chain([
            row.attempts.into(),
            share(row.attempts, all.attempts),
            row.failed.into(),
            row.known_waste().into(),
            row.uncertain.into(),
        ]));
    }
    report.total(total_keys(by).chain([
        attempts.into(),
        share(attempts, all.attempts),
        failed.into(),
        waste.into(),
        uncertain.into(),
    ]));
    report
}

fn waste_report(by: &[Dimension], mut rows: Vec<Totals>, all: &Totals) -> Report {
    let mut report = head(by, &["attempts", "waste", "share", "uncertain"]);
    rows.retain(|row| row.waste != NanoUsd::ZERO || row.uncertain != NanoUsd::ZERO);
    sort(by, &mut rows, |row| row.waste + row.uncertain);
    let attempts = rows.iter().map(|row| row.attempts).sum::<i64>();
    for row in &rows {
        report.row(keys(&row.keys).chain([
            row.attempts.into(),
            row.waste.into(),
            share(row.waste.0, all.cost.0),
            row.uncertain.into(),
        ]));
    }
    report.total(total_keys(by).chain([
        attempts.into(),
        all.known_waste().into(),
        share(all.waste.0, all.cost.0),
        all.uncertain.into(),
    ]));
    report
}

fn fallbacks_report(by: &[Dimension], mut rows: Vec<Totals>) -> Report {
    let mut report = head(by, &["jobs_answered", "after_fallback", "share"]);
    rows.retain(|row| row.succeeded != 0);
    sort(by, &mut rows, |row| row.fallbacks);
    for row in &rows {
        report.row(keys(&row.keys).chain([
            row.succeeded.into(),
            row.fallbacks.into(),
            share(row.fallbacks, row.succeeded),
        ]));
    }
    let (answered, fallbacks) = rows.iter().fold((0, 0), |(a, f), row| (a + row.succeeded, f + row.fallbacks));
    report.total(total_keys(by).chain([answered.into(), fallbacks.into(), share(fallbacks, answered)]));
    report
}

fn latency_report(by: &[Dimension], mut rows: Vec<Latency>) -> Report {
    let mut report = head(by, &["answers", "first_byte_p50_ms", "p50_ms", "p95_ms", "p99_ms", "mean_ms"]);
    if !by.iter().any(|dimension| matches!(dimension, Dimension::Day | Dimension::Hour)) {
        rows.sort_by_key(|row| Reverse(row.p95_ms));
    }
    for row in &rows {
        report.row(keys(&row.keys).chain([
            row.answers.into(),
            row.first_byte_p50_ms.map_or(Cell::Empty, Cell::Millis),
            Cell::Millis(row.p50_ms),
            Cell::Millis(row.p95_ms),
            Cell::Millis(row.p99_ms),
            Cell::Millis(row.mean_ms),
        ]));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(report: &Report) -> serde_json::Value {
        serde_json::to_value(report).unwrap()
    }

    fn row(keys: &[&str]) -> Totals {
        Totals { keys: keys.iter().map(|key| (*key).to_owned()).collect(), ..Totals::default() }
    }

    #[test]
    fn an_unknown_cost_is_empty_and_never_zero() {
        let priced = Totals { attempts: 2, cost: NanoUsd(5), ..row(&["a"]) };
        let partly = Totals { attempts: 2, cost: NanoUsd(3), unpriced: 1, ..row(&["b"]) };
        let unpriced = Totals { attempts: 2, unpriced: 2, ..row(&["c"]) };
        let report = json(&cost_report(&[Dimension::Provider], vec![unpriced, partly, priced], &Totals::default()));
        assert_eq!(report[0]["provider"], "a");
        assert_eq!((&report[1]["cost"].to_string(), &report[1]["unpriced"]), (&"3e-9".to_owned(), &1.into()));
        assert_eq!((&report[2]["cost"], &report[2]["waste"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    }

    #[test]
    fn failures_are_a_share_of_all_attempts() {
        let by = dimensions(Kind::Failures, &[By::Class]);
        assert_eq!(by, [Dimension::Class, Dimension::Detail]);
        let rows = vec![
            Totals { failed: 4, ..row(&["soft_failure", ""]) },
            Totals { attempts: 10, ..row(&["soft_failure", "empty"]) },
        ];
        let report = json(&failures_report(&by, rows, &Totals { attempts: 100, ..row(&[]) }));
        assert_eq!((&report[0]["detail"], &report[0]["share"]), (&"empty".into(), &0.1.into()));
        assert_eq!((&report[1]["detail"], &report[1]["jobs_failed"]), (&serde_json::Value::Null, &4.into()));
    }

    #[test]
    fn days_stay_in_order_and_other_rows_go_by_measure() {
        let rows = |keys: [&str; 2]| {
            vec![Totals { succeeded: 1, ..row(&[keys[0]]) }, Totals { succeeded: 2, fallbacks: 1, ..row(&[keys[1]]) }]
        };
        let days = json(&fallbacks_report(&[Dimension::Day], rows(["2026-01-01", "2026-01-02"])));
        assert_eq!(days[0]["day"], "2026-01-01");
        let routes = json(&fallbacks_report(&[Dimension::Route], rows(["a", "b"])));
        assert_eq!((&routes[0]["route"], &routes[0]["share"]), (&"b".into(), &0.5.into()));
    }

    #[test]
    fn a_dimension_that_is_named_twice_is_one_column() {
        assert_eq!(dimensions(Kind::Cost, &[By::Day, By::Class, By::Day]).len(), 3);
    }
}
