//! The top-level members of a body that some provider knows: OpenAI's own, and those of vendors and servers that speak
//! its dialect. The table is generous, and it does not judge: a member that it does not list is sent all the same, and
//! named.

use super::ChatRequest;
use super::own_rules::VALIDATE;
use crate::domain::defaults::VARS;
use serde_json::{Value, json};

/// The kinds of value that a member may have. A name alone is not enough: a column of a table may be called `provider`
/// too.
#[derive(Clone, Copy)]
enum Kind {
    Flag,
    Number,
    Text,
    Object,
    List,
}
use Kind::{Flag, List, Number, Object, Text};

const KNOWN: &[(&str, &[Kind])] = &[
    // Chat completions.
    ("messages", &[List]),
    ("prompt", &[Text]),
    ("model", &[Text]),
    ("audio", &[Object]),
    ("frequency_penalty", &[Number]),
    ("function_call", &[Text, Object]),
    ("functions", &[List]),
    ("logit_bias", &[Object]),
    ("logprobs", &[Flag, Number]),
    ("max_completion_tokens", &[Number]),
    ("max_tokens", &[Number]),
    ("metadata", &[Object]),
    ("modalities", &[List]),
    ("moderation", &[Object]),
    ("n", &[Number]),
    ("parallel_tool_calls", &[Flag]),
    ("prediction", &[Object]),
    ("presence_penalty", &[Number]),
    ("prompt_cache_key", &[Text]),
    ("prompt_cache_options", &[Object]),
    ("prompt_cache_retention", &[Text]),
    ("reasoning_effort", &[Text, Number]),
    ("response_format", &[Object]),
    ("safety_identifier", &[Text]),
    ("seed", &[Number]),
    ("service_tier", &[Text]),
    ("stop", &[Text, List]),
    ("store", &[Flag]),
    ("stream", &[Flag]),
    ("stream_options", &[Object]),
    ("temperature", &[Number]),
    ("tool_choice", &[Text, Object]),
    ("tools", &[List]),
    ("top_logprobs", &[Number]),
    ("top_p", &[Number]),
    ("user", &[Text]),
    ("verbosity", &[Text]),
    ("web_search_options", &[Object]),
    // Ours.
    (VALIDATE, &[Object]),
    // Azure.
    ("data_sources", &[List]),
    ("user_security_context", &[Object]),
    // Mistral.
    ("document_image_limit", &[Number]),
    ("document_page_limit", &[Number]),
    ("guardrails", &[List]),
    ("prompt_mode", &[Text]),
    ("random_seed", &[Number]),
    ("safe_prompt", &[Flag]),
    // Groq.
    ("citation_options", &[Text, Object]),
    ("compound_custom", &[Object]),
    ("disable_tool_validation", &[Flag]),
    ("documents", &[List]),
    ("exclude_domains", &[List]),
    ("include_domains", &[List]),
    ("include_reasoning", &[Flag]),
    ("reasoning_format", &[Text]),
    ("search_settings", &[Object]),
    // OpenRouter.
    ("cache_control", &[Object]),
    ("include", &[List]),
    ("models", &[List]),
    ("plugins", &[List]),
    ("provider", &[Object]),
    ("reasoning", &[Object]),
    ("route", &[Text]),
    ("session_id", &[Text]),
    ("top_a", &[Number]),
    ("trace", &[Object]),
    ("transforms", &[List]),
    ("usage", &[Object]),
    // xAI, DeepSeek, Perplexity and others.
    ("deferred", &[Flag]),
    ("search_parameters", &[Object]),
    ("search_mode", &[Text]),
    ("search_domain_filter", &[List]),
    ("return_images", &[Flag]),
    ("return_related_questions", &[Flag]),
    ("thinking", &[Object]),
    ("enable_search", &[Flag]),
    ("enable_thinking", &[Flag]),
    ("thinking_budget", &[Number]),
    ("tool_stream", &[Flag]),
    // Together, Fireworks.
    ("compliance", &[Text]),
    ("context_length_exceeded_behavior", &[Text]),
    ("echo", &[Flag]),
    ("ignore_eos", &[Flag]),
    ("mirostat_lr", &[Number]),
    ("mirostat_target", &[Number]),
    ("perf_metrics_in_response", &[Flag]),
    ("prompt_truncate_len", &[Number]),
    ("raw_output", &[Flag]),
    ("reasoning_history", &[Text]),
    ("repetition_penalty", &[Number]),
    ("safety_model", &[Text]),
    ("speculation", &[Text, List]),
    ("top_k", &[Number]),
    ("typical_p", &[Number]),
    // vLLM, SGLang, llama.cpp, Ollama.
    ("add_generation_prompt", &[Flag]),
    ("add_special_tokens", &[Flag]),
    ("allowed_token_ids", &[List]),
    ("bad_words", &[List]),
    ("best_of", &[Number]),
    ("cache_prompt", &[Flag]),
    ("cache_salt", &[Text]),
    ("chat_template", &[Text]),
    ("chat_template_kwargs", &[Object]),
    ("continue_final_message", &[Flag]),
    ("custom_params", &[Object]),
    ("dry_allowed_length", &[Number]),
    ("dry_base", &[Number]),
    ("dry_multiplier", &[Number]),
    ("dry_penalty_last_n", &[Number]),
    ("dry_sequence_breakers", &[List]),
    ("dynatemp_exponent", &[Number]),
    ("dynatemp_range", &[Number]),
    ("ebnf", &[Text]),
    ("format", &[Text, Object]),
    ("grammar", &[Text, Object]),
    ("guided_choice", &[List]),
    ("guided_decoding_backend", &[Text]),
    ("guided_grammar", &[Text]),
    ("guided_json", &[Text, Object]),
    ("guided_regex", &[Text]),
    ("guided_whitespace_pattern", &[Text]),
    ("id_slot", &[Number]),
    ("include_stop_str_in_output", &[Flag]),
    ("json_schema", &[Object]),
    ("keep_alive", &[Text, Number]),
    ("kv_transfer_params", &[Object]),
    ("length_penalty", &[Number]),
    ("logits_processors", &[List]),
    ("lora", &[List]),
    ("lora_path", &[Text]),
    ("min_keep", &[Number]),
    ("min_p", &[Number]),
    ("min_tokens", &[Number]),
    ("mirostat", &[Number]),
    ("mirostat_eta", &[Number]),
    ("mirostat_tau", &[Number]),
    ("mm_processor_kwargs", &[Object]),
    ("n_predict", &[Number]),
    ("n_probs", &[Number]),
    ("no_stop_trim", &[Flag]),
    ("options", &[Object]),
    ("priority", &[Number]),
    ("prompt_logprobs", &[Number]),
    ("regex", &[Text]),
    ("repeat_last_n", &[Number]),
    ("repeat_penalty", &[Number]),
    ("return_token_ids", &[Flag]),
    ("return_tokens_as_token_ids", &[Flag]),
    ("samplers", &[List, Text]),
    ("separate_reasoning", &[Flag]),
    ("skip_special_tokens", &[Flag]),
    ("spaces_between_special_tokens", &[Flag]),
    ("stop_token_ids", &[List]),
    ("stream_reasoning", &[Flag]),
    ("structured_outputs", &[Object]),
    ("t_max_predict_ms", &[Number]),
    ("think", &[Flag, Text]),
    ("timings_per_token", &[Flag]),
    ("truncate_prompt_tokens", &[Number]),
    ("use_beam_search", &[Flag]),
    ("vllm_xargs", &[Object]),
    ("xtc_probability", &[Number]),
    ("xtc_threshold", &[Number]),
    // Members that clients and gateways put around the rest.
    ("extra_body", &[Object]),
    ("extra_headers", &[Object]),
    ("guardrail_config", &[Object]),
];

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Flag => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::Text => value.is_string(),
            Self::Object => value.is_object(),
            Self::List => value.is_array(),
        }
    }
}

