//! A row of the ledger: one call, its outcome and its cost.

use super::choice;
use super::course::CourseView;
use super::dollars::Dollars;
use super::time::{clock, span};
use crate::domain::counted::counted;
use crate::domain::explanation::{Explanation, Ordering};
use crate::domain::price::special_tier;
use crate::domain::usage::CostSource;
use crate::domain::{Confidence, ErrorClass, NanoUsd, SoftFailure};
use crate::store::job::{AttemptRecord, KeptAnswer};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;

/// Pauses between two attempts get a line from this length on.
const WORTH_TELLING: TimeDelta = TimeDelta::milliseconds(500);

/// A row of the ledger, and its money in dollars.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptView {
    /// Its ordinal within the job.
    pub number: i16,
    /// Which round of the job: a retry by hand begins a new one.
    pub round: i16,
    /// The provider that it asked.
    pub provider: String,
    /// The model that it asked for.
    pub model: String,
    /// Index of the rung in the route's listed order.
    pub rung: Option<i16>,
    /// When the call began.
    pub started_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: DateTime<Utc>,
    /// Milliseconds until the answer's head.
    pub first_byte_ms: Option<i32>,
    pub total_ms: i32,
    /// Whether the answer was used.
    pub accepted: bool,
    /// The error class, if the answer was not used.
    pub class: Option<String>,
    /// The gravest soft failure.
    pub detail: Option<String>,
    /// HTTP status.
    pub http_status: Option<i16>,
    /// The provider's error code.
    pub code: Option<String>,
    /// The provider's or the validator's message.
    pub message: Option<String>,
    /// When the provider wants to be asked again.
    pub retry_at: Option<DateTime<Utc>>,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// The model that the provider says it used.
    pub model_served: Option<String>,
    /// The provider's own finish reason.
    pub finish: Option<String>,
    /// `provider`, `estimated` or `unknown`.
    pub usage_source: String,
    /// Input that was neither read from nor written to a cache.
    pub input_tokens: i64,
    /// Input read from a cache.
    pub cache_read_tokens: i64,
    /// Input written to a cache.
    pub cache_write_tokens: i64,
    /// Output, reasoning included.
    pub output_tokens: i64,
    /// The part of the output that was reasoning.
    pub reasoning_tokens: i64,
    /// Its cost in billionths of a dollar; `None`: the price is unknown.
    pub cost_nanos: Option<i64>,
    /// The amount that may have been spent in addition.
    pub uncertain_nanos: i64,
    /// The price that was used.
    pub price: Option<Value>,
    /// Why this rung; `None` when it was simply the first.
    pub decision: Option<Value>,
    /// The tier that served it, in the provider's word.
    pub service_tier: Option<String>,
    /// What the provider says it cost, in billionths of a dollar.
    pub reported_cost_nanos: Option<i64>,
    /// The origin of the cost: `price` or `reported`.
    pub cost_source: Option<String>,
    /// Tokens times the price, in billionths of a dollar, regardless of what the provider says.
    pub computed_cost_nanos: Option<i64>,
    /// Whether the two differed by more than the configuration allowed.
    pub cost_differs: bool,
    /// When its cost was computed again for the last time.
    pub repriced_at: Option<DateTime<Utc>>,
    /// What it said of its cost before: a list, the latest last.
    pub repriced_from: Option<Value>,
    /// Repairs and cuts that the answer needed, and doubts about it.
    pub notes: Option<Value>,
    /// Whether the ledger has the answer as it came, because it was rejected or repaired, or what had come of it.
    pub has_answer: bool,
    /// The number of the attempt whose rejected answer the call named.
    pub reask_of: Option<i16>,
    /// How sure the rung was of its answer; `None`: its route does not ask, or it does not say.
    pub confidence: Option<f64>,
    /// Its cost; `None`: the price is unknown.
    pub cost: Option<Dollars>,
    /// Money that may have been spent beside that.
    pub uncertain_cost: Dollars,
    /// The answer that was rejected, or as it came before it was repaired, or what had come of a stream that broke off;
    /// if it was asked for and there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerView>,
}

/// An answer on the ledger, from its beginning on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnswerView {
    pub text: String,
    /// How many further characters it has.
    pub left_out: i32,
}

/// Lines of an answer that are shown.
const ANSWER_LINES: usize = 60;

