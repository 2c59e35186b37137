//! The lanes that the claimer knows of: how far each was taken, and how many jobs are left in it.

use crate::domain::fair::{Demand, Turns};
use crate::domain::rotation::WINDOW;
use crate::store::claim::{Claim, Take};
use crate::store::lanes::{Lane, Look};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;
use tokio::time::Instant;

/// Where not all lanes fit into one look, this many lanes that have jobs are kept for the next look, …
const MOST_KNOWN: usize = WINDOW;
/// … and those that were looked up longer ago than this are looked up again.
const FRESH: Duration = Duration::from_secs(1);
/// A look takes some time. When there are only this many lanes left to claim from, it is time to begin one.
const FEW: usize = WINDOW / 4;

/// Flow and priority.
pub(super) type LaneKey = (i64, i16);

/// The state of a lane, as the claimer knows it.
pub(super) struct LaneState {
    /// The lane as it was found.
    pub lane: Lane,
    /// All jobs up to this one were taken.
    pub after: i64,
    /// `after`, when the look that is under way began.
    mark: i64,
    /// Jobs taken since then, …
    taken: i32,
    /// … and the first of them.
    taken_from: i64,
    /// Jobs that are left, where that is known.
    left: Option<i32>,
    /// No job was left at the last claim.
    dry: bool,
    /// The lane has appeared since the look before; the value is its order of arrival, where that is known.
    came: Option<usize>,
    /// When the last look that found it began.
    seen: Instant,
    /// It stays known without being found by the look that is under way.
    keep: bool,
}

impl LaneState {
    /// How many jobs may be taken, where that is known.
    pub fn jobs(&self) -> Option<usize> {
        if self.dry { Some(0) } else { self.left.map(|left| usize::try_from(left).unwrap_or(0)) }
    }

    /// The lane's demand in a deal. `route`: the index of its route.
    pub fn demand(&self, route: usize) -> Demand<'_> {
        Demand {
            login: &self.lane.login,
            project: &self.lane.project,
            flow: self.lane.flow,
            route,
            has_just_come: self.came.is_some(),
            jobs: self.jobs(),
        }
    }
}

/// The lanes that the last looks have found.
#[derive(Default)]
pub(super) struct Front {
    lanes: BTreeMap<LaneKey, LaneState>,
    /// Other lanes than these have jobs, as far as the claimer knows.
    pub has_more: bool,
    /// Lanes that have run out of jobs since the look.
    used_up: usize,
    /// Lanes that have jobs, as far as the claimer knows.
    live: usize,
}

/// The question that a look asks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    /// The flows to look up again.
    pub flows: Vec<i64>,
    /// How many other lanes stay known.
    pub kept: usize,
}

impl Front {
    /// The lane with this flow and priority.
    pub fn get(&self, key: LaneKey) -> Option<&LaneState> {
        self.lanes.get(&key)
    }

    /// A lane, as the last look found it.
    pub fn lane(&self, key: LaneKey) -> Option<&Lane> {
        self.lanes.get(&key).map(|state| &state.lane)
    }

    /// Where the job lies that this would take, if it is the only one of its lane and a look has told its place.
    pub fn place(&self, take: &Take) -> Option<String> {
        let state = self.lanes.get(&(take.flow, take.prio))?;
        state.lane.place.clone().filter(|_| take.after < state.lane.first)
    }

    /// For each flow, the lane with the highest priority that is not dry; its other lanes have to wait for that one.
    /// They come in the order of their first jobs: of lanes that never had a turn, those go together whose jobs lie
    /// next to each other. Lanes that have just appeared stand at the end, the latest last.
    pub fn heads(&self) -> Vec<(LaneKey, &LaneState)> {
        let mut heads: Vec<(LaneKey, &LaneState)> = Vec::with_capacity(self.lanes.len());
        for (key, state) in self.lanes.iter().filter(|(_, state)| !state.dry) {
            if heads.last().is_none_or(|(before, _)| before.0 != key.0) {
                heads.push((*key, state));
            }
        }
        heads.sort_by_key(|(_, state)| (state.came, state.lane.first));
        heads
    }

    /// Whether no lane has jobs that could be claimed.
    pub fn is_dry(&self) -> bool {
        self.live == 0
    }

    /// Whether so many of the lanes have run out of jobs that it is worth looking for others at once, if there are
    /// more.
    pub fn is_worth_a_look(&self) -> bool {
        self.has_more && self.used_up >= FEW
    }

    /// Whether the lanes will have run out of jobs soon, and there are more of them.
    pub fn is_nearly_dry(&self) -> bool {
        self.is_worth_a_look() && self.live <= FEW
    }

