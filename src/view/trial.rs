//! What a trial has brought: a row for each rung, and the answers of all rungs side by side.

use super::dollars::Dollars;
use super::result_line::short_text_of;
use super::table::{Cell, Layout, Table};
use crate::domain::job::JobState;
use crate::domain::trial::Climbed;
use crate::domain::{NanoUsd, PerAnswer};
use crate::store::results::{EndedJob, ExportedJob};
use serde::Serialize;
use std::fmt::Write as _;

/// What a rung has made of the sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RungTrial {
    /// `provider/model`.
    pub target: String,
    /// Requests that it was asked.
    pub asked: i64,
    /// Those of them with an answer that was accepted.
    pub accepted: i64,
    /// Those of them that failed.
    pub failed: i64,
    /// Those of them without an answer by the deadline.
    pub cancelled: i64,
    /// Calls.
    pub attempts: i64,
    /// Answers that were rejected, by the kind of soft failure.
    pub rejected: Vec<(String, i64)>,
    /// Calls without an answer, by error class.
    pub unanswered: Vec<(String, i64)>,
    /// Half of the accepted answers took at most this many milliseconds.
    pub p50_ms: Option<i64>,
    /// 95 of 100 took at most this many.
    pub p95_ms: Option<i64>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    /// The known cost of all its calls; `None`: no call has a known price.
    pub cost: Option<NanoUsd>,
    pub per_answer: Option<PerAnswer>,
    /// What the whole file would cost at this rate; `None`: unknown.
    pub whole_file: Option<NanoUsd>,
}

/// The table of a trial, a row for each rung in listed order.
#[must_use]
pub fn table(rungs: &[RungTrial]) -> Table {
    let mut table = Table::new([
        "rung",
        "target",
        "asked",
        "accepted",
        "failed",
        "cancelled",
        "attempts",
        "rejected",
        "unanswered",
        "p50",
        "p95",
        "input_tokens",
        "output_tokens",
        "cost",
        "cost_per_answer",
        "whole_file",
    ])
    .laid_out(Layout {
        wide: &["rung", "asked", "attempts", "input_tokens", "output_tokens", "cost"],
        when_told: &["failed", "cancelled", "rejected", "unanswered"],
        give_way: &["p95", "cancelled", "unanswered", "rejected", "p50", "failed"],
        prose: &["rejected", "unanswered"],
    });
    for (number, rung) in (1_i64..).zip(rungs) {
        table.row([
            number.into(),
            rung.target.as_str().into(),
            rung.asked.into(),
            rung.accepted.into(),
            rung.failed.into(),
            rung.cancelled.into(),
            rung.attempts.into(),
            by_kind(&rung.rejected),
            by_kind(&rung.unanswered),
            rung.p50_ms.map_or(Cell::Empty, Cell::Millis),
            rung.p95_ms.map_or(Cell::Empty, Cell::Millis),
            rung.input_tokens.into(),
            rung.output_tokens.into(),
            rung.cost.into(),
            rung.per_answer.into(),
            rung.whole_file.into(),
        ]);
    }
    table
}

/// The table of thresholds: what the cascade of the route would have made of the sample with each. `whole`: what the
/// whole file would cost for a cost of the sample.
#[must_use]
pub fn thresholds(climbed: &[Climbed], whole: impl Fn(NanoUsd) -> Option<NanoUsd>) -> Table {
    let mut table = Table::new([
        "at_least",
        "asked",
        "kept",
        "climbing",
        "share_climbing",
        "accepted",
        "unsure",
        "cost",
        "cost_per_answer",
        "whole_file",
    ])
    .laid_out(Layout { wide: &["asked", "climbing"], when_told: &["unsure"], give_way: &[], prose: &[] });
    for climbed in climbed {
        #[expect(clippy::cast_precision_loss, reason = "a sample has a thousand requests")]
        let share = (climbed.asked > 0).then(|| climbed.climbing as f64 / climbed.asked as f64);
        table.row([
            climbed.at_least.to_string().into(),
            climbed.asked.into(),
            climbed.kept.into(),
            climbed.climbing.into(),
            share.map_or(Cell::Empty, Cell::Share),
            climbed.accepted.into(),
            climbed.unsure.into(),
            climbed.cost.into(),
            climbed.per_answer().into(),
            climbed.cost.and_then(&whole).into(),
        ]);
    }
    table
}

/// `truncated 2, refusal 1`
fn by_kind(counts: &[(String, i64)]) -> Cell {
    let told: Vec<String> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    if told.is_empty() { Cell::Empty } else { told.join(", ").into() }
}

/// One request of the sample with what each rung has made of it.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The author's name for it.
    pub custom_id: Option<String>,
    /// A rung each, in listed order.
    pub rungs: Vec<RungAnswer>,
}

/// What a rung has made of a request.
#[derive(Clone, Debug, Serialize)]
pub struct RungAnswer {
    /// `provider/model`.
    pub target: String,
    /// The job that asked; `explain` tells its story.
    pub job: Option<i64>,
    /// `accepted`, `failed`, `cancelled` or `unfinished`.
    pub state: &'static str,
    /// The text of the accepted answer.
    pub answer: Option<String>,
    /// The error class and the reason of a failure.
    pub class: Option<String>,
    pub error: Option<String>,
    /// The text of the last answer that was rejected, where the job failed of it; at most 20,000 characters.
    pub rejected: Option<String>,
    /// Calls.
    pub attempts: i16,
    /// Dollars as an exact decimal number; null when a price is unknown.
    pub cost: Option<String>,
}

