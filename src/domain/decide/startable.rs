//! How many jobs of a route may be started now, whichever jobs they are.

use super::{Access, Condition, RungHealth, Skip, Times, access_of, health_of, rest_until, weak, worth_of};
use crate::domain::shut::{Reason, Shut};
use crate::domain::{Route, Rung, Timestamp};
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
        /// Whether that is over within a [`MOMENT`].
        is_moment: bool,
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

/// A rung that is shut for less time than this is full for a moment. A worker keeps jobs that wait for no longer in
/// hand.
pub const MOMENT: Duration = Duration::from_secs(2);

/// How many jobs of a route may be started, if they have this deadline and find the rungs in these conditions.
///
/// The whole route counts. A rung has room for some jobs. The jobs beyond that find it full, and go on to the rungs
/// after it unless a job that has just come would wait. So the room of several rungs adds up exactly where jobs spread
/// over them. A shut rung is passed if a job that has waited for ever may pass it: if such a job may, some job may. A
/// rung whose places the jobs in hand will take ([`Line`](super::Line)) is shut for a moment.
///
/// `drawn` has the rungs that jobs draw first, with their shares of the jobs
/// ([`first_choices`](crate::domain::strategy::first_choices)); it is empty where all jobs have the same `order`. Which
/// of them a job draws is not known before it is claimed. So no more jobs may start than the rung takes that has the
/// least room for its share, and none while jobs would wait a moment for one of them: in a worker's hands they would
/// take the places of those that could be called. Where jobs wait for longer than a [`MOMENT`], they are put back after
/// the claim, and the other rungs' jobs go on.
#[must_use]
pub fn startable(
    route: &Route,
    order: &[usize],
    drawn: &[(usize, f64)],
    conditions: &[Condition],
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> Startable {
    if deadline.is_some_and(|deadline| now >= deadline) {
        return Startable::ToEnd;
    }
    let ask = HowMany { route, conditions, deadline, now };
    if drawn.is_empty() {
        return ask.along(order.iter().copied());
    }
    let draw = |&(first, share): &(usize, f64)| {
        let others = order.iter().copied().filter(move |&index| index != first);
        (share, ask.along(std::iter::once(first).chain(others)))
    };
    together(drawn.iter().map(draw), ask.room(order))
}

/// How many jobs may start of which each belongs to one of several parts, and which it belongs to is not known before
/// it is claimed: each part has its share of the jobs and its own answer. `most`: no more than so many.
#[must_use]
pub fn together(parts: impl IntoIterator<Item = (f64, Startable)>, most: usize) -> Startable {
    let mut fewest = most;
    let (mut some_start, mut some_end) = (false, false);
    let (mut full, mut soonest): (Option<Startable>, Option<Startable>) = (None, None);
    for (share, part) in parts {
        match part {
            Startable::ToEnd => some_end = true,
            Startable::Now(jobs) => {
                some_start = true;
                fewest = fewest.min(scaled(jobs, share));
            }
            later @ Startable::Later { is_moment: true, .. } => {
                full = Some(full.filter(|other| other.opens() >= later.opens()).unwrap_or(later));
            }
            later @ Startable::Later { .. } => {
                soonest = Some(soonest.filter(|other| other.opens() <= later.opens()).unwrap_or(later));
            }
        }
    }
    match full.or(soonest.filter(|_| !some_start && !some_end)) {
        Some(later) => later,
        None if some_start => Startable::Now(fewest.max(1)),
        None => Startable::ToEnd,
    }
}

/// How many jobs there are if `jobs` are this share of them.
fn scaled(jobs: usize, share: f64) -> usize {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let all = jobs as f64 / share;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is above 0, and ends at the most")]
    let all = all as usize;
    all
}

/// Whether no rung can be called before a person does something: each one that takes such requests at all has no key in
/// service, or no such model. A paused provider does not count, because the person who paused it knows of it.
#[must_use]
pub fn is_stuck(conditions: &[Condition]) -> bool {
    let mut reasons = conditions.iter().filter_map(|condition| match &condition.health {
        RungHealth::Ineligible(_) => None,
        RungHealth::Shut(shut) => Some(Some(shut.reason)),
        RungHealth::Open => Some(None),
    });
    let is_lasting =
        |reason: Option<Reason>| matches!(reason, Some(Reason::Auth | Reason::QuotaExhausted | Reason::Model));
    let first = reasons.next();
    first.is_some_and(is_lasting) && reasons.all(is_lasting)
}

/// The question of how many jobs may start.
struct HowMany<'a> {
    route: &'a Route,
    conditions: &'a [Condition],
    deadline: Option<Timestamp>,
    now: Timestamp,
}

