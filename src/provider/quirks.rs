//! How a server differs from the others: by its vendor's row, and by the operator's settings.

use super::limit_headers::Conventions;
use super::own_errors::OwnError;
use super::own_headers::OwnHeaders;
use super::usage_places::UsagePlaces;
use serde_json::Value;

/// The member of the body that carries the output cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapField {
    /// The name that nearly every compatible server understands.
    MaxTokens,
    /// The name that OpenAI's reasoning models demand; they reject the other.
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

/// How a server differs from the others. Every quirk can be configured: see [`QuirkSettings`].
#[expect(clippy::struct_excessive_bools, reason = "each is an independent habit of a server")]
#[derive(Clone, Debug, PartialEq)]
pub struct Quirks {
    /// Where the output cap goes. `None`: where the model's name says, else `max_tokens`.
    pub cap_field: Option<CapField>,
    /// Members that the server never takes, by their paths (`user`, `messages[].name`): dropped, visibly.
    pub drop: Vec<String>,
    /// Members that the server does not take and without which the answer would be another one: a request that has one
    /// is not for this server.
    pub refuse: Vec<String>,
    /// Members that are sent, regardless of what else the rows say of the server or the model.
    pub keep: Vec<String>,
    /// Members that models without sampling (capability `temperature = false`: reasoning models) do not take.
    pub drop_when_reasoning: Vec<String>,
    /// The members that the server takes, for servers that reject any other; by the path of the object that has them,
    /// empty for the body itself.
    pub takes_only: Vec<(String, Vec<String>)>,
    /// Members that have another name there: (ours, theirs).
    pub rename: Vec<(String, String)>,
    /// Members that every body gets unless the request has its own.
    pub add: Vec<(String, Value)>,
    /// Words that have another spelling there: (member, ours, theirs).
    pub words: Vec<(String, String, String)>,
    /// Members that the server does not take beside tools or a demanded form: dropped then, visibly.
    pub drop_with_tools: Vec<String>,
    /// `logprobs` is the number of tokens whose probabilities are wanted, and there is no `top_logprobs`.
    pub logprobs_as_number: bool,
    /// Models that answer in streams only, by parts of their names.
    pub stream_only_models: Vec<String>,
    /// Takes `response_format: json_schema`, where the model's capabilities do not say. `None`: as the dialect's rules
    /// for its models say.
    pub json_schema: Option<bool>,
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
    /// The longest tool call id, in characters.
    pub max_call_id: Option<usize>,
    /// Rejects a conversation whose last message is the assistant's.
    pub needs_user_last: bool,
    /// Rejects `strict` beside a schema that leaves anything open.
    pub checks_strict: bool,
    /// Function names may have only letters, digits, `_` and `-`, at most 64.
    pub plain_tool_names: bool,
    /// The most stop sequences.
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
    /// Tells the tokens of a stream only if it is asked to (`stream_options.include_usage`), and takes that.
    pub stream_usage: bool,
    /// Whether the rules for models by their names apply here.
    pub model_rules: bool,
    /// `completion_tokens` does not include reasoning. Where a total is reported it decides, not this.
    pub reasoning_outside: bool,
}

/// Members that reasoning models of OpenAI's kind reject with a 400.
const SAMPLING: &[&str] =
    &["temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs"];

/// Names as the quirks hold them.
pub(super) fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Words of members as the quirks hold them.
pub(super) fn words(words: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let owned = |text: &str| text.to_owned();
    words.iter().map(|(member, ours, theirs)| (owned(member), owned(ours), owned(theirs))).collect()
}

impl Quirks {
    /// Any server of which nothing else is known (vLLM, llama.cpp, Ollama's `/v1`, gateways).
    #[must_use]
    pub fn compatible() -> Self {
        Self {
            cap_field: None,
            drop: Vec::new(),
            refuse: Vec::new(),
            keep: Vec::new(),
            drop_when_reasoning: owned(SAMPLING),
            takes_only: Vec::new(),
            rename: Vec::new(),
            add: Vec::new(),
            words: Vec::new(),
            drop_with_tools: Vec::new(),
            logprobs_as_number: false,
            stream_only_models: Vec::new(),
            json_schema: None,
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
            stream_usage: true,
            model_rules: true,
            reasoning_outside: false,
        }
    }

