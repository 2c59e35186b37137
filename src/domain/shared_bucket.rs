//! One bucket as all worker processes share it: who holds how much of which limit.
//!
//! A process does not ask for leave call by call. Every fraction of a second it tells what is left of what it holds and
//! how much it could use ([`Report`]), and is lent a slice of what the limits allow by then ([`Allotment`]), which it
//! spends by itself. The state is a plain value that the processes pass on through the database, each step by
//! compare-and-swap, so that this module has all of the protocol and none of the traffic.
//!
//! Guarantees, as far as the processes keep to it (spend no more than they hold, and nothing of a slice that is older
//! than [`LEASE`]):
//! - What is lent and what is left are together never more than the burst; nothing comes back beyond that. So in any
//!   time no more is spent than the burst and what came back in that time, however many processes there are.
//! - What a process holds when it dies is lost, and nothing else: after [`LEASE`] the others have the whole limit.
//! - What was spent without leave (an estimate that was too low) is a debt that is paid before anything is lent.
//! - A wait that a provider asked for makes void what is lent, and holds for all. One that is longer than a day is not
//!   believed to its end: after each `recheck` one call of one process asks again, and all others go on waiting.
//! - Where there is not enough, it goes to whoever had least so far. So large calls and small ones get along, and two
//!   large calls that each hold half of what they need do not wait for each other.

mod meter;
mod recent;
#[cfg(test)]
mod tests;

use super::limits::{Dimension, Heard};
use super::long_wait::{self, BELIEVED, RECHECK};
use super::shut::{Reason, Shut};
use super::{Limits, Timestamp, Unit};
use meter::Meter;
pub use meter::Source;
use recent::Recent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a slice may be spent without a word from its holder.
pub const LEASE: Duration = Duration::from_secs(3);

/// What a process lacks is put by for it for so long after it came.
const PUT_BY: Duration = Duration::from_millis(500);

/// The configuration of a process counts before that of older ones for so long after it last came.
const SPEAKS_FOR: Duration = Duration::from_mins(1);

/// Whoever had less than the others comes first for at most so much of what comes back.
const CREDIT: Duration = Duration::from_secs(5);

/// After a provider complained of acceleration the rate is half, and is whole again in this time.
const SLOPE_RECOVERS_IN: Duration = Duration::from_mins(1);

/// What a process has of one limit, and what it could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Which limit.
    pub dimension: Dimension,
    /// The epoch in which it was lent.
    pub epoch: u64,
    /// Units held; negative: spent without leave.
    pub left: i64,
    /// How long it has held no more than that.
    pub quiet: Duration,
    /// Units that came back because calls took less than estimated.
    pub refund: u64,
    /// How long ago the first of them came back.
    pub refund_age: Duration,
    /// Units that the call which is next needs before it can start; 0 when none waits.
    pub need: u64,
    /// Units that it would like to hold.
    pub want: u64,
}

/// A wait that a provider asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Why.
    pub reason: Reason,
    /// How long from now.
    pub remaining: Duration,
    /// How often one call asks again when that is too long to be believed.
    pub recheck: Duration,
    /// The limits that are used up, and how many units of each there are when the wait is over.
    pub drained: Vec<(Dimension, u64)>,
    /// The provider complains of how fast the calls became more.
    pub too_steep: bool,
}

/// What a process says when it comes for its slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of each limit that it knows of.
    pub stocks: Vec<Stock>,
    /// Calls that run.
    pub running: u32,
    /// Calls that run or could.
    pub slots_wanted: u32,
    /// What the provider asked for since the last report.
    pub wait: Option<Wait>,
    /// Refusals (429) since the last report.
    pub refused: u64,
    /// What the provider told of its limits since the last report.
    pub heard: Vec<Heard>,
    /// The call that asked again before a long wait was over has found that it is.
    pub reopens: bool,
    /// It begins calls, and may be the one to ask again.
    pub may_begin: bool,
}

