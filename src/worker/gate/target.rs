//! The state of one target, and of the provider it belongs to: what its calls have shown, what it learned from them,
//! and whether it takes another call.

use super::{PACE, Permit, RouteQuality};
use crate::domain::breaker::{self, Breaker};
use crate::domain::charging::Ask;
use crate::domain::decide::{Ineligible, Line, RungHealth};
use crate::domain::doubt::{Doubt, RequestHash};
use crate::domain::key_ring::LATELY;
use crate::domain::latency::Latency;
use crate::domain::model_refusal::ModelRefusal;
use crate::domain::news::TargetNews;
use crate::domain::probe::{ProbeSettings, Pulse};
use crate::domain::scarcity::Scarcity;
use crate::domain::shut::{Reason, Shut};
use crate::domain::statistics::StuckStatistics;
use crate::domain::statistics::WeaknessStatistics;
use crate::domain::strategy::WHOLLY_FREE;
use crate::domain::stuck_answer::{LatestAnswers, OneForAll};
use crate::domain::tempo::{Tempo, Took};
use crate::domain::{
    Bearing, Calibration, Charge, ErrorClass, Failure, JobId, Mend, NanoUsd, Target, Timestamp, Unit, Usage, long_wait,
};
use crate::worker::bucket::{Bucket, BucketHold, Sleeper};
use crate::worker::keys::Keys;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The most other models that are logged for each target.
const MOST_OTHERS: usize = 16;

/// The most changes that are remembered for a target.
const MOST_MENDS: usize = 8;

/// An opening by hand that is older has nothing more to say of what rests.
const REOPENED_LATELY: Duration = Duration::from_mins(10);

/// The state of a provider, beside its bucket.
#[derive(Debug)]
pub struct ProviderState {
    pub(super) name: String,
    pub(super) keys: Arc<Keys>,
    pub(super) paused: Mutex<Option<Timestamp>>,
    /// Set while its budget has no room.
    pub(super) budget: Mutex<Option<Shut>>,
    /// How its health is probed, where it is.
    pub(super) probe: Option<ProbeSettings>,
    /// What its health probes have shown.
    pub(super) pulse: Mutex<Pulse>,
    pub(super) recheck: Duration,
    /// By which other processes know that they call the same server.
    pub(super) server: String,
    /// Set while no provider can be reached; shared by all providers.
    pub(super) offline: Arc<Mutex<Option<Shut>>>,
    /// When it last answered at all, and when it was last tried in vain. Milliseconds since the epoch; 0: never.
    pub(super) last_contact: AtomicI64,
    pub(super) last_silence: AtomicI64,
}

impl ProviderState {
    /// Whether it rests because no provider can be reached. One that answered when it was called last, or was never
    /// called, is tried: it may be the one that can be reached.
    fn offline(&self, now: Timestamp) -> Option<Shut> {
        let is_silent = self.last_silence.load(Ordering::Relaxed) > self.last_contact.load(Ordering::Relaxed);
        if is_silent { still_shut(&self.offline, now) } else { None }
    }
}

/// What one call has cost.
#[derive(Clone, Copy, Debug)]
pub struct CostSeen {
    /// `None`: unknown.
    pub booked: Option<NanoUsd>,
    pub computed: Option<NanoUsd>,
    pub reported: Option<NanoUsd>,
    /// Whether the last two differ by more than is allowed.
    pub differs: bool,
}

/// The state of one target.
#[derive(Debug)]
pub struct TargetState {
    pub(super) target: Target,
    pub(super) provider: Arc<ProviderState>,
    /// The buckets that a call to it has to enter, in the order in which all calls enter buckets.
    pub(super) buckets: Vec<Arc<Bucket>>,
    /// Whether the model is unknown or not allowed, by the configuration as it is.
    pub(super) shut: Mutex<ModelRefusal>,
    /// The provider's words when it refused the model last.
    pub(super) said: Mutex<Option<String>>,
    /// Its refusals in words that may concern one request alone.
    pub(super) doubt: Mutex<Doubt>,
    /// Changes in the request that its refusals have asked for and an answer has confirmed.
    pub(super) mends: Mutex<Vec<Mend>>,
    /// Models that have answered in its place.
    pub(super) others: Mutex<BTreeSet<String>>,
    /// The hours in which a cost without a price, and one that differs from the provider's, was logged last.
    pub(super) doubted_costs: Mutex<[Option<i64>; 2]>,
    pub(super) record: Arc<Record>,
    /// The last reopening of one of its buckets that it has noticed: milliseconds since the epoch.
    pub(super) reopened: AtomicI64,
}

