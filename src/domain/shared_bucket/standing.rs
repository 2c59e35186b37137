//! The standing of a bucket, for people.

use super::{Share, SharedBucket, SharedWait, Source};
use crate::domain::{Timestamp, Unit};
use serde::Serialize;
use std::collections::BTreeMap;

/// The standing of a bucket, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BucketStanding {
    /// Each of its limits.
    pub limits: Vec<LimitStanding>,
    /// Calls that may run at once.
    pub concurrency: Option<u32>,
    /// Places by process.
    pub places: BTreeMap<i64, u32>,
    /// The wait that is on.
    pub gate: Option<SharedWait>,
    /// The rate is lowered for a while, because it rose too fast.
    pub slowed: bool,
    /// Refusals (429) in the last minute.
    pub refused_last_minute: u64,
}

/// The standing of one limit, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitStanding {
    /// `requests/min`, …
    pub limit: String,
    pub unit: Unit,
    pub per_seconds: u64,
    /// Units per window.
    pub amount: u64,
    /// The most that can be held and left together.
    pub capacity: u64,
    /// The origin of the limit.
    pub source: Source,
    /// Units that no process holds; negative while in debt.
    pub level: i64,
    /// Units that are lent, by process.
    pub leased: BTreeMap<i64, u64>,
    /// Units spent in the last minute.
    pub spent_last_minute: u64,
    /// `spent_last_minute` as a part of the units that come back in a minute. Above 1 while a burst is used.
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
    /// Whether no process holds any of it and nothing is missing: it was not used for a while.
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

impl SharedBucket {
    /// The standing of the bucket at `now`.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> BucketStanding {
        let mut then = self.clone();
        let now = now.max(then.at);
        then.bound_waits(now);
        let permille = then.permille(now);
        then.refill(permille, now);
        then.shares.retain(|_, share| share.until > now);
        let limits = then.meters.iter().map(|meter| {
            let held = |share: &Share| Some(share.holdings.get(&meter.dimension)?.held);
            let leased = then.shares.iter().filter_map(|(who, share)| Some((*who, held(share)?)));
            let spent = meter.spent.last_minute(now);
            #[expect(clippy::cast_precision_loss, reason = "shown to people")]
            let utilisation = spent as f64 / (meter.amount() as f64 * 60.0 / meter.dimension.seconds.max(1) as f64);
            LimitStanding {
                limit: meter.dimension.to_string(),
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
            gate: then.wait.filter(|wait| wait.is_on(now)),
            slowed: then.slope.is_some(),
            refused_last_minute: then.refused.last_minute(now),
        }
    }
}
