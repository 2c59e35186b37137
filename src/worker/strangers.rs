//! Routes that jobs wait for and this worker does not have: reported in one line, however many there are.

use crate::domain::roll::roll;
use crate::domain::trial;
use crate::store::lanes::Lane;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two such lines.
const EVERY: Duration = Duration::from_mins(1);

/// How many reported routes are remembered. With more than that, a few may be reported again.
const REMEMBERED: usize = 1_000;

/// The routes that were reported.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    told: BTreeSet<String>,
    told_at: Option<Instant>,
}

impl Strangers {
    /// Looks at the routes of these lanes, and reports those that are unknown and were not reported before.
    pub(super) fn look(&mut self, lanes: &[Lane], is_known: impl Fn(&str) -> bool) {
        self.told.retain(|route| !is_known(route));
        if self.told_at.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        let strange: BTreeSet<&str> = lanes
            .iter()
            .map(|lane| lane.route.as_str())
            // Routes of a trial belong to its command, which works on them itself.
            .filter(|route| !is_known(route) && !self.told.contains(*route) && trial::tried(route).is_none())
            .collect();
        if strange.is_empty() {
            return;
        }
        tracing::warn!(
            routes = roll(strange.iter().copied()),
            "jobs wait for routes that this worker does not have: add them to the configuration, or cancel the jobs"
        );
        if self.told.len() + strange.len() > REMEMBERED {
            self.told.clear();
        }
        self.told.extend(strange.into_iter().take(REMEMBERED).map(str::to_owned));
        self.told_at = Some(Instant::now());
    }
}
