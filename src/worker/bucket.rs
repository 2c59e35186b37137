//! One bucket: the limits that one or more targets share, as this process has its part of them.
//!
//! What may be spent here is lent by the bucket that all processes share ([`SharedBucket`]); the keeper fetches it
//! ([`Bucket::report`], [`Bucket::receive`]). In between this process decides by itself, call by call. Without word
//! from the others for longer than the lease nothing is spent.
//!
//! [`SharedBucket`]: crate::domain::shared_bucket::SharedBucket

mod hold;
mod meter;
mod running;
mod sharing;
mod succession;
#[cfg(test)]
pub(super) mod tests;

use super::slots::{Rule, Slots};
use crate::domain::error_class::Refusal;
use crate::domain::limits::Heard;
use crate::domain::shared_bucket::{LEASE, Wait};
use crate::domain::shut::{Reason, Shut};
use crate::domain::{Charge, Limits, Timestamp, Unit, long_wait};
pub use hold::Hold;
use meter::{Mark, Meter};
use running::{Calls, Running};
pub(super) use sharing::Base;
use sharing::Keeping;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The limits that one or more targets share, and this process's part of them.
#[derive(Debug)]
pub struct Bucket {
    /// Its name in the configuration.
    pub name: String,
    /// As configured now.
    limits: RwLock<Arc<Limits>>,
    meters: RwLock<Vec<Arc<Meter>>>,
    slots: Arc<Slots>,
    /// Places of the shared number that nobody has, as of the last word.
    places_left: AtomicU32,
    block: Mutex<Option<Block>>,
    /// One call may go although a long wait is on, to ask again.
    leave: Mutex<Option<Block>>,
    /// Refusals in a row without a hint of how long to wait.
    unhinted: AtomicI64,
    /// Those who wait for tokens do so one behind the other, so that a large request is not overtaken for ever.
    turnstile: tokio::sync::Mutex<()>,
    /// 429 answers so far, for status.
    refusals: AtomicU64,
    /// Since when calls have had to wait without a real rest: milliseconds since the epoch, 0 when they need not.
    saturated: AtomicI64,
    waiting: AtomicU32,
    calls: Mutex<Calls>,
    keeping: Mutex<Keeping>,
    /// Wakes the keeper.
    wake: Arc<Notify>,
    /// Told when the keeper has brought something.
    received: Notify,
    hungry: AtomicBool,
}

/// A wait that is on here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    shut: Shut,
    opens: Instant,
    /// It is too long to be believed: when it is over here, the others say who may ask again.
    is_long: bool,
}

