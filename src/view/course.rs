//! The rungs that the present configuration has for a job, and what became of each, also of those that were never
//! asked.

use super::choice;
use super::dollars::Dollars;
use crate::domain::course::{self, Course, Refuses};
use crate::domain::explanation::{Explanation, Ordering, Why};
use crate::domain::job::JobState;
use crate::domain::routing::Unrouted;
use crate::domain::{ErrorClass, JobId, Metadata, NanoUsd, Route, StrategyKind, Timestamp, counted::counted};
use crate::store::job::{AttemptRecord, JobRecord, Place};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The rungs that the configuration has for a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CourseView {
    /// The route on which the rules of the job's route end.
    pub route: String,
    /// What orders its rungs.
    pub strategy: &'static str,
    /// Whether `rungs` stand in the order in which the job tries them, as far as they may be called. Otherwise that
    /// also follows from what is free or fast at the moment, and they stand as listed.
    pub ordered: bool,
    pub rungs: Vec<CourseRungView>,
}

/// A rung, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CourseRungView {
    pub target: String,
    /// What a call is expected to cost; `None`: its price is unknown.
    pub expected_cost: Option<Dollars>,
    /// `answered`, `asked`, `passed_over`, `ineligible`, `never_asked`, or `not_asked_yet`.
    pub fate: &'static str,
    /// The same, in words, with the reason.
    pub words: String,
    /// The numbers of the attempts at it.
    pub attempts: Vec<i16>,
}

/// A longer request is not read again for this.
const MOST_BYTES: usize = 1 << 20;

/// The course of a job by the routes of a configuration: `find` knows them by their names, of which there are at most
/// `routes`. `None`: its route is not one of them, or its request cannot be read, or is
/// longer than a megabyte. `refuses`: whether the server of a rung takes it.
#[must_use]
pub fn by<'r>(
    find: &dyn Fn(&str) -> Option<&'r Route>,
    routes: usize,
    job: &JobRecord,
    attempts: &[AttemptRecord],
    now: Timestamp,
    refuses: &Refuses<'_>,
) -> Option<CourseView> {
    let last = attempts.last();
    let rules = last.and_then(|attempt| attempt.decision.as_ref()).map(Explanation::read).unwrap_or_default().rules;
    // The route of the last call is known; a budget may have had a say in it.
    let along = rules.last().map(|taken| taken.to.as_str()).filter(|name| find(name).is_some());
    let members = job.metadata.as_ref().and_then(|metadata| metadata.as_object());
    let names: Arc<[String]> = members.map(|members| members.keys().cloned().collect()).unwrap_or_default();
    let written = job.metadata.as_ref().map(ToString::to_string).unwrap_or_default();
    let metadata = Metadata::of_text(&names, &written);
    let body = job.request.to_string();
    if body.len() > MOST_BYTES {
        return None;
    }
    let asked = Unrouted { body: &body, project: &job.project, batch: job.batch.as_deref(), metadata: &metadata };
    let at = last.map_or(now, |attempt| Timestamp(attempt.started_at.timestamp_millis()));
    let course = course::of(along.unwrap_or(&job.route), find, routes, &asked, JobId(job.id), at, refuses)?;
    Some(CourseView::of(&course, job, attempts))
}

impl CourseView {
    fn of(course: &Course, job: &JobRecord, attempts: &[AttemptRecord]) -> Self {
        let decisions = attempts.iter().filter_map(|attempt| attempt.decision.as_ref());
        // What was said last of a rung holds.
        let mut passed_over: BTreeMap<String, Why> = BTreeMap::new();
        for skipped in decisions.flat_map(|decision| Explanation::read(decision).skipped) {
            if let Some(target) = skipped.target {
                passed_over.insert(target, skipped.why);
            }
        }
        let rungs = course.rungs.iter().map(|rung| {
            let (provider, model) = rung.target.columns();
            let its = attempts.iter().filter(|attempt| attempt.provider == provider && attempt.model == model);
            let its: Vec<&AttemptRecord> = its.collect();
            let (fate, words) = match (its.last(), passed_over.get(&rung.target.to_string()), &rung.ineligible) {
                (Some(last), ..) => asked(&its, last),
                (None, Some(why), _) => ("passed_over", format!("passed over: {}", choice::why_skipped(why))),
                (None, None, Some(fault)) => {
                    ("ineligible", format!("it can never take this request: {}", choice::why_skipped(&fault.into())))
                }
                (None, None, None) => not_asked(course, job, attempts),
            };
            CourseRungView {
                target: rung.target.to_string(),
                expected_cost: rung.expected.map(Dollars),
                fate,
                words,
                attempts: its.iter().map(|attempt| attempt.number).collect(),
            }
        });
        let rungs: Vec<CourseRungView> = rungs.collect();
        Self { route: course.route.clone(), strategy: course.strategy.as_str(), ordered: course.is_fixed, rungs }
    }

