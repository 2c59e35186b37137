//! What a game day did to the jobs whose calls failed on purpose.

use super::{Doing, Store, StoreError};
use crate::domain::{NanoUsd, Timestamp, game_day};
use chrono::DateTime;

/// The jobs of a game day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GameDayOutcome {
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
    /// The known cost of all attempts of these jobs.
    pub cost: NanoUsd,
    /// Answers within that time to other jobs of the same routes, and the known cost of those answers.
    pub other_answers: i64,
    pub other_cost: NanoUsd,
}

impl Store {
    /// How the jobs of the game day of this name went on.
    pub async fn game_day(&self, name: &str, from: Timestamp, until: Timestamp) -> Result<GameDayOutcome, StoreError> {
        let at = |instant: Timestamp| DateTime::from_timestamp_millis(instant.0).unwrap_or_default();
        let row = sqlx::query_file!(
            "src/store/game_day/outcome.sql",
            at(from),
            at(until),
            game_day::CODE,
            game_day::mark(name)
        )
        .fetch_one(&self.db)
        .await
        .doing("looking at the jobs of a game day")?;
        Ok(GameDayOutcome {
            calls: row.calls,
            jobs: row.jobs,
            same_target: row.same_target,
            fell_back: row.fell_back,
            failed: row.failed,
            cancelled: row.cancelled,
            unfinished: row.unfinished,
            cost: NanoUsd(row.cost_nanos),
            other_answers: row.other_answers,
            other_cost: NanoUsd(row.other_nanos),
        })
    }
}
