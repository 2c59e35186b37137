//! Names and ids that a dialect does not accept: they are written differently, remain distinct, and are turned back in
//! the answer.

use crate::domain::request::ToolChoice;
use crate::domain::{Answer, ChatRequest, Finish};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The names that a dialect accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameRule {
    /// The most characters.
    pub longest: usize,
    /// Characters accepted beside ASCII letters and digits.
    pub also: &'static str,
    /// Whether any other character is accepted too.
    pub any: bool,
    /// Whether a name has to begin with a letter or `_`.
    pub begins_with_letter: bool,
}

impl NameRule {
    /// OpenAI, vendors that follow it to the letter, and Anthropic.
    pub const PLAIN: Self = Self { longest: 64, also: "_-", any: false, begins_with_letter: false };
    /// Gemini's functions.
    pub const GEMINI: Self = Self { longest: 64, also: "_-.:", any: false, begins_with_letter: true };
    /// Anthropic's ids of calls.
    pub const CALL_ID: Self = Self { longest: 200, also: "_-", any: false, begins_with_letter: false };

    /// Any name of at most this many characters.
    pub const fn up_to(longest: usize) -> Self {
        Self { longest, also: "", any: true, begins_with_letter: false }
    }

    fn takes(self, character: char) -> bool {
        self.any || character.is_ascii_alphanumeric() || self.also.contains(character)
    }

    fn begins_well(self, name: &str) -> bool {
        !self.begins_with_letter || name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
    }

    fn fits(self, name: &str) -> bool {
        !name.is_empty()
            && name.chars().count() <= self.longest
            && name.chars().all(|character| self.takes(character))
            && self.begins_well(name)
    }

    /// The closest name that the rule allows.
    fn mended(self, name: &str) -> String {
        let mut mended = name.replace(|character| !self.takes(character), "_");
        if mended.is_empty() || !self.begins_well(&mended) {
            mended.insert(0, '_');
        }
        cut(&mended, self.longest)
    }
}

fn cut(name: &str, longest: usize) -> String {
    name.chars().take(longest).collect()
}

/// Names that are written differently. Empty when all fit, which is nearly always the case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Renamed(BTreeMap<String, String>);

impl Renamed {
    /// Goes through the names in their order. Names that fit stay; the others get one that no other name has.
    pub(super) fn of<'a>(rule: NameRule, names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut renamed = BTreeMap::new();
        if names.clone().all(|name| rule.fits(name)) {
            return Self(renamed);
        }
        let mut taken: BTreeSet<String> = names.clone().filter(|name| rule.fits(name)).map(str::to_owned).collect();
        for name in names.filter(|name| !rule.fits(name)) {
            if renamed.contains_key(name) {
                continue;
            }
            let mended = rule.mended(name);
            let mut candidate = mended.clone();
            let mut number = 2_usize;
            while !taken.insert(candidate.clone()) {
                let suffix = format!("_{number}");
                candidate = cut(&mended, rule.longest.saturating_sub(suffix.len()));
                candidate.push_str(&suffix);
                number = number.saturating_add(1);
            }
            renamed.insert(name.to_owned(), candidate);
        }
        Self(renamed)
    }

    /// Makes the table from pairs of a name and its distinct written form.
    pub(super) fn from_pairs(pairs: BTreeMap<String, String>) -> Self {
        Self(pairs)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The written form of a name.
    pub(super) fn written<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }

    /// The written form of a name, for when this table does not live as long.
    pub(super) fn to_written<'a>(&self, name: &'a str) -> Cow<'a, str> {
        self.0.get(name).map_or(Cow::Borrowed(name), |written| Cow::Owned(written.clone()))
    }
}

/// All function names in a request: in tools, calls, results and the choice.
pub(super) fn function_names(request: &ChatRequest) -> impl Iterator<Item = &str> + Clone {
    let chosen = match &request.tool_choice {
        Some(ToolChoice::Function(name)) => Some(name.as_str()),
        Some(ToolChoice::Auto | ToolChoice::None | ToolChoice::Required | ToolChoice::Other(_)) | None => None,
    };
    let called = request.messages.iter().flat_map(|message| message.tool_calls.iter().map(|call| call.name.as_str()));
    request.tools.iter().map(|tool| tool.name.as_str()).chain(called).chain(chosen)
}

/// The parts of an answer that have to be turned back, because the request could not be sent as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undo {
    /// The request's own function names, by the names that were sent.
    names: BTreeMap<String, String>,
    /// Stop sequences that were not sent.
    stops: Vec<String>,
}

impl Undo {
    pub(super) fn of(names: &Renamed, stops: Vec<String>) -> Self {
        Self { names: names.0.iter().map(|(own, sent)| (sent.clone(), own.clone())).collect(), stops }
    }

    /// Restores the request's own function names, tells a text's judge which were sent, and ends the text where a stop
    /// sequence would have ended it.
    pub fn apply(&self, answer: &mut Answer) {
        for call in &mut answer.tool_calls {
            if let Some(own) = self.names.get(&call.name) {
                call.name.clone_from(own);
            }
        }
        if !answer.tool_calls.is_empty() {
            return;
        }
        answer.beside.sent_names.clone_from(&self.names);
        let Some(text) = &mut answer.text else { return };
        if let Some(end) = self.stops.iter().filter_map(|stop| text.find(stop.as_str())).min() {
            text.truncate(end);
            if matches!(answer.finish, Finish::Length | Finish::Complete) {
                answer.finish = Finish::Complete;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_fit_stay_and_others_get_one_that_is_free() {
        let names = ["a.b", "a:b", "a_b", "a b", "", "fine-1", "a.b"];
        let renamed = Renamed::of(NameRule::PLAIN, names.into_iter());
        let written: Vec<&str> = names.iter().map(|name| renamed.written(name)).collect();
        assert_eq!(written, ["a_b_2", "a_b_3", "a_b", "a_b_4", "_", "fine-1", "a_b_2"]);
        assert!(Renamed::of(NameRule::PLAIN, ["a", "b-c_D9"].into_iter()).is_empty());
        let long = ["x".repeat(70), "x".repeat(71), format!("{}é", "x".repeat(63))];
        let renamed = Renamed::of(NameRule::PLAIN, long.iter().map(String::as_str));
        let written: Vec<&str> = long.iter().map(|name| renamed.written(name)).collect();
        assert_eq!(written, ["x".repeat(64), format!("{}_2", "x".repeat(62)), format!("{}_", "x".repeat(63))]);
        let gemini = Renamed::of(NameRule::GEMINI, ["7up", "ns.fn:x", "-a"].into_iter());
        assert_eq!(["7up", "ns.fn:x", "-a"].map(|name| gemini.written(name)), ["_7up", "ns.fn:x", "_-a"]);
    }

    proptest! {
        #[test]
        fn different_names_stay_different_and_all_fit(names in prop::collection::btree_set("[a.:é \
            _-]{0,4}|.{0,80}", 0..12)) {
            for rule in [NameRule::PLAIN, NameRule::GEMINI, NameRule::CALL_ID, NameRule::up_to(20)] {
                let renamed = Renamed::of(rule, names.iter().map(String::as_str));
                let written: BTreeSet<&str> = names.iter().map(|name| renamed.written(name)).collect();
                prop_assert_eq!(written.len(), names.len());
                prop_assert!(written.iter().all(|name| rule.fits(name)), "{:?}", written);
                let undo = Undo::of(&renamed, Vec::new());
                for name in &names {
                    let sent = renamed.written(name);
                    prop_assert_eq!(undo.names.get(sent).map_or(sent, String::as_str), name.as_str());
                }
            }
        }
    }
}
