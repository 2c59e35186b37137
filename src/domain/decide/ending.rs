//! When a job is over, and what is said of it then.

use super::{Ending, Health, Ineligible, RungHealth, Skip};
use crate::domain::{Attempt, ErrorClass, Job, Outcome, Remedy, Route, SoftFailure, Timestamp};

/// Attempts of any kind, those that only waited included, after which a job ends: nothing goes on for ever.
pub(super) const MOST_ATTEMPTS: usize = 1_000;

/// The job's ending, if history or time have ended it.
pub(super) fn of(job: &Job, route: &Route, history: &[Attempt], health: &Health, now: Timestamp) -> Option<Ending> {
    if history.iter().any(|attempt| attempt.outcome == Outcome::Accepted) {
        return Some(Ending::Succeeded);
    }
    history
        .iter()
        .find_map(|attempt| hopeless(route, health, attempt))
        .or_else(|| used_up(job, route, history))
        .or_else(|| too_late(job, history, now))
}

/// Every rung is out for good.
pub(super) fn out_of_rungs(route: &Route, history: &[Attempt], skipped: &[(usize, Skip)]) -> Ending {
    let class = last_failure(history).map(|(class, _)| class).or_else(|| skipped.iter().find_map(first_class));
    let named = |(rung, why): &(usize, Skip)| format!("{}: {why}", name(route, *rung));
    let reasons: Vec<String> = skipped.iter().map(named).collect();
    let reason = if reasons.is_empty() { "the route has no rungs".to_owned() } else { reasons.join("; ") };
    let last = last_failure(history).map(|(_, words)| format!(" (the last: {words})")).unwrap_or_default();
    failed(class.unwrap_or(ErrorClass::InvalidRequest), format!("no rung is left: {reason}{last}"))
}

/// An attempt after which no other makes sense.
fn hopeless(route: &Route, health: &Health, attempt: &Attempt) -> Option<Ending> {
    let (class, words) = in_words(&attempt.outcome)?;
    match attempt.outcome.remedy()? {
        Remedy::End => Some(failed(class, format!("{words}: no rung would take this request"))),
        Remedy::NextRung | Remedy::LargerWindow => {
            // What became of a target that is no longer on the route binds nobody.
            let rung = attempt.rung.filter(|&rung| rung < route.rungs.len() && !route.fallback_on.contains(&class))?;
            let target = name(route, rung);
            // The numbers, where they are known.
            let words = match health.get(rung) {
                Some(RungHealth::Ineligible(why)) => format!("{words} ({why})"),
                _ => words,
            };
            Some(failed(class, format!("{target}: {words}, which route {} does not fall back on", route.name)))
        }
        Remedy::WaitForGate(_) | Remedy::RetrySame { .. } => None,
    }
}

fn used_up(job: &Job, route: &Route, history: &[Attempt]) -> Option<Ending> {
    let most = usize::from(job.max_attempts.unwrap_or(route.max_attempts).max(1));
    let counted: Vec<&Outcome> =
        history.iter().map(|attempt| &attempt.outcome).filter(|outcome| counts(outcome)).collect();
    if let Some((class, words)) = counted.last().filter(|_| counted.len() >= most).and_then(|last| in_words(last)) {
        return Some(failed(class, format!("all {most} attempts used up, the last: {words}")));
    }
    let (class, words) = last_failure(history).filter(|_| history.len() >= MOST_ATTEMPTS)?;
    Some(failed(class, format!("{MOST_ATTEMPTS} attempts of any kind made, the last: {words}")))
}

fn counts(outcome: &Outcome) -> bool {
    outcome.class().is_some_and(ErrorClass::uses_up_an_attempt)
}

fn too_late(job: &Job, history: &[Attempt], now: Timestamp) -> Option<Ending> {
    job.deadline.filter(|&deadline| now >= deadline)?;
    let last = last_failure(history).map_or_else(|| "none was made".to_owned(), |(_, words)| words);
    Some(failed(
        ErrorClass::Deadline,
        format!("the deadline passed before an answer was accepted; last attempt: {last}"),
    ))
}

fn last_failure(history: &[Attempt]) -> Option<(ErrorClass, String)> {
    history.iter().rev().find_map(|attempt| in_words(&attempt.outcome))
}

/// The class of a failure, and the same in words.
fn in_words(outcome: &Outcome) -> Option<(ErrorClass, String)> {
    match outcome {
        Outcome::Accepted => None,
        Outcome::Rejected(kind) => {
            let hint = match kind {
                SoftFailure::Truncated | SoftFailure::ReasoningExhausted => "; a larger max_tokens may help",
                _ => "",
            };
            Some((ErrorClass::SoftFailure, format!("{} ({kind}{hint})", ErrorClass::SoftFailure)))
        }
        Outcome::Failed(class) => Some((*class, class.to_string())),
    }
}

/// The class for a job that ends without one attempt.
fn first_class((_, why): &(usize, Skip)) -> Option<ErrorClass> {
    match why {
        Skip::Ineligible(Ineligible::ContextWindow { .. }) => Some(ErrorClass::ContextLength),
        Skip::Ineligible(Ineligible::BucketTooSmall { .. }) => Some(ErrorClass::NeverFits),
        Skip::Ineligible(Ineligible::Unsupported(_)) => Some(ErrorClass::InvalidRequest),
        Skip::Failed(class) => Some(*class),
        Skip::Closed { .. } | Skip::BackingOff { .. } | Skip::TooLate { .. } => None,
    }
}

fn name(route: &Route, rung: usize) -> String {
    route.rungs.get(rung).map_or_else(|| format!("rung {rung}"), |rung| rung.target.to_string())
}

fn failed(class: ErrorClass, reason: String) -> Ending {
    Ending::Failed { class, reason }
}
