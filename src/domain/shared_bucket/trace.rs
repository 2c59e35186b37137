//! The numbers of `docs/shared-limits.md`: one limit, three processes, and what happens to them.

use super::*;
use crate::domain::limits::Dimension;
use crate::domain::shut::Reason;
use crate::domain::{Rate, Unit};

const PAGE: &str = include_str!("../../../docs/shared-limits.md");
const TOKENS: Dimension = Dimension { unit: Unit::Tokens, seconds: 60 };
const START: i64 = 1_800_000_000_000;

/// A report of a process: the units it has left, how long it has held no more, and the units it needs and could use.
#[derive(Clone, Copy)]
struct TraceStep {
    ms: i64,
    who: i64,
    left: i64,
    quiet: u64,
    need: u64,
    want: u64,
    /// The wait, in seconds, that a provider has just asked of it.
    asked: Option<u64>,
}

const fn step(ms: i64, who: i64, left: i64, quiet: u64, need: u64, want: u64) -> TraceStep {
    TraceStep { ms, who, left, quiet, need, want, asked: None }
}

const STEPS: [TraceStep; 21] = [
    // The start, until nothing is left.
    step(0, 1, 0, 0, 1_000, 4_000),
    step(10, 2, 0, 0, 1_000, 3_000),
    step(20, 3, 0, 0, 1_000, 5_000),
    // All have spent their units on whole calls of 1,000.
    step(220, 1, 0, 215, 1_000, 4_000),
    step(240, 3, 975, 215, 1_000, 3_000),
    step(1_050, 3, 205, 800, 1_000, 2_000),
    // A call of the second took 3,000 more than estimated.
    step(1_200, 2, -3_000, 0, 1_000, 1_000),
    step(2_000, 3, 15, 900, 1_000, 1_000),
    step(2_100, 1, 0, 2_100, 1_000, 4_000),
    step(5_050, 3, 15, 3_900, 1_000, 1_000),
    // The first gets enough for a call, and dies.
    step(6_000, 1, 0, 5_900, 1_000, 4_000),
    step(6_200, 1, 965, 200, 1_000, 4_000),
    step(7_200, 2, 0, 6_000, 1_000, 1_000),
    step(8_100, 3, 0, 3_000, 1_000, 1_000),
    step(9_150, 2, 0, 1_900, 1_000, 1_000),
    step(9_250, 2, 0, 50, 0, 0),
    // The provider refuses that call.
    TraceStep { asked: Some(20), ..step(9_500, 2, 0, 250, 1_000, 1_000) },
    step(9_700, 3, 900, 1_000, 1_000, 1_000),
    step(10_200, 3, 0, 1_500, 1_000, 1_000),
    step(29_500, 3, 0, 19_000, 1_000, 1_000),
    step(30_500, 2, 0, 19_000, 1_000, 1_000),
];

fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    format!("{}{}", if number < 0 { "-" } else { "" }, groups.join(","))
}

fn seconds(ms: i64) -> String {
    format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10)
}

/// Each step as a row of the page.
fn rows() -> Vec<String> {
    let rate = Rate { unit: Unit::Tokens, amount: 60_000, per: Duration::from_mins(1), burst: 10_000 };
    let limits = Limits { rates: vec![rate], concurrency: None };
    let mut bucket = SharedBucket::default();
    let mut epochs = BTreeMap::new();
    let row = |step: TraceStep| {
        let wait = step.asked.map(|asked| Wait {
            reason: Reason::RateLimit,
            remaining: Duration::from_secs(asked),
            recheck: Duration::from_mins(10),
            drained: vec![(TOKENS, 1_000)],
            too_steep: false,
        });
        let stock = Stock {
            dimension: TOKENS,
            epoch: epochs.get(&step.who).copied().unwrap_or(0),
            left: step.left,
            quiet: Duration::from_millis(step.quiet),
            refund: 0,
            refund_age: Duration::ZERO,
            need: step.need,
            waiting: step.want,
            want: step.want,
        };
        let report = Report { stocks: vec![stock], refused: u64::from(wait.is_some()), wait, ..Report::default() };
        let told = bucket.exchange(step.who, &limits, &report, Timestamp(START + step.ms));
        let slice = told.slices[0];
        epochs.insert(step.who, slice.epoch);
        let who = ["A", "B", "C"][usize::try_from(step.who - 1).unwrap()];
        let asked = step.asked.map_or(String::new(), |asked| format!(", was asked to wait {asked} s"));
        format!(
            "| {} | {who} | has {}{asked}, could use {} | {} | {} | {} | {} |",
            seconds(step.ms),
            grouped(step.left),
            grouped(i64::try_from(step.want).unwrap()),
            grouped(i64::try_from(slice.held).unwrap()),
            grouped(slice.level),
            grouped(i64::try_from(slice.outstanding).unwrap()),
            told.wait.map_or(String::new(), |wait| seconds(wait.shut.until.0 - START)),
        )
    };
    STEPS.into_iter().map(row).collect()
}

#[test]
fn the_page_about_shared_limits_tells_what_happens() {
    let is_a_step = |line: &&str| line.starts_with("| ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_digit);
    let told: Vec<&str> = PAGE.lines().filter(is_a_step).collect();
    assert_eq!(told, rows(), "the rows are:\n{}", rows().join("\n"));
}
