//! A call that several jobs share: each job's way through it, and that of the call itself.
//!
//! A task of its own sees the call through, so no job depends on another one. Each job notes the call under its own
//! claim before it is sent, and gets an outcome of its own as if it had made it alone.

use super::Errand;
use super::call::{Call, Came, Made, Sending};
use super::judge::{Judged, Share, abandoned};
use super::packer::{Accord, Load, OpenPack};
use super::permit_guard::PermitGuard;
use crate::domain::explanation::Packed;
use crate::domain::pack::{self, Amounts, Company, PackKey, Parting};
use crate::domain::shut::Shut;
use crate::domain::{Answer, Job, NanoUsd, Outcome, Sizes, SoftFailure, Timestamp, Vectors};
use crate::provider::CallReport;
use crate::worker::gate::{Brought, PACE, QualityLeave};
use crate::worker::hands::InHand;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What a call brings that may join a pack.
pub(super) struct Joins {
    accord: Accord,
    load: Load,
}

/// A job in a pack, from the side of the pack.
pub(in crate::worker) struct Member {
    call: Call,
    load: Load,
    /// Tells it whether the gate has let the pack through.
    admitted: oneshot::Sender<Result<(), Shut>>,
    /// Says that its call is noted, and brings what tells when it is not needed any more; closed: it goes no further.
    noted: oneshot::Receiver<CancellationToken>,
    outcome: oneshot::Sender<Came>,
}

/// The place of a job in a pack, from the side of the job.
struct Ride {
    admitted: oneshot::Receiver<Result<(), Shut>>,
    noted: oneshot::Sender<CancellationToken>,
    outcome: oneshot::Receiver<Came>,
}

impl Member {
    /// Both sides of a job's place in a pack.
    fn of(call: Call, load: Load) -> (Self, Ride) {
        let (admitted, is_admitted) = oneshot::channel();
        let (is_noted, noted) = oneshot::channel();
        let (outcome, came) = oneshot::channel();
        let passage = Ride { admitted: is_admitted, noted: is_noted, outcome: came };
        (Self { call, load, admitted, noted, outcome }, passage)
    }
}

impl Call {
    /// What it brings to a pack; `None`: it is made alone.
    pub(super) fn joins(&self) -> Option<Joins> {
        let (spec, rung) = self.errand.plan.rung(self.index)?;
        let packer = rung.packer.as_ref().filter(|_| self.company != Company::Alone)?;
        let request = self.request();
        let inputs = request.inputs();
        let load = Load { inputs, sizes: rung.sizes(self.job().input_tokens, self.job().max_output_tokens, inputs) };
        if !load.is_within(&packer.bounds()) {
            return None;
        }
        // What fails on purpose is not sent, and fails alone.
        if self.on_purpose(&spec.target, self.errand.shared.clock.now()).is_some() {
            return None;
        }
        let (key, mends) = (PackKey::of(request)?, self.state.mends().to_vec());
        Some(Joins { accord: Accord { key, mends, company: self.company }, load })
    }

