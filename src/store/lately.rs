//! Jobs that have ended, with what their calls have cost: what estimates are corrected by.

use super::report::Moment;
use super::{Doing, Store, StoreError};
use crate::domain::{NanoUsd, Timestamp};
use std::collections::HashMap;

const LOOKING: &str = "looking at jobs that have ended";

/// How many of the newest job numbers are looked through for those of a route.
const NEWEST: i64 = 1_000_000;

/// Which jobs are looked at.
#[derive(Clone, Copy, Debug)]
pub enum Sampled<'a> {
    /// Those of a batch.
    Batch(&'a str),
    /// Those of a route that have ended since then.
    Route(&'a str, Moment),
}

/// A job that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct PastJob {
    /// Its request, as it was written.
    pub body: String,
    /// What all its calls cost; `None`: unknown.
    pub cost: Option<NanoUsd>,
    pub calls: Vec<EarlierCall>,
}

/// A call of such a job.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlierCall {
    /// The target as routes name it, with its tier.
    pub target: String,
    pub started_at: Timestamp,
    /// `None`: accepted.
    pub class: Option<String>,
    /// `None`: unknown.
    pub cost: Option<NanoUsd>,
    pub output_tokens: i64,
    pub total_ms: i32,
}

impl Store {
    /// The newest of these jobs that succeeded or failed, at most so many, with their calls.
    pub async fn past_jobs(&self, sampled: Sampled<'_>, most: i64) -> Result<Vec<PastJob>, StoreError> {
        let (batch, route, since) = match sampled {
            Sampled::Batch(batch) => (Some(batch), None, None),
            Sampled::Route(route, Moment::At(at)) => (None, Some(route), Some(at)),
            Sampled::Route(route, Moment::Ago(ago)) => {
                (None, Some(route), Some(self.seconds_ago(ago.as_secs_f64()).await?))
            }
        };
        let rows = sqlx::query!(
            r#"with jobs as (
                select j.id, j.request::text as request from sluice.job j
                 where $1::text is not null and j.batch = $1
                 union all
                select j.id, j.request::text from sluice.job j
                 where $2::text is not null and j.route = $2
                   and j.id > (select coalesce(max(id), 0) - $5 from sluice.job)
            )
            select r.job_id, j.request as "request!", r.cost_nanos
              from jobs j join sluice.result r on r.job_id = j.id
             where r.state in ('succeeded', 'failed')
               and ($3::timestamptz is null or r.finished_at >= $3)
             order by r.job_id desc limit $4"#,
            batch,
            route,
            since,
            most,
            NEWEST
        )
        .fetch_all(&self.db)
        .await
        .doing(LOOKING)?;
        let ids: Vec<i64> = rows.iter().map(|row| row.job_id).collect();
        let calls = sqlx::query!(
            "select a.job_id, a.provider, a.model, a.started_at, a.class, a.cost_nanos, a.output_tokens, a.total_ms
               from sluice.attempt a
              where a.job_id = any ($1) and a.round >= 0 order by a.job_id, a.fence, a.number",
            &ids
        )
        .fetch_all(&self.db)
        .await
        .doing(LOOKING)?;
        let mut by_job: HashMap<i64, Vec<EarlierCall>> = HashMap::new();
        for row in calls {
            by_job.entry(row.job_id).or_default().push(EarlierCall {
                target: format!("{}/{}", row.provider, row.model),
                started_at: Timestamp(row.started_at.timestamp_millis()),
                class: row.class,
                cost: row.cost_nanos.map(NanoUsd),
                output_tokens: row.output_tokens,
                total_ms: row.total_ms,
            });
        }
        let past = rows.into_iter().map(|row| PastJob {
            body: row.request,
            cost: row.cost_nanos.map(NanoUsd),
            calls: by_job.remove(&row.job_id).unwrap_or_default(),
        });
        Ok(past.collect())
    }
}
