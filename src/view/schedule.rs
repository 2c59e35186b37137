//! Schedules, and the outcomes of their ticks.

use super::table::{Cell, Layout, Table};
use crate::domain::Timestamp;
use crate::domain::counted::counted;
use crate::domain::schedule::{CronLine, Schedule, Zone};
use crate::store::schedule::{ScheduleRow, TickRow};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A schedule of which no worker has spoken for so long runs nowhere.
const UNSEEN: TimeDelta = TimeDelta::minutes(2);

/// A schedule, by the configuration and by what the workers share of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScheduleView {
    pub schedule: String,
    /// `ok`; `waits` to be tried again; `failed`: its last tick has; `paused`; `off`: the configuration has switched it
    /// off; `unseen`: no worker has it; `gone`: nor has this configuration.
    pub state: &'static str,
    /// When it fires, as a crontab says it, in local time.
    pub cron: String,
    pub timezone: String,
    /// The next tick, unless it is paused or off.
    pub next_tick: Option<DateTime<Utc>>,
    /// The same in local time.
    pub next_local: Option<String>,
    /// Its last tick.
    pub last: Option<TickView>,
    /// `file`, `sql`, `request` or `report`.
    pub source: Option<String>,
    /// The file that it reads, or that its report is written to.
    pub file: Option<String>,
    /// The report that it makes, in words.
    pub report: Option<String>,
    /// The receiver of that report.
    pub receiver: Option<String>,
    pub route: Option<String>,
    pub project: Option<String>,
    pub overlap: Option<String>,
    pub catch_up: Option<String>,
    pub enabled: bool,
    pub paused: bool,
    pub paused_at: Option<DateTime<Utc>>,
    /// The login that paused it.
    pub paused_by: Option<String>,
    pub pause_reason: Option<String>,
    /// When a worker last said that it has this schedule.
    pub seen_at: Option<DateTime<Utc>>,
    /// Whether the configuration at hand has it.
    pub is_configured: bool,
}

/// The outcome of a tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TickView {
    pub schedule: String,
    /// The instant of the tick.
    pub tick: DateTime<Utc>,
    /// The same in local time.
    pub local: Option<String>,
    /// `asked`, `retrying`, `done`, `skipped` or `failed`.
    pub state: String,
    /// A person or a program asked for it, rather than the clock.
    pub by_hand: bool,
    pub batch: Option<String>,
    /// How many jobs it has enqueued.
    pub jobs: i64,
    /// The number under which these can be cancelled.
    pub enqueue: Option<i64>,
    /// What it reported, and where to.
    pub reported: Option<String>,
    /// Why it was skipped or has failed.
    pub reason: Option<String>,
    /// How often it has failed.
    pub failures: i16,
    pub retry_at: Option<DateTime<Utc>>,
    pub ended_at: DateTime<Utc>,
    /// The worker that dealt with it last.
    pub worker: Option<i64>,
    /// The login that asked for it, or that of the worker.
    pub login: String,
}

impl TickView {
    /// A tick with its local time in the zone of its schedule.
    #[must_use]
    pub fn of(row: &TickRow, zone: Option<Zone>) -> Self {
        Self {
            schedule: row.schedule.clone(),
            tick: row.at,
            local: zone.and_then(|zone| local(zone, row.at)),
            state: row.state.clone(),
            by_hand: row.by_hand,
            batch: row.batch.clone(),
            jobs: row.jobs,
            enqueue: row.enqueue,
            reported: row.reported.clone(),
            reason: row.reason.clone(),
            failures: row.failures,
            retry_at: row.retry_at,
            ended_at: row.ended_at,
            worker: row.worker,
            login: row.login.clone(),
        }
    }
}

/// A local time with what it is ahead of UTC.
fn local(zone: Zone, at: DateTime<Utc>) -> Option<String> {
    let local = zone.local(Timestamp(at.timestamp_millis()))?;
    Some(local.format("%Y-%m-%d %H:%M:%S %:z").to_string().replace(":00 ", " "))
}

/// For a table, which names the zone in another column.
fn without_offset(local: &str) -> &str {
    local.rsplit_once(' ').map_or(local, |(local, _)| local)
}

