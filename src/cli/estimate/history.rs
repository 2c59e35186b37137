//! What the ledger says of a route's rungs: how many of their answers were accepted.

use crate::domain::{ErrorClass, NanoUsd, PerAnswer, Spent};
use crate::store::report::{Filter, Grouping, Moment, Totals};
use crate::store::{Store, StoreError};
use std::collections::HashMap;

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
    /// The answers to jobs of a route since then, from the sums.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn read(store: &Store, route: &str, since: Moment) -> Result<Self, StoreError> {
        let by = [Grouping::Provider, Grouping::Model, Grouping::Class];
        let filter = Filter { since: Some(since), route: Some(route.to_owned()), ..Filter::default() };
        Ok(Self::of_sums(store.totals(&by, &filter).await?))
    }

    fn of_sums(rows: Vec<Totals>) -> Self {
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
}
