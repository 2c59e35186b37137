//! One job's journey through this process: decide, pass the gate, call, judge, settle.

mod again;
mod beginning;
mod cached;
mod call;
mod calls;
mod judge;
mod outcome;
mod pack;
mod packer;
mod permit_guard;
mod prepare;
mod rows;
mod rung_state;
mod shadow;
mod traced;
mod unsure;
mod waiting;

use super::Shared;
use super::bucket::Sleeper;
use super::gate::PACE;
use super::hands::InHand;
use super::line::InLine;
use super::plan::RoutePlan;
use super::schemas::InUse;
use super::settler::{Item, Then};
use crate::domain::cascade;
use crate::domain::cost_bound::CostBound;
use crate::domain::decide::{Condition, Ending, Ineligible, RungHealth, Skip, Step, climbs_from, decide, soonest};
use crate::domain::doubt::RequestHash;
use crate::domain::explanation::{self, Explanation, Ordering, SkippedRung, Waited, Why};
use crate::domain::fork::Taken;
use crate::domain::pack::Company;
use crate::domain::request::Extras;
use crate::domain::routing::Unrouted;
use crate::domain::strategy::{self, Conditions};
use crate::domain::{
    Attempt, CacheKey, ChatRequest, Job, Metadata, NanoUsd, Outcome, Patience, Strategy, Timestamp, eligibility,
};
use crate::store::claim::{Claimed, PastAttempt};
use crate::store::settle::{AttemptRow, EndingRow};
use beginning::Beginning;
use call::{Call, CameBack};
use calls::Calls;
use prepare::{Unready, prepare};
pub(super) use rows::HeldJob;
use rows::{Bill, LastCall};
use rung_state::RungState;
use std::sync::Arc;
use std::time::Duration;

/// The calls of one rung that jobs share and that are being gathered.
pub(super) type Packs = packer::Packer<pack::Member>;

/// When a job looks again for a place for one more call.
const NO_PLACE: Duration = Duration::from_millis(50);

/// Why a job goes back when routes look at members of its metadata that its claim did not bring.
const READ_ANEW: &str = "its metadata is read anew";

/// Why a job goes back when its route adds something else to its request than when it was read.
const WRITTEN_ANEW: &str = "its request is written anew";

/// Why a job goes back whose route the configuration no longer has.
const UNKNOWN_ROUTE: &str = "unknown route";

/// Why a job goes back whose request or schema finds no room in `max_in_flight_bytes`.
const NO_ROOM: &str = "no room in memory";

/// The parts of a job that each call needs and no call changes.
#[derive(Clone)]
struct Errand {
    shared: Arc<Shared>,
    plan: Arc<RoutePlan>,
    /// The part of the request that the route allows.
    request: Arc<ChatRequest>,
    /// The same, asking for the probabilities of its tokens; `None`: the route does not ask, or the request does.
    asking: Option<Arc<ChatRequest>>,
    /// Members of the request that the route does not allow.
    held_back: Vec<String>,
    schema: Option<Arc<InUse>>,
    job: Job,
    hash: RequestHash,
}

/// One job on its way, from its claim until it ends or goes back.
struct Journey {
    errand: Arc<Errand>,
    held: HeldJob,
    /// The request as it was inserted.
    whole: Arc<ChatRequest>,
    /// The members of its metadata that routes looked at when it was claimed.
    metadata: Metadata,
    /// The route that its row names, …
    root: Arc<RoutePlan>,
    /// … and the rules that led from there to the route that it goes along.
    taken: Vec<Taken>,
    /// The rungs in the order in which this job tries them.
    order: Vec<usize>,
    history: Vec<Attempt>,
    /// The cost of the calls of all rounds.
    bill: Bill,
    /// That of the calls of this round: since it was enqueued, or was enqueued again.
    of_round: Bill,
    /// One state per rung, by its place in the route.
    rungs: Vec<RungState>,
    /// Since when the job has waited here for a limit, without a call.
    waits_since: Option<Timestamp>,
    /// What it has waited for since its last call.
    waited: Vec<Waited>,
    /// Until when it rests because a budget has no room for its next call, and the reason in words.
    waits_for_money: Option<(Timestamp, String)>,
    /// Its turn at the places that it waits for.
    sleeper: Option<Sleeper>,
    /// What it shares with other jobs, and does about the caches of providers.
    beginning: Beginning,
    /// The calls under way, where the route asks several rungs at once.
    calls: Calls,
    /// The jobs with which it may share a call.
    company: Company,
    /// Bytes that its request takes in memory.
    weight: usize,
    /// Calls made under earlier claims.
    before: i16,
    /// The numbers of the calls made under this claim.
    numbers: Vec<i16>,
    /// Attempts that are over and have not been handed to the settler yet.
    unsettled: Vec<AttemptRow>,
    last: Option<LastCall>,
    /// The calls of this claim whose rungs were not sure enough of their answers.
    unsure: Vec<LastCall>,
}

