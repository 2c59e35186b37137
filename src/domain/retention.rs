//! How long finished work is kept.

use std::time::Duration;

/// How long finished work is kept. Work that has not ended is never dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// A job that ended is kept at least this long, with its answer and its attempts.
    pub finished: Duration,
}

impl Retention {
    /// With a shorter time the queue would forget results that were not fetched yet, and begin a new partition every
    /// few minutes.
    pub const SHORTEST: Duration = Duration::from_hours(1);

    /// How long a partition is filled. A partition goes as a whole, once the last of its jobs is old enough. So jobs
    /// are kept longer than they have to be by at most the time in which a partition is filled: an eighth of the
    /// retention time. A job's partition is found by its number, and each statement looks into all partitions at worst:
    /// this rule leaves some dozen at once.
    #[must_use]
    pub fn partition_age(self) -> Duration {
        (self.finished / 8).max(Self::SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_filled_for_an_eighth_of_the_time_and_an_hour_at_least() {
        let age = |hours| Retention { finished: Duration::from_hours(hours) }.partition_age();
        assert_eq!(age(90 * 24), Duration::from_hours(270));
        assert_eq!(age(8), Duration::from_hours(1));
        assert_eq!(age(1), Duration::from_hours(1));
    }
}
