//! Answers of which their rungs were not sure enough: they wait on the ledger, and are taken where no surer one comes.

use super::database::Transaction;
use super::settle::EndingRow;
use super::{Doing, Store, StoreError};
use crate::domain::{JobId, Usage};
use serde_json::Value;

/// An answer that waits on the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptUnsure {
    /// The target that gave it: provider, and model with its tier.
    pub target: (String, String),
    /// The place of its rung in the route along which it was called.
    pub rung: i16,
    /// Its tokens, as far as an ending names them.
    pub usage: Usage,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// The answer as it came, as a chat completion.
    pub response: Value,
}

impl Store {
    /// The answer of a job's attempt that was rejected because its rung was not sure enough; `None`: it is not on the
    /// ledger any more.
    pub async fn unsure_answer(&self, job: JobId, number: i16) -> Result<Option<KeptUnsure>, StoreError> {
        let row = sqlx::query!(
            r#"select provider, model, rung as "rung!", input_tokens, cache_read_tokens, cache_write_tokens,
                      output_tokens, request_id, answer as "response!"
                 from sluice.attempt
                where job_id = $1 and number = $2 and detail = 'low_confidence' and answer is not null and round >= 0
                order by fence desc limit 1"#,
            job.0,
            number
        )
        .fetch_optional(&self.db)
        .await
        .doing("reading an answer of the ledger")?;
        Ok(row.map(|row| KeptUnsure {
            target: (row.provider, row.model),
            rung: row.rung,
            usage: Usage {
                input: row.input_tokens,
                cache_read: row.cache_read_tokens,
                cache_write: row.cache_write_tokens,
                output: row.output_tokens,
                ..Usage::default()
            },
            request_id: row.request_id,
            response: row.response,
        }))
    }
}

/// Notes on the ledger which unsure answers were taken in the end: the attempts that brought them count as accepted.
/// The sums keep their money as that of rejected answers, which is how they were booked.
pub(super) async fn take(transaction: &mut Transaction, endings: &[EndingRow]) -> Result<(), StoreError> {
    let taken: Vec<(&EndingRow, i16)> = endings.iter().filter_map(|row| Some((row, row.unsure?))).collect();
    if taken.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update sluice.attempt a set accepted = true, class = null
           from unnest($1::bigint[], $2::bigint[], $3::smallint[]) w(job_id, fence, number)
          where a.job_id = any (array[w.job_id]) and a.number = w.number and a.round >= 0
            and a.class = 'soft_failure' and a.detail = 'low_confidence'
            and exists (select from sluice.result r
                         where r.job_id = any (array[w.job_id]) and r.fence = w.fence and r.low_confidence
                           and r.round = a.round)",
        &taken.iter().map(|(row, _)| row.lease.job.0).collect::<Vec<_>>(),
        &taken.iter().map(|(row, _)| row.lease.fence).collect::<Vec<_>>(),
        &taken.iter().map(|(_, number)| *number).collect::<Vec<_>>()
    )
    .execute(transaction)
    .await
    .doing("noting answers that are taken although they are not sure enough")?;
    Ok(())
}
