use super::*;
use crate::domain::{ErrorClass, SoftFailure};
use proptest::prelude::*;

const START: Timestamp = Timestamp(1_000_000);
const SECOND: Duration = Duration::from_secs(1);

const SETTINGS: BreakerSettings =
    BreakerSettings { min_calls: 4, failure_rate: 0.5, window: Duration::from_mins(1), open: Duration::from_secs(30) };

fn call(breaker: &mut Breaker, sign: Sign, now: Timestamp) {
    let permit = breaker.admit(now).expect("is admitted");
    breaker.record(permit, sign, now);
}

/// A breaker that opened at `START`.
fn opened() -> Breaker {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..4 {
        call(&mut breaker, Sign::Bad, START);
    }
    assert!(matches!(breaker.state(), State::Open { .. }));
    breaker
}

#[test]
fn new_settings_hold_at_once_and_leave_alone_what_they_would_have_done_too() {
    let mut breaker = opened();
    let before = breaker.state();
    breaker.retune(BreakerSettings { open: SECOND * 60, min_calls: 1, ..SETTINGS });
    assert_eq!(breaker.state(), before, "no time becomes longer");
    let mut breaker = Breaker::new(SETTINGS);
    call(&mut breaker, Sign::Bad, START);
    breaker.retune(BreakerSettings { min_calls: 2, ..SETTINGS });
    call(&mut breaker, Sign::Bad, START);
    assert!(matches!(breaker.state(), State::Open { .. }), "what was counted counts");
    let mut breaker = Breaker::new(SETTINGS);
    call(&mut breaker, Sign::Bad, START);
    breaker.retune(BreakerSettings { min_calls: 2, window: SECOND, ..SETTINGS });
    call(&mut breaker, Sign::Bad, START);
    assert_eq!(breaker.state(), State::Closed, "another window counts anew");
}

#[test]
fn a_schema_that_nobody_can_meet_opens_no_breaker() {
    use SoftFailure::{BadFinish, Empty, Html, StuckAnswer, VectorCount};
    let of_target = [Empty, Html, BadFinish, StuckAnswer, VectorCount];
    for &kind in SoftFailure::ALL {
        let expected = if of_target.contains(&kind) { Sign::Bad } else { Sign::Neutral };
        assert_eq!(Sign::of(&Outcome::Rejected(kind)), expected, "{kind}");
    }
}

#[test]
fn it_opens_at_the_failure_rate_and_not_below_the_least_number_of_calls() {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..3 {
        call(&mut breaker, Sign::Bad, START);
        assert_eq!(breaker.peek(START), None);
    }
    call(&mut breaker, Sign::Bad, START);
    assert_eq!(breaker.peek(START), Some((START, START + SETTINGS.open)));

    let mut breaker = Breaker::new(SETTINGS);
    for sign in [Sign::Good, Sign::Good, Sign::Good, Sign::Bad, Sign::Bad] {
        call(&mut breaker, sign, START);
        assert_eq!(breaker.state(), State::Closed);
    }
    call(&mut breaker, Sign::Bad, START);
    assert!(matches!(breaker.state(), State::Open { .. }));
}

#[test]
fn it_says_what_it_opened_for_until_it_closes() {
    let mut breaker = opened();
    let found = breaker.found().cloned();
    assert_eq!(found.as_ref().map(ToString::to_string).as_deref(), Some("4 of the last 4 calls failed"));
    let (mut other, news) = (Breaker::new(SETTINGS), breaker.news().unwrap());
    assert!(other.hear(&news, START) && other.found() == found.as_ref());
    let mut now = START + SETTINGS.open;
    call(&mut breaker, Sign::Bad, now);
    assert_eq!(breaker.found(), found.as_ref(), "a probe failed");
    now = now + SETTINGS.open * 2;
    for _ in 0..RAMP {
        call(&mut breaker, Sign::Good, now);
    }
    assert_eq!((breaker.state(), breaker.found()), (State::Closed, None));
}