impl ScheduleView {
    /// All schedules that a worker or the configuration has, by their names. `last`: the last tick of each.
    #[must_use]
    pub fn all(rows: &[ScheduleRow], configured: &[Schedule], last: &[TickRow], now: DateTime<Utc>) -> Vec<Self> {
        let rows: BTreeMap<&str, &ScheduleRow> = rows.iter().map(|row| (row.name.as_str(), row)).collect();
        let configured: BTreeMap<&str, &Schedule> = configured.iter().map(|own| (own.name.as_str(), own)).collect();
        let names: BTreeSet<&str> = rows.keys().chain(configured.keys()).copied().collect();
        let view = |name: &str| {
            let last = last.iter().find(|tick| tick.schedule == name);
            Self::of(name, rows.get(name).copied(), configured.get(name).copied(), last, now)
        };
        names.into_iter().map(view).collect()
    }

    fn of(
        name: &str,
        row: Option<&ScheduleRow>,
        configured: Option<&Schedule>,
        last: Option<&TickRow>,
        now: DateTime<Utc>,
    ) -> Self {
        // What the workers go by counts; the configuration at hand may be another one.
        let (cron, timezone, enabled) = match (row, configured) {
            (Some(row), _) => (row.cron.clone(), row.timezone.clone(), row.enabled),
            (None, Some(own)) => (own.line.to_string(), own.zone.to_string(), own.is_enabled),
            (None, None) => Default::default(),
        };
        let settings =
            row.map_or_else(|| configured.map_or(Value::Null, Schedule::settings), |row| row.settings.clone());
        let text = |key: &str| settings.get(key).and_then(Value::as_str).map(str::to_owned);
        let zone = Zone::parse(&timezone).ok();
        let paused = row.is_some_and(|row| row.paused_at.is_some());
        let is_unseen = row.is_none_or(|row| now - row.seen_at > UNSEEN);
        let is_gone = is_unseen && configured.is_none();
        let fires = enabled && !paused && !is_gone;
        let next_tick = zone.zip(CronLine::parse(&cron).ok()).filter(|_| fires).and_then(|(zone, line)| {
            let next = zone.next(&line, Timestamp(now.timestamp_millis()))?;
            DateTime::from_timestamp_millis(next.0)
        });
        let state = match last.map(|tick| tick.state.as_str()) {
            _ if paused => "paused",
            _ if !enabled => "off",
            _ if is_gone => "gone",
            _ if is_unseen => "unseen",
            Some("failed") => "failed",
            Some("retrying" | "asked") => "waits",
            _ => "ok",
        };
        Self {
            schedule: name.to_owned(),
            state,
            cron,
            timezone,
            next_local: next_tick.zip(zone).and_then(|(next, zone)| local(zone, next)),
            next_tick,
            last: last.map(|tick| TickView::of(tick, zone)),
            source: text("source"),
            file: text("file"),
            report: text("report"),
            receiver: text("receiver"),
            route: text("route"),
            project: text("project"),
            overlap: text("overlap"),
            catch_up: text("catch_up"),
            enabled,
            paused,
            paused_at: row.and_then(|row| row.paused_at),
            paused_by: row.and_then(|row| row.paused_by.clone()),
            pause_reason: row.and_then(|row| row.pause_reason.clone()),
            seen_at: row.map(|row| row.seen_at),
            is_configured: configured.is_some(),
        }
    }

    /// The report that it makes, and where that goes.
    fn reports(&self) -> Option<String> {
        let report = self.report.as_ref()?;
        match (&self.receiver, &self.file) {
            (Some(receiver), _) => Some(format!("{report} to the receiver {receiver}")),
            (None, Some(file)) => Some(format!("{report} to {file}")),
            (None, None) => Some(report.clone()),
        }
    }

    /// What a person should know of it, in a sentence; `None`: all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let name = &self.schedule;
        let last = self.last.as_ref();
        let reason = last.and_then(|last| last.reason.clone()).unwrap_or_default();
        let when = last.map(|last| last.local.clone().unwrap_or_else(|| last.tick.to_rfc3339())).unwrap_or_default();
        match self.state {
            "failed" => Some(format!(
                "schedule {name}: the tick of {when} has failed, and came to nothing ({reason}); `sluice schedule run \
                 {name}` runs it by hand"
            )),
            "waits" if last.is_some_and(|last| last.state == "retrying") => {
                Some(format!("schedule {name}: the tick of {when} has failed and is tried again ({reason})"))
            }
            "unseen" => Some(format!(
                "schedule {name}: no worker has it, so it does not fire: start a worker with this configuration, or \
                 let the workers read it (SIGHUP)"
            )),
            "paused" => {
                let by = self.paused_by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
                let why = self.pause_reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                Some(format!("schedule {name} is paused{by}{why}"))
            }
            _ => None,
        }
    }
}

