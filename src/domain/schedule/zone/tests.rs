use super::*;
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    Timestamp(DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis())
}

/// All ticks in `(from, to]`, in local time with the offset.
fn ticks(line: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let (line, zone) = (CronLine::parse(line).unwrap(), Zone::parse(zone).unwrap());
    let (mut now, to) = (at(from), at(to));
    let mut found = Vec::new();
    while let Some(next) = zone.next(&line, now).filter(|next| *next <= to) {
        assert!(next > now);
        found.push(zone.local(next).unwrap().format("%d %H:%M %z").to_string());
        now = next;
    }
    found
}

#[test]
fn a_local_time_that_is_left_out_is_made_up_for_right_after_the_gap() {
    for (zone, from, to, line, expected) in [
        // 2026-03-29: two o'clock is followed by three.
        (
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            "2026-03-30T12:00:00Z",
            "30 2 * * *",
            &["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"][..],
        ),
        ("Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z", "*/20 2 * * *", &["29 03:00 +0200"]),
        // Once, where it is to fire then anyway.
        ("Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z", "0 2,3 * * *", &["29 03:00 +0200"]),
        (
            "Europe/Berlin",
            "2026-03-28T23:00:00Z",
            "2026-03-29T02:00:00Z",
            "0 * * * *",
            &["29 01:00 +0100", "29 03:00 +0200", "29 04:00 +0200"],
        ),
        (
            "Europe/Berlin",
            "2026-03-28T23:30:00Z",
            "2026-03-29T01:30:00Z",
            "*/30 * * * *",
            &["29 01:00 +0100", "29 01:30 +0100", "29 03:00 +0200", "29 03:30 +0200"],
        ),
        // 2026-03-08.
        (
            "America/New_York",
            "2026-03-07T12:00:00Z",
            "2026-03-09T12:00:00Z",
            "15 2 * * *",
            &["08 03:00 -0400", "09 02:15 -0400"],
        ),
        // 2026-10-04: half an hour, from two to half past two.
        (
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            "2026-10-05T00:00:00Z",
            "15 2 * * *",
            &["04 02:30 +1100", "05 02:15 +1100"],
        ),
        (
            "Australia/Lord_Howe",
            "2026-10-03T14:00:00Z",
            "2026-10-03T17:00:00Z",
            "15 * * * *",
            &["04 01:15 +1030", "04 02:30 +1100", "04 03:15 +1100"],
        ),
        // A whole day, when the island changed the side of the date line.
        (
            "Pacific/Apia",
            "2011-12-29T00:00:00Z",
            "2011-12-31T12:00:00Z",
            "0 9 * * *",
            &["29 09:00 -1000", "31 00:00 +1400", "31 09:00 +1400"],
        ),
    ] {
        assert_eq!(ticks(line, zone, from, to), expected, "{zone} {line}");
    }
}

#[test]
fn a_local_time_that_comes_twice_counts_once_but_for_a_line_of_each_hour() {
    for (zone, from, to, line, expected) in [
        // 2026-10-25: three o'clock is followed by two.
        (
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            "2026-10-26T12:00:00Z",
            "30 2 * * *",
            &["25 02:30 +0200", "26 02:30 +0100"][..],
        ),
        (
            "Europe/Berlin",
            "2026-10-24T23:30:00Z",
            "2026-10-25T03:00:00Z",
            "0,30 2,3 * * *",
            &["25 02:00 +0200", "25 02:30 +0200", "25 03:00 +0100", "25 03:30 +0100"],
        ),
        (
            "Europe/Berlin",
            "2026-10-24T22:30:00Z",
            "2026-10-25T02:30:00Z",
            "0 * * * *",
            &["25 01:00 +0200", "25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100"],
        ),
        (
            "Europe/Berlin",
            "2026-10-25T00:20:00Z",
            "2026-10-25T01:20:00Z",
            "*/30 * * * *",
            &["25 02:30 +0200", "25 02:00 +0100"],
        ),
        // A day of the week does not change that.
        (
            "Europe/Berlin",
            "2026-10-25T00:20:00Z",
            "2026-11-01T00:00:00Z",
            "40 * * * sun",
            &["25 02:40 +0200", "25 02:40 +0100", "25 03:40 +0100"],
        ),
        // 2026-11-01.
        (
            "America/New_York",
            "2026-10-31T12:00:00Z",
            "2026-11-02T12:00:00Z",
            "30 1 * * *",
            &["01 01:30 -0400", "02 01:30 -0500"],
        ),
        (
            "America/New_York",
            "2026-11-01T04:30:00Z",
            "2026-11-01T07:30:00Z",
            "@hourly",
            &["01 01:00 -0400", "01 01:00 -0500", "01 02:00 -0500"],
        ),
        // 2026-04-05: half an hour, from two back to half past one.
        (
            "Australia/Lord_Howe",
            "2026-04-03T20:00:00Z",
            "2026-04-05T20:00:00Z",
            "45 1 * * *",
            &["05 01:45 +1100", "06 01:45 +1030"],
        ),
        (
            "Australia/Lord_Howe",
            "2026-04-04T13:30:00Z",
            "2026-04-04T16:20:00Z",
            "0,45 * * * *",
            &[
                "05 00:45 +1100",
                "05 01:00 +1100",
                "05 01:45 +1100",
                "05 01:45 +1030",
                "05 02:00 +1030",
                "05 02:45 +1030",
            ],
        ),
    ] {
        let found = ticks(line, zone, from, to);
        let found = if line.ends_with("sun") { found.into_iter().take(3).collect() } else { found };
        assert_eq!(found, expected, "{zone} {line}");
    }
}

