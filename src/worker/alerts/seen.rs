//! Gathers the facts that the rules of alerts judge. Facts that are dear to read are read less often, and remembered
//! until then.

use super::Alerting;
use crate::domain::Timestamp;
use crate::domain::alert::{
    AlertRule, AlertSettings, AlertThresholds, Observations, RouteFlow, RouteWork, UsualHour, pause_in_reading,
};
use crate::domain::budget::Need;
use crate::domain::diagnosis::{self, DoubtedCosts, Finding, Thresholds};
use crate::domain::shut::Reason;
use crate::domain::statistics::Statistics;
use crate::store::doctor::LookTime;
use crate::store::status::RouteQueue;
use crate::store::{Store, StoreError};
use crate::worker::Shared;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Hours of the past change by the hour.
const USUAL_EVERY: Duration = Duration::from_mins(30);

/// An alert is of calls of so long.
const AN_HOUR: Duration = Duration::from_hours(1);

/// A worker that has just started has its first jobs to fetch. It does not read at once what jobs have come to, unless
/// no worker has read it for so long.
const UNREAD_AT_MOST: Duration = Duration::from_mins(5);

/// What the jobs of each route have come to lately, and in the windows of the rules for fallbacks, dearer rungs and
/// hours.
type Flows = [Vec<RouteFlow>; 4];

/// What this worker has read of late.
#[derive(Default)]
pub(super) struct Memory {
    /// Whether the worker stops after this look.
    pub is_last: bool,
    /// When to look for ended batches again.
    pub batches_at: Option<Instant>,
    /// Whether the worker has looked before.
    has_looked: bool,
    /// When to read again what jobs have come to.
    flows_at: Option<Instant>,
    usual: Kept<UsualHour>,
    needs: Kept<BTreeMap<String, Need>>,
    doubted: Kept<Vec<DoubtedCosts>>,
    findings: Kept<Vec<Finding>>,
    work: Kept<BTreeMap<String, RouteQueue>>,
}

/// A fact that is kept for a while.
struct Kept<T> {
    fact: Option<T>,
    read_at: Option<Instant>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { fact: None, read_at: None }
    }
}

impl<T: Clone> Kept<T> {
    /// The fact, read anew if it is older than this. A reading that fails or takes too long is not made again before
    /// that: the other rules would never be judged.
    async fn get(
        &mut self,
        age: Duration,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Option<T>, StoreError> {
        if self.read_at.is_none_or(|at| at.elapsed() >= age) {
            self.read_at = Some(Instant::now());
            self.fact = Some(read.await?);
        }
        Ok(self.fact.clone())
    }
}

impl Memory {
    /// For the last look of a worker that stops.
    pub fn of_last_look() -> Self {
        Self { is_last: true, ..Self::default() }
    }

