//! One job's journey through this process: decide, pass the gate, call, judge, settle.

use super::explanation::{explain_skip, what_is_waited_for};
use super::gate::PACE;
use super::held_job::HeldJob;
use super::judge::{AskedFor, Judged, abandoned, judge};
use super::opener::Opened;
use super::plan::{RoutePlan, RungPlan};
use super::schemas::{InUse, NoSchema};
use super::settler::{Item, Then};
use super::{Hold, Shared};
use crate::domain::charging::{self, Fate};
use crate::domain::decide::{Condition, Ending, Ineligible, RungHealth, Skip, Step, decide};
use crate::domain::doubt::RequestHash;
use crate::domain::price::Price;
use crate::domain::request::{RequestError, unfit_schema};
use crate::domain::shut::Shut;
use crate::domain::strategy::{self, View};
use crate::domain::tempo::Took;
use crate::domain::{
    Attempt, Bearing, ChatRequest, ErrorClass, Failure, Job, Mend, NanoUsd, Outcome, Patience, Scope, Sizes,
    SoftFailure, Target, Timestamp, Usage, UsageSource, eligibility, estimate, long_wait,
};
use crate::provider::CallReport;
use crate::store::call::OpenCall;
use crate::store::claim::{Claimed, NoRequest, PastAttempt};
use crate::store::settle::{AttemptRow, EndingRow, ParkRow};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A job that has to wait longer than this goes back to the database, so that it holds no place here.
const HOLD: Duration = Duration::from_secs(2);

/// A request of more bytes is read where it holds up nothing else.
const LARGE: usize = 256 << 10;

/// A rung is asked again so often with a changed request.
const MOST_MENDS: usize = 3;

/// How long a job is parked at a gate that somebody may open at any time.
const GATE_REST: Duration = Duration::from_secs(10);

/// What a claimed job brings along, parsed.
struct Journey {
    shared: Arc<Shared>,
    plan: Arc<RoutePlan>,
    claimed: HeldJob,
    /// As it was inserted.
    whole: Arc<ChatRequest>,
    /// As the route lets it pass.
    request: Arc<ChatRequest>,
    /// What it does not let pass.
    held_back: Vec<String>,
    schema: Option<Arc<InUse>>,
    job: Job,
    order: Vec<usize>,
    history: Vec<Attempt>,
    /// All calls in all rounds, and what they cost.
    calls: i16,
    spent: Option<NanoUsd>,
    uncertain: NanoUsd,
    /// Rungs that turned out to be unable to take this request.
    ineligible: Vec<Option<Ineligible>>,
    /// Rungs whose gate just said no: believed until then.
    refused: Vec<Option<Shut>>,
    /// What the refusals of each rung have asked to be changed in the request.
    mends: Vec<Vec<Mend>>,
    hash: RequestHash,
    /// Since when it has waited here for a limit, without a call.
    waits_since: Option<Timestamp>,
    /// An attempt that is over and not yet handed to the settler.
    unsettled: Option<Box<AttemptRow>>,
    last: Option<Made>,
}

/// The last call, as the ending needs it.
struct Made {
    target: Target,
    rung: usize,
    usage: Usage,
    request_id: Option<String>,
    /// Of an accepted answer: the completion, and whether it was repaired.
    accepted: Option<(String, bool)>,
}

