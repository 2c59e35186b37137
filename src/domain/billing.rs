//! What a call costs: the price that holds for it, and which of two figures is booked, the computed one or the
//! provider's.

use super::price::Tariff;
use super::served::{Served, who_served};
use super::usage::CostSource;
use super::{Model, NanoUsd, Target, Timestamp, Usage};

/// A call that was answered, as far as its price depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The target that was asked, with the tier that it asked for.
    pub target: &'a Target,
    /// That model.
    pub model: &'a Model,
    /// The model that the answer names; empty: it names none.
    pub served: &'a str,
    /// The tier that the answer names.
    pub tier: Option<&'a str>,
    /// The tier that the request asked for by itself.
    pub asked: Option<&'a str>,
    /// When the call was made.
    pub at: Timestamp,
}

/// The price of a call that was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct PricedCall<'a> {
    /// The model that answered.
    pub who: Served<'a>,
    /// The tier that is billed; `None`: the usual one.
    pub tier: Option<&'a str>,
    /// `None`: unknown.
    pub price: Option<Tariff>,
}

impl<'a> Answered<'a> {
    /// The price that holds for the call.
    #[must_use]
    pub fn billed(&self) -> PricedCall<'a> {
        let who = who_served(self.target, self.model, self.served);
        let model = match who {
            Served::AsAsked => Some(self.model),
            Served::Other(other) => Some(other),
            Served::Stranger => None,
        };
        // A vendor that says nothing of the tier has served the one that was asked for. That a request asks for one
        // does not make a server sell it.
        let is_sold = |tier: &&str| model.is_some_and(|model| model.price_at(Some(tier), self.at).is_some());
        let of_request = || self.asked.filter(is_sold);
        let tier = self.tier.or(self.target.tier.map(|tier| tier.name)).or_else(of_request);
        PricedCall { who, tier, price: model.and_then(|model| model.price_at(tier, self.at)) }
    }
}

/// The cost of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The cost that is booked: the provider's figure, or else the computed one; `None`: neither is known.
    pub booked: Option<NanoUsd>,
    /// Tokens times the price; `None`: no price is known.
    pub computed: Option<NanoUsd>,
    /// Where the booked amount comes from.
    pub source: Option<CostSource>,
}

impl Cost {
    /// The cost of this usage at this price, where the provider says `reported`.
    #[must_use]
    pub fn of(price: Option<&Tariff>, usage: &Usage, reported: Option<NanoUsd>) -> Self {
        let computed = price.map(|price| price.cost(usage));
        let source = match (reported, computed) {
            (Some(_), _) => Some(CostSource::Reported),
            (None, Some(_)) => Some(CostSource::Price),
            (None, None) => None,
        };
        Self { booked: reported.or(computed), computed, source }
    }
}

/// How many times more than it can cost a call is believed to have cost, where the provider says so: gateways add to
/// prices, and price lists are out of date.
const MOST_TIMES: i64 = 10;

/// What is believed of any call, however cheap: a provider may take something for the call itself.
const LEAST_BOUND: NanoUsd = NanoUsd(100_000_000);

/// Whether a provider is believed that a call has cost so much. `most` is what it can have cost by the price list, from
/// the worst case and from the tokens that were reported; `None`: a price is unknown, or the request has asked for
/// something that no price list tells.
#[must_use]
pub fn is_believed(reported: NanoUsd, most: Option<NanoUsd>) -> bool {
    most.is_none_or(|most| reported <= LEAST_BOUND.max(NanoUsd(most.0.saturating_mul(MOST_TIMES))))
}

/// How far a provider's figure may be from the computed one before it is an alert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// A share of the computed cost.
    pub share: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { share: 0.05 }
    }
}

impl Tolerance {
    /// Gateways round what they report; a millionth of a dollar is no difference.
    const ROUNDING: i64 = 1_000;

