//! A count of events in the last minute.

use crate::domain::Timestamp;
use serde::{Deserialize, Serialize};

const SLOT_MS: i64 = 10_000;

/// A count over the last minute, in steps of ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recent {
    /// The ten seconds that the last entry of `counts` stands for.
    slot: i64,
    /// The last seven steps, oldest first: six whole ones, and the current one.
    counts: [u64; 7],
}

impl Recent {
    fn turn_to(&mut self, now: Timestamp) {
        let slot = now.0.div_euclid(SLOT_MS);
        let steps = usize::try_from(slot.saturating_sub(self.slot)).unwrap_or(0).min(self.counts.len());
        let whole = self.counts.len();
        self.counts.rotate_left(steps % whole);
        for count in self.counts.iter_mut().rev().take(steps) {
            *count = 0;
        }
        self.slot = self.slot.max(slot);
    }

    /// Adds to the count, or takes back an excess.
    pub(super) fn add(&mut self, count: i64, now: Timestamp) {
        self.turn_to(now);
        if let Some(last) = self.counts.last_mut() {
            *last = last.saturating_add_signed(count);
        }
    }

    /// The last sixty seconds: the whole steps, and the part of the oldest that is not past yet.
    pub(super) fn last_minute(&self, now: Timestamp) -> u64 {
        let mut turned = self.clone();
        turned.turn_to(now);
        let into = u64::try_from(now.0.rem_euclid(SLOT_MS)).unwrap_or(0);
        let [oldest, rest @ ..] = turned.counts;
        let part = oldest.saturating_mul(SLOT_MS.unsigned_abs().saturating_sub(into)) / SLOT_MS.unsigned_abs();
        rest.iter().fold(part, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_a_minute_and_forgets_the_rest() {
        let mut recent = Recent::default();
        let at = |seconds: i64| Timestamp(1_800_000_000_000 + seconds * 1_000);
        for second in 0..120 {
            recent.add(20, at(second));
        }
        assert_eq!(recent.last_minute(at(120)), 1_200);
        assert_eq!(recent.last_minute(at(150)), 600);
        assert_eq!(recent.last_minute(at(500)), 0);
        recent.add(1, at(501));
        assert_eq!(recent.last_minute(at(502)), 1);
        // A clock that goes back breaks nothing.
        recent.add(1, at(100));
        assert_eq!(recent.last_minute(at(502)), 2);
    }
}
