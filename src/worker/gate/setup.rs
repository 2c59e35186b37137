//! How a gate is set up, and what it takes over from its predecessor when the configuration is read again.

#[cfg(test)]
mod tests;

use super::Gate;
use super::target::{ProviderState, Record, TargetState};
use crate::domain::breaker::Breaker;
use crate::domain::latency::Latency;
use crate::domain::probe::{ProbeSettings, Pulse};
use crate::domain::tempo::Tempo;
use crate::domain::{BreakerSettings, Calibration, Charging, Limits, Target, Timestamp};
use crate::worker::bucket::Bucket;
use crate::worker::keys::Keys;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How the gate is set up for one provider.
#[derive(Clone, Debug)]
pub struct ProviderSetup {
    /// The name of its bucket.
    pub bucket: String,
    /// How a request is counted in that bucket.
    pub charging: Charging,
    /// Settings of its targets' breakers.
    pub breaker: BreakerSettings,
    /// The names of its keys, in the order of the configuration; none for a server without keys.
    pub keys: Vec<String>,
    /// How long a rejected or penniless key rests before one call tries it again.
    pub recheck: Duration,
    /// How its health is probed, where it is.
    pub probe: Option<ProbeSettings>,
    /// A mark of its server, by which processes know that they call the same one.
    pub server: String,
    /// Its targets, as routes name them.
    pub targets: Vec<Target>,
    /// The buckets of models that have their own. A call to such a model enters all of them.
    pub model_buckets: BTreeMap<String, Vec<String>>,
}

impl ProviderSetup {
    /// The buckets whose limits calls to `target` share: the model's own, else the provider's. Where nothing is
    /// configured, each target has a bucket of its own: vendors set their limits by model, and the bucket learns them.
    #[must_use]
    pub fn buckets_of(&self, target: &Target, configured: &BTreeMap<String, Limits>) -> Vec<String> {
        if let Some(buckets) = self.model_buckets.get(&target.model) {
            return buckets.clone();
        }
        let is_open = configured.get(&self.bucket).is_none_or(|limits| *limits == Limits::default());
        if !is_open || self.bucket != target.provider {
            return vec![self.bucket.clone()];
        }
        // A tier has the limits of its model, unless the vendor gives it others.
        let has_own_limits = target.tier.is_some_and(|tier| tier.has_own_limits);
        vec![if has_own_limits { target.to_string() } else { target.in_no_tier().to_string() }]
    }
}

/// The parts of a provider that have not changed since the configuration was last read.
#[derive(Clone, Debug, Default)]
pub struct Unchanged {
    /// Whether it is the same server, so that what its targets have shown still applies.
    pub is_same_server: bool,
    /// The names of the keys that have not changed.
    pub keys: BTreeSet<String>,
}

/// The earlier gate, as far as one provider is concerned.
struct Predecessor<'a> {
    gate: &'a Gate,
    kept: Unchanged,
    now: Timestamp,
}

impl Gate {
    /// A gate with all buckets full and all breakers closed.
    #[must_use]
    pub fn new(buckets: &BTreeMap<String, Limits>, providers: &BTreeMap<String, ProviderSetup>) -> Self {
        Self::set_up(None, buckets, providers, &BTreeMap::new(), Timestamp(0))
    }