/// Runs one claimed job until it ends or goes back. Never panics on a job's data.
pub(super) async fn run_job(shared: Arc<Shared>, claimed: Claimed, past: Vec<PastAttempt>, hold: Hold) {
    let facts = HeldJob::of(&claimed);
    let Some(plan) = shared.plan().routes.get(&facts.labels.route).cloned() else {
        // The claimer takes only routes it knows; a reload may have removed one since.
        return facts.give_back(&shared, "unknown route").await;
    };
    let body = match &claimed.request {
        Ok(body) => body,
        Err(NoRequest::Unreadable(reason)) => return facts.refuse(&shared, format!("request {reason}")).await,
        Err(NoRequest::NoRoom) => return facts.give_back(&shared, "no room in memory").await,
    };
    let hash = hash_of(body);
    let read = if body.len() > LARGE {
        let body = body.clone();
        shared.schemas.aside(move || ChatRequest::read_text(&body)).await
    } else {
        ChatRequest::read_text(body)
    };
    let request = match read {
        Ok(request) => request,
        Err(error) => return facts.refuse(&shared, in_request(&error)).await,
    };
    let schema = match request.schema() {
        None => None,
        Some(schema) => match shared.schemas.compile(schema).await {
            Ok(schema) => Some(Arc::new(schema)),
            Err(NoSchema::Unfit(reason)) => return facts.refuse(&shared, in_request(&unfit_schema(&reason))).await,
            Err(NoSchema::NoRoom) => return facts.give_back(&shared, "no room in memory").await,
        },
    };
    let request = Arc::new(request);
    let job = Job {
        id: claimed.lease.job,
        ready_at: claimed.ready_at,
        deadline: claimed.deadline,
        max_attempts: claimed.max_attempts.and_then(|most| u16::try_from(most).ok()),
        input_tokens: estimate::input_tokens(&request),
        max_output_tokens: request.max_tokens,
    };
    plan.see(job.input_tokens, job.max_output_tokens);
    let rungs = plan.rungs.len();
    let spent =
        past.iter().map(|attempt| attempt.cost_nanos).try_fold(0_i64, |sum, cost| Some(sum.saturating_add(cost?)));
    let uncertain = past.iter().fold(0_i64, |sum, attempt| sum.saturating_add(attempt.uncertain_nanos));
    let mut journey = Journey {
        history: past.iter().filter(|attempt| attempt.current_round).map(|attempt| recall(&plan, attempt)).collect(),
        calls: claimed.attempts.max(i16::try_from(past.len()).unwrap_or(i16::MAX)),
        spent: spent.map(NanoUsd),
        uncertain: NanoUsd(uncertain),
        ineligible: vec![None; rungs],
        refused: vec![None; rungs],
        mends: vec![Vec::new(); rungs],
        hash,
        waits_since: None,
        unsettled: None,
        last: None,
        shared,
        plan,
        claimed: facts,
        whole: Arc::clone(&request),
        request,
        held_back: Vec::new(),
        schema,
        job,
        order: Vec::new(),
    };
    // It has been read: in memory once is enough.
    drop(claimed);
    journey.hold_back();
    journey.run(&hold).await;
}

/// A fault of a request, with the place in the row where it is.
fn in_request(error: &RequestError) -> String {
    if error.field == "request" { error.to_string() } else { format!("request.{error}") }
}

/// A ledger row as history.
fn recall(plan: &RoutePlan, past: &PastAttempt) -> Attempt {
    let rung = plan
        .route
        .rungs
        .iter()
        .position(|rung| rung.target.provider == past.provider && rung.target.model == past.model);
    let outcome = match (past.accepted, past.class) {
        (true, _) => Outcome::Accepted,
        (false, Some(ErrorClass::SoftFailure)) => {
            Outcome::Rejected(past.detail.as_deref().and_then(SoftFailure::parse).unwrap_or(SoftFailure::Empty))
        }
        (false, Some(class)) => Outcome::Failed(class),
        // A class that a newer version wrote.
        (false, None) => Outcome::Failed(ErrorClass::ServerError),
    };
    // What a soft failure says is ours and stands for itself.
    let words = past.message.as_deref().filter(|_| matches!(outcome, Outcome::Failed(_))).map(Box::from);
    // Whether a provider had spoken its last word is not kept: after a park it is asked once more.
    // Written by an earlier version, perhaps, which believed any wait to its end.
    let recheck = rung.and_then(|index| plan.rungs.get(index)).map_or(long_wait::RECHECK, |rung| rung.target.recheck());
    let retry_at = past.retry_at.map(|at| past.ended_at + long_wait::rest(past.ended_at.until(at), recheck));
    Attempt { retry_at, words, ..Attempt::new(rung, outcome, past.ended_at) }
}

