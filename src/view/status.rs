//! The status: the queue, the workers, the limits, and the pauses.

pub mod buckets;
pub mod tables;

use super::alert::FiringView;
use super::bucket::BucketView;
use super::budget::BudgetView;
use super::dollars::Dollars;
use super::game_day::GameDayOnView;
use super::schedule::ScheduleView;
use super::shut::ShutView;
use super::table::{Cell, Layout, Table};
use super::waits::{LongCallsView, WhyView, wakes_at};
use super::worker::WorkerView;
use crate::domain::obstacle::{Circumstances, Obstacle, Subject};
use crate::domain::pause::{FixedWait, PauseKind};
use crate::domain::per_answer::known_cost;
use crate::domain::shut::Reason;
use crate::domain::statistics::GateStatistics;
use crate::domain::{PerAnswer, Timestamp};
use crate::store::status::{Counted, Held, PauseRecord, RouteQueue, SpentOnCalls, Status};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The whole status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusView {
    /// The database's clock.
    pub now: DateTime<Utc>,
    /// Waiting and running jobs by route; routes without any are left out.
    pub routes: Vec<RouteView>,
    /// What jobs have cost and brought lately, by route; routes without calls are left out.
    pub spent: Vec<OfRouteView>,
    /// What calls to each target have cost lately, and how many jobs they have answered.
    pub spent_by_target: Vec<OfTargetView>,
    /// From when on that counts: an hour, about 24 hours ago.
    pub spent_since: DateTime<Utc>,
    /// Live workers and, for an hour, those that died or left.
    pub workers: Vec<WorkerView>,
    /// The targets of the live workers, in the order of their names.
    pub targets: Vec<TargetView>,
    /// The keys of the live workers.
    pub keys: Vec<KeyView>,
    /// Every bucket that a worker has ever used.
    pub buckets: Vec<BucketView>,
    /// The game days that are on: calls fail on purpose.
    pub game_days: Vec<GameDayOnView>,
    /// The pauses in force.
    pub paused: Vec<PauseView>,
    pub budgets: Vec<BudgetView>,
    /// The schedules that workers have.
    pub schedules: Vec<ScheduleView>,
    /// How many alerts fire, by severity; without those of which none does.
    pub alerts: Vec<FiringView>,
    /// The folder of the private Postgres; `None`: there is another database, or it is not known which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_postgres: Option<String>,
}

/// Waiting and running jobs of one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteView {
    pub route: String,
    /// Jobs that a worker may take at once, as far as is known.
    pub ready: CountView,
    /// Why ready jobs are not taken.
    pub ready_waits_for: Vec<HeldView>,
    /// The earliest time at which one of them could have been taken.
    pub oldest_ready: Option<DateTime<Utc>>,
    /// Jobs in workers' hands.
    pub running: i64,
    /// Their calls that have had no answer for a minute or longer.
    pub long_calls: Option<LongCallsView>,
    /// Why those jobs do not go on: their workers have died, and none runs that takes them over.
    pub running_waits_for: Vec<HeldView>,
    /// Jobs that wait, by reason.
    pub parked: Vec<ParkedView>,
}

/// A number of jobs, counted up to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CountView {
    /// The number of jobs counted.
    pub jobs: i64,
    /// Whether there are more.
    pub or_more: bool,
}

/// Ready jobs that no worker takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldView {
    /// The reason why they are not taken.
    pub waits_for: String,
    /// The number of these jobs.
    pub count: CountView,
    /// The whole reason; several where several batches or projects are paused, the first few of them.
    pub why: Vec<WhyView>,
}

/// Jobs that wait for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParkedView {
    pub waits_for: String,
    /// The number of these jobs.
    pub count: CountView,
    /// When the first of them wakes; `None`: not by itself.
    pub wakes_at: Option<DateTime<Utc>>,
    /// The whole reason; several where several batches or projects are paused, the first few of them.
    pub why: Vec<WhyView>,
}

/// What jobs of one route have cost and brought.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfRouteView {
    pub route: String,
    #[serde(flatten)]
    pub spent: SpentView,
}

/// What calls to one target have cost and brought.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfTargetView {
    /// `provider/model`.
    pub target: String,
    #[serde(flatten)]
    pub spent: SpentView,
}

