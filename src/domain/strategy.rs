//! The order in which a job tries the rungs of its route: the seam at which strategies come in.
//!
//! A strategy is an arm of [`order`]. It is asked anew for each decision, and sees everything that may matter to any
//! strategy in its [`Conditions`]: a request's size, what the job has cost, a number to draw by, and for each rung
//! whether it may be called, how much room it has and how long it takes. A condition that a strategy does not look at
//! need not be found out: [`Strategy::weighs_headroom`].

use super::decide::Condition;
use super::{Job, NanoUsd, Route, Strategy, Typical, estimate};

/// The facts that a strategy sees about one job, or about all jobs of a route together.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// Estimated tokens of the prompt.
    pub input_tokens: i64,
    /// The output cap that the request sets.
    pub max_output_tokens: Option<i64>,
    /// To draw by: always the same for the same job, and spread evenly over jobs. `None`: the order is not for one job
    /// but for all of them, so every rung that some job draws first comes before those that none does.
    pub hash: Option<u64>,
    /// The job's cost so far; `None`: unknown.
    pub spent: Option<NanoUsd>,
    /// The condition of each rung, in listed order.
    pub rungs: &'a [Condition],
}

impl<'a> Conditions<'a> {
    /// The conditions of one job that has cost this much.
    #[must_use]
    pub const fn of_job(job: &Job, spent: Option<NanoUsd>, conditions: &'a [Condition]) -> Self {
        let (input_tokens, max_output_tokens) = (job.input_tokens, job.max_output_tokens);
        Self { input_tokens, max_output_tokens, hash: Some(job.id.hash()), spent, rungs: conditions }
    }

    /// The conditions of all jobs of a route whose jobs are like this.
    #[must_use]
    pub fn of_route(typical: Typical, conditions: &'a [Condition]) -> Self {
        let (input_tokens, max_output_tokens) = (typical.input(), typical.cap());
        Self { input_tokens, max_output_tokens, hash: None, spent: None, rungs: conditions }
    }
}

impl Strategy {
    /// Whether the strategy looks at how much room each rung has, which costs something to find out for each decision.
    #[must_use]
    pub const fn weighs_headroom(self) -> bool {
        match self {
            Self::Cost | Self::Priority => false,
        }
    }
}

/// Puts the route's rungs, as indices in listed order, into `order` as they are to be tried. Its old content goes; its
/// memory is used again.
///
/// Every rung is in it exactly once. Rungs between which the strategy sees no difference keep the listed order. By
/// cost, rungs of unknown price come last: they may be the dearest of all.
pub fn order(route: &Route, seen: &Conditions<'_>, order: &mut Vec<usize>) {
    order.clear();
    order.extend(0..route.rungs.len());
    match route.strategy {
        Strategy::Priority => {}
        Strategy::Cost => {
            let price = |index: usize| route.rungs.get(index).and_then(|rung| rung.model.price.as_ref());
            // The sort is stable, so the listed order decides between equals.
            order.sort_by_key(|&index| {
                let cost =
                    price(index).map(|price| estimate::expected_cost(price, seen.input_tokens, seen.max_output_tokens));
                (cost.is_none(), cost)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decide::RungHealth;
    use super::super::shut::{Reason, Shut};
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

    fn ordered(route: &Route, input_tokens: i64, cap: Option<i64>, conditions: &[Condition]) -> Vec<usize> {
        let id = JobId(1);
        let (ready_at, deadline, max_attempts) = (Timestamp(0), None, None);
        let job = Job { id, ready_at, deadline, max_attempts, input_tokens, max_output_tokens: cap };
        // The old content does not matter.
        let mut into = vec![7, 7];
        order(route, &Conditions::of_job(&job, None, conditions), &mut into);
        into
    }

    #[test]
    fn the_cheapest_for_this_request_comes_first() {
        // The first is cheap for input, the second cheap for output.
        let route = route(Strategy::Cost, &[Some((1_000_000, 9_000_000)), Some((5_000_000, 2_000_000))]);
        assert_eq!(ordered(&route, 100_000, Some(10), &[]), [0, 1]);
        assert_eq!(ordered(&route, 10, Some(100_000), &[]), [1, 0]);
    }

    #[test]
    fn an_unknown_price_comes_last_and_equals_stay_as_listed() {
        let same = Some((1_000_000, 1_000_000));
        let route = route(Strategy::Cost, &[None, same, None, same, Some((0, 0))]);
        assert_eq!(ordered(&route, 10, None, &[]), [4, 1, 3, 0, 2]);
    }

    #[test]
    fn priority_is_the_listed_order_whatever_the_price() {
        let route = route(Strategy::Priority, &[Some((9, 9)), None, Some((1, 1))]);
        assert_eq!(ordered(&route, 10, None, &[]), [0, 1, 2]);
    }

    #[test]
    fn a_route_as_a_whole_is_ordered_as_a_job_of_usual_size() {
        let route = route(Strategy::Cost, &[Some((9_000_000, 9_000_000)), Some((1_000_000, 1_000_000)), None]);
        let mut into = Vec::new();
        order(&route, &Conditions::of_route(Typical::default(), &[]), &mut into);
        assert_eq!(into, [1, 0, 2]);
    }

    #[test]
    fn neither_price_nor_list_depends_on_how_the_rungs_are_now() {
        let shut = Shut { reason: Reason::Breaker, since: Timestamp(0), until: Timestamp(9) };
        let conditions = [
            Condition {
                health: RungHealth::Shut(shut),
                headroom: Some(0),
                latency: Some(Duration::from_mins(1)),
                line: None,
            },
            Condition { health: RungHealth::Open, headroom: Some(9), latency: None, line: None },
        ];
        let prices = [Some((1_000_000, 1_000_000)), Some((2_000_000, 2_000_000))];
        for strategy in [Strategy::Cost, Strategy::Priority] {
            assert_eq!(ordered(&route(strategy, &prices), 10, None, &conditions), [0, 1]);
        }
    }
}
