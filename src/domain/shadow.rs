//! Shadow traffic: a sampled share of the accepted jobs of a route is also sent to another target, whose answers are
//! compared and never used.
//!
//! The shadow of a job is an ordinary job of a route of its own, which has that target alone. So limits, budgets,
//! breakers, pauses and the ledger are the usual ones.

use super::budget::{Budget, Coverage, Period, Unpriced};
use super::decide::{Skip, Startable};
use super::route::{Route, Rung, Strategy, Target};
use super::shut::Reason;
use super::stop_loss::MaxFailed;
use super::strategy::hash_of;
use super::{JobId, NanoUsd};
use std::sync::Arc;
use std::time::Duration;

/// The beginning of the names of such routes. Configured names have no colon. `migrations/0037…` has it, too.
const PREFIX: &str = "shadow:";

/// The time that a shadow has for its call. After that it says little of the present, and its job ends.
pub const TIME: Duration = Duration::from_hours(24);

/// The shadow of a route.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// The share of the accepted jobs that have one, in millionths.
    share: MaxFailed,
    /// The route of the shadows: the target alone.
    pub route: Arc<Route>,
    /// The dollars that shadows may cost in a day.
    pub limit: NanoUsd,
}

/// The name of the route of the shadows of this route.
#[must_use]
pub fn route_name(route: &str) -> String {
    format!("{PREFIX}{route}")
}

/// The route whose jobs have shadows on the route of this name; `None`: it is not one of shadows.
#[must_use]
pub fn shadowed(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)
}

impl Shadow {
    /// The shadow of a route on this rung: one call, with the route's own defaults and rules for answers. What chooses
    /// between rungs, leads to another route, or answers without a call is left out.
    #[must_use]
    pub fn of(route: &Route, rung: Rung, share: MaxFailed, limit: NanoUsd) -> Self {
        let route = Route {
            name: route_name(&route.name),
            rungs: vec![rung],
            strategy: Strategy::Priority,
            max_attempts: 1,
            // It has a limit of its own.
            max_cost: None,
            reask: false,
            forks: Vec::new(),
            cache: None,
            cascade: None,
            shadow: None,
            pack: None,
            ..route.clone()
        };
        Self { share, route: Arc::new(route), limit }
    }

    /// The share of the accepted jobs that have one.
    #[must_use]
    pub const fn share(&self) -> MaxFailed {
        self.share
    }

    /// The target that is asked.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        self.route.rungs.first().map(|rung| &rung.target)
    }

    /// The budget that holds its limit: of each day, by UTC.
    #[must_use]
    pub fn budget(&self) -> Budget {
        Budget {
            name: self.route.name.clone(),
            scope: Coverage::Route(self.route.name.clone()),
            period: Period::Day,
            limit: self.limit,
            soft: None,
            then_route: None,
            unpriced: Unpriced::Refuse,
        }
    }

    /// Whether this job has a shadow, if its answer is accepted: always the same for the same job and route.
    #[must_use]
    pub fn is_drawn(&self, job: JobId) -> bool {
        const WHOLE: u64 = 1_000_000;
        hash_of(&format!("{}\0{}", self.route.name, job.0)) % WHOLE < u64::from(self.share.millionths())
    }
}

/// Whether its target may be called, or waits for a limit alone. Otherwise a shadow is not worth making now: shadows
/// would gather for as long as the target is shut.
#[must_use]
pub fn may_be_asked(ahead: &Startable) -> bool {
    match ahead {
        Startable::Later { why: Skip::Shut { shut, .. }, .. } => {
            matches!(shut.reason, Reason::Concurrency | Reason::RateLimit)
        }
        Startable::Later { .. } | Startable::ToEnd => false,
        Startable::Now(_) => true,
    }
}

#[cfg(test)]
mod tests;
