//! Whether a refusal that may concern only one request is believed of all requests.
//!
//! Vendors dress the refusal of one request as 402, 403 or 404, which speak of the key or the model. Shutting a target
//! for all because of one such answer costs more than asking once more. So the first refusal is only noted. It is
//! believed when a different request meets it too, or the same request meets it for the third time, and no answer has
//! come in between.

use super::JobId;
use std::time::Duration;

/// Tells requests apart: two jobs with the same request count as one.
pub type RequestHash = u64;

/// Of what a call was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The job.
    pub job: JobId,
    /// Its request.
    pub request: RequestHash,
}

#[cfg(test)]
impl Asker {
    /// A job that has not asked before, with this request.
    pub fn another(request: RequestHash) -> Self {
        use std::sync::atomic::{AtomicI64, Ordering};
        static NEXT: AtomicI64 = AtomicI64::new(1);
        Self { job: JobId(NEXT.fetch_add(1, Ordering::Relaxed)), request }
    }
}

/// How long a target stays shut when its refusal is believed for the first time. Each further time doubles it.
const FIRST_REST: Duration = Duration::from_secs(30);

/// After this many refusals in a row, without any answer in between, one request is believed for all: it may be the
/// only one.
const ALONE: u32 = 3;

/// The refusals of a target or a key since its last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// The request whose refusal is noted.
    first: Option<RequestHash>,
    /// How often that request was refused.
    times: u32,
    /// How often a refusal has been believed since the last answer.
    believed: u32,
    /// Whether a different request was refused, too.
    is_confirmed: bool,
}

impl Doubt {
    /// Notes that a request was refused in words that may concern it alone. Returns whether the refusal is now believed
    /// of all requests.
    pub fn refused(&mut self, request: RequestHash) -> bool {
        if self.first.is_none_or(|first| first == request) {
            self.first = Some(request);
            self.times = self.times.saturating_add(1);
            if self.times < ALONE {
                return false;
            }
        } else {
            self.is_confirmed = true;
        }
        self.believed = self.believed.saturating_add(1);
        true
    }

    /// Notes that an answer came: earlier refusals concerned only those requests, or are over.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// Whether two different requests were refused since the last answer.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// How long a target stays shut once it is believed to refuse everything: longer each time, and at most `recheck`.
    #[must_use]
    pub fn rest(&self, recheck: Duration) -> Duration {
        FIRST_REST.saturating_mul(2_u32.saturating_pow(self.believed.saturating_sub(1))).min(recheck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_different_request_confirms_it() {
        let mut doubt = Doubt::default();
        assert!(!doubt.refused(1));
        assert!(!doubt.refused(1));
        assert!(!doubt.is_confirmed());
        assert!(doubt.refused(2) && doubt.is_confirmed(), "a different one");
        assert!(doubt.refused(3), "and each after it");
    }

    #[test]
    fn one_request_alone_confirms_it_at_the_third_time() {
        let mut doubt = Doubt::default();
        assert_eq!([1, 1, 1].map(|request| doubt.refused(request)), [false, false, true]);
        assert!(!doubt.is_confirmed(), "it is the word of one");
    }

    #[test]
    fn an_answer_in_between_clears_it() {
        let mut doubt = Doubt::default();
        for request in 0..30 {
            assert!(!doubt.refused(request));
            doubt.answered();
        }
        for _ in 0..30 {
            assert!(!doubt.refused(7));
            doubt.answered();
        }
    }

    #[test]
    fn it_is_believed_for_longer_each_time() {
        let (mut doubt, recheck) = (Doubt::default(), SECOND * 100);
        doubt.refused(0);
        let rests: Vec<u64> = (1..5)
            .map(|request| {
                assert!(doubt.refused(request));
                doubt.rest(recheck).as_secs()
            })
            .collect();
        assert_eq!(rests, [30, 60, 100, 100]);
    }

    proptest! {
        #[test]
        fn a_refusal_is_believed_after_a_different_one_or_the_third_alone(
            requests in prop::collection::vec(0..3_u64, 1..20),
        ) {
            let mut doubt = Doubt::default();
            let mut alone = 0;
            for &request in &requests {
                alone += u32::from(request == requests[0]);
                prop_assert_eq!(doubt.refused(request), request != requests[0] || alone >= ALONE);
            }
        }
    }
}
