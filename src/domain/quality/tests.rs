use super::*;
use crate::domain::breaker::{PROBE_LIMIT, RAMP};
use proptest::prelude::*;

const START: Timestamp = Timestamp(1_000_000);
const SECOND: Duration = Duration::from_secs(1);
const SETTINGS: QualitySettings = QualitySettings {
    min_calls: 10,
    window: Duration::from_mins(1),
    open: Duration::from_secs(30),
    slow: Some(Duration::from_mins(2)),
    slow_rate: 0.5,
    soft_failure_rate: 0.9,
    wasted_token_rate: 0.9,
};

/// A good answer, quickly, to this job.
fn good(job: i64) -> SeenAnswer {
    SeenAnswer { job: JobId(job), project: 0, rejected: None, took: Some(SECOND), output_tokens: 100 }
}

fn bad(job: i64) -> SeenAnswer {
    SeenAnswer { rejected: Some(SoftFailure::SchemaMismatch), ..good(job) }
}

fn slow(job: i64) -> SeenAnswer {
    SeenAnswer { took: Some(SECOND * 121), ..good(job) }
}

fn answer(quality: &mut Quality, answer: &SeenAnswer, now: Timestamp) -> bool {
    let permit = quality.admit(now).expect("is admitted");
    quality.record(permit, answer, now)
}

/// What is found when these answers have come.
fn found(settings: QualitySettings, answers: impl IntoIterator<Item = SeenAnswer>) -> Option<String> {
    let mut quality = Quality::new(settings);
    for seen in answers {
        assert_eq!(quality.weakness(START), None, "only the last one opens it");
        answer(&mut quality, &seen, START);
    }
    quality
        .weakness(START)
        .map(|weak| format!("{}: {}", weak.shut.reason.as_str(), weak.found.expect("it was counted")))
}

fn opened() -> Quality {
    let mut quality = Quality::new(SETTINGS);
    for job in 0..10 {
        assert_eq!(answer(&mut quality, &bad(job), START), job == 9);
    }
    quality
}

#[test]
fn each_share_has_its_own_rate_and_its_own_words() {
    let no = None::<&str>;
    let unsure = |job| SeenAnswer { rejected: Some(SoftFailure::LowConfidence), ..good(job) };
    let truncated = |job| SeenAnswer { rejected: Some(SoftFailure::Truncated), ..bad(job) };
    let long = |seen: SeenAnswer| SeenAnswer { output_tokens: 9_000, ..seen };
    let spare = |job| SeenAnswer { took: None, ..slow(job) };
    let of = |count: i64, make: &dyn Fn(i64) -> SeenAnswer| (0..count).map(make).collect::<Vec<_>>();
    let after = |first: Vec<SeenAnswer>, then: Vec<SeenAnswer>| [first, then].concat();
    let cases: Vec<(&str, Vec<SeenAnswer>, Option<&str>)> = vec![
        ("too few", of(9, &bad), no),
        ("enough", of(10, &bad), Some("quality: 10 of the last 10 answers were rejected (schema_mismatch 10)")),
        (
            "nine in ten, of two kinds",
            after(vec![good(100)], after(of(5, &truncated), (5..9).map(bad).collect())),
            Some("quality: 9 of the last 10 answers were rejected (truncated 5, schema_mismatch 4)"),
        ),
        ("eight in ten", after(of(2, &good), (2..10).map(bad).collect()), no),
        ("a rung that is not sure enough is not ill", of(20, &unsure), no),
        (
            "half of them slow",
            after((50..55).map(good).collect(), of(5, &slow)),
            Some("slow: 5 of the last 10 answers took longer than 2m"),
        ),
        ("fewer than half of them", after((50..56).map(good).collect(), of(5, &slow)), no),
        ("spare capacity is slow by agreement", of(20, &spare), no),
        (
            "few answers, and most of the tokens",
            after((50..58).map(good).collect(), (0..2).map(|job| long(truncated(job))).collect()),
            Some("quality: 95 % of the last 18800 output tokens were in answers that were rejected (truncated 2)"),
        ),
        (
            "one job's tokens say nothing of the others",
            after((50..60).map(good).collect(), vec![long(long(bad(1)))]),
            no,
        ),
    ];
    for (what, answers, expected) in cases {
        assert_eq!(found(SETTINGS, answers).as_deref(), expected, "{what}");
    }
    let deaf = QualitySettings { slow: None, ..SETTINGS };
    assert_eq!(found(deaf, of(20, &slow)), None, "without the key no answer is slow");
}

