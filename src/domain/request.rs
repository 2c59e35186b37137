//! The request of a job: an OpenAI chat-completions body, parsed once.

mod field;
mod parse;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

/// Who speaks.
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
    /// Text.
    Text(String),
    /// An image: a `data:` URL or an address the provider fetches, with OpenAI's `detail`.
    Image {
        /// `data:image/png;base64,…` or `https://…`.
        url: String,
        /// `low`, `high`, `auto`.
        detail: Option<String>,
    },
}

/// One turn of the conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; empty for an assistant turn that only calls tools.
    pub content: Vec<ContentPart>,
    /// Tools the assistant called in this turn.
    pub tool_calls: Vec<super::ToolCall>,
    /// For a tool's result: which call it answers.
    pub tool_call_id: Option<String>,
    /// The speaker's name.
    pub name: Option<String>,
}

impl Message {
    /// All text parts, joined with line breaks.
    #[must_use]
    pub fn text(&self) -> String {
        let parts: Vec<&str> = self
            .content
            .iter()
            .filter_map(|part| match part {
                ContentPart::Text(text) => Some(text.as_str()),
                ContentPart::Image { .. } => None,
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
        /// The schema.
        schema: Value,
        /// Whether the provider is to enforce it.
        strict: Option<bool>,
    },
}

/// A function the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Option<Value>,
}

/// Whether and which tool the model has to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Function(String),
}

/// What is wrong with a request, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// The path of the offending field: `messages[2].role`.
    pub field: String,
    /// What was expected there.
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
    /// The conversation; never empty.
    pub messages: Vec<Message>,
    /// Output cap, from `max_completion_tokens` or `max_tokens`; positive.
    pub max_tokens: Option<i64>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
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
    /// Whether it must.
    pub tool_choice: Option<ToolChoice>,
    /// `none`, `minimal`, `low`, `medium`, `high`, `xhigh`.
    pub reasoning_effort: Option<String>,
    /// Every other member of the body but `model` and `stream`: passed on to OpenAI-compatible targets only.
    pub extra: Map<String, Value>,
}
