//! What a provider allows.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Calls.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
}

impl Unit {
    /// Every unit.
    pub const ALL: &'static [Self] = &[Self::Requests, Self::Tokens, Self::InputTokens, Self::OutputTokens];

    /// The unit with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|unit| unit.as_str() == name)
    }

    /// Its name in configuration, status, metrics and explanations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
        }
    }
}

/// A unit and the time over which it is counted: what tells the limits of one bucket apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dimension {
    /// What is counted.
    pub unit: Unit,
    /// Seconds: 1, 60 or 86,400 where configured; what the provider says where learned. Positive.
    pub seconds: u64,
}

/// Seconds of a day.
pub const DAY: u64 = 86_400;

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.unit.as_str();
        match self.seconds {
            1 => write!(f, "{unit}/s"),
            60 => write!(f, "{unit}/min"),
            DAY => write!(f, "{unit}/day"),
            seconds => write!(f, "{unit}/{seconds}s"),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input tokens",
            Self::OutputTokens => "output tokens",
        })
    }
}

/// So much of a unit in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What is counted.
    pub unit: Unit,
    /// How much; positive.
    pub amount: u64,
    /// In this time: a second, a minute or a day.
    pub per: Duration,
    /// How much may go at once after a rest; positive. The full amount unless configured.
    pub burst: u64,
}

impl Rate {
    /// Which of a bucket's limits it is.
    #[must_use]
    pub fn dimension(&self) -> Dimension {
        Dimension { unit: self.unit, seconds: self.per.as_secs().max(1) }
    }
}

/// The limits of one bucket, which one or more targets share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// All have to allow a call.
    pub rates: Vec<Rate>,
    /// Calls that may run at once.
    pub concurrency: Option<u32>,
}

/// What an answer told of one limit of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which limit.
    pub dimension: Dimension,
    /// The limit itself.
    pub limit: Option<u64>,
    /// What was left of it.
    pub remaining: Option<u64>,
    /// What all corrections together have to come to, so that no more is believed to be left than the provider says;
    /// 0 where there is nothing to correct. A total, because several processes find out the same.
    pub corrected: u64,
}

/// The time over which a limit counts, where the provider tells only when it will be whole again: what is used comes
/// back at `limit` per window. `None` when nothing is used, or when the figures fit no usual window.
#[must_use]
pub fn window(limit: u64, remaining: u64, whole_in: Duration) -> Option<Duration> {
    let used = limit.checked_sub(remaining).filter(|used| *used > 0)?;
    let millis = whole_in.as_millis().checked_mul(u128::from(limit))? / u128::from(used);
    [1, 60, 3_600, DAY]
        .into_iter()
        .map(Duration::from_secs)
        // Providers round what they tell.
        .find(|window| millis * 100 >= window.as_millis() * 92 && millis * 100 <= window.as_millis() * 108)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_told_from_when_the_limit_is_whole_again() {
        let ms = Duration::from_millis;
        for (limit, remaining, whole_in, window_seconds) in [
            (1_200, 1_199, 50, Some(60)),
            (1_200, 0, 60_000, Some(60)),
            (100, 50, 500, Some(1)),
            (14_400, 14_399, 6_000, Some(DAY)),
            (1_200, 1_200, 0, None),
            (1_200, 1_300, 10, None),
            (1_200, 600, 10_000, None),
            (60, 59, 1_050, Some(60)),
            // Of a bucket that holds less than its limit this is chance: one answer proves nothing.
            (1_200, 80, 1_000, Some(1)),
        ] {
            assert_eq!(window(limit, remaining, ms(whole_in)).map(|window| window.as_secs()), window_seconds);
        }
    }

    #[test]
    fn dimensions_have_names_that_people_read() {
        let name = |unit, seconds| Dimension { unit, seconds }.to_string();
        assert_eq!(name(Unit::Requests, 60), "requests/min");
        assert_eq!(name(Unit::InputTokens, DAY), "input_tokens/day");
        assert_eq!(name(Unit::Tokens, 3_600), "tokens/3600s");
    }
}
