//! Jobs that climb from rungs that are not sure enough of their answers.

use super::worlds::worlds;
use super::*;
use crate::domain::{Cascade, Confidence, Measure, Unsure};
use proptest::prelude::*;
use std::collections::BTreeSet;

pub(super) fn cascade() -> Cascade {
    Cascade { measure: Measure::MeanLogprob, at_least: Confidence::of(0.8).unwrap(), silent: BTreeSet::new() }
}

fn climbing(rungs: usize) -> Route {
    Route { cascade: Some(cascade()), ..route(rungs) }
}

pub(super) fn unsure(rung: usize, number: i16, confidence: Option<f64>) -> Attempt {
    let unsure = Some(Unsure { number, confidence: confidence.and_then(Confidence::of) });
    Attempt { unsure, ..rejected(rung, SoftFailure::LowConfidence) }
}

fn taken(step: &Step) -> Option<i16> {
    match step {
        Step::Finish(Ending::Unsure(unsure)) => Some(unsure.number),
        _ => None,
    }
}

#[test]
fn a_job_climbs_and_never_down() {
    let route = climbing(3);
    let skipped = vec![(0, Skip::Failed(Class::SoftFailure))];
    assert_eq!(after(&route, &[unsure(0, 1, Some(0.7))], NOW), Step::Call { rung: 1, skipped });
    // The first rung was shut at first, and has opened.
    assert_eq!(called(&after(&route, &[unsure(1, 1, Some(0.7))], NOW)), Some(2));
    assert_eq!(taken(&after(&route, &[unsure(2, 1, Some(0.7))], NOW)), Some(1));
    let sure = [unsure(0, 1, Some(0.7)), Attempt::new(Some(1), Outcome::Accepted, NOW)];
    assert_eq!(after(&route, &sure, NOW), Step::Finish(Ending::Succeeded));
}

#[test]
fn the_surest_answer_is_taken_when_the_rungs_above_fail() {
    let route = climbing(3);
    for (first, second, expected) in [
        (Some(0.7), Some(0.6), 1),
        (Some(0.6), Some(0.7), 2),
        (Some(0.7), Some(0.7), 2),
        (None, Some(0.0), 2),
        (Some(0.0), None, 1),
        (None, None, 2),
    ] {
        let refused = failed(2, Class::Refused);
        let history = [unsure(0, 1, first), unsure(1, 2, second), refused];
        assert_eq!(taken(&after(&route, &history, NOW)), Some(expected), "{first:?} {second:?}");
    }
    // One lap: two more tries, and not the whole again.
    let down = |times: usize| {
        let history = [vec![unsure(0, 1, Some(0.5))], vec![failed(1, Class::ServerError); times]].concat();
        after(&climbing(2), &history, NOW + HOUR)
    };
    assert_eq!((called(&down(1)), called(&down(2)), taken(&down(3))), (Some(1), Some(1), Some(1)));
}

#[test]
fn an_ending_that_would_be_a_failure_is_the_answer_that_there_is() {
    let history = |last: Attempt| [unsure(0, 1, Some(0.5)), last];
    let route = climbing(2);
    let (pinned, hasty) = (without(route.clone(), &[Class::ContentPolicy]), Route { max_attempts: 2, ..route.clone() });
    assert_eq!(taken(&after(&pinned, &history(failed(1, Class::ContentPolicy)), NOW)), Some(1));
    assert_eq!(taken(&after(&hasty, &history(failed(1, Class::ServerError)), NOW)), Some(1));
    let late = Job { deadline: Some(NOW), ..job() };
    let step = decide(&late, &route, &[0, 1], &[unsure(0, 1, None)], &[RungHealth::Open, RungHealth::Open], NOW);
    assert_eq!(taken(&step), Some(1));
    let once = Job { max_attempts: Some(1), ..job() };
    let step = decide(&once, &route, &[0, 1], &[unsure(0, 1, None)], &[RungHealth::Open, RungHealth::Open], NOW);
    assert_eq!(taken(&step), Some(1));
}

