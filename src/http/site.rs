//! What the dashboard and the API stand on: the worker, a way to the database beside the worker's own, and the changes
//! under way.

use super::access::Access;
use super::metrics::Gauged;
use super::problem::{OrProblem, Problem};
use super::tasks::Tasks;
use crate::store::{Address, Pooler, Purpose, Store, StoreError};
use crate::view::status::StatusView;
use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

/// Connections to the database: few, so that people who look on take none from the work.
const CONNECTIONS: u32 = 3;
/// How long a page waits for one of them.
const FOR_A_PLACE: Duration = Duration::from_secs(4);
/// Every page shows what the queue waits for. It is asked for at most this often …
const FRESH: Duration = Duration::from_secs(2);
/// … and if that takes long, for at most this part of the time.
const SPARING: u32 = 10;
/// How long a page waits for the database.
const FOR_AN_ANSWER: Duration = Duration::from_secs(9);

/// The way to the database.
#[derive(Clone, Debug)]
pub struct Reach {
    pub pooler: Pooler,
    pub address: Address,
}

/// What pages show, and to whom.
#[derive(Debug)]
pub struct Pages {
    pub reach: Reach,
    /// The secret that a user must know to open them; `None`: on loopback nothing, and elsewhere they are closed.
    pub token: Option<SecretString>,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether prompts and answers are shown.
    pub bodies: bool,
}

/// The dashboard and the API.
pub(super) struct Site {
    pub(super) gauged: Gauged,
    pub(super) access: Access,
    /// Whether prompts and answers are shown.
    pub(super) bodies: bool,
    pub(super) tasks: Tasks,
    reach: Reach,
    store: OnceCell<Store>,
    places: Semaphore,
    status: Mutex<Option<Known>>,
}

/// The status of a moment ago.
struct Known {
    read_at: Instant,
    good_for: Duration,
    status: Arc<StatusView>,
}

impl Site {
    pub(super) fn new(gauged: Gauged, access: Access, reach: Reach, bodies: bool) -> Self {
        let places = Semaphore::new(CONNECTIONS as usize);
        Self {
            gauged,
            access,
            bodies,
            tasks: Tasks::default(),
            reach,
            store: OnceCell::new(),
            places,
            status: Mutex::default(),
        }
    }

    /// The status, at most some seconds old.
    pub(super) async fn status(&self) -> OrProblem<Arc<StatusView>> {
        // Held while reading: a page that comes meanwhile waits for the same answer.
        let mut known = self.status.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.read_at.elapsed() < known.good_for) {
            return Ok(Arc::clone(&known.status));
        }
        let asked_at = Instant::now();
        let status = Arc::new(StatusView::from(self.look(async |store| store.status().await).await?));
        let good_for = FRESH.max(asked_at.elapsed() * SPARING);
        *known = Some(Known { read_at: Instant::now(), good_for, status: Arc::clone(&status) });
        Ok(status)
    }

    /// The database, by connections of its own. The first page makes them: most workers are never looked at.
    pub(super) async fn store(&self) -> Result<Store, StoreError> {
        let Reach { pooler, address } = &self.reach;
        let connect = async || Store::connect_through(*pooler, Purpose::Commands, address, CONNECTIONS).await;
        self.store.get_or_try_init(connect).await.cloned()
    }

    /// What `read` finds in the database, if it is found in time.
    pub(super) async fn look<T>(&self, read: impl AsyncFnOnce(&Store) -> Result<T, StoreError>) -> OrProblem<T> {
        let Ok(Ok(_place)) = timeout(FOR_A_PLACE, self.places.acquire()).await else {
            return Err(Problem::busy("other pages are waiting for the database: try again in a moment"));
        };
        let looking = async { read(&self.store().await?).await };
        match timeout(FOR_AN_ANSWER, looking).await {
            Ok(found) => Ok(found?),
            Err(_) => Err(Problem::busy(format!(
                "the database has not answered within {} s: try again, or ask for less",
                FOR_AN_ANSWER.as_secs()
            ))),
        }
    }
}
