//! Cascades: a cheap rung answers and says how sure it is, and a job whose rung is not sure enough goes on to a dearer
//! one.
//!
//! Such an answer keeps every rule of the route. It is a soft failure of its own kind
//! ([`LowConfidence`](super::SoftFailure::LowConfidence)) only where the job can climb to another rung, and it is not
//! lost: when no surer one comes, the job ends with it ([`Ending::Unsure`](super::decide::Ending)).

use super::raw_object::RawObject;
use super::{Answer, ChatRequest, Target};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// How sure a rung is of its answer, in millionths: a probability, or another number that a field of the answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Confidence(i64);

/// The unit of a [`Confidence`].
const WHOLE: f64 = 1e6;

impl Confidence {
    /// The confidence of this value, rounded to a millionth; `None`: it is no finite number.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the value saturates")]
    pub fn of(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self((value * WHOLE).round() as i64))
    }

    /// The value as the ledger has it.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "no more than 15 digits tell one confidence from another")]
    pub fn value(self) -> f64 {
        self.0 as f64 / WHOLE
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// What says how sure a rung is of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The geometric mean of the probabilities of its tokens.
    MeanLogprob,
    /// The probability of its least likely token.
    MinLogprob,
    /// The number at this JSON pointer into the answer, which is JSON.
    Field(String),
}

impl Measure {
    /// The measure of this name in the configuration; `None`: there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "mean_logprob" => Some(Self::MeanLogprob),
            "min_logprob" => Some(Self::MinLogprob),
            pointer if pointer.len() > 1 && pointer.starts_with('/') => Some(Self::Field(pointer.to_owned())),
            _ => None,
        }
    }

    /// Whether it needs the probabilities of the tokens.
    #[must_use]
    pub const fn needs_logprobs(&self) -> bool {
        matches!(self, Self::MeanLogprob | Self::MinLogprob)
    }

    /// How sure the answer is by this measure; `None`: it does not say.
    #[must_use]
    pub fn of(&self, answer: &Answer) -> Option<Confidence> {
        match self {
            Self::MeanLogprob => {
                let logprobs = logprobs(answer);
                #[expect(clippy::cast_precision_loss, reason = "no answer has that many tokens")]
                let count = logprobs.len() as f64;
                // Without tokens this is no number.
                Confidence::of((logprobs.iter().sum::<f64>() / count).exp())
            }
            Self::MinLogprob => {
                let least = logprobs(answer).into_iter().reduce(f64::min)?;
                Confidence::of(least.exp())
            }
            Self::Field(pointer) => {
                let value: Value = serde_json::from_str(answer.text.as_deref()?).ok()?;
                Confidence::of(value.pointer(pointer)?.as_f64()?)
            }
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MeanLogprob => "mean_logprob",
            Self::MinLogprob => "min_logprob",
            Self::Field(pointer) => pointer,
        })
    }
}

/// The natural logarithms of the probabilities of the tokens of an answer, none above 0: as chat completions have them,
/// or as text completions do, where the first token may have none.
fn logprobs(answer: &Answer) -> Vec<f64> {
    let Some(logprobs) = answer.beside.choice.get("logprobs") else { return Vec::new() };
    let items = |member: &str| logprobs.get(member).and_then(Value::as_array).into_iter().flatten();
    let of_chat = items("content").filter_map(|token| token.get("logprob"));
    let of_text = items("token_logprobs");
    of_chat.chain(of_text).filter_map(Value::as_f64).map(|logprob| logprob.min(0.0)).collect()
}

/// A route's cascade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cascade {
    /// What says how sure a rung is.
    pub measure: Measure,
    /// The least confidence with which an answer is taken where the job can climb.
    pub at_least: Confidence,
    /// Targets that cannot say how sure they are. Their answers are taken as they are.
    pub silent: BTreeSet<Target>,
}

impl Cascade {
    /// Whether calls ask this target for the probabilities of its tokens.
    #[must_use]
    pub fn asks_for_logprobs(&self, target: &Target) -> bool {
        self.measure.needs_logprobs() && !self.silent.contains(target)
    }

    /// Why an answer of this confidence is not sure enough, in words; `None`: it is.
    #[must_use]
    pub fn fault(&self, confidence: Option<Confidence>) -> Option<String> {
        let at_least = self.at_least;
        match (confidence, &self.measure) {
            (Some(confidence), _) if confidence >= at_least => None,
            (Some(confidence), _) => Some(format!("its confidence is {confidence}, at least {at_least} is asked for")),
            (None, Measure::Field(pointer)) => {
                Some(format!("it does not say how sure it is: it has no number at {pointer}"))
            }
            (None, Measure::MeanLogprob | Measure::MinLogprob) => {
                Some("it does not say how sure it is: no probabilities of its tokens came with it".to_owned())
            }
        }
    }
}

/// An answer that kept every rule, and of which its rung was not sure enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsure {
    /// The attempt that brought it, by its number.
    pub number: i16,
    /// `None`: it did not say how sure it is.
    pub confidence: Option<Confidence>,
}

/// The request, asking for the probabilities of the tokens of its answer; `None`: it asks for them already, or for
/// something that has no tokens.
#[must_use]
pub fn ask_for_logprobs(request: &ChatRequest) -> Option<ChatRequest> {
    let mut body = RawObject::read(&request.raw).filter(|_| request.embed.is_none())?;
    if body.given("logprobs").is_some_and(|asked| asked != "false") {
        return None;
    }
    body.set_first("logprobs", &true);
    let asking = ChatRequest::read_text(&body.to_text()).ok()?;
    Some(ChatRequest { is_prompt: request.is_prompt, ..asking })
}

#[cfg(test)]
mod tests;
