//! What the dashboard and the API stand on: the worker, a way to the database beside the worker's own, and the changes
//! under way.

use super::access::Access;
use super::metrics::Gauged;
use super::problem::{OrProblem, Problem};
use super::tasks::Tasks;
use crate::domain::diagnosis::{self, Finding, Thresholds};
use crate::store::doctor::LookTime;
use crate::store::{Address, Pooler, Purpose, Store, StoreError};
use crate::view::status::StatusView;
use chrono::{DateTime, Utc};
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
/// The doctor looks at most this often.
const FRESH_DIAGNOSIS: Duration = Duration::from_mins(1);
/// How long a page waits for the doctor.
const FOR_THE_DOCTOR: Duration = Duration::from_millis(400);
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
    status: Kept<StatusView>,
    /// The way of the doctor, whose statements end sooner than others.
    doctors_store: OnceCell<Store>,
    diagnosis: Kept<Diagnosis>,
    /// The last one that there was, for pages that come while the doctor looks again.
    last_diagnosis: parking_lot::Mutex<Option<Arc<Diagnosis>>>,
}

/// What the doctor has found.
pub(super) struct Diagnosis {
    pub(super) findings: Vec<Finding>,
    pub(super) looked_at: DateTime<Utc>,
}

/// What is dear to read, and shown for a while once it is read.
type Kept<T> = Mutex<Option<Known<T>>>;

/// What was read a moment ago, or why it could not be read.
struct Known<T> {
    read_at: Instant,
    good_for: Duration,
    what: OrProblem<Arc<T>>,
}

/// What was read at most `fresh` ago, or longer where reading takes long; else it is read now.
async fn kept<T>(place: &Kept<T>, fresh: Duration, read: impl Future<Output = OrProblem<T>>) -> OrProblem<Arc<T>> {
    let came_at = Instant::now();
    // Held while reading: a page that comes meanwhile waits for the same answer, also where that is a problem. While
    // the database is away, each would otherwise wait for all before it.
    let mut known = place.lock().await;
    let is_fresh = |known: &&Known<T>| match known.what {
        Ok(_) => known.read_at.elapsed() < known.good_for,
        Err(_) => known.read_at >= came_at,
    };
    if let Some(known) = known.as_ref().filter(is_fresh) {
        return known.what.clone();
    }
    let asked_at = Instant::now();
    let what = read.await.map(Arc::new);
    let good_for = fresh.max(asked_at.elapsed() * SPARING);
    *known = Some(Known { read_at: Instant::now(), good_for, what: what.clone() });
    what
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
            status: Kept::default(),
            doctors_store: OnceCell::new(),
            diagnosis: Kept::default(),
            last_diagnosis: parking_lot::Mutex::default(),
        }
    }

    /// The status, at most some seconds old.
    pub(super) async fn status(&self) -> OrProblem<Arc<StatusView>> {
        let read = async { Ok(StatusView::from(self.look(async |store| store.status().await).await?)) };
        kept(&self.status, FRESH, Box::pin(read)).await
    }

    /// What the doctor finds, at most a minute ago, or longer where it takes long to look.
    pub(super) async fn diagnosis(&self) -> OrProblem<Arc<Diagnosis>> {
        let read = async {
            let Reach { pooler, address } = &self.reach;
            // One connection: what it does not find in time is not found by a second one beside it.
            let connect = async || Store::connect_through(*pooler, Purpose::Looks, address, 1).await;
            let connecting = self.doctors_store.get_or_try_init(connect);
            let Ok(store) = timeout(FOR_AN_ANSWER, connecting).await else { return Err(too_slow()) };
            let observer = self.gauged.observer();
            let facts = store?.facts(&observer.surroundings(), LookTime::SHORT).await;
            if facts.schema.is_err()
                && let Err(reason) = &facts.server
            {
                return Err(Problem::busy(format!("the doctor cannot look at the database: {reason}")));
            }
            let looked_at = DateTime::from_timestamp_millis(observer.now().0).unwrap_or_default();
            Ok(Diagnosis { findings: diagnosis::diagnose(&facts, Thresholds::default()), looked_at })
        };
        // On the heap: futures of statements are large.
        let found = kept(&self.diagnosis, FRESH_DIAGNOSIS, Box::pin(read)).await?;
        *self.last_diagnosis.lock() = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The same for a page, which does not wait for long: the last findings, or none yet, and whether the doctor looks
    /// now. It goes on looking when the page is made.
    pub(super) async fn diagnosis_soon(self: &Arc<Self>) -> OrProblem<(Option<Arc<Diagnosis>>, bool)> {
        let site = Arc::clone(self);
        let looking = tokio::spawn(async move { site.diagnosis().await });
        match timeout(FOR_THE_DOCTOR, looking).await {
            Ok(Ok(found)) => Ok((Some(found?), false)),
            // It panicked, which its log line says.
            Ok(Err(_)) => Err(Problem::busy("the doctor fell over while it looked: try again")),
            Err(_) => Ok((self.last_diagnosis.lock().clone(), true)),
        }
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
        // On the heap: what makes a connection is large, and every page would hold it in itself.
        let looking = Box::pin(async { read(&self.store().await?).await });
        match timeout(FOR_AN_ANSWER, looking).await {
            Ok(found) => Ok(found?),
            Err(_) => Err(too_slow()),
        }
    }
}

fn too_slow() -> Problem {
    let seconds = FOR_AN_ANSWER.as_secs();
    Problem::busy(format!("the database has not answered within {seconds} s: try again, or ask for less"))
}
