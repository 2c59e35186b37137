//! The orders, and the shares of jobs that they give each rung.

use super::*;
use crate::domain::StickyBy;
use crate::domain::price::{Price, PriceTerms};
use crate::domain::request::Extras;
use crate::domain::shut::{Reason, Shut};
use crate::domain::{JobId, Model, Rung, Target, Timeouts, Timestamp};
use proptest::prelude::{
    Just, ProptestConfig, any, prop, prop_assert, prop_assert_eq, prop_assume, prop_oneof, proptest,
};
use proptest::strategy::Strategy as _;
use std::collections::BTreeSet;
use std::time::Duration;

fn route(strategy: Strategy, prices: &[Option<(i64, i64)>]) -> Route {
    let rung = |price: &Option<(i64, i64)>| Rung {
        target: Target::new("p", "m"),
        model: Model {
            terms: PriceTerms {
                price: price.map(|(input, output)| Price::plain(input, output).into()),
                ..PriceTerms::default()
            },
            ..Model::default()
        },
        timeouts: Timeouts::of(Duration::from_mins(1)),
        stream: false,
    };
    Route {
        strategy,
        max_attempts: 6,
        fallback_on: BTreeSet::new(),
        ..Route::plain("r", prices.iter().map(rung).collect())
    }
}

fn ordered(route: &Route, input_tokens: i64, cap: Option<i64>, conditions: &[Condition]) -> Vec<usize> {
    let id = JobId(1);
    let (ready_at, deadline, max_attempts) = (Timestamp(0), None, None);
    let extras = Extras::default();
    let job = Job { id, ready_at, deadline, max_attempts, input_tokens, max_output_tokens: cap, sticky: None, extras };
    // The old content does not matter.
    let mut into = vec![7, 7];
    order(route, &Conditions::of_job(&job, None, Timestamp(0), conditions), &mut into);
    into
}

#[test]
fn a_rung_is_compared_and_priced_in_the_tier_that_it_asks_for() {
    use crate::domain::Tier;
    use crate::domain::price::{Factor, TierPrice};
    let mut route = route(Strategy::Cost, &[Some((2_000_000, 2_000_000)); 4]);
    let tiers = [("flex", 500_000_000), ("fast", 2_000_000_000)];
    for (rung, tier) in route.rungs.iter_mut().zip([Some("fast"), Some("odd"), None, Some("flex")]) {
        rung.model.terms.tiers = tiers.map(|(name, factor)| (name.to_owned(), TierPrice::Times(Factor(factor)))).into();
        rung.target.tier = tier.map(Tier::new);
    }
    let inputs: Vec<Option<i64>> =
        route.rungs.iter().map(|rung| rung.price_at(Timestamp(0)).map(|price| price.usual.input)).collect();
    assert_eq!(inputs, [Some(4_000_000), None, Some(2_000_000), Some(1_000_000)]);
    assert_eq!(ordered(&route, 1_000, None, &[]), [3, 2, 0, 1]);
    // The tiers of a model draw apart.
    let drawn: BTreeSet<u64> = route.rungs.iter().map(|rung| draw(7, &rung.target)).collect();
    assert_eq!(drawn.len(), 4);
}

#[test]
fn a_rung_is_compared_at_the_price_of_the_hour() {
    use crate::domain::Hours;
    use crate::domain::price::{Factor, OffPeak, TierPrice};
    let mut route = route(Strategy::Cost, &[Some((3_000_000, 3_000_000)), Some((2_000_000, 2_000_000))]);
    let peak = Hours::parse("mon-fri 06:00-10:00").unwrap();
    route.rungs[0].model.terms.off_peak = Some(OffPeak { peak, price: TierPrice::Times(Factor(500_000_000)) });
    let first = |hours: i64| {
        // From Monday, 2026-11-23.
        let now = Timestamp(1_795_392_000_000 + hours * 3_600_000);
        let mut into = Vec::new();
        order(&route, &Conditions::of_route(Typical::default(), None, now, &[]), &mut into);
        into[0]
    };
    assert_eq!([5, 6, 9, 10, 5 * 24 + 7].map(first), [0, 1, 1, 0, 0]);
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
    order(&route, &Conditions::of_route(Typical::default(), None, Timestamp(0), &[]), &mut into);
    assert_eq!(into, [1, 0, 2]);
}

