//! A batch and its progress.

use super::dollars::Dollars;
use super::table::{Cell, Layout, Table};
use super::waits::{LongCallsView, WhyView};
use crate::domain::PerAnswer;
use crate::domain::counted::counted;
use crate::domain::long_calls::LongCalls;
use crate::domain::obstacle::Obstacle;
use crate::store::batch::{Batch, ListedJob};
use crate::store::enqueues::EnqueueRecord;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::time::Duration;

/// A batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BatchView {
    pub batch: String,
    /// Jobs enqueued.
    pub jobs: i64,
    /// Jobs that have ended, in any way.
    pub done: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
    /// Jobs that have not ended.
    pub unfinished: i64,
    /// Calls made.
    pub attempts: i64,
    /// The cost; `None`: no attempt has a known price.
    pub cost: Option<Dollars>,
    /// The part of the cost that bought nothing.
    pub waste: Option<Dollars>,
    /// Money that may have been spent beside it.
    pub uncertain_cost: Dollars,
    /// Attempts whose price is unknown.
    pub unpriced_attempts: i64,
    /// Dollars per accepted answer; `None`: a price is unknown, or no job has succeeded.
    pub cost_per_answer: Option<Dollars>,
    pub paused: bool,
    /// Why it is paused, if a reason was given.
    pub pause_reason: Option<String>,
    /// The share of ended jobs that may fail before it is paused, if it has a stop-loss.
    pub max_failed: Option<f64>,
    /// The share of its cost that may bring no accepted answer before it is paused, if it has one.
    pub max_wasted: Option<f64>,
    /// The hour of its first job.
    pub first_hour: DateTime<Utc>,
    /// The hour in which something happened last.
    pub last_hour: DateTime<Utc>,
}

impl BatchView {
    /// A batch as it was read.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        Self {
            batch: batch.name.clone(),
            jobs: batch.jobs,
            done: batch.done(),
            succeeded: batch.succeeded,
            failed: batch.failed,
            cancelled: batch.cancelled,
            unfinished: batch.unfinished(),
            attempts: batch.attempts,
            cost: batch.known_cost().map(Dollars),
            waste: batch.known_cost().map(|_| Dollars(batch.waste)),
            uncertain_cost: Dollars(batch.uncertain),
            unpriced_attempts: batch.unpriced,
            cost_per_answer: batch.spent().per_answer().amount().map(Dollars),
            paused: batch.paused,
            pause_reason: batch.pause_reason.clone(),
            max_failed: batch.max_failed.map(|share| f64::from(share.millionths()) / 1e6),
            max_wasted: batch.max_wasted.map(|share| f64::from(share.millionths()) / 1e6),
            first_hour: batch.first_hour,
            last_hour: batch.last_hour,
        }
    }

    /// The cost so far, in words that mention an unknown part.
    #[must_use]
    pub fn dollars(&self) -> String {
        match (self.cost, self.unpriced_attempts) {
            (Some(Dollars(cost)), 0) => cost.to_string(),
            (Some(Dollars(cost)), unpriced) => {
                format!("{cost} and {} of unknown price", counted(unpriced, "attempt", "attempts"))
            }
            (None, _) => "cost unknown".to_owned(),
        }
    }
}

/// Jobs of a batch, and how they stand.
#[must_use]
pub fn jobs_table(jobs: &[ListedJob]) -> Table {
    let mut table = Table::new(["job", "custom_id", "state", "attempts", "cost", "error_class", "error"]);
    for job in jobs {
        table.row([
            Cell::Id(job.job),
            job.custom_id.as_deref().into(),
            job.state.as_str().into(),
            job.attempts.map(i64::from).into(),
            match (job.cost, job.attempts) {
                (Some(cost), _) => cost.into(),
                (None, Some(_)) => Cell::UnknownMoney,
                (None, None) => Cell::Empty,
            },
            job.error_class.as_deref().into(),
            job.error.as_deref().into(),
        ]);
    }
    table
}

/// The enqueues by command of a batch.
#[must_use]
pub fn enqueues_table(enqueues: &[EnqueueRecord]) -> Table {
    let mut table = Table::new(["enqueue", "jobs", "enqueued_at", "enqueued_by"]);
    for enqueue in enqueues {
        table.row([
            Cell::Id(enqueue.number),
            enqueue.jobs.into(),
            enqueue.enqueued_at.into(),
            enqueue.enqueued_by.as_str().into(),
        ]);
    }
    table
}

