//! When a job is over, and the reason that is given then.

use super::{Condition, Ending, Ineligible, RungHealth, Skip, health_of};
use crate::domain::refusal::gist;
use crate::domain::{Attempt, ErrorClass, Job, Outcome, Remedy, Route, SoftFailure, Timestamp};
use std::fmt;

/// Attempts of any kind, including those that only waited, after which a job ends: no job goes on for ever.
pub(super) const MOST_ATTEMPTS: usize = 1_000;

/// The job's ending, if history or time have ended it.
pub(super) fn of(
    job: &Job,
    route: &Route,
    history: &[Attempt],
    conditions: &[Condition],
    now: Timestamp,
) -> Option<Ending> {
    if history.iter().any(|attempt| attempt.outcome == Outcome::Accepted) {
        return Some(Ending::Succeeded);
    }
    history
        .iter()
        .find_map(|attempt| hopeless(route, conditions, attempt))
        .or_else(|| refused_alike(route, history))
        .or_else(|| used_up(job, route, history))
        .or_else(|| too_late(job, history, now))
}

/// Every rung is out for good.
pub(super) fn out_of_rungs(route: &Route, history: &[Attempt], skipped: &[(usize, Skip)]) -> Ending {
    let last = last_failure(history);
    let class = last.as_ref().map(|last| last.class).or_else(|| skipped.iter().find_map(first_class));
    let mut last_is_named = false;
    let mut named = |(rung, why): &(usize, Skip)| {
        let of_it = |attempt: &&Attempt| attempt.rung == Some(*rung) && attempt.outcome.class().is_some();
        let with_words = history.iter().rposition(|attempt| of_it(&attempt) && attempt.words.is_some());
        let failed = with_words.or_else(|| history.iter().rposition(|attempt| of_it(&attempt)));
        match (why, failed.and_then(|index| Some((index, failure(history.get(index)?)?)))) {
            (Skip::Failed(class), Some((index, told))) if told.class == *class => {
                last_is_named |= index.saturating_add(1) == history.len();
                format!("{}: {told}", name(route, *rung))
            }
            _ => format!("{}: {why}", name(route, *rung)),
        }
    };
    let reasons: Vec<String> = skipped.iter().map(&mut named).collect();
    let reason = if reasons.is_empty() { "the route has no rungs".to_owned() } else { reasons.join("; ") };
    let last = last.filter(|_| !last_is_named).map(|last| format!(" (the last: {last})")).unwrap_or_default();
    failed(class.unwrap_or(ErrorClass::InvalidRequest), format!("no rung is left: {reason}{last}"))
}

/// An attempt after which no other makes sense.
fn hopeless(route: &Route, conditions: &[Condition], attempt: &Attempt) -> Option<Ending> {
    let told = failure(attempt)?;
    match attempt.remedy()? {
        Remedy::End => {
            let target = attempt.rung.map(|rung| format!("{}: ", name(route, rung))).unwrap_or_default();
            Some(failed(told.class, format!("{target}{told}; no rung would take this request")))
        }
        Remedy::NextRung | Remedy::LargerWindow => {
            // An attempt at a target that is no longer on the route has no say.
            let rung = attempt.rung.filter(|&rung| rung < route.rungs.len() && !route.falls_back_on(told.class))?;
            let target = name(route, rung);
            // The numbers, where they are known.
            let numbers = match health_of(conditions, rung) {
                RungHealth::Ineligible(why) => format!(" ({why})"),
                _ => String::new(),
            };
            let rule = format!("which route {} does not fall back on", route.name);
            Some(failed(told.class, format!("{target}: {told}{numbers}, {rule}")))
        }
        Remedy::WaitForGate(_) | Remedy::RetrySame { .. } | Remedy::Mend | Remedy::Reask => None,
    }
}

/// This many rungs that find the request wrong are believed, regardless of their words.
const ENOUGH_REFUSALS: usize = 3;

/// Two refusals that have fewer words than this are not taken to be the same.
const WORDS_THAT_TELL: usize = 4;

/// Several rungs found the request itself wrong: two in the same words, or [`ENOUGH_REFUSALS`] in any.
fn refused_alike(route: &Route, history: &[Attempt]) -> Option<Ending> {
    let mut refusals: Vec<(usize, String)> = Vec::new();
    for attempt in history {
        let (Outcome::Failed(class @ ErrorClass::InvalidRequest), Some(rung), Some(Remedy::NextRung)) =
            (&attempt.outcome, attempt.rung, attempt.remedy())
        else {
            continue;
        };
        if rung >= route.rungs.len() || refusals.iter().any(|(known, _)| *known == rung) {
            continue;
        }
        let gist = attempt.words.as_deref().map(gist).unwrap_or_default();
        // "Bad Request" is the answer of a server that has nothing to say.
        let is_known = gist.split(' ').count() >= WORDS_THAT_TELL && refusals.iter().any(|(_, known)| *known == gist);
        refusals.push((rung, gist));
        if is_known || refusals.len() >= ENOUGH_REFUSALS {
            let (target, count, told) = (name(route, rung), refusals.len(), failure(attempt)?);
            let alike = if is_known { " in the same way" } else { "" };
            let reason = format!("{count} rungs refused this request{alike}, the last: {target}: {told}");
            return Some(failed(*class, reason));
        }
    }
    None
}

