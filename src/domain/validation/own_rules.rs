//! The rules that a request brings along for its own answer: `validate`.

use super::{FinishRule, Rules};
use crate::domain::language::{TextLanguage, TextScript};
use crate::domain::larger_cap::RaiseCap;
use regex::{Regex, RegexBuilder};
use std::borrow::Cow;

/// The most patterns of a request, each.
pub const MOST_PATTERNS: usize = 10;

/// The most bytes that a compiled pattern of a request takes.
const PATTERN_BYTES: usize = 256 << 10;

/// What a request says of its answer, in place of what its route says. A member that is `None` leaves the route's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnRules {
    pub non_empty: Option<bool>,
    pub min_chars: Option<usize>,
    pub max_chars: Option<usize>,
    pub refusal: Option<bool>,
    pub html: Option<bool>,
    pub truncated: Option<bool>,
    pub finish: Option<FinishRule>,
    pub json: Option<bool>,
    pub repetition: Option<bool>,
    pub control_tokens: Option<bool>,
    pub prompt_cut: Option<bool>,
    pub stuck_answer: Option<bool>,
    pub only_filtered: Option<bool>,
    pub language: Option<Vec<TextLanguage>>,
    pub script: Option<Vec<TextScript>>,
    pub only_as_asked: Option<bool>,
    pub raise_cap: Option<RaiseCap>,
    /// Texts that compile: see [`compiled`]. They are compiled for each answer: a job that waits holds no more of them.
    pub required_patterns: Option<Vec<String>>,
    pub forbidden_patterns: Option<Vec<String>>,
}

/// A pattern of a request, compiled.
///
/// # Errors
/// In words: it does not compile, or takes too much.
pub fn compiled(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("it takes more than {} KB when it is compiled", PATTERN_BYTES >> 10),
        // The crate prints the pattern over several lines; the last one has the reason.
        other => {
            let words = other.to_string();
            words.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    })
}

impl OwnRules {
    /// Whether there are patterns to compile for each answer, which may take a while.
    #[must_use]
    pub fn has_patterns(&self) -> bool {
        let has_some = |patterns: &Option<Vec<String>>| patterns.as_ref().is_some_and(|patterns| !patterns.is_empty());
        has_some(&self.required_patterns) || has_some(&self.forbidden_patterns)
    }

    /// Which answers that were cut off raise the output cap, by the request's word or else by the route's.
    #[must_use]
    pub fn raise_cap(own: Option<&Self>, route: &Rules) -> RaiseCap {
        own.and_then(|own| own.raise_cap).unwrap_or(route.raise_cap)
    }

    /// Whether a text that the target gives to one request after the other is a failure, by the request's word or else
    /// by the route's.
    #[must_use]
    pub fn rejects_stuck(own: Option<&Self>, route: &Rules) -> bool {
        own.and_then(|own| own.stuck_answer).unwrap_or(route.reject_stuck)
    }

    /// The rules of a route, with these in place of what they name.
    #[must_use]
    pub fn over<'a>(own: Option<&Self>, route: &'a Rules) -> Cow<'a, Rules> {
        let Some(own) = own else { return Cow::Borrowed(route) };
        // They have compiled when the request was read.
        let patterns = |own: &Option<Vec<String>>, route: &[Regex]| match own {
            Some(patterns) => patterns.iter().filter_map(|pattern| compiled(pattern).ok()).collect(),
            None => route.to_vec(),
        };
        Cow::Owned(Rules {
            non_empty: own.non_empty.unwrap_or(route.non_empty),
            min_chars: own.min_chars.or(route.min_chars),
            max_chars: own.max_chars.or(route.max_chars),
            json: own.json.unwrap_or(route.json),
            json_schema: route.json_schema.clone(),
            required_patterns: patterns(&own.required_patterns, &route.required_patterns),
            forbidden_patterns: patterns(&own.forbidden_patterns, &route.forbidden_patterns),
            reject_refusals: own.refusal.unwrap_or(route.reject_refusals),
            reject_html: own.html.unwrap_or(route.reject_html),
            reject_truncated: own.truncated.unwrap_or(route.reject_truncated),
            finish: own.finish.unwrap_or(route.finish),
            reject_repetition: own.repetition.unwrap_or(route.reject_repetition),
            reject_control_tokens: own.control_tokens.unwrap_or(route.reject_control_tokens),
            reject_cut_prompts: own.prompt_cut.unwrap_or(route.reject_cut_prompts),
            reject_stuck: own.stuck_answer.unwrap_or(route.reject_stuck),
            only_filtered: own.only_filtered.unwrap_or(route.only_filtered),
            languages: own.language.clone().unwrap_or_else(|| route.languages.clone()),
            scripts: own.script.clone().unwrap_or_else(|| route.scripts.clone()),
            only_as_asked: own.only_as_asked.unwrap_or(route.only_as_asked),
            raise_cap: Self::raise_cap(Some(own), route),
        })
    }
}
