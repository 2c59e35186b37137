//! How long a target has lately taken for an answer, regardless of what limits its calls.

use super::tempo::{FRAME_TOKENS, Took};
use std::time::Duration;

/// The weight of the newest call in the mean.
const NEWEST: f64 = 1.0 / 8.0;
/// A call without an acceptable answer counts as this many times the usual time: the job has to ask again.
const IN_VAIN: f64 = 4.0;

/// The time that one target lately took per token of output: a geometric mean that follows along.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Logarithm of the milliseconds per token.
    mean: Option<f64>,
}

impl Latency {
    /// Learns from an accepted answer.
    pub fn answered(&mut self, took: Took) {
        self.add(per_token(took));
    }

    /// Learns from a call that brought no acceptable answer.
    pub fn in_vain(&mut self, took: Took) {
        let usual = self.mean.unwrap_or(f64::MIN);
        self.add(per_token(took).max(usual) + IN_VAIN.ln());
    }

    fn add(&mut self, value: f64) {
        self.mean = Some(self.mean.map_or(value, |mean| mean + (value - mean) * NEWEST));
    }

    /// How long an answer of this many tokens takes, as lately seen; `None`: no call has ended yet.
    #[must_use]
    pub fn expected(&self, output_tokens: u64) -> Option<Duration> {
        let tokens = f64::from(u32::try_from(output_tokens).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(self.mean?.exp() * (tokens + FRAME_TOKENS) / 1_000.0).ok()
    }
}

fn per_token(took: Took) -> f64 {
    let tokens = u32::try_from(took.output_tokens.max(0)).unwrap_or(u32::MAX);
    let millis = (took.time.as_secs_f64() * 1_000.0).max(1.0);
    (millis / (f64::from(tokens) + FRAME_TOKENS)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn took(millis: u64) -> Took {
        Took { time: Duration::from_millis(millis), output_tokens: 50 }
    }

    fn expected(latency: &Latency) -> u128 {
        latency.expected(50).unwrap().as_millis()
    }

    #[test]
    fn nothing_is_expected_before_the_first_call_and_its_time_after_it() {
        let mut latency = Latency::default();
        assert_eq!(latency.expected(50), None);
        latency.answered(took(800));
        assert!((799..=801).contains(&expected(&latency)), "{latency:?}");
        // An answer of three times as many tokens takes twice as long: the first token takes its time too.
        assert_eq!(latency.expected(150).unwrap().as_millis().div_ceil(10), 160);
    }

    #[test]
    fn it_follows_a_target_that_has_become_faster_or_slower() {
        let mut latency = Latency::default();
        for millis in [4_000, 500, 3_000] {
            for _ in 0..40 {
                latency.answered(took(millis));
            }
            let (now, millis) = (expected(&latency), u128::from(millis));
            assert!(now > millis * 9 / 10 && now < millis * 11 / 10, "{now} is not about {millis}");
        }
    }

    #[test]
    fn calls_in_vain_make_a_target_slow_however_soon_they_end() {
        let (mut failing, mut answering) = (Latency::default(), Latency::default());
        for round in 0..20 {
            answering.answered(took(1_000));
            if round % 2 == 0 { failing.answered(took(1_000)) } else { failing.in_vain(took(5)) }
        }
        assert!(expected(&failing) > expected(&answering) * 3 / 2, "{failing:?} {answering:?}");
        let mut never = Latency::default();
        never.in_vain(took(5));
        assert!(never.expected(50).is_some(), "a target that only fails is not unknown for ever");
    }

    proptest! {
        #[test]
        fn whatever_calls_take_a_time_is_expected(
            calls in prop::collection::vec((any::<u64>(), any::<i64>(), any::<bool>()), 1..50),
            tokens in any::<u64>(),
        ) {
            let mut latency = Latency::default();
            for (millis, output_tokens, is_answer) in calls {
                let took = Took { time: Duration::from_millis(millis), output_tokens };
                if is_answer { latency.answered(took) } else { latency.in_vain(took) }
            }
            prop_assert!(latency.mean.is_some_and(f64::is_finite));
            prop_assert!(latency.expected(tokens.min(1_000_000)).is_some() || latency.mean.unwrap() > 30.0);
        }
    }
}
