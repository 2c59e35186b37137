use super::super::tests::schedule;
use super::*;
use chrono::DateTime;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn at(text: &str) -> Timestamp {
    Timestamp(DateTime::parse_from_rfc3339(&format!("2026-11-{text}Z")).unwrap().timestamp_millis())
}

fn told(found: &LookAt) -> Vec<String> {
    let one = |tick: &DueTick| {
        let at = DateTime::from_timestamp_millis(tick.at.0).unwrap().format("%d %H:%M");
        tick.passed.map_or_else(|| at.to_string(), |passed| format!("{at} {passed:?}"))
    };
    found.ticks.iter().map(one).collect()
}

#[test]
fn a_tick_is_due_when_its_time_has_come_and_once() {
    let nightly = schedule("0 2 * * *");
    for (looked, now, expected) in [
        ("01T12:00:00", "02T01:59:59", &[][..]),
        ("01T12:00:00", "02T02:00:00", &["02 02:00"]),
        ("01T12:00:00", "02T02:00:59", &["02 02:00"]),
        ("02T02:00:00", "02T02:00:01", &[]),
        ("02T02:00:00", "02T02:00:00", &[]),
    ] {
        assert_eq!(told(&look(&nightly, at(looked), false, at(now))), expected, "{looked} {now}");
    }
}

#[test]
fn ticks_that_nobody_saw_are_left_out_or_made_up_for_as_configured() {
    let mut nightly = schedule("0 2 * * *");
    let missed = |schedule: &Schedule, now: &str| told(&look(schedule, at("01T12:00:00"), false, at(now)));
    nightly.catch_up = CatchUp::None;
    assert_eq!(missed(&nightly, "04T10:00:00"), ["02 02:00 Missed", "03 02:00 Missed", "04 02:00 Missed"]);
    assert_eq!(missed(&nightly, "04T02:00:30"), ["02 02:00 Missed", "03 02:00 Missed", "04 02:00"], "in time");
    nightly.catch_up = CatchUp::Last;
    assert_eq!(missed(&nightly, "04T10:00:00"), ["02 02:00 Missed", "03 02:00 Missed", "04 02:00"]);
    assert_eq!(missed(&nightly, "04T02:00:10"), ["02 02:00 Missed", "03 02:00 Missed", "04 02:00"]);
    nightly.catch_up_within = Duration::from_hours(6);
    assert_eq!(missed(&nightly, "02T10:00:00"), ["02 02:00 TooOld"]);
    nightly.catch_up = CatchUp::All;
    nightly.catch_up_within = Duration::from_hours(60);
    assert_eq!(missed(&nightly, "05T10:00:00"), ["02 02:00 TooOld", "03 02:00", "04 02:00", "05 02:00"]);
    nightly.catch_up_limit = 2;
    assert_eq!(
        missed(&nightly, "05T02:00:10"),
        ["02 02:00 TooMany", "03 02:00", "04 02:00", "05 02:00"],
        "beside what is on time"
    );
}

#[test]
fn a_tick_whose_deadline_is_over_is_not_made_up_for() {
    let mut nightly = schedule("0 2 * * *");
    nightly.deadline = Some(Duration::from_hours(6));
    assert_eq!(told(&look(&nightly, at("01T12:00:00"), false, at("02T07:59:59"))), ["02 02:00"]);
    assert_eq!(told(&look(&nightly, at("01T12:00:00"), false, at("02T08:00:00"))), ["02 02:00 Late"]);
}

#[test]
fn while_it_is_paused_ticks_are_left_out_and_while_it_is_disabled_there_are_none() {
    let mut nightly = schedule("0 2 * * *");
    assert_eq!(
        told(&look(&nightly, at("01T12:00:00"), true, at("03T02:00:00"))),
        ["02 02:00 Paused", "03 02:00 Paused"]
    );
    nightly.is_enabled = false;
    assert_eq!(told(&look(&nightly, at("01T12:00:00"), false, at("03T02:00:00"))), [""; 0]);
}

