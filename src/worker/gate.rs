//! What may be called now: buckets, breakers, and keys or models that are out of service.

#[cfg(test)]
mod refusals;
mod setup;
#[cfg(test)]
mod tests;

use super::bucket::{Bucket, Hold};
use super::keys::{KeyHold, Keys};
use crate::domain::breaker::{self, Breaker};
use crate::domain::charging::Ask;
use crate::domain::decide::{Ineligible, RungHealth};
use crate::domain::doubt::{Doubt, RequestHash};
use crate::domain::error_class::{Effect, Refusal};
use crate::domain::shut::{Reason, Shut};
use crate::domain::tempo::{Tempo, Took};
use crate::domain::{
    Bearing, Calibration, Charge, ErrorClass, Failure, Mend, Outcome, Target, Timestamp, Unit, Usage, long_wait,
};
use crate::provider::LimitObservation;
pub use setup::{Kept, ProviderSetup};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a call may wait inside the gate for its turn. What would take longer is a decision, not a queue.
pub const PACE: Duration = Duration::from_secs(1);

/// No word from anywhere for this long while calls fail: the trouble is probably ours.
const SILENCE: Duration = Duration::from_secs(5);

/// So many other models are told of, for each target.
const MOST_OTHERS: usize = 16;

/// So many changes are remembered of a target.
const MOST_MENDS: usize = 8;

/// How long nobody is called when nobody can be reached.
const OFFLINE_REST: Duration = Duration::from_secs(5);

/// What is known of a provider, beside its bucket.
#[derive(Debug)]
pub struct ProviderState {
    name: String,
    keys: Arc<Keys>,
    paused: Mutex<Option<Timestamp>>,
    recheck: Duration,
    /// Shared by all providers.
    offline: Arc<Mutex<Option<Shut>>>,
    /// When it last said anything at all, and when it was last tried in vain. Milliseconds since the epoch; 0: never.
    last_contact: AtomicI64,
    last_silence: AtomicI64,
}

/// What is known of one target.
#[derive(Debug)]
pub struct TargetState {
    target: Target,
    provider: Arc<ProviderState>,
    bucket: Arc<Bucket>,
    /// The model is unknown or not allowed, by the configuration as it is.
    closed: Mutex<Option<Shut>>,
    /// What it has been refusing in words that may concern one request alone.
    doubt: Mutex<Doubt>,
    /// What its refusals have asked for and an answer has confirmed.
    mends: Mutex<Vec<Mend>>,
    /// Models that have answered in its place.
    others: Mutex<BTreeSet<String>>,
    record: Arc<Record>,
    /// The reopening of its bucket that it has heard of: milliseconds since the epoch.
    reopened: AtomicI64,
}

/// What calls to one target have shown of it.
#[derive(Debug)]
struct Record {
    breaker: Mutex<Breaker>,
    /// What its reports have taught about estimates.
    calibration: Mutex<Calibration>,
    /// How long its answers take.
    tempo: Mutex<Tempo>,
    /// It asked to be left alone for a while.
    resting: Mutex<Option<Shut>>,
    calls: AtomicI64,
    failures: AtomicI64,
}

/// All limits and health of one worker process.
#[derive(Debug)]
pub struct Gate {
    buckets: BTreeMap<String, Arc<Bucket>>,
    /// Buckets of earlier configurations, until their calls have ended and what they held is given back.
    retired: Vec<Arc<Bucket>>,
    providers: BTreeMap<String, Arc<ProviderState>>,
    targets: HashMap<Target, Arc<TargetState>>,
    /// Nobody can be reached: the trouble is probably ours, and every call would only say so again.
    offline: Arc<Mutex<Option<Shut>>>,
    /// Told whenever something may have opened.
    changed: Arc<Notify>,
    /// Told whenever a bucket wants to hear from the others.
    wanted: Arc<Notify>,
}

/// Leave to make one call. Give it back with [`Gate::report`].
#[derive(Debug)]
pub struct Permit {
    hold: Hold,
    key: KeyHold,
    breaker: breaker::Permit,
}

