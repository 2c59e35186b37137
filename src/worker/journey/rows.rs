//! The rows that a journey writes: a constructor for each transition of a job.

use super::call::Made;
use super::traced::InTrace;
use crate::domain::decide::Ending;
use crate::domain::explanation::Explanation;
use crate::domain::trace::JobTrace;
use crate::domain::{CacheKey, Confidence, ErrorClass, NanoUsd, SoftFailure, Target, Timestamp, Usage};
use crate::store::cache::EarlierAnswer;
use crate::store::claim::{Claimed, Lease, PastAttempt};
use crate::store::settle::{AttemptRow, CachedEnding, EndingRow, Labels, ParkRow};
use crate::worker::Shared;
use crate::worker::settler::{Item, Then};
use std::borrow::Cow;
use std::sync::Arc;

/// A claimed job without its request: as much as is needed to write its rows.
#[derive(Clone, Debug)]
pub(in crate::worker) struct HeldJob {
    /// The claim by which this worker has it.
    pub(super) lease: Lease,
    pub(super) round: i16,
    pub(super) labels: Arc<Labels>,
    /// Calls made for it in all its rounds.
    pub(super) calls: i16,
    /// Several calls were under way at the same time under this claim.
    pub(super) raced: bool,
    /// The key of its request in the cache of its route; `None`: the route has none.
    pub(super) cache: Option<CacheKey>,
    /// Its trace; `None`: it is not sent.
    pub(super) traced: Option<InTrace>,
}

/// The total cost of a job's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bill {
    /// `None`: one of the calls has no price.
    cost: Option<NanoUsd>,
    /// Money that may have been spent beside that.
    uncertain: NanoUsd,
}

/// The last call of a job, as needed for its ending.
#[derive(Clone, Debug)]
pub(super) struct LastCall {
    /// Its ordinal within the job.
    pub(super) number: i16,
    pub(super) target: Target,
    pub(super) rung: usize,
    pub(super) usage: Usage,
    pub(super) request_id: Option<String>,
    /// The completion, where it was accepted, or is taken because no surer one came.
    pub(super) accepted: Option<Completion>,
}

/// An answer that keeps every rule.
#[derive(Clone, Debug)]
pub(super) struct Completion {
    /// The chat completion as JSON.
    pub(super) json: String,
    pub(super) is_repaired: bool,
    /// How sure its rung is of it.
    pub(super) confidence: Option<Confidence>,
}

impl Bill {
    const NOTHING: Self = Self { cost: Some(NanoUsd::ZERO), uncertain: NanoUsd::ZERO };
    const UNKNOWN: Self = Self { cost: None, uncertain: NanoUsd::ZERO };

    /// The cost of these calls, made before this claim.
    pub(super) fn of<'a>(past: impl IntoIterator<Item = &'a PastAttempt>) -> Self {
        let mut bill = Self::NOTHING;
        for attempt in past {
            bill.add(attempt.cost_nanos.map(NanoUsd), NanoUsd(attempt.uncertain_nanos));
        }
        bill
    }

    /// The cost of the calls so far; `None`: one of them has no price.
    pub(super) fn cost(&self) -> Option<NanoUsd> {
        self.cost
    }

    /// The most that the calls so far can have cost; `None`: one of them has no price.
    pub(super) fn at_most(&self) -> Option<NanoUsd> {
        self.cost.map(|cost| cost + self.uncertain)
    }

    /// Adds one more call.
    pub(super) fn add(&mut self, cost: Option<NanoUsd>, uncertain: NanoUsd) {
        self.cost = self.cost.zip(cost).map(|(sum, cost)| sum + cost);
        self.uncertain += uncertain;
    }
}

impl HeldJob {
    pub(in crate::worker) fn of(claimed: &Claimed, trace: Option<JobTrace>) -> Self {
        Self {
            lease: claimed.lease,
            round: claimed.round,
            labels: Arc::new(claimed.labels()),
            calls: claimed.attempts,
            raced: false,
            cache: None,
            traced: trace.map(|trace| InTrace { trace, ready: claimed.ready_at }),
        }
    }

