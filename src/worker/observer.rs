//! Observes a worker while it runs, for health, status and metrics.

use super::Shared;
use super::booked::Booked;
use super::spool::Fill;
use super::traces::SpanCounts;
use crate::domain::budget::BudgetStanding;
use crate::domain::decide::Ineligible;
use crate::domain::game_day::GameDay;
use crate::domain::pause::PauseKind;
use crate::domain::shared_bucket::BucketStanding;
use crate::domain::statistics::Statistics;
use crate::domain::{ChatRequest, MustKeep, Route, Rung, Timestamp};
use crate::store::StoreError;
use crate::store::doctor::Surroundings;
use crate::store::schedule::{ScheduleRow, TickRow};
use crate::store::status::RouteQueue;
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A handle to observe a worker.
#[derive(Clone)]
pub struct Observer {
    pub(super) shared: Arc<Shared>,
}

/// What all workers share beside the work itself: pauses, schedules, alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// The kind of each pause.
    pub pauses: Vec<PauseKind>,
    pub schedules: Vec<ScheduleNotice>,
    /// How many alerts fire, by severity.
    pub firing: BTreeMap<String, i64>,
    /// How many messages wait to be taken, by receiver, and how many of them it has failed to take.
    pub undelivered: BTreeMap<String, (i64, i64)>,
}

/// A schedule and its last tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleNotice {
    pub name: String,
    /// Whether it is neither paused nor switched off.
    pub is_enabled: bool,
    /// The next tick, if it is enabled.
    pub next_tick: Option<Timestamp>,
    pub last_tick: Option<Timestamp>,
    /// Whether that has failed or is tried again.
    pub has_failed: bool,
}

/// The state of one process, in numbers.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// Its number in the worker table.
    pub worker: i64,
    /// Whether it is connected, takes jobs, and is not stopping.
    pub is_ready: bool,
    /// Time since the last heartbeat that reached the database was sent.
    pub heartbeat_age: Duration,
    /// Time since it started.
    pub uptime: Duration,
    /// Jobs in hand.
    pub in_hand: usize,
    /// The most jobs in hand.
    pub max_in_hand: usize,
    /// Approximate bytes that the requests of the jobs in hand take in memory.
    pub request_bytes: usize,
    /// With this many bytes in hand it takes no further job.
    pub max_request_bytes: usize,
    pub claimed: u64,
    /// Jobs given back.
    pub parked: u64,
    /// Outcomes that came too late: another worker had the job by then.
    pub fenced_out: u64,
    /// Outcomes that are not written yet.
    pub unsettled: u64,
    /// How full the spool is; `None`: there is none.
    pub spool: Option<Fill>,
    /// What became of the spans of traces; `None`: none are sent.
    pub spans: Option<SpanCounts>,
    /// Totals that were booked.
    pub totals: Booked,
    /// The state of the breaker of each target: `closed`, `open` or `half_open`.
    pub breakers: BTreeMap<(String, String), &'static str>,
    /// For each target that jobs of a route pass over, and the route, what is counted against it.
    pub weaknesses: BTreeMap<((String, String), String), String>,
    /// For each provider, how many keys it has and how many of them are in service.
    pub keys: BTreeMap<String, (usize, usize)>,
    /// For each provider whose health is probed, whether its probes let calls go to it.
    pub probes: BTreeMap<String, bool>,
    /// For each bucket, calls that run, calls that wait for their turn, and 429 answers so far.
    pub buckets: BTreeMap<String, (u32, u32, u64)>,
    pub routes: BTreeSet<String>,
    /// For each game day of the configuration, whether it is on.
    pub game_days: BTreeMap<String, bool>,
}

impl Observer {
    /// The statistics that the heartbeat publishes, as of now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }

