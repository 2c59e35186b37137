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
//! A key that has answered lately is not believed to be dead at its first refusal: a gateway in trouble may say of
//! every key that it is wrong. Such a key is in doubt: it rests for a moment, and then one call asks.
//!
//! ```text
//!             refused, has answered lately          a moment is over, one call takes it
//! InService ───────────────────────────────▶ Doubted ─────────────────────────────────▶ Asked ──▶ InService: an answer
//!                                                ▲                                      │ │
//!                                                └──────── refused, as all of them are ─┘ └──▶ Retired: it alone is
//! ```
//!
//! Guarantees:
//! - Calls take the keys in service in turn, first the one that has not been used for longest.
//! - A key that was refused is not taken before its recheck is over, and then by one call at a time: if that is refused
//!   as well, the key rests again; if nothing is learnt from it (a timeout, a failing server), the next call tries.
//! - The result of a call that took its key in an earlier state changes nothing: a call sent before a key was retired
//!   neither brings it back nor lengthens its rest.
//! - A probe whose result never comes holds its key only for [`PROBE_LIMIT`].
//! - Keys that were refused together, with no answer to any of them in between, are taken for an outage of their
//!   provider: one call at a time asks, after pauses that double. An answer to it brings all of them back. Once the
//!   next pause would be as long as `recheck`, the keys are believed to be out.
//! - A key in doubt that is refused again is out at once where another key works, or where it is the only one.
//! - A key that this process has not seen answer within [`LATELY`] is out at its first refusal.

use super::shut::{Reason, Shut};
use super::{Outcome, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How long a probe may take before another call may try the key in its place.
pub const PROBE_LIMIT: Duration = Duration::from_mins(15);

/// How long to wait before asking again while every key that might work is being tried.
const PROBE_POLL: Duration = Duration::from_secs(1);

/// A key that has answered within this time is doubted at its first refusal, and not believed to be dead.
pub const LATELY: Duration = Duration::from_hours(1);

/// Keys that were refused within this time were refused together.
const TOGETHER: Duration = Duration::from_mins(1);

/// When the first call asks for a key in doubt; each further pause is twice as long.
const FIRST_ASK: Duration = Duration::from_secs(1);

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
    /// It was refused although it had answered lately. No call takes it.
    Doubted {
        /// Since when it has not been in service.
        since: Timestamp,
        /// When one call may ask.
        until: Timestamp,
    },
    /// One call asks whether it is still refused.
    Asked {
        /// Since when it has not been in service.
        since: Timestamp,
        /// When that call began.
        began: Timestamp,
    },
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
    /// When a call may take the key; may lie in the past. One call asks for all keys in doubt: `asking` is when the one
    /// that does has been given up.
    fn opens(self, asking: Option<Timestamp>) -> Timestamp {
        match self {
            Self::InService => Timestamp::MIN,
            Self::Doubted { until, .. } => asking.map_or(until, |given_up| until.max(given_up)),
            Self::Retired { until, .. } => until,
            Self::Probed { began, .. } | Self::Asked { began, .. } => began + PROBE_LIMIT,
        }
    }

    /// Why the key is believed to be out of service, and since when.
    #[must_use]
    pub const fn fault(self) -> Option<(KeyFault, Timestamp)> {
        match self {
            Self::InService | Self::Doubted { .. } | Self::Asked { .. } => None,
            Self::Retired { fault, since, .. } | Self::Probed { fault, since, .. } => Some((fault, since)),
        }
    }

    /// Whether it is not known yet what its refusal means.
    #[must_use]
    pub const fn is_in_doubt(self) -> bool {
        matches!(self, Self::Doubted { .. } | Self::Asked { .. })
    }

    /// Why calls do not take the key in turn, and since when.
    #[must_use]
    pub const fn absence(self) -> Option<(Reason, Timestamp)> {
        match self {
            Self::InService => None,
            Self::Doubted { since, .. } | Self::Asked { since, .. } => Some((Reason::KeysInDoubt, since)),
            Self::Retired { fault, since, .. } | Self::Probed { fault, since, .. } => Some((fault.reason(), since)),
        }
    }

    const fn doubted_since(self) -> Option<Timestamp> {
        match self {
            Self::Doubted { since, .. } | Self::Asked { since, .. } => Some(since),
            Self::InService | Self::Retired { .. } | Self::Probed { .. } => None,
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
    /// A key that has answered lately was refused, and one call asks in a moment.
    Doubted,
    /// A key in doubt was refused again, and a call asks later.
    StillInDoubt,
    /// A key in doubt works.
    Cleared,
    /// All keys were refused together: an outage of the provider.
    Outage(KeyOutage),
    /// A key works again after the outage, and all of them are back.
    OutageOver(KeyOutage),
    /// The keys were refused for so long that they are believed to be out.
    OutageBelieved(KeyOutage),
}

/// Refusals of all keys that were in service, taken for an outage of their provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOutage {
    /// How many keys were refused together.
    pub keys: usize,
    /// How much time lay between the first of these refusals and the last.
    pub within: Duration,
}

impl fmt::Display for KeyOutage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Less than a second is told as one.
        let seconds = self.within.as_millis().div_ceil(1_000).max(1);
        write!(f, "all {} keys were refused within {seconds} s: taken for an outage", self.keys)
    }
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
    /// How often a call has asked in vain since it came into doubt, on its own account.
    asks: u32,
}