#[test]
fn slow_answers_count_for_as_long_as_enough_of_them_take() {
    assert_eq!(SETTINGS.slow_window(), SECOND * 1_200, "ten times two minutes");
    assert_eq!(QualitySettings { slow: Some(SECOND), ..SETTINGS }.slow_window(), SETTINGS.window);
    assert_eq!(QualitySettings { slow: None, ..SETTINGS }.slow_window(), SETTINGS.window);
    // One answer after the other, each of two minutes: of a minute's window there is never more than one in it.
    let mut quality = Quality::new(SETTINGS);
    for job in 0..10 {
        let now = START + SECOND * 121 * u32::try_from(job + 1).unwrap();
        assert_eq!(answer(&mut quality, &slow(job), now), job == 9, "{job}");
    }
    // Rejected answers are those of the last minute.
    let mut quality = Quality::new(SETTINGS);
    for job in 0..30 {
        let now = START + SECOND * 121 * u32::try_from(job + 1).unwrap();
        assert!(!answer(&mut quality, &bad(job), now));
    }
}

#[test]
fn a_call_that_was_given_up_is_slow_if_it_had_taken_that_long() {
    let give_up = |quality: &mut Quality, job: i64, took, now| {
        let permit = quality.admit(now).expect("is admitted");
        quality.record_given_up(permit, (JobId(job), 0), took, now)
    };
    let mut quality = Quality::new(SETTINGS);
    for job in 0..30 {
        assert!(!give_up(&mut quality, job, Some(SECOND * 119), START), "it was quick so far");
        assert!(!give_up(&mut quality, job, None, START), "its time is not held against it");
    }
    for job in 0..10 {
        assert_eq!(give_up(&mut quality, job, Some(SECOND * 121), START), job == 9);
    }
    let weak = quality.weakness(START).expect("it is passed over");
    assert_eq!(weak.shut.reason, Reason::Slow);
    // A probe that is given up tells the same of what it is passed over for.
    let now = weak.shut.until;
    give_up(&mut quality, 50, Some(SECOND), now);
    assert_eq!(quality.weakness(now), None, "its place is free again");
    give_up(&mut quality, 51, Some(SECOND * 121), now);
    assert!(quality.weakness(now).is_some_and(|weak| weak.shut.until > now + SETTINGS.open));
    let mut rejected = opened();
    let now = START + SETTINGS.open;
    assert!(!give_up(&mut rejected, 51, Some(SECOND * 121), now));
    assert_eq!(rejected.weakness(now), None, "it says nothing of rejected answers");
}

#[test]
fn one_job_alone_is_one_bad_answer() {
    let mut quality = Quality::new(SETTINGS);
    for _ in 0..50 {
        answer(&mut quality, &bad(7), START);
    }
    assert_eq!(quality.answers.totals().answers, 1);
    let one = QualitySettings { min_calls: 1, ..SETTINGS };
    assert!(found(one, [bad(7)]).is_some(), "unless one is enough by the settings");
}

#[test]
fn one_project_does_not_speak_for_those_that_get_good_answers() {
    let theirs = |job| SeenAnswer { project: 3, ..good(job) };
    let mut mixed: Vec<SeenAnswer> = (100..103).map(theirs).collect();
    mixed.extend((0..60).map(bad));
    assert_eq!(found(SETTINGS, mixed), None, "sixty of sixty-three are bad, and all of them are of one project");
    // Their answers are bad, too.
    let mut quality = Quality::new(SETTINGS);
    for job in 0..40 {
        for seen in [bad(job), SeenAnswer { project: 3, ..bad(job + 1000) }] {
            if answer(&mut quality, &seen, START) {
                return;
            }
        }
    }
    panic!("two projects that get nothing but bad answers are enough");
}

#[test]
fn old_answers_leave_the_window() {
    let mut quality = Quality::new(SETTINGS);
    for job in 0..100 {
        answer(&mut quality, &bad(job), START + SECOND * u32::try_from(job * 8).unwrap());
    }
    assert_eq!(quality.weakness(START + SECOND * 800), None, "eight within a minute, ten are needed");
}

