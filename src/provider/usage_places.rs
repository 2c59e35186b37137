//! Where a server's answers count tokens and money, if not where its dialect says: by the operator's word.

use super::beside::amount;
use super::reply_body::{Parsed, count};
use crate::domain::NanoUsd;

/// The places of the counts, as JSON pointers into the body; `None`: where the dialect says. Of a stream the last event
/// that has the member counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsagePlaces {
    /// Tokens of the prompt, those from the cache included.
    pub input: Option<String>,
    /// Tokens of the answer.
    pub output: Option<String>,
    /// The part of the prompt that was read from the cache.
    pub cached_input: Option<String>,
    /// The part of the answer that was reasoning.
    pub reasoning: Option<String>,
    /// The cost in dollars.
    pub cost: Option<String>,
}

/// A count that can be somewhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Input,
    Output,
    CachedInput,
    Reasoning,
}

impl UsagePlaces {
    /// A JSON pointer to a member, as it was written.
    ///
    /// # Errors
    /// Why it is none.
    pub fn pointer(text: &str) -> Result<String, String> {
        let escapes = |part: &str| part.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if text.starts_with('/') && text.len() > 1 && text.split('/').skip(1).all(escapes) {
            return Ok(text.to_owned());
        }
        Err(format!("{text:?} is not a JSON pointer"))
    }

    /// The counts that are found where the operator says, in the order of the fields.
    pub(super) fn counts(&self, parsed: &Parsed) -> Vec<(Counted, i64)> {
        [
            (Counted::Input, &self.input),
            (Counted::Output, &self.output),
            (Counted::CachedInput, &self.cached_input),
            (Counted::Reasoning, &self.reasoning),
        ]
        .into_iter()
        .filter_map(|(what, place)| Some((what, count(parsed.find(place.as_ref()?)?, "")?)))
        .collect()
    }

    /// Whether something stands where the operator says that the cost is.
    pub(super) fn has_cost(&self, parsed: &Parsed) -> bool {
        self.cost.as_ref().and_then(|place| parsed.find(place)).is_some_and(|found| !found.is_null())
    }

    /// The cost that stands there. `None`: nothing does, or something that is no cost: zero, which servers write where
    /// they know none, or what no call costs.
    pub(super) fn cost(&self, parsed: &Parsed) -> Option<NanoUsd> {
        amount(Some(parsed.find(self.cost.as_ref()?)?)).filter(|cost| *cost > NanoUsd::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_told_from_other_texts() {
        for good in ["/usage/in", "/a", "/choices/0/meta", "/a~1b/c~0d", "/a.b"] {
            assert_eq!(UsagePlaces::pointer(good), Ok(good.to_owned()));
        }
        for bad in ["", "/", "usage", "usage.in", "/a~2", "/a~"] {
            assert!(UsagePlaces::pointer(bad).is_err(), "{bad}");
        }
    }
}
