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
use super::{Candidate, Condition, Skip, Turn};
use crate::domain::quality::Weakness;
use crate::domain::shut::{Reason, Shut};
use crate::domain::{Patience, Route, Timestamp};

/// The weakness of a rung, if jobs of the route may pass it over for that.
pub(super) fn of<'a>(route: &Route, conditions: &'a [Condition], rung: usize) -> Option<&'a Weakness> {
    let weakness = conditions.get(rung)?.weakness.as_ref()?;
    (route.patience != Patience::Forever && route.leaves(weakness.shut.reason)).then_some(weakness)
}

/// Whether something that is shut so may be called within a moment. Calls end all the time, and free places.
pub(super) fn opens_in_a_moment(shut: &Shut, now: Timestamp) -> bool {
    match shut.reason {
        Reason::Concurrency => true,
        reason => reason.is_a_limit() && now.until(shut.until) <= MOMENT,
    }
}

/// Passes weak rungs over, if a better one may be called: those too that are shut, for which jobs would wait otherwise.
pub(super) fn pass_over(
    candidates: &mut [(usize, Candidate)],
    route: &Route,
    conditions: &[Condition],
    now: Timestamp,
) {
    // A rung that is left anyway is left for that reason, and one that rests after a failure of this job was tried.
    let is_weak = |(rung, candidate): &&(usize, Candidate)| {
        let is_shut = matches!(candidate, Candidate::Out { why: Skip::Shut { .. }, turn: Turn::Kept, .. });
        (is_shut || matches!(candidate, Candidate::Ready)) && of(route, conditions, *rung).is_some()
    };
    if !candidates.iter().any(|candidate| is_weak(&candidate)) {
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
    let others = || candidates.iter().filter(|candidate| !is_weak(candidate));
    // The rungs behind the one whose turn it is are not reached.
    let turn = others().position(|(_, candidate)| candidate.has_turn());
    let reached = turn.map_or(usize::MAX, |place| place.saturating_add(1));
    if !others().take(reached).any(is_better) {
        return;
    }
    for candidate in candidates.iter_mut() {
        let Some(weakness) = of(route, conditions, candidate.0) else { continue };
        if is_weak(&&*candidate) {
            candidate.1 = Candidate::Out { why: Skip::Weak(weakness.clone()), until: None, turn: Turn::Lost };
        } else if let Candidate::Out { until, turn: turn @ Turn::LastResort, .. } = &mut candidate.1 {
            // It failed this job already. It is no resort either before the better one was asked.
            (*until, *turn) = (None, Turn::Lost);
        }
    }
}
