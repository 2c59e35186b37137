//! One call, from the gate to the verdict.
//!
//! A call changes nothing in its journey: it reads the [`Errand`] and returns its outcome. So a journey may have
//! several calls under way ([`Calls`](super::calls::Calls)), and drop those that it no longer needs.

use super::Errand;
use super::beginning::SharedBeginning;
use super::judge::{AskedFor, Judged, Share, abandoned, judge, not_made};
use super::permit_guard::PermitGuard;
use super::prepare::LARGE;
use super::rung_state::RungState;
use crate::domain::charging::Fate;
use crate::domain::decide::Ineligible;
use crate::domain::doubt::Asker;
use crate::domain::error_class::Effect;
use crate::domain::explanation::Packed;
use crate::domain::game_day::GameDay;
use crate::domain::larger_cap::RaisedCap;
use crate::domain::pack::Company;
use crate::domain::shut::Shut;
use crate::domain::tempo::Took;
use crate::domain::validation::OwnRules;
use crate::domain::{
    Bearing, Charge, ChatRequest, ErrorClass, Failure, Job, Mend, Outcome, Rung, Sizes, SoftFailure, Target, Timestamp,
    Usage, UsageSource, language, long_wait, shadow, stuck_answer, tier, trial,
};
use crate::provider::{self, CallReport, Delivery, LimitObservation, Payload};
use crate::store::budget::NoMoney;
use crate::store::call::OpenCall;
use crate::store::claim::Lease;
use crate::store::settle::Labels;
use crate::worker::gate::{Brought, PACE, QualityLeave};
use crate::worker::hands::InHand;
use crate::worker::opener::Opened;
use crate::worker::plan::RungPlan;
use crate::worker::spool::Spool;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The outcomes of a call.
pub(super) enum Came {
    /// It was not begun: the worker is stopping, or the job is no longer in its hands.
    NotBegun,
    /// The gate has refused it.
    Refused(Shut),
    /// The rung can never take this request.
    Ineligible(Ineligible),
    /// The job was taken over or cancelled.
    ClaimLost,
    /// It cannot be recorded before it is made: the database is away, or outcomes are waiting for it.
    Away,
    /// A budget has no room for it.
    NoMoney(Box<NoMoney>),
    /// Its pack was not sent; the job is asked in this company.
    Parted(Company),
    /// In a box: it is handed on several times, and is a kilobyte.
    Made(Box<Made>),
}

/// A call that was made.
pub(super) struct Made {
    /// Its ordinal within the job.
    pub(super) number: i16,
    pub(super) target: Target,
    /// The place of that rung in the route along which it was called.
    pub(super) rung: usize,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) judged: Judged,
    /// When the provider wants to be asked again, at the earliest.
    pub(super) retry_at: Option<Timestamp>,
    /// When one call asks again before `retry_at`, because that instant is too far away to be believed.
    pub(super) asks_again_at: Option<Timestamp>,
    /// The name of its key, where that is informative.
    pub(super) key: Option<String>,
    /// Why the rung can never take this request, if the call has shown that.
    pub(super) ineligible: Option<Ineligible>,
    /// The change in the request that makes another call to the same rung worthwhile.
    pub(super) mend: Option<Mend>,
    /// The number of the attempt whose rejected answer it named.
    pub(super) reask_of: Option<i16>,
    /// The output cap that it had in place of the one that cut an answer.
    pub(super) raised: Option<RaisedCap>,
    /// What the route added to its request.
    pub(super) added: Vec<String>,
    /// How long its job has waited for another one's call with the same beginning.
    pub(super) waited_ms: Option<u64>,
    /// The pack whose call it was, if it was not the job's alone.
    pub(super) packed: Option<Packed>,
    /// The company in which the job is asked again, if its failure is none of the job's own.
    pub(super) company: Option<Company>,
}

/// A call that the gate has let through.
pub(super) struct Sending<'a> {
    pub(super) guard: PermitGuard<'a>,
    /// By which its target is called although it may answer badly; `None`: what it brings counts for nothing there.
    pub(super) leave: Option<QualityLeave>,
    /// What it took of the limits.
    pub(super) charge: Charge,
    pub(super) sizes: Sizes,
    pub(super) started_at: Timestamp,
    /// Several jobs share it.
    pub(super) is_shared: bool,
}

