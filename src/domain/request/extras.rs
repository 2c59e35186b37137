//! What a request asks for beside its tokens, as far as it changes what a call costs: a tier, several answers, and
//! things that no price list tells.
//!
//! All of it is for the route to allow (`pass`). What the route does not allow is not sent, and costs nothing.

use super::pass::{HARMLESS_TOOLS, is_choosing, plain};
use super::{ChatRequest, Pass};
use crate::domain::price::special_tier;
use crate::domain::raw_object::RawObject;
use serde_json::Value;
use std::collections::BTreeSet;

/// Members that name a tier.
const TIERS: &[&str] = &["service_tier", "speed"];

/// Members by which the model writes several answers. The output of each of them is billed.
pub(super) const COUNTS: &[&str] = &[
    "best_of",
    "candidate_count",
    "num_candidates",
    "num_completions",
    "num_generations",
    "num_return_sequences",
    "num_samples",
    "n_completions",
    "beam_width",
    "num_beams",
];

/// Members that may hold any of these.
const HOLDERS: &[&str] = &["extra_body", "extra_query", "generation_config", "additional_model_request_fields"];

/// Members that cap the output, where a holder has them.
const CAPS: &[&str] = &["max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict"];

/// How deep holders are searched.
const DEEPEST: usize = 4;

/// What a request asks for beside its tokens, as far as it changes what a call costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The tiers that it asks for, each with the member by which it does.
    tiers: Vec<(&'static str, AskedTier)>,
    /// How many answers it has the model write, with the member that says so.
    answers: Vec<(&'static str, i64)>,
    /// Caps on the output that stand in holders, each with the outermost of them: a server may go by them.
    caps: Vec<(&'static str, i64)>,
    /// Whether it asks for something that no price list tells: a search, a tool that the provider calls, another model.
    pub unlisted: bool,
}

/// A tier, as a request asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedTier {
    /// Whichever the vendor takes (`auto`).
    Any,
    /// That of this word.
    Named(Box<str>),
}

impl Extras {
    /// The members by which a request asks for a tier or for several answers, each in one spelling.
    pub fn members() -> impl Iterator<Item = &'static str> {
        [TIERS, COUNTS, HOLDERS].into_iter().flatten().copied()
    }

    /// Those of a request on a route that lets these members pass.
    #[must_use]
    pub fn of(request: &ChatRequest, pass: &Pass) -> Self {
        let mut extras = Self::default();
        if pass.is_empty() {
            return extras;
        }
        let is_called_there = |kind: &String| !HARMLESS_TOOLS.contains(&kind.as_str()) && pass.lets_tool(kind);
        extras.unlisted = request.other_tools.iter().any(is_called_there);
        if let Some(body) = RawObject::read(&request.raw) {
            for (name, value) in body.members().filter(|(name, _)| is_choosing(name) && pass.lets(name)) {
                extras.add(name, value, None, 0);
            }
        }
        extras
    }

    /// Whether it asks for nothing of the kind.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.tiers.is_empty() && self.answers.is_empty() && self.caps.is_empty() && !self.unlisted
    }

    /// The tiers that it asks for, where these members are not sent.
    pub fn tiers(&self, unsent: &BTreeSet<&'static str>) -> impl Iterator<Item = &AskedTier> {
        self.tiers.iter().filter(|(member, _)| !unsent.contains(member)).map(|(_, tier)| tier)
    }

    /// The tier that it asks for by name, where these members are not sent.
    #[must_use]
    pub fn named_tier(&self, unsent: &BTreeSet<&'static str>) -> Option<&str> {
        self.tiers(unsent).find_map(|tier| match tier {
            AskedTier::Any => None,
            AskedTier::Named(word) => Some(&**word),
        })
    }

    /// How many answers the model writes, where these members are not sent.
    #[must_use]
    pub fn answers(&self, unsent: &BTreeSet<&'static str>) -> i64 {
        let counts = self.answers.iter().filter(|(member, _)| !unsent.contains(member)).map(|(_, answers)| *answers);
        counts.max().unwrap_or(1).max(1)
    }

    /// The largest cap on the output in a holder, where these members are not sent.
    #[must_use]
    pub fn cap(&self, unsent: &BTreeSet<&'static str>) -> Option<i64> {
        self.caps.iter().filter(|(member, _)| !unsent.contains(member)).map(|(_, cap)| *cap).max()
    }

    /// Adds a member; `holder`: the outermost member that holds it.
    fn add(&mut self, name: &str, text: &str, holder: Option<&'static str>, depth: usize) {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return };
        if value.is_null() {
            return;
        }
        let name = plain(name);
        let of = |members: &[&'static str]| members.iter().copied().find(|member| plain(member) == name);
        if let Some(member) = of(TIERS) {
            match value.get("type").unwrap_or(&value).as_str() {
                Some(word) if word.trim().eq_ignore_ascii_case("auto") => {
                    self.tiers.push((holder.unwrap_or(member), AskedTier::Any));
                }
                Some(word) => {
                    let special = special_tier(word).map(|word| AskedTier::Named(word.into()));
                    self.tiers.extend(special.map(|tier| (holder.unwrap_or(member), tier)));
                }
                None => self.unlisted = true,
            }
        } else if let Some(member) = of(COUNTS).or_else(|| holder.filter(|_| name == "n")) {
            match number(&value) {
                Some(answers) => self.answers.push((holder.unwrap_or(member), answers)),
                None => self.unlisted = true,
            }
        } else if let Some(holder) = holder.filter(|_| of(CAPS).is_some()) {
            match number(&value) {
                Some(cap) => self.caps.push((holder, cap)),
                None => self.unlisted = true,
            }
        } else if let Some(member) = of(HOLDERS).filter(|_| depth < DEEPEST && value.is_object()) {
            let body = RawObject::read(text).unwrap_or_default();
            let is_cap = |inner: &str| CAPS.iter().any(|cap| plain(cap) == plain(inner));
            for (inner, text) in
                body.members().filter(|(inner, _)| is_choosing(inner) || *inner == "n" || is_cap(inner))
            {
                self.add(inner, text, Some(holder.unwrap_or(member)), depth + 1);
            }
        } else {
            self.unlisted = true;
        }
    }
}

