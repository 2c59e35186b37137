//! What a failure calls for: one table for classes, one for kinds of unusable answers.

use super::decide::Closed;
use super::{ErrorClass, Outcome, SoftFailure};

/// What is to be done about a failed attempt.
///
/// Whether a job may leave a rung at all is the route's choice (`fallback_on`); this says when the question comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The bucket or the key is closed, not the job at fault: wait until it opens. Never uses up an attempt.
    WaitForGate(Closed),
    /// Try the same rung this many times more, with backoff; then move on.
    RetrySame {
        /// Further tries of the same rung.
        tries: u32,
    },
    /// This rung will never take this request: move on and do not come back.
    NextRung,
    /// As [`Remedy::NextRung`], and neither will any rung whose window is known and no larger.
    LargerWindow,
    /// Ask the same rung again at once, with the request changed as the refusal asks. Uses up no attempt.
    Mend,
    /// No rung will take this request: the job ends, whatever the route says.
    End,
}

impl ErrorClass {
    /// What this class of failure calls for.
    ///
    /// | class | remedy |
    /// |---|---|
    /// | `rate_limit`, `rate_limit_daily`, `ramp_limit`, `quota_exhausted`, `auth` | wait for the gate; no attempt is used up |
    /// | `overloaded`, `server_error`, `network`, `conflict` | two more tries, then move on |
    /// | `timeout`, `cancelled`, `output_invalid`, `abandoned` | one more try, then move on |
    /// | `unreachable` | one more try, then move on; no attempt is used up |
    /// | `soft_failure` | by kind, see [`SoftFailure::remedy`]; move on where the kind is not known |
    /// | `invalid_request`, `refused`, `permission`, `not_found`, `content_policy`, `never_fits`, `payload_too_large` | never this rung again |
    /// | `context_length` | never this rung nor one with a window that is no larger |
    /// | `deadline` | the job ends |
    ///
    /// The words of a single failure may say more: see [`Attempt::remedy`](super::Attempt::remedy).
    #[must_use]
    pub const fn remedy(self) -> Remedy {
        match self {
            Self::RateLimit | Self::RateLimitDaily | Self::RampLimit => Remedy::WaitForGate(Closed::RateLimit),
            Self::QuotaExhausted => Remedy::WaitForGate(Closed::QuotaExhausted),
            Self::Auth => Remedy::WaitForGate(Closed::Auth),
            Self::Overloaded | Self::ServerError | Self::Network | Self::Conflict => Remedy::RetrySame { tries: 2 },
            // A timeout may have been billed in full, so a third one is not risked.
            Self::Timeout | Self::Cancelled | Self::OutputInvalid | Self::Abandoned | Self::Unreachable => {
                Remedy::RetrySame { tries: 1 }
            }
            Self::SoftFailure => Remedy::RetrySame { tries: 0 },
            // The words of vendors are never complete: what one target finds wrong, the next may take.
            Self::InvalidRequest
            | Self::Refused
            | Self::Permission
            | Self::NotFound
            | Self::ContentPolicy
            | Self::NeverFits
            | Self::PayloadTooLarge => Remedy::NextRung,
            Self::ContextLength => Remedy::LargerWindow,
            Self::Deadline => Remedy::End,
        }
    }

    /// Whether an attempt that ended so counts towards the job's bound on attempts.
    ///
    /// Waiting is not failing, so what waits for a gate does not. An abandoned attempt says something about a worker,
    /// not about the job: the shell counts it as a crash. And a call that never left says nothing about the job either:
    /// a network that is down for an hour must not fail everything that is queued.
    #[must_use]
    pub const fn uses_up_an_attempt(self) -> bool {
        match self {
            Self::RateLimit
            | Self::RateLimitDaily
            | Self::RampLimit
            | Self::QuotaExhausted
            | Self::Auth
            | Self::Unreachable
            | Self::Abandoned => false,
            Self::Overloaded
            | Self::ServerError
            | Self::Timeout
            | Self::Network
            | Self::Permission
            | Self::NotFound
            | Self::InvalidRequest
            | Self::Refused
            | Self::ContextLength
            | Self::ContentPolicy
            | Self::PayloadTooLarge
            | Self::NeverFits
            | Self::OutputInvalid
            | Self::Conflict
            | Self::Cancelled
            | Self::SoftFailure
            | Self::Deadline => true,
        }
    }
}

impl ErrorClass {
    /// Whether it says that a target cannot take a request at all, so that a job goes on along its route whatever
    /// `fallback_on` lists, as it does where a target is known beforehand to be unable. `fallback = "never"` holds.
    #[must_use]
    pub const fn excludes_the_target(self) -> bool {
        match self {
            Self::InvalidRequest
            | Self::Refused
            | Self::Permission
            | Self::NotFound
            | Self::ContextLength
            | Self::PayloadTooLarge
            | Self::NeverFits => true,
            // By the policy of one vendor. Whether another is to be asked is for the route to say.
            Self::ContentPolicy
            | Self::RateLimit
            | Self::RateLimitDaily
            | Self::RampLimit
            | Self::QuotaExhausted
            | Self::Auth
            | Self::Unreachable
            | Self::Abandoned
            | Self::Overloaded
            | Self::ServerError
            | Self::Timeout
            | Self::Network
            | Self::OutputInvalid
            | Self::Conflict
            | Self::Cancelled
            | Self::SoftFailure
            | Self::Deadline => false,
        }
    }
}

impl SoftFailure {
    /// What this kind of unusable answer calls for.
    ///
    /// What the same model tends to repeat moves on at once; what chance may mend (the form of the answer) is tried
    /// once more where it is.
    #[must_use]
    pub const fn remedy(self) -> Remedy {
        match self {
            // The cap that cut it is the request's or the model's: it would cut again, at the same price.
            Self::Truncated | Self::ReasoningExhausted => Remedy::NextRung,
            Self::Empty
            | Self::Refusal
            | Self::ContentFiltered
            | Self::Html
            | Self::TooLong
            | Self::TooShort
            | Self::BadFinish => Remedy::RetrySame { tries: 0 },
            Self::NotJson
            | Self::SchemaMismatch
            | Self::MissingPattern
            | Self::ForbiddenPattern
            | Self::BadToolCall => Remedy::RetrySame { tries: 1 },
        }
    }
}

impl Outcome {
    /// What the outcome calls for; `None` when the answer was accepted.
    #[must_use]
    pub const fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Accepted => None,
            Self::Rejected(kind) => Some(kind.remedy()),
            Self::Failed(class) => Some(class.remedy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_gate_never_uses_up_an_attempt() {
        for class in ErrorClass::ALL {
            if matches!(class.remedy(), Remedy::WaitForGate(_)) {
                assert!(!class.uses_up_an_attempt(), "{class}");
            }
        }
    }

    #[test]
    fn a_rejected_answer_is_retried_on_the_same_rung_at_most_once() {
        for kind in SoftFailure::ALL {
            assert!(matches!(kind.remedy(), Remedy::RetrySame { tries: 0 | 1 } | Remedy::NextRung), "{kind}");
        }
    }
}
