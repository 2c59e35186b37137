//! What budgets mean for the work at hand: which lanes may be claimed from, how many of their jobs have money, and
//! along which route they go.

use super::plan::{LanePlan, Plan};
use super::{Shared, opener};
use crate::domain::budget::{Budget, Budgets, Coverage, Outlay, faults};
use crate::domain::fork::Taken;
use crate::store::StoreError;
use crate::store::lanes::Lane;
use std::collections::HashSet;
use std::sync::Arc;

/// The jobs of a lane as budgets see them.
pub(super) fn of_lane(lane: &Lane) -> Outlay<'_> {
    lane.outlay()
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

/// Tells the faults of budgets by the plan: those that were set by SQL name any route, and may contradict.
#[derive(Default)]
pub(super) struct Faults {
    /// The budgets judged last, …
    budgets: Vec<Budget>,
    plan: Option<Arc<Plan>>,
    /// … and the faults told of them.
    told: HashSet<String>,
}

impl Faults {
    /// Logs the new faults.
    pub fn look(&mut self, budgets: &Budgets, plan: &Arc<Plan>) {
        let is_known = self.plan.as_ref().is_some_and(|known| Arc::ptr_eq(known, plan))
            && self.budgets.iter().eq(budgets.0.iter().map(|standing| &standing.budget));
        if is_known {
            return;
        }
        self.plan = Some(Arc::clone(plan));
        self.budgets = budgets.0.iter().map(|standing| standing.budget.clone()).collect();
        // A budget may be for a route or a provider that other workers have.
        let is_of_others = |name: &str| self.budgets.iter().any(|it| it.scope == Coverage::Route(name.to_owned()));
        let has_route = |name: &str| plan.routes.contains_key(name) || is_of_others(name);
        let mut told = HashSet::new();
        for (index, fault) in faults(&self.budgets, has_route, |_| true) {
            let Some(budget) = self.budgets.get(index).map(|budget| budget.name.as_str()) else { continue };
            let said = format!("{budget} {fault}");
            if !self.told.contains(&said) {
                tracing::warn!(budget, "a budget does less than it seems to: it {fault}");
            }
            told.insert(said);
        }
        self.told = told;
    }
}

/// Adds up the budgets, and tells of thresholds that were crossed since a call last asked.
pub(super) async fn tend(shared: &Shared) -> Result<(), StoreError> {
    shared.store.tend_budgets().await?.iter().for_each(opener::log);
    Ok(())
}
