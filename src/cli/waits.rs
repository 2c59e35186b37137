//! What a job waits for, in words. The database says it in few, fixed ones (`sluice.jobs.waits_for`), by which jobs can
//! be counted.

use crate::domain::shut::Reason;
use std::borrow::Cow;

/// It came in while triggers were off.
pub(super) const NO_QUEUE: &str = "no queue";

/// As the end of a sentence about a job.
pub(super) fn in_words(reason: &str) -> Cow<'_, str> {
    match reason {
        NO_QUEUE => {
            "in no queue, so nobody works on it: it came in while triggers were off, and `sluice doctor --repair` \
                     puts it into the queue"
                .into()
        }
        "batch paused" => "its batch is paused".into(),
        "route paused" => "its route is paused".into(),
        "project paused" => "its project is paused".into(),
        "no worker" => "no worker is running".into(),
        "no worker knows the route" => "no worker that is running has its route".into(),
        other => of_target(other).map_or(Cow::Borrowed(other), Cow::Owned),
    }
}

/// Whether it passes by itself, and soon: work goes on, if slowly.
pub(super) fn is_a_limit(reason: &str) -> bool {
    parts(reason).and_then(|(_, code, _)| Reason::parse(code)).is_some_and(Reason::is_a_limit)
}

/// `openai/gpt-4o-mini: auth (nowhere else to go)`.
fn of_target(reason: &str) -> Option<String> {
    let (target, code, because) = parts(reason)?;
    let why = match Reason::parse(code) {
        Some(Reason::RateLimit) => "its limit is used up",
        Some(Reason::Concurrency) => "all its places are taken",
        Some(Reason::Breaker) => "its breaker is open after failures",
        Some(Reason::QuotaExhausted) => "its key is out of money",
        Some(Reason::Auth) => "its key is rejected",
        Some(Reason::Model) => "the model is unknown, or not allowed to the key",
        Some(Reason::Paused) => "its provider is paused",
        None if code == "retry" => "it failed, and is tried again",
        None => return None,
    };
    let because = if because.is_empty() { String::new() } else { format!(" ({because})") };
    Some(format!("{target}: {why}{because}"))
}

/// Target, code, and why no other target is taken.
fn parts(reason: &str) -> Option<(&str, &str, &str)> {
    // A model may have a colon in its name, a code has none.
    let (head, because) = match reason.strip_suffix(')').and_then(|reason| reason.rsplit_once(" (")) {
        Some((head, because)) => (head, because),
        None => (reason, ""),
    };
    let (target, code) = head.rsplit_once(": ")?;
    Some((target, code, because))
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
