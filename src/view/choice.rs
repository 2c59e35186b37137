//! Why an attempt called this rung and no other, in words, from the worker's notes on it.

use super::time::{clock, span};
use super::waits::was_shut;
use crate::domain::awaited::{self, Awaited, What};
use crate::domain::counted::counted;
use crate::domain::explanation::{Explanation, OrderedRung, Ordering, Packed, PassedOver, Streamed, Waited, Why};
use crate::domain::fork::Taken;
use crate::domain::larger_cap::RaisedCap;
use crate::domain::pause::FixedWait;
use crate::domain::shut::Reason;
use crate::domain::{NanoUsd, StrategyKind, Timestamp, Unit};
use crate::store::claim::datetime;
use serde_json::{Map, Value};

/// Why this rung and no other, and the parts of the request that it does not take. `is_told`: whether an order
/// of the rungs is told already.
pub(super) fn in_words(decision: Option<&Value>, is_told: impl Fn(&Ordering) -> bool) -> Vec<String> {
    let explanation = decision.map(Explanation::read).unwrap_or_default();
    let mut reasons: Vec<String> = explanation.rules.iter().map(Taken::to_string).collect();
    let skipped = explanation.skipped.iter().map(|rung| {
        let target = rung.target.as_deref().unwrap_or("a rung that is no longer there");
        format!("not {target}: {}", why_skipped(&rung.why))
    });
    reasons.extend(skipped);
    reasons.extend(explanation.waited.iter().map(waited));
    if explanation.skipped.is_empty() {
        reasons.push("it was the first choice".to_owned());
    }
    if let Some(order) = explanation.order.as_ref().filter(|order| !is_told(order)) {
        reasons.push(in_order(order));
    }
    if let Some(key) = &explanation.key {
        reasons.push(format!("it was called with the key {key}"));
    }
    if let Some(RaisedCap { of, from, to, after }) = explanation.raised_cap {
        reasons.push(format!("max_tokens raised from {from} to {to} after {after} (#{of})"));
    }
    if !explanation.dropped.is_empty() {
        reasons.push(format!("not sent to it as it came: {}", explanation.dropped.join(", ")));
    }
    if !explanation.added.is_empty() {
        reasons.push(format!("added by the route (prompt_cache): {}", explanation.added.join(", ")));
    }
    if let Some(ms) = explanation.prefix_wait_ms {
        let seconds = span(i64::try_from(ms).unwrap_or(i64::MAX));
        reasons.push(format!("it waited {seconds} for the first call with the same tools and instructions"));
    }
    reasons.extend(explanation.streamed.map(streamed));
    reasons.extend(explanation.pack.map(packed));
    if !explanation.unchecked.is_empty() {
        let unchecked = explanation.unchecked.join(", ");
        reasons.push(format!("not checked in its answer, of the request's JSON schema: {unchecked}"));
    }
    reasons
}

/// A wait that is over: how long, and what it was for.
fn waited(wait: &Waited) -> String {
    let took = wait.ms.map(|ms| format!(" {}", span(i64::try_from(ms).unwrap_or(i64::MAX)))).unwrap_or_default();
    let why = match Awaited::read(&wait.awaited) {
        Some(Awaited { target, what: What::Opens(reason), .. }) => format!("{target}: {}", was_shut(reason)),
        Some(Awaited { target, what: What::Retry, because: "" }) => {
            format!("{target}: this job rested after its failure there")
        }
        Some(Awaited { target, what: What::Retry, because }) => {
            format!("{target}: this job rested after its failure there ({because})")
        }
        None => match FixedWait::read(&wait.awaited) {
            Some(FixedWait::BatchPaused) => "its batch was paused".to_owned(),
            Some(FixedWait::RoutePaused) => "its route was paused".to_owned(),
            Some(FixedWait::ProjectPaused) => "its project was paused".to_owned(),
            Some(FixedWait::Paused) => "the job itself was paused".to_owned(),
            _ => match wait.awaited.strip_prefix(awaited::BUDGET) {
                Some(budget) => format!("the budget {budget} had no room"),
                None => wait.awaited.clone(),
            },
        },
    };
    format!("it waited{took}: {why}")
}

/// Whether the answer was streamed and broke off after some words.
pub(super) fn broke_off(decision: Option<&Value>) -> bool {
    let streamed = decision.map(Explanation::read).and_then(|explanation| explanation.streamed);
    streamed.is_some_and(|streamed| !streamed.whole && streamed.characters > 0)
}

/// How the answer came that was asked for as a stream.
fn streamed(streamed: Streamed) -> String {
    match streamed {
        Streamed { whole: true, .. } => "its answer was streamed".to_owned(),
        Streamed { whole: false, characters: 0 } => "a stream was asked for, and no word of an answer came".to_owned(),
        Streamed { whole: false, characters } => {
            format!("its answer was streamed, and broke off after {}", counted(characters, "character", "characters"))
        }
    }
}