/// Tells requests apart.
fn hash_of(request: &str) -> RequestHash {
    let mut hasher = DefaultHasher::new();
    request.hash(&mut hasher);
    hasher.finish()
}

impl Journey {
    async fn run(&mut self, hold: &Hold) {
        loop {
            if hold.recalled.is_cancelled() {
                // Cancelled or answered elsewhere: the row is not ours any more, only the money is booked.
                return self.settle(Then::GoOn).await;
            }
            if !self.follow_plan() {
                return self.park(None, "unknown route").await;
            }
            let now = self.shared.clock.now();
            let conditions = self.look(now);
            match decide(&self.job, &self.plan.route, &self.order, &self.history, &conditions, now) {
                // A good answer is used also when the job may be another's by now: it is paid for.
                Step::Finish(ending @ Ending::Succeeded) => return self.finish(ending, now).await,
                _ if hold.lost.is_cancelled() => return self.settle(Then::GoOn).await,
                Step::Finish(ending) => return self.finish(ending, now).await,
                _ if self.shared.stop.is_cancelled() => return self.park(None, "worker stopped").await,
                Step::Wait { until, rung, why } => {
                    self.waits_since = is_a_limit(&why).then(|| self.waits_since.unwrap_or(now));
                    // A short wait after a short wait is a long one, when it is for what all wait for.
                    if now.until(until) > HOLD || self.waits_since.is_some_and(|since| since.until(now) > HOLD) {
                        // What is shut for all is the gate's to know, and the gate of another process, or of this one
                        // after a restart with a better key, may know better: the row only rests a moment, and the
                        // claimer leaves it alone from then on.
                        let rest = if is_for_the_gate_to_know(&why) { until.min(now + GATE_REST) } else { until };
                        // While nothing of this route is claimed, a job that waits for the same limit as all waits with
                        // the others: it is not touched again before there is room for it.
                        // One that was told itself how long to wait is parked exactly that long.
                        let was_told = self.history.iter().any(|attempt| attempt.retry_at.is_some_and(|at| at > now));
                        let waits_like_all =
                            is_a_limit(&why) && !was_told && self.plan.startable(self.job.deadline, now).jobs() == 0;
                        let rest = if waits_like_all { None } else { Some(rest) };
                        return self.park(rest, &self.waits_for(rung, &why)).await;
                    }
                    self.settle_attempt().await;
                    tokio::select! {
                        () = tokio::time::sleep_until(self.shared.clock.instant(until)) => {}
                        () = self.shared.stop.cancelled() => {}
                        () = hold.recalled.cancelled() => {}
                        () = hold.lost.cancelled() => {}
                    }
                }
                Step::Call { rung, skipped } => {
                    self.settle_attempt().await;
                    let plan = Arc::clone(&self.plan);
                    if let Some(planned) = plan.rungs.get(rung) {
                        self.call(rung, planned, &skipped, hold).await;
                    }
                }
            }
        }
    }

    /// Goes over to the route as it is configured now. Returns false when there is none of its name any more.
    fn follow_plan(&mut self) -> bool {
        // Whoever has its answer is done, whatever became of its route.
        if self.history.last().is_some_and(|attempt| attempt.outcome == Outcome::Accepted) {
            return true;
        }
        let plan = self.shared.plan();
        let Some(route) = plan.routes.get(&self.claimed.labels.route) else { return false };
        if Arc::ptr_eq(route, &self.plan) {
            return true;
        }
        // What a rung was called for counts for it wherever it stands now.
        let place = |index: usize| {
            let target = &self.plan.route.rungs.get(index)?.target;
            route.route.rungs.iter().position(|rung| rung.target == *target)
        };
        for attempt in &mut self.history {
            attempt.rung = attempt.rung.and_then(place);
        }
        if let Some(made) = &mut self.last {
            made.rung = place(made.rung).unwrap_or(made.rung);
        }
        self.ineligible = vec![None; route.rungs.len()];
        self.refused = vec![None; route.rungs.len()];
        self.mends = vec![Vec::new(); route.rungs.len()];
        self.plan = Arc::clone(route);
        self.hold_back();
        true
    }

