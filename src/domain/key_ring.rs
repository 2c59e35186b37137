//! The keys of one provider: which one the next call takes, and which of them rest because they were refused.
//!
//! ```text
//!             refused                    recheck is over, one call takes it
//! InService ──────────▶ Retired ──────────────────────────────────────────▶ Probed
//!     ▲                    ▲                                                │  │
//!     │                    └──────────── refused again, or nothing learnt ──┘  │
//!     └──────────────────────────────── an answer ─────────────────────────────┘
//! ```
//!
//! Guarantees:
//! - Calls take the keys in service in turn, first the one that has not been used for longest.
//! - A key that was refused is not taken before its recheck is over, and then by one call at a time: if that is refused
//!   as well, the key rests again; if nothing is learnt from it (a timeout, a failing server), the next call tries.
//! - The result of a call that took its key in an earlier state changes nothing: a call sent before a key was retired
//!   neither brings it back nor lengthens its rest.
//! - A probe whose result never comes holds its key only for [`PROBE_LIMIT`].

use super::shut::{Reason, Shut};
use super::{Outcome, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a probe may take before another call may try the key in its place.
pub const PROBE_LIMIT: Duration = Duration::from_mins(15);

/// How long to wait before asking again while every key that might work is being tried.
const PROBE_POLL: Duration = Duration::from_secs(1);

/// Why a key is out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Reason", try_from = "Reason")]
pub enum KeyFault {
    /// It is wrong, expired or revoked.
    Rejected,
    /// Its account has no money left, or has reached a limit on spending.
    OutOfMoney,
}

impl KeyFault {
    /// Why a provider is shut if all of its keys have this fault.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Rejected => Reason::Auth,
            Self::OutOfMoney => Reason::QuotaExhausted,
        }
    }
}

impl From<KeyFault> for Reason {
    fn from(fault: KeyFault) -> Self {
        fault.reason()
    }
}

impl TryFrom<Reason> for KeyFault {
    type Error = String;

    fn try_from(reason: Reason) -> Result<Self, String> {
        let fault = [Self::Rejected, Self::OutOfMoney].into_iter().find(|fault| fault.reason() == reason);
        fault.ok_or_else(|| format!("{} is no fault of a key", reason.as_str()))
    }
}

/// What the outcome of a call says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySign {
    /// The key works.
    Works,
    /// The key was refused.
    Refused(KeyFault),
    /// The outcome says nothing about the key.
    Silent,
}

impl KeySign {
    /// Only an answer, usable or not, proves a key: a provider may find limits and faults of the request before it
    /// looks at the money, and a failing server has looked at nothing.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted | Outcome::Rejected(_) => Self::Works,
            Outcome::Failed(class) => class.facts().key.map_or(Self::Silent, Self::Refused),
        }
    }
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Calls take it in turn.
    InService,
    /// No call takes it.
    Retired {
        /// Why it is out of service.
        fault: KeyFault,
        /// Since when it has not been in service.
        since: Timestamp,
        /// When one call may try it again.
        until: Timestamp,
    },
    /// One call is trying it.
    Probed {
        /// Why it was retired.
        fault: KeyFault,
        /// Since when it has not been in service.
        since: Timestamp,
        /// When that call began.
        began: Timestamp,
    },
}

impl KeyState {
    /// When a call may take the key; may lie in the past.
    fn opens(self) -> Timestamp {
        match self {
            Self::InService => Timestamp::MIN,
            Self::Retired { until, .. } => until,
            Self::Probed { began, .. } => began + PROBE_LIMIT,
        }
    }

    /// Why the key is out of service, and since when.
    #[must_use]
    pub const fn fault(self) -> Option<(KeyFault, Timestamp)> {
        match self {
            Self::InService => None,
            Self::Retired { fault, since, .. } | Self::Probed { fault, since, .. } => Some((fault, since)),
        }
    }
}

/// A key taken for one call.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is neither reported nor given back keeps a probe's key"]
pub struct KeyLease {
    index: usize,
    era: u64,
    began: Timestamp,
}

impl KeyLease {
    /// Index of the key, in the order of the configuration.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }
}

/// The change that a result made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// A key in service was refused and rests now.
    Retired(KeyFault),
    /// A key that was tried again was refused again.
    StillOut(KeyFault),
    /// A key that was tried again works.
    Back,
}

#[derive(Clone, Debug)]
struct Key {
    state: KeyState,
    /// Counts changes of state.
    era: u64,
    /// The turn in which it was last taken; 0: never.
    used: u64,
    /// When the last call of this process began that proved it; refusals up to then are outdated.
    proven: Timestamp,
}

/// The keys of one provider. See the [module](self) for its guarantees.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Vec<Key>,
    recheck: Duration,
    turn: u64,
}

impl KeyRing {
    /// A ring of this many keys, all in service; a refused one rests for `recheck`. A server without keys counts as one
    /// key.
    #[must_use]
    pub fn new(keys: usize, recheck: Duration) -> Self {
        let fresh = Key { state: KeyState::InService, era: 0, used: 0, proven: Timestamp::MIN };
        Self { keys: vec![fresh; keys.max(1)], recheck, turn: 0 }
    }

    /// A ring after the configuration was read again. `faults` has an entry per key: for one that is the same as
    /// before, its fault and since when. One call may try such a key at once. All others are in service.
    #[must_use]
    pub fn renewed(faults: &[Option<(KeyFault, Timestamp)>], recheck: Duration, now: Timestamp) -> Self {
        let mut ring = Self::new(faults.len(), recheck);
        for (key, fault) in ring.keys.iter_mut().zip(faults) {
            if let Some((fault, since)) = *fault {
                key.enter(KeyState::Retired { fault, since, until: now });
            }
        }
        ring
    }

