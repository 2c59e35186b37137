//! What a failed attempt calls for.

use super::Outcome;
use super::shut::Reason;

/// What is to be done about a failed attempt.
///
/// Whether a job may leave a rung at all is the route's choice (`fallback_on`); this says when the question comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The bucket or the key is shut, not the job at fault: wait until it opens. Never uses up an attempt.
    WaitForGate(Reason),
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

impl Outcome {
    /// What the outcome calls for; `None` when the answer was accepted.
    #[must_use]
    pub const fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Accepted => None,
            Self::Rejected(kind) => Some(kind.facts().remedy),
            Self::Failed(class) => Some(class.facts().remedy),
        }
    }
}