    /// The gate that follows this one. Unchanged parts carry on as they are, and parts that were refused for good get
    /// another chance. Calls that run count where their targets belong now.
    #[must_use]
    pub fn succeeded_by(
        &self,
        buckets: &BTreeMap<String, Limits>,
        providers: &BTreeMap<String, ProviderSetup>,
        kept: &BTreeMap<String, Unchanged>,
        now: Timestamp,
    ) -> Self {
        let mut gate = Self::set_up(Some(self), buckets, providers, kept, now);
        let mut heirs: BTreeMap<&str, BTreeMap<&str, &Arc<Bucket>>> = BTreeMap::new();
        for (target, before) in &self.targets {
            // Each running call to it has a hold on the first of its buckets, and also takes places in buckets that the
            // target gains.
            let (Some(first), Some(after)) = (before.buckets.first(), gate.targets.get(target)) else { continue };
            let is_gained = |bucket: &&Arc<Bucket>| !before.buckets.iter().any(|known| Arc::ptr_eq(known, bucket));
            for bucket in after.buckets.iter().filter(is_gained) {
                heirs.entry(&first.name).or_default().insert(&bucket.name, bucket);
            }
        }
        let mut retired: Vec<_> = self.retired.iter().filter(|bucket| !bucket.is_finished()).map(Arc::clone).collect();
        for (name, bucket) in &self.buckets {
            if !gate.buckets.contains_key(name) {
                bucket.retire();
                retired.push(Arc::clone(bucket));
            }
            for heir in heirs.get(name.as_str()).into_iter().flatten().map(|(_, heir)| heir) {
                bucket.crowd_into(heir);
            }
        }
        // A bucket that is back in use is no longer retired.
        retired.retain(|bucket| !gate.buckets.contains_key(&bucket.name));
        gate.retired = retired;
        gate
    }

    fn set_up(
        before: Option<&Self>,
        buckets: &BTreeMap<String, Limits>,
        providers: &BTreeMap<String, ProviderSetup>,
        kept: &BTreeMap<String, Unchanged>,
        now: Timestamp,
    ) -> Self {
        let shared = |of: fn(&Self) -> &Arc<Notify>| before.map_or_else(Arc::default, |gate| Arc::clone(of(gate)));
        let mut gate = Self {
            buckets: BTreeMap::new(),
            retired: Vec::new(),
            providers: BTreeMap::new(),
            targets: HashMap::new(),
            offline: before.map_or_else(Arc::default, |gate| Arc::clone(&gate.offline)),
            changed: shared(|gate| &gate.changed),
            wanted: shared(|gate| &gate.wanted),
        };
        let order = entering_order(buckets, providers);
        for (name, setup) in providers {
            let before =
                before.map(|gate| Predecessor { gate, kept: kept.get(name).cloned().unwrap_or_default(), now });
            let before = before.as_ref();
            let provider = Arc::new(gate.provider(name, setup, before));
            for target in &setup.targets {
                let mut names = setup.buckets_of(target, buckets);
                names.sort_by_key(|name| order.get(name));
                names.dedup();
                let record = before.and_then(|before| before.record(target, setup.breaker));
                let mut state = TargetState {
                    target: target.clone(),
                    provider: Arc::clone(&provider),
                    buckets: names.into_iter().map(|name| gate.bucket(name, buckets, before)).collect(),
                    shut: Mutex::default(),
                    said: Mutex::new(None),
                    doubt: Mutex::default(),
                    mends: Mutex::default(),
                    others: Mutex::default(),
                    doubted_costs: Mutex::default(),
                    record: record.unwrap_or_else(|| Arc::new(Record::new(setup.breaker, Calibration::default()))),
                    reopened: AtomicI64::new(i64::MIN),
                };
                if let Some(Timestamp(at)) = state.reopened_at() {
                    *state.reopened.get_mut() = at;
                }
                gate.targets.insert(target.clone(), Arc::new(state));
            }
            gate.providers.insert(name.clone(), provider);
        }
        gate
    }

