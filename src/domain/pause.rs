//! What can be paused, and the fixed words for the waits that have nothing to do with a target.

use std::collections::HashSet;

/// The things that can be paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PauseKind {
    /// All jobs of a route.
    Route,
    /// All jobs of a project.
    Project,
    /// All jobs of a batch.
    Batch,
    /// All calls to a provider.
    Provider,
}

impl PauseKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Route, Self::Project, Self::Batch, Self::Provider];

    /// The name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Project => "project",
            Self::Batch => "batch",
            Self::Provider => "provider",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Everything that was paused at one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pauses(HashSet<(PauseKind, String)>);

impl FromIterator<(PauseKind, String)> for Pauses {
    fn from_iter<T: IntoIterator<Item = (PauseKind, String)>>(pauses: T) -> Self {
        Self(pauses.into_iter().collect())
    }
}

impl Pauses {
    /// How many things are paused.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is paused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the thing of this name is paused.
    #[must_use]
    pub fn has(&self, kind: PauseKind, name: &str) -> bool {
        !self.is_empty() && self.0.contains(&(kind, name.to_owned()))
    }

    /// The names of the paused things of a kind.
    pub fn names(&self, kind: PauseKind) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(of, _)| *of == kind).map(|(_, name)| name.as_str())
    }

    /// The pause that holds back jobs of this route, project and batch.
    #[must_use]
    pub fn held_back(&self, route: &str, project: &str, batch: Option<&str>) -> Option<FixedWait> {
        if batch.is_some_and(|batch| self.has(PauseKind::Batch, batch)) {
            Some(FixedWait::BatchPaused)
        } else if self.has(PauseKind::Route, route) {
            Some(FixedWait::RoutePaused)
        } else if self.has(PauseKind::Project, project) {
            Some(FixedWait::ProjectPaused)
        } else {
            None
        }
    }
}

/// A wait that has nothing to do with a target, by the words of `waits_for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FixedWait {
    /// Its batch is paused.
    BatchPaused,
    /// Its route is paused.
    RoutePaused,
    /// Its project is paused.
    ProjectPaused,
    /// The job itself is paused.
    Paused,
    /// The job was enqueued for later.
    Scheduled,
    /// No worker is running.
    NoWorker,
    /// No worker that is running has its route.
    RouteUnknown,
    /// The job is in no queue: it came in while triggers were off.
    NoQueue,
}

impl FixedWait {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::BatchPaused,
        Self::RoutePaused,
        Self::ProjectPaused,
        Self::Paused,
        Self::Scheduled,
        Self::NoWorker,
        Self::RouteUnknown,
        Self::NoQueue,
    ];

    /// The words in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BatchPaused => "batch paused",
            Self::RoutePaused => "route paused",
            Self::ProjectPaused => "project paused",
            Self::Paused => "paused",
            Self::Scheduled => "scheduled",
            Self::NoWorker => "no worker",
            Self::RouteUnknown => "no worker knows the route",
            Self::NoQueue => "no queue",
        }
    }

    /// The wait of these words.
    #[must_use]
    pub fn read(words: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wait| wait.as_str() == words)
    }

    /// The kind that is paused, where a pause of the job's route, project or batch is waited for.
    #[must_use]
    pub const fn paused(self) -> Option<PauseKind> {
        match self {
            Self::BatchPaused => Some(PauseKind::Batch),
            Self::RoutePaused => Some(PauseKind::Route),
            Self::ProjectPaused => Some(PauseKind::Project),
            Self::Paused | Self::Scheduled | Self::NoWorker | Self::RouteUnknown | Self::NoQueue => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        assert!(PauseKind::ALL.into_iter().all(|kind| PauseKind::named(kind.as_str()) == Some(kind)));
        assert!(FixedWait::ALL.into_iter().all(|wait| FixedWait::read(wait.as_str()) == Some(wait)));
        assert_eq!((PauseKind::named("job"), FixedWait::read("a/m: paused (nowhere else to go)")), (None, None));
        let held: Vec<_> = FixedWait::ALL.into_iter().filter_map(FixedWait::paused).collect();
        assert_eq!(held, [PauseKind::Batch, PauseKind::Route, PauseKind::Project]);
    }

    #[test]
    fn a_job_is_held_back_by_its_batch_its_route_or_its_project() {
        let of = |pauses: &[(PauseKind, &str)]| {
            let pauses: Pauses = pauses.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect();
            (pauses.held_back("r", "p", Some("b")), pauses.held_back("r", "p", None))
        };
        assert_eq!(of(&[]), (None, None));
        assert_eq!(of(&[(PauseKind::Provider, "r"), (PauseKind::Route, "p"), (PauseKind::Batch, "p")]), (None, None));
        assert_eq!(of(&[(PauseKind::Batch, "b")]), (Some(FixedWait::BatchPaused), None));
        let route = Some(FixedWait::RoutePaused);
        assert_eq!(of(&[(PauseKind::Project, "p"), (PauseKind::Route, "r")]), (route, route));
        let project = Some(FixedWait::ProjectPaused);
        assert_eq!(of(&[(PauseKind::Project, "p")]), (project, project));
    }
}
