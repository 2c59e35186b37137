//! The beginning that a job shares with others: what its request gets so that the provider keeps it, and which of
//! several jobs asks first.

use super::Journey;
use super::call::Call;
use crate::domain::decide::Step;
use crate::domain::prefix::PrefixPlan;
use crate::domain::{ChatRequest, Prefix, Timestamp};
use crate::worker::hands::InHand;
use crate::worker::prefixes::{Entry, PrefixGuard};
use std::sync::Arc;

/// What a job does about the prompt caches of its targets. All of it is nothing where its route does not say so.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    /// The beginning of its request; `None`: it has none, or the route does not ask for it.
    prefix: Option<Prefix>,
    /// The leave to make the call that was decided.
    guard: Option<PrefixGuard>,
    /// Since when it has waited for another job's call.
    waits_since: Option<Timestamp>,
}

/// What a call does about the prompt cache of its target.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedBeginning {
    /// The request with what the route adds.
    pub(super) request: Option<Arc<ChatRequest>>,
    /// What was added.
    pub(super) added: Vec<String>,
    /// How long its job has waited for another one's call.
    pub(super) waited_ms: Option<u64>,
    /// Tells the others what has come of it.
    pub(super) guard: Option<Arc<PrefixGuard>>,
}

impl Journey {
    /// Looks at the request anew.
    pub(super) fn look_at_beginning(&mut self) {
        let errand = &self.errand;
        let prefix = errand.plan.route.prompt_cache.and_then(|_| Prefix::of(&errand.request));
        self.beginning = Beginning { prefix, ..Beginning::default() };
    }

    fn prefix_plan(&self, rung: usize) -> Option<PrefixPlan> {
        let (prefix, plan) = (self.beginning.prefix.as_ref()?, &self.errand.plan);
        let (spec, planned) = plan.rung(rung)?;
        prefix.plan(&plan.route.prompt_cache?, &planned.prompt_cache?, &spec.target)
    }

    /// Lets the first call with the same beginning come back, if this step is a call and another job's is the first.
    /// Returns whether it has waited, so that everything is to be decided anew.
    pub(super) async fn waits_for_first(&mut self, step: &Step, in_hand: &InHand) -> bool {
        self.beginning.guard = None;
        let shared = Arc::clone(&self.errand.shared);
        // A job that asks several rungs at once has no time to lose.
        let rung = match step {
            Step::Call { rung, .. } if self.calls.is_empty() => *rung,
            _ => return false,
        };
        if shared.stop.is_cancelled() || in_hand.lost.is_cancelled() {
            return false;
        }
        let Some(plan) = self.prefix_plan(rung) else { return false };
        let now = shared.clock.now();
        let (ended, until) = match shared.prefixes.enter(&plan, now) {
            Entry::Goes(guard) => {
                self.beginning.guard = Some(guard);
                return false;
            }
            Entry::Waits { ended, until } => (ended, until),
        };
        self.beginning.waits_since.get_or_insert(now);
        // Its turn at a place is for one that can use it now.
        self.sleeper = None;
        self.settle_attempt().await;
        let until = self.errand.job.deadline.map_or(until, |deadline| until.min(deadline));
        tokio::select! {
            () = ended.cancelled() => {}
            () = tokio::time::sleep_until(shared.clock.instant(until)) => {}
            () = shared.stop.cancelled() => {}
            () = in_hand.recalled.cancelled() => {}
            () = in_hand.lost.cancelled() => {}
        }
        true
    }

    /// What a call to this rung that asks `request` does about the prompt cache there.
    pub(super) fn shares(&mut self, rung: usize, request: &ChatRequest) -> SharedBeginning {
        let Some(plan) = self.prefix_plan(rung) else { return SharedBeginning::default() };
        let added = plan.addition.and_then(|addition| addition.to(request));
        let (request, added) = added.map_or((None, None), |(request, what)| (Some(request), Some(what)));
        let now = self.errand.shared.clock.now();
        let waited = self.beginning.waits_since.take().map(|since| since.until(now));
        SharedBeginning {
            request: request.map(Arc::new),
            added: added.into_iter().map(str::to_owned).collect(),
            waited_ms: waited.map(|waited| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX)),
            guard: self.beginning.guard.take().map(Arc::new),
        }
    }
}

impl Call {
    /// Tells the jobs that wait for this call, which began at this instant, what has come of it.
    pub(super) fn tell_the_others(&self, is_answered: bool, began_at: Timestamp) {
        if let Some(guard) = self.shares.guard.as_ref().filter(|_| is_answered) {
            guard.answered(began_at);
        }
    }
}
