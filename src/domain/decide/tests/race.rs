//! Several calls of one job at a time.

use super::worlds::{World, counted, most, worlds};
use super::*;
use crate::domain::{Race, Strategy};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as Values;

const AFTER: Duration = Duration::from_secs(2);

/// A race over this many rungs.
fn race(rungs: usize, at_most: u16) -> Route {
    Route { strategy: Strategy::Race(Race { after: AFTER, at_most }), ..route(rungs) }
}

/// A call to this rung that was begun so many seconds after [`NOW`].
fn since(rung: usize, seconds: u32) -> UnderWay {
    UnderWay { rung: Some(rung), since: NOW + SECOND * seconds }
}

fn at(attempt: Attempt, seconds: u32) -> Attempt {
    Attempt { ended_at: NOW + SECOND * seconds, ..attempt }
}

/// Decides with the rungs in listed order, so many seconds after [`NOW`]; those that are not named are open.
fn ask(route: &Route, history: &[Attempt], under_way: &[UnderWay], health: &[RungHealth], seconds: u32) -> Step {
    ask_for(&job(), route, history, under_way, health, seconds)
}

fn ask_for(
    job: &Job,
    route: &Route,
    history: &[Attempt],
    under_way: &[UnderWay],
    health: &[RungHealth],
    seconds: u32,
) -> Step {
    let conditions: Vec<Condition> = health.iter().cloned().map(Condition::from).collect();
    let order: Vec<usize> = (0..route.rungs.len()).collect();
    super::super::decide(job, route, &order, history, under_way, &conditions, NOW + SECOND * seconds)
}

/// The job waits until a call ends.
fn waits_for_calls(step: &Step) -> bool {
    matches!(step, Step::Wait { until: Timestamp::MAX, why: Skip::UnderWay { .. }, .. })
}

#[test]
fn a_rung_that_has_not_answered_for_long_is_joined_by_the_next() {
    let route = race(3, 2);
    assert_eq!(called(&ask(&route, &[], &[], &[], 0)), Some(0));
    let why = Skip::UnderWay { since: NOW };
    let wait = Step::Wait { until: NOW + AFTER, rung: 1, why: why.clone() };
    assert_eq!(ask(&route, &[], &[since(0, 0)], &[], 1), wait);
    assert_eq!(ask(&route, &[], &[since(0, 0)], &[], 2), Step::Call { rung: 1, skipped: vec![(0, why)] });
    let at_once = Route { strategy: Strategy::Race(Race { after: Duration::ZERO, at_most: 2 }), ..race(3, 2) };
    assert_eq!(called(&ask(&at_once, &[], &[since(0, 0)], &[], 0)), Some(1));
}

#[test]
fn no_more_calls_are_under_way_than_the_route_allows_and_each_counts_from_the_last() {
    let two = [since(0, 0), since(1, 2)];
    assert!(waits_for_calls(&ask(&race(3, 2), &[], &two, &[], 9)));
    assert_eq!(wait_until(&ask(&race(3, 3), &[], &two, &[], 3)), Some(NOW + SECOND * 4));
    assert_eq!(called(&ask(&race(3, 3), &[], &two, &[], 4)), Some(2));
    // All rungs are being asked.
    assert!(waits_for_calls(&ask(&race(2, 3), &[], &two, &[], 9)));
    // A call to a rung that the route has no more is one of them.
    let gone = UnderWay { rung: None, since: NOW };
    assert!(waits_for_calls(&ask(&race(3, 2), &[], &[gone, since(0, 1)], &[], 9)));
}

#[test]
fn when_a_call_has_failed_the_next_rung_is_asked_at_once() {
    let route = race(3, 2);
    for failed in [failed(0, Class::ServerError), failed(0, Class::Refused), rejected(0, SoftFailure::Empty)] {
        assert_eq!(called(&ask(&route, std::slice::from_ref(&failed), &[], &[], 0)), Some(1), "{failed:?}");
        let history = [at(failed, 3)];
        assert_eq!(called(&ask(&route, &history, &[since(1, 2)], &[], 3)), Some(2), "{history:?}");
        // The call that was begun for that is not joined for the same reason.
        let later = ask(&race(4, 3), &history, &[since(1, 2), since(2, 3)], &[], 3);
        assert_eq!(wait_until(&later), Some(NOW + SECOND * 5), "{history:?}");
    }
}

