//! What a failed attempt calls for.

use super::Outcome;
use super::shut::Reason;

/// The way to deal with a failed attempt.
///
/// Whether a job may leave a rung at all is the route's choice (`fallback_on`); the remedy says when the question comes
/// up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Wait until the bucket or the key opens: it is shut, and the job is not at fault. Never uses up an attempt.
    WaitForGate(Reason),
    /// Try the same rung this many times more, with backoff; then move on.
    RetrySame {
        /// Further tries of the same rung.
        tries: u32,
    },
    /// This rung will never take this request: move on and do not come back.
    NextRung,
    /// As [`Remedy::NextRung`]; nor will any rung take it whose window is known and no larger.
    LargerWindow,
    /// Ask the same rung again at once, with the request changed as the refusal asks. Uses up no attempt.
    Mend,
    /// Ask the same rung once more at once, with the rejected answer and its fault named, or with a larger output cap.
    /// Uses up an attempt, as the answer was paid for.
    Reask,
    /// No rung will take this request: the job ends, regardless of what the route says.
    End,
}

impl Outcome {
    /// The remedy of an outcome; `None` when the answer was accepted.
    #[must_use]
    pub const fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Accepted => None,
            Self::Rejected(kind) => Some(kind.facts().remedy),
            Self::Failed(class) => Some(class.facts().remedy),
        }
    }
}
