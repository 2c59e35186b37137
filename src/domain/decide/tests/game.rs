//! The game table: for every error class, every strategy and every position in the chain, what a job does, step by
//! step.

use super::*;
use crate::domain::larger_cap::{self, CutAnswer, RaiseCap};
use crate::domain::price::Price;
use crate::domain::strategy::{self, Conditions};
use crate::domain::{Race, StickyBy};
use crate::domain::{Rejected, reask};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;

/// A call of the first, second or third rung of the job's order; `'`: with the fault of its last answer named; `^`:
/// with a larger output cap than the one that cut its answer; `w`: a wait; `+`: the job succeeds; `-`: it fails; `…`:
/// it goes on like this, because calls that were never sent use up no attempt.
///
/// Of three rungs the first, the first two, or all three meet what the row says, and the others answer. A rung that is
/// shut (`for a minute`, `for an hour`) answers once it is open; all other failures come each time. Jobs have ten
/// minutes of patience and six attempts, and fall back on everything.
///
/// Where the order does not depend on how the rungs stand (`cost`, `priority`, `weighted`, `sticky`), a job waits for
/// its first rung while that is shut for less time than it has patience. Where it does (`balanced`, `fastest`), a rung
/// that is shut goes behind the others, and a job waits only when all are shut.
///
/// A `race` asks the next rung beside one that has not answered for two seconds, and at once when one has failed; two
/// calls are under way at a time. Its rows are for trouble that comes after a second, as in the rows of the others, and
/// for trouble that comes after five. `~`: a call was dropped, because another one brought the answer.
///
/// In a `cascade` the first, the first two or all three rungs are not sure enough of their answers (`?`), and the
/// others meet the trouble; `+1`: the job ends with the answer of that rung.
const GAME: &str = include_str!("game.txt");

/// A job that goes on for longer than this is followed no further.
const MOST_CALLS: usize = 8;

/// What a rung meets.
#[derive(Clone, Debug)]
struct Trouble {
    name: String,
    outcome: Outcome,
    /// How long the gate is shut after it.
    shut: Option<Duration>,
    /// The outcome of a call that names the fault of the answer; `None`: no call does.
    named: Option<Outcome>,
    /// The outcome of a call with a larger output cap; `None`: no call has one.
    raised: Option<Outcome>,
}

/// How a call differs from the first one of its rung.
#[derive(Clone, Copy)]
struct Asked {
    rung: usize,
    is_reask: bool,
    is_raised: bool,
}

impl Asked {
    fn of(history: &[Attempt], rung: usize) -> Self {
        let (is_reask, is_raised) = (reask::due(history, rung).is_some(), larger_cap::due(history, rung).is_some());
        Self { rung, is_reask, is_raised }
    }

    fn mark(self) -> &'static str {
        match (self.is_raised, self.is_reask) {
            (false, false) => "",
            (false, true) => "'",
            (true, false) => "^",
            (true, true) => "^'",
        }
    }

    fn meets(self, trouble: &Trouble) -> Outcome {
        let named = trouble.named.as_ref().filter(|_| self.is_reask);
        let raised = trouble.raised.as_ref().filter(|_| self.is_raised);
        named.or(raised).unwrap_or(&trouble.outcome).clone()
    }

    /// The call with its outcome.
    fn came(self, trouble: &Trouble, history: &[Attempt], outcome: Outcome, at: Timestamp) -> Attempt {
        let Self { rung, is_reask, is_raised } = self;
        let names = trouble.named.is_some() && !is_reask && !reask::was_due(history, rung);
        let raises = trouble.raised.is_some() && !larger_cap::was_due(history, rung);
        let (rejected, cut) = match &outcome {
            Outcome::Rejected(kind) => {
                let cut = CutAnswer { number: 1, cap: 256, kind: *kind };
                (answer(*kind).filter(|_| names), Some(cut).filter(|_| raises))
            }
            Outcome::Accepted | Outcome::Failed(_) => (None, None),
        };
        Attempt { rejected, is_reask, cut, is_raised, ..Attempt::new(Some(rung), outcome, at) }
    }
}

