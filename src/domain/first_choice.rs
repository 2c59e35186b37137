//! The target that a job would have taken first, where another one answered: why it did not, and what the answer would
//! have cost there.

use super::explanation::{Explanation, SkippedRung, Why};
use super::{ErrorClass, NanoUsd, Rung, Timestamp, Usage};
use serde::{Deserialize, Serialize};

/// A first choice that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstChoice {
    /// The target, as `provider/model`.
    pub target: String,
    /// Why it did not answer: the error class of its failure, or the word for what shut it.
    pub why: String,
    /// What the tokens of the answer would have cost there; `None`: not known.
    pub cost: Option<NanoUsd>,
}

impl FirstChoice {
    /// The first choice behind an answer with this usage, which another rung gave to a call that was made at this
    /// instant; `None`: the rung that answered was the first choice. `failure`: how that rung of the route last failed
    /// this job.
    #[must_use]
    pub fn of(
        explanation: &Explanation,
        rungs: &[Rung],
        failure: impl Fn(usize) -> Option<ErrorClass>,
        usage: &Usage,
        at: Timestamp,
    ) -> Option<Self> {
        let SkippedRung { target, why } = explanation.skipped.first()?;
        let target = target.clone()?;
        let index = rungs.iter().position(|rung| rung.target.to_string() == target);
        let failed = match why {
            Why::BackingOff { .. } | Why::TooLate { .. } => index.and_then(failure),
            _ => None,
        };
        let why = failed.map_or_else(|| why.word().into_owned(), |class| class.as_str().to_owned());
        let price = index.and_then(|index| rungs.get(index)?.price_at(at));
        let cost = price.map(|price| price.cost(usage).of_a_call());
        Some(Self { target, why, cost })
    }
}
