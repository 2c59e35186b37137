//! What a job waits for, in a few words, such as `openai/gpt-4o-mini: auth (nowhere else to go)`. A worker writes them
//! into the job's row, and each face reads them.

use super::Timestamp;
use super::decide::{Skip, Worth};
use super::error_class::ErrorClass;
use super::shut::Reason;

/// A job rests after its own failure, and the target is then tried again.
const RETRY: &str = "retry";

/// A job waits for a target as long as its patience lasts, although there is another rung.
pub const WITHIN_PATIENCE: &str = "within patience";

/// What a job waits for that a budget has no room for: these words and the budget's name.
pub const BUDGET: &str = "budget ";

/// The words for a job that waits for a budget.
#[must_use]
pub fn budget(name: &str) -> String {
    format!("{BUDGET}{name}")
}

/// What a job that rests waits for, read from the words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited<'a> {
    pub target: &'a str,
    pub what: What,
    /// Why the job does not go elsewhere; where it only rests, how its last call failed; may be empty.
    pub because: &'a str,
}

/// The event that must come before a target may be called for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The target opens for all jobs.
    Opens(Reason),
    /// The rest of this job after its own failure ends.
    Retry,
}

impl What {
    /// The code in the words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opens(reason) => reason.as_str(),
            Self::Retry => RETRY,
        }
    }

    fn parse(code: &str) -> Option<Self> {
        if code == RETRY { Some(Self::Retry) } else { Reason::parse(code).map(Self::Opens) }
    }
}

impl<'a> Awaited<'a> {
    /// Reads the words; `None`: they say something else, or another version wrote them.
    #[must_use]
    pub fn read(words: &'a str) -> Option<Self> {
        // A model may have a colon in its name, a code does not.
        let (head, because) = match words.strip_suffix(')').and_then(|words| words.rsplit_once(" (")) {
            Some((head, because)) => (head, because),
            None => (words, ""),
        };
        let (target, code) = head.rsplit_once(": ")?;
        if let Some(what) = What::parse(code) {
            return Some(Self { target, what, because });
        }
        // A rung that the job failed on and comes back to: it is tried again, too.
        let has_failed = because.is_empty() && code.parse::<ErrorClass>().is_ok();
        has_failed.then_some(Self { target, what: What::Retry, because: code })
    }
}

/// The reason why a job rests: the target, why it cannot be called, and why the job does not go elsewhere.
///
/// Status counts jobs by these words, so there are few variants of them and they hold no instants. `failed`: how the
/// job's last call to the target failed, if it did.
#[must_use]
pub fn in_words(target: &str, why: &Skip, is_only: bool, failed: Option<ErrorClass>) -> String {
    match why {
        Skip::Shut { shut, worth } => {
            let because = match worth {
                // The only rung of its route: patience and `fallback_on` have nothing to choose from.
                // But for the hours: then the job waits for a price and not for a rung.
                _ if is_only && shut.reason != Reason::PeakHours => "nowhere else to go",
                Worth::Patience { until: Timestamp::MAX } => "patience without end",
                Worth::Patience { .. } => WITHIN_PATIENCE,
                Worth::NoFallback => "no fallback from that",
                // Not worth waiting for, but no other rung is available either.
                Worth::NoPatience | Worth::PatienceOver { .. } | Worth::DeadlineNear { .. } | Worth::Pointless => {
                    "nowhere else to go"
                }
            };
            format!("{target}: {} ({because})", What::Opens(shut.reason).as_str())
        }
        Skip::BackingOff { .. } | Skip::TooLate { .. } => {
            let class = failed.map_or_else(String::new, |class| format!(" ({class})"));
            format!("{target}: {}{class}", What::Retry.as_str())
        }
        Skip::Failed(class) => format!("{target}: {class}"),
        // While a call is under way, the job does not rest; nor does it because a rung answers badly.
        Skip::Weak(_) | Skip::Ineligible(_) | Skip::UnderWay { .. } => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::shut::Shut;

    const UNTIL: Timestamp = Timestamp(1_800_000_000_000);
    const ENDED: Timestamp = Timestamp(1_799_999_940_000);

    fn shut(worth: Worth) -> Skip {
        Skip::Shut { shut: Shut { reason: Reason::RateLimit, since: ENDED, until: UNTIL }, worth }
    }

    #[test]
    fn a_job_that_rests_says_why_it_does_not_go_elsewhere_in_few_words() {
        let words = |worth| in_words("p/m", &shut(worth), false, None);
        assert_eq!(words(Worth::Patience { until: UNTIL }), "p/m: rate_limit (within patience)");
        assert_eq!(words(Worth::Patience { until: Timestamp::MAX }), "p/m: rate_limit (patience without end)");
        assert_eq!(words(Worth::NoFallback), "p/m: rate_limit (no fallback from that)");
        for worth in
            [Worth::NoPatience, Worth::Pointless, Worth::PatienceOver { at: ENDED }, Worth::DeadlineNear { at: ENDED }]
        {
            assert_eq!(words(worth), "p/m: rate_limit (nowhere else to go)");
        }
        for worth in [Worth::Patience { until: UNTIL }, Worth::NoFallback, Worth::NoPatience] {
            let alone = in_words("p/m", &shut(worth), true, None);
            assert_eq!(alone, "p/m: rate_limit (nowhere else to go)");
        }
    }
    #[test]
    fn what_is_written_is_read() {
        let rests = Skip::BackingOff { until: UNTIL };
        let opens = |reason| Skip::Shut { shut: Shut { reason, since: ENDED, until: UNTIL }, worth: Worth::NoFallback };
        let skips = Reason::ALL.iter().map(|&reason| (opens(reason), What::Opens(reason), "no fallback from that"));
        let (early, failed) = (rests.clone(), Some(ErrorClass::Unreachable));
        let retries = [(early, What::Retry, ""), (rests, What::Retry, "unreachable")];
        for (skip, what, because) in skips.chain(retries) {
            let failed = failed.filter(|_| because == "unreachable");
            let written = in_words("ollama/qwen3:8b (q4)", &skip, false, failed);
            assert_eq!(Awaited::read(&written), Some(Awaited { target: "ollama/qwen3:8b (q4)", what, because }));
        }
        let failed = in_words("p/m", &Skip::Failed(ErrorClass::ServerError), false, None);
        let expected = Awaited { target: "p/m", what: What::Retry, because: "server_error" };
        assert_eq!(Awaited::read(&failed), Some(expected));
        for other in ["scheduled", "paused", "batch paused", "a/m: of tomorrow (because)", "a/m", ""] {
            assert_eq!(Awaited::read(other), None, "{other}");
        }
    }
}
