//! A call's hold on a bucket: what it took, and what is learned when it is over.

use super::meter::{Mark, Meter};
use super::running::Running;
use super::{Block, Bucket};
use crate::domain::Charge;
use crate::domain::limits::{Dimension, Heard};
use crate::worker::slots::Slot;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A call's hold on a bucket: a slot, and tokens to be corrected.
#[derive(Debug)]
pub struct Hold {
    bucket: Arc<Bucket>,
    pub(super) taken: Vec<(Arc<Meter>, u64, Mark)>,
    pub(super) slot: Slot,
    running: Running,
    /// It asks again whether a long wait is over.
    pub(super) probe: Option<Block>,
}

impl Hold {
    pub(super) fn new(
        bucket: &Arc<Bucket>,
        taken: Vec<(Arc<Meter>, u64, Mark)>,
        slot: Slot,
        running: Running,
        probe: Option<Block>,
    ) -> Self {
        Self { bucket: Arc::clone(bucket), taken, slot, running, probe }
    }

    /// Corrects the estimate to what the call really took. One request stays one request.
    pub fn correct(&self, actual: Charge) {
        let mut is_news = false;
        let taken = self.taken.iter().map(|(meter, estimated, _)| (meter, *estimated));
        let late = self.running.close();
        for (meter, estimated) in taken.chain(late.iter().map(|(meter, units)| (meter, *units))) {
            let actual = actual.units(meter.dimension.unit);
            meter.charge(actual.saturating_sub(estimated));
            meter.refund(estimated.saturating_sub(actual));
            is_news |= actual != estimated;
        }
        if is_news {
            self.bucket.ask();
        }
    }

    /// The call was not made: it took nothing at all.
    pub fn cancel(self) {
        for (meter, units, _) in &self.taken {
            meter.untake(*units);
        }
        for (meter, units) in self.running.close() {
            meter.refund(units);
        }
        self.probe.into_iter().for_each(|leave| self.bucket.give_back_leave(leave));
        self.bucket.received.notify_waiters();
    }

    /// Whose it is.
    #[cfg(test)]
    pub(super) fn bucket(&self) -> &Arc<Bucket> {
        &self.bucket
    }

    /// Whether its call asks again although a long wait is on.
    pub(in crate::worker) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// How many calls may run at once, if that is felt for and has not been lowered since this one began.
    #[must_use]
    pub(in crate::worker) fn felt(&self) -> Option<u32> {
        self.slot.felt()
    }

    /// Answers take longer than usual; with about so many calls at once they would not.
    pub(in crate::worker) fn slowed(&self, bearable: f64) {
        self.slot.slowed(bearable);
    }

    /// The provider has too many calls at once, by its own word, and asks for a wait or says nothing of one.
    pub(in crate::worker) fn crowded(&self, wait: Option<Duration>) {
        match wait {
            Some(_) => self.slot.shut(),
            None => _ = self.slot.refused(),
        }
    }

    /// Learns from what the answer says of the provider's limits.
    pub fn hear(&self, heard: &[Heard]) {
        if heard.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut news = Vec::new();
        for heard in heard {
            let known = self.bucket.meters().iter().find(|meter| meter.dimension == heard.dimension).cloned();
            let is_known = known.is_some_and(|known| heard.limit.is_none_or(|limit| limit == known.amount()));
            if !is_known && heard.limit.is_some() {
                news.push(*heard);
            }
            let taken = self.taken.iter().find(|(meter, ..)| meter.dimension == heard.dimension);
            if let (Some((meter, units, mark)), Some(remaining)) = (taken, heard.remaining) {
                meter.compare(*mark, remaining, *units, now);
            }
        }
        if !news.is_empty() {
            let mut keeping = self.bucket.keeping();
            // A limit that is configured lower differs from what is heard for ever: once is enough.
            news.retain(|heard| keeping.told_limits.get(&heard.dimension) != heard.limit.as_ref());
            for heard in news {
                keeping.told_limits.extend(heard.limit.map(|limit| (heard.dimension, limit)));
                match keeping.heard.iter_mut().find(|before| before.dimension == heard.dimension) {
                    // Of several answers the one that has least counts.
                    Some(before) => *before = Heard { remaining: before.remaining.min(heard.remaining), ..heard },
                    None => keeping.heard.push(heard),
                }
            }
            let is_news = !keeping.heard.is_empty();
            drop(keeping);
            if is_news {
                self.bucket.hungry.store(true, Ordering::Release);
                self.bucket.wake.notify_one();
            }
        }
    }

    /// The limits that a refusal is about: those of which the answer says that too little is left, else the one of
    /// which the least is left by our own count; with what the call took of each.
    pub(super) fn drained(&self, heard: &[Heard]) -> Vec<(Dimension, u64)> {
        let now = Instant::now();
        let short = |meter: &Meter, units: u64| {
            heard.iter().any(|heard| {
                heard.dimension == meter.dimension && heard.remaining.is_some_and(|remaining| remaining < units)
            })
        };
        let told: Vec<_> = self
            .taken
            .iter()
            .filter(|(meter, units, _)| short(meter, *units))
            .map(|(meter, units, _)| (meter.dimension, *units))
            .collect();
        if !told.is_empty() {
            return told;
        }
        let least = self.taken.iter().min_by_key(|(meter, ..)| meter.fullness(now));
        least.map(|(meter, units, _)| (meter.dimension, *units)).into_iter().collect()
    }
}
