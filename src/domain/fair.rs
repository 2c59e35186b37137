//! Whose jobs are claimed next: fairness between logins, between the projects of a login, and between the batches of a
//! project.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};

/// A stretch of the queue that could be claimed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand<'a> {
    /// The login that enqueued it.
    pub login: &'a str,
    /// The project that pays for it.
    pub project: &'a str,
    /// Route, project, batch and login: jobs of one flow keep their order.
    pub flow: i64,
    /// Index of the route into the numbers of jobs that may be started.
    pub route: usize,
    /// Whether its first job has come since the queue was looked at before.
    pub has_just_come: bool,
    /// How many jobs it has, where that is known.
    pub jobs: Option<usize>,
}

/// How many absent members each ring remembers. Those that were served longest ago are forgotten first: when they come
/// back they are served as newcomers.
const REMEMBERED: usize = 10_000;

/// Deals out claims in turns and remembers whose turn it is.
///
/// Logins take turns; within a login its projects do, and within a project its flows. So a project with a million jobs
/// and one with ten get the same share until the ten are done, one that invents a thousand projects gets no more than
/// one with a single one, and a route that may not start anything takes nothing from the others.
///
/// In each ring the turn goes to the member that has waited longest; a member that is seen for the first time begins to
/// wait then. Where there are many members, that may be long. So every other turn goes to one that has just come and
/// was not served yet, the latest first. A newcomer is served soon, and however many of them come, the others keep
/// half.
///
/// The cost of a deal depends on the number of demands, and not on earlier deals: n log n to sort them. Then a turn
/// costs the same for any number of them.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// How often any member was seen for the first time or served: the clock by which waiting is measured.
    now: u64,
    logins: Members,
    projects: Members,
    flows: Members,
    /// Whether the next turn goes to a login that has just come.
    newcomer_next: bool,
    #[cfg(test)]
    steps: usize,
}

/// How members were served, by their keys.
type Members = HashMap<u64, Service, BuildHasherDefault<KeyHasher>>;

/// Takes a key as its own hash: [`key_of`] has hashed the name already.
#[derive(Clone, Copy, Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        self.0 = hasher.finish();
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// How a login, a project of a login, or a flow was served.
#[derive(Clone, Copy, Debug)]
struct Service {
    /// When it was served last, or seen first.
    since: u64,
    /// It has just come, and was not served yet.
    is_newcomer: bool,
    /// Whether the next turn within this member goes to one that has just come.
    newcomer_next: bool,
}

/// The members that take turns at one place, each with its key.
struct Ring<T> {
    waiting: VecDeque<(u64, T)>,
    newcomers: VecDeque<(u64, T)>,
}

impl<T> Ring<T> {
    fn new(members: Vec<(u64, T)>, known: &Members) -> Self {
        let service = |key: &u64| known.get(key).copied();
        let since = |key: &u64| service(key).map_or(0, |service| service.since);
        let (mut newcomers, mut waiting): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|(key, _)| service(key).is_some_and(|service| service.is_newcomer));
        waiting.sort_by_key(|(key, _)| since(key));
        newcomers.sort_by_key(|(key, _)| std::cmp::Reverse(since(key)));
        Self { waiting: waiting.into(), newcomers: newcomers.into() }
    }

    fn take(&mut self, newcomer_next: bool) -> Option<(u64, T)> {
        let (first, second) = if newcomer_next {
            (&mut self.newcomers, &mut self.waiting)
        } else {
            (&mut self.waiting, &mut self.newcomers)
        };
        first.pop_front().or_else(|| second.pop_front())
    }

    /// Lets the lane that was served wait again.
    fn put_back(&mut self, member: (u64, T)) {
        self.waiting.push_back(member);
    }
}

/// The rings within the rings; a flow is an index into the demands.
type Rings = Ring<Ring<Ring<usize>>>;

