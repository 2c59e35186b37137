//! What an operator says of a provider's habits, over what is known of its vendor.

use super::limit_headers::Conventions;
use super::openai::CapField;
use serde_json::Value;

/// The configurable quirks of a provider, `[providers.NAME.quirks]`. What is not said stays as it is known; the meaning
/// of each is told at [`Quirks`](super::openai::Quirks).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuirkSettings {
    /// Where the output cap goes.
    pub cap_field: Option<CapField>,
    /// Members that are not sent, beside those that are known not to be taken.
    pub drop: Vec<String>,
    /// Members that are sent although they are known not to be taken.
    pub keep: Vec<String>,
    /// Members that reasoning models do not take, in place of the known ones.
    pub drop_when_reasoning: Option<Vec<String>>,
    /// The only top-level members that are taken; an empty list stands for all.
    pub takes_only: Option<Vec<String>>,
    /// Top-level members under another name: (ours, theirs).
    pub rename: Vec<(String, String)>,
    /// Top-level members that every body gets unless the request has its own.
    pub add: Vec<(String, Value)>,
    /// Takes a JSON schema.
    pub json_schema: Option<bool>,
    /// Takes tools and a JSON schema in one request.
    pub tools_with_schema: Option<bool>,
    /// Demands the word JSON beside `json_object`.
    pub needs_json_word: Option<bool>,
    /// Wants `provider.require_parameters`.
    pub require_parameters: Option<bool>,
    /// Wants ids of calls of nine letters or digits.
    pub short_call_ids: Option<bool>,
    /// Characters of an id of a call at most.
    pub max_call_id: Option<usize>,
    /// Rejects a last message of the assistant.
    pub needs_user_last: Option<bool>,
    /// Rejects `strict` beside a schema that leaves anything open.
    pub checks_strict: Option<bool>,
    /// Wants names of functions of letters, digits, `_` and `-`.
    pub plain_tool_names: Option<bool>,
    /// Stop sequences at most.
    pub max_stops: Option<usize>,
    /// Wants `stop` as a list.
    pub stop_as_list: Option<bool>,
    /// Wants texts as one string.
    pub join_texts: Option<bool>,
    /// Wants null in place of an empty content.
    pub empty_content_as_null: Option<bool>,
    /// Takes members that are null.
    pub takes_null: Option<bool>,
    /// Takes the deprecated `functions`.
    pub takes_functions: Option<bool>,
    /// Takes the role `developer`.
    pub takes_developer: Option<bool>,
    /// Whether what is known of models by their names counts.
    pub model_rules: Option<bool>,
    /// Counts reasoning outside `completion_tokens`.
    pub reasoning_outside: Option<bool>,
    /// What limit headers mean.
    pub limit_headers: Option<Conventions>,
}
