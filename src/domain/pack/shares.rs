//! What each of several requests has of a call that they shared: tokens and money that add up to those of the call.

use crate::domain::billing::Cost;
use crate::domain::price::Price;
use crate::domain::{NanoUsd, Usage};

/// Splits an amount in proportion to the weights: the parts add up to it, and each is less than one away from its exact
/// value (largest remainder; of equal remainders the first). Without any weight all parts are alike.
#[must_use]
pub fn shares(total: i64, weights: &[u64]) -> Vec<i64> {
    let sum = weights.iter().fold(0, |sum: u128, weight| sum + u128::from(*weight));
    if sum == 0 {
        return if weights.is_empty() { Vec::new() } else { shares(total, &vec![1; weights.len()]) };
    }
    let whole = u128::from(total.unsigned_abs());
    let mut parts: Vec<(u128, u128)> = weights
        .iter()
        // Neither factor has more than 64 bits.
        .map(|weight| whole * u128::from(*weight))
        .map(|exact| (exact / sum, exact % sum))
        .collect();
    let given = parts.iter().fold(0, |given: u128, (part, _)| given + part);
    let mut by_remainder: Vec<usize> = (0..parts.len()).collect();
    by_remainder.sort_by_key(|&place| std::cmp::Reverse(parts.get(place).map_or(0, |(_, rest)| *rest)));
    let left = usize::try_from(whole - given).unwrap_or(usize::MAX);
    for place in by_remainder.into_iter().take(left) {
        if let Some((part, _)) = parts.get_mut(place) {
            *part += 1;
        }
    }
    let signed = |part: u128| i64::try_from(part).unwrap_or(i64::MAX);
    parts.into_iter().map(|(part, _)| if total < 0 { -signed(part) } else { signed(part) }).collect()
}

/// The tokens and the money of a call, or a request's part of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Amounts {
    pub usage: Usage,
    /// The price that was applied to the whole call.
    pub price: Option<Price>,
    pub cost: Cost,
    /// What the provider says that it cost.
    pub reported: Option<NanoUsd>,
}

impl Amounts {
    /// The parts of requests with these weights. Of every figure they add up to the whole.
    #[must_use]
    pub fn split(&self, weights: &[u64]) -> Vec<Self> {
        let counts = |count: i64| shares(count, weights);
        let money = |sum: Option<NanoUsd>| sum.map(|NanoUsd(sum)| shares(sum, weights));
        let Usage { input, cache_read, cache_write, cache_write_1h, output, reasoning, source } = self.usage;
        let (input, cache_read, output) = (counts(input), counts(cache_read), counts(output));
        let (cache_write, cache_write_1h) = (counts(cache_write), counts(cache_write_1h));
        let reasoning = counts(reasoning);
        let Cost { booked, computed, source: cost_source } = self.cost;
        let (booked, computed, reported) = (money(booked), money(computed), money(self.reported));
        let count = |parts: &[i64], place: usize| parts.get(place).copied().unwrap_or(0);
        let amount = |parts: &Option<Vec<i64>>, place: usize| parts.as_ref().map(|parts| NanoUsd(count(parts, place)));
        (0..weights.len())
            .map(|place| Self {
                usage: Usage {
                    input: count(&input, place),
                    cache_read: count(&cache_read, place),
                    cache_write: count(&cache_write, place),
                    cache_write_1h: count(&cache_write_1h, place),
                    output: count(&output, place),
                    reasoning: count(&reasoning, place),
                    source,
                },
                price: self.price,
                cost: Cost { booked: amount(&booked, place), computed: amount(&computed, place), source: cost_source },
                reported: amount(&reported, place),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UsageSource;
    use crate::domain::usage::CostSource;
    use proptest::prelude::*;

    #[test]
    fn what_is_left_goes_to_those_who_lost_most_and_to_the_first_of_equals() {
        for (total, weights, expected) in [
            (10, vec![1, 1, 1], vec![4, 3, 3]),
            (10, vec![1, 2, 3], vec![2, 3, 5]),
            (2, vec![5, 5, 5], vec![1, 1, 0]),
            (7, vec![0, 3, 0], vec![0, 7, 0]),
            (7, vec![0, 0], vec![4, 3]),
            (-10, vec![1, 1, 1], vec![-4, -3, -3]),
            (0, vec![4, 5], vec![0, 0]),
            (5, vec![], vec![]),
            (i64::MAX, vec![u64::MAX, u64::MAX], vec![i64::MAX / 2 + 1, i64::MAX / 2]),
        ] {
            assert_eq!(shares(total, &weights), expected, "{total} by {weights:?}");
        }
    }

    proptest! {
        #[test]
        fn parts_add_up_and_none_is_a_whole_unit_off(
            total in -1_000_000_000_000_i64..1_000_000_000_000,
            weights in prop::collection::vec(0_u64..1_000_000, 1..200),
        ) {
            let parts = shares(total, &weights);
            prop_assert_eq!(parts.iter().sum::<i64>(), total);
            prop_assert_eq!(parts.len(), weights.len());
            let sum: u64 = weights.iter().sum();
            for (part, weight) in parts.iter().zip(&weights).filter(|_| sum > 0) {
                let off = i128::from(*part) * i128::from(sum) - i128::from(total) * i128::from(*weight);
                prop_assert!(off.unsigned_abs() < u128::from(sum), "{part} of {total} for {weight} of {sum}");
            }
            // The heavier one never has less.
            for (one, other) in parts.iter().zip(&weights).zip(parts.iter().zip(&weights).skip(1)) {
                if one.1 > other.1 {
                    prop_assert!(one.0.unsigned_abs() >= other.0.unsigned_abs());
                }
            }
        }

        #[test]
        fn every_figure_of_a_call_is_dealt_out_to_the_last_unit(
            (input, cache_read) in (0_i64..1_000_000, 0_i64..1_000),
            booked in prop::option::of(0_i64..1_000_000_000_000),
            computed in prop::option::of(0_i64..1_000_000_000_000),
            weights in prop::collection::vec(1_u64..10_000, 1..100),
        ) {
            let whole = Amounts {
                usage: Usage { input, cache_read, source: UsageSource::Provider, ..Usage::default() },
                price: Some(Price::plain(20, 0)),
                cost: Cost { booked: booked.map(NanoUsd), computed: computed.map(NanoUsd),
                    source: Some(CostSource::Price) },
                reported: booked.map(NanoUsd),
            };
            let parts = whole.split(&weights);
            let sum = |of: fn(&Amounts) -> Option<NanoUsd>| {
                parts.iter().map(of).try_fold(0, |sum, part| Some(sum + part?.0))
            };
            prop_assert_eq!(parts.len(), weights.len());
            prop_assert_eq!(parts.iter().map(|part| part.usage.input).sum::<i64>(), input);
            prop_assert_eq!(parts.iter().map(|part| part.usage.total_input()).sum::<i64>(), input + cache_read);
            prop_assert_eq!(sum(|part| part.cost.booked), booked);
            prop_assert_eq!(sum(|part| part.cost.computed), computed);
            prop_assert_eq!(sum(|part| part.reported), booked);
            let alike = parts.iter().all(|part| {
                let told = (part.usage.source, part.cost.source, &part.price);
                told == (UsageSource::Provider, whole.cost.source, &whole.price)
            });
            prop_assert!(alike);
        }
    }
}
