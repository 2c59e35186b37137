//! The shell around the decision: claims jobs, runs them, and settles their outcomes.
//!
//! [`Worker::register`] makes a worker, and [`Worker::run`] starts its loops and takes them down in order. Each claimed
//! job is a task of its own, which goes its [`journey`].

pub mod ahead;
pub mod alerts;
pub mod booked;
pub mod bucket;
mod claimer;
pub mod clock;
mod dealing;
mod denied;
mod front;
mod game_days;
pub mod gate;
mod gossip;
mod hands;
mod heartbeat;
mod held_up;
mod herald;
mod history;
mod journey;
mod keeper;
mod keys;
mod line;
mod loops;
mod money;
mod observer;
mod opener;
mod outcome_batch;
mod outlet;
mod places;
pub mod plan;
mod prefixes;
mod probes;
mod recent;
mod reload;
mod retention;
mod run;
pub mod schedules;
mod schemas;
pub mod settler;
pub mod spool;
mod start;
mod statistics;
mod stop_losses;
mod strangers;
mod suspects;
pub mod traces;
mod troubles;
mod upkeep;

use crate::domain::billing::Tolerance;
use crate::domain::budget::Budgets;
use crate::domain::fork::Taken;
use crate::domain::game_day::GameDay;
use crate::domain::pause::Pauses;
use crate::domain::retention::Retention;
use crate::domain::schedule::Schedule;
use crate::store::settle::Labels;
use crate::store::timeline::Loss;
use crate::store::{SchemaVersion, Store};
use arc_swap::ArcSwap;
use clock::Clock;
use hands::Hands;
pub use loops::Loops;
pub use observer::{Notices, Observer, Vitals};
use parking_lot::Mutex;
use plan::{LanePlan, Plan};
pub use reload::Reloader;
use settler::Settler;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Without a successful heartbeat for this long the worker starts no call: another worker may hold the lease by now.
const SELF_FENCE: Duration = Duration::from_secs(15);

/// A claim loop that has made no progress for this long counts as stalled: it turns at least every second, and what it
/// waits for takes milliseconds.
const STALLED: Duration = Duration::from_secs(10);

/// Successive heartbeats are at most this far apart, even after one that timed out; includes some time to connect.
const STEADY: Duration = Duration::from_secs(10);

/// How long the worker waits for the database when it stops, at least.
const GOOD_BYE: Duration = Duration::from_secs(5);

/// How a worker is to work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Jobs in hand at once, at most.
    pub max_in_flight: usize,
    /// The worker claims no job while the requests in hand take this many bytes.
    pub max_in_flight_bytes: usize,
    /// How long calls under way may go on after a stop.
    pub drain_timeout: Duration,
    /// A job that this many workers died with, the last of which held no other job, is failed rather than tried again.
    pub max_crashes: u16,
    /// How long finished work is kept; `None`: for ever.
    pub retention: Option<Retention>,
    /// How far a cost that a provider reports may be from the computed one.
    pub tolerance: Tolerance,
    /// Batches that are enqueued by the clock.
    pub schedules: Arc<[Arc<Schedule>]>,
    /// Times in which calls fail on purpose.
    pub game_days: Arc<[GameDay]>,
    /// Stops the worker by itself when no work is left.
    pub until_done: bool,
    /// Work on the jobs of this batch only.
    pub only_batch: Option<String>,
    /// Where outcomes wait on disk while the database is away; `None`: in memory.
    pub spool: Option<spool::SpoolSettings>,
    /// Whether the worker runs without a spool when that folder cannot be written to.
    pub spool_is_optional: bool,
    /// What operators are told of, and where; `None`: this worker does not look.
    pub alerts: Option<alerts::Alerting>,
    /// Where traces are sent; `None`: nowhere.
    pub traces: Option<traces::TraceSettings>,
}