    /// Looks at everything that a rule in use needs.
    pub async fn observe(
        &mut self,
        shared: &Shared,
        alerting: &Alerting,
        now: Timestamp,
    ) -> Result<Observations, StoreError> {
        let (store, settings) = (&shared.store, &alerting.settings);
        let is_on = |rule: AlertRule| settings.rule(rule).on;
        let mut known = store.known().await?;
        known.workers.iter_mut().for_each(hush);
        let workers = store.workers().await?;
        let spools = workers.iter().filter(|worker| worker.is_alive()).filter_map(|worker| {
            let outcomes = Statistics::read(&worker.stats).spooled?;
            Some((format!("worker {} on {}", worker.id, worker.host), outcomes))
        });
        let mut observed = Observations { now, spools: spools.collect(), ..Observations::default() };
        observed.lost = Some(store.lost_workers().await?);
        observed.stopped = Some(store.stopped_batches().await?);
        let flows = self.flows(store, settings).await?;
        // Not at once, for the same reason: these read many sums, too.
        let may_be_dear = std::mem::replace(&mut self.has_looked, true);
        if may_be_dear && is_on(AlertRule::CostSpike) {
            observed.usual = self.usual.get(USUAL_EVERY, store.usual_hour()).await?;
        }
        if (is_on(AlertRule::BudgetShort) || is_on(AlertRule::BudgetFull)) && !known.budgets.is_empty() {
            let budgets = known.budgets.iter().map(|standing| &standing.budget);
            let needs = async { Ok(store.budget_needs(budgets).await?.into_iter().collect()) };
            observed.needs = self.needs.get(settings.every * 2, needs).await?;
        } else {
            observed.needs = Some(BTreeMap::new());
        }
        if may_be_dear && (is_on(AlertRule::UnknownPrice) || is_on(AlertRule::CostDiffers)) {
            observed.doubted = self.doubted.get(settings.every * 10, store.doubted_costs(AN_HOUR)).await?;
        }
        if let Some([lately, ..]) = &flows
            && is_on(AlertRule::StuckQueue)
            && let Some(work) = self.work.get(settings.every * 2, store.queue()).await?
        {
            let ended = |route: &str| lately.iter().find(|flow| flow.route == route).map_or(0, |flow| flow.ended);
            observed.work = Some(work.into_iter().map(|(route, queue)| work_of(ended(&route), route, queue)).collect());
        }
        if is_on(AlertRule::Doctor) {
            // Not at once: a worker that has just started is still finding its feet.
            self.findings.read_at.get_or_insert_with(Instant::now);
            let diagnosed = async {
                let facts = store.facts(&alerting.around, LookTime::LONG).await;
                Ok(diagnosis::diagnose(&facts, Thresholds::default()))
            };
            observed.findings = self.findings.get(settings.doctor_every, diagnosed).await?;
        }
        if let Some([_, fallbacks, dearer, hour]) = flows {
            (observed.fallbacks, observed.dearer, observed.hour) = (Some(fallbacks), Some(dearer), Some(hour));
        }
        observed.known = known;
        Ok(observed)
    }

    /// What jobs have come to; `None`: reading it takes long, and the last time was a short while ago. The rules that
    /// need it are not judged then, and their alerts stay as they are.
    async fn flows(&mut self, store: &Store, settings: &AlertSettings) -> Result<Option<Flows>, StoreError> {
        let may_wait = !self.has_looked && store.flows_were_noted(UNREAD_AT_MOST).await?;
        if may_wait || self.flows_at.is_some_and(|at| Instant::now() < at) {
            return Ok(None);
        }
        let AlertThresholds { fallback_window, dearer_window, .. } = settings.thresholds;
        let began = Instant::now();
        let flows = store.look_at_flows([settings.every, fallback_window, dearer_window, AN_HOUR]).await?;
        self.flows_at = Some(Instant::now() + pause_in_reading(began.elapsed(), settings.every));
        Ok(Some(flows))
    }
}

/// Providers' words stay out of alerts: what a server says may quote what it was sent. What is counted of calls and
/// keys is said in words of Sluice's own, and stays.
fn hush(worker: &mut Statistics) {
    let own = [Reason::Breaker, Reason::GameDay, Reason::AskedToWait, Reason::Offline, Reason::KeysInDoubt];
    let own = own.map(Reason::as_str);
    for target in &mut worker.gate.targets {
        let reason = target.shut.as_ref().and_then(|shut| shut.reason.as_deref());
        target.said = target.said.take().filter(|_| reason.is_some_and(|reason| own.contains(&reason)));
    }
    worker.gate.keys.iter_mut().for_each(|key| key.said = None);
}

fn work_of(ended: i64, route: String, queue: RouteQueue) -> RouteWork {
    let held: i64 = queue.held.values().map(|held| held.count.rows).sum();
    let waits = queue
        .held
        .into_iter()
        .chain(queue.parked)
        .map(|(code, held)| (code, held.count.rows, held.wakes_at.map(|at| Timestamp(at.timestamp_millis()))));
    let waits = waits.collect();
    RouteWork { route, free: queue.ready.rows.saturating_sub(held).max(0), running: queue.running, waits, ended }
}
