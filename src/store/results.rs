//! The endings of a batch's jobs, for export.

use super::{Doing, Store, StoreError};
use crate::domain::NanoUsd;
use crate::domain::job::JobState;
use futures_util::{Stream, TryStreamExt as _};

/// Jobs that one statement reads: few enough that it never holds up the vacuum. The number is written into the
/// statement, so that the planner knows it too.
pub const EXPORT_PAGE: u64 = 1_000;

/// What the row of a cancelled job says when another file took its place (`sluice.replace_waiting`).
pub(super) const REPLACED: &str = "replaced";

/// A job of a batch, ended or not.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportedJob {
    pub job: i64,
    /// The author's name for it.
    pub custom_id: Option<String>,
    pub enqueued_by: String,
    /// The author's metadata: a JSON object.
    pub metadata: Option<String>,
    /// How it ended; `None`: it has not ended.
    pub ending: Option<EndedJob>,
    /// Whether it was cancelled because another file took its place: then no answer of it is missed.
    pub is_replaced: bool,
    /// Calls made for it.
    pub attempts: i16,
    /// The provider that answered, or was asked last.
    pub provider: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// Whether the answer was repaired.
    pub repaired: bool,
    /// How sure its rung was of the answer; `None`: its route does not ask, or the answer does not say.
    pub confidence: Option<f64>,
    /// Whether its rung was not sure enough, and no surer answer came.
    pub low_confidence: bool,
    /// All its calls together; `None`: it has not ended, or the price of a call is unknown.
    pub cost: Option<NanoUsd>,
    /// The provider's id of the request that was answered, or that failed last.
    pub request_id: Option<String>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndedJob {
    /// With an answer.
    Succeeded {
        /// A chat completion, as JSON.
        response: Option<String>,
    },
    /// Without an answer.
    Failed {
        class: String,
        /// The reason, in words.
        reason: String,
        /// The provider's response, if an HTTP error ended the job.
        http: Option<HttpError>,
    },
    /// A user cancelled it.
    Cancelled,
}

impl EndedJob {
    /// The state of the job.
    #[must_use]
    pub const fn state(&self) -> JobState {
        match self {
            Self::Succeeded { .. } => JobState::Succeeded,
            Self::Failed { .. } => JobState::Failed,
            Self::Cancelled => JobState::Cancelled,
        }
    }
}

/// An answer of a provider with an error status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    /// HTTP status, 400 or above.
    pub status: i16,
    /// The provider's code.
    pub code: Option<String>,
    /// The provider's message.
    pub message: Option<String>,
}

/// A row of either statement as a job.
macro_rules! exported {
    ($row:ident) => {
        ExportedJob {
            job: $row.job,
            custom_id: $row.custom_id,
            enqueued_by: $row.enqueued_by,
            metadata: $row.metadata,
            is_replaced: $row.state.as_deref() == Some("cancelled") && $row.error.as_deref() == Some(REPLACED),
            ending: match $row.state.as_deref().map(JobState::ended) {
                None => None,
                Some(Some(JobState::Succeeded)) => Some(EndedJob::Succeeded { response: $row.response }),
                Some(Some(JobState::Cancelled)) => Some(EndedJob::Cancelled),
                Some(_) => Some(EndedJob::Failed {
                    class: $row.error_class.unwrap_or_default(),
                    reason: $row.error.unwrap_or_default(),
                    http: $row.http_status.filter(|status| *status >= 400).map(|status| HttpError {
                        status,
                        code: $row.code,
                        message: $row.message,
                    }),
                }),
            },
            attempts: $row.attempts,
            provider: $row.provider,
            model: $row.model,
            repaired: $row.repaired,
            confidence: $row.confidence,
            low_confidence: $row.low_confidence,
            cost: $row.cost_nanos.map(NanoUsd),
            request_id: $row.request_id,
        }
    };
}