/// What calls to one target have shown of it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) breaker: Mutex<Breaker>,
    /// The latest long texts of its answers, to tell when it gives the same one to everybody.
    pub(super) latest_answers: Mutex<LatestAnswers>,
    /// The hour in which that was logged last.
    pub(super) told_of_stuck: Mutex<Option<i64>>,
    /// What its reports of usage have taught about estimates.
    pub(super) calibration: Mutex<Calibration>,
    /// How long its answers take, compared with its usual time.
    pub(super) tempo: Mutex<Tempo>,
    /// How long its answers have lately taken.
    pub(super) latency: Mutex<Latency>,
    /// Its refusals for a lack of capacity, if it is a tier of spare capacity.
    pub(super) scarcity: Mutex<Scarcity>,
    /// Set while the target has asked to be left alone.
    pub(super) resting: Mutex<Option<Shut>>,
    /// When it last answered, unless its model was refused since. Milliseconds since the epoch; 0: never.
    pub(super) answered_at: AtomicI64,
    /// The last failure that speaks against the target, with its HTTP status.
    pub(super) fault: Mutex<Option<(ErrorClass, Option<u16>)>>,
    /// What other processes know of it.
    pub(super) told: Mutex<TargetNews>,
    /// How well it answers the jobs of each route.
    pub(super) qualities: Mutex<BTreeMap<String, Arc<RouteQuality>>>,
    /// Calls that have their leave and no outcome yet.
    pub(super) under_way: AtomicI64,
    pub(super) calls: AtomicI64,
    pub(super) failures: AtomicI64,
}

/// Why something rests that has not rested to its end.
pub(super) fn still_shut(slot: &Mutex<Option<Shut>>, now: Timestamp) -> Option<Shut> {
    let mut slot = slot.lock();
    if slot.is_some_and(|shut| shut.until <= now) {
        *slot = None;
    }
    *slot
}

/// Lets something rest for `wait` from now, and never shorter than it rests already.
pub(super) fn shut_for(slot: &Mutex<Option<Shut>>, reason: Reason, wait: Duration, now: Timestamp) {
    let mut slot = slot.lock();
    let until = now + wait;
    *slot = Some(match *slot {
        Some(shut) if shut.until > now => Shut { reason, since: shut.since, until: until.max(shut.until) },
        _ => Shut { reason, since: now, until },
    });
}

/// Lets something rest as another process says; returns whether that is longer than it would rest anyway.
pub(super) fn shut_until(slot: &Mutex<Option<Shut>>, told: Shut, now: Timestamp) -> bool {
    let known = still_shut(slot, now);
    let is_longer = told.until > now && known.is_none_or(|known| known.until < told.until);
    if is_longer {
        *slot.lock() = Some(told);
    }
    is_longer
}

impl TargetState {
    /// Records what a call shows of the target's health, and logs when its breaker opens or closes.
    pub(super) fn record(
        &self,
        job: JobId,
        permit: breaker::Passage,
        sign: breaker::Sign,
        class: Option<ErrorClass>,
        now: Timestamp,
    ) {
        let mut breaker = self.record.breaker.lock();
        let before = breaker.state();
        breaker.record_of(job, permit, sign, now);
        match (before, breaker.state()) {
            (breaker::State::Closed, breaker::State::Open { until, .. }) => tracing::warn!(
                target.name = %self.target,
                last = class.map(ErrorClass::as_str),
                open_seconds = now.until(until).as_secs(),
                "too many failures{}: the breaker is open",
                breaker.found().map_or_else(String::new, |found| format!(" ({found})"))
            ),
            (breaker::State::HalfOpen { .. }, breaker::State::Open { until, failed_probes, .. }) => tracing::warn!(
                target.name = %self.target,
                last = class.map(ErrorClass::as_str),
                failed_probes,
                open_seconds = now.until(until).as_secs(),
                "a probe has failed: the breaker is open again"
            ),
            (breaker::State::HalfOpen { .. }, breaker::State::Closed) => {
                tracing::info!(target.name = %self.target, "the target answers again; its breaker is closed");
            }
            _ => {}
        }
    }

    /// A failure came with a request to wait. Its own job honours that, and all others do so for the longest rest of
    /// the breaker at most. If more was asked for, one call asks again then, and all others wait for its outcome.
    pub(super) fn asked_to_wait(&self, wait: Duration, now: Timestamp) {
        let mut breaker = self.record.breaker.lock();
        let rest = long_wait::rest(wait, self.provider.recheck).min(breaker.longest_rest());
        if rest < wait {
            tracing::warn!(
                target.name = %self.target,
                asked_seconds = wait.as_secs(),
                rest_seconds = rest.as_secs(),
                "the provider failed and asks to be left alone for long; one call asks again after a rest"
            );
            breaker.open_for(rest, now);
        }
        drop(breaker);
        shut_for(&self.record.resting, Reason::AskedToWait, rest, now);
    }