    /// Makes the call together with those of other jobs.
    pub(super) async fn make_in_company(&self, joins: Joins, in_hand: &InHand) -> Came {
        let Errand { shared, plan, .. } = &*self.errand;
        let Some((spec, rung)) = plan.rung(self.index) else { return Came::NotBegun };
        let Some(packer) = &rung.packer else { return Came::NotBegun };
        let Joins { accord, load } = joins;
        let (member, mut passage) = Member::of(self.clone(), load);
        let fits = |sizes: &Sizes| rung.target.has_ease(rung.charging.reserve(sizes));
        let in_line = rung.line.join();
        if let Some(pack) = packer.join(accord, member, load, fits) {
            let (errand, index) = (Arc::clone(&self.errand), self.index);
            shared.hands.tasks.spawn(async move { see_through(&pack, &errand, index).await });
        }
        let admitted = tokio::select! {
            admitted = &mut passage.admitted => admitted,
            () = shared.stop.cancelled() => return Came::NotBegun,
            () = in_hand.recalled.cancelled() => return Came::NotBegun,
            () = in_hand.lost.cancelled() => return Came::NotBegun,
        };
        drop(in_line);
        match admitted {
            Ok(Ok(())) => {}
            Ok(Err(shut)) => return Came::Refused(shut),
            // A fault of ours, for which a job may be to blame: if so, it meets that alone.
            Err(_) => return Came::Parted(Company::Alone),
        }
        let opened = self.open(spec).await;
        let mut reserved = match self.reserved(opened) {
            Ok(reserved) => reserved,
            Err(came) => return came,
        };
        let (started_at, was_reserved) = (shared.clock.now(), reserved.is_held);
        if passage.noted.send(in_hand.recalled.clone()).is_err() {
            return Came::Parted(Company::Alone);
        }
        // From now on it may be sent.
        reserved.is_held = false;
        // A job that is cancelled now waits all the same: it has its part of the cost.
        match passage.outcome.await {
            Ok(Came::Made(made)) => Came::Made(made),
            Ok(came) => {
                reserved.is_held = was_reserved;
                came
            }
            Err(_) => Came::Made(Box::new(self.lost(started_at).await)),
        }
    }

    /// The call whose outcome was lost by a fault of ours.
    async fn lost(&self, started_at: Timestamp) -> Made {
        let ended_at = self.errand.shared.clock.now();
        let report = abandoned(started_at, ended_at, None, "a fault in Sluice itself, in a call for several jobs");
        let (judged, _) = self.judge(report, None, started_at).await;
        let target = self.errand.plan.rung(self.index).map(|(spec, _)| spec.target.clone());
        Made {
            number: self.number,
            target: target.expect("the call was made to this rung of this route"),
            rung: self.index,
            started_at,
            ended_at,
            judged,
            retry_at: None,
            asks_again_at: None,
            key: None,
            ineligible: None,
            mend: None,
            reask_of: None,
            raised: None,
            added: Vec::new(),
            waited_ms: None,
            packed: None,
            company: Some(Company::Alone),
        }
    }

    /// The most that it may cost; `None`: the price is unknown.
    pub(super) fn worst(&self, at: Timestamp) -> Option<NanoUsd> {
        let (spec, _) = self.errand.plan.rung(self.index)?;
        spec.worst_cost(self.job(), at)
    }
}

/// A job whose call is noted.
struct Noted {
    call: Call,
    load: Load,
    outcome: oneshot::Sender<Came>,
}

impl Noted {
    /// The job goes on with this outcome. Where it does not wait any more, its journey has ended.
    fn tell(self, came: Came) {
        let _ = self.outcome.send(came);
    }
}

/// What they bring together.
fn all(loads: impl Iterator<Item = Load>) -> Load {
    loads.fold(Load::default(), Load::and)
}