    /// Leaves out what the route does not let pass: what chooses another model, tier, tool or count.
    fn hold_back(&mut self) {
        let pass = &self.plan.route.pass;
        let left = self.whole.without_held_back(pass);
        self.held_back = self.whole.held_back(pass);
        self.request = match left {
            Some(Ok(left)) => Arc::new(left),
            None => Arc::clone(&self.whole),
            Some(Err(error)) => {
                // It cannot do without: it is not sent at all.
                let what = format!("the request without what the route's `pass` does not name ({error})");
                self.ineligible = vec![Some(Ineligible::Unsupported(what)); self.plan.rungs.len()];
                Arc::clone(&self.whole)
            }
        };
    }

    /// What was asked for before a provider was opened by hand is asked for no more.
    fn follow_reopenings(&mut self) {
        for attempt in self.history.iter_mut().filter(|attempt| attempt.retry_at.is_some()) {
            let rung = attempt.rung.and_then(|index| self.plan.rungs.get(index));
            if rung.and_then(|rung| rung.target.reopened_at()).is_some_and(|at| at > attempt.ended_at) {
                attempt.retry_at = None;
            }
        }
    }

    /// What one call to a rung is expected to need.
    fn sizes(&self, rung: &RungPlan) -> Sizes {
        rung.sizes(self.job.input_tokens, self.job.max_output_tokens)
    }

    /// How the rungs stand now, and so in which order they are to be tried.
    fn look(&mut self, now: Timestamp) -> Vec<Condition> {
        // A job that never waits for a cheaper rung does not queue for it either, …
        let pace = match self.plan.route.patience {
            Patience::For(patience) => patience.min(PACE),
            Patience::Forever => PACE,
        };
        self.follow_reopenings();
        let mut conditions = Vec::with_capacity(self.plan.rungs.len());
        conditions.extend((0..self.plan.rungs.len()).filter_map(|index| self.condition(index, pace, now)));
        let view = View::of_job(&self.job, self.spent, &conditions);
        strategy::order(&self.plan.route, &view, &mut self.order);
        // … unless there is nothing after it.
        if pace < PACE
            && let Some(&last) = self.order.last()
            && let (Some(slot), Some(condition)) = (conditions.get_mut(last), self.condition(last, PACE, now))
        {
            *slot = condition;
        }
        conditions
    }

    /// How one rung stands for this job, which would wait at most `horizon` for its turn.
    fn condition(&self, index: usize, horizon: Duration, now: Timestamp) -> Option<Condition> {
        let (rung, planned) = (self.plan.route.rungs.get(index)?, self.plan.rungs.get(index)?);
        if let Some(ineligible) = self.ineligible.get(index).cloned().flatten() {
            return Some(RungHealth::Ineligible(ineligible).into());
        }
        let sizes = self.sizes(planned);
        if let Some(ineligible) = eligibility::ineligible(&rung.model.capabilities, &sizes, &self.request) {
            return Some(RungHealth::Ineligible(ineligible).into());
        }
        match self.refused.get(index).copied().flatten() {
            Some(shut) if shut.until > now => Some(RungHealth::Shut(shut).into()),
            _ => Some(planned.condition(&sizes, horizon, self.plan.route.strategy.weighs_headroom(), now)),
        }
    }

