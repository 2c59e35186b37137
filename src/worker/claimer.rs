//! The one loop that takes jobs from the queue: only as many as have a place here and may be started now.

use super::dealing::Dealing;
use super::front::Front;
use super::plan::Plan;
use super::strangers::Strangers;
use super::suspects::{self, Due};
use super::{LifeSign, Shared};
use super::{history, money};
use crate::domain::budget::Budgets;
use crate::domain::decide::{Skip, Startable};
use crate::domain::pause::{PauseKind, Pauses};
use crate::domain::rotation::Rotation;
use crate::domain::shut::Reason;
use crate::domain::{JobId, Timestamp, shadow};
use crate::store::claim::{Claim, Claimed, Lease, Suspects, Take, Terms};
use crate::store::lanes::{Lane, Look};
use crate::store::settle::Labels;
use crate::store::{StoreError, budget, within};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// While there is work, the claimer looks for new lanes this often, …
const LOOK_BUSY: Duration = Duration::from_millis(250);
/// … and while there is none, at first this often, doubling up to a second.
const LOOK_IDLE_MIN: Duration = Duration::from_millis(50);
const LOOK_IDLE_MAX: Duration = Duration::from_secs(1);
/// However long a look takes, the next one comes after this long at the latest.
const LOOK_SLOW_MAX: Duration = Duration::from_secs(2);
/// After this many looks in vain an idle worker slows down, however many lanes there are.
const IN_VAIN: u32 = 1_000;
/// Where budgets stand is read again after this long, however often it is looked for lanes. That they hold does not
/// depend on it: each call asks them.
const BUDGETS_EVERY: Duration = Duration::from_millis(250);
/// Lanes whose route has to wait for longer than this are not kept for the next look where there are many.
const SOON: Duration = Duration::from_secs(10);
/// The claim loop turns at least this often, which is what the watchdog watches.
const TURN_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// Free places are worth a claim of their own when there are this many, or after [`GATHER`].
const WORTH_A_CLAIM: usize = 64;
const GATHER: Duration = Duration::from_millis(4);
/// A statement that takes longer is tried again on another connection: well below the service's watchdog.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The last look visits each lane, however many there are.
const LAST_LOOK: Duration = Duration::from_mins(1);
/// A claim whose commit went through although its reply was lost is found within this time.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// A claim takes at most this many jobs.
const MAX_CLAIM: usize = 500;

/// The answers to what a look asks.
struct Looked {
    began: Instant,
    took: Duration,
    rotation: Rotation,
    found: Result<Found, StoreError>,
}

/// What a look has found.
struct Found {
    pauses: Pauses,
    /// `None`: those that are known.
    budgets: Option<budget::Look>,
    suspects: Vec<Suspects>,
    lanes: Look,
}

struct Claimer {
    shared: Arc<Shared>,
    sign: Arc<dyn Fn(LifeSign) + Send + Sync>,
    /// When the jobs in this worker's hands by the queue's account are next compared with those that it knows of.
    compare_at: Instant,
    front: Front,
    /// The look that is under way.
    looking: JoinSet<Looked>,
    rotation: Rotation,
    dealing: Dealing,
    /// Where budgets stand, with the jobs claimed since the last look.
    budgets: Budgets,
    /// Which budgets those are, …
    budget_version: i64,
    /// … and until when that knowledge of them will do.
    budgets_until: Instant,
    look_at: Instant,
    idle_look: Duration,
    suspects: suspects::Waiting,
    /// Consecutive looks that found many lanes and no job that may be claimed.
    in_vain: u32,
    strangers: Strangers,
    budget_faults: money::Faults,
    /// Average bytes of memory that a request took at the last claim.
    typical_bytes: usize,
    /// Claims that ended before they reached the last lane. Each of them moves the start to another lane.
    cuts: usize,
    /// The last claim was one of these.
    was_cut: bool,
}