/// The calls of a job that have come back and that no decision to call has taken into account yet, by number.
pub(super) type CameBack = Arc<Mutex<Vec<i16>>>;

/// The reservation for a call that was opened; dropped before the call begins, it is given back.
pub(super) struct Reserved<'a> {
    call: &'a Call,
    pub(super) is_held: bool,
}

/// Ends the permit of a call whose outcome says nothing of key and target.
fn say_nothing(mut guard: PermitGuard<'_>, rung: &RungPlan, sizes: &Sizes, judged: &Judged) {
    let fate = Fate::of(&judged.outcome);
    guard.begin(rung.charging.settle(sizes, judged.counted_usage.as_ref(), fate));
    drop(guard);
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if self.is_held {
            self.call.errand.shared.opener.not_made(self.call.lease, self.call.number);
        }
    }
}

/// A call to be made.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) errand: Arc<Errand>,
    /// The place of its rung in the route.
    pub(super) index: usize,
    pub(super) state: RungState,
    /// What it does about the prompt cache of its target.
    pub(super) shares: SharedBeginning,
    /// The claim under which it is made.
    pub(super) lease: Lease,
    /// The labels of its job.
    pub(super) labels: Arc<Labels>,
    /// Its ordinal within the job.
    pub(super) number: i16,
    /// Another call of the job is under way.
    pub(super) is_beside: bool,
    /// The target answers badly, and is called for want of a better one.
    pub(super) regardless: bool,
    /// The job goes on to another rung if this one is not sure enough of its answer.
    pub(super) climbs: bool,
    /// The jobs with which it may share the call.
    pub(super) company: Company,
    /// Tells it that another call has brought the answer; `None`: there is no other.
    pub(super) no_longer_needed: Option<CancellationToken>,
    /// Whether another call of the job was answered meanwhile.
    pub(super) came_back: CameBack,
}

impl Call {
    /// The request that is sent.
    pub(super) fn request(&self) -> &Arc<ChatRequest> {
        let asked =
            || self.state.again.as_ref().map_or_else(|| self.errand.request_of(self.index), |again| &again.request);
        self.shares.request.as_ref().unwrap_or_else(asked)
    }

    /// The job, as large as the request is that is sent.
    pub(super) fn job(&self) -> &Job {
        self.state.again.as_ref().map_or(&self.errand.job, |again| &again.job)
    }

    /// Makes the call, with those of other jobs where it may.
    pub(super) async fn make(&self, in_hand: &InHand) -> Came {
        match self.joins() {
            // Few calls are, and the others need no room for that.
            Some(joins) => Box::pin(self.make_in_company(joins, in_hand)).await,
            None => self.make_alone(in_hand).await,
        }
    }

