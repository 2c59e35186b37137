//! The routes, projects and batches whose jobs begin no call, as of the last look at the queue.

use crate::store::pause::Pause;
use std::collections::HashSet;

/// What is paused, by kind and name.
#[derive(Debug, Default)]
pub(super) struct Pauses(HashSet<(String, String)>);

impl Pauses {
    /// Pauses as they stand in the database.
    pub(super) fn of(pauses: Vec<Pause>) -> Self {
        Self(pauses.into_iter().map(|pause| (pause.kind, pause.name)).collect())
    }

    /// Whether jobs of this route, project and batch are held back.
    pub(super) fn hold(&self, route: &str, project: &str, batch: Option<&str>) -> bool {
        let has = |kind: &str, name: &str| self.0.contains(&(kind.to_owned(), name.to_owned()));
        !self.0.is_empty()
            && (has("route", route) || has("project", project) || batch.is_some_and(|batch| has("batch", batch)))
    }
}
