//! Schedules: which ticks are due, what the worker does with each, and what a tick is called. The clock is an argument.

pub mod crontab;
mod due;
pub mod report;
mod zone;

pub use crontab::CronLine;
pub use due::{DueTick, LookAt, Passed, look, retry_at};
use report::{ReportGoesTo, TickReport};
pub use zone::Zone;

use super::counted::counted;
use super::template::{Given, Template, Unfilled, Values};
use super::{StopLoss, Timestamp};
use chrono::Timelike as _;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

/// What to do at a tick whose forerunner still has jobs that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Leave the tick out.
    #[default]
    Skip,
    /// Enqueue all the same.
    Allow,
}

impl Overlap {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Allow => "allow",
        }
    }
}

/// What to do with ticks that came while no worker looked at the schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// Leave them out.
    None,
    /// Make up for the last of them.
    #[default]
    Last,
    /// Make up for each of them, within bounds.
    All,
}

impl CatchUp {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Last => "last",
            Self::All => "all",
        }
    }
}

/// What a tick does: where its jobs come from, or the report that it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TickSource {
    /// A file in any form that `sluice enqueue` reads.
    File(PathBuf),
    /// A statement whose rows are the jobs.
    Sql(String),
    /// One job with this request, in JSON.
    Request(String),
    /// No jobs: a report of the time before it.
    Report(Box<TickReport>),
}

impl TickSource {
    /// The key of the configuration that names it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Sql(_) => "sql",
            Self::Request(_) => "request",
            Self::Report(_) => "report",
        }
    }
}

/// The question about each row of a table, as the options of `sluice enqueue` say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowQuestion {
    /// The question, with columns in braces.
    pub prompt: Option<Template>,
    /// Instructions before the question.
    pub system: Option<Template>,
    /// The column that names each job.
    pub id_column: Option<String>,
    /// The columns that are kept as metadata; `None`: all but that of the id.
    pub keep: Option<Vec<String>>,
}

/// A schedule as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// When it fires, in local time.
    pub line: CronLine,
    /// Whose local time that is.
    pub zone: Zone,
    /// Whether it fires at all.
    pub is_enabled: bool,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    /// A tick that is older is not made up for.
    pub catch_up_within: Duration,
    /// The most ticks that are made up for at once.
    pub catch_up_limit: usize,
    pub source: TickSource,
    pub question: RowQuestion,
    /// How long its statement may take.
    pub sql_timeout: Duration,
    /// The route of the jobs.
    pub route: String,
    /// The project that pays.
    pub project: String,
    /// The name of each tick's batch.
    pub batch: Template,
    /// Higher goes first. −1000 to 1000.
    pub priority: i16,
    /// No call later than this after the tick.
    pub deadline: Option<Duration>,
    /// Attempts for each job; `None`: the route decides.
    pub max_attempts: Option<i16>,
    /// The stop-loss of the batches.
    pub stop_loss: StopLoss,
}

/// The names that the name of a batch may have in braces.
pub const BATCH_NAMES: [&str; 5] = ["name", "tick", "date", "time", "month"];

/// The name of a batch unless the configuration has one.
pub const USUAL_BATCH: &str = "{name}-{tick}";

/// One tick, as its names say it.
struct Named<'a> {
    schedule: &'a Schedule,
    at: Timestamp,
    by_hand: bool,
}

impl Named<'_> {
    fn date(&self, form: &str) -> Option<String> {
        self.schedule.zone.local(self.at).map(|at| at.format(form).to_string())
    }

    /// The time of the day, and what tells it from the same time an hour later where that comes twice.
    fn time(&self) -> Option<String> {
        let local = self.schedule.zone.local(self.at)?;
        let seconds = if local.second() == 0 && !self.by_hand { "%H%M" } else { "%H%M%S" };
        let time = local.format(seconds).to_string();
        if self.schedule.zone.is_second_time(&local) {
            Some(format!("{time}{}", local.format("%z")))
        } else {
            Some(time)
        }
    }
}

impl Values for Named<'_> {
    fn value(&self, name: &str) -> Option<Given<'_>> {
        let text = match name {
            "name" => Some(self.schedule.name.clone()),
            "tick" => self.date("%Y-%m-%d").zip(self.time()).map(|(date, time)| format!("{date}-{time}")),
            "date" => self.date("%Y-%m-%d"),
            "time" => self.time(),
            "month" => self.date("%Y-%m"),
            _ => None,
        };
        text.map(|text| Given::Text(Cow::Owned(text)))
    }
}

impl Schedule {
    /// The name of the batch of a tick.
    ///
    /// # Errors
    /// It names something that a tick does not have.
    pub fn batch_of(&self, at: Timestamp, by_hand: bool) -> Result<String, Unfilled> {
        self.batch.fill(&Named { schedule: self, at, by_hand })
    }

    /// The first tick after an instant.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.zone.next(&self.line, after)
    }

    /// Why a tick is left out whose forerunner has put jobs into this batch of which so many have not ended; `None`: it
    /// is not.
    #[must_use]
    pub fn overlaps(&self, batch: &str, left: i64) -> Option<String> {
        (self.overlap == Overlap::Skip && left > 0).then(|| {
            let left = counted(left, "job of the last tick has", "jobs of the last tick have");
            format!("{left} not ended (batch {batch})")
        })
    }

    /// When no more calls are made for a tick.
    #[must_use]
    pub fn deadline_of(&self, at: Timestamp) -> Option<Timestamp> {
        self.deadline.map(|deadline| at + deadline)
    }

    /// What people are shown of the configuration: neither a request nor a statement.
    #[must_use]
    pub fn settings(&self) -> Value {
        let file = match &self.source {
            TickSource::File(file) => Some(file.display().to_string()),
            TickSource::Sql(_) | TickSource::Request(_) => None,
            TickSource::Report(report) => return self.settings_of_report(report),
        };
        json!({
            "source": self.source.kind(), "file": file, "route": self.route, "project": self.project,
            "priority": self.priority, "overlap": self.overlap.as_str(), "catch_up": self.catch_up.as_str(),
        })
    }

    /// It has no jobs, so what is said of jobs is left out.
    fn settings_of_report(&self, report: &TickReport) -> Value {
        let (file, receiver) = match &report.to {
            ReportGoesTo::File { written, .. } => (Some(written), None),
            ReportGoesTo::Receiver(name) => (None, Some(name)),
        };
        json!({
            "source": self.source.kind(), "report": report.to_string(), "file": file, "receiver": receiver,
            "catch_up": self.catch_up.as_str(),
        })
    }
}

#[cfg(test)]
mod tests;
