//! Putting many jobs into the queue in one transaction.

use super::claim::datetime;
use super::database::{Database, Transaction};
use super::{Doing, Store, StoreError};
use crate::domain::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Rows are sent in statements of about this size: large enough that a statement's own cost does not show, small enough
/// that the trigger's transition table stays in memory.
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that may wait while the server is busy with the one before.
const CHUNKS_AHEAD: usize = 2;

/// What all jobs of one bulk enqueue have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkOptions {
    /// Their route.
    pub route: String,
    /// Their project.
    pub project: String,
    /// Their batch.
    pub batch: Option<String>,
    /// Higher goes first. −1000 to 1000.
    pub priority: i16,
    /// Not before this instant.
    pub run_at: Option<Timestamp>,
    /// No call after this instant.
    pub deadline: Option<Timestamp>,
    /// Attempts that count, per job; otherwise the route says.
    pub max_attempts: Option<i16>,
}

/// One job of a bulk enqueue.
#[derive(Clone, Copy, Debug)]
pub struct NewJob<'a> {
    /// The author's name for it.
    pub custom_id: Option<&'a str>,
    /// With a key that its project has used before, the job is left out and counted as existing.
    pub idempotency_key: Option<&'a str>,
    /// A JSON object that goes with it.
    pub metadata: Option<&'a str>,
    /// The request, as JSON that `jsonb` takes (no NUL).
    pub request: &'a str,
}

/// What a bulk enqueue came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enqueued {
    /// Jobs that are in the queue now.
    pub jobs: u64,
    /// Jobs that were left out because their idempotency key has a job already.
    pub existing: u64,
}

/// A transaction that takes jobs as they come: nothing is visible before [`commit`](Self::commit), and dropping it
/// leaves nothing behind.
///
/// The rows are encoded here and written by a task of its own, so that the caller reads on while the server works.
#[derive(Debug)]
pub struct BulkEnqueue {
    /// What every row begins with.
    common: String,
    /// What every job with a key begins with.
    common_keyed: String,
    rows: String,
    keyed: String,
    chunks: mpsc::Sender<Chunk>,
    /// `None` once it has told how it ended.
    writer: Option<JoinHandle<Result<Enqueued, StoreError>>>,
}

#[derive(Debug)]
enum Chunk {
    /// Rows in the text format of COPY.
    Rows(String),
    /// Jobs with a key: the JSON array that `sluice.enqueue_many` takes, without its end. COPY cannot leave out those
    /// whose key exists.
    Keyed(String),
    /// There is no more.
    Commit,
}

impl Store {
    /// Begins a bulk enqueue on a connection of its own.
    pub async fn bulk_enqueue(&self, options: BulkOptions) -> Result<BulkEnqueue, StoreError> {
        // Not in the transaction: making a partition locks the table for everyone.
        match self.ensure_partitions().await {
            Ok(_) => {}
            // Who may only enqueue leaves it to the workers, which make them long before they are needed.
            Err(error) if error.is_denied() => {}
            Err(error) => return Err(error),
        }
        let transaction = self.db.begin().await.doing("connecting")?;
        let (chunks, incoming) = mpsc::channel(CHUNKS_AHEAD);
        let (common, common_keyed) = (common_columns(&options), common_members(&options));
        let writer = tokio::spawn(write(self.db.clone(), transaction, options, incoming));
        Ok(BulkEnqueue {
            common,
            common_keyed,
            rows: String::new(),
            keyed: String::new(),
            chunks,
            writer: Some(writer),
        })
    }
}

impl BulkEnqueue {
    /// Adds a job. Waits while the server is behind.
    ///
    /// # Errors
    /// What went wrong with this job or an earlier one; nothing is enqueued then.
    pub async fn push(&mut self, job: &NewJob<'_>) -> Result<(), StoreError> {
        if let Some(key) = job.idempotency_key {
            push_keyed(&mut self.keyed, &self.common_keyed, key, job);
            if self.keyed.len() >= CHUNK_BYTES {
                let chunk = std::mem::take(&mut self.keyed);
                self.send(Chunk::Keyed(chunk)).await?;
            }
        } else {
            push_row(&mut self.rows, &self.common, job);
            if self.rows.len() >= CHUNK_BYTES {
                let room = String::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
                let chunk = std::mem::replace(&mut self.rows, room);
                self.send(Chunk::Rows(chunk)).await?;
            }
        }
        Ok(())
    }

