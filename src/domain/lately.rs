//! What jobs of a route have lately cost, beside what they were expected to cost: how an estimate is corrected.
//!
//! A past job counts twice: as one more job, and by its expected cost. So a file whose prompts are longer than those of
//! the past is not taken for cheap, and one with shorter prompts not for dear.

use super::NanoUsd;
use std::collections::BTreeMap;

/// How many jobs or answers are enough to say something.
pub const ENOUGH: u64 = 20;

/// The expected and the actual amount of something: a line through pairs of amounts.
///
/// Each pair weighs the less the larger it is, as the cost of a large job is off by more than that of a small one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fit {
    pairs: u64,
    weight: f64,
    expected: f64,
    came_to: f64,
    squares: f64,
    products: f64,
}

impl Fit {
    /// Adds a pair.
    #[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 15 digits")]
    pub fn add(&mut self, expected: NanoUsd, came_to: NanoUsd) {
        let (x, y) = (expected.0.max(1) as f64, came_to.0.max(0) as f64);
        let weight = 1.0 / x;
        self.pairs += 1;
        self.weight += weight;
        self.expected += weight * x;
        self.came_to += weight * y;
        self.squares += weight * x * x;
        self.products += weight * x * y;
    }

    /// How many pairs it has.
    #[must_use]
    pub const fn pairs(&self) -> u64 {
        self.pairs
    }

    /// What so many things are likely to come to that are expected to cost so much together; `None`: too few pairs.
    ///
    /// The line has no negative end, and never falls: where the pairs say that more of the expected costs less, the
    /// average holds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 15 digits")]
    pub fn of(&self, things: u64, expected: NanoUsd) -> Option<NanoUsd> {
        if self.pairs < ENOUGH {
            return None;
        }
        let (base, slope) = self.line();
        Some(nanos(base * things as f64 + slope * expected.0.max(0) as f64))
    }

    /// What every thing costs, and what it costs of each dollar that was expected.
    fn line(&self) -> (f64, f64) {
        let spread = self.weight * self.squares - self.expected * self.expected;
        // All pairs were expected to cost about the same: they say nothing of how the cost grows with that.
        let is_flat = spread <= 1e-9 * self.weight * self.squares;
        let ratio = (0.0, self.came_to / self.expected);
        if is_flat {
            return ratio;
        }
        let slope = (self.weight * self.products - self.expected * self.came_to) / spread;
        let base = (self.came_to - slope * self.expected) / self.weight;
        match (base < 0.0, slope < 0.0) {
            (true, _) => ratio,
            (_, true) => (self.came_to / self.weight, 0.0),
            _ => (base, slope),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the amount saturates")]
fn nanos(amount: f64) -> NanoUsd {
    NanoUsd(amount.round() as i64)
}

/// What calls to one target have lately cost and brought.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CallsOfTarget {
    /// Answers that were accepted: what one call was expected to cost, and what it cost.
    pub accepted: Fit,
    /// Calls of every outcome that had an answer, accepted or rejected.
    pub answers: u64,
    /// Calls of every outcome.
    pub calls: u64,
    /// All money that was spent on it.
    pub spent: NanoUsd,
    /// The part of it that was spent on accepted answers.
    pub spent_on_accepted: NanoUsd,
    /// Tokens of the accepted answers.
    pub output_tokens: i64,
    /// Milliseconds that all calls took.
    pub millis: i64,
}

impl CallsOfTarget {
    /// What one accepted answer costs for each dollar of its own call, in thousandths; `None`: too few were accepted.
    #[must_use]
    pub fn markup(&self) -> Option<i128> {
        if self.accepted.pairs() < ENOUGH || self.spent_on_accepted.0 <= 0 {
            return None;
        }
        Some(i128::from(self.spent.0) * 1_000 / i128::from(self.spent_on_accepted.0))
    }

    /// Milliseconds that a call takes on average.
    #[must_use]
    pub fn mean_millis(&self) -> Option<i64> {
        self.millis.checked_div(i64::try_from(self.calls).ok()?)
    }

    /// Tokens of an accepted answer on average; `None`: too few were accepted.
    #[must_use]
    pub fn mean_output(&self) -> Option<i64> {
        if self.accepted.pairs() < ENOUGH {
            return None;
        }
        self.output_tokens.checked_div(i64::try_from(self.accepted.pairs()).ok()?)
    }

    /// Calls for each accepted answer, in thousandths; `None`: too few were accepted.
    #[must_use]
    pub fn calls_each(&self) -> Option<u64> {
        (self.accepted.pairs() >= ENOUGH).then(|| self.calls.saturating_mul(1_000) / self.accepted.pairs())
    }
}

/// What the jobs of a route have lately cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lately {
    /// Jobs that have ended: what their first choice was expected to cost, and what all their calls cost.
    pub jobs: Fit,
    /// Jobs of the sample, those of unknown cost included.
    pub seen: u64,
    /// Jobs of the sample whose cost is unknown.
    pub unpriced: u64,
    /// By target.
    pub targets: BTreeMap<String, CallsOfTarget>,
}

impl Lately {
    /// What so many jobs are likely to come to, retries and fallbacks included, that are expected to cost so much if
    /// each has one call to its first choice; `None`: too few jobs have ended, or the price of some is unknown.
    #[must_use]
    pub fn of(&self, jobs: u64, expected: Option<NanoUsd>) -> Option<NanoUsd> {
        if self.unpriced > 0 {
            return None;
        }
        self.jobs.of(jobs, expected?)
    }

