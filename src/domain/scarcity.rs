//! How long a tier of spare capacity is left alone after it has refused calls.
//!
//! Spare capacity comes and goes by the second: one call is refused and the next one served. So single refusals
//! concern only their jobs. When none is served in between, there is none for any job, and asking on would
//! only cost time.

use std::time::Duration;

/// Refusals in a row after which the target rests. While half of the calls are served, a thousand calls have such a row
/// once in two times; where one in ten is served, soon.
const MOST_IN_A_ROW: u32 = 10;

/// The first rest; it doubles with each further refusal.
const FIRST_REST: Duration = Duration::from_secs(1);

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// The refusals of one target since its last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scarcity {
    refusals: u32,
}

impl Scarcity {
    /// A call was served.
    pub fn served(&mut self) {
        self.refusals = 0;
    }

    /// A call was refused, with this wait if one was named. Returns how long the target rests because of it. A refusal
    /// of a call that was under way when the target began to rest (`is_resting`) says nothing new, unless it names a
    /// wait.
    pub fn refused(&mut self, wait: Option<Duration>, is_resting: bool) -> Option<Duration> {
        if !is_resting {
            self.refusals = self.refusals.saturating_add(1);
        }
        if wait.is_some() {
            return wait;
        }
        let doublings = self.refusals.checked_sub(MOST_IN_A_ROW).filter(|_| !is_resting)?;
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        Some(FIRST_REST.saturating_mul(factor).min(LONGEST_REST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_rests_after_some_refusals_in_a_row_and_longer_with_each() {
        let mut scarcity = Scarcity::default();
        let rests: Vec<Option<u64>> =
            (0..17).map(|_| scarcity.refused(None, false).map(|rest| rest.as_secs())).collect();
        assert_eq!(rests[..9], [None; 9]);
        assert_eq!(rests[9..], [1, 2, 4, 8, 16, 32, 60, 60].map(Some));
        scarcity.served();
        assert_eq!(scarcity.refused(None, false), None, "an answer ends it");
    }

    #[test]
    fn calls_that_were_under_way_when_it_began_to_rest_do_not_lengthen_the_rest() {
        let mut scarcity = Scarcity { refusals: 10 };
        for _ in 0..1_000 {
            assert_eq!(scarcity.refused(None, true), None);
        }
        assert_eq!(scarcity.refused(None, false), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_wait_that_is_named_is_kept() {
        let wait = Some(Duration::from_secs(90));
        assert_eq!(Scarcity::default().refused(wait, false), wait);
        assert_eq!(Scarcity { refusals: 20 }.refused(wait, true), wait);
        assert_eq!(Scarcity { refusals: u32::MAX }.refused(None, false), Some(LONGEST_REST));
    }
}
