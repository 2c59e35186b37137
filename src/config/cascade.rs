//! `cascade` of a route.

use super::keys::CASCADE;
use super::provider::ReadProvider;
use super::section::{Section, to_json};
use crate::domain::strategy::{self, Conditions};
use crate::domain::{Cascade, ChatRequest, Confidence, ErrorClass, Measure, Route, Rung, Strategy, Target, Timestamp};
use crate::provider::Endpoint;
use config::ValueKind;
use std::collections::BTreeMap;

const MEASURES: &str = "\"mean_logprob\", \"min_logprob\", or a JSON pointer to a number in the answer, such as \
                        \"/confidence\"";

/// The cascade of a route that has these rungs; `None`: it has none, or a faulty one.
pub(super) fn read(
    section: &mut Section<'_>,
    rungs: &[Rung],
    providers: &BTreeMap<String, ReadProvider>,
) -> Option<Cascade> {
    if !section.has("cascade") {
        return None;
    }
    let entries = section.table("cascade");
    let mut table = section.nested("cascade", &CASCADE, entries);
    for (key, expected) in [("confidence", MEASURES), ("at_least", "a number such as 0.8")] {
        if !table.has(key) {
            table.fault(key, "is missing", expected);
        }
    }
    let measure = table.parsed("confidence", MEASURES, |text| {
        Measure::named(text).ok_or_else(|| format!("{text:?} says nothing of how sure an answer is"))
    });
    let at_least = at_least(&mut table, measure.as_ref());
    table.finish();
    let (measure, at_least) = (measure?, at_least?);
    let request = ChatRequest::read_text(SAMPLE).expect("a request");
    let is_silent = |rung: &&Rung| {
        let endpoint = providers.get(&rung.target.provider).map(|provider| &provider.config.endpoint);
        measure.needs_logprobs() && !endpoint.is_some_and(|endpoint| gives_logprobs(endpoint, rung, &request))
    };
    let silent = rungs.iter().filter(is_silent).map(|rung| rung.target.clone()).collect();
    Some(Cascade { measure, at_least, silent })
}

/// A request that asks for the probabilities of the tokens.
const SAMPLE: &str = r#"{"messages":[{"role":"user","content":"?"}],"logprobs":true}"#;

/// Whether a rung is asked for the probabilities of its tokens: its dialect, server and model are not known to refuse
/// them.
fn gives_logprobs(endpoint: &Endpoint, rung: &Rung, request: &ChatRequest) -> bool {
    let written = endpoint.adapter().encode(request.into(), &rung.target.model, &rung.model.capabilities);
    written.is_ok_and(|wire| !wire.dropped.iter().any(|path| path == "logprobs"))
}

/// The threshold. A probability of 1 is never exceeded, and one of 0 always reached.
fn at_least(table: &mut Section<'_>, measure: Option<&Measure>) -> Option<Confidence> {
    let value = table.take("at_least")?;
    let number = match &value.kind {
        ValueKind::Float(number) => Some(*number),
        ValueKind::I64(number) => number.to_string().parse().ok(),
        ValueKind::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let is_probability = measure.is_some_and(Measure::needs_logprobs);
    let number = number.filter(|number| number.is_finite() && (!is_probability || (0.0..=1.0).contains(number)));
    if number.is_none() {
        let expected = if is_probability { "a probability from 0 to 1" } else { "a number such as 0.8" };
        table.fault("at_least", format!("{} is no threshold", to_json(&value)), expected);
    }
    Confidence::of(number?)
}

/// Finds fault with a route whose cascade and whose other keys contradict each other.
pub(super) fn check(section: &Section<'_>, route: &Route) {
    let Some(cascade) = &route.cascade else { return };
    let strategy = route.strategy.as_str();
    match &route.strategy {
        Strategy::Cost | Strategy::Priority => {}
        Strategy::Weighted(_) | Strategy::Balanced | Strategy::Fastest | Strategy::Sticky(_) | Strategy::Race(_) => {
            let problem = format!("the strategy is {strategy:?}, which knows no rung above another");
            section.fault("cascade", problem, "strategy = \"cost\" or \"priority\", or no cascade");
        }
    }
    if !route.falls_back_on(ErrorClass::SoftFailure) {
        let problem = "no job may leave its rung because of its answer";
        section.fault("cascade", problem, "soft_failure in fallback_on, and no fallback = \"never\"");
    }
    if route.max_attempts < 2 {
        section.fault("max_attempts", "a job of a cascade asks two rungs", "2 or more");
    }
    match route.rungs.as_slice() {
        // That the route has no rungs is a fault already.
        [] => {}
        [_] => section.fault("cascade", "a cascade over one rung", "a second rung, or no cascade"),
        rungs => {
            let last = last_rung(route);
            let silent = |rung: &&Rung| cascade.silent.contains(&rung.target) && Some(&rung.target) != last.as_ref();
            let told: Vec<String> = rungs.iter().filter(silent).map(|rung| rung.target.to_string()).collect();
            if !told.is_empty() {
                let problem = format!("{} cannot say how sure it is: it is not asked for logprobs", told.join(", "));
                section.fault("cascade.confidence", problem, "a field of the answer such as \"/confidence\"");
            }
        }
    }
}

/// The rung that a job of usual size comes to last: nothing follows it, so it need not say how sure it is.
fn last_rung(route: &Route) -> Option<Target> {
    const TOKENS: i64 = 1_000;
    let (now, rungs) = (Timestamp(0), &[]);
    let (input_tokens, max_output_tokens) = (TOKENS, Some(TOKENS));
    let usual = Conditions { input_tokens, max_output_tokens, hash: None, sticky: None, spent: None, now, rungs };
    let mut order = Vec::new();
    strategy::order(route, &usual, &mut order);
    Some(route.rungs.get(*order.last()?)?.target.clone())
}
