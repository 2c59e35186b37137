//! How long a tier of spare capacity is left alone after it has refused calls.
//!
//! Spare capacity comes and goes by the second: one call is refused and the next one served. So single refusals concern
//! only their jobs. When there is none at all, asking on for every job would only cost time.
//!
//! Refusals come at once, and answers of spare capacity after minutes. So the refusals since the last answer are
//! compared with the calls under way, which have been let in as far as is known.

use std::time::Duration;

/// Fewer refusals in a row than this say nothing.
const MOST_IN_A_ROW: u32 = 10;

/// Refusals for each call that is under way, below which there is capacity for some: with fewer, it serves one call in
/// four or more.
const PER_CALL_UNDER_WAY: u32 = 3;

/// The first rest; it doubles with each further refusal.
const FIRST_REST: Duration = Duration::from_secs(1);

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// The refusals of one target since its last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scarcity {
    /// Refusals since the last answer.
    refusals: u32,
    /// Rests since the last answer.
    rests: u32,
}

impl Scarcity {
    /// A call was served.
    pub fn served(&mut self) {
        *self = Self::default();
    }

    /// A call was refused, with this wait if one was named, while so many others are under way. Returns how long the
    /// target rests because of it. A refusal of a call that was under way when the target began to rest (`is_resting`)
    /// says nothing new, unless it names a wait.
    pub fn refused(&mut self, wait: Option<Duration>, is_resting: bool, under_way: u32) -> Option<Duration> {
        self.refusals = self.refusals.saturating_add(1);
        if wait.is_some() {
            return wait;
        }
        if is_resting || self.refusals < MOST_IN_A_ROW || self.refusals < under_way.saturating_mul(PER_CALL_UNDER_WAY) {
            return None;
        }
        let factor = 1_u32.checked_shl(self.rests).unwrap_or(u32::MAX);
        self.rests = self.rests.saturating_add(1);
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
            (0..17).map(|_| scarcity.refused(None, false, 0).map(|rest| rest.as_secs())).collect();
        assert_eq!(rests[..9], [None; 9]);
        assert_eq!(rests[9..], [1, 2, 4, 8, 16, 32, 60, 60].map(Some));
        scarcity.served();
        assert_eq!(scarcity.refused(None, false, 0), None, "an answer ends it");
    }

    #[test]
    fn calls_that_are_under_way_are_let_in_as_far_as_is_known() {
        let mut burst = Scarcity::default();
        // A hundred calls at once, seven tenths of which are refused before the first answer comes.
        assert!((1..=70).all(|refused| burst.refused(None, false, 100 - refused).is_none()));
        // All of them: the pause begins when three quarters are refused.
        let mut none = Scarcity::default();
        let rests: Vec<u32> = (1..=100).filter(|refused| none.refused(None, false, 100 - refused).is_some()).collect();
        assert_eq!(rests.first(), Some(&75));
    }

    #[test]
    fn calls_that_were_under_way_when_it_began_to_rest_do_not_lengthen_the_rest() {
        let mut scarcity = Scarcity { refusals: 10, rests: 1 };
        for _ in 0..1_000 {
            assert_eq!(scarcity.refused(None, true, 0), None);
        }
        assert_eq!(scarcity.refused(None, false, 0), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_wait_that_is_named_is_kept() {
        let wait = Some(Duration::from_secs(90));
        assert_eq!(Scarcity::default().refused(wait, false, 9), wait);
        assert_eq!(Scarcity { refusals: 20, rests: 3 }.refused(wait, true, 0), wait);
        let most = Scarcity { refusals: u32::MAX, rests: u32::MAX };
        assert_eq!({ most }.refused(None, false, 0), Some(LONGEST_REST));
    }
}