/// Sees a pack through: gathers it, passes the gate, sends it and gives each job its outcome.
async fn see_through(pack: &Arc<OpenPack<Member>>, errand: &Errand, index: usize) {
    let shared = &errand.shared;
    let Some((_, rung)) = errand.plan.rung(index) else { return };
    let Some(packer) = &rung.packer else { return };
    let mut members = tokio::select! {
        members = packer.gather(pack) => members,
        // Its jobs go by themselves.
        () = shared.stop.cancelled() => return,
    };
    // Some may have gone meanwhile.
    members.retain(|member| !member.admitted.is_closed());
    if members.is_empty() {
        return;
    }
    let charge = rung.charging.reserve(&all(members.iter().map(|member| member.load)).sizes);
    let planned = shared.plan();
    let gate = &planned.gate;
    let admitted = tokio::select! {
        admitted = gate.admit(&rung.target, charge, 2 * PACE, shared.clock.now()) => admitted,
        () = shared.stop.cancelled() => return,
    };
    let guard = match admitted {
        Ok(permit) => PermitGuard::new(gate, &rung.target, &shared.clock, permit),
        Err(shut) => {
            for member in members {
                let _ = member.admitted.send(Err(shut));
            }
            return;
        }
    };
    let (jobs, recalled) = noted(members).await;
    if jobs.is_empty() {
        return;
    }
    // Recording the calls takes the database a moment, or longer. A provider may have asked for a wait meanwhile.
    let started_at = shared.clock.now();
    if let Some(shut) = rung.target.shut_meanwhile(guard.permit(), started_at) {
        for job in jobs {
            job.tell(Came::Refused(shut));
        }
        return;
    }
    let given_up = async {
        let none_needs_it = async {
            for recalled in recalled {
                recalled.cancelled().await;
            }
        };
        tokio::select! {
            () = shared.abort.cancelled() => "the worker was stopped",
            () = none_needs_it => "the jobs were cancelled, or answered by another worker",
        }
    };
    let sizes = all(jobs.iter().map(|job| job.load)).sizes;
    let Some(whole) = whole_of(&jobs) else {
        guard.give_back();
        for job in jobs {
            job.tell(Came::Parted(Company::Alone));
        }
        return;
    };
    let is_shared = jobs.len() > 1;
    let leave = rung.quality.admit(true, started_at);
    // What a pack brings counts with the answers of its jobs.
    let (leave, of_pack) = if is_shared { (None, leave) } else { (leave, None) };
    match whole.send(Sending { guard, leave, charge, sizes, started_at, is_shared }, given_up).await {
        Ok(made) if is_shared => deal(pack.id, made, jobs, of_pack).await,
        Ok(made) => {
            if let Some(job) = jobs.into_iter().next() {
                job.tell(Came::Made(Box::new(made)));
            }
        }
        // What the rung cannot take may be in another one's request.
        Err(_) if is_shared => jobs.into_iter().for_each(|job| job.tell(Came::Parted(Company::Alone))),
        Err(why) => jobs.into_iter().for_each(|job| job.tell(Came::Ineligible(why.clone()))),
    }
}

/// Tells the jobs that the gate has let their pack through, and waits until their calls are noted. Returns those that
/// go along, and what tells that one of them is not needed any more.
async fn noted(members: Vec<Member>) -> (Vec<Noted>, Vec<CancellationToken>) {
    let mut waiting = Vec::with_capacity(members.len());
    for Member { call, load, admitted, noted, outcome } in members {
        if admitted.send(Ok(())).is_ok() {
            waiting.push((Noted { call, load, outcome }, noted));
        }
    }
    let (mut jobs, mut recalled) = (Vec::with_capacity(waiting.len()), Vec::with_capacity(waiting.len()));
    for (job, noted) in waiting {
        // Closed: the job was cancelled, or its budget has no room.
        if let Ok(token) = noted.await {
            jobs.push(job);
            recalled.push(token);
        }
    }
    (jobs, recalled)
}

/// The one call for all of them.
fn whole_of(jobs: &[Noted]) -> Option<Call> {
    let first = &jobs.first()?.call;
    if jobs.len() == 1 {
        return Some(first.clone());
    }
    let request = pack::merged(jobs.iter().map(|job| &**job.call.request()))?;
    let mut hasher = DefaultHasher::new();
    for job in jobs {
        job.call.errand.hash.hash(&mut hasher);
    }
    let input_tokens = jobs.iter().fold(0, |sum: i64, job| sum.saturating_add(job.call.job().input_tokens));
    let errand = Errand {
        request: Arc::new(request),
        // What each route holds back is noted with each job.
        held_back: Vec::new(),
        job: Job { input_tokens, ..first.errand.job.clone() },
        hash: hasher.finish(),
        ..Errand::clone(&first.errand)
    };
    Some(Call { errand: Arc::new(errand), ..first.clone() })
}

