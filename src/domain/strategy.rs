//! The order in which a job tries the rungs of its route: the seam at which strategies come in.
//!
//! A strategy is an arm of [`order`]. It is asked anew for each decision, and sees everything that may matter to any
//! strategy in its [`Conditions`]: a request's size, what the job has cost, a number to draw by, the key by which it
//! sticks to a rung, and for each rung whether it may be called, how much room it has and how long it takes. A
//! condition that a strategy does not look at need not be found out: [`Strategy::weighs_headroom`].
//!
//! Chance is a hash of the job and the rung's target: a job draws the same in every process and after every restart,
//! and a rung that is added to the route or taken off it moves no job from one of the others to another.

use super::decide::{Condition, RungHealth};
use super::job::spread;
use super::{Job, NanoUsd, Route, Strategy, Target, Timestamp, Typical, estimate};
use std::cmp::Reverse;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// One job in this many is sent by [`Strategy::Fastest`] to another rung than the fastest, to learn how fast that is.
pub const EXPLORES_ONE_IN: u64 = 16;

/// A bucket that is full, in the unit of [`Condition::free`].
pub const WHOLLY_FREE: i64 = 1_000_000;

/// The facts that a strategy sees about one job, or about all jobs of a route together.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// Estimated tokens of the prompt.
    pub input_tokens: i64,
    /// The output cap that the request sets.
    pub max_output_tokens: Option<i64>,
    /// To draw by: always the same for the same job, and spread evenly over jobs. `None`: the order is not for one job
    /// but for all of them, so every rung that some job draws first comes before those that none does.
    pub hash: Option<u64>,
    /// Hash of the key by which the job sticks to a rung, where it has one; of all jobs together, where it is the same.
    pub sticky: Option<u64>,
    /// The job's cost so far; `None`: unknown.
    pub spent: Option<NanoUsd>,
    /// The instant of the decision.
    pub now: Timestamp,
    /// The condition of each rung, in listed order.
    pub rungs: &'a [Condition],
}

impl<'a> Conditions<'a> {
    /// The conditions of one job that has cost this much.
    #[must_use]
    pub const fn of_job(job: &Job, spent: Option<NanoUsd>, now: Timestamp, conditions: &'a [Condition]) -> Self {
        let (input_tokens, max_output_tokens) = (job.input_tokens, job.max_output_tokens);
        let hash = Some(job.id.hash());
        Self { input_tokens, max_output_tokens, hash, sticky: job.sticky, spent, now, rungs: conditions }
    }

    /// The conditions of all jobs of a route whose jobs are like this, or of those that have this key.
    #[must_use]
    pub fn of_route(typical: Typical, sticky: Option<u64>, now: Timestamp, conditions: &'a [Condition]) -> Self {
        let (input_tokens, max_output_tokens) = (typical.input(), typical.cap());
        Self { input_tokens, max_output_tokens, hash: None, sticky, spent: None, now, rungs: conditions }
    }

    /// How long this job would wait for an answer of the rung; an unknown time counts as none.
    fn expected_wait(&self, rung: usize) -> Duration {
        let Some(condition) = self.rungs.get(rung) else { return Duration::ZERO };
        let opens = match &condition.health {
            RungHealth::Open => Duration::ZERO,
            RungHealth::Shut(shut) => self.now.until(shut.until),
            RungHealth::Ineligible(_) => Duration::MAX,
        };
        opens.saturating_add(condition.latency.unwrap_or_default())
    }
}

impl Strategy {
    /// Whether the strategy looks at how much room each rung has, which costs something to find out for each decision.
    #[must_use]
    pub const fn weighs_headroom(&self) -> bool {
        match self {
            Self::Balanced => true,
            Self::Cost | Self::Priority | Self::Weighted(_) | Self::Fastest | Self::Sticky(_) | Self::Race(_) => false,
        }
    }

    /// Whether a rung that has become full goes behind those that have room, so that no job waits for it while others
    /// are free.
    #[must_use]
    pub const fn leaves_full_rungs(&self) -> bool {
        matches!(self, Self::Balanced)
    }

    /// Whether a job may wait for the hours in which its rung costs less. The other strategies ask for the soonest
    /// answer, or for all the room that there is now.
    #[must_use]
    pub const fn waits_for_cheap_hours(&self) -> bool {
        match self {
            Self::Cost | Self::Priority | Self::Weighted(_) | Self::Sticky(_) => true,
            Self::Balanced | Self::Fastest | Self::Race(_) => false,
        }
    }

    /// Whether a job of this hash is one of those that find out how fast other rungs are than the fastest.
    #[must_use]
    pub fn explores(&self, hash: u64) -> bool {
        matches!(self, Self::Fastest) && spread(hash).is_multiple_of(EXPLORES_ONE_IN)
    }
}

/// A hash of a text that stays the same in every version of every program.
#[must_use]
pub fn hash_of(text: &str) -> u64 {
    spread(
        text.bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)),
    )
}

