//! Calls that were sent long ago and have no outcome, as the rows of jobs in workers' hands tell of them.

use super::{Doing, Store, StoreError};
use crate::domain::Timestamp;
use crate::domain::long_calls::{LONG, LongCalls};
use std::collections::BTreeMap;

impl Store {
    /// The calls that have been under way for long, by route: of one batch, or of all jobs. Of the calls of a race one
    /// counts. None for a login that may not read of workers.
    pub async fn long_calls(&self, batch: Option<&str>) -> Result<BTreeMap<String, LongCalls>, StoreError> {
        if !self.reads_all().await? {
            return Ok(BTreeMap::new());
        }
        let rows = sqlx::query!(
            r#"select j.route as "route!", count(*) as "calls!",
                      (extract(epoch from min(i.call_started)) * 1000)::bigint as "oldest!",
                      (array_agg(i.call_provider || '/' || i.call_model order by i.call_started))[1] as "target!",
                      (extract(epoch from now()) * 1000)::bigint as "now!"
                 from sluice.inflight i join sluice.worker w on w.id = i.worker cross join lateral (
                          select b.route, b.batch from sluice.job b where b.id = i.job_id limit 1) j
                where i.call_started <= now() - make_interval(secs => $2) and ($1::text is null or j.batch = $1)
                  and w.state = 'live' and w.lease_until > now()
                  -- Between two calls of a job the row names the last one, which the ledger has.
                  and not exists (select from sluice.attempt a
                                   where a.job_id = i.job_id and a.fence = i.fence and a.number = i.call_number)
                group by j.route"#,
            batch,
            LONG.as_secs_f64()
        )
        .fetch_all(&self.db)
        .await
        .doing("looking for calls without an answer")?;
        let calls = rows.into_iter().map(|row| {
            let (oldest, as_of) = (Timestamp(row.oldest), Timestamp(row.now));
            (row.route, LongCalls { calls: row.calls, oldest, target: row.target, as_of })
        });
        Ok(calls.collect())
    }

    /// The calls of a batch that have been under way for long.
    pub async fn long_calls_of_batch(&self, batch: &str) -> Result<Option<LongCalls>, StoreError> {
        Ok(self.long_calls(Some(batch)).await?.into_values().reduce(LongCalls::and))
    }
}
