//! One bucket as all worker processes share it: how much of each limit each process holds.
//!
//! A process does not ask for permission call by call. Every fraction of a second it reports how much is left of what
//! it holds and how much it could use ([`Report`]). It is then lent a slice of what the limits allow by then
//! ([`Allotment`]), which it spends by itself. The state is a plain value that the processes pass on through the
//! database, each step by compare-and-swap, so that this module has all of the protocol and none of the traffic.
//!
//! Guarantees, as far as the processes keep to it (spend no more than they hold, and nothing of a slice that is older
//! than [`LEASE`]):
//! - Lent and left units together never exceed the burst; nothing comes back beyond that. So in any span of time at
//!   most the burst is spent, plus the units that came back in that span, however many processes there are.
//! - Units that a process holds when it dies are lost, and nothing else: after [`LEASE`] the others have the whole
//!   limit.
//! - Units that were spent without permission (an estimate that was too low) are a debt, which is paid before anything
//!   is lent.
//! - A wait that a provider asked for voids everything that is lent, and holds for all processes. A wait longer than a
//!   day is not believed to its end: after each `recheck` one call of one process asks again, and all others go on
//!   waiting.
//! - Where there is not enough, the process that had least so far comes first. So large calls and small ones get along,
//!   and two large calls that each hold half of what they need do not wait for each other.

mod allotment;
mod holdings;
mod meter;
mod places;
mod recent;
mod report;
mod standing;
#[cfg(test)]
mod stored;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace;
mod waits;

use super::limits::{Dimension, Heard};
use super::{Limits, Timestamp};
pub use allotment::{Allotment, Slice};
use holdings::Holdings;
use meter::SharedMeter;
pub use meter::Source;
use recent::Recent;
pub use report::{Report, Stock, Wait};
use serde::{Deserialize, Serialize};
pub use standing::{BucketStanding, LimitStanding};
use std::collections::BTreeMap;
use std::time::Duration;
pub use waits::{Asked, SharedWait};

/// How long a slice may be spent without a word from its holder.
pub const LEASE: Duration = Duration::from_secs(3);

/// How long units that a process lacks are put by for it, counted from its last report.
const PUT_BY: Duration = Duration::from_millis(500);

/// How long, counted from its last report, the configuration of a process takes precedence over those of older ones.
const SPEAKS_FOR: Duration = Duration::from_mins(1);

/// The most that a process that had less than the others may catch up on: the units that come back in this time.
const CREDIT: Duration = Duration::from_secs(5);

/// After a provider complains of acceleration the rate is halved, and is whole again in this time.
const SLOPE_RECOVERS_IN: Duration = Duration::from_mins(1);

/// The holdings of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Share {
    /// When its slice becomes void.
    until: Timestamp,
    #[serde(with = "holdings")]
    holdings: Holdings,
    slots: u32,
    slots_wanted: u32,
    hungry: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Holding {
    held: u64,
    /// Units that it would like to have in addition.
    lacks: u64,
    /// The holding is void and the process does not know that yet: it may still spend it, and gets no more.
    #[serde(default)]
    void: bool,
    /// Units that it has spent since it came, counted from where the others were then: the process that had least is
    /// first.
    had: u64,
}

/// The rate is lowered since `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slope {
    since: Timestamp,
}

/// The state of one bucket, which all processes pass on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharedBucket {
    /// The time of the last report; it never goes back here, regardless of what the clock does.
    at: Timestamp,
    /// The youngest process whose configuration was adopted, and when it last came.
    configured_by: i64,
    configured_at: Timestamp,
    meters: Vec<SharedMeter>,
    concurrency: Option<u32>,
    shares: BTreeMap<i64, Share>,
    /// The wait that is on.
    #[serde(rename = "gate")]
    wait: Option<SharedWait>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reopened: Option<Timestamp>,
    slope: Option<Slope>,
    refused: Recent,
}

