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
    /// Output; reasoning included, where that has no price of its own.
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
    /// The part of the output that was reasoning; `None`: as output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<i64>,
}

impl Price {
    /// A price that makes no difference between the tokens of a side.
    #[must_use]
    pub const fn plain(input: i64, output: i64) -> Self {
        Self { input, output, cached_input: None, cache_write: None, cache_write_1h: None, reasoning: None }
    }

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
        let reasoning = usage.reasoning.clamp(0, usage.output.max(0));
        let parts = [
            (usage.input, self.input),
            (usage.cache_read, self.cached_input.unwrap_or(self.input)),
            (usage.cache_write, self.cache_write.unwrap_or(self.input)),
            (usage.cache_write_1h, self.cache_write_1h.or(self.cache_write).unwrap_or(self.input)),
            (usage.output.saturating_sub(reasoning), self.output),
            (reasoning, self.reasoning.unwrap_or(self.output)),
        ];
        // One product is at most 2^126, so only the sum can leave the range.
        let total = parts.iter().fold(500_000_i128, |total, &(tokens, price)| {
            total.saturating_add(i128::from(tokens.max(0)) * i128::from(price.max(0)))
        });
        NanoUsd(i64::try_from(total / 1_000_000).unwrap_or(i64::MAX)).of_a_call()
    }

    /// What the caches of the provider have saved in a call with this usage: what all its input would have cost as
    /// plain input, less what it has cost. Negative where more was written into a cache than read from it.
    #[must_use]
    pub fn saved_by_cache(&self, usage: &Usage) -> NanoUsd {
        let plain = Usage { input: usage.total_input(), cache_read: 0, cache_write: 0, cache_write_1h: 0, ..*usage };
        NanoUsd(self.cost(&plain).0.saturating_sub(self.cost(usage).0))
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
            reasoning: self.reasoning.map(scale),
        }
    }

    /// The highest price that a token of input can have.
    pub(super) fn dearest_input(&self) -> i64 {
        let others = [self.cached_input, self.cache_write, self.cache_write_1h];
        others.into_iter().flatten().fold(self.input, i64::max)
    }

    /// The highest price that a token of output can have.
    pub(super) fn dearest_output(&self) -> i64 {
        self.reasoning.unwrap_or(self.output).max(self.output)
    }
}

/// The prices of one model by the length of the prompt.
///
/// Vendors that charge more for long prompts charge the dearer price for the whole request, its output included, as
/// soon as the prompt is longer than the threshold. All its tokens count, those from a cache too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tariff {
    /// The price up to the first threshold.
    pub usual: Price,
    /// The prices beyond, by rising thresholds.
    pub above: Vec<Above>,
}

/// The price of a call with more tokens of input than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Above {
    /// The longest prompt for which this price does not hold yet.
    pub input_tokens: i64,
    /// The price of every token of a call with a longer one.
    pub price: Price,
}

impl From<Price> for Tariff {
    fn from(usual: Price) -> Self {
        Self { usual, above: Vec::new() }
    }
}

impl Tariff {
    /// The price of a call with so many tokens of input, cached ones included.
    #[must_use]
    pub fn of(&self, input_tokens: i64) -> Price {
        let beyond = self.above.iter().rev().find(|above| input_tokens > above.input_tokens);
        beyond.map_or(self.usual, |above| above.price)
    }

    /// What a call with this usage costs.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        self.of(usage.total_input()).cost(usage)
    }

    /// The prices that calls with up to so many tokens of input can have.
    pub(super) fn up_to(&self, input_tokens: i64) -> impl Iterator<Item = Price> {
        let beyond = self.above.iter().filter(move |above| input_tokens > above.input_tokens);
        std::iter::once(self.usual).chain(beyond.map(|above| above.price))
    }

    /// All prices times a factor, as [`Price::times`].
    #[must_use]
    pub fn times(&self, factor: Factor) -> Self {
        let above = self.above.iter().map(|above| Above { price: above.price.times(factor), ..*above });
        Self { usual: self.usual.times(factor), above: above.collect() }
    }
}

/// A factor on a price, in billionths: `0.5` is 500,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor(pub i64);

