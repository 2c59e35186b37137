//! The shell around the decision: claims jobs, runs them, settles what came of them.
//!
//! [`Worker::run`] starts three loops that live as long as the process (claimer, heartbeat, upkeep), one task per
//! job in hand, and the settler, and takes them down in order: first no more claims, then the calls under way are
//! waited for, then everything is written, and only then the worker signs off.

pub mod bucket;
mod claimer;
pub mod clock;
mod denied;
mod explanation;
pub mod gate;
mod heartbeat;
mod held_job;
mod history;
mod judge;
mod keeper;
mod keys;
mod loops;
mod observer;
mod opener;
mod outlet;
pub mod plan;
mod recent;
mod reload;
mod retention;
mod run_job;
mod schemas;
pub mod settler;
mod slots;
pub mod spool;
mod strangers;
mod suspects;
pub mod totals;
mod troubles;
mod upkeep;

use crate::domain::retention::Retention;
use crate::permissions::{Flaw, require_private_folder};
use crate::store::claim::{Claimed, Lease, PastAttempt};
use crate::store::timeline::Loss;
use crate::store::{SchemaVersion, Store, within};
use clock::Clock;
use futures_util::FutureExt as _;
pub use loops::Loops;
pub use observer::{Observer, Vitals};
use plan::Plan;
pub use reload::Reloader;
use serde_json::{Value, json};
use settler::Settler;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Without a successful heartbeat for this long no call is started: the lease may be another's by now.
const SELF_FENCE: Duration = Duration::from_secs(15);

/// A claim loop that has not got on for this long is not working: it turns every second at least, and what it waits for
/// takes milliseconds.
const STALLED: Duration = Duration::from_secs(10);

/// Heartbeats are this far apart at most, also after one that was waited for in vain; and some time to connect.
const STEADY: Duration = Duration::from_secs(10);

/// How long the database is waited for at the end, at least.
const GOOD_BYE: Duration = Duration::from_secs(5);

/// How a worker is to work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Jobs in hand at once, at most.
    pub max_in_flight: usize,
    /// With so many bytes of requests in hand no job is taken.
    pub max_in_flight_bytes: usize,
    /// How long calls under way may go on after a stop.
    pub drain_timeout: Duration,
    /// A job that so many workers died with, the last of which held no other, is failed rather than tried again.
    pub max_crashes: u16,
    /// How long finished work is kept; `None`: for ever.
    pub retention: Option<Retention>,
    /// Stop by itself when nothing is left to do.
    pub until_done: bool,
    /// Work on the jobs of this batch only.
    pub only_batch: Option<String>,
    /// Where outcomes wait on disk while the database is away; `None`: in memory.
    pub spool: Option<spool::SpoolSettings>,
    /// Whether the worker does without that folder when it cannot be written to.
    pub spool_is_optional: bool,
}

/// How a job in hand is told that it is not this worker's any more.
#[derive(Clone, Debug, Default)]
struct Hold {
    /// It was cancelled, or another answer came: its call is dropped.
    recalled: CancellationToken,
    /// How many workers have died with it in hand.
    crashes: u16,
    /// Others may have it. A call under way goes on, since it is paid for, but none is started any more.
    lost: CancellationToken,
}

/// What the parts of a worker share.
struct Shared {
    store: Store,
    clock: Clock,
    /// As configured now.
    settings: Mutex<Arc<Settings>>,
    /// As configured now; whoever began with an earlier one goes over at its next decision.
    plan: Mutex<Arc<Plan>>,
    settler: Settler,
    opener: opener::Opener,
    /// Which database this is, for spools.
    installation: String,
    /// No more claims, no more calls: what is under way may finish.
    stop: CancellationToken,
    /// The grace is over: calls under way are dropped.
    abort: CancellationToken,
    /// Jobs in hand, by fence.
    held: Mutex<HashMap<i64, Hold>>,
    holding: AtomicUsize,
    /// About how many bytes their requests take.
    holding_bytes: AtomicUsize,
    /// What the answers of jobs in hand are to be like.
    schemas: schemas::Schemas,
    /// Told whenever a job leaves.
    freed: Notify,
    tasks: TaskTracker,
    /// What tells this process from all others, also from those that get its number after the database has gone back in
    /// time.
    life: String,
    /// This process's number in the worker table; changes when it was declared dead and begins anew.
    id: AtomicI64,
    last_beat: Mutex<Instant>,
    /// When the claim loop last turned, or got on within a turn.
    claimer_went_on: Mutex<Instant>,
    /// Since when every heartbeat has reached the database; `None`: the last one did not.
    steady_since: Mutex<Option<Instant>>,
    /// Why the last heartbeat did not reach the database.
    unheard: Mutex<Option<String>>,
    beaten: Notify,
    /// What is known of the history of the database.
    history: tokio::sync::Mutex<history::Known>,
    /// Told when the next heartbeat is wanted at once.
    beat_wanted: Notify,
    /// Heartbeats that were sent.
    beats: AtomicI64,
    /// A commit of this worker's that was confirmed and is gone, until that is noted.
    loss: Mutex<Option<Loss>>,
    claimed: AtomicU64,
    started: Instant,
    /// Set when a migration has made this binary too old for the database.
    outgrown: OnceLock<SchemaVersion>,
}

