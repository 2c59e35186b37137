//! What a report is asked for: its kind, by what it is grouped, and of which part of the work. Every face asks here.

use super::prompt_caches::prompt_caches;
use super::quality::{by_of_quality, quality};
use super::shadow::shadows;
use super::{by_of_failures, cache, cost, failures, fallbacks, latency, reasks, waste};
use crate::domain::ErrorClass;
use crate::domain::abandonment::Abandonment;
use crate::domain::counted::counted;
use crate::domain::report::{ReportBy, ReportKind};
use crate::domain::timeline::Stray;
use crate::store::report::{Filter, Grouping, Moment, OTHERS, Totals};
use crate::store::{Store, StoreError};
use crate::view::table::Table;

/// How many batches are told apart, unless it is asked for otherwise.
pub const MOST_BATCHES: usize = 1_000;

fn groupings(by: ReportBy) -> &'static [Grouping] {
    match by {
        ReportBy::Provider => &[Grouping::Provider],
        ReportBy::Model => &[Grouping::Model],
        ReportBy::Route => &[Grouping::Route],
        ReportBy::Project => &[Grouping::Project],
        ReportBy::Batch => &[Grouping::Batch],
        ReportBy::Login => &[Grouping::Login],
        ReportBy::Class => &[Grouping::Class, Grouping::Detail],
        ReportBy::Code => &[Grouping::Code],
        ReportBy::From => &[Grouping::From],
        ReportBy::Why => &[Grouping::Why],
        ReportBy::To => &[Grouping::To],
        ReportBy::Day => &[Grouping::Day],
        ReportBy::Hour => &[Grouping::Hour],
    }
}

/// A report, and what its reader has to know beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRead {
    pub table: Table,
    /// Attempts whose price is unknown, and which are not in the sums.
    pub unpriced: i64,
    /// Something else that is told beside the table.
    pub note: Option<String>,
}

/// The report of what the filter lets through, by what [`dimensions`] returned.
///
/// # Errors
/// When the database cannot be read.
pub async fn read(store: &Store, kind: ReportKind, by: &[Grouping], filter: Filter) -> Result<ReportRead, StoreError> {
    let (mut unpriced, mut note) = (0, None);
    let filter = Filter { since: filter.since.or(kind.usual_span().map(Moment::Ago)), ..filter };
    let table = match kind {
        ReportKind::Cost => {
            let (rows, all) = sums(store, by, &filter).await?;
            unpriced = all.unpriced;
            cost(by, rows, &all)
        }
        ReportKind::Quality => {
            let (rows, all) = sums(store, &by_of_quality(by), &filter).await?;
            unpriced = all.unpriced;
            quality(by, &rows)
        }
        ReportKind::Failures => {
            let filter = Filter { failures_only: true, ..filter };
            let (rows, all) = sums(store, &by_of_failures(by), &filter).await?;
            unpriced = all.unpriced;
            failures(by, rows, &all, &store.failure_words().await?)
        }
        ReportKind::Waste => {
            let (rows, all) = sums(store, by, &filter).await?;
            unpriced = all.unpriced;
            note = lost_with_commits(store, &filter).await?;
            waste(by, rows, &all)
        }
        ReportKind::Fallbacks => {
            let (rows, all) = sums(store, by, &filter).await?;
            unpriced = all.unpriced;
            fallbacks(by, rows, &all)
        }
        ReportKind::Reasks => {
            let rows = store.totals(by, &filter).await?;
            let all = store.totals(&[], &filter).await?.pop().unwrap_or_default();
            reasks(by, rows, &all)
        }
        ReportKind::Shadow => {
            let rows = store.shadows(by, &filter).await?;
            let all = store.shadows(&[], &filter).await?.pop();
            shadows(by, &rows, all.as_ref())
        }
        ReportKind::PromptCache => {
            let (rows, all) = sums(store, by, &filter).await?;
            prompt_caches(by, rows, &all)
        }
        ReportKind::Cache => cache(by, store.cache_uses(by, &filter).await?),
        ReportKind::Latency => latency(by, store.latencies(by, &filter).await?),
    };
    Ok(ReportRead { table, unpriced, note })
}