impl Permit {
    /// The key to call with, by its place in the configuration.
    #[must_use]
    pub fn key(&self) -> usize {
        self.key.index()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn still_shut(slot: &Mutex<Option<Shut>>, now: Timestamp) -> Option<Shut> {
    let mut slot = lock(slot);
    if slot.is_some_and(|shut| shut.until <= now) {
        *slot = None;
    }
    *slot
}

fn shut_for(slot: &Mutex<Option<Shut>>, reason: Reason, wait: Duration, now: Timestamp) {
    let mut slot = lock(slot);
    let until = now + wait;
    *slot = Some(match *slot {
        Some(shut) if shut.until > now => Shut { reason, since: shut.since, until: until.max(shut.until) },
        _ => Shut { reason, since: now, until },
    });
}

impl TargetState {
    /// Records what a call says of the target's health, and tells when its breaker opens or closes.
    fn record(&self, permit: breaker::Permit, sign: breaker::Sign, class: Option<ErrorClass>, now: Timestamp) {
        let mut breaker = lock(&self.record.breaker);
        let before = breaker.state();
        breaker.record(permit, sign, now);
        match (before, breaker.state()) {
            (breaker::State::Closed, breaker::State::Open { until, .. }) => tracing::warn!(
                target.name = %self.target,
                last = class.map(ErrorClass::as_str),
                open_seconds = now.until(until).as_secs(),
                "too many failures: the breaker is open"
            ),
            (breaker::State::HalfOpen { .. }, breaker::State::Closed) => {
                tracing::info!(target.name = %self.target, "it works again: the breaker is closed");
            }
            _ => {}
        }
    }

    fn breaker_name(&self) -> &'static str {
        match lock(&self.record.breaker).state() {
            breaker::State::Closed => "closed",
            breaker::State::Open { .. } => "open",
            breaker::State::HalfOpen { .. } => "half_open",
        }
    }

    /// Its name.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What its reports have taught so far.
    #[must_use]
    pub fn calibration(&self) -> Calibration {
        *lock(&self.record.calibration)
    }

    /// Learns from the report of an answer what estimates are worth here.
    pub fn learn(&self, estimated_input: i64, cap: Option<i64>, usage: &Usage) {
        lock(&self.record.calibration).learn(estimated_input, cap, usage);
    }

    /// How long an answer of so many tokens usually takes, where that is known.
    #[must_use]
    pub fn usual_time(&self, output_tokens: u64) -> Option<Duration> {
        lock(&self.record.tempo).usual(output_tokens)
    }

    /// What every request to it has to be changed in, as far as that is known.
    #[must_use]
    pub fn mends(&self) -> Vec<Mend> {
        lock(&self.mends).clone()
    }

    /// An answer came to a request that was changed like this: what lasts of it is kept for the others.
    pub fn learn_mends(&self, mends: &[Mend]) {
        let mut known = lock(&self.mends);
        for mend in mends.iter().filter(|mend| mend.is_lasting()) {
            if known.len() < MOST_MENDS && !known.contains(mend) {
                tracing::info!(target.name = %self.target, change = ?mend, "its refusal was right: requests are changed from now on");
                known.push(mend.clone());
            }
        }
    }

    /// Another model answered in its place: told once for each.
    pub fn saw_another(&self, model: &str, is_priced: bool) {
        let mut others = lock(&self.others);
        if others.len() < MOST_OTHERS && others.insert(model.to_owned()) {
            let what =
                if is_priced { "it is booked at its own price" } else { "its price is unknown, and so is the cost" };
            tracing::warn!(target.name = %self.target, model.served = ?model, "another model answered than was asked: {what}");
        }
    }

    /// Whether a refusal is believed of all requests, and for how long then.
    fn believe(&self, failure: Option<&Failure>, request: RequestHash) -> Option<Duration> {
        let recheck = self.provider.recheck;
        if failure.is_none_or(|failure| failure.bearing != Bearing::InDoubt) {
            return Some(recheck);
        }
        let mut doubt = lock(&self.doubt);
        doubt.refused(request).then(|| doubt.rest(recheck))
    }

    /// Lowers the number of calls at once, where it is felt for, when they take clearly longer than usual for this
    /// target. `None`: there was no answer in time.
    fn time(&self, hold: &Hold, took: Option<Took>) {
        let Some(places) = hold.felt() else { return };
        let mut tempo = lock(&self.record.tempo);
        let bearable = match took {
            Some(took) => tempo.learn(took, places),
            None => tempo.timed_out(places),
        };
        drop(tempo);
        if let Some(bearable) = bearable {
            tracing::debug!(target.name = %self.target, places, bearable, "answers take longer than usual");
            hold.slowed(bearable);
        }
    }

    /// Why a call can never be made, if even the least that it takes is more than the bucket ever holds.
    fn too_large(&self, ask: &Ask) -> Option<Ineligible> {
        let signed = |tokens| i64::try_from(tokens).unwrap_or(i64::MAX);
        [
            (Unit::Tokens, Charge { total: ask.least.total, ..Charge::default() }),
            (Unit::InputTokens, Charge { input: ask.least.input, ..Charge::default() }),
            (Unit::OutputTokens, Charge { output: ask.least.output, ..Charge::default() }),
        ]
        .into_iter()
        .find_map(|(unit, least)| {
            let (_, size) = self.bucket.size(least)?;
            let (needed, size) = (signed(ask.expected.units(unit)), signed(size));
            Some(Ineligible::BucketTooSmall { unit, needed, size })
        })
    }

    /// The state of this target for a call that asks for this much and would wait at most `horizon` for its turn.
    #[must_use]
    pub fn health(&self, ask: &Ask, horizon: Duration, now: Timestamp) -> RungHealth {
        if let Some(why) = self.too_large(ask) {
            return RungHealth::Ineligible(why);
        }
        self.follow_reopening(now);
        let shut = self
            .paused(now)
            .or_else(|| self.provider.keys.shut(now))
            .or_else(|| self.rests(now))
            .or_else(|| {
                let (since, until) = lock(&self.record.breaker).peek(now)?;
                Some(Shut { reason: Reason::Breaker, since, until })
            })
            .or_else(|| self.bucket.look(ask.reserved, horizon, now));
        match shut {
            Some(shut) => RungHealth::Shut(shut),
            None => RungHealth::Open,
        }
    }

    /// Whether something has shut this target since a call got its leave, which waits for nobody: an answer to another
    /// call, or somebody who paused the provider.
    #[must_use]
    pub fn shut_meanwhile(&self, permit: &Permit, now: Timestamp) -> Option<Shut> {
        // Not its key and not its breaker, which may have let just this call pass.
        let block = || if permit.hold.is_probe() { None } else { self.bucket.block() };
        self.paused(now).or_else(|| self.rests(now)).or_else(block)
    }

    /// When its limits were last opened before a wait was over, by hand or by an answer.
    #[must_use]
    pub fn reopened_at(&self) -> Option<Timestamp> {
        self.bucket.reopened_at()
    }

    /// How long something that was refused rests before one call tries it again.
    #[must_use]
    pub fn recheck(&self) -> Duration {
        self.provider.recheck
    }

    /// Its limits were opened by hand: whatever it rests for is tried again.
    fn follow_reopening(&self, now: Timestamp) {
        let Some(Timestamp(at)) = self.bucket.reopened_at() else { return };
        if self.reopened.fetch_max(at, Ordering::AcqRel) < at {
            *lock(&self.closed) = None;
            *lock(&self.record.resting) = None;
            lock(&self.record.breaker).try_again(now);
            self.provider.keys.try_again(now);
        }
    }

    fn paused(&self, now: Timestamp) -> Option<Shut> {
        let since = (*lock(&self.provider.paused))?;
        // Somebody has to lift it; a second is how soon that is noticed.
        Some(Shut { reason: Reason::Paused, since, until: now + Duration::from_secs(1) })
    }

    /// It is known not to take calls for a time, whatever they ask for.
    fn rests(&self, now: Timestamp) -> Option<Shut> {
        self.follow_reopening(now);
        still_shut(&self.closed, now)
            .or_else(|| still_shut(&self.record.resting, now))
            .or_else(|| still_shut(&self.provider.offline, now))
    }

    /// How many calls of about this size could begin within the pace.
    #[must_use]
    pub fn headroom(&self, typical: Charge) -> usize {
        self.bucket.headroom(typical, PACE / 2).min(self.provider.keys.headroom())
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

    /// All buckets of which something may have to be told to the others.
    pub(super) fn kept_buckets(&self) -> impl Iterator<Item = &Arc<Bucket>> {
        self.buckets.values().chain(&self.retired)
    }

    /// The limits of each bucket, as configured now.
    #[cfg(test)]
    pub(crate) fn limits(&self) -> BTreeMap<&str, Arc<crate::domain::Limits>> {
        self.buckets.iter().map(|(name, bucket)| (name.as_str(), bucket.limits())).collect()
    }

    /// Waits until a bucket wants to hear from the others.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Says that something may have opened.
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
            let mut slot = lock(&provider.paused);
            *slot = paused.contains(&provider.name.as_str()).then(|| slot.unwrap_or(now));
        }
    }

