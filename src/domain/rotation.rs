//! The stretches of the queue that a look reads, so that it costs the same however many lanes there are.
//!
//! Flows are numbers, and `sluice.flow_of` makes them so that those of a login lie together, and within these those of
//! a few projects. While there are few lanes a look reads all of them. Where there are many it finds out which logins
//! have any, and gives each login the same share of the lanes it reads, and within that each group of projects the same
//! share. In a group it goes on where the look before stopped. So one login or project that has a million lanes takes
//! nothing from the others, and over time every lane is seen.
//!
//! The order of flows is that of a hash: lanes that follow each other in it have their jobs all over the tables. So
//! most looks begin with a sweep. It reads jobs that lie next to each other in the table of the queue, and their lanes
//! fill the shares of their groups. Only groups that the sweep leaves without half of their share are read in the order
//! of flows, and now and then all of them.

use std::collections::HashMap;

/// About how many lanes that are not known yet a look reads. Where there are no more it reads all.
pub const WINDOW: usize = 1_000;

/// The most logins that have a share in one look.
const LOGINS: usize = 64;

/// How many looks read the same groups of projects before these are looked up again, where one look reads them all.
/// Which they are changes slowly: each of them has some hundred projects where there are many.
const LOOKS: u8 = 4;

/// One look in so many does without a sweep. (The sweeps see all lanes too, one round of the table after the other.)
const SWEEPS: u8 = 32;

/// How many jobs a sweep reads: more than a window, because by chance some groups find less than their share in it.
pub const SWEPT: usize = WINDOW + WINDOW / 2;

/// How many places to go on from are remembered.
const REMEMBERED: usize = 10_000;

/// The part that the flows of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    /// Nothing: the whole queue.
    All,
    /// The login: the highest 16 bits.
    Login,
    /// The login, and 8 bits of the project.
    Project,
}

impl Depth {
    /// The bits in which flows of one group may differ.
    #[must_use]
    pub const fn mask(self) -> i64 {
        match self {
            Self::All => -1,
            Self::Login => (1 << 48) - 1,
            Self::Project => (1 << 40) - 1,
        }
    }

    /// The first and the last flow that a group with this flow may have.
    #[must_use]
    pub const fn ends(self, flow: i64) -> (i64, i64) {
        match self {
            Self::All => (i64::MIN, i64::MAX),
            Self::Login | Self::Project => (flow & !self.mask(), flow | self.mask()),
        }
    }
}

/// A part of the queue to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// From this flow on.
    pub first: i64,
    /// Up to this one.
    pub last: i64,
    /// At most this many groups or lanes.
    pub most: usize,
}

/// The places that the looks have reached.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// The look before had more to read than one look can.
    pub has_many: bool,
    /// The flow at which the next look begins, by group that no look can read as a whole.
    ///
    /// In a group without an entry it begins at the first.
    next: HashMap<(Depth, i64), i64>,
    /// How many places were noted.
    noted: u64,
    /// Places were forgotten, because there are more than can be remembered.
    has_forgotten: bool,
    /// The groups of projects of each login, as they were last looked up.
    groups: Vec<Vec<i64>>,
    /// How many more looks they serve.
    serve: u8,
    /// How many looks there were, in rounds of [`SWEEPS`].
    looks: u8,
    /// The part of the table, and of each group of projects, at which the first round begins, of 65,536.
    begin: u16,
    /// The place in the table that the last sweep reached.
    swept: Option<String>,
}

impl Rotation {
    /// A rotation of its own for the worker with this number: where there are several workers, each looks elsewhere.
    /// Otherwise they would claim the jobs of the same few lanes, and get fewer than they asked for.
    #[must_use]
    pub fn of_worker(number: i64) -> Self {
        let begin = u16::try_from(spread(number.cast_unsigned()) >> 47).unwrap_or(0);
        Self { begin, ..Self::default() }
    }

    /// Where the sweep of this look begins in a table of so many blocks: behind this place. `None`: this look does
    /// without a sweep.
    pub fn sweep(&mut self, blocks: i64) -> Option<String> {
        self.looks = (self.looks + 1) % SWEEPS;
        if self.looks == 1 {
            return None;
        }
        let begin = || format!("({},0)", blocks.saturating_mul(i64::from(self.begin)) >> 16);
        Some(self.swept.clone().unwrap_or_else(begin))
    }

    /// Notes the place that the sweep has reached. `None`: it came to the end of the table, and the next one begins at
    /// the first block.
    pub fn note_sweep(&mut self, reached: Option<String>) {
        self.swept = Some(reached.unwrap_or_else(|| "(0,0)".to_owned()));
    }

