//! One limit of a shared bucket: its level, and how the level recovers with time.

use super::recent::Recent;
use crate::domain::Timestamp;
use crate::domain::limits::{DAY, Dimension, Rate};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Calls do not arrive in the order and at the distance at which they were sent, so that a provider may see a little
/// more than the rate for a moment. This much of the rate is held back from the burst for that, …
const JITTER_MS: u64 = 25;
/// … but not more than this part of the burst.
const JITTER_AT_MOST: u64 = 50;
/// Where that part is less than a unit, units come back later by that part of a unit's time, at most by these
/// nanoseconds. The first calls of a process need longer to arrive than those after them, which have a connection.
const LATER_AT_MOST: i64 = 100_000_000;

/// How long the fullness of a bucket is remembered.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// The origin of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The configuration.
    Configured,
    /// The provider's headers, where no limit is configured or where they state less.
    Learned,
}

impl Source {
    /// The word for it in status and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Learned => "learned",
        }
    }
}

/// An amount per window, and how much may go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Allowance {
    pub amount: u64,
    pub burst: u64,
}

/// One limit. All amounts are whole units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SharedMeter {
    pub dimension: Dimension,
    configured: Option<Allowance>,
    learned: Option<Allowance>,
    /// Units that no process has leased; negative while in debt.
    pub level: i64,
    /// The time up to which the level counts recovered units, in nanoseconds since the epoch. After a wait that the
    /// provider asked for it lies in the future: nothing comes back until then.
    at: i64,
    /// Nothing comes back because of units that are lent. Perhaps these were spent long ago and only their holder
    /// knows: until it says so, `at` stays where it is.
    stalled: bool,
    /// How much was left and lent together lately, and when: each entry is more than those after it.
    #[serde(default)]
    peaks: Vec<(Timestamp, i64)>,
    /// Rises whenever everything that is leased becomes void.
    pub epoch: u64,
    pub spent: Recent,
    /// Units taken off so far because the provider said that less was left.
    #[serde(default)]
    pub corrected: u64,
    /// What was left by the answer that told of a limit that nobody had configured, and when that answer became known.
    /// All that was counted before that answer is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<(u64, Timestamp)>,
}

