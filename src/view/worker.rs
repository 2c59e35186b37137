//! A worker: its row, and the statistics that it publishes.

use crate::domain::WorkerState;
use crate::domain::statistics::Statistics;
use crate::store::status::WorkerRecord;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;

/// A worker that has not been heard of for longer is silent: it sends a heartbeat every three seconds.
const SILENT: TimeDelta = TimeDelta::seconds(10);

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerView {
    pub worker: i64,
    pub host: String,
    pub pid: i32,
    pub version: String,
    pub state: WorkerState,
    pub started_at: DateTime<Utc>,
    /// When its last heartbeat arrived.
    pub seen_at: DateTime<Utc>,
    /// Jobs that it holds according to the queue.
    pub holds: i64,
    /// Its statistics in full: a newer worker may publish more than this program knows.
    pub stats: Value,
    /// The same statistics, as far as this program knows them.
    #[serde(skip)]
    pub said: Statistics,
    /// Whether it may act.
    #[serde(skip)]
    pub is_alive: bool,
}

impl From<WorkerRecord> for WorkerView {
    fn from(record: WorkerRecord) -> Self {
        Self {
            is_alive: record.is_alive(),
            worker: record.id,
            host: record.host,
            pid: record.pid,
            version: record.version,
            state: record.state,
            started_at: record.started_at,
            seen_at: record.seen_at,
            holds: record.holds,
            said: Statistics::read(&record.stats),
            stats: record.stats,
        }
    }
}

impl WorkerView {
    /// Its state in one word: that of its row; `stopping`; or `silent`, while it has missed several heartbeats and is
    /// not declared dead yet.
    #[must_use]
    pub fn condition(&self, now: DateTime<Utc>) -> &'static str {
        if self.is_alive && now - self.seen_at > SILENT {
            "silent"
        } else if self.is_alive && self.said.stopping {
            "stopping"
        } else {
            self.state.as_str()
        }
    }

    /// Its running calls, in all buckets; `None`: it does not say.
    #[must_use]
    pub fn calls_running(&self) -> Option<i64> {
        self.said.gate.buckets.iter().filter_map(|bucket| bucket.running.map(i64::from)).reduce(i64::saturating_add)
    }

    /// Its waiting calls, in all buckets; `None`: it does not say.
    #[must_use]
    pub fn calls_waiting(&self) -> Option<i64> {
        self.said.gate.buckets.iter().filter_map(|bucket| bucket.waiting.map(i64::from)).reduce(i64::saturating_add)
    }
}
