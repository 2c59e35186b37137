//! How many calls may run at once where the configuration does not say.
//!
//! A provider that publishes no limit shows how much it takes by what it refuses, and by how long it takes. So the
//! number is found by trial, as TCP finds the room on a line: it grows while calls pass, and falls by a part when they
//! are refused ([`Ramp::refused`]) or take clearly longer than usual ([`Tempo`], [`Ramp::slowed`]).
//!
//! Each process tries for itself. Processes that share a provider each meet its refusals, so they share its room about
//! evenly, without a word between them.
//!
//! The number is kept over restarts, as a starting point that ages ([`Ramp::resumed`]).
//!
//! [`Tempo`]: super::tempo::Tempo

use super::Timestamp;
use super::news::PlacesNews;
use std::time::Duration;

/// The first limit: enough for a quick start, few enough that an unknown limit is met by dozens of calls and not
/// hundreds.
const FIRST: f64 = 16.0;
/// The highest limit, however well it goes.
const MOST: f64 = 100_000.0;
/// The smallest step of a round, which sets how long the limit lingers around a number that was too much before.
const LEAST_STEP: f64 = 1.0 / 16.0;
/// The part of the limit that is left after a refusal.
const AFTER_REFUSAL: f64 = 0.7;
/// The least and the most of the limit that is left after slow answers, regardless of what those would bear.
const AFTER_SLOWNESS: (f64, f64) = (0.25, 0.6);
/// Slow answers never lower the limit further than this: with so few calls the load is hardly ours.
const FLOOR: f64 = 4.0;

/// A number that was found longer ago than this is halved: load and limits may be others by now.
const FRESH: Duration = Duration::from_hours(1);
/// One that was found longer ago than this is no better than none.
const STALE: Duration = Duration::from_hours(24);

/// The number of calls that may run at once, as far as it is known by now.
///
/// The limit doubles with each round of good calls until a number is too much. From then on it closes half of the gap
/// to that number with each round, lingers there, and leaves it behind in steps that grow again.
///
/// All calls that began before the limit was lowered are one event: only a call that begins afterwards can say that it
/// is still too high. Eras serve that purpose: a call brings along the one in which it began.
///
/// Guarantees: the limit is between 1 and 100,000; it is lowered once per event; a call that passes never lowers it and
/// raises it by 1 at most; slow answers take no more than three quarters of it and leave at least 4.
#[derive(Clone, Copy, Debug)]
pub struct Ramp {
    limit: f64,
    /// The number of calls that was last too much.
    ceiling: f64,
    /// Counts how often the limit was lowered.
    era: u64,
    /// Calls of this era that passed.
    passed: f64,
    /// How many calls have to pass before the limit grows: the usual time has to be seen first.
    hold: f64,
}

impl Default for Ramp {
    fn default() -> Self {
        Self { limit: FIRST, ceiling: MOST, era: 0, passed: 0.0, hold: 0.0 }
    }
}

impl Ramp {
    /// A ramp that goes on from the number that an earlier process has found; `None`: that is too long ago.
    #[must_use]
    pub fn resumed(news: &PlacesNews, now: Timestamp) -> Option<Self> {
        let age = news.at.until(now);
        if age > STALE {
            return None;
        }
        let found = f64::from(news.calls).clamp(1.0, MOST);
        let too_many = news.too_many.map_or(MOST, f64::from);
        // What was well once is approached bit by bit.
        let (limit, ceiling) = if age > FRESH { ((found / 2.0).max(1.0), found.max(2.0)) } else { (found, too_many) };
        Some(Self { limit, ceiling: ceiling.clamp(2.0, MOST), ..Self::default() })
    }

    /// What another process would go on from.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 100,000")]
    pub fn news(&self, at: Timestamp) -> PlacesNews {
        let too_many = (self.ceiling < MOST).then_some(self.ceiling as u32);
        PlacesNews { calls: self.limit(), too_many, at }
    }

    /// Calls that may run at once; at least 1.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 100,000")]
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// The era, which a call that begins now has to bring along.
    #[must_use]
    pub fn era(&self) -> u64 {
        self.era
    }

    /// Notes that a call got through while `running` calls were running. Only a limit that is in use has proved itself.
    pub fn passed(&mut self, era: u64, running: u32) {
        if era == self.era {
            self.passed += 1.0;
        }
        if self.passed < self.hold || !self.is_in_use(running) {
            return;
        }
        let step = ((self.ceiling - self.limit).abs() / 2.0).clamp(LEAST_STEP, self.limit);
        self.limit = (self.limit + step / self.limit).min(MOST);
    }

    /// Notes that the provider refused a call without saying how long to wait, while `running` calls were running,
    /// itself included. Returns whether running fewer at once would not help: it was the only call.
    #[must_use]
    pub fn refused(&mut self, era: u64, running: u32) -> bool {
        if era != self.era {
            return false;
        }
        let used = self.note_ceiling(running);
        self.lower(used * AFTER_REFUSAL, 0.0);
        used < 2.0
    }

    /// Notes that the provider asked to be left alone for a while, with `running` calls running. Afterwards calls begin
    /// one by one and double up to half of the number that was too much: otherwise all that wait would come at once.
    pub fn shut(&mut self, era: u64, running: u32) {
        if era != self.era {
            return;
        }
        self.note_ceiling(running);
        self.ceiling = (self.ceiling / 2.0).max(2.0);
        self.lower(1.0, 0.0);
    }

    /// Notes that answers take clearly longer than usual with `running` calls running; about `bearable` calls would
    /// not. The limit then holds still until the usual time with so few is known.
    pub fn slowed(&mut self, era: u64, running: u32, bearable: f64) {
        // Too soon after the limit was lowered: another target of the same bucket has reported this already.
        let is_news = era == self.era && self.passed * 2.0 >= self.limit;
        if !is_news || !self.is_in_use(running) || self.limit <= FLOOR || bearable.is_nan() {
            return;
        }
        let (least, most) = AFTER_SLOWNESS;
        let after = bearable.clamp(self.limit * least, self.limit * most).max(FLOOR);
        self.ceiling = self.limit.min(after * 2.0);
        // One round for the calls to get used to it, and one to see.
        self.lower(after, after.max(FIRST) * 2.0);
    }

    fn is_in_use(&self, running: u32) -> bool {
        f64::from(running) * 2.0 >= self.limit
    }

    /// Notes that this many calls were too much, and returns how many of the places that was. If only a few calls are
    /// refused, or a probe of a provider that is ill, this says nothing of many calls: there may be no room at all for
    /// the moment.
    fn note_ceiling(&mut self, running: u32) -> f64 {
        let used = self.limit.min(f64::from(running.max(1)));
        if used >= 2.0 && self.is_in_use(running) {
            self.ceiling = used;
        }
        used
    }

    fn lower(&mut self, limit: f64, hold: f64) {
        self.limit = limit.max(1.0).min(self.limit);
        self.era = self.era.wrapping_add(1);
        self.passed = 0.0;
        self.hold = hold;
    }
}

#[cfg(test)]
mod tests;