    /// The states of the keys, in the order of the configuration.
    pub fn states(&self) -> impl Iterator<Item = KeyState> {
        self.keys.iter().map(|key| key.state)
    }

    /// How many keys are in service.
    #[must_use]
    pub fn in_service(&self) -> usize {
        self.states().filter(|state| *state == KeyState::InService).count()
    }

    /// Why no key may be taken now, since when none has been in service, and when to ask again, which is later than
    /// `now`; `None` when a key may be taken. The fault is that of the key that may be tried first.
    #[must_use]
    pub fn shut(&self, now: Timestamp) -> Option<Shut> {
        let mut out: Option<Shut> = None;
        for state in self.states() {
            let opens = state.opens();
            let (fault, since) = state.fault().filter(|_| opens > now)?;
            let until = match state {
                KeyState::Probed { .. } => opens.min(now + PROBE_POLL),
                KeyState::InService | KeyState::Retired { .. } => opens,
            };
            let reason = fault.reason();
            out = Some(match out {
                None => Shut { reason, since, until },
                Some(first) => Shut {
                    reason: if until < first.until { reason } else { first.reason },
                    since: first.since.max(since),
                    until: first.until.min(until),
                },
            });
        }
        out
    }

    /// Makes every key that is out due: one call may try it at once.
    pub fn try_again(&mut self, now: Timestamp) {
        for key in &mut self.keys {
            if let KeyState::Retired { fault, since, until } = key.state {
                key.enter(KeyState::Retired { fault, since, until: until.min(now) });
            }
        }
    }

    /// Takes in what another process has found out about the key with this index: why it is out of service and since
    /// when, or that it is back. That process may have another secret under the same name, so one call of this process
    /// tries the key, at once; once for each refusal there. A refusal that is older than an answer to a call of this
    /// process is outdated. Returns whether it changes anything.
    pub fn hear(&mut self, index: usize, out: Option<(KeyFault, Timestamp)>, now: Timestamp) -> bool {
        let Some(key) = self.keys.get_mut(index) else { return false };
        let state = match (key.state, out) {
            (KeyState::InService, Some((fault, since))) if since > key.proven => {
                KeyState::Retired { fault, since, until: now }
            }
            (KeyState::Retired { fault, since, until }, None) if until > now => {
                KeyState::Retired { fault, since, until: now }
            }
            _ => return false,
        };
        key.enter(state);
        true
    }

    /// Takes the key for the next call: of the keys in service and those due to be tried again, the one that has not
    /// been used for longest.
    ///
    /// # Errors
    /// Why there is none, and when to ask again.
    pub fn take(&mut self, now: Timestamp) -> Result<KeyLease, Shut> {
        if let Some(shut) = self.shut(now) {
            return Err(shut);
        }
        self.turn = self.turn.saturating_add(1);
        let due = self.keys.iter_mut().enumerate().filter(|(_, key)| key.state.opens() <= now);
        let Some((index, key)) = due.min_by_key(|(_, key)| key.used) else {
            // The ring is not shut, so a key is due.
            return Err(Shut { reason: KeyFault::Rejected.reason(), since: now, until: now + PROBE_POLL });
        };
        key.used = self.turn;
        if let Some((fault, since)) = key.state.fault() {
            key.enter(KeyState::Probed { fault, since, began: now });
        }
        Ok(KeyLease { index, era: key.era, began: now })
    }

    /// Records the result of a call.
    pub fn report(&mut self, lease: KeyLease, sign: KeySign, now: Timestamp) -> Option<KeyChange> {
        let until = now + self.recheck;
        let key = self.keys.get_mut(lease.index).filter(|key| key.era == lease.era)?;
        match (key.state, sign) {
            (_, KeySign::Silent) => {
                self.give_back(lease);
                None
            }
            (KeyState::InService, KeySign::Refused(fault)) => {
                key.enter(KeyState::Retired { fault, since: now, until });
                Some(KeyChange::Retired(fault))
            }
            (KeyState::Probed { since, .. }, KeySign::Refused(fault)) => {
                key.enter(KeyState::Retired { fault, since, until });
                Some(KeyChange::StillOut(fault))
            }
            (KeyState::Probed { since, .. }, KeySign::Works) => {
                // The refusal is disproved, also where the clock that set its time goes before this one.
                key.proven = key.proven.max(lease.began).max(since);
                key.enter(KeyState::InService);
                Some(KeyChange::Back)
            }
            (KeyState::InService, KeySign::Works) => {
                key.proven = key.proven.max(lease.began);
                None
            }
            // A retired key is not taken, so no lease is of that era.
            (KeyState::Retired { .. }, _) => None,
        }
    }

    /// Notes that the call was not made after all, or that nothing was learnt from it: the next call may try a key that
    /// was being tried.
    #[expect(clippy::needless_pass_by_value, reason = "a lease is good for one result")]
    pub fn give_back(&mut self, lease: KeyLease) {
        let Some(key) = self.keys.get_mut(lease.index).filter(|key| key.era == lease.era) else { return };
        if let KeyState::Probed { fault, since, .. } = key.state {
            key.enter(KeyState::Retired { fault, since, until: lease.began });
        }
    }
}

impl Key {
    fn enter(&mut self, state: KeyState) {
        self.state = state;
        self.era = self.era.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