impl SharedBucket {
    /// Takes a process's report and gives it its slice. Pure and total.
    ///
    /// `worker` tells the processes apart: one that started later has a higher number. Of the processes that came in
    /// the last minute and did not leave, the configuration (`limits`) of the youngest counts.
    pub fn exchange(&mut self, worker: i64, limits: &Limits, report: &Report, now: Timestamp) -> Allotment {
        let now = now.max(self.at);
        self.at = now;
        self.bound_waits(now);
        if report.reopens && self.wait.is_some_and(|wait| wait.asked.is_some()) {
            self.reopen(now);
        }
        let probe = self.ask_again(worker, report, now);
        let is_news = self.configure(worker, limits, now);
        let permille = self.permille(now);
        self.refill(permille, now);
        let before = self.shares.len();
        self.shares.retain(|_, share| share.until > now);
        if self.shares.len() < before {
            // No process knows when dead ones spent what they held.
            self.meters.iter_mut().for_each(|meter| meter.spent_since(now));
        }
        for heard in &report.heard {
            self.hear(heard, now);
        }
        self.refused.add(i64::try_from(report.refused).unwrap_or(i64::MAX), now);

        let mut share = self.shares.remove(&worker).unwrap_or_default();
        share.until = now + LEASE;
        for index in 0..self.meters.len() {
            self.take_back(index, permille, is_news, &mut share, report, now);
        }
        if let Some(wait) = &report.wait {
            self.shut(wait, &mut share, now);
        }
        let is_shut = self.wait.is_some_and(|wait| wait.asked.and_then(|asked| asked.by) != Some(worker));
        share.hungry = report.slots_wanted > report.running || report.stocks.iter().any(|stock| stock.need > 0);
        for index in 0..self.meters.len() {
            self.lend(index, worker, &mut share, report, is_shut, now);
        }
        let slots = self.concurrency.map(|limit| self.lend_slots(limit, worker, &mut share, report));
        let idle = share.slots == 0 && !share.hungry && share.holdings.values().all(|holding| holding.held == 0);
        let slices = (0..self.meters.len()).filter_map(|index| self.slice(index, worker, &share, now)).collect();
        // Where there is no limit, nothing can be held.
        let is_unlimited = self.meters.is_empty() && self.concurrency.is_none();
        if !idle && !is_unlimited {
            self.shares.insert(worker, share);
        }
        if report.leaves && self.configured_by == worker {
            // The configuration of the next process that comes counts.
            self.configured_by = 0;
        }
        let sharers = self.shares.values().filter(|share| share.hungry).count();
        let placed = self.shares.values().fold(0_u32, |sum, share| sum.saturating_add(share.slots));
        Allotment {
            now,
            slices,
            slots,
            places_left: self.concurrency.map_or(u32::MAX, |limit| limit.saturating_sub(placed)),
            wait: self.wait,
            probe,
            reopened: self.reopened,
            sharers: u32::try_from(sharers).unwrap_or(u32::MAX),
        }
    }

