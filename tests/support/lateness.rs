//! How late news is on a machine that is busy with other things.

use super::clock;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What the news takes that one process gives another, on a machine that has the time: it counts as nothing.
const USUAL: Duration = Duration::from_millis(100);

/// From the refusal to the other process's gate there are a row, a notification, and a look at the row.
const STEPS: u32 = 3;

/// Sends itself notifications through the database, as workers do, until it is dropped.
pub struct Lateness {
    worst: Arc<AtomicU64>,
    watching: JoinHandle<()>,
}

impl Lateness {
    /// Begins to watch.
    pub async fn watch(pool: &PgPool) -> Self {
        let worst = Arc::new(AtomicU64::new(0));
        let (pool, seen) = (pool.clone(), Arc::clone(&worst));
        let mut listener = PgListener::connect_with(&pool).await.unwrap();
        listener.listen("lateness").await.unwrap();
        let watching = tokio::spawn(async move {
            loop {
                let began = clock::instant();
                // Where the test has stopped the database there is no news.
                if sqlx::query("notify lateness").execute(&pool).await.is_ok() && listener.recv().await.is_ok() {
                    let took = u64::try_from(began.elapsed().as_millis()).unwrap();
                    seen.fetch_max(took, Ordering::Relaxed);
                }
                clock::pace(USUAL).await;
            }
        });
        Self { worst, watching }
    }

    /// How much later than on a quiet machine a worker may have heard of what another one was told: nothing on a
    /// machine that is well.
    pub fn of_news(&self) -> Duration {
        Duration::from_millis(self.worst.load(Ordering::Relaxed)).saturating_sub(USUAL) * STEPS
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
