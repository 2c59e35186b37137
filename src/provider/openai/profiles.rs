//! What compatible servers do differently: by vendor, else by host.

use super::Openai;
use crate::provider::limit_headers::Conventions;
use crate::provider::quirks::QuirkSettings;
use serde_json::{Value, json};
use std::sync::LazyLock;

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

    /// The field of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::MaxTokens, Self::MaxCompletionTokens].into_iter().find(|field| field.as_str() == name)
    }
}

/// What a server does differently from the others. Every one of them can be configured: see [`QuirkSettings`].
#[expect(clippy::struct_excessive_bools, reason = "each is an independent habit of a server")]
#[derive(Clone, Debug, PartialEq)]
pub struct Quirks {
    /// Where the output cap goes. `None`: where the model's name says, else `max_tokens`.
    pub cap_field: Option<CapField>,
    /// Members that the server never takes, by their paths (`user`, `messages[].name`): dropped, visibly.
    pub drop: Vec<String>,
    /// Members that are sent whatever else is known of the server or the model.
    pub keep: Vec<String>,
    /// Members that models without sampling (capability `temperature = false`: reasoning models) do not take.
    pub drop_when_reasoning: Vec<String>,
    /// The members that the server takes, for those that reject any other; by the path of the object that has them,
    /// empty for the body itself.
    pub takes_only: Vec<(String, Vec<String>)>,
    /// Members under another name: (ours, theirs).
    pub rename: Vec<(String, String)>,
    /// Members that every body gets unless the request has its own.
    pub add: Vec<(String, Value)>,
    /// Takes `response_format: json_schema`, where the model's capabilities say nothing.
    pub json_schema: bool,
    /// Models that take a schema, by parts of their names, where only some do. Empty: all.
    pub json_schema_models: Vec<String>,
    /// Takes tools and a JSON schema in one request.
    pub tools_with_schema: bool,
    /// Demands that the messages have the word JSON beside `response_format: json_object`.
    pub needs_json_word: bool,
    /// Wants `provider.require_parameters`, else its router may pick an upstream that ignores the schema.
    pub require_parameters: bool,
    /// Tool call ids have to be nine letters or digits.
    pub short_call_ids: bool,
    /// Tool call ids have at most so many characters.
    pub max_call_id: Option<usize>,
    /// Rejects a conversation whose last message is the assistant's.
    pub needs_user_last: bool,
    /// Rejects `strict` beside a schema that leaves anything open.
    pub checks_strict: bool,
    /// Names of functions have to be of letters, digits, `_` and `-`, at most 64.
    pub plain_tool_names: bool,
    /// Stop sequences at most.
    pub max_stops: Option<usize>,
    /// `stop` has to be a list.
    pub stop_as_list: bool,
    /// Wants the text of a message as one string, not as a list of parts.
    pub join_texts: bool,
    /// Rejects an empty string as the content of a turn that calls tools.
    pub empty_content_as_null: bool,
    /// Takes members that are `null`.
    pub takes_null: bool,
    /// Takes the deprecated `functions`.
    pub takes_functions: bool,
    /// Takes the role `developer`, OpenAI's newer word for `system`.
    pub takes_developer: bool,
    /// Whether what is known of models by their names counts here.
    pub model_rules: bool,
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

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn only(path: &str, names: &[&str]) -> (String, Vec<String>) {
    (path.to_owned(), owned(names))
}

fn pair(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

impl Quirks {
    /// Any server of which nothing else is known (vLLM, llama.cpp, Ollama's `/v1`, gateways).
    #[must_use]
    pub fn compatible() -> Self {
        Self {
            cap_field: None,
            drop: Vec::new(),
            keep: Vec::new(),
            drop_when_reasoning: owned(SAMPLING),
            takes_only: Vec::new(),
            rename: Vec::new(),
            add: Vec::new(),
            json_schema: true,
            json_schema_models: Vec::new(),
            tools_with_schema: true,
            needs_json_word: false,
            require_parameters: false,
            short_call_ids: false,
            max_call_id: None,
            needs_user_last: false,
            checks_strict: false,
            plain_tool_names: false,
            max_stops: None,
            stop_as_list: false,
            join_texts: false,
            empty_content_as_null: false,
            takes_null: true,
            takes_functions: true,
            takes_developer: true,
            model_rules: true,
            reasoning_outside: false,
            limits: Conventions::NONE,
        }
    }

    fn openai() -> Self {
        Self {
            cap_field: Some(CapField::MaxCompletionTokens),
            drop_when_reasoning: owned(SAMPLING_AND_STOP),
            needs_json_word: true,
            plain_tool_names: true,
            max_call_id: Some(40),
            max_stops: Some(4),
            checks_strict: true,
            ..Self::compatible()
        }
    }

    /// Unknown members are a 422 here, at any depth.
    fn mistral() -> Self {
        Self {
            rename: vec![pair("seed", "random_seed")],
            takes_only: vec![
                only(
                    "",
                    &[
                        "model",
                        "messages",
                        "temperature",
                        "top_p",
                        "top_k",
                        "max_tokens",
                        "stream",
                        "stop",
                        "seed",
                        "random_seed",
                        "metadata",
                        "response_format",
                        "tools",
                        "tool_choice",
                        "parallel_tool_calls",
                        "presence_penalty",
                        "frequency_penalty",
                        "n",
                        "prediction",
                        "prompt_mode",
                        "prompt_cache_key",
                        "reasoning_effort",
                        "safe_prompt",
                        "guardrails",
                        "document_image_limit",
                        "document_page_limit",
                    ],
                ),
                only("messages[]", &["role", "content", "tool_calls", "tool_call_id", "prefix"]),
                only("messages[].tool_calls[]", &["id", "type", "function", "index"]),
                only("tools[]", &["type", "function"]),
                only("tools[].function", &["name", "description", "parameters", "strict"]),
            ],
            drop: owned(&["messages[].content[].cache_control"]),
            short_call_ids: true,
            needs_user_last: true,
            plain_tool_names: true,
            takes_null: false,
            takes_functions: false,
            takes_developer: false,
            ..Self::compatible()
        }
    }

    fn groq() -> Self {
        Self {
            cap_field: Some(CapField::MaxCompletionTokens),
            drop: owned(&[
                "logprobs",
                "top_logprobs",
                "logit_bias",
                "messages[].name",
                "messages[].content[].cache_control",
            ]),
            // "property 'reasoning_content' is unsupported"
            takes_only: vec![
                only("messages[]", &["role", "content", "name", "tool_calls", "tool_call_id", "reasoning"]),
                only("messages[].tool_calls[]", &["id", "type", "function"]),
                only("tools[]", &["type", "function"]),
            ],
            json_schema_models: owned(&["gpt-oss", "kimi-k2", "llama-4"]),
            tools_with_schema: false,
            needs_json_word: true,
            plain_tool_names: true,
            max_stops: Some(4),
            takes_null: false,
            takes_functions: false,
            takes_developer: false,
            limits: Conventions::GROQ,
            ..Self::compatible()
        }
    }

    fn deepseek() -> Self {
        Self {
            // Only `json_object`; a schema is rejected.
            json_schema: false,
            needs_json_word: true,
            plain_tool_names: true,
            max_stops: Some(16),
            join_texts: true,
            empty_content_as_null: true,
            takes_developer: false,
            ..Self::compatible()
        }
    }

    fn together() -> Self {
        Self {
            drop: owned(&["parallel_tool_calls", "user", "top_logprobs"]),
            stop_as_list: true,
            takes_developer: false,
            limits: Conventions::TOGETHER,
            ..Self::compatible()
        }
    }

    fn fireworks() -> Self {
        Self {
            // Its default silently shrinks the output cap when the prompt is long.
            add: vec![("context_length_exceeded_behavior".to_owned(), json!("error"))],
            tools_with_schema: false,
            takes_developer: false,
            ..Self::compatible()
        }
    }

    fn openrouter() -> Self {
        Self { require_parameters: true, ..Self::compatible() }
    }

    fn xai() -> Self {
        Self {
            cap_field: Some(CapField::MaxCompletionTokens),
            // Its reasoning models do take `temperature`; an operator who says otherwise is believed.
            drop_when_reasoning: owned(SAMPLING_AND_STOP),
            drop: owned(&["tools[].function.strict"]),
            reasoning_outside: true,
            ..Self::compatible()
        }
    }

    /// Anthropic's and others' endpoints for this dialect that let a schema pass without heeding it.
    fn heeds_no_schema() -> Self {
        Self { json_schema: false, ..Self::compatible() }
    }

    fn cerebras() -> Self {
        Self {
            cap_field: Some(CapField::MaxCompletionTokens),
            drop: owned(&["messages[].reasoning_content", "frequency_penalty", "presence_penalty", "logit_bias"]),
            ..Self::compatible()
        }
    }

    /// With what an operator says over it.
    #[must_use]
    pub fn with(mut self, settings: &QuirkSettings) -> Self {
        let QuirkSettings {
            cap_field,
            drop,
            keep,
            drop_when_reasoning,
            takes_only,
            rename,
            add,
            json_schema,
            tools_with_schema,
            needs_json_word,
            require_parameters,
            short_call_ids,
            max_call_id,
            needs_user_last,
            checks_strict,
            plain_tool_names,
            max_stops,
            stop_as_list,
            join_texts,
            empty_content_as_null,
            takes_null,
            takes_functions,
            takes_developer,
            model_rules,
            reasoning_outside,
            limit_headers,
        } = settings;
        self.cap_field = cap_field.or(self.cap_field);
        self.drop.extend(drop.iter().cloned());
        self.drop.retain(|name| !keep.contains(name));
        self.keep.extend(keep.iter().cloned());
        if let Some(names) = drop_when_reasoning {
            self.drop_when_reasoning.clone_from(names);
        }
        if let Some(names) = takes_only {
            self.takes_only = if names.is_empty() { Vec::new() } else { vec![(String::new(), names.clone())] };
        }
        self.rename.retain(|(from, _)| !rename.iter().any(|(ours, _)| ours == from));
        // Its own name: not renamed.
        self.rename.extend(rename.iter().filter(|(from, to)| from != to).cloned());
        self.add.retain(|(name, _)| !add.iter().any(|(own, _)| own == name));
        self.add.extend(add.iter().filter(|(_, value)| !value.is_null()).cloned());
        if let Some(takes) = json_schema {
            self.json_schema = *takes;
            // Who says so knows the models.
            self.json_schema_models.clear();
        }
        let flags = [
            (&mut self.tools_with_schema, tools_with_schema),
            (&mut self.needs_json_word, needs_json_word),
            (&mut self.require_parameters, require_parameters),
            (&mut self.short_call_ids, short_call_ids),
            (&mut self.needs_user_last, needs_user_last),
            (&mut self.checks_strict, checks_strict),
            (&mut self.plain_tool_names, plain_tool_names),
            (&mut self.stop_as_list, stop_as_list),
            (&mut self.join_texts, join_texts),
            (&mut self.empty_content_as_null, empty_content_as_null),
            (&mut self.takes_null, takes_null),
            (&mut self.takes_functions, takes_functions),
            (&mut self.takes_developer, takes_developer),
            (&mut self.model_rules, model_rules),
            (&mut self.reasoning_outside, reasoning_outside),
        ];
        for (own, said) in flags {
            *own = said.unwrap_or(*own);
        }
        self.max_stops = max_stops.or(self.max_stops);
        self.max_call_id = max_call_id.or(self.max_call_id);
        self.limits = limit_headers.unwrap_or(self.limits);
        self
    }
}

/// The quirks of one vendor.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The vendor's name in the configuration.
    pub vendor: &'static str,
    /// Its hosts, or the domains that its hosts are in.
    pub domains: &'static [&'static str],
    /// How it is spoken to.
    pub adapter: Openai,
}

