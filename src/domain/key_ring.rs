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
//! - Calls take the keys in service in turn, the one first that has not been used for longest.
//! - A key that was refused is not taken before its recheck is over, and then by one call at a time: if that is refused
//!   as well, the key rests again; if nothing is learnt from it (a timeout, a failing server), the next call tries.
//! - The result of a call that took its key in an earlier state changes nothing: what was sent before a key was retired
//!   neither brings it back nor lengthens its rest.
//! - A probe whose result never comes holds its key only for [`PROBE_LIMIT`].

use super::decide::Closed;
use super::{ErrorClass, Outcome, Timestamp};
use std::time::Duration;

/// How long a probe may take before another call may try the key in its place.
pub const PROBE_LIMIT: Duration = Duration::from_mins(15);

/// How long to wait before asking again while every key that might work is being tried.
const PROBE_POLL: Duration = Duration::from_secs(1);

/// Why a key is out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyFault {
    /// It is wrong, expired or revoked.
    Rejected,
    /// Its account has no money left, or has reached a limit on spending.
    OutOfMoney,
}

impl KeyFault {
    /// What a class of failure says against the key; `None` where it says nothing.
    #[must_use]
    pub const fn of_class(class: ErrorClass) -> Option<Self> {
        match class {
            ErrorClass::Auth => Some(Self::Rejected),
            ErrorClass::QuotaExhausted => Some(Self::OutOfMoney),
            ErrorClass::RateLimit
            | ErrorClass::RateLimitDaily
            | ErrorClass::RampLimit
            | ErrorClass::Overloaded
            | ErrorClass::ServerError
            | ErrorClass::Timeout
            | ErrorClass::Network
            | ErrorClass::Unreachable
            | ErrorClass::Permission
            | ErrorClass::NotFound
            | ErrorClass::InvalidRequest
            | ErrorClass::ContextLength
            | ErrorClass::ContentPolicy
            | ErrorClass::PayloadTooLarge
            | ErrorClass::NeverFits
            | ErrorClass::OutputInvalid
            | ErrorClass::Conflict
            | ErrorClass::Cancelled
            | ErrorClass::SoftFailure
            | ErrorClass::Abandoned
            | ErrorClass::Deadline => None,
        }
    }

    /// Why a provider is closed of which all keys have this fault.
    #[must_use]
    pub const fn closed(self) -> Closed {
        match self {
            Self::Rejected => Closed::Auth,
            Self::OutOfMoney => Closed::QuotaExhausted,
        }
    }
}

/// What the outcome of a call says of the key it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySign {
    /// It works.
    Works,
    /// It does not.
    Refused(KeyFault),
    /// Nothing.
    Silent,
}

impl KeySign {
    /// Only an answer, usable or not, proves a key: limits and faults of the request may be found before the money is
    /// looked at, and a failing server has looked at nothing.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted | Outcome::Rejected(_) => Self::Works,
            Outcome::Failed(class) => KeyFault::of_class(*class).map_or(Self::Silent, Self::Refused),
        }
    }
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Calls take it in turn.
    InService,
    /// No call takes it.
    Retired {
        /// Why.
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
    /// When a call may take the key, which may have passed.
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
    /// Which key, in the order of the configuration.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }
}

/// No key may be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysOut {
    /// What is wrong with the key that may be tried first.
    pub fault: KeyFault,
    /// Since when none has been in service.
    pub since: Timestamp,
    /// When to ask again; later than the instant that was asked for.
    pub until: Timestamp,
}

/// What a result changed.
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
}

/// The keys of one provider. See the [module](self) for its guarantees.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Vec<Key>,
    recheck: Duration,
    turn: u64,
}

impl KeyRing {
    /// So many keys, all in service; a refused one rests for `recheck`. A server without keys counts as one key.
    #[must_use]
    pub fn new(keys: usize, recheck: Duration) -> Self {
        let fresh = Key { state: KeyState::InService, era: 0, used: 0 };
        Self { keys: vec![fresh; keys.max(1)], recheck, turn: 0 }
    }

    /// A ring after the configuration was read again. Of each key: what was found wrong with it and since when, if it is
    /// the same key; one call may try it at once. All others are in service.
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

    /// Where the keys stand, in the order of the configuration.
    pub fn states(&self) -> impl Iterator<Item = KeyState> {
        self.keys.iter().map(|key| key.state)
    }

    /// How many keys are in service.
    #[must_use]
    pub fn in_service(&self) -> usize {
        self.states().filter(|state| *state == KeyState::InService).count()
    }