/// A fact about the worker's life that whoever runs it may want to pass on (to systemd, to a progress line).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Registered and claiming.
    Ready,
    /// The claim loop has turned.
    Alive,
    /// Stopping: no more claims.
    Stopping,
}

/// What a worker did in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Jobs that succeeded.
    pub succeeded: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs given back.
    pub given_back: u64,
    /// Calls made.
    pub attempts: u64,
    /// Outcomes that wait in the spool, because the database was away to the end.
    pub spooled: u64,
    /// It stopped by itself, because the schema had become too new for it.
    pub outgrown: Option<SchemaVersion>,
    /// It stopped by itself, because this part of it had ended unasked.
    pub fallen: Option<&'static str>,
}

impl Shared {
    fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops in order when the schema has become too new for this binary.
    fn mind_schema(&self, version: SchemaVersion) {
        if version.has_outgrown() && self.outgrown.set(version).is_ok() {
            tracing::error!(
                schema = version.found,
                needed = version.oldest,
                known = version.known,
                "this binary is too old for the database's schema, which has been migrated; stopping: upgrade sluice on this machine"
            );
            self.stop.cancel();
        }
    }

    fn worker_id(&self) -> i64 {
        self.id.load(Ordering::Acquire)
    }

    /// Whether the claim loop has got on lately.
    fn is_claiming(&self) -> bool {
        self.claimer_went_on.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < STALLED
    }

    fn lease_is_fresh(&self) -> bool {
        self.last_beat().elapsed() < SELF_FENCE
    }

