//! What a provider allows.

use std::time::Duration;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Calls.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input tokens",
            Self::OutputTokens => "output tokens",
        })
    }
}

/// So much of a unit in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What is counted.
    pub unit: Unit,
    /// How much; positive.
    pub amount: u64,
    /// In this time: a second, a minute or a day.
    pub per: Duration,
    /// How much may go at once after a rest; positive. The full amount unless configured.
    pub burst: u64,
}

/// The limits of one bucket, which one or more targets share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// All have to allow a call.
    pub rates: Vec<Rate>,
    /// Calls that may run at once.
    pub concurrency: Option<u32>,
}