/// Runs one claimed job until it ends or goes back. Never panics on a job's data.
pub(super) async fn run(
    shared: Arc<Shared>,
    held: HeldJob,
    claimed: Claimed,
    past: Vec<PastAttempt>,
    in_hand: InHand,
    coming: Option<InLine>,
) {
    match prepare(Arc::clone(&shared), held.clone(), claimed, &past).await {
        Ok(mut journey) => {
            drop((shared, held, past));
            if !journey.is_served_by_cache().await {
                journey.run(&in_hand, coming).await;
            }
        }
        Err(Unready::Unfit(reason)) => held.refuse(&shared, reason).await,
        Err(Unready::Back(reason)) => held.give_back(&shared, reason).await,
    }
}

impl Errand {
    /// Whether calls of this rung ask for the probabilities of the tokens although the request does not.
    fn asks_for_logprobs(&self, rung: usize) -> bool {
        let cascade = self.plan.route.cascade.as_ref().filter(|_| self.asking.is_some());
        cascade.zip(self.plan.rung(rung)).is_some_and(|(cascade, (spec, _))| cascade.asks_for_logprobs(&spec.target))
    }

    /// The request that this rung is asked.
    fn request_of(&self, rung: usize) -> &Arc<ChatRequest> {
        self.asking.as_ref().filter(|_| self.asks_for_logprobs(rung)).unwrap_or(&self.request)
    }
}

impl Journey {
    /// `coming` is its place among the jobs that were just claimed, until it asks for one at a rung. What few jobs wait
    /// for is in a box: the task of each job has room for the largest of all that it may wait for.
    async fn run(&mut self, in_hand: &InHand, mut coming: Option<InLine>) {
        loop {
            if in_hand.recalled.is_cancelled() {
                // Cancelled or answered elsewhere: the row is no longer ours, so only the money is booked.
                return Box::pin(self.recalled(in_hand)).await;
            }
            self.take_ended(in_hand).await;
            if let Some((until, reason)) = self.waits_for_money.take().filter(|_| !self.is_answered()) {
                if self.calls.is_empty() {
                    return self.park(Some(until), reason).await;
                }
                Box::pin(self.wait_for_calls(Timestamp::MAX, in_hand)).await;
                continue;
            }
            if let Err(reason) = self.follow_plan() {
                if self.calls.is_empty() {
                    return self.park(None, reason.to_owned()).await;
                }
                Box::pin(self.wait_for_calls(Timestamp::MAX, in_hand)).await;
                continue;
            }
            if self.may_ask_again() {
                Box::pin(self.get_ready_to_ask_again()).await;
            }
            let now = self.errand.shared.clock.now();
            let conditions = self.look(now);
            let errand = &self.errand;
            let (route, under_way) = (&errand.plan.route, self.calls.under_way());
            let step = decide(&errand.job, route, &self.order, &self.history, &under_way, &conditions, now);
            if self.waits_for_first(&step, in_hand).await {
                drop(coming.take());
                continue;
            }
            self.give_up_turn(&step);
            match step {
                // A good answer is used even if another worker may have the job by now: it is paid for.
                Step::Finish(ending @ Ending::Succeeded) => {
                    self.calls.drop_all().await;
                    self.take_ended(in_hand).await;
                    return self.finish(ending, now).await;
                }
                // Calls under way are paid for, so they go on; no further one is begun.
                _ if !self.calls.is_empty()
                    && (in_hand.lost.is_cancelled() || self.errand.shared.stop.is_cancelled()) =>
                {
                    Box::pin(self.wait_for_calls(Timestamp::MAX, in_hand)).await;
                }
                Step::Wait { until, .. } if !self.calls.is_empty() => {
                    Box::pin(self.wait_for_calls(until, in_hand)).await;
                }
                _ if in_hand.lost.is_cancelled() => return self.settle(Then::GoOn).await,
                Step::Finish(Ending::Unsure(unsure)) => return Box::pin(self.finish_unsure(unsure, now)).await,
                Step::Finish(ending) => return self.finish(ending, now).await,
                _ if self.errand.shared.stop.is_cancelled() => {
                    return self.park(None, "worker stopped".to_owned()).await;
                }
                Step::Wait { until, rung, why } => {
                    if self.waits_long(until, &why, now) && !self.keeps_turn(&why, in_hand) {
                        return self.park(self.rests_until(until, &why, now), self.waits_for(rung, &why)).await;
                    }
                    self.settle_attempt().await;
                    drop(coming.take());
                    Box::pin(self.wait_here(until, rung, &why, in_hand)).await;
                }
                Step::Call { rung, skipped } => {
                    self.settle_attempt().await;
                    let Some(call) = self.call(rung, &conditions) else { continue };
                    let reasons = Explanation {
                        waited: std::mem::take(&mut self.waited),
                        ..self.reasons(&skipped, &conditions, now)
                    };
                    drop(coming.take());
                    if matches!(self.errand.plan.route.strategy, Strategy::Race(_)) {
                        let place = if call.is_beside { self.errand.shared.place_beside(self.weight) } else { None };
                        if call.is_beside && place.is_none() {
                            self.waited = reasons.waited;
                            let _wish = self.errand.shared.wish_for_place();
                            Box::pin(self.wait_for_calls(now + NO_PLACE, in_hand)).await;
                            continue;
                        }
                        self.held.raced |= call.is_beside;
                        self.calls.begin(call, place, reasons, now, in_hand);
                    } else {
                        let came = call.make(in_hand).await;
                        self.take(Some(rung), came, reasons, in_hand).await;
                    }
                }
            }
        }
    }

