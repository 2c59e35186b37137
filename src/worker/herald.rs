//! Tells sessions that listen which jobs have ended. No outcome waits for that, and a notice that cannot be given is
//! dropped: it is a hint, and the result is in the database whether it was heard or not.

use crate::store::{Store, StoreError, within};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::Notify;

/// Another transaction of the server may hold up notices for as long as its commit takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Jobs that may wait to be told of; beyond that, the listeners are far behind anyway.
const MOST: usize = 50_000;

/// The jobs of which no session was told yet.
#[derive(Debug, Default)]
pub(super) struct Herald {
    ended: Mutex<Vec<i64>>,
    noted: Notify,
}

impl Herald {
    /// Notes jobs whose endings are committed.
    pub fn note(&self, jobs: impl IntoIterator<Item = i64>) {
        let mut ended = self.ended.lock();
        ended.extend(jobs);
        if ended.len() > MOST {
            ended.clear();
        }
        if !ended.is_empty() {
            self.noted.notify_one();
        }
    }

    /// Tells of them in one statement, however many they are.
    ///
    /// # Errors
    /// Those of the database. The notices are dropped then.
    pub async fn tell(&self, store: &Store) -> Result<(), StoreError> {
        let jobs = std::mem::take(&mut *self.ended.lock());
        if jobs.is_empty() {
            return Ok(());
        }
        within(PATIENCE, "telling which jobs have ended", store.tell_ended(&jobs)).await
    }

    /// Tells of jobs as they are noted. Runs until it is aborted.
    pub async fn run(&self, store: &Store) {
        loop {
            self.noted.notified().await;
            if let Err(error) = self.tell(store).await {
                tracing::debug!(error = %error, "a notice of jobs that have ended was dropped");
            }
        }
    }
}