#[test]
fn real_jobs_find_out_whether_it_is_well_again() {
    let mut quality = opened();
    assert!(quality.admit(START).is_err());
    let weak = quality.weakness(START).unwrap();
    assert_eq!((weak.shut.since, weak.shut.until), (START, START + SETTINGS.open));
    let mut now = weak.shut.until;
    // Twice it is no better.
    for factor in [2, 4] {
        assert_eq!(quality.weakness(now), None, "one job goes");
        answer(&mut quality, &bad(77), now);
        let weak = quality.weakness(now).unwrap();
        assert_eq!((weak.shut.since, now.until(weak.shut.until)), (START, SETTINGS.open * factor));
        assert!(weak.found.is_some(), "what it was passed over for is still known");
        now = weak.shut.until;
    }
    // A failure says nothing, and leaves the place to another.
    let probe = quality.admit(now).unwrap();
    assert!(quality.weakness(now).is_some(), "one at a time");
    quality.give_back(probe, now);
    for job in 0..i64::from(RAMP) {
        assert_eq!(answer(&mut quality, &good(job), now), job + 1 == i64::from(RAMP));
    }
    assert_eq!((quality.weakness(now), quality.standing(now)), (None, None));
}

#[test]
fn a_probe_is_judged_by_that_for_which_the_target_is_passed_over() {
    let mut quality = Quality::new(SETTINGS);
    (0..10).for_each(|job| _ = answer(&mut quality, &slow(job), START));
    let now = quality.weakness(START).unwrap().shut.until;
    (0..i64::from(RAMP)).for_each(|job| _ = answer(&mut quality, &bad(job), now));
    assert_eq!(quality.standing(now), None, "it is quick again");
    let mut quality = opened();
    let now = START + SETTINGS.open;
    answer(&mut quality, &slow(1), now);
    answer(&mut quality, &bad(2), now);
    assert!(quality.weakness(now).is_some(), "an answer at last, and then none");
}

#[test]
fn what_another_process_has_found_is_heard_where_less_is_known() {
    let news = opened().news().unwrap();
    let mut other = Quality::new(SETTINGS);
    assert!(other.hear(&news, START) && !other.hear(&news, START));
    let weak = other.weakness(START).unwrap();
    assert_eq!(weak.shut.reason, Reason::Quality);
    assert_eq!(weak.found.unwrap().to_string(), "10 of the last 10 answers were rejected (schema_mismatch 10)");
    let mut knows = Quality::new(SETTINGS);
    (0..10).for_each(|job| _ = answer(&mut knows, &good(job), START));
    assert!(!knows.hear(&news, START));
    assert!(knows.hear(&news, START + SECOND * 61), "its answers are long past");
    // After a restart one job asks at once.
    other.try_again(START);
    assert_eq!(other.weakness(START), None);
    let _probe = other.admit(START).unwrap();
    assert!(other.weakness(START).is_some());
}

#[test]
fn new_settings_hold_at_once() {
    let mut quality = Quality::new(SETTINGS);
    (0..5).for_each(|job| _ = answer(&mut quality, &bad(job), START));
    quality.retune(QualitySettings { min_calls: 6, ..SETTINGS });
    assert!(answer(&mut quality, &bad(6), START));
    quality.retune(QualitySettings { min_calls: 6, window: SECOND, ..SETTINGS });
    assert!(quality.weakness(START).is_some(), "its time goes on");
    quality.retune(SETTINGS);
    assert_eq!(quality.weakness(START), None, "six answers are too few now");
}

#[test]
fn what_ones_own_settings_pass_over_is_heard_and_no_more() {
    let of = |indicator, bad, of| Evidence { indicator, ..Evidence::of_failures(bad, of) };
    let slow = |slow_ms| Evidence { slow_ms: Some(slow_ms), ..of(Indicator::SlowAnswers, 9, 10) };
    let rejected = of(Indicator::SoftFailures, 18, 20);
    let wasted = of(Indicator::WastedTokens, 919, 1000);
    let never = QualitySettings { slow: None, ..SETTINGS };
    let later = QualitySettings { slow: Some(Duration::from_mins(3)), ..SETTINGS };
    for (settings, found, is_heard) in [
        (SETTINGS, rejected.clone(), true),
        (QualitySettings { min_calls: 21, ..SETTINGS }, rejected.clone(), false),
        (QualitySettings { soft_failure_rate: 0.95, ..SETTINGS }, rejected, false),
        (SETTINGS, wasted.clone(), true),
        (QualitySettings { wasted_token_rate: 0.95, ..SETTINGS }, wasted, false),
        (SETTINGS, slow(120_000), true),
        (SETTINGS, slow(180_000), true),
        (later, slow(120_000), false),
        (never, slow(120_000), false),
        (QualitySettings { slow_rate: 0.95, ..SETTINGS }, slow(120_000), false),
        // An older process does not say from when on an answer was slow.
        (SETTINGS, of(Indicator::SlowAnswers, 9, 10), true),
    ] {
        let until = START + SETTINGS.open;
        let news = BreakerNews::Open { since: START, until, failed_probes: 0, found: Some(found.clone()) };
        assert_eq!(Quality::new(settings).hear(&news, START), is_heard, "{found:?} {settings:?}");
    }
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u16),
    Admit,
    /// Which call has ended, and how: a failure, or an answer of a job of a project.
    End(usize, Option<(i64, u64, bool, bool, u32)>),
}

