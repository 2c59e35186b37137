//! One limit of a bucket in this process: what the process holds of it, and what it knows of the rest.

use super::purse::Purse;
use crate::domain::Rate;
use crate::domain::limits::Dimension;
use crate::domain::shared_bucket::{LEASE, Slice, Stock};
use crate::domain::strategy::WHOLLY_FREE;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How fast the memory of recent spending fades.
const PACE_OVER: Duration = Duration::from_secs(1);
/// A difference of as many units as come back in this time is no reason to doubt the count.
const NOISE: Duration = Duration::from_millis(250);

/// One limit of a bucket.
#[derive(Debug)]
pub(super) struct LocalMeter {
    pub dimension: Dimension,
    purse: Purse,
    /// Units that calls wait for.
    pending: AtomicU64,
    book: Mutex<Book>,
}

/// The state of the limit as a whole, and what the next report has to tell.
#[derive(Clone, Copy, Debug)]
struct Book {
    slice: Slice,
    /// When `slice` was received.
    at: Instant,
    sharers: u32,
    spent_at: Instant,
    refund: u64,
    refunded_at: Instant,
    /// Recent spending, in units a second.
    pace: f64,
    spent_since: u64,
    /// Units that the next call needs.
    need: u64,
    /// The total that all corrections have to reach by the provider's word; 0 when there is nothing to report.
    corrected: u64,
    /// The provider's word since the other processes were last heard; of several, the one that differs most.
    said: Option<Said>,
}

/// What a provider said was left after a call.
#[derive(Clone, Copy, Debug)]
struct Said {
    mark: Mark,
    remaining: u64,
    units: u64,
    at: Instant,
}

impl Said {
    fn differs_by(&self) -> i64 {
        self.mark.believed.saturating_sub(signed(self.remaining.saturating_add(self.units.saturating_mul(2))))
    }
}

/// The meter's reading when a call was let in, to be compared with what the provider says of that call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The units believed to be left, without any corrections, so that marks of different times can be compared.
    believed: i64,
}

