//! The centre: what is to be done next for a job.
//!
//! Fallback, retries, patience, breakers, deadlines and crash recovery are all one function over data, [`decide`]. It
//! asks three questions in turn:
//!
//! 1. Is the job over? An accepted answer, a request that no rung would take, attempts or time used up.
//! 2. How does each rung stand? What the job's own history says of it, what gate and breaker say of it
//!    ([`RungHealth`]), and whether a closed one is worth waiting for.
//! 3. Which is the first that may be called? If none may now, until when is there nothing to do?
//!
//! A job goes along its rungs in laps. A rung that failed as often as its [`Remedy`](super::Remedy) allows is passed
//! for the rest of the lap; when all rungs are passed, the next lap begins, after a longer pause. While the rungs that
//! are not passed are closed, and not worth waiting for, a passed one is tried again after such a pause. A rung that
//! can never take this request is out for good and makes up no part of a lap.

mod ending;
mod standing;
#[cfg(test)]
mod tests;

use super::{Attempt, ErrorClass, Job, Patience, Route, Rung, Timestamp, Unit};
use serde::{Deserialize, Serialize};
use standing::{Hold, Lap, Standing};
use std::fmt;
use std::time::Duration;

/// Why a rung cannot be called right now although it may be called later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// Requests or tokens are used up, or the provider asked to wait (429 of any kind but money).
    RateLimit,
    /// All calls that may run at once are running.
    Concurrency,
    /// The breaker is open.
    Breaker,
    /// No key is in service; the first that may be tried again was out of money.
    QuotaExhausted,
    /// No key is in service; the first that may be tried again was rejected.
    Auth,
    /// The model is unknown to the provider or not allowed to this key.
    Model,
    /// An operator paused the provider.
    Paused,
}

impl Closed {
    /// Every reason.
    const ALL: [Self; 7] = [
        Self::RateLimit,
        Self::Concurrency,
        Self::Breaker,
        Self::QuotaExhausted,
        Self::Auth,
        Self::Model,
        Self::Paused,
    ];

    /// The reason that has this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// The word for it in status, metrics and the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::Concurrency => "concurrency",
            Self::Breaker => "breaker_open",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Auth => "auth",
            Self::Model => "model",
            Self::Paused => "paused",
        }
    }
}

/// Why a rung can never take this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ineligible {
    /// Prompt and output cap do not fit the window.
    ContextWindow {
        /// Tokens needed, estimated.
        needed: i64,
        /// Tokens there are.
        window: i64,
    },
    /// The request is larger than a limit ever allows at once.
    BucketTooSmall {
        /// What the limit counts.
        unit: Unit,
        /// What the request takes of it, estimated.
        needed: i64,
        /// What it allows at most.
        size: i64,
    },
    /// The target lacks something the request asks for: `tools`, `images`, `json_schema`, …
    Unsupported(String),
}

/// The state of one rung for one request, as the gate and the breaker see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RungHealth {
    /// May be called now.
    Open,
    /// May be called at `until` at the earliest.
    Closed {
        /// Why.
        reason: Closed,
        /// Since when it has been closed without a break; equal to now where it merely paces.
        since: Timestamp,
        /// When it opens, as far as is known.
        until: Timestamp,
    },
    /// Can never take this request.
    Ineligible(Ineligible),
}

/// The state of a route's rungs, in the order in which the route lists them.
pub type Health = [RungHealth];

/// Why a rung was not taken, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It is closed.
    Closed {
        /// Why.
        reason: Closed,
        /// Until when.
        until: Timestamp,
        /// Whether it was worth waiting for.
        worth: Worth,
    },
    /// It cannot take this request at all.
    Ineligible(Ineligible),
    /// It failed in this job's history in a way that moves the job on.
    Failed(ErrorClass),
    /// It is backing off after a failure.
    BackingOff {
        /// Until when.
        until: Timestamp,
    },
    /// It is backing off after a failure, for so long that a call after it could not end by the job's deadline.
    TooLate {
        /// Until when.
        until: Timestamp,
        /// When a call would have to begin at the latest.
        latest: Timestamp,
    },
}

/// Whether a job waits for a closed rung rather than take one after it, and what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worth {
    /// It waits: the rung opens while there is patience, which lasts until then ([`Timestamp::MAX`]: without end).
    Patience {
        /// When it ends, be it because of the deadline.
        until: Timestamp,
    },
    /// It waits: the route does not leave a rung for this reason.
    NoFallback,
    /// It does not: the route has no patience.
    NoPatience,
    /// It does not: patience has ended, or ends before the rung opens.
    PatienceOver {
        /// When it ended or will end.
        at: Timestamp,
    },
    /// It does not: patience was cut short by the job's deadline, before which the call has to end too.
    DeadlineNear {
        /// When it ended or will end: the deadline less the rung's timeout.
        at: Timestamp,
    },
    /// It does not: money, keys, models and paused providers do not come back by themselves.
    Pointless,
}