    fn provider(&self, name: &str, setup: &ProviderSetup, before: Option<&Predecessor<'_>>) -> ProviderState {
        let known = before.and_then(|before| Some((before, before.gate.providers.get(name)?)));
        let keys = match known {
            Some((Predecessor { kept, now, .. }, known)) if kept.is_same_server => {
                Keys::renewed(&known.keys, &setup.keys, &kept.keys, setup.recheck, *now)
            }
            _ => Keys::new(name, &setup.keys, setup.recheck),
        };
        // Another page may answer otherwise: it is asked anew.
        let is_same_page = |known: &ProviderState| {
            let page = |probe: &Option<ProbeSettings>| probe.as_ref().map(|probe| probe.page.clone());
            page(&setup.probe).is_some() && page(&setup.probe) == page(&known.probe)
        };
        let pulse = match known {
            Some((Predecessor { kept, .. }, known)) if kept.is_same_server && is_same_page(known) => {
                known.pulse.lock().clone()
            }
            _ => Pulse::default(),
        };
        let known = known.map(|(_, known)| known);
        let when = |of: fn(&ProviderState) -> &AtomicI64| {
            AtomicI64::new(known.map_or(0, |known| of(known).load(Ordering::Relaxed)))
        };
        ProviderState {
            name: name.to_owned(),
            keys,
            paused: Mutex::new(known.and_then(|known| *known.paused.lock())),
            budget: Mutex::new(known.and_then(|known| *known.budget.lock())),
            probe: setup.probe.clone().filter(|_| !setup.targets.is_empty()),
            pulse: Mutex::new(pulse),
            recheck: setup.recheck,
            server: setup.server.clone(),
            offline: Arc::clone(&self.offline),
            last_contact: when(|known| &known.last_contact),
            last_silence: when(|known| &known.last_silence),
        }
    }

    /// The bucket of this name: from this gate, or from the earlier one, even if it was out of use there.
    fn bucket(
        &mut self,
        name: String,
        configured: &BTreeMap<String, Limits>,
        before: Option<&Predecessor<'_>>,
    ) -> Arc<Bucket> {
        let wanted = &self.wanted;
        let bucket = self.buckets.entry(name).or_insert_with_key(|name| {
            let limits = configured.get(name).cloned().unwrap_or_default();
            let known = before.and_then(|before| before.gate.kept_buckets().find(|bucket| bucket.name == *name));
            let Some(known) = known else { return Arc::new(Bucket::new(name, &limits, wanted)) };
            known.reconfigure(&limits);
            Arc::clone(known)
        });
        Arc::clone(bucket)
    }
}

/// The place of each bucket in the order in which calls enter buckets: those of fewer targets first, then by name.
/// Another configuration may order them differently. Calls of both configurations then wait for each other, but only as
/// long as their patience lasts.
fn entering_order(
    buckets: &BTreeMap<String, Limits>,
    providers: &BTreeMap<String, ProviderSetup>,
) -> BTreeMap<String, usize> {
    let mut targets: BTreeMap<String, usize> = BTreeMap::new();
    for setup in providers.values() {
        for target in &setup.targets {
            for bucket in setup.buckets_of(target, buckets) {
                *targets.entry(bucket).or_default() += 1;
            }
        }
    }
    let mut names: Vec<_> = targets.into_iter().map(|(name, targets)| (targets, name)).collect();
    names.sort_unstable();
    names.into_iter().enumerate().map(|(place, (_, name))| (name, place)).collect()
}

impl Predecessor<'_> {
    /// What a target has shown, as far as it still applies.
    fn record(&self, target: &Target, breaker: BreakerSettings) -> Option<Arc<Record>> {
        let known = &self.gate.targets.get(target)?.record;
        if self.kept.is_same_server {
            known.breaker.lock().retune(breaker);
            return Some(Arc::clone(known));
        }
        // How a model counts tokens does not depend on where it runs.
        Some(Arc::new(Record::new(breaker, *known.calibration.lock())))
    }
}

impl Record {
    fn new(breaker: BreakerSettings, calibration: Calibration) -> Self {
        Self {
            breaker: Mutex::new(Breaker::new(breaker)),
            latest_answers: Mutex::default(),
            told_of_stuck: Mutex::default(),
            calibration: Mutex::new(calibration),
            tempo: Mutex::new(Tempo::default()),
            latency: Mutex::new(Latency::default()),
            scarcity: Mutex::default(),
            resting: Mutex::new(None),
            answered_at: AtomicI64::new(0),
            fault: Mutex::new(None),
            told: Mutex::default(),
            qualities: Mutex::default(),
            under_way: AtomicI64::new(0),
            calls: AtomicI64::new(0),
            failures: AtomicI64::new(0),
        }
    }
}
