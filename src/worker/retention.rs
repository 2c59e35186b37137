//! Deletes finished work when it is old enough, one step at a time.

use super::Shared;
use super::troubles::Troubles;
use crate::domain::retention::Retention;
use crate::store::StoreError;
use crate::store::retention::Retired;
use std::time::Duration;

const EVERY: Duration = Duration::from_mins(1);
/// A partition of ten million jobs takes some hundred steps, each a fraction of a second; other work runs in between.
const BETWEEN_STEPS: Duration = Duration::from_millis(100);

/// Warnings already given about partitions that cannot be dropped: each is given once, until it changes.
#[derive(Default)]
pub(super) struct Said(Vec<(i64, Vec<String>)>);

/// Takes one step; returns when to take the next.
pub(super) async fn step(shared: &Shared, said: &mut Said, troubles: &mut Troubles) -> Duration {
    let Some(retention) = shared.settings().retention else { return EVERY };
    let stepped = try_step(shared, retention, said).await;
    troubles.note("letting finished work go", stepped).unwrap_or(EVERY)
}

async fn try_step(shared: &Shared, retention: Retention, said: &mut Said) -> Result<Duration, StoreError> {
    if let Some(partition) = shared.store.begin_partition(retention.partition_age()).await? {
        tracing::debug!(partition, "new jobs go into the next partition");
    }
    Ok(match shared.store.retire(retention.finished).await? {
        Retired::Underway { .. } | Retired::Needed { .. } => BETWEEN_STEPS,
        Retired::Dropped { partition, jobs } => {
            tracing::info!(partition, jobs, "finished work was dropped: it is older than [retention] keeps it");
            BETWEEN_STEPS
        }
        Retired::Open { partition, job } => {
            tracing::debug!(partition, job.id = job, "old work is kept: a job of its partition has not ended");
            BETWEEN_STEPS
        }
        Retired::Nothing | Retired::Busy => {
            say_what_keeps(shared.store.kept_for_others().await?, said);
            shared.store.forget_failure_words(retention.finished).await?;
            shared.store.forget_shadows().await?;
            EVERY
        }
    })
}

/// Another process may have found this out, so each process looks and says it.
fn say_what_keeps(kept: Vec<(i64, Vec<String>)>, said: &mut Said) {
    for (partition, dependents) in kept.iter().filter(|kept| !said.0.contains(kept)) {
        tracing::warn!(
            partition,
            dependents = dependents.join(", "),
            "[retention] cannot drop old work: foreign keys, views or functions outside Sluice depend on its tables"
        );
    }
    said.0 = kept;
}