/// Every class of failures and every kind of unusable answer. Those for which the gate shuts come twice. Where the
/// fault of an answer can be named, there are rows for the outcome of naming it.
fn troubles() -> Vec<Trouble> {
    let classes = Class::ALL.iter().filter(|class| **class != Class::SoftFailure).map(|class| Outcome::Failed(*class));
    let soft = SoftFailure::ALL.iter().map(|kind| Outcome::Rejected(*kind));
    let of = |outcome: Outcome| {
        let name = match &outcome {
            Outcome::Failed(class) => class.to_string(),
            Outcome::Rejected(kind) => format!("soft_failure {kind}"),
            Outcome::Accepted => unreachable!("no trouble"),
        };
        match outcome.remedy() {
            Some(Remedy::WaitForGate(_)) => [("for a minute", MINUTE), ("for an hour", HOUR)]
                .map(|(long, shut)| Trouble {
                    name: format!("{name} {long}"),
                    outcome: outcome.clone(),
                    shut: Some(shut),
                    named: None,
                    raised: None,
                })
                .to_vec(),
            _ => vec![Trouble { name, outcome, shut: None, named: None, raised: None }],
        }
    };
    let changed = SoftFailure::ALL.iter().flat_map(|kind| named(*kind).into_iter().chain(raised(*kind)));
    classes.chain(soft).flat_map(of).chain(changed).collect()
}

/// The possible outcomes of a larger output cap, where an answer is asked for with one.
fn raised(kind: SoftFailure) -> Vec<Trouble> {
    if !RaiseCap::Always.is_for(kind) {
        return Vec::new();
    }
    let others = [Class::InvalidRequest, Class::NeverFits, Class::ServerError]
        .map(|class| (class.to_string(), Outcome::Failed(class)));
    let form = (SoftFailure::NotJson.to_string(), Outcome::Rejected(SoftFailure::NotJson));
    let kinds = [("whole".to_owned(), Outcome::Accepted), ("the same".to_owned(), Outcome::Rejected(kind)), form];
    let of = |(then, came): (String, Outcome)| Trouble {
        name: format!("{kind}, raised: {then}"),
        outcome: Outcome::Rejected(kind),
        shut: None,
        named: None,
        raised: Some(came),
    };
    // What comes of the larger cap is the same for both.
    let most = if kind == SoftFailure::ReasoningExhausted { usize::MAX } else { 2 };
    kinds.into_iter().chain(others).take(most).map(of).collect()
}

/// The possible outcomes of naming a fault: it is mended, or made again, or another comes, or the call is not served.
fn named(kind: SoftFailure) -> Vec<Trouble> {
    if kind.facts().reask.is_none() {
        return Vec::new();
    }
    let others = [Class::InvalidRequest, Class::ContextLength, Class::ServerError, Class::Timeout, Class::Abandoned];
    let others = others.into_iter().map(|class| (class.to_string(), Outcome::Failed(class)));
    let kinds = [("mended".to_owned(), Outcome::Accepted), ("the same".to_owned(), Outcome::Rejected(kind))];
    let of = |(then, came): (String, Outcome)| Trouble {
        name: format!("{kind}, named: {then}"),
        outcome: Outcome::Rejected(kind),
        shut: None,
        named: Some(came),
        raised: None,
    };
    // The failures of the call are the same for all kinds.
    let most = if kind == SoftFailure::SchemaMismatch { usize::MAX } else { 2 };
    kinds.into_iter().chain(others).take(most).map(of).collect()
}

/// The strategies, by whether the order depends on how the rungs stand.
fn strategies() -> [(Strategy, bool); 6] {
    [
        (Strategy::Cost, false),
        (Strategy::Priority, false),
        (Strategy::Weighted([2.0, 1.0, 4.0].into()), false),
        (Strategy::Sticky(StickyBy::Batch), false),
        (Strategy::Balanced, true),
        (Strategy::Fastest, true),
    ]
}

fn stage(strategy: Strategy) -> (Job, Route) {
    let mut route = Route { strategy, ..route(3) };
    for (rung, dollars) in route.rungs.iter_mut().zip([3, 1, 2]) {
        let (input, output) = (dollars * 1_000_000, dollars * 1_000_000);
        rung.model.terms.price = Some(Price::plain(input, output).into());
    }
    (Job { sticky: Some(strategy::hash_of("acme\0nightly")), ..job() }, route)
}

/// An answer whose fault the model is told.
pub(super) fn answer(kind: SoftFailure) -> Option<Arc<Rejected>> {
    Rejected::of(&json!({ "content": "{" }), kind, "no JSON found", 1).map(Arc::new)
}

