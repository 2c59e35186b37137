//! The reason why a job waits. The database has a few fixed words for it (`sluice.jobs.waits_for`), by which jobs can
//! be counted; here they become sentences.

use crate::domain::awaited::{Awaited, What};
use crate::domain::pause::FixedWait;
use crate::domain::shut::Reason;
use chrono::{DateTime, Utc};
use std::borrow::Cow;

/// The reason as the end of a sentence about a job.
#[must_use]
pub fn in_words(reason: &str) -> Cow<'_, str> {
    let fixed = match FixedWait::read(reason) {
        Some(FixedWait::NoQueue) => {
            "in no queue, so no worker finds it: it came in while triggers were off, and `sluice doctor --repair` puts \
             it into the queue"
        }
        Some(FixedWait::BatchPaused) => "its batch is paused",
        Some(FixedWait::RoutePaused) => "its route is paused",
        Some(FixedWait::ProjectPaused) => "its project is paused",
        Some(FixedWait::NoWorker) => "no worker is running",
        Some(FixedWait::RouteUnknown) => "no worker that is running has its route",
        Some(FixedWait::Paused | FixedWait::Scheduled) => reason,
        None => return of_target(reason).map_or(Cow::Borrowed(reason), Cow::Owned),
    };
    fixed.into()
}

/// The reason as the end of a sentence, with the reason of the pause where it is one.
#[must_use]
pub fn in_words_with<'a>(reason: &'a str, pause_reason: Option<&str>) -> Cow<'a, str> {
    let words = in_words(reason);
    match pause_reason {
        Some(why) if FixedWait::read(reason).and_then(FixedWait::paused).is_some() => format!("{words} ({why})").into(),
        _ => words,
    }
}

/// Whether the wait soon ends by itself: work goes on, if slowly.
#[must_use]
pub fn is_a_limit(reason: &str) -> bool {
    Awaited::read(reason).is_some_and(|waits| matches!(waits.what, What::Opens(reason) if reason.is_a_limit()))
}

/// When a job that waits for this reason wakes by itself. The instant in the row of a paused job means nothing.
#[must_use]
pub fn wakes_at(reason: &str, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (FixedWait::read(reason) != Some(FixedWait::Paused)).then_some(at)
}

/// Why a target cannot be called.
pub(super) struct ShutView {
    /// The reason, in words about a job that waits for the target.
    is: &'static str,
    /// The reason, in words about a call that was made elsewhere.
    pub(super) was: &'static str,
}

/// The words for each reason.
pub(super) const fn shut(reason: Reason) -> ShutView {
    match reason {
        Reason::RateLimit => ShutView { is: "its limit is used up", was: "its limit was used up" },
        Reason::Concurrency => ShutView { is: "all its places are taken", was: "all its places were taken" },
        Reason::NoCapacity => ShutView { is: "its tier has no capacity", was: "its tier had no capacity" },
        Reason::PeakHours => ShutView { is: "it is in its peak hours", was: "it was in its peak hours" },
        Reason::Breaker => ShutView { is: "its breaker is open after failures", was: "its breaker was open" },
        Reason::QuotaExhausted => ShutView { is: "its key is out of money", was: "its key was out of money" },
        Reason::Auth => ShutView { is: "its key is rejected", was: "its key had been rejected" },
        Reason::Model => ShutView {
            is: "the model is unknown, or not allowed to the key",
            was: "the model was unknown or not allowed to the key",
        },
        Reason::Paused => ShutView { is: "its provider is paused", was: "its provider was paused" },
    }
}

fn of_target(reason: &str) -> Option<String> {
    let Awaited { target, what, because } = Awaited::read(reason)?;
    let why = match what {
        What::Retry => "it failed, and is tried again",
        What::Opens(reason) => shut(reason).is,
    };
    let because = if because.is_empty() { String::new() } else { format!(" ({because})") };
    Some(format!("{target}: {why}{because}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_as_a_sentence_and_an_unknown_one_is_shown_as_it_is() {
        for (reason, words, limit) in [
            ("batch paused", "its batch is paused", false),
            ("no worker", "no worker is running", false),
            (
                "openai/gpt-4o-mini: auth (nowhere else to go)",
                "openai/gpt-4o-mini: its key is rejected (nowhere else to go)",
                false,
            ),
            (
                "ollama/qwen3:8b: rate_limit (within patience)",
                "ollama/qwen3:8b: its limit is used up (within patience)",
                true,
            ),
            ("a/m: paused (nowhere else to go)", "a/m: its provider is paused (nowhere else to go)", false),
            ("a/m: retry", "a/m: it failed, and is tried again", false),
            ("a/m: of tomorrow (because)", "a/m: of tomorrow (because)", false),
            ("scheduled", "scheduled", false),
        ] {
            assert_eq!((in_words(reason).as_ref(), is_a_limit(reason)), (words, limit));
        }
    }
}
