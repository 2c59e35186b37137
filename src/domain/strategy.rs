//! In which order a job tries the rungs of its route.

use super::{Job, NanoUsd, Route, Strategy, estimate};

/// The route's rungs, as indices in listed order, in the order in which this job tries them.
///
/// Every rung is in it exactly once. Rungs of equal expected cost keep the listed order, and so do those of unknown
/// price, which come last: what nobody knows the price of may be the dearest of all.
#[must_use]
pub fn order(route: &Route, job: &Job) -> Vec<usize> {
    let mut rungs: Vec<(Option<NanoUsd>, usize)> = match route.strategy {
        Strategy::Priority => route.rungs.iter().enumerate().map(|(index, _)| (None, index)).collect(),
        Strategy::Cost => {
            let cost = |price| estimate::expected_cost(price, job);
            route.rungs.iter().enumerate().map(|(index, rung)| (rung.model.price.as_ref().map(cost), index)).collect()
        }
    };
    // The sort is stable, so the listed order decides between equals.
    rungs.sort_by_key(|&(cost, _)| (cost.is_none(), cost));
    rungs.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::price::Price;
    use crate::domain::request::Pass;
    use crate::domain::validation::Rules;
    use crate::domain::{JobId, Model, Patience, Rung, Target, Timestamp};
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn route(strategy: Strategy, prices: &[Option<(i64, i64)>]) -> Route {
        let rung = |price: &Option<(i64, i64)>| Rung {
            target: Target { provider: "p".into(), model: "m".into() },
            model: Model {
                price: price.map(|(input, output)| Price {
                    input,
                    output,
                    cached_input: None,
                    cache_write: None,
                    cache_write_1h: None,
                }),
                ..Model::default()
            },
            total_timeout: Duration::from_mins(1),
        };
        Route {
            name: "r".into(),
            rungs: prices.iter().map(rung).collect(),
            strategy,
            patience: Patience::Forever,
            max_attempts: 6,
            fallback_on: BTreeSet::new(),
            rules: Rules::default(),
            pass: Pass::default(),
        }
    }

    fn job(input_tokens: i64, max_output_tokens: Option<i64>) -> Job {
        let id = JobId(1);
        Job { id, ready_at: Timestamp(0), deadline: None, max_attempts: None, input_tokens, max_output_tokens }
    }

    #[test]
    fn the_cheapest_for_this_request_comes_first() {
        // The first is cheap to read with, the second cheap to write with.
        let route = route(Strategy::Cost, &[Some((1_000_000, 9_000_000)), Some((5_000_000, 2_000_000))]);
        assert_eq!(order(&route, &job(100_000, Some(10))), [0, 1]);
        assert_eq!(order(&route, &job(10, Some(100_000))), [1, 0]);
    }

    #[test]
    fn an_unknown_price_comes_last_and_equals_stay_as_listed() {
        let same = Some((1_000_000, 1_000_000));
        let route = route(Strategy::Cost, &[None, same, None, same, Some((0, 0))]);
        assert_eq!(order(&route, &job(10, None)), [4, 1, 3, 0, 2]);
    }

    #[test]
    fn priority_is_the_listed_order_whatever_the_price() {
        let route = route(Strategy::Priority, &[Some((9, 9)), None, Some((1, 1))]);
        assert_eq!(order(&route, &job(10, None)), [0, 1, 2]);
    }
}