/// What calls have cost and brought.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpentView {
    /// Jobs that succeeded.
    pub answered: i64,
    /// Calls made.
    pub attempts: i64,
    /// The cost; `None`: no attempt has a known price.
    pub cost: Option<Dollars>,
    /// Money that may have been spent beside it.
    pub uncertain_cost: Dollars,
    /// Attempts whose price is unknown.
    pub unpriced_attempts: i64,
    /// Dollars per accepted answer; `None`: a price is unknown, or no job has succeeded.
    pub cost_per_answer: Option<Dollars>,
    #[serde(skip)]
    per_answer: PerAnswer,
}

impl SpentView {
    /// The money per accepted answer, as a cell of a table.
    fn per_answer(&self) -> Cell {
        self.per_answer.into()
    }
}

/// A pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PauseView {
    /// `route`, `project`, `batch` or `provider`.
    pub kind: String,
    pub name: String,
    /// Since when it is paused.
    pub since: DateTime<Utc>,
    /// The operator's reason.
    pub reason: Option<String>,
    /// The login that paused it.
    pub by: Option<String>,
}

/// One target, as several workers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TargetView {
    /// `provider/model`.
    pub target: String,
    pub bucket: Option<String>,
    /// The number of workers by the state of their breaker.
    pub breakers: BTreeMap<String, usize>,
    /// Why it is not called, if it is not: as the first worker says that says so, until the last of them calls it.
    pub shut: Option<ShutView>,
    /// What is known of the failure behind that: the provider's words, or what failed and how often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The routes whose jobs pass it over although it may be called: its answers to them are slow or rejected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOverView>,
    /// How many different requests have lately had the very same long answer from it; absent: too few to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck_answer: Option<StuckAnswerView>,
    /// Whether its provider is paused.
    pub paused: bool,
    /// Calls of all workers.
    pub calls: i64,
    /// Those of them that failed.
    pub failures: i64,
}

/// One long text that a target gives to different requests: perhaps a cache of the provider got stuck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StuckAnswerView {
    /// The most requests that one worker has seen it given to, of the latest answers.
    pub requests: u64,
    /// Since when a worker sees it.
    pub since: Option<DateTime<Utc>>,
    /// How many workers see it.
    pub workers: usize,
}

/// A target that jobs of a route pass over while another rung may be called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PassedOverView {
    pub route: String,
    /// Whether its answers are slow or rejected, since when, and when single jobs find out whether they still are.
    pub shut: Option<ShutView>,
    /// What was counted: `slow_answers`, `soft_failures` or `wasted_tokens`.
    pub indicator: Option<String>,
    /// The count in words.
    pub found: Option<String>,
    /// How many workers go by it.
    pub workers: usize,
}

impl PassedOverView {
    /// `18 of the last 20 answers were rejected (schema_mismatch 15, empty 3)`.
    #[must_use]
    pub fn in_words(&self) -> &str {
        let is_slow = self.shut.as_ref().and_then(|shut| shut.reason.as_deref()) == Some(Reason::Slow.as_str());
        self.found.as_deref().unwrap_or(if is_slow { "its answers are slow" } else { "its answers are rejected" })
    }
}

/// One key, as a worker sees it. A key is out of service for one worker at a time, as each has its own experience with
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyView {
    pub provider: Option<String>,
    /// Its name.
    pub key: Option<String>,
    pub worker: i64,
    /// Whether it is in service.
    pub state: Option<String>,
    /// Why it is not in service, since when, and when it is tried again.
    pub shut: Option<ShutView>,
}

impl From<Counted> for CountView {
    fn from(counted: Counted) -> Self {
        Self { jobs: counted.rows, or_more: counted.more }
    }
}

impl CountView {
    /// `100000+` where counting stopped.
    #[must_use]
    pub fn in_short(self) -> String {
        format!("{}{}", self.jobs, if self.or_more { "+" } else { "" })
    }
}

impl RouteView {
    /// Why its jobs do not go on: how many, what they are otherwise, and the reasons.
    pub fn waits(&self) -> impl Iterator<Item = (CountView, &'static str, &[WhyView])> {
        let ready = self.ready_waits_for.iter().map(|held| (held.count, "ready", held.why.as_slice()));
        let parked = self.parked.iter().map(|parked| (parked.count, "waiting", parked.why.as_slice()));
        let running = self.running_waits_for.iter().map(|held| (held.count, "running", held.why.as_slice()));
        ready.chain(parked).chain(running)
    }

