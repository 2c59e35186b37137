//! Calls of one job that ran at the same time: which ran beside which, which won, and what the others cost.

use super::attempt::AttemptView;
use crate::domain::NanoUsd;
use crate::domain::abandonment::Abandonment;

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
