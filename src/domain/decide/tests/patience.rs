//! Rungs that are shut: which of them a job waits for, and how long.

use super::*;
use crate::domain::{Race, StickyBy, trial};
use std::collections::BTreeSet;

#[test]
fn a_job_waits_for_a_cheaper_rung_within_its_patience() {
    let step = fresh(&route(2), &[shut(Reason::RateLimit, MINUTE), RungHealth::Open]);
    let until = NOW + MINUTE;
    let worth = Worth::Patience { until: NOW + MINUTE * 10 };
    assert_eq!(
        step,
        Step::Wait {
            until,
            rung: 0,
            why: Skip::Shut { shut: Shut { reason: Reason::RateLimit, since: NOW, until }, worth }
        }
    );
}

#[test]
fn a_job_takes_the_dearer_rung_when_the_wait_exceeds_its_patience() {
    let step = fresh(&route(2), &[shut(Reason::RateLimit, HOUR), RungHealth::Open]);
    let worth = Worth::PatienceOver { at: NOW + MINUTE * 10 };
    let why = Skip::Shut { shut: Shut { reason: Reason::RateLimit, since: NOW, until: NOW + HOUR }, worth };
    assert_eq!(step, Step::Call { rung: 1, skipped: vec![(0, why)] });
}

#[test]
fn patience_zero_never_waits_for_a_cheaper_rung() {
    let route = Route { patience: Patience::For(Duration::ZERO), ..route(2) };
    for reason in [Reason::RateLimit, Reason::Concurrency, Reason::Breaker] {
        let health = [shut(reason, Duration::from_millis(1)), RungHealth::Open];
        assert_eq!(called(&fresh(&route, &health)), Some(1), "{reason}");
        // Not even when clocks differ.
        let until = NOW + MINUTE;
        let ahead = [RungHealth::Shut(Shut { reason, since: NOW + SECOND, until }), RungHealth::Open];
        assert_eq!(called(&fresh(&route, &ahead)), Some(1), "{reason}");
    }
}

/// A refusal of one call for a lack of capacity shuts the tier to no other job: the gate says that it is open.
#[test]
fn a_tier_without_capacity_is_left_at_once_or_waited_for_as_patience_says() {
    let open = [RungHealth::Open, RungHealth::Open];
    let refused = |times: usize| vec![failed(0, Class::NoCapacity); times];
    let hasty = Route { patience: Patience::For(Duration::ZERO), ..route(2) };
    assert_eq!(called(&decide(&job(), &hasty, &[0, 1], &refused(1), &open, NOW)), Some(1));
    // The pause grows, and no attempt is used up by it.
    let patient = Route { max_attempts: 1, ..route(2) };
    let pause = |times: usize| {
        let until = wait_until(&decide(&job(), &patient, &[0, 1], &refused(times), &open, NOW)).expect("a wait");
        assert_eq!(called(&decide(&job(), &patient, &[0, 1], &refused(times), &open, until)), Some(0));
        NOW.until(until)
    };
    assert!(pause(1) <= SECOND / 2 && pause(4) > pause(1) && pause(50) <= MINUTE, "{:?}", pause(50));
    // Patience runs from the first refusal.
    let late = Attempt { ended_at: NOW + MINUTE * 10, ..failed(0, Class::NoCapacity) };
    let history = [failed(0, Class::NoCapacity), late];
    assert_eq!(called(&decide(&job(), &patient, &[0, 1], &history, &open, NOW + MINUTE * 10)), Some(1));
    // What the provider asked for counts, and so does a route that never leaves its rung.
    let asked = Attempt { retry_at: Some(NOW + MINUTE), ..failed(0, Class::NoCapacity) };
    assert_eq!(
        wait_until(&decide(&job(), &patient, &[0, 1], std::slice::from_ref(&asked), &open, NOW)),
        Some(NOW + MINUTE)
    );
    let pinned = Route { fallback_on: BTreeSet::new(), ..hasty };
    assert_eq!(wait_until(&decide(&job(), &pinned, &[0, 1], &[asked], &open, NOW)), Some(NOW + MINUTE));
}

