//! Which members of a request have to reach a target: what a route does not let a target leave out.

use super::ChatRequest;
use super::decide::Ineligible;
use super::request::{Pass, is_known_member};
use std::collections::BTreeSet;

/// The members that a rung may not leave out. A rung that would is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MustKeep {
    /// Each may be left out, visibly.
    #[default]
    Nothing,
    /// These, by their paths (`seed`, `messages[].name`).
    Members(BTreeSet<String>),
    /// All of them.
    All,
}

/// Members that no target is sent as the request has them, because the route and the worker decide on them, and a name
/// that means nothing to a model.
const NO_LOSS: &[&str] = &["model", "stream", "stream_options", "n", "response_format.json_schema.name"];

/// The note behind a list that is too long, and what it stands for.
const AND_MORE: (&str, &str) = ("and more", "more members than can be named");

impl MustKeep {
    /// The first member that a target would leave out although it has to be kept; `None`: nothing is lost. `notes`:
    /// what is not sent as it came, in the words of the ledger.
    #[must_use]
    pub fn lost<'n>(&self, notes: &'n [String], request: &ChatRequest) -> Option<&'n str> {
        let named: &BTreeSet<String> = match self {
            Self::Nothing => return None,
            Self::Members(members) => members,
            Self::All => &BTreeSet::new(),
        };
        let is_kept = |path: &str| *self == Self::All || named.iter().any(|member| overlap(member, path));
        let mut lost = notes.iter().filter_map(|note| left_out(note));
        let found = lost.find(|path| is_kept(path) && !NO_LOSS.contains(path) && !is_the_authors_own(path, request));
        let may_be_more = || notes.iter().any(|note| note == AND_MORE.0).then_some(AND_MORE.1);
        found.or_else(may_be_more)
    }

    /// Why no rung can take this request: its route holds something back that has to be kept; `None`: it does not. The
    /// author's own members beside a prompt are no loss here, either.
    #[must_use]
    pub fn held_back(&self, request: &ChatRequest, pass: &Pass) -> Option<Ineligible> {
        let is_kept = |path: &str| match self {
            Self::Nothing => false,
            Self::Members(members) => members.iter().any(|member| overlap(member, path)),
            Self::All => true,
        };
        if *self == Self::Nothing {
            return None;
        }
        let held = request.names_held_back(pass);
        let lost = held.into_iter().find(|name| is_kept(name) && !is_the_authors_own(name, request))?;
        Some(Ineligible::Unsupported(format!(
            "{lost}, which its route holds back (pass) and does not let it leave out (must_keep)"
        )))
    }
}

/// What notes say behind a path and a colon where a part of the member is lost: other members, its place, or who says
/// it.
const LOST_PARTS: &[&str] =
    &["members beside text", "system moved to the front", "system as user", "its place among the texts"];

/// The path of the member that a note says is left out; `None`: it tells of a change that keeps the meaning.
///
/// A note on a member that is left out is its path alone, or its path and behind a colon which parts of it are.
/// Other words tell of another name, another form, or a bound that is kept here.
fn left_out(note: &str) -> Option<&str> {
    let path = match note.split_once(": ") {
        Some((path, part)) if LOST_PARTS.contains(&part) => path,
        _ => note,
    };
    let is_path = !path.is_empty()
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']'));
    is_path.then_some(path)
}

/// Whether one of two paths leads to the other, or both are the same.
fn overlap(one: &str, other: &str) -> bool {
    let below = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    below(one, other) || below(other, one)
}

