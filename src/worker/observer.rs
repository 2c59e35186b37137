//! A look at a worker while it runs, for whoever serves it: health, status, metrics.

use super::Shared;
use super::spool::Fill;
use super::totals::Totals;
use crate::domain::Target;
use crate::domain::shared_bucket::BucketStanding;
use crate::store::StoreError;
use crate::store::status::RouteQueue;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Sees what a worker does.
#[derive(Clone)]
pub struct Observer {
    pub(super) shared: Arc<Shared>,
}

/// What one process is doing, in numbers.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// Its number in the worker table.
    pub worker: i64,
    /// Whether it is connected, takes jobs, and is not stopping.
    pub is_ready: bool,
    /// Since the last heartbeat that reached the database was sent.
    pub heartbeat_age: Duration,
    /// Since it started.
    pub uptime: Duration,
    /// Jobs in hand.
    pub in_hand: usize,
    /// … at most.
    pub max_in_hand: usize,
    /// About what the requests of the jobs in hand take in memory.
    pub request_bytes: usize,
    /// With so much in hand no job is taken.
    pub max_request_bytes: usize,
    /// Jobs claimed.
    pub claimed: u64,
    /// Jobs given back.
    pub parked: u64,
    /// Outcomes that came too late: the job was another's by then.
    pub fenced_out: u64,
    /// Outcomes that are not written yet.
    pub unsettled: u64,
    /// How full the spool is; `None`: there is none.
    pub spool: Option<Fill>,
    /// What was booked.
    pub totals: Totals,
    /// The state of the breaker of each target: `closed`, `open` or `half_open`.
    pub breakers: BTreeMap<Target, &'static str>,
    /// By provider, how many keys there are and how many of them are in service.
    pub keys: BTreeMap<String, (usize, usize)>,
    /// By bucket, calls that run, calls that wait for their turn, and 429 answers so far.
    pub buckets: BTreeMap<String, (u32, u32, u64)>,
    /// The routes that it knows.
    pub routes: BTreeSet<String>,
}

impl Observer {
    /// The same as the heartbeat publishes, as of now.
    #[must_use]
    pub fn stats(&self) -> Value {
        self.shared.stats()
    }

    /// Whether the worker takes jobs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    /// Why the worker takes no jobs, in words; `None`: it does.
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
        let unheard = shared.unheard.lock().unwrap_or_else(PoisonError::into_inner).clone();
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

    /// Everything that this process knows by itself.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let shared = &self.shared;
        let plan = shared.plan();
        let counters = shared.settler.counters();
        Vitals {
            worker: shared.worker_id(),
            is_ready: self.unready().is_none(),
            heartbeat_age: shared.last_beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed(),
            uptime: shared.started.elapsed(),
            in_hand: shared.holding.load(Ordering::Relaxed),
            max_in_hand: shared.settings().max_in_flight,
            request_bytes: shared.holding_bytes.load(Ordering::Relaxed).saturating_add(shared.schemas.bytes()),
            max_request_bytes: shared.settings().max_in_flight_bytes,
            claimed: shared.claimed.load(Ordering::Relaxed),
            parked: counters.parked.load(Ordering::Relaxed),
            fenced_out: counters.fenced_out.load(Ordering::Relaxed),
            unsettled: shared.settler.unsettled(),
            spool: shared.settler.spool().map(|spool| spool.fill()),
            totals: counters.ledger.totals(),
            breakers: plan.gate.breakers(),
            keys: plan.gate.keys().map(|(name, all, in_service)| (name.to_owned(), (all, in_service))).collect(),
            buckets: plan.gate.buckets().map(|bucket| (bucket.name.clone(), bucket.counts())).collect(),
            routes: plan.routes.keys().cloned().collect(),
        }
    }

    /// How the buckets that this process uses stand, as all processes share them.
    pub async fn buckets(&self) -> Result<BTreeMap<String, BucketStanding>, StoreError> {
        let mut standings = self.shared.store.standings().await?;
        let plan = self.shared.plan();
        let own: BTreeSet<&str> = plan.gate.buckets().map(|bucket| bucket.name.as_str()).collect();
        standings.retain(|name, _| own.contains(name.as_str()));
        Ok(standings)
    }

    /// What waits and runs, by route. Takes up to a second where millions wait.
    pub async fn queue(&self) -> Result<BTreeMap<String, RouteQueue>, StoreError> {
        self.shared.store.queue().await
    }

    /// The database's time, as of the last heartbeat and our own clock since.
    #[must_use]
    pub fn now(&self) -> crate::domain::Timestamp {
        self.shared.clock.now()
    }
}
