//! Reports: cost, failures, waste, fallbacks, re-asks, latency and what the cache saved.
//!
//! A report has a row for each group; its first columns are the dimensions by which it is grouped.

use super::table::{Cell, Layout, Table};
use crate::domain::NanoUsd;
use crate::domain::per_answer::known_cost;
use crate::store::report::{CacheUse, Grouping, LatencyRow, Reasks, Totals};
use std::cmp::Reverse;

/// How all reports are laid out for people.
const LAYOUT: Layout = Layout {
    wide: &["cached_tokens", "first_byte_p50_ms", "mean_ms"],
    when_told: &["uncertain", "unpriced", "waste"],
    give_way: &["uncertain", "output_tokens", "input_tokens", "unpriced", "waste", "attempts", "p99_ms", "share"],
    prose: &[],
};

fn head(by: &[Grouping], measures: &[&'static str]) -> Table {
    Table::new(by.iter().map(|dimension| dimension.as_str()).chain(measures.iter().copied())).laid_out(LAYOUT)
}

/// The keys of a row. A key without a value (a job without a batch, an attempt without a failure) is left empty.
fn keys(keys: &[String]) -> impl Iterator<Item = Cell> {
    keys.iter().map(|key| if key.is_empty() { Cell::Empty } else { Cell::Text(key.clone()) })
}

/// "total" in the first column.
fn total_keys(by: &[Grouping]) -> impl Iterator<Item = Cell> {
    by.iter().enumerate().map(|(index, _)| if index == 0 { "total".into() } else { Cell::Text(String::new()) })
}

/// Sorts the rows: days and hours stay in order; others go by the measure, the largest first.
fn sort<K: Ord>(by: &[Grouping], rows: &mut [Totals], measure: impl Fn(&Totals) -> K) {
    if !by.iter().any(|dimension| matches!(dimension, Grouping::Day | Grouping::Hour)) {
        rows.sort_by_key(|row| Reverse(measure(row)));
    }
}

fn share(part: i64, whole: i64) -> Cell {
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    if whole > 0 { Cell::Share(part as f64 / whole as f64) } else { Cell::Empty }
}

/// The table of dollars and tokens.
#[must_use]
pub fn cost(by: &[Grouping], mut rows: Vec<Totals>, all: &Totals) -> Table {
    let mut table = head(
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
            "cost_per_answer",
        ],
    );
    // The money behind an answer has several classes: none of them has a figure of its own.
    let is_split = by.iter().any(|dimension| matches!(dimension, Grouping::Class | Grouping::Detail));
    let per_answer = |row: &Totals| if is_split { Cell::Empty } else { row.spent().per_answer().into() };
    let measures = |row: &Totals, per_answer: Cell| -> [Cell; 10] {
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
            per_answer,
        ]
    };
    rows.retain(|row| row.attempts != 0 || row.succeeded != 0);
    sort(by, &mut rows, |row| row.cost);
    for row in &rows {
        table.row(keys(&row.keys).chain(measures(row, per_answer(row))));
    }
    table.total(total_keys(by).chain(measures(all, all.spent().per_answer().into())));
    table
}

/// The table of attempts and jobs that failed; `all` also sums up those that did not.
#[must_use]
pub fn failures(by: &[Grouping], mut rows: Vec<Totals>, all: &Totals) -> Table {
    let mut table = head(by, &["attempts", "share", "jobs_failed", "waste", "uncertain"]);
    sort(by, &mut rows, |row| (row.attempts, row.failed));
    let (mut attempts, mut failed, mut waste, mut uncertain) = (0, 0, NanoUsd::ZERO, NanoUsd::ZERO);
    for row in &rows {
        attempts += row.attempts;
        failed += row.failed;
        waste += row.waste;
        uncertain += row.uncertain;
        table.row(keys(&row.keys).chain([
            row.attempts.into(),
            share(row.attempts, all.attempts),
            row.failed.into(),
            row.known_waste().into(),
            row.uncertain.into(),
        ]));
    }
    table.total(total_keys(by).chain([
        attempts.into(),
        share(attempts, all.attempts),
        failed.into(),
        waste.into(),
        uncertain.into(),
    ]));
    table
}

/// The table of money for answers that were not used, and of the calls that brought them; `all` also sums up the
/// others.
#[must_use]
pub fn waste(by: &[Grouping], mut rows: Vec<Totals>, all: &Totals) -> Table {
    let mut table = head(by, &["attempts", "waste", "share", "uncertain"]);
    rows.retain(|row| row.unused != 0 || row.waste != NanoUsd::ZERO || row.uncertain != NanoUsd::ZERO);
    sort(by, &mut rows, |row| row.waste + row.uncertain);
    for row in &rows {
        table.row(keys(&row.keys).chain([
            row.unused.into(),
            row.waste.into(),
            share(row.waste.0, all.cost.0),
            row.uncertain.into(),
        ]));
    }
    table.total(total_keys(by).chain([
        all.unused.into(),
        all.known_waste().into(),
        share(all.waste.0, all.cost.0),
        all.uncertain.into(),
    ]));
    table
}

