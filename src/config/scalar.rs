//! Durations, money and names, from the text in the configuration.

use std::time::Duration;

pub(super) const DURATION: &str = "a duration such as \"90s\", \"10m\" or \"1h 30m\"";
pub(super) const MONEY: &str = "dollars as a decimal string such as \"0.15\", with at most 9 decimals";
pub(super) const NAME: &str = "a name of the characters a to z, 0 to 9 and _, so that variables can reach it";

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|error| format!("{text:?} is not a duration ({error})"))
}

/// Dollars as nano-dollars, exactly.
pub(super) fn nano_dollars(text: &str) -> Result<i64, String> {
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit())) {
        return Err(format!("{text:?} is negative"));
    }
    if (whole.is_empty() && fraction.is_empty()) || !is_number(whole) || !is_number(fraction) {
        return Err(format!("{text:?} is not an amount of money"));
    }
    if fraction.len() > 9 {
        return Err(format!("{text:?} has more than 9 decimals"));
    }
    // Nine decimals make nano-dollars: the digits of both sides, one after the other.
    format!("{whole}{fraction:0<9}").parse().map_err(|_| format!("{text:?} is too much money"))
}

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// The candidate that the user probably meant.
pub(super) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_exactly() {
        for (text, nanos) in
            [("0", 0), ("0.15", 150_000_000), ("15", 15_000_000_000), (".5", 500_000_000), ("0.000000001", 1)]
        {
            assert_eq!(nano_dollars(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_no_money_is_refused() {
        for text in ["", ".", "-1", "+1", "1e3", "1,5", "$1", " 1", "0.0000000001", "9999999999999"] {
            assert!(nano_dollars(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_nearest_key_is_suggested_only_when_it_is_near() {
        assert_eq!(nearest("max_inflight", ["drain_timeout", "max_in_flight"]), Some("max_in_flight"));
        assert_eq!(nearest("colour", ["drain_timeout", "max_in_flight"]), None);
    }
}
