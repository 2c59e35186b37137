//! Cascades: a job goes on from a rung that was not sure enough of its answer, and only up.
//!
//! The answers that were not sure enough are kept. A job that has one goes along the rungs above once. It waits for one
//! of them as long as it has patience, and where there is nothing to wait for, or no rung, attempt or time is left, it
//! ends with the surest answer that it has.

use super::{Condition, Ending, RungHealth, Skip, Step, health_of, tried};
use crate::domain::cascade::Unsure;
use crate::domain::{Attempt, ErrorClass, Job, Route};

/// The surest answer that a rung was not sure enough of; of two the later one, which came from a rung further up.
fn surest(history: &[Attempt]) -> Option<Unsure> {
    history.iter().filter_map(|attempt| attempt.unsure).max_by_key(|unsure| unsure.confidence)
}

/// How the job ends where no surer answer comes; `None`: it has no such answer.
pub(super) fn last_resort(history: &[Attempt]) -> Option<Ending> {
    surest(history).map(Ending::Unsure)
}

/// The ending of a job whose answer is sure enough by now: its route asks for less than it did, or for nothing.
pub(super) fn sure_by_now(route: &Route, history: &[Attempt]) -> Option<Ending> {
    let surest = surest(history)?;
    let is_sure = route.cascade.as_ref().is_none_or(|cascade| cascade.fault(surest.confidence).is_none());
    is_sure.then_some(Ending::Unsure(surest))
}

/// The part of an order that is above every rung that was not sure enough.
pub(super) fn above<'a>(order: &'a [usize], history: &[Attempt]) -> &'a [usize] {
    let was_unsure = |rung: &usize| history.iter().any(|past| past.unsure.is_some() && past.rung == Some(*rung));
    let begins = order.iter().rposition(was_unsure).map_or(0, |place| place.saturating_add(1));
    order.get(begins..).unwrap_or_default()
}

/// The step, which tells of the rungs that the job has climbed from if it is a call.
pub(super) fn tell(step: Step, order: &[usize], history: &[Attempt]) -> Step {
    let Step::Call { rung, skipped } = step else { return step };
    let was_unsure = |below: &usize| history.iter().any(|past| past.unsure.is_some() && past.rung == Some(*below));
    let below = order.iter().copied().filter(was_unsure).map(|below| (below, Skip::Failed(ErrorClass::SoftFailure)));
    Step::Call { rung, skipped: below.chain(skipped).collect() }
}

/// Whether the job climbs if this rung is not sure enough of its answer: the rung can say how sure it is, and one above
/// it can take the request. The other arguments are those of [`decide`](super::decide).
#[must_use]
pub fn climbs_from(
    rung: usize,
    job: &Job,
    route: &Route,
    order: &[usize],
    history: &[Attempt],
    conditions: &[Condition],
) -> bool {
    let (Some(cascade), Some(own)) = (&route.cascade, route.rungs.get(rung)) else { return false };
    let Some(place) = order.iter().position(|&other| other == rung) else { return false };
    let tried = tried::of(job, route, history);
    let can_take = |other: &usize| {
        tried.get(*other).is_some_and(|tried| tried.excluded.is_none())
            && !matches!(health_of(conditions, *other), RungHealth::Ineligible(_))
    };
    !cascade.silent.contains(&own.target) && order.iter().skip(place.saturating_add(1)).any(can_take)
}
