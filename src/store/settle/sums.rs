//! What one settlement adds to the sums.
//!
//! The rows are added up here and not in the statements that book and end: where each job is alone in its batch, its
//! attempt and its ending count towards the same sums, and one row of the tally serves both.

use super::{AttemptRow, EndingRow, Labels, tokens};
use crate::domain::{ErrorClass, Histogram};
use crate::store::claim::datetime;
use crate::store::copy::copied;
use crate::store::database::Transaction;
use crate::store::{Doing, StoreError, stop_loss};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use std::borrow::Cow;
use std::collections::HashMap;

/// The provider of answers that were given again, in reports. No provider can have this name.
const FROM_CACHE: &str = "(cache)";

/// How long a code is at most, in characters: what a provider sends is not bounded.
const MOST_CODE: usize = 60;

/// How long the message that is kept of failures is at most, in characters.
const MOST_SAMPLE: usize = 300;

/// What a row counts towards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key<'a> {
    hour: DateTime<Utc>,
    route: &'a str,
    project: &'a str,
    batch: &'a str,
    login: &'a str,
    provider: &'a str,
    model: &'a str,
    class: &'a str,
    detail: &'a str,
    /// The code of a failure.
    code: Cow<'a, str>,
    /// The first choice that did not give the answer, and why.
    instead_of: Cow<'a, str>,
    instead_why: Cow<'a, str>,
}

/// The columns of the tally that a settlement fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum<'a> {
    succeeded: i64,
    failed: i64,
    fallbacks: i64,
    repaired: i64,
    attempts: i64,
    input_tokens: i64,
    cached_tokens: i64,
    output_tokens: i64,
    cost_nanos: i64,
    waste_nanos: i64,
    uncertain_nanos: i64,
    unpriced: i64,
    total_ms: i64,
    reasks: i64,
    reask_cost_nanos: i64,
    reask_unpriced: i64,
    /// What answers cost more than they would have at the first choice.
    extra_nanos: i64,
    /// Answers of which that is not known.
    extra_unknown: i64,
    cache_write_tokens: i64,
    /// Tokens read from a cache or written into it, whose prices are known.
    cache_priced_tokens: i64,
    /// What that saved.
    cache_saved_nanos: i64,
    /// How long answers took that were accepted.
    latency: Histogram,
    /// When they began to arrive.
    first_byte: Histogram,
    /// What the provider said of one of the failures.
    sample: Option<&'a str>,
}

/// Sums by what they count towards, and the calls that are counted in them.
#[derive(Default)]
pub(super) struct Sums<'a> {
    by_key: HashMap<Key<'a>, Sum<'a>>,
    calls: Vec<&'a AttemptRow>,
}

impl<'a> Key<'a> {
    fn of(at: DateTime<Utc>, labels: &'a Labels, target: (&'a str, &'a str), class: Option<ErrorClass>) -> Self {
        Self {
            // The whole hour before the earliest instant does not exist, and no row is that old.
            hour: at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at),
            route: &labels.route,
            project: &labels.project,
            batch: labels.batch.as_deref().unwrap_or_default(),
            login: &labels.login,
            provider: target.0,
            model: target.1,
            class: class.map_or("", ErrorClass::as_str),
            detail: "",
            code: Cow::Borrowed(""),
            instead_of: Cow::Borrowed(""),
            instead_why: Cow::Borrowed(""),
        }
    }

    fn of_attempt(row: &'a AttemptRow) -> Self {
        let target = (row.provider.as_str(), row.model.as_str());
        let mut key = Self::of(datetime(row.ended_at), &row.labels, target, row.class);
        key.detail = row.detail.as_deref().unwrap_or_default();
        match (row.class, &row.first_choice) {
            (Some(_), _) => key.code = failure_code(row),
            (None, Some(first)) => {
                key.instead_of = super::clean(&first.target);
                key.instead_why = super::clean(&first.why);
            }
            (None, None) => {}
        }
        key
    }
}

/// The code under which a failure is counted: the provider's own, or else the HTTP status. The database does the same
/// where a cost is corrected (`sluice.failure_code`).
fn failure_code(row: &AttemptRow) -> Cow<'_, str> {
    match row.code.as_deref().filter(|code| !code.is_empty()) {
        Some(code) if code.chars().nth(MOST_CODE).is_none() && !code.chars().any(char::is_control) => code.into(),
        Some(code) => readable(&super::clean(code), MOST_CODE).into(),
        None => row.http_status.filter(|status| *status >= 400).map_or_else(Cow::default, |it| it.to_string().into()),
    }
}

/// The beginning of a text of others, on one line.
fn readable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The part of a failure that is kept for people to read: the provider's words. A validator's words about an answer may
/// quote it, and are not kept.
fn sample(row: &AttemptRow) -> Option<&str> {
    let is_of_answer = matches!(row.class?, ErrorClass::SoftFailure | ErrorClass::OutputInvalid);
    row.message.as_deref().filter(|message| !is_of_answer && !message.is_empty())
}

