//! Waits that are too long to be believed to their end.
//!
//! A provider's word on how long to stay away is honoured to the second, up to a day. A longer wait is a quota of a
//! week, a slip (milliseconds for seconds, an instant for a duration), or bad faith; and an operator may pay in the
//! meantime. So one call asks again every now and then, as it does with a key that was refused.

use std::time::Duration;

/// The longest wait that is honoured to its end without asking again.
pub const BELIEVED: Duration = Duration::from_hours(24);

/// How often a call asks again where the configuration does not say: the default of `recheck`.
pub const RECHECK: Duration = Duration::from_mins(10);

/// Whether the wait is too long to be believed to its end.
#[must_use]
pub fn is_long(wait: Duration) -> bool {
    wait > BELIEVED
}

/// How long no process asks again.
#[must_use]
pub fn rest(wait: Duration, recheck: Duration) -> Duration {
    if is_long(wait) { recheck.min(BELIEVED) } else { wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_honoured_and_more_is_asked_about_again() {
        let recheck = Duration::from_mins(10);
        for (wait, expected) in [
            (Duration::ZERO, Duration::ZERO),
            (Duration::from_millis(200), Duration::from_millis(200)),
            (Duration::from_hours(10), Duration::from_hours(10)),
            (BELIEVED, BELIEVED),
            (BELIEVED + Duration::from_millis(1), recheck),
            (Duration::from_secs(883_000_000), recheck),
            (Duration::MAX, recheck),
        ] {
            assert_eq!(rest(wait, recheck), expected, "{wait:?}");
        }
        assert_eq!(rest(Duration::MAX, Duration::MAX), BELIEVED, "a recheck beyond a day is a day");
    }
}
