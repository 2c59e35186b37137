//! How a job waits: here, where a call or a place may come at any moment, or in the database, where it holds nothing.

use super::Journey;
use crate::domain::Timestamp;
use crate::domain::awaited;
use crate::domain::decide::{Skip, Step};
use crate::domain::explanation::Waited;
use crate::domain::shut::Reason;
use crate::worker::bucket::Sleeper;
use crate::worker::hands::InHand;
use std::time::Duration;

/// A job that has to wait longer than this goes back to the database, so that it holds no place here.
const HOLD: Duration = Duration::from_secs(2);

/// How long a job is parked at a gate that may open at any time.
const GATE_REST: Duration = Duration::from_secs(10);

impl Journey {
    /// Whether a wait is too long for the job to keep its place here.
    pub(super) fn waits_long(&mut self, until: Timestamp, why: &Skip, now: Timestamp) -> bool {
        self.waits_since = is_a_limit(why).then(|| self.waits_since.unwrap_or(now));
        // Short waits in a row add up to a long one, when they are for something that all jobs wait for.
        now.until(until) > HOLD || self.waits_since.is_some_and(|since| since.until(now) > HOLD)
    }

    /// Whether the job keeps its turn at a place however long it has waited, instead of going to the end of the line as
    /// one that is claimed anew. It does not while other jobs need its place in this worker's hands.
    pub(super) fn keeps_turn(&self, why: &Skip, in_hand: &InHand) -> bool {
        let (shared, labels) = (&self.errand.shared, &self.held.labels);
        is_for_a_place(why)
            && self.sleeper.as_ref().is_some_and(Sleeper::has_turn)
            && in_hand.crashes == 0
            && shared.free_slots() > 0
            && shared.room() > 0
            && shared.pauses.load().held_back(&labels.route, &labels.project, labels.batch.as_deref()).is_none()
    }

    /// How long the row rests in the database; `None`: it may be claimed again at once.
    pub(super) fn rests_until(&self, until: Timestamp, why: &Skip, now: Timestamp) -> Option<Timestamp> {
        // Whether something is shut for all jobs is for the gate to know, and the gate of another process, or of this
        // one after a restart with a better key, may know better. So the row rests only a moment, and from then on the
        // claimer leaves it alone.
        let rest = if is_for_the_gate_to_know(why) { until.min(now + GATE_REST) } else { until };
        // While no job of this route is claimed, a job that waits for the same limit as all others waits with them: it
        // is not touched again before there is room for it.
        // A job that was itself told how long to wait is parked exactly that long.
        let was_told = self.history.iter().any(|attempt| attempt.retry_at.is_some_and(|at| at > now));
        let (labels, deadline) = (&self.held.labels, self.errand.job.deadline);
        // The same question as the claimer's, which does not know yet which rung a job draws or which rule matches it.
        let others = || self.errand.shared.lane(&labels.route, &labels.project, labels.batch.as_deref());
        let waits_like_all =
            is_a_limit(why) && !was_told && others().is_some_and(|ahead| ahead.startable(deadline, now).jobs() == 0);
        (!waits_like_all).then_some(rest)
    }

    /// Gives up its turn at places, unless it goes on to wait for one.
    pub(super) fn give_up_turn(&mut self, step: &Step) {
        match (step, self.sleeper.take()) {
            (Step::Wait { why, .. }, sleeper) if is_for_a_place(why) => self.sleeper = sleeper,
            // A job that may share its call leaves the place to the next one that sleeps, which then joins it.
            (Step::Call { rung, .. }, Some(sleeper))
                if (self.errand.plan.rungs.get(*rung))
                    .is_some_and(|planned| planned.target.has(&sleeper) && planned.packer.is_none()) =>
            {
                sleeper.take();
            }
            _ => {}
        }
    }

    /// Waits until the instant, or until a place is free for it if that is what the job waits for.
    pub(super) async fn wait_here(&mut self, until: Timestamp, rung: usize, why: &Skip, in_hand: &InHand) {
        let shared = &self.errand.shared;
        // A refusal by the gate holds until the instant that it named, regardless of the places freed meanwhile.
        let is_refused = self.rungs.get(rung).is_some_and(|state| state.refusal(shared.clock.now()).is_some());
        let planned = self.errand.plan.rungs.get(rung).filter(|_| is_for_a_place(why));
        let (before, fence) = (self.sleeper.take(), self.held.lease.fence);
        self.sleeper = planned.and_then(|planned| planned.target.sleeper(fence, !is_refused, before));
        let _in_line = planned.map(|planned| planned.line.join());
        let vacancy = async {
            match &self.sleeper {
                Some(sleeper) => sleeper.sleep().await,
                None => std::future::pending().await,
            }
        };
        let began = shared.clock.now();
        tokio::select! {
            () = tokio::time::sleep_until(shared.clock.instant(until)) => {}
            () = vacancy => {}
            () = shared.stop.cancelled() => {}
            () = in_hand.recalled.cancelled() => {}
            () = in_hand.lost.cancelled() => {}
        }
        let took = began.until(shared.clock.now());
        let awaited = self.waits_for(rung, why);
        Waited::note(&mut self.waited, awaited, Some(took));
    }

    /// Waits until a call has ended, and no longer than until this instant.
    pub(super) async fn wait_for_calls(&mut self, until: Timestamp, in_hand: &InHand) {
        self.settle_attempt().await;
        let shared = &self.errand.shared;
        let time = async {
            match until {
                Timestamp::MAX => std::future::pending().await,
                until => tokio::time::sleep_until(shared.clock.instant(until)).await,
            }
        };
        tokio::select! {
            () = self.calls.wait() => {}
            () = time => {}
            () = shared.stop.cancelled(), if !shared.stop.is_cancelled() => {}
            () = in_hand.recalled.cancelled() => {}
            () = in_hand.lost.cancelled(), if !in_hand.lost.is_cancelled() => {}
        }
    }

    /// What the job waits for, in the words of rows.
    pub(super) fn waits_for(&self, rung: usize, why: &Skip) -> String {
        let rungs = &self.errand.plan.route.rungs;
        let target = rungs.get(rung).map(|rung| rung.target.to_string()).unwrap_or_default();
        let its_last = self.history.iter().rev().find(|attempt| attempt.rung == Some(rung));
        awaited::in_words(&target, why, rungs.len() == 1, its_last.and_then(|attempt| attempt.outcome.class()))
    }
}

/// Whether a job waits for requests, tokens or places to come back.
fn is_a_limit(why: &Skip) -> bool {
    matches!(why, Skip::Shut { shut, .. } if shut.reason.is_a_limit())
}

/// Whether a job waits for a place alone.
fn is_for_a_place(why: &Skip) -> bool {
    matches!(why, Skip::Shut { shut, .. } if shut.reason == Reason::Concurrency)
}

/// Whether the cause of a job's wait may end at any time, by an operator's hand or because another job got through.
fn is_for_the_gate_to_know(why: &Skip) -> bool {
    let ends_by_the_clock = |reason: Reason| reason.is_a_limit() || reason == Reason::PeakHours;
    matches!(why, Skip::Shut { shut, .. } if !ends_by_the_clock(shut.reason))
}
