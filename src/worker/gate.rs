//! Decides which targets may be called now, by their buckets and breakers and by keys and models out of service.

mod breakers;
mod news;
mod probes;
mod quality;
#[cfg(test)]
mod refusals;
mod setup;
#[cfg(test)]
mod several;
mod target;
#[cfg(test)]
mod tests;

use super::bucket::{Bucket, BucketHold};
use super::keys::KeyHold;
use crate::domain::breaker;
use crate::domain::budget::Budgets;
use crate::domain::doubt::Asker;
use crate::domain::error_class::{Effect, Refusal};
use crate::domain::limits::Heard;
use crate::domain::shut::{Reason, Shut};
use crate::domain::statistics::{EstimateStatistics, GateStatistics, ShutStatistics, TargetStatistics};
use crate::domain::tempo::Took;
use crate::domain::{Charge, ErrorClass, Failure, Outcome, Target, Timestamp, long_wait};
use crate::provider::LimitObservation;
use parking_lot::Mutex;
pub use quality::{Brought, QualityLeave, RouteQuality};
pub use setup::{ProviderSetup, Unchanged};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
pub use target::{CostSeen, TargetState};
use target::{ProviderState, shut_for, still_shut};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The longest that a call may wait inside the gate for its turn. A longer wait is a decision, not a queue.
pub const PACE: Duration = Duration::from_secs(1);

/// When no provider has answered for this long while calls fail, the trouble is probably ours.
const SILENCE: Duration = Duration::from_secs(5);

/// How long the process calls no provider that has not answered, when none can be reached.
const OFFLINE_REST: Duration = Duration::from_secs(5);

/// All limits of one worker process, and the health of all its targets.
#[derive(Debug)]
pub struct Gate {
    buckets: BTreeMap<String, Arc<Bucket>>,
    /// Buckets of earlier configurations, until their calls have ended and their units are given back.
    retired: Vec<Arc<Bucket>>,
    providers: BTreeMap<String, Arc<ProviderState>>,
    targets: HashMap<Target, Arc<TargetState>>,
    /// Set while no provider can be reached: the trouble is probably ours, and every further call to those that did
    /// not answer would only repeat that.
    offline: Arc<Mutex<Option<Shut>>>,
    /// Notified whenever something may have opened.
    changed: Arc<Notify>,
    /// Notified whenever a bucket wants to hear from the other processes.
    wanted: Arc<Notify>,
}

/// The gate's permission to make one call. The caller returns it with [`Gate::report`].
#[derive(Debug)]
pub struct Permit {
    holds: Vec<BucketHold>,
    key: KeyHold,
    breaker: breaker::DoublePassage,
    /// Whether it asks again for a model that was refused.
    asks_again: bool,
}

impl Permit {
    /// The key to call with, by its place in the configuration.
    #[must_use]
    pub fn key(&self) -> usize {
        self.key.index()
    }
}

/// Gives back all that a call has taken and not used.
fn cancel(holds: Vec<BucketHold>) {
    holds.into_iter().for_each(BucketHold::cancel);
}

/// The holds of a call on its way through several buckets. If it gets no permit, for any reason, all of them are given
/// back.
struct Entering(Vec<BucketHold>);

impl Drop for Entering {
    fn drop(&mut self) {
        cancel(std::mem::take(&mut self.0));
    }
}

impl Gate {
    /// The state of a target; `None` when no route names it.
    #[must_use]
    pub fn target(&self, target: &Target) -> Option<Arc<TargetState>> {
        self.targets.get(target).cloned()
    }

    /// All buckets.
    pub(super) fn buckets(&self) -> impl Iterator<Item = &Arc<Bucket>> {
        self.buckets.values()
    }

    /// All buckets that may have something to tell the other processes.
    pub(super) fn kept_buckets(&self) -> impl Iterator<Item = &Arc<Bucket>> {
        self.buckets.values().chain(&self.retired)
    }

    /// The limits of each bucket, as configured now.
    #[cfg(test)]
    pub(crate) fn limits(&self) -> BTreeMap<&str, Arc<crate::domain::Limits>> {
        self.buckets.iter().map(|(name, bucket)| (name.as_str(), bucket.limits())).collect()
    }

