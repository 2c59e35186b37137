//! Rungs that work but answer badly.

use super::worlds::{World, worlds};
use super::*;
use crate::domain::breaker::Evidence;
use crate::domain::quality::Weakness;
use proptest::prelude::*;

fn weakness(reason: Reason) -> Weakness {
    let shut = Shut { reason, since: NOW, until: NOW + SECOND * 30 };
    Weakness { shut, found: Some(Evidence::of_failures(9, 10)) }
}

/// An open rung whose answers are rejected.
fn weak() -> Condition {
    Condition { weakness: Some(weakness(Reason::Quality)), ..RungHealth::Open.into() }
}

fn step(route: &Route, past: &[Attempt], conditions: &[Condition]) -> Step {
    let order: Vec<usize> = (0..route.rungs.len()).collect();
    super::super::decide(&job(), route, &order, past, &[], conditions, NOW)
}

#[test]
fn a_weak_rung_is_passed_over_only_for_a_better_one_that_may_be_called() {
    let open = || Condition::from(RungHealth::Open);
    let shut = |reason, wait| Condition::from(shut(reason, wait));
    let slow = || Condition { weakness: Some(weakness(Reason::Slow)), ..open() };
    let forever = |rungs| Route { patience: Patience::Forever, ..route(rungs) };
    let hasty = |rungs| Route { patience: Patience::For(Duration::ZERO), ..route(rungs) };
    let never = RungHealth::Ineligible(Ineligible::Unsupported("tools".into()));
    let full = || shut(Reason::Concurrency, SECOND / 10);
    let cases: Vec<(&str, Route, Vec<Condition>, Option<usize>)> = vec![
        ("it is the only rung", route(1), vec![weak()], Some(0)),
        ("the second answers well", route(2), vec![weak(), open()], Some(1)),
        (
            "the second is as weak, and full",
            route(2),
            vec![weak(), Condition { weakness: weak().weakness, ..full() }],
            Some(0),
        ),
        ("all are weak", route(3), vec![weak(), slow(), weak()], Some(0)),
        ("two of them are", route(3), vec![weak(), slow(), open()], Some(2)),
        ("the second is weak, and comes second", route(2), vec![open(), weak()], Some(0)),
        ("the second takes no such request", route(2), vec![weak(), never.into()], Some(0)),
        ("the second fails", route(2), vec![weak(), shut(Reason::Breaker, SECOND * 20)], Some(0)),
        ("the second fails, and is not waited for", hasty(2), vec![weak(), shut(Reason::Breaker, SECOND)], Some(0)),
        ("its limit is used up for an hour", route(2), vec![weak(), shut(Reason::RateLimit, HOUR)], Some(0)),
        ("the second is full for a moment", route(2), vec![weak(), full()], None),
        ("it is full, and the route has no patience", hasty(2), vec![weak(), full()], None),
        (
            "it is full itself, and no job waits for that",
            route(2),
            vec![Condition { weakness: weak().weakness, ..full() }, open()],
            Some(1),
        ),
        ("the third is free", hasty(3), vec![weak(), full(), open()], Some(2)),
        (
            "a rung that is waited for is not left",
            route(3),
            vec![weak(), shut(Reason::Breaker, MINUTE), open()],
            Some(0),
        ),
        (
            "the route does not leave after rejected answers",
            without(route(2), &[Class::SoftFailure]),
            vec![weak(), open()],
            Some(0),
        ),
        ("but after timeouts", without(route(2), &[Class::SoftFailure]), vec![slow(), open()], Some(1)),
        ("and the other way round", without(route(2), &[Class::Timeout]), vec![slow(), open()], Some(0)),
        ("the first rung or nothing", forever(2), vec![weak(), open()], Some(0)),
    ];
    for (what, route, conditions, expected) in cases {
        assert_eq!(called(&step(&route, &[], &conditions)), expected, "{what}");
    }
}

#[test]
fn why_it_was_passed_over_is_told() {
    let Step::Call { rung: 1, skipped } = step(&route(2), &[], &[weak(), RungHealth::Open.into()]) else { panic!() };
    assert_eq!(skipped, [(0, Skip::Weak(weakness(Reason::Quality)))]);
}

#[test]
fn a_rung_that_is_passed_over_was_not_tried() {
    // The better rung has failed for this lap: the weak one is left, and the lap is not over.
    let conditions = [weak(), RungHealth::Open.into()];
    let past = [failed(1, Class::InvalidRequest)];
    assert_eq!(called(&step(&route(2), &past, &conditions)), Some(0));
    let past = [rejected(1, SoftFailure::Empty)];
    assert_eq!(called(&step(&route(2), &past, &conditions)), Some(0));
}