    /// Whether the database was there for long enough that every worker that lives has said so: when it was away for
    /// longer than a lease, all leases have run out, and nobody has died.
    fn others_have_had_their_time(&self) -> bool {
        let since = *self.steady_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() >= STEADY)
    }

    /// When the last heartbeat was sent that has reached the database.
    fn last_beat(&self) -> Instant {
        *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows_of_a_loss(&self) -> bool {
        self.loss.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    async fn lease_renewed(&self) {
        // The timeout is for a beat that came between the caller's look and this wait.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.beaten.notified()).await;
    }

    fn free_slots(&self) -> usize {
        self.settings().max_in_flight.saturating_sub(self.holding.load(Ordering::Acquire))
    }

    /// For how many bytes of requests there is room.
    fn room(&self) -> usize {
        let taken = self.holding_bytes.load(Ordering::Acquire).saturating_add(self.schemas.bytes());
        self.settings().max_in_flight_bytes.saturating_sub(taken)
    }

    /// Sets a claimed job on its way.
    fn start(self: &Arc<Self>, claimed: Claimed, past: Vec<PastAttempt>) {
        let hold = Hold { crashes: u16::try_from(claimed.crashes).unwrap_or(0), ..Hold::default() };
        let fence = claimed.lease.fence;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(fence, hold.clone());
        let bytes = claimed.weight;
        self.holding.fetch_add(1, Ordering::AcqRel);
        self.holding_bytes.fetch_add(bytes, Ordering::AcqRel);
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            // Given back on drop, so that a panic cannot leak the slot.
            let slot = Slot { shared: Arc::clone(&shared), fence, bytes };
            let last_words = held_job::HeldJob::of(&claimed);
            let run = AssertUnwindSafe(run_job::run_job(Arc::clone(&shared), claimed, past, hold));
            if run.catch_unwind().await.is_err() {
                // The row would stay in this worker's hands for as long as it lives. The job's data did it, so another
                // worker would fare no better.
                last_words.give_up(&shared).await;
            }
            drop(slot);
        });
    }

    /// Calls jobs back that were cancelled meanwhile.
    fn recall(&self, leases: &[Lease]) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for lease in leases {
            if let Some(hold) = held.get(&lease.fence) {
                hold.recalled.cancel();
            }
        }
    }

    /// The lease is gone, and with it the right to every job in hand.
    fn lose_all(&self) {
        for hold in self.held.lock().unwrap_or_else(PoisonError::into_inner).values() {
            hold.lost.cancel();
        }
    }

    /// Every claim that is in hand or not settled yet.
    fn known_fences(&self) -> Vec<i64> {
        // In this order: what leaves the hand is with the settler before.
        let mut known: Vec<i64> = self.held.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        known.extend(self.settler.counters().unsettled());
        known
    }

    /// What is published with every heartbeat.
    fn stats(&self) -> Value {
        let counters = self.settler.counters();
        let (plan, now) = (self.plan(), self.clock.now());
        let waits = plan.routes.iter().filter_map(|(name, route)| {
            let hold_up = route.hold_up(now)?;
            Some((name.clone(), json!({ "for": hold_up })))
        });
        json!({
            "life": self.life,
            "beats": self.beats.load(Ordering::Acquire),
            "in_flight": self.holding.load(Ordering::Relaxed),
            "max_in_flight": self.settings().max_in_flight,
            "in_flight_bytes": self.holding_bytes.load(Ordering::Relaxed).saturating_add(self.schemas.bytes()),
            "claimed": self.claimed.load(Ordering::Relaxed),
            "succeeded": counters.succeeded.load(Ordering::Relaxed),
            "failed": counters.failed.load(Ordering::Relaxed),
            "attempts": counters.attempts.load(Ordering::Relaxed),
            "given_back": counters.parked.load(Ordering::Relaxed),
            "fenced_out": counters.fenced_out.load(Ordering::Relaxed),
            "unsettled": self.settler.unsettled(),
            "stopping": self.stop.is_cancelled(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "only_batch": self.settings().only_batch,
            "routes": plan.routes.keys().collect::<Vec<_>>(),
            "waits": waits.collect::<serde_json::Map<_, _>>(),
            "gate": plan.gate.snapshot(now),
        })
    }
}

/// A place in the worker, free again on drop.
struct Slot {
    shared: Arc<Shared>,
    fence: i64,
    /// What its request takes.
    bytes: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.fence);
        self.shared.holding.fetch_sub(1, Ordering::AcqRel);
        self.shared.holding_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.shared.freed.notify_one();
    }
}

/// One worker process.
pub struct Worker {
    shared: Arc<Shared>,
    settle_loop: settler::SettleLoop,
    open_loop: opener::OpenLoop,
    loops: Loops,
}

impl Worker {
    /// Registers a worker. It does nothing before [`Worker::run`], except that what workers of this machine left behind
    /// is written, and their jobs are given back.
    ///
    /// # Errors
    /// When the database does not answer or has another schema, or the spool cannot be had and is not optional.
    pub async fn register(store: Store, plan: Plan, settings: Settings) -> anyhow::Result<Self> {
        store.require_schema().await?;
        let installation = store.installation().await?;
        if let Some(spool) = &settings.spool {
            require_private(spool)?;
            let left = spool::Spool::abandoned(spool, &installation);
            store.knows_of_jobs(left.iter().flatten().filter_map(|left| left.highest));
            history::look_first(&store).await?;
            match left {
                Ok(left) => Box::pin(outlet::take_over(&store, left, settings.max_crashes)).await?,
                // What that means is said when this worker's own is made.
                Err(_) if settings.spool_is_optional => 0,
                Err(error) => return Err(cannot_spool(spool, &error)),
            };
        } else {
            history::look_first(&store).await?;
        }
        let (id, now) = store.register(&host(), pid(), env!("CARGO_PKG_VERSION")).await?;
        let spool = match make_spool(&settings, &installation, id) {
            Ok(spool) => spool,
            Err(error) => {
                // It will not come up, and should not look as if it had.
                let _ = within(GOOD_BYE, "signing off", store.sign_off(id)).await;
                return Err(error);
            }
        };
        let (settler, settle_loop) = Settler::new(store.clone(), spool);
        let life = format!("{:016x}", RandomState::new().build_hasher().finish());
        let (opener, open_loop) = opener::Opener::new(store.clone(), settler.counters().denied.clone());
        let shared = Arc::new(Shared {
            store,
            clock: Clock::new(now),
            settings: Mutex::new(Arc::new(settings)),
            plan: Mutex::new(Arc::new(plan)),
            settler,
            opener,
            installation,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            held: Mutex::new(HashMap::new()),
            holding: AtomicUsize::new(0),
            holding_bytes: AtomicUsize::new(0),
            schemas: schemas::Schemas::new(),
            freed: Notify::new(),
            tasks: TaskTracker::new(),
            life,
            id: AtomicI64::new(id),
            last_beat: Mutex::new(Instant::now()),
            claimer_went_on: Mutex::new(Instant::now()),
            steady_since: Mutex::new(None),
            unheard: Mutex::new(None),
            beaten: Notify::new(),
            history: tokio::sync::Mutex::default(),
            beat_wanted: Notify::new(),
            beats: AtomicI64::new(0),
            loss: Mutex::new(None),
            claimed: AtomicU64::new(0),
            started: Instant::now(),
            outgrown: OnceLock::new(),
        });
        Ok(Self { shared, settle_loop, open_loop, loops: Loops::default() })
    }

