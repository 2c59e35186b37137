//! `[game_days.NAME]`.

use super::provider::ReadProvider;
use super::scalar;
use super::section::Section;
use super::words::{GAME_FAULTS, names};
use crate::domain::Timestamp;
use crate::domain::game_day::{GameDay, LONGEST};
use chrono::DateTime;
use config::ValueKind;
use std::collections::BTreeMap;

const TARGETS: &str = "a list of providers, or of models as \"provider/model\"";
const SHARE: &str = "a share above 0 and up to 1, such as 0.2";
const INSTANT: &str = "an instant such as \"2026-12-04T11:00:00Z\": a game day ends by itself";

/// Reads all game days, those too that are over.
pub(super) fn read_all(
    sections: Vec<(String, Section<'_>)>,
    providers: &BTreeMap<String, ReadProvider>,
) -> Vec<GameDay> {
    sections.into_iter().filter_map(|(name, section)| read_one(name, section, providers)).collect()
}

fn read_one(name: String, mut section: Section<'_>, providers: &BTreeMap<String, ReadProvider>) -> Option<GameDay> {
    for (key, expected) in [("targets", TARGETS), ("share", SHARE), ("from", INSTANT), ("until", INSTANT)] {
        if !section.has(key) {
            section.fault(key, "is missing", expected);
        }
    }
    let is_empty = section.peek("targets").is_some_and(|value| match &value.kind {
        ValueKind::Array(targets) => targets.is_empty(),
        _ => false,
    });
    let targets = section.parsed_list("targets", TARGETS, |text| {
        let provider = text.split('/').next().unwrap_or(text);
        if providers.contains_key(provider) {
            return Ok(text.to_owned());
        }
        Err(match scalar::nearest(provider, providers.keys().map(String::as_str)) {
            Some(near) => format!("there is no provider {provider:?}; perhaps {near:?} is meant"),
            None => format!("there is no provider {provider:?}"),
        })
    });
    if is_empty {
        section.fault("targets", "is empty", TARGETS);
    }
    let share = section.fraction_of("share", SHARE);
    let known = names(GAME_FAULTS).join(", ");
    let faults = section.parsed_list("faults", &format!("a list of {known}"), |text| {
        let fault = GAME_FAULTS.iter().find(|(word, _)| *word == text).map(|(_, fault)| *fault);
        fault.ok_or_else(|| format!("{text:?} is no failure of game days"))
    });
    if faults.as_ref().is_some_and(Vec::is_empty) {
        section.fault("faults", "is empty", format!("a list of {known}, or no such key: both"));
    }
    let faults = faults.filter(|faults| !faults.is_empty());
    let (from, until) = (read_instant(&mut section, "from"), read_instant(&mut section, "until"));
    match (from, until) {
        (Some(from), Some(until)) if until <= from => section.fault("until", "is not after from", INSTANT),
        (Some(from), Some(until)) if from.until(until) > LONGEST => {
            section.fault("until", "is more than 24 hours after from", "a shorter time");
        }
        _ => {}
    }
    section.finish();
    Some(GameDay {
        name,
        targets: targets?,
        faults: faults.unwrap_or_else(|| GAME_FAULTS.iter().map(|(_, fault)| *fault).collect()),
        share: share?.millionths(),
        from: from?,
        until: until?,
    })
}

fn read_instant(section: &mut Section<'_>, key: &'static str) -> Option<Timestamp> {
    section.parsed(key, INSTANT, |text| {
        let at = DateTime::parse_from_rfc3339(text.trim()).map_err(|_| format!("{text:?} is no instant"))?;
        Ok(Timestamp(at.timestamp_millis()))
    })
}
