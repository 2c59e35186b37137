use super::*;
use chrono::{Datelike as _, NaiveDate, TimeDelta, Timelike as _};
use proptest::prelude::*;

fn at(text: &str) -> NaiveDateTime {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap()
}

fn times(line: &str, after: &str, count: usize) -> Vec<String> {
    let line = CronLine::parse(line).unwrap();
    let mut now = at(after);
    (0..count)
        .map(|_| {
            now = line.next(now).unwrap();
            now.format("%a %Y-%m-%d %H:%M:%S").to_string()
        })
        .collect()
}

#[test]
fn ordinary_lines_fire_when_a_user_of_crontab_expects_it() {
    // 2026-11-01 is a Sunday.
    for (line, expected) in [
        ("0 2 * * *", &["Sun 2026-11-01 02:00:00", "Mon 2026-11-02 02:00:00"][..]),
        ("*/15 * * * *", &["Sun 2026-11-01 00:15:00", "Sun 2026-11-01 00:30:00"]),
        // 0 and 7 are Sunday, 1 is Monday.
        ("0 9 * * 1", &["Mon 2026-11-02 09:00:00", "Mon 2026-11-09 09:00:00"]),
        ("0 9 * * 0", &["Sun 2026-11-01 09:00:00", "Sun 2026-11-08 09:00:00"]),
        ("0 9 * * 7", &["Sun 2026-11-01 09:00:00", "Sun 2026-11-08 09:00:00"]),
        ("0 9 * * 5-7", &["Sun 2026-11-01 09:00:00", "Fri 2026-11-06 09:00:00", "Sat 2026-11-07 09:00:00"]),
        ("0 9 * * Fri-sun", &["Sun 2026-11-01 09:00:00", "Fri 2026-11-06 09:00:00", "Sat 2026-11-07 09:00:00"]),
        ("0 9 * * MON-FRI", &["Mon 2026-11-02 09:00:00", "Tue 2026-11-03 09:00:00"]),
        // The day of the month or the day of the week …
        ("0 9 13 * Fri", &["Fri 2026-11-06 09:00:00", "Fri 2026-11-13 09:00:00", "Fri 2026-11-20 09:00:00"]),
        ("0 9 3 * Fri", &["Tue 2026-11-03 09:00:00", "Fri 2026-11-06 09:00:00"]),
        // … but both, where one begins with a star.
        ("0 9 */2 * Fri", &["Fri 2026-11-13 09:00:00", "Fri 2026-11-27 09:00:00"]),
        ("0 0 1 jan,Jul *", &["Fri 2027-01-01 00:00:00", "Thu 2027-07-01 00:00:00"]),
        ("5,10-12 3 * * *", &["Sun 2026-11-01 03:05:00", "Sun 2026-11-01 03:10:00", "Sun 2026-11-01 03:11:00"]),
        ("0-30/20 3 * * *", &["Sun 2026-11-01 03:00:00", "Sun 2026-11-01 03:20:00", "Mon 2026-11-02 03:00:00"]),
        ("0 0 29 2 *", &["Tue 2028-02-29 00:00:00", "Sun 2032-02-29 00:00:00"]),
        ("@daily", &["Mon 2026-11-02 00:00:00"]),
        ("@Midnight", &["Mon 2026-11-02 00:00:00"]),
        ("@hourly", &["Sun 2026-11-01 01:00:00"]),
        ("@weekly", &["Sun 2026-11-08 00:00:00"]),
        ("@monthly", &["Tue 2026-12-01 00:00:00"]),
        ("@yearly", &["Fri 2027-01-01 00:00:00"]),
        ("@annually", &["Fri 2027-01-01 00:00:00"]),
        // The sixth field, before the others, is for seconds.
        ("*/20 * * * * *", &["Sun 2026-11-01 00:00:20", "Sun 2026-11-01 00:00:40", "Sun 2026-11-01 00:01:00"]),
        ("  0   2\t* * * ", &["Sun 2026-11-01 02:00:00"]),
    ] {
        assert_eq!(times(line, "2026-11-01 00:00:00", expected.len()), expected, "{line}");
    }
}