    /// Switches to the route as it is configured now.
    ///
    /// # Errors
    /// Why the job has to go back: no route has its name any more, routes look at members of its metadata that were not
    /// read when it was claimed, or its route adds something else to its request.
    fn follow_plan(&mut self) -> Result<(), &'static str> {
        // A job that has its answer is done, regardless of what happened to its route.
        if self.is_answered() {
            return Ok(());
        }
        let (plan, other) = (self.errand.shared.plan(), self.errand.shared.other_route(&self.held.labels));
        let name = other.as_ref().map_or(&self.held.labels.route, |taken| &taken.to);
        let Some(root) = plan.routes.get(name) else { return Err(UNKNOWN_ROUTE) };
        if Arc::ptr_eq(root, &self.root) {
            return Ok(());
        }
        if !self.metadata.covers(&plan.members) {
            return Err(READ_ANEW);
        }
        let labels = &self.held.labels;
        let batch = labels.batch.as_deref();
        let asked = Unrouted { body: "", project: &labels.project, batch, metadata: &self.metadata };
        let found = plan.resolve_again(name, &asked, &self.whole);
        let Some((route, mut taken)) = found else { return Err(UNKNOWN_ROUTE) };
        if route.route.defaults != self.errand.plan.route.defaults {
            return Err(WRITTEN_ANEW);
        }
        taken.splice(0..0, other.iter().cloned());
        (self.root, self.taken) = (Arc::clone(root), taken);
        // Calls to a rung count for it wherever it stands now.
        let old = Arc::clone(&self.errand.plan);
        let place = |index: usize| {
            let target = &old.route.rungs.get(index)?.target;
            route.route.rungs.iter().position(|rung| rung.target == *target)
        };
        self.calls.replace_rungs(place);
        for attempt in &mut self.history {
            attempt.rung = attempt.rung.and_then(place);
        }
        if let Some(last) = &mut self.last {
            last.rung = place(last.rung).unwrap_or(last.rung);
        }
        let labels = &self.held.labels;
        let errand = Arc::make_mut(&mut self.errand);
        errand.job.sticky = route.route.sticky(&labels.project, labels.batch.as_deref(), &self.metadata);
        errand.plan = route;
        // Its answer will be one to what the route asks now.
        self.held.cache = self.errand.plan.route.cache.map(|_| CacheKey::of(&self.errand.plan.route, &self.whole));
        self.look_at_rungs_anew();
        Ok(())
    }

    /// Whether its answer has come.
    fn is_answered(&self) -> bool {
        self.history.last().is_some_and(|attempt| attempt.outcome == Outcome::Accepted)
    }

    /// Starts over with the rungs of the route as if none had been called, and drops from the request everything that
    /// the route does not allow: members that choose another model, tier, tool or count.
    fn look_at_rungs_anew(&mut self) {
        let errand = Arc::make_mut(&mut self.errand);
        let pass = &errand.plan.route.pass;
        errand.held_back = self.whole.held_back(pass);
        let left = if errand.held_back.is_empty() { None } else { self.whole.without_held_back(pass) };
        let lost = errand.plan.route.must_keep.held_back(&self.whole, pass);
        let mut state = lost.map_or_else(RungState::default, RungState::never);
        errand.request = match left {
            Some(Ok(left)) => Arc::new(left),
            None => Arc::clone(&self.whole),
            Some(Err(error)) => {
                // The request needs the members held back, so it is not sent at all.
                let what = format!("the request without what the route's `pass` does not name ({error})");
                state = RungState::never(Ineligible::Unsupported(what));
                Arc::clone(&self.whole)
            }
        };
        errand.job.extras = Extras::of(&errand.request, pass);
        let needs_logprobs = |cascade: &cascade::Cascade| cascade.measure.needs_logprobs();
        let asks = errand.plan.route.cascade.as_ref().is_some_and(needs_logprobs);
        errand.asking = asks.then(|| cascade::ask_for_logprobs(&errand.request)).flatten().map(Arc::new);
        self.rungs = vec![state; self.errand.plan.rungs.len()];
        self.look_at_beginning();
    }

    /// Forgets waits that a provider asked for before it was opened by hand.
    fn follow_reopenings(&mut self) {
        for attempt in self.history.iter_mut().filter(|attempt| attempt.retry_at.is_some()) {
            let rung = attempt.rung.and_then(|index| self.errand.plan.rungs.get(index));
            if rung.and_then(|rung| rung.target.reopened_at()).is_some_and(|at| at > attempt.ended_at) {
                attempt.retry_at = None;
            }
        }
    }

    /// The current condition of the rungs; also puts them into the order in which to try them.
    fn look(&mut self, now: Timestamp) -> Vec<Condition> {
        self.follow_reopenings();
        // A route that never waits for a cheaper rung does not queue for one either, …
        let pace = match self.errand.plan.route.patience {
            Patience::For(patience) => patience.min(PACE),
            Patience::Forever => PACE,
        };
        let mut conditions = Vec::with_capacity(self.rungs.len());
        conditions.extend((0..self.rungs.len()).filter_map(|index| self.condition(index, pace, now)));
        let view = Conditions::of_job(&self.errand.job, self.bill.cost(), now, &conditions);
        strategy::order(&self.errand.plan.route, &view, &mut self.order);
        // … unless it is the last, or all are full and its turn comes first.
        if pace < PACE {
            let first = soonest(&self.order, &conditions, PACE, now);
            for index in first.into_iter().chain(self.order.last().copied()) {
                if let (Some(slot), Some(condition)) = (conditions.get_mut(index), self.condition(index, PACE, now)) {
                    *slot = condition;
                }
            }
        }
        conditions
    }

    /// The condition of one rung for this job, which would wait at most `horizon` for its turn.
    fn condition(&self, index: usize, horizon: Duration, now: Timestamp) -> Option<Condition> {
        let (plan, state) = (&self.errand.plan, self.rungs.get(index)?);
        let (rung, planned) = plan.rung(index)?;
        if let Some(ineligible) = &state.ineligible {
            return Some(RungHealth::Ineligible(ineligible.clone()).into());
        }
        let (job, request) = match &state.again {
            Some(again) => (&again.job, &again.request),
            None => (&self.errand.job, &self.errand.request),
        };
        let sizes = planned.sizes(job.input_tokens, job.max_output_tokens, request.inputs());
        if let Some(ineligible) = eligibility::ineligible(&rung.model.capabilities, &sizes, request) {
            return Some(RungHealth::Ineligible(ineligible).into());
        }
        if let Some(too_dear) = self.bound().and_then(|bound| bound.refuses(rung.worst_cost(job, now))) {
            return Some(RungHealth::Ineligible(too_dear).into());
        }
        if let Some(shut) = state.refusal(now) {
            return Some(RungHealth::Shut(shut).into());
        }
        let fence = Some(self.held.lease.fence);
        let condition = planned.condition(&sizes, fence, horizon, plan.route.strategy.weighs_headroom(), now);
        let waits = planned.target.lets_others_first(self.errand.hash, now);
        Some(match waits.filter(|_| condition.health == RungHealth::Open) {
            Some(shut) => Condition { health: RungHealth::Shut(shut), ..condition },
            None => condition,
        })
    }

    /// What the job may spend and has spent, where its route bounds that.
    fn bound(&self) -> Option<CostBound> {
        let limit = self.errand.plan.route.max_cost?;
        let add = |spent: NanoUsd, worst: Option<NanoUsd>| worst.map(|worst| spent + worst);
        let spent = self.of_round.at_most().and_then(|spent| self.calls.worst_cases().try_fold(spent, add));
        Some(CostBound { limit, spent })
    }

    /// A call to this rung.
    fn call(&mut self, rung: usize, conditions: &[Condition]) -> Option<Call> {
        let is_free = |number: &i16| !self.numbers.contains(number) && !self.calls.has(*number);
        let number = (self.before.saturating_add(1)..i16::MAX).find(is_free).unwrap_or(i16::MAX);
        let errand = Arc::clone(&self.errand);
        let Errand { plan, job, request, .. } = &*errand;
        // Vectors are not more or less sure.
        let climbs =
            request.embed.is_none() && climbs_from(rung, job, &plan.route, &self.order, &self.history, conditions);
        let state = self.rungs.get(rung)?.clone();
        let asked = state.again.as_ref().map_or_else(|| errand.request_of(rung), |again| &again.request);
        let shares = self.shares(rung, asked);
        Some(Call {
            errand: Arc::clone(&errand),
            index: rung,
            state,
            shares,
            lease: self.held.lease,
            labels: Arc::clone(&self.held.labels),
            number,
            is_beside: !self.calls.is_empty(),
            regardless: conditions.get(rung).is_some_and(|condition| condition.weakness.is_some()),
            climbs,
            company: self.company.given(&self.history),
            no_longer_needed: None,
            came_back: CameBack::default(),
        })
    }

    /// What a call is decided by: the rungs before its own, the order, the rules that led to the route, and the parts
    /// of the demanded schema that no answer is checked against.
    fn reasons(&self, skipped: &[(usize, Skip)], conditions: &[Condition], now: Timestamp) -> Explanation {
        let rungs = &self.errand.plan.route.rungs;
        let unchecked = self.errand.schema.as_ref().map(|schema| schema.unchecked()).unwrap_or_default();
        let order = self.ordering(skipped.is_empty(), conditions, now);
        let skipped = skipped.iter().map(|(index, why)| SkippedRung {
            target: rungs.get(*index).map(|rung| rung.target.to_string()),
            why: Why::from(why),
        });
        Explanation {
            version: explanation::VERSION,
            skipped: skipped.collect(),
            unchecked: unchecked.to_vec(),
            order,
            rules: self.taken.clone(),
            ..Explanation::default()
        }
    }

    /// The order of the rungs and what it was made by. By price and by list it is told only when the first rung was not
    /// the one that was called: it is the same for all jobs alike.
    fn ordering(&self, is_first: bool, conditions: &[Condition], now: Timestamp) -> Option<Ordering> {
        let Errand { plan, job, .. } = &*self.errand;
        let is_plain =
            is_first && matches!(plan.route.strategy, Strategy::Cost | Strategy::Priority | Strategy::Race(_));
        let seen = Conditions::of_job(job, self.bill.cost(), now, conditions);
        (plan.route.rungs.len() > 1 && !is_plain).then(|| Ordering::of(&plan.route, &seen, &self.order))
    }

    async fn settle(&mut self, then: Then) {
        // The database may take long, and another job may begin meanwhile.
        self.sleeper = None;
        let item = self.item(then);
        if item.attempt.is_some() || !matches!(item.then, Then::GoOn) {
            self.errand.shared.settler.settle(item).await;
        }
    }

    /// Makes sure that the outcomes of calls are safe before anything else is written about the job: outcomes of one
    /// job are written in order, and the row of its claim names only one call.
    async fn settle_attempt(&mut self) {
        if !self.unsettled.is_empty() {
            let item = self.item(Then::GoOn);
            self.errand.shared.settler.settle_for_good(item).await;
        }
    }

    /// The attempts that the journey has not handed to the settler yet.
    fn item(&mut self, then: Then) -> Item {
        let rows = std::mem::take(&mut self.unsettled);
        let spans = self.spans(&rows, &then);
        let mut rows = rows.into_iter();
        Item { attempt: rows.next().map(Box::new), beside: rows.collect(), then, spans }
    }

    async fn park(&mut self, until: Option<Timestamp>, reason: String) {
        self.settle(Then::Park(self.held.parked(until, reason))).await;
    }

    async fn finish(&mut self, ending: Ending, now: Timestamp) {
        let row = self.held.ended(ending, self.bill, self.last.take(), self.order.first().copied());
        let shadow = if row.failure.is_none() { self.shadow(now) } else { None };
        let row = EndingRow { shadow, ..row };
        tracing::debug!(job.id = row.lease.job.0, failed = row.failure.is_some(), at = now.0, "job ended");
        self.settle(Then::End(Box::new(row))).await;
    }
}
