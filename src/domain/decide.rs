//! The centre: decides the next step of a job.
//!
//! Fallback, retries, patience, breakers, deadlines and crash recovery are all one function over data, [`decide`]. It
//! asks three questions in turn:
//!
//! 1. Is the job over? It is when an answer was accepted, when no rung would take the request, or when attempts or time
//!    are used up.
//! 2. How does each rung stand? That follows from the job's own history there, from what gate and breaker say of it
//!    ([`RungHealth`]), and from whether a rung that is shut is worth waiting for.
//! 3. Which is the first rung that may be called? If none may be called now, until when is there nothing to do?
//!
//! A route may let a job ask several rungs at once ([`race`]). Then the calls under way are one more thing that the
//! decision sees. A route may also let a job go on because an answer is not sure enough ([`climb`]).
//!
//! A job goes along its rungs in laps. A rung that failed as often as its [`Remedy`](super::Remedy) allows is passed
//! for the rest of the lap; when all rungs are passed, the next lap begins, after a longer pause. While the rungs that
//! are not passed are shut, and not worth waiting for, a passed one is tried again after such a pause. A rung that
//! can never take this request is out for good and makes up no part of a lap.
//!
//! A rung that works but answers badly is passed over while there is a better one, and was not tried then ([`weak`]).

mod climb;
mod ending;
mod lap;
mod line;
mod race;
mod soonest;
mod startable;
#[cfg(test)]
mod tests;
mod tried;
mod weak;

use super::cascade::Unsure;
use super::price::Tariff;
use super::quality::Weakness;
use super::shut::{Reason, Shut};
use super::{Attempt, ErrorClass, Job, NanoUsd, Patience, Remedy, Route, Rung, Timestamp, Unit, estimate};
pub use climb::climbs_from;
use ending::MOST_ATTEMPTS;
use lap::Lap;
pub use line::Line;
pub use race::UnderWay;
pub use soonest::soonest;
pub use startable::{Startable, is_stuck, startable, together};
use std::fmt;
use std::time::Duration;
use tried::Tried;

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
        unit: Unit,
        /// The amount that the request takes of it, estimated.
        needed: i64,
        /// The most that the limit allows.
        size: i64,
    },
    /// The target lacks something the request asks for: `tools`, `images`, `json_schema`, …
    Unsupported(String),
    /// The call may cost more than a whole budget.
    OverBudget {
        /// The budget.
        budget: String,
        /// The most that the call may cost.
        worst: NanoUsd,
        /// The most that the budget allows in all.
        limit: NanoUsd,
    },
    /// The price is unknown, and this budget lets no such call be made.
    Unpriced {
        /// The budget.
        budget: String,
    },
    /// The calls of the job might cost more than its route allows for one job.
    OverCost {
        /// What its calls have cost or may have cost so far; `None`: unknown.
        spent: Option<NanoUsd>,
        /// The most that this call may cost; `None`: its price is unknown.
        worst: Option<NanoUsd>,
        /// The most that they may cost together.
        limit: NanoUsd,
    },
}

/// Whether one rung may be called for one request, as the gate and the breaker see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RungHealth {
    /// May be called now.
    Open,
    /// May be called later.
    Shut(Shut),
    /// Can never take this request.
    Ineligible(Ineligible),
}

/// The state of one rung for one request, at the moment of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it may be called.
    pub health: RungHealth,
    /// How many calls of this size could begin now; `None`: not asked, or unknown.
    pub headroom: Option<usize>,
    /// The part of its tightest limit that is free, in millionths of what that holds when full; negative where more
    /// calls wait than that holds now. `None`: not asked.
    pub free: Option<i64>,
    /// How long an answer of this size has lately taken; `None`: unknown.
    pub latency: Option<Duration>,
    /// The jobs that wait for its places; `None`: not asked, or unknown.
    pub line: Option<Line>,
    /// Why jobs of the route pass it over while another rung may be called; `None`: they do not.
    pub weakness: Option<Weakness>,
}

impl From<RungHealth> for Condition {
    /// The condition of a rung of which nothing else is known.
    fn from(health: RungHealth) -> Self {
        Self { health, headroom: None, free: None, latency: None, line: None, weakness: None }
    }
}

