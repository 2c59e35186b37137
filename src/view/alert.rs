//! Alerts: those that fire, and the messages with their receivers.

use super::table::{Cell, Layout, Table};
use crate::domain::alert::AlertRule;
use crate::store::alert::AlertRow;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// An alert that fires, or that has fired and is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlertView {
    /// Its number, which is in its messages.
    pub alert: i64,
    pub rule: String,
    /// What it is about. Rule and subject are its key.
    pub subject: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// `firing` or `resolved`.
    pub state: String,
    /// The sighting, in a sentence.
    pub summary: String,
    /// What to do about it; empty: nothing.
    pub remedy: &'static str,
    /// The figures behind it, by name.
    pub values: BTreeMap<String, String>,
    /// When it was first seen.
    pub since: DateTime<Utc>,
    pub fired_at: DateTime<Utc>,
    /// When it was over; `None`: it is not.
    pub resolved_at: Option<DateTime<Utc>>,
    pub reminders: i32,
    /// Messages about it that receivers have taken.
    pub delivered: i64,
    /// Messages about it that wait.
    pub waiting: i64,
    /// Messages about it that were given up.
    pub given_up: i64,
}

impl From<AlertRow> for AlertView {
    fn from(row: AlertRow) -> Self {
        Self {
            alert: row.id,
            remedy: AlertRule::parse(&row.rule).map_or("", |rule| rule.facts().remedy),
            rule: row.rule,
            subject: row.subject,
            severity: row.severity,
            state: row.state,
            summary: row.summary,
            values: serde_json::from_value(row.details).unwrap_or_default(),
            since: row.since,
            fired_at: row.fired_at,
            resolved_at: row.until,
            reminders: row.reminders,
            delivered: row.delivered,
            waiting: row.waiting,
            given_up: row.given_up,
        }
    }
}

/// A row for each alert.
#[must_use]
pub fn table(alerts: &[AlertView]) -> Table {
    let mut table = Table::new([
        "alert",
        "state",
        "severity",
        "rule",
        "subject",
        "summary",
        "since",
        "fired_at",
        "resolved_at",
        "reminders",
        "delivered",
        "waiting",
        "given_up",
        "remedy",
    ])
    .laid_out(Layout {
        wide: &["subject", "since", "reminders", "delivered", "remedy"],
        when_told: &["resolved_at", "waiting", "given_up"],
        give_way: &["alert", "resolved_at", "fired_at"],
        prose: &["summary", "remedy"],
    });
    for alert in alerts {
        table.row([
            Cell::Id(alert.alert),
            alert.state.as_str().into(),
            alert.severity.as_str().into(),
            alert.rule.as_str().into(),
            alert.subject.as_str().into(),
            alert.summary.as_str().into(),
            alert.since.into(),
            alert.fired_at.into(),
            alert.resolved_at.into(),
            i64::from(alert.reminders).into(),
            alert.delivered.into(),
            alert.waiting.into(),
            alert.given_up.into(),
            alert.remedy.into(),
        ]);
    }
    table
}

/// How many alerts of a severity fire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FiringView {
    pub severity: String,
    pub firing: i64,
}

/// A row for each severity.
#[must_use]
pub fn firing_table(firing: &[FiringView]) -> Table {
    let mut table = Table::new(["severity", "firing"]);
    for FiringView { severity, firing } in firing {
        table.row([severity.as_str().into(), (*firing).into()]);
    }
    table
}

/// The outcome of a test message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlertTestView {
    pub receiver: String,
    /// `generic` or `slack`.
    pub format: &'static str,
    /// Whether the message was signed.
    pub signed: bool,
    /// Whether the receiver has taken it.
    pub taken: bool,
    /// The HTTP status; `None`: no answer came.
    pub status: Option<u16>,
    /// What the receiver said, or why there was no answer.
    pub said: String,
    /// The id that went with it.
    pub message_id: String,
}

impl fmt::Display for AlertTestView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { receiver, taken, said, signed, .. } = self;
        let signed = if *signed { ", signed" } else { "" };
        if *taken {
            write!(f, "{receiver} has taken the test message{signed}: {said}")
        } else {
            write!(f, "{receiver} has not taken the test message{signed}: {said}")
        }
    }
}