impl<'a> Sums<'a> {
    /// Counts a call that was not on the ledger before.
    pub(super) fn count_attempt(&mut self, row: &'a AttemptRow) {
        self.calls.push(row);
        let sum = self.by_key.entry(Key::of_attempt(row)).or_default();
        // None of these can overflow: a settlement has some hundred rows, and each number of a row is bounded.
        let cost = row.cost.map_or(0, |cost| cost.of_a_call().0);
        let cache_write = row.usage.cache_write.saturating_add(row.usage.cache_write_1h);
        sum.attempts += 1;
        sum.input_tokens += tokens(row.usage.input) + tokens(row.usage.cache_read) + tokens(cache_write);
        sum.cached_tokens += tokens(row.usage.cache_read);
        sum.cache_write_tokens += tokens(cache_write);
        if let Some(saved) = super::cache_saved(row) {
            sum.cache_priced_tokens += tokens(row.usage.cache_read) + tokens(cache_write);
            sum.cache_saved_nanos += saved.0;
        }
        sum.output_tokens += tokens(row.usage.output);
        sum.cost_nanos += cost;
        sum.waste_nanos += if row.class.is_some() { cost } else { 0 };
        sum.uncertain_nanos += row.uncertain.of_a_call().0;
        sum.unpriced += i64::from(row.cost.is_none());
        sum.total_ms += i64::from(row.total_ms);
        if row.reask_of.is_some() {
            sum.reasks += 1;
            sum.reask_cost_nanos += cost;
            sum.reask_unpriced += i64::from(row.cost.is_none());
        }
        if row.class.is_none() {
            sum.latency.add(i64::from(row.total_ms));
            if let Some(first_byte) = row.first_byte_ms {
                sum.first_byte.add(i64::from(first_byte));
            }
            if let Some(first) = &row.first_choice {
                match row.cost.zip(first.cost) {
                    Some((_, there)) => sum.extra_nanos += cost - there.of_a_call().0,
                    None => sum.extra_unknown += 1,
                }
            }
        }
        sum.sample = sample(row).or(sum.sample);
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
        let sum = self.by_key.entry(Key::of(at, &row.labels, target, class)).or_default();
        sum.succeeded += i64::from(class.is_none());
        sum.failed += i64::from(class.is_some());
        sum.fallbacks += i64::from(class.is_none() && row.after_fallback);
        sum.repaired += i64::from(class.is_none() && row.repaired && row.answered_from().is_none());
    }

    /// The batches in which jobs have failed, or money was wasted.
    fn failing(&self) -> Vec<&str> {
        let is_lost = |sum: &Sum| sum.failed > 0 || sum.waste_nanos > 0;
        let failed = self.by_key.iter().filter(|(key, sum)| is_lost(sum) && !key.batch.is_empty());
        let mut batches: Vec<&str> = failed.map(|(key, _)| key.batch).collect();
        batches.sort_unstable();
        batches.dedup();
        batches
    }

    /// Writes the sums, and notes the batches in which jobs have failed or money was wasted. The sums are folded into
    /// those of their hours later. Where there are budgets, what was reserved for the calls turns into what they cost;
    /// `has_budgets`: whether there are, if that is known.
    pub(super) async fn write(
        self,
        transaction: &mut Transaction,
        has_budgets: Option<bool>,
    ) -> Result<(), StoreError> {
        if self.by_key.is_empty() {
            return Ok(());
        }
        stop_loss::note_failures(transaction, &self.failing()).await?;
        let written = copied!(transaction, "sluice.tally", &self.by_key, row => {
            hour: row.0.hour,
            route: row.0.route,
            project: row.0.project,
            batch: row.0.batch,
            login: row.0.login,
            provider: row.0.provider,
            model: row.0.model,
            class: row.0.class,
            detail: row.0.detail,
            code: row.0.code,
            instead_of: row.0.instead_of,
            instead_why: row.0.instead_why,
            succeeded: row.1.succeeded,
            failed: row.1.failed,
            fallbacks: row.1.fallbacks,
            repaired: row.1.repaired,
            attempts: row.1.attempts,
            input_tokens: row.1.input_tokens,
            cached_tokens: row.1.cached_tokens,
            output_tokens: row.1.output_tokens,
            cost_nanos: row.1.cost_nanos,
            waste_nanos: row.1.waste_nanos,
            uncertain_nanos: row.1.uncertain_nanos,
            unpriced: row.1.unpriced,
            total_ms: row.1.total_ms,
            reasks: row.1.reasks,
            reask_cost_nanos: row.1.reask_cost_nanos,
            reask_unpriced: row.1.reask_unpriced,
            extra_nanos: row.1.extra_nanos,
            extra_unknown: row.1.extra_unknown,
            cache_write_tokens: row.1.cache_write_tokens,
            cache_priced_tokens: row.1.cache_priced_tokens,
            cache_saved_nanos: row.1.cache_saved_nanos,
            latency: row.1.latency.parts().collect::<Vec<_>>(),
            first_byte: row.1.first_byte.parts().collect::<Vec<_>>(),
            sample: readable(&super::clean(row.1.sample.unwrap_or_default()), MOST_SAMPLE),
        });
        written.await.doing("adding to the sums")?;
        if has_budgets == Some(false) || self.calls.is_empty() { Ok(()) } else { spend(transaction, &self.calls).await }
    }
}

/// Turns what budgets have reserved for calls into what they have cost, where there are budgets.
async fn spend(transaction: &mut Transaction, calls: &[&AttemptRow]) -> Result<(), StoreError> {
    sqlx::query!(
        "select sluice.settle_budgets($1, $2, $3, $4, $5, $6, $7, $8) where exists (select from sluice.budget)",
        &calls.iter().map(|call| call.lease.job.0).collect::<Vec<_>>(),
        &calls.iter().map(|call| call.lease.fence).collect::<Vec<_>>(),
        &calls.iter().map(|call| call.number).collect::<Vec<_>>(),
        &calls.iter().map(|call| call.round).collect::<Vec<_>>(),
        &calls.iter().map(|call| call.provider.as_str()).collect::<Vec<_>>() as _,
        &calls.iter().map(|call| datetime(call.ended_at)).collect::<Vec<_>>(),
        &calls.iter().map(|call| call.cost.map(|cost| cost.of_a_call().0)).collect::<Vec<_>>() as _,
        &calls.iter().map(|call| call.uncertain.of_a_call().0).collect::<Vec<_>>()
    )
    .fetch_optional(transaction)
    .await
    .doing("counting what calls have cost")?;
    Ok(())
}
