//! What tokens cost.

use super::{MoneyError, NanoUsd, Usage};
use serde::{Deserialize, Serialize};

/// Prices of one model, in nano-dollars per million tokens, as frozen on each attempt.
///
/// A missing cache price means that the provider bills such tokens like plain input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Plain input.
    pub input: i64,
    /// Output, reasoning included.
    pub output: i64,
    /// Input read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<i64>,
    /// Input written to a short-lived cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<i64>,
    /// Input written to a cache that lives an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<i64>,
}

impl Price {
    /// Reads a price as the configuration writes it, dollars per million tokens (`"0.15"`), into
    /// nano-dollars per million tokens; exactly, nothing is rounded.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn per_million(text: &str) -> Result<i64, MoneyError> {
        text.parse().map(|NanoUsd(nanos)| nanos)
    }

    /// What `usage` costs, rounded half up to a whole nano-dollar; saturates, never panics.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let parts = [
            (usage.input, self.input),
            (usage.cache_read, self.cached_input.unwrap_or(self.input)),
            (usage.cache_write, self.cache_write.unwrap_or(self.input)),
            (usage.cache_write_1h, self.cache_write_1h.or(self.cache_write).unwrap_or(self.input)),
            (usage.output, self.output),
        ];
        // One product is at most 2^126, so only the sum can leave the range.
        let total = parts.iter().fold(500_000_i128, |total, &(tokens, price)| {
            total.saturating_add(i128::from(tokens.max(0)) * i128::from(price.max(0)))
        });
        NanoUsd(i64::try_from(total / 1_000_000).unwrap_or(i64::MAX))
    }

    /// The highest price that a token of input can have.
    pub(super) fn dearest_input(&self) -> i64 {
        let others = [self.cached_input, self.cache_write, self.cache_write_1h];
        others.into_iter().flatten().fold(self.input, i64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPT: Price = Price {
        input: 150_000_000,
        output: 600_000_000,
        cached_input: Some(75_000_000),
        cache_write: None,
        cache_write_1h: None,
    };

    fn usage(input: i64, cache_read: i64, output: i64) -> Usage {
        Usage { input, cache_read, output, ..Usage::default() }
    }

    #[test]
    fn every_class_of_token_has_its_price() {
        assert_eq!(GPT.cost(&usage(1_000_000, 0, 0)), NanoUsd(150_000_000));
        assert_eq!(GPT.cost(&usage(0, 1_000_000, 0)), NanoUsd(75_000_000));
        assert_eq!(GPT.cost(&usage(1_000, 2_000, 100)), NanoUsd(150_000 + 150_000 + 60_000));
    }

    #[test]
    fn a_missing_cache_price_is_the_price_of_plain_input() {
        let written = Usage { cache_write: 1_000, cache_write_1h: 1_000, ..Usage::default() };
        assert_eq!(GPT.cost(&written), NanoUsd(300_000));
        let price = Price { cache_write: Some(200_000_000), ..GPT };
        assert_eq!(price.cost(&written), NanoUsd(400_000));
    }

    #[test]
    fn a_fraction_of_a_nano_dollar_is_rounded_half_up() {
        let price = |input| Price { input, output: 0, cached_input: None, cache_write: None, cache_write_1h: None };
        assert_eq!(price(499_999).cost(&usage(1, 0, 0)), NanoUsd(0));
        assert_eq!(price(500_000).cost(&usage(1, 0, 0)), NanoUsd(1));
    }

    #[test]
    fn reasoning_is_a_part_of_the_output_and_not_charged_again() {
        let thought = Usage { reasoning: 90, ..usage(0, 0, 100) };
        assert_eq!(GPT.cost(&thought), GPT.cost(&usage(0, 0, 100)));
    }

    #[test]
    fn the_largest_numbers_saturate() {
        let m = i64::MAX;
        let price = Price { input: m, output: m, cached_input: Some(m), cache_write: Some(m), cache_write_1h: Some(m) };
        let most = Usage { input: m, cache_read: m, cache_write: m, cache_write_1h: m, output: m, ..Usage::default() };
        assert_eq!(price.cost(&most), NanoUsd(m));
        assert_eq!(price.cost(&usage(i64::MIN, -5, -1)), NanoUsd::ZERO);
    }

    #[test]
    fn a_price_is_written_in_dollars_per_million_tokens() {
        assert_eq!(Price::per_million("0.15"), Ok(150_000_000));
        assert_eq!(Price::per_million("cheap"), Err(MoneyError::NotDecimal));
    }
}
