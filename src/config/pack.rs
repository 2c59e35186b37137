//! `pack` of a route.

use super::keys::PACK;
use super::provider::ReadProvider;
use super::scalar::{self, DURATION};
use super::section::Section;
use crate::domain::pack::PackBounds;
use crate::domain::{Packing, Route, Strategy};
use config::ValueKind;
use std::collections::BTreeMap;
use std::time::Duration;

/// A pack holds up its jobs for no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How a route packs; `None`: it does not, or is faulty.
pub(super) fn read(section: &mut Section<'_>) -> Option<Packing> {
    if !section.has("pack") {
        return None;
    }
    let entries = match section.peek("pack").map(|value| &value.kind) {
        Some(ValueKind::Table(_)) => section.table("pack"),
        _ => section.take("pack").into_iter().map(|inputs| ("inputs".to_owned(), inputs)).collect(),
    };
    let mut table = section.nested("pack", &PACK, entries);
    if !table.has("inputs") {
        table.fault("inputs", "is missing", "a whole number from 2 to 2048");
    }
    let inputs = table.whole("inputs");
    let tokens = table.whole("tokens");
    let wait = table.parsed_or_default("wait", &format!("{DURATION}, at most \"5s\""), |text| {
        let wait = scalar::duration(text)?;
        if wait > LONGEST_WAIT { Err("is longer than 5s".to_owned()) } else { Ok(wait) }
    });
    table.finish();
    Some(Packing { most: PackBounds { inputs: inputs?, tokens }, wait })
}

/// Finds fault with a route that packs, and whose other keys contradict that.
pub(super) fn check(section: &Section<'_>, route: &Route, providers: &BTreeMap<String, ReadProvider>) {
    if route.pack.is_none() {
        return;
    }
    if matches!(route.strategy, Strategy::Race(_)) {
        let problem = "the strategy is \"race\", which asks a second rung for one job and not for a pack";
        section.fault("pack", problem, "another strategy, or no pack");
    }
    if route.cascade.is_some() {
        let problem = "the route has a cascade, and vectors say nothing of how sure a rung is";
        section.fault("pack", problem, "no cascade, or no pack");
    }
    let embeds = |provider: &ReadProvider| provider.config.endpoint.embeds().is_some();
    let takes_some = route.rungs.iter().any(|rung| providers.get(&rung.target.provider).is_some_and(embeds));
    if !takes_some && !route.rungs.is_empty() {
        let problem = "no rung of the route has embeddings, and nothing else is packed";
        section.fault("pack", problem, "a rung whose dialect has embeddings, or no pack");
    }
}