/// A bucket that is shut for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedShut {
    /// Why, since when and until when. Of a wait that is too long to be believed: until one call asks again.
    #[serde(flatten)]
    pub shut: Shut,
    /// What was asked for, where that is too long to be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
}

/// A wait that is too long to be believed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Until when the provider wants to be left alone.
    pub until: Timestamp,
    /// How often one call asks again, in milliseconds.
    pub recheck_ms: u64,
    /// The process that may have the call ask again, until it has said what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<i64>,
}

/// What a process may do until it comes again, at most for [`LEASE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allotment {
    /// The state is from then, by the database's clock.
    pub now: Timestamp,
    /// Each limit.
    pub slices: Vec<Slice>,
    /// Calls that it may run at once; `None`: no limit.
    pub slots: Option<u32>,
    /// Places that nobody has.
    pub places_left: u32,
    /// The wait that is on.
    pub gate: Option<SharedShut>,
    /// One call may go all the same, to ask again.
    pub probe: bool,
    /// When the bucket was last opened before its wait was over.
    pub reopened: Option<Timestamp>,
    /// Processes that want something of this bucket, this one included if it does.
    pub sharers: u32,
}

/// A process's part of one limit, and how the limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which limit.
    pub dimension: Dimension,
    /// The epoch in which it is lent.
    pub epoch: u64,
    /// What the process holds now; not what it got in addition.
    pub held: u64,
    /// What nobody holds; negative while in debt.
    pub level: i64,
    /// What all hold together.
    pub outstanding: u64,
    /// What can be held and left together, at most. A call that needs more never fits.
    pub capacity: u64,
    /// Nanoseconds in which a unit comes back.
    pub interval: u64,
    /// The limit as the provider would say it: units per window.
    pub amount: u64,
    /// What was ever taken off because the provider said that less was left.
    pub corrected: u64,
}

/// How a bucket stands, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BucketStanding {
    /// Each of its limits.
    pub limits: Vec<LimitStanding>,
    /// Calls that may run at once, and how many places each process has.
    pub concurrency: Option<u32>,
    /// Places by process.
    pub places: BTreeMap<i64, u32>,
    /// The wait that is on.
    pub gate: Option<SharedShut>,
    /// The rate is lowered for a while, because calls became more too fast.
    pub slowed: bool,
    /// Refusals (429) in the last minute.
    pub refused_last_minute: u64,
}

/// How one limit stands, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitStanding {
    /// `requests/min`, …
    pub limit: String,
    /// What it counts.
    pub unit: Unit,
    /// In so many seconds.
    pub per_seconds: u64,
    /// Units per window.
    pub amount: u64,
    /// What can be held and left together, at most.
    pub capacity: u64,
    /// Where it comes from.
    pub source: Source,
    /// What nobody holds; negative while in debt.
    pub level: i64,
    /// What is lent, by process.
    pub leased: BTreeMap<i64, u64>,
    /// Units spent in the last minute.
    pub spent_last_minute: u64,
    /// That, as a part of what comes back in a minute. Above 1 while a burst is used.
    pub utilisation: f64,
}

impl LimitStanding {
    /// Units that come back per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown to people")]
    pub fn per_second(&self) -> f64 {
        self.amount as f64 / self.per_seconds as f64
    }
}

impl BucketStanding {
    /// Whether nobody holds anything of it and nothing is missing: it was not used for a while.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_full = |limit: &LimitStanding| {
            let is_whole = u64::try_from(limit.level).is_ok_and(|level| level >= limit.capacity);
            is_whole && limit.leased.is_empty() && limit.spent_last_minute == 0
        };
        self.gate.is_none()
            && self.places.is_empty()
            && self.refused_last_minute == 0
            && self.limits.iter().all(is_full)
    }
}

