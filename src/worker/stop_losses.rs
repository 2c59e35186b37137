//! Pauses batches of which more jobs fail than their stop-loss allows.

use super::Shared;
use crate::domain::stop_loss::exceeded;
use crate::store::StoreError;

/// Counts the batches in which jobs have failed lately. Of several workers that find the same, one pauses the batch,
/// and says so.
pub(super) async fn look(shared: &Shared) -> Result<(), StoreError> {
    for watched in shared.store.watched_batches().await? {
        let Some(exceeded) = exceeded(watched.max_failed, watched.standing, &watched.before) else { continue };
        if shared.store.stop_batch(&watched, &exceeded).await? {
            tracing::warn!(batch = watched.batch, reason = %exceeded, "a batch is paused by its stop-loss");
        }
    }
    Ok(())
}