#[test]
fn neither_price_nor_list_depends_on_how_the_rungs_are_now() {
    let shut = Shut { reason: Reason::Breaker, since: Timestamp(0), until: Timestamp(9) };
    let conditions = [
        Condition {
            health: RungHealth::Shut(shut),
            headroom: Some(0),
            free: Some(0),
            latency: Some(Duration::from_mins(1)),
            line: None,
            weakness: None,
        },
        Condition {
            health: RungHealth::Open,
            headroom: Some(9),
            free: None,
            latency: None,
            line: None,
            weakness: None,
        },
    ];
    let prices = [Some((1_000_000, 1_000_000)), Some((2_000_000, 2_000_000))];
    for strategy in [Strategy::Cost, Strategy::Priority] {
        assert_eq!(ordered(&route(strategy, &prices), 10, None, &conditions), [0, 1]);
    }
}

fn target(index: usize) -> Target {
    Target::new("p", format!("m{index}"))
}

/// A route of this many rungs of different names.
fn named(strategy: Strategy, rungs: usize) -> Route {
    let mut route = route(strategy, &vec![None; rungs]);
    for (index, rung) in route.rungs.iter_mut().enumerate() {
        rung.target = target(index);
    }
    route
}

fn weighted(weights: &[f64]) -> Route {
    named(Strategy::Weighted(weights.into()), weights.len())
}

fn job(id: i64) -> Job {
    let (ready_at, deadline, max_attempts) = (Timestamp(0), None, None);
    let (input_tokens, max_output_tokens, sticky) = (10, None, None);
    let extras = Extras::default();
    Job { id: JobId(id), ready_at, deadline, max_attempts, input_tokens, max_output_tokens, sticky, extras }
}

fn order_of(route: &Route, job: &Job, conditions: &[Condition]) -> Vec<usize> {
    let mut into = Vec::new();
    order(route, &Conditions::of_job(job, None, Timestamp(0), conditions), &mut into);
    into
}

fn open(free: i64, latency: Option<u64>) -> Condition {
    let latency = latency.map(Duration::from_millis);
    Condition { health: RungHealth::Open, headroom: None, free: Some(free), latency, line: None, weakness: None }
}

fn shut(millis: u64, condition: Condition) -> Condition {
    let (since, until) = (Timestamp(0), Timestamp(0) + Duration::from_millis(millis));
    Condition { health: RungHealth::Shut(Shut { reason: Reason::RateLimit, since, until }), ..condition }
}

/// How many of these jobs try each rung first.
fn firsts(route: &Route, jobs: impl Iterator<Item = i64>, conditions: &[Condition]) -> Vec<usize> {
    let mut counts = vec![0; route.rungs.len()];
    for id in jobs {
        counts[order_of(route, &job(id), conditions)[0]] += 1;
    }
    counts
}

/// Bernstein's bound: a larger deviation happens less than once in two million draws, also where a rung is drawn so
/// rarely that standard deviations say nothing.
fn is_about(count: usize, of: usize, share: f64) -> bool {
    let (count, of) = (f64::from(u32::try_from(count).unwrap()), f64::from(u32::try_from(of).unwrap()));
    let variance = of * share * (1.0 - share);
    let unlikely = 4e6_f64.ln();
    (count - of * share).abs() <= unlikely / 3.0 + (unlikely * unlikely / 9.0 + 2.0 * unlikely * variance).sqrt()
}

