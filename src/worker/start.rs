//! Makes a worker: its number in the database, its spool, and the outcomes that earlier workers left behind.

use super::clock::Clock;
use super::hands::Hands;
use super::heartbeat::Heartbeats;
use super::plan::Plan;
use super::settler::Settler;
use super::traces::SpanQueue;
use super::{GOOD_BYE, Loops, Settings, Shared, Worker, history, opener, outlet, prefixes, schemas, spool};
use crate::domain::Timestamp;
use crate::permissions::{Flaw, require_private_folder};
use crate::store::{Store, StoreError, within};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

impl Worker {
    /// Registers a worker. Before [`Worker::run`] it does only one thing: it writes the outcomes that earlier workers
    /// of this machine left behind, and gives their jobs back.
    ///
    /// # Errors
    /// When the database does not answer or has another schema, or when the spool is required and cannot be opened.
    pub async fn register(store: Store, plan: Plan, settings: Settings) -> anyhow::Result<Self> {
        store.require_schema().await?;
        let (spans, span_loop) = SpanQueue::new(settings.traces.as_ref())
            .map_err(|problem| anyhow::anyhow!("no traces can be sent: {problem}"))?;
        let installation = store.installation().await?;
        if let Some(spool) = &settings.spool {
            require_private(spool)?;
            let left = spool::Spool::abandoned(spool, &installation);
            store.knows_of_jobs(left.iter().flatten().filter_map(|left| left.highest));
            history::look_first(&store).await?;
            match left {
                Ok(left) => Box::pin(outlet::take_over(&store, left, settings.max_crashes)).await?,
                // The failure is reported when this worker's own spool is made.
                Err(_) if settings.spool_is_optional => 0,
                Err(error) => return Err(cannot_spool(spool, &error)),
            };
        } else {
            history::look_first(&store).await?;
        }
        let (id, now) = sign_on(&store).await?;
        let spool = match make_spool(&settings, &installation, id) {
            Ok(spool) => spool,
            Err(error) => {
                // This worker will not start, so its row must not look as if it had.
                let _ = within(GOOD_BYE, "signing off", store.sign_off(id)).await;
                return Err(error);
            }
        };
        let (settler, settle_loop) = Settler::new(store.clone(), spool, spans.clone());
        let budgets = Arc::new(ArcSwap::default());
        let life = format!("{:016x}", RandomState::new().build_hasher().finish());
        let (opener, open_loop) =
            opener::Opener::new(store.clone(), settler.counters().denied.clone(), Arc::clone(&budgets));
        let shared = Arc::new(Shared {
            store,
            clock: Clock::new(now),
            settings: ArcSwap::from_pointee(settings),
            plan: ArcSwap::from_pointee(plan),
            settler,
            spans,
            opener,
            installation,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            hands: Hands::default(),
            pauses: ArcSwap::default(),
            held_up: Mutex::default(),
            budgets,
            prefixes: prefixes::Prefixes::default(),
            schemas: schemas::Schemas::new(),
            life,
            id: AtomicI64::new(id),
            heartbeats: Heartbeats::new(),
            claimer_went_on: Mutex::new(Instant::now()),
            steady_since: Mutex::new(None),
            unheard: Mutex::new(None),
            history: tokio::sync::Mutex::default(),
            beats: AtomicI64::new(0),
            loss: Mutex::new(None),
            confirmed: Mutex::new(None),
            claimed: AtomicU64::new(0),
            started: Instant::now(),
            letters_wanted: Notify::new(),
            outgrown: OnceLock::new(),
        });
        Ok(Self { shared, settle_loop, open_loop, span_loop, loops: Loops::default() })
    }

    /// Finds out whether a worker could register here and now and open its spool, for a command that has other things
    /// to do first. It leaves nothing behind.
    ///
    /// # Errors
    /// Those of [`Worker::register`].
    pub async fn rehearse(store: &Store, settings: &Settings) -> anyhow::Result<()> {
        settings.spool.as_ref().map_or(Ok(()), require_private)?;
        store.require_schema().await?;
        let installation = store.installation().await?;
        let id = store.rehearse_registering().await?;
        let spool = if settings.spool_is_optional { Ok(None) } else { make_spool(settings, &installation, id) };
        if let Some(spool) = spool? {
            spool.forget()?;
        }
        Ok(())
    }
}

/// The worker trusts the answers that it finds in the spool. So a folder that other users can access is refused, even
/// where the spool is optional: the worker cannot tell its own files from theirs.
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

/// Gives this process a number and a lease, under the machine's host name.
pub(super) async fn sign_on(store: &Store) -> Result<(i64, Timestamp), StoreError> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    store.register(&host, pid, env!("CARGO_PKG_VERSION")).await
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
