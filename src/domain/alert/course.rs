//! The course of an alert: from the first sighting to its end, as steps over the stored alerts.

use super::{AlertRule, AlertSettings, Sighting};
use crate::domain::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An alert that is not over, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRecord {
    pub id: i64,
    pub rule: AlertRule,
    pub subject: String,
    /// When it was first seen.
    pub since: Timestamp,
    /// When it was last seen.
    pub seen_at: Timestamp,
    /// When it fired; `None`: it has not been seen for long enough.
    pub fired_at: Option<Timestamp>,
    /// Since when it is not seen any more.
    pub gone_since: Option<Timestamp>,
    /// When the last message about it was written.
    pub told_at: Option<Timestamp>,
    /// How many reminders there were.
    pub reminders: i32,
}

/// Why an alert is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvedBy {
    /// It is gone.
    Gone,
    /// Its rule was switched off.
    SwitchedOff,
}

/// One change of the stored alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertStep<'a> {
    /// It is seen for the first time, and does not fire yet.
    Note { sighting: &'a Sighting },
    /// It is seen again, and does not fire now. `anew`: it is seen after a break, so its time begins anew.
    See { id: i64, sighting: &'a Sighting, anew: bool },
    /// It fires. `id`: it was noted before.
    Fire { id: Option<i64>, since: Timestamp, sighting: &'a Sighting },
    /// It lasts, and is told of once more: for the how manieth time.
    Remind { id: i64, sighting: &'a Sighting, reminders: i32 },
    /// It fires and is not seen at this look for the first time.
    Miss { id: i64 },
    /// It is gone before it has fired.
    Drop { id: i64 },
    /// It has fired and is over.
    Resolve { id: i64, by: ResolvedBy },
}

/// The changes that one look makes. `seen` has the sightings, `examined` the rules that could be judged: of the others
/// nothing is known, and their alerts stay as they are. `looks_apart`: the longest time between two looks; after a
/// longer one it is not known whether something was there all the time.
///
/// Each firing is followed by one resolution, and that by no firing before the rule's time is over again.
#[must_use]
pub fn steps<'a>(
    known: &[AlertRecord],
    seen: &'a [Sighting],
    examined: &BTreeSet<AlertRule>,
    settings: &AlertSettings,
    looks_apart: Duration,
    now: Timestamp,
) -> Vec<AlertStep<'a>> {
    let mut steps = Vec::new();
    // A rule says a thing once; if it does not, the first counts.
    let mut fresh: BTreeMap<(AlertRule, &str), &'a Sighting> = BTreeMap::new();
    for sighting in seen.iter().filter(|it| settings.rule(it.rule).on && examined.contains(&it.rule)) {
        fresh.entry((sighting.rule, sighting.subject.as_str())).or_insert(sighting);
    }
    for record in known {
        let rule = settings.rule(record.rule);
        let sighting = fresh.remove(&(record.rule, record.subject.as_str()));
        let id = record.id;
        let step = match (sighting, record.fired_at) {
            _ if !rule.on && record.fired_at.is_some() => Some(AlertStep::Resolve { id, by: ResolvedBy::SwitchedOff }),
            _ if !rule.on => Some(AlertStep::Drop { id }),
            (None, _) if !examined.contains(&record.rule) => None,
            (None, None) => Some(AlertStep::Drop { id }),
            (None, Some(_)) => match record.gone_since {
                None if settings.clear.is_zero() => Some(AlertStep::Resolve { id, by: ResolvedBy::Gone }),
                None => Some(AlertStep::Miss { id }),
                Some(gone) if gone.until(now) >= settings.clear => {
                    Some(AlertStep::Resolve { id, by: ResolvedBy::Gone })
                }
                Some(_) => None,
            },
            (Some(sighting), None) => {
                let anew = record.seen_at.until(now) > looks_apart && !rule.hold.is_zero();
                if !anew && record.since.until(now) >= rule.hold {
                    Some(AlertStep::Fire { id: Some(id), since: record.since, sighting })
                } else {
                    Some(AlertStep::See { id, sighting, anew })
                }
            }
            (Some(sighting), Some(_)) => {
                let is_due = |repeat: Duration| record.told_at.is_none_or(|told| told.until(now) >= repeat);
                if settings.repeat.is_some_and(is_due) {
                    Some(AlertStep::Remind { id, sighting, reminders: record.reminders.saturating_add(1) })
                } else {
                    Some(AlertStep::See { id, sighting, anew: false })
                }
            }
        };
        steps.extend(step);
    }
    for sighting in fresh.into_values() {
        steps.push(if settings.rule(sighting.rule).hold.is_zero() {
            AlertStep::Fire { id: None, since: now, sighting }
        } else {
            AlertStep::Note { sighting }
        });
    }
    steps
}