    /// Why no key may be taken now; `None` when one may.
    #[must_use]
    pub fn closed(&self, now: Timestamp) -> Option<KeysOut> {
        let mut out: Option<KeysOut> = None;
        for state in self.states() {
            let opens = state.opens();
            let (fault, since) = state.fault().filter(|_| opens > now)?;
            let until = match state {
                KeyState::Probed { .. } => opens.min(now + PROBE_POLL),
                KeyState::InService | KeyState::Retired { .. } => opens,
            };
            out = Some(match out {
                None => KeysOut { fault, since, until },
                Some(first) => KeysOut {
                    fault: if until < first.until { fault } else { first.fault },
                    since: first.since.max(since),
                    until: first.until.min(until),
                },
            });
        }
        out
    }

    /// Takes the key for the next call: the one that has not been used for longest, of those in service and those that
    /// are due to be tried again.
    ///
    /// # Errors
    /// Why there is none, and when to ask again.
    pub fn take(&mut self, now: Timestamp) -> Result<KeyLease, KeysOut> {
        if let Some(out) = self.closed(now) {
            return Err(out);
        }
        self.turn = self.turn.saturating_add(1);
        let due = self.keys.iter_mut().enumerate().filter(|(_, key)| key.state.opens() <= now);
        let Some((index, key)) = due.min_by_key(|(_, key)| key.used) else {
            // Not closed means that one is due.
            return Err(KeysOut { fault: KeyFault::Rejected, since: now, until: now + PROBE_POLL });
        };
        key.used = self.turn;
        if let Some((fault, since)) = key.state.fault() {
            key.enter(KeyState::Probed { fault, since, began: now });
        }
        Ok(KeyLease { index, era: key.era, began: now })
    }

    /// Takes note of what came of a call.
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
            (KeyState::Probed { .. }, KeySign::Works) => {
                key.enter(KeyState::InService);
                Some(KeyChange::Back)
            }
            // Nothing is taken in the latter state, so no lease is of its era.
            (KeyState::InService, KeySign::Works) | (KeyState::Retired { .. }, _) => None,
        }
    }

    /// The call was not made after all, or nothing was learnt from it: a key that was being tried may be tried by the
    /// next call.
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
mod tests {
    use super::*;
    use crate::domain::SoftFailure;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const RECHECK: Duration = Duration::from_mins(10);
    const REFUSED: KeySign = KeySign::Refused(KeyFault::Rejected);
    const PENNILESS: KeySign = KeySign::Refused(KeyFault::OutOfMoney);

    fn ring(keys: usize) -> KeyRing {
        KeyRing::new(keys, RECHECK)
    }

    fn take(ring: &mut KeyRing, now: Timestamp) -> KeyLease {
        ring.take(now).expect("a key may be taken")
    }

    /// Takes keys until this one comes, and reports it; the others work.
    fn retire(ring: &mut KeyRing, index: usize, sign: KeySign, now: Timestamp) {
        loop {
            let lease = take(ring, now);
            if lease.index() == index {
                assert!(matches!(ring.report(lease, sign, now), Some(KeyChange::Retired(_))));
                return;
            }
            assert_eq!(ring.report(lease, KeySign::Works, now), None);
        }
    }

    fn taken(ring: &mut KeyRing, calls: usize, now: Timestamp) -> Vec<usize> {
        (0..calls)
            .map(|_| {
                let lease = take(ring, now);
                let index = lease.index();
                ring.report(lease, KeySign::Works, now);
                index
            })
            .collect()
    }

    #[test]
    fn after_a_reload_one_call_tries_a_key_that_is_still_the_same_and_all_may_take_a_new_one() {
        let mut ring = KeyRing::renewed(&[Some((KeyFault::Rejected, NOW))], RECHECK, NOW);
        let probe = take(&mut ring, NOW);
        assert!(ring.take(NOW).is_err(), "one at a time");
        assert_eq!(ring.report(probe, KeySign::Works, NOW), Some(KeyChange::Back));
        assert_eq!(ring.in_service(), 1);
        let mut ring = KeyRing::renewed(&[None, Some((KeyFault::OutOfMoney, NOW))], RECHECK, NOW);
        assert_eq!(ring.in_service(), 1);
        let taken: Vec<usize> = (0..3).map(|_| take(&mut ring, NOW).index()).collect();
        assert_eq!(taken, [0, 1, 0]);
        assert_eq!(KeyRing::renewed(&[], RECHECK, NOW).in_service(), 1, "a server without keys");
    }

    #[test]
    fn keys_in_service_are_taken_in_turn() {
        let mut ring = ring(3);
        assert_eq!(taken(&mut ring, 7, NOW), [0, 1, 2, 0, 1, 2, 0]);
        retire(&mut ring, 2, REFUSED, NOW);
        assert_eq!(taken(&mut ring, 4, NOW), [0, 1, 0, 1]);
    }

