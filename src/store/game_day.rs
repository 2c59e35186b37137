//! What a game day did to the jobs whose calls failed on purpose, and to those beside them.

use super::{Doing, Store, StoreError};
use crate::domain::game_day::{self, GameDay};
use crate::domain::shut::Reason;
use crate::domain::{NanoUsd, Timestamp, shadow};
use chrono::DateTime;

/// What a game day did to the jobs of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GameDayOutcome {
    /// The route; empty: all of them.
    pub route: String,
    /// Calls that failed on purpose.
    pub calls: i64,
    /// Jobs that had such calls. Each of them is one of the next five.
    pub jobs: i64,
    /// Jobs that the same target answered later on.
    pub same_target: i64,
    /// Jobs that another target answered.
    pub fell_back: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub unfinished: i64,
    /// The known cost of all attempts of these jobs, and how many attempts have no known cost.
    pub cost: NanoUsd,
    pub cost_unknown: i64,
    /// What the answers of those that fell back have cost more than they would have at the first choice, and for how
    /// many of them that is not known; `None`: it is known for none.
    pub extra: Option<NanoUsd>,
    pub extra_unknown: i64,
    /// Jobs without such a call that another target answered, because the game day held their first choice back.
    pub beside: i64,
    /// The same for those.
    pub beside_extra: Option<NanoUsd>,
    pub beside_unknown: i64,
}

impl GameDayOutcome {
    /// All routes together.
    #[must_use]
    pub fn total(routes: &[Self]) -> Self {
        let either = |one: Option<NanoUsd>, other: Option<NanoUsd>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        routes.iter().fold(Self::default(), |sum, it| Self {
            route: String::new(),
            calls: sum.calls + it.calls,
            jobs: sum.jobs + it.jobs,
            same_target: sum.same_target + it.same_target,
            fell_back: sum.fell_back + it.fell_back,
            failed: sum.failed + it.failed,
            cancelled: sum.cancelled + it.cancelled,
            unfinished: sum.unfinished + it.unfinished,
            cost: sum.cost + it.cost,
            cost_unknown: sum.cost_unknown + it.cost_unknown,
            extra: either(sum.extra, it.extra),
            extra_unknown: sum.extra_unknown + it.extra_unknown,
            beside: sum.beside + it.beside,
            beside_extra: either(sum.beside_extra, it.beside_extra),
            beside_unknown: sum.beside_unknown + it.beside_unknown,
        })
    }
}

impl Store {
    /// How the jobs of a game day went on, by route.
    pub async fn game_day(&self, day: &GameDay) -> Result<Vec<GameDayOutcome>, StoreError> {
        let at = |instant: Timestamp| DateTime::from_timestamp_millis(instant.0).unwrap_or_default();
        let rows = sqlx::query_file!(
            "src/store/game_day/outcome.sql",
            at(day.from),
            at(day.until),
            game_day::CODE,
            day.mark(),
            Reason::GameDay.as_str(),
            &day.targets,
            shadow::route_name("")
        )
        .fetch_all(&self.db)
        .await
        .doing("looking at the jobs of a game day")?;
        let outcomes = rows.into_iter().map(|row| GameDayOutcome {
            route: row.route,
            calls: row.calls,
            jobs: row.jobs,
            same_target: row.same_target,
            fell_back: row.fell_back,
            failed: row.failed,
            cancelled: row.cancelled,
            unfinished: row.unfinished,
            cost: NanoUsd(row.cost_nanos),
            cost_unknown: row.cost_unknown,
            extra: row.extra_nanos.map(NanoUsd),
            extra_unknown: row.extra_unknown,
            beside: row.beside,
            beside_extra: row.beside_extra_nanos.map(NanoUsd),
            beside_unknown: row.beside_unknown,
        });
        Ok(outcomes.collect())
    }
}
