//! What a word means to the person who reads it: well, bad, a warning, or over. A face may show that in a colour beside
//! the word, and never instead of it.

use super::table::Cell;
use crate::domain::NanoUsd;

/// A meaning that a colour can underline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tone {
    /// It is as it should be.
    Good,
    /// It has failed, or calls for a person.
    Bad,
    /// It needs a look.
    Warning,
    /// It is over, and nothing comes of it any more.
    Over,
}

impl Tone {
    /// The meaning of a cell under the name of its column; `None`: a plain value.
    #[must_use]
    pub fn of(column: &str, cell: &Cell) -> Option<Self> {
        match (column, cell) {
            ("state" | "severity" | "breaker" | "verdict", Cell::Text(words)) => Self::of_words(words),
            ("error_class" | "class" | "error" | "shut", Cell::Text(words)) if !words.is_empty() => Some(Self::Bad),
            ("failed" | "failures" | "jobs_failed" | "unpriced", Cell::Count(1..)) => Some(Self::Bad),
            ("too_large", Cell::Count(1..)) | ("paused", Cell::Flag(true)) => Some(Self::Warning),
            ("waste" | "uncertain" | "uncertain_cost", Cell::Money(money)) if *money > NanoUsd::ZERO => {
                Some(Self::Warning)
            }
            _ => None,
        }
    }

    /// The meaning of a state, as the words for it begin.
    #[must_use]
    pub fn of_words(words: &str) -> Option<Self> {
        const MEANINGS: [(Tone, &[&str]); 4] = [
            (Tone::Good, &["succeeded", "accepted", "answered", "ok", "live", "closed", "in service"]),
            (Tone::Bad, &["failed", "bad", "died", "dead", "open", "rejected", "out of", "out", "error", "refused"]),
            (Tone::Warning, &["warning", "paused", "stopping", "half-open", "half_open", "waits", "unseen"]),
            (Tone::Over, &["cancelled", "gone", "left", "absent"]),
        ];
        let is_begin = |begin: &str| {
            let rest = words.strip_prefix(begin);
            rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
        };
        MEANINGS.iter().find(|(_, begins)| begins.iter().any(|begin| is_begin(begin))).map(|(tone, _)| *tone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_means_what_its_word_says() {
        for (words, tone) in [
            ("succeeded", Some(Tone::Good)),
            ("failed", Some(Tone::Bad)),
            ("open (2), closed (1)", Some(Tone::Bad)),
            ("closed", Some(Tone::Good)),
            ("cancelled", Some(Tone::Over)),
            ("paused", Some(Tone::Warning)),
            ("openness", None),
            ("queued", None),
            ("", None),
        ] {
            assert_eq!(Tone::of_words(words), tone, "{words}");
        }
        assert_eq!(Tone::of_words("running"), None, "what is still under way is plain");
    }

    #[test]
    fn numbers_have_a_meaning_where_there_are_any() {
        for (column, cell, tone) in [
            ("failed", Cell::Count(0), None),
            ("failed", Cell::Count(3), Some(Tone::Bad)),
            ("succeeded", Cell::Count(3), None),
            ("paused", Cell::Flag(true), Some(Tone::Warning)),
            ("paused", Cell::Flag(false), None),
            ("waste", Cell::Money(NanoUsd(1)), Some(Tone::Warning)),
            ("waste", Cell::Money(NanoUsd::ZERO), None),
            ("cost", Cell::Money(NanoUsd(1)), None),
            ("batch", Cell::Text("failed".to_owned()), None),
        ] {
            assert_eq!(Tone::of(column, &cell), tone, "{column} {cell:?}");
        }
    }
}