/// A number of answers, in digits or in quotes. More than there are numbers for is as many as there are.
fn number(value: &Value) -> Option<i64> {
    let float = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, reason = "a saturating cast of a number of answers")]
    (!float.is_nan()).then(|| float.ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn extras(members: &Value, pass: &[&str]) -> Extras {
        let mut body = json!({ "messages": [{ "role": "user", "content": "Hi" }] });
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let request = ChatRequest::parse(&body).unwrap();
        Extras::of(&request, &Pass::of(pass.iter().map(|name| (*name).to_owned())))
    }

    #[test]
    fn what_a_request_asks_for_counts_as_far_as_its_route_lets_it_pass() {
        let tier = |member, word: &str| (vec![(member, AskedTier::Named(word.into()))], 1, false);
        let answers = |answers| (Vec::new(), answers, false);
        let unlisted = || (Vec::new(), 1, true);
        let (plain, any) = (|| answers(1), AskedTier::Any);
        for (members, expected) in [
            (json!({ "service_tier": "priority" }), tier("service_tier", "priority")),
            (json!({ "serviceTier": { "type": "Flex" } }), tier("service_tier", "flex")),
            (json!({ "speed": "fast" }), tier("speed", "fast")),
            (json!({ "service_tier": "auto" }), (vec![("service_tier", any)], 1, false)),
            (json!({ "service_tier": "default" }), plain()),
            (json!({ "service_tier": null }), plain()),
            (json!({ "service_tier": 7 }), unlisted()),
            (json!({ "best_of": 20 }), answers(20)),
            (json!({ "candidateCount": "4" }), answers(4)),
            (json!({ "num_generations": 2.5, "best_of": 2 }), answers(3)),
            (json!({ "best_of": 1e300 }), answers(i64::MAX)),
            (json!({ "best_of": 0 }), plain()),
            (json!({ "best_of": -3 }), plain()),
            (json!({ "best_of": [] }), unlisted()),
            (json!({ "web_search_options": {} }), unlisted()),
            (json!({ "models": ["dear"] }), unlisted()),
            (json!({ "tools": [{ "type": "web_search" }] }), unlisted()),
            (json!({ "extra_body": { "n": 5, "generation_config": { "candidateCount": 9 } } }), answers(9)),
            (json!({ "extra_body": { "service_tier": "priority", "top_k": 5 } }), tier("extra_body", "priority")),
            (json!({ "extra_body": "x" }), unlisted()),
            (json!({ "top_k": 5, "unheard_of": 1 }), plain()),
        ] {
            let found = extras(&members, &["*"]);
            let answers = found.answers(&BTreeSet::new());
            assert_eq!((found.tiers, answers, found.unlisted), expected, "{members}");
            assert_eq!(extras(&members, &[]), Extras::default(), "{members}");
        }
        let both = json!({ "service_tier": "priority", "best_of": 2 });
        assert_eq!(extras(&both, &["best_of"]), Extras { answers: vec![("best_of", 2)], ..Extras::default() });
        assert!(extras(&both, &["tools"]).is_plain());
        // A server may go by the cap in a holder; the one of the request itself is known anyway.
        let capped = extras(&json!({ "max_tokens": 7, "extra_body": { "maxTokens": 60_000 } }), &["*"]);
        assert_eq!(capped.cap(&BTreeSet::new()), Some(60_000));
        assert_eq!(capped.cap(&BTreeSet::from(["extra_body"])), None);
        // What does not reach the server changes nothing.
        let (all, unsent) = (extras(&both, &["*"]), BTreeSet::from(["best_of", "service_tier"]));
        assert_eq!((all.answers(&unsent), all.tiers(&unsent).count()), (1, 0));
    }

    #[test]
    fn every_member_is_one_that_a_route_may_hold_back() {
        assert!(Extras::members().all(is_choosing));
    }
}
