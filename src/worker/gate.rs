//! What may be called now: buckets, breakers, and keys or models that are out of service.

#[cfg(test)]
mod refusals;
mod setup;
#[cfg(test)]
mod several;
#[cfg(test)]
mod tests;

use super::bucket::{Bucket, BucketHold};
use super::keys::{KeyHold, Keys};
use crate::domain::breaker::{self, Breaker};
use crate::domain::charging::Ask;
use crate::domain::decide::{Ineligible, RungHealth};
use crate::domain::doubt::{Doubt, RequestHash};
use crate::domain::error_class::{Effect, Refusal};
use crate::domain::limits::Heard;
use crate::domain::shut::{Reason, Shut};
use crate::domain::statistics::{EstimateStatistics, GateStatistics, TargetStatistics};
use crate::domain::tempo::{Tempo, Took};
use crate::domain::{
    Bearing, Calibration, Charge, ErrorClass, Failure, Mend, Outcome, Target, Timestamp, Unit, Usage, long_wait,
};
use crate::provider::LimitObservation;
use parking_lot::Mutex;
pub use setup::{Kept, ProviderSetup};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The longest that a call may wait inside the gate for its turn. A longer wait is a decision, not a queue.
pub const PACE: Duration = Duration::from_secs(1);

/// When no provider has answered for this long while calls fail, the trouble is probably ours.
const SILENCE: Duration = Duration::from_secs(5);

/// The most other models that are logged for each target.
const MOST_OTHERS: usize = 16;

/// The most changes that are remembered for a target.
const MOST_MENDS: usize = 8;

/// How long the process calls no provider when none can be reached.
const OFFLINE_REST: Duration = Duration::from_secs(5);

/// The state of a provider, beside its bucket.
#[derive(Debug)]
pub struct ProviderState {
    name: String,
    keys: Arc<Keys>,
    paused: Mutex<Option<Timestamp>>,
    recheck: Duration,
    /// Set while no provider can be reached; shared by all providers.
    offline: Arc<Mutex<Option<Shut>>>,
    /// When it last answered at all, and when it was last tried in vain. Milliseconds since the epoch; 0: never.
    last_contact: AtomicI64,
    last_silence: AtomicI64,
}

/// The state of one target.
#[derive(Debug)]
pub struct TargetState {
    target: Target,
    provider: Arc<ProviderState>,
    /// The buckets that a call to it has to enter, in the order in which all calls enter buckets.
    buckets: Vec<Arc<Bucket>>,
    /// Set while the model is unknown or not allowed, by the configuration as it is.
    closed: Mutex<Option<Shut>>,
    /// Its refusals in words that may concern one request alone.
    doubt: Mutex<Doubt>,
    /// Changes in the request that its refusals have asked for and an answer has confirmed.
    mends: Mutex<Vec<Mend>>,
    /// Models that have answered in its place.
    others: Mutex<BTreeSet<String>>,
    record: Arc<Record>,
    /// The last reopening of one of its buckets that it has noticed: milliseconds since the epoch.
    reopened: AtomicI64,
}

/// What calls to one target have shown of it.
#[derive(Debug)]
struct Record {
    breaker: Mutex<Breaker>,
    /// What its reports of usage have taught about estimates.
    calibration: Mutex<Calibration>,
    /// How long its answers take.
    tempo: Mutex<Tempo>,
    /// Set while the target has asked to be left alone.
    resting: Mutex<Option<Shut>>,
    calls: AtomicI64,
    failures: AtomicI64,
}

/// All limits of one worker process, and the health of all its targets.
#[derive(Debug)]
pub struct Gate {
    buckets: BTreeMap<String, Arc<Bucket>>,
    /// Buckets of earlier configurations, until their calls have ended and their units are given back.
    retired: Vec<Arc<Bucket>>,
    providers: BTreeMap<String, Arc<ProviderState>>,
    targets: HashMap<Target, Arc<TargetState>>,
    /// Set while no provider can be reached: the trouble is probably ours, and every further call would only repeat
    /// that.
    offline: Arc<Mutex<Option<Shut>>>,
    /// Notified whenever something may have opened.
    changed: Arc<Notify>,
    /// Notified whenever a bucket wants to hear from the other processes.
    wanted: Arc<Notify>,
}

