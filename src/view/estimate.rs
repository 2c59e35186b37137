//! The estimate of a file: what its jobs will cost, what a batch of their kind has cost, and what the ledger says of
//! the rungs.

use super::table::{Cell, Layout, Table};
use crate::domain::counted::counted;
use crate::domain::file_estimate::{FileEstimate, RungEstimate};
use crate::domain::{ErrorClass, NanoUsd, PerAnswer, Spent};
use crate::store::batch::Batch;
use crate::store::report::{Grouping, Totals};
use std::collections::HashMap;

/// The estimate of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct EstimateView {
    /// The sums of its jobs.
    pub sums: FileEstimate,
    /// A finished batch of the same kind.
    pub pilot: Option<Batch>,
    /// What was accepted of each rung before.
    pub history: Option<PastAnswers>,
}

impl EstimateView {
    /// A row for each rung.
    #[must_use]
    pub fn table(&self) -> Table {
        let sums = &self.sums;
        let money = |amount: Option<NanoUsd>| amount.map_or(Cell::UnknownMoney, Cell::Money);
        let mut table = Table::new([
            "rung",
            "target",
            "jobs",
            "first_choice",
            "too_large",
            "unsupported",
            "input_tokens",
            "output_tokens",
            "expected",
            "worst_without_retries",
        ])
        .laid_out(Layout {
            wide: &["rung"],
            when_told: &["too_large", "unsupported"],
            give_way: &[
                "history_answers",
                "history_accepted",
                "first_choice",
                "input_tokens",
                "output_tokens",
                "worst_without_retries",
            ],
            prose: &["target", "too_large"],
        });
        if self.history.is_some() {
            table.columns.extend(["history_answers", "history_accepted", "expected_per_answer"]);
        }
        for (index, rung) in (1..).zip(&sums.rungs) {
            let cells = [
                Cell::Count(index),
                rung.target.as_str().into(),
                rung.jobs.into(),
                rung.first_choice.into(),
                rung.too_large.into(),
                rung.unsupported.into(),
                rung.input_tokens.into(),
                rung.output_tokens.into(),
                money(rung.expected),
                money(rung.worst),
            ];
            table.row(cells.into_iter().chain(self.of_history(rung)));
        }
        if let Some(pilot) = &self.pilot {
            let seen = format!(
                "as batch {}: {} ended in {}",
                pilot.name,
                ended(pilot),
                counted(pilot.attempts, "attempt", "attempts")
            );
            let empty = || [const { Cell::Empty }; 3];
            let [large, unsupported, input] = empty();
            let nothing = self.history.iter().flat_map(|_| [const { Cell::Empty }; 3]);
            let cells = [
                Cell::Empty,
                seen.into(),
                sums.jobs.into(),
                Cell::Empty,
                large,
                unsupported,
                input,
                Cell::Empty,
                money(like(pilot, sums.jobs)),
                Cell::Empty,
            ];
            table.row(cells.into_iter().chain(nothing));
        }
        let stranded = if sums.stranded > 0 { format!("no rung can take {}", sums.stranded) } else { String::new() };
        let nothing = self.history.iter().flat_map(|_| [const { Cell::Empty }; 3]);
        let cells = [
            Cell::Empty,
            "each job to its first choice".into(),
            sums.jobs.into(),
            (sums.jobs - sums.stranded).into(),
            stranded.into(),
            Cell::Empty,
            Cell::Empty,
            Cell::Empty,
            money(sums.as_routed),
            Cell::Empty,
        ];
        table.total(cells.into_iter().chain(nothing));
        table
    }

    /// What the ledger says of a rung: answers, those that were accepted, and what one of those would cost.
    fn of_history(&self, rung: &RungEstimate) -> Vec<Cell> {
        let Some(history) = &self.history else { return Vec::new() };
        let seen = history.of(&rung.target);
        vec![seen.answers.into(), seen.accepted.into(), seen.per_answer(rung.expected, rung.jobs).into()]
    }
}

/// Jobs that succeeded or failed; cancelled ones do not show what a job costs.
#[must_use]
pub fn ended(pilot: &Batch) -> i64 {
    pilot.succeeded + pilot.failed
}

/// The cost of this many jobs at the average of a batch; `None`: a price is unknown.
fn like(pilot: &Batch, jobs: u64) -> Option<NanoUsd> {
    let sum = i128::from(pilot.cost.0) * i128::from(jobs);
    let average = sum.checked_div(i128::from(ended(pilot)))?;
    (pilot.unpriced == 0).then(|| NanoUsd(i64::try_from(average).unwrap_or(i64::MAX)))
}

/// Answers of a rung from which on a share of them says something.
pub const ENOUGH: i64 = 20;

/// What came of the answers of each target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastAnswers(HashMap<String, AnswersOfTarget>);

/// Answers of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswersOfTarget {
    /// Answers, accepted or rejected. Calls that brought none do not count: most of them cost nothing.
    pub answers: i64,
    /// Those of them that were accepted.
    pub accepted: i64,
}

impl PastAnswers {
    /// What the sums are asked by.
    pub const BY: [Grouping; 3] = [Grouping::Provider, Grouping::Model, Grouping::Class];

