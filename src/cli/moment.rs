//! Instants on the command line: `24h`, `7d`, `2026-01-31`, `2026-01-31T08:00:00Z`.

use crate::store::report::Moment;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

/// Reads an instant. A duration means so long ago, by the database's clock; a date is its first moment, UTC.
pub fn parse(text: &str) -> Result<Moment, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(Moment::At(at.with_timezone(&Utc)));
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(Moment::At(date.and_time(NaiveTime::MIN).and_utc()));
    }
    humantime::parse_duration(text).map(Moment::Ago).map_err(|_| {
        "expected how long ago (\"24h\", \"7d\"), a date (\"2026-01-31\") or an instant (\"2026-01-31T08:00:00Z\")"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn durations_dates_and_instants_are_read() {
        assert_eq!(parse("24h"), Ok(Moment::Ago(Duration::from_hours(24))));
        assert_eq!(parse("7d"), Ok(Moment::Ago(Duration::from_hours(7 * 24))));
        let at = |text: &str| Ok(Moment::At(text.parse().unwrap()));
        assert_eq!(parse("2026-01-31"), at("2026-01-31T00:00:00Z"));
        assert_eq!(parse("2026-01-31T10:00:00+02:00"), at("2026-01-31T08:00:00Z"));
    }

    #[test]
    fn anything_else_says_what_was_expected() {
        for text in ["", "yesterday", "2026-13-01", "5"] {
            assert!(parse(text).unwrap_err().starts_with("expected how long ago"), "{text}");
        }
    }
}
