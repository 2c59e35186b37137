//! The totals that this process has booked since it started, by target and by route: the sums behind its metrics.
//!
//! They grow when a transaction has been committed, so they agree with the ledger at any time. They are kept in memory
//! only: a metrics collector knows that counters start again with a new process.

use crate::domain::{ErrorClass, NanoUsd, SoftFailure};
use crate::store::settle::{AttemptRow, EndingRow};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Upper bounds of the classes of [`Durations`], in milliseconds. Longer durations have a class of their own.
pub const BOUNDS_MS: [u32; 13] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000];

/// Durations, counted in classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// The sum of all durations, in milliseconds.
    pub sum_ms: u64,
    /// How many durations fall into each class of [`BOUNDS_MS`]; the last entry counts those beyond the largest bound.
    pub counts: [u64; BOUNDS_MS.len() + 1],
}

impl Durations {
    fn add(&mut self, millis: i32) {
        let millis = u32::try_from(millis).unwrap_or(0);
        self.sum_ms = self.sum_ms.saturating_add(u64::from(millis));
        let class = BOUNDS_MS.iter().position(|bound| millis <= *bound).unwrap_or(BOUNDS_MS.len());
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
        }
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Totals of the calls to one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfTarget {
    /// Attempts by class; `None`: accepted.
    pub attempts: BTreeMap<Option<ErrorClass>, u64>,
    /// Rejected answers, by the gravest failure.
    pub soft_failures: BTreeMap<&'static str, u64>,
    /// Durations of the attempts that brought an answer, accepted or not.
    pub answered: Durations,
    /// Durations of the other attempts.
    pub unanswered: Durations,
    /// Time until answers began.
    pub first_byte: Durations,
    /// Input tokens that were not read from a cache.
    pub input_tokens: u64,
    /// Input tokens that were read from a cache.
    pub cached_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Money spent, as far as prices are known.
    pub cost: NanoUsd,
    /// The part of `cost` that was spent on answers that were not used.
    pub waste: NanoUsd,
    /// Money that may have been spent besides.
    pub uncertain: NanoUsd,
    /// Attempts whose price is not known.
    pub unpriced: u64,
    /// Attempts whose cost by the provider differs from the computed one.
    pub cost_differs: u64,
}

/// Totals of the jobs of one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfRoute {
    pub succeeded: u64,
    pub failed: u64,
}

/// All sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// By target: its provider, and its model with the tier.
    pub targets: BTreeMap<(String, String), OfTarget>,
    /// By route.
    pub routes: BTreeMap<String, OfRoute>,
}

impl Booked {
    fn attempt(&mut self, row: &AttemptRow) {
        let totals = self.targets.entry((row.provider.clone(), row.model.clone())).or_default();
        *totals.attempts.entry(row.class).or_default() += 1;
        let kind = row.detail.as_deref().filter(|_| row.class == Some(ErrorClass::SoftFailure));
        if let Some(kind) = kind.and_then(SoftFailure::parse).map(SoftFailure::as_str) {
            *totals.soft_failures.entry(kind).or_default() += 1;
        }
        let has_answer = ErrorClass::is_answered(row.class);
        if has_answer { &mut totals.answered } else { &mut totals.unanswered }.add(row.total_ms);
        if let Some(first_byte) = row.first_byte_ms.filter(|_| has_answer) {
            totals.first_byte.add(first_byte);
        }
        let add = |sum: &mut u64, tokens: i64| *sum = sum.saturating_add(u64::try_from(tokens).unwrap_or(0));
        add(&mut totals.input_tokens, row.usage.total_input().saturating_sub(row.usage.cache_read));
        add(&mut totals.cached_tokens, row.usage.cache_read);
        add(&mut totals.output_tokens, row.usage.output);
        match row.cost {
            Some(cost) => {
                totals.cost += cost;
                if row.class.is_some() {
                    totals.waste += cost;
                }
            }
            None => totals.unpriced += 1,
        }
        totals.cost_differs += u64::from(row.cost_differs);
        totals.uncertain += row.uncertain;
    }

