//! Reports: cost, quality, failures, waste, fallbacks, re-asks, latency and what the cache saved.
//!
//! A report has a row for each group; its first columns are the dimensions by which it is grouped.

pub mod asked;
pub mod periods;
pub mod prompt_caches;
pub mod quality;
pub mod shadow;

use super::table::{Cell, Layout, Table};
use crate::domain::NanoUsd;
use crate::domain::per_answer::known_cost;
use crate::store::report::{CacheUse, FailureWords, Grouping, Keys, LatencyRow, Totals};
use std::cmp::Reverse;
use std::collections::HashMap;

/// How most reports are laid out for people.
const LAYOUT: Layout = Layout {
    wide: &["cached_tokens", "first_byte_p50_ms", "mean_ms"],
    when_told: &["uncertain", "unpriced", "waste", "code", "message"],
    give_way: &[
        "uncertain",
        "output_tokens",
        "input_tokens",
        "unpriced",
        "waste",
        "attempts",
        "p99_ms",
        "share",
        "code",
    ],
    prose: &["message"],
};

/// The same of fallbacks: what they cost more is told before what they cost.
const FALLBACKS: Layout =
    Layout { wide: &[], when_told: &["unknown"], give_way: &["unknown", "cost", "jobs_answered", "share"], prose: &[] };

/// The same of failures: how many calls failed is told to the last.
const FAILURES: Layout = Layout { give_way: &["uncertain", "waste", "code", "share", "jobs_failed"], ..LAYOUT };

/// The same of money that bought nothing, which is what the report is about.
const WASTE: Layout = Layout { give_way: &["uncertain", "attempts", "share"], ..LAYOUT };

