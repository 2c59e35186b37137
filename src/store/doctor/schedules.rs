//! What the doctor sees of schedules.

use super::Surroundings;
use crate::domain::diagnosis::{AilingSchedule, Ailment};
use crate::store::{Store, StoreError};
use serde_json::Value;

/// A schedule that no worker has had for so many seconds fires nowhere: workers speak of theirs every half a minute.
const UNSEEN_SCHEDULE: i64 = 300;

impl Store {
    /// Schedules that do not do what they should. A pause is an operator's wish.
    pub(super) async fn ailing_schedules(&self, around: &Surroundings) -> Result<Vec<AilingSchedule>, StoreError> {
        let at = self.schedules_at().await?;
        let last = self.ticks(None, 1).await?;
        let mut ailing = Vec::new();
        for row in at.rows.iter().filter(|row| row.enabled && row.paused_at.is_none()) {
            let tick = last.iter().find(|tick| tick.schedule == row.name);
            let reason = || tick.and_then(|tick| tick.reason.clone()).unwrap_or_default();
            // One that makes a report has none.
            let route = row.settings.get("route").and_then(Value::as_str);
            let lost = route.filter(|route| !around.routes.is_empty() && !around.routes.contains(*route));
            let unseen = (at.now.0 - row.seen_at.timestamp_millis()) / 1000;
            let ails = match tick.map(|tick| tick.state.as_str()) {
                // One that has left the configuration is missed by no worker, and its last tick cannot be run again.
                _ if unseen > UNSEEN_SCHEDULE && around.schedules.contains(&row.name) => Ailment::Unseen(unseen),
                _ if unseen > UNSEEN_SCHEDULE => continue,
                Some("failed") => Ailment::Failed(reason()),
                Some("retrying") => Ailment::Retrying(reason()),
                _ => match lost {
                    Some(route) => Ailment::NoRoute(route.to_owned()),
                    None => continue,
                },
            };
            ailing.push(AilingSchedule { name: row.name.clone(), ails });
        }
        Ok(ailing)
    }
}
