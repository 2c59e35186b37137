//! What follows when a collector did not take spans.

use std::time::Duration;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest wait that a collector is granted.
const LONGEST_ASKED: Duration = Duration::from_mins(5);

/// A message that was sent so often in vain is given up: perhaps only this one cannot be taken.
const MOST_TRIES: u32 = 10;

/// What follows when spans were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resend {
    /// They are sent again after this pause.
    After(Duration),
    /// The collector will never take them.
    Never,
}

/// What follows when spans were not taken that have been sent so many times. `status`: the HTTP status; `None`: no
/// answer came. `asked`: the wait that the collector asks for. Which statuses are sent again is fixed by OTLP.
#[must_use]
pub fn resend(status: Option<u16>, asked: Option<Duration>, tries: u32) -> Resend {
    match status {
        _ if tries >= MOST_TRIES => Resend::Never,
        None | Some(429 | 502 | 503 | 504) => {
            let doubled = FIRST.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1).min(20))).min(LONGEST);
            Resend::After(asked.map_or(doubled, |asked| asked.clamp(doubled, LONGEST_ASKED)))
        }
        Some(_) => Resend::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_sent_again_with_growing_pauses_and_nothing_else_is() {
        let seconds = |seconds| Resend::After(Duration::from_secs(seconds));
        for (status, asked, tries, follows) in [
            (None, None, 1, seconds(1)),
            (None, None, 2, seconds(2)),
            (Some(503), None, 5, seconds(16)),
            (Some(429), None, 9, seconds(30)),
            (Some(429), None, 10, Resend::Never),
            (None, None, 10, Resend::Never),
            (Some(429), Some(70), 1, seconds(70)),
            (Some(502), Some(0), 3, seconds(4)),
            (Some(504), Some(100_000), 1, seconds(300)),
            (Some(500), None, 1, Resend::Never),
            (Some(400), Some(3), 1, Resend::Never),
            (Some(401), None, 1, Resend::Never),
            (Some(307), None, 1, Resend::Never),
        ] {
            assert_eq!(resend(status, asked.map(Duration::from_secs), tries), follows, "{status:?} {asked:?} {tries}");
        }
    }
}
