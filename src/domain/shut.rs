//! Why, since when and until when something may not be called: one value for the gate, the decision, the explanation
//! and the reports.

use super::Timestamp;
use super::breaker::Sign;
use super::error_class::{Effect, ErrorClass};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What opens by no clock is shut for so long, or longer.
pub const NEVER: Duration = Duration::from_hours(2400);

/// A time during which something may not be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shut {
    /// Why it may not be called.
    pub reason: Reason,
    /// Since when without a break; equal to now where the limit only paces calls.
    pub since: Timestamp,
    /// Until when, as far as is known.
    pub until: Timestamp,
}

impl Shut {
    /// When it opens, where that is known: only an operator ends a pause, or raises a budget that counts once.
    #[must_use]
    pub fn known_end(&self) -> Option<Timestamp> {
        let is_lasting = self.reason == Reason::Budget && self.until >= self.since + NEVER;
        (self.reason != Reason::Paused && !is_lasting).then_some(self.until)
    }
}

/// Why a rung cannot be called right now although it may be called later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Reason {
    /// Requests or tokens are used up, or the provider asked to wait (429 of any kind but money).
    RateLimit,
    /// All calls that may run at once are running.
    Concurrency,
    /// The tier that is asked for has no capacity at the moment.
    NoCapacity,
    /// It is dearer now than it will be soon.
    PeakHours,
    /// The breaker is open.
    Breaker,
    /// The provider failed and asked to be left alone for a time.
    AskedToWait,
    /// No provider can be reached, this one among them: the trouble is probably the worker's own network.
    Offline,
    /// No key is in service; the first key that may be tried again was out of money.
    QuotaExhausted,
    /// No key is in service; the first key that may be tried again was rejected.
    Auth,
    /// Its keys were refused although they had answered lately. That is taken for an outage, not believed of the keys.
    KeysInDoubt,
    /// The model is unknown to the provider or not allowed to this key.
    Model,
    /// An operator paused the provider.
    Paused,
    /// The provider's budget has no room.
    Budget,
    /// The provider's health probe fails.
    HealthProbe,
    /// It works, but its answers to the jobs of the route take too long: it is passed over for a better rung.
    Slow,
    /// It works, but its answers to the jobs of the route are rejected: it is passed over for a better rung.
    Quality,
}

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::RateLimit,
        Self::Concurrency,
        Self::NoCapacity,
        Self::PeakHours,
        Self::Breaker,
        Self::AskedToWait,
        Self::Offline,
        Self::QuotaExhausted,
        Self::Auth,
        Self::KeysInDoubt,
        Self::Model,
        Self::Paused,
        Self::Budget,
        Self::HealthProbe,
        Self::Slow,
        Self::Quality,
    ];

    /// The code of the reason: in rows, in what jobs wait for, in explanations, in status and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::Concurrency => "concurrency",
            Self::NoCapacity => "no_capacity",
            Self::PeakHours => "peak_hours",
            Self::Breaker => "breaker_open",
            Self::AskedToWait => "asked_to_wait",
            Self::Offline => "offline",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Auth => "auth",
            Self::KeysInDoubt => "keys_in_doubt",
            Self::Model => "model",
            Self::Paused => "paused",
            Self::Budget => "budget",
            Self::HealthProbe => "health_probe",
            Self::Slow => "slow",
            Self::Quality => "quality",
        }
    }

    /// The reason with this code.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == code)
    }

    /// Whether the reason passes by itself. Money, keys and models do not come back without a person, and a paused
    /// provider comes back when the operator says so: waiting for these is pointless where there is another rung.
    #[must_use]
    pub const fn passes(self) -> bool {
        match self {
            Self::RateLimit
            | Self::Concurrency
            | Self::NoCapacity
            | Self::PeakHours
            | Self::Breaker
            | Self::AskedToWait
            | Self::Offline
            | Self::KeysInDoubt
            | Self::Budget
            | Self::HealthProbe
            | Self::Slow
            | Self::Quality => true,
            Self::QuotaExhausted | Self::Auth | Self::Model | Self::Paused => false,
        }
    }

    /// Whether requests, tokens or places come back at a known time, and nothing else can bring them earlier.
    #[must_use]
    pub const fn is_a_limit(self) -> bool {
        match self {
            Self::RateLimit | Self::Concurrency => true,
            Self::NoCapacity
            | Self::PeakHours
            | Self::Breaker
            | Self::AskedToWait
            | Self::Offline
            | Self::QuotaExhausted
            | Self::Auth
            | Self::KeysInDoubt
            | Self::Model
            | Self::Paused
            | Self::Budget
            | Self::HealthProbe
            | Self::Slow
            | Self::Quality => false,
        }
    }

    /// Whether failures of this class shut a rung for this reason, as far as `fallback_on` is concerned: there
    /// `rate_limit` stands for every limit.
    #[must_use]
    pub fn follows_from(self, class: ErrorClass) -> bool {
        let facts = class.facts();
        match self {
            Self::RateLimit | Self::Concurrency => class == ErrorClass::RateLimit,
            Self::NoCapacity => class == ErrorClass::NoCapacity,
            // What a breaker would find out by calls, a probe finds out without, and refused keys in their own way.
            Self::Breaker | Self::AskedToWait | Self::HealthProbe | Self::KeysInDoubt => facts.breaker == Sign::Bad,
            Self::Offline => !facts.is_heard,
            // A call that takes long enough ends so, and an answer that is rejected does.
            Self::Slow => class == ErrorClass::Timeout,
            Self::Quality => class == ErrorClass::SoftFailure,
            Self::QuotaExhausted | Self::Auth => facts.key.is_some_and(|fault| fault.reason() == self),
            Self::Model => facts.effect == Effect::NoModel,
            Self::PeakHours | Self::Paused | Self::Budget => false,
        }
    }
}

