//! The request of a job: an OpenAI body of chat completions or of embeddings, parsed once.
//!
//! It is kept twice: as it was written, for targets that speak the same dialect, and parsed, for all others and for
//! every decision about it. Members that Sluice does not understand are named in [`ChatRequest::unread`], so that no
//! translation can lose them unseen.

mod embed;
mod extras;
mod field;
mod known;
mod own_rules;
mod parse;
mod pass;

impl ChatRequest {
    /// A request that has these messages and asks for nothing else.
    fn of(messages: Vec<Message>) -> Self {
        Self {
            raw: Box::default(),
            is_prompt: false,
            messages,
            embed: None,
            model: None,
            max_tokens: None,
            temperature: None,
            top_p: None,
            top_k: None,
            stop: Vec::new(),
            seed: None,
            presence_penalty: None,
            frequency_penalty: None,
            response_format: None,
            tools: Vec::new(),
            other_tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            reasoning_effort: None,
            user: None,
            cache_control: None,
            validate: None,
            unread: Vec::new(),
        }
    }

    /// How many inputs it has for embeddings; 0: it is another request.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.embed.as_ref().map_or(0, |embed| embed.inputs.count())
    }

    /// Whether every call of a function has its result in the conversation, and every result its call: a provider that
    /// finds otherwise got a different conversation on the way.
    #[must_use]
    pub fn calls_have_their_results(&self) -> bool {
        let mut open: Vec<&str> = Vec::new();
        for message in &self.messages {
            match (&message.tool_call_id, message.role) {
                (Some(id), Role::Tool) => match open.iter().position(|call| call == id) {
                    Some(place) => drop(open.swap_remove(place)),
                    None => return false,
                },
                (None, Role::Tool) => return false,
                _ if !open.is_empty() => return false,
                _ => open.extend(message.tool_calls.iter().map(|call| call.id.as_str())),
            }
        }
        open.is_empty()
    }
}

#[cfg(test)]
mod tests;

pub use embed::{Embed, Inputs};
pub use extras::{AskedTier, Extras};
pub use known::{is_foreign, is_known_member, is_known_of_embeddings, near_known_member, sample_with};
pub use parse::unfit_schema;
pub use pass::probably_meant;
pub use pass::{Pass, is_choosing};

use crate::domain::validation::OwnRules;
use serde_json::Value;
use std::collections::BTreeMap;

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions (`system` or `developer`).
    System,
    /// The person asking.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum ContentPart {
    Text(String),
    /// An image: a `data:` URL or an address the provider fetches, with OpenAI's `detail`.
    Image {
        /// `data:image/png;base64,…` or `https://…`.
        url: String,
        /// `low`, `high`, `auto`, or a vendor's own word.
        detail: Option<String>,
    },
    /// A file that comes along, or that the provider fetches. One by its id is known to its own provider alone, and is
    /// [`Other`](Self::Other).
    File {
        /// `data:application/pdf;base64,…` or `https://…`.
        url: String,
        /// What it is called.
        name: Option<String>,
    },
    /// A sound that comes along.
    Audio {
        /// Base64.
        data: String,
        /// `wav`, `mp3`, or another word of OpenAI's.
        format: String,
    },
    /// Something else, by its `type`, which only targets of the same dialect can take.
    Other(String),
}

impl ContentPart {
    /// The kind of images.
    pub const IMAGES: &str = "images";
    /// The kind of files.
    pub const FILES: &str = "files";
    /// The kind of sounds.
    pub const AUDIO: &str = "audio";

    /// What it is, in the word for many of them: that of a model's abilities.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Image { .. } => Self::IMAGES,
            Self::File { .. } => Self::FILES,
            Self::Audio { .. } => Self::AUDIO,
            Self::Other(kind) if kind == "file" => Self::FILES,
            Self::Other(kind) if kind == "input_audio" => Self::AUDIO,
            Self::Other(_) => "other",
        }
    }

    /// Whether it is no text, and understood.
    #[must_use]
    pub const fn is_attached(&self) -> bool {
        matches!(self, Self::Image { .. } | Self::File { .. } | Self::Audio { .. })
    }
}

/// A call that the model made earlier in the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastCall {
    /// The id by which a tool's result refers to it.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments: a JSON text, as the model wrote it.
    pub arguments: String,
    /// Gemini's signature of the thought behind the call (`extra_content.google.thought_signature`).
    pub thought_signature: Option<String>,
}

