//! What came of one call: the verdict on its answer, and what it cost.

use crate::domain::json_schema::Schema;
use crate::domain::validation::Rules;
use crate::domain::{
    Answer, ChatRequest, ErrorClass, Failure, Job, NanoUsd, Outcome, Rung, Scope, SoftFailure, Timestamp, Usage,
    UsageSource, Verdict, estimate,
};
use crate::provider::{CallReport, Head};
use serde_json::Value;

/// What the call was for.
pub(super) struct AskedFor<'a> {
    pub(super) job: &'a Job,
    pub(super) request: &'a ChatRequest,
    pub(super) schema: Option<&'a Schema>,
}

/// A finished call with its verdict.
pub(super) struct Judged {
    pub(super) outcome: Outcome,
    pub(super) failure: Option<Failure>,
    pub(super) answer: Option<Box<Answer>>,
    pub(super) repaired: bool,
    pub(super) soft: Option<SoftFailure>,
    pub(super) message: Option<String>,
    pub(super) usage: Usage,
    pub(super) reported_usage: Option<Usage>,
    pub(super) usage_raw: Option<Value>,
    pub(super) cost: Option<NanoUsd>,
    pub(super) uncertain: NanoUsd,
    pub(super) status: Option<u16>,
    pub(super) request_id: Option<String>,
    pub(super) first_byte_ms: Option<i32>,
    pub(super) total_ms: i32,
    pub(super) dropped: Vec<String>,
    pub(super) is_final: bool,
}

/// Validates an answer and works out what the call cost.
pub(super) fn judge(rules: &Rules, asked: &AskedFor<'_>, spec: &Rung, report: CallReport) -> Judged {
    let price = spec.model.price;
    let worst = || price.map(|price| estimate::worst_cost(&price, &spec.model.capabilities, asked.job));
    let CallReport { result, status, request_id, first_byte_ms, total_ms, dropped, failed_usage, should_retry, .. } =
        report;
    let mut judged = Judged {
        outcome: Outcome::Accepted,
        failure: None,
        answer: None,
        repaired: false,
        soft: None,
        message: None,
        usage: Usage::default(),
        reported_usage: None,
        usage_raw: None,
        cost: Some(NanoUsd::ZERO),
        uncertain: NanoUsd::ZERO,
        status,
        request_id,
        first_byte_ms,
        total_ms,
        dropped,
        is_final: should_retry == Some(false),
    };
    match result {
        Ok(mut answer) => {
            judged.usage = answer.usage;
            if answer.usage.source == UsageSource::Unknown {
                judged.usage = Usage {
                    input: asked.job.input_tokens,
                    output: estimate::text_tokens(answer.text.as_deref().unwrap_or("")),
                    source: UsageSource::Estimated,
                    ..Usage::default()
                };
            } else {
                judged.reported_usage = Some(answer.usage);
            }
            judged.cost = price.map(|price| price.cost(&judged.usage));
            match rules.judge(&answer, asked.request, asked.schema) {
                Verdict::Accepted => {}
                Verdict::Repaired { text } => {
                    answer.text = Some(text);
                    judged.repaired = true;
                }
                Verdict::Rejected { failures, message } => {
                    let gravest = failures.first().copied().unwrap_or(SoftFailure::Empty);
                    judged.outcome = Outcome::Rejected(gravest);
                    judged.soft = Some(gravest);
                    judged.message = Some(message);
                }
            }
            judged.answer = Some(Box::new(answer));
        }
        Err(failure) => {
            if let Some((usage, raw)) = failed_usage {
                // It failed and says that it was billed all the same.
                judged.usage = usage;
                judged.reported_usage = Some(usage);
                judged.usage_raw = Some(raw);
                judged.cost = price.map(|price| price.cost(&usage));
            } else if may_have_been_billed(&failure, judged.status) {
                // Without a price nobody knows what it may have cost: not nothing.
                judged.cost = worst().map(|_| NanoUsd::ZERO);
                judged.uncertain = worst().unwrap_or(NanoUsd::ZERO);
            }
            judged.outcome = Outcome::Failed(failure.class);
            judged.message = Some(failure.message.clone());
            judged.failure = Some(failure);
        }
    }
    judged
}

/// A call that this process gave up while the provider was at it.
pub(super) fn abandoned(started_at: Timestamp, ended_at: Timestamp, head: Option<Head>, why: &str) -> CallReport {
    let total = started_at.until(ended_at).as_millis();
    CallReport {
        result: Err(Failure::new(ErrorClass::Abandoned, Scope::Request, why)),
        status: head.as_ref().map(|head| head.status),
        first_byte_ms: head.as_ref().map(|head| head.first_byte_ms),
        request_id: head.and_then(|head| head.request_id),
        total_ms: i32::try_from(total).unwrap_or(i32::MAX),
        dropped: Vec::new(),
        limits: Vec::new(),
        should_retry: None,
        failed_usage: None,
    }
}

/// Whether the provider may have generated an answer that never reached us whole.
fn may_have_been_billed(failure: &Failure, status: Option<u16>) -> bool {
    match failure.class {
        ErrorClass::Timeout | ErrorClass::Network | ErrorClass::Abandoned | ErrorClass::Cancelled => true,
        ErrorClass::Unreachable => false,
        _ => status.is_some_and(|status| (200..300).contains(&status)) && failure.code.is_none(),
    }
}