    fn of(route: String, queue: RouteQueue, known: &Circumstances) -> Self {
        let whys = |code: &str, held: &Held| whys(&route, code, held, known);
        let held: Vec<HeldView> = queue
            .held
            .into_iter()
            .map(|(code, held)| HeldView { why: whys(&code, &held), waits_for: code, count: held.count.into() })
            .collect();
        let parked: Vec<ParkedView> = queue
            .parked
            .into_iter()
            .map(|(code, held)| ParkedView {
                why: whys(&code, &held),
                wakes_at: held.wakes_at.and_then(|first| wakes_at(&code, first)),
                waits_for: code,
                count: held.count.into(),
            })
            .collect();
        let abandoned = (queue.running > 0 && known.workers.is_empty()).then(|| {
            let code = FixedWait::NoWorker.as_str();
            let subject = Subject { route: &route, ..Subject::default() };
            let why = vec![WhyView::of(&Obstacle::of(code, subject, known), None)];
            HeldView { waits_for: code.to_owned(), count: CountView { jobs: queue.running, or_more: false }, why }
        });
        Self {
            running_waits_for: abandoned.into_iter().collect(),
            route,
            ready: queue.ready.into(),
            ready_waits_for: held,
            oldest_ready: queue.oldest_ready,
            running: queue.running,
            long_calls: queue.long_calls.as_ref().map(LongCallsView::from),
            parked,
        }
    }
}

/// The most pauses that are told apart for one reason.
const PAUSES: usize = 3;

/// The whole reason of a wait, or several where several batches or projects are paused.
fn whys(route: &str, code: &str, held: &Held, known: &Circumstances) -> Vec<WhyView> {
    let subject =
        Subject { route, rests_until: held.wakes_at.map(|at| Timestamp(at.timestamp_millis())), ..Subject::default() };
    let paused = FixedWait::read(code).and_then(FixedWait::paused);
    let subjects: Vec<Subject<'_>> = match paused {
        Some(PauseKind::Batch) => {
            held.names.iter().map(|name| Subject { batch: Some(name), ..subject }).take(PAUSES).collect()
        }
        Some(PauseKind::Project) => {
            held.names.iter().map(|name| Subject { project: Some(name), ..subject }).take(PAUSES).collect()
        }
        _ => vec![subject],
    };
    subjects.into_iter().map(|subject| WhyView::of(&Obstacle::of(code, subject, known), None)).collect()
}

impl From<SpentOnCalls> for SpentView {
    fn from(SpentOnCalls { attempts, spent }: SpentOnCalls) -> Self {
        let per_answer = spent.per_answer();
        Self {
            answered: spent.accepted,
            attempts,
            cost: known_cost(spent.cost, spent.unpriced, attempts).map(Dollars),
            uncertain_cost: Dollars(spent.uncertain),
            unpriced_attempts: spent.unpriced,
            cost_per_answer: per_answer.amount().map(Dollars),
            per_answer,
        }
    }
}

impl From<PauseRecord> for PauseView {
    fn from(PauseRecord { kind, name, since, reason, by }: PauseRecord) -> Self {
        Self { kind, name, since, reason, by }
    }
}

impl From<Status> for StatusView {
    fn from(status: Status) -> Self {
        let workers: Vec<WorkerView> = status.workers.into_iter().map(WorkerView::from).collect();
        let known = Circumstances {
            now: Timestamp(status.now.timestamp_millis()),
            pauses: status.pauses.iter().filter_map(PauseRecord::known).collect(),
            budgets: status.budgets.iter().map(|row| row.standing.clone()).collect(),
            workers: workers.iter().filter(|worker| worker.is_alive).map(|worker| worker.said.clone()).collect(),
        };
        Self {
            now: status.now,
            routes: status.routes.into_iter().map(|(name, queue)| RouteView::of(name, queue, &known)).collect(),
            spent: (status.spending.routes.into_iter())
                .map(|(route, spent)| OfRouteView { route, spent: spent.into() })
                .collect(),
            spent_by_target: (status.spending.targets.into_iter())
                .map(|(target, spent)| OfTargetView { target, spent: spent.into() })
                .collect(),
            spent_since: status.spending.since,
            game_days: GameDayOnView::all(
                workers.iter().filter(|worker| worker.is_alive).flat_map(|worker| &worker.said.game_days),
            ),
            targets: targets(&workers),
            keys: keys(&workers),
            workers,
            buckets: status.buckets.iter().map(|(name, standing)| BucketView::of(name, standing)).collect(),
            paused: status.pauses.into_iter().map(PauseView::from).collect(),
            schedules: ScheduleView::all(&status.schedules, &[], &status.ticks, status.now),
            alerts: status.firing.into_iter().map(|(severity, firing)| FiringView { severity, firing }).collect(),
            budgets: (status.budgets.iter())
                .map(|row| {
                    let need = status.needs.get(&row.standing.budget.name).copied();
                    BudgetView::of(row, status.now).beside(need, Vec::new())
                })
                .collect(),
            private_postgres: None,
        }
    }
}

