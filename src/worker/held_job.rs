//! A claimed job without its request: as much as it takes to write for it.

use super::Shared;
use super::settler::{Item, Then};
use crate::domain::{ErrorClass, NanoUsd};
use crate::store::claim::{Claimed, Lease};
use crate::store::settle::{EndingRow, Labels, ParkRow};
use std::sync::Arc;

/// Whose job it is and by what right it is ours.
pub(super) struct HeldJob {
    pub(super) lease: Lease,
    pub(super) round: i16,
    pub(super) labels: Arc<Labels>,
    /// Calls made before this claim.
    attempts: i16,
}

impl HeldJob {
    pub(super) fn of(claimed: &Claimed) -> Self {
        let labels =
            Labels { route: claimed.route.clone(), project: claimed.project.clone(), batch: claimed.batch.clone() };
        Self { lease: claimed.lease, round: claimed.round, labels: Arc::new(labels), attempts: claimed.attempts }
    }

    /// Ends a job whose request is none: no provider was or will be asked, so it cost nothing.
    pub(super) async fn refuse(self, shared: &Shared, reason: String) {
        self.fail(shared, ErrorClass::InvalidRequest, reason, Some(NanoUsd::ZERO)).await;
    }

    /// Ends a job whose journey panicked: a fault of ours, which must not take the worker along. What its calls cost is
    /// on the ledger as far as they were settled, and otherwise not known.
    pub(super) async fn give_up(self, shared: &Shared) {
        tracing::error!(job.id = self.lease.job.0, "a fault in Sluice itself: the job is failed, the worker goes on");
        let reason = "a fault in Sluice itself (a panic); please report it with the job's request".to_owned();
        self.fail(shared, ErrorClass::Abandoned, reason, None).await;
    }

    async fn fail(self, shared: &Shared, class: ErrorClass, reason: String, cost: Option<NanoUsd>) {
        let row = EndingRow {
            lease: self.lease,
            round: self.round,
            labels: self.labels,
            attempts: self.attempts,
            target: None,
            rung: None,
            after_fallback: false,
            repaired: false,
            failure: Some((class, reason)),
            cost,
            uncertain: NanoUsd::ZERO,
            input_tokens: 0,
            output_tokens: 0,
            request_id: None,
            response: None,
        };
        shared.settler.settle(Item { attempt: None, then: Then::End(Box::new(row)) }).await;
    }

    /// Puts the job back as it was.
    pub(super) async fn give_back(self, shared: &Shared, reason: &str) {
        let row = ParkRow { lease: self.lease, attempts: self.attempts, until: None, reason: reason.to_owned() };
        shared.settler.settle(Item { attempt: None, then: Then::Park(row) }).await;
    }
}