/// The table of answers that were given again, and of the money that was not spent for them.
#[must_use]
pub fn cache(by: &[Grouping], rows: Vec<CacheUse>) -> Table {
    let mut table = head(by, &["answers", "saved", "unpriced"]);
    let mut all = CacheUse::default();
    for row in rows {
        all.answers += row.answers;
        all.saved += row.saved;
        all.unpriced += row.unpriced;
        table.row(keys(&row.keys).chain([row.answers.into(), row.saved.into(), row.unpriced.into()]));
    }
    if !by.is_empty() {
        table.total(total_keys(by).chain([all.answers.into(), all.saved.into(), all.unpriced.into()]));
    }
    table
}

/// The table of answers that came after another target had failed or was passed over.
#[must_use]
pub fn fallbacks(by: &[Grouping], mut rows: Vec<Totals>) -> Table {
    let mut table = head(by, &["jobs_answered", "after_fallback", "share"]);
    rows.retain(|row| row.succeeded != 0);
    sort(by, &mut rows, |row| row.fallbacks);
    for row in &rows {
        table.row(keys(&row.keys).chain([
            row.succeeded.into(),
            row.fallbacks.into(),
            share(row.fallbacks, row.succeeded),
        ]));
    }
    let (answered, fallbacks) = rows.iter().fold((0, 0), |(a, f), row| (a + row.succeeded, f + row.fallbacks));
    table.total(total_keys(by).chain([answered.into(), fallbacks.into(), share(fallbacks, answered)]));
    table
}

/// The table of calls that named the fault of a rejected answer.
#[must_use]
pub fn reasks(by: &[Grouping], mut rows: Vec<Reasks>) -> Table {
    let mut table = head(by, &["reasks", "accepted", "share", "cost", "waste", "unpriced"]);
    if !by.iter().any(|dimension| matches!(dimension, Grouping::Day | Grouping::Hour)) {
        rows.sort_by_key(|row| Reverse(row.calls));
    }
    let measures = |row: &Reasks| -> [Cell; 6] {
        let is_priced = known_cost(row.cost, row.unpriced, row.calls).is_some();
        [
            row.calls.into(),
            row.accepted.into(),
            share(row.accepted, row.calls),
            is_priced.then_some(row.cost).into(),
            is_priced.then_some(row.waste).into(),
            row.unpriced.into(),
        ]
    };
    let mut all = Reasks::default();
    for row in &rows {
        all.calls += row.calls;
        all.accepted += row.accepted;
        all.cost += row.cost;
        all.waste += row.waste;
        all.unpriced += row.unpriced;
        table.row(keys(&row.keys).chain(measures(row)));
    }
    table.total(total_keys(by).chain(measures(&all)));
    table
}

