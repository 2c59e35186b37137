//! The dialects that Sluice speaks. A dialect is a folder and a line here.

use super::dialect::Dialect;
use super::{anthropic, azure_openai, bedrock, cohere, completions, gemini, ollama, openai, openai_responses};

/// Every dialect, in the order in which messages list them.
pub const DIALECTS: &[&Dialect] = &[
    &openai::DIALECT,
    &anthropic::DIALECT,
    &gemini::DIALECT,
    &ollama::DIALECT,
    &cohere::DIALECT,
    &openai_responses::DIALECT,
    &azure_openai::DIALECT,
    &completions::DIALECT,
    &bedrock::DIALECT,
];

/// The dialect with this name.
#[must_use]
pub fn dialect(name: &str) -> Option<&'static Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name == name)
}