#[test]
fn a_job_waits_for_the_cheap_hours_as_long_as_it_has_patience_and_time() {
    use crate::domain::Hours;
    use crate::domain::price::{Factor, OffPeak, Price, TierPrice};
    // The clock of these tests stands at some minute of the week; the peak ends 20 minutes after it.
    let peak = |minutes: i64| {
        let Timestamp(end) = NOW + MINUTE * u32::try_from(minutes).unwrap();
        let minute = end.div_euclid(60_000).rem_euclid(24 * 60);
        let (from, to) = (minute.rem_euclid(24 * 60) - 120, minute);
        let time = |minute: i64| format!("{:02}:{:02}", minute.rem_euclid(1440) / 60, minute.rem_euclid(60));
        Hours::parse(&format!("{}-{}", time(from), time(to))).unwrap()
    };
    let off_peak = |factor| OffPeak { peak: peak(20), price: TierPrice::Times(Factor(factor)) };
    let routed = |patience, factor| {
        let mut route = Route { patience, strategy: Strategy::Cost, ..route(2) };
        let (input, output) = (1_000_000_000, 2_000_000_000);
        route.rungs[0].model.terms.price = Some(Price::plain(input, output).into());
        route.rungs[0].model.terms.off_peak = Some(off_peak(factor));
        route
    };
    let half = 500_000_000;
    let open = [RungHealth::Open, RungHealth::Open];
    let end = peak(20).end_after(NOW).expect("an end");
    let step = |job: &Job, route: &Route| decide(job, route, &[0, 1], &[], &open, NOW);
    let patient = routed(Patience::For(HOUR), half);
    let Step::Wait { until, rung: 0, why } = step(&job(), &patient) else { panic!("it waits") };
    let worth = Worth::Patience { until: NOW + HOUR };
    assert_eq!(
        (until, why),
        (end, Skip::Shut { shut: Shut { reason: Reason::PeakHours, since: NOW, until: end }, worth })
    );
    assert_eq!(called(&decide(&job(), &patient, &[0, 1], &[], &open, end)), Some(0));
    assert_eq!(wait_until(&step(&job(), &routed(Patience::Forever, half))), Some(end));
    // Without enough patience or time, or without a better price, it is called at once, and no other rung is.
    for (what, job, route) in [
        ("no patience", job(), routed(Patience::For(Duration::ZERO), half)),
        ("too little", job(), routed(Patience::For(MINUTE * 10), half)),
        ("it waited before", Job { ready_at: NOW - HOUR, ..job() }, patient.clone()),
        ("a deadline", Job { deadline: Some(NOW + MINUTE * 20), ..job() }, patient.clone()),
        ("no cheaper", job(), routed(Patience::Forever, 1_000_000_000)),
    ] {
        assert_eq!(called(&step(&job, &route)), Some(0), "{what}");
    }
    // Patience is the same under each strategy that does not ask for haste.
    for (strategy, waits) in [
        (Strategy::Cost, true),
        (Strategy::Priority, true),
        (Strategy::Weighted([1.0, 1.0].into()), true),
        (Strategy::Sticky(StickyBy::Batch), true),
        (Strategy::Balanced, false),
        (Strategy::Fastest, false),
        (Strategy::Race(Race { at_most: 2, after: SECOND }), false),
    ] {
        let route = Route { strategy: strategy.clone(), ..patient.clone() };
        assert_eq!(called(&step(&job(), &route)), (!waits).then_some(0), "{strategy:?}");
        assert_eq!(wait_until(&step(&job(), &route)), waits.then_some(end), "{strategy:?}");
    }
    // A person waits for a trial.
    let trial = trial::routes(&patient).next().expect("a rung");
    assert_eq!(called(&decide(&job(), &trial, &[0], &[], &open, NOW)), Some(0));
}

#[test]
fn patience_without_end_never_takes_the_dearer_rung_for_a_wait() {
    let route = Route { patience: Patience::Forever, ..route(2) };
    for reason in [Reason::RateLimit, Reason::Concurrency, Reason::Breaker] {
        let health = [shut(reason, HOUR * 1_000), RungHealth::Open];
        assert_eq!(wait_until(&fresh(&route, &health)), Some(NOW + HOUR * 1_000), "{reason}");
    }
}

