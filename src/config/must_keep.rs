//! `must_keep` of a route: which members of a request no rung may leave out.

use super::provider::ReadProvider;
use super::quirks::path;
use super::section::Section;
use crate::domain::request::{is_choosing, near_known_member};
use crate::domain::{MustKeep, Route};
use config::ValueKind;
use std::collections::BTreeMap;

/// The word for all members.
pub(super) const ALL: &str = "all";

const EXPECTED: &str = "\"all\", or a list of members such as [\"seed\", \"messages[].name\"]";

pub(super) fn read(section: &mut Section<'_>) -> MustKeep {
    let Some(value) = section.peek("must_keep").map(|value| value.kind.clone()) else { return MustKeep::Nothing };
    match value {
        ValueKind::Nil => MustKeep::Nothing,
        ValueKind::String(word) if word.trim() == ALL => {
            section.take("must_keep");
            MustKeep::All
        }
        ValueKind::String(word) if !section.is_from_environment("must_keep") => {
            section.take("must_keep");
            section.fault("must_keep", format!("is {word:?}"), EXPECTED);
            MustKeep::Nothing
        }
        _ => {
            let members = section.parsed_list("must_keep", EXPECTED, path).unwrap_or_default();
            if members.iter().any(|member| member == ALL) {
                section.fault("must_keep", "has \"all\" in a list", "must_keep = \"all\", or a list of members");
            }
            if members.is_empty() { MustKeep::Nothing } else { MustKeep::Members(members.into_iter().collect()) }
        }
    }
}

/// Finds fault with members that cannot be kept, because the route itself holds them back or all of its rungs leave
/// them out, and warns of those that no provider is known to take.
pub(super) fn check(section: &Section<'_>, route: &Route, providers: &BTreeMap<String, ReadProvider>) {
    let MustKeep::Members(members) = &route.must_keep else { return };
    for member in members {
        let name = member.split(['.', '[']).next().unwrap_or(member);
        if is_choosing(name) && !route.pass.lets(name) {
            let problem = format!("the route does not let {name:?} pass, so it is left out before any rung is asked");
            section.fault("must_keep", problem, format!("{name:?} in `pass`, or not here"));
        }
        if let Some(meant) = near_known_member(name) {
            let key = section.key_in_file("must_keep");
            section.reading().warn(format!("{key}: no provider is known to take {name:?}; perhaps {meant:?} is meant"));
        }
        let drops = |provider: &ReadProvider| provider.config.endpoint.quirks.drop.contains(member);
        let mut asked = route.rungs.iter().filter_map(|rung| providers.get(&rung.target.provider)).peekable();
        if asked.peek().is_some() && asked.all(drops) {
            let problem = format!("`quirks.drop` of each of its providers leaves out {member:?}");
            section.fault("must_keep", problem, "a rung that takes it");
        }
    }
}