impl HowMany<'_> {
    /// How a rung stands for a job that has waited for ever.
    fn access(&self, index: usize) -> Option<(&Rung, Access)> {
        let oldest = Times { ready_at: Timestamp::MIN, deadline: self.deadline };
        let (route, rung) = (self.route, self.route.rungs.get(index)?);
        let (health, now) = (health_of(self.conditions, index), self.now);
        let line = self.conditions.get(index).and_then(|condition| condition.line);
        let access = access_of(oldest, route, rung, None, Timestamp::MIN, health, now);
        Some((
            rung,
            match (access, line.and_then(|line| line.shut(now))) {
                (Access::Open, Some(shut)) => Access::Shut { shut, worth: worth_of(oldest, route, rung, shut, now) },
                (access, _) => access,
            },
        ))
    }

    /// How many calls an open rung takes. It is open, so one may begin, however little room was measured.
    fn room_of(&self, index: usize) -> usize {
        self.conditions.get(index).and_then(|condition| condition.headroom).unwrap_or(usize::MAX).max(1)
    }

    /// How many calls all open rungs take together.
    fn room(&self, order: &[usize]) -> usize {
        let open = order.iter().filter(|&&index| matches!(self.access(index), Some((_, Access::Open))));
        let has_better = self.has_better(order.iter().copied());
        let open = open.filter(|&&index| !has_better || !self.is_weak(index));
        open.fold(0, |sum, &index| sum.saturating_add(self.room_of(index)))
    }

    fn is_weak(&self, index: usize) -> bool {
        weak::of(self.route, self.conditions, index).is_some()
    }

    /// Whether jobs that try the rungs in this order reach one that is not weak and may be called within a moment. If
    /// so, they pass over those that are weak.
    fn has_better(&self, order: impl Iterator<Item = usize>) -> bool {
        for index in order.filter(|index| !self.is_weak(*index)) {
            match self.access(index) {
                Some((_, Access::Open)) => return true,
                Some((_, Access::Shut { shut, .. })) if weak::opens_in_a_moment(&shut, self.now) => return true,
                Some((_, Access::Shut { worth, .. })) if worth.is_waited_for() => return false,
                Some((_, Access::Shut { .. } | Access::Never(_))) | None => {}
            }
        }
        false
    }

    /// How many jobs may start that all try the rungs in this order.
    fn along(&self, order: impl Iterator<Item = usize> + Clone) -> Startable {
        let Self { route, deadline, now, .. } = *self;
        let newest = Times { ready_at: now, deadline };
        let full = Shut { reason: Reason::RateLimit, since: now, until: now + Duration::from_millis(1) };
        let mut jobs = 0_usize;
        let mut soonest: Option<(Timestamp, usize, Skip)> = None;
        let has_better = self.has_better(order.clone());
        for index in order {
            let Some((rung, access)) = self.access(index) else { continue };
            let has_turn = match &access {
                Access::Open => true,
                Access::Shut { worth, .. } => worth.is_waited_for(),
                Access::Never(_) => false,
            };
            if has_turn && has_better && self.is_weak(index) {
                continue;
            }
            match access {
                Access::Never(_) => {}
                Access::Open => {
                    jobs = jobs.saturating_add(self.room_of(index));
                    let leaves = route.strategy.leaves_full_rungs();
                    if !leaves && worth_of(newest, route, rung, full, now).is_waited_for() {
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
            Some((until, rung, why)) => {
                let until = rest_until(until, deadline, now);
                Startable::Later { until, rung, why, is_moment: now.until(until) <= MOMENT }
            }
            None => Startable::ToEnd,
        }
    }
}

#[cfg(test)]
mod tests;
