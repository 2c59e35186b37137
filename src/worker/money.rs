//! What budgets mean for the work at hand: which lanes may be claimed from, how many of their jobs have money, and
//! along which route they go.

use super::plan::{LanePlan, Plan};
use super::{Shared, opener};
use crate::domain::budget::{Budgets, Outlay};
use crate::domain::fork::Taken;
use crate::store::StoreError;
use crate::store::lanes::Lane;

/// The jobs of a lane as budgets see them.
pub(super) fn of_lane(lane: &Lane) -> Outlay<'_> {
    Outlay { login: Some(&lane.login), ..asked(&lane.route, &lane.project, lane.batch.as_deref()) }
}

fn asked<'a>(route: &'a str, project: &'a str, batch: Option<&'a str>) -> Outlay<'a> {
    Outlay { route, project, batch, login: None, provider: None, worst: None }
}

/// The route along which jobs go instead of their own because a budget is past its soft threshold. A name that no route
/// has, of a budget that was set by hand, changes nothing.
pub(super) fn other_route(
    budgets: &Budgets,
    plan: &Plan,
    route: &str,
    project: &str,
    batch: Option<&str>,
) -> Option<Taken> {
    let lane = asked(route, project, batch);
    let (to, budget) = budgets.other_route(&lane).filter(|(to, _)| plan.routes.contains_key(*to))?;
    Some(Taken { route: route.to_owned(), rule: 0, to: to.to_owned(), budget: Some(budget.name.clone()) })
}

/// What jobs of a lane may go along.
pub(super) fn lane(
    budgets: &Budgets,
    plan: &Plan,
    route: &str,
    project: &str,
    batch: Option<&str>,
) -> Option<LanePlan> {
    match other_route(budgets, plan, route, project, batch) {
        Some(taken) => plan.lane(&taken.to, project, batch),
        None => plan.lane(route, project, batch),
    }
}

/// Adds up the budgets, and tells of thresholds that were crossed since a call last asked.
pub(super) async fn tend(shared: &Shared) -> Result<(), StoreError> {
    shared.store.tend_budgets().await?.iter().for_each(opener::log);
    Ok(())
}
