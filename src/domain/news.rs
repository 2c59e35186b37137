//! News of a target or a key: what one worker has found out and tells the others through the database, where it is also
//! kept over restarts.
//!
//! News is a hint for processes that know less. A process with calls of its own judges by these, and what it hears
//! makes it careful and never certain: where a breaker or a key is concerned, one call of its own asks.

use super::Timestamp;
use super::key_ring::KeyFault;
use super::shut::Shut;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Rests that end sooner than this are over before another process could hear of them.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// News of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BreakerNews {
    /// The target answers again.
    Closed,
    /// The target has failed too often.
    Open {
        /// Since when it has not been closed.
        since: Timestamp,
        /// When a probe may go.
        until: Timestamp,
        /// How many probes have failed in a row.
        failed_probes: u32,
    },
}

/// News of a model that its provider does not know or does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelNews {
    /// Until when it is not asked for.
    pub shut: Shut,
    /// The provider's words, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// News of one target. A member that is absent says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetNews {
    /// Its breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerNews>,
    /// A refusal of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelNews>,
    /// A time in which the provider has asked to be left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<Shut>,
}

/// News of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum KeyNews {
    /// It works again.
    InService,
    /// The provider has refused it.
    Out {
        /// Why.
        fault: KeyFault,
        /// Since when it has not been in service.
        since: Timestamp,
        /// The provider's words, without secrets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        said: Option<String>,
    },
}

impl TargetNews {
    /// The part of this state of a target that other processes do not know yet, given what they were `told` last.
    #[must_use]
    pub fn since(self, told: &Self, now: Timestamp) -> Self {
        let is_worth_it = |shut: &Shut, before: Option<Timestamp>| {
            shut.until > now + WORTH_TELLING && before.is_none_or(|before| before < shut.until)
        };
        let known = told.breaker.unwrap_or(BreakerNews::Closed);
        Self {
            breaker: self.breaker.filter(|breaker| *breaker != known),
            model: self.model.filter(|model| {
                let before = told.model.as_ref().map(|model| model.shut.until);
                is_worth_it(&model.shut, before)
            }),
            rest: self.rest.filter(|rest| is_worth_it(rest, told.rest.map(|rest| rest.until))),
        }
    }

    /// Adds later news.
    pub fn add(&mut self, later: Self) {
        let Self { breaker, model, rest } = later;
        self.breaker = breaker.or(self.breaker);
        self.model = model.or_else(|| self.model.take());
        self.rest = rest.or(self.rest);
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests;
