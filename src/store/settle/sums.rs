//! What one settlement adds to the sums.
//!
//! The rows are added up here and not in the statements that book and end: where each job is alone in its batch, its
//! attempt and its ending count towards the same sums, and one row of the tally serves both.

use super::{AttemptRow, EndingRow, Labels, tokens};
use crate::domain::ErrorClass;
use crate::store::database::Transaction;
use crate::store::{Doing, StoreError, stop_loss};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use std::collections::HashMap;

/// The provider of answers that were given again, in reports. No provider can have this name.
const FROM_CACHE: &str = "(cache)";

/// What a row counts towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key<'a> {
    hour: DateTime<Utc>,
    route: &'a str,
    project: &'a str,
    batch: &'a str,
    provider: &'a str,
    model: &'a str,
    class: &'a str,
    detail: &'a str,
}

/// The columns of the tally that a settlement fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    succeeded: i64,
    failed: i64,
    fallbacks: i64,
    attempts: i64,
    input_tokens: i64,
    cached_tokens: i64,
    output_tokens: i64,
    cost_nanos: i64,
    waste_nanos: i64,
    uncertain_nanos: i64,
    unpriced: i64,
    total_ms: i64,
}

/// Sums by what they count towards.
#[derive(Default)]
pub(super) struct Sums<'a>(HashMap<Key<'a>, Sum>);

impl<'a> Sums<'a> {
    fn of(
        &mut self,
        at: DateTime<Utc>,
        labels: &'a Labels,
        target: (&'a str, &'a str),
        class: Option<ErrorClass>,
        detail: &'a str,
    ) -> &mut Sum {
        let key = Key {
            // The whole hour before the earliest instant does not exist, and no row is that old.
            hour: at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at),
            route: &labels.route,
            project: &labels.project,
            batch: labels.batch.as_deref().unwrap_or_default(),
            provider: target.0,
            model: target.1,
            class: class.map_or("", ErrorClass::as_str),
            detail,
        };
        self.0.entry(key).or_default()
    }

    /// Counts a call that was not on the ledger before.
    pub(super) fn count_attempt(&mut self, row: &'a AttemptRow) {
        let at = super::datetime(row.ended_at);
        let target = (row.provider.as_str(), row.model.as_str());
        let sum = self.of(at, &row.labels, target, row.class, row.detail.as_deref().unwrap_or_default());
        // None of these can overflow: a settlement has some hundred rows, and each number of a row is bounded.
        let cost = row.cost.map_or(0, |cost| cost.of_a_call().0);
        let cache_write = row.usage.cache_write.saturating_add(row.usage.cache_write_1h);
        sum.attempts += 1;
        sum.input_tokens += tokens(row.usage.input) + tokens(row.usage.cache_read) + tokens(cache_write);
        sum.cached_tokens += tokens(row.usage.cache_read);
        sum.output_tokens += tokens(row.usage.output);
        sum.cost_nanos += cost;
        sum.waste_nanos += if row.class.is_some() { cost } else { 0 };
        sum.uncertain_nanos += row.uncertain.of_a_call().0;
        sum.unpriced += i64::from(row.cost.is_none());
        sum.total_ms += i64::from(row.total_ms);
    }

    /// Counts a job that ended at this instant.
    pub(super) fn count_ending(&mut self, row: &'a EndingRow, at: DateTime<Utc>) {
        let target = match &row.target {
            // No target was paid for it.
            _ if row.answered_from().is_some() => (FROM_CACHE, ""),
            Some((provider, model)) => (provider.as_str(), model.as_str()),
            None => ("", ""),
        };
        let class = row.failure.as_ref().map(|(class, _)| *class);
        let sum = self.of(at, &row.labels, target, class, "");
        sum.succeeded += i64::from(class.is_none());
        sum.failed += i64::from(class.is_some());
        sum.fallbacks += i64::from(class.is_none() && row.after_fallback);
    }

    /// The batches in which jobs have failed, or money was wasted.
    fn failing(&self) -> Vec<&str> {
        let is_lost = |sum: &Sum| sum.failed > 0 || sum.waste_nanos > 0;
        let failed = self.0.iter().filter(|(key, sum)| is_lost(sum) && !key.batch.is_empty());
        let mut batches: Vec<&str> = failed.map(|(key, _)| key.batch).collect();
        batches.sort_unstable();
        batches.dedup();
        batches
    }

    /// Writes the sums, and notes the batches in which jobs have failed or money was wasted. The sums are folded into
    /// those of their hours later.
    pub(super) async fn write(self, transaction: &mut Transaction) -> Result<(), StoreError> {
        if self.0.is_empty() {
            return Ok(());
        }
        stop_loss::note_failures(transaction, &self.failing()).await?;
        let rows: Vec<(Key<'_>, Sum)> = self.0.into_iter().collect();
        macro_rules! column {
            ($row:ident . $side:tt => $value:expr) => {
                rows.iter()
                    .map(|row| {
                        let $row = &row.$side;
                        $value
                    })
                    .collect::<Vec<_>>()
            };
        }
        sqlx::query_file!(
            "src/store/settle/sums.sql",
            &column!(key.0 => key.hour),
            &column!(key.0 => key.route) as _,
            &column!(key.0 => key.project) as _,
            &column!(key.0 => key.batch) as _,
            &column!(key.0 => key.provider) as _,
            &column!(key.0 => key.model) as _,
            &column!(key.0 => key.class) as _,
            &column!(key.0 => key.detail) as _,
            &column!(sum.1 => sum.succeeded),
            &column!(sum.1 => sum.failed),
            &column!(sum.1 => sum.fallbacks),
            &column!(sum.1 => sum.attempts),
            &column!(sum.1 => sum.input_tokens),
            &column!(sum.1 => sum.cached_tokens),
            &column!(sum.1 => sum.output_tokens),
            &column!(sum.1 => sum.cost_nanos),
            &column!(sum.1 => sum.waste_nanos),
            &column!(sum.1 => sum.uncertain_nanos),
            &column!(sum.1 => sum.unpriced),
            &column!(sum.1 => sum.total_ms),
        )
        .execute(transaction)
        .await
        .doing("adding to the sums")?;
        Ok(())
    }
}
