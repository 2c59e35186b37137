//! The report of one call, and the removal of secrets before it is kept.

use super::echo::Echoes;
use super::limit_headers::LimitObservation;
use super::scrub;
use crate::domain::answer::written_length;
use crate::domain::{Answer, Beside, Failure, NanoUsd, Usage, UsageSource};
use serde_json::Value;
use std::borrow::Cow;

/// A provider's own usage report is kept as it came, up to this many bytes.
const MOST_USAGE_BYTES: usize = 5_000;

/// The report of one call.
#[derive(Debug)]
pub struct CallReport {
    /// The answer or the classified failure.
    pub result: Result<Answer, Failure>,
    /// HTTP status, when an answer's head came.
    pub status: Option<u16>,
    /// The provider's id of the request (`x-request-id`, `request-id`, …).
    pub request_id: Option<String>,
    /// Milliseconds until the answer's head, if one came.
    pub first_byte_ms: Option<i32>,
    /// Milliseconds until the call ended.
    pub total_ms: i32,
    /// Parameters that were left out for this target.
    pub dropped: Vec<String>,
    /// The limits that the answer's headers report.
    pub limits: Vec<LimitObservation>,
    /// The provider's own word on whether a retry helps (`x-should-retry`).
    pub should_retry: Option<bool>,
    /// Whether a stream was asked for.
    pub is_streamed: bool,
    /// What had come of an answer that was streamed and broke off. It is no answer, and says so little of why it ended
    /// that no rule for answers fits it.
    pub partial: Option<Box<Answer>>,
    /// What was billed although the call failed, if the answer says so.
    pub failed_usage: Option<FailedUsage>,
}

/// What a failed call was billed at, as its answer says.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedUsage {
    /// The tokens.
    pub usage: Usage,
    /// The same as they came; `None`: only the cost was told.
    pub raw: Option<Value>,
    /// The cost.
    pub cost: Option<NanoUsd>,
}

impl FailedUsage {
    /// Whether it tells of anything that was billed. An error that came with zeros tells of nothing: a template has
    /// filled them in.
    pub(super) fn is_something(&self) -> bool {
        let Usage { output, source, .. } = self.usage;
        let has_tokens = source == UsageSource::Provider && (self.usage.total_input() > 0 || output > 0);
        has_tokens || self.cost.is_some_and(|cost| cost > NanoUsd::ZERO)
    }
}

impl CallReport {
    /// The report of a call for which no answer began.
    #[must_use]
    pub fn without_answer(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            status: None,
            request_id: None,
            first_byte_ms: None,
            total_ms: 0,
            dropped: Vec::new(),
            limits: Vec::new(),
            should_retry: None,
            is_streamed: false,
            partial: None,
            failed_usage: None,
        }
    }

    /// Removes the secrets from everything that is kept: a server may send back what it was sent, anywhere.
    pub(super) fn redact(&mut self, secrets: &Echoes) {
        let redacted = |text: &str| match secrets.redacted(text) {
            Cow::Owned(redacted) => Some(redacted),
            Cow::Borrowed(_) => None,
        };
        let redact = |text: &mut String| {
            if let Some(redacted) = redacted(text) {
                *text = redacted;
            }
        };
        if let Some(FailedUsage { raw: Some(usage), .. }) = &mut self.failed_usage {
            scrub::each_text(usage, &redacted);
        }
        if let Some(billed) = &mut self.failed_usage {
            billed.raw = billed.raw.take().filter(|usage| written_length(usage) <= MOST_USAGE_BYTES);
        }
        if let Err(failure) = &mut self.result {
            redact(&mut failure.message);
            failure.code.iter_mut().for_each(redact);
            failure.code.iter_mut().for_each(shorten);
        }
        for answer in self.result.iter_mut().chain(self.partial.as_deref_mut()) {
            redact_answer(answer, &redacted);
        }
    }
}

fn redact_answer(answer: &mut Answer, redacted: &impl Fn(&str) -> Option<String>) {
    let redact = |text: &mut String| {
        if let Some(redacted) = redacted(text) {
            *text = redacted;
        }
    };
    let Answer { text, refusal, reasoning, tool_calls, finish_raw, model, id, usage_raw, beside, .. } = answer;
    for text in [text, refusal, reasoning, &mut *finish_raw, &mut *model, &mut *id] {
        text.iter_mut().for_each(redact);
    }
    for members in beside.members_mut() {
        scrub::each_text_of(members, redacted);
    }
    beside.service_tier.iter_mut().for_each(redact);
    beside.service_tier.iter_mut().for_each(shorten);
    beside.shorten(Beside::MOST_BYTES);
    // Only names are cut, which stand on the ledger and in messages; the answer keeps its length.
    for name in [finish_raw, model, id] {
        name.iter_mut().for_each(shorten);
    }
    for call in tool_calls {
        [&mut call.id, &mut call.name, &mut call.arguments].into_iter().for_each(redact);
    }
    if let Some(usage) = usage_raw {
        scrub::each_text(usage, redacted);
    }
    if usage_raw.as_ref().is_some_and(|usage| written_length(usage) > MOST_USAGE_BYTES) {
        *usage_raw = None;
    }
}

/// Cuts a name that is too long to be one: the ledger keeps enough to tell it from others.
fn shorten(name: &mut String) {
    const CHARS: usize = 200;
    if let Some((end, _)) = name.char_indices().nth(CHARS) {
        name.truncate(end);
    }
}
