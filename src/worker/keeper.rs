//! The one loop that keeps this process's part of every bucket: tells what was spent, and brings what is lent.

use super::Shared;
use super::bucket::{Base, Bucket};
use super::gate::Gate;
use crate::domain::shared_bucket::Report;
use crate::store::quota::Rewrite;
use crate::store::{StoreError, within};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Nothing is due for so long: looked again then, whatever happens.
const AT_LEAST_EVERY: Duration = Duration::from_secs(5);
/// A statement that takes longer is given up, and tried again on another connection: without limits that are lent no call is made.
const PATIENCE: Duration = Duration::from_secs(5);
/// After the database did not answer.
const AFTER_AN_ERROR: Duration = Duration::from_millis(250);
/// Somebody else was faster so often: enough for this time.
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
        let reports = due.into_iter().map(|bucket| {
            let (report, base) = bucket.report(false);
            (bucket, report, base)
        });
        match exchange(&shared, &plan.gate, reports.collect()).await {
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
    let held = plan.gate.kept_buckets().filter_map(|bucket| {
        let (report, base) = bucket.report(true);
        base.is_known.then(|| (Arc::clone(bucket), report, base))
    });
    if let Err(error) = exchange(shared, &plan.gate, held.collect()).await {
        tracing::debug!(error = %error, "could not give back what was lent; the lease will run out");
    }
}

/// Exchanges the reports for slices. Whoever finds that somebody else wrote in between does it over.
async fn exchange(
    shared: &Shared,
    gate: &Gate,
    mut reports: Vec<(Arc<Bucket>, Report, Base)>,
) -> Result<(), StoreError> {
    let worker = shared.worker_id();
    for _ in 0..TRIES {
        if reports.is_empty() {
            break;
        }
        let names: Vec<String> = reports.iter().map(|(bucket, ..)| bucket.name.clone()).collect();
        let (registers, now) = match within(PATIENCE, "reading the limits", shared.store.read_buckets(&names)).await {
            Ok(read) => read,
            Err(error) => return Err(give_up(reports, error)),
        };
        let mut rewrites = Vec::new();
        let mut told = Vec::new();
        for (index, (bucket, report, _)) in reports.iter().enumerate() {
            let Some(register) = registers.get(&bucket.name) else { continue };
            let mut state = register.state.clone();
            let allotment = state.exchange(worker, &bucket.limits(), report, now);
            let is_same = state.is_same_as(&register.state);
            told.push((index, register.id, is_same, allotment));
            if !is_same {
                rewrites.push(Rewrite { id: register.id, from: register.version, state });
            }
        }
        let written = if rewrites.is_empty() {
            Vec::new()
        } else {
            match within(PATIENCE, "sharing the limits", shared.store.write_buckets(&rewrites)).await {
                Ok(written) => written,
                // Perhaps it was written all the same. What was lent then counts as spent: nothing is lent twice.
                Err(error) => return Err(give_up(reports, error)),
            }
        };
        let mut done = vec![false; reports.len()];
        for (index, id, is_same, allotment) in told {
            if let Some((bucket, _, base)) = reports.get(index)
                && (is_same || written.contains(&id))
            {
                bucket.receive(base, &allotment);
                done[index] = true;
            }
        }
        let mut done = done.into_iter();
        reports.retain(|_| !done.next().unwrap_or(false));
    }
    for (bucket, report, _) in reports {
        bucket.failed(report);
    }
    gate.has_changed();
    Ok(())
}

fn give_up(reports: Vec<(Arc<Bucket>, Report, Base)>, error: StoreError) -> StoreError {
    for (bucket, report, _) in reports {
        bucket.failed(report);
    }
    error
}
