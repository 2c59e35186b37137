//! Outcomes settled lately. They are written again to a database that has lost its last commits, as an asynchronous
//! standby may have when it takes over.

use super::outcome_batch::OutcomeBatch;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Older outcomes are forgotten: a standby that is further behind is not one to promote.
const KEEP_FOR: Duration = Duration::from_mins(1);
/// Bytes of outcomes that are remembered, roughly.
const KEEP_BYTES: usize = 16 << 20;

/// Outcomes that were committed, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: Mutex<CountedBatches>,
}

#[derive(Debug, Default)]
struct CountedBatches {
    batches: VecDeque<Batch>,
    bytes: usize,
}

#[derive(Debug)]
struct Batch {
    at: Instant,
    bytes: usize,
    outcomes: Arc<OutcomeBatch>,
}

impl CountedBatches {
    fn forget(&mut self, now: Instant) {
        while self
            .batches
            .front()
            .is_some_and(|batch| self.bytes > KEEP_BYTES || now.duration_since(batch.at) > KEEP_FOR)
        {
            self.bytes -= self.batches.pop_front().map_or(0, |batch| batch.bytes);
        }
    }
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, CountedBatches> {
        self.kept.lock()
    }

    /// Remembers these outcomes, which were committed.
    pub fn remember(&self, outcomes: Arc<OutcomeBatch>) {
        let (now, bytes) = (Instant::now(), outcomes.bytes());
        let mut kept = self.kept();
        kept.bytes += bytes;
        kept.batches.push_back(Batch { at: now, bytes, outcomes });
        kept.forget(now);
    }

    /// The oldest batch, to be written again.
    pub fn take_first(&self) -> Option<Arc<OutcomeBatch>> {
        let mut kept = self.kept();
        kept.forget(Instant::now());
        let first = kept.batches.pop_front()?;
        kept.bytes -= first.bytes;
        drop(kept);
        Some(first.outcomes)
    }

    /// The number of batches.
    pub fn batches(&self) -> usize {
        self.kept().batches.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{JobId, NanoUsd};
    use crate::store::claim::Lease;
    use crate::store::settle::{EndingRow, Labels};
    use crate::worker::settler::{Item, Then};

    fn answer(job: i64, bytes: usize) -> Item {
        let (route, project) = ("default".to_owned(), "default".to_owned());
        let labels = Labels { route, project, batch: None, login: String::new() };
        let row = EndingRow {
            lease: Lease { job: JobId(job), fence: job, born: 0 },
            round: 0,
            labels: Arc::new(labels),
            attempts: 1,
            target: None,
            rung: None,
            after_fallback: false,
            repaired: false,
            confidence: None,
            unsure: None,
            shadow: None,
            failure: None,
            cost: Some(NanoUsd::ZERO),
            uncertain: NanoUsd::ZERO,
            input_tokens: 0,
            output_tokens: 0,
            request_id: None,
            response: Some("x".repeat(bytes)),
            raced: false,
            cache: None,
        };
        Item::of_no_call(Then::End(Box::new(row)), Vec::new())
    }

    fn together(items: Vec<Item>) -> Arc<OutcomeBatch> {
        Arc::new(OutcomeBatch::of(items))
    }

    fn jobs(recent: &Recent) -> Vec<i64> {
        let taken = std::iter::from_fn(|| recent.take_first());
        taken.flat_map(|batch| batch.fences().collect::<Vec<_>>()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_outcomes_are_kept_in_order_and_within_bounds() {
        let recent = Recent::default();
        recent.remember(together(vec![answer(1, 10)]));
        tokio::time::advance(KEEP_FOR / 2).await;
        recent.remember(together(vec![answer(2, 10), answer(3, 10)]));
        recent.remember(together(vec![answer(4, 10)]));
        assert_eq!(recent.batches(), 3);
        tokio::time::advance(KEEP_FOR / 2 + Duration::from_secs(1)).await;
        assert_eq!(jobs(&recent), [2, 3, 4], "the first was too long ago");
        for job in 1..=5 {
            recent.remember(together(vec![answer(job, KEEP_BYTES / 3)]));
        }
        assert_eq!(jobs(&recent), [4, 5], "there is no room for more");
        recent.remember(together(vec![answer(6, KEEP_BYTES)]));
        assert_eq!((jobs(&recent), recent.batches()), (vec![], 0));
    }
}
