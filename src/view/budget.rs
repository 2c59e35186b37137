//! Budgets: what may be spent on what, how much of it is, and when it will end.

use super::dollars::Dollars;
use super::table::{Cell, Layout, Table};
use crate::domain::NanoUsd;
use crate::domain::budget::{Coverage, Need, Period};
use crate::domain::counted::counted;
use crate::store::budget::BudgetRow;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use std::fmt;

/// A budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BudgetView {
    pub budget: String,
    /// `total`, `project`, `route`, `provider`, `batch` or `login`.
    pub scope: &'static str,
    /// The name of the project, route, provider, batch or login.
    pub scope_name: Option<String>,
    /// `hour`, `day`, `month` or `once`.
    pub per: &'static str,
    /// When its window began; `None`: it counts once.
    pub starts_at: Option<DateTime<Utc>>,
    /// When its window turns; `None`: never.
    pub ends_at: Option<DateTime<Utc>>,
    pub limit: Dollars,
    pub spent: Dollars,
    /// The worst cases of calls under way.
    pub reserved: Dollars,
    /// The amount that may have been spent on top: it counts.
    pub uncertain: Dollars,
    /// The amount left; negative where the limit was lowered.
    pub room: Dollars,
    /// Dollars per hour, by about the last ten minutes.
    pub burn_per_hour: Dollars,
    /// When it is spent at that rate; `None`: not in this window.
    pub lasts_until: Option<DateTime<Utc>>,
    /// `ok`, `soft` (past its soft threshold), `short` (the amount left does not cover the jobs that are left) or
    /// `full` (its work waits).
    pub state: &'static str,
    /// Jobs that it covers and that have not ended; `None`: not told.
    pub jobs_left: Option<i64>,
    /// About what those will cost, as the jobs before them; `None`: none has ended lately, or it is not told.
    pub needs: Option<Dollars>,
    /// Its faults by the configuration here, in words.
    pub faults: Vec<String>,
    /// The share of the limit from which on it alerts.
    pub soft: Option<f64>,
    /// When that was crossed in this window.
    pub soft_at: Option<DateTime<Utc>>,
    /// When it refused a call for the first time in this window.
    pub full_at: Option<DateTime<Utc>>,
    /// The route along which its jobs go from the soft threshold on.
    pub then_route: Option<String>,
    /// `refuse` or `allow`.
    pub unpriced: &'static str,
    /// Calls in this window whose price is unknown.
    pub unpriced_calls: i64,
    /// The login that set it last.
    pub set_by: String,
    pub set_at: DateTime<Utc>,
    /// Whether a configuration has it.
    pub is_configured: bool,
    #[serde(skip)]
    covers: Coverage,
}

impl BudgetView {
    /// A budget as of this instant.
    #[must_use]
    pub fn of(row: &BudgetRow, now: DateTime<Utc>) -> Self {
        let (standing, budget) = (&row.standing, &row.standing.budget);
        let ends_at = standing.ends_at.and_then(|at| DateTime::from_timestamp_millis(at.0));
        let state = if standing.holds() {
            "full"
        } else if standing.is_soft() {
            "soft"
        } else {
            "ok"
        };
        let name = budget.scope.name();
        Self {
            budget: budget.name.clone(),
            scope: budget.scope.kind(),
            scope_name: (!name.is_empty()).then(|| name.to_owned()),
            per: budget.period.as_str(),
            starts_at: (budget.period != Period::Once).then_some(row.starts_at),
            ends_at,
            limit: Dollars(budget.limit),
            spent: Dollars(standing.spent),
            reserved: Dollars(standing.reserved),
            uncertain: Dollars(standing.uncertain),
            room: Dollars(standing.room()),
            burn_per_hour: Dollars(row.burn),
            // What is used up lasts no longer.
            lasts_until: lasts_until(budget.limit - standing.used(), row.burn, ends_at, now)
                .filter(|_| !standing.holds()),
            state,
            jobs_left: None,
            needs: None,
            faults: Vec::new(),
            soft: budget.soft.map(|millionths| f64::from(millionths) / 1e6),
            soft_at: row.soft_at,
            full_at: row.full_at,
            then_route: budget.then_route.clone(),
            unpriced: budget.unpriced.as_str(),
            unpriced_calls: row.unpriced_calls,
            set_by: row.set_by.clone(),
            set_at: row.set_at,
            is_configured: row.is_configured,
            covers: budget.scope.clone(),
        }
    }
}