impl From<Reason> for &'static str {
    fn from(reason: Reason) -> Self {
        reason.as_str()
    }
}

impl TryFrom<String> for Reason {
    type Error = String;

    /// Reads a code in JSON. Earlier versions kept the breaker as `breaker`.
    fn try_from(code: String) -> Result<Self, String> {
        let reason = if code == "breaker" { Some(Self::Breaker) } else { Self::parse(&code) };
        reason.ok_or_else(|| format!("{code:?} is not a reason"))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RateLimit => "rate limit reached",
            Self::Concurrency => "all its calls are running",
            Self::NoCapacity => "no capacity in its tier",
            Self::PeakHours => "in its peak hours",
            Self::Breaker => "breaker open",
            Self::AskedToWait => "the provider asked to be left alone",
            Self::Offline => "no provider can be reached",
            Self::QuotaExhausted => "out of money",
            Self::Auth => "key rejected",
            Self::KeysInDoubt => "keys refused as in an outage",
            Self::Model => "model unknown or not allowed",
            Self::Paused => "paused",
            Self::Budget => "its budget has no room",
            Self::HealthProbe => "its health probe fails",
            Self::Slow => "its answers are slow",
            Self::Quality => "its answers are rejected",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_one_code_everywhere_and_the_old_one_is_still_read() {
        for &reason in Reason::ALL {
            let kept = serde_json::to_value(reason).unwrap();
            assert_eq!(kept, reason.as_str(), "rows and what is printed say the same");
            assert_eq!(serde_json::from_value::<Reason>(kept).unwrap(), reason);
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("of tomorrow"), None);
        assert_eq!(serde_json::from_str::<Reason>("\"breaker\"").unwrap(), Reason::Breaker);
    }

    #[test]
    fn a_limit_passes_by_itself() {
        for reason in Reason::ALL.iter().filter(|reason| reason.is_a_limit()) {
            assert!(reason.passes(), "{reason}");
        }
    }
}