#[test]
fn patience_runs_from_when_the_rung_closed() {
    let health =
        [RungHealth::Shut(Shut { reason: Reason::Breaker, since: NOW, until: NOW + MINUTE * 11 }), RungHealth::Open];
    let waited = |job: &Job, now| called(&decide(job, &route(2), &[0, 1], &[], &health, now));
    assert_eq!(waited(&job(), NOW + MINUTE), Some(1), "opens after the patience ends");
    let soon = [
        RungHealth::Shut(Shut { reason: Reason::Breaker, since: NOW - MINUTE * 9, until: NOW + MINUTE / 2 }),
        RungHealth::Open,
    ];
    let old = Job { ready_at: NOW - HOUR, ..job() };
    assert_eq!(wait_until(&decide(&old, &route(2), &[0, 1], &[], &soon, NOW)), Some(NOW + MINUTE / 2));
    assert_eq!(called(&decide(&old, &route(2), &[0, 1], &[], &soon, NOW + MINUTE / 4)), None);
    let long = [
        RungHealth::Shut(Shut { reason: Reason::Breaker, since: NOW - MINUTE * 10, until: NOW + SECOND }),
        RungHealth::Open,
    ];
    assert_eq!(called(&decide(&old, &route(2), &[0, 1], &[], &long, NOW)), Some(1), "patience is over");
    // A job that came late has its whole patience before it.
    assert_eq!(called(&decide(&job(), &route(2), &[0, 1], &[], &long, NOW)), None);
}

#[test]
fn a_deadline_leaves_time_for_a_call_after_the_wait() {
    let due = |wait| Job { deadline: Some(NOW + wait), ..job() };
    let health = [shut(Reason::RateLimit, MINUTE), RungHealth::Open];
    let step = |job: &Job| decide(job, &route(2), &[0, 1], &[], &health, NOW);
    assert_eq!(wait_until(&step(&due(MINUTE * 2))), Some(NOW + MINUTE));
    assert_eq!(called(&step(&due(MINUTE + SECOND))), Some(1));
}

/// Why the job did not wait for the first of two rungs.
fn passed_over(step: &Step) -> Option<Worth> {
    match step {
        Step::Call { rung: 1, skipped } => match skipped.as_slice() {
            [(0, Skip::Shut { worth, .. })] => Some(*worth),
            _ => None,
        },
        Step::Call { .. } | Step::Wait { .. } | Step::Finish(_) => None,
    }
}

#[test]
fn a_rung_that_is_passed_over_says_what_cut_the_wait_short() {
    let step = |job: &Job, patience, reason| {
        let route = Route { patience, ..route(2) };
        decide(job, &route, &[0, 1], &[], &[shut(reason, HOUR), RungHealth::Open], NOW)
    };
    let ten = Patience::For(MINUTE * 10);
    let due = |wait| Job { deadline: Some(NOW + wait), ..job() };
    for (job, patience, reason, worth) in [
        (job(), Patience::For(Duration::ZERO), Reason::Breaker, Worth::NoPatience),
        (due(MINUTE), Patience::For(Duration::ZERO), Reason::Breaker, Worth::NoPatience),
        (job(), ten, Reason::RateLimit, Worth::PatienceOver { at: NOW + MINUTE * 10 }),
        (due(HOUR), ten, Reason::RateLimit, Worth::PatienceOver { at: NOW + MINUTE * 10 }),
        // The timeout is a minute.
        (due(MINUTE * 9), ten, Reason::RateLimit, Worth::DeadlineNear { at: NOW + MINUTE * 8 }),
        (due(SECOND), ten, Reason::Breaker, Worth::DeadlineNear { at: NOW + SECOND - MINUTE }),
        (job(), Patience::Forever, Reason::Auth, Worth::Pointless),
        (job(), ten, Reason::Paused, Worth::Pointless),
        (due(HOUR), Patience::Forever, Reason::Paused, Worth::Pointless),
    ] {
        assert_eq!(passed_over(&step(&job, patience, reason)), Some(worth), "{job:?}, {patience:?}, {reason}");
    }
}