    /// Forgets what jobs cost, and keeps what calls did: for jobs that had no choice of a rung.
    pub fn forget_jobs(&mut self) {
        self.jobs = Fit::default();
    }

    /// The calls of a target, where they are known.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&CallsOfTarget> {
        self.targets.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_jobs_that_had_no_choice_only_the_calls_are_learned() {
        let mut lately = Lately::default();
        let target = lately.targets.entry("p/m".to_owned()).or_default();
        for _ in 0..ENOUGH {
            lately.jobs.add(NanoUsd(100), NanoUsd(900));
            target.accepted.add(NanoUsd(100), NanoUsd(120));
        }
        assert!(lately.of(10, Some(NanoUsd(1_000))).is_some());
        lately.forget_jobs();
        assert_eq!(lately.of(10, Some(NanoUsd(1_000))), None);
        let calls = lately.target("p/m").map(|target| target.accepted.of(10, NanoUsd(1_000)));
        assert_eq!(calls, Some(Some(NanoUsd(1_200))));
    }
    use proptest::prelude::{prop_assert, proptest};

    fn fit(pairs: impl Iterator<Item = (i64, i64)>) -> Fit {
        let mut fit = Fit::default();
        pairs.for_each(|(x, y)| fit.add(NanoUsd(x), NanoUsd(y)));
        fit
    }

    #[test]
    fn a_line_is_followed_beyond_what_was_seen() {
        // Every job costs 1,000, and three times the expected amount on top.
        let seen = fit((1..=40).map(|x| (x * 100, 1_000 + 3 * x * 100)));
        assert_eq!(seen.of(10, NanoUsd(1_000_000)), Some(NanoUsd(10 * 1_000 + 3_000_000)));
    }

    #[test]
    fn of_equal_jobs_and_of_odd_ones_the_proportion_or_the_average_is_told() {
        let equal = fit((0..30).map(|_| (100, 250)));
        assert_eq!(equal.of(2, NanoUsd(200)), Some(NanoUsd(500)));
        assert_eq!(equal.of(2, NanoUsd(2_000)), Some(NanoUsd(5_000)));
        // The larger, the cheaper: no line that becomes negative.
        let falling = fit((1..=30).map(|x| (x * 100, 4_000 - x * 100)));
        assert!(falling.of(10, NanoUsd(1_000_000)).unwrap() <= NanoUsd(40_000));
        // A line that would begin below zero.
        let steep = fit((1..=30).map(|x| (x * 100, (x * x) * 100)));
        assert!(steep.of(1, NanoUsd(1)).unwrap() >= NanoUsd::ZERO);
        assert_eq!(fit((0..19).map(|_| (100, 250))).of(2, NanoUsd(200)), None);
    }

    proptest! {
        #[test]
        fn an_estimate_is_never_negative(
            pairs in proptest::collection::vec((proptest::num::i64::ANY, proptest::num::i64::ANY), 20..40),
            things in 0_u64..1_000_000,
            expected in proptest::num::i64::ANY,
        ) {
            let found = fit(pairs.into_iter()).of(things, NanoUsd(expected));
            prop_assert!(found.is_some_and(|found| found >= NanoUsd::ZERO), "{found:?}");
        }
    }
}
