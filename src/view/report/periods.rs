//! Two periods of the same length, of which one report is compared with another.

use crate::domain::report::ReportBy;
use crate::store::report::{Filter, Moment};
use crate::store::{Store, StoreError};
use crate::view::moment;
use chrono::{DateTime, TimeDelta, Utc};

/// The period that a report is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The one right before it.
    Before,
    /// The one that begins then.
    From(Moment),
}

/// `before`, or the instant where the earlier period begins.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn against(text: &str) -> Result<Against, String> {
    if text == "before" { Ok(Against::Before) } else { moment::parse(text).map(Against::From) }
}

/// What the two reports are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Periods {
    pub before: Filter,
    pub now: Filter,
}

/// Why rows of two periods have nothing to do with each other.
#[must_use]
pub fn without_pairs(by: &[ReportBy]) -> Option<&'static str> {
    by.iter().any(|by| matches!(by, ReportBy::Day | ReportBy::Hour)).then_some(
        "--by day and --by hour compare nothing: no day or hour is in both periods. Leave --compare out to see them \
         one after the other",
    )
}

/// The earlier period and the later one, in whole hours, of the same length; or why there are none, in words.
///
/// # Errors
/// When the database cannot be read.
pub async fn of(store: &Store, filter: &Filter, against: Against) -> Result<Result<Periods, String>, StoreError> {
    let hour = TimeDelta::hours(1);
    let begins = store.hour_of(filter.since).await?;
    let last = store.hour_of(filter.until).await?;
    // The hour of --until counts whole, unless that is where it begins.
    let ends = if filter.until == Some(Moment::At(last)) { last } else { last + hour };
    let length = ends - begins;
    if length <= TimeDelta::zero() {
        return Ok(Err("--until is not after --since, so there is nothing between them".to_owned()));
    }
    let earlier = match against {
        Against::Before => begins.checked_sub_signed(length).unwrap_or(DateTime::<Utc>::MIN_UTC),
        Against::From(moment) => store.hour_of(Some(moment)).await?,
    };
    if earlier + length > begins {
        return Ok(Err(format!(
            "the two periods overlap: {} hours from --since on, and as many from {} on. Name an earlier instant in \
             --compare, or end the later period by --until",
            length.num_hours(),
            earlier.format("%Y-%m-%d %H:%M UTC")
        )));
    }
    let from = |since: DateTime<Utc>| Filter {
        since: Some(Moment::At(since)),
        until: Some(Moment::At(since + length)),
        ..filter.clone()
    };
    Ok(Ok(Periods { before: from(earlier), now: from(begins) }))
}

/// `2026-01-01 00:00 to 2026-01-08 00:00 UTC`.
#[must_use]
pub fn in_words(period: &Filter) -> String {
    let at = |moment| match moment {
        Some(Moment::At(at)) => at.format("%Y-%m-%d %H:%M").to_string(),
        _ => String::new(),
    };
    format!("{} to {} UTC", at(period.since), at(period.until))
}
