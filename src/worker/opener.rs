//! Opens calls before they are made, in batches: each batch takes the calls that arrived while the last one was on its
//! way. A call that budgets cover is opened only if they have room for its worst case.

use super::denied::Denied;
use super::loops::Loops;
use crate::domain::budget::{BudgetStanding, Budgets, Period, Shortage};
use crate::store::budget::{Covered, Crossing, Look, NoMoney, OpenedCalls};
use crate::store::call::OpenCall;
use crate::store::claim::Lease;
use crate::store::{Store, StoreError, within};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

/// Calls in one statement, at most.
const MAX_CALLS: usize = 500;
/// Statements under way at once.
const STATEMENTS: usize = 2;
/// Calls that may wait to be opened; a job that brings one more waits for room.
const BACKLOG: usize = 4_000;
/// How long a call waits to be opened. After that its job decides anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked which budgets there are, if they change while calls are opened.
const LOOKS: u32 = 5;

/// Whether a call may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is in the database, and the claim holds. `is_reserved`: its worst case is reserved in a budget, and is given
    /// back when the call is booked, or by [`Opener::not_made`].
    Yes { is_reserved: bool },
    /// A budget has no room for it.
    NoMoney(Box<NoMoney>),
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

/// What the opener knows of budgets.
#[derive(Debug, Default)]
struct Known {
    look: Mutex<Arc<Look>>,
    /// Notified when a budget has refused a call.
    refused: Notify,
}

/// The sending end. Cheap to clone; when the last clone is dropped the loop ends.
#[derive(Clone, Debug)]
pub(super) struct Opener {
    openings: mpsc::Sender<Opening>,
    not_made: mpsc::UnboundedSender<(Lease, i16)>,
    known: Arc<Known>,
}

impl Opener {
    /// An opener, and the loop that the caller has to run for it.
    pub fn new(store: Store, denied: Denied, budgets: Arc<ArcSwap<Budgets>>) -> (Self, OpenLoop) {
        let (openings, incoming) = mpsc::channel(BACKLOG);
        let (not_made, unmade) = mpsc::unbounded_channel();
        let known = Arc::new(Known::default());
        let looped = OpenLoop {
            store,
            denied,
            incoming,
            unmade,
            given_back: not_made.clone(),
            known: Arc::clone(&known),
            budgets,
        };
        (Self { openings, not_made, known }, looped)
    }

    /// Waits until the call is recorded in the database. `is_beside`: another call of the same claim is under way.
    pub async fn open(&self, call: OpenCall, is_beside: bool) -> Opened {
        let (reply, answer) = oneshot::channel();
        if self.openings.send(Opening { call, is_beside, reply }).await.is_err() {
            return Opened::Away;
        }
        answer.await.unwrap_or(Opened::Away)
    }

    /// Gives back the reservation for a call that was opened and is not made.
    pub fn not_made(&self, lease: Lease, number: i16) {
        let _ = self.not_made.send((lease, number));
    }

    /// Waits until a budget refuses a call. Cancel safe.
    pub async fn refused(&self) {
        self.known.refused.notified().await;
    }
}

/// The receiving end: see [`OpenLoop::run`].
#[derive(Debug)]
pub(super) struct OpenLoop {
    store: Store,
    denied: Denied,
    incoming: mpsc::Receiver<Opening>,
    unmade: mpsc::UnboundedReceiver<(Lease, i16)>,
    given_back: mpsc::UnboundedSender<(Lease, i16)>,
    known: Arc<Known>,
    budgets: Arc<ArcSwap<Budgets>>,
}

/// What the statements of one batch share.
struct Opens {
    store: Store,
    denied: Denied,
    known: Arc<Known>,
    given_back: mpsc::UnboundedSender<(Lease, i16)>,
    /// Where budgets stand, as the worker sees them.
    budgets: Arc<ArcSwap<Budgets>>,
    is_away: AtomicBool,
}