    /// Finds out whether a worker could be registered here and now, and have its spool, for a command that has
    /// something to do before. What is left of it is the row of a worker that has signed off.
    ///
    /// # Errors
    /// Those of [`Worker::register`].
    pub async fn rehearse(store: &Store, settings: &Settings) -> anyhow::Result<()> {
        settings.spool.as_ref().map_or(Ok(()), require_private)?;
        store.require_schema().await?;
        let installation = store.installation().await?;
        let (id, _) = store.register(&host(), pid(), env!("CARGO_PKG_VERSION")).await?;
        let spool = if settings.spool_is_optional { Ok(None) } else { make_spool(settings, &installation, id) };
        store.sign_off(id).await?;
        if let Some(spool) = spool? {
            spool.forget()?;
        }
        Ok(())
    }

    /// What it is made of, for what else has to go on as long as it works.
    #[must_use]
    pub fn loops(&self) -> Loops {
        self.loops.clone()
    }

    /// A handle that asks what the worker is doing while it runs.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer { shared: Arc::clone(&self.shared) }
    }

    /// A handle that gives it another configuration while it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader { shared: Arc::clone(&self.shared) }
    }

    /// Works until `shutdown` completes, or until nothing is left to do where the settings say so, or until one of its
    /// loops has ended unasked, then drains: no more claims, calls under way finish within the grace, everything is
    /// written, the worker signs off.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
        sign: impl Fn(Sign) + Send + Sync + 'static,
    ) -> Summary {
        let Self { shared, settle_loop, open_loop, loops } = self;
        let sign: Arc<dyn Fn(Sign) + Send + Sync> = Arc::new(sign);
        let mut hurry = std::pin::pin!(hurry.fuse());
        let settling = tokio::spawn(settle_loop.run(loops.clone()));
        let opening = loops.finite("opener", open_loop.run());
        let mut heartbeat = loops.endless("heartbeat", heartbeat::run(Arc::clone(&shared)));
        let upkeep = loops.endless("upkeep", upkeep::run(Arc::clone(&shared)));
        let keeping = loops.endless("keeper", keeper::run(Arc::clone(&shared)));
        let mut claiming = loops.finite("claimer", claimer::run(Arc::clone(&shared), Arc::clone(&sign)));
        tracing::info!(
            worker.id = shared.worker_id(),
            max_in_flight = shared.settings().max_in_flight,
            "worker is ready"
        );
        sign(Sign::Ready);
        let claims_no_more = tokio::select! {
            () = shutdown => false,
            () = loops.fell() => false,
            _ = &mut claiming => true,
        };
        shared.stop.cancel();
        sign(Sign::Stopping);
        if !claims_no_more {
            // A claim that is under way brings jobs that have to be given back: let it come home first.
            let _ = claiming.await;
        }
        if heartbeat.is_finished() {
            // What is in hand stays this worker's until it is written.
            heartbeat = loops.endless("heartbeat", heartbeat::run(Arc::clone(&shared)));
        }
        let in_hand = shared.holding.load(Ordering::Acquire);
        let grace = shared.settings().drain_timeout;
        if in_hand > 0 {
            tracing::info!(jobs = in_hand, grace_seconds = grace.as_secs(), "draining");
        }
        shared.tasks.close();
        tokio::select! {
            () = shared.tasks.wait() => {}
            () = tokio::time::sleep(grace) => {
                tracing::warn!(jobs = shared.holding.load(Ordering::Acquire), "the grace is over; dropping the calls that are left");
            }
            () = &mut hurry => {
                tracing::warn!(jobs = shared.holding.load(Ordering::Acquire), "told to hurry; dropping the calls that are left");
            }
        }
        shared.abort.cancel();
        shared.tasks.wait().await;
        upkeep.abort();
        let _ = upkeep.await;
        keeping.abort();
        let _ = keeping.await;
        keeper::close(&shared).await;
        if loops.fallen().is_some() {
            // A claim may have been under way when its loop ended: nothing here knows of its jobs.
            let known = shared.known_fences();
            let given_back = shared.store.give_back_unknown(shared.worker_id(), &known);
            if let Err(error) = within(GOOD_BYE, "comparing what is held", given_back).await {
                tracing::warn!(error = %error, "jobs of a claim that was cut stay in this worker's hands until they are rescued");
            }
        }
        // The lease is kept until the last outcome is written.
        let spooled = all_is_settled(&shared, hurry).await;
        heartbeat.abort();
        let _ = heartbeat.await;
        if spooled > 0 {
            tracing::error!(
                outcomes = spooled,
                "the database is away: outcomes stay in the spool, and are written by the next worker that starts on this machine"
            );
        } else {
            // Only now: whoever signs off holds nothing any more.
            match within(GOOD_BYE, "signing off", shared.store.sign_off(shared.worker_id())).await {
                Ok(()) => close_spool(&shared).await,
                Err(error) => tracing::warn!(error = %error, "could not sign off; the lease will run out"),
            }
        }
        let counters = shared.settler.counters();
        let summary = Summary {
            succeeded: counters.succeeded.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            given_back: counters.parked.load(Ordering::Relaxed),
            attempts: counters.attempts.load(Ordering::Relaxed),
            spooled,
            outgrown: shared.outgrown.get().copied(),
            fallen: loops.fallen(),
        };
        drop(shared);
        settling.abort();
        opening.abort();
        tracing::info!(
            jobs.succeeded = summary.succeeded,
            jobs.failed = summary.failed,
            attempts = summary.attempts,
            "worker is done"
        );
        summary
    }
}

