//! Instants as people and programs name them: `24h`, `7d`, `2026-01-31`, `2026-01-31T08:00:00Z`.

use crate::store::report::Moment;
use chrono::{DateTime, Datelike as _, NaiveDate, NaiveTime, Utc};
use std::time::Duration;

/// No data is older, and the database can still compute with it.
const LONGEST_AGO: Duration = Duration::from_hours(1000 * 8766);

/// Reads an instant. A duration means that long ago, by the database's clock; a date is its first moment, UTC.
pub fn parse(text: &str) -> Result<Moment, String> {
    let expected =
        "expected how long ago (\"24h\", \"7d\"), a date (\"2026-01-31\") or an instant (\"2026-01-31T08:00:00Z\")";
    let at = DateTime::parse_from_rfc3339(text).map(|at| at.with_timezone(&Utc)).ok();
    let midnight = || text.parse::<NaiveDate>().map(|date| date.and_time(NaiveTime::MIN).and_utc()).ok();
    if let Some(at) = at.or_else(midnight) {
        return if (1..=9999).contains(&at.year()) {
            Ok(Moment::At(at))
        } else {
            Err(format!("{expected}, of the years 1 to 9999"))
        };
    }
    match humantime::parse_duration(text) {
        Ok(ago) if ago <= LONGEST_AGO => Ok(Moment::Ago(ago)),
        Ok(_) => Err(format!("{expected}, and at most 1000 years ago")),
        Err(_) => Err(expected.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_dates_and_instants_are_read() {
        assert_eq!(parse("24h"), Ok(Moment::Ago(Duration::from_hours(24))));
        assert_eq!(parse("7d"), Ok(Moment::Ago(Duration::from_hours(7 * 24))));
        let at = |text: &str| Ok(Moment::At(text.parse().unwrap()));
        assert_eq!(parse("2026-01-31"), at("2026-01-31T00:00:00Z"));
        assert_eq!(parse("2026-01-31T10:00:00+02:00"), at("2026-01-31T08:00:00Z"));
    }

    #[test]
    fn of_two_instants_of_one_kind_it_is_known_which_comes_first() {
        let is_after = |one: &str, other: &str| parse(one).unwrap().is_at_or_after(parse(other).unwrap());
        for (one, other, expected) in [
            ("1h", "2h", true),
            ("2h", "1h", false),
            ("1h", "60m", true),
            ("2026-02-01", "2026-01-31", true),
            ("2026-01-31", "2026-01-31T00:00:01Z", false),
            ("2026-01-31", "1h", false),
        ] {
            assert_eq!(is_after(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn anything_else_says_what_was_expected() {
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "5",
            "999999999d",
            "1001years",
            "584000000000y",
            "-4714-01-01",
            "+10000-01-01",
            "+262142-12-31",
        ] {
            assert!(parse(text).unwrap_err().starts_with("expected how long ago"), "{text}");
        }
    }
}
