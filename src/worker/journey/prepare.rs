//! From a claimed row to a journey: reads the request, compiles its schema, and recalls its history.

use super::beginning::Beginning;
use super::calls::Calls;
use super::rows::{Bill, HeldJob};
use super::{Errand, Journey, NO_ROOM, READ_ANEW, UNKNOWN_ROUTE};
use crate::domain::explanation::{WORTH_TELLING, Waited};
use crate::domain::fingerprint::fingerprint;
use crate::domain::larger_cap::CutAnswer;
use crate::domain::pack::Company;
use crate::domain::pause::FixedWait;
use crate::domain::request::{Extras, RequestError, unfit_schema};
use crate::domain::routing::Unrouted;
use crate::domain::validation::OwnRules;
use crate::domain::{
    Attempt, ChatRequest, Confidence, ErrorClass, Finish, Job, Metadata, Outcome, Rejected, SoftFailure, Unsure,
    larger_cap, long_wait, reask,
};
use crate::store::claim::{Claimed, NoRequest, PastAttempt};
use crate::store::settle::Labels;
use crate::worker::Shared;
use crate::worker::plan::{Plan, Resolved, RoutePlan};
use crate::worker::schemas::NoSchema;
use std::sync::Arc;

/// Larger requests, in bytes, are read where that holds up nothing else.
pub(super) const LARGE: usize = 256 << 10;

/// The end of the names of members that hold patterns.
const PATTERNS: &str = "_patterns\"";