/// Leave to make one call. The caller returns it with [`Gate::report`].
#[derive(Debug)]
pub struct Permit {
    holds: Vec<BucketHold>,
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

fn still_shut(slot: &Mutex<Option<Shut>>, now: Timestamp) -> Option<Shut> {
    let mut slot = slot.lock();
    if slot.is_some_and(|shut| shut.until <= now) {
        *slot = None;
    }
    *slot
}

fn shut_for(slot: &Mutex<Option<Shut>>, reason: Reason, wait: Duration, now: Timestamp) {
    let mut slot = slot.lock();
    let until = now + wait;
    *slot = Some(match *slot {
        Some(shut) if shut.until > now => Shut { reason, since: shut.since, until: until.max(shut.until) },
        _ => Shut { reason, since: now, until },
    });
}

impl TargetState {
    /// Records what a call shows of the target's health, and logs when its breaker opens or closes.
    fn record(&self, permit: breaker::Permit, sign: breaker::Sign, class: Option<ErrorClass>, now: Timestamp) {
        let mut breaker = self.record.breaker.lock();
        let before = breaker.state();
        breaker.record(permit, sign, now);
        match (before, breaker.state()) {
            (breaker::State::Closed, breaker::State::Open { until, .. }) => tracing::warn!(
                target.name = %self.target,
                last = class.map(ErrorClass::as_str),
                open_seconds = now.until(until).as_secs(),
                "too many failures: the breaker is open"
            ),
            (breaker::State::HalfOpen { .. }, breaker::State::Open { until, failed_probes, .. }) => tracing::warn!(
                target.name = %self.target,
                last = class.map(ErrorClass::as_str),
                failed_probes,
                open_seconds = now.until(until).as_secs(),
                "a probe has failed: the breaker is open again"
            ),
            (breaker::State::HalfOpen { .. }, breaker::State::Closed) => {
                tracing::info!(target.name = %self.target, "it works again: the breaker is closed");
            }
            _ => {}
        }
    }