    /// Asks for leave to call `target`, waiting at most `patience` for a turn.
    ///
    /// # Errors
    /// Why not, and until when; nothing is taken then.
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
        let hold = target.bucket.enter(charge, patience, now).await?;
        // The two that let one call pass to try come last: it must not be one that then waits.
        let key = match target.provider.keys.take(now) {
            Ok(key) => key,
            Err(shut) => {
                hold.cancel();
                return Err(shut);
            }
        };
        match lock(&target.record.breaker).admit(now) {
            Ok(breaker) => Ok(Permit { hold, key, breaker }),
            Err(until) => {
                hold.cancel();
                Err(Shut { reason: Reason::Breaker, since: now, until })
            }
        }
    }

    /// Learns from what came of a call: corrects the charge to what it took, and closes what has to be closed. Returns
    /// whether the key is out of service because of it.
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
        request: RequestHash,
        now: Timestamp,
    ) -> bool {
        let provider = &target.provider;
        target.record.calls.fetch_add(1, Ordering::Relaxed);
        if !matches!(outcome, Outcome::Accepted) {
            target.record.failures.fetch_add(1, Ordering::Relaxed);
        }
        let class = outcome.class();
        if matches!(class, None | Some(ErrorClass::SoftFailure)) {
            lock(&target.doubt).answered();
        }
        let Permit { hold, key, breaker } = permit;
        // When a key is good again is not what the provider says (the first of next month): somebody may pay before,
        // and one call in a while is how that is found out.
        let key_is_refused = key.report(outcome, failure, request, now);
        hold.correct(settled);
        let heard = target.bucket.understand(limits);
        hold.hear(&heard);
        let silent = class.is_some_and(|class| !class.facts().is_heard);
        let seen = if silent { &provider.last_silence } else { &provider.last_contact };
        seen.store(now.0, Ordering::Relaxed);
        // When nobody at all can be reached, the trouble is ours and no target is to blame.
        let cut_off = silent && self.is_cut_off(now);
        if cut_off && still_shut(&self.offline, now).is_none() {
            tracing::warn!("no provider can be reached; resting all of them for a moment");
            shut_for(&self.offline, Reason::Breaker, OFFLINE_REST, now);
        }
        let sign = if cut_off { breaker::Sign::Neutral } else { breaker::Sign::of(outcome) };
        target.record(breaker, sign, class, now);
        let wait = failure.and_then(|failure| failure.wait);
        if wait.is_some_and(long_wait::is_long) {
            tracing::warn!(
                target.name = %target.target,
                asked_seconds = wait.map(|wait| wait.as_secs()),
                recheck_seconds = provider.recheck.as_secs(),
                "the provider asks for more than a day; one call asks again after the recheck, and `sluice provider reopen` ends it"
            );
        }
        if matches!(class, None | Some(ErrorClass::SoftFailure)) {
            target.bucket.asked_again(&hold);
        }
        match class.map(|class| class.facts().effect) {
            None => {
                target.time(&hold, Some(took));
                target.bucket.passed(&hold);
            }
            Some(Effect::Slow) => target.time(&hold, None),
            Some(Effect::Limit(refusal)) => {
                let wait = wait.or((refusal == Refusal::Day).then_some(provider.recheck));
                target.bucket.refuse(&hold, refusal, wait, provider.recheck, &heard, now);
            }
            Some(Effect::NoModel) => {
                if let Some(rest) = target.believe(failure, request) {
                    if still_shut(&target.closed, now).is_none() {
                        tracing::warn!(
                            target.name = %target.target,
                            status = failure.and_then(|failure| failure.status),
                            recheck_seconds = rest.as_secs(),
                            "the model is unknown or not allowed; its jobs go elsewhere or wait"
                        );
                    }
                    shut_for(&target.closed, Reason::Model, rest, now);
                }
            }
            // Asked to stay away, if not for a limit: honoured for every job, not only for this one.
            Some(effect @ (Effect::Crowded | Effect::Rest)) => {
                if effect == Effect::Crowded {
                    hold.crowded(wait);
                }
                match wait {
                    // One call asks again then, and all others wait for what comes of it.
                    Some(wait) if long_wait::is_long(wait) => {
                        lock(&target.record.breaker).open_for(long_wait::rest(wait, provider.recheck), now);
                    }
                    Some(wait) => shut_for(&target.record.resting, Reason::Breaker, wait, now),
                    None => {}
                }
            }
            Some(Effect::Nothing) => {}
        }
        drop(hold);
        self.changed.notify_waiters();
        key_is_refused
    }

    /// A call was given up before anything came of it, having taken so much; `None`: it was never sent.
    pub fn abandon(&self, target: &TargetState, permit: Permit, taken: Option<Charge>, now: Timestamp) {
        lock(&target.record.breaker).record(permit.breaker, breaker::Sign::Neutral, now);
        match taken {
            Some(taken) => permit.hold.correct(taken),
            None => permit.hold.cancel(),
        }
        self.changed.notify_waiters();
    }

    /// Whether no provider at all has been heard for a while although more than one was tried.
    fn is_cut_off(&self, now: Timestamp) -> bool {
        let recent = |at: &AtomicI64| at.load(Ordering::Relaxed) > (now - SILENCE).0;
        let tried = self.providers.values().filter(|provider| recent(&provider.last_silence)).count();
        tried > 1 && !self.providers.values().any(|provider| recent(&provider.last_contact))
    }

    /// The state of each target's breaker: `closed`, `open` or `half_open`.
    #[must_use]
    pub fn breakers(&self) -> BTreeMap<Target, &'static str> {
        self.targets.iter().map(|(target, state)| (target.clone(), state.breaker_name())).collect()
    }

    /// How many keys each provider has, and how many of them are in service; those that need none are left out.
    pub fn keys(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        let counted = self.providers.iter().map(|(name, provider)| (name.as_str(), provider.keys.counts()));
        counted.filter(|(_, (all, _))| *all > 0).map(|(name, (all, in_service))| (name, all, in_service))
    }

    /// What status shows of it.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> serde_json::Value {
        let buckets: Vec<_> = self.buckets.values().map(|bucket| bucket.snapshot()).collect();
        let mut states: Vec<_> = self.targets.values().collect();
        states.sort_by(|a, b| a.target.cmp(&b.target));
        let targets: Vec<_> = states
            .into_iter()
            .map(|state| {
                let shut = state.provider.keys.shut(now).or_else(|| still_shut(&state.closed, now));
                let shut = shut.or_else(|| still_shut(&state.record.resting, now));
                let calibration = state.calibration();
                serde_json::json!({
                    "target": state.target.to_string(),
                    "bucket": state.bucket.name,
                    "breaker": state.breaker_name(),
                    "closed": shut.map(|shut| shut.reason.as_str()),
                    "closed_until_ms": shut.map(|shut| shut.until.0),
                    "paused": lock(&state.provider.paused).is_some(),
                    "calls": state.record.calls.load(Ordering::Relaxed),
                    "failures": state.record.failures.load(Ordering::Relaxed),
                    "estimates": {
                        "reports": calibration.samples(),
                        "input_reported_per_thousand_estimated": calibration.reported_per_thousand(),
                        "output_expected": calibration.expected_output(None),
                        "output_of_nine_in_ten_below": calibration.high_output(),
                    },
                })
            })
            .collect();
        let keys: Vec<_> = self.providers.values().flat_map(|provider| provider.keys.snapshot(now)).collect();
        serde_json::json!({ "buckets": buckets, "targets": targets, "keys": keys })
    }
}