    /// Whether the two figures differ by more than that.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a threshold needs no more than 15 digits")]
    pub fn is_exceeded(self, computed: Option<NanoUsd>, reported: Option<NanoUsd>) -> bool {
        let Some((NanoUsd(computed), NanoUsd(reported))) = computed.zip(reported) else { return false };
        let difference = computed.abs_diff(reported);
        difference > Self::ROUNDING.unsigned_abs() && difference as f64 > computed as f64 * self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::price::Price;

    #[test]
    fn what_a_provider_says_is_booked_and_what_was_computed_is_kept() {
        let price = Tariff::from(Price::plain(1_000_000_000, 2_000_000_000));
        let usage = Usage { input: 10, output: 5, ..Usage::default() };
        let computed = Some(NanoUsd(20_000));
        for (price, reported, booked, kept, source) in [
            (Some(&price), None, computed, computed, Some(CostSource::Price)),
            (Some(&price), Some(NanoUsd(7)), Some(NanoUsd(7)), computed, Some(CostSource::Reported)),
            (None, Some(NanoUsd(7)), Some(NanoUsd(7)), None, Some(CostSource::Reported)),
            (None, None, None, None, None),
        ] {
            assert_eq!(Cost::of(price, &usage, reported), Cost { booked, computed: kept, source });
        }
    }

    #[test]
    fn a_cost_far_beyond_what_the_call_can_cost_is_not_believed() {
        let cents = |cents: i64| NanoUsd(cents * 10_000_000);
        for (reported, most, expected) in [
            (cents(50), Some(cents(5)), true),
            (cents(51), Some(cents(5)), false),
            (cents(9_999_900), Some(cents(5)), false),
            // A call for next to nothing.
            (cents(10), Some(NanoUsd(7)), true),
            (cents(11), Some(NanoUsd(7)), false),
            (cents(10), Some(NanoUsd::ZERO), true),
            (cents(99_999), None, true),
            (NanoUsd(i64::MAX), Some(NanoUsd(i64::MAX)), true),
        ] {
            assert_eq!(is_believed(reported, most), expected, "{reported} of {most:?}");
        }
    }

    #[test]
    fn a_vendor_that_says_nothing_of_the_tier_has_served_the_one_that_was_asked_for_if_it_sells_it() {
        use crate::domain::price::{Factor, PriceTerms, TierPrice};
        let usual = Tariff::from(Price::plain(100, 200));
        let tiers = [("priority".to_owned(), TierPrice::Times(Factor(2_000_000_000)))].into();
        let terms = PriceTerms { price: Some(usual.clone()), tiers, ..PriceTerms::default() };
        let (target, model) = (Target::new("p", "m"), Model { terms, ..Model::default() });
        let twice = Tariff::from(Price::plain(200, 400));
        for (said, asked, expected) in [
            (None, None, &usual),
            (None, Some("priority"), &twice),
            (Some("default"), Some("priority"), &usual),
            (Some("priority"), None, &twice),
            (None, Some("gold"), &usual),
        ] {
            let call = Answered { target: &target, model: &model, served: "m", tier: said, asked, at: Timestamp(0) };
            assert_eq!(call.billed().price.as_ref(), Some(expected), "{said:?} {asked:?}");
        }
    }

    #[test]
    fn a_difference_counts_from_a_share_on_and_never_where_one_side_is_unknown() {
        let five = Tolerance::default();
        for (computed, reported, expected) in [
            (Some(1_000_000), Some(1_050_000), false),
            (Some(1_000_000), Some(1_050_001), true),
            (Some(1_000_000), Some(949_999), true),
            (Some(1_000_000), Some(0), true),
            (Some(0), Some(1_000), false),
            (Some(0), Some(1_001), true),
            (Some(10), Some(900), false),
            (None, Some(900_000), false),
            (Some(900_000), None, false),
            (Some(i64::MAX), Some(i64::MIN), true),
        ] {
            assert_eq!(five.is_exceeded(computed.map(NanoUsd), reported.map(NanoUsd)), expected, "{computed:?}");
        }
    }
}
