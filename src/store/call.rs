//! Calls that are under way. They are noted here before they are made, so that a process that takes over from a dead
//! worker can name them. The row of a claim names one call; the calls that a race makes beside that one have rows of
//! their own, which go when the calls are booked or the claim ends.

use super::claim::{Lease, datetime};
use super::database::Transaction;
use super::settle::Labels;
use super::{Doing, Store, StoreError};
use crate::domain::{NanoUsd, Target, Timestamp};
use chrono::{DateTime, Utc};
use std::collections::HashSet;
use std::sync::Arc;

/// A call that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCall {
    /// The claim under which it is made.
    pub lease: Lease,
    /// Its ordinal within the job, from 1: the ordinal of the attempt that it will become.
    pub number: i16,
    pub target: Target,
    /// Index of the rung in the route's listed order.
    pub rung: i16,
    /// When the call begins.
    pub started_at: Timestamp,
    /// The most it may cost; `None`: the price is unknown.
    pub worst: Option<NanoUsd>,
    /// The job's labels, by which budgets cover it.
    pub labels: Arc<Labels>,
}

impl Store {
    /// Notes calls as under way and returns the fences and numbers under which they may be made. A call whose claim is
    /// gone (its worker was declared dead, its job cancelled) must not be made.
    ///
    /// The calls are such that no budget covers, if the budgets are those of this version. `None`: there are others.
    pub async fn open_calls(
        &self,
        calls: &[OpenCall],
        budgets: i64,
    ) -> Result<Option<HashSet<(i64, i16)>>, StoreError> {
        let open = open_alone(&self.db, calls, budgets).await?;
        self.unless_others(open, budgets).await
    }

    /// Notes calls as under way that are made beside another one of the same claim, and returns the fences and numbers
    /// of those that may be made. As for [`open_calls`](Self::open_calls), no budget covers them.
    pub async fn open_race_calls(
        &self,
        calls: &[OpenCall],
        budgets: i64,
    ) -> Result<Option<HashSet<(i64, i16)>>, StoreError> {
        let open = open_beside(&self.db, calls, budgets).await?;
        self.unless_others(open, budgets).await
    }

    /// The calls that were opened; `None`: none, and perhaps because there are other budgets.
    async fn unless_others(
        &self,
        open: HashSet<(i64, i16)>,
        budgets: i64,
    ) -> Result<Option<HashSet<(i64, i16)>>, StoreError> {
        if !open.is_empty() {
            return Ok(Some(open));
        }
        let version = sqlx::query_scalar!("select version from sluice.budget_version")
            .fetch_one(&self.db)
            .await
            .doing("opening calls")?;
        Ok((version == budgets).then_some(open))
    }
}

/// Calls as the columns of a statement.
struct CallColumns {
    jobs: Vec<i64>,
    fences: Vec<i64>,
    numbers: Vec<i16>,
    providers: Vec<String>,
    models: Vec<String>,
    rungs: Vec<i16>,
    started: Vec<DateTime<Utc>>,
    worst: Vec<Option<i64>>,
}

impl CallColumns {
    fn of(calls: &[OpenCall]) -> Self {
        Self {
            jobs: calls.iter().map(|call| call.lease.job.0).collect(),
            fences: calls.iter().map(|call| call.lease.fence).collect(),
            numbers: calls.iter().map(|call| call.number).collect(),
            providers: calls.iter().map(|call| call.target.provider.clone()).collect(),
            models: calls.iter().map(|call| call.target.model_and_tier().into_owned()).collect(),
            rungs: calls.iter().map(|call| call.rung).collect(),
            started: calls.iter().map(|call| datetime(call.started_at)).collect(),
            worst: calls.iter().map(|call| call.worst.map(|worst| worst.of_a_call().0)).collect(),
        }
    }
}

/// Opens the calls of claims of which no other call is under way; none of them if there are other budgets.
pub(super) async fn open_alone<'e>(
    executor: impl sqlx::PgExecutor<'e>,
    calls: &[OpenCall],
    budgets: i64,
) -> Result<HashSet<(i64, i16)>, StoreError> {
    let columns = CallColumns::of(calls);
    let open = sqlx::query!(
        r#"update sluice.inflight i
              set call_number = c.number, call_provider = c.provider, call_model = c.model, call_rung = c.rung,
                  call_started = c.started, call_worst = c.worst
             from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::text[], $6::smallint[],
                         $7::timestamptz[], $8::bigint[])
                    as c(job_id, fence, number, provider, model, rung, started, worst)
            where i.job_id = any (array[c.job_id]) and i.fence = c.fence
              -- A statement that was given up and is run late by the server must not hide a later call.
              and coalesce(i.call_number, 0) <= c.number
              and (select v.version from sluice.budget_version v) = $9
              -- A transaction that has cancelled one of the jobs may stay open: the others do not wait for it.
              and (select set_config('lock_timeout', '300ms', true)) is not null
           returning i.fence, i.call_number as "number!""#,
        &columns.jobs,
        &columns.fences,
        &columns.numbers,
        &columns.providers,
        &columns.models,
        &columns.rungs,
        &columns.started,
        &columns.worst as _,
        budgets
    )
    .fetch_all(executor)
    .await
    .doing("opening calls")?;
    Ok(open.into_iter().map(|row| (row.fence, row.number)).collect())
}

/// Opens calls beside others of their claims; none of them if there are other budgets.
pub(super) async fn open_beside<'e>(
    executor: impl sqlx::PgExecutor<'e>,
    calls: &[OpenCall],
    budgets: i64,
) -> Result<HashSet<(i64, i16)>, StoreError> {
    let columns = CallColumns::of(calls);
    let open = sqlx::query_file!(
        "src/store/call/open_race.sql",
        &columns.jobs,
        &columns.fences,
        &columns.numbers,
        &columns.providers,
        &columns.models,
        &columns.rungs,
        &columns.started,
        &columns.worst as _,
        budgets
    )
    .fetch_all(executor)
    .await
    .doing("opening the calls of races")?;
    Ok(open.into_iter().map(|row| (row.fence, row.number)).collect())
}

/// A call of a race, or all calls under its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) lease: Lease,
    /// `None`: all of them, because the claim ends.
    pub(super) number: Option<i16>,
}

/// Forgets calls that were noted beside another one: they are booked, or were not made.
pub(super) async fn forget(transaction: &mut Transaction, calls: &[Noted]) -> Result<(), StoreError> {
    if calls.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "delete from sluice.race_call r
          using unnest($1::bigint[], $2::bigint[], $3::smallint[]) c(job_id, fence, number)
          where r.job_id = any (array[c.job_id]) and r.fence = c.fence
            and (c.number is null or r.number = c.number)",
        &calls.iter().map(|call| call.lease.job.0).collect::<Vec<_>>(),
        &calls.iter().map(|call| call.lease.fence).collect::<Vec<_>>(),
        &calls.iter().map(|call| call.number).collect::<Vec<_>>() as _
    )
    .execute(transaction)
    .await
    .doing("forgetting the calls of races")?;
    Ok(())
}