    #[test]
    fn a_server_without_keys_counts_as_one_key() {
        let mut ring = ring(0);
        retire(&mut ring, 0, REFUSED, NOW);
        assert_eq!(ring.closed(NOW), Some(KeysOut { fault: KeyFault::Rejected, since: NOW, until: NOW + RECHECK }));
    }

    #[test]
    fn what_an_outcome_says_of_a_key() {
        use ErrorClass as Class;
        for class in Class::ALL.iter().copied() {
            let expected = match class {
                Class::Auth => REFUSED,
                Class::QuotaExhausted => PENNILESS,
                _ => KeySign::Silent,
            };
            assert_eq!(KeySign::of(&Outcome::Failed(class)), expected, "{class}");
        }
        assert_eq!(KeySign::of(&Outcome::Accepted), KeySign::Works);
        assert_eq!(KeySign::of(&Outcome::Rejected(SoftFailure::Refusal)), KeySign::Works);
    }

    #[test]
    fn a_provider_is_closed_when_all_its_keys_are_out_and_for_the_reason_of_the_first_to_be_tried() {
        let mut ring = ring(2);
        retire(&mut ring, 0, REFUSED, NOW);
        assert_eq!(ring.closed(NOW), None);
        let later = NOW + SECOND;
        retire(&mut ring, 1, PENNILESS, later);
        let out = KeysOut { fault: KeyFault::Rejected, since: later, until: NOW + RECHECK };
        assert_eq!(ring.closed(later), Some(out));
        assert_eq!(ring.take(later), Err(out));
        assert_eq!(out.fault.closed(), Closed::Auth);
        assert_eq!(KeyFault::OutOfMoney.closed(), Closed::QuotaExhausted);
    }

    #[test]
    fn one_call_tries_a_key_again_and_nobody_else_meanwhile() {
        let mut ring = ring(1);
        retire(&mut ring, 0, PENNILESS, NOW);
        assert!(ring.take(NOW + RECHECK - Duration::from_millis(1)).is_err());
        let due = NOW + RECHECK;
        let probe = take(&mut ring, due);
        let waiting = KeysOut { fault: KeyFault::OutOfMoney, since: NOW, until: due + PROBE_POLL };
        assert_eq!(ring.take(due), Err(waiting));
        assert_eq!(
            ring.report(probe, REFUSED, due + SECOND),
            Some(KeyChange::StillOut(KeyFault::Rejected)),
            "it may be another fault now"
        );
        let again = due + SECOND + RECHECK;
        assert_eq!(ring.closed(due + SECOND).map(|out| (out.since, out.until)), Some((NOW, again)));
        let probe = take(&mut ring, again);
        assert_eq!(ring.report(probe, KeySign::Works, again), Some(KeyChange::Back));
        assert_eq!((ring.in_service(), ring.closed(again)), (1, None));
    }

    #[test]
    fn a_probe_that_teaches_nothing_leaves_the_key_to_the_next_call() {
        for drop in [false, true] {
            let mut ring = ring(1);
            retire(&mut ring, 0, REFUSED, NOW);
            let due = NOW + RECHECK;
            let probe = take(&mut ring, due);
            if drop {
                ring.give_back(probe);
            } else {
                assert_eq!(ring.report(probe, KeySign::Silent, due + SECOND), None);
            }
            assert!(ring.take(due + SECOND).is_ok());
            assert!(ring.take(due + SECOND).is_err(), "one at a time");
        }
    }

    #[test]
    fn a_probe_whose_result_never_comes_is_replaced_and_then_counts_for_nothing() {
        let mut ring = ring(1);
        retire(&mut ring, 0, REFUSED, NOW);
        let due = NOW + RECHECK;
        let lost = take(&mut ring, due);
        assert!(ring.take(due + PROBE_LIMIT - SECOND).is_err());
        let probe = take(&mut ring, due + PROBE_LIMIT);
        assert_eq!(ring.report(lost, KeySign::Works, due + PROBE_LIMIT), None);
        assert_eq!(ring.in_service(), 0);
        assert_eq!(ring.report(probe, KeySign::Works, due + PROBE_LIMIT), Some(KeyChange::Back));
    }

    #[test]
    fn calls_from_before_a_key_was_retired_change_nothing_any_more() {
        let mut ring = ring(1);
        let [first, refused_too, late] = [0; 3].map(|_| take(&mut ring, NOW));
        assert_eq!(ring.report(first, REFUSED, NOW), Some(KeyChange::Retired(KeyFault::Rejected)));
        let later = NOW + SECOND;
        assert_eq!(ring.report(refused_too, REFUSED, later), None, "it is said once");
        assert_eq!(ring.report(late, KeySign::Works, later), None);
        assert_eq!(ring.closed(later).map(|out| out.until), Some(NOW + RECHECK), "its rest is not lengthened");
    }

