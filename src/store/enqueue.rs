//! Putting many jobs into the queue in one transaction.

mod presence;
mod rows;
mod writing;

pub use presence::BatchSoFar;

use super::database::Transaction;
use super::schedule::TickNote;
use super::stop_loss::StopLossKept;
use super::{Doing, Store, StoreError};
use crate::domain::{NanoUsd, StopLoss, Timestamp};
use presence::Presence;
use rows::{Form, JobRows, KeyedJobs};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use writing::{Chunk, CopyLine, Unless, Writing};

/// Rows are sent in statements of about this size: large enough that a statement's own cost does not matter, small
/// enough that the rows stay in memory for its triggers.
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
    /// Cancel the jobs that wait, and then leave out those that it still has as they come.
    Replace {
        /// Whether to wait for another command that enqueues into the same batch.
        wait: bool,
    },
}

/// The jobs of a batch whose place a file takes, by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Jobs that waited, and are cancelled.
    pub cancelled: i64,
    /// Jobs that workers have in hand, and that go on.
    pub begun: i64,
    /// Jobs that had ended.
    pub ended: i64,
}

/// How a bulk enqueue begins.
#[derive(Debug)]
pub enum Opened {
    /// Jobs may be pushed.
    Open {
        /// Takes the jobs.
        bulk: Box<BulkEnqueue>,
        /// The state of the batch before; `None` when it is new, or was not examined.
        before: Option<BatchSoFar>,
        /// The jobs cancelled together with the commit, where that was asked for.
        replaced: Option<Replaced>,
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
    /// The number under which the new jobs can be cancelled; `None`: there are none, or they have no batch.
    pub number: Option<i64>,
    /// Nothing was enqueued, because the batch does not have every job as it came: `jobs` would have been.
    pub is_given_up: bool,
}

/// A transaction that takes jobs as they come: nothing is visible before [`commit`](Self::commit), and dropping it
/// leaves nothing behind.
///
/// The rows are encoded here and written by a separate task, so that the caller reads on while the server works.
#[derive(Debug)]
pub struct BulkEnqueue {
    form: Form,
    /// How many jobs were pushed.
    pushed: u64,
    /// Rows of COPY.
    rows: JobRows,
    /// Jobs with a key, as `sluice.enqueue_many` takes them. COPY cannot leave out jobs whose key exists.
    keyed: KeyedJobs,
    /// Whether lines are compared with the jobs of the batch.
    compares: bool,
    lines: Vec<CopyLine>,
    line_bytes: usize,
    /// What the batch may cost; zero: nothing is said of it.
    budget: NanoUsd,
    chunks: mpsc::Sender<Chunk>,
    /// `None` once the task has reported its result.
    writer: Option<JoinHandle<Result<Enqueued, StoreError>>>,
}

impl Store {
    /// Begins a bulk enqueue on a connection of its own, regardless of what the batch has already.
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
            return Ok(Opened::Open {
                bulk: Box::new(self.bulk_enqueue(options).await?),
                before: None,
                replaced: None,
            });
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
        let mut replaced = None;
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
            Admission::Replace { .. } => {
                let so_far = BatchSoFar::read(&mut transaction, &batch).await?;
                replaced = Some(replace_waiting(&mut transaction, &batch).await?);
                let presence = Presence::read_kept(&mut transaction, &batch).await?;
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
        Ok(Opened::Open { bulk: Box::new(self.bulk(transaction, options, presence)), before, replaced })
    }

    /// The known state of a batch: whether it has jobs, and which.
    pub async fn batch_so_far(&self, batch: &str) -> Result<BatchSoFar, StoreError> {
        let mut transaction = self.db.begin().await.doing("connecting")?;
        let so_far = BatchSoFar::read(&mut transaction, batch).await?;
        transaction.commit().await.doing(LOOKING)?;
        Ok(so_far)
    }

