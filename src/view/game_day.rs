//! Game days: those that are on, and what one of them did.

use super::dollars::Dollars;
use super::table::{Cell, Layout, Table};
use crate::domain::Timestamp;
use crate::domain::counted::counted;
use crate::domain::game_day::GameDay;
use crate::domain::statistics::{GameDayStatistics, Statistics};
use crate::store::game_day::GameDayOutcome;
use chrono::{DateTime, Utc};
use serde::Serialize;

/// A game day that is on, as the workers tell it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GameDayOnView {
    pub game_day: String,
    /// Providers, or targets as `provider/model`.
    pub targets: Vec<String>,
    /// What their calls fail of.
    pub faults: Vec<String>,
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
                    faults: day.faults.clone(),
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
        let (percent, targets, until) = (percent(self.share), self.targets.join(", "), in_utc(self.until));
        format!("game day {}: {percent} % of the calls to {targets} fail on purpose until {until}", self.game_day)
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
    /// What their calls fail of.
    pub faults: Vec<String>,
    pub share: f64,
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// How live workers have it, where that is not as the configuration says; `None`: they have it so, there are none,
    /// or it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers_say: Option<String>,
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
            faults: day.faults.iter().map(|fault| fault.as_str().to_owned()).collect(),
            share: share(day.share),
            from: instant(day.from),
            until: instant(day.until),
            workers_say: None,
        }
    }

    /// The same, beside what live workers tell of those that are on for them.
    #[must_use]
    pub fn beside(self, workers: &[Statistics]) -> Self {
        let name = self.game_day.as_str();
        let told = |worker: &Statistics| worker.game_days.iter().find(|day| day.name == name).cloned();
        let is_same = |told: &GameDayStatistics| {
            told.targets == self.targets
                && (told.faults.is_empty() || told.faults == self.faults)
                && share(told.share_millionths).to_bits() == self.share.to_bits()
                && instant(Timestamp(told.until_ms)) == self.until
        };
        let told: Vec<Option<GameDayStatistics>> = workers.iter().map(told).collect();
        let other = told.iter().flatten().find(|told| self.state != "on" || !is_same(told));
        let without = told.iter().filter(|told| told.is_none()).count();
        let workers_say = match other {
            Some(other) => GameDayOnView::all(std::iter::once(other)).first().map(GameDayOnView::in_words),
            None if self.state == "on" && without > 0 => {
                let workers = counted(without, "live worker has", "live workers have");
                Some(format!("{workers} no such game day"))
            }
            None => None,
        };
        Self { workers_say, ..self }
    }

    /// `game day friday (planned): 20 % of the calls to openai fail on purpose (overloaded) from … until …`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Self { game_day, state, share, from, until, .. } = self;
        let (targets, faults) = (self.targets.join(", "), self.faults.join(", "));
        format!(
            "game day {game_day} ({state}): {} % of the calls to {targets} fail on purpose ({faults}) from {} until {}",
            percent(*share),
            in_utc(*from),
            in_utc(*until)
        )
    }
}

/// The game days of the configuration.
#[must_use]
pub fn table(days: &[GameDayView]) -> Table {
    let mut table = Table::new(["game_day", "state", "share", "targets", "faults", "from", "until"]);
    for day in days {
        table.row([
            day.game_day.as_str().into(),
            day.state.into(),
            Cell::Share(day.share),
            day.targets.join(", ").into(),
            day.faults.join(", ").into(),
            day.from.into(),
            day.until.into(),
        ]);
    }
    table
}

/// What a game day did to the jobs of one route, or of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GameDayOutcomeView {
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
    /// What all attempts of these jobs have cost, and how many attempts have no known cost.
    pub cost: Dollars,
    pub cost_unknown: i64,
    /// What the answers of those that fell back have cost more than their tokens would have at the first choice;
    /// `None`: that is known of none.
    pub extra_cost: Option<Dollars>,
    /// For how many of them it is not known.
    pub extra_cost_unknown: i64,
    /// Jobs without such a call that another target answered, because the game day held their first choice back.
    pub beside: i64,
    /// What their answers have cost more, and for how many that is not known.
    pub beside_extra_cost: Option<Dollars>,
    pub beside_extra_cost_unknown: i64,
}

impl From<&GameDayOutcome> for GameDayOutcomeView {
    fn from(outcome: &GameDayOutcome) -> Self {
        Self {
            calls_failed: outcome.calls,
            jobs: outcome.jobs,
            same_target: outcome.same_target,
            fell_back: outcome.fell_back,
            failed: outcome.failed,
            cancelled: outcome.cancelled,
            unfinished: outcome.unfinished,
            cost: Dollars(outcome.cost),
            cost_unknown: outcome.cost_unknown,
            extra_cost: outcome.extra.map(Dollars),
            extra_cost_unknown: outcome.extra_unknown,
            beside: outcome.beside,
            beside_extra_cost: outcome.beside_extra.map(Dollars),
            beside_extra_cost_unknown: outcome.beside_unknown,
        }
    }
}

