//! How long a commit of outcomes is waited for before they go to the disk: as long as tells a slow database from one
//! that is away.

use std::time::Duration;

/// How long the last commits took.
///
/// While a commit is waited for, only memory holds its outcomes, so the wait is short. On a machine that is merely busy
/// a commit takes as long as the ones before it, and writing all of it a second time would make the machine busier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitPace {
    took: [Duration; Self::KEPT],
    next: usize,
}

impl CommitPace {
    /// How many commits are remembered.
    const KEPT: usize = 8;
    /// How many times the slowest of them a commit may take.
    const TIMES: u32 = 4;
    /// The shortest wait: all that a worker knows when it starts.
    pub const LEAST: Duration = Duration::from_millis(500);
    /// The longest wait.
    pub const MOST: Duration = Duration::from_secs(3);

    /// How long the next commit is waited for, from [`Self::LEAST`] to [`Self::MOST`].
    #[must_use]
    pub fn patience(&self) -> Duration {
        let slowest = self.took.iter().max().copied().unwrap_or_default();
        slowest.saturating_mul(Self::TIMES).clamp(Self::LEAST, Self::MOST)
    }

    /// A commit that went through has taken so long.
    pub fn note(&mut self, took: Duration) {
        self.took[self.next] = took;
        self.next = (self.next + 1) % Self::KEPT;
    }
}

#[cfg(test)]
mod tests {
    use super::CommitPace;
    use proptest::prelude::*;
    use std::time::Duration;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_wait_follows_the_slowest_commit_of_late() {
        let mut pace = CommitPace::default();
        assert_eq!(pace.patience(), ms(500), "nothing is known");
        pace.note(ms(20));
        assert_eq!(pace.patience(), ms(500), "a quick database");
        pace.note(ms(400));
        assert_eq!(pace.patience(), ms(1600), "a busy one");
        pace.note(ms(1600));
        assert_eq!(pace.patience(), ms(3000), "no longer than that");
        for _ in 0..7 {
            pace.note(ms(30));
            assert_eq!(pace.patience(), ms(3000), "it was slow a moment ago");
        }
        pace.note(ms(30));
        assert_eq!(pace.patience(), ms(500), "that is over");
    }

    proptest! {
        #[test]
        fn a_commit_that_takes_as_long_as_the_ones_before_is_waited_for(
            took in 1u64..3000, noise in proptest::collection::vec(0u64..1000, 8),
        ) {
            let mut pace = CommitPace::default();
            pace.note(ms(took));
            for some in noise.iter().take(7) {
                pace.note(ms(*some));
            }
            prop_assert!(pace.patience() >= ms(took));
            prop_assert!((CommitPace::LEAST..=CommitPace::MOST).contains(&pace.patience()));
        }
    }
}