/// Whether some provider knows a top-level member of this name with a value of this kind. A member that the parser
/// reads is known with any value, so that a value of the wrong kind is a fault and not an unknown member.
#[must_use]
pub fn is_known_member(name: &str, value: &Value) -> bool {
    const READ: &[&str] = &[
        "messages",
        "prompt",
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "response_format",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "reasoning_effort",
        "stream",
    ];
    READ.contains(&name)
        || (name == VARS && value.is_object())
        || KNOWN
            .iter()
            .any(|(known, kinds)| *known == name && (value.is_null() || kinds.iter().any(|kind| kind.fits(value))))
}

/// Members of a body with `input` that some provider knows.
const OF_EMBEDDINGS: &[&str] = &[
    "input",
    "model",
    "dimensions",
    "encoding_format",
    "user",
    "stream",
    // Cohere, Voyage, Mistral, Jina, OpenRouter, NVIDIA.
    "input_type",
    "truncate",
    "truncation",
    "output_dimension",
    "output_dtype",
    "embedding_types",
    "embedding_type",
    "task",
    "task_type",
    "late_chunking",
    "normalized",
    "provider",
    // vLLM, Ollama.
    "truncate_prompt_tokens",
    "truncation_side",
    "add_special_tokens",
    "priority",
    "request_id",
    "keep_alive",
    "options",
];