    /// The stretches to read beside a sweep that found lanes of these flows: those of the groups that have less than
    /// half of their share.
    #[must_use]
    pub fn beside(&self, swept: &[i64], groups: &[Vec<i64>]) -> Vec<Stretch> {
        let of_group = |flow: i64| Depth::Project.ends(flow).0;
        let mut found: HashMap<i64, usize> = HashMap::new();
        for flow in swept {
            *found.entry(of_group(*flow)).or_default() += 1;
        }
        let mut stretches = self.stretches(Depth::Project, groups);
        stretches.retain(|group| 2 * found.get(&of_group(group.last)).copied().unwrap_or(0) < group.most);
        stretches
    }

    /// The stretch of the whole queue in which the logins are looked for.
    #[must_use]
    pub fn logins(&self) -> Stretch {
        self.stretch(Depth::All, 0, LOGINS)
    }

    /// The stretches to read of these groups, about [`WINDOW`] in all. `groups` has one flow of each group, by the
    /// parent that they belong to; each parent has the same share.
    #[must_use]
    pub fn stretches(&self, depth: Depth, groups: &[Vec<i64>]) -> Vec<Stretch> {
        let share = WINDOW.div_ceil(groups.len().max(1));
        let of_group = |flows: &Vec<i64>| {
            let each = share.div_ceil(flows.len().max(1));
            flows.iter().map(|flow| self.stretch(depth, *flow, each)).collect::<Vec<_>>()
        };
        groups.iter().flat_map(of_group).collect()
    }

    fn stretch(&self, depth: Depth, flow: i64, most: usize) -> Stretch {
        let (first, last) = depth.ends(flow);
        let next = self.next.get(&(depth, first)).copied();
        // Where noted places may have been forgotten, a look from the first flow would see the first lanes over and
        // over, and the others never.
        let somewhere = || first.saturating_add(spread(self.noted) & depth.mask() & i64::MAX);
        let begin = next.unwrap_or_else(|| if self.has_forgotten { somewhere() } else { first });
        Stretch { first: begin, last, most }
    }

    /// The groups of projects to read, if those that an earlier look found still serve: a flow of each group, by login.
    pub fn known_groups(&mut self) -> Option<Vec<Vec<i64>>> {
        self.serve = self.serve.checked_sub(1)?;
        Some(self.groups.clone())
    }

    /// Notes the groups of projects of each login that were found. They serve the next looks if they are `all` there
    /// are.
    pub fn keep_groups(&mut self, groups: &[Vec<i64>], all: bool) {
        self.groups = groups.to_vec();
        self.serve = if all { LOOKS - 1 } else { 0 };
    }

    /// Notes how many groups or lanes of a stretch were found, and the last flow among them.
    pub fn note(&mut self, depth: Depth, stretch: &Stretch, found: usize, last: Option<i64>) {
        let first = depth.ends(stretch.last).0;
        let key = (depth, first);
        self.noted = self.noted.wrapping_add(1);
        let is_full = found >= stretch.most;
        let next = match last.filter(|_| is_full).and_then(|last| last.checked_add(1)) {
            Some(next) if next <= stretch.last => {
                let is_new = depth == Depth::Project && !self.has_forgotten && !self.next.contains_key(&key);
                let own = first.saturating_add((depth.mask() >> 16).saturating_mul(i64::from(self.begin)));
                Some(if is_new { next.max(own) } else { next })
            }
            // The end was reached. The next round begins at the first flow, also where the first round did not.
            _ if stretch.first > first => Some(first),
            _ => None,
        };
        match next {
            Some(next) => {
                if self.next.len() >= REMEMBERED && !self.next.contains_key(&key) {
                    self.next.clear();
                    self.has_forgotten = true;
                }
                self.next.insert(key, next);
            }
            // One look reads all of it.
            None => {
                self.next.remove(&key);
            }
        }
    }
}

