//! The shadows of accepted jobs, enqueued by the transaction that ends them.

use super::EndingRow;
use crate::domain::shadow;
use crate::store::database::Transaction;
use crate::store::{Doing, StoreError};
use serde::{Deserialize, Serialize};

/// The shadow that a job casts if it ends with an answer of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CastShadow {
    /// The route of the shadow.
    pub route: String,
    /// The target that it asks.
    pub target: String,
}

/// Enqueues the shadows of jobs that have ended. What keeps the database from it is logged, and harms no answer.
pub(super) async fn cast<'a>(
    transaction: &mut Transaction,
    ended: impl Iterator<Item = &'a EndingRow>,
) -> Result<(), StoreError> {
    let is_accepted = |row: &&EndingRow| row.failure.is_none() && row.answered_from().is_none();
    let rows: Vec<(&EndingRow, &CastShadow)> =
        ended.filter(is_accepted).filter_map(|row| Some((row, row.shadow.as_ref()?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let code = sqlx::query_scalar!(
        "select sluice.cast_shadows($1, $2, $3, make_interval(secs => $4))",
        &rows.iter().map(|(row, _)| row.lease.job.0).collect::<Vec<_>>(),
        &rows.iter().map(|(_, shadow)| shadow.route.clone()).collect::<Vec<_>>(),
        &rows.iter().map(|(_, shadow)| shadow.target.clone()).collect::<Vec<_>>(),
        shadow::TIME.as_secs_f64()
    )
    .fetch_one(transaction)
    .await
    .doing("enqueueing shadows")?;
    if let Some(code) = code {
        tracing::warn!(code, jobs = rows.len(), "the database has refused shadows of answered jobs; the answers stand");
    }
    Ok(())
}
