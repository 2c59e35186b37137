//! One bucket: the limits that one or more targets share.
//!
//! `governor` decides every admission. It runs on a store of ours that holds its one number, the theoretical arrival
//! time: that makes possible what it does not offer itself, namely to book debt, to refund, and to stay shut.

use super::slots::{Slot, Slots};
use crate::domain::decide::Closed;
use crate::domain::{Charge, Limits, Timestamp, Unit};
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The clock that the limiters run on: nanoseconds since the gate was made.
#[derive(Clone, Debug)]
pub(super) struct GateClock {
    epoch: Instant,
    /// A limiter takes its first reading as the origin of its arithmetic; answering zero makes all origins equal, so
    /// that the stored numbers mean the same to everyone.
    primed: Arc<AtomicBool>,
}

impl GateClock {
    pub(super) fn new() -> Self {
        Self { epoch: Instant::now(), primed: Arc::new(AtomicBool::new(false)) }
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn unprimed(&self) -> Self {
        Self { epoch: self.epoch, primed: Arc::new(AtomicBool::new(false)) }
    }
}

impl GovernorClock for GateClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        if !self.primed.swap(true, Ordering::AcqRel) {
            return Nanos::new(0);
        }
        Nanos::new(self.nanos())
    }
}

/// The theoretical arrival time in nanoseconds of [`GateClock`]: when the bucket would be full again.
#[derive(Clone, Debug, Default)]
struct Arrival(Arc<AtomicU64>);

impl Arrival {
    fn update(&self, change: impl Fn(u64) -> u64) {
        let mut before = self.0.load(Ordering::Acquire);
        while let Err(now) = self.0.compare_exchange_weak(before, change(before), Ordering::AcqRel, Ordering::Acquire) {
            before = now;
        }
    }
}

impl StateStore for Arrival {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let (outcome, after) = decide(Some(Nanos::new(before)))?;
            match self.0.compare_exchange_weak(before, after.as_u64(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(outcome),
                Err(now) => before = now,
            }
        }
    }
}

/// One rate of a bucket.
#[derive(Debug)]
struct Meter {
    unit: Unit,
    limiter: RateLimiter<NotKeyed, Arrival, GateClock, NoOpMiddleware<Nanos>>,
    arrival: Arrival,
    clock: GateClock,
    /// Nanoseconds in which one unit flows back.
    interval: u64,
    burst: u64,
    /// Units that calls wait for: admitted to the queue, not yet charged.
    pending: AtomicU64,
}

impl Meter {
    fn new(rate: crate::domain::Rate, clock: &GateClock) -> Self {
        // Rounded up: a rate must never come out higher than configured.
        let period = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = period.div_ceil(rate.amount.max(1)).max(1);
        let burst = u32::try_from(rate.burst).unwrap_or(u32::MAX).max(1);
        let quota = Quota::with_period(Duration::from_nanos(interval))
            .expect("the interval is not zero")
            .allow_burst(NonZeroU32::new(burst).expect("the burst is not zero"));
        let arrival = Arrival::default();
        let limiter = RateLimiter::new(quota, arrival.clone(), clock.unprimed());
        Self {
            unit: rate.unit,
            limiter,
            arrival,
            clock: clock.clone(),
            interval,
            burst: u64::from(burst),
            pending: AtomicU64::new(0),
        }
    }

    fn span(&self, units: u64) -> u64 {
        units.saturating_mul(self.interval)
    }

    /// How long until `units` more could be charged after everything that waits already.
    fn wait(&self, units: u64) -> Duration {
        let queued = self.pending.load(Ordering::Relaxed).saturating_add(units.min(self.burst));
        let full_at = self.arrival.0.load(Ordering::Acquire).max(self.clock.nanos());
        let ready_at = full_at.saturating_add(self.span(queued)).saturating_sub(self.span(self.burst));
        Duration::from_nanos(ready_at.saturating_sub(self.clock.nanos()))
    }

