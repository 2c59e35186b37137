//! The one loop that keeps this process's part of every bucket: it reports the units spent, and fetches the units lent.

use super::Shared;
use super::bucket::{Base, Bucket};
use super::gate::Gate;
use crate::domain::Timestamp;
use crate::domain::shared_bucket::{Allotment, Report};
use crate::store::quota::{Register, Rewrite};
use crate::store::{StoreError, within};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The longest time between two looks, even when nothing is due.
const AT_LEAST_EVERY: Duration = Duration::from_secs(5);
/// A statement that takes longer is given up and tried again on another connection: no call is made without limits that
/// are lent.
const PATIENCE: Duration = Duration::from_secs(5);
/// The rest after the database did not answer.
const AFTER_AN_ERROR: Duration = Duration::from_millis(250);
/// How often a report may lose to other processes before the loop leaves it for this time.
const TRIES: u32 = 20;

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut is_away = false;
    loop {
        let plan = shared.plan();
        let now = Instant::now();
        let mut next = now + AT_LEAST_EVERY;
        let mut due = Vec::new();
        for bucket in plan.gate.kept_buckets() {
            match bucket.due(now) {
                Some(at) if at <= now => due.push(Arc::clone(bucket)),
                Some(at) => next = next.min(at),
                None => {}
            }
        }
        if due.is_empty() {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = plan.gate.wanted() => {}
            }
            continue;
        }
        let dispatches = due.into_iter().map(|bucket| Dispatch::new(bucket, false));
        match exchange(&shared, &plan.gate, dispatches.collect()).await {
            Ok(()) => is_away = false,
            Err(error) => {
                if !is_away {
                    tracing::warn!(error = %error, "cannot share limits; spending what is held, then waiting");
                }
                is_away = true;
                tokio::time::sleep(AFTER_AN_ERROR).await;
            }
        }
    }
}

/// Gives everything back, so that the others need not wait for the lease to run out.
pub(super) async fn close(shared: &Shared) {
    let plan = shared.plan();
    let dispatches = plan.gate.kept_buckets().map(|bucket| Dispatch::new(Arc::clone(bucket), true));
    let held = dispatches.filter(|dispatch| dispatch.base.is_known);
    if let Err(error) = exchange(shared, &plan.gate, held.collect()).await {
        tracing::debug!(error = %error, "could not give back what was lent; the lease will run out");
    }
}

/// A bucket's report on its way to the others, and what the bucket needs to take in their answer.
struct Dispatch {
    bucket: Arc<Bucket>,
    report: Report,
    base: Base,
}

/// The result of a report, if the state has not been written to since it was read.
struct Offer {
    /// The bucket's number.
    id: i64,
    /// The offer changes the state, and holds once the new state is written.
    is_news: bool,
    allotment: Allotment,
}

impl Dispatch {
    fn new(bucket: Arc<Bucket>, is_closing: bool) -> Self {
        let (report, base) = bucket.report(is_closing);
        Self { bucket, report, base }
    }

    /// Works out the result of the report, and the state to be written for it, if any.
    fn work_out(&self, worker: i64, register: &Register, now: Timestamp) -> (Offer, Option<Rewrite>) {
        let mut state = register.state.clone();
        let allotment = state.exchange(worker, &self.bucket.limits(), &self.report, now);
        let is_news = !state.is_same_as(&register.state);
        let rewrite = is_news.then_some(Rewrite { id: register.id, from: register.version, state });
        (Offer { id: register.id, is_news, allotment }, rewrite)
    }
}

/// Exchanges the reports for slices. Where another process wrote in between, the exchange is repeated.
async fn exchange(shared: &Shared, gate: &Gate, mut dispatches: Vec<Dispatch>) -> Result<(), StoreError> {
    let worker = shared.worker_id();
    for _ in 0..TRIES {
        if dispatches.is_empty() {
            break;
        }
        let names: Vec<String> = dispatches.iter().map(|dispatch| dispatch.bucket.name.clone()).collect();
        let (registers, now) = match within(PATIENCE, "reading the limits", shared.store.read_buckets(&names)).await {
            Ok(read) => read,
            Err(error) => return Err(give_up(dispatches, error)),
        };
        let (mut offers, mut rewrites) = (Vec::with_capacity(dispatches.len()), Vec::new());
        for dispatch in &dispatches {
            let worked_out = registers.get(&dispatch.bucket.name).map(|found| dispatch.work_out(worker, found, now));
            let (offer, rewrite) = worked_out.unzip();
            offers.push(offer);
            rewrites.extend(rewrite.flatten());
        }
        let written = if rewrites.is_empty() {
            Vec::new()
        } else {
            match within(PATIENCE, "sharing the limits", shared.store.write_buckets(&rewrites)).await {
                Ok(written) => written,
                // The report may have been written all the same. The units lent then count as spent, so nothing is lent
                // twice.
                Err(error) => return Err(give_up(dispatches, error)),
            }
        };
        let mut again = Vec::new();
        for (dispatch, offer) in dispatches.into_iter().zip(offers) {
            match offer {
                Some(offer) if !offer.is_news || written.contains(&offer.id) => {
                    dispatch.bucket.receive(&dispatch.base, &offer.allotment);
                }
                _ => again.push(dispatch),
            }
        }
        dispatches = again;
    }
    for dispatch in dispatches {
        dispatch.bucket.failed(dispatch.report);
    }
    gate.has_changed();
    Ok(())
}

fn give_up(dispatches: Vec<Dispatch>, error: StoreError) -> StoreError {
    for dispatch in dispatches {
        dispatch.bucket.failed(dispatch.report);
    }
    error
}
