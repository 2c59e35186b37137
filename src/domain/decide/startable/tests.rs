use super::super::RungHealth;
use super::*;
use crate::domain::decide::{Line, Worth};
use crate::domain::request::Pass;
use crate::domain::validation::Rules;
use crate::domain::{ErrorClass, Model, Patience, Rung, Strategy, Target};
use proptest::prelude::*;
use proptest::strategy::Strategy as Values;

const NOW: Timestamp = Timestamp(1_000_000_000);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn route(rungs: usize, patience: Duration) -> Route {
    let rung = |index: usize| Rung {
        target: Target { provider: "p".into(), model: index.to_string() },
        model: Model::default(),
        total_timeout: MINUTE,
    };
    Route {
        name: "r".into(),
        rungs: (0..rungs).map(rung).collect(),
        strategy: Strategy::Priority,
        patience: Patience::For(patience),
        max_attempts: 6,
        fallback_on: ErrorClass::ALL.iter().copied().collect(),
        rules: Rules::default(),
        pass: Pass::default(),
    }
}

fn open(headroom: usize) -> Condition {
    Condition { headroom: Some(headroom), ..RungHealth::Open.into() }
}

/// A rung that is open, with free places and jobs that wait for them: of all routes, and of this one.
fn line(places: usize, waiting: usize, own: usize) -> Condition {
    Condition { line: Some(Line { places, waiting, own, since: NOW }), ..open(places.saturating_sub(waiting)) }
}

fn shut(reason: Reason, wait: Duration) -> Condition {
    RungHealth::Shut(Shut { reason, since: NOW, until: NOW + wait }).into()
}

fn never() -> Condition {
    RungHealth::Ineligible(crate::domain::decide::Ineligible::Unsupported("this".into())).into()
}

fn ask(route: &Route, conditions: &[Condition]) -> Startable {
    let order: Vec<usize> = (0..route.rungs.len()).collect();
    startable(route, &order, conditions, None, NOW)
}

#[test]
fn jobs_that_would_wait_for_a_full_rung_add_no_room_of_the_next() {
    let patient = route(2, MINUTE * 10);
    assert_eq!(ask(&patient, &[open(5), open(100)]), Startable::Now(5));
    let pinned = Route { fallback_on: [].into(), ..route(2, Duration::ZERO) };
    assert_eq!(ask(&pinned, &[open(5), open(100)]), Startable::Now(5));
}

#[test]
fn no_job_is_claimed_for_places_that_jobs_in_hand_will_take() {
    let pinned = Route { fallback_on: [].into(), ..route(1, Duration::ZERO) };
    for (places, waiting, own, jobs) in [
        // Nothing waits: the places, and one at least.
        (2, 0, 0, 2),
        (1, 0, 0, 1),
        (0, 0, 0, 1),
        // Jobs of this route wait: the places that they leave, which may be none.
        (5, 2, 2, 3),
        (2, 1, 1, 1),
        (2, 2, 1, 0),
        (1, 1, 1, 0),
        (1, 7, 3, 0),
        (0, 1, 1, 0),
        // Only jobs of other routes wait: they keep this route out of no line.
        (5, 2, 0, 3),
        (1, 1, 0, 1),
        (0, 9, 0, 1),
    ] {
        let startable = ask(&pinned, &[line(places, waiting, own)]);
        assert_eq!(startable.jobs(), jobs, "{places} places, {waiting} waiting, {own} of them of this route");
        let asks_again = startable.opens().map(|at| NOW.until(at) <= Duration::from_millis(100));
        assert_eq!(asks_again, (jobs == 0).then_some(true), "and the claimer asks again soon");
    }
}

#[test]
fn a_full_line_is_passed_as_a_rung_that_is_shut() {
    // A job that does not wait goes on, …
    let hasty = route(2, Duration::ZERO);
    assert_eq!(ask(&hasty, &[line(1, 1, 1), open(7)]), Startable::Now(7));
    // … and so does one that has waited for long enough; others stay in line.
    let patient = route(2, MINUTE * 10);
    assert_eq!(ask(&patient, &[line(1, 1, 1), open(7)]).jobs(), 0);
    let since = NOW - MINUTE * 11;
    let full = Condition { line: Some(Line { places: 1, waiting: 1, own: 1, since }), ..open(0) };
    assert_eq!(ask(&patient, &[full, open(7)]), Startable::Now(7));
    // A line says nothing of a rung that is shut for another reason, or never fits.
    let shut = Condition { line: line(5, 9, 1).line, ..shut(Reason::Breaker, HOUR) };
    assert_eq!(ask(&route(1, MINUTE * 10), std::slice::from_ref(&shut)).opens(), Some(NOW + HOUR));
    let never = Condition { line: line(5, 9, 1).line, ..never() };
    assert_eq!(ask(&hasty, &[never, open(7)]), Startable::Now(7));
}

