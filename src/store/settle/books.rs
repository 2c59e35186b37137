//! Writing calls to the ledger.

use super::sums::Sums;
use super::{AttemptRow, EndingRow, clean, clean_option, json_text, notes_text, tokens};
use crate::domain::ErrorClass;
use crate::store::claim::{Lease, datetime};
use crate::store::copy::{Jsonb, copied};
use crate::store::database::Transaction;
use crate::store::{Doing, StoreError, late};
use std::collections::{HashMap, HashSet};

const BOOKING: &str = "booking attempts";

/// Writes those attempts to the ledger that are not there, and counts them into the sums; returns how many. If another
/// process has booked a call in its worker's place, the worker's report replaces that. `is_new`: the attempt surely is
/// not there.
pub(super) async fn book<'a>(
    transaction: &mut Transaction,
    rows: impl Iterator<Item = &'a AttemptRow> + Clone,
    is_new: impl Fn(&AttemptRow) -> bool,
    sums: &mut Sums<'a>,
) -> Result<usize, StoreError> {
    let (new, other): (Vec<&AttemptRow>, Vec<&AttemptRow>) = rows.partition(|row| is_new(row));
    let mut rows = new;
    if !other.is_empty() {
        let there = there(transaction, &other).await?;
        let replaced: Vec<(Lease, i16)> =
            other.iter().filter(|row| there.get(&key(row)) == Some(&true)).map(|row| (row.lease, row.number)).collect();
        if !replaced.is_empty() {
            late::remove_placeholders(transaction, &replaced).await?;
        }
        let mut seen = HashSet::new();
        // The same call may come twice in one settlement.
        let missing = |row: &&AttemptRow| there.get(&key(row)) != Some(&false) && seen.insert(key(row));
        rows.extend(other.into_iter().filter(missing));
    }
    if rows.is_empty() {
        return Ok(0);
    }
    write(transaction, &rows).await?;
    for row in &rows {
        sums.count_attempt(row);
    }
    Ok(rows.len())
}

fn key(row: &AttemptRow) -> (i64, i16) {
    (row.lease.fence, row.number)
}

/// Of these attempts, those that the ledger has, and whether another process has booked them in their worker's place.
async fn there(transaction: &mut Transaction, rows: &[&AttemptRow]) -> Result<HashMap<(i64, i16), bool>, StoreError> {
    let found = sqlx::query!(
        r#"select w.fence as "fence!", w.number as "number!", a.placeholder
             from unnest($1::bigint[], $2::bigint[], $3::smallint[]) w(job_id, fence, number) cross join lateral (
                  select t.placeholder from sluice.attempt t
                   where t.job_id = any (array[w.job_id]) and t.fence = w.fence and t.number = w.number limit 1) a"#,
        &rows.iter().map(|row| row.lease.job.0).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.lease.fence).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.number).collect::<Vec<_>>()
    )
    .fetch_all(transaction)
    .await
    .doing(BOOKING)?;
    Ok(found.into_iter().map(|row| ((row.fence, row.number), row.placeholder)).collect())
}

async fn write(transaction: &mut Transaction, rows: &[&AttemptRow]) -> Result<(), StoreError> {
    let written = copied!(transaction, "sluice.attempt", rows, row => {
        job_id: row.lease.job.0,
        fence: row.lease.fence,
        number: row.number,
        round: row.round,
        provider: row.provider,
        model: row.model,
        rung: row.rung,
        started_at: datetime(row.started_at),
        ended_at: datetime(row.ended_at),
        first_byte_ms: row.first_byte_ms,
        total_ms: row.total_ms,
        accepted: row.class.is_none(),
        class: row.class.map(ErrorClass::as_str),
        detail: row.detail.as_deref().map(clean),
        http_status: row.http_status.and_then(|status| i16::try_from(status).ok()),
        code: clean_option(row.code.as_ref()),
        message: clean_option(row.message.as_ref()),
        retry_at: row.retry_at.map(datetime),
        request_id: clean_option(row.request_id.as_ref()),
        model_served: clean_option(row.model_served.as_ref()),
        finish: clean_option(row.finish.as_ref()),
        usage: row.usage_raw.as_ref().map(|usage| Jsonb(json_text(usage))),
        usage_source: row.usage.source.as_str(),
        input_tokens: tokens(row.usage.input),
        cache_read_tokens: tokens(row.usage.cache_read),
        cache_write_tokens: tokens(row.usage.cache_write.saturating_add(row.usage.cache_write_1h)),
        output_tokens: tokens(row.usage.output),
        reasoning_tokens: tokens(row.usage.reasoning),
        cost_nanos: row.cost.map(|cost| cost.of_a_call().0),
        uncertain_nanos: row.uncertain.of_a_call().0,
        price: row.price.as_ref().map(|price| Jsonb(json_text(price))),
        decision: row.decision.as_ref().map(|decision| Jsonb(json_text(decision))),
        answer: row.answer.as_ref().map(|answer| {
            Jsonb(answer.to_openai(&row.model, row.ended_at.0.div_euclid(1000)))
        }),
        service_tier: clean_option(row.service_tier.as_ref()),
        reported_cost_nanos: row.reported_cost.map(|cost| cost.of_a_call().0),
        cost_source: row.cost_source.as_deref(),
        notes: notes_text(&row.notes).map(Jsonb),
        reask_of: row.reask_of,
        computed_cost_nanos: row.computed_cost.map(|cost| cost.of_a_call().0),
        cache_write_1h_tokens: tokens(row.usage.cache_write_1h),
        cost_differs: row.cost_differs,
        confidence: row.confidence,
        instead_of: row.first_choice.as_ref().map(|first| clean(&first.target)),
        instead_why: row.first_choice.as_ref().map(|first| clean(&first.why)),
        instead_nanos: row.first_choice.as_ref().and_then(|first| first.cost).map(|cost| cost.of_a_call().0),
        cache_saved_nanos: super::cache_saved(row).map(|saved| saved.0),
    });
    written.await.doing(BOOKING)?;
    Ok(())
}

/// Books calls whose jobs are lost, each with the answer that it brought.
pub(super) async fn book_strays<'a>(
    transaction: &mut Transaction,
    rows: &'a [AttemptRow],
    endings: &[EndingRow],
    sums: &mut Sums<'a>,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    late::make_room(transaction, &rows.iter().map(|row| row.lease.job.0).collect::<Vec<_>>()).await?;
    for row in rows {
        // If it was sent before, it is there already, and counted.
        if book(transaction, std::iter::once(row), |_| false, sums).await? == 1 {
            // Of several calls that ended together, the one that brought it.
            let brought = |ending: &EndingRow| {
                ending.target.as_ref().is_none_or(|(provider, model)| (provider, model) == (&row.provider, &row.model))
            };
            let ending = endings.iter().find(|ending| ending.lease == row.lease && brought(ending));
            let answer = ending.and_then(|ending| ending.response.as_deref());
            late::count_stray(transaction, (row.lease, row.number), answer).await?;
        }
    }
    Ok(())
}
