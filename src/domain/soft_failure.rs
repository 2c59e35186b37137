//! The kinds of answers that HTTP called a success and that cannot be used, and all facts about each: one row of one
//! table.

use super::breaker::Sign;
use super::reask::Words;
use super::remedy::Remedy;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The facts about a kind of unusable answer.
#[derive(Debug)]
pub struct SoftFailureFacts {
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
    /// What the model is told where its route asks the same rung once more with the fault named; `None`: telling it
    /// does not help. An answer that was cut or that the model declined to give leaves nothing to correct, and vectors
    /// come from no conversation. After an empty one the model is asked to answer, if it was the model that ended it.
    pub reask: Option<Words>,
}

/// Advice where an output cap left no room.
const LARGER_CAP: Option<&str> = Some("a larger max_tokens may help");

/// The message after a turn that the model ended before it said a word.
const NUDGE: Option<Words> =
    Some(Words { fault: "Your turn was empty", demand: "Please answer the message before this one." });

/// The message about an answer that is no JSON.
const JSON: Option<Words> =
    Some(Words { fault: "The answer is not the JSON that was asked for", demand: "Answer again, with the JSON only." });

/// The message about JSON that does not match its schema.
const SCHEMA: Option<Words> = Some(Words {
    fault: "The answer does not match the JSON schema",
    demand: "Answer again, with the corrected JSON only.",
});

/// The message about a call that cannot be made.
const CALL: Option<Words> =
    Some(Words { fault: "A call of a function could not be made", demand: "Make the calls again, corrected." });

/// The message about an answer that is not in the demanded form.
const FORM: Option<Words> = Some(Words {
    fault: "The answer does not have the form that was asked for",
    demand: "Answer again, with the corrected answer only.",
});

/// The message about an answer of the wrong length.
const LENGTH: Option<Words> =
    Some(Words { fault: "The answer does not have the length that was asked for", demand: "Answer again, within it." });

/// The message about an answer in the wrong language.
const LANGUAGE: Option<Words> = Some(Words {
    fault: "The answer is not in the language that was asked for",
    demand: "Answer again, in that language.",
});

// A row is one kind. Each row names all facts, or does not compile.
macro_rules! soft_failures {
    ($($(#[$doc:meta])* $variant:ident { name: $name:literal, $($fact:tt)* })*) => {
        /// Why an answer that HTTP called a success cannot be used.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum SoftFailure { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }

        impl SoftFailure {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name of each, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            /// The row of this kind.
            #[must_use]
            pub const fn facts(self) -> &'static SoftFailureFacts {
                match self { $(Self::$variant => const { &SoftFailureFacts { name: $name, $($fact)* } },)* }
            }
        }
    };
}

soft_failures! {
    /// Nothing, or only white space and invisible characters.
    Empty { name: "empty", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Bad, advice: None, reask: NUDGE }
    /// Fewer characters than the route demands.
    TooShort {
        name: "too_short", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None, reask: LENGTH
    }
    /// More characters than the route allows.
    TooLong {
        name: "too_long", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None, reask: LENGTH
    }
    /// Cut off at the output cap: the cap is the request's or the model's, and would cut again, at the same price.
    Truncated { name: "truncated", remedy: Remedy::NextRung, breaker: Sign::Neutral, advice: LARGER_CAP, reask: None }
    /// Reasoning used up the output cap before an answer began.
    ReasoningExhausted {
        name: "reasoning_exhausted", remedy: Remedy::NextRung, breaker: Sign::Neutral, advice: LARGER_CAP, reask: None
    }
    /// Not JSON where JSON was demanded.
    NotJson {
        name: "not_json", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None, reask: JSON
    }
    /// JSON, but not of the demanded schema.
    SchemaMismatch {
        name: "schema_mismatch", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None,
        reask: SCHEMA
    }
    /// A demanded pattern is missing.
    MissingPattern {
        name: "missing_pattern", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None,
        reask: FORM
    }
    /// A forbidden pattern is there.
    ForbiddenPattern {
        name: "forbidden_pattern", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None,
        reask: FORM
    }
    /// The model declined.
    Refusal {
        name: "refusal", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None, reask: None
    }
    /// The provider's filter cut the answer.
    ContentFiltered {
        name: "content_filtered", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None,
        reask: None
    }
    /// An HTML page instead of an answer.
    Html { name: "html", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Bad, advice: None, reask: None }
    /// A finish reason the route does not accept.
    BadFinish {
        name: "bad_finish", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Bad, advice: None, reask: None
    }
    /// A tool call that was not offered, or whose arguments are not JSON.
    BadToolCall {
        name: "bad_tool_call", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None,
        reask: CALL
    }
    /// The model ran into a loop and wrote the same words again and again. The same rung tends to do it again.
    Repetition {
        name: "repetition", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None, reask: None
    }
    /// Tokens of the model's template in the midst of the text, or turns of a talk that the model made up. The template
    /// is the server's, but most of its answers may be whole.
    ControlTokens {
        name: "control_tokens", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None,
        reask: None
    }
    /// The provider counted far fewer tokens than the prompt has words: it has not read the rest. It would not read it
    /// the next time either, nor with any other prompt of that length.
    PromptCut {
        name: "prompt_cut", remedy: Remedy::NextRung, breaker: Sign::Neutral,
        advice: Some("a larger context window at the server may help"), reask: None
    }
    /// The same long text that the target has lately given to several other requests: a cache that got stuck.
    StuckAnswer {
        name: "stuck_answer", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Bad, advice: None, reask: None
    }
    /// The provider's content filter did not look at it, where the route demands that it does.
    Unfiltered {
        name: "unfiltered", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None, reask: None
    }
    /// Another language or script than the demanded one.
    WrongLanguage {
        name: "wrong_language", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None,
        reask: LANGUAGE
    }
    /// Another model answered than the one that was asked, where the route demands that one.
    OtherModel {
        name: "other_model", remedy: Remedy::RetrySame { tries: 0 }, breaker: Sign::Neutral, advice: None, reask: None
    }
    /// The rung is not sure enough of it, and the job can climb to another one (`cascade`). The same rung would be no
    /// surer, and it is not ill for other jobs.
    LowConfidence {
        name: "low_confidence", remedy: Remedy::NextRung, breaker: Sign::Neutral, advice: None, reask: None
    }
    /// More or fewer vectors than inputs, or no telling which belongs to which.
    VectorCount {
        name: "vector_count", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Bad, advice: None, reask: None
    }
    /// Vectors of different lengths, or of another length than the request asks for: the model has only its own, and
    /// would give it again.
    VectorDimension {
        name: "vector_dimension", remedy: Remedy::NextRung, breaker: Sign::Neutral, advice: None, reask: None
    }
    /// A number of a vector is missing, infinite or not a number. Some texts do that to some models, so it says nothing
    /// of the target's health.
    VectorNotFinite {
        name: "vector_not_finite", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None,
        reask: None
    }
    /// A vector of zeros, which has no direction.
    VectorZero {
        name: "vector_zero", remedy: Remedy::RetrySame { tries: 1 }, breaker: Sign::Neutral, advice: None, reask: None
    }
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