/// Gives each job its part of the outcome. `leave`: that by which the target was called.
async fn deal(pack: u64, mut made: Made, jobs: Vec<Noted>, mut leave: Option<QualityLeave>) {
    let weights: Vec<u64> = jobs.iter().map(|job| u64::try_from(job.call.job().input_tokens).unwrap_or(0)).collect();
    let counts: Vec<usize> = jobs.iter().map(|job| job.load.inputs).collect();
    let amounts = made.judged.amounts().split(&weights);
    let answered = made.judged.answer.take().map(|mut answer| {
        let vectors = answer.vectors.take().unwrap_or_default();
        // An answer notes what it holds.
        made.judged.notes.retain(|note| *note != vectors.to_string());
        (answer, pack::dealt(vectors, &counts))
    });
    let (answer, parts) = match answered {
        Some((answer, Some(parts))) => (Some(answer), parts),
        Some((_, None)) => {
            made.judged.outcome = Outcome::Rejected(SoftFailure::VectorCount);
            made.judged.soft = Some(SoftFailure::VectorCount);
            (None, Vec::new())
        }
        None => (None, Vec::new()),
    };
    let parting = Parting::of(&made.judged.outcome, made.judged.failure.as_ref(), made.mend.is_some());
    let (count, inputs) = (jobs.len(), counts.iter().fold(0, |sum: usize, inputs| sum.saturating_add(*inputs)));
    let mut parts = parts.into_iter();
    for (place, (job, amounts)) in jobs.into_iter().zip(amounts).enumerate() {
        let judged = if let (Some(answer), Some(vectors)) = (&answer, parts.next()) {
            judged_alone(&job.call, &made, answer, vectors, amounts).await
        } else {
            let mut judged = made.judged.without_answer(&amounts, job.call.worst(made.started_at));
            judged.dropped.extend(job.call.errand.held_back.iter().cloned());
            judged
        };
        // A fault of the whole is one answer, and so is its time; beyond that each answer speaks for itself.
        if place == 0 || answer.is_some() {
            let quality = || Some(&job.call.errand.plan.rung(job.call.index)?.1.quality);
            let leave = leave.take().or_else(|| quality()?.admit(true, made.ended_at));
            if let Some(leave) = leave {
                let brought = job.call.brought(&judged);
                leave.report(&Brought { took: brought.took.filter(|_| place == 0), ..brought }, made.ended_at);
            }
        }
        let company = Company::after(parting, pack, place, count);
        let size = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let packed = Packed { jobs: size(count), inputs: size(inputs), parted: company.is_some() };
        let own = Made {
            number: job.call.number,
            target: made.target.clone(),
            rung: made.rung,
            started_at: made.started_at,
            ended_at: made.ended_at,
            judged,
            retry_at: made.retry_at,
            asks_again_at: made.asks_again_at,
            key: made.key.clone(),
            // That the whole is too large says nothing of its parts.
            ineligible: None,
            mend: made.mend.clone(),
            reask_of: None,
            raised: None,
            added: Vec::new(),
            waited_ms: None,
            packed: Some(packed),
            company,
        };
        job.tell(Came::Made(Box::new(own)));
    }
}

/// The verdict on a job's own vectors.
async fn judged_alone(call: &Call, made: &Made, answer: &Answer, vectors: Vectors, amounts: Amounts) -> Judged {
    let whole = &made.judged;
    let notes = whole.notes.iter().cloned().chain([vectors.to_string()]).collect();
    let share = Share {
        amounts,
        other_model: whole.other_model.clone(),
        service_tier: whole.service_tier.clone(),
        cost_differs: whole.cost_differs,
        notes,
    };
    // The provider's own report is that of the whole.
    let answer = Answer { vectors: Some(vectors), usage_raw: None, ..answer.clone() };
    let report = CallReport {
        result: Ok(answer),
        status: whole.status,
        request_id: whole.request_id.clone(),
        first_byte_ms: whole.first_byte_ms,
        total_ms: whole.total_ms,
        dropped: whole.dropped.clone(),
        limits: Vec::new(),
        should_retry: whole.is_final.then_some(false),
        is_streamed: false,
        partial: None,
        failed_usage: None,
    };
    call.judge(report, Some(share), made.started_at).await.0
}