/// What an accepted answer of a batch has cost, in words; `None`: none was accepted.
#[must_use]
pub fn per_answer_in_words(batch: &Batch) -> Option<String> {
    match batch.spent().per_answer() {
        PerAnswer::NoAnswer => None,
        PerAnswer::Unknown => Some("cost per answer unknown".to_owned()),
        PerAnswer::Exactly(each) => Some(format!("{each} per answer")),
        PerAnswer::AtLeast(each) => Some(format!("at least {each} per answer")),
    }
}

/// A batch, and why it does not go on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldBatchView {
    #[serde(flatten)]
    pub batch: BatchView,
    /// What all its unfinished jobs wait for; `None`: nothing is known to be in their way.
    pub why: Option<WhyView>,
    /// Its calls that have had no answer for a minute or longer.
    pub long_calls: Option<LongCallsView>,
}

impl HeldBatchView {
    /// A batch, the reason why all its jobs wait, and its calls that have been under way for long.
    #[must_use]
    pub fn of(batch: &Batch, obstacle: Option<&Obstacle>, long_calls: Option<&LongCalls>) -> Self {
        Self {
            batch: BatchView::of(batch),
            why: obstacle.map(|obstacle| WhyView::of(obstacle, None)),
            long_calls: long_calls.map(LongCallsView::from),
        }
    }
}

/// A batch that is being worked on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProgressView {
    #[serde(flatten)]
    pub batch: BatchView,
    /// Of the cancelled jobs those whose place another file took; `None`: not all jobs have ended.
    pub replaced: Option<i64>,
    /// Jobs that end per second.
    pub per_second: f64,
    /// Seconds until the rest is done at this pace; `None`: unknown.
    pub seconds_left: Option<u64>,
    /// The reason why none of its jobs go on, in words.
    pub idle: Option<String>,
    /// The same reason, as `sluice.jobs.waits_for` has it.
    pub waits_for: Option<String>,
    /// The same reason, with all that is known of it.
    pub why: Option<WhyView>,
    /// Its calls that have had no answer for a minute or longer, while no job ends.
    pub long_calls: Option<LongCallsView>,
}

impl ProgressView {
    /// A batch as it was read, its pace, and the reason why all its jobs wait.
    #[must_use]
    pub fn of(batch: &Batch, per_second: f64, left: Option<Duration>, obstacle: Option<&Obstacle>) -> Self {
        Self {
            batch: BatchView::of(batch),
            replaced: None,
            per_second,
            seconds_left: left.map(|left| left.as_secs()),
            idle: obstacle.map(Obstacle::in_words),
            waits_for: obstacle.map(|obstacle| obstacle.code.clone()),
            why: obstacle.map(|obstacle| WhyView::of(obstacle, None)),
            long_calls: None,
        }
    }
}

/// A table of batches, one row each.
#[must_use]
pub fn table(batches: &[Batch]) -> Table {
    let mut table = Table::new([
        "batch",
        "jobs",
        "succeeded",
        "failed",
        "cancelled",
        "unfinished",
        "attempts",
        "cost",
        "waste",
        "unpriced",
        "paused",
        "last_hour",
        "max_failed",
        "max_wasted",
        "pause_reason",
        "cost_per_answer",
        "uncertain",
    ])
    .laid_out(Layout {
        wide: &["attempts", "waste", "unpriced", "max_failed", "max_wasted", "pause_reason", "cost_per_answer"],
        when_told: &["cancelled", "paused", "uncertain"],
        give_way: &["last_hour", "uncertain", "cancelled", "cost", "unfinished", "paused", "succeeded"],
        prose: &["pause_reason"],
    });
    for (per_answer, batch) in batches.iter().map(|batch| (batch.spent().per_answer(), BatchView::of(batch))) {
        table.row([
            batch.batch.into(),
            batch.jobs.into(),
            batch.succeeded.into(),
            batch.failed.into(),
            batch.cancelled.into(),
            batch.unfinished.into(),
            batch.attempts.into(),
            batch.cost.into(),
            batch.waste.into(),
            batch.unpriced_attempts.into(),
            Cell::Flag(batch.paused),
            batch.last_hour.into(),
            batch.max_failed.map_or(Cell::Empty, Cell::Share),
            batch.max_wasted.map_or(Cell::Empty, Cell::Share),
            batch.pause_reason.into(),
            per_answer.into(),
            batch.uncertain_cost.into(),
        ]);
    }
    table
}
