//! A worker's life: its loops are started, and shut down in order. The worker first stops claiming, then waits for the
//! calls under way, then writes everything, and only then signs off.

use super::{
    GOOD_BYE, LifeSign, Shared, Summary, Worker, alerts, claimer, game_days, gossip, heartbeat, keeper, probes,
    schedules, upkeep,
};
use crate::store::within;
use futures_util::FutureExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

impl Worker {
    /// Works until `shutdown` completes, until no work is left (where the settings say so), or until one of its loops
    /// has ended unexpectedly. Then it drains: it claims no more, lets calls under way finish within the grace period,
    /// writes everything, and signs off.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
        sign: impl Fn(LifeSign) + Send + Sync + 'static,
    ) -> Summary {
        let Self { shared, settle_loop, open_loop, span_loop, loops } = self;
        let sign: Arc<dyn Fn(LifeSign) + Send + Sync> = Arc::new(sign);
        let mut hurry = std::pin::pin!(hurry.fuse());
        let settling = tokio::spawn(settle_loop.run(loops.clone()));
        let tracing = span_loop.map(|sending| {
            let loops = loops.clone();
            tokio::spawn(async move {
                // Traces are a convenience: the worker goes on without them.
                if let Err(words) = loops.guard("traces", sending.run()).await {
                    tracing::error!(
                        "no more traces are sent, because of a fault in Sluice ({words}). Please report this"
                    );
                }
            })
        });
        let opening = loops.endless("opener", open_loop.run(loops.clone()));
        // Jobs in hand stay this worker's until their outcomes are written, no matter which loop ends.
        let heartbeat = loops.lasting("heartbeat", {
            let shared = Arc::clone(&shared);
            move || heartbeat::run(Arc::clone(&shared))
        });
        let upkeep = loops.endless("upkeep", upkeep::run(Arc::clone(&shared)));
        let scheduling = loops.endless("schedules", schedules::run(Arc::clone(&shared)));
        let playing = loops.endless("game days", game_days::run(Arc::clone(&shared)));
        let probing = loops.endless("probes", probes::run(Arc::clone(&shared)));
        let keeping = loops.endless("keeper", keeper::run(Arc::clone(&shared)));
        // Before the first call: a provider that has asked for a rest has asked every worker.
        let mut heard = gossip::Hearsay::default();
        if let Err(error) = heard.listen(&shared).await {
            tracing::debug!(error = %error, "could not hear what is known of targets and keys");
        }
        alerts::begin(&shared).await;
        let looking = loops.endless("alerts", alerts::run(Arc::clone(&shared)));
        let sending = loops.endless("messages", alerts::send(Arc::clone(&shared)));
        let sharing = loops.endless("gossip", gossip::run(Arc::clone(&shared), heard));
        let mut claiming = loops.finite("claimer", claimer::run(Arc::clone(&shared), Arc::clone(&sign)));
        tracing::info!(
            worker.id = shared.worker_id(),
            max_in_flight = shared.settings().max_in_flight,
            "worker is ready"
        );
        sign(LifeSign::Ready);
        let claims_no_more = tokio::select! {
            () = shutdown => false,
            () = loops.fell() => false,
            _ = &mut claiming => true,
        };
        shared.stop.cancel();
        sign(LifeSign::Stopping);
        // What it is enqueueing is rolled back, and another worker begins anew.
        scheduling.abort();
        // Nothing new is begun that a provider's health would matter to.
        probing.abort();
        playing.abort();
        if !claims_no_more {
            // A claim under way brings jobs that have to be given back: wait for it first.
            let _ = claiming.await;
        }
        let in_hand = shared.hands.jobs();
        let grace = shared.settings().drain_timeout;
        if in_hand > 0 {
            tracing::info!(jobs = in_hand, grace_seconds = grace.as_secs(), "draining");
        }
        shared.hands.tasks.close();
        tokio::select! {
            () = shared.hands.tasks.wait() => {}
            () = tokio::time::sleep(grace) => {
                tracing::warn!(jobs = shared.hands.jobs(), "drain_timeout is over; dropping the remaining calls");
            }
            () = &mut hurry => {
                tracing::warn!(jobs = shared.hands.jobs(), "a second signal came; dropping the remaining calls");
            }
        }
        shared.abort.cancel();
        shared.hands.tasks.wait().await;
        upkeep.abort();
        let _ = upkeep.await;
        keeping.abort();
        let _ = keeping.await;
        keeper::close(&shared).await;
        sharing.abort();
        let _ = sharing.await;
        gossip::close(&shared).await;
        looking.abort();
        let _ = looking.await;
        if loops.fallen().is_some() {
            // A claim may have been under way when its loop ended: this process does not know the jobs of that claim.
            let known = shared.known_fences();
            let given_back = shared.store.give_back_unknown(shared.worker_id(), &known);
            if let Err(error) = within(GOOD_BYE, "comparing what is held", given_back).await {
                tracing::warn!(
                    error = %error,
                    "jobs of an interrupted claim stay with this worker until another worker rescues them"
                );
            }
        }
        // The lease is kept until the last outcome is written.
        let spooled = all_is_settled(&shared, hurry).await;
        if spooled == 0 && loops.fallen().is_none() {
            alerts::close(&shared).await;
        }
        sending.abort();
        let _ = sending.await;
        heartbeat.abort();
        let _ = heartbeat.await;
        // After the last heartbeat, which would write over it.
        if let Some(part) = loops.fallen() {
            let noted = shared.store.note_fallen(shared.worker_id(), part);
            if let Err(error) = within(GOOD_BYE, "noting which part has failed", noted).await {
                tracing::debug!(error = %error, "could not note which part has failed");
            }
        }
        if spooled > 0 {
            tracing::error!(
                outcomes = spooled,
                "the database is unreachable: outcomes stay in the spool, and the next worker that starts on this \
                 machine writes them"
            );
        } else {
            // Only now: a worker that has signed off holds no job any more.
            match within(GOOD_BYE, "signing off", shared.store.sign_off(shared.worker_id())).await {
                Ok(()) => close_spool(&shared).await,
                Err(error) => tracing::warn!(error = %error, "could not sign off; the lease will run out"),
            }
        }
        if let Some(tracing) = tracing {
            shared.spans.close(tracing).await;
        }
        let counters = shared.settler.counters();
        let summary = Summary {
            succeeded: counters.succeeded.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            given_back: counters.parked.load(Ordering::Relaxed),
            attempts: counters.attempts.load(Ordering::Relaxed),
            spooled,
            lost: counters.lost.load(Ordering::Relaxed),
            outgrown: shared.outgrown.get().copied(),
            fallen: loops.fallen(),
        };
        // Before the last clones of what sends to them are dropped, which would end them.
        settling.abort();
        opening.abort();
        drop(shared);
        tracing::info!(
            jobs.succeeded = summary.succeeded,
            jobs.failed = summary.failed,
            attempts = summary.attempts,
            "worker is done"
        );
        summary
    }
}

/// Waits until every outcome is written, or until the rest is on the disk and the database has had its time. Returns
/// how many outcomes remain in the spool.
async fn all_is_settled(shared: &Shared, mut hurry: impl Future<Output = ()> + Unpin) -> u64 {
    let mut give_up_at = Instant::now() + shared.settings().drain_timeout.max(GOOD_BYE);
    let mut is_hurried = false;
    while shared.settler.unsettled() > 0 {
        if shared.settler.unkept() == 0 && Instant::now() >= give_up_at {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
            () = &mut hurry, if !is_hurried => {
                is_hurried = true;
                give_up_at = Instant::now() + GOOD_BYE;
            }
        }
    }
    shared.settler.unsettled()
}

/// Removes the spool of a worker that has signed off.
async fn close_spool(shared: &Shared) {
    let Some(spool) = shared.settler.spool().cloned() else { return };
    let removed = tokio::task::spawn_blocking(move || spool.forget()).await;
    if let Ok(Err(error)) = removed {
        tracing::debug!(error = %error, "the empty spool stays");
    }
}
