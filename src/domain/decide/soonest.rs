//! The rung whose turn comes first, for a job that finds all of them full.

use super::{Condition, RungHealth, health_of};
use crate::domain::Timestamp;
use crate::domain::shut::Reason;
use std::time::Duration;

/// The rung of `order` that opens first because its limit recovers, where none may be called now and that one opens
/// within this time. Of several the first in the order.
///
/// A job that waits for no cheaper rung waits at the last one. While another opens sooner, it would wait there for
/// longer, and that other would be left unused.
#[must_use]
pub fn soonest(order: &[usize], conditions: &[Condition], within: Duration, now: Timestamp) -> Option<usize> {
    let health = |index: &usize| health_of(conditions, *index);
    if order.iter().any(|index| *health(index) == RungHealth::Open) {
        return None;
    }
    let opens = order.iter().filter_map(|index| match health(index) {
        // When a place at a full rung becomes free is not known.
        RungHealth::Shut(shut) if shut.reason == Reason::RateLimit && shut.until <= now + within => {
            Some((shut.until, *index))
        }
        RungHealth::Shut(_) | RungHealth::Open | RungHealth::Ineligible(_) => None,
    });
    opens.min_by_key(|(until, _)| *until).map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::Ineligible;
    use crate::domain::shut::Shut;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn shut(reason: Reason, ms: u64) -> RungHealth {
        RungHealth::Shut(Shut { reason, since: NOW, until: NOW + Duration::from_millis(ms) })
    }

    #[test]
    fn a_job_that_finds_every_rung_full_waits_where_its_turn_comes_first() {
        let full = |ms| shut(Reason::RateLimit, ms);
        let never = || RungHealth::Ineligible(Ineligible::Unsupported("tools".to_owned()));
        let cases = [
            // One may be called, so there is nothing to wait for.
            (vec![full(10), RungHealth::Open], None),
            (vec![full(50), full(800)], Some(0)),
            (vec![full(800), full(50)], Some(1)),
            (vec![full(50), full(50)], Some(0)),
            (vec![full(800), shut(Reason::Concurrency, 100), never()], Some(0)),
            // Longer than it would wait at all.
            (vec![full(2_000), full(1_001)], None),
            // What does not come back by itself is not queued for.
            (vec![shut(Reason::Breaker, 10), shut(Reason::QuotaExhausted, 10)], None),
            (vec![], None),
        ];
        for (health, expected) in cases {
            let conditions: Vec<Condition> = health.iter().cloned().map(Condition::from).collect();
            let order: Vec<usize> = (0..health.len()).collect();
            let found = soonest(&order, &conditions, Duration::from_secs(1), NOW);
            assert_eq!(found, expected, "{health:?}");
        }
    }
}