/// Plays until the job ends: the first `troubled` rungs of its order meet the trouble.
fn play(strategy: &Strategy, trouble: &Trouble, troubled: usize) -> String {
    let (job, route) = stage(strategy.clone());
    let mut gates = [None::<Shut>; 3];
    let mut healed = [false; 3];
    let look = |gates: &[Option<Shut>; 3], now: Timestamp| {
        let mut conditions: Vec<Condition> = Vec::new();
        for (gate, (free, seconds)) in gates.iter().zip([(200_000, 2), (700_000, 3), (500_000, 1)]) {
            let health = gate.filter(|shut| shut.until > now).map_or(RungHealth::Open, RungHealth::Shut);
            conditions.push(Condition {
                health,
                headroom: Some(9),
                free: Some(free),
                latency: Some(SECOND * seconds),
                line: None,
                weakness: None,
            });
        }
        let mut order = Vec::new();
        strategy::order(&route, &Conditions::of_job(&job, None, now, &conditions), &mut order);
        (conditions, order)
    };
    let (_, base) = look(&gates, NOW);
    let (mut now, mut history, mut steps) = (NOW, Vec::new(), String::new());
    while history.len() < MOST_CALLS {
        let (conditions, order) = look(&gates, now);
        match super::super::decide(&job, &route, &order, &history, &[], &conditions, now) {
            Step::Call { rung, .. } => {
                let place = base.iter().position(|&other| other == rung).unwrap();
                let asked = Asked::of(&history, rung);
                let _ = write!(steps, "{}{} ", place + 1, asked.mark());
                now = now + SECOND;
                let is_well = place >= troubled || healed[rung];
                let outcome = if is_well { Outcome::Accepted } else { asked.meets(trouble) };
                if let (Some(Remedy::WaitForGate(reason)), Some(shut)) = (outcome.remedy(), trouble.shut) {
                    gates[rung] = Some(Shut { reason, since: now, until: now + shut });
                    healed[rung] = true;
                }
                history.push(asked.came(trouble, &history, outcome, now));
            }
            Step::Wait { until, .. } => {
                steps.push_str("w ");
                now = until;
            }
            Step::Finish(Ending::Succeeded) => return steps + "+",
            Step::Finish(_) => return steps + "-",
        }
    }
    steps + "…"
}

/// Plays a race in the same way; the trouble comes after so long.
fn play_race(trouble: &Trouble, troubled: usize, slow: Duration) -> String {
    let (job, route) = stage(Strategy::Race(Race { after: SECOND * 2, at_most: 2 }));
    let mut gates = [None::<Shut>; 3];
    let mut healed = [false; 3];
    let mut order = Vec::new();
    strategy::order(&route, &Conditions::of_job(&job, None, NOW, &[]), &mut order);
    let (mut now, mut history, mut steps) = (NOW, Vec::<Attempt>::new(), String::new());
    let mut under_way: Vec<(UnderWay, Timestamp, Attempt)> = Vec::new();
    while history.len() + under_way.len() < MOST_CALLS {
        let health =
            |gate: &Option<Shut>| gate.filter(|shut| shut.until > now).map_or(RungHealth::Open, RungHealth::Shut);
        let conditions: Vec<Condition> = gates.iter().map(|gate| health(gate).into()).collect();
        let seen: Vec<UnderWay> = under_way.iter().map(|(call, ..)| *call).collect();
        match super::super::decide(&job, &route, &order, &history, &seen, &conditions, now) {
            Step::Call { rung, .. } => {
                let place = order.iter().position(|&other| other == rung).unwrap();
                let asked = Asked::of(&history, rung);
                let _ = write!(steps, "{}{} ", place + 1, asked.mark());
                let is_well = place >= troubled || healed[rung];
                let outcome = if is_well { Outcome::Accepted } else { asked.meets(trouble) };
                let ends = now + if outcome == Outcome::Accepted { SECOND } else { slow };
                let attempt = asked.came(trouble, &history, outcome, ends);
                under_way.push((UnderWay { rung: Some(rung), since: now }, ends, attempt));
            }
            Step::Wait { until, .. } => {
                let first = (0..under_way.len()).min_by_key(|index| under_way[*index].1);
                let Some(index) = first.filter(|index| under_way[*index].1 <= until) else {
                    steps.push_str("w ");
                    now = until;
                    continue;
                };
                let (_, ends, attempt) = under_way.remove(index);
                now = ends;
                let rung = attempt.rung.unwrap();
                if let (Some(Remedy::WaitForGate(reason)), Some(shut)) = (attempt.outcome.remedy(), trouble.shut) {
                    gates[rung] = Some(Shut { reason, since: now, until: now + shut });
                    healed[rung] = true;
                }
                history.push(attempt);
            }
            Step::Finish(Ending::Succeeded) => return steps + "+" + &"~".repeat(under_way.len()),
            Step::Finish(_) => return steps + "-",
        }
    }
    steps + "…"
}