    /// The ledger row of a call that was made for the job.
    pub(super) fn called(&self, made: Made, decision: Option<Explanation>) -> AttemptRow {
        let Made { number, target, rung, started_at, ended_at, retry_at, judged, reask_of, .. } = made;
        let class = judged.outcome.class();
        let model_served = judged.answer.as_ref().and_then(|answer| answer.model.clone());
        let mut answer = judged.answer;
        if let Some(answer) = &mut answer {
            // A completion names its model without the tier.
            answer.model.get_or_insert_with(|| target.model.clone());
        }
        let (provider, model) = target.columns();
        AttemptRow {
            lease: self.lease,
            labels: Arc::clone(&self.labels),
            number,
            round: self.round,
            provider,
            model,
            rung: i16::try_from(rung).unwrap_or(i16::MAX),
            started_at,
            ended_at,
            first_byte_ms: judged.first_byte_ms,
            total_ms: judged.total_ms,
            class,
            detail: judged.soft.map(|kind| kind.as_str().into()),
            http_status: judged.status,
            code: judged.failure.and_then(|failure| failure.code),
            message: judged.message,
            retry_at,
            request_id: judged.request_id,
            model_served,
            finish: answer.as_ref().and_then(|answer| answer.finish_raw.clone()),
            usage_raw: judged.usage_raw.or_else(|| answer.as_ref().and_then(|answer| answer.usage_raw.clone())),
            usage: judged.usage,
            cost: judged.cost,
            uncertain: judged.uncertain,
            price: judged.price,
            decision,
            // What had come of an answer that broke off is kept. An accepted answer is in the result. If it was
            // repaired, the ledger keeps the original.
            answer: match judged.soft {
                None if judged.partial.is_some() => judged.partial,
                None if class.is_none() => judged.original,
                Some(SoftFailure::LowConfidence) => judged.original.or(answer),
                _ => answer,
            },
            service_tier: judged.service_tier,
            reported_cost: judged.reported_cost,
            computed_cost: judged.computed_cost,
            cost_differs: judged.cost_differs,
            cost_source: judged.cost_source.map(|source| Cow::Borrowed(source.as_str())),
            notes: judged.notes,
            reask_of,
            confidence: judged.confidence.map(Confidence::value),
            first_choice: None,
            raced: self.raced,
        }
    }

    /// The ending that was decided. `first_choice` is the rung that the job would have taken if all had been open.
    pub(super) fn ended(
        &self,
        ending: Ending,
        bill: Bill,
        last: Option<LastCall>,
        first_choice: Option<usize>,
    ) -> EndingRow {
        let after_fallback = last.as_ref().is_some_and(|last| Some(last.rung) != first_choice);
        let row = match (ending, last) {
            (
                ending @ (Ending::Succeeded | Ending::Unsure(_)),
                Some(LastCall { accepted: Some(completion), number, target, rung, usage, request_id }),
            ) => {
                let last = LastCall { number, target, rung, usage, request_id, accepted: None };
                let row = self.succeeded(completion, bill, last);
                EndingRow { unsure: (ending != Ending::Succeeded).then_some(number), ..row }
            }
            // The answer was accepted in a former life and yet has no result: it was lost with that process.
            (Ending::Succeeded | Ending::Unsure(_), last) => {
                let reason = "the accepted answer was lost with its worker".to_owned();
                self.failed(ErrorClass::Abandoned, reason, bill, last)
            }
            (Ending::Failed { class, reason }, last) => self.failed(class, reason, bill, last),
        };
        EndingRow { after_fallback, ..row }
    }

