//! When a message that a receiver did not take is sent again.

use crate::domain::job::spread;
use std::time::Duration;

/// How long a message is tried. An operator reads of a day-old alert elsewhere.
pub const GIVE_UP_AFTER: Duration = Duration::from_hours(24);

/// The pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_mins(15);

/// The outcome of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOutcome {
    /// The HTTP status; `None`: no answer came.
    pub status: Option<u16>,
    /// The wait that the receiver asks for.
    pub retry_after: Option<Duration>,
}

impl SendOutcome {
    /// Whether the receiver has taken the message.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether the receiver says that it will never take a message again.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status == Some(410)
    }

    /// Whether the receiver is at fault, so that its other messages wait too.
    #[must_use]
    pub fn is_of_receiver(&self) -> bool {
        self.status.is_none_or(|status| status >= 500 || status == 429 || status == 408)
    }
}

/// After which pause a message is sent again that has been tried so many times, over this time; `None`: it is given
/// up. `seed` tells messages apart, so that they do not come all at once.
#[must_use]
pub fn next_try(outcome: SendOutcome, tries: u32, tried_for: Duration, seed: u64) -> Option<Duration> {
    if outcome.is_gone() || tried_for >= GIVE_UP_AFTER {
        return None;
    }
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1).min(20))).min(LONGEST);
    let half = doubled / 2;
    let half_ms = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    let pause = half + Duration::from_millis(spread(seed ^ u64::from(tries).rotate_left(40)) % half_ms);
    // The last try comes when the day is over, and a wait beyond it is not believed.
    let left = GIVE_UP_AFTER.saturating_sub(tried_for);
    Some(pause.max(outcome.retry_after.unwrap_or_default()).min(left).max(Duration::from_millis(100)))
}
