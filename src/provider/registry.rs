//! The dialects that are spoken. A dialect is a folder and a line here.

use super::dialect::Dialect;
use super::{anthropic, gemini, openai};

/// Every dialect, by its order in messages.
pub const DIALECTS: &[&Dialect] = &[&openai::DIALECT, &anthropic::DIALECT, &gemini::DIALECT];

/// The dialect with this name.
#[must_use]
pub fn dialect(name: &str) -> Option<&'static Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name == name)
}
