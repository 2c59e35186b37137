//! The choice of the lanes that the next claim takes from.

use super::front::{Front, LaneKey, LaneState};
use super::money;
use super::plan::{LanePlan, Plan};
use crate::domain::budget::Budgets;
use crate::domain::decide::Startable;
use crate::domain::fair::{Demand, Sorted, Turns};
use crate::domain::{Timestamp, shadow};
use crate::store::claim::Take;
use crate::store::lanes::Lane;
use chrono::{DateTime, Utc};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// This many lanes of a route that has to wait are examined for their deadlines, the nearest first.
const MOST_HURRIED: usize = 50;

/// Deals out claims over the lanes of the front.
///
/// Where there are many lanes, sorting them costs as much as a claim. So their order is kept from one claim to the
/// next, until a look has found other lanes or the plan has changed.
#[derive(Default)]
pub(super) struct Dealing {
    turns: Turns,
    kept: Option<Order>,
    /// Where budgets stood at the last look: past a soft threshold jobs may go along other routes.
    pub budgets: Arc<Budgets>,
}

/// The lanes in the order of their turns.
struct Order {
    /// The plan by which they were grouped.
    plan: Arc<Plan>,
    lanes: Vec<LaneKey>,
    /// For each group of lanes whose jobs go along the same routes, one of them.
    groups: Vec<LanePlan>,
    sorted: Sorted,
    /// For some lanes it was examined whether their jobs may start in spite of their route. That holds for one claim.
    has_hurried: bool,
    /// The lanes of shadows, which come after all others, and their places in `lanes`; `None`: there are none.
    shadows: Option<(Sorted, Vec<usize>)>,
}

/// A lane that may be given jobs.
struct Candidate<'a> {
    key: LaneKey,
    state: &'a LaneState,
    /// The group of lanes whose number of jobs it counts towards; behind the groups, a number of its own.
    group: usize,
}

/// How many jobs of each group may be started, and when the earliest of those opens that may start none.
struct StartableGroups {
    jobs: Vec<usize>,
    /// Whether jobs of the group would start now if the limits of a provider had room for them.
    want: Vec<bool>,
    opens: Option<Timestamp>,
}

impl StartableGroups {
    fn of(groups: &[LanePlan], now: Timestamp) -> Self {
        let groups: Vec<_> = groups.iter().map(|group| group.startable(None, now)).collect();
        Self {
            jobs: groups.iter().map(Startable::jobs).collect(),
            want: groups.iter().map(shadow::may_be_asked).collect(),
            opens: groups.iter().filter_map(Startable::opens).min(),
        }
    }
}

impl Dealing {
    /// Whose turn it is.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Forgets the order: other lanes may have jobs than those that were sorted, or jobs that were dealt were not
    /// claimed.
    pub fn begin_anew(&mut self) {
        self.kept = None;
    }

    /// How many jobs to take from which lane, `most` together, of them `most_shadows` shadows, and when the earliest
    /// shut gate opens.
    pub fn choose(
        &mut self,
        front: &Front,
        plan: &Arc<Plan>,
        (most, most_shadows): (usize, usize),
        now: Timestamp,
    ) -> (Vec<Take>, Option<Timestamp>) {
        let kept = self.kept.take().filter(|order| Arc::ptr_eq(&order.plan, plan));
        if let Some(order) = kept {
            let startable = StartableGroups::of(&order.groups, now);
            let (takes, opens) = self.deal(order, front, &startable, (most, most_shadows));
            if !takes.is_empty() {
                return (takes, opens);
            }
        }
        let (order, startable) = self.sort(front, plan, now);
        self.deal(order, front, &startable, (most, most_shadows))
    }

    /// Deals, and keeps the order for the next claim if it will still hold then.
    fn deal(
        &mut self,
        mut order: Order,
        front: &Front,
        startable: &StartableGroups,
        (most, most_shadows): (usize, usize),
    ) -> (Vec<Take>, Option<Timestamp>) {
        let state = |index: usize| order.lanes.get(index).and_then(|key| front.get(*key));
        let jobs = |index: usize| state(index).map_or(Some(0), LaneState::jobs);
        let mut dealt = self.turns.deal_on(&mut order.sorted, most, &startable.jobs, jobs);
        dealt.resize(order.lanes.len(), 0);
        let left = most.saturating_sub(dealt.iter().sum()).min(most_shadows);
        if let Some((sorted, places)) = order.shadows.as_mut().filter(|_| left > 0) {
            let jobs = |index: usize| places.get(index).map_or(Some(0), |place| jobs(*place));
            let of_shadows = self.turns.deal_on(sorted, left, &startable.jobs, jobs);
            for (place, count) in places.iter().zip(of_shadows) {
                if let Some(dealt) = dealt.get_mut(*place) {
                    *dealt = count;
                }
            }
        }
        let takes: Vec<Take> = (order.lanes.iter().zip(&dealt))
            .filter(|(_, count)| **count > 0)
            .filter_map(|(key, count)| {
                let after = front.get(*key)?.after;
                Some(Take { flow: key.0, prio: key.1, after, count: i32::try_from(*count).unwrap_or(i32::MAX) })
            })
            .collect();
        let is_full = dealt.iter().sum::<usize>() == most;
        let holds = |order: &Order| order.sorted.goes_on() && !order.has_hurried && order.shadows.is_none();
        self.kept = Some(order).filter(|order| is_full && holds(order));
        (takes, startable.opens)
    }