impl AnswerView {
    /// The answer as it was read.
    #[must_use]
    pub fn of(kept: KeptAnswer) -> Self {
        let shown = i32::try_from(kept.text.chars().count()).unwrap_or(i32::MAX);
        Self { text: kept.text, left_out: (kept.length - shown).max(0) }
    }

    fn tell(&self, lines: &mut Vec<String>) {
        let mut rest = 0;
        for (place, line) in self.text.lines().enumerate() {
            if place < ANSWER_LINES {
                lines.push(format!("   │ {line}"));
            } else {
                rest += 1;
            }
        }
        if rest > 0 || self.left_out > 0 {
            let parts = [
                (rest > 0).then(|| counted(rest, "more line", "more lines")),
                (self.left_out > 0).then(|| counted(self.left_out, "more character", "more characters")),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            lines.push(format!("   … {}: `answer` of this attempt in sluice.attempts", parts.join(", and then ")));
        }
    }
}

impl From<AttemptRecord> for AttemptView {
    fn from(record: AttemptRecord) -> Self {
        Self {
            cost: record.cost_nanos.map(|nanos| Dollars(NanoUsd(nanos))),
            uncertain_cost: Dollars(NanoUsd(record.uncertain_nanos)),
            answer: None,
            number: record.number,
            round: record.round,
            provider: record.provider,
            model: record.model,
            rung: record.rung,
            started_at: record.started_at,
            ended_at: record.ended_at,
            first_byte_ms: record.first_byte_ms,
            total_ms: record.total_ms,
            accepted: record.accepted,
            class: record.class,
            detail: record.detail,
            http_status: record.http_status,
            code: record.code,
            message: record.message,
            retry_at: record.retry_at,
            request_id: record.request_id,
            model_served: record.model_served,
            finish: record.finish,
            usage_source: record.usage_source,
            input_tokens: record.input_tokens,
            cache_read_tokens: record.cache_read_tokens,
            cache_write_tokens: record.cache_write_tokens,
            output_tokens: record.output_tokens,
            reasoning_tokens: record.reasoning_tokens,
            cost_nanos: record.cost_nanos,
            uncertain_nanos: record.uncertain_nanos,
            price: record.price,
            decision: record.decision,
            service_tier: record.service_tier,
            reported_cost_nanos: record.reported_cost_nanos,
            cost_source: record.cost_source,
            computed_cost_nanos: record.computed_cost_nanos,
            cost_differs: record.cost_differs,
            repriced_at: record.repriced_at,
            repriced_from: record.repriced_from,
            notes: record.notes,
            has_answer: record.has_answer,
            reask_of: record.reask_of,
            confidence: record.confidence,
        }
    }
}

impl AttemptView {
    /// The line for a call that was as the one before it in all that is told of it, but for its times; `None`: it was
    /// another.
    pub(super) fn same_as(&self, before: &Self, free_since: DateTime<Utc>) -> Option<String> {
        let told = |attempt: &Self| {
            let untold = Self {
                number: 0,
                started_at: DateTime::UNIX_EPOCH,
                ended_at: DateTime::UNIX_EPOCH,
                first_byte_ms: None,
                total_ms: 0,
                request_id: None,
                decision: None,
                ..attempt.clone()
            };
            let decision = attempt.decision.as_ref().map(Explanation::read).unwrap_or_default();
            // A wait is told where it was: before the first of them.
            (untold, Explanation { waited: Vec::new(), ..decision })
        };
        let is_plain = !self.accepted && self.retry_at.is_none() && !self.has_answer && self.reask_of.is_none();
        let has_waited = self.decision.as_ref().is_some_and(|decision| !Explanation::read(decision).waited.is_empty());
        if !is_plain || has_waited || self.cost_nanos != Some(0) || told(self) != told(before) {
            return None;
        }
        let mut line = format!("#{} the same again at {}", self.number, clock(self.started_at));
        let waited = self.started_at - free_since;
        if waited >= WORTH_TELLING {
            let _ = write!(line, ", after waiting {}", span(waited.num_milliseconds()));
        }
        let _ = write!(line, ", and {}", span(self.total_ms.into()));
        if let Some(request_id) = &self.request_id {
            let _ = write!(line, "; request id {request_id}");
        }
        Some(line)
    }