    pub(super) async fn partitions_ahead(&self) -> Result<(), StoreError> {
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
    pub(super) async fn begin_long(&self) -> Result<Transaction, StoreError> {
        let mut transaction = self.db.begin().await.doing("connecting")?;
        transaction.wait_for_ever();
        // A session that waits for another's commit has to see it afterwards, regardless of the database's default.
        sqlx::raw_sql("set transaction isolation level read committed")
            .execute(&mut transaction)
            .await
            .doing(ENQUEUEING)?;
        // The file may be long and slow to arrive, and another session may be enqueueing the same keys. For this
        // transaction that does not mean that a call hangs.
        sqlx::query!(
            "select set_config('statement_timeout', '0', true) as work, set_config('lock_timeout', '0', true) as wait,
                    set_config('idle_in_transaction_session_timeout', '0', true) as idle,
                    -- The rows of a statement are kept for its triggers: twice the size of the statement, as a rule.
                    set_config('work_mem', greatest(s.setting::bigint, 32768) || 'kB', true) as memory
               from pg_settings s where s.name = 'work_mem'"
        )
        .fetch_one(&mut transaction)
        .await
        .doing(ENQUEUEING)?;
        Ok(transaction)
    }

    /// A bulk enqueue in a transaction that has begun.
    pub(super) fn bulk_in(&self, transaction: Transaction, options: BulkOptions) -> BulkEnqueue {
        self.bulk(transaction, options, None)
    }

    fn bulk(&self, transaction: Transaction, options: BulkOptions, presence: Option<Presence>) -> BulkEnqueue {
        let (chunks, incoming) = mpsc::channel(CHUNKS_AHEAD);
        let form = Form::of(&options);
        let compares = presence.is_some();
        let mut writing = Writing {
            transaction,
            form: form.clone(),
            options,
            presence: presence.unwrap_or_default(),
            sum: Enqueued::default(),
            tick: None,
        };
        let database = self.db.clone();
        let writer = tokio::spawn(async move {
            let commit = writing.take_all(incoming).await?;
            writing.end(commit, &database).await
        });
        BulkEnqueue {
            form,
            pushed: 0,
            rows: JobRows::with_capacity(0),
            keyed: KeyedJobs::default(),
            budget: NanoUsd::ZERO,
            compares,
            lines: Vec::new(),
            line_bytes: 0,
            chunks,
            writer: Some(writer),
        }
    }
}

/// Cancels the jobs of a batch that wait, in the transaction of the file that takes their place: until it commits,
/// nothing has happened.
async fn replace_waiting(transaction: &mut Transaction, batch: &str) -> Result<Replaced, StoreError> {
    let (mut sum, mut after) = (Replaced::default(), 0);
    loop {
        let step = sqlx::query!(
            r#"select replaced as "replaced!", begun as "begun!", ended as "ended!", last
                 from sluice.replace_waiting($1, $2)"#,
            batch,
            after
        )
        .fetch_one(&mut *transaction)
        .await
        .doing("cancelling what waits")?;
        sum.cancelled += step.replaced;
        sum.begun += step.begun;
        sum.ended += step.ended;
        match step.last {
            Some(last) => after = last,
            None => return Ok(sum),
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
        Admission::Resume { wait } | Admission::Replace { wait } => (true, wait),
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
    /// The fault of this job or an earlier one, which [`StoreError::Refused`] tells by its number; nothing is enqueued
    /// then.
    pub async fn push(&mut self, job: &NewJob<'_>) -> Result<(), StoreError> {
        self.pushed += 1;
        if self.compares {
            self.line_bytes += job.request.len() + job.metadata.map_or(0, str::len) + LINE_COST;
            self.lines.push(CopyLine::of(self.pushed, job));
            if self.line_bytes >= CHUNK_BYTES {
                self.send_lines().await?;
            }
        } else if let Some(key) = job.idempotency_key {
            self.form.push_keyed(&mut self.keyed, self.pushed, key, job);
            if self.keyed.jobs.len() >= CHUNK_BYTES {
                let chunk = std::mem::take(&mut self.keyed);
                self.send(Chunk::Keyed(chunk)).await?;
            }
        } else {
            self.form.push_row(&mut self.rows, self.pushed, job);
            if self.rows.jobs.bytes() >= CHUNK_BYTES {
                let room = JobRows::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
                let chunk = std::mem::replace(&mut self.rows, room);
                self.send(Chunk::Rows(chunk)).await?;
            }
        }
        Ok(())
    }

    /// Gives the batch a budget that counts once, with the commit.
    pub fn set_budget(&mut self, limit: NanoUsd) {
        self.budget = limit;
    }

    /// Makes all jobs visible at once; returns how many there are.
    ///
    /// # Errors
    /// The fault; nothing is enqueued then. When the connection breaks during the commit itself, the server is asked
    /// for the result. It stays unknown only if the server cannot be reached for longer than a minute.
    pub async fn commit(self) -> Result<Enqueued, StoreError> {
        self.commit_with(None).await
    }

    /// The same, and the batch gets a stop-loss, but for what it keeps of one that it has.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit).
    pub async fn commit_with(self, stop_loss: Option<(StopLoss, StopLossKept)>) -> Result<Enqueued, StoreError> {
        self.commit_unless(Unless::Never, stop_loss).await
    }

    /// The same, and the tick that it was for is dealt with, by the same commit.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit).
    pub async fn commit_tick(mut self, tick: TickNote, stop_loss: StopLoss) -> Result<Enqueued, StoreError> {
        self.send(Chunk::Tick(tick)).await?;
        let keep = StopLossKept { max_failed: true, max_wasted: true };
        self.commit_with(Some((stop_loss, keep)).filter(|_| !stop_loss.is_empty())).await
    }

    /// The same, if the batch has every job as it came. Otherwise nothing is enqueued, and the result says how many
    /// jobs would have been.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit).
    pub async fn commit_if_known(self, stop_loss: Option<(StopLoss, StopLossKept)>) -> Result<Enqueued, StoreError> {
        self.commit_unless(Unless::Other, stop_loss).await
    }

    async fn commit_unless(
        mut self,
        unless: Unless,
        stop_loss: Option<(StopLoss, StopLossKept)>,
    ) -> Result<Enqueued, StoreError> {
        if !self.lines.is_empty() {
            self.send_lines().await?;
        }
        let rows = std::mem::replace(&mut self.rows, JobRows::with_capacity(0));
        if !rows.is_empty() {
            self.send(Chunk::Rows(rows)).await?;
        }
        let keyed = std::mem::take(&mut self.keyed);
        if !keyed.is_empty() {
            self.send(Chunk::Keyed(keyed)).await?;
        }
        // At the end, because no call is opened or booked until the commit.
        if self.budget > NanoUsd::ZERO {
            self.send(Chunk::Budget(self.budget)).await?;
        }
        // At the end, because the row is locked until the commit, and workers note failures in it.
        if let Some((losses, keep)) = stop_loss {
            self.send(Chunk::StopLoss(losses, keep)).await?;
        }
        self.send(Chunk::Commit(unless)).await?;
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
