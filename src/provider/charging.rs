//! The rules by which vendors count tokens. Facts and their confidence (A: documented, B: seen in the field, K: from
//! memory, U: unknown) are noted at each rule.

#[cfg(test)]
mod tests;

use crate::domain::Charging;
use crate::domain::charging::OutputShare;

/// OpenAI (A): the larger of the output cap and an estimate of the input is taken on admission, and the cap is never
/// given back; unsuccessful requests count. OpenAI does not publish its estimate of the input; the reported usage is
/// assumed to be closest to it.
pub const OPENAI: Charging = Charging { output: OutputShare::LargerCap, is_reconciled: false, ..Charging::COMBINED };

/// Azure OpenAI (A/B): prompt and output cap together, on admission.
pub const AZURE: Charging = Charging { output: OutputShare::Cap, ..OPENAI };

/// Anthropic (A): input is taken on admission and corrected during the call, without reads from the cache; output is
/// taken as it is produced, while `max_tokens` does not count. For models of Haiku 3.5's time and before, reads from
/// the cache count (A, the list is K). Whether failed requests count: U.
pub const ANTHROPIC: Charging = Charging {
    cached_input_counts: false,
    cached_input_counts_for: &[
        "claude-3-haiku",
        "claude-3-sonnet",
        "claude-3-opus",
        "claude-3-5-haiku",
        "claude-3-5-sonnet",
    ],
    failures_count: false,
    ..Charging::COMBINED
};

/// Gemini (A/B): tokens per minute are those of the input; failed requests count.
pub const GEMINI: Charging = Charging { output: OutputShare::None, ..Charging::COMBINED };

/// Groq (A): input and output together, without tokens from the cache. Whether the cap is reserved: U.
pub const GROQ: Charging = Charging { cached_input_counts: false, ..Charging::COMBINED };

/// Bedrock (B): input and the output cap, times the model's burndown, are taken on admission and corrected at the end;
/// input from the cache does not count (K). With Claude 3.7 and later a token of output takes five of the quota (B; ten
/// is reported of some newer models, which the configuration can say). Whether failed requests count: U.
pub const BEDROCK: Charging = Charging {
    output: OutputShare::Cap,
    cached_input_counts: false,
    burndowns: &[("claude-3-7", 5), ("claude-sonnet-4", 5), ("claude-opus-4", 5), ("claude-haiku-4", 5)],
    failures_count: false,
    ..Charging::COMBINED
};

/// Every rule with its name in the configuration. Mistral, Together, Fireworks, OpenRouter and xAI publish token limits
/// without saying how they count (U), and are counted as `combined`.
pub const RULES: &[(&str, Charging)] = &[
    ("openai", OPENAI),
    ("azure", AZURE),
    ("anthropic", ANTHROPIC),
    ("gemini", GEMINI),
    ("groq", GROQ),
    ("bedrock", BEDROCK),
    ("combined", Charging::COMBINED),
];

/// The rule with this name.
#[must_use]
pub fn rule(name: &str) -> Option<Charging> {
    RULES.iter().find(|(known, _)| *known == name).map(|(_, rule)| *rule)
}