    fn succeeded(&self, completion: Completion, bill: Bill, last: LastCall) -> EndingRow {
        let Completion { json, is_repaired, confidence } = completion;
        EndingRow {
            repaired: is_repaired,
            failure: None,
            response: Some(json),
            confidence: confidence.map(Confidence::value),
            ..self.ending(bill, Some(last))
        }
    }

    /// The ending of a job that has the answer of an earlier one: no provider was asked, so it cost nothing.
    pub(super) fn answered_again(&self, earlier: EarlierAnswer, key: CacheKey) -> EndingRow {
        EndingRow {
            target: earlier.target,
            repaired: earlier.repaired,
            input_tokens: earlier.input_tokens,
            output_tokens: earlier.output_tokens,
            request_id: earlier.request_id,
            response: Some(earlier.response),
            cache: Some(CachedEnding { key, from: Some((earlier.job, earlier.cost)) }),
            ..self.ending(Bill::NOTHING, None)
        }
    }

    fn failed(&self, class: ErrorClass, reason: String, bill: Bill, last: Option<LastCall>) -> EndingRow {
        EndingRow { failure: Some((class, reason)), ..self.ending(bill, last) }
    }

    /// The part that all endings share: how many calls there were, their cost, and how the last of them went.
    fn ending(&self, bill: Bill, last: Option<LastCall>) -> EndingRow {
        let (rung, usage) = (last.as_ref().map(|last| last.rung), last.as_ref().map(|last| last.usage));
        let (target, request_id) = last.map_or((None, None), |last| (Some(last.target), last.request_id));
        EndingRow {
            lease: self.lease,
            round: self.round,
            labels: Arc::clone(&self.labels),
            attempts: self.calls,
            target: target.map(|target| target.columns()),
            rung: rung.map(|rung| i16::try_from(rung).unwrap_or(i16::MAX)),
            after_fallback: false,
            repaired: false,
            confidence: None,
            unsure: None,
            shadow: None,
            failure: None,
            cost: bill.cost,
            uncertain: bill.uncertain,
            input_tokens: usage.map_or(0, |usage| usage.total_input()),
            output_tokens: usage.map_or(0, |usage| usage.output),
            request_id,
            response: None,
            raced: self.raced,
            cache: self.cache.map(|key| CachedEnding { key, from: None }),
        }
    }

    /// The row of a job that goes back and rests until this time; `None`: it may be claimed again at once.
    pub(super) fn parked(&self, until: Option<Timestamp>, reason: String) -> ParkRow {
        ParkRow { lease: self.lease, attempts: self.calls, until, reason, raced: self.raced }
    }

    /// Ends a job whose request is invalid: no provider was or will be asked, so it cost nothing.
    pub(super) async fn refuse(self, shared: &Shared, reason: String) {
        self.end(shared, self.failed(ErrorClass::InvalidRequest, reason, Bill::NOTHING, None)).await;
    }

    /// Ends a job whose journey panicked: a fault of ours, which must not take the worker down. The cost of its calls
    /// is on the ledger as far as they were settled, and otherwise unknown.
    pub(in crate::worker) async fn give_up(self, shared: &Shared) {
        tracing::error!(job.id = self.lease.job.0, "a fault in Sluice itself: the job is failed, the worker goes on");
        let reason = "a fault in Sluice itself (a panic); please report it with the job's request".to_owned();
        self.end(shared, self.failed(ErrorClass::Abandoned, reason, Bill::UNKNOWN, None)).await;
    }

    /// Puts the job back unchanged.
    pub(super) async fn give_back(self, shared: &Shared, reason: &str) {
        let row = self.parked(None, reason.to_owned());
        shared.settler.settle(Item::of_no_call(Then::Park(row), Vec::new())).await;
    }

