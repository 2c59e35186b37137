//! What a report is asked for: its kind, by what it is grouped, and of which part of the work. Every face asks here.

use super::prompt_caches::prompt_caches;
use super::quality::{by_of_quality, quality};
use super::shadow::shadows;
use super::{by_of_failures, cache, cost, failures, fallbacks, latency, reasks, waste};
use crate::domain::ErrorClass;
use crate::domain::abandonment::Abandonment;
use crate::domain::counted::counted;
use crate::domain::timeline::Stray;
use crate::store::report::{Filter, Grouping, Moment, OTHERS, Totals};
use crate::store::{Store, StoreError};
use crate::view::table::Table;
use std::time::Duration;

/// How many batches are told apart, unless it is asked for otherwise.
pub const MOST_BATCHES: usize = 1_000;

/// How things are now is what reports of latencies and re-asks are for: by default they cover this time.
pub const LATELY: Duration = Duration::from_hours(24);

/// Words that a report is asked for in: an enum, whose names and meanings stand in one place.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal: $meaning:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = $meaning] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The names of all.
            #[must_use]
            pub fn names() -> Vec<&'static str> {
                Self::ALL.iter().map(|one| one.as_str()).collect()
            }

            /// The name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// What it means, in words.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)*
                }
            }

            /// The one of this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == name)
            }
        }
    };
}

words! {
    /// A kind of report.
    Kind {
        Cost = "cost": "Dollars and tokens",
        Quality = "quality":
            "How many answers were accepted, what was wrong with the others, and dollars per accepted answer",
        Failures = "failures":
            "Attempts and jobs that failed, by error class, with the provider's code and what it says",
        Waste = "waste": "Money for answers that were not used",
        Fallbacks = "fallbacks":
            "Answers that did not come from the first choice: which it was, why, who answered, and what that cost more",
        Reasks = "reasks":
            "Calls that named the fault of a rejected answer, and what came of them; of the last 24 hours \
             unless --since says otherwise",
        Latency = "latency":
            "How long accepted answers took; of the last 24 hours unless --since says otherwise",
        Shadow = "shadow":
            "Answers beside those of the shadows of their jobs: how many agree, and what each cost and took. Route, \
             project, batch and login are those of the jobs, provider and model those of the shadows",
        Cache = "cache": "Answers that the caches of routes gave again, and the money that they saved",
        PromptCache = "prompt-cache":
            "Input that was read from the prompt caches of providers, and the money that this saved",
    }
}

words! {
    /// What a report is grouped by.
    By {
        Provider = "provider": "The provider that was called",
        Model = "model": "The model that was called",
        Route = "route": "The route that the job named",
        Project = "project": "The project that pays",
        Batch = "batch": "The batch",
        Login = "login": "The login that enqueued the job",
        Class = "class": "Error class and kind of soft failure",
        Code = "code": "Code of a failure: the provider's, or else the HTTP status",
        From = "from": "Of fallbacks: the first choice",
        Why = "why": "Of fallbacks: why the first choice did not answer",
        To = "to": "Of fallbacks: the target that answered",
        Day = "day": "Day, UTC",
        Hour = "hour": "Hour, UTC",
    }
}

