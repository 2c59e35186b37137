//! Calls of one job that ran at the same time: which ran beside which, which won, and what the others cost.

use super::attempt::AttemptView;
use crate::domain::NanoUsd;
use crate::domain::abandonment::Abandonment;
use crate::domain::explanation::{Explanation, Why};
use crate::store::claim::datetime;

/// Puts the calls of a race into the order in which they were begun. The ledger has the instants at which they were
/// sent: one that was begun first may be sent last, because its recording in the database took a moment longer.
pub(super) fn in_order(mut attempts: Vec<AttemptView>) -> Vec<AttemptView> {
    for place in 1..attempts.len() {
        let Some(this) = attempts.get(place) else { break };
        let was_begun_later = |other: &AttemptView| {
            other.number > this.number && begun_beside(other, &attempts).any(|first| std::ptr::eq(first, this))
        };
        let earlier = attempts.iter().take(place).position(was_begun_later);
        if let Some(moved) = earlier.and_then(|earlier| attempts.get_mut(earlier..=place)) {
            moved.rotate_right(1);
        }
    }
    attempts
}

/// The calls that were under way when this one was begun, by what was noted then: of each rung that was being asked the
/// first call after the instant from which it was.
fn begun_beside<'a>(this: &AttemptView, attempts: &'a [AttemptView]) -> impl Iterator<Item = &'a AttemptView> {
    let (round, skipped) = (this.round, this.decision.as_ref().map(Explanation::read).unwrap_or_default().skipped);
    skipped.into_iter().filter_map(move |rung| {
        let Why::UnderWay { since: Some(since) } = rung.why else { return None };
        let (target, since) = (rung.target?, datetime(since));
        let is_its = |call: &&AttemptView| {
            let rest = target.strip_prefix(&call.provider).and_then(|rest| rest.strip_prefix('/'));
            let rest = rest.and_then(|rest| rest.strip_prefix(&call.model));
            call.round == round
                && call.started_at >= since
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
        };
        attempts.iter().filter(is_its).min_by_key(|call| (call.started_at, call.number))
    })
}

/// The attempts that ran beside this one, in words.
pub(super) fn beside(attempts: &[AttemptView], this: &AttemptView) -> Option<String> {
    let ran_beside = |other: &&AttemptView| {
        (other.number, other.started_at) != (this.number, this.started_at)
            && other.round == this.round
            && other.started_at < this.ended_at
            && this.started_at < other.ended_at
    };
    let others = attempts.iter().filter(ran_beside);
    let names: Vec<String> =
        others.map(|other| format!("#{} ({}/{})", other.number, other.provider, other.model)).collect();
    (!names.is_empty()).then(|| format!("it ran beside {}", names.join(", ")))
}

/// Which call won, and what those cost that lost; `None`: there was no race.
pub(super) fn outcome(attempts: &[AttemptView]) -> Option<String> {
    let lost: Vec<&AttemptView> =
        attempts.iter().filter(|attempt| attempt.detail.as_deref() == Some(Abandonment::LostRace.as_str())).collect();
    let won = attempts.iter().rfind(|attempt| attempt.accepted).map(|attempt| attempt.number);
    let (mut cost, mut uncertain) = (NanoUsd::ZERO, NanoUsd::ZERO);
    for attempt in &lost {
        cost += NanoUsd(attempt.cost_nanos.unwrap_or(0));
        uncertain += NanoUsd(attempt.uncertain_nanos);
    }
    let calls = match lost.len() {
        0 => return None,
        1 => "the call that lost it".to_owned(),
        count => format!("the {count} calls that lost it"),
    };
    let won = won.map_or_else(|| "Its race is over".to_owned(), |number| format!("#{number} won the race"));
    let unknown = if lost.iter().any(|attempt| attempt.cost_nanos.is_none()) { ", and an unknown amount" } else { "" };
    let perhaps =
        if uncertain > NanoUsd::ZERO { format!(", and perhaps up to {uncertain} more") } else { String::new() };
    Some(format!("{won}; {calls} cost {cost}{unknown}{perhaps}"))
}
