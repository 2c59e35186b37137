//! Answers and failures in the form of each dialect, and the tests behind the table.

use crate::domain::{ErrorClass, Finish};
use serde_json::{Value, json};

/// The usual answer of a dialect, with everything that it says of usage.
pub fn reply(dialect: &str) -> Value {
    match dialect {
        "anthropic" => json!({ "id": "m", "type": "message", "role": "assistant", "model": "the-model",
            "content": [{ "type": "text", "text": "Hi" }], "stop_reason": "end_turn",
            "usage": { "input_tokens": 5, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 3,
                       "output_tokens": 2 } }),
        "gemini" => json!({ "candidates": [{ "content": { "parts": [{ "text": "Hi" }] }, "finishReason": "STOP" }],
            "usageMetadata": { "promptTokenCount": 12, "cachedContentTokenCount": 7, "candidatesTokenCount": 2 } }),
        "ollama" => json!({ "model": "the-model", "message": { "role": "assistant", "content": "Hi" }, "done": true,
            "done_reason": "stop", "prompt_eval_count": 12, "eval_count": 2 }),
        "cohere" => json!({ "id": "m", "finish_reason": "COMPLETE",
            "message": { "role": "assistant", "content": [{ "type": "text", "text": "Hi" }] },
            "usage": { "billed_units": { "input_tokens": 12, "output_tokens": 2 },
                       "tokens": { "input_tokens": 12, "output_tokens": 2 }, "cached_tokens": 7 } }),
        "openai_responses" => json!({ "id": "m", "object": "response", "status": "completed", "model": "the-model",
            "output": [{ "type": "message", "role": "assistant", "status": "completed",
                         "content": [{ "type": "output_text", "text": "Hi" }] }],
            "usage": { "input_tokens": 12, "input_tokens_details": { "cached_tokens": 7, "cache_write_tokens": 3 },
                       "output_tokens": 2 } }),
        "completions" => json!({ "id": "m", "choices": [{ "index": 0, "text": "Hi", "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14,
                       "prompt_tokens_details": { "cached_tokens": 7 } } }),
        "bedrock" => json!({ "output": { "message": { "role": "assistant", "content": [{ "text": "Hi" }] } },
            "stopReason": "end_turn",
            "usage": { "inputTokens": 5, "cacheReadInputTokens": 7, "cacheWriteInputTokens": 3, "outputTokens": 2 } }),
        _ => json!({ "id": "m", "model": "the-model",
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": "Hi" }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14,
                       "prompt_tokens_details": { "cached_tokens": 7 } } }),
    }
}

/// The usual answer with each of the ends that the dialect has a word for.
pub fn finishes(dialect: &str) -> Vec<(Value, Finish)> {
    let words: &[(&str, Finish)] = match dialect {
        "anthropic" => &[("end_turn", Finish::Complete), ("max_tokens", Finish::Length), ("refusal", Finish::Refusal)],
        "gemini" => &[("STOP", Finish::Complete), ("MAX_TOKENS", Finish::Length), ("SAFETY", Finish::ContentFilter)],
        "ollama" => &[("stop", Finish::Complete), ("length", Finish::Length)],
        "cohere" => &[("COMPLETE", Finish::Complete), ("MAX_TOKENS", Finish::Length)],
        "openai_responses" => &[("completed", Finish::Complete), ("incomplete", Finish::Length)],
        "bedrock" => &[
            ("end_turn", Finish::Complete),
            ("max_tokens", Finish::Length),
            ("content_filtered", Finish::ContentFilter),
        ],
        _ => &[("stop", Finish::Complete), ("length", Finish::Length), ("content_filter", Finish::ContentFilter)],
    };
    let with = |word: &str| {
        let mut body = reply(dialect);
        *body.pointer_mut(place_of_end(dialect)).unwrap() = json!(word);
        body
    };
    words.iter().map(|&(word, finish)| (with(word), finish)).collect()
}

/// Where the usual answer of a dialect says why it ended.
pub fn place_of_end(dialect: &str) -> &'static str {
    match dialect {
        "anthropic" => "/stop_reason",
        "gemini" => "/candidates/0/finishReason",
        "ollama" => "/done_reason",
        "cohere" => "/finish_reason",
        "openai_responses" => "/status",
        "bedrock" => "/stopReason",
        _ => "/choices/0/finish_reason",
    }
}

/// Whether the streams of a dialect end with OpenAI's last word.
pub fn ends_with_done(dialect: &str) -> bool {
    matches!(dialect, "openai" | "azure_openai" | "completions")
}

/// A refusal by rate without a wait.
pub fn of_rate(dialect: &str) -> Value {
    failure(dialect, "rate_limit_error", "Rate limit reached")
}

