//! Why something does not go on, for people and programs.

use super::command::advice;
use super::dollars::Dollars;
use crate::domain::Timestamp;
use crate::domain::budget::BudgetStanding;
use crate::domain::long_calls::LongCalls;
use crate::domain::obstacle::{Hindrance, Obstacle};
use crate::domain::pause::FixedWait;
use crate::domain::shut::Reason;
use chrono::{DateTime, Utc};
use serde::Serialize;

/// The obstacle to a job, a batch or a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyView {
    /// The fixed words, as `sluice.jobs.waits_for` has them.
    pub waits_for: String,
    /// The whole reason, in words.
    pub words: String,
    /// What a person may do about it; `None`: it passes by itself.
    #[serde(rename = "do")]
    pub advice: Option<String>,
    /// When it is over by itself, as far as is known.
    pub until: Option<DateTime<Utc>>,
    /// The pause that is behind it.
    pub paused: Option<PausedView>,
    /// The budget that is behind it.
    pub budget: Option<ShortBudgetView>,
    /// The keys that are out of service because of which nothing goes on.
    pub keys: Vec<KeyOutView>,
    /// Whether nothing goes on before a person does something about a key or a model.
    pub stuck: bool,
    /// Of a batch: what others of its jobs wait for, in the fixed words.
    pub others_wait_for: Vec<String>,
}

/// Calls that have been under way for long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LongCallsView {
    /// How many there are.
    pub calls: i64,
    /// When the oldest was sent.
    pub oldest: Option<DateTime<Utc>>,
    /// The target that it was sent to.
    pub target: String,
    /// The same, in words.
    pub words: String,
}

impl From<&LongCalls> for LongCallsView {
    fn from(calls: &LongCalls) -> Self {
        Self {
            calls: calls.calls,
            oldest: instant(calls.oldest),
            target: calls.target.clone(),
            words: calls.in_words(),
        }
    }
}

/// A pause, as the reason of a wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PausedView {
    /// `route`, `project`, `batch`, `provider` or `job`.
    pub kind: &'static str,
    pub name: String,
    /// The login that paused it.
    pub by: Option<String>,
    pub since: Option<DateTime<Utc>>,
    pub reason: Option<String>,
}

/// A budget without room, as the reason of a wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShortBudgetView {
    pub name: String,
    pub limit: Dollars,
    pub spent: Dollars,
    pub uncertain: Dollars,
    pub reserved: Dollars,
    /// When its window turns; `None`: it counts once.
    pub ends_at: Option<DateTime<Utc>>,
}

/// A key that is out of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyOutView {
    pub key: String,
    pub why: Option<&'static str>,
    pub since: Option<DateTime<Utc>>,
    /// When it is tried again.
    pub until: Option<DateTime<Utc>>,
    /// The provider's words.
    pub said: Option<String>,
}

impl WhyView {
    /// An obstacle; `job`: in the way of this job.
    #[must_use]
    pub fn of(obstacle: &Obstacle, job: Option<i64>) -> Self {
        let keys = match &obstacle.kind {
            Hindrance::Shut(shut) => shut.keys.as_slice(),
            _ => &[],
        };
        let of_job = match (&obstacle.kind, job) {
            (Hindrance::Paused(Some(pause)), Some(job)) => Some(PausedView {
                kind: "job",
                name: job.to_string(),
                by: pause.by.clone(),
                since: instant(pause.since),
                reason: pause.why.clone(),
            }),
            _ => None,
        };
        let paused = obstacle.pause().map(|pause| PausedView {
            kind: pause.kind.as_str(),
            name: pause.name.clone(),
            by: pause.by.clone(),
            since: instant(pause.since),
            reason: pause.why.clone(),
        });
        let keys = keys.iter().map(|key| KeyOutView {
            key: key.key.clone(),
            why: key.reason.map(Reason::as_str),
            since: key.since.and_then(instant),
            until: key.until.and_then(instant),
            said: key.said.clone(),
        });
        Self {
            waits_for: obstacle.code.clone(),
            words: obstacle.in_words(),
            advice: obstacle.advice(job).as_ref().map(advice),
            until: obstacle.until.and_then(instant),
            paused: paused.or(of_job),
            budget: obstacle.budget().map(short),
            keys: keys.collect(),
            stuck: !obstacle.stuck.is_empty(),
            others_wait_for: obstacle.others.clone(),
        }
    }
}

fn short(standing: &BudgetStanding) -> ShortBudgetView {
    ShortBudgetView {
        name: standing.budget.name.clone(),
        limit: Dollars(standing.budget.limit),
        spent: Dollars(standing.spent),
        uncertain: Dollars(standing.uncertain),
        reserved: Dollars(standing.reserved),
        ends_at: standing.ends_at.and_then(instant),
    }
}

fn instant(at: Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(at.0)
}

/// When a job that waits for this reason wakes by itself. The instant in the row of a paused job means nothing.
#[must_use]
pub fn wakes_at(reason: &str, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (FixedWait::read(reason) != Some(FixedWait::Paused)).then_some(at)
}

/// Why a target could not be called, in words about a call that was made elsewhere.
pub(super) const fn was_shut(reason: Reason) -> &'static str {
    match reason {
        Reason::RateLimit => "its limit was used up",
        Reason::Concurrency => "all its places were taken",
        Reason::NoCapacity => "its tier had no capacity",
        Reason::PeakHours => "it was in its peak hours",
        Reason::Breaker => "its breaker was open",
        Reason::AskedToWait => "its provider had failed and asked to be left alone",
        Reason::Offline => "no provider could be reached",
        Reason::QuotaExhausted => "its key was out of money",
        Reason::Auth => "its key had been rejected",
        Reason::KeysInDoubt => "its keys had been refused as in an outage",
        Reason::Model => "the model was unknown or not allowed to the key",
        Reason::Paused => "its provider was paused",
        Reason::Budget => "its provider's budget had no room",
        Reason::HealthProbe => "its provider's health probe failed",
        Reason::Slow => "its answers were slow",
        Reason::Quality => "its answers were rejected",
    }
}
