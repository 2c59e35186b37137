//! The one loop that takes jobs from the queue: as many as have a place here and may be started now, no more.

use super::plan::Plan;
use super::suspects;
use super::{Shared, Sign};
use crate::domain::fair::{Demand, Turns};
use crate::domain::{JobId, Timestamp};
use crate::store::claim::{Claim, Claimed, Lane, Lease, Take};
use crate::store::{StoreError, within};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// The queue is looked over for new lanes this often while there is work, …
const LOOK_BUSY: Duration = Duration::from_millis(250);
/// … and at first this often, doubling up to a second, while there is none.
const LOOK_IDLE_MIN: Duration = Duration::from_millis(50);
const LOOK_IDLE_MAX: Duration = Duration::from_secs(1);
/// However long a look takes, the next one comes after this long.
const LOOK_SLOW_MAX: Duration = Duration::from_secs(2);
/// The claim loop turns at least this often, which is what the watchdog watches.
const TURN_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// Free places are worth a claim of their own when there are this many, or after [`GATHER`].
const WORTH_A_CLAIM: usize = 64;
const GATHER: Duration = Duration::from_millis(4);
/// What takes longer is tried again on another connection: well below the watchdog of the service.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// A claim whose commit went through although nobody heard of it is found within this time.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// A claim takes at most this many jobs.
const MAX_CLAIM: usize = 500;

/// What is known of a lane.
struct LaneState {
    lane: Lane,
    /// Everything up to here was taken.
    after: i64,
    /// Nothing was left at the last claim.
    dry: bool,
}

struct Claimer {
    shared: Arc<Shared>,
    /// When what the queue says of this worker is compared with what it knows.
    compare_at: Instant,
    lanes: HashMap<(i64, i16), LaneState>,
    turns: Turns,
    look_at: Instant,
    idle_look: Duration,
    paused: HashSet<(String, String)>,
    suspects: suspects::Waiting,
    warned: HashSet<String>,
    /// What a request took in memory on average at the last claim, in bytes.
    typical_bytes: usize,
    /// Claims that ended before they had come to the last lane. Another lane is the first after each of them.
    cuts: usize,
}