#[test]
fn a_month_has_as_many_ticks_as_it_has_days_hours_or_minutes() {
    // October 2026 has 31 days, of which Berlin's last Sunday has 25 hours; March's has 23.
    for (line, from, to, expected) in [
        ("0 2 * * *", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z", 31),
        ("30 2 * * *", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z", 31),
        ("30 2 * * *", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z", 31),
        ("30 * * * *", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z", 31 * 24 + 1),
        // The hour that is left out is made up for.
        ("30 * * * *", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z", 31 * 24),
        ("* * * * *", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z", (31 * 24 + 1) * 60),
        ("* * * * *", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z", (31 * 24 - 1) * 60),
    ] {
        assert_eq!(ticks(line, "Europe/Berlin", from, to).len(), expected, "{line} from {from}");
    }
}

#[test]
fn a_zone_is_known_by_its_name_however_it_is_written() {
    for (name, shown) in [("europe/berlin", "Europe/Berlin"), ("UTC", "UTC"), ("America/New_York", "America/New_York")]
    {
        assert_eq!(Zone::parse(name).unwrap().to_string(), shown);
    }
    assert!(Zone::parse("Europe/Bonn").unwrap_err().contains("there is no time zone \"Europe/Bonn\""));
    assert!(Zone::names().any(|name| name == "Australia/Lord_Howe"));
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Africa/Casablanca",
    "Pacific/Apia",
];
const LINES: [&str; 10] = [
    "* * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "0,30 1-3 * * *",
    "15 0 * * *",
    "@daily",
    "59 23 * * 0",
    "0 2 13 * fri",
    "*/10 30 2 * * *",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// For questions at any instants: ticks increase strictly, and none is passed over or comes twice because of the
    /// instant at which the next one is asked for.
    #[test]
    fn ticks_increase_and_are_the_same_whenever_one_asks(
        zone in prop::sample::select(&ZONES[..]), line in prop::sample::select(&LINES[..]),
        start in 1_300_000_000_000_i64..2_000_000_000_000, ahead in 0_i64..7_200_000,
    ) {
        let (line, zone) = (CronLine::parse(line).unwrap(), Zone::parse(zone).unwrap());
        let start = Timestamp(start);
        let first = zone.next(&line, start).unwrap();
        prop_assert!(first > start);
        let second = zone.next(&line, first).unwrap();
        prop_assert!(second > first);
        // Any instant before the tick finds it.
        let between = Timestamp((first.0 - ahead).max(start.0));
        prop_assert_eq!(zone.next(&line, between), Some(first));
        let between = Timestamp((second.0 - ahead).max(first.0));
        prop_assert_eq!(zone.next(&line, between), Some(second));
    }

    /// Second by second around the clock changes, with a reference that knows nothing of gaps and overlaps but what the
    /// local time is: each local time that exists fires, at its first instant.
    #[test]
    fn around_clock_changes_each_local_time_that_exists_fires_at_its_first_instant(
        zone in prop::sample::select(&ZONES[1..4]), minute in 0_u32..60, hour in 0_u32..4, year in 2020_i32..2035,
        month in 1_u32..13,
    ) {
        let line = CronLine::parse(&format!("{minute} {hour} * * *")).unwrap();
        let zone = Zone::parse(zone).unwrap();
        let start = chrono::NaiveDate::from_ymd_opt(year, month, 1).unwrap().and_hms_opt(0, 0, 0).unwrap().and_utc();
        let mut expected = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for minutes in 1..=31 * 24 * 60 {
            let at = Timestamp(start.timestamp_millis() + minutes * 60_000);
            let local = zone.local(at).unwrap();
            let is_hit = (local.format("%H:%M").to_string()) == format!("{hour:02}:{minute:02}");
            if is_hit && seen.insert(local.date_naive()) {
                expected.push(at);
            }
        }
        let mut found = Vec::new();
        let mut now = Timestamp(start.timestamp_millis());
        let end = Timestamp(start.timestamp_millis() + 31 * 24 * 3_600_000);
        while let Some(next) = zone.next(&line, now).filter(|next| *next <= end) {
            found.push(next);
            now = next;
        }
        // A tick that was made up for after a gap has another local time.
        let is_own = |at: &Timestamp| {
            zone.local(*at).unwrap().format("%H:%M").to_string() == format!("{hour:02}:{minute:02}")
        };
        let made_up = found.iter().filter(|at| !is_own(at)).count();
        prop_assert!(made_up <= 1);
        // A month may begin within the second of two equal hours.
        let kept: Vec<Timestamp> = found.iter().copied().filter(is_own).collect();
        prop_assert!(kept == expected || kept.len() + 1 == expected.len() && expected.ends_with(&kept), "{:?}", zone);
        prop_assert_eq!(found.len() - made_up, kept.len());
    }
}
