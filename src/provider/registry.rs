//! The dialects that Sluice speaks. A dialect is a folder and a line here.

use super::dialect::Dialect;
use super::{anthropic, gemini, ollama, openai};

/// Every dialect, in the order in which messages list them.
pub const DIALECTS: &[&Dialect] = &[&openai::DIALECT, &anthropic::DIALECT, &gemini::DIALECT, &ollama::DIALECT];

/// The dialect with this name.
#[must_use]
pub fn dialect(name: &str) -> Option<&'static Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name == name)
}
