//! The provider-independent names of failures, and all facts about each: one row of one table.

use super::breaker::Sign;
use super::charging::Fate;
use super::key_ring::KeyFault;
use super::remedy::Remedy;
use super::shut::Reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The facts about a class of failures, wherever they are needed.
#[derive(Debug)]
pub struct ClassFacts {
    /// The name in configuration, ledger, reports and metrics.
    pub name: &'static str,
    /// The failure, in the words of the operator's handbook.
    pub meaning: &'static str,
    /// The consequence, in the words of the operator's handbook.
    pub reaction: &'static str,
    /// What a failed attempt calls for. The words of a single failure may say more:
    /// [`Attempt::remedy`](super::Attempt::remedy).
    pub remedy: Remedy,
    /// Whether an attempt that ended so counts towards the job's bound on attempts.
    ///
    /// Waiting is not failing, so an attempt that waits for a gate does not count. An abandoned attempt says something
    /// about a worker, not about the job: the shell counts it as a crash. A call that was never sent says nothing about
    /// the job either: a network that is down for an hour must not fail everything that is queued.
    pub uses_up_an_attempt: bool,
    /// Whether a job may leave the rung because of this class.
    pub fallback: Fallback,
    /// What the breaker learns from the failure.
    pub breaker: Sign,
    /// What the failure says against the key; `None`: nothing.
    pub key: Option<KeyFault>,
    /// How the call ended, as far as the provider's limits are concerned.
    pub fate: Fate,
    /// Whether the call may have cost money although it brought no answer.
    pub billed: Billed,
    /// What the gate does about the failure, for the calls of all jobs.
    pub effect: Effect,
    /// Where a provider states how long to wait.
    pub hints: Hints,
    /// Whether the provider said anything. Where no provider says anything, the trouble is taken to be on this side.
    pub is_heard: bool,
}

/// Whether a job may leave a rung because of a class of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Regardless of what the route lists, unless it never falls back: the target cannot take the request at all, as if
    /// that had been known beforehand.
    Always,
    /// If the route lists the class, or lists nothing.
    ByDefault,
    /// As this other class, which stands for it in lists.
    As(ErrorClass),
    /// Only if the route lists the class.
    IfListed,
}

/// Whether a call without an answer may have cost money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billed {
    /// The answer may have been generated in full without a word of it reaching us.
    Perhaps,
    /// Nothing was sent.
    Never,
    /// The call may have cost money where the status was a success and no code contradicts that.
    AfterSuccess,
}

/// What the gate does about a failure, for the calls of all jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing beyond what key and breaker do.
    Nothing,
    /// The bucket is shut, because this was used up.
    Limit(Refusal),
    /// The target rests: its model is unknown or not allowed.
    NoModel,
    /// The target rests for as long as it asks.
    Rest,
    /// As [`Rest`](Self::Rest), and fewer calls run at once.
    Crowded,
    /// Fewer calls run at once, where that number is found by trial.
    Slow,
    /// The target rests for as long as it asks, or longer with each refusal, and its provider goes on.
    Scarce,
}

impl ErrorClass {
    /// Whether a call that ended so brought an answer, accepted (`None`) or rejected.
    #[must_use]
    pub const fn is_answered(outcome: Option<Self>) -> bool {
        matches!(outcome, None | Some(Self::SoftFailure))
    }

    /// Whether its words may name a limit with its size.
    #[must_use]
    pub const fn may_name_a_limit(self) -> bool {
        matches!(self, Self::NeverFits | Self::RateLimit | Self::RateLimitDaily)
    }
}

impl Effect {
    /// Whether what rests because of it rests for as long as the provider asks.
    #[must_use]
    pub const fn heeds_a_wait(self) -> bool {
        match self {
            Self::Limit(_) | Self::Rest | Self::Crowded | Self::Scarce => true,
            Self::Nothing | Self::NoModel | Self::Slow => false,
        }
    }
}

/// What a provider refused a call for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Requests or tokens came too fast.
    Pace,
    /// The rate of requests or tokens rose too fast.
    Slope,
    /// The allowance of a day is used up, and does not come back within a minute.
    Day,
}

/// Where a provider states how long to wait, beside the headers and members that are made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// Nowhere else: its messages quote prompts, and waiting does not help anyway.
    NowhereElse,
    /// In its message.
    Words,
    /// In its message, or by the time at which its limits are whole again.
    WordsAndLimits,
}

