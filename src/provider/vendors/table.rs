//! The rows. Wherever a row says nothing, the vendor is like any compatible server.

use super::errors::{AZURE_OPENAI, DASHSCOPE, GITHUB_MODELS, SILICONFLOW, ZAI};
use super::row::{Form, Tiers, Vendor};
use crate::domain::pack::PackBounds;
use crate::domain::prefix::CacheForm;
use crate::domain::{Charging, PromptCache, Tier};
use crate::provider::auth::KeyHeader;
use crate::provider::charging::{ANTHROPIC, AZURE, BEDROCK, GEMINI, GROQ, OPENAI};
use crate::provider::limit_headers::{Conventions, DAY, MINUTE, SECOND};
use crate::provider::model_habits::{anthropic_keeps, bedrock_keeps};
use crate::provider::quirks::{CapField, Quirks, owned, words};
use crate::provider::{
    anthropic, azure_openai, bedrock, cohere, completions, gemini, ollama, openai, openai_responses,
};
use serde_json::json;

/// The values that most rows share.
const PLAIN: Vendor = Vendor {
    name: "",
    hosts: &[],
    dialect: &openai::DIALECT,
    base_url: None,
    auth: None,
    charging: Charging::COMBINED,
    quirks: Quirks::compatible,
    limits: Conventions::NONE,
    tiers: Tiers::NONE,
    prompt_cache: |_| None,
    served_as: &[],
    embeds: None,
    errors: &[],
};

/// Beginnings that are shorter are not kept by OpenAI (A), and by hardly anyone.
const LEAST_KEPT: i64 = 1_024;

/// A vendor that keeps beginnings unasked, and finds them more often for requests that name the same key.
#[expect(clippy::unnecessary_wraps, reason = "a row says it by model, and some have none")]
fn by_key(_model: &str) -> Option<PromptCache> {
    Some(PromptCache { form: CacheForm::Key, min_tokens: LEAST_KEPT })
}

/// A vendor that keeps beginnings unasked.
#[expect(clippy::unnecessary_wraps, reason = "a row says it by model, and some have none")]
fn by_itself(_model: &str) -> Option<PromptCache> {
    Some(PromptCache { form: CacheForm::ByItself, min_tokens: LEAST_KEPT })
}

/// What OpenAI sells as `fast` was called `priority`, and still is in its answers. `default` is the usual tier, also in
/// projects that are set to another one.
const OF_OPENAI: Tiers = Tiers::called(
    "service_tier",
    &[Tier::spare("flex"), Tier::new("fast"), Tier::new("priority"), Tier::new("default")],
);

/// Flex only (A); it shares the quota of the deployment.
const OF_AZURE: Tiers = Tiers::called("service_tier", &[Tier::spare("flex")]);

/// Its answers say nothing of the tier.
const OF_GROQ: Tiers = Tiers::called(
    "service_tier",
    &[Tier::spare("flex").with_own_limits(), Tier::new("on_demand"), Tier::new("performance")],
);

const OF_FIREWORKS: Tiers =
    Tiers::called("service_tier", &[Tier::spare("flex"), Tier::new("priority"), Tier::new("default")]);

const OF_GEMINI: Tiers =
    Tiers::called("serviceTier", &[Tier::spare("flex"), Tier::new("priority"), Tier::new("standard")]);

/// Its fast mode is a speed there, and the price of a tier.
const OF_ANTHROPIC: Tiers = Tiers::called("speed", &[Tier::new("fast").with_own_limits()]);

const OF_BEDROCK: Tiers = Tiers {
    member: "serviceTier",
    form: Form::Typed,
    list: &[Tier::spare("flex"), Tier::new("priority"), Tier::new("default"), Tier::new("reserved")],
};

