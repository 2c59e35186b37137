//! Calls that have been under way for long: they were sent, and no answer has come.

use super::Timestamp;
use super::counted::counted;
use super::obstacle::{moment, span};
use std::time::Duration;

/// Calls are told of when they have been under way for so long.
pub const LONG: Duration = Duration::from_mins(1);

/// Calls that were under way for [`LONG`] or longer when it was looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongCalls {
    /// How many there are.
    pub calls: i64,
    /// When the oldest was sent.
    pub oldest: Timestamp,
    /// The target that the oldest was sent to.
    pub target: String,
    /// When it was looked.
    pub as_of: Timestamp,
}

impl LongCalls {
    /// Adds other calls.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let calls = self.calls.saturating_add(other.calls);
        let oldest = if other.oldest < self.oldest { other } else { self };
        Self { calls, ..oldest }
    }

    /// As a sentence without its end: `5 calls have had no answer for 1m or longer: the oldest went to a/m at
    /// 08:00:09 UTC (4m ago)`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let (calls, long) = (counted(self.calls, "call has", "calls have"), span(LONG));
        let what = if self.calls == 1 { "it went" } else { "the oldest went" };
        format!(
            "{calls} had no answer for {long} or longer: {what} to {} at {}",
            self.target,
            moment(self.oldest, self.as_of)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn several_are_told_by_the_oldest() {
        let one = LongCalls { calls: 1, oldest: NOW - LONG * 2, target: "a/m".to_owned(), as_of: NOW };
        assert_eq!(
            one.in_words(),
            "1 call has had no answer for 1m or longer: it went to a/m at 07:58:00 UTC (2m ago)"
        );
        let older = LongCalls { calls: 3, oldest: NOW - LONG * 4, target: "b/m".to_owned(), as_of: NOW };
        let words = "4 calls have had no answer for 1m or longer: the oldest went to b/m at 07:56:00 UTC (4m ago)";
        assert_eq!(one.clone().and(older.clone()).in_words(), words);
        assert_eq!(older.and(one).in_words(), words);
    }
}
