//! What receivers are sent: the generic form, by the payload structure of Standard Webhooks, and the form that Slack
//! and its kin take.

use super::{AlertRule, AlertSeverity};
use crate::domain::counted::counted;
use crate::domain::per_answer::known_cost;
use crate::domain::roll::shortened;
use crate::domain::schedule::report::ReportPeriod;
use crate::domain::{NanoUsd, Timestamp};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The most characters of a summary.
const SUMMARY: usize = 600;

/// The form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookFormat {
    /// The whole message as JSON, signed.
    Generic,
    /// What incoming webhooks of Slack take; those of Mattermost and others take the same.
    Slack,
}

/// The news of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertNews {
    /// It fires, or it still does (`reminders` above 0).
    Firing,
    /// It is over.
    Resolved,
}

/// A message: what all receivers of it are told.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertMessage(Value);

/// An alert as a message tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertTold<'a> {
    pub id: i64,
    pub rule: AlertRule,
    pub subject: &'a str,
    pub severity: AlertSeverity,
    pub summary: &'a str,
    pub values: &'a BTreeMap<String, String>,
    pub since: Timestamp,
    pub fired_at: Timestamp,
    /// When it was over.
    pub until: Option<Timestamp>,
    pub reminders: i32,
}

/// A batch whose last job has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchEnd {
    pub batch: String,
    pub jobs: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub attempts: i64,
    pub cost: NanoUsd,
    /// The amount that may have been spent on top.
    pub uncertain: NanoUsd,
    /// Attempts whose price is unknown.
    pub unpriced: i64,
    /// How many times it has completed before.
    pub before: i32,
}

impl BatchEnd {
    /// Which rule tells of it; `millionths`: the share of jobs that may fail, above which it counts as failed.
    #[must_use]
    pub fn rule(&self, millionths: u32) -> AlertRule {
        let ended = i128::from(self.succeeded.saturating_add(self.failed));
        let is_failed = self.failed > 0 && i128::from(self.failed) * 1_000_000 > ended * i128::from(millionths);
        // Where nothing succeeded and something failed, it has failed, regardless of the share that may fail.
        let none = self.failed > 0 && self.succeeded == 0;
        if is_failed || none { AlertRule::BatchFailed } else { AlertRule::BatchCompleted }
    }

    /// The end in a sentence.
    #[must_use]
    pub fn in_words(&self, rule: AlertRule) -> String {
        let word = if rule == AlertRule::BatchFailed { "failed" } else { "completed" };
        let mut words = format!(
            "batch {} has {word}: {} succeeded, {} failed",
            shortened(&self.batch),
            counted(self.succeeded, "job", "jobs"),
            self.failed
        );
        if self.cancelled > 0 {
            let _ = write!(words, ", {} cancelled", self.cancelled);
        }
        if let Some(cost) = known_cost(self.cost, self.unpriced, self.attempts) {
            let _ = write!(words, "; it cost {cost}");
        }
        words
    }
}

/// A report that a schedule has made, as a message tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportMade<'a> {
    pub schedule: &'a str,
    pub tick: Timestamp,
    /// Which report it is.
    pub kind: &'a str,
    /// The time that it covers.
    pub period: ReportPeriod,
    /// What it is, in a sentence.
    pub summary: String,
    /// An object for each row.
    pub rows: Value,
    /// As many rows are left out.
    pub more_rows: usize,
    /// Attempts whose price is unknown, and which are not in the sums.
    pub unpriced: i64,
    /// What a reader has to know beside it.
    pub note: Option<String>,
    /// The rows as lines of equal columns, for people.
    pub lines: String,
}