#[test]
fn a_rung_above_that_is_shut_is_waited_for_as_long_as_there_is_patience() {
    let route = climbing(2);
    let step = |health| decide(&job(), &route, &[0, 1], &[unsure(0, 1, None)], &[RungHealth::Open, health], NOW);
    assert_eq!(wait_until(&step(shut(Reason::RateLimit, MINUTE))), Some(NOW + MINUTE));
    assert_eq!(taken(&step(shut(Reason::RateLimit, HOUR))), Some(1));
    assert_eq!(taken(&step(shut(Reason::QuotaExhausted, MINUTE))), Some(1));
    assert_eq!(taken(&step(RungHealth::Ineligible(Ineligible::Unsupported("this".into())))), Some(1));
}

#[test]
fn an_answer_that_is_sure_by_now_is_taken() {
    let history = [unsure(0, 1, Some(0.7))];
    assert_eq!(taken(&after(&route(2), &history, NOW)), Some(1));
    let less = Cascade { at_least: Confidence::of(0.7).unwrap(), ..cascade() };
    assert_eq!(taken(&after(&Route { cascade: Some(less), ..route(2) }, &history, NOW)), Some(1));
    assert_eq!(called(&after(&climbing(2), &history, NOW)), Some(1));
}

#[test]
fn a_job_climbs_only_where_a_rung_above_can_take_it_and_its_own_can_say_how_sure_it_is() {
    let unable: Condition = RungHealth::Ineligible(Ineligible::Unsupported("this".into())).into();
    let open: Condition = RungHealth::Open.into();
    let climbs = |route: &Route, rung, order: &[usize], history: &[Attempt], conditions: &[Condition]| {
        climbs_from(rung, &job(), route, order, history, conditions)
    };
    let route = climbing(2);
    let all = [open.clone(), open.clone()];
    assert!(climbs(&route, 0, &[0, 1], &[], &all));
    assert!(!climbs(&route, 1, &[0, 1], &[], &all));
    assert!(climbs(&route, 1, &[1, 0], &[], &all));
    assert!(!climbs(&route, 0, &[0, 1], &[], &[open, unable]));
    assert!(!climbs(&route, 0, &[0, 1], &[failed(1, Class::Refused)], &all));
    assert!(!climbs(&Route { cascade: None, ..route.clone() }, 0, &[0, 1], &[], &all));
    let mute = Cascade { silent: [route.rungs[0].target.clone()].into(), ..cascade() };
    assert!(!climbs(&Route { cascade: Some(mute), ..route }, 0, &[0, 1], &[], &all));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_job_with_an_answer_never_fails_and_only_climbs(world in worlds(), sure in prop::collection::vec(0..4_u8, 40)) {
        let route = Route { cascade: Some(cascade()), ..world.route.clone() };
        let (mut now, mut history): (Timestamp, Vec<Attempt>) = (NOW, Vec::new());
        let (mut calls, mut highest, mut sure) = (world.calls.iter().cycle(), None, sure.into_iter().cycle());
        for _ in 0..20_000 {
            let conditions: Vec<Condition> = world.health(now).into_iter().map(Condition::from).collect();
            match super::super::decide(&world.job, &route, &world.order, &history, &[], &conditions, now) {
                Step::Finish(Ending::Failed { .. }) => {
                    prop_assert!(history.iter().all(|attempt| attempt.unsure.is_none()));
                    return Ok(());
                }
                Step::Finish(Ending::Unsure(_)) => {
                    prop_assert!(highest.is_some() && history.iter().all(|past| past.outcome != Outcome::Accepted));
                    return Ok(());
                }
                Step::Finish(Ending::Succeeded) => return Ok(()),
                Step::Wait { until, .. } => {
                    prop_assert!(until > now);
                    now = until;
                }
                Step::Call { rung, .. } => {
                    let place = world.order.iter().position(|&other| other == rung);
                    prop_assert!(place > highest, "{place:?} after {highest:?}");
                    let (outcome, took, _) = calls.next().expect("cycles").clone();
                    now = now + SECOND * took;
                    let number = i16::try_from(history.len()).unwrap();
                    let climbs = climbs_from(rung, &world.job, &route, &world.order, &history, &conditions);
                    let attempt = match sure.next() {
                        Some(0) if climbs => {
                            highest = place;
                            unsure(rung, number, Some(0.5))
                        }
                        _ => Attempt::new(Some(rung), outcome, now),
                    };
                    history.push(Attempt { ended_at: now, ..attempt });
                }
            }
        }
        prop_assert!(false, "the job does not end");
    }
}