impl Store {
    /// The login whose jobs an export of a batch holds if none is named: this login, if it has jobs there. A batch is a
    /// free name, so another login can put jobs into it, even under the same custom ids. `None`: this login has none
    /// there, and the export holds all that it may see.
    pub async fn exporter(&self, batch: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar!(
            r#"select session_user::text as "login!"
                where exists (select from sluice.job where batch = $1 and enqueued_by = session_user)"#,
            batch
        )
        .fetch_optional(&self.db)
        .await
        .doing("looking whose the batch is")
    }

    /// At most [`EXPORT_PAGE`] jobs of a batch that this login has enqueued, with a number above `after`, in order: for
    /// logins that may read nothing else.
    pub fn export_own(&self, batch: &str, after: i64) -> impl Stream<Item = Result<ExportedJob, StoreError>> + '_ {
        sqlx::query!(
            r#"select job_id as "job!", custom_id, enqueued_by as "enqueued_by!", metadata, state,
                      attempts as "attempts!", provider, model, repaired as "repaired!", error_class, error, cost_nanos,
                      request_id, response, http_status, code, message, confidence,
                      low_confidence as "low_confidence!"
                 from sluice.own_results($1, $2)"#,
            batch,
            after
        )
        .map(|row| exported!(row))
        .fetch(&self.db)
        .map_err(|source| StoreError::Sql { doing: "reading results", source })
    }

    /// How many jobs of a batch each login has, the most first.
    pub async fn logins_of_batch(&self, batch: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"select enqueued_by, count(*) as "jobs!" from sluice.job where batch = $1 group by enqueued_by
                 order by 2 desc, 1"#,
            batch
        )
        .fetch_all(&self.db)
        .await
        .doing("looking whose the batch is")?;
        Ok(rows.into_iter().map(|row| (row.enqueued_by, row.jobs)).collect())
    }

    /// At most [`EXPORT_PAGE`] jobs of a batch with a number above `after`, in order: one row at a time, regardless of
    /// their size. Only those of one login, if one is named.
    ///
    /// It reads the tables, in index order. Through the public views, which hide the rows of others behind a barrier
    /// that no limit passes, each page would read the whole batch.
    pub fn export_batch(
        &self,
        batch: &str,
        login: Option<&str>,
        after: i64,
    ) -> impl Stream<Item = Result<ExportedJob, StoreError>> + '_ {
        sqlx::query!(
            r#"select j.id as "job!", j.custom_id, j.enqueued_by, j.metadata::text as metadata, r.state as "state?",
                      coalesce(r.attempts, 0::smallint) as "attempts!", r.provider, r.model,
                      coalesce(r.repaired, false) as "repaired!", r.error_class, r.error, r.cost_nanos,
                      coalesce(r.request_id, f.request_id) as request_id,
                      coalesce(r.response::text, r.response_json::text) as response,
                      f.http_status, f.code, f.message, r.confidence,
                      coalesce(r.low_confidence, false) as "low_confidence!"
                 from (select id, custom_id, enqueued_by, metadata from sluice.job
                        where batch = $1 and id > $2 and ($3::text is null or enqueued_by = $3)
                        order by id limit 1000) j
                      left join lateral (
                           select * from sluice.result r where r.job_id = j.id limit 1) r on true
                      left join lateral (
                           select a.http_status, a.code, a.message, a.request_id, a.class from sluice.attempt a
                            where a.job_id = j.id and r.state = 'failed'
                            order by a.number desc limit 1) f on f.class = r.error_class
                order by j.id"#,
            batch,
            after,
            login as _
        )
        .map(|row| exported!(row))
        .fetch(&self.db)
        .map_err(|source| StoreError::Sql { doing: "reading results", source })
    }

    /// These jobs, in the order of their numbers. Numbers of other batches are left out, and so are jobs of others
    /// where this login sees only its own. They are in memory together: at most [`EXPORT_PAGE`] numbers.
    pub async fn export_jobs(&self, batch: &str, jobs: &[i64]) -> Result<Vec<ExportedJob>, StoreError> {
        if !self.reads_all().await? {
            return sqlx::query!(
                r#"select job_id as "job!", custom_id, enqueued_by as "enqueued_by!", metadata, state,
                          attempts as "attempts!", provider, model, repaired as "repaired!", error_class, error,
                          cost_nanos, request_id, response, http_status, code, message, confidence,
                          low_confidence as "low_confidence!"
                     from sluice.own_results_of($1, $2)"#,
                batch,
                jobs as _
            )
            .map(|row| exported!(row))
            .fetch_all(&self.db)
            .await
            .doing("reading results");
        }
        sqlx::query!(
            r#"select j.id as "job!", j.custom_id, j.enqueued_by as "enqueued_by!", j.metadata::text as metadata,
                      r.state as "state?", coalesce(r.attempts, 0::smallint) as "attempts!", r.provider, r.model,
                      coalesce(r.repaired, false) as "repaired!", r.error_class, r.error, r.cost_nanos,
                      coalesce(r.request_id, f.request_id) as request_id,
                      coalesce(r.response::text, r.response_json::text) as response,
                      f.http_status, f.code, f.message, r.confidence,
                      coalesce(r.low_confidence, false) as "low_confidence!"
                 from (select id, custom_id, enqueued_by, metadata from sluice.job
                        where id = any ($2) and batch = $1) j
                      left join lateral (
                           select * from sluice.result r where r.job_id = j.id limit 1) r on true
                      left join lateral (
                           select a.http_status, a.code, a.message, a.request_id, a.class from sluice.attempt a
                            where a.job_id = j.id and r.state = 'failed'
                            order by a.number desc limit 1) f on f.class = r.error_class
                order by j.id"#,
            batch,
            jobs as _
        )
        .map(|row| exported!(row))
        .fetch_all(&self.db)
        .await
        .doing("reading results")
    }

    /// The numbers of a batch's next jobs above `after`, at most [`EXPORT_PAGE`], in order, and whether each has
    /// ended. Only those of one login, if one is named.
    pub async fn ended_after(
        &self,
        batch: &str,
        login: Option<&str>,
        after: i64,
    ) -> Result<Vec<(i64, bool)>, StoreError> {
        if !self.reads_all().await? {
            let rows = sqlx::query!(
                r#"select job_id as "job!", state as "state!" from sluice.own_listed($1, $2) limit 1000"#,
                batch,
                after
            )
            .fetch_all(&self.db)
            .await
            .doing("reading results")?;
            return Ok(rows.into_iter().map(|row| (row.job, JobState::ended(&row.state).is_some())).collect());
        }
        let rows = sqlx::query!(
            r#"select j.id as "job!", exists (select from sluice.result r where r.job_id = j.id) as "ended!"
                 from (select id from sluice.job
                        where batch = $1 and id > $2 and ($3::text is null or enqueued_by = $3)
                        order by id limit 1000) j
                order by j.id"#,
            batch,
            after,
            login as _
        )
        .fetch_all(&self.db)
        .await
        .doing("reading results")?;
        Ok(rows.into_iter().map(|row| (row.job, row.ended)).collect())
    }

    /// How many of these numbers are jobs of the batch.
    pub async fn count_in_batch(&self, batch: &str, jobs: &[i64]) -> Result<u64, StoreError> {
        if !self.reads_all().await? {
            let count = sqlx::query_scalar!(
                r#"select count(*) as "count!" from sluice.own_results_of($1, $2)"#,
                batch,
                jobs as _
            )
            .fetch_one(&self.db)
            .await
            .doing("reading results")?;
            return Ok(u64::try_from(count).unwrap_or(0));
        }
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from sluice.job where id = any ($2) and batch = $1"#,
            batch,
            jobs as _
        )
        .fetch_one(&self.db)
        .await
        .doing("reading results")?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
