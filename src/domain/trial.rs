//! Trials: the same few requests, asked of each rung of a route by itself.
//!
//! A trial has a route of its own for each rung, with that rung alone. The configuration does not name these routes, so
//! no worker but that of the trial takes its jobs.

use super::cascade::{Cascade, Confidence};
use super::route::{Route, Strategy, Target};
use super::strategy::hash_of;
use super::{NanoUsd, PerAnswer, Spent};
use std::collections::BTreeMap;
use std::fmt::Display;

/// The beginning of the names of such routes.
const PREFIX: &str = "trial:";

/// The name of the route that has only the rung of this target. It names the target and not the place of the rung,
/// which another configuration may change while a trial rests.
#[must_use]
pub fn route_name(route: &str, target: &impl Display) -> String {
    format!("{PREFIX}{route}:{target}")
}

/// The route that is tried by a route of this name; `None`: it is not of a trial. Configured names have no colon.
#[must_use]
pub fn tried(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)?.split_once(':').map(|(route, _)| route)
}

/// The routes of a trial: for each rung of a route, in listed order, that rung alone with the route's own rules for
/// answers and attempts. What chooses between rungs, or leads to another route, is left out.
pub fn routes(route: &Route) -> impl Iterator<Item = Route> + '_ {
    route.rungs.iter().map(|rung| Route {
        name: route_name(&route.name, &rung.target),
        rungs: vec![rung.clone()],
        // A trial is waited for: it does not wait for hours in which a rung is cheaper.
        strategy: Strategy::Fastest,
        forks: Vec::new(),
        cache: None,
        shadow: None,
        pack: None,
        ..route.clone()
    })
}

/// The custom id of the request of a line, asked of a target: another request on that line has another one.
#[must_use]
pub fn custom_id(line: u64, request: &str, target: &impl Display) -> String {
    format!("{line}-{:016x}/{target}", hash_of(request))
}

/// Some of the requests of a file, drawn while it is read: each has the same chance, and the same file with the same
/// number always gives the same ones.
#[derive(Clone, Debug)]
pub struct Sample<T> {
    size: usize,
    drawn: BTreeMap<(u64, u64), T>,
}

impl<T> Sample<T> {
    /// A sample of at most so many.
    #[must_use]
    pub const fn of(size: usize) -> Self {
        Self { size, drawn: BTreeMap::new() }
    }

    /// Offers the request of a line. It is made only if it is taken, and forgotten when others take its place.
    pub fn offer(&mut self, line: u64, make: impl FnOnce() -> T) {
        let lot = (hash_of(&line.to_string()), line);
        let is_full = self.drawn.len() >= self.size;
        if is_full && self.drawn.last_key_value().is_none_or(|(last, _)| *last < lot) {
            return;
        }
        self.drawn.insert(lot, make());
        if is_full {
            self.drawn.pop_last();
        }
    }

    /// Those that were drawn, by line.
    #[must_use]
    pub fn into_lines(self) -> BTreeMap<u64, T> {
        self.drawn.into_iter().map(|((_, line), request)| (line, request)).collect()
    }
}

/// What a rung has made of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TriedCall {
    /// Whether its answer kept every rule.
    pub accepted: bool,
    /// How sure it was of that.
    pub confidence: Option<Confidence>,
    /// What all its calls cost; `None`: unknown.
    pub cost: Option<NanoUsd>,
}

/// What a cascade with one threshold would have made of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Climbed {
    /// The threshold.
    pub at_least: Confidence,
    /// Requests of the sample.
    pub asked: u64,
    /// Those of them whose first rung was sure enough of its answer.
    pub kept: u64,
    /// Those that would have climbed.
    pub climbing: u64,
    /// Those with an answer in the end.
    pub accepted: u64,
    /// Those of them whose answer would have been taken although its rung was not sure enough.
    pub unsure: u64,
    /// The cost of all calls; `None`: the price of one is unknown.
    pub cost: Option<NanoUsd>,
}

impl Climbed {
    /// Dollars per accepted answer.
    #[must_use]
    pub fn per_answer(&self) -> Option<PerAnswer> {
        let accepted = i64::try_from(self.accepted).unwrap_or(i64::MAX);
        self.cost.map(|cost| Spent { cost, accepted, ..Spent::default() }.per_answer())
    }
}

/// What a route's cascade would have made of a sample with another threshold. Each request has its rungs as it would
/// have tried them: the target, and what it made of the request.
#[must_use]
pub fn climb(cascade: &Cascade, at_least: Confidence, sample: &[Vec<(&Target, TriedCall)>]) -> Climbed {
    let mut climbed =
        Climbed { at_least, asked: 0, kept: 0, climbing: 0, accepted: 0, unsure: 0, cost: Some(NanoUsd::ZERO) };
    for rungs in sample {
        climbed.asked += 1;
        let (mut taken, mut unsure) = (None, false);
        for (place, (target, made)) in rungs.iter().enumerate() {
            climbed.cost = climbed.cost.zip(made.cost).map(|(sum, cost)| sum + cost);
            climbed.climbing += u64::from(place == 1);
            let is_last = place.saturating_add(1) == rungs.len() || cascade.silent.contains(target);
            if made.accepted && (is_last || made.confidence.is_some_and(|confidence| confidence >= at_least)) {
                taken = Some(place);
                break;
            }
            unsure |= made.accepted;
        }
        climbed.kept += u64::from(taken == Some(0));
        climbed.accepted += u64::from(taken.is_some() || unsure);
        climbed.unsure += u64::from(taken.is_none() && unsure);
    }
    climbed
}

