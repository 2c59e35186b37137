//! The changes that a command has made.

use super::table::{Cell, Table};
use crate::domain::counted::counted;
use crate::domain::{MaxFailed, StopLoss};
use crate::store::selection::Deed;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// A thing was paused or resumed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PauseChangeView {
    /// `route`, `project`, `batch` or `provider`.
    pub kind: &'static str,
    pub name: String,
    /// Whether it is paused now.
    pub paused: bool,
    /// Whether this differs from before.
    pub changed: bool,
}

impl fmt::Display for PauseChangeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = match (self.paused, self.changed) {
            (true, true) => "is paused",
            (true, false) => "was paused already",
            (false, true) => "goes on",
            (false, false) => "was not paused",
        };
        write!(f, "{} {} {now}", self.kind, self.name)
    }
}

/// The queue was written into a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ExportedView {
    pub file: String,
    /// How large it is.
    pub bytes: u64,
}

impl fmt::Display for ExportedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has the whole queue: {}", self.file, counted(self.bytes, "byte", "bytes"))
    }
}

/// A queue was brought in from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ImportedView {
    pub jobs: i64,
    /// The version of the schema in the file.
    pub from: i64,
    /// Its version now.
    pub to: i64,
}

impl fmt::Display for ImportedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "imported {}", counted(self.jobs, "job", "jobs"))?;
        if self.from < self.to {
            write!(f, ", and migrated from version {} to {}", self.from, self.to)?;
        }
        Ok(())
    }
}

/// A job was to be changed. As JSON: `{"job": 7, "outcome": "cancelled"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct JobChangeView {
    pub job: i64,
    pub outcome: JobOutcome,
}

/// The outcome of the wish to change a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    Cancelled,
    /// It had ended, so it could not be cancelled.
    HadEnded,
    QueuedAgain,
    /// So it could not be tried again.
    HasNotFailed,
    Paused,
    /// It has ended or was paused already.
    NotPaused,
    Resumed,
    WasNotPaused,
    /// It goes along another route.
    Moved,
    /// It has another priority.
    Reprioritized,
    /// It has ended, or is there already.
    NotMoved,
}

impl JobOutcome {
    /// The outcome; `is_changed`: whether the job's state allowed it.
    #[must_use]
    pub const fn of(deed: &Deed, is_changed: bool) -> Self {
        match (deed, is_changed) {
            (Deed::Cancel, true) => Self::Cancelled,
            (Deed::Cancel, false) => Self::HadEnded,
            (Deed::Retry, true) => Self::QueuedAgain,
            (Deed::Retry, false) => Self::HasNotFailed,
            (Deed::Pause { .. }, true) => Self::Paused,
            (Deed::Pause { .. }, false) => Self::NotPaused,
            (Deed::Resume, true) => Self::Resumed,
            (Deed::Resume, false) => Self::WasNotPaused,
            (Deed::Move { .. }, true) => Self::Moved,
            (Deed::Priority(_), true) => Self::Reprioritized,
            (Deed::Move { .. } | Deed::Priority(_), false) => Self::NotMoved,
        }
    }
}

impl fmt::Display for JobOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::HadEnded => "had ended already",
            Self::QueuedAgain => "queued again",
            Self::HasNotFailed => "has not failed",
            Self::Paused => "paused",
            Self::NotPaused => "has ended or was paused already",
            Self::Resumed => "goes on",
            Self::WasNotPaused => "was not paused",
            Self::Moved => "goes along the other route",
            Self::Reprioritized => "has the other priority",
            Self::NotMoved => "has ended, or was like that already",
        })
    }
}

/// Jobs that were chosen by how they stand were changed, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ChosenView {
    /// The action that was to be taken.
    pub action: &'static str,
    pub jobs: i64,
    /// Whether counting ended early.
    pub or_more: bool,
    /// Whether it was done.
    pub changed: bool,
}

impl fmt::Display for ChosenView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, jobs, or_more, changed } = *self;
        let jobs = counted(jobs, "job", "jobs");
        let more = if or_more { " or more" } else { "" };
        if changed {
            write!(f, "{action}: {jobs} changed")
        } else {
            write!(f, "{action}: {jobs}{more} would be changed")
        }
    }
}

/// A batch got a stop-loss, or lost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopLossView<'a> {
    pub batch: &'a str,
    /// What it may lose now.
    pub stop_loss: StopLoss,
    /// Whether anything was set or removed.
    pub changed: bool,
}

impl Serialize for StopLossView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let share = |share: Option<MaxFailed>| share.map(|share| f64::from(share.millionths()) / 1e6);
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("batch", self.batch)?;
        map.serialize_entry("max_failed", &share(self.stop_loss.max_failed))?;
        map.serialize_entry("max_wasted", &share(self.stop_loss.max_wasted))?;
        map.serialize_entry("changed", &self.changed)?;
        map.end()
    }
}

