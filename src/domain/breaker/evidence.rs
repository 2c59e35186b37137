//! What a breaker opened for, in numbers and in words.

use crate::domain::obstacle::span;
use crate::domain::readable;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What is counted of the calls of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Indicator {
    /// Calls that failed.
    Failures,
    /// Answers that took too long.
    SlowAnswers,
    /// Answers that were rejected.
    SoftFailures,
    /// Tokens of output that went into answers that were rejected.
    WastedTokens,
}

impl Indicator {
    /// Its name in metrics and in what programs read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::SlowAnswers => "slow_answers",
            Self::SoftFailures => "soft_failures",
            Self::WastedTokens => "wasted_tokens",
        }
    }
}

/// The count for which a breaker opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was counted.
    pub indicator: Indicator,
    /// How many of them were bad: calls, answers or tokens.
    pub bad: u64,
    /// How many there were.
    pub of: u64,
    /// From how many milliseconds on an answer counted as slow, where that is what was counted.
    #[serde(default, deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub slow_ms: Option<u64>,
    /// The faults of the rejected answers, the most frequent first.
    #[serde(default, deserialize_with = "readable::items", skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<(String, u32)>,
}

impl Evidence {
    /// So many of the last calls failed.
    #[must_use]
    pub fn of_failures(failures: u32, calls: u32) -> Self {
        Self {
            indicator: Indicator::Failures,
            bad: failures.into(),
            of: calls.into(),
            slow_ms: None,
            kinds: Vec::new(),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bad, of, .. } = self;
        match self.indicator {
            Indicator::Failures => write!(f, "{bad} of the last {of} calls failed")?,
            Indicator::SlowAnswers => {
                write!(f, "{bad} of the last {of} answers took longer than ")?;
                match Duration::from_millis(self.slow_ms.unwrap_or_default()) {
                    Duration::ZERO => f.write_str("they may")?,
                    slow if slow.subsec_millis() > 0 => write!(f, "{slow:?}")?,
                    slow => f.write_str(&span(slow))?,
                }
            }
            Indicator::SoftFailures => write!(f, "{bad} of the last {of} answers were rejected")?,
            Indicator::WastedTokens => {
                let percent = (u128::from(*bad) * 100).checked_div(u128::from(*of)).unwrap_or(0);
                write!(f, "{percent} % of the last {of} output tokens were in answers that were rejected")?;
            }
        }
        for (place, (kind, answers)) in self.kinds.iter().enumerate() {
            write!(f, "{}{kind} {answers}", if place == 0 { " (" } else { ", " })?;
        }
        if self.kinds.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_reason_is_told_with_its_numbers() {
        let of = |indicator, bad, of| Evidence { indicator, ..Evidence::of_failures(bad, of) };
        let kinds = vec![("schema_mismatch".to_owned(), 15), ("empty".to_owned(), 3)];
        for (evidence, words) in [
            (of(Indicator::Failures, 9, 10), "9 of the last 10 calls failed"),
            (
                Evidence { slow_ms: Some(120_000), ..of(Indicator::SlowAnswers, 9, 10) },
                "9 of the last 10 answers took longer than 2m",
            ),
            (
                Evidence { slow_ms: Some(1_500), ..of(Indicator::SlowAnswers, 9, 10) },
                "9 of the last 10 answers took longer than 1.5s",
            ),
            (
                Evidence { kinds: kinds.clone(), ..of(Indicator::SoftFailures, 18, 20) },
                "18 of the last 20 answers were rejected (schema_mismatch 15, empty 3)",
            ),
            (
                of(Indicator::WastedTokens, 919, 1000),
                "91 % of the last 1000 output tokens were in answers that were rejected",
            ),
            (of(Indicator::WastedTokens, 0, 0), "0 % of the last 0 output tokens were in answers that were rejected"),
        ] {
            assert_eq!(evidence.to_string(), words);
            assert_eq!(from_value::<Evidence>(to_value(&evidence).unwrap()).unwrap(), evidence);
            assert_eq!(to_value(evidence.indicator).unwrap(), evidence.indicator.as_str());
        }
        let odd = json!({ "indicator": "slow_answers", "bad": 9, "of": 10, "slow_ms": "long", "kinds": 7, "moon": 1 });
        let read: Evidence = from_value(odd).unwrap();
        assert_eq!(read.to_string(), "9 of the last 10 answers took longer than they may");
    }
}
