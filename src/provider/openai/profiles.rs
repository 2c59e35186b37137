//! What compatible servers do differently, by host.

use super::Openai;
use crate::provider::limit_headers::Conventions;

/// The member of the body that carries the output cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapField {
    /// Understood by nearly every compatible server.
    MaxTokens,
    /// Demanded by OpenAI's reasoning models, which reject the other.
    MaxCompletionTokens,
}

impl CapField {
    /// The member's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// What a server does differently from the others.
#[expect(clippy::struct_excessive_bools, reason = "each is an independent habit of a server")]
#[derive(Clone, Copy, Debug)]
pub struct Quirks {
    /// Where the output cap goes.
    pub cap_field: CapField,
    /// Parameters that the server never takes: dropped, visibly.
    pub never: &'static [&'static str],
    /// Parameters that models without sampling (capability `temperature = false`: reasoning models) do not take.
    pub never_when_reasoning: &'static [&'static str],
    /// Parameters under another name: (ours, theirs).
    pub renamed: &'static [(&'static str, &'static str)],
    /// Members that every body gets unless the request has its own.
    pub added: &'static [(&'static str, &'static str)],
    /// Takes `response_format: json_schema`, where the model's capabilities say nothing.
    pub json_schema: bool,
    /// Wants `provider.require_parameters`, else its router may pick an upstream that ignores the schema.
    pub require_parameters: bool,
    /// Tool call ids have to be nine letters or digits.
    pub short_call_ids: bool,
    /// `completion_tokens` does not include reasoning. Where a total is reported it decides, not this.
    pub reasoning_outside: bool,
    /// What rate limit headers mean.
    pub limits: Conventions,
}

/// What reasoning models of this dialect reject with a 400.
const SAMPLING: &[&str] =
    &["temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs"];
const SAMPLING_AND_STOP: &[&str] =
    &["temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "stop"];

impl Quirks {
    /// Any server of which nothing else is known (vLLM, llama.cpp, Ollama's `/v1`, gateways).
    pub const COMPATIBLE: Self = Self {
        cap_field: CapField::MaxTokens,
        never: &[],
        never_when_reasoning: SAMPLING,
        renamed: &[],
        added: &[],
        json_schema: true,
        require_parameters: false,
        short_call_ids: false,
        reasoning_outside: false,
        limits: Conventions::NONE,
    };

    const OPENAI: Self =
        Self { cap_field: CapField::MaxCompletionTokens, never_when_reasoning: SAMPLING_AND_STOP, ..Self::COMPATIBLE };
}

/// The quirks of one host.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// The host, or the domain that its host is in.
    pub domain: &'static str,
    /// How it is spoken to.
    pub adapter: Openai,
}

impl Profile {
    const fn new(domain: &'static str, quirks: Quirks) -> Self {
        Self { domain, adapter: Openai { quirks } }
    }

    /// Whether `host` (in lower case) is the domain or inside it.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        host.strip_suffix(self.domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// The hosts with quirks.
pub static PROFILES: &[Profile] = &[
    Profile::new("api.openai.com", Quirks::OPENAI),
    Profile::new("openai.azure.com", Quirks::OPENAI),
    Profile::new(
        "api.mistral.ai",
        // Unknown members are a 422 here.
        Quirks {
            renamed: &[("seed", "random_seed")],
            never: &["logprobs", "top_logprobs", "logit_bias", "user"],
            short_call_ids: true,
            ..Quirks::COMPATIBLE
        },
    ),
    Profile::new(
        "api.groq.com",
        Quirks {
            cap_field: CapField::MaxCompletionTokens,
            never: &["logprobs", "top_logprobs", "logit_bias", "name"],
            limits: Conventions::GROQ,
            ..Quirks::COMPATIBLE
        },
    ),
    // Only `json_object`; a schema is rejected.
    Profile::new("api.deepseek.com", Quirks { json_schema: false, ..Quirks::COMPATIBLE }),
    Profile::new("api.together.xyz", Quirks { limits: Conventions::TOGETHER, ..Quirks::COMPATIBLE }),
    Profile::new("api.together.ai", Quirks { limits: Conventions::TOGETHER, ..Quirks::COMPATIBLE }),
    Profile::new(
        "api.fireworks.ai",
        // Its default silently shrinks the output cap when the prompt is long.
        Quirks { added: &[("context_length_exceeded_behavior", "error")], ..Quirks::COMPATIBLE },
    ),
    Profile::new("openrouter.ai", Quirks { require_parameters: true, ..Quirks::COMPATIBLE }),
    Profile::new(
        "api.x.ai",
        Quirks {
            cap_field: CapField::MaxCompletionTokens,
            // Its reasoning models do take `temperature`; an operator who says otherwise is believed.
            never_when_reasoning: SAMPLING_AND_STOP,
            reasoning_outside: true,
            ..Quirks::COMPATIBLE
        },
    ),
];