/// With whom it shared the call, and why the failure of that is not its own.
fn packed(pack: Packed) -> String {
    let others = counted(pack.jobs.saturating_sub(1), "other job", "other jobs");
    let inputs = counted(pack.inputs, "input", "inputs");
    let parted = if pack.parted {
        "; what became of that may be the fault of another, so it counts against none: the job is asked again with \
         fewer others, or alone"
    } else {
        ""
    };
    format!("it shared its call with {others} ({inputs} in all){parted}")
}

/// The order in which the job tried its rungs, and what it was made by.
fn in_order(order: &Ordering) -> String {
    let kind = StrategyKind::named(&order.by);
    let by = match (kind, &order.sticks_by) {
        (Some(StrategyKind::Cost | StrategyKind::Race), _) => "the cheapest first".to_owned(),
        (Some(StrategyKind::Priority), _) => "as listed".to_owned(),
        (Some(StrategyKind::Weighted), _) => "drawn by weight".to_owned(),
        (Some(StrategyKind::Balanced), _) => "the one with the most room in its limits first".to_owned(),
        (Some(StrategyKind::Fastest), _) if order.explores => {
            "the fastest first, but this job finds out about another".to_owned()
        }
        (Some(StrategyKind::Fastest), _) => "the fastest first".to_owned(),
        (Some(StrategyKind::Sticky), Some(key)) => format!("the same for all jobs of its {key}"),
        (Some(StrategyKind::Sticky), None) => "drawn, because the job has no key to stick by".to_owned(),
        (None, _) => order.by.to_string(),
    };
    let rungs = order.rungs.iter().map(|rung| {
        let figure = match rung {
            OrderedRung { weight: Some(weight), .. } => format!(" (weight {weight})"),
            OrderedRung { free_percent: Some(percent @ 0..), .. } => format!(" ({percent} % free)"),
            OrderedRung { free_percent: Some(_), .. } => " (calls wait already)".to_owned(),
            OrderedRung { expected_ms: Some(ms), .. } => format!(" ({ms} ms)"),
            OrderedRung { expected_nanos: Some(nanos), .. } => format!(" (~{})", NanoUsd(*nanos)),
            OrderedRung { .. } if kind == Some(StrategyKind::Fastest) => " (unknown)".to_owned(),
            OrderedRung { .. } => String::new(),
        };
        format!("{}{figure}", rung.target)
    });
    format!("its order was {by}: {}", rungs.collect::<Vec<_>>().join(", "))
}

/// When one call asks the provider again although it has asked for a longer wait.
pub(super) fn asks_again_at(decision: Option<&Value>) -> Option<String> {
    decision.map(Explanation::read)?.asks_again_at.map(instant)
}

/// Why a rung was passed over.
pub(super) fn why_skipped(why: &Why) -> String {
    match why {
        Why::Shut { reason, until, passed_over: Some(PassedOver::BetterRung), found, .. } => {
            let found = found.as_deref().unwrap_or_else(|| was_shut(*reason));
            format!("{found}; passed over{} for a rung that answered better", until_when(*until))
        }
        Why::Shut { reason, until: Some(until), passed_over: Some(PassedOver::WaitingIsPointless), .. }
            if *reason != Reason::Paused =>
        {
            let why = not_waited_for(Some(&PassedOver::WaitingIsPointless), None);
            format!("{}{why}; one call tries it again at {}", was_shut(*reason), instant(*until))
        }
        Why::Shut { reason, until, passed_over, patience_until, .. } => {
            // A pause has no known end.
            let until = if *reason == Reason::Paused { String::new() } else { until_when(*until) };
            format!("{}{until}{}", was_shut(*reason), not_waited_for(passed_over.as_ref(), *patience_until))
        }
        Why::BackingOff { until } => format!("it was resting after a failure{}", until_when(*until)),
        Why::TooLate { until, latest } => {
            let until = until_when(*until);
            match latest {
                Some(latest) => format!(
                    "it was resting after a failure{until}, and only a call before {} could make the deadline",
                    instant(*latest)
                ),
                None => format!("it was resting after a failure{until}, too long for the deadline"),
            }
        }
        Why::UnderWay { since } => match since {
            Some(since) => format!("it was being asked since {}, so this one was asked beside it", instant(*since)),
            None => "it was being asked, so this one was asked beside it".to_owned(),
        },
        Why::Failed { class } => format!("it had failed this job already ({class})"),
        Why::ContextWindow { needed, window } => {
            format!("about {needed} tokens do not fit its window of {window}")
        }
        Why::BucketTooSmall { unit, needed, size } => {
            // Earlier versions stored the words.
            let unit = Unit::parse(unit).map_or_else(|| unit.to_string(), |unit| unit.to_string());
            format!("about {needed} {unit} can never fit its limit of {size} at once")
        }
        Why::Unsupported { what } => format!("it does not support {what}"),
        Why::OverBudget { budget, worst, limit } => {
            let (worst, limit) = (NanoUsd(*worst), NanoUsd(*limit));
            format!("a call may cost {worst}, more than the whole budget {budget} of {limit}")
        }
        Why::Unpriced { budget } => {
            format!("it has no price, and the budget {budget} takes only calls whose worst case is known")
        }
        Why::OverCost { worst: None, limit, .. } => {
            format!("it has no price, and max_cost of {} takes only calls whose worst case is known", NanoUsd(*limit))
        }
        Why::OverCost { spent: None, limit, .. } => {
            let limit = NanoUsd(*limit);
            format!("a call before had no price, so it was not known what was left of max_cost of {limit}")
        }
        Why::OverCost { spent: Some(spent), worst: Some(worst), limit } => {
            let [spent, worst, limit] = [*spent, *worst, *limit].map(NanoUsd);
            format!("a call may cost {worst}, the job's calls had cost up to {spent}, and max_cost is {limit}")
        }
        Why::Unknown(said) => word_of(said),
    }
}

