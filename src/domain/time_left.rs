//! How long the rest of a batch takes at least, by the limits of the targets that it has used so far.
//!
//! The pace of the last half minute may be that of a burst, which ends; limits go on. So the longer of the two is told.

use super::Unit;
use super::shared_bucket::BucketStanding;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a batch has taken from one bucket so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenSoFar {
    pub calls: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
}

impl TakenSoFar {
    /// Adds what was taken through another target of the bucket.
    pub fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
    }

    fn of(&self, unit: Unit) -> i64 {
        match unit {
            Unit::Requests => self.calls,
            Unit::InputTokens => self.input_tokens,
            Unit::OutputTokens => self.output_tokens,
            Unit::Tokens => self.input_tokens.saturating_add(self.output_tokens),
        }
    }
}

/// How long `unfinished` jobs take at least if each takes from every bucket as much as the `done` ones have on average,
/// and nothing else takes from them; `None`: no limit is known, or no job is done.
#[must_use]
pub fn by_limits(
    done: i64,
    unfinished: i64,
    taken: &BTreeMap<String, TakenSoFar>,
    buckets: &BTreeMap<String, BucketStanding>,
) -> Option<Duration> {
    let limits = taken.iter().filter_map(|(name, taken)| Some((taken, buckets.get(name)?)));
    let limits = limits.flat_map(|(taken, bucket)| bucket.limits.iter().map(move |limit| (taken, limit)));
    let seconds = limits.filter(|(_, limit)| limit.amount > 0 && done > 0).map(|(taken, limit)| {
        let leased = limit.leased.values().fold(0_u64, |sum, held| sum.saturating_add(*held));
        let there = i128::from(limit.level).saturating_add(i128::from(leased));
        let need = i128::from(taken.of(limit.unit)).saturating_mul(i128::from(unfinished)) / i128::from(done);
        let short = need.saturating_sub(there).max(0).saturating_mul(i128::from(limit.per_seconds));
        u64::try_from(short / i128::from(limit.amount)).unwrap_or(u64::MAX)
    });
    seconds.max().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::Dimension;
    use crate::domain::shared_bucket::{Report, SharedBucket, Stock};
    use crate::domain::{Limits, Rate, Timestamp};

    /// 600 requests a minute with a burst of 100, of which one is held back.
    fn bucket() -> BucketStanding {
        let rate = Rate { unit: Unit::Requests, amount: 600, per: Duration::from_mins(1), burst: 100 };
        let limits = Limits { rates: vec![rate], concurrency: None };
        let stock = Stock {
            dimension: Dimension { unit: Unit::Requests, seconds: 60 },
            epoch: 0,
            left: 0,
            quiet: Duration::ZERO,
            refund: 0,
            refund_age: Duration::ZERO,
            need: 0,
            want: 50,
        };
        let mut bucket = SharedBucket::default();
        bucket.exchange(1, &limits, &Report { stocks: vec![stock], ..Report::default() }, Timestamp(0));
        bucket.standing(Timestamp(0))
    }

    fn left(done: i64, unfinished: i64, taken: TakenSoFar) -> Option<u64> {
        let taken = BTreeMap::from([("one".to_owned(), taken)]);
        by_limits(done, unfinished, &taken, &BTreeMap::from([("one".to_owned(), bucket())])).map(|time| time.as_secs())
    }

    #[test]
    fn the_burst_is_used_once_and_the_rest_comes_at_the_rate() {
        let one_each = TakenSoFar { calls: 100, ..TakenSoFar::default() };
        // 99 are there, lent or not, and 10 come back each second.
        assert_eq!(left(100, 99, one_each), Some(0));
        assert_eq!(left(100, 1099, one_each), Some(100));
        let two_each = TakenSoFar { calls: 200, ..TakenSoFar::default() };
        assert_eq!(left(100, 1099, two_each), Some(209));
    }

    #[test]
    fn without_a_job_or_a_limit_nothing_is_known() {
        assert_eq!(left(0, 1000, TakenSoFar { calls: 5, ..TakenSoFar::default() }), None);
        assert_eq!(
            by_limits(5, 5, &BTreeMap::from([("other".to_owned(), TakenSoFar::default())]), &BTreeMap::new()),
            None
        );
        // Tokens are no requests.
        let tokens = TakenSoFar { input_tokens: i64::MAX, output_tokens: i64::MAX, ..TakenSoFar::default() };
        assert_eq!(left(1, i64::MAX, tokens), Some(0));
        assert_eq!(left(1, i64::MAX, TakenSoFar { calls: i64::MAX, ..TakenSoFar::default() }), Some(u64::MAX));
    }
}
