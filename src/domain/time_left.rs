//! How long the rest of a batch takes at least, by the limits of the targets that it has used so far.
//!
//! The pace of the last half minute may be that of a burst, which ends; limits go on. So the longer of the two is told.

use super::shared_bucket::BucketStanding;
use super::{Limits, Unit};
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
    /// Adds the units taken through another target of the bucket.
    pub fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
    }

    fn of(&self, unit: Unit) -> i64 {
        match unit {
            Unit::Requests => self.calls,
            // How many inputs calls had is not on the ledger.
            Unit::Inputs => 0,
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

/// How long calls take at least that need so much together, by configured limits; `millis` is what one call takes,
/// where that is known. `None`: no limit says anything.
#[must_use]
pub fn by_configuration(need: &TakenSoFar, millis: Option<i64>, limits: &Limits) -> Option<Duration> {
    let rates = limits.rates.iter().map(|rate| {
        let short = u128::try_from(need.of(rate.unit)).unwrap_or(0).saturating_sub(u128::from(rate.burst));
        let millis = short.saturating_mul(rate.per.as_millis()).checked_div(u128::from(rate.amount)).unwrap_or(0);
        u64::try_from(millis).unwrap_or(u64::MAX)
    });
    let at_once = limits.concurrency.zip(millis).map(|(places, millis)| {
        let work = need.calls.saturating_mul(millis);
        u64::try_from(work).unwrap_or(0).checked_div(u64::from(places)).unwrap_or(0)
    });
    rates.chain(at_once).max().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::Dimension;
    use crate::domain::shared_bucket::{Report, SharedBucket, Stock};
    use crate::domain::{Rate, Timestamp};

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
            waiting: 0,
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
    fn configured_limits_tell_the_slowest_of_them() {
        let rate = |unit, amount| Rate { unit, amount, per: Duration::from_mins(1), burst: 100 };
        let need = TakenSoFar { calls: 700, input_tokens: 5_000, output_tokens: 5_000 };
        let limits = |rates: Vec<Rate>, concurrency| Limits { rates, concurrency };
        let seconds = |millis, limits| by_configuration(&need, millis, &limits).map(|time| time.as_secs());
        assert_eq!(seconds(None, limits(vec![rate(Unit::Requests, 600)], None)), Some(60));
        let both = vec![rate(Unit::Requests, 600), rate(Unit::Tokens, 1_000)];
        assert_eq!(seconds(None, limits(both, None)), Some(594));
        assert_eq!(seconds(Some(2_000), limits(vec![], Some(7))), Some(200));
        assert_eq!((seconds(None, limits(vec![], Some(7))), seconds(Some(9), limits(vec![], None))), (None, None));
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
