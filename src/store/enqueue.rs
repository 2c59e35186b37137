//! Putting many jobs into the queue in one transaction.

mod presence;

pub use presence::BatchSoFar;

use super::claim::datetime;
use super::database::{Database, Transaction};
use super::{Doing, Store, StoreError};
use crate::domain::Timestamp;
use presence::{Match, Presence};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Rows are sent in statements of about this size: large enough that a statement's own cost does not matter, small
/// enough that the trigger's transition table stays in memory.
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that may wait while the server is busy with an earlier one.
const CHUNKS_AHEAD: usize = 2;

/// The part that all jobs of one bulk enqueue have in common.
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
    /// Attempts that count, per job; `None`: the route decides.
    pub max_attempts: Option<i16>,
}

/// One job of a bulk enqueue.
#[derive(Clone, Copy, Debug)]
pub struct NewJob<'a> {
    /// The author's name for it.
    pub custom_id: Option<&'a str>,
    /// A job whose key its project has used before is left out and counted as existing.
    pub idempotency_key: Option<&'a str>,
    /// A JSON object that accompanies the job.
    pub metadata: Option<&'a str>,
    /// The request, as JSON that `jsonb` takes (no NUL).
    pub request: &'a str,
}

/// How to treat a batch that has jobs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Add nothing to it.
    New,
    /// Add everything.
    Append,
    /// Leave out the jobs that it has, by custom id, or by content where there is none.
    Resume {
        /// Whether to wait for another command that enqueues into the same batch.
        wait: bool,
    },
}

/// How a bulk enqueue begins.
#[derive(Debug)]
pub enum Opened {
    /// Jobs may be pushed.
    Open {
        /// Takes the jobs.
        bulk: BulkEnqueue,
        /// The state of the batch before; `None` when it is new, or was not examined.
        before: Option<BatchSoFar>,
    },
    /// The batch has jobs, and [`Admission::New`] was asked for.
    Exists(BatchSoFar),
    /// Another command is enqueueing into it.
    Busy,
    /// Its jobs cannot be told from new lines, because so many of them are no longer kept.
    Lost(BatchSoFar, i64),
}

/// The result of a bulk enqueue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enqueued {
    /// Jobs that are in the queue now.
    pub jobs: u64,
    /// Jobs that were left out because their idempotency key has a job already, or the batch has them.
    pub existing: u64,
    /// A job that was left out although its custom id was enqueued with other content. Only some are compared.
    pub changed: Option<String>,
}

/// A transaction that takes jobs as they come: nothing is visible before [`commit`](Self::commit), and dropping it
/// leaves nothing behind.
///
/// The rows are encoded here and written by a separate task, so that the caller reads on while the server works.
#[derive(Debug)]
pub struct BulkEnqueue {
    /// The beginning of every row.
    common: String,
    /// The beginning of every job with a key.
    common_keyed: String,
    rows: String,
    keyed: String,
    /// Whether lines are compared with the jobs of the batch.
    compares: bool,
    lines: Vec<Line>,
    line_bytes: usize,
    chunks: mpsc::Sender<Chunk>,
    /// `None` once the task has reported its result.
    writer: Option<JoinHandle<Result<Enqueued, StoreError>>>,
}

#[derive(Debug)]
enum Chunk {
    /// Rows in the text format of COPY.
    Rows(String),
    /// Jobs with a key: the JSON array that `sluice.enqueue_many` takes, without its end. COPY cannot leave out jobs
    /// whose key exists.
    Keyed(String),
    /// Jobs that have to be compared first.
    Lines(Vec<Line>),
    /// There is no more.
    Commit,
}

/// A job that owns its texts.
#[derive(Debug)]
struct Line {
    custom_id: Option<String>,
    idempotency_key: Option<String>,
    metadata: Option<String>,
    request: String,
}

impl Line {
    fn of(job: &NewJob<'_>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            custom_id: owned(job.custom_id),
            idempotency_key: owned(job.idempotency_key),
            metadata: owned(job.metadata),
            request: job.request.to_owned(),
        }
    }

    fn job(&self) -> NewJob<'_> {
        NewJob {
            custom_id: self.custom_id.as_deref(),
            idempotency_key: self.idempotency_key.as_deref(),
            metadata: self.metadata.as_deref(),
            request: &self.request,
        }
    }
}