#[test]
fn a_clock_that_is_set_back_makes_it_go_on_from_there_and_one_that_is_a_little_behind_does_not() {
    let nightly = schedule("0 2 * * *");
    let back = |now: &str| look(&nightly, at("03T02:00:00"), false, at(now)).set_back_to;
    assert_eq!(back("03T01:59:30"), None);
    assert_eq!(back("03T01:00:00"), Some(at("03T01:00:00")));
    // And forward: the ticks that were passed over are as if no worker had looked.
    let found = look(&nightly, at("03T02:00:00"), false, at("20T12:00:00"));
    assert_eq!(found.ticks.iter().filter(|tick| tick.passed.is_none()).count(), 1);
    assert_eq!(found.ticks.len(), 17);
}

#[test]
fn years_without_a_worker_are_told_of_by_the_newest_ticks() {
    let each_second = schedule("* * * * * *");
    let before = Timestamp(at("01T00:00:00").0 - 3 * 365 * 86_400_000);
    let found = look(&each_second, before, false, at("01T00:00:00"));
    assert!(found.more);
    assert_eq!(found.ticks.len(), NOTED);
    assert_eq!(found.ticks.iter().filter(|tick| tick.passed.is_none()).count(), 61, "those that are on time");
    let rare = schedule("0 0 1 1 *");
    assert_eq!(look(&rare, before, false, at("01T00:00:00")).ticks.len(), 3);
}

#[test]
fn a_failed_tick_is_tried_again_a_few_times_and_not_beyond_the_next_one() {
    let now = at("01T00:00:00");
    let pauses: Vec<Option<u64>> =
        (0..8).map(|failures| retry_at(failures, now, None).map(|at| now.until(at).as_secs())).collect();
    assert_eq!(pauses, [None, Some(10), Some(60), Some(300), Some(900), Some(1800), None, None]);
    assert_eq!(retry_at(2, now, Some(now + Duration::from_mins(1))), None);
    assert_eq!(retry_at(1, now, Some(now + Duration::from_mins(1))), Some(now + Duration::from_secs(10)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The clock may jump forward or back, and looks may come at any rate: ticks come in order between two
    /// changes of the clock, none is passed over, and the ticks that are on time are run.
    #[test]
    fn no_tick_is_dealt_with_twice_whatever_the_clock_does(
        line in prop::sample::select(&["* * * * *", "*/5 * * * *", "0 * * * *", "30 2 * * *", "*/10 * * * * *"][..]),
        steps in prop::collection::vec((-4_000_i64..9_000, any::<bool>()), 1..40),
        catch_up in prop::sample::select(&[CatchUp::None, CatchUp::Last, CatchUp::All][..]),
    ) {
        let mut schedule = schedule(line);
        schedule.catch_up = catch_up;
        let mut now = at("01T00:00:00");
        let mut looked_at = now;
        let mut dealt_with = BTreeSet::new();
        for (seconds, is_paused) in steps {
            now = Timestamp(now.0 + seconds * 1000);
            let found = look(&schedule, looked_at, is_paused, now);
            let mut last = looked_at;
            for tick in &found.ticks {
                prop_assert!(tick.at > last && tick.at <= now);
                last = tick.at;
                // The primary key of the table: an existing row is left alone.
                dealt_with.insert(tick.at);
            }
            looked_at = found.set_back_to.unwrap_or(last);
            if found.ticks.is_empty() && found.set_back_to.is_none() && now > looked_at {
                prop_assert!(schedule.next(looked_at).unwrap() > now, "nothing is passed over");
            }
            if let (false, Some(last)) = (is_paused, found.ticks.last()) {
                let is_late = last.at.until(now) > ON_TIME;
                prop_assert!(is_late || last.passed.is_none(), "what is on time is run");
                prop_assert!(catch_up == CatchUp::None || !is_late || last.passed.is_none(), "the last is made up for");
            }
        }
    }
}