#[test]
fn a_job_that_waits_says_how_long_it_will() {
    let waits = |route: &Route, job: &Job| {
        let health = [shut(Reason::RateLimit, MINUTE), RungHealth::Open];
        match decide(job, route, &[0, 1], &[], &health, NOW) {
            Step::Wait { why: Skip::Shut { worth, .. }, .. } => Some(worth),
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
    // A route that waits for ever means it.
    let patient = Route { patience: Patience::Forever, ..route(2) };
    assert_eq!(wait_until(&step(&patient, &late)), Some(NOW + MINUTE * 3));
}

#[test]
fn a_dearer_rung_needs_a_route_that_falls_back_on_the_reason() {
    for (reason, classes) in [
        (Reason::RateLimit, &[Class::RateLimit][..]),
        (Reason::Concurrency, &[Class::RateLimit]),
        (
            Reason::Breaker,
            &[
                Class::ServerError,
                Class::Overloaded,
                Class::Timeout,
                Class::Network,
                Class::Unreachable,
                Class::SoftFailure,
            ],
        ),
        (Reason::QuotaExhausted, &[Class::QuotaExhausted]),
        (Reason::Auth, &[Class::Auth]),
    ] {
        let health = [shut(reason, HOUR), RungHealth::Open];
        assert_eq!(called(&fresh(&without(route(2), classes), &health)), None, "{reason}");
        for &class in classes {
            let others: Vec<Class> = Class::ALL.iter().copied().filter(|&other| other != class).collect();
            assert_eq!(called(&fresh(&without(route(2), &others), &health)), Some(1), "{reason}, {class}");
        }
    }
    let health = [shut(Reason::Paused, HOUR), RungHealth::Open];
    assert_eq!(called(&fresh(&without(route(2), Class::ALL), &health)), Some(1));
    // A model that is gone takes no request at all: only a route that never falls back waits for it.
    let health = [shut(Reason::Model, HOUR), RungHealth::Open];
    let listed = Route { fallback_on: [Class::RateLimit].into(), ..route(2) };
    assert_eq!(called(&fresh(&listed, &health)), Some(1));
    assert_eq!(called(&fresh(&without(route(2), Class::ALL), &health)), None);
}

#[test]
fn waiting_for_money_keys_models_and_paused_providers_is_pointless() {
    let route = Route { patience: Patience::Forever, ..route(2) };
    for reason in [Reason::QuotaExhausted, Reason::Auth, Reason::Model, Reason::Paused] {
        assert_eq!(called(&fresh(&route, &[shut(reason, SECOND), RungHealth::Open])), Some(1), "{reason}");
        // With no other rung the job can only wait.
        let health = [shut(reason, MINUTE), shut(reason, SECOND)];
        assert_eq!(wait_until(&fresh(&route, &health)), Some(NOW + SECOND), "{reason}");
        // Nor does it become worth while because the provider has asked this job for patience, too.
        let asked = [Attempt { retry_at: Some(NOW + MINUTE), ..failed(0, Class::RateLimit) }];
        let health = [shut(reason, SECOND), RungHealth::Open];
        assert_eq!(called(&decide(&job(), &route, &[0, 1], &asked, &health, NOW)), Some(1), "{reason}");
        assert_eq!(wait_until(&decide(&job(), &route, &[0], &asked, &health, NOW)), Some(NOW + MINUTE), "{reason}");
    }
}

#[test]
fn a_job_wakes_for_whichever_rung_opens_first() {
    let health = [shut(Reason::Auth, HOUR), shut(Reason::RateLimit, MINUTE), shut(Reason::Breaker, SECOND)];
    // The third may not be taken before the second, for which there is patience.
    assert_eq!(wait_until(&fresh(&route(3), &health)), Some(NOW + MINUTE));
    let route = Route { patience: Patience::For(Duration::ZERO), ..route(3) };
    assert_eq!(wait_until(&fresh(&route, &health)), Some(NOW + SECOND));
}

#[test]
fn a_closure_that_is_over_is_none() {
    let health = [RungHealth::Shut(Shut { reason: Reason::Breaker, since: NOW - HOUR, until: NOW })];
    assert_eq!(called(&fresh(&route(1), &health)), Some(0));
}