    /// One call, from the gate to the verdict; what came of it is appended to the history.
    async fn call(&mut self, index: usize, rung: &RungPlan, skipped: &[(usize, Skip)], hold: &Hold) {
        let shared = Arc::clone(&self.shared);
        let plan = shared.plan();
        let sizes = self.sizes(rung);
        let reserved = rung.charging.reserve(&sizes);
        let permit = tokio::select! {
            permit = plan.gate.admit(&rung.target, reserved, 2 * PACE, shared.clock.now()) => permit,
            () = shared.stop.cancelled() => return,
            () = hold.recalled.cancelled() => return,
            () = hold.lost.cancelled() => return,
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(shut) => {
                if let Some(slot) = self.refused.get_mut(index) {
                    *slot = Some(shut);
                }
                return;
            }
        };
        let Some(spec) = self.plan.route.rungs.get(index).cloned().map(Arc::new) else { return };
        let opened = self.open(index, &spec).await;
        if opened != Opened::Yes {
            plan.gate.abandon(&rung.target, permit, None, shared.clock.now());
            if opened == Opened::Lost {
                hold.lost.cancel();
                return;
            }
            // The heartbeat finds out when the database is there again, and whether this job is still ours.
            tokio::select! {
                () = shared.lease_renewed() => {}
                () = shared.stop.cancelled() => {}
                () = hold.recalled.cancelled() => {}
                () = hold.lost.cancelled() => {}
            }
            return;
        }
        // It takes the database a moment, or longer, to note a call. A provider may have asked for a wait meanwhile.
        let started_at = shared.clock.now();
        if let Some(shut) = rung.target.shut_meanwhile(&permit, started_at) {
            plan.gate.abandon(&rung.target, permit, None, started_at);
            if let Some(slot) = self.refused.get_mut(index) {
                *slot = Some(shut);
            }
            return;
        }
        let key = permit.key();
        let head = OnceLock::new();
        let (model, capabilities) = (&spec.target.model, &spec.model.capabilities);
        let mut mends = rung.target.mends();
        mends.extend(self.mends.get(index).into_iter().flatten().cloned());
        let call = rung.provider.call(key, &self.request, model, capabilities, &mends, &rung.timeouts, &head);
        let report = tokio::select! {
            report = call => Some(report),
            () = shared.abort.cancelled() => None,
            () = hold.recalled.cancelled() => None,
        };
        let ended_at = shared.clock.now();
        let (mut report, permit) = match report {
            Some(Ok(report)) => (report, Some(permit)),
            Some(Err(ineligible)) => {
                plan.gate.abandon(&rung.target, permit, None, ended_at);
                if let Some(slot) = self.ineligible.get_mut(index) {
                    *slot = Some(ineligible);
                }
                return;
            }
            None => {
                plan.gate.abandon(&rung.target, permit, Some(reserved), ended_at);
                let why = if hold.recalled.is_cancelled() {
                    "the job was cancelled, or answered by another worker"
                } else {
                    "the worker was stopped"
                };
                (abandoned(started_at, ended_at, head.into_inner(), why), None)
            }
        };
        let limits = std::mem::take(&mut report.limits);
        report.dropped.extend(self.held_back.iter().cloned());
        let mut judged = self.judge(&spec, report).await;
        if let Some(other) = &judged.other_model {
            rung.target.saw_another(other, judged.cost.is_some());
        }
        self.tell_apart(index, rung, &sizes, &mut judged);
        // What a server says of the conversation is believed where the conversation shows it.
        if let Some(failure) = &mut judged.failure
            && failure.bearing == Bearing::EveryTarget
            && self.request.calls_have_their_results()
        {
            failure.bearing = Bearing::AsScoped;
        }
        if let Some(permit) = permit {
            let usage = judged.counted_usage;
            let is_reported = |usage: &Usage| judged.answer.is_some() && usage.source == UsageSource::Provider;
            if let Some(usage) = usage.filter(is_reported) {
                rung.target.learn(self.job.input_tokens, self.job.max_output_tokens, &usage);
            }
            let settled = rung.charging.settle(&sizes, usage.as_ref(), Fate::of(&judged.outcome));
            let took = Took {
                time: Duration::from_millis(u64::try_from(judged.total_ms).unwrap_or(0)),
                output_tokens: judged.usage.output,
            };
            let key_is_refused = plan.gate.report(
                &rung.target,
                permit,
                &judged.outcome,
                judged.failure.as_ref(),
                settled,
                took,
                &limits,
                self.hash,
                ended_at,
            );
            // What is believed of the key is the gate's to wait for, and no doubt of this job's any more.
            if let Some(failure) = judged.failure.as_mut().filter(|_| key_is_refused) {
                failure.bearing = Bearing::AsScoped;
            }
            if judged.answer.is_some() {
                rung.target.learn_mends(&mends);
            }
        }
        let is_mendable = self.mend(index, rung, &spec, judged.failure.as_ref(), &mends);
        self.record(index, &spec, rung, key, judged, is_mendable, skipped, started_at, ended_at);
    }

