//! How the jobs of a batch have ended, in numbers.

use crate::exit_code::ExitCode;
use crate::store::results::{EndedJob, ExportedJob};
use std::fmt;

/// The jobs of a batch, counted by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs with an answer.
    pub succeeded: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Jobs that have not ended.
    pub unfinished: u64,
    /// Jobs whose place another file took before they began. No answer of them is missed, so they count nowhere else.
    pub replaced: u64,
}

impl Counts {
    /// All jobs of the batch.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled + self.unfinished
    }

    /// Jobs that ended without an answer.
    #[must_use]
    pub fn without_answer(&self) -> u64 {
        self.failed + self.cancelled
    }

    /// Counts one more job.
    pub(super) fn note(&mut self, job: &ExportedJob) {
        match job.ending {
            Some(_) if job.is_replaced => self.replaced += 1,
            None => self.unfinished += 1,
            Some(EndedJob::Succeeded { .. }) => self.succeeded += 1,
            Some(EndedJob::Failed { .. }) => self.failed += 1,
            Some(EndedJob::Cancelled) => self.cancelled += 1,
        }
    }

    /// The exit status for scripts.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.unfinished > 0 {
            ExitCode::Failure
        } else if self.failed + self.cancelled > 0 {
            ExitCode::JobsFailed
        } else {
            ExitCode::Success
        }
    }
}

/// The jobs without an answer: `2 failed, 1 cancelled, 3 not finished`; empty when all have one.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.failed, "failed"), (self.cancelled, "cancelled"), (self.unfinished, "not finished")];
        let told: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        f.write_str(&told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_says_whether_all_jobs_have_answers() {
        let counts =
            |succeeded, failed, cancelled, unfinished| Counts { succeeded, failed, cancelled, unfinished, replaced: 0 };
        for (counts, code, words) in [
            (counts(3, 0, 0, 0), ExitCode::Success, ""),
            (counts(3, 1, 0, 0), ExitCode::JobsFailed, "1 failed"),
            (counts(0, 1, 2, 0), ExitCode::JobsFailed, "1 failed, 2 cancelled"),
            (counts(3, 1, 0, 4), ExitCode::Failure, "1 failed, 4 not finished"),
        ] {
            assert_eq!((counts.exit_code(), counts.to_string().as_str()), (code, words));
        }
    }
}
