//! The decision, case by case and then in worlds that do their worst.

use super::ending::MOST_ATTEMPTS;
use super::*;
use crate::domain::price::Price;
use crate::domain::request::Pass;
use crate::domain::validation::Rules;
use crate::domain::{Bearing, JobId, Model, Outcome, Remedy, SoftFailure, Strategy, Target};
use ErrorClass as Class;
use proptest::prelude::*;
use proptest::strategy::Strategy as Values;

const NOW: Timestamp = Timestamp(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn job() -> Job {
    let (id, ready_at) = (JobId(7), NOW);
    Job { id, ready_at, deadline: None, max_attempts: None, input_tokens: 100, max_output_tokens: None }
}

/// A route of so many rungs, `p/0` the cheapest, that falls back on everything and has ten minutes of patience.
fn route(rungs: usize) -> Route {
    let rung = |index: usize| Rung {
        target: Target { provider: "p".into(), model: index.to_string() },
        model: Model { price: None::<Price>, ..Model::default() },
        total_timeout: MINUTE,
    };
    Route {
        name: "r".into(),
        rungs: (0..rungs).map(rung).collect(),
        strategy: Strategy::Priority,
        patience: Patience::For(MINUTE * 10),
        max_attempts: 6,
        fallback_on: Class::ALL.iter().copied().collect(),
        rules: Rules::default(),
        pass: Pass::default(),
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

fn closed(reason: Closed, wait: Duration) -> RungHealth {
    RungHealth::Closed { reason, since: NOW, until: NOW + wait }
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
        Step::Finish(Ending::Succeeded) | Step::Call { .. } | Step::Wait { .. } => None,
    }
}

// === Where to begin ===

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

// === Closed rungs and patience ===

#[test]
fn a_job_waits_for_a_cheaper_rung_within_its_patience() {
    let step = fresh(&route(2), &[closed(Closed::RateLimit, MINUTE), RungHealth::Open]);
    let until = NOW + MINUTE;
    let worth = Worth::Patience { until: NOW + MINUTE * 10 };
    assert_eq!(step, Step::Wait { until, rung: 0, why: Skip::Closed { reason: Closed::RateLimit, until, worth } });
}

#[test]
fn a_job_takes_the_dearer_rung_when_the_wait_exceeds_its_patience() {
    let step = fresh(&route(2), &[closed(Closed::RateLimit, HOUR), RungHealth::Open]);
    let worth = Worth::PatienceOver { at: NOW + MINUTE * 10 };
    let why = Skip::Closed { reason: Closed::RateLimit, until: NOW + HOUR, worth };
    assert_eq!(step, Step::Call { rung: 1, skipped: vec![(0, why)] });
}

#[test]
fn patience_zero_never_waits_for_a_cheaper_rung() {
    let route = Route { patience: Patience::For(Duration::ZERO), ..route(2) };
    for reason in [Closed::RateLimit, Closed::Concurrency, Closed::Breaker] {
        let health = [closed(reason, Duration::from_millis(1)), RungHealth::Open];
        assert_eq!(called(&fresh(&route, &health)), Some(1), "{reason}");
        // Not even when clocks differ.
        let until = NOW + MINUTE;
        let ahead = [RungHealth::Closed { reason, since: NOW + SECOND, until }, RungHealth::Open];
        assert_eq!(called(&fresh(&route, &ahead)), Some(1), "{reason}");
    }
}

#[test]
fn patience_without_end_never_takes_the_dearer_rung_for_a_wait() {
    let route = Route { patience: Patience::Forever, ..route(2) };
    for reason in [Closed::RateLimit, Closed::Concurrency, Closed::Breaker] {
        let health = [closed(reason, HOUR * 1_000), RungHealth::Open];
        assert_eq!(wait_until(&fresh(&route, &health)), Some(NOW + HOUR * 1_000), "{reason}");
    }
}

#[test]
fn patience_runs_from_when_the_rung_closed() {
    let health =
        [RungHealth::Closed { reason: Closed::Breaker, since: NOW, until: NOW + MINUTE * 11 }, RungHealth::Open];
    let waited = |job: &Job, now| called(&decide(job, &route(2), &[0, 1], &[], &health, now));
    assert_eq!(waited(&job(), NOW + MINUTE), Some(1), "opens after the patience ends");
    let soon = [
        RungHealth::Closed { reason: Closed::Breaker, since: NOW - MINUTE * 9, until: NOW + MINUTE / 2 },
        RungHealth::Open,
    ];
    let old = Job { ready_at: NOW - HOUR, ..job() };
    assert_eq!(wait_until(&decide(&old, &route(2), &[0, 1], &[], &soon, NOW)), Some(NOW + MINUTE / 2));
    assert_eq!(called(&decide(&old, &route(2), &[0, 1], &[], &soon, NOW + MINUTE / 4)), None);
    let long = [
        RungHealth::Closed { reason: Closed::Breaker, since: NOW - MINUTE * 10, until: NOW + SECOND },
        RungHealth::Open,
    ];
    assert_eq!(called(&decide(&old, &route(2), &[0, 1], &[], &long, NOW)), Some(1), "patience is over");
    // A job that came late has its whole patience before it.
    assert_eq!(called(&decide(&job(), &route(2), &[0, 1], &[], &long, NOW)), None);
}

#[test]
fn a_deadline_leaves_time_for_a_call_after_the_wait() {
    let due = |wait| Job { deadline: Some(NOW + wait), ..job() };
    let health = [closed(Closed::RateLimit, MINUTE), RungHealth::Open];
    let step = |job: &Job| decide(job, &route(2), &[0, 1], &[], &health, NOW);
    assert_eq!(wait_until(&step(&due(MINUTE * 2))), Some(NOW + MINUTE));
    assert_eq!(called(&step(&due(MINUTE + SECOND))), Some(1));
}

/// Why the first of two rungs was not waited for.
fn passed_over(step: &Step) -> Option<Worth> {
    match step {
        Step::Call { rung: 1, skipped } => match skipped.as_slice() {
            [(0, Skip::Closed { worth, .. })] => Some(*worth),
            _ => None,
        },
        Step::Call { .. } | Step::Wait { .. } | Step::Finish(_) => None,
    }
}

#[test]
fn a_rung_that_is_passed_over_says_what_cut_the_wait_short() {
    let step = |job: &Job, patience, reason| {
        let route = Route { patience, ..route(2) };
        decide(job, &route, &[0, 1], &[], &[closed(reason, HOUR), RungHealth::Open], NOW)
    };
    let ten = Patience::For(MINUTE * 10);
    let due = |wait| Job { deadline: Some(NOW + wait), ..job() };
    for (job, patience, reason, worth) in [
        (job(), Patience::For(Duration::ZERO), Closed::Breaker, Worth::NoPatience),
        (due(MINUTE), Patience::For(Duration::ZERO), Closed::Breaker, Worth::NoPatience),
        (job(), ten, Closed::RateLimit, Worth::PatienceOver { at: NOW + MINUTE * 10 }),
        (due(HOUR), ten, Closed::RateLimit, Worth::PatienceOver { at: NOW + MINUTE * 10 }),
        // The timeout is a minute.
        (due(MINUTE * 9), ten, Closed::RateLimit, Worth::DeadlineNear { at: NOW + MINUTE * 8 }),
        (due(SECOND), ten, Closed::Breaker, Worth::DeadlineNear { at: NOW + SECOND - MINUTE }),
        (job(), Patience::Forever, Closed::Auth, Worth::Pointless),
        (job(), ten, Closed::Paused, Worth::Pointless),
        (due(HOUR), Patience::Forever, Closed::Paused, Worth::Pointless),
    ] {
        assert_eq!(passed_over(&step(&job, patience, reason)), Some(worth), "{job:?}, {patience:?}, {reason}");
    }
}

#[test]
fn a_job_that_waits_says_how_long_it_will() {
    let waits = |route: &Route, job: &Job| {
        let health = [closed(Closed::RateLimit, MINUTE), RungHealth::Open];
        match decide(job, route, &[0, 1], &[], &health, NOW) {
            Step::Wait { why: Skip::Closed { worth, .. }, .. } => Some(worth),
            _ => None,
        }
    };
    let patience = |until| Some(Worth::Patience { until });
    assert_eq!(waits(&route(2), &job()), patience(NOW + MINUTE * 10));
    assert_eq!(waits(&route(2), &Job { deadline: Some(NOW + MINUTE * 4), ..job() }), patience(NOW + MINUTE * 3));
    assert_eq!(waits(&Route { patience: Patience::Forever, ..route(2) }, &job()), patience(Timestamp::MAX));
    assert_eq!(waits(&without(route(2), &[Class::RateLimit]), &job()), Some(Worth::NoFallback));
    // With nowhere else to go it waits although there is no patience for it.
    let nowhere = Route { patience: Patience::For(SECOND), ..route(1) };
    assert_eq!(waits(&nowhere, &job()), Some(Worth::PatienceOver { at: NOW + SECOND }));
}

#[test]
fn a_retry_that_would_come_too_late_for_the_deadline_leaves_the_turn_to_the_next_rung() {
    let history = [Attempt { retry_at: Some(NOW + MINUTE * 3), ..failed(0, Class::Overloaded) }];
    let due = |wait| Job { deadline: Some(NOW + wait), ..job() };
    let step = |route: &Route, job: &Job| decide(job, route, &[0, 1], &history, &[], NOW);
    assert_eq!(wait_until(&step(&route(2), &due(MINUTE * 4))), Some(NOW + MINUTE * 3));
    let why = Skip::TooLate { until: NOW + MINUTE * 3, latest: NOW + MINUTE * 4 - SECOND - MINUTE };
    let late = due(MINUTE * 3 + SECOND * 59);
    assert_eq!(step(&route(2), &late), Step::Call { rung: 1, skipped: vec![(0, why)] });
    // With nowhere else to go, or none that it may go to, it is worth the try.
    for stays in [route(1), without(route(2), &[Class::Overloaded])] {
        assert_eq!(wait_until(&step(&stays, &late)), Some(NOW + MINUTE * 3));
    }
    // Whoever waits for ever means it.
    let patient = Route { patience: Patience::Forever, ..route(2) };
    assert_eq!(wait_until(&step(&patient, &late)), Some(NOW + MINUTE * 3));
}

#[test]
fn a_dearer_rung_needs_a_route_that_falls_back_on_the_reason() {
    for (reason, classes) in [
        (Closed::RateLimit, &[Class::RateLimit][..]),
        (Closed::Concurrency, &[Class::RateLimit]),
        (
            Closed::Breaker,
            &[
                Class::ServerError,
                Class::Overloaded,
                Class::Timeout,
                Class::Network,
                Class::Unreachable,
                Class::SoftFailure,
            ],
        ),
        (Closed::QuotaExhausted, &[Class::QuotaExhausted]),
        (Closed::Auth, &[Class::Auth]),
    ] {
        let health = [closed(reason, HOUR), RungHealth::Open];
        assert_eq!(called(&fresh(&without(route(2), classes), &health)), None, "{reason}");
        for &class in classes {
            let others: Vec<Class> = Class::ALL.iter().copied().filter(|&other| other != class).collect();
            assert_eq!(called(&fresh(&without(route(2), &others), &health)), Some(1), "{reason}, {class}");
        }
    }
    let health = [closed(Closed::Paused, HOUR), RungHealth::Open];
    assert_eq!(called(&fresh(&without(route(2), Class::ALL), &health)), Some(1));
    // A model that is gone takes no request at all: only a route that never falls back waits for it.
    let health = [closed(Closed::Model, HOUR), RungHealth::Open];
    let listed = Route { fallback_on: [Class::RateLimit].into(), ..route(2) };
    assert_eq!(called(&fresh(&listed, &health)), Some(1));
    assert_eq!(called(&fresh(&without(route(2), Class::ALL), &health)), None);
}

#[test]
fn waiting_for_money_keys_models_and_paused_providers_is_pointless() {
    let route = Route { patience: Patience::Forever, ..route(2) };
    for reason in [Closed::QuotaExhausted, Closed::Auth, Closed::Model, Closed::Paused] {
        assert_eq!(called(&fresh(&route, &[closed(reason, SECOND), RungHealth::Open])), Some(1), "{reason}");
        // With nowhere else to go there is nothing but to wait.
        let health = [closed(reason, MINUTE), closed(reason, SECOND)];
        assert_eq!(wait_until(&fresh(&route, &health)), Some(NOW + SECOND), "{reason}");
        // Nor does it become worth while because the provider has asked this job for patience, too.
        let asked = [Attempt { retry_at: Some(NOW + MINUTE), ..failed(0, Class::RateLimit) }];
        let health = [closed(reason, SECOND), RungHealth::Open];
        assert_eq!(called(&decide(&job(), &route, &[0, 1], &asked, &health, NOW)), Some(1), "{reason}");
        assert_eq!(wait_until(&decide(&job(), &route, &[0], &asked, &health, NOW)), Some(NOW + MINUTE), "{reason}");
    }
}

#[test]
fn a_job_wakes_for_whichever_rung_opens_first() {
    let health = [closed(Closed::Auth, HOUR), closed(Closed::RateLimit, MINUTE), closed(Closed::Breaker, SECOND)];
    // The third may not be taken before the second, for which there is patience.
    assert_eq!(wait_until(&fresh(&route(3), &health)), Some(NOW + MINUTE));
    let route = Route { patience: Patience::For(Duration::ZERO), ..route(3) };
    assert_eq!(wait_until(&fresh(&route, &health)), Some(NOW + SECOND));
}

#[test]
fn a_closure_that_is_over_is_none() {
    let health = [RungHealth::Closed { reason: Closed::Breaker, since: NOW - HOUR, until: NOW }];
    assert_eq!(called(&fresh(&route(1), &health)), Some(0));
}

// === What each failure calls for ===

#[test]
fn each_failure_is_tried_again_and_passed_on_as_its_remedy_says() {
    for &class in Class::ALL {
        let tries_here = (1..5).find(|&times| next_call(&route(2), &vec![failed(0, class); times]) != Some(0));
        let then = next_call(&route(2), &vec![failed(0, class); tries_here.unwrap_or(4)]);
        let expected = match class.remedy() {
            Remedy::WaitForGate(_) => (None, Some(0)),
            Remedy::RetrySame { tries } => (Some(usize::try_from(tries).unwrap() + 1), Some(1)),
            Remedy::NextRung | Remedy::LargerWindow => (Some(1), Some(1)),
            Remedy::End | Remedy::Mend => (Some(1), None),
        };
        assert_eq!((tries_here, then), expected, "{class}");
    }
}

#[test]
fn a_route_that_does_not_fall_back_stays_or_ends() {
    for &class in Class::ALL {
        let route = without(route(2), &[class]);
        let step = next_call(&route, &[failed(0, class)]);
        match class.remedy() {
            Remedy::WaitForGate(_) => assert_eq!(step, Some(0), "{class}"),
            Remedy::RetrySame { .. } => {
                assert_eq!(next_call(&route, &vec![failed(0, class); 5]), Some(0), "{class}");
            }
            // What says that a target cannot take the request at all moves on unless the route never does.
            _ if class.excludes_the_target() => assert_eq!(step, Some(1), "{class}"),
            Remedy::NextRung | Remedy::LargerWindow | Remedy::End | Remedy::Mend => assert_eq!(step, None, "{class}"),
        }
        let pinned = Route { fallback_on: [].into(), ..route };
        assert_ne!(next_call(&pinned, &[failed(0, class)]), Some(1), "{class}");
    }
}

#[test]
fn each_unusable_answer_is_tried_again_or_passed_on_as_its_remedy_says() {
    for &kind in SoftFailure::ALL {
        let again = next_call(&route(2), &[rejected(0, kind)]) == Some(0);
        assert_eq!(again, kind.remedy() == Remedy::RetrySame { tries: 1 }, "{kind}");
        assert_eq!(next_call(&route(2), &[rejected(0, kind), rejected(0, kind)]), Some(1), "{kind}");
        let stays = without(route(2), &[Class::SoftFailure]);
        let next = (kind.remedy() != Remedy::NextRung).then_some(0);
        assert_eq!(next_call(&stays, &vec![rejected(0, kind); 5]), next, "{kind}");
    }
}

#[test]
fn an_answer_that_its_cap_cut_is_bought_once_from_each_rung_and_no_more() {
    let history = [rejected(0, SoftFailure::Truncated), rejected(1, SoftFailure::Truncated)];
    assert_eq!(next_call(&route(2), &history[..1]), Some(1));
    let step = after(&route(2), &history, NOW);
    let (class, reason) = failure(&step).expect("both rungs have cut it");
    assert_eq!(class, Class::SoftFailure);
    assert!(reason.contains("max_tokens"), "{reason}");
}

#[test]
fn the_providers_last_word_goes_before_the_remedy() {
    let history = [Attempt { is_final: true, ..failed(0, Class::ServerError) }];
    assert_eq!(next_call(&route(2), &history), Some(1));
    // With nowhere else to go the job tries again after its pause, within its attempts.
    assert_eq!(next_call(&route(1), &history), Some(0));
}

#[test]
fn failures_of_different_classes_add_up_on_a_rung() {
    let history = [failed(0, Class::ServerError), failed(0, Class::Network), failed(0, Class::Timeout)];
    assert_eq!(next_call(&route(2), &history[..2]), Some(0));
    assert_eq!(next_call(&route(2), &history), Some(1));
}

#[test]
fn a_retry_waits_for_its_backoff_and_the_dearer_rung_waits_too() {
    let step = after(&route(2), &[failed(0, Class::ServerError)], NOW);
    let until = NOW + crate::domain::backoff::delay(job().id, 1);
    assert_eq!(step, Step::Wait { until, rung: 0, why: Skip::BackingOff { until } });
    assert_eq!(called(&after(&route(2), &[failed(0, Class::ServerError)], until)), Some(0));
}

#[test]
fn a_retry_waits_as_long_as_the_provider_asked() {
    let asked = |wait| [Attempt { retry_at: Some(NOW + wait), ..failed(0, Class::Overloaded) }];
    assert_eq!(wait_until(&after(&route(2), &asked(MINUTE * 5), NOW)), Some(NOW + MINUTE * 5));
    // Longer than there is patience for: it is passed as if it had failed often enough.
    assert_eq!(called(&after(&route(2), &asked(MINUTE * 11), NOW)), Some(1));
    let patient = Route { patience: Patience::Forever, ..route(2) };
    assert_eq!(wait_until(&after(&patient, &asked(MINUTE * 11), NOW)), Some(NOW + MINUTE * 11));
}

#[test]
fn a_retry_that_is_due_later_than_the_rung_opens_is_what_patience_is_asked_for() {
    let route = Route { patience: Patience::For(SECOND * 30), ..route(2) };
    let history = [Attempt { retry_at: Some(NOW + SECOND * 50), ..failed(0, Class::Overloaded) }];
    let health = [closed(Closed::Breaker, SECOND * 10), RungHealth::Open];
    assert_eq!(called(&decide(&job(), &route, &[0, 1], &history, &health, NOW)), Some(1));
}

#[test]
fn a_prompt_that_is_too_long_moves_only_to_a_larger_window() {
    let mut route = route(5);
    for (rung, window) in route.rungs.iter_mut().zip([Some(8_000), Some(4_000), Some(8_000), None, Some(128_000)]) {
        rung.model.capabilities.context_window = window;
    }
    let step = after(&route, &[failed(0, Class::ContextLength)], NOW);
    let skip = |rung| (rung, Skip::Failed(Class::ContextLength));
    assert_eq!(step, Step::Call { rung: 3, skipped: vec![skip(0), skip(1), skip(2)] });
    // A window that nobody knows says nothing about the others.
    let step = after(&route, &[failed(3, Class::ContextLength)], NOW);
    assert_eq!(called(&step), Some(0));
}

#[test]
fn the_attempt_of_a_target_that_left_the_route_only_counts() {
    let gone = |class| Attempt { rung: None, ..failed(0, class) };
    assert_eq!(called(&after(&route(1), &[gone(Class::NotFound), gone(Class::ServerError)], NOW)), Some(0));
    assert!(failure(&after(&route(1), &vec![gone(Class::ServerError); 6], NOW)).is_some());
    let beyond = Attempt { rung: Some(99), ..failed(0, Class::ContextLength) };
    assert_eq!(called(&after(&without(route(1), Class::ALL), &[beyond], NOW)), Some(0));
}

// === Waiting ===

#[test]
fn a_wait_never_uses_up_an_attempt() {
    for class in [Class::RateLimit, Class::RateLimitDaily, Class::RampLimit, Class::QuotaExhausted, Class::Auth] {
        let mut history = vec![failed(0, class); 900];
        assert_eq!(next_call(&route(1), &history), Some(0), "{class}");
        history.extend(vec![failed(0, Class::ServerError); 5]);
        assert_eq!(next_call(&route(1), &history), Some(0), "{class}");
        history.push(failed(0, Class::ServerError));
        assert_eq!(next_call(&route(1), &history), None, "{class}");
    }
}

#[test]
fn an_abandoned_attempt_never_uses_up_an_attempt() {
    assert_eq!(next_call(&route(1), &vec![failed(0, Class::Abandoned); 50]), Some(0));
}

#[test]
fn a_wait_that_the_provider_asked_for_is_kept_although_the_gate_says_open() {
    let history = [Attempt { retry_at: Some(NOW + MINUTE), ..failed(0, Class::RateLimit) }];
    assert_eq!(wait_until(&after(&route(2), &history, NOW)), Some(NOW + MINUTE));
    assert_eq!(called(&after(&route(2), &history, NOW + MINUTE)), Some(0));
    let long = [Attempt { retry_at: Some(NOW + HOUR), ..failed(0, Class::RateLimitDaily) }];
    assert_eq!(called(&after(&route(2), &long, NOW)), Some(1));
}

#[test]
fn patience_counts_from_the_first_of_several_waits() {
    let wait = |minutes: u32| {
        let ended_at = NOW + MINUTE * minutes;
        Attempt { ended_at, retry_at: Some(ended_at + MINUTE * 2), ..failed(0, Class::RateLimit) }
    };
    let history = [wait(0), wait(2), wait(4), wait(6), wait(8), wait(9)];
    assert_eq!(called(&after(&route(2), &history[..5], NOW + MINUTE * 8)), None);
    assert_eq!(called(&after(&route(2), &history, NOW + MINUTE * 9)), Some(1));
}

#[test]
fn a_failure_between_two_waits_begins_the_patience_anew() {
    let at = |minutes: u32, class, asked: Option<u32>| {
        let ended_at = NOW + MINUTE * minutes;
        Attempt { ended_at, retry_at: asked.map(|asked| ended_at + MINUTE * asked), ..failed(0, class) }
    };
    let waits = [at(0, Class::RateLimit, Some(1)), at(9, Class::RateLimit, Some(3))];
    assert_eq!(called(&after(&route(2), &waits, NOW + MINUTE * 9)), Some(1));
    let [first, last] = waits;
    let history = [first, at(2, Class::Network, None), last];
    assert_eq!(wait_until(&after(&route(2), &history, NOW + MINUTE * 9)), Some(NOW + MINUTE * 12));
}

#[test]
fn a_rejected_key_leaves_the_rung_to_the_next_key() {
    // The gate says open because the provider has another key: that is tried at once, and before any dearer rung.
    for class in [Class::Auth, Class::QuotaExhausted] {
        assert_eq!(called(&after(&route(2), &[failed(0, class)], NOW)), Some(0), "{class}");
        assert_eq!(called(&after(&route(2), &vec![failed(0, class); 30], NOW)), Some(0), "{class}");
        let beyond_belief = after(&route(2), &vec![failed(0, class); 31], NOW);
        assert!(wait_until(&beyond_belief).is_some(), "{class}: {beyond_belief:?}");
    }
    let health = [closed(Closed::Auth, HOUR), RungHealth::Open];
    let step = decide(&job(), &route(2), &[0, 1], &[failed(0, Class::Auth)], &health, NOW);
    assert_eq!(called(&step), Some(1));
}

// === Laps ===

#[test]
fn when_all_rungs_are_passed_the_next_lap_begins_after_a_pause() {
    let history = [rejected(0, SoftFailure::Empty), rejected(1, SoftFailure::Empty)];
    let until = NOW + crate::domain::backoff::delay(job().id, 2);
    assert_eq!(wait_until(&after(&route(2), &history, NOW)), Some(until));
    assert_eq!(after(&route(2), &history, until), Step::Call { rung: 0, skipped: vec![] });
    // In the new lap the first rung may fail and be passed again.
    let more = [&history[..], &history[..1]].concat();
    assert_eq!(next_call(&route(2), &more), Some(1));
}

#[test]
fn in_a_new_lap_each_rung_has_all_its_tries_again() {
    let route = Route { max_attempts: 100, ..route(2) };
    let lap = [vec![failed(0, Class::ServerError); 3], vec![failed(1, Class::ServerError); 3]].concat();
    let then = |failures: usize| [&lap[..], &lap[..failures]].concat();
    assert_eq!(next_call(&route, &then(2)), Some(0));
    assert_eq!(next_call(&route, &then(3)), Some(1));
}

#[test]
fn a_passed_rung_that_is_tried_again_pauses_for_all_attempts_so_far() {
    let history = [rejected(0, SoftFailure::Empty), failed(1, Class::ServerError), failed(1, Class::ServerError)];
    let health = [RungHealth::Open, closed(Closed::Auth, HOUR)];
    let step = decide(&job(), &route(2), &[0, 1], &history, &health, NOW);
    assert_eq!(wait_until(&step), Some(NOW + crate::domain::backoff::delay(job().id, 3)));
}

#[test]
fn a_passed_rung_is_tried_again_when_the_others_are_not_worth_waiting_for() {
    let history = vec![failed(0, Class::ServerError); 3];
    for reason in [Closed::Auth, Closed::RateLimit] {
        let health = [RungHealth::Open, closed(reason, HOUR)];
        let step = |now| decide(&job(), &route(2), &[0, 1], &history, &health, now);
        let until = wait_until(&step(NOW)).unwrap();
        assert!(until <= NOW + MINUTE, "{reason}: {until:?}");
        assert_eq!(step(until), Step::Call { rung: 0, skipped: vec![] });
    }
    // One that is worth waiting for has its turn first.
    let health = [RungHealth::Open, closed(Closed::Breaker, MINUTE * 5)];
    let step = decide(&job(), &route(2), &[0, 1], &history, &health, NOW);
    assert_eq!(wait_until(&step), Some(NOW + MINUTE * 5));
}

#[test]
fn a_call_lists_the_rungs_before_it_and_why_each_was_not_taken() {
    let history = [failed(1, Class::NotFound), rejected(2, SoftFailure::Refusal)];
    let why = Ineligible::Unsupported("tools".into());
    let health = [
        RungHealth::Ineligible(why.clone()),
        RungHealth::Open,
        RungHealth::Open,
        closed(Closed::QuotaExhausted, HOUR),
        RungHealth::Open,
    ];
    let step = decide(&job(), &route(5), &[0, 1, 2, 3, 4], &history, &health, NOW);
    let skipped = vec![
        (0, Skip::Ineligible(why)),
        (1, Skip::Failed(Class::NotFound)),
        (2, Skip::Failed(Class::SoftFailure)),
        (3, Skip::Closed { reason: Closed::QuotaExhausted, until: NOW + HOUR, worth: Worth::Pointless }),
    ];
    assert_eq!(step, Step::Call { rung: 4, skipped });
}

// === Endings ===

#[test]
fn an_accepted_answer_anywhere_in_the_history_ends_the_job() {
    let accepted = Attempt { outcome: Outcome::Accepted, ..failed(0, Class::Network) };
    let done = Step::Finish(Ending::Succeeded);
    assert_eq!(after(&route(1), std::slice::from_ref(&accepted), NOW), done);
    let mut history = vec![failed(0, Class::InvalidRequest); 2_000];
    history.insert(77, accepted);
    let late = Job { deadline: Some(NOW), ..job() };
    assert_eq!(decide(&late, &route(1), &[0], &history, &[], NOW), done);
}

fn told(rung: usize, class: Class, words: &str) -> Attempt {
    Attempt { words: Some(words.into()), ..failed(rung, class) }
}

#[test]
fn a_refusal_that_may_be_one_targets_own_moves_the_job_on() {
    for class in [Class::InvalidRequest, Class::Refused, Class::NotFound, Class::Permission, Class::PayloadTooLarge] {
        assert_eq!(next_call(&route(2), &[told(0, class, "No.")]), Some(1), "{class}");
        assert_eq!(next_call(&without(route(2), &[class]), &[told(0, class, "No.")]), Some(1), "{class}, not listed");
    }
}

#[test]
fn a_fault_of_the_request_for_every_target_never_reaches_a_second_rung() {
    let broken = Attempt { bearing: Bearing::EveryTarget, ..told(0, Class::InvalidRequest, "Tool without a call.") };
    let reason = "p/0: invalid_request “Tool without a call.”; no rung would take this request";
    assert_eq!(failure(&after(&route(3), &[broken], NOW)), Some((Class::InvalidRequest, reason)));
}

#[test]
fn two_rungs_that_refuse_in_the_same_words_end_the_job_and_three_in_any() {
    let words =
        ["The roles must alternate: `a`, 3", "The roles must alternate: `b`, 17", "The roles are odd", "Bad Request"];
    let refused = |rung: usize, words: &str| told(rung, Class::InvalidRequest, words);
    let step = |history: &[Attempt]| after(&route(5), history, NOW);
    let same = [refused(0, words[0]), refused(1, words[1])];
    let reason = "2 rungs refused this request in the same way, the last: p/1: invalid_request “The roles must alternate: `b`, 17”";
    assert_eq!(failure(&step(&same)), Some((Class::InvalidRequest, reason)));
    let differently = [refused(0, words[0]), refused(1, words[2]), refused(2, words[3])];
    assert_eq!(called(&step(&differently[..2])), Some(2));
    let reason = "3 rungs refused this request, the last: p/2: invalid_request “Bad Request”";
    assert_eq!(failure(&step(&differently)), Some((Class::InvalidRequest, reason)));
    let bare = [refused(0, "Bad Request"), refused(1, "Bad Request")];
    assert_eq!(called(&step(&bare)), Some(2), "that says nothing");
    // Without words nothing is the same, and one rung counts once.
    assert_eq!(called(&step(&[failed(0, Class::InvalidRequest), failed(1, Class::InvalidRequest)])), Some(2));
    assert_eq!(called(&step(&[refused(0, words[0]), refused(0, words[0])])), Some(1));
    // A parameter that two targets do not take is no fault of the request.
    let parameters = [0, 1, 2].map(|rung| told(rung, Class::Refused, words[0]));
    assert_eq!(called(&step(&parameters)), Some(3));
}

#[test]
fn a_refused_key_that_is_in_doubt_moves_this_job_on_and_is_its_own_matter_after_three_times() {
    for class in [Class::QuotaExhausted, Class::Auth] {
        let doubtful = Attempt { bearing: Bearing::InDoubt, ..failed(0, class) };
        assert_eq!(next_call(&route(2), std::slice::from_ref(&doubtful)), Some(1), "{class}");
        // The only rung is asked again after a pause, but not for ever while the key is good for others.
        let step = after(&route(1), &vec![doubtful.clone(); 2], NOW);
        assert!(wait_until(&step).is_some(), "{class}: {step:?}");
        let one = Job { max_attempts: Some(1), ..job() };
        let step = decide(&one, &route(1), &[0], &vec![doubtful.clone(); 2], &[], NOW);
        assert!(wait_until(&step).is_some(), "{class}: it uses up no attempt");
        let step = after(&route(1), &vec![doubtful; 3], NOW);
        assert_eq!(failure(&step).map(|(class, _)| class), Some(class));
    }
}

#[test]
fn a_rung_whose_refusal_can_be_mended_is_asked_again_at_once() {
    for class in [Class::Refused, Class::NeverFits] {
        let mendable = Attempt { is_mendable: true, ..told(0, class, "Use 'max_completion_tokens' instead.") };
        assert_eq!(next_call(&route(2), std::slice::from_ref(&mendable)), Some(0), "{class}");
        let one = Job { max_attempts: Some(1), ..job() };
        let step = decide(&one, &route(2), &[0, 1], std::slice::from_ref(&mendable), &[], NOW);
        assert_eq!(called(&step), Some(0), "{class}: it uses up no attempt");
        assert_eq!(next_call(&route(2), &[mendable, told(0, class, "No.")]), Some(1), "{class}: and then no longer");
    }
}

#[test]
fn an_ending_quotes_the_provider_and_not_at_length() {
    let history =
        [told(0, Class::NotFound, "The model `x` is gone."), told(1, Class::ContextLength, &"long ".repeat(90))];
    let step = after(&route(2), &history, NOW);
    let (class, reason) = failure(&step).expect("no rung is left");
    assert_eq!(class, Class::ContextLength);
    assert!(
        reason.starts_with("no rung is left: p/0: not_found “The model `x` is gone.”; p/1: context_length “long "),
        "{reason}"
    );
    assert!(reason.ends_with("…”") && reason.chars().count() < 350, "{reason}");
    let used_up = vec![told(0, Class::ServerError, "Oh."); 6];
    let reason = "all 6 attempts used up, the last: server_error “Oh.”";
    assert_eq!(failure(&after(&route(1), &used_up, NOW)), Some((Class::ServerError, reason)));
}

#[test]
fn a_job_ends_when_its_attempts_are_used_up() {
    let history = vec![rejected(0, SoftFailure::Empty); 60];
    let reason = "all 6 attempts used up, the last: soft_failure (empty)";
    assert_eq!(failure(&after(&route(2), &history[..6], NOW)), Some((Class::SoftFailure, reason)));
    for (own, most) in [(Some(2), 2), (Some(6), 6), (Some(60), 6), (Some(u16::MAX), 6), (Some(0), 1), (None, 6)] {
        let job = Job { max_attempts: own, ..job() };
        let ends = |count: usize| {
            let step = decide(&job, &route(2), &[0, 1], &history[..count], &[], NOW);
            failure(&step).is_some()
        };
        assert!(ends(most) && !ends(most - 1), "{own:?}");
    }
}

#[test]
fn a_job_that_asks_for_more_attempts_than_its_route_allows_is_told_so() {
    let job = Job { max_attempts: Some(i16::MAX.unsigned_abs()), ..job() };
    let history = vec![rejected(0, SoftFailure::Empty); 6];
    let step = decide(&job, &route(2), &[0, 1], &history, &[], NOW);
    let reason = format!(
        "all 6 attempts used up (route {} allows no more; the job asks for 32767), the last: soft_failure (empty)",
        route(2).name
    );
    assert_eq!(failure(&step), Some((Class::SoftFailure, reason.as_str())));
}

#[test]
fn a_job_ends_even_if_it_only_ever_waits() {
    let history = vec![failed(0, Class::RateLimit); MOST_ATTEMPTS];
    assert_eq!(next_call(&route(1), &history[1..]), Some(0));
    let reason = "1000 attempts of any kind made, the last: rate_limit";
    assert_eq!(failure(&after(&route(1), &history, NOW)), Some((Class::RateLimit, reason)));
}

#[test]
fn a_job_ends_at_its_deadline_and_waits_no_longer() {
    let job = Job { deadline: Some(NOW + SECOND), ..job() };
    let health = [closed(Closed::RateLimit, HOUR)];
    let step = |now| decide(&job, &route(1), &[0], &[], &health, now);
    assert_eq!(wait_until(&step(NOW)), Some(NOW + SECOND));
    let reason = "the deadline passed before an answer was accepted; last attempt: none was made";
    assert_eq!(failure(&step(NOW + SECOND)), Some((Class::Deadline, reason)));
}

#[test]
fn a_job_that_no_rung_can_take_ends_with_every_reason() {
    let window = Ineligible::ContextWindow { needed: 5_000, window: 4_096 };
    let bucket = Ineligible::BucketTooSmall { unit: Unit::InputTokens, needed: 5_000, size: 1_000 };
    let tools = Ineligible::Unsupported("tools".into());
    for (why, class) in [
        (window.clone(), Class::ContextLength),
        (bucket.clone(), Class::NeverFits),
        (tools.clone(), Class::InvalidRequest),
    ] {
        assert_eq!(failure(&fresh(&route(1), &[RungHealth::Ineligible(why)])).map(|(class, _)| class), Some(class));
    }
    let step = fresh(&route(3), &[window, bucket, tools].map(RungHealth::Ineligible));
    let reason = "no rung is left: p/0: needs about 5000 tokens, its window has 4096; \
                  p/1: needs about 5000 input tokens, its limit allows 1000 at once; p/2: does not support tools";
    assert_eq!(failure(&step), Some((Class::ContextLength, reason)));
}

#[test]
fn a_request_that_the_provider_found_too_large_ends_with_the_numbers_where_they_are_known() {
    let why = Ineligible::BucketTooSmall { unit: Unit::Tokens, needed: 45_000, size: 30_000 };
    let health = [RungHealth::Ineligible(why)];
    let end = |route: &Route| {
        failure(&decide(&job(), route, &[0], &[failed(0, Class::NeverFits)], &health, NOW))
            .map(|(class, reason)| (class, reason.to_owned()))
    };
    let numbers = "needs about 45000 tokens, its limit allows 30000 at once";
    let reason = format!("no rung is left: p/0: {numbers} (the last: never_fits)");
    assert_eq!(end(&route(1)), Some((Class::NeverFits, reason)));
    let reason = format!("p/0: never_fits ({numbers}), which route r does not fall back on");
    assert_eq!(end(&Route { fallback_on: [].into(), ..route(1) }), Some((Class::NeverFits, reason)));
}

#[test]
fn a_job_that_every_rung_turned_away_ends_with_the_last_class() {
    let history = [failed(0, Class::NotFound), failed(1, Class::ContentPolicy)];
    let reason = "no rung is left: p/0: not_found; p/1: content_policy (the last: content_policy)";
    assert_eq!(failure(&after(&route(2), &history, NOW)), Some((Class::ContentPolicy, reason)));
}

// === Worlds ===

/// What the world has in store for one rung.
#[derive(Clone, Debug)]
struct Weather {
    ineligible: bool,
    /// Closed so long, then open so long, in seconds, for ever; no closure is for good.
    closed: u32,
    open: u32,
    reason: Closed,
}

impl Weather {
    fn health(&self, now: Timestamp) -> RungHealth {
        if self.ineligible {
            return RungHealth::Ineligible(Ineligible::Unsupported("this".into()));
        }
        let period = i64::from(self.closed + self.open) * 1_000;
        let since = now.0 - now.0.rem_euclid(period);
        let until = since + i64::from(self.closed) * 1_000;
        if until > now.0 {
            RungHealth::Closed { reason: self.reason, since: Timestamp(since), until: Timestamp(until) }
        } else {
            RungHealth::Open
        }
    }
}

#[derive(Clone, Debug)]
struct World {
    job: Job,
    route: Route,
    order: Vec<usize>,
    weather: Vec<Weather>,
    /// What each call meets: outcome, seconds it takes, seconds the provider asks to wait.
    calls: Vec<(Outcome, u32, Option<u32>)>,
}

fn reasons() -> impl Values<Value = Closed> {
    use Closed::{Auth, Breaker, Concurrency, Model, Paused, QuotaExhausted, RateLimit};
    prop::sample::select(vec![RateLimit, Concurrency, Breaker, QuotaExhausted, Auth, Model, Paused])
}

fn outcomes() -> impl Values<Value = Outcome> {
    prop_oneof![
        1 => Just(Outcome::Accepted),
        12 => prop::sample::select(Class::ALL).prop_map(Outcome::Failed),
        6 => prop::sample::select(SoftFailure::ALL).prop_map(Outcome::Rejected),
    ]
}

fn routes(rungs: usize) -> impl Values<Value = Route> {
    let windows = prop::collection::vec(prop::option::of(1_000..4_000_i64), rungs);
    let patience = prop_oneof![
        Just(Patience::Forever),
        Just(Patience::For(Duration::ZERO)),
        (0..4_000_u64).prop_map(|seconds| Patience::For(Duration::from_secs(seconds))),
    ];
    let fallback = prop_oneof![Just(Class::ALL.to_vec()), prop::sample::subsequence(Class::ALL, 0..=Class::ALL.len()),];
    (windows, patience, fallback, 0..12_u16).prop_map(move |(windows, patience, fallback_on, max_attempts)| {
        let mut route = route(rungs);
        for (rung, window) in route.rungs.iter_mut().zip(windows) {
            rung.model.capabilities.context_window = window;
        }
        Route { patience, max_attempts, fallback_on: fallback_on.into_iter().collect(), ..route }
    })
}

fn jobs() -> impl Values<Value = Job> {
    (any::<i64>(), prop::option::of(1..20_000_u32), prop::option::of(0..8_u16), 0..1_000_u32).prop_map(
        |(id, deadline, max_attempts, age)| Job {
            id: JobId(id),
            ready_at: NOW - SECOND * age,
            deadline: deadline.map(|seconds| NOW + SECOND * seconds),
            max_attempts,
            ..job()
        },
    )
}

fn worlds() -> impl Values<Value = World> {
    (1..5_usize).prop_flat_map(|rungs| {
        let weather = (prop::bool::weighted(0.1), 0..5_000_u32, 1..500_u32, reasons())
            .prop_map(|(ineligible, closed, open, reason)| Weather { ineligible, closed, open, reason });
        let calls = prop::collection::vec((outcomes(), 0..700_u32, prop::option::of(0..5_000_u32)), 3..40);
        let order = Just((0..rungs).collect::<Vec<_>>()).prop_shuffle();
        (jobs(), routes(rungs), order, prop::collection::vec(weather, rungs), calls)
            .prop_map(|(job, route, order, weather, calls)| World { job, route, order, weather, calls })
    })
}

impl World {
    fn health(&self, now: Timestamp) -> Vec<RungHealth> {
        self.weather.iter().map(|weather| weather.health(now)).collect()
    }

    fn decide(&self, history: &[Attempt], now: Timestamp) -> Step {
        decide(&self.job, &self.route, &self.order, history, &self.health(now), now)
    }

    /// Does what the decision says until the job ends; hands every step to `look` before it is done.
    fn run(&self, mut look: impl FnMut(&[Attempt], Timestamp, &Step)) -> Vec<Attempt> {
        let (mut now, mut history) = (NOW, Vec::new());
        let mut calls = self.calls.iter().cycle();
        // The most attempts there can be, and a few waits before each.
        for _ in 0..MOST_ATTEMPTS * 20 {
            let step = self.decide(&history, now);
            look(&history, now, &step);
            match step {
                Step::Finish(_) => return history,
                Step::Wait { until, .. } => now = until,
                Step::Call { rung, .. } => {
                    let (outcome, took, asked) = calls.next().expect("cycles").clone();
                    now = now + SECOND * took;
                    let retry_at = asked.map(|seconds| now + SECOND * seconds);
                    history.push(Attempt { retry_at, ..Attempt::new(Some(rung), outcome, now) });
                }
            }
        }
        panic!("the job does not end")
    }
}

fn counted(history: &[Attempt]) -> usize {
    history.iter().filter_map(|attempt| attempt.outcome.class()).filter(|class| class.uses_up_an_attempt()).count()
}

fn most(world: &World) -> usize {
    let of_route = world.route.max_attempts;
    usize::from(world.job.max_attempts.unwrap_or(of_route).min(of_route).max(1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_job_ends_in_every_world(world in worlds()) {
        let mut endings = 0;
        world.run(|_, _, step| endings += usize::from(matches!(step, Step::Finish(_))));
        prop_assert_eq!(endings, 1);
    }

    #[test]
    fn a_job_succeeds_exactly_if_an_answer_was_accepted_and_never_calls_again(world in worlds()) {
        let mut last = None;
        let history = world.run(|_, _, step| last = Some(step.clone()));
        let accepted = history.iter().filter(|attempt| attempt.outcome == Outcome::Accepted).count();
        prop_assert_eq!(accepted, usize::from(last == Some(Step::Finish(Ending::Succeeded))));
        prop_assert!(history.iter().rev().skip(1).all(|attempt| attempt.outcome != Outcome::Accepted));
    }

    #[test]
    fn a_closed_or_ineligible_rung_is_never_called(world in worlds()) {
        world.run(|_, now, step| {
            if let Step::Call { rung, skipped } = step {
                assert_eq!(world.health(now)[*rung], RungHealth::Open);
                assert!(skipped.iter().all(|(other, _)| other != rung));
            }
        });
    }

    #[test]
    fn a_rung_is_never_called_before_the_provider_wants_to_be_asked_again(world in worlds()) {
        world.run(|history, now, step| {
            if let Some(rung) = called(step) {
                let last = history.iter().rev().find(|attempt| attempt.rung == Some(rung));
                assert!(last.and_then(|last| last.retry_at).is_none_or(|asked| asked <= now));
            }
        });
    }

    #[test]
    fn a_rung_that_can_never_take_the_request_is_called_only_once(world in worlds()) {
        let history = world.run(|_, _, _| ());
        for (index, attempt) in history.iter().enumerate() {
            let remedy = attempt.outcome.remedy();
            let later = &history[index + 1..];
            match remedy {
                Some(Remedy::NextRung | Remedy::LargerWindow) => {
                    prop_assert!(later.iter().all(|other| other.rung != attempt.rung));
                }
                Some(Remedy::End) | None => prop_assert!(later.is_empty()),
                Some(Remedy::WaitForGate(_) | Remedy::RetrySame { .. } | Remedy::Mend) => {}
            }
            if remedy == Some(Remedy::LargerWindow) {
                let window = |rung: Option<usize>| world.route.rungs[rung.unwrap()].model.capabilities.context_window;
                let too_small = |rung| window(rung).zip(window(attempt.rung)).is_some_and(|(one, this)| one <= this);
                prop_assert!(later.iter().all(|other| !too_small(other.rung)));
            }
        }
    }

    #[test]
    fn only_attempts_that_count_use_up_attempts(world in worlds()) {
        world.run(|history, _, step| {
            assert!(counted(history) <= most(&world));
            if let Some((_, reason)) = failure(step).filter(|(_, reason)| reason.starts_with("all ")) {
                assert_eq!(counted(history), most(&world), "{reason}");
            }
        });
    }

    #[test]
    fn a_wait_ends_later_than_now_and_no_later_than_the_deadline(world in worlds()) {
        world.run(|_, now, step| {
            if let Some(until) = wait_until(step) {
                assert!(until > now);
                assert!(world.job.deadline.is_none_or(|deadline| until <= deadline));
            }
        });
    }

    #[test]
    fn no_call_begins_at_or_after_the_deadline(world in worlds()) {
        world.run(|_, now, step| {
            assert!(called(step).is_none() || world.job.deadline.is_none_or(|deadline| now < deadline));
        });
    }

    #[test]
    fn nothing_opens_before_the_end_of_a_wait(world in worlds(), part in 0.0..1.0_f64) {
        world.run(|history, now, step| {
            if let Step::Wait { until, .. } = step {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "less than a day")]
                let between = now + Duration::from_millis((now.until(*until).as_secs_f64() * part * 1e3) as u64);
                let again = decide(&world.job, &world.route, &world.order, history, &world.health(now), between);
                assert!(between >= *until || wait_until(&again).is_some(), "{again:?} at {between:?}, {step:?} at {now:?}");
            }
        });
    }

    #[test]
    fn without_patience_no_job_waits_while_another_rung_is_open(world in worlds()) {
        let route = Route {
            patience: Patience::For(Duration::ZERO),
            fallback_on: Class::ALL.iter().copied().collect(),
            ..world.route.clone()
        };
        let health = world.health(NOW);
        if health.contains(&RungHealth::Open) && world.job.deadline.is_none_or(|deadline| deadline > NOW) {
            let step = decide(&world.job, &route, &world.order, &[], &health, NOW);
            let first = world.order.iter().copied().find(|&rung| health[rung] == RungHealth::Open);
            prop_assert_eq!(called(&step), first);
        }
    }

    #[test]
    fn what_is_said_of_patience_is_what_decided(world in worlds()) {
        world.run(|_, now, step| {
            let (skips, waited): (Vec<&Skip>, bool) = match step {
                Step::Call { skipped, .. } => (skipped.iter().map(|(_, why)| why).collect(), false),
                Step::Wait { why, .. } => (vec![why], true),
                Step::Finish(_) => return,
            };
            for skip in skips {
                let Skip::Closed { reason, until, worth } = skip else { continue };
                // Nobody calls past a rung that is worth waiting for.
                assert!(waited || !worth.is_waited_for(), "{skip:?}");
                let patience = world.route.patience;
                let latest = world.job.deadline.map(|deadline| deadline - MINUTE);
                match *worth {
                    Worth::Patience { until: ends } => assert!(ends > now && latest.is_none_or(|latest| ends <= latest || patience == Patience::Forever)),
                    Worth::NoFallback => assert!(!may_fall_back(&world.route, *reason)),
                    Worth::NoPatience => assert_eq!(patience, Patience::For(Duration::ZERO)),
                    Worth::PatienceOver { at } => {
                        let Patience::For(patience) = patience else { panic!("it does not end") };
                        assert!(*until > at && at >= world.job.ready_at.min(now) + patience && at <= now + patience);
                        assert!(latest.is_none_or(|latest| at <= latest));
                    }
                    Worth::DeadlineNear { at } => {
                        assert!(*until > at && Some(at) == latest && at < now + SECOND * 4_000);
                    }
                    Worth::Pointless => assert!(is_pointless(*reason)),
                }
            }
        });
    }

    #[test]
    fn the_nearer_the_deadline_the_less_patience(world in worlds(), nearer in 0..20_000_u32) {
        let Some(deadline) = world.job.deadline else { return Ok(()) };
        let health = world.health(NOW);
        let with = |deadline| {
            let job = Job { deadline: Some(deadline), ..world.job.clone() };
            decide(&job, &world.route, &world.order, &[], &health, NOW)
        };
        let position = |rung| world.order.iter().position(|&other| other == rung);
        if let Some(rung) = called(&with(deadline)) {
            let sooner = with((deadline - SECOND * nearer).max(NOW + SECOND));
            // Who would not wait with more time does not wait with less, and does not begin to like the cheaper rung.
            prop_assert_eq!(called(&sooner).and_then(position), position(rung));
        }
    }

    #[test]
    fn no_job_waits_beyond_its_last_chance_while_another_rung_is_open(world in worlds(), left in 1..2_000_u32) {
        let fallback_on = Class::ALL.iter().copied().collect();
        let patience = Patience::For(MINUTE * 20);
        let deadline = NOW + SECOND * left;
        let mut route = Route { patience, fallback_on, ..world.route.clone() };
        // No rung is out because another's window was too small.
        route.rungs.iter_mut().for_each(|rung| rung.model.capabilities.context_window = None);
        let world = World { job: Job { deadline: Some(deadline), ..world.job.clone() }, route, ..world };
        world.run(|history, now, step| {
            let Step::Wait { until, .. } = step else { return };
            let untried = |rung: &usize| history.iter().all(|attempt| attempt.rung != Some(*rung));
            let health = world.health(now);
            if world.order.iter().any(|rung| untried(rung) && health[*rung] == RungHealth::Open) {
                assert!(*until <= deadline - MINUTE, "{step:?} at {now:?}");
            }
        });
    }

    #[test]
    fn with_endless_patience_no_job_leaves_a_rung_that_will_open(world in worlds()) {
        let world = World { route: Route { patience: Patience::Forever, ..world.route.clone() }, ..world };
        world.run(|_, _, step| {
            if let Step::Call { skipped, .. } = step {
                for (_, why) in skipped {
                    assert!(!matches!(why, Skip::Closed { reason, .. } if !is_pointless(*reason)));
                }
            }
        });
    }

    #[test]
    fn the_same_input_gives_the_same_step_even_for_a_history_that_cannot_be(
        world in worlds(),
        history in prop::collection::vec(
            (prop::option::of(0..6_usize), outcomes(), any::<i64>(), prop::option::of(any::<i64>())), 0..20),
        order in prop::collection::vec(0..7_usize, 0..7),
        now in any::<i64>(),
    ) {
        let history: Vec<Attempt> = history
            .into_iter()
            .map(|(rung, outcome, ended_at, retry_at)| {
                Attempt { retry_at: retry_at.map(Timestamp), ..Attempt::new(rung, outcome, Timestamp(ended_at)) }
            })
            .collect();
        let (now, health) = (Timestamp(now), world.health(NOW));
        let step = decide(&world.job, &world.route, &order, &history, &health, now);
        prop_assert_eq!(&step, &decide(&world.job, &world.route, &order, &history, &health, now));
        if let Some(rung) = called(&step) {
            prop_assert!(rung < world.route.rungs.len() && order.contains(&rung));
        }
        prop_assert!(wait_until(&step).is_none_or(|until| until > now));
    }
}
