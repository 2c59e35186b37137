//! The limits that a provider sets.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The unit that a limit counts.
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
    /// Inputs of calls for embeddings.
    Inputs,
}

impl Unit {
    /// Every unit.
    pub const ALL: &'static [Self] =
        &[Self::Requests, Self::Tokens, Self::InputTokens, Self::OutputTokens, Self::Inputs];

    /// The unit with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|unit| unit.as_str() == name)
    }

    /// The name in configuration, status, metrics and explanations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Inputs => "inputs",
        }
    }
}

/// A unit and the time over which it is counted: together they tell the limits of one bucket apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dimension {
    pub unit: Unit,
    /// Seconds: 1, 60 or 86,400 where configured; the provider's figure where learned. Positive.
    pub seconds: u64,
}

impl Dimension {
    /// Reads the form that [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, per) = text.split_once('/')?;
        let unit = Unit::parse(unit)?;
        let seconds = match per {
            "s" => 1,
            "min" => 60,
            "day" => DAY,
            seconds => seconds.strip_suffix('s')?.parse().ok()?,
        };
        Some(Self { unit, seconds })
    }
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
            Self::Inputs => "inputs",
        })
    }
}

/// An amount of a unit in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub unit: Unit,
    /// How much; positive.
    pub amount: u64,
    /// The span of time: a second, a minute or a day.
    pub per: Duration,
    /// How much may be used at once after a rest; positive. The full amount unless configured.
    pub burst: u64,
}

impl Rate {
    /// The limit of its bucket that this rate is.
    #[must_use]
    pub fn dimension(&self) -> Dimension {
        Dimension { unit: self.unit, seconds: self.per.as_secs().max(1) }
    }
}

/// The limits of one bucket, which one or more targets share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Every rate has to allow a call.
    pub rates: Vec<Rate>,
    /// Calls that may run at once.
    pub concurrency: Option<u32>,
}

/// The figures that an answer gave for one limit of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The limit's unit and window.
    pub dimension: Dimension,
    pub limit: Option<u64>,
    /// The amount that was left of it.
    pub remaining: Option<u64>,
    /// The sum that all corrections together have to reach, so that Sluice believes no more to be left than the
    /// provider says; 0 where there is nothing to correct. It is a total because several processes find out the same.
    pub corrected: u64,
}

/// The time over which a limit counts, where the provider tells only when it will be whole again: the used amount comes
/// back at `limit` per window. `None` when nothing is used, or when the figures fit no usual window.
#[must_use]
pub fn window(limit: u64, remaining: u64, whole_in: Duration) -> Option<Duration> {
    let used = limit.checked_sub(remaining).filter(|used| *used > 0)?;
    let millis = whole_in.as_millis().checked_mul(u128::from(limit))? / u128::from(used);
    [1, 60, 3_600, DAY]
        .into_iter()
        .map(Duration::from_secs)
        // Providers round their figures.
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
            // For a bucket that holds less than its limit this is chance: one answer proves nothing.
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
