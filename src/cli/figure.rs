//! Counts and durations on the command line.

use std::str::FromStr;
use std::time::Duration;

/// A whole number, at least 1.
pub fn count<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| *number >= T::from(1));
    number.ok_or_else(|| "expected a whole number, at least 1".to_owned())
}

/// The number of a job.
pub fn job(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "expected the number of a job; `sluice job list` shows them".to_owned())
}

/// A duration in words.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration such as \"90s\", \"5m\" or \"1h 30m\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_whole_number_from_1_on() {
        assert_eq!(count::<u64>("7"), Ok(7));
        assert_eq!(count::<i64>("50"), Ok(50));
        for text in ["0", "-1", "", "x", "1.5", "99999999999999999999"] {
            assert_eq!(count::<i64>(text), Err("expected a whole number, at least 1".to_owned()), "{text}");
        }
    }

    #[test]
    fn a_job_is_named_by_its_number() {
        assert_eq!((job("7"), job("-1")), (Ok(7), Ok(-1)));
        for text in ["abc", "", "1.5", "99999999999999999999"] {
            assert!(job(text).unwrap_err().starts_with("expected the number of a job"), "{text}");
        }
    }

    #[test]
    fn anything_that_is_no_duration_says_what_was_expected() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for text in ["foo", "", "5", "5 bananas"] {
            assert!(duration(text).unwrap_err().starts_with("expected a duration such as"), "{text}");
        }
    }
}