impl OpenLoop {
    /// Runs until every [`Opener`] is dropped. A statement that panics counts as the end of a loop: a fault that lasts
    /// would leave a worker that begins no call and looks alive.
    pub async fn run(self, loops: Loops) {
        let Self { store, denied, mut incoming, mut unmade, given_back, known, budgets } = self;
        let free = Arc::new(Semaphore::new(STATEMENTS));
        let opens = Arc::new(Opens { store, denied, known, given_back, budgets, is_away: AtomicBool::new(false) });
        loop {
            let first = tokio::select! {
                first = incoming.recv() => first,
                Some(call) = unmade.recv() => {
                    let mut calls = vec![call];
                    while let Ok(call) = unmade.try_recv() {
                        calls.push(call);
                    }
                    let opens = Arc::clone(&opens);
                    loops.finite("giving back", async move { opens.give_back(calls).await });
                    continue;
                }
            };
            let Some(first) = first else { return };
            let permit = Arc::clone(&free).acquire_owned().await.expect("the semaphore is never closed");
            let mut openings = vec![first];
            while openings.len() < MAX_CALLS {
                match incoming.try_recv() {
                    Ok(opening) => openings.push(opening),
                    Err(_) => break,
                }
            }
            let opens = Arc::clone(&opens);
            loops.finite("opening", async move {
                opens.open(openings).await;
                drop(permit);
            });
        }
    }
}

/// The outcomes of calls, by fence and number; those that are missing were lost.
type Answers = HashMap<(i64, i16), Opened>;

impl Opens {
    async fn open(&self, openings: Vec<Opening>) {
        let opened = within(PATIENCE, "opening calls", self.note(&openings)).await;
        self.denied.note("no calls are begun", &opened);
        // Logged once, not with every batch: a waiting job tries again every second.
        let was_away = self.is_away.swap(opened.is_err(), Ordering::AcqRel);
        if let Err(error) = &opened
            && !was_away
        {
            tracing::warn!(error = %error, "no call is begun before the database knows of it");
        }
        let mut answers = opened.map_err(|_| ());
        for Opening { call, reply, .. } in openings {
            let answer = match &mut answers {
                Ok(answers) => answers.remove(&(call.lease.fence, call.number)).unwrap_or(Opened::Lost),
                Err(()) => Opened::Away,
            };
            // A job that no longer waits was stopped.
            if let Err(Opened::Yes { is_reserved: true }) = reply.send(answer) {
                let _ = self.given_back.send((call.lease, call.number));
            }
        }
    }

    /// Opens calls, those that budgets may cover apart from the others.
    async fn note(&self, openings: &[Opening]) -> Result<Answers, StoreError> {
        let mut answers = Answers::new();
        for is_beside in [false, true] {
            let calls: Vec<&OpenCall> =
                openings.iter().filter(|opening| opening.is_beside == is_beside).map(|opening| &opening.call).collect();
            for _ in 0..LOOKS {
                let look = Arc::clone(&self.known.look.lock());
                let left = calls.iter().filter(|call| !answers.contains_key(&(call.lease.fence, call.number)));
                let (covered, plain): (Vec<&OpenCall>, Vec<&OpenCall>) = left.partition(|call| look.may_cover(call));
                let is_known = self.note_plain(&in_order(&plain), is_beside, &look, &mut answers).await?
                    && self.note_covered(&in_order(&covered), is_beside, &look, &mut answers).await?;
                if is_known {
                    break;
                }
                let look = self.store.budgets().await?;
                *self.known.look.lock() = Arc::new(look);
            }
        }
        Ok(answers)
    }

    /// Returns whether there are the budgets that are known.
    async fn note_plain(
        &self,
        calls: &[OpenCall],
        is_beside: bool,
        look: &Look,
        answers: &mut Answers,
    ) -> Result<bool, StoreError> {
        if calls.is_empty() {
            return Ok(true);
        }
        let opened = if is_beside {
            self.store.open_race_calls(calls, look.version).await
        } else {
            self.store.open_calls(calls, look.version).await
        };
        let opened = match opened {
            Err(error) if error.waited_for_a_lock() => {
                let rest = self.without_locked(calls, error, answers).await?;
                return Box::pin(self.note_plain(&rest, is_beside, look, answers)).await;
            }
            opened => opened?,
        };
        let Some(opened) = opened else { return Ok(false) };
        answers.extend(opened.into_iter().map(|call| (call, Opened::Yes { is_reserved: false })));
        Ok(true)
    }