    /// The lanes that have jobs, in the order of their turns, and how many may be started.
    fn sort(&mut self, front: &Front, plan: &Arc<Plan>, now: Timestamp) -> (Order, StartableGroups) {
        let budgets = Arc::clone(&self.budgets);
        let of_lane = |lane: &Lane| money::lane(&budgets, plan, &lane.route, &lane.project, lane.batch.as_deref());
        // Of a sticky route those go together that have the same first rung.
        let mut known: HashMap<Vec<(String, Option<usize>)>, usize> = HashMap::new();
        let mut groups: Vec<LanePlan> = Vec::new();
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        for (key, state) in front.heads() {
            let Some(ahead) = of_lane(&state.lane) else { continue };
            let name: Vec<_> = ahead.key().into_iter().map(|(route, first)| (route.to_owned(), first)).collect();
            let group = *known.entry(name).or_insert(groups.len());
            if group == groups.len() {
                groups.push(ahead);
            }
            candidates.push(Candidate { key, state, group });
        }
        let mut startable = StartableGroups::of(&groups, now);
        let mut hurried: Vec<(DateTime<Utc>, usize)> = Vec::new();
        for (index, Candidate { state, group, .. }) in candidates.iter().enumerate() {
            if startable.jobs.get(*group) == Some(&0)
                && let Some(deadline) = state.lane.deadline
            {
                hurried.push((deadline, index));
            }
        }
        hurried.sort_unstable();
        for (deadline, index) in hurried.iter().take(MOST_HURRIED) {
            let Some(candidate) = candidates.get_mut(*index) else { continue };
            let ahead = of_lane(&candidate.state.lane);
            let deadline = Timestamp(deadline.timestamp_millis());
            let jobs = ahead.map_or(0, |ahead| ahead.startable(Some(deadline), now).jobs());
            if jobs > 0 {
                candidate.group = startable.jobs.len();
                startable.jobs.push(jobs);
                startable.want.push(true);
            }
        }
        // Those of shadows behind the others, so that the others have the first places.
        let (mut candidates, shadows): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|candidate| shadow::shadowed(&candidate.state.lane.route).is_none());
        let sorted = self.turns.sort(&demands(&candidates));
        let waiting = candidates.len()..;
        let shadows = shadows_apart(&candidates, shadows, &groups, &startable, plan);
        let of_shadows = (!shadows.is_empty()).then(|| {
            let sorted = self.turns.sort(&demands(&shadows));
            (sorted, waiting.take(shadows.len()).collect())
        });
        candidates.extend(shadows);
        let lanes = candidates.iter().map(|candidate| candidate.key).collect();
        let has_hurried = !hurried.is_empty();
        let order = Order { plan: Arc::clone(plan), lanes, groups, sorted, has_hurried, shadows: of_shadows };
        (order, startable)
    }
}

fn demands<'a>(candidates: &[Candidate<'a>]) -> Vec<Demand<'a>> {
    candidates.iter().map(|candidate| candidate.state.demand(candidate.group)).collect()
}

/// The lanes of shadows whose provider no job in hand waits for, and no other lane takes a job to now, or would if its
/// limits had room: real jobs have them first.
fn shadows_apart<'a>(
    others: &[Candidate<'_>],
    shadows: Vec<Candidate<'a>>,
    groups: &[LanePlan],
    startable: &StartableGroups,
    plan: &Plan,
) -> Vec<Candidate<'a>> {
    if shadows.is_empty() {
        return shadows;
    }
    let wants = |candidate: &&Candidate<'_>| startable.want.get(candidate.group).is_some_and(|wants| *wants);
    let wanting: BTreeSet<usize> = others.iter().filter(wants).map(|candidate| candidate.group).collect();
    let mut wanted = plan.waiting_in_hand();
    wanted.extend(wanting.iter().filter_map(|group| groups.get(*group)).flat_map(LanePlan::providers));
    let is_apart = |candidate: &Candidate<'_>| {
        groups.get(candidate.group).is_none_or(|group| group.providers().all(|provider| !wanted.contains(provider)))
    };
    shadows.into_iter().filter(is_apart).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the front is told what time it is, and the tests tell it")]
