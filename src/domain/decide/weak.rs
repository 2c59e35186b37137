//! Rungs that work, but answer slowly or badly.
//!
//! Such a rung is passed over only for a better one: a rung that the job reaches in its turn, that is not weak itself,
//! and that may be called now, or within a [`MOMENT`] as far as its limits are concerned. Otherwise a provider that is
//! full for a moment would send its jobs to the weak rung, where they would pay for an answer that is rejected. Where
//! there is none the weak rung is called as if it were well, so no job ever waits because a rung is weak.
//!
//! The route has to allow it: as it says in `fallback_on` whether jobs leave a rung after a rejected answer or a
//! timeout, so they pass a rung over that is known for them. A route whose patience is without end takes the first rung
//! or nothing, and passes none over.

use super::startable::MOMENT;
use super::{Candidate, Condition, RungHealth, Skip, Turn};
use crate::domain::quality::Weakness;
use crate::domain::shut::{Reason, Shut};
use crate::domain::{Patience, Route, Timestamp};

/// The weakness of a rung, if jobs of the route may pass it over for that.
pub(super) fn of<'a>(route: &Route, conditions: &'a [Condition], rung: usize) -> Option<&'a Weakness> {
    let weakness = conditions.get(rung)?.weakness.as_ref()?;
    (route.patience != Patience::Forever && route.leaves(weakness.shut.reason)).then_some(weakness)
}

/// Whether something that is shut so may be called within a moment. Calls end all the time, and free places.
fn opens_in_a_moment(shut: &Shut, now: Timestamp) -> bool {
    match shut.reason {
        Reason::Concurrency => true,
        reason => reason.is_a_limit() && now.until(shut.until) <= MOMENT,
    }
}

/// Passes weak rungs over, if a better one may be called.
pub(super) fn pass_over(
    candidates: &mut [(usize, Candidate)],
    route: &Route,
    conditions: &[Condition],
    now: Timestamp,
) {
    let is_weak = |rung: usize, candidate: &Candidate| {
        matches!(candidate, Candidate::Ready) && of(route, conditions, rung).is_some()
    };
    if !candidates.iter().any(|(rung, candidate)| is_weak(*rung, candidate)) {
        return;
    }
    let is_better = |(rung, candidate): &(usize, Candidate)| {
        of(route, conditions, *rung).is_none()
            && match candidate {
                Candidate::Ready => true,
                Candidate::Out { why: Skip::Shut { shut, .. }, .. } => opens_in_a_moment(shut, now),
                Candidate::Out { .. } => false,
            }
    };
    let others = || candidates.iter().filter(|(rung, candidate)| !is_weak(*rung, candidate));
    // The rungs behind the one whose turn it is are not reached.
    let turn = others().position(|(_, candidate)| candidate.has_turn());
    let reached = turn.map_or(usize::MAX, |place| place.saturating_add(1));
    let has_better = others().take(reached).any(is_better);
    if !has_better {
        return;
    }
    for (rung, candidate) in candidates.iter_mut() {
        let weakness = of(route, conditions, *rung).filter(|_| matches!(candidate, Candidate::Ready));
        if let Some(weakness) = weakness.cloned() {
            *candidate = Candidate::Out { why: Skip::Weak(weakness), until: None, turn: Turn::Lost };
        }
    }
}

/// Whether another rung than this one, of those in `order`, may be called for any job within a moment, and is not weak.
pub(super) fn has_better(
    route: &Route,
    conditions: &[Condition],
    order: impl IntoIterator<Item = usize>,
    now: Timestamp,
) -> bool {
    order.into_iter().any(|rung| {
        of(route, conditions, rung).is_none()
            && match conditions.get(rung).map(|condition| &condition.health) {
                None | Some(RungHealth::Open) => true,
                Some(RungHealth::Shut(shut)) => opens_in_a_moment(shut, now),
                Some(RungHealth::Ineligible(_)) => false,
            }
    })
}