/// Whether some provider knows a member of this name in a request for embeddings.
#[must_use]
pub fn is_known_of_embeddings(name: &str) -> bool {
    OF_EMBEDDINGS.contains(&name)
}

/// Whether some provider knows a top-level member of this name, regardless of its value.
#[must_use]
pub fn is_known_name(name: &str) -> bool {
    KNOWN.iter().any(|(known, _)| *known == name)
}

/// Whether no provider is known to take a member of this name, neither of a conversation nor of an embedding.
#[must_use]
pub fn is_foreign(name: &str) -> bool {
    !is_known_name(name) && !is_known_of_embeddings(name) && name != VARS
}

/// The smallest request with this member, with a value that such a member has; `None`: the member is not known, or a
/// small value would not show what becomes of it.
#[must_use]
pub fn sample_with(member: &str) -> Option<ChatRequest> {
    let mut body = json!({ "messages": [{ "role": "user", "content": "?" }] });
    let tool = json!({ "type": "function", "function": { "name": "a", "parameters": { "type": "object" } } });
    let value = match member {
        "messages[].name" => {
            *body.pointer_mut("/messages/0")? = json!({ "role": "user", "content": "?", "name": "a" });
            return ChatRequest::parse(&body).ok();
        }
        "messages" | "prompt" | VALIDATE => return None,
        "tools" => json!([tool]),
        "tool_choice" | "parallel_tool_calls" => {
            body["tools"] = json!([tool]);
            if member == "tool_choice" { json!("auto") } else { json!(false) }
        }
        "response_format" => json!({ "type": "json_object" }),
        "reasoning_effort" | "verbosity" => json!("low"),
        "logit_bias" => json!({ "1": 1 }),
        "top_logprobs" => {
            body["logprobs"] = json!(true);
            json!(1)
        }
        "stop" => json!(["x"]),
        name => {
            let (_, kinds) = KNOWN.iter().find(|(known, _)| *known == name)?;
            match kinds.first()? {
                Flag => json!(true),
                Number => json!(1),
                Text => json!("a"),
                Object => json!({ "a": "b" }),
                List => json!(["a"]),
            }
        }
    };
    body[member] = value;
    ChatRequest::parse(&body).ok()
}

/// The known member that an unknown name was probably meant to be: one slip away, or two in a long name.
#[must_use]
pub fn near_known_member(name: &str) -> Option<&'static str> {
    let slips = match name.len() {
        0..=3 => return None,
        4..=7 => 1,
        _ => 2,
    };
    KNOWN
        .iter()
        .map(|(known, _)| (strsim::damerau_levenshtein(name, known), *known))
        .filter(|(distance, known)| *distance <= slips && *known != name && known.len() > 3)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_that_a_route_may_keep_has_a_sample() {
        let without: Vec<&str> =
            KNOWN.iter().map(|(name, _)| *name).filter(|name| sample_with(name).is_none()).collect();
        // What a request is made of, and what is not sent.
        let expected = ["messages", "prompt", "functions", "function_call", "n", "stream", "stream_options", VALIDATE];
        assert!(without.iter().all(|name| expected.contains(name)), "{without:?}");
        let named = sample_with("messages[].name").unwrap();
        assert_eq!(named.messages[0].name.as_deref(), Some("a"));
        assert!(sample_with("nonsense").is_none() && sample_with("messages[].weight").is_none());
    }

    #[test]
    fn a_name_is_known_together_with_the_kind_of_its_value() {
        for (name, value, expected) in [
            ("temperature", json!(0.5), true),
            ("temperature", json!("hot"), true),
            ("top_k", json!(5), true),
            ("provider", json!({ "order": [] }), true),
            ("provider", json!("acme"), false),
            ("reasoning", json!({ "effort": "low" }), true),
            ("reasoning", json!("because"), false),
            ("store", json!("Berlin"), false),
            ("store", Value::Null, true),
            ("extra_body", json!({}), true),
            ("id", json!("a"), false),
            ("review_id", json!(7), false),
        ] {
            assert_eq!(is_known_member(name, &value), expected, "{name}: {value}");
        }
    }

    #[test]
    fn a_slip_is_seen_and_another_name_is_not_taken_for_one() {
        for (name, meant) in [
            ("temprature", Some("temperature")),
            ("max_token", Some("max_tokens")),
            ("top-p", Some("top_p")),
            ("responce_format", Some("response_format")),
            ("review_id", None),
            ("id", None),
            ("text", None),
            ("label", None),
            ("temperature", None),
        ] {
            assert_eq!(near_known_member(name), meant, "{name}");
        }
    }

    #[test]
    fn each_name_stands_once() {
        let mut names: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
