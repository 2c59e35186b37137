//! A call's hold on a bucket: the units that it took, and the figures learned when it ends.

use super::meter::{LocalMeter, Mark};
use super::running::{Running, is_of};
use super::waits::Block;
use super::{Bucket, Shut};
use crate::domain::Charge;
use crate::domain::limits::{Dimension, Heard};
use crate::provider::LimitObservation;
use crate::worker::places::Place;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A call's hold on a bucket: a place, and units that are corrected later.
#[derive(Debug)]
pub struct BucketHold {
    bucket: Arc<Bucket>,
    pub(super) taken: Vec<(Arc<LocalMeter>, u64, Mark)>,
    pub(super) place: Place,
    running: Running,
    /// Set when the call asks again whether a long wait is over.
    pub(super) probe: Option<Block>,
}

impl BucketHold {
    pub(super) fn new(
        bucket: &Arc<Bucket>,
        taken: Vec<(Arc<LocalMeter>, u64, Mark)>,
        place: Place,
        running: Running,
        probe: Option<Block>,
    ) -> Self {
        Self { bucket: Arc::clone(bucket), taken, place, running, probe }
    }

    /// Corrects the estimate to what the call really took. One request stays one request.
    ///
    /// `limits` are what its answer says of the provider's limits. Where the call was charged late for one of them, and
    /// had been counted before the answer that told of that limit, it takes nothing more.
    pub fn correct(&self, actual: Charge, limits: &[LimitObservation]) {
        let mut is_news = false;
        let taken = self.taken.iter().map(|(meter, estimated, _)| (meter, *estimated, false));
        let now = Instant::now();
        let late = self.running.close(Some((actual, limits)));
        let late = late.iter().map(|(meter, units)| {
            let said = limits.iter().find(|seen| is_of(seen, meter)).and_then(|seen| seen.remaining);
            (meter, *units, said.is_some_and(|remaining| meter.had_counted(remaining, now)))
        });
        for (meter, estimated, had_been_counted) in taken.chain(late) {
            let actual = if had_been_counted { 0 } else { actual.units(meter.dimension.unit) };
            meter.charge(actual.saturating_sub(estimated));
            meter.refund(estimated.saturating_sub(actual));
            is_news |= actual != estimated;
        }
        if is_news {
            self.bucket.ask();
        }
    }

    /// Undoes the hold: the call was not made and took nothing.
    pub fn cancel(self) {
        for (meter, units, _) in &self.taken {
            meter.untake(*units);
        }
        for (meter, units) in self.running.close(None) {
            meter.refund(units);
        }
        self.probe.into_iter().for_each(|leave| self.bucket.give_back_leave(leave));
        self.bucket.received.notify_waiters();
    }

    /// The bucket that the call holds.
    pub(in crate::worker) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The wait that has begun since the call got its leave, unless the call is the one that asks again all the same.
    pub(in crate::worker) fn shut_meanwhile(&self) -> Option<Shut> {
        if self.probe.is_some() { None } else { self.bucket.block() }
    }

    /// How many calls may run at once, if that is felt for and has not been lowered since this one began.
    #[must_use]
    pub(in crate::worker) fn felt(&self) -> Option<u32> {
        self.place.felt()
    }

    /// Records that answers take longer than usual, and that `bearable` calls at once would not slow them down.
    pub(in crate::worker) fn slowed(&self, bearable: f64) {
        self.place.slowed(bearable);
    }

    /// Records that the provider, by its own word, has too many calls at once; `wait` is the time that it asks for, if
    /// any.
    pub(in crate::worker) fn crowded(&self, wait: Option<Duration>) {
        match wait {
            Some(_) => self.place.shut(),
            None => _ = self.place.refused(),
        }
    }

    /// Learns what the answer says of the provider's limits.
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
            // A limit that is configured lower always differs from what the provider says: reporting it once is enough.
            news.retain(|heard| keeping.told_limits.get(&heard.dimension) != heard.limit.as_ref());
            for heard in news {
                keeping.told_limits.extend(heard.limit.map(|limit| (heard.dimension, limit)));
                match keeping.heard.iter_mut().find(|before| before.dimension == heard.dimension) {
                    // Of several answers, the one with the least remaining counts.
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

    /// Whether the answer says of a limit of this bucket that less is left than the call took.
    pub(in crate::worker) fn is_short(&self, heard: &[Heard]) -> bool {
        self.short(heard).next().is_some()
    }

    fn short<'a>(&'a self, heard: &'a [Heard]) -> impl Iterator<Item = (Dimension, u64)> + 'a {
        let is_short = move |dimension: Dimension, units: u64| {
            let said = |heard: &Heard| {
                heard.dimension == dimension && heard.remaining.is_some_and(|remaining| remaining < units)
            };
            heard.iter().any(said)
        };
        let taken = self.taken.iter().map(|(meter, units, _)| (meter.dimension, *units));
        taken.filter(move |(dimension, units)| is_short(*dimension, *units))
    }

    /// The limits that a refusal is about, with what the call took of each: those that have too little left by the
    /// answer, else the one that has least left by our own count.
    pub(super) fn drained(&self, heard: &[Heard]) -> Vec<(Dimension, u64)> {
        let told: Vec<_> = self.short(heard).collect();
        if !told.is_empty() {
            return told;
        }
        let now = Instant::now();
        let least = self.taken.iter().min_by_key(|(meter, ..)| meter.fullness(now));
        least.map(|(meter, units, _)| (meter.dimension, *units)).into_iter().collect()
    }
}