/// Numbers that are spread evenly.
const fn spread(number: u64) -> i64 {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A queue of lanes, read as the store reads it.
    struct Queue(BTreeSet<i64>);

    impl Queue {
        fn groups(&self, stretch: &Stretch, mask: i64) -> Vec<i64> {
            let mut found = Vec::new();
            let mut from = Some(stretch.first);
            while let Some(flow) = from.and_then(|from| self.0.range(from..=stretch.last.max(from)).next().copied())
                && flow <= stretch.last
                && found.len() < stretch.most
            {
                found.push(flow);
                from = (flow | mask).checked_add(1);
            }
            found
        }

        /// The groups of projects of each login, and how many steps it took to find them.
        fn projects(&self, rotation: &mut Rotation) -> (Vec<Vec<i64>>, usize) {
            let stretch = rotation.logins();
            let logins = self.groups(&stretch, Depth::Login.mask());
            let mut are_all = logins.len() < stretch.most;
            rotation.note(Depth::All, &stretch, logins.len(), logins.last().map(|flow| Depth::Login.ends(*flow).1));
            let (mut steps, mut projects) = (logins.len() + 1, Vec::<Vec<i64>>::new());
            for stretch in rotation.stretches(Depth::Login, &[logins]) {
                let found = self.groups(&stretch, Depth::Project.mask());
                are_all &= found.len() < stretch.most;
                let last = found.last().map(|flow| Depth::Project.ends(*flow).1);
                rotation.note(Depth::Login, &stretch, found.len(), last);
                steps += found.len() + 1;
                projects.push(found);
            }
            rotation.keep_groups(&projects, are_all);
            (projects, steps)
        }

        /// One look: what it finds, and how many steps it took.
        fn look(&self, rotation: &mut Rotation) -> (Vec<i64>, usize) {
            let known = rotation.known_groups().map(|groups| (groups, 0));
            let (projects, mut steps) = known.unwrap_or_else(|| self.projects(rotation));
            let mut lanes = Vec::new();
            for stretch in rotation.stretches(Depth::Project, &projects) {
                let found = self.groups(&stretch, 0);
                rotation.note(Depth::Project, &stretch, found.len(), found.last().copied());
                steps += found.len() + 1;
                lanes.extend(found);
            }
            (lanes, steps)
        }
    }

    fn flow(login: i64, project: i64, rest: u64) -> i64 {
        (login << 48) | ((project & 255) << 40) | (spread(rest) >> 23)
    }

    #[test]
    fn each_of_many_lanes_is_seen_over_time_and_each_look_is_bounded() {
        let many: Vec<i64> = (0..60_000_u64).map(|n| flow(-7, i64::try_from(n % 700).unwrap(), n)).collect();
        let in_one_project: Vec<i64> = (0..30_000).map(|n| flow(5, 3, n)).collect();
        let queue = Queue(many.iter().chain(&in_one_project).copied().collect());
        let mut rotation = Rotation::default();
        let mut seen = BTreeSet::new();
        for _ in 0..400 {
            let (lanes, steps) = queue.look(&mut rotation);
            assert!(lanes.len() <= 2 * WINDOW && steps <= 4 * WINDOW, "{} {steps}", lanes.len());
            seen.extend(lanes);
        }
        assert_eq!(seen.len(), queue.0.len());
    }

    #[test]
    fn workers_read_different_lanes_of_a_group_and_each_sees_all_over_time() {
        let queue = Queue((0..30_000).map(|n| flow(5, 3, n)).collect());
        let mut seen_first = BTreeSet::new();
        for worker in 1..=4 {
            let mut rotation = Rotation::of_worker(worker);
            queue.look(&mut rotation);
            let (lanes, _) = queue.look(&mut rotation);
            assert!(lanes.iter().all(|lane| seen_first.insert(*lane)), "worker {worker} reads what another has read");
            let mut rotation = Rotation::of_worker(worker);
            let seen: BTreeSet<i64> = (0..70).flat_map(|_| queue.look(&mut rotation).0).collect();
            assert_eq!(seen, queue.0);
        }
    }

    #[test]
    fn a_login_or_a_project_with_few_lanes_is_seen_at_each_look() {
        let many = (0..50_000_u64).map(|n| flow(-7, i64::try_from(n % 200).unwrap(), n));
        let (other, quiet) = (flow(9, 1, 1), flow(-7, 250, 2));
        let queue = Queue(many.chain([other, quiet]).collect());
        let mut rotation = Rotation::default();
        for _ in 0..50 {
            let (lanes, _) = queue.look(&mut rotation);
            assert!(lanes.contains(&other) && lanes.contains(&quiet));
        }
    }

    #[test]
    fn a_login_or_a_group_of_projects_that_comes_is_seen_after_a_few_looks() {
        let many = (0..50_000_u64).map(|n| flow(-7, i64::try_from(n % 200).unwrap(), n));
        let mut queue = Queue(many.collect());
        let mut rotation = Rotation::default();
        for round in 0..10_u64 {
            for _ in 0..round {
                queue.look(&mut rotation);
            }
            let came = [flow(9, i64::try_from(round).unwrap(), 1), flow(-7, 210 + i64::try_from(round).unwrap(), 2)];
            queue.0.extend(came);
            let seen: BTreeSet<i64> = (0..LOOKS).flat_map(|_| queue.look(&mut rotation).0).collect();
            assert!(came.iter().all(|flow| seen.contains(flow)), "{round}");
        }
    }

    #[test]
    fn groups_serve_a_few_looks_and_only_where_they_are_all() {
        let mut rotation = Rotation::default();
        assert_eq!(rotation.known_groups(), None);
        let groups = vec![vec![1, 2], vec![3]];
        rotation.keep_groups(&groups, false);
        assert_eq!(rotation.known_groups(), None);
        rotation.keep_groups(&groups, true);
        for _ in 1..LOOKS {
            assert_eq!(rotation.known_groups().as_ref(), Some(&groups));
        }
        assert_eq!(rotation.known_groups(), None);
    }

    #[test]
    fn beside_a_sweep_the_groups_are_read_that_lack_half_of_their_share() {
        let rotation = Rotation::default();
        // Two logins, so 500 lanes each; the first has four groups of projects, the second has one.
        let groups = [(0..4).map(|project| flow(1, project, 0)).collect::<Vec<_>>(), vec![flow(2, 9, 0)]];
        let of = |login, project, count: u64| (0..count).map(move |n| flow(login, project, n));
        let swept: Vec<i64> =
            of(1, 0, 300).chain(of(1, 1, 62)).chain(of(1, 2, 63)).chain(of(2, 9, 250)).chain(of(3, 5, 4)).collect();
        let read = rotation.beside(&swept, &groups).into_iter().map(|stretch| (stretch.first, stretch.most));
        let first = |login, project| Depth::Project.ends(flow(login, project, 0)).0;
        assert_eq!(read.collect::<Vec<_>>(), [(first(1, 1), 125), (first(1, 3), 125)]);
    }

    #[test]
    fn one_look_in_many_does_without_a_sweep_and_sweeps_go_round_from_where_each_worker_begins() {
        let mut rotation = Rotation::default();
        let begun: Vec<Option<String>> = (0..2 * SWEEPS).map(|_| rotation.sweep(100)).collect();
        assert_eq!(begun.iter().filter(|begin| begin.is_none()).count(), 2);
        assert!(begun[0].is_none() && begun[usize::from(SWEEPS)].is_none());
        assert_eq!(begun[1].as_deref(), Some("(0,0)"));
        rotation.note_sweep(Some("(7,21)".to_owned()));
        assert_eq!(rotation.sweep(100), None);
        assert_eq!(rotation.sweep(100).as_deref(), Some("(7,21)"));
        rotation.note_sweep(None);
        assert_eq!(rotation.sweep(100).as_deref(), Some("(0,0)"));
        let begins: BTreeSet<Option<String>> = (1..=8)
            .map(|worker| {
                let mut rotation = Rotation::of_worker(worker);
                rotation.sweep(1_000);
                rotation.sweep(1_000)
            })
            .collect();
        assert_eq!(begins.len(), 8, "{begins:?}");
    }

    #[test]
    fn numbers_that_have_no_order_are_all_seen_too() {
        // As the version before made the flows: each is a login of its own.
        let queue = Queue((0..20_000).map(|n| (spread(n) << 1) | 1).collect());
        let mut rotation = Rotation::default();
        let mut seen = BTreeSet::new();
        for _ in 0..20_000 / LOGINS * 3 {
            seen.extend(queue.look(&mut rotation).0);
        }
        assert_eq!(seen.len(), queue.0.len());
    }

    proptest! {
        #[test]
        fn whatever_a_sweep_finds_each_group_gets_half_of_its_share(
            groups in prop::collection::vec(prop::collection::btree_set(0_i64..256, 1..20), 1..8),
            swept in prop::collection::vec((0_i64..8, 0_i64..256), 0..1_500),
        ) {
            let groups: Vec<Vec<i64>> = (0..)
                .zip(&groups)
                .map(|(login, projects)| projects.iter().map(|project| flow(login, *project, 0)).collect())
                .collect();
            let swept: Vec<i64> = (0..).zip(&swept).map(|(n, (login, project))| flow(*login, *project, n)).collect();
            let rotation = Rotation::default();
            let read = rotation.beside(&swept, &groups);
            let mut found: HashMap<i64, usize> = HashMap::new();
            for flow in &swept {
                *found.entry(Depth::Project.ends(*flow).0).or_default() += 1;
            }
            for group in rotation.stretches(Depth::Project, &groups) {
                let found = found.get(&group.first).copied().unwrap_or(0);
                prop_assert!(read.contains(&group) != (found >= group.most.div_ceil(2)));
            }
        }

        #[test]
        fn few_lanes_are_all_seen_at_the_first_look(
            flows in prop::collection::vec((any::<i16>(), any::<u8>(), 0_u64..3), 0..60),
        ) {
            let flows: BTreeSet<i64> = flows
                .into_iter()
                .map(|(login, project, rest)| flow(i64::from(login), i64::from(project), rest))
                .collect();
            let queue = Queue(flows.clone());
            let seen: BTreeSet<i64> = queue.look(&mut Rotation::default()).0.into_iter().collect();
            prop_assert_eq!(seen, flows);
        }
    }
}