fn nanos(now: Timestamp) -> i64 {
    now.0.saturating_mul(1_000_000)
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

impl SharedMeter {
    fn new(dimension: Dimension, now: Timestamp) -> Self {
        Self {
            dimension,
            configured: None,
            learned: None,
            level: 0,
            at: nanos(now),
            stalled: false,
            peaks: Vec::new(),
            epoch: 0,
            spent: Recent::default(),
            corrected: 0,
            told: None,
        }
    }

    /// A full meter, as configured.
    pub(super) fn configured(rate: &Rate, now: Timestamp) -> Self {
        let mut meter = Self::new(rate.dimension(), now);
        meter.configured = Some(Allowance { amount: rate.amount.max(1), burst: rate.burst.max(1) });
        meter.level = meter.capacity();
        meter
    }

    /// A meter that a provider's headers told of, with the units that they say are left.
    pub(super) fn learned(dimension: Dimension, limit: u64, remaining: u64, now: Timestamp) -> Self {
        let mut meter = Self::new(dimension, now);
        meter.learned = Some(Allowance { amount: limit.max(1), burst: limit.max(1) });
        meter.level = signed(remaining).min(meter.capacity());
        meter.told = Some((remaining, now));
        meter
    }

    fn allowance(&self) -> Allowance {
        match (self.configured, self.learned) {
            (Some(configured), Some(learned)) if learned.amount < configured.amount => {
                Allowance { amount: learned.amount, burst: configured.burst.min(learned.burst) }
            }
            (Some(configured), _) => configured,
            (None, Some(learned)) => learned,
            // Not reached: a meter has an allowance of one kind or the other.
            (None, None) => Allowance { amount: 1, burst: 1 },
        }
    }

    pub(super) fn source(&self) -> Source {
        match (self.configured, self.learned) {
            (Some(configured), Some(learned)) if learned.amount < configured.amount => Source::Learned,
            (Some(_), _) => Source::Configured,
            (None, _) => Source::Learned,
        }
    }

    pub(super) fn amount(&self) -> u64 {
        self.allowance().amount
    }

    /// Nanoseconds in which one unit comes back; rounded up, so that the rate is never higher than allowed.
    pub(super) fn interval(&self) -> u64 {
        self.dimension.seconds.saturating_mul(1_000_000_000).div_ceil(self.amount()).max(1)
    }

    /// Whether the limit is whole again at midnight rather than bit by bit. Vendors mean that by "per day" unless they
    /// say otherwise; headers that state when it is whole again do say otherwise.
    pub(super) fn is_daily(&self) -> bool {
        self.dimension.seconds == DAY && self.configured.is_some()
    }

    /// The most that can be leased and left together.
    pub(super) fn capacity(&self) -> i64 {
        let burst = self.allowance().burst;
        if self.is_daily() {
            return signed(burst);
        }
        let jitter = (JITTER_MS * 1_000_000).div_ceil(self.interval()).min(burst / JITTER_AT_MOST);
        signed(burst - jitter)
    }

    /// By how many nanoseconds units come back later than the bucket ceased to be full.
    fn later(&self) -> i64 {
        let burst = self.allowance().burst;
        // A bucket of one unit is full again whenever that is back.
        if self.is_daily() || burst <= 1 || burst >= JITTER_AT_MOST {
            return 0;
        }
        signed(burst.saturating_mul(self.interval()) / JITTER_AT_MOST).min(LATER_AT_MOST)
    }

    /// Adopts the configured rate; `None`: the configuration no longer names this limit. Used units stay used. Returns
    /// whether anything is left that limits.
    pub(super) fn configure(&mut self, rate: Option<&Rate>) -> bool {
        let configured = rate.map(|rate| Allowance { amount: rate.amount.max(1), burst: rate.burst.max(1) });
        if configured != self.configured {
            self.retune(|meter| meter.configured = configured);
        }
        self.configured.is_some() || self.learned.is_some()
    }

    /// Adopts the provider's figures. Used units stay used, unless the provider says that more is left.
    pub(super) fn hear(&mut self, limit: u64, remaining: Option<u64>, outstanding: i64) {
        let learned = Some(Allowance { amount: limit.max(1), burst: limit.max(1) });
        if learned == self.learned {
            return;
        }
        let before = self.allowance();
        self.retune(|meter| meter.learned = learned);
        if self.allowance() != before
            && let Some(remaining) = remaining
        {
            self.level = self.level.max(signed(remaining).min(self.capacity()).saturating_sub(outstanding));
        }
    }

    /// Takes off the units that are missing until all corrections come to `total`.
    pub(super) fn correct(&mut self, total: u64) {
        let missing = total.saturating_sub(self.corrected);
        self.corrected = self.corrected.saturating_add(missing);
        self.level = self.level.saturating_sub(signed(missing));
    }

    fn retune(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.capacity();
        change(self);
        self.level = self.level.saturating_add(self.capacity().saturating_sub(before));
    }

    /// Counts the units that have come back by `now`. Leased units (`outstanding`) leave less room for them.
    ///
    /// `permille` of the rate comes back: less than 1,000 while the slope is lowered.
    pub(super) fn refill(&mut self, outstanding: i64, permille: u64, now: Timestamp) {
        let now = nanos(now);
        if now <= self.at {
            return;
        }
        let room = self.capacity().saturating_sub(outstanding);
        if self.is_daily() {
            let day = signed(DAY).saturating_mul(1_000_000_000);
            if now.div_euclid(day) != self.at.div_euclid(day) {
                self.level = room;
            }
            self.at = now;
            return;
        }
        let interval = signed(self.interval().saturating_mul(1_000) / permille.max(1)).max(1);
        let back = now.saturating_sub(self.at) / interval;
        let missing = room.saturating_sub(self.level).max(0);
        self.stalled = false;
        if back < missing {
            self.level = self.level.saturating_add(back);
            self.at = self.at.saturating_add(back.saturating_mul(interval));
        } else {
            self.level = self.level.saturating_add(missing);
            if outstanding > 0 {
                self.stalled = true;
                self.at = self.at.saturating_add(missing.saturating_mul(interval));
            } else {
                // Full: units that came back beyond that are lost.
                self.at = now.saturating_add(self.later());
            }
        }
    }

    /// Notes that lent units were spent at `since` at the latest: from then on there was room for more to come back.
    pub(super) fn spent_since(&mut self, since: Timestamp) {
        if self.stalled {
            self.at = self.at.max(nanos(since).saturating_add(self.later()));
            // Once: units that are spent later do not put off again what comes back for these.
            self.stalled = false;
        }
    }

    /// Notes how many units are left and lent together.
    pub(super) fn note(&mut self, outstanding: i64, now: Timestamp) {
        let total = self.level.saturating_add(outstanding);
        self.peaks.retain(|(when, peak)| *peak > total && *when + KNOWN_FOR > now);
        self.peaks.push((now, total));
    }

    /// Gives back the units by which calls took less than estimated, known since `since`. Units that found no room then
    /// are too late to be of use, as they are at the provider; so are units that came back too long ago to know.
    pub(super) fn refund(&mut self, units: u64, since: Timestamp, outstanding: i64, now: Timestamp) {
        if since + KNOWN_FOR <= now {
            return;
        }
        let then = self.peaks.iter().filter(|(when, _)| *when >= since).map(|(_, peak)| *peak);
        let most = then.max().unwrap_or(i64::MIN).max(self.level.saturating_add(outstanding));
        let room = self.capacity().saturating_sub(most).max(0);
        self.level = self.level.saturating_add(signed(units).min(room));
    }

    /// Lets units come back from `until` on, at the latest.
    pub(super) fn wait_until_at_most(&mut self, until: Timestamp) {
        self.at = self.at.min(nanos(until));
    }

    /// Shortens a wait that ends beyond `latest` to one that ends at `until`.
    pub(super) fn bound_wait(&mut self, latest: Timestamp, until: Timestamp) {
        if self.at > nanos(latest) {
            self.at = nanos(until);
        }
    }

    /// Empties the bucket until `until`, when exactly `units` are there and the rest comes back bit by bit, which
    /// prevents a stampede. Lent units (`outstanding`) are void, and count as spent until they are given back.
    pub(super) fn drain(&mut self, until: Timestamp, units: u64, outstanding: i64) {
        self.epoch = self.epoch.saturating_add(1);
        let there = signed(units).min(self.capacity()).saturating_sub(outstanding);
        self.level = self.level.min(there);
        self.at = self.at.max(nanos(until));
    }
}