/// The thresholds that are worth showing: the configured one, and those that a tenth, a quarter, half, three quarters
/// and nine tenths of the answers of the first rungs do not reach.
#[must_use]
pub fn thresholds(cascade: &Cascade, sample: &[Vec<(&Target, TriedCall)>]) -> Vec<Confidence> {
    let firsts = sample.iter().filter_map(|rungs| rungs.first()).filter(|(_, made)| made.accepted);
    let mut found: Vec<Confidence> = firsts.filter_map(|(_, made)| made.confidence).collect();
    found.sort_unstable();
    let at = |percent: usize| found.get(found.len().saturating_mul(percent) / 100).copied();
    let mut thresholds: Vec<Confidence> = [10, 25, 50, 75, 90].into_iter().filter_map(at).collect();
    thresholds.push(cascade.at_least);
    thresholds.sort_unstable();
    thresholds.dedup();
    thresholds
}

/// What a whole costs if a part of it has cost so much: in the proportion of what both were expected to cost or, where
/// that says nothing, of how many requests they have. `None`: the part is empty.
#[must_use]
pub fn of_the_whole(cost: NanoUsd, expected: Option<(NanoUsd, NanoUsd)>, requests: (u64, u64)) -> Option<NanoUsd> {
    let (whole, part) = match expected {
        Some((whole, part)) if part.0 > 0 => (i128::from(whole.0), i128::from(part.0)),
        _ => (i128::from(requests.0), i128::from(requests.1)),
    };
    let scaled = i128::from(cost.0).saturating_mul(whole).checked_div(part)?;
    Some(NanoUsd(i64::try_from(scaled).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    #[test]
    fn names_of_trial_routes_are_read_back_and_others_are_not() {
        for target in ["p/m", "p/a:b", "p/m@flex", ""] {
            assert_eq!(tried(&route_name("default", &target)), Some("default"));
        }
        for name in ["default", "trial:", "trial:default", "default:p/m"] {
            assert_eq!(tried(name), None, "{name}");
        }
    }

    #[test]
    fn another_request_line_or_target_has_another_custom_id() {
        let ids = [(1, "a", "p/m"), (1, "b", "p/m"), (2, "a", "p/m"), (1, "a", "p/n")];
        let ids: std::collections::BTreeSet<_> = ids.map(|(line, text, target)| custom_id(line, text, &target)).into();
        assert_eq!(ids.len(), 4, "{ids:?}");
        assert!(ids.contains(&custom_id(1, "a", &"p/m")));
    }

    #[test]
    fn a_whole_costs_in_the_proportion_of_what_was_expected() {
        let nano = NanoUsd;
        for (cost, expected, requests, whole) in [
            (100, Some((nano(5_000), nano(50))), (20, 10), Some(10_000)),
            (100, Some((nano(5_000), nano(0))), (20, 10), Some(200)),
            (100, None, (20, 10), Some(200)),
            (0, None, (20, 10), Some(0)),
            (100, None, (20, 0), None),
            (i64::MAX, Some((nano(i64::MAX), nano(1))), (1, 1), Some(i64::MAX)),
        ] {
            assert_eq!(of_the_whole(nano(cost), expected, requests), whole.map(nano), "{cost} {expected:?}");
        }
    }

    #[test]
    fn every_line_has_the_same_chance() {
        let mut drawn = [0_u32; 4];
        for file in 0..200_u64 {
            let mut sample = Sample::of(20);
            for line in 0..100 {
                sample.offer(file * 1_000 + line, || line);
            }
            for line in sample.into_lines().into_values() {
                drawn[usize::try_from(line / 25).unwrap()] += 1;
            }
        }
        assert_eq!(drawn.iter().sum::<u32>(), 4_000);
        assert!(drawn.iter().all(|quarter| (900..1_100).contains(quarter)), "{drawn:?}");
    }

    proptest! {
        #[test]
        fn a_sample_has_its_size_or_all_and_only_later_lines_change_it(size in 0..30_usize, lines in 0..80_u64) {
            let draw = |lines: u64| {
                let mut sample = Sample::of(size);
                (1..=lines).for_each(|line| sample.offer(line, || line));
                sample.into_lines()
            };
            let drawn = draw(lines);
            prop_assert_eq!(drawn.len(), size.min(usize::try_from(lines).unwrap()));
            prop_assert!(drawn.iter().all(|(line, request)| line == request && (1..=lines).contains(line)));
            // A longer file replaces requests by later ones only.
            prop_assert!(draw(lines + 1).keys().all(|line| drawn.contains_key(line) || *line == lines + 1));
        }
    }
}
