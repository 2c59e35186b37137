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
        let row = sqlx::query!(
            r#"with gone as (
                select coalesce(sum(jobs), 0)::bigint as jobs, coalesce(sum(succeeded), 0)::bigint as succeeded,
                       coalesce(sum(succeeded + failed + cancelled), 0)::bigint as results,
                       coalesce(sum(attempts), 0)::bigint as attempts, coalesce(sum(accepted), 0)::bigint as accepted,
                       sluice.capped(coalesce(sum(cost_nanos), 0)) as cost
                  from sluice.retired
            ), live as (
                select job_id from sluice.ready union all select job_id from sluice.parked
                union all select job_id from sluice.inflight
            ), bill as (
                select job_id, case when count(*) = count(cost_nanos) then sluice.capped(sum(cost_nanos)) end as cost,
                       sluice.capped(sum(uncertain_nanos)) as uncertain
                  from sluice.attempt where round >= 0 group by job_id
            )
            select (select count(*) from sluice.job) + gone.jobs as "jobs!",
                   (select count(*) from sluice.result) + gone.results as "results!",
                   (select count(*) from sluice.result where state = 'succeeded') + gone.succeeded as "succeeded!",
                   (select count(*) from live) as "unfinished!",
                   (select count(*) from sluice.job j
                     where not exists (select from sluice.result r where r.job_id = j.id)
                       and not exists (select from live l where l.job_id = j.id)) as "lost!",
                   (select coalesce(sum(succeeded + failed + cancelled), 0)::bigint from sluice.totals) as "endings!",
                   (select count(*) from sluice.attempt) + gone.attempts as "attempts!",
                   (select count(*) from sluice.attempt where accepted) + gone.accepted as "accepted!",
                   (select sluice.capped(coalesce(sum(least(cost_nanos, 1000000000000000)), 0) + gone.cost)
                     from sluice.attempt) as "cost!",
                   (select sluice.capped(coalesce(sum(cost_nanos), 0)) from sluice.totals) as "tallied!",
                   (select count(*) from sluice.result r left join bill b on b.job_id = r.job_id
                     where (r.cost_nanos, r.uncertain_nanos) is distinct from
                           (case when b.job_id is null then 0 else b.cost end, coalesce(b.uncertain, 0)))
                       as "misbilled!"
              from gone"#
        )
        .fetch_one(&self.db)
        .await
        .doing("adding up the books")?;
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
