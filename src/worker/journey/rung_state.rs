//! What a job's own calls have shown of one rung.

use crate::domain::decide::Ineligible;
use crate::domain::shut::Shut;
use crate::domain::{Mend, Timestamp};

/// A rung is asked again so often with a changed request.
const MOST_MENDS: usize = 3;

/// What is known of one rung for one job, beside its gate.
#[derive(Clone, Debug, Default)]
pub(super) struct RungState {
    /// Why it can never take this request, where that has turned out.
    pub(super) ineligible: Option<Ineligible>,
    /// What its gate said when it last refused a call.
    refused: Option<Shut>,
    /// The changes in the request that its refusals have asked for.
    mends: Vec<Mend>,
}

impl RungState {
    /// A rung that can never take this request.
    pub(super) fn never(why: Ineligible) -> Self {
        Self { ineligible: Some(why), ..Self::default() }
    }

    /// The gate has refused a call: it is believed until the instant that it named.
    pub(super) fn is_refused(&mut self, shut: Shut) {
        self.refused = Some(shut);
    }

    /// What the gate said, while it is believed.
    pub(super) fn refusal(&self, now: Timestamp) -> Option<Shut> {
        self.refused.filter(|shut| shut.until > now)
    }

    /// The changes that a call to it makes in the request.
    pub(super) fn mends(&self) -> &[Mend] {
        &self.mends
    }

    /// Whether one more change is worth a call.
    pub(super) fn takes_a_mend(&self) -> bool {
        self.mends.len() < MOST_MENDS
    }

    /// Makes one more change from now on.
    pub(super) fn add_mend(&mut self, mend: Mend) {
        self.mends.push(mend);
    }
}
