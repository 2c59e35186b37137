//! How long to wait after a failure.

use super::job::{JobId, spread};
use std::time::Duration;

/// The wait after the first failure, before jitter.
pub const FIRST: Duration = Duration::from_millis(500);

/// The longest wait.
pub const LONGEST: Duration = Duration::from_mins(1);

/// The wait after the `failures`th failure of a job (the first is 1): the curve, shortened by up to a half.
///
/// The jitter is a hash of job and number. The same job therefore always waits equally long, and jobs that failed
/// together do not come back together.
#[must_use]
pub fn delay(job: JobId, failures: u32) -> Duration {
    let full = curve(failures);
    let half = full / 2;
    let half_ms = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
    let seed = job.0.cast_unsigned() ^ u64::from(failures).rotate_left(40);
    half + Duration::from_millis(spread(seed).checked_rem(half_ms.saturating_add(1)).unwrap_or(0))
}

/// The wait without jitter: [`FIRST`], doubling, never above [`LONGEST`].
#[must_use]
pub fn curve(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1);
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    FIRST.saturating_mul(factor).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_curve_doubles_up_to_its_cap() {
        let ms: Vec<_> = (0..=9).map(|failures| curve(failures).as_millis()).collect();
        assert_eq!(ms, [500, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(curve(u32::MAX), LONGEST);
    }

    #[test]
    fn jobs_that_failed_together_come_back_spread_out() {
        let waits: std::collections::BTreeSet<_> = (0..1_000).map(|id| delay(JobId(id), 5)).collect();
        assert!(waits.len() > 700, "{} different waits", waits.len());
        let mean = waits.iter().sum::<Duration>() / u32::try_from(waits.len()).unwrap();
        assert!((5_800..6_200).contains(&mean.as_millis()), "{mean:?}");
    }

    proptest! {
        #[test]
        fn a_wait_is_between_half_the_curve_and_the_whole(id in any::<i64>(), failures in any::<u32>()) {
            let (wait, full) = (delay(JobId(id), failures), curve(failures));
            prop_assert!(full / 2 <= wait && wait <= full);
            prop_assert_eq!(wait, delay(JobId(id), failures));
        }
    }
}
