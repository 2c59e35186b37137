//! Learns from a target's reports how to correct estimates: how many tokens an estimated token of input really is, and
//! how long the target's answers usually are.
//!
//! Both are running figures over the last dozens of calls. They are bounded, and a single report that makes no sense
//! moves them by little: providers do send such reports. All numbers are whole, so that the same reports in the same
//! order give the same figures everywhere.

use super::Usage;
use super::estimate::USUAL_OUTPUT_TOKENS;

/// Sums and means are kept in parts of a token.
const SCALE: u64 = 1024;
/// About how many calls are remembered.
const MEMORY: u64 = 64;
/// The actual size is believed to be at most this many times the estimate, and at least one part in this many of it.
const MOST_FACTOR: u64 = 4;
/// Before anything is known the estimate is taken to be right, with the weight of this many tokens.
const PRIOR_TOKENS: u64 = 32;
/// A correction holds for requests up to this many times the usual size. The part of a larger request beyond that
/// counts as estimated: small requests are more frame than text, and their error says little of a long text.
const REACH: u64 = 4;
/// How many reports count as the first, which are believed more readily.
const FIRST: u64 = 16;
/// The largest number of tokens that is counted, so that sums cannot overflow.
const MOST_TOKENS: u64 = 1 << 32;
/// An answer counts as at most this many times the high mark of answers.
const MOST_OUTPUT_FACTOR: u64 = 4;
/// One answer in this many is above the high mark of answers.
const LONG_ONE_IN: u64 = 10;
/// One request in this many is above the high mark of ratios.
const DENSE_ONE_IN: u64 = 200;

/// The figures learned from one target's reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// Input as estimated and as reported, each a decaying sum in parts of a token.
    estimated: u64,
    reported: u64,
    /// The requests in these sums, decaying as they do.
    requests: u64,
    /// The most that one estimated token has come to, but for a few requests; in parts of a token.
    densest: u64,
    /// Running mean of output, and the mark that nine of ten answers stay below; in parts of a token.
    output_mean: u64,
    output_high: u64,
    /// How many reports it has learned from.
    samples: u64,
    outputs: u64,
}

impl Default for Calibration {
    fn default() -> Self {
        let usual = USUAL_OUTPUT_TOKENS.unsigned_abs().saturating_mul(SCALE);
        Self {
            estimated: PRIOR_TOKENS * SCALE,
            reported: PRIOR_TOKENS * SCALE,
            requests: SCALE,
            densest: SCALE,
            output_mean: usual,
            output_high: usual,
            samples: 0,
            outputs: 0,
        }
    }
}

impl Calibration {
    /// Learns from the report of one answer: `estimated_input` is the estimate without this calibration, `cap` the
    /// output cap that the request set.
    pub fn learn(&mut self, estimated_input: i64, cap: Option<i64>, usage: &Usage) {
        let tokens = |count: i64| u64::try_from(count).unwrap_or(0).min(MOST_TOKENS);
        let (estimated, reported) = (tokens(estimated_input), tokens(usage.total_input()));
        if estimated > 0 && reported > 0 {
            self.learn_input(estimated, reported);
        }
        if usage.output > 0 {
            self.learn_output(tokens(usage.output), cap.map(tokens));
        }
    }

    fn learn_input(&mut self, estimated: u64, reported: u64) {
        // No more than twice or half of the expected number, and within the bounds.
        let expected = self.scaled(estimated);
        let least = (expected / 2).max(estimated / MOST_FACTOR).max(1);
        let most = expected.saturating_mul(2).min(estimated.saturating_mul(MOST_FACTOR)).max(least);
        let reported = reported.clamp(least, most);
        // One call weighs no more than a quarter of all before it; the first ones, which have little before them, as
        // much as all of it.
        let most = if self.samples < FIRST { self.estimated } else { self.estimated / 4 };
        let weight = estimated.saturating_mul(SCALE).min(most);
        let counted = share(weight, reported, estimated);
        self.estimated = decayed(self.estimated).saturating_add(weight);
        self.reported = decayed(self.reported).saturating_add(counted);
        self.requests = decayed(self.requests).saturating_add(SCALE);
        self.densest =
            marked(self.densest, share(SCALE, reported, estimated), DENSE_ONE_IN, 32 * MEMORY).min(MOST_FACTOR * SCALE);
        self.samples = self.samples.saturating_add(1);
    }

    fn learn_output(&mut self, output: u64, cap: Option<u64>) {
        let output = output.saturating_mul(SCALE);
        let is_cut = cap.is_some_and(|cap| output >= cap.saturating_mul(SCALE));
        if is_cut && output <= self.output_mean {
            // Its cap ended it. The estimate already said that it would have been longer.
            return;
        }
        let believed = output.min(self.output_high.saturating_mul(MOST_OUTPUT_FACTOR));
        let weight = self.outputs.saturating_add(2).min(MEMORY);
        self.output_mean = if believed >= self.output_mean {
            self.output_mean.saturating_add((believed - self.output_mean) / weight)
        } else {
            self.output_mean.saturating_sub((self.output_mean - believed) / weight)
        };
        self.output_high = marked(self.output_high, believed, LONG_ONE_IN, MEMORY);
        self.outputs = self.outputs.saturating_add(1);
    }