/// Why a rung was not taken, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    Shut {
        /// Why, since when and until when.
        shut: Shut,
        /// Whether the rung was worth waiting for.
        worth: Worth,
    },
    /// It may be called, and another rung that may be called answers better.
    Weak(Weakness),
    /// It cannot take this request at all.
    Ineligible(Ineligible),
    /// It failed in this job's history in a way that moves the job on.
    Failed(ErrorClass),
    /// It is backing off after a failure.
    BackingOff {
        /// When the backoff ends.
        until: Timestamp,
    },
    /// It is backing off after a failure for so long that a call after that could not end by the job's deadline.
    TooLate {
        /// When the backoff ends.
        until: Timestamp,
        /// The latest instant at which a call could begin.
        latest: Timestamp,
    },
    /// It is being asked.
    UnderWay {
        /// Since when.
        since: Timestamp,
    },
}

/// Whether a job waits for a rung that is shut rather than take one after it, and the rule that decides so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worth {
    /// It waits: the rung opens while the job still has patience, which lasts until this instant ([`Timestamp::MAX`]:
    /// without end).
    Patience {
        /// When patience ends, perhaps because of the deadline.
        until: Timestamp,
    },
    /// It waits: the route does not leave a rung for this reason.
    NoFallback,
    /// It does not wait: the route has no patience.
    NoPatience,
    /// It does not wait: patience has ended, or ends before the rung opens.
    PatienceOver {
        /// When patience ended or will end.
        at: Timestamp,
    },
    /// It does not wait: the job's deadline, by which the call has to end too, cut patience short.
    DeadlineNear {
        /// When patience ended or will end: the deadline less the rung's timeout.
        at: Timestamp,
    },
    /// It does not wait: money, keys, models and paused providers do not come back by themselves.
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
    /// No surer answer came than this one, of which its rung was not sure enough.
    Unsure(Unsure),
    /// No acceptable answer will come.
    Failed {
        /// The class of the failure that decided it.
        class: ErrorClass,
        /// The reason, in words.
        reason: String,
    },
}

/// The next step of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call this rung (index in listed order).
    Call {
        /// Index of the rung in listed order.
        rung: usize,
        /// The rungs that stand before it in this job's order, and why each was not taken.
        skipped: Vec<(usize, Skip)>,
    },
    /// Do nothing until the given instant. Uses up no attempt.
    Wait {
        /// When to ask again; a rung that opens earlier is reason to ask earlier.
        until: Timestamp,
        /// The rung that the job waits for.
        rung: usize,
        /// Why that rung is shut.
        why: Skip,
    },
    /// The job is over.
    Finish(Ending),
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
            Self::OverBudget { budget, worst, limit } => write!(
                f,
                "may cost {worst}, and the whole budget {budget} is {limit}: a smaller max_tokens lowers that \
                 where the server is sent it, or raise the budget"
            ),
            Self::Unpriced { budget } => {
                write!(f, "has no price, and the budget {budget} takes only calls whose worst case is known")
            }
            Self::OverCost { worst: None, limit, .. } => {
                write!(f, "has no price, and max_cost of {limit} takes only calls whose worst case is known")
            }
            Self::OverCost { spent: None, limit, .. } => {
                write!(
                    f,
                    "a call before was answered by a model without a price, so it is not known what is left of \
                     max_cost of {limit}: give that model one (docs/prices.md)"
                )
            }
            Self::OverCost { spent: Some(NanoUsd::ZERO), worst: Some(worst), limit } => write!(
                f,
                "may cost {worst}, and max_cost is {limit}: a smaller max_tokens lowers that (without one, or where \
                 the server is not sent it, the longest answer of the model counts), or raise max_cost"
            ),
            Self::OverCost { spent: Some(spent), worst: Some(worst), limit } => {
                write!(f, "may cost {worst}, the calls before have cost up to {spent}, and max_cost is {limit}")
            }
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shut { shut, .. } | Self::Weak(Weakness { shut, .. }) => shut.reason.fmt(f),
            Self::Ineligible(why) => why.fmt(f),
            Self::Failed(class) => class.fmt(f),
            Self::BackingOff { .. } => f.write_str("backing off after a failure"),
            Self::TooLate { .. } => f.write_str("backing off after a failure for longer than the deadline leaves time"),
            Self::UnderWay { .. } => f.write_str("being asked"),
        }
    }
}

