//! The transaction of a bulk enqueue: it writes the jobs as they come, and says which one the server refuses.

use super::super::database::{Database, Transaction};
use super::super::schedule::{self, TickNote};
use super::super::stop_loss::StopLossKept;
use super::super::{Doing, StoreError, budget, in_words, stop_loss};
use super::presence::{Match, Presence};
use super::rows::{Form, JobRows, KeyedJobs};
use super::{BulkOptions, ENQUEUEING, Enqueued, LOOKING, NewJob};
use crate::domain::budget::Budget;
use crate::domain::{NanoUsd, StopLoss};
use sqlx::postgres::PgDatabaseError;
use tokio::sync::mpsc;

const GIVING_UP: &str = "giving up an enqueue";

/// Jobs on their way to the server.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Rows of COPY.
    Rows(JobRows),
    /// Jobs with a key: the JSON array that `sluice.enqueue_many` takes, without its end.
    Keyed(KeyedJobs),
    /// Jobs that have to be compared first.
    Lines(Vec<CopyLine>),
    /// The stop-loss of the batch, and what of one that it has stays.
    StopLoss(StopLoss, StopLossKept),
    /// What the batch may cost.
    Budget(NanoUsd),
    /// The tick of a schedule that the jobs are for.
    Tick(TickNote),
    /// There is no more.
    Commit(Unless),
}

/// When not to commit after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unless {
    /// It is committed, regardless of the jobs that came.
    Never,
    /// A job came that the batch does not have as it is.
    Other,
}

/// A job that owns its texts.
#[derive(Debug)]
pub(super) struct CopyLine {
    number: u64,
    custom_id: Option<String>,
    idempotency_key: Option<String>,
    metadata: Option<String>,
    request: String,
}

