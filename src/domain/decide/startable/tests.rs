use super::super::RungHealth;
use super::*;
use crate::domain::decide::{Line, Worth};
use crate::domain::quality::Weakness;
use crate::domain::{ErrorClass, Model, Patience, Rung, Strategy, Target, Timeouts};
use proptest::prelude::*;
use proptest::strategy::Strategy as Values;

const NOW: Timestamp = Timestamp(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn route(rungs: usize, patience: Duration) -> Route {
    let rung = |index: usize| Rung {
        target: Target::new("p", index.to_string()),
        model: Model::default(),
        timeouts: Timeouts::of(MINUTE),
        stream: false,
    };
    Route {
        patience: Patience::For(patience),
        max_attempts: 6,
        fallback_on: ErrorClass::ALL.iter().copied().collect(),
        ..Route::plain("r", (0..rungs).map(rung).collect())
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
    startable(route, &order, &[], conditions, None, NOW)
}

#[test]
fn a_route_is_stuck_when_each_of_its_rungs_waits_for_a_person_to_mend_it() {
    let [key, money, model] = [Reason::Auth, Reason::QuotaExhausted, Reason::Model].map(|reason| shut(reason, HOUR));
    assert!(is_stuck(&[key.clone(), money, model.clone()]));
    assert!(is_stuck(&[never(), model]), "what takes no such request does not count");
    for other in [open(1), shut(Reason::RateLimit, HOUR), shut(Reason::Breaker, HOUR), shut(Reason::Paused, HOUR)] {
        assert!(!is_stuck(&[key.clone(), other.clone()]) && !is_stuck(&[other, key.clone()]));
    }
    assert!(!is_stuck(&[never()]) && !is_stuck(&[]), "its jobs end");
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
    let later = Startable::Later { until: NOW + MINUTE, rung: 0, why, is_moment: false };
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
    let late = startable(&route(1, MINUTE), &[0], &[], &[shut(Reason::Auth, HOUR)], Some(NOW), NOW);
    assert_eq!((late.jobs(), late), (usize::MAX, Startable::ToEnd));
    let soon = startable(&route(1, MINUTE), &[0], &[], &[shut(Reason::Auth, HOUR)], Some(NOW + MINUTE), NOW);
    assert_eq!(soon.opens(), Some(NOW + MINUTE), "the deadline ends the wait");
}

#[test]
fn an_open_rung_takes_one_however_little_room_was_measured() {
    assert_eq!(ask(&route(1, MINUTE), &[open(0)]), Startable::Now(1));
}

/// A route of two rungs that jobs draw three to one.
fn drawn(patience: Duration, conditions: &[Condition]) -> Startable {
    let route = Route { strategy: Strategy::Weighted([3.0, 1.0].into()), ..route(2, patience) };
    startable(&route, &[0, 1], &[(0, 0.75), (1, 0.25)], conditions, None, NOW)
}

#[test]
fn where_jobs_draw_their_rung_as_many_start_as_the_rung_takes_that_has_the_least_room_for_its_share() {
    assert_eq!(drawn(MINUTE, &[open(30), open(100)]), Startable::Now(40));
    assert_eq!(drawn(MINUTE, &[open(300), open(10)]), Startable::Now(40));
    // Without patience the jobs beyond that go on to the other rung.
    assert_eq!(drawn(Duration::ZERO, &[open(30), open(100)]), Startable::Now(130));
    assert_eq!(drawn(Duration::ZERO, &[shut(Reason::RateLimit, SECOND), open(100)]), Startable::Now(100));
}

#[test]
fn where_jobs_draw_their_rung_one_that_is_full_for_a_moment_holds_them_and_one_that_is_shut_for_longer_does_not() {
    let full = drawn(MINUTE, &[shut(Reason::RateLimit, SECOND), open(100)]);
    assert_eq!(full.opens(), Some(NOW + SECOND));
    let both = [shut(Reason::RateLimit, SECOND), shut(Reason::RateLimit, Duration::from_millis(300))];
    assert_eq!(drawn(MINUTE, &both).opens(), Some(NOW + SECOND), "until both have room");
    // Those that drew the shut rung rest until it opens; the others go on: a quarter of the claimed jobs.
    assert_eq!(drawn(MINUTE, &[shut(Reason::RateLimit, MINUTE), open(100)]), Startable::Now(100));
    assert_eq!(drawn(MINUTE, &[shut(Reason::Auth, SECOND), open(100)]), Startable::Now(100));
    assert_eq!(
        drawn(HOUR, &[shut(Reason::RateLimit, HOUR), shut(Reason::RateLimit, MINUTE)]).opens(),
        Some(NOW + MINUTE)
    );
    assert_eq!(drawn(MINUTE, &[never(), never()]), Startable::ToEnd);
}

#[test]
fn where_full_rungs_go_last_the_room_of_all_open_rungs_adds_up_however_much_patience_there_is() {
    let balanced = Route { strategy: Strategy::Balanced, ..route(3, HOUR) };
    assert_eq!(ask(&balanced, &[open(5), open(100), shut(Reason::RateLimit, MINUTE)]), Startable::Now(105));
    assert_eq!(
        ask(&balanced, &[shut(Reason::RateLimit, MINUTE), shut(Reason::Auth, HOUR), never()]).opens(),
        Some(NOW + MINUTE)
    );
}

#[test]
fn of_parts_that_are_told_apart_only_after_the_claim_none_is_claimed_beyond_its_share_and_one_that_ends_stops_none() {
    let later = |wait| ask(&route(1, HOUR), &[shut(Reason::RateLimit, wait)]);
    let of = |parts: [(f64, Startable); 2]| together(parts, usize::MAX);
    assert_eq!(of([(0.5, Startable::Now(10)), (0.5, Startable::Now(30))]), Startable::Now(20));
    assert_eq!(of([(0.5, Startable::Now(10)), (0.5, later(MINUTE))]), Startable::Now(20));
    assert_eq!(of([(0.5, Startable::Now(10)), (0.5, later(SECOND))]), later(SECOND));
    assert_eq!(of([(0.5, later(HOUR)), (0.5, later(MINUTE))]), later(MINUTE));
    assert_eq!(of([(0.5, Startable::ToEnd), (0.5, later(MINUTE))]), Startable::ToEnd);
    assert_eq!(of([(0.5, Startable::ToEnd), (0.5, Startable::Now(3))]), Startable::Now(6));
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
    let one = (one, prop::bool::weighted(0.25), prop::sample::select(vec![Reason::Slow, Reason::Quality]));
    let one = one.prop_map(|(condition, is_weak, reason)| {
        let shut = Shut { reason, since: NOW, until: NOW + MINUTE };
        Condition { weakness: is_weak.then_some(Weakness { shut, found: None }), ..condition }
    });
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
        use crate::domain::request::Extras;
        use crate::domain::{Job, JobId};
        let route = Route { fallback_on: listed.into_iter().collect(), ..route(4, Duration::from_secs(patience)) };
        let deadline = deadline.map(|seconds| NOW + Duration::from_secs(seconds));
        let (id, ready_at, max_attempts) = (JobId(7), Timestamp::MIN, None);
        let (max_output_tokens, sticky, extras) = (None, None, Extras::default());
        let job = Job { id, ready_at, deadline, max_attempts, input_tokens: 1, max_output_tokens, sticky, extras };
        let asked = startable(&route, &[0, 1, 2, 3], &[], &conditions, deadline, NOW);
        match decide(&job, &route, &[0, 1, 2, 3], &[], &[], &conditions, NOW) {
            Step::Call { rung, .. } => {
                let room = conditions[rung].headroom.unwrap_or(0).max(1);
                prop_assert!(matches!(asked, Startable::Now(jobs) if jobs >= room), "{asked:?}");
            }
            Step::Wait { until, rung, why } => {
                let is_moment = NOW.until(until) <= MOMENT;
                prop_assert_eq!(asked, Startable::Later { until, rung, why, is_moment });
            }
            Step::Finish(_) => prop_assert_eq!(asked, Startable::ToEnd),
        }
    }

    /// Where jobs draw their first rung, some may start only if the draw of one of them may, and none may only if each
    /// draw has to wait, or one of them for a moment.
    #[test]
    fn where_jobs_draw_their_rung_they_start_as_their_draws_do(
        conditions in conditions(3),
        patience in 0..3_000_u64,
        weights in prop::collection::vec(1..9_u32, 3),
    ) {
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let route = Route { strategy: Strategy::Weighted(weights.into()), ..route(3, Duration::from_secs(patience)) };
        let drawn = crate::domain::strategy::first_choices(&route, None);
        let asked = startable(&route, &[0, 1, 2], &drawn, &conditions, None, NOW);
        let of_draw = |first: usize| {
            let mut order = vec![0, 1, 2];
            order.remove(first);
            order.insert(0, first);
            startable(&route, &order, &[], &conditions, None, NOW)
        };
        let draws: Vec<Startable> = (0..3).map(of_draw).collect();
        match asked {
            Startable::Now(jobs) => {
                prop_assert!(draws.iter().any(|draw| matches!(draw, Startable::Now(_))), "{draws:?}");
                let open = |it: &Condition| if it.health == RungHealth::Open { it.headroom.unwrap().max(1) } else { 0 };
                let room: usize = conditions.iter().map(open).sum();
                prop_assert!(jobs >= 1 && jobs <= room, "{jobs} of {room}");
            }
            Startable::Later { until, .. } => {
                let all = draws.iter().all(|draw| draw.opens().is_some());
                let moment = draws.iter().any(|draw| draw.opens().is_some_and(|opens| NOW.until(opens) <= MOMENT));
                prop_assert!(all || moment, "{draws:?}");
                prop_assert!(draws.iter().any(|draw| draw.opens() == Some(until)), "{draws:?}");
            }
            Startable::ToEnd => prop_assert!(draws.iter().all(|draw| *draw == Startable::ToEnd)),
        }
    }
}