#[test]
fn a_weak_rung_that_failed_is_not_asked_again_in_place_of_one_that_was_not() {
    let now = NOW + HOUR;
    let full = Shut { reason: Reason::Concurrency, since: NOW, until: now + SECOND };
    let hasty = Route { patience: Patience::For(Duration::ZERO), ..route(3) };
    let past = [rejected(0, SoftFailure::Refusal)];
    let asked = |last: Condition| {
        let conditions = [weak(), RungHealth::Shut(full).into(), last];
        called(&super::super::decide(&job(), &hasty, &[0, 1, 2], &past, &[], &conditions, now))
    };
    // It waits a moment for the second one, which answers well.
    assert_eq!(asked(weak()), None);
    assert_eq!(asked(RungHealth::Open.into()), Some(2));
}

#[test]
fn as_many_jobs_are_started_as_the_better_rungs_take() {
    let room = |condition: Condition, headroom| Condition { headroom: Some(headroom), ..condition };
    let open = || Condition::from(RungHealth::Open);
    let jobs = |route: &Route, conditions: &[Condition]| {
        let order: Vec<usize> = (0..route.rungs.len()).collect();
        startable(route, &order, &[], conditions, None, NOW).jobs()
    };
    let hasty = Route { patience: Patience::For(Duration::ZERO), ..route(2) };
    assert_eq!(jobs(&hasty, &[room(open(), 5), room(open(), 3)]), 8);
    assert_eq!(jobs(&hasty, &[room(weak(), 5), room(open(), 3)]), 3);
    assert_eq!(jobs(&hasty, &[room(weak(), 5), room(weak(), 3)]), 8);
    assert_eq!(jobs(&hasty, &[room(weak(), 5), shut(Reason::Breaker, MINUTE).into()]), 5);
    assert_eq!(jobs(&hasty, &[room(weak(), 5), shut(Reason::Concurrency, SECOND).into()]), 0, "they wait a moment");
    assert_eq!(jobs(&route(1), &[room(weak(), 5)]), 5);
}

/// The same decision with and without these weaknesses.
fn compare(world: &World, weak: &[bool], past: &[Attempt], now: Timestamp) -> (Step, Step) {
    let plain: Vec<Condition> = world.health(now).into_iter().map(Condition::from).collect();
    let mut weakened = plain.clone();
    for (condition, is_weak) in weakened.iter_mut().zip(weak) {
        condition.weakness = is_weak.then(|| weakness(Reason::Quality));
    }
    let decide = |conditions: &[Condition]| {
        super::super::decide(&world.job, &world.route, &world.order, past, &[], conditions, now)
    };
    (decide(&plain), decide(&weakened))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn weakness_stalls_and_ends_no_job(
        world in worlds(), weak in prop::collection::vec(any::<bool>(), 4), past in 0..6_usize, ago in 0..5_000_u32,
    ) {
        let now = NOW + SECOND * ago;
        let calls = world.calls.iter().take(past).zip(0..);
        let past: Vec<Attempt> = calls
            .map(|((outcome, ..), place)| Attempt::new(Some(place % world.route.rungs.len()), outcome.clone(), NOW))
            .collect();
        let (plain, weakened) = compare(&world, &weak, &past, now);
        let is_weak = |rung: usize| weak.get(rung) == Some(&true);
        let is_full = world.health(now).iter().enumerate().any(|(rung, health)| {
            let opens = |shut: &Shut| shut.reason == Reason::Concurrency || now.until(shut.until) <= startable::MOMENT;
            !is_weak(rung) && matches!(health, RungHealth::Shut(shut) if shut.reason.is_a_limit() && opens(shut))
        });
        match (&plain, &weakened) {
            (Step::Call { rung, .. }, Step::Call { rung: other, .. }) if rung != other => {
                prop_assert!(is_weak(*rung) && !is_weak(*other), "{plain:?}, {weakened:?}");
            }
            // It waits for a moment, for one that is full, or until another one opens that it would leave otherwise. In
            // these worlds a moment may be long.
            (Step::Call { rung, .. }, Step::Wait { .. }) => prop_assert!(is_weak(*rung) && is_full),
            // It would have waited for a weak rung that is shut, or until one before it opens.
            (Step::Wait { .. }, Step::Call { rung, .. }) => prop_assert!(!is_weak(*rung)),
            (Step::Wait { rung, .. }, Step::Wait { rung: other, .. }) if rung != other => prop_assert!(is_full),
            (plain, weakened) => prop_assert_eq!(plain, weakened),
        }
        // Where all are alike nothing changes, and no only rung is ever passed over.
        let (plain, all) = compare(&world, &[true; 4], &past, now);
        prop_assert_eq!(plain, all);
    }
}