/// What one process holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Share {
    /// Its slice is void from then on.
    until: Timestamp,
    holdings: BTreeMap<String, Holding>,
    slots: u32,
    slots_wanted: u32,
    hungry: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Holding {
    held: u64,
    /// What it would like to have in addition.
    lacks: u64,
    /// It does not know yet that this is void: it may still spend it, and gets no more.
    #[serde(default)]
    void: bool,
    /// What it spent in all since it came, counted from where the others were then: who had least is first.
    had: u64,
}

/// The rate is lowered since `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slope {
    since: Timestamp,
}

/// The bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharedBucket {
    /// The last report's time; time never goes back here, whatever the clock does.
    at: Timestamp,
    /// The youngest process whose configuration was taken over, and when it last came.
    configured_by: i64,
    configured_at: Timestamp,
    meters: Vec<Meter>,
    concurrency: Option<u32>,
    shares: BTreeMap<i64, Share>,
    gate: Option<SharedShut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reopened: Option<Timestamp>,
    slope: Option<Slope>,
    refused: Recent,
}

impl SharedBucket {
    /// Takes a process's report and gives it its slice. Pure and total.
    ///
    /// `worker` tells the processes apart, and who started later has the higher number. Of those who came in the last
    /// minute the configuration (`limits`) of the youngest counts.
    pub fn exchange(&mut self, worker: i64, limits: &Limits, report: &Report, now: Timestamp) -> Allotment {
        let now = now.max(self.at);
        self.at = now;
        self.bound_waits(now);
        if report.reopens && self.gate.is_some_and(|gate| gate.asked.is_some()) {
            self.reopen(now);
        }
        let probe = self.ask_again(worker, report, now);
        let is_news = self.configure(worker, limits, now);
        let permille = self.permille(now);
        self.refill(permille, now);
        let before = self.shares.len();
        self.shares.retain(|_, share| share.until > now);
        if self.shares.len() < before {
            // Nobody knows when the dead spent what they held.
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
        let is_shut = self.gate.is_some_and(|gate| gate.asked.and_then(|asked| asked.by) != Some(worker));
        share.hungry = report.slots_wanted > report.running || report.stocks.iter().any(|stock| stock.need > 0);
        for index in 0..self.meters.len() {
            self.lend(index, worker, &mut share, report, is_shut, now);
        }
        let slots = self.concurrency.map(|limit| self.lend_slots(limit, worker, &mut share, report));
        let idle = share.slots == 0 && !share.hungry && share.holdings.values().all(|holding| holding.held == 0);
        let slices = (0..self.meters.len()).filter_map(|index| self.slice(index, &share)).collect();
        // What has no limit is nobody's to hold.
        let is_unlimited = self.meters.is_empty() && self.concurrency.is_none();
        if !idle && !is_unlimited {
            self.shares.insert(worker, share);
        }
        let sharers = self.shares.values().filter(|share| share.hungry).count();
        let placed = self.shares.values().fold(0_u32, |sum, share| sum.saturating_add(share.slots));
        Allotment {
            now,
            slices,
            slots,
            places_left: self.concurrency.map_or(u32::MAX, |limit| limit.saturating_sub(placed)),
            gate: self.gate,
            probe,
            reopened: self.reopened,
            sharers: u32::try_from(sharers).unwrap_or(u32::MAX),
        }
    }

    /// Whether it is the same as `other` but for the time of the last report, so that it need not be written.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let Self {
            at: _,
            configured_at: _,
            configured_by,
            meters,
            concurrency,
            shares,
            gate,
            reopened,
            slope,
            refused,
        } = self;
        (*configured_by, *concurrency, *gate, *reopened, *slope)
            == (other.configured_by, other.concurrency, other.gate, other.reopened, other.slope)
            && (meters, shares, refused) == (&other.meters, &other.shares, &other.refused)
    }

    /// Opens it before its wait is over, by hand or because a call was answered. Returns whether a wait was on.
    pub fn reopen(&mut self, now: Timestamp) -> bool {
        self.reopened = Some(now);
        self.slope = self.slope.filter(|slope| slope.since <= now);
        for meter in &mut self.meters {
            meter.wait_until_at_most(now);
        }
        self.gate.take().is_some_and(|gate| gate.shut.until > now || gate.asked.is_some_and(|asked| asked.until > now))
    }

    /// Whether this process may have one call ask again although a long wait is on; all others wait for the next time
    /// then. A wait that is over is none any more.
    fn ask_again(&mut self, worker: i64, report: &Report, now: Timestamp) -> bool {
        self.gate = self.gate.filter(|gate| gate.shut.until > now || gate.asked.is_some_and(|asked| asked.until > now));
        let Some(SharedShut { shut: Shut { until, .. }, asked: Some(asked) }) = &mut self.gate else { return false };
        if *until > now || report.wait.is_some() {
            return false;
        }
        let probe = report.may_begin;
        // Who begins nothing looks again a moment later.
        let pause = if probe { Duration::from_millis(asked.recheck_ms) } else { LEASE };
        *until = now + pause;
        asked.by = probe.then_some(worker);
        probe
    }

    /// No wait is taken for longer than is believed, by whichever process it was written: an earlier version, or
    /// another clock.
    fn bound_waits(&mut self, now: Timestamp) {
        let latest = now + BELIEVED;
        if let Some(gate) = self.gate.as_mut().filter(|gate| gate.shut.until > latest) {
            let recheck_ms = u64::try_from(RECHECK.as_millis()).unwrap_or(u64::MAX);
            gate.asked = gate.asked.or(Some(Asked { until: gate.shut.until, recheck_ms, by: None }));
            gate.shut.until = now + RECHECK;
        }
        self.slope = self.slope.filter(|slope| slope.since <= latest);
        let least = self.gate.map_or(now, |gate| gate.shut.until.min(latest));
        for meter in &mut self.meters {
            meter.bound_wait(latest, least);
        }
    }

    /// How it stands at `now`.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> BucketStanding {
        let mut then = self.clone();
        let now = now.max(then.at);
        then.bound_waits(now);
        let permille = then.permille(now);
        then.refill(permille, now);
        then.shares.retain(|_, share| share.until > now);
        let limits = then.meters.iter().map(|meter| {
            let name = meter.dimension.to_string();
            let leased = then.shares.iter().filter_map(|(who, share)| Some((*who, share.holdings.get(&name)?.held)));
            let spent = meter.spent.last_minute(now);
            #[expect(clippy::cast_precision_loss, reason = "shown to people")]
            let utilisation = spent as f64 / (meter.amount() as f64 * 60.0 / meter.dimension.seconds.max(1) as f64);
            LimitStanding {
                limit: name.clone(),
                unit: meter.dimension.unit,
                per_seconds: meter.dimension.seconds.max(1),
                amount: meter.amount(),
                capacity: u64::try_from(meter.capacity()).unwrap_or(0),
                source: meter.source(),
                level: meter.level,
                leased: leased.filter(|(_, held)| *held > 0).collect(),
                spent_last_minute: spent,
                utilisation,
            }
        });
        BucketStanding {
            limits: limits.collect(),
            concurrency: then.concurrency,
            places: then
                .shares
                .iter()
                .filter(|(_, share)| share.slots > 0)
                .map(|(who, share)| (*who, share.slots))
                .collect(),
            gate: then.gate.filter(|gate| gate.shut.until > now || gate.asked.is_some_and(|asked| asked.until > now)),
            slowed: then.slope.is_some(),
            refused_last_minute: then.refused.last_minute(now),
        }
    }

    /// Takes over what a process is configured with, if its word counts. Returns whether any limit is another now.
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
                self.meters.push(Meter::configured(rate, now));
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
                self.meters.push(Meter::learned(heard.dimension, limit, remaining, now));
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
        let Some(name) = self.meters.get(index).map(|meter| meter.dimension.to_string()) else { return 0 };
        let held = self.shares.values().filter_map(|share| share.holdings.get(&name));
        i64::try_from(held.fold(0_u64, |sum, holding| sum.saturating_add(holding.held))).unwrap_or(i64::MAX)
    }

    /// Settles what a process held: what is gone was spent, what it does not want goes back.
    ///
    /// Where the configuration has just changed (`is_news`), it keeps no more than is left by the new one.
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
        let holding = share.holdings.entry(meter.dimension.to_string()).or_default();
        let before = i64::try_from(holding.held).unwrap_or(i64::MAX);
        let Some(stock) = report.stocks.iter().find(|stock| stock.dimension == meter.dimension) else {
            // It does not know of this limit yet, so it holds nothing of it.
            holding.held = 0;
            return;
        };
        let is_void = stock.epoch != meter.epoch;
        // Who has heard that its slice is void has dropped what it had of it, and tells what it spent before it heard.
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
        // What it has of a void slice it may spend until it has heard, which it has when it knows the new epoch.
        holding.void = is_void;
        holding.had = holding.had.saturating_add(u64::try_from(spent).unwrap_or(0));
        holding.lacks = 0;
        let room = meter.capacity().saturating_sub(others).saturating_sub(kept);
        meter.level = meter.level.saturating_add(left.saturating_sub(kept)).min(room);
        meter.refill(others.saturating_add(kept), permille, now);
        if stock.refund > 0 {
            meter.spent.add(i64::try_from(stock.refund).unwrap_or(i64::MAX).saturating_neg(), now);
            // When the refund came in, it held what it holds now, unless it has spent something since; of two things at
            // the same instant the refund may have been the first.
            let held_then = if stock.quiet <= stock.refund_age { before.max(kept) } else { kept };
            meter.refund(stock.refund, now - stock.refund_age, others.saturating_add(held_then), now);
        }
        meter.note(others.saturating_add(before.max(kept)), now);
    }

    /// Lends what can be lent, first to those who had least.
    fn lend(&mut self, index: usize, worker: i64, share: &mut Share, report: &Report, shut: bool, now: Timestamp) {
        let Some(meter) = self.meters.get_mut(index) else { return };
        let Some(stock) = report.stocks.iter().find(|stock| stock.dimension == meter.dimension) else { return };
        let name = meter.dimension.to_string();
        // Whoever has not come for a while may be stalled: it keeps what it holds, but nothing is put by for it.
        let others: Vec<(i64, Holding)> = self
            .shares
            .iter()
            .filter(|(_, other)| now + LEASE < other.until + PUT_BY)
            .filter_map(|(who, other)| Some((*who, *other.holdings.get(&name)?)))
            .collect();
        let holding = share.holdings.entry(name).or_default();
        let need = stock.need.min(u64::try_from(meter.capacity()).unwrap_or(0));
        // Nobody saves up for long by having stayed away or been slow.
        let most = others.iter().map(|(_, other)| other.had).max().unwrap_or(0);
        let credit = (u64::try_from(CREDIT.as_nanos()).unwrap_or(u64::MAX) / meter.interval()).max(need);
        holding.had = holding.had.max(most.saturating_sub(credit));
        // What those lack who had less is theirs.
        let rank = (holding.had, worker);
        let reserved = others
            .iter()
            .filter(|(who, other)| (other.had, *who) < rank)
            .fold(0_u64, |sum, (_, other)| sum.saturating_add(other.lacks));
        let free = u64::try_from(meter.level).unwrap_or(0).saturating_sub(reserved);
        let lacking = need.saturating_sub(holding.held);
        // Half of what a call needs helps nobody, except for the first, who gets the rest next.
        if !shut && !holding.void && (reserved == 0 || free >= lacking) {
            let granted = free.min(stock.want.max(need).saturating_sub(holding.held));
            meter.level = meter.level.saturating_sub(i64::try_from(granted).unwrap_or(0));
            holding.held = holding.held.saturating_add(granted);
        }
        holding.lacks = stock.want.max(need).saturating_sub(holding.held);
    }

    /// Lends places for calls: an equal part to each, and what one does not want to the others. Whoever has more calls
    /// running than its part is told its part, and counts with what runs until that has ended.
    fn lend_slots(&self, limit: u32, worker: i64, share: &mut Share, report: &Report) -> u32 {
        let mut wanted: Vec<(i64, u32)> =
            self.shares.iter().map(|(other, share)| (*other, share.slots_wanted)).collect();
        wanted.push((worker, report.slots_wanted));
        let fair = fair_part(limit, worker, wanted);
        let others = self.shares.values().fold(0_u32, |sum, share| sum.saturating_add(share.slots));
        share.slots_wanted = report.slots_wanted;
        // Calls that run cannot be taken back, so who has more than its part gives it up as they end.
        share.slots = if share.slots > fair || report.running > fair {
            report.running.max(fair).min(share.slots.max(report.running))
        } else {
            fair.min(limit.saturating_sub(others)).max(report.running)
        };
        // Told what runs, it would begin a call for each that ends, and never have less.
        if report.running > fair { fair } else { share.slots }
    }

    /// Shuts the bucket for all, and drains what is used up. A wait that is on already is never shortened.
    fn shut(&mut self, wait: &Wait, own: &mut Share, now: Timestamp) {
        let until = now + long_wait::rest(wait.remaining, wait.recheck);
        let since = self.gate.map_or(now, |gate| gate.shut.since);
        let recheck = wait.recheck.min(BELIEVED);
        let long = long_wait::is_long(wait.remaining).then(|| Asked {
            until: now + wait.remaining,
            recheck_ms: u64::try_from(recheck.as_millis()).unwrap_or(u64::MAX),
            by: None,
        });
        let before = self.gate.and_then(|gate| gate.asked).map(|asked| Asked { by: None, ..asked });
        let asked = [before, long].into_iter().flatten().max_by_key(|asked| asked.until);
        let until = self.gate.map_or(until, |gate| gate.shut.until.max(until));
        self.gate = Some(SharedShut { shut: Shut { reason: wait.reason, since, until }, asked });
        if wait.too_steep {
            self.slope = Some(Slope { since: until });
        }
        for (dimension, units) in &wait.drained {
            let Some(index) = self.meters.iter().position(|meter| meter.dimension == *dimension) else { continue };
            // All may spend what they hold until they hear of it.
            let holding = own.holdings.entry(dimension.to_string()).or_default();
            holding.void = true;
            let held = i64::try_from(holding.held).unwrap_or(i64::MAX);
            let outstanding = self.outstanding(index).saturating_add(held);
            let Some(meter) = self.meters.get_mut(index) else { continue };
            meter.drain(until, *units, outstanding);
        }
    }

    fn slice(&self, index: usize, own: &Share) -> Option<Slice> {
        let meter = self.meters.get(index)?;
        let own = own.holdings.get(&meter.dimension.to_string()).copied().unwrap_or_default();
        let others = u64::try_from(self.outstanding(index)).unwrap_or(0);
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
        })
    }
}

/// The part of `limit` that is one's own when each gets the same, and what some do not want goes to the others.
fn fair_part(limit: u32, worker: i64, mut wanted: Vec<(i64, u32)>) -> u32 {
    wanted.sort_by_key(|(who, wants)| (*wants, *who));
    let mut left = limit;
    let mut sharers = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
    for (who, wants) in wanted {
        // Rounded up, so that a small limit goes to some rather than to nobody.
        let part = left.div_ceil(sharers.max(1)).min(wants);
        if who == worker {
            return part;
        }
        left = left.saturating_sub(part);
        sharers = sharers.saturating_sub(1);
    }
    0
}
