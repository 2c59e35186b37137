//! The clock of this machine, for the prices of commands that ask no database.

use crate::domain::Timestamp;
use chrono::Utc;

/// The instant by this machine's clock.
pub(super) fn now() -> Timestamp {
    Timestamp(Utc::now().timestamp_millis())
}
