//! Rules that an answer has to keep, and the verdict on it.

/// What a route demands of an answer. Patterns and schemas are compiled when the configuration is read.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own, switched on or off in the configuration")]
pub struct Rules {
    /// Something visible (default of the configuration: true).
    pub non_empty: bool,
    /// At least this many characters, after trimming.
    pub min_chars: Option<usize>,
    /// At most this many characters.
    pub max_chars: Option<usize>,
    /// Must be JSON.
    pub json: bool,
    /// Must be JSON of this schema.
    pub json_schema: Option<std::sync::Arc<jsonschema::Validator>>,
    /// Each has to match.
    pub required_patterns: Vec<regex::Regex>,
    /// None may match.
    pub forbidden_patterns: Vec<regex::Regex>,
    /// A refusal is a failure.
    pub reject_refusals: bool,
    /// An HTML page is a failure.
    pub reject_html: bool,
    /// An answer cut at the output cap is a failure.
    pub reject_truncated: bool,
}