impl StatusView {
    /// What jobs have cost and brought lately, a row for each route.
    #[must_use]
    pub fn spent_table(&self) -> Table {
        let mut table =
            Table::new(["route", "answered", "attempts", "cost", "cost_per_answer", "uncertain", "unpriced"]).laid_out(
                Layout {
                    when_told: &["uncertain", "unpriced"],
                    give_way: &["uncertain", "unpriced", "attempts", "answered", "cost_per_answer"],
                    ..Layout::default()
                },
            );
        for OfRouteView { route, spent } in &self.spent {
            table.row([
                route.as_str().into(),
                spent.answered.into(),
                spent.attempts.into(),
                spent.cost.into(),
                spent.per_answer.into(),
                Cell::from(spent.uncertain_cost),
                spent.unpriced_attempts.into(),
            ]);
        }
        table
    }

    /// The names of the buckets that live workers have.
    #[must_use]
    pub fn buckets_in_use(&self) -> BTreeSet<&str> {
        let buckets = gates(&self.workers).flat_map(|(_, gate)| &gate.buckets);
        buckets.filter_map(|bucket| bucket.name.as_deref()).collect()
    }
}

/// The gates of the live workers, as these report them.
fn gates(workers: &[WorkerView]) -> impl Iterator<Item = (i64, &GateStatistics)> {
    let alive = workers.iter().filter(|worker| worker.is_alive);
    alive.map(|worker| (worker.worker, &worker.said.gate))
}

fn targets(workers: &[WorkerView]) -> Vec<TargetView> {
    let mut views: BTreeMap<&str, TargetView> = BTreeMap::new();
    for said in gates(workers).flat_map(|(_, gate)| &gate.targets) {
        let Some(name) = said.target.as_deref() else { continue };
        let view = views.entry(name).or_insert_with(|| TargetView { target: name.to_owned(), ..TargetView::default() });
        view.bucket = view.bucket.take().or_else(|| said.bucket.clone());
        if let Some(breaker) = said.breaker.as_deref() {
            *view.breakers.entry(breaker.to_owned()).or_default() += 1;
        }
        if let Some(shut) = said.shut.as_ref().map(ShutView::from) {
            let until = shut.until;
            let all = view.shut.get_or_insert(shut);
            all.until = all.until.max(until);
        }
        view.said = view.said.take().or_else(|| said.said.clone());
        for weak in &said.weak {
            let Some(route) = weak.route.as_deref() else { continue };
            let shut = weak.shut.as_ref().map(ShutView::from);
            if let Some(known) = view.passed_over.iter_mut().find(|known| known.route == route) {
                known.workers += 1;
                known.found = known.found.take().or_else(|| weak.found.clone());
            } else {
                view.passed_over.push(PassedOverView {
                    route: route.to_owned(),
                    shut,
                    indicator: weak.indicator.as_deref().map(str::to_owned),
                    found: weak.found.clone(),
                    workers: 1,
                });
            }
        }
        if let Some(stuck) = said.stuck {
            let since = stuck.since_ms.and_then(DateTime::from_timestamp_millis);
            let all = view.stuck_answer.get_or_insert_with(StuckAnswerView::default);
            all.requests = all.requests.max(stuck.requests);
            all.since = [all.since, since].into_iter().flatten().min();
            all.workers += 1;
        }
        view.paused |= said.paused;
        view.calls = view.calls.saturating_add(said.calls.unwrap_or(0));
        view.failures = view.failures.saturating_add(said.failures.unwrap_or(0));
    }
    views.into_values().collect()
}

fn keys(workers: &[WorkerView]) -> Vec<KeyView> {
    let keys = gates(workers).flat_map(|(worker, gate)| gate.keys.iter().map(move |key| (worker, key)));
    keys.map(|(worker, key)| {
        let shut = key.shut.as_ref().map(ShutView::from);
        let state = key.state.as_deref().map(str::to_owned);
        KeyView { provider: key.provider.clone(), key: key.key.clone(), worker, state, shut }
    })
    .collect()
}