    /// How many units could be charged within `horizon` beside everything that waits already.
    fn headroom(&self, horizon: Duration) -> u64 {
        let horizon = u64::try_from(horizon.as_nanos()).unwrap_or(u64::MAX);
        let debt = self.arrival.0.load(Ordering::Acquire).saturating_sub(self.clock.nanos());
        let room = self.span(self.burst).saturating_add(horizon).saturating_sub(debt) / self.interval;
        room.saturating_sub(self.pending.load(Ordering::Relaxed))
    }

    /// Takes `units`, or says how long to wait. What exceeds the burst is booked as debt.
    fn take(&self, units: u64) -> Result<(), Duration> {
        let now = units.min(self.burst);
        let Some(count) = u32::try_from(now).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        match self.limiter.check_n(count) {
            Ok(Ok(())) => {
                self.charge(units - now);
                Ok(())
            }
            Ok(Err(refusal)) => Err(wait_of(&refusal, &self.clock)),
            // Impossible: `count` is at most the burst. Treated as free rather than as a panic.
            Err(_) => Ok(()),
        }
    }

    /// Books `units` whatever the level: the bucket may go into debt.
    fn charge(&self, units: u64) {
        if units > 0 {
            let now = self.clock.nanos();
            self.arrival.update(|at| at.max(now).saturating_add(self.span(units)));
        }
    }

    /// Gives `units` back. Never lets more than the burst through: an arrival time in the past counts as now.
    fn refund(&self, units: u64) {
        if units > 0 {
            self.arrival.update(|at| at.saturating_sub(self.span(units)));
        }
    }

    /// Empties it so that the first unit is there at `opens` and the others follow one by one: no stampede then.
    fn empty_until(&self, opens: u64) {
        let full_at = opens.saturating_add(self.span(self.burst - 1));
        self.arrival.update(|at| at.max(full_at));
    }
}

fn wait_of(refusal: &NotUntil<Nanos>, clock: &GateClock) -> Duration {
    refusal.wait_time_from(Nanos::new(clock.nanos()))
}

/// Why and how long a bucket is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shut {
    /// Why.
    pub reason: Closed,
    /// Since when without a break.
    pub since: Timestamp,
    /// Until when, as far as is known.
    pub until: Timestamp,
}

/// The limits that one or more targets share, and what is left of them.
#[derive(Debug)]
pub struct Bucket {
    /// Its name in the configuration.
    pub name: String,
    meters: Vec<Meter>,
    /// `None` where the rate of requests is configured and the number at once is not: the rate is limit enough.
    slots: Option<Arc<Slots>>,
    block: Mutex<Option<(Shut, Instant)>>,
    /// Refusals in a row without a hint of how long to wait.
    unhinted: AtomicI64,
    /// Those who wait for tokens do so one behind the other, so that a large request is not overtaken for ever.
    turnstile: tokio::sync::Mutex<()>,
    clock: GateClock,
    /// 429 answers so far, for status.
    refusals: AtomicU64,
    /// Since when calls have had to wait without a real rest: milliseconds since the epoch, 0 when they need not.
    saturated: AtomicI64,
}

/// A call's hold on a bucket: a slot, and tokens to be corrected.
#[derive(Debug)]
pub struct Hold {
    bucket: Arc<Bucket>,
    charged: Charge,
    _slot: Option<Slot>,
}

impl Hold {
    /// Corrects the estimate by what the call really used.
    pub fn correct(&self, actual: Charge) {
        for meter in &self.bucket.meters {
            let (estimated, actual) = (self.charged.units(meter.unit), actual.units(meter.unit));
            meter.charge(actual.saturating_sub(estimated));
            meter.refund(estimated.saturating_sub(actual));
        }
    }
}

