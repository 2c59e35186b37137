//! Instants on the command line.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use std::fmt;
use std::str::FromStr;

/// An instant, or how long from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenTime {
    /// `2026-08-01T06:00:00Z`.
    At(DateTime<Utc>),
    /// `2h`.
    In(TimeDelta),
}

impl GivenTime {
    /// The instant, seen from `now`; `None` when there is no such year.
    #[must_use]
    pub fn from(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::At(at) => Some(at),
            Self::In(delta) => now.checked_add_signed(delta).filter(|at| *at <= last()),
        }
    }
}

/// The end of the last year with four digits, which is as far as RFC 3339 goes.
fn last() -> DateTime<Utc> {
    DateTime::from_timestamp(253_402_300_799, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl fmt::Display for GivenTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => f.write_str(&at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            Self::In(delta) => humantime::format_duration(delta.to_std().unwrap_or_default()).fmt(f),
        }
    }
}

impl FromStr for GivenTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(at.to_utc()));
        }
        let delta = humantime::parse_duration(text).ok().and_then(|duration| TimeDelta::from_std(duration).ok());
        delta.map(Self::In).ok_or_else(|| {
            "expected an instant with its time zone such as 2026-08-01T06:00:00Z, or a time from now such as 2h"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_absolute_or_from_now() {
        let now = DateTime::from_timestamp(1_000_000_000, 0).unwrap();
        for (text, seconds) in [
            ("2001-09-09T01:46:40Z", Some(1_000_000_000)),
            ("2001-09-09T03:46:40+02:00", Some(1_000_000_000)),
            ("2h 30m", Some(1_000_009_000)),
            ("0s", Some(1_000_000_000)),
            ("9000years", None),
        ] {
            let when = text.parse::<GivenTime>().unwrap();
            assert_eq!(when.to_string().parse(), Ok(when), "{text}");
            let at = when.from(now);
            assert_eq!(at.map(|at| at.timestamp()), seconds, "{text}");
        }
        for text in ["", "tomorrow", "2001-09-09", "2001-09-09T01:46:40", "-2h"] {
            assert!(text.parse::<GivenTime>().is_err(), "{text}");
        }
    }
}
