//! One bucket: the limits that one or more targets share, and this process's part of them.
//!
//! The units that may be spent here are lent by the bucket that all processes share ([`SharedBucket`]); the keeper
//! fetches them ([`Bucket::report`], [`Bucket::receive`]). In between, this process decides by itself, call by call.
//! When it has not heard from the other processes for longer than the lease, it spends nothing.
//!
//! [`SharedBucket`]: crate::domain::shared_bucket::SharedBucket

mod entry;
mod hold;
mod meter;
mod purse;
mod running;
mod saturation;
mod sharing;
mod sleeper;
mod succession;
#[cfg(test)]
pub(super) mod tests;
mod waits;

use super::places::{Places, Rule};
use crate::domain::shared_bucket::LEASE;
use crate::domain::shut::{Reason, Shut};
use crate::domain::statistics::{BucketStatistics, RateStatistics, ShutStatistics};
use crate::domain::strategy::WHOLLY_FREE;
use crate::domain::{Charge, Limits, Timestamp, Unit};
use arc_swap::ArcSwap;
pub use hold::BucketHold;
use meter::LocalMeter;
use parking_lot::{Mutex, MutexGuard};
use running::RunningCalls;
pub(super) use sharing::Base;
use sharing::Keeping;
pub use sleeper::Sleeper;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use waits::Block;

/// The limits that one or more targets share, and this process's part of them.
#[derive(Debug)]
pub struct Bucket {
    /// Its name in the configuration.
    pub name: String,
    /// The limits as configured now.
    limits: ArcSwap<Limits>,
    meters: ArcSwap<Vec<Arc<LocalMeter>>>,
    places: Arc<Places>,
    block: Mutex<Option<Block>>,
    /// Permission for one call to go out during a long wait, as a probe.
    leave: Mutex<Option<Block>>,
    /// Consecutive refusals without a hint of how long to wait.
    unhinted: AtomicI64,
    /// Calls wait for units one behind the other, so that a large request is not overtaken for ever.
    turnstile: tokio::sync::Mutex<()>,
    /// 429 answers so far, for status.
    refusals: AtomicU64,
    /// Since when calls have had to wait without a real rest: milliseconds since the epoch; 0 while they need not wait.
    saturated: AtomicI64,
    /// Calls that wait for their turn, and jobs that sleep until a place is free.
    waiting: AtomicU32,
    calls: Mutex<RunningCalls>,
    keeping: Mutex<Keeping>,
    /// Wakes the keeper.
    wake: Arc<Notify>,
    /// Notified when the keeper has brought something.
    received: Notify,
    hungry: AtomicBool,
}

impl Bucket {
    /// A bucket that holds nothing yet; it notifies `wake` when it wants something.
    pub(super) fn new(name: &str, limits: &Limits, wake: &Arc<Notify>) -> Self {
        Self {
            name: name.to_owned(),
            limits: ArcSwap::from_pointee(limits.clone()),
            meters: ArcSwap::from_pointee(limits.rates.iter().map(|rate| Arc::new(LocalMeter::of(rate))).collect()),
            places: Places::new(rule(limits)),
            block: Mutex::new(None),
            leave: Mutex::new(None),
            unhinted: AtomicI64::new(0),
            turnstile: tokio::sync::Mutex::new(()),
            refusals: AtomicU64::new(0),
            saturated: AtomicI64::new(0),
            waiting: AtomicU32::new(0),
            calls: Mutex::default(),
            keeping: Mutex::new(Keeping::default()),
            wake: Arc::clone(wake),
            received: Notify::new(),
            hungry: AtomicBool::new(false),
        }
    }