impl Profile {
    fn new(vendor: &'static str, domains: &'static [&'static str], quirks: Quirks) -> Self {
        Self { vendor, domains, adapter: Openai { quirks } }
    }

    /// Whether `host` (in lower case) is one of the domains or inside it.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        self.domains
            .iter()
            .any(|domain| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    }
}

/// The vendors with quirks.
pub static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    vec![
        Profile::new("openai", &["api.openai.com"], Quirks::openai()),
        Profile::new(
            "azure_openai",
            &["openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"],
            Quirks::openai(),
        ),
        Profile::new("mistral", &["api.mistral.ai"], Quirks::mistral()),
        Profile::new("groq", &["api.groq.com"], Quirks::groq()),
        Profile::new("deepseek", &["api.deepseek.com"], Quirks::deepseek()),
        Profile::new("together", &["api.together.xyz", "api.together.ai"], Quirks::together()),
        Profile::new("fireworks", &["api.fireworks.ai"], Quirks::fireworks()),
        Profile::new("openrouter", &["openrouter.ai"], Quirks::openrouter()),
        Profile::new("xai", &["api.x.ai"], Quirks::xai()),
        Profile::new("cerebras", &["api.cerebras.ai"], Quirks::cerebras()),
        Profile::new("anthropic", &["api.anthropic.com"], Quirks::heeds_no_schema()),
    ]
});