/// Runs until the worker stops, or until nothing is left where the settings say so.
pub(super) async fn run(shared: Arc<Shared>, sign: Arc<impl Fn(Sign)>) {
    let mut claimer = Claimer {
        shared,
        compare_at: Instant::now() + COMPARE_EVERY,
        lanes: HashMap::new(),
        turns: Turns::default(),
        look_at: Instant::now(),
        idle_look: LOOK_IDLE_MIN,
        paused: HashSet::new(),
        suspects: suspects::Waiting::default(),
        warned: HashSet::new(),
        typical_bytes: 0,
        cuts: 0,
    };
    let shared = Arc::clone(&claimer.shared);
    let mut is_away = false;
    while !shared.stop.is_cancelled() {
        sign(Sign::Alive);
        let turn = claimer.turn().await;
        if turn.is_ok() && is_away {
            tracing::info!("claiming again");
            is_away = false;
        }
        let sleep = match turn {
            Ok(Turn::Again) => continue,
            Ok(Turn::Sleep(duration)) => duration.min(TURN_AT_LEAST_EVERY),
            Ok(Turn::Done) => return,
            Err(error) => {
                if !is_away {
                    tracing::warn!(error = %error, "cannot claim; trying again every second");
                }
                is_away = true;
                // Whatever may be free now, there is nothing to be had for it.
                tokio::select! {
                    () = tokio::time::sleep(TURN_AT_LEAST_EVERY) => {}
                    () = shared.stop.cancelled() => {}
                }
                continue;
            }
        };
        let plan = shared.plan();
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = shared.freed.notified() => {}
            () = plan.gate.changed() => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

/// What to do after a turn.
enum Turn {
    Again,
    Sleep(Duration),
    Done,
}

impl Claimer {
    async fn turn(&mut self) -> Result<Turn, StoreError> {
        if self.compare_at <= Instant::now() {
            self.give_back_unknown().await?;
        }
        if Instant::now() >= self.look_at {
            self.look().await?;
        }
        let room = self.shared.room();
        // What would have no room is better left to others; one always has, since then nothing is in hand.
        let free = self.shared.free_slots().min((room / self.typical_bytes.max(1)).max(1));
        if free == 0 || room == 0 {
            return Ok(Turn::Sleep(TURN_AT_LEAST_EVERY));
        }
        match self.suspects.turn(&self.shared, &self.paused, room).await? {
            suspects::Turn::None => {}
            suspects::Turn::Wait => return Ok(Turn::Sleep(LOOK_IDLE_MIN)),
            suspects::Turn::Start(claim) => {
                self.start(claim.jobs).await?;
                return Ok(Turn::Again);
            }
        }
        let until_look = self.look_at.saturating_duration_since(Instant::now());
        if self.lanes.values().all(|state| state.dry) {
            if self.shared.settings().until_done && self.nothing_is_left().await? {
                return Ok(Turn::Done);
            }
            return Ok(Turn::Sleep(until_look.max(Duration::from_millis(1))));
        }
        let plan = self.shared.plan();
        let (mut takes, opens) = self.choose(&plan, free);
        if takes.is_empty() {
            // Something is there and may not start: sleep until a gate opens, or something else comes.
            let now = self.shared.clock.now();
            let opens = opens.map_or(TURN_AT_LEAST_EVERY, |opens| now.until(opens));
            return Ok(Turn::Sleep(opens.min(until_look).max(Duration::from_millis(5))));
        }
        let first = self.cuts % takes.len();
        takes.rotate_left(first);
        let asked: i32 = takes.iter().map(|take| take.count).sum();
        if usize::try_from(asked).unwrap_or(0) < WORTH_A_CLAIM.min(self.shared.settings().max_in_flight / 4) {
            // A few milliseconds of patience turn ten claims of one job into one claim of ten.
            tokio::time::sleep(GATHER).await;
        }
        let claim = self.shared.store.claim_of(self.shared.worker_id(), &takes, room, Some(0));
        let claim = within(PATIENCE, "claiming jobs", claim).await?;
        self.remember(&takes, &claim);
        self.start(claim.jobs).await?;
        Ok(Turn::Again)
    }

    /// Gives back what the queue says this worker holds and it does not know of: the connection broke when a claim was being
    /// committed. Nothing is claimed meanwhile, because this is the one loop that claims. What commits after this is found
    /// the next time.
    async fn give_back_unknown(&mut self) -> Result<(), StoreError> {
        let (worker, known) = (self.shared.worker_id(), self.shared.known_fences());
        let given_back = self.shared.store.give_back_unknown(worker, &known);
        let jobs = within(PATIENCE, "comparing what is held", given_back).await?;
        if jobs > 0 {
            tracing::warn!(jobs, "gave back jobs of a claim that was committed without word of it");
        }
        self.compare_at = Instant::now() + COMPARE_EVERY;
        Ok(())
    }

    /// Looks which lanes there are, and what is paused.
    async fn look(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        let pauses = within(PATIENCE, "reading pauses", self.shared.store.pauses()).await?;
        let providers: Vec<&str> =
            pauses.iter().filter(|pause| pause.kind == "provider").map(|pause| pause.name.as_str()).collect();
        let plan = self.shared.plan();
        self.warned.retain(|route| !plan.routes.contains_key(route));
        plan.gate.set_paused(&providers, self.shared.clock.now());
        self.suspects.look(&self.shared).await?;
        self.paused = pauses.into_iter().map(|pause| (pause.kind, pause.name)).collect();
        let found = within(PATIENCE, "looking for ready jobs", self.shared.store.lanes()).await?;
        let settings = self.shared.settings();
        let only_batch = settings.only_batch.as_ref();
        let mut lanes = HashMap::with_capacity(found.len());
        for lane in found {
            if only_batch.is_some() && only_batch != lane.batch.as_ref() {
                continue;
            }
            if !plan.routes.contains_key(&lane.route) {
                if self.warned.insert(lane.route.clone()) {
                    tracing::warn!(
                        route = lane.route,
                        "jobs wait for a route that this worker does not have: add it to the configuration, or cancel them"
                    );
                }
                continue;
            }
            let key = (lane.flow, lane.prio);
            // The first job seen tells where to begin, also when one came back that had been passed before.
            let after = self.lanes.get(&key).map_or(i64::MIN, |state| state.after).min(lane.first.saturating_sub(1));
            lanes.insert(key, LaneState { lane, after, dry: false });
        }
        self.idle_look = if lanes.is_empty() { (self.idle_look * 2).min(LOOK_IDLE_MAX) } else { LOOK_IDLE_MIN };
        self.lanes = lanes;
        let wait = if self.lanes.is_empty() { self.idle_look } else { LOOK_BUSY };
        // Looking must never become the main work, however many lanes or dead rows there are. But a look that took long because
        // the database was away, or a table locked, is no reason to leave work waiting.
        self.look_at = Instant::now() + wait.max((began.elapsed() * 10).min(LOOK_SLOW_MAX));
        Ok(())
    }

    fn is_paused(&self, lane: &Lane) -> bool {
        let paused = |kind: &str, name: &str| self.paused.contains(&(kind.to_owned(), name.to_owned()));
        !self.paused.is_empty()
            && (paused("route", &lane.route)
                || paused("project", &lane.project)
                || lane.batch.as_deref().is_some_and(|batch| paused("batch", batch)))
    }

    /// How much to take from which lane, and when the earliest gate opens that is shut.
    fn choose(&mut self, plan: &Plan, free: usize) -> (Vec<Take>, Option<Timestamp>) {
        // Of each flow the lane with the highest priority; the others have to wait for it.
        let mut heads: HashMap<i64, (i64, i16)> = HashMap::new();
        for (key, state) in &self.lanes {
            if !state.dry && !self.is_paused(&state.lane) {
                let head = heads.entry(key.0).or_insert(*key);
                if key.1 < head.1 {
                    *head = *key;
                }
            }
        }
        let now = self.shared.clock.now();
        let mut routes: Vec<&str> = Vec::new();
        let mut budgets = Vec::new();
        let mut opens: Option<Timestamp> = None;
        let mut demands = Vec::new();
        let mut demanding = Vec::new();
        let mut keys: Vec<(i64, i16)> = heads.into_values().collect();
        keys.sort_unstable();
        for key in &keys {
            let Some(state) = self.lanes.get(key) else { continue };
            let route = if let Some(route) = routes.iter().position(|name| *name == state.lane.route) {
                route
            } else {
                let Some(route_plan) = plan.routes.get(&state.lane.route) else { continue };
                let (budget, next) = route_plan.budget(None, now);
                opens = [opens, next].into_iter().flatten().min();
                routes.push(&state.lane.route);
                budgets.push(budget);
                routes.len() - 1
            };
            let hurried = hurried(plan, &state.lane, budgets.get(route).copied(), now);
            let route = hurried.map_or(route, |budget| {
                // A budget of its own, under a name that no route has.
                routes.push("");
                budgets.push(budget);
                routes.len() - 1
            });
            demands.push(Demand { project: state.lane.project.clone(), flow: key.0, route });
            demanding.push((*key, state.after));
        }
        let dealt = self.turns.deal(free.min(MAX_CLAIM), &demands, &budgets);
        let takes = demanding
            .into_iter()
            .zip(dealt)
            .filter(|(_, count)| *count > 0)
            .map(|((key, after), count)| Take {
                flow: key.0,
                prio: key.1,
                after,
                count: i32::try_from(count).unwrap_or(i32::MAX),
            })
            .collect();
        (takes, opens)
    }

    /// Moves the marks, and notes which lanes gave less than they were asked for.
    fn remember(&mut self, takes: &[Take], claim: &Claim) {
        let claimed = &claim.jobs;
        let bytes = claimed.iter().fold(0_usize, |sum, job| sum.saturating_add(job.weight));
        let read = claimed.iter().filter(|job| job.weight > 0).count();
        self.cuts = self.cuts.wrapping_add(usize::from(claim.is_cut));
        self.typical_bytes = bytes.checked_div(read).unwrap_or(self.typical_bytes);
        let mut got: HashMap<(i64, i16), (i32, i64)> = HashMap::new();
        for job in claimed {
            let (count, last) = got.entry((job.flow, job.prio)).or_insert((0, i64::MIN));
            *count += 1;
            *last = (*last).max(job.lease.job.0);
        }
        for take in takes {
            let Some(state) = self.lanes.get_mut(&(take.flow, take.prio)) else { continue };
            let (count, last) = got.get(&(take.flow, take.prio)).copied().unwrap_or((0, take.after));
            state.after = state.after.max(last);
            state.dry = count < take.count && !claim.is_cut;
        }
        if claimed.is_empty() {
            self.look_at = self.look_at.min(Instant::now() + LOOK_IDLE_MIN);
        }
    }

    async fn start(&mut self, claimed: Vec<Claimed>) -> Result<(), StoreError> {
        self.shared.claimed.fetch_add(claimed.len() as u64, Ordering::Relaxed);
        let tried: Vec<Lease> =
            claimed.iter().filter(|job| job.attempts > 0 || job.crashes > 0).map(|job| job.lease).collect();
        let mut past: HashMap<JobId, Vec<_>> = HashMap::new();
        if !tried.is_empty() {
            // The jobs are ours already: without their history they cannot go on, so this is tried until it works.
            let history = loop {
                match within(PATIENCE, "reading attempts", self.shared.store.history(&tried)).await {
                    Ok(history) => break history,
                    Err(error) if !error.is_the_rows_fault() && !self.shared.stop.is_cancelled() => {
                        tracing::warn!(error = %error, "cannot read the history of claimed jobs; trying again");
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                    Err(error) => return Err(error),
                }
            };
            for attempt in history {
                past.entry(attempt.job).or_default().push(attempt);
            }
        }
        for job in claimed {
            let history = past.remove(&job.lease.job).unwrap_or_default();
            self.shared.start(job, history);
        }
        Ok(())
    }

    /// Whether a worker that is to run until the work is done has done it.
    async fn nothing_is_left(&self) -> Result<bool, StoreError> {
        if self.shared.holding.load(Ordering::Acquire) > 0 || self.shared.settler.unsettled() > 0 {
            return Ok(false);
        }
        let routes: Vec<String> = self.shared.plan().routes.keys().cloned().collect();
        let left = within(PATIENCE, "counting what is left", self.shared.store.outstanding(&routes)).await?;
        if !left {
            tracing::info!("nothing is left to do");
        }
        Ok(!left)
    }
}

/// How many jobs of a lane may be started although others of their route have to wait, because the deadline of the first
/// is near. `None`: no more than others.
fn hurried(plan: &Plan, lane: &Lane, budget_of_route: Option<usize>, now: Timestamp) -> Option<usize> {
    let deadline = lane.deadline.filter(|_| budget_of_route == Some(0))?;
    let (budget, _) = plan.routes.get(&lane.route)?.budget(Some(Timestamp(deadline.timestamp_millis())), now);
    (budget > 0).then_some(budget)
}