    /// Tells in lines which target was called when and why, and the outcome. `free_since`: from when on the call could
    /// have been made; `beside`: the calls that ran at the same time;
    /// `ordered`: the order of the rungs that is told already.
    pub(super) fn tell(
        &self,
        free_since: DateTime<Utc>,
        beside: Option<String>,
        ordered: Option<&CourseView>,
        lines: &mut Vec<String>,
    ) {
        let attempt = self;
        let waited = attempt.started_at - free_since;
        let mut line =
            format!("#{} {}/{} at {}", attempt.number, attempt.provider, attempt.model, clock(attempt.started_at));
        if waited >= WORTH_TELLING {
            let _ = write!(line, ", after waiting {}", span(waited.num_milliseconds()));
        }
        lines.push(line);
        if let Some(of) = attempt.reask_of {
            lines.push(format!("   it was asked again, with the answer of #{of} and its fault named"));
        }
        if attempt.reask_of.is_none() || attempt.decision.is_some() {
            let is_told = |order: &Ordering| ordered.is_some_and(|course| course.has(order));
            lines.extend(
                choice::in_words(attempt.decision.as_ref(), is_told).into_iter().map(|reason| format!("   {reason}")),
            );
        }
        lines.extend(beside.map(|beside| format!("   {beside}")));
        lines.push(format!("   {}", outcome(attempt)));
        lines.extend(confidence(attempt).map(|told| format!("   {told}")));
        if let Some(message) = attempt.message.as_deref().filter(|message| !message.is_empty()) {
            lines.push(format!("   “{message}”"));
        }
        if let Some(retry_at) = attempt.retry_at {
            let again = choice::asks_again_at(attempt.decision.as_ref());
            let again = again.map(|at| format!("; one call asks again at {at}, because that is more than a day away"));
            lines.push(format!("   it asked to be left alone until {}{}", clock(retry_at), again.unwrap_or_default()));
        }
        if let Some(tokens) = tokens(attempt) {
            lines.push(format!("   {tokens}"));
        }
        lines.push(format!("   {}", cost(attempt)));
        lines.extend(notes(attempt).map(|note| format!("   note: {note}")));
        if let Some(answer) = &self.answer {
            let broke_off = choice::broke_off(attempt.decision.as_ref());
            let what = if attempt.accepted {
                "the answer as it came"
            } else if broke_off {
                "what had come of its answer"
            } else {
                "its answer"
            };
            lines.push(format!("   {what}:"));
            answer.tell(lines);
        } else if attempt.accepted && attempt.has_answer {
            lines.push("   the answer as it came: `answer` of this attempt in sluice.attempts".to_owned());
        }
        if let Some(request_id) = &attempt.request_id {
            lines.push(format!("   the provider's request id: {request_id}"));
        }
    }
}

/// How sure the rung was of its answer, where the message of a rejection does not say it.
fn confidence(attempt: &AttemptView) -> Option<String> {
    let is_unsure = attempt.detail.as_deref() == Some(SoftFailure::LowConfidence.as_str());
    match attempt.confidence.and_then(Confidence::of) {
        Some(confidence) if !is_unsure => Some(format!("its confidence is {confidence}")),
        _ if is_unsure && attempt.accepted => Some("it was not sure enough, and no surer answer came".to_owned()),
        _ => None,
    }
}

fn notes(attempt: &AttemptView) -> impl Iterator<Item = &str> {
    attempt.notes.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn outcome(attempt: &AttemptView) -> String {
    let took = span(attempt.total_ms.into());
    let mut line = if attempt.accepted {
        let mut line = format!("accepted after {took}");
        if let Some(first_byte) = attempt.first_byte_ms {
            let _ = write!(line, " (first byte after {})", span(first_byte.into()));
        }
        line
    } else {
        let class = attempt.class.as_deref().unwrap_or("unknown");
        match &attempt.detail {
            // No fault was found with it.
            Some(detail) if class == ErrorClass::Abandoned.as_str() => {
                format!("not used, after {took}: {class}, {detail}")
            }
            Some(detail) => format!("rejected after {took}: {class}, {detail}"),
            None => format!("failed after {took}: {class}"),
        }
    };
    let facts = [
        attempt.http_status.filter(|_| !attempt.accepted).map(|status| format!("HTTP {status}")),
        attempt.code.clone(),
        attempt.finish.as_ref().map(|finish| format!("finish {finish}")),
        attempt.service_tier.as_deref().and_then(special_tier).map(|tier| format!("tier {tier}")),
        attempt
            .model_served
            .as_ref()
            .filter(|served| **served != attempt.model)
            .map(|served| format!("served by {served}")),
    ];
    for fact in facts.into_iter().flatten() {
        let _ = write!(line, "; {fact}");
    }
    line
}

fn tokens(attempt: &AttemptView) -> Option<String> {
    let input = attempt.input_tokens + attempt.cache_read_tokens + attempt.cache_write_tokens;
    if input == 0 && attempt.output_tokens == 0 {
        return None;
    }
    let mut line = counted(input, "token in", "tokens in");
    let mut parts = Vec::new();
    if attempt.cache_read_tokens > 0 {
        parts.push(format!("{} from the cache", attempt.cache_read_tokens));
    }
    if attempt.cache_write_tokens > 0 {
        parts.push(format!("{} into it", attempt.cache_write_tokens));
    }
    if !parts.is_empty() {
        let _ = write!(line, " ({})", parts.join(", "));
    }
    let _ = write!(line, ", {} out", attempt.output_tokens);
    if attempt.reasoning_tokens > 0 {
        let _ = write!(line, " ({} of them reasoning)", attempt.reasoning_tokens);
    }
    if attempt.usage_source != "provider" {
        line.push_str(", estimated: the provider did not say, or not what can be");
    }
    Some(line)
}

/// Whether the cost is what the provider said.
fn is_reported(attempt: &AttemptView) -> bool {
    attempt.cost_source.as_deref() == Some(CostSource::Reported.as_str())
}

fn cost(attempt: &AttemptView) -> String {
    let mut line = match (attempt.cost_nanos, &attempt.price) {
        (Some(cost), None) if is_reported(attempt) => {
            format!("cost {}, as the provider says: the price was not known", NanoUsd(cost))
        }
        (Some(cost), Some(price)) if is_reported(attempt) => {
            let computed =
                attempt.computed_cost_nanos.map_or_else(|| "unknown".to_owned(), |nanos| NanoUsd(nanos).to_string());
            format!("cost {}, as the provider says; computed {computed} at {}", NanoUsd(cost), price_in_words(price))
        }
        (Some(cost), Some(price)) => format!("cost {} at {}", NanoUsd(cost), price_in_words(price)),
        (Some(cost), None) => format!("cost {}", NanoUsd(cost)),
        (None, _) => "cost unknown: the price was not known".to_owned(),
    };
    if let Some(reported) = attempt.reported_cost_nanos.filter(|_| !is_reported(attempt)) {
        let _ = write!(line, "; the provider says {}", NanoUsd(reported));
    }
    if attempt.cost_differs {
        line.push_str(" (they differ by more than prices.reported_difference)");
    }
    if let Some(at) = attempt.repriced_at {
        let states = attempt.repriced_from.as_ref().and_then(Value::as_array);
        let before = states.and_then(|states| states.last()?.get("cost_nanos")?.as_i64());
        let was = before.map_or_else(|| "unknown".to_owned(), |nanos| NanoUsd(nanos).to_string());
        let _ = write!(line, "; repriced {}, before that {was}", at.format("%Y-%m-%d %H:%M UTC"));
    }
    // What came of an answer that broke off has a price, and nothing is known of a charge.
    if let (Some(0), None, Some(computed)) = (attempt.cost_nanos, &attempt.cost_source, attempt.computed_cost_nanos) {
        let _ = write!(line, "; what came is worth {} by estimate", NanoUsd(computed));
    }
    if attempt.uncertain_nanos > 0 {
        let most = NanoUsd(attempt.uncertain_nanos);
        let _ = if attempt.cost_nanos.is_none() {
            write!(line, "; budgets count {most} for it, as was reserved")
        } else {
            write!(line, ", and perhaps up to {most} more: its end is not known")
        };
    }
    line
}

fn price_in_words(price: &Value) -> String {
    let names = [
        ("input", "in"),
        ("cached_input", "from the cache"),
        ("cache_write", "into the cache"),
        ("cache_write_1h", "into the cache for an hour"),
        ("output", "out"),
        ("reasoning", "for reasoning"),
    ];
    let parts: Vec<String> =
        names.iter().filter_map(|(key, name)| Some(format!("{} {name}", NanoUsd(price.get(key)?.as_i64()?)))).collect();
    if parts.is_empty() { price.to_string() } else { format!("{} per million tokens", parts.join(", ")) }
}
