//! Money as an integer, so that sums are exact.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

/// Billionths of a US dollar. All sums saturate; an unknown amount is `None`, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// The most that one call is taken to cost, a million dollars: a larger amount comes from a slip of the price list,
    /// or a lie. Nine thousand such calls are still counted exactly.
    pub const MOST_OF_A_CALL: Self = Self(1_000_000_000_000_000);

    /// The most that a provider is believed to have charged for one call where nothing else is known of it. A million
    /// tokens of input and the longest answer, both at the dearest price of the catalogue, come to some 250 dollars.
    pub const MOST_REPORTED: Self = Self(1_000_000_000_000);

    /// The amount that a call may have cost.
    #[must_use]
    pub fn of_a_call(self) -> Self {
        self.clamp(Self::ZERO, Self::MOST_OF_A_CALL)
    }

    /// The amount in dollars, for display only: sums are made on the integer.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "display only")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

/// Why a text is not an amount of dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Neither sign, exponent, currency nor separators are taken: `0.15`, `3`, `.5`.
    #[error("expected dollars as a decimal number like \"0.15\"")]
    NotDecimal,
    /// Below the smallest unit.
    #[error("expected at most nine decimals: a billionth of a dollar is the smallest unit")]
    TooFine,
    /// Above the largest amount that can be counted.
    #[error("expected at most 9223372036 dollars")]
    TooLarge,
}

impl FromStr for NanoUsd {
    type Err = MoneyError;

    /// Reads dollars written as a decimal number, exactly: nothing is rounded.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return Err(MoneyError::NotDecimal);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 9 {
            return Err(MoneyError::TooFine);
        }
        // Only digits are left, so the only possible failure is a number that is too large.
        let number = |part: &str| part.parse::<i64>().map_err(|_| MoneyError::TooLarge);
        let dollars = if whole.is_empty() { 0 } else { number(whole)? };
        let nanos = number(&format!("{fraction:0<9}"))?;
        let total = dollars.checked_mul(1_000_000_000).and_then(|total| total.checked_add(nanos));
        total.map(Self).ok_or(MoneyError::TooLarge)
    }
}

impl Add for NanoUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for NanoUsd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for NanoUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Dollars with as many decimals as are needed to tell the amount, at least two: `$0.000150`.
impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let (whole, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        let digits = format!("{fraction:09}");
        let shown = digits.trim_end_matches('0');
        write!(f, "{sign}${whole}.{shown:0<2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        for (text, nanos) in [
            ("0.15", 150_000_000),
            ("3", 3_000_000_000),
            (".5", 500_000_000),
            ("2.", 2_000_000_000),
            ("0", 0),
            ("0.000000001", 1),
            ("0.0000000010000", 1),
            ("0075.00", 75_000_000_000),
            ("9223372036.854775807", i64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(NanoUsd(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_amount_is_named() {
        for text in ["", ".", " 1", "1 ", "-1", "+1", "1e3", "1,5", "$1", "1.2.3", "0x1", "NaN", "½", "1_000"] {
            assert_eq!(text.parse::<NanoUsd>(), Err(MoneyError::NotDecimal), "{text}");
        }
        assert_eq!("0.0000000001".parse::<NanoUsd>(), Err(MoneyError::TooFine));
        for text in ["9223372036.854775808", "9223372037", "99999999999999999999999"] {
            assert_eq!(text.parse::<NanoUsd>(), Err(MoneyError::TooLarge), "{text}");
        }
    }

    #[test]
    fn an_amount_is_shown_with_all_its_decimals() {
        for (nanos, text) in [
            (0, "$0.00"),
            (150_000_000, "$0.15"),
            (150_000, "$0.00015"),
            (1, "$0.000000001"),
            (-2_500_000_000, "-$2.50"),
            (i64::MIN, "-$9223372036.854775808"),
        ] {
            assert_eq!(NanoUsd(nanos).to_string(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_can_be_read_back(nanos in 0..=i64::MAX) {
            let shown = NanoUsd(nanos).to_string();
            proptest::prop_assert_eq!(shown.trim_start_matches('$').parse(), Ok(NanoUsd(nanos)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = text.parse::<NanoUsd>();
        }
    }
}