    fn keeping(&self) -> MutexGuard<'_, Keeping> {
        self.keeping.lock()
    }

    fn meters(&self) -> Arc<Vec<Arc<LocalMeter>>> {
        self.meters.load_full()
    }

    /// Asks the keeper to come.
    fn ask(&self) {
        if !self.hungry.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Whether the last word from the other processes still holds.
    pub(super) fn is_fresh(&self) -> bool {
        self.keeping().heard_at.is_some_and(|at| at.elapsed() < LEASE)
    }

    /// Records that a call wants to use this bucket, and asks the other processes if their last word is too old.
    /// Returns whether it was fresh.
    fn touch(&self) -> bool {
        let mut keeping = self.keeping();
        let now = Instant::now();
        keeping.used_at = Some(now);
        let is_fresh = keeping.heard_at.is_some_and(|at| now - at < LEASE);
        drop(keeping);
        if !is_fresh {
            self.ask();
        }
        is_fresh
    }

    /// Why a call of this size would have to wait longer than `horizon`, and until when; `None`: it would not.
    ///
    /// Jobs that sleep here go before the job with this `fence`, if they were claimed before it; `None`: no job does.
    #[must_use]
    pub fn look(&self, charge: Charge, fence: Option<i64>, horizon: Duration, now: Timestamp) -> Option<Shut> {
        if let Some(shut) = self.block() {
            return Some(shut);
        }
        if !self.touch() {
            // Word from the other processes arrives in a moment, sooner than anything could be decided here.
            return None;
        }
        let (meters, instant) = (self.meters(), Instant::now());
        let wait = meters.iter().map(|meter| meter.wait(charge.units(meter.dimension.unit), instant)).max();
        let wait = wait.unwrap_or_default();
        if wait > horizon {
            return Some(Shut { reason: Reason::RateLimit, since: self.saturated_since(now), until: now + wait });
        }
        if fence.map_or_else(|| self.places.room(), |fence| self.places.room_for(fence)) == 0 {
            let until = now + Duration::from_millis(100);
            return Some(Shut { reason: Reason::Concurrency, since: self.saturated_since(now), until });
        }
        self.rest(&meters, charge);
        None
    }

    /// What a call needs and the most that one call may have here, where a token limit is too small for it; else
    /// `None`.
    #[must_use]
    pub fn size(&self, charge: Charge) -> Option<(u64, u64)> {
        let limits = self.limits();
        let configured = limits.rates.iter().map(|rate| (rate.unit, rate.burst));
        let meters = self.meters();
        let known = meters.iter().map(|meter| (meter.dimension.unit, meter.capacity()));
        // The part that is held back for jitter is no reason never to admit a call: the call is admitted on debt.
        let known: Vec<_> = if limits.rates.is_empty() { known.collect() } else { configured.collect() };
        known
            .into_iter()
            .filter(|(unit, _)| *unit != Unit::Requests)
            .map(|(unit, size)| (charge.units(unit), size))
            .find(|(needed, size)| needed > size)
    }

    /// How many jobs of about this size could be called within `horizon`, where one call is for so many of them.
    #[must_use]
    pub fn headroom(&self, typical: Charge, per_call: usize, horizon: Duration) -> usize {
        if self.block().is_some() {
            return 0;
        }
        if !self.touch() || self.has_leave() {
            // One call, which fetches word of how the bucket stands.
            return 1;
        }
        let now = Instant::now();
        let meters = self.meters();
        let rates = meters.iter().map(|meter| {
            let (unit, room) = (meter.dimension.unit, meter.headroom(horizon, now));
            let jobs = match (unit, typical.units(unit)) {
                // Other requests have no part in a limit of inputs.
                (Unit::Inputs, 0) => return usize::MAX,
                (_, units) => usize::try_from(room / units.max(1)).unwrap_or(usize::MAX),
            };
            // Requests are counted by the call, and all else by the job.
            if unit == Unit::Requests { jobs.saturating_mul(per_call) } else { jobs }
        });
        let places = self.places.room().saturating_sub(self.waiting.load(Ordering::Relaxed) as usize);
        rates.min().unwrap_or(usize::MAX).min(places.saturating_mul(per_call))
    }

    /// The part of its tightest limit that is free, in millionths of what that holds when full; negative where more
    /// calls wait than that holds now.
    #[must_use]
    pub fn free(&self) -> i64 {
        if self.block().is_some() {
            return 0;
        }
        if !self.touch() {
            // How it stands is not known before the other processes are heard.
            return WHOLLY_FREE;
        }
        let now = Instant::now();
        let rates = self.meters().iter().map(|meter| meter.free(now)).min().unwrap_or(WHOLLY_FREE);
        let places = self.places.bound().map_or(WHOLLY_FREE, |bound| {
            let room = i64::try_from(self.places.room()).unwrap_or(i64::MAX);
            let free = room.saturating_sub(i64::from(self.waiting.load(Ordering::Relaxed)));
            let whole = i64::from(bound).max(room).max(1);
            free.saturating_mul(WHOLLY_FREE) / whole
        });
        rates.min(places)
    }

    /// Calls of this process that run, calls that wait for their turn, and 429 answers so far.
    #[must_use]
    pub fn counts(&self) -> (u32, u32, u64) {
        let calls = (self.running(), self.waiting.load(Ordering::Relaxed));
        (calls.0, calls.1, self.refusals.load(Ordering::Relaxed))
    }

    /// This process's part of the bucket, as status shows it.
    #[must_use]
    pub fn snapshot(&self) -> BucketStatistics {
        let now = Instant::now();
        let meters = self.meters();
        let rates = meters.iter().map(|meter| RateStatistics {
            limit: meter.dimension.to_string(),
            held: Some(meter.held()),
            headroom: Some(meter.headroom(Duration::ZERO, now)),
        });
        BucketStatistics {
            name: Some(self.name.clone()),
            rates: rates.collect(),
            concurrency: self.places.bound(),
            running: Some(self.running()),
            waiting: Some(self.waiting.load(Ordering::Relaxed)),
            shut: self.block().map(ShutStatistics::from),
            refusals: Some(self.refusals.load(Ordering::Relaxed)),
        }
    }
}

/// Where the number of calls at once comes from when these limits are configured.
fn rule(limits: &Limits) -> Rule {
    match limits.concurrency {
        Some(_) => Rule::Lent,
        None if limits.rates.iter().any(|rate| rate.unit == Unit::Requests) => Rule::Open,
        // The number that the provider takes is unknown: it is felt for, rather than met with hundreds of refusals.
        None => Rule::FeltFor,
    }
}