/// One turn of the conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub role: Role,
    /// The parts of the message; empty for an assistant turn that only calls tools.
    pub content: Vec<ContentPart>,
    /// Functions the assistant called in this turn.
    pub tool_calls: Vec<PastCall>,
    /// The `type` of calls that are not of functions, which only targets of the same dialect can take.
    pub other_calls: Vec<String>,
    /// For a tool's result: which call it answers.
    pub tool_call_id: Option<String>,
    /// The speaker's name.
    pub name: Option<String>,
    /// `cache_control` of parts, by their place in `content`.
    pub cache_marks: BTreeMap<usize, Value>,
    /// `cache_control` of the message.
    pub cache_control: Option<Value>,
}

impl Message {
    /// A message of one text and nothing else.
    #[must_use]
    pub fn new(role: Role, content: Vec<ContentPart>) -> Self {
        Self {
            role,
            content,
            tool_calls: Vec::new(),
            other_calls: Vec::new(),
            tool_call_id: None,
            name: None,
            cache_marks: BTreeMap::new(),
            cache_control: None,
        }
    }

    /// All text parts, joined with line breaks.
    #[must_use]
    pub fn text(&self) -> String {
        let parts: Vec<&str> = self
            .content
            .iter()
            .filter_map(|part| match part {
                ContentPart::Text(text) => Some(text.as_str()),
                ContentPart::Image { .. }
                | ContentPart::File { .. }
                | ContentPart::Audio { .. }
                | ContentPart::Other(_) => None,
            })
            .collect();
        parts.join("\n")
    }
}

/// The form in which an answer is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseFormat {
    /// Any text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON of this schema.
    JsonSchema {
        /// OpenAI's name of the schema.
        name: String,
        schema: Value,
        /// Whether the provider is to enforce it.
        strict: Option<bool>,
    },
    /// Something else, by its `type` (`grammar`, `regex`, …), which only targets of the same dialect can take.
    Other(String),
}

/// A function the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// The function's name, by which calls of it are told apart.
    pub name: String,
    /// The function's purpose, for the model.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Option<Value>,
    /// `cache_control` of the tool, on it or in its `function`.
    pub cache_control: Option<Value>,
}

/// Whether and which tool the model has to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// No tool.
    None,
    /// At least one tool.
    Required,
    /// This function.
    Function(String),
    /// Something else, by its `type` (`allowed_tools`, `custom`, …), which only targets of the same dialect can take.
    Other(String),
}

/// The fault of a request, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// The path of the offending field: `messages[2].role`.
    pub field: String,
    /// The expected content of that field.
    pub reason: String,
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for RequestError {}

/// A request that can be translated to every dialect.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The body as it was written: targets of the same dialect get it.
    pub raw: Box<str>,
    /// Whether it was written as `{"prompt": …}`: members that no provider knows then belong to its author.
    pub is_prompt: bool,
    /// The conversation; empty only where inputs are to be embedded.
    pub messages: Vec<Message>,
    /// The inputs that are to become vectors, in place of a conversation.
    pub embed: Option<Embed>,
    /// The model that the body names. The route decides, so the name only serves to report the replaced model.
    pub model: Option<String>,
    /// Output cap, from `max_completion_tokens` or `max_tokens`; positive, and zero for embeddings.
    pub max_tokens: Option<i64>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// How many tokens the model chooses from, with vendors that have it.
    pub top_k: Option<i64>,
    /// Strings at which generation stops.
    pub stop: Vec<String>,
    /// For providers that promise reproducible sampling.
    pub seed: Option<i64>,
    /// −2 to 2.
    pub presence_penalty: Option<f64>,
    /// −2 to 2.
    pub frequency_penalty: Option<f64>,
    /// The form of the answer.
    pub response_format: Option<ResponseFormat>,
    /// Functions the model may call.
    pub tools: Vec<Tool>,
    /// The `type` of tools that are not functions, which only targets of the same dialect can take.
    pub other_tools: Vec<String>,
    /// Whether the model has to call a tool, and which.
    pub tool_choice: Option<ToolChoice>,
    /// Whether the model may call several tools at once.
    pub parallel_tool_calls: Option<bool>,
    /// How much the model may think, in the vendor's word.
    pub reasoning_effort: Option<String>,
    /// The end user on whose behalf the request is made.
    pub user: Option<String>,
    /// `cache_control` of the whole request.
    pub cache_control: Option<Value>,
    /// Rules for its own answer, in place of those of the route. They are not in [`Self::raw`].
    pub validate: Option<Box<OwnRules>>,
    /// The paths of members that are not understood, each once and without positions. A target of another dialect does
    /// not get these members.
    pub unread: Vec<String>,
}