    /// Makes all jobs visible at once; returns how many there are.
    ///
    /// # Errors
    /// What went wrong; nothing is enqueued then. When the connection breaks during the commit itself the server is asked
    /// what came of it; only when it cannot be reached for longer than a minute is that not known.
    pub async fn commit(mut self) -> Result<Enqueued, StoreError> {
        let rows = std::mem::take(&mut self.rows);
        if !rows.is_empty() {
            self.send(Chunk::Rows(rows)).await?;
        }
        let keyed = std::mem::take(&mut self.keyed);
        if !keyed.is_empty() {
            self.send(Chunk::Keyed(keyed)).await?;
        }
        self.send(Chunk::Commit).await?;
        self.outcome().await
    }

    /// Leaves everything as it was, and waits until it is. Dropping does the same without waiting.
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        let (closed, _) = mpsc::channel(1);
        self.chunks = closed;
        self.outcome().await.map(|_| ())
    }

    async fn send(&mut self, chunk: Chunk) -> Result<(), StoreError> {
        if self.chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        // The writer ends early only when a statement failed.
        self.outcome().await.map(|_| ())
    }

    async fn outcome(&mut self) -> Result<Enqueued, StoreError> {
        let failed = |source| Err(StoreError::Sql { doing: ENQUEUEING, source });
        match self.writer.take() {
            None => failed(sqlx::Error::Protocol("an earlier job of this transaction failed".to_owned())),
            Some(writer) => writer.await.unwrap_or_else(|error| failed(sqlx::Error::Io(std::io::Error::other(error)))),
        }
    }
}

const ENQUEUEING: &str = "enqueueing";

/// Writes chunks until there are no more. Without a [`Chunk::Commit`] before the end, everything is rolled back.
async fn write(
    database: Database,
    mut transaction: Transaction,
    options: BulkOptions,
    mut chunks: mpsc::Receiver<Chunk>,
) -> Result<Enqueued, StoreError> {
    transaction.wait_for_ever();
    // The file may be long and slow to come, and another session may be enqueueing the same keys: for this
    // transaction none of that is a hung call.
    sqlx::query!(
        "select set_config('statement_timeout', '0', true) as work, set_config('lock_timeout', '0', true) as wait,
                set_config('idle_in_transaction_session_timeout', '0', true) as idle"
    )
    .fetch_one(&mut transaction)
    .await
    .doing(ENQUEUEING)?;
    let mut sum = Enqueued::default();
    while let Some(chunk) = chunks.recv().await {
        match chunk {
            Chunk::Rows(rows) => sum.jobs += copy(&mut transaction, &rows).await.doing(ENQUEUEING)?,
            Chunk::Keyed(mut jobs) => {
                jobs.push(']');
                let (added, existing) = enqueue_many(&mut transaction, &jobs, &options).await.doing(ENQUEUEING)?;
                sum.jobs += added;
                sum.existing += existing;
            }
            Chunk::Commit => {
                transaction.commit_for_sure(&database).await.doing(ENQUEUEING)?;
                return Ok(sum);
            }
        }
    }
    transaction.rollback().await.doing("giving up an enqueue")?;
    Ok(Enqueued::default())
}

async fn copy(transaction: &mut Transaction, rows: &str) -> Result<u64, sqlx::Error> {
    transaction
        .copy_in(
            "copy sluice.job (route, project, batch, priority, run_at, deadline, max_attempts, custom_id, metadata,
                              request) from stdin",
            rows.as_bytes(),
        )
        .await
}

