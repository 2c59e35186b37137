//! One call to one target, as the decision sees it afterwards.

use super::decide::Closed;
use super::{Bearing, ErrorClass, Remedy, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why an answer that HTTP called a success cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SoftFailure {
    /// Nothing, or only white space and invisible characters.
    Empty,
    /// Fewer characters than the route demands.
    TooShort,
    /// More characters than the route allows.
    TooLong,
    /// Cut off at the output cap.
    Truncated,
    /// Reasoning used up the output cap before an answer began.
    ReasoningExhausted,
    /// Not JSON where JSON was demanded.
    NotJson,
    /// JSON, but not of the demanded schema.
    SchemaMismatch,
    /// A demanded pattern is missing.
    MissingPattern,
    /// A forbidden pattern is there.
    ForbiddenPattern,
    /// The model declined.
    Refusal,
    /// The provider's filter cut the answer.
    ContentFiltered,
    /// An HTML page instead of an answer.
    Html,
    /// A finish reason the route does not accept.
    BadFinish,
    /// A tool call that was not offered, or whose arguments are not JSON.
    BadToolCall,
}

impl SoftFailure {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Empty,
        Self::TooShort,
        Self::TooLong,
        Self::Truncated,
        Self::ReasoningExhausted,
        Self::NotJson,
        Self::SchemaMismatch,
        Self::MissingPattern,
        Self::ForbiddenPattern,
        Self::Refusal,
        Self::ContentFiltered,
        Self::Html,
        Self::BadFinish,
        Self::BadToolCall,
    ];

    /// The name in ledger and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::Truncated => "truncated",
            Self::ReasoningExhausted => "reasoning_exhausted",
            Self::NotJson => "not_json",
            Self::SchemaMismatch => "schema_mismatch",
            Self::MissingPattern => "missing_pattern",
            Self::ForbiddenPattern => "forbidden_pattern",
            Self::Refusal => "refusal",
            Self::ContentFiltered => "content_filtered",
            Self::Html => "html",
            Self::BadFinish => "bad_finish",
            Self::BadToolCall => "bad_tool_call",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for SoftFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What validation says of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Use it as it is.
    Accepted,
    /// Use this text instead: a repair that lost nothing (reasoning before the answer, a code fence or prose around
    /// JSON).
    Repaired {
        /// The text to deliver.
        text: String,
        /// Reasoning that stood in the text before the answer.
        draft: Option<String>,
        /// What was cut, for people.
        cut: String,
    },
    /// Do not use it.
    Rejected {
        /// Every rule it broke, the gravest first; never empty.
        failures: Vec<SoftFailure>,
        /// What was wrong, for people: rule and place, at most a few words of the answer.
        message: String,
    },
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was accepted (as it was or repaired): the job has succeeded.
    Accepted,
    /// The answer was rejected; the gravest failure.
    Rejected(SoftFailure),
    /// The call failed.
    Failed(ErrorClass),
}

impl Outcome {
    /// The error class that reports count it under; `None` for an accepted answer.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Accepted => None,
            Self::Rejected(_) => Some(ErrorClass::SoftFailure),
            Self::Failed(class) => Some(*class),
        }
    }
}

/// A finished attempt in a job's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Index of the rung in the route's listed order; `None` when the target is no longer on the route.
    pub rung: Option<usize>,
    /// What came of it.
    pub outcome: Outcome,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The earliest instant at which the provider wants to be asked again.
    pub retry_at: Option<Timestamp>,
    /// The provider said that asking again does not help (`x-should-retry: false`): its word goes before the remedy.
    pub is_final: bool,
    /// Whom the failure concerns.
    pub bearing: Bearing,
    /// The refusal asks for a change of the request that has not been tried on this rung yet.
    pub is_mendable: bool,
    /// What the provider said of the failure, without keys; it may quote the prompt.
    pub words: Option<Box<str>>,
}

impl Attempt {
    /// An attempt of which nothing is known but what came of it.
    #[must_use]
    pub const fn new(rung: Option<usize>, outcome: Outcome, ended_at: Timestamp) -> Self {
        Self {
            rung,
            outcome,
            ended_at,
            retry_at: None,
            is_final: false,
            bearing: Bearing::AsScoped,
            is_mendable: false,
            words: None,
        }
    }

    /// What it calls for: what its class calls for, unless its words say more. `None` when the answer was accepted.
    #[must_use]
    pub const fn remedy(&self) -> Option<Remedy> {
        let Some(remedy) = self.outcome.remedy() else { return None };
        Some(match (remedy, self.bearing) {
            _ if self.is_mendable => Remedy::Mend,
            (_, Bearing::EveryTarget) => Remedy::End,
            // The key stays in service until a second request meets the same, so there is no gate to wait for.
            (Remedy::WaitForGate(Closed::Auth | Closed::QuotaExhausted), Bearing::InDoubt) => {
                Remedy::RetrySame { tries: 0 }
            }
            (remedy, Bearing::AsScoped | Bearing::InDoubt) => remedy,
        })
    }

    /// Whether it counts towards the job's bound on attempts.
    #[must_use]
    pub fn uses_up_an_attempt(&self) -> bool {
        !self.is_mendable && self.outcome.class().is_some_and(ErrorClass::uses_up_an_attempt)
    }
}