impl CopyLine {
    pub(super) fn of(number: u64, job: &NewJob<'_>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            number,
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

/// The other end of a [`BulkEnqueue`](super::BulkEnqueue): a transaction, and its result so far.
pub(super) struct Writing {
    pub(super) transaction: Transaction,
    pub(super) form: Form,
    pub(super) options: BulkOptions,
    pub(super) presence: Presence,
    pub(super) sum: Enqueued,
    pub(super) tick: Option<TickNote>,
}

impl Writing {
    /// Writes chunks until there are no more. `None`: they ended without [`Chunk::Commit`].
    pub(super) async fn take_all(&mut self, mut chunks: mpsc::Receiver<Chunk>) -> Result<Option<Unless>, StoreError> {
        // Each job of this transaction has a higher number.
        let last_before = sqlx::query_scalar!(
            r#"select case when s.is_called then s.last_value else s.last_value - 1 end as "last!"
                 from sluice.job_id_seq s"#
        )
        .fetch_one(&mut self.transaction)
        .await
        .doing(ENQUEUEING)?;
        while let Some(chunk) = chunks.recv().await {
            match chunk {
                Chunk::Rows(rows) => self.copy(rows).await?,
                Chunk::Keyed(jobs) => self.enqueue_many(jobs).await?,
                Chunk::Lines(lines) => self.take_new(lines).await?,
                Chunk::StopLoss(losses, keep) => {
                    let batch = self.options.batch.as_deref().unwrap_or_default();
                    stop_loss::set(&mut self.transaction, batch, losses, keep).await?;
                }
                Chunk::Budget(limit) => {
                    let batch = self.options.batch.as_deref().unwrap_or_default();
                    budget::set(&mut self.transaction, &Budget::of_batch(batch, limit), None).await?;
                }
                Chunk::Tick(tick) => self.tick = Some(tick),
                Chunk::Commit(unless) => {
                    if unless == Unless::Never {
                        self.note(last_before).await?;
                        self.finish_tick().await?;
                    }
                    return Ok(Some(unless));
                }
            }
        }
        Ok(None)
    }

    /// Gives the new jobs their number.
    async fn note(&mut self, last_before: i64) -> Result<(), StoreError> {
        let Some(batch) = self.options.batch.as_deref().filter(|_| self.sum.jobs > 0) else { return Ok(()) };
        let jobs = i64::try_from(self.sum.jobs).unwrap_or(i64::MAX);
        let number = sqlx::query_scalar!("select sluice.note_enqueue($1, $2, $3)", batch, last_before, jobs)
            .fetch_one(&mut self.transaction)
            .await
            .doing(ENQUEUEING)?;
        self.sum.number = number;
        Ok(())
    }

    /// Last, because the row of the schedule is locked from here to the commit.
    async fn finish_tick(&mut self) -> Result<(), StoreError> {
        let Some(tick) = &self.tick else { return Ok(()) };
        let jobs = i64::try_from(self.sum.jobs).unwrap_or(i64::MAX);
        let batch = self.options.batch.as_deref().unwrap_or_default();
        schedule::finish(&mut self.transaction, tick, batch, jobs, self.sum.number, None).await
    }

    pub(super) async fn end(self, commit: Option<Unless>, database: &Database) -> Result<Enqueued, StoreError> {
        let is_other = self.sum.jobs > 0 || self.sum.changed.is_some();
        match commit {
            Some(Unless::Never) => {}
            Some(Unless::Other) if !is_other => {}
            Some(Unless::Other) => {
                self.transaction.rollback().await.doing(GIVING_UP)?;
                return Ok(Enqueued { is_given_up: true, ..self.sum });
            }
            None => {
                self.transaction.rollback().await.doing(GIVING_UP)?;
                return Ok(Enqueued::default());
            }
        }
        self.transaction.commit_for_sure(database).await.doing(ENQUEUEING)?;
        Ok(self.sum)
    }

    async fn copy(&mut self, JobRows { jobs, numbers }: JobRows) -> Result<(), StoreError> {
        self.sum.jobs += jobs.write(&mut self.transaction).await.map_err(|error| refused(error, &numbers))?;
        Ok(())
    }

    async fn enqueue_many(&mut self, KeyedJobs { mut jobs, numbers }: KeyedJobs) -> Result<(), StoreError> {
        jobs.push(']');
        let (added, existing) = enqueue_many(&mut self.transaction, &jobs, &self.options)
            .await
            .map_err(|error| refused(error, &numbers))?;
        self.sum.jobs += added;
        self.sum.existing += existing;
        Ok(())
    }

    /// Adds the lines that the batch does not have, in the order in which they came.
    async fn take_new(&mut self, lines: Vec<CopyLine>) -> Result<(), StoreError> {
        let mut digests = self.digests(&lines).await?.into_iter();
        let (mut rows, mut keyed) = (JobRows::with_capacity(0), KeyedJobs::default());
        for line in &lines {
            let digest = if self.presence.compares_content(line.custom_id.as_deref()) { digests.next() } else { None };
            match self.presence.look_up(line.custom_id.as_deref(), digest.as_deref()) {
                Match::New => match &line.idempotency_key {
                    Some(key) => self.form.push_keyed(&mut keyed, line.number, key, &line.job()),
                    None => self.form.push_row(&mut rows, line.number, &line.job()),
                },
                Match::Same => self.sum.existing += 1,
                Match::Changed => {
                    self.sum.existing += 1;
                    self.sum.changed = self.sum.changed.take().or_else(|| line.custom_id.clone());
                }
            }
        }
        if !rows.is_empty() {
            self.copy(rows).await?;
        }
        if !keyed.is_empty() {
            self.enqueue_many(keyed).await?;
        }
        Ok(())
    }

    /// The digests of those lines whose content is compared, in order. The server computes them: it knows how it would
    /// store the line.
    async fn digests(&mut self, lines: &[CopyLine]) -> Result<Vec<Vec<u8>>, StoreError> {
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

/// The error of a statement that carried the jobs of these numbers, with the number of the job at fault, if one is.
fn refused(source: sqlx::Error, numbers: &[u64]) -> StoreError {
    let error = StoreError::Sql { doing: ENQUEUEING, source };
    let place = match &error {
        StoreError::Sql { source: sqlx::Error::Database(told), .. } if error.is_the_rows_fault() => {
            told.try_downcast_ref::<PgDatabaseError>().and_then(|told| match numbers {
                [_] => Some(0),
                _ => place_in_words(told.message(), told.detail(), told.r#where()),
            })
        }
        _ => None,
    };
    match (place.and_then(|place| numbers.get(place)), &error) {
        (Some(job), StoreError::Sql { source, .. }) => {
            StoreError::Refused { job: *job, reason: without_place(&in_words(source)).to_owned() }
        }
        _ => error,
    }
}

/// The same words without the place in the array, which the caller of a bulk enqueue does not know.
fn without_place(words: &str) -> &str {
    let rest = words.strip_prefix("jobs[").and_then(|rest| rest.split_once(']')).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.strip_prefix('.').or_else(|| rest.strip_prefix(": "))).unwrap_or(words)
}

/// The place of the job at fault in its statement, from 0. The schema says it in the message (of `enqueue_many`) or in
/// the detail (of COPY). Where the server itself cannot read a row of COPY, it says its line in the context. The words
/// of that may be in any language, but the number follows the name of the table.
fn place_in_words(message: &str, detail: Option<&str>, context: Option<&str>) -> Option<usize> {
    let number = |text: &str| {
        let digits: String =
            text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    };
    let of_array = message.strip_prefix("jobs[").and_then(number);
    let of_statement = || detail.and_then(|detail| detail.strip_prefix("Row ")).and_then(number)?.checked_sub(1);
    let of_copy = || {
        let line = context?.lines().find_map(|line| line.strip_prefix("COPY job, "))?;
        number(line)?.checked_sub(1)
    };
    of_array.or_else(of_statement).or_else(of_copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_job_is_read_from_what_the_server_says() {
        let row = Some("Row 3 of 200 of the statement, in the order of job numbers.");
        for (message, detail, context, expected) in [
            ("jobs[17].request: is larger than 32 MB", None, None, Some(17)),
            ("jobs[0]: may not enqueue", None, None, Some(0)),
            ("request: is larger than 32 MB", row, None, Some(2)),
            (
                "invalid input syntax",
                Some("Token 12"),
                Some("JSON data, line 1: a\nCOPY job, line 5, column x"),
                Some(4),
            ),
            ("ungültig", None, Some("COPY job, Zeile 6, Spalte request: »5«"), Some(5)),
            ("jobs[", None, Some("COPY other, line 5"), None),
            ("nothing is known", Some("Row 0 of"), None, None),
        ] {
            assert_eq!(place_in_words(message, detail, context), expected, "{message}");
        }
    }

    #[test]
    fn the_place_in_an_array_is_left_out() {
        for (words, expected) in [
            ("jobs[17].request: is larger than 32 MB", "request: is larger than 32 MB"),
            ("jobs[0]: app may not enqueue", "app may not enqueue"),
            ("batch: is 201 bytes long", "batch: is 201 bytes long"),
            ("jobs[0", "jobs[0"),
        ] {
            assert_eq!(without_place(words), expected);
        }
    }
}