impl GameDayOutcomeView {
    const NAMES: [&str; 14] = [
        "calls_failed",
        "jobs",
        "same_target",
        "fell_back",
        "failed",
        "cancelled",
        "unfinished",
        "cost",
        "cost_unknown",
        "extra_cost",
        "extra_cost_unknown",
        "beside",
        "beside_extra_cost",
        "beside_extra_cost_unknown",
    ];

    fn cells(&self) -> [Cell; 14] {
        [
            self.calls_failed.into(),
            self.jobs.into(),
            self.same_target.into(),
            self.fell_back.into(),
            self.failed.into(),
            self.cancelled.into(),
            self.unfinished.into(),
            self.cost.into(),
            self.cost_unknown.into(),
            self.extra_cost.into(),
            self.extra_cost_unknown.into(),
            self.beside.into(),
            self.beside_extra_cost.into(),
            self.beside_extra_cost_unknown.into(),
        ]
    }
}

/// What a game day did to the jobs of one route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GameDayRouteView {
    pub route: String,
    #[serde(flatten)]
    pub outcome: GameDayOutcomeView,
}

/// What a game day did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GameDayReportView {
    #[serde(flatten)]
    pub day: GameDayView,
    #[serde(flatten)]
    pub outcome: GameDayOutcomeView,
    /// The same by route.
    pub routes: Vec<GameDayRouteView>,
}

/// What is left out where it is nothing.
const WHEN_TOLD: &[&str] =
    &["cancelled", "unfinished", "cost_unknown", "extra_cost_unknown", "beside", "beside_extra_cost_unknown"];

impl GameDayReportView {
    /// What came of a game day on these routes.
    #[must_use]
    pub fn of(day: GameDayView, outcomes: &[GameDayOutcome]) -> Self {
        let routes = outcomes.iter();
        Self {
            day,
            outcome: (&GameDayOutcome::total(outcomes)).into(),
            routes: routes.map(|it| GameDayRouteView { route: it.route.clone(), outcome: it.into() }).collect(),
        }
    }

    /// The report as one row.
    #[must_use]
    pub fn table(&self) -> Table {
        let names = ["game_day", "state"].into_iter().chain(GameDayOutcomeView::NAMES);
        let mut table = Table::new(names).laid_out(Layout { when_told: WHEN_TOLD, ..Layout::default() });
        table.row([self.day.game_day.as_str().into(), self.day.state.into()].into_iter().chain(self.outcome.cells()));
        table
    }

    /// A row for each route.
    #[must_use]
    pub fn routes_table(&self) -> Table {
        let names = std::iter::once("route").chain(GameDayOutcomeView::NAMES);
        let mut table = Table::new(names).laid_out(Layout { when_told: WHEN_TOLD, ..Layout::default() });
        for GameDayRouteView { route, outcome } in &self.routes {
            table.row(std::iter::once(route.as_str().into()).chain(outcome.cells()));
        }
        table
    }
}

fn percent(share: f64) -> f64 {
    (share * 1e4).round() / 1e2
}

fn in_utc(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn share(millionths: u32) -> f64 {
    f64::from(millionths) / 1e6
}

fn instant(at: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::game_day::GameFault;
    use serde_json::json;

    #[test]
    fn what_workers_have_otherwise_is_said() {
        let day = GameDay {
            name: "friday".to_owned(),
            targets: vec!["p".to_owned()],
            faults: vec![GameFault::Overloaded],
            share: 200_000,
            from: Timestamp(0),
            until: Timestamp(3_600_000),
        };
        let worker = |share: u32, faults: &[&str]| {
            let told = json!({ "name": "friday", "targets": ["p"], "faults": faults, "share_millionths": share,
                               "until_ms": 3_600_000 });
            Statistics::read(&json!({ "version": crate::domain::statistics::VERSION, "game_days": [told] }))
        };
        let (same, older) = (worker(200_000, &["overloaded"]), worker(200_000, &[]));
        let (other, none) = (worker(500_000, &["overloaded"]), Statistics::default());
        let otherwise = "game day friday: 50 % of the calls to p fail on purpose until 1970-01-01 01:00:00 UTC";
        for (now, workers, expected) in [
            (1, vec![], None),
            (1, vec![same.clone(), older], None),
            (1, vec![same.clone(), none.clone()], Some("1 live worker has no such game day")),
            (1, vec![same.clone(), other], Some(otherwise)),
            (9_999_999, vec![none], None),
            (
                9_999_999,
                vec![same],
                Some("game day friday: 20 % of the calls to p fail on purpose until 1970-01-01 01:00:00 UTC"),
            ),
        ] {
            let view = GameDayView::of(&day, Timestamp(now)).beside(&workers);
            assert_eq!(view.workers_say.as_deref(), expected);
        }
    }
}
