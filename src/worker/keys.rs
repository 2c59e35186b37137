//! The keys of one provider at its gate: the ring that decides, with names, counts and log lines.

#[cfg(test)]
mod tests;

use crate::domain::doubt::{Doubt, RequestHash};
use crate::domain::key_ring::{KeyChange, KeyFault, KeyLease, KeyRing, KeySign, KeyState};
use crate::domain::news::KeyNews;
use crate::domain::shut::Shut;
use crate::domain::statistics::{KeyStatistics, ShutStatistics};
use crate::domain::{Bearing, Failure, Outcome, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The keys of one provider.
#[derive(Debug)]
pub(super) struct Keys {
    provider: String,
    /// Names that may be shown; empty for a server without keys.
    names: Vec<String>,
    recheck: Duration,
    ring: Mutex<KeyRing>,
    /// Per key: its refusals in words that may concern one request alone.
    doubts: Mutex<Vec<Doubt>>,
    /// By key: the provider's words when it refused the key last.
    said: Mutex<BTreeMap<usize, String>>,
    /// By key: why other processes believe it to be out of service, and since when.
    told: Mutex<BTreeMap<usize, (KeyFault, Timestamp)>>,
}

/// A key taken for one call. Dropped without a report it counts as if the call had not been made.
#[derive(Debug)]
pub(super) struct KeyHold {
    keys: Arc<Keys>,
    index: usize,
    lease: Option<KeyLease>,
}

impl Keys {
    /// A set in which all keys are in service.
    pub(super) fn new(provider: &str, names: &[String], recheck: Duration) -> Arc<Self> {
        let ring = Mutex::new(KeyRing::new(names.len(), recheck));
        let (doubts, said, told) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { provider: provider.to_owned(), names: names.to_vec(), recheck, ring, doubts, said, told })
    }

    /// The keys of a new configuration. A key that is out of service and has not changed (`same`, by name) is tried by
    /// one call at once; all others are in service.
    pub(super) fn renewed(
        before: &Self,
        names: &[String],
        same: &BTreeSet<String>,
        recheck: Duration,
        now: Timestamp,
    ) -> Arc<Self> {
        let states: Vec<KeyState> = before.ring().states().collect();
        let fault_of = |name: &String| {
            let index = before.names.iter().position(|known| known == name).filter(|_| same.contains(name))?;
            states.get(index)?.fault()
        };
        let mut ring = KeyRing::renewed(&names.iter().map(fault_of).collect::<Vec<_>>(), recheck, now);
        for (index, name) in names.iter().enumerate().filter(|(_, name)| same.contains(*name)) {
            if let Some(known) = before.names.iter().position(|known| known == name) {
                ring.remember(index, before.ring().proven(known));
            }
        }
        let said_of = |(index, name): (usize, &String)| {
            let known = before.names.iter().position(|known| known == name).filter(|_| same.contains(name))?;
            Some((index, before.said.lock().get(&known)?.clone()))
        };
        let said = Mutex::new(names.iter().enumerate().filter_map(said_of).collect());
        // What the others believe of a name does not change by that: of a key that was replaced they are told.
        let told_of = |(index, name): (usize, &String)| {
            let known = before.names.iter().position(|known| known == name)?;
            Some((index, *before.told.lock().get(&known)?))
        };
        let told = Mutex::new(names.iter().enumerate().filter_map(told_of).collect());
        let (provider, names, doubts) = (before.provider.clone(), names.to_vec(), Mutex::default());
        Arc::new(Self { provider, names, recheck, ring: Mutex::new(ring), doubts, said, told })
    }

    fn ring(&self) -> MutexGuard<'_, KeyRing> {
        self.ring.lock()
    }

    /// What the outcome of a call shows of its key. A refusal in doubt shows nothing yet.
    fn sign(&self, index: usize, outcome: &Outcome, failure: Option<&Failure>, request: RequestHash) -> KeySign {
        let sign = KeySign::of(outcome);
        let mut doubts = self.doubts.lock();
        if doubts.len() <= index {
            doubts.resize(index.saturating_add(1), Doubt::default());
        }
        let Some(doubt) = doubts.get_mut(index) else { return sign };
        match sign {
            KeySign::Works => doubt.answered(),
            KeySign::Refused(_) if failure.is_some_and(|failure| failure.bearing == Bearing::InDoubt) => {
                if !doubt.refused(request) {
                    return KeySign::Silent;
                }
            }
            KeySign::Refused(_) | KeySign::Silent => {}
        }
        sign
    }

    /// Why no call can be made with any key; `None` when one can.
    pub(super) fn shut(&self, now: Timestamp) -> Option<Shut> {
        self.ring().shut(now)
    }

    /// How many calls may begin, as far as keys are concerned: a key that is out of service is tried by one.
    pub(super) fn headroom(&self) -> usize {
        let ring = self.ring();
        if ring.in_service() > 0 {
            return usize::MAX;
        }
        // One call asks for all keys in doubt.
        let out = ring.states().filter(|state| state.fault().is_some()).count();
        out.saturating_add(usize::from(out < ring.states().count()))
    }

    /// The key that a question goes with which is no call: the first one in service, else the first one.
    pub(super) fn first_in_service(&self) -> usize {
        self.ring().states().position(|state| state == KeyState::InService).unwrap_or(0)
    }

    /// Lets one call try each key that is out of service, at once.
    pub(super) fn try_again(&self, now: Timestamp) {
        self.ring().try_again(now);
    }

    /// Takes the next key in turn.
    ///
    /// # Errors
    /// Why there is no key, and until when.
    pub(super) fn take(self: &Arc<Self>, now: Timestamp) -> Result<KeyHold, Shut> {
        let lease = self.ring().take(now)?;
        Ok(KeyHold { keys: Arc::clone(self), index: lease.index(), lease: Some(lease) })
    }

    /// How many keys there are, and how many of them are in service; both zero for a server without keys.
    pub(super) fn counts(&self) -> (usize, usize) {
        let in_service = self.ring().in_service();
        (self.names.len(), in_service.min(self.names.len()))
    }

    /// Why keys that are refused are in doubt and not believed to be out; `None`: none is in doubt.
    pub(super) fn said_of_doubt(&self) -> Option<String> {
        let ring = self.ring();
        if let Some(outage) = ring.outage() {
            return Some(outage.to_string());
        }
        let is_doubted = ring.states().any(|state| state.absence().is_some() && state.fault().is_none());
        is_doubted.then(|| "refused although it had answered lately: one call asks again".to_owned())
    }

    /// What other processes do not know yet of its keys, by name.
    pub(super) fn news(&self) -> Vec<(String, KeyNews)> {
        let states: Vec<KeyState> = self.ring().states().collect();
        let (told, said) = (self.told.lock(), self.said.lock());
        let named = self.names.iter().zip(states).enumerate();
        // What a refusal means is told once it is known.
        let news =
            named.filter(|(index, (_, state))| !state.is_in_doubt() && state.fault() != told.get(index).copied());
        news.map(|(index, (name, state))| {
            let news = state.fault().map_or(KeyNews::InService, |(fault, since)| {
                let said = said.get(&index).cloned();
                KeyNews::Out { fault, since, said }
            });
            (name.clone(), news)
        })
        .collect()
    }

    /// Other processes know this of the key with this name.
    pub(super) fn told(&self, name: &str, news: &KeyNews) {
        let Some(index) = self.names.iter().position(|known| known == name) else { return };
        match news {
            KeyNews::InService => _ = self.told.lock().remove(&index),
            KeyNews::Out { fault, since, .. } => _ = self.told.lock().insert(index, (*fault, *since)),
        }
    }

    /// Takes in what another process has found out about the key with this name; returns whether it changes anything.
    pub(super) fn hear(&self, name: &str, news: &KeyNews, now: Timestamp) -> bool {
        let Some(index) = self.names.iter().position(|known| known == name) else { return false };
        let out = match news {
            KeyNews::InService => None,
            KeyNews::Out { fault, since, .. } => Some((*fault, *since)),
        };
        let is_news = self.ring().hear(index, out, now);
        // Where the two differ after that, they may have different secrets: there is nothing to tell.
        let own = self.ring().states().nth(index).and_then(KeyState::fault);
        let is_doubted = self.ring().states().nth(index).is_some_and(KeyState::is_in_doubt);
        match own.or(out.filter(|_| is_doubted)) {
            Some(out) => _ = self.told.lock().insert(index, out),
            None => _ = self.told.lock().remove(&index),
        }
        if let KeyNews::Out { said: Some(said), .. } = news
            && is_news
        {
            self.said.lock().insert(index, said.clone());
        }
        is_news
    }

    /// The keys as status shows them.
    pub(super) fn snapshot(&self, now: Timestamp) -> Vec<KeyStatistics> {
        let states: Vec<KeyState> = self.ring().states().collect();
        let said = self.said.lock();
        let named = self.names.iter().zip(states).enumerate();
        named
            .map(|(index, (name, state))| {
                let (word, until) = match state {
                    KeyState::InService => ("in_service", None),
                    KeyState::Doubted { until, .. } if until > now => ("doubted", Some(until)),
                    KeyState::Doubted { .. } => ("doubted", None),
                    KeyState::Retired { until, .. } if until > now => ("out", Some(until)),
                    KeyState::Retired { .. } => ("due", None),
                    KeyState::Asked { .. } | KeyState::Probed { .. } => ("tried_again", None),
                };
                KeyStatistics {
                    provider: Some(self.provider.clone()),
                    key: Some(name.clone()),
                    state: Some(word.into()),
                    shut: state.absence().map(|(reason, since)| ShutStatistics {
                        reason: Some(reason.as_str().into()),
                        since_ms: Some(since.0),
                        until_ms: until.map(|until| until.0),
                    }),
                    said: state.absence().and_then(|_| said.get(&index).cloned()),
                }
            })
            .collect()
    }

    /// Logs a change at the first call that meets it, not at each of the hundreds that are under way.
    fn tell(&self, key: usize, change: KeyChange, failure: Option<&Failure>) {
        let name = self.names.get(key).map(String::as_str);
        let left = self.ring().in_service();
        match change {
            KeyChange::Retired(fault) => tracing::warn!(
                provider.name = self.provider,
                key.name = name,
                status = failure.and_then(|failure| failure.status),
                code = failure.and_then(Failure::code_for_the_log),
                recheck_seconds = self.recheck.as_secs(),
                keys_left = left,
                "{}; {}, and one call tries the key again after the recheck",
                what(fault),
                if left > 0 { "the other keys go on" } else { "its jobs go elsewhere or wait" },
            ),
            KeyChange::StillOut(fault) => tracing::info!(
                provider.name = self.provider,
                key.name = name,
                status = failure.and_then(|failure| failure.status),
                code = failure.and_then(Failure::code_for_the_log),
                recheck_seconds = self.recheck.as_secs(),
                keys_left = left,
                "tried again: {}",
                what(fault),
            ),
            KeyChange::Back => {
                tracing::info!(provider.name = self.provider, key.name = name, keys_left = left, "the key works again");
            }
            KeyChange::Doubted => tracing::info!(
                provider.name = self.provider,
                key.name = name,
                status = failure.and_then(|failure| failure.status),
                code = failure.and_then(Failure::code_for_the_log),
                keys_left = left,
                "the key was refused although it had answered lately; one call asks again in a moment",
            ),
            KeyChange::StillInDoubt => tracing::debug!(
                provider.name = self.provider,
                key.name = name,
                "asked again: the key is refused; a call asks later",
            ),
            KeyChange::Cleared => tracing::info!(
                provider.name = self.provider,
                key.name = name,
                keys_left = left,
                "asked again: the key works",
            ),
            KeyChange::Outage(outage) => tracing::warn!(
                provider.name = self.provider,
                status = failure.and_then(|failure| failure.status),
                code = failure.and_then(Failure::code_for_the_log),
                keys = outage.keys,
                within_ms = u64::try_from(outage.within.as_millis()).unwrap_or(u64::MAX),
                "{outage}; its jobs go elsewhere or wait, and one call at a time asks again",
            ),
            KeyChange::OutageOver(outage) => tracing::info!(
                provider.name = self.provider,
                keys = outage.keys,
                "the keys work again: the outage is over",
            ),
            KeyChange::OutageBelieved(outage) => tracing::warn!(
                provider.name = self.provider,
                status = failure.and_then(|failure| failure.status),
                code = failure.and_then(Failure::code_for_the_log),
                keys = outage.keys,
                recheck_seconds = self.recheck.as_secs(),
                "the keys are still refused, so it is no outage: the keys are rejected; its jobs go elsewhere or wait, \
                 and one call tries them again after the recheck",
            ),
        }
    }
}

impl KeyHold {
    /// The key's place in the configuration.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Learns from the outcome of the call. Returns whether the call's evidence against its key is believed.
    pub(super) fn report(
        mut self,
        outcome: &Outcome,
        failure: Option<&Failure>,
        request: RequestHash,
        now: Timestamp,
    ) -> bool {
        let Some(lease) = self.lease.take() else { return false };
        let sign = self.keys.sign(self.index, outcome, failure, request);
        let change = self.keys.ring().report(lease, sign, now);
        if let Some(change) = change {
            self.keys.tell(self.index, change, failure);
            // A sign that the key works comes with no failure.
            if let Some(failure) = failure.filter(|_| matches!(sign, KeySign::Refused(_))) {
                self.keys.said.lock().insert(self.index, failure.in_short());
            }
        }
        matches!(sign, KeySign::Refused(_))
    }
}

impl Drop for KeyHold {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.keys.ring().give_back(lease);
        }
    }
}

fn what(fault: KeyFault) -> &'static str {
    match fault {
        KeyFault::Rejected => "the key is rejected",
        KeyFault::OutOfMoney => "the key is out of money",
    }
}