impl RungAnswer {
    /// The answer of a rung that has not been asked.
    #[must_use]
    pub fn missing(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            job: None,
            state: "unfinished",
            answer: None,
            class: None,
            error: None,
            rejected: None,
            attempts: 0,
            cost: None,
        }
    }

    /// The answer to a job.
    ///
    /// # Errors
    /// When the stored answer is not JSON.
    pub fn of(target: &str, job: &ExportedJob) -> anyhow::Result<Self> {
        let (state, answer, failure) = match &job.ending {
            Some(EndedJob::Succeeded { response }) => ("accepted", short_text_of(response.as_deref())?, None),
            Some(EndedJob::Failed { class, reason, .. }) => {
                (JobState::Failed.as_str(), None, Some((class.clone(), reason.clone())))
            }
            Some(EndedJob::Cancelled) => (JobState::Cancelled.as_str(), None, None),
            None => ("unfinished", None, None),
        };
        let (class, error) = failure.unzip();
        Ok(Self {
            target: target.to_owned(),
            job: Some(job.job),
            state,
            answer,
            class,
            error,
            rejected: None,
            attempts: job.attempts,
            cost: job.cost.map(|cost| Dollars(cost).to_string()),
        })
    }
}

/// A request with its answers, for reading, as Markdown.
#[must_use]
pub fn page(comparison: &Comparison, question: &str) -> String {
    let mut page = String::new();
    let name = comparison.custom_id.as_deref().map_or_else(String::new, |id| format!(" ({id})"));
    let _ = writeln!(page, "## Line {}{}\n\n{}", comparison.line, on_one_line(&name), fenced(question));
    for (number, rung) in (1..).zip(&comparison.rungs) {
        let cost = rung.cost.as_deref().map_or_else(String::new, |cost| format!(", ${cost}"));
        let _ = writeln!(page, "### {number}. {}: {}{cost}\n", on_one_line(&rung.target), rung.state);
        match (&rung.answer, &rung.class, &rung.error) {
            (Some(answer), ..) => page.push_str(&fenced(answer)),
            (None, Some(class), Some(error)) => {
                let _ = writeln!(page, "{}", fenced(&format!("{class}: {error}")).trim_end());
            }
            _ => page.push_str("No text.\n"),
        }
        if let Some(rejected) = &rung.rejected {
            let _ = write!(page, "\nThe rejected answer:\n\n{}", fenced(rejected));
        }
        page.push('\n');
    }
    page
}

/// A name within a heading.
fn on_one_line(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A text as it is, between two lines of backticks that it does not have itself.
fn fenced(text: &str) -> String {
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    // A terminal that shows the file obeys no model.
    let text: String =
        text.trim_end().chars().map(|letter| if is_harmful(letter) { '\u{fffd}' } else { letter }).collect();
    format!("{fence}text\n{text}\n{fence}\n")
}

fn is_harmful(letter: char) -> bool {
    letter.is_control() && !matches!(letter, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(state: &'static str, answer: Option<&str>) -> RungAnswer {
        let missing = RungAnswer::missing("a/m");
        RungAnswer { state, answer: answer.map(str::to_owned), cost: Some("0.1".to_owned()), ..missing }
    }

    #[test]
    fn a_page_holds_texts_as_they_are() {
        let failed = RungAnswer {
            class: Some("soft_failure".to_owned()),
            error: Some("it is no JSON".to_owned()),
            rejected: Some("Sure! {".to_owned()),
            ..answer("failed", None)
        };
        let rungs = vec![answer("accepted", Some("```rust\n# no heading\n````")), failed, answer("accepted", None)];
        let comparison = Comparison { line: 7, custom_id: Some("a\nb".to_owned()), rungs };
        assert_eq!(
            page(&comparison, "Why?\n"),
            "## Line 7 (a b)\n\n```text\nWhy?\n```\n\n### 1. a/m: accepted, $0.1\n\n`````text\n```rust\n# no \
             heading\n````\n`````\n\n### 2. a/m: failed, $0.1\n\n```text\nsoft_failure: it is no \
             JSON\n```\n\nThe rejected answer:\n\n```text\nSure! {\n```\n\n### 3. a/m: accepted, $0.1\n\nNo text.\n\n"
        );
    }

    #[test]
    fn a_row_names_each_kind_with_its_count() {
        let rung = RungTrial {
            rejected: vec![("truncated".to_owned(), 2), ("refusal".to_owned(), 1)],
            p50_ms: Some(5),
            ..RungTrial::default()
        };
        let table = table(&[rung]);
        let at = |column: &str| &table.rows[0][table.columns.iter().position(|name| *name == column).unwrap()];
        assert_eq!(at("rejected"), &Cell::Text("truncated 2, refusal 1".to_owned()));
        assert_eq!((at("unanswered"), at("p50"), at("p95")), (&Cell::Empty, &Cell::Millis(5), &Cell::Empty));
        assert_eq!((at("cost"), at("whole_file")), (&Cell::Empty, &Cell::Empty));
    }
}
