//! The kinds of answers that HTTP called a success and that cannot be used, and all facts about each: one row of one
//! table.

use super::breaker::Sign;
use super::remedy::Remedy;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The facts about a kind of unusable answer.
#[derive(Debug)]
pub struct Facts {
    /// The name in ledger and reports.
    pub name: &'static str,
    /// The remedy. For a failure that the same model tends to repeat, the job moves on at once; for one that chance may
    /// mend (the form of the answer), the same rung is tried once more.
    pub remedy: Remedy,
    /// What the breaker learns from it. A failure that depends on the request's demands (a schema, a length, a pattern,
    /// a topic that is refused) is no illness of the target: otherwise one project with a schema that no model can meet
    /// would open the breaker for all the others.
    pub breaker: Sign,
    /// Advice to a person, for the reason of a job that fails.
    pub advice: Option<&'static str>,
}

/// Advice where an output cap left no room.
const LARGER_CAP: Option<&str> = Some("a larger max_tokens may help");

// A row is one kind. Each row names all facts, or does not compile.
macro_rules! soft_failures {
    ($($(#[$doc:meta])* $variant:ident { name: $name:literal, $($fact:tt)* })*) => {
        /// Why an answer that HTTP called a success cannot be used.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum SoftFailure { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }

        impl SoftFailure {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The row of this kind.
            #[must_use]
            pub const fn facts(self) -> &'static Facts {
                match self { $(Self::$variant => const { &Facts { name: $name, $($fact)* } },)* }
            }
        }
    };
}

soft_failures! {
    /// Nothing, or only white space and invisible characters.
    Empty { name: "empty", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Bad, advice: None }
    /// Fewer characters than the route demands.
    TooShort { name: "too_short", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None }
    /// More characters than the route allows.
    TooLong { name: "too_long", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None }
    /// Cut off at the output cap: the cap is the request's or the model's, and would cut again, at the same price.
    Truncated { name: "truncated", remedy: Remedy::NextRung, breaker: Sign::Neutral, advice: LARGER_CAP }
    /// Reasoning used up the output cap before an answer began.
    ReasoningExhausted {
        name: "reasoning_exhausted", remedy: Remedy::NextRung, breaker: Sign::Neutral, advice: LARGER_CAP
    }
    /// Not JSON where JSON was demanded.
    NotJson { name: "not_json", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None }
    /// JSON, but not of the demanded schema.
    SchemaMismatch {
        name: "schema_mismatch", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None
    }
    /// A demanded pattern is missing.
    MissingPattern {
        name: "missing_pattern", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None
    }
    /// A forbidden pattern is there.
    ForbiddenPattern {
        name: "forbidden_pattern", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None
    }
    /// The model declined.
    Refusal { name: "refusal", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None }
    /// The provider's filter cut the answer.
    ContentFiltered {
        name: "content_filtered", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None
    }
    /// An HTML page instead of an answer.
    Html { name: "html", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Bad, advice: None }
    /// A finish reason the route does not accept.
    BadFinish { name: "bad_finish", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Bad, advice: None }
    /// A tool call that was not offered, or whose arguments are not JSON.
    BadToolCall { name: "bad_tool_call", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None }
    /// More or fewer vectors than inputs, or no telling which belongs to which.
    VectorCount { name: "vector_count", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Bad, advice: None }
    /// Vectors of different lengths, or of another length than the request asks for: the model has only its own, and
    /// would give it again.
    VectorDimension {
        name: "vector_dimension", remedy: Remedy::NextRung, breaker: Sign::Neutral,
        advice: Some("a request without dimensions may help")
    }
    /// A number of a vector is missing, infinite or not a number. Some texts do that to some models, so it says nothing
    /// of the target's health.
    VectorNotFinite {
        name: "vector_not_finite", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None
    }
    /// A vector of zeros, which has no direction.
    VectorZero { name: "vector_zero", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None }
}

impl SoftFailure {
    /// The name in ledger and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.facts().name
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_answer_is_retried_on_the_same_rung_at_most_once() {
        for kind in SoftFailure::ALL {
            let remedy = kind.facts().remedy;
            assert!(matches!(remedy, Remedy::RetrySame { tries: 0 | 1 } | Remedy::NextRung), "{kind}");
        }
    }

    #[test]
    fn a_kind_has_one_name_and_the_handbook_lists_them_all() {
        let handbook = include_str!("../../docs/operations.md");
        let listed = handbook.split("\nDetails of `soft_failure`: ").nth(1).unwrap().split(".\n").next().unwrap();
        let listed: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
        let names: Vec<&str> = SoftFailure::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(listed, names);
        for &kind in SoftFailure::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(SoftFailure::parse(kind.as_str()), Some(kind));
        }
    }
}
