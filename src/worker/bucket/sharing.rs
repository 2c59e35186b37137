//! The keeper's part of a bucket: the reports that it sends to other processes, and their answers.

use super::Bucket;
use super::meter::LocalMeter;
use super::waits::Block;
use crate::domain::limits::{self, Dimension, Heard};
use crate::domain::news::PlacesNews;
use crate::domain::ramp::Ramp;
use crate::domain::shared_bucket::{Allotment, LEASE, Report, Wait};
use crate::domain::{Limits, Timestamp, Unit};
use crate::provider::LimitObservation;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two reports while there is enough, and at most while there is not.
const SOON: Duration = Duration::from_millis(20);
pub(super) const STEADY: Duration = Duration::from_millis(200);
/// While there is not enough, what comes back is gathered at least this long.
const GATHER: Duration = Duration::from_millis(80);
/// How often a report renews the hold on what this process has.
const RENEW: Duration = Duration::from_secs(1);
/// A bucket in use is checked this often even when there is nothing to report: other processes may have shut it.
const LOOK: Duration = Duration::from_millis(500);
/// Answers have to agree over this part of a limit about the time over which it counts.
const SPREAD: u64 = 33;
/// The longest wait that a clock can count.
const LONGEST: Duration = Duration::from_hours(30 * 366 * 24);
/// How often a bucket that no call asks about is checked for having been opened by hand.
const LISTEN: Duration = Duration::from_secs(5);
/// A bucket that no call has asked about for this long is not in use.
const IDLE: Duration = Duration::from_secs(5);

/// What the next report has to tell the other processes, and when it is due.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    pub wait: Option<(Wait, Instant)>,
    pub refused: u64,
    /// Set when the call that asked again before a long wait was over has found it to be over.
    pub reopens: bool,
    /// When the bucket was last opened before its wait was over, as of the last word from the other processes.
    pub reopened: Option<Timestamp>,
    pub heard: Vec<Heard>,
    /// The windows of limits that answers have shown.
    pub windows: BTreeMap<(Unit, u64), Guess>,
    /// Limits that were reported already.
    pub told_limits: BTreeMap<Dimension, u64>,
    /// When the last word from the other processes was asked for.
    pub heard_at: Option<Instant>,
    /// When the last report set out.
    pub told_at: Option<Instant>,
    /// When a call last asked about this bucket.
    pub used_at: Option<Instant>,
    /// Whether the other processes know of something that this process holds.
    pub is_known: bool,
    /// When the limits were last configured anew.
    pub changed_at: Option<Instant>,
    /// The number of calls at once that later processes would begin with.
    pub told_places: Option<PlacesNews>,
}

/// The time over which a limit counts, as shown by answers that had from `least` to `most` left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess {
    window: u64,
    least: u64,
    most: u64,
}

impl Guess {
    /// Whether answers at sufficiently different levels agree. At a single level, a limit that means something else may
    /// look like any window.
    const fn is_sure(&self, limit: u64) -> bool {
        self.most - self.least >= limit.div_ceil(SPREAD)
    }
}

/// What a process had at a report, to tell units that are lent from those spent meanwhile.
#[derive(Debug)]
pub(in crate::worker) struct Base {
    asked_at: Instant,
    left: Vec<(Arc<LocalMeter>, i64)>,
    /// Whether the other processes know of something that this process holds.
    pub is_known: bool,
}

impl Bucket {
    /// The limits that an answer speaks of, as far as it is clear which are meant. Separate pools of the same unit
    /// (priority, fast) are not limits of ordinary calls.
    ///
    /// Where the answer does not give the time over which a limit counts, the configured limit of the same amount gives
    /// it. If there is none, the time is worked out from when the limit is whole again, and believed when answers at
    /// different levels agree.
    pub fn understand(&self, observations: &[LimitObservation]) -> Vec<Heard> {
        let ordinary = observations.iter().filter(|seen| seen.pool.is_none());
        ordinary
            .filter_map(|seen| {
                let seconds = match seen.per {
                    Some(per) => per.as_secs().max(1),
                    None => self.window(seen)?,
                };
                let dimension = Dimension { unit: seen.unit, seconds };
                Some(Heard { dimension, limit: seen.limit, remaining: seen.remaining, corrected: 0 })
            })
            .collect()
    }

