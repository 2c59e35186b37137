//! Changes of many jobs, which take longer than a request may. They are done a thousand jobs at a time beside
//! everything else, and end with this process: the rest can be asked for again.

use super::problem::{OrProblem, Problem};
use crate::store::Store;
use crate::store::selection::{Deed, Selection, Walked};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// At most so many at a time.
const AT_ONCE: usize = 4;
/// So many are remembered.
const REMEMBERED: usize = 50;
/// How often a step is tried while the database is away, and the pause in between.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);

/// The changes of this process.
#[derive(Default)]
pub(super) struct Tasks(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The number of the latest.
    latest: u64,
    /// The oldest first.
    all: VecDeque<Arc<Mutex<Task>>>,
}

/// A change of many jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "a list is read with the name of each thing")]
pub(super) struct Task {
    pub(super) task: u64,
    /// `cancel`, `retry`, `pause` or `resume`.
    pub(super) action: &'static str,
    /// Of which jobs, in words.
    pub(super) of: String,
    /// `running`, `done` or `failed`.
    pub(super) state: &'static str,
    /// Jobs that were changed so far.
    pub(super) jobs: i64,
    /// How long it has taken so far.
    pub(super) seconds: u64,
    /// Why it has failed.
    pub(super) error: Option<String>,
}

impl Tasks {
    /// All that are remembered, the newest first.
    pub(super) fn all(&self) -> Vec<Task> {
        self.0.lock().all.iter().rev().map(|task| task.lock().clone()).collect()
    }

    /// One of them.
    pub(super) fn get(&self, number: u64) -> Option<Task> {
        self.all().into_iter().find(|task| task.task == number)
    }

    /// Starts a change.
    ///
    /// # Errors
    /// When too many are under way.
    pub(super) fn start(&self, store: Store, selection: Selection, deed: Deed, of: String) -> OrProblem<Task> {
        let mut known = self.0.lock();
        if known.all.iter().filter(|task| task.lock().state == "running").count() >= AT_ONCE {
            let words = format!("{AT_ONCE} changes are under way on this worker: ask again when one of them is done");
            return Err(Problem::busy(words));
        }
        known.latest += 1;
        let (task, action) = (known.latest, deed.as_str());
        let task = Task { task, action, of, state: "running", jobs: 0, seconds: 0, error: None };
        let shared = Arc::new(Mutex::new(task.clone()));
        known.all.push_back(Arc::clone(&shared));
        if known.all.len() > REMEMBERED {
            known.all.pop_front();
        }
        drop(known);
        tokio::spawn(carry_out(store, selection, deed, shared));
        Ok(task)
    }
}

async fn carry_out(store: Store, selection: Selection, deed: Deed, task: Arc<Mutex<Task>>) {
    let began = Instant::now();
    let (mut walked, mut tries) = (Walked::default(), 0);
    while !walked.is_all {
        match store.change_next(&selection, &deed, walked).await {
            Ok(further) => (walked, tries) = (further, 0),
            Err(error) if error.is_transient() && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                let mut task = task.lock();
                task.state = "failed";
                task.error = Some(error.to_string());
                tracing::warn!(jobs = walked.jobs, error = %error, "a change of many jobs ended before its end");
                return;
            }
        }
        let mut task = task.lock();
        (task.jobs, task.seconds) = (walked.jobs, began.elapsed().as_secs());
    }
    task.lock().state = "done";
    tracing::info!(action = deed.as_str(), jobs = walked.jobs, "jobs were changed by the dashboard or the API");
}