/// Why a job does not start.
pub(super) enum Unready {
    /// It never will: its request is invalid, in words.
    Unfit(String),
    /// It goes back, for now.
    Back(&'static str),
}

/// Prepares everything that a claimed job needs.
pub(super) async fn prepare(
    shared: Arc<Shared>,
    held: HeldJob,
    claimed: Claimed,
    past: &[PastAttempt],
) -> Result<Box<Journey>, Unready> {
    let plans = shared.plan();
    let other = shared.other_route(&held.labels);
    let name = other.as_ref().map_or(&held.labels.route, |taken| &taken.to);
    let Some(root) = plans.routes.get(name).cloned() else {
        // The claimer takes only routes it knows; a reload may have removed one since.
        return Err(Unready::Back(UNKNOWN_ROUTE));
    };
    let body = match &claimed.request {
        Ok(body) => body,
        Err(NoRequest::Unreadable(reason)) => return Err(Unready::Unfit(format!("request {reason}"))),
        Err(NoRequest::NoRoom) => return Err(Unready::Back(NO_ROOM)),
    };
    let hash = fingerprint(body);
    let metadata = claimed.metadata.clone();
    if !metadata.covers(&plans.members) {
        // The configuration has changed since the claim.
        return Err(Unready::Back(READ_ANEW));
    }
    // Patterns of a request are compiled when it is read.
    let is_slow = body.len() > LARGE || body.contains(PATTERNS);
    let found = if is_slow {
        let (plans, labels, body, metadata) = (Arc::clone(&plans), held.labels.clone(), body.clone(), metadata.clone());
        let name = name.clone();
        shared.schemas.aside(move || resolve(&plans, &name, &labels, &body, &metadata)).await
    } else {
        resolve(&plans, name, &held.labels, body, &metadata)
    };
    let Some(found) = found else { return Err(Unready::Back(UNKNOWN_ROUTE)) };
    let Resolved { plan, mut taken, request, input_tokens } =
        found.map_err(|error| Unready::Unfit(in_request(&error)))?;
    let schema = match request.schema() {
        None => None,
        Some(schema) => match shared.schemas.compile(schema).await {
            Ok(schema) => Some(Arc::new(schema)),
            Err(NoSchema::Unfit(reason)) => return Err(Unready::Unfit(in_request(&unfit_schema(&reason)))),
            Err(NoSchema::NoRoom) => return Err(Unready::Back(NO_ROOM)),
        },
    };
    taken.splice(0..0, other.iter().cloned());
    let request = Arc::new(request);
    let (project, batch) = (held.labels.project.as_str(), held.labels.batch.as_deref());
    plans.note_way(&plan, &taken);
    let job = Job {
        id: claimed.lease.job,
        ready_at: claimed.ready_at,
        deadline: claimed.deadline,
        max_attempts: claimed.max_attempts.and_then(|most| u16::try_from(most).ok()),
        input_tokens,
        max_output_tokens: request.max_tokens,
        sticky: plan.route.sticky(project, batch, &metadata),
        // `look_at_rungs_anew` finds out.
        extras: Extras::default(),
    };
    let weight = claimed.weight;
    let waited = before_claim(&shared, &plan, &held.labels, &claimed, past.is_empty());
    // It has been read: one copy in memory is enough.
    drop(claimed);
    plan.see(job.input_tokens, job.max_output_tokens);
    let calls = held.calls.max(i16::try_from(past.len()).unwrap_or(i16::MAX));
    let mut journey = Box::new(Journey {
        order: Vec::new(),
        rungs: Vec::new(),
        history: recall_all(&plan, &request, past),
        held: HeldJob { calls, ..held },
        bill: Bill::of(past),
        of_round: Bill::of(past.iter().filter(|past| past.current_round)),
        whole: Arc::clone(&request),
        metadata,
        root,
        taken,
        waits_since: None,
        waited,
        waits_for_money: None,
        sleeper: None,
        beginning: Beginning::default(),
        calls: Calls::default(),
        // How far its pack was parted is not on the ledger.
        company: if past.iter().any(|past| past.current_round && past.parted) { Company::Alone } else { Company::Any },
        weight,
        before: calls,
        numbers: Vec::new(),
        unsettled: Vec::new(),
        last: None,
        unsure: Vec::new(),
        errand: Arc::new(Errand { shared, plan, request, asking: None, held_back: Vec::new(), schema, job, hash }),
    });
    journey.look_at_rungs_anew();
    Ok(journey)
}

/// What a job has waited for until it was claimed, as far as its row or this process knows.
fn before_claim(shared: &Shared, plan: &RoutePlan, labels: &Labels, claimed: &Claimed, is_new: bool) -> Vec<Waited> {
    let is_news = |words: &String| FixedWait::read(words) != Some(FixedWait::Scheduled);
    let awaited = claimed.waited.clone().filter(is_news).or_else(|| {
        let has_waited = is_new && claimed.ready_at.until(shared.clock.now()) >= WORTH_TELLING;
        has_waited
            .then(|| shared.held_up.lock().since(claimed.ready_at, labels).or_else(|| plan.held_up(claimed.ready_at)))?
    });
    awaited.map(|awaited| Waited { awaited, ms: None }).into_iter().collect()
}

/// Finds the way of a job, and reads its request.
fn resolve(
    plans: &Plan,
    route: &str,
    labels: &Labels,
    body: &str,
    metadata: &Metadata,
) -> Option<Result<Resolved, RequestError>> {
    let (project, batch) = (labels.project.as_str(), labels.batch.as_deref());
    plans.resolve(route, &Unrouted { body, project, batch, metadata })
}

/// A fault of a request, with its place in the row.
fn in_request(error: &RequestError) -> String {
    if error.field == "request" { error.to_string() } else { format!("request.{error}") }
}

/// The rows of the present round as history.
fn recall_all(plan: &RoutePlan, request: &ChatRequest, past: &[PastAttempt]) -> Vec<Attempt> {
    let mut history: Vec<Attempt> = Vec::new();
    for past in past.iter().filter(|attempt| attempt.current_round && !attempt.parted) {
        let mut attempt = recall(plan, past);
        if let (Outcome::Rejected(kind), Some(rung)) = (&attempt.outcome, attempt.rung)
            && plan.route.reask
            && !attempt.is_reask
            && !reask::was_due(&history, rung)
        {
            let fault = past.message.as_deref().unwrap_or_default();
            let named = || Rejected::of(past.answer.as_ref()?, *kind, fault, past.number);
            let is_empty_turn = reask::is_empty_turn(*kind, past.finish.as_deref(), past.output);
            let rejected = if is_empty_turn { Some(Rejected::nudge(past.number)) } else { named() };
            attempt.rejected = rejected.map(Arc::new);
        }
        if let (Outcome::Rejected(kind), Some(rung)) = (&attempt.outcome, attempt.rung)
            && OwnRules::raise_cap(request.validate.as_deref(), &plan.route.rules).is_for(*kind)
            && !larger_cap::was_due(&history, rung)
        {
            let finish = past.finish.as_deref().map_or(Finish::Unknown, Finish::of_word);
            attempt.cut = CutAnswer::of(past.number, *kind, request.max_tokens, finish, past.output);
        }
        history.push(attempt);
    }
    history
}

/// A ledger row as history.
fn recall(plan: &RoutePlan, past: &PastAttempt) -> Attempt {
    let rung = plan
        .route
        .rungs
        .iter()
        .position(|rung| rung.target.provider == past.provider && rung.target.model_and_tier() == past.model);
    let outcome = match (past.accepted, past.class) {
        (true, _) => Outcome::Accepted,
        (false, Some(ErrorClass::SoftFailure)) => {
            Outcome::Rejected(past.detail.as_deref().and_then(SoftFailure::parse).unwrap_or(SoftFailure::Empty))
        }
        (false, Some(class)) => Outcome::Failed(class),
        // The class was written by a newer version.
        (false, None) => Outcome::Failed(ErrorClass::ServerError),
    };
    // The message of a soft failure is the validator's own, and not a provider's refusal.
    let words = past.message.as_deref().filter(|_| matches!(outcome, Outcome::Failed(_))).map(Box::from);
    // Whether a provider's refusal was final is not kept: after a park the provider is asked once more. The
    // row has the wait as the provider asked for it.
    let recheck = rung.and_then(|index| plan.rungs.get(index)).map_or(long_wait::RECHECK, |rung| rung.target.recheck());
    let retry_at = past.retry_at.map(|at| past.ended_at + long_wait::rest(past.ended_at.until(at), recheck));
    let is_unsure = outcome == Outcome::Rejected(SoftFailure::LowConfidence);
    let unsure = Unsure { number: past.number, confidence: past.confidence.and_then(Confidence::of) };
    Attempt {
        retry_at,
        words,
        is_reask: past.reask_of.is_some(),
        is_raised: past.raised,
        unsure: is_unsure.then_some(unsure),
        ..Attempt::new(rung, outcome, past.ended_at)
    }
}
