//! News of a target or a key: what one worker has found out and tells the others through the database, where it is also
//! kept over restarts.
//!
//! News is a hint for processes that know less. A process with calls of its own judges by these, and what it hears
//! makes it careful and never certain: where a breaker or a key is concerned, one call of its own asks.

use super::breaker::Evidence;
use super::key_ring::KeyFault;
use super::shut::Shut;
use super::{Timestamp, readable};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Rests that end sooner than this are over before another process could hear of them.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// News of a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        /// What it opened for; `None`: the process does not say, or says it in words of another version.
        #[serde(default, deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
        found: Option<Evidence>,
    },
}

impl BreakerNews {
    /// The part of this that other processes do not know yet, given what they were `told` last.
    #[must_use]
    pub fn since(self, told: Option<&Self>) -> Option<Self> {
        (self != *told.unwrap_or(&Self::Closed)).then_some(self)
    }
}

/// How many calls at once were found by trial to be well with a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacesNews {
    /// So many calls of one process may run at once.
    pub calls: u32,
    /// The number that was last too much; `None`: none was met.
    #[serde(default, deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub too_many: Option<u32>,
    /// When that was so.
    pub at: Timestamp,
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

/// A number of places that was told this long ago is told again, so that it does not age while it holds.
const RETELL: Duration = Duration::from_mins(10);

impl PlacesNews {
    /// Whether other processes should hear of this, given what they were `told` last; `usual` is where they begin
    /// without it.
    #[must_use]
    pub fn is_worth_telling(&self, told: Option<&Self>, usual: u32) -> bool {
        let known = told.map_or(usual, |told| told.calls);
        let is_other = known.abs_diff(self.calls).saturating_mul(4) >= known.max(1);
        is_other || told.is_some_and(|told| told.at.until(self.at) >= RETELL)
    }
}

impl TargetNews {
    /// The part of this state of a target that other processes do not know yet, given what they were `told` last.
    #[must_use]
    pub fn since(self, told: &Self, now: Timestamp) -> Self {
        let is_worth_it = |shut: &Shut, before: Option<Timestamp>| {
            shut.until > now + WORTH_TELLING && before.is_none_or(|before| before < shut.until)
        };
        Self {
            breaker: self.breaker.and_then(|breaker| breaker.since(told.breaker.as_ref())),
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
        self.breaker = breaker.or_else(|| self.breaker.take());
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