mod tests {
    use super::super::front::tests::lane;
    use super::super::plan::Blueprint;
    use super::*;
    use crate::domain::{Patience, Route};
    use crate::store::claim::Claim;
    use crate::store::lanes::Look;
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    const NOW: Timestamp = Timestamp(0);

    /// A plan of one route whose jobs may always start: to be told that it has no rung.
    fn plan() -> Arc<Plan> {
        let route = Route { patience: Patience::For(Duration::ZERO), ..Route::plain("r", Vec::new()) };
        let shadow = Route { name: shadow::route_name("r"), ..route.clone() };
        let routes = vec![Arc::new(route), Arc::new(shadow)];
        let blueprint = Blueprint { buckets: BTreeMap::new(), providers: BTreeMap::new(), routes, traces: false };
        Arc::new(Plan::new(&blueprint).unwrap())
    }

    /// A front with a hundred lanes of one job each.
    fn front() -> Front {
        let lanes = (0..100).map(|flow| lane(flow, flow, Some(1)));
        let mut front = Front::default();
        let look = Look { lanes: lanes.collect(), newest: Vec::new(), is_all: false };
        front.absorb(look, |_| true, tokio::time::Instant::now());
        front
    }

    fn flows(takes: &[Take]) -> BTreeSet<i64> {
        takes.iter().map(|take| take.flow).collect()
    }

    #[tokio::test]
    async fn lanes_that_were_sorted_once_serve_several_claims() {
        let (plan, mut front, mut dealing) = (plan(), front(), Dealing::default());
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let (takes, _) = dealing.choose(&front, &plan, (30, 0), NOW);
            assert!(dealing.kept.is_some());
            assert_eq!((takes.len(), flows(&takes).is_disjoint(&seen)), (30, true));
            seen.extend(flows(&takes));
            // Another worker was faster.
            front.remember(&takes, &Claim { jobs: Vec::new(), is_cut: false });
        }
        let (takes, _) = dealing.choose(&front, &plan, (30, 0), NOW);
        assert_eq!(takes.len(), 10, "the last ones");
        assert!(dealing.kept.is_none(), "another look may have found more");
        front.remember(&takes, &Claim { jobs: Vec::new(), is_cut: false });
        assert!(dealing.choose(&front, &plan, (30, 0), NOW).0.is_empty());
    }

    #[tokio::test]
    async fn what_was_dealt_and_not_claimed_is_dealt_again() {
        let (plan, front, mut dealing) = (plan(), front(), Dealing::default());
        let (first, _) = dealing.choose(&front, &plan, (60, 0), NOW);
        dealing.begin_anew();
        let (second, _) = dealing.choose(&front, &plan, (100, 0), NOW);
        assert_eq!((second.len(), flows(&first).is_subset(&flows(&second))), (100, true));
    }

    #[tokio::test]
    async fn shadows_have_the_places_that_all_others_leave_and_no_more_than_they_may() {
        let (plan, mut dealing) = (plan(), Dealing::default());
        let shadows = (50..60).map(|flow| Lane { route: shadow::route_name("r"), ..lane(flow, flow, Some(1)) });
        let lanes = (0..10).chain(60..70).map(|flow| lane(flow, flow, Some(1))).chain(shadows);
        let mut front = Front::default();
        let look = Look { lanes: lanes.collect(), newest: Vec::new(), is_all: false };
        front.absorb(look, |_| true, tokio::time::Instant::now());
        for (most, most_shadows, expected) in
            [(100, 100, (20, 10)), (25, 100, (20, 5)), (100, 3, (20, 3)), (100, 0, (20, 0)), (15, 100, (15, 0))]
        {
            let (takes, _) = dealing.choose(&front, &plan, (most, most_shadows), NOW);
            let (of_shadows, others): (BTreeSet<i64>, BTreeSet<i64>) =
                flows(&takes).into_iter().partition(|flow| (50..60).contains(flow));
            assert_eq!((others.len(), of_shadows.len()), expected, "{most} {most_shadows}");
            dealing.begin_anew();
        }
    }

    #[tokio::test]
    async fn another_plan_sorts_anew() {
        let (plan, front, mut dealing) = (plan(), front(), Dealing::default());
        dealing.choose(&front, &plan, (60, 0), NOW);
        let other = Arc::new(
            Plan::new(&Blueprint {
                buckets: BTreeMap::new(),
                providers: BTreeMap::new(),
                routes: Vec::new(),
                traces: false,
            })
            .unwrap(),
        );
        assert!(dealing.choose(&front, &other, (60, 0), NOW).0.is_empty(), "it has no such route");
    }
}