/// A word of a newer worker: better shown than hidden.
fn word_of(said: &Map<String, Value>) -> String {
    let text = |member: &str| said.get(member).and_then(Value::as_str);
    let until = text("until").and_then(|at| at.parse().ok()).map(|at| format!(" until {}", clock(at)));
    format!("{}{}", text("why").unwrap_or("for a reason that cannot be read"), until.unwrap_or_default())
}

fn instant(at: Timestamp) -> String {
    clock(datetime(at))
}

fn until_when(until: Option<Timestamp>) -> String {
    until.map_or_else(String::new, |at| format!(" until {}", instant(at)))
}

/// Why the job did not wait for a shut rung. Empty where an older worker did not note it.
fn not_waited_for(why: Option<&PassedOver>, patience_until: Option<Timestamp>) -> String {
    let until = patience_until.map_or_else(|| "then".to_owned(), instant);
    match why {
        None => String::new(),
        Some(PassedOver::NoPatience) => ", and the route waits for no cheaper rung".to_owned(),
        Some(PassedOver::PatienceOver) => format!(", and there was patience only until {until}"),
        Some(PassedOver::DeadlineNear) => format!(", and the deadline left patience only until {until}"),
        Some(PassedOver::WaitingIsPointless) => ", which does not pass by waiting".to_owned(),
        Some(PassedOver::BetterRung) => ", and another rung answered better".to_owned(),
        Some(PassedOver::Unknown(word)) => format!(", {word}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(skip: &Value) -> String {
        let lines = in_words(Some(&json!({ "skipped": [skip] })), |_| false);
        lines[0].strip_prefix("not a rung that is no longer there: ").unwrap().to_owned()
    }

    #[test]
    fn every_reason_to_pass_a_rung_over_has_its_words() {
        let reason = |skip: Value| told(&skip);
        assert_eq!(reason(json!({ "why": "paused" })), "its provider was paused");
        assert_eq!(reason(json!({ "why": "breaker_open" })), "its breaker was open");
        let weak = |found: &str| {
            let until = "2027-01-15T08:00:00Z";
            json!({ "why": "quality", "until": until, "passed_over": "better_rung", "found": found })
        };
        let found = "18 of the last 20 answers were rejected (schema_mismatch 15, empty 3)";
        let words = reason(weak(found));
        assert!(words.starts_with(found) && words.ends_with(" for a rung that answered better"), "{words}");
        assert_eq!(reason(json!({ "why": "slow" })), "its answers were slow");
        assert_eq!(reason(json!({ "why": "failed", "class": "timeout" })), "it had failed this job already (timeout)");
        assert_eq!(
            reason(json!({ "why": "context_window", "needed": 9000, "window": 8192 })),
            "about 9000 tokens do not fit its window of 8192"
        );
        for unit in ["input_tokens", "input tokens"] {
            let bucket = json!({ "why": "bucket_too_small", "unit": unit, "needed": 9000, "size": 8000 });
            assert_eq!(reason(bucket), "about 9000 input tokens can never fit its limit of 8000 at once");
        }
        assert_eq!(reason(json!({ "why": "unsupported", "what": "tools" })), "it does not support tools");
        assert_eq!(reason(json!({ "why": "of_tomorrow" })), "of_tomorrow");
    }

    #[test]
    fn the_order_is_told_with_the_figures_that_made_it() {
        let told = |order: Value| in_words(Some(&json!({ "order": order })), |_| false).concat();
        let rungs = |figure: &str, one: Value, two: Value| {
            json!([{ "target": "a/m", figure: one },
                { "target": "b/m", figure: two }])
        };
        for (order, words) in [
            (json!({ "by": "cost", "rungs": [{ "target": "a/m" }] }), "the cheapest first: a/m"),
            (
                json!({ "by": "cost", "rungs": rungs("expected_nanos", json!(120_000), json!(null)) }),
                "the cheapest first: a/m (~$0.00012), b/m",
            ),
            (
                json!({ "by": "weighted", "rungs": rungs("weight", json!(3.0), json!(0.5)) }),
                "drawn by weight: a/m (weight 3), b/m (weight 0.5)",
            ),
            (
                json!({ "by": "balanced", "rungs": rungs("free_percent", json!(80), json!(-3)) }),
                "the one with the most room in its limits first: a/m (80 % free), b/m (calls wait already)",
            ),
            (
                json!({ "by": "fastest", "rungs": rungs("expected_ms", json!(900), json!(null)) }),
                "the fastest first: a/m (900 ms), b/m (unknown)",
            ),
            (
                json!({ "by": "fastest", "explores": true, "rungs": [{ "target": "a/m", "expected_ms": 9 }] }),
                "the fastest first, but this job finds out about another: a/m (9 ms)",
            ),
            (
                json!({ "by": "sticky", "sticks_by": "batch", "rungs": [{ "target": "a/m" }] }),
                "the same for all jobs of its batch: a/m",
            ),
            (json!({ "by": "sticky", "rungs": [] }), "drawn, because the job has no key to stick by: "),
            (json!({ "by": "of_tomorrow", "rungs": [7] }), "of_tomorrow: "),
        ] {
            assert_eq!(told(order), format!("it was the first choiceits order was {words}"));
        }
    }

    #[test]
    fn waits_that_are_over_are_told_with_what_they_were_for() {
        let told = |wait: Value| in_words(Some(&json!({ "waited": [wait] })), |_| false).remove(0);
        for (awaited, words) in [
            ("a/m: rate_limit (within patience)", "a/m: its limit was used up"),
            ("a/m: retry (timeout)", "a/m: this job rested after its failure there (timeout)"),
            ("a/m: retry", "a/m: this job rested after its failure there"),
            ("batch paused", "its batch was paused"),
            ("budget nightly", "the budget nightly had no room"),
            ("worker stopped", "worker stopped"),
        ] {
            assert_eq!(told(json!({ "for": awaited, "ms": 9_780 })), format!("it waited 9.78 s: {words}"));
            assert_eq!(told(json!({ "for": awaited })), format!("it waited: {words}"));
        }
        assert_eq!(told(json!({ "ms": 7 })), "it was the first choice");
    }

    #[test]
    fn the_rules_that_led_to_the_rungs_are_told_first() {
        let rules = json!([
            { "route": "default", "rule": 1, "to": "long" }, { "route": "long", "rule": 0, "to": "longest" }, 7,
        ]);
        assert_eq!(
            in_words(Some(&json!({ "rules": rules })), |_| false),
            [
                "rules[1] of route default led to long",
                "rules[0] of route long led to longest",
                "it was the first choice",
            ]
        );
    }

    #[test]
    fn what_cut_the_wait_for_a_cheaper_rung_short_is_told_with_its_instant() {
        let reason = |passed_over: &str| {
            told(&json!({
                "why": "rate_limit", "until": "2026-01-31T09:00:00Z",
                "passed_over": passed_over, "patience_until": "2026-01-31T08:10:00Z",
            }))
        };
        let (shut, until) = ("its limit was used up until 2026-01-31T09:00:00.000Z", "2026-01-31T08:10:00.000Z");
        assert_eq!(reason("patience_over"), format!("{shut}, and there was patience only until {until}"));
        assert_eq!(reason("deadline_near"), format!("{shut}, and the deadline left patience only until {until}"));
        assert_eq!(reason("no_patience"), format!("{shut}, and the route waits for no cheaper rung"));
        assert_eq!(
            told(&json!({ "why": "auth", "passed_over": "waiting_is_pointless" })),
            "its key had been rejected, which does not pass by waiting"
        );
        let tried = json!({ "why": "auth", "until": "2026-01-31T09:00:00Z", "passed_over": "waiting_is_pointless" });
        assert_eq!(
            told(&tried),
            "its key had been rejected, which does not pass by waiting; one call tries it again at \
             2026-01-31T09:00:00.000Z"
        );
        let late = json!({ "why": "too_late", "until": "2026-01-31T09:00:00Z", "latest": "2026-01-31T08:10:00Z" });
        assert_eq!(
            told(&late),
            format!(
                "it was resting after a failure until 2026-01-31T09:00:00.000Z, and only a call before {until} could \
                 make the deadline"
            )
        );
    }
}
