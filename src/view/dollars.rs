//! Money as it is shown.

use crate::domain::NanoUsd;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;

/// An amount as an exact decimal number of dollars, without a currency sign: `0.00015`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dollars(pub NanoUsd);

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().replacen('$', "", 1))
    }
}

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Digit by digit: a float would round what the ledger holds exactly.
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Dollars at a glance, where the exact amount stands elsewhere: in cents, and below a dollar with three digits that
/// count.
#[must_use]
pub fn at_a_glance(amount: NanoUsd) -> String {
    let nanos = amount.0.unsigned_abs();
    let unit = match nanos {
        1_000_000_000.. => 10_000_000,
        _ => 10_u64.pow(nanos.checked_ilog10().unwrap_or(0).saturating_sub(2)),
    };
    let rounded = i64::try_from(nanos.saturating_add(unit / 2) / unit * unit).unwrap_or(i64::MAX);
    NanoUsd(if amount.0 < 0 { -rounded } else { rounded }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_glance_an_amount_has_few_digits() {
        for (nanos, shown) in [
            (0, "$0.00"),
            (1, "$0.000000001"),
            (158_858_000, "$0.159"),
            (310_700, "$0.000311"),
            (999_600_000, "$1.00"),
            (12_918_928_000, "$12.92"),
            (-12_918_928_000, "-$12.92"),
            (i64::MAX, "$9223372036.85"),
        ] {
            assert_eq!(at_a_glance(NanoUsd(nanos)), shown, "{nanos}");
        }
    }
}
