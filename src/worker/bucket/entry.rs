//! How a call enters a bucket: it gets a place, its turn, and either all the units that it needs or none.

use super::meter::{LocalMeter, Mark};
use super::running::Running;
use super::{Bucket, BucketHold, Shut};
use crate::domain::shut::Reason;
use crate::domain::{Charge, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

impl Bucket {
    /// Waits for a place and for units, in the order of asking, until `patience` is over.
    ///
    /// # Errors
    /// Why the bucket is shut, and until when; nothing is taken then.
    pub async fn enter(
        self: &Arc<Self>,
        charge: Charge,
        patience: Duration,
        now: Timestamp,
    ) -> Result<BucketHold, Shut> {
        if let Some(shut) = self.block() {
            return Err(shut);
        }
        self.touch();
        let mut queued = Queued::new(self, charge);
        let began = Instant::now();
        let give_up = began + patience;
        let late = |reason, wait: Duration| {
            let now = now + began.elapsed();
            // A call that has waited in vain does not begin the time anew for which its job has waited.
            Shut { reason, since: self.waited_since(now), until: now + wait }
        };
        if self.places.is_lent() && self.places.free() == 0 {
            self.ask();
        }
        let Ok(place) = tokio::time::timeout_at(give_up, self.places.enter()).await else {
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
                if !Arc::ptr_eq(&queued.meters, &meters) {
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
            // Set even when the call was asked to come later: there may be enough for it to come at once.
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
        Ok(BucketHold::new(self, taken, place, running, probe))
    }

    /// Takes from all meters or from none.
    fn take(meters: &[Arc<LocalMeter>], charge: Charge) -> Option<Vec<(Arc<LocalMeter>, u64, Mark)>> {
        let mut taken: Vec<(Arc<LocalMeter>, u64, Mark)> = Vec::with_capacity(meters.len());
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
}

/// A call that waits here. The bucket asks the other processes for what the call needs until this is dropped, also when
/// the call is cancelled.
struct Queued<'a> {
    bucket: &'a Bucket,
    meters: Arc<Vec<Arc<LocalMeter>>>,
    /// Units needed of each meter.
    units: Vec<u64>,
}

impl<'a> Queued<'a> {
    fn new(bucket: &'a Bucket, charge: Charge) -> Self {
        bucket.waiting.fetch_add(1, Ordering::Relaxed);
        let meters = bucket.meters();
        let units = meters.iter().map(|meter| {
            let units = charge.units(meter.dimension.unit).min(meter.capacity());
            meter.queue(units);
            units
        });
        Self { bucket, units: units.collect(), meters }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.bucket.waiting.fetch_sub(1, Ordering::Relaxed);
        for (meter, units) in self.meters.iter().zip(&self.units) {
            meter.unqueue(*units);
        }
    }
}
