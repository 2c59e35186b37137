//! Asks a rung again because of its answer: with the fault of the answer named, or with a larger output cap.

use super::prepare::LARGE;
use super::rung_state::Again;
use super::{Errand, Journey};
use crate::domain::cost_bound::CostBound;
use crate::domain::decide::RungHealth;
use crate::domain::larger_cap::{self, CutAnswer};
use crate::domain::validation::OwnRules;
use crate::domain::{ChatRequest, Job, Rejected, Rung, Timestamp, eligibility, estimate, reask};
use crate::worker::gate::PACE;
use std::sync::Arc;

impl Errand {
    /// The request that goes on with a rejected answer, if its route asks again, and rung and bound have room for it.
    async fn ask_again(
        &self,
        index: usize,
        base: Option<&Again>,
        rejected: Arc<Rejected>,
        bound: Option<CostBound>,
    ) -> Option<Again> {
        if !self.plan.route.reask {
            return None;
        }
        let of = rejected.number;
        let request = base.map_or_else(|| self.request_of(index), |raised| &raised.request);
        let request = self.written(request, move |request| rejected.ask_again(request)).await?;
        let again = Again { of: Some(of), raised: base.and_then(|base| base.raised), ..self.again(request) };
        self.fits(index, &again, bound).then_some(again)
    }

    /// The request with a larger cap than the one that cut an answer, if rung and bound have room for it.
    async fn raise_cap(&self, index: usize, cut: CutAnswer, bound: Option<CostBound>) -> Option<Again> {
        let own = self.request.validate.as_deref();
        if !OwnRules::raise_cap(own, &self.plan.route.rules).is_for(cut.kind) {
            return None;
        }
        let (spec, _) = self.plan.rung(index)?;
        for raised in cut.larger(&spec.model.capabilities, self.job.input_tokens) {
            let request = self.written(self.request_of(index), move |request| raised.within(request)).await?;
            let again = Again { raised: Some(raised), ..self.again(request) };
            if self.fits(index, &again, bound) {
                return Some(again);
            }
        }
        None
    }

    /// Writes a request anew, a large one where that holds up nothing else.
    async fn written(
        &self,
        request: &Arc<ChatRequest>,
        write: impl FnOnce(&ChatRequest) -> Option<ChatRequest> + Send + 'static,
    ) -> Option<ChatRequest> {
        let (request, is_large) = (Arc::clone(request), request.raw.len() > LARGE);
        let write = move || write(&request);
        if is_large { self.shared.schemas.aside(write).await } else { write() }
    }

    /// A changed request, and the job as large as that.
    fn again(&self, request: ChatRequest) -> Again {
        let (input_tokens, max_output_tokens) = (estimate::input_tokens(&request), request.max_tokens);
        let job = Job { input_tokens, max_output_tokens, ..self.job.clone() };
        Again { of: None, raised: None, request: Arc::new(request), job }
    }

    /// Whether a rung could ever take such a request, and the job may spend what it may cost.
    fn fits(&self, index: usize, again: &Again, bound: Option<CostBound>) -> bool {
        let Some((spec, rung)) = self.plan.rung(index) else { return false };
        let sizes = rung.sizes(again.job.input_tokens, again.job.max_output_tokens, again.request.inputs());
        let now = self.shared.clock.now();
        let health = rung.condition(&sizes, None, PACE, false, now).health;
        !is_too_dear(bound, spec, again, now)
            && eligibility::ineligible(&spec.model.capabilities, &sizes, &again.request).is_none()
            && !matches!(health, RungHealth::Ineligible(_))
    }
}

/// Whether the job may not spend what such a call may cost.
fn is_too_dear(bound: Option<CostBound>, spec: &Rung, again: &Again, now: Timestamp) -> bool {
    bound.is_some_and(|bound| bound.refuses(spec.worst_cost(&again.job, now)).is_some())
}

impl Journey {
    /// Whether there is an answer because of which a rung may be asked again.
    pub(super) fn may_ask_again(&self) -> bool {
        self.history.iter().any(|attempt| attempt.rejected.is_some() || attempt.cut.is_some())
    }

    /// Writes the requests with which rungs are to be asked again. A rung that cannot take its request is not asked
    /// again.
    pub(super) async fn get_ready_to_ask_again(&mut self) {
        let now = self.errand.shared.clock.now();
        let bound = self.bound();
        for index in 0..self.rungs.len() {
            // Calls beside it may have spent what it would need.
            let again = self.rungs.get(index).and_then(|state| state.again.as_ref());
            if let (Some(again), Some(spec)) = (again, self.errand.plan.route.rungs.get(index))
                && is_too_dear(bound, spec, again, now)
            {
                self.forget_to_ask_again(index);
            }
            let due = reask::due(&self.history, index).and_then(|place| self.history.get(place));
            let rejected = due.and_then(|attempt| attempt.rejected.clone());
            let cut = larger_cap::due(&self.history, index);
            let is_ready = self.rungs.get(index).and_then(|state| state.again.as_ref()).is_some_and(|again| {
                let raised = again.raised.map(|raised| raised.of);
                (again.of, raised) == (rejected.as_ref().map(|rejected| rejected.number), cut.map(|cut| cut.number))
            });
            if is_ready {
                continue;
            }
            let raised = match cut {
                Some(cut) => self.errand.raise_cap(index, cut, bound).await,
                None => None,
            };
            if cut.is_some() && raised.is_none() {
                self.forget_to_raise_cap(index);
            }
            let named = match rejected.clone() {
                Some(rejected) => self.errand.ask_again(index, raised.as_ref(), rejected, bound).await,
                None => None,
            };
            if rejected.is_some() && named.is_none() {
                self.forget_to_name_fault(index);
            }
            if let Some(state) = self.rungs.get_mut(index) {
                state.again = named.or(raised);
            }
        }
    }

    /// The rung is asked as any other, for the job goes on as if nothing could be said or done about its answers.
    pub(super) fn forget_to_ask_again(&mut self, rung: usize) {
        self.forget_to_name_fault(rung);
        self.forget_to_raise_cap(rung);
        if let Some(state) = self.rungs.get_mut(rung) {
            state.again = None;
        }
    }

    fn forget_to_name_fault(&mut self, rung: usize) {
        for attempt in self.history.iter_mut().filter(|attempt| attempt.rung == Some(rung)) {
            attempt.rejected = None;
        }
    }

    fn forget_to_raise_cap(&mut self, rung: usize) {
        for attempt in self.history.iter_mut().filter(|attempt| attempt.rung == Some(rung)) {
            attempt.cut = None;
        }
    }
}
