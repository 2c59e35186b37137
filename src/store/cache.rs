//! Answers that are given again, and requests that are asked once for several jobs. `migrations/0024…` has the tables.

use super::claim::datetime;
use super::database::Transaction;
use super::settle::EndingRow;
use super::{Doing, Store, StoreError};
use crate::domain::{CacheKey, JobId, NanoUsd, Timestamp};
use std::collections::BTreeMap;

/// What a job of a route with a cache does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromCache {
    /// It has this answer.
    Answered(Box<EarlierAnswer>),
    /// It asks, and others wait for its answer.
    Lead,
    /// It waits for the answer of this job.
    Follow(JobId),
}

/// The answer of an earlier job with the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierAnswer {
    /// That job.
    pub job: JobId,
    /// The target that answered it: provider, and model with its tier.
    pub target: Option<(String, String)>,
    /// Its input tokens.
    pub input_tokens: i64,
    /// Its output tokens.
    pub output_tokens: i64,
    /// What that job cost; `None`: the price of a call is unknown.
    pub cost: Option<NanoUsd>,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// Whether the answer was repaired.
    pub repaired: bool,
    /// The answer as a chat completion, serialised.
    pub response: String,
}

impl Store {
    /// What this job does: it has an answer that is not older than `since`, it asks, or it waits for another job.
    pub async fn ask_cache(&self, job: JobId, key: CacheKey, since: Timestamp) -> Result<FromCache, StoreError> {
        let row = sqlx::query!(
            r#"select outcome as "outcome!", source, provider, model, input_tokens, output_tokens, cost_nanos,
                      request_id, repaired, response
                 from sluice.ask_cache($1, $2, $3)"#,
            job.0,
            &key.0[..],
            datetime(since)
        )
        .fetch_one(&self.db)
        .await
        .doing("looking for an earlier answer")?;
        Ok(match (row.outcome.as_str(), row.source, row.response) {
            ("answered", Some(source), Some(response)) => FromCache::Answered(Box::new(EarlierAnswer {
                job: JobId(source),
                target: row.provider.zip(row.model),
                input_tokens: row.input_tokens.unwrap_or(0),
                output_tokens: row.output_tokens.unwrap_or(0),
                cost: row.cost_nanos.map(NanoUsd),
                request_id: row.request_id,
                repaired: row.repaired.unwrap_or(false),
                response,
            })),
            ("follow", Some(source), _) => FromCache::Follow(JobId(source)),
            _ => FromCache::Lead,
        })
    }
}

/// Notes how jobs of routes with a cache have ended.
pub(super) async fn note<'a>(
    transaction: &mut Transaction,
    ended: impl Iterator<Item = &'a EndingRow>,
) -> Result<(), StoreError> {
    let rows: Vec<(&EndingRow, &CacheKey)> = ended.filter_map(|row| Some((row, &row.cache.as_ref()?.key))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let is_own_answer =
        |row: &EndingRow| row.failure.is_none() && row.unsure.is_none() && row.answered_from().is_none();
    sqlx::query!(
        "select sluice.leave_cache($1, $2, $3)",
        &rows.iter().map(|(row, _)| row.lease.job.0).collect::<Vec<_>>(),
        &rows.iter().map(|(_, key)| key.0.to_vec()).collect::<Vec<_>>(),
        &rows.iter().map(|(row, _)| is_own_answer(row)).collect::<Vec<_>>()
    )
    .execute(&mut *transaction)
    .await
    .doing("noting answers for later")?;
    let mut uses: BTreeMap<(&str, &str), (i64, i64, i64)> = BTreeMap::new();
    for (row, _) in &rows {
        let Some((_, saved)) = row.answered_from() else { continue };
        let (answers, nanos, unpriced) = uses.entry((&row.labels.route, &row.labels.project)).or_default();
        *answers += 1;
        *nanos = nanos.saturating_add(saved.map_or(0, |saved| saved.of_a_call().0));
        *unpriced += i64::from(saved.is_none());
    }
    if uses.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into sluice.cache_use (hour, route, project, answers, saved_nanos, unpriced)
              select date_trunc('hour', now()), u.route, u.project, u.answers, u.saved, u.unpriced
                from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
                       u(route, project, answers, saved, unpriced)",
        &uses.keys().map(|(route, _)| (*route).to_owned()).collect::<Vec<_>>(),
        &uses.keys().map(|(_, project)| (*project).to_owned()).collect::<Vec<_>>(),
        &uses.values().map(|(answers, ..)| *answers).collect::<Vec<_>>(),
        &uses.values().map(|(_, nanos, _)| *nanos).collect::<Vec<_>>(),
        &uses.values().map(|(.., unpriced)| *unpriced).collect::<Vec<_>>()
    )
    .execute(transaction)
    .await
    .doing("counting answers that were given again")?;
    Ok(())
}