#[test]
fn a_faulty_line_is_refused_with_the_field_that_is_at_fault() {
    for (line, expected) in [
        ("", "has 0 of 5 fields"),
        ("* * * *", "has 4 of 5 fields"),
        ("* * * * * * *", "has 7 of 5 fields"),
        ("60 * * * *", "minute: \"60\" is none of 0 to 59"),
        ("0 24 * * *", "hour: \"24\" is none of 0 to 23"),
        ("0 0 0 * *", "day of the month: \"0\" is none of 1 to 31"),
        ("0 0 32 * *", "day of the month: \"32\" is none of 1 to 31"),
        ("0 0 * 13 *", "month: \"13\" is none of 1 to 12, or jan to dec"),
        ("0 0 * * 8", "day of the week: \"8\" is none of 0 to 7, or sun to sat"),
        ("0 0 * * Mo", "day of the week: \"Mo\" is none"),
        ("0 0 * * 5L", "day of the week: \"5L\" is none"),
        ("0 0 ? * *", "day of the month: \"?\" is none"),
        ("5/15 * * * *", "minute: \"5/15\" has a step without a range, such as 5-59/15"),
        ("*/0 * * * *", "minute: \"*/0\" has no step"),
        ("*/-5 * * * *", "minute: \"*/-5\" has no step"),
        ("+5 * * * *", "minute: \"+5\" is none"),
        ("30-10 * * * *", "minute: the range \"30-10\" ends before it begins"),
        ("0 22-6 * * *", "hour: the range \"22-6\" ends before it begins; write it as two"),
        ("1,, * * * *", "minute: \"\" is none"),
        ("@reboot", "no time"),
        ("@every 5m", "every five minutes"),
        ("@fortnightly", "there is no \"@fortnightly\""),
        // Days that no month has.
        ("0 0 31 2 *", "never fires"),
        ("0 0 30,31 feb *", "never fires"),
        ("0 0 31 2,4,6,9,11 *", "never fires"),
    ] {
        let said = CronLine::parse(line).expect_err(line);
        assert!(said.contains(expected), "{line}: {said}");
    }
    // By the day of the week it fires all the same.
    assert!(CronLine::parse("0 0 31 2 1").is_ok());
}

/// A field as it is written, and whether it takes a value: by another way than the program's.
fn field(least: u32, most: u32) -> impl Strategy<Value = (String, Vec<u32>)> {
    let value = move || least..=most;
    let part = prop_oneof![
        3 => Just("*".to_owned()).prop_map(move |text| (text, (least..=most).collect::<Vec<u32>>())),
        2 => (1_u32..9).prop_map(move |step| {
            (format!("*/{step}"), (least..=most).filter(|value| (value - least).is_multiple_of(step)).collect())
        }),
        3 => value().prop_map(|v| (v.to_string(), vec![v])),
        2 => (value(), value(), 1_u32..5).prop_map(|(a, b, step)| {
            let (a, b) = (a.min(b), a.max(b));
            (format!("{a}-{b}/{step}"), (a..=b).filter(|v| (v - a) % step == 0).collect())
        }),
    ];
    prop::collection::vec(part, 1..3).prop_map(|parts| {
        let text = parts.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(",");
        (text, parts.into_iter().flat_map(|(_, values)| values).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Minute by minute, as cron itself goes about it: the manual's rule, written down once more.
    #[test]
    fn five_fields_mean_what_a_plain_reading_of_the_manual_says(
        minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12),
        weekday in field(0, 6),
        start in 0_i64..3 * 365 * 24 * 60,
    ) {
        let written = [&minute.0, &hour.0, &day.0, &month.0, &weekday.0].map(String::as_str).join(" ");
        let Ok(line) = CronLine::parse(&written) else {
            // The only fault that such a line can have.
            prop_assert!(CronLine::parse(&written).unwrap_err().contains("never fires"), "{}", written);
            return Ok(());
        };
        let first = NaiveDate::from_ymd_opt(2024, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
        let start = first + TimeDelta::minutes(start);
        let is_hit = |at: NaiveDateTime| {
            let by_day = day.1.contains(&at.day());
            let by_weekday = weekday.1.contains(&at.weekday().num_days_from_sunday());
            let is_day = if day.0.starts_with('*') || weekday.0.starts_with('*') {
                by_day && by_weekday
            } else {
                by_day || by_weekday
            };
            is_day && month.1.contains(&at.month()) && hour.1.contains(&at.hour()) && minute.1.contains(&at.minute())
        };
        let found = line.next(start);
        let expected = (1..60 * 24 * 60).map(|minutes| start + TimeDelta::minutes(minutes)).find(|at| is_hit(*at));
        match (found, expected) {
            (Some(found), Some(expected)) => prop_assert_eq!(found, expected, "{}", written),
            // Later than was looked for.
            (Some(found), None) => prop_assert!(is_hit(found) && found >= start + TimeDelta::days(59), "{}", written),
            (found, expected) => prop_assert_eq!(found, expected, "{}", written),
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-*/,0-9a-z@? ]{0,30}") {
        let _ = CronLine::parse(&text);
    }
}