    async fn make_alone(&self, in_hand: &InHand) -> Came {
        let Errand { shared, plan, .. } = &*self.errand;
        let Some((spec, rung)) = plan.rung(self.index) else { return Came::NotBegun };
        let sizes = rung.sizes(self.job().input_tokens, self.job().max_output_tokens, self.request().inputs());
        let charge = rung.charging.reserve(&sizes);
        let now_planned = shared.plan();
        let gate = &now_planned.gate;
        let in_line = rung.line.join();
        // Nearly always there is room at once. Then nothing else is asked, and nobody has to be told that it is not.
        let admitted = tokio::select! {
            biased;
            () = self.not_needed() => return Came::NotBegun,
            admitted = gate.admit(&rung.target, charge, 2 * PACE, shared.clock.now()) => admitted,
            () = shared.stop.cancelled() => return Came::NotBegun,
            () = in_hand.recalled.cancelled() => return Came::NotBegun,
            () = in_hand.lost.cancelled() => return Came::NotBegun,
        };
        drop(in_line);
        let guard = match admitted {
            Ok(permit) => PermitGuard::new(gate, &rung.target, &shared.clock, permit),
            Err(shut) => return Came::Refused(shut),
        };
        // Another job may be finding out meanwhile whether the target answers better.
        let Some(leave) = rung.quality.admit(self.regardless, shared.clock.now()) else {
            guard.give_back();
            return Came::NotBegun;
        };
        // The place may be the very one that another call of the job has just left: whether this one is still needed is
        // to be decided with that one's outcome.
        if !self.came_back.lock().is_empty() {
            guard.give_back();
            return Came::NotBegun;
        }
        let opened = tokio::select! {
            biased;
            () = self.not_needed() => return Came::NotBegun,
            opened = self.open(spec) => opened,
        };
        let mut reserved = match self.reserved(opened) {
            Ok(reserved) => reserved,
            Err(came) => return came,
        };
        // Recording a call takes the database a moment, or longer. A provider may have asked for a wait meanwhile.
        let started_at = shared.clock.now();
        if let Some(shut) = rung.target.shut_meanwhile(guard.permit(), started_at) {
            return Came::Refused(shut);
        }
        let was_reserved = std::mem::take(&mut reserved.is_held);
        let given_up = async {
            tokio::select! {
                () = shared.abort.cancelled() => {}
                () = in_hand.recalled.cancelled() => {}
                () = self.not_needed() => {}
            }
            if in_hand.recalled.is_cancelled() {
                "the job was cancelled, or answered by another worker"
            } else if self.no_longer_needed.as_ref().is_some_and(CancellationToken::is_cancelled) {
                "another rung answered first"
            } else {
                "the worker was stopped"
            }
        };
        let sending = Sending { guard, leave: Some(leave), charge, sizes, started_at, is_shared: false };
        match self.send(sending, given_up).await {
            Ok(made) => Came::Made(Box::new(made)),
            Err(why) => {
                reserved.is_held = was_reserved;
                Came::Ineligible(why)
            }
        }
    }