/// A failure in the envelope of a dialect.
fn failure(dialect: &str, kind: &str, message: &str) -> Value {
    match dialect {
        "anthropic" => json!({ "type": "error", "error": { "type": kind, "message": message } }),
        "gemini" => json!({ "error": { "code": 400, "message": message, "status": kind.to_ascii_uppercase() } }),
        "ollama" => json!({ "error": message }),
        "cohere" => json!({ "message": message }),
        "bedrock" => json!({ "__type": kind, "message": message }),
        _ => json!({ "error": { "message": message, "type": kind, "param": null, "code": null } }),
    }
}

/// Failures that each provider has, as status and body, and the class of each.
pub fn refusals(dialect: &str) -> Vec<(u16, Value, ErrorClass)> {
    let too_long =
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.";
    let rows = [
        (400, "invalid_request_error", "temperature is not supported with this model", ErrorClass::Refused),
        (400, "invalid_request_error", too_long, ErrorClass::ContextLength),
        (401, "authentication_error", "Invalid API key", ErrorClass::Auth),
        (402, "billing_error", "Payment required", ErrorClass::QuotaExhausted),
        (404, "not_found_error", "The model does not exist", ErrorClass::NotFound),
        (413, "request_too_large", "Request too large", ErrorClass::PayloadTooLarge),
        (429, "rate_limit_error", "Rate limit reached", ErrorClass::RateLimit),
        (500, "api_error", "Internal server error", ErrorClass::ServerError),
        (503, "service_unavailable_error", "Service unavailable", ErrorClass::Overloaded),
    ];
    rows.map(|(status, kind, message, class)| (status, failure(dialect, kind, message), class)).into()
}