/// `2026-11-28T13:30:00.000Z`
fn instant(at: Timestamp) -> String {
    DateTime::from_timestamp_millis(at.0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Dollars as a decimal text: what JSON readers make of numbers rounds them.
fn dollars(amount: NanoUsd) -> String {
    amount.to_string().replacen('$', "", 1)
}

/// The beginning of a text, on one line.
pub(super) fn on_one_line(text: &str, most: usize) -> String {
    let mut line: String = text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line
}

impl AlertMessage {
    /// A message that is stored.
    #[must_use]
    pub const fn stored(value: Value) -> Self {
        Self(value)
    }

    /// An alert that fires, lasts or is over.
    #[must_use]
    pub fn of_alert(news: AlertNews, alert: &AlertTold<'_>, source: Option<&str>, now: Timestamp) -> Self {
        let state = match news {
            AlertNews::Firing => "firing",
            AlertNews::Resolved => "resolved",
        };
        Self(json!({
            "type": format!("alert.{state}"),
            "timestamp": instant(now),
            "data": {
                "alert": alert.id,
                "key": format!("{}:{}", alert.rule.as_str(), alert.subject),
                "rule": alert.rule.as_str(),
                "subject": alert.subject,
                "severity": alert.severity.as_str(),
                "state": state,
                "summary": on_one_line(alert.summary, SUMMARY),
                "remedy": alert.rule.facts().remedy,
                "values": alert.values,
                "since": instant(alert.since),
                "fired_at": instant(alert.fired_at),
                "resolved_at": alert.until.map(instant),
                "reminders": alert.reminders,
                "source": source,
            },
        }))
    }

    /// A batch whose last job has ended.
    #[must_use]
    pub fn of_batch(
        end: &BatchEnd,
        rule: AlertRule,
        severity: AlertSeverity,
        source: Option<&str>,
        now: Timestamp,
    ) -> Self {
        let kind = if rule == AlertRule::BatchFailed { "batch.failed" } else { "batch.completed" };
        Self(json!({
            "type": kind,
            "timestamp": instant(now),
            "data": {
                "batch": end.batch,
                "severity": severity.as_str(),
                "summary": end.in_words(rule),
                "remedy": rule.facts().remedy,
                "jobs": end.jobs,
                "succeeded": end.succeeded,
                "failed": end.failed,
                "cancelled": end.cancelled,
                "attempts": end.attempts,
                "cost": known_cost(end.cost, end.unpriced, end.attempts).map(dollars),
                "uncertain_cost": dollars(end.uncertain),
                "unpriced_attempts": end.unpriced,
                "completed_before": end.before,
                "source": source,
            },
        }))
    }

    /// A report that a schedule has made. `rows`: an object for each; `lines`: the same for people to read.
    #[must_use]
    pub fn of_report(report: &ReportMade<'_>, source: Option<&str>, now: Timestamp) -> Self {
        Self(json!({
            "type": "report",
            "timestamp": instant(now),
            "data": {
                "severity": AlertSeverity::Info.as_str(),
                "summary": on_one_line(&report.summary, SUMMARY),
                "remedy": "",
                "schedule": report.schedule,
                "tick": instant(report.tick),
                "report": report.kind,
                "from": report.period.from.map(instant),
                "until": instant(report.period.until),
                "rows": report.rows,
                "more_rows": report.more_rows,
                "unpriced_attempts": report.unpriced,
                "note": report.note,
                "lines": report.lines,
                "source": source,
            },
        }))
    }

    /// The message of `sluice alert test`.
    #[must_use]
    pub fn of_test(receiver: &str, source: Option<&str>, now: Timestamp) -> Self {
        Self(json!({
            "type": "alert.test",
            "timestamp": instant(now),
            "data": {
                "severity": AlertSeverity::Info.as_str(),
                "summary": format!("a test of the receiver {receiver}: nothing has happened"),
                "remedy": "",
                "source": source,
            },
        }))
    }

    /// The message as it is stored.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.0
    }

    /// What kind of message it is: `alert.firing` and so on.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0["type"].as_str().unwrap_or_default()
    }

    /// The bytes that are sent. The same message gives the same bytes each time.
    #[must_use]
    pub fn body(&self, format: HookFormat) -> Vec<u8> {
        match format {
            HookFormat::Generic => self.0.to_string(),
            HookFormat::Slack => self.in_slack().to_string(),
        }
        .into_bytes()
    }

    /// Text, and an attachment with a colour: what Slack, Mattermost, Rocket.Chat and Discord all show.
    fn in_slack(&self) -> Value {
        let data = &self.0["data"];
        let text = |name: &str| data[name].as_str().unwrap_or_default();
        let severity = text("severity");
        let (mark, colour) = match (self.kind(), severity) {
            ("alert.resolved", _) => ("resolved", "#2e7d32"),
            ("batch.completed" | "alert.test" | "report", _) => ("info", "#1565c0"),
            (_, "critical") => ("critical", "#c62828"),
            (_, "warning") => ("warning", "#f9a825"),
            _ => ("info", "#1565c0"),
        };
        let mark = match data["reminders"].as_i64() {
            Some(reminders) if reminders > 0 && self.kind() == "alert.firing" => format!("{mark}, still"),
            _ => mark.to_owned(),
        };
        let source = data["source"].as_str().map_or_else(String::new, |source| format!(" ({source})"));
        let line = escaped(&format!("[{mark}] {}{source}", text("summary")));
        let mut fields = Vec::new();
        let mut field = |title: &str, value: &str| {
            if !value.is_empty() {
                fields.push(json!({ "title": title, "value": escaped(value), "short": value.len() < 40 }));
            }
        };
        field("rule", text("rule"));
        field("subject", text("subject"));
        field("batch", text("batch"));
        field("schedule", text("schedule"));
        field("from", text("from"));
        field("until", text("until"));
        field("note", text("note"));
        field("since", text("since"));
        field("resolved at", text("resolved_at"));
        if self.kind() != "alert.resolved" {
            field("what to do", text("remedy"));
        }
        let line = match data["lines"].as_str().filter(|lines| !lines.is_empty()) {
            Some(lines) => format!("{line}\n```\n{}\n```", escaped(lines)),
            None => line,
        };
        json!({
            "text": line,
            "attachments": [{ "color": colour, "fallback": line, "fields": fields }],
        })
    }
}

/// A text in which nothing is a link, a mention or a group for Slack.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