/// The price of a tier of service other than the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierPrice {
    /// A multiple of the usual price.
    Times(Factor),
    /// Prices of its own.
    Own(Tariff),
}

impl TierPrice {
    /// The price where this is the usual one.
    fn beside(&self, usual: &Tariff) -> Tariff {
        match self {
            Self::Times(factor) => usual.times(*factor),
            Self::Own(own) => own.clone(),
        }
    }
}

/// What a model costs for a time: its price, in other tiers and at other hours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceTerms {
    /// `None`: unknown.
    pub price: Option<Tariff>,
    /// Its price in other tiers of service than the usual one, by the provider's word for the tier.
    pub tiers: BTreeMap<String, TierPrice>,
    /// The hours in which the price holds, and the price at other hours; `None`: it always holds.
    pub off_peak: Option<OffPeak>,
}

impl PriceTerms {
    /// The price in this tier of a call that is made at this instant; `None`: unknown.
    #[must_use]
    pub fn price_at(&self, tier: Option<&str>, at: Timestamp) -> Option<Tariff> {
        let usual = self.price.as_ref()?;
        match &self.off_peak {
            Some(other) => price_in(&other.price_at(usual, at), &self.tiers, tier),
            None => price_in(usual, &self.tiers, tier),
        }
    }

    /// The price in this tier in the peak hours; `None`: unknown.
    #[must_use]
    pub fn peak_price(&self, tier: Option<&str>) -> Option<Tariff> {
        price_in(self.price.as_ref()?, &self.tiers, tier)
    }

    /// The price in this tier outside the peak hours; `None`: unknown, or the same at all hours.
    #[must_use]
    pub fn off_peak_price(&self, tier: Option<&str>) -> Option<Tariff> {
        price_in(&self.off_peak.as_ref()?.outside(self.price.as_ref()?), &self.tiers, tier)
    }

    /// All prices that a call in this tier can have.
    pub(super) fn prices(&self, tier: Option<&str>) -> impl Iterator<Item = Tariff> {
        [self.peak_price(tier), self.off_peak_price(tier)].into_iter().flatten()
    }
}

