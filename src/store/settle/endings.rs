//! Ending jobs: their claims go, their results come.

use super::sums::Sums;
use super::{EndingRow, Look, clean, clean_option, shadow};
use crate::domain::ErrorClass;
use crate::store::claim::Lease;
use crate::store::copy::{Jsonb, copied};
use crate::store::database::Transaction;
use crate::store::schema::AnswerForm;
use crate::store::{Doing, StoreError, cache, late};
use chrono::{DateTime, Utc};
use std::collections::HashSet;

const ENDING: &str = "writing results";

/// The claims of endings, by their fences.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Those that held, and those whose jobs had ended before in the same way.
    pub held: HashSet<i64>,
    /// Those whose jobs ended now, and whose calls only this settlement books.
    pub now: HashSet<i64>,
    /// Of these, those of jobs for which no call was made under another claim.
    pub first: HashSet<i64>,
    /// Whether there are budgets; `None`: it is not known.
    pub has_budgets: Option<bool>,
}

/// Ends jobs whose claims hold, and counts them into the sums.
pub(super) async fn write<'a>(
    transaction: &mut Transaction,
    rows: impl IntoIterator<Item = &'a EndingRow>,
    look: Look,
    form: AnswerForm,
    sums: &mut Sums<'a>,
) -> Result<Ended, StoreError> {
    let rows: Vec<&EndingRow> = rows.into_iter().collect();
    let is_fault = |row: &EndingRow| row.failure.as_ref().is_some_and(|(class, _)| *class == ErrorClass::Abandoned);
    let claims = sqlx::query_file!(
        "src/store/settle/end.sql",
        &rows.iter().map(|row| row.lease.job.0).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.lease.fence).collect::<Vec<_>>(),
        &rows.iter().map(|row| is_fault(row)).collect::<Vec<_>>()
    )
    .fetch_all(&mut *transaction)
    .await
    .doing(ENDING)?;
    let mut ended = Ended {
        held: claims.iter().map(|claim| claim.fence).collect(),
        now: HashSet::new(),
        first: claims.iter().filter(|claim| claim.is_first).map(|claim| claim.fence).collect(),
        has_budgets: claims.first().map(|claim| claim.has_budgets),
    };
    let mut open: Vec<&EndingRow> = rows.iter().copied().filter(|row| ended.held.contains(&row.lease.fence)).collect();
    if look == Look::Everywhere {
        let mut over = with_result(transaction, &open).await?;
        // The same job may come twice in one settlement.
        open.retain(|row| over.insert(row.lease.job.0));
    }
    if let Some(at) = claims.first().map(|claim| claim.at) {
        copy(transaction, &open, at, form).await?;
        for row in &open {
            sums.count_ending(row, at);
        }
    }
    ended.now = open.iter().filter(|row| !is_fault(row)).map(|row| row.lease.fence).collect();
    shadow::cast(transaction, open.iter().copied()).await?;
    cache::note(transaction, open.into_iter()).await?;
    if ended.held.len() < rows.len() {
        let missing: Vec<&EndingRow> = rows.into_iter().filter(|row| !ended.held.contains(&row.lease.fence)).collect();
        ended.held.extend(sent_before(transaction, &missing).await?);
    }
    Ok(ended)
}

/// Writes the results of jobs that have none.
async fn copy(
    transaction: &mut Transaction,
    rows: &[&EndingRow],
    at: DateTime<Utc>,
    form: AnswerForm,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let written = copied!(transaction, "sluice.result", rows, row => {
        job_id: row.lease.job.0,
        fence: row.lease.fence,
        state: if row.failure.is_none() { "succeeded" } else { "failed" },
        finished_at: at,
        attempts: row.attempts,
        provider: row.target.as_ref().map(|(provider, _)| provider),
        model: row.target.as_ref().map(|(_, model)| model),
        rung: row.rung,
        repaired: row.repaired,
        error_class: row.failure.as_ref().map(|(class, _)| class.as_str()),
        error: row.failure.as_ref().map(|(_, reason)| clean(reason)),
        cost_nanos: row.cost.map(|cost| cost.0),
        uncertain_nanos: row.uncertain.0,
        input_tokens: row.input_tokens,
        output_tokens: row.output_tokens,
        request_id: clean_option(row.request_id.as_ref()),
        response: row.response.as_deref().filter(|_| form == AnswerForm::Parsed).map(Jsonb),
        response_json: row.response.as_deref().filter(|_| form == AnswerForm::Text),
        round: row.round,
        answered_from: row.answered_from().map(|(job, _)| job.0),
        confidence: row.confidence,
        low_confidence: row.unsure.is_some(),
    });
    written.await.doing(ENDING)?;
    Ok(())
}

/// The jobs among these that have a result.
async fn with_result(transaction: &mut Transaction, rows: &[&EndingRow]) -> Result<HashSet<i64>, StoreError> {
    let found = sqlx::query_scalar!(
        r#"select w.job_id as "job_id!" from unnest($1::bigint[]) w(job_id) cross join lateral (
                  select from sluice.result r where r.job_id = any (array[w.job_id]) limit 1) r"#,
        &rows.iter().map(|row| row.lease.job.0).collect::<Vec<_>>()
    )
    .fetch_all(transaction)
    .await
    .doing(ENDING)?;
    Ok(found.into_iter().collect())
}

/// The endings that were sent before, and whose commit went through after all: the result stands under their own fence.
async fn sent_before(transaction: &mut Transaction, rows: &[&EndingRow]) -> Result<Vec<i64>, StoreError> {
    sqlx::query_scalar!(
        r#"select w.fence as "fence!" from unnest($1::bigint[], $2::bigint[]) w(job_id, fence) cross join lateral (
                  select from sluice.result r
                   where r.job_id = any (array[w.job_id]) and r.fence = w.fence limit 1) r"#,
        &rows.iter().map(|row| row.lease.job.0).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.lease.fence).collect::<Vec<_>>()
    )
    .fetch_all(transaction)
    .await
    .doing(ENDING)
}

/// Ends jobs whose claims are gone but which are still open, where the ending is a good answer; returns the leases
/// whose endings stay without effect.
pub(super) async fn write_late<'a>(
    transaction: &mut Transaction,
    rows: &'a [EndingRow],
    ended: &Ended,
    form: AnswerForm,
    sums: &mut Sums<'a>,
) -> Result<Vec<Lease>, StoreError> {
    let missing = || rows.iter().filter(|row| !ended.held.contains(&row.lease.fence));
    // Another worker that has the job now may get a surer answer than one that was taken for want of that.
    let is_good = |row: &&EndingRow| row.failure.is_none() && row.unsure.is_none();
    let answers: Vec<&EndingRow> = missing().filter(is_good).collect();
    let taken = late::take_back(transaction, &answers).await?;
    let mut ended = HashSet::new();
    if !taken.is_empty() {
        let rows = answers.into_iter().filter(|row| taken.contains(&row.lease.fence));
        ended = write(transaction, rows, Look::Everywhere, form, sums).await?.held;
    }
    Ok(missing().map(|row| row.lease).filter(|lease| !ended.contains(&lease.fence)).collect())
}