/// How many attempts that count a job may make: as many as its route allows, or fewer where the job asks for fewer. The
/// job cannot raise the bound, because the operator pays, not its author.
pub(super) fn most_attempts(job: &Job, route: &Route) -> u16 {
    job.max_attempts.map_or(route.max_attempts, |own| own.min(route.max_attempts)).max(1)
}

fn used_up(job: &Job, route: &Route, history: &[Attempt]) -> Option<Ending> {
    let most = usize::from(most_attempts(job, route));
    let counted: Vec<&Attempt> = history.iter().filter(|attempt| attempt.uses_up_an_attempt()).collect();
    if let Some(last) = counted.last().filter(|_| counted.len() >= most).and_then(|last| failure(last)) {
        let asked = match job.max_attempts {
            Some(own) if own > route.max_attempts => {
                format!(" (route {} allows no more; the job asks for {own})", route.name)
            }
            _ => String::new(),
        };
        let reason = match most {
            1 => format!("the only attempt used up{asked}: {last}"),
            _ => format!("all {most} attempts used up{asked}, the last: {last}"),
        };
        return Some(failed(last.class, reason));
    }
    let last = last_failure(history).filter(|_| history.len() >= MOST_ATTEMPTS)?;
    Some(failed(last.class, format!("{MOST_ATTEMPTS} attempts of any kind made, the last: {last}")))
}

fn too_late(job: &Job, history: &[Attempt], now: Timestamp) -> Option<Ending> {
    job.deadline.filter(|&deadline| now >= deadline)?;
    let last = last_failure(history).map_or_else(
        || "no call was made since it came into the queue".to_owned(),
        |last| format!("last attempt: {last}"),
    );
    Some(failed(ErrorClass::Deadline, format!("the deadline passed before an answer was accepted; {last}")))
}

fn last_failure(history: &[Attempt]) -> Option<Told<'_>> {
    history.iter().rev().find_map(failure)
}

/// A failure as a reason states it: its class, its kind, and the provider's words.
struct Told<'a> {
    class: ErrorClass,
    kind: Option<SoftFailure>,
    words: Option<&'a str>,
}

fn failure(attempt: &Attempt) -> Option<Told<'_>> {
    let class = attempt.outcome.class()?;
    let kind = match attempt.outcome {
        Outcome::Rejected(kind) => Some(kind),
        Outcome::Accepted | Outcome::Failed(_) => None,
    };
    Some(Told { class, kind, words: attempt.words.as_deref().map(str::trim).filter(|words| !words.is_empty()) })
}

/// The most characters of a provider's words in a reason. The ledger has all of them.
const MOST_WORDS: usize = 240;

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.class.fmt(f)?;
        match self.kind.map(|kind| (kind, kind.facts().advice)) {
            Some((kind, Some(advice))) => write!(f, " ({kind}; {advice})")?,
            Some((kind, None)) => write!(f, " ({kind})")?,
            None => {}
        }
        match self.words.map(|words| (words, words.char_indices().nth(MOST_WORDS))) {
            Some((words, None)) => write!(f, " “{words}”"),
            Some((words, Some((end, _)))) => write!(f, " “{}…”", words.get(..end).unwrap_or(words)),
            None => Ok(()),
        }
    }
}

/// The class for a job that ends without one attempt.
fn first_class((_, why): &(usize, Skip)) -> Option<ErrorClass> {
    match why {
        Skip::Ineligible(Ineligible::ContextWindow { .. }) => Some(ErrorClass::ContextLength),
        Skip::Ineligible(Ineligible::Unsupported(_)) => Some(ErrorClass::InvalidRequest),
        Skip::Ineligible(
            Ineligible::BucketTooSmall { .. }
            | Ineligible::OverBudget { .. }
            | Ineligible::Unpriced { .. }
            | Ineligible::OverCost { .. },
        ) => Some(ErrorClass::NeverFits),
        Skip::Failed(class) => Some(*class),
        Skip::Shut { .. } | Skip::Weak(_) | Skip::BackingOff { .. } | Skip::TooLate { .. } | Skip::UnderWay { .. } => {
            None
        }
    }
}

fn name(route: &Route, rung: usize) -> String {
    route.rungs.get(rung).map_or_else(|| format!("rung {rung}"), |rung| rung.target.to_string())
}

fn failed(class: ErrorClass, reason: String) -> Ending {
    Ending::Failed { class, reason }
}