/// Whether a member beside `prompt` is the author's own: no provider knows it, so no provider can lose it.
fn is_the_authors_own(path: &str, request: &ChatRequest) -> bool {
    let name = path.split(['.', '[']).next().unwrap_or(path);
    let is_known = || {
        let body = super::raw_object::RawObject::read(&request.raw).unwrap_or_default();
        let value = body.given(name).and_then(|text| serde_json::from_str(text).ok());
        value.is_some_and(|value| is_known_member(name, &value))
    };
    request.is_prompt && !is_known()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn members(names: &[&str]) -> MustKeep {
        MustKeep::Members(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn what_is_left_out_is_told_from_what_is_said_in_another_way() {
        let request =
            ChatRequest::parse(&json!({ "messages": [{ "role": "user", "content": "Hi" }], "n": 1 })).unwrap();
        let lost = |keep: &MustKeep, note: &str| keep.lost(&[note.to_owned()], &request).map(str::to_owned);
        for (note, is_lost) in [
            ("seed", true),
            ("messages[].name", true),
            ("messages[].content[].cache_control", true),
            ("messages[].content[]: members beside text", true),
            ("messages[].role: system moved to the front", true),
            ("messages[].role: system as user", true),
            ("messages[].content[].image_url: its place among the texts", true),
            ("messages[].role developer as system", false),
            ("max_tokens 4096 added", false),
            ("seed as random_seed", false),
            ("safe_prompt added", false),
            ("max_tokens above 8192", false),
            ("stop of white space (the answer is cut there)", false),
            ("response_format.json_schema.schema: maxLength", false),
            ("tools (tool_choice is none)", false),
            ("tools (an empty list)", false),
            ("model", false),
            ("stream", false),
            ("stream_options", false),
            ("and more", true),
            ("response_format.json_schema.name", false),
            ("", false),
        ] {
            assert_eq!(lost(&MustKeep::All, note).is_some(), is_lost, "{note}");
            assert_eq!(lost(&MustKeep::Nothing, note), None, "{note}");
        }
        for (keep, note, is_lost) in [
            ("seed", "seed", true),
            ("seed", "top_k", false),
            ("see", "seed", false),
            ("messages", "messages[].name", true),
            ("messages", "messages[].role: system moved to the front", true),
            ("messages[].content", "messages[].role: system moved to the front", false),
            ("messages[].name", "messages", true),
            ("messages[].name", "messages[].weight", false),
            ("response_format.json_schema.strict", "response_format", true),
            ("seed", "seed as random_seed", false),
        ] {
            assert_eq!(lost(&members(&[keep, "user"]), note).is_some(), is_lost, "{keep}: {note}");
        }
    }

    #[test]
    fn what_a_route_holds_back_is_lost_as_well() {
        let body = |members: serde_json::Value| {
            let mut body = json!({ "messages": [{ "role": "user", "content": "Hi" }] });
            body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            ChatRequest::parse(&body).unwrap()
        };
        let said = |keep: &MustKeep, request: &ChatRequest, pass: &[&str]| {
            let pass = Pass::of(pass.iter().map(|name| (*name).to_owned()));
            keep.held_back(request, &pass).map(|why| why.to_string())
        };
        let tier = body(json!({ "service_tier": "priority", "seed": 3 }));
        let words = said(&MustKeep::All, &tier, &[]).unwrap();
        assert!(words.contains("service_tier, which its route holds back (pass)"), "{words}");
        assert_eq!(said(&MustKeep::All, &tier, &["service_tier"]), None);
        assert_eq!(said(&MustKeep::Nothing, &tier, &[]), None);
        assert_eq!(said(&members(&["seed"]), &tier, &[]), None);
        let search = body(json!({ "tools": [{ "type": "web_search" }] }));
        for keep in [MustKeep::All, members(&["tools"])] {
            assert!(said(&keep, &search, &[]).is_some() && said(&keep, &search, &["tools"]).is_none(), "{keep:?}");
        }
        let prompt = ChatRequest::parse(&json!({ "prompt": "Hi", "provider": "acme", "car_model": "x" })).unwrap();
        assert_eq!(said(&MustKeep::All, &prompt, &[]), None, "columns of a table");
    }

    #[test]
    fn an_authors_own_members_beside_a_prompt_are_no_loss() {
        let request = ChatRequest::parse(&json!({ "prompt": "Hi", "row": 7, "seed": 3 })).unwrap();
        let lost = |note: &str| MustKeep::All.lost(&[note.to_owned()], &request).map(str::to_owned);
        assert_eq!((lost("row"), lost("seed").as_deref()), (None, Some("seed")));
    }
}
