//! The units of one limit that this process has in hand. `governor` decides whether a call may take what it needs.
//!
//! `governor` keeps one number, the theoretical arrival time. Each unit taken moves it on by a nanosecond, and it may
//! lie at most [`MOST`] of them ahead of the clock. Here the clock stands still, so nothing comes back with time. The
//! same number gives the units in hand: [`MOST`] less what it shows. Everything that is not an admission moves it by
//! hand: units that are lent move it back, and units that are given up or were spent without leave move it on. Beyond
//! [`MOST`] it is a debt.

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most units that can be in hand: more than any process ever uses within a lease. Units lent beyond that are lost,
/// and count as spent for the other processes.
const MOST: NonZeroU32 = NonZeroU32::MAX;

/// Units in hand.
#[derive(Debug)]
pub(super) struct Purse {
    limiter: RateLimiter<NotKeyed, ArrivalTime, Still, NoOpMiddleware<Nanos>>,
    spent: ArrivalTime,
}

/// The clock that the limiter runs on.
#[derive(Clone, Copy, Debug)]
struct Still;

impl Clock for Still {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(0)
    }
}

/// The theoretical arrival time: how many units are missing to [`MOST`].
#[derive(Clone, Debug)]
struct ArrivalTime(Arc<AtomicU64>);

impl StateStore for ArrivalTime {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let (outcome, after) = decide(Some(Nanos::new(before)))?;
            match self.0.compare_exchange_weak(before, after.as_u64(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(outcome),
                Err(now) => before = now,
            }
        }
    }
}

impl Purse {
    /// An empty one.
    pub(super) fn new() -> Self {
        let a_unit = Duration::from_nanos(1);
        let quota = Quota::with_period(a_unit).expect("a nanosecond is not zero").allow_burst(MOST);
        let spent = ArrivalTime(Arc::new(AtomicU64::new(u64::from(MOST.get()))));
        Self { limiter: RateLimiter::new(quota, spent.clone(), Still), spent }
    }

    /// Units in hand. A negative number is a debt: calls took more than was admitted.
    pub(super) fn held(&self) -> i64 {
        i64::from(MOST.get()).saturating_sub_unsigned(self.spent.0.load(Ordering::Acquire))
    }

    /// Takes `units`, all or none.
    pub(super) fn take(&self, units: u32) -> bool {
        let Some(units) = NonZeroU32::new(units) else { return true };
        matches!(self.limiter.check_n(units), Ok(Ok(())))
    }

    /// Adds `units` to those in hand: they are lent, or were taken for a call that was not made.
    pub(super) fn put(&self, units: u64) {
        self.change(|spent| spent.saturating_sub(units));
    }

    /// Removes `units` from those in hand, whether there are so many or not.
    pub(super) fn spend(&self, units: u64) {
        self.change(|spent| spent.saturating_add(units));
    }

    fn change(&self, change: impl Fn(u64) -> u64) {
        // The closure always returns a value, so the update never fails.
        let _ = self.spent.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |spent| Some(change(spent)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take(u32),
        Put(u64),
        Spend(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let units = || prop_oneof![4 => 0..50_u64, 1 => 0..5_000_000_000_u64];
        let taken = prop_oneof![4 => 0..50_u32, 1 => any::<u32>()].prop_map(Step::Take);
        let step = prop_oneof![taken, units().prop_map(Step::Put), units().prop_map(Step::Spend)];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn exactly_what_is_in_hand_can_be_taken_and_a_debt_is_paid_first(steps in steps()) {
            let (purse, mut held) = (Purse::new(), 0_i64);
            let most = i64::from(MOST.get());
            for step in steps {
                match step {
                    Step::Take(units) => {
                        let may = units == 0 || i64::from(units) <= held;
                        prop_assert_eq!(purse.take(units), may, "{} of {}", units, held);
                        held -= if may { i64::from(units) } else { 0 };
                    }
                    Step::Put(units) => {
                        purse.put(units);
                        held = (held + i64::try_from(units).unwrap()).min(most);
                    }
                    Step::Spend(units) => {
                        purse.spend(units);
                        held -= i64::try_from(units).unwrap();
                    }
                }
                prop_assert_eq!(purse.held(), held);
            }
        }
    }

    #[test]
    fn calls_that_take_at_the_same_time_take_no_more_than_there_is() {
        let purse = Purse::new();
        purse.put(10_000);
        let taken: usize = std::thread::scope(|scope| {
            let threads = [3, 7, 11, 13].map(|units| {
                let purse = &purse;
                // Often enough to be refused, also where the other threads are over before this one begins.
                scope.spawn(move || (0..4_000).filter(|_| purse.take(units)).count() * units as usize)
            });
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(i64::try_from(10_000 - taken).unwrap(), purse.held());
        assert!(purse.held() < 3);
    }
}