impl BudgetView {
    /// The same with the amount that the jobs left will need, and with its faults by the configuration.
    #[must_use]
    pub fn beside(self, need: Option<Need>, faults: Vec<String>) -> Self {
        let Some(need) = need else { return Self { faults, ..self } };
        let expected = need.expected;
        let left = self.limit.0 - self.spent.0 - self.uncertain.0;
        let is_short = self.state != "full" && expected.is_some_and(|expected| expected > left);
        Self {
            jobs_left: Some(need.jobs_left),
            needs: expected.map(Dollars),
            state: match self.state {
                _ if is_short => "short",
                // No work waits for room in it.
                "full" if need.jobs_left == 0 && matches!(self.covers, Coverage::Batch(_)) => "ok",
                state => state,
            },
            // Without jobs nothing more is spent, however fast the last ones spent it.
            lasts_until: self.lasts_until.filter(|_| need.jobs_left > 0),
            faults,
            ..self
        }
    }

    /// What it will not cover, in words; `None`: it covers all that is left, as far as is known.
    #[must_use]
    pub fn shortage_in_words(&self) -> Option<String> {
        let (jobs, needs) = (self.jobs_left.filter(|_| self.state == "short")?, self.needs?);
        let turns = if self.per == "once" { "" } else { " in this window" };
        Some(format!(
            "budget {}: {} about ${needs}, and ${} is left{turns}; `sluice budget raise {} AMOUNT` lets all run",
            self.budget,
            counted(jobs, "job that is left needs", "jobs that are left need"),
            Dollars(self.limit.0 - self.spent.0 - self.uncertain.0),
            self.budget
        ))
    }
}

/// When the amount left is spent at this rate an hour, if that is before the window turns.
fn lasts_until(
    left: NanoUsd,
    burn: NanoUsd,
    ends_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    if burn.0 <= 0 {
        return None;
    }
    let seconds = i64::try_from(i128::from(left.0.max(0)) * 3600 / i128::from(burn.0)).ok()?;
    let at = now.checked_add_signed(TimeDelta::try_seconds(seconds)?)?;
    // A year ahead is no forecast.
    let is_soon = seconds < 366 * 86_400 && ends_at.is_none_or(|ends_at| at < ends_at);
    is_soon.then_some(at)
}

/// All budgets, a row for each.
#[must_use]
pub fn table(budgets: &[BudgetView]) -> Table {
    let mut table = Table::new([
        "budget",
        "covers",
        "per",
        "limit",
        "spent",
        "reserved",
        "uncertain",
        "burn_per_hour",
        "lasts_until",
        "state",
        "jobs_left",
        "needs",
        "faults",
        "ends_at",
        "soft",
        "then_route",
        "unpriced",
        "unpriced_calls",
        "set_by",
        "set_at",
    ])
    .laid_out(Layout {
        wide: &["jobs_left", "needs", "faults", "ends_at", "soft", "then_route", "unpriced", "set_by", "set_at"],
        when_told: &["uncertain", "reserved", "unpriced_calls"],
        give_way: &["covers", "unpriced_calls", "lasts_until", "burn_per_hour", "per", "reserved"],
        ..Layout::default()
    });
    for budget in budgets {
        table.row([
            budget.budget.as_str().into(),
            budget.covers.to_string().into(),
            budget.per.into(),
            budget.limit.into(),
            budget.spent.into(),
            budget.reserved.into(),
            budget.uncertain.into(),
            budget.burn_per_hour.into(),
            budget.lasts_until.map(minute).into(),
            budget.state.into(),
            budget.jobs_left.into(),
            budget.needs.into(),
            budget.faults.join("; ").into(),
            budget.ends_at.map(minute).into(),
            budget.soft.map_or(Cell::Empty, Cell::Share),
            budget.then_route.clone().into(),
            budget.unpriced.into(),
            budget.unpriced_calls.into(),
            budget.set_by.as_str().into(),
            Cell::Time(budget.set_at),
        ]);
    }
    table
}

/// To the minute: it is a forecast, or an hour on the hour.
fn minute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M").to_string()
}

/// A budget was set, raised or removed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BudgetChangeView {
    pub budget: String,
    /// Whether something differs from before.
    pub changed: bool,
    /// The limit now; `None`: it is removed.
    pub limit: Option<Dollars>,
    /// The limit before; `None`: there was none.
    pub before: Option<Dollars>,
    /// What it covers, in words.
    pub covers: String,
    pub per: &'static str,
}

impl fmt::Display for BudgetChangeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { budget, covers, .. } = self;
        let per = if self.per == "once" { "once".to_owned() } else { format!("per {}", self.per) };
        match (self.limit, self.before) {
            (None, Some(_)) => write!(f, "budget {budget} is removed: {covers} is spent on without it"),
            (None, None) => write!(f, "there was no budget {budget}"),
            (Some(limit), _) if !self.changed => write!(f, "budget {budget} was ${limit} {per} for {covers} already"),
            (Some(limit), Some(before)) if before != limit => {
                write!(f, "budget {budget} is ${limit} {per} for {covers}; it was ${before}")
            }
            (Some(limit), _) => write!(f, "budget {budget} is ${limit} {per} for {covers}"),
        }
    }
}