    /// The verdict on what came. Checking an answer against a schema may take a second, which no other job waits for.
    async fn judge(&self, spec: &Arc<crate::domain::Rung>, report: CallReport) -> Judged {
        let (job, request, schema) = (self.job.clone(), Arc::clone(&self.request), self.schema.clone());
        let (route, spec) = (Arc::clone(&self.plan.route), Arc::clone(spec));
        let is_checked = schema.is_some() || route.rules.json_schema.is_some();
        let judging = move || {
            let asked = AskedFor { job: &job, request: &request, schema: schema.as_deref().map(|schema| &**schema) };
            judge(&route.rules, &asked, &spec, report)
        };
        if is_checked { self.shared.schemas.aside(judging).await } else { judging() }
    }

    /// Notes the coming call in the database, so that it can be named should this process die.
    async fn open(&self, index: usize, spec: &crate::domain::Rung) -> Opened {
        // Perhaps declared dead: others may have this job. And while outcomes wait in the spool, those of this job may
        // be among them: whoever takes over on another machine would know of one call only, the one that is noted here.
        // Nor may an answer come that has no place to wait in.
        let spool = self.shared.settler.spool().map(|spool| spool.fill()).unwrap_or_default();
        if !self.shared.lease_is_fresh() || spool.outcomes > 0 || spool.is_full {
            return Opened::Away;
        }
        let call = OpenCall {
            lease: self.claimed.lease,
            number: self.calls.saturating_add(1),
            target: spec.target.clone(),
            rung: i16::try_from(index).unwrap_or(i16::MAX),
            started_at: self.shared.clock.now(),
            worst: spec.model.price.map(|price| estimate::worst_cost(&price, &spec.model.capabilities, &self.job)),
        };
        let opened = self.shared.opener.open(call).await;
        // A process that hung meanwhile may have lost its lease behind the answer.
        if opened == Opened::Yes && !self.shared.lease_is_fresh() { Opened::Away } else { opened }
    }

    /// Notes the change that a refusal asks for. Returns whether the same rung is worth another call with it: not where
    /// nothing would be sent otherwise than before.
    fn mend(
        &mut self,
        index: usize,
        rung: &RungPlan,
        spec: &crate::domain::Rung,
        failure: Option<&Failure>,
        made: &[Mend],
    ) -> bool {
        let Some(mend) = failure.and_then(|failure| failure.mend.as_deref()) else { return false };
        let (model, capabilities) = (&spec.target.model, &spec.model.capabilities);
        let Some(mends) = self.mends.get_mut(index).filter(|mends| mends.len() < MOST_MENDS) else { return false };
        // A server that wants the opposite of what it wanted before is not followed.
        let takes_back = |earlier: &Mend| match (earlier, mend) {
            (Mend::Rename { from, to }, Mend::Rename { from: back_from, to: back_to }) => {
                from == back_to && to == back_from
            }
            _ => false,
        };
        if made.iter().any(takes_back) || !rung.provider.changes(&self.request, model, capabilities, made, mend) {
            return false;
        }
        mends.push(mend.clone());
        true
    }