impl Bucket {
    pub(super) fn new(name: &str, limits: &Limits, clock: &GateClock) -> Self {
        Self {
            name: name.to_owned(),
            meters: limits.rates.iter().map(|rate| Meter::new(*rate, clock)).collect(),
            slots: match limits.concurrency {
                Some(slots) => Some(Slots::fixed(slots)),
                None if limits.rates.iter().any(|rate| rate.unit == Unit::Requests) => None,
                // Nothing is known of how many it takes: it is felt for, rather than met with hundreds of refusals.
                None => Some(Slots::felt_for()),
            },
            block: Mutex::new(None),
            unhinted: AtomicI64::new(0),
            turnstile: tokio::sync::Mutex::new(()),
            clock: clock.clone(),
            refusals: AtomicU64::new(0),
            saturated: AtomicI64::new(0),
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

    fn rest(&self) {
        if self.saturated.load(Ordering::Relaxed) != 0
            && self.meters.iter().all(|meter| meter.headroom(Duration::ZERO) > meter.burst / 10)
            && self.slots.as_ref().is_none_or(|slots| slots.free() > slots.limit() as usize / 10)
        {
            self.saturated.store(0, Ordering::Relaxed);
        }
    }

    fn block(&self) -> Option<(Shut, Instant)> {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        if block.is_some_and(|(_, opens)| opens <= Instant::now()) {
            *block = None;
        }
        *block
    }

    /// Shuts the bucket for as long as the provider asks, exactly; never shortens a wait that is on already.
    pub fn shut(&self, reason: Closed, wait: Option<Duration>, now: Timestamp) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        self.crowded(now);
        let wait = wait.unwrap_or_else(|| {
            // No hint: one second, doubling up to a minute, until something gets through.
            let times = self.unhinted.fetch_add(1, Ordering::Relaxed).clamp(0, 6);
            Duration::from_secs(1 << times).min(Duration::from_mins(1))
        });
        let opens = Instant::now() + wait;
        let until = now + wait;
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *block {
            Some((shut, opened)) if opened > Instant::now() => {
                if opened >= opens {
                    return;
                }
                shut.since
            }
            _ => now,
        };
        *block = Some((Shut { reason, since, until }, opens));
        drop(block);
        let opens = self.clock.nanos().saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        for meter in &self.meters {
            if meter.unit == Unit::Requests {
                meter.empty_until(opens);
            }
        }
    }

    /// The provider had too many calls at once, by its own word.
    pub fn crowded(&self, now: Timestamp) {
        if let Some(slots) = &self.slots {
            slots.refused(now);
        }
    }

    /// A call got through: refusals without a hint start again at one second.
    pub fn passed(&self) {
        if let Some(slots) = &self.slots {
            slots.passed();
        }
        if self.unhinted.load(Ordering::Relaxed) != 0 {
            self.unhinted.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a call of this size would have to wait longer than `horizon`, and why.
    #[must_use]
    pub fn look(&self, charge: Charge, horizon: Duration, now: Timestamp) -> Option<Shut> {
        if let Some((shut, _)) = self.block() {
            return Some(shut);
        }
        let wait = self.meters.iter().map(|meter| meter.wait(charge.units(meter.unit))).max().unwrap_or_default();
        if wait > horizon {
            return Some(Shut { reason: Closed::RateLimit, since: self.saturated_since(now), until: now + wait });
        }
        if self.slots.as_ref().is_some_and(|slots| slots.free() == 0) {
            let until = now + Duration::from_millis(100);
            return Some(Shut { reason: Closed::Concurrency, since: self.saturated_since(now), until });
        }
        self.rest();
        None
    }

    /// The most tokens that one call may have here; `None` without a token limit.
    #[must_use]
    pub fn size(&self, charge: Charge) -> Option<(u64, u64)> {
        self.meters
            .iter()
            .filter(|meter| meter.unit != Unit::Requests)
            .map(|meter| (charge.units(meter.unit), meter.burst))
            .find(|(needed, size)| needed > size)
    }

    /// How many calls of about this size could start within `horizon`.
    #[must_use]
    pub fn headroom(&self, typical: Charge, horizon: Duration) -> usize {
        if self.block().is_some() {
            return 0;
        }
        let rates = self
            .meters
            .iter()
            .map(|meter| meter.headroom(horizon) / typical.units(meter.unit).max(1))
            .map(|calls| usize::try_from(calls).unwrap_or(usize::MAX));
        let slots = self.slots.iter().map(|slots| slots.free());
        rates.chain(slots).min().unwrap_or(usize::MAX)
    }

    /// Waits for a slot and for tokens, at most until `patience` is over, in the order of asking.
    ///
    /// # Errors
    /// Why it is shut and until when; nothing is taken then.
    pub async fn enter(self: &Arc<Self>, charge: Charge, patience: Duration, now: Timestamp) -> Result<Hold, Shut> {
        if let Some((shut, _)) = self.block() {
            return Err(shut);
        }
        for meter in &self.meters {
            meter.pending.fetch_add(charge.units(meter.unit).min(meter.burst), Ordering::Relaxed);
        }
        let queued = Queued { bucket: self, charge };
        let give_up = Instant::now() + patience;
        let late = |reason, wait: Duration| Shut { reason, since: now, until: now + patience + wait };
        let slot = match &self.slots {
            None => None,
            Some(slots) => match tokio::time::timeout_at(give_up, slots.enter()).await {
                Ok(slot) => Some(slot),
                Err(_) => return Err(late(Closed::Concurrency, Duration::from_millis(100))),
            },
        };
        if !self.meters.is_empty() {
            let Ok(_turn) = tokio::time::timeout_at(give_up, self.turnstile.lock()).await else {
                return Err(late(Closed::RateLimit, Duration::from_millis(100)));
            };
            loop {
                if let Some((shut, _)) = self.block() {
                    return Err(shut);
                }
                let Err(wait) = self.take(charge) else { break };
                if Instant::now() + wait > give_up {
                    return Err(late(Closed::RateLimit, wait));
                }
                tokio::time::sleep(wait).await;
            }
        }
        drop(queued);
        Ok(Hold { bucket: Arc::clone(self), charged: charge, _slot: slot })
    }

    /// Takes from all meters or from none.
    fn take(&self, charge: Charge) -> Result<(), Duration> {
        for (index, meter) in self.meters.iter().enumerate() {
            if let Err(wait) = meter.take(charge.units(meter.unit)) {
                for taken in self.meters.iter().take(index) {
                    taken.refund(charge.units(taken.unit));
                }
                return Err(wait);
            }
        }
        Ok(())
    }

    /// What status shows of it.
    #[must_use]
    pub fn snapshot(&self) -> serde_json::Value {
        #[expect(clippy::cast_precision_loss, reason = "shown to people")]
        let rates: Vec<_> = self
            .meters
            .iter()
            .map(|meter| {
                serde_json::json!({
                    "unit": match meter.unit {
                        Unit::Requests => "requests",
                        Unit::Tokens => "tokens",
                        Unit::InputTokens => "input_tokens",
                        Unit::OutputTokens => "output_tokens",
                    },
                    "burst": meter.burst,
                    "level": meter.headroom(Duration::ZERO),
                    "per_second": 1e9 / meter.interval as f64,
                })
            })
            .collect();
        let block = self.block();
        serde_json::json!({
            "name": self.name,
            "rates": rates,
            "concurrency": self.slots.as_ref().map(|slots| slots.limit()),
            "running": self.slots.as_ref().map(|slots| slots.running()),
            "shut": block.map(|(shut, _)| closed_name(shut.reason)),
            "shut_until_ms": block.map(|(shut, _)| shut.until.0),
            "refusals": self.refusals.load(Ordering::Relaxed),
        })
    }
}

/// The word for it in status and reports.
#[must_use]
pub const fn closed_name(reason: Closed) -> &'static str {
    match reason {
        Closed::RateLimit => "rate_limit",
        Closed::Concurrency => "concurrency",
        Closed::Breaker => "breaker_open",
        Closed::QuotaExhausted => "quota_exhausted",
        Closed::Auth => "auth",
        Closed::Model => "model",
        Closed::Paused => "paused",
    }
}

/// A place in the queue: given up on drop, so that a cancelled call leaves no trace.
struct Queued<'a> {
    bucket: &'a Bucket,
    charge: Charge,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        for meter in &self.bucket.meters {
            meter.pending.fetch_sub(self.charge.units(meter.unit).min(meter.burst), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