    /// Waits until a bucket wants to hear from the other processes.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Signals that something may have opened.
    pub(super) fn has_changed(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until something may have opened.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Pauses exactly these providers and resumes all others.
    pub fn set_paused(&self, paused: &[&str], now: Timestamp) {
        for provider in self.providers.values() {
            let mut slot = provider.paused.lock();
            *slot = paused.contains(&provider.name.as_str()).then(|| slot.unwrap_or(now));
        }
    }

    /// Closes exactly the providers whose budget has no room.
    pub fn set_budgets(&self, budgets: &Budgets, now: Timestamp) {
        let closed: BTreeMap<&str, Shut> = budgets.closed_providers().map(|(name, it)| (name, it.shut(now))).collect();
        for provider in self.providers.values() {
            let mut slot = provider.budget.lock();
            let since = slot.map(|shut| shut.since);
            *slot = closed.get(provider.name.as_str()).map(|shut| Shut { since: since.unwrap_or(shut.since), ..*shut });
        }
    }

    /// Asks for leave to call `target`, waiting at most `patience` for a turn. A call enters all buckets of its target
    /// or none.
    ///
    /// All calls enter buckets in the same order, so two calls never wait for each other. The buckets that fewest
    /// targets share come first: a call that waits for the limit of its model holds nothing of its account, and calls
    /// to other models pass it.
    ///
    /// # Errors
    /// Why the target cannot be called, and until when; nothing is taken then.
    pub async fn admit(
        &self,
        target: &TargetState,
        charge: Charge,
        patience: Duration,
        now: Timestamp,
    ) -> Result<Permit, Shut> {
        if let Some(shut) = target.provider.keys.shut(now) {
            return Err(shut);
        }
        let began = Instant::now();
        let mut entering = Entering(Vec::with_capacity(target.buckets.len()));
        for bucket in &target.buckets {
            let waited = began.elapsed();
            let hold = bucket.enter(charge, patience.saturating_sub(waited), now + waited).await?;
            entering.0.push(hold);
        }
        // The key and the breaker come last, because they may let one call pass as a trial: that call must not have to
        // wait.
        let now = now + began.elapsed();
        let key = target.provider.keys.take(now)?;
        let asks_again = target.shut.lock().admit(now)?;
        match target.record.breaker.lock().admit(now) {
            Ok(breaker) => {
                target.record.under_way.fetch_add(1, Ordering::Relaxed);
                Ok(Permit { holds: std::mem::take(&mut entering.0), key, breaker, asks_again })
            }
            Err(shut) => {
                if asks_again {
                    target.shut.lock().tried(false);
                }
                Err(shut)
            }
        }
    }

    /// Learns from the outcome of a call: corrects the charge to what the call really took, and shuts the parts that
    /// have to be shut. Returns whether the key or the target is out of service because of it.
    #[expect(clippy::too_many_arguments, reason = "a call has that many sides")]
    pub fn report(
        &self,
        target: &TargetState,
        permit: Permit,
        outcome: &Outcome,
        failure: Option<&Failure>,
        settled: Charge,
        took: Took,
        limits: &[LimitObservation],
        asker: Asker,
        now: Timestamp,
    ) -> bool {
        let request = asker.request;
        let provider = &target.provider;
        target.record.calls.fetch_add(1, Ordering::Relaxed);
        let under_way = target.record.under_way.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        if !matches!(outcome, Outcome::Accepted) {
            target.record.failures.fetch_add(1, Ordering::Relaxed);
        }
        let class = outcome.class();
        if ErrorClass::is_answered(class) {
            target.doubt.lock().answered();
            target.shut.lock().answered();
            target.record.answered_at.store(now.0, Ordering::Relaxed);
            target.record.scarcity.lock().served();
        }
        let Permit { holds, key, breaker, asks_again } = permit;
        // The provider's date for the key (the first of next month) is not used: the bill may be paid earlier. One call
        // in a while finds that out.
        let key_is_refused = key.report(outcome, failure, request, now);
        let mut model_is_refused = false;
        let mut heard = Vec::with_capacity(holds.len());
        for hold in &holds {
            hold.correct(settled, limits);
            let understood = hold.bucket().understand(limits);
            hold.hear(&understood);
            heard.push(understood);
        }
        let silent = class.is_some_and(|class| !class.facts().is_heard);
        let seen = if silent { &provider.last_silence } else { &provider.last_contact };
        seen.store(now.0, Ordering::Relaxed);
        // When no provider at all can be reached, the trouble is ours and no target is to blame.
        let cut_off = silent && self.is_cut_off(now);
        if cut_off && still_shut(&self.offline, now).is_none() {
            tracing::warn!("no provider can be reached; those that did not answer rest for a moment");
            shut_for(&self.offline, Reason::Offline, OFFLINE_REST, now);
        }
        let sign = if cut_off { breaker::Sign::Neutral } else { breaker::Sign::of(outcome) };
        if cut_off || sign == breaker::Sign::Bad {
            *target.record.fault.lock() = class.map(|class| (class, failure.and_then(|failure| failure.status)));
        }
        target.record(asker.job, breaker, sign, class, now);
        let wait = failure.and_then(|failure| failure.wait);
        // Of a key that is out of money, its own warning tells: the other keys go on. Of a failing provider, too.
        let shuts = class.is_some_and(|class| {
            let effect = class.facts().effect;
            effect.heeds_a_wait() && !matches!(effect, Effect::Crowded | Effect::Rest)
        });
        if shuts && wait.is_some_and(long_wait::is_long) {
            tracing::warn!(
                target.name = %target.target,
                asked_seconds = wait.map(|wait| wait.as_secs()),
                recheck_seconds = provider.recheck.as_secs(),
                "the provider asks for more than a day; one call asks again after the recheck, and `sluice provider \
                 reopen` ends it"
            );
        }
        match class.map(|class| class.facts().effect) {
            None => target.record.latency.lock().answered(took),
            // A refusal says nothing of how long answers take; nor does one of a key.
            Some(Effect::Limit(_) | Effect::Crowded | Effect::Scarce) => {}
            Some(_) if key_is_refused => {}
            Some(Effect::Slow | Effect::Rest | Effect::NoModel | Effect::Nothing) => {
                target.record.latency.lock().in_vain(took);
            }
        }
        if ErrorClass::is_answered(class) {
            for hold in &holds {
                hold.bucket().asked_again(hold);
            }
        }
        if asks_again {
            target.shut.lock().tried(ErrorClass::is_answered(class));
        }
        match class.map(|class| class.facts().effect) {
            None => {
                for hold in &holds {
                    target.time(hold, Some(took));
                    hold.bucket().passed(hold);
                }
            }
            Some(Effect::Slow) => holds.iter().for_each(|hold| target.time(hold, None)),
            Some(Effect::Limit(why)) => {
                let wait = wait.or((why == Refusal::Day).then_some(provider.recheck));
                for (hold, heard) in refused(&holds, &heard) {
                    hold.bucket().refuse(hold, why, wait, provider.recheck, heard, now);
                }
            }
            Some(Effect::NoModel) => {
                let rest = target.believe(failure, request, now);
                // Once it is believed, a call that asks again needs no second one to confirm it.
                if let Some(rest) = rest.or_else(|| asks_again.then(|| target.doubt.lock().rest(provider.recheck))) {
                    model_is_refused = true;
                    target.record.answered_at.store(0, Ordering::Relaxed);
                    let is_confirmed = target.doubt.lock().is_confirmed();
                    if target.shut.lock().rest(now).is_none() {
                        tracing::warn!(
                            target.name = %target.target,
                            status = failure.and_then(|failure| failure.status),
                            recheck_seconds = rest.as_secs(),
                            "the model is unknown or not allowed; its jobs go elsewhere or wait"
                        );
                    }
                    *target.said.lock() = failure.map(Failure::in_short);
                    target.shut.lock().refused(rest, request, is_confirmed, now);
                }
            }
            // The provider asked for a rest, though not because of a limit. One request may be the cause, so other jobs
            // honour it within bounds.
            Some(effect @ (Effect::Crowded | Effect::Rest)) => {
                if effect == Effect::Crowded {
                    for hold in &holds {
                        hold.crowded(wait);
                    }
                }
                if let Some(wait) = wait {
                    target.asked_to_wait(wait, now);
                }
            }
            // Its provider goes on: neither the bucket nor the breaker learn from it.
            Some(Effect::Scarce) => {
                let is_resting = still_shut(&target.record.resting, now).is_some();
                let wait = wait.map(|wait| if long_wait::is_long(wait) { provider.recheck } else { wait });
                let under_way = u32::try_from(under_way).unwrap_or(0);
                if let Some(rest) = target.record.scarcity.lock().refused(wait, is_resting, under_way) {
                    shut_for(&target.record.resting, Reason::NoCapacity, rest, now);
                }
            }
            Some(Effect::Nothing) => {}
        }
        drop(holds);
        self.changed.notify_waiters();
        key_is_refused || model_is_refused
    }

    /// A call was given up before its outcome was known, having taken this much; `None`: it was never sent.
    pub fn abandon(&self, target: &TargetState, permit: Permit, taken: Option<Charge>, now: Timestamp) {
        target.record.under_way.fetch_sub(1, Ordering::Relaxed);
        target.record.breaker.lock().give_back(permit.breaker, now);
        if permit.asks_again {
            target.shut.lock().tried(false);
        }
        match taken {
            Some(taken) => permit.holds.iter().for_each(|hold| hold.correct(taken, &[])),
            None => cancel(permit.holds),
        }
        self.changed.notify_waiters();
    }

    /// Whether no provider has answered for a while although more than one was tried.
    fn is_cut_off(&self, now: Timestamp) -> bool {
        let recent = |at: &AtomicI64| at.load(Ordering::Relaxed) > (now - SILENCE).0;
        let tried = self.providers.values().filter(|provider| recent(&provider.last_silence)).count();
        tried > 1 && !self.providers.values().any(|provider| recent(&provider.last_contact))
    }

    /// The state of each target's breaker: `closed`, `open` or `half_open`; by [`Target::columns`].
    #[must_use]
    pub fn breakers(&self, now: Timestamp) -> BTreeMap<(String, String), &'static str> {
        self.targets.iter().map(|(target, state)| (target.columns(), state.breaker_name(now))).collect()
    }