#[test]
fn a_rung_that_may_not_be_left_after_a_failure_keeps_its_turn() {
    let route = without(race(2, 2), &[Class::ServerError]);
    let history = [failed(0, Class::ServerError)];
    let Step::Wait { until, rung: 0, why: Skip::BackingOff { .. } } = ask(&route, &history, &[], &[], 0) else {
        panic!("it waits for its own retry");
    };
    assert!(until > NOW);
}

#[test]
fn a_rung_that_failed_takes_part_again_after_its_rest_and_not_before() {
    let history = [at(failed(0, Class::ServerError), 1)];
    let under_way = [since(1, 1)];
    let Step::Wait { until, rung: 0, .. } = ask(&race(2, 2), &history, &under_way, &[], 1) else {
        panic!("it rests");
    };
    // No sooner than any other would be asked beside the call.
    assert_eq!(until, (NOW + SECOND + AFTER).max(until));
    let seconds = u32::try_from(NOW.until(until).as_secs()).unwrap() + 1;
    assert_eq!(called(&ask(&race(2, 2), &history, &under_way, &[], seconds)), Some(0));
    // While there is one that has not failed, it has no second turn.
    let both = [failed(0, Class::ServerError), at(failed(1, Class::Timeout), 2)];
    assert_eq!(called(&ask(&race(3, 2), &both, &[], &[], 4_000)), Some(2));
}

#[test]
fn a_limit_is_no_failure_and_a_rung_that_is_worth_waiting_for_keeps_its_turn() {
    let limited = [shut(Reason::RateLimit, MINUTE)];
    let history = [at(failed(0, Class::RateLimit), 3)];
    assert_eq!(wait_until(&ask(&race(2, 2), &history, &[], &limited, 3)), Some(NOW + MINUTE));
    // Beside a call too.
    assert_eq!(wait_until(&ask(&race(3, 2), &history, &[since(1, 2)], &limited, 9)), Some(NOW + MINUTE));
    // Without patience the next one is asked, in its own time.
    let route = Route { patience: Patience::For(Duration::ZERO), ..race(3, 2) };
    assert_eq!(wait_until(&ask(&route, &history, &[since(1, 2)], &limited, 3)), Some(NOW + SECOND * 4));
    assert_eq!(called(&ask(&route, &history, &[since(1, 2)], &limited, 4)), Some(2));
}

#[test]
fn calls_under_way_may_fail_and_count_as_attempts() {
    let route = Route { max_attempts: 2, ..race(3, 3) };
    let history = [failed(0, Class::Refused)];
    assert_eq!(called(&ask(&route, &history, &[], &[], 0)), Some(1));
    assert!(waits_for_calls(&ask(&route, &history, &[since(1, 0)], &[], 9)));
    let job = Job { max_attempts: Some(1), ..job() };
    assert!(waits_for_calls(&ask_for(&job, &race(3, 3), &[], &[since(0, 0)], &[], 9)));
}

#[test]
fn no_job_fails_while_a_call_is_under_way_and_one_that_is_answered_has_succeeded() {
    let used_up = Route { max_attempts: 1, ..race(2, 2) };
    let hopeless = without(race(2, 2), &[Class::ContentPolicy]);
    let late = Job { deadline: Some(NOW + SECOND), ..job() };
    for (job, route, class) in [
        (job(), used_up, Class::ServerError),
        (job(), hopeless, Class::ContentPolicy),
        (late, race(2, 2), Class::Timeout),
    ] {
        let history = [failed(0, class)];
        assert!(waits_for_calls(&ask_for(&job, &route, &history, &[since(1, 0)], &[], 2)), "{class}");
        assert!(failure(&ask_for(&job, &route, &history, &[], &[], 2)).is_some(), "{class}");
        let answered = [failed(0, class), Attempt::new(Some(1), Outcome::Accepted, NOW)];
        let step = ask_for(&job, &route, &answered, &[since(0, 0)], &[], 2);
        assert_eq!(step, Step::Finish(Ending::Succeeded), "{class}");
    }
}

#[test]
fn a_route_that_is_no_race_any_more_waits_for_the_calls_that_are_under_way() {
    assert!(waits_for_calls(&ask(&route(3), &[], &[since(0, 0)], &[], 9_000)));
}

