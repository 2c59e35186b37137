//! `strategy` of a route, and the keys that belong to one strategy.

use super::scalar;
use super::section::{Section, quote, to_json};
use crate::domain::{Race, Route, Rung, StickyBy, Strategy, StrategyKind};
use config::{Value, ValueKind};
use std::cell::Cell;
use std::sync::Arc;

const WEIGHT: &str = "a number, at least 0, such as 3 or 0.5; 0: only a fallback";
const KEY: &str = "\"batch\", \"project\" or \"metadata.MEMBER\"";

/// The keys that belong to one strategy: the strategy, the key, and the fact that is true of all other strategies.
const BELONGINGS: [(StrategyKind, &str, &str); 4] = [
    (StrategyKind::Weighted, "weights", "draws by no weights"),
    (StrategyKind::Sticky, "sticky_by", "sticks to no rung"),
    (StrategyKind::Race, "race_after", "asks one rung at a time"),
    (StrategyKind::Race, "race_at_most", "asks one rung at a time"),
];

/// The names of the strategies.
pub(super) fn names() -> Vec<&'static str> {
    StrategyKind::ALL.map(StrategyKind::as_str).to_vec()
}

/// The strategy of a route that has these rungs.
pub(super) fn read(section: &mut Section<'_>, rungs: &[Rung]) -> Strategy {
    let expected = section.words("strategy");
    let is_given = section.has("strategy");
    let kind = section.parsed("strategy", &expected, |text| {
        StrategyKind::named(text).ok_or_else(|| match scalar::nearest(text, names()) {
            Some(near) => format!("{text:?} is not a strategy; perhaps {near:?} is meant"),
            None => format!("{text:?} is not a strategy"),
        })
    });
    if is_given && kind.is_none() {
        // The strategy is unknown, so nothing can be said about keys that belong to one strategy.
        for key in BELONGINGS.map(|(_, key, _)| key) {
            section.take(key);
        }
        return Strategy::default();
    }
    let kind = kind.unwrap_or_else(|| Strategy::default().kind());
    for (strategy, key, lacks) in BELONGINGS.into_iter().filter(|(strategy, ..)| *strategy != kind) {
        if section.has(key) {
            section.take(key);
            let (name, needed) = (kind.as_str(), strategy.as_str());
            section.fault(key, format!("the strategy is {name:?}, which {lacks}"), format!("strategy = {needed:?}"));
        }
    }
    match kind {
        StrategyKind::Cost => Strategy::Cost,
        StrategyKind::Priority => Strategy::Priority,
        StrategyKind::Weighted => Strategy::Weighted(read_weights(section, rungs)),
        StrategyKind::Balanced => Strategy::Balanced,
        StrategyKind::Fastest => Strategy::Fastest,
        StrategyKind::Sticky => Strategy::Sticky(read_key(section)),
        StrategyKind::Race => Strategy::Race(read_race(section, rungs)),
    }
}

/// The pace of a race. There is none over one rung.
fn read_race(section: &mut Section<'_>, rungs: &[Rung]) -> Race {
    let after = section.duration_or_default("race_after");
    let at_most: u16 = section.whole_or_default("race_at_most");
    match rungs.len() {
        // That the route has no rungs is a fault already.
        0 => {}
        1 => section.fault("strategy", "a race over one rung", "a second rung, or another strategy"),
        count if usize::from(at_most) > count => {
            let problem = format!("{at_most} calls at a time, and the route has {count} rungs");
            section.fault("race_at_most", problem, if count == 2 { "2".to_owned() } else { format!("2 to {count}") });
        }
        _ => {}
    }
    Race { after, at_most }
}

/// Finds fault with a route whose strategy and whose other keys contradict each other.
pub(super) fn check(section: &Section<'_>, route: &Route) {
    if !matches!(route.strategy, Strategy::Race(_)) {
        return;
    }
    if route.fallback_on.is_empty() {
        let problem = "the strategy is \"race\", which asks other rungs, and no job may leave its rung";
        section.fault("strategy", problem, "another strategy, or no fallback = \"never\"");
    }
    if route.max_attempts < 2 {
        let problem = "the strategy is \"race\", and each of two calls that are under way may fail";
        section.fault("max_attempts", problem, "2 or more");
    }
}

/// A weight for each rung.
fn read_weights(section: &mut Section<'_>, rungs: &[Rung]) -> Arc<[f64]> {
    let example = || {
        let weights = rungs.iter().map(|rung| format!("{} = 1", quote(&rung.target.to_string())));
        format!("a weight for each rung: weights = {{ {} }}", weights.collect::<Vec<_>>().join(", "))
    };
    let even = || rungs.iter().map(|_| 1.0).collect();
    if !section.has("weights") {
        section.fault("weights", "the strategy is \"weighted\", and there are no weights", example());
        return even();
    }
    let mut table = section.table("weights");
    let is_faulty = Cell::new(false);
    let fault = |key: &str, problem: String, expected: &str| {
        section.fault(key, problem, expected);
        is_faulty.set(true);
    };
    let mut weights = Vec::with_capacity(rungs.len());
    for rung in rungs {
        let target = rung.target.to_string();
        let key = format!("weights.{}", quote(&target));
        match table.remove(&target).map(|value| weight(&value)) {
            Some(Ok(weight)) => weights.push(weight),
            Some(Err(problem)) => fault(&key, problem, WEIGHT),
            None => fault(&key, "is missing".to_owned(), WEIGHT),
        }
    }
    let targets: Vec<String> = rungs.iter().map(|rung| rung.target.to_string()).collect();
    for stranger in table.keys() {
        let expected = match scalar::nearest(stranger, targets.iter().map(String::as_str)) {
            Some(near) => format!("perhaps {near}"),
            None => format!("one of {}", targets.join(", ")),
        };
        fault(&format!("weights.{}", quote(stranger)), format!("{stranger:?} is no rung of this route"), &expected);
    }
    if !is_faulty.get() && !rungs.is_empty() && weights.iter().all(|weight| *weight <= 0.0) {
        fault("weights", "every weight is 0, so no rung would be drawn".to_owned(), "one above 0 at least");
    }
    if is_faulty.get() { even() } else { weights.into() }
}

fn weight(value: &Value) -> Result<f64, String> {
    let number = match &value.kind {
        #[expect(clippy::cast_precision_loss, reason = "a share, which needs no more digits")]
        ValueKind::I64(number) => *number as f64,
        ValueKind::Float(number) => *number,
        ValueKind::Array(_) | ValueKind::Table(_) => return Err("is not a weight".to_owned()),
        _ => return Err(format!("{} is not a weight", to_json(value))),
    };
    if number.is_finite() && number >= 0.0 { Ok(number) } else { Err(format!("{number} is not a weight")) }
}

fn read_key(section: &mut Section<'_>) -> StickyBy {
    let is_missing = !section.has("sticky_by");
    let key = section.parsed("sticky_by", KEY, |text| match text {
        "batch" => Ok(StickyBy::Batch),
        "project" => Ok(StickyBy::Project),
        other => match other.strip_prefix("metadata.") {
            Some(member) if !member.trim().is_empty() => Ok(StickyBy::Metadata(member.to_owned())),
            _ => Err(format!("{other:?} is nothing to stick by")),
        },
    });
    if is_missing {
        section.fault("sticky_by", "the strategy is \"sticky\", and there is no key", KEY);
    }
    key.unwrap_or(StickyBy::Batch)
}
