//! A row of the ledger: one call, its outcome and its cost.

use super::choice;
use super::dollars::Dollars;
use super::time::{clock, span};
use crate::domain::counted::counted;
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

/// An attempt: the row, and its money in dollars.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptView {
    /// The row.
    #[serde(flatten)]
    pub record: AttemptRecord,
    /// Its cost; `None`: the price is unknown.
    pub cost: Option<Dollars>,
    /// Money that may have been spent beside that.
    pub uncertain_cost: Dollars,
    /// The answer that was rejected, or as it came before it was repaired, if it was asked for and there is one.
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
        let cost = record.cost_nanos.map(|nanos| Dollars(NanoUsd(nanos)));
        let uncertain_cost = Dollars(NanoUsd(record.uncertain_nanos));
        Self { record, cost, uncertain_cost, answer: None }
    }
}

impl AttemptView {
    /// Tells in lines which target was called when and why, and the outcome. `free_since`: from when on the call could
    /// have been made; `beside`: the calls that ran at the same time.
    pub(super) fn tell(&self, free_since: DateTime<Utc>, beside: Option<String>, lines: &mut Vec<String>) {
        let attempt = &self.record;
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
            lines.extend(choice::in_words(attempt.decision.as_ref()).into_iter().map(|reason| format!("   {reason}")));
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
            lines.push(if attempt.accepted { "   the answer as it came:" } else { "   its answer:" }.to_owned());
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
fn confidence(attempt: &AttemptRecord) -> Option<String> {
    let is_unsure = attempt.detail.as_deref() == Some(SoftFailure::LowConfidence.as_str());
    match attempt.confidence.and_then(Confidence::of) {
        Some(confidence) if !is_unsure => Some(format!("its confidence is {confidence}")),
        _ if is_unsure && attempt.accepted => Some("it was not sure enough, and no surer answer came".to_owned()),
        _ => None,
    }
}

fn notes(attempt: &AttemptRecord) -> impl Iterator<Item = &str> {
    attempt.notes.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn outcome(attempt: &AttemptRecord) -> String {
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

fn tokens(attempt: &AttemptRecord) -> Option<String> {
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
fn is_reported(attempt: &AttemptRecord) -> bool {
    attempt.cost_source.as_deref() == Some(CostSource::Reported.as_str())
}

fn cost(attempt: &AttemptRecord) -> String {
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
    if attempt.uncertain_nanos > 0 {
        let _ = write!(line, ", and perhaps up to {} more: its end is not known", NanoUsd(attempt.uncertain_nanos));
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