/// Decides the next step. Pure and total: same input, same output, no panic.
///
/// `order` is the route's rungs in the order in which this job tries them now (see [`order`](super::strategy::order));
/// `conditions` are in listed order, and a rung without an entry there counts as open. `history` is oldest first.
/// `under_way` are the calls that have not ended.
///
/// Guarantees for every input:
/// - After an accepted answer the step is `Finish(Succeeded)`: nothing is bought twice. While calls are under way no
///   job fails.
/// - A called rung is on the route, is neither shut nor ineligible nor being asked, and no provider asked this job to
///   wait for it.
/// - That a rung answers badly never keeps a job waiting, except for a better one that may be called within a moment.
/// - [`Step::Wait`] ends after `now`, and not after the deadline. While calls are under way it also ends when one of
///   them does, and may have no other end.
/// - A history has a bounded length, so every job ends, regardless of what the providers do.
/// - A job that has an answer does not fail: where no surer one comes, it ends with that.
#[must_use]
pub fn decide(
    job: &Job,
    route: &Route,
    order: &[usize],
    history: &[Attempt],
    under_way: &[UnderWay],
    conditions: &[Condition],
    now: Timestamp,
) -> Step {
    let ending = ending::of(job, route, history, conditions, now);
    if let Some(newest) = race::newest(under_way).filter(|_| ending != Some(Ending::Succeeded)) {
        if ending.is_some() || !race::takes_one_more(job, route, history, under_way) {
            return newest.wait();
        }
        let candidates = survey(job, route, order, history, under_way, conditions, now);
        return newest.in_turn(route, history, choose(job, route, history, candidates, now), now);
    }
    let last_resort = climb::last_resort(history);
    if let Some(ending) = ending {
        return Step::Finish(last_resort.filter(|_| ending != Ending::Succeeded).unwrap_or(ending));
    }
    if let Some(ending) = climb::sure_by_now(route, history) {
        return Step::Finish(ending);
    }
    let candidates = survey(job, route, climb::above(order, history), history, &[], conditions, now);
    match last_resort {
        Some(ending) if !candidates.iter().any(|(_, candidate)| candidate.has_turn()) => Step::Finish(ending),
        _ => climb::tell(choose(job, route, history, candidates, now), order, history),
    }
}

/// How a rung stands at one instant, history and condition taken together.
enum Candidate {
    /// May be called.
    Ready,
    /// May not be called, unless as a last resort.
    Out {
        why: Skip,
        /// When it may be called; `None`: never.
        until: Option<Timestamp>,
        turn: Turn,
    },
}

impl Candidate {
    /// Whether it is called now, or keeps its turn, so that the rungs after it do not matter.
    const fn has_turn(&self) -> bool {
        matches!(self, Self::Ready | Self::Out { turn: Turn::Kept, .. })
    }
}

/// How a rung that is out affects the rungs after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It keeps its turn: they wait with it.
    Kept,
    /// The rungs after it may be taken meanwhile.
    Lost,
    /// The rungs after it may be taken. If none of them can be, it has its turn again at the given instant.
    LastResort,
}

/// How each rung of `order` stands now.
fn survey(
    job: &Job,
    route: &Route,
    order: &[usize],
    history: &[Attempt],
    under_way: &[UnderWay],
    conditions: &[Condition],
    now: Timestamp,
) -> Vec<(usize, Candidate)> {
    let tried = tried::of(job, route, history);
    let times = Times { ready_at: job.ready_at, deadline: job.deadline };
    let rungs: Vec<(usize, &Tried, Access)> = order
        .iter()
        .filter_map(|&index| Some((index, route.rungs.get(index)?, tried.get(index)?)))
        .map(|(index, rung, tried)| {
            let not_before = tried.backing_off_until;
            let access = access_of(times, route, rung, tried.asked, not_before, health_of(conditions, index), now);
            let access = match access {
                Access::Open => cheaper_soon(job, route, rung, now).unwrap_or(Access::Open),
                access => access,
            };
            (index, tried, access)
        })
        .collect();
    let takes_part = |tried: &Tried, access: &Access| tried.excluded.is_none() && !matches!(access, Access::Never(_));
    let taking_part: Vec<usize> =
        rungs.iter().filter(|(_, tried, access)| takes_part(tried, access)).map(|&(index, ..)| index).collect();
    let lap = Lap::of(job, route, history, &taking_part);
    let mut candidates: Vec<(usize, Candidate)> = rungs
        .into_iter()
        .map(|(index, tried, access)| {
            if let Some(since) = race::asked_since(under_way, index) {
                return (index, Candidate::Out { why: Skip::UnderWay { since }, until: None, turn: Turn::Lost });
            }
            let (resting, latest) = (race::turn_at_rest(route, tried), latest_retry(job, route, index, tried));
            (index, candidate_of(index, tried, access, &lap, (latest, resting), now))
        })
        .collect();
    weak::pass_over(&mut candidates, route, conditions, now);
    candidates
}