/// PriceTerms that hold from a day on, until the next ones do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceChange {
    /// The first instant of that day, in UTC.
    pub from: Timestamp,
    /// What holds from then on.
    pub terms: PriceTerms,
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
    pub fn price_at(&self, usual: &Tariff, at: Timestamp) -> Tariff {
        if self.peak.contain(at) { usual.clone() } else { self.outside(usual) }
    }

    /// The price outside the peak hours, where this is the usual one.
    #[must_use]
    pub fn outside(&self, usual: &Tariff) -> Tariff {
        self.price.beside(usual)
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
pub fn price_in(usual: &Tariff, tiers: &BTreeMap<String, TierPrice>, tier: Option<&str>) -> Option<Tariff> {
    let Some(tier) = tier.and_then(special_tier) else { return Some(usual.clone()) };
    // OpenAI calls the tier that it sells as fast "priority" in its answers, and once the other way round.
    let other = match tier.as_str() {
        "fast" => "priority",
        "priority" => "fast",
        _ => "",
    };
    tiers.get(&tier).or_else(|| tiers.get(other)).map(|price| price.beside(usual))
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
        reasoning: None,
    };

    const PLAIN: Price = Price::plain(0, 0);

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
    fn a_cache_saves_what_its_tokens_cost_less_than_plain_input() {
        let price = Price { cache_write: Some(187_500_000), cache_write_1h: Some(300_000_000), ..GPT };
        let of = |cache_read, cache_write, cache_write_1h| {
            price.saved_by_cache(&Usage {
                input: 500,
                cache_read,
                cache_write,
                cache_write_1h,
                output: 9,
                ..Usage::default()
            })
        };
        assert_eq!(of(0, 0, 0), NanoUsd::ZERO);
        assert_eq!(of(1_000, 0, 0), NanoUsd(75_000));
        assert_eq!(of(0, 1_000, 0), NanoUsd(-37_500));
        assert_eq!(of(0, 0, 1_000), NanoUsd(-150_000));
        assert_eq!(of(1_000, 1_000, 1_000), NanoUsd(75_000 - 37_500 - 150_000));
        // Without a price of its own, what is cached costs what it would have cost.
        assert_eq!(Price::plain(5, 5).saved_by_cache(&Usage { cache_read: 1_000, ..Usage::default() }), NanoUsd::ZERO);
    }

    #[test]
    fn a_fraction_of_a_nano_dollar_is_rounded_half_up() {
        let price = |input| Price { input, output: 0, ..PLAIN };
        assert_eq!(price(499_999).cost(&usage(1, 0, 0)), NanoUsd(0));
        assert_eq!(price(500_000).cost(&usage(1, 0, 0)), NanoUsd(1));
    }

    #[test]
    fn reasoning_is_a_part_of_the_output_and_not_charged_again() {
        let thought = Usage { reasoning: 90, ..usage(0, 0, 100) };
        assert_eq!(GPT.cost(&thought), GPT.cost(&usage(0, 0, 100)));
        let dear = Price { reasoning: Some(6_000_000_000), ..GPT };
        assert_eq!(dear.cost(&thought), NanoUsd(10 * 600 + 90 * 6_000));
        assert_eq!(dear.cost(&Usage { reasoning: 900, ..thought }), NanoUsd(100 * 6_000));
    }

    #[test]
    fn beyond_the_threshold_every_token_has_the_dearer_price() {
        let dearer = |factor| Price { input: GPT.input * factor, output: GPT.output * factor, ..PLAIN };
        let above = |input_tokens, factor| Above { input_tokens, price: dearer(factor) };
        let tariff = Tariff { usual: GPT, above: vec![above(200_000, 2), above(500_000, 4)] };
        for (input, cached, price) in [
            (0, 0, GPT),
            (200_000, 0, GPT),
            (200_001, 0, dearer(2)),
            // Tokens from the cache count towards the length.
            (1, 200_000, dearer(2)),
            (500_000, 0, dearer(2)),
            (500_001, 0, dearer(4)),
            (i64::MAX, i64::MAX, dearer(4)),
        ] {
            let used = usage(input, cached, 100);
            assert_eq!(tariff.of(used.total_input()), price, "{used:?}");
            assert_eq!(tariff.cost(&used), price.cost(&used), "{used:?}");
        }
        assert_eq!(tariff.times(Factor(500_000_000)).of(200_001), dearer(1));
        assert_eq!(tariff.up_to(500_000).collect::<Vec<_>>(), [GPT, dearer(2)]);
    }

    #[test]
    fn the_largest_numbers_come_to_the_most_of_a_call() {
        let m = i64::MAX;
        let price = Price {
            input: m,
            output: m,
            cached_input: Some(m),
            cache_write: Some(m),
            cache_write_1h: Some(m),
            reasoning: Some(m),
        };
        let most = Usage { input: m, cache_read: m, cache_write: m, cache_write_1h: m, output: m, ..Usage::default() };
        assert_eq!(price.cost(&most), NanoUsd::MOST_OF_A_CALL);
        assert_eq!(price.cost(&usage(i64::MIN, -5, -1)), NanoUsd::ZERO);
    }

    #[test]
    fn a_tier_has_its_price_or_none() {
        let own = Price { input: 250_000_000, output: 1_000_000_000, ..GPT };
        let tiers = BTreeMap::from([
            ("flex".to_owned(), TierPrice::Times(Factor(500_000_000))),
            ("priority".to_owned(), TierPrice::Own(own.into())),
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
            assert_eq!(price_in(&GPT.into(), &tiers, tier), expected.map(Tariff::from), "{tier:?}");
        }
        assert_eq!(PriceTerms { tiers, ..PriceTerms::default() }.price_at(Some("flex"), Timestamp(0)), None);
    }

    #[test]
    fn a_price_is_written_in_dollars_per_million_tokens() {
        assert_eq!(Price::per_million("0.15"), Ok(150_000_000));
        assert_eq!(Price::per_million("cheap"), Err(MoneyError::NotDecimal));
    }
}