#[test]
fn what_says_nothing_about_health_is_not_counted() {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..100 {
        call(&mut breaker, Sign::Neutral, START);
    }
    for _ in 0..3 {
        call(&mut breaker, Sign::Bad, START);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn limits_keys_money_and_requests_say_nothing_about_health() {
    use ErrorClass::{Network, Overloaded, ServerError, SoftFailure, Timeout, Unreachable};
    let bad = [Overloaded, ServerError, Timeout, Network, Unreachable, SoftFailure];
    for &class in ErrorClass::ALL {
        let expected = if bad.contains(&class) { Sign::Bad } else { Sign::Neutral };
        assert_eq!(Sign::of(&Outcome::Failed(class)), expected, "{class}");
    }
    assert_eq!(Sign::of(&Outcome::Accepted), Sign::Good);
}

#[test]
fn failures_leave_the_window() {
    let mut breaker = Breaker::new(SETTINGS);
    for second in 0..100 {
        // One failure in twenty seconds: three in the window, four are needed.
        call(&mut breaker, Sign::Bad, START + SECOND * 20 * second);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_clock_that_is_set_back_forgets_nothing() {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..3 {
        call(&mut breaker, Sign::Bad, START);
    }
    call(&mut breaker, Sign::Bad, START - SETTINGS.window);
    assert!(matches!(breaker.state(), State::Open { .. }));
}

#[test]
fn one_probe_goes_when_its_time_is_over() {
    let mut breaker = opened();
    let due = START + SETTINGS.open;
    assert_eq!(breaker.admit(due - SECOND), Err((START, due)));
    let probe = breaker.admit(due).unwrap();
    assert_eq!(breaker.admit(due), Err((START, due + PROBE_POLL)));
    assert_eq!(breaker.peek(due), Some((START, due + PROBE_POLL)));
    breaker.record(probe, Sign::Good, due);
    assert_eq!(breaker.peek(due), None);
}

#[test]
fn successes_let_more_through_until_it_is_closed() {
    let mut breaker = opened();
    let now = START + SETTINGS.open;
    for allowed in [1, 2, 4] {
        let mut permits: Vec<Passage> = (0..allowed).map(|_| breaker.admit(now).unwrap()).collect();
        assert!(breaker.admit(now).is_err());
        let last = permits.pop().unwrap();
        for permit in permits {
            breaker.record(permit, Sign::Neutral, now);
        }
        breaker.record(last, Sign::Good, now);
    }
    assert_eq!(breaker.state(), State::Closed);
    // Earlier failures are forgotten.
    call(&mut breaker, Sign::Bad, now);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn each_failed_probe_doubles_the_time_up_to_sixteen_times() {
    let mut breaker = opened();
    let mut factors = Vec::new();
    for _ in 0..7 {
        let State::Open { since, until, .. } = breaker.state() else { panic!("{:?}", breaker.state()) };
        assert_eq!(since, START, "it has not been closed since");
        call(&mut breaker, Sign::Bad, until);
        let (_, next) = breaker.peek(until).unwrap();
        factors.push(until.until(next).as_secs() / SETTINGS.open.as_secs());
    }
    assert_eq!(factors, [2, 4, 8, 16, 16, 16, 16]);
}

#[test]
fn a_probe_that_says_nothing_leaves_its_place_to_another() {
    let mut breaker = opened();
    let now = START + SETTINGS.open;
    call(&mut breaker, Sign::Neutral, now);
    assert!(matches!(breaker.state(), State::HalfOpen { running: 0, successes: 0, .. }));
    assert!(breaker.admit(now).is_ok());
}

#[test]
fn a_probe_that_never_answers_is_given_up() {
    let mut breaker = opened();
    let now = START + SETTINGS.open;
    let lost = breaker.admit(now).unwrap();
    let given_up = now + SETTINGS.open * 2;
    assert!(breaker.admit(given_up - SECOND).is_err());
    let other = breaker.admit(given_up).unwrap();
    assert!(breaker.admit(given_up).is_err(), "only one in its place");
    drop(lost);
    breaker.record(other, Sign::Good, given_up);
    assert!(breaker.admit(given_up).is_ok());
    for (open, limit) in [(SECOND, LEAST_PROBE), (Duration::from_hours(1), PROBE_LIMIT)] {
        let mut breaker = Breaker::restore(BreakerSettings { open, ..SETTINGS }, opened().state());
        let _lost = breaker.admit(now).unwrap();
        assert!(breaker.admit(now + limit - SECOND).is_err() && breaker.admit(now + limit).is_ok(), "{open:?}");
    }
}

#[test]
fn a_job_that_fails_again_and_again_is_one_failure_until_another_fails_too() {
    let mut breaker = Breaker::new(SETTINGS);
    let fail = |breaker: &mut Breaker, job: i64| {
        let permit = breaker.admit(START).expect("is admitted");
        breaker.record_of(JobId(job), permit, Sign::Bad, START);
    };
    for _ in 0..20 {
        fail(&mut breaker, 7);
    }
    assert_eq!(breaker.window.totals(), (1, 1));
    for job in [8, 7, 8] {
        assert_eq!(breaker.state(), State::Closed);
        fail(&mut breaker, job);
    }
    assert!(matches!(breaker.state(), State::Open { .. }));
    // A probe that fails is one whichever job makes it.
    let due = START + SETTINGS.open;
    let probe = breaker.admit(due).unwrap();
    breaker.record_of(JobId(8), probe, Sign::Bad, due);
    assert!(matches!(breaker.state(), State::Open { failed_probes: 1, .. }));
    // Where one failure is enough, it opens at the first.
    let mut breaker = Breaker::new(BreakerSettings { min_calls: 1, ..SETTINGS });
    fail(&mut breaker, 7);
    assert!(matches!(breaker.state(), State::Open { .. }));
}

#[test]
fn a_result_from_before_it_opened_changes_nothing() {
    for sign in [Sign::Good, Sign::Bad] {
        let mut breaker = Breaker::new(SETTINGS);
        let early = [breaker.admit(START).unwrap(), breaker.admit(START).unwrap()];
        for _ in 0..4 {
            call(&mut breaker, Sign::Bad, START);
        }
        let [first, second] = early;
        let before = breaker.state();
        breaker.record(first, sign, START + SECOND);
        assert_eq!(breaker.state(), before);
        let probe = breaker.admit(START + SETTINGS.open).unwrap();
        let before = breaker.state();
        breaker.record(second, sign, START + SETTINGS.open);
        assert_eq!(breaker.state(), before);
        breaker.record(probe, Sign::Good, START + SETTINGS.open);
    }
}

#[test]
fn a_restored_breaker_goes_on_where_it_stood() {
    let mut breaker = Breaker::restore(SETTINGS, opened().state());
    let due = START + SETTINGS.open;
    assert_eq!(breaker.admit(START), Err((START, due)));
    let _lost = breaker.admit(due).unwrap();
    let mut breaker = Breaker::restore(SETTINGS, breaker.state());
    assert!(breaker.admit(due).is_ok(), "the probe of the other process is not waited for");
}

#[test]
fn settings_without_sense_are_survived() {
    for failure_rate in [f64::NAN, -1.0, 0.0, 2.0, f64::INFINITY] {
        for (window, open) in [(Duration::ZERO, Duration::ZERO), (Duration::MAX, Duration::MAX)] {
            let mut breaker = Breaker::new(BreakerSettings { min_calls: 0, failure_rate, window, open });
            for now in [Timestamp::MIN, Timestamp(0), Timestamp::MAX] {
                for sign in [Sign::Bad, Sign::Good, Sign::Neutral] {
                    if let Ok(permit) = breaker.admit(now) {
                        breaker.record(permit, sign, now);
                    }
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u16),
    Admit,
    Record(usize, Sign),
    Lose(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let sign = prop::sample::select(vec![Sign::Bad, Sign::Bad, Sign::Good, Sign::Neutral]);
    let event = prop_oneof![
        2 => (0..40_000_u16).prop_map(Event::Pass),
        4 => Just(Event::Admit),
        4 => (0..8_usize, sign).prop_map(|(which, sign)| Event::Record(which, sign)),
        1 => (0..8_usize).prop_map(Event::Lose),
    ];
    prop::collection::vec(event, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_keeps_its_promises_whatever_happens(events in events()) {
        let mut breaker = Breaker::new(SETTINGS);
        let mut now = START;
        let mut running: Vec<Passage> = Vec::new();
        // The counted calls since it was last closed, regardless of their age.
        let mut counted = 0;
        for event in events {
            let before = breaker.state();
            match event {
                Event::Pass(ms) => now = now + Duration::from_millis(u64::from(ms)),
                Event::Admit => {
                    let peeked = breaker.peek(now);
                    let answer = breaker.admit(now);
                    prop_assert_eq!(peeked, answer.as_ref().err().copied());
                    prop_assert!(answer.as_ref().err().is_none_or(|&(_, until)| until > now));
                    if let State::Open { until, .. } = before {
                        prop_assert_eq!(answer.is_ok(), now >= until);
                    }
                    if let State::HalfOpen { running, successes, .. } = breaker.state() {
                        prop_assert!(running <= probes_allowed(successes));
                    }
                    running.extend(answer);
                }
                Event::Record(which, sign) if !running.is_empty() => {
                    let permit = running.swap_remove(which % running.len());
                    let current = permit.era == breaker.era;
                    counted += u32::from(current && before == State::Closed && sign != Sign::Neutral);
                    breaker.record(permit, sign, now);
                    let after = breaker.state();
                    if !current {
                        prop_assert_eq!(before, after);
                    }
                    if let (State::Closed, State::Open { until, .. }) = (before, after) {
                        prop_assert!(sign == Sign::Bad && counted >= SETTINGS.min_calls);
                        prop_assert_eq!(until, now + SETTINGS.open);
                    }
                    if let State::Open { since, until, .. } = after {
                        prop_assert!(since <= now && until <= now + SETTINGS.open * 16);
                    }
                    if (before != State::Closed) && after == State::Closed {
                        prop_assert_eq!(sign, Sign::Good);
                        counted = 0;
                    }
                }
                Event::Lose(which) if !running.is_empty() => {
                    let _ = running.swap_remove(which % running.len());
                }
                Event::Record(..) | Event::Lose(_) => {}
            }
        }
        // However it was left, it lets a call go in the end.
        let later = now + PROBE_LIMIT.max(SETTINGS.open * 16);
        prop_assert_eq!(breaker.peek(later), None);
    }
}

const OPEN: BreakerNews =
    BreakerNews::Open { since: START, until: Timestamp(1_030_000), failed_probes: 1, found: None };

#[test]
fn what_another_process_tells_opens_a_breaker_that_knows_too_little() {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..3 {
        call(&mut breaker, Sign::Good, START);
    }
    assert!(breaker.hear(&OPEN, START));
    let until = START + SECOND * 30 + SECOND * 30 / 4;
    assert_eq!(breaker.state(), State::Open { since: START, until, failed_probes: 1 }, "the other one asks first");
    assert!(!breaker.hear(&OPEN, START), "it is known");
    // A probe has failed there.
    let later = BreakerNews::Open { since: START, until: START + SECOND * 90, failed_probes: 2, found: None };
    assert!(breaker.hear(&later, START));
    assert_eq!(breaker.peek(START).map(|(since, _)| since), Some(START));
    assert!(breaker.peek(START + SECOND * 97).is_some() && breaker.peek(START + SECOND * 98).is_none());
}

#[test]
fn a_breaker_with_enough_calls_of_its_own_judges_by_these() {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..4 {
        call(&mut breaker, Sign::Good, START);
    }
    assert!(!breaker.hear(&OPEN, START));
    assert_eq!(breaker.state(), State::Closed);
    // They are long past.
    assert!(breaker.hear(&OPEN, START + SECOND * 61));
}

#[test]
fn where_another_process_got_answers_a_few_calls_go_and_the_first_answer_closes() {
    let mut breaker = opened();
    assert!(breaker.hear(&BreakerNews::Closed, START));
    let permits: Vec<Passage> = (0..4).map(|_| breaker.admit(START).expect("is admitted")).collect();
    assert!(breaker.admit(START).is_err(), "no more than a few");
    assert_eq!(breaker.news(), None, "it is finding out");
    for permit in permits {
        breaker.record(permit, Sign::Good, START);
    }
    assert_eq!((breaker.state(), breaker.news()), (State::Closed, Some(BreakerNews::Closed)));
    assert!(!breaker.hear(&BreakerNews::Closed, START));
    // The target works there and not here.
    let mut breaker = opened();
    assert!(breaker.hear(&BreakerNews::Closed, START));
    call(&mut breaker, Sign::Bad, START);
    assert!(matches!(breaker.state(), State::Open { failed_probes: 1, .. }));
}

#[test]
fn trouble_that_only_another_process_has_is_heard_once() {
    let mut breaker = Breaker::new(SETTINGS);
    assert!(breaker.hear(&OPEN, START));
    let mut now = START + SECOND * 40;
    for _ in 0..RAMP {
        call(&mut breaker, Sign::Good, now);
    }
    assert_eq!(breaker.state(), State::Closed);
    now = now + SECOND * 120;
    let still = BreakerNews::Open { since: START, until: now + SECOND * 60, failed_probes: 3, found: None };
    assert!(!breaker.hear(&still, now));
    let anew = BreakerNews::Open { since: now, until: now + SECOND * 30, failed_probes: 0, found: None };
    assert!(breaker.hear(&anew, now));
}

#[test]
fn a_breaker_that_asks_itself_does_not_listen() {
    let mut breaker = opened();
    let now = START + SECOND * 30;
    let probe = breaker.admit(now).expect("is admitted");
    let before = breaker.state();
    assert!(!breaker.hear(&OPEN, now) && !breaker.hear(&BreakerNews::Closed, now));
    assert_eq!(breaker.state(), before);
    breaker.record(probe, Sign::Good, now);
}

#[test]
fn what_the_present_settings_would_not_have_opened_does_not_stay_open() {
    let lenient = BreakerSettings { min_calls: 5, ..SETTINGS };
    let mut breaker = opened();
    breaker.retune(lenient);
    assert_eq!((breaker.state(), breaker.found()), (State::Closed, None));
    // A probe of the old settings is out: its result changes nothing.
    let mut breaker = opened();
    let probe = breaker.admit(START + SETTINGS.open).unwrap();
    breaker.retune(lenient);
    breaker.record(probe, Sign::Bad, START + SETTINGS.open);
    assert_eq!(breaker.state(), State::Closed);
    // Half of eight calls are enough for one, and not for the other.
    let mut breaker = Breaker::new(SETTINGS);
    for sign in [Sign::Good, Sign::Bad].repeat(4) {
        let Ok(permit) = breaker.admit(START) else { break };
        breaker.record(permit, sign, START);
    }
    let found = breaker.found().cloned();
    assert_eq!(found.map(|found| (found.bad, found.of)), Some((2, 4)));
    breaker.retune(BreakerSettings { failure_rate: 0.5, ..SETTINGS });
    assert!(matches!(breaker.state(), State::Open { .. }));
    breaker.retune(BreakerSettings { failure_rate: 0.6, ..SETTINGS });
    assert_eq!(breaker.state(), State::Closed);
    // What a target asked for is not a matter of settings.
    let mut breaker = opened();
    breaker.open_for(Duration::from_hours(2), START);
    let told = breaker.state();
    breaker.retune(BreakerSettings { open: SECOND, ..lenient });
    assert_eq!(breaker.state(), told);
}

#[test]
fn a_time_open_is_cut_to_what_the_present_settings_give() {
    let mut breaker = opened();
    let mut now = START + SETTINGS.open;
    for _ in 0..6 {
        call(&mut breaker, Sign::Bad, now);
        now = breaker.peek(now).unwrap().1;
    }
    let opened_at = now - SETTINGS.rest(6);
    assert_eq!(breaker.peek(opened_at), Some((START, opened_at + SETTINGS.open * 16)));
    breaker.retune(BreakerSettings { open: SECOND, ..SETTINGS });
    assert_eq!(breaker.peek(opened_at), Some((START, opened_at + SECOND * 16)));
}

#[test]
fn what_another_process_tells_is_judged_by_ones_own_settings() {
    let found = Some(Evidence::of_failures(5, 5));
    let until = START + SECOND * 30 * 16;
    let news = BreakerNews::Open { since: START, until, failed_probes: 6, found };
    let hears = |settings| {
        let mut breaker = Breaker::new(settings);
        breaker.hear(&news, START).then(|| breaker.peek(START).unwrap().1)
    };
    assert_eq!(hears(SETTINGS), Some(until + SETTINGS.open / 4));
    assert_eq!(hears(BreakerSettings { min_calls: 1000, ..SETTINGS }), None);
    // Of the time no more than 16 times one's own.
    assert_eq!(hears(BreakerSettings { open: SECOND, ..SETTINGS }), Some(START + SECOND * 16 + SECOND / 4));
}

#[test]
fn a_person_who_reopens_it_has_it_ask_at_once_and_grow_from_the_beginning() {
    let mut breaker = opened();
    let mut now = START + SETTINGS.open;
    for _ in 0..6 {
        call(&mut breaker, Sign::Bad, now);
        now = breaker.peek(now).unwrap().1;
    }
    let now = now - SETTINGS.open;
    assert!(breaker.peek(now).is_some());
    breaker.reopen(now);
    assert_eq!(breaker.peek(now), None);
    call(&mut breaker, Sign::Bad, now);
    assert_eq!(breaker.peek(now), Some((START, now + SETTINGS.open * 2)));
    // While it asks already, its next failure counts as the first.
    let now = now + SETTINGS.open * 2;
    call(&mut breaker, Sign::Bad, now);
    let now = now + SETTINGS.open * 4;
    let probe = breaker.admit(now).unwrap();
    breaker.reopen(now);
    breaker.record(probe, Sign::Bad, now);
    assert_eq!(breaker.peek(now), Some((START, now + SETTINGS.open * 2)));
    let mut closed = Breaker::new(SETTINGS);
    closed.reopen(now);
    assert_eq!(closed.state(), State::Closed);
}