    /// Notes that a look begins, and chooses the lanes that must not be forgotten over those that it finds: for each
    /// route that may start a job before long, those that would have the first turns. Lanes that cannot start must not
    /// displace those that can.
    pub fn begin_look(&mut self, turns: &Turns, may_start_soon: impl Fn(&str) -> bool, now: Instant) -> Question {
        for state in self.lanes.values_mut() {
            (state.mark, state.taken, state.taken_from, state.keep) = (state.after, 0, i64::MAX, false);
        }
        let mut question = Question::default();
        if !self.has_more {
            return question;
        }
        let mut known = Vec::new();
        {
            let mut by_route: BTreeMap<&str, (Vec<LaneKey>, Vec<Demand<'_>>)> = BTreeMap::new();
            for (key, state) in self.heads() {
                let (keys, demands) = by_route.entry(&state.lane.route).or_default();
                keys.push(key);
                demands.push(state.demand(0));
            }
            by_route.retain(|route, _| may_start_soon(route));
            let each = MOST_KNOWN / by_route.len().max(1);
            for (keys, demands) in by_route.values() {
                if keys.len() <= each {
                    known.extend(keys);
                    continue;
                }
                known.extend(turns.first(each, demands).into_iter().filter_map(|index| keys.get(index).copied()));
            }
        }
        for key in known {
            let Some(state) = self.lanes.get_mut(&key) else { continue };
            state.keep = now.duration_since(state.seen) < FRESH;
            if state.keep {
                question.kept += 1;
            } else {
                question.flows.push(key.0);
            }
        }
        question
    }

    /// Takes over the answer of the look that began at this instant. Jobs may have been claimed meanwhile.
    pub fn absorb(&mut self, look: Look, mut may_claim: impl FnMut(&Lane) -> bool, began: Instant) {
        let Look { lanes, newest, is_all } = look;
        let newest: HashMap<LaneKey, usize> = newest.into_iter().zip(1..).collect();
        let mut before = std::mem::take(&mut self.lanes);
        let is_first = before.is_empty();
        for lane in lanes {
            if !may_claim(&lane) {
                continue;
            }
            let key = (lane.flow, lane.prio);
            let before = before.remove(&key);
            let (mark, after) = before.as_ref().map_or((i64::MIN, i64::MIN), |before| (before.mark, before.after));
            let left = lane.jobs.filter(|_| !is_all).and_then(|jobs| left_of(jobs, lane.first, before.as_ref()));
            // The first job seen tells where to begin, also when a job returned that had been passed before. One that
            // was not passed when the look began may have been taken since.
            let after = if lane.first > mark { after } else { lane.first.saturating_sub(1) };
            let is_new = before.is_none() && !is_first;
            let came = if is_all { Some(0) } else { newest.get(&key).copied() }.filter(|_| is_new);
            let dry = left.is_some_and(|left| left <= 0);
            let (taken, taken_from) = (0, i64::MAX);
            let state = LaneState { lane, after, mark, taken, taken_from, left, dry, came, seen: began, keep: false };
            self.lanes.insert(key, state);
        }
        for (key, mut state) in before.into_iter().filter(|(_, state)| state.keep && !state.dry && !is_all) {
            if may_claim(&state.lane) {
                state.came = None;
                self.lanes.insert(key, state);
            }
        }
        (self.has_more, self.used_up) = (!is_all, 0);
        self.live = self.lanes.values().filter(|state| !state.dry).count();
    }

    /// The routes of the lanes.
    pub fn routes(&self) -> std::collections::HashSet<&str> {
        self.lanes.values().map(|state| state.lane.route.as_str()).collect()
    }

    /// Moves the marks, and notes which lanes have no jobs left. The answer is whether a lane's turn has come that had
    /// to wait for one of these.
    pub fn remember(&mut self, takes: &[Take], claim: &Claim) -> bool {
        let mut got: HashMap<LaneKey, (i32, i64, i64)> = HashMap::new();
        for job in &claim.jobs {
            let (count, first, last) = got.entry((job.flow, job.prio)).or_insert((0, i64::MAX, i64::MIN));
            *count += 1;
            *first = (*first).min(job.lease.job.0);
            *last = (*last).max(job.lease.job.0);
        }
        let mut has_next = false;
        for take in takes {
            let key = (take.flow, take.prio);
            let behind = (Bound::Excluded(key), Bound::Included((take.flow, i16::MAX)));
            let is_last = self.lanes.range(behind).next().is_none();
            let Some(state) = self.lanes.get_mut(&key) else { continue };
            let (count, first, last) = got.get(&key).copied().unwrap_or((0, i64::MAX, take.after));
            state.after = state.after.max(last);
            state.taken = state.taken.saturating_add(count);
            state.taken_from = state.taken_from.min(first);
            state.left = state.left.map(|left| left.saturating_sub(count));
            self.live -= usize::from(!state.dry);
            state.dry = state.left.is_some_and(|left| left <= 0) || (count < take.count && !claim.is_cut);
            self.live += usize::from(!state.dry);
            self.used_up += usize::from(state.dry);
            has_next |= state.dry && !is_last;
        }
        has_next
    }
}

/// How many jobs are left in a lane in which a look saw so many, from this one on. `None`: it cannot be told, because
/// the look saw the lane in the midst of claims.
fn left_of(jobs: i32, first: i64, before: Option<&LaneState>) -> Option<i32> {
    let Some(before) = before else { return Some(jobs) };
    if first > before.after || before.taken == 0 {
        Some(jobs)
    } else if first > before.mark && first <= before.taken_from {
        Some(jobs.saturating_sub(before.taken))
    } else {
        None
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the front is told what time it is, and the tests tell it")]
pub(super) mod tests {
    use super::*;
    use crate::domain::{JobId, Metadata, Timestamp};
    use crate::store::claim::{Claimed, Lease};

    pub(in crate::worker) fn lane(flow: i64, first: i64, jobs: Option<i32>) -> Lane {
        Lane {
            flow,
            prio: 0,
            route: "r".to_owned(),
            project: format!("p{flow}"),
            batch: None,
            login: "app".to_owned(),
            first,
            deadline: None,
            jobs,
            place: None,
        }
    }

    fn look(lanes: Vec<Lane>) -> Look {
        Look { lanes, newest: Vec::new(), is_all: false }
    }

    /// A claim that asked these lanes for so many jobs each and got these jobs.
    fn claim(front: &mut Front, asked: &[(i64, i32)], got: &[(i64, i64)]) {
        let takes: Vec<Take> =
            asked.iter().map(|(flow, count)| Take { flow: *flow, prio: 0, after: i64::MIN, count: *count }).collect();
        let jobs = got.iter().map(|(flow, job)| Claimed {
            lease: Lease { job: JobId(*job), fence: *job, born: 0 },
            flow: *flow,
            prio: 0,
            attempts: 0,
            crashes: 0,
            round: 0,
            route: "r".to_owned(),
            project: String::new(),
            batch: None,
            login: String::new(),
            ready_at: Timestamp(0),
            waited: None,
            deadline: None,
            max_attempts: None,
            request: Ok("{}".into()),
            metadata: Metadata::default(),
            weight: 1,
        });
        front.remember(&takes, &Claim { jobs: jobs.collect(), is_cut: false });
    }

    fn begin(front: &mut Front, now: Instant) -> Question {
        front.begin_look(&Turns::default(), |_| true, now)
    }

    /// The lanes that can be claimed from, each with the number behind which it is claimed and the jobs that are left.
    fn left(front: &Front) -> Vec<(i64, i64, Option<i32>)> {
        front.heads().into_iter().map(|(key, state)| (key.0, state.after, state.left)).collect()
    }

    #[test]
    fn a_lane_whose_jobs_were_all_taken_is_not_asked_again() {
        let (mut front, now) = (Front::default(), Instant::now());
        begin(&mut front, now);
        front.absorb(look(vec![lane(1, 10, Some(1)), lane(2, 20, Some(3)), lane(3, 30, None)]), |_| true, now);
        claim(&mut front, &[(1, 1), (2, 2), (3, 5)], &[(1, 10), (2, 20), (2, 21), (3, 30), (3, 31), (3, 32)]);
        assert_eq!(left(&front), [(2, 21, Some(1))], "3 gave fewer than it was asked for");
    }

    #[test]
    fn what_was_claimed_while_a_look_was_under_way_is_not_left() {
        let (mut front, now) = (Front::default(), Instant::now());
        begin(&mut front, now);
        front.absorb(look(vec![lane(1, 10, Some(1)), lane(2, 20, Some(3)), lane(3, 30, None)]), |_| true, now);
        claim(&mut front, &[(2, 1)], &[(2, 20)]);
        begin(&mut front, now);
        claim(&mut front, &[(1, 1), (2, 1), (3, 1)], &[(1, 10), (2, 21), (3, 30)]);
        // The look began before the claims.
        front.absorb(look(vec![lane(1, 10, Some(1)), lane(2, 21, Some(2)), lane(3, 30, None)]), |_| true, now);
        assert_eq!(left(&front), [(2, 21, Some(1)), (3, 30, None)]);
    }

    #[test]
    fn what_was_claimed_before_a_look_saw_the_lane_is_not_subtracted_from_what_it_saw() {
        let (mut front, now) = (Front::default(), Instant::now());
        begin(&mut front, now);
        front.absorb(look(vec![lane(1, 10, None)]), |_| true, now);
        begin(&mut front, now);
        claim(&mut front, &[(1, 3)], &[(1, 10), (1, 11), (1, 12)]);
        // The look began before the claim, and read this lane after it.
        front.absorb(look(vec![lane(1, 13, Some(2))]), |_| true, now);
        assert_eq!(left(&front), [(1, 12, Some(2))]);
        begin(&mut front, now);
        claim(&mut front, &[(1, 1)], &[(1, 13)]);
        claim(&mut front, &[(1, 1)], &[(1, 14)]);
        // It read the lane between two claims: no number is right, so the lane is asked.
        front.absorb(look(vec![lane(1, 14, Some(6))]), |_| true, now);
        assert_eq!(left(&front), [(1, 14, None)]);
    }

    #[test]
    fn a_job_that_came_back_behind_the_mark_is_found_although_the_lane_is_claimed_from_meanwhile() {
        let (mut front, now) = (Front::default(), Instant::now());
        begin(&mut front, now);
        front.absorb(look(vec![lane(1, 10, None)]), |_| true, now);
        claim(&mut front, &[(1, 3)], &[(1, 10), (1, 11), (1, 12)]);
        begin(&mut front, now);
        claim(&mut front, &[(1, 2)], &[(1, 13), (1, 14)]);
        // 11 was given back before the look.
        front.absorb(look(vec![lane(1, 11, None)]), |_| true, now);
        assert_eq!(left(&front), [(1, 10, None)]);
    }

    #[test]
    fn lanes_stay_known_where_there_are_many_and_old_ones_are_looked_up_again() {
        let (mut front, began) = (Front::default(), Instant::now());
        begin(&mut front, began);
        front.absorb(look(vec![lane(1, 10, Some(2)), lane(2, 20, Some(1))]), |_| true, began);
        let soon = began + FRESH / 2;
        assert_eq!(begin(&mut front, soon), Question { flows: Vec::new(), kept: 2 });
        claim(&mut front, &[(2, 1)], &[(2, 20)]);
        front.absorb(look(vec![lane(3, 30, Some(1))]), |_| true, soon);
        assert_eq!(left(&front), [(1, i64::MIN, Some(2)), (3, i64::MIN, Some(1))], "2 was used up meanwhile");
        let later = began + FRESH * 5 / 4;
        assert_eq!(begin(&mut front, later), Question { flows: vec![1], kept: 1 });
        // 1 was not found again: another worker has taken its jobs. No paused lane stays.
        front.absorb(look(vec![lane(4, 40, Some(1))]), |lane| lane.flow != 3, later);
        assert_eq!(left(&front), [(4, i64::MIN, Some(1))]);
        // Where a look finds all lanes, what it does not find is gone.
        front.absorb(Look { is_all: true, ..look(vec![lane(5, 50, Some(1))]) }, |_| true, later);
        assert_eq!(begin(&mut front, later), Question::default());
        front.absorb(Look { is_all: true, ..look(Vec::new()) }, |_| true, later);
        assert!(front.is_dry());
    }

    #[test]
    fn the_turn_of_a_lower_priority_is_told_when_the_one_before_has_run_dry() {
        let (mut front, now) = (Front::default(), Instant::now());
        let low = Lane { prio: 1, ..lane(1, 11, None) };
        front.absorb(look(vec![lane(1, 10, Some(1)), low, lane(2, 20, Some(1))]), |_| true, now);
        let take = |flow| [Take { flow, prio: 0, after: i64::MIN, count: 1 }];
        let nothing = Claim { jobs: Vec::new(), is_cut: false };
        assert!(!front.remember(&take(2), &nothing), "nothing waits behind it");
        assert!(front.remember(&take(1), &nothing));
        assert_eq!(front.heads().len(), 1);
    }

    #[test]
    fn the_next_look_begins_before_the_lanes_are_used_up() {
        let (mut front, now) = (Front::default(), Instant::now());
        let many = i64::try_from(2 * FEW).unwrap();
        begin(&mut front, now);
        front.absorb(look((0..many).map(|flow| lane(flow, flow, Some(1))).collect()), |_| true, now);
        for flow in 0..many {
            assert_eq!(front.is_nearly_dry(), flow >= many / 2, "{flow}");
            claim(&mut front, &[(flow, 1)], &[(flow, flow)]);
        }
        assert!(front.is_dry());
    }
}