/// Demands in the order of their turns, for one deal after another: sorting many of them costs more than a deal.
pub struct Sorted {
    rings: Rings,
    /// The route of each demand.
    routes: Vec<usize>,
    /// A demand with jobs is no longer in the rings, because its route could not start any.
    has_passed_over: bool,
}

impl Sorted {
    /// Whether another deal may follow. Otherwise demands that had to be passed over must be sorted in again.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        !self.has_passed_over
    }
}

impl Turns {
    /// Deals at most `slots` claims over `demands`, of each route at most as many as may be started, and of each demand
    /// at most as many as it has jobs. The result has one number per demand, in order. Demands of one flow should not
    /// be given twice.
    pub fn deal(&mut self, slots: usize, demands: &[Demand<'_>], startable: &[usize]) -> Vec<usize> {
        let mut sorted = self.sort(demands);
        self.deal_on(&mut sorted, slots, startable, |index| demands.get(index).and_then(|demand| demand.jobs))
    }

    /// Sorts demands for one deal or several.
    pub fn sort(&mut self, demands: &[Demand<'_>]) -> Sorted {
        Sorted {
            rings: self.rings(demands),
            routes: demands.iter().map(|demand| demand.route).collect(),
            has_passed_over: false,
        }
    }

    /// As [`deal`](Self::deal), over demands that were sorted. `jobs`: how many jobs the demand with this index has by
    /// now, where that is known.
    pub fn deal_on(
        &mut self,
        sorted: &mut Sorted,
        slots: usize,
        startable: &[usize],
        jobs: impl Fn(usize) -> Option<usize>,
    ) -> Vec<usize> {
        let Sorted { rings, routes, has_passed_over } = sorted;
        let mut left: Vec<usize> = startable.to_vec();
        let mut dealt = vec![0; routes.len()];
        for _ in 0..slots {
            let mut may_start = |index: usize| {
                let has_jobs = jobs(index).is_none_or(|jobs| dealt.get(index).is_some_and(|dealt| *dealt < jobs));
                let may = routes.get(index).and_then(|route| left.get(*route)).is_some_and(|left| *left > 0);
                *has_passed_over |= has_jobs && !may;
                has_jobs && may
            };
            let Some(index) = self.next(rings, &mut may_start, true) else { break };
            if let Some(count) = dealt.get_mut(index) {
                *count += 1;
            }
            if let Some(left) = routes.get(index).and_then(|route| left.get_mut(*route)) {
                *left -= 1;
            }
        }
        dealt
    }

    /// The demands that would have the first `most` turns if each had one: those to remember when there is no room for
    /// all. Nothing counts as served by this.
    #[must_use]
    pub fn first(&self, most: usize, demands: &[Demand<'_>]) -> Vec<usize> {
        let mut turns = self.only(demands);
        let mut rings = turns.rings(demands);
        let mut first = Vec::with_capacity(most.min(demands.len()));
        while first.len() < most
            && let Some(index) = turns.next(&mut rings, &mut |_| true, false)
        {
            first.push(index);
        }
        first
    }

    /// The knowledge of those members that have demands.
    fn only(&self, demands: &[Demand<'_>]) -> Self {
        let mut turns = Self { now: self.now, newcomer_next: self.newcomer_next, ..Self::default() };
        for demand in demands {
            let keys = keys_of(key_of(&demand.login), demand);
            for (all, (some, key)) in
                [&self.logins, &self.projects, &self.flows].into_iter().zip(turns.all_known().into_iter().zip(keys))
            {
                some.extend(all.get(&key).map(|standing| (key, *standing)));
            }
        }
        turns
    }

    fn all_known(&mut self) -> [&mut Members; 3] {
        [&mut self.logins, &mut self.projects, &mut self.flows]
    }

    /// Sorts demands into rings, and notes those that were not known.
    fn rings(&mut self, demands: &[Demand<'_>]) -> Rings {
        let mut sorted: Vec<([u64; 3], usize)> = Vec::with_capacity(demands.len());
        let (mut before, mut login) = ("", key_of(&""));
        for (index, demand) in demands.iter().enumerate() {
            // Most neighbours belong to one login.
            if demand.login != before {
                (before, login) = (demand.login, key_of(&demand.login));
            }
            let keys = keys_of(login, demand);
            let mut now = self.now;
            for (known, key) in self.all_known().into_iter().zip(keys) {
                known.entry(key).or_insert_with(|| {
                    now += 1;
                    Service { since: now, is_newcomer: demand.has_just_come, newcomer_next: true }
                });
            }
            self.now = now;
            sorted.push((keys, index));
            #[cfg(test)]
            {
                self.steps += 1;
            }
        }
        for (ring, known) in self.all_known().into_iter().enumerate() {
            forget(known, sorted.iter().map(|(keys, _)| keys[ring]));
        }
        sorted.sort_unstable();
        let same = |ring: usize| move |(a, _): &([u64; 3], usize), (b, _): &([u64; 3], usize)| a[ring] == b[ring];
        let logins = sorted.chunk_by(same(0)).map(|of_login| {
            let projects = of_login.chunk_by(same(1)).map(|of_project| {
                let flows = of_project.iter().map(|([_, _, flow], index)| (*flow, *index)).collect();
                (of_project[0].0[1], Ring::new(flows, &self.flows))
            });
            (of_login[0].0[0], Ring::new(projects.collect(), &self.projects))
        });
        Ring::new(logins.collect(), &self.logins)
    }

    /// The next member to have a turn. A member that cannot start anything is out for this deal, and so is each that
    /// had a turn, unless it may have another.
    fn next(&mut self, rings: &mut Rings, may_start: &mut dyn FnMut(usize) -> bool, again: bool) -> Option<usize> {
        while let Some((login, mut projects)) = rings.take(self.newcomer_next) {
            #[cfg(test)]
            {
                self.steps += 1;
            }
            while let Some((project, mut flows)) = projects.take(newcomer_next(&self.logins, login)) {
                #[cfg(test)]
                {
                    self.steps += 1;
                }
                while let Some((flow, index)) = flows.take(newcomer_next(&self.projects, project)) {
                    #[cfg(test)]
                    {
                        self.steps += 1;
                    }
                    if !may_start(index) {
                        continue;
                    }
                    if again {
                        flows.put_back((flow, index));
                    }
                    projects.put_back((project, flows));
                    rings.put_back((login, projects));
                    self.serve(login, project, flow);
                    return Some(index);
                }
            }
        }
        None
    }

    fn serve(&mut self, login: u64, project: u64, flow: u64) {
        self.now += 1;
        self.newcomer_next = !self.newcomer_next;
        let now = self.now;
        for (known, key) in self.all_known().into_iter().zip([login, project, flow]) {
            if let Some(standing) = known.get_mut(&key) {
                standing.since = now;
                standing.is_newcomer = false;
                standing.newcomer_next = !standing.newcomer_next;
            }
        }
    }
}

fn newcomer_next(known: &Members, key: u64) -> bool {
    known.get(&key).is_some_and(|standing| standing.newcomer_next)
}

/// The keys of its login, which is given, of its project and of its flow. The number of a flow is a hash already.
fn keys_of(login: u64, demand: &Demand<'_>) -> [u64; 3] {
    [login, key_of(&(login, demand.project)), demand.flow.cast_unsigned()]
}

/// Always the same for the same name; two names that share a key by chance share turns.
fn key_of(name: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Keeps the members that are present, and of the others those that were served last. Does nothing while there are few.
fn forget(known: &mut Members, present: impl Iterator<Item = u64>) {
    if known.len() <= 2 * REMEMBERED {
        return;
    }
    let present: HashSet<u64> = present.collect();
    let mut absent: Vec<u64> =
        known.iter().filter(|(key, _)| !present.contains(key)).map(|(_, standing)| standing.since).collect();
    if absent.len() <= REMEMBERED {
        return;
    }
    let too_many = absent.len() - REMEMBERED;
    let (_, &mut oldest_kept, _) = absent.select_nth_unstable(too_many);
    known.retain(|key, standing| standing.since >= oldest_kept || present.contains(key));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn demand(project: &str, flow: i64, route: usize) -> Demand<'_> {
        Demand { login: "app", project, flow, route, has_just_come: false, jobs: None }
    }

    #[test]
    fn a_project_with_many_batches_gets_no_more_than_one_with_few() {
        let demands = [demand("a", 1, 0), demand("a", 2, 0), demand("a", 3, 0), demand("b", 4, 0)];
        assert_eq!(Turns::default().deal(12, &demands, &[100]), [2, 2, 2, 6]);
    }

    #[test]
    fn a_login_with_two_thousand_projects_gets_no_more_than_one_with_a_single_one() {
        let names: Vec<String> = (0..2000).map(|n| format!("p{n}")).collect();
        let mut turns = Turns::default();
        let (mut invented, mut honest) = (0, 0);
        for _ in 0..50 {
            let mut demands: Vec<Demand<'_>> = (0..).zip(&names).map(|(flow, name)| demand(name, flow, 0)).collect();
            // … even where the project has the same name.
            demands.push(Demand { login: "other", ..demand("p7", 2000, 0) });
            let dealt = turns.deal(7, &demands, &[100]);
            honest += dealt[2000];
            invented += dealt[..2000].iter().sum::<usize>();
        }
        assert_eq!((invented, honest), (175, 175));
    }

    #[test]
    fn a_route_of_which_nothing_may_start_leaves_its_share_to_others() {
        let demands = [demand("a", 1, 0), demand("b", 2, 1)];
        assert_eq!(Turns::default().deal(10, &demands, &[0, 100]), [0, 10]);
    }

    #[test]
    fn what_a_lane_does_not_have_goes_to_others() {
        let some = |flow, jobs| Demand { jobs: Some(jobs), ..demand("a", flow, 0) };
        let demands = [some(1, 1), some(2, 0), some(3, 2), demand("b", 4, 0)];
        assert_eq!(Turns::default().deal(10, &demands, &[100]), [1, 0, 2, 7]);
        assert_eq!(Turns::default().deal(10, &demands[..3], &[100]), [1, 0, 2]);
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

    #[test]
    fn each_of_ten_thousand_lanes_is_served_before_any_is_served_twice() {
        let names: Vec<String> = (0..10_000).map(|n| format!("p{n}")).collect();
        let demands: Vec<Demand<'_>> = (0..).zip(&names).map(|(flow, name)| demand(name, flow, 0)).collect();
        let mut turns = Turns::default();
        let mut total = vec![0; demands.len()];
        for round in 1..=2 {
            for _ in 0..10 {
                for (sum, dealt) in total.iter_mut().zip(turns.deal(1000, &demands, &[1000])) {
                    *sum += dealt;
                }
            }
            assert!(total.iter().all(|sum| *sum == round));
        }
    }

    #[test]
    fn who_has_just_come_is_served_at_once_and_leaves_half_to_those_who_were_there() {
        let mut turns = Turns::default();
        let names: Vec<String> = (0..3000).map(|n| format!("p{n}")).collect();
        let there = |n: usize| demand(&names[n], i64::try_from(n).unwrap(), 0);
        let mut demands: Vec<Demand<'_>> = (0..1000).map(there).collect();
        turns.deal(100, &demands, &[100]);
        demands.push(Demand { has_just_come: true, ..there(1000) });
        assert_eq!(turns.deal(2, &demands, &[100])[1000], 1);
        // The newcomer has had its turn, and waits like the others.
        assert_eq!(turns.deal(100, &demands, &[100])[1000], 0);
        // A flood of newcomers. The latest goes first.
        demands.extend((1001..3000).map(|n| Demand { has_just_come: true, ..there(n) }));
        let dealt = turns.deal(100, &demands, &[100]);
        assert_eq!(dealt[..1001].iter().sum::<usize>(), 50);
        assert_eq!(dealt[2950..].iter().sum::<usize>(), 50);
        // The same between the batches of one project, and between logins.
        let mut turns = Turns::default();
        let mut demands: Vec<Demand<'_>> = (0..1000).map(|flow| demand("a", flow, 0)).collect();
        turns.deal(100, &demands, &[100]);
        demands.push(Demand { has_just_come: true, ..demand("a", 1000, 0) });
        assert_eq!(turns.deal(2, &demands, &[100])[1000], 1);
    }

    #[test]
    fn what_a_deal_costs_is_bounded_by_what_it_is_given() {
        let names: Vec<String> = (0..50_000).map(|n| format!("p{n}")).collect();
        let mut turns = Turns::default();
        for some in names.chunks(500) {
            // Half of the demands may not start anything.
            let demands: Vec<Demand<'_>> =
                (0..).zip(some).map(|(flow, name)| demand(name, key_of(name).cast_signed(), flow % 2)).collect();
            turns.steps = 0;
            assert_eq!(turns.deal(500, &demands, &[0, 1000]).iter().sum::<usize>(), 500);
            // Each demand is sorted in once, and thrown out once at each ring, and each turn goes through three rings.
            assert!(turns.steps <= 4 * demands.len() + 3 * 500, "{}", turns.steps);
            for known in [&turns.logins, &turns.projects, &turns.flows] {
                assert!(known.len() <= 2 * REMEMBERED + demands.len());
            }
        }
    }

    #[test]
    fn who_waits_is_not_forgotten_however_many_come_and_go() {
        let names: Vec<String> = (0..60_000).map(|n| format!("p{n}")).collect();
        let mut turns = Turns::default();
        let mut served = 0;
        for some in names.chunks(100) {
            // At each deal a hundred that were never seen before and are never seen again, beside one that stays.
            let mut demands: Vec<Demand<'_>> =
                some.iter().map(|name| demand(name, key_of(name).cast_signed(), 0)).collect();
            demands.insert(50, demand("stays", 0, 0));
            served += turns.deal(50, &demands, &[100])[50];
        }
        assert!(served >= 599, "each time it has waited longest: {served}");
    }

    #[test]
    fn what_is_remembered_first_is_as_fair_as_what_is_dealt() {
        let names: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
        let mut demands: Vec<Demand<'_>> = (0..).zip(&names).map(|(flow, name)| demand(name, flow, 0)).collect();
        demands.extend((100..200).map(|flow| Demand { login: "other", ..demand("one", flow, 0) }));
        let turns = Turns::default();
        let first = turns.first(20, &demands);
        assert_eq!(first.iter().filter(|index| **index < 100).count(), 10);
        assert_eq!(turns.first(1000, &demands).len(), 200);
    }

    proptest! {
        #[test]
        fn nothing_is_dealt_beyond_slots_or_what_may_start_and_nothing_is_left_that_could_be_dealt(
            slots in 0_usize..300,
            startable in prop::collection::vec(0_usize..100, 1..4),
            flows in prop::collection::vec(
                (0_u8..3, 0_u8..4, 0_usize..4, any::<bool>(), prop::option::of(0_usize..9)),
                0..20
            ),
        ) {
            let names: Vec<(String, String)> =
                flows.iter().map(|(login, project, ..)| (login.to_string(), project.to_string())).collect();
            let demands: Vec<Demand<'_>> = flows
                .iter()
                .zip(&names)
                .enumerate()
                .map(|(flow, ((_, _, route, has_just_come, jobs), (login, project)))| Demand {
                    login,
                    project,
                    flow: i64::try_from(flow).unwrap(),
                    route: route % startable.len(),
                    has_just_come: *has_just_come,
                    jobs: *jobs,
                })
                .collect();
            let dealt = Turns::default().deal(slots, &demands, &startable);
            let mut used = vec![0; startable.len()];
            for (demand, count) in demands.iter().zip(&dealt) {
                used[demand.route] += count;
            }
            let total: usize = dealt.iter().sum();
            prop_assert!(total <= slots);
            for (used, most) in used.iter().zip(&startable) {
                prop_assert!(used <= most);
            }
            for (demand, count) in demands.iter().zip(&dealt) {
                prop_assert!(demand.jobs.is_none_or(|jobs| *count <= jobs));
            }
            let jobs = |route: usize| {
                let of_route = demands.iter().filter(|demand| demand.route == route);
                of_route.map(|demand| demand.jobs.unwrap_or(usize::MAX)).fold(0, usize::saturating_add)
            };
            let possible: usize = (0..startable.len()).map(|route| startable[route].min(jobs(route))).sum();
            prop_assert_eq!(total, slots.min(possible));
        }

        #[test]
        fn demands_that_were_sorted_once_are_dealt_as_if_they_were_sorted_each_time(
            flows in prop::collection::vec(
                (0_u8..3, 0_u8..4, any::<bool>(), prop::option::of(0_usize..9)),
                0..40
            ),
            deals in prop::collection::vec((1_usize..20, 0_usize..30), 1..10),
        ) {
            let names: Vec<(String, String)> =
                flows.iter().map(|(login, project, ..)| (login.to_string(), project.to_string())).collect();
            let named = flows.iter().zip(&names).enumerate();
            let mut demands: Vec<Demand<'_>> = named.map(|(flow, ((_, _, new, jobs), (login, project)))| {
                let flow = i64::try_from(flow).unwrap();
                Demand { login, project, flow, route: 0, has_just_come: *new, jobs: *jobs }
            }).collect();
            let (mut once, mut each_time) = (Turns::default(), Turns::default());
            let mut sorted = once.sort(&demands);
            for (slots, startable) in deals {
                if !sorted.goes_on() {
                    sorted = once.sort(&demands);
                }
                let dealt = once.deal_on(&mut sorted, slots, &[startable], |index| demands[index].jobs);
                prop_assert_eq!(&dealt, &each_time.deal(slots, &demands, &[startable]));
                for (demand, dealt) in demands.iter_mut().zip(dealt) {
                    demand.jobs = demand.jobs.map(|jobs| jobs - dealt);
                }
            }
        }

        #[test]
        fn over_time_logins_that_want_more_get_the_same(
            flows in prop::collection::vec((0_u8..3, 0_u8..4, any::<bool>()), 1..40),
            slots in 1_usize..20,
        ) {
            let names: Vec<(String, String)> =
                flows.iter().map(|(login, project, _)| (login.to_string(), project.to_string())).collect();
            let named = flows.iter().zip(&names).enumerate();
            let demands: Vec<Demand<'_>> = named.map(|(flow, ((.., new), (login, project)))| {
                Demand { login, project, flow: i64::try_from(flow).unwrap(), route: 0, has_just_come: *new, jobs: None }
            }).collect();
            let mut turns = Turns::default();
            let mut by_login: HashMap<&str, usize> = demands.iter().map(|demand| (demand.login, 0)).collect();
            for _ in 0..100 {
                for (demand, count) in demands.iter().zip(turns.deal(slots, &demands, &[slots])) {
                    *by_login.get_mut(demand.login).unwrap() += count;
                }
            }
            let (least, most) = (by_login.values().min().unwrap(), by_login.values().max().unwrap());
            // At first a newcomer may be served before those that were there.
            prop_assert!(most - least <= 2, "{by_login:?}");
        }
    }
}