/// Answers wait in the spool, and what stands in it is believed. A folder to which others have access is refused also
/// where it would be done without: what is in it already cannot be told from what they have put there.
fn require_private(spool: &spool::SpoolSettings) -> anyhow::Result<()> {
    match require_private_folder(&spool.dir) {
        Err(exposed) if matches!(exposed.flaw, Flaw::Readable(_)) => {
            anyhow::bail!(
                "the spool {exposed}. Answers that were paid for wait there, and what stands in it is written to the \
                 database"
            )
        }
        Err(_) | Ok(()) => Ok(()),
    }
}

/// As the machine calls itself.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

/// This worker's own spool.
fn make_spool(settings: &Settings, installation: &str, worker: i64) -> anyhow::Result<Option<Arc<spool::Spool>>> {
    let Some(wanted) = &settings.spool else { return Ok(None) };
    match spool::Spool::create(wanted, installation, worker) {
        Ok(spool) => Ok(Some(spool)),
        Err(error) if settings.spool_is_optional => {
            tracing::warn!(
                error = %error,
                dir = %wanted.dir.display(),
                "there is no spool: answers that come while the database is away wait in memory. Set [spool] dir"
            );
            Ok(None)
        }
        Err(error) => Err(cannot_spool(wanted, &error)),
    }
}

fn cannot_spool(wanted: &spool::SpoolSettings, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "the spool {} cannot be used: {error}. Correct [spool] dir, or set it to \"off\"",
        wanted.dir.display()
    )
}

/// Waits until nothing is left to be written, or until what is left is on the disk and the database has had its time;
/// returns how many outcomes are left there.
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

/// What is left of the spool of a worker that has signed off: nothing.
async fn close_spool(shared: &Shared) {
    let Some(spool) = shared.settler.spool().cloned() else { return };
    let removed = tokio::task::spawn_blocking(move || spool.forget()).await;
    if let Ok(Err(error)) = removed {
        tracing::debug!(error = %error, "the empty spool stays");
    }
}
