//! The tokens of one call, and how far a provider's report of them is believed.

use super::{NanoUsd, estimate};
use serde::{Deserialize, Serialize};

/// The origin of token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider reported them.
    Provider,
    /// Sluice estimated them, in whole or in part, because the provider reported nothing, or nothing possible.
    Estimated,
    /// Nothing is known.
    #[default]
    Unknown,
}

/// Where the cost of a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostSource {
    /// From the price of the model, times the usage.
    Price,
    /// The provider said it.
    Reported,
}

impl CostSource {
    /// The name in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Price => "price",
            Self::Reported => "reported",
        }
    }
}

impl UsageSource {
    /// The name in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Estimated => "estimated",
            Self::Unknown => "unknown",
        }
    }
}

/// Tokens in disjoint classes: each token is in exactly one of the first five fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Input that was neither read from nor written to a cache.
    pub input: i64,
    /// Input read from the provider's prompt cache.
    pub cache_read: i64,
    /// Input written to a cache that lives minutes (Anthropic: 5 minutes).
    pub cache_write: i64,
    /// Input written to a cache that lives an hour (Anthropic).
    pub cache_write_1h: i64,
    /// Everything generated, reasoning included.
    pub output: i64,
    /// The part of `output` that was reasoning: information only, already counted.
    pub reasoning: i64,
    /// The origin of these counts.
    pub source: UsageSource,
}

impl Usage {
    /// Whether tokens were read from a cache, or written into one.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.cache_read > 0 || self.cache_write > 0 || self.cache_write_1h > 0
    }

    /// The tokens generated, if the provider reported them.
    #[must_use]
    pub fn reported_output(&self) -> Option<i64> {
        (self.source == UsageSource::Provider).then_some(self.output)
    }

    /// All input tokens, cached or not.
    #[must_use]
    pub fn total_input(&self) -> i64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write).saturating_add(self.cache_write_1h)
    }

    /// The usage that is believed, and why it differs from the provider's report. A report is doubted if it cannot be
    /// true: no input though every request has some, no output beside a text, a text of more characters than so few
    /// tokens can write, or many times more output than was allowed. The side that is doubted is estimated; an answer
    /// without a word may have cost nothing.
    #[must_use]
    pub fn believed(self, sent: Sent, text: &[&str]) -> (Self, Option<&'static str>) {
        let output = text.iter().fold(0, |sum: i64, text| sum.saturating_add(estimate::text_tokens(text)));
        if self.source == UsageSource::Unknown {
            let usage = Self { input: sent.input, output, source: UsageSource::Estimated, ..Self::default() };
            return (usage, None);
        }
        let no_input = self.total_input() == 0 && (output > 0 || self.output > 0);
        let no_output = self.output == 0 && output > 0;
        // A token is three or four characters; white space and repetitions come to some dozens.
        let too_little = !no_output && self.output < output / MOST_OVERESTIMATED;
        let too_much = self.total_input() > most(sent.input);
        let beyond_cap = self.output > most_output(sent.max_output, output);
        let inputs = [self.input, self.cache_read, self.cache_write, self.cache_write_1h];
        let negative_input = inputs.iter().any(|tokens| *tokens < 0);
        let negative_output = self.output < 0;
        let mut usage = self;
        if no_input || too_much || negative_input {
            usage = Self { input: sent.input, cache_read: 0, cache_write: 0, cache_write_1h: 0, ..usage };
        }
        if no_output || too_little || beyond_cap || negative_output {
            usage.output = output;
        }
        // Information only: it is a part of the output, or zero.
        usage.reasoning = usage.reasoning.clamp(0, usage.output.max(0));
        let doubt = if negative_input || negative_output {
            "a negative number of tokens was reported"
        } else if no_input && no_output {
            "no tokens at all were reported beside an answer"
        } else if no_input {
            "no tokens of input were reported"
        } else if no_output {
            "no tokens of output were reported beside an answer"
        } else if too_little {
            "fewer tokens of output were reported than such a text can have"
        } else if too_much {
            "more tokens of input were reported than such a request can have"
        } else if beyond_cap {
            "more tokens of output were reported than such a request can bring"
        } else {
            return (usage, None);
        };
        usage.source = UsageSource::Estimated;
        (usage, Some(doubt))
    }
}

/// How much larger than the truth an estimate of a text can be.
const MOST_OVERESTIMATED: i64 = 32;

/// The most input that a request of an estimated size can turn out to have: gateways add prompts of their own, and
/// tools bring in pages.
const fn most(estimated: i64) -> i64 {
    estimated.saturating_mul(100).saturating_add(2_000_000)
}

