//! The reason why a job waits, in a few words.

use crate::domain::Timestamp;
use crate::domain::decide::{Skip, Worth};

/// The reason why a job rests: the target, why it cannot be called, and why the job does not go elsewhere.
///
/// Status counts jobs by these words, so there are few variants of them and they hold no instants.
pub(super) fn what_is_waited_for(target: &str, why: &Skip, is_only: bool) -> String {
    match why {
        Skip::Shut { shut, worth } => {
            let because = match worth {
                // The only rung of its route: patience and `fallback_on` have nothing to choose from.
                _ if is_only => "nowhere else to go",
                Worth::Patience { until: Timestamp::MAX } => "patience without end",
                Worth::Patience { .. } => "within patience",
                Worth::NoFallback => "no fallback from that",
                // Not worth waiting for, but no other rung is available either.
                Worth::NoPatience | Worth::PatienceOver { .. } | Worth::DeadlineNear { .. } | Worth::Pointless => {
                    "nowhere else to go"
                }
            };
            format!("{target}: {} ({because})", shut.reason.as_str())
        }
        Skip::BackingOff { .. } | Skip::TooLate { .. } => format!("{target}: retry"),
        Skip::Failed(class) => format!("{target}: {class}"),
        Skip::Ineligible(_) => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::shut::{Reason, Shut};

    const UNTIL: Timestamp = Timestamp(1_800_000_000_000);
    const ENDED: Timestamp = Timestamp(1_799_999_940_000);

    fn closed(worth: Worth) -> Skip {
        Skip::Shut { shut: Shut { reason: Reason::RateLimit, since: ENDED, until: UNTIL }, worth }
    }

    #[test]
    fn a_job_that_rests_says_why_it_does_not_go_elsewhere_in_few_words() {
        let words = |worth| what_is_waited_for("p/m", &closed(worth), false);
        assert_eq!(words(Worth::Patience { until: UNTIL }), "p/m: rate_limit (within patience)");
        assert_eq!(words(Worth::Patience { until: Timestamp::MAX }), "p/m: rate_limit (patience without end)");
        assert_eq!(words(Worth::NoFallback), "p/m: rate_limit (no fallback from that)");
        for worth in
            [Worth::NoPatience, Worth::Pointless, Worth::PatienceOver { at: ENDED }, Worth::DeadlineNear { at: ENDED }]
        {
            assert_eq!(words(worth), "p/m: rate_limit (nowhere else to go)");
        }
        for worth in [Worth::Patience { until: UNTIL }, Worth::NoFallback, Worth::NoPatience] {
            let alone = what_is_waited_for("p/m", &closed(worth), true);
            assert_eq!(alone, "p/m: rate_limit (nowhere else to go)");
        }
    }
}