/// The number that a job, or a key, draws for a target.
fn draw(hash: u64, target: &Target) -> u64 {
    let tier = target.tier.map_or(0, |tier| hash_of(tier.name).rotate_left(31));
    spread(hash ^ hash_of(&target.provider).rotate_left(17) ^ hash_of(&target.model) ^ tier)
}

/// The same number as one between 0 and 1, both left out.
fn fraction(draw: u64) -> f64 {
    const BITS: i32 = 52;
    #[expect(clippy::cast_precision_loss, reason = "it has no more bits than the mantissa")]
    let drawn = (draw >> (64 - BITS)) as f64;
    (drawn + 0.5) / f64::powi(2.0, BITS)
}

/// Puts the route's rungs, as indices in listed order, into `order` as they are to be tried. Its old content goes; its
/// memory is used again.
///
/// Every rung is in it exactly once. Rungs between which the strategy sees no difference keep the listed order, unless
/// the strategy spreads jobs over them. By cost, rungs of unknown price come last: they may be the dearest of all.
pub fn order(route: &Route, seen: &Conditions<'_>, order: &mut Vec<usize>) {
    order.clear();
    order.extend(0..route.rungs.len());
    let drawn = |hash: Option<u64>, index: usize| {
        hash.zip(route.rungs.get(index)).map_or(0, |(hash, rung)| draw(hash, &rung.target))
    };
    // All sorts are stable, so the listed order decides between equals.
    match &route.strategy {
        Strategy::Priority => {}
        Strategy::Cost | Strategy::Race(_) => {
            let price = |index: usize| route.rungs.get(index).and_then(|rung| rung.price_at(seen.now));
            order.sort_by_key(|&index| {
                let cost = price(index)
                    .map(|price| estimate::expected_cost(&price, seen.input_tokens, seen.max_output_tokens));
                (cost.is_none(), cost)
            });
        }
        Strategy::Weighted(weights) => {
            // Clocks that ring at random, each as often as its weight says: the first one to ring is each of them as
            // often as its weight says, and so is the first of those that are left.
            let rings = |index: usize| match weights.get(index).copied().filter(|weight| *weight > 0.0) {
                None => f64::INFINITY,
                Some(weight) if seen.hash.is_some() => (-fraction(drawn(seen.hash, index)).ln() / weight).min(f64::MAX),
                Some(_) => 0.0,
            };
            order.sort_by(|&one, &other| rings(one).total_cmp(&rings(other)));
        }
        Strategy::Balanced => order.sort_by_key(|&index| {
            let condition = seen.rungs.get(index);
            let opens = match condition.map(|condition| &condition.health) {
                None | Some(RungHealth::Open) => Timestamp::MIN,
                Some(RungHealth::Shut(shut)) => shut.until,
                Some(RungHealth::Ineligible(_)) => Timestamp::MAX,
            };
            let free = condition.and_then(|condition| condition.free).unwrap_or(WHOLLY_FREE);
            (opens, Reverse(free), drawn(seen.hash, index))
        }),
        Strategy::Fastest => {
            order.sort_by_key(|&index| (seen.expected_wait(index), drawn(seen.hash, index)));
            explore(route, seen, order);
        }
        Strategy::Sticky(_) => {
            let key = seen.sticky.or(seen.hash);
            order.sort_by_key(|&index| Reverse(drawn(key, index)));
        }
    }
}

/// Puts another open rung first, if this job is one of those that find out how fast it is.
fn explore(route: &Route, seen: &Conditions<'_>, order: &mut [usize]) {
    let Some(hash) = seen.hash.filter(|hash| route.strategy.explores(*hash)) else { return };
    let is_open =
        |index: &usize| seen.rungs.get(*index).is_none_or(|condition| matches!(condition.health, RungHealth::Open));
    let open = || order.iter().enumerate().skip(1).filter(|(_, index)| is_open(index)).map(|(place, _)| place);
    let others = u64::try_from(open().count()).unwrap_or(0);
    let chosen = (spread(hash) / EXPLORES_ONE_IN).checked_rem(others);
    let place = chosen.and_then(|chosen| open().nth(usize::try_from(chosen).unwrap_or(0)));
    if let Some(others) = place.and_then(|place| order.get_mut(..=place)) {
        others.rotate_right(1);
    }
}

/// The rungs that jobs of the route try first, where that differs from job to job regardless of the conditions: each
/// with its share of the jobs. Empty where all jobs try the same one first; so do jobs that are known to have one key.
#[must_use]
pub fn first_choices(route: &Route, sticky: Option<u64>) -> Vec<(usize, f64)> {
    let even = vec![1.0; route.rungs.len()];
    let weights: &[f64] = match &route.strategy {
        Strategy::Weighted(weights) => weights,
        Strategy::Sticky(_) if sticky.is_none() => &even,
        Strategy::Cost
        | Strategy::Priority
        | Strategy::Balanced
        | Strategy::Fastest
        | Strategy::Sticky(_)
        | Strategy::Race(_) => return Vec::new(),
    };
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let sum: f64 = weights.iter().map(|weight| weight / largest).sum();
    let share = |(index, weight): (usize, &f64)| (index, weight / largest / sum);
    weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0).map(share).collect()
}
