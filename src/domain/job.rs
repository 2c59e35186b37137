//! What the decision needs to know of a job.

use super::Timestamp;
use std::fmt;

/// A job's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The facts about one job that decisions rest on. Token numbers are estimates until usage is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which job; also the seed of its jitter.
    pub id: JobId,
    /// When it could first have been run: the later of `created_at` and `run_at`.
    pub ready_at: Timestamp,
    /// No call is started after this instant.
    pub deadline: Option<Timestamp>,
    /// The job's own bound on attempts, where it is lower than the route's.
    pub max_attempts: Option<u16>,
    /// Estimated tokens of the prompt.
    pub input_tokens: i64,
    /// The output cap that the request sets.
    pub max_output_tokens: Option<i64>,
}