impl Worth {
    /// Whether the job waits.
    #[must_use]
    pub const fn is_waited_for(self) -> bool {
        match self {
            Self::Patience { .. } | Self::NoFallback => true,
            Self::NoPatience | Self::PatienceOver { .. } | Self::DeadlineNear { .. } | Self::Pointless => false,
        }
    }
}

/// How a job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last attempt's answer was accepted.
    Succeeded,
    /// No acceptable answer will come.
    Failed {
        /// The class of the failure that decided it.
        class: ErrorClass,
        /// The reason, in words.
        reason: String,
    },
}

/// What to do next for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call this rung (index in listed order).
    Call {
        /// Which.
        rung: usize,
        /// The rungs that stand before it in this job's order, and why each was not taken.
        skipped: Vec<(usize, Skip)>,
    },
    /// Do nothing until then. Uses up no attempt.
    Wait {
        /// When to ask again; a rung that opens earlier is reason to ask earlier.
        until: Timestamp,
        /// What is waited for: the rung, and why it is closed.
        rung: usize,
        /// In words a report can show.
        why: Skip,
    },
    /// The job is over.
    Finish(Ending),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RateLimit => "rate limit reached",
            Self::Concurrency => "all its calls are running",
            Self::Breaker => "breaker open",
            Self::QuotaExhausted => "out of money",
            Self::Auth => "key rejected",
            Self::Model => "model unknown or not allowed",
            Self::Paused => "paused",
        })
    }
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContextWindow { needed, window } => {
                write!(f, "needs about {needed} tokens, its window has {window}")
            }
            Self::BucketTooSmall { unit, needed, size } => {
                write!(f, "needs about {needed} {unit}, its limit allows {size} at once")
            }
            Self::Unsupported(what) => write!(f, "does not support {what}"),
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { reason, .. } => reason.fmt(f),
            Self::Ineligible(why) => why.fmt(f),
            Self::Failed(class) => class.fmt(f),
            Self::BackingOff { .. } => f.write_str("backing off after a failure"),
            Self::TooLate { .. } => f.write_str("backing off after a failure for longer than the deadline leaves time"),
        }
    }
}

/// Decides the next step. Pure and total: same input, same output, no panic.
///
/// `order` is the route's rungs in the order in which this job tries them (see [`order`](super::strategy::order));
/// `health` is in listed order, and a rung without an entry in it counts as open. `history` is oldest first.
///
/// Guarantees, whatever the input:
/// - After an accepted answer the step is `Finish(Succeeded)`: nothing is bought twice.
/// - A called rung is on the route, not closed, not ineligible, and nobody asked this job to wait for it.
/// - [`Step::Wait`] ends after `now`, and not after the deadline.
/// - A history only grows so long, so a job ends however the world behaves.
#[must_use]
pub fn decide(job: &Job, route: &Route, order: &[usize], history: &[Attempt], health: &Health, now: Timestamp) -> Step {
    if let Some(ending) = ending::of(job, route, history, health, now) {
        return Step::Finish(ending);
    }
    let places = survey(job, route, order, history, health, now);
    choose(job, route, history, places, now)
}

/// How a rung stands at one instant, history and health taken together.
enum Place {
    /// May be called.
    Open,
    /// May not be called, unless as a last resort.
    Shut {
        why: Skip,
        /// When it may be called; `None`: never.
        until: Option<Timestamp>,
        turn: Turn,
    },
}

/// What a rung that is shut means for the rungs after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is its turn: they wait with it.
    Kept,
    /// They may be taken meanwhile.
    Lost,
    /// They may be taken, and if none of them can be, it has its turn again at the given instant.
    LastResort,
}