/// The table of latencies of accepted answers.
#[must_use]
pub fn latency(by: &[Grouping], mut rows: Vec<LatencyRow>) -> Table {
    let mut table = head(by, &["answers", "first_byte_p50_ms", "p50_ms", "p95_ms", "p99_ms", "mean_ms"]);
    if !by.iter().any(|dimension| matches!(dimension, Grouping::Day | Grouping::Hour)) {
        rows.sort_by_key(|row| Reverse(row.p95_ms));
    }
    for row in &rows {
        table.row(keys(&row.keys).chain([
            row.answers.into(),
            row.first_byte_p50_ms.map_or(Cell::Empty, Cell::Millis),
            Cell::Millis(row.p50_ms),
            Cell::Millis(row.p95_ms),
            Cell::Millis(row.p99_ms),
            Cell::Millis(row.mean_ms),
        ]));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PerAnswer;

    fn json(table: &Table) -> serde_json::Value {
        serde_json::to_value(table).unwrap()
    }

    fn row(keys: &[&str]) -> Totals {
        Totals { keys: keys.iter().map(|key| (*key).to_owned()).collect(), ..Totals::default() }
    }

    #[test]
    fn an_unknown_cost_is_empty_and_never_zero() {
        let priced = Totals { attempts: 2, cost: NanoUsd(5), ..row(&["a"]) };
        let partly = Totals { attempts: 2, cost: NanoUsd(3), unpriced: 1, ..row(&["b"]) };
        let unpriced = Totals { attempts: 2, unpriced: 2, ..row(&["c"]) };
        let report = json(&cost(&[Grouping::Provider], vec![unpriced, partly, priced], &Totals::default()));
        assert_eq!(report[0]["provider"], "a");
        assert_eq!((&report[1]["cost"].to_string(), &report[1]["unpriced"]), (&"3e-9".to_owned(), &1.into()));
        assert_eq!((&report[2]["cost"], &report[2]["waste"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    }

    #[test]
    fn an_answer_costs_what_the_rejected_ones_cost_too() {
        let often_rejected = Totals {
            attempts: 10,
            succeeded: 4,
            cost: NanoUsd(1_000),
            waste: NanoUsd(600),
            uncertain: NanoUsd(7),
            ..row(&["cheap"])
        };
        let partly = Totals { attempts: 2, succeeded: 2, cost: NanoUsd(3), unpriced: 1, ..row(&["partly"]) };
        let in_vain = Totals { attempts: 2, cost: NanoUsd(2), ..row(&["in_vain"]) };
        let all = Totals { attempts: 14, succeeded: 6, cost: NanoUsd(1_005), unpriced: 1, ..row(&[]) };
        let rows = || vec![often_rejected.clone(), partly.clone(), in_vain.clone()];
        let table = cost(&[Grouping::Provider], rows(), &all);
        let report = json(&table);
        let told = |index: usize| report[index]["cost_per_answer"].to_string();
        assert_eq!((told(0), told(1), told(2)), ("2.5e-7".to_owned(), "null".to_owned(), "null".to_owned()));
        assert_eq!(table.rows[0].last(), Some(&Cell::PerAnswer(PerAnswer::AtLeast(NanoUsd(250)))));
        assert_eq!(table.rows[1].last(), Some(&Cell::PerAnswer(PerAnswer::Unknown)));
        assert_eq!(table.rows[2].last(), Some(&Cell::Empty), "no figure, and the money is in its row");
        assert_eq!(table.total.unwrap().last(), Some(&Cell::PerAnswer(PerAnswer::Unknown)));
        let by_class = cost(&[Grouping::Class], rows(), &Totals { unpriced: 0, ..all });
        assert!(by_class.rows.iter().all(|row| row.last() == Some(&Cell::Empty)));
        assert_eq!(by_class.total.unwrap().last(), Some(&Cell::PerAnswer(PerAnswer::Exactly(NanoUsd(168)))));
    }

    #[test]
    fn failures_are_a_share_of_all_attempts() {
        let by = [Grouping::Class, Grouping::Detail];
        let rows = vec![
            Totals { failed: 4, ..row(&["soft_failure", ""]) },
            Totals { attempts: 10, ..row(&["soft_failure", "empty"]) },
        ];
        let report = json(&failures(&by, rows, &Totals { attempts: 100, ..row(&[]) }));
        assert_eq!((&report[0]["detail"], &report[0]["share"]), (&"empty".into(), &0.1.into()));
        assert_eq!((&report[1]["detail"], &report[1]["jobs_failed"]), (&serde_json::Value::Null, &4.into()));
    }

    #[test]
    fn the_calls_of_waste_are_the_same_however_they_are_grouped() {
        // Two good calls, three that were refused and cost nothing, one answer that was paid for in vain.
        let good = Totals { attempts: 2, succeeded: 2, cost: NanoUsd(20), ..row(&[""]) };
        let refused = Totals { attempts: 3, unused: 3, ..row(&["rate_limit"]) };
        let rejected =
            Totals { attempts: 1, unused: 1, cost: NanoUsd(10), waste: NanoUsd(10), ..row(&["soft_failure"]) };
        let all = Totals { attempts: 6, unused: 4, cost: NanoUsd(30), waste: NanoUsd(10), ..row(&[]) };
        let by_class = json(&waste(&[Grouping::Class], vec![good, refused, rejected], &all));
        let by_model = json(&waste(&[Grouping::Model], vec![Totals { keys: vec!["m".into()], ..all.clone() }], &all));
        let sum = |report: &serde_json::Value| {
            report.as_array().unwrap().iter().map(|row| row["attempts"].as_i64().unwrap()).sum::<i64>()
        };
        assert_eq!((sum(&by_class), sum(&by_model)), (4, 4));
        assert_eq!((&by_class[0]["class"], by_class.as_array().unwrap().len()), (&"soft_failure".into(), 2));
    }

    #[test]
    fn re_asks_are_told_with_what_came_of_them() {
        let row = |target: &str, calls: i64, accepted: i64, unpriced: i64| Reasks {
            keys: vec![target.to_owned()],
            calls,
            accepted,
            cost: NanoUsd(calls * 10),
            waste: NanoUsd((calls - accepted) * 10),
            unpriced,
        };
        let report = json(&reasks(&[Grouping::Provider], vec![row("a", 1, 0, 1), row("b", 4, 3, 0)]));
        assert_eq!((&report[0]["provider"], &report[0]["share"]), (&"b".into(), &0.75.into()));
        assert_eq!((&report[1]["reasks"], &report[1]["cost"]), (&1.into(), &serde_json::Value::Null));
    }

    #[test]
    fn days_stay_in_order_and_other_rows_go_by_measure() {
        let rows = |keys: [&str; 2]| {
            vec![Totals { succeeded: 1, ..row(&[keys[0]]) }, Totals { succeeded: 2, fallbacks: 1, ..row(&[keys[1]]) }]
        };
        let days = json(&fallbacks(&[Grouping::Day], rows(["2026-01-01", "2026-01-02"])));
        assert_eq!(days[0]["day"], "2026-01-01");
        let routes = json(&fallbacks(&[Grouping::Route], rows(["a", "b"])));
        assert_eq!((&routes[0]["route"], &routes[0]["share"]), (&"b".into(), &0.5.into()));
    }
}