fn health_of(conditions: &[Condition], rung: usize) -> &RungHealth {
    conditions.get(rung).map_or(&RungHealth::Open, |condition| &condition.health)
}

/// The latest instant at which a rung has to be tried again after a failure, so that the call can still end by the
/// deadline; only if the job may leave the rung after that failure.
fn latest_retry(job: &Job, route: &Route, rung: usize, tried: &Tried) -> Option<Timestamp> {
    let leaves = tried.last_failure.is_some_and(|class| route.falls_back_on(class));
    let rung = route.rungs.get(rung).filter(|_| leaves && route.patience != Patience::Forever)?;
    Some(job.deadline? - rung.timeouts.total)
}

/// When a job began to wait, and the time by which it has to have ended.
#[derive(Clone, Copy)]
struct Times {
    ready_at: Timestamp,
    deadline: Option<Timestamp>,
}

/// The obstacle between a job and a rung, apart from the job's own failures there.
enum Access {
    Open,
    Shut { shut: Shut, worth: Worth },
    Never(Ineligible),
}

impl Access {
    fn opens(&self) -> Timestamp {
        match self {
            Self::Open => Timestamp::MIN,
            Self::Shut { shut, .. } => shut.until,
            Self::Never(_) => Timestamp::MAX,
        }
    }
}

/// Joins the gate's state with the wait that the provider asked of this very job. The later opening counts, and the
/// earlier closing, as patience has been running since then. A gate that does not open by waiting, and that the job may
/// leave, is the reason, regardless of the wait that the provider asked. The job itself does not come back before
/// `not_before`.
fn access_of(
    times: Times,
    route: &Route,
    rung: &Rung,
    asked: Option<Shut>,
    not_before: Timestamp,
    health: &RungHealth,
    now: Timestamp,
) -> Access {
    let shut = match health {
        RungHealth::Open => None,
        RungHealth::Shut(shut) => Some(*shut).filter(|shut| shut.until > now),
        RungHealth::Ineligible(why) => return Access::Never(why.clone()),
    };
    let asked = asked.filter(|asked| asked.until > now);
    let shut = match (shut, asked) {
        (None, None) => return Access::Open,
        (Some(shut), None) | (None, Some(shut)) => shut,
        (Some(shut), Some(asked)) => {
            let later = if asked.until > shut.until { asked } else { shut };
            let decides = !shut.reason.passes() && route.leaves(shut.reason);
            let reason = if decides { shut.reason } else { later.reason };
            Shut { reason, since: asked.since.min(shut.since), until: later.until }
        }
    };
    let shut = Shut { until: shut.until.max(not_before), ..shut };
    Access::Shut { shut, worth: worth_of(times, route, rung, shut, now) }
}

/// Keeps a job from an open rung that costs less after its peak hours, if the route's strategy does not ask for haste
/// and the job has the patience to wait until then. A rung that is not worth that is called at the price of the hour.
fn cheaper_soon(job: &Job, route: &Route, rung: &Rung, now: Timestamp) -> Option<Access> {
    let other = rung.model.terms_at(now).off_peak.as_ref().filter(|_| route.strategy.waits_for_cheap_hours())?;
    let until = other.peak.end_after(now).filter(|until| *until > now)?;
    let cost = |price: Tariff| estimate::expected_cost(&price, job.input_tokens, job.max_output_tokens);
    if cost(rung.off_peak_price(now)?) >= cost(rung.peak_price(now)?) {
        return None;
    }
    let patience_ends = match route.patience {
        Patience::Forever => Timestamp::MAX,
        Patience::For(patience) => job.ready_at.min(now) + patience,
    };
    let latest = job.deadline.map_or(Timestamp::MAX, |deadline| deadline - rung.timeouts.total);
    let ends = patience_ends.min(latest);
    let shut = Shut { reason: Reason::PeakHours, since: now, until };
    (until <= ends).then_some(Access::Shut { shut, worth: Worth::Patience { until: ends } })
}