    fn window(&self, seen: &LimitObservation) -> Option<u64> {
        let limit = seen.limit?;
        let limits = self.limits();
        let mut configured = limits.rates.iter().filter(|rate| rate.unit == seen.unit).peekable();
        if configured.peek().is_some() {
            return configured.find(|rate| rate.amount == limit).map(|rate| rate.dimension().seconds);
        }
        let remaining = seen.remaining?;
        let told = limits::window(limit, remaining, seen.reset_in?)?.as_secs();
        let mut keeping = self.keeping();
        let guess = keeping.windows.entry((seen.unit, limit)).or_insert(Guess {
            window: told,
            least: remaining,
            most: remaining,
        });
        if !guess.is_sure(limit) {
            if guess.window != told {
                *guess = Guess { window: told, least: remaining, most: remaining };
            }
            guess.least = guess.least.min(remaining);
            guess.most = guess.most.max(remaining);
        }
        guess.is_sure(limit).then_some(guess.window)
    }

    /// When the keeper should come, if at all.
    pub(in crate::worker) fn due(&self, now: Instant) -> Option<Instant> {
        let keeping = self.keeping();
        let Some(told_at) = keeping.told_at else {
            return self.hungry.load(Ordering::Acquire).then_some(now);
        };
        if keeping.wait.is_some() {
            return Some(now);
        }
        let meters = self.meters();
        let mut due = None;
        if self.hungry.load(Ordering::Acquire) {
            let is_stale = keeping.heard_at.is_none_or(|at| now - at >= LEASE);
            let wants = meters.iter().any(|meter| meter.is_short())
                || self.places.is_lent() && self.places.free() == 0 && self.waiting.load(Ordering::Relaxed) > 0;
            let has_enough = meters.iter().all(|meter| meter.is_plentiful(now));
            due = Some(if is_stale || wants && has_enough || !keeping.heard.is_empty() {
                told_at + SOON
            } else {
                // When it is the turn of the call that comes next: a unit that is there and not fetched is lost at the
                // end of the work.
                let turn = meters.iter().filter_map(|meter| meter.lendable_in(now)).max();
                turn.map_or(told_at + STEADY, |turn| (now + turn).clamp(told_at + GATHER, told_at + STEADY))
            });
        }
        if keeping.is_known {
            due = Some(due.unwrap_or(told_at + RENEW).min(told_at + RENEW));
        }
        if keeping.used_at.is_some_and(|at| now - at < IDLE) {
            // While no limits are known, another process may learn of some at any time.
            let look = if meters.is_empty() { STEADY } else { LOOK };
            due = Some(due.unwrap_or(told_at + look).min(told_at + look));
        }
        // A process that has work for the bucket has to hear when it is opened by hand.
        if self.is_retired() { due } else { due.or(Some(told_at + LISTEN)) }
    }

    /// The report for the other processes, with the base that [`Bucket::receive`] needs.
    pub(in crate::worker) fn report(&self, is_closing: bool) -> (Report, Base) {
        let now = Instant::now();
        let is_closing = is_closing || self.is_retired();
        self.hungry.store(false, Ordering::Release);
        let mut keeping = self.keeping();
        let meters = self.meters();
        if keeping.heard_at.is_some_and(|at| now - at >= LEASE) {
            for meter in meters.iter() {
                meter.void();
            }
        }
        keeping.told_at = Some(now);
        let wait =
            keeping.wait.take().map(|(wait, opens)| Wait { remaining: opens.saturating_duration_since(now), ..wait });
        let mut heard = std::mem::take(&mut keeping.heard);
        let (refused, is_known) = (std::mem::take(&mut keeping.refused), keeping.is_known);
        let reopens = std::mem::take(&mut keeping.reopens);
        drop(keeping);
        let mut stocks = Vec::with_capacity(meters.len());
        let mut base = Vec::with_capacity(meters.len());
        for meter in meters.iter() {
            let (stock, left) = meter.stock(now, is_closing);
            stocks.push(stock);
            base.push((Arc::clone(meter), left));
            let corrected = meter.corrected();
            if corrected > 0 {
                match heard.iter_mut().find(|heard| heard.dimension == meter.dimension) {
                    Some(heard) => heard.corrected = corrected,
                    None => heard.push(Heard { dimension: meter.dimension, limit: None, remaining: None, corrected }),
                }
            }
        }
        let running = self.running();
        let waiting = if is_closing { 0 } else { self.waiting.load(Ordering::Relaxed) };
        let slots_wanted = running.saturating_add(self.places.guests()).saturating_add(waiting);
        // A call that has its place and waits for tokens counts as running.
        let running = self.places.freeze().unwrap_or(running);
        let report = Report {
            stocks,
            running,
            slots_wanted: slots_wanted.max(running),
            wait,
            refused,
            heard,
            reopens,
            may_begin: !is_closing,
            leaves: is_closing,
        };
        (report, Base { asked_at: now, left: base, is_known })
    }

