//! How much a model is to think (`reasoning_effort`), in the words of models that have others for it.
//!
//! OpenAI's words are the common ones. Other models take a level of their own or a number of tokens, and each has fewer
//! of them: what is sent in place of the word that was asked for is noted, and where nothing fits, that is noted, too.

use super::conversation::note;
use super::model_habits::{Claude, Thinking, gemini_generation};
use crate::domain::ChatRequest;
use serde_json::{Value, json};

/// The member of a request.
const EFFORT: &str = "reasoning_effort";

/// The fewest tokens that Anthropic takes as a budget for thinking.
const LEAST_BUDGET: i64 = 1_024;

/// How much a model is to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effort {
    /// Not at all.
    None,
    Minimal,
    Low,
    Medium,
    High,
    /// `xhigh`.
    ExtraHigh,
    Max,
}

impl Effort {
    const ALL: [Self; 7] = [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::ExtraHigh, Self::Max];

    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::ExtraHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The effort that a request asks for; `None`: it asks for none, or in a word of which nothing is known.
    pub(super) fn of(request: &ChatRequest) -> Option<Self> {
        let word = request.reasoning_effort.as_deref()?;
        Self::ALL.into_iter().find(|effort| effort.as_str() == word)
    }

    /// Tokens for thinking, where a model counts them: Google's own reading of OpenAI's words (B).
    const fn tokens(self) -> i64 {
        match self {
            Self::None => 0,
            Self::Minimal | Self::Low => 1_024,
            Self::Medium => 8_192,
            Self::High | Self::ExtraHigh | Self::Max => 24_576,
        }
    }

    /// The effort that has the same number of tokens.
    const fn counted_as(self) -> &'static str {
        match self {
            Self::Minimal => Self::Low.as_str(),
            Self::ExtraHigh | Self::Max => Self::High.as_str(),
            Self::None | Self::Low | Self::Medium | Self::High => self.as_str(),
        }
    }

    /// The tokens for thinking that are sent: a quarter of a cap is left for the answer. Notes what stands for the
    /// word.
    fn budget(self, cap: Option<i64>, dropped: &mut Vec<String>) -> i64 {
        let most = cap.map_or(i64::MAX, |cap| cap - cap / 4);
        if self.tokens() > most {
            note(dropped, &format!("{EFFORT} {} as {most} tokens", self.as_str()));
            return most;
        }
        self.note_as(self.counted_as(), dropped);
        self.tokens()
    }

    /// Notes that another effort is sent in its place.
    fn note_as(self, other: &str, dropped: &mut Vec<String>) {
        if self.as_str() != other {
            note(dropped, &format!("{EFFORT} {} as {other}", self.as_str()));
        }
    }
}

/// Notes that an effort is not sent at all, if the request asks for one.
pub(super) fn note_lost(request: &ChatRequest, dropped: &mut Vec<String>) {
    if request.reasoning_effort.is_some() {
        note(dropped, EFFORT);
    }
}

/// What a Claude is told of thinking.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ToClaude {
    /// `thinking` of its request.
    pub thinking: Option<Value>,
    /// `effort` of its `output_config`.
    pub effort: Option<&'static str>,
}

