//! The limits of a bucket as all workers share them.

use super::shut::ShutView;
use crate::domain::Timestamp;
use crate::domain::shared_bucket::BucketStanding;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeMap;

/// A bucket.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BucketView {
    pub bucket: String,
    /// Each of its limits.
    pub limits: Vec<LimitView>,
    /// Calls that may run at once.
    pub concurrency: Option<u32>,
    /// Places by worker.
    pub places: BTreeMap<i64, u32>,
    /// Why it is shut for all, if it is.
    pub shut: Option<ShutView>,
    /// Until when the provider asked for a wait, where that is too long to be believed.
    pub asked_until: Option<DateTime<Utc>>,
    /// Whether the rate is lowered for a while, because the number of calls grew too fast.
    pub slowed: bool,
    /// Refusals (429) in the last minute.
    pub refused_last_minute: u64,
    /// Whether no worker holds anything of it and nothing is missing.
    #[serde(skip)]
    pub is_idle: bool,
}

/// A limit of a bucket.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitView {
    /// `requests/min`, …
    pub limit: String,
    pub unit: &'static str,
    /// The length of its window, in seconds.
    pub per_seconds: u64,
    /// Units per window.
    pub amount: u64,
    /// The most units that can be held and left together.
    pub capacity: u64,
    /// Where the limit comes from.
    pub source: &'static str,
    /// Units that no worker holds; negative while in debt.
    pub level: i64,
    /// Units that are lent, by worker.
    pub leased: BTreeMap<i64, u64>,
    /// Units spent in the last minute.
    pub used_last_minute: u64,
    /// The same, as a share of the units that come back in a minute. Above 1 while a burst is used.
    pub utilisation: f64,
}

impl BucketView {
    /// A bucket as it stands.
    #[must_use]
    pub fn of(name: &str, standing: &BucketStanding) -> Self {
        let instant = |at: Timestamp| DateTime::from_timestamp_millis(at.0);
        let shut = standing.gate;
        let limits = standing.limits.iter().map(|limit| LimitView {
            limit: limit.limit.clone(),
            unit: limit.unit.as_str(),
            per_seconds: limit.per_seconds,
            amount: limit.amount,
            capacity: limit.capacity,
            source: limit.source.as_str(),
            level: limit.level,
            leased: limit.leased.clone(),
            used_last_minute: limit.spent_last_minute,
            utilisation: limit.utilisation,
        });
        Self {
            bucket: name.to_owned(),
            limits: limits.collect(),
            concurrency: standing.concurrency,
            places: standing.places.clone(),
            shut: shut.map(|gate| gate.shut.into()),
            asked_until: shut.and_then(|gate| gate.asked).and_then(|asked| instant(asked.until)),
            slowed: standing.slowed,
            refused_last_minute: standing.refused_last_minute,
            is_idle: standing.is_idle(),
        }
    }
}
