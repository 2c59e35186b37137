//! One more call of a rung whose answer was cut off at the output cap, with a larger cap.
//!
//! The same call would be cut at the same place, and so would one of the next rung with the same cap. A job raises the
//! cap of a rung at most once. Further calls of the rung in the same round keep the raised cap, because the first one
//! is known to be too small.

use super::{Attempt, Capabilities, ChatRequest, Outcome, SoftFailure};
use crate::domain::Finish;
use crate::domain::raw_object::RawObject;
use serde::{Deserialize, Serialize};

/// How many times the cap is raised, from the most that is tried to the least.
const TIMES: [i64; 2] = [4, 2];

/// Reasoning is given at least so many tokens: it takes no fewer because the answer is to be short.
const LEAST_FOR_REASONING: i64 = 1_024;

/// The members of a request that hold its output cap; of two the first counts.
const CAP_MEMBERS: [&str; 2] = ["max_completion_tokens", "max_tokens"];

/// Which answers that were cut off raise the cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RaiseCap {
    /// None.
    #[default]
    Never,
    /// Those that never began, because reasoning used up the cap.
    Reasoning,
    /// All.
    Always,
}

/// An answer that was cut off at the output cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutAnswer {
    /// The attempt that brought it, by its number.
    pub number: i16,
    /// The cap that cut it, in tokens.
    pub cap: i64,
    /// How it cannot be used.
    pub kind: SoftFailure,
}

/// A cap that was raised, as the ledger keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaisedCap {
    /// The attempt whose answer was cut off.
    pub of: i16,
    /// The cap that cut it.
    pub from: i64,
    /// The cap that was sent.
    pub to: i64,
    /// How the answer could not be used.
    pub after: SoftFailure,
}

impl RaiseCap {
    /// Whether an answer that cannot be used for this reason raises the cap.
    #[must_use]
    pub const fn is_for(self, kind: SoftFailure) -> bool {
        match kind {
            SoftFailure::ReasoningExhausted => matches!(self, Self::Reasoning | Self::Always),
            SoftFailure::Truncated => matches!(self, Self::Always),
            _ => false,
        }
    }
}

impl CutAnswer {
    /// An answer to a request with the cap `asked`; `told`: its tokens, if the provider reported them. `None`: no cap
    /// is known that could have cut it, so a larger one would change nothing.
    #[must_use]
    pub fn of(number: i16, kind: SoftFailure, asked: Option<i64>, finish: Finish, told: Option<i64>) -> Option<Self> {
        let told = told.filter(|output| *output > 0);
        let cap = match finish {
            // The vendor's own cap is as large as the answer that it cut.
            Finish::Length => asked.or(told),
            _ => asked.filter(|cap| told.is_some_and(|output| output >= *cap)),
        }?;
        Some(Self { number, cap, kind })
    }

    /// The larger caps to try with a model, the largest first. None: the cap is about as large as it can be.
    pub fn larger(self, capabilities: &Capabilities, input_tokens: i64) -> impl Iterator<Item = RaisedCap> + use<> {
        let Self { number, cap, kind } = self;
        let window = capabilities.context_window.map(|window| window.saturating_sub(input_tokens));
        let most = [window, capabilities.max_output_tokens].into_iter().flatten().min().unwrap_or(i64::MAX);
        let least = if kind == SoftFailure::ReasoningExhausted { LEAST_FOR_REASONING } else { 0 };
        let mut caps: Vec<i64> = TIMES.iter().map(|times| cap.saturating_mul(*times).max(least).min(most)).collect();
        caps.dedup();
        // A little more room is soon used up, too.
        let is_worthwhile = move |to: &i64| *to >= cap.saturating_add(cap / 2) && *to > cap;
        caps.into_iter().filter(is_worthwhile).map(move |to| RaisedCap { of: number, from: cap, to, after: kind })
    }
}

impl RaisedCap {
    /// The request with this cap. `None`: it has no output to cap.
    #[must_use]
    pub fn within(self, request: &ChatRequest) -> Option<ChatRequest> {
        let mut body = RawObject::read(&request.raw).filter(|_| request.embed.is_none())?;
        let given: Vec<&str> = CAP_MEMBERS.into_iter().filter(|name| body.given(name).is_some()).collect();
        for name in if given.is_empty() { vec!["max_tokens"] } else { given } {
            body.set(name, &self.to);
        }
        let raised = ChatRequest::read_text(&body.to_text()).ok()?;
        Some(ChatRequest { is_prompt: request.is_prompt, validate: request.validate.clone(), ..raised })
    }
}

/// The most that a cap is raised to.
#[must_use]
pub const fn most_of(cap: i64) -> i64 {
    let most = cap.saturating_mul(TIMES[0]);
    if most > LEAST_FOR_REASONING { most } else { LEAST_FOR_REASONING }
}

/// Whether a job has raised the cap of a rung, or is about to: it does so once.
#[must_use]
pub fn was_due(history: &[Attempt], rung: usize) -> bool {
    history.iter().any(|attempt| attempt.rung == Some(rung) && (attempt.cut.is_some() || attempt.is_raised))
}

