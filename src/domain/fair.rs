//! Who may claim next: fairness between projects, and between the batches of a project.

use std::collections::HashMap;

/// A stretch of the queue that could be claimed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Whose money.
    pub project: String,
    /// Route, project and batch: jobs of one flow keep their order.
    pub flow: i64,
    /// Index into the budgets.
    pub route: usize,
}

/// Deals out claims in turns and remembers whose turn it is.
///
/// Projects take turns; within a project its flows take turns. So a project with a million jobs and one with ten get
/// the same share until the ten are done, and a route that may not start anything takes nothing from the others.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    last_project: Option<String>,
    last_flow: HashMap<String, i64>,
}

impl Turns {
    /// Deals at most `slots` claims over `demands`, of each route at most its budget. The result has one number per
    /// demand, in order. Demands of one flow should not be given twice.
    pub fn deal(&mut self, slots: usize, demands: &[Demand], budgets: &[usize]) -> Vec<usize> {
        let mut dealt = vec![0; demands.len()];
        let mut left: Vec<usize> = budgets.to_vec();
        let mut projects: Vec<(&str, Vec<usize>)> = Vec::new();
        for (index, demand) in demands.iter().enumerate() {
            match projects.iter_mut().find(|(name, _)| *name == demand.project) {
                Some((_, members)) => members.push(index),
                None => projects.push((&demand.project, vec![index])),
            }
        }
        projects.sort_by(|a, b| a.0.cmp(b.0));
        // Begin after whoever was last served.
        if let Some(last) = &self.last_project {
            let start = projects.iter().position(|(name, _)| *name > last.as_str()).unwrap_or(0);
            projects.rotate_left(start);
        }
        for (name, members) in &mut projects {
            members.sort_by_key(|&index| demands.get(index).map_or(0, |demand| demand.flow));
            if let Some(last) = self.last_flow.get(*name) {
                let flow_of = |&index: &usize| demands.get(index).map_or(0, |demand| demand.flow);
                let start = members.iter().position(|index| flow_of(index) > *last).unwrap_or(0);
                members.rotate_left(start);
            }
        }
        let mut slots = slots;
        let mut turn = 0;
        while slots > 0 && !projects.is_empty() {
            turn %= projects.len();
            let Some((name, members)) = projects.get_mut(turn) else { break };
            // The first flow of the project that may still start something; those before it are out for this deal.
            members.retain(|&index| {
                demands.get(index).and_then(|demand| left.get(demand.route)).is_some_and(|&budget| budget > 0)
            });
            let Some(&index) = members.first() else {
                projects.remove(turn);
                continue;
            };
            if let (Some(demand), Some(count)) = (demands.get(index), dealt.get_mut(index)) {
                *count += 1;
                if let Some(budget) = left.get_mut(demand.route) {
                    *budget -= 1;
                }
                self.last_project = Some((*name).to_owned());
                self.last_flow.insert((*name).to_owned(), demand.flow);
            }
            members.rotate_left(1);
            slots -= 1;
            turn += 1;
        }
        if self.last_flow.len() > 10_000 {
            self.last_flow.clear();
        }
        dealt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn demand(project: &str, flow: i64, route: usize) -> Demand {
        Demand { project: project.to_owned(), flow, route }
    }

    #[test]
    fn a_project_with_many_batches_gets_no_more_than_one_with_few() {
        let demands = [demand("a", 1, 0), demand("a", 2, 0), demand("a", 3, 0), demand("b", 4, 0)];
        assert_eq!(Turns::default().deal(12, &demands, &[100]), [2, 2, 2, 6]);
    }

    #[test]
    fn a_route_without_budget_leaves_its_share_to_others() {
        let demands = [demand("a", 1, 0), demand("b", 2, 1)];
        assert_eq!(Turns::default().deal(10, &demands, &[0, 100]), [0, 10]);
    }

    #[test]
    fn turns_go_on_where_they_stopped() {
        let demands = [demand("a", 1, 0), demand("b", 2, 0), demand("c", 3, 0)];
        let mut turns = Turns::default();
        let mut total = [0; 3];
        for _ in 0..9 {
            for (sum, dealt) in total.iter_mut().zip(turns.deal(1, &demands, &[100])) {
                *sum += dealt;
            }
        }
        assert_eq!(total, [3, 3, 3]);
    }

    proptest! {
        #[test]
        fn nothing_is_dealt_beyond_slots_or_budgets_and_nothing_is_left_that_could_be_dealt(
            slots in 0_usize..300,
            budgets in prop::collection::vec(0_usize..100, 1..4),
            flows in prop::collection::vec((0_u8..4, 0_usize..4), 0..20),
        ) {
            let demands: Vec<Demand> = flows
                .iter()
                .enumerate()
                .map(|(flow, (project, route))| {
                    demand(&project.to_string(), i64::try_from(flow).unwrap(), route % budgets.len())
                })
                .collect();
            let dealt = Turns::default().deal(slots, &demands, &budgets);
            let mut used = vec![0; budgets.len()];
            for (demand, count) in demands.iter().zip(&dealt) {
                used[demand.route] += count;
            }
            let total: usize = dealt.iter().sum();
            prop_assert!(total <= slots);
            for (used, budget) in used.iter().zip(&budgets) {
                prop_assert!(used <= budget);
            }
            let possible: usize = (0..budgets.len())
                .filter(|route| demands.iter().any(|demand| demand.route == *route))
                .map(|route| budgets[route])
                .sum();
            prop_assert_eq!(total, slots.min(possible));
        }
    }
}
