//! Numbers as they are written: whether two of them are the same, and whether a type holds one to its last digit.

/// A number without what its spelling adds: the sign, the digits without zeros at either end, and the power of ten that
/// they are multiplied by. `None`: it is no number.
fn plain(written: &str) -> Option<(bool, String, i64)> {
    let (is_negative, rest) = written.strip_prefix('-').map_or((false, written), |rest| (true, rest));
    let (mantissa, power) = match rest.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let ended = digits.trim_end_matches('0');
    let length = |text: &str| i64::try_from(text.len()).ok();
    let power = power.checked_sub(length(fraction)?)?.checked_add(length(&digits)? - length(ended)?)?;
    let begun = ended.trim_start_matches('0');
    Some(if begun.is_empty() { (false, String::new(), 0) } else { (is_negative, begun.to_owned(), power) })
}

/// Whether two texts write the same number: `1.50` and `15e-1`.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    plain(one).is_some_and(|one| plain(other) == Some(one))
}

/// Whether a number of 64 bits with a point (`DOUBLE`) tells this number from every other one that is as long.
#[must_use]
pub fn fits_double(written: &str) -> bool {
    written.parse::<f64>().is_ok_and(|number| number.is_finite() && same(written, &format!("{number:e}")))
}

/// Whether a whole number of 64 bits (`INT64`) is this number.
#[must_use]
pub fn fits_integer(written: &str) -> bool {
    written != "-0" && written.parse::<i64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_a_number_are_the_same_number() {
        for (one, other) in [("1.50", "15e-1"), ("0", "-0.00"), ("1E+3", "1000"), ("-2.5", "-25E-1"), ("007", "7")] {
            assert!(same(one, other), "{one} {other}");
        }
        for (one, other) in [("1", "-1"), ("1", "10"), ("9007199254740993", "9007199254740992"), ("x", "x"), ("", "")] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_type_holds_a_number_to_its_last_digit_or_not_at_all() {
        for (written, integer, double) in [
            ("12.340", false, true),
            ("9007199254740992", true, true),
            ("9007199254740993", true, false),
            ("9223372036854775807", true, false),
            ("-9223372036854775808", true, false),
            ("9223372036854775808", false, false),
            ("18446744073709551615", false, false),
            ("0.1234567890123456789", false, false),
            ("1e400", false, false),
            ("-0", false, true),
        ] {
            assert_eq!((fits_integer(written), fits_double(written)), (integer, double), "{written}");
        }
    }

    proptest! {
        #[test]
        fn what_was_a_double_fits_one(number in prop::num::f64::NORMAL) {
            let spellings = [number.to_string(), format!("{number:E}")];
            prop_assert!(spellings.iter().all(|written| fits_double(written)));
        }
    }
}
