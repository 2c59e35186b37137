//! The typical job of a route: how much room the next job will probably need.

use super::estimate::USUAL_OUTPUT_TOKENS;

/// An input counts as at most this many times the mean: one huge prompt is not typical.
const MOST_FACTOR: i64 = 4;

/// Running sizes of a route's jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Typical {
    /// Estimated tokens of input, a running mean.
    input: i64,
    /// Running mean of the output caps of those jobs that have one.
    cap: i64,
    /// Which of the last eight jobs had a cap, one bit each.
    capped: u8,
}

impl Default for Typical {
    fn default() -> Self {
        Self { input: 200, cap: USUAL_OUTPUT_TOKENS, capped: 0 }
    }
}

impl Typical {
    /// Adds one job.
    pub fn see(&mut self, input: i64, cap: Option<i64>) {
        let mean = |old: i64, new: i64| {
            let new = new.clamp(0, old.max(1).saturating_mul(MOST_FACTOR));
            old.saturating_mul(7).saturating_add(new).saturating_add(7) / 8
        };
        self.input = mean(self.input, input);
        if let Some(cap) = cap {
            self.cap = mean(self.cap, cap);
        }
        self.capped = self.capped << 1 | u8::from(cap.is_some());
    }

    /// Estimated tokens of input of a usual job.
    #[must_use]
    pub const fn input(&self) -> i64 {
        self.input
    }

    /// The output cap of a usual job, if most jobs have one.
    #[must_use]
    pub fn cap(&self) -> Option<i64> {
        (self.capped.count_ones() >= 4).then_some(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_it_sees_and_one_giant_hardly_moves_it() {
        let mut typical = Typical::default();
        for _ in 0..60 {
            typical.see(1_000, Some(50));
        }
        assert!((950..=1_010).contains(&typical.input()), "{typical:?}");
        assert!(typical.cap().is_some_and(|cap| (50..=60).contains(&cap)), "{typical:?}");
        typical.see(i64::MAX, None);
        assert!(typical.input() <= 1_400, "{typical:?}");
        for _ in 0..5 {
            typical.see(1_000, None);
        }
        assert_eq!(typical.cap(), None);
    }
}