/// Gives at most so many batches a row of their own, those in which something happened last; 0: all of them. Returns
/// the note about that, in words; `None`: all have one.
///
/// # Errors
/// When the database cannot be read.
pub async fn show_latest(store: &Store, filter: &mut Filter, most: usize) -> Result<Option<String>, StoreError> {
    if most == 0 {
        return Ok(None);
    }
    filter.shown = store.latest_batches_in(filter, most).await?;
    Ok(filter.shown.as_ref().map(|shown| {
        let shown = counted(shown.len(), "batch", "batches");
        format!(
            "the {shown} in which something happened last, within an hour by name, have rows; all others are in the \
             row {OTHERS}"
        )
    }))
}

/// The sums of each requested group, and those of everything, failed or not.
async fn sums(store: &Store, by: &[Grouping], filter: &Filter) -> Result<(Vec<Totals>, Totals), StoreError> {
    let rows = store.totals(by, filter).await?;
    let filter = Filter { failures_only: false, ..filter.clone() };
    let all = store.totals(&[], &filter).await?.pop().unwrap_or_default();
    Ok((rows, all))
}

/// The columns that tell the rows apart: those asked for, or the usual ones.
#[must_use]
pub fn dimensions(kind: ReportKind, by: &[ReportBy]) -> Vec<Grouping> {
    let usual: &[ReportBy] = match kind {
        ReportKind::Cost | ReportKind::Quality | ReportKind::Latency | ReportKind::Reasks => {
            &[ReportBy::Provider, ReportBy::Model]
        }
        ReportKind::Failures => &[ReportBy::Class, ReportBy::Provider, ReportBy::Model],
        ReportKind::Waste => &[ReportBy::Provider, ReportBy::Model, ReportBy::Class],
        ReportKind::Shadow | ReportKind::PromptCache => &[ReportBy::Route, ReportBy::Provider, ReportBy::Model],
        ReportKind::Cache => &[ReportBy::Route],
        ReportKind::Fallbacks => &[ReportBy::From, ReportBy::Why, ReportBy::To],
    };
    let mut dimensions: Vec<Grouping> = Vec::new();
    for dimension in if by.is_empty() { usual } else { by }.iter().flat_map(|by| groupings(*by)) {
        if !dimensions.contains(dimension) {
            dimensions.push(*dimension);
        }
    }
    dimensions
}

/// The money paid in vain because the database lost commits that it had confirmed; `None`: none.
async fn lost_with_commits(store: &Store, filter: &Filter) -> Result<Option<String>, StoreError> {
    let mut lost = Stray::default();
    for row in store.totals(&[Grouping::Class, Grouping::Detail], filter).await? {
        let [class, detail] = [Grouping::Class, Grouping::Detail].map(|part| row.keys.get(part).unwrap_or_default());
        let mut lost_with_commits = Abandonment::ALL.into_iter().filter(|why| why.is_lost_with_commits());
        if class == ErrorClass::Abandoned.as_str() && lost_with_commits.any(|why| why.as_str() == detail) {
            lost.calls += row.attempts;
            lost.cost += row.waste;
            lost.uncertain += row.uncertain;
            lost.unpriced += row.unpriced;
        }
    }
    Ok((lost.calls > 0).then(|| {
        format!(
            "lost with commits of the database, by a failover or a restore: {}, {}; `sluice doctor` says more",
            counted(lost.calls, "call", "calls"),
            lost.money()
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dimension_that_is_named_twice_is_one_column() {
        assert_eq!(dimensions(ReportKind::Cost, &[ReportBy::Day, ReportBy::Class, ReportBy::Day]).len(), 3);
        assert_eq!(dimensions(ReportKind::Failures, &[ReportBy::Class]), [Grouping::Class, Grouping::Detail]);
    }
}