/// Runs until the worker stops, or until no work is left where the settings say so.
pub(super) async fn run(shared: Arc<Shared>, sign: Arc<dyn Fn(LifeSign) + Send + Sync>) {
    let worker = shared.worker_id();
    let mut claimer = Claimer {
        shared,
        sign,
        compare_at: Instant::now() + COMPARE_EVERY,
        front: Front::default(),
        looking: JoinSet::new(),
        rotation: Rotation::of_worker(worker),
        dealing: Dealing::default(),
        budgets: Budgets::default(),
        budget_version: 0,
        budgets_until: Instant::now(),
        look_at: Instant::now(),
        idle_look: LOOK_IDLE_MIN,
        suspects: suspects::Waiting::default(),
        in_vain: 0,
        strangers: Strangers::default(),
        budget_faults: money::Faults::default(),
        typical_bytes: 0,
        cuts: 0,
        was_cut: false,
    };
    let shared = Arc::clone(&claimer.shared);
    let mut is_away = false;
    while !shared.stop.is_cancelled() {
        claimer.goes_on();
        let turn = claimer.turn().await;
        shared.settler.counters().denied.note("no jobs are taken", &turn);
        if turn.is_ok() && is_away {
            tracing::info!("claiming again");
            is_away = false;
        }
        let sleep = match turn {
            Ok(NextStep::Again) => continue,
            Ok(NextStep::Sleep(duration)) => duration.min(TURN_AT_LEAST_EVERY),
            Ok(NextStep::Done) => return,
            Err(error) => {
                if !is_away {
                    tracing::warn!(error = %error, "cannot claim; trying again every second");
                }
                is_away = true;
                // Places may be free, but there is no job for them.
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
            () = shared.hands.freed.notified() => {}
            () = plan.gate.changed() => {}
            // Its jobs went back, and where the budgets stand is known better now.
            () = shared.opener.refused() => {
                let now = Instant::now();
                (claimer.look_at, claimer.budgets_until) = (claimer.look_at.min(now + LOOK_IDLE_MIN), now);
            }
            () = shared.stop.cancelled() => {}
        }
    }
}

/// The next step after a turn.
enum NextStep {
    Again,
    Sleep(Duration),
    Done,
}

impl Claimer {
    /// Called at each turn, and within a turn after each step that may take as long as [`PATIENCE`].
    fn goes_on(&self) {
        *self.shared.claimer_went_on.lock() = Instant::now();
        (self.sign)(LifeSign::Alive);
    }

    async fn turn(&mut self) -> Result<NextStep, StoreError> {
        if self.compare_at <= Instant::now() {
            self.give_back_unknown().await?;
            self.goes_on();
        }
        self.look().await?;
        let room = self.shared.room();
        // Jobs without room here are better left to other workers. With nothing in hand one job always has room.
        let free = self.shared.free_slots().min((room / self.typical_bytes.max(1)).max(1));
        if free == 0 || room == 0 {
            return Ok(NextStep::Sleep(TURN_AT_LEAST_EVERY));
        }
        match self.suspects.turn(&self.shared, room).await? {
            Due::None => {}
            Due::Wait => return Ok(NextStep::Sleep(LOOK_IDLE_MIN)),
            Due::Start(claim) => {
                self.start(claim.jobs).await?;
                return Ok(NextStep::Again);
            }
        }
        let until_look = self.look_at.saturating_duration_since(Instant::now());
        if self.front.is_dry() {
            let may_be_done = !self.front.has_more || self.in_vain > 0;
            if may_be_done && self.shared.settings().until_done && self.nothing_is_left().await? {
                return Ok(NextStep::Done);
            }
            return Ok(NextStep::Sleep(until_look.max(Duration::from_millis(1))));
        }
        let plan = self.shared.plan();
        let now = self.shared.clock.now();
        // Half of the places stay free of shadows, for jobs that come while these are under way.
        let for_shadows = free.saturating_sub(self.shared.settings().max_in_flight / 2);
        let most = (free.min(MAX_CLAIM), for_shadows);
        let (mut takes, opens) = self.dealing.choose(&self.front, &plan, most, now);
        self.keep_within_budgets(&mut takes);
        if takes.is_empty() {
            if self.shared.settings().until_done && self.nothing_is_left().await? {
                return Ok(NextStep::Done);
            }
            // There are jobs that may not start: sleep until a gate opens, or until new jobs come.
            let opens = opens.map_or(TURN_AT_LEAST_EVERY, |opens| now.until(opens));
            return Ok(NextStep::Sleep(opens.min(until_look).max(Duration::from_millis(5))));
        }
        let first = self.cuts % takes.len();
        takes.rotate_left(first);
        let asked = takes.iter().map(|take| usize::try_from(take.count).unwrap_or(0)).sum::<usize>();
        if asked < free.min(MAX_CLAIM) && self.front.is_worth_a_look() {
            // The rest of this window may not start, and there are more lanes behind it.
            self.look_at = Instant::now();
        }
        if asked < WORTH_A_CLAIM.min(self.shared.settings().max_in_flight / 4) {
            // A few milliseconds of patience turn ten claims of one job into one claim of ten.
            tokio::time::sleep(GATHER).await;
        }
        // After a claim that was cut, the order of the lanes counts, and those with a known place would come last.
        let places: Vec<Option<String>> =
            if self.was_cut { Vec::new() } else { takes.iter().map(|take| self.front.place(take)).collect() };
        let worker = self.shared.worker_id();
        let terms = Terms { room, members: &plan.members, weigh: &|route, body| plan.weight(route, body) };
        let claim = self.shared.store.claim_of(worker, &takes, &places, Some(0), &terms);
        let claim = within(PATIENCE, "claiming jobs", claim).await.inspect_err(|_| self.dealing.begin_anew())?;
        self.goes_on();
        self.remember(&takes, &claim);
        self.start(claim.jobs).await?;
        Ok(NextStep::Again)
    }

    /// Takes no more jobs than budgets have money for, by the last look. The jobs taken here are noted until the next
    /// look.
    fn keep_within_budgets(&mut self, takes: &mut Vec<Take>) {
        if self.budgets.0.is_empty() {
            return;
        }
        let asked: i32 = takes.iter().map(|take| take.count).sum();
        for take in &mut *takes {
            let Some(lane) = self.front.lane((take.flow, take.prio)) else { continue };
            let lane = money::of_lane(lane);
            let most = if self.budgets.held_back(&lane).is_some() { Some(0) } else { self.budgets.calls_left(&lane) };
            let most = most.map_or(i32::MAX, |most| i32::try_from(most).unwrap_or(i32::MAX));
            take.count = take.count.min(most);
            self.budgets.take(&lane, usize::try_from(take.count).unwrap_or(0));
        }
        takes.retain(|take| take.count > 0);
        if takes.iter().map(|take| take.count).sum::<i32>() < asked {
            self.dealing.begin_anew();
        }
    }

    /// Gives back the jobs that this worker holds according to the queue and does not know of: the connection broke
    /// while a claim was being committed. No job is claimed meanwhile, because this is the only loop that claims. A
    /// claim that commits later is found the next time.
    async fn give_back_unknown(&mut self) -> Result<(), StoreError> {
        let (worker, known) = (self.shared.worker_id(), self.shared.known_fences());
        let given_back = self.shared.store.give_back_unknown(worker, &known);
        let jobs = within(PATIENCE, "comparing what is held", given_back).await?;
        if jobs > 0 {
            tracing::warn!(jobs, "gave back jobs of a claim whose commit went through but whose reply was lost");
        }
        self.compare_at = Instant::now() + COMPARE_EVERY;
        Ok(())
    }

    /// Looks up the lanes that have jobs, and the pauses, when it is time to. While there are other lanes to claim
    /// from, the answer is not waited for.
    async fn look(&mut self) -> Result<(), StoreError> {
        if self.looking.is_empty() && (Instant::now() >= self.look_at || self.front.is_nearly_dry()) {
            self.begin_look();
        }
        let looked = if self.front.has_more && !self.front.is_dry() {
            self.looking.try_join_next()
        } else {
            self.looking.join_next().await
        };
        match looked {
            None => Ok(()),
            Some(Ok(looked)) => {
                self.goes_on();
                self.rotation = looked.rotation;
                self.absorb(looked.began, looked.took, looked.found?);
                Ok(())
            }
            Some(Err(ended)) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only this loop could end it, and does not.
                Err(_) => Ok(()),
            },
        }
    }

    fn begin_look(&mut self) {
        let began = Instant::now();
        let (plan, now) = (self.shared.plan(), self.shared.clock.now());
        let question = self.front.begin_look(self.dealing.turns(), |route| may_start_soon(&plan, route, now), began);
        let (store, mut rotation) = (self.shared.store.clone(), std::mem::take(&mut self.rotation));
        let known = self.budget_version;
        let will_do = self.budgets.0.is_empty() || began < self.budgets_until;
        self.looking.spawn(async move {
            let found = within(PATIENCE, "looking for ready jobs", async {
                // The lanes first: a pause or a budget that was there before the jobs came is seen with them.
                let lanes = store.look(&mut rotation, &question.flows, question.kept).await?;
                let (pauses, version) = store.pauses_and_budgets().await?;
                let budgets = if version == known && will_do { None } else { Some(store.budgets().await?) };
                let suspects = store.suspects().await?;
                Ok(Found { pauses, budgets, suspects, lanes })
            });
            let found = found.await;
            Looked { began, took: began.elapsed(), rotation, found }
        });
    }

    fn absorb(&mut self, began: Instant, took: Duration, found: Found) {
        let Found { pauses, budgets, suspects, lanes: look } = found;
        let plan = self.shared.plan();
        let providers: Vec<&str> = pauses.names(PauseKind::Provider).collect();
        plan.gate.set_paused(&providers, self.shared.clock.now());
        self.suspects.note(suspects);
        let pauses = Arc::new(pauses);
        self.shared.pauses.store(Arc::clone(&pauses));
        self.shared.held_up.lock().note_pauses(&pauses, self.shared.clock.now());
        if let Some(budget::Look { version, budgets }) = budgets {
            let shared_budgets = Arc::new(budgets.clone());
            self.shared.budgets.store(Arc::clone(&shared_budgets));
            self.dealing.budgets = shared_budgets;
            (self.budgets, self.budget_version, self.budgets_until) = (budgets, version, began + BUDGETS_EVERY);
        }
        self.budget_faults.look(&self.budgets, &plan);
        // The plan may be another one.
        plan.gate.set_budgets(&self.shared.budgets.load(), self.shared.clock.now());
        let settings = self.shared.settings();
        // The jobs of others are no business of a worker that works on one batch.
        if settings.only_batch.is_none() {
            self.strangers.look(&look.lanes, |route| plan.routes.contains_key(route));
        }
        let budgets = &self.budgets;
        let may_claim = |lane: &Lane| {
            plan.routes.contains_key(&lane.route)
                && settings.only_batch.as_ref().is_none_or(|batch| lane.batch.as_ref() == Some(batch))
                && pauses.held_back(&lane.route, &lane.project, lane.batch.as_deref()).is_none()
                && budgets.held_back(&money::of_lane(lane)).is_none()
        };
        if !budgets.0.is_empty() {
            let (mut held_up, now) = (self.shared.held_up.lock(), self.shared.clock.now());
            for lane in &look.lanes {
                if let Some(standing) = budgets.held_back(&money::of_lane(lane)) {
                    let labels = Labels {
                        route: lane.route.clone(),
                        project: lane.project.clone(),
                        batch: lane.batch.clone(),
                        login: lane.login.clone(),
                    };
                    held_up.note_budget(labels, &standing.budget.name, now);
                }
            }
        }
        let is_all = look.is_all;
        self.front.absorb(look, may_claim, began);
        self.dealing.begin_anew();
        let now = self.shared.clock.now();
        let has_found = self.front.routes().into_iter().any(|route| is_all || may_start_soon(&plan, route, now));
        self.in_vain = if has_found || is_all { 0 } else { self.in_vain.saturating_add(1) };
        self.idle_look = if has_found { LOOK_IDLE_MIN } else { (self.idle_look * 2).min(LOOK_IDLE_MAX) };
        // Looking must never become the main work, however many lanes or dead rows there are. But when a look took long
        // because the database was away, or a table was locked, that is no reason to leave work waiting.
        self.look_at = Instant::now()
            + if has_found {
                LOOK_BUSY.max((took * 10).min(LOOK_SLOW_MAX))
            } else if is_all || self.in_vain > IN_VAIN {
                self.idle_look.max((took * 10).min(LOOK_SLOW_MAX))
            } else {
                // Behind the lanes of this window there may be some that can be claimed from.
                LOOK_IDLE_MIN.max((took * 3).min(LOOK_SLOW_MAX))
            };
    }

    /// Moves the marks, and records which lanes gave fewer jobs than they were asked for.
    fn remember(&mut self, takes: &[Take], claim: &Claim) {
        let claimed = &claim.jobs;
        let bytes = claimed.iter().fold(0_usize, |sum, job| sum.saturating_add(job.weight));
        let read = claimed.iter().filter(|job| job.weight > 0).count();
        self.cuts = self.cuts.wrapping_add(usize::from(claim.is_cut));
        self.was_cut = claim.is_cut;
        self.typical_bytes = bytes.checked_div(read).unwrap_or(self.typical_bytes);
        if self.front.remember(takes, claim) || claim.is_cut {
            self.dealing.begin_anew();
        }
        if self.front.has_more && self.front.is_dry() {
            // The window is used up, and there are more lanes.
            self.look_at = Instant::now();
        } else if claimed.is_empty() {
            self.look_at = self.look_at.min(Instant::now() + LOOK_IDLE_MIN);
        }
    }

    /// If a connection was made since the last check, waits until the worker knows which history of the database goes
    /// on: the connection may lead to a server that lacks the last answers. These are then written again, which takes
    /// back the claims of their jobs before a call begins.
    async fn know_the_history(&self) {
        while !self.shared.stop.is_cancelled() && !history::is_known(&self.shared).await {
            self.goes_on();
            if let Err(error) = history::look(&self.shared).await {
                tracing::debug!(error = %error, "the history of the database is not known yet");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    async fn start(&mut self, claimed: Vec<Claimed>) -> Result<(), StoreError> {
        if !claimed.is_empty() {
            self.know_the_history().await;
        }
        self.shared.claimed.fetch_add(claimed.len() as u64, Ordering::Relaxed);
        let tried: Vec<Lease> =
            claimed.iter().filter(|job| job.attempts > 0 || job.crashes > 0).map(|job| job.lease).collect();
        let mut past: HashMap<JobId, Vec<_>> = HashMap::new();
        if !tried.is_empty() {
            // The jobs are ours already and cannot go on without their history, so this is tried until it works.
            let history = loop {
                match within(PATIENCE, "reading attempts", self.shared.store.history(&tried)).await {
                    Ok(history) => break history,
                    Err(error) if !error.is_the_rows_fault() && !self.shared.stop.is_cancelled() => {
                        tracing::warn!(error = %error, "cannot read the history of claimed jobs; trying again");
                        self.goes_on();
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

    /// Whether a worker that runs until the work is done has done it.
    async fn nothing_is_left(&self) -> Result<bool, StoreError> {
        if self.shared.hands.jobs() > 0 || self.shared.settler.unsettled() > 0 {
            return Ok(false);
        }
        let (plan, now) = (self.shared.plan(), self.shared.clock.now());
        let routes: Vec<String> = plan.routes.keys().filter(|route| !is_left(&plan, route, now)).cloned().collect();
        let left = within(LAST_LOOK, "counting what is left", self.shared.store.outstanding(&routes)).await?;
        if !left {
            tracing::info!("nothing is left to do");
        }
        Ok(!left)
    }
}

/// Whether a worker that runs until the work is done leaves jobs of the route behind: shadows, and what waits for a
/// person.
fn is_left(plan: &Plan, route: &str, now: Timestamp) -> bool {
    shadow::shadowed(route).is_some() || waits_for_a_person(plan, route, now)
}

/// Whether jobs of the route wait for a provider that is paused, or for the budget of one that counts once: only a
/// person ends that.
fn waits_for_a_person(plan: &Plan, route: &str, now: Timestamp) -> bool {
    let ahead = plan.any_lane(route).map(|ahead| ahead.startable(None, now));
    matches!(
        ahead,
        Some(Startable::Later { why: Skip::Shut { shut, .. }, .. })
            if shut.reason == Reason::Paused || shut.reason == Reason::Budget && shut.known_end().is_none()
    )
}

/// Whether jobs of the route may be started now or soon.
fn may_start_soon(plan: &Plan, route: &str, now: Timestamp) -> bool {
    plan.any_lane(route).is_some_and(|ahead| {
        let startable = ahead.startable(None, now);
        startable.jobs() > 0 || startable.opens().is_some_and(|opens| now.until(opens) < SOON)
    })
}