    /// Whether it differs from `other` only in the time of the last report, so that it need not be written.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let Self {
            at: _,
            configured_at: _,
            configured_by,
            meters,
            concurrency,
            shares,
            wait,
            reopened,
            slope,
            refused,
        } = self;
        (*configured_by, *concurrency, *wait, *reopened, *slope)
            == (other.configured_by, other.concurrency, other.wait, other.reopened, other.slope)
            && (meters, shares, refused) == (&other.meters, &other.shares, &other.refused)
    }

    /// Adopts the configuration of a process if it counts. Returns whether any limit changed.
    fn configure(&mut self, worker: i64, limits: &Limits, now: Timestamp) -> bool {
        if worker < self.configured_by && now < self.configured_at + SPEAKS_FOR {
            return false;
        }
        (self.configured_by, self.configured_at) = (worker, now);
        self.concurrency = limits.concurrency;
        let before: Vec<_> = self.meters.iter().map(|meter| (meter.capacity(), meter.amount())).collect();
        self.meters.retain_mut(|meter| {
            let rate = limits.rates.iter().find(|rate| rate.dimension() == meter.dimension);
            meter.configure(rate)
        });
        for rate in &limits.rates {
            if !self.meters.iter().any(|meter| meter.dimension == rate.dimension()) {
                self.meters.push(SharedMeter::configured(rate, now));
            }
        }
        !before.into_iter().eq(self.meters.iter().map(|meter| (meter.capacity(), meter.amount())))
    }

    fn hear(&mut self, heard: &Heard, now: Timestamp) {
        let found = self.meters.iter().position(|meter| meter.dimension == heard.dimension);
        match (found, heard.limit) {
            (Some(index), limit) => {
                let outstanding = self.outstanding(index);
                let Some(meter) = self.meters.get_mut(index) else { return };
                if let Some(limit) = limit {
                    meter.hear(limit, heard.remaining, outstanding);
                }
                meter.correct(heard.corrected);
            }
            (None, Some(limit)) => {
                let remaining = heard.remaining.unwrap_or(limit);
                self.meters.push(SharedMeter::learned(heard.dimension, limit, remaining, now));
            }
            (None, None) => {}
        }
    }

    /// How much of the rate comes back now, in thousandths.
    fn permille(&mut self, now: Timestamp) -> u64 {
        let Some(Slope { since }) = self.slope else { return 1_000 };
        let passed = since.until(now);
        if passed >= SLOPE_RECOVERS_IN {
            self.slope = None;
            return 1_000;
        }
        let recovered = passed.as_millis() * 500 / SLOPE_RECOVERS_IN.as_millis().max(1);
        500 + u64::try_from(recovered).unwrap_or(500)
    }

    fn refill(&mut self, permille: u64, now: Timestamp) {
        for index in 0..self.meters.len() {
            let outstanding = self.outstanding(index);
            if let Some(meter) = self.meters.get_mut(index) {
                meter.refill(outstanding, permille, now);
            }
        }
    }

    fn outstanding(&self, index: usize) -> i64 {
        let Some(dimension) = self.meters.get(index).map(|meter| meter.dimension) else { return 0 };
        let held = self.shares.values().filter_map(|share| share.holdings.get(&dimension));
        i64::try_from(held.fold(0_u64, |sum, holding| sum.saturating_add(holding.held))).unwrap_or(i64::MAX)
    }

    /// Settles the holding of a process: missing units were spent, and units that it does not want go back.
    ///
    /// Where the configuration has just changed (`is_news`), it keeps no more than the new limit leaves.
    fn take_back(
        &mut self,
        index: usize,
        permille: u64,
        is_news: bool,
        share: &mut Share,
        report: &Report,
        now: Timestamp,
    ) {
        let others = self.outstanding(index);
        let Some(meter) = self.meters.get_mut(index) else { return };
        let holding = share.holdings.entry(meter.dimension).or_default();
        let before = i64::try_from(holding.held).unwrap_or(i64::MAX);
        let Some(stock) = report.stocks.iter().find(|stock| stock.dimension == meter.dimension) else {
            // The process does not know of this limit yet, so it holds nothing of it.
            holding.held = 0;
            return;
        };
        let is_void = stock.epoch != meter.epoch;
        // A process that has heard that its slice is void has dropped it, and reports what it spent before it heard.
        let has_heard = holding.void && !is_void;
        let left = if has_heard { stock.left.saturating_add(before) } else { stock.left };
        let spent = before.saturating_sub(left);
        meter.spent.add(spent, now);
        if spent > 0 {
            meter.spent_since(now - stock.quiet);
        }
        let want = if has_heard { 0 } else { i64::try_from(stock.want).unwrap_or(i64::MAX) };
        let most = if is_news { meter.level.saturating_add(left).max(0) } else { i64::MAX };
        let kept = left.clamp(0, want).min(most);
        holding.held = u64::try_from(kept).unwrap_or(0);
        // The process may spend a void slice until it hears of it, which it has done once it knows the new epoch.
        holding.void = is_void;
        holding.had = holding.had.saturating_add(u64::try_from(spent).unwrap_or(0));
        holding.lacks = 0;
        let room = meter.capacity().saturating_sub(others).saturating_sub(kept);
        meter.level = meter.level.saturating_add(left.saturating_sub(kept)).min(room);
        meter.refill(others.saturating_add(kept), permille, now);
        if stock.refund > 0 {
            meter.spent.add(i64::try_from(stock.refund).unwrap_or(i64::MAX).saturating_neg(), now);
            // When the refund came in, the process held what it holds now, unless it has spent something since. If both
            // have the same instant, the refund may have come first.
            let held_then = if stock.quiet <= stock.refund_age { before.max(kept) } else { kept };
            meter.refund(stock.refund, now - stock.refund_age, others.saturating_add(held_then), now);
        }
        meter.note(others.saturating_add(before.max(kept)), now);
    }

    /// Lends free units, first to the processes that had least.
    fn lend(&mut self, index: usize, worker: i64, share: &mut Share, report: &Report, shut: bool, now: Timestamp) {
        let Some(meter) = self.meters.get_mut(index) else { return };
        let Some(stock) = report.stocks.iter().find(|stock| stock.dimension == meter.dimension) else { return };
        let others = waiting(&self.shares, meter.dimension, now);
        let holding = share.holdings.entry(meter.dimension).or_default();
        let need = stock.need.min(u64::try_from(meter.capacity()).unwrap_or(0));
        // No process saves up for long by staying away or being slow.
        let most = others.iter().map(|(_, other)| other.had).max().unwrap_or(0);
        let credit = (u64::try_from(CREDIT.as_nanos()).unwrap_or(u64::MAX) / meter.interval()).max(need);
        holding.had = holding.had.max(most.saturating_sub(credit));
        // A process that had less comes first: the units that it lacks are reserved for it.
        let reserved = lacked_before((holding.had, worker), &others);
        let free = u64::try_from(meter.level).unwrap_or(0).saturating_sub(reserved);
        let lacking = need.saturating_sub(holding.held);
        // Half of what a call needs is useless, except to the first process, which gets the rest next.
        if !shut && !holding.void && (reserved == 0 || free >= lacking) {
            let granted = free.min(stock.want.max(need).saturating_sub(holding.held));
            meter.level = meter.level.saturating_sub(i64::try_from(granted).unwrap_or(0));
            holding.held = holding.held.saturating_add(granted);
        }
        // What it would only like to have is not withheld from calls that wait elsewhere.
        holding.lacks = stock.waiting.max(need).min(stock.want.max(need)).saturating_sub(holding.held);
    }

    fn slice(&self, index: usize, worker: i64, own: &Share, now: Timestamp) -> Option<Slice> {
        let meter = self.meters.get(index)?;
        let own = own.holdings.get(&meter.dimension).copied().unwrap_or_default();
        let others = u64::try_from(self.outstanding(index)).unwrap_or(0);
        let (rank, waiting) = ((own.had, worker), waiting(&self.shares, meter.dimension, now));
        Some(Slice {
            dimension: meter.dimension,
            epoch: meter.epoch,
            held: if own.void { 0 } else { own.held },
            level: meter.level,
            outstanding: others.saturating_add(own.held),
            capacity: u64::try_from(meter.capacity()).unwrap_or(0),
            interval: meter.interval(),
            amount: meter.amount(),
            corrected: meter.corrected,
            told: meter.told.map(|(remaining, at)| (remaining, at.until(now))),
            ahead: lacked_before(rank, &waiting),
            between: lacked_between(rank, own.lacks.saturating_sub(1), &waiting),
        })
    }
}

/// What other processes hold and lack of a limit. A process that has not come for a while may be stalled: it keeps its
/// holding, but nothing is put by for it.
fn waiting(shares: &BTreeMap<i64, Share>, dimension: Dimension, now: Timestamp) -> Vec<(i64, Holding)> {
    let fresh = shares.iter().filter(|(_, other)| now + LEASE < other.until + PUT_BY);
    fresh.filter_map(|(who, other)| Some((*who, *other.holdings.get(&dimension)?))).collect()
}

/// The units that processes lack which come before the one with this `rank`.
fn lacked_before(rank: (u64, i64), others: &[(i64, Holding)]) -> u64 {
    let first = others.iter().filter(|(who, other)| (other.had, *who) < rank);
    first.fold(0_u64, |sum, (_, other)| sum.saturating_add(other.lacks))
}

/// The units that the others get while the process with this `rank` gets `more` of them after its first, in turn.
fn lacked_between(rank: (u64, i64), more: u64, others: &[(i64, Holding)]) -> u64 {
    let later = others.iter().filter(|(who, other)| (other.had, *who) > rank);
    later.fold(0_u64, |sum, (_, other)| sum.saturating_add(other.lacks.min(more)))
}
