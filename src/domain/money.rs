//! Money as an integer, so that sums are exact.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// Billionths of a US dollar. All sums saturate; an unknown amount is `None`, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// The amount in dollars, for display only: sums are made on the integer.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "display only")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
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
