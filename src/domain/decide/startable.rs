//! How many jobs of a route may be started now, whichever jobs they are.

use super::{Access, Condition, Skip, Times, access_of, health_of, rest_until, worth_of};
use crate::domain::shut::{Reason, Shut};
use crate::domain::{Route, Timestamp};
use std::time::Duration;

/// How many jobs of a route may be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Startable {
    /// This many jobs.
    Now(usize),
    /// No job before `until`.
    Later {
        /// When to ask again.
        until: Timestamp,
        /// The rung that all jobs of the route wait for, …
        rung: usize,
        /// … and why it may not be called.
        why: Skip,
    },
    /// Every job, because each of them ends: no rung takes their requests, or it is too late. The jobs report this
    /// themselves.
    ToEnd,
}

impl Startable {
    /// The number of jobs.
    #[must_use]
    pub const fn jobs(&self) -> usize {
        match self {
            Self::Now(jobs) => *jobs,
            Self::Later { .. } => 0,
            Self::ToEnd => usize::MAX,
        }
    }

    /// When to ask again if no job may start now.
    #[must_use]
    pub const fn opens(&self) -> Option<Timestamp> {
        match self {
            Self::Later { until, .. } => Some(*until),
            Self::Now(_) | Self::ToEnd => None,
        }
    }
}

/// How many jobs of a route may be started, if they have this deadline and find the rungs in these conditions.
///
/// The whole route counts. A rung has room for some jobs. The jobs beyond that find it full, and go on to the rungs
/// after it unless a job that has just come would wait. So the room of several rungs adds up exactly where jobs spread
/// over them. A shut rung is passed if a job that has waited for ever may pass it: if such a job may, some job may. A
/// rung whose places the jobs in hand will take ([`Line`](super::Line)) is shut for a moment.
#[must_use]
pub fn startable(
    route: &Route,
    order: &[usize],
    conditions: &[Condition],
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> Startable {
    if deadline.is_some_and(|deadline| now >= deadline) {
        return Startable::ToEnd;
    }
    let (oldest, newest) = (Times { ready_at: Timestamp::MIN, deadline }, Times { ready_at: now, deadline });
    let full = Shut { reason: Reason::RateLimit, since: now, until: now + Duration::from_millis(1) };
    let mut jobs = 0_usize;
    let mut soonest: Option<(Timestamp, usize, Skip)> = None;
    for &index in order {
        let Some(rung) = route.rungs.get(index) else { continue };
        let line = conditions.get(index).and_then(|condition| condition.line);
        let access = access_of(oldest, route, rung, None, Timestamp::MIN, health_of(conditions, index), now);
        let access = match (access, line.and_then(|line| line.shut(now))) {
            (Access::Open, Some(shut)) => Access::Shut { shut, worth: worth_of(oldest, route, rung, shut, now) },
            (access, _) => access,
        };
        match access {
            Access::Never(_) => {}
            Access::Open => {
                // It is open, so one may begin, however little room was measured.
                let room = conditions.get(index).and_then(|condition| condition.headroom).unwrap_or(usize::MAX).max(1);
                jobs = jobs.saturating_add(room);
                if worth_of(newest, route, rung, full, now).is_waited_for() {
                    break;
                }
            }
            Access::Shut { shut, worth } => {
                if soonest.as_ref().is_none_or(|&(first, ..)| shut.until < first) {
                    soonest = Some((shut.until, index, Skip::Shut { shut, worth }));
                }
                if worth.is_waited_for() {
                    break;
                }
            }
        }
    }
    match soonest {
        _ if jobs > 0 => Startable::Now(jobs),
        Some((until, rung, why)) => Startable::Later { until: rest_until(until, deadline, now), rung, why },
        None => Startable::ToEnd,
    }
}

#[cfg(test)]
mod tests;