/// A refusal by rate whose body says to wait for seven seconds.
pub fn with_wait(dialect: &str) -> Value {
    let mut body = failure(dialect, "rate_limit_error", "Rate limit reached. Please try again in 7s.");
    if dialect == "gemini" {
        body["error"]["details"] = json!([{ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s" }]);
    }
    body
}

/// The tests that show more than the table does, in the order of its columns. An empty one: the dialect has no such
/// thing.
pub const TESTS: [(&str, [&str; 12]); 9] = [
    (
        "openai",
        [
            "openai::tests::requests::what_a_target_does_not_take_is_dropped_by_name",
            "openai::tests::requests::strict_is_kept_where_the_schema_can_be_enforced",
            "openai::tests::tool_calls_are_read_in_every_shape",
            "attachments::files_and_sounds_are_written_in_the_words_of_the_dialect",
            "openai::tests::usage::missing_usage_is_unknown",
            "openai::tests::usage::usage_is_split_into_disjoint_classes",
            "openai::tests::finish_reasons_have_their_class",
            "openai::tests::failures::failures_of_compatible_servers_are_told_apart",
            "openai::tests::failures::failures_of_openai_are_told_apart",
            "tests::streams::a_streamed_answer_is_the_same_to_the_byte_and_what_breaks_off_is_on_the_ledger",
            "tests::embeddings::every_dialect_with_embeddings_brings_each_input_its_vector",
            "beside::tests::what_a_gateway_charged_is_read_in_its_words",
        ],
    ),
    (
        "anthropic",
        [
            "anthropic::tests::requests::parameters_are_mapped_or_dropped_by_name",
            "anthropic::tests::requests::a_schema_is_fitted_and_what_it_loses_is_named",
            "anthropic::tests::requests::a_whole_conversation_is_written",
            "anthropic::tests::requests::images_have_the_type_that_they_are_of",
            "anthropic::tests::an_answer_is_read_whole",
            "anthropic::tests::the_three_inputs_add_up",
            "anthropic::tests::finish_reasons_have_their_class",
            "anthropic::tests::failures_are_told_apart",
            "anthropic::tests::failures_are_told_apart",
            "anthropic::tests::events_that_nobody_asked_for_are_put_together",
            "",
            "beside::tests::what_a_gateway_charged_is_read_in_its_words",
        ],
    ),
    (
        "gemini",
        [
            "gemini::tests::requests::parameters_are_mapped_or_dropped_by_name",
            "gemini::tests::requests::tools_and_a_demanded_form_go_together_from_gemini_3_on",
            "gemini::tests::requests::a_whole_conversation_is_written",
            "gemini::tests::requests::stops_names_and_images_are_fitted",
            "gemini::tests::thoughts_and_tool_prompts_are_added",
            "gemini::tests::an_answer_is_read_whole",
            "gemini::tests::finish_reasons_have_their_class",
            "gemini::tests::failures_are_told_apart",
            "gemini::tests::failures_are_told_apart",
            "gemini::tests::pieces_of_a_stream_are_put_together",
            "tests::embeddings::every_dialect_with_embeddings_brings_each_input_its_vector",
            "",
        ],
    ),
    (
        "ollama",
        [
            "ollama::tests::parameters_become_options_and_the_window_is_that_of_the_model",
            "ollama::tests::a_whole_conversation_is_written_in_its_words",
            "ollama::tests::a_whole_conversation_is_written_in_its_words",
            "ollama::tests::what_it_cannot_express_is_for_another_rung",
            "ollama::tests::an_answer_is_read_with_thoughts_calls_and_counts",
            "",
            "ollama::tests::reasons_why_an_answer_ended",
            "ollama::tests::failures_are_told_apart",
            "ollama::tests::failures_are_told_apart",
            "tests::streams::a_streamed_answer_is_the_same_to_the_byte_and_what_breaks_off_is_on_the_ledger",
            "tests::embeddings::every_dialect_with_embeddings_brings_each_input_its_vector",
            "",
        ],
    ),
    (
        "cohere",
        [
            "cohere::tests::parameters_have_other_names_and_bounds",
            "cohere::tests::parameters_have_other_names_and_bounds",
            "cohere::tests::a_whole_conversation_is_written_in_its_words",
            "cohere::tests::what_it_cannot_express_is_for_another_rung",
            "cohere::tests::an_answer_is_read_and_billed_units_count",
            "cohere::tests::an_answer_is_read_and_billed_units_count",
            "cohere::tests::reasons_why_an_answer_ended",
            "cohere::tests::failures_are_told_apart",
            "cohere::tests::headers_of_trial_keys_are_limits",
            "cohere::tests::a_stream_with_a_plan_and_calls_is_the_same_answer",
            "tests::embeddings::every_dialect_with_embeddings_brings_each_input_its_vector",
            "beside::tests::what_a_gateway_charged_is_read_in_its_words",
        ],
    ),
    (
        "openai_responses",
        [
            "openai_responses::tests::parameters_have_other_names_and_what_has_none_is_named",
            "openai_responses::tests::parameters_have_other_names_and_what_has_none_is_named",
            "openai_responses::tests::a_whole_conversation_becomes_items",
            "openai_responses::tests::a_whole_conversation_becomes_items",
            "openai_responses::tests::an_answer_is_read_from_its_items",
            "openai_responses::tests::an_answer_is_read_from_its_items",
            "openai_responses::tests::reasons_why_an_answer_ended",
            "openai_responses::tests::failures_are_told_apart",
            "openai_responses::tests::failures_are_told_apart",
            "openai_responses::tests::a_stream_is_its_last_event_and_an_error_may_come_before_it",
            "",
            "beside::tests::what_a_gateway_charged_is_read_in_its_words",
        ],
    ),
    (
        "azure_openai",
        [
            "azure_openai::tests::the_deployment_is_in_the_path_or_in_the_body_by_the_address",
            "openai::tests::requests::strict_is_kept_where_the_schema_can_be_enforced",
            "openai::tests::tool_calls_are_read_in_every_shape",
            "attachments::files_and_sounds_are_written_in_the_words_of_the_dialect",
            "azure_openai::tests::an_answer_tells_what_its_filter_did",
            "openai::tests::usage::usage_is_split_into_disjoint_classes",
            "openai::tests::finish_reasons_have_their_class",
            "azure_openai::tests::failures_are_told_apart",
            "azure_openai::tests::failures_are_told_apart",
            "tests::streams::a_streamed_answer_is_the_same_to_the_byte_and_what_breaks_off_is_on_the_ledger",
            "tests::embeddings::every_dialect_with_embeddings_brings_each_input_its_vector",
            "beside::tests::what_a_gateway_charged_is_read_in_its_words",
        ],
    ),
    (
        "completions",
        [
            "completions::tests::one_question_is_a_prompt",
            "completions::tests::anything_but_one_question_is_for_another_rung",
            "completions::tests::anything_but_one_question_is_for_another_rung",
            "completions::tests::anything_but_one_question_is_for_another_rung",
            "completions::tests::an_answer_is_a_text_whole_or_in_pieces",
            "openai::tests::usage::usage_is_split_into_disjoint_classes",
            "completions::tests::an_answer_is_a_text_whole_or_in_pieces",
            "openai::tests::failures::failures_of_compatible_servers_are_told_apart",
            "openai::tests::failures::failures_of_openai_are_told_apart",
            "completions::tests::an_answer_is_a_text_whole_or_in_pieces",
            "",
            "beside::tests::what_a_gateway_charged_is_read_in_its_words",
        ],
    ),
    (
        "bedrock",
        [
            "bedrock::tests::parameters_have_other_names_and_some_have_none",
            "bedrock::tests::parameters_have_other_names_and_some_have_none",
            "bedrock::tests::tools_are_offered_or_not_and_a_history_needs_them",
            "attachments::files_and_sounds_are_written_in_the_words_of_the_dialect",
            "bedrock::tests::an_answer_is_read_with_thoughts_calls_and_three_kinds_of_input",
            "bedrock::tests::an_answer_is_read_with_thoughts_calls_and_three_kinds_of_input",
            "bedrock::tests::reasons_why_an_answer_ended",
            "bedrock::tests::failures_are_told_apart",
            "bedrock::tests::failures_are_told_apart",
            "bedrock::tests::a_stream_of_frames_is_the_same_answer_and_an_exception_is_what_it_says",
            "",
            "beside::tests::what_a_gateway_charged_is_read_in_its_words",
        ],
    ),
];
