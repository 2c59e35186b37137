//! The prices of tokens.

use super::{Hours, MoneyError, NanoUsd, Timestamp, Usage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// The fault of the text.
    pub fn per_million(text: &str) -> Result<i64, MoneyError> {
        text.parse().map(|NanoUsd(nanos)| nanos)
    }

    /// The cost of `usage`, rounded half up to a whole nano-dollar; never more than [`NanoUsd::MOST_OF_A_CALL`].
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
        NanoUsd(i64::try_from(total / 1_000_000).unwrap_or(i64::MAX)).of_a_call()
    }

    /// The same price times a factor, in billionths; each part rounded half up.
    #[must_use]
    pub fn times(&self, Factor(billionths): Factor) -> Self {
        let scale = |price: i64| {
            let scaled = (i128::from(price) * i128::from(billionths) + 500_000_000) / 1_000_000_000;
            i64::try_from(scaled).unwrap_or(i64::MAX)
        };
        Self {
            input: scale(self.input),
            output: scale(self.output),
            cached_input: self.cached_input.map(scale),
            cache_write: self.cache_write.map(scale),
            cache_write_1h: self.cache_write_1h.map(scale),
        }
    }

    /// The highest price that a token of input can have.
    pub(super) fn dearest_input(&self) -> i64 {
        let others = [self.cached_input, self.cache_write, self.cache_write_1h];
        others.into_iter().flatten().fold(self.input, i64::max)
    }
}

/// A factor on a price, in billionths: `0.5` is 500,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor(pub i64);

/// The price of a tier of service other than the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierPrice {
    /// A multiple of the usual price.
    Times(Factor),
    /// Prices of its own.
    Own(Price),
}

/// A price that holds at some hours of the week only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffPeak {
    /// The hours in which the usual price holds.
    pub peak: Hours,
    /// The price at all other hours.
    pub price: TierPrice,
}

impl OffPeak {
    /// The price of calls that are made at this instant, where this is the usual one.
    #[must_use]
    pub fn price_at(&self, usual: Price, at: Timestamp) -> Price {
        if self.peak.contain(at) { usual } else { self.outside(usual) }
    }

    /// The price outside the peak hours, where this is the usual one.
    #[must_use]
    pub fn outside(&self, usual: Price) -> Price {
        match &self.price {
            TierPrice::Times(factor) => usual.times(*factor),
            TierPrice::Own(own) => *own,
        }
    }
}

/// Names of the tier that the price list is about.
const USUAL: &[&str] =
    &["", "default", "standard", "auto", "on_demand", "ondemand", "normal", "regular", "unspecified"];

/// The tier in one spelling; `None` for the usual one.
#[must_use]
pub fn special_tier(tier: &str) -> Option<String> {
    let tier = tier.trim().to_ascii_lowercase().replace(['-', ' '], "_");
    (!USUAL.contains(&tier.as_str())).then_some(tier)
}

/// The price in the tier that served a call; `None` where no price is known for it: a wrong sum is worse than none.
#[must_use]
pub fn price_in(price: Option<Price>, tiers: &BTreeMap<String, TierPrice>, tier: Option<&str>) -> Option<Price> {
    let price = price?;
    let Some(tier) = tier.and_then(special_tier) else { return Some(price) };
    // OpenAI calls the tier that it sells as fast "priority" in its answers, and once the other way round.
    let other = match tier.as_str() {
        "fast" => "priority",
        "priority" => "fast",
        _ => "",
    };
    match tiers.get(&tier).or_else(|| tiers.get(other))? {
        TierPrice::Times(factor) => Some(price.times(*factor)),
        TierPrice::Own(own) => Some(*own),
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
    fn the_largest_numbers_come_to_the_most_of_a_call() {
        let m = i64::MAX;
        let price = Price { input: m, output: m, cached_input: Some(m), cache_write: Some(m), cache_write_1h: Some(m) };
        let most = Usage { input: m, cache_read: m, cache_write: m, cache_write_1h: m, output: m, ..Usage::default() };
        assert_eq!(price.cost(&most), NanoUsd::MOST_OF_A_CALL);
        assert_eq!(price.cost(&usage(i64::MIN, -5, -1)), NanoUsd::ZERO);
    }

    #[test]
    fn a_tier_has_its_price_or_none() {
        let own = Price { input: 250_000_000, output: 1_000_000_000, ..GPT };
        let tiers = BTreeMap::from([
            ("flex".to_owned(), TierPrice::Times(Factor(500_000_000))),
            ("priority".to_owned(), TierPrice::Own(own)),
        ]);
        let half = Price { input: 75_000_000, output: 300_000_000, cached_input: Some(37_500_000), ..GPT };
        for (tier, expected) in [
            (None, Some(GPT)),
            (Some("default"), Some(GPT)),
            (Some("Standard"), Some(GPT)),
            (Some("auto"), Some(GPT)),
            (Some("on-demand"), Some(GPT)),
            (Some("flex"), Some(half)),
            (Some("FLEX"), Some(half)),
            (Some("priority"), Some(own)),
            (Some("fast"), Some(own)),
            (Some("scale"), None),
        ] {
            assert_eq!(price_in(Some(GPT), &tiers, tier), expected, "{tier:?}");
        }
        assert_eq!(price_in(None, &tiers, Some("flex")), None);
    }

    #[test]
    fn a_price_is_written_in_dollars_per_million_tokens() {
        assert_eq!(Price::per_million("0.15"), Ok(150_000_000));
        assert_eq!(Price::per_million("cheap"), Err(MoneyError::NotDecimal));
    }
}