impl Bucket {
    /// A bucket of which nothing is held yet; `wake` is told when something is wanted.
    pub(super) fn new(name: &str, limits: &Limits, wake: &Arc<Notify>) -> Self {
        Self {
            name: name.to_owned(),
            limits: RwLock::new(Arc::new(limits.clone())),
            meters: RwLock::new(limits.rates.iter().map(|rate| Arc::new(Meter::of(rate))).collect()),
            slots: Slots::new(rule(limits)),
            places_left: AtomicU32::new(0),
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
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meters(&self) -> Vec<Arc<Meter>> {
        self.meters.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the keeper to come.
    fn ask(&self) {
        if !self.hungry.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Since when there has been more work than the limits let through. A single token that drips in between is no
    /// end of it; a tenth of the burst in hand is.
    fn saturated_since(&self, now: Timestamp) -> Timestamp {
        match self.saturated.compare_exchange(0, now.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => now,
            Err(since) => Timestamp(since),
        }
    }

    fn rest(&self, meters: &[Arc<Meter>]) {
        let now = Instant::now();
        if self.saturated.load(Ordering::Relaxed) != 0
            && meters.iter().all(|meter| meter.fullness(now) > 100)
            && self.free_places() > self.slots.limit() as usize / 10
        {
            self.saturated.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn block(&self) -> Option<Shut> {
        let now = Instant::now();
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = block.take_if(|block| block.opens <= now);
        let shut = block.map(|block| block.shut);
        drop(block);
        if is_over.is_some_and(|block| block.is_long) {
            self.keeping().heard_at = None;
        }
        if shut.is_some() {
            // It may be opened by hand, which the keeper hears of as long as a call wants it.
            self.keeping().used_at = Some(now);
        }
        shut
    }

    /// When it was last opened before its wait was over.
    pub(super) fn reopened_at(&self) -> Option<Timestamp> {
        self.keeping().reopened
    }

    /// The call that was to ask again, if this is one, has shown that the wait is over.
    pub(super) fn asked_again(&self, hold: &Hold) {
        if hold.probe.is_none() {
            return;
        }
        *self.block.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.keeping().reopens = true;
        self.ask();
    }

    /// Takes the leave of the one call that may ask again, for which all others wait; `None` when no long wait is on.
    /// `Err`: the leave has run out, and the others have to be asked anew.
    fn take_leave(&self) -> Result<Option<Block>, ()> {
        let leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(leave) = leave else { return Ok(None) };
        if leave.opens <= Instant::now() {
            self.keeping().heard_at = None;
            return Err(());
        }
        *self.block.lock().unwrap_or_else(PoisonError::into_inner) = Some(leave);
        Ok(Some(leave))
    }

    /// The call that was to ask again was not made after all: another may.
    fn give_back_leave(&self, leave: Block) {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        if *block == Some(leave) {
            *block = None;
            drop(block);
            *self.leave.lock().unwrap_or_else(PoisonError::into_inner) = Some(leave);
        }
    }

    fn has_leave(&self) -> bool {
        self.leave.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Shuts it here; never shortens a wait that is on already. Returns whether it is longer now.
    fn set_block(&self, shut: Shut, opens: Instant, is_long: bool) -> bool {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *block {
            Some(before) if before.opens >= opens => return false,
            Some(before) if before.opens > Instant::now() => before.shut.since.min(shut.since),
            _ => shut.since,
        };
        *block = Some(Block { shut: Shut { since, ..shut }, opens, is_long });
        true
    }

    /// A provider refused `hold`'s call because of its limits. Shuts the bucket, here and for all, for as long as the
    /// provider asks, exactly; never shortens a wait that is on already.
    ///
    /// Where nothing is known of its limits and it asks for nothing, there were too many calls at once: fewer may run
    /// from now on, and the bucket is shut, only here, when the call was the only one.
    pub fn refuse(
        &self,
        hold: &Hold,
        why: Refusal,
        wait: Option<Duration>,
        recheck: Duration,
        heard: &[Heard],
        now: Timestamp,
    ) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let is_bare = wait.is_none() && why == Refusal::Pace && heard.is_empty() && hold.taken.is_empty();
        if is_bare && let Some(was_alone) = hold.slot.refused() {
            if was_alone {
                let wait = self.unhinted_wait();
                let shut = Shut { reason: Reason::RateLimit, since: now, until: now + wait };
                self.set_block(shut, Instant::now() + wait, false);
            }
            let mut keeping = self.keeping();
            keeping.refused = keeping.refused.saturating_add(1);
            return;
        }
        hold.slot.shut();
        let wait = wait.unwrap_or_else(|| self.unhinted_wait());
        let (is_long, rest) = (long_wait::is_long(wait), long_wait::rest(wait, recheck));
        let opens = Instant::now() + rest;
        self.set_block(Shut { reason: Reason::RateLimit, since: now, until: now + rest }, opens, is_long);
        let drained = if why == Refusal::Day { Vec::new() } else { hold.drained(heard) };
        let too_steep = why == Refusal::Slope;
        let mut keeping = self.keeping();
        keeping.refused = keeping.refused.saturating_add(1);
        // A process that asked again and is told of a wait that can be believed has ended the one that cannot.
        keeping.reopens |= hold.probe.is_some() && !is_long;
        let before = keeping.wait.take();
        let mut asked = Wait { reason: Reason::RateLimit, remaining: wait, recheck, drained, too_steep };
        let mut until = Instant::now().checked_add(wait).unwrap_or(opens);
        if let Some((earlier, opened)) = before {
            // Two refusals before anybody was told of the first: the longer wait, and all that they are about.
            until = until.max(opened);
            asked.too_steep |= earlier.too_steep;
            for drained in earlier.drained {
                if !asked.drained.iter().any(|(dimension, _)| *dimension == drained.0) {
                    asked.drained.push(drained);
                }
            }
        }
        keeping.wait = Some((asked, until));
        drop(keeping);
        self.hungry.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// No hint: one second, doubling up to a minute, until something gets through.
    fn unhinted_wait(&self) -> Duration {
        let times = self.unhinted.fetch_add(1, Ordering::Relaxed).clamp(0, 6);
        Duration::from_secs(1 << times).min(Duration::from_mins(1))
    }

    /// `hold`'s call got through: refusals without a hint start again at one second.
    pub fn passed(&self, hold: &Hold) {
        hold.slot.passed();
        if self.unhinted.load(Ordering::Relaxed) != 0 {
            self.unhinted.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the last word from the others still holds.
    fn is_fresh(&self) -> bool {
        self.keeping().heard_at.is_some_and(|at| at.elapsed() < LEASE)
    }

    /// Notes that somebody wants to use this bucket; without fresh word from the others it is asked for.
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

    /// Places that are free here, or that nobody has.
    fn free_places(&self) -> usize {
        self.slots.free() + if self.slots.is_lent() { self.places_left.load(Ordering::Relaxed) as usize } else { 0 }
    }

    /// Whether a call of this size would have to wait longer than `horizon`, and why.
    #[must_use]
    pub fn look(&self, charge: Charge, horizon: Duration, now: Timestamp) -> Option<Shut> {
        if let Some(shut) = self.block() {
            return Some(shut);
        }
        if !self.touch() {
            // What the others say is there in a moment, sooner than anything could be decided here.
            return None;
        }
        let (meters, instant) = (self.meters(), Instant::now());
        let wait = meters.iter().map(|meter| meter.wait(charge.units(meter.dimension.unit), instant)).max();
        let wait = wait.unwrap_or_default();
        if wait > horizon {
            return Some(Shut { reason: Reason::RateLimit, since: self.saturated_since(now), until: now + wait });
        }
        if self.free_places() == 0 {
            let until = now + Duration::from_millis(100);
            return Some(Shut { reason: Reason::Concurrency, since: self.saturated_since(now), until });
        }
        self.rest(&meters);
        None
    }

    /// The most tokens that one call may have here; `None` without a token limit that is too small.
    #[must_use]
    pub fn size(&self, charge: Charge) -> Option<(u64, u64)> {
        let limits = self.limits();
        let configured = limits.rates.iter().map(|rate| (rate.unit, rate.burst));
        let known = self.meters().into_iter().map(|meter| (meter.dimension.unit, meter.capacity()));
        // What is held back for jitter is no reason never to let a call in: it is let in on debt.
        let known: Vec<_> = if limits.rates.is_empty() { known.collect() } else { configured.collect() };
        known
            .into_iter()
            .filter(|(unit, _)| *unit != Unit::Requests)
            .map(|(unit, size)| (charge.units(unit), size))
            .find(|(needed, size)| needed > size)
    }

    /// How many calls of about this size could start within `horizon`.
    #[must_use]
    pub fn headroom(&self, typical: Charge, horizon: Duration) -> usize {
        if self.block().is_some() {
            return 0;
        }
        if !self.touch() || self.has_leave() {
            // One, which brings word of how it stands.
            return 1;
        }
        let now = Instant::now();
        let meters = self.meters();
        let rates = meters
            .iter()
            .map(|meter| meter.headroom(horizon, now) / typical.units(meter.dimension.unit).max(1))
            .map(|calls| usize::try_from(calls).unwrap_or(usize::MAX));
        let places = self.free_places().saturating_sub(self.waiting.load(Ordering::Relaxed) as usize);
        rates.min().unwrap_or(usize::MAX).min(places)
    }

    /// Waits for a slot and for tokens, at most until `patience` is over, in the order of asking.
    ///
    /// # Errors
    /// Why it is shut and until when; nothing is taken then.
    pub async fn enter(self: &Arc<Self>, charge: Charge, patience: Duration, now: Timestamp) -> Result<Hold, Shut> {
        if let Some(shut) = self.block() {
            return Err(shut);
        }
        self.touch();
        let mut queued = Queued::new(self, charge);
        let began = Instant::now();
        let give_up = began + patience;
        let late = |reason, wait: Duration| Shut { reason, since: now, until: now + began.elapsed() + wait };
        if self.slots.is_lent() && self.slots.free() == 0 {
            self.ask();
        }
        let Ok(slot) = tokio::time::timeout_at(give_up, self.slots.enter()).await else {
            return Err(late(Reason::Concurrency, Duration::from_millis(100)));
        };
        let Ok(turn) = tokio::time::timeout_at(give_up, self.turnstile.lock()).await else {
            return Err(late(Reason::RateLimit, Duration::from_millis(100)));
        };
        let (taken, probe) = loop {
            let received = self.received.notified();
            tokio::pin!(received);
            received.as_mut().enable();
            if let Some(shut) = self.block() {
                return Err(shut);
            }
            if self.is_retired() {
                return Err(late(Reason::RateLimit, Duration::ZERO));
            }
            let mut wait = Duration::ZERO;
            if self.is_fresh() {
                let meters = self.meters();
                if let Some(taken) = Self::take(&meters, charge) {
                    match self.take_leave() {
                        Ok(probe) => break (taken, probe),
                        Err(()) => taken.iter().for_each(|(meter, units, _)| meter.untake(*units)),
                    }
                }
                if queued.is_outdated(&meters) {
                    // A limit was learned while it waited.
                    queued = Queued::new(self, charge);
                }
                let now = Instant::now();
                let waits = meters.iter().map(|meter| meter.wait_alone(charge.units(meter.dimension.unit), now));
                wait = waits.max().unwrap_or_default();
                if now + wait > give_up {
                    return Err(late(Reason::RateLimit, wait));
                }
            }
            // Also when it was asked to come later: there may be enough to come at once.
            self.hungry.store(true, Ordering::Release);
            self.wake.notify_one();
            tokio::select! {
                () = received => {}
                () = tokio::time::sleep_until(give_up) => {
                    return Err(late(Reason::RateLimit, wait.max(Duration::from_millis(100))));
                }
            }
        };
        drop(turn);
        drop(queued);
        let Some(running) = Running::begin(self, charge) else {
            for (meter, units, _) in &taken {
                meter.untake(*units);
            }
            if let Some(leave) = probe {
                self.give_back_leave(leave);
            }
            return Err(late(Reason::RateLimit, Duration::ZERO));
        };
        Ok(Hold::new(self, taken, slot, running, probe))
    }

    /// Takes from all meters or from none.
    fn take(meters: &[Arc<Meter>], charge: Charge) -> Option<Vec<(Arc<Meter>, u64, Mark)>> {
        let mut taken: Vec<(Arc<Meter>, u64, Mark)> = Vec::with_capacity(meters.len());
        for meter in meters {
            let units = charge.units(meter.dimension.unit);
            if !meter.take(units) {
                for (meter, units, _) in &taken {
                    meter.untake(*units);
                }
                return None;
            }
            taken.push((Arc::clone(meter), units, meter.mark(Instant::now())));
        }
        Some(taken)
    }

    /// Calls of this process that run, calls that wait for their turn, and 429 answers so far.
    #[must_use]
    pub fn counts(&self) -> (u32, u32, u64) {
        let calls = (self.running(), self.waiting.load(Ordering::Relaxed));
        (calls.0, calls.1, self.refusals.load(Ordering::Relaxed))
    }

    /// What status shows of this process's part of it.
    #[must_use]
    pub fn snapshot(&self) -> serde_json::Value {
        let now = Instant::now();
        let rates: Vec<_> = self
            .meters()
            .iter()
            .map(|meter| {
                serde_json::json!({
                    "limit": meter.dimension.to_string(),
                    "held": meter.held(),
                    "headroom": meter.headroom(Duration::ZERO, now),
                })
            })
            .collect();
        let block = self.block();
        serde_json::json!({
            "name": self.name,
            "rates": rates,
            "concurrency": self.slots.bound(),
            "running": self.running(),
            "waiting": self.waiting.load(Ordering::Relaxed),
            "shut": block.map(|shut| shut.reason.as_str()),
            "shut_until_ms": block.map(|shut| shut.until.0),
            "refusals": self.refusals.load(Ordering::Relaxed),
        })
    }
}

/// What the number of calls at once rests on where these limits are configured.
fn rule(limits: &Limits) -> Rule {
    match limits.concurrency {
        Some(_) => Rule::Lent,
        None if limits.rates.iter().any(|rate| rate.unit == Unit::Requests) => Rule::Open,
        // Nothing is known of how many it takes: it is felt for, rather than met with hundreds of refusals.
        None => Rule::FeltFor,
    }
}

/// A place in the queue: given up on drop, so that a cancelled call leaves no trace.
struct Queued<'a> {
    bucket: &'a Bucket,
    queued: Vec<(Arc<Meter>, u64)>,
}

impl<'a> Queued<'a> {
    fn new(bucket: &'a Bucket, charge: Charge) -> Self {
        bucket.waiting.fetch_add(1, Ordering::Relaxed);
        let queued: Vec<_> = bucket
            .meters()
            .into_iter()
            .map(|meter| {
                let units = charge.units(meter.dimension.unit).min(meter.capacity());
                meter.queue(units);
                (meter, units)
            })
            .collect();
        Self { bucket, queued }
    }

    fn is_outdated(&self, meters: &[Arc<Meter>]) -> bool {
        self.queued.len() != meters.len()
            || self.queued.iter().zip(meters).any(|((known, _), meter)| !Arc::ptr_eq(known, meter))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.bucket.waiting.fetch_sub(1, Ordering::Relaxed);
        for (meter, units) in &self.queued {
            meter.unqueue(*units);
        }
    }
}
