//! Calls that are under way. They are noted here before they are made, so that a process that takes over from a dead
//! worker can name them.

use super::claim::{Lease, datetime};
use super::{Doing, Store, StoreError};
use crate::domain::{NanoUsd, Target, Timestamp};
use std::collections::HashSet;

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
}

impl Store {
    /// Notes calls as under way and returns the fences under which they may be made. A call whose claim is gone (its
    /// worker was declared dead, its job cancelled) must not be made.
    pub async fn open_calls(&self, calls: &[OpenCall]) -> Result<HashSet<i64>, StoreError> {
        let open = sqlx::query_scalar!(
            r#"update sluice.inflight i
                  set call_number = c.number, call_provider = c.provider, call_model = c.model, call_rung = c.rung,
                      call_started = c.started, call_worst = c.worst
                 from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::text[], $6::smallint[],
                             $7::timestamptz[], $8::bigint[])
                        as c(job_id, fence, number, provider, model, rung, started, worst)
                where i.job_id = any (array[c.job_id]) and i.fence = c.fence
                  -- A statement that was given up and is run late by the server must not hide a later call.
                  and coalesce(i.call_number, 0) <= c.number
               returning i.fence"#,
            &calls.iter().map(|call| call.lease.job.0).collect::<Vec<_>>(),
            &calls.iter().map(|call| call.lease.fence).collect::<Vec<_>>(),
            &calls.iter().map(|call| call.number).collect::<Vec<_>>(),
            &calls.iter().map(|call| call.target.provider.clone()).collect::<Vec<_>>(),
            &calls.iter().map(|call| call.target.model.clone()).collect::<Vec<_>>(),
            &calls.iter().map(|call| call.rung).collect::<Vec<_>>(),
            &calls.iter().map(|call| datetime(call.started_at)).collect::<Vec<_>>(),
            &calls.iter().map(|call| call.worst.map(|worst| worst.of_a_call().0)).collect::<Vec<_>>() as _
        )
        .fetch_all(&self.db)
        .await
        .doing("opening calls")?;
        Ok(open.into_iter().collect())
    }
}