/// The known vendors.
pub static VENDORS: &[Vendor] = &[
    Vendor {
        name: "openai",
        hosts: &["api.openai.com"],
        base_url: Some("https://api.openai.com/v1"),
        charging: OPENAI,
        quirks: of_openai,
        tiers: OF_OPENAI,
        prompt_cache: by_key,
        ..PLAIN
    },
    Vendor {
        name: "openai",
        hosts: &["api.openai.com"],
        dialect: &openai_responses::DIALECT,
        base_url: Some("https://api.openai.com/v1"),
        charging: OPENAI,
        tiers: OF_OPENAI,
        prompt_cache: by_key,
        ..PLAIN
    },
    Vendor {
        name: "openai",
        hosts: &["api.openai.com"],
        dialect: &completions::DIALECT,
        base_url: Some("https://api.openai.com/v1"),
        charging: OPENAI,
        ..PLAIN
    },
    Vendor {
        name: "anthropic",
        hosts: &["api.anthropic.com"],
        dialect: &anthropic::DIALECT,
        base_url: Some("https://api.anthropic.com/v1"),
        charging: ANTHROPIC,
        tiers: OF_ANTHROPIC,
        prompt_cache: anthropic_keeps,
        ..PLAIN
    },
    // Its interface for OpenAI's dialect accepts a schema without heeding it.
    Vendor {
        name: "anthropic",
        hosts: &["api.anthropic.com"],
        base_url: Some("https://api.anthropic.com/v1"),
        charging: ANTHROPIC,
        quirks: || Quirks { json_schema: Some(false), ..Quirks::compatible() },
        ..PLAIN
    },
    Vendor {
        name: "gemini",
        hosts: &["generativelanguage.googleapis.com"],
        dialect: &gemini::DIALECT,
        base_url: Some("https://generativelanguage.googleapis.com/v1beta"),
        charging: GEMINI,
        tiers: OF_GEMINI,
        prompt_cache: by_itself,
        ..PLAIN
    },
    Vendor {
        name: "gemini",
        hosts: &["generativelanguage.googleapis.com"],
        base_url: Some("https://generativelanguage.googleapis.com/v1beta/openai"),
        charging: GEMINI,
        prompt_cache: by_itself,
        embeds: Some(PackBounds::of_inputs(100)),
        ..PLAIN
    },
    // It limits calls at once and no tokens (B).
    Vendor {
        name: "deepseek",
        hosts: &["api.deepseek.com"],
        base_url: Some("https://api.deepseek.com/v1"),
        quirks: || Quirks {
            // Only `json_object`; a schema is rejected.
            json_schema: Some(false),
            needs_json_word: true,
            plain_tool_names: true,
            max_stops: Some(16),
            // They have no effect there (B, K). Without the others the answer would be another one.
            drop: owned(&["presence_penalty", "frequency_penalty", "seed"]),
            refuse: owned(&["logit_bias"]),
            words: words(&[("reasoning_effort", "xhigh", "max")]),
            join_texts: true,
            empty_content_as_null: true,
            takes_developer: false,
            ..Quirks::compatible()
        },
        prompt_cache: by_itself,
        ..PLAIN
    },
    Vendor {
        name: "mistral",
        hosts: &["api.mistral.ai"],
        base_url: Some("https://api.mistral.ai/v1"),
        quirks: of_mistral,
        prompt_cache: by_key,
        // "Too many tokens in batch. Max is 16384", "Too many inputs in request" above 512 (B).
        embeds: Some(PackBounds { inputs: 512, tokens: Some(16_384) }),
        ..PLAIN
    },
    Vendor {
        name: "groq",
        hosts: &["api.groq.com"],
        base_url: Some("https://api.groq.com/openai/v1"),
        charging: GROQ,
        quirks: of_groq,
        // Requests per day, tokens per minute.
        limits: Conventions { requests_per: Some(DAY), tokens_per: Some(MINUTE), ..Conventions::NONE },
        tiers: OF_GROQ,
        prompt_cache: by_itself,
        ..PLAIN
    },
    Vendor {
        name: "together",
        hosts: &["api.together.xyz", "api.together.ai"],
        base_url: Some("https://api.together.xyz/v1"),
        quirks: || Quirks {
            drop: owned(&["parallel_tool_calls", "user"]),
            logprobs_as_number: true,
            stop_as_list: true,
            takes_developer: false,
            ..Quirks::compatible()
        },
        // Everything per second.
        limits: Conventions { plain_per: Some(SECOND), ..Conventions::NONE },
        ..PLAIN
    },
    Vendor {
        name: "fireworks",
        hosts: &["api.fireworks.ai"],
        base_url: Some("https://api.fireworks.ai/inference/v1"),
        quirks: || Quirks {
            // Its default silently shrinks the output cap when the prompt is long.
            add: vec![("context_length_exceeded_behavior".to_owned(), json!("error"))],
            words: words(&[("tool_choice", "required", "any")]),
            tools_with_schema: false,
            takes_developer: false,
            ..Quirks::compatible()
        },
        tiers: OF_FIREWORKS,
        prompt_cache: by_itself,
        ..PLAIN
    },
    Vendor {
        name: "openrouter",
        hosts: &["openrouter.ai"],
        base_url: Some("https://openrouter.ai/api/v1"),
        quirks: || Quirks {
            require_parameters: true,
            words: words(&[("reasoning_effort", "max", "xhigh")]),
            ..Quirks::compatible()
        },
        prompt_cache: by_itself,
        ..PLAIN
    },
    Vendor {
        name: "xai",
        hosts: &["api.x.ai"],
        base_url: Some("https://api.x.ai/v1"),
        quirks: || Quirks {
            cap_field: Some(CapField::MaxCompletionTokens),
            // Its reasoning models do take `temperature`; an operator's setting to the contrary counts.
            drop_when_reasoning: owned(SAMPLING_AND_STOP),
            drop: owned(&["tools[].function.strict"]),
            // It is ignored (B).
            refuse: owned(&["logit_bias"]),
            reasoning_outside: true,
            ..Quirks::compatible()
        },
        prompt_cache: by_itself,
        ..PLAIN
    },
    // Each resource has a host of its own, and two addresses: the classic one and v1.
    Vendor {
        name: "azure_openai",
        hosts: AZURE_HOSTS,
        dialect: &azure_openai::DIALECT,
        charging: AZURE,
        quirks: of_openai,
        errors: AZURE_OPENAI,
        tiers: OF_AZURE,
        served_as: ANY_MODEL,
        prompt_cache: by_key,
        ..PLAIN
    },
    // The v1 address accepts the key as a bearer token, too.
    Vendor {
        name: "azure_openai",
        hosts: AZURE_HOSTS,
        charging: AZURE,
        quirks: of_openai,
        errors: AZURE_OPENAI,
        tiers: OF_AZURE,
        served_as: ANY_MODEL,
        prompt_cache: by_key,
        ..PLAIN
    },
    Vendor {
        name: "azure_openai",
        hosts: AZURE_HOSTS,
        dialect: &openai_responses::DIALECT,
        auth: Some(KeyHeader::bare("api-key")),
        charging: AZURE,
        errors: AZURE_OPENAI,
        tiers: OF_AZURE,
        served_as: ANY_MODEL,
        prompt_cache: by_key,
        ..PLAIN
    },
    // How it counts tokens is unknown; it is assumed to count as OpenAI does.
    Vendor {
        name: "cerebras",
        hosts: &["api.cerebras.ai"],
        base_url: Some("https://api.cerebras.ai/v1"),
        charging: OPENAI,
        quirks: || Quirks {
            cap_field: Some(CapField::MaxCompletionTokens),
            drop: owned(&["messages[].reasoning_content", "frequency_penalty", "presence_penalty", "logit_bias"]),
            ..Quirks::compatible()
        },
        prompt_cache: by_itself,
        ..PLAIN
    },
    // Error codes of several vendors below have a table in `errors.rs`.
    //
    // Its envelope for errors inside a success is known everywhere. Penalties have no effect there, nor has
    // `logit_bias` (K).
    Vendor {
        name: "minimax",
        hosts: &["api.minimax.io", "api.minimaxi.com", "api.minimax.chat"],
        base_url: Some("https://api.minimax.io/v1"),
        quirks: || Quirks {
            drop: owned(&["presence_penalty", "frequency_penalty", "logit_bias"]),
            // Else the thoughts stand in the answer, between `<think>` and `</think>` (K).
            add: vec![("reasoning_split".to_owned(), json!(true))],
            takes_functions: false,
            takes_developer: false,
            ..Quirks::compatible()
        },
        prompt_cache: by_itself,
        ..PLAIN
    },
    // It limits calls at once; a schema is not in its API, and one stop sequence in a list is all it takes (K).
    Vendor {
        name: "zai",
        hosts: &["api.z.ai", "open.bigmodel.cn"],
        base_url: Some("https://api.z.ai/api/paas/v4"),
        quirks: || Quirks {
            json_schema: Some(false),
            max_stops: Some(1),
            stop_as_list: true,
            takes_functions: false,
            takes_developer: false,
            ..Quirks::compatible()
        },
        errors: ZAI,
        prompt_cache: by_itself,
        ..PLAIN
    },
    Vendor {
        name: "siliconflow",
        hosts: &["api.siliconflow.com", "api.siliconflow.cn"],
        base_url: Some("https://api.siliconflow.com/v1"),
        quirks: || Quirks { takes_functions: false, takes_developer: false, ..Quirks::compatible() },
        errors: SILICONFLOW,
        ..PLAIN
    },
    // Some of its models think unless `enable_thinking = false` is added (A).
    Vendor {
        name: "dashscope",
        hosts: &["dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"],
        base_url: Some("https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
        quirks: || Quirks {
            needs_json_word: true,
            // "only support stream mode" (A)
            stream_only_models: owned(&["qwq", "qvq", "-omni"]),
            takes_functions: false,
            takes_developer: false,
            ..Quirks::compatible()
        },
        // `text-embedding-v3` and later; earlier ones take 25 (A).
        embeds: Some(PackBounds::of_inputs(10)),
        errors: DASHSCOPE,
        prompt_cache: by_itself,
        ..PLAIN
    },
    Vendor {
        name: "github_models",
        hosts: &["models.github.ai", "models.inference.ai.azure.com"],
        base_url: Some("https://models.github.ai/inference"),
        errors: GITHUB_MODELS,
        ..PLAIN
    },
    // Servers of the user's own have no host by which they are known. They have no limits of tokens.
    Vendor {
        name: "vllm",
        quirks: || Quirks {
            // It checks types, and its parsers of calls reject `strict` (B).
            takes_null: false,
            drop: owned(&["tools[].function.strict", "tools[].function.parameters.additionalProperties"]),
            ..Quirks::compatible()
        },
        ..PLAIN
    },
    Vendor {
        name: "llama_cpp",
        // The same name means another form there (K), and the answer would be another one.
        quirks: || Quirks { refuse: owned(&["logit_bias"]), ..Quirks::compatible() },
        ..PLAIN
    },
    // The server at home, and its own API. The models in the cloud are behind the same doors.
    Vendor {
        name: "ollama",
        hosts: &["127.0.0.1", "localhost", "ollama.com"],
        dialect: &ollama::DIALECT,
        base_url: Some("http://127.0.0.1:11434"),
        ..PLAIN
    },
    // Its door for OpenAI's dialect knows none of these (A).
    Vendor {
        name: "ollama",
        hosts: &["ollama.com"],
        quirks: || Quirks {
            drop: owned(&["logprobs", "top_logprobs", "user", "parallel_tool_calls"]),
            refuse: owned(&["tool_choice", "logit_bias"]),
            takes_developer: false,
            ..Quirks::compatible()
        },
        ..PLAIN
    },
    // It limits calls a minute, and says nothing of tokens (A).
    Vendor {
        name: "cohere",
        hosts: &["api.cohere.com", "api.cohere.ai"],
        dialect: &cohere::DIALECT,
        base_url: Some("https://api.cohere.com/v2"),
        ..PLAIN
    },
    // Each region has a host of its own.
    Vendor {
        name: "bedrock",
        hosts: &["amazonaws.com", "amazonaws.com.cn", "api.aws", "api.amazonwebservices.com.cn"],
        dialect: &bedrock::DIALECT,
        charging: BEDROCK,
        tiers: OF_BEDROCK,
        prompt_cache: bedrock_keeps,
        ..PLAIN
    },
    // The same models by OpenAI's dialect, with the same keys. Its hosts are told from others of that domain by how
    // they begin, so it is known by its name alone.
    Vendor { name: "bedrock", charging: BEDROCK, ..PLAIN },
    #[cfg(test)]
    MADE_UP,
];

/// A vendor that differs in everything that a row can say. For tests.
#[cfg(test)]
const MADE_UP: Vendor = Vendor {
    name: "acme_ai",
    hosts: &["api.acme-ai.example"],
    base_url: Some("https://api.acme-ai.example/v7?tenant=main"),
    auth: Some(KeyHeader::bare("x-acme-key")),
    charging: GROQ,
    quirks: || Quirks {
        cap_field: Some(CapField::MaxCompletionTokens),
        drop: vec!["user".to_owned()],
        rename: vec![("seed".to_owned(), "dice".to_owned())],
        ..Quirks::compatible()
    },
    limits: Conventions { requests_per: Some(SECOND), tokens_per: Some(DAY), ..Conventions::NONE },
    errors: ACME_ERRORS,
    ..PLAIN
};

#[cfg(test)]
const ACME_ERRORS: &[crate::provider::classify::Rule] = {
    use crate::domain::{ErrorClass, Scope};
    // Other vendors say this of a request.
    &[crate::provider::classify::Rule::code(&["invalid_prompt"], ErrorClass::QuotaExhausted, Scope::Key)]
};

/// Deployments there have arbitrary names, and answers name the model behind them.
const ANY_MODEL: &[&str] = &["*"];

const AZURE_HOSTS: &[&str] = &["openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"];

const SAMPLING_AND_STOP: &[&str] =
    &["temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "stop"];

fn only(path: &str, names: &[&str]) -> (String, Vec<String>) {
    (path.to_owned(), owned(names))
}

fn of_openai() -> Quirks {
    Quirks {
        cap_field: Some(CapField::MaxCompletionTokens),
        drop_when_reasoning: owned(SAMPLING_AND_STOP),
        needs_json_word: true,
        plain_tool_names: true,
        max_call_id: Some(40),
        max_stops: Some(4),
        checks_strict: true,
        ..Quirks::compatible()
    }
}

/// Mistral's API answers unknown members with a 422, at any depth.
fn of_mistral() -> Quirks {
    Quirks {
        rename: [("seed", "random_seed"), ("dimensions", "output_dimension")]
            .map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned()))
            .to_vec(),
        takes_only: vec![
            only("", MISTRALS),
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
        ..Quirks::compatible()
    }
}

/// The members of a body that Mistral knows.
const MISTRALS: &[&str] = &[
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
];

fn of_groq() -> Quirks {
    Quirks {
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
        // Thoughts in the text beside tools or JSON are an error (A).
        drop_with_tools: owned(&["reasoning_format"]),
        json_schema_models: owned(&["gpt-oss", "kimi-k2", "llama-4"]),
        tools_with_schema: false,
        needs_json_word: true,
        plain_tool_names: true,
        max_stops: Some(4),
        takes_null: false,
        takes_functions: false,
        takes_developer: false,
        ..Quirks::compatible()
    }
}
