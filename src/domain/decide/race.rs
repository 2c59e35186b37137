//! Several calls of one job at a time.
//!
//! A route of this strategy asks its rungs in turn, and does not wait for an answer before it asks the next: it waits
//! for as long as the route says ([`Race::after`](crate::domain::Race)), and not at all once an earlier call has
//! failed. A rung is tried once in a lap, and then the next. Everything else is as with one call at a time: a rung that
//! is shut and worth waiting for keeps its turn, and one that failed is left alone for a while. No rung is asked twice
//! at once.

use super::{Attempt, Job, MOST_ATTEMPTS, Remedy, Route, Skip, Step, Timestamp, Tried, Turn, ending};
use crate::domain::Strategy;
use crate::domain::shut::Reason;
use std::time::Duration;

/// A call that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Index of its rung in the route's listed order; `None`: the route has no such rung any more.
    pub rung: Option<usize>,
    /// Since when the rung is being asked.
    pub since: Timestamp,
}

/// The call that was begun last.
pub(super) fn newest(under_way: &[UnderWay]) -> Option<UnderWay> {
    under_way.iter().copied().max_by_key(|call| call.since)
}

/// Since when a rung is being asked, if it is.
pub(super) fn asked_since(under_way: &[UnderWay], rung: usize) -> Option<Timestamp> {
    under_way.iter().find(|call| call.rung == Some(rung)).map(|call| call.since)
}

/// Whether a job may ask one rung more than those that it is asking. Each of those calls may fail, and then counts.
pub(super) fn takes_one_more(job: &Job, route: &Route, history: &[Attempt], under_way: &[UnderWay]) -> bool {
    let at_most = match &route.strategy {
        Strategy::Race(race) => usize::from(race.at_most),
        _ => 1,
    };
    let counted = history.iter().filter(|attempt| attempt.uses_up_an_attempt()).count();
    let most = usize::from(ending::most_attempts(job, route));
    let calls = under_way.len();
    calls < at_most && counted.saturating_add(calls) < most && history.len().saturating_add(calls) < MOST_ATTEMPTS
}

/// Whether a rung that rests after a failure of this job keeps its turn, so that the rungs after it wait for it too. In
/// a race it does not, unless the job may not leave it because of that failure.
pub(super) fn turn_at_rest(route: &Route, tried: &Tried) -> Turn {
    let is_race = matches!(route.strategy, Strategy::Race(_));
    let leaves = tried.rests_after().is_some_and(|class| route.falls_back_on(class));
    if is_race && leaves { Turn::Lost } else { Turn::Kept }
}

impl UnderWay {
    /// Waits until a call ends.
    pub(super) fn wait(self) -> Step {
        let why = Skip::UnderWay { since: self.since };
        Step::Wait { until: Timestamp::MAX, rung: self.rung.unwrap_or(0), why }
    }

    /// The step, when its time in the race has come; this call is the one that was begun last.
    pub(super) fn in_turn(self, route: &Route, history: &[Attempt], step: Step, now: Timestamp) -> Step {
        let due = self.next_is_due(route, history);
        match step {
            Step::Call { .. } if due <= now => step,
            Step::Call { rung, .. } => Step::Wait { until: due, rung, why: Skip::UnderWay { since: self.since } },
            Step::Wait { until, rung, why } => Step::Wait { until: until.max(due), rung, why },
            // No rung is left but those that are being asked.
            Step::Finish(_) => self.wait(),
        }
    }

    /// When the next rung is asked: some time after this one, or at once when a call has failed since.
    fn next_is_due(self, route: &Route, history: &[Attempt]) -> Timestamp {
        let has_failed = |attempt: &Attempt| {
            attempt.ended_at > self.since
                // A limit is no failure, and a gate that is shut keeps the rung's turn as far as there is patience. For
                // a model that is unknown there is none.
                && attempt.remedy().is_some_and(|remedy| match remedy {
                    Remedy::WaitForGate(reason) => reason == Reason::Model,
                    _ => true,
                })
        };
        if history.iter().any(has_failed) {
            return self.since;
        }
        let after = match &route.strategy {
            Strategy::Race(race) => race.after,
            _ => Duration::MAX,
        };
        self.since + after
    }
}
