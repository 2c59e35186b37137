//! Rules that follow from a model's name, whichever server offers it: a gateway in front of a vendor changes the
//! address, not the parameters that the models refuse.

use crate::domain::PromptCache;
use crate::domain::prefix::CacheForm;

/// How a model differs from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelHabits {
    /// Rejects `max_tokens`.
    pub wants_completion_cap: bool,
    /// Parameters that it rejects.
    pub refuses: &'static [&'static str],
}

const SAMPLING: &[&str] = &[
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "stop",
];

/// The habits of the model of this name, with or without a vendor before it (`openai/gpt-5-mini`).
pub(super) fn of(model: &str) -> ModelHabits {
    let name = bare(model);
    let mut habits = ModelHabits { wants_completion_cap: is_openai_reasoning(&name), refuses: &[] };
    if is_openai_o(&name) || is_first_gpt_5(&name) {
        habits.refuses = SAMPLING;
    } else if let Some(rest) = name.strip_prefix("grok-") {
        habits.refuses = grok(rest);
    } else if Claude::of(model).is_some_and(Claude::samples_by_default_only) {
        habits.refuses = &["temperature", "top_p", "top_k"];
    } else if gemini_refuses_penalties(&name) {
        habits.refuses = &["presence_penalty", "frequency_penalty"];
    }
    habits
}

/// The last part of a name in lower case, without the suffix of a fine-tuned model.
fn bare(model: &str) -> String {
    let last = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    last.strip_prefix("ft:").map(str::to_owned).unwrap_or(last)
}

/// `o1`, `o3-mini`, `o4-mini-2025-04-16`.
fn is_openai_o(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('o') else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    digits > 0 && rest.as_bytes().get(digits).is_none_or(|next| matches!(next, b'-' | b':' | b'@'))
}

/// The generation of a `gpt-N`: `gpt-5`, `gpt-5.1`, `gpt-6-luna`.
fn gpt_generation(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("gpt-")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Models that take only `max_completion_tokens`: all of OpenAI's since `o1` and `gpt-5`.
fn is_openai_reasoning(name: &str) -> bool {
    is_openai_o(name) || gpt_generation(name).is_some_and(|generation| generation >= 5)
}

/// `gpt-5` itself and its smaller siblings. Later models take sampling parameters when they are told not to reason.
fn is_first_gpt_5(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("gpt-5") else { return false };
    let rest = ["-mini", "-nano", "-pro", "-codex"].iter().find_map(|kin| rest.strip_prefix(kin)).unwrap_or(rest);
    rest.is_empty() || rest.starts_with("-20") || rest.starts_with(':')
}

/// xAI's models reason since `grok-3-mini` and `grok-4`, except those whose names say otherwise.
fn grok(rest: &str) -> &'static [&'static str] {
    let generation: u32 = rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let reasons = generation >= 4 || rest.starts_with("3-mini") || rest.starts_with("code");
    if !reasons || rest.contains("non-reasoning") {
        return &[];
    }
    // The first reasoning models are known not to accept a reasoning effort.
    let first = ["4-0709", "4-fast", "4-1-fast", "4-latest", "code"].iter().any(|known| rest.starts_with(known));
    if rest == "4" || first {
        &["presence_penalty", "frequency_penalty", "stop", "reasoning_effort"]
    } else {
        &["presence_penalty", "frequency_penalty", "stop"]
    }
}

/// The generation of a Gemini, as (2, 5); `None` for names without one (`gemini-flash-latest`) and for other models.
pub(super) fn gemini_generation(model: &str) -> Option<(u32, u32)> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let rest = name.strip_prefix("gemini-")?;
    let number = rest.split('-').next().unwrap_or_default();
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether a Gemini refuses penalties; only a few old ones take them.
pub(super) fn gemini_refuses_penalties(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    let Some(rest) = name.strip_prefix("gemini-") else { return false };
    let takes = (rest.starts_with("2.0-flash") && !rest.contains("-exp"))
        || (rest.starts_with("1.5-") && rest.ends_with("-002"));
    !takes
}

/// A Claude by its name: `claude-opus-4-7`, `claude-3-5-sonnet-20241022`, `anthropic.claude-sonnet-5-v1:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claude {
    family: Family,
    version: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Opus,
    Sonnet,
    Haiku,
    Other,
}

/// How a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinking {
    /// It does not think.
    Never,
    /// By a number of tokens.
    Budget,
    /// By a level: all have `low`, `medium` and `high`.
    Levels { has_extra_high: bool, has_max: bool },
}

impl Claude {
    pub(super) fn of(model: &str) -> Option<Self> {
        let lower = model.to_ascii_lowercase();
        let (_, rest) = lower.split_once("claude-")?;
        let mut family = None;
        let mut numbers = Vec::new();
        for part in rest.split(['-', '.', '@', ':']) {
            match part {
                "opus" => family = Some(Family::Opus),
                "sonnet" => family = Some(Family::Sonnet),
                "haiku" => family = Some(Family::Haiku),
                "fable" | "mythos" => family = Some(Family::Other),
                // Dates have eight digits.
                digits if !digits.is_empty() && digits.len() <= 2 => match digits.parse() {
                    Ok(number) => numbers.push(number),
                    Err(_) => break,
                },
                _ => break,
            }
        }
        let mut numbers = numbers.into_iter();
        let version = (numbers.next()?, numbers.next().unwrap_or(0));
        Some(Self { family: family.unwrap_or(Family::Other), version })
    }

