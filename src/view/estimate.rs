//! The estimate of a file: what its jobs will cost, what a batch of their kind has cost, and what the ledger says of
//! the rungs.

use super::table::{Cell, Layout, Table};
use crate::domain::file_estimate::{FileEstimate, RungEstimate};
use crate::domain::lately::{CallsOfTarget, Lately};
use crate::domain::{ErrorClass, NanoUsd, PerAnswer, Spent};
use crate::store::batch::Batch;
use crate::store::report::{Grouping, Totals};
use std::collections::HashMap;
use std::time::Duration;

/// The estimate of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EstimateView {
    /// The sums of its jobs.
    pub sums: FileEstimate,
    /// What jobs of the route, or of a batch, have lately cost.
    pub lately: Option<Lately>,
    /// How long the jobs take at least by the configured limits: for each rung if all went there.
    pub at_least: Vec<Option<Duration>>,
    /// The same if each goes to its first choice.
    pub at_least_in_all: Option<Duration>,
    /// The answers that each rung gave before, with those that were accepted.
    pub history: Option<PastAnswers>,
}

impl EstimateView {
    /// A row for each rung, and one for each job at its first choice.
    #[must_use]
    pub fn table(&self) -> Table {
        let sums = &self.sums;
        let lately = self.lately.as_ref();
        let money = |amount: Option<NanoUsd>| amount.map_or(Cell::UnknownMoney, Cell::Money);
        // Nothing is known of the past where nothing was asked for.
        let past = |amount: Option<NanoUsd>| amount.map_or(Cell::Empty, Cell::Money);
        let mut table = Table::new([
            "rung",
            "target",
            "jobs",
            "first_choice",
            "too_large",
            "unsupported",
            "too_dear",
            "no_rung",
            "input_tokens",
            "output_tokens",
            "expected",
            "as_lately",
            "most",
            "at_least",
            "guessed",
        ])
        .laid_out(Layout {
            wide: &["rung"],
            when_told: &["too_large", "unsupported", "too_dear", "no_rung", "as_lately", "at_least", "guessed"],
            give_way: &[
                "history_answers",
                "history_accepted",
                "input_tokens",
                "output_tokens",
                "first_choice",
                "at_least",
                "guessed",
            ],
            prose: &["target", "guessed"],
        });
        if self.history.is_some() {
            table.columns.extend(["history_answers", "history_accepted", "expected_per_answer"]);
        }
        for (index, rung) in sums.rungs.iter().enumerate() {
            let seen = lately.and_then(|lately| lately.target(&rung.target));
            let cells = [
                Cell::Count(i64::try_from(index + 1).unwrap_or(i64::MAX)),
                rung.target.as_str().into(),
                rung.jobs.into(),
                rung.first_choice.into(),
                rung.too_large.into(),
                rung.unsupported.into(),
                rung.too_dear.into(),
                Cell::Empty,
                rung.input_tokens.into(),
                rung.output_tokens.into(),
                money(rung.expected_by(seen)),
                past(rung.as_lately(seen)),
                money(rung.most),
                time(self.at_least.get(index).copied().flatten()),
                rung.guessed(seen).join(", ").into(),
            ];
            table.row(cells.into_iter().chain(self.of_history(rung, seen)));
        }
        let nothing = self.history.iter().flat_map(|_| [const { Cell::Empty }; 3]);
        let as_lately = sums.as_lately(lately);
        let cells = [
            Cell::Empty,
            "each job to its first choice".into(),
            sums.jobs.into(),
            (sums.jobs - sums.stranded).into(),
            Cell::Empty,
            Cell::Empty,
            Cell::Empty,
            sums.stranded.into(),
            Cell::Empty,
            Cell::Empty,
            money(sums.expected(lately)),
            past(as_lately),
            money(sums.most),
            time(self.at_least_in_all),
            self.guessed(as_lately.is_some()).join(", ").into(),
        ];
        // A row like the others: programs are told it too.
        table.row(cells.into_iter().chain(nothing));
        table
    }

