//! Why the answer to a call was not used although nothing was wrong with it: the details of the class `abandoned`.

use std::fmt;

/// Why a call was abandoned. Calls that their own worker gave up have none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abandonment {
    /// Its worker died, or was taken for dead, during the call.
    WorkerDied,
    /// The job was cancelled during the call.
    Cancelled,
    /// A late answer of another worker ended the job during the call.
    AnsweredElsewhere,
    /// A fault in Sluice itself.
    Fault,
    /// The database has lost the outcome of the call.
    LostAnswer,
    /// The database has lost the job.
    LostJob,
    /// The same, and another job has its number now.
    OtherJob,
    /// The answer came when the job was cancelled or answered already.
    Late,
    /// Another rung of a race answered first.
    LostRace,
}

impl Abandonment {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::WorkerDied,
        Self::Cancelled,
        Self::AnsweredElsewhere,
        Self::Fault,
        Self::LostAnswer,
        Self::LostJob,
        Self::OtherJob,
        Self::Late,
        Self::LostRace,
    ];

    /// The detail in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkerDied => "worker_died",
            Self::Cancelled => "cancelled",
            Self::AnsweredElsewhere => "answered_elsewhere",
            Self::Fault => "fault",
            Self::LostAnswer => "lost_answer",
            Self::LostJob => "lost_job",
            Self::OtherJob => "other_job",
            Self::Late => "late",
            Self::LostRace => "lost_race",
        }
    }

    /// Whether the call is lost with commits that the database had confirmed.
    #[must_use]
    pub const fn is_lost_with_commits(self) -> bool {
        matches!(self, Self::LostAnswer | Self::LostJob | Self::OtherJob)
    }
}

impl fmt::Display for Abandonment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handbook_explains_each_detail() {
        let handbook = include_str!("../../docs/operations.md");
        let rows = handbook.split("| `detail` of `abandoned` |").nth(1).unwrap().split("\n\n").next().unwrap();
        let explained: Vec<&str> = rows.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(explained, Abandonment::ALL.map(Abandonment::as_str));
    }
}
