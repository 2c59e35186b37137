//! Pauses batches of which more jobs fail, or more money is wasted, than their stop-loss allows.

use super::Shared;
use crate::domain::stop_loss::{exceeded, wasted};
use crate::store::StoreError;

/// Counts the batches in which jobs have failed or money was wasted lately. Of several workers that find the same, one
/// pauses the batch, and says so.
pub(super) async fn look(shared: &Shared) -> Result<(), StoreError> {
    for watched in shared.store.watched_batches().await? {
        let failed = exceeded(watched.max_failed, watched.standing, &watched.before);
        let lost = || {
            wasted(watched.max_wasted?, watched.standing, watched.outgo, &watched.outgo_before)
                .map(|wasted| wasted.to_string())
        };
        let Some(reason) = failed.map(|exceeded| exceeded.to_string()).or_else(lost) else { continue };
        if shared.store.stop_batch(&watched, &reason).await? {
            tracing::warn!(batch = watched.batch, reason, "a batch is paused by its stop-loss");
        }
    }
    Ok(())
}