    /// Whether it is newer than Opus 4.6: takes only a temperature of 1, a `top_p` of 1, and no `top_k`.
    pub(super) fn samples_by_default_only(self) -> bool {
        self.version > (4, 6)
    }

    /// Whether it takes no `tool_choice` that forces a call.
    pub(super) fn refuses_forced_tools(self) -> bool {
        match self.family {
            Family::Opus => self.version >= (5, 5),
            Family::Other => self.version >= (5, 1),
            Family::Sonnet | Family::Haiku => false,
        }
    }

    /// How it is told to think: by a budget from 3.7 on, by levels from 4.6 on (A, B).
    pub(super) fn thinking(self) -> Thinking {
        if self.version >= (4, 6) {
            let has_extra_high = self.version > (4, 6);
            Thinking::Levels { has_extra_high, has_max: has_extra_high || self.family == Family::Opus }
        } else if self.version >= (3, 7) {
            Thinking::Budget
        } else {
            Thinking::Never
        }
    }

    /// The shortest beginning of a prompt that is kept if it is marked, in tokens (B; of later ones it is not known).
    fn least_kept(self) -> i64 {
        match (self.family, self.version) {
            (Family::Opus | Family::Haiku, (4, 5..)) => 4_096,
            (Family::Haiku, (0..=3, _)) => 2_048,
            _ => 1_024,
        }
    }

    /// Whether Bedrock keeps the beginnings of its prompts: since 3.7, and 3.5 Haiku (B).
    pub(super) fn is_kept_by_bedrock(self) -> bool {
        self.version >= (3, 7) || (self.family == Family::Haiku && self.version >= (3, 5))
    }

    /// Whether Bedrock keeps them for an hour: since 4.5 (B).
    pub(super) fn is_kept_for_an_hour_by_bedrock(self) -> bool {
        self.version >= (4, 5)
    }

    /// Whether it has structured outputs: Opus from 4.1 on, the others from 4.5 on.
    pub(super) fn has_json_schema(self) -> bool {
        match self.family {
            Family::Opus => self.version >= (4, 1),
            Family::Sonnet | Family::Haiku | Family::Other => self.version >= (4, 5),
        }
    }
}

/// How Anthropic keeps the beginnings of prompts for a model: all of them, if they are marked.
#[expect(clippy::unnecessary_wraps, reason = "a row says it by model, and some have none")]
pub(super) fn anthropic_keeps(model: &str) -> Option<PromptCache> {
    let min_tokens = Claude::of(model).map_or(1_024, Claude::least_kept);
    Some(PromptCache { form: CacheForm::Marks { keeps_an_hour: true }, min_tokens })
}

/// How Bedrock keeps them: where its models are known to take marks. One that does not know a mark refuses the request.
pub(super) fn bedrock_keeps(model: &str) -> Option<PromptCache> {
    match Claude::of(model) {
        Some(claude) => claude.is_kept_by_bedrock().then(|| PromptCache {
            form: CacheForm::Marks { keeps_an_hour: claude.is_kept_for_an_hour_by_bedrock() },
            min_tokens: claude.least_kept(),
        }),
        None if is_nova(model) => {
            Some(PromptCache { form: CacheForm::Marks { keeps_an_hour: false }, min_tokens: 1_024 })
        }
        None => None,
    }
}