impl By {
    fn dimensions(self) -> &'static [Grouping] {
        match self {
            Self::Provider => &[Grouping::Provider],
            Self::Model => &[Grouping::Model],
            Self::Route => &[Grouping::Route],
            Self::Project => &[Grouping::Project],
            Self::Batch => &[Grouping::Batch],
            Self::Login => &[Grouping::Login],
            Self::Class => &[Grouping::Class, Grouping::Detail],
            Self::Code => &[Grouping::Code],
            Self::From => &[Grouping::From],
            Self::Why => &[Grouping::Why],
            Self::To => &[Grouping::To],
            Self::Day => &[Grouping::Day],
            Self::Hour => &[Grouping::Hour],
        }
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
pub async fn read(store: &Store, kind: Kind, by: &[Grouping], filter: Filter) -> Result<ReportRead, StoreError> {
    let (mut unpriced, mut note) = (0, None);
    let is_of_lately = matches!(kind, Kind::Reasks | Kind::Latency);
    let filter = Filter { since: filter.since.or(is_of_lately.then_some(Moment::Ago(LATELY))), ..filter };
    let table = match kind {
        Kind::Cost => {
            let (rows, all) = sums(store, by, &filter).await?;
            unpriced = all.unpriced;
            cost(by, rows, &all)
        }
        Kind::Quality => {
            let (rows, all) = sums(store, &by_of_quality(by), &filter).await?;
            unpriced = all.unpriced;
            quality(by, &rows)
        }
        Kind::Failures => {
            let filter = Filter { failures_only: true, ..filter };
            let (rows, all) = sums(store, &by_of_failures(by), &filter).await?;
            unpriced = all.unpriced;
            failures(by, rows, &all, &store.failure_words().await?)
        }
        Kind::Waste => {
            let (rows, all) = sums(store, by, &filter).await?;
            unpriced = all.unpriced;
            note = lost_with_commits(store, &filter).await?;
            waste(by, rows, &all)
        }
        Kind::Fallbacks => {
            let (rows, all) = sums(store, by, &filter).await?;
            unpriced = all.unpriced;
            fallbacks(by, rows, &all)
        }
        Kind::Reasks => {
            let rows = store.totals(by, &filter).await?;
            let all = store.totals(&[], &filter).await?.pop().unwrap_or_default();
            reasks(by, rows, &all)
        }
        Kind::Shadow => {
            let rows = store.shadows(by, &filter).await?;
            let all = store.shadows(&[], &filter).await?.pop();
            shadows(by, &rows, all.as_ref())
        }
        Kind::PromptCache => {
            let (rows, all) = sums(store, by, &filter).await?;
            prompt_caches(by, rows, &all)
        }
        Kind::Cache => cache(by, store.cache_uses(by, &filter).await?),
        Kind::Latency => latency(by, store.latencies(by, &filter).await?),
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
pub fn dimensions(kind: Kind, by: &[By]) -> Vec<Grouping> {
    let usual: &[By] = match kind {
        Kind::Cost | Kind::Quality | Kind::Latency | Kind::Reasks => &[By::Provider, By::Model],
        Kind::Failures => &[By::Class, By::Provider, By::Model],
        Kind::Waste => &[By::Provider, By::Model, By::Class],
        Kind::Shadow | Kind::PromptCache => &[By::Route, By::Provider, By::Model],
        Kind::Cache => &[By::Route],
        Kind::Fallbacks => &[By::From, By::Why, By::To],
    };
    let mut dimensions: Vec<Grouping> = Vec::new();
    for dimension in if by.is_empty() { usual } else { by }.iter().flat_map(|by| by.dimensions()) {
        if !dimensions.contains(dimension) {
            dimensions.push(*dimension);
        }
    }
    dimensions
}

/// Why a dimension says nothing in a report: an answer that is used has no class.
#[must_use]
pub fn says_nothing(kind: Kind, by: &[By]) -> Option<&'static str> {
    let is_known_of_caches = |by: &By| matches!(by, By::Route | By::Project | By::Day | By::Hour);
    if kind == Kind::Cache && !by.iter().all(is_known_of_caches) {
        return Some("what the cache saved is kept by route, project, day and hour: --by takes these");
    }
    if kind != Kind::Fallbacks && by.iter().any(|by| matches!(by, By::From | By::Why | By::To)) {
        return Some("--by from, why and to tell fallbacks apart: `sluice report fallbacks` takes them");
    }
    if !matches!(kind, Kind::Failures | Kind::Waste) && by.contains(&By::Code) {
        return Some(
            "--by code says nothing here: only failures have a code. `sluice report failures --by code` has them",
        );
    }
    if kind == Kind::Quality && by.contains(&By::Class) {
        return Some("--by class says nothing here: this report has a column for each kind of unusable answer");
    }
    let is_of_answers = matches!(kind, Kind::Fallbacks | Kind::Latency | Kind::Shadow);
    (is_of_answers && by.contains(&By::Class)).then_some(
        "--by class says nothing here: this report is of answers that were used, and only failures have a class. \
         `sluice report failures --by class` has those",
    )
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
    fn classes_are_refused_where_nothing_has_one() {
        for kind in [Kind::Fallbacks, Kind::Latency, Kind::Shadow] {
            assert!(says_nothing(kind, &[By::Day, By::Class]).is_some(), "{kind:?}");
            assert_eq!(says_nothing(kind, &[By::Day, By::Route]), None, "{kind:?}");
        }
        for kind in [Kind::Cost, Kind::Failures, Kind::Waste] {
            assert_eq!(says_nothing(kind, &[By::Class]), None, "{kind:?}");
        }
        for by in [By::Class, By::Code, By::From, By::Why, By::To] {
            assert!(says_nothing(Kind::Quality, &[by]).is_some(), "{by:?}");
        }
        assert_eq!(says_nothing(Kind::Fallbacks, &[By::From, By::Why, By::To, By::Login]), None);
    }

    #[test]
    fn a_dimension_that_is_named_twice_is_one_column() {
        assert_eq!(dimensions(Kind::Cost, &[By::Day, By::Class, By::Day]).len(), 3);
        assert_eq!(dimensions(Kind::Failures, &[By::Class]), [Grouping::Class, Grouping::Detail]);
    }
}
