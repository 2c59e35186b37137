//! The shadow of an accepted job: whether it has one.

use super::Journey;
use crate::domain::budget::Outlay;
use crate::domain::{Timestamp, shadow};
use crate::store::settle::CastShadow;

impl Journey {
    /// The shadow that the job has if it ends with an accepted answer of its own.
    pub(super) fn shadow(&self, now: Timestamp) -> Option<CastShadow> {
        let (shared, job) = (&self.errand.shared, &self.errand.job);
        let shadow = self.errand.plan.route.shadow.as_ref().filter(|shadow| shadow.is_drawn(job.id))?;
        // A worker of one batch does not take jobs of none.
        if shared.settings().only_batch.is_some() {
            return None;
        }
        let (route, labels) = (shadow.route.name.as_str(), &self.held.labels);
        let login = Some(labels.login.as_str());
        let outlay = Outlay { route, project: &labels.project, batch: None, login, provider: None, worst: None };
        // Where it would only wait, there is none: it would say little later, and many would gather.
        let is_held = shared.pauses.load().held_back(route, &labels.project, None).is_some()
            || shared.budgets.load().held_back(&outlay).is_some();
        let may_be_asked = || {
            let ahead = shared.plan().any_lane(route).map(|lane| lane.startable(None, now));
            ahead.is_some_and(|ahead| shadow::may_be_asked(&ahead))
        };
        if is_held || !may_be_asked() {
            return None;
        }
        Some(CastShadow { route: route.to_owned(), target: shadow.target()?.to_string() })
    }
}
