//! One call to one target, as the decision sees it afterwards.

use super::cascade::Unsure;
use super::charging::Fate;
use super::error_class::Effect;
use super::larger_cap::CutAnswer;
use super::{Bearing, ErrorClass, Rejected, Remedy, SoftFailure, Timestamp};
use std::sync::Arc;

/// What validation says of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Use it as it is.
    Accepted,
    /// Use this text instead: a repair that lost nothing (reasoning before the answer, a code fence or prose around
    /// JSON).
    Repaired {
        /// The text to deliver.
        text: String,
        /// Reasoning that stood in the text before the answer.
        draft: Option<String>,
        /// The parts that were cut, for people.
        cut: String,
    },
    /// Do not use it.
    Rejected {
        /// Every rule it broke, the gravest first; never empty.
        failures: Vec<SoftFailure>,
        /// The fault, for people: rule and place, and at most a few words of the answer.
        message: String,
    },
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was accepted (as it was or repaired): the job has succeeded.
    Accepted,
    /// The answer was rejected; the gravest failure.
    Rejected(SoftFailure),
    /// The call failed.
    Failed(ErrorClass),
}

impl Outcome {
    /// The error class that reports count it under; `None` for an accepted answer.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Accepted => None,
            Self::Rejected(_) => Some(ErrorClass::SoftFailure),
            Self::Failed(class) => Some(*class),
        }
    }
}

/// A finished attempt in a job's history.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Index of the rung in the route's listed order; `None` when the target is no longer on the route.
    pub rung: Option<usize>,
    pub outcome: Outcome,
    pub ended_at: Timestamp,
    /// The earliest instant at which the provider wants to be asked again.
    pub retry_at: Option<Timestamp>,
    /// The provider said that asking again does not help (`x-should-retry: false`); its word takes precedence over the
    /// remedy.
    pub is_final: bool,
    /// Whom the failure concerns.
    pub bearing: Bearing,
    /// The refusal asks for a change of the request that has not been tried on this rung yet.
    pub is_mendable: bool,
    /// The provider's words on the failure, without keys; they may quote the prompt.
    pub words: Option<Box<str>>,
    /// The rejected answer, where the same rung is worth asking once more with its fault named.
    pub rejected: Option<Arc<Rejected>>,
    /// The call was a re-ask: it named the fault of an answer before it.
    pub is_reask: bool,
    /// The answer that its output cap cut off, where the same rung is worth asking once more with a larger one.
    pub cut: Option<CutAnswer>,
    /// The call had a larger output cap, because an answer before it was cut off.
    pub is_raised: bool,
    /// Its answer kept every rule, and its rung was not sure enough of it.
    pub unsure: Option<Unsure>,
}

impl Attempt {
    /// An attempt of which only the outcome is known.
    #[must_use]
    pub const fn new(rung: Option<usize>, outcome: Outcome, ended_at: Timestamp) -> Self {
        Self {
            rung,
            outcome,
            ended_at,
            retry_at: None,
            is_final: false,
            bearing: Bearing::AsScoped,
            is_mendable: false,
            words: None,
            rejected: None,
            is_reask: false,
            cut: None,
            is_raised: false,
            unsure: None,
        }
    }

    /// The remedy of its class, unless the provider's words say more. `None` when the answer was accepted.
    #[must_use]
    pub const fn remedy(&self) -> Option<Remedy> {
        let Some(remedy) = self.outcome.remedy() else { return None };
        Some(match (remedy, self.bearing) {
            _ if self.is_mendable => Remedy::Mend,
            _ if self.rejected.is_some() || self.cut.is_some() => Remedy::Reask,
            // A refusal of the changed request says nothing about the request as it was inserted.
            _ if self.is_refused_with(remedy) => Remedy::RetrySame { tries: 0 },
            (_, Bearing::EveryTarget) => Remedy::End,
            // Key and target stay in service until a second request gets the same refusal, so there is no gate to wait
            // for.
            (Remedy::WaitForGate(_), Bearing::InDoubt) if self.blames_the_key() || self.blames_the_model() => {
                Remedy::RetrySame { tries: 0 }
            }
            (remedy, Bearing::AsScoped | Bearing::InDoubt) => remedy,
        })
    }

    /// Whether the request was changed because of an answer before it, and the provider takes no such request.
    #[must_use]
    pub const fn is_refused_change(&self) -> bool {
        match self.outcome.remedy() {
            Some(remedy) => self.is_refused_with(remedy),
            None => false,
        }
    }

    const fn is_refused_with(&self, remedy: Remedy) -> bool {
        let is_refused = matches!(self.outcome, Outcome::Failed(_))
            && (matches!(remedy, Remedy::NextRung | Remedy::LargerWindow | Remedy::End)
                || matches!(self.bearing, Bearing::EveryTarget));
        (self.is_reask || self.is_raised) && is_refused
    }

    /// Whether it was turned away without being looked at, for reasons that lie in the moment: as if it had not been
    /// made.
    #[must_use]
    pub fn was_turned_away(&self) -> bool {
        let facts = self.outcome.class().map(ErrorClass::facts);
        self.is_mendable || facts.is_some_and(|facts| facts.fate == Fate::TurnedAway && !facts.uses_up_an_attempt)
    }

    /// Whether it failed in a way that counts against its key.
    #[must_use]
    pub const fn blames_the_key(&self) -> bool {
        match self.outcome {
            Outcome::Failed(class) => class.facts().key.is_some(),
            Outcome::Accepted | Outcome::Rejected(_) => false,
        }
    }

    /// Whether it failed as if there were no such model for this key.
    #[must_use]
    pub const fn blames_the_model(&self) -> bool {
        match self.outcome {
            Outcome::Failed(class) => matches!(class.facts().effect, Effect::NoModel),
            Outcome::Accepted | Outcome::Rejected(_) => false,
        }
    }

    /// Whether it counts towards the job's bound on attempts.
    #[must_use]
    pub fn uses_up_an_attempt(&self) -> bool {
        !self.is_mendable && self.outcome.class().is_some_and(|class| class.facts().uses_up_an_attempt)
    }
}