    /// From sums [by those](Self::BY).
    #[must_use]
    pub fn of_sums(rows: Vec<Totals>) -> Self {
        let mut history = Self::default();
        for row in rows {
            let [provider, model, class] = row.keys.as_slice() else { continue };
            let is_accepted = class.is_empty();
            let outcome = class.parse().ok();
            if !is_accepted && (outcome.is_none() || !ErrorClass::is_answered(outcome)) {
                continue;
            }
            let seen = history.0.entry(format!("{provider}/{model}")).or_default();
            seen.answers += row.attempts;
            seen.accepted += if is_accepted { row.attempts } else { 0 };
        }
        history
    }

    /// The answers of a target.
    #[must_use]
    pub fn of(&self, target: &str) -> AnswersOfTarget {
        self.0.get(target).copied().unwrap_or_default()
    }

    /// Whether there are enough answers of some target.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.0.values().any(|seen| seen.answers >= ENOUGH)
    }
}

impl AnswersOfTarget {
    /// What an accepted answer would cost if so many were accepted again: all the jobs' cost over the share of them.
    /// `None`: too few answers. The cost is that of one call for each job; `None`: the price is unknown.
    #[must_use]
    pub fn per_answer(self, expected: Option<NanoUsd>, jobs: u64) -> Option<PerAnswer> {
        if self.answers < ENOUGH || jobs == 0 {
            return None;
        }
        let bought = i128::from(jobs) * i128::from(self.accepted);
        let spent = i128::from(expected.unwrap_or_default().0) * i128::from(self.answers);
        // In parts small enough for the figure: a quotient is the same over a smaller divisor.
        let scale = (bought.max(spent) / i128::from(i64::MAX) + 1).max(1);
        let part = |amount: i128| i64::try_from(amount / scale).unwrap_or(i64::MAX);
        let spent = Spent {
            cost: NanoUsd(part(spent)),
            uncertain: NanoUsd::ZERO,
            unpriced: i64::from(expected.is_none()),
            accepted: part(bought),
        };
        Some(spent.per_answer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_and_calls_without_an_answer_do_not() {
        let row = |keys: [&str; 3], attempts: i64| Totals {
            keys: keys.map(str::to_owned).to_vec(),
            attempts,
            ..Totals::default()
        };
        let history = PastAnswers::of_sums(vec![
            row(["a", "m/1", ""], 15),
            row(["a", "m/1", "soft_failure"], 5),
            row(["a", "m/1", "rate_limit"], 100),
            row(["b", "m", "soft_failure"], 3),
        ]);
        assert_eq!(history.of("a/m/1"), AnswersOfTarget { answers: 20, accepted: 15 });
        assert_eq!(
            (history.of("b/m"), history.of("c/m")),
            (AnswersOfTarget { answers: 3, accepted: 0 }, AnswersOfTarget::default())
        );
        assert!(history.is_enough());
    }

    #[test]
    fn an_accepted_answer_costs_more_the_fewer_were_accepted() {
        let seen = AnswersOfTarget { answers: 40, accepted: 10 };
        assert_eq!(seen.per_answer(Some(NanoUsd(1_000)), 10), Some(PerAnswer::Exactly(NanoUsd(400))));
        assert_eq!(seen.per_answer(None, 10), Some(PerAnswer::Unknown));
        assert_eq!(
            AnswersOfTarget { accepted: 0, ..seen }.per_answer(Some(NanoUsd(1_000)), 10),
            Some(PerAnswer::NoAnswer)
        );
        assert_eq!(AnswersOfTarget { answers: 19, accepted: 19 }.per_answer(Some(NanoUsd(1_000)), 10), None);
        assert_eq!(seen.per_answer(Some(NanoUsd(1_000)), 0), None);
        let large = seen.per_answer(Some(NanoUsd(i64::MAX)), 1_000_000_000);
        let Some(PerAnswer::Exactly(NanoUsd(each))) = large else { panic!("{large:?}") };
        assert!((36_893_488_140..=36_893_488_154).contains(&each), "{each}");
    }

    #[test]
    fn a_pilot_tells_what_a_job_has_cost_with_all_its_attempts() {
        let pilot = |unpriced| Batch {
            name: "trial".to_owned(),
            first_hour: chrono::DateTime::UNIX_EPOCH,
            last_hour: chrono::DateTime::UNIX_EPOCH,
            jobs: 12,
            succeeded: 9,
            failed: 1,
            cancelled: 0,
            attempts: 17,
            cost: NanoUsd(1_000_000),
            waste: NanoUsd::ZERO,
            uncertain: NanoUsd::ZERO,
            unpriced,
            paused: false,
            pause_reason: None,
            max_failed: None,
        };
        assert_eq!(like(&pilot(0), 2_000), Some(NanoUsd(200_000_000)));
        assert_eq!(like(&pilot(1), 2_000), None, "an unknown price is no price");
        let rung =
            RungEstimate { target: "a/m".to_owned(), jobs: 1, worst: Some(NanoUsd(9)), ..RungEstimate::default() };
        let sums = FileEstimate { jobs: 1, rungs: vec![rung], as_routed: None, stranded: 0 };
        let mut found = EstimateView { sums, pilot: Some(pilot(0)), history: None };
        let shown = serde_json::to_value(found.table()).unwrap();
        assert_eq!(shown[1]["target"], "as batch trial: 10 ended in 17 attempts");
        assert_eq!(shown[1]["worst_without_retries"], serde_json::Value::Null);
        found.history = Some(PastAnswers::default());
        let wider = found.table();
        assert_eq!(wider.columns.len(), 13);
        assert!(wider.rows.iter().chain(&wider.total).all(|row| row.len() == 13));
        assert!(shown[0]["worst_without_retries"].is_number() && shown[0].get("worst").is_none(), "{shown}");
    }
}