    /// The calls whose claims no other transaction has locked. The others wait: one that has cancelled their jobs may
    /// end in either way, and may take its time.
    async fn without_locked(
        &self,
        calls: &[OpenCall],
        error: StoreError,
        answers: &mut Answers,
    ) -> Result<Vec<OpenCall>, StoreError> {
        let claims: Vec<Lease> = calls.iter().map(|call| call.lease).collect();
        let locked = self.store.locked(&claims).await?;
        if locked.is_empty() {
            return Err(error);
        }
        let (wait, rest): (Vec<OpenCall>, Vec<OpenCall>) =
            calls.iter().cloned().partition(|call| locked.contains(&call.lease.fence));
        answers.extend(wait.into_iter().map(|call| ((call.lease.fence, call.number), Opened::Away)));
        Ok(rest)
    }

    /// Returns whether there are the budgets that are known.
    async fn note_covered(
        &self,
        calls: &[OpenCall],
        is_beside: bool,
        look: &Look,
        answers: &mut Answers,
    ) -> Result<bool, StoreError> {
        if calls.is_empty() {
            return Ok(true);
        }
        let opened = match self.store.open_covered_calls(calls, is_beside, look).await {
            Err(error) if error.waited_for_a_lock() => {
                let rest = self.without_locked(calls, error, answers).await?;
                return Box::pin(self.note_covered(&rest, is_beside, look, answers)).await;
            }
            opened => opened?,
        };
        let Some(OpenedCalls { outcomes, crossings, standings }) = opened else { return Ok(false) };
        self.see(&standings);
        crossings.iter().for_each(log);
        let mut is_refused = false;
        for (call, outcome) in calls.iter().zip(outcomes) {
            let answer = match outcome {
                Covered::Open => Opened::Yes { is_reserved: true },
                Covered::Lost => Opened::Lost,
                Covered::Refused(why) => {
                    is_refused |= matches!(why.refusal, Shortage::NoRoom { .. });
                    Opened::NoMoney(why)
                }
            };
            answers.insert((call.lease.fence, call.number), answer);
        }
        if is_refused {
            self.known.refused.notify_one();
        }
        Ok(true)
    }

    /// From its soft threshold on, jobs of a budget go another way: the next one already.
    fn see(&self, standings: &[BudgetStanding]) {
        let known = self.budgets.load();
        let differs = |it: &&BudgetStanding| {
            let before = known.0.iter().find(|known| known.budget.name == it.budget.name);
            before.is_some_and(|before| before.is_soft() != it.is_soft())
        };
        if standings.iter().any(|it| differs(&it)) {
            let mut budgets = Budgets::clone(&known);
            for it in &mut budgets.0 {
                if let Some(now) = standings.iter().find(|now| now.budget.name == it.budget.name) {
                    it.clone_from(now);
                }
            }
            self.budgets.store(Arc::new(budgets));
        }
    }

    /// A reservation that is left because this fails goes when its claim is over.
    async fn give_back(&self, calls: Vec<(Lease, i16)>) {
        if let Err(error) = within(PATIENCE, "giving back what was reserved", self.store.release(&calls)).await {
            tracing::debug!(error = %error, "what was reserved for calls that were not made is given back later");
        }
    }
}

/// Tells of a threshold that was crossed. Of all workers one finds that.
pub(super) fn log(crossing: &Crossing) {
    let Crossing { standing, is_full } = crossing;
    let budget = &standing.budget;
    let turns = if budget.period == Period::Once { "" } else { ", its window turns" };
    let (spent, uncertain, limit) = (standing.spent, standing.uncertain, budget.limit);
    if *is_full {
        tracing::warn!(
            budget = budget.name,
            covers = %budget.scope,
            spent = %spent,
            uncertain = %uncertain,
            reserved = %standing.reserved,
            limit = %limit,
            "a budget has no room: its work waits until calls under way give money back{turns}, or it is raised"
        );
    } else {
        tracing::warn!(
            budget = budget.name,
            covers = %budget.scope,
            spent = %spent,
            uncertain = %uncertain,
            limit = %limit,
            then_route = budget.then_route,
            "a budget is past its soft threshold"
        );
    }
}

/// The calls, always in the same order, so that two statements do not wait for each other.
fn in_order(calls: &[&OpenCall]) -> Vec<OpenCall> {
    let mut calls: Vec<OpenCall> = calls.iter().map(|call| (*call).clone()).collect();
    calls.sort_by_key(|call| call.lease.job);
    calls
}