impl ToClaude {
    /// By the model's name and the output cap of the request. Thinking goes together neither with a call that is forced
    /// nor, where it has a budget, with earlier calls of the conversation, whose thoughts are not in it.
    pub(super) fn of(request: &ChatRequest, claude: Option<Claude>, cap: i64, dropped: &mut Vec<String>) -> Self {
        let forced = super::conversation::forces_call(request);
        let (Some(effort), Some(claude)) = (Effort::of(request), claude) else {
            note_lost(request, dropped);
            return Self::default();
        };
        match claude.thinking() {
            // It does not think, or not unless it is told to.
            Thinking::Never | Thinking::Budget | Thinking::Levels { .. } if effort == Effort::None => Self::default(),
            Thinking::Levels { has_extra_high, has_max } if !forced => {
                let word = match effort {
                    Effort::None | Effort::Minimal | Effort::Low => "low",
                    Effort::Medium => "medium",
                    Effort::ExtraHigh if has_extra_high => "xhigh",
                    Effort::ExtraHigh | Effort::Max if has_max => "max",
                    Effort::High | Effort::ExtraHigh | Effort::Max => "high",
                };
                effort.note_as(word, dropped);
                Self { thinking: Some(json!({ "type": "adaptive" })), effort: Some(word) }
            }
            Thinking::Budget if effort == Effort::Minimal => {
                effort.note_as("none", dropped);
                Self::default()
            }
            Thinking::Budget if !forced && !has_calls(request) && cap - cap / 4 >= LEAST_BUDGET => {
                let budget = effort.budget(Some(cap), dropped);
                Self { thinking: Some(json!({ "type": "enabled", "budget_tokens": budget })), effort: None }
            }
            Thinking::Never | Thinking::Budget | Thinking::Levels { .. } => {
                note_lost(request, dropped);
                Self::default()
            }
        }
    }

    /// Whether it is to think, and then takes no sampling parameters.
    pub(super) fn thinks(&self) -> bool {
        self.thinking.is_some()
    }
}

fn has_calls(request: &ChatRequest) -> bool {
    request.messages.iter().any(|message| !message.tool_calls.is_empty())
}

/// `thinkingConfig` of a Gemini: a level since generation 3, a number of tokens in generation 2.5, nothing before.
pub(super) fn thinking_config(request: &ChatRequest, model: &str, dropped: &mut Vec<String>) -> Option<Value> {
    let generation = gemini_generation(model);
    let (Some(effort), Some(generation)) = (Effort::of(request), generation) else {
        note_lost(request, dropped);
        return None;
    };
    let is_pro = model.contains("pro");
    if generation >= (3, 0) {
        let has_medium = !is_pro || generation > (3, 0);
        let level = match effort {
            // It cannot be turned off.
            Effort::None | Effort::Minimal if !is_pro => "minimal",
            Effort::None | Effort::Minimal | Effort::Low => "low",
            Effort::Medium if has_medium => "medium",
            Effort::Medium | Effort::High | Effort::ExtraHigh | Effort::Max => "high",
        };
        effort.note_as(level, dropped);
        return Some(json!({ "thinkingLevel": level }));
    }
    if generation >= (2, 5) {
        let budget = match effort {
            Effort::None if is_pro => {
                note(dropped, &format!("{EFFORT} none as 128 tokens"));
                128
            }
            other => other.budget(request.max_tokens, dropped),
        };
        return Some(json!({ "thinkingBudget": budget }));
    }
    if effort != Effort::None {
        note_lost(request, dropped);
    }
    None
}

/// `thinking` of one of Cohere's models: those that reason say so in their names.
pub(super) fn to_cohere(request: &ChatRequest, model: &str, dropped: &mut Vec<String>) -> Option<Value> {
    match Effort::of(request) {
        Some(Effort::None) => Some(json!({ "type": "disabled" })),
        Some(effort) if model.contains("reasoning") => {
            effort.note_as(effort.counted_as(), dropped);
            Some(json!({ "type": "enabled", "token_budget": effort.tokens() }))
        }
        Some(_) | None => {
            note_lost(request, dropped);
            None
        }
    }
}