/// The keys of one provider. See the [module](self) for its guarantees.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Vec<Key>,
    recheck: Duration,
    turn: u64,
    /// Set while all keys are refused together, with how often a call has asked in vain.
    outage: Option<(KeyOutage, u32)>,
}

impl KeyRing {
    /// A ring of this many keys, all in service; a refused one rests for `recheck`. A server without keys counts as one
    /// key.
    #[must_use]
    pub fn new(keys: usize, recheck: Duration) -> Self {
        let fresh = Key { state: KeyState::InService, era: 0, used: 0, proven: Timestamp::MIN, asks: 0 };
        Self { keys: vec![fresh; keys.max(1)], recheck, turn: 0, outage: None }
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

    /// When the last call began that proved the key with this index; earlier than all times: none did.
    #[must_use]
    pub fn proven(&self, index: usize) -> Timestamp {
        self.keys.get(index).map_or(Timestamp::MIN, |key| key.proven)
    }

    /// Remembers that a call which began then has proved the key with this index.
    pub fn remember(&mut self, index: usize, proven: Timestamp) {
        if let Some(key) = self.keys.get_mut(index) {
            key.proven = key.proven.max(proven);
        }
    }

    /// What is taken for an outage of the provider; `None`: nothing is.
    #[must_use]
    pub fn outage(&self) -> Option<KeyOutage> {
        self.outage.map(|(outage, _)| outage)
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
        let asking = self.asking();
        let mut out: Option<Shut> = None;
        for state in self.states() {
            let opens = state.opens(asking);
            let (reason, since) = state.absence().filter(|_| opens > now)?;
            let until = match state {
                KeyState::Probed { .. } | KeyState::Asked { .. } => opens.min(now + PROBE_POLL),
                KeyState::Doubted { until, .. } if until <= now => opens.min(now + PROBE_POLL),
                KeyState::InService | KeyState::Doubted { .. } | KeyState::Retired { .. } => opens,
            };
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

    /// When the call that asks for the keys in doubt has been given up; `None`: none asks.
    fn asking(&self) -> Option<Timestamp> {
        let asked = self.states().filter(|state| matches!(state, KeyState::Asked { .. }));
        asked.map(|state| state.opens(None)).max()
    }

    /// Makes every key that is out due: one call may try it at once.
    pub fn try_again(&mut self, now: Timestamp) {
        for key in &mut self.keys {
            match key.state {
                KeyState::Retired { fault, since, until } => {
                    key.enter(KeyState::Retired { fault, since, until: until.min(now) });
                }
                KeyState::Doubted { since, until } => key.enter(KeyState::Doubted { since, until: until.min(now) }),
                KeyState::InService | KeyState::Asked { .. } | KeyState::Probed { .. } => {}
            }
        }
    }

    /// Takes in what another process has found out about the key with this index: why it is out of service and since
    /// when, or that it is back. That process may have another secret under the same name, so one call of this process
    /// tries the key, at once; once for each refusal there. A refusal that is older than an answer to a call of this
    /// process is outdated. Returns whether it changes anything.
    pub fn hear(&mut self, index: usize, out: Option<(KeyFault, Timestamp)>, now: Timestamp) -> bool {
        let may_doubt = self.pause(0).is_some();
        let Some(key) = self.keys.get_mut(index) else { return false };
        let state = match (key.state, out) {
            // It answers this process, so it may be another secret, or an outage: one call asks, and is no proof alone.
            (KeyState::InService, Some((KeyFault::Rejected, since)))
                if since > key.proven && key.has_answered_lately(now) && may_doubt =>
            {
                key.asks = 0;
                KeyState::Doubted { since, until: now }
            }
            (KeyState::InService, Some((fault, since))) if since > key.proven => {
                KeyState::Retired { fault, since, until: now }
            }
            (KeyState::Retired { fault, since, until }, None) if until > now => {
                KeyState::Retired { fault, since, until: now }
            }
            (KeyState::Doubted { since, until }, None) if until > now => KeyState::Doubted { since, until: now },
            _ => return false,
        };
        key.enter(state);
        if state.is_in_doubt() {
            self.see_outage(now);
        }
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
        let asking = self.asking();
        let due = self.keys.iter_mut().enumerate().filter(|(_, key)| key.state.opens(asking) <= now);
        let Some((index, key)) = due.min_by_key(|(_, key)| key.used) else {
            // The ring is not shut, so a key is due.
            return Err(Shut { reason: KeyFault::Rejected.reason(), since: now, until: now + PROBE_POLL });
        };
        key.used = self.turn;
        match key.state {
            KeyState::InService => {}
            KeyState::Doubted { since, .. } | KeyState::Asked { since, .. } => {
                key.enter(KeyState::Asked { since, began: now });
            }
            KeyState::Retired { fault, since, .. } | KeyState::Probed { fault, since, .. } => {
                key.enter(KeyState::Probed { fault, since, began: now });
            }
        }
        Ok(KeyLease { index, era: key.era, began: now })
    }

    /// Records the result of a call.
    pub fn report(&mut self, lease: KeyLease, sign: KeySign, now: Timestamp) -> Option<KeyChange> {
        let (until, first_ask) = (now + self.recheck, self.pause(0));
        let index = lease.index;
        let key = self.keys.get_mut(index).filter(|key| key.era == lease.era)?;
        match (key.state, sign) {
            (_, KeySign::Silent) => {
                self.give_back(lease);
                None
            }
            (KeyState::InService, KeySign::Refused(KeyFault::Rejected))
                if key.has_answered_lately(now) && first_ask.is_some() =>
            {
                key.asks = 0;
                key.enter(KeyState::Doubted { since: now, until: now + first_ask.unwrap_or_default() });
                Some(self.see_outage(now).map_or(KeyChange::Doubted, KeyChange::Outage))
            }
            (KeyState::InService, KeySign::Refused(fault)) => {
                key.enter(KeyState::Retired { fault, since: now, until });
                Some(KeyChange::Retired(fault))
            }
            (KeyState::Asked { since, .. }, KeySign::Refused(KeyFault::Rejected)) => {
                Some(self.refused_again(index, since, now))
            }
            // What it says of money is no sign of an outage.
            (KeyState::Asked { since, .. }, KeySign::Refused(fault)) => {
                key.enter(KeyState::Retired { fault, since, until });
                self.forget_outage_without_keys();
                Some(KeyChange::Retired(fault))
            }
            (KeyState::Probed { since, .. }, KeySign::Refused(fault)) => {
                key.enter(KeyState::Retired { fault, since, until });
                Some(KeyChange::StillOut(fault))
            }
            (KeyState::Probed { since, .. } | KeyState::Asked { since, .. }, KeySign::Works) => {
                let was_doubted = key.state.doubted_since().is_some();
                // The refusal is disproved, also where the clock that set its time goes before this one.
                key.proven = key.proven.max(lease.began).max(since);
                key.enter(KeyState::InService);
                if !was_doubted {
                    // The provider takes keys: those that it does not take are judged one by one.
                    self.outage = None;
                    return Some(KeyChange::Back);
                }
                let Some((outage, _)) = self.outage.take() else { return Some(KeyChange::Cleared) };
                for key in self.keys.iter_mut().filter(|key| key.state.doubted_since().is_some()) {
                    key.enter(KeyState::InService);
                }
                Some(KeyChange::OutageOver(outage))
            }
            (KeyState::InService, KeySign::Works) => {
                key.proven = key.proven.max(lease.began);
                None
            }
            // Such a key is not taken, so no lease is of that era.
            (KeyState::Retired { .. } | KeyState::Doubted { .. }, _) => None,
        }
    }

    /// The pause after so many calls have asked in vain for a key in doubt; `None`: it is believed to be out.
    fn pause(&self, asks: u32) -> Option<Duration> {
        let pause = FIRST_ASK.saturating_mul(1_u32.checked_shl(asks).unwrap_or(u32::MAX));
        (pause < self.recheck).then_some(pause)
    }

    /// Whether the keys that are in doubt now were refused together, and no other is in service.
    fn see_outage(&mut self, now: Timestamp) -> Option<KeyOutage> {
        let doubted = || self.states().filter_map(KeyState::doubted_since);
        let (first, last) = (doubted().min()?, doubted().max()?);
        let (keys, within) = (doubted().count(), first.until(last));
        if keys < 2 || within > TOGETHER || self.in_service() > 0 {
            return None;
        }
        let (outage, until) = (KeyOutage { keys, within }, now + FIRST_ASK);
        self.outage = Some((outage, 0));
        self.rest_in_doubt(until);
        Some(outage)
    }

    /// Keys that wait in doubt do so until then.
    fn rest_in_doubt(&mut self, until: Timestamp) {
        for key in &mut self.keys {
            if let KeyState::Doubted { since, .. } = key.state {
                key.enter(KeyState::Doubted { since, until });
            }
        }
    }

    /// The key with this index, in doubt since then, was refused by a call that asked.
    fn refused_again(&mut self, index: usize, since: Timestamp, now: Timestamp) -> KeyChange {
        let others = || self.keys.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, key)| key);
        let others_work = others().any(|key| key.proven > since);
        // Of them nothing has been heard since.
        let others_may_work = others().any(|key| key.state == KeyState::InService);
        let (recheck, outage) = (self.recheck, self.outage.filter(|_| !others_work));
        let Some(asks) = self.keys.get_mut(index).map(|key| {
            key.asks = key.asks.saturating_add(1);
            key.asks
        }) else {
            return KeyChange::StillInDoubt;
        };
        let asks = outage.map_or(asks, |(_, asks)| asks.saturating_add(1));
        let is_doubted = !others_work && (outage.is_some() || others_may_work);
        let pause = self.pause(asks).filter(|_| is_doubted);
        let until = now + pause.unwrap_or(recheck);
        let fault = KeyFault::Rejected;
        if let Some(key) = self.keys.get_mut(index) {
            key.enter(match pause {
                Some(_) => KeyState::Doubted { since, until },
                None => KeyState::Retired { fault, since, until },
            });
        }
        match (outage, pause) {
            (Some((outage, _)), Some(_)) => {
                self.outage = Some((outage, asks));
                self.rest_in_doubt(until);
                KeyChange::StillInDoubt
            }
            (Some((outage, _)), None) => {
                self.outage = None;
                for key in &mut self.keys {
                    if let Some(since) = key.state.doubted_since() {
                        key.enter(KeyState::Retired { fault, since, until });
                    }
                }
                KeyChange::OutageBelieved(outage)
            }
            (None, Some(_)) => self.see_outage(now).map_or(KeyChange::StillInDoubt, KeyChange::Outage),
            (None, None) => {
                self.forget_outage_without_keys();
                KeyChange::Retired(fault)
            }
        }
    }

    fn forget_outage_without_keys(&mut self) {
        if self.states().all(|state| state.doubted_since().is_none()) {
            self.outage = None;
        }
    }

    /// Notes that the call was not made after all, or that nothing was learnt from it: the next call may try a key that
    /// was being tried.
    #[expect(clippy::needless_pass_by_value, reason = "a lease is good for one result")]
    pub fn give_back(&mut self, lease: KeyLease) {
        let Some(key) = self.keys.get_mut(lease.index).filter(|key| key.era == lease.era) else { return };
        match key.state {
            KeyState::Probed { fault, since, .. } => {
                key.enter(KeyState::Retired { fault, since, until: lease.began });
            }
            KeyState::Asked { since, .. } => key.enter(KeyState::Doubted { since, until: lease.began }),
            KeyState::InService | KeyState::Doubted { .. } | KeyState::Retired { .. } => {}
        }
    }
}

impl Key {
    fn has_answered_lately(&self, now: Timestamp) -> bool {
        self.proven > Timestamp::MIN && self.proven + LATELY >= now
    }

    fn enter(&mut self, state: KeyState) {
        self.state = state;
        self.era = self.era.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