// A row is one class. Each row names all facts, or does not compile.
macro_rules! error_classes {
    ($($variant:ident { name: $name:literal, meaning: $meaning:literal, $($fact:tt)* })*) => {
        /// The kind of failure that an attempt met, regardless of the provider's name for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ErrorClass { $(#[doc = $meaning] #[serde(rename = $name)] $variant,)* }

        impl ErrorClass {
            /// Every class, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The row of this class.
            #[must_use]
            pub const fn facts(self) -> &'static ClassFacts {
                match self {
                    $(Self::$variant => const { &ClassFacts { name: $name, meaning: $meaning, $($fact)* } },)*
                }
            }
        }
    };
}

error_classes! {
    RateLimit {
        name: "rate_limit",
        meaning: "requests or tokens came too fast",
        reaction: "the bucket is shut for as long as was asked; without a word 1 s, doubling to 60 s",
        remedy: Remedy::WaitForGate(Reason::RateLimit),
        uses_up_an_attempt: false,
        fallback: Fallback::ByDefault,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::TurnedAway,
        billed: Billed::AfterSuccess,
        effect: Effect::Limit(Refusal::Pace),
        hints: Hints::WordsAndLimits,
        is_heard: true,
    }
    RateLimitDaily {
        name: "rate_limit_daily",
        meaning: "a day's allowance is used up",
        reaction: "as `rate_limit`; without a word `recheck`",
        remedy: Remedy::WaitForGate(Reason::RateLimit),
        uses_up_an_attempt: false,
        fallback: Fallback::ByDefault,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::TurnedAway,
        billed: Billed::AfterSuccess,
        effect: Effect::Limit(Refusal::Day),
        hints: Hints::WordsAndLimits,
        is_heard: true,
    }
    RampLimit {
        name: "ramp_limit",
        meaning: "traffic grew too fast",
        reaction: "as `rate_limit`",
        remedy: Remedy::WaitForGate(Reason::RateLimit),
        uses_up_an_attempt: false,
        fallback: Fallback::ByDefault,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::TurnedAway,
        billed: Billed::AfterSuccess,
        effect: Effect::Limit(Refusal::Slope),
        hints: Hints::WordsAndLimits,
        is_heard: true,
    }
    QuotaExhausted {
        name: "quota_exhausted",
        meaning: "money or prepaid credit is used up",
        reaction: "the next key at once; this one rests for `recheck`, then one call asks again. In doubt: see below",
        remedy: Remedy::WaitForGate(Reason::QuotaExhausted),
        uses_up_an_attempt: false,
        fallback: Fallback::ByDefault,
        breaker: Sign::Neutral,
        key: Some(KeyFault::OutOfMoney),
        fate: Fate::TurnedAway,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::Words,
        is_heard: true,
    }
    Overloaded {
        name: "overloaded",
        meaning: "the provider has no capacity",
        reaction: "two more tries, then the next rung",
        remedy: Remedy::RetrySame { tries: 2 },
        uses_up_an_attempt: true,
        fallback: Fallback::ByDefault,
        breaker: Sign::Bad,
        key: None,
        fate: Fate::Failed,
        billed: Billed::AfterSuccess,
        effect: Effect::Crowded,
        hints: Hints::Words,
        is_heard: true,
    }
    NoCapacity {
        name: "no_capacity",
        meaning: "a tier of spare capacity (`@flex`) has none at the moment; nothing was billed",
        reaction: "the rung rests for this job for as long as was asked, without a word 0.5 s doubling to 60 s; what \
                   the route's patience does not wait for goes to the next rung at once. After ten in a \
                   row, and three for each call under way, the target rests for all jobs, 1 s doubling to 60 s",
        remedy: Remedy::WaitForGate(Reason::NoCapacity),
        uses_up_an_attempt: false,
        // To a route that falls back when a provider has no capacity, a tier without capacity is no different.
        fallback: Fallback::As(ErrorClass::Overloaded),
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::TurnedAway,
        billed: Billed::Never,
        effect: Effect::Scarce,
        hints: Hints::Words,
        is_heard: true,
    }
    ServerError {
        name: "server_error",
        meaning: "any other fault of the provider",
        reaction: "two more tries, then the next rung",
        remedy: Remedy::RetrySame { tries: 2 },
        uses_up_an_attempt: true,
        fallback: Fallback::ByDefault,
        breaker: Sign::Bad,
        key: None,
        fate: Fate::Failed,
        billed: Billed::AfterSuccess,
        effect: Effect::Rest,
        hints: Hints::Words,
        is_heard: true,
    }
    Timeout {
        name: "timeout",
        meaning: "no complete answer in time; may have been billed",
        reaction: "one more try, then the next rung",
        // The call may have been billed in full, so a third one is not risked.
        remedy: Remedy::RetrySame { tries: 1 },
        uses_up_an_attempt: true,
        fallback: Fallback::ByDefault,
        breaker: Sign::Bad,
        key: None,
        fate: Fate::LetIn,
        billed: Billed::Perhaps,
        effect: Effect::Slow,
        hints: Hints::Words,
        is_heard: false,
    }
    Network {
        name: "network",
        meaning: "the connection broke during the call; a cut answer counts too",
        reaction: "two more tries, then the next rung",
        remedy: Remedy::RetrySame { tries: 2 },
        uses_up_an_attempt: true,
        fallback: Fallback::ByDefault,
        breaker: Sign::Bad,
        key: None,
        fate: Fate::LetIn,
        billed: Billed::Perhaps,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: false,
    }
    Unreachable {
        name: "unreachable",
        meaning: "no connection was made: nothing was sent",
        reaction: "one more try, then the next rung; where no provider is in reach, silent ones rest 5 s (`offline`)",
        remedy: Remedy::RetrySame { tries: 1 },
        uses_up_an_attempt: false,
        // A route that falls back after a broken connection also falls back when no connection was made.
        fallback: Fallback::As(ErrorClass::Network),
        breaker: Sign::Bad,
        key: None,
        fate: Fate::TurnedAway,
        billed: Billed::Never,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: false,
    }
    Auth {
        name: "auth",
        meaning: "the key is wrong, expired or revoked",
        reaction: "the next key at once; this one rests for `recheck`, then one call asks again. In doubt: see below",
        remedy: Remedy::WaitForGate(Reason::Auth),
        uses_up_an_attempt: false,
        fallback: Fallback::ByDefault,
        breaker: Sign::Neutral,
        key: Some(KeyFault::Rejected),
        fate: Fate::TurnedAway,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    Permission {
        name: "permission",
        meaning: "the key may not do this: model, region, policy",
        reaction: "the target rests for `recheck`, then one call asks again. In doubt: see below",
        remedy: Remedy::WaitForGate(Reason::Model),
        uses_up_an_attempt: false,
        fallback: Fallback::Always,
        // The failure is lasting, so it shuts the target by itself and is not counted.
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::TurnedAway,
        billed: Billed::AfterSuccess,
        effect: Effect::NoModel,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    NotFound {
        name: "not_found",
        meaning: "there is no such model or deployment",
        reaction: "the target rests for `recheck`, then one call asks again. In doubt: see below",
        remedy: Remedy::WaitForGate(Reason::Model),
        uses_up_an_attempt: false,
        fallback: Fallback::Always,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::TurnedAway,
        billed: Billed::AfterSuccess,
        effect: Effect::NoModel,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    InvalidRequest {
        name: "invalid_request",
        meaning: "the target finds the request wrong, in words that name neither a parameter nor a model nor a length",
        reaction: "never this rung again for the job. When two rungs say so in the same words, or three in any, the \
                   job fails. A request that cannot be read, or whose conversation contradicts itself, fails at \
                   once",
        // The words of vendors are never complete: the next target may accept what one finds wrong.
        remedy: Remedy::NextRung,
        uses_up_an_attempt: true,
        fallback: Fallback::Always,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::Failed,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    Refused {
        name: "refused",
        meaning: "this target does not take a parameter, a combination or an output cap of this request; or something \
                  in front of its API turned the request away (a page of a proxy)",
        reaction: "where the refusal names a change that keeps the meaning: once more with it; else never this rung \
                   again for the job",
        remedy: Remedy::NextRung,
        uses_up_an_attempt: true,
        fallback: Fallback::Always,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::Failed,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    ContextLength {
        name: "context_length",
        meaning: "too long for the model's window, the output cap included",
        reaction: "never this rung again, nor one with a window that is no larger",
        remedy: Remedy::LargerWindow,
        uses_up_an_attempt: true,
        fallback: Fallback::Always,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::Failed,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    ContentPolicy {
        name: "content_policy",
        meaning: "the input or the answer breaks the vendor's policy",
        reaction: "never this rung again for the job; the next one only if the route lists the class",
        remedy: Remedy::NextRung,
        uses_up_an_attempt: true,
        // This is the policy of one vendor. The route decides whether another vendor is asked.
        fallback: Fallback::IfListed,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::Failed,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    PayloadTooLarge {
        name: "payload_too_large",
        meaning: "the request has too many bytes",
        reaction: "never this rung again for the job",
        remedy: Remedy::NextRung,
        uses_up_an_attempt: true,
        fallback: Fallback::Always,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::Failed,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    NeverFits {
        name: "never_fits",
        meaning: "the request costs more at once than a limit or the account allows: waiting can never help",
        reaction: "never this rung again for the job",
        remedy: Remedy::NextRung,
        uses_up_an_attempt: true,
        fallback: Fallback::Always,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::TurnedAway,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    OutputInvalid {
        name: "output_invalid",
        meaning: "the provider rejected its own output",
        reaction: "one more try, then the next rung",
        remedy: Remedy::RetrySame { tries: 1 },
        uses_up_an_attempt: true,
        fallback: Fallback::ByDefault,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::Failed,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    Conflict {
        name: "conflict",
        meaning: "another request was in the way (409)",
        reaction: "two more tries, then the next rung",
        remedy: Remedy::RetrySame { tries: 2 },
        uses_up_an_attempt: true,
        fallback: Fallback::ByDefault,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::Failed,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::Words,
        is_heard: true,
    }
    Cancelled {
        name: "cancelled",
        meaning: "the provider gave up on the call (499)",
        reaction: "one more try, then the next rung",
        remedy: Remedy::RetrySame { tries: 1 },
        uses_up_an_attempt: true,
        fallback: Fallback::ByDefault,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::LetIn,
        billed: Billed::Perhaps,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    SoftFailure {
        name: "soft_failure",
        meaning: "the answer came and is unusable; `detail` says how",
        reaction: "form (`not_json`, `schema_mismatch`, patterns, `bad_tool_call`): one more try, then the next rung; \
                   anything else: the next rung. With `reask`, form and length: at once, with the fault named",
        // Where the kind is known, its own row has the remedy: `SoftFailure::remedy`.
        remedy: Remedy::RetrySame { tries: 0 },
        uses_up_an_attempt: true,
        fallback: Fallback::ByDefault,
        breaker: Sign::Bad,
        key: None,
        fate: Fate::LetIn,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    Abandoned {
        name: "abandoned",
        meaning: "the worker stopped or died during the call; may have been billed",
        reaction: "one more try; workers that died are counted apart",
        remedy: Remedy::RetrySame { tries: 1 },
        uses_up_an_attempt: false,
        // The target did not cause it.
        fallback: Fallback::IfListed,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::LetIn,
        billed: Billed::Perhaps,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
    Deadline {
        name: "deadline",
        meaning: "the job's deadline passed before an answer was accepted",
        reaction: "the job fails",
        remedy: Remedy::End,
        uses_up_an_attempt: true,
        fallback: Fallback::IfListed,
        breaker: Sign::Neutral,
        key: None,
        fate: Fate::LetIn,
        billed: Billed::AfterSuccess,
        effect: Effect::Nothing,
        hints: Hints::NowhereElse,
        is_heard: true,
    }
}

impl ErrorClass {
    /// The name in configuration, ledger, reports and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// The classes that let a job move on where its route lists none.
    #[must_use]
    pub fn fallen_back_on_by_default() -> BTreeSet<Self> {
        Self::with_those_that_go_along(
            Self::ALL
                .iter()
                .copied()
                .filter(|class| matches!(class.facts().fallback, Fallback::Always | Fallback::ByDefault))
                .collect(),
        )
    }

    /// The classes that a list names, and those that one of them stands for.
    #[must_use]
    pub fn with_those_that_go_along(mut listed: BTreeSet<Self>) -> BTreeSet<Self> {
        let goes_along =
            |class: &&Self| matches!(class.facts().fallback, Fallback::As(other) if listed.contains(&other));
        let more: Vec<Self> = Self::ALL.iter().filter(goes_along).copied().collect();
        listed.extend(more);
        listed
    }
}

impl FromStr for ErrorClass {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|class| class.as_str() == name).ok_or(())
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