impl Store {
    /// Begins a bulk enqueue on a connection of its own, whatever the batch has already.
    pub async fn bulk_enqueue(&self, options: BulkOptions) -> Result<BulkEnqueue, StoreError> {
        self.partitions_ahead().await?;
        let transaction = self.begin_long().await?;
        Ok(self.bulk(transaction, options, None))
    }

    /// Begins a bulk enqueue into a batch as [`Admission`] says. If several begin at once into the same batch, one is
    /// first. The others of the same login then find the jobs that it has put there, or that it is still at work.
    ///
    /// # Errors
    /// Only those of the database; the state of the batch is reported by [`Opened`].
    pub async fn enqueue_into(&self, options: BulkOptions, admission: Admission) -> Result<Opened, StoreError> {
        let Some(batch) = options.batch.clone() else {
            return Ok(Opened::Open { bulk: self.bulk_enqueue(options).await?, before: None });
        };
        self.partitions_ahead().await?;
        let mut transaction = loop {
            // In an earlier transaction than the one that takes the turn: an uncommitted row cannot be shared.
            sqlx::query!("select sluice.open_batch_turn($1)", batch).fetch_one(&self.db).await.doing(LOOKING)?;
            let mut transaction = self.begin_long().await?;
            match take_turn(&mut transaction, &batch, admission).await? {
                Some(true) => break transaction,
                Some(false) => {
                    transaction.rollback().await.doing(LOOKING)?;
                    return Ok(Opened::Busy);
                }
                // The turn was forgotten in between.
                None => transaction.rollback().await.doing(LOOKING)?,
            }
        };
        let (so_far, presence) = match admission {
            Admission::Append => (BatchSoFar::default(), None),
            Admission::New => (BatchSoFar::read(&mut transaction, &batch).await?, None),
            // In this order: jobs that commit between the two looks do no harm.
            Admission::Resume { .. } => {
                let so_far = BatchSoFar::read(&mut transaction, &batch).await?;
                let presence = Presence::read(&mut transaction, &batch).await?;
                let lost = so_far.lost(&presence);
                if lost > 0 {
                    transaction.rollback().await.doing(LOOKING)?;
                    return Ok(Opened::Lost(so_far, lost));
                }
                (so_far, Some(presence))
            }
        };
        if admission == Admission::New && so_far.jobs > 0 {
            transaction.rollback().await.doing(LOOKING)?;
            return Ok(Opened::Exists(so_far));
        }
        let before = Some(so_far).filter(|so_far| so_far.jobs > 0);
        Ok(Opened::Open { bulk: self.bulk(transaction, options, presence), before })
    }

    /// The known state of a batch: whether it has jobs, and which.
    pub async fn batch_so_far(&self, batch: &str) -> Result<BatchSoFar, StoreError> {
        let mut transaction = self.db.begin().await.doing("connecting")?;
        let so_far = BatchSoFar::read(&mut transaction, batch).await?;
        transaction.commit().await.doing(LOOKING)?;
        Ok(so_far)
    }

