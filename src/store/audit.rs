//! Whether the book-keeping adds up.

use super::{Doing, Store, StoreError};
use crate::domain::NanoUsd;
use crate::domain::counted::counted;

/// The sums of a whole database, from the rows and from the tallies, which were written separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Jobs ever enqueued. For jobs that retention has dropped, its note counts, here and below.
    pub jobs: i64,
    /// Jobs with a result.
    pub results: i64,
    /// … of them successes.
    pub succeeded: i64,
    /// Jobs that are queued or running.
    pub unfinished: i64,
    /// Jobs that are neither finished nor anywhere in the queue. Never anything but 0.
    pub lost: i64,
    /// Endings that were counted as they were written; more of them than `results` means that a job ended twice.
    pub endings: i64,
    /// Rows of the ledger.
    pub attempts: i64,
    /// … of them for accepted answers.
    pub accepted: i64,
    /// Money on the ledger, as far as prices are known.
    pub cost: NanoUsd,
    /// Money in the tallies.
    pub tallied_cost: NanoUsd,
    /// Results whose cost is not that of their calls. Never anything but 0.
    pub misbilled: i64,
}

impl Audit {
    /// The faults, in words; empty when the books are in order.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.lost != 0 {
            faults.push(format!(
                "{} lost: neither finished nor queued nor running",
                counted(self.lost, "job is", "jobs are")
            ));
        }
        if self.jobs != self.results + self.unfinished {
            faults.push(format!(
                "{}, but {} and {}",
                counted(self.jobs, "job", "jobs"),
                counted(self.results, "result", "results"),
                counted(self.unfinished, "unfinished job", "unfinished jobs")
            ));
        }
        if self.endings != self.results {
            faults.push(format!(
                "{} written for {}",
                counted(self.endings, "ending was", "endings were"),
                counted(self.results, "result", "results")
            ));
        }
        if self.accepted != self.succeeded {
            faults.push(format!(
                "{} accepted for {}",
                counted(self.accepted, "answer was", "answers were"),
                counted(self.succeeded, "success", "successes")
            ));
        }
        if self.misbilled != 0 {
            faults.push(counted(
                self.misbilled,
                "result costs something else than its calls",
                "results cost something else than their calls",
            ));
        }
        if self.cost != self.tallied_cost {
            faults.push(format!("the ledger says {}, the tallies {}", self.cost, self.tallied_cost));
        }
        faults
    }
}

impl Store {
    /// Adds everything up, in one snapshot. Reads whole tables: for tests, demos and doubts, not for dashboards.
    pub async fn audit(&self) -> Result<Audit, StoreError> {
        let row =
            sqlx::query_file!("src/store/audit/books.sql").fetch_one(&self.db).await.doing("adding up the books")?;
        Ok(Audit {
            jobs: row.jobs,
            results: row.results,
            succeeded: row.succeeded,
            unfinished: row.unfinished,
            lost: row.lost,
            endings: row.endings,
            attempts: row.attempts,
            accepted: row.accepted,
            cost: NanoUsd(row.cost),
            tallied_cost: NanoUsd(row.tallied),
            misbilled: row.misbilled,
        })
    }
}
