//! How many calls may run at once where nobody has said so.

use super::Timestamp;
use std::time::Duration;

/// Where a ramp begins: enough for a quick start, few enough that an unknown limit is met by dozens and not hundreds.
const FIRST: f64 = 16.0;
/// However well it goes.
const MOST: f64 = 100_000.0;
/// Refusals within this time are one event: they were all under way when the first came.
const ONE_EVENT: Duration = Duration::from_secs(1);

/// Feels for the limit of a provider that has none configured: doubles with each round of good calls, starts again
/// from one call after a refusal, and from half of what was too much goes on in single steps.
///
/// Guarantees: the limit is at least 1; a refusal never raises it; a call that passes never lowers it.
#[derive(Clone, Copy, Debug)]
pub struct Ramp {
    limit: f64,
    /// Up to here it doubles, from here it steps.
    threshold: f64,
    refused_at: Option<Timestamp>,
}

impl Default for Ramp {
    fn default() -> Self {
        Self { limit: FIRST, threshold: MOST, refused_at: None }
    }
}

impl Ramp {
    /// Calls that may run at once; at least 1.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 100,000")]
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// A call got through while so many were running. Only a limit that was made use of has proved itself.
    pub fn passed(&mut self, running: u32) {
        if f64::from(running) * 2.0 < self.limit {
            return;
        }
        let step = if self.limit < self.threshold { 1.0 } else { 1.0 / self.limit };
        self.limit = (self.limit + step).min(MOST);
    }

    /// The provider refused a call because there were too many.
    pub fn refused(&mut self, now: Timestamp) {
        if self.refused_at.is_some_and(|at| now < at + ONE_EVENT) {
            return;
        }
        self.refused_at = Some(now);
        self.threshold = (self.limit / 2.0).max(2.0);
        self.limit = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// So many rounds in which every allowed call passes.
    fn rounds(ramp: &mut Ramp, count: usize) -> Vec<u32> {
        (0..count)
            .map(|_| {
                let running = ramp.limit();
                (0..running).for_each(|_| ramp.passed(running));
                ramp.limit()
            })
            .collect()
    }

    #[test]
    fn it_doubles_until_it_is_refused_and_steps_from_half_of_that() {
        let mut ramp = Ramp::default();
        assert_eq!(rounds(&mut ramp, 5), [32, 64, 128, 256, 512]);
        ramp.refused(Timestamp(0));
        assert_eq!(ramp.limit(), 1);
        assert_eq!(rounds(&mut ramp, 8), [2, 4, 8, 16, 32, 64, 128, 256]);
        let stepping = rounds(&mut ramp, 3);
        assert!(stepping[2] > 256 && stepping[2] <= 260, "{stepping:?}");
    }

    #[test]
    fn refusals_that_come_together_count_once() {
        let mut ramp = Ramp::default();
        rounds(&mut ramp, 5);
        for millisecond in 0..900 {
            ramp.refused(Timestamp(millisecond));
        }
        rounds(&mut ramp, 8);
        assert_eq!(ramp.limit(), 256);
    }

    #[test]
    fn a_limit_that_nobody_uses_does_not_grow() {
        let mut ramp = Ramp::default();
        (0..1_000).for_each(|_| ramp.passed(3));
        assert_eq!(ramp.limit(), 16);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_is_never_below_one_and_moves_only_the_way_it_was_told(
            events in prop::collection::vec((any::<bool>(), 0_u32..1_000, 0_i64..5_000), 0..200),
        ) {
            let mut ramp = Ramp::default();
            let mut now = Timestamp(0);
            for (good, running, later) in events {
                now = now + Duration::from_millis(later.unsigned_abs());
                let before = ramp.limit();
                if good {
                    ramp.passed(running);
                    prop_assert!(ramp.limit() >= before && ramp.limit() <= before + 1);
                } else {
                    ramp.refused(now);
                    prop_assert!(ramp.limit() <= before);
                }
                prop_assert!(ramp.limit() >= 1);
            }
        }
    }
}