    #[test]
    fn a_due_key_is_tried_although_others_are_in_service() {
        let mut ring = ring(3);
        retire(&mut ring, 1, REFUSED, NOW);
        taken(&mut ring, 2, NOW + RECHECK - SECOND);
        let probe = take(&mut ring, NOW + RECHECK);
        assert_eq!(probe.index(), 1);
        assert_eq!(taken(&mut ring, 3, NOW + RECHECK).len(), 3, "the others go on");
        assert_eq!(ring.report(probe, KeySign::Works, NOW + RECHECK), Some(KeyChange::Back));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Take,
        /// Reports the lease at this place among those that are out.
        Report(usize, KeySign),
        GiveBack(usize),
        Pass(Duration),
    }

    fn event() -> impl Strategy<Value = Event> {
        let sign = prop::sample::select(vec![KeySign::Works, KeySign::Silent, REFUSED, PENNILESS]);
        prop_oneof![
            3 => Just(Event::Take),
            3 => (0..8_usize, sign).prop_map(|(which, sign)| Event::Report(which, sign)),
            1 => (0..8_usize).prop_map(Event::GiveBack),
            1 => (0..1_200_u64).prop_map(|seconds| Event::Pass(Duration::from_secs(seconds))),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_a_retired_key_rests_and_is_tried_by_one_call_at_a_time(
            keys in 0..5_usize,
            events in prop::collection::vec(event(), 0..200),
        ) {
            let mut ring = ring(keys);
            let mut now = NOW;
            let mut out: Vec<KeyLease> = Vec::new();
            for event in events {
                let before: Vec<KeyState> = ring.states().collect();
                match event {
                    Event::Pass(time) => now = now + time,
                    Event::Take => {
                        let closed = ring.closed(now);
                        let taken = ring.take(now);
                        prop_assert_eq!(taken.as_ref().err().copied(), closed);
                        if let Some(closed) = closed {
                            prop_assert!(closed.until > now);
                            prop_assert_eq!(ring.in_service(), 0);
                        }
                        if let Ok(lease) = taken {
                            match before[lease.index()] {
                                KeyState::InService => {}
                                KeyState::Retired { until, .. } => prop_assert!(until <= now),
                                KeyState::Probed { began, .. } => prop_assert!(began + PROBE_LIMIT <= now),
                            }
                            let after = ring.states().nth(lease.index());
                            let in_service = before[lease.index()] == KeyState::InService;
                            prop_assert_eq!(after == Some(KeyState::InService), in_service);
                            out.push(lease);
                        }
                    }
                    Event::Report(which, sign) if which < out.len() => {
                        let lease = out.swap_remove(which);
                        let index = lease.index();
                        let change = ring.report(lease, sign, now);
                        let after = ring.states().nth(index).expect("the keys stay");
                        match change {
                            None => prop_assert_eq!(after.fault(), before[index].fault()),
                            Some(KeyChange::Back) => prop_assert_eq!(after, KeyState::InService),
                            Some(KeyChange::Retired(fault) | KeyChange::StillOut(fault)) => {
                                let since = before[index].fault().map_or(now, |(_, since)| since);
                                prop_assert_eq!(after, KeyState::Retired { fault, since, until: now + RECHECK });
                            }
                        }
                    }
                    Event::GiveBack(which) if which < out.len() => {
                        let lease = out.swap_remove(which);
                        let index = lease.index();
                        ring.give_back(lease);
                        let after = ring.states().nth(index).expect("the keys stay");
                        prop_assert_eq!(after.fault(), before[index].fault());
                    }
                    Event::Report(..) | Event::GiveBack(_) => {}
                }
            }
        }

        /// Calls one after the other, each learnt from before the next.
        #[test]
        fn a_dead_key_costs_one_call_and_then_one_for_each_recheck(
            dead in prop::collection::vec(any::<bool>(), 1..6),
            pauses in prop::collection::vec(0..120_u64, 1..300),
        ) {
            let mut ring = ring(dead.len());
            let mut now = NOW;
            let mut calls = vec![0_u64; dead.len()];
            let mut refused_in_a_row = 0;
            for pause in pauses {
                now = now + Duration::from_secs(pause);
                let Ok(lease) = ring.take(now) else { continue };
                calls[lease.index()] += 1;
                let sign = if dead[lease.index()] { REFUSED } else { KeySign::Works };
                refused_in_a_row = if dead[lease.index()] { refused_in_a_row + 1 } else { 0 };
                let one_works = dead.iter().any(|dead| !dead);
                prop_assert!(!one_works || refused_in_a_row < dead.len(), "each dead key once, then one that works");
                ring.report(lease, sign, now);
            }
            let rechecks = NOW.until(now).as_secs() / RECHECK.as_secs();
            for (calls, dead) in calls.iter().zip(&dead) {
                prop_assert!(!dead || *calls <= 1 + rechecks);
            }
        }
    }
}