/// The most output that there can be beside a text of an estimated size. Some vendors do not count reasoning against
/// the cap, and several choices are each as long; without a cap, no model writes as much.
const fn most_output(cap: Option<i64>, shown: i64) -> i64 {
    let allowed = match cap {
        Some(cap) => cap.saturating_mul(16).saturating_add(100_000),
        None => 2_000_000,
    };
    allowed.saturating_add(shown.saturating_mul(MOST_OVERESTIMATED))
}

/// The known facts about the request.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its tokens, by our own estimate.
    pub input: i64,
    /// Its cap on the output.
    pub max_output: Option<i64>,
}

/// The cost of a call as a gateway states it, in dollars; `None` if that is not an amount of money.
///
/// Exact for decimals of up to nine places, and rounded half up beyond.
#[must_use]
pub fn dollars(amount: f64) -> Option<NanoUsd> {
    let most = NanoUsd::MOST_OF_A_CALL.dollars();
    #[expect(clippy::cast_possible_truncation, reason = "within bounds")]
    (0.0..=most).contains(&amount).then(|| NanoUsd((amount * 1e9).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reported(input: i64, output: i64) -> Usage {
        Usage { input, output, source: UsageSource::Provider, ..Usage::default() }
    }

    #[test]
    fn a_report_that_cannot_be_is_estimated_side_by_side() {
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(20);
        let tokens = estimate::text_tokens(&text);
        let sent = Sent { input: 700, max_output: Some(200) };
        for (report, input, output, is_believed) in [
            (reported(690, 200), 690, 200, true),
            (reported(0, 0), 700, tokens, false),
            (reported(0, 200), 700, 200, false),
            (reported(690, 0), 690, tokens, false),
            (reported(690, 1), 690, tokens, false),
            (Usage::default(), 700, tokens, false),
            (Usage { cache_read: 690, ..reported(0, 200) }, 0, 200, true),
            (reported(15_000_000, 200), 700, 200, false),
            (reported(690, 9_000_000), 690, tokens, false),
            (reported(690, 90_000), 690, 90_000, true),
            (reported(i64::MAX, i64::MAX), 700, tokens, false),
            (reported(-1, 200), 700, 200, false),
            (reported(690, i64::MIN), 690, tokens, false),
            (Usage { cache_write_1h: i64::MAX, ..reported(i64::MAX, 200) }, 700, 200, false),
            (Usage { cache_read: -5, ..reported(690, 200) }, 700, 200, false),
        ] {
            let (usage, doubt) = report.believed(sent, &[&text]);
            assert_eq!((usage.input, usage.output), (input, output), "{report:?}");
            assert_eq!(usage.source == UsageSource::Provider, is_believed, "{report:?}");
            assert_eq!(doubt.is_some(), !is_believed && report.source == UsageSource::Provider, "{report:?}");
        }
        // The provider reported nothing, and perhaps charged nothing.
        assert_eq!(reported(0, 0).believed(sent, &["", ""]), (reported(0, 0), None));
        assert_eq!(reported(690, 0).believed(sent, &[""]), (reported(690, 0), None));
        // Reasoning that was not shown is output too.
        assert_eq!(reported(690, 5_000).believed(sent, &["x"]).0, reported(690, 5_000));
    }

    #[test]
    fn reasoning_is_a_part_of_the_output_or_none() {
        let sent = Sent { input: 700, max_output: Some(200) };
        for (reasoning, believed) in [(150, 150), (201, 200), (i64::MAX, 200), (-1, 0), (i64::MIN, 0)] {
            let usage = Usage { reasoning, ..reported(690, 200) };
            assert_eq!(usage.believed(sent, &["Paris"]).0.reasoning, believed, "{reasoning}");
        }
    }

    #[test]
    fn money_in_a_report_is_read_to_the_nano_dollar() {
        assert_eq!(dollars(0.000_195), Some(NanoUsd(195_000)));
        assert_eq!(dollars(1.0), Some(NanoUsd(1_000_000_000)));
        assert_eq!(dollars(0.0), Some(NanoUsd(0)));
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e12] {
            assert_eq!(dollars(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_answer_is_never_free(input in 0_i64..100_000, output in 0_i64..100_000, text in "[a-z ]{1,200}") {
            let (usage, _) = reported(input, output).believed(Sent { input: 50, max_output: None }, &[&text]);
            prop_assert!(usage.total_input() > 0 && usage.output > 0);
            prop_assert!(usage.output >= output && usage.total_input() >= input);
        }
    }
}
