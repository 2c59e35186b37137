//! The walk over all jobs by their numbers, the newest first, in stretches that one statement can look through.

use super::{Doing, Store, StoreError};
use std::time::{Duration, Instant};

/// A walk. Stretches in which no job has a number are left out.
pub(super) struct Stretches<'a> {
    store: &'a Store,
    /// How many numbers a stretch has.
    size: i64,
    /// The highest number that has not been walked over yet.
    last: i64,
}

/// How long a walk may take, and where it has come.
pub(super) struct WalkTime {
    began: Instant,
    /// Perhaps without end.
    lasts: Duration,
    /// The first number of the last stretch that was looked through.
    looked_from: Option<i64>,
}

/// Some numbers, both ends included.
#[derive(Clone, Copy)]
pub(super) struct IdRange {
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Store {
    /// Walks over the numbers up to `last`.
    pub(super) fn stretches(&self, last: i64, size: i64) -> Stretches<'_> {
        Stretches { store: self, size, last }
    }
}

impl Stretches<'_> {
    /// The next stretch; `None`: there are no more jobs.
    pub(super) async fn next(&mut self) -> Result<Option<IdRange>, StoreError> {
        let newest = sqlx::query_scalar!("select max(id) from sluice.job where id <= $1", self.last)
            .fetch_one(&self.store.db)
            .await
            .doing("looking for the newest job")?;
        let Some(last) = newest else { return Ok(None) };
        let first = last.saturating_sub(self.size - 1);
        self.last = first.saturating_sub(1);
        Ok(Some(IdRange { first, last }))
    }
}

impl WalkTime {
    /// Patience for a walk that begins now.
    pub(super) fn of(patience: Duration) -> Self {
        Self { began: Instant::now(), lasts: patience, looked_from: None }
    }

    /// Whether patience is over before this stretch. The first stretch is always looked through. Returns the number
    /// down to which the walk came.
    pub(super) fn is_over(&mut self, stretch: IdRange) -> Option<i64> {
        let over = self.looked_from.filter(|_| self.began.elapsed() >= self.lasts);
        self.looked_from = Some(stretch.first);
        over
    }
}