    fn breaker_name(&self) -> &'static str {
        match self.record.breaker.lock().state() {
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

    /// What its reports of usage have taught so far.
    #[must_use]
    pub fn calibration(&self) -> Calibration {
        *self.record.calibration.lock()
    }

    /// Learns from the usage of an answer how good estimates are here.
    pub fn learn(&self, estimated_input: i64, cap: Option<i64>, usage: &Usage) {
        self.record.calibration.lock().learn(estimated_input, cap, usage);
    }

    /// How long an answer of this many tokens usually takes, where that is known.
    #[must_use]
    pub fn usual_time(&self, output_tokens: u64) -> Option<Duration> {
        self.record.tempo.lock().usual(output_tokens)
    }

    /// The changes that every request to it needs, as far as they are known.
    #[must_use]
    pub fn mends(&self) -> Vec<Mend> {
        self.mends.lock().clone()
    }

    /// An answer came to a request that was changed like this: the lasting changes are kept for other requests.
    pub fn learn_mends(&self, mends: &[Mend]) {
        let mut known = self.mends.lock();
        for mend in mends.iter().filter(|mend| mend.is_lasting()) {
            if known.len() < MOST_MENDS && !known.contains(mend) {
                tracing::info!(target.name = %self.target, change = ?mend, "its refusal was right: requests are changed from now on");
                known.push(mend.clone());
            }
        }
    }

    /// Another model answered in its place: logged once for each model.
    pub fn saw_another(&self, model: &str, is_priced: bool) {
        let mut others = self.others.lock();
        if others.len() < MOST_OTHERS && others.insert(model.to_owned()) {
            let what =
                if is_priced { "it is booked at its own price" } else { "its price is unknown, and so is the cost" };
            tracing::warn!(target.name = %self.target, model.served = ?model, "another model answered than was asked: {what}");
        }
    }

    /// Whether a refusal is believed to concern all requests, and then for how long.
    fn believe(&self, failure: Option<&Failure>, request: RequestHash) -> Option<Duration> {
        let recheck = self.provider.recheck;
        if failure.is_none_or(|failure| failure.bearing != Bearing::InDoubt) {
            return Some(recheck);
        }
        let mut doubt = self.doubt.lock();
        doubt.refused(request).then(|| doubt.rest(recheck))
    }

    /// Lowers the number of calls at once, where it is felt for, when calls take clearly longer than usual for this
    /// target. `None`: there was no answer in time.
    fn time(&self, hold: &BucketHold, took: Option<Took>) {
        let Some(places) = hold.felt() else { return };
        let mut tempo = self.record.tempo.lock();
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

    /// Why a call can never be made: its least possible need exceeds what one of its buckets ever holds.
    fn too_large(&self, ask: &Ask) -> Option<Ineligible> {
        let signed = |tokens| i64::try_from(tokens).unwrap_or(i64::MAX);
        [
            (Unit::Tokens, Charge { total: ask.least.total, ..Charge::default() }),
            (Unit::InputTokens, Charge { input: ask.least.input, ..Charge::default() }),
            (Unit::OutputTokens, Charge { output: ask.least.output, ..Charge::default() }),
        ]
        .into_iter()
        .find_map(|(unit, least)| {
            let (_, size) = self.buckets.iter().find_map(|bucket| bucket.size(least))?;
            let (needed, size) = (signed(ask.expected.units(unit)), signed(size));
            Some(Ineligible::BucketTooSmall { unit, needed, size })
        })
    }

    /// The health of this target for a call that asks for this much and would wait at most `horizon` for its turn.
    #[must_use]
    pub fn health(&self, ask: &Ask, horizon: Duration, now: Timestamp) -> RungHealth {
        if let Some(why) = self.too_large(ask) {
            return RungHealth::Ineligible(why);
        }
        self.follow_reopening(now);
        let shut = self
            .shut_to_all(now)
            .or_else(|| {
                let (since, until) = self.record.breaker.lock().peek(now)?;
                Some(Shut { reason: Reason::Breaker, since, until })
            })
            .or_else(|| {
                // The target is open when all its buckets are, so the last one to open counts.
                let shut = self.buckets.iter().filter_map(|bucket| bucket.look(ask.reserved, horizon, now));
                shut.max_by_key(|shut| shut.until)
            });
        match shut {
            Some(shut) => RungHealth::Shut(shut),
            None => RungHealth::Open,
        }
    }

    /// Whether this target was shut since a call got its leave: by an answer to another call, or by an operator who
    /// paused the provider. Neither waits for calls that have their leave.
    #[must_use]
    pub fn shut_meanwhile(&self, permit: &Permit, now: Timestamp) -> Option<Shut> {
        // The call's key and breaker are left out: they may have let just this call pass.
        let waits = || permit.holds.iter().find_map(BucketHold::shut_meanwhile);
        self.paused(now).or_else(|| self.rests(now)).or_else(waits)
    }

    /// When its limits were last opened before a wait was over, by hand or by an answer.
    #[must_use]
    pub fn reopened_at(&self) -> Option<Timestamp> {
        self.buckets.iter().filter_map(|bucket| bucket.reopened_at()).max()
    }

    /// How long a refused thing rests before one call tries it again.
    #[must_use]
    pub fn recheck(&self) -> Duration {
        self.provider.recheck
    }

    /// If its limits were opened by hand, tries again everything that rests.
    fn follow_reopening(&self, now: Timestamp) {
        let Some(Timestamp(at)) = self.reopened_at() else { return };
        if self.reopened.fetch_max(at, Ordering::AcqRel) < at {
            *self.closed.lock() = None;
            *self.record.resting.lock() = None;
            self.record.breaker.lock().try_again(now);
            self.provider.keys.try_again(now);
        }
    }

    fn paused(&self, now: Timestamp) -> Option<Shut> {
        let since = (*self.provider.paused.lock())?;
        // Only an operator lifts a pause; it is checked again within a second.
        Some(Shut { reason: Reason::Paused, since, until: now + Duration::from_secs(1) })
    }

    /// Why no call may go to it, whatever it asks for; breaker and limits left out.
    fn shut_to_all(&self, now: Timestamp) -> Option<Shut> {
        self.paused(now).or_else(|| self.provider.keys.shut(now)).or_else(|| self.rests(now))
    }

    /// Why no call goes to it, and when one may again: what status shows. A breaker that is half open lets calls go.
    fn closed_by(&self, now: Timestamp) -> Option<Shut> {
        self.shut_to_all(now).or_else(|| match self.record.breaker.lock().state() {
            breaker::State::Open { since, until, .. } => Some(Shut { reason: Reason::Breaker, since, until }),
            breaker::State::Closed | breaker::State::HalfOpen { .. } => None,
        })
    }

    /// Whether the target is known to take no calls for a time, whatever they ask for.
    fn rests(&self, now: Timestamp) -> Option<Shut> {
        self.follow_reopening(now);
        still_shut(&self.closed, now)
            .or_else(|| still_shut(&self.record.resting, now))
            .or_else(|| still_shut(&self.provider.offline, now))
    }

    /// How many calls of about this size could begin within the pace.
    #[must_use]
    pub fn headroom(&self, typical: Charge) -> usize {
        let rooms = self.buckets.iter().map(|bucket| bucket.headroom(typical, PACE / 2));
        rooms.min().unwrap_or(usize::MAX).min(self.provider.keys.headroom())
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
        let key = target.provider.keys.take(now)?;
        match target.record.breaker.lock().admit(now) {
            Ok(breaker) => Ok(Permit { holds: std::mem::take(&mut entering.0), key, breaker }),
            Err(until) => Err(Shut { reason: Reason::Breaker, since: now, until }),
        }
    }

    /// Learns from the outcome of a call: corrects the charge to what the call really took, and shuts whatever has to
    /// be shut. Returns whether the key is out of service because of it.
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
            target.doubt.lock().answered();
        }
        let Permit { holds, key, breaker } = permit;
        // The provider's date for the key (the first of next month) is not used: the bill may be paid earlier. One call
        // in a while finds that out.
        let key_is_refused = key.report(outcome, failure, request, now);
        let mut heard = Vec::with_capacity(holds.len());
        for hold in &holds {
            hold.correct(settled);
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
            tracing::warn!("no provider can be reached; resting all of them for a moment");
            shut_for(&self.offline, Reason::Breaker, OFFLINE_REST, now);
        }
        let sign = if cut_off { breaker::Sign::Neutral } else { breaker::Sign::of(outcome) };
        target.record(breaker, sign, class, now);
        let wait = failure.and_then(|failure| failure.wait);
        // Of a key that is out of money, its own warning tells: the other keys go on.
        let shuts = class.is_some_and(|class| class.facts().effect.heeds_a_wait());
        if shuts && wait.is_some_and(long_wait::is_long) {
            tracing::warn!(
                target.name = %target.target,
                asked_seconds = wait.map(|wait| wait.as_secs()),
                recheck_seconds = provider.recheck.as_secs(),
                "the provider asks for more than a day; one call asks again after the recheck, and `sluice provider reopen` ends it"
            );
        }
        if matches!(class, None | Some(ErrorClass::SoftFailure)) {
            for hold in &holds {
                hold.bucket().asked_again(hold);
            }
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
            // The provider asked for a rest, though not because of a limit: every job honours that, not only this one.
            Some(effect @ (Effect::Crowded | Effect::Rest)) => {
                if effect == Effect::Crowded {
                    for hold in &holds {
                        hold.crowded(wait);
                    }
                }
                match wait {
                    // One call asks again then, and all others wait for its outcome.
                    Some(wait) if long_wait::is_long(wait) => {
                        target.record.breaker.lock().open_for(long_wait::rest(wait, provider.recheck), now);
                    }
                    Some(wait) => shut_for(&target.record.resting, Reason::Breaker, wait, now),
                    None => {}
                }
            }
            Some(Effect::Nothing) => {}
        }
        drop(holds);
        self.changed.notify_waiters();
        key_is_refused
    }

    /// A call was given up before its outcome was known, having taken this much; `None`: it was never sent.
    pub fn abandon(&self, target: &TargetState, permit: Permit, taken: Option<Charge>, now: Timestamp) {
        target.record.breaker.lock().record(permit.breaker, breaker::Sign::Neutral, now);
        match taken {
            Some(taken) => permit.holds.iter().for_each(|hold| hold.correct(taken)),
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

    /// The state of each target's breaker: `closed`, `open` or `half_open`.
    #[must_use]
    pub fn breakers(&self) -> BTreeMap<Target, &'static str> {
        self.targets.iter().map(|(target, state)| (target.clone(), state.breaker_name())).collect()
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
            let shut = state.closed_by(now);
            let calibration = state.calibration();
            TargetStatistics {
                target: Some(state.target.to_string()),
                bucket: Some(state.buckets.iter().map(|bucket| bucket.name.as_str()).collect::<Vec<_>>().join(", ")),
                breaker: Some(state.breaker_name().into()),
                closed: shut.map(|shut| shut.reason.as_str().into()),
                closed_until_ms: shut.and_then(|shut| shut.known_end()).map(|until| until.0),
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
