//! What has lately held up jobs that wait in the queue, so that the ledger of their first calls can say it.

use crate::domain::pause::{FixedWait, PauseKind, Pauses};
use crate::domain::{Timestamp, awaited};
use crate::store::settle::Labels;
use std::collections::HashMap;

/// No more pauses, and no more lanes that a budget held back, than this are remembered.
const MOST: usize = 1000;

/// Pauses and budgets, and when each was last seen to hold back jobs.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    pauses: HashMap<(PauseKind, String), Timestamp>,
    /// The budget that held back jobs with these labels.
    budgets: HashMap<Labels, (String, Timestamp)>,
}

impl HeldUp {
    /// Notes what is paused now.
    pub(super) fn note_pauses(&mut self, pauses: &Pauses, now: Timestamp) {
        if pauses.is_empty() {
            return;
        }
        let of_jobs = [PauseKind::Batch, PauseKind::Route, PauseKind::Project];
        for (kind, name) in of_jobs.into_iter().flat_map(|kind| pauses.names(kind).map(move |name| (kind, name))) {
            if self.pauses.len() >= MOST {
                self.pauses.clear();
            }
            self.pauses.insert((kind, name.to_owned()), now);
        }
    }

    /// Notes that a budget has no room for jobs with these labels now.
    pub(super) fn note_budget(&mut self, labels: Labels, budget: &str, now: Timestamp) {
        if self.budgets.len() >= MOST {
            self.budgets.clear();
        }
        self.budgets.insert(labels, (awaited::budget(budget), now));
    }

    /// What has held up a job with these labels at some time since it could have begun, in the words of rows.
    pub(super) fn since(&self, ready_at: Timestamp, labels: &Labels) -> Option<String> {
        let was_paused = |kind: PauseKind, name: &str| {
            let seen = self.pauses.get(&(kind, name.to_owned()));
            seen.is_some_and(|seen| *seen >= ready_at)
        };
        let fixed = if self.pauses.is_empty() {
            None
        } else if labels.batch.as_deref().is_some_and(|batch| was_paused(PauseKind::Batch, batch)) {
            Some(FixedWait::BatchPaused)
        } else if was_paused(PauseKind::Route, &labels.route) {
            Some(FixedWait::RoutePaused)
        } else if was_paused(PauseKind::Project, &labels.project) {
            Some(FixedWait::ProjectPaused)
        } else {
            None
        };
        let budget = || self.budgets.get(labels).filter(|(_, seen)| *seen >= ready_at);
        fixed.map(|wait| wait.as_str().to_owned()).or_else(|| Some(budget()?.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_was_held_up_by_what_was_seen_since_it_could_have_begun() {
        let labels = Labels {
            route: "r".to_owned(),
            project: "p".to_owned(),
            batch: Some("b".to_owned()),
            login: "l".to_owned(),
        };
        let mut held_up = HeldUp::default();
        assert_eq!(held_up.since(Timestamp(0), &labels), None);
        held_up.note_budget(labels.clone(), "nightly", Timestamp(5));
        let of_another = Labels { project: "q".to_owned(), ..labels.clone() };
        assert_eq!(held_up.since(Timestamp(5), &of_another), None);
        assert_eq!(held_up.since(Timestamp(5), &labels).as_deref(), Some("budget nightly"));
        assert_eq!(held_up.since(Timestamp(6), &labels), None);
        let paused = |kind: PauseKind, name: &str| [(kind, name.to_owned())].into_iter().collect::<Pauses>();
        held_up.note_pauses(&paused(PauseKind::Project, "p"), Timestamp(7));
        held_up.note_pauses(&paused(PauseKind::Batch, "other"), Timestamp(9));
        assert_eq!(held_up.since(Timestamp(7), &labels).as_deref(), Some("project paused"));
        assert_eq!(held_up.since(Timestamp(8), &labels), None);
        held_up.note_pauses(&paused(PauseKind::Batch, "b"), Timestamp(9));
        assert_eq!(held_up.since(Timestamp(7), &labels).as_deref(), Some("batch paused"));
        for index in 0..MOST * 3 {
            held_up.note_pauses(&paused(PauseKind::Route, &index.to_string()), Timestamp(10));
            held_up.note_budget(Labels { route: index.to_string(), ..labels.clone() }, "b", Timestamp(10));
        }
        assert!(held_up.pauses.len() <= MOST && held_up.budgets.len() <= MOST);
    }
}