/// Amazon's own model of text, which takes marks in instructions and turns, and none among tools (B).
pub(super) fn is_nova(model: &str) -> bool {
    ["nova-micro", "nova-lite", "nova-pro", "nova-premier"].iter().any(|name| model.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginnings_that_are_kept_follow_from_the_models_name() {
        let marks =
            |keeps_an_hour, min_tokens| Some(PromptCache { form: CacheForm::Marks { keeps_an_hour }, min_tokens });
        for (model, by_anthropic, by_bedrock) in [
            ("anthropic.claude-3-haiku-20240307-v1:0", marks(true, 2_048), None),
            ("anthropic.claude-3-5-sonnet-20240620-v1:0", marks(true, 1_024), None),
            ("us.anthropic.claude-3-5-haiku-20241022-v1:0", marks(true, 2_048), marks(false, 2_048)),
            ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", marks(true, 1_024), marks(false, 1_024)),
            ("anthropic.claude-sonnet-4-5-20250929-v1:0", marks(true, 1_024), marks(true, 1_024)),
            ("anthropic.claude-haiku-4-5-20251001-v1:0", marks(true, 4_096), marks(true, 4_096)),
            ("claude-opus-4-1", marks(true, 1_024), marks(false, 1_024)),
            ("claude-opus-4-6", marks(true, 4_096), marks(true, 4_096)),
            ("claude-opus-5", marks(true, 1_024), marks(true, 1_024)),
            ("eu.amazon.nova-lite-v1:0", marks(true, 1_024), marks(false, 1_024)),
            ("meta.llama3-70b-instruct-v1:0", marks(true, 1_024), None),
        ] {
            assert_eq!(anthropic_keeps(model), by_anthropic, "{model}");
            assert_eq!(bedrock_keeps(model), by_bedrock, "{model}");
        }
    }

    #[test]
    fn the_cap_follows_the_models_name() {
        for (model, expected) in [
            ("gpt-5-mini", true),
            ("gpt-5", true),
            ("openai/gpt-5.4-nano", true),
            ("GPT-6-luna", true),
            ("gpt-6.1-terra", true),
            ("ft:gpt-5-mini:acme", true),
            ("o1", true),
            ("o3-mini-2025-01-31", true),
            ("azure/o4-mini", true),
            ("gpt-4o-mini", false),
            ("gpt-4.1", false),
            ("gpt-oss-120b", false),
            ("openai/gpt-oss-20b", false),
            ("olmo-2", false),
            ("o", false),
            ("o1ive", false),
            ("qwen3", false),
        ] {
            assert_eq!(of(model).wants_completion_cap, expected, "{model}");
        }
    }

    #[test]
    fn what_is_refused_follows_the_models_name() {
        let penalties_and_stop = &["presence_penalty", "frequency_penalty", "stop"][..];
        let no_effort = &["presence_penalty", "frequency_penalty", "stop", "reasoning_effort"][..];
        let penalties = &["presence_penalty", "frequency_penalty"][..];
        let sampling = &["temperature", "top_p", "top_k"][..];
        for (model, expected) in [
            ("o3", SAMPLING),
            ("gpt-5", SAMPLING),
            ("gpt-5-mini-2025-08-07", SAMPLING),
            ("gpt-5-chat-latest", &[][..]),
            ("gpt-5.2", &[]),
            ("gpt-4o", &[]),
            ("grok-4", no_effort),
            ("x-ai/grok-4-fast", no_effort),
            ("grok-4-1-fast-reasoning", no_effort),
            ("grok-code-fast-1", no_effort),
            ("grok-4.20", penalties_and_stop),
            ("grok-4.3", penalties_and_stop),
            ("grok-5", penalties_and_stop),
            ("grok-3-mini", penalties_and_stop),
            ("grok-4-fast-non-reasoning", &[]),
            ("grok-4.20-non-reasoning", &[]),
            ("grok-3", &[]),
            ("grok-2-1212", &[]),
            ("anthropic/claude-opus-4.7", sampling),
            ("claude-opus-4-6", &[]),
            ("google/gemini-2.5-flash", penalties),
            ("gemini-3.8-flash", penalties),
            ("gemini-flash-latest", penalties),
            ("gemini-2.0-flash", &[]),
            ("gemini-1.5-pro-002", &[]),
            ("llama-3", &[]),
        ] {
            assert_eq!(of(model).refuses, expected, "{model}");
        }
    }

    #[test]
    fn claudes_are_told_by_family_and_version() {
        // Default sampling only, no forced tools, JSON schema.
        for (model, expected) in [
            ("claude-3-5-sonnet-20241022", [false, false, false]),
            ("claude-3-haiku-20240307", [false, false, false]),
            ("claude-sonnet-4-20250514", [false, false, false]),
            ("claude-opus-4-1-20250805", [false, false, true]),
            ("claude-haiku-4-5", [false, false, true]),
            ("claude-opus-4-6", [false, false, true]),
            ("claude-opus-4-7", [true, false, true]),
            ("us.anthropic.claude-opus-4-7-v1:0", [true, false, true]),
            ("claude-sonnet-5-5", [true, false, true]),
            ("claude-opus-5", [true, false, true]),
            ("claude-opus-5-5", [true, true, true]),
            ("claude-fable-5-1", [true, true, true]),
            ("claude-mythos-5", [true, false, true]),
            ("claude-haiku-5-5", [true, false, true]),
        ] {
            let claude = Claude::of(model).unwrap();
            let found = [claude.samples_by_default_only(), claude.refuses_forced_tools(), claude.has_json_schema()];
            assert_eq!(found, expected, "{model}");
        }
        for model in ["claude-latest", "gpt-4o", "the-model", "claude-sonnet-latest"] {
            assert_eq!(Claude::of(model), None, "{model}");
        }
    }

    #[test]
    fn the_generation_of_a_gemini_is_in_its_name() {
        for (model, expected) in [
            ("gemini-2.5-flash", Some((2, 5))),
            ("models/gemini-3.1-pro-preview", Some((3, 1))),
            ("gemini-3-pro", Some((3, 0))),
            ("gemini-10", Some((10, 0))),
            ("gemini-flash-latest", None),
            ("gemini-pro", None),
            ("gemma-3-27b", None),
            ("tuned-gemini-3", None),
        ] {
            assert_eq!(gemini_generation(model), expected, "{model}");
        }
    }
}