/// How each rung of `order` stands now.
fn survey(
    job: &Job,
    route: &Route,
    order: &[usize],
    history: &[Attempt],
    health: &Health,
    now: Timestamp,
) -> Vec<(usize, Place)> {
    let standings = standing::of(job, route, history);
    let rungs: Vec<(usize, &Standing, Gate)> = order
        .iter()
        .filter_map(|&index| Some((index, route.rungs.get(index)?, standings.get(index)?)))
        .map(|(index, rung, standing)| {
            let health = health.get(index).unwrap_or(&RungHealth::Open);
            (index, standing, gate_of(job, route, rung, standing, health, now))
        })
        .collect();
    let takes_part = |standing: &Standing, gate: &Gate| standing.excluded.is_none() && !matches!(gate, Gate::Never(_));
    let taking_part: Vec<usize> =
        rungs.iter().filter(|(_, standing, gate)| takes_part(standing, gate)).map(|&(index, ..)| index).collect();
    let lap = Lap::of(job, route, history, &taking_part);
    rungs
        .into_iter()
        .map(|(index, standing, gate)| {
            let latest = latest_retry(job, route, index, standing);
            (index, place_of(index, standing, gate, &lap, latest, now))
        })
        .collect()
}

/// When a rung has to be tried again at the latest after a failure, if the job may leave it after that: so that the
/// call can still end by the deadline.
fn latest_retry(job: &Job, route: &Route, rung: usize, standing: &Standing) -> Option<Timestamp> {
    let leaves = standing.last_failure.is_some_and(|class| route.falls_back_on(class));
    let rung = route.rungs.get(rung).filter(|_| leaves && route.patience != Patience::Forever)?;
    Some(job.deadline? - rung.total_timeout)
}

/// What stands between a job and a rung apart from the job's own failures there.
enum Gate {
    Open,
    Closed { reason: Closed, until: Timestamp, worth: Worth },
    Never(Ineligible),
}

impl Gate {
    fn opens(&self) -> Timestamp {
        match self {
            Self::Open => Timestamp::MIN,
            Self::Closed { until, .. } => *until,
            Self::Never(_) => Timestamp::MAX,
        }
    }
}

/// Joins what the gate says with what the provider asked of this very job: the later opening counts, and the earlier
/// closing, as patience has been running since then. A gate that waiting does not open, and that the job may leave, is
/// the reason whatever was asked.
fn gate_of(job: &Job, route: &Route, rung: &Rung, standing: &Standing, health: &RungHealth, now: Timestamp) -> Gate {
    let shut = match health {
        RungHealth::Open => None,
        RungHealth::Closed { reason, since, until } => {
            Some(Hold { reason: *reason, since: *since, until: *until }).filter(|hold| hold.until > now)
        }
        RungHealth::Ineligible(why) => return Gate::Never(why.clone()),
    };
    let asked = standing.hold.filter(|hold| hold.until > now);
    let hold = match (shut, asked) {
        (None, None) => return Gate::Open,
        (Some(hold), None) | (None, Some(hold)) => hold,
        (Some(shut), Some(asked)) => {
            let later = if asked.until > shut.until { asked } else { shut };
            let decides = is_pointless(shut.reason) && may_fall_back(route, shut.reason);
            let reason = if decides { shut.reason } else { later.reason };
            Hold { reason, since: asked.since.min(shut.since), until: later.until }
        }
    };
    let hold = Hold { until: hold.until.max(standing.backing_off_until), ..hold };
    Gate::Closed { reason: hold.reason, until: hold.until, worth: worth_of(job, route, rung, hold, now) }
}

fn place_of(
    rung: usize,
    standing: &Standing,
    gate: Gate,
    lap: &Lap,
    latest: Option<Timestamp>,
    now: Timestamp,
) -> Place {
    let out = |why| Place::Shut { why, until: None, turn: Turn::Lost };
    if let Some(class) = standing.excluded {
        // Why it can never take the request says more than that it did not.
        return out(match gate {
            Gate::Never(why) => Skip::Ineligible(why),
            Gate::Open | Gate::Closed { .. } => Skip::Failed(class),
        });
    }
    let due = standing.backing_off_until.max(lap.begins);
    match (gate, lap.passed(rung)) {
        (Gate::Never(why), _) => out(Skip::Ineligible(why)),
        (gate, Some(class)) => {
            let until = Some(gate.opens().max(due).max(lap.pause_ends));
            Place::Shut { why: Skip::Failed(class), until, turn: Turn::LastResort }
        }
        // Its own retry would come too late to be of use; the dearer rungs may be in time.
        (gate, None) if due > now && latest.is_some_and(|latest| due > latest) => {
            let (until, latest) = (gate.opens().max(due), latest.unwrap_or(due));
            Place::Shut { why: Skip::TooLate { until, latest }, until: Some(until), turn: Turn::Lost }
        }
        (Gate::Closed { reason, until, worth }, None) => {
            let until = until.max(due);
            let turn = if worth.is_waited_for() { Turn::Kept } else { Turn::Lost };
            Place::Shut { why: Skip::Closed { reason, until, worth }, until: Some(until), turn }
        }
        // Its own retry is still its turn, so the dearer rungs wait for it too.
        (Gate::Open, None) if due > now => {
            Place::Shut { why: Skip::BackingOff { until: due }, until: Some(due), turn: Turn::Kept }
        }
        (Gate::Open, None) => Place::Open,
    }
}