fn candidate_of(
    rung: usize,
    tried: &Tried,
    access: Access,
    lap: &Lap,
    (latest, resting): (Option<Timestamp>, Turn),
    now: Timestamp,
) -> Candidate {
    let out = |why| Candidate::Out { why, until: None, turn: Turn::Lost };
    if let Some(class) = tried.excluded {
        // The reason why it can never take the request says more than the fact that it did not.
        return out(match access {
            Access::Never(why) => Skip::Ineligible(why),
            Access::Open | Access::Shut { .. } => Skip::Failed(class),
        });
    }
    let due = tried.backing_off_until.max(lap.begins);
    match (access, lap.passed(rung)) {
        (Access::Never(why), _) => out(Skip::Ineligible(why)),
        (access, Some(class)) => {
            let until = Some(access.opens().max(due).max(lap.pause_ends));
            Candidate::Out { why: Skip::Failed(class), until, turn: Turn::LastResort }
        }
        // Its own retry would come too late; the dearer rungs may be in time.
        (access, None) if due > now && latest.is_some_and(|latest| due > latest) => {
            let (until, latest) = (access.opens().max(due), latest.unwrap_or(due));
            Candidate::Out { why: Skip::TooLate { until, latest }, until: Some(until), turn: Turn::Lost }
        }
        (Access::Shut { shut, worth }, None) => {
            let shut = Shut { until: shut.until.max(due), ..shut };
            let turn = if worth.is_waited_for() { Turn::Kept } else { Turn::Lost };
            Candidate::Out { why: Skip::Shut { shut, worth }, until: Some(shut.until), turn }
        }
        (Access::Open, None) if due > now => {
            Candidate::Out { why: Skip::BackingOff { until: due }, until: Some(due), turn: resting }
        }
        (Access::Open, None) => Candidate::Ready,
    }
}

/// Whether a job waits for a rung that is shut, or may take the rungs after it before it opens at `shut.until`.
///
/// A job may leave the rung only if the route allows it (`fallback_on`) and the wait is longer than the job's patience.
/// Patience runs from the later of two instants, when the job could first be run and when the rung was shut, and ends
/// early enough for a call to the shut rung to end before the job's deadline. Where waiting is pointless, patience
/// plays no part.
fn worth_of(times: Times, route: &Route, rung: &Rung, shut: Shut, now: Timestamp) -> Worth {
    if !route.leaves(shut.reason) {
        return Worth::NoFallback;
    }
    if !shut.reason.passes() {
        return Worth::Pointless;
    }
    let patience = match route.patience {
        Patience::Forever => return Worth::Patience { until: Timestamp::MAX },
        Patience::For(patience) => patience,
    };
    if patience.is_zero() {
        return Worth::NoPatience;
    }
    // An instant in the future comes from a clock that differs; it must not lengthen the wait.
    let ends = times.ready_at.max(shut.since).min(now) + patience;
    let latest = times.deadline.map_or(Timestamp::MAX, |deadline| deadline - rung.timeouts.total);
    // The rung opens later than now, so patience that has ended already counts as over here too.
    match ends.min(latest) {
        until if shut.until <= until => Worth::Patience { until },
        at if latest < ends => Worth::DeadlineNear { at },
        at => Worth::PatienceOver { at },
    }
}

/// The first rung that may be called; otherwise the first instant at which one may be; otherwise the end.
fn choose(job: &Job, route: &Route, history: &[Attempt], candidates: Vec<(usize, Candidate)>, now: Timestamp) -> Step {
    // The rungs behind the one whose turn it is do not matter.
    let turn = candidates.iter().position(|(_, candidate)| candidate.has_turn());
    let reachable = turn.map_or(candidates.len(), |index| index.saturating_add(1));
    let mut before = Vec::new();
    let mut soonest: Option<(Timestamp, usize, Skip)> = None;
    for (rung, candidate) in candidates.into_iter().take(reachable) {
        let Candidate::Out { why, until, turn: its } = candidate else { return Step::Call { rung, skipped: before } };
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
        Some((until, rung, why)) => Step::Wait { until: rest_until(until, job.deadline, now), rung, why },
        None => Step::Finish(ending::out_of_rungs(route, history, &before)),
    }
}

/// When to ask again where no rung opens before `until`: later than now, and not after the deadline.
fn rest_until(until: Timestamp, deadline: Option<Timestamp>, now: Timestamp) -> Timestamp {
    deadline.map_or(until, |deadline| until.min(deadline)).max(now + Duration::from_millis(1))
}