/// Returns how many were added and how many existed.
async fn enqueue_many(
    transaction: &mut Transaction,
    jobs: &str,
    options: &BulkOptions,
) -> Result<(u64, u64), sqlx::Error> {
    let counts = sqlx::query!(
        r#"select count(*) filter (where not existing) as "added!", count(*) filter (where existing) as "existing!"
             from sluice.enqueue_many($1::text::jsonb, $2, $3, $4)"#,
        jobs,
        options.route,
        options.project,
        options.batch.as_deref() as _
    )
    .fetch_one(transaction)
    .await?;
    let whole = |count: i64| u64::try_from(count).unwrap_or(0);
    Ok((whole(counts.added), whole(counts.existing)))
}

/// The first seven columns, each with the tab behind it.
fn common_columns(options: &BulkOptions) -> String {
    let mut columns = String::new();
    let instant = |at: Timestamp| datetime(at).to_rfc3339();
    push_field(&mut columns, Some(&options.route), '\t');
    push_field(&mut columns, Some(&options.project), '\t');
    push_field(&mut columns, options.batch.as_deref(), '\t');
    push_field(&mut columns, Some(&options.priority.to_string()), '\t');
    push_field(&mut columns, options.run_at.map(instant).as_deref(), '\t');
    push_field(&mut columns, options.deadline.map(instant).as_deref(), '\t');
    push_field(&mut columns, options.max_attempts.map(|most| most.to_string()).as_deref(), '\t');
    columns
}

fn push_row(rows: &mut String, common: &str, job: &NewJob<'_>) {
    rows.push_str(common);
    push_field(rows, job.custom_id, '\t');
    push_field(rows, job.metadata, '\t');
    push_field(rows, Some(job.request), '\n');
}

/// A field in the text format of COPY: a backslash before what would end it or begin an escape.
fn push_field(row: &mut String, field: Option<&str>, end: char) {
    match field {
        None => row.push_str("\\N"),
        Some(text) => {
            let mut rest = text;
            while let Some(at) = rest.find(['\\', '\n', '\r', '\t']) {
                let (before, special) = rest.split_at(at);
                row.push_str(before);
                row.push_str(match special.as_bytes().first() {
                    Some(b'\n') => "\\n",
                    Some(b'\r') => "\\r",
                    Some(b'\t') => "\\t",
                    _ => "\\\\",
                });
                rest = special.get(1..).unwrap_or_default();
            }
            row.push_str(rest);
        }
    }
    row.push(end);
}

/// An object for `sluice.enqueue_many`, behind those that are there already.
fn push_keyed(jobs: &mut String, common: &str, key: &str, job: &NewJob<'_>) {
    jobs.push_str(if jobs.is_empty() { "[{" } else { ",{" });
    jobs.push_str(common);
    push_member(jobs, "idempotency_key", Some(&json_string(key)));
    push_member(jobs, "custom_id", job.custom_id.map(json_string).as_deref());
    push_member(jobs, "metadata", job.metadata);
    jobs.push_str("\"request\":");
    jobs.push_str(job.request);
    jobs.push('}');
}

/// What every such object begins with.
fn common_members(options: &BulkOptions) -> String {
    let mut members = String::new();
    let instant = |at: Timestamp| json_string(&datetime(at).to_rfc3339());
    push_member(&mut members, "priority", Some(&options.priority.to_string()));
    push_member(&mut members, "run_at", options.run_at.map(instant).as_deref());
    push_member(&mut members, "deadline", options.deadline.map(instant).as_deref());
    push_member(&mut members, "max_attempts", options.max_attempts.map(|most| most.to_string()).as_deref());
    members
}

/// A member with the comma behind it; nothing when it has no value.
fn push_member(object: &mut String, name: &str, json: Option<&str>) {
    if let Some(json) = json {
        object.push('"');
        object.push_str(name);
        object.push_str("\":");
        object.push_str(json);
        object.push(',');
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_copy_is_escaped_where_it_would_end() {
        for (field, expected) in [
            (None, "\\N\t"),
            (Some(""), "\t"),
            (Some("\\N"), "\\\\N\t"),
            (Some("\\."), "\\\\.\t"),
            (Some("a\tb\nc\rd\\"), "a\\tb\\nc\\rd\\\\\t"),
            (Some("grün 😀\u{b}"), "grün 😀\u{b}\t"),
        ] {
            let mut row = String::new();
            push_field(&mut row, field, '\t');
            assert_eq!(row, expected);
        }
    }
}