    /// Whether this is the order that a worker noted at a call, and nothing else can be said of it.
    pub(super) fn has(&self, order: &Ordering) -> bool {
        let is_plain = matches!(
            StrategyKind::named(self.strategy),
            Some(StrategyKind::Cost | StrategyKind::Priority | StrategyKind::Race)
        );
        is_plain
            && order.by == self.strategy
            && order.rungs.len() == self.rungs.len()
            && order.rungs.iter().zip(&self.rungs).all(|(noted, rung)| noted.target == rung.target)
    }

    /// The rungs, a line each, under a line that says what orders them. The lines are aligned.
    pub(super) fn tell(&self, lines: &mut Vec<String>) {
        let by = match StrategyKind::named(self.strategy) {
            Some(StrategyKind::Cost) => "the cheapest first",
            Some(StrategyKind::Race) => "the cheapest first, several at once",
            Some(StrategyKind::Priority) => "as listed",
            Some(StrategyKind::Weighted) => "drawn by weight",
            Some(StrategyKind::Sticky) => "the same for all jobs of its key",
            Some(StrategyKind::Balanced) => "the one with the most room first",
            Some(StrategyKind::Fastest) => "the fastest first",
            None => self.strategy,
        };
        let count = counted(self.rungs.len(), "rung", "rungs");
        lines.push(format!("Route {} has {count} for it as configured now, {by}:", self.route));
        let cost = |rung: &CourseRungView| rung.expected_cost.map_or("no price".to_owned(), |cost| about(cost.0));
        let width = |text: &dyn Fn(&CourseRungView) -> usize| self.rungs.iter().map(text).max().unwrap_or(0);
        let targets = width(&|rung| rung.target.chars().count());
        let costs = width(&|rung| cost(rung).chars().count());
        for (place, rung) in self.rungs.iter().enumerate() {
            let mark = if self.ordered { format!("{}.", place + 1) } else { "-".to_owned() };
            lines.push(format!("   {mark} {:targets$}  {:costs$}  {}", rung.target, cost(rung), rung.words));
        }
    }
}

/// A cost that is expected.
fn about(cost: NanoUsd) -> String {
    if cost == NanoUsd::ZERO { "free".to_owned() } else { format!("~{cost}") }
}

fn asked(its: &[&AttemptRecord], last: &AttemptRecord) -> (&'static str, String) {
    let numbers: Vec<String> = its.iter().map(|attempt| format!("#{}", attempt.number)).collect();
    let numbers = numbers.join(", ");
    if let Some(accepted) = its.iter().find(|attempt| attempt.accepted) {
        return ("answered", format!("answered: #{}", accepted.number));
    }
    let class = last.class.as_deref().unwrap_or("unknown");
    let detail = last.detail.as_deref().map(|detail| format!(", {detail}")).unwrap_or_default();
    ("asked", format!("asked: {numbers} ({class}{detail})"))
}

/// Why a rung was never asked, or has not been asked so far.
fn not_asked(course: &Course, job: &JobRecord, attempts: &[AttemptRecord]) -> (&'static str, String) {
    let Place::Ended(ended) = &job.place else { return ("not_asked_yet", "not asked so far".to_owned()) };
    let why = match ended.state {
        JobState::Succeeded if ended.answered_from.is_some() => "an earlier answer was given again".to_owned(),
        JobState::Succeeded => "the job had its answer".to_owned(),
        JobState::Cancelled => "the job was cancelled".to_owned(),
        _ => {
            let class = ended.error_class.as_deref().and_then(|class| class.parse::<ErrorClass>().ok());
            let of_last = attempts.last().and_then(|attempt| attempt.class.as_deref()?.parse::<ErrorClass>().ok());
            match of_last.or(class) {
                Some(class) if !attempts.is_empty() && !course.falls_back_on.contains(&class) => {
                    format!("the route does not go on to another rung after {class}")
                }
                _ => "the job had failed".to_owned(),
            }
        }
    };
    ("never_asked", format!("never asked: {why}"))
}