    /// The guesses in the likely path: those of each rung that is a first choice.
    fn guessed(&self, is_known: bool) -> Vec<&'static str> {
        let mut guessed: Vec<&'static str> = Vec::new();
        for rung in self.sums.rungs.iter().filter(|rung| rung.first_choice > 0) {
            let seen = self.lately.as_ref().and_then(|lately| lately.target(&rung.target));
            for what in rung.guessed(seen) {
                let is_told = guessed.contains(&what) || (is_known && what == "retries");
                if !is_told {
                    guessed.push(what);
                }
            }
        }
        guessed
    }

    /// What the ledger says of a rung: answers, those that were accepted, and what one of those would cost.
    fn of_history(&self, rung: &RungEstimate, lately: Option<&CallsOfTarget>) -> Vec<Cell> {
        let Some(history) = &self.history else { return Vec::new() };
        let seen = history.of(&rung.target);
        let each = seen.per_answer(rung.expected_by(lately), rung.jobs);
        vec![seen.answers.into(), seen.accepted.into(), each.into()]
    }
}

/// A time that need not be known to the second.
fn time(time: Option<Duration>) -> Cell {
    let Some(time) = time else { return Cell::Empty };
    let seconds = time.as_secs();
    let coarse = if seconds >= 7_200 { seconds / 60 * 60 } else { seconds };
    humantime::format_duration(Duration::from_secs(coarse)).to_string().into()
}

/// Jobs that succeeded or failed; cancelled ones do not show what a job costs.
#[must_use]
pub fn ended(pilot: &Batch) -> i64 {
    pilot.succeeded + pilot.failed
}

/// Answers of a rung from which on a share of them says something.
pub const ENOUGH: i64 = 20;

/// How the answers of each target fared.
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
            let [provider, model, class] = Self::BY.map(|part| row.keys.get(part).unwrap_or_default());
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
    use crate::store::report::Keys;

    #[test]
    fn answers_count_and_calls_without_an_answer_do_not() {
        let row = |keys: [&str; 3], attempts: i64| Totals {
            keys: Keys::of(&PastAnswers::BY, keys),
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
    fn columns_of_the_past_are_filled_from_enough_of_it_and_say_what_is_guessed() {
        let cost = |nanos: i64| Some(NanoUsd(nanos));
        let rung = RungEstimate {
            target: "a/m".to_owned(),
            jobs: 1_000,
            first_choice: 1_000,
            uncapped: 3,
            expected: cost(100_000),
            expected_first: cost(100_000),
            most: cost(900_000),
            ..RungEstimate::default()
        };
        let sums = FileEstimate {
            jobs: 1_000,
            rungs: vec![rung],
            as_routed: cost(100_000),
            most: cost(900_000),
            ..FileEstimate::default()
        };
        let shown = |view: &EstimateView| serde_json::to_value(view.table()).unwrap();
        let mut view =
            EstimateView { sums, at_least_in_all: Some(Duration::from_secs(7_290)), ..EstimateView::default() };
        let bare = shown(&view);
        assert_eq!((&bare[0]["as_lately"], &bare[0]["expected"]), (&serde_json::Value::Null, &0.000_1.into()));
        assert_eq!(bare[0]["guessed"], "tokens, length of answers, retries");
        let mut lately = Lately::default();
        let mut of = CallsOfTarget::default();
        for _ in 0..20 {
            lately.jobs.add(NanoUsd(100), NanoUsd(150));
            of.accepted.add(NanoUsd(100), NanoUsd(110));
        }
        (of.spent, of.spent_on_accepted, of.calls) = (NanoUsd(2_640), NanoUsd(2_200), 24);
        lately.targets.insert("a/m".to_owned(), of);
        view.lately = Some(lately);
        let taught = shown(&view);
        // What no rung can take is told of all of them together, and not as too large.
        view.sums.stranded = 5;
        let stranded = shown(&view);
        assert_eq!((&stranded[1]["no_rung"], &stranded[1]["too_large"]), (&5.into(), &serde_json::Value::Null));
        view.sums.stranded = 0;
        assert_eq!((&taught[0]["expected"], &taught[0]["as_lately"]), (&0.000_11.into(), &0.000_132.into()));
        assert_eq!((&taught[0]["guessed"], &taught[0]["most"]), (&"".into(), &0.000_9.into()));
        assert_eq!((&taught[1]["as_lately"], &taught[1]["at_least"]), (&0.000_15.into(), &"2h 1m".into()));
        view.lately.as_mut().unwrap().unpriced = 1;
        assert_eq!(shown(&view)[1]["as_lately"], serde_json::Value::Null, "an unknown price is no price");
        view.history = Some(PastAnswers::default());
        let wider = view.table();
        assert_eq!(wider.columns.len(), 18);
        assert!(wider.rows.iter().all(|row| row.len() == 18));
    }
}