fn weights() -> impl proptest::strategy::Strategy<Value = Vec<f64>> {
    let one = prop_oneof![2 => (1..1_000_u32).prop_map(f64::from), 1 => 1e-3..1.0_f64, 1 => Just(0.0)];
    prop::collection::vec(one, 1..6).prop_filter("one is drawn", |weights| weights.iter().any(|weight| *weight > 0.0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Of any thousands of jobs, each rung is drawn as often as its weight says, and one without weight never.
    #[test]
    fn the_shares_are_those_of_the_weights(weights in weights(), from in any::<i32>()) {
        let (route, jobs) = (weighted(&weights), 8_000);
        let counts = firsts(&route, i64::from(from)..i64::from(from) + 8_000, &[]);
        let sum: f64 = weights.iter().sum();
        let shares = first_choices(&route, None);
        for (index, (count, weight)) in counts.iter().zip(&weights).enumerate() {
            prop_assert!(is_about(*count, jobs, weight / sum), "{index}: {counts:?} of {weights:?}");
            let share = shares.iter().find(|(drawn, _)| *drawn == index).map_or(0.0, |(_, share)| *share);
            prop_assert!((share - weight / sum).abs() < 1e-9, "{shares:?}");
        }
    }

    /// When the drawn rung is out, its jobs spread over the others by their weights.
    #[test]
    fn the_second_choices_are_shared_by_weight_too(weights in weights()) {
        prop_assume!(weights.iter().filter(|weight| **weight > 0.0).count() > 1);
        let route = weighted(&weights);
        let first = weights.iter().position(|weight| *weight > 0.0).unwrap();
        let orders = (0..40_000).map(|id| order_of(&route, &job(id), &[]));
        let orders: Vec<_> = orders.filter(|it| it[0] == first).collect();
        let rest: f64 = weights.iter().enumerate().filter(|(index, _)| *index != first).map(|(_, weight)| weight).sum();
        for (index, weight) in weights.iter().enumerate().filter(|(index, _)| *index != first) {
            let count = orders.iter().filter(|order| order[1] == index).count();
            prop_assert!(is_about(count, orders.len(), weight / rest), "{index}: {count} of {}", orders.len());
        }
    }

    /// A job's order is always the same; a rung that comes or goes changes nothing among the others.
    #[test]
    fn a_draw_is_stable(weights in weights(), id in any::<i64>()) {
        let route = weighted(&weights);
        let before = order_of(&route, &job(id), &[]);
        prop_assert_eq!(&before, &order_of(&route, &job(id), &vec![shut(9, open(0, None)); weights.len()]));
        let fewer = weighted(&weights[..weights.len() - 1]);
        let left: Vec<usize> = before.into_iter().filter(|index| *index < fewer.rungs.len()).collect();
        prop_assert_eq!(order_of(&fewer, &job(id), &[]), left);
    }

    /// Each order has every rung once, for any weights and conditions.
    #[test]
    fn every_rung_is_in_the_order_once(
        rungs in 1..6_usize,
        conditions in prop::collection::vec((any::<i64>(), prop::option::of(any::<u64>()), 0..9_u64), 0..7),
        (id, sticky, is_job) in (any::<i64>(), prop::option::of(any::<u64>()), any::<bool>()),
        weights in prop::collection::vec(any::<f64>(), 0..7),
    ) {
        let conditions: Vec<Condition> = conditions
            .into_iter()
            .map(|(free, latency, wait)| if wait == 0 { open(free, latency) } else { shut(wait, open(free, latency)) })
            .collect();
        let strategies = [
            Strategy::Cost, Strategy::Priority, Strategy::Weighted(weights.into()), Strategy::Balanced,
            Strategy::Fastest, Strategy::Sticky(StickyBy::Project),
        ];
        for strategy in strategies {
            let route = named(strategy, rungs);
            let mut into = Vec::new();
            let job = Job { sticky, ..job(id) };
            let of_job = Conditions::of_job(&job, None, Timestamp(0), &conditions);
            let of_route = Conditions::of_route(Typical::default(), sticky, Timestamp(0), &conditions);
            order(&route, if is_job { &of_job } else { &of_route }, &mut into);
            into.sort_unstable();
            prop_assert_eq!(into, (0..rungs).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_rung_of_weight_zero_is_only_a_fallback() {
    let route = weighted(&[0.0, 1.0, 0.0, 3.0]);
    for id in 0..200 {
        let order = order_of(&route, &job(id), &[]);
        assert_eq!(order[2..], [0, 2], "those without weight come last, as listed");
    }
    // For all jobs together, every rung that some job draws comes before those that none does.
    let mut into = Vec::new();
    order(&route, &Conditions::of_route(Typical::default(), None, Timestamp(0), &[]), &mut into);
    assert_eq!(into, [1, 3, 0, 2]);
}

#[test]
fn balanced_takes_the_rung_with_the_most_room_and_none_that_is_shut_while_another_is_open() {
    let route = named(Strategy::Balanced, 3);
    let ask = |conditions: [Condition; 3]| order_of(&route, &job(1), &conditions);
    assert_eq!(ask([open(100, None), open(900, None), open(-5, None)]), [1, 0, 2]);
    assert_eq!(ask([shut(50, open(999, None)), open(-900, None), shut(20, open(0, None))]), [1, 2, 0]);
    let never = Condition::from(RungHealth::Ineligible(super::super::decide::Ineligible::Unsupported("it".into())));
    assert_eq!(ask([never, shut(90_000, open(0, None)), open(1, None)]), [2, 1, 0]);
    // Rungs with equal room share the jobs.
    let counts = firsts(&route, 0..9_000, &[open(5, None), open(5, None), open(5, None)]);
    assert!(counts.iter().all(|count| is_about(*count, 9_000, 1.0 / 3.0)), "{counts:?}");
}

#[test]
fn fastest_takes_the_rung_that_has_answered_soonest_and_an_unknown_one_before_it() {
    let route = named(Strategy::Fastest, 3);
    let id = (0..10_000).find(|id| !Strategy::Fastest.explores(JobId(*id).hash())).unwrap();
    let ask = |conditions: [Condition; 3]| order_of(&route, &job(id), &conditions);
    assert_eq!(ask([open(0, Some(900)), open(0, Some(300)), open(0, Some(500))]), [1, 2, 0]);
    assert_eq!(ask([open(0, Some(900)), open(0, Some(300)), open(0, None)]), [2, 1, 0]);
    // A shut rung answers later by its wait: it is still the fastest, or it is not.
    assert_eq!(ask([open(0, Some(900)), shut(500, open(0, Some(300))), open(0, Some(950))]), [1, 0, 2]);
    assert_eq!(ask([open(0, Some(900)), shut(700, open(0, Some(300))), open(0, Some(950))]), [0, 2, 1]);
    assert_eq!(ask([open(0, Some(900)), shut(99_000, open(0, None)), open(0, Some(950))]), [0, 2, 1]);
}

#[test]
fn fastest_sends_a_few_jobs_to_each_other_open_rung_so_that_one_that_has_become_fast_is_noticed() {
    let route = named(Strategy::Fastest, 4);
    let conditions = [open(0, Some(900)), open(0, Some(300)), shut(5_000, open(0, Some(100))), open(0, Some(500))];
    let counts = firsts(&route, 0..16_000, &conditions);
    for explored in [0, 3] {
        assert!(is_about(counts[explored], 16_000, 1.0 / 32.0), "{counts:?}");
    }
    assert_eq!(counts[2], 0, "none is sent where it would have to wait");
    let exploring = |id: &i64| Strategy::Fastest.explores(JobId(*id).hash());
    let id = (0..10_000).find(exploring).unwrap();
    assert_eq!(order_of(&route, &job(id), &conditions), order_of(&route, &job(id), &conditions));
}

#[test]
fn jobs_of_one_key_have_one_order_and_keys_are_spread_evenly() {
    let route = named(Strategy::Sticky(StickyBy::Batch), 4);
    let of_key = |id: i64, key: &str| order_of(&route, &Job { sticky: Some(hash_of(key)), ..job(id) }, &[]);
    let mut counts = [0; 4];
    for key in 0..8_000 {
        let key = format!("acme\0batch {key}");
        let order = of_key(1, &key);
        assert_eq!(order, of_key(77, &key));
        counts[order[0]] += 1;
    }
    assert!(counts.iter().all(|count| is_about(*count, 8_000, 0.25)), "{counts:?}");
    // Jobs without a key are spread too, …
    assert!(firsts(&route, 0..8_000, &[]).iter().all(|count| is_about(*count, 8_000, 0.25)));
    // … and when a rung leaves the route, only its own keys move.
    let fewer = named(Strategy::Sticky(StickyBy::Batch), 3);
    for key in 0..500 {
        let job = Job { sticky: Some(hash_of(&key.to_string())), ..job(1) };
        let (before, after) = (order_of(&route, &job, &[])[0], order_of(&fewer, &job, &[])[0]);
        assert!(before == after || before == 3);
    }
}

#[test]
fn only_draws_make_first_choices_differ_from_job_to_job() {
    for strategy in [Strategy::Cost, Strategy::Priority, Strategy::Balanced, Strategy::Fastest] {
        assert_eq!(first_choices(&named(strategy, 3), None), []);
    }
    let sticky = named(Strategy::Sticky(StickyBy::Project), 2);
    assert_eq!(first_choices(&sticky, None), [(0, 0.5), (1, 0.5)]);
    assert_eq!(first_choices(&sticky, Some(7)), []);
    assert_eq!(first_choices(&weighted(&[f64::MAX, f64::MAX, 0.0]), None), [(0, 0.5), (1, 0.5)]);
}