    /// What each target is passed over for by jobs of a route; by the target's columns and the route.
    #[must_use]
    pub fn weaknesses(&self, now: Timestamp) -> BTreeMap<((String, String), String), String> {
        let mut all = BTreeMap::new();
        for (target, state) in &self.targets {
            for weak in state.weaknesses(now) {
                let indicator = weak.indicator.unwrap_or_default().into_owned();
                all.insert((target.columns(), weak.route.unwrap_or_default()), indicator);
            }
        }
        all
    }

    /// Forgets how well targets answer the jobs of routes that are not among these.
    pub(super) fn keep_routes(&self, is_there: impl Fn(&str) -> bool) {
        for state in self.targets.values() {
            state.record.qualities.lock().retain(|route, _| is_there(route));
        }
    }

    /// How many keys each provider has, and how many of them are in service; providers without keys are left out.
    pub fn keys(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        let counted = self.providers.iter().map(|(name, provider)| (name.as_str(), provider.keys.counts()));
        counted.filter(|(_, (all, _))| *all > 0).map(|(name, (all, in_service))| (name, all, in_service))
    }

    /// The buckets, targets and keys as status shows them.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> GateStatistics {
        let mut states: Vec<_> = self.targets.values().collect();
        states.sort_by(|a, b| a.target.cmp(&b.target));
        let targets = states.into_iter().map(|state| {
            let calibration = state.calibration();
            let shut = state.shut_by(now);
            TargetStatistics {
                target: Some(state.target.to_string()),
                bucket: Some(state.buckets.iter().map(|bucket| bucket.name.as_str()).collect::<Vec<_>>().join(", ")),
                breaker: Some(state.breaker_name(now).into()),
                shut: shut.map(ShutStatistics::from),
                said: shut.and_then(|shut| state.said_of(shut.reason, now)),
                weak: state.weaknesses(now),
                stuck: state.stuck(now),
                paused: state.provider.paused.lock().is_some(),
                calls: Some(state.record.calls.load(Ordering::Relaxed)),
                failures: Some(state.record.failures.load(Ordering::Relaxed)),
                estimates: Some(EstimateStatistics {
                    reports: calibration.samples(),
                    input_reported_per_thousand_estimated: calibration.reported_per_thousand(),
                    output_expected: calibration.expected_output(None),
                    output_of_nine_in_ten_below: calibration.high_output(),
                }),
            }
        });
        GateStatistics {
            buckets: self.buckets.values().map(|bucket| bucket.snapshot()).collect(),
            targets: targets.collect(),
            keys: self.providers.values().flat_map(|provider| provider.keys.snapshot(now)).collect(),
        }
    }
}

/// The buckets whose limits a refusal is about, each with what the answer says of them: those that have too little left
/// by the answer. When it says so of none, it may be any of them, and none is knowingly exceeded.
fn refused<'a>(
    holds: &'a [BucketHold],
    heard: &'a [Vec<Heard>],
) -> impl Iterator<Item = (&'a BucketHold, &'a [Heard])> {
    let told = holds.iter().zip(heard).any(|(hold, heard)| hold.is_short(heard));
    let all = holds.iter().zip(heard).map(|(hold, heard)| (hold, heard.as_slice()));
    all.filter(move |(hold, heard)| !told || hold.is_short(heard))
}