    async fn partitions_ahead(&self) -> Result<(), StoreError> {
        // Not in the transaction: making a partition locks the table for all sessions.
        match self.ensure_partitions().await {
            Ok(_) => Ok(()),
            // A login that may only enqueue leaves this to the workers, which make partitions long before they are
            // needed.
            Err(error) if error.is_denied() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A transaction that may take its time.
    async fn begin_long(&self) -> Result<Transaction, StoreError> {
        let mut transaction = self.db.begin().await.doing("connecting")?;
        transaction.wait_for_ever();
        // A session that waits for another's commit has to see it afterwards, whatever the database's default is.
        sqlx::raw_sql("set transaction isolation level read committed")
            .execute(&mut transaction)
            .await
            .doing(ENQUEUEING)?;
        // The file may be long and slow to arrive, and another session may be enqueueing the same keys. For this
        // transaction that does not mean that a call hangs.
        sqlx::query!(
            "select set_config('statement_timeout', '0', true) as work, set_config('lock_timeout', '0', true) as wait,
                    set_config('idle_in_transaction_session_timeout', '0', true) as idle"
        )
        .fetch_one(&mut transaction)
        .await
        .doing(ENQUEUEING)?;
        Ok(transaction)
    }

    fn bulk(&self, transaction: Transaction, options: BulkOptions, presence: Option<Presence>) -> BulkEnqueue {
        let (chunks, incoming) = mpsc::channel(CHUNKS_AHEAD);
        let (common, common_keyed) = (common_columns(&options), common_members(&options));
        let compares = presence.is_some();
        let mut writing = Writing {
            transaction,
            common: common.clone(),
            common_keyed: common_keyed.clone(),
            options,
            presence: presence.unwrap_or_default(),
            sum: Enqueued::default(),
        };
        let database = self.db.clone();
        let writer = tokio::spawn(async move {
            let is_complete = writing.take_all(incoming).await?;
            writing.end(is_complete, &database).await
        });
        BulkEnqueue {
            common,
            common_keyed,
            rows: String::new(),
            keyed: String::new(),
            compares,
            lines: Vec::new(),
            line_bytes: 0,
            chunks,
            writer: Some(writer),
        }
    }
}

/// Takes the turn of this login at a batch: alone, or together with others that add to it without comparing. False:
/// another session has the turn. `None`: the turn is not open.
async fn take_turn(
    transaction: &mut Transaction,
    batch: &str,
    admission: Admission,
) -> Result<Option<bool>, StoreError> {
    let (alone, waits) = match admission {
        Admission::Append => (false, true),
        Admission::Resume { wait } => (true, wait),
        Admission::New => (true, false),
    };
    sqlx::query_scalar!("select sluice.take_batch_turn($1, $2, $3)", batch, alone, waits)
        .fetch_one(transaction)
        .await
        .doing(LOOKING)
}

impl BulkEnqueue {
    /// Adds a job. Waits while the server is behind.
    ///
    /// # Errors
    /// The fault of this job or an earlier one; nothing is enqueued then.
    pub async fn push(&mut self, job: &NewJob<'_>) -> Result<(), StoreError> {
        if self.compares {
            self.line_bytes += job.request.len() + job.metadata.map_or(0, str::len) + LINE_COST;
            self.lines.push(Line::of(job));
            if self.line_bytes >= CHUNK_BYTES {
                self.send_lines().await?;
            }
        } else if let Some(key) = job.idempotency_key {
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
    /// The fault; nothing is enqueued then. When the connection breaks during the commit itself, the server is asked
    /// for the result. It stays unknown only if the server cannot be reached for longer than a minute.
    pub async fn commit(mut self) -> Result<Enqueued, StoreError> {
        if !self.lines.is_empty() {
            self.send_lines().await?;
        }
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

    /// Leaves everything as it was, and waits for that to be done. Dropping does the same without waiting.
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        let (closed, _) = mpsc::channel(1);
        self.chunks = closed;
        self.outcome().await.map(|_| ())
    }

    async fn send_lines(&mut self) -> Result<(), StoreError> {
        self.line_bytes = 0;
        let chunk = Chunk::Lines(std::mem::take(&mut self.lines));
        self.send(chunk).await
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
const LOOKING: &str = "looking at what the batch has";

/// The memory that a waiting line takes beside its texts, in bytes.
const LINE_COST: usize = 128;

/// The other end of a [`BulkEnqueue`]: a transaction, and its result so far.
struct Writing {
    transaction: Transaction,
    common: String,
    common_keyed: String,
    options: BulkOptions,
    presence: Presence,
    sum: Enqueued,
}

impl Writing {
    /// Writes chunks until there are no more. False: they ended without [`Chunk::Commit`].
    async fn take_all(&mut self, mut chunks: mpsc::Receiver<Chunk>) -> Result<bool, StoreError> {
        while let Some(chunk) = chunks.recv().await {
            match chunk {
                Chunk::Rows(rows) => self.copy(&rows).await?,
                Chunk::Keyed(jobs) => self.enqueue_many(jobs).await?,
                Chunk::Lines(lines) => self.take_new(lines).await?,
                Chunk::Commit => return Ok(true),
            }
        }
        Ok(false)
    }

    async fn end(self, is_complete: bool, database: &Database) -> Result<Enqueued, StoreError> {
        if is_complete {
            self.transaction.commit_for_sure(database).await.doing(ENQUEUEING)?;
            return Ok(self.sum);
        }
        self.transaction.rollback().await.doing("giving up an enqueue")?;
        Ok(Enqueued::default())
    }

    async fn copy(&mut self, rows: &str) -> Result<(), StoreError> {
        self.sum.jobs += copy(&mut self.transaction, rows).await.doing(ENQUEUEING)?;
        Ok(())
    }

    async fn enqueue_many(&mut self, mut jobs: String) -> Result<(), StoreError> {
        jobs.push(']');
        let (added, existing) = enqueue_many(&mut self.transaction, &jobs, &self.options).await.doing(ENQUEUEING)?;
        self.sum.jobs += added;
        self.sum.existing += existing;
        Ok(())
    }

    /// Adds the lines that the batch does not have, in the order in which they came.
    async fn take_new(&mut self, lines: Vec<Line>) -> Result<(), StoreError> {
        let mut digests = self.digests(&lines).await?.into_iter();
        let (mut rows, mut keyed) = (String::new(), String::new());
        for line in &lines {
            let digest = if self.presence.compares_content(line.custom_id.as_deref()) { digests.next() } else { None };
            match self.presence.look_up(line.custom_id.as_deref(), digest.as_deref()) {
                Match::New => match &line.idempotency_key {
                    Some(key) => push_keyed(&mut keyed, &self.common_keyed, key, &line.job()),
                    None => push_row(&mut rows, &self.common, &line.job()),
                },
                Match::Same => self.sum.existing += 1,
                Match::Changed => {
                    self.sum.existing += 1;
                    self.sum.changed = self.sum.changed.take().or_else(|| line.custom_id.clone());
                }
            }
        }
        if !rows.is_empty() {
            self.copy(&rows).await?;
        }
        if !keyed.is_empty() {
            self.enqueue_many(keyed).await?;
        }
        Ok(())
    }

    /// The digests of those lines whose content is compared, in order. The server computes them: it knows how it would
    /// store the line.
    async fn digests(&mut self, lines: &[Line]) -> Result<Vec<Vec<u8>>, StoreError> {
        let compared = || lines.iter().filter(|line| self.presence.compares_content(line.custom_id.as_deref()));
        let requests: Vec<&str> = compared().map(|line| line.request.as_str()).collect();
        let metadata: Vec<Option<&str>> = compared().map(|line| line.metadata.as_deref()).collect();
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        sqlx::query_scalar!(
            r#"select sluice.line_digest(l.request::jsonb, l.metadata::jsonb) as "digest!"
                 from unnest($1::text[], $2::text[]) with ordinality l(request, metadata, n) order by l.n"#,
            &requests as _,
            &metadata as _
        )
        .fetch_all(&mut self.transaction)
        .await
        .doing(LOOKING)
    }
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

/// Returns how many jobs were added and how many existed.
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

/// Appends a field in the text format of COPY: a backslash before each character that would end it or begin an escape.
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

/// Appends an object for `sluice.enqueue_many` to those that are there already.
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

/// The beginning of every such object.
fn common_members(options: &BulkOptions) -> String {
    let mut members = String::new();
    let instant = |at: Timestamp| json_string(&datetime(at).to_rfc3339());
    push_member(&mut members, "priority", Some(&options.priority.to_string()));
    push_member(&mut members, "run_at", options.run_at.map(instant).as_deref());
    push_member(&mut members, "deadline", options.deadline.map(instant).as_deref());
    push_member(&mut members, "max_attempts", options.max_attempts.map(|most| most.to_string()).as_deref());
    members
}

/// Appends a member and a comma; nothing when it has no value.
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
