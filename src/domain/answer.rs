//! What a provider answered, in one shape for all dialects.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why generation ended (reference: the finish classes that all dialects are mapped to).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model was done.
    Complete,
    /// Cut at the output cap or the context window.
    Length,
    /// The provider cut or blocked output or prompt.
    ContentFilter,
    /// The model declined.
    Refusal,
    /// The model asks for a tool.
    ToolCall,
    /// The turn is unfinished and may be continued.
    Pause,
    /// Generation failed inside an HTTP success.
    Error,
    /// A value this version does not know; the raw string is kept beside it.
    Unknown,
}

impl Finish {
    /// The value in OpenAI's `finish_reason` that says the same.
    #[must_use]
    pub fn as_openai(self) -> &'static str {
        match self {
            Self::Complete | Self::Refusal | Self::Unknown => "stop",
            Self::Length | Self::Pause => "length",
            Self::ContentFilter => "content_filter",
            Self::ToolCall => "tool_calls",
            Self::Error => "error",
        }
    }
}

/// A call that the model wants made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id of the call; made up from its position when the dialect has none.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments: a JSON text, as the model wrote it.
    pub arguments: String,
}

/// Where token counts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider reported them.
    Provider,
    /// Sluice estimated them, because the provider said nothing.
    Estimated,
    /// Nothing is known.
    #[default]
    Unknown,
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
    /// Who says so.
    pub source: UsageSource,
}

impl Usage {
    /// All input tokens, cached or not.
    #[must_use]
    pub fn total_input(&self) -> i64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write).saturating_add(self.cache_write_1h)
    }
}

/// A decoded answer. Whether it is any good is for validation to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The text, all text parts joined; `None` when the provider sent none.
    pub text: Option<String>,
    /// Text with which the model declined, where the dialect tells it apart.
    pub refusal: Option<String>,
    /// Reasoning that the provider showed apart from the answer. Never promoted to an answer.
    pub reasoning: Option<String>,
    /// Tools the model asks for.
    pub tool_calls: Vec<ToolCall>,
    /// Why generation ended.
    pub finish: Finish,
    /// The same in the provider's own word.
    pub finish_raw: Option<String>,
    /// The model that the provider says it was.
    pub model: Option<String>,
    /// The provider's id of the answer (`chatcmpl-…`, `msg_…`).
    pub id: Option<String>,
    /// Tokens, normalised.
    pub usage: Usage,
    /// The provider's usage object as it came: what prices can be recomputed from.
    pub usage_raw: Option<Value>,
}

impl Answer {
    /// The answer as an OpenAI chat completion: what results and exports hold, whoever answered.
    ///
    /// NUL characters are replaced with U+FFFD because Postgres cannot store them.
    #[must_use]
    pub fn to_chat_completion(&self, model: &str, created_seconds: i64) -> Value {
        let clean = |s: &str| Value::from(if s.contains('\0') { s.replace('\0', "\u{fffd}") } else { s.to_owned() });
        let mut message = serde_json::Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), self.text.as_deref().map_or(Value::Null, clean));
        if let Some(refusal) = &self.refusal {
            message.insert("refusal".into(), clean(refusal));
        }
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().map(|call| {
                serde_json::json!({
                    "id": clean(&call.id), "type": "function",
                    "function": { "name": clean(&call.name), "arguments": clean(&call.arguments) },
                })
            });
            message.insert("tool_calls".into(), calls.collect());
        }
        let usage = &self.usage;
        serde_json::json!({
            "id": clean(self.id.as_deref().unwrap_or("")),
            "object": "chat.completion",
            "created": created_seconds,
            "model": clean(self.model.as_deref().unwrap_or(model)),
            "choices": [{ "index": 0, "message": message, "finish_reason": self.finish.as_openai() }],
            "usage": {
                "prompt_tokens": usage.total_input(),
                "completion_tokens": usage.output,
                "total_tokens": usage.total_input().saturating_add(usage.output),
                "prompt_tokens_details": { "cached_tokens": usage.cache_read },
                "completion_tokens_details": { "reasoning_tokens": usage.reasoning },
            },
        })
    }
}
