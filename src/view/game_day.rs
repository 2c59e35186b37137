//! Game days: those that are on, and what one of them did.

use super::dollars::Dollars;
use super::table::{Cell, Layout, Table};
use crate::domain::game_day::GameDay;
use crate::domain::statistics::GameDayStatistics;
use crate::domain::{NanoUsd, Timestamp};
use crate::store::game_day::GameDayOutcome;
use chrono::{DateTime, Utc};
use serde::Serialize;

/// A game day that is on, as the workers tell it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GameDayOnView {
    pub game_day: String,
    /// Providers, or targets as `provider/model`.
    pub targets: Vec<String>,
    /// The share of their calls that fail on purpose.
    pub share: f64,
    pub until: DateTime<Utc>,
}

impl GameDayOnView {
    /// Those that live workers tell of, each once.
    pub fn all<'a>(told: impl Iterator<Item = &'a GameDayStatistics>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for day in told {
            if all.iter().all(|known| known.game_day != day.name) {
                all.push(Self {
                    game_day: day.name.clone(),
                    targets: day.targets.clone(),
                    share: share(day.share_millionths),
                    until: instant(Timestamp(day.until_ms)),
                });
            }
        }
        all.sort_by(|one, other| one.game_day.cmp(&other.game_day));
        all
    }

    /// `game day friday: 20 % of the calls to openai fail on purpose until 2026-12-04 11:00:00 UTC`.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "game day {}: {} % of the calls to {} fail on purpose until {} UTC",
            self.game_day,
            (self.share * 1e4).round() / 1e2,
            self.targets.join(", "),
            self.until.format("%Y-%m-%d %H:%M:%S")
        )
    }
}

/// Those that are on.
#[must_use]
pub fn on_table(days: &[GameDayOnView]) -> Table {
    let mut table = Table::new(["game_day", "share", "targets", "until"]);
    for day in days {
        table.row([
            day.game_day.as_str().into(),
            Cell::Share(day.share),
            day.targets.join(", ").into(),
            day.until.into(),
        ]);
    }
    table
}

/// A game day of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GameDayView {
    pub game_day: String,
    /// `planned`, `on` or `over`.
    pub state: &'static str,
    pub targets: Vec<String>,
    pub share: f64,
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
}

impl GameDayView {
    /// A game day at this instant.
    #[must_use]
    pub fn of(day: &GameDay, now: Timestamp) -> Self {
        let state = if now < day.from {
            "planned"
        } else if day.is_on(now) {
            "on"
        } else {
            "over"
        };
        Self {
            game_day: day.name.clone(),
            state,
            targets: day.targets.clone(),
            share: share(day.share),
            from: instant(day.from),
            until: instant(day.until),
        }
    }
}

/// The game days of the configuration.
#[must_use]
pub fn table(days: &[GameDayView]) -> Table {
    let mut table = Table::new(["game_day", "state", "share", "targets", "from", "until"]);
    for day in days {
        table.row([
            day.game_day.as_str().into(),
            day.state.into(),
            Cell::Share(day.share),
            day.targets.join(", ").into(),
            day.from.into(),
            day.until.into(),
        ]);
    }
    table
}

/// What a game day did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GameDayReportView {
    #[serde(flatten)]
    pub day: GameDayView,
    /// Calls that failed on purpose.
    pub calls_failed: i64,
    /// Jobs that had such calls.
    pub jobs: i64,
    /// Jobs that the same target answered later on.
    pub same_target: i64,
    /// Jobs that another target answered: without one they would have been lost, or would have waited.
    pub fell_back: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub unfinished: i64,
    /// What all attempts of these jobs have cost.
    pub cost: Dollars,
    /// Dollars per answered job; `None`: none was answered.
    pub cost_per_answer: Option<Dollars>,
    /// The same of the other answers to jobs of the same routes meanwhile.
    pub others_cost_per_answer: Option<Dollars>,
    /// What the answered jobs have cost more than as many others; `None`: there is nothing to compare with.
    pub extra_cost: Option<Dollars>,
}

impl GameDayReportView {
    /// What came of a game day.
    #[must_use]
    pub fn of(day: GameDayView, outcome: &GameDayOutcome) -> Self {
        let each = |cost: NanoUsd, answers: i64| (answers > 0).then(|| NanoUsd(cost.0 / answers));
        let answered = outcome.same_target + outcome.fell_back;
        let others = each(outcome.other_cost, outcome.other_answers);
        let as_others = others.map(|each| each.0.saturating_mul(answered)).filter(|_| answered > 0);
        Self {
            day,
            calls_failed: outcome.calls,
            jobs: outcome.jobs,
            same_target: outcome.same_target,
            fell_back: outcome.fell_back,
            failed: outcome.failed,
            cancelled: outcome.cancelled,
            unfinished: outcome.unfinished,
            cost: Dollars(outcome.cost),
            cost_per_answer: each(outcome.cost, answered).map(Dollars),
            others_cost_per_answer: others.map(Dollars),
            extra_cost: as_others.map(|others| Dollars(NanoUsd(outcome.cost.0 - others))),
        }
    }

    /// The report as one row.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "game_day",
            "state",
            "calls_failed",
            "jobs",
            "same_target",
            "fell_back",
            "failed",
            "cancelled",
            "unfinished",
            "cost",
            "cost_per_answer",
            "others_cost_per_answer",
            "extra_cost",
        ])
        .laid_out(Layout { when_told: &["cancelled", "unfinished"], ..Layout::default() });
        table.row([
            self.day.game_day.as_str().into(),
            self.day.state.into(),
            self.calls_failed.into(),
            self.jobs.into(),
            self.same_target.into(),
            self.fell_back.into(),
            self.failed.into(),
            self.cancelled.into(),
            self.unfinished.into(),
            self.cost.into(),
            self.cost_per_answer.into(),
            self.others_cost_per_answer.into(),
            self.extra_cost.into(),
        ]);
        table
    }
}

fn share(millionths: u32) -> f64 {
    f64::from(millionths) / 1e6
}

fn instant(at: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
