//! Opens calls before they are made, in batches: each batch takes the calls that arrived while the last one was on its
//! way.

use super::denied::Denied;
use super::loops::Loops;
use crate::store::call::OpenCall;
use crate::store::{Store, within};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Calls in one statement, at most.
const MAX_CALLS: usize = 500;
/// Statements under way at once.
const STATEMENTS: usize = 2;
/// Calls that may wait to be opened; a job that brings one more waits for room.
const BACKLOG: usize = 4_000;
/// How long a call waits to be opened. After that its job decides anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is in the database, and the claim holds.
    Yes,
    /// The claim is gone: the job was taken over or cancelled.
    Lost,
    /// The database does not answer: should this process die, the call could not be named.
    Away,
}

#[derive(Debug)]
struct Opening {
    call: OpenCall,
    /// Another call of its claim is under way.
    is_beside: bool,
    reply: oneshot::Sender<Opened>,
}

/// The sending end. Cheap to clone; when the last clone is dropped the loop ends.
#[derive(Clone, Debug)]
pub(super) struct Opener {
    openings: mpsc::Sender<Opening>,
}

impl Opener {
    /// An opener, and the loop that the caller has to run for it.
    pub fn new(store: Store, denied: Denied) -> (Self, OpenLoop) {
        let (openings, incoming) = mpsc::channel(BACKLOG);
        (Self { openings }, OpenLoop { store, denied, incoming })
    }

    /// Waits until the call is recorded in the database. `is_beside`: another call of the same claim is under way.
    pub async fn open(&self, call: OpenCall, is_beside: bool) -> Opened {
        let (reply, answer) = oneshot::channel();
        if self.openings.send(Opening { call, is_beside, reply }).await.is_err() {
            return Opened::Away;
        }
        answer.await.unwrap_or(Opened::Away)
    }
}

/// The receiving end: see [`OpenLoop::run`].
#[derive(Debug)]
pub(super) struct OpenLoop {
    store: Store,
    denied: Denied,
    incoming: mpsc::Receiver<Opening>,
}

impl OpenLoop {
    /// Runs until every [`Opener`] is dropped. A statement that panics counts as the end of a loop: a fault that lasts
    /// would leave a worker that begins no call and looks alive.
    pub async fn run(mut self, loops: Loops) {
        let free = Arc::new(Semaphore::new(STATEMENTS));
        let is_away = Arc::new(AtomicBool::new(false));
        while let Some(first) = self.incoming.recv().await {
            let permit = Arc::clone(&free).acquire_owned().await.expect("the semaphore is never closed");
            let mut openings = vec![first];
            while openings.len() < MAX_CALLS {
                match self.incoming.try_recv() {
                    Ok(opening) => openings.push(opening),
                    Err(_) => break,
                }
            }
            let (store, denied, is_away) = (self.store.clone(), self.denied.clone(), Arc::clone(&is_away));
            loops.finite("opening", async move {
                open(&store, openings, &denied, &is_away).await;
                drop(permit);
            });
        }
    }
}

async fn open(store: &Store, openings: Vec<Opening>, denied: &Denied, is_away: &AtomicBool) {
    let (beside, alone): (Vec<&Opening>, Vec<&Opening>) = openings.iter().partition(|opening| opening.is_beside);
    let (beside, alone) = (in_order(&beside), in_order(&alone));
    let noted = async {
        let alone = if alone.is_empty() { HashSet::new() } else { store.open_calls(&alone).await? };
        let beside = if beside.is_empty() { HashSet::new() } else { store.open_race_calls(&beside).await? };
        Ok((alone, beside))
    };
    let opened = within(PATIENCE, "opening calls", noted).await;
    denied.note("no calls are begun", &opened);
    // Logged once, not with every batch: a waiting job tries again every second.
    let was_away = is_away.swap(opened.is_err(), Ordering::AcqRel);
    if let Err(error) = &opened
        && !was_away
    {
        tracing::warn!(error = %error, "no call is begun before the database knows of it");
    }
    for Opening { call, is_beside, reply } in openings {
        let fence = call.lease.fence;
        let answer = match &opened {
            Ok((_, beside)) if is_beside && beside.contains(&(fence, call.number)) => Opened::Yes,
            Ok((alone, _)) if !is_beside && alone.contains(&fence) => Opened::Yes,
            Ok(_) => Opened::Lost,
            Err(_) => Opened::Away,
        };
        // A job that no longer waits was stopped.
        let _ = reply.send(answer);
    }
}

/// The calls, always in the same order, so that two statements do not wait for each other.
fn in_order(openings: &[&Opening]) -> Vec<OpenCall> {
    let mut calls: Vec<OpenCall> = openings.iter().map(|opening| opening.call.clone()).collect();
    calls.sort_by_key(|call| call.lease.job);
    calls
}