    /// Whether the worker takes jobs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    /// Why the worker takes no jobs, in words; `None`: it takes jobs.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        let shared = &self.shared;
        if shared.stop.is_cancelled() {
            return Some("stopping: no more jobs are taken".to_owned());
        }
        if shared.store.takes_no_writes() {
            return Some(
                "the database takes no writes: it is a standby, or was made read-only (default_transaction_read_only); \
                 use the address of the primary, or reset that setting (sluice doctor says more)"
                    .to_owned(),
            );
        }
        let unheard = shared.unheard.lock().clone();
        if let Some(error) = unheard {
            return Some(format!("the last heartbeat did not reach the database: {error}"));
        }
        if !shared.lease_is_fresh() {
            let age = shared.last_beat().elapsed();
            return Some(format!("no heartbeat has reached the database for {} s", age.as_secs()));
        }
        if let Some(denied) = shared.settler.counters().denied.words() {
            return Some(denied);
        }
        (!shared.is_claiming()).then(|| "the claim loop has not turned for 10 s: no jobs are taken".to_owned())
    }

    /// The state of this process, as far as it knows that without the database.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let shared = &self.shared;
        let plan = shared.plan();
        let counters = shared.settler.counters();
        Vitals {
            worker: shared.worker_id(),
            is_ready: self.unready().is_none(),
            heartbeat_age: shared.last_beat().elapsed(),
            uptime: shared.started.elapsed(),
            in_hand: shared.hands.jobs(),
            max_in_hand: shared.settings().max_in_flight,
            request_bytes: shared.bytes_in_hand(),
            max_request_bytes: shared.settings().max_in_flight_bytes,
            claimed: shared.claimed.load(Ordering::Relaxed),
            parked: counters.parked.load(Ordering::Relaxed),
            fenced_out: counters.fenced_out.load(Ordering::Relaxed),
            unsettled: shared.settler.unsettled(),
            spool: shared.settler.spool().map(|spool| spool.fill()),
            spans: shared.spans.counts(),
            totals: counters.ledger.booked(),
            breakers: plan.gate.breakers(shared.clock.now()),
            weaknesses: plan.gate.weaknesses(shared.clock.now()),
            probes: plan.gate.probed(shared.clock.now()).map(|it| (it.name.to_owned(), it.is_open)).collect(),
            keys: plan.gate.keys().map(|(name, all, in_service)| (name.to_owned(), (all, in_service))).collect(),
            buckets: plan.gate.buckets().map(|bucket| (bucket.name.clone(), bucket.counts())).collect(),
            routes: plan.routes.keys().cloned().collect(),
            game_days: (shared.settings().game_days.iter())
                .map(|day| (day.name.clone(), day.is_on(shared.clock.now())))
                .collect(),
        }
    }

    /// The standing of the buckets that this process uses, as all processes share them.
    pub async fn buckets(&self) -> Result<BTreeMap<String, BucketStanding>, StoreError> {
        let mut standings = self.shared.store.standings().await?;
        let plan = self.shared.plan();
        let own: BTreeSet<&str> = plan.gate.buckets().map(|bucket| bucket.name.as_str()).collect();
        standings.retain(|name, _| own.contains(name.as_str()));
        Ok(standings)
    }

    /// The routes as they are configured now.
    #[must_use]
    pub fn routes(&self) -> BTreeMap<String, Arc<Route>> {
        let plan = self.shared.plan();
        plan.routes.iter().map(|(name, plan)| (name.clone(), Arc::clone(&plan.route))).collect()
    }

    /// Why the server of a rung can never take a request of which these members have to be kept; `None`: nothing known
    /// speaks against it.
    #[must_use]
    pub fn refusal(&self, rung: &Rung, request: &ChatRequest, must_keep: &MustKeep) -> Option<Ineligible> {
        let plan = self.shared.plan();
        let endpoint = plan.client(&rung.target.provider)?.endpoint();
        endpoint.refusal(request, &rung.target.model, &rung.model.capabilities, must_keep)
    }

    /// The game days of the configuration.
    #[must_use]
    pub fn game_days(&self) -> Arc<[GameDay]> {
        Arc::clone(&self.shared.settings().game_days)
    }

    /// What the doctor has to know of the configuration.
    #[must_use]
    pub fn surroundings(&self) -> Surroundings {
        self.shared.settings().alerts.as_ref().map(|alerts| alerts.around.clone()).unwrap_or_default()
    }

    /// Where all budgets stand.
    pub async fn budgets(&self) -> Result<Vec<BudgetStanding>, StoreError> {
        Ok(self.shared.store.budgets().await?.budgets.0)
    }

    /// The pauses, the schedules that workers have, and the alerts.
    pub async fn notices(&self) -> Result<Notices, StoreError> {
        let store = &self.shared.store;
        let ticks = store.ticks(None, 1).await?;
        let last_of: BTreeMap<&str, &TickRow> = ticks.iter().map(|tick| (tick.schedule.as_str(), tick)).collect();
        let instant = |at: DateTime<Utc>| Timestamp(at.timestamp_millis());
        let notice = |row: ScheduleRow| {
            let last = last_of.get(row.name.as_str());
            let is_enabled = row.enabled && row.paused_at.is_none();
            ScheduleNotice {
                is_enabled,
                next_tick: row.next_at.filter(|_| is_enabled).map(instant),
                last_tick: last.map(|tick| instant(tick.at)),
                has_failed: last.is_some_and(|tick| ["failed", "retrying"].contains(&tick.state.as_str())),
                name: row.name,
            }
        };
        Ok(Notices {
            pauses: store.paused_kinds().await?,
            schedules: store.schedules().await?.into_iter().map(notice).collect(),
            firing: store.firing_alerts().await?,
            undelivered: store.undelivered_messages().await?,
        })
    }

    /// Waiting and running jobs, by route. Takes up to a second where millions wait.
    pub async fn queue(&self) -> Result<BTreeMap<String, RouteQueue>, StoreError> {
        self.shared.store.queue().await
    }

    /// The database's time, as of the last heartbeat and our own clock since.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }
}
