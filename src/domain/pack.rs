//! Requests for embeddings that share one call: which of them may, how large the call gets, and what follows for each
//! of them when it fails.

mod shares;

use super::error_class::ErrorClass;
use super::raw_object::RawObject;
use super::request::{Embed, Inputs};
use super::{Attempt, Bearing, ChatRequest, Failure, Outcome, Remedy, SoftFailure, Vectors};
pub use shares::{Amounts, shares};
use std::time::Duration;

/// How a route packs its requests for embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// The most that one call may have; the vendor may take less.
    pub most: PackBounds,
    /// How long a pack that is not full waits for more requests.
    pub wait: Duration,
}

/// The most that one call for embeddings may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackBounds {
    pub inputs: usize,
    /// Tokens of all inputs together; `None`: no bound is known.
    pub tokens: Option<u64>,
}

impl PackBounds {
    /// So many inputs, however long they are.
    #[must_use]
    pub const fn of_inputs(inputs: usize) -> Self {
        Self { inputs, tokens: None }
    }

    /// What keeps within both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let tokens = [self.tokens, other.tokens].into_iter().flatten().min();
        Self { inputs: self.inputs.min(other.inputs), tokens }
    }

    /// Whether a call may have so much.
    #[must_use]
    pub fn allow(&self, inputs: usize, tokens: u64) -> bool {
        inputs <= self.inputs && self.tokens.is_none_or(|most| tokens <= most)
    }
}

/// All that a request for embeddings asks for beside its inputs. Only requests that agree in it share a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackKey {
    /// Texts and numbers of tokens do not mix.
    are_texts: bool,
    /// The members by name, each value as it was written.
    members: Vec<(String, String)>,
}

impl PackKey {
    /// `None`: the request asks for no embeddings.
    #[must_use]
    pub fn of(request: &ChatRequest) -> Option<Self> {
        let embed = request.embed.as_ref()?;
        let body = RawObject::read(&request.raw)?;
        let asks = |&(name, value): &(&str, &str)| name != "input" && value != "null";
        let members = body.members().filter(asks).map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut members: Vec<(String, String)> = members.collect();
        members.sort_unstable();
        Some(Self { are_texts: matches!(embed.inputs, Inputs::Texts(_)), members })
    }
}

/// One request with the inputs of all of these, one behind the other. They agree in everything else ([`PackKey`]).
/// `None`: there are none, or they do not.
#[must_use]
pub fn merged<'a>(requests: impl IntoIterator<Item = &'a ChatRequest>) -> Option<ChatRequest> {
    let mut requests = requests.into_iter();
    let first = requests.next()?;
    let Embed { mut inputs, dimensions } = first.embed.clone()?;
    for request in requests {
        match (&mut inputs, &request.embed.as_ref()?.inputs) {
            (Inputs::Texts(all), Inputs::Texts(more)) => all.extend_from_slice(more),
            (Inputs::Tokens(all), Inputs::Tokens(more)) => all.extend_from_slice(more),
            _ => return None,
        }
    }
    let mut body = RawObject::read(&first.raw)?;
    match &inputs {
        Inputs::Texts(texts) => body.set("input", texts),
        Inputs::Tokens(lists) => body.set("input", lists),
    }
    let raw = body.to_text().into();
    Some(ChatRequest { raw, embed: Some(Embed { inputs, dimensions }), ..first.clone() })
}

/// The vectors of each of several requests with so many inputs. `None`: there are not as many in all, or it is not
/// known which belongs to which input.
#[must_use]
pub fn dealt(vectors: Vectors, counts: &[usize]) -> Option<Vec<Vectors>> {
    let asked = counts.iter().fold(0, |sum: usize, count| sum.saturating_add(*count));
    if !vectors.is_in_order() || vectors.list().len() != asked {
        return None;
    }
    let mut list = vectors.into_list().into_iter();
    Some(counts.iter().map(|&count| Vectors::in_order(list.by_ref().take(count).collect())).collect())
}

/// What follows for the jobs of a pack when its call has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It is the failure of each of them.
    Together,
    /// It may be the fault of one of them: they are asked again in smaller packs.
    Smaller,
    /// Nothing is known of any of them: each is asked again alone.
    Alone,
}

impl Parting {
    /// What follows from this outcome of the call. `is_mendable`: the same rung is asked again with a changed request.
    #[must_use]
    pub fn of(outcome: &Outcome, failure: Option<&Failure>, is_mendable: bool) -> Self {
        match outcome {
            // No vector is known to belong to any of them. Every other fault of vectors is found again with the request
            // that they belong to.
            Outcome::Rejected(SoftFailure::VectorCount) => Self::Alone,
            Outcome::Accepted | Outcome::Rejected(_) => Self::Together,
            Outcome::Failed(_) if is_mendable => Self::Together,
            Outcome::Failed(_) if failure.is_some_and(|failure| failure.bearing == Bearing::InDoubt) => Self::Alone,
            Outcome::Failed(class) => match class.facts().remedy {
                Remedy::NextRung | Remedy::LargerWindow => Self::Smaller,
                Remedy::WaitForGate(_) | Remedy::RetrySame { .. } | Remedy::Mend | Remedy::Reask | Remedy::End => {
                    Self::Together
                }
            },
        }
    }
}

/// The jobs with which a job may share a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Company {
    /// All that ask for the same.
    #[default]
    Any,
    /// Those that were in this part of a pack that was refused.
    Part {
        /// The pack.
        pack: u64,
        part: usize,
        /// How many jobs are in the part; more than one.
        jobs: usize,
    },
    /// None.
    Alone,
}

/// A pack that was refused is asked again in so many parts. By this number few calls find one bad request, and a route
/// all of whose requests are refused pays hardly more calls than without packs.
const PARTS: usize = 8;

/// After so many failures that count a job goes alone: what looks like the provider's fault may be that of one request
/// which it cannot bear.
const FAILURES_IN_COMPANY: usize = 2;

impl Company {
    /// The company in which the job at this place among the `jobs` of a pack is asked again.
    #[must_use]
    pub fn after(parting: Parting, pack: u64, place: usize, jobs: usize) -> Option<Self> {
        let size = match parting {
            Parting::Together => return None,
            Parting::Smaller => jobs.div_ceil(PARTS),
            Parting::Alone => 1,
        };
        let part = place.checked_div(size)?;
        let left = jobs.saturating_sub(part.saturating_mul(size)).min(size);
        Some(if left > 1 { Self::Part { pack, part, jobs: left } } else { Self::Alone })
    }

    /// The company of a job with these attempts behind it.
    #[must_use]
    pub fn given(self, history: &[Attempt]) -> Self {
        let failures = history.iter().filter(|attempt| counts_against_company(attempt)).count();
        if failures >= FAILURES_IN_COMPANY { Self::Alone } else { self }
    }

    /// How many jobs a pack has when it is complete; `None`: as many as it takes.
    #[must_use]
    pub const fn complete_at(self) -> Option<usize> {
        match self {
            Self::Any => None,
            Self::Part { jobs, .. } => Some(jobs),
            Self::Alone => Some(1),
        }
    }
}

fn counts_against_company(attempt: &Attempt) -> bool {
    // Of a crowd no single request is the cause.
    attempt.uses_up_an_attempt() && attempt.outcome != Outcome::Failed(ErrorClass::Overloaded)
}

#[cfg(test)]
mod tests;