/// Whether a closed rung is waited for, or the rungs after it may be taken before it opens at `hold.until`.
///
/// To be left, the route has to allow it (`fallback_on`), and the wait has to be more than the job has patience for.
/// Patience runs from when the job could be run and the rung was closed, whichever is later, and ends early enough for
/// a call to the closed rung to end before the job's deadline. It is not asked where waiting is pointless: money, keys
/// and models do not come back by themselves, and a provider that an operator paused comes back when he says so.
fn worth_of(job: &Job, route: &Route, rung: &Rung, hold: Hold, now: Timestamp) -> Worth {
    if !may_fall_back(route, hold.reason) {
        return Worth::NoFallback;
    }
    if is_pointless(hold.reason) {
        return Worth::Pointless;
    }
    let patience = match route.patience {
        Patience::Forever => return Worth::Patience { until: Timestamp::MAX },
        Patience::For(patience) => patience,
    };
    if patience.is_zero() {
        return Worth::NoPatience;
    }
    // What lies ahead of now is a clock that differs; it must not lengthen the wait.
    let ends = job.ready_at.max(hold.since).min(now) + patience;
    let latest = job.deadline.map_or(Timestamp::MAX, |deadline| deadline - rung.total_timeout);
    // It opens later than now, so patience that has ended already is over here too.
    match ends.min(latest) {
        until if hold.until <= until => Worth::Patience { until },
        at if latest < ends => Worth::DeadlineNear { at },
        at => Worth::PatienceOver { at },
    }
}

/// Whether a rung that is closed for this reason does not open by itself.
fn is_pointless(reason: Closed) -> bool {
    match reason {
        Closed::QuotaExhausted | Closed::Auth | Closed::Model | Closed::Paused => true,
        Closed::RateLimit | Closed::Concurrency | Closed::Breaker => false,
    }
}

/// Whether the route lets a job leave a rung that is closed for this reason.
fn may_fall_back(route: &Route, reason: Closed) -> bool {
    use ErrorClass as Class;
    let any: &[Class] = match reason {
        Closed::RateLimit | Closed::Concurrency => &[Class::RateLimit],
        Closed::Breaker => &[
            Class::ServerError,
            Class::Overloaded,
            Class::Timeout,
            Class::Network,
            Class::Unreachable,
            Class::SoftFailure,
        ],
        Closed::QuotaExhausted => &[Class::QuotaExhausted],
        Closed::Auth => &[Class::Auth],
        Closed::Model => &[Class::NotFound, Class::Permission],
        // Whoever pauses a provider wants its work done elsewhere.
        Closed::Paused => return true,
    };
    any.iter().any(|&class| route.falls_back_on(class))
}

/// The first rung that may be called; else the first instant at which one may be; else the end.
fn choose(job: &Job, route: &Route, history: &[Attempt], places: Vec<(usize, Place)>, now: Timestamp) -> Step {
    let has_turn = |place: &Place| matches!(place, Place::Open | Place::Shut { turn: Turn::Kept, .. });
    // What stands behind the rung whose turn it is does not matter.
    let turn = places.iter().position(|(_, place)| has_turn(place));
    let reachable = turn.map_or(places.len(), |index| index.saturating_add(1));
    let mut before = Vec::new();
    let mut soonest: Option<(Timestamp, usize, Skip)> = None;
    for (rung, place) in places.into_iter().take(reachable) {
        let Place::Shut { why, until, turn: its } = place else { return Step::Call { rung, skipped: before } };
        if let Some(until) = until.filter(|_| its != Turn::LastResort || turn.is_none()) {
            if until <= now {
                return Step::Call { rung, skipped: before };
            }
            if soonest.as_ref().is_none_or(|&(first, ..)| until < first) {
                soonest = Some((until, rung, why.clone()));
            }
        }
        before.push((rung, why));
    }
    match soonest {
        Some((until, rung, why)) => {
            let until = job.deadline.map_or(until, |deadline| until.min(deadline));
            Step::Wait { until: until.max(now + Duration::from_millis(1)), rung, why }
        }
        None => Step::Finish(ending::out_of_rungs(route, history, &before)),
    }
}
