//! Warnings about the rungs of a route: vectors of different models, and rungs that no job reaches.

use super::defaults;
use super::section::Section;
use crate::domain::{Capabilities, Route, Rung, Strategy};
use std::collections::BTreeSet;

/// What the names of models for embeddings have in them; names of others have none of it.
const VECTORS: [&str; 7] = ["embed", "bge-", "e5-", "gte-", "minilm", "voyage-", "arctic-e"];

/// Warns about rungs that do not fit together.
pub(super) fn check(section: &Section<'_>, route: &Route) {
    check_vectors(section, route);
    check_pinned(section, route);
}

/// Vectors of two models cannot be compared: a batch whose jobs take different rungs would be of no use.
fn check_vectors(section: &Section<'_>, route: &Route) {
    let asks = defaults::asks_for_vectors(&route.defaults);
    let makes_vectors = |rung: &&Rung| asks || seems_to_make_vectors(&rung.target.model);
    let rungs: Vec<&Rung> = route.rungs.iter().filter(makes_vectors).collect();
    let Some((first, others)) = rungs.split_first() else { return };
    let own = names_of(first);
    let Some(other) = others.iter().find(|other| names_of(other).is_disjoint(&own)) else { return };
    let key = section.key_in_file("rungs");
    section.reading().warn(format!(
        "{key}: {} and {} make vectors that cannot be compared with each other, and a job gets those of either: give \
         the route rungs of one model, and each model a route (served_as says that two names are one model)",
        first.target, other.target
    ));
}

fn seems_to_make_vectors(model: &str) -> bool {
    let model = model.to_ascii_lowercase();
    VECTORS.iter().any(|part| model.contains(part))
}

/// The names of a rung's model, without those of its maker and its tag.
fn names_of(rung: &Rung) -> BTreeSet<String> {
    let plain = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name);
        name.split(':').next().unwrap_or(name).to_ascii_lowercase()
    };
    let others = rung.model.served_as.iter().map(|name| plain(name));
    others.chain([plain(&rung.target.model)]).collect()
}

/// On a route whose jobs never leave their rung, a rung that is no job's first choice answers only what the first one
/// cannot take at all.
fn check_pinned(section: &Section<'_>, route: &Route) {
    if !route.fallback_on.is_empty() {
        return;
    }
    let unreached: Vec<&Rung> = match (&route.strategy, route.rungs.split_first()) {
        (Strategy::Priority, Some((first, others))) => {
            let takes_all = |other: &&Rung| takes_all_of(&first.model.capabilities, &other.model.capabilities);
            others.iter().filter(takes_all).collect()
        }
        (Strategy::Weighted(weights), _) => {
            let drawn = route.rungs.iter().zip(weights.iter());
            drawn.filter(|(_, weight)| **weight <= 0.0).map(|(rung, _)| rung).collect()
        }
        _ => return,
    };
    if unreached.is_empty() {
        return;
    }
    let names: Vec<String> = unreached.iter().map(|rung| rung.target.to_string()).collect();
    let (names, key) = (names.join(", "), section.key_in_file("rungs"));
    section.reading().warn(format!(
        "{key}: no job reaches {names}, because jobs of this route never leave their first rung: leave out the rung, \
         or fallback = \"never\" (an empty fallback_on is the same)"
    ));
}

/// Whether a model takes every request that another one takes, as far as is known.
fn takes_all_of(own: &Capabilities, other: &Capabilities) -> bool {
    let holds = |own: Option<i64>, other: Option<i64>| own.is_none_or(|own| other.is_some_and(|other| other <= own));
    let can = |own: Option<bool>, other: Option<bool>| own != Some(false) || other == Some(false);
    holds(own.context_window, other.context_window)
        && holds(own.max_output_tokens, other.max_output_tokens)
        && can(own.json_schema, other.json_schema)
        && can(own.tools, other.tools)
        && can(own.images, other.images)
        && can(own.files, other.files)
        && can(own.audio, other.audio)
}
