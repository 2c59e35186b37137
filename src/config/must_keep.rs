//! `must_keep` of a route: which members of a request no rung may leave out.

use super::provider::ReadProvider;
use super::quirks::path;
use super::section::Section;
use crate::domain::request::{is_choosing, is_foreign, near_known_member, sample_with};
use crate::domain::{MustKeep, Route, Rung};
use config::ValueKind;
use std::collections::{BTreeMap, BTreeSet};

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
            let members = section.parsed_list("must_keep", EXPECTED, kept_path).unwrap_or_default();
            if members.iter().any(|member| member == ALL) {
                section.fault("must_keep", "has \"all\" in a list", "must_keep = \"all\", or a list of members");
            }
            if members.is_empty() { MustKeep::Nothing } else { MustKeep::Members(members.into_iter().collect()) }
        }
    }
}

/// The path of a member that may have to be kept. `messages` always is, and what is in it need not be.
fn kept_path(text: &str) -> Result<String, String> {
    if ALWAYS_KEPT.contains(&text) { Ok(text.to_owned()) } else { path(text) }
}

/// Members without which there is no request.
const ALWAYS_KEPT: &[&str] = &["messages", "prompt", "input"];

/// Finds fault with members that cannot be kept, because the route itself holds them back or all of its rungs leave
/// them out, and warns of those that no provider is known to take or that none of the rungs would be sent.
pub(super) fn check(section: &Section<'_>, route: &Route, providers: &BTreeMap<String, ReadProvider>) {
    let MustKeep::Members(members) = &route.must_keep else { return };
    let warn = |said: String| section.reading().warn(format!("{}: {said}", section.key_in_file("must_keep")));
    for member in members {
        let name = member.split(['.', '[']).next().unwrap_or(member);
        if is_choosing(name) && !route.pass.lets(name) {
            let problem = format!("the route does not let {name:?} pass, so it is left out before any rung is asked");
            section.fault("must_keep", problem, format!("{name:?} in `pass`, or not here"));
        }
        if is_foreign(name) && !is_choosing(name) {
            let more = match near_known_member(name) {
                Some(meant) => format!("; perhaps {meant:?} is meant"),
                None => ": it is sent as it is, where the dialect allows that".to_owned(),
            };
            warn(format!("no provider is known to take {name:?}{more}"));
        }
        let mut asked = route.rungs.iter().filter_map(|rung| Some((rung, providers.get(&rung.target.provider)?)));
        let drops = |(_, provider): (&Rung, &ReadProvider)| provider.config.endpoint.quirks.drop.contains(member);
        if asked.clone().next().is_none() {
            continue;
        }
        if asked.clone().all(drops) {
            let problem = format!("`quirks.drop` of each of its providers leaves out {member:?}");
            section.fault("must_keep", problem, "a rung that takes it");
            continue;
        }
        let Some(sample) = sample_with(member) else { continue };
        let only = MustKeep::Members(BTreeSet::from([member.clone()]));
        let is_lost = |(rung, provider): (&Rung, &ReadProvider)| {
            let (endpoint, capabilities) = (&provider.config.endpoint, &rung.model.capabilities);
            let refused = |kept: &MustKeep| endpoint.refusal(&sample, &rung.target.model, capabilities, kept).is_some();
            refused(&only) && !refused(&MustKeep::Nothing)
        };
        if asked.all(is_lost) {
            warn(format!("no rung of the route is sent {member:?}, so every request that has it fails"));
        }
    }
}
