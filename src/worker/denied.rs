//! Work that the database refuses although it is reachable: a right is missing, a table is gone. The refusal lasts
//! until an operator repairs the cause. Until then the worker is of no use, however regularly it beats.

use crate::store::StoreError;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The work that is refused, and the words of each refusal. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Denied(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Denied {
    /// Records how a task went. `what` names the work that stops while the task is refused. A database that is away
    /// tells nothing.
    pub(super) fn note<T>(&self, what: &'static str, outcome: &Result<T, StoreError>) {
        match outcome {
            Ok(_) => {
                self.lock().remove(what);
            }
            Err(error) if error.is_refusal() => {
                self.lock().insert(what, error.to_string());
            }
            Err(_) => {}
        }
    }

    /// The refusals in words; `None`: nothing is refused.
    pub(super) fn words(&self) -> Option<String> {
        let all: Vec<String> = self.lock().iter().map(|(what, error)| format!("{what}: {error}")).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock()
    }
}
