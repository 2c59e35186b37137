//! Why, since when and until when something is not called: a target, a bucket or a key.

use crate::domain::Shut;
use crate::domain::statistics::ShutStatistics;
use chrono::{DateTime, Utc};
use serde::Serialize;

/// A time during which something is not called, as far as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShutView {
    /// Why it is not called, as [`Reason`](crate::domain::Reason) spells it.
    pub reason: Option<String>,
    /// Since when without a break.
    pub since: Option<DateTime<Utc>>,
    /// When it is called again; `None`: that is not known.
    pub until: Option<DateTime<Utc>>,
}

impl From<&ShutStatistics> for ShutView {
    fn from(told: &ShutStatistics) -> Self {
        let instant = |millis: Option<i64>| millis.and_then(DateTime::from_timestamp_millis);
        Self {
            reason: told.reason.as_deref().map(str::to_owned),
            since: instant(told.since_ms),
            until: instant(told.until_ms),
        }
    }
}

impl From<Shut> for ShutView {
    fn from(shut: Shut) -> Self {
        Self::from(&ShutStatistics::from(shut))
    }
}
