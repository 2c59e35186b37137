//! The facts about a job that the decision needs.

use super::Timestamp;
use super::request::Extras;
use std::fmt;

/// A job's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct JobId(pub i64);

impl JobId {
    /// A number that is always the same for the same job, and spread evenly over jobs: it decides every draw for the
    /// job.
    #[must_use]
    pub const fn hash(self) -> u64 {
        spread(self.0.cast_unsigned())
    }
}

/// Splitmix64: spreads neighbouring numbers over the whole range.
pub(super) const fn spread(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The state of a job, as users know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits, for any reason.
    Queued,
    /// A worker has it in hand.
    Running,
    /// It has its answer.
    Succeeded,
    /// It has ended without an answer.
    Failed,
    /// A user cancelled it.
    Cancelled,
}

impl JobState {
    /// The states of jobs that have ended: those of rows of results.
    pub const ENDED: [Self; 3] = [Self::Succeeded, Self::Failed, Self::Cancelled];

    /// All of them.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The state of this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The word in the database and for users.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a job that has ended, by its word.
    #[must_use]
    pub fn ended(word: &str) -> Option<Self> {
        Self::ENDED.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The facts about one job that decisions rest on. Token numbers are estimates until usage is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The job's number; also the seed of its jitter.
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
    /// Hash of the key by which it sticks to a rung, where its route has one and the job has that.
    pub sticky: Option<u64>,
    /// What its request asks for beside its tokens, and its route lets pass.
    pub extras: Extras,
}
