//! What a job's own calls have shown of one rung.

use crate::domain::decide::Ineligible;
use crate::domain::larger_cap::RaisedCap;
use crate::domain::shut::Shut;
use crate::domain::{ChatRequest, Job, Mend, Timestamp};
use std::sync::Arc;

/// The most changed requests with which a job asks a rung again.
const MOST_MENDS: usize = 3;

/// The state of one rung for one job, beside its gate.
#[derive(Clone, Debug, Default)]
pub(super) struct RungState {
    /// Why the rung can never take this request, once that has turned out.
    pub(super) ineligible: Option<Ineligible>,
    /// The gate's reason when it last refused a call.
    refused: Option<Shut>,
    /// The changes in the request that its refusals have asked for.
    mends: Vec<Mend>,
    /// What the next call asks, if that is not what the job asks of every rung.
    pub(super) again: Option<Again>,
}

/// A request that goes on with a rejected answer and its fault, or that has a larger output cap.
#[derive(Clone, Debug)]
pub(super) struct Again {
    /// The number of the attempt whose answer and fault it names.
    pub(super) of: Option<i16>,
    /// The output cap that it has in place of the one that cut an answer.
    pub(super) raised: Option<RaisedCap>,
    pub(super) request: Arc<ChatRequest>,
    /// The job, as large as that request is.
    pub(super) job: Job,
}

impl RungState {
    /// The state of a rung that can never take this request.
    pub(super) fn never(why: Ineligible) -> Self {
        Self { ineligible: Some(why), ..Self::default() }
    }

    /// Records that the gate has refused a call. The gate is believed until the instant that it named.
    pub(super) fn is_refused(&mut self, shut: Shut) {
        self.refused = Some(shut);
    }

    /// The gate's refusal, while it is believed.
    pub(super) fn refusal(&self, now: Timestamp) -> Option<Shut> {
        self.refused.filter(|shut| shut.until > now)
    }

    /// The changes that a call to this rung makes in the request.
    pub(super) fn mends(&self) -> &[Mend] {
        &self.mends
    }

    /// Whether one more change is worth a call.
    pub(super) fn takes_a_mend(&self) -> bool {
        self.mends.len() < MOST_MENDS
    }

    /// Adds a change that calls make from now on.
    pub(super) fn add_mend(&mut self, mend: Mend) {
        self.mends.push(mend);
    }
}