    /// The tokens of input that an estimate really stands for, at least 1.
    #[must_use]
    pub fn input(&self, estimate: i64) -> u64 {
        self.scaled(u64::try_from(estimate).unwrap_or(0)).max(1)
    }

    /// The tokens of input that an estimate stands for at most, but for one request in some two hundred; at least 1.
    ///
    /// This is the amount to hold back before a call: a bucket that is used to its last drop has no room for all the
    /// requests that turn out larger than expected. The excess comes back with the report.
    #[must_use]
    pub fn input_at_most(&self, estimate: i64) -> u64 {
        let estimate = u64::try_from(estimate).unwrap_or(0);
        let known = estimate.min(self.reach());
        let dense = share(known, self.densest, SCALE).saturating_add(estimate - known);
        dense.max(self.scaled(estimate)).max(1)
    }

    /// The tokens of output to expect of a request with this cap, at least 1.
    #[must_use]
    pub fn expected_output(&self, cap: Option<u64>) -> u64 {
        let mean = self.output_mean.div_ceil(SCALE);
        cap.map_or(mean, |cap| cap.min(mean)).max(1)
    }

    /// Tokens of input that were reported for every thousand estimated.
    #[must_use]
    pub fn reported_per_thousand(&self) -> u64 {
        share(1000, self.reported, self.estimated)
    }

    /// The tokens of output that nine of ten answers stay below.
    #[must_use]
    pub const fn high_output(&self) -> u64 {
        self.output_high.div_ceil(SCALE)
    }

    /// How many reports it has learned from.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    fn scaled(&self, estimate: u64) -> u64 {
        let known = estimate.min(self.reach());
        share(known, self.reported, self.estimated).saturating_add(estimate - known)
    }

    /// The largest estimate for which the correction holds in full.
    fn reach(&self) -> u64 {
        share(self.estimated, REACH, self.requests).max(1)
    }
}

/// `amount` × `part` / `whole`, rounded to the nearest.
fn share(amount: u64, part: u64, whole: u64) -> u64 {
    let whole = u128::from(whole.max(1));
    let product = u128::from(amount).saturating_mul(u128::from(part)).saturating_add(whole / 2);
    u64::try_from(product.checked_div(whole).unwrap_or(0)).unwrap_or(u64::MAX)
}

/// A mark that one value in `one_in` exceeds, after one more value: up by `one_in` less one steps for a value above it,
/// down by one step for a value below it, though not below that value. A step is one part in `steps` of the mark.
fn marked(mark: u64, value: u64, one_in: u64, steps: u64) -> u64 {
    let step = (mark / steps.max(1)).max(1);
    if value > mark {
        mark.saturating_add(step.saturating_mul(one_in.saturating_sub(1)))
    } else {
        mark.saturating_sub(step).max(value)
    }
}