fn units_of(nanos: u128, interval: u64) -> u64 {
    u64::try_from(nanos / u128::from(interval.max(1))).unwrap_or(u64::MAX)
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

impl LocalMeter {
    /// A meter that holds nothing yet.
    pub(super) fn new(slice: Slice, now: Instant) -> Self {
        let book = Book {
            slice,
            at: now,
            sharers: 1,
            spent_at: now,
            refund: 0,
            refunded_at: now,
            pace: 0.0,
            spent_since: 0,
            need: 0,
            corrected: 0,
            said: None,
        };
        Self { dimension: slice.dimension, purse: Purse::new(), pending: AtomicU64::new(0), book: Mutex::new(book) }
    }

    /// A meter for a configured limit, before its standing is known.
    pub(super) fn of(rate: &Rate) -> Self {
        let dimension = rate.dimension();
        let interval = dimension.seconds.saturating_mul(1_000_000_000).div_ceil(rate.amount.max(1)).max(1);
        let (capacity, amount) = (rate.burst, rate.amount);
        let (held, level, outstanding, corrected) = (0, 0, 0, 0);
        let slice = Slice {
            dimension,
            epoch: 0,
            held,
            level,
            outstanding,
            capacity,
            interval,
            amount,
            corrected,
            told: None,
            ahead: 0,
            between: 0,
        };
        Self::new(slice, Instant::now())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock()
    }

    /// Units in hand; negative: spent without leave.
    pub(super) fn held(&self) -> i64 {
        self.purse.held()
    }

    /// The most units that fit into the bucket.
    pub(super) fn capacity(&self) -> u64 {
        self.book().slice.capacity
    }

    /// The limit as the provider would say it.
    pub(super) fn amount(&self) -> u64 {
        self.book().slice.amount
    }

    /// The state of the limit as a whole, as of the last word from the other processes.
    pub(super) fn slice(&self) -> Slice {
        self.book().slice
    }

    /// Whether a call whose answer says now that `remaining` was left had been counted when the limit was told.
    pub(super) fn had_counted(&self, remaining: u64, now: Instant) -> bool {
        let book = *self.book();
        book.slice.had_counted(remaining, now.saturating_duration_since(book.at))
    }

    pub(super) fn queue(&self, units: u64) {
        self.pending.fetch_add(units, Ordering::Relaxed);
    }

    pub(super) fn unqueue(&self, units: u64) {
        self.pending.fetch_sub(units, Ordering::Relaxed);
    }

    /// Whether fewer units are in hand than calls wait for.
    pub(super) fn is_short(&self) -> bool {
        let pending = self.pending.load(Ordering::Relaxed);
        pending > 0 && self.held() < signed(pending)
    }

    /// Takes `units` of those in hand, all or none. The part beyond what the bucket can ever hold is booked as debt.
    pub(super) fn take(&self, units: u64) -> bool {
        let now = u32::try_from(units.min(self.capacity().max(1))).unwrap_or(u32::MAX);
        if now == 0 {
            return true;
        }
        let taken = self.purse.take(now);
        let mut book = self.book();
        if taken {
            self.purse.spend(units.saturating_sub(u64::from(now)));
            book.spent_since = book.spent_since.saturating_add(units);
            book.spent_at = Instant::now();
            book.need = 0;
        } else {
            book.need = u64::from(now);
        }
        taken
    }

    /// Undoes a [`LocalMeter::take`] of a call that was not made.
    pub(super) fn untake(&self, units: u64) {
        self.purse.put(units);
        let mut book = self.book();
        book.spent_since = book.spent_since.saturating_sub(units);
    }

    /// Books what a call took beyond its estimate, as a debt if need be.
    pub(super) fn charge(&self, units: u64) {
        if units > 0 {
            self.purse.spend(units);
            let mut book = self.book();
            book.spent_since = book.spent_since.saturating_add(units);
            book.spent_at = Instant::now();
        }
    }

    /// Books what a call took less than estimated. It goes back to the shared bucket, because only there it is known
    /// whether the bucket has been full meanwhile.
    pub(super) fn refund(&self, units: u64) {
        if units > 0 {
            let mut book = self.book();
            if book.refund == 0 {
                book.refunded_at = Instant::now();
            }
            book.refund = book.refund.saturating_add(units);
        }
    }

    /// Voids the units in hand: their lease is over.
    pub(super) fn void(&self) {
        self.purse.spend(u64::try_from(self.held()).unwrap_or(0));
    }

    /// Units that no process holds, as far as is known; negative while in debt.
    fn level(book: &Book, now: Instant) -> i64 {
        let back = units_of(now.saturating_duration_since(book.at).as_nanos(), book.slice.interval);
        let room = signed(book.slice.capacity.saturating_sub(book.slice.outstanding));
        book.slice.level.saturating_add(signed(back)).min(room.max(book.slice.level))
    }

    /// How long until `units` more could be had after everything that waits already; zero when they could be had now.
    pub(super) fn wait(&self, units: u64, now: Instant) -> Duration {
        let pending = self.pending.load(Ordering::Relaxed);
        self.wait_for(pending.saturating_add(units.min(self.capacity())), now)
    }

    /// How long until `units` could be had if nothing else waited.
    pub(super) fn wait_alone(&self, units: u64, now: Instant) -> Duration {
        self.wait_for(units.min(self.capacity()), now)
    }

    fn wait_for(&self, units: u64, now: Instant) -> Duration {
        let book = *self.book();
        let missing = signed(units).saturating_sub(self.held());
        if missing <= 0 { Duration::ZERO } else { book.slice.wait(missing, Self::level(&book, now), book.sharers) }
    }

    /// How many units could be had within `horizon` beside everything that waits already.
    pub(super) fn headroom(&self, horizon: Duration, now: Instant) -> u64 {
        let book = *self.book();
        let coming = signed(units_of(horizon.as_nanos(), book.slice.interval));
        let shared = Self::level(&book, now).saturating_add(coming).max(0) / i64::from(book.sharers.max(1));
        let room = self.held().saturating_add(shared).saturating_sub(signed(self.pending.load(Ordering::Relaxed)));
        u64::try_from(room).unwrap_or(0)
    }

    /// The part of this process's share of the limit that is free beside everything that waits already, in millionths
    /// of what that share holds when full; negative where more is waited for than it holds.
    pub(super) fn free(&self, now: Instant) -> i64 {
        let book = *self.book();
        let sharers = i64::from(book.sharers.max(1));
        let there = self.held().saturating_add(Self::level(&book, now) / sharers);
        let free = there.saturating_sub(signed(self.pending.load(Ordering::Relaxed)));
        let whole = signed(book.slice.capacity) / sharers;
        free.min(whole).saturating_mul(WHOLLY_FREE) / whole.max(1)
    }

    /// How long until the next call that waits could be lent what it needs; `None`: no call waits for more than is in
    /// hand.
    pub(super) fn lendable_in(&self, now: Instant) -> Option<Duration> {
        if !self.is_short() {
            return None;
        }
        let book = *self.book();
        let missing = signed(book.need.max(1)).saturating_sub(self.held()).max(1);
        Some(book.slice.wait_in_turn(missing, Self::level(&book, now)))
    }

    /// Whether more units could be had at once than calls wait for.
    pub(super) fn is_plentiful(&self, now: Instant) -> bool {
        let book = *self.book();
        Self::level(&book, now) >= signed(self.pending.load(Ordering::Relaxed))
    }

    /// The part of the burst that is available now, in thousandths.
    pub(super) fn fullness(&self, now: Instant) -> u64 {
        let book = *self.book();
        let there = u64::try_from(self.held().saturating_add(Self::level(&book, now))).unwrap_or(0);
        there.saturating_mul(1_000) / book.slice.capacity.max(1)
    }

    /// Whether the limit has had a rest: a tenth of the burst is there, and either more than one call of `units` would
    /// take, or this process has left them unused for at least this long.
    pub(super) fn has_rested(&self, units: u64, time: Duration, now: Instant) -> bool {
        let book = *self.book();
        let units = units.min(book.slice.capacity);
        let there = u64::try_from(self.held().saturating_add(Self::level(&book, now))).unwrap_or(0);
        let unused_from = Duration::from_nanos(units.saturating_mul(book.slice.interval)).saturating_add(time);
        let is_unused = there >= units && now.saturating_duration_since(book.spent_at) >= unused_from;
        self.fullness(now) > 100 && (is_unused || there >= units.saturating_mul(2))
    }

    /// The stock to report, and what this process has from then on, which is the base of [`LocalMeter::receive`].
    ///
    /// Units that it gives up here it no longer spends, whether the report arrives or not.
    pub(super) fn stock(&self, now: Instant, is_closing: bool) -> (Stock, i64) {
        let mut book = self.book();
        let passed = now.saturating_duration_since(book.at).as_secs_f64().max(0.2);
        let weight = (passed / PACE_OVER.as_secs_f64()).min(1.0);
        #[expect(clippy::cast_precision_loss, reason = "an estimate of the demand")]
        let lately = book.spent_since as f64 / passed;
        book.pace = if lately > book.pace { lately } else { book.pace + (lately - book.pace) * weight };
        let was_idle = std::mem::take(&mut book.spent_since) == 0;
        let pending = self.pending.load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate that was measured")]
        let ahead = (book.pace / 2.0) as u64;
        let want = match pending {
            _ if is_closing => 0,
            // Nothing has used what is in hand, and a call of another process may wait for it.
            0 if was_idle => 0,
            // While no call waits there is no use in holding a fraction of one.
            0 => ahead / 2,
            _ => pending.saturating_add(ahead),
        };
        let left = self.held();
        let surplus = u64::try_from(left.saturating_sub(signed(want))).unwrap_or(0);
        self.purse.spend(surplus);
        let stock = Stock {
            dimension: self.dimension,
            epoch: book.slice.epoch,
            left,
            quiet: now.saturating_duration_since(book.spent_at),
            refund: std::mem::take(&mut book.refund),
            refund_age: now.saturating_duration_since(book.refunded_at),
            need: if pending == 0 { 0 } else { book.need.max(1) },
            want,
            waiting: if is_closing { 0 } else { pending },
        };
        (stock, left.saturating_sub(signed(surplus)))
    }

    /// Takes the total that the corrections have to reach by the provider's word since the last report; 0 when there is
    /// none.
    pub(super) fn corrected(&self) -> u64 {
        std::mem::take(&mut self.book().corrected)
    }

    /// Whether there is news for the other processes, such as a refund or overspending.
    pub(super) fn has_news(&self) -> bool {
        let book = *self.book();
        book.refund > 0
            || book.corrected > book.slice.corrected
            || book.said.is_some()
            || book.spent_since > 0
            || self.held() != 0
    }

    /// Takes over the units that were lent, `base` being the units left at the report.
    pub(super) fn receive(&self, slice: Slice, base: i64, sharers: u32, at: Instant) {
        {
            let mut book = self.book();
            book.slice = slice;
            book.at = at;
            book.sharers = sharers;
        }
        let granted = signed(slice.held).saturating_sub(base);
        match u64::try_from(granted) {
            Ok(more) => self.purse.put(more),
            Err(_) => self.purse.spend(granted.unsigned_abs()),
        }
        self.weigh(at);
    }

    /// The units believed to be left at the provider now.
    pub(super) fn mark(&self, now: Instant) -> Mark {
        let book = *self.book();
        Mark { believed: self.believed(&book, now) }
    }

    fn believed(&self, book: &Book, now: Instant) -> i64 {
        let others = signed(book.slice.outstanding.saturating_sub(book.slice.held));
        let corrected = signed(book.slice.corrected);
        Self::level(book, now).saturating_add(others).saturating_add(self.held()).saturating_add(corrected)
    }

    /// Records what the provider says was left. It is compared when the other processes have been heard: units that
    /// seem missing may have been in their hands since their last word.
    pub(super) fn compare(&self, mark: Mark, remaining: u64, units: u64, now: Instant) {
        let said = Said { mark, remaining, units, at: now };
        let mut book = self.book();
        if book.said.is_none_or(|before| before.differs_by() < said.differs_by()) {
            book.said = Some(said);
        }
    }

    /// Compares what the provider said with the word of the other processes, who were asked at `heard`. If less is left
    /// than believed, the difference is taken off, except for what calls on their way and other processes explain.
    fn weigh(&self, heard: Instant) {
        let mut book = self.book();
        let Some(Said { mark, remaining, units, at }) = book.said.filter(|said| said.at <= heard) else { return };
        book.said = None;
        // After a rest the provider's word says nothing of the units left now.
        if heard - at > LEASE {
            return;
        }
        let believed = mark.believed.min(self.believed(&book, Instant::now()));
        let others = book.slice.outstanding.saturating_sub(book.slice.held);
        let noise = units_of(NOISE.as_nanos(), book.slice.interval).saturating_add(units.saturating_mul(2));
        let allowed = signed(remaining.saturating_add(others).saturating_add(noise));
        let total = u64::try_from(believed.saturating_sub(allowed)).unwrap_or(0);
        if total > book.slice.corrected {
            book.corrected = book.corrected.max(total);
        }
    }
}