/// Plays a race in a world until the job ends. Hands each step to `look` beforehand, with the history and the calls
/// under way; returns the history.
fn play(world: &World, mut look: impl FnMut(&[Attempt], &[UnderWay], Timestamp, &Step)) -> Vec<Attempt> {
    let (mut now, mut history) = (NOW, Vec::new());
    let mut calls = world.calls.iter().cycle();
    let mut under_way: Vec<(UnderWay, Timestamp, Attempt)> = Vec::new();
    for _ in 0..MOST_ATTEMPTS * 20 {
        let seen: Vec<UnderWay> = under_way.iter().map(|(call, ..)| *call).collect();
        let conditions: Vec<Condition> = world.health(now).into_iter().map(Condition::from).collect();
        let World { job, route, order, .. } = world;
        let step = super::super::decide(job, route, order, &history, &seen, &conditions, now);
        look(&history, &seen, now, &step);
        match step {
            Step::Finish(_) => return history,
            Step::Call { rung, .. } => {
                let (outcome, took, asked) = calls.next().expect("cycles").clone();
                let ends = now + SECOND * took;
                let retry_at = asked.map(|seconds| ends + SECOND * seconds);
                let attempt = Attempt { retry_at, ..Attempt::new(Some(rung), outcome, ends) };
                under_way.push((UnderWay { rung: Some(rung), since: now }, ends, attempt));
            }
            Step::Wait { until, .. } => {
                let first = (0..under_way.len()).min_by_key(|index| under_way[*index].1);
                match first.filter(|index| under_way[*index].1 <= until) {
                    Some(index) => {
                        let (_, ends, attempt) = under_way.remove(index);
                        now = now.max(ends);
                        history.push(attempt);
                    }
                    None => now = until,
                }
            }
        }
    }
    panic!("the job does not end")
}

fn races() -> impl Values<Value = World> {
    (worlds(), 0..600_u32, 2..4_u16).prop_map(|(world, after, at_most)| {
        let strategy = Strategy::Race(Race { after: SECOND * after, at_most });
        World { route: Route { strategy, ..world.route }, ..world }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_race_ends_with_one_answer_at_most(world in races()) {
        let mut last = None;
        let history = play(&world, |_, under_way, _, step| {
            assert!(failure(step).is_none() || under_way.is_empty(), "{step:?}");
            last = Some(step.clone());
        });
        let accepted = history.iter().filter(|attempt| attempt.outcome == Outcome::Accepted).count();
        prop_assert_eq!(accepted, usize::from(last == Some(Step::Finish(Ending::Succeeded))));
    }

    #[test]
    fn each_rung_is_asked_once_at_a_time_and_no_more_calls_are_under_way_than_may_fail(world in races()) {
        let Strategy::Race(Race { after, at_most }) = world.route.strategy else { panic!("a race") };
        play(&world, |history, under_way, now, step| {
            assert!(under_way.len() <= usize::from(at_most));
            assert!(counted(history) + under_way.len() <= most(&world));
            let Some(rung) = called(step) else { return };
            assert!(under_way.iter().all(|call| call.rung != Some(rung)));
            assert_eq!(world.health(now)[rung], RungHealth::Open);
            assert!(world.job.deadline.is_none_or(|deadline| now < deadline));
            let newest = under_way.iter().map(|call| call.since).max();
            if let Some(newest) = newest.filter(|newest| now < *newest + after) {
                assert!(history.iter().any(|attempt| attempt.ended_at > newest), "it has failed since");
            }
        });
    }

    #[test]
    fn a_wait_beside_calls_ends_later_than_now(world in races()) {
        play(&world, |_, under_way, now, step| {
            if let Some(until) = wait_until(step) {
                assert!(until > now);
                assert!(!under_way.is_empty() || world.job.deadline.is_none_or(|deadline| until <= deadline));
            }
        });
    }

    #[test]
    fn whatever_calls_are_under_way_the_same_input_gives_the_same_step(
        world in worlds(),
        calls in prop::collection::vec((prop::option::of(0..6_usize), any::<i64>()), 0..5),
        now in any::<i64>(),
    ) {
        let under_way: Vec<UnderWay> =
            calls.into_iter().map(|(rung, since)| UnderWay { rung, since: Timestamp(since) }).collect();
        let conditions: Vec<Condition> = world.health(NOW).into_iter().map(Condition::from).collect();
        let World { job, route, order, .. } = &world;
        let decide = || super::super::decide(job, route, order, &[], &under_way, &conditions, Timestamp(now));
        prop_assert_eq!(decide(), decide());
        prop_assert!(wait_until(&decide()).is_none_or(|until| until > Timestamp(now) || now == i64::MAX));
    }
}