    /// The limits as configured here.
    pub(in crate::worker) fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// Takes over the word of the other processes.
    pub(in crate::worker) fn receive(&self, base: &Base, told: &Allotment) {
        let now = Instant::now();
        let mut meters = self.meters().as_ref().clone();
        let mut changed = false;
        for slice in &told.slices {
            let found = base.left.iter().find(|(meter, _)| meter.dimension == slice.dimension);
            if let Some((meter, left)) = found {
                meter.receive(*slice, *left, told.sharers, base.asked_at);
            } else if !meters.iter().any(|meter| meter.dimension == slice.dimension) {
                let meter = Arc::new(LocalMeter::new(*slice, base.asked_at));
                meter.receive(*slice, 0, told.sharers, base.asked_at);
                self.charge_running(&meter);
                meters.push(meter);
                changed = true;
            }
        }
        let before = meters.len();
        meters.retain(|meter| told.slices.iter().any(|slice| slice.dimension == meter.dimension));
        if changed || meters.len() < before {
            if meters.iter().any(|meter| meter.dimension.unit == Unit::Requests) {
                // The provider's own number is known now, so there is nothing left to feel for.
                self.places.lift();
            }
            self.meters.store(Arc::new(meters));
        }
        self.hear_of_waits(told, now);
        let running = self.places.running();
        let mut keeping = self.keeping();
        // Units asked for under limits that no longer hold let no call begin.
        let is_current = keeping.changed_at.is_none_or(|at| base.asked_at >= at);
        if is_current {
            keeping.heard_at = Some(base.asked_at);
            // The configuration of the other processes counts. Where they know of no limit, this process keeps to its
            // own.
            if let Some(places) = told.slots.or_else(|| self.limits().concurrency) {
                self.places.lend(places, if told.slots.is_some() { told.places_left } else { 0 });
            }
        }
        keeping.is_known =
            told.slices.iter().any(|slice| slice.held > 0) || told.slots.is_some_and(|places| places.max(running) > 0);
        drop(keeping);
        let is_short = self.meters().iter().any(|meter| meter.is_short() || meter.has_news());
        if is_short || !is_current {
            self.hungry.store(true, Ordering::Release);
        }
        self.received.notify_waiters();
    }

    /// The number of calls at once that was found by trial, where later processes should hear of it: only a bucket that
    /// is in use has something to say.
    pub(in crate::worker) fn places_news(&self, now: Timestamp) -> Option<PlacesNews> {
        let news = self.places.found(now)?;
        let keeping = self.keeping();
        let is_in_use = keeping.used_at.is_some_and(|at| at.elapsed() < IDLE);
        let told = keeping.told_places.as_ref();
        (is_in_use && news.is_worth_telling(told, Ramp::default().limit())).then_some(news)
    }

    /// That has been told.
    pub(in crate::worker) fn places_told(&self, news: PlacesNews) {
        self.keeping().told_places = Some(news);
    }

    /// Goes on from the number that an earlier process has found.
    pub(in crate::worker) fn resume_places(&self, news: &PlacesNews, now: Timestamp) {
        self.places.resume(news, now);
        self.keeping().told_places = Some(*news);
    }

    /// Takes over a wait of the other processes, or learns that one is over.
    fn hear_of_waits(&self, told: &Allotment, now: Instant) {
        let mut leave = self.leave.lock();
        let mut keeping = self.keeping();
        let before = std::mem::replace(&mut keeping.reopened, told.reopened);
        // A wait that this process has not reported yet is newer.
        if told.reopened > before && keeping.wait.is_none() {
            *leave = None;
            *self.block.lock() = None;
        }
        drop(keeping);
        let Some(wait) = told.wait else { return };
        // Counted from when the answer arrived: a moment late is better than a moment early.
        let shut = wait.shut;
        let block = Block { shut, opens: now + told.now.until(shut.until), is_long: wait.asked.is_some() };
        if told.probe {
            *leave = Some(block);
        } else if leave.is_none_or(|leave| leave.shut.until < shut.until) {
            *leave = None;
            self.set_block(block.shut, block.opens, block.is_long);
        }
    }

    /// The report failed: everything in it is reported and asked for again.
    pub(in crate::worker) fn failed(&self, report: Report) {
        let mut keeping = self.keeping();
        keeping.refused = keeping.refused.saturating_add(report.refused);
        keeping.reopens |= report.reopens;
        for heard in report.heard {
            if !keeping.heard.iter().any(|newer| newer.dimension == heard.dimension) {
                keeping.heard.push(heard);
            }
        }
        if let Some(wait) = report.wait
            && keeping.wait.is_none()
        {
            let opens = Instant::now() + wait.remaining.min(LONGEST);
            keeping.wait = Some((wait, opens));
        }
        drop(keeping);
        self.hungry.store(true, Ordering::Release);
        // Places are lent for a limited time: running calls go on, and no other call begins.
        if !self.is_fresh() {
            self.places.lend(0, 0);
        }
    }
}