/// What the parts of a worker share.
struct Shared {
    store: Store,
    clock: Clock,
    /// The settings as configured now.
    settings: ArcSwap<Settings>,
    /// The plan as configured now; a job that began under an earlier plan switches to this one at its next decision.
    plan: ArcSwap<Plan>,
    settler: Settler,
    /// The way of spans to the collector of traces.
    spans: traces::SpanQueue,
    opener: opener::Opener,
    /// Identifies the database, for spools.
    installation: String,
    /// Set when the worker may claim and call no more; calls under way may finish.
    stop: CancellationToken,
    /// Set when the grace period is over: calls under way are dropped.
    abort: CancellationToken,
    /// The jobs in hand.
    hands: Hands,
    /// The pauses at the claim loop's last look.
    pauses: ArcSwap<Pauses>,
    /// What has lately held up jobs in the queue.
    held_up: Mutex<held_up::HeldUp>,
    /// Where budgets stood at that look.
    budgets: Arc<ArcSwap<Budgets>>,
    /// The beginnings of prompts that providers keep.
    prefixes: prefixes::Prefixes,
    /// The compiled schemas that answers of jobs in hand have to match.
    schemas: schemas::Schemas,
    /// Distinguishes this process from all others, including those that are given its number after the database has
    /// gone back in time.
    life: String,
    /// This process's number in the worker table; changes when the process was declared dead and starts a new life.
    id: AtomicI64,
    heartbeats: heartbeat::Heartbeats,
    /// When the claim loop last turned, or made progress within a turn.
    claimer_went_on: Mutex<Instant>,
    /// Since when every heartbeat has reached the database; `None`: the last one did not reach it.
    steady_since: Mutex<Option<Instant>>,
    /// Why the last heartbeat did not reach the database.
    unheard: Mutex<Option<String>>,
    /// This worker's knowledge of the database's history.
    history: tokio::sync::Mutex<history::Known>,
    /// Number of heartbeats sent.
    beats: AtomicI64,
    /// A commit of this worker that was confirmed and then lost, until the loss is recorded.
    loss: Mutex<Option<Loss>>,
    /// The last heartbeat that the database has confirmed. It outlives a heartbeat loop that begins anew.
    confirmed: Mutex<history::Confirmed>,
    claimed: AtomicU64,
    started: Instant,
    /// Notified when there may be messages of alerts to send.
    letters_wanted: Notify,
    /// Set when a migration has made this binary too old for the database.
    outgrown: OnceLock<SchemaVersion>,
}

/// An event in the worker's life, for the caller to pass on (to systemd, to a progress line).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeSign {
    /// Registered and claiming.
    Ready,
    /// The claim loop has turned.
    Alive,
    /// Stopping: no more claims.
    Stopping,
}

/// Totals of a worker's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub succeeded: u64,
    pub failed: u64,
    pub given_back: u64,
    /// Calls made.
    pub attempts: u64,
    /// Outcomes left in the spool, because the database stayed away until the end.
    pub spooled: u64,
    /// Outcomes that were written nowhere, because the part that writes them had failed again and again.
    pub lost: u64,
    /// It stopped by itself, because the schema had become too new for it.
    pub outgrown: Option<SchemaVersion>,
    /// It stopped by itself, because this part of it had ended unexpectedly.
    pub fallen: Option<&'static str>,
}

impl Shared {
    fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// The route along which the jobs with these labels go instead of their own, because a budget is past its soft
    /// threshold.
    fn other_route(&self, labels: &Labels) -> Option<Taken> {
        money::other_route(&self.budgets.load(), &self.plan(), &labels.route, &labels.project, labels.batch.as_deref())
    }

    /// What jobs of a lane may go along now.
    fn lane(&self, route: &str, project: &str, batch: Option<&str>) -> Option<LanePlan> {
        money::lane(&self.budgets.load(), &self.plan(), route, project, batch)
    }

    /// Stops the worker in order when the schema has become too new for this binary.
    fn mind_schema(&self, version: SchemaVersion) {
        if version.has_outgrown() && self.outgrown.set(version).is_ok() {
            tracing::error!(
                schema = version.found,
                needed = version.oldest,
                known = version.known,
                "this binary is too old for the database's schema, which has been migrated; stopping: upgrade sluice \
                 on this machine"
            );
            self.stop.cancel();
        }
    }

    fn worker_id(&self) -> i64 {
        self.id.load(Ordering::Acquire)
    }

    /// Whether the claim loop has made progress lately.
    fn is_claiming(&self) -> bool {
        self.claimer_went_on.lock().elapsed() < STALLED
    }

    fn lease_is_fresh(&self) -> bool {
        self.last_beat().elapsed() < SELF_FENCE
    }

    /// Whether the database has been reachable for long enough that every live worker has sent a heartbeat. When it
    /// is away for longer than a lease, all leases run out although no worker has died.
    fn others_have_had_their_time(&self) -> bool {
        let since = *self.steady_since.lock();
        since.is_some_and(|since| since.elapsed() >= STEADY)
    }

    /// When the last heartbeat that reached the database was sent.
    fn last_beat(&self) -> Instant {
        self.heartbeats.last()
    }

    fn knows_of_a_loss(&self) -> bool {
        self.loss.lock().is_some()
    }
}

/// One worker process.
pub struct Worker {
    shared: Arc<Shared>,
    settle_loop: settler::SettleLoop,
    open_loop: opener::OpenLoop,
    /// Absent where no traces are sent.
    span_loop: Option<traces::SpanLoop>,
    loops: Loops,
}

impl Worker {
    /// The loops that the worker consists of, for other tasks that have to run as long as the worker does.
    #[must_use]
    pub fn loops(&self) -> Loops {
        self.loops.clone()
    }

    /// A handle to observe the worker while it runs.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer { shared: Arc::clone(&self.shared) }
    }

    /// A handle to give the worker another configuration while it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader { shared: Arc::clone(&self.shared) }
    }
}