impl fmt::Display for StopLossView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, stop_loss: StopLoss { max_failed, max_wasted }, changed } = *self;
        let wasted = max_wasted.map(|share| format!("more than {} of its money brings no answer", share.percent()));
        match (max_failed.filter(|share| !share.is_whole()), wasted) {
            (Some(share), None) => {
                write!(f, "batch {batch} pauses when more than {} of its jobs fails", share.percent())
            }
            (None, Some(wasted)) => write!(f, "batch {batch} pauses when {wasted}"),
            (Some(share), Some(wasted)) => {
                write!(f, "batch {batch} pauses when more than {} of its jobs fails, or {wasted}", share.percent())
            }
            (None, None) if max_failed.is_some() => {
                write!(f, "batch {batch} does not pause, however many of its jobs fail")
            }
            (None, None) if changed => write!(f, "batch {batch} has no stop-loss any more"),
            (None, None) => write!(f, "batch {batch} had no stop-loss"),
        }
    }
}

/// Waits that a provider asked for were ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReopenedView {
    /// Always `provider`.
    pub kind: &'static str,
    pub name: String,
    /// The buckets that were shut.
    pub opened: Vec<String>,
    /// Jobs that waited for it.
    pub woken: u64,
}

impl fmt::Display for ReopenedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, woken, .. } = self;
        if self.opened.is_empty() {
            write!(f, "provider {name}: its keys, models and breakers are tried again within ten seconds")?;
        } else {
            write!(f, "provider {name} is open again")?;
        }
        // Jobs that wait for another reason, or in a worker's hands, are not among them, so none says nothing of them.
        if *woken == 0 {
            return Ok(());
        }
        write!(f, "; {} woken", counted(woken, "waiting job is", "waiting jobs are"))
    }
}

/// Many jobs were changed together. As JSON: `{"batch": "nightly", "cancelled": 7}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkView<'a> {
    /// `batch` or `route`.
    pub of: &'static str,
    /// The name of that batch or route.
    pub name: &'a str,
    /// `cancelled` or `queued_again`.
    pub what: &'static str,
    /// How many jobs were changed.
    pub jobs: i64,
}

impl Serialize for BulkView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry(self.of, self.name)?;
        map.serialize_entry(self.what, &self.jobs)?;
        map.end()
    }
}

impl fmt::Display for BulkView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = counted(self.jobs, "job", "jobs");
        write!(f, "{} {}: {jobs} {}", self.of, self.name, self.what.replace('_', " "))
    }
}

/// What an enqueue had added was cancelled. As JSON: `{"batch": "nightly", "enqueue": 3, "cancelled": 7, "begun": 2}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CancelledEnqueueView<'a> {
    pub batch: &'a str,
    /// The number of the enqueue.
    pub enqueue: i64,
    /// How many jobs were cancelled.
    pub cancelled: i64,
    /// How many a worker has begun, so that they go on.
    pub begun: i64,
}

impl fmt::Display for CancelledEnqueueView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, enqueue, cancelled, begun } = self;
        write!(f, "batch {batch}, enqueue {enqueue}: {} cancelled", counted(cancelled, "job", "jobs"))?;
        if *begun > 0 {
            write!(f, "; {}", counted(begun, "job has begun and goes on", "jobs have begun and go on"))?;
        }
        Ok(())
    }
}

/// Jobs of a file were enqueued, or with `--dry-run` would have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EnqueuedView<'a> {
    /// The name of their batch.
    pub batch: &'a str,
    /// How many jobs.
    pub jobs: u64,
    /// Jobs that were left out because the queue had them already.
    pub existing: u64,
    /// Faulty lines that were left out.
    pub faulty: u64,
    /// The number under which the added jobs can be cancelled; `None`: nothing was added.
    pub enqueue: Option<i64>,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Members that are sent although no provider is known to take them, and how many lines have each.
    pub unknown_members: &'a BTreeMap<String, u64>,
}

impl EnqueuedView<'_> {
    /// The same as a row for programs that read lines.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new(["batch", "jobs", "existing", "faulty", "enqueue"]);
        let number = self.enqueue.map_or(Cell::Empty, Cell::Id);
        table.row([self.batch.into(), self.jobs.into(), self.existing.into(), self.faulty.into(), number]);
        table
    }
}

/// The schema was migrated, or with `--dry-run` would have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MigratedView<'a> {
    /// The version that was found.
    pub from: i64,
    /// The version that it has now, or would have.
    pub to: i64,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Whether anything was done.
    pub changed: bool,
    /// Roles that the queue's rights belong to and that are not there.
    pub missing_roles: &'a [String],
    /// The rights that each role lacks.
    pub missing_rights: &'a BTreeMap<String, Vec<String>>,
}