    /// These quirks with the operator's settings over them.
    #[must_use]
    pub fn with(mut self, settings: &QuirkSettings) -> Self {
        let QuirkSettings {
            cap_field,
            drop,
            refuse,
            keep,
            drop_when_reasoning,
            takes_only,
            rename,
            add,
            words,
            drop_with_tools,
            logprobs_as_number,
            stream_only_models,
            json_schema,
            json_schema_models,
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
            stream_usage,
            model_rules,
            reasoning_outside,
            limit_headers: _,
            errors: _,
            headers: _,
            usage: _,
        } = settings;
        self.cap_field = cap_field.or(self.cap_field);
        self.drop.extend(drop.iter().cloned());
        self.drop.retain(|name| !keep.contains(name));
        self.refuse.extend(refuse.iter().cloned());
        self.refuse.retain(|name| !keep.contains(name) && !drop.contains(name));
        self.keep.extend(keep.iter().cloned());
        if let Some(names) = drop_when_reasoning {
            self.drop_when_reasoning.clone_from(names);
        }
        if let Some(names) = takes_only {
            self.takes_only = if names.is_empty() { Vec::new() } else { vec![(String::new(), names.clone())] };
        }
        self.rename.retain(|(from, _)| !rename.iter().any(|(ours, _)| ours == from));
        // A name mapped to itself is not renamed.
        self.rename.extend(rename.iter().filter(|(from, to)| from != to).cloned());
        self.add.retain(|(name, _)| !add.iter().any(|(own, _)| own == name));
        self.add.extend(add.iter().filter(|(_, value)| !value.is_null()).cloned());
        self.words.retain(|(member, ours, _)| !words.iter().any(|(own, from, _)| own == member && from == ours));
        self.words.extend(words.iter().filter(|(_, from, to)| from != to).cloned());
        for (own, said) in
            [(&mut self.drop_with_tools, drop_with_tools), (&mut self.stream_only_models, stream_only_models)]
        {
            if let Some(said) = said {
                own.clone_from(said);
            }
        }
        if json_schema.is_some() {
            self.json_schema = *json_schema;
            // The operator's setting covers all models of the server, unless it names some.
            self.json_schema_models.clear();
        }
        if let Some(models) = json_schema_models {
            self.json_schema_models.clone_from(models);
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
            (&mut self.logprobs_as_number, logprobs_as_number),
            (&mut self.join_texts, join_texts),
            (&mut self.empty_content_as_null, empty_content_as_null),
            (&mut self.takes_null, takes_null),
            (&mut self.takes_functions, takes_functions),
            (&mut self.takes_developer, takes_developer),
            (&mut self.stream_usage, stream_usage),
            (&mut self.model_rules, model_rules),
            (&mut self.reasoning_outside, reasoning_outside),
        ];
        for (own, said) in flags {
            *own = said.unwrap_or(*own);
        }
        self.max_stops = max_stops.or(self.max_stops);
        self.max_call_id = max_call_id.or(self.max_call_id);
        self
    }
}

/// The configurable quirks of a provider, `[providers.NAME.quirks]`. A quirk that is not set keeps its known value;
/// [`Quirks`] explains each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuirkSettings {
    /// Where the output cap goes.
    pub cap_field: Option<CapField>,
    /// Members that are not sent, beside those that are known not to be taken.
    pub drop: Vec<String>,
    /// Members that make a request another server's, beside those that are known to.
    pub refuse: Vec<String>,
    /// Members that are sent although they are known not to be taken.
    pub keep: Vec<String>,
    /// Members that reasoning models do not take, in place of the known ones.
    pub drop_when_reasoning: Option<Vec<String>>,
    /// The only top-level members that are taken; an empty list stands for all.
    pub takes_only: Option<Vec<String>>,
    /// Top-level members under another name: (ours, theirs).
    pub rename: Vec<(String, String)>,
    /// Words that have another spelling there.
    pub words: Vec<(String, String, String)>,
    /// Members that are not sent beside tools or a demanded form.
    pub drop_with_tools: Option<Vec<String>>,
    /// Whether `logprobs` is a number.
    pub logprobs_as_number: Option<bool>,
    /// Models that answer in streams only.
    pub stream_only_models: Option<Vec<String>>,
    /// Top-level members that every body gets unless the request has its own.
    pub add: Vec<(String, Value)>,
    pub json_schema: Option<bool>,
    /// Models that take a JSON schema, by parts of their names, in place of the known ones; an empty list stands for
    /// all.
    pub json_schema_models: Option<Vec<String>>,
    /// Takes tools and a JSON schema in one request.
    pub tools_with_schema: Option<bool>,
    /// Demands the word JSON beside `json_object`.
    pub needs_json_word: Option<bool>,
    /// Wants `provider.require_parameters`.
    pub require_parameters: Option<bool>,
    /// Wants ids of calls of nine letters or digits.
    pub short_call_ids: Option<bool>,
    /// The longest id of a call, in characters.
    pub max_call_id: Option<usize>,
    /// Rejects a last message of the assistant.
    pub needs_user_last: Option<bool>,
    /// Rejects `strict` beside a schema that leaves anything open.
    pub checks_strict: Option<bool>,
    /// Wants names of functions of letters, digits, `_` and `-`.
    pub plain_tool_names: Option<bool>,
    /// The most stop sequences.
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
    /// Takes `stream_options.include_usage`.
    pub stream_usage: Option<bool>,
    /// Whether the rules for models by their names apply.
    pub model_rules: Option<bool>,
    /// Counts reasoning outside `completion_tokens`.
    pub reasoning_outside: Option<bool>,
    /// The meaning of its limit headers.
    pub limit_headers: Option<Conventions>,
    /// The meaning of its errors, before all that is known of its vendor and its dialect.
    pub errors: Vec<OwnError>,
    /// The names of headers of its answers.
    pub headers: OwnHeaders,
    /// Where its answers count tokens and money.
    pub usage: UsagePlaces,
}