const fn decayed(sum: u64) -> u64 {
    sum - sum / MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usage(input: i64, output: i64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    fn after(reports: impl IntoIterator<Item = (i64, i64)>) -> Calibration {
        let mut calibration = Calibration::default();
        for (estimated, reported) in reports {
            calibration.learn(estimated, None, &usage(reported, 0));
        }
        calibration
    }

    fn after_outputs(outputs: impl IntoIterator<Item = (i64, Option<i64>)>) -> Calibration {
        let mut calibration = Calibration::default();
        for (output, cap) in outputs {
            calibration.learn(0, cap, &usage(0, output));
        }
        calibration
    }

    #[test]
    fn before_anything_is_known_an_estimate_is_taken_as_it_is() {
        let fresh = Calibration::default();
        assert_eq!((fresh.input(777), fresh.input(0), fresh.input(-5), fresh.samples()), (777, 1, 1, 0));
        assert_eq!((fresh.expected_output(None), fresh.expected_output(Some(10))), (500, 10));
    }

    #[test]
    fn thirty_reports_are_enough_to_know_a_ratio() {
        for (estimated, reported) in [(1_000, 700), (20, 15), (1_000_000, 1_400_000), (50, 200)] {
            let found = after([(estimated, reported); 30]).input(estimated);
            let expected = u64::try_from(reported).unwrap();
            assert!(found.abs_diff(expected) <= expected / 20, "{estimated}: {found} instead of {reported}");
        }
    }

    #[test]
    fn small_and_large_requests_together_are_right_in_the_sum() {
        // Twenty tokens too much in each, regardless of its size: learning makes the sum right, not each estimate.
        let sizes = [40_i64, 120, 400, 1_200].repeat(50);
        let calibration = after(sizes.iter().map(|&size| (size + 20, size)));
        let sum: u64 = sizes.iter().map(|&size| calibration.input(size + 20)).sum();
        let expected = u64::try_from(sizes.iter().sum::<i64>()).unwrap();
        assert!(sum.abs_diff(expected) <= expected / 33, "{sum} instead of {expected}");
    }

    #[test]
    fn small_requests_teach_little_of_large_ones() {
        let calibration = after([(20, 12); 100]);
        assert_eq!(calibration.input(20), 12);
        assert!((1_960..=2_000).contains(&calibration.input(2_000)), "{}", calibration.input(2_000));
    }

    #[test]
    fn what_is_held_back_is_enough_for_nearly_all() {
        // From 0.6 to 1.1 tokens for each that was estimated, in no order.
        let reports = |n: i64| (1_000, 600 + n * 617 % 500);
        let mut calibration = after((0..200).map(reports));
        let mut short = 0;
        for n in 200..1_200 {
            let (estimated, reported) = reports(n);
            short += usize::from(calibration.input_at_most(estimated) < reported.unsigned_abs());
            calibration.learn(estimated, None, &usage(reported, 0));
        }
        assert!((1..=20).contains(&short), "{short} of a thousand were larger");
        assert!(calibration.input_at_most(1_000) <= 1_210, "{}", calibration.input_at_most(1_000));
    }

    #[test]
    fn answers_that_grow_longer_are_followed_up_and_down() {
        let long = after_outputs([(20_000, None); 200]);
        assert!(long.expected_output(None) >= 19_000, "{long:?}");
        let mut short = long;
        for _ in 0..600 {
            short.learn(0, None, &usage(0, 40));
        }
        assert!((40..=60).contains(&short.expected_output(None)), "{short:?}");
    }

    #[test]
    fn an_answer_that_its_cap_cut_teaches_only_that_answers_are_that_long() {
        let calibration = after_outputs([(1_000, None); 100]);
        let mut cut = calibration;
        cut.learn(0, Some(10), &usage(0, 10));
        assert_eq!(cut, calibration);
        for _ in 0..100 {
            cut.learn(0, Some(2_000), &usage(0, 2_000));
        }
        assert!(cut.expected_output(None) > 1_500, "{cut:?}");
        assert_eq!(cut.expected_output(Some(64)), 64);
    }

    #[test]
    fn the_high_mark_is_above_nine_answers_of_ten() {
        // A sequence without a pattern: multiples of a number that shares no factor with the length.
        let outputs: Vec<i64> = (0..2_000_i64).map(|n| 1 + n * 617 % 1_000).collect();
        let high = after_outputs(outputs.iter().map(|&output| (output, None))).high_output();
        assert!((800..=980).contains(&high), "{high}");
    }

    proptest! {
        #[test]
        fn whatever_is_reported_an_estimate_stays_within_a_factor_of_four(
            reports in prop::collection::vec((any::<i64>(), any::<i64>()), 0..300), estimate in 1..1_000_000_i64,
        ) {
            let found = after(reports).input(estimate);
            let estimate = estimate.unsigned_abs();
            prop_assert!(found >= (estimate / 4).saturating_sub(estimate / 64).max(1), "{found} for {estimate}");
            prop_assert!(found <= estimate * 4 + estimate / 64 + 1, "{found} for {estimate}");
        }

        #[test]
        fn one_report_moves_an_estimate_by_a_factor_of_two_at_most(
            reports in prop::collection::vec((1..100_000_i64, 1..100_000_i64), 0..200),
            wild in (1..i64::MAX, 0..i64::MAX),
        ) {
            let before = after(reports);
            let mut later = before;
            later.learn(wild.0, None, &usage(wild.1, 0));
            let (old, new) = (before.input(1_000_000), later.input(1_000_000));
            prop_assert!(new <= old * 2 && new >= old / 2, "{old}, then {new}");
        }

        #[test]
        fn one_answer_in_twenty_with_nonsense_does_not_spoil_what_the_others_teach(
            size in 50..5_000_i64, percent in 60..160_i64, factor in 10..1_000_i64,
        ) {
            let reported = size * percent / 100;
            let calibration = after((0..400).map(|n| (size, if n % 20 == 7 { reported * factor } else { reported })));
            let (found, expected) = (calibration.input(size), reported.unsigned_abs());
            prop_assert!(found.abs_diff(expected) <= expected / 8 + 1, "{found} instead of {expected}");
        }

        #[test]
        fn expected_output_stays_between_the_shortest_and_the_longest_answer(
            outputs in prop::collection::vec(1..50_000_i64, 100..300),
        ) {
            let calibration = after_outputs(outputs.iter().map(|&output| (output, None)));
            let expected = calibration.expected_output(None);
            let least = outputs.iter().min().unwrap().unsigned_abs();
            let most = outputs.iter().max().unwrap().unsigned_abs();
            // The first guess fades with the square of the number of answers.
            prop_assert!(expected + 1 >= least.min(480) && expected <= most.max(520), "{expected}: {least} to {most}");
        }

        #[test]
        fn a_larger_estimate_never_stands_for_less(
            reports in prop::collection::vec((1..100_000_i64, 1..100_000_i64), 0..50),
            one in any::<i64>(), other in any::<i64>(),
        ) {
            let calibration = after(reports);
            let (small, large) = (one.min(other), one.max(other));
            prop_assert!(calibration.input(small) <= calibration.input(large));
            prop_assert!(calibration.input_at_most(small) <= calibration.input_at_most(large));
            prop_assert!(calibration.input(small) <= calibration.input_at_most(small));
        }
    }
}
