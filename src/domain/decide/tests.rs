//! The decision, case by case; in [`worlds`] that do their worst.

mod climb;
mod endings;
mod failures;
mod game;
mod patience;
mod race;
mod weak;
mod worlds;

use super::*;
use crate::domain::request::Extras;
use crate::domain::shut::Reason;
use crate::domain::{Bearing, JobId, Model, Outcome, Remedy, SoftFailure, Strategy, Target, Timeouts};
use ErrorClass as Class;

const NOW: Timestamp = Timestamp(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn job() -> Job {
    let (id, ready_at) = (JobId(7), NOW);
    Job {
        id,
        ready_at,
        deadline: None,
        max_attempts: None,
        input_tokens: 100,
        max_output_tokens: None,
        sticky: None,
        extras: Extras::default(),
    }
}

/// A route of this many rungs, `p/0` the cheapest, that falls back on everything and has ten minutes of patience.
fn route(rungs: usize) -> Route {
    let rung = |index: usize| Rung {
        target: Target::new("p", index.to_string()),
        model: Model::default(),
        timeouts: Timeouts::of(MINUTE),
        stream: false,
    };
    Route {
        patience: Patience::For(MINUTE * 10),
        max_attempts: 6,
        fallback_on: Class::ALL.iter().copied().collect(),
        reask: true,
        ..Route::plain("r", (0..rungs).map(rung).collect())
    }
}

fn without(mut route: Route, classes: &[Class]) -> Route {
    route.fallback_on.retain(|class| !classes.contains(class));
    route
}

fn failed(rung: usize, class: Class) -> Attempt {
    Attempt::new(Some(rung), Outcome::Failed(class), NOW)
}

fn rejected(rung: usize, kind: SoftFailure) -> Attempt {
    Attempt::new(Some(rung), Outcome::Rejected(kind), NOW)
}

fn shut(reason: Reason, wait: Duration) -> RungHealth {
    RungHealth::Shut(Shut { reason, since: NOW, until: NOW + wait })
}

/// Decides when each rung's health is all that is known of it.
fn decide(job: &Job, route: &Route, order: &[usize], past: &[Attempt], health: &[RungHealth], now: Timestamp) -> Step {
    let conditions: Vec<Condition> = health.iter().cloned().map(Condition::from).collect();
    super::decide(job, route, order, past, &[], &conditions, now)
}

/// Decides at `now` with the rungs in listed order, all open.
fn after(route: &Route, history: &[Attempt], now: Timestamp) -> Step {
    let order: Vec<usize> = (0..route.rungs.len()).collect();
    decide(&job(), route, &order, history, &vec![RungHealth::Open; route.rungs.len()], now)
}

/// Decides for a job without history.
fn fresh(route: &Route, health: &[RungHealth]) -> Step {
    let order: Vec<usize> = (0..route.rungs.len()).collect();
    decide(&job(), route, &order, &[], health, NOW)
}

/// The rung that is called once every wait is over.
fn next_call(route: &Route, history: &[Attempt]) -> Option<usize> {
    let mut now = NOW;
    for _ in 0..10 {
        match after(route, history, now) {
            Step::Call { rung, .. } => return Some(rung),
            Step::Wait { until, .. } => now = until,
            Step::Finish(_) => return None,
        }
    }
    panic!("waits without end")
}

fn called(step: &Step) -> Option<usize> {
    match step {
        Step::Call { rung, .. } => Some(*rung),
        Step::Wait { .. } | Step::Finish(_) => None,
    }
}

fn wait_until(step: &Step) -> Option<Timestamp> {
    match step {
        Step::Wait { until, .. } => Some(*until),
        Step::Call { .. } | Step::Finish(_) => None,
    }
}

fn failure(step: &Step) -> Option<(Class, &str)> {
    match step {
        Step::Finish(Ending::Failed { class, reason }) => Some((*class, reason)),
        Step::Finish(Ending::Succeeded | Ending::Unsure(_)) | Step::Call { .. } | Step::Wait { .. } => None,
    }
}

#[test]
fn a_fresh_job_calls_the_first_rung_of_its_order() {
    assert_eq!(fresh(&route(2), &[RungHealth::Open, RungHealth::Open]), Step::Call { rung: 0, skipped: vec![] });
    let health = [RungHealth::Open, RungHealth::Open];
    let step = decide(&job(), &route(2), &[1, 0], &[], &health, NOW);
    assert_eq!(step, Step::Call { rung: 1, skipped: vec![] });
}

#[test]
fn an_order_that_does_not_fit_the_route_is_survived() {
    assert_eq!(called(&decide(&job(), &route(1), &[9, usize::MAX, 0], &[], &[], NOW)), Some(0));
    let (class, reason) = (Class::InvalidRequest, "no rung is left: the route has no rungs");
    assert_eq!(failure(&decide(&job(), &route(0), &[], &[], &[], NOW)), Some((class, reason)));
}