    /// The reservation for a call that was opened, or why it is not made.
    pub(super) fn reserved(&self, opened: Opened) -> Result<Reserved<'_>, Came> {
        match opened {
            Opened::Yes { is_reserved } => Ok(Reserved { call: self, is_held: is_reserved }),
            Opened::Lost => Err(Came::ClaimLost),
            Opened::Away => Err(Came::Away),
            Opened::NoMoney(why) => Err(Came::NoMoney(why)),
        }
    }

    /// Sends a call that the gate has let through and that was noted, judges its outcome and lets the gate learn from
    /// it. `given_up` ends it before that, with the reason in words.
    ///
    /// # Errors
    /// The rung can never take this request. Nothing was sent.
    pub(super) async fn send(
        &self,
        sending: Sending<'_>,
        given_up: impl Future<Output = &'static str>,
    ) -> Result<Made, Ineligible> {
        let Errand { shared, plan, request, .. } = &*self.errand;
        let Sending { mut guard, leave, charge, sizes, started_at, is_shared } = sending;
        let (spec, rung) = plan.rung(self.index).expect("the gate let a call to this rung of this route through");
        let key = guard.permit().key();
        let head = OnceLock::new();
        let mut mends = rung.target.mends();
        mends.extend_from_slice(self.state.mends());
        let asked = self.asked(spec, &mends);
        guard.begin(charge);
        let on_purpose = self.on_purpose(&spec.target, started_at);
        let call = async {
            match &on_purpose {
                Some((_, failure)) => Ok(not_made(failure.clone())),
                None => rung.provider.call(key, &asked, &spec.timeouts, &head).await,
            }
        };
        // An answer that is there is paid for, so it is taken.
        let report = tokio::select! {
            biased;
            report = call => Ok(report),
            why = given_up => Err(why),
        };
        let ended_at = shared.clock.now();
        let (report, guard) = match report {
            Ok(Ok(report)) => (report, Some(guard)),
            Ok(Err(ineligible)) => {
                guard.give_back();
                return Err(ineligible);
            }
            Err(why) => {
                drop(guard);
                (abandoned(started_at, ended_at, head.into_inner(), why), None)
            }
        };
        let (mut judged, limits) = self.judge(report, None, started_at).await;
        self.look_for_stuck(rung, &mut judged, ended_at);
        if let Some(other) = &judged.other_model {
            rung.target.saw_another(other, judged.cost.is_some());
        }
        judged.cost_differs = shared.settings().tolerance.is_exceeded(judged.computed_cost, judged.reported_cost);
        rung.target.watch_cost(&judged.cost_seen(), ended_at);
        let again = self.state.again.as_ref();
        let (reask_of, raised) = (again.and_then(|again| again.of), again.and_then(|again| again.raised));
        // A refusal of the changed request says nothing about the request as it was inserted.
        let ineligible = judged.tell_apart(rung.charging, &sizes).filter(|_| again.is_none());
        // A server's complaint about the conversation is believed if the conversation bears it out.
        if let Some(failure) = &mut judged.failure
            && failure.bearing == Bearing::EveryTarget
            && request.calls_have_their_results()
        {
            failure.bearing = Bearing::AsScoped;
        }
        self.tell_the_others(judged.answer.is_some(), started_at);
        if let Some(guard) = guard {
            // Before its places are free.
            self.came_back.lock().push(self.number);
            if let Some((day, _)) = &on_purpose {
                // It was not made: no worker learns from it what would outlast the game day.
                guard.report(|gate, target, permit| gate.rehearse(target, permit, day, self.job().id, ended_at));
            } else if is_shared && judged.failure.as_ref().is_some_and(|failure| failure.bearing == Bearing::InDoubt) {
                // Whether it is believed is a matter of two requests, and these were not told apart.
                say_nothing(guard, rung, &sizes, &judged);
            } else {
                self.teach(guard, rung, &sizes, &mut judged, &limits, ended_at);
            }
            if judged.answer.is_some() {
                rung.target.learn_mends(&mends);
            }
        }
        if let Some(leave) = leave {
            leave.report(&self.brought(&judged), ended_at);
        }
        let mend = self.mend(rung, spec, judged.failure.as_ref(), &mends).filter(|_| reask_of.is_none());
        // When a key has money again is for the gate to find out, not for this job to wait for: another key may work.
        let is_refused = judged.outcome.class().is_some_and(|class| class.facts().key.is_some());
        let wait = judged.failure.as_ref().filter(|_| !is_refused).and_then(|failure| failure.wait);
        Ok(Made {
            number: self.number,
            target: spec.target.clone(),
            rung: self.index,
            started_at,
            ended_at,
            judged,
            retry_at: wait.map(|wait| ended_at + wait),
            asks_again_at: wait
                .filter(|wait| long_wait::is_long(*wait))
                .map(|wait| ended_at + long_wait::rest(wait, rung.target.recheck())),
            key: rung.key_worth_telling(key, is_refused).map(str::to_owned),
            ineligible,
            mend,
            reask_of,
            raised,
            added: self.shares.added.clone(),
            waited_ms: self.shares.waited_ms,
            packed: None,
            company: None,
        })
    }

    /// Rejects an answer that the target has lately given to several other requests, word by word, where the route or
    /// the request says so; otherwise the log, the attempt and an alert tell of it.
    fn look_for_stuck(&self, rung: &RungPlan, judged: &mut Judged, now: Timestamp) {
        let Errand { plan, .. } = &*self.errand;
        let request = self.request();
        let rejects = OwnRules::rejects_stuck(request.validate.as_deref(), &plan.route.rules);
        let text = judged.answer.as_ref().and_then(|answer| answer.text.as_deref()).unwrap_or_default();
        let is_long = text.len() < LARGE && text.chars().count() >= stuck_answer::LEAST_CHARACTERS;
        if judged.outcome != Outcome::Accepted || !is_long {
            return;
        }
        // JSON of many members may say nothing in all of them: its words count.
        let is_json = text.trim_start().starts_with(['{', '[']);
        let parsed = if is_json { serde_json::from_str(text).ok() } else { None };
        if parsed.is_some_and(|value| language::prose_of_json(&value).chars().count() < stuck_answer::LEAST_CHARACTERS)
        {
            return;
        }
        let Some(same) = rung.target.note_answer(stuck_answer::question(request), text, now) else { return };
        let words = format!("{same} different requests lately had this very answer");
        if rejects {
            judged.reject(SoftFailure::StuckAnswer, words);
        } else {
            judged.notes.push(format!("{words}: perhaps a cache of the provider got stuck"));
        }
    }

    /// The failure that a game day gives this call in place of making it. Shadows and trials are spared: what they
    /// measure is the target itself.
    pub(super) fn on_purpose(&self, target: &Target, now: Timestamp) -> Option<(GameDay, Failure)> {
        let route = &self.errand.plan.route.name;
        if shadow::shadowed(route).is_some() || trial::tried(route).is_some() {
            return None;
        }
        let settings = self.errand.shared.settings.load();
        let mut days = settings.game_days.iter();
        days.find_map(|day| day.fault(target, self.job().id, self.number, now).map(|failure| (day.clone(), failure)))
    }

    /// Waits until another call has brought the answer.
    async fn not_needed(&self) {
        match &self.no_longer_needed {
            Some(no_longer_needed) => no_longer_needed.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Records the coming call in the database, so that it can be named should this process die.
    pub(super) async fn open(&self, spec: &Rung) -> Opened {
        let (shared, job) = (&self.errand.shared, self.job());
        // The worker may have been declared dead, so other workers may have this job. While outcomes wait in the spool,
        // some may be this job's: a worker that takes over on another machine would know of only one call, the one
        // recorded here. And no answer may arrive that has no place to wait in.
        let spool = shared.settler.spool();
        let may_wait_there = |spool: &Arc<Spool>| spool.may_hold(self.lease.fence) || spool.fill().is_full;
        if !shared.lease_is_fresh() || spool.is_some_and(may_wait_there) {
            return Opened::Away;
        }
        let started_at = shared.clock.now();
        let call = OpenCall {
            lease: self.lease,
            number: self.number,
            target: spec.target.clone(),
            rung: i16::try_from(self.index).unwrap_or(i16::MAX),
            started_at,
            worst: spec.worst_cost(job, started_at),
            labels: Arc::clone(&self.labels),
        };
        let opened = shared.opener.open(call, self.is_beside).await;
        match opened {
            // A process that was suspended meanwhile may have lost its lease behind the answer.
            Opened::Yes { is_reserved } if !shared.lease_is_fresh() => {
                drop(Reserved { call: self, is_held: is_reserved });
                Opened::Away
            }
            opened => opened,
        }
    }

    /// The verdict on the outcome of a call that was made at this instant, and what it tells of the provider's limits.
    /// Checking an answer against a schema, or compiling the patterns of a request, may take long; no other job waits
    /// for that. `share`: what it has of a call that was not its own alone.
    pub(super) async fn judge(
        &self,
        mut report: CallReport,
        share: Option<Share>,
        at: Timestamp,
    ) -> (Judged, Vec<LimitObservation>) {
        let Errand { shared, plan, request, held_back, schema, .. } = &*self.errand;
        let (climbs, asks_for_logprobs) = (self.climbs, self.errand.asks_for_logprobs(self.index));
        let limits = std::mem::take(&mut report.limits);
        if let (Err(failure), Some((spec, _))) = (&mut report.result, plan.rung(self.index)) {
            tier::heed(spec.target.tier, failure);
        }
        report.dropped.extend(held_back.iter().cloned());
        let is_checked = schema.is_some()
            || plan.route.rules.json_schema.is_some()
            || request.validate.as_ref().is_some_and(|own| own.has_patterns());
        // What the job asks is judged, and not what was said of an earlier answer; within the cap that was sent.
        let raised = self.state.again.as_ref().and_then(|again| again.raised);
        let request = raised.map_or_else(
            || Arc::clone(request),
            |raised| Arc::new(ChatRequest { max_tokens: Some(raised.to), ..(**request).clone() }),
        );
        let (job, schema) = (self.job().clone(), schema.clone());
        let (route, index) = (Arc::clone(&plan.route), self.index);
        let judging = move || {
            let schema = schema.as_deref().map(|schema| &**schema);
            let share = share.as_ref();
            let asked = AskedFor { job: &job, request: &request, schema, climbs, asks_for_logprobs, share };
            let spec = route.rungs.get(index).expect("the call was made to this rung of this route");
            judge(&route, &asked, spec, report, at)
        };
        let judged = if is_checked { shared.schemas.aside(judging).await } else { judging() };
        (judged, limits)
    }

    /// Tells the gate what the call has shown of limits, health and key.
    fn teach(
        &self,
        guard: PermitGuard<'_>,
        rung: &RungPlan,
        sizes: &Sizes,
        judged: &mut Judged,
        limits: &[LimitObservation],
        ended_at: Timestamp,
    ) {
        let job = self.job();
        let asker = Asker { job: job.id, request: self.errand.hash };
        let usage = judged.counted_usage;
        let is_reported = |usage: &Usage| judged.answer.is_some() && usage.source == UsageSource::Provider;
        if let Some(usage) = usage.filter(is_reported) {
            rung.target.learn(job.input_tokens, job.max_output_tokens, &usage);
        }
        let settled = rung.charging.settle(sizes, usage.as_ref(), Fate::of(&judged.outcome));
        let took = Took {
            time: Duration::from_millis(u64::try_from(judged.total_ms).unwrap_or(0)),
            output_tokens: judged.usage.output,
        };
        let (outcome, failure) = (&judged.outcome, judged.failure.as_ref());
        let is_believed = guard.report(|gate, target, permit| {
            gate.report(target, permit, outcome, failure, settled, took, limits, asker, ended_at)
        });
        // Once it is believed of key or target, waiting is the business of the gate: this job has no doubt left.
        if let Some(failure) = judged.failure.as_mut() {
            if is_believed {
                failure.bearing = Bearing::AsScoped;
            } else if failure.class.facts().effect == Effect::NoModel && failure.bearing == Bearing::AsScoped {
                // A model that answers others is there: no gate is shut that the job could wait for.
                failure.bearing = Bearing::InDoubt;
            }
        }
    }

    /// What the call has brought, as far as the quality of answers is concerned.
    pub(super) fn brought<'a>(&'a self, judged: &'a Judged) -> Brought<'a> {
        let is_abandoned = judged.outcome == Outcome::Failed(ErrorClass::Abandoned);
        let was_to_stream = || self.errand.plan.rung(self.index).is_some_and(|(spec, _)| self.streams(spec));
        let is_streamed = judged.streamed.is_some() || (is_abandoned && was_to_stream());
        let until_it_began = judged.first_byte_ms.filter(|_| is_streamed);
        let took = u64::try_from(until_it_began.unwrap_or(judged.total_ms)).unwrap_or(0);
        Brought {
            job: self.job().id,
            project: &self.labels.project,
            outcome: &judged.outcome,
            took: Some(Duration::from_millis(took)),
            output_tokens: judged.usage.output,
        }
    }

    fn streams(&self, spec: &Rung) -> bool {
        spec.stream && self.request().embed.is_none()
    }

    /// The call as the provider's client takes it.
    fn asked<'a>(&'a self, spec: &'a Rung, mends: &'a [Mend]) -> provider::Call<'a> {
        provider::Call {
            payload: Payload::from(&**self.request()),
            model: &spec.target.model,
            tier: spec.target.tier,
            capabilities: &spec.model.capabilities,
            mends,
            must_keep: &self.errand.plan.route.must_keep,
            delivery: if self.streams(spec) { Delivery::Stream } else { Delivery::Whole },
        }
    }

    /// The change that a refusal asks for, if the same rung is worth another call with it. It is not if the change
    /// would make no difference to the sent request.
    fn mend(&self, rung: &RungPlan, spec: &Rung, failure: Option<&Failure>, made: &[Mend]) -> Option<Mend> {
        let mend = failure.and_then(|failure| failure.mend.as_deref()).filter(|_| self.state.takes_a_mend())?;
        // When a server asks for the opposite of what it asked for before, it is not followed.
        let takes_back = |earlier: &Mend| match (earlier, mend) {
            (Mend::Rename { from, to }, Mend::Rename { from: back_from, to: back_to }) => {
                from == back_to && to == back_from
            }
            _ => false,
        };
        let is_worth_it = !made.iter().any(takes_back) && rung.provider.changes(&self.asked(spec, made), mend);
        is_worth_it.then(|| mend.clone())
    }
}