#[test]
fn jobs_that_do_not_wait_have_the_room_of_all_rungs_together() {
    let hasty = route(3, Duration::ZERO);
    assert_eq!(ask(&hasty, &[open(5), open(100), open(7)]), Startable::Now(112));
    assert_eq!(ask(&hasty, &[open(5), never(), open(7)]), Startable::Now(12));
    assert_eq!(ask(&hasty, &[open(5), shut(Reason::Breaker, HOUR), open(7)]), Startable::Now(12));
    assert_eq!(ask(&hasty, &[open(usize::MAX), open(7)]).jobs(), usize::MAX, "no end to it is no overflow");
}

#[test]
fn a_rung_that_is_shut_is_passed_where_an_old_job_would_pass_it() {
    // However much patience there is, some job has used it up, unless the rung was shut just now.
    let patient = route(2, MINUTE * 10);
    assert_eq!(ask(&patient, &[shut(Reason::RateLimit, HOUR), open(3)]), Startable::Now(3));
    assert_eq!(ask(&patient, &[shut(Reason::RateLimit, MINUTE), open(3)]).opens(), Some(NOW + MINUTE));
    let endless = Route { patience: Patience::Forever, ..route(2, MINUTE) };
    let worth = Worth::Patience { until: Timestamp::MAX };
    let why = Skip::Shut { shut: Shut { reason: Reason::RateLimit, since: NOW, until: NOW + MINUTE }, worth };
    let later = Startable::Later { until: NOW + MINUTE, rung: 0, why };
    assert_eq!(ask(&endless, &[shut(Reason::RateLimit, MINUTE), open(3)]), later);
    assert_eq!((later.jobs(), later.opens()), (0, Some(NOW + MINUTE)));
    // Money does not come back by itself, so no job waits for it.
    assert_eq!(ask(&endless, &[shut(Reason::QuotaExhausted, MINUTE), open(3)]), Startable::Now(3));
}

#[test]
fn the_first_rung_to_open_is_what_all_wait_for() {
    let conditions = [shut(Reason::Auth, HOUR), shut(Reason::RateLimit, MINUTE), never()];
    let Startable::Later { until, rung, .. } = ask(&route(3, MINUTE * 10), &conditions) else { panic!("none may") };
    assert_eq!((until, rung), (NOW + MINUTE, 1));
}

#[test]
fn a_job_that_no_rung_takes_or_that_is_too_late_may_start_to_end() {
    assert_eq!(ask(&route(2, MINUTE), &[never(), never()]), Startable::ToEnd);
    let late = startable(&route(1, MINUTE), &[0], &[shut(Reason::Auth, HOUR)], Some(NOW), NOW);
    assert_eq!((late.jobs(), late), (usize::MAX, Startable::ToEnd));
    let soon = startable(&route(1, MINUTE), &[0], &[shut(Reason::Auth, HOUR)], Some(NOW + MINUTE), NOW);
    assert_eq!(soon.opens(), Some(NOW + MINUTE), "the deadline ends the wait");
}

#[test]
fn an_open_rung_takes_one_however_little_room_was_measured() {
    assert_eq!(ask(&route(1, MINUTE), &[open(0)]), Startable::Now(1));
}

fn conditions(rungs: usize) -> impl Values<Value = Vec<Condition>> {
    let reasons = prop::sample::select(Reason::ALL);
    let one = prop_oneof![
        (0..50_usize).prop_map(open),
        (reasons, 0..5_000_u64, 1..5_000_u64).prop_map(|(reason, since, wait)| {
            let (since, until) = (NOW - Duration::from_secs(since), NOW + Duration::from_secs(wait));
            RungHealth::Shut(Shut { reason, since, until }).into()
        }),
        Just(never()),
    ];
    prop::collection::vec(one, rungs)
}

proptest! {
    /// The route's result is what `decide` gives a job that has waited for ever.
    #[test]
    fn jobs_may_start_exactly_when_one_that_has_waited_for_ever_may(
        conditions in conditions(4),
        patience in 0..3_000_u64,
        listed in prop::sample::subsequence(ErrorClass::ALL, 0..=ErrorClass::ALL.len()),
        deadline in prop::option::of(1..5_000_u64),
    ) {
        use crate::domain::decide::{Step, decide};
        use crate::domain::{Job, JobId};
        let route = Route { fallback_on: listed.into_iter().collect(), ..route(4, Duration::from_secs(patience)) };
        let deadline = deadline.map(|seconds| NOW + Duration::from_secs(seconds));
        let (id, ready_at, max_attempts) = (JobId(7), Timestamp::MIN, None);
        let job = Job { id, ready_at, deadline, max_attempts, input_tokens: 1, max_output_tokens: None };
        let asked = startable(&route, &[0, 1, 2, 3], &conditions, deadline, NOW);
        match decide(&job, &route, &[0, 1, 2, 3], &[], &conditions, NOW) {
            Step::Call { rung, .. } => {
                let room = conditions[rung].headroom.unwrap_or(0).max(1);
                prop_assert!(matches!(asked, Startable::Now(jobs) if jobs >= room), "{asked:?}");
            }
            Step::Wait { until, rung, why } => prop_assert_eq!(asked, Startable::Later { until, rung, why }),
            Step::Finish(_) => prop_assert_eq!(asked, Startable::ToEnd),
        }
    }
}