/// `reasoningConfig` of Amazon's Nova 2. With the highest effort it takes no cap and no sampling parameters, so then
/// the request gets the next lower one.
pub(super) fn to_nova(request: &ChatRequest, model: &str, dropped: &mut Vec<String>) -> Option<Value> {
    let is_bound = request.max_tokens.is_some() || request.temperature.is_some() || request.top_p.is_some();
    let level = match Effort::of(request) {
        Some(Effort::None) => return None,
        Some(effort) if model.contains("nova-2") => {
            let level = match effort {
                Effort::None | Effort::Minimal | Effort::Low => "low",
                Effort::High | Effort::ExtraHigh | Effort::Max if !is_bound => "high",
                Effort::Medium | Effort::High | Effort::ExtraHigh | Effort::Max => "medium",
            };
            effort.note_as(level, dropped);
            level
        }
        Some(_) | None => {
            note_lost(request, dropped);
            return None;
        }
    };
    Some(json!({ "type": "enabled", "maxReasoningEffort": level }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(effort: &str, more: &Value) -> ChatRequest {
        let mut body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "reasoning_effort": effort });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        ChatRequest::parse(&body).unwrap()
    }

    #[test]
    fn a_claude_gets_a_level_a_budget_or_nothing() {
        let levels = |word: &'static str| (Some(json!({ "type": "adaptive" })), Some(word));
        let budget = |tokens: i64| (Some(json!({ "type": "enabled", "budget_tokens": tokens })), None);
        let nothing = || (None, None);
        for (model, effort, cap, told, noted) in [
            ("claude-opus-4-6", "medium", 100, levels("medium"), None),
            ("claude-opus-4-6", "minimal", 100, levels("low"), Some("reasoning_effort minimal as low")),
            ("claude-opus-4-6", "xhigh", 100, levels("max"), Some("reasoning_effort xhigh as max")),
            ("claude-sonnet-4-6", "xhigh", 100, levels("high"), Some("reasoning_effort xhigh as high")),
            ("claude-opus-4-7", "xhigh", 100, levels("xhigh"), None),
            ("claude-opus-4-7", "none", 100, nothing(), None),
            ("claude-sonnet-4-5", "low", 4_096, budget(1_024), None),
            ("claude-sonnet-4-5", "high", 4_096, budget(3_072), Some("reasoning_effort high as 3072 tokens")),
            ("claude-sonnet-4-5", "xhigh", 4_096, budget(3_072), Some("reasoning_effort xhigh as 3072 tokens")),
            ("claude-opus-4-5-20251101", "medium", 64_000, budget(8_192), None),
            ("claude-3-7-sonnet-20250219", "high", 64_000, budget(24_576), None),
            ("claude-sonnet-4-5", "high", 1_024, nothing(), Some("reasoning_effort")),
            ("claude-sonnet-4-5", "minimal", 4_096, nothing(), Some("reasoning_effort minimal as none")),
            ("claude-3-5-haiku-20241022", "low", 4_096, nothing(), Some("reasoning_effort")),
            ("claude-3-5-haiku-20241022", "none", 4_096, nothing(), None),
            ("minimax-m2", "low", 4_096, nothing(), Some("reasoning_effort")),
            ("claude-opus-4-6", "7", 4_096, nothing(), Some("reasoning_effort")),
        ] {
            let mut dropped = Vec::new();
            let ToClaude { thinking, effort: word } =
                ToClaude::of(&asking(effort, &Value::Null), Claude::of(model), cap, &mut dropped);
            assert_eq!((thinking, word), told, "{model} {effort}");
            assert_eq!(dropped.iter().map(String::as_str).collect::<Vec<_>>(), noted.as_slice(), "{model} {effort}");
        }
    }

    #[test]
    fn no_claude_thinks_where_a_call_is_forced_and_none_with_a_budget_after_calls() {
        let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
        let forced = asking("high", &json!({ "tools": tools.clone(), "tool_choice": "required" }));
        let after = asking(
            "high",
            &json!({ "tools": tools, "messages": [
            { "role": "user", "content": "Hi" },
            { "role": "assistant", "tool_calls": [
                { "id": "1", "type": "function", "function": { "name": "f", "arguments": "{}" } },
            ] },
            { "role": "tool", "tool_call_id": "1", "content": "x" },
        ] }),
        );
        for (request, model, thinks) in [
            (&forced, "claude-opus-4-6", false),
            (&forced, "claude-sonnet-4-5", false),
            (&after, "claude-opus-4-6", true),
            (&after, "claude-sonnet-4-5", false),
        ] {
            let mut dropped = Vec::new();
            let told = ToClaude::of(request, Claude::of(model), 64_000, &mut dropped);
            assert_eq!((told.thinks(), dropped.is_empty()), (thinks, thinks), "{model}");
        }
    }

    #[test]
    fn a_gemini_gets_a_level_or_a_number_of_tokens() {
        let level = |level: &str| Some(json!({ "thinkingLevel": level }));
        let tokens = |tokens: i64| Some(json!({ "thinkingBudget": tokens }));
        for (model, effort, told, noted) in [
            ("gemini-3-pro-preview", "medium", level("high"), Some("reasoning_effort medium as high")),
            ("gemini-3-pro-preview", "none", level("low"), Some("reasoning_effort none as low")),
            ("gemini-3.1-pro-preview", "medium", level("medium"), None),
            ("gemini-3-flash-preview", "minimal", level("minimal"), None),
            ("gemini-3-flash-preview", "none", level("minimal"), Some("reasoning_effort none as minimal")),
            ("gemini-3-flash-preview", "max", level("high"), Some("reasoning_effort max as high")),
            ("gemini-2.5-flash", "none", tokens(0), None),
            ("gemini-2.5-flash", "medium", tokens(8_192), None),
            ("gemini-2.5-pro", "none", tokens(128), Some("reasoning_effort none as 128 tokens")),
            ("gemini-2.5-pro", "high", tokens(24_576), None),
            ("gemini-2.5-flash", "minimal", tokens(1_024), Some("reasoning_effort minimal as low")),
            ("gemini-2.5-flash", "max", tokens(24_576), Some("reasoning_effort max as high")),
            ("gemini-2.0-flash", "low", None, Some("reasoning_effort")),
            ("gemini-2.0-flash", "none", None, None),
            ("gemini-flash-latest", "low", None, Some("reasoning_effort")),
        ] {
            let mut dropped = Vec::new();
            let config = thinking_config(&asking(effort, &Value::Null), model, &mut dropped);
            assert_eq!(config, told, "{model} {effort}");
            assert_eq!(dropped.iter().map(String::as_str).collect::<Vec<_>>(), noted.as_slice(), "{model} {effort}");
        }
    }

    #[test]
    fn a_budget_leaves_a_quarter_of_the_cap_for_the_answer() {
        for (effort, cap, budget, noted) in [
            ("high", 3_000, 2_250, Some("reasoning_effort high as 2250 tokens")),
            ("xhigh", 200, 150, Some("reasoning_effort xhigh as 150 tokens")),
            ("high", 64_000, 24_576, None),
            ("xhigh", 64_000, 24_576, Some("reasoning_effort xhigh as high")),
        ] {
            let mut dropped = Vec::new();
            let request = asking(effort, &json!({ "max_tokens": cap }));
            let config = thinking_config(&request, "gemini-2.5-flash", &mut dropped);
            assert_eq!(config, Some(json!({ "thinkingBudget": budget })), "{effort} {cap}");
            assert_eq!(dropped.iter().map(String::as_str).collect::<Vec<_>>(), noted.as_slice(), "{effort} {cap}");
        }
    }

    #[test]
    fn cohere_and_nova_get_it_where_their_models_reason() {
        let mut dropped = Vec::new();
        let medium = asking("medium", &Value::Null);
        let told = to_cohere(&medium, "command-a-reasoning-08-2025", &mut dropped);
        assert_eq!(told, Some(json!({ "type": "enabled", "token_budget": 8_192 })));
        let told = to_nova(&asking("high", &Value::Null), "us.amazon.nova-2-lite-v1:0", &mut dropped);
        assert_eq!(told, Some(json!({ "type": "enabled", "maxReasoningEffort": "high" })));
        assert!(dropped.is_empty());
        assert_eq!(to_cohere(&medium, "command-r", &mut dropped), None);
        assert_eq!(to_nova(&medium, "us.amazon.nova-lite-v1:0", &mut dropped), None);
        let capped = asking("high", &json!({ "max_tokens": 9 }));
        assert_eq!(to_nova(&capped, "amazon.nova-2-lite-v1:0", &mut dropped).unwrap()["maxReasoningEffort"], "medium");
        assert_eq!(dropped, ["reasoning_effort", "reasoning_effort high as medium"]);
    }
}