    async fn end(&self, shared: &Shared, row: EndingRow) {
        let span = self.span_of_end(&row, shared.clock.now());
        shared.settler.settle(Item::of_no_call(Then::End(Box::new(row)), span.into_iter().collect())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::JobId;

    fn held() -> HeldJob {
        let labels = Labels { route: "r".to_owned(), project: "p".to_owned(), batch: None, login: "l".to_owned() };
        let lease = Lease { job: JobId(7), fence: 70, born: 0 };
        HeldJob { lease, round: 1, labels: Arc::new(labels), calls: 3, raced: false, cache: None, traced: None }
    }

    fn last(rung: usize, accepted: Option<Completion>) -> LastCall {
        LastCall {
            number: 2,
            target: Target::new("one", "m"),
            rung,
            usage: Usage { input: 20, cache_read: 10, output: 5, ..Usage::default() },
            request_id: Some("req".to_owned()),
            accepted,
        }
    }

    fn answer(is_repaired: bool) -> Completion {
        Completion { json: "{}".to_owned(), is_repaired, confidence: Confidence::of(0.5) }
    }

    #[test]
    fn a_good_answer_ends_a_job_with_what_its_call_was() {
        for (rung, is_repaired, after_fallback) in [(0, false, true), (1, true, false)] {
            let last = Some(last(rung, Some(answer(is_repaired))));
            let row = held().ended(Ending::Succeeded, Bill::NOTHING, last, Some(1));
            assert_eq!((row.lease.fence, row.round, row.attempts), (70, 1, 3));
            assert_eq!((row.failure, row.response.as_deref(), row.repaired), (None, Some("{}"), is_repaired));
            assert_eq!((row.rung.map(usize::try_from), row.after_fallback), (Some(Ok(rung)), after_fallback));
            assert_eq!(row.target, Some(("one".to_owned(), "m".to_owned())));
            assert_eq!((row.input_tokens, row.output_tokens, row.request_id.as_deref()), (30, 5, Some("req")));
            assert_eq!((row.cost, row.uncertain), (Some(NanoUsd::ZERO), NanoUsd::ZERO));
        }
    }

    #[test]
    fn an_accepted_answer_that_is_gone_ends_its_job_as_abandoned() {
        for last in [None, Some(last(0, None))] {
            let row = held().ended(Ending::Succeeded, Bill::NOTHING, last, Some(0));
            assert_eq!(row.failure.map(|(class, _)| class), Some(ErrorClass::Abandoned));
            assert_eq!((row.response, row.after_fallback), (None, false));
        }
    }

    #[test]
    fn a_failure_names_the_call_before_it_and_none_where_there_was_none() {
        let failed = || Ending::Failed { class: ErrorClass::Timeout, reason: "late".to_owned() };
        let row = held().ended(failed(), Bill::UNKNOWN, Some(last(2, Some(answer(true)))), Some(0));
        assert_eq!(row.failure, Some((ErrorClass::Timeout, "late".to_owned())));
        assert_eq!((row.rung, row.after_fallback, row.repaired, row.response), (Some(2), true, false, None));
        assert_eq!(row.cost, None);
        let row = held().ended(failed(), Bill::NOTHING, None, Some(0));
        assert_eq!((row.target, row.rung, row.after_fallback, row.input_tokens), (None, None, false, 0));
    }

    #[test]
    fn a_job_goes_back_with_its_calls_counted() {
        let row = held().parked(None, "why".to_owned());
        assert_eq!((row.lease.fence, row.attempts, row.until, row.reason.as_str()), (70, 3, None, "why"));
    }

    #[test]
    fn one_call_without_a_price_leaves_the_cost_of_all_unknown() {
        let mut bill = Bill::NOTHING;
        bill.add(Some(NanoUsd(3)), NanoUsd(1));
        bill.add(Some(NanoUsd(4)), NanoUsd(0));
        assert_eq!(bill, Bill { cost: Some(NanoUsd(7)), uncertain: NanoUsd(1) });
        bill.add(None, NanoUsd(2));
        bill.add(Some(NanoUsd(5)), NanoUsd(0));
        assert_eq!(bill, Bill { cost: None, uncertain: NanoUsd(3) });
    }
}
