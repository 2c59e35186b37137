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
        // A vendor that says nothing of the tier has served the one that was asked for.
        let tier = self.tier.or(self.target.tier.map(|tier| tier.name));
        let who = who_served(self.target, self.model, self.served);
        let model = match who {
            Served::AsAsked => Some(self.model),
            Served::Other(other) => Some(other),
            Served::Stranger => None,
        };
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