fn events(jobs: i64) -> impl Strategy<Value = Vec<Event>> {
    let seen = (0..jobs, 0..12_u64, any::<bool>(), any::<bool>(), 0..10_000_u32);
    let event = prop_oneof![
        1 => (0..20_000_u16).prop_map(Event::Pass),
        6 => Just(Event::Admit),
        6 => (0..8_usize, prop::option::weighted(0.95, seen)).prop_map(|(which, seen)| Event::End(which, seen)),
    ];
    prop::collection::vec(event, 0..250)
}

fn rates() -> impl Strategy<Value = QualitySettings> {
    let rate = || prop::sample::select(vec![0.01, 0.3, 0.5, 0.9, 1.0]);
    (2..12_u32, rate(), rate(), rate(), any::<bool>()).prop_map(|(min_calls, slow, soft, wasted, is_watched)| {
        QualitySettings {
            min_calls,
            slow: SETTINGS.slow.filter(|_| is_watched),
            slow_rate: slow,
            soft_failure_rate: soft,
            wasted_token_rate: wasted,
            ..SETTINGS
        }
    })
}

/// Plays the events; returns how often it opened.
fn play(settings: QualitySettings, events: Vec<Event>) -> Result<u32, TestCaseError> {
    let (mut quality, mut now, mut opened) = (Quality::new(settings), START, 0);
    let mut under_way: Vec<Passage> = Vec::new();
    // Answers since it was last closed, and the jobs of bad ones, regardless of their age.
    let (mut counted, mut bad_jobs) = (0, std::collections::BTreeSet::new());
    for event in events {
        match event {
            Event::Pass(ms) => now = now + Duration::from_millis(ms.into()),
            Event::Admit => {
                let weak = quality.weakness(now);
                let admitted = quality.admit(now);
                prop_assert_eq!(weak.is_none(), admitted.is_ok());
                under_way.extend(admitted);
            }
            Event::End(which, _) if under_way.get(which).is_none() => {}
            Event::End(which, None) => quality.give_back(under_way.swap_remove(which), now),
            Event::End(which, Some((job, project, is_bad, is_slow, tokens))) => {
                let permit = under_way.swap_remove(which);
                let was_closed = quality.standing(now).is_none();
                let counts = was_closed && quality.breaker.learns_from(&permit);
                let seen = SeenAnswer {
                    job: JobId(job),
                    project,
                    rejected: is_bad.then_some(SoftFailure::Truncated),
                    took: Some(if is_slow { SECOND * 300 } else { SECOND }),
                    output_tokens: tokens.into(),
                };
                let is_bad = is_bad || (is_slow && settings.slow.is_some());
                counted += u32::from(counts);
                if counts && is_bad {
                    bad_jobs.insert(job);
                }
                quality.record(permit, &seen, now);
                if was_closed && let Some(weak) = quality.standing(now) {
                    opened += 1;
                    prop_assert!(counts && is_bad, "it opens on a bad answer");
                    prop_assert!(counted >= settings.min_calls, "{counted} of {}", settings.min_calls);
                    prop_assert!(bad_jobs.len() > 1, "no job alone opens it");
                    prop_assert_eq!(weak.shut.until, now + settings.open);
                    let found = weak.found.expect("it was counted");
                    prop_assert!(found.bad > 0 && found.bad <= found.of && !found.to_string().is_empty());
                } else if !was_closed && quality.standing(now).is_none() {
                    (counted, bad_jobs) = (0, std::collections::BTreeSet::new());
                }
            }
        }
        prop_assert!(quality.answers.size() <= 10 * 8);
    }
    // However it was left, a job goes in the end.
    prop_assert_eq!(quality.weakness(now + PROBE_LIMIT.max(settings.open * 16)), None);
    Ok(opened)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_keeps_its_promises_whatever_comes(settings in rates(), events in events(40)) {
        play(settings, events)?;
    }

    #[test]
    fn no_job_alone_opens_it(settings in rates(), events in events(1)) {
        prop_assert_eq!(play(settings, events)?, 0);
    }
}