    /// What jobs of routes pass it over for.
    pub(super) fn weaknesses(&self, now: Timestamp) -> Vec<WeaknessStatistics> {
        self.record.qualities.lock().values().filter_map(|quality| quality.statistics(now)).collect()
    }

    pub(super) fn breaker_name(&self) -> &'static str {
        self.record.breaker.lock().state().name()
    }

    /// The provider and model that it stands for.
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

    /// How long an answer of this many tokens has lately taken, where that is known.
    #[must_use]
    pub fn latency(&self, output_tokens: u64) -> Option<Duration> {
        self.record.latency.lock().expected(output_tokens)
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
                tracing::info!(
                    target.name = %self.target,
                    change = ?mend,
                    "the change that the target asked for worked; all requests to it are changed from now on"
                );
                known.push(mend.clone());
            }
        }
    }

    /// Notes a long answer; returns to how many different requests it has lately given that very text, if those are too
    /// many. That is logged, one line an hour.
    pub fn note_answer(&self, question: u64, text: &str, now: Timestamp) -> Option<usize> {
        const HOUR: i64 = 3_600_000;
        let same = self.record.latest_answers.lock().note(question, text, now)?;
        let hour = now.0.div_euclid(HOUR);
        if self.record.told_of_stuck.lock().replace(hour) != Some(hour) {
            tracing::warn!(
                target.name = %self.target,
                requests = same,
                "different requests lately had the very same answer, word by word: perhaps a cache got stuck \
                 (`validate.stuck_answer` rejects such answers)"
            );
        }
        Some(same)
    }

    /// The text that it lately gives to different requests, as status shows it.
    pub(super) fn stuck(&self, now: Timestamp) -> Option<StuckStatistics> {
        let OneForAll { requests, since, .. } = self.record.latest_answers.lock().standing(now)?;
        Some(StuckStatistics { requests: u64::try_from(requests).unwrap_or(u64::MAX), since_ms: Some(since.0) })
    }

    /// Another model answered in its place: logged once for each model.
    pub fn saw_another(&self, model: &str, is_priced: bool) {
        let mut others = self.others.lock();
        if others.len() < MOST_OTHERS && others.insert(model.to_owned()) {
            let what =
                if is_priced { "it is booked at its own price" } else { "its price is unknown, and so is the cost" };
            tracing::warn!(
                target.name = %self.target,
                model.served = ?model,
                "a different model answered: {what}"
            );
        }
    }

    /// Logs a cost that is unknown, or that the provider puts at another figure: one line an hour each.
    pub fn watch_cost(&self, cost: &CostSeen, now: Timestamp) {
        const HOUR: i64 = 3_600_000;
        let hour = now.0.div_euclid(HOUR);
        let is_first = |kind: usize| {
            let mut hours = self.doubted_costs.lock();
            hours.get_mut(kind).is_some_and(|last| last.replace(hour) != Some(hour))
        };
        if cost.booked.is_none() && is_first(0) {
            tracing::warn!(
                target.name = %self.target,
                "a call has no price, so its cost is unknown; more of them are not logged in this hour (`sluice \
                 doctor`)"
            );
        }
        if let (true, Some(computed), Some(reported)) = (cost.differs, cost.computed, cost.reported)
            && is_first(1)
        {
            tracing::warn!(
                target.name = %self.target,
                cost.computed = %computed,
                cost.reported = %reported,
                "the provider says another cost than the price comes to, and that is booked; more of them are not \
                 logged in this hour (`sluice doctor`)"
            );
        }
    }

    /// Whether a refusal is believed to concern all requests, and then for how long. Words that name the model are
    /// believed of one request, unless the model has answered lately, or a person says that it works.
    pub(super) fn believe(&self, failure: Option<&Failure>, request: RequestHash, now: Timestamp) -> Option<Duration> {
        let recheck = self.provider.recheck;
        let names_the_model = failure.is_none_or(|failure| failure.bearing != Bearing::InDoubt);
        let answered_at = Timestamp(self.record.answered_at.load(Ordering::Relaxed));
        if names_the_model && answered_at + LATELY < now {
            return Some(recheck);
        }
        let mut doubt = self.doubt.lock();
        doubt.refused(request).then(|| if names_the_model { recheck } else { doubt.rest(recheck) })
    }

    /// Why a call for this request waits although others may go: it alone was refused the model.
    #[must_use]
    pub fn lets_others_first(&self, request: RequestHash, now: Timestamp) -> Option<Shut> {
        self.shut.lock().lets_others_first(request, now)
    }

    /// Lowers the number of calls at once, where it is felt for, when calls take clearly longer than usual for this
    /// target. `None`: there was no answer in time.
    pub(super) fn time(&self, hold: &BucketHold, took: Option<Took>) {
        // Spare capacity is slow without being crowded, and it may share its bucket with tiers that are not.
        if self.target.tier.is_some_and(|tier| tier.is_spare) {
            return;
        }
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

    /// Whether a call of this size leaves three quarters of what each of its buckets ever holds. Larger ones would come
    /// in fits and starts.
    #[must_use]
    pub fn has_ease(&self, charge: Charge) -> bool {
        let four = |units: u64| units.saturating_mul(4);
        let Charge { input, output, total, inputs } = charge;
        let charge = Charge { input: four(input), output: four(output), total: four(total), inputs: four(inputs) };
        self.buckets.iter().all(|bucket| bucket.size(charge).is_none())
    }

    /// Why a call can never be made: its least possible need exceeds what one of its buckets ever holds.
    fn too_large(&self, ask: &Ask) -> Option<Ineligible> {
        let signed = |tokens| i64::try_from(tokens).unwrap_or(i64::MAX);
        [
            (Unit::Tokens, Charge { total: ask.least.total, ..Charge::default() }),
            (Unit::InputTokens, Charge { input: ask.least.input, ..Charge::default() }),
            (Unit::OutputTokens, Charge { output: ask.least.output, ..Charge::default() }),
            (Unit::Inputs, Charge { inputs: ask.least.inputs, ..Charge::default() }),
        ]
        .into_iter()
        .find_map(|(unit, least)| {
            let (_, size) = self.buckets.iter().find_map(|bucket| bucket.size(least))?;
            let (needed, size) = (signed(ask.expected.units(unit)), signed(size));
            Some(Ineligible::BucketTooSmall { unit, needed, size })
        })
    }

    /// The health of this target for a call that asks for this much and would wait at most `horizon` for its turn.
    /// `fence`: that of the job's claim; jobs that were claimed later take their turn after it. `None`: the job has not
    /// been claimed.
    #[must_use]
    pub fn health(&self, ask: &Ask, fence: Option<i64>, horizon: Duration, now: Timestamp) -> RungHealth {
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
                let shut = self.buckets.iter().filter_map(|bucket| bucket.look(ask.reserved, fence, horizon, now));
                shut.max_by_key(|shut| shut.until)
            });
        match shut {
            Some(shut) => RungHealth::Shut(shut),
            None => RungHealth::Open,
        }
    }

    /// Whether this target was shut since a call got its leave: by an answer to another call, or by an operator who
    /// paused the provider, or by a health probe. None of them waits for calls that have their leave.
    #[must_use]
    pub fn shut_meanwhile(&self, permit: &Permit, now: Timestamp) -> Option<Shut> {
        // The call's key and breaker are left out: they may have let just this call pass.
        let waits = || permit.holds.iter().find_map(BucketHold::shut_meanwhile);
        let probe = || self.provider.pulse.lock().shut(now);
        self.paused(now).or_else(probe).or_else(|| self.rests(now)).or_else(waits)
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
        // A worker that starts hears of the last opening, however long ago that was.
        if self.reopened.fetch_max(at, Ordering::AcqRel) < at && Timestamp(at) + REOPENED_LATELY >= now {
            self.vouch(now);
            *self.record.resting.lock() = None;
            self.record.breaker.lock().reopen(now);
            self.record.qualities.lock().values().for_each(|quality| quality.reopen(now));
            self.provider.keys.try_again(now);
        }
    }

    /// A person, or an answer before a wait was over, says that its model works. That counts like an answer that came
    /// now: one request alone does not shut it again.
    pub(super) fn vouch(&self, now: Timestamp) {
        *self.shut.lock() = ModelRefusal::default();
        self.doubt.lock().answered();
        self.record.answered_at.store(now.0, Ordering::Relaxed);
    }

    fn paused(&self, now: Timestamp) -> Option<Shut> {
        let since = (*self.provider.paused.lock())?;
        // Only an operator lifts a pause; it is checked again within a second.
        Some(Shut { reason: Reason::Paused, since, until: now + Duration::from_secs(1) })
    }

    /// Why no call may go to it, regardless of what the call asks for; breaker and limits left out.
    fn shut_to_all(&self, now: Timestamp) -> Option<Shut> {
        self.paused(now)
            .or_else(|| still_shut(&self.provider.budget, now))
            .or_else(|| self.provider.pulse.lock().shut(now))
            .or_else(|| self.provider.keys.shut(now))
            .or_else(|| self.rests(now))
            .or_else(|| self.shut.lock().shut(now))
    }

    /// Why no call goes to it, and when one may again: what status shows. A breaker that is half open lets calls go.
    pub(super) fn shut_by(&self, now: Timestamp) -> Option<Shut> {
        self.shut_to_all(now).or_else(|| match self.record.breaker.lock().state() {
            breaker::State::Open { since, until, .. } => Some(Shut { reason: Reason::Breaker, since, until }),
            breaker::State::Closed | breaker::State::HalfOpen { .. } => None,
        })
    }

    /// Whether the target is known to take no calls for a time, regardless of what they ask for.
    fn rests(&self, now: Timestamp) -> Option<Shut> {
        self.follow_reopening(now);
        let refused = self.shut.lock().rest(now);
        refused.or_else(|| still_shut(&self.record.resting, now)).or_else(|| self.provider.offline(now))
    }

    /// What is known of the failure behind this reason: the provider's words of a model, or those of its health page;
    /// of an open breaker only the class and the status, because words about a request may quote it.
    pub(super) fn said_of(&self, reason: Reason) -> Option<String> {
        match reason {
            Reason::Model => self.said.lock().clone(),
            Reason::KeysInDoubt => self.provider.keys.said_of_doubt(),
            Reason::HealthProbe => self.provider.pulse.lock().said().map(str::to_owned),
            Reason::Breaker | Reason::AskedToWait | Reason::Offline => {
                let fault = *self.record.fault.lock();
                let last = fault.map(|(class, status)| {
                    status.map_or_else(|| class.to_string(), |status| format!("{class}, HTTP {status}"))
                });
                let is_breaker = reason == Reason::Breaker;
                let found = self.record.breaker.lock().found().filter(|_| is_breaker).map(ToString::to_string);
                let parts: Vec<String> = last.into_iter().chain(found).collect();
                (!parts.is_empty()).then(|| parts.join("; "))
            }
            _ => None,
        }
    }

    /// The jobs that wait for its places, in the bucket that has fewest left over; `own` of them are of one route, of
    /// which more are `coming`.
    #[must_use]
    pub fn line(&self, own: usize, coming: usize, now: Timestamp) -> Option<Line> {
        let lines = self.buckets.iter().filter_map(|bucket| Some((bucket, bucket.line()?)));
        let spare = |&(_, (places, waiting)): &(_, (usize, usize))| places.saturating_sub(waiting);
        let (bucket, (places, waiting)) = lines.min_by_key(spare)?;
        let (waiting, own) = (waiting.saturating_add(coming), own.saturating_add(coming));
        // How many places are free is not known before the other processes are heard.
        let is_full = places <= waiting && own > 0 && bucket.is_fresh();
        let since = if is_full { bucket.saturated_since(now) } else { now };
        Some(Line { places, waiting, own, since })
    }

    /// Lets the job with this fence sleep until a place may be free for it: in the first of its buckets that has none.
    /// Where it has a turn already, by `before`, it keeps that. `has_turn`: whether it wants to be woken.
    #[must_use]
    pub fn sleeper(&self, fence: i64, has_turn: bool, before: Option<Sleeper>) -> Option<Sleeper> {
        let bucket = self.buckets.iter().find(|bucket| bucket.is_full_for(fence))?;
        match before {
            Some(before) if before.is_in(bucket) && before.has_turn() == has_turn => Some(before),
            before => {
                drop(before);
                Some(bucket.sleeper(has_turn.then_some(fence)))
            }
        }
    }

    /// Whether the job sleeps until a place may be free here.
    #[must_use]
    pub fn has(&self, sleeper: &Sleeper) -> bool {
        self.buckets.iter().any(|bucket| sleeper.is_in(bucket))
    }

    /// How many jobs of about this size could be called within the pace, where one call is for so many of them.
    #[must_use]
    pub fn headroom(&self, typical: Charge, per_call: usize) -> usize {
        let rooms = self.buckets.iter().map(|bucket| bucket.headroom(typical, per_call, PACE / 2));
        rooms.min().unwrap_or(usize::MAX).min(self.provider.keys.headroom().saturating_mul(per_call))
    }

    /// The part of its tightest limit that is free, as [`Condition::free`](crate::domain::decide::Condition::free) has
    /// it.
    #[must_use]
    pub fn free(&self) -> i64 {
        self.buckets.iter().map(|bucket| bucket.free()).min().unwrap_or(WHOLLY_FREE)
    }
}
