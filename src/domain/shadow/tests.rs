use super::*;
use crate::domain::budget::{Budgets, Outlay};
use crate::domain::decide::Worth;
use crate::domain::shut::Shut;
use crate::domain::{Cache, Model, Timeouts, Timestamp};

fn rung(model: &str) -> Rung {
    Rung {
        target: Target::new("p", model),
        model: Model::default(),
        timeouts: Timeouts::of(Duration::from_secs(1)),
        stream: false,
    }
}

fn shadow(name: &str, millionths: u32) -> Shadow {
    let route = Route {
        strategy: Strategy::Cost,
        max_attempts: 6,
        reask: true,
        cache: Some(Cache { max_age: Duration::from_secs(1) }),
        max_cost: Some(NanoUsd(1)),
        ..Route::plain(name, vec![rung("a"), rung("b")])
    };
    Shadow::of(&route, rung("c"), MaxFailed::of_millionths(millionths).unwrap(), NanoUsd(7))
}

#[test]
fn a_shadow_makes_one_call_of_its_target_and_has_no_shadow_itself() {
    let shadow = shadow("r", 50_000);
    let route = &shadow.route;
    assert_eq!((route.name.as_str(), shadowed(&route.name)), ("shadow:r", Some("r")));
    assert_eq!(shadow.target().map(ToString::to_string).as_deref(), Some("p/c"));
    assert_eq!((route.rungs.len(), route.max_attempts, route.reask), (1, 1, false));
    assert!(route.max_cost.is_none(), "it has a limit of its own");
    assert!(route.cache.is_none() && route.cascade.is_none() && route.forks.is_empty() && route.shadow.is_none());
    assert_eq!(shadowed("r"), None);
}

#[test]
fn the_share_that_is_drawn_is_about_the_one_that_is_asked_for() {
    const JOBS: i64 = 100_000;
    for (millionths, least, most) in
        [(1_000_000, JOBS, JOBS), (500_000, 49_400, 50_600), (50_000, 4_700, 5_300), (1_000, 60, 140), (0, 0, 0)]
    {
        let shadow = shadow("r", millionths);
        let drawn = (1..=JOBS).filter(|job| shadow.is_drawn(JobId(*job))).count();
        let drawn = i64::try_from(drawn).unwrap();
        assert!((least..=most).contains(&drawn), "{millionths}: {drawn}");
    }
}

#[test]
fn the_same_job_is_always_drawn_a_larger_share_keeps_it_and_routes_draw_apart() {
    let (few, many, of_another) = (shadow("r", 50_000), shadow("r", 100_000), shadow("s", 50_000));
    let drawn = |shadow: &Shadow| (1..20_000).filter(|job| shadow.is_drawn(JobId(*job))).collect::<Vec<i64>>();
    assert_eq!(drawn(&few), drawn(&few.clone()));
    let (few, many, of_another) = (drawn(&few), drawn(&many), drawn(&of_another));
    assert!(few.iter().all(|job| many.contains(job)));
    let both = few.iter().filter(|job| of_another.contains(job)).count();
    assert!(both < few.len() / 5, "{both} of {}", few.len());
}

#[test]
fn shadows_are_made_only_where_limits_alone_are_waited_for() {
    let later = |reason| {
        let shut = Shut { reason, since: Timestamp(0), until: Timestamp(9) };
        Startable::Later {
            until: Timestamp(9),
            rung: 0,
            why: Skip::Shut { shut, worth: Worth::NoFallback },
            is_moment: false,
        }
    };
    for reason in Reason::ALL {
        let is_limit = matches!(reason, Reason::RateLimit | Reason::Concurrency);
        assert_eq!(may_be_asked(&later(*reason)), is_limit, "{reason:?}");
    }
    assert!(may_be_asked(&Startable::Now(1)) && !may_be_asked(&Startable::ToEnd));
}

#[test]
fn its_budget_covers_its_route_alone_and_another_one_past_its_threshold_leads_it_nowhere() {
    let shadow = shadow("r", 50_000);
    let budget = shadow.budget();
    let outlay = |route| Outlay { route, project: "p", batch: None, login: None, provider: None, worst: None };
    assert_eq!((budget.name.as_str(), budget.limit, budget.period), ("shadow:r", NanoUsd(7), Period::Day));
    assert!(budget.scope.covers(&outlay("shadow:r")) && !budget.scope.covers(&outlay("r")));
    let soft = Budget {
        name: "all".to_owned(),
        scope: Coverage::Total,
        soft: Some(500_000),
        then_route: Some("cheap".to_owned()),
        ..budget
    };
    let standing = crate::domain::budget::BudgetStanding {
        budget: soft,
        ends_at: None,
        spent: NanoUsd(6),
        uncertain: NanoUsd::ZERO,
        reserved: NanoUsd::ZERO,
        least: None,
        least_is_old: false,
    };
    let budgets = Budgets(vec![standing]);
    assert!(budgets.other_route(&outlay("r")).is_some());
    assert!(budgets.other_route(&outlay("shadow:r")).is_none());
}