    fn ending(&mut self, row: &EndingRow) {
        let totals = self.routes.entry(row.labels.route.clone()).or_default();
        *if row.failure.is_some() { &mut totals.failed } else { &mut totals.succeeded } += 1;
    }
}

/// The sums, shared by tasks that add to them.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Booked>);

impl Ledger {
    /// Adds the rows that one transaction has committed.
    pub(super) fn book<'a>(
        &self,
        attempts: impl IntoIterator<Item = &'a AttemptRow>,
        endings: impl IntoIterator<Item = &'a EndingRow>,
    ) {
        let mut totals = self.0.lock();
        attempts.into_iter().for_each(|row| totals.attempt(row));
        endings.into_iter().for_each(|row| totals.ending(row));
    }

    /// The current sums.
    #[must_use]
    pub fn booked(&self) -> Booked {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{JobId, Timestamp, Usage};
    use crate::store::claim::Lease;
    use crate::store::settle::Labels;
    use std::sync::Arc;

    #[test]
    fn a_duration_is_in_the_first_class_that_holds_it() {
        let mut durations = Durations::default();
        for millis in [-1, 0, 50, 51, 300_000, 300_001, i32::MAX] {
            durations.add(millis);
        }
        assert_eq!(
            (durations.counts[0], durations.counts[1], durations.counts[12], durations.counts[13]),
            (3, 1, 1, 2)
        );
        assert_eq!((durations.count(), durations.sum_ms), (7, 50 + 51 + 300_000 + 300_001 + 2_147_483_647));
    }

    /// An attempt that took a second, with 30 tokens in, 10 of them from a cache, and 5 out.
    fn attempt(class: Option<ErrorClass>, cost: Option<NanoUsd>) -> AttemptRow {
        AttemptRow {
            lease: Lease { job: JobId(1), fence: 1, born: 0 },
            labels: Arc::new(Labels {
                route: "default".to_owned(),
                project: "default".to_owned(),
                batch: None,
                login: String::new(),
            }),
            number: 1,
            round: 0,
            provider: "one".to_owned(),
            model: "model".to_owned(),
            rung: 0,
            started_at: Timestamp(0),
            ended_at: Timestamp(1_000),
            first_byte_ms: Some(400),
            total_ms: 1_000,
            class,
            detail: (class == Some(ErrorClass::SoftFailure)).then_some("empty".into()),
            http_status: None,
            code: None,
            message: None,
            retry_at: None,
            request_id: None,
            model_served: None,
            finish: None,
            usage_raw: None,
            usage: Usage { input: 20, cache_read: 10, output: 5, ..Usage::default() },
            cost,
            uncertain: NanoUsd(3),
            price: None,
            decision: None,
            answer: None,
            service_tier: None,
            reported_cost: None,
            computed_cost: None,
            cost_differs: false,
            cost_source: None,
            reask_of: None,
            confidence: None,
            first_choice: None,
            raced: false,
            notes: Vec::new(),
        }
    }

    #[test]
    fn an_attempt_is_counted_by_what_came_of_it() {
        let ledger = Ledger::default();
        let rows = [
            attempt(None, Some(NanoUsd(100))),
            attempt(Some(ErrorClass::SoftFailure), Some(NanoUsd(40))),
            attempt(Some(ErrorClass::Timeout), None),
        ];
        ledger.book(&rows[..1], []);
        ledger.book(&rows[1..], []);
        let totals = ledger.booked();
        let of = &totals.targets[&("one".to_owned(), "model".to_owned())];
        let classes = [None, Some(ErrorClass::SoftFailure), Some(ErrorClass::Timeout)];
        assert_eq!(of.attempts, classes.map(|class| (class, 1)).into());
        assert_eq!(of.soft_failures, [("empty", 1)].into());
        assert_eq!((of.answered.count(), of.unanswered.count(), of.first_byte.count()), (2, 1, 2));
        assert_eq!((of.input_tokens, of.cached_tokens, of.output_tokens), (60, 30, 15));
        assert_eq!((of.cost, of.waste, of.uncertain, of.unpriced), (NanoUsd(140), NanoUsd(40), NanoUsd(9), 1));
        assert!(totals.routes.is_empty());
    }
}
