//! The content of answers, and their length.

use super::chance::Spread;
use super::notation::spread;
use serde::Deserialize;

/// The content of an answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawOutput")]
pub enum Output {
    /// Always this text.
    Text(String),
    /// This many tokens of made-up text.
    Tokens(Spread),
}

impl Default for Output {
    fn default() -> Self {
        Self::Tokens(Spread::Fixed(16.0))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    text: Option<String>,
    tokens: Option<u32>,
    uniform: Option<[u32; 2]>,
    median: Option<u32>,
    p99: Option<u32>,
}

impl TryFrom<RawOutput> for Output {
    type Error = String;
    fn try_from(raw: RawOutput) -> Result<Self, String> {
        let uniform = raw.uniform.map(|range| range.map(f64::from));
        let tokens = spread(raw.tokens.map(f64::from), uniform, raw.median.map(f64::from), raw.p99.map(f64::from))?;
        match (raw.text, tokens) {
            (None, tokens) => Ok(tokens.map_or_else(Self::default, Self::Tokens)),
            (Some(text), None) => Ok(Self::Text(text)),
            (Some(_), Some(_)) => Err("expected either `text` or a number of tokens".to_owned()),
        }
    }
}
