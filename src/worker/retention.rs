//! Lets finished work go when it is old enough, a step at a time.

use super::Shared;
use crate::domain::retention::Retention;
use crate::store::StoreError;
use crate::store::retention::Retired;
use std::time::Duration;

const EVERY: Duration = Duration::from_mins(1);
/// A partition of ten million jobs is some hundred steps, each a fraction of a second: others come between.
const BETWEEN_STEPS: Duration = Duration::from_millis(100);

/// One step; returns when to come again.
pub(super) async fn step(shared: &Shared) -> Duration {
    let Some(retention) = shared.settings().retention else { return EVERY };
    match try_step(shared, retention).await {
        Ok(next) => next,
        Err(error) => {
            tracing::warn!(error = %error, "upkeep");
            EVERY
        }
    }
}

async fn try_step(shared: &Shared, retention: Retention) -> Result<Duration, StoreError> {
    if let Some(partition) = shared.store.begin_partition(retention.partition_age()).await? {
        tracing::debug!(partition, "new jobs go into the next partition");
    }
    Ok(match shared.store.retire(retention.finished).await? {
        Retired::Underway { .. } => BETWEEN_STEPS,
        Retired::Dropped { partition, jobs } => {
            tracing::info!(partition, jobs, "finished work was dropped: it is older than [retention] keeps it");
            BETWEEN_STEPS
        }
        Retired::Open { partition, job } => {
            tracing::debug!(partition, job.id = job, "old work is kept: a job of its partition has not ended");
            BETWEEN_STEPS
        }
        Retired::Nothing | Retired::Busy => EVERY,
    })
}
