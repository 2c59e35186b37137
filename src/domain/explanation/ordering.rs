//! The order in which a job tried its rungs, as the ledger keeps it.

use crate::domain::estimate::expected_cost;
use crate::domain::strategy::Conditions;
use crate::domain::{Route, Strategy, readable};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The order in which a job tried the rungs of its route, and what it was made by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ordering {
    /// The name of the strategy.
    #[serde(deserialize_with = "readable::or_default")]
    pub by: Cow<'static, str>,
    /// The rungs, the first choice first.
    #[serde(deserialize_with = "readable::items")]
    pub rungs: Vec<OrderedRung>,
    /// The kind of key by which the job stuck to its rung; `None`: the job has none, or the strategy asks for none.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub sticks_by: Option<String>,
    /// The first rung was not the fastest, but one whose speed the job was to find out.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "std::ops::Not::not")]
    pub explores: bool,
}

/// A rung in its place, with the figure that gave it its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderedRung {
    #[serde(deserialize_with = "readable::or_default")]
    pub target: String,
    /// Its weight.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// How much of its tightest limit was free, in per cent; negative where calls waited already.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub free_percent: Option<i64>,
    /// How long an answer was expected to take.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// What a call was expected to cost, in billionths of a dollar.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub expected_nanos: Option<i64>,
}

impl Ordering {
    /// The order that the job of these conditions has along the rungs of a route.
    #[must_use]
    pub fn of(route: &Route, seen: &Conditions<'_>, order: &[usize]) -> Self {
        let rungs = order.iter().filter_map(|&index| {
            Some(OrderedRung { target: route.rungs.get(index)?.target.to_string(), ..figure(route, index, seen) })
        });
        let latency = |index: &usize| seen.rungs.get(*index).and_then(|condition| condition.latency);
        let first = order.first().and_then(latency);
        let is_fastest = order.iter().skip(1).filter_map(latency).all(|other| first.is_none_or(|first| first <= other));
        Self {
            by: route.strategy.as_str().into(),
            rungs: rungs.collect(),
            sticks_by: match &route.strategy {
                Strategy::Sticky(by) if seen.sticky.is_some() => Some(by.to_string()),
                _ => None,
            },
            explores: seen.hash.is_some_and(|hash| route.strategy.explores(hash)) && !is_fastest,
        }
    }
}

/// The figure by which the strategy has placed a rung.
fn figure(route: &Route, index: usize, seen: &Conditions<'_>) -> OrderedRung {
    let condition = seen.rungs.get(index);
    let mut rung = OrderedRung::default();
    match &route.strategy {
        Strategy::Weighted(weights) => rung.weight = weights.get(index).copied(),
        Strategy::Balanced => {
            rung.free_percent = condition.and_then(|condition| condition.free).map(|free| free.div_euclid(10_000));
        }
        Strategy::Fastest => {
            let latency = condition.and_then(|condition| condition.latency);
            rung.expected_ms = latency.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        }
        Strategy::Cost | Strategy::Race(_) => {
            let price = route.rungs.get(index).and_then(|rung| rung.price_at(seen.now));
            let cost = price.map(|price| expected_cost(&price, seen.input_tokens, seen.max_output_tokens));
            rung.expected_nanos = cost.map(|cost| cost.0);
        }
        Strategy::Priority | Strategy::Sticky(_) => {}
    }
    rung
}