fn head(by: &[Grouping], measures: &[&'static str]) -> Table {
    Table::new(by.iter().map(|dimension| dimension.as_str()).chain(measures.iter().copied())).laid_out(LAYOUT)
}

/// The keys of a row. A key without a value (a job without a batch, an attempt without a failure) is left empty.
fn keys(keys: &Keys) -> impl Iterator<Item = Cell> {
    keys.values().map(|key| if key.is_empty() { Cell::Empty } else { Cell::Text(key.to_owned()) })
}

/// "total" in the first column.
fn total_keys(by: &[Grouping]) -> impl Iterator<Item = Cell> {
    by.iter().enumerate().map(|(index, _)| if index == 0 { "total".into() } else { Cell::Text(String::new()) })
}

/// Sorts the rows: days and hours stay in order; others go by the measure, the largest first.
fn sort<R, K: Ord>(by: &[Grouping], rows: &mut [R], measure: impl Fn(&R) -> K) {
    if !by.iter().any(|dimension| dimension.is_time()) {
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

/// The dimensions by which sums are asked for [`failures`].
#[must_use]
pub fn by_of_failures(by: &[Grouping]) -> Vec<Grouping> {
    let others = FailureWords::BY.into_iter().filter(|dimension| !by.contains(dimension));
    by.iter().copied().chain(others).collect()
}

/// Failures of one group.
#[derive(Default)]
struct Failed {
    sum: Totals,
    /// How many calls had each code of each class at each target.
    codes: Vec<(i64, Keys)>,
}

/// Jobs that ended are counted without the detail and the code of the calls that they ended after. Where all of those
/// have the same, the two stand in one row.
fn put_endings_beside_their_calls(by: &[Grouping], groups: &mut Vec<Failed>) {
    let is_finer = |grouping: &Grouping| matches!(grouping, Grouping::Detail | Grouping::Code);
    let coarser: Vec<Grouping> = by.iter().copied().filter(|grouping| !is_finer(grouping)).collect();
    let is_ending = |group: &Failed| {
        let is_without = |grouping: &Grouping| group.sum.keys.get(*grouping).unwrap_or_default().is_empty();
        group.sum.attempts == 0 && by.iter().filter(|grouping| is_finer(grouping)).all(is_without)
    };
    if coarser.len() == by.len() {
        return;
    }
    let (endings, mut calls): (Vec<Failed>, Vec<Failed>) = std::mem::take(groups).into_iter().partition(is_ending);
    for ending in endings {
        let keys = ending.sum.keys.only(&coarser);
        let mut its = calls.iter_mut().filter(|call| call.sum.attempts > 0 && call.sum.keys.only(&coarser) == keys);
        match (its.next(), its.next()) {
            (Some(only), None) => only.sum.failed += ending.sum.failed,
            // Which of them the jobs ended after is not counted.
            _ => groups.push(ending),
        }
    }
    groups.append(&mut calls);
}

/// The column of the latest words of a provider about a failure. They may quote a request.
pub const WORDS_OF_PROVIDERS: &str = "message";

/// The table of attempts and jobs that failed; `all` also sums up those that did not. The rows are by
/// [more dimensions](by_of_failures) than are shown: the code and the message of a group are those of its most frequent
/// failure.
#[must_use]
pub fn failures(by: &[Grouping], rows: Vec<Totals>, all: &Totals, words: &[FailureWords]) -> Table {
    let shows_code = !by.contains(&Grouping::Code);
    let measures = ["attempts", "share", "jobs_failed", "waste", "uncertain"];
    let code: &[&'static str] = if shows_code { &["code"] } else { &[] };
    let mut table = head(by, &[&measures[..], code, &[WORDS_OF_PROVIDERS]].concat()).laid_out(FAILURES);
    let mut places: HashMap<Keys, usize> = HashMap::new();
    let mut groups: Vec<Failed> = Vec::new();
    for row in rows {
        let own = row.keys.only(by);
        let place = *places.entry(own.clone()).or_insert_with(|| {
            groups.push(Failed { sum: Totals { keys: own, ..Totals::default() }, codes: Vec::new() });
            groups.len() - 1
        });
        let Some(group) = groups.get_mut(place) else { continue };
        group.sum.attempts += row.attempts;
        group.sum.failed += row.failed;
        group.sum.cost += row.cost;
        group.sum.waste += row.waste;
        group.sum.uncertain += row.uncertain;
        group.sum.unpriced += row.unpriced;
        group.codes.push((row.attempts, row.keys.only(&FailureWords::BY)));
    }
    let said: HashMap<&Keys, &str> = words.iter().map(|words| (&words.keys, words.message.as_str())).collect();
    put_endings_beside_their_calls(by, &mut groups);
    sort(by, &mut groups, |group| (group.sum.attempts, group.sum.failed));
    let mut total = Totals::default();
    for Failed { sum: row, mut codes } in groups {
        codes.sort_by_key(|(attempts, _)| Reverse(*attempts));
        let code = codes.first().and_then(|(_, keys)| keys.get(Grouping::Code)).unwrap_or_default();
        let message = codes.iter().find_map(|(attempts, keys)| said.get(keys).filter(|_| *attempts > 0));
        total.attempts += row.attempts;
        total.failed += row.failed;
        total.waste += row.waste;
        total.uncertain += row.uncertain;
        let code = if code.is_empty() { Cell::Empty } else { Cell::Text(code.to_owned()) };
        let told = [
            row.attempts.into(),
            share(row.attempts, all.attempts),
            row.failed.into(),
            row.known_waste().into(),
            row.uncertain.into(),
        ];
        let words = [message.map_or(Cell::Empty, |message| Cell::Text((*message).to_owned()))];
        table.row(keys(&row.keys).chain(told).chain(shows_code.then_some(code)).chain(words));
    }
    table.total(
        total_keys(by)
            .chain([
                total.attempts.into(),
                share(total.attempts, all.attempts),
                total.failed.into(),
                total.waste.into(),
                total.uncertain.into(),
            ])
            .chain(shows_code.then_some(Cell::Empty))
            .chain([Cell::Empty]),
    );
    table
}

/// The table of money for answers that were not used, and of the calls that brought them; `all` also sums up the
/// others.
#[must_use]
pub fn waste(by: &[Grouping], mut rows: Vec<Totals>, all: &Totals) -> Table {
    let mut table = head(by, &["attempts", "waste", "share", "uncertain"]).laid_out(WASTE);
    rows.retain(|row| row.unused != 0 || row.waste != NanoUsd::ZERO || row.uncertain != NanoUsd::ZERO);
    sort(by, &mut rows, |row| (row.waste, row.uncertain));
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

/// The table of answers that came after another target had failed or was passed over; `all` also sums up the others.
/// The first choice is known of answers alone, so groups by it have no share of their own answers, but of all.
#[must_use]
pub fn fallbacks(by: &[Grouping], mut rows: Vec<Totals>, all: &Totals) -> Table {
    let columns = ["jobs_answered", "after_fallback", "share", "cost", "cost_more", "unknown"];
    let mut table = head(by, &columns).laid_out(FALLBACKS);
    let is_by_choice = by.iter().any(|dimension| dimension.is_of_fallbacks());
    rows.retain(|row| if is_by_choice { row.detours != 0 } else { row.succeeded != 0 || row.detours != 0 });
    let after = |row: &Totals| if is_by_choice { row.detours } else { row.fallbacks };
    sort(by, &mut rows, after);
    let measures = |row: &Totals, answered: Option<i64>, after: i64| -> [Cell; 6] {
        let is_known = row.detours > row.detour_unknown;
        [
            answered.into(),
            after.into(),
            share(after, answered.unwrap_or(all.succeeded)),
            row.detour_cost.into(),
            is_known.then_some(row.detour_extra).into(),
            row.detour_unknown.into(),
        ]
    };
    for row in &rows {
        let answered = (!is_by_choice).then_some(row.succeeded);
        table.row(keys(&row.keys).chain(measures(row, answered, after(row))));
    }
    table.total(total_keys(by).chain(measures(all, Some(all.succeeded), after(all))));
    table
}

/// The table of calls that named the fault of a rejected answer; `all` sums them up.
#[must_use]
pub fn reasks(by: &[Grouping], mut rows: Vec<Totals>, all: &Totals) -> Table {
    let mut table = head(by, &["reasks", "accepted", "share", "cost", "waste", "unpriced"]);
    rows.retain(|row| row.reasks != 0);
    sort(by, &mut rows, |row| row.reasks);
    let measures = |row: &Totals| -> [Cell; 6] {
        let is_priced = known_cost(row.reask_cost, row.reasks_unpriced, row.reasks).is_some();
        [
            row.reasks.into(),
            row.reasks_accepted.into(),
            share(row.reasks_accepted, row.reasks),
            is_priced.then_some(row.reask_cost).into(),
            is_priced.then_some(row.reask_waste).into(),
            row.reasks_unpriced.into(),
        ]
    };
    for row in &rows {
        table.row(keys(&row.keys).chain(measures(row)));
    }
    table.total(total_keys(by).chain(measures(all)));
    table
}

/// The table of latencies of accepted answers.
#[must_use]
pub fn latency(by: &[Grouping], mut rows: Vec<LatencyRow>) -> Table {
    let mut table = head(by, &["answers", "first_byte_p50_ms", "p50_ms", "p95_ms", "p99_ms", "mean_ms"]);
    sort(by, &mut rows, |row| row.p95_ms);
    let millis = |millis: Option<i64>| millis.map_or(Cell::Empty, Cell::Millis);
    for row in &rows {
        table.row(keys(&row.keys).chain([
            row.answers.into(),
            millis(row.first_byte_p50_ms),
            millis(row.p50_ms),
            millis(row.p95_ms),
            millis(row.p99_ms),
            Cell::Millis(row.mean_ms),
        ]));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::quality::{by_of_quality, quality};
    use super::*;
    use crate::domain::PerAnswer;

    const PROVIDER: [Grouping; 1] = [Grouping::Provider];

    fn json(table: &Table) -> serde_json::Value {
        serde_json::to_value(table).unwrap()
    }

    fn row(by: &[Grouping], keys: &[&str]) -> Totals {
        Totals { keys: Keys::of(by, keys.iter().copied()), ..Totals::default() }
    }

    #[test]
    fn an_unknown_cost_is_empty_and_never_zero() {
        let priced = Totals { attempts: 2, cost: NanoUsd(5), ..row(&PROVIDER, &["a"]) };
        let partly = Totals { attempts: 2, cost: NanoUsd(3), unpriced: 1, ..row(&PROVIDER, &["b"]) };
        let unpriced = Totals { attempts: 2, unpriced: 2, ..row(&PROVIDER, &["c"]) };
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
            ..row(&PROVIDER, &["cheap"])
        };
        let partly = Totals { attempts: 2, succeeded: 2, cost: NanoUsd(3), unpriced: 1, ..row(&PROVIDER, &["partly"]) };
        let in_vain = Totals { attempts: 2, cost: NanoUsd(2), ..row(&PROVIDER, &["in_vain"]) };
        let all = Totals { attempts: 14, succeeded: 6, cost: NanoUsd(1_005), unpriced: 1, ..row(&[], &[]) };
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
            Totals { failed: 4, ..row(&by, &["soft_failure", ""]) },
            Totals { attempts: 10, ..row(&by, &["soft_failure", "empty"]) },
        ];
        let report = json(&failures(&by, rows, &Totals { attempts: 100, ..row(&[], &[]) }, &[]));
        assert_eq!((&report[0]["detail"], &report[0]["share"]), (&"empty".into(), &0.1.into()));
        assert_eq!((&report[0]["jobs_failed"], report.as_array().unwrap().len()), (&4.into(), 1));
    }

    #[test]
    fn jobs_whose_calls_failed_in_several_ways_have_a_row_of_their_own() {
        let by = [Grouping::Class, Grouping::Detail];
        let rows = vec![
            Totals { failed: 4, ..row(&by, &["soft_failure", ""]) },
            Totals { attempts: 10, ..row(&by, &["soft_failure", "empty"]) },
            Totals { attempts: 9, ..row(&by, &["soft_failure", "truncated"]) },
            Totals { failed: 2, ..row(&by, &["timeout", ""]) },
            Totals { attempts: 3, ..row(&by, &["timeout", ""]) },
        ];
        let report = json(&failures(&by, rows, &Totals { attempts: 100, ..row(&[], &[]) }, &[]));
        let told =
            |n: usize| (report[n]["class"].to_string(), report[n]["detail"].to_string(), &report[n]["jobs_failed"]);
        assert_eq!(told(0), ("\"soft_failure\"".to_owned(), "\"empty\"".to_owned(), &0.into()));
        assert_eq!(told(2), ("\"timeout\"".to_owned(), "null".to_owned(), &2.into()));
        assert_eq!(told(3), ("\"soft_failure\"".to_owned(), "null".to_owned(), &4.into()));
    }

    #[test]
    fn the_calls_of_waste_are_the_same_however_they_are_grouped() {
        // Two good calls, three that were refused and cost nothing, one answer that was paid for in vain.
        let good = Totals { attempts: 2, succeeded: 2, cost: NanoUsd(20), ..row(&[Grouping::Class], &[""]) };
        let refused = Totals { attempts: 3, unused: 3, ..row(&[Grouping::Class], &["rate_limit"]) };
        let rejected = Totals {
            attempts: 1,
            unused: 1,
            cost: NanoUsd(10),
            waste: NanoUsd(10),
            ..row(&[Grouping::Class], &["soft_failure"])
        };
        let all = Totals { attempts: 6, unused: 4, cost: NanoUsd(30), waste: NanoUsd(10), ..row(&[], &[]) };
        let by_class = json(&waste(&[Grouping::Class], vec![good, refused, rejected], &all));
        let by_model = json(&waste(
            &[Grouping::Model],
            vec![Totals { keys: Keys::of(&[Grouping::Model], ["m"]), ..all.clone() }],
            &all,
        ));
        let sum = |report: &serde_json::Value| {
            report.as_array().unwrap().iter().map(|row| row["attempts"].as_i64().unwrap()).sum::<i64>()
        };
        assert_eq!((sum(&by_class), sum(&by_model)), (4, 4));
        assert_eq!((&by_class[0]["class"], by_class.as_array().unwrap().len()), (&"soft_failure".into(), 2));
    }

    #[test]
    fn re_asks_are_told_with_what_came_of_them() {
        let row = |target: &str, calls: i64, accepted: i64, unpriced: i64| Totals {
            reasks: calls,
            reasks_accepted: accepted,
            reask_cost: NanoUsd(calls * 10),
            reask_waste: NanoUsd((calls - accepted) * 10),
            reasks_unpriced: unpriced,
            ..row(&PROVIDER, &[target])
        };
        let rows = vec![row("a", 1, 0, 1), row("b", 4, 3, 0), row("c", 0, 0, 0)];
        let report = json(&reasks(&PROVIDER, rows, &Totals::default()));
        assert_eq!((&report[0]["provider"], &report[0]["share"]), (&"b".into(), &0.75.into()));
        assert_eq!((&report[1]["reasks"], &report[1]["cost"]), (&1.into(), &serde_json::Value::Null));
    }

    #[test]
    fn days_stay_in_order_and_other_rows_go_by_measure() {
        let rows = |by: Grouping, keys: [&str; 2]| {
            vec![
                Totals { succeeded: 1, ..row(&[by], &[keys[0]]) },
                Totals { succeeded: 2, fallbacks: 1, ..row(&[by], &[keys[1]]) },
            ]
        };
        let all = Totals::default();
        let days = json(&fallbacks(&[Grouping::Day], rows(Grouping::Day, ["2026-01-01", "2026-01-02"]), &all));
        assert_eq!(days[0]["day"], "2026-01-01");
        let routes = json(&fallbacks(&[Grouping::Route], rows(Grouping::Route, ["a", "b"]), &all));
        assert_eq!((&routes[0]["route"], &routes[0]["share"]), (&"b".into(), &0.5.into()));
    }

    #[test]
    fn a_fallback_is_told_with_what_it_cost_more_as_far_as_that_is_known() {
        let by = [Grouping::From, Grouping::Why, Grouping::To];
        let known = Totals {
            detours: 3,
            detour_cost: NanoUsd(50),
            detour_extra: NanoUsd(20),
            detour_unknown: 1,
            ..row(&by, &["a/m", "timeout", "b/m"])
        };
        let unknown = Totals { detours: 1, detour_unknown: 1, ..row(&by, &["a/m", "auth", "c/m"]) };
        let direct = Totals { succeeded: 96, ..row(&by, &["", "", "a/m"]) };
        let all = Totals { succeeded: 100, ..Totals::default() };
        let report = json(&fallbacks(&by, vec![direct, unknown, known], &all));
        assert_eq!(report.as_array().unwrap().len(), 2);
        assert_eq!((&report[0]["why"], &report[0]["after_fallback"]), (&"timeout".into(), &3.into()));
        assert_eq!((&report[0]["share"], report[0]["cost_more"].to_string()), (&0.03.into(), "2e-8".to_owned()));
        assert_eq!((&report[1]["cost_more"], &report[1]["unknown"]), (&serde_json::Value::Null, &1.into()));
    }

    #[test]
    fn quality_is_the_share_of_accepted_answers_and_failures_that_are_no_answers_do_not_count() {
        let by = by_of_quality(&PROVIDER);
        let rows = [
            Totals { attempts: 6, succeeded: 6, repaired: 2, cost: NanoUsd(60), ..row(&by, &["a", "", ""]) },
            Totals { attempts: 2, cost: NanoUsd(20), ..row(&by, &["a", "soft_failure", "empty"]) },
            Totals { attempts: 9, cost: NanoUsd(4), ..row(&by, &["a", "timeout", ""]) },
            Totals { attempts: 9, ..row(&by, &["b", "timeout", ""]) },
        ];
        let report = json(&quality(&PROVIDER, &rows));
        assert_eq!(report.as_array().unwrap().len(), 1);
        let told = ["answers", "accepted", "acceptance", "repaired", "empty", "truncated"].map(|name| &report[0][name]);
        assert_eq!(told.map(ToString::to_string), ["8", "6", "0.75", "2", "2", "0"]);
        assert_eq!(report[0]["cost_per_answer"].to_string(), "1.4e-8");
    }

    #[test]
    fn the_code_and_the_message_of_a_group_are_those_of_its_most_frequent_failure() {
        let by = by_of_failures(&[Grouping::Class]);
        let row = |code: &str, attempts: i64| Totals { attempts, ..row(&by, &["timeout", "a", "m", "", code]) };
        let words = |code: &str, message: &str| FailureWords {
            keys: Keys::of(&FailureWords::BY, ["a", "m", "timeout", "", code]),
            message: message.to_owned(),
        };
        let (rows, all) =
            (vec![row("504", 2), row("slow", 3), row("", 1)], Totals { attempts: 6, ..Totals::default() });
        let said = [words("504", "gateway"), words("slow", "took too long")];
        let report = json(&failures(&[Grouping::Class], rows.clone(), &all, &said));
        assert_eq!((&report[0]["attempts"], &report[0]["code"]), (&6.into(), &"slow".into()));
        assert_eq!(report[0]["message"], "took too long");
        let by_code = json(&failures(&[Grouping::Class, Grouping::Code], rows, &all, &said));
        assert_eq!((&by_code[1]["code"], &by_code[1]["message"]), (&"504".into(), &"gateway".into()));
        assert_eq!(by_code[2]["message"], serde_json::Value::Null);
    }
}
