//! Whether a refusal that may concern only one request is to be believed of the others.
//!
//! Vendors dress the refusal of one request as 402, 403 or 404, which speak of the key or the model. To shut a target for
//! all because of one such answer costs more than to ask once more. So the first one is only noted; it is believed when a
//! different request meets it too and no answer has come in between.

use super::Timestamp;
use std::time::Duration;

/// What tells requests apart: two jobs with the same request count as one.
pub type RequestHash = u64;

/// The request of one call, and when the call began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which request.
    pub request: RequestHash,
    /// When.
    pub began: Timestamp,
}

/// How long a target stays shut when it is believed for the first time. Each further time doubles it.
const FIRST_REST: Duration = Duration::from_secs(30);

/// What a target or a key has been refusing since its last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// The request whose refusal is noted.
    first: Option<RequestHash>,
    /// When the call began whose refusal is noted.
    noted: Option<Timestamp>,
    /// How often it has been believed since the last answer.
    believed: u32,
}

impl Doubt {
    /// A request was refused in words that may concern it alone. Returns whether that is believed of all requests now.
    ///
    /// `began` is when the refused call began.
    pub fn refused(&mut self, request: RequestHash, began: Timestamp) -> bool {
        if self.first.is_none_or(|first| first == request) {
            (self.first, self.noted) = (Some(request), Some(self.noted.map_or(began, |noted| noted.min(began))));
            return false;
        }
        self.believed = self.believed.saturating_add(1);
        true
    }

    /// An answer came to a call that began then. It clears the doubt, unless the call is older than what was refused: what it
    /// met may have ended since.
    pub fn answered(&mut self, began: Timestamp) {
        if self.noted.is_none_or(|noted| began >= noted) {
            *self = Self::default();
        }
    }

    /// How long a target stays shut that is believed to refuse everything: longer each time, and at most `recheck`.
    #[must_use]
    pub fn rest(&self, recheck: Duration) -> Duration {
        FIRST_REST.saturating_mul(2_u32.saturating_pow(self.believed.saturating_sub(1))).min(recheck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_request_is_never_enough_however_often_it_is_refused() {
        let mut doubt = Doubt::default();
        for _ in 0..30 {
            assert!(!doubt.refused(1, NOW));
        }
        assert!(doubt.refused(2, NOW), "a different one");
        assert!(doubt.refused(3, NOW), "and each after it");
    }

    #[test]
    fn an_answer_in_between_clears_it() {
        let mut doubt = Doubt::default();
        assert!(!doubt.refused(1, NOW));
        doubt.answered(NOW + SECOND);
        assert!(!doubt.refused(2, NOW + SECOND * 2));
        doubt.answered(NOW + SECOND);
        assert!(doubt.refused(3, NOW + SECOND * 3), "the answer was to an older call");
    }

    #[test]
    fn it_is_believed_for_longer_each_time() {
        let (mut doubt, recheck) = (Doubt::default(), SECOND * 100);
        doubt.refused(0, NOW);
        let rests: Vec<u64> = (1..5)
            .map(|request| {
                assert!(doubt.refused(request, NOW));
                doubt.rest(recheck).as_secs()
            })
            .collect();
        assert_eq!(rests, [30, 60, 100, 100]);
    }

    proptest! {
        #[test]
        fn a_refusal_is_believed_only_after_a_different_one(requests in prop::collection::vec(0..3_u64, 1..20)) {
            let mut doubt = Doubt::default();
            for &request in &requests {
                prop_assert_eq!(doubt.refused(request, NOW), request != requests[0]);
            }
        }
    }
}