    /// Tells a request that is larger than a limit from one that came too fast, and notes the numbers for the reason.
    fn tell_apart(&mut self, index: usize, rung: &RungPlan, sizes: &Sizes, judged: &mut Judged) {
        let Some(failure) = &mut judged.failure else { return };
        let Some(oversize) = charging::never_fits(failure, &rung.charging, sizes) else { return };
        failure.class = ErrorClass::NeverFits;
        failure.scope = Scope::Request;
        failure.wait = None;
        judged.outcome = Outcome::Failed(ErrorClass::NeverFits);
        let signed = |tokens| i64::try_from(tokens).unwrap_or(i64::MAX);
        if let Some(slot) = self.ineligible.get_mut(index) {
            let (unit, needed, size) = (oversize.unit, signed(oversize.needed), signed(oversize.size));
            *slot = Some(Ineligible::BucketTooSmall { unit, needed, size });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one row of the ledger has that many facts")]
    fn record(
        &mut self,
        index: usize,
        spec: &crate::domain::Rung,
        rung: &RungPlan,
        key: usize,
        judged: Judged,
        is_mendable: bool,
        skipped: &[(usize, Skip)],
        started_at: Timestamp,
        ended_at: Timestamp,
    ) {
        self.calls = self.calls.saturating_add(1);
        self.waits_since = None;
        // When a key has money again is for the gate to find out, not for this job to wait for: another key may be
        // good.
        let refused = judged.outcome.class().is_some_and(|class| class.facts().key.is_some());
        let hinted = judged.failure.as_ref().filter(|_| !refused);
        let recheck = rung.target.recheck();
        let retry_at = hinted.and_then(|failure| failure.wait).map(|wait| ended_at + long_wait::rest(wait, recheck));
        self.spent = self.spent.zip(judged.cost).map(|(spent, cost)| spent + cost);
        self.uncertain += judged.uncertain;
        self.history.push(Attempt {
            rung: Some(index),
            outcome: judged.outcome.clone(),
            ended_at,
            retry_at,
            is_final: judged.is_final,
            bearing: judged.failure.as_ref().map(|failure| failure.bearing).unwrap_or_default(),
            is_mendable,
            words: judged.failure.as_ref().map(|failure| failure.message.as_str().into()),
        });
        let accepted = judged.outcome == Outcome::Accepted;
        let completion = judged.answer.as_ref().filter(|_| accepted).map(|answer| {
            (
                answer.to_chat_completion(&spec.target.model, ended_at.0.div_euclid(1000)).to_string(),
                judged.original.is_some(),
            )
        });
        self.last = Some(Made {
            target: spec.target.clone(),
            rung: index,
            usage: judged.usage,
            request_id: judged.request_id.clone(),
            accepted: completion,
        });
        let answer = judged.answer;
        self.unsettled = Some(Box::new(AttemptRow {
            lease: self.claimed.lease,
            labels: Arc::clone(&self.claimed.labels),
            number: self.calls,
            round: self.claimed.round,
            provider: spec.target.provider.clone(),
            model: spec.target.model.clone(),
            rung: i16::try_from(index).unwrap_or(i16::MAX),
            started_at,
            ended_at,
            first_byte_ms: judged.first_byte_ms,
            total_ms: judged.total_ms,
            class: judged.outcome.class(),
            detail: judged.soft.map(|kind| kind.as_str().into()),
            http_status: judged.status,
            code: judged.failure.as_ref().and_then(|failure| failure.code.clone()),
            message: judged.message,
            retry_at,
            request_id: judged.request_id,
            model_served: answer.as_ref().and_then(|answer| answer.model.clone()),
            finish: answer.as_ref().and_then(|answer| answer.finish_raw.clone()),
            usage_raw: judged.usage_raw.or_else(|| answer.as_ref().and_then(|answer| answer.usage_raw.clone())),
            usage: judged.usage,
            cost: judged.cost,
            uncertain: judged.uncertain,
            price: if judged.price == spec.model.price { rung.price.clone() } else { frozen(judged.price) },
            decision: self.explanation(skipped, &judged.dropped, rung.key_worth_telling(key, refused)),
            answer: Judged::kept(answer, judged.original, accepted),
            service_tier: judged.service_tier,
            reported_cost: judged.reported_cost,
            cost_source: judged.cost_source.map(Cow::Borrowed),
            notes: judged.notes,
        }));
    }

    /// Why this rung, and with which key: nothing when it was simply the first, took the whole request and has no
    /// choice of keys; and what of the demanded schema no answer is checked against.
    fn explanation(&self, skipped: &[(usize, Skip)], dropped: &[String], key: Option<&str>) -> Option<Value> {
        let unchecked = self.schema.as_ref().map(|schema| schema.unchecked()).unwrap_or_default();
        if skipped.is_empty() && dropped.is_empty() && key.is_none() && unchecked.is_empty() {
            return None;
        }
        let name = |index: usize| self.plan.route.rungs.get(index).map(|rung| rung.target.to_string());
        let skipped: Vec<Value> = skipped
            .iter()
            .map(|(index, why)| {
                let mut entry = explain_skip(why);
                entry["target"] = json!(name(*index));
                entry
            })
            .collect();
        let mut explanation = json!({ "skipped": skipped, "dropped": dropped });
        if let Some(key) = key {
            explanation["key"] = json!(key);
        }
        if !unchecked.is_empty() {
            explanation["unchecked"] = json!(unchecked);
        }
        Some(explanation)
    }

    fn waits_for(&self, rung: usize, why: &Skip) -> String {
        let target = self.plan.route.rungs.get(rung).map(|rung| rung.target.to_string()).unwrap_or_default();
        what_is_waited_for(&target, why, self.plan.route.rungs.len() == 1)
    }

    async fn settle(&mut self, then: Then) {
        let attempt = self.unsettled.take();
        if attempt.is_some() || !matches!(then, Then::GoOn) {
            self.shared.settler.settle(Item { attempt, then }).await;
        }
    }

    /// Sees to it that what came of the last call is safe, before anything else is said of the job: outcomes of one job
    /// are written in their order, and the row of its claim names only one call.
    async fn settle_attempt(&mut self) {
        if let Some(attempt) = self.unsettled.take() {
            self.shared.settler.settle_for_good(Item { attempt: Some(attempt), then: Then::GoOn }).await;
        }
    }

    async fn park(&mut self, until: Option<Timestamp>, reason: &str) {
        let row = ParkRow { lease: self.claimed.lease, attempts: self.calls, until, reason: reason.to_owned() };
        self.settle(Then::Park(row)).await;
    }

    async fn finish(&mut self, ending: Ending, now: Timestamp) {
        let made = self.last.take();
        let (failure, accepted) = match ending {
            Ending::Succeeded => match made.as_ref().and_then(|made| made.accepted.clone()) {
                Some(accepted) => (None, Some(accepted)),
                // Accepted in a former life, yet without a result: its answer is gone with the process.
                None => {
                    (Some((ErrorClass::Abandoned, "the accepted answer was lost with its worker".to_owned())), None)
                }
            },
            Ending::Failed { class, reason } => (Some((class, reason)), None),
        };
        let first_choice = self.order.first().copied();
        let row = EndingRow {
            lease: self.claimed.lease,
            round: self.claimed.round,
            labels: Arc::clone(&self.claimed.labels),
            attempts: self.calls,
            rung: made.as_ref().map(|made| i16::try_from(made.rung).unwrap_or(i16::MAX)),
            after_fallback: made.as_ref().is_some_and(|made| Some(made.rung) != first_choice),
            repaired: accepted.as_ref().is_some_and(|(_, repaired)| *repaired),
            failure,
            cost: self.spent,
            uncertain: self.uncertain,
            input_tokens: made.as_ref().map_or(0, |made| made.usage.total_input()),
            output_tokens: made.as_ref().map_or(0, |made| made.usage.output),
            request_id: made.as_ref().and_then(|made| made.request_id.clone()),
            target: made.map(|made| (made.target.provider, made.target.model)),
            response: accepted.map(|(completion, _)| completion),
        };
        tracing::debug!(job.id = row.lease.job.0, failed = row.failure.is_some(), at = now.0, "job ended");
        self.settle(Then::End(Box::new(row))).await;
    }
}

/// A price as it stands on the ledger.
fn frozen(price: Option<Price>) -> Option<Value> {
    price.map(|price| serde_json::to_value(price).unwrap_or_default())
}

/// Whether a job waits for requests, tokens or places to come back.
fn is_a_limit(why: &Skip) -> bool {
    matches!(why, Skip::Shut { shut, .. } if shut.reason.is_a_limit())
}

/// Whether what a job waits for may end at any time, by an operator's hand or by another job's luck.
fn is_for_the_gate_to_know(why: &Skip) -> bool {
    matches!(why, Skip::Shut { shut, .. } if !shut.reason.is_a_limit())
}
