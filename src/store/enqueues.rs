//! Enqueues by command: each has a number, under which what it added is cancelled.

use super::{Doing, Store, StoreError};
use chrono::{DateTime, Utc};

/// How often a step that met another transaction's locks is tried before that is an error.
const TRIES: u32 = 5;

/// What one command added to a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnqueueRecord {
    pub number: i64,
    pub batch: String,
    pub enqueued_by: String,
    /// When its transaction began.
    pub enqueued_at: DateTime<Utc>,
    /// How many jobs it added.
    pub jobs: i64,
}

/// What cancelling an enqueue has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CancelledEnqueue {
    /// Jobs that are cancelled now.
    pub cancelled: i64,
    /// Jobs that a worker has begun, and that go on.
    pub begun: i64,
}

impl Store {
    /// The enqueues of a batch that this login may see, the latest first.
    pub async fn enqueues(&self, batch: &str, limit: i64) -> Result<Vec<EnqueueRecord>, StoreError> {
        sqlx::query_as!(
            EnqueueRecord,
            r#"select number as "number!", batch as "batch!", enqueued_by as "enqueued_by!",
                      enqueued_at as "enqueued_at!", jobs as "jobs!"
                 from sluice.enqueues where batch = $1 order by number desc limit $2"#,
            batch,
            limit
        )
        .fetch_all(&self.db)
        .await
        .doing("reading enqueues")
    }

    /// One enqueue; `None`: there is none of this number that this login may see.
    pub async fn enqueue_of(&self, number: i64) -> Result<Option<EnqueueRecord>, StoreError> {
        sqlx::query_as!(
            EnqueueRecord,
            r#"select number as "number!", batch as "batch!", enqueued_by as "enqueued_by!",
                      enqueued_at as "enqueued_at!", jobs as "jobs!"
                 from sluice.enqueues where number = $1"#,
            number
        )
        .fetch_optional(&self.db)
        .await
        .doing("reading enqueues")
    }

    /// Cancels the jobs of an enqueue that no worker has begun, a thousand at a time. `progress` gets the number of
    /// each step.
    pub async fn cancel_enqueue(
        &self,
        number: i64,
        mut progress: impl FnMut(i64),
    ) -> Result<CancelledEnqueue, StoreError> {
        let mut sum = CancelledEnqueue::default();
        // A job that moves between two tables at the first look waits at the second, or has begun.
        for _ in 0..2 {
            sum.begun = 0;
            let mut after = 0;
            loop {
                let step = self.cancel_step(number, after).await?;
                sum.cancelled += step.0;
                sum.begun += step.1;
                let Some(last) = step.2 else { break };
                after = last;
                progress(sum.cancelled);
            }
        }
        Ok(sum)
    }

    /// How many were cancelled, how many have begun, and the last number that was looked at.
    async fn cancel_step(&self, number: i64, after: i64) -> Result<(i64, i64, Option<i64>), StoreError> {
        let mut tries = 0;
        loop {
            let step = sqlx::query!(
                r#"select cancelled as "cancelled!", begun as "begun!", last from sluice.cancel_enqueued($1, $2)"#,
                number,
                after
            )
            .fetch_one(&self.db)
            .await
            .doing("cancelling the enqueue");
            match step {
                // A worker settles the same jobs in another order, so one of the two had to yield.
                Err(error) if error.is_transient() && tries < TRIES => tries += 1,
                step => return step.map(|step| (step.cancelled, step.begun, step.last)),
            }
        }
    }
}