/// All schedules, a row for each.
#[must_use]
pub fn table(schedules: &[ScheduleView]) -> Table {
    let mut table = Table::new([
        "schedule",
        "state",
        "cron",
        "timezone",
        "next",
        "last",
        "came_of_it",
        "jobs",
        "batch",
        "reason",
        "report",
        "source",
        "route",
        "project",
        "overlap",
        "catch_up",
        "paused_by",
        "paused_at",
        "seen_at",
    ])
    .laid_out(Layout {
        wide: &["source", "route", "project", "overlap", "catch_up", "paused_by", "paused_at", "seen_at"],
        when_told: &["reason", "report"],
        give_way: &["report", "reason", "batch", "timezone", "jobs", "last", "came_of_it", "cron"],
        prose: &["reason", "report"],
    });
    for view in schedules {
        let last = view.last.as_ref();
        let reason = if view.paused { view.pause_reason.clone() } else { last.and_then(|last| last.reason.clone()) };
        table.row([
            view.schedule.as_str().into(),
            view.state.into(),
            view.cron.as_str().into(),
            view.timezone.as_str().into(),
            view.next_local.as_deref().map(without_offset).into(),
            last.and_then(|last| last.local.as_deref()).map(without_offset).into(),
            last.map(|last| last.state.clone()).into(),
            last.filter(|last| last.reported.is_none()).map(|last| last.jobs).into(),
            last.and_then(|last| last.batch.clone()).into(),
            reason.into(),
            view.reports().into(),
            view.source.clone().into(),
            view.route.clone().into(),
            view.project.clone().into(),
            view.overlap.clone().into(),
            view.catch_up.clone().into(),
            view.paused_by.clone().into(),
            view.paused_at.into(),
            view.seen_at.into(),
        ]);
    }
    table
}

/// Ticks, a row for each.
#[must_use]
pub fn ticks(ticks: &[TickView]) -> Table {
    let mut table = Table::new([
        "schedule", "tick", "local", "state", "by_hand", "jobs", "batch", "enqueue", "reported", "reason", "failures",
        "retry_at", "ended_at", "worker", "login",
    ])
    .laid_out(Layout {
        wide: &["tick", "enqueue", "ended_at", "worker", "login"],
        when_told: &["by_hand", "failures", "retry_at", "reported", "reason"],
        give_way: &["retry_at", "failures", "batch", "reported", "reason"],
        prose: &["reported", "reason"],
    });
    for tick in ticks {
        table.row([
            tick.schedule.as_str().into(),
            tick.tick.into(),
            tick.local.as_deref().map(without_offset).into(),
            tick.state.as_str().into(),
            Cell::Flag(tick.by_hand),
            tick.jobs.into(),
            tick.batch.clone().into(),
            tick.enqueue.map_or(Cell::Empty, Cell::Id),
            tick.reported.clone().into(),
            tick.reason.clone().into(),
            i64::from(tick.failures).into(),
            tick.retry_at.into(),
            tick.ended_at.into(),
            tick.worker.map_or(Cell::Empty, Cell::Id),
            tick.login.as_str().into(),
        ]);
    }
    table
}

/// A schedule with its ticks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScheduleStory {
    #[serde(flatten)]
    pub schedule: ScheduleView,
    /// The newest first.
    pub ticks: Vec<TickView>,
}

/// A schedule was run by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScheduleRunView {
    pub schedule: String,
    pub tick: DateTime<Utc>,
    pub batch: String,
    /// How many jobs were enqueued.
    pub jobs: u64,
    /// The number under which these can be cancelled.
    pub enqueue: Option<i64>,
}

/// A schedule that makes a report was run by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScheduleReportView {
    pub schedule: String,
    pub tick: DateTime<Utc>,
    /// What it reported, and where to.
    pub reported: String,
}

impl fmt::Display for ScheduleReportView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schedule {}: reported {}", self.schedule, self.reported)
    }
}

impl fmt::Display for ScheduleRunView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedule, batch, jobs, .. } = self;
        if *jobs == 0 {
            return write!(f, "schedule {schedule}: its source holds no jobs, so nothing was enqueued");
        }
        write!(f, "schedule {schedule}: enqueued {} as batch {batch}", counted(*jobs, "job", "jobs"))?;
        self.enqueue.map_or(Ok(()), |number| write!(f, " (enqueue {number})"))
    }
}