/// The answer for which the next call of this rung has a larger cap; `None`: it has the usual one. A provider that
/// refuses the larger cap is not asked for it any more.
#[must_use]
pub fn due(history: &[Attempt], rung: usize) -> Option<CutAnswer> {
    let mut due = None;
    for attempt in history.iter().filter(|attempt| attempt.rung == Some(rung)) {
        if attempt.is_raised && !attempt.is_mendable && attempt.is_refused_change() {
            due = None;
        }
        due = attempt.cut.filter(|_| matches!(attempt.outcome, Outcome::Rejected(_))).or(due);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ErrorClass, Timestamp};
    use serde_json::{Value, json};

    fn caps(cut: CutAnswer, model: &Capabilities, input: i64) -> Vec<i64> {
        cut.larger(model, input).map(|raised| raised.to).collect()
    }

    #[test]
    fn the_cap_that_cut_is_the_asked_one_or_as_large_as_the_answer() {
        let cap =
            |asked, finish, told| CutAnswer::of(1, SoftFailure::Truncated, asked, finish, told).map(|cut| cut.cap);
        for (asked, finish, told, expected) in [
            (Some(256), Finish::Length, Some(256), Some(256)),
            (Some(256), Finish::Length, None, Some(256)),
            (None, Finish::Length, Some(4_096), Some(4_096)),
            (None, Finish::Length, None, None),
            (None, Finish::Length, Some(0), None),
            // JSON without its end is no matter of the cap if there was room left.
            (Some(256), Finish::Complete, Some(100), None),
            (Some(256), Finish::Complete, Some(256), Some(256)),
            (None, Finish::Complete, Some(256), None),
        ] {
            assert_eq!(cap(asked, finish, told), expected, "{asked:?} {finish:?} {told:?}");
        }
    }

    #[test]
    fn a_cap_is_raised_as_far_as_the_model_allows() {
        let model =
            |most, window| Capabilities { max_output_tokens: most, context_window: window, ..Capabilities::default() };
        let cut = |kind, cap| CutAnswer { number: 1, cap, kind };
        for (kind, cap, model, input, expected) in [
            (SoftFailure::Truncated, 256, model(None, None), 10, vec![1_024, 512]),
            (SoftFailure::ReasoningExhausted, 256, model(None, None), 10, vec![1_024]),
            (SoftFailure::ReasoningExhausted, 16, model(None, None), 10, vec![1_024]),
            (SoftFailure::ReasoningExhausted, 1_000, model(None, None), 10, vec![4_000, 2_000]),
            (SoftFailure::Truncated, 256, model(Some(600), None), 10, vec![600, 512]),
            (SoftFailure::Truncated, 256, model(Some(300), None), 10, vec![]),
            (SoftFailure::Truncated, 256, model(Some(256), None), 10, vec![]),
            (SoftFailure::Truncated, 256, model(None, Some(1_000)), 500, vec![500]),
            (SoftFailure::Truncated, 256, model(None, Some(700)), 500, vec![]),
            (SoftFailure::Truncated, 1, model(None, None), 10, vec![4, 2]),
            (SoftFailure::Truncated, i64::MAX, model(None, None), 10, vec![]),
        ] {
            assert_eq!(caps(cut(kind, cap), &model, input), expected, "{kind} {cap} {model:?}");
        }
    }

    #[test]
    fn the_cap_goes_where_the_request_has_it_and_nothing_else_changes() {
        let raised = RaisedCap { of: 1, from: 5, to: 20, after: SoftFailure::Truncated };
        for (body, expected) in [
            (json!({ "prompt": "x", "max_tokens": 5 }), json!({ "prompt": "x", "max_tokens": 20 })),
            (
                json!({ "prompt": "x", "max_completion_tokens": 5, "temperature": 0.50 }),
                json!({ "prompt": "x", "max_completion_tokens": 20, "temperature": 0.50 }),
            ),
            (json!({ "prompt": "x" }), json!({ "prompt": "x", "max_tokens": 20 })),
            (json!({ "prompt": "x", "max_tokens": null }), json!({ "prompt": "x", "max_tokens": 20 })),
            (
                json!({ "prompt": "x", "max_completion_tokens": 5, "max_tokens": 7 }),
                json!({ "prompt": "x", "max_completion_tokens": 20, "max_tokens": 20 }),
            ),
        ] {
            let request = ChatRequest::parse(&body).unwrap();
            let larger = raised.within(&request).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&larger.raw).unwrap(), expected);
            assert_eq!((larger.max_tokens, larger.is_prompt), (Some(20), request.is_prompt));
        }
        let vectors = ChatRequest::parse(&json!({ "input": "x" })).unwrap();
        assert!(raised.within(&vectors).is_none());
    }

    #[test]
    fn a_raised_cap_stays_until_a_provider_refuses_it() {
        let attempt = |outcome| Attempt::new(Some(0), outcome, Timestamp(0));
        let cut = CutAnswer { number: 1, cap: 256, kind: SoftFailure::Truncated };
        let first = Attempt { cut: Some(cut), ..attempt(Outcome::Rejected(SoftFailure::Truncated)) };
        let then = |outcome| Attempt { is_raised: true, ..attempt(outcome) };
        for (outcome, expected) in [
            (Outcome::Failed(ErrorClass::ServerError), Some(cut)),
            (Outcome::Failed(ErrorClass::RateLimit), Some(cut)),
            (Outcome::Rejected(SoftFailure::NotJson), Some(cut)),
            (Outcome::Failed(ErrorClass::InvalidRequest), None),
            (Outcome::Failed(ErrorClass::ContextLength), None),
        ] {
            let history = [first.clone(), then(outcome.clone())];
            assert_eq!(due(&history, 0), expected, "{outcome:?}");
            assert!(was_due(&history, 0) && !was_due(&history, 1) && due(&history, 1).is_none());
        }
        assert_eq!(due(&[first], 0), Some(cut));
        assert!(!was_due(&[attempt(Outcome::Rejected(SoftFailure::Truncated))], 0));
    }
}