/// Plays a cascade in listed order: the first rungs are not sure enough of their answers, each surer than the one
/// before it, and those after them meet the trouble.
fn play_cascade(trouble: &Trouble, of_unsure: usize) -> String {
    let (job, route) = stage(Strategy::Priority);
    let route = Route { cascade: Some(climb::cascade()), ..route };
    let (order, mut gates, mut healed) = ([0, 1, 2], [None::<Shut>; 3], [false; 3]);
    let (mut now, mut history, mut steps) = (NOW, Vec::<Attempt>::new(), String::new());
    while history.len() < MOST_CALLS {
        let health =
            |gate: &Option<Shut>| gate.filter(|shut| shut.until > now).map_or(RungHealth::Open, RungHealth::Shut);
        let conditions: Vec<Condition> = gates.iter().map(|gate| health(gate).into()).collect();
        match super::super::decide(&job, &route, &order, &history, &[], &conditions, now) {
            Step::Call { rung, .. } => {
                let climbs = climbs_from(rung, &job, &route, &order, &history, &conditions);
                let is_unsure = rung < of_unsure && climbs;
                let _ = write!(steps, "{}{} ", rung + 1, if is_unsure { "?" } else { "" });
                now = now + SECOND;
                let number = i16::try_from(rung + 1).unwrap();
                let attempt = if is_unsure {
                    climb::unsure(rung, number, Some(0.1 * f64::from(number)))
                } else if rung < of_unsure || healed[rung] {
                    Attempt::new(Some(rung), Outcome::Accepted, now)
                } else {
                    Attempt::new(Some(rung), trouble.outcome.clone(), now)
                };
                if let (Some(Remedy::WaitForGate(reason)), Some(shut)) = (attempt.outcome.remedy(), trouble.shut) {
                    gates[rung] = Some(Shut { reason, since: now, until: now + shut });
                    healed[rung] = true;
                }
                history.push(Attempt { ended_at: now, ..attempt });
            }
            Step::Wait { until, .. } => {
                steps.push_str("w ");
                now = until;
            }
            Step::Finish(Ending::Succeeded) => return steps + "+",
            Step::Finish(Ending::Unsure(unsure)) => return format!("{steps}+{}", unsure.number),
            Step::Finish(Ending::Failed { .. }) => return steps + "-",
        }
    }
    steps + "…"
}

/// The table as it is played.
fn played() -> String {
    let mut table = String::new();
    for trouble in troubles() {
        for depends in [false, true] {
            let mut rows: Vec<String> = Vec::new();
            for (strategy, _) in strategies().iter().filter(|(_, other)| *other == depends) {
                rows.push([1, 2, 3].map(|troubled| play(strategy, &trouble, troubled)).join(" | "));
            }
            let first = rows.first().unwrap();
            assert!(rows.iter().all(|row| row == first), "{}: {rows:#?}", trouble.name);
            let column = if depends { "by standing" } else { "in turn" };
            let _ = writeln!(table, "{} | {column} | {first}", trouble.name);
        }
        for (column, slow) in [("in a race", SECOND), ("in a slow race", SECOND * 5)] {
            let row = [1, 2, 3].map(|troubled| play_race(&trouble, troubled, slow)).join(" | ");
            let _ = writeln!(table, "{} | {column} | {row}", trouble.name);
        }
    }
    for trouble in troubles().iter().filter(|trouble| trouble.named.is_none() && trouble.raised.is_none()) {
        let row = [1, 2, 3].map(|of_unsure| play_cascade(trouble, of_unsure)).join(" | ");
        let _ = writeln!(table, "unsure, then {} | in a cascade | {row}", trouble.name);
    }
    table
}

#[test]
fn every_job_takes_the_steps_of_the_game_table() {
    let (played, table) = (played(), GAME.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>());
    for (played, expected) in played.lines().zip(&table) {
        assert_eq!(played, *expected);
    }
    assert_eq!(played.lines().count(), table.len(), "a row for each trouble and each column:\n{played}");
}

#[test]
fn each_strategy_begins_with_its_own_first_rung() {
    let firsts = strategies().map(|(strategy, _)| {
        let (job, route) = stage(strategy);
        let mut order = Vec::new();
        let conditions: Vec<Condition> = [(200_000, 2), (700_000, 3), (500_000, 1)]
            .map(|(free, seconds)| Condition {
                free: Some(free),
                latency: Some(SECOND * seconds),
                ..RungHealth::Open.into()
            })
            .into();
        strategy::order(&route, &Conditions::of_job(&job, None, NOW, &conditions), &mut order);
        order
    });
    let [cost, priority, .., balanced, fastest] = firsts;
    assert_eq!((cost, priority, balanced, fastest), (vec![1, 2, 0], vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1]));
}
