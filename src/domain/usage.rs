//! The tokens of one call, and how far a provider's report of them is believed.

use super::{Capabilities, Job, NanoUsd, estimate};
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
    /// tokens can write, or several times more output than was allowed. The side that is doubted is estimated; an
    /// answer without a word may have cost nothing.
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
        let beyond_cap = self.output > sent.most_output(self.reasoning, output);
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

/// The known facts about the request.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its tokens, by our own estimate.
    pub input: i64,
    /// The most output that it allows, in all its answers together.
    pub allowed: i64,
    /// The most that the model writes when nothing is capped, in all its answers together.
    pub longest: i64,
}

impl Sent {
    /// A request of the job, with this cap on each answer, to a model of these capabilities.
    #[must_use]
    pub fn of(job: &Job, cap: Option<i64>, capabilities: &Capabilities) -> Self {
        let most = |cap| estimate::most_output_of_all(capabilities, job, cap);
        Self { input: job.input_tokens, allowed: most(cap), longest: most(None) }
    }

    /// The most output that there can be beside a text of an estimated size, where so much of it is said to have been
    /// reasoning.
    ///
    /// Caps are kept loosely: a server counts by its own tokenizer, raises a small cap, or writes on to the end of a
    /// word. Some vendors do not count reasoning against the cap (xAI), and then it is bounded by the model alone.
    const fn most_output(&self, reasoning: i64, shown: i64) -> i64 {
        let capped = self.allowed.saturating_mul(4).saturating_add(ROOM_BEYOND_CAP);
        let uncapped = if reasoning < 0 {
            0
        } else if reasoning < self.longest {
            reasoning
        } else {
            self.longest
        };
        capped.saturating_add(uncapped).saturating_add(shown.saturating_mul(MOST_OVERESTIMATED))
    }
}

/// Tokens of output that are believed beyond four times the cap: reasoning that a vendor neither shows nor tells apart.
const ROOM_BEYOND_CAP: i64 = 8_192;

/// The cost of a call as a gateway states it, in dollars; `None` if that is not an amount of money.
///
/// Exact for decimals of up to nine places, and rounded half up beyond.
#[must_use]
pub fn dollars(amount: f64) -> Option<NanoUsd> {
    let most = NanoUsd::MOST_REPORTED.dollars();
    #[expect(clippy::cast_possible_truncation, reason = "within bounds")]
    (0.0..=most).contains(&amount).then(|| NanoUsd((amount * 1e9).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SENT: Sent = Sent { input: 700, allowed: 200, longest: 128_000 };

    fn reported(input: i64, output: i64) -> Usage {
        Usage { input, output, source: UsageSource::Provider, ..Usage::default() }
    }

    #[test]
    fn a_report_that_cannot_be_is_estimated_side_by_side() {
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(20);
        let tokens = estimate::text_tokens(&text);
        let sent = SENT;
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
            (reported(690, 4 * 200 + 8_192), 690, 4 * 200 + 8_192, true),
            // Some hundred times the cap.
            (reported(690, 90_000), 690, tokens, false),
            // Reasoning need not be within the cap, but no model reasons without end.
            (Usage { reasoning: 89_900, ..reported(690, 90_000) }, 690, 90_000, true),
            (Usage { reasoning: 999_900, ..reported(690, 1_000_000) }, 690, tokens, false),
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
        for (reasoning, believed) in [(150, 150), (201, 200), (i64::MAX, 200), (-1, 0), (i64::MIN, 0)] {
            let usage = Usage { reasoning, ..reported(690, 200) };
            assert_eq!(usage.believed(SENT, &["Paris"]).0.reasoning, believed, "{reasoning}");
        }
    }

    #[test]
    fn money_in_a_report_is_read_to_the_nano_dollar() {
        assert_eq!(dollars(0.000_195), Some(NanoUsd(195_000)));
        assert_eq!(dollars(1.0), Some(NanoUsd(1_000_000_000)));
        assert_eq!(dollars(0.0), Some(NanoUsd(0)));
        assert_eq!(dollars(1_000.0), Some(NanoUsd::MOST_REPORTED));
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e12, 99_999.0, 1_000.01] {
            assert_eq!(dollars(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_answer_is_never_free(input in 0_i64..100_000, output in 0_i64..100_000, text in "[a-z ]{1,200}") {
            let (usage, _) = reported(input, output).believed(Sent { input: 50, allowed: 128_000, ..SENT }, &[&text]);
            prop_assert!(usage.total_input() > 0 && usage.output > 0);
            prop_assert!(usage.output >= output && usage.total_input() >= input);
        }
    }
}
